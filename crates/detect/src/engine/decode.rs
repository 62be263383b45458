//! Values in another form: base64 (also twice), hexadecimal, percent signs, escapes, string literals in pieces.
//!
//! Only runs that a key could stand in are decoded, each once or twice and never more than a few kilobytes, so a text
//! is never decoded into more than about its own size.

use std::ops::Range;

use zeroize::Zeroizing;

use super::tokens::is_token;
use super::{
    Candidate, Encoding, Engine, Hit, MAX_GENERIC_VALUE, MAX_VALUE, literals, pairs, settle, tokens,
};
use crate::base64;

/// How often something encoded may be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decode {
    Twice,
    Once,
    Not,
}

/// What stands encoded in a run, or in a run and what it is tied to.
pub(super) fn find(
    engine: &Engine,
    text: &[u8],
    run: &Range<usize>,
    decode: Decode,
    found: &mut Vec<Candidate>,
) {
    let inner = match decode {
        Decode::Twice => Decode::Once,
        Decode::Once => Decode::Not,
        Decode::Not => return,
    };
    if let Some((span, decoded, encoding)) = whole(text, run).or_else(|| tied(text, run)) {
        in_decoded(engine, span, decoded, encoding, inner, found);
    }
}

/// The keys in a decoded text, as hits on the place of the encoded one.
fn in_decoded(
    engine: &Engine,
    span: Range<usize>,
    decoded: Zeroizing<Vec<u8>>,
    encoding: Encoding,
    decode: Decode,
    found: &mut Vec<Candidate>,
) {
    let mut inner = Vec::new();
    let all = 0..decoded.len();
    tokens::find(engine, &decoded, &all, decode, &mut inner);
    literals::find(engine, &decoded, &all, &mut inner);
    pairs::find(engine, &decoded, &mut inner);
    settle(&engine.rules, &decoded, &mut inner);
    let hits = inner.into_iter().filter_map(|candidate| match candidate {
        Candidate::Key(hit) => Some(hit),
        Candidate::Harmless(_) | Candidate::Named(_) => None,
    });
    for hit in hits {
        let encoding = match (encoding, hit.encoding) {
            (Encoding::Base64, Encoding::Base64) => Encoding::Base64Twice,
            _ => encoding,
        };
        let value = hit.with_value(&decoded, |value| Zeroizing::new(value.to_vec()));
        found.push(Candidate::Key(Hit { span: span.clone(), encoding, decoded: Some(value), ..hit }));
    }
}

/// A run that is base64 or hexadecimal digits of a text.
fn whole(text: &[u8], run: &Range<usize>) -> Option<(Range<usize>, Zeroizing<Vec<u8>>, Encoding)> {
    if run.len() < MIN_ENCODED {
        return None;
    }
    // The run ends at a slash, which base64 may hold.
    let rest = &text[run.end..text.len().min(run.start + MAX_VALUE).max(run.end)];
    let run = run.start
        ..run.end + rest.iter().position(|&byte| base64::sextet(byte).is_none()).unwrap_or(rest.len());
    let bytes = &text[run.clone()];
    if bytes[..MIN_ENCODED].iter().all(u8::is_ascii_hexdigit) {
        let decoded = hex(bytes)?;
        return is_text(&decoded).then(|| (run.clone(), Zeroizing::new(decoded), Encoding::Hex));
    }
    // Twelve bytes tell a text from anything else; what is decoded by chance is not printable.
    if !begins_as_text(&bytes[..MIN_ENCODED]) {
        return None;
    }
    let padding = text[run.end..].iter().take(2).take_while(|&&byte| byte == b'=').count();
    let decoded = base64::decode(bytes).or_else(|| base64::decode(&bytes[..bytes.len() / 4 * 4]))?;
    is_text(&decoded).then(|| (run.start..run.end + padding, Zeroizing::new(decoded), Encoding::Base64))
}

/// A run with `%5F`, `\u005f` or `\x5f` in it, or in pieces of string literals.
fn tied(text: &[u8], run: &Range<usize>) -> Option<(Range<usize>, Zeroizing<Vec<u8>>, Encoding)> {
    let start = start_of_tied(text, run.start);
    if start == run.start && joint(&text[run.end..]).is_none() {
        return None;
    }
    let mut decoded = Zeroizing::new(Vec::new());
    let mut encoding = Encoding::Plain;
    let mut at = start;
    let limit = text.len().min(start + MAX_TIED);
    while at < limit {
        if is_token(text[at]) {
            decoded.push(text[at]);
            at += 1;
            continue;
        }
        let Some((byte, len, joint)) = joint(&text[at..limit]) else { break };
        decoded.extend(byte);
        encoding = encoding.max(joint);
        at += len;
    }
    (encoding != Encoding::Plain).then_some((start..at, decoded, encoding))
}

/// Where the pieces begin that a run is tied to.
fn start_of_tied(text: &[u8], run: usize) -> usize {
    let floor = run.saturating_sub(MAX_TIED_BEFORE);
    let mut start = run;
    while let Some(joint) = joint_before(text, start, floor) {
        let piece =
            text[floor..joint].iter().rposition(|&byte| !is_token(byte)).map_or(floor, |at| floor + at + 1);
        if piece == joint {
            break;
        }
        start = piece;
    }
    start
}

/// Where the joint begins that a piece stands behind. The digits of an escape look like the beginning of the piece.
fn joint_before(text: &[u8], piece: usize, floor: usize) -> Option<usize> {
    let last = piece.checked_sub(1).filter(|&at| at >= floor)?;
    match text[last] {
        b'%' | b'\\' => joint(&text[last..]).map(|_| last),
        quote @ (b'"' | b'\'') => {
            let between = &text[floor.max(last.saturating_sub(MAX_CONCATENATION))..last];
            let back = between.iter().rev().position(|&byte| byte == quote)?;
            let at = last - 1 - back;
            len_of_concatenation(&text[at..], quote).filter(|len| at + len == piece).map(|_| at)
        }
        _ => None,
    }
}

/// What ties two pieces of a value: the character it stands for, its length, its form.
fn joint(text: &[u8]) -> Option<(Option<u8>, usize, Encoding)> {
    let digits = |from: usize, len: usize| hex(text.get(from..from + len)?);
    let printable = |byte: u8| byte.is_ascii_graphic();
    match text {
        [b'%', ..] => digits(1, 2).map(|byte| (byte[0], 3, Encoding::Percent)),
        [b'\\', b'u', b'0', b'0', ..] => digits(4, 2).map(|byte| (byte[0], 6, Encoding::Escaped)),
        [b'\\', b'x', ..] => digits(2, 2).map(|byte| (byte[0], 4, Encoding::Escaped)),
        [quote @ (b'"' | b'\''), ..] => {
            let len = len_of_concatenation(text, *quote)?;
            return Some((None, len, Encoding::Split));
        }
        _ => None,
    }
    .filter(|(byte, ..)| printable(*byte))
    .map(|(byte, len, encoding)| (Some(byte), len, encoding))
}

/// `" + "`, `' . '`, `" \` and a new line, with a plus sign or a dot or nothing but a line end between.
fn len_of_concatenation(text: &[u8], quote: u8) -> Option<usize> {
    let rest = &text[1..text.len().min(MAX_CONCATENATION)];
    let next = rest.iter().position(|&byte| byte == quote)?;
    let between = rest[..next].trim_ascii();
    // Lines of a table that are one quoted value each begin at the margin.
    let is_continued =
        rest[..next].windows(2).any(|pair| pair[0] == b'\n' && matches!(pair[1], b' ' | b'\t'));
    let is_one = matches!(between, b"+" | b"." | b".." | b"\\") || (between.is_empty() && is_continued);
    is_one.then_some(next + 2)
}

/// Whether base64 begins as a text; most other runs are told after four characters.
fn begins_as_text(encoded: &[u8]) -> bool {
    encoded.chunks_exact(4).all(|chunk| {
        let number = chunk
            .iter()
            .try_fold(0_u32, |number, &byte| Some(number << 6 | u32::from(base64::sextet(byte)?)));
        number.is_some_and(|number| is_text(&number.to_be_bytes()[1..]))
    })
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|&byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
}

/// The text of UTF-16 in either order of bytes, told by its mark or by zeros in every second place; `None` for what is
/// none. A scanner of files asks this before it takes a file with zeros in it for binary.
pub fn utf16_to_utf8(bytes: &[u8]) -> Option<Vec<u8>> {
    let (body, is_big) = match bytes {
        [0xff, 0xfe, body @ ..] => (body, false),
        [0xfe, 0xff, body @ ..] => (body, true),
        body => {
            let sample = &body[..body.len().min(UTF16_SAMPLE) / 2 * 2];
            let zeros =
                |from: usize| sample.iter().skip(from).step_by(2).filter(|&&byte| byte == 0).count() * 2;
            let is_mostly = |count: usize| sample.len() >= 8 && count * 10 >= sample.len() * 7;
            match (is_mostly(zeros(0)), is_mostly(zeros(1))) {
                (true, false) => (body, true),
                (false, true) => (body, false),
                _ => return None,
            }
        }
    };
    let units = body.chunks_exact(2).map(|pair| match is_big {
        true => u16::from_be_bytes([pair[0], pair[1]]),
        false => u16::from_le_bytes([pair[0], pair[1]]),
    });
    let text: String =
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Some(text.into_bytes())
}

/// Shorter values hold no key when they are decoded.
const MIN_ENCODED: usize = 20;

/// The longest value in pieces.
const MAX_TIED: usize = MAX_GENERIC_VALUE;

/// How far before a run its first piece may begin.
const MAX_TIED_BEFORE: usize = 256;

/// From quote to quote, with an indented line between.
const MAX_CONCATENATION: usize = 64;

const UTF16_SAMPLE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_two_bytes() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            assert_eq!(utf16_to_utf8(bytes).as_deref(), expected.map(str::as_bytes), "{bytes:?}");
        };
        check(b"\xff\xfek\0e\0y\0", Some("key"));
        check(b"\xfe\xff\0k\0e\0y", Some("key"));
        check(b"k\0e\0y\0=\0v\0", Some("key=v"));
        check(b"\0k\0e\0y\0=\0v", Some("key=v"));
        check(b"key = value", None);
        check(b"", None);
        check(&[0; 20], None);
    }
}
