//! The pattern of a key, compiled when it is first needed: a catalogue of a thousand patterns is ready at once.
//!
//! Linear in the text whatever the pattern, by the `regex` crate.

use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};

/// A pattern as the file has it, and its compiled forms.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    text: String,
    whole: OnceLock<Regex>,
    beginning: OnceLock<Regex>,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), whole: OnceLock::new(), beginning: OnceLock::new() }
    }

    /// Whether it may be used: what is wrong, and what to do.
    pub(crate) fn check(&self) -> Result<(), (String, &'static str)> {
        if self.text.len() > MAX_PATTERN_CHARS {
            return Err((format!("the pattern has more than {MAX_PATTERN_CHARS} characters"), "shorten it"));
        }
        if self.text.contains(END_GROUP) {
            return Err((format!("the group `{END_GROUP}` is taken"), "give the group another name"));
        }
        let failed = |error: regex::Error| (format!("the pattern does not compile: {error}"), PATTERN_HINT);
        let whole = compiled(&whole(&self.text), MAX_REGEX_BYTES).map_err(failed)?;
        if whole.is_match(b"") {
            return Err(("the pattern matches nothing at all".into(), "ask for at least one character"));
        }
        Ok(())
    }

    /// As written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Fits a whole value.
    pub(crate) fn whole(&self) -> &Regex {
        self.whole.get_or_init(|| compiled(&whole(&self.text), MAX_REGEX_BYTES).expect(CHECKED))
    }

    /// Where a value that begins with `text` ends, if one does: before the end of the text or something that could
    /// not belong to it.
    pub(crate) fn end_of_value(&self, text: &[u8]) -> Option<usize> {
        let regex = self
            .beginning
            .get_or_init(|| compiled(&beginning(&self.text), 2 * MAX_REGEX_BYTES).expect(CHECKED));
        #[cfg(test)]
        crate::engine::count_work(1);
        let captures = regex.captures(text)?;
        captures.name(END_GROUP).map(|end| end.start())
    }
}

fn compiled(pattern: &str, limit: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).size_limit(limit).build()
}

fn whole(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

/// A letter, a digit or `_` would go on with the value, so that what was matched is only a part of something else.
/// It compiles where the whole does: what is added is far smaller than what the limit is raised by.
fn beginning(pattern: &str) -> String {
    format!(r"\A(?:{pattern})(?P<{END_GROUP}>\z|[^0-9A-Za-z_])")
}

/// The group that no file may use.
const END_GROUP: &str = "keymoat_end";

/// Longer patterns are word lists, which belong in `prefixes`.
const MAX_PATTERN_CHARS: usize = 1_000;

/// Compiled size: ten times what the largest pattern of our own needs. Matching is linear in any case.
const MAX_REGEX_BYTES: usize = 512 * 1024;

const PATTERN_HINT: &str =
    "Rust regex syntax on bytes: no look-around, no back-references, no Unicode classes";

const CHECKED: &str = "patterns are checked when they are loaded, those of the program by a test";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_value_ends() {
        let check = |pattern: &str, text: &str, expected: Option<usize>| {
            assert_eq!(Pattern::new(pattern).end_of_value(text.as_bytes()), expected, "{pattern} in {text}");
        };
        check("ab[0-9]{2}", "ab12", Some(4));
        check("ab[0-9]{2}", "ab12\" etc", Some(4));
        check("ab[0-9]{2}", "ab123", None);
        check("ab[0-9]{2}", "ab12_", None);
        check("ab[0-9]{2,}", "ab12345 x", Some(7));
        check("a|ab", "ab", Some(2));
        check("ab", "xab", None);
    }
}
