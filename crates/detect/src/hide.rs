//! Keys in short texts that people wrote or that programs say: whether there is one, and the text without them.
//!
//! It knows keys by the catalogue alone, not passwords, and looks at whole words. It is for a line of talk; streams
//! and files want a scanner.

use crate::catalogue::Catalogue;
use crate::identify::Identification;

impl Catalogue {
    /// Whether a text holds what looks like a key that must not be known.
    pub fn holds_a_key(&self, text: &str) -> bool {
        let mut is_any = false;
        self.words(text, &LEVELS, &mut |_, is_key| is_any |= is_key);
        is_any
    }

    /// The text with a mask in place of every key that must not be known.
    pub fn hide_keys(&self, text: &str) -> String {
        let mut hidden = String::with_capacity(text.len());
        self.words(text, &LEVELS, &mut |word, is_key| match is_key {
            true => hidden.push_str(&self.mask(word.as_bytes())),
            false => hidden.push_str(word),
        });
        hidden
    }

    /// Hands over every piece of the text in order: keys, and what stands between them.
    ///
    /// A key may hold `/`, `+` or `=` itself, so it is looked for between wide and then between narrower delimiters.
    fn words(&self, text: &str, levels: &[fn(char) -> bool], each: &mut impl FnMut(&str, bool)) {
        let Some((is_delimiter, narrower)) = levels.split_first() else {
            return each(text, false);
        };
        for piece in text.split_inclusive(is_delimiter) {
            let word = piece.trim_end_matches(is_delimiter);
            match self.is_sensitive(word) {
                true => each(word, true),
                false if word.is_empty() => {}
                false => self.words(word, narrower, each),
            }
            if word.len() < piece.len() {
                each(&piece[word.len()..], false);
            }
        }
    }

    fn is_sensitive(&self, word: &str) -> bool {
        if word.len() < SHORTEST {
            return false;
        }
        match self.identify(word.as_bytes()) {
            Identification::Known(known) => known.key.sensitive,
            Identification::Unknown => false,
        }
    }
}

/// Shorter words are no keys of any provider, and most of a text is made of them.
const SHORTEST: usize = 16;
/// What ends a word, from wide to narrow.
const LEVELS: [fn(char) -> bool; 3] = [
    |c| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')'),
    |c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/' | '+'),
    |c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-'),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "sk_live_51MadeUpExample0000KeymoatTest";

    #[test]
    fn texts_and_what_is_left_of_them() {
        fn check(text: &str, expected: &str) {
            let catalogue = Catalogue::builtin();
            let (text, expected) = (text.replace("KEY", KEY), expected.replace("MASK", "sk_live_…Test"));
            assert_eq!(catalogue.hide_keys(&text), expected);
            assert_eq!(catalogue.holds_a_key(&text), text != expected, "{text}");
        }
        check("", "");
        check("ticket 4711, for the refunds", "ticket 4711, for the refunds");
        check("pk_live_51MadeUpExample0000KeymoatTest", "pk_live_51MadeUpExample0000KeymoatTest");
        check("KEY", "MASK");
        check("was (KEY), now another", "was (MASK), now another");
        check("key=KEY;", "key=MASK;");
        check("KEY KEY", "MASK MASK");
        check("https://a.test/?k=KEY&x=1", "https://a.test/?k=MASK&x=1");
        check("invalid value 'KEY' for '<PATH>'\n", "invalid value 'MASK' for '<PATH>'\n");
    }

    proptest! {
        #[test]
        fn a_key_between_delimiters_is_hidden_and_nothing_else_changes(
            before in "[ -~&&[^A-Za-z0-9_./+-]]{0,5}",
            after in "[ ,;'\")]{1,5}",
            words in "[a-z ]{0,20}",
        ) {
            let catalogue = Catalogue::builtin();
            let hidden = catalogue.hide_keys(&format!("{words}{before} {KEY}{after}{words}"));
            prop_assert_eq!(hidden, format!("{words}{before} sk_live_…Test{after}{words}"));
            prop_assert_eq!(catalogue.hide_keys(&words), words);
        }
    }
}
