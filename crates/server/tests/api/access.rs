//! Accounts, tokens, policies and grants.

use std::collections::BTreeSet;

use serde_json::json;

use crate::common::House;

#[tokio::test]
async fn accounts_come_change_and_go() {
    let house = House::new().await;
    let new = json!({ "name": "shop", "kind": "service_account", "description": "the shop" });
    let make = || house.owner("POST", "/api/v1/accounts").json(new.clone());
    assert_eq!(make().send().await.status, 201);
    make().send().await.refused(409, "conflict", "shop");
    let changed =
        house.owner("PATCH", "/api/v1/accounts/shop").json(json!({ "policies": ["auditor"] })).send().await;
    assert_eq!(changed.ok()["policies"], json!(["auditor"]));
    assert_eq!(house.owner("GET", "/api/v1/accounts/shop").send().await.ok()["description"], "the shop");
    assert_eq!(house.owner("GET", "/api/v1/accounts/os%3Aana").send().await.ok()["name"], "os:ana");
    assert_eq!(house.owner("GET", "/api/v1/accounts").send().await.ok().as_array().unwrap().len(), 3);
    let gone = house.owner("DELETE", "/api/v1/accounts/shop").send().await;
    assert_eq!((gone.status.as_u16(), gone.text.as_str()), (204, ""));
    house.owner("DELETE", "/api/v1/accounts/shop").send().await.refused(404, "not_found", "shop");
    let wrong = json!({ "name": "x", "kind": "robot" });
    house.owner("POST", "/api/v1/accounts").json(wrong).send().await.refused(422, "invalid", "kind");
}

#[tokio::test]
async fn who_leaves_has_nothing_left() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let rules = json!([{ "capabilities": ["reveal"], "environments": ["prod"], "paths": ["**"] }]);
    let token = house.service("shop", rules).await;
    house.client("POST", "/api/v1/reveal/prod/stripe", Some(&token)).send().await.ok();
    let left = house.owner("POST", "/api/v1/accounts/shop/leave").send().await.ok();
    assert_eq!(left, json!({ "tokens": 1, "grants": 0, "seen": ["prod/stripe"] }));
    house.client("GET", "/api/v1/whoami", Some(&token)).send().await.refused(401, "not_signed_in", "");
}

#[tokio::test]
async fn tokens_are_shown_once_and_end() {
    let house = House::new().await;
    house.service("shop", json!([])).await;
    let make = |body| house.owner("POST", "/api/v1/accounts/shop/tokens").json(body);
    let made =
        make(json!({ "ttl_secs": 600, "renewable_secs": 6000, "networks": ["10.0.0.0/8"] })).send().await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    let (token, id) = (made["token"].as_str().unwrap(), made["about"]["id"].as_str().unwrap());
    let listed = house.owner("GET", "/api/v1/tokens?account=shop").send().await;
    assert!(!listed.text.contains(token));
    assert_eq!(listed.ok().as_array().unwrap().len(), 2);
    house.forward(jiff::SignedDuration::from_secs(300));
    let renewed = house.client("POST", "/api/v1/tokens/renew", Some(token)).send().await.ok();
    assert_ne!(renewed["expires_at"], made["about"]["expires_at"]);
    house.owner("POST", "/api/v1/tokens/renew").send().await.refused(422, "invalid", "no token");
    assert_eq!(house.client("DELETE", &format!("/api/v1/tokens/{id}"), Some(token)).send().await.status, 204);
    house.client("GET", "/api/v1/whoami", Some(token)).send().await.refused(401, "not_signed_in", "");
    house.owner("DELETE", &format!("/api/v1/tokens/{id}")).send().await.refused(404, "not_found", "");
    house.owner("DELETE", "/api/v1/tokens/made-up").send().await.refused(400, "invalid", "token id");
    make(json!({ "ttl_secs": 0 })).send().await.refused(422, "invalid", "");
    make(json!({ "ttl_secs": u64::MAX })).send().await.refused(422, "invalid", "");
    make(json!({ "ttl_secs": 60, "networks": ["hush"] })).send().await.refused(422, "invalid", "networks");
    let elsewhere = make(json!({ "ttl_secs": 60, "networks": ["192.0.2.0/24"] })).send().await.ok();
    let elsewhere = elsewhere["token"].as_str().unwrap();
    house.client("GET", "/api/v1/whoami", Some(elsewhere)).send().await.refused(401, "not_signed_in", "");
}

#[tokio::test]
async fn a_sign_in_code_signs_in() {
    let house = House::new().await;
    let made = house.owner("POST", "/api/v1/accounts/admin/sign-in-code").send().await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    house.client("POST", "/api/v1/sign-in/code", None).json(made).send().await.ok();
}

#[tokio::test]
async fn policies_are_written_explained_and_removed() {
    let house = House::new().await;
    let rule = json!({ "capabilities": ["reveal"], "environments": ["prod"], "paths": ["stripe"] });
    let put = |body| house.owner("PUT", "/api/v1/policies/shop").json(body);
    let written = put(json!({ "description": "the shop", "rules": [rule] })).send().await.ok();
    assert_eq!(written["policy"]["name"], "shop");
    put(json!({ "name": "other", "rules": [] })).send().await.refused(422, "invalid", "name");
    put(json!({ "rules": [{ "capabilities": ["fly"], "environments": ["prod"], "paths": ["**"] }] }))
        .send()
        .await
        .refused(422, "invalid", "cannot be read");
    put(json!({ "rules": "hush" })).send().await.refused(422, "invalid", "cannot be read");
    assert_eq!(house.owner("GET", "/api/v1/policies/shop").send().await.ok(), written);
    assert_eq!(house.owner("GET", "/api/v1/policies").send().await.ok().as_array().unwrap().len(), 4);
    house
        .owner("PUT", "/api/v1/policies/owner")
        .json(json!({ "rules": [] }))
        .send()
        .await
        .refused(409, "conflict", "built in");
    let account = json!({ "name": "shop", "kind": "service_account", "policies": ["shop"] });
    house.owner("POST", "/api/v1/accounts").json(account).send().await.ok();
    house.owner("DELETE", "/api/v1/policies/shop").send().await.refused(409, "conflict", "held by");
    let explain = |resource| json!({ "account": "shop", "capability": "reveal", "resource": resource });
    let yes = house.owner("POST", "/api/v1/policies/explain").json(explain("prod/stripe")).send().await.ok();
    assert_eq!((&yes["allowed"], &yes["rules"][0]["rule"]), (&json!(true), &json!("policy:shop#0")));
    let no = house.owner("POST", "/api/v1/policies/explain").json(explain("prod/twilio")).send().await.ok();
    assert_eq!(
        (&no["allowed"], &no["rules"][0]["matches"]),
        (&json!(false), &json!("it speaks of other paths"))
    );
    house
        .owner("POST", "/api/v1/policies/explain")
        .json(explain("prod"))
        .send()
        .await
        .refused(422, "invalid", "path");
    house.owner("PATCH", "/api/v1/accounts/shop").json(json!({ "policies": [] })).send().await.ok();
    assert_eq!(house.owner("DELETE", "/api/v1/policies/shop").send().await.status, 204);
}

#[tokio::test]
async fn grants_end_by_themselves_or_are_ended() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let token = house.service("shop", json!([])).await;
    let rule = json!({ "capabilities": ["reveal"], "environments": ["prod"], "paths": ["stripe"] });
    let grant =
        |rule| json!({ "account": "shop", "rules": [rule], "lasts_secs": 600, "reason": "an incident" });
    let make = || house.owner("POST", "/api/v1/grants").json(grant(rule.clone()));
    let made = make().send().await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    assert_eq!(
        (&made["state"], &made["account"], &made["granted_by"]),
        (&json!("active"), &json!("shop"), &json!("os:ana"))
    );
    let reveal = || house.client("POST", "/api/v1/reveal/prod/stripe", Some(&token));
    reveal().send().await.ok();
    let own = house.client("GET", "/api/v1/grants?account=shop", Some(&token)).send().await.ok();
    assert_eq!(own[0]["id"], made["id"]);
    let id = made["id"].as_str().unwrap();
    let ended = house.owner("DELETE", &format!("/api/v1/grants/{id}")).send().await.ok();
    assert_eq!(ended["state"], "revoked");
    reveal().send().await.refused(403, "refused", "");
    make().send().await.ok();
    reveal().send().await.ok();
    house.forward(jiff::SignedDuration::from_secs(601));
    reveal().send().await.refused(403, "refused", "");
    let states = house.owner("GET", "/api/v1/grants?account=shop").send().await.ok();
    house.forward(jiff::SignedDuration::from_hours(2));
    let states: BTreeSet<&str> =
        states.as_array().unwrap().iter().map(|g| g["state"].as_str().unwrap()).collect();
    assert_eq!(states, BTreeSet::from(["ended", "revoked"]));
    house.owner("POST", &format!("/api/v1/grants/{id}/approve")).send().await.refused(409, "conflict", "");
    let wrong = grant(json!({ "capabilities": ["fly"] }));
    house.owner("POST", "/api/v1/grants").json(wrong).send().await.refused(422, "invalid", "");
}
