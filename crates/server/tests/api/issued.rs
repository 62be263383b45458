//! Issued keys over HTTP: what is said to whom, and that a presented key is never said back.

use serde_json::{Value, json};

use crate::common::House;

async fn issue(house: &House, body: Value) -> (String, String) {
    let made = house.owner("POST", "/api/v1/keys").json(body).send().await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["key"]), text(&made["about"]["id"]))
}

async fn verify(house: &House, token: &str, body: Value) -> Value {
    house.client("POST", "/api/v1/keys/verify", Some(token)).json(body).send().await.ok()
}

fn verifies() -> Value {
    json!([{ "capabilities": ["match"], "environments": ["sys"], "paths": ["spaces/default/*"] }])
}

#[tokio::test]
async fn a_key_is_issued_verified_replaced_and_revoked() {
    let house = House::new().await;
    let api = house.service("api", verifies()).await;
    let stranger = house.service("stranger", json!([])).await;
    let body = json!({
        "owner": "odoo:res.users:42", "environment": "prod", "scopes": ["orders.read"], "expires_secs": 7_776_000,
        "limits": "100/1s,10000/1d", "name": "web shop", "meta": { "plan": "gold" },
    });
    let (key, id) = issue(&house, body).await;
    let good = verify(&house, &api, json!({ "key": key, "scopes": "orders.read" })).await;
    assert_eq!((&good["valid"], &good["code"]), (&json!(true), &json!("VALID")));
    assert_eq!(good["owner"], "odoo:res.users:42");
    assert_eq!(good["meta"]["plan"], "gold");
    assert_eq!(good["limits"][0], json!({ "limit": "100/1s", "remaining": 99, "reset_secs": 1 }));
    let none = verify(&house, &stranger, json!({ "key": key })).await;
    assert_eq!(none, json!({ "valid": false, "code": "NOT_FOUND" }));
    let none = verify(&house, &api, json!({ "key": "km_prod_nonsense" })).await;
    assert_eq!(none, json!({ "valid": false, "code": "MALFORMED" }));
    let keys = json!({ "keys": [{ "key": key, "scopes": "stock.read" }, { "key": "x" }, { "key": key }] });
    let batch = house.client("POST", "/api/v1/keys/verify-batch", Some(&api)).json(keys).send().await.ok();
    let codes: Vec<&Value> = batch["results"].as_array().unwrap().iter().map(|it| &it["code"]).collect();
    assert_eq!(codes, ["INSUFFICIENT_PERMISSIONS", "MALFORMED", "VALID"]);

    let whoami = house.client("GET", "/api/v1/keys/whoami", Some(&key)).send().await.ok();
    assert_eq!((&whoami["key_id"], &whoami["name"]), (&json!(id), &json!("web shop")));
    let path = format!("/api/v1/keys/{id}/reroll");
    let made = house.owner("POST", &path).json(json!({ "overlap_secs": 86_400 })).send().await.ok();
    let successor = made["about"]["id"].as_str().unwrap();
    assert_eq!(verify(&house, &api, json!({ "key": key })).await["successor"], successor);
    assert_eq!(verify(&house, &api, json!({ "key": made["key"] })).await["code"], "VALID");
    let path = format!("/api/v1/keys/{id}/revoke");
    let revoked = house.owner("POST", &path).json(json!({ "reason": "compromised" })).send().await.ok();
    assert_eq!((&revoked["status"], &revoked["revoked_because"]), (&json!("revoked"), &json!("compromised")));
    assert_eq!(verify(&house, &api, json!({ "key": key })).await["code"], "REVOKED");
    let list = house.owner("GET", "/api/v1/keys?status=active").send().await.ok();
    assert_eq!(list["keys"][0]["id"], successor);
    let new_key = made["key"].as_str().unwrap();
    let ended = house.client("POST", "/api/v1/keys/self-revoke", Some(new_key)).json(json!({})).send().await;
    assert_eq!(ended.status, 204);
    assert_eq!(verify(&house, &api, json!({ "key": new_key })).await["code"], "REVOKED");
    for shown in [key.as_str(), new_key] {
        let log = house.owner("GET", "/api/v1/audit?limit=1000").send().await;
        assert!(!log.text.contains(&shown[8..]), "no key is in the log");
    }
}

#[tokio::test]
async fn misuse_is_a_problem_and_says_nothing_back() {
    let house = House::new().await;
    let api = house.service("api", verifies()).await;
    let issue = async |body: Value| house.owner("POST", "/api/v1/keys").json(body).send().await;
    for (more, says) in [
        (json!({ "scopes": ["orders read"] }), "scope"),
        (json!({ "limits": "100 per second" }), "limit"),
        (json!({ "networks": ["10.0.0.1/8"] }), "networks"),
        (json!({ "owner": "a b" }), "owner"),
        (json!({ "owner_kind": "king" }), "kind of owner"),
        (json!({ "expires_secs": 0 }), "lasts"),
        (json!({ "name": "sk_live_51MadeUpExample0000KeymoatTest" }), "looks like a key"),
    ] {
        let mut body = json!({ "owner": "erp", "environment": "prod" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let problem = issue(body).await.refused(422, "invalid", says);
        assert!(!problem.to_string().contains("MadeUp"));
    }
    issue(json!({ "owner": "erp", "environment": "nowhere" })).await.refused(404, "not_found", "nowhere");
    let wide = json!({ "owner": "erp", "environment": "prod", "networks": ["0.0.0.0/0"] });
    let wide = issue(wide).await.ok();
    assert!(wide["warnings"][0].as_str().unwrap().contains("0.0.0.0/0"));
    let ask =
        async |body: Value| house.client("POST", "/api/v1/keys/verify", Some(&api)).json(body).send().await;
    ask(json!({ "key": wide["key"], "scopes": "a AND" })).await.refused(422, "invalid", "");
    ask(json!({ "key": wide["key"], "client_ip": "nearby" })).await.refused(422, "invalid", "client_ip");
    ask(json!({ "key": wide["key"], "client_ip": "10.0.0.1" })).await.refused(403, "refused", "clients");
    house.client("GET", "/api/v1/keys/whoami", None).send().await.refused(401, "not_signed_in", "");
    house.client("GET", "/api/v1/keys/whoami", Some(&api)).send().await.refused(401, "not_signed_in", "");
}
