//! Rate limits: `100/1s,10000/1d`, kept by the generic cell rate algorithm.
//!
//! A limit of a key is one number, the *theoretical arrival time* (TAT): when a caller who had always kept exactly to
//! the rate would be due next. A call is admitted when it is early by no more than the burst allows, and moves the time
//! on by its cost. So there is no window at whose edge twice as much passes unseen: in any span of time at most the
//! burst passes and what the rate gives in that span. Several limits are one decision: all admit, or none is charged.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::names::{LimitName, TextVisitor};

/// One limit: so many in a span of time, and so many at once. Written `100/1s`, `search=10/1m`, or `100/1s:20` for at
/// most 20 at once instead of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    name: Option<LimitName>,
    // INVARIANT: 1 or more, and no more than one for each `LEAST_INTERVAL`.
    count: u32,
    period_secs: u32,
    // INVARIANT: from 1 to `count`.
    burst: u32,
}

/// The limits of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits(Box<[Limit]>);

/// A theoretical arrival time, in nanoseconds since 1970; zero for a limit that was never charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tat(pub u64);

/// The arrival times of all limits of a key, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitTimes {
    times: [Tat; MAX_LIMITS],
    len: usize,
}

/// What a limit still admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Calls of cost 1 that would pass now.
    pub remaining: u32,
    /// After how long without a call the whole burst would pass.
    pub reset: Duration,
}

/// A limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRefusal {
    /// Which one, by its place among the limits of the key.
    pub limit: usize,
    /// After how long the same call would pass; none when it costs more than the limit ever admits at once.
    pub retry_after: Option<Duration>,
}

impl Limit {
    /// Its name, if it has one.
    pub fn name(&self) -> Option<&LimitName> {
        self.name.as_ref()
    }

    /// How many in each span of time.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The span of time, in seconds.
    pub fn period_secs(&self) -> u32 {
        self.period_secs
    }

    /// How many at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// What it still admits at this time.
    pub fn left(&self, tat: Tat, now: Timestamp) -> Left {
        let due = self.wait(tat, now);
        let free = self.tolerance().saturating_sub(due) / self.interval();
        Left { remaining: u32::try_from(free).unwrap_or(u32::MAX), reset: Duration::from_nanos(due) }
    }

    /// The arrival time after a call of this cost, or how long to wait; `None` for ever.
    fn admit(&self, tat: Tat, now: Timestamp, cost: u32) -> Result<Tat, Option<Duration>> {
        let due = self.wait(tat, now);
        if cost == 0 {
            return Ok(Tat(nanos(now).saturating_add(due)));
        }
        if cost > self.burst {
            return Err(None);
        }
        let after = due + u64::from(cost) * self.interval();
        match after.checked_sub(self.tolerance()) {
            None | Some(0) => Ok(Tat(nanos(now).saturating_add(after))),
            Some(early) => Err(Some(Duration::from_nanos(early))),
        }
    }

    /// How far the arrival time lies ahead, in nanoseconds. No call puts it further ahead than the tolerance: what is
    /// further was written under another clock or a wider limit, and must not lock anybody out for longer.
    fn wait(&self, tat: Tat, now: Timestamp) -> u64 {
        tat.0.saturating_sub(nanos(now)).min(self.tolerance())
    }

    /// Nanoseconds from one call to the next. Rounded up: never more than the limit says.
    fn interval(&self) -> u64 {
        (u64::from(self.period_secs) * NANOS_PER_SEC).div_ceil(u64::from(self.count))
    }

    fn tolerance(&self) -> u64 {
        // Below 2^32 seconds, since the burst is no more than the count: fits with room to spare.
        self.interval() * u64::from(self.burst)
    }
}

impl Limits {
    /// Takes limits.
    ///
    /// # Errors
    /// When there are too many, or two with the same name.
    pub fn new(limits: Vec<Limit>) -> Result<Self, LimitError> {
        if limits.len() > MAX_LIMITS {
            return Err(LimitError::TooMany);
        }
        let names = || limits.iter().filter_map(Limit::name);
        if names().enumerate().any(|(place, name)| names().take(place).any(|earlier| earlier == name)) {
            return Err(LimitError::Twice);
        }
        Ok(Self(limits.into()))
    }

    /// The limits, in their order.
    pub fn as_slice(&self) -> &[Limit] {
        &self.0
    }

    /// Whether a limit has this name.
    pub fn has(&self, name: &LimitName) -> bool {
        self.0.iter().any(|limit| limit.name() == Some(name))
    }

    /// Asks all limits for one call. Either all admit it, and the answer is what to keep for each, or none is charged.
    ///
    /// A limit costs 1 unless `costs` names it.
    ///
    /// # Errors
    /// The limit for which one has to wait longest.
    pub fn admit(
        &self,
        times: &LimitTimes,
        now: Timestamp,
        costs: &[(LimitName, u32)],
    ) -> Result<LimitTimes, LimitRefusal> {
        let (mut after, mut refused) = (LimitTimes { len: self.0.len(), ..LimitTimes::default() }, None);
        for (place, limit) in self.0.iter().enumerate() {
            match limit.admit(times.of(place), now, cost_of(limit, costs)) {
                Ok(tat) => after.times[place] = tat,
                Err(retry_after) => {
                    let refusal = LimitRefusal { limit: place, retry_after };
                    refused = Some(refused.map_or(refusal, |other| longer(other, refusal)));
                }
            }
        }
        refused.map_or(Ok(after), Err)
    }
}

impl LimitTimes {
    /// Takes arrival times that were kept, as many as there are limits.
    pub fn new(times: &[Tat]) -> Self {
        let len = times.len().min(MAX_LIMITS);
        let mut kept = Self { len, ..Self::default() };
        kept.times[..len].copy_from_slice(&times[..len]);
        kept
    }

    /// The arrival times, in the order of the limits.
    pub fn as_slice(&self) -> &[Tat] {
        &self.times[..self.len]
    }

    /// That of the limit at a place; a limit that is new was never charged.
    pub fn of(&self, place: usize) -> Tat {
        self.as_slice().get(place).copied().unwrap_or_default()
    }
}

fn cost_of(limit: &Limit, costs: &[(LimitName, u32)]) -> u32 {
    let named = |(name, _): &&(LimitName, u32)| limit.name() == Some(name);
    costs.iter().find(named).map_or(1, |(_, cost)| *cost)
}

fn longer(one: LimitRefusal, other: LimitRefusal) -> LimitRefusal {
    match (one.retry_after, other.retry_after) {
        (None, _) => one,
        (_, None) => other,
        (Some(a), Some(b)) if b > a => other,
        _ => one,
    }
}

fn nanos(now: Timestamp) -> u64 {
    // Before 1970 nothing was charged; the last nanosecond that fits is in 2554.
    u64::try_from(now.as_nanosecond().max(0)).unwrap_or(u64::MAX)
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (name, rate) = match text.split_once('=') {
            Some((name, rate)) => (Some(name.parse().map_err(|_| LimitError::Malformed)?), rate),
            None => (None, text),
        };
        let (count, span) = rate.split_once('/').ok_or(LimitError::Malformed)?;
        let (span, burst) = match span.split_once(':') {
            Some((span, burst)) => (span, Some(number(burst)?)),
            None => (span, None),
        };
        let count = number(count)?;
        let (amount, unit) =
            span.split_at_checked(span.len().saturating_sub(1)).ok_or(LimitError::Malformed)?;
        let unit_secs = UNITS.iter().find(|(word, _)| *word == unit).ok_or(LimitError::Malformed)?.1;
        let period_secs = number(amount)?.checked_mul(unit_secs).ok_or(LimitError::Range)?;
        let burst = burst.unwrap_or(count);
        let is_slow_enough = u64::from(count) * LEAST_INTERVAL <= u64::from(period_secs) * NANOS_PER_SEC;
        if count == 0 || !(1..=MAX_PERIOD_SECS).contains(&period_secs) || !is_slow_enough {
            return Err(LimitError::Range);
        }
        if !(1..=count).contains(&burst) {
            return Err(LimitError::Burst);
        }
        Ok(Self { name, count, period_secs, burst })
    }
}

/// Digits alone: what `u32` takes beside them, such as a plus sign, would be a second spelling.
fn number(text: &str) -> Result<u32, LimitError> {
    if text.is_empty()
        || !text.bytes().all(|b| b.is_ascii_digit())
        || (text.len() > 1 && text.starts_with('0'))
    {
        return Err(LimitError::Malformed);
    }
    text.parse().map_err(|_| LimitError::Range)
}

impl FromStr for Limits {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        if text.len() > MAX_LIMITS_BYTES {
            return Err(LimitError::TooMany);
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::new(text.split(',').map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        let longest = UNITS.iter().find(|(_, secs)| self.period_secs.is_multiple_of(*secs));
        let (unit, secs) = longest.copied().unwrap_or(("s", 1));
        write!(f, "{}/{}{unit}", self.count, self.period_secs / secs)?;
        match self.burst == self.count {
            true => Ok(()),
            false => write!(f, ":{}", self.burst),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, limit) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{limit}")?;
        }
        Ok(())
    }
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("limits"))
    }
}

/// A limit that was refused. Says what is allowed, never what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not a limit.
    #[error(
        "limit is malformed; allowed: `100/1s` with the units `s`, `m`, `h`, `d`, a name as in `search=10/1m`, and `100/1s:20` for 20 at once"
    )]
    Malformed,
    /// No call, too many, or a span that is too long.
    #[error(
        "limit is out of range; allowed: at least one call in at most 366 days, and no more than 1,000,000 a second"
    )]
    Range,
    /// A burst of nothing, or of more than the limit.
    #[error("limit admits none at once, or more at once than in its span of time")]
    Burst,
    /// Too many limits.
    #[error("a key has at most {MAX_LIMITS} limits, of {MAX_LIMITS_BYTES} bytes together")]
    TooMany,
    /// Two with one name.
    #[error("two limits have the same name")]
    Twice,
}

/// Most limits of a key: their times fit in one cache line.
pub const MAX_LIMITS: usize = 8;
/// Longest text of limits in bytes.
pub const MAX_LIMITS_BYTES: usize = 512;
const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Shortest time from call to call in nanoseconds: rounding it up to a whole one is then off by a thousandth at most.
const LEAST_INTERVAL: u64 = 1_000;
/// A leap year.
const MAX_PERIOD_SECS: u32 = 366 * 86_400;
/// Units, longest first.
const UNITS: [(&str, u32); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(text: &str) -> Limits {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn texts() {
        let check = |text: &str, expected: Result<&str, LimitError>| {
            let parsed = text.parse::<Limits>().map(|limits| limits.to_string());
            assert_eq!(parsed.as_deref().map_err(|error| *error), expected, "{text:?}");
        };
        check("", Ok(""));
        check("100/1s", Ok("100/1s"));
        check("100/1s,10000/1d", Ok("100/1s,10000/1d"));
        check("60/60s", Ok("60/1m"));
        check("1/24h", Ok("1/1d"));
        check("1/90m", Ok("1/90m"));
        check("search=10/1m:2,100/1h", Ok("search=10/1m:2,100/1h"));
        check("100/1s:100", Ok("100/1s"));
        check("1/366d", Ok("1/366d"));
        check("1000000/1s", Ok("1000000/1s"));
        for bad in [
            "100",
            "100/",
            "/1s",
            "100/1",
            "100/s",
            "100/1w",
            "+1/1s",
            "01/1s",
            "1/1s:",
            "1/1s:x",
            "1/1é",
            "=1/1s",
            "A=1/1s",
            "1/1s,",
            ",1/1s",
            "1/1s, 1/1m",
            "1/-1s",
            "1.5/1s",
        ] {
            check(bad, Err(LimitError::Malformed));
        }
        for bad in ["0/1s", "1/0s", "1/367d", "1000001/1s", "1/99999999d", "99999999999/1s"] {
            check(bad, Err(LimitError::Range));
        }
        check("1/1s:0", Err(LimitError::Burst));
        check("1/1s:2", Err(LimitError::Burst));
        check("a=1/1s,a=2/1s", Err(LimitError::Twice));
        check(&["1/1s"; 9].join(","), Err(LimitError::TooMany));
        check(&"1".repeat(513), Err(LimitError::TooMany));
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let limits = limits("10/1s:3");
        let mut times = LimitTimes::default();
        let mut ask = |millis: i64| match limits.admit(&times, at(millis), &[]) {
            Ok(after) => {
                times = after;
                Ok(())
            }
            Err(refusal) => Err(refusal.retry_after.unwrap().as_millis()),
        };
        assert_eq!([ask(0), ask(0), ask(0), ask(0)], [Ok(()), Ok(()), Ok(()), Err(100)]);
        assert_eq!([ask(99), ask(100), ask(100)], [Err(1), Ok(()), Err(100)]);
        assert_eq!([ask(1_000), ask(1_000), ask(1_000), ask(1_000)], [Ok(()), Ok(()), Ok(()), Err(100)]);
    }

    #[test]
    fn all_limits_or_none_are_charged() {
        let limits = limits("100/1s,2/1d");
        let mut times = LimitTimes::default();
        for _ in 0..2 {
            times = limits.admit(&times, at(0), &[]).unwrap();
        }
        let refusal = limits.admit(&times, at(0), &[]).unwrap_err();
        assert_eq!((refusal.limit, refusal.retry_after), (1, Some(Duration::from_hours(12))));
        assert_eq!(limits.as_slice()[0].left(times.of(0), at(0)).remaining, 98);
        assert_eq!(limits.as_slice()[1].left(times.of(1), at(0)).remaining, 0);
    }

    #[test]
    fn costs() {
        let limits = limits("search=10/1s,100/1s");
        let cost = |cost: u32| vec![("search".parse().unwrap(), cost)];
        let left = |times: &LimitTimes| {
            [0, 1].map(|place| limits.as_slice()[place].left(times.of(place), at(0)).remaining)
        };
        let none = LimitTimes::default();
        assert_eq!(left(&limits.admit(&none, at(0), &cost(7)).unwrap()), [3, 99]);
        assert_eq!(left(&limits.admit(&none, at(0), &cost(0)).unwrap()), [10, 99]);
        let never = limits.admit(&none, at(0), &cost(11)).unwrap_err();
        assert_eq!((never.limit, never.retry_after), (0, None));
        assert!(limits.admit(&none, at(0), &cost(u32::MAX)).is_err());
    }

    #[test]
    fn clocks_and_limits_that_change() {
        let times = limits("1/1d").admit(&LimitTimes::default(), at(0), &[]).unwrap();
        // A clock a year back, and a limit that became shorter, lock nobody out for longer than the limit itself.
        let year = 365 * 86_400_000;
        let refusal = limits("1/1d").admit(&times, at(-year), &[]).unwrap_err();
        assert_eq!(refusal.retry_after, Some(Duration::from_hours(24)));
        let refusal = limits("1/1s").admit(&times, at(0), &[]).unwrap_err();
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
        assert!(limits("1/1d").admit(&times, at(year), &[]).is_ok());
        assert!(limits("1/366d").admit(&LimitTimes::default(), Timestamp::MAX, &[]).is_ok());
        assert!(limits("1/366d").admit(&LimitTimes::new(&[Tat(u64::MAX)]), Timestamp::MIN, &[]).is_err());
    }

    proptest! {
        #[test]
        fn in_any_span_at_most_the_burst_and_the_rate(
            count in 1u32..20, period in 1u32..5, burst in 1u32..20,
            steps in prop::collection::vec((0u64..800, 0u32..4), 1..80),
        ) {
            let burst = burst.min(count);
            let limits = Limits::new(vec![Limit { name: "a".parse().ok(), count, period_secs: period, burst }]).unwrap();
            let (mut times, mut now, mut admitted) = (LimitTimes::default(), 0u64, Vec::new());
            for (wait, cost) in steps {
                now += wait;
                let time = at(i64::try_from(now).unwrap());
                let left = limits.as_slice()[0].left(times.of(0), time).remaining;
                match limits.admit(&times, time, &[("a".parse().unwrap(), cost)]) {
                    Ok(after) => {
                        prop_assert!(cost <= left);
                        times = after;
                        admitted.push((now, u64::from(cost)));
                    }
                    Err(refusal) => {
                        prop_assert!(cost > left);
                        // Waiting as long as was said is enough, and a nanosecond less is not.
                        if let Some(wait) = refusal.retry_after {
                            let then = time.checked_add(wait).unwrap();
                            let before = then.checked_sub(Duration::from_nanos(1)).unwrap();
                            let costs = [("a".parse().unwrap(), cost)];
                            prop_assert!(limits.admit(&times, then, &costs).is_ok());
                            prop_assert!(limits.admit(&times, before, &costs).is_err());
                        } else {
                            prop_assert!(cost > burst);
                        }
                    }
                }
            }
            for (first, (start, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (end, cost) in &admitted[first..] {
                    sum += cost;
                    let by_rate = (end - start) * u64::from(count) / (u64::from(period) * 1_000);
                    prop_assert!(sum <= u64::from(burst) + by_rate, "{} in {} ms", sum, end - start);
                }
            }
        }

        #[test]
        fn a_refusal_of_one_leaves_all_as_they_were(first in 0u64..5_000_000_000, second in 0u64..5_000_000_000) {
            let limits = limits("3/1s,5/3s:2");
            let now = Timestamp::from_second(2).unwrap();
            let times = LimitTimes::new(&[Tat(first), Tat(second)]);
            let each = [0, 1].map(|place| limits.as_slice()[place].admit(times.of(place), now, 1));
            match limits.admit(&times, now, &[]) {
                Ok(after) => prop_assert_eq!([Ok(after.of(0)), Ok(after.of(1))], each),
                Err(refusal) => {
                    let longest = each.iter().filter_map(|it| it.err()).max().unwrap();
                    prop_assert_eq!(refusal.retry_after, longest);
                }
            }
        }

        #[test]
        fn parser_takes_anything(text in ".{0,60}|[0-9a-z=/:,]{0,40}") {
            if let Ok(limits) = text.parse::<Limits>() {
                prop_assert_eq!(limits.to_string().parse::<Limits>().unwrap(), limits);
            }
        }
    }
}
