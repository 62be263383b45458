//! Killed at any moment, with the disk full or not: what was acknowledged is there, and nothing is there by half.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Vault, append_many, archive, change, draft, finish, keys_left_in, put, skip, thin};
use keymoat_store::{DataDir, Durability, EventRange, Kind, SealedStore, Store, StoreError, Trust};

const CHILD_DIR: &str = "KEYMOAT_TEST_CHILD_DIR";
const CHILD_ROUND: &str = "KEYMOAT_TEST_CHILD_ROUND";

fn open_in(dir: &Path) -> Store {
    let sealed = SealedStore::open(DataDir::lock(&dir.join("data")).unwrap(), Durability::Disk).unwrap();
    sealed
        .unseal(keys_left_in(dir), &dir.join("outside/checkpoint"), Trust::Checked, Box::new(|_| {}))
        .unwrap()
}

/// What the child does when this binary runs itself: writes for ever and prints what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_killed() {
    let (Some(dir), Some(round)) = (told(CHILD_DIR), told(CHILD_ROUND)) else { return };
    let store = open_in(Path::new(&dir));
    let round: u64 = round.parse().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..4u64 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0.. {
                let key = format!("{round}-{writer}-{n}");
                match n % 3 {
                    0 => drop(store.append(draft(n), None).await.unwrap()),
                    _ => {
                        put(&store, n, Kind::Version, &key, &format!("{{\"n\":{n}}}")).await.unwrap();
                        writeln!(std::io::stdout(), "ACK {key}").unwrap();
                    }
                }
            }
        });
    }
    tasks.join_all().await;
}

#[test]
fn killed_at_any_moment() {
    let vault = Vault::on_disk();
    vault.leave_keys();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..25u64 {
        acknowledged.extend(killed_once(vault.dir(), round));
        if round % 8 == 7 {
            assert_eq!(vault.verify().unwrap().problems, vec![], "round {round}");
        }
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open_in(vault.dir());
        let (rows, recorded) = store
            .read(|r| {
                let mut recorded = std::collections::BTreeSet::new();
                r.events(&EventRange::default(), |e| {
                    recorded.extend(e.event.rows.into_iter().map(|row| row.key));
                    true
                })?;
                Ok((r.rows_with_prefix(Kind::Version, "", usize::MAX)?, recorded))
            })
            .await
            .unwrap();
        let rows: std::collections::BTreeSet<_> = rows.into_iter().map(|row| row.key).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|key| !rows.contains(*key)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(rows, recorded, "every change has its record");
        store.close().await;
    });
    assert_eq!(vault.verify().unwrap().problems, vec![]);
}

/// Runs the child, kills it after a while that differs from round to round, and gives what it had acknowledged.
fn killed_once(dir: &Path, round: u64) -> Vec<String> {
    let mut child = this_test("child_that_is_killed", dir)
        .env(CHILD_ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first rounds are killed while the store is being made, the later ones after some acknowledgements.
    let made = ["data", "data/lock", "data/keymoat.db", "data/keymoat.db-wal", "outside/checkpoint"];
    if let Some(file) = made.get(round as usize) {
        while !dir.join(file).exists() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
    }
    acknowledged_until(child, lines, round * 13 % 97 + 1)
}

/// Runs a child, kills it after so many acknowledgements, and gives what it had acknowledged.
fn killed_after(test: &str, dir: &Path, round: u64, count: u64) -> Vec<String> {
    let mut child =
        this_test(test, dir).env(CHILD_ROUND, round.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    acknowledged_until(child, lines, count)
}

fn acknowledged_until(
    mut child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    count: u64,
) -> Vec<String> {
    let mut keys = Vec::new();
    for line in lines {
        // The test runner's own line may stand before the first one.
        if let Some((_, key)) = line.unwrap().split_once("ACK ") {
            keys.push(key.to_owned());
        }
        if keys.len() as u64 == count {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    keys
}

/// What the child does when this binary runs itself: writes, archives and takes out for ever.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_archives() {
    let (Some(dir), Some(round)) = (told(CHILD_DIR), told(CHILD_ROUND)) else { return };
    let store = open_in(Path::new(&dir));
    for turn in 0.. {
        append_many(&store, turn, turn + 150).await;
        for n in 0..20 {
            let key = format!("{round}-{turn}-{n}");
            put(&store, n, Kind::Version, &key, "{}").await.unwrap();
            put(&store, n, Kind::Setting, &format!("{n}"), "{}").await.unwrap();
            writeln!(std::io::stdout(), "ACK {key}").unwrap();
        }
        let size = store.read(|r| r.events_len()).await.unwrap();
        let end = size - size % 256;
        archive(&store, turn, end).await.unwrap();
        let keep = store.keepers(|_| None).await.unwrap().below(end);
        // One at a time, so that there are many moments to be killed at.
        for place in store.read(move |r| r.present(0, end, usize::MAX)).await.unwrap() {
            if !keep.contains(&place) {
                store.run_tx("drop", move |tx| tx.drop_records(&[place])).await.unwrap();
                writeln!(std::io::stdout(), "ACK -{place}").unwrap();
            }
        }
        finish(&store, turn).await;
    }
}

#[test]
fn killed_while_archiving() {
    let vault = Vault::on_disk();
    vault.leave_keys();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..20u64 {
        acknowledged.extend(killed_after("child_that_archives", vault.dir(), round, round * 131 % 397 + 1));
        let report = vault.verify().unwrap();
        assert_eq!(report.problems, vec![], "round {round}");
    }
    let rows: Vec<_> = acknowledged.iter().filter(|key| !key.starts_with('-')).collect();
    assert!(rows.len() > 100 && rows.len() < acknowledged.len(), "{} {}", rows.len(), acknowledged.len());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open_in(vault.dir());
        let there = store.read(|r| r.rows_with_prefix(Kind::Version, "", usize::MAX)).await.unwrap();
        let there: std::collections::BTreeSet<_> = there.into_iter().map(|row| row.key).collect();
        assert!(rows.iter().all(|key| there.contains(*key)));
        // What was begun goes on from where it stopped.
        thin(&store, 1).await;
        let mark = store.read(|r| r.archive()).await.unwrap().unwrap();
        assert!(mark.end > 0 && !mark.is_unfinished());
        store.close().await;
    });
    let report = vault.verify().unwrap();
    assert_eq!(report.problems, vec![]);
    assert!(report.archived > 0);
}

/// What the child does on a disk of its own: fills it, is refused, makes room, goes on.
#[tokio::test]
async fn child_with_a_full_disk() {
    let Some(dir) = told(CHILD_DIR) else { return };
    let dir = PathBuf::from(dir);
    std::fs::write(dir.join("data/ballast"), vec![1; 300_000]).unwrap();
    let store = open_in(&dir);
    let mut written = 0u64;
    let full = loop {
        let key = format!("k{written}");
        let blob = vec![9; 3000];
        match change(&store, written, move |tx| tx.put(Kind::Version, &key, "{}", Some(&blob))).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    // The record of a reading does not fit either, sooner or later: no record, no answer.
    let refused = loop {
        match store.append(draft(written), None).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
    assert_eq!(store.stopped(), None);
    // Who makes room gets in, in the room that is kept for that; the others wait.
    let administrator = store.reserved();
    for _ in 0..20 {
        administrator.append(draft(written), None).await.unwrap();
    }
    let gone = written / 2;
    for first in (0..gone).step_by(10) {
        let remove = move |tx: &mut keymoat_store::Tx<'_>| {
            (first..gone.min(first + 10))
                .try_for_each(|number| tx.remove(Kind::Version, &format!("k{number}")).map(|_| ()))
        };
        change(&administrator, first, remove).await.unwrap();
    }
    let written = written - gone;
    std::fs::remove_file(dir.join("data/ballast")).unwrap();
    store.scrub().await.unwrap();
    append_many(&store, 0, 20).await;
    put(&store, 1, Kind::Version, "after", "{}").await.unwrap();
    let rows = store.read(|r| r.rows_with_prefix(Kind::Version, "", 9999)).await.unwrap();
    assert_eq!(rows.len() as u64, written + 1);
    assert!(dir.join("data/reserve").exists(), "there is room again, so it is kept again");
    drop(administrator);
    store.close().await;
    open_in(&dir).close().await;
    let sealed = SealedStore::open(DataDir::lock(&dir.join("data")).unwrap(), Durability::Disk).unwrap();
    let report = sealed.verify(&keys_left_in(&dir), &dir.join("outside/checkpoint"), |_| {}).unwrap();
    assert_eq!(report.problems, vec![]);
    writeln!(std::io::stdout(), "DONE {written}").unwrap();
}

#[test]
fn a_full_disk() {
    let vault = Vault::on_disk();
    vault.leave_keys();
    std::fs::create_dir(vault.data()).unwrap();
    let mounted = "mount -t tmpfs -o size=8m,mode=700 tmpfs \"$1\" && shift && exec \"$@\"";
    let test = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", mounted, "sh"])
        .arg(vault.data())
        .arg(test)
        .args(["--exact", "child_with_a_full_disk", "--nocapture"])
        .env(CHILD_DIR, vault.dir())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip("a_full_disk", &format!("no unshare: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare:") || said.contains("mount:") {
        return skip("a_full_disk", &format!("a small disk needs more rights: {}", said.trim()));
    }
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("DONE"));
}

#[allow(
    clippy::disallowed_methods,
    reason = "this binary runs itself, whose arguments are the test runner's"
)]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn this_test(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD_DIR, dir).stderr(Stdio::null());
    command
}
