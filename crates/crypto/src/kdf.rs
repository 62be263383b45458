//! HKDF-SHA-256 (RFC 5869): the one way in which a key becomes another key.
//!
//! It does not stretch passphrases; `argon` does.

use aws_lc_rs::hkdf;

/// Fills `out` with HKDF-SHA-256 of `ikm`, `salt` and the concatenated `info`, which the caller has made
/// unambiguous; `out` is at most 8,160 bytes, as RFC 5869 allows.
pub(crate) fn hkdf_sha256(ikm: &[u8], salt: &[u8], info: &[&[u8]], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("every caller asks for at most 64 bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{from_hex, to_hex};

    /// RFC 5869, appendix A.1 and A.3.
    #[test]
    fn agrees_with_rfc_5869() {
        let rows = [
            (
                "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
                "000102030405060708090a0b0c",
                "f0f1f2f3f4f5f6f7f8f9",
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
                "",
                "",
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ];
        for (ikm, salt, info, expected) in rows {
            let (ikm, salt, info) =
                (from_hex(ikm).unwrap(), from_hex(salt).unwrap(), from_hex(info).unwrap());
            let mut out = [0u8; 42];
            hkdf_sha256(&ikm, &salt, &[&info], &mut out);
            assert_eq!(to_hex(&out), expected);
        }
    }
}
