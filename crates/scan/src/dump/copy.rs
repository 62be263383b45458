//! Rows as `COPY … TO stdout` writes them: a line each, cells separated by tabs, `\` before what is special.

use std::io::{self, Read};
use std::rc::Rc;

use super::schema::{Words, column_list};
use super::source::Source;
use crate::inside::RowsOut;
use crate::rows::{Number, Rows, Table};

/// Reads `COPY table (columns) FROM stdin;`; gives the table and its columns.
pub(super) fn statement(text: &[u8]) -> Option<(String, Vec<String>)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = Words { rest: text };
    if !words.take("copy") {
        return None;
    }
    let name = words.name()?;
    let (columns, behind) = column_list(words.rest).unwrap_or((Vec::new(), words.rest));
    let mut words = Words { rest: behind };
    (words.take("from") && words.take("stdin")).then_some((name, columns))
}

/// Reads the rows of one table and nothing else.
///
/// # Errors
/// Those of reading; what came before was handed out.
pub(crate) fn read_table(table: &Rc<Table>, stream: &mut dyn Read, out: &mut RowsOut<'_>) -> io::Result<()> {
    let (mut source, mut rows) = (Source::new(stream), Rows::without_lines());
    let done = read_rows(table, &mut source, &mut rows, out);
    rows.finish(out);
    done
}

/// Reads rows up to the line that ends them.
pub(super) fn read_rows(
    table: &Rc<Table>,
    source: &mut Source<'_>,
    rows: &mut Rows,
    out: &mut RowsOut<'_>,
) -> io::Result<()> {
    let mut number = 0;
    let mut cell = Vec::new();
    while !source.is_over()? {
        number += 1;
        if u64::is_multiple_of(number, CHECK_EVERY) {
            out.check()?;
        }
        let at = Number { line: source.line, row: number };
        let (line, is_whole) = source.next_line(PIECE)?;
        let length = line.len();
        if is_whole {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if text == b"\\." {
                source.consume(length);
                return Ok(());
            }
            if !rows.plain_row(table, at, text, out) {
                rows.begin(table, at);
                for (column, raw) in text.split(|byte| *byte == b'\t').enumerate() {
                    add(rows, column, raw, &mut cell, out);
                }
                rows.end(out);
            }
            source.consume(length);
        } else {
            long_row(table, at, source, rows, out)?;
        }
    }
    Ok(())
}

fn add(rows: &mut Rows, column: usize, raw: &[u8], cell: &mut Vec<u8>, out: &mut RowsOut<'_>) {
    if raw == b"\\N" {
        return;
    }
    if memchr::memchr(b'\\', raw).is_none() {
        return rows.cell_text(column, raw, out);
    }
    cell.clear();
    unescape(raw, cell);
    match bytes_of(cell) {
        Some(bytes) => rows.cell_text(column, &bytes, out),
        None => rows.cell_text(column, cell, out),
    }
}

/// A row that is larger than what is held in memory, piece by piece.
fn long_row(
    table: &Rc<Table>,
    at: Number,
    source: &mut Source<'_>,
    rows: &mut Rows,
    out: &mut RowsOut<'_>,
) -> io::Result<()> {
    rows.begin(table, at);
    let (mut column, mut is_new) = (0, true);
    let mut text = Vec::new();
    while !source.is_over()? {
        let (piece, is_whole) = source.next_line(PIECE)?;
        // Neither an escape nor the digits of one may be cut in two.
        let mut length = piece.len().min(PIECE);
        if !is_whole || length < piece.len() {
            let tail = memchr::memrchr(b'\\', &piece[length.saturating_sub(4)..length]);
            length = tail.map_or(length, |tail| length.saturating_sub(4) + tail).max(1);
        }
        let is_last = is_whole && length == piece.len();
        let piece = &piece[..length];
        let line = if is_last { piece.strip_suffix(b"\n").unwrap_or(piece) } else { piece };
        for (index, raw) in line.split(|byte| *byte == b'\t').enumerate() {
            if index > 0 {
                (column, is_new) = (column + 1, true);
            }
            text.clear();
            unescape(raw, &mut text);
            match is_new {
                true => rows.cell_text(column, &text, out),
                false => rows.more(&text, out),
            }
            is_new = false;
        }
        source.consume(length);
        if is_last {
            break;
        }
    }
    rows.end(out);
    Ok(())
}

/// Undoes what `COPY` does to special bytes (PostgreSQL manual, COPY, "Text Format").
fn unescape(raw: &[u8], text: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        text.extend_from_slice(&rest[..at]);
        let Some(&kind) = rest.get(at + 1) else {
            rest = &rest[at..];
            break;
        };
        let mut taken = 2;
        text.push(match kind {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'0'..=b'7' => {
                let digits = &rest[at + 1..rest.len().min(at + 4)];
                let count = digits.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                taken = 1 + count;
                digits[..count].iter().fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0')) as u8
            }
            other => other,
        });
        rest = &rest[at + taken..];
    }
    text.extend_from_slice(rest);
}

/// The bytes of a `bytea` as it is written: `\x` and hexadecimal digits.
fn bytes_of(cell: &[u8]) -> Option<Vec<u8>> {
    let digits = cell.strip_prefix(b"\\x")?;
    super::insert::from_hex(digits)
}

/// Longer lines are read in pieces.
const PIECE: usize = 256 << 10;
/// A thousand rows take less than a millisecond.
const CHECK_EVERY: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements() {
        for (text, expected) in [
            ("COPY public.shop (id, \"the key\") FROM stdin;\n", Some(("shop", vec!["id", "the key"]))),
            ("COPY a.b FROM stdin WITH (FORMAT text);", Some(("a.b", vec![]))),
            ("COPY a (b) TO stdout;", None),
            ("COPY", None),
            ("COPYING is fine", None),
        ] {
            let found = statement(text.as_bytes());
            let found = found
                .as_ref()
                .map(|(name, columns)| (name.as_str(), columns.iter().map(String::as_str).collect()));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        for (raw, expected) in [
            (&br"a\nb\\c\tdA\101"[..], &b"a\nb\\c\tdAA"[..]),
            (br"end\", br"end\"),
            (br"\x", b"x"),
            (b"", b""),
        ] {
            let mut text = Vec::new();
            unescape(raw, &mut text);
            assert_eq!(text, expected, "{}", String::from_utf8_lossy(raw));
        }
    }
}
