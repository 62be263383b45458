//! The feed of changes, and waiting for it.

use serde_json::json;

use crate::common::House;

#[tokio::test]
async fn the_feed_has_no_values_and_only_what_may_be_listed() {
    let house = House::new().await;
    let start = house.owner("GET", "/api/v1/changes").send().await.ok();
    assert_eq!(start["changes"], json!([]));
    house.put("prod/stripe", "made-up-value").await;
    house.put("staging/twilio", "made-up-value").await;
    let path = format!("/api/v1/changes?after={}", start["next"]);
    let all = house.owner("GET", &path).send().await;
    assert!(!all.text.contains("made-up-value"));
    let all = all.ok();
    let paths: Vec<&str> =
        all["changes"].as_array().unwrap().iter().map(|c| c["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["stripe", "twilio"]);
    assert_eq!(all["changes"][0]["version"], 1);
    let rules = json!([{ "capabilities": ["list"], "environments": ["staging"], "paths": ["**"] }]);
    let lister = house.service("lister", rules).await;
    let some = house.client("GET", &path, Some(&lister)).send().await.ok();
    assert_eq!(some["changes"].as_array().unwrap().len(), 1);
    let rules = json!([{ "capabilities": ["reveal"], "environments": ["prod"], "paths": ["stripe"] }]);
    let reader = house.service("reader", rules).await;
    let own = house.client("GET", &path, Some(&reader)).send().await.ok();
    assert_eq!(own["changes"][0]["path"], "stripe");
    assert_eq!(own["changes"].as_array().unwrap().len(), 1);
    let nothing = house.owner("GET", &format!("/api/v1/changes?after={}", own["next"])).send().await.ok();
    assert_eq!((&nothing["changes"], &nothing["next"]), (&json!([]), &own["next"]));
}

#[tokio::test]
async fn who_waits_is_told_at_once() {
    let house = House::new().await;
    let start = house.owner("GET", "/api/v1/changes").send().await.ok();
    let waiting = house.owner("GET", &format!("/api/v1/changes?after={}&wait_secs=60", start["next"])).send();
    let (waited, _) = tokio::join!(waiting, house.put("prod/stripe", "made-up"));
    assert_eq!(waited.ok()["changes"][0]["path"], "stripe");
}

#[tokio::test]
async fn waiting_ends_by_itself() {
    let house = House::new().await;
    let start = house.owner("GET", "/api/v1/changes").send().await.ok();
    let after = &start["next"];
    let waited = house.owner("GET", &format!("/api/v1/changes?after={after}&wait_secs=1")).send().await.ok();
    assert_eq!(waited, json!({ "changes": [], "next": after }));
    house.owner("GET", &format!("/api/v1/changes?after={after}&wait_secs=61")).send().await.refused(
        400,
        "invalid",
        "wait_secs",
    );
    house.owner("GET", "/api/v1/changes?after=99999999").send().await.refused(409, "conflict", "higher");
    house.owner("GET", "/api/v1/changes?after=x").send().await.refused(400, "invalid", "after");
}
