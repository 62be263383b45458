//! Secrets: write, look at, list, describe, delete, reveal; conditions.

use serde_json::{Value, json};

use crate::common::House;

const STRIPE: &str = "/api/v1/secrets/prod/payments/stripe";

#[tokio::test]
async fn a_value_comes_back_as_it_was_written() {
    let house = House::new().await;
    for (number, value) in [
        json!({ "text": "made-up é \n \" text" }),
        json!({ "json": "{\"a\":1,\"b\":{\"c\":[true]}}" }),
        json!({ "base64": "AP/+AQ==" }),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("prod/kind-{number}");
        let put = house
            .owner("PUT", &format!("/api/v1/secrets/{path}"))
            .json(json!({ "value": value }))
            .send()
            .await;
        assert_eq!(put.status, 201, "{}", put.text);
        let revealed = house.owner("POST", &format!("/api/v1/reveal/{path}")).send().await.ok();
        assert_eq!(revealed["value"], value);
        assert_eq!(revealed["version"], 1);
    }
}

#[tokio::test]
async fn fields_go_over_fields_unless_all_are_replaced() {
    let house = House::new().await;
    let put = |body: Value| house.owner("PUT", STRIPE).json(body);
    put(json!({ "value": { "fields": { "secret_key": "made-up-1", "publishable_key": "made-up-2" } } }))
        .send()
        .await
        .ok();
    put(json!({ "value": { "fields": { "secret_key": "made-up-3" } } })).send().await.ok();
    let reveal = |field: &str| {
        house.owner("POST", "/api/v1/reveal/prod/payments/stripe").json(json!({ "field": field }))
    };
    assert_eq!(reveal("secret_key").send().await.ok()["value"]["text"], "made-up-3");
    assert_eq!(reveal("publishable_key").send().await.ok()["value"]["text"], "made-up-2");
    put(json!({ "value": { "fields": { "secret_key": "made-up-4" } }, "replace": true })).send().await.ok();
    reveal("publishable_key").send().await.refused(404, "not_found", "no field");
    let wrong = json!({ "field": "secret_key", "version": 1, "label": "current" });
    let both = house.owner("POST", "/api/v1/reveal/prod/payments/stripe").json(wrong).send().await;
    both.refused(422, "invalid", "cannot both");
    let older = json!({ "field": "secret_key", "version": 1, "why": "looking back" });
    let older = house.owner("POST", "/api/v1/reveal/prod/payments/stripe").json(older).send().await.ok();
    assert_eq!(older["value"]["text"], "made-up-1");
    let record = house.newest_record("action=reveal").await;
    assert_eq!(record["details"]["why"], "looking back");
    assert_eq!(record["seq"], older["event"]);
}

#[tokio::test]
async fn conditions_in_headers_are_kept() {
    let house = House::new().await;
    let body = || json!({ "value": { "text": "made-up" } });
    let put = || house.owner("PUT", STRIPE).json(body());
    let first = put().header("if-none-match", "*").send().await;
    assert_eq!((first.status.as_u16(), first.header("etag")), (201, "\"v1\""));
    put().header("if-none-match", "*").send().await.refused(412, "precondition_failed", "");
    put().header("if-match", "\"v7\"").send().await.refused(412, "precondition_failed", "");
    let second = put().header("if-match", "\"v1\"").send().await;
    assert_eq!((second.status.as_u16(), second.header("etag")), (200, "\"v2\""));
    assert_eq!(house.owner("GET", STRIPE).send().await.header("etag"), "\"v2\"");
    let cas =
        |cas: u32| house.owner("PUT", STRIPE).json(json!({ "value": { "text": "made-up" }, "cas": cas }));
    cas(1).send().await.refused(409, "conflict", "");
    cas(1).header("if-match", "\"v2\"").send().await.refused(400, "invalid", "differ");
    cas(2).send().await.ok();
    let patch = house.owner("PATCH", STRIPE).json(json!({ "owner": "ana" })).header("if-match", "\"v3\"");
    patch.send().await.refused(400, "invalid", "takes no conditions");
}

#[tokio::test]
async fn a_secret_is_shown_masked_and_described() {
    let house = House::new().await;
    let value =
        json!({ "value": { "fields": { "secret_key": KEY } }, "about": { "description": "for the shop" } });
    let written = house.owner("PUT", STRIPE).json(value).send().await.ok();
    assert_eq!(written["is_new"], true);
    let shown = house.owner("GET", STRIPE).send().await;
    assert!(!shown.text.contains(KEY), "{}", shown.text);
    let shown = shown.ok();
    assert_eq!(shown["versions"][0]["fields"][0]["provider"], "stripe");
    assert_eq!(shown["versions"][0]["fields"][0]["mode"], "live");
    assert_eq!(shown["description"], "for the shop");
    let about =
        json!({ "owner": "ana", "add_tags": { "team": "shop" }, "expires_at": "2027-01-31T12:00:00Z" });
    house.owner("PATCH", STRIPE).json(about).send().await.ok();
    let about = json!({ "add_tags": { "tier": "1" }, "expires_at": "", "env_override": "deny" });
    let after = house.owner("PATCH", STRIPE).json(about).send().await.ok();
    assert_eq!(after["tags"], json!({ "team": "shop", "tier": "1" }));
    assert_eq!((&after["owner"], &after["env_override"]), (&json!("ana"), &json!("deny")));
    assert!(after["expires_at"].is_null(), "{after}");
    let many: serde_json::Map<String, Value> = (0..40).map(|n| (format!("tag-{n}"), json!("x"))).collect();
    let too_many = house.owner("PATCH", STRIPE).json(json!({ "add_tags": many })).send().await;
    assert_eq!(too_many.status, 422, "{}", too_many.text);
    let wrong = house.owner("PATCH", STRIPE).json(json!({ "expires_at": "hush" })).send().await;
    wrong.refused(422, "invalid", "expires_at");
}

#[tokio::test]
async fn the_same_key_in_two_environments_is_refused_and_named_to_who_may_know() {
    let house = House::new().await;
    let put = |path: &str| house.owner("PUT", path).json(json!({ "value": { "text": KEY } }));
    put("/api/v1/secrets/prod/stripe").send().await.ok();
    let reply = put("/api/v1/secrets/staging/stripe").send().await;
    assert!(!reply.text.contains(KEY));
    reply.refused(409, "duplicate", "prod/stripe");
    let all_the_same = json!({ "value": { "text": KEY }, "allow_duplicate": "one account for both" });
    house.owner("PUT", "/api/v1/secrets/staging/stripe").json(all_the_same).send().await.ok();
}

#[tokio::test]
async fn lists_go_on_where_they_stopped_and_nowhere_else() {
    let house = House::new().await;
    for number in 0..7 {
        house.put(&format!("prod/list/s{number}"), "made-up").await;
    }
    let page = "/api/v1/secrets?environment=prod&prefix=list&limit=3";
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let reply = house.owner("GET", &format!("{page}&cursor={cursor}")).send().await.ok();
        seen.extend(
            reply["secrets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|secret| secret["path"].as_str().unwrap().to_owned()),
        );
        match reply["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, (0..7).map(|number| format!("list/s{number}")).collect::<Vec<_>>());
    let rules = json!([{ "capabilities": ["list"], "environments": ["*"], "paths": ["**"] }]);
    let other = house.service("lister", rules).await;
    for (query, token) in [
        (format!("environment=staging&prefix=list&cursor={cursor}"), None),
        (format!("environment=prod&cursor={cursor}"), None),
        (format!("environment=prod&prefix=list&cursor={cursor}x"), None),
        (format!("environment=prod&prefix=list&cursor={cursor}"), Some(other.as_str())),
    ] {
        let path = format!("/api/v1/secrets?{query}");
        let reply = match token {
            None => house.owner("GET", &path).send().await,
            Some(token) => house.client("GET", &path, Some(token)).send().await,
        };
        reply.refused(400, "invalid", "cursor");
    }
    house
        .owner("GET", "/api/v1/secrets?environment=prod&limit=0")
        .send()
        .await
        .refused(400, "invalid", "limit");
    house
        .owner("GET", "/api/v1/secrets?environment=prod&limit=1001")
        .send()
        .await
        .refused(400, "invalid", "limit");
    house.owner("GET", "/api/v1/secrets").send().await.refused(400, "invalid", "environment");
    house.owner("GET", "/api/v1/secrets?environment=pord").send().await.refused(404, "not_found", "pord");
}

#[tokio::test]
async fn a_list_shows_names_and_the_rest_to_who_may_inspect() {
    let house = House::new().await;
    described(&house).await;
    house.put("prod/other", "made-up").await;
    let rule =
        |what: &str, path: &str| json!({ "capabilities": [what], "environments": ["prod"], "paths": [path] });
    let lister = house.service("lister", json!([rule("list", "**")])).await;
    let both = house.service("both", json!([rule("list", "**"), rule("inspect", "payments/**")])).await;
    let list =
        async |token: &str| house.client("GET", "/api/v1/secrets?environment=prod", Some(token)).send().await;
    let reply = list(&lister).await;
    check_reduced(&reply.text);
    let page = reply.ok();
    let id = &page["secrets"][1]["id"];
    let reduced = json!({
        "id": id, "environment": "prod", "path": "payments/stripe", "names_only": true, "description": "", "owner": "",
        "tags": {}, "current": 1, "head": 1, "labels": page["secrets"][1]["labels"], "versions": [],
    });
    assert_eq!(page["secrets"][1], reduced);
    let page = list(&both).await.ok();
    assert_eq!(
        (&page["secrets"][0]["path"], &page["secrets"][0]["names_only"]),
        (&json!("other"), &json!(true))
    );
    assert_eq!(page["secrets"][0]["versions"], json!([]));
    assert_eq!(page["secrets"][1], house.owner("GET", STRIPE).send().await.ok());
    assert_eq!(page["secrets"][1]["tags"], json!({ "team": "hush-team" }));
    assert_eq!(page["secrets"][1]["versions"][0]["fields"][0]["provider"], "stripe");
}

#[tokio::test]
async fn a_grant_that_counts_its_uses_is_not_used_by_a_list() {
    let house = House::new().await;
    described(&house).await;
    let rules = json!([{ "capabilities": ["list"], "environments": ["prod"], "paths": ["**"] }]);
    let token = house.service("lister", rules).await;
    let rule = json!({ "capabilities": ["inspect"], "environments": ["prod"], "paths": ["**"] });
    let grant = json!({
        "account": "lister", "rules": [rule], "lasts_secs": 600, "uses": 1, "reason": "an incident",
    });
    house.owner("POST", "/api/v1/grants").json(grant).send().await.ok();
    let list = || house.client("GET", "/api/v1/secrets?environment=prod", Some(&token));
    check_reduced(&list().send().await.text);
    let shown = house.client("GET", STRIPE, Some(&token)).send().await.ok();
    assert_eq!(shown["owner"], "hush-owner");
    house.client("GET", STRIPE, Some(&token)).send().await.refused(403, "refused", "may not inspect");
}

#[tokio::test]
async fn answers_to_writes_show_no_more_than_the_writer_may_inspect() {
    for may_inspect in [false, true] {
        let house = House::new().await;
        described(&house).await;
        let mut capabilities = vec!["write", "rotate", "delete"];
        capabilities.extend(may_inspect.then_some("inspect"));
        let rules = json!([{ "capabilities": capabilities, "environments": ["prod"], "paths": ["**"] }]);
        let token = house.service("writer", rules).await;
        for (number, (method, what, body)) in writes().into_iter().enumerate() {
            let send = async || {
                let path = format!("/api/v1/{what}/prod/payments/stripe");
                let call = house.client(method, &path, Some(&token));
                let call = call.header("idempotency-key", &format!("k{number}"));
                if body.is_null() { call.send().await } else { call.json(body.clone()).send().await }
            };
            let (first, again) = (send().await, send().await);
            assert_eq!(again.header("idempotency-replayed"), "true", "{method} {what}");
            assert_eq!(first.json, again.json);
            let text = first.text.clone();
            let answer = first.ok();
            let secret = if answer["secret"].is_object() { &answer["secret"] } else { &answer };
            assert_eq!(secret["names_only"].is_null(), may_inspect, "{method} {what}: {text}");
            match may_inspect {
                true => assert_eq!(secret["owner"], "hush-owner", "{method} {what}: {text}"),
                false => check_reduced(&text),
            }
        }
    }
}

/// Every write that answers with a secret, in an order in which each succeeds.
fn writes() -> Vec<(&'static str, &'static str, Value)> {
    let put = |value: &str, pending: bool| json!({ "value": { "text": value }, "pending": pending });
    vec![
        ("PUT", "secrets", put("sk_live_51MadeUpExample0002KeymoatTest", false)),
        ("PATCH", "secrets", json!({ "add_tags": { "tier": "hush-tier" } })),
        ("POST", "rollback", json!({ "version": 1 })),
        ("PUT", "secrets", put("sk_live_51MadeUpExample0003KeymoatTest", true)),
        ("POST", "promote", Value::Null),
        ("POST", "labels", json!({ "label": "last-good", "version": 1 })),
        ("DELETE", "secrets", Value::Null),
        ("POST", "undelete", json!({ "versions": [3] })),
        ("POST", "destroy", json!({ "versions": [2] })),
    ]
}

/// Stores a key of a known provider with something said about it.
async fn described(house: &House) {
    let about =
        json!({ "description": "hush-words", "owner": "hush-owner", "add_tags": { "team": "hush-team" } });
    let put = json!({ "value": { "fields": { "secret_key": KEY } }, "about": about });
    house.owner("PUT", STRIPE).json(put).send().await.ok();
}

/// Checks that an answer has nothing that `inspect` protects.
#[track_caller]
fn check_reduced(text: &str) {
    assert!(text.contains("payments/stripe"), "{text}");
    for word in ["hush", "masked", "sk_live", "secret_key", "live", "created", "env_override", "max_versions"]
    {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

#[tokio::test]
async fn companies_have_their_own() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up-shared").await;
    let own = house.owner("PUT", "/api/v1/secrets/prod/stripe?company=acme");
    own.json(json!({ "value": { "text": "made-up-own" } })).send().await.ok();
    let reveal = |query: &str| house.owner("POST", &format!("/api/v1/reveal/prod/stripe{query}"));
    assert_eq!(reveal("").send().await.ok()["value"]["text"], "made-up-shared");
    assert_eq!(reveal("?company=acme").send().await.ok()["value"]["text"], "made-up-own");
    reveal("?company=other").send().await.refused(404, "not_found", "other");
    reveal("?company=acme&company=acme").send().await.refused(400, "invalid", "twice");
}

#[tokio::test]
async fn who_may_not_reveal_is_refused_and_on_record() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let rules = json!([{ "capabilities": ["inspect"], "environments": ["prod"], "paths": ["stripe"] }]);
    let reader = house.service("reader", rules).await;
    house.client("GET", "/api/v1/secrets/prod/stripe", Some(&reader)).send().await.ok();
    let reply = house.client("POST", "/api/v1/reveal/prod/stripe", Some(&reader)).send().await;
    let problem = reply.refused(403, "refused", "may not reveal");
    assert!(problem["hint"].as_str().unwrap().contains("policy explain"));
    let record = house.newest_record("action=reveal&result=refused").await;
    assert_eq!((&record["reason"], &record["request"]), (&json!("no_rule"), &problem["request"]));
}

/// A made-up key of a provider.
const KEY: &str = "sk_live_51MadeUpExample0000KeymoatTest";
