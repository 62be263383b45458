//! Keyed digests: fingerprints of values, and the digest over the live state.
//!
//! A fingerprint finds a stored value in text and duplicates among values; it is keyed by the instance, so
//! that a stolen store cannot be used to test guesses. The state digest is MSet-Add-Hash (Clarke, Devadas,
//! van Dijk, Gassend, Suh, "Incremental Multiset Hash Functions", ASIACRYPT 2003) over HMAC-SHA-256: rows
//! are added and removed in any order, and old rows put back give another digest. What a row consists of is
//! the caller's.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use crate::keys::{KEY_LEN, mac_parts};
use crate::sensitive::SecretBytes;
use crate::text::{from_hex, to_hex};

/// The key of fingerprints.
pub struct FingerprintKey(hmac::Key);

/// The fingerprint of a value: 128 bits, the same for the same provider and value in one instance only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fingerprint([u8; 16]);

/// The text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 32 lower-case hexadecimal digits")]
pub struct FingerprintError;

/// The key of the digest over the live state.
pub struct StateKey(hmac::Key);

/// The running digest of a multiset of rows: a sum modulo 2^256 and a count.
///
/// Whoever can both read sums over time and make about 2^32 rows of his choice could look for another
/// multiset of the same sum (Wagner, CRYPTO 2002), so a checkpoint carries [`StateKey::commit`] and never
/// the sum itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateDigest {
    /// The sum of the rows, least significant limb first.
    pub sum: [u64; 4],
    /// How many rows there are.
    pub count: u64,
}

/// The length of a [`StateDigest`] as bytes.
pub const STATE_DIGEST_LEN: usize = 40;
/// The length of a hidden [`StateDigest`].
pub const HIDDEN_DIGEST_LEN: usize = HIDING_SALT_LEN + STATE_DIGEST_LEN;
const HIDING_SALT_LEN: usize = 16;

impl FingerprintKey {
    /// HMAC-SHA-256 of provider and value, each preceded by its length, cut to 128 bits.
    pub fn of(&self, provider: &str, value: &SecretBytes) -> Fingerprint {
        // EXPOSE: a keyed digest of it is made.
        value.expose(|value| self.of_candidate(provider, value))
    }

    /// As [`FingerprintKey::of`], for a piece of a text being searched, which is not known to be a secret
    /// yet.
    pub fn of_candidate(&self, provider: &str, candidate: &[u8]) -> Fingerprint {
        let mac = mac_parts(&self.0, &[], &[provider.as_bytes(), candidate]);
        Fingerprint(*mac.first_chunk().expect("16 is less than 32"))
    }

    pub(crate) fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

impl Fingerprint {
    /// Takes the bytes of a stored fingerprint.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for storing.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl StateKey {
    /// The hash of one row: HMAC-SHA-256 of its parts, each preceded by its length.
    pub fn row(&self, parts: &[&[u8]]) -> [u8; 32] {
        mac_parts(&self.0, &[ROW], parts)
    }

    /// The value that a checkpoint carries: HMAC-SHA-256 of the digest's 40 bytes.
    pub fn commit(&self, digest: &StateDigest) -> [u8; 32] {
        mac_parts(&self.0, &[COMMITMENT], &[&digest.to_bytes()])
    }

    pub(crate) fn new(bytes: &[u8; KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

impl StateKey {
    /// A digest as it may stand where others read: whoever collects sums in the clear could look for another set of
    /// rows with the same one. It hides and does not authenticate; a signed [`StateKey::commit`] does that.
    pub fn hide(&self, digest: &StateDigest) -> [u8; HIDDEN_DIGEST_LEN] {
        let salt: [u8; HIDING_SALT_LEN] = crate::bytes();
        let mut hidden = [0; HIDDEN_DIGEST_LEN];
        hidden[..HIDING_SALT_LEN].copy_from_slice(&salt);
        let pad = self.pad(&salt);
        for ((to, byte), pad) in hidden[HIDING_SALT_LEN..].iter_mut().zip(digest.to_bytes()).zip(pad) {
            *to = byte ^ pad;
        }
        hidden
    }

    /// Reads what [`StateKey::hide`] wrote; `None` when it has another length.
    pub fn unhide(&self, hidden: &[u8]) -> Option<StateDigest> {
        let hidden: &[u8; HIDDEN_DIGEST_LEN] = hidden.try_into().ok()?;
        let (salt, rest) = hidden.split_first_chunk::<HIDING_SALT_LEN>()?;
        let mut bytes = [0; STATE_DIGEST_LEN];
        for ((to, byte), pad) in bytes.iter_mut().zip(rest).zip(self.pad(salt)) {
            *to = byte ^ pad;
        }
        Some(StateDigest::from_bytes(&bytes))
    }

    /// HMAC-SHA-256 as a pseudo-random function in counter mode (NIST SP 800-108), under a salt that is used once.
    fn pad(&self, salt: &[u8; HIDING_SALT_LEN]) -> impl Iterator<Item = u8> + use<> {
        [1, 2].map(|counter| mac_parts(&self.0, &[PAD], &[salt, &[counter]])).into_iter().flatten()
    }
}

impl StateDigest {
    /// Adds a row by its hash.
    pub fn add(&mut self, row: [u8; 32]) {
        let mut carry = false;
        for (limb, other) in self.sum.iter_mut().zip(limbs(&row)) {
            let (partial, first) = limb.overflowing_add(other);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            (*limb, carry) = (total, first | second);
        }
        self.count = self.count.wrapping_add(1);
    }

    /// Removes a row by its hash; removing one that was never added gives a digest that fits no state.
    pub fn remove(&mut self, row: [u8; 32]) {
        let mut borrow = false;
        for (limb, other) in self.sum.iter_mut().zip(limbs(&row)) {
            let (partial, first) = limb.overflowing_sub(other);
            let (total, second) = partial.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (total, first | second);
        }
        self.count = self.count.wrapping_sub(1);
    }

    /// The stored form: the count, big-endian, and the sum as a 256-bit number, big-endian.
    pub fn to_bytes(&self) -> [u8; STATE_DIGEST_LEN] {
        let mut out = [0; STATE_DIGEST_LEN];
        let words = std::iter::once(self.count).chain(self.sum.iter().rev().copied());
        for (chunk, word) in out.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        out
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8; STATE_DIGEST_LEN]) -> Self {
        let [count, s3, s2, s1, s0] = std::array::from_fn(|i| word(bytes, i));
        Self { sum: [s0, s1, s2, s3], count }
    }
}

/// A row's hash as a 256-bit big-endian number, least significant limb first.
fn limbs(row: &[u8; 32]) -> [u64; 4] {
    std::array::from_fn(|i| word(row, 3 - i))
}

fn word(bytes: &[u8], index: usize) -> u64 {
    bytes[index * 8..index * 8 + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let bytes = from_hex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(FingerprintError)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey([redacted])")
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey([redacted])")
    }
}

/// First bytes of the two messages, which keep them apart (H_K(1, row) and H_K(0, …) in the paper).
const ROW: u8 = 1;
const COMMITMENT: u8 = 0;
/// The first byte of the messages that hide a digest.
const PAD: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> (FingerprintKey, StateKey) {
        (FingerprintKey::new(&[1; KEY_LEN]), StateKey::new(&[2; KEY_LEN]))
    }

    fn digest_of(rows: &[[u8; 32]]) -> StateDigest {
        let mut digest = StateDigest::default();
        rows.iter().for_each(|row| digest.add(*row));
        digest
    }

    #[test]
    fn fingerprints_are_keyed_and_unambiguous() {
        let (key, _) = keys();
        let of = |provider: &str, value: &str| key.of(provider, &SecretBytes::from_slice(value.as_bytes()));
        let base = of("stripe", "sk_test_made_up");
        assert_eq!(base, of("stripe", "sk_test_made_up"));
        assert_eq!(base, key.of_candidate("stripe", b"sk_test_made_up"));
        assert_ne!(base, of("strip", "esk_test_made_up"));
        assert_ne!(base, of("", "sk_test_made_up"));
        assert_ne!(base, FingerprintKey::new(&[9; KEY_LEN]).of_candidate("stripe", b"sk_test_made_up"));
    }

    #[test]
    fn fingerprints_have_one_text() {
        let fingerprint = Fingerprint::from_bytes([0xab; 16]);
        assert_eq!(fingerprint.to_string(), "ab".repeat(16));
        assert_eq!("ab".repeat(16).parse(), Ok(fingerprint));
        assert_eq!(serde_json::to_string(&fingerprint).unwrap(), format!("\"{fingerprint}\""));
        assert_eq!(serde_json::from_str::<Fingerprint>(&format!("\"{fingerprint}\"")).unwrap(), fingerprint);
        for bad in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"zz".repeat(16)] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError));
        }
    }

    #[test]
    fn sums_carry_and_borrow() {
        let ones = [0xff; 32];
        let mut one = [0; 32];
        one[31] = 1;
        let mut digest = digest_of(&[ones, one]);
        assert_eq!(digest, StateDigest { sum: [0; 4], count: 2 });
        digest.remove(one);
        assert_eq!(digest, StateDigest { sum: [u64::MAX; 4], count: 1 });
        digest.remove(ones);
        assert_eq!(digest, StateDigest::default());
        let mut carried = digest_of(&[one]);
        carried.sum[0] = u64::MAX;
        carried.add(one);
        assert_eq!(carried.sum, [0, 1, 0, 0]);
    }

    #[test]
    fn rows_and_commitments_are_apart() {
        let (_, key) = keys();
        assert_ne!(key.row(&[b"ab", b"c"]), key.row(&[b"a", b"bc"]));
        assert_ne!(key.row(&[b"a"]), key.row(&[b"a", b""]));
        let digest = digest_of(&[key.row(&[b"a"])]);
        assert_ne!(key.commit(&digest), key.row(&[&digest.to_bytes()]));
        assert_ne!(key.commit(&digest), key.commit(&StateDigest { count: 2, ..digest }));
        assert_ne!(key.commit(&digest), StateKey::new(&[9; KEY_LEN]).commit(&digest));
    }

    #[test]
    fn a_hidden_digest_is_found_again_and_never_the_same() {
        let (_, key) = keys();
        let digest = digest_of(&[key.row(&[b"a"]), key.row(&[b"b"])]);
        let (one, other) = (key.hide(&digest), key.hide(&digest));
        assert_ne!(one, other);
        assert_eq!((key.unhide(&one), key.unhide(&other)), (Some(digest), Some(digest)));
        assert!(!one.windows(8).any(|window| digest.to_bytes().windows(8).any(|known| known == window)));
        assert_ne!(StateKey::new(&[9; KEY_LEN]).unhide(&one), Some(digest));
        assert_eq!(key.unhide(&one[1..]), None);
    }

    #[test]
    fn the_same_row_twice_is_not_no_row() {
        let (_, key) = keys();
        let row = key.row(&[b"label", b"current"]);
        assert_ne!(key.commit(&digest_of(&[row, row])), key.commit(&StateDigest::default()));
        assert_ne!(key.commit(&digest_of(&[row, row])), key.commit(&digest_of(&[row])));
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter(rows in proptest::collection::vec(any::<[u8; 32]>(), 0..20),
                                     shuffled_by in any::<u64>()) {
            let mut other = rows.clone();
            other.sort_by_key(|row| u64::from(row[0]).wrapping_mul(shuffled_by | 1).rotate_left(17));
            prop_assert_eq!(digest_of(&rows), digest_of(&other));
        }

        #[test]
        fn what_was_added_can_be_removed(kept in proptest::collection::vec(any::<[u8; 32]>(), 0..10),
                                         gone in proptest::collection::vec(any::<[u8; 32]>(), 0..10)) {
            let mut digest = digest_of(&[gone.clone(), kept.clone()].concat());
            gone.iter().for_each(|row| digest.remove(*row));
            prop_assert_eq!(digest, digest_of(&kept));
        }

        #[test]
        fn bytes_round_trip(sum: [u64; 4], count: u64) {
            let digest = StateDigest { sum, count };
            prop_assert_eq!(StateDigest::from_bytes(&digest.to_bytes()), digest);
        }
    }
}
