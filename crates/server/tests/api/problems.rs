//! Errors have one form whoever makes them, and say nothing of what was sent.

use axum::body::Body;
use keymoat_server::Peer;
use serde_json::json;

use crate::common::House;

#[tokio::test]
async fn who_is_refused_too_often_is_told_when_to_come_back() {
    let house = House::new().await;
    let token = house.service("outsider", json!([])).await;
    house.forward(jiff::SignedDuration::from_secs(15));
    let ask = || house.client("GET", "/api/v1/audit", Some(&token)).send();
    for _ in 0..60 {
        ask().await.refused(403, "refused", "may not inspect");
    }
    let late = ask().await;
    assert_eq!(late.header("retry-after"), "45");
    late.refused(429, "rate_limited", "too many");
    house.client("GET", "/api/v1/whoami", Some(&token)).send().await.ok();
    house.forward(jiff::SignedDuration::from_secs(45));
    ask().await.refused(403, "refused", "may not inspect");
}

#[tokio::test]
async fn every_error_has_the_same_form() {
    let house = House::new().await;
    let token = house.service("outsider", json!([])).await;
    let put = "/api/v1/secrets/prod/stripe";
    let replies = [
        (house.owner("GET", "/nothing/here").send().await, 404),
        (house.owner("GET", "/api/v1/nothing").send().await, 404),
        (house.owner("DELETE", "/api/v1/whoami").send().await, 405),
        (house.client("GET", "/api/v1/whoami", None).send().await, 401),
        (house.client("GET", "/api/v1/audit", Some(&token)).send().await, 403),
        (house.owner("GET", "/api/v1/secrets/prod/nothing").send().await, 404),
        (house.owner("GET", "/api/v1/secrets/prod/Stripe").send().await, 400),
        (house.owner("PUT", put).body("{hush").header("content-type", "application/json").send().await, 400),
        (house.owner("PUT", put).body("hush").send().await, 415),
        (house.owner("PUT", put).json(json!({ "value": { "text": 3 } })).send().await, 422),
        (house.owner("PUT", put).send().await, 415),
        (house.owner("GET", "/api/v1/audit?nothing=hush").send().await, 400),
        (house.owner("GET", "/api/v1/audit?limit=hush").send().await, 400),
        (house.owner("GET", "/api/v1/audit?since=hush").send().await, 400),
    ];
    for (reply, status) in replies {
        assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.json["type"], "about:blank");
        assert_eq!(reply.json["status"], status);
        assert_eq!(reply.json["request"], reply.header("x-request-id"));
        assert!(
            reply.json["title"].is_string()
                && reply.json["detail"].is_string()
                && reply.json["code"].is_string()
        );
        assert!(!reply.text.contains("hush"), "{}", reply.text);
    }
}

#[tokio::test]
async fn answers_carry_what_keeps_them_from_being_kept() {
    let house = House::new().await;
    for reply in
        [house.owner("GET", "/api/v1/whoami").send().await, house.owner("GET", "/nothing").send().await]
    {
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"));
    }
    let wrong_method = house.owner("DELETE", "/api/v1/whoami").send().await;
    assert!(wrong_method.header("allow").contains("GET"));
}

#[tokio::test]
async fn a_number_of_our_form_is_kept_and_any_other_replaced() {
    let house = House::new().await;
    let own = "01890a5d-ac96-774b-bcce-b302099a8057";
    let kept = house.owner("GET", "/api/v1/environments").header("x-request-id", own).send().await;
    assert_eq!(kept.header("x-request-id"), own);
    let replaced = house.owner("GET", "/api/v1/environments").header("x-request-id", "made up").send().await;
    assert_ne!(replaced.header("x-request-id"), "made up");
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let house = House::new().await;
    let large = "x".repeat(1024 * 1024 + 1);
    let call = house.owner("PUT", "/api/v1/secrets/prod/stripe").header("content-type", "application/json");
    call.body(large.clone()).send().await.refused(413, "too_large", "1048576 bytes");
    let announced = house.client("PUT", "/api/v1/secrets/prod/stripe", None);
    let reply = announced.header("content-length", "99999999").body(Body::empty()).send().await;
    reply.refused(413, "too_large", "1048576 bytes");
}

#[tokio::test]
async fn a_token_in_the_address_is_refused_whoever_asks() {
    let house = House::new().await;
    let token = house.service("outsider", json!([])).await;
    for query in [format!("token={token}"), format!("access_token={token}"), format!("company={token}")] {
        for call in [
            house.owner("GET", &format!("/api/v1/tokens?{query}")),
            house.client("GET", &format!("/api/v1/status?{query}"), None),
        ] {
            let reply = call.send().await;
            assert!(!reply.text.contains(&token));
            reply.refused(400, "invalid", "does not belong into the address");
        }
    }
}

#[tokio::test]
async fn a_token_wins_over_the_peer_and_a_bad_one_is_not_passed_over() {
    let house = House::new().await;
    let token = house.service("outsider", json!([])).await;
    let owner = house.owner("GET", "/api/v1/whoami").send().await.ok();
    assert_eq!(owner["account"], "os:ana");
    let bearer =
        house.owner("GET", "/api/v1/whoami").header("authorization", &format!("Bearer {token}")).send().await;
    assert_eq!(bearer.ok()["account"], "outsider");
    let own = house.owner("GET", "/api/v1/whoami").header("x-keymoat-token", &token).send().await;
    assert_eq!(own.ok()["account"], "outsider");
    let bad = house.owner("GET", "/api/v1/whoami").header("x-keymoat-token", "kms_nonsense").send().await;
    bad.refused(401, "not_signed_in", "not valid");
    let bad = house.owner("GET", "/api/v1/status").header("x-keymoat-token", "kms_nonsense").send().await;
    bad.refused(401, "not_signed_in", "not valid");
    let nameless = house.call("GET", "/api/v1/whoami", Peer::Local).send().await;
    nameless.refused(401, "not_signed_in", "nobody");
    let odd = house.call("GET", "/api/v1/whoami", Peer::OsUser { name: "Ána B".to_owned() }).send().await;
    assert_eq!(odd.status, 401);
}

#[tokio::test]
async fn what_clients_say_of_themselves_is_recorded_and_bounded() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let call = house.owner("POST", "/api/v1/reveal/prod/stripe").header("x-keymoat-module", "sale");
    call.header("x-keymoat-on-behalf-of", "Ana\u{202e}").send().await.ok();
    let record = house.newest_record("action=reveal").await;
    assert_eq!(record["module"], "sale");
    assert_eq!(record["on_behalf_of"], "Ana\\u{202e}");
    let call = house.owner("GET", "/api/v1/whoami").header("x-keymoat-module", &"a".repeat(300));
    call.send().await.refused(400, "invalid", "x-keymoat-module");
}
