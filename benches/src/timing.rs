//! Whether the time of a check tells what was checked: |t| of Welch's test, with `==` as the control.
//!
//! The test run has a short form of it (`crates/crypto/tests/timing.rs`); this one takes as many samples as it is told.

use std::collections::HashMap;
use std::hint::black_box;

use anyhow::Result;
use keymoat_crypto::{
    InstanceKey, Pepper, SecretBytes, Token, TokenKind, hash_password, verify_absent, verify_password,
};

use crate::welch::{LEAKS, Pair};

/// Measures everything with so many samples each.
pub(crate) fn run(samples: usize) -> Result<()> {
    println!("{samples} samples each; |t| beyond {LEAKS} is a leak\n");
    let secret = vec![b'x'; 512];
    let ends = |secret: &[u8]| {
        let changed = |at: usize| {
            let mut changed = secret.to_vec();
            changed[at] ^= 1;
            changed
        };
        (changed(0), changed(secret.len() - 1))
    };
    let pair = |(first, last), repeat| Pair::of(first, last, repeat);
    let say = |name: &str, t: f64, expected: bool| {
        let verdict = if (t.abs() > LEAKS) == expected { "as it should be" } else { "NOT as it should be" };
        println!("{name:<64} |t| {:>9.2}  {verdict}", t.abs());
    };
    let t =
        pair(ends(&secret), 4).measure_with(samples, 1, &|bytes| black_box(bytes) == black_box(&secret[..]));
    say("control: `==` on 512 bytes, first or last byte wrong", t, true);
    let held = SecretBytes::from_slice(&secret);
    let t =
        pair(ends(&secret), 1).measure_with(samples, 2, &|bytes| held.ct_eq(&SecretBytes::from_slice(bytes)));
    say("secret values of 512 bytes, first or last byte wrong", t, false);
    let key = InstanceKey::generate().cursor_key();
    let tag = key.tag(&[b"made up"]);
    let t = pair(ends(&tag), 1).measure_with(samples, 3, &|tag| key.verify(&[b"made up"], tag));
    say("tags, first or last byte wrong", t, false);
    let known = Known::new();
    let t = known.pair(near, far).measure_with(samples, 4, &|text| known.is_known(text));
    say("tokens nobody has: one bit beside a known one, or nothing like it", t, false);
    let t = known.pair(near, right).measure_with(samples, 5, &|text| known.is_known(text));
    println!(
        "{:<64} |t| {:>9.2}  (the answers differ too)",
        "for comparison: a token nobody has, or a known one",
        t.abs()
    );
    passwords()
}

/// A thousand tokens, found by their digests as the vault finds them.
struct Known {
    pepper: Pepper,
    digests: HashMap<keymoat_crypto::TokenDigest, u16>,
}

impl Known {
    fn new() -> Self {
        let pepper = Pepper::generate(1);
        let digests = (0..1000).map(|n| (token(n, 0).digest(&pepper), n)).collect();
        Self { pepper, digests }
    }

    fn pair(&self, first: fn(u16) -> Token, second: fn(u16) -> Token) -> Pair {
        // EXPOSE: made-up tokens of a bench.
        let texts =
            |kind: fn(u16) -> Token| (0..OF_KIND).map(|n| kind(n).text().expose(Clone::clone)).collect();
        Pair::of_kinds([texts(first), texts(second)], 1)
    }

    fn is_known(&self, text: &[u8]) -> bool {
        let token = Token::parse(&SecretBytes::from_slice(text));
        token.is_ok_and(|token| self.digests.contains_key(&token.digest(&self.pepper)))
    }
}

fn token(number: u16, change: u8) -> Token {
    let mut entropy = [7u8; 32];
    entropy[..2].copy_from_slice(&number.to_be_bytes());
    entropy[31] ^= change;
    Token::from_entropy(TokenKind::ServiceAccount, &entropy)
}

fn right(number: u16) -> Token {
    token(number, 0)
}

fn near(number: u16) -> Token {
    token(number, 1)
}

fn far(number: u16) -> Token {
    let mut entropy = [0xc3; 32];
    entropy[..2].copy_from_slice(&number.to_be_bytes());
    Token::from_entropy(TokenKind::ServiceAccount, &entropy)
}

/// A tenth of a second each, so there are few samples; nothing signs in with a password yet.
fn passwords() -> Result<()> {
    let stored = hash_password(&SecretBytes::from_slice(b"a made-up password"))?;
    let (wrong, unknown) = (b"a made-up passworx".to_vec(), b"a made-up passwory".to_vec());
    let t = Pair::of(wrong.clone(), unknown, 1).measure_with(PASSWORDS, 6, &|text| {
        let presented = SecretBytes::from_slice(text);
        match text == wrong {
            true => verify_password(&presented, &stored).unwrap_or(false),
            false => {
                verify_absent(&presented);
                false
            }
        }
    });
    let verdict = if t.abs() > LEAKS { "NOT as it should be" } else { "as it should be" };
    println!(
        "{:<64} |t| {:>9.2}  {verdict}",
        format!("a wrong password, or a user who is not there ({PASSWORDS} samples)"),
        t.abs()
    );
    Ok(())
}

const PASSWORDS: usize = 100;
/// So many tokens of a kind that what one of them meets by accident is lost among the others.
const OF_KIND: u16 = 500;
