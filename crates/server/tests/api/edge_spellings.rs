//! Ten thousand spellings of paths, made up by a seeded generator: the path that was decided on, the one in the record
//! and the one whose value is given are the same, letter for letter as it was sent, or nothing is given.

use http::Uri;
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::common::House;

/// What is stored; a value names its own path. `prod/locked` is denied.
const STORED: [&str; 8] = [
    "prod/stripe",
    "prod/stripe/live",
    "prod/a/stripe",
    "prod/locked/stripe",
    "prod/locked/a/stripe",
    "prod/lockedup",
    "staging/stripe",
    "staging/locked/stripe",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_recorded_and_given_has_one_spelling() {
    let house = House::new().await;
    for path in STORED {
        house.put(path, &value_of(path)).await;
    }
    let rules = json!([
        { "capabilities": ["reveal"], "environments": ["prod"], "paths": ["**"] },
        { "effect": "deny", "capabilities": ["reveal"], "environments": ["prod"], "paths": ["locked/**"] },
    ]);
    let token = house.service("shop", rules).await;
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let (mut given, mut recorded, mut turned_away) = (0, 0, 0);
    for number in 0..SPELLINGS {
        // Refusals of one minute are counted together, and each is wanted here.
        if number % 25 == 0 {
            house.forward(SignedDuration::from_secs(61));
        }
        let spelling = spelling().new_tree(&mut runner).unwrap().current();
        let target = format!("/api/v1/reveal/{spelling}");
        // What is no address at all the HTTP parser refuses.
        if target.parse::<Uri>().is_err() {
            turned_away += 1;
            continue;
        }
        let reply = house.client("POST", &target, Some(&token)).json(json!({})).send().await;
        let Some(record) = record_of(&house, reply.header("x-request-id"), reply.status.as_u16()).await
        else {
            assert!(matches!(reply.status.as_u16(), 400 | 404 | 405), "{spelling}: {}", reply.text);
            assert!(!reply.text.contains("value-of"), "{spelling}: {}", reply.text);
            turned_away += 1;
            continue;
        };
        recorded += 1;
        // A query that says nothing is no part of the path; the colon is the one letter with an escape.
        let sent = spelling.split('?').next().unwrap().replace("%3A", ":").replace("%3a", ":");
        let (environment, path) = sent.split_once('/').unwrap();
        assert_eq!((&record["scope"], &record["path"]), (&json!(environment), &json!(path)), "{record}");
        let is_denied = environment != "prod" || path.starts_with("locked/");
        assert_eq!(reply.status.as_u16() == 403, is_denied, "{spelling}: {}", reply.text);
        if reply.status == 200 {
            assert_eq!(reply.json["value"]["text"], value_of(&sent), "{spelling}");
            given += 1;
        }
    }
    assert!(given > 100 && recorded > 500 && turned_away > 1_000, "{given} {recorded} {turned_away}");
}

fn value_of(path: &str) -> String {
    format!("made-up-value-of-{}", path.replace('/', "-"))
}

/// The record of a request, which there is when its path was one.
async fn record_of(house: &House, request: &str, status: u16) -> Option<Value> {
    if !matches!(status, 200 | 403 | 404) {
        return None;
    }
    let newest = house.newest_record("action=reveal").await;
    (newest["request"] == request).then_some(newest)
}

/// A stored path with a few letters of it exchanged, doubled, escaped or put beside others.
fn spelling() -> impl Strategy<Value = String> {
    let edit = (0usize..24, prop::sample::select(PIECES), 0u8..5);
    (prop::sample::select(STORED.to_vec()), prop::collection::vec(edit, 0..4)).prop_map(|(path, edits)| {
        let mut text: Vec<char> = path.chars().collect();
        for (at, piece, how) in edits {
            let at = at % (text.len() + 1);
            let end = (at + usize::from(how != 0)).min(text.len());
            let there: String = text[at..end].iter().collect();
            let new = match how {
                0 | 1 => piece.to_owned(),
                2 => there.bytes().map(|byte| format!("%{byte:02x}")).collect(),
                3 => there.to_uppercase(),
                _ => format!("{there}{there}"),
            };
            text.splice(at..end, new.chars());
        }
        text.into_iter().collect()
    })
}

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "/", "//", "/.", "/..", "/./", "/../", ".", "..", "%2e", "%2E%2e", "%2f", "%2F", "%5c", "\\", ";", ";x=y", "%00",
    "%20", " ", "+", "%09", "%0a", "%25", "%252f", "%c0%af", "%e0%80%af", "%ff", "\u{2044}", "\u{ff0f}", "\u{e9}",
    "e\u{301}", "\u{200b}", "?", "?x", "*", "**", "~", "@", ":", "%3A", "%3a", "-", "_", "locked", "prod", "staging",
    "locked/", "../locked", "a", "S", "",
];
const SPELLINGS: usize = 10_000;
