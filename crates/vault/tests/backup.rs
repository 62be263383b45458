//! Backup and restore: everything comes back, and nothing that is not a whole, fitting backup goes in.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod place;

use std::io::{Cursor, Error};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::SignedDuration;
use keymoat_core::audit::{Action, AuditText, EventFilter, Outcome};
use keymoat_core::auditor::ExportCheck;
use keymoat_crypto::{MasterKey, SecretBytes};
use keymoat_store::{Durability, database_in};
use keymoat_vault::entity::AccountKind;
use keymoat_vault::{
    ArchiveClaim, AuditQuery, AuditRecord, BackupFile, BackupSummary, Caller, Code, MasterKeyOffer,
    NewAccount, NewToken, NewValue, RestoreSummary, Vault, VaultError,
};
use place::{Place, account, contains, environment, name, nobody, origin, owner, put, reveal, text};

async fn backup_of(vault: &Vault, caller: &Caller) -> Result<(Vec<u8>, BackupSummary), VaultError> {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&bytes);
    let summary = vault
        .backup(caller, move |piece| {
            sink.lock().unwrap().extend_from_slice(piece);
            Ok(())
        })
        .await?;
    let bytes = std::mem::take(&mut *bytes.lock().unwrap());
    assert_eq!(summary.bytes, bytes.len() as u64);
    Ok((bytes, summary))
}

async fn restore(
    bytes: &[u8],
    to: &Place,
    offer: &MasterKeyOffer,
    accept: Option<&str>,
) -> Result<(Vault, RestoreSummary), VaultError> {
    let accept = accept.map(AuditText::new);
    BackupFile::open(Cursor::new(bytes))?.restore(&to.data(), offer, to.surroundings(), accept.as_ref()).await
}

fn verify(bytes: &[u8], offer: &MasterKeyOffer) -> Result<BackupSummary, VaultError> {
    BackupFile::open(Cursor::new(bytes))?.verify(offer)
}

async fn records(vault: &Vault, caller: &Caller, action: Action) -> Vec<AuditRecord> {
    let filter = EventFilter { action: Some(action), ..EventFilter::default() };
    vault
        .query_audit(caller, AuditQuery { filter, oldest_first: true, limit: 100, ..AuditQuery::default() })
        .await
        .unwrap()
}

/// What stands in a table, a row a line.
fn table(place: &Place, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(database_in(&place.data())).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        (0..columns).map(|n| Ok(format!("{:?}", row.get_ref(n)?))).collect::<rusqlite::Result<Vec<_>>>()
    });
    rows.unwrap().map(|row| row.unwrap().join("|")).collect()
}

/// A vault with something of every kind in it; gives a token and a sign-in code that are good in it.
async fn furnished(place: &Place) -> (Vault, MasterKeyOffer, SecretBytes, SecretBytes) {
    let (vault, offer) = place.create().await;
    let me = owner(&vault).await;
    vault.put_company(&me, "acme".parse().unwrap(), "Acme".to_owned()).await.unwrap();
    for version in 1..=3 {
        put(&vault, &me, "prod/stripe", text(&format!("made-up-value-{version}-4f8Kq2Zr9Lw7Tn3X"))).await;
    }
    put(&vault, &me, "prod/acme:stripe", text("made-up-company-value-5Rt8Vb2Nm6Qp")).await;
    let fields =
        ["user", "password"].map(|field| (field.parse().unwrap(), SecretBytes::from_slice(b"made up")));
    put(&vault, &me, "dev/database", NewValue::Fields(fields.into())).await;
    put(&vault, &me, "dev/gone", text("made-up-and-destroyed")).await;
    put(&vault, &me, "dev/deleted", text("made-up-and-deleted")).await;
    vault.destroy(&me, &name("dev/gone"), vec![]).await.unwrap();
    vault.delete(&me, &name("dev/deleted"), vec![]).await.unwrap();
    let policy = r#"{"name":"reader","rules":[{"capabilities":["reveal"],"environments":["prod"],"paths":["stripe"]}]}"#;
    vault.put_policy(&me, serde_json::from_str(policy).unwrap()).await.unwrap();
    let new = NewAccount {
        name: account("shop"),
        kind: AccountKind::ServiceAccount,
        description: String::new(),
        policies: ["reader".parse().unwrap()].into(),
        groups: Default::default(),
    };
    vault.create_account(&me, new).await.unwrap();
    let token = vault.create_token(&me, new_token("shop")).await.unwrap().token.text().duplicate();
    let code = vault.create_sign_in_code(&me, &account("shop")).await.unwrap().text().duplicate();
    (vault, offer, token, code)
}

fn new_token(name: &str) -> NewToken {
    NewToken {
        account: account(name),
        description: String::new(),
        ttl: SignedDuration::from_hours(24),
        renewable_for: None,
        uses: None,
        networks: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_elsewhere() {
    let (here, there) = (Place::new(), Place::new());
    let (vault, offer, token, code) = furnished(&here).await;
    let (bytes, summary) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    let checked = verify(&bytes, &offer).unwrap();
    assert_eq!((checked.rows, checked.events, checked.bytes), (summary.rows, summary.events, summary.bytes));

    let (vault, restored) = restore(&bytes, &there, &offer, None).await.unwrap();
    assert_eq!((restored.backup.events, restored.accepted), (summary.events, None));
    assert_eq!(restored.event, summary.events, "the restore is the first new record");
    let me = owner(&vault).await;
    for version in 1..=3 {
        let value = reveal(&vault, &me, "prod/stripe", Some(version)).await.unwrap();
        assert_eq!(value, format!("made-up-value-{version}-4f8Kq2Zr9Lw7Tn3X"));
    }
    assert_eq!(
        reveal(&vault, &me, "prod/acme:stripe", None).await.unwrap(),
        "made-up-company-value-5Rt8Vb2Nm6Qp"
    );
    assert_eq!(reveal(&vault, &me, "dev/gone", Some(1)).await.unwrap_err().code, Code::NotFound);
    let shop = vault.sign_in_with_token(&token, origin(&vault)).await.unwrap();
    assert!(reveal(&vault, &shop, "prod/stripe", None).await.is_ok());
    assert_eq!(reveal(&vault, &shop, "dev/database", None).await.unwrap_err().code, Code::Refused);
    vault.sign_in_with_code(&code, origin(&vault)).await.unwrap();
    let restore_record = &records(&vault, &me, Action::Restore).await[0];
    assert_eq!(restore_record.event.seq, summary.events);
    let backup_record = &records(&vault, &me, Action::Backup).await[0];
    assert_eq!(backup_record.event.seq, summary.events - 1, "the backup holds its own record");
    assert!(backup_record.personal.is_some());
    vault.close().await;
    assert_eq!(there.verify(&offer).problems, vec![]);
    there.open(&offer).unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_the_same_to_the_bit() {
    let (here, there) = (Place::new(), Place::new());
    let (vault, offer, ..) = furnished(&here).await;
    // More events than a tile holds, so that tiles are made again too.
    let me = owner(&vault).await;
    for _ in 0..300 {
        vault.inspect(&me, &name("prod/stripe")).await.unwrap();
    }
    let (bytes, summary) = backup_of(&vault, &me).await.unwrap();
    vault.close().await;
    let (vault, _) = restore(&bytes, &there, &offer, None).await.unwrap();
    vault.close().await;
    let removed = table(&here, "SELECT key FROM state WHERE body IS NULL");
    assert!(!removed.is_empty(), "marks of removed rows are part of it");
    for sql in [
        "SELECT * FROM state ORDER BY kind, key".to_owned(),
        format!("SELECT * FROM events WHERE seq < {} ORDER BY seq", summary.events),
        "SELECT * FROM tiles ORDER BY level, number".to_owned(),
    ] {
        let (before, after) = (table(&here, &sql), table(&there, &sql));
        assert!(!before.is_empty(), "{sql}");
        assert_eq!(before, after, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_log_comes_back_with_the_same_tree() {
    let (here, there) = (Place::new(), Place::new());
    let (vault, offer, ..) = furnished(&here).await;
    let me = owner(&vault).await;
    for _ in 0..300 {
        vault.inspect(&me, &name("prod/stripe")).await.unwrap();
    }
    let plain = backup_of(&vault, &me).await.unwrap().0;
    here.clock.advance(SignedDuration::from_hours(24 * 200));
    let before = vault.now().checked_sub(SignedDuration::from_hours(24 * 100)).unwrap();
    let mut export = vault.begin_archive(&me, before).await.unwrap();
    let span = export.span().await.unwrap().unwrap();
    let mut tree = ExportCheck::part(span.start, span.end, []);
    while let Some(piece) = export.next().await.unwrap() {
        piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).for_each(|line| tree.line(line));
    }
    drop(export);
    let claim = ArchiveClaim { end: span.end, root: tree.tree().root(), reason: None };
    let archived = vault.finish_archive(&me, claim).await.unwrap();
    assert!(archived.end == 256 && archived.dropped > 200);
    let (bytes, summary) = backup_of(&vault, &me).await.unwrap();
    vault.close().await;
    let (vault, restored) = restore(&bytes, &there, &offer, None).await.unwrap();
    assert_eq!(restored.backup.events, summary.events);
    assert_eq!(vault.archive().unwrap().end, 256);
    vault.close().await;
    for sql in [
        "SELECT * FROM state ORDER BY kind, key".to_owned(),
        format!("SELECT * FROM events WHERE seq < {} ORDER BY seq", summary.events),
        "SELECT * FROM tiles ORDER BY level, number".to_owned(),
    ] {
        assert_eq!(table(&here, &sql), table(&there, &sql), "{sql}");
    }
    assert_eq!(there.verify(&offer).problems, vec![]);
    // Programs that know of no archives say so of this one and go on reading the others.
    let schema = |bytes: &[u8]| BackupFile::open(Cursor::new(bytes.to_vec())).unwrap().header().schema;
    assert_eq!((schema(&plain), schema(&bytes)), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_beside_writers_is_of_one_moment() {
    let (here, there) = (Place::new(), Place::new());
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    for n in 0..200 {
        put(&vault, &me, &format!("prod/before-{n}"), text(&format!("value {n}"))).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for writer in 0..4 {
        let (vault, me, stop, written) = (vault.clone(), me.clone(), Arc::clone(&stop), Arc::clone(&written));
        writers.push(tokio::spawn(async move {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                put(&vault, &me, &format!("prod/during-{writer}-{}", n % 50), text(&format!("{n}"))).await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let mut backups = Vec::new();
    for _ in 0..4 {
        backups.push(backup_of(&vault, &me).await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(written.load(Ordering::Relaxed) > 20, "the writers went on");
    assert!(backups.windows(2).all(|pair| pair[0].1.events < pair[1].1.events));
    vault.close().await;
    for (bytes, _) in &backups {
        verify(bytes, &offer).unwrap();
    }
    let (vault, _) = restore(&backups[2].0, &there, &offer, None).await.unwrap();
    let me = owner(&vault).await;
    for n in 0..200 {
        assert_eq!(
            reveal(&vault, &me, &format!("prod/before-{n}"), None).await.unwrap(),
            format!("value {n}")
        );
    }
    vault.close().await;
    assert_eq!(there.verify(&offer).problems, vec![]);
}

/// Refused by a check that writes nothing, and, where `thorough`, by a restore that leaves nothing behind.
async fn refused(bytes: &[u8], offer: &MasterKeyOffer, thorough: bool, what: &str) -> VaultError {
    let error = verify(bytes, offer).expect_err(what);
    assert!(!error.message.is_empty());
    if thorough {
        let there = Place::new();
        assert!(restore(bytes, &there, offer, None).await.is_err(), "{what}");
        assert!(!there.data().exists(), "{what} left something behind");
        assert_eq!(std::fs::read_dir(there.outside()).unwrap().count(), 0, "{what} left something outside");
    }
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_is_refused() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let (bytes, _) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    verify(&bytes, &offer).unwrap();
    for cut in 0..bytes.len() {
        let error = refused(&bytes[..cut], &offer, cut % 97 == 0, &format!("{cut} bytes")).await;
        assert!(matches!(error.code, Code::Damaged), "{cut}: {error}");
    }
    for more in [&b"\0"[..], b"\n", &bytes] {
        refused(&[&bytes, more].concat(), &offer, true, "a longer file").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_one_is_refused_when_cut_anywhere() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    for n in 0..12 {
        put(&vault, &me, &format!("prod/large-{n}"), text(&format!("{n}").repeat(30_000))).await;
    }
    let (bytes, _) = backup_of(&vault, &me).await.unwrap();
    vault.close().await;
    assert!(bytes.len() > 6 * 64 * 1024, "several chunks");
    let chunk = 64 * 1024 + 16;
    let head = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1 + 65;
    let borders = (0..).map(|n| head + n * chunk).take_while(|border| *border < bytes.len());
    let near = borders.flat_map(|border| [border - 1, border, border + 1]);
    let spread = (0..200).map(|n| n * bytes.len() / 200);
    for cut in near.chain(spread) {
        refused(&bytes[..cut], &offer, false, &format!("{cut} of {} bytes", bytes.len())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_byte_is_refused() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let (bytes, _) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        refused(&changed, &offer, at % 97 == 0, &format!("byte {at} changed")).await;
    }
    println!("FIGURE backup-changes: 0 of {} changed bytes were taken", bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_backup_of_this_kind_is_named() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let (bytes, _) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    let replaced = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    let database = std::fs::read(database_in(&here.data())).unwrap();
    let rows: Vec<(Vec<u8>, Code, &str)> = vec![
        (Vec::new(), Code::Damaged, "cut short"),
        (database, Code::Invalid, "not a Keymoat backup"),
        (b"STRIPE_API_KEY=made-up\n".to_vec(), Code::Invalid, "not a Keymoat backup"),
        (vec![0xff; 10_000], Code::Invalid, "not a Keymoat backup"),
        (b"keymoat-backup-1\n{}\n".to_vec(), Code::Damaged, "header cannot be read"),
        (b"keymoat-backup-1\n[1,2]\n".to_vec(), Code::Damaged, "header cannot be read"),
        ([b"keymoat-backup-1\n", vec![b'x'; 1 << 20].as_slice()].concat(), Code::Damaged, "cut short"),
        (replaced("keymoat-backup-1\n", "keymoat-backup-2\n"), Code::Invalid, "newer Keymoat"),
        (replaced("\"schema\":1", "\"schema\":3"), Code::Invalid, "newer Keymoat"),
        (replaced("\"events\":", "\"events\":1"), Code::Damaged, "altered"),
    ];
    for (bytes, code, says) in rows {
        let error = refused(&bytes, &offer, true, says).await;
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(says), "{error}");
        assert!(error.hint.is_some(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_does_not_fit() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let (bytes, summary) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    for other in [
        MasterKeyOffer::Key(MasterKey::generate().to_text()),
        MasterKeyOffer::Passphrase(SecretBytes::from_slice(b"made up")),
        MasterKeyOffer::Key(SecretBytes::from_slice(b"no key at all")),
    ] {
        let error = refused(&bytes, &other, true, "another key").await;
        assert_eq!(error.code, Code::Sealed, "{error}");
    }
    let error =
        refused(&bytes, &MasterKeyOffer::Key(MasterKey::generate().to_text()), false, "another key").await;
    assert!(error.hint.unwrap().contains(&summary.instance.to_string()), "it says whose it is");
    let file = BackupFile::open(Cursor::new(&bytes)).unwrap();
    assert_eq!(file.header().instance.id, summary.instance);
    assert_eq!(file.header().slots.len(), 1);
    assert_eq!(file.header().events, summary.events);
    verify(&bytes, &offer).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_a_vault_stays_as_it_is() {
    let (here, there) = (Place::new(), Place::new());
    let (vault, offer) = here.create().await;
    let (bytes, _) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    // In use.
    assert!(restore(&bytes, &here, &offer, None).await.is_err());
    vault.close().await;
    let (other, other_offer) = there.create().await;
    put(&other, &owner(&other).await, "prod/mine", text("made up")).await;
    other.close().await;
    let before = table(&there, "SELECT * FROM state ORDER BY kind, key");
    for (place, offer) in [(&here, &offer), (&there, &offer)] {
        let error = restore(&bytes, place, offer, Some("because")).await.err().unwrap();
        assert_eq!(error.code, Code::Conflict, "{error}");
        assert!(error.message.contains("already a vault"), "{error}");
    }
    assert_eq!(table(&there, "SELECT * FROM state ORDER BY kind, key"), before);
    there.open(&other_offer).unwrap().close().await;
    here.open(&offer).unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_data_directory_comes_back_beside_its_file_outside() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let (bytes, _) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    std::fs::remove_dir_all(here.data()).unwrap();
    let (vault, summary) = restore(&bytes, &here, &offer, None).await.unwrap();
    assert_eq!(summary.accepted, None);
    vault.close().await;
    assert_eq!(here.verify(&offer).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_older_than_the_file_outside_needs_a_reason() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    let (bytes, backup) = backup_of(&vault, &me).await.unwrap();
    put(&vault, &me, "prod/later", text("made up")).await;
    vault.close().await;
    let moved = here.tmp.path().join("lost");
    std::fs::rename(here.data(), &moved).unwrap();

    let error = restore(&bytes, &here, &offer, None).await.err().unwrap();
    assert_eq!(error.code, Code::Conflict, "{error}");
    assert!(error.message.contains("older copy"), "{error}");
    assert!(error.hint.unwrap().contains("--accept-older"));
    assert!(!here.data().exists());

    let (vault, summary) = restore(&bytes, &here, &offer, Some("the disk died")).await.unwrap();
    assert!(summary.accepted.unwrap().contains("older copy"));
    let me = owner(&vault).await;
    let accepted = &records(&vault, &me, Action::AuditAcceptRestore).await[0];
    assert_eq!(accepted.event.seq, backup.events);
    assert!(format!("{:?}", accepted.event.details).contains("the disk died"));
    assert_eq!(records(&vault, &me, Action::Restore).await[0].event.seq, backup.events + 1);
    assert_eq!(summary.event, backup.events + 1);
    vault.close().await;
    assert_eq!(here.verify(&offer).problems, vec![]);
    here.open(&offer).unwrap().close().await;

    // The newer data directory that turns up again does not pass for the present one.
    std::fs::remove_dir_all(here.data()).unwrap();
    std::fs::rename(&moved, here.data()).unwrap();
    assert!(here.open(&offer).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_of_the_same_vault_needs_a_reason() {
    let (here, there) = (Place::new(), Place::new());
    let (vault, offer) = here.create().await;
    let (bytes, _) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    put(&vault, &owner(&vault).await, "prod/here", text("made up")).await;
    vault.close().await;
    let (vault, _) = restore(&bytes, &there, &offer, None).await.unwrap();
    let me = owner(&vault).await;
    for n in 0..5 {
        put(&vault, &me, &format!("prod/there-{n}"), text("made up")).await;
    }
    let (bytes, _) = backup_of(&vault, &me).await.unwrap();
    vault.close().await;
    std::fs::remove_dir_all(here.data()).unwrap();
    let error = restore(&bytes, &here, &offer, None).await.err().unwrap();
    assert_eq!(error.code, Code::Conflict, "{error}");
    assert!(error.message.contains("rewritten"), "{error}");
    let (vault, _) =
        restore(&bytes, &here, &offer, Some("the other machine is the right one")).await.unwrap();
    vault.close().await;
    assert_eq!(here.verify(&offer).problems, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_outside_needs_a_reason() {
    let (here, there) = (Place::new(), Place::new());
    let (vault, offer) = here.create().await;
    let (bytes, summary) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    let outside = there.outside().join(format!("{}.checkpoint", summary.instance));
    std::fs::write(&outside, "nothing of ours").unwrap();
    let error = restore(&bytes, &there, &offer, None).await.err().unwrap();
    assert_eq!(error.code, Code::Conflict, "{error}");
    assert!(!there.data().exists());
    let (vault, _) = restore(&bytes, &there, &offer, Some("it was in the way")).await.unwrap();
    vault.close().await;
    there.open(&offer).unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_look_gets_no_byte() {
    let here = Place::new();
    let (vault, _) = here.create().await;
    let stranger = nobody(&vault).await;
    let called = Arc::new(AtomicBool::new(false));
    let sink = Arc::clone(&called);
    let refused = vault.backup(&stranger, move |_| {
        sink.store(true, Ordering::Relaxed);
        Ok(())
    });
    assert_eq!(refused.await.unwrap_err().code, Code::Refused);
    assert!(!called.load(Ordering::Relaxed));
    let records = records(&vault, &owner(&vault).await, Action::Backup).await;
    assert_eq!(records.iter().map(|record| record.event.result).collect::<Vec<_>>(), [Outcome::Refused]);
    vault.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_is_told_and_recorded() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    for room in [0, 100, 2_000] {
        let mut left = room;
        let failed = vault.backup(&me, move |piece| {
            left -= i64::try_from(piece.len()).unwrap();
            if left < 0 { Err(Error::other("no space left")) } else { Ok(()) }
        });
        let error = failed.await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "{error}");
        assert!(error.message.contains("no space left"), "{error}");
    }
    let outcomes: Vec<_> =
        records(&vault, &me, Action::Backup).await.iter().map(|record| record.event.result).collect();
    assert_eq!(outcomes, [Outcome::Allowed, Outcome::Failed].repeat(3));
    let (bytes, _) = backup_of(&vault, &me).await.unwrap();
    verify(&bytes, &offer).unwrap();
    vault.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_vault_gives_no_backup() {
    let here = Place::new();
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    put(&vault, &me, "prod/stripe", text("made up")).await;
    let connection = rusqlite::Connection::open(database_in(&here.data())).unwrap();
    connection
        .execute("UPDATE state SET body = replace(body, 'stripe', 'strape') WHERE kind = 'secret'", [])
        .unwrap();
    drop(connection);
    let error = backup_of(&vault, &me).await.unwrap_err();
    assert_eq!(error.code, Code::Damaged, "{error}");
    vault.close().await;
    drop(offer);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_it_can_be_read_without_the_key() {
    let here = Place::new();
    let (vault, _, token, _) = furnished(&here).await;
    let (bytes, _) = backup_of(&vault, &owner(&vault).await).await.unwrap();
    vault.close().await;
    // EXPOSE: a made-up token in a test.
    let token = token.expose(|token| token.clone());
    for canary in [&b"made-up-value"[..], b"made-up-company", b"stripe", b"acme", b"shop", b"reader", &token]
    {
        assert!(!contains(&bytes, canary), "{}", String::from_utf8_lossy(canary));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_secrets() {
    let mut here = Place::new();
    let mut there = Place::new();
    (here.durability, there.durability) = (Durability::Os, Durability::Os);
    let (vault, offer) = here.create().await;
    let me = owner(&vault).await;
    let mut writers = Vec::new();
    for writer in 0..100 {
        let (vault, me) = (vault.clone(), me.clone());
        writers.push(tokio::spawn(async move {
            for n in 0..100 {
                put(&vault, &me, &format!("prod/s-{writer}-{n}"), text(&format!("made up {writer} {n}")))
                    .await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let start = Instant::now();
    let (bytes, summary) = backup_of(&vault, &me).await.unwrap();
    let backed_up = start.elapsed();
    vault.close().await;
    let start = Instant::now();
    let (vault, _) = restore(&bytes, &there, &offer, None).await.unwrap();
    println!(
        "10,000 secrets, {} rows, {} events, {} KiB: backup {backed_up:.2?}, restore {:.2?}",
        summary.rows,
        summary.events,
        bytes.len() / 1024,
        start.elapsed()
    );
    assert_eq!(vault.counts().secrets, 10_000);
    assert_eq!(vault.counts().environments, [environment("prod"), environment("dev")].len());
    vault.close().await;
}
