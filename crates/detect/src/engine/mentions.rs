//! Which provider a text speaks of: for keys whose shape says nothing without a name beside them.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::RuleId;
use super::names::words_of;
use super::rule::Rules;

/// The names of providers with such keys, and the variables of those keys. Compiled when first needed.
#[derive(Debug)]
pub(super) struct Mentions {
    /// Without joints, in lower case.
    names: Vec<String>,
    /// The provider of each name, as a position in the catalogue, and whether the name is a word of every text.
    owners: Vec<(u16, bool)>,
    /// The keys of each provider that need a context.
    keys: Vec<Vec<ContextKey>>,
    /// Keys by the name of a variable, without joints, in lower case.
    variables: HashMap<String, Vec<(u16, RuleId)>>,
    searcher: OnceLock<AhoCorasick>,
}

/// A provider that a text names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mention {
    /// As a position in the catalogue.
    pub(super) owner: u16,
    /// Where its name stands.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether the name is a word of every text.
    pub(super) is_everyday: bool,
}

/// A key that needs a context.
#[derive(Debug)]
pub(super) struct ContextKey {
    pub(super) rule: RuleId,
    /// The words of its variables, without those of the provider's name.
    pub(super) words: Vec<Vec<String>>,
}

impl Mentions {
    pub(super) fn new(rules: &Rules) -> Self {
        let mut mentions = Self {
            names: vec![],
            owners: vec![],
            keys: vec![],
            variables: HashMap::new(),
            searcher: OnceLock::new(),
        };
        let mut seen = HashSet::new();
        for (owner, provider) in rules.providers().iter().enumerate() {
            mentions.keys.push(Vec::new());
            for name in
                [&provider.id, &provider.name].into_iter().chain(&provider.aliases).filter(|_| !provider.form)
            {
                let name = joined(name);
                if name.len() >= MIN_NAME && !TOO_COMMON.contains(&&*name) && seen.insert(name.clone()) {
                    mentions.owners.push((owner as u16, EVERYDAY.contains(&&*name)));
                    mentions.names.push(name);
                }
            }
        }
        for (rule, owner, key) in rules.keys_by_owner().filter(|(.., key)| key.needs_context) {
            let own = joined(&rules.providers()[usize::from(owner)].id).to_ascii_uppercase();
            let words = key
                .variables
                .iter()
                .map(|variable| {
                    words_of(variable).into_iter().filter(|word| !own.contains(word.as_str())).collect()
                })
                .collect();
            mentions.keys[usize::from(owner)].push(ContextKey { rule, words });
            for variable in &key.variables {
                mentions.variables.entry(joined(variable)).or_default().push((owner, rule));
            }
        }
        mentions
    }

    /// The keys of a provider.
    pub(super) fn keys_of(&self, owner: u16) -> &[ContextKey] {
        &self.keys[usize::from(owner)]
    }

    /// The keys that a name stands for exactly.
    pub(super) fn by_variable(&self, name: &[u8]) -> &[(u16, RuleId)] {
        let mut joined = [0; MAX_VARIABLE];
        let mut len = 0;
        for byte in name.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
            let Some(place) = joined.get_mut(len) else { return &[] };
            *place = byte.to_ascii_lowercase();
            len += 1;
        }
        std::str::from_utf8(&joined[..len])
            .ok()
            .and_then(|name| self.variables.get(name))
            .map_or(&[], Vec::as_slice)
    }

    /// The providers that a text names, the last one first.
    pub(super) fn in_text(&self, text: &[u8]) -> Vec<Mention> {
        // Joints out: `authorize_net`, `authorize.net` and `authorizeNet` are one name.
        let mut joined = [0; WINDOW];
        let mut places = [0_u8; WINDOW];
        let mut len = 0;
        let skipped = text.len().saturating_sub(WINDOW);
        let text = &text[skipped..];
        for (at, byte) in text.iter().enumerate() {
            if !matches!(byte, b'_' | b'-' | b'.') {
                joined[len] = byte.to_ascii_lowercase();
                places[len] = at as u8;
                len += 1;
            }
        }
        let mut found = Vec::new();
        for hit in self.searcher().find_iter(&joined[..len]) {
            let (start, end) = (usize::from(places[hit.start()]), usize::from(places[hit.end() - 1]) + 1);
            if is_name_of_its_own(text, start, end) {
                let (owner, is_everyday) = self.owners[hit.pattern().as_usize()];
                found.push(Mention { owner, start: skipped + start, end: skipped + end, is_everyday });
            }
        }
        found.reverse();
        found
    }

    fn searcher(&self) -> &AhoCorasick {
        self.searcher.get_or_init(|| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(&self.names)
                .expect("a few thousand short names are far below the limits")
        })
    }
}

/// Whether what stands at a place is not the middle of another word: `box` in `checkbox`, `ups` in `groups`.
fn is_name_of_its_own(text: &[u8], start: usize, end: usize) -> bool {
    let kind = |at: usize| text.get(at).copied().unwrap_or(b' ');
    let before = start.checked_sub(1).map_or(b' ', kind);
    let (first, last, after) = (kind(start), kind(end - 1), kind(end));
    let begins = !before.is_ascii_alphabetic() || (before.is_ascii_lowercase() && first.is_ascii_uppercase());
    let goes_on = last.is_ascii_alphabetic()
        && after.is_ascii_alphabetic()
        && (last.is_ascii_lowercase() == after.is_ascii_lowercase());
    begins && (!goes_on || end - start >= LONG_NAME)
}

fn joined(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Bytes before a value in which a provider's name is looked for.
pub(super) const WINDOW: usize = 128;

/// Names as short as `ups` and `dhl` are looked for, with bounds on both sides.
const MIN_NAME: usize = 3;

/// Longer names may go on: `stripetoken`.
const LONG_NAME: usize = 5;

const MAX_VARIABLE: usize = 64;

/// Names that say what a value is rather than whose; such providers are known by their variables alone.
const TOO_COMMON: &[&str] =
    &["database", "databases", "generic", "private", "secret", "token", "password", "oauth", "key", "jwt"];

/// Names that are words of every text and every program: they name a provider only in the name of the value itself,
/// `linear_token`.
const EVERYDAY: &[&str] = &[
    "affinity",
    "affirm",
    "age",
    "aha",
    "apple",
    "atlas",
    "attentive",
    "axiom",
    "beamer",
    "bird",
    "box",
    "brave",
    "bunny",
    "census",
    "chromatic",
    "clerk",
    "close",
    "comet",
    "composer",
    "consul",
    "copper",
    "courier",
    "crisp",
    "cypress",
    "daily",
    "drift",
    "drip",
    "drone",
    "dub",
    "duo",
    "dust",
    "exa",
    "expo",
    "fal",
    "fixer",
    "float",
    "fly",
    "folk",
    "fred",
    "genius",
    "ghost",
    "gradle",
    "grok",
    "harness",
    "harvest",
    "here",
    "hunter",
    "impact",
    "iterable",
    "kit",
    "knock",
    "lambda",
    "lever",
    "linear",
    "lob",
    "loops",
    "luma",
    "make",
    "mastodon",
    "matrix",
    "meetup",
    "mercury",
    "meta",
    "modal",
    "monday",
    "moz",
    "mux",
    "neon",
    "neptune",
    "nim",
    "nomad",
    "notion",
    "octopus",
    "paddle",
    "particle",
    "percy",
    "phrase",
    "plaid",
    "polygon",
    "radar",
    "rage",
    "railway",
    "raven",
    "recharge",
    "render",
    "replicate",
    "reply",
    "resend",
    "sage",
    "sanity",
    "sauce",
    "segment",
    "semaphore",
    "shortcut",
    "sonar",
    "split",
    "square",
    "stability",
    "stitch",
    "streak",
    "stream",
    "together",
    "vast",
    "vault",
    "vend",
    "viva",
    "wise",
    "wiz",
    "writer",
    "zoom",
];
