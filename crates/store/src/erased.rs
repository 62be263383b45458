//! Which events had their personal data erased, as the records of erasing name them: `erased1` = `3-7,9`.
//!
//! It reads and writes that form and compares it with what is missing; it erases nothing.

use keymoat_core::audit::{Action, DetailValue, Event, Outcome};

/// What the details of a record begin with that name events whose personal data was erased; a number follows.
pub const ERASED: &str = "erased";

/// Writes numbers, in order, as texts of at most so many characters.
pub fn number_texts(numbers: &[u64], longest: usize) -> Vec<String> {
    let mut runs = Runs::default();
    numbers.iter().for_each(|number| runs.add(*number, *number));
    let mut texts: Vec<String> = Vec::new();
    for (first, last) in runs.merged() {
        let run = if first == last { first.to_string() } else { format!("{first}-{last}") };
        match texts.last_mut().filter(|text| text.len() + 1 + run.len() <= longest) {
            Some(text) => {
                text.push(',');
                text.push_str(&run);
            }
            None => texts.push(run),
        }
    }
    texts
}

/// What a walk over the log finds of personal data that is gone.
#[derive(Debug, Default)]
pub(crate) struct Erasures {
    /// Events that commit to personal data that is not there.
    missing: Runs,
    /// Events that records say were erased.
    recorded: Runs,
}

impl Erasures {
    /// Takes in an event, and whether there is personal data beside it.
    pub(crate) fn event(&mut self, seq: u64, event: &Event, has_personal: bool) {
        if event.personal.is_some() && !has_personal {
            self.missing.add(seq, seq);
        }
        if event.result != Outcome::Allowed {
            return;
        }
        // Whoever accepts a state as it is accepts what is gone in it, and says why.
        if event.action == Action::AuditAcceptRestore {
            self.recorded.add(0, seq);
        }
        if event.action != Action::PersonalErase {
            return;
        }
        let named = event.details.iter().filter(|(name, _)| name.as_str().starts_with(ERASED));
        for (_, value) in named {
            let DetailValue::Text(text) = value else { continue };
            text.as_str()
                .split(',')
                .filter_map(parse_run)
                .for_each(|(first, last)| self.recorded.add(first, last));
        }
    }

    /// The runs of events whose personal data is gone without a record of erasing it.
    pub(crate) fn unrecorded(&mut self) -> Vec<(u64, u64)> {
        let recorded = self.recorded.merged();
        let mut left = Vec::new();
        'missing: for (mut first, last) in self.missing.merged() {
            let from = recorded.partition_point(|(_, end)| *end < first);
            for (start, end) in recorded[from..].iter().take_while(|(start, _)| *start <= last) {
                if first < *start {
                    left.push((first, start - 1));
                }
                match end.checked_add(1) {
                    Some(next) => first = first.max(next),
                    None => continue 'missing,
                }
            }
            if first <= last {
                left.push((first, last));
            }
        }
        left
    }
}

fn parse_run(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Numbers as runs: few even where there are many, since what is erased stands mostly together.
#[derive(Debug, Default)]
struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn add(&mut self, first: u64, last: u64) {
        match self.0.last_mut() {
            Some((_, end)) if *end != u64::MAX && *end + 1 == first => *end = last,
            _ => self.0.push((first, last)),
        }
    }

    /// In order, none touching another.
    fn merged(&mut self) -> Vec<(u64, u64)> {
        self.0.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in &self.0 {
            match merged.last_mut().filter(|(_, end)| first.saturating_sub(1) <= *end) {
                Some((_, end)) => *end = (*end).max(*last),
                None => merged.push((*first, *last)),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_their_texts() {
        let check = |numbers: &[u64], longest: usize, expected: &[&str]| {
            assert_eq!(number_texts(numbers, longest), expected, "{numbers:?}");
        };
        check(&[], 99, &[]);
        check(&[0], 99, &["0"]);
        check(&[1, 2, 3, 7, 9, 10], 99, &["1-3,7,9-10"]);
        check(&[1, 2, 3, 7, 9, 10], 7, &["1-3,7", "9-10"]);
        check(&[5, 5, 4], 99, &["4-5"]);
    }

    #[test]
    fn what_no_record_accounts_for() {
        let check = |missing: &[(u64, u64)], recorded: &[(u64, u64)], expected: &[(u64, u64)]| {
            let mut erasures = Erasures::default();
            missing.iter().for_each(|(first, last)| erasures.missing.add(*first, *last));
            recorded.iter().for_each(|(first, last)| erasures.recorded.add(*first, *last));
            assert_eq!(erasures.unrecorded(), expected, "{missing:?} {recorded:?}");
        };
        check(&[], &[(1, 9)], &[]);
        check(&[(3, 5)], &[], &[(3, 5)]);
        check(&[(3, 5)], &[(0, 9)], &[]);
        check(&[(3, 5)], &[(4, 4)], &[(3, 3), (5, 5)]);
        check(&[(3, 5), (8, 9)], &[(7, 8), (5, 5)], &[(3, 4), (9, 9)]);
        check(&[(0, 9)], &[(2, 3), (5, 7), (6, 8)], &[(0, 1), (4, 4), (9, 9)]);
        check(&[(1, u64::MAX)], &[(5, u64::MAX)], &[(1, 4)]);
    }

    #[test]
    fn runs_and_whether_they_are_any() {
        assert_eq!(parse_run("7"), Some((7, 7)));
        assert_eq!(parse_run("7-9"), Some((7, 9)));
        for wrong in ["", "-", "9-7", "a", "1-2-3", "-1"] {
            assert_eq!(parse_run(wrong), None, "{wrong}");
        }
    }
}
