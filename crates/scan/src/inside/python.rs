//! Compiled Python: the strings of a `.pyc` file.
//!
//! In the file a string has its length before it and the type of what follows behind it; both may be letters, and then
//! nobody could say where the string begins and ends.

use std::io;
use std::ops::Range;

use super::Unpack;

impl Unpack<'_> {
    pub(super) fn python(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let mut text = Vec::new();
        let mut rest = bytes.get(HEADER..).unwrap_or_default();
        while !rest.is_empty() {
            let string = string_at(rest);
            if let Some(string) = string.clone() {
                text.extend_from_slice(&rest[string]);
                text.push(b'\n');
            }
            rest = &rest[string.map_or(1, |string| string.end)..];
        }
        self.plain(&mut text.as_slice())
    }
}

/// The string of the object at the beginning of `bytes`, if it is one.
fn string_at(bytes: &[u8]) -> Option<Range<usize>> {
    let length_at = |size: usize| {
        let bytes = bytes.get(1..1 + size)?;
        Some(bytes.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (length, start): (usize, usize) = match bytes[0] & !IS_REFERRED_TO {
        b'z' | b'Z' => (length_at(1)?, 2),
        b's' | b't' | b'u' | b'a' | b'A' => (length_at(4)?, 5),
        _ => return None,
    };
    let range = start..start.checked_add(length)?;
    let string = bytes.get(range.clone())?;
    let is_text = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\t' | b'\n' | b'\r');
    (length >= SHORTEST && string.iter().all(is_text) && std::str::from_utf8(string).is_ok()).then_some(range)
}

/// Magic number, flags, time and size of the source.
const HEADER: usize = 16;
const IS_REFERRED_TO: u8 = 0x80;
/// No key is shorter, and four letters are met by chance.
const SHORTEST: usize = 6;
