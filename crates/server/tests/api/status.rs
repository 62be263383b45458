//! Health, metrics, status, and signing in.

use std::net::SocketAddr;

use keymoat_server::Peer;
use serde_json::json;

use crate::common::House;

#[tokio::test]
async fn strangers_learn_only_whether_it_works() {
    let house = House::new().await;
    assert_eq!(house.client("GET", "/healthz", None).send().await.text, "ok\n");
    assert_eq!(house.client("GET", "/readyz", None).send().await.text, "ok\n");
    let stranger = house.client("GET", "/api/v1/status", None).send().await.ok();
    assert!(stranger["counts"].is_null(), "{stranger}");
    assert_eq!(stranger["sealed"], false);
    let owner = house.owner("GET", "/api/v1/status").send().await.ok();
    assert_eq!(owner["counts"]["environments"], 2);
    let nobody =
        house.call("GET", "/api/v1/status", Peer::OsUser { name: "mallory".to_owned() }).send().await.ok();
    assert!(nobody["counts"].is_null(), "{nobody}");
}

#[tokio::test]
async fn a_code_signs_in_once() {
    let house = House::new().await;
    let sign_in = || house.client("POST", "/api/v1/sign-in/code", None).json(json!({ "code": house.code }));
    let issued = sign_in().send().await.ok();
    let token = issued["token"].as_str().unwrap();
    assert_eq!(issued["about"]["account"], "admin");
    let who = house.client("GET", "/api/v1/whoami", Some(token)).send().await.ok();
    assert_eq!((&who["account"], &who["kind"]), (&json!("admin"), &json!("user")));
    assert_eq!(who["token"], issued["about"]["id"]);
    sign_in().send().await.refused(401, "not_signed_in", "code");
}

#[tokio::test]
async fn metrics_are_for_the_socket_or_for_who_may_see_them() {
    let house = House::new().await;
    house.put("prod/stripe-of-metrics", "made-up").await;
    let rules = json!([{ "capabilities": ["inspect"], "environments": ["sys"], "paths": ["metrics"] }]);
    let watcher = house.service("watcher", rules).await;
    let metrics = house.call("GET", "/metrics", Peer::Local).send().await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.contains("keymoat_http_requests_total{"), "{}", metrics.text);
    assert!(metrics.text.contains("route=\"/api/v1/secrets/{environment}/{*path}\""), "{}", metrics.text);
    assert!(metrics.text.contains("keymoat_vault_entities{kind=\"secrets\"} 1"), "{}", metrics.text);
    assert!(!metrics.text.contains("stripe"), "{}", metrics.text);
    assert_eq!(house.client("GET", "/metrics", Some(&watcher)).send().await.status, 200);
    assert!(metrics.text.contains("keymoat_sealed 0"), "{}", metrics.text);
    // A proxy on this machine has a loopback address, too.
    let near: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    let over_tcp = house.call("GET", "/metrics", Peer::Tcp { addr: near });
    over_tcp.send().await.refused(401, "not_signed_in", "nobody");
}

#[tokio::test]
async fn places_are_made_on_purpose_and_again_without_harm() {
    let house = House::new().await;
    let put = || house.owner("PUT", "/api/v1/environments/dev").json(json!({ "description": "for trying" }));
    let first = put().send().await.ok();
    house.forward(jiff::SignedDuration::from_secs(60));
    assert_eq!(put().send().await.ok(), first);
    let all = house.owner("GET", "/api/v1/environments").send().await.ok();
    let names: Vec<&str> =
        all.as_array().unwrap().iter().map(|place| place["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dev", "prod", "staging"]);
    let companies = house.owner("GET", "/api/v1/companies").send().await.ok();
    assert_eq!(companies[0]["name"], "acme");
    house
        .owner("PUT", "/api/v1/environments/sys")
        .json(json!({}))
        .send()
        .await
        .refused(400, "invalid", "reserved");
    house.owner("PUT", "/api/v1/companies/Acme").json(json!({})).send().await.refused(
        400,
        "invalid",
        "upper-case",
    );
}
