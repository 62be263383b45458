//! How surprising a text is: the measure behind "random enough to be a key".
//!
//! Not an estimate of password strength: it counts how evenly the bytes are spread, nothing else.

use crate::catalogue::Catalogue;
use crate::identify::Identification;
use crate::shape;

/// The Shannon entropy of the bytes of `text`, in bits per byte (0 for empty text, at most 8).
pub fn entropy(text: impl AsRef<[u8]>) -> f64 {
    let text = text.as_ref();
    if text.is_empty() {
        return 0.0;
    }
    let mut counts = [0u32; 256];
    for &byte in text {
        counts[usize::from(byte)] += 1;
    }
    // The sum of -p·log2 p with p = count / len.
    let weight = |count: u32| f64::from(count) * f64::from(count).log2();
    let sum: f64 = text
        .iter()
        .map(|&byte| std::mem::take(&mut counts[usize::from(byte)]))
        .filter(|&count| count > 1)
        .map(weight)
        .sum();
    let len = text.len() as f64;
    (len.log2() - sum / len).max(0.0)
}

impl Catalogue {
    /// Whether finding `value` twice means the same key was used twice: a sensitive key of the
    /// catalogue, or long and random enough that two people do not arrive at it by chance.
    pub fn is_fingerprintable(&self, value: &[u8]) -> bool {
        match self.identify(value) {
            Identification::Known(known) => known.key.sensitive,
            Identification::Unknown => looks_random(value) && !is_stock(value),
        }
    }
}

/// Whether `value` is long and even enough to be made by a random generator.
pub(crate) fn looks_random(value: &[u8]) -> bool {
    value.len() >= FINGERPRINT_MIN_LEN && entropy(value) >= FINGERPRINT_MIN_ENTROPY
}

fn is_stock(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| shape::placeholder(text).is_some() || shape::is_plain(text))
}

/// Shorter values are chosen by people (`postgres`, `changeit2024`) and repeat by chance.
const FINGERPRINT_MIN_LEN: usize = 16;

/// Sixteen random hexadecimal digits measure about 3.2 bits; repeated words and dates lie below 3.
const FINGERPRINT_MIN_ENTROPY: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_distributions() {
        let check = |text: &str, expected: f64| assert!((entropy(text) - expected).abs() < 1e-9, "{text}");
        check("", 0.0);
        check("aaaa", 0.0);
        check("abab", 1.0);
        check("abcd", 2.0);
        check("0123456789abcdef", 4.0);
    }

    #[test]
    fn fingerprintable_values() {
        let check = |value: &str, expected: bool| {
            assert_eq!(Catalogue::builtin().is_fingerprintable(value.as_bytes()), expected, "{value}");
        };
        check("sk_live_51MadeUpExample0000KeymoatTest", true);
        check("pk_live_51MadeUpExample0000KeymoatTest", false); // a publishable key is no alarm
        check("9f2c4b7a1e8d3056c1a9e4f7b2d80635", true);
        check("postgres", false);
        check("changeme", false);
        check("your_api_key_goes_here_please", false);
        check("https://shop.madeup.test/payment/return", false);
        check("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false);
        check("", false);
    }

    proptest! {
        #[test]
        fn entropy_lies_in_its_bounds(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bits = entropy(&text);
            prop_assert!((0.0..=8.0).contains(&bits));
            prop_assert!(bits <= (text.len().max(1) as f64).log2() + 1e-9);
        }

        #[test]
        fn fingerprintable_is_total(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Catalogue::builtin().is_fingerprintable(&text);
        }
    }
}
