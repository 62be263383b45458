//! Whether texts are stored values: who may ask, what the answer tells, and what is on record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keymoat_detect::Sieve;
use serde_json::{Value, json};

use crate::common::House;

const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatTest";
const TOKEN: &str = "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU";
const OTHER: &str = "v8Rk3PzN5cWx1TyG7mQd9LbJ2hSf4UaE";

fn may(capabilities: &[&str], paths: &[&str]) -> Value {
    json!([{ "capabilities": capabilities, "environments": ["prod"], "paths": paths }])
}

async fn ask(house: &House, token: &str, body: Value) -> Value {
    house.client("POST", "/api/v1/match", Some(token)).json(body).send().await.ok()
}

async fn sieve(house: &House, token: &str, body: Value) -> Value {
    house.client("POST", "/api/v1/match/sieve", Some(token)).json(body).send().await.ok()
}

#[tokio::test]
async fn texts_are_told_by_those_who_may_match() {
    let house = House::new().await;
    house.put("prod/stripe", STRIPE).await;
    house.put("prod/internal/erp", TOKEN).await;
    house.put("staging/erp", OTHER).await;
    house.put("prod/short", "hunter2").await;
    let candidates = json!([OTHER, STRIPE, "no such text at all", TOKEN, "hunter2"]);
    let found = async |token: &str, environment: Value| {
        let answer =
            ask(&house, token, json!({ "environment": environment, "candidates": candidates })).await;
        answer["matches"].as_array().unwrap().clone()
    };
    let filter = house.service("filter", may(&["match"], &["**"])).await;
    assert_eq!(found(&filter, json!("prod")).await, [json!({ "candidate": 1 }), json!({ "candidate": 3 })]);
    assert_eq!(found(&filter, Value::Null).await.len(), 2, "`staging` is not his to match");
    let narrow = house.service("narrow", may(&["match", "inspect"], &["internal/**"])).await;
    let named = json!({ "candidate": 3, "secret": "prod/internal/erp" });
    assert_eq!(found(&narrow, json!("prod")).await, [named]);
    let record = house.newest_record("action=match").await;
    assert_eq!((&record["path"], &record["result"]), (&json!("internal/erp"), &json!("allowed")));
    for answer in [sieve(&house, &filter, json!({})).await, record] {
        assert!(!answer.to_string().contains(TOKEN));
    }
}

#[tokio::test]
async fn who_may_only_read_or_match_elsewhere_is_refused() {
    let house = House::new().await;
    house.put("prod/stripe", STRIPE).await;
    let reader = house.service("reader", may(&["reveal", "inspect", "list"], &["**"])).await;
    let filter = house.service("filter", may(&["match"], &["**"])).await;
    for (token, environment) in [(&reader, "prod"), (&filter, "staging")] {
        for (path, body) in [
            ("/api/v1/match", json!({ "environment": environment, "candidates": [STRIPE] })),
            ("/api/v1/match/sieve", json!({ "environment": environment })),
        ] {
            let reply = house.client("POST", path, Some(token)).json(body).send().await;
            reply.refused(403, "refused", "may not match anything");
            let record = house.newest_record("action=match").await;
            assert_eq!(record["result"], "refused");
        }
    }
    let many = vec!["made-up"; 1001];
    let body = json!({ "candidates": many });
    let reply = house.client("POST", "/api/v1/match", Some(&filter)).json(body).send().await;
    reply.refused(413, "too_large", "more than 1000");
}

#[tokio::test]
async fn a_sieve_lets_all_own_values_pass_and_is_made_anew_after_a_change() {
    let house = House::new().await;
    house.put("prod/stripe", STRIPE).await;
    let fields = json!({ "value": { "fields": { "user": "shop", "token": TOKEN } } });
    house.owner("PUT", "/api/v1/secrets/prod/erp").json(fields).send().await.ok();
    let filter = house.service("filter", may(&["match"], &["**"])).await;
    let first = sieve(&house, &filter, json!({ "environment": "prod" })).await;
    assert_eq!(first["values"], 2);
    let made = Sieve::from_bytes(&BASE64.decode(first["sieve"].as_str().unwrap()).unwrap()).unwrap();
    assert!(made.may_hold(STRIPE.as_bytes()) && made.may_hold(TOKEN.as_bytes()));
    let again = sieve(&house, &filter, json!({ "environment": "prod", "unless": first["change"] })).await;
    assert_eq!(again, json!({ "change": first["change"] }));
    // The older version is a value as before.
    house.put("prod/stripe", OTHER).await;
    let later = sieve(&house, &filter, json!({ "environment": "prod", "unless": first["change"] })).await;
    assert_eq!(later["values"], 3);
    assert_ne!(later["sieve"], first["sieve"]);
    let both = ask(&house, &filter, json!({ "candidates": [STRIPE, OTHER] })).await;
    assert_eq!(both["matches"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn one_record_covers_a_minute_of_looking() {
    let house = House::new().await;
    house.put("prod/stripe", STRIPE).await;
    let filter = house.service("filter", may(&["match"], &["**"])).await;
    let matches = async || {
        let page = house.owner("GET", "/api/v1/audit?limit=100&action=match").send().await.ok();
        page["events"].as_array().unwrap().len()
    };
    for _ in 0..3 {
        ask(&house, &filter, json!({ "environment": "prod", "candidates": ["no such text"] })).await;
        ask(&house, &filter, json!({ "environment": "prod", "candidates": [STRIPE] })).await;
    }
    assert_eq!(matches().await, 2, "one of looking, one of what was found");
    house.forward(jiff::SignedDuration::from_secs(61));
    ask(&house, &filter, json!({ "environment": "prod", "candidates": [STRIPE] })).await;
    assert_eq!(matches().await, 3);
}
