//! Who follows the audit log or the feed of changes. His looks within a minute share one record, as long as he looks no
//! further back: one each would fill the log that he reads.
//!
//! Nothing is decided here: every look is decided anew, and a refusal is always on record.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

#[derive(Default)]
pub(crate) struct Following {
    covered: Mutex<HashMap<String, Covered>>,
}

impl Following {
    /// Whether the last record of this follower covers a look now, at what comes from this number on.
    pub(crate) fn is_covered(&self, follower: &str, from: u64, now: Timestamp) -> bool {
        let covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        covered.get(follower).is_some_and(|covered| now < covered.until && from >= covered.from)
    }

    /// Lets the record that was just written, of a look from this number on, cover his looks for a while.
    pub(crate) fn cover(&self, follower: String, from: u64, now: Timestamp) {
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        if covered.len() >= FOLLOWERS_MAX {
            covered.retain(|_, covered| now < covered.until);
        }
        if covered.len() < FOLLOWERS_MAX || covered.contains_key(&follower) {
            let until = now.checked_add(COVERS).unwrap_or(now);
            covered.insert(follower, Covered { from, until });
        }
    }
}

/// What a record covers.
struct Covered {
    from: u64,
    until: Timestamp,
}

/// What the record says of itself.
pub(crate) const COVERS_TEXT: &str = "60 s";
/// So long one record covers a follower's looks.
const COVERS: SignedDuration = SignedDuration::from_secs(60);
/// More than watch a log; the looks of those beyond are recorded one by one.
const FOLLOWERS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_covers_a_minute_of_one_follower() {
        let following = Following::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        following.cover("a".to_owned(), 7, at(100));
        for (who, from, second, expected) in [
            ("a", 7, 100, true),
            ("a", 9, 159, true),
            ("a", 6, 100, false),
            ("a", 7, 160, false),
            ("a", 7, 500, false),
            ("b", 7, 100, false),
        ] {
            assert_eq!(following.is_covered(who, from, at(second)), expected, "{who} {from} {second}");
        }
    }

    #[test]
    fn followers_beyond_the_most_are_recorded_one_by_one() {
        let following = Following::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        (0..=FOLLOWERS_MAX).for_each(|n| following.cover(n.to_string(), 0, at(100)));
        assert!(
            following.is_covered("0", 0, at(101))
                && !following.is_covered(&FOLLOWERS_MAX.to_string(), 0, at(101))
        );
        following.cover("late".to_owned(), 0, at(160));
        assert!(following.is_covered("late", 0, at(161)), "what has ended makes room");
    }
}
