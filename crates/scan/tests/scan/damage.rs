//! Broken repositories: a clear line for each thing that cannot be read, and all the rest is searched.

use std::fs;
use std::path::PathBuf;

use crate::common::{Repo, line};

fn files(repo: &Repo, extension: &str) -> Vec<PathBuf> {
    let dir = repo.path().join(".git/objects/pack");
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn change(path: &PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of this test")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Twenty files with a key each, packed.
fn packed(test: &str) -> Option<Repo> {
    let repo = Repo::new(test, &[])?;
    for number in 0..20u8 {
        repo.write(&format!("file{number}"), format!("{number}\n{}", line(char::from(b'A' + number))));
    }
    repo.commit("last", "nothing\n", "all");
    repo.pack();
    Some(repo)
}

#[test]
fn any_changed_byte_of_a_pack_costs_what_stands_there_and_no_more() {
    let Some(repo) = packed("any_changed_byte_of_a_pack") else { return };
    let pack = files(&repo, "pack").remove(0);
    let whole = fs::read(&pack).unwrap();
    for at in (12..whole.len() - 20).step_by(31) {
        change(&pack, |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 0x55;
        });
        let outcome = repo.scan();
        let lost = 20 - outcome.findings.len();
        assert!(lost == 0 || outcome.troubles.total() > 0, "{at}: {lost} lost, and nothing told");
    }
}

#[test]
fn a_pack_that_was_cut_off_is_told() {
    let Some(repo) = packed("a_pack_that_was_cut_off") else { return };
    let pack = files(&repo, "pack").remove(0);
    change(&pack, |bytes| bytes.truncate(bytes.len() / 2));
    let outcome = repo.scan();
    assert!(outcome.findings.len() < 20);
    assert!(outcome.troubles.total() >= 20 - outcome.findings.len() as u64, "{:?}", outcome.told_troubles());
    change(&pack, |bytes| bytes.truncate(10));
    let told = repo.scan().told_troubles().join("\n");
    assert!(told.contains("is not a pack that can be read"), "{told}");
}

#[test]
fn a_broken_or_missing_index_is_told() {
    let Some(repo) = packed("a_broken_or_missing_index") else { return };
    let index = files(&repo, "idx").remove(0);
    change(&index, |bytes| bytes.truncate(bytes.len() - 1));
    assert!(repo.scan().told_troubles()[0].contains("has a broken index; `git index-pack` makes it anew"));
    fs::remove_file(&index).unwrap();
    assert!(repo.scan().told_troubles()[0].contains("has no index; `git index-pack` makes one"));
}

#[test]
fn a_broken_loose_object_is_told() {
    let Some(repo) = Repo::new("a_broken_loose_object", &[]) else { return };
    repo.commit("a", line('A'), "one");
    repo.commit("b", line('B'), "two");
    let id = repo.git(&["rev-parse", "HEAD:a"]);
    let path = repo.path().join(".git/objects").join(&id[..2]).join(&id[2..]);
    let whole = fs::read(&path).unwrap();
    for len in [0, 1, 10, whole.len() / 2] {
        change(&path, |bytes| {
            bytes.clone_from(&whole);
            bytes.truncate(len);
        });
        let outcome = repo.scan();
        let told = [format!("object {id} is a broken loose object; `git fsck` says more")];
        assert_eq!((outcome.findings.len(), outcome.told_troubles()), (1, told.to_vec()), "{len}");
    }
}

#[test]
fn a_missing_tree_costs_paths_and_not_findings() {
    let Some(repo) = Repo::new("a_missing_tree", &[]) else { return };
    repo.commit("dir/a", line('A'), "one");
    let id = repo.git(&["rev-parse", "HEAD:dir"]);
    fs::remove_file(repo.path().join(".git/objects").join(&id[..2]).join(&id[2..])).unwrap();
    let outcome = repo.scan();
    assert_eq!(outcome.places(), ["sk_live_…Aest :1 Unreachable"]);
    assert_eq!(outcome.told_troubles(), [format!("tree {id} cannot be read; what stands in it has no path")]);
}

#[test]
fn refs_that_are_none_are_told() {
    let Some(repo) = Repo::new("refs_that_are_none", &[]) else { return };
    repo.commit("a", line('A'), "one");
    repo.write(".git/refs/heads/broken", "not an id\n");
    repo.write(".git/refs/heads/zeros", format!("{}\n", "0".repeat(40)));
    let outcome = repo.scan();
    assert_eq!(outcome.places(), ["sk_live_…Aest a:1 Head"]);
    assert_eq!(outcome.troubles.total(), 2, "{:?}", outcome.told_troubles());
}
