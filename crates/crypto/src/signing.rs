//! Ed25519 (RFC 8032) for checkpoints of the audit log, with the key ids of C2SP signed notes, and for statements about
//! issued keys.
//!
//! It signs bytes; what they say and how they are laid out is decided elsewhere.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::keys::KEY_LEN;

/// Signs checkpoints; derived from the instance key, never stored.
pub struct AuditSigner(Ed25519KeyPair);

/// Signs statements about issued keys; derived from the instance key, never stored.
pub struct AssertionSigner(Ed25519KeyPair);

/// Verifies checkpoints; what an auditor keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuditVerifyingKey([u8; 32]);

/// The text is not a verifier key of a signed note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an Ed25519 verifier key of the form `name+keyid+base64`, or its key id does not fit")]
pub struct SignatureError;

impl AuditSigner {
    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The key that verifies this one's signatures.
    pub fn verifying_key(&self) -> AuditVerifyingKey {
        AuditVerifyingKey(
            self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"),
        )
    }

    pub(crate) fn from_seed(seed: &[u8; KEY_LEN]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are an Ed25519 seed"))
    }
}

impl AssertionSigner {
    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The key that verifies this one's signatures.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    pub(crate) fn from_seed(seed: &[u8; KEY_LEN]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are an Ed25519 seed"))
    }
}

impl AuditVerifyingKey {
    /// Takes the bytes of a public key; a value that is no point verifies nothing.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the public key.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// The key id in signed notes under this name: the first four bytes, big-endian, of
    /// SHA-256(name ‖ `"\n"` ‖ `0x01` ‖ public key) (C2SP signed-note).
    pub fn key_id(&self, name: &str) -> u32 {
        let message = [name.as_bytes(), b"\n", &[ED25519_TYPE], &self.0].concat();
        let hash = digest(&SHA256, &message);
        u32::from_be_bytes(*hash.as_ref().first_chunk().expect("SHA-256 gives 32 bytes"))
    }

    /// The verifier key of signed notes: `name+<key id, 8 hex digits>+<base64 of 0x01 ‖ public key>`.
    pub fn to_verifier(&self, name: &str) -> String {
        use base64ct::{Base64, Encoding};
        let body = Base64::encode_string(&[&[ED25519_TYPE][..], &self.0].concat());
        format!("{name}+{:08x}+{body}", self.key_id(name))
    }

    /// Reads a verifier key; gives its name too.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn from_verifier(text: &str) -> Result<(String, Self), SignatureError> {
        use base64ct::{Base64, Encoding};
        let mut parts = text.trim_ascii().splitn(3, '+');
        let (Some(name), Some(id), Some(body)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SignatureError);
        };
        let body = Base64::decode_vec(body).map_err(|_| SignatureError)?;
        let (ED25519_TYPE, key) = body.split_first().map(|(t, k)| (*t, k)).ok_or(SignatureError)? else {
            return Err(SignatureError);
        };
        let key = Self(key.try_into().map_err(|_| SignatureError)?);
        if name.is_empty() || format!("{:08x}", key.key_id(name)) != id {
            return Err(SignatureError);
        }
        Ok((name.to_owned(), key))
    }
}

impl fmt::Debug for AssertionSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssertionSigner([redacted])")
    }
}

impl fmt::Debug for AuditSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditSigner([redacted])")
    }
}

/// The signature type of Ed25519 in C2SP signed-note.
const ED25519_TYPE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{from_hex, to_hex};

    /// RFC 8032 §7.1, tests 1 and 2.
    #[test]
    fn agrees_with_rfc_8032() {
        let rows = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
                 5fb8821590a33bacc61e39701cf9b46b\
                 d25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c\
                 387b2eaeb4302aeeb00d291612bb0c00",
            ),
        ];
        for (seed, public, message, signature) in rows {
            let seed = from_hex(seed).unwrap().try_into().unwrap();
            let signer = AuditSigner::from_seed(&seed);
            let message = from_hex(message).unwrap();
            assert_eq!(to_hex(&signer.verifying_key().bytes()), public);
            assert_eq!(to_hex(&signer.sign(&message)), signature);
            assert!(signer.verifying_key().verify(&message, &signer.sign(&message)));
        }
    }

    #[test]
    fn verifies_nothing_else() {
        let signer = AuditSigner::from_seed(&[1; 32]);
        let key = signer.verifying_key();
        let signature = signer.sign(b"checkpoint");
        assert!(!key.verify(b"checkpoin", &signature));
        assert!(!AuditSigner::from_seed(&[2; 32]).verifying_key().verify(b"checkpoint", &signature));
        assert!(!AuditVerifyingKey::from_bytes([0xff; 32]).verify(b"checkpoint", &signature));
        for bit in 0..512 {
            let mut altered = signature;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(b"checkpoint", &altered));
        }
    }

    /// The key of the Go checksum database, as its clients have it built in (golang.org/x/mod/sumdb).
    #[test]
    fn reads_and_writes_verifier_keys() {
        let golang = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        let (name, key) = AuditVerifyingKey::from_verifier(golang).unwrap();
        assert_eq!(name, "sum.golang.org");
        assert_eq!(key.key_id(&name), 0x033d_e0ae);
        assert_eq!(key.to_verifier(&name), golang);
        let bad = [
            "",
            "a+b",
            "sum.golang.org+033de0af+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.com+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
            "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuA==",
            "sum.golang.org+033de0ae+Ag4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        ];
        for text in bad {
            assert_eq!(AuditVerifyingKey::from_verifier(text), Err(SignatureError), "{text}");
        }
    }
}
