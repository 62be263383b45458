//! A log whose old records stand in archives proves what it proved before.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use common::*;
use keymoat_core::tree::{Frontier, Hash, leaf_hash, verify_consistency, verify_inclusion};
use keymoat_store::{
    Archive, CopiedRow, DataDir, Durability, Entry, EventRange, Kind, OpenError, SealedStore, Store,
    StoreError, Tally, Trust, Untrusted,
};

/// A closed vault with `size` records: rows of which some are written once, some again and again, some removed.
async fn furnished(size: u64) -> Vault {
    let vault = Vault::new();
    let store = vault.open().unwrap();
    for n in 0..size {
        let written = match n % 10 {
            0 => put(&store, n, Kind::Secret, &format!("once-{n}"), "{}").await,
            1 => put(&store, n, Kind::Secret, &format!("again-{}", n % 7), "{}").await,
            2 if n % 40 == 2 => remove(&store, n, Kind::Secret, &format!("once-{}", n - 2)).await,
            3 => store.append(personal_draft(n), None).await,
            _ => store.append(draft(n), None).await,
        };
        assert_eq!(written.unwrap().event, n);
    }
    store.close().await;
    vault
}

/// The root of the tree after each number of records.
async fn roots(store: &Store) -> (Vec<Hash>, Vec<Hash>) {
    let read = |reader: &keymoat_store::Reader<'_>| {
        let (mut roots, mut leaves, mut frontier) =
            (vec![Frontier::new().root()], Vec::new(), Frontier::new());
        reader.events(&EventRange::default(), |stored| {
            leaves.push(leaf_hash(&stored.record));
            frontier.append(leaf_hash(&stored.record)).unwrap();
            roots.push(frontier.root());
            true
        })?;
        Ok((roots, leaves))
    };
    store.read(read).await.unwrap()
}

/// Every proof of what was in the log before holds in the tree of now.
async fn check_proofs(store: &Store, roots: &[Hash], leaves: &[Hash]) {
    let (roots, leaves) = (roots.to_vec(), leaves.to_vec());
    store
        .read(move |reader| {
            let size = leaves.len() as u64;
            for seq in (0..size).step_by(37).chain([255, 256, size - 1]) {
                let proof = reader.inclusion_proof(seq, size)?;
                assert!(verify_inclusion(&leaves[seq as usize], seq, size, &proof, &roots[size as usize]));
            }
            for old in (0..=size).step_by(41) {
                let proof = reader.consistency_proof(old, size)?;
                let (old_root, root) = (&roots[old as usize], &roots[size as usize]);
                assert!(verify_consistency((old, old_root), (size, root), &proof), "{old}");
                assert_eq!(reader.frontier(old)?.root(), *old_root, "{old}");
            }
            Ok(())
        })
        .await
        .unwrap();
}

async fn numbers(store: &Store, end: u64) -> Vec<u64> {
    store.read(move |reader| reader.present(0, end, usize::MAX)).await.unwrap()
}

fn intact(vault: &Vault) -> (u64, u64, u64) {
    let report = vault.verify().unwrap();
    assert_eq!(report.problems, vec![]);
    (report.events, report.archived, report.rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_takes_records_out_and_leaves_the_log_provable() {
    let vault = furnished(1300).await;
    let (_, _, rows) = intact(&vault);
    let store = vault.open().unwrap();
    let (roots, leaves) = roots(&store).await;
    let before = numbers(&store, u64::MAX).await;
    archive(&store, 1300, 1024).await.unwrap();
    store.close().await;
    // Said, and not yet done: whoever stops here has lost nothing.
    assert_eq!(intact(&vault), (1301, 0, rows + 1));
    let store = vault.open().unwrap();
    assert_eq!(numbers(&store, 1300).await, before);
    let kept = thin(&store, 1301).await;
    check_proofs(&store, &roots, &leaves).await;
    let stay = numbers(&store, 1024).await;
    assert_eq!(kept.records, stay.len() as u64);
    // Written once and still there, removed, and the last time of those written again and again.
    assert!([0, 2, 10, 1020].iter().all(|n| stay.contains(n) == (*n != 0)), "{stay:?}");
    assert!(stay.len() > 70 && stay.len() < 140, "{}", stay.len());
    assert_eq!(numbers(&store, 1300).await.len() - stay.len(), 1300 - 1024);
    store.close().await;
    assert_eq!(intact(&vault), (1302, 1024 - kept.records, rows + 1));

    // It goes on like any other, and so does the next archive, which takes what stayed for a row that has changed.
    let store = vault.open().unwrap();
    append_many(&store, 1302, 2000).await;
    put(&store, 2000, Kind::Secret, "once-10", "{}").await.unwrap();
    check_proofs(&store, &roots, &leaves).await;
    archive(&store, 2001, 1792).await.unwrap();
    thin(&store, 2002).await;
    let later = numbers(&store, 1024).await;
    let gone: Vec<&u64> = stay.iter().filter(|n| !later.contains(n)).collect();
    assert!(gone.contains(&&10) && later.iter().all(|n| stay.contains(n)), "{gone:?}");
    check_proofs(&store, &roots, &leaves).await;
    let report = store.verify(|_| {}).await.unwrap();
    assert_eq!(report.problems, vec![]);
    store.close().await;
    intact(&vault);
    vault.open().unwrap().close().await;
}

#[tokio::test]
async fn what_is_archived_stays_archived_and_nothing_else_goes() {
    let vault = furnished(700).await;
    let store = vault.open().unwrap();
    let refused = |what: &str, result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Refused(_))), "{what}: {result:?}");
    };
    let mark = async |end: u64| archive(&store, 9999, end).await.map(|_| ());
    refused("within a tile", mark(300).await);
    refused("beyond the log", mark(1024).await);
    let drop_one =
        async |place: u64| store.run_tx("t", move |tx| tx.drop_records(&[place])).await.map(|_| ());
    refused("no archive", drop_one(0).await);
    mark(512).await.unwrap();
    refused("behind the end", drop_one(512).await);
    refused("behind the end, with others", {
        store.run_tx("t", |tx| tx.drop_records(&[3, 512])).await.map(|_| ())
    });
    refused("back", mark(256).await);
    refused("away", remove(&store, 9999, Kind::Archive, Archive::KEY).await.map(|_| ()));
    refused("back by hand", {
        let body = store.read(|r| r.row(Kind::Archive, Archive::KEY)).await.unwrap().unwrap().body;
        let body = body.replace("\"end\":512", "\"end\":256");
        put(&store, 9999, Kind::Archive, Archive::KEY, &body).await.map(|_| ())
    });
    let unreadable = put(&store, 9999, Kind::Archive, Archive::KEY, "{}").await;
    assert!(matches!(unreadable, Err(StoreError::Corrupt { .. })), "{unreadable:?}");
    assert_eq!(numbers(&store, 512).await.len(), 512);
    drop_one(4).await.unwrap();
    thin(&store, 9999).await;
    store.close().await;
    intact(&vault);
}

#[tokio::test]
async fn where_an_archive_ends() {
    let vault = furnished(600).await;
    let store = vault.open().unwrap();
    let second = |n: u64| jiff::Timestamp::from_second(1_800_000_000 + i64::try_from(n).unwrap()).unwrap();
    let check = async |start: u64, cutoff: jiff::Timestamp, expected: u64| {
        let end = store.read(move |reader| reader.archivable(start, cutoff)).await.unwrap();
        assert_eq!(end, expected, "{start} {cutoff}");
    };
    check(0, second(0), 0).await;
    check(0, second(255), 0).await;
    check(0, second(256), 256).await;
    check(0, second(511), 256).await;
    check(0, second(512), 512).await;
    check(0, second(99_999), 512).await;
    check(256, second(300), 256).await;
    check(512, second(99_999), 512).await;
    check(512, second(3), 512).await;
    store.close().await;
}

async fn entries(store: &Store) -> (Vec<Entry>, String) {
    let read = |reader: &keymoat_store::Reader<'_>| {
        let mut entries = Vec::new();
        reader.entries(|entry| {
            entries.push(entry);
            Ok::<_, StoreError>(())
        })?;
        Ok((entries, reader.checkpoint()?.unwrap()))
    };
    store.read(read).await.unwrap()
}

#[tokio::test]
async fn a_copy_of_an_archived_log_has_the_same_tree() {
    let vault = furnished(800).await;
    let store = vault.open().unwrap();
    let (roots, leaves) = roots(&store).await;
    archive(&store, 800, 768).await.unwrap();
    let kept = thin(&store, 801).await;
    let (copied, note) = entries(&store).await;
    store.close().await;

    let there = common::private(|builder| builder.tempdir());
    let outside = there.path().join("outside");
    let fill = |entries: &[Entry]| {
        let store = SealedStore::open(DataDir::lock(there.path()).unwrap(), Durability::Os).unwrap();
        let fed = store.fill(&vault.keys(), &note, Some(&outside), |write| {
            entries.iter().try_for_each(|entry| write(entry.clone()))
        });
        fed.map_err(|error| match error {
            OpenError::Untrusted(untrusted) => untrusted,
            other => panic!("{other}"),
        })
    };
    // A hash changed, left out, moved; a mark that says less; a record beside its own hash.
    let hashes = copied.iter().position(|entry| matches!(entry, Entry::Archived(_))).unwrap();
    let mark =
        copied.iter().position(|entry| matches!(entry, Entry::Row(row) if row.kind == "archive")).unwrap();
    let different = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = copied.clone();
        change(&mut entries);
        entries
    };
    let wrong = [
        different(&|entries| match &mut entries[hashes] {
            Entry::Archived(leaves) => leaves[0][0] ^= 1,
            _ => unreachable!(),
        }),
        different(&|entries| drop(entries.remove(hashes))),
        different(&|entries| entries.swap(hashes, hashes + 1)),
        different(&|entries| entries.insert(hashes, Entry::Archived(Vec::new()))),
        different(&|entries| entries.push(Entry::Archived(vec![[7; 32]]))),
        different(&|entries| drop(entries.remove(mark))),
        different(&|entries| match &mut entries[mark] {
            Entry::Row(CopiedRow { body: Some(body), .. }) => *body = body.replace("768", "512"),
            _ => unreachable!(),
        }),
    ];
    for (n, entries) in wrong.iter().enumerate() {
        let keys = vault.keys();
        let mut tally = Tally::new(&keys);
        let added = entries.iter().try_for_each(|entry| tally.add(entry));
        assert!(added.and_then(|()| tally.finish(&note).map(|_| ())).is_err(), "{n}");
        assert!(fill(entries).is_err(), "{n}");
    }

    let counts = fill(&copied).unwrap();
    assert_eq!((counts.events, counts.archived), (802, 768 - kept.records));
    let sealed = SealedStore::open(DataDir::lock(there.path()).unwrap(), Durability::Os).unwrap();
    assert_eq!(sealed.verify(&vault.keys(), &outside, |_| {}).unwrap().problems, vec![]);
    let store = sealed.unseal(vault.keys(), &outside, Trust::Checked, Box::new(|_| {})).unwrap();
    assert_eq!(entries(&store).await, (copied, note));
    check_proofs(&store, &roots, &leaves).await;
    append_many(&store, 802, 1100).await;
    let report = store.verify(|_| {}).await.unwrap();
    assert_eq!(report.problems, Vec::<Untrusted>::new());
    store.close().await;
}
