//! Grants: permission that ends by itself, sometimes after a second person agreed or a delay went by.
//!
//! A grant only ever narrows with time: once ended, used up or revoked it never comes back, also when the clock
//! jumps. The caller keeps a high-water mark of time ([`HighWater`]) and passes that, never the bare clock.

use jiff::{SignedDuration, Timestamp};

use crate::audit::AuditText;
use crate::id::{GrantId, PrincipalId};
use crate::policy::{CompiledRule, Effect, MAX_RULES_IN_GRANT};

/// What somebody may do for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    id: GrantId,
    principal: PrincipalId,
    // INVARIANT: only rules that allow.
    rules: Vec<CompiledRule>,
    starts_at: Timestamp,
    expires_at: Timestamp,
    uses_left: Option<u32>,
    state: GrantState,
    granted_by: PrincipalId,
    reason: AuditText,
    break_glass: bool,
}

/// What a grant is made of; [`Grant::new`] checks it.
#[derive(Debug, Clone)]
pub struct GrantParts {
    /// Its identifier.
    pub id: GrantId,
    /// Who may.
    pub principal: PrincipalId,
    /// What; only rules that allow.
    pub rules: Vec<CompiledRule>,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when, at most [`MAX_GRANT`] after the start.
    pub expires_at: Timestamp,
    /// How often still; none for as often as wanted.
    pub uses_left: Option<u32>,
    /// Whether it has effect.
    pub state: GrantState,
    /// Who gave it, or asked for it.
    pub granted_by: PrincipalId,
    /// Why; must not be empty.
    pub reason: AuditText,
    /// Whether it was taken in an emergency.
    pub break_glass: bool,
}

/// Whether a grant has effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantState {
    /// Waits for somebody else to approve it.
    NeedsApproval,
    /// Takes effect by itself at that time, unless revoked before.
    Delayed {
        /// When it takes effect.
        until: Timestamp,
    },
    /// Has effect.
    Active,
    /// Was revoked and never has effect again.
    Revoked {
        /// When.
        at: Timestamp,
    },
}

impl Grant {
    /// Checks the parts of a grant.
    ///
    /// # Errors
    /// When it would end before it starts or too late, has no rule, too many, or one that denies, or no reason.
    pub fn new(parts: GrantParts) -> Result<Self, GrantError> {
        let GrantParts {
            id,
            principal,
            rules,
            starts_at,
            expires_at,
            uses_left,
            state,
            granted_by,
            reason,
            break_glass,
        } = parts;
        if expires_at <= starts_at {
            return Err(GrantError::EndsBeforeStart);
        }
        if expires_at.duration_since(starts_at) > MAX_GRANT {
            return Err(GrantError::TooLong);
        }
        if rules.is_empty() || rules.len() > MAX_RULES_IN_GRANT {
            return Err(GrantError::Rules);
        }
        if rules.iter().any(|rule| rule.effect() == Effect::Deny) {
            return Err(GrantError::Denies);
        }
        if reason.as_str().trim().is_empty() {
            return Err(GrantError::NoReason);
        }
        Ok(Self {
            id,
            principal,
            rules,
            starts_at,
            expires_at,
            uses_left,
            state,
            granted_by,
            reason,
            break_glass,
        })
    }

    /// Whether it has effect; `now` is a high-water mark of time.
    pub fn is_active(&self, now: Timestamp) -> bool {
        let has_effect = match self.state {
            GrantState::Active => true,
            GrantState::Delayed { until } => now >= until,
            GrantState::NeedsApproval | GrantState::Revoked { .. } => false,
        };
        has_effect && self.uses_left != Some(0) && (self.starts_at..self.expires_at).contains(&now)
    }

    /// Approves a grant that waits.
    ///
    /// # Errors
    /// When `by` asked for it or would profit from it, it does not wait, or it has ended.
    pub fn approve(&mut self, by: PrincipalId, now: Timestamp) -> Result<(), GrantError> {
        if by == self.granted_by || by == self.principal {
            return Err(GrantError::OwnApproval);
        }
        if !matches!(self.state, GrantState::NeedsApproval | GrantState::Delayed { .. }) {
            return Err(GrantError::NotPending);
        }
        if now >= self.expires_at {
            return Err(GrantError::Ended);
        }
        self.state = GrantState::Active;
        Ok(())
    }

    /// Ends the grant for good. Says whether it was not revoked before.
    pub fn revoke(&mut self, now: Timestamp) -> bool {
        if matches!(self.state, GrantState::Revoked { .. }) {
            return false;
        }
        self.state = GrantState::Revoked { at: now };
        true
    }

    /// Counts one use.
    ///
    /// # Errors
    /// When it has no effect (any more).
    pub fn spend(&mut self, now: Timestamp) -> Result<(), GrantError> {
        if !self.is_active(now) {
            return Err(GrantError::Ended);
        }
        if let Some(left) = &mut self.uses_left {
            *left -= 1;
        }
        Ok(())
    }

    /// Its identifier.
    pub fn id(&self) -> GrantId {
        self.id
    }

    /// Who may.
    pub fn principal(&self) -> PrincipalId {
        self.principal
    }

    /// What they may.
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// From when.
    pub fn starts_at(&self) -> Timestamp {
        self.starts_at
    }

    /// Until when; at that moment it has ended.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// How often still.
    pub fn uses_left(&self) -> Option<u32> {
        self.uses_left
    }

    /// Whether it has effect, waits or is revoked.
    pub fn state(&self) -> GrantState {
        self.state
    }

    /// Who gave it.
    pub fn granted_by(&self) -> PrincipalId {
        self.granted_by
    }

    /// Why.
    pub fn reason(&self) -> &AuditText {
        &self.reason
    }

    /// Whether it was taken in an emergency.
    pub fn is_break_glass(&self) -> bool {
        self.break_glass
    }
}

/// How an emergency grant, or a widening of one's own rights, starts: with another administrator's approval, or,
/// where there is no other, after a delay in which everybody is told.
pub fn break_glass(now: Timestamp, other_administrators: usize, delay: SignedDuration) -> GrantState {
    if other_administrators > 0 {
        return GrantState::NeedsApproval;
    }
    let delay = delay.clamp(MIN_BREAK_GLASS_DELAY, MAX_GRANT);
    GrantState::Delayed { until: now.checked_add(delay).unwrap_or(Timestamp::MAX) }
}

/// The latest time ever seen, so that a clock that jumps back revives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighWater(Timestamp);

impl HighWater {
    /// Starts at the latest time known, such as that of the newest audit event.
    pub fn new(latest: Timestamp) -> Self {
        Self(latest)
    }

    /// Takes the clock's time and gives the time to decide by: never earlier than any before.
    pub fn observe(&mut self, clock: Timestamp) -> Timestamp {
        self.0 = self.0.max(clock);
        self.0
    }
}

/// What is wrong with a grant or an operation on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// An end before the start.
    #[error("grant ends before it starts")]
    EndsBeforeStart,
    /// An end too far away.
    #[error("grant lasts longer than 90 days; write a policy for what is to last")]
    TooLong,
    /// No rule, or too many.
    #[error("grant has no rule or more than {MAX_RULES_IN_GRANT}")]
    Rules,
    /// A rule that denies.
    #[error("grant has a rule that denies; a grant can only allow")]
    Denies,
    /// No reason.
    #[error("grant has no reason; say why it is needed")]
    NoReason,
    /// An approval by the same person.
    #[error("grant cannot be approved by who asked for it or receives it")]
    OwnApproval,
    /// An approval of what does not wait for one.
    #[error("grant does not wait for approval")]
    NotPending,
    /// Ended, used up or revoked.
    #[error("grant has ended")]
    Ended,
}

/// Longest grant: what is needed for longer is a policy.
pub const MAX_GRANT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Shortest delay of an emergency grant: time for somebody to see the notice.
pub const MIN_BREAK_GLASS_DELAY: SignedDuration = SignedDuration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Rule;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn who(number: u8) -> PrincipalId {
        PrincipalId::from_parts(1, &[number; 10])
    }

    fn rule(effect: &str) -> CompiledRule {
        let json = format!(
            r#"{{"effect":"{effect}","capabilities":["reveal"],"environments":["prod"],"paths":["**"]}}"#
        );
        CompiledRule::new(serde_json::from_str::<Rule>(&json).unwrap()).unwrap()
    }

    fn parts() -> GrantParts {
        GrantParts {
            id: GrantId::from_parts(1, &[0; 10]),
            principal: who(1),
            rules: vec![rule("allow")],
            starts_at: at(100),
            expires_at: at(200),
            uses_left: None,
            state: GrantState::Active,
            granted_by: who(2),
            reason: AuditText::new("incident 7"),
            break_glass: false,
        }
    }

    #[test]
    fn refused_grants() {
        let check = |change: &dyn Fn(&mut GrantParts), expected: GrantError| {
            let mut parts = parts();
            change(&mut parts);
            assert_eq!(Grant::new(parts).unwrap_err(), expected);
        };
        check(&|parts| parts.expires_at = at(100), GrantError::EndsBeforeStart);
        check(&|parts| parts.expires_at = at(101 + 90 * 86_400), GrantError::TooLong);
        check(&|parts| parts.rules.clear(), GrantError::Rules);
        check(&|parts| parts.rules = vec![rule("allow"); 21], GrantError::Rules);
        check(&|parts| parts.rules.push(rule("deny")), GrantError::Denies);
        check(&|parts| parts.reason = AuditText::new(" "), GrantError::NoReason);
        assert!(Grant::new(GrantParts { expires_at: at(100 + 90 * 86_400), ..parts() }).is_ok());
    }

    #[test]
    fn activity() {
        let check = |change: &dyn Fn(&mut GrantParts), now: i64, expected: bool| {
            let mut parts = parts();
            change(&mut parts);
            assert_eq!(Grant::new(parts).unwrap().is_active(at(now)), expected);
        };
        check(&|_| (), 99, false);
        check(&|_| (), 100, true);
        check(&|_| (), 199, true);
        check(&|_| (), 200, false);
        check(&|parts| parts.uses_left = Some(0), 150, false);
        check(&|parts| parts.state = GrantState::NeedsApproval, 150, false);
        check(&|parts| parts.state = GrantState::Delayed { until: at(150) }, 149, false);
        check(&|parts| parts.state = GrantState::Delayed { until: at(150) }, 150, true);
        check(&|parts| parts.state = GrantState::Revoked { at: at(120) }, 110, false);
    }

    #[test]
    fn approval_needs_somebody_else() {
        let mut grant = Grant::new(GrantParts { state: GrantState::NeedsApproval, ..parts() }).unwrap();
        assert_eq!(grant.approve(who(1), at(110)), Err(GrantError::OwnApproval));
        assert_eq!(grant.approve(who(2), at(110)), Err(GrantError::OwnApproval));
        assert_eq!(grant.approve(who(3), at(200)), Err(GrantError::Ended));
        grant.approve(who(3), at(110)).unwrap();
        assert!(grant.is_active(at(110)));
        assert_eq!(grant.approve(who(3), at(110)), Err(GrantError::NotPending));
        assert!(grant.revoke(at(120)) && !grant.revoke(at(121)));
        assert_eq!(grant.approve(who(3), at(122)), Err(GrantError::NotPending));
        assert_eq!(grant.spend(at(122)), Err(GrantError::Ended));
    }

    #[test]
    fn uses_run_out() {
        let mut grant = Grant::new(GrantParts { uses_left: Some(2), ..parts() }).unwrap();
        assert_eq!([(); 3].map(|()| grant.spend(at(150)).is_ok()), [true, true, false]);
    }

    #[test]
    fn emergencies_need_a_second_person_or_time() {
        let hour = SignedDuration::from_hours(1);
        assert_eq!(break_glass(at(0), 1, hour), GrantState::NeedsApproval);
        assert_eq!(break_glass(at(0), 0, hour), GrantState::Delayed { until: at(3600) });
        assert_eq!(break_glass(at(0), 0, SignedDuration::ZERO), GrantState::Delayed { until: at(300) });
        assert!(matches!(break_glass(Timestamp::MAX, 0, hour), GrantState::Delayed { .. }));
    }

    proptest! {
        #[test]
        fn a_clock_that_jumps_revives_nothing(clocks in prop::collection::vec(0i64..400, 1..40)) {
            let grant = Grant::new(parts()).unwrap();
            let mut time = HighWater::new(at(0));
            let mut ended = false;
            for clock in clocks {
                let now = time.observe(at(clock));
                prop_assert!(!(ended && grant.is_active(now)));
                ended |= now >= grant.expires_at();
            }
        }
    }
}
