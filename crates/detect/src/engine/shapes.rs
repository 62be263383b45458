//! Keys that their shape tells but no prefix: `0123…-us19`, `123456789:AA…`, and addresses on hosts of several names.
//!
//! There are few of them. One search for all tells nearly every value that it is none of them.

use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};

use super::reach;
use super::rule::Rules;
use super::tokens::is_reported;
use super::{Candidate, Hit, RuleId};
use crate::identify::Certainty;
use crate::provider::{Judgement, Key};

/// The keys of the catalogue that need no context and have no prefix.
#[derive(Debug)]
pub(super) struct Shapes {
    /// The most telling first.
    rules: Vec<RuleId>,
    any: OnceLock<Option<Regex>>,
}

impl Shapes {
    /// Those without any prefix.
    pub(super) fn bare(rules: &Rules) -> Self {
        Self::of(rules, |key| key.prefixes.is_empty())
    }

    /// Those whose prefix is a scheme and no host.
    pub(super) fn addresses(rules: &Rules) -> Self {
        Self::of(rules, |key| key.prefixes.iter().any(|prefix| is_scheme(prefix)))
    }

    fn of(rules: &Rules, is_own: impl Fn(&Key) -> bool) -> Self {
        let own = rules.keys().filter(|(.., key)| !key.needs_context && is_own(key));
        let mut own: Vec<RuleId> = own.map(|(rule, ..)| rule).collect();
        own.sort_by_key(|&rule| rules.rank(rule));
        Self { rules: own, any: OnceLock::new() }
    }

    /// What begins at a place.
    pub(super) fn find(&self, rules: &Rules, text: &[u8], at: usize) -> Option<Candidate> {
        let rest = reach::readable(text, at);
        if !self.any(rules)?.is_match(rest) {
            return None;
        }
        self.rules.iter().find_map(|&rule| {
            let (_, key) = rules.key(rule)?;
            let (judgement, end) = key.judge_beginning(rest)?;
            // Words behind a dash: the value is longer than the pattern.
            if rest[end..].starts_with(b"-") && rest.get(end + 1).is_some_and(u8::is_ascii_alphanumeric) {
                return None;
            }
            let hit = Hit::plain(rule, at..at + end, Certainty::Shape);
            let is_alarm = judgement == Judgement::Key && is_reported(key);
            Some(if is_alarm { Candidate::Key(hit) } else { Candidate::Harmless(hit) })
        })
    }

    /// All patterns in one.
    fn any(&self, rules: &Rules) -> Option<&Regex> {
        let compiled = || {
            let patterns: Vec<String> = self
                .rules
                .iter()
                .filter_map(|&rule| Some(format!("(?:{})", unnamed(rules.key(rule)?.1.pattern()))))
                .collect();
            let pattern = format!(r"\A(?:{})", patterns.join("|"));
            RegexBuilder::new(&pattern).unicode(false).build().ok().filter(|_| !patterns.is_empty())
        };
        self.any.get_or_init(compiled).as_ref()
    }
}

/// Whether a prefix says nothing about the host of an address.
pub(super) fn is_scheme(prefix: &str) -> bool {
    matches!(prefix, "https://" | "http://")
}

/// A pattern without the names of its groups, which may stand only once in a pattern.
fn unnamed(pattern: &str) -> String {
    let mut parts = pattern.split("(?P<");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("(?:");
        text.push_str(part.split_once('>').map_or(part, |(_, rest)| rest));
    }
    text
}
