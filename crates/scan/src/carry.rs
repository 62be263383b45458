//! Scanning a text that was made from another one by a delta: only what is new is looked at, and what is not as far from
//! anything new as a decision ever looks.
//!
//! What is found is the same as if all of it were looked at; a property test holds that.

use std::ops::Range;

use crate::git::delta::Copied;

/// A part of a text in which hits begin exactly where they do in the text that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Same {
    /// Where it stands in the text.
    pub here: Range<usize>,
    /// Where it began in the text before.
    pub before: usize,
}

/// Finds the parts of a text of `len` bytes that need not be looked at, given what was copied from one of `len_before`
/// bytes. They are in order and do not overlap.
pub fn same(copied: &[Copied], len_before: usize, len: usize, margin: usize, found: &mut Vec<Same>) {
    found.clear();
    for part in copied {
        let (start, end) = (part.result, part.result + part.len);
        // The beginning of both texts, or the end of both, is no change.
        let from = if start == 0 && part.base == 0 { 0 } else { start + margin };
        let is_end = end == len && part.base + part.len == len_before;
        let to = if is_end { end } else { end.saturating_sub(margin) };
        // A search looks at the margin around its range too, so to leave out less than that saves nothing.
        if to > from && (to - from >= margin || to - from == len) {
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

    fn check(
        copied: &[(usize, usize, usize)],
        len_before: usize,
        len: usize,
        expected: &[(Range<usize>, usize)],
    ) {
        let copied: Vec<_> = copied.iter().map(|&(base, result, len)| Copied { base, result, len }).collect();
        let mut found = Vec::new();
        same(&copied, len_before, len, 100, &mut found);
        let found: Vec<_> = found.into_iter().map(|same| (same.here, same.before)).collect();
        assert_eq!(found, expected, "{copied:?}");
    }

    #[test]
    fn what_need_not_be_looked_at() {
        check(&[(0, 0, 5000)], 5000, 5000, &[(0..5000, 0)]);
        check(&[(0, 0, 50)], 50, 50, &[(0..50, 0)]);
        // Something was added at the end, at the beginning, in the middle.
        check(&[(0, 0, 5000)], 5000, 5010, &[(0..4900, 0)]);
        check(&[(0, 10, 5000)], 5000, 5010, &[(110..5010, 100)]);
        check(&[(0, 0, 1000), (1000, 1010, 4000)], 5000, 5010, &[(0..900, 0), (1110..5010, 1100)]);
        // The beginning is of the middle, and the end too.
        check(&[(10, 0, 4000)], 5000, 4000, &[(100..3900, 110)]);
        // Too short to be worth it.
        check(&[(0, 0, 100), (100, 110, 50)], 400, 160, &[]);
        check(&[(0, 0, 199)], 5000, 199, &[]);
        check(&[(0, 0, 200)], 5000, 200, &[(0..100, 0)]);
        check(&[], 5000, 0, &[]);
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
