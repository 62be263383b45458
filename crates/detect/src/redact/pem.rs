//! Private keys in PEM form in a stream (RFC 7468, OpenSSH, OpenPGP): from the line that says `BEGIN` on, what could be
//! the key goes, line by line, until the line that says `END` or something that is no key at all.
//!
//! The lines that say `BEGIN` and `END` are no secret and stay, and so does what a log puts in front of each line.

use std::ops::Range;

use regex::bytes::Regex;

/// Where in a block the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Pem {
    /// In none.
    #[default]
    Outside,
    /// Behind `BEGIN`.
    Inside {
        /// Lines that were no key, one after the other.
        idle: u32,
        /// Lines since `BEGIN`.
        lines: u32,
        /// Where in the line before the key stood, when it had a part of it.
        column: Option<usize>,
        /// Whether the line was cut in the middle of the key, which goes on at once.
        is_cut: bool,
    },
}

/// Knows the beginnings and ends of blocks.
#[derive(Debug)]
pub(super) struct PemLines {
    begin: Regex,
    end: Regex,
}

impl PemLines {
    pub(super) fn new() -> Self {
        let regex = |text| Regex::new(text).expect("a pattern of the program");
        Self {
            begin: regex("-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,16}-----"),
            end: regex("-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,16}-----"),
        }
    }

    /// Where the first block in a text begins, for a stream that is in none.
    pub(super) fn begin_in(&self, text: &[u8]) -> Option<usize> {
        self.begin.find(text).map(|begin| begin.start())
    }

    /// Where a line is to be searched in parts: around what says `BEGIN` and `END`, which belongs to no value, and so that
    /// nothing takes it for a block.
    pub(super) fn splits_in(&self, line: &[u8], splits: &mut Vec<usize>) {
        splits
            .extend(self.begin.find_iter(line).flat_map(|mark| [mark.start(), mark.start() + 1, mark.end()]));
        splits.extend(self.end.find_iter(line).flat_map(|mark| [mark.start(), mark.end()]));
        splits.sort_unstable();
    }

    /// Where a line that is too long is cut: at `wanted`, or before a beginning or end of a block that stands there.
    pub(super) fn place_to_cut(&self, text: &[u8], wanted: usize) -> usize {
        let from = wanted - MAX_MARK;
        let near = &text[from..text.len().min(wanted + MAX_MARK)];
        let over = |regex: &Regex| {
            let crossing = regex.find_iter(near).find(|mark| from + mark.end() > wanted)?;
            Some(from + crossing.start()).filter(|start| *start < wanted)
        };
        over(&self.begin).or_else(|| over(&self.end)).unwrap_or(wanted)
    }

    /// What of a line is a key. A line that is cut goes on in the next call.
    pub(super) fn line(&self, line: &[u8], is_cut: bool, state: &mut Pem, found: &mut Vec<Range<usize>>) {
        let mut at = 0;
        if let Pem::Inside { is_cut: true, .. } = state {
            let until = self.end.find(line).map_or(line.len(), |end| end.start());
            at = body_len(&line[..until]);
            found.extend(trimmed(line, 0..at));
        }
        loop {
            if *state == Pem::Outside {
                let Some(begin) = self.begin.find_at(line, at) else { return };
                *state = Pem::Inside { idle: 0, lines: 0, column: None, is_cut: false };
                at = begin.end();
                match self.one_line(line, at, is_cut, state, found) {
                    Some(end) => at = end,
                    None => return,
                }
            } else if let Some(end) = self.end.find_at(line, at) {
                self.last_of_line(line, at..end.start(), state, found);
                *state = Pem::Outside;
                at = end.end();
            } else {
                if at == 0 {
                    self.next_line(line, is_cut, state, found);
                }
                return;
            }
        }
    }

    /// What stands behind `BEGIN` on the same line, its line ends written out; where `END` ends if that stands there too.
    fn one_line(
        &self,
        line: &[u8],
        at: usize,
        is_cut: bool,
        state: &mut Pem,
        found: &mut Vec<Range<usize>>,
    ) -> Option<usize> {
        let end = self.end.find_at(line, at);
        let until = end.map_or(line.len(), |end| end.start());
        let len = body_len(&line[at..until]);
        let body = at..at + if end.is_some() { until - at } else { len };
        if longest_run(&line[body.clone()]) >= MIN_RUN {
            found.extend(trimmed(line, body.clone()));
        }
        if let Some(end) = end {
            *state = Pem::Outside;
            return Some(end.end());
        }
        if let Pem::Inside { is_cut: cut, .. } = state {
            *cut = is_cut && body.end == line.len();
        }
        None
    }

    /// What stands before `END` on its line, when the line before had a part of the key.
    fn last_of_line(&self, line: &[u8], before: Range<usize>, state: &Pem, found: &mut Vec<Range<usize>>) {
        let Pem::Inside { column, is_cut, .. } = *state else { return };
        let piece = &line[before.clone()];
        if longest_run(piece) >= MIN_RUN || (is_cut && before.start > 0) {
            found.extend(trimmed(line, before));
        } else if column.is_some_and(|column| before.start == 0 && column < before.end) {
            found.extend(trimmed(line, column.unwrap_or_default()..before.end));
        }
    }

    fn next_line(&self, line: &[u8], is_cut: bool, state: &mut Pem, found: &mut Vec<Range<usize>>) {
        let Pem::Inside { idle, lines, column, .. } = *state else { return };
        let body = body_of(line).filter(|body| body.len() >= MIN_RUN || column == Some(body.start));
        found.extend(body.clone());
        let is_idle = body.is_none() && !is_header(line);
        let idle = if is_idle { idle + 1 } else { 0 };
        let goes_on = is_cut && body.as_ref().is_some_and(|body| body.end == line.len());
        *state = if idle > MAX_IDLE || lines >= MAX_LINES {
            Pem::Outside
        } else {
            Pem::Inside { idle, lines: lines + 1, column: body.map(|body| body.start), is_cut: goes_on }
        };
    }
}

/// The last run of base64 in a line, when nothing but quotes and the like follows.
fn body_of(line: &[u8]) -> Option<Range<usize>> {
    let is_after = |byte: &u8| {
        matches!(byte, b'\n' | b'\r' | b' ' | b'\t' | b'"' | b'\'' | b',' | b';' | b'+' | b'\\' | b')')
    };
    let mut end = line.iter().rposition(|byte| !is_after(byte))? + 1;
    // `\n` written out.
    while line[..end].ends_with(b"\\n") || line[..end].ends_with(b"\\r") {
        end -= 2;
    }
    let start = line[..end].iter().rposition(|&byte| !is_base64(byte)).map_or(0, |at| at + 1);
    (start < end).then_some(start..end)
}

/// How much of a text is base64 with white space, quotes and line ends written out between.
fn body_len(text: &[u8]) -> usize {
    let in_body = |&byte: &u8| {
        is_base64(byte) || matches!(byte, b'\\' | b' ' | b'\t' | b'\r' | b'"' | b'\'' | b',' | b'-')
    };
    // A quote ends a string, and what follows is another one, unless a program puts the two together.
    let len = text.iter().position(|byte| !in_body(byte)).unwrap_or(text.len());
    let last = text[..len].iter().rposition(|&byte| is_base64(byte) || byte == b'\\').map_or(0, |at| at + 1);
    if last == text.len() { len } else { last }
}

/// The longest run of base64, line ends written out between counted as ends.
fn longest_run(text: &[u8]) -> usize {
    let mut longest = 0;
    let mut run = 0;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' if text.get(at + 1) == Some(&b'/') => run += 1,
            b'\\' => run = 0,
            byte if is_base64(byte) => {
                run += 1;
                longest = longest.max(run);
                at += 1;
                continue;
            }
            _ => {
                run = 0;
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    longest
}

/// The part of a range between the first and the last character of base64 that is not a line end written out.
fn trimmed(line: &[u8], range: Range<usize>) -> Option<Range<usize>> {
    let Range { mut start, mut end } = range;
    let is_end = |pair: &[u8]| matches!(pair, b"\\n" | b"\\r");
    loop {
        let piece = &line[start..end];
        match piece {
            [] => return None,
            [b'\\', b'n' | b'r', ..] => start += 2,
            [byte, ..] if !is_base64(*byte) => start += 1,
            [.., _, _] if is_end(&piece[piece.len() - 2..]) => end -= 2,
            [.., byte] if !is_base64(*byte) => end -= 1,
            _ => return Some(start..end),
        }
    }
}

/// Lines that stand between `BEGIN` and the key: `Proc-Type: 4,ENCRYPTED`, `Version: …`, and empty ones.
fn is_header(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.is_empty() || HEADERS.iter().any(|header| line.windows(header.len()).any(|piece| piece == *header))
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

const HEADERS: &[&[u8]] = &[b"Proc-Type:", b"DEK-Info:", b"Version:", b"Comment:", b"Hash:", b"Charset:"];

/// Bytes of the longest line that says `BEGIN` or `END`.
const MAX_MARK: usize = 96;

/// Lines of a key have 64 to 76 characters; what is shorter is a word, unless it stands below such a line.
const MIN_RUN: usize = 32;

/// Lines of something else between two lines of a key: other programs write into the same log.
const MAX_IDLE: u32 = 16;

/// A key of 16,384 bits has 200 lines, an OpenPGP key with many identities a few hundred.
const MAX_LINES: u32 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "MadeUpExample0000MadeUpExample0000MadeUpExample0000MadeUpExample";

    /// `LINE` stands for a line of a key and `#` for what is taken for a part of it.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let text = text.replace("LINE", LINE);
        let lines = PemLines::new();
        let mut state = Pem::default();
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            let mut found = Vec::new();
            lines.line(line.as_bytes(), false, &mut state, &mut found);
            let mut at = 0;
            for range in found {
                out.push_str(&line[at..range.start]);
                out.push('#');
                at = range.end;
            }
            out.push_str(&line[at..]);
        }
        assert_eq!(out, expected.replace("LINE", LINE));
    }

    #[test]
    fn blocks() {
        let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
        let framed = |text: &str| text.replace("BEGIN", begin).replace("END", end);
        for (text, expected) in [
            ("BEGIN\nLINE\nLINE\naB3=\nEND\nafter LINE\n", "BEGIN\n#\n#\n#\nEND\nafter LINE\n"),
            ("k: |\n  BEGIN\n  LINE\n  aB3=\n  END\n", "k: |\n  BEGIN\n  #\n  #\n  END\n"),
            (
                "app | BEGIN\r\napp | LINE\r\napp | aB3=\r\napp | END\r\n",
                "app | BEGIN\r\napp | #\r\napp | #\r\napp | END\r\n",
            ),
            ("\"BEGIN\\nLINE\\naB3=\\nEND\\n\", \"x\": 1\n", "\"BEGIN\\n#\\nEND\\n\", \"x\": 1\n"),
            ("BEGIN LINE LINE END tail\n", "BEGIN # END tail\n"),
            ("BEGIN\\nLINE\\naB3\n", "BEGIN\\n#\n"),
            (
                "\"BEGIN\\n\"\n\"LINE\\n\"\n\"aB3=\\n\"\n\"END\"\n",
                "\"BEGIN\\n\"\n\"#\\n\"\n\"#\\n\"\n\"END\"\n",
            ),
            (
                "BEGIN\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nLINE\nEND\n",
                "BEGIN\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\n#\nEND\n",
            ),
            ("BEGIN\nLINE\nother words\nLINE\nEND\n", "BEGIN\n#\nother words\n#\nEND\n"),
            (
                "if text.startswith(\"BEGIN\"):\n    return\n    x = 1\n",
                "if text.startswith(\"BEGIN\"):\n    return\n    x = 1\n",
            ),
            (
                "expected BEGIN at the beginning\nof the file\n",
                "expected BEGIN at the beginning\nof the file\n",
            ),
            ("BEGIN\nEND\nLINE\n", "BEGIN\nEND\nLINE\n"),
            ("BEGIN\nLINE\nEND\nBEGIN\nLINE\nEND\n", "BEGIN\n#\nEND\nBEGIN\n#\nEND\n"),
        ] {
            check(&framed(text), &framed(expected));
        }
        check(
            "-----BEGIN PUBLIC KEY-----\nLINE\n-----END PUBLIC KEY-----\n",
            "-----BEGIN PUBLIC KEY-----\nLINE\n-----END PUBLIC KEY-----\n",
        );
        check(
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\nLINE\n=aB3x\n-----END PGP PRIVATE KEY BLOCK-----\n",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\n#\n#\n-----END PGP PRIVATE KEY BLOCK-----\n",
        );
    }

    #[test]
    fn a_block_that_does_not_end_is_left_at_last() {
        let other = "other words\n".repeat(20);
        check(
            &format!("-----BEGIN PRIVATE KEY-----\nLINE\n{other}LINE\n"),
            &format!("-----BEGIN PRIVATE KEY-----\n#\n{other}LINE\n"),
        );
    }
}
