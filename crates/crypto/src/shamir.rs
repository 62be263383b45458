//! A master key in shares: Shamir's scheme (Commun. ACM 22(11), 1979) over GF(2^8), by `vsss-rs`.
//!
//! Text form: `keymoat-share-1:<set, 4 hex digits>:<needed>:<index>:<base64url>:<CRC-32 of all before the
//! last colon, 8 hex digits>`. The set tells shares of different splits apart and the checksum finds copying
//! mistakes; neither proves that a holder is honest. Whether the right key came out is seen when it unwraps
//! a slot.

use std::collections::BTreeSet;
use std::fmt;

use rand_core::CryptoRng;
use vsss_rs::Gf256;
use zeroize::Zeroizing;

use crate::keys::{KEY_LEN, MasterKey};
use crate::locked::Locked;
use crate::random::{self, OsGenerator};
use crate::sensitive::SecretBytes;
use crate::text::{checksum_of, from_base64url, to_base64url, trim};

/// One share of a master key; says nothing about the key by itself. It lies in locked memory, since shares may have to
/// wait for one another.
pub struct Share {
    set: u16,
    needed: u8,
    index: u8,
    body: Locked,
}

/// Why shares could not be made, read or combined; never holds any of their content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The numbers asked for make no sense.
    #[error(
        "cannot split into {count} shares of which {needed} are needed; at least 2, and at most {MAX_SHARES}"
    )]
    Numbers {
        /// Shares needed.
        needed: u8,
        /// Shares made.
        count: u8,
    },
    /// The text does not begin like a share.
    #[error("this is not a share: it does not begin with `keymoat-share-1:`")]
    Foreign,
    /// The text is not of a share's shape.
    #[error("the share is cut short or has characters that do not belong in it; copy the whole line again")]
    Malformed,
    /// The checksum does not fit.
    #[error("the share's checksum does not fit; one of its characters was mistyped")]
    Checksum,
    /// There are too few.
    #[error("{given} of {needed} shares given; {} more needed", needed - given)]
    TooFew {
        /// Different shares given.
        given: usize,
        /// Shares needed.
        needed: usize,
    },
    /// They are from different splits.
    #[error("the shares are of different sets ({first:04x} and {other:04x}); use shares of one split only")]
    MixedSets {
        /// The first share's set.
        first: u16,
        /// The other set.
        other: u16,
    },
    /// The same share twice.
    #[error("share {0} was given twice")]
    Duplicate(u8),
    /// They contradict one another.
    #[error("the shares contradict one another; one of them was altered or belongs to another split")]
    Inconsistent,
}

impl MasterKey {
    /// Splits the key into `count` shares of which any `needed` give it back (2 ≤ needed ≤ count ≤ 255).
    ///
    /// # Errors
    /// [`ShareError::Numbers`].
    pub fn split(&self, needed: u8, count: u8) -> Result<Vec<Share>, ShareError> {
        self.split_with(needed, count, u16::from_be_bytes(random::bytes()), OsGenerator)
    }

    /// Combines shares; more than needed are checked against one another.
    ///
    /// # Errors
    /// [`ShareError`] when they are too few, mixed, doubled or contradictory.
    pub fn combine(shares: &[Share]) -> Result<Self, ShareError> {
        let first = shares.first().ok_or(ShareError::TooFew { given: 0, needed: usize::from(MIN_NEEDED) })?;
        let mut seen = BTreeSet::new();
        for share in shares {
            if share.set != first.set {
                return Err(ShareError::MixedSets { first: first.set, other: share.set });
            }
            if share.needed != first.needed {
                return Err(ShareError::Inconsistent);
            }
            if !seen.insert(share.index) {
                return Err(ShareError::Duplicate(share.index));
            }
        }
        let needed = usize::from(first.needed);
        let enough = shares.get(..needed).ok_or(ShareError::TooFew { given: shares.len(), needed })?;
        let key = interpolate(enough)?;
        // A share that is off the polynomial bends it: then all together give another key.
        if shares.len() > needed && *interpolate(shares)? != *key {
            return Err(ShareError::Inconsistent);
        }
        Ok(Self::from_bytes(&key))
    }

    pub(crate) fn split_with(
        &self,
        needed: u8,
        count: u8,
        set: u16,
        generator: impl CryptoRng,
    ) -> Result<Vec<Share>, ShareError> {
        let numbers = ShareError::Numbers { needed, count };
        if needed < MIN_NEEDED || count < needed {
            return Err(numbers);
        }
        // EXPOSE: each share is a secret itself.
        let points = self
            .expose(|key| Gf256::split_bytes(usize::from(needed), usize::from(count), key, generator))
            .map_err(|_| numbers)?;
        Ok(points.into_iter().map(|point| Share::from_point(set, needed, &Zeroizing::new(point))).collect())
    }
}

impl Share {
    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`ShareError::Foreign`], [`ShareError::Malformed`] and [`ShareError::Checksum`].
    pub fn parse(text: &SecretBytes) -> Result<Self, ShareError> {
        // EXPOSE: the share is read out of its text.
        text.expose(|text| parse(trim(text)))
    }

    /// Writes the text form.
    pub fn to_text(&self) -> SecretBytes {
        // EXPOSE: the text is a secret again.
        let body = self.body.expose(|bytes| to_base64url(bytes));
        let mut text = Vec::with_capacity(MAX_TEXT_LEN);
        text.extend_from_slice(
            format!("{PREFIX}{:04x}:{}:{}:", self.set, self.needed, self.index).as_bytes(),
        );
        text.extend_from_slice(body.as_bytes());
        let checksum = checksum_of(&text);
        text.extend_from_slice(format!(":{checksum:08x}").as_bytes());
        SecretBytes::new(text)
    }

    /// The number of the split that it belongs to.
    pub fn set(&self) -> u16 {
        self.set
    }

    /// How many shares of its set are needed.
    pub fn needed(&self) -> u8 {
        self.needed
    }

    /// Which share of its set it is, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    fn from_point(set: u16, needed: u8, point: &[u8]) -> Self {
        let body = Locked::init(|bytes| bytes.copy_from_slice(&point[1..]));
        Self { set, needed, index: point[0], body }
    }

    /// The point in the form of `vsss-rs`: index, then one byte per byte of the key.
    fn to_point(&self) -> Vec<u8> {
        let mut point = Vec::with_capacity(1 + KEY_LEN);
        point.push(self.index);
        // EXPOSE: whoever combines shares erases the points.
        self.body.expose(|bytes| point.extend_from_slice(bytes));
        point
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({:04x}, {} of {} needed, [redacted])", self.set, self.index, self.needed)
    }
}

fn interpolate(shares: &[Share]) -> Result<Zeroizing<[u8; KEY_LEN]>, ShareError> {
    let points: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(shares.iter().map(Share::to_point).collect());
    let combined =
        Gf256::combine_bytes(points.as_slice()).map(Zeroizing::new).map_err(|_| ShareError::Inconsistent)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    key.copy_from_slice(&combined);
    Ok(key)
}

fn parse(text: &[u8]) -> Result<Share, ShareError> {
    let text = std::str::from_utf8(text).map_err(|_| ShareError::Foreign)?;
    let rest = text.strip_prefix(PREFIX).ok_or(ShareError::Foreign)?;
    let (before, checksum) = text.rsplit_once(':').ok_or(ShareError::Malformed)?;
    let fields: Vec<&str> = rest.split(':').collect();
    let [set, needed, index, body, _] = fields[..] else { return Err(ShareError::Malformed) };
    if !checksum.eq_ignore_ascii_case(&format!("{:08x}", checksum_of(before.as_bytes()))) {
        // A text of the right length that differs was mistyped; any other was cut or glued.
        let whole = checksum.len() == CHECKSUM_LEN && body.len() == BODY_LEN;
        return Err(if whole { ShareError::Checksum } else { ShareError::Malformed });
    }
    let set = fixed_hex(set).ok_or(ShareError::Malformed)?;
    let needed = decimal(needed).filter(|n| *n >= MIN_NEEDED).ok_or(ShareError::Malformed)?;
    let index = decimal(index).filter(|n| *n >= 1).ok_or(ShareError::Malformed)?;
    let body: Zeroizing<[u8; KEY_LEN]> = from_base64url(body.as_bytes()).ok_or(ShareError::Malformed)?;
    Ok(Share { set, needed, index, body: Locked::copy_of(&body) })
}

fn fixed_hex(text: &str) -> Option<u16> {
    let bytes = crate::text::from_hex(text)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// A number in its only spelling: no sign, no leading zero.
fn decimal(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

const PREFIX: &str = "keymoat-share-1:";
/// One share that suffices would be a copy of the key.
const MIN_NEEDED: u8 = 2;
/// GF(2^8) has 255 points beside zero.
const MAX_SHARES: u8 = 255;
const BODY_LEN: usize = 43;
const CHECKSUM_LEN: usize = 8;
const MAX_TEXT_LEN: usize = PREFIX.len() + 4 + 1 + 3 + 1 + 3 + 1 + BODY_LEN + 1 + CHECKSUM_LEN;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_core::{TryCryptoRng, TryRng};
    use std::convert::Infallible;

    /// A generator whose words are 1, 2, 3, …: for the known answer only.
    pub(crate) struct Counting(pub(crate) u32);

    impl TryRng for Counting {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            self.0 = self.0.wrapping_add(1);
            Ok(self.0)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            self.try_next_u32().map(u64::from)
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            for byte in out {
                *byte = self.try_next_u32()? as u8;
            }
            Ok(())
        }
    }

    impl TryCryptoRng for Counting {}

    fn copy(shares: &[Share], indices: &[usize]) -> Vec<Share> {
        indices.iter().map(|i| Share::parse(&shares[*i].to_text()).unwrap()).collect()
    }

    fn change(share: &mut Share, how: impl FnOnce(&mut [u8; KEY_LEN])) {
        let mut body = share.body.expose(|body| *body);
        how(&mut body);
        share.body = Locked::copy_of(&body);
    }

    fn same(a: &MasterKey, b: &MasterKey) -> bool {
        a.expose(|a| b.expose(|b| a == b))
    }

    #[test]
    fn any_three_of_five_give_the_key_back() {
        let key = MasterKey::generate();
        let shares = key.split(3, 5).unwrap();
        assert_eq!(shares.iter().map(Share::index).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        for a in 0..5 {
            for b in 0..5 {
                for c in 0..5 {
                    if a != b && b != c && a != c {
                        assert!(same(&key, &MasterKey::combine(&copy(&shares, &[a, b, c])).unwrap()));
                    }
                }
            }
        }
        for more in [&[0, 1, 2, 3][..], &[4, 2, 0, 1, 3]] {
            assert!(same(&key, &MasterKey::combine(&copy(&shares, more)).unwrap()));
        }
    }

    #[test]
    fn extreme_numbers() {
        let key = MasterKey::generate();
        for (needed, count) in [(2, 2), (2, 255), (255, 255)] {
            let shares = key.split(needed, count).unwrap();
            assert_eq!(shares.len(), usize::from(count));
            let enough = copy(&shares, &(0..usize::from(needed)).collect::<Vec<_>>());
            assert!(same(&key, &MasterKey::combine(&enough).unwrap()));
        }
        for (needed, count) in [(0, 0), (0, 5), (1, 1), (1, 5), (3, 2)] {
            assert_eq!(key.split(needed, count).unwrap_err(), ShareError::Numbers { needed, count });
        }
    }

    #[test]
    fn too_few_say_nothing_and_are_refused() {
        let key = MasterKey::generate();
        let shares = key.split(3, 5).unwrap();
        assert_eq!(MasterKey::combine(&[]).unwrap_err(), ShareError::TooFew { given: 0, needed: 2 });
        for given in [&[0][..], &[0, 4]] {
            let error = MasterKey::combine(&copy(&shares, given)).unwrap_err();
            assert_eq!(error, ShareError::TooFew { given: given.len(), needed: 3 });
        }
        // Two of three shares fit every key: whatever the third share's byte, some key has it, each exactly
        // one.
        let mut keys = BTreeSet::new();
        for byte in 0..=255 {
            let mut three = copy(&shares, &[0, 1, 2]);
            change(&mut three[2], |body| body[0] = byte);
            MasterKey::combine(&three).unwrap().expose(|key| keys.insert(key[0]));
        }
        assert_eq!(keys.len(), 256);
    }

    #[test]
    fn a_single_share_is_uniform_whatever_the_key() {
        for key in [MasterKey::from_bytes(&[0; 32]), MasterKey::from_bytes(&[0xff; 32])] {
            let mut seen = [[0u32; 256]; 3];
            for _ in 0..SPLITS {
                for (share, seen) in key.split(2, 3).unwrap().iter().zip(&mut seen) {
                    share.body.expose(|body| body.iter().for_each(|byte| seen[usize::from(*byte)] += 1));
                }
            }
            for counts in seen {
                let expected = f64::from(SPLITS * 32) / 256.0;
                let chi: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
                // 255 degrees of freedom: mean 255, standard deviation 22.6; 400 is beyond one in 10^8.
                assert!(chi < 400.0, "chi-squared {chi}");
            }
        }
    }

    #[test]
    fn wrong_shares_are_named() {
        let key = MasterKey::generate();
        let a = key.split_with(2, 3, 0x0001, OsGenerator).unwrap();
        let b = key.split_with(2, 3, 0x0002, OsGenerator).unwrap();
        let glued = [copy(&a, &[0]), copy(&b, &[1])].concat_shares();
        assert_eq!(MasterKey::combine(&glued).unwrap_err(), ShareError::MixedSets { first: 1, other: 2 });
        assert_eq!(MasterKey::combine(&copy(&a, &[1, 1])).unwrap_err(), ShareError::Duplicate(2));
        let same_set = key.split_with(3, 3, 0x0001, OsGenerator).unwrap();
        let glued = [copy(&a, &[0]), copy(&same_set, &[1, 2])].concat_shares();
        assert_eq!(MasterKey::combine(&glued).unwrap_err(), ShareError::Inconsistent);
        let mut bent = copy(&a, &[0, 1, 2]);
        change(&mut bent[2], |body| body[31] ^= 1);
        assert_eq!(MasterKey::combine(&bent).unwrap_err(), ShareError::Inconsistent);
    }

    trait ConcatShares {
        fn concat_shares(self) -> Vec<Share>;
    }

    impl<const N: usize> ConcatShares for [Vec<Share>; N] {
        fn concat_shares(self) -> Vec<Share> {
            self.into_iter().flatten().collect()
        }
    }

    /// Which entry of a table was used can be told from the cache (CVE-2023-25000). No test sees from outside whether
    /// there is a table, so what works with the bytes of shares was read, and another version has to be read first.
    #[test]
    fn what_computes_with_shares_was_read_and_has_no_tables() {
        let (lock, manifest) = (include_str!("../../../Cargo.lock"), include_str!("../Cargo.toml"));
        for (name, version, what, checksum) in [
            (
                "vsss-rs",
                "6.0.1",
                "`gf256_mul` and `Gf256::combine_bytes`",
                "d6bfc736cfd88115aedb95ba84bc2d428fe351e92a56f69fce090af301402d91",
            ),
            (
                "base64ct",
                "1.8.3",
                "`Alphabet::decode_6bits` and `encode_6bits`",
                "2af50177e190e07a26ab74f8b1efbfe2ef87da2116221318cb1c2e82baf7de06",
            ),
        ] {
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            let is_read = lock.split("[[package]]").any(|p| p.contains(&entry) && p.contains(checksum));
            assert!(is_read, "another {name} is used: look in its {what} for tables, then name it here");
        }
        assert!(!manifest.contains("crc32fast"), "it looks up bytes of keys; use `text::checksum_of`");
    }

    #[test]
    fn a_damaged_text_is_refused() {
        let share = Share { set: 0xbeef, needed: 3, index: 12, body: Locked::copy_of(&[7; 32]) };
        let text = share.to_text().expose(|text| String::from_utf8(text.clone()).unwrap());
        assert!(text.starts_with("keymoat-share-1:beef:3:12:BwcH"), "{text}");
        assert_eq!(format!("{share:?}"), "Share(beef, 12 of 3 needed, [redacted])");
        let back = Share::parse(&SecretBytes::from_slice(format!(" {text}\n").as_bytes())).unwrap();
        assert_eq!((back.set(), back.needed(), back.index()), (0xbeef, 3, 12));
        assert!(back.body.expose(|body| *body == [7; 32]));
        for position in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[position] = if altered[position] == b'4' { b'5' } else { b'4' };
            assert!(Share::parse(&SecretBytes::new(altered)).is_err(), "{position}");
            assert!(Share::parse(&SecretBytes::from_slice(&text.as_bytes()[..position])).is_err());
        }
        let rows = [
            ("", ShareError::Foreign),
            ("keymoat-master-key-1:x", ShareError::Foreign),
            ("keymoat-share-1:", ShareError::Malformed),
            (&text.replace("BwcH", "BwcQ"), ShareError::Checksum),
            (&text[..text.len() - 1], ShareError::Malformed),
            (&text.replace(":12:", ":1:2:"), ShareError::Malformed),
        ];
        for (text, expected) in rows {
            assert_eq!(
                Share::parse(&SecretBytes::from_slice(text.as_bytes())).unwrap_err(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_right_checksum_does_not_excuse_wrong_numbers() {
        let body = to_base64url(&[7; 32]);
        let rows = [
            ("beef:0:1", false),
            ("beef:1:1", false),
            ("beef:2:0", false),
            ("beef:2:01", false),
            ("beef:+2:1", false),
            ("beef:256:1", false),
            ("BEEF:2:1", false),
            ("bee:2:1", false),
            ("beeff:2:1", false),
            ("beef:2:1", true),
        ];
        for (numbers, fine) in rows {
            let before = format!("{PREFIX}{numbers}:{}", body.as_str());
            let text = format!("{before}:{:08x}", checksum_of(before.as_bytes()));
            assert_eq!(Share::parse(&SecretBytes::from_slice(text.as_bytes())).is_ok(), fine, "{numbers}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..120), text in ".{0,60}") {
            prop_assert!(Share::parse(&SecretBytes::from_slice(&noise)).is_err());
            let like = [PREFIX.as_bytes(), text.as_bytes()].concat();
            prop_assert!(Share::parse(&SecretBytes::new(like)).is_err());
        }
    }

    /// With three shares of 32 bytes each, 64,000 bytes per share.
    const SPLITS: u32 = 2000;
}
