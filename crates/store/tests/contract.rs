//! What the store promises to those who use it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::sync::{Arc, Mutex};

use common::{Told, Vault, append_many, change, draft, make_private, personal_draft, put, remove};
use keymoat_store::{
    DataDir, Durability, Effect, EventRange, Kind, OpenError, Row, SealedStore, StoreError, Trust, Untrusted,
};

on_both_databases!(
    a_new_store_that_was_never_written_verifies_and_opens_again,
    what_somebody_else_has_put_there_is_not_written_back,
    a_first_commit_that_the_file_outside_never_heard_of_is_no_foreign_one,
    rows_are_written_read_and_removed,
    what_breaks_the_rules_is_refused_and_leaves_nothing,
    a_failing_member_takes_nobody_with_it,
    a_batch_holds_a_few_megabytes,
    a_count_that_goes_down_makes_no_decision_stale,
    the_key_of_a_row_has_a_limit,
    a_decision_under_older_rules_is_stale,
    the_observer_knows_before_the_caller,
    times_never_run_backwards,
    two_thousand_at_once_make_one_log,
    changes_are_followed_by_their_numbers,
    a_reader_sees_one_state,
    events_are_found_by_what_they_are_about,
    an_observer_that_fails_stops_the_store,
    the_last_user_may_be_anywhere,
    os_durability_keeps_the_same_promises,
);

#[tokio::test]
async fn a_store_is_made_opened_and_opened_again() {
    let vault = Vault::new();
    assert!(vault.sealed().unwrap().is_empty().unwrap());
    let store = vault.open().unwrap();
    assert!(matches!(vault.sealed(), Err(OpenError::Locked { .. })));
    let committed = put(&store, 1, Kind::Secret, "prod/a", "{}").await.unwrap();
    assert_eq!((committed.event, committed.change, committed.epoch), (0, 1, 0));
    assert_eq!(store.append(draft(2), None).await.unwrap().event, 1);
    store.close().await;
    let files: Vec<_> = std::fs::read_dir(vault.data()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files.len(), 3, "the log was folded in, the lock and the reserve stay: {files:?}");

    let sealed = vault.sealed().unwrap();
    assert!(!sealed.is_empty().unwrap());
    assert_eq!(sealed.rows(Kind::Secret).unwrap().len(), 1);
    drop(sealed);
    let report = vault.verify().unwrap();
    assert_eq!((report.events, report.rows, report.problems), (2, 1, vec![]));
    let store = vault.open().unwrap();
    assert_eq!(store.append(draft(3), None).await.unwrap().event, 2);
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

async fn a_batch_holds_a_few_megabytes(vault: Vault) {
    const VALUES: usize = 40;
    const MEGABYTE: usize = 1024 * 1024;
    // What each commit told at once.
    let told = Arc::new(Mutex::new(Vec::new()));
    let observer = Arc::clone(&told);
    let observer: keymoat_store::Observer = Box::new(move |effects| {
        let blob = |effect: &Effect| match effect {
            Effect::Written(row) => row.blob.as_ref().map_or(0, Vec::len),
            _ => 0,
        };
        observer.lock().unwrap().push(effects.iter().map(blob).sum::<usize>());
    });
    let store = vault.unseal(Trust::Checked, observer).unwrap();
    told.lock().unwrap().clear();
    // The writer is held by the first until all the others have queued.
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let mut writes: Vec<std::pin::Pin<Box<dyn Future<Output = _>>>> = Vec::new();
    writes.push(Box::pin(change(&store, 0, move |tx| {
        let _ = gate.recv();
        tx.put(Kind::Version, "held", "{}", None)
    })));
    for n in 1..=VALUES {
        let key = format!("large {n}");
        let work =
            move |tx: &mut keymoat_store::Tx<'_>| tx.put(Kind::Version, &key, "{}", Some(&vec![7; MEGABYTE]));
        writes.push(Box::pin(change(&store, n as u64, work)));
    }
    std::future::poll_fn(|cx| {
        assert!(writes.iter_mut().all(|write| write.as_mut().poll(cx).is_pending()));
        std::task::Poll::Ready(())
    })
    .await;
    drop(go);
    for write in writes {
        write.await.unwrap();
    }
    let commits = told.lock().unwrap().clone();
    assert_eq!(commits.iter().sum::<usize>(), VALUES * MEGABYTE);
    assert!(commits.iter().all(|bytes| *bytes <= 9 * MEGABYTE), "{commits:?}");
    assert!(commits.len() < VALUES, "{commits:?}");
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

async fn what_somebody_else_has_put_there_is_not_written_back(vault: Vault) {
    let edits = [
        "UPDATE state SET body = '{\"n\":9}' WHERE kind = 'token'",
        "DELETE FROM state WHERE kind = 'token'",
        "INSERT INTO state (kind, key, seq, body) VALUES ('token', 'u', 77, '{}')",
    ];
    for (number, edit) in edits.iter().enumerate() {
        let vault = if vault.is_on_server() { vault.beside(&format!("s{number}")) } else { Vault::new() };
        let store = vault.open().unwrap();
        put(&store, 1, Kind::Token, "t", r#"{"n":1}"#).await.unwrap();
        vault.edit(edit);
        let renewed = change(&store, 2, |tx| {
            for row in tx.rows_with_prefix(Kind::Token, "", 9)? {
                tx.put(Kind::Token, &row.key, &row.body, None)?;
            }
            tx.row(Kind::Token, "t").map(|_| ())
        });
        let error = renewed.await.unwrap_err();
        assert!(error.to_string().contains("by other means"), "{edit}: {error}");
        assert!(store.stopped().is_some(), "{edit}");
        assert!(matches!(store.append(draft(3), None).await, Err(StoreError::Stopped(_))));
        store.close().await;
    }
}

async fn a_new_store_that_was_never_written_verifies_and_opens_again(vault: Vault) {
    assert_eq!(vault.verify().unwrap().problems, vec![]);
    vault.open().unwrap().close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
    vault.open().unwrap().close().await;
}

async fn a_first_commit_that_the_file_outside_never_heard_of_is_no_foreign_one(vault: Vault) {
    let store = vault.open().unwrap();
    let before = std::fs::read(vault.outside()).unwrap();
    put(&store, 1, Kind::Instance, "id", "{}").await.unwrap();
    store.close().await;
    std::fs::write(vault.outside(), before).unwrap();
    // The next start brings the file up to the database before anything else happens.
    vault.open().unwrap().close().await;
    let outside = std::fs::read_to_string(vault.outside()).unwrap();
    assert!(outside.contains("keymoat/test\n1\n"), "{outside}");
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

#[tokio::test]
async fn foreign_and_newer_files_are_left_alone() {
    let vault = Vault::new();
    make_private(&vault.data());
    std::fs::write(vault.database(), "this is a letter to my aunt, not a database".repeat(100)).unwrap();
    assert!(matches!(vault.sealed(), Err(OpenError::Foreign(_))));
    std::fs::remove_file(vault.database()).unwrap();
    vault.edit("CREATE TABLE recipes (name)");
    let before = std::fs::read(vault.database()).unwrap();
    assert!(matches!(vault.sealed(), Err(OpenError::Foreign(_))));
    assert_eq!(std::fs::read(vault.database()).unwrap(), before);
    std::fs::remove_file(vault.database()).unwrap();
    vault.sealed().unwrap();
    vault.edit("PRAGMA user_version = 99");
    assert!(matches!(vault.sealed(), Err(OpenError::Newer { found: 99, known: 1, .. })));
}

async fn rows_are_written_read_and_removed(vault: Vault) {
    let store = vault.open().unwrap();
    change(&store, 1, |tx| {
        for key in ["a", "a/b", "a/c", "a0", "b", "a/\u{10ffff}", "a/\u{10ffff}x", "é"] {
            tx.put(Kind::Secret, key, &format!("{{\"of\":\"{key}\"}}"), None)?;
        }
        tx.put(Kind::Token, "a/b", "{}", Some(&[1, 2, 3]))?;
        assert!(tx.row(Kind::Secret, "a/c")?.is_some());
        assert!(tx.remove(Kind::Secret, "a/c")?);
        assert!(!tx.remove(Kind::Secret, "a/c")?);
        assert!(!tx.remove(Kind::Secret, "never there")?);
        assert!(tx.row(Kind::Secret, "a/c")?.is_none());
        assert_eq!(tx.rows_with_prefix(Kind::Secret, "a/", 99)?.len(), 3);
        Ok(())
    })
    .await
    .unwrap();
    let check = |prefix: &'static str, limit: usize, expected: &'static [&'static str]| {
        let store = store.clone();
        async move {
            let rows = store.read(move |r| r.rows_with_prefix(Kind::Secret, prefix, limit)).await.unwrap();
            let keys: Vec<_> = rows.iter().map(|row| row.key.as_str()).collect();
            assert_eq!(keys, expected, "{prefix}");
        }
    };
    check("a/", 99, &["a/b", "a/\u{10ffff}", "a/\u{10ffff}x"]).await;
    check("a", 2, &["a", "a/b"]).await;
    check("", 99, &["a", "a/b", "a/\u{10ffff}", "a/\u{10ffff}x", "a0", "b", "é"]).await;
    check("\u{10ffff}", 99, &[]).await;
    check("c", 99, &[]).await;
    let token = store.read(|r| r.row(Kind::Token, "a/b")).await.unwrap().unwrap();
    assert_eq!(
        token,
        Row { kind: Kind::Token, key: "a/b".into(), seq: 9, body: "{}".into(), blob: Some(vec![1, 2, 3]) }
    );
    put(&store, 2, Kind::Secret, "a/c", "back").await.unwrap();
    assert_eq!(store.read(|r| r.row(Kind::Secret, "a/c")).await.unwrap().unwrap().body, "back");
    let mut live = 0;
    let counted = store.read(move |r| r.live_rows(|_| live += 1).map(|()| live)).await.unwrap();
    assert_eq!(counted, 9);
    store.close().await;
    vault.open().unwrap().close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

async fn what_breaks_the_rules_is_refused_and_leaves_nothing(vault: Vault) {
    let store = vault.open().unwrap();
    let unrecorded = store.run_tx("unrecorded", |tx| tx.put(Kind::Secret, "a", "{}", None)).await;
    assert!(matches!(unrecorded, Err(StoreError::Refused(_))));
    let long = change(&store, 1, |tx| tx.put(Kind::Secret, &"k".repeat(1025), "{}", None)).await;
    assert!(matches!(long, Err(StoreError::Refused(_))));
    let many = change(&store, 1, |tx| {
        (0..20_001).try_for_each(|n| tx.put(Kind::Secret, &n.to_string(), "{}", None))
    });
    assert!(matches!(many.await, Err(StoreError::Refused(_))));
    // Names that take more room in the record than a record has.
    let wide = change(&store, 1, |tx| {
        (0..3000).try_for_each(|n| tx.put(Kind::Secret, &format!("{n}{}", "\u{1}".repeat(1000)), "{}", None))
    });
    assert!(matches!(wide.await, Err(StoreError::Refused(_))));
    let panics = change(&store, 1, |tx| {
        tx.put(Kind::Secret, "b", "{}", None)?;
        panic!("a closure of a test fails");
    });
    assert!(panics.await.is_err());
    assert_eq!(store.read(|r| r.events_len()).await.unwrap(), 0);
    assert_eq!(store.read(|r| r.changes(0, 10)).await.unwrap(), vec![]);
    // The widest record that is let through can be read again.
    let widest = change(&store, 1, |tx| {
        (0..1200)
            .try_for_each(|n| tx.put(Kind::Secret, &format!("{n:04}{}", "\u{1}".repeat(1000)), "{}", None))
    });
    widest.await.unwrap();
    assert_eq!(store.read(|r| r.event(0)).await.unwrap().unwrap().event.rows.len(), 1200);
    assert_eq!(store.stopped(), None);
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

async fn a_failing_member_takes_nobody_with_it(vault: Vault) {
    let told = Told::default();
    let store = vault.unseal(Trust::Checked, told.observer()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..600u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let result = change(&store, n, move |tx| {
                let key = format!("{:03}", n);
                tx.put(if n % 5 == 0 { Kind::Policy } else { Kind::Secret }, &key, "{}", None)?;
                if n % 3 == 0 { Err(StoreError::Refused("this one fails")) } else { Ok(()) }
            });
            (n, result.await.is_ok())
        });
    }
    for (n, ok) in tasks.join_all().await {
        assert_eq!(ok, n % 3 != 0, "{n}");
    }
    let (events, changes) = store.read(|r| Ok((r.events_len()?, r.changes(0, 9999)?))).await.unwrap();
    assert_eq!((events, changes.len()), (400, 400));
    assert!(changes.iter().zip(1..).all(|(change, seq)| change.seq == seq), "no number was lost");
    assert_eq!(told.rows().len(), 400);
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
    vault.open().unwrap().close().await;
}

async fn a_count_that_goes_down_makes_no_decision_stale(vault: Vault) {
    let store = vault.open().unwrap();
    let before = put(&store, 1, Kind::Grant, "g", r#"{"left":2}"#).await.unwrap().epoch;
    let counted = change(&store, 2, |tx| tx.put_count(Kind::Grant, "g", r#"{"left":1}"#)).await;
    counted.unwrap();
    store.append(draft(3), Some(before)).await.unwrap();
    let row = store.read(|reader| reader.row(Kind::Grant, "g")).await.unwrap().unwrap();
    assert_eq!(row.body, r#"{"left":1}"#);
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
    vault.open().unwrap().close().await;
}

async fn the_key_of_a_row_has_a_limit(vault: Vault) {
    let store = vault.open().unwrap();
    for (length, fits) in [(1, true), (1024, true), (1025, false), (100_000, false)] {
        let result = put(&store, 1, Kind::Setting, &"k".repeat(length), "{}").await;
        assert_eq!(result.is_ok(), fits, "{length}");
        assert!(fits || matches!(result, Err(StoreError::Refused(_))));
    }
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

async fn a_decision_under_older_rules_is_stale(vault: Vault) {
    let store = vault.open().unwrap();
    let before = put(&store, 1, Kind::Secret, "a", "{}").await.unwrap().epoch;
    assert_eq!(before, 0);
    store.append(draft(2), Some(0)).await.unwrap();
    let after = put(&store, 3, Kind::Policy, "p", "{}").await.unwrap().epoch;
    assert_eq!(after, 2);
    assert!(matches!(store.append(draft(4), Some(0)).await, Err(StoreError::Stale)));
    assert_eq!(store.append(draft(5), Some(after)).await.unwrap().event, 3);
    for (epoch, fits) in [(0, false), (2, true), (3, false)] {
        let checked = change(&store, 6, move |tx| tx.check_epoch(epoch)).await;
        assert_eq!(checked.is_ok(), fits, "{epoch}");
    }
    let removed = remove(&store, 7, Kind::Policy, "p").await.unwrap();
    assert_eq!((removed.change, removed.epoch), (3, 3));
    assert!(matches!(store.append(draft(8), Some(after)).await, Err(StoreError::Stale)));
    store.close().await;
}

async fn the_observer_knows_before_the_caller(vault: Vault) {
    let told = Told::default();
    let store = vault.unseal(Trust::Checked, told.observer()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300u64 {
        let (store, told) = (store.clone(), told.clone());
        tasks.spawn(async move {
            let key = (n % 50).to_string();
            let committed = put(&store, n, Kind::Grant, &key, &n.to_string()).await.unwrap();
            let newest = told.rows()[&(Kind::Grant, key)].0;
            assert!(newest + 1024 > committed.change && newest > 0);
        });
    }
    tasks.join_all().await;
    remove(&store, 300, Kind::Grant, "7").await.unwrap();
    assert!(!told.rows().contains_key(&(Kind::Grant, "7".into())));
    store.close().await;
    let loaded = Told::default();
    vault.unseal(Trust::Checked, loaded.observer()).unwrap().close().await;
    assert_eq!(loaded.rows(), told.rows());
    assert_eq!(loaded.rows().len(), 49);
}

async fn times_never_run_backwards(vault: Vault) {
    let store = vault.open().unwrap();
    for n in [10, 5, 20, 0] {
        store.append(draft(n), None).await.unwrap();
    }
    store.close().await;
    let store = vault.open().unwrap();
    store.append(draft(1), None).await.unwrap();
    let seconds = store
        .read(|r| {
            let mut seconds = Vec::new();
            r.events(&EventRange::default(), |e| {
                seconds.push(e.event.time.as_second() - 1_800_000_000);
                true
            })?;
            Ok(seconds)
        })
        .await
        .unwrap();
    assert_eq!(seconds, [10, 10, 20, 20, 20]);
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

async fn two_thousand_at_once_make_one_log(vault: Vault) {
    let store = vault.open().unwrap();
    let mut seqs = append_many(&store, 0, 2000).await;
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(0..2000));
    store.close().await;
    let report = vault.verify().unwrap();
    assert_eq!((report.events, report.problems), (2000, vec![]));
    vault.open().unwrap().close().await;
}

async fn changes_are_followed_by_their_numbers(vault: Vault) {
    let store = vault.open().unwrap();
    for (n, key) in [(0, "a"), (1, "b"), (2, "a")] {
        put(&store, n, Kind::Secret, key, &n.to_string()).await.unwrap();
    }
    remove(&store, 3, Kind::Secret, "b").await.unwrap();
    let follow = |after: u64, limit: usize| {
        let store = store.clone();
        async move {
            let changes = store.read(move |r| r.changes(after, limit)).await.unwrap();
            changes.into_iter().map(|c| (c.seq, c.key, c.body)).collect::<Vec<_>>()
        }
    };
    let (a, b) = ((3, "a".to_owned(), Some("2".to_owned())), (4, "b".to_owned(), None));
    assert_eq!(follow(0, 99).await, [a.clone(), b.clone()]);
    assert_eq!(follow(0, 1).await, [a]);
    assert_eq!(follow(3, 99).await, [b]);
    assert_eq!(follow(4, 99).await, vec![]);
    assert_eq!(follow(u64::MAX, usize::MAX).await, vec![]);
    store.close().await;
    let store = vault.open().unwrap();
    assert_eq!(
        put(&store, 4, Kind::Secret, "c", "{}").await.unwrap().change,
        5,
        "a removal's number is not given again"
    );
    store.close().await;
}

async fn a_reader_sees_one_state(vault: Vault) {
    let store = vault.open().unwrap();
    put(&store, 0, Kind::Secret, "a", "0").await.unwrap();
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for n in 1..60 {
            change(&writer, n, move |tx| {
                tx.put(Kind::Secret, "a", &n.to_string(), None)?;
                tx.put(Kind::Secret, "b", &n.to_string(), None)
            })
            .await
            .unwrap();
        }
    });
    while !writing.is_finished() {
        assert_eq!(store.verify(|_| {}).await.unwrap().problems, vec![], "also while it is written");
        let (a, b, events) = store
            .read(|r| Ok((r.row(Kind::Secret, "a")?, r.row(Kind::Secret, "b")?, r.events_len()?)))
            .await
            .unwrap();
        let (a, b) = (a.unwrap().body, b.map_or("0".to_owned(), |b| b.body));
        assert_eq!(a, b);
        assert_eq!(events, a.parse::<u64>().unwrap() + 1);
    }
    writing.await.unwrap();
    // A failing or panicking read leaves the connection fit for the next one.
    for _ in 0..20 {
        assert!(store.read(|_| Err::<(), _>(StoreError::Refused("no"))).await.is_err());
        assert!(
            store.read(|_| -> Result<(), StoreError> { panic!("a reader of a test fails") }).await.is_err()
        );
        store.read(|r| r.events_len()).await.unwrap();
    }
    store.scrub().await.unwrap();
    store.close().await;
}

async fn events_are_found_by_what_they_are_about(vault: Vault) {
    let store = vault.open().unwrap();
    for n in 0..40 {
        store.append(if n == 5 { personal_draft(n) } else { draft(n) }, None).await.unwrap();
    }
    let actor = draft(1).event.actor.to_string();
    let found = |range: EventRange| {
        let store = store.clone();
        async move {
            store
                .read(move |r| {
                    let mut seqs = Vec::new();
                    r.events(&range, |e| {
                        seqs.push(e.event.seq);
                        seqs.len() < 5
                    })?;
                    Ok(seqs)
                })
                .await
                .unwrap()
        }
    };
    let all = EventRange::default();
    assert_eq!(found(all.clone()).await, [0, 1, 2, 3, 4]);
    assert_eq!(
        found(EventRange { newest_first: true, before: Some(10), ..all.clone() }).await,
        [9, 8, 7, 6, 5]
    );
    assert_eq!(found(EventRange { actor: Some(actor), from: 2, ..all.clone() }).await, [4, 7, 10, 13, 16]);
    let path = EventRange { path: Some("stripe".into()), environment: Some("prod".into()), ..all.clone() };
    assert_eq!(found(path).await, [0, 1, 4, 5, 8], "itself and below, not `stripelike`");
    assert_eq!(found(EventRange { environment: Some("dev".into()), ..all.clone() }).await, Vec::<u64>::new());
    assert_eq!(found(EventRange { from: u64::MAX, ..all }).await, Vec::<u64>::new());
    let five = store.read(|r| r.event(5)).await.unwrap().unwrap();
    assert_eq!(five.personal, personal_draft(5).personal);
    assert!(store.read(|r| r.event(u64::MAX)).await.unwrap().is_none());
    store.close().await;
}

async fn an_observer_that_fails_stops_the_store(vault: Vault) {
    let loaded = Arc::new(Mutex::new(false));
    let observer = Box::new(move |_: Vec<Effect>| {
        assert!(!std::mem::replace(&mut *loaded.lock().unwrap(), true), "an observer of a test fails");
    });
    let store = vault.unseal(Trust::Checked, observer).unwrap();
    let put = put(&store, 1, Kind::Secret, "a", "{}").await;
    assert!(matches!(put, Err(StoreError::Stopped(_))), "{put:?}");
    // The thread says so while it unwinds, which may be a moment after its callers know.
    while store.stopped().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(store.append(draft(2), None).await, Err(StoreError::Stopped(_))));
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

async fn the_last_user_may_be_anywhere(vault: Vault) {
    let store = vault.open().unwrap();
    // Dropped with jobs under way: they are finished all the same.
    for n in 0..50 {
        let store = store.clone();
        tokio::spawn(async move { store.append(draft(n), None).await });
    }
    while store.read(|r| r.events_len()).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    let inside = store.clone();
    let mut inside = Some(inside);
    let done = change(&store, 99, move |_| {
        drop(inside.take());
        Ok(())
    });
    done.await.unwrap();
    store.close().await;
    while matches!(vault.sealed(), Err(OpenError::Locked { .. })) {
        tokio::task::yield_now().await;
    }
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

#[tokio::test]
async fn the_file_outside_must_be_a_file() {
    let vault = Vault::new();
    let unseal = |outside: &std::path::Path| {
        let sealed = SealedStore::open(DataDir::lock(&vault.data()).unwrap(), Durability::Os).unwrap();
        sealed.unseal(vault.keys(), outside, Trust::Checked, Box::new(|_| {})).err()
    };
    for path in ["/dev/full", "/dev/zero", "/proc", "/nowhere/at/all"] {
        assert!(matches!(unseal(path.as_ref()), Some(OpenError::Io { .. })), "{path}");
    }
    assert!(unseal(&vault.outside()).is_none());
}

async fn os_durability_keeps_the_same_promises(vault: Vault) {
    let open = || {
        let sealed = vault.sealed_with(Durability::Os).unwrap();
        sealed.unseal(vault.keys(), &vault.outside(), Trust::Checked, Box::new(|_| {})).unwrap()
    };
    for round in 0..3 {
        let store = open();
        for n in 0..20 {
            put(&store, round * 20 + n, Kind::Secret, &n.to_string(), "{}").await.unwrap();
        }
        store.close().await;
    }
    let report = vault.verify().unwrap();
    assert_eq!((report.events, report.rows, report.problems), (60, 20, Vec::<Untrusted>::new()));
}
