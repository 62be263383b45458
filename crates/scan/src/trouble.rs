//! What could not be read: counted, and listed as far as a list helps.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// What it is: a path, a ref, an object.
    pub what: String,
    /// Why, in words that complete "`what` …".
    pub why: String,
}

/// Troubles of one scan, from all threads.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    list: Vec<Trouble>,
    counts: BTreeMap<String, u64>,
}

impl Troubles {
    /// Notes one.
    pub fn add(&self, what: impl Into<String>, why: impl Into<String>) {
        let mut listed = self.listed();
        let (what, why) = (what.into(), why.into());
        *listed.counts.entry(why.clone()).or_default() += 1;
        if listed.list.len() < LONGEST_LIST {
            listed.list.push(Trouble { what, why });
        }
    }

    /// All that are listed, in a fixed order.
    pub fn list(&self) -> Vec<Trouble> {
        let mut list = self.listed().list.clone();
        list.sort();
        list
    }

    /// How many there are of each kind, listed or not.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.listed().counts.clone()
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.listed().counts.values().sum()
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A repository whose disk is broken has millions; nobody reads on after a thousand.
const LONGEST_LIST: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_some_are_listed() {
        let troubles = Troubles::default();
        for number in 0..LONGEST_LIST + 5 {
            troubles.add(format!("{number}"), "is gone");
        }
        troubles.add("x", "is odd");
        assert_eq!(troubles.total(), LONGEST_LIST as u64 + 6);
        assert_eq!(troubles.list().len(), LONGEST_LIST);
        assert_eq!(troubles.counts()["is odd"], 1);
    }
}
