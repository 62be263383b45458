//! Credits: a balance that calls are paid from, and what fills it up again.
//!
//! Refills are not deeds of a timer: what is due is worked out from the time of the last one, whenever the balance is
//! looked at, so that a server that was down or a clock that jumps pays out neither twice nor never. Days are UTC.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::names::TextVisitor;

/// A balance, with what fills it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credits {
    /// What is left; refills that are due are not in it yet.
    pub remaining: u64,
    /// What fills it up, if anything.
    pub refill: Option<Refill>,
    /// When it was last filled up, or given.
    pub refilled_at: Timestamp,
}

/// What fills a balance up. Written `1000/day`, `1000/month`, `1000/month@15` (on that day), and with a plus sign and
/// a cap, `+100/day<=500`, where it is added to what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    amount: u64,
    mode: RefillMode,
    every: RefillEvery,
}

/// How a refill changes the balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefillMode {
    /// The balance becomes the amount.
    Set,
    /// The amount is added, up to a cap; a balance that is above it stays.
    Add {
        /// The most that a refill leads to.
        cap: u64,
    },
}

/// When refills are due, at the beginning of a day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefillEvery {
    /// Every day.
    Day,
    /// Every month on this day, or its last day if it is shorter.
    Month {
        /// From 1 to 31.
        day: i8,
    },
}

impl Credits {
    /// A balance that was given at this time.
    pub fn new(remaining: u64, refill: Option<Refill>, now: Timestamp) -> Self {
        Self { remaining, refill, refilled_at: now }
    }

    /// The balance with all refills that are due.
    #[must_use]
    pub fn refilled(self, now: Timestamp) -> Self {
        let Some(refill) = self.refill else { return self };
        let due = refill.every.number_at(now) - refill.every.number_at(self.refilled_at);
        // A clock that went back: what was paid out is not paid out again.
        let Some(times) = u64::try_from(due).ok().filter(|due| *due > 0) else { return self };
        let remaining = match refill.mode {
            RefillMode::Set => refill.amount,
            RefillMode::Add { cap } => {
                let added = self.remaining.saturating_add(refill.amount.saturating_mul(times));
                added.min(cap.max(self.remaining))
            }
        };
        Self { remaining, refilled_at: now, ..self }
    }

    /// Pays for a call; the balance comes with the refills that were due.
    ///
    /// # Errors
    /// When less is left than the call costs.
    pub fn spend(self, cost: u64, now: Timestamp) -> Result<Self, CreditsError> {
        let filled = self.refilled(now);
        match filled.remaining.checked_sub(cost) {
            Some(remaining) => Ok(Self { remaining, ..filled }),
            None => Err(CreditsError::UsedUp),
        }
    }

    /// When the balance is filled up next, if ever.
    pub fn next_refill(&self, now: Timestamp) -> Option<Timestamp> {
        self.refill.and_then(|refill| refill.every.next_after(now.max(self.refilled_at)))
    }
}

impl Refill {
    /// How much.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// How it changes the balance.
    pub fn mode(&self) -> RefillMode {
        self.mode
    }

    /// When.
    pub fn every(&self) -> RefillEvery {
        self.every
    }
}

impl RefillEvery {
    /// Counts the spans of time between refills: it goes up by one with each that falls due.
    fn number_at(self, time: Timestamp) -> i64 {
        let date = day_of(time);
        match self {
            Self::Day => time.as_second().div_euclid(SECS_PER_DAY),
            Self::Month { day } => {
                let month = i64::from(date.year()) * 12 + i64::from(date.month());
                match date.day() < day.min(date.days_in_month()) {
                    true => month - 1,
                    false => month,
                }
            }
        }
    }

    fn next_after(self, time: Timestamp) -> Option<Timestamp> {
        let today = day_of(time);
        let next = match self {
            Self::Day => today.tomorrow().ok()?,
            Self::Month { day } => {
                let this_month = on_day(today.first_of_month(), day)?;
                match this_month > today {
                    true => this_month,
                    false => on_day(today.first_of_month().checked_add(1.month()).ok()?, day)?,
                }
            }
        };
        next.to_zoned(TimeZone::UTC).ok().map(|start| start.timestamp())
    }
}

fn on_day(first_of_month: Date, day: i8) -> Option<Date> {
    first_of_month.with().day(day.min(first_of_month.days_in_month())).build().ok()
}

fn day_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

impl FromStr for Refill {
    type Err = CreditsError;

    fn from_str(text: &str) -> Result<Self, CreditsError> {
        let (is_added, text) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (amount, rest) = text.split_once('/').ok_or(CreditsError::Refill)?;
        let (every, cap) = match rest.split_once("<=") {
            Some((every, cap)) => (every, Some(number(cap)?)),
            None => (rest, None),
        };
        let every = match (every, every.strip_prefix("month@")) {
            ("day", _) => RefillEvery::Day,
            ("month", _) => RefillEvery::Month { day: 1 },
            (_, Some(day)) => RefillEvery::Month { day: day_number(day)? },
            _ => return Err(CreditsError::Refill),
        };
        let mode = match (is_added, cap) {
            (false, None) => RefillMode::Set,
            (true, Some(cap)) => RefillMode::Add { cap },
            _ => return Err(CreditsError::Refill),
        };
        let amount = number(amount)?;
        match amount > 0 && !matches!(mode, RefillMode::Add { cap } if cap < amount) {
            true => Ok(Self { amount, mode, every }),
            false => Err(CreditsError::Amount),
        }
    }
}

fn number(text: &str) -> Result<u64, CreditsError> {
    if text.is_empty()
        || !text.bytes().all(|b| b.is_ascii_digit())
        || (text.len() > 1 && text.starts_with('0'))
    {
        return Err(CreditsError::Refill);
    }
    let number = text.parse().map_err(|_| CreditsError::Amount)?;
    if number > MAX_CREDITS {
        return Err(CreditsError::Amount);
    }
    Ok(number)
}

fn day_number(text: &str) -> Result<i8, CreditsError> {
    let day = number(text)?;
    i8::try_from(day).ok().filter(|day| (1..=31).contains(day)).ok_or(CreditsError::Refill)
}

impl fmt::Display for Refill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let RefillMode::Add { .. } = self.mode {
            f.write_str("+")?;
        }
        write!(f, "{}/", self.amount)?;
        match self.every {
            RefillEvery::Day => f.write_str("day")?,
            RefillEvery::Month { day: 1 } => f.write_str("month")?,
            RefillEvery::Month { day } => write!(f, "month@{day}")?,
        }
        match self.mode {
            RefillMode::Set => Ok(()),
            RefillMode::Add { cap } => write!(f, "<={cap}"),
        }
    }
}

impl Serialize for Refill {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Refill {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("a refill"))
    }
}

/// What is wrong with credits. Never repeats what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreditsError {
    /// Less is left than is asked for.
    #[error("credits are used up")]
    UsedUp,
    /// Not a refill.
    #[error(
        "refill is malformed; allowed: `1000/day`, `1000/month`, `1000/month@15`, and `+100/day<=500` to add up to a cap"
    )]
    Refill,
    /// A refill of nothing, above its own cap, or beyond all numbers.
    #[error("refill is nothing, more than its cap, or more than {MAX_CREDITS}")]
    Amount,
}

/// Most credits: a whole number that JSON readers in every language keep exactly (2^53 - 1).
const MAX_CREDITS: u64 = (1 << 53) - 1;
const SECS_PER_DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refill(text: &str) -> Refill {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn texts() {
        for good in ["1/day", "1000/month", "1000/month@15", "1000/month@31", "+100/day<=500", "+5/month<=5"]
        {
            assert_eq!(refill(good).to_string(), good);
        }
        assert_eq!(refill("5/month@1").to_string(), "5/month");
        for bad in [
            "",
            "1",
            "/day",
            "1/",
            "1/week",
            "1/month@",
            "1/month@0",
            "1/month@32",
            "1/day@2",
            "+1/day",
            "1/day<=5",
            "01/day",
            "-1/day",
            "++1/day<=2",
            "1/day ",
            "1/DAY",
        ] {
            assert_eq!(bad.parse::<Refill>(), Err(CreditsError::Refill), "{bad:?}");
        }
        for bad in ["0/day", "+5/day<=4", "9007199254740992/day", "99999999999999999999999/day"] {
            assert_eq!(bad.parse::<Refill>(), Err(CreditsError::Amount), "{bad:?}");
        }
    }

    #[test]
    fn refills_that_are_due() {
        let check = |text: &str, remaining: u64, last: &str, now: &str, expected: u64| {
            let credits = Credits::new(remaining, Some(refill(text)), at(last)).refilled(at(now));
            assert_eq!(credits.remaining, expected, "{text} {last} {now}");
        };
        check("100/day", 7, "2026-03-01T00:00:00Z", "2026-03-01T23:59:59Z", 7);
        check("100/day", 7, "2026-03-01T23:59:59Z", "2026-03-02T00:00:00Z", 100);
        check("100/day", 700, "2026-03-01T00:00:00Z", "2026-03-09T00:00:00Z", 100);
        check("+100/day<=500", 7, "2026-03-01T00:00:00Z", "2026-03-03T00:00:00Z", 207);
        check("+100/day<=500", 7, "2026-03-01T00:00:00Z", "2027-03-03T00:00:00Z", 500);
        check("+100/day<=500", 900, "2026-03-01T00:00:00Z", "2026-03-03T00:00:00Z", 900);
        check("9/month", 1, "2026-03-31T00:00:00Z", "2026-04-01T00:00:00Z", 9);
        check("9/month@31", 1, "2026-02-27T00:00:00Z", "2026-02-27T23:00:00Z", 1);
        check("9/month@31", 1, "2026-02-27T00:00:00Z", "2026-02-28T00:00:00Z", 9);
        check("9/month@31", 1, "2026-02-28T00:00:00Z", "2026-03-30T00:00:00Z", 1);
        check("9/month@31", 1, "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z", 9);
        check("+9/month<=99", 0, "2025-11-15T00:00:00Z", "2026-02-15T00:00:00Z", 27);
        check("100/day", 7, "2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z", 7);
        check("+1/day<=5", 0, "1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z", 1);
    }

    #[test]
    fn a_clock_that_goes_back_and_forth_pays_out_once() {
        let mut credits = Credits::new(0, Some(refill("10/day")), at("2026-03-01T12:00:00Z"));
        for (now, cost, passes) in [
            ("2026-03-02T00:00:00Z", 10, true),
            ("2026-03-01T00:00:00Z", 1, false),
            ("2026-03-02T00:00:00Z", 1, false),
            ("2026-03-03T00:00:00Z", 10, true),
        ] {
            match credits.spend(cost, at(now)) {
                Ok(after) if passes => credits = after,
                Err(CreditsError::UsedUp) if !passes => (),
                other => panic!("{now}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_next_refill() {
        let check = |text: &str, now: &str, expected: &str| {
            let credits = Credits::new(0, Some(refill(text)), at("2026-01-01T00:00:00Z"));
            assert_eq!(credits.next_refill(at(now)), Some(at(expected)), "{text} {now}");
        };
        check("1/day", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z");
        check("1/month", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("1/month@31", "2026-01-31T05:00:00Z", "2026-02-28T00:00:00Z");
        check("1/month@15", "2026-01-14T05:00:00Z", "2026-01-15T00:00:00Z");
        let credits = Credits::new(0, None, at("2026-01-01T00:00:00Z"));
        assert_eq!(credits.next_refill(at("2026-03-01T00:00:00Z")), None);
    }

    fn some_refill() -> impl Strategy<Value = Refill> {
        let texts = vec!["5/day", "5/month", "5/month@30", "+5/day<=20", "+5/month@31<=12"];
        prop::sample::select(texts).prop_map(refill)
    }

    proptest! {
        #[test]
        fn looking_more_often_changes_nothing(
            refill in some_refill(), mut steps in prop::collection::vec(0i64..120 * 86_400, 1..12),
        ) {
            steps.sort_unstable();
            let start = at("2026-01-01T00:00:00Z");
            let time = |secs: i64| Timestamp::from_second(start.as_second() + secs).unwrap();
            let credits = Credits::new(3, Some(refill), start);
            let often = steps.iter().fold(credits, |credits, step| credits.refilled(time(*step)));
            let once = credits.refilled(time(*steps.last().unwrap()));
            prop_assert_eq!(often.remaining, once.remaining);
        }

        #[test]
        fn the_next_refill_is_the_next(refill in some_refill(), now in 0i64..800 * 86_400) {
            let now = Timestamp::from_second(at("2026-01-01T00:00:00Z").as_second() + now).unwrap();
            let credits = Credits::new(3, Some(refill), now);
            let next = credits.next_refill(now).unwrap();
            prop_assert!(next > now);
            prop_assert_ne!(credits.refilled(next), credits);
            let before = Timestamp::from_second(next.as_second() - 1).unwrap();
            prop_assert_eq!(credits.refilled(before), credits);
        }

        #[test]
        fn nothing_comes_from_nowhere(remaining in 0u64..1_000, costs in prop::collection::vec(0u64..100, 0..50)) {
            let now = at("2026-01-01T00:00:00Z");
            let (mut credits, mut paid) = (Credits::new(remaining, None, now), 0);
            for cost in costs {
                if let Ok(after) = credits.spend(cost, now) {
                    credits = after;
                    paid += cost;
                }
            }
            prop_assert_eq!(credits.remaining + paid, remaining);
        }

        #[test]
        fn parser_takes_anything(text in ".{0,40}|[+0-9a-z/@<=]{0,30}") {
            if let Ok(refill) = text.parse::<Refill>() {
                prop_assert_eq!(refill.to_string().parse::<Refill>().unwrap(), refill);
            }
        }
    }
}
