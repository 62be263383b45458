//! Suite 1: how a value is encrypted under a data key, and the construction that wrapping shares.
//!
//! Layout: suite `0x01` (1) | key number, big-endian (4) | salt (32) | commitment (32) | AES-256-GCM
//! ciphertext and tag. HKDF-SHA-256 (RFC 5869) over the key, the salt and `label ‖ AAD` gives 32 bytes of
//! AEAD key and 32 of commitment. The AEAD key is used once, so the nonce is zero; the place is bound by the
//! derivation, so the AEAD itself has no additional data. The commitment is compared in constant time before
//! anything is decrypted: a ciphertext has one key and one place. The plaintext is preceded by its length
//! (u32, big-endian) and padded with zeroes to a multiple of 64 bytes.
//!
//! It does not hide the length beyond that padding, nor notice that an older ciphertext of the same place
//! was put back; `StateDigest` does.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::canonical::Canonical;
use crate::kdf::hkdf_sha256;
use crate::keys::{DataKey, KEY_LEN};
use crate::random;
use crate::sensitive::SecretBytes;

/// Where a value belongs; a ciphertext opens in this place and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The instance that stores it.
    pub instance: Uuid,
    /// The environment.
    pub environment: &'a str,
    /// The company, if the secret belongs to one.
    pub company: Option<&'a str>,
    /// The secret's id, which a rename does not change.
    pub secret: Uuid,
    /// The secret's path; a rename encrypts anew.
    pub path: &'a str,
    /// The version.
    pub version: u32,
    /// The number of the data key; the same as that of the key given beside it.
    pub data_key: u32,
}

/// Why a ciphertext was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is shorter than any ciphertext.
    #[error("the ciphertext is cut short")]
    Truncated,
    /// Its first byte names no suite that this version knows.
    #[error("the ciphertext has suite {0}, which this version does not know; a newer version wrote it")]
    UnknownSuite(u8),
    /// It was made under another data key than the one given.
    #[error("the ciphertext is under data key {found}, not {expected}")]
    OtherKey {
        /// The number in the ciphertext.
        found: u32,
        /// The number of the key given.
        expected: u32,
    },
    /// The key is not the right one, the place is not the right one, or a byte was changed.
    #[error("the ciphertext does not belong to this key and place, or it was altered")]
    Refused,
}

/// Encrypts a value for its place, under a key derived for this one ciphertext.
///
/// # Panics
/// If `place.data_key` is not the number of `key`: the result could never be opened.
pub fn seal(key: &DataKey, place: &Place<'_>, plaintext: &SecretBytes) -> Vec<u8> {
    seal_with_salt(key, place, plaintext, &random::bytes())
}

/// Decrypts a value in its place.
///
/// # Errors
/// [`OpenError`]; which of key, place and bytes is wrong is not told apart.
pub fn open(key: &DataKey, place: &Place<'_>, ciphertext: &[u8]) -> Result<SecretBytes, OpenError> {
    let aad = place.canonical();
    let purpose = Purpose { label: SECRET_LABEL, number: key.id(), aad: &aad };
    if place.data_key != key.id() {
        return Err(OpenError::OtherKey { found: place.data_key, expected: key.id() });
    }
    // EXPOSE: the key opens one ciphertext; the plaintext is a secret again.
    key.expose(|bytes| open_as(bytes, &purpose, ciphertext))
}

/// Reads from a ciphertext the number of the data key that it is under.
///
/// # Errors
/// [`OpenError::Truncated`] and [`OpenError::UnknownSuite`].
pub fn data_key_of(ciphertext: &[u8]) -> Result<u32, OpenError> {
    Parts::split(ciphertext).map(|parts| parts.number)
}

/// As [`seal`], with a salt that is given; for test vectors only, since a salt used twice for one place is a
/// key used twice.
///
/// # Panics
/// As [`seal`].
#[doc(hidden)]
pub fn seal_with_salt(key: &DataKey, place: &Place<'_>, plaintext: &SecretBytes, salt: &[u8; 32]) -> Vec<u8> {
    assert_eq!(place.data_key, key.id(), "a place names the data key it is sealed under");
    let aad = place.canonical();
    let purpose = Purpose { label: SECRET_LABEL, number: key.id(), aad: &aad };
    // EXPOSE: encrypting is the purpose of the call.
    plaintext.expose(|plaintext| key.expose(|key| seal_as(key, &purpose, salt, plaintext)))
}

impl Place<'_> {
    /// The canonical form: named, each field preceded by its length.
    fn canonical(&self) -> Vec<u8> {
        Canonical::new("keymoat/place/1")
            .field(self.instance.as_bytes())
            .field(self.environment.as_bytes())
            .option(self.company)
            .field(self.secret.as_bytes())
            .field(self.path.as_bytes())
            .number(self.version)
            .number(self.data_key)
            .finish()
    }
}

/// What a ciphertext is for: the label and the context bind it, the number says which key to look for.
pub(crate) struct Purpose<'a> {
    pub(crate) label: &'static str,
    pub(crate) number: u32,
    pub(crate) aad: &'a [u8],
}

/// Encrypts under a key derived from `key`, `salt` and `purpose`.
pub(crate) fn seal_as(
    key: &[u8; KEY_LEN],
    purpose: &Purpose<'_>,
    salt: &[u8; 32],
    plaintext: &[u8],
) -> Vec<u8> {
    let derived = Derived::new(key, purpose, salt);
    let padded_len = (LENGTH_LEN + plaintext.len()).next_multiple_of(PADDING);
    // The whole length at once: a growing buffer would leave plaintext behind.
    let mut out = Vec::with_capacity(HEADER_LEN + padded_len + TAG_LEN);
    out.push(SUITE_1);
    out.extend_from_slice(&purpose.number.to_be_bytes());
    out.extend_from_slice(salt);
    out.extend_from_slice(derived.commitment());
    out.extend_from_slice(&crate::canonical::length_prefix(plaintext));
    out.extend_from_slice(plaintext);
    out.resize(HEADER_LEN + padded_len, 0);
    let tag = derived
        .aead()
        .seal_in_place_separate_tag(zero_nonce(), Aad::empty(), &mut out[HEADER_LEN..])
        .expect("a plaintext is far below the 64 GiB that AES-GCM takes");
    out.extend_from_slice(tag.as_ref());
    out
}

/// Decrypts what [`seal_as`] made, for the same purpose only.
pub(crate) fn open_as(
    key: &[u8; KEY_LEN],
    purpose: &Purpose<'_>,
    ciphertext: &[u8],
) -> Result<SecretBytes, OpenError> {
    let parts = Parts::split(ciphertext)?;
    if parts.number != purpose.number {
        return Err(OpenError::OtherKey { found: parts.number, expected: purpose.number });
    }
    let derived = Derived::new(key, purpose, parts.salt);
    if !bool::from(derived.commitment().ct_eq(parts.commitment)) {
        return Err(OpenError::Refused);
    }
    let mut buffer = Zeroizing::new(parts.body.to_vec());
    let padded_len = derived
        .aead()
        .open_in_place(zero_nonce(), Aad::empty(), &mut buffer)
        .map_err(|_| OpenError::Refused)?
        .len();
    unpad(&buffer[..padded_len]).map(SecretBytes::from_slice).ok_or(OpenError::Refused)
}

fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let (length, rest) = padded.split_first_chunk::<LENGTH_LEN>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (plaintext, padding) = rest.split_at_checked(length)?;
    let canonical = padded.len() == (LENGTH_LEN + length).next_multiple_of(PADDING);
    (canonical && padding.iter().all(|b| *b == 0)).then_some(plaintext)
}

/// The AEAD key and the commitment of one ciphertext.
struct Derived(Zeroizing<[u8; 64]>);

impl Derived {
    fn new(key: &[u8; KEY_LEN], purpose: &Purpose<'_>, salt: &[u8; 32]) -> Self {
        let mut okm = Zeroizing::new([0u8; 64]);
        hkdf_sha256(key, salt, &[purpose.label.as_bytes(), purpose.aad], okm.as_mut_slice());
        Self(okm)
    }

    fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0[..KEY_LEN]).expect("AES-256 takes 32 bytes"))
    }

    fn commitment(&self) -> &[u8] {
        &self.0[KEY_LEN..]
    }
}

struct Parts<'a> {
    number: u32,
    salt: &'a [u8; 32],
    commitment: &'a [u8; 32],
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(ciphertext: &'a [u8]) -> Result<Self, OpenError> {
        let (suite, rest) = ciphertext.split_first().ok_or(OpenError::Truncated)?;
        if *suite != SUITE_1 {
            return Err(OpenError::UnknownSuite(*suite));
        }
        let (number, rest) = rest.split_first_chunk().ok_or(OpenError::Truncated)?;
        let (salt, rest) = rest.split_first_chunk().ok_or(OpenError::Truncated)?;
        let (commitment, body) = rest.split_first_chunk().ok_or(OpenError::Truncated)?;
        if body.len() < PADDING + TAG_LEN {
            return Err(OpenError::Truncated);
        }
        Ok(Self { number: u32::from_be_bytes(*number), salt, commitment, body })
    }
}

/// The key is used for one message, so the nonce may be constant.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

const SECRET_LABEL: &str = "keymoat/v1/secret";
/// AES-256-GCM under an HKDF-SHA-256 one-time key with commitment.
pub(crate) const SUITE_1: u8 = 1;
const HEADER_LEN: usize = 1 + 4 + 32 + 32;
const LENGTH_LEN: usize = 4;
/// Hides the exact length of passwords and keys, at the cost of half a cache line on average.
const PADDING: usize = 64;
pub(crate) const TAG_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INSTANCE: Uuid = Uuid::from_bytes([1; 16]);

    fn place(data_key: u32) -> Place<'static> {
        Place {
            instance: INSTANCE,
            environment: "prod",
            company: Some("acme"),
            secret: Uuid::from_bytes([2; 16]),
            path: "stripe",
            version: 3,
            data_key,
        }
    }

    fn secret(bytes: &[u8]) -> SecretBytes {
        SecretBytes::from_slice(bytes)
    }

    fn refused(key: &DataKey, place: &Place<'_>, ciphertext: &[u8]) -> OpenError {
        open(key, place, ciphertext).expect_err("must not open")
    }

    #[test]
    fn the_length_shows_in_steps_of_64_only() {
        let key = DataKey::generate(7);
        for (plain, expected) in
            [(0, 64), (1, 64), (60, 64), (61, 128), (124, 128), (125, 192), (100_000, 100_032)]
        {
            let sealed = seal(&key, &place(7), &secret(&vec![b'x'; plain]));
            assert_eq!(sealed.len(), HEADER_LEN + expected + TAG_LEN, "{plain}");
            assert_eq!(data_key_of(&sealed), Ok(7));
            assert!(open(&key, &place(7), &sealed).unwrap().ct_eq(&secret(&vec![b'x'; plain])));
        }
    }

    #[test]
    fn any_flipped_bit_refuses() {
        let key = DataKey::generate(7);
        let sealed = seal(&key, &place(7), &secret(b"sk_test_made_up"));
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let error = refused(&key, &place(7), &altered);
            match bit / 8 {
                0 => assert_eq!(error, OpenError::UnknownSuite(altered[0])),
                1..5 => assert!(matches!(error, OpenError::OtherKey { expected: 7, .. })),
                _ => assert_eq!(error, OpenError::Refused),
            }
        }
    }

    #[test]
    fn any_cut_or_extension_refuses() {
        let key = DataKey::generate(7);
        let sealed = seal(&key, &place(7), &secret(&[9; 200]));
        for len in 0..sealed.len() {
            let error = refused(&key, &place(7), &sealed[..len]);
            let shortest = HEADER_LEN + PADDING + TAG_LEN;
            assert_eq!(
                error,
                if len < shortest { OpenError::Truncated } else { OpenError::Refused },
                "{len}"
            );
        }
        assert_eq!(refused(&key, &place(7), &[&sealed[..], &[0]].concat()), OpenError::Refused);
    }

    #[test]
    fn any_other_place_refuses() {
        let key = DataKey::generate(7);
        let here = place(7);
        let sealed = seal(&key, &here, &secret(b"made up"));
        let elsewhere = [
            Place { instance: Uuid::from_bytes([9; 16]), ..here },
            Place { environment: "proc", ..here },
            Place { environment: "pro", company: Some("dacme"), ..here },
            Place { company: Some("acm"), ..here },
            Place { company: Some(""), ..here },
            Place { company: None, ..here },
            Place { secret: Uuid::nil(), ..here },
            Place { path: "stripe2", ..here },
            Place { path: "", ..here },
            Place { version: 2, ..here },
            Place { version: u32::MAX, ..here },
        ];
        for other in elsewhere {
            assert_eq!(refused(&key, &other, &sealed), OpenError::Refused, "{other:?}");
        }
        assert_eq!(refused(&key, &place(8), &sealed), OpenError::OtherKey { found: 8, expected: 7 });
        assert_eq!(refused(&DataKey::generate(7), &here, &sealed), OpenError::Refused);
        let other_number = OpenError::OtherKey { found: 7, expected: 8 };
        assert_eq!(refused(&DataKey::generate(8), &place(8), &sealed), other_number);
    }

    #[test]
    fn no_two_of_200_rows_can_be_swapped() {
        let keys = [DataKey::generate(1), DataKey::generate(2)];
        let paths: Vec<String> = (0..200).map(|i| format!("path/{}", i / 4)).collect();
        let rows: Vec<(usize, Place<'_>)> = (0..200u32)
            .map(|i| {
                let which = (i % 2) as usize;
                let row = Place { path: &paths[i as usize], version: i / 2 % 2, ..place(keys[which].id()) };
                (which, Place { secret: Uuid::from_u128(u128::from(i / 4)), ..row })
            })
            .collect();
        let sealed: Vec<Vec<u8>> =
            rows.iter().map(|(k, p)| seal(&keys[*k], p, &secret(b"same value"))).collect();
        let mut opened = 0;
        for (i, (which, place)) in rows.iter().enumerate() {
            for (j, ciphertext) in sealed.iter().enumerate() {
                let opens = open(&keys[*which], place, ciphertext).is_ok();
                assert_eq!(opens, i == j, "row {i} with the ciphertext of row {j}");
                opened += usize::from(opens);
            }
        }
        assert_eq!(opened, 200);
        println!("FIGURE swaps: 0 of {} ciphertexts opened at another place", 200 * 199);
    }

    #[test]
    fn two_seals_of_the_same_share_nothing() {
        let key = DataKey::generate(7);
        let [a, b] = [(); 2].map(|()| seal(&key, &place(7), &secret(b"same")));
        assert_ne!(a[5..37], b[5..37]);
        assert_ne!(a[37..69], b[37..69]);
        assert_ne!(a[69..], b[69..]);
    }

    #[test]
    #[should_panic(expected = "names the data key")]
    fn a_place_of_another_key_is_a_mistake_in_the_program() {
        seal(&DataKey::generate(7), &place(8), &secret(b""));
    }

    #[test]
    fn padding_has_one_form() {
        let rows: [(&[u8], Option<&[u8]>); 5] = [
            (b"", None),
            (&[0; 64], Some(b"")),
            (&[0; 128], None),
            (&[&[0, 0, 0, 61][..], &[0; 60]].concat(), None),
            (&[&[0, 0, 0, 1, b'x', 1][..], &[0; 58]].concat(), None),
        ];
        for (padded, expected) in rows {
            assert_eq!(unpad(padded), expected);
        }
        let mut huge = [0u8; 64];
        huge[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(unpad(&huge), None);
    }

    proptest! {
        #[test]
        fn round_trips(plain in proptest::collection::vec(any::<u8>(), 0..400), path in ".{0,20}",
                       environment in ".{0,8}", company in proptest::option::of(".{0,8}"),
                       version: u32, id: u32) {
            let key = DataKey::generate(id);
            let place = Place { path: &path, environment: &environment, company: company.as_deref(), version,
                                ..place(id) };
            let sealed = seal(&key, &place, &secret(&plain));
            prop_assert!(open(&key, &place, &sealed).unwrap().ct_eq(&secret(&plain)));
        }

        #[test]
        fn noise_never_opens_or_panics(mut noise in proptest::collection::vec(any::<u8>(), 0..300),
                                       like: bool) {
            if like && noise.len() > 5 {
                noise[..5].copy_from_slice(&[1, 0, 0, 0, 7]);
            }
            let _ = data_key_of(&noise);
            prop_assert!(open(&DataKey::generate(7), &place(7), &noise).is_err());
        }
    }
}
