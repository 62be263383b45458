//! Whoever edits the files behind Keymoat's back is found out: at once, or, for old events, by a verification.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::sync::OnceLock;

use common::{Told, Vault, append_many, archive, change, draft, personal_draft, put, remove, thin};
use keymoat_store::{Kind, OpenError, Report, Trust, Untrusted};
use proptest::prelude::*;

/// A closed vault with 700 events (two full tiles and a part), rows of every kind, removed and rewritten ones.
fn base() -> &'static Vault {
    static BASE: OnceLock<Vault> = OnceLock::new();
    BASE.get_or_init(|| run(async { made(700).await }))
}

/// The same vault at half of its age.
fn younger() -> &'static Vault {
    static YOUNGER: OnceLock<(Vault, Vault)> = OnceLock::new();
    let (younger, _) = YOUNGER.get_or_init(|| {
        run(async {
            let vault = made(350).await;
            (vault.copy(), vault)
        })
    });
    younger
}

/// One with 1,102 events, of which the first 512 are archived, and the same before they were taken out.
fn archived() -> &'static (Vault, Vault) {
    static ARCHIVED: OnceLock<(Vault, Vault)> = OnceLock::new();
    ARCHIVED.get_or_init(|| {
        run(async {
            let vault = made(1100).await;
            let before = vault.copy();
            let store = vault.open().unwrap();
            archive(&store, 1100, 512).await.unwrap();
            thin(&store, 1101).await;
            store.close().await;
            (vault, before)
        })
    })
}

async fn made(size: u64) -> Vault {
    let vault = Vault::new();
    let store = vault.open().unwrap();
    for (n, kind) in (0..).zip(Kind::ALL) {
        put(&store, n, kind, "one", "{\"n\":1}").await.unwrap();
        put(&store, n, kind, "two", "{\"n\":2}").await.unwrap();
    }
    put(&store, 40, Kind::Secret, "one", "{\"n\":3}").await.unwrap();
    remove(&store, 41, Kind::Token, "two").await.unwrap();
    remove(&store, 42, Kind::Policy, "two").await.unwrap();
    store.append(personal_draft(43), None).await.unwrap();
    let done = 2 * Kind::ALL.len() as u64 + 4;
    append_many(&store, done, size - 1).await;
    store.append(personal_draft(size), None).await.unwrap();
    store.close().await;
    vault
}

fn run<R>(work: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[derive(Clone, Copy, PartialEq)]
enum Unseal {
    Refuses,
    /// Only a verification reads old events.
    Serves,
}

/// Tampers with a copy; checks what opening and verifying say, and that the state can then be accepted.
fn check(name: &str, unseal: Unseal, named: &str, tamper: impl FnOnce(&Vault)) {
    check_on(base(), name, unseal, named, tamper);
}

fn check_on(base: &Vault, name: &str, unseal: Unseal, named: &str, tamper: impl FnOnce(&Vault)) {
    let vault = base.copy();
    tamper(&vault);
    check_refused(name, &vault, unseal, named);
    check_accepted(name, &vault);
}

fn check_refused(name: &str, vault: &Vault, unseal: Unseal, named: &str) {
    let report = vault.verify().unwrap_or_else(|e| panic!("{name}: verify fails: {e}"));
    let said = words(&report);
    assert!(said.contains(named), "{name}: expected `{named}` in:\n{said}");
    let opened = vault.open();
    assert_eq!(opened.is_err(), unseal == Unseal::Refuses, "{name}: {:?}", opened.err());
    if let Err(error) = opened {
        assert!(matches!(error, OpenError::Untrusted(_)), "{name}: {error:?}");
    }
}

fn check_accepted(name: &str, vault: &Vault) {
    run(async {
        let told = Told::default();
        let store =
            vault.unseal(Trust::Accept, told.observer()).unwrap_or_else(|e| panic!("{name}: accept: {e}"));
        store.append(draft(9999), None).await.unwrap();
        put(&store, 10_000, Kind::Secret, "after", "{}").await.unwrap();
        remove(&store, 10_001, Kind::Secret, "one").await.unwrap();
        store.close().await;
        let again = Told::default();
        let store = vault.unseal(Trust::Checked, again.observer());
        let store = store.unwrap_or_else(|e| panic!("{name}: checked after accept: {e}"));
        append_many(&store, 0, 300).await;
        store.close().await;
        assert_eq!(again.rows().len(), told.rows().len(), "{name}");
        vault.open().unwrap_or_else(|e| panic!("{name}: once more: {e}")).close().await;
    });
}

fn words(report: &Report) -> String {
    report.problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn check_sql(unseal: Unseal, named: &str, sql: &str) {
    check(sql, unseal, named, |vault| vault.edit(sql));
}

#[test]
fn untouched_copies_are_fine() {
    for vault in [base(), younger(), &archived().0, &archived().1] {
        assert_eq!(vault.copy().verify().unwrap().problems, vec![]);
        run(async { vault.copy().open().unwrap().close().await });
    }
    check_accepted("untouched", &base().copy());
    let vault = archived().0.copy();
    check_accepted("untouched and archived", &vault);
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

#[test]
fn archives_are_no_hole_to_hide_in() {
    let (archived, before) = archived();
    let tampered =
        |unseal, named: &str, sql: &str| check_on(archived, sql, unseal, named, |vault| vault.edit(sql));
    let serves = |named: &str, sql: &str| tampered(Unseal::Serves, named, sql);
    let refuses = |named: &str, sql: &str| tampered(Unseal::Refuses, named, sql);
    // What stayed answers for a row, and is counted.
    serves(
        "the slot `one` is there, but no event in the log ever wrote it",
        "DELETE FROM events WHERE seq = 2",
    );
    serves("one was removed, or put back", "DELETE FROM events WHERE seq = 2");
    serves("event 2 was", "UPDATE events SET actor = 'anonymous' WHERE seq = 2");
    serves(
        "event 2 was",
        "UPDATE events SET record = CAST(replace(CAST(record AS TEXT), '\"allowed\"', '\"refused\"') AS BLOB) WHERE seq = 2",
    );
    serves(
        "one was removed, or put back",
        &format!(
            "ATTACH '{}' AS older; INSERT INTO events SELECT * FROM older.events WHERE seq = 100",
            before.database().display()
        ),
    );
    // Behind the end nothing may be missing, whatever the mark is made to say.
    serves("event 512 was changed or removed: it is missing", "DELETE FROM events WHERE seq = 512");
    serves("event 600 was changed or removed: it is missing", "DELETE FROM events WHERE seq = 600");
    let mark = |from: &str, to: &str| {
        format!(
            "UPDATE state SET body = replace(body, '{from}', '{to}') WHERE kind = 'archive' AND key = 'log'"
        )
    };
    let moved = mark("\"end\":512,\"thinned\":512", "\"end\":1024,\"thinned\":1024");
    refuses("the archive `log` was changed by other means", &moved);
    refuses(
        "the archive `log` was changed by other means",
        &format!("{moved}; DELETE FROM events WHERE seq BETWEEN 600 AND 1000"),
    );
    let unfinished = mark("\"thinned\":512", "\"thinned\":0");
    refuses("the archive `log` was changed", &format!("{unfinished}; DELETE FROM events WHERE seq = 2"));
    refuses("256 events from here on are missing", &mark(":512", ":256"));
    refuses("the archive `log` was changed", &mark("\"end\"", "\"beginning\""));
    refuses("the archive `log` is gone", "DELETE FROM state WHERE kind = 'archive' AND key = 'log'");
    refuses("the archive `log`", "UPDATE state SET body = X'FF' WHERE kind = 'archive' AND key = 'log'");
    // The hashes that answer for what went.
    refuses(
        "event 0 was changed or removed: it or another one up to event 1023",
        "UPDATE tiles SET hashes = zeroblob(32) || substr(hashes, 33) WHERE level = 0 AND number = 1",
    );
    refuses("its tile of the tree is missing", "DELETE FROM tiles WHERE level = 0 AND number = 1");
    refuses(
        "its tile of the tree is missing",
        "UPDATE tiles SET hashes = X'00' WHERE level = 0 AND number = 1",
    );
    // The whole database from before.
    let vault = archived.copy();
    vault.put_back_database_of(before);
    check_refused("put back", &vault, Unseal::Refuses, "put back to an older copy");
}

#[test]
fn edited_events() {
    const FORGE: &str = "record = CAST(replace(CAST(record AS TEXT), '\"allowed\"', '\"refused\"') AS BLOB)";
    // Old events: a start does not read them, a verification names them.
    let old = |sql: &str| {
        check_sql(Unseal::Serves, "event 100 was", &format!("UPDATE events SET {sql} WHERE seq = 100"))
    };
    old(FORGE);
    old("record = X'00' || substr(record, 2)");
    old("record = CAST('not an event' AS BLOB)");
    old("record = CAST(record AS TEXT)");
    old("record = 5");
    old("time = time + 1");
    old("time = 'noon'");
    old("actor = 'anonymous'");
    old("actor = CAST(actor AS BLOB)");
    old("actor = X'FF'");
    old("environment = 'dev'");
    old("environment = NULL");
    old("path = 'stripe/test'");
    old("path = NULL");
    old("personal = zeroblob(40)");
    // Those since the last full tile: at once.
    let new = |named: &str, sql: &str| {
        check_sql(Unseal::Refuses, named, &format!("UPDATE events SET {sql} WHERE seq = 650"));
    };
    new("event 640 was changed or removed: it or another one up to event 671", FORGE);
    new("event 650 was", "record = CAST('{}' AS BLOB)");
    new("event 650 was", "time = time - 1");
    new("event 650 was", "actor = 'anonymous'");
    new("event 650 was", "environment = NULL");
    new("event 650 was", "path = 'stripe/test'");
    new("event 650 was", "personal = zeroblob(40)");
    let personal = "personal = CAST(replace(CAST(personal AS TEXT), 'ana', 'eva') AS BLOB)";
    check_sql(Unseal::Refuses, "event 699 was", &format!("UPDATE events SET {personal} WHERE seq = 699"));
    check_sql(
        Unseal::Refuses,
        "event 699 was",
        "UPDATE events SET personal = substr(personal, 2) WHERE seq = 699",
    );
}

#[test]
fn personal_data_that_went_without_a_record_is_named() {
    check_sql(Unseal::Serves, "its personal data", "UPDATE events SET personal = NULL");
    check_sql(Unseal::Serves, "event 699 was", "UPDATE events SET personal = NULL WHERE seq = 699");
}

#[test]
fn missing_and_displaced_events() {
    check_sql(
        Unseal::Serves,
        "event 0 was changed or removed: it is missing",
        "DELETE FROM events WHERE seq = 0",
    );
    check_sql(Unseal::Serves, "event 100 was", "DELETE FROM events WHERE seq = 100");
    check_sql(
        Unseal::Serves,
        "event 50 was changed or removed: 51 events",
        "DELETE FROM events WHERE seq BETWEEN 50 AND 100",
    );
    check_sql(Unseal::Refuses, "event 600 was", "DELETE FROM events WHERE seq = 600");
    check_sql(Unseal::Refuses, "ends at event 699", "DELETE FROM events WHERE seq = 699");
    check_sql(Unseal::Refuses, "ends at event 300", "DELETE FROM events WHERE seq >= 300");
    check_sql(Unseal::Refuses, "ends at event 0", "DELETE FROM events");
    check_sql(
        Unseal::Serves,
        "event 10 was",
        "UPDATE events SET seq = -1 WHERE seq = 10; UPDATE events SET seq = 10 WHERE seq = 11; UPDATE events SET seq = 11 WHERE seq = -1",
    );
    check_sql(
        Unseal::Refuses,
        "event 690 was",
        "UPDATE events SET seq = -1 WHERE seq = 690; UPDATE events SET seq = 690 WHERE seq = 691; UPDATE events SET seq = 691 WHERE seq = -1",
    );
    let insert = |seq: &str, of: u64| {
        format!(
            "INSERT INTO events SELECT {seq}, time, actor, environment, path, record, personal FROM events WHERE seq = {of}"
        )
    };
    check_sql(Unseal::Refuses, "event 700 was", &insert("700", 699));
    check_sql(Unseal::Refuses, "event 700 was", &insert("1000000000000", 699));
    check_sql(Unseal::Refuses, "event 700 was", &insert("9223372036854775807", 699));
    check_sql(Unseal::Serves, "event 0 was", &insert("-1", 5));
    check_sql(Unseal::Serves, "event 0 was", &insert("-9223372036854775808", 5));
    // One in the middle, all others one further.
    check_sql(
        Unseal::Refuses,
        "event 101 was",
        &format!(
            "UPDATE events SET seq = -seq WHERE seq > 100; UPDATE events SET seq = 1 - seq WHERE seq < 0; {}",
            insert("101", 100)
        ),
    );
    // A gap closed by moving all others down, and a copy of the last at the end.
    check_sql(
        Unseal::Refuses,
        "event 640 was",
        &format!(
            "DELETE FROM events WHERE seq = 640; UPDATE events SET seq = -seq WHERE seq > 640; UPDATE events SET seq = -seq - 1 WHERE seq < 0; {}",
            insert("699", 698)
        ),
    );
}

#[test]
fn edited_rows_of_every_kind() {
    for kind in Kind::ALL {
        let (name, said) = (kind.as_str(), kind.as_str().replace('_', " "));
        let row = format!("kind = '{name}' AND key = 'one'");
        let named = format!("the {said} `one`");
        let refuse = |sql: &str| check_sql(Unseal::Refuses, &named, sql);
        refuse(&format!("UPDATE state SET body = replace(body, '1', '2') || ' ' WHERE {row}"));
        refuse(&format!("UPDATE state SET blob = X'00' WHERE {row}"));
        refuse(&format!("DELETE FROM state WHERE {row}"));
    }
    let of = |sql: &str| {
        check_sql(
            Unseal::Refuses,
            "the grant `one`",
            &format!("UPDATE state SET {sql} WHERE kind = 'grant' AND key = 'one'"),
        )
    };
    of("blob = NULL");
    of("blob = CAST(blob AS TEXT)");
    of("body = CAST(body AS BLOB)");
    of("body = X'FF'");
    of("body = NULL");
    of("body = NULL, blob = NULL");
    of("seq = 1000");
    of("seq = -5");
    of("seq = 'x'");
    of("seq = 9223372036854775807");
    of("key = 'three'");
    of("key = CAST(key AS BLOB)");
    of("kind = 'policy', key = 'four'");
    of("kind = 'wizard'");
    let refuse = |named: &str, sql: &str| check_sql(Unseal::Refuses, named, sql);
    // Put back to what it was: the token as before its removal, the secret as before it was rewritten.
    refuse(
        "the token `two` is there again",
        "UPDATE state SET body = '{\"n\":2}', blob = CAST('ciphertext' AS BLOB) WHERE kind = 'token' AND key = 'two'",
    );
    refuse(
        "the secret `one` was changed",
        "UPDATE state SET body = '{\"n\":1}' WHERE kind = 'secret' AND key = 'one'",
    );
    // The marks of removed rows.
    refuse("removed the token `two` is gone", "DELETE FROM state WHERE kind = 'token' AND key = 'two'");
    refuse(
        "rows differ from the signed digest",
        "UPDATE state SET seq = 500 WHERE kind = 'token' AND key = 'two'",
    );
    refuse("the token `two`", "UPDATE state SET blob = X'00' WHERE kind = 'token' AND key = 'two'");
    // Rows that nobody wrote.
    refuse(
        "no event in the log ever wrote it",
        "INSERT INTO state VALUES ('grant', 'mine', 999, '{}', NULL)",
    );
    refuse("no event in the log says so", "INSERT INTO state VALUES ('grant', 'mine', 999, NULL, NULL)");
    refuse("of the unknown kind `wizard`", "INSERT INTO state VALUES ('wizard', 'x', 999, '{}', NULL)");
    refuse("of the unknown kind", "INSERT INTO state VALUES (X'FF', X'FE', 999, '{}', NULL)");
    refuse("is gone", "DELETE FROM state");
    // Two rows exchanged.
    refuse(
        "the account `one`",
        "CREATE TEMP TABLE t AS SELECT key, body, seq FROM state WHERE kind = 'account';
         UPDATE state SET seq = seq + 100000 WHERE kind = 'account';
         UPDATE state SET seq = (SELECT seq FROM t WHERE t.key <> state.key) WHERE kind = 'account'",
    );
}

#[test]
fn edited_trees_and_checkpoints() {
    let refuse = |named: &str, sql: &str| check_sql(Unseal::Refuses, named, sql);
    refuse(
        "event 3 was",
        "UPDATE tiles SET hashes = substr(hashes, 1, 96) || zeroblob(32) || substr(hashes, 129) WHERE number = 0",
    );
    refuse("its tile of the tree is missing", "DELETE FROM tiles WHERE number = 1");
    refuse("its tile of the tree is missing", "UPDATE tiles SET hashes = zeroblob(31) WHERE number = 1");
    refuse("event 0 was", "UPDATE tiles SET number = 7 - number; UPDATE tiles SET number = number - 6");
    refuse("checkpoint is missing", "DELETE FROM checkpoint");
    refuse(
        "checkpoint is not signed by this vault",
        "UPDATE checkpoint SET note = replace(note, '700', '699')",
    );
    refuse("checkpoint is not signed by this vault", "UPDATE checkpoint SET note = ''");
    refuse("checkpoint is not signed by this vault", "UPDATE checkpoint SET note = X'FF'");
    refuse("checkpoint is damaged", "UPDATE checkpoint SET frontier = zeroblob(8)");
    refuse(
        "checkpoint is damaged",
        "UPDATE checkpoint SET frontier = substr(frontier, 1, 8) || zeroblob(length(frontier) - 8)",
    );
    // Tiles beyond the log are never read, so they harm nobody; they are named all the same.
    check_sql(Unseal::Serves, "tiles beyond the end", "INSERT INTO tiles VALUES (0, 2, zeroblob(8192))");
    check_sql(Unseal::Serves, "tiles beyond the end", "INSERT INTO tiles VALUES (5, 0, zeroblob(8192))");
}

#[test]
fn an_edited_event_whose_true_hash_is_planted() {
    // The hashes of the newest events as a tile that is not full yet, so that an edited record is not hashed.
    let vault = base().copy();
    let connection = rusqlite::Connection::open(vault.database()).unwrap();
    let mut hashes: Vec<u8> = connection
        .prepare("SELECT record FROM events WHERE seq >= 512 ORDER BY seq")
        .unwrap()
        .query_map([], |row| row.get::<_, Vec<u8>>(0))
        .unwrap()
        .flat_map(|record| keymoat_core::tree::leaf_hash(&record.unwrap()))
        .collect();
    hashes.resize(8192, 0);
    connection.execute("INSERT INTO tiles VALUES (0, 2, ?1)", [hashes]).unwrap();
    drop(connection);
    vault.edit("UPDATE events SET record = CAST(replace(CAST(record AS TEXT), '\"allowed\"', '\"refused\"') AS BLOB) WHERE seq = 650");
    check_refused("planted tile", &vault, Unseal::Refuses, "event 640 was");
    check_accepted("planted tile", &vault);
}

#[test]
fn an_old_event_edited_together_with_its_tile() {
    let vault = base().copy();
    vault.edit("UPDATE events SET record = CAST(replace(CAST(record AS TEXT), '\"allowed\"', '\"refused\"') AS BLOB) WHERE seq = 100");
    let connection = rusqlite::Connection::open(vault.database()).unwrap();
    let record: Vec<u8> =
        connection.query_row("SELECT record FROM events WHERE seq = 100", [], |row| row.get(0)).unwrap();
    let mut hashes: Vec<u8> =
        connection.query_row("SELECT hashes FROM tiles WHERE number = 0", [], |row| row.get(0)).unwrap();
    hashes[3200..3232].copy_from_slice(&keymoat_core::tree::leaf_hash(&record));
    connection.execute("UPDATE tiles SET hashes = ?1 WHERE number = 0", [hashes]).unwrap();
    drop(connection);
    check_refused(
        "edited with its tile",
        &vault,
        Unseal::Refuses,
        "event 0 was changed or removed: it or another one up to event 511",
    );
    check_accepted("edited with its tile", &vault);
}

#[test]
fn schemas_that_lie() {
    let refuse = |named: &str, sql: &str| check_sql(Unseal::Refuses, named, sql);
    refuse("trigger `t`", "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM state; END");
    refuse("view `v`", "CREATE VIEW v AS SELECT * FROM events");
    refuse("table `extra`", "CREATE TABLE extra (x)");
    refuse("index `state_seq` of the database is missing", "DROP INDEX state_seq");
    let vault = base().copy();
    vault.edit("ALTER TABLE state ADD COLUMN more");
    check_refused("a further column", &vault, Unseal::Refuses, "table `state` of the database is not as");
    assert!(matches!(
        vault.unseal(Trust::Accept, Box::new(|_| {})),
        Err(OpenError::Untrusted(Untrusted::State(_)))
    ));
}

#[test]
fn the_file_outside() {
    let write = |text: &'static [u8]| move |vault: &Vault| std::fs::write(vault.outside(), text).unwrap();
    let missing = |vault: &Vault| std::fs::remove_file(vault.outside()).unwrap();
    check("missing", Unseal::Refuses, "is missing or empty, so it cannot be told", missing);
    check("empty", Unseal::Refuses, "is missing or empty", write(b""));
    check("torn", Unseal::Refuses, "was not written by this vault", write(b"keymoat/test\n700\n"));
    check("noise", Unseal::Refuses, "was not written by this vault", write(&[0xff; 100_000]));
    let foreign = run(made(40));
    check("foreign", Unseal::Refuses, "was not written by this vault", |vault| {
        std::fs::copy(foreign.outside(), vault.outside()).unwrap();
    });
    // One slot may be torn at any time; the other one answers.
    for slot in [0, 4096] {
        let vault = base().copy();
        let mut bytes = std::fs::read(vault.outside()).unwrap();
        bytes[slot + 20..slot + 60].fill(0);
        std::fs::write(vault.outside(), bytes).unwrap();
        assert_eq!(vault.verify().unwrap().problems, vec![]);
        run(async { vault.open().unwrap().close().await });
    }
}

#[test]
fn older_copies() {
    run(async {
        let vault = Vault::new();
        let store = vault.open().unwrap();
        append_many(&store, 0, 300).await;
        put(&store, 300, Kind::Token, "t", "{}").await.unwrap();
        // A copy of a running store: database, write-ahead log and all.
        let running = vault.copy();
        remove(&store, 301, Kind::Token, "t").await.unwrap();
        // As after a kill: the log was never folded in.
        let killed = vault.copy();
        store.close().await;
        let closed = vault.copy();

        let check = |name: &str, database: &Vault, outside: &Vault, fine: bool| {
            let here = outside.copy();
            here.put_back_database_of(database);
            match fine {
                true => assert_eq!(here.verify().unwrap().problems, vec![], "{name}"),
                false => check_refused(name, &here, Unseal::Refuses, "put back to an older copy"),
            }
            check_accepted_now(name, &here)
        };
        let mut names = vec![
            check("as it was", &closed, &closed, true),
            check("after a kill", &killed, &killed, true),
            check("the log of the killed one", &killed, &closed, true),
            check("older with its log", &running, &closed, false),
            check("older file outside only", &closed, &running, true),
        ];
        let without_log = running.copy();
        let wal = without_log.data().join("keymoat.db-wal");
        std::fs::remove_file(&wal).unwrap();
        // Nothing was ever folded in, so without its log the database has not even tables.
        names.push(check("older without its log", &without_log, &closed, false));
        let killed_without_log = killed.copy();
        std::fs::remove_file(killed_without_log.data().join("keymoat.db-wal")).unwrap();
        names.push(check("its log removed after a kill", &killed_without_log, &killed, false));
        // The last page of the log gone, which is the last commit.
        let cut = killed.copy();
        let wal = cut.data().join("keymoat.db-wal");
        let length = std::fs::metadata(&wal).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(length - 100).unwrap();
        names.push(check("the end of its log cut off after a kill", &cut, &killed, false));
        for (name, vault) in names {
            let store = vault.unseal(Trust::Accept, Box::new(|_| {})).unwrap();
            change(&store, 1, |tx| tx.put(Kind::Setting, "s", "{}", None)).await.unwrap();
            store.close().await;
            vault.open().unwrap_or_else(|e| panic!("{name}: {e}")).close().await;
            assert_eq!(vault.verify().unwrap().problems, vec![], "{name}");
        }
    });
}

fn check_accepted_now(name: &str, vault: &Vault) -> (String, Vault) {
    (name.to_owned(), vault.copy())
}

#[test]
fn wiped_databases() {
    let vault = base().copy();
    std::fs::remove_file(vault.database()).unwrap();
    check_refused("no database", &vault, Unseal::Refuses, "put back to an older copy");
    let vault = base().copy();
    vault.edit("DELETE FROM events; DELETE FROM state; DELETE FROM tiles; DELETE FROM checkpoint");
    check_refused("all rows deleted", &vault, Unseal::Refuses, "put back to an older copy");
}

#[test]
fn another_history_of_the_same_size() {
    // The same first half, then another second one, as long as the signed one.
    let (one, other) = (younger().copy(), younger().copy());
    run(async {
        for (vault, kind) in [(&one, Kind::Grant), (&other, Kind::Policy)] {
            let store = vault.open().unwrap();
            put(&store, 999, kind, "fork", "{}").await.unwrap();
            store.close().await;
        }
    });
    one.put_back_database_of(&other);
    check_refused("fork", &one, Unseal::Refuses, "audit log was rewritten");
    check_accepted("fork", &one);
}

/// One random edit through SQL.
#[derive(Debug, Clone)]
struct Edit {
    what: usize,
    row: u64,
    byte: usize,
    xor: u8,
}

fn edit() -> impl Strategy<Value = Edit> {
    (0..14usize, any::<u64>(), any::<usize>(), 1..=255u8).prop_map(|(what, row, byte, xor)| Edit {
        what,
        row,
        byte,
        xor,
    })
}

impl Edit {
    fn apply(&self, vault: &Vault) {
        const COLUMNS: [(&str, &str); 11] = [
            ("events", "record"),
            ("events", "actor"),
            ("events", "environment"),
            ("events", "path"),
            ("events", "time"),
            ("state", "body"),
            ("state", "blob"),
            ("state", "key"),
            ("tiles", "hashes"),
            ("checkpoint", "note"),
            ("checkpoint", "frontier"),
        ];
        let connection = rusqlite::Connection::open(vault.database()).unwrap();
        let order = "ORDER BY 1, 2";
        let Some((table, column)) = COLUMNS.get(self.what) else {
            let table = ["events", "state", "tiles"][self.what - COLUMNS.len()];
            let key = ["seq", "seq", "number"][self.what - COLUMNS.len()];
            let keys: Vec<i64> = connection
                .prepare(&format!("SELECT {key} FROM {table} {}", order.replace(", 2", "")))
                .unwrap()
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let key_value = keys[(self.row % keys.len() as u64) as usize];
            connection.execute(&format!("DELETE FROM {table} WHERE {key} = ?1"), [key_value]).unwrap();
            return;
        };
        let key = match *table {
            "events" | "state" => "seq",
            "tiles" => "number",
            _ => "id",
        };
        let cells: Vec<(i64, Vec<u8>, String)> = connection
            .prepare(&format!(
                "SELECT {key}, CAST({column} AS BLOB), typeof({column}) FROM {table} WHERE length({column}) > 0 ORDER BY 1"
            ))
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let (number, mut bytes, form) = cells[(self.row % cells.len() as u64) as usize].clone();
        let byte = self.byte % bytes.len();
        bytes[byte] ^= self.xor;
        let form = if form == "null" { "blob" } else { &form };
        connection
            .execute(
                &format!("UPDATE {table} SET {column} = CAST(?1 AS {form}) WHERE {key} = ?2"),
                (bytes, number),
            )
            .unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_edit_is_found(edits in prop::collection::vec(edit(), 1..3)) {
        let vault = base().copy();
        for edit in &edits {
            edit.apply(&vault);
        }
        let before = std::fs::read(base().database()).unwrap();
        prop_assume!(before != std::fs::read(vault.database()).unwrap());
        let report = vault.verify().unwrap();
        prop_assert!(!report.problems.is_empty());
        if !edits.iter().all(|edit| edit.what < 5 || edit.what == 11) {
            prop_assert!(vault.open().is_err());
        }
        run(async {
            let store = vault.unseal(Trust::Accept, Box::new(|_| {})).unwrap();
            store.append(draft(1), None).await.unwrap();
            store.close().await;
            vault.open().unwrap().close().await;
        });
    }

    #[test]
    fn a_flipped_bit_of_the_file_never_changes_what_is_served(at in any::<usize>(), bit in 0..8u8, outside in prop::bool::weighted(0.1)) {
        let vault = base().copy();
        let file = if outside { vault.outside() } else { vault.database() };
        let mut bytes = std::fs::read(&file).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        std::fs::write(&file, bytes).unwrap();
        let truth = Told::default();
        run(async { base().copy().unseal(Trust::Checked, truth.observer()).unwrap().close().await });
        let told = Told::default();
        if let Ok(store) = vault.unseal(Trust::Checked, told.observer()) {
            prop_assert_eq!(told.rows(), truth.rows());
            run(async { store.close().await });
        }
        // It may fail, it must not panic.
        let _ = vault.verify();
    }
}
