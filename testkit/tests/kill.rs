//! Killed at any moment of writes, reads, key changes, backups and restores, and before every step of making a vault.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::scratch_on_disk;
use keymoat_testkit::{Findings, Kills, Told, examine, line_of, live};

const CHILD_DIR: &str = "KEYMOAT_TEST_CHILD_DIR";
const CHILD_SEED: &str = "KEYMOAT_TEST_CHILD_SEED";
const CHILD_KILL_AT: &str = "KEYMOAT_TEST_CHILD_KILL_AT";

/// What the child does when this binary runs itself.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_is_killed() {
    let (Some(dir), Some(seed)) = (told(CHILD_DIR), told(CHILD_SEED)) else { return };
    let kill_at = told(CHILD_KILL_AT).map(|step| step.parse().unwrap());
    let say = Told::new(|deed| writeln!(std::io::stdout(), "{}", line_of(&deed)).unwrap());
    let ended = live(Path::new(&dir), seed.parse().unwrap(), kill_at, &say).await;
    writeln!(std::io::stdout(), "{ended:?}").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let mut acknowledged = 0;
    for vault in 0..VAULTS {
        let scratch = scratch_on_disk();
        let mut kills = Kills::in_dir(scratch.path(), vault).unwrap();
        for kill in 0..KILLS_EACH {
            let mut child = child(scratch.path());
            kills.kill_once(child.env(CHILD_SEED, (vault * 1000 + kill).to_string())).unwrap();
            if kill % 5 == 4 {
                let findings = kills.examine().await;
                let said: Vec<_> = findings.sentences().collect();
                assert!(said.is_empty(), "vault {vault}, kill {kill}: {said:#?}");
            }
        }
        acknowledged += kills.acknowledged();
    }
    assert!(acknowledged as u64 > VAULTS * KILLS_EACH * 5, "{acknowledged}");
    println!("FIGURE kills: 0 of {} kills lost something acknowledged", VAULTS * KILLS_EACH);
}

/// Every migration runs when a vault is made, and every write of it is a step.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_every_step_of_making_a_vault() {
    let mut steps = 0;
    for step in (0..).take(STEPS_MAX) {
        let scratch = scratch_on_disk();
        let kills = Kills::in_dir(scratch.path(), 1).unwrap();
        let mut child = child(scratch.path());
        child.env(CHILD_SEED, "1").env(CHILD_KILL_AT, step.to_string());
        let output = child.stdout(Stdio::piped()).stderr(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.signal(), Some(9), "{said}");
        if said.contains("ACK ") {
            break;
        }
        steps += 1;
        let findings = examine(kills.place(), &[]).await;
        assert_eq!(findings, Findings::default(), "step {step}");
    }
    assert!(steps > 60 && steps < STEPS_MAX, "{steps}");
}

#[allow(
    clippy::disallowed_methods,
    reason = "this binary runs itself, whose arguments are the test runner's"
)]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn child(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_that_is_killed", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stderr(Stdio::null());
    command
}

/// Vaults, and kills of each. Thousands are tried by `keymoat selftest`.
const VAULTS: u64 = 4;
const KILLS_EACH: u64 = 15;
/// Making a vault takes about a hundred steps.
const STEPS_MAX: usize = 1000;
