//! Searches one text after another: whole ones, ones made by a delta, and streams that do not fit into memory.

use std::io::{self, Read};

use keymoat_detect::{Engine, Hit, Scratch};

use crate::carry::{Same, same, to_scan};
use crate::finding::{Known, Values};
use crate::git::delta::Copied;

/// What a thread needs to search texts.
pub(crate) struct Searcher<'a> {
    engine: &'a Engine,
    pub values: &'a Values<'a>,
    scratch: Scratch,
    hits: Vec<Hit>,
    same: Vec<Same>,
    /// For streams, of which there may be many small ones.
    window: Vec<u8>,
    /// How many bytes the engine looked at.
    pub searched: u64,
}

/// The text that another one was made from, and how.
pub(crate) struct Before<'a> {
    pub text: &'a [u8],
    pub known: &'a [Known],
    pub copied: &'a [Copied],
}

/// A value in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub known: Known,
    pub line: u64,
    pub column: u64,
}

impl<'a> Searcher<'a> {
    pub fn new(engine: &'a Engine, values: &'a Values<'a>) -> Self {
        let (scratch, hits, same) = (Scratch::default(), Vec::new(), Vec::new());
        Self { engine, values, scratch, hits, same, window: Vec::new(), searched: 0 }
    }

    /// Searches a text. Of one that was made from another only what changed is looked at.
    pub fn search(&mut self, text: &[u8], before: Option<Before<'_>>) -> Vec<Known> {
        let Some(before) = before else { return self.search_range(text, 0..text.len(), Vec::new()) };
        let mut unchanged = std::mem::take(&mut self.same);
        same(before.copied, before.text, text, &mut unchanged);
        let mut known = Vec::new();
        for range in to_scan(&unchanged, text.len()) {
            known = self.search_range(text, range, known);
        }
        for part in &unchanged {
            let from = before.known.partition_point(|known| known.start < part.before);
            let to = before.known.partition_point(|known| known.start < part.before + part.here.len());
            let moved =
                |known: &Known| Known { start: known.start - part.before + part.here.start, ..*known };
            known.extend(before.known[from..to].iter().map(moved));
        }
        known.sort_by_key(|known| known.start);
        self.same = unchanged;
        known
    }

    /// Searches a part of a text.
    pub fn search_range(
        &mut self,
        text: &[u8],
        range: std::ops::Range<usize>,
        mut known: Vec<Known>,
    ) -> Vec<Known> {
        self.searched += range.len() as u64;
        self.engine.find(text, range, &mut self.scratch, &mut self.hits);
        known.extend(self.hits.drain(..).filter_map(|hit| self.values.note(text, &hit)));
        known
    }

    /// Searches a stream of any length in windows that overlap. What was found is handed on as the stream goes by.
    pub fn search_stream(
        &mut self,
        mut stream: impl Read,
        mut seen: impl FnMut(Sighting),
    ) -> io::Result<Streamed> {
        let mut window = std::mem::take(&mut self.window);
        window.resize(WINDOW + 2 * Engine::MARGIN, 0);
        let (mut filled, mut from) = (0, 0);
        let mut lines = Lines::default();
        let mut streamed = Streamed::default();
        loop {
            let read = read_full(&mut stream, &mut window[filled..])?;
            if streamed.bytes == 0 && is_binary(&window[..read]) {
                streamed.binary = true;
            }
            streamed.bytes += read as u64;
            filled += read;
            let is_last = filled < window.len();
            let to = if is_last { filled } else { filled - Engine::MARGIN };
            for known in self.search_range(&window[..filled], from..to, Vec::new()) {
                let (line, column) = lines.at(&window, known.start);
                seen(Sighting { known, line, column });
            }
            if is_last {
                self.window = window;
                return Ok(streamed);
            }
            // The margin before what comes next stays, too.
            let keep = to - Engine::MARGIN;
            lines.at(&window, keep);
            lines.moved_by(keep);
            window.copy_within(keep..filled, 0);
            filled -= keep;
            from = Engine::MARGIN;
        }
    }
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streamed {
    pub bytes: u64,
    /// Whether it looks like something else than text.
    pub binary: bool,
}

/// Whether git would call this a binary file.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    memchr::memchr(0, &bytes[..bytes.len().min(LOOKED_AT_FOR_NUL)]).is_some()
}

/// Counts lines forwards, so that each byte is looked at once.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    at: usize,
    /// Lines that ended before `at`.
    ended: u64,
    /// Where the line began that `at` stands in, in bytes before `at`.
    into_line: u64,
}

impl Lines {
    /// Line and column of a place, from 1. Places have to come in order; an earlier one counts as the last.
    pub fn at(&mut self, text: &[u8], place: usize) -> (u64, u64) {
        let new = &text[self.at.min(place)..place];
        match memchr::memrchr(b'\n', new) {
            Some(last) => {
                self.ended += memchr::memchr_iter(b'\n', new).count() as u64;
                self.into_line = (new.len() - last - 1) as u64;
            }
            None => self.into_line += new.len() as u64,
        }
        self.at = self.at.max(place);
        (self.ended + 1, self.into_line + 1)
    }

    /// Says that the text has lost so many bytes at its beginning.
    fn moved_by(&mut self, bytes: usize) {
        self.at = self.at.saturating_sub(bytes);
    }
}

fn read_full(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// As git: `buffer_is_binary`.
const LOOKED_AT_FOR_NUL: usize = 8000;
/// Large enough that the margins, which are searched twice, cost little; small enough for the processor's cache.
const WINDOW: usize = 1 << 20;
