//! Requests that are sent again.

use serde_json::json;

use crate::common::House;

const STRIPE: &str = "/api/v1/secrets/prod/stripe";

#[tokio::test]
async fn the_same_request_is_done_once() {
    let house = House::new().await;
    let put = || {
        house
            .owner("PUT", STRIPE)
            .json(json!({ "value": { "text": "made-up" } }))
            .header("idempotency-key", "k1")
    };
    let first = put().send().await;
    let again = put().send().await;
    assert_eq!((first.status, &first.json), (again.status, &again.json));
    assert_eq!(first.header("etag"), again.header("etag"));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(house.owner("GET", STRIPE).send().await.ok()["head"], 1);
    let other = house
        .owner("PUT", STRIPE)
        .json(json!({ "value": { "text": "other" } }))
        .header("idempotency-key", "k1");
    other.send().await.refused(422, "invalid", "another request");
    let conditional = put().header("if-match", "\"v1\"");
    conditional.send().await.refused(422, "invalid", "another request");
    house.forward(jiff::SignedDuration::from_hours(25));
    put().send().await.ok();
    assert_eq!(house.owner("GET", STRIPE).send().await.ok()["head"], 2);
}

#[tokio::test]
async fn what_was_not_done_can_be_tried_again() {
    let house = House::new().await;
    let rollback = || {
        house
            .owner("POST", "/api/v1/rollback/prod/stripe")
            .json(json!({ "version": 1 }))
            .header("idempotency-key", "k2")
    };
    rollback().send().await.refused(404, "not_found", "");
    house.put("prod/stripe", "made-up-1").await;
    house.put("prod/stripe", "made-up-2").await;
    rollback().send().await.ok();
    assert_eq!(rollback().send().await.header("idempotency-replayed"), "true");
}

#[tokio::test]
async fn an_empty_answer_is_remembered_too() {
    let house = House::new().await;
    house.service("shop", json!([])).await;
    let delete = || house.owner("DELETE", "/api/v1/accounts/shop").header("idempotency-key", "k3");
    assert_eq!(delete().send().await.status, 204);
    let again = delete().send().await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (204, ""));
}

#[tokio::test]
async fn keys_are_each_callers_own() {
    let house = House::new().await;
    let rules = json!([{ "capabilities": ["write"], "environments": ["prod"], "paths": ["**"] }]);
    let token = house.service("shop", rules).await;
    let body = json!({ "value": { "text": "made-up" } });
    house.owner("PUT", STRIPE).json(body.clone()).header("idempotency-key", "k4").send().await.ok();
    let other =
        house.client("PUT", STRIPE, Some(&token)).json(body).header("idempotency-key", "k4").send().await;
    assert!(other.headers.get("idempotency-replayed").is_none());
    assert_eq!(other.ok()["version"], 2);
}

#[tokio::test]
async fn answers_with_values_are_never_kept() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    for (path, body) in [
        ("/api/v1/reveal/prod/stripe", json!({})),
        ("/api/v1/resolve", json!({ "name": "stripe", "environment": "prod" })),
        ("/api/v1/accounts/admin/tokens", json!({ "ttl_secs": 60 })),
    ] {
        let reply = house.owner("POST", path).json(body).header("idempotency-key", "k5").send().await;
        reply.refused(400, "invalid", "takes no `Idempotency-Key`");
    }
    let long = house
        .owner("PUT", STRIPE)
        .json(json!({ "value": { "text": "x" } }))
        .header("idempotency-key", &"k".repeat(200));
    long.send().await.refused(422, "invalid", "128");
    let malformed =
        house.owner("PUT", STRIPE).json(json!({ "value": { "text": "x" } })).header("idempotency-key", "a b");
    malformed.send().await.refused(422, "invalid", "visible");
}

#[tokio::test]
async fn who_may_no_longer_do_it_gets_no_remembered_answer() {
    let house = House::new().await;
    let rules = json!([{ "capabilities": ["write"], "environments": ["prod"], "paths": ["**"] }]);
    let token = house.service("shop", rules).await;
    let send = |path: &str, body| {
        house.client("PUT", path, Some(&token)).json(body).header("idempotency-key", "k6").send()
    };
    let body = || json!({ "value": { "text": "made-up" } });
    send("/api/v1/secrets/staging/stripe", body()).await.refused(403, "refused", "may not write");
    send(STRIPE, body()).await.ok();
    send("/api/v1/secrets/staging/stripe", body()).await.refused(403, "refused", "may not write");
    assert_eq!(send(STRIPE, body()).await.header("idempotency-replayed"), "true");
    house.owner("PATCH", "/api/v1/accounts/shop").json(json!({ "policies": [] })).send().await.ok();
    send(STRIPE, body()).await.refused(403, "refused", "may not write");
}

#[tokio::test]
async fn everybody_may_send_what_is_about_himself_again() {
    let house = House::new().await;
    let token = house.service("shop", json!([])).await;
    let (own, id) = house.token("shop", 3600).await;
    let path = format!("/api/v1/tokens/{id}");
    let end = |token: &str| house.client("DELETE", &path, Some(token)).header("idempotency-key", "k7").send();
    assert_eq!(end(&token).await.status, 204);
    house.client("GET", "/api/v1/whoami", Some(&own)).send().await.refused(401, "not_signed_in", "");
}
