//! One type per role of a key, so that none is used in another's place.
//!
//! Each lives in locked memory, prints as `[redacted]` and is zeroed when dropped. Where a key comes from and
//! what it wraps is in `master` and `wrap`; this module makes them and derives from the instance key.

use std::fmt;

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::canonical::length_prefix;
use crate::fingerprint::{FingerprintKey, StateKey};
use crate::kdf::hkdf_sha256;
use crate::locked::Locked;
use crate::random;
use crate::signing::{AssertionSigner, AuditSigner};

/// The length of every symmetric key, in bytes.
pub const KEY_LEN: usize = 32;

/// The key that wraps the root key; kept outside the data directory.
pub struct MasterKey(Locked);

/// The key that wraps the instance key, the data keys and the peppers. Nothing is derived from it, so it can be
/// replaced by wrapping these anew.
pub struct RootKey(Locked);

/// The key that an instance derives its own from: fingerprints, signatures, commitments, backups. It stays the same
/// for the life of the instance.
pub struct InstanceKey(Locked);

/// The key of one environment and company; deleting it shreds their values.
pub struct DataKey {
    id: u32,
    key: Locked,
}

/// The key of token digests, numbered so that it can be rotated.
pub struct Pepper {
    id: u32,
    key: Locked,
    mac: hmac::Key,
}

/// A derived key for authenticating the instance's own bytes, such as list cursors and compiled policies.
pub struct MacKey(hmac::Key);

impl MasterKey {
    /// Makes a new key.
    pub fn generate() -> Self {
        Self(Locked::init(|slot| random::fill(slot)))
    }

    pub(crate) fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(Locked::copy_of(bytes))
    }

    pub(crate) fn expose<R>(&self, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> R {
        // EXPOSE: within this crate only, for the derivations and wrappings beside it.
        self.0.expose(f)
    }
}

impl RootKey {
    /// Makes a new key.
    pub fn generate() -> Self {
        Self(Locked::init(|slot| random::fill(slot)))
    }

    pub(crate) fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(Locked::copy_of(bytes))
    }

    pub(crate) fn expose<R>(&self, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> R {
        // EXPOSE: within this crate only, for the wrappings beside it.
        self.0.expose(f)
    }
}

impl InstanceKey {
    /// Makes a new key.
    pub fn generate() -> Self {
        Self(Locked::init(|slot| random::fill(slot)))
    }

    /// Derives the key of fingerprints of stored values.
    pub fn fingerprint_key(&self) -> FingerprintKey {
        /// HKDF label.
        const LABEL: &str = "keymoat/v1/fingerprint";
        FingerprintKey::new(&self.derive(LABEL, &[]))
    }

    /// Derives the key of the digest over the live state.
    pub fn state_key(&self) -> StateKey {
        /// HKDF label.
        const LABEL: &str = "keymoat/v1/state";
        StateKey::new(&self.derive(LABEL, &[]))
    }

    /// Derives the signing key of checkpoints; a new generation is a new key.
    pub fn audit_signer(&self, generation: u32) -> AuditSigner {
        /// HKDF label; the generation follows, big-endian.
        const LABEL: &str = "keymoat/v1/audit-signer";
        AuditSigner::from_seed(&self.derive(LABEL, &generation.to_be_bytes()))
    }

    /// Derives the key that authenticates list cursors given to clients.
    pub fn cursor_key(&self) -> MacKey {
        /// HKDF label.
        const LABEL: &str = "keymoat/v1/cursor";
        MacKey::new(&self.derive(LABEL, &[]))
    }

    /// Derives the key that authenticates stored policies.
    pub fn policy_key(&self) -> MacKey {
        /// HKDF label.
        const LABEL: &str = "keymoat/v1/policy";
        MacKey::new(&self.derive(LABEL, &[]))
    }

    /// Derives the key of the salted commitments that stand for personal data in audit events.
    pub fn personal_data_key(&self) -> MacKey {
        /// HKDF label.
        const LABEL: &str = "keymoat/v1/personal-data";
        MacKey::new(&self.derive(LABEL, &[]))
    }

    /// Derives the signing key of statements about issued keys.
    pub fn assertion_signer(&self) -> AssertionSigner {
        /// HKDF label.
        const LABEL: &str = "keymoat/v1/assertion";
        AssertionSigner::from_seed(&self.derive(LABEL, &[]))
    }

    /// Derives 32 bytes for `label`, with `context` after it; labels are never a prefix of one another.
    pub(crate) fn derive(&self, label: &str, context: &[u8]) -> Zeroizing<[u8; KEY_LEN]> {
        let mut out = Zeroizing::new([0; KEY_LEN]);
        // EXPOSE: only the derived key leaves.
        self.0.expose(|key| hkdf_sha256(key, &[], &[label.as_bytes(), context], out.as_mut_slice()));
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(Locked::copy_of(bytes))
    }

    pub(crate) fn expose<R>(&self, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> R {
        // EXPOSE: within this crate only, for the derivations and wrappings beside it.
        self.0.expose(f)
    }
}

impl DataKey {
    /// Makes a new key with this number, which is unique in its instance.
    pub fn generate(id: u32) -> Self {
        Self { id, key: Locked::init(|slot| random::fill(slot)) }
    }

    /// The number, which stands in every ciphertext under this key.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn from_bytes(id: u32, bytes: &[u8; KEY_LEN]) -> Self {
        Self { id, key: Locked::copy_of(bytes) }
    }

    pub(crate) fn expose<R>(&self, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> R {
        // EXPOSE: within this crate only, to seal and open.
        self.key.expose(f)
    }
}

impl Pepper {
    /// Makes a new pepper with this number, which is unique among its purpose's.
    pub fn generate(id: u32) -> Self {
        Self::with(id, Locked::init(|slot| random::fill(slot)))
    }

    /// The number, which stands beside every digest under this pepper.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn from_bytes(id: u32, bytes: &[u8; KEY_LEN]) -> Self {
        Self::with(id, Locked::copy_of(bytes))
    }

    fn with(id: u32, key: Locked) -> Self {
        // The keyed state is kept: setting it up costs as much as a digest, and each request needs one.
        // EXPOSE: the keyed state takes its place.
        let mac = key.expose(|bytes| hmac::Key::new(hmac::HMAC_SHA256, bytes));
        Self { id, key, mac }
    }

    /// HMAC-SHA-256 of `message`.
    pub(crate) fn mac(&self, message: &[u8]) -> [u8; 32] {
        tag(hmac::sign(&self.mac, message))
    }

    pub(crate) fn expose<R>(&self, f: impl FnOnce(&[u8; KEY_LEN]) -> R) -> R {
        // EXPOSE: within this crate only, to be wrapped.
        self.key.expose(f)
    }
}

impl MacKey {
    fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// HMAC-SHA-256 of the parts, each preceded by its length.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        mac_parts(&self.0, &[], parts)
    }

    /// Whether `presented` is the tag of the parts, compared in constant time.
    pub fn verify(&self, parts: &[&[u8]], presented: &[u8]) -> bool {
        self.tag(parts).as_slice().ct_eq(presented).into()
    }
}

/// HMAC-SHA-256 of `domain` and the parts, each part preceded by its length (u32, big-endian).
pub(crate) fn mac_parts(key: &hmac::Key, domain: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    context.update(domain);
    for part in parts {
        context.update(&length_prefix(part));
        context.update(part);
    }
    tag(context.sign())
}

fn tag(tag: hmac::Tag) -> [u8; 32] {
    tag.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey([redacted])")
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceKey([redacted])")
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, [redacted])", self.id)
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper({}, [redacted])", self.id)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key() {
        let instance = InstanceKey::from_bytes(&[0xab; KEY_LEN]);
        let texts = [
            format!("{:?}", MasterKey::from_bytes(&[0xab; KEY_LEN])),
            format!("{:?}", RootKey::from_bytes(&[0xab; KEY_LEN])),
            format!("{instance:?}"),
            format!("{:?}", DataKey::from_bytes(7, &[0xab; KEY_LEN])),
            format!("{:?}", Pepper::from_bytes(7, &[0xab; KEY_LEN])),
            format!("{:?}", instance.fingerprint_key()),
            format!("{:?}", instance.state_key()),
            format!("{:?}", instance.cursor_key()),
            format!("{:?}", instance.audit_signer(1)),
        ];
        for text in texts {
            assert!(text.ends_with("[redacted])"), "{text}");
            assert!(!text.contains("ab") && !text.contains("171"), "{text}");
        }
    }

    #[test]
    fn derived_keys_all_differ() {
        let instance = InstanceKey::generate();
        let parts: &[&[u8]] = &[b"x"];
        let tags = [
            instance.cursor_key().tag(parts),
            instance.policy_key().tag(parts),
            instance.personal_data_key().tag(parts),
            InstanceKey::generate().cursor_key().tag(parts),
            instance.audit_signer(1).verifying_key().bytes(),
            instance.audit_signer(2).verifying_key().bytes(),
            instance.assertion_signer().public_key(),
        ];
        let different: std::collections::BTreeSet<_> = tags.iter().collect();
        assert_eq!(different.len(), tags.len());
        assert_eq!(instance.cursor_key().tag(parts), instance.cursor_key().tag(parts));
    }

    #[test]
    fn mac_keys_verify_what_they_tagged() {
        let key = InstanceKey::generate().cursor_key();
        let tag = key.tag(&[b"ab", b"c"]);
        assert!(key.verify(&[b"ab", b"c"], &tag));
        for parts in [&[b"a".as_slice(), b"bc"][..], &[b"abc"], &[b"ab", b"c", b""], &[]] {
            assert!(!key.verify(parts, &tag));
        }
        assert!(!key.verify(&[b"ab", b"c"], &tag[..31]));
        assert!(!key.verify(&[b"ab", b"c"], &[]));
    }

    #[test]
    fn generated_keys_differ() {
        assert!(MasterKey::generate().expose(|a| MasterKey::generate().expose(|b| a != b)));
        assert!(InstanceKey::generate().expose(|a| InstanceKey::generate().expose(|b| a != b)));
        assert!(RootKey::generate().expose(|a| RootKey::generate().expose(|b| a != b)));
        assert!(DataKey::generate(1).expose(|a| DataKey::generate(1).expose(|b| a != b)));
        assert_ne!(Pepper::generate(1).mac(b""), Pepper::generate(1).mac(b""));
    }
}
