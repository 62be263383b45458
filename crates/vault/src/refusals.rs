//! Counts refusals, so that nobody can fill the disk with records of them.
//!
//! Of one source and minute the first few are recorded each; the rest are counted, and the number stands in the next
//! record of that source. A source is a network for those who are not signed in, the principal for those who are. It
//! decides nothing about who may do what, and nothing that is allowed is ever counted here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use keymoat_core::id::{IssuedKeyId, PrincipalId};

#[derive(Default)]
pub(crate) struct Refusals {
    counts: Mutex<Counts>,
}

/// Whose refusals are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Somebody who is not signed in, by his network; none where it is not known, or when there are too many.
    Network(Option<IpNet>),
    /// Somebody who is signed in.
    Principal(PrincipalId),
    /// An issued key that is known and was not good.
    Key(IssuedKeyId),
}

#[derive(Default)]
struct Counts {
    sources: HashMap<Source, Count>,
    /// The minute that `anonymous` is about.
    minute: i64,
    /// Refusals recorded in that minute of those who are not signed in, whoever they are.
    anonymous: u32,
    /// Refusals recorded in that minute of issued keys, whichever they are.
    keys: u32,
}

struct Count {
    minute: i64,
    recorded: u32,
    suppressed: u64,
}

impl Source {
    /// The network that an address is counted under: itself for IPv4; for IPv6 the /64 that one subscriber has at
    /// least (RFC 6177).
    pub(crate) fn of(address: Option<IpAddr>) -> Self {
        Self::Network(address.map(|address| {
            match address.to_canonical() {
                IpAddr::V4(address) => Ipv4Net::from(address).into(),
                IpAddr::V6(address) => Ipv6Net::new(address, SUBSCRIBER_BITS)
                    .map_or_else(|_| Ipv6Net::from(address).into(), |net| net.trunc().into()),
            }
        }))
    }

    fn recorded_a_minute(self) -> u32 {
        match self {
            Self::Network(_) => OF_A_NETWORK,
            Self::Principal(_) => OF_A_PRINCIPAL,
            Self::Key(_) => OF_A_KEY,
        }
    }
}

impl Refusals {
    /// Whether a refusal of this source is to be recorded now, and how many before it were not.
    pub(crate) fn admit(&self, source: Source, now: Timestamp) -> Option<u64> {
        let minute = now.as_second() / 60;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_anonymous = matches!(source, Source::Network(_));
        if counts.minute != minute {
            (counts.minute, counts.anonymous, counts.keys) = (minute, 0, 0);
            // Once a minute: who comes from ever new addresses must not cost a walk through all of them each time.
            counts.sources.retain(|_, count| count.suppressed > 0);
        }
        let is_key = matches!(source, Source::Key(_));
        let is_used_up =
            is_anonymous && counts.anonymous >= OF_ALL_NETWORKS || is_key && counts.keys >= OF_ALL_KEYS;
        let count = counts.of(source, minute);
        if is_used_up || count.recorded >= source.recorded_a_minute() {
            count.suppressed += 1;
            return None;
        }
        count.recorded += 1;
        let suppressed = std::mem::take(&mut count.suppressed);
        counts.anonymous += u32::from(is_anonymous);
        counts.keys += u32::from(is_key);
        Some(suppressed)
    }

    /// The sources whose minute is over with refusals that were only counted, a bounded part of them; forgets them.
    pub(crate) fn overdue(&self, now: Timestamp) -> Vec<(Source, u64)> {
        let minute = now.as_second() / 60;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let over = counts.sources.iter().filter(|(_, count)| count.minute < minute && count.suppressed > 0);
        let overdue: Vec<_> =
            over.map(|(source, count)| (*source, count.suppressed)).take(OVERDUE_AT_ONCE).collect();
        for (source, _) in &overdue {
            counts.sources.remove(source);
        }
        counts.sources.retain(|_, count| count.minute >= minute || count.suppressed > 0);
        overdue
    }

    /// Everything that was only counted, for the end: a bounded number of sources, the rest as one.
    pub(crate) fn take_all(&self) -> Vec<(Source, u64)> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *counts).sources.into_iter();
        let mut all = all.map(|(source, count)| (source, count.suppressed)).filter(|(_, count)| *count > 0);
        let mut taken: Vec<_> = all.by_ref().take(OVERDUE_AT_ONCE).collect();
        match all.map(|(_, count)| count).sum() {
            0 => {}
            rest => taken.push((Source::Network(None), rest)),
        }
        taken
    }
}

impl Counts {
    fn of(&mut self, source: Source, minute: i64) -> &mut Count {
        // Beyond the limit all further networks share one count. There are no more principals than accounts.
        let is_full = self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source);
        let key = match source {
            Source::Network(_) | Source::Key(_) if is_full => Source::Network(None),
            source => source,
        };
        let count = self.sources.entry(key).or_insert(Count { minute, recorded: 0, suppressed: 0 });
        if count.minute != minute {
            (count.minute, count.recorded) = (minute, 0);
        }
        count
    }
}

/// The seconds until a source may be recorded again.
pub(crate) fn seconds_left(now: Timestamp) -> u64 {
    u64::try_from(60 - now.as_second().rem_euclid(60)).unwrap_or(60)
}

/// What a subscriber has at least, so that nobody gets a count of its own for each address (RFC 6177).
const SUBSCRIBER_BITS: u8 = 64;
/// Enough to see what somebody tries, too few to fill a disk.
const OF_A_NETWORK: u32 = 5;
/// Of all networks together: about 40 MB of records a day at worst, however many addresses somebody has.
const OF_ALL_NETWORKS: u32 = 60;
/// Far more than a program that lacks a right by mistake; at worst about 40 MB of records a day.
const OF_A_PRINCIPAL: u32 = 60;
/// Enough to see that a key is used that should not be.
const OF_A_KEY: u32 = 10;
/// Of all keys together: at worst as many records as one busy principal leaves ten times over.
const OF_ALL_KEYS: u32 = 600;
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

    fn network(address: &str) -> Source {
        Source::of(Some(address.parse().unwrap()))
    }

    fn principal(number: u8) -> Source {
        Source::Principal(PrincipalId::from_parts(1, &[number; 10]))
    }

    #[test]
    fn the_first_of_a_minute_are_recorded_and_the_rest_counted() {
        #[track_caller]
        fn check(source: Source, other: Source, recorded: usize) {
            let refusals = Refusals::default();
            let admitted = (0..1000).filter(|_| refusals.admit(source, at(60)).is_some()).count();
            assert_eq!(admitted, recorded);
            assert_eq!(refusals.admit(other, at(60)), Some(0));
            assert_eq!(refusals.admit(source, at(120)), Some(1000 - recorded as u64));
            assert_eq!(refusals.admit(source, at(121)), Some(0));
        }
        check(network("192.0.2.1"), network("192.0.2.2"), 5);
        check(network("2001:db8::1"), network("2001:db8:0:1::1"), 5);
        check(principal(1), principal(2), 60);
        check(principal(1), network("192.0.2.1"), 60);
    }

    #[test]
    fn addresses_that_count_together() {
        #[track_caller]
        fn check(one: &str, other: &str, together: bool) {
            assert_eq!(network(one) == network(other), together, "{one} {other}");
        }
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true);
        check("2001:db8:1:2::1", "2001:db8:1:3::1", false);
    }

    #[test]
    fn what_was_only_counted_is_handed_over_once() {
        let refusals = Refusals::default();
        let source = network("192.0.2.1");
        assert_eq!((0..100).filter_map(|_| refusals.admit(source, at(60))).count(), 5);
        assert_eq!(refusals.overdue(at(119)), []);
        assert_eq!(refusals.overdue(at(120)), [(source, 95)]);
        assert_eq!(refusals.overdue(at(180)), []);
        assert_eq!(refusals.admit(source, at(180)), Some(0));
    }

    #[test]
    fn at_the_end_nothing_that_was_counted_is_lost() {
        let refusals = Refusals::default();
        for number in 0..100u8 {
            let source = Source::of(Some([192, 0, 2, number].into()));
            let admitted = (0..7).filter(|_| refusals.admit(source, at(60)).is_some()).count();
            assert!(admitted <= OF_A_NETWORK as usize);
        }
        let taken = refusals.take_all();
        assert_eq!(taken.len(), OVERDUE_AT_ONCE + 1);
        assert_eq!(taken.iter().map(|(_, count)| count).sum::<u64>(), 700 - u64::from(OF_ALL_NETWORKS));
        assert_eq!(refusals.take_all(), []);
    }

    #[test]
    fn many_sources_share_one_count_in_the_end() {
        let refusals = Refusals::default();
        let flood = |second| {
            let sources = (0..30_000u32).map(|n| Source::of(Some(IpAddr::from(n.to_be_bytes()))));
            sources.filter(|source| refusals.admit(*source, at(second)).is_some()).count()
        };
        assert_eq!(flood(60), OF_ALL_NETWORKS as usize);
        assert_eq!(flood(120), OF_ALL_NETWORKS as usize);
        assert!(refusals.counts.lock().unwrap().sources.len() <= SOURCES_MAX + 1);
        // Who is signed in is not drowned by them.
        assert_eq!(refusals.admit(principal(1), at(120)), Some(0));
    }
}
