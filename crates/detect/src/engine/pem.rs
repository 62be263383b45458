//! Private keys in PEM form (RFC 7468, OpenSSH, OpenPGP): told from text that only looks so by what is in them, and
//! encrypted ones from those that anybody can use.

use std::ops::Range;

use super::rule::Generic;
use super::{Engine, Hit, MAX_VALUE};
use crate::identify::Certainty;

/// The private key that begins at `-----BEGIN `.
pub(super) fn find(engine: &Engine, text: &[u8], begin: Range<usize>) -> Option<Hit> {
    let rest = &text[begin.start..text.len().min(begin.start + MAX_VALUE)];
    let label = &rest[BEGIN.len()..rest.len().min(BEGIN.len() + MAX_LABEL)];
    let label = &label[..find_in(label, b"-----")?];
    find_in(label, b"PRIVATE KEY")?;
    let body_at = BEGIN.len() + label.len() + DASHES;
    // Whatever the next dashes say, the body ends there: a text full of beginnings is read once.
    let dashes = find_in(&rest[body_at..], b"-----").map(|at| body_at + at);
    let end = dashes.filter(|&at| rest[at..].starts_with(b"-----END "));
    let body = &rest[body_at..dashes.unwrap_or(rest.len())];
    let key = Body::read(body);
    let len = match end {
        Some(end) => {
            let line = &rest[end + DASHES..];
            find_in(line, b"-----").map_or(end, |at| end + DASHES + at + DASHES)
        }
        None => body_at + key.read,
    };
    let is_encrypted = find_in(label, b"ENCRYPTED").is_some()
        || find_in(body, b"ENCRYPTED").is_some()
        || key.is_encrypted_openssh();
    let generic = if is_encrypted { Generic::EncryptedPrivateKey } else { Generic::PrivateKey };
    let certainty = if key.is_parsed() { Certainty::Checksum } else { Certainty::Shape };
    (key.characters >= MIN_BODY && key.kinds >= MIN_KINDS)
        .then(|| Hit::plain(engine.rules.generic(generic), begin.start..begin.start + len, certainty))
}

/// What is between the lines of a block.
struct Body {
    /// The first bytes, decoded.
    head: Vec<u8>,
    /// Base64 characters in it, and how many different ones.
    characters: usize,
    kinds: usize,
    /// Bytes of text up to the last of them.
    read: usize,
}

impl Body {
    /// Reads base64 through line ends, `\n` written out, quotes, `+` between quotes and header lines.
    fn read(text: &[u8]) -> Self {
        let mut body = Self { head: vec![], characters: 0, kinds: 0, read: 0 };
        let mut seen = 0_u128;
        let mut encoded = Vec::with_capacity(HEAD_CHARACTERS);
        let mut line_at = 0;
        for line in split_lines(text) {
            let place = line_at..line_at + line.len();
            line_at = place.end + 1;
            // `Proc-Type: 4,ENCRYPTED` and the like.
            if find_in(line, b": ").is_some() {
                continue;
            }
            let mut at = 0;
            while at < line.len() {
                let byte = line[at];
                if byte == b'\\' {
                    at += 2;
                    continue;
                }
                if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+' | b'=') {
                    if encoded.len() < HEAD_CHARACTERS && byte != b'=' {
                        encoded.push(byte);
                    }
                    seen |= 1 << (byte & 127);
                    body.characters += 1;
                    body.read = place.start + at + 1;
                }
                at += 1;
            }
        }
        body.kinds = seen.count_ones() as usize;
        body.head = crate::base64::decode(&encoded[..encoded.len() / 4 * 4]).unwrap_or_default();
        body
    }

    /// Whether the head is that of a key: `SEQUENCE { INTEGER 0 or 1, …` (PKCS #1, PKCS #8, SEC 1), `SEQUENCE {
    /// SEQUENCE …` (an encrypted one), or OpenSSH's.
    fn is_parsed(&self) -> bool {
        let der = match self.head.as_slice() {
            [0x30, len, rest @ ..] if *len < 0x80 => rest,
            [0x30, 0x81, _, rest @ ..] | [0x30, 0x82, _, _, rest @ ..] => rest,
            head => return head.starts_with(OPENSSH),
        };
        matches!(der, [0x02, 0x01, 0x00 | 0x01, ..] | [0x30, ..])
    }

    /// OpenSSH names the cipher behind its magic: `none` where there is no passphrase
    /// (<https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key>).
    fn is_encrypted_openssh(&self) -> bool {
        self.head.strip_prefix(OPENSSH).is_some_and(|rest| !rest.starts_with(b"\0\0\0\x04none"))
    }
}

fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

fn find_in(text: &[u8], piece: &[u8]) -> Option<usize> {
    text.windows(piece.len()).position(|part| part == piece)
}

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: usize = 5;
const OPENSSH: &[u8] = b"openssh-key-v1\0";

/// The longest label is `ENCRYPTED PRIVATE KEY`.
const MAX_LABEL: usize = 64;

/// The shortest private key, Ed25519 in PKCS #8, has 64 characters.
const MIN_BODY: usize = 60;

/// Of base64 characters; `AAAA…` has one.
const MIN_KINDS: usize = 20;

/// Enough for the head of any format.
const HEAD_CHARACTERS: usize = 64;
