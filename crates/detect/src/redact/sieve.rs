//! A sieve for stored values: says of nearly every piece of a text, in a few nanoseconds, that it is none of them, so
//! that only few are asked for where the values are.
//!
//! It holds no values and no fingerprints, but two tables of bits under a key that is drawn for each sieve: one bit for
//! the first eight bytes of a value, one for its two ends and its length. Whoever has it and its key learns of a guess
//! that it is wrong, or that it might be right; so the tables are kept so full that one wrong guess in a hundred or so
//! passes, whatever the number of values. What that tells is little beside what `match` answers anyway, and nothing
//! about a value that nobody can guess. Short and even values are not put in: see `Catalogue::is_fingerprintable`.

/// A sieve for a set of values.
#[derive(Clone, PartialEq, Eq)]
pub struct Sieve {
    key: SieveKey,
    /// By the first eight bytes.
    starts: Bits,
    /// By both ends and the length.
    wholes: Bits,
}

/// What the tables of a sieve are drawn with.
pub type SieveKey = [u8; SIEVE_KEY_LEN];

/// The length of a [`SieveKey`].
pub const SIEVE_KEY_LEN: usize = 16;

/// The bytes are not a sieve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not a sieve for stored values")]
pub struct SieveError;

impl Sieve {
    /// An empty sieve with room for so many values. The key is random and used for this sieve alone.
    pub fn new(key: SieveKey, values: usize) -> Self {
        Self { key, starts: Bits::new(values, START_BITS), wholes: Bits::new(values, WHOLE_BITS) }
    }

    /// Puts a value in. One that is too short or too long to be told in a text is left out.
    pub fn add(&mut self, value: &[u8]) {
        if !(MIN_VALUE..=MAX_VALUE).contains(&value.len()) {
            return;
        }
        self.starts.set(self.start(first_eight(value)));
        self.wholes.set(self.whole(value));
    }

    /// Whether a text may be one of the values: true for each of them, false for nearly everything else.
    pub fn may_hold(&self, text: &[u8]) -> bool {
        self.may_begin(first_eight(text)) && self.may_be(text)
    }

    /// Whether no value is in it.
    pub fn is_empty(&self) -> bool {
        self.starts.0.iter().all(|word| *word == 0)
    }

    /// Whether a value may begin with these eight bytes.
    #[inline]
    pub(super) fn may_begin(&self, first: u64) -> bool {
        self.starts.has(self.start(first))
    }

    /// Whether this may be a value.
    pub(super) fn may_be(&self, candidate: &[u8]) -> bool {
        (MIN_VALUE..=MAX_VALUE).contains(&candidate.len()) && self.wholes.has(self.whole(candidate))
    }

    /// The key and both tables, for another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let sizes = [&self.starts, &self.wholes].map(|bits| bits.0.len().trailing_zeros() as u8);
        let words = self.starts.0.iter().chain(&self.wholes.0);
        self.key.iter().copied().chain(sizes).chain(words.flat_map(|word| word.to_le_bytes())).collect()
    }

    /// Reads what [`Sieve::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SieveError> {
        let (key, rest) = bytes.split_first_chunk::<SIEVE_KEY_LEN>().ok_or(SieveError)?;
        let (sizes, words) = rest.split_first_chunk::<2>().ok_or(SieveError)?;
        let [starts, wholes] = sizes.map(|size| 1_usize.checked_shl(u32::from(size)).unwrap_or(usize::MAX));
        let wanted = starts.checked_add(wholes).and_then(|words| words.checked_mul(8));
        if wanted != Some(words.len()) {
            return Err(SieveError);
        }
        let word = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().expect("pieces of eight"));
        let mut words: Vec<u64> = words.chunks_exact(8).map(word).collect();
        let wholes = words.split_off(starts);
        Ok(Self { key: *key, starts: Bits(words.into()), wholes: Bits(wholes.into()) })
    }

    #[inline]
    fn start(&self, first: u64) -> u64 {
        let (a, b) = self.halves();
        // Of the product of two numbers the middle depends on all bits of both; the constant keeps a key of few bits from
        // making it small.
        let product = u128::from(first ^ a) * u128::from((b ^ GOLDEN) | 1);
        (product >> 64) as u64 ^ product as u64
    }

    fn whole(&self, value: &[u8]) -> u64 {
        let (a, b) = self.halves();
        let last = *value.last_chunk::<8>().expect("values are longer than that");
        siphash(a, b, [first_eight(value), u64::from_le_bytes(last), value.len() as u64])
    }

    #[inline]
    fn halves(&self) -> (u64, u64) {
        let number = u128::from_le_bytes(self.key);
        (number as u64, (number >> 64) as u64)
    }
}

/// The first eight bytes as a number; zeros for what is missing.
#[inline]
pub(super) fn first_eight(text: &[u8]) -> u64 {
    text.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// SipHash-1-3 (Aumasson and Bernstein, 2012) of three words.
fn siphash(k0: u64, k1: u64, words: [u64; 3]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in words {
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..3).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// A set of numbers that holds more than was put in; a power of two of words.
#[derive(Clone, PartialEq, Eq)]
struct Bits(Box<[u64]>);

impl Bits {
    fn new(values: usize, bits_each: usize) -> Self {
        let words = (values.max(1) * bits_each).div_ceil(64).next_power_of_two();
        Self(vec![0; words].into())
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = self.place(number);
        self.0[word] |= 1 << bit;
    }

    #[inline]
    fn has(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        self.0[word] >> bit & 1 == 1
    }

    #[inline]
    fn place(&self, number: u64) -> (usize, u64) {
        ((number >> 6) as usize & (self.0.len() - 1), number & 63)
    }
}

impl std::fmt::Debug for Sieve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = |bits: &Bits| bits.0.len() * 64;
        write!(f, "Sieve({} + {} bits)", bits(&self.starts), bits(&self.wholes))
    }
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Shorter values cannot be told from words by cutting a text; so short they have no fingerprint either.
const MIN_VALUE: usize = super::cut::MIN_CANDIDATE;

/// Longer values are files.
const MAX_VALUE: usize = super::cut::MAX_CANDIDATE;

/// Bits for each value in the table of beginnings: one wrong place in 32 to 64 is looked at once more.
const START_BITS: usize = 32;

/// Bits for each value in the table of wholes: of the wrong ones, one in 64 to 128 is asked for.
const WHOLE_BITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of 32 hexadecimal digits that depend on a number alone.
    fn value(number: u64) -> String {
        format!("{:032x}", u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn sieve(values: u64) -> Sieve {
        let mut sieve = Sieve::new([7; SIEVE_KEY_LEN], values as usize);
        (0..values).for_each(|number| sieve.add(value(number).as_bytes()));
        sieve
    }

    #[test]
    fn what_is_in_passes_and_little_else() {
        for values in [0, 1, 100, 10_000] {
            let sieve = sieve(values);
            let passes = |number: u64| {
                let text = value(number);
                (sieve.may_begin(first_eight(text.as_bytes())), sieve.may_be(text.as_bytes()))
            };
            assert!((0..values).all(|number| passes(number) == (true, true)));
            let wrong = (1_000_000..1_010_000).map(passes);
            let (starts, wholes) =
                wrong.fold((0, 0), |(a, b), (start, whole)| (a + usize::from(start), b + usize::from(whole)));
            assert!(starts <= 10_000 / 25 && wholes <= 10_000 / 50, "{values}: {starts} {wholes}");
            assert_eq!(sieve.is_empty(), values == 0);
        }
    }

    /// A guess is never told to be right: a table that is emptier than this would do that.
    #[test]
    fn the_tables_are_as_full_as_they_say() {
        for values in [1, 2, 3, 100, 10_000] {
            let sieve = Sieve::new([7; SIEVE_KEY_LEN], values);
            assert!(sieve.starts.0.len() * 64 <= 64 * values.max(1), "{values}");
            assert!(sieve.wholes.0.len() * 64 <= 128 * values.max(1), "{values}");
        }
    }

    #[test]
    fn another_key_lets_others_pass() {
        let (mut one, mut other) = (Sieve::new([1; SIEVE_KEY_LEN], 100), Sieve::new([2; SIEVE_KEY_LEN], 100));
        (0..100).for_each(|number| {
            one.add(value(number).as_bytes());
            other.add(value(number).as_bytes());
        });
        assert!(one.starts != other.starts && one.wholes != other.wholes);
    }

    #[test]
    fn bytes_and_back() {
        for values in [0, 1, 1000] {
            let sieve = sieve(values);
            assert_eq!(Sieve::from_bytes(&sieve.to_bytes()), Ok(sieve));
        }
        let good = sieve(10).to_bytes();
        for bad in [&good[..good.len() - 1], &good[..17], &[], &[255; 40]] {
            assert_eq!(Sieve::from_bytes(bad), Err(SieveError));
        }
    }

    proptest! {
        #[test]
        fn any_value_passes(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 16..80), 1..20), key: SieveKey) {
            let mut sieve = Sieve::new(key, values.len());
            values.iter().for_each(|value| sieve.add(value));
            for value in &values {
                prop_assert!(sieve.may_begin(first_eight(value)) && sieve.may_be(value));
            }
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(sieve) = Sieve::from_bytes(&bytes) {
                prop_assert_eq!(sieve.to_bytes(), bytes);
            }
        }
    }
}
