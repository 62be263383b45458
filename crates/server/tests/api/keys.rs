//! The vault's own keys and backups over HTTP.

use keymoat_crypto::MasterKey;
use serde_json::json;

use crate::common::{House, text_of};

fn proof(house: &House) -> serde_json::Value {
    json!({ "key": text_of(&house.master) })
}

#[tokio::test]
async fn a_slot_is_added_by_who_can_open_the_vault_already() {
    let house = House::new().await;
    let new =
        |proof| json!({ "kind": "key", "master": text_of(&MasterKey::generate().to_text()), "proof": proof });
    let add = |body| house.owner("POST", "/api/v1/rekey/slots").json(body).send();
    let wrong = json!({ "key": text_of(&MasterKey::generate().to_text()) });
    add(new(wrong)).await.refused(403, "refused", "opens none");
    let none = json!({ "kind": "key", "master": text_of(&MasterKey::generate().to_text()) });
    add(none).await.refused(422, "invalid", "proof");
    assert_eq!(add(new(proof(&house))).await.status, 201);
}

#[tokio::test]
async fn slots_are_added_and_removed_on_the_vaults_own_machine() {
    let house = House::new().await;
    let (token, _) = house.token("os:ana", 600).await;
    let new =
        json!({ "kind": "key", "master": text_of(&MasterKey::generate().to_text()), "proof": proof(&house) });
    let over_network =
        house.client("POST", "/api/v1/rekey/slots", Some(&token)).json(new.clone()).send().await;
    let problem = over_network.refused(403, "refused", "does not travel");
    assert_eq!(house.newest_record("result=refused").await["request"], problem["request"]);
    let added = house.owner("POST", "/api/v1/rekey/slots").json(new).send().await;
    assert_eq!(added.status, 201, "{}", added.text);
    assert_eq!(added.ok()["id"], 2);
    let keys = house.owner("GET", "/api/v1/rekey").send().await.ok();
    assert_eq!(keys["slots"].as_array().unwrap().len(), 2);
    let wrong = json!({ "key": text_of(&MasterKey::generate().to_text()) });
    let removing = house.owner("POST", "/api/v1/rekey/slots/2/remove");
    assert!(!removing.json(wrong).send().await.status.is_success());
    let other = json!({ "key": text_of(&house.master) });
    let removed = house.owner("POST", "/api/v1/rekey/slots/2/remove").json(other).send().await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    let half = json!({ "kind": "shamir", "master": text_of(&MasterKey::generate().to_text()), "needed": 3, "shares": 2, "proof": proof(&house) });
    house.owner("POST", "/api/v1/rekey/slots").json(half).send().await.refused(422, "invalid", "shamir");
}

#[tokio::test]
async fn the_root_key_changes_on_the_vaults_own_machine() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let token = house.service("shop", json!([])).await;
    let (remote, _) = house.token("os:ana", 600).await;
    let master = MasterKey::generate();
    let recovery = json!({ "kind": "key", "master": text_of(&master.to_text()), "proof": proof(&house) });
    assert_eq!(house.owner("POST", "/api/v1/rekey/slots").json(recovery).send().await.status, 201);
    let keep = json!([{ "slot": 1, "offer": { "key": text_of(&house.master) } }]);
    let body = json!({ "keep": keep, "drop": [2] });
    let over_network =
        house.client("POST", "/api/v1/rekey/root", Some(&remote)).json(body.clone()).send().await;
    over_network.refused(403, "refused", "does not travel");
    assert_eq!(house.newest_record("result=refused").await["path"], "keys/root");
    let half = house.owner("POST", "/api/v1/rekey/root").json(json!({ "keep": keep })).send().await;
    half.refused(409, "conflict", "slot 2 would be lost");
    let wrong = json!({ "keep": [{ "slot": 2, "offer": { "key": text_of(&house.master) } }], "drop": [1] });
    assert!(!house.owner("POST", "/api/v1/rekey/root").json(wrong).send().await.status.is_success());
    house
        .owner("POST", "/api/v1/rekey/root")
        .json(json!({ "keep": [] }))
        .send()
        .await
        .refused(422, "invalid", "no slot");

    let rotated = house.owner("POST", "/api/v1/rekey/root").json(body).send().await.ok();
    assert_eq!((&rotated["kept"][0]["id"], &rotated["dropped"][0]["id"]), (&json!(1), &json!(2)));
    assert_eq!((&rotated["peppers"], &rotated["rows_under_old_root"]), (&json!(1), &json!(0)));
    let revealed = house.owner("POST", "/api/v1/reveal/prod/stripe").send().await.ok();
    assert_eq!(revealed["value"]["text"], "made-up");
    house.client("GET", "/api/v1/whoami", Some(&token)).send().await.ok();
}

#[tokio::test]
async fn data_keys_and_peppers_change_while_it_serves() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up").await;
    let token = house.service("shop", json!([])).await;
    let rotated = house
        .owner("POST", "/api/v1/rekey/data-key")
        .json(json!({ "environment": "prod" }))
        .send()
        .await
        .ok();
    assert_eq!((&rotated["reencrypted"], &rotated["rows_under_old_keys"]), (&json!(1), &json!(0)));
    assert_eq!(
        house.owner("POST", "/api/v1/reveal/prod/stripe").send().await.ok()["value"]["text"],
        "made-up"
    );
    let pepper = house.owner("POST", "/api/v1/rekey/pepper").send().await.ok();
    assert_eq!(pepper["newest"], 2);
    house.client("GET", "/api/v1/whoami", Some(&token)).send().await.ok();
}

#[tokio::test]
async fn a_backup_is_a_stream() {
    let house = House::new().await;
    house.put("prod/stripe", "made-up-value-in-the-vault").await;
    let backup = house.owner("POST", "/api/v1/backup").send().await;
    assert_eq!((backup.status.as_u16(), backup.header("content-type")), (200, "application/octet-stream"));
    assert!(backup.text.starts_with("keymoat-backup-1\n"), "{:.40}", backup.text);
    assert!(!backup.text.contains("made-up-value-in-the-vault"));
}
