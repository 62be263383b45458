//! The door for proxies: who passes, what the application is told, and that a refusal tells nothing.

use std::net::SocketAddr;

use keymoat_server::Peer;
use serde_json::{Value, json};

use crate::common::{Call, House, Reply};

/// A key of the owner `odoo:res.users:42`, with these terms beside.
async fn issue(house: &House, terms: Value) -> (String, Value) {
    let mut body = json!({ "owner": "odoo:res.users:42", "environment": "prod", "name": "made up" });
    body.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
    let made = house.owner("POST", "/api/v1/keys").json(body).send().await.ok();
    (made["key"].as_str().unwrap().to_owned(), made["about"].clone())
}

/// A request as a proxy on the network sends it.
fn asks<'h>(house: &'h House, method: &str, path: &str) -> Call<'h> {
    let addr: SocketAddr = "192.0.2.1:40000".parse().unwrap();
    house.call(method, path, Peer::Tcp { addr })
}

#[track_caller]
fn check_refused(reply: &Reply, status: u16) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
    for name in reply.headers.keys() {
        assert!(!name.as_str().starts_with("x-keymoat-") || name == "x-keymoat-status", "{name}");
    }
    for told in ["odoo", "made up", "prod", "km_"] {
        assert!(!reply.text.contains(told), "{}", reply.text);
    }
}

#[tokio::test]
async fn a_good_key_passes_by_any_method_and_path() {
    let house = House::new().await;
    let (key, about) = issue(&house, json!({ "scopes": ["orders.*"] })).await;
    for (method, path) in [
        ("GET", "/forward-auth/default"),
        ("GET", "/forward-auth/default?proxy=nginx"),
        ("GET", "/forward-auth/default?page=2&token=made-up"),
        ("POST", "/forward-auth/default/orders/7"),
        ("DELETE", "/forward-auth/default/a%20b/../c//d?token=made-up&scopes=*"),
        ("OPTIONS", "/forward-auth/default/"),
        ("PROPFIND", "/forward-auth/default/orders"),
    ] {
        let call = asks(&house, method, path).header("api-key", &key).header("if-match", "\"1\"");
        let reply = call.header("idempotency-key", "made up").send().await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text);
        assert_eq!((reply.text.as_str(), reply.header("content-length")), ("", "0"));
        assert_eq!(reply.header("x-keymoat-key-id"), about["id"].as_str().unwrap());
        assert_eq!(reply.header("x-keymoat-scopes"), "orders.*");
        let ours = reply.headers.keys().filter(|name| name.as_str().starts_with("x-keymoat-")).count();
        assert_eq!(ours, 12);
    }
}

#[tokio::test]
async fn what_is_no_good_key_is_refused_without_a_word_of_it() {
    let house = House::new().await;
    let (key, about) = issue(&house, json!({})).await;
    let door = |path: &'static str| asks(&house, "GET", path);
    check_refused(&door("/forward-auth/default").send().await, 401);
    check_refused(&door("/forward-auth/other").header("api-key", &key).send().await, 401);
    check_refused(&door("/forward-auth/Default").header("api-key", &key).send().await, 400);
    check_refused(&door("/forward-auth/default").header("api-key", "made up").send().await, 401);
    check_refused(
        &door("/forward-auth/default").header("authorization", "Basic bWFkZTp1cA==").send().await,
        401,
    );
    let twice = door("/forward-auth/default").header("api-key", &key).header("api-key", &key);
    check_refused(&twice.send().await, 401);
    let in_query = asks(&house, "GET", &format!("/forward-auth/default?api-key={key}")).send().await;
    check_refused(&in_query, 401);
    let scoped = door("/forward-auth/default?scopes=orders.read").header("api-key", &key);
    check_refused(&scoped.send().await, 403);
    let nonsense = door("/forward-auth/default?scopes=((").header("api-key", &key);
    check_refused(&nonsense.send().await, 400);
    let revoke = format!("/api/v1/keys/{}/revoke", about["id"].as_str().unwrap());
    house.owner("POST", &revoke).json(json!({})).send().await.ok();
    check_refused(&door("/forward-auth/default").header("api-key", &key).send().await, 401);
}

#[tokio::test]
async fn limits_are_told_as_the_proxy_can_pass_them_on() {
    let house = House::new().await;
    let (key, _) = issue(&house, json!({ "limits": "1/1d" })).await;
    let door = |path: &'static str| asks(&house, "GET", path).header("api-key", &key);
    assert_eq!(door("/forward-auth/default").send().await.status, 200);
    let plain = door("/forward-auth/default").send().await;
    check_refused(&plain, 429);
    assert_eq!(plain.header("retry-after"), "86400");
    let nginx = door("/forward-auth/default?proxy=nginx").send().await;
    check_refused(&nginx, 403);
    assert_eq!((nginx.header("x-keymoat-status"), nginx.header("retry-after")), ("429", "86400"));
}

#[tokio::test]
async fn an_address_that_is_only_said_is_not_believed() {
    let house = House::new().await;
    let (key, _) = issue(&house, json!({ "networks": ["198.51.100.0/24"] })).await;
    let said = asks(&house, "GET", "/forward-auth/default").header("api-key", &key);
    check_refused(&said.header("x-forwarded-for", "198.51.100.7").send().await, 403);
    let addr = "198.51.100.7:40000".parse().unwrap();
    let there = house.call("GET", "/forward-auth/default", Peer::Tcp { addr }).header("api-key", &key);
    assert_eq!(there.send().await.status, 200);
}

#[tokio::test]
async fn a_sealed_server_lets_nobody_pass() {
    let house = House::new().await;
    let (key, _) = issue(&house, json!({})).await;
    assert_eq!(house.owner("POST", "/api/v1/seal").send().await.status, 204);
    for path in ["/forward-auth/default", "/forward-auth/default/orders?token=made-up"] {
        check_refused(&asks(&house, "GET", path).header("api-key", &key).send().await, 503);
    }
}
