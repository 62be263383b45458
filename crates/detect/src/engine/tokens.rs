//! Runs of sixteen and more characters that keys are made of: found by looking at every sixteenth byte, since a run of
//! sixteen covers one of those.

use std::ops::Range;

use super::decode::Decode;
use super::{Candidate, Engine, Hit, MAX_VALUE, decode, named};
use crate::identify::Certainty;
use crate::provider::{Judgement, Key, Kind};

/// Finds what stands in runs that reach into `wide`, as it is or encoded.
pub(super) fn find(
    engine: &Engine,
    text: &[u8],
    wide: &Range<usize>,
    decode: Decode,
    found: &mut Vec<Candidate>,
) {
    each_run(text, wide, |run| {
        in_run(engine, text, &run, wide, found);
        if run.start >= wide.start && run.len() <= MAX_RUN {
            decode::find(engine, text, &run, decode, found);
        }
    });
}

fn each_run(text: &[u8], wide: &Range<usize>, mut each: impl FnMut(Range<usize>)) {
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
            each(start..end);
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

fn in_run(engine: &Engine, text: &[u8], run: &Range<usize>, wide: &Range<usize>, found: &mut Vec<Candidate>) {
    let first = run.start.max(wide.start);
    let last = run.end.min(wide.end);
    let mut before = first.checked_sub(1).map_or(0, |at| CLASSES[usize::from(text[at])]);
    let mut looks = Looks::default();
    if let Some(begin) = begin_behind_escape(text, run).filter(|begin| wide.contains(begin)) {
        begins_at(engine, text, begin, found);
    }
    // Where words begin is written down first and looked at then: a branch for each would be guessed wrong too often.
    let mut begins = [0; CHUNK];
    let mut from = first;
    while from < last {
        let chunk = &text[from..last.min(from + CHUNK)];
        let mut count = 0;
        for (at, &byte) in chunk.iter().enumerate() {
            let class = CLASSES[usize::from(byte)];
            begins[count] = at as u8;
            count += usize::from(class & WORD != 0 && before & (WORD | JOINT) == 0);
            looks.add(class, before);
            before = class;
        }
        for &begin in &begins[..count] {
            begins_at(engine, text, from + usize::from(begin), found);
        }
        from += CHUNK;
    }
    // A value of which only a part is seen is decided where its beginning is.
    if run.start >= wide.start && run.len() <= MAX_RUN && looks.may_be_random(run.len()) {
        found.extend(named::find(engine, text, run).map(Candidate::Key));
    }
}

#[inline]
fn begins_at(engine: &Engine, text: &[u8], at: usize, found: &mut Vec<Candidate>) {
    if engine.prefixes.may_begin(&text[at..]) {
        found.extend(by_prefix(engine, text, at));
    }
}

/// What a run looks like, at little cost.
#[derive(Default)]
struct Looks {
    digits: usize,
    changes: usize,
}

impl Looks {
    #[inline]
    fn add(&mut self, class: u8, before: u8) {
        self.digits += usize::from(class & DIGIT != 0);
        self.changes += usize::from((class ^ before) & (DIGIT | UPPER) != 0);
    }

    /// Whether it is worth to read what stands before it.
    fn may_be_random(&self, len: usize) -> bool {
        self.changes >= 2 && (self.digits > 0 || self.changes * 4 >= len)
    }
}

/// What begins at a place with a prefix of its own.
pub(super) fn by_prefix(engine: &Engine, text: &[u8], at: usize) -> Option<Candidate> {
    let rest = &text[at..text.len().min(at + MAX_VALUE)];
    engine.prefixes.rules_at(rest).find_map(|rule| {
        let (_, key) = engine.rules.key(rule)?;
        let (judgement, end) = key.judge_beginning(rest)?;
        let certainty = if key.checksum.proves() { Certainty::Checksum } else { Certainty::Shape };
        let hit = Hit::plain(rule, at..at + end, certainty);
        let is_alarm = judgement == Judgement::Key && is_reported(key);
        Some(if is_alarm { Candidate::Key(hit) } else { Candidate::Harmless(hit.span) })
    })
}

/// Names of accounts and publishable keys are no alarm; the name of a key is told, since its secret is often near.
pub(super) fn is_reported(key: &Key) -> bool {
    key.sensitive || key.kind == Kind::KeyId
}

/// Where the value of a run begins whose first characters are the end of `\n`, `\t`, `\r` or `%3D`.
fn begin_behind_escape(text: &[u8], run: &Range<usize>) -> Option<usize> {
    let behind = run.start.checked_sub(1).map(|at| text[at])?;
    match (behind, text[run.start], text.get(run.start + 1)) {
        (b'\\', b'n' | b't' | b'r', _) => Some(run.start + 1),
        (b'%', first, Some(second)) if first.is_ascii_hexdigit() && second.is_ascii_hexdigit() => {
            Some(run.start + 2)
        }
        _ => None,
    }
}

/// Whether a byte may stand in a run.
#[inline]
pub(super) fn is_token(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

const TOKEN: u8 = 1;
const WORD: u8 = 2;
/// Goes on with a name, so that no value begins behind it.
const JOINT: u8 = 4;
const DIGIT: u8 = 8;
const UPPER: u8 = 16;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        classes[byte] = if b.is_ascii_digit() {
            TOKEN | WORD | DIGIT
        } else if b.is_ascii_uppercase() {
            TOKEN | WORD | UPPER
        } else if b.is_ascii_lowercase() {
            TOKEN | WORD
        } else if b == b'_' {
            TOKEN | JOINT
        } else if matches!(b, b'-' | b'.' | b'/' | b'+' | b'~') {
            TOKEN
        } else {
            0
        };
        byte += 1;
    }
    classes
};

/// Bytes of a run that are looked at together; a place in them fits a byte.
const CHUNK: usize = 128;

/// The shortest run that is looked at.
const STEP: usize = 16;

/// Longer runs are data.
const MAX_RUN: usize = MAX_VALUE;
