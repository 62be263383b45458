//! What is staged: only what changed, and of it only values that are new.

use std::fs;

use keymoat_scan::Troubles;
use keymoat_scan::git::{Repository, StagedFiles};

use crate::common::{Repo, line, searching, told};

fn staged(repo: &Repo) -> (Vec<String>, StagedFiles, u64) {
    let troubles = Troubles::default();
    let repository = Repository::open(repo.path()).unwrap();
    let (findings, files) = searching(&troubles).staged(&repository);
    let places = findings.iter().flat_map(|finding| finding.places.iter().map(told)).collect();
    (places, files, troubles.total())
}

#[test]
fn new_values_in_staged_files() {
    let Some(repo) = Repo::new("new_values_in_staged_files", &[]) else { return };
    repo.write("first", line('A'));
    repo.git(&["add", "-A"]);
    assert_eq!(staged(&repo).0, ["first:1"], "before the first commit");
    repo.git(&["commit", "-q", "-m", "one"]);
    assert_eq!(staged(&repo), (vec![], StagedFiles::default(), 0), "nothing is staged");

    repo.write("first", format!("moved\n{}{}", line('A'), line('B')));
    repo.write("dir/with/second", line('C'));
    repo.write("binary", b"\0\0");
    repo.write("not-added", line('D'));
    repo.git(&["add", "first", "dir", "binary"]);
    let files = StagedFiles { changed: 3, texts: 2, binaries: 1 };
    let expected = ["dir/with/second:1", "first:3"].map(str::to_owned).to_vec();
    for version in ["2", "4", "3"] {
        repo.git(&["update-index", "--index-version", version]);
        let mut found = staged(&repo);
        found.0.sort();
        assert_eq!(found, (expected.clone(), files, 0), "index version {version}");
    }
    repo.write("empty", "");
    repo.git(&["add", "--intent-to-add", "empty"]);
    assert_eq!(staged(&repo).2, 0);
}

#[test]
fn an_index_that_cannot_be_read_is_told() {
    let Some(repo) = Repo::new("an_index_that_cannot_be_read", &[]) else { return };
    repo.commit("a", line('A'), "one");
    repo.git(&["update-index", "--split-index"]);
    assert_eq!(staged(&repo).2, 1);
    fs::write(repo.path().join(".git/index"), "broken").unwrap();
    assert_eq!(staged(&repo).2, 1);
}
