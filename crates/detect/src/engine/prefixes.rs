//! The literal beginnings of keys: which rules may begin at a place, told in a few instructions for nearly all places.

use std::collections::HashMap;
use std::ops::Range;

use super::RuleId;
use super::rule::Rules;
use super::shapes::is_scheme;

/// All prefixes of the catalogue.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// Which hashes of the first two, three and four bytes occur, by the length of the prefix.
    two: Bits,
    three: Bits,
    four: Bits,
    /// The same of the four bytes behind `https://`, for prefixes that are addresses.
    hosts: Bits,
    /// Sorted by the first two bytes, then the longer first.
    all: Vec<Prefix>,
    /// Where in `all` those with the same first two bytes begin, by these bytes.
    groups: HashMap<[u8; 2], Range<usize>>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<[u8]>,
    /// The most telling first.
    rules: Vec<RuleId>,
}

impl Prefixes {
    pub(super) fn new(rules: &Rules) -> Self {
        let mut of_prefix: HashMap<&[u8], Vec<RuleId>> = HashMap::new();
        for (id, _, key) in rules.keys().filter(|(_, _, key)| !key.needs_context) {
            for prefix in
                key.prefixes.iter().filter(|prefix| prefix.len() >= MIN_PREFIX && !is_scheme(prefix))
            {
                of_prefix.entry(prefix.as_bytes()).or_default().push(id);
            }
        }
        let mut all: Vec<Prefix> =
            of_prefix.into_iter().map(|(text, rules)| Prefix { text: text.into(), rules }).collect();
        all.sort_by(|a, b| (&a.text[..2], b.text.len(), &a.text).cmp(&(&b.text[..2], a.text.len(), &b.text)));
        let mut groups: HashMap<[u8; 2], Range<usize>> = HashMap::new();
        for (at, prefix) in all.iter().enumerate() {
            groups.entry([prefix.text[0], prefix.text[1]]).or_insert(at..at).end = at + 1;
        }
        let (mut two, mut three, mut four) = (Bits::new(), Bits::new(), Bits::new());
        let mut hosts = Bits::new();
        for prefix in &mut all {
            prefix.rules.sort_by_key(|&rule| rules.rank(rule));
            let first = first_four(&prefix.text);
            if let Some(host) = prefix.text.strip_prefix(HTTPS) {
                hosts.set(first_four(host));
            }
            match prefix.text.len() {
                2 => two.set(first & 0xffff),
                3 => three.set(first & 0xff_ffff),
                _ => four.set(first),
            }
        }
        Self { two, three, four, hosts, all, groups }
    }

    /// Whether some prefix may begin here: says no for nearly everything, and never wrongly.
    #[inline]
    pub(super) fn may_begin(&self, text: &[u8]) -> bool {
        let first = first_four(text);
        self.four.has(first) || self.three.has(first & 0xff_ffff) || self.two.has(first & 0xffff)
    }

    /// Whether some prefix that is an address may begin here; says no for nearly every `https://…`.
    pub(super) fn may_be_address(&self, text: &[u8]) -> bool {
        match text.strip_prefix(HTTPS) {
            Some(host) => self.hosts.has(first_four(host)),
            None => self.may_begin(text),
        }
    }

    /// The rules whose prefix `text` begins with, those of a longer prefix first.
    pub(super) fn rules_at(&self, text: &[u8]) -> impl Iterator<Item = RuleId> {
        let group =
            text.first_chunk::<2>().and_then(|head| self.groups.get(head)).cloned().unwrap_or_default();
        self.all[group]
            .iter()
            .filter(move |prefix| text.starts_with(&prefix.text))
            .flat_map(|prefix| prefix.rules.iter().copied())
    }
}

/// The first four bytes as a number, the first one lowest; zeros for what is missing.
#[inline]
fn first_four(text: &[u8]) -> u32 {
    match text.first_chunk::<4>() {
        Some(four) => u32::from_le_bytes(*four),
        None => text.iter().rev().fold(0, |number, &byte| (number << 8) | u32::from(byte)),
    }
}

/// A set of numbers that may hold more than was put in.
struct Bits(Box<[u64; 1 << (HASH_BITS - 6)]>);

impl Bits {
    fn new() -> Self {
        Self(Box::new([0; 1 << (HASH_BITS - 6)]))
    }

    fn set(&mut self, number: u32) {
        let hash = hash(number);
        self.0[hash >> 6] |= 1 << (hash & 63);
    }

    #[inline]
    fn has(&self, number: u32) -> bool {
        let hash = hash(number);
        self.0[hash >> 6] >> (hash & 63) & 1 == 1
    }
}

impl std::fmt::Debug for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        write!(f, "Bits({set})")
    }
}

/// Fibonacci hashing: the high bits of a product.
#[inline]
fn hash(number: u32) -> usize {
    (number.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

/// 8 KB a set: with a thousand prefixes one place in sixty passes by chance, and all three stay in the first cache.
const HASH_BITS: u32 = 15;

const HTTPS: &[u8] = b"https://";

/// One character says nothing.
const MIN_PREFIX: usize = 2;
