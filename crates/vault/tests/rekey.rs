//! Keys change while the vault serves: everything stays readable, and at the end nothing is under the old key.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod place;

use std::collections::BTreeSet;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use jiff::SignedDuration;
use keymoat_core::audit::{Action, EventFilter, Outcome};
use keymoat_crypto::{Argon2Params, MasterKey, SecretBytes};
use keymoat_store::database_in;
use keymoat_vault::entity::{AccountKind, SlotSource};
use keymoat_vault::{
    Annotation, AuditQuery, AuditRecord, BackupFile, Caller, Code, MasterKeyOffer, NewAccount, NewSlot,
    NewToken, Put, RekeyProgress, RootRotation, Vault, VaultError,
};
use place::{Place, account, contains, environment, name, nobody, origin, owner, put, reveal, text};

fn on(_: RekeyProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn slot() -> (NewSlot, MasterKeyOffer) {
    let master = MasterKey::generate();
    let offer = MasterKeyOffer::Key(master.to_text());
    (NewSlot { source: SlotSource::Key, master }, offer)
}

fn passphrase_slot(phrase: &str) -> (NewSlot, MasterKeyOffer) {
    let phrase = SecretBytes::from_slice(phrase.as_bytes());
    let argon2 = Argon2Params { memory_kib: 8 * 1024, iterations: 1, ..Argon2Params::generate() };
    let master = MasterKey::from_passphrase(&phrase, &argon2).unwrap();
    (NewSlot { source: SlotSource::Passphrase { argon2 }, master }, MasterKeyOffer::Passphrase(phrase))
}

async fn records(vault: &Vault, action: Action) -> Vec<AuditRecord> {
    let filter = EventFilter { action: Some(action), ..EventFilter::default() };
    let query = AuditQuery { filter, oldest_first: true, limit: 1000, ..AuditQuery::default() };
    vault.query_audit(&owner(vault).await, query).await.unwrap()
}

/// The blobs of rows of a kind, as the database has them.
fn blobs(place: &Place, kind: &str) -> Vec<(String, Vec<u8>)> {
    let connection = rusqlite::Connection::open(database_in(&place.data())).unwrap();
    let mut statement = connection
        .prepare("SELECT key, blob FROM state WHERE kind = ?1 AND blob IS NOT NULL ORDER BY key")
        .unwrap();
    let rows = statement.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// The data keys that versions are under.
fn keys_in_use(place: &Place) -> BTreeSet<u32> {
    blobs(place, "version").iter().map(|(_, blob)| keymoat_crypto::data_key_of(blob).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_is_changed_by_adding_one_and_removing_the_other() {
    let here = Place::new();
    let (vault, first) = here.create().await;
    let me = owner(&vault).await;
    put(&vault, &me, "prod/stripe", text("made up")).await;
    let (new, phrase) = passphrase_slot("correct horse, made up");
    assert_eq!(vault.add_slot(&me, new, &first).await.unwrap().id, 2);
    let (new, second) = slot();
    assert_eq!(vault.add_slot(&me, new, &first).await.unwrap().id, 3);
    vault.close().await;

    for offer in [&first, &phrase, &second] {
        let vault = here.open(offer).unwrap();
        assert_eq!(reveal(&vault, &owner(&vault).await, "prod/stripe", None).await.unwrap(), "made up");
        vault.close().await;
    }
    let (_, old) = blobs(&here, "slot").remove(0);
    let vault = here.open(&second).unwrap();
    let me = owner(&vault).await;
    // The proof must be of another slot than the one that goes.
    assert_eq!(vault.remove_slot(&me, 1, &first).await.unwrap_err().code, Code::Sealed);
    assert_eq!(vault.remove_slot(&me, 1, &slot().1).await.unwrap_err().code, Code::Sealed);
    assert_eq!(vault.remove_slot(&me, 9, &second).await.unwrap_err().code, Code::NotFound);
    assert_eq!(vault.list_keys(&me).await.unwrap().slots.len(), 3);
    vault.remove_slot(&me, 1, &second).await.unwrap();
    vault.remove_slot(&me, 2, &second).await.unwrap();
    assert_eq!(vault.remove_slot(&me, 3, &second).await.unwrap_err().code, Code::Conflict);
    let slots = vault.list_keys(&me).await.unwrap().slots;
    assert_eq!(slots.iter().map(|slot| slot.id).collect::<Vec<_>>(), [3]);
    assert!(
        !here.contains(&old),
        "the root key under the old master key is in no file, while it still serves"
    );
    vault.close().await;

    for offer in [&first, &phrase] {
        assert_eq!(here.open(offer).err().unwrap().code, Code::Sealed);
    }
    let vault = here.open(&second).unwrap();
    assert_eq!(reveal(&vault, &owner(&vault).await, "prod/stripe", None).await.unwrap(), "made up");
    assert_eq!(records(&vault, Action::Rekey).await.len(), 4);
    vault.close().await;
    assert_eq!(here.verify(&second).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_open_the_vault_makes_no_key_of_his_own() {
    let here = Place::new();
    let (vault, first) = here.create().await;
    let me = owner(&vault).await;
    for wrong in [slot().1, passphrase_slot("made up words of nobody").1] {
        assert_eq!(vault.add_slot(&me, slot().0, &wrong).await.unwrap_err().code, Code::Refused);
    }
    let refused = records(&vault, Action::Rekey).await;
    assert_eq!(refused.iter().map(|record| record.event.result).collect::<Vec<_>>(), [Outcome::Refused; 2]);
    // The new one is proof for the next, and one that is gone is none.
    let (new, second) = slot();
    vault.add_slot(&me, new, &first).await.unwrap();
    vault.remove_slot(&me, 1, &second).await.unwrap();
    assert_eq!(vault.add_slot(&me, slot().0, &first).await.unwrap_err().code, Code::Refused);
    vault.add_slot(&me, slot().0, &second).await.unwrap();
    vault.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_not_too_many_slots() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    for _ in 1..16 {
        vault.add_slot(&me, slot().0, &offer).await.unwrap();
    }
    assert_eq!(vault.add_slot(&me, slot().0, &offer).await.unwrap_err().code, Code::Conflict);
    vault.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_rotate_changes_no_key() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let stranger = nobody(&vault).await;
    let prod = environment("prod");
    let before = vault.list_keys(&owner(&vault).await).await.unwrap();
    let refused = [
        vault.add_slot(&stranger, slot().0, &offer).await.err().unwrap(),
        vault.remove_slot(&stranger, 1, &offer).await.err().unwrap(),
        vault.rotate_data_key(&stranger, &prod, None, on).await.err().unwrap(),
        vault.rotate_pepper(&stranger).await.err().unwrap(),
        vault.rotate_root(&stranger, vec![(1, slot().1)], none()).await.err().unwrap(),
        vault.list_keys(&stranger).await.err().unwrap(),
    ];
    assert!(refused.iter().all(|error| error.code == Code::Refused), "{refused:?}");
    let recorded = records(&vault, Action::Rekey).await;
    assert_eq!(recorded.iter().map(|record| record.event.result).collect::<Vec<_>>(), [Outcome::Refused; 5]);
    let after = vault.list_keys(&owner(&vault).await).await.unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    vault.close().await;
}

/// Secrets with several versions each; gives what every version of every secret is.
async fn filled(vault: &Vault, me: &Caller, secrets: usize, versions: u32) -> Vec<(String, u32, String)> {
    let mut values = Vec::new();
    for n in 0..secrets {
        for version in 1..=versions {
            let (at, value) = (format!("prod/s-{n}"), format!("made up {n} in version {version}"));
            assert_eq!(put(vault, me, &at, text(&value)).await, version);
            values.push((at, version, value));
        }
    }
    values
}

async fn all_readable(vault: &Vault, me: &Caller, values: &[(String, u32, String)]) {
    for (at, version, value) in values {
        assert_eq!(reveal(vault, me, at, Some(*version)).await.unwrap(), *value, "{at} version {version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_ends_with_no_row_under_it() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    vault.put_company(&me, "acme".parse().unwrap(), String::new()).await.unwrap();
    let values = filled(&vault, &me, 200, 3).await;
    put(&vault, &me, "prod/acme:own", text("made up and its own")).await;
    put(&vault, &me, "dev/other", text("made up elsewhere")).await;
    vault.delete(&me, &name("prod/s-0"), vec![1]).await.unwrap();
    vault.destroy(&me, &name("prod/s-1"), vec![1]).await.unwrap();
    let live = values
        .iter()
        .filter(|(at, version, _)| *version != 1 || !["prod/s-0", "prod/s-1"].contains(&at.as_str()));
    let live: Vec<_> = live.cloned().collect();
    let (old_key, old_ciphertexts) = (blobs(&here, "data_key"), blobs(&here, "version"));

    let mut steps = Vec::new();
    let rotation = vault
        .rotate_data_key(&me, &environment("prod"), None, |step| {
            steps.push(step);
            ControlFlow::Continue(())
        })
        .await
        .unwrap();
    assert_eq!((rotation.reencrypted, rotation.rows_under_old_keys, rotation.scrubbed), (599, 0, true));
    assert_eq!(rotation.ended, [1]);
    assert!(steps.len() > 2 && steps.windows(2).all(|pair| pair[0].done < pair[1].done), "{steps:?}");
    assert!(steps.iter().all(|step| step.total == 599), "{steps:?}");
    all_readable(&vault, &me, &live).await;
    vault.undelete(&me, &name("prod/s-0"), vec![1]).await.unwrap();
    assert_eq!(reveal(&vault, &me, "prod/s-0", Some(1)).await.unwrap(), values[0].2);
    assert_eq!(reveal(&vault, &me, "prod/acme:own", None).await.unwrap(), "made up and its own");
    let files = here.bytes();
    assert!(!contains(&files, &old_key[0].1), "the old key is in no file");
    // Those of the company and the other environment stay.
    let gone = old_ciphertexts.iter().filter(|(_, blob)| keymoat_crypto::data_key_of(blob) == Ok(1));
    assert!(gone.clone().count() == 599 && gone.step_by(40).all(|(_, blob)| !contains(&files, blob)));
    let keys = vault.list_keys(&me).await.unwrap().data_keys;
    assert!(keys.len() == 3 && keys.iter().all(|key| key.active), "{keys:?}");
    put(&vault, &me, "prod/new", text("made up anew")).await;
    vault.close().await;

    assert_eq!(keys_in_use(&here).len(), 3);
    assert!(!keys_in_use(&here).contains(&1));
    assert_eq!(here.verify(&offer).problems, vec![]);
    let vault = here.open(&offer).unwrap();
    all_readable(&vault, &owner(&vault).await, &live).await;
    assert_eq!(reveal(&vault, &owner(&vault).await, "prod/new", None).await.unwrap(), "made up anew");
    // Again, for the company alone.
    let acme = "acme".parse().unwrap();
    let rotation =
        vault.rotate_data_key(&owner(&vault).await, &environment("prod"), Some(&acme), on).await.unwrap();
    assert_eq!((rotation.reencrypted, rotation.ended.len()), (1, 1));
    vault.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_reencryption_goes_on_where_it_stopped() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    let values = filled(&vault, &me, 260, 4).await;
    let mut batches = 0;
    let stopped = vault
        .rotate_data_key(&me, &environment("prod"), None, |_| {
            batches += 1;
            if batches == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await
        .unwrap();
    assert_eq!((stopped.reencrypted, stopped.rows_under_old_keys), (512, 528));
    assert!(stopped.ended.is_empty());
    drop(vault);

    // Half under each key: everything can be read and written.
    assert_eq!(keys_in_use(&here).len(), 2);
    let vault = here.open(&offer).unwrap();
    let me = owner(&vault).await;
    all_readable(&vault, &me, &values).await;
    put(&vault, &me, "prod/between", text("made up in between")).await;
    // Changed once more before the first change has ended, and stopped once more.
    let again =
        vault.rotate_data_key(&me, &environment("prod"), None, |_| ControlFlow::Break(())).await.unwrap();
    assert_eq!((again.reencrypted, again.rows_under_old_keys), (256, 785));
    drop(vault);
    let vault = here.open(&offer).unwrap();
    let me = owner(&vault).await;
    assert_eq!(vault.list_keys(&me).await.unwrap().data_keys.iter().filter(|key| !key.active).count(), 2);
    let resumed = vault.resume_rekeying(on).await.unwrap();
    assert_eq!(resumed.len(), 1);
    assert_eq!((resumed[0].reencrypted, resumed[0].rows_under_old_keys), (785, 0));
    assert_eq!(resumed[0].ended.len(), 2);
    assert!(vault.resume_rekeying(on).await.unwrap().is_empty());
    all_readable(&vault, &me, &values).await;
    assert_eq!(reveal(&vault, &me, "prod/between", None).await.unwrap(), "made up in between");
    vault.close().await;
    assert_eq!(keys_in_use(&here).len(), 1);
    assert_eq!(here.verify(&offer).problems, vec![]);
    let vault = here.open(&offer).unwrap();
    all_readable(&vault, &owner(&vault).await, &values).await;
    vault.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_dropped_at_any_point_can_be_resumed() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let values = filled(&vault, &owner(&vault).await, 130, 3).await;
    vault.close().await;
    for polls in 0..12 {
        let vault = here.open(&offer).unwrap();
        let me = owner(&vault).await;
        let prod = environment("prod");
        let mut rotation = Box::pin(vault.rotate_data_key(&me, &prod, None, on));
        let mut left = polls;
        // Its future is dropped after so many turns, as when a client goes away.
        std::future::poll_fn(|context| {
            let done = rotation.as_mut().poll(context).is_ready() || left == 0;
            left -= i32::from(left > 0);
            if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        drop(rotation);
        all_readable(&vault, &me, &values[..20]).await;
        vault.close().await;
    }
    let vault = here.open(&offer).unwrap();
    let me = owner(&vault).await;
    vault.resume_rekeying(on).await.unwrap();
    let keys = vault.list_keys(&me).await.unwrap().data_keys;
    assert_eq!(keys.iter().filter(|key| key.environment == environment("prod")).count(), 1);
    all_readable(&vault, &me, &values).await;
    vault.close().await;
    assert_eq!(keys_in_use(&here).len(), 1);
    assert_eq!(here.verify(&offer).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_and_writers_notice_nothing() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    let values = Arc::new(filled(&vault, &me, 60, 2).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut others = Vec::new();
    for task in 0..6usize {
        let (vault, me, stop, values) = (vault.clone(), me.clone(), Arc::clone(&stop), Arc::clone(&values));
        others.push(tokio::spawn(async move {
            let mut turns = 0usize;
            while !stop.load(Ordering::Relaxed) {
                if task == 0 {
                    let value = format!("made up turn {turns}");
                    put(&vault, &me, "prod/written", text(&value)).await;
                    assert_eq!(reveal(&vault, &me, "prod/written", None).await.unwrap(), value);
                } else {
                    let (at, version, value) = &values[(turns * 7 + task) % values.len()];
                    assert_eq!(reveal(&vault, &me, at, Some(*version)).await.unwrap(), *value);
                }
                turns += 1;
            }
            turns
        }));
    }
    for _ in 0..15 {
        let rotation = vault.rotate_data_key(&me, &environment("prod"), None, on).await.unwrap();
        assert_eq!((rotation.rows_under_old_keys, rotation.ended.len()), (0, 1));
    }
    stop.store(true, Ordering::Relaxed);
    for other in others {
        assert!(other.await.unwrap() > 10);
    }
    vault.close().await;
    assert_eq!(keys_in_use(&here).len(), 1);
    assert_eq!(here.verify(&offer).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decrypted_keeps_its_key() {
    let here = Place::new();
    let (vault, _) = here.create().await;
    let me = owner(&vault).await;
    filled(&vault, &me, 3, 1).await;
    let (key, mut blob) = blobs(&here, "version").remove(1);
    let last = blob.len() - 1;
    blob[last] ^= 1;
    let connection = rusqlite::Connection::open(database_in(&here.data())).unwrap();
    connection
        .execute("UPDATE state SET blob = ?1 WHERE kind = 'version' AND key = ?2", (blob, key))
        .unwrap();
    drop(connection);
    let error = vault.rotate_data_key(&me, &environment("prod"), None, on).await.unwrap_err();
    assert_eq!(error.code, Code::Damaged, "{error}");
    assert_eq!(vault.list_keys(&me).await.unwrap().data_keys.iter().filter(|key| !key.active).count(), 1);
    assert_eq!(vault.resume_rekeying(on).await.unwrap_err().code, Code::Damaged);
    vault.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_key_none_is_changed() {
    let here = Place::new();
    let (vault, _) = here.create().await;
    let me = owner(&vault).await;
    vault.put_company(&me, "acme".parse().unwrap(), String::new()).await.unwrap();
    let (acme, other) = ("acme".parse().unwrap(), "other".parse().unwrap());
    for (at, company) in [("prod", Some(&acme)), ("prod", Some(&other)), ("stage", None)] {
        let error = vault.rotate_data_key(&me, &environment(at), company, on).await.unwrap_err();
        assert_eq!(error.code, Code::NotFound, "{error}");
    }
    // An environment without secrets has a key all the same.
    let rotation = vault.rotate_data_key(&me, &environment("dev"), None, on).await.unwrap();
    assert_eq!((rotation.reencrypted, rotation.rows_under_old_keys, rotation.ended.len()), (0, 0, 1));
    vault.close().await;
}

async fn service_account(vault: &Vault, me: &Caller, name: &str) {
    let new = NewAccount {
        name: account(name),
        kind: AccountKind::ServiceAccount,
        description: String::new(),
        policies: Default::default(),
        groups: Default::default(),
    };
    vault.create_account(me, new).await.unwrap();
}

async fn token(vault: &Vault, me: &Caller, name: &str, hours: i64, uses: Option<u32>) -> SecretBytes {
    let new = NewToken {
        account: account(name),
        description: String::new(),
        ttl: SignedDuration::from_hours(hours),
        renewable_for: None,
        uses,
        networks: Vec::new(),
    };
    vault.create_token(me, new).await.unwrap().token.text().duplicate()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_stay_valid_when_the_pepper_changes() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    service_account(&vault, &me, "shop").await;
    let used = token(&vault, &me, "shop", 24, None).await;
    let unused = token(&vault, &me, "shop", 24, None).await;
    let counted = token(&vault, &me, "shop", 24, Some(3)).await;
    let code = vault.create_sign_in_code(&me, &account("shop")).await.unwrap().text().duplicate();
    let old_pepper = blobs(&here, "pepper").remove(0).1;

    let rotation = vault.rotate_pepper(&me).await.unwrap();
    // Three tokens, the code, and the code that came with the vault.
    assert_eq!((rotation.newest, rotation.digests_under_old_peppers), (2, 5));
    assert_eq!(vault.tend_keys().await.unwrap(), Default::default());
    for good in [&used, &unused, &counted] {
        vault.sign_in_with_token(good, origin(&vault)).await.unwrap();
    }
    let made_after = token(&vault, &me, "shop", 24, None).await;
    let from_code = vault.sign_in_with_code(&code, origin(&vault)).await.unwrap().token.text().duplicate();
    let tended = vault.tend_keys().await.unwrap();
    assert_eq!((tended.redigested, tended.peppers_ended.len()), (3, 0), "the first code still waits");
    vault.close().await;

    let vault = here.open(&offer).unwrap();
    for good in [&used, &unused, &counted, &made_after, &from_code] {
        vault.sign_in_with_token(good, origin(&vault)).await.unwrap();
    }
    // The code that nobody used ends by itself, and with it the old pepper.
    here.clock.advance(SignedDuration::from_mins(31));
    let tended = vault.tend_keys().await.unwrap();
    assert_eq!((tended.redigested, tended.peppers_ended), (0, vec![1]));
    let peppers = vault.list_keys(&owner(&vault).await).await.unwrap().peppers;
    assert_eq!(peppers.iter().map(|report| report.pepper.id).collect::<Vec<_>>(), [2]);
    assert!(!here.contains(&old_pepper), "the old pepper is in no file");
    for good in [&used, &unused, &counted, &made_after, &from_code] {
        vault.sign_in_with_token(good, origin(&vault)).await.unwrap();
    }
    // Uses were counted across the change.
    assert_eq!(vault.sign_in_with_token(&counted, origin(&vault)).await.unwrap_err().code, Code::NotSignedIn);
    vault.close().await;
    assert_eq!(here.verify(&offer).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_pepper_waits_for_the_last_token_under_it() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    service_account(&vault, &me, "shop").await;
    let asleep = token(&vault, &me, "shop", 48, None).await;
    let ending = token(&vault, &me, "shop", 1, None).await;
    vault.rotate_pepper(&me).await.unwrap();
    vault.rotate_pepper(&me).await.unwrap();
    here.clock.advance(SignedDuration::from_hours(2));
    let tended = vault.tend_keys().await.unwrap();
    assert_eq!(tended.peppers_ended, [2], "nothing was ever under the second one");
    vault.close().await;
    let vault = here.open(&offer).unwrap();
    assert_eq!(vault.sign_in_with_token(&ending, origin(&vault)).await.unwrap_err().code, Code::NotSignedIn);
    vault.sign_in_with_token(&asleep, origin(&vault)).await.unwrap();
    // Revoked before it was moved: nothing is written for it.
    let me = owner(&vault).await;
    let id = vault.list_tokens(&me, Some(&account("shop"))).await.unwrap();
    let id = id.iter().max_by_key(|token| token.expires_at).unwrap().id;
    vault.revoke_token(&me, id).await.unwrap();
    let tended = vault.tend_keys().await.unwrap();
    assert_eq!((tended.redigested, tended.peppers_ended), (0, vec![1]));
    assert_eq!(vault.sign_in_with_token(&asleep, origin(&vault)).await.unwrap_err().code, Code::NotSignedIn);
    vault.close().await;
    assert_eq!(here.verify(&offer).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sign_ins_beside_changes_of_the_pepper() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    service_account(&vault, &me, "shop").await;
    let mut clients = Vec::new();
    let stop = Arc::new(AtomicBool::new(false));
    for _ in 0..4 {
        let (vault, me, stop) = (vault.clone(), me.clone(), Arc::clone(&stop));
        clients.push(tokio::spawn(async move {
            let mine = token(&vault, &me, "shop", 24, None).await;
            while !stop.load(Ordering::Relaxed) {
                vault.sign_in_with_token(&mine, origin(&vault)).await.unwrap();
                let fresh = token(&vault, &me, "shop", 24, None).await;
                vault.sign_in_with_token(&fresh, origin(&vault)).await.unwrap();
            }
            mine
        }));
    }
    for _ in 0..20 {
        vault.rotate_pepper(&me).await.unwrap();
        vault.tend_keys().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let mine = client.await.unwrap();
        vault.sign_in_with_token(&mine, origin(&vault)).await.unwrap();
    }
    vault.close().await;
    assert_eq!(here.verify(&offer).problems, vec![]);
}

fn none() -> BTreeSet<u32> {
    BTreeSet::new()
}

fn same(offer: &MasterKeyOffer) -> MasterKeyOffer {
    match offer {
        MasterKeyOffer::Key(text) => MasterKeyOffer::Key(text.duplicate()),
        MasterKeyOffer::Passphrase(text) => MasterKeyOffer::Passphrase(text.duplicate()),
        MasterKeyOffer::Shares(_) => panic!("no test of this file has shares"),
    }
}

/// Every wrapped key, as the database has it.
fn wrapped(place: &Place) -> Vec<Vec<u8>> {
    let kinds = ["instance", "slot", "data_key", "pepper"];
    kinds.iter().flat_map(|kind| blobs(place, kind)).map(|(_, blob)| blob).collect()
}

async fn backup_of(vault: &Vault, me: &Caller) -> Vec<u8> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&bytes);
    let write = move |piece: &[u8]| {
        sink.lock().unwrap().extend_from_slice(piece);
        Ok(())
    };
    vault.backup(me, write).await.unwrap();
    std::mem::take(&mut *bytes.lock().unwrap())
}

async fn restored(backup: &[u8], to: &Place, offer: &MasterKeyOffer) -> Result<Vault, VaultError> {
    let file = BackupFile::open(Cursor::new(backup)).unwrap();
    file.restore(&to.data(), offer, to.surroundings(), None).await.map(|(vault, _)| vault)
}

async fn try_put(vault: &Vault, me: &Caller, at: &str, value: &str) -> Result<(), VaultError> {
    let put = Put {
        name: name(at),
        value: text(value),
        replace: false,
        expected: None,
        pending: false,
        duplicate_because: None,
        allow_empty: false,
        annotation: Annotation::default(),
        action: Action::Write,
    };
    vault.put(me, put).await.map(|_| ())
}

fn counts(rotation: &RootRotation) -> (u64, u64, u64, bool) {
    (rotation.data_keys, rotation.peppers, rotation.rows_under_old_root, rotation.scrubbed)
}

const RANDOM: &str = "made-up-4f8Kq2Zr9Lw7Tn3X5Rt8Vb2Nm6Qp";

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_ends_with_no_row_under_it() {
    let here = Place::new();
    let (vault, first) = here.create().await;
    let me = owner(&vault).await;
    let (new, phrase) = passphrase_slot("correct horse, made up");
    vault.add_slot(&me, new, &first).await.unwrap();
    let (new, third) = slot();
    vault.add_slot(&me, new, &first).await.unwrap();
    vault.put_company(&me, "acme".parse().unwrap(), String::new()).await.unwrap();
    let values = filled(&vault, &me, 20, 3).await;
    put(&vault, &me, "prod/acme:own", text("made up and its own")).await;
    put(&vault, &me, "prod/random", text(RANDOM)).await;
    service_account(&vault, &me, "shop").await;
    let asleep = token(&vault, &me, "shop", 24, None).await;
    let old_backup = backup_of(&vault, &me).await;
    let (old, signer) = (wrapped(&here), vault.checkpoint(&me).await.unwrap().1);

    let rotation =
        vault.rotate_root(&me, vec![(1, same(&first)), (2, same(&phrase))], [3].into()).await.unwrap();
    assert_eq!(counts(&rotation), (3, 1, 0, true));
    let ids = |slots: &[keymoat_vault::entity::Slot]| slots.iter().map(|slot| slot.id).collect::<Vec<_>>();
    assert_eq!((ids(&rotation.kept), ids(&rotation.dropped)), (vec![1, 2], vec![3]));
    assert_eq!(old.len(), 1 + 3 + 3 + 1);
    let files = here.bytes();
    assert!(old.iter().all(|blob| !contains(&files, blob)), "nothing under the old root key is in a file");
    let record = records(&vault, Action::Rekey).await.pop().unwrap().event;
    assert!(record.decided_by.is_some() && record.result == Outcome::Allowed, "{record:?}");
    assert!(record.rows.len() == 8 && format!("{record:?}").contains("rows_under_old_keys"), "{record:?}");

    // Everything is as before, for who reads, signs in, compares, checks; and whatever is new is under the new key.
    all_readable(&vault, &me, &values).await;
    assert_eq!(reveal(&vault, &me, "prod/acme:own", None).await.unwrap(), "made up and its own");
    vault.sign_in_with_token(&asleep, origin(&vault)).await.unwrap();
    assert_eq!(try_put(&vault, &me, "dev/random", RANDOM).await.unwrap_err().code, Code::Duplicate);
    assert_eq!(vault.checkpoint(&me).await.unwrap().1, signer);
    try_put(&vault, &me, "dev/acme:first", "made up in a place without a key").await.unwrap();
    let (new, fourth) = slot();
    assert_eq!(vault.add_slot(&me, new, &first).await.unwrap().id, 3);
    vault.rotate_pepper(&me).await.unwrap();
    vault.rotate_data_key(&me, &environment("prod"), None, on).await.unwrap();
    let new_backup = backup_of(&vault, &me).await;
    vault.close().await;

    assert_eq!(here.open(&third).err().unwrap().code, Code::Sealed);
    for offer in [&first, &phrase, &fourth] {
        let vault = here.open(offer).unwrap();
        let me = owner(&vault).await;
        all_readable(&vault, &me, &values).await;
        assert_eq!(
            reveal(&vault, &me, "dev/acme:first", None).await.unwrap(),
            "made up in a place without a key"
        );
        vault.sign_in_with_token(&asleep, origin(&vault)).await.unwrap();
        assert_eq!(try_put(&vault, &me, "dev/random", RANDOM).await.unwrap_err().code, Code::Duplicate);
        vault.close().await;
    }
    assert_eq!(here.verify(&first).problems, vec![]);

    // A backup opens with what opened the vault when it was made.
    for (backup, offer, opens) in [
        (&old_backup, &first, true),
        (&old_backup, &phrase, true),
        (&old_backup, &third, true),
        (&old_backup, &fourth, false),
        (&new_backup, &phrase, true),
        (&new_backup, &third, false),
        (&new_backup, &fourth, true),
    ] {
        let there = Place::new();
        match restored(backup, &there, offer).await {
            Ok(vault) => {
                assert!(opens);
                all_readable(&vault, &owner(&vault).await, &values).await;
                vault.close().await;
                assert_eq!(there.verify(offer).problems, vec![]);
            }
            Err(error) => assert!(!opens && error.code == Code::Sealed, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_stays_when_a_slot_would_be_lost() {
    let here = Place::new();
    let (vault, first) = here.create().await;
    let me = owner(&vault).await;
    let (new, phrase) = passphrase_slot("correct horse, made up");
    vault.add_slot(&me, new, &first).await.unwrap();
    put(&vault, &me, "prod/stripe", text("made up")).await;
    let before = wrapped(&here);
    /// Slots kept with what is offered for them, slots dropped, the refusal.
    type Choice<'a> = (Vec<(u32, &'a MasterKeyOffer)>, Vec<u32>, Code);
    let rows: Vec<Choice<'_>> = vec![
        (vec![], vec![], Code::Invalid),
        (vec![], vec![1, 2], Code::Invalid),
        (vec![(1, &first)], vec![1, 2], Code::Invalid),
        (vec![(1, &first), (1, &first)], vec![2], Code::Invalid),
        (vec![(1, &first), (9, &first)], vec![2], Code::NotFound),
        (vec![(1, &first)], vec![2, 9], Code::NotFound),
        (vec![(1, &first)], vec![], Code::Conflict),
        (vec![(2, &phrase)], vec![], Code::Conflict),
        (vec![(1, &phrase)], vec![2], Code::Sealed),
        (vec![(2, &first)], vec![1], Code::Sealed),
        (vec![(1, &first), (2, &first)], vec![], Code::Sealed),
    ];
    for (n, (keep, drop, code)) in rows.into_iter().enumerate() {
        let keep = keep.into_iter().map(|(id, offer)| (id, same(offer))).collect();
        let error = vault.rotate_root(&me, keep, drop.into_iter().collect()).await.unwrap_err();
        assert_eq!((error.code, error.hint.is_some() || n == 2 || n == 3), (code, true), "row {n}: {error}");
    }
    let other = vault.rotate_root(&me, vec![(1, slot().1)], [2].into()).await.unwrap_err();
    assert_eq!(other.code, Code::Sealed, "{other}");
    assert_eq!(wrapped(&here), before);
    put(&vault, &me, "dev/other", text("made up as well")).await;
    vault.close().await;
    for offer in [&first, &phrase] {
        let vault = here.open(offer).unwrap();
        assert_eq!(reveal(&vault, &owner(&vault).await, "dev/other", None).await.unwrap(), "made up as well");
        vault.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_stays_when_a_key_under_it_cannot_be_read() {
    let here = Place::new();
    let (vault, first) = here.create().await;
    let me = owner(&vault).await;
    put(&vault, &me, "prod/stripe", text("made up")).await;
    let (key, mut blob) = blobs(&here, "data_key").remove(1);
    let whole = blob.clone();
    blob[80] ^= 1;
    let write = |blob: &[u8]| {
        let connection = rusqlite::Connection::open(database_in(&here.data())).unwrap();
        connection
            .execute("UPDATE state SET blob = ?1 WHERE kind = 'data_key' AND key = ?2", (blob, &key))
            .unwrap();
    };
    write(&blob);
    let before = wrapped(&here);
    let error = vault.rotate_root(&me, vec![(1, same(&first))], none()).await.unwrap_err();
    assert!(error.message.contains("by other means"), "{error}");
    assert_eq!(wrapped(&here), before);
    vault.close().await;
    // Put right, it opens under the root key that stayed, and the next change succeeds.
    write(&whole);
    let vault = here.open(&first).unwrap();
    let me = owner(&vault).await;
    vault.put_company(&me, "acme".parse().unwrap(), String::new()).await.unwrap();
    put(&vault, &me, "prod/acme:own", text("made up and its own")).await;
    assert_eq!(
        counts(&vault.rotate_root(&me, vec![(1, same(&first))], none()).await.unwrap()),
        (3, 1, 0, true)
    );
    vault.close().await;
    let vault = here.open(&first).unwrap();
    assert_eq!(
        reveal(&vault, &owner(&vault).await, "prod/acme:own", None).await.unwrap(),
        "made up and its own"
    );
    vault.close().await;
    assert_eq!(here.verify(&first).problems, vec![]);
}

/// Polls a future at most so many times, each time it asks for it; then lets it go.
async fn polled<T>(work: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut work = pin!(work);
    let mut polls = 0;
    std::future::poll_fn(move |context| {
        polls += 1;
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if polls >= times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_root_key_that_nobody_waits_for_stands_or_falls_whole() {
    let here = Place::new();
    let (mut vault, first) = here.create().await;
    let mut made = 0;
    for times in 1..12 {
        let me = owner(&vault).await;
        let before = blobs(&here, "instance");
        let changed = polled(vault.rotate_root(&me, vec![(1, same(&first))], none()), times).await;
        assert!(changed.is_none_or(|outcome| outcome.is_ok()));
        // Queued right behind it: a place without a key yet, and one more change.
        let company = format!("company-{times}");
        vault.put_company(&me, company.parse().unwrap(), String::new()).await.unwrap();
        put(&vault, &me, &format!("prod/{company}:own"), text("made up behind it")).await;
        made += u32::from(blobs(&here, "instance") != before);
        let again = vault.rotate_root(&me, vec![(1, same(&first))], none()).await.unwrap();
        assert_eq!((again.data_keys, again.rows_under_old_root), (2 + times as u64, 0));
        // Killed; what its memory knew is lost.
        drop(vault);
        vault = here.open(&first).unwrap();
        let me = owner(&vault).await;
        for n in 1..=times {
            let at = format!("prod/company-{n}:own");
            assert_eq!(reveal(&vault, &me, &at, None).await.unwrap(), "made up behind it");
        }
    }
    assert!(made > 0, "at least one was let go after its transaction was on its way");
    vault.close().await;
    assert_eq!(here.verify(&first).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_and_writers_beside_changes_of_the_root_key() {
    let here = Place::new();
    let (vault, first) = here.create().await;
    let me = owner(&vault).await;
    let values = Arc::new(filled(&vault, &me, 20, 2).await);
    service_account(&vault, &me, "shop").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut others = Vec::new();
    for task in 0..6 {
        let (vault, me, values, stop) = (vault.clone(), me.clone(), Arc::clone(&values), Arc::clone(&stop));
        others.push(tokio::spawn(async move {
            let mut turns = 0;
            while !stop.load(Ordering::Relaxed) || turns < 10 {
                let (at, version, value) = &values[(turns * 7 + task) % values.len()];
                assert_eq!(reveal(&vault, &me, at, Some(*version)).await.unwrap(), *value);
                // Each makes keys: of a company's place, of an environment.
                let company = format!("c-{task}-{turns}");
                vault.put_company(&me, company.parse().unwrap(), String::new()).await.unwrap();
                put(&vault, &me, &format!("dev/{company}:own"), text(&company)).await;
                let mine = token(&vault, &me, "shop", 24, None).await;
                vault.sign_in_with_token(&mine, origin(&vault)).await.unwrap();
                turns += 1;
            }
            turns
        }));
    }
    for turn in 0..20 {
        let rotation = vault.rotate_root(&me, vec![(1, same(&first))], none()).await.unwrap();
        assert_eq!(rotation.rows_under_old_root, 0);
        if turn % 5 == 0 {
            vault.rotate_pepper(&me).await.unwrap();
            vault.rotate_data_key(&me, &environment("prod"), None, on).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut turns = Vec::new();
    for other in others {
        turns.push(other.await.unwrap());
    }
    let companies = || {
        (0..).zip(&turns).flat_map(|(task, turns)| (0..*turns).map(move |turn| format!("c-{task}-{turn}")))
    };
    vault.close().await;
    let vault = here.open(&first).unwrap();
    let me = owner(&vault).await;
    all_readable(&vault, &me, &values).await;
    for company in companies() {
        assert_eq!(reveal(&vault, &me, &format!("dev/{company}:own"), None).await.unwrap(), company);
    }
    vault.close().await;
    assert_eq!(here.verify(&first).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_under_one_root_key() {
    let here = Place::new();
    let (vault, first) = here.create().await;
    let me = owner(&vault).await;
    for n in 0..1000 {
        let company = format!("company-{n}");
        vault.put_company(&me, company.parse().unwrap(), String::new()).await.unwrap();
        put(&vault, &me, &format!("prod/{company}:own"), text(&company)).await;
    }
    let rotation = vault.rotate_root(&me, vec![(1, same(&first))], none()).await.unwrap();
    assert_eq!(counts(&rotation), (1002, 1, 0, true));
    vault.close().await;
    let vault = here.open(&first).unwrap();
    let me = owner(&vault).await;
    assert_eq!(reveal(&vault, &me, "prod/company-999:own", None).await.unwrap(), "company-999");
    vault.close().await;
    assert_eq!(here.verify(&first).problems, vec![]);
}

#[tokio::test]
async fn a_server_can_wait_for_it_on_any_thread() {
    fn sends<T: Send>(_: T) {}
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let (me, prod) = (owner(&vault).await, environment("prod"));
    sends(vault.list_keys(&me));
    sends(vault.add_slot(&me, slot().0, &offer));
    sends(vault.remove_slot(&me, 1, &offer));
    sends(vault.rotate_data_key(&me, &prod, None, on));
    sends(vault.resume_rekeying(on));
    sends(vault.rotate_pepper(&me));
    sends(vault.tend_keys());
    sends(vault.rotate_root(&me, Vec::new(), none()));
    sends(vault.backup(&me, |_| Ok(())));
    vault.close().await;
}
