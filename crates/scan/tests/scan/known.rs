//! Scanning again: what was known is not read again, and nothing is hidden by it.

use std::fs;

use keymoat_scan::git::Repository;

use crate::common::{Outcome, Repo, line, scan_with};

fn scan(repo: &Repo) -> Outcome {
    let repository = Repository::open(repo.path()).unwrap();
    let file = repository.known_file();
    scan_with(&repository, |history| history.known_file = Some(&file))
}

#[test]
fn a_second_scan_reads_what_has_hits_and_what_is_new() {
    let Some(repo) = Repo::new("a_second_scan", &[]) else { return };
    for number in 0..10 {
        repo.commit(&format!("dir{number}/clean"), format!("{number}\n"), "clean");
    }
    repo.commit("dir3/key", line('A'), "a key");
    repo.commit("dir3/key", "gone\n", "gone");
    let first = scan(&repo);
    assert_eq!((first.scanned.blobs, first.scanned.known), (12, 0));
    assert_eq!(first.places(), ["sk_live_…Aest dir3/key:1 History"]);

    let second = scan(&repo);
    assert_eq!(second.scanned.blobs, 1, "{:?}", second.scanned);
    assert_eq!(second.findings, first.findings);

    repo.commit("dir4/new", line('B'), "new");
    repo.commit("dir3/key", line('A'), "back");
    let third = scan(&repo);
    assert_eq!(third.scanned.blobs, 2, "{:?}", third.scanned);
    let expected = ["sk_live_…Aest dir3/key:1 Head", "sk_live_…Best dir4/new:1 Head"];
    assert_eq!(third.places(), expected);
    assert_eq!(third.findings, repo.scan().findings);

    // Known objects are known wherever they are.
    repo.pack();
    let packed = scan(&repo);
    assert_eq!(packed.scanned.blobs, 2, "{:?}", packed.scanned);
    assert_eq!(packed.findings, repo.scan().findings);
    repo.commit("dir5/clean", line('B'), "another place");
    assert_eq!(scan(&repo).findings, repo.scan().findings);
}

#[test]
fn a_history_without_hits_is_not_read_again() {
    let Some(repo) = Repo::new("a_history_without_hits", &[]) else { return };
    repo.commit("a", "nothing\n", "one");
    assert_eq!(scan(&repo).scanned.blobs, 1);
    assert_eq!(scan(&repo).scanned.blobs, 0);
    repo.commit("b/c", line('A'), "two");
    assert_eq!(scan(&repo).places(), ["sk_live_…Aest b/c:1 Head"]);
}

#[test]
fn other_rules_read_everything_again() {
    let Some(repo) = Repo::new("other_rules", &[]) else { return };
    repo.commit("a", line('A'), "one");
    repo.commit("b", "nothing\n", "two");
    assert_eq!(scan(&repo).scanned.blobs, 2);
    assert_eq!(scan(&repo).scanned.blobs, 1);
    // The rules' id stands in the file, behind its first line and the length of ids.
    let file = Repository::open(repo.path()).unwrap().known_file();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 2;
    bytes[at] ^= 1;
    let content = bytes.len() - 32;
    let checksum = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        &bytes[..content],
    ));
    bytes[content..].copy_from_slice(&checksum);
    fs::write(&file, bytes).unwrap();
    assert_eq!(scan(&repo).scanned.blobs, 2);
}

#[test]
fn what_could_not_be_read_is_tried_again() {
    let Some(repo) = Repo::new("what_could_not_be_read", &[]) else { return };
    repo.commit("dir/a", line('A'), "one");
    let id = repo.git(&["rev-parse", "HEAD:dir/a"]);
    let path = repo.path().join(".git/objects").join(&id[..2]).join(&id[2..]);
    let aside = repo.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, "broken").unwrap();
    assert_eq!(scan(&repo).findings.len(), 0);
    fs::rename(&aside, &path).unwrap();
    assert_eq!(scan(&repo).places(), ["sk_live_…Aest dir/a:1 Head"]);
}
