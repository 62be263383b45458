//! Checksums that a key carries in its own text, so that a mistyped or made-up one is known offline.
//!
//! Only error detection: a right checksum says nothing about whether the key is alive.

use serde::Deserialize;

use crate::base64;

/// The checksum in the last characters of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// The key carries none that is publicly known.
    #[default]
    None,
    /// Last six characters: CRC-32 of what lies between the prefix and them, as GitHub and npm do
    /// (<https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>).
    Crc32Base62,
    /// Last six characters: CRC-32 of everything before them, prefix included, as Keymoat does.
    Crc32Base62All,
    /// Behind the last `_`: CRC-32 of everything before it, as eight hexadecimal digits of the little-endian bytes, as
    /// Grafana does (<https://github.com/grafana/grafana/blob/main/pkg/components/satokengen/tokengen.go>).
    Crc32Hex,
    /// Where the value has a dot: last seven characters, CRC-32 of everything before them in base 36, as in GitLab's
    /// routable tokens (`lib/authn/token_field/generator/routable_token.rb` of
    /// <https://gitlab.com/gitlab-org/gitlab>); their shorter form has neither dot nor checksum.
    Crc32Base36,
    /// The structure of a JSON Web Token (RFC 7519): header and payload are JSON objects. That a header has `alg`, as
    /// RFC 7515 §4.1.1 wants it, is not asked for: what lacks it no service should take, yet who finds it wants to know.
    Jwt,
    /// The structure of a macaroon, version 2 (<https://github.com/rescrv/libmacaroons/blob/master/doc/format.txt>), as
    /// PyPI's tokens have it.
    Macaroon,
}

impl Checksum {
    /// Whether `value`, whose literal prefix is `prefix` bytes long, carries the right checksum;
    /// always true for a key that has none.
    pub fn holds(self, value: &[u8], prefix: usize) -> bool {
        let start = match self {
            Self::None => return true,
            Self::Crc32Base62 => prefix,
            Self::Crc32Base62All => 0,
            Self::Crc32Hex => return holds_hex(value),
            Self::Crc32Base36 => return holds_base36(value),
            Self::Jwt => return is_jwt(value),
            Self::Macaroon => return is_macaroon(value.get(prefix_of_macaroon(value)..).unwrap_or_default()),
        };
        let Some(end) = value.len().checked_sub(CHECKSUM_LEN) else { return false };
        match (value.get(start..end), value.get(end..)) {
            (Some(body), Some(check)) => check == crc32_base62(body),
            _ => false,
        }
    }

    /// Whether the checksum proves the shape, that is, whether every such value has one.
    pub fn proves(self) -> bool {
        !matches!(self, Self::None | Self::Crc32Base36)
    }

    /// Whether a wrong one disproves a value of the right shape; a structure that does not fit only says that it is
    /// something else.
    pub(crate) fn disproves(self) -> bool {
        matches!(self, Self::Crc32Base62 | Self::Crc32Base62All | Self::Crc32Hex | Self::Crc32Base36)
    }
}

fn holds_hex(value: &[u8]) -> bool {
    let Some(at) = value.iter().rposition(|&byte| byte == b'_') else { return false };
    let digits: String =
        crc32fast::hash(&value[..at]).to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    value[at + 1..].eq_ignore_ascii_case(digits.as_bytes())
}

fn holds_base36(value: &[u8]) -> bool {
    if !value.contains(&b'.') {
        return true;
    }
    let Some((body, check)) = value.split_last_chunk::<BASE36_LEN>() else { return false };
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; BASE36_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
        rest /= 36;
    }
    *check == digits
}

fn is_jwt(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b'.').map(base64::decode);
    let is_object = |part: &[u8]| part.starts_with(b"{") && part.trim_ascii_end().ends_with(b"}");
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(header), Some(payload)) => is_object(&header) && is_object(&payload),
        _ => false,
    }
}

/// `pypi-`.
fn prefix_of_macaroon(value: &[u8]) -> usize {
    value.iter().position(|&byte| byte == b'-').map_or(0, |at| at + 1)
}

/// Version 2, then fields: a kind, a length, that many bytes; the first names the location.
fn is_macaroon(value: &[u8]) -> bool {
    let Some(bytes) = base64::decode(value) else { return false };
    let [2, 1, len, rest @ ..] = bytes.as_slice() else { return false };
    let (location, rest) = rest.split_at(rest.len().min(usize::from(*len)));
    location.len() == usize::from(*len)
        && location.iter().all(u8::is_ascii_graphic)
        && rest.first() == Some(&2)
}

/// The CRC-32 (IEEE 802.3) of `data` as six base-62 digits, most significant first, padded with `0`;
/// the alphabet is `0-9A-Za-z` as in GitHub's tokens.
pub fn crc32_base62(data: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(data);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Six base-62 digits hold any 32-bit number: 62^6 > 2^32.
const CHECKSUM_LEN: usize = 6;

/// Seven base-36 digits hold any 32-bit number: 36^7 > 2^32.
const BASE36_LEN: usize = 7;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_are_those_of_the_reference() {
        // "123456789" is the check input of CRC-32/ISO-HDLC: 0xCBF43926; empty input gives 0.
        let check = |input: &[u8], expected: &[u8; 6]| assert_eq!(&crc32_base62(input), expected);
        check(b"", b"000000");
        check(b"123456789", b"3jZRME");
        // The pair that the base62-token documentation prints.
        check(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", b"0mLq17");
    }

    #[test]
    fn a_value_holds_or_not() {
        let github = b"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";
        let check = |checksum: Checksum, value: &[u8], prefix, expected| {
            assert_eq!(checksum.holds(value, prefix), expected, "{checksum:?}");
        };
        check(Checksum::Crc32Base62, github, 4, true);
        check(Checksum::Crc32Base62, github, 0, false);
        check(Checksum::Crc32Base62All, github, 4, false);
        check(Checksum::Crc32Base62, b"ghp_", 4, false);
        check(Checksum::Crc32Base62, b"", 4, false);
        check(Checksum::None, b"", 4, true);
        // The token of Grafana's own test.
        check(Checksum::Crc32Hex, b"glsa_yscW25imSKJIuav8zF37RZmnbiDvB05G_fcaaf58a", 5, true);
        check(Checksum::Crc32Hex, b"glsa_yscW25imSKJIuav8zF37RZmnbiDvB05H_fcaaf58a", 5, false);
        check(Checksum::Crc32Hex, b"glsa", 4, false);
        // CRC-32/ISO-HDLC of "123456789." is 0xDC129386.
        check(Checksum::Crc32Base36, b"123456789.1p28rk6", 0, true);
        check(Checksum::Crc32Base36, b"123456789.0000000", 0, false);
        check(Checksum::Crc32Base36, b"glpat-bzoxCnU6MU1hZGVVcDAwMDBLZXlUc3QQ.0w0ah7ls2", 6, true);
        check(Checksum::Crc32Base36, b"glpat-bzoxCnU6MU1hZGVVcDAwMDBLZXlUc3QQ.0w0ah7ls3", 6, false);
        check(Checksum::Crc32Base36, b"glpat-MadeUp0000KeymoatTst", 6, true);
        check(Checksum::Crc32Base36, b"1.2", 0, false);
        let jwt = b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJNYWRlVXAwMDAwIn0.MadeUpSignature0000";
        check(Checksum::Jwt, jwt, 3, true);
        check(Checksum::Jwt, &jwt[1..], 3, false);
        check(Checksum::Jwt, b"eyJhbGciOiJIUzI1NiJ9.bm9qc29u.MadeUpSignature0000", 3, false);
        check(Checksum::Jwt, b"", 0, false);
        check(Checksum::Macaroon, b"pypi-AgEIcHlwaS5vcmcCAWE", 5, true);
        check(Checksum::Macaroon, b"pypi-AgEIcHlwaS5vcmcAAWE", 5, false);
        check(Checksum::Macaroon, b"pypi-AgE", 5, false);
    }

    proptest! {
        #[test]
        fn one_changed_character_is_noticed(body in "[0-9A-Za-z]{1,60}", at in 0usize..60, to in "[0-9A-Za-z]") {
            let mut text = body.clone().into_bytes();
            text.extend(crc32_base62(body.as_bytes()));
            prop_assert!(Checksum::Crc32Base62All.holds(&text, 0));
            let at = at % body.len();
            let changed = text[at] != to.as_bytes()[0];
            text[at] = to.as_bytes()[0];
            prop_assert_eq!(Checksum::Crc32Base62All.holds(&text, 0), !changed);
        }
    }
}
