//! Takes keys out of a stream of bytes: in come pieces of any size, out goes the same with a fixed text in place of
//! every key; everything else stays byte for byte.
//!
//! The unit is the line. A line is decided by itself and what stood before it, never by what follows, so it goes out as
//! soon as it is complete, and the output does not depend on how the input was cut into pieces. A line that is longer
//! than a block is decided in parts, cut at places that depend on the line alone. It holds no more than two blocks.
//!
//! It knows keys by the [`Engine`]; private keys of several lines by `pem`; and values that are stored somewhere by
//! [`KnownValues`], which is asked about the few pieces of a text that its [`Sieve`] lets pass. Time is the caller's: he
//! says with [`Redactor::flush`] that an unfinished line has waited for long enough.

mod cut;
mod decode;
mod pem;
mod sieve;

use std::borrow::Cow;
use std::convert::Infallible;
use std::ops::Range;

use regex::bytes::Regex;

use crate::engine::{Encoding, Engine, Generic, Hit, Scratch};
use crate::provider::Kind;
use cut::Candidate;
use pem::{Pem, PemLines};
pub use sieve::{SIEVE_KEY_LEN, Sieve, SieveError, SieveKey};

/// Values that are stored somewhere, told without being shown.
pub trait KnownValues {
    /// Why it could not be told.
    type Error;

    /// Called before lines are looked at, for values that change meanwhile.
    ///
    /// # Errors
    /// When it cannot be told any more which values there are.
    fn renew(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// What nearly all pieces of a text fail to pass; `None` when there are no values.
    fn sieve(&self) -> Option<&Sieve>;

    /// Says of each candidate whether it is one of the values; `known` is empty and gets one answer for each.
    ///
    /// # Errors
    /// When it cannot be told; nothing of the lines in question goes out then.
    fn are_known(&mut self, candidates: &[&[u8]], known: &mut Vec<bool>) -> Result<(), Self::Error>;
}

/// No values are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoneKnown;

impl KnownValues for NoneKnown {
    type Error = Infallible;

    fn sieve(&self) -> Option<&Sieve> {
        None
    }

    fn are_known(&mut self, candidates: &[&[u8]], known: &mut Vec<bool>) -> Result<(), Infallible> {
        known.resize(candidates.len(), false);
        Ok(())
    }
}

/// Takes keys out of one stream.
pub struct Redactor<'e, K = NoneKnown> {
    engine: &'e Engine,
    known: K,
    pem_lines: PemLines,
    pem: Pem,
    allow_mark: Regex,
    /// What was passed on and may still decide about what comes, and what was not passed on yet.
    buffer: Vec<u8>,
    /// Where in the buffer what was not passed on begins.
    pos: usize,
    /// What stands before this place in the buffer belongs to a block of a private key and decides nothing.
    floor: usize,
    scratch: Scratch,
    hits: Vec<Hit>,
    candidates: Vec<Candidate>,
    answers: Vec<bool>,
    ranges: Vec<Range<usize>>,
    /// Where a line of a private key is searched in parts: blocks are decided here, and what the engine takes for one
    /// would hide what else stands in the line.
    splits: Vec<usize>,
    cuts: Vec<Cut>,
    removed: u64,
}

/// What of the buffer is replaced, and by what.
struct Cut {
    span: Range<usize>,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Rule(crate::engine::RuleId),
    PrivateKey,
    Stored,
}

impl<'e> Redactor<'e> {
    /// Knows keys by their looks alone.
    pub fn new(engine: &'e Engine) -> Self {
        Self::with_known(engine, NoneKnown)
    }
}

impl<'e, K: KnownValues> Redactor<'e, K> {
    /// Knows keys by their looks, and values that are stored.
    pub fn with_known(engine: &'e Engine, known: K) -> Self {
        Self {
            engine,
            known,
            pem_lines: PemLines::new(),
            pem: Pem::default(),
            allow_mark: Regex::new(ALLOW_MARK).expect("a pattern of the program"),
            buffer: Vec::new(),
            pos: 0,
            floor: 0,
            scratch: Scratch::default(),
            hits: Vec::new(),
            candidates: Vec::new(),
            answers: Vec::new(),
            ranges: Vec::new(),
            splits: Vec::new(),
            cuts: Vec::new(),
            removed: 0,
        }
    }

    /// Takes more of the stream and appends to `out` what of it is decided: every line that is complete.
    ///
    /// # Errors
    /// When it cannot be told which values are stored; the stream can then not go on.
    pub fn push(&mut self, mut more: &[u8], out: &mut Vec<u8>) -> Result<(), K::Error> {
        while !more.is_empty() {
            self.make_room();
            let (now, later) = more.split_at(more.len().min(CAPACITY - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            more = later;
            self.known.renew()?;
            self.pass_lines(out)?;
        }
        Ok(())
    }

    /// Appends what of an unfinished line may go out before the rest of it is there: up to its last word, and not past
    /// a name, a quote or an address behind which a value may stand. What is held back goes out with the rest of the
    /// line.
    ///
    /// # Errors
    /// Those of [`Redactor::push`].
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), K::Error> {
        let end = self.buffer.len();
        let mut until = match self.pem {
            Pem::Outside => {
                self.pos + safe_len(&self.buffer[self.line_start()..], self.pos - self.line_start())
            }
            Pem::Inside { .. } => self.pos,
        };
        if until <= self.pos {
            return Ok(());
        }
        self.find_hits(self.pos..until, end);
        let reaching = self.hits.iter().filter(|hit| hit.span.end > until).map(|hit| hit.span.start);
        until = reaching.min().unwrap_or(until);
        self.pass(self.pos..until, until, out)
    }

    /// Ends the stream: appends what was held back.
    ///
    /// # Errors
    /// Those of [`Redactor::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), K::Error> {
        while self.pos < self.buffer.len() {
            let end = self.end_of_block(true);
            self.pass_block(end, out)?;
        }
        Ok(())
    }

    /// Whether a part of a line waits for the rest.
    pub fn is_waiting(&self) -> bool {
        self.pos < self.buffer.len()
    }

    /// How many values were taken out.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// What tells stored values.
    pub fn known(&mut self) -> &mut K {
        &mut self.known
    }

    fn make_room(&mut self) {
        let keep = self.pos.saturating_sub(Engine::MARGIN);
        if CAPACITY - self.buffer.len() < BLOCK && keep > 0 {
            self.buffer.drain(..keep);
            self.pos -= keep;
            self.floor = self.floor.saturating_sub(keep);
        }
    }

    fn pass_lines(&mut self, out: &mut Vec<u8>) -> Result<(), K::Error> {
        loop {
            let end = self.end_of_block(false);
            if end.region == self.pos {
                return Ok(());
            }
            self.pass_block(end, out)?;
        }
    }

    /// What is decided next: whole lines, at most a block of them; of a line that is longer, a part.
    fn end_of_block(&self, is_last: bool) -> End {
        let rest = &self.buffer[self.pos..];
        let block = &rest[..rest.len().min(BLOCK)];
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return End { region: self.pos + at + 1, text: self.pos + at + 1, is_cut: false };
        }
        if rest.len() >= BLOCK {
            let text = self.pos + BLOCK;
            let region = self.pem_lines.place_to_cut(&self.buffer[..text], text - Engine::MARGIN);
            return End { region, text, is_cut: true };
        }
        let region = if is_last { self.buffer.len() } else { self.pos };
        End { region, text: region, is_cut: false }
    }

    fn pass_block(&mut self, end: End, out: &mut Vec<u8>) -> Result<(), K::Error> {
        while self.pos < end.region {
            let rest = &self.buffer[self.pos..end.region];
            let block_of_key = match self.pem {
                Pem::Inside { .. } => Some(0),
                Pem::Outside => self.pem_lines.begin_in(rest),
            };
            match block_of_key {
                None => self.pass(self.pos..end.region, end.text, out)?,
                Some(begin) => {
                    let line = rest[..begin].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                    if line > 0 {
                        let line = self.pos + line;
                        self.pass(self.pos..line, line, out)?;
                    } else {
                        self.pass_line_of_key(end, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Decides about a line in or beside a block of a private key, by itself.
    fn pass_line_of_key(&mut self, end: End, out: &mut Vec<u8>) -> Result<(), K::Error> {
        let rest = &self.buffer[self.pos..end.region];
        let newline = rest.iter().position(|&byte| byte == b'\n');
        let len = newline.map_or(rest.len(), |at| at + 1);
        let is_cut = newline.is_none() && end.is_cut;
        self.floor = self.pos;
        self.ranges.clear();
        self.pem_lines.line(&rest[..len], is_cut, &mut self.pem, &mut self.ranges);
        let keys: Vec<Range<usize>> =
            self.ranges.drain(..).map(|range| self.pos + range.start..self.pos + range.end).collect();
        self.cuts.extend(keys.into_iter().map(|span| Cut { span, what: What::PrivateKey }));
        self.pem_lines.splits_in(&rest[..len], &mut self.splits);
        self.splits.iter_mut().for_each(|split| *split += self.pos);
        let region = self.pos..self.pos + len;
        let text = if is_cut { end.text } else { region.end };
        let passed = self.pass(region, text, out);
        self.splits.clear();
        self.floor = self.pos;
        passed
    }

    /// Decides about `region`, which ends with a line or where a line may be cut, and passes it on. `text` is the end of
    /// what may be looked at.
    fn pass(&mut self, region: Range<usize>, text: usize, out: &mut Vec<u8>) -> Result<(), K::Error> {
        self.find_hits(region.clone(), text);
        self.find_known(region.clone(), text)?;
        let mut cuts = std::mem::take(&mut self.cuts);
        for hit in self.hits.drain(..) {
            let span = secret_part(&self.buffer, self.engine, &hit);
            if !is_in_marker(&self.buffer, &span) {
                cuts.push(Cut { span, what: What::Rule(hit.rule) });
            }
        }
        cuts.sort_by_key(|cut| (cut.span.start, cut.what));
        self.write(&cuts, region.end, out);
        cuts.clear();
        self.cuts = cuts;
        Ok(())
    }

    fn write(&mut self, cuts: &[Cut], end: usize, out: &mut Vec<u8>) {
        let mut at = self.pos;
        let mut cuts = cuts.iter().peekable();
        while let Some(cut) = cuts.next() {
            // A part of it went out as a part of something else.
            let start = cut.span.start.max(at);
            let mut stop = cut.span.end;
            while let Some(next) = cuts.next_if(|next| next.span.start < stop) {
                stop = stop.max(next.span.end);
            }
            if stop <= at {
                continue;
            }
            out.extend_from_slice(&self.buffer[at..start]);
            self.write_marker(cut.what, out);
            self.removed += 1;
            at = stop;
        }
        out.extend_from_slice(&self.buffer[at..end.max(at)]);
        self.pos = end.max(at);
    }

    fn write_marker(&self, what: What, out: &mut Vec<u8>) {
        out.extend_from_slice(MARKER);
        match what {
            What::Rule(rule) => out.extend_from_slice(self.engine.rule(rule).name().as_bytes()),
            What::PrivateKey => out.extend_from_slice(Generic::PrivateKey.as_str().as_bytes()),
            What::Stored => out.extend_from_slice(STORED),
        }
        out.push(b']');
    }

    /// What the engine finds in `region`, each line as if nothing followed it.
    fn find_hits(&mut self, region: Range<usize>, text: usize) {
        let from = region.start.saturating_sub(Engine::MARGIN).max(self.floor.min(region.start));
        self.find_in(from..text, region.clone());
        let ends_later = |hit: &Hit| hit.span.clone();
        let buffer = &self.buffer;
        let has_line_end = |span: &Range<usize>| buffer[span.clone()].contains(&b'\n');
        let over: Vec<Range<usize>> = self.hits.iter().map(ends_later).filter(has_line_end).collect();
        if over.is_empty() {
            return;
        }
        // What stands in several lines is seen whole only when they come together; it beats others in these lines.
        let mut all = std::mem::take(&mut self.hits);
        for span in over {
            let lines = self.line_at(span.start).max(region.start)..span.end.min(region.end);
            let mut line = lines.start;
            while line < lines.end {
                let end = self.buffer[line..text].iter().position(|&byte| byte == b'\n');
                let end = end.map_or(text, |at| line + at + 1);
                all.retain(|hit| !(line..end).contains(&hit.span.start));
                let from = line.saturating_sub(Engine::MARGIN).max(self.floor.min(line));
                self.find_in(from..end, line..end);
                let buffer = &self.buffer;
                all.extend(self.hits.drain(..).filter(|hit| !buffer[hit.span.clone()].contains(&b'\n')));
                line = end;
            }
        }
        all.sort_by_key(|hit| hit.span.start);
        self.hits = all;
    }

    fn find_in(&mut self, text: Range<usize>, region: Range<usize>) {
        if self.splits.is_empty() {
            return self.search(text, region);
        }
        let mut all = Vec::new();
        let mut from = text.start;
        let ends: Vec<usize> = self.splits.iter().copied().chain([text.end]).collect();
        for end in ends {
            self.search(from..end, from.max(region.start)..end.min(region.end).max(from));
            all.append(&mut self.hits);
            from = end;
        }
        self.hits = all;
    }

    fn search(&mut self, text: Range<usize>, region: Range<usize>) {
        let inner = region.start - text.start..region.end - text.start;
        // What is written in a file that somebody has looked at lets a value stand; in a stream anybody may write it.
        let seen = match self.allow_mark.is_match(&self.buffer[text.clone()]) {
            true => self.allow_mark.replace_all(&self.buffer[text.clone()], NO_MARK),
            false => Cow::Borrowed(&self.buffer[text.clone()]),
        };
        self.engine.find(&seen, inner, &mut self.scratch, &mut self.hits);
        let engine = self.engine;
        self.hits.retain(|hit| engine.rule(hit.rule).sensitive);
        for hit in &mut self.hits {
            hit.span = hit.span.start + text.start..hit.span.end + text.start;
        }
    }

    fn find_known(&mut self, region: Range<usize>, text: usize) -> Result<(), K::Error> {
        let Some(sieve) = self.known.sieve() else { return Ok(()) };
        cut::candidates(&self.buffer[..text], region, sieve, &mut self.candidates);
        if self.candidates.is_empty() {
            return Ok(());
        }
        let values: Vec<&[u8]> =
            self.candidates.iter().map(|candidate| candidate.value(&self.buffer)).collect();
        self.answers.clear();
        self.known.are_known(&values, &mut self.answers)?;
        for (candidate, _) in self.candidates.drain(..).zip(&self.answers).filter(|(_, known)| **known) {
            self.cuts.push(Cut { span: candidate.span, what: What::Stored });
        }
        Ok(())
    }

    fn line_start(&self) -> usize {
        self.line_at(self.pos)
    }

    fn line_at(&self, at: usize) -> usize {
        self.buffer[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
    }
}

impl<K> std::fmt::Debug for Redactor<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("removed", &self.removed).finish_non_exhaustive()
    }
}

/// What is decided next.
#[derive(Clone, Copy)]
struct End {
    /// Up to here.
    region: usize,
    /// What may be looked at for that.
    text: usize,
    /// Whether the line goes on.
    is_cut: bool,
}

/// The part of a hit that is secret: of an address only its password.
fn secret_part(text: &[u8], engine: &Engine, hit: &Hit) -> Range<usize> {
    let whole = hit.span.clone();
    let is_address = engine.rule(hit.rule).kind == Kind::Url && hit.encoding == Encoding::Plain;
    password_of_address(&text[whole.clone()])
        .filter(|_| is_address)
        .map_or(whole.clone(), |part| whole.start + part.start..whole.start + part.end)
}

/// Where the password in an address stands. It may hold anything itself, so it reaches to the last `@`.
fn password_of_address(address: &[u8]) -> Option<Range<usize>> {
    let scheme = address.windows(3).position(|piece| piece == b"://")? + 3;
    let end = address.iter().rposition(|&byte| byte == b'@')?;
    let colon = address.get(scheme..end)?.iter().position(|&byte| byte == b':')?;
    Some(scheme + colon + 1..end).filter(|part| !part.is_empty())
}

/// Whether a place is inside of a text that stands for a key already.
fn is_in_marker(text: &[u8], span: &Range<usize>) -> bool {
    let in_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_/:[".contains(byte);
    let before = &text[span.start.saturating_sub(MAX_MARKER)..span.start + 1];
    let Some(begin) = before.iter().rposition(|&byte| byte == b'[') else { return false };
    let marker = &text[span.start + 1 - (before.len() - begin)..];
    let Some(end) = marker.iter().take(MAX_MARKER).position(|&byte| byte == b']') else { return false };
    marker.starts_with(MARKER) && marker[..end].iter().all(in_name)
}

/// How much of an unfinished line may go out, of which `from` bytes have already.
fn safe_len(line: &[u8], from: usize) -> usize {
    let is_space = |byte: &u8| byte.is_ascii_whitespace();
    let words = line.iter().rposition(is_space).map_or(0, |at| at + 1);
    let lower = line.to_ascii_lowercase();
    let earliest = HOLDING
        .iter()
        .filter_map(|word| lower[..words].windows(word.len()).position(|piece| piece == *word))
        .min();
    let Some(name) = earliest else { return words.saturating_sub(from) };
    // `Password: ` at the end is a question to a person.
    let asks = words == line.len() && line.trim_ascii_end().ends_with(b":") && {
        let last = line.trim_ascii_end();
        last.iter().rposition(is_space).map_or(0, |at| at + 1) <= name
    };
    let until = match asks {
        true => words,
        false => line[..name].iter().rposition(is_space).map_or(0, |at| at + 1),
    };
    until.saturating_sub(from)
}

/// Behind these a value may stand that is not one word.
const HOLDING: &[&[u8]] = &[
    b"pass", b"pwd", b"secret", b"token", b"key", b"auth", b"cred", b"login", b"://", b"-----", b"\"", b"'",
    b"`",
];

/// What lets a value stand in a file, and what is read in its place, of the same length.
const ALLOW_MARK: &str = "keymoat:allow";
const NO_MARK: &[u8] = b"keymoat.allow";

/// What stands in place of a key: `[redacted:stripe/live_secret]`.
const MARKER: &[u8] = b"[redacted:";

/// The name of a value that is stored.
const STORED: &[u8] = b"stored-value";

/// Longer than any name of a rule.
const MAX_MARKER: usize = 160;

/// What is decided at once, and the longest line that is decided as a whole.
const BLOCK: usize = 256 * 1024;

/// What is looked back at, what is decided, and room for reading ahead.
const CAPACITY: usize = Engine::MARGIN + 2 * BLOCK;

#[cfg(test)]
mod tests;
