//! Searching only what is new of a delta finds what searching all of it finds.

use proptest::prelude::*;

use crate::common::{Repo, key, scan_with};
use keymoat_scan::git::Repository;

/// A piece of a text: filler, or something that is found, by itself or with what stands before it.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0usize..3000, 0u8..8).prop_map(|(len, salt)| filler(len, salt)),
        2 => (0u8..20).prop_map(|n| format!("STRIPE_KEY={}\n", key(char::from(b'A' + n)))),
        1 => (0u8..20).prop_map(|n| key(char::from(b'A' + n))),
        1 => Just("-----BEGIN RSA PRIVATE KEY-----\n".to_owned()),
        1 => (0u8..8).prop_map(|salt| base64(1200, salt)),
        1 => Just("-----END RSA PRIVATE KEY-----\n".to_owned()),
        1 => Just("password = \"correct-Horse7battery\"\n".to_owned()),
        1 => Just("postgres://shop:MadeUp0000Pass@db.madeup.test/shop\n".to_owned()),
        1 => Just("# twilio stripe sendgrid\n".to_owned()),
        1 => (0u8..8).prop_map(|salt| base64(1200, salt).replace('\n', "")),
        1 => Just(" # keymoat:allow made up".to_owned()),
        1 => Just("AKIAMADEUPANDOBVIOUS\n".to_owned()),
        1 => Just("\"q7Zp2LmX9vTb4KsW8nRc/HyJ6dFg3AeU+Mad0000\"\n".to_owned()),
    ]
}

fn filler(len: usize, salt: u8) -> String {
    let words = ["the ", "value ", "of x\n", "is = ", "def f(", "): ", "\"a\" ", "12 ", "secret ", "\n"];
    let mut state = u32::from(salt) * 7 + 1;
    let mut text = String::new();
    while text.len() < len {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
        text.push_str(words[(state >> 16) as usize % words.len()]);
    }
    text
}

fn base64(len: usize, salt: u8) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = u64::from(salt) + 1;
    (0..len)
        .map(|index| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let symbol = char::from(alphabet[(state >> 58) as usize]);
            if index % 65 == 64 { '\n' } else { symbol }
        })
        .collect()
}

/// Versions of a file: each is the one before with some pieces replaced, removed or added.
fn versions() -> impl Strategy<Value = Vec<String>> {
    let edit = (any::<prop::sample::Index>(), 0usize..3, prop::collection::vec(piece(), 0..3));
    let edits = prop::collection::vec(prop::collection::vec(edit, 1..3), 1..8);
    (prop::collection::vec(piece(), 4..20), edits).prop_map(|(first, edits)| {
        let mut pieces = first;
        let mut versions = vec![pieces.concat()];
        for edits in edits {
            for (at, removed, added) in edits {
                let at = at.index(pieces.len() + 1);
                let end = (at + removed).min(pieces.len());
                pieces.splice(at..end, added);
            }
            versions.push(pieces.concat());
        }
        versions
    })
}

#[test]
fn a_key_beside_a_change_is_judged_anew() {
    let Some(repo) = Repo::new("a_key_beside_a_change", &[]) else { return };
    let around = filler(20_000, 3);
    repo.write("key", format!("{around}\nKEY={}\n{around}", key('A')));
    repo.write("longer", format!("{around}\nKEY={}_x\n{around}", key('A')));
    repo.git(&["add", "-A"]);
    repo.git(&["commit", "-q", "-m", "all"]);
    repo.pack();
    let outcome = repo.scan();
    let lines = around.matches('\n').count() + 2;
    assert_eq!(outcome.places(), [format!("sk_live_…Aest key:{lines} Head")]);
    assert!(outcome.scanned.searched < outcome.scanned.bytes * 3 / 4, "{:?}", outcome.scanned);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn carried_hits_are_those_of_a_full_search(versions in versions()) {
        let Some(repo) = Repo::new("carried_hits", &[]) else { return Ok(()) };
        // Blobs of one name in many directories, so that one commit and one pack will do.
        for (number, version) in versions.iter().enumerate() {
            repo.write(&format!("{number:03}/file"), version);
        }
        repo.git(&["add", "-A"]);
        repo.git(&["commit", "-q", "-m", "all"]);
        repo.pack();
        let repository = Repository::open(repo.path()).unwrap();
        let aware = scan_with(&repository, |_| {});
        let full = scan_with(&repository, |history| history.delta_aware = false);
        prop_assert_eq!(aware.findings, full.findings);
        prop_assert!(aware.scanned.searched <= full.scanned.searched);
    }
}
