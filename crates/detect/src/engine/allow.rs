//! `keymoat:allow REASON` on the line of a value: somebody has looked at it and says why it may stand there.

use std::ops::Range;

/// Whether the line of a value says that it may stand there, with a reason.
pub(super) fn is_allowed(text: &[u8], value: &Range<usize>) -> bool {
    let before = &text[value.start.saturating_sub(REACH)..value.start];
    let before = before.iter().rposition(|&byte| byte == b'\n').map_or(before, |at| &before[at + 1..]);
    let after = &text[value.end..text.len().min(value.end + REACH)];
    let after = after.iter().position(|&byte| byte == b'\n').map_or(after, |at| &after[..at]);
    has_reason(before) || has_reason(after)
}

fn has_reason(part: &[u8]) -> bool {
    let Some(at) = part.windows(MARK.len()).position(|piece| piece == MARK) else { return false };
    let reason = &part[at + MARK.len()..];
    let word = reason.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    word > 0 && reason.get(word).is_some_and(u8::is_ascii_alphanumeric)
}

const MARK: &[u8] = b"keymoat:allow";

/// How much of a line is looked at on either side; longer lines are made by programs.
const REACH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let check = |text: &str, expected: bool| {
            let at = text.find("VALUE").unwrap();
            assert_eq!(is_allowed(text.as_bytes(), &(at..at + 5)), expected, "{text}");
        };
        check("key = VALUE # keymoat:allow made up for a test", true);
        check("/* keymoat:allow it is public */ key = VALUE", true);
        check("key = VALUE # keymoat:allow", false);
        check("key = VALUE # keymoat:allow */", false);
        check("key = VALUE # keymoat:allowed why not", false);
        check("# keymoat:allow the next line\nkey = VALUE", false);
        check("key = VALUE\n# keymoat:allow the line before", false);
        check("key = VALUE", false);
    }
}
