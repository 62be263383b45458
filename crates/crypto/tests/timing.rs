//! Whether the time of a comparison tells what was compared (the method of "dude, is my code constant time?",
//! Reparaz, Balasch, Verbauwhede 2017), with a comparison that stops early as the control.
//!
//! Two kinds of input take turns at random, and Welch's t-test says whether their times differ. A machine that does
//! something else at the same time can make any one round look bad, and a leak makes all of them look bad: so of
//! [`ROUNDS`] rounds one good one is enough for us, while the control must be caught in one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that measures time")]

#[path = "../../../benches/src/welch.rs"]
mod welch;

use std::hint::black_box;

use keymoat_crypto::{DataKey, InstanceKey, MasterKey, Place, SecretBytes, Share, open, seal};
use uuid::Uuid;
use welch::{LEAKS, Pair};

#[test]
fn what_is_compared_takes_no_time_of_its_own() {
    let control = naive();
    let (name, samples, work, pair) = &control;
    let caught = rounds(pair, *samples, work.as_ref()).any(|t| t > 2.0 * LEAKS);
    assert!(caught, "{name} was not caught: there is too much noise to say anything");
    let rows = [secrets(), tags(), commitments(), shares()];
    for (name, samples, work, pair) in &rows {
        let seen: Vec<f64> = rounds(pair, *samples, work.as_ref()).take_while(|t| *t >= LEAKS).collect();
        assert!(seen.len() < ROUNDS as usize, "{name}: the time tells what was compared, |t| = {seen:.1?}");
    }
    println!("FIGURE timing: 0 of {} comparisons told by their time what was compared", rows.len());
}

/// |t| of one round after the other.
fn rounds(pair: &Pair, samples: usize, work: &dyn Fn(&[u8]) -> bool) -> impl Iterator<Item = f64> {
    (0..ROUNDS).map(move |seed| pair.measure_with(samples, seed, work).abs())
}

/// Name, samples of a round, what is measured, and on what.
type Row = (&'static str, usize, Box<dyn Fn(&[u8]) -> bool>, Pair);

/// The control: `==`, and a difference in the first or in the last byte.
fn naive() -> Row {
    let secret = vec![b'x'; LONG];
    let pair = Pair::of(first_wrong(&secret), last_wrong(&secret), 16);
    ("`==`", SAMPLES, Box::new(move |presented: &[u8]| black_box(presented) == black_box(&secret[..])), pair)
}

/// The same as the control, by the type for secrets.
fn secrets() -> Row {
    let secret = vec![b'x'; LONG];
    let pair = Pair::of(first_wrong(&secret), last_wrong(&secret), 1);
    let held = SecretBytes::from_slice(&secret);
    let presented = std::cell::RefCell::new(SecretBytes::from_slice(&secret));
    let work = move |bytes: &[u8]| {
        *presented.borrow_mut() = SecretBytes::from_slice(bytes);
        held.ct_eq(&presented.borrow())
    };
    ("secret values", SAMPLES, Box::new(work), pair)
}

/// The tag of a list's cursor.
fn tags() -> Row {
    let key = InstanceKey::generate().cursor_key();
    let tag = key.tag(&[b"made up"]).to_vec();
    let pair = Pair::of(first_wrong(&tag), last_wrong(&tag), 1);
    ("tags", SAMPLES, Box::new(move |tag: &[u8]| key.verify(&[b"made up"], tag)), pair)
}

/// The commitment of a ciphertext to its key.
fn commitments() -> Row {
    let key = DataKey::generate(7);
    let place = || Place {
        instance: Uuid::from_u128(1),
        environment: "prod",
        company: None,
        secret: Uuid::from_u128(2),
        path: "stripe",
        version: 1,
        data_key: 7,
    };
    let sealed = seal(&key, &place(), &SecretBytes::from_slice(b"made up"));
    let changed = |at: usize| {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        changed
    };
    // Behind the suite, the key's number and the salt.
    let start = 1 + 4 + 32;
    let pair = Pair::of(changed(start), changed(start + 31), 1);
    ("commitments", SAMPLES / 4, Box::new(move |sealed: &[u8]| open(&key, &place(), sealed).is_ok()), pair)
}

/// Combining shares of one key, and of another one.
fn shares() -> Row {
    let text = |key: MasterKey| {
        let texts = key.split(2, 2).unwrap().into_iter().map(|share: Share| {
            // EXPOSE: made-up shares of a test.
            share.to_text().expose(|text| String::from_utf8(text.clone()).unwrap())
        });
        texts.collect::<Vec<String>>().join("\n").into_bytes()
    };
    let pair = Pair::of(text(MasterKey::generate()), text(MasterKey::generate()), 1);
    let work = |text: &[u8]| {
        let shares =
            text.split(|b| *b == b'\n').map(|line| Share::parse(&SecretBytes::from_slice(line)).unwrap());
        MasterKey::combine(&shares.collect::<Vec<_>>()).is_ok()
    };
    ("shares", SAMPLES / 10, Box::new(work), pair)
}

fn first_wrong(secret: &[u8]) -> Vec<u8> {
    let mut wrong = secret.to_vec();
    wrong[0] ^= 1;
    wrong
}

fn last_wrong(secret: &[u8]) -> Vec<u8> {
    let mut wrong = secret.to_vec();
    *wrong.last_mut().unwrap() ^= 1;
    wrong
}

/// Long enough for `==` to stop early or late.
const LONG: usize = 512;
const SAMPLES: usize = 10_000;
const ROUNDS: u64 = 6;
