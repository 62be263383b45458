//! The power goes at any moment: what was acknowledged is there, with its record, and the vault opens.
//!
//! The controls are in the same run: a disk that lies about syncs, and commits that are not synced, must be noticed.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use common::scratch;
use keymoat_testkit::{DiskManners, Findings, PowerCuts};
use keymoat_vault::Durability;

/// Tries states of one recording, and gives what was found in each.
async fn tried(seed: u64, states: u64, durability: Durability, manners: DiskManners) -> Vec<Findings> {
    let scratch = scratch();
    let cuts = PowerCuts::record(scratch.path(), seed, durability, manners).await.unwrap();
    assert!(cuts.deeds() > 100 && cuts.steps() > 1000, "{} deeds, {} steps", cuts.deeds(), cuts.steps());
    let mut found = Vec::new();
    for number in 0..states {
        found.push(cuts.try_state(number).await.unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_power_goes() {
    for seed in 0..SEEDS {
        let found = tried(seed, STATES, Durability::Disk, DiskManners::Honest).await;
        for (number, findings) in found.iter().enumerate() {
            let said: Vec<_> = findings.sentences().collect();
            assert!(said.is_empty(), "seed {seed}, state {number}: {said:#?}");
        }
    }
    println!("FIGURE power-cuts: 0 of {} power cuts lost something acknowledged", SEEDS * STATES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_about_syncs_is_noticed() {
    let found = tried(1, CONTROL_STATES, Durability::Disk, DiskManners::LiesAboutLogs).await;
    // What was acknowledged is gone, and the checkpoint outside tells: such a vault does not open by itself.
    let refused = found.iter().filter(|findings| !findings.refused.is_empty()).count();
    assert!(refused * 3 > found.len(), "{refused} of {}", found.len());
    let silent: Vec<_> =
        found.iter().filter(|findings| !findings.lost.is_empty() && findings.refused.is_empty()).collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sync_of_commits_only_records_of_reads_are_lost() {
    let found = tried(2, CONTROL_STATES, Durability::Os, DiskManners::Honest).await;
    for findings in found {
        assert_eq!(Findings { unrecorded: Vec::new(), ..findings }, Findings::default());
    }
}

/// Recordings, and states of each. A hundred thousand are tried by `keymoat selftest`.
const SEEDS: u64 = 2;
const STATES: u64 = 110;
const CONTROL_STATES: u64 = 40;
