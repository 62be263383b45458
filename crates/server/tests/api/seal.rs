//! Sealing and unsealing: who may, what a sealed server says, shares of several people, and what is on record.

use jiff::SignedDuration;
use keymoat_crypto::{Argon2Params, MasterKey};
use keymoat_server::Peer;
use serde_json::{Value, json};

use crate::common::{House, Reply, text_of};

async fn sealed() -> House {
    let house = House::new().await;
    house.put("prod/stripe", "made-up-value").await;
    seal(&house).await;
    house
}

async fn seal(house: &House) {
    let reply = house.owner("POST", "/api/v1/seal").send().await;
    assert_eq!(reply.status, 204, "{}", reply.text);
}

async fn offer(house: &House, offer: Value) -> Reply {
    house.client("POST", "/api/v1/unseal", None).json(offer).send().await
}

/// Adds a slot of two shares of three and gives the shares.
async fn split(house: &House) -> Vec<String> {
    let master = MasterKey::generate();
    let shares = master.split(2, 3).unwrap().iter().map(|share| text_of(&share.to_text())).collect();
    let body = json!({
        "kind": "shamir", "master": text_of(&master.to_text()), "needed": 2, "shares": 3,
        "proof": { "key": text_of(&house.master) },
    });
    house.owner("POST", "/api/v1/rekey/slots").json(body).send().await.ok();
    shares
}

#[tokio::test]
async fn a_sealed_server_gives_nothing_until_the_master_key_comes() {
    let house = sealed().await;
    let reveal = || house.owner("POST", "/api/v1/reveal/prod/stripe").send();
    let refused = reveal().await.refused(503, "sealed", "not in memory");
    assert!(refused["hint"].as_str().unwrap().contains("keymoat unseal"));
    let status = house.client("GET", "/api/v1/status", None).send().await.ok();
    assert_eq!((&status["sealed"], &status["counts"]), (&json!(true), &Value::Null));
    let metrics = house.call("GET", "/metrics", Peer::Local).send().await;
    assert!(metrics.text.contains("keymoat_sealed 1"), "{}", metrics.text);
    assert!(!metrics.text.contains("keymoat_vault_entities"), "{}", metrics.text);
    house.client("GET", "/metrics", None).send().await.refused(503, "sealed", "");
    let how = house.client("GET", "/api/v1/unseal", None).send().await.ok();
    assert_eq!(how, json!({ "sealed": true, "opens_with": [{ "kind": "key" }], "shares": [] }));

    let other = text_of(&MasterKey::generate().to_text());
    offer(&house, json!({ "key": other })).await.refused(503, "sealed", "does not fit");
    offer(&house, json!({ "key": "made-up" })).await.refused(503, "sealed", "");
    let key = json!({ "key": text_of(&house.master) });
    let opened = house.owner("POST", "/api/v1/unseal").json(key.clone()).send().await.ok();
    assert_eq!(opened["sealed"], false);
    assert_eq!(reveal().await.ok()["value"], json!({ "text": "made-up-value" }));
    offer(&house, key).await.refused(409, "conflict", "not sealed");

    let sealing = house.newest_record("action=seal").await;
    assert_eq!((&sealing["result"], &sealing["path"]), (&json!("allowed"), &json!("seal")));
    let unsealing = house.newest_record("action=unseal").await;
    assert_eq!(unsealing["details"]["failed_attempts"], "2", "{unsealing}");
    assert_eq!(unsealing["details"]["kind"], "key");
    assert_eq!(unsealing["actor_kind"], "os_user", "{unsealing}");
}

#[tokio::test]
async fn shares_of_several_people_wait_for_one_another() {
    let house = House::new().await;
    let shares = split(&house).await;
    let foreign = MasterKey::generate().split(2, 2).unwrap();
    let foreign: Vec<String> = foreign.iter().map(|share| text_of(&share.to_text())).collect();
    seal(&house).await;
    let give = |share: &str| offer(&house, json!({ "shares": [share] }));
    let waits = |reply: Reply, given: u8| {
        let json = reply.ok();
        assert_eq!(
            (&json["sealed"], &json["shares"]),
            (&json!(true), &json!([{ "given": given, "needed": 2 }]))
        );
    };
    waits(give(&shares[0]).await, 1);
    // The same one again is no further, and those of another split are in nobody's way.
    waits(give(&shares[0]).await, 1);
    waits(give(&foreign[0]).await, 1);
    give(&foreign[1]).await.refused(503, "sealed", "does not fit");
    house.forward(SignedDuration::from_mins(10));
    waits(give(&shares[1]).await, 1);
    // Nobody on the network makes the others begin anew.
    house.client("POST", "/api/v1/unseal/reset", None).send().await.refused(403, "refused", "own machine");
    house.owner("POST", "/api/v1/unseal/reset").send().await.ok();
    waits(give(&shares[2]).await, 1);
    give("keymoat-share-1:beef").await.refused(422, "invalid", "cut short");
    assert_eq!(give(&shares[0]).await.ok()["sealed"], false);
    let record = house.newest_record("action=unseal").await;
    assert_eq!((&record["details"]["shares"], &record["details"]["kind"]), (&json!("2"), &json!("shamir")));
    assert_eq!(record["details"]["failed_attempts"], "1", "{record}");
    assert_eq!(record["actor_kind"], "anonymous", "{record}");
}

#[tokio::test]
async fn a_passphrase_opens_and_guessing_is_slow() {
    let house = House::new().await;
    let argon2 = Argon2Params::generate();
    let passphrase = keymoat_crypto::SecretBytes::from_slice(b"a made-up passphrase of a test");
    let master = MasterKey::from_passphrase(&passphrase, &argon2).unwrap();
    let body = json!({
        "kind": "passphrase", "master": text_of(&master.to_text()),
        "argon2": serde_json::to_value(&argon2).unwrap(),
        "proof": { "key": text_of(&house.master) },
    });
    house.owner("POST", "/api/v1/rekey/slots").json(body).send().await.ok();
    seal(&house).await;
    for _ in 0..20 {
        offer(&house, json!({ "key": "made-up" })).await.refused(503, "sealed", "");
    }
    offer(&house, json!({ "key": "made-up" })).await.refused(429, "rate_limited", "too much");
    // The network does not keep out who sits at the machine.
    let right = json!({ "passphrase": text_of(&passphrase) });
    offer(&house, right.clone()).await.refused(429, "rate_limited", "too much");
    let opened = house.call("POST", "/api/v1/unseal", Peer::Local).json(right).send().await.ok();
    assert_eq!(opened["sealed"], false);
}

#[tokio::test]
async fn sealing_takes_the_right_to_rotate() {
    let house = House::new().await;
    let rules = |capability: &str| json!([{ "capabilities": [capability], "environments": ["sys"], "paths": ["seal"] }]);
    let writer = house.service("writer", rules("write")).await;
    house.client("POST", "/api/v1/seal", Some(&writer)).send().await.refused(
        403,
        "refused",
        "may not rotate",
    );
    let sealer = house.service("sealer", rules("rotate")).await;
    assert_eq!(house.client("POST", "/api/v1/seal", Some(&sealer)).send().await.status, 204);
    house.client("POST", "/api/v1/seal", Some(&sealer)).send().await.refused(503, "sealed", "");
}

#[tokio::test]
async fn who_waits_is_answered_before_it_is_sealed_and_it_can_be_done_again() {
    let house = House::new().await;
    for _ in 0..3 {
        let start = house.owner("GET", "/api/v1/changes").send().await.ok();
        let waiting =
            house.owner("GET", &format!("/api/v1/changes?after={}&wait_secs=60", start["next"])).send();
        let (waited, ()) = tokio::join!(waiting, seal(&house));
        assert!(matches!(waited.status.as_u16(), 200 | 503), "{}", waited.text);
        offer(&house, json!({ "key": text_of(&house.master) })).await.ok();
    }
    let verified = house.owner("POST", "/api/v1/audit/verify").send().await.ok();
    assert_eq!(verified["problems"], json!([]), "{verified}");
}
