//! What a scan finds: a value, known by its mask and keyed fingerprint only, and the places where it stands.
//!
//! The same value found as the same kind of key is one finding, however many places it has. Values are never kept.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit as _, Mac as _};
use keymoat_detect::{Catalogue, Encoding, Engine, Hit, RuleId, Severity};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::place::Place;
use crate::scan::Scan;

/// A key that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it was found as; [`Engine::rule`] tells all about it.
    pub rule: RuleId,
    /// Names the value without telling it.
    pub fingerprint: Fingerprint,
    /// The value as it may be shown.
    pub mask: String,
    /// How bad it is as a kind of key; where it stands is another matter.
    pub severity: Severity,
    /// Where it stands; never empty.
    pub places: Vec<Place>,
    /// How many more places it has in files that have it very often.
    pub unlisted: u64,
}

/// A keyed hash of a value: the same value under the same key has the same one, and nobody without the key can tell
/// which value it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The bytes, for a baseline.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the bytes in a baseline.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The key of fingerprints: random, kept in the baseline, or handed in.
pub struct FingerprintKey(Zeroizing<[u8; 32]>);

impl FingerprintKey {
    /// From random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Fingerprints a value.
    pub fn of(&self, value: &[u8]) -> Fingerprint {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes keys of any length");
        mac.update(value);
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Hears of secret values while they are at hand. Whoever keeps one answers for it: findings never do.
pub trait Keeper: Sync + fmt::Debug {
    /// A value was seen; of one that stands in many places this is said many times.
    fn seen(&self, seen: &Seen<'_>);
}

/// Keeps nothing.
impl Keeper for () {
    fn seen(&self, _: &Seen<'_>) {}
}

/// A secret value at the place where it was found.
pub struct Seen<'t> {
    /// What it was found as.
    pub rule: RuleId,
    /// Names it in findings.
    pub fingerprint: Fingerprint,
    /// The value, decoded where it was encoded.
    pub value: &'t [u8],
    /// The text around it.
    pub text: &'t [u8],
    /// Where it stands in that text.
    pub at: Range<usize>,
}

/// A hit after its value was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Where the value begins.
    pub start: usize,
    /// The number of the value in [`Values`].
    pub value: u32,
    /// The form it has there.
    pub encoding: Encoding,
}

/// How often values stand in one thing. A token in each line of a log has a hundred million places, and nobody reads
/// on after a thousand.
#[derive(Debug, Default)]
pub(crate) struct Listed(HashMap<u32, u64>);

impl Listed {
    /// Whether one more place of a value is listed; one that is not is counted.
    pub fn takes(&mut self, value: u32, values: &Values<'_>) -> bool {
        let count = self.0.entry(value).or_default();
        *count += 1;
        let is_listed = *count <= LONGEST_LIST;
        if !is_listed {
            values.leave_out(value);
        }
        is_listed
    }
}

/// Places of one value in one thing.
const LONGEST_LIST: u64 = 1000;

/// All values that were found so far, each once.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    engine: &'a Engine,
    catalogue: &'a Catalogue,
    key: &'a FingerprintKey,
    keeper: &'a dyn Keeper,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    numbers: HashMap<(RuleId, Fingerprint), u32>,
    findings: Vec<Finding>,
}

impl<'a> Values<'a> {
    pub fn new(scan: &Scan<'a>) -> Self {
        let Scan { engine, catalogue, key, keeper, .. } = *scan;
        Self { engine, catalogue, key, keeper, found: Mutex::default() }
    }

    /// Takes from a hit what may be kept of it; nothing where it is no secret.
    pub fn note(&self, text: &[u8], hit: &Hit) -> Option<Known> {
        let rule = self.engine.rule(hit.rule);
        if !rule.sensitive {
            return None;
        }
        let value = hit.with_value(text, |value| {
            let fingerprint = self.key.of(value);
            self.keeper.seen(&Seen { rule: hit.rule, fingerprint, value, text, at: hit.span.clone() });
            let mut found = self.found();
            let Found { numbers, findings } = &mut *found;
            *numbers.entry((hit.rule, fingerprint)).or_insert_with(|| {
                let mask = self.catalogue.mask(value);
                let (rule, severity) = (hit.rule, rule.severity);
                findings.push(Finding { rule, fingerprint, mask, severity, places: Vec::new(), unlisted: 0 });
                (findings.len() - 1) as u32
            })
        });
        Some(Known { start: hit.span.start, value, encoding: hit.encoding })
    }

    /// Adds a place to a value.
    pub fn add_place(&self, value: u32, place: Place) {
        self.found().findings[value as usize].places.push(place);
    }

    /// Counts a place of a value that is not listed.
    pub fn leave_out(&self, value: u32) {
        self.found().findings[value as usize].unlisted += 1;
    }

    /// All findings: the worst first, then by rule and fingerprint; the places of each in order.
    pub fn into_findings(self) -> Vec<Finding> {
        let mut findings = self.found.into_inner().unwrap_or_else(PoisonError::into_inner).findings;
        findings.retain(|finding| !finding.places.is_empty());
        for finding in &mut findings {
            finding.places.sort();
            finding.places.dedup();
        }
        findings
            .sort_by(|a, b| (b.severity, a.rule, a.fingerprint).cmp(&(a.severity, b.rule, b.fingerprint)));
        findings
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
