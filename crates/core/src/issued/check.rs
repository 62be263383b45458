//! The one decision about a presented key: the order of the checks, and what a yes costs.
//!
//! The first check that fails gives the answer. Nothing is charged before all of them have passed, so a call that is
//! refused burns nobody's quota. The state is only read: who keeps it writes the [`Charge`] back, in the same critical
//! section.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::address::AddressList;
use super::credits::Credits;
use super::limit::{LimitRefusal, LimitTimes, Limits};
use super::owner::{OwnerInactive, OwnerState};
use super::scope::{Held, ScopeQuery};
use crate::names::{LimitName, SpaceName};
use crate::words::words;

/// What was presented, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub enum Presented<'a> {
    /// No key of ours can look like this; nothing was looked up.
    Malformed,
    /// A key that nobody issued.
    Unknown,
    /// A key, with what is kept of it.
    Key(KeyFacts<'a>),
}

/// What is kept of a key, as far as it decides.
#[derive(Debug, Clone, Copy)]
pub struct KeyFacts<'a> {
    /// The space that it is in.
    pub space: &'a SpaceName,
    /// Whether who verifies may verify keys in this space.
    pub is_for_verifier: bool,
    /// Whether it works at all.
    pub state: KeyState,
    /// From when.
    pub not_before: Option<Timestamp>,
    /// Until when; at that moment it has expired.
    pub expires_at: Option<Timestamp>,
    /// Whether its owner is active.
    pub owner: OwnerState,
    /// Whether that matters.
    pub owner_inactive: OwnerInactive,
    /// From where.
    pub addresses: &'a AddressList,
    /// For what.
    pub held: Held<'a>,
    /// How often.
    pub limits: &'a Limits,
    /// How far its limits are used.
    pub limit_times: &'a LimitTimes,
    /// What is left to pay with; none where nothing is paid.
    pub credits: Option<&'a Credits>,
}

/// Whether a key works at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It does.
    Enabled,
    /// Not now.
    Disabled,
    /// Never again.
    Revoked,
}

/// What is asked of a key.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// When; a high-water mark of time.
    pub now: Timestamp,
    /// The space that the key must be in, if that matters.
    pub space: Option<&'a SpaceName>,
    /// From where, if that is known.
    pub address: Option<IpAddr>,
    /// For what; none asks only whether the key is good.
    pub query: Option<&'a ScopeQuery>,
    /// How many credits the call costs.
    pub cost: u64,
    /// What the call costs of named limits; of all others it costs 1.
    pub limit_costs: &'a [(LimitName, u32)],
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Yes, or the first thing that is wrong.
    pub code: Code,
    /// What to write back; for a yes only.
    pub charge: Option<Charge>,
    /// The limit that refused.
    pub limit: Option<LimitRefusal>,
    /// After how long the same call would pass, where waiting helps.
    pub retry_after: Option<Duration>,
}

/// What a call costs, as the state after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// How far the limits are used.
    pub limit_times: LimitTimes,
    /// What is left to pay with.
    pub credits: Option<Credits>,
}

words! {
    /// The answer about a key, in one word.
    Code, "answer about a key":
    Valid = "VALID" doc "All checks passed.",
    Malformed = "MALFORMED" doc "It is cut short, mistyped, or nothing that could be a key.",
    NotFound = "NOT_FOUND" doc "Nobody issued it, or not for who asks.",
    Revoked = "REVOKED" doc "It was ended for good.",
    Disabled = "DISABLED" doc "It was switched off.",
    NotYetValid = "NOT_YET_VALID" doc "Its time has not come.",
    Expired = "EXPIRED" doc "Its time is over.",
    OwnerInactive = "OWNER_INACTIVE" doc "Its owner is no longer active.",
    IpNotAllowed = "IP_NOT_ALLOWED" doc "It may not be used from there.",
    InsufficientPermissions = "INSUFFICIENT_PERMISSIONS" doc "It does not hold the scopes that were asked for.",
    RateLimited = "RATE_LIMITED" doc "It is used too often.",
    UsageExceeded = "USAGE_EXCEEDED" doc "Its credits are used up.",
}

/// Decides about a presented key.
pub fn check(presented: &Presented<'_>, asked: &Asked<'_>) -> Verdict {
    let key = match presented {
        Presented::Malformed => return Verdict::of(Code::Malformed),
        Presented::Unknown => return Verdict::of(Code::NotFound),
        Presented::Key(key) => key,
    };
    if let Some(code) = refusal(key, asked) {
        return Verdict::of(code);
    }
    charge(key, asked)
}

/// The first thing that is wrong, as far as nothing is charged for it.
fn refusal(key: &KeyFacts<'_>, asked: &Asked<'_>) -> Option<Code> {
    // Whoever may not verify it learns nothing of it, not even that it exists.
    let is_elsewhere = asked.space.is_some_and(|space| space != key.space);
    let checks = [
        (!key.is_for_verifier || is_elsewhere, Code::NotFound),
        (key.state == KeyState::Revoked, Code::Revoked),
        (key.state == KeyState::Disabled, Code::Disabled),
        (key.not_before.is_some_and(|from| asked.now < from), Code::NotYetValid),
        (key.expires_at.is_some_and(|until| asked.now >= until), Code::Expired),
        (!key.owner.passes(key.owner_inactive), Code::OwnerInactive),
        (!key.addresses.allows(asked.address), Code::IpNotAllowed),
        (asked.query.is_some_and(|query| !key.held.meets(query)), Code::InsufficientPermissions),
    ];
    checks.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, code)| code)
}

/// Limits, then credits; both are only worked out here, and given back together or not at all.
fn charge(key: &KeyFacts<'_>, asked: &Asked<'_>) -> Verdict {
    let limit_times = match key.limits.admit(key.limit_times, asked.now, asked.limit_costs) {
        Ok(times) => times,
        Err(refusal) => {
            let retry_after = refusal.retry_after;
            return Verdict { limit: Some(refusal), retry_after, ..Verdict::of(Code::RateLimited) };
        }
    };
    let credits = match key.credits.map(|credits| (credits, credits.spend(asked.cost, asked.now))) {
        None => None,
        Some((_, Ok(after))) => Some(after),
        Some((credits, Err(_))) => {
            let retry_after = until_refill(credits, asked);
            return Verdict { retry_after, ..Verdict::of(Code::UsageExceeded) };
        }
    };
    Verdict { charge: Some(Charge { limit_times, credits }), ..Verdict::of(Code::Valid) }
}

fn until_refill(credits: &Credits, asked: &Asked<'_>) -> Option<Duration> {
    let next = credits.next_refill(asked.now)?;
    Duration::try_from(next.duration_since(asked.now)).ok()
}

impl Verdict {
    /// Whether the key may be used.
    pub fn is_valid(&self) -> bool {
        self.code == Code::Valid
    }

    fn of(code: Code) -> Self {
        Self { code, charge: None, limit: None, retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issued::{HeldScope, Tat};
    use proptest::prelude::*;

    /// A key to which everything may be wrong at once; each fault by its bit, in the order of the checks.
    #[derive(Clone, Copy)]
    struct Faults(u32);

    const ORDER: [Code; 10] = [
        Code::NotFound,
        Code::Revoked,
        Code::Disabled,
        Code::NotYetValid,
        Code::Expired,
        Code::OwnerInactive,
        Code::IpNotAllowed,
        Code::InsufficientPermissions,
        Code::RateLimited,
        Code::UsageExceeded,
    ];

    impl Faults {
        fn has(self, code: Code) -> bool {
            ORDER.iter().position(|it| *it == code).is_some_and(|bit| self.0 >> bit & 1 == 1)
        }

        fn verdict(self) -> Verdict {
            let now = at(1_000);
            let choose =
                |code: Code, bad: &'static str, good: &'static str| if self.has(code) { bad } else { good };
            let space = "shop".parse().unwrap();
            let addresses = choose(Code::IpNotAllowed, "10.0.0.0/8", "192.0.2.0/24").parse().unwrap();
            let scopes: [HeldScope; 1] =
                [choose(Code::InsufficientPermissions, "orders.write", "orders.*").parse().unwrap()];
            let limits = "2/1d".parse().unwrap();
            // Used up long before, or never.
            let limit_times = match self.has(Code::RateLimited) {
                true => LimitTimes::new(&[Tat(u64::MAX)]),
                false => LimitTimes::default(),
            };
            let credits = Credits::new(if self.has(Code::UsageExceeded) { 4 } else { 5 }, None, now);
            let query = "orders.read".parse().unwrap();
            let state = match (self.has(Code::Revoked), self.has(Code::Disabled)) {
                (true, _) => KeyState::Revoked,
                (_, true) => KeyState::Disabled,
                _ => KeyState::Enabled,
            };
            let key = KeyFacts {
                space: &space,
                is_for_verifier: !self.has(Code::NotFound),
                state,
                not_before: Some(if self.has(Code::NotYetValid) { at(1_001) } else { at(1_000) }),
                expires_at: Some(if self.has(Code::Expired) { at(1_000) } else { at(1_001) }),
                owner: if self.has(Code::OwnerInactive) { OwnerState::Inactive } else { OwnerState::Active },
                owner_inactive: OwnerInactive::Deny,
                addresses: &addresses,
                held: Held { scopes: &scopes, ..Held::default() },
                limits: &limits,
                limit_times: &limit_times,
                credits: Some(&credits),
            };
            let asked = Asked {
                now,
                space: Some(&space),
                address: Some("192.0.2.1".parse().unwrap()),
                query: Some(&query),
                cost: 5,
                limit_costs: &[],
            };
            check(&Presented::Key(key), &asked)
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_the_answer_and_costs_nothing() {
        for faults in 0..1u32 << ORDER.len() {
            let verdict = Faults(faults).verdict();
            let first = ORDER.get(faults.trailing_zeros() as usize).copied().unwrap_or(Code::Valid);
            assert_eq!(verdict.code, first, "{faults:#b}");
            assert_eq!(verdict.charge.is_some(), first == Code::Valid, "{faults:#b}");
            assert_eq!(verdict.limit.is_some(), first == Code::RateLimited, "{faults:#b}");
        }
    }

    #[test]
    fn what_a_yes_costs() {
        let charge = Faults(0).verdict().charge.unwrap();
        assert_eq!(charge.credits.unwrap().remaining, 0);
        assert_eq!(charge.limit_times.as_slice(), [Tat((1_000 + 43_200) * 1_000_000_000)]);
    }

    #[test]
    fn how_long_to_wait() {
        let limited = Faults(1 << 8).verdict();
        assert_eq!(limited.retry_after, Some(Duration::from_hours(12)));
        assert_eq!(Faults(1 << 9).verdict().retry_after, None);
    }

    #[test]
    fn what_is_no_key() {
        let asked = Asked { now: at(0), space: None, address: None, query: None, cost: 1, limit_costs: &[] };
        assert_eq!(check(&Presented::Malformed, &asked), Verdict::of(Code::Malformed));
        assert_eq!(check(&Presented::Unknown, &asked), Verdict::of(Code::NotFound));
    }

    #[test]
    fn a_key_of_another_space_does_not_exist() {
        let (mine, other) = ("shop".parse().unwrap(), "erp".parse().unwrap());
        let key = KeyFacts {
            space: &mine,
            is_for_verifier: true,
            state: KeyState::Revoked,
            not_before: None,
            expires_at: None,
            owner: OwnerState::Active,
            owner_inactive: OwnerInactive::Deny,
            addresses: &AddressList::default(),
            held: Held::default(),
            limits: &Limits::default(),
            limit_times: &LimitTimes::default(),
            credits: None,
        };
        let code = |space: Option<&SpaceName>, state: KeyState| {
            let asked = Asked { now: at(0), space, address: None, query: None, cost: 9, limit_costs: &[] };
            check(&Presented::Key(KeyFacts { state, ..key }), &asked).code
        };
        assert_eq!(code(Some(&other), KeyState::Revoked), Code::NotFound);
        assert_eq!(code(Some(&mine), KeyState::Revoked), Code::Revoked);
        assert_eq!(code(Some(&mine), KeyState::Enabled), Code::Valid);
        assert_eq!(code(None, KeyState::Enabled), Code::Valid);
    }

    proptest! {
        #[test]
        fn never_more_credits_are_spent_than_there_were(
            remaining in 0u64..50, costs in prop::collection::vec(0u64..9, 0..40), limit in 1u32..30,
        ) {
            let space = "shop".parse().unwrap();
            let limits: Limits = format!("{limit}/1d").parse().unwrap();
            let mut times = LimitTimes::default();
            let mut credits = Credits::new(remaining, None, at(0));
            let (mut paid, mut calls) = (0, 0);
            for cost in costs {
                let key = KeyFacts {
                    space: &space,
                    is_for_verifier: true,
                    state: KeyState::Enabled,
                    not_before: None,
                    expires_at: None,
                    owner: OwnerState::Inactive,
                    owner_inactive: OwnerInactive::Allow,
                    addresses: &AddressList::default(),
                    held: Held::default(),
                    limits: &limits,
                    limit_times: &times,
                    credits: Some(&credits),
                };
                let asked = Asked { now: at(0), space: None, address: None, query: None, cost, limit_costs: &[] };
                let verdict = check(&Presented::Key(key), &asked);
                let Some(charge) = verdict.charge else { continue };
                (times, credits) = (charge.limit_times, charge.credits.unwrap());
                paid += cost;
                calls += 1;
            }
            prop_assert_eq!(paid + credits.remaining, remaining);
            prop_assert!(calls <= limit);
        }
    }
}
