//! The store on a PostgreSQL server, and several nodes on one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::cluster::Cluster;
use common::{Told, Vault, append_many, draft, put};
use keymoat_store::{EventRange, Kind, OpenError, StoreError, Trust, Untrusted};

fn vault(test: &str) -> Option<Vault> {
    Vault::on_own_server(test)
}

#[tokio::test]
async fn a_store_on_a_server_is_made_opened_and_opened_again() {
    let Some(vault) = vault("store") else { return };
    assert!(vault.sealed().unwrap().is_empty().unwrap());
    let store = vault.open().unwrap();
    let committed = put(&store, 1, Kind::Secret, "prod/a", "{}").await.unwrap();
    assert_eq!((committed.event, committed.change, committed.epoch), (0, 1, 0));
    assert_eq!(store.append(draft(2), None).await.unwrap().event, 1);
    append_many(&store, 3, 700).await;
    assert_eq!(store.verify(|_| {}).await.unwrap().problems, vec![]);
    store.close().await;
    let report = vault.verify().unwrap();
    assert_eq!((report.events, report.rows, report.problems), (699, 1, vec![]));
    let told = Told::default();
    let store = vault.unseal(Trust::Checked, told.observer()).unwrap();
    assert_eq!(told.rows().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn two_nodes_write_one_log_and_hear_of_each_other() {
    for notify in ["on", "off"] {
        let Some(vault) = vault("nodes") else { return };
        let one = vault.with_url_options(&format!("?notify={notify}"));
        let two = one.node();
        let (told_one, told_two) = (Told::default(), Told::default());
        let first = one.unseal(Trust::Checked, told_one.observer()).unwrap();
        put(&first, 1, Kind::Token, "t", r#"{"n":1}"#).await.unwrap();
        let second = two.unseal(Trust::Checked, told_two.observer()).unwrap();
        assert_eq!(told_two.rows(), told_one.rows());
        let epoch = put(&second, 2, Kind::Token, "t", r#"{"n":2}"#).await.unwrap().epoch;
        // A decision under older rules is taken again, whichever node changed them.
        assert!(matches!(first.append(draft(3), Some(1)).await, Err(StoreError::Stale)));
        first.append(draft(3), Some(epoch)).await.unwrap();
        assert_eq!(told_one.rows(), told_two.rows());
        // What nobody writes after is heard of all the same.
        put(&second, 4, Kind::Secret, "prod/a", "{}").await.unwrap();
        common::until(|| told_one.rows() == told_two.rows()).await;
        let (some, more) = tokio::join!(append_many(&first, 10, 400), append_many(&second, 400, 800));
        let mut numbers: Vec<u64> = some.into_iter().chain(more).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (4..794).collect::<Vec<u64>>());
        assert_eq!(first.verify(|_| {}).await.unwrap().problems, vec![]);
        first.close().await;
        second.close().await;
        for node in [one, two] {
            let report = node.verify().unwrap();
            assert_eq!((report.events, report.problems), (794, vec![]));
        }
    }
}

/// Writes from four tasks until `stop`, and gives what was acknowledged.
async fn write_until(store: &keymoat_store::Store, stop: &Arc<AtomicBool>) -> BTreeSet<String> {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let (store, stop) = (store.clone(), Arc::clone(stop));
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{task}-{n}");
                match put(&store, n, Kind::Secret, &key, "{}").await {
                    Ok(_) => acknowledged.push(key),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            acknowledged
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn stored(store: &keymoat_store::Store) -> BTreeSet<String> {
    let rows = store.read(|r| r.rows_with_prefix(Kind::Secret, "", usize::MAX)).await.unwrap();
    rows.into_iter().map(|row| row.key).collect()
}

const WAITS_FOR_THE_STANDBY: [&str; 2] =
    ["synchronous_commit = remote_apply", "synchronous_standby_names = 'second'"];

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_loses_nothing_that_was_acknowledged() {
    let mut first = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(why) => return common::skip("postgres failover", &why),
    };
    let second = first.standby("second").unwrap();
    first.set(&WAITS_FOR_THE_STANDBY).unwrap();
    let url = format!("postgres://keymoat@127.0.0.1:{},127.0.0.1:{}/vault", first.port(), second.port());
    let vault = Vault::new().with_url(url);
    let store = vault.open().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        tokio::spawn(async move { write_until(&store, &stop).await })
    };
    common::until_async(|| async { stored(&store).await.len() >= 40 }).await;
    let before = stored(&store).await.len();
    first.kill();
    let since = std::time::Instant::now();
    second.promote().unwrap();
    second.set(&["synchronous_standby_names = ''"]).unwrap();
    // The same node goes on by itself, with what comes after.
    common::until_async(|| async { put(&store, 1, Kind::Secret, "after", "{}").await.is_ok() }).await;
    let back = since.elapsed();
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writing.await.unwrap();
    let found = stored(&store).await;
    let lost: Vec<&String> = acknowledged.difference(&found).collect();
    assert_eq!(
        lost,
        Vec::<&String>::new(),
        "of {} acknowledged, {before} before the end",
        acknowledged.len()
    );
    assert!(acknowledged.len() >= 30, "{}", acknowledged.len());
    common::figure(&format!(
        "postgres-failover: {} of {} acknowledged writes lost",
        lost.len(),
        acknowledged.len()
    ));
    assert!(back < std::time::Duration::from_secs(30), "{back:?}");
    assert_eq!(store.verify(|_| {}).await.unwrap().problems, vec![]);
    store.close().await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);
    // The old one comes back with what it had: it is older than what this node has seen.
    first.start_again().unwrap();
    first.set(&["synchronous_standby_names = ''"]).unwrap();
    let old = vault.with_url(first.url());
    match old.open() {
        Err(OpenError::Untrusted(Untrusted::Behind { .. } | Untrusted::Rewritten { .. })) => {}
        other => panic!("the old primary was taken: {:?}", other.err()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_administrator_of_the_database_changes_stops_the_nodes() {
    let Some(vault) = vault("edits") else { return };
    let mut number = 0;
    let mut check = async |sql: &str, part: &str| {
        number += 1;
        let one = vault.beside(&format!("edits{number}"));
        let two = one.node();
        let first = one.open().unwrap();
        put(&first, 1, Kind::Policy, "p", r#"{"n":1}"#).await.unwrap();
        append_many(&first, 2, 20).await;
        // A node that is there, and follows; an edit that comes with what another node has written is noticed.
        let second = two.open().unwrap();
        put(&first, 30, Kind::Policy, "q", r#"{"n":1}"#).await.unwrap();
        first.close().await;
        second.close().await;
        one.edit(sql);
        let refused = two.open().err().map(|error| error.to_string()).unwrap_or_default();
        let report = two.verify().unwrap();
        let said = format!("{refused} {:?}", report.problems);
        assert!(!refused.is_empty() && !report.problems.is_empty() && said.contains(part), "{sql}: {said}");
        // An administrator may take it as it is: then it is signed anew with the record that says so.
        let accepted = two.unseal(Trust::Accept, Box::new(|_| {})).unwrap();
        accepted.append(draft(40), None).await.unwrap();
        accepted.append(draft(41), None).await.unwrap();
        accepted.close().await;
        two.open().unwrap().close().await;
    };
    check("UPDATE state SET body = '{\"n\":2}' WHERE key = 'p'", "policy `p`").await;
    check("DELETE FROM state WHERE key = 'p'", "policy `p`").await;
    check("UPDATE events SET record = 'x' WHERE seq = 5", "event 5").await;
    check("DELETE FROM events WHERE seq = 19", "ends at event").await;
    check("UPDATE checkpoint SET note = ''", "checkpoint").await;
    check("UPDATE checkpoint SET frontier = ''", "damaged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_under_a_running_node_stops_it_when_it_goes_on() {
    let Some(vault) = vault("live edits") else { return };
    let mut number = 0;
    let mut check = async |sql: &str| {
        number += 1;
        let one = vault.beside(&format!("edits{number}"));
        let two = one.node();
        let first = one.open().unwrap();
        let second = two.open().unwrap();
        put(&first, 1, Kind::Policy, "p", r#"{"n":1}"#).await.unwrap();
        second.fresh().await.unwrap();
        put(&first, 2, Kind::Policy, "q", r#"{"n":1}"#).await.unwrap();
        one.edit(sql);
        let outcomes = (first.fresh().await.is_err(), second.fresh().await.is_err());
        assert!(outcomes.0 || outcomes.1, "{sql}: nobody noticed");
        let why = second.stopped().or(first.stopped()).map(str::to_owned);
        assert!(why.is_some(), "{sql}");
        first.close().await;
        second.close().await;
    };
    // The number beside the head, the row that the second node has not seen, its record, the head itself.
    check("UPDATE state SET body = '{\"n\":9}' WHERE key = 'q'; UPDATE checkpoint SET frontier = frontier || '\\x00'").await;
    check("UPDATE events SET record = convert_to(replace(convert_from(record, 'UTF8'), 'inspect', 'Inspect'), 'UTF8') WHERE seq = 1; UPDATE checkpoint SET frontier = frontier || '\\x00'").await;
    check("UPDATE checkpoint SET note = replace(note, 'keymoat/test', 'keymoat/else'), frontier = frontier || '\\x00'").await;
    check("DELETE FROM events; DELETE FROM state; DELETE FROM tiles; UPDATE checkpoint SET note = '', frontier = '', digest = ''").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_taken_once_is_taken_once_by_two_nodes() {
    // `TWO_NODES_TIMES=20 cargo nextest run -p keymoat-store taken_once_by_two_nodes` tries ten thousand.
    take_once(500 * option_env!("TWO_NODES_TIMES").map_or(1, |times| times.parse().unwrap())).await;
}

async fn take_once(rounds: u64) {
    let Some(one) = vault("two nodes once") else { return };
    let two = one.node();
    let nodes = [one.open().unwrap(), two.open().unwrap()];
    let winners = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, winners) = (nodes[task % 2].clone(), Arc::clone(&winners));
        tasks.spawn(async move {
            for round in 0..rounds {
                let key = format!("once-{round}");
                let taken = common::change(&store, 1, move |tx| match tx.row(Kind::Setting, &key)? {
                    Some(_) => Err(StoreError::Refused("it was taken")),
                    None => tx.put(Kind::Setting, &key, "{}", None),
                });
                if taken.await.is_ok() {
                    winners.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(winners.load(Ordering::Relaxed), rounds);
    common::figure(&format!("two-nodes-once: 0 of {rounds} things for one were taken twice"));
    let [first, second] = nodes;
    let events = first.read(|r| r.events_len()).await.unwrap();
    assert_eq!(events, rounds, "one record each, of the winner");
    let mut seen = 0;
    seen += second
        .read(|r| {
            let mut n = 0;
            r.events(&EventRange::default(), |_| {
                n += 1;
                true
            })?;
            Ok(n)
        })
        .await
        .unwrap();
    assert_eq!(seen, rounds);
    first.close().await;
    second.close().await;
}

const TASKS: usize = 8;
