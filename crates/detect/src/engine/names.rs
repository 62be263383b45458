//! What stands before a value: the name it is given, and how it is given.
//!
//! Reads backwards from a value and knows no language: `name = "…"`, `"name": "…"`, `name => '…'`, `<name>…`,
//! `setProperty("NAME", "…")`, `?name=…`, `Authorization: Bearer …` look alike from there.

use std::ops::Range;

use crate::variable::{self, Strength};

/// What stands before a value.
#[derive(Debug)]
pub(super) struct Before<'t> {
    /// The part of the line that may hold the name, ending where the name ends.
    pub(super) names: &'t [u8],
    /// Where that part begins in the text.
    pub(super) names_at: usize,
    pub(super) operator: Operator,
    /// The quote that the value stands in.
    pub(super) quote: Option<u8>,
    /// The scheme of an `Authorization` header right before the value.
    pub(super) scheme: bool,
}

/// How a value is tied to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// By `=`, `:`, `=>`, `:=` and the like.
    Assigns,
    /// As the next argument.
    Comma,
    /// As the content of a tag.
    Tag,
    /// By nothing but spaces or a dash.
    Space,
    /// Not at all.
    Nothing,
}

impl<'t> Before<'t> {
    /// Reads what stands before `text[at]`, no further back than `floor`.
    pub(super) fn read(text: &'t [u8], at: usize, floor: usize) -> Self {
        let floor = floor.max(at.saturating_sub(REACH));
        let back = |at: usize| if at > floor { text[at - 1] } else { b'\n' };
        let mut here = at;
        let mut quote = None;
        let mut lines = 0;
        let mut spaces = 0;
        while here > floor {
            match text[here - 1] {
                b'"' | b'\'' | b'`' if quote.is_none() && spaces == 0 => quote = Some(text[here - 1]),
                b'"' | b'\'' | b'`' | b'(' | b'[' | b'\\' => {}
                b'{' if quote.is_none() => {}
                b' ' | b'\t' | b'\r' => spaces += 1,
                b'\n' if lines == 0 => lines += 1,
                // The prefix of a string literal.
                b'b' | b'r' | b'u' | b'f' | b'L' | b'@'
                    if quote.is_some()
                        && here + 1 < text.len()
                        && is_quote(text[here])
                        && !back(here - 1).is_ascii_alphanumeric() => {}
                _ => break,
            }
            here -= 1;
        }
        let scheme_at =
            (spaces > 0 && quote.is_none()).then(|| start_of_scheme(&text[floor..here])).flatten();
        if let Some(at) = scheme_at {
            here = floor + at;
        }
        let end_of_operator = here;
        while here > floor
            && matches!(text[here - 1], b'=' | b':' | b'>' | b',' | b'|' | b'?' | b'.' | b'+' | b'!' | b'~')
        {
            here -= 1;
        }
        let sign = &text[here..end_of_operator];
        let operator = if sign.contains(&b'=') || sign.contains(&b':') || sign == b"||" {
            Operator::Assigns
        } else if sign.contains(&b'>') {
            Operator::Tag
        } else if sign.contains(&b',') {
            Operator::Comma
        } else if spaces > 0 && sign.is_empty() {
            Operator::Space
        } else {
            Operator::Nothing
        };
        // A name stands on the line of its operator; without one, on the line of the value.
        let names_end = match operator {
            Operator::Space | Operator::Nothing if lines > 0 => at,
            _ => here,
        };
        let names_at = start_of_names(text, names_end.min(here), floor, operator);
        let names = &text[names_at..names_end.min(here).max(names_at)];
        Self { names, names_at, operator, quote, scheme: scheme_at.is_some() }
    }

    /// The last name, whatever it says.
    pub(super) fn last_name(&self) -> &'t [u8] {
        let end = self.names.iter().rposition(|&byte| is_name(byte)).map_or(0, |at| at + 1);
        let start = self.names[..end].iter().rposition(|&byte| !is_name(byte)).map_or(0, |at| at + 1);
        &self.names[start..end]
    }

    /// What the nearest name says, and where that name stands.
    pub(super) fn says(&self) -> (Says, Range<usize>) {
        let mut end = self.names.len();
        let mut gap = 0;
        for _ in 0..MAX_NAMES {
            while end > 0 && !is_name(self.names[end - 1]) {
                end -= 1;
                gap += 1;
                // Behind it stands the value of an earlier name.
                if self.names[end] == b'=' {
                    return (Says::Nothing, self.names_at..self.names_at);
                }
            }
            let start = self.names[..end].iter().rposition(|&byte| !is_name(byte)).map_or(0, |at| at + 1);
            if start == end || gap > MAX_GAP {
                break;
            }
            let says = what_a_name_says(&self.names[start..end]);
            if says != Says::Nothing {
                return (says, self.names_at + start..self.names_at + end);
            }
            gap += end - start;
            end = start;
        }
        (Says::Nothing, self.names_at..self.names_at)
    }
}

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing about secrets.
    Nothing,
    /// A property of a secret, or a key that is none.
    NotSecret,
    /// It is a secret.
    Secret(Strength),
}

/// What a name in any style (`DB_PASSWORD`, `dbPassword`, `db.password`) says.
pub(super) fn what_a_name_says(name: &[u8]) -> Says {
    if name.len() > MAX_NAME || !holds_a_secret_word(name) {
        return Says::Nothing;
    }
    let Ok(name) = std::str::from_utf8(name) else { return Says::Nothing };
    let words = words_of(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words.last() == Some(&"AUTHORIZATION") {
        return Says::Secret(Strength::Secret);
    }
    variable::secret_words(&words).map_or(Says::Nothing, |found| match found {
        Some(strength) => Says::Secret(strength),
        None => Says::NotSecret,
    })
}

/// The words of a name, in upper case.
pub(super) fn words_of(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let bytes = name.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let before = at.checked_sub(1).map_or(b'_', |at| bytes[at]);
        let after = bytes.get(at + 1).copied().unwrap_or(b'_');
        let begins = byte.is_ascii_uppercase()
            && (before.is_ascii_lowercase()
                || before.is_ascii_digit()
                || (before.is_ascii_uppercase() && after.is_ascii_lowercase()));
        if (begins || !byte.is_ascii_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if byte.is_ascii_alphanumeric() {
            word.push(byte.to_ascii_uppercase() as char);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a name may hold one of the words that [`variable::secret_words`] knows: a look at its letters, before words
/// are made of it.
fn holds_a_secret_word(name: &[u8]) -> bool {
    name.windows(3).any(|three| {
        let three = [three[0] | 0x20, three[1] | 0x20, three[2] | 0x20];
        matches!(
            &three,
            b"pas"
                | b"pwd"
                | b"sec"
                | b"tok"
                | b"key"
                | b"cre"
                | b"sal"
                | b"bea"
                | b"aut"
                | b"pin"
                | b"sig"
                | b"phr"
        )
    })
}

/// Where the scheme of a credential begins that a text ends with, spaces and quotes before it included.
fn start_of_scheme(before: &[u8]) -> Option<usize> {
    let word = before.iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |at| at + 1);
    let is_scheme =
        |schemes: &[&[u8]]| schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(&before[word..]));
    let is_scheme_alone = is_scheme(SCHEMES);
    if !is_scheme_alone && !is_scheme(SCHEMES_IN_NAMES) {
        return None;
    }
    let is_between = |byte: &u8| matches!(byte, b' ' | b'"' | b'\'' | b'`');
    let start = before[..word].iter().rposition(|byte| !is_between(byte)).map_or(0, |at| at + 1);
    // `Token` is also the end of a name: there the header has to be named.
    let names_header = || {
        let name = before[..start].trim_ascii_end();
        let tail = &name[name.len().saturating_sub(MAX_NAME)..];
        tail.windows(AUTHORIZATION.len()).any(|piece| piece.eq_ignore_ascii_case(AUTHORIZATION))
    };
    (is_scheme_alone || names_header()).then_some(start)
}

/// Where the part of a line begins in which the name may stand.
fn start_of_names(text: &[u8], end: usize, floor: usize, operator: Operator) -> usize {
    let floor = floor.max(end.saturating_sub(MAX_NAMES_LEN));
    let ends = |byte: u8| match byte {
        b'\n' | b';' | b',' | b'{' | b'}' | b'&' | b'?' => true,
        b'<' => operator == Operator::Tag,
        _ => false,
    };
    (floor..end).rev().find(|&at| ends(text[at])).map_or(floor, |at| at + 1)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// Words before a credential in an `Authorization` header (RFC 7235 §2.1, and those that services made up).
const SCHEMES: &[&[u8]] = &[b"bearer", b"ssws"];

/// Those that are words elsewhere.
const SCHEMES_IN_NAMES: &[&[u8]] = &[b"basic", b"token", b"bot", b"apikey"];

const AUTHORIZATION: &[u8] = b"authorization";

/// How far back is read.
const REACH: usize = 160;

/// How much of a line may hold the name.
const MAX_NAMES_LEN: usize = 80;

/// Between a name and its operator there is at most a type, or the attribute that the value stands in.
const MAX_GAP: usize = 24;

/// Names looked at in one part of a line.
const MAX_NAMES: usize = 4;

/// Longer ones are no names.
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_before_values() {
        let check = |text: &str, expected: &str| {
            let at = text.find("VALUE").unwrap();
            let before = Before::read(text.as_bytes(), at, 0);
            let (says, span) = before.says();
            assert_eq!(
                (&text[span], says != Says::Nothing),
                (expected, !expected.is_empty()),
                "{text}: {before:?}"
            );
        };
        for text in [
            "acmeToken = VALUE",
            "acmeToken=\"VALUE\"",
            "\"acmeToken\": \"VALUE\"",
            "'acmeToken' => 'VALUE'",
            "$acmeToken .= \"VALUE\"",
            "<acmeToken>\n    VALUE\n</acmeToken>",
            "<acmeToken>VALUE</acmeToken>",
            "String acmeToken = \"VALUE\";",
            "setProperty(\"acmeToken\", \"VALUE\")",
            "acmeToken := `VALUE`",
            "acmeToken ?= \"VALUE\"",
            "acmeToken :::= \"VALUE\"",
            "acmeToken: VALUE",
            "var acmeToken string = \"VALUE\"",
            "{\"a\": \"b\", \"acmeToken\": \"VALUE\"}",
            "{\\\"acmeToken\\\":\\\"VALUE\\\"}",
            "https://a.test/?b=c&acmeToken=VALUE&d=e",
            "config['acmeToken'] = b'VALUE'",
            "<add key=\"acmeToken\" value=\"VALUE\" />",
            "self.acmeToken = \"VALUE\"".strip_prefix("self.").unwrap(),
            "export acmeToken=VALUE",
            "--acmeToken VALUE".strip_prefix("--").unwrap(),
        ] {
            check(text, "acmeToken");
        }
        check("token = \"a\"; other = \"VALUE\"", "");
        check("\"token\": \"a\", \"other\": \"VALUE\"", "");
        check("token\nother = VALUE", "");
    }

    #[test]
    fn names_and_what_they_say() {
        let check =
            |name: &str, expected: Says| assert_eq!(what_a_name_says(name.as_bytes()), expected, "{name}");
        for name in ["DB_PASSWORD", "dbPassword", "db.password", "admin_passwd", "userpwd", "SMTP_PASS"] {
            check(name, Says::Secret(Strength::Password));
        }
        for name in
            ["acmeToken", "ACME_TOKEN", "acmeAPIKey", "secretkey", "authToken", "client-secret", "x-api-key"]
        {
            check(name, Says::Secret(Strength::Secret));
        }
        for name in ["token_url", "passwordField", "publicKey", "secret_name", "TokenTTL"] {
            check(name, Says::NotSecret);
        }
        for name in ["monkey", "compass", "insects", "author", "name", "x"] {
            check(name, Says::Nothing);
        }
    }
}
