//! Proofs from the store hold against its signed checkpoint, for Keymoat's own checks and for a foreign one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Vault, append_many, put, skip};
use keymoat_core::checkpoint::Checkpoint;
use keymoat_core::tree::{Frontier, Hash, leaf_hash, verify_consistency, verify_inclusion};
use keymoat_store::{EventRange, Kind, Store, StoreError};

/// The hashes of all events, read from their records.
async fn leaves(store: &Store) -> Vec<Hash> {
    let read = |r: &keymoat_store::Reader<'_>| {
        let mut leaves = Vec::new();
        r.events(&EventRange::default(), |e| {
            leaves.push(leaf_hash(&e.record));
            true
        })?;
        Ok(leaves)
    };
    store.read(read).await.unwrap()
}

/// Checks proofs for every one of these sizes and events below them.
async fn check_proofs(vault: &Vault, sizes: Vec<u64>) {
    let store = vault.open().unwrap();
    let leaves = leaves(&store).await;
    let note = store.read(|r| r.checkpoint()).await.unwrap().unwrap();
    let (checkpoint, _) = Checkpoint::parse(&note).unwrap();
    assert_eq!(checkpoint.size(), leaves.len() as u64);
    let mut roots = vec![Frontier::new().root()];
    let mut frontier = Frontier::new();
    for leaf in &leaves {
        frontier.append(*leaf).unwrap();
        roots.push(frontier.root());
    }
    assert_eq!(roots.last(), Some(checkpoint.root()), "the signed root is that of the records");
    store
        .read(move |r| {
            for &size in &sizes {
                let root = &roots[size as usize];
                let some = [0, 1, 255, 256, 257, size / 3, size / 2, size.saturating_sub(1)];
                for seq in some.into_iter().filter(|seq| *seq < size) {
                    let proof = r.inclusion_proof(seq, size)?;
                    assert!(
                        verify_inclusion(&leaves[seq as usize], seq, size, &proof, root),
                        "{seq} in {size}"
                    );
                    assert!(!verify_inclusion(&[0; 32], seq, size, &proof, root));
                }
                for &old in sizes.iter().filter(|old| **old <= size) {
                    let proof = r.consistency_proof(old, size)?;
                    let old_root = &roots[old as usize];
                    assert!(verify_consistency((old, old_root), (size, root), &proof), "{old} to {size}");
                }
            }
            Ok(())
        })
        .await
        .unwrap();
    store.close().await;
}

#[tokio::test]
async fn every_size_of_a_small_log() {
    let vault = Vault::new();
    let store = vault.open().unwrap();
    append_many(&store, 0, 40).await;
    store.close().await;
    check_proofs(&vault, (0..=40).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_around_every_tile_of_a_large_log() {
    const SIZE: u64 = 66_100;
    let vault = Vault::new();
    let store = vault.open().unwrap();
    for from in (0..SIZE).step_by(4_000) {
        append_many(&store, from, SIZE.min(from + 4_000)).await;
    }
    store.close().await;
    let sizes =
        vec![1, 2, 255, 256, 257, 511, 512, 4097, 33_000, 65_535, 65_536, 65_537, 65_792, 66_000, SIZE];
    check_proofs(&vault, sizes).await;
    assert_eq!(vault.verify().unwrap().problems, vec![]);

    // Of what stands above the lowest tiles a start sees the highest ones.
    let forge = "record = CAST(replace(CAST(record AS TEXT), '\"allowed\"', '\"refused\"') AS BLOB)";
    for (sql, named) in [
        ("UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 1".to_owned(), "event 0 was"),
        (format!("UPDATE events SET {forge} WHERE seq = 66060"), "event 66048 was"),
    ] {
        let copy = vault.copy();
        copy.edit(&sql);
        let error = copy.open().err().unwrap().to_string();
        assert!(error.contains(named), "{sql}: {error}");
    }
    // A verification sees all.
    let copy = vault.copy();
    copy.edit("DELETE FROM tiles WHERE level = 0 AND number = 9");
    copy.edit(&format!("UPDATE events SET {forge} WHERE seq = 30000"));
    copy.open().unwrap().close().await;
    let problems = copy.verify().unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].to_string().starts_with("event 30000 was"), "{problems:?}");
}

#[tokio::test]
async fn proofs_that_cannot_be_are_refused() {
    let vault = Vault::new();
    let store = vault.open().unwrap();
    append_many(&store, 0, 5).await;
    store
        .read(|r| {
            for (seq, size) in [(5, 5), (0, 0), (0, 6), (0, u64::MAX), (u64::MAX, u64::MAX)] {
                assert!(matches!(r.inclusion_proof(seq, size), Err(StoreError::Refused(_))), "{seq} {size}");
            }
            for (old, size) in [(6, 5), (0, 6), (5, u64::MAX), (u64::MAX, u64::MAX)] {
                assert!(
                    matches!(r.consistency_proof(old, size), Err(StoreError::Refused(_))),
                    "{old} {size}"
                );
            }
            Ok(())
        })
        .await
        .unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_foreign_program_verifies_the_checkpoint() {
    let vault = Vault::new();
    let store = vault.open().unwrap();
    append_many(&store, 0, 300).await;
    put(&store, 300, Kind::Secret, "a", "{}").await.unwrap();
    let note = store.read(|r| r.checkpoint()).await.unwrap().unwrap();
    let hashes: String = leaves(&store).await.iter().map(|leaf| hex(leaf) + "\n").collect();
    store.close().await;
    let (note_file, leaves_file) = (vault.dir().join("note"), vault.dir().join("leaves"));
    std::fs::write(&leaves_file, hashes).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testkit/vectors/verify_checkpoint.py");
    let key = vault.keys().signer.verifying_key().to_verifier("keymoat/test");
    let run = |note: &str| {
        std::fs::write(&note_file, note).unwrap();
        Command::new("python3").arg(&script).args([&note_file, &leaves_file]).arg(&key).output()
    };
    match Command::new("python3").args(["-c", "import cryptography"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(_) => return skip("a_foreign_program_verifies_the_checkpoint", "no `cryptography` for python3"),
        Err(error) => {
            return skip("a_foreign_program_verifies_the_checkpoint", &format!("no python3: {error}"));
        }
    }
    let good = run(&note).unwrap();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("ok: keymoat/test, 301 events"));
    for (what, bad) in [
        ("size", note.replacen("\n301\n", "\n300\n", 1)),
        ("state", note.replacen("\nstate ", "\nstate A", 1)),
        ("name", note.replace("keymoat/test", "keymoat/best")),
        ("no signature", note.split("\u{2014}").next().unwrap().to_owned()),
        (
            "root",
            note.replacen(note.lines().nth(2).unwrap(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 1),
        ),
    ] {
        assert_eq!(run(&bad).unwrap().status.code(), Some(1), "{what}");
    }
    // The file outside has the same note.
    let outside = std::fs::read_to_string(vault.outside()).unwrap();
    assert!(outside.contains(&note));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
