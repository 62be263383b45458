//! Moving between versions.

use serde_json::json;

use crate::common::House;

#[tokio::test]
async fn versions_and_labels_move() {
    let house = House::new().await;
    for number in 1..=3 {
        house.put("prod/stripe", &format!("made-up-{number}")).await;
    }
    let post = |what: &str| house.owner("POST", &format!("/api/v1/{what}/prod/stripe"));
    let rolled = post("rollback").json(json!({ "version": 1 })).send().await.ok();
    assert_eq!(rolled["current"], 1);
    post("rollback").json(json!({ "version": 1 })).send().await.refused(409, "conflict", "already");
    post("rollback").json(json!({ "version": 9 })).send().await.refused(404, "not_found", "");
    post("promote").send().await.refused(409, "conflict", "pending");
    let pending = json!({ "value": { "text": "made-up-4" }, "pending": true });
    house.owner("PUT", "/api/v1/secrets/prod/stripe").json(pending).send().await.ok();
    assert_eq!(post("reveal").send().await.ok()["value"]["text"], "made-up-1");
    assert_eq!(post("promote").send().await.ok()["current"], 4);
    let labelled = post("labels").json(json!({ "label": "last-good", "version": 2 })).send().await.ok();
    assert_eq!(labelled["labels"]["last-good"], 2);
    let by_label = post("reveal").json(json!({ "label": "last-good" })).send().await.ok();
    assert_eq!(by_label["value"]["text"], "made-up-2");
    let gone = post("labels").json(json!({ "label": "last-good" })).send().await.ok();
    assert!(gone["labels"]["last-good"].is_null());
    post("labels")
        .json(json!({ "label": "Wrong!", "version": 2 }))
        .send()
        .await
        .refused(422, "invalid", "label");
}

#[tokio::test]
async fn deleted_versions_come_back_and_destroyed_ones_do_not() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up-1").await;
    house.put("prod/stripe", "made-up-2").await;
    let post = |what: &str| house.owner("POST", &format!("/api/v1/{what}/prod/stripe"));
    let delete = |query: &str| house.owner("DELETE", &format!("/api/v1/secrets/prod/stripe{query}"));
    let deleted = delete("?versions=1,2").send().await.ok();
    assert!(deleted["current"].is_null(), "{deleted}");
    post("reveal").send().await.refused(404, "not_found", "deleted");
    delete("?versions=1,2").send().await.ok();
    delete("?versions=1,x").send().await.refused(400, "invalid", "versions");
    post("undelete").json(json!({ "versions": [2] })).send().await.ok();
    assert_eq!(post("reveal").send().await.ok()["value"]["text"], "made-up-2");
    // Without a body it would be all of them.
    assert_eq!(post("destroy").send().await.status, 415);
    post("destroy").json(json!({ "versions": [2] })).send().await.ok();
    assert!(!post("reveal").send().await.status.is_success());
    assert!(!post("undelete").json(json!({ "versions": [2] })).send().await.status.is_success());
}
