//! Scanning a text that was made from another one by a delta: only what is new is looked at, and what is not as far from
//! anything new as a decision ever looks.
//!
//! What is found is the same as if all of it were looked at; a property test holds that.

use std::ops::Range;

use keymoat_detect::Engine;

use crate::git::delta::Copied;

/// A part of a text in which hits begin exactly where they do in the text that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Same {
    /// Where it stands in the text.
    pub here: Range<usize>,
    /// Where it began in the text before.
    pub before: usize,
}

/// Finds the parts of `text` that need not be looked at, given what was copied from the text `before`. They are in order
/// and do not overlap.
pub fn same(copied: &[Copied], before: &[u8], text: &[u8], found: &mut Vec<Same>) {
    found.clear();
    for part in copied {
        let (start, end) = (part.result, part.result + part.len);
        // The beginning of both texts, or the end of both, is no change.
        let is_begin = start == 0 && part.base == 0;
        let is_end = end == text.len() && part.base + part.len == before.len();
        // A search looks at the margin around its range too, so to leave out less than that saves nothing.
        if !(is_begin && is_end) && part.len < 2 * Engine::NEAR_MARGIN {
            continue;
        }
        let behind = || Engine::margin_behind(text, start).max(Engine::margin_behind(before, part.base));
        let from = if is_begin { 0 } else { start + behind() };
        // What stands before the end is the same in both.
        let to = if is_end { end } else { end.saturating_sub(Engine::margin_before(text, end)) };
        if to > from && (to - from >= Engine::NEAR_MARGIN || to - from == text.len()) {
            found.push(Same { here: from..to, before: part.base + (from - start) });
        }
    }
}

/// What of a text of `len` bytes has to be looked at, given what need not.
pub fn to_scan(same: &[Same], len: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = std::iter::once(0).chain(same.iter().map(|part| part.here.end));
    let ends = same.iter().map(|part| part.here.start).chain(std::iter::once(len));
    starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty())
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests {
    use super::*;

    const NEAR: usize = Engine::NEAR_MARGIN;
    const FAR: usize = Engine::MARGIN;

    fn check(
        copied: &[(usize, usize, usize)],
        before: &[u8],
        text: &[u8],
        expected: &[(Range<usize>, usize)],
    ) {
        let copied: Vec<_> = copied.iter().map(|&(base, result, len)| Copied { base, result, len }).collect();
        let mut found = Vec::new();
        same(&copied, before, text, &mut found);
        let found: Vec<_> = found.into_iter().map(|same| (same.here, same.before)).collect();
        assert_eq!(found, expected, "{copied:?}");
    }

    #[test]
    fn what_need_not_be_looked_at() {
        let words = b"word ".repeat(10_000);
        let text = |len: usize| &words[..len];
        check(&[(0, 0, 5000)], text(5000), text(5000), &[(0..5000, 0)]);
        check(&[(0, 0, 50)], text(50), text(50), &[(0..50, 0)]);
        // Something was added at the end, at the beginning, in the middle.
        check(&[(0, 0, 5000)], text(5000), text(5010), &[(0..5000 - NEAR, 0)]);
        check(&[(0, 10, 5000)], text(5000), text(5010), &[(NEAR + 10..5010, NEAR)]);
        check(
            &[(0, 0, 5000), (5000, 5010, 15_000)],
            text(20_000),
            text(20_010),
            &[(0..5000 - NEAR, 0), (5010 + NEAR..20_010, 5000 + NEAR)],
        );
        // The beginning is of the middle, and the end too.
        check(&[(10, 0, 8000)], text(9000), text(8000), &[(NEAR..8000 - NEAR, 10 + NEAR)]);
        // Too short to be worth it.
        check(
            &[(0, 0, 2 * NEAR), (2 * NEAR, 2 * NEAR + 10, 50)],
            text(9000),
            text(2 * NEAR + 60),
            &[(0..NEAR, 0)],
        );
        check(&[(0, 0, 2 * NEAR - 1)], text(9000), text(2 * NEAR - 1), &[]);
        check(&[], text(5000), text(0), &[]);
    }

    #[test]
    fn what_is_long_reaches_far() {
        let words = b"word ".repeat(10_000);
        let with = |piece: &[u8], at: usize| [&words[..at], piece, &words[at + piece.len()..]].concat();
        let len = words.len();
        let pem = b"-----BEGIN ";
        let long = [b'a'; NEAR];
        // The change is at 20,000, of ten bytes that were not there before.
        let changed = [(0, 0, 20_000), (20_000, 20_010, len - 20_010)];
        for (piece, at, to, from) in [
            (&pem[..], 10_000, 20_000 - NEAR, 20_010 + NEAR),
            (&pem[..], 17_000, 20_000 - FAR, 20_010 + FAR),
            (&pem[..], 20_000, 20_000 - NEAR, 20_010 + FAR),
            (&long[..], 18_800, 20_000 - FAR, 20_010 + NEAR),
            (&long[..], 20_010, 20_000 - NEAR, 20_010 + FAR),
        ] {
            let expected = [(0..to, 0), (from..len, from - 10)];
            let text = with(piece, at);
            let old = [&text[..20_000], &text[20_010..]].concat();
            check(&changed, &old, &text, &expected);
        }
        // A block that begins in the old text alone.
        let old = with(pem, 19_990);
        check(&[(20_000, 10, 20_000)], &old, &words[..20_010], &[(10 + FAR..20_010 - NEAR, 20_000 + FAR)]);
    }

    #[test]
    fn the_rest_has_to_be_looked_at() {
        let part = |here: Range<usize>| Same { here, before: 0 };
        for (same, expected) in [
            (vec![], vec![0..1000]),
            (vec![part(0..1000)], vec![]),
            (vec![part(0..300), part(500..900)], vec![300..500, 900..1000]),
            (vec![part(300..500), part(500..1000)], vec![0..300]),
        ] {
            assert_eq!(to_scan(&same, 1000).collect::<Vec<_>>(), expected);
        }
    }
}
