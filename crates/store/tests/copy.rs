//! Copies of a store: the same to the bit, or not accepted.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::path::Path;

use common::*;
use keymoat_store::{
    CopiedEvent, CopiedRow, Counts, DataDir, Durability, Entry, Kind, OpenError, OutsideFit, SealedStore,
    Store, StoreError, Tally, Untrusted,
};

async fn entries(store: &Store) -> (Vec<Entry>, String) {
    store
        .read(|reader| {
            let mut entries = Vec::new();
            reader.entries(|entry| {
                entries.push(entry);
                Ok::<_, StoreError>(())
            })?;
            Ok((entries, reader.checkpoint()?.unwrap()))
        })
        .await
        .unwrap()
}

/// A store with live rows, removed ones, and more events than a tile holds.
async fn furnished(vault: &Vault) -> (Vec<Entry>, String) {
    let store = vault.open().unwrap();
    for n in 0..300 {
        let work = move |tx: &mut keymoat_store::Tx<'_>| {
            tx.append(draft(n));
            tx.put(Kind::Secret, &format!("s{}", n % 40), &format!("{{\"n\":{n}}}"), Some(&[7; 9]))?;
            if n % 50 == 49 {
                tx.remove(Kind::Secret, &format!("s{}", n % 40))?;
            }
            Ok::<_, StoreError>(())
        };
        store.run_tx("fill", work).await.unwrap();
    }
    let copied = entries(&store).await;
    store.close().await;
    copied
}

fn tally(vault: &Vault, entries: &[Entry], note: &str) -> Result<Counts, Untrusted> {
    let keys = vault.keys();
    let mut tally = Tally::new(&keys);
    entries.iter().try_for_each(|entry| tally.add(entry))?;
    Ok(tally.finish(note)?.counts)
}

fn fill(vault: &Vault, into: &Path, entries: &[Entry], note: &str) -> Result<Counts, OpenError> {
    let store = SealedStore::open(DataDir::lock(into)?, Durability::Os)?;
    store.fill(&vault.keys(), note, Some(&into.join("outside")), |write| {
        entries.iter().try_for_each(|entry| write(entry.clone()))
    })
}

fn is_empty(dir: &Path) -> bool {
    SealedStore::open(DataDir::lock(dir).unwrap(), Durability::Os).unwrap().is_empty().unwrap()
}

#[tokio::test]
async fn a_copy_is_the_same() {
    let vault = Vault::new();
    let (copied, note) = furnished(&vault).await;
    let counts = tally(&vault, &copied, &note).unwrap();
    assert_eq!((counts.rows + counts.removed, counts.events), (40, 300));
    assert!(counts.removed > 0);
    let there = private(|builder| builder.tempdir());
    assert_eq!(fill(&vault, there.path(), &copied, &note).unwrap(), counts);
    let sealed = SealedStore::open(DataDir::lock(there.path()).unwrap(), Durability::Os).unwrap();
    assert_eq!(sealed.verify(&vault.keys(), &there.path().join("outside"), |_| {}).unwrap().problems, vec![]);
    let outside = there.path().join("outside");
    let store =
        sealed.unseal(vault.keys(), &outside, keymoat_store::Trust::Checked, Box::new(|_| {})).unwrap();
    assert_eq!(entries(&store).await, (copied, note));
    // It goes on like any other.
    store.append(draft(300), None).await.unwrap();
    let proof = store.read(|reader| reader.consistency_proof(300, 301)).await.unwrap();
    assert!(!proof.is_empty());
    store.close().await;
}

#[tokio::test]
async fn any_difference_is_noticed_and_nothing_is_written() {
    let vault = Vault::new();
    let (copied, note) = furnished(&vault).await;
    let first_event = copied.iter().position(|entry| matches!(entry, Entry::Event(_))).unwrap();
    let mut different: Vec<(String, Vec<Entry>)> = Vec::new();
    for at in (0..copied.len()).step_by(7).chain([first_event - 1, first_event, copied.len() - 1]) {
        let mut change = |what: &str, change: &dyn Fn(&mut Vec<Entry>)| {
            let mut entries = copied.clone();
            change(&mut entries);
            if entries != copied {
                different.push((format!("{what} {at}"), entries));
            }
        };
        change("without", &|entries| drop(entries.remove(at)));
        change("twice", &|entries| entries.insert(at, copied[at].clone()));
        change("cut at", &|entries| entries.truncate(at));
        change("swapped", &|entries| entries.swap(at, (at + 1) % copied.len()));
        change("changed", &|entries| match &mut entries[at] {
            Entry::Row(CopiedRow { blob: Some(blob), .. }) => blob[0] ^= 1,
            Entry::Row(row) => row.seq += 1,
            Entry::Event(CopiedEvent { record, .. }) => record[5] ^= 1,
            Entry::Archived(leaves) => leaves[0][0] ^= 1,
        });
        change("removed", &|entries| {
            if let Entry::Row(row) = &mut entries[at] {
                (row.body, row.blob) = (None, None);
            }
        });
        change("of an unknown kind", &|entries| {
            if let Entry::Row(row) = &mut entries[at] {
                row.kind = "zebra".to_owned();
            }
        });
        change("with a number that none has", &|entries| {
            if let Entry::Row(row) = &mut entries[at] {
                row.seq = u64::MAX;
            }
        });
    }
    assert!(different.len() > 200);
    let there = private(|builder| builder.tempdir());
    for (n, (what, entries)) in different.iter().enumerate() {
        assert!(tally(&vault, entries, &note).is_err(), "{what}");
        if n % 5 == 0 {
            let filled = fill(&vault, there.path(), entries, &note);
            assert!(matches!(filled, Err(OpenError::Untrusted(_))), "{what}: {filled:?}");
        }
    }
    assert!(is_empty(there.path()) && !there.path().join("outside").exists());
    // Another vault's keys sign nothing here.
    assert!(tally(&Vault::new(), &copied, &note).is_err());
    assert!(fill(&vault, there.path(), &copied, &note.replace("300", "301")).is_err());
    fill(&vault, there.path(), &copied, &note).unwrap();
    let again = fill(&vault, there.path(), &copied, &note);
    assert!(matches!(again, Err(OpenError::Exists(_))), "{again:?}");
}

#[tokio::test]
async fn a_source_that_fails_leaves_nothing() {
    let vault = Vault::new();
    let (copied, note) = furnished(&vault).await;
    let there = private(|builder| builder.tempdir());
    let store = SealedStore::open(DataDir::lock(there.path()).unwrap(), Durability::Os).unwrap();
    let failed = store.fill(&vault.keys(), &note, None, |write| {
        copied[..100].iter().try_for_each(|entry| write(entry.clone()))?;
        Err(OpenError::Io { path: "a tape".into(), why: "torn".to_owned() })
    });
    assert!(matches!(failed, Err(OpenError::Io { .. })), "{failed:?}");
    assert!(store.is_empty().unwrap());
    // A file outside that cannot be made keeps the rows from standing.
    let nowhere = there.path().join("no/such/directory");
    let failed = store.fill(&vault.keys(), &note, Some(&nowhere), |write| {
        copied.iter().try_for_each(|entry| write(entry.clone()))
    });
    assert!(matches!(failed, Err(OpenError::Io { .. })), "{failed:?}");
    assert!(store.is_empty().unwrap());
}

#[tokio::test]
async fn the_file_outside_is_compared() {
    let vault = Vault::new();
    let (copied, note) = furnished(&vault).await;
    let keys = vault.keys();
    let fit = |entries: &[Entry], note: &str, outside: &Path| {
        let mut tally = Tally::beside(&keys, outside).unwrap();
        entries.iter().for_each(|entry| tally.add(entry).unwrap());
        tally.finish(note).unwrap().outside
    };
    assert_eq!(fit(&copied, &note, &vault.dir().join("none")), OutsideFit::Absent);
    assert_eq!(fit(&copied, &note, &vault.outside()), OutsideFit::Contained);
    let foreign = vault.dir().join("foreign");
    std::fs::write(&foreign, "not ours").unwrap();
    assert!(matches!(fit(&copied, &note, &foreign), OutsideFit::Against(Untrusted::OutsideForeign(_))));
    let store = vault.open().unwrap();
    store.append(draft(300), None).await.unwrap();
    let (newer, newer_note) = entries(&store).await;
    store.close().await;
    assert!(matches!(
        fit(&copied, &note, &vault.outside()),
        OutsideFit::Against(Untrusted::Behind { found: 300, signed: 301, .. })
    ));
    assert_eq!(fit(&newer, &newer_note, &vault.outside()), OutsideFit::Contained);
}
