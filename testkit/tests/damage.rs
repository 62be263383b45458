//! Whatever is done to the files is named, and no value is ever another one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use common::scratch;
use keymoat_testkit::{Outcome, Specimen, Tampering};

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_are_noticed_or_in_nothing_that_is_read() {
    let scratch = scratch();
    let specimen = Specimen::make(scratch.path(), 1).await.unwrap();
    let mut noticed = 0;
    for number in 0..FLIPS {
        match specimen.flip(number).await.unwrap() {
            Outcome::Noticed => noticed += 1,
            Outcome::Harmless => {}
            wrong => panic!("flip {number}: {wrong:?}"),
        }
    }
    assert!(noticed * 3 > FLIPS, "{noticed} of {FLIPS}");
    println!("FIGURE flipped-bits: 0 of {FLIPS} flipped bits gave another value");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_put_back_is_noticed() {
    let scratch = scratch();
    let specimen = Specimen::make(scratch.path(), 2).await.unwrap();
    let mut noticed = 0;
    for number in 0..PAGES {
        match specimen.roll_back_page(number).await.unwrap() {
            Outcome::Noticed => noticed += 1,
            Outcome::Harmless => {}
            wrong => panic!("page {number}: {wrong:?}"),
        }
    }
    assert!(noticed * 2 > PAGES, "{noticed} of {PAGES}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_editing_the_log_is_noticed() {
    let scratch = scratch();
    let specimen = Specimen::make(scratch.path(), 3).await.unwrap();
    for how in Tampering::ALL {
        for number in 0..EDITS_EACH {
            assert_eq!(specimen.tamper(how, number).await.unwrap(), Outcome::Noticed, "{how} {number}");
        }
    }
    let tried = Tampering::ALL.len() as u64 * EDITS_EACH;
    println!("FIGURE database-tampering: 0 of {tried} edited databases passed");
}

/// Tens of thousands are tried by `keymoat selftest`.
const FLIPS: u64 = 80;
const PAGES: u64 = 30;
const EDITS_EACH: u64 = 4;
