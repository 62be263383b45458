//! What came of many tries, in numbers.

use crate::{Findings, Outcome};

/// How many tries there were, and in how many of them something was wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tries.
    pub tried: u64,
    /// With an acknowledged write that was gone.
    pub lost: u64,
    /// With a deed that had no record.
    pub unrecorded: u64,
    /// With a value that nobody had written.
    pub wrong: u64,
    /// After which the vault was not opened.
    pub refused: u64,
    /// After which it did not verify.
    pub unverified: u64,
    /// After which it did not work.
    pub stuck: u64,
    /// With damage that nobody named.
    pub unnoticed: u64,
    /// With damage to nothing that is read.
    pub harmless: u64,
}

impl Tally {
    /// Counts what was found after a crash.
    pub fn add_findings(&mut self, findings: &Findings) {
        self.tried += 1;
        for (count, found) in [
            (&mut self.lost, &findings.lost),
            (&mut self.unrecorded, &findings.unrecorded),
            (&mut self.wrong, &findings.wrong),
            (&mut self.refused, &findings.refused),
            (&mut self.unverified, &findings.unverified),
            (&mut self.stuck, &findings.stuck),
        ] {
            *count += u64::from(!found.is_empty());
        }
    }

    /// Counts what became of a piece of damage.
    pub fn add_outcome(&mut self, outcome: &Outcome) {
        self.tried += 1;
        match outcome {
            Outcome::Noticed => {}
            Outcome::Harmless => self.harmless += 1,
            Outcome::Unnoticed(_) => self.unnoticed += 1,
            Outcome::Wrong(_) => self.wrong += 1,
        }
    }

    /// Whether everything that must be 0 is 0.
    pub fn is_clean(&self) -> bool {
        *self == Self { tried: self.tried, harmless: self.harmless, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_counts_once_for_each_thing_that_is_wrong() {
        let mut tally = Tally::default();
        tally.add_findings(&Findings::default());
        tally.add_outcome(&Outcome::Noticed);
        tally.add_outcome(&Outcome::Harmless);
        assert!(tally.is_clean());
        assert_eq!((tally.tried, tally.harmless), (3, 1));
        let two = vec!["one".to_owned(), "two".to_owned()];
        tally.add_findings(&Findings { lost: two.clone(), stuck: two, ..Findings::default() });
        assert_eq!((tally.tried, tally.lost, tally.stuck), (4, 1, 1));
        for outcome in [Outcome::Unnoticed(String::new()), Outcome::Wrong(String::new())] {
            let mut tally = Tally::default();
            tally.add_outcome(&outcome);
            assert!(!tally.is_clean());
        }
    }
}
