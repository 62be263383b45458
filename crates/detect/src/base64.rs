//! Base64 in either alphabet, as keys carry it.

/// The bytes of base64 in either alphabet (RFC 4648 §4 and §5), padding left out or not.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let body = text.iter().rposition(|&byte| byte != b'=').map_or(0, |at| at + 1);
    let body = &text[..body];
    if body.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(body.len() / 4 * 3 + 3);
    for chunk in body.chunks(4) {
        let mut number = 0_u32;
        for (at, &byte) in chunk.iter().enumerate() {
            number |= u32::from(sextet(byte)?) << (18 - 6 * at);
        }
        let [_, a, b, c] = number.to_be_bytes();
        bytes.extend_from_slice(&[a, b, c][..chunk.len() - 1]);
    }
    Some(bytes)
}

/// Appends base64 (RFC 4648 §4), padded.
pub(crate) fn encode(bytes: &[u8], text: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let number = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = ALPHABET[(number >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { letter } else { b'=' });
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            let mut text = Vec::new();
            encode(bytes.as_bytes(), &mut text);
            assert_eq!(text, expected.as_bytes());
            assert_eq!(decode(&text).unwrap_or_default(), bytes.as_bytes());
        }
    }

    #[test]
    fn base64_of_either_alphabet() {
        let check = |text: &str, expected: Option<&[u8]>| {
            assert_eq!(decode(text.as_bytes()).as_deref(), expected, "{text}")
        };
        check("a2V5", Some(b"key"));
        check("a2V5cw==", Some(b"keys"));
        check("a2V5cw", Some(b"keys"));
        check("-_-_", Some(&[0xfb, 0xff, 0xbf]));
        check("+/+/", Some(&[0xfb, 0xff, 0xbf]));
        check("a", None);
        check("a2V!", None);
    }
}
