//! Keys that are used together: beside the name of a key or of an account (`AKIA…`, `AC…`) a random value of the right
//! shape is its secret, whatever it is called.
//!
//! Begins at what was found, which is rare, and looks a few lines around it.

use std::collections::HashSet;
use std::ops::Range;

use super::names::{Before, Says};
use super::{Candidate, Engine, Hit, RuleId, named, random, tokens};
use crate::identify::Certainty;
use crate::provider::{Judgement, Key};
use crate::shape;

/// Adds the secrets that stand near the names that were found.
pub(super) fn find(engine: &Engine, text: &[u8], found: &mut Vec<Candidate>) {
    let mut secrets = Vec::new();
    // A text full of names would look at each value once for every name around it.
    let mut seen = HashSet::new();
    for half in found.iter().map(Candidate::hit).filter(|hit| is_name(engine, hit)) {
        let mut partners = engine.rules.partners(half.rule).peekable();
        if partners.peek().is_some() {
            let partners: Vec<_> = partners.collect();
            each_run(text, &around(text, &half.span), |run, part| {
                let id = (run.start, partners[0].0);
                if seen.contains(&id) || (run.start < half.span.end && half.span.start < run.end) {
                    return;
                }
                let value = tokens::value_around(text, &run);
                // What an end of the part cuts off, another name may see whole.
                if part.start <= value.start && value.end <= part.end {
                    seen.insert(id);
                    secrets.extend(secret_at(engine, text, &value, &partners));
                }
            });
        }
    }
    found.append(&mut secrets);
}

fn is_name(engine: &Engine, hit: &Hit) -> bool {
    engine.rules.key(hit.rule).is_some_and(|(_, key)| key.kind.is_name())
}

/// The lines around a place.
fn around(text: &[u8], half: &Range<usize>) -> Range<usize> {
    let before = &text[half.start.saturating_sub(REACH)..half.start];
    let after = &text[half.end..text.len().min(half.end + REACH)];
    let nth_line = |bytes: &mut dyn Iterator<Item = (usize, &u8)>| {
        bytes.filter(|(_, byte)| **byte == b'\n').nth(LINES).map(|(at, _)| at)
    };
    let from = nth_line(&mut before.iter().rev().enumerate()).unwrap_or(before.len());
    let to = nth_line(&mut after.iter().enumerate()).unwrap_or(after.len());
    half.start - from..half.end + to
}

/// Calls `each` with every run in a part of a text that is as long as a secret.
fn each_run(text: &[u8], part: &Range<usize>, mut each: impl FnMut(Range<usize>, &Range<usize>)) {
    let mut at = part.start;
    while let Some(start) = (at..part.end).find(|&at| tokens::is_token(text[at])) {
        at = (start..part.end).find(|&at| !tokens::is_token(text[at])).unwrap_or(part.end);
        if at - start >= MIN_SECRET {
            each(start..at, part);
        }
    }
}

fn secret_at(
    engine: &Engine,
    text: &[u8],
    value: &Range<usize>,
    partners: &[(RuleId, &Key)],
) -> Option<Candidate> {
    let at = named::begin_of_value(text, value);
    let bytes = &text[at..value.end];
    if bytes.len() > MAX_SECRET {
        return None;
    }
    let end_of = |key: &Key| {
        let (judgement, end) = key.judge_beginning(&text[at..text.len().min(at + MAX_SECRET + 1)])?;
        let is_one = judgement == Judgement::Key && (bytes.len()..=MAX_SECRET).contains(&end);
        (is_one && !is_digest_to(key, bytes)).then_some(end)
    };
    let (rule, end) = partners.iter().find_map(|(rule, key)| Some((*rule, end_of(key)?)))?;
    if !random::is_random(bytes) || shape::is_placeholder_for_secret(bytes) {
        return None;
    }
    let before = Before::read(text, at, 0);
    let is_another = before.says().0 == Says::NotSecret
        || named::names_a_digest(before.names)
        || engine
            .mentions()
            .in_text(before.names)
            .first()
            .is_some_and(|mention| !mention.is_everyday && !engine.rules.is_of(rule, mention.owner));
    (!is_another).then(|| Candidate::Key(Hit::plain(rule, at..at + end, Certainty::Context)))
}

/// Whether a value consists of hexadecimal digits and the key need not: then it is a digest sooner than the key.
fn is_digest_to(key: &Key, value: &[u8]) -> bool {
    let mut other = value.to_vec();
    other[0] = b'g';
    let lower = key.matches(&other);
    other[0] = b'G';
    value.iter().all(u8::is_ascii_hexdigit) && (lower || key.matches(&other))
}

/// How far from the name its secret is looked for, and over how many ends of lines; both within what
/// [`Engine::MARGIN`](super::Engine::MARGIN) leaves for a decision.
const REACH: usize = 400;
const LINES: usize = 4;

/// The secrets that are looked for so have 30 to 80 characters.
const MIN_SECRET: usize = 16;
const MAX_SECRET: usize = 100;
