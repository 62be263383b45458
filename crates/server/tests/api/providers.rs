//! The catalogue over HTTP.

use serde_json::json;

use crate::common::House;

#[tokio::test]
async fn the_catalogue_is_read_and_asked() {
    let house = House::new().await;
    let token = house.service("anybody", json!([])).await;
    let all = house.client("GET", "/api/v1/providers", Some(&token)).send().await.ok();
    assert!(all.as_array().unwrap().len() > 5);
    let stripe = house.client("GET", "/api/v1/providers/stripe", Some(&token)).send().await.ok();
    assert_eq!(stripe["name"], "Stripe");
    let near = house.client("GET", "/api/v1/providers/strpe", Some(&token)).send().await;
    let near = near.refused(404, "not_found", "catalogue");
    assert!(near["hint"].as_str().unwrap().contains("`stripe`"));
    let value = "sk_live_51MadeUpExample0000KeymoatTest";
    let known = house
        .client("POST", "/api/v1/providers/identify", Some(&token))
        .json(json!({ "value": value }))
        .send()
        .await;
    assert!(!known.text.contains(value));
    let known = known.ok();
    assert_eq!(
        (&known["known"], &known["provider"], &known["mode"]),
        (&json!(true), &json!("stripe"), &json!("live"))
    );
    let unknown =
        house.client("POST", "/api/v1/providers/identify", Some(&token)).json(json!({ "value": "made-up" }));
    assert_eq!(unknown.send().await.ok()["known"], false);
}
