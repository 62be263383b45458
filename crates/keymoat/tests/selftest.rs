//! `keymoat selftest`: it tries everything, says what it found, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::process::Stdio;

use common::{Home, done};
use keymoat_testkit::{DiskManners, PowerCuts};
use keymoat_vault::Durability;
use tempfile::TempDir;

/// In memory where there is such a place: this asks whether it runs, not how the disk is.
fn disk() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn it_tries_everything_and_leaves_nothing() {
    let (home, disk) = (Home::new(), disk());
    let dir = disk.path().to_str().unwrap();
    let told = home.ok(&["selftest", "--times", "2", "--seed", "7", "--dir", dir, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let tests = report["tests"].as_array().unwrap();
    let names: Vec<_> = tests.iter().map(|test| test["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["kills", "power cuts", "bit flips", "page roll-backs", "edits of the log"]);
    for test in tests {
        for (name, count) in test.as_object().unwrap() {
            match name.as_str() {
                "test" | "harmless" => {}
                "tried" => assert_eq!(count, 2, "{test}"),
                name => assert_eq!(count, 0, "{name}: {test}"),
            }
        }
    }
    assert_eq!((&report["seed"], &report["is_clean"]), (&7.into(), &true.into()));
    assert!(is_empty(disk.path()) && is_empty(home.path()));
}

#[test]
fn without_a_directory_it_works_beside_the_vault_and_leaves_that_alone() {
    let home = Home::with_vault();
    let before = std::fs::read(home.database()).unwrap();
    let told = home.ok(&["selftest", "--times", "1", "--only", "page-roll-backs"]);
    assert!(told.stderr.contains(home.data().to_str().unwrap()), "{told:?}");
    assert!(told.stdout.contains("page roll-backs") && told.stderr.contains("not tested here"), "{told:?}");
    assert_eq!(std::fs::read(home.database()).unwrap(), before);
    let left = std::fs::read_dir(home.data()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("selftest-")));
}

#[test]
fn stopped_early_it_cleans_up_and_is_not_a_success() {
    let (home, disk) = (Home::new(), disk());
    let dir = disk.path().to_str().unwrap();
    let mut command = home.command(&["selftest", "--minutes", "60", "--dir", dir]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while is_empty(disk.path()) {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let told = done(child.wait_with_output().unwrap());
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.stderr.contains("stopped before the time was over"), "{told:?}");
    assert!(is_empty(disk.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_can_be_looked_at_again() {
    let (home, disk) = (Home::new(), disk());
    let lies = DiskManners::LiesAboutLogs;
    let cuts = PowerCuts::record(disk.path(), 1, Durability::Disk, lies).await.unwrap();
    let mut number = 0;
    while cuts.try_state(number).await.unwrap().is_clean() {
        number += 1;
    }
    let kept = disk.path().join(format!("state-{number}"));
    let told = home.run(&["selftest", "--again", kept.to_str().unwrap()]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stdout.contains("not opened: "), "{told:?}");
}
