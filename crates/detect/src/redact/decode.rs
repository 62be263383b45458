//! Values in another form than they are stored in: base64, hexadecimal digits, percent signs, escapes. Each gives the
//! bytes and where each of them stood.

use zeroize::Zeroizing;

/// What was decoded, and where it stood.
pub(super) struct Decoded {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// For each byte where it began in the text, and at the end where the last one ended.
    pub(super) places: Vec<usize>,
}

/// Printable text in base64 of either alphabet (RFC 4648 §4 and §5), as far as it is text.
pub(super) fn base64(run: &[u8], at: usize) -> Option<Decoded> {
    let mut decoded = Decoded::with_room(run.len() / 4 * 3 + 3);
    let body = run.iter().rposition(|&byte| byte != b'=').map_or(0, |at| at + 1);
    for (index, group) in run[..body].chunks(4).enumerate() {
        let bits = group.iter().try_fold(0_u32, |bits, &byte| Some(bits << 6 | sextet(byte)?))?;
        let missing = 4 - group.len();
        let [_, bytes @ ..] = (bits << (6 * missing)).to_be_bytes();
        for (offset, &byte) in bytes[..3 - missing.min(3)].iter().enumerate() {
            if !is_text(byte) {
                return decoded.finish(run, at);
            }
            decoded.push(byte, at + index * 4 + offset);
        }
    }
    decoded.finish(run, at)
}

/// Printable text in hexadecimal digits, as far as it is text.
pub(super) fn hex(run: &[u8], at: usize) -> Option<Decoded> {
    let mut decoded = Decoded::with_room(run.len() / 2);
    for (index, pair) in run.chunks_exact(2).enumerate() {
        match hex_pair(pair) {
            Some(byte) if is_text(byte) => decoded.push(byte, at + index * 2),
            _ => break,
        }
    }
    decoded.finish(run, at)
}

/// Whether some characters are written in another way.
pub(super) fn has_escape(piece: &[u8]) -> bool {
    let may_be =
        |(at, byte): (usize, &u8)| matches!(byte, b'%' | b'\\' | b'&') && escape(&piece[at..]).is_some();
    piece.iter().enumerate().any(may_be)
}

/// Text in which some characters are written as `%5F`, `\u005f`, `\x5f`, `\/`, `\"`, `&amp;`; `None` when none is.
pub(super) fn escaped(piece: &[u8], at: usize) -> Option<Decoded> {
    let mut decoded = Decoded::with_room(piece.len());
    let mut is_any = false;
    let mut here = 0;
    while here < piece.len() {
        let rest = &piece[here..];
        let (byte, len) = escape(rest).unwrap_or((rest[0], 1));
        is_any |= len > 1;
        decoded.push(byte, at + here);
        here += len;
    }
    decoded.places.push(at + piece.len());
    is_any.then_some(decoded)
}

fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    match rest {
        [b'%', pair @ ..] => hex_pair(pair.get(..2)?).map(|byte| (byte, 3)),
        [b'\\', b'x', pair @ ..] => hex_pair(pair.get(..2)?).map(|byte| (byte, 4)),
        [b'\\', b'u', b'0', b'0', pair @ ..] => hex_pair(pair.get(..2)?).map(|byte| (byte, 6)),
        [b'\\', b'n' | b'r' | b't', ..] => Some((b'\n', 2)),
        [b'\\', byte, ..] if byte.is_ascii_punctuation() => Some((*byte, 2)),
        [b'&', name @ ..] => {
            let named =
                |(entity, byte): &(&[u8], u8)| name.starts_with(entity).then_some((*byte, entity.len() + 1));
            ENTITIES.iter().find_map(named)
        }
        _ => None,
    }
}

const ENTITIES: &[(&[u8], u8)] =
    &[(b"amp;", b'&'), (b"lt;", b'<'), (b"gt;", b'>'), (b"quot;", b'"'), (b"#39;", b'\''), (b"#x27;", b'\'')];

impl Decoded {
    fn with_room(len: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(len)), places: Vec::with_capacity(len + 1) }
    }

    fn push(&mut self, byte: u8, place: usize) {
        self.bytes.push(byte);
        self.places.push(place);
    }

    fn finish(mut self, run: &[u8], at: usize) -> Option<Self> {
        self.places.push(at + run.len());
        (self.bytes.len() >= super::cut::MIN_CANDIDATE).then_some(self)
    }
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t') || byte >= 0x80
}

/// Whether base64 that begins so is text.
pub(super) fn begins_base64_text(run: &[u8]) -> bool {
    run.len() >= 12
        && run[..12].chunks(4).all(|group| {
            let bits = group.iter().try_fold(0_u32, |bits, &byte| Some(bits << 6 | sextet(byte)?));
            bits.is_some_and(|bits| bits.to_be_bytes()[1..].iter().all(|byte| matches!(byte, b' '..=b'~')))
        })
}

/// Whether hexadecimal digits that begin so are text.
pub(super) fn begins_hex_text(run: &[u8]) -> bool {
    run.len() >= 16
        && run[..16].chunks(2).all(|pair| hex_pair(pair).is_some_and(|byte| matches!(byte, b' '..=b'~')))
}

pub(super) fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let [high, low] = pair else { return None };
    u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(decoded: Option<Decoded>) -> Option<(String, usize, usize)> {
        let decoded = decoded?;
        let (first, last) = (*decoded.places.first()?, *decoded.places.last()?);
        assert_eq!(decoded.places.len(), decoded.bytes.len() + 1);
        assert!(decoded.places.is_sorted());
        Some((String::from_utf8_lossy(&decoded.bytes).into_owned(), first, last))
    }

    #[test]
    fn forms() {
        let check = |decoded: Option<Decoded>, expected: Option<(&str, usize, usize)>| {
            assert_eq!(text(decoded), expected.map(|(text, a, b)| (text.to_owned(), a, b)));
        };
        check(base64(b"TWFkZVVwRXhhbXBsZTAwMDA=", 5), Some(("MadeUpExample0000", 5, 29)));
        check(base64(b"TWFkZVVwRXhhbXBsZTAwMDA", 0), Some(("MadeUpExample0000", 0, 23)));
        check(base64(b"AAAA", 0), None);
        check(base64(b"sk_live_51MadeUpExample0000", 0), None);
        check(hex(b"4d616465557045786d616465557045786d", 2), Some(("MadeUpExmadeUpExm", 2, 36)));
        check(hex(b"9f2c4b7a1e8d3056c1a9e4f7b2d80635", 0), None);
        check(escaped(b"a%5Fb", 1), Some(("a_b", 1, 6)));
        check(escaped(br"a\u005fb\/c\x5F", 0), Some(("a_b/c_", 0, 15)));
        check(escaped(b"a&amp;b", 0), Some(("a&b", 0, 7)));
        check(escaped(b"plain%", 0), None);
        check(escaped(b"", 0), None);
    }

    #[test]
    fn text_is_told_by_its_beginning() {
        assert!(begins_base64_text(b"TWFkZVVwRXhhbXBsZTAwMDA"));
        assert!(!begins_base64_text(b"vohbhkazs00uh0bdo4t81j5u"));
        assert!(begins_hex_text(b"4d616465557045786d61"));
        assert!(!begins_hex_text(b"9f2c4b7a1e8d3056c1a9e4f7b2d80635"));
    }
}
