//! Counts the refusals of callers that are not signed in, so that nobody can fill the disk with records of them.
//!
//! Of one source and minute the first few are recorded each; the rest are counted, and the number stands in the next
//! record of that source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

#[derive(Default)]
pub(crate) struct Refusals {
    sources: Mutex<HashMap<Option<IpAddr>, Source>>,
}

struct Source {
    minute: i64,
    recorded: u32,
    suppressed: u64,
}

impl Refusals {
    /// Whether a refusal of this source is to be recorded now, and how many before it were not.
    pub(crate) fn admit(&self, address: Option<IpAddr>, now: Timestamp) -> Option<u64> {
        let minute = now.as_second() / 60;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= SOURCES_MAX {
            sources.retain(|_, source| source.minute == minute || source.suppressed > 0);
        }
        // Beyond the limit all further sources share one count.
        let key =
            if sources.len() >= SOURCES_MAX && !sources.contains_key(&address) { None } else { address };
        let source = sources.entry(key).or_insert(Source { minute, recorded: 0, suppressed: 0 });
        if source.minute != minute {
            source.minute = minute;
            source.recorded = 0;
        }
        if source.recorded >= RECORDED_A_MINUTE {
            source.suppressed += 1;
            return None;
        }
        source.recorded += 1;
        Some(std::mem::take(&mut source.suppressed))
    }

    /// The sources whose minute is over with refusals that were only counted, a bounded part of them; forgets them.
    pub(crate) fn overdue(&self, now: Timestamp) -> Vec<(Option<IpAddr>, u64)> {
        let minute = now.as_second() / 60;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let over = sources.iter().filter(|(_, source)| source.minute < minute && source.suppressed > 0);
        let overdue: Vec<_> =
            over.map(|(address, source)| (*address, source.suppressed)).take(OVERDUE_AT_ONCE).collect();
        let is_handed_over = |address: &Option<IpAddr>| overdue.iter().any(|(over, _)| over == address);
        sources.retain(|address, source| {
            source.minute >= minute || (source.suppressed > 0 && !is_handed_over(address))
        });
        overdue
    }
}

/// Enough to see what somebody tries, too few to fill a disk.
const RECORDED_A_MINUTE: u32 = 5;
/// Keeps those who try from many addresses from filling the disk after all.
const OVERDUE_AT_ONCE: usize = 20;
/// Bounds the memory that addresses can take.
const SOURCES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_of_a_minute_are_recorded_and_the_rest_counted() {
        let refusals = Refusals::default();
        let source = Some("192.0.2.1".parse().unwrap());
        let admitted = (0..1000).filter(|_| refusals.admit(source, at(60)).is_some()).count();
        assert_eq!(admitted, 5);
        assert_eq!(refusals.admit(Some("192.0.2.2".parse().unwrap()), at(60)), Some(0));
        assert_eq!(refusals.admit(source, at(120)), Some(995));
        assert_eq!(refusals.admit(source, at(121)), Some(0));
    }

    #[test]
    fn what_was_only_counted_is_handed_over_once() {
        let refusals = Refusals::default();
        let source = Some("192.0.2.1".parse().unwrap());
        assert_eq!((0..100).filter_map(|_| refusals.admit(source, at(60))).count(), 5);
        assert_eq!(refusals.overdue(at(119)), []);
        assert_eq!(refusals.overdue(at(120)), [(source, 95)]);
        assert_eq!(refusals.overdue(at(180)), []);
        assert_eq!(refusals.admit(source, at(180)), Some(0));
    }

    #[test]
    fn many_sources_share_one_count_in_the_end() {
        let refusals = Refusals::default();
        let admitted = (0..30_000u32)
            .filter(|n| refusals.admit(Some(IpAddr::from(n.to_be_bytes())), at(60)).is_some())
            .count();
        assert!(admitted <= SOURCES_MAX + RECORDED_A_MINUTE as usize, "{admitted}");
    }
}
