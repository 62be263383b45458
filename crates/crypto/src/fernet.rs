//! Decrypting Fernet tokens (the Fernet specification, version 0x80), for taking over values that another
//! program encrypted that way.
//!
//! Reads only: nothing is ever encrypted as Fernet here. The age of a token is not looked at, since what is
//! taken over is stored data.

use std::fmt;

use aws_lc_rs::cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use base64ct::{Base64Url, Encoding};
use zeroize::Zeroizing;

use crate::keys::KEY_LEN;
use crate::locked::Locked;
use crate::sensitive::SecretBytes;
use crate::text::trim;

/// A Fernet key: 16 bytes for signing, 16 for encryption.
pub struct FernetKey(Locked);

/// Why a Fernet key or token was refused; never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FernetError {
    /// The key is not 32 bytes of url-safe base64.
    #[error("this is not a Fernet key: it is not 32 bytes in url-safe base64 (44 characters)")]
    Key,
    /// The token is not of a token's shape.
    #[error("this is not a Fernet token: it does not have its shape")]
    Shape,
    /// The token is of a version that does not exist.
    #[error("the Fernet token has version {0:#04x}; only 0x80 exists")]
    Version(u8),
    /// The signature does not fit.
    #[error("the Fernet token does not belong to this key, or it was altered")]
    Refused,
}

impl FernetKey {
    /// Reads a key in url-safe base64 with padding; white space around it is ignored.
    ///
    /// # Errors
    /// [`FernetError::Key`].
    pub fn parse(text: &SecretBytes) -> Result<Self, FernetError> {
        // EXPOSE: the key is read out of its text.
        text.expose(|text| {
            let mut bytes = Zeroizing::new([0; KEY_LEN + 1]);
            match Base64Url::decode(trim(text), bytes.as_mut_slice()) {
                Ok(decoded) => {
                    decoded.try_into().map(|key| Self(Locked::copy_of(key))).map_err(|_| FernetError::Key)
                }
                Err(_) => Err(FernetError::Key),
            }
        })
    }

    /// Decrypts a token whatever its age; the signature is checked, in constant time, before anything is
    /// decrypted.
    ///
    /// # Errors
    /// [`FernetError`], except [`FernetError::Key`].
    pub fn decrypt(&self, token: &SecretBytes) -> Result<SecretBytes, FernetError> {
        // EXPOSE: the token is decoded; what it holds stays encrypted.
        let token = token.expose(|token| decode(trim(token)))?;
        let (signed, signature) =
            token.split_at_checked(token.len().saturating_sub(MAC_LEN)).ok_or(FernetError::Shape)?;
        let (version, rest) = signed.split_first().ok_or(FernetError::Shape)?;
        if *version != VERSION {
            return Err(FernetError::Version(*version));
        }
        let (_time, rest) = rest.split_first_chunk::<8>().ok_or(FernetError::Shape)?;
        let (iv, ciphertext) = rest.split_first_chunk::<16>().ok_or(FernetError::Shape)?;
        if ciphertext.is_empty() || ciphertext.len() % 16 != 0 {
            return Err(FernetError::Shape);
        }
        // EXPOSE: the key checks and decrypts one token; the plaintext is a secret again.
        self.0.expose(|key| {
            let (signing, encryption) = key.split_at(KEY_LEN / 2);
            hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, signing), signed, signature)
                .map_err(|_| FernetError::Refused)?;
            decrypt(encryption, iv, ciphertext).ok_or(FernetError::Refused)
        })
    }
}

fn decode(text: &[u8]) -> Result<Vec<u8>, FernetError> {
    let text = std::str::from_utf8(text).map_err(|_| FernetError::Shape)?;
    Base64Url::decode_vec(text).map_err(|_| FernetError::Shape)
}

/// AES-128-CBC with PKCS #7 padding.
fn decrypt(key: &[u8], iv: &[u8; 16], ciphertext: &[u8]) -> Option<SecretBytes> {
    let key = UnboundCipherKey::new(&AES_128, key).and_then(PaddedBlockDecryptingKey::cbc_pkcs7).ok()?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let plaintext = key.decrypt(&mut buffer, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?;
    Some(SecretBytes::from_slice(plaintext))
}

impl fmt::Debug for FernetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FernetKey([redacted])")
    }
}

const VERSION: u8 = 0x80;
const MAC_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::{field, read, secret};
    use proptest::prelude::*;

    /// Made by Python's `cryptography` (`testkit/vectors/make_fernet.py`).
    #[test]
    fn agrees_with_python() {
        let vectors = read("fernet");
        let good = vectors["good"].as_array().unwrap();
        for row in good {
            let key = FernetKey::parse(&secret(field(row, "key"))).unwrap();
            let plain = key.decrypt(&secret(field(row, "token"))).unwrap();
            let expected = SecretBytes::new(crate::text::from_hex(field(row, "plain_hex")).unwrap());
            assert!(plain.ct_eq(&expected), "{}", field(row, "about"));
        }
        let bad = vectors["bad"].as_array().unwrap();
        for row in bad {
            let key = FernetKey::parse(&secret(field(row, "key"))).unwrap();
            let error = key.decrypt(&secret(field(row, "token"))).unwrap_err();
            let kind = match error {
                FernetError::Key => "key",
                FernetError::Shape => "shape",
                FernetError::Version(_) => "version",
                FernetError::Refused => "refused",
            };
            assert_eq!(kind, field(row, "error"), "{}", field(row, "about"));
        }
        for row in vectors["bad_keys"].as_array().unwrap() {
            let key = FernetKey::parse(&secret(field(row, "key")));
            assert_eq!(key.unwrap_err(), FernetError::Key, "{}", field(row, "about"));
        }
        assert!(good.len() >= 8 && bad.len() >= 12);
    }

    #[test]
    fn any_flipped_bit_refuses() {
        let vectors = read("fernet");
        let row = &vectors["good"][0];
        let key = FernetKey::parse(&secret(field(row, "key"))).unwrap();
        let token = Base64Url::decode_vec(field(row, "token")).unwrap();
        for bit in 0..token.len() * 8 {
            let mut altered = token.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(key.decrypt(&secret(&Base64Url::encode_string(&altered))).is_err());
        }
    }

    proptest! {
        #[test]
        fn noise_never_opens_or_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = FernetKey(Locked::copy_of(&[1; KEY_LEN]));
            prop_assert!(key.decrypt(&SecretBytes::from_slice(&noise)).is_err());
            let encoded = Base64Url::encode_string(&[&[VERSION][..], &noise].concat());
            prop_assert!(key.decrypt(&secret(&encoded)).is_err());
            let _ = FernetKey::parse(&SecretBytes::from_slice(&noise));
        }
    }
}
