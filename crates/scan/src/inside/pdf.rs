//! The text of PDF documents (ISO 32000-1), as far as it stands in their streams as text: fonts with an encoding of their
//! own are not translated.

use std::io::{self, Read};

use super::{Packing, Unpack};

impl Unpack<'_> {
    pub(super) fn pdf(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        // Links, metadata and what is not packed.
        self.plain(&mut bytes.as_slice())?;
        if memchr::memmem::find(&bytes, b"/Encrypt").is_some() {
            self.trouble("is encrypted; only its bytes were searched");
            return Ok(());
        }
        if memchr::memmem::rfind(&bytes, b"%%EOF").is_none() {
            self.trouble("is cut off; what stands before that was searched");
        }
        let mut rest = bytes.as_slice();
        let (mut text, mut broken) = (Vec::new(), 0);
        while let Some((dictionary, stream, behind)) = next_stream(rest) {
            if is_deflated(dictionary) {
                let (unpacked, is_whole) = self.unpacked(stream)?;
                broken += usize::from(!is_whole);
                text_of(&unpacked, &mut text);
            }
            if text.len() >= ENOUGH {
                self.within("text", |unpack| unpack.plain(&mut text.as_slice()))?;
                text.clear();
            }
            rest = behind;
        }
        if broken > 0 {
            self.trouble("has streams that could not be unpacked to their end; what came out was searched");
        }
        self.within("text", |unpack| unpack.plain(&mut text.as_slice()))
    }

    /// What comes out of a stream, and whether that is all of it: what is damaged still has a beginning.
    fn unpacked(&self, stream: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        let mut unpacked = Vec::new();
        let (spent, most) = (self.spent, self.limits.memory);
        let done = Packing::Zlib.unpack(stream, spent).take(most as u64).read_to_end(&mut unpacked);
        spent.stopped().map_or(Ok(()), |stop| Err(io::Error::from(stop)))?;
        Ok((unpacked, done.is_ok_and(|length| length < most)))
    }
}

/// The next stream: its dictionary, its bytes, and what stands behind it.
fn next_stream(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let at = memchr::memmem::find(bytes, b"stream")?;
    let dictionary = &bytes[at.saturating_sub(LONGEST_DICTIONARY)..at];
    let dictionary =
        memchr::memmem::rfind(dictionary, b"obj").map_or(dictionary, |start| &dictionary[start..]);
    let start = at + b"stream".len();
    let start =
        start + bytes[start..].iter().take(2).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let length = memchr::memmem::find(&bytes[start..], b"endstream").unwrap_or(bytes.len() - start);
    let behind = (start + length + b"endstream".len()).min(bytes.len());
    Some((dictionary, &bytes[start..start + length], &bytes[behind..]))
}

fn is_deflated(dictionary: &[u8]) -> bool {
    let is_picture = memchr::memmem::find(dictionary, b"/Image").is_some();
    !is_picture && memchr::memmem::find(dictionary, b"/FlateDecode").is_some()
}

/// Takes the strings out of a content stream: pieces of one word are shown by one operator.
fn text_of(content: &[u8], text: &mut Vec<u8>) {
    if !is_content(content) {
        // Objects and metadata may be packed, too.
        text.extend_from_slice(content);
        text.push(b'\n');
        return;
    }
    let mut rest = content;
    while let Some((&first, after)) = rest.split_first() {
        rest = match first {
            b'(' => literal(after, text),
            b'<' if after.first() != Some(&b'<') => hexadecimal(after, text),
            // Moves to another line, or begins or ends a text.
            b'T' if matches!(after.first(), Some(b'd' | b'D' | b'*' | b'm')) => line(after, text),
            b'E' if after.starts_with(b"T") => line(after, text),
            b'\'' | b'"' => line(after, text),
            b'%' => &after[memchr::memchr(b'\n', after).unwrap_or(after.len())..],
            _ => after,
        };
    }
    line(b"", text);
}

fn is_content(content: &[u8]) -> bool {
    [&b"Tj"[..], b"TJ"].iter().any(|operator| memchr::memmem::find(content, operator).is_some())
}

fn line<'c>(after: &'c [u8], text: &mut Vec<u8>) -> &'c [u8] {
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    after
}

/// `(text)` with `\` escapes; parentheses within it come in pairs.
fn literal<'c>(content: &'c [u8], text: &mut Vec<u8>) -> &'c [u8] {
    let mut open = 1;
    let mut rest = content;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\\' => {
                let digits = rest.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                if digits > 0 {
                    let code =
                        rest[..digits].iter().fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
                    text.push(code as u8);
                    rest = &rest[digits..];
                } else if let Some((&escaped, after)) = rest.split_first() {
                    match escaped {
                        b'n' => text.push(b'\n'),
                        b'r' => text.push(b'\r'),
                        b't' => text.push(b'\t'),
                        b'\n' => {}
                        other => text.push(other),
                    }
                    rest = after;
                }
            }
            b'(' => {
                open += 1;
                text.push(first);
            }
            b')' => {
                open -= 1;
                if open == 0 {
                    return rest;
                }
                text.push(first);
            }
            0 => {}
            _ => text.push(first),
        }
    }
    rest
}

/// `<48656C>`; zeros are the high halves of two-byte characters.
fn hexadecimal<'c>(content: &'c [u8], text: &mut Vec<u8>) -> &'c [u8] {
    let end = memchr::memchr(b'>', content).unwrap_or(content.len());
    let digits: Vec<u8> = content[..end]
        .iter()
        .filter_map(|byte| (*byte as char).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or_default());
    text.extend(bytes.filter(|byte| *byte != 0));
    &content[(end + 1).min(content.len())..]
}

/// Dictionaries of streams have a few entries.
const LONGEST_DICTIONARY: usize = 2048;
const ENOUGH: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_word_are_joined() {
        for (content, expected) in [
            (&b"BT /F1 12 Tf 72 720 Td [(gh) -20 (p_ab)] TJ (c) Tj ET"[..], "ghp_abc\n"),
            (b"(a) Tj 0 -14 Td (b\\(c\\)\\101) Tj T* (d) Tj", "a\nb(c)A\nd\n"),
            (b"<6768705F> Tj <0041> Tj", "ghp_A\n"),
            (b"plain << /A (x) >>", "plain << /A (x) >>\n"),
            (b"((a) Tj", "(a) Tj\n"),
        ] {
            let mut text = Vec::new();
            text_of(content, &mut text);
            assert_eq!(String::from_utf8_lossy(&text), expected);
        }
    }
}
