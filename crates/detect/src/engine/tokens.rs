//! Runs of sixteen and more characters that keys are made of: found by looking at every sixteenth byte, since a run of
//! sixteen covers one of those.

use std::ops::Range;

use super::decode::Decode;
use super::{Candidate, Engine, Hit, MAX_VALUE, RuleId, decode, named, reach};
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
    let mut begins = Vec::new();
    let mut done = 0;
    // Runs that are tied to one long text are data, and that is found out once for many of them.
    let mut data = 0;
    each_run(text, wide, |run| {
        let looks = read(text, &run, wide, &mut begins);
        if run.len() > MAX_RUN {
            begins.retain(|&begin| begin <= run.start);
        }
        for &begin in &begins {
            begins_at(engine, text, begin, found);
        }
        // Several runs may be parts of one value; of one that begins outside only its prefix is of interest.
        if run.start < done || run.start < data {
            return;
        }
        let value = value_around(text, &run);
        if value.len() > MAX_RUN {
            data = value.end;
            return;
        }
        if value.start < wide.start {
            return;
        }
        decode::find(engine, text, &run, decode, found);
        if looks.may_be_random(run.len()) {
            done = value.end;
            let shape = engine.shapes.find(&engine.rules, text, begin_of_shape(text, value.start));
            match shape {
                Some(shape) => found.push(shape),
                None => found.extend(named::find(engine, text, &value)),
            }
        }
    });
}

/// Calls `each` with every run that a place in `wide` is in.
fn each_run(text: &[u8], wide: &Range<usize>, mut each: impl FnMut(Range<usize>)) {
    let mut at = wide.start + STEP - 1;
    let mut done = wide.start.saturating_sub(MAX_RUN);
    while at < wide.end + STEP - 1 {
        let here = at.min(text.len().saturating_sub(1));
        if !text.get(here).is_some_and(|&byte| is_token(byte)) {
            at += STEP;
            continue;
        }
        let start = start_of(text, here, done.min(here), TOKEN);
        let end = end_of(text, here, TOKEN);
        if end - start >= STEP {
            each(start..end);
        }
        done = end;
        at = end + STEP;
    }
}

/// Where a value begins whose first part is a number, and a colon or a bar: `123456789:AA…`.
fn begin_of_shape(text: &[u8], start: usize) -> usize {
    let Some(joint) = start.checked_sub(1).filter(|&at| matches!(text[at], b':' | b'|')) else {
        return start;
    };
    let begin = start_of(text, joint, start.saturating_sub(MAX_NUMBER), DIGIT);
    let before = begin.checked_sub(1).map_or(0, |at| CLASSES[usize::from(text[at])]);
    if before & TOKEN == 0 { begin } else { start }
}

fn start_of(text: &[u8], here: usize, floor: usize, class: u8) -> usize {
    let mut start = here;
    while start > floor && CLASSES[usize::from(text[start - 1])] & class != 0 {
        start -= 1;
    }
    start
}

fn end_of(text: &[u8], here: usize, class: u8) -> usize {
    let rest = text.get(here..).unwrap_or_default();
    here + rest.iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0).unwrap_or(rest.len())
}

/// The run with what is tied to it by dots and slashes, as far as a value may reach.
pub(super) fn value_around(text: &[u8], run: &Range<usize>) -> Range<usize> {
    #[cfg(test)]
    super::count_work(1);
    let floor = run.start.saturating_sub(MAX_RUN);
    let limit = text.len().min(run.end + MAX_RUN);
    start_of(text, run.start, floor, TOKEN | TIE)..end_of(&text[..limit], run.end, TOKEN | TIE)
}

/// What a run looks like, at little cost.
struct Looks {
    digits: usize,
    /// Neighbours of which one is a digit or a capital and the other is not.
    changes: usize,
}

impl Looks {
    /// Whether it is worth to read what stands before it: of random letters and digits at least every third pair
    /// changes, of names one in ten.
    fn may_be_random(&self, len: usize) -> bool {
        (self.digits > 0 || self.changes * 4 >= len)
            && self.changes >= 2
            && (self.changes * 7 >= len || self.digits * 4 >= len)
    }
}

/// Reads a run, and where in `wide` a value with a prefix may begin in it or right before it.
fn read(text: &[u8], run: &Range<usize>, wide: &Range<usize>, begins: &mut Vec<usize>) -> Looks {
    begins.clear();
    before_dots(text, run.start, begins);
    begins.extend(begin_behind_escape(text, run));
    let bytes = &text[run.clone()];
    let before = run.start.checked_sub(1).map_or(0, |at| CLASSES[usize::from(text[at])]);
    if before & (WORD | JOINT) == 0 && CLASSES[usize::from(bytes[0])] & WORD != 0 {
        begins.push(run.start);
    }
    // Words in a run are joined by `-` and `+`; most runs have none.
    let is_break = |byte: u8| matches!(byte, b'-' | b'+');
    if count(bytes, is_break) > 0 {
        let breaks = bytes
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| is_break(pair[0]) && CLASSES[usize::from(pair[1])] & WORD != 0);
        begins.extend(breaks.map(|(at, _)| run.start + at + 1));
    }
    if run.start < wide.start + MAX_BEFORE_DOTS || run.end > wide.end {
        begins.retain(|begin| wide.contains(begin));
    }
    let digits = count(bytes, |byte| byte.is_ascii_digit());
    if digits == 0 && count(bytes, |byte| byte.is_ascii_uppercase()) < 3 {
        return Looks { digits: 0, changes: 0 };
    }
    let kind = |byte: u8| CLASSES[usize::from(byte)] & (DIGIT | UPPER);
    let changes = bytes.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    Looks { digits, changes }
}

/// How many bytes are of a kind; in steps that the compiler makes vector instructions of.
#[inline]
fn count(bytes: &[u8], is_one: impl Fn(u8) -> bool) -> usize {
    bytes
        .chunks(CHUNK)
        .map(|chunk| {
            usize::from(chunk.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(u8::from(is_one(byte)))))
        })
        .sum()
}

/// The first words of values such as `SG.…`, `dp.pt.…`, `sha256~…` and `00D…!…`, whose run begins behind a joint.
fn before_dots(text: &[u8], run: usize, begins: &mut Vec<usize>) {
    let floor = run.saturating_sub(MAX_BEFORE_DOTS);
    let mut start = run;
    while start > floor && matches!(text[start - 1], b'.' | b'~' | b'!') {
        start = start_of(text, start - 1, floor, TOKEN);
        begins.push(start);
    }
}

#[inline]
fn begins_at(engine: &Engine, text: &[u8], at: usize, found: &mut Vec<Candidate>) {
    if engine.prefixes.may_begin(&text[at..]) {
        found.extend(by_prefix(engine, text, at));
    }
}

/// What begins at a place with a prefix of its own.
pub(super) fn by_prefix(engine: &Engine, text: &[u8], at: usize) -> Option<Candidate> {
    let rest = reach::readable(text, at);
    let found = engine.prefixes.rules_at(rest).find_map(|rule| {
        let (_, key) = engine.rules.key(rule)?;
        let (judgement, end) = key.judge_beginning(rest)?;
        let certainty = if key.checksum.proves() { Certainty::Checksum } else { Certainty::Shape };
        let hit = Hit::plain(rule, at..at + end, certainty);
        let is_alarm = judgement == Judgement::Key && is_reported(key);
        Some(if is_alarm { Candidate::Key(hit) } else { Candidate::Harmless(hit) })
    });
    found.or_else(|| unproved(engine, rest, at))
}

/// Something as long as a key that has the prefix of keys with a checksum and is none of them.
fn unproved(engine: &Engine, rest: &[u8], at: usize) -> Option<Candidate> {
    let len =
        rest.iter().position(|&byte| CLASSES[usize::from(byte)] & (WORD | JOINT) == 0).unwrap_or(rest.len());
    let has_checksum =
        |rule: &RuleId| engine.rules.key(*rule).is_some_and(|(_, key)| key.checksum.disproves());
    let rule = engine.prefixes.rules_at(rest).find(has_checksum).filter(|_| len >= MIN_UNPROVED)?;
    Some(Candidate::Harmless(Hit::plain(rule, at..at + len, Certainty::Shape)))
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

/// Part of a run.
const TOKEN: u8 = 1;
/// A letter or a digit.
const WORD: u8 = 2;
/// Goes on with a name, so that no value begins behind it.
const JOINT: u8 = 4;
const DIGIT: u8 = 8;
const UPPER: u8 = 16;
/// Ties runs to one value.
const TIE: u8 = 32;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'0'..=b'9' => TOKEN | WORD | DIGIT,
            b'A'..=b'Z' => TOKEN | WORD | UPPER,
            b'a'..=b'z' => TOKEN | WORD,
            b'_' => TOKEN | JOINT,
            b'-' | b'+' => TOKEN,
            b'.' | b'/' | b'~' => TIE,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Bytes of a run that are counted together; their number fits a byte.
const CHUNK: usize = 128;

/// Before a colon or a bar stands the number of a bot or of an application.
const MAX_NUMBER: usize = 20;

/// The shortest run that is looked at.
const STEP: usize = 16;

/// The shortest key with a checksum, npm's, has 40 characters; a few may be lost.
const MIN_UNPROVED: usize = 30;

/// Before a run and its dots there are a few short words.
const MAX_BEFORE_DOTS: usize = 32;

/// Longer runs are data.
const MAX_RUN: usize = MAX_VALUE;
