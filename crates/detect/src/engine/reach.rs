//! How far a decision looks, told from what stands around a place: far only where something long is.
//!
//! Two things are longer than [`SHORT`]: private keys in PEM form, and values without a space in them. Where neither is
//! near, a change of the text matters to what stands within [`NEAR`], and so a search after a change reads little.

use super::{LOOK_AROUND, MAX_GENERIC_VALUE, MAX_VALUE};

/// What a pattern may read of a value that begins at `at`: short, or free of spaces.
pub(super) fn readable(text: &[u8], at: usize) -> &[u8] {
    let rest = &text[at..text.len().min(at + MAX_VALUE)];
    match rest.iter().position(|&byte| is_space(byte)) {
        Some(space) => &rest[..space.max(rest.len().min(MAX_GENERIC_VALUE))],
        None => rest,
    }
}

/// How far before `at` something may begin that reaches over it.
pub(super) fn back(text: &[u8], at: usize) -> usize {
    let is_inside = !text[at.saturating_sub(SHORT)..at].iter().any(|&byte| is_space(byte));
    if is_inside || begins_pem(text, at.saturating_sub(MAX_VALUE), at) { MAX_VALUE } else { SHORT }
}

/// Bytes before `at` in which hits may begin that depend on what stands from `at` on.
pub(super) fn margin_before(text: &[u8], at: usize) -> usize {
    let is_far = holds_long(&text[at.saturating_sub(NEAR + SHORT)..at])
        || begins_pem(text, at.saturating_sub(FAR), at);
    if is_far { FAR } else { NEAR }
}

/// Bytes from `at` on in which hits may begin that depend on what stands before `at`.
pub(super) fn margin_behind(text: &[u8], at: usize) -> usize {
    let is_far = holds_long(&text[at..text.len().min(at + NEAR)])
        || begins_pem(text, at.saturating_sub(MAX_VALUE), at);
    if is_far { FAR } else { NEAR }
}

/// Whether there is a stretch of [`SHORT`] bytes without a space.
fn holds_long(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(stretch) = text.get(at..at + SHORT) {
        match stretch.iter().rposition(|&byte| is_space(byte)) {
            Some(space) => at += space + 1,
            None => return true,
        }
    }
    false
}

/// Whether a key in PEM form may begin in a part of a text, or over its end.
fn begins_pem(text: &[u8], from: usize, to: usize) -> bool {
    let part = &text[from..text.len().min(to + PEM.len() - 1)];
    memchr::memmem::find(part, PEM).is_some()
}

fn is_space(byte: u8) -> bool {
    byte <= b' '
}

const PEM: &[u8] = b"-----BEGIN ";

/// What is neither in PEM form nor without a space ends within so many bytes of its beginning, with all that the decision
/// reads.
pub(super) const SHORT: usize = 640;

/// Where nothing long is: what overlaps, and what is around that.
pub(super) const NEAR: usize = SHORT + LOOK_AROUND;

/// Anywhere.
pub(super) const FAR: usize = MAX_VALUE + LOOK_AROUND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_without_a_space() {
        let check = |text: &str, expected: usize| {
            assert_eq!(readable(text.as_bytes(), 0).len(), expected, "{text}");
        };
        let long = "a".repeat(5000);
        check("", 0);
        check("key value", 9);
        check(&"a ".repeat(1000), MAX_GENERIC_VALUE);
        check(&long, MAX_VALUE);
        check(&format!("{} {long}", &long[..600]), 600);
        check(&format!("{} {long}", &long[..100]), MAX_GENERIC_VALUE);
    }

    #[test]
    fn far_where_something_long_is() {
        let words = "a word ".repeat(2000);
        let long = "a".repeat(SHORT);
        let pem = "-----BEGIN PRIVATE KEY-----";
        for (text, at, before, behind, over) in [
            (words.clone(), 7000, NEAR, NEAR, SHORT),
            (format!("{}{long}{words}", &words[..7000]), 7000 + SHORT, FAR, NEAR, MAX_VALUE),
            (format!("{}{long}{words}", &words[..7000]), 7000 + SHORT + NEAR + 2, NEAR, NEAR, SHORT),
            (format!("{}{long}{words}", &words[..7000]), 7000, NEAR, FAR, SHORT),
            (format!("{}{long}{words}", &words[..7000]), 7000 - NEAR, NEAR, NEAR, SHORT),
            (format!("{}{pem}{words}", &words[..7000]), 7020, FAR, FAR, MAX_VALUE),
            (format!("{}{pem}{words}", &words[..7000]), 7005, FAR, FAR, MAX_VALUE),
            (format!("{}{pem}{words}", &words[..7000]), 7000 + MAX_VALUE + 1, FAR, NEAR, SHORT),
            (format!("{}{pem}{words}", &words[..7000]), 7000 + FAR + 1, NEAR, NEAR, SHORT),
            (words.clone(), 0, NEAR, NEAR, MAX_VALUE),
            (words.clone(), words.len(), NEAR, NEAR, SHORT),
        ] {
            let bytes = text.as_bytes();
            assert_eq!(margin_before(bytes, at), before, "before {at}");
            assert_eq!(margin_behind(bytes, at), behind, "behind {at}");
            assert_eq!(back(bytes, at), over, "over {at}");
        }
    }
}
