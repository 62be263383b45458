//! Text forms of bytes shared by this crate's formats: hexadecimal, base64url without padding, and their checksum.
//!
//! Key bytes pass through base64, done by `base64ct`, and through the checksum. Neither looks anything up in a table,
//! since which entry was used can be told from the cache.

use base64ct::{Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

/// Writes lower-case hexadecimal; for values that are not secret.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]).map(char::from).collect()
}

/// Reads lower-case hexadecimal; `None` for anything else.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| HEX.iter().position(|h| *h == c).and_then(|p| u8::try_from(p).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Writes base64url without padding (RFC 4648 §5) into memory that is zeroed when dropped.
pub(crate) fn to_base64url(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(Base64UrlUnpadded::encode_string(bytes))
}

/// Reads exactly `N` bytes of canonical base64url without padding; `None` for anything else.
pub(crate) fn from_base64url<const N: usize>(text: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0u8; N]);
    let decoded = Base64UrlUnpadded::decode(text, out.as_mut_slice()).ok()?.len();
    (decoded == N).then_some(out)
}

/// CRC-32 (ISO 3309), which finds copying mistakes in texts that hold keys.
pub(crate) fn checksum_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let all_or_none = (crc & 1).wrapping_neg();
            crc >> 1 ^ CRC32_REVERSED & all_or_none
        })
    })
}

/// Trims the white space that files, environment variables and copying leave around a text.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

const HEX: &[u8; 16] = b"0123456789abcdef";
const CRC32_REVERSED: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses() {
        assert_eq!(from_hex(&to_hex(&[0, 1, 0xab, 0xff])), Some(vec![0, 1, 0xab, 0xff]));
        for bad in ["0", "0g", "AB", "zz", " 0", "é"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn checksums() {
        for (text, expected) in [
            ("", 0),
            ("a", 0xe8b7_be43),
            ("123456789", 0xcbf4_3926),
            ("The quick brown fox jumps over the lazy dog", 0x414f_a339),
        ] {
            assert_eq!(checksum_of(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn base64url_wants_the_exact_length() {
        assert_eq!(from_base64url::<3>(b"AQID").as_deref(), Some(&[1, 2, 3]));
        for bad in ["", "AQI", "AQIDBA", "AQ==", "A/ID", "AQJ"] {
            assert!(from_base64url::<3>(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
