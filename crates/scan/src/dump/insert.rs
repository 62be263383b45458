//! Rows as `INSERT INTO t VALUES (…),(…);` writes them, however many stand in one statement.

use std::io;
use std::rc::Rc;

use super::schema::{Words, column_list};
use super::source::Source;
use crate::inside::RowsOut;
use crate::rows::{Number, Rows, Table};

/// What stands before the first row.
pub(super) struct Head {
    pub table: String,
    /// The columns, where they are named.
    pub columns: Option<Vec<String>>,
    pub escapes: Escapes,
    /// How long it is.
    pub length: usize,
}

/// What a `\` in a string means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escapes {
    /// Itself, as the standard has it.
    None,
    /// That the next one is special, as MySQL has it.
    Backslash,
}

impl Head {
    /// Reads the head of a statement.
    pub fn read(text: &[u8]) -> Option<Self> {
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            // Values may be any bytes; the head is text.
            Err(error) => std::str::from_utf8(&text[..error.valid_up_to()]).ok()?,
        };
        let mut words = Words { rest: text };
        if !words.take("insert") && !words.take("replace") {
            return None;
        }
        while ["ignore", "low_priority", "delayed", "or", "replace"].iter().any(|word| words.take(word)) {}
        words.take("into");
        let escapes =
            if words.rest.trim_start().starts_with('`') { Escapes::Backslash } else { Escapes::None };
        let table = words.name()?;
        let columns = column_list(words.rest).map(|(columns, behind)| {
            words.rest = behind;
            columns
        });
        if words.take("overriding") {
            let _ = (words.take("system") || words.take("user")) && words.take("value");
        }
        let has_values = words.take("values") || words.take("value");
        let length = text.len() - words.rest.len();
        has_values.then_some(Self { table, columns, escapes, length })
    }
}

/// Reads rows up to the end of the statement.
pub(super) fn read_rows(
    table: &Rc<Table>,
    escapes: Escapes,
    number: &mut u64,
    source: &mut Source<'_>,
    rows: &mut Rows,
    out: &mut RowsOut<'_>,
) -> io::Result<()> {
    let mut values = Values { source, escapes, text: Vec::new() };
    while let Some(byte) = values.next_symbol()? {
        match byte {
            b'(' => {
                values.source.consume(1);
                *number += 1;
                let line = values.source.line;
                rows.begin(table, Number { line, row: *number });
                values.row(rows, out)?;
                rows.end(out);
                if number.is_multiple_of(CHECK_EVERY) {
                    out.check()?;
                }
            }
            b',' => values.source.consume(1),
            b';' => {
                values.source.consume(1);
                // What stands behind it on the line is a statement of its own.
                if values.source.peek(1)?.first() == Some(&b'\n') {
                    values.source.consume(1);
                }
                return Ok(());
            }
            // What to do about conflicts and the like is text.
            _ => return Ok(()),
        }
    }
    Ok(())
}

struct Values<'s, 'r> {
    source: &'s mut Source<'r>,
    escapes: Escapes,
    /// What of a value was not handed on.
    text: Vec<u8>,
}

impl Values<'_, '_> {
    fn next_symbol(&mut self) -> io::Result<Option<u8>> {
        loop {
            if self.source.is_over()? {
                return Ok(None);
            }
            let ready = self.source.ready();
            let spaces = ready.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let next = ready.get(spaces).copied();
            self.source.consume(spaces);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    /// The values up to the closing parenthesis.
    fn row(&mut self, rows: &mut Rows, out: &mut RowsOut<'_>) -> io::Result<()> {
        let (mut column, mut open) = (0, 0_usize);
        let mut value = Value::default();
        self.text.clear();
        while let Some(byte) = self.next_symbol()? {
            match byte {
                b'\'' | b'"' => {
                    let kind = Prefix::of(&self.text);
                    if kind != Prefix::None {
                        self.text.clear();
                    }
                    self.string(byte, kind, &mut value, column, rows, out)?;
                }
                b',' if open == 0 => {
                    self.source.consume(1);
                    self.give(&mut value, column, rows, out);
                    (column, value) = (column + 1, Value::default());
                }
                b')' if open == 0 => {
                    self.source.consume(1);
                    self.give(&mut value, column, rows, out);
                    return Ok(());
                }
                b'(' | b')' | b',' => {
                    open = match byte {
                        b'(' => open + 1,
                        b')' => open - 1,
                        _ => open,
                    };
                    self.text.push(byte);
                    self.source.consume(1);
                    self.hand_on_if_long(&mut value, column, rows, out);
                }
                _ => {
                    let ready = self.source.ready();
                    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"(),'\"".contains(byte);
                    let length = ready.iter().position(ends).unwrap_or(ready.len()).min(PIECE);
                    self.text.extend_from_slice(&ready[..length]);
                    self.source.consume(length);
                    self.hand_on_if_long(&mut value, column, rows, out);
                }
            }
        }
        self.give(&mut value, column, rows, out);
        Ok(())
    }

    /// A string, in pieces where it is long.
    fn string(
        &mut self,
        quote: u8,
        prefix: Prefix,
        value: &mut Value,
        column: usize,
        rows: &mut Rows,
        out: &mut RowsOut<'_>,
    ) -> io::Result<()> {
        let has_escapes = self.escapes == Escapes::Backslash || prefix == Prefix::Escapes;
        self.source.consume(1);
        while !self.source.is_over()? {
            let ready = self.source.peek(2)?;
            let special = match has_escapes {
                true => memchr::memchr2(quote, b'\\', ready),
                false => memchr::memchr(quote, ready),
            };
            let plain = special.unwrap_or(ready.len());
            if plain > 0 {
                self.text.extend_from_slice(&ready[..plain]);
                self.source.consume(plain);
                if self.text.len() >= PIECE {
                    self.hand_on_piece(prefix, value, column, rows, out);
                }
                continue;
            }
            let taken = match (ready[0], ready.get(1)) {
                (b'\\', Some(next)) if has_escapes => {
                    let next = match next {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'0' => 0,
                        b'Z' => 26,
                        b'b' => 8,
                        other => *other,
                    };
                    self.text.push(next);
                    2
                }
                (first, Some(second)) if first == quote && *second == quote => {
                    self.text.push(quote);
                    2
                }
                (first, _) if first == quote => {
                    self.source.consume(1);
                    break;
                }
                (first, _) => {
                    self.text.push(first);
                    1
                }
            };
            self.source.consume(taken);
            if self.text.len() >= PIECE {
                self.hand_on_piece(prefix, value, column, rows, out);
            }
        }
        let digits =
            if prefix == Prefix::Hex { Some(&self.text[..]) } else { self.text.strip_prefix(b"\\x") };
        if let Some(bytes) = digits.and_then(from_hex) {
            self.text = bytes;
        }
        value.has_string = true;
        Ok(())
    }

    /// Hands on a piece of a long string; of digits a whole number of bytes.
    fn hand_on_piece(
        &mut self,
        prefix: Prefix,
        value: &mut Value,
        column: usize,
        rows: &mut Rows,
        out: &mut RowsOut<'_>,
    ) {
        let whole = self.text.len() & !1;
        let bytes = if prefix == Prefix::Hex { from_hex(&self.text[..whole]) } else { None };
        let Some(bytes) = bytes else { return self.hand_on(value, column, rows, out) };
        let rest = self.text.split_off(whole);
        self.text = bytes;
        self.hand_on(value, column, rows, out);
        self.text = rest;
    }

    fn hand_on_if_long(&mut self, value: &mut Value, column: usize, rows: &mut Rows, out: &mut RowsOut<'_>) {
        if self.text.len() >= PIECE {
            self.hand_on(value, column, rows, out);
        }
    }

    /// Hands on what there is of a value.
    fn hand_on(&mut self, value: &mut Value, column: usize, rows: &mut Rows, out: &mut RowsOut<'_>) {
        match value.is_begun {
            true => rows.more(&self.text, out),
            false => rows.cell_text(column, &self.text, out),
        }
        value.is_begun = true;
        self.text.clear();
    }

    /// Hands on the end of a value.
    fn give(&mut self, value: &mut Value, column: usize, rows: &mut Rows, out: &mut RowsOut<'_>) {
        if !value.has_string {
            if self.text.eq_ignore_ascii_case(b"null") {
                self.text.clear();
                return;
            }
            if let Some(bytes) = self.text.strip_prefix(b"0x").and_then(from_hex) {
                self.text = bytes;
            }
        }
        self.hand_on(value, column, rows, out);
    }
}

/// What became of a value so far.
#[derive(Debug, Default)]
struct Value {
    /// Some of it was handed on.
    is_begun: bool,
    has_string: bool,
}

/// What stands before a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    /// `E'…'`.
    Escapes,
    /// `X'…'`.
    Hex,
    /// `_binary '…'`, `N'…'`.
    Charset,
}

impl Prefix {
    fn of(text: &[u8]) -> Self {
        match text {
            b"E" | b"e" => Self::Escapes,
            b"X" | b"x" => Self::Hex,
            b"N" | b"n" | b"_binary" | b"_utf8mb4" | b"_utf8" | b"_latin1" => Self::Charset,
            _ => Self::None,
        }
    }
}

/// Bytes out of hexadecimal digits, if these are some and nothing else.
pub(super) fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() || digits.len() % 2 == 1 {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Longer strings are handed on in pieces.
const PIECE: usize = 256 << 10;
const CHECK_EVERY: u64 = 1024;
