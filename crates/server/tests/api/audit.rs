//! The audit log over HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keymoat_core::auditor::ExportCheck;
use keymoat_core::checkpoint::Checkpoint;
use serde_json::{Value, json};

use crate::common::House;

#[tokio::test]
async fn records_are_found_page_by_page() {
    let house = House::new().await;
    for number in 0..5 {
        house.put(&format!("prod/log/s{number}"), "made-up").await;
    }
    let writes = house.owner("GET", "/api/v1/audit?action=write&path=log&limit=2").send().await.ok();
    assert_eq!(paths(&writes), ["log/s4", "log/s3"]);
    let next =
        house.owner("GET", &format!("/api/v1/audit?action=write&path=log&limit=2&before={}", writes["next"]));
    assert_eq!(paths(&next.send().await.ok()), ["log/s2", "log/s1"]);
    let oldest =
        house.owner("GET", "/api/v1/audit?action=write&path=log&limit=2&oldest_first=true").send().await.ok();
    assert_eq!(paths(&oldest), ["log/s0", "log/s1"]);
    let on = format!("/api/v1/audit?action=write&path=log&limit=2&oldest_first=true&from={}", oldest["next"]);
    assert_eq!(paths(&house.owner("GET", &on).send().await.ok()), ["log/s2", "log/s3"]);
    let event = &oldest["events"][0];
    assert_eq!(event["actor_name"], "os:ana");
    assert_eq!(serde_json::from_str::<Value>(event["record"].as_str().unwrap()).unwrap(), event["event"]);
    let by_account = house.owner("GET", "/api/v1/audit?account=admin").send().await.ok();
    assert_eq!(by_account["events"], json!([]));
    house.owner("GET", "/api/v1/audit?action=flown").send().await.refused(400, "invalid", "action");
    house.owner("GET", "/api/v1/audit?account=nobody").send().await.refused(404, "not_found", "nobody");
}

#[tokio::test]
async fn hosts_write_down_their_own_sensitive_actions() {
    let house = House::new().await;
    let post = |body| house.owner("POST", "/api/v1/audit/events").json(body);
    let event = json!({ "action": "payment processed", "result": "allowed", "details": { "amount": 1200, "test": false } });
    let recorded = post(event).send().await;
    assert_eq!(recorded.status, 201);
    let record = house.newest_record("action=host").await;
    assert_eq!(record["seq"], recorded.json["event"]);
    assert_eq!(record["details"]["host_action"], "payment processed");
    let key = "sk_live_51MadeUpExample0000KeymoatTest";
    let reply =
        post(json!({ "action": "made up", "result": "allowed", "details": { "note": key } })).send().await;
    assert!(!reply.text.contains(key));
    reply.refused(422, "invalid", "looks like a key");
    post(json!({ "action": "", "result": "allowed" })).send().await.refused(422, "invalid", "empty");
    post(json!({ "action": "x", "result": "maybe" })).send().await.refused(422, "invalid", "");
    post(json!({ "action": "x", "result": "failed", "details": { "deep": {} } }))
        .send()
        .await
        .refused(422, "invalid", "details");
}

#[tokio::test]
async fn records_are_proved_and_the_log_verified() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let checkpoint = house.owner("GET", "/api/v1/audit/checkpoint").send().await.ok();
    assert!(checkpoint["checkpoint"].as_str().unwrap().starts_with("keymoat/"));
    let proof = house.owner("GET", "/api/v1/audit/1/proof").send().await.ok();
    assert_eq!((&proof["seq"], &proof["key"]), (&json!(1), &checkpoint["key"]));
    assert!(!proof["proof"].as_array().unwrap().is_empty());
    house.owner("GET", "/api/v1/audit/99999/proof").send().await.refused(404, "not_found", "99999");
    house.owner("GET", "/api/v1/audit/x/proof").send().await.refused(400, "invalid", "digits");
    let verified = house.owner("POST", "/api/v1/audit/verify").send().await.ok();
    assert_eq!((&verified["intact"], &verified["problems"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn the_log_is_written_out_with_the_checkpoint_over_it() {
    let house = House::new().await;
    house.put("prod/log/a", "made-up").await;
    let reply = house.owner("GET", "/api/v1/audit/export").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/jsonl"));
    let note = BASE64.decode(reply.header("keymoat-checkpoint")).unwrap();
    let (head, _) = Checkpoint::parse(std::str::from_utf8(&note).unwrap()).unwrap();
    let mut check = ExportCheck::new([&head]);
    reply.text.lines().for_each(|line| check.line(line.as_bytes()));
    let found = check.finish();
    assert_eq!((found.checked, found.beyond, found.problems), (head.size(), 0, vec![]));
    let last: Value = serde_json::from_str(reply.text.lines().last().unwrap()).unwrap();
    assert_eq!(last["action"], "audit_export");
    let checkpoint = house.owner("GET", "/api/v1/audit/checkpoint").send().await.ok();
    assert_eq!(checkpoint["key"], reply.header("keymoat-audit-key"));
    let part = house.owner("GET", "/api/v1/audit/export?path=log&action=write").send().await;
    assert_eq!(part.text.lines().count(), 1);
    let none = house.owner("GET", "/api/v1/audit/export?path=nothing/here").send().await;
    assert_eq!((none.status.as_u16(), none.text.as_str()), (200, ""));
    house.owner("GET", "/api/v1/audit/export?limit=5").send().await.refused(400, "invalid", "limit");
    house.owner("GET", "/api/v1/audit/export?account=nobody").send().await.refused(
        404,
        "not_found",
        "nobody",
    );
}

#[tokio::test]
async fn personal_data_is_erased_beside_the_records() {
    let house = House::new().await;
    house.put("prod/log/a", "made-up").await;
    let erase = |body| house.owner("POST", "/api/v1/audit/erase-personal").json(body);
    let erased = erase(json!({ "account": "os:ana" })).send().await.ok();
    assert!(erased["records"].as_u64().unwrap() > 0, "{erased}");
    let record = house.owner("GET", "/api/v1/audit?action=write&path=log").send().await.ok();
    assert_eq!(record["events"][0]["actor_name"], Value::Null);
    assert!(record["events"][0]["event"]["personal"].is_string());
    let verified = house.owner("POST", "/api/v1/audit/verify").send().await.ok();
    assert_eq!(verified["intact"], true, "{verified}");
    erase(json!({})).send().await.refused(422, "invalid", "whose");
    erase(json!({ "before": "yesterday" })).send().await.refused(422, "invalid", "before");
    erase(json!({ "account": "nobody" })).send().await.refused(404, "not_found", "nobody");
}

fn paths(page: &Value) -> Vec<&str> {
    page["events"].as_array().unwrap().iter().map(|event| event["event"]["path"].as_str().unwrap()).collect()
}
