//! Runs of sixteen and more characters that keys are made of: found by looking at every sixteenth byte, since a run of
//! sixteen covers one of those.

use std::ops::Range;

use super::{Engine, Hit, MAX_VALUE};
use crate::identify::Certainty;
use crate::provider::{Key, Kind};

/// Finds what stands in runs that reach into `wide`.
pub(super) fn find(engine: &Engine, text: &[u8], wide: &Range<usize>, found: &mut Vec<Hit>) {
    let mut at = wide.start + STEP - 1;
    let mut done = wide.start.saturating_sub(MAX_RUN);
    while at < wide.end + STEP - 1 {
        let here = at.min(text.len().saturating_sub(1));
        if !text.get(here).is_some_and(|&byte| is_token(byte)) {
            at += STEP;
            continue;
        }
        let start = start_of_run(text, here, done);
        let end = end_of_run(text, here);
        if end - start >= STEP {
            in_run(engine, text, start..end, wide, found);
        }
        done = end;
        at = end + STEP;
    }
}

fn start_of_run(text: &[u8], here: usize, floor: usize) -> usize {
    let mut start = here;
    while start > floor && is_token(text[start - 1]) {
        start -= 1;
    }
    start
}

fn end_of_run(text: &[u8], here: usize) -> usize {
    let rest = text.get(here..).unwrap_or_default();
    here + rest.iter().position(|&byte| !is_token(byte)).unwrap_or(rest.len())
}

fn in_run(engine: &Engine, text: &[u8], run: Range<usize>, wide: &Range<usize>, found: &mut Vec<Hit>) {
    let first = run.start.max(wide.start);
    let last = run.end.min(wide.end);
    let mut before = first.checked_sub(1).map_or(0, |at| CLASSES[usize::from(text[at])]);
    for at in first..last {
        let class = CLASSES[usize::from(text[at])];
        let is_begin = class & WORD != 0 && (before & WORD == 0 || is_behind_escape(text, at));
        before = class;
        if is_begin && engine.prefixes.may_begin(&text[at..]) {
            found.extend(by_prefix(engine, text, at));
        }
    }
}

/// The key that begins at a place with a prefix of its own.
pub(super) fn by_prefix(engine: &Engine, text: &[u8], at: usize) -> Option<Hit> {
    let rest = &text[at..text.len().min(at + MAX_VALUE)];
    engine.prefixes.rules_at(rest).find_map(|rule| {
        let (_, key) = engine.rules.key(rule)?;
        let end = key.end_of_value(rest)?;
        let certainty = if key.checksum.proves() { Certainty::Checksum } else { Certainty::Shape };
        is_reported(key).then(|| Hit::plain(rule, at..at + end, certainty))
    })
}

/// Names of accounts and publishable keys are no alarm; the name of a key is told, since its secret is often near.
pub(super) fn is_reported(key: &Key) -> bool {
    key.sensitive || key.kind == Kind::KeyId
}

/// Whether the letter before is the end of `\n`, `\t`, `\r` or `%3D`, which does not belong to the word.
fn is_behind_escape(text: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).map_or(0, |at| text[at]);
    (before(2) == b'\\' && matches!(before(1), b'n' | b't' | b'r'))
        || (before(3) == b'%' && before(2).is_ascii_hexdigit() && before(1).is_ascii_hexdigit())
}

/// Whether a byte may stand in a run.
#[inline]
fn is_token(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

const TOKEN: u8 = 1;
const WORD: u8 = 2;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        classes[byte] = if b.is_ascii_alphanumeric() {
            TOKEN | WORD
        } else if matches!(b, b'_' | b'-' | b'.' | b'/' | b'+' | b'~') {
            TOKEN
        } else {
            0
        };
        byte += 1;
    }
    classes
};

/// The shortest run that is looked at.
const STEP: usize = 16;

/// Longer runs are data.
const MAX_RUN: usize = MAX_VALUE;
