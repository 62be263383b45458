//! Policies: who may do what to which resource under which conditions, and who may pass which right on.
//!
//! Nothing is allowed but by a rule; a rule that denies wins over every rule and grant that allows. A condition
//! that cannot be checked (no address is known) never allows and never stops a denial. Names in documents are
//! checked when they are read, so that deciding is comparing. Who holds which policy is kept elsewhere.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::DecidedBy;
use crate::grant::Grant;
use crate::names::{Company, Field, PolicyName, ResourcePath, Scope};
use crate::pattern::{CompanyPattern, ModulePattern, Network, PathPattern, ScopePattern};
use crate::words::words;

words! {
    /// What may be done to a resource.
    Capability, "capability":
    List = "list" doc "See names.",
    Inspect = "inspect" doc "See metadata and the masked value.",
    Match = "match" doc "Ask whether a text is a stored value.",
    Reveal = "reveal" doc "Get the plaintext.",
    Use = "use" doc "Use it through the gateway without seeing it.",
    Write = "write" doc "Write new versions and metadata.",
    Rotate = "rotate" doc "Have it changed at its provider.",
    Delete = "delete" doc "Delete, undelete and destroy.",
    Grant = "grant" doc "Pass on what one may do oneself.",
}

words! {
    /// What a rule does where it matches.
    Effect, "effect":
    Allow = "allow" doc "Allows.",
    Deny = "deny" doc "Denies, whatever else allows.",
}

words! {
    /// A day of the week.
    Day, "day":
    Monday = "monday" doc "Monday.",
    Tuesday = "tuesday" doc "Tuesday.",
    Wednesday = "wednesday" doc "Wednesday.",
    Thursday = "thursday" doc "Thursday.",
    Friday = "friday" doc "Friday.",
    Saturday = "saturday" doc "Saturday.",
    Sunday = "sunday" doc "Sunday.",
}

words! {
    /// The conditions of a rule.
    ConditionKind, "condition":
    Network = "network" doc "Where the request comes from.",
    Time = "time" doc "From when until when.",
    Hours = "hours" doc "At which hours of which days.",
    Module = "module" doc "Which module asks.",
}

/// Decides a request: deny by default, and a rule that denies wins.
pub fn decide(policies: &[&CompiledPolicy], grants: &[&Grant], request: &Request<'_>) -> Decision {
    let mut allowed = None;
    let mut failed = None;
    for (source, number, rule) in all_rules(policies, grants, request.now) {
        match rule.matches(request) {
            RuleMatch::Matches if rule.effect() == Effect::Deny => {
                return Decision::Refused { why: Refusal::Denied { by: source.decided_by(number) } };
            }
            RuleMatch::Matches if allowed.is_none() => allowed = Some((source, number)),
            RuleMatch::Condition(which) if failed.is_none() && rule.effect() == Effect::Allow => {
                failed = Some((source, number, which));
            }
            _ => {}
        }
    }
    match (allowed, failed) {
        (Some((source, number)), _) => Decision::Allowed { by: source.decided_by(number) },
        (None, Some((source, number, which))) => {
            Decision::Refused { why: Refusal::ConditionFailed { by: source.decided_by(number), which } }
        }
        (None, None) => Decision::Refused { why: Refusal::NoRule },
    }
}

/// Says of every rule whether it matches, and if not, why.
pub fn explain(policies: &[&CompiledPolicy], grants: &[&Grant], request: &Request<'_>) -> Vec<Explained> {
    all_rules(policies, grants, request.now)
        .map(|(source, number, rule)| Explained {
            by: source.decided_by(number),
            effect: rule.effect(),
            matched: rule.matches(request),
        })
        .collect()
}

/// Whether a holder may, from `now` on, do everything that the wanted rules would allow.
///
/// Errs on the side of no. Each wanted rule must be contained in one rule of the holder that lasts as long; a
/// denial of the holder that touches it must stand among the wanted rules too. What is limited in uses cannot be
/// passed on. The wanted rules of a grant are passed as [`CompiledRule::until`] its end.
pub fn covers(
    policies: &[&CompiledPolicy],
    grants: &[&Grant],
    wanted: &[&CompiledRule],
    now: Timestamp,
) -> bool {
    let held: Vec<Held<'_>> = held_rules(policies, grants, now);
    let denials: Vec<&CompiledRule> =
        held.iter().map(|held| held.rule).filter(|rule| rule.effect() == Effect::Deny).collect();
    wanted
        .iter()
        .filter(|rule| rule.effect() == Effect::Allow && !rule.rule.conditions.has_ended(now))
        .all(|rule| is_held(&held, rule, now) && denials_are_kept(&denials, rule, wanted, now))
}

/// Whether an actor may change what a target holds from `before` to `after`; the target may be the actor.
///
/// What is added must be covered by what the actor holds (see [`covers`]). Where a denial would go, or shrink,
/// rights that it held down would come back, so then everything that is left must be covered. A change of a
/// policy is a change for each of its holders. Approval by a second person is decided elsewhere.
pub fn may_change(actor: Rights<'_>, before: Rights<'_>, after: Rights<'_>, now: Timestamp) -> bool {
    let denials: Vec<&CompiledRule> = denials_of(after).collect();
    let keeps_denials = denials_of(before)
        .filter(|old| !old.rule.conditions.has_ended(now))
        .all(|old| denials.iter().any(|new| new.contains(old, old.capabilities, now)));
    let is_added =
        |rule: &CompiledRule| !keeps_denials || !before.policies.iter().any(|p| p.rules().contains(rule));
    let lasting =
        after.policies.iter().flat_map(|policy| policy.rules()).filter(|rule| is_added(rule)).cloned();
    let ending = after
        .grants
        .iter()
        .filter(|grant| !keeps_denials || !before.grants.contains(grant))
        .flat_map(|grant| grant.rules().iter().filter_map(|rule| rule.until(grant.expires_at()).ok()));
    let added: Vec<CompiledRule> = lasting.chain(ending).collect();
    let wanted: Vec<&CompiledRule> = added.iter().chain(denials).collect();
    covers(actor.policies, actor.grants, &wanted, now)
}

/// What somebody holds.
#[derive(Debug, Clone, Copy)]
pub struct Rights<'a> {
    /// Their policies.
    pub policies: &'a [&'a CompiledPolicy],
    /// Their grants, also those that wait.
    pub grants: &'a [&'a Grant],
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is to be done.
    pub capability: Capability,
    /// To what.
    pub resource: &'a Resource,
    /// Where the request comes from, if known.
    pub address: Option<IpAddr>,
    /// The module that asks, as it says itself.
    pub module: Option<&'a str>,
    /// The time to decide by: a high-water mark, see [`crate::grant::HighWater`].
    pub now: Timestamp,
}

/// What something is done to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource {
    /// An environment, or Keymoat itself.
    pub scope: Scope,
    /// The company inside the environment.
    pub company: Option<Company>,
    /// The secret, or the part of Keymoat.
    pub path: ResourcePath,
    /// The field; rules do not look at it, records do.
    pub field: Option<Field>,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allowed {
        /// By which rule.
        by: DecidedBy,
    },
    /// It may not be done.
    Refused {
        /// Why.
        why: Refusal,
    },
}

impl Decision {
    /// Whether it may be done.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule allows it.
    #[error("no rule allows it")]
    NoRule,
    /// A rule denies it.
    #[error("rule `{by}` denies it")]
    Denied {
        /// Which rule.
        by: DecidedBy,
    },
    /// A rule would allow it under other conditions.
    #[error("rule `{by}` would allow it under another {which}")]
    ConditionFailed {
        /// Which rule.
        by: DecidedBy,
        /// Which of its conditions.
        which: ConditionKind,
    },
}

/// What one rule says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Which rule.
    pub by: DecidedBy,
    /// What it does where it matches.
    pub effect: Effect,
    /// Whether it matches.
    pub matched: RuleMatch,
}

/// Whether a rule matches, and the first thing that differs if not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleMatch {
    /// It matches.
    Matches,
    /// It speaks of other capabilities.
    Capability,
    /// It speaks of other environments.
    Environment,
    /// It speaks of other companies.
    Company,
    /// It speaks of other paths.
    Path,
    /// A condition does not hold, or, for a rule that allows, cannot be checked.
    Condition(ConditionKind),
}

/// A policy as it is written: TOML or JSON. Names and patterns are checked as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its rules; their order means nothing.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A rule as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whether it allows or denies.
    #[serde(default = "allow")]
    pub effect: Effect,
    /// What it speaks of.
    pub capabilities: Vec<Capability>,
    /// In which environments.
    pub environments: Vec<ScopePattern>,
    /// For which companies; by default any or none.
    #[serde(default = "any_company")]
    pub companies: Vec<CompanyPattern>,
    /// On which paths.
    pub paths: Vec<PathPattern>,
    /// Under which conditions; all must hold.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
}

/// Conditions of a rule; what is not given always holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The request comes from one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// From this time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until this time; at that moment it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// At these hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// The caller says it is one of these. It may say anything, so this narrows what a rule allows and is refused
    /// in a rule that denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModulePattern>,
}

/// Hours of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// The days on which they begin.
    pub days: Vec<Day>,
    /// From, as `09:00`.
    pub from: ClockTime,
    /// Until, as `17:30` or `24:00`; when before `from`, on the next day.
    pub to: ClockTime,
    /// `UTC` or a fixed offset such as `+02:00`.
    #[serde(default)]
    pub zone: Zone,
}

/// A time of day to the minute, `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockTime {
    minute: u16,
}

/// A fixed distance from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zone {
    offset_minutes: i16,
}

/// A policy ready to decide by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledPolicy {
    name: PolicyName,
    rules: Arc<[CompiledRule]>,
}

impl CompiledPolicy {
    /// Checks a policy and prepares it.
    ///
    /// # Errors
    /// When a limit is exceeded or a rule says nothing or contradicts itself.
    pub fn new(policy: Policy) -> Result<Self, PolicyError> {
        if policy.rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules);
        }
        if policy.description.len() > MAX_DESCRIPTION_BYTES {
            return Err(PolicyError::Description);
        }
        let compile = |(rule, written)| {
            CompiledRule::new(written).map_err(|problem| PolicyError::Rule { rule, problem })
        };
        let rules: Result<Vec<_>, _> = policy.rules.into_iter().enumerate().map(compile).collect();
        Ok(Self { name: policy.name, rules: rules?.into() })
    }

    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Its rules.
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }
}

/// A rule ready to decide by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledRule {
    rule: Rule,
    capabilities: u16,
}

impl CompiledRule {
    /// Checks a rule and prepares it.
    ///
    /// # Errors
    /// When it says nothing, has too many patterns, or has conditions that cannot be.
    pub fn new(rule: Rule) -> Result<Self, RuleError> {
        let lists = [
            ("capabilities", rule.capabilities.len()),
            ("environments", rule.environments.len()),
            ("companies", rule.companies.len()),
            ("paths", rule.paths.len()),
        ];
        if let Some((what, _)) = lists.iter().find(|(_, length)| *length == 0) {
            return Err(RuleError::Empty { what });
        }
        let conditions =
            [("networks", rule.conditions.networks.len()), ("modules", rule.conditions.modules.len())];
        if let Some((what, _)) = lists.iter().chain(&conditions).find(|(_, length)| *length > MAX_PATTERNS) {
            return Err(RuleError::TooMany { what });
        }
        check_conditions(&rule)?;
        let capabilities = rule.capabilities.iter().fold(0, |set, capability| set | bit(*capability));
        Ok(Self { rule, capabilities })
    }

    /// Whether it allows or denies.
    pub fn effect(&self) -> Effect {
        self.rule.effect
    }

    /// The rule as it was written.
    pub fn as_written(&self) -> &Rule {
        &self.rule
    }

    /// The same rule, ending no later than `end`: what a grant that ends then gives.
    ///
    /// # Errors
    /// When it would end before it starts.
    pub fn until(&self, end: Timestamp) -> Result<Self, RuleError> {
        let mut rule = self.rule.clone();
        rule.conditions.not_after = Some(rule.conditions.not_after.map_or(end, |own| own.min(end)));
        Self::new(rule)
    }

    /// Whether it matches a request.
    pub fn matches(&self, request: &Request<'_>) -> RuleMatch {
        let (rule, resource) = (&self.rule, request.resource);
        if self.capabilities & bit(request.capability) == 0 {
            return RuleMatch::Capability;
        }
        if !rule.environments.iter().any(|pattern| pattern.matches(&resource.scope)) {
            return RuleMatch::Environment;
        }
        if !rule.companies.iter().any(|pattern| pattern.matches(resource.company.as_ref())) {
            return RuleMatch::Company;
        }
        if !rule.paths.iter().any(|pattern| pattern.matches(&resource.path)) {
            return RuleMatch::Path;
        }
        match rule.conditions.first_failed(request, rule.effect) {
            Some(which) => RuleMatch::Condition(which),
            None => RuleMatch::Matches,
        }
    }

    fn contains(&self, other: &Self, capabilities: u16, now: Timestamp) -> bool {
        let (mine, theirs) = (&self.rule, &other.rule);
        self.capabilities & capabilities == capabilities
            && each_within(&theirs.environments, &mine.environments, ScopePattern::contains)
            && each_within(&theirs.companies, &mine.companies, CompanyPattern::contains)
            && each_within(&theirs.paths, &mine.paths, PathPattern::contains)
            && mine.conditions.contain(&theirs.conditions, now)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.rule, &other.rule);
        self.capabilities & other.capabilities != 0
            && any_pair(&mine.environments, &theirs.environments, ScopePattern::overlaps)
            && any_pair(&mine.companies, &theirs.companies, CompanyPattern::overlaps)
            && any_pair(&mine.paths, &theirs.paths, PathPattern::overlaps)
    }
}

impl Conditions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn first_failed(&self, request: &Request<'_>, effect: Effect) -> Option<ConditionKind> {
        let unknown = effect == Effect::Deny;
        let holds = |kind| match kind {
            ConditionKind::Network if self.networks.is_empty() => true,
            ConditionKind::Network => request
                .address
                .map_or(unknown, |address| self.networks.iter().any(|network| network.matches(address))),
            ConditionKind::Time => {
                self.not_before.is_none_or(|start| request.now >= start) && !self.has_ended(request.now)
            }
            ConditionKind::Hours => self.hours.as_ref().is_none_or(|hours| hours.matches(request.now)),
            ConditionKind::Module if self.modules.is_empty() => true,
            ConditionKind::Module => request
                .module
                .map_or(unknown, |module| self.modules.iter().any(|pattern| pattern.matches(module))),
        };
        ConditionKind::ALL.iter().copied().find(|kind| !holds(*kind))
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| now >= end)
    }

    /// Whether, from `now` on, these hold whenever `other` hold.
    fn contain(&self, other: &Self, now: Timestamp) -> bool {
        let networks = self.networks.is_empty()
            || (!other.networks.is_empty()
                && each_within(&other.networks, &self.networks, Network::contains));
        let modules = self.modules.is_empty()
            || (!other.modules.is_empty()
                && each_within(&other.modules, &self.modules, ModulePattern::contains));
        let starts = self
            .not_before
            .is_none_or(|start| now >= start || other.not_before.is_some_and(|later| later >= start));
        let ends = self.not_after.is_none_or(|end| other.not_after.is_some_and(|sooner| sooner <= end));
        let hours = self
            .hours
            .as_ref()
            .is_none_or(|mine| other.hours.as_ref().is_some_and(|theirs| mine.contain(theirs)));
        networks && modules && starts && ends && hours
    }
}

impl Hours {
    fn matches(&self, now: Timestamp) -> bool {
        let minutes = now.as_second().div_euclid(60);
        self.matches_minute(minutes.rem_euclid(MINUTES_A_WEEK))
    }

    /// `minute` counts from Thursday 00:00 UTC, as Unix time does.
    fn matches_minute(&self, minute: i64) -> bool {
        let local = (minute + i64::from(self.zone.offset_minutes)).rem_euclid(MINUTES_A_WEEK);
        let (day, minute) = (local / MINUTES_A_DAY, local % MINUTES_A_DAY);
        let (from, to) = (i64::from(self.from.minute), i64::from(self.to.minute));
        if from < to {
            return (from..to).contains(&minute) && self.has_day(day);
        }
        (minute >= from && self.has_day(day)) || (minute < to && self.has_day(day + 6))
    }

    /// `day` counts from Thursday.
    fn has_day(&self, day: i64) -> bool {
        let from_monday = (day + 3).rem_euclid(7);
        self.days.iter().any(|named| *named as i64 == from_monday)
    }

    fn contain(&self, other: &Self) -> bool {
        (0..MINUTES_A_WEEK).all(|minute| !other.matches_minute(minute) || self.matches_minute(minute))
    }
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More rules than allowed.
    #[error("policy has more than {MAX_RULES} rules")]
    TooManyRules,
    /// A description that is too long.
    #[error("description of the policy is longer than {MAX_DESCRIPTION_BYTES} bytes")]
    Description,
    /// A rule is wrong.
    #[error("rule {rule} {problem}")]
    Rule {
        /// Which, from 0.
        rule: usize,
        /// What is wrong with it.
        problem: RuleError,
    },
}

/// What is wrong with a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A list that must not be empty.
    #[error("has no {what}")]
    Empty {
        /// Which list.
        what: &'static str,
    },
    /// A list that is too long.
    #[error("has more than {MAX_PATTERNS} {what}")]
    TooMany {
        /// Which list.
        what: &'static str,
    },
    /// An end not after the start.
    #[error("ends before it starts")]
    EndsBeforeStart,
    /// Hours without a day, or with the same beginning and end.
    #[error("has hours that never are; name a day, and two different times")]
    Hours,
    /// A denial that hangs on what the caller says of itself.
    #[error("denies by module, but a caller could name another; deny without `modules`")]
    DenyByModule,
}

/// A policy that Keymoat brings along, ready to decide by.
pub fn built_in(name: &str) -> Option<CompiledPolicy> {
    let (_, document) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
    let policy = serde_json::from_str(document).expect("built-in policies are read by a test");
    Some(CompiledPolicy::new(policy).expect("built-in policies are compiled by a test"))
}

/// Where a rule stands.
#[derive(Clone, Copy)]
enum Source<'a> {
    Policy(&'a CompiledPolicy),
    Grant(&'a Grant),
}

impl Source<'_> {
    fn decided_by(self, number: usize) -> DecidedBy {
        let rule = u32::try_from(number).unwrap_or(u32::MAX);
        match self {
            Self::Policy(policy) => DecidedBy::Policy { name: policy.name.clone(), rule },
            Self::Grant(grant) => DecidedBy::Grant { id: grant.id(), rule },
        }
    }
}

/// A rule of somebody, with the end that a grant gives it.
struct Held<'a> {
    rule: &'a CompiledRule,
    ends: Option<Timestamp>,
}

fn all_rules<'a>(
    policies: &[&'a CompiledPolicy],
    grants: &[&'a Grant],
    now: Timestamp,
) -> impl Iterator<Item = (Source<'a>, usize, &'a CompiledRule)> {
    let of_policy = |policy: &&'a CompiledPolicy| {
        let policy = *policy;
        policy.rules().iter().enumerate().map(move |(number, rule)| (Source::Policy(policy), number, rule))
    };
    let of_grant = |grant: &'a Grant| {
        grant.rules().iter().enumerate().map(move |(number, rule)| (Source::Grant(grant), number, rule))
    };
    let active = grants.iter().copied().filter(move |grant| grant.is_active(now));
    policies.iter().flat_map(of_policy).chain(active.flat_map(of_grant))
}

fn held_rules<'a>(policies: &[&'a CompiledPolicy], grants: &[&'a Grant], now: Timestamp) -> Vec<Held<'a>> {
    let lasting = policies.iter().flat_map(|policy| policy.rules()).map(|rule| Held { rule, ends: None });
    let ending = grants
        .iter()
        .filter(|grant| grant.is_active(now) && grant.uses_left().is_none())
        .flat_map(|grant| grant.rules().iter().map(|rule| Held { rule, ends: Some(grant.expires_at()) }));
    lasting.chain(ending).collect()
}

fn denials_of(rights: Rights<'_>) -> impl Iterator<Item = &CompiledRule> {
    rights.policies.iter().flat_map(|policy| policy.rules()).filter(|rule| rule.effect() == Effect::Deny)
}

/// Whether each capability of a rule is contained in some rule held, for long enough.
fn is_held(held: &[Held<'_>], wanted: &CompiledRule, now: Timestamp) -> bool {
    let lasts = |held: &Held<'_>| {
        held.ends.is_none_or(|end| wanted.rule.conditions.not_after.is_some_and(|sooner| sooner <= end))
    };
    wanted.rule.capabilities.iter().all(|capability| {
        held.iter().any(|held| {
            held.rule.effect() == Effect::Allow
                && lasts(held)
                && held.rule.contains(wanted, bit(*capability), now)
        })
    })
}

/// Whether every denial that touches a rule comes along with it.
fn denials_are_kept(
    denials: &[&CompiledRule],
    rule: &CompiledRule,
    wanted: &[&CompiledRule],
    now: Timestamp,
) -> bool {
    let comes_along = |denial: &CompiledRule| {
        let shared = denial.capabilities & rule.capabilities;
        wanted.iter().any(|other| other.effect() == Effect::Deny && other.contains(denial, shared, now))
    };
    denials
        .iter()
        .filter(|denial| denial.overlaps(rule) && !denial.rule.conditions.has_ended(now))
        .all(|denial| comes_along(denial))
}

fn check_conditions(rule: &Rule) -> Result<(), RuleError> {
    let conditions = &rule.conditions;
    if let (Some(start), Some(end)) = (conditions.not_before, conditions.not_after)
        && end <= start
    {
        return Err(RuleError::EndsBeforeStart);
    }
    if let Some(hours) = &conditions.hours
        && (hours.days.is_empty() || hours.days.len() > Day::ALL.len() || hours.from == hours.to)
    {
        return Err(RuleError::Hours);
    }
    if rule.effect == Effect::Deny && !conditions.modules.is_empty() {
        return Err(RuleError::DenyByModule);
    }
    Ok(())
}

fn each_within<T>(inner: &[T], outer: &[T], contains: fn(&T, &T) -> bool) -> bool {
    inner.iter().all(|inner| outer.iter().any(|outer| contains(outer, inner)))
}

fn any_pair<T>(left: &[T], right: &[T], related: fn(&T, &T) -> bool) -> bool {
    left.iter().any(|left| right.iter().any(|right| related(left, right)))
}

fn bit(capability: Capability) -> u16 {
    1 << capability as u16
}

fn allow() -> Effect {
    Effect::Allow
}

fn any_company() -> Vec<CompanyPattern> {
    vec![CompanyPattern::AnyOrNone]
}

mod text {
    //! The text forms of times of day and zones.

    use super::{ClockTime, Zone};
    use crate::names::TextVisitor;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::fmt;
    use std::str::FromStr;

    /// A time of day or zone that was refused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    #[error("{0}")]
    pub struct ClockError(&'static str);

    impl FromStr for ClockTime {
        type Err = ClockError;

        fn from_str(text: &str) -> Result<Self, ClockError> {
            let minute = minutes(text).filter(|minute| *minute <= 24 * 60);
            minute.map(|minute| Self { minute }).ok_or(ClockError("time of day is not of the form `09:00`"))
        }
    }

    impl fmt::Display for ClockTime {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:02}:{:02}", self.minute / 60, self.minute % 60)
        }
    }

    impl FromStr for Zone {
        type Err = ClockError;

        fn from_str(text: &str) -> Result<Self, ClockError> {
            parse_zone(text).ok_or(ClockError("zone is neither `UTC` nor an offset such as `+02:00`"))
        }
    }

    impl fmt::Display for Zone {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if self.offset_minutes == 0 {
                return f.write_str("UTC");
            }
            let sign = if self.offset_minutes < 0 { '-' } else { '+' };
            let minutes = self.offset_minutes.unsigned_abs();
            write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
    }

    fn parse_zone(text: &str) -> Option<Zone> {
        if text == "UTC" {
            return Some(Zone::default());
        }
        let (sign, distance) = match text.strip_prefix('-') {
            Some(distance) => (-1, distance),
            None => (1, text.strip_prefix('+')?),
        };
        let minutes = minutes(distance).filter(|minutes| (1..=14 * 60).contains(minutes))?;
        Some(Zone { offset_minutes: sign * i16::try_from(minutes).ok()? })
    }

    fn minutes(text: &str) -> Option<u16> {
        let &[h1, h2, b':', m1, m2] = text.as_bytes() else { return None };
        let digit = |b: u8| char::from(b).to_digit(10).map(|digit| digit as u16);
        let (hours, minutes) = (digit(h1)? * 10 + digit(h2)?, digit(m1)? * 10 + digit(m2)?);
        (minutes < 60).then_some(hours * 60 + minutes)
    }

    macro_rules! as_text {
        ($($name:ident, $label:literal;)*) => {$(
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_str(TextVisitor::new($label))
                }
            }
        )*};
    }

    as_text! {
        ClockTime, "a time of day";
        Zone, "a zone";
    }
}
pub use text::ClockError;

/// Most rules in one policy: deciding looks at each of them.
pub const MAX_RULES: usize = 200;
/// Most rules in one grant.
pub const MAX_RULES_IN_GRANT: usize = 20;
/// Most patterns in each list of a rule.
pub const MAX_PATTERNS: usize = 50;
/// Most policies one principal may hold: with the other limits it bounds the work of a decision.
pub const MAX_POLICIES_HELD: usize = 32;
/// Longest description of a policy in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 1024;
/// Longest document of a policy in bytes; the caller checks it before reading.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// The policies Keymoat brings along: name and document.
pub const BUILT_IN: [(&str, &str); 3] =
    [("owner", OWNER), ("administrator", ADMINISTRATOR), ("auditor", AUDITOR)];
/// Everything, everywhere.
pub const OWNER: &str = r#"{"name":"owner","description":"everything, everywhere","rules":[
    {"capabilities":["list","inspect","match","reveal","use","write","rotate","delete","grant"],
     "environments":["*","sys"],"paths":["**"]}]}"#;
/// Everything but plaintext.
pub const ADMINISTRATOR: &str = r#"{"name":"administrator","description":"everything but plaintext","rules":[
    {"capabilities":["list","inspect","match","use","write","rotate","delete","grant"],
     "environments":["*","sys"],"paths":["**"]}]}"#;
/// The audit log, and names and metadata of everything.
pub const AUDITOR: &str = r#"{"name":"auditor","description":"the audit log, and names and metadata","rules":[
    {"capabilities":["list","inspect"],"environments":["*"],"paths":["**"]},
    {"capabilities":["inspect"],"environments":["sys"],"paths":["audit/**"]}]}"#;
const MINUTES_A_DAY: i64 = 24 * 60;
const MINUTES_A_WEEK: i64 = 7 * MINUTES_A_DAY;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditText;
    use crate::grant::{GrantParts, GrantState};
    use crate::id::{GrantId, PrincipalId};
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy(toml: &str) -> CompiledPolicy {
        CompiledPolicy::new(toml::from_str(toml).unwrap()).unwrap()
    }

    fn resource(scope: &str, company: Option<&str>, path: &str) -> Resource {
        Resource {
            scope: scope.parse().unwrap(),
            company: company.map(|company| company.parse().unwrap()),
            path: path.parse().unwrap(),
            field: None,
        }
    }

    fn ask(capability: Capability, resource: &Resource) -> Request<'_> {
        Request { capability, resource, address: None, module: None, now: at("2026-11-20T12:00:00Z") }
    }

    fn text_of(decision: &Decision) -> String {
        match decision {
            Decision::Allowed { by } => format!("allowed by {by}"),
            Decision::Refused { why } => why.to_string(),
        }
    }

    const ODOO: &str = r#"
        name = "odoo"
        description = "what the shop needs"
        [[rules]]
        capabilities = ["use", "reveal"]
        environments = ["prod"]
        companies = ["acme", "-"]
        paths = ["payments/**", "smtp"]
        [[rules]]
        effect = "deny"
        capabilities = ["reveal"]
        environments = ["*"]
        paths = ["payments/live/**"]
        [[rules]]
        capabilities = ["list"]
        environments = ["*"]
        paths = ["**"]
        conditions = { networks = ["10.0.0.0/8"], not_after = "2026-12-01T00:00:00Z" }
        [[rules]]
        effect = "deny"
        capabilities = ["write"]
        environments = ["dev"]
        paths = ["**"]
        conditions = { networks = ["192.0.2.0/24"] }
        [[rules]]
        capabilities = ["write"]
        environments = ["dev"]
        paths = ["**"]
        conditions = { modules = ["payment_*"] }
    "#;

    #[test]
    fn decisions() {
        let odoo = policy(ODOO);
        let check = |capability, scope: &str, company, path: &str, expected: &str| {
            let resource = resource(scope, company, path);
            let decision = decide(&[&odoo], &[], &ask(capability, &resource));
            assert_eq!(text_of(&decision), expected, "{capability} {scope} {company:?} {path}");
        };
        check(Capability::Use, "prod", Some("acme"), "payments/stripe", "allowed by policy:odoo#0");
        check(Capability::Use, "prod", None, "smtp", "allowed by policy:odoo#0");
        check(Capability::Use, "prod", Some("other"), "smtp", "no rule allows it");
        check(Capability::Use, "dev", None, "smtp", "no rule allows it");
        check(Capability::Use, "sys", None, "smtp", "no rule allows it");
        check(Capability::Reveal, "prod", None, "payments/live/stripe", "rule `policy:odoo#1` denies it");
        check(Capability::Use, "prod", None, "payments/live/stripe", "allowed by policy:odoo#0");
        check(
            Capability::List,
            "prod",
            None,
            "x",
            "rule `policy:odoo#2` would allow it under another network",
        );
        check(Capability::List, "sys", None, "x", "no rule allows it");
        check(Capability::Write, "dev", None, "x", "rule `policy:odoo#3` denies it");
    }

    #[test]
    fn a_path_reaches_into_no_environment() {
        let inside = policy(
            r#"
            name = "dev"
            [[rules]]
            capabilities = ["reveal"]
            environments = ["dev"]
            paths = ["**", "prod/**", "dev/**"]
            "#,
        );
        for (scope, path, is_allowed) in [
            ("dev", "prod/stripe", true),
            ("dev", "stripe", true),
            ("prod", "stripe", false),
            ("prod", "prod/stripe", false),
            ("prod", "dev/stripe", false),
            ("development", "stripe", false),
            ("de", "v/stripe", false),
        ] {
            let resource = resource(scope, None, path);
            let decision = decide(&[&inside], &[], &ask(Capability::Reveal, &resource));
            assert_eq!(matches!(decision, Decision::Allowed { .. }), is_allowed, "{scope} {path}");
        }
    }

    #[test]
    fn conditions() {
        let odoo = policy(ODOO);
        let dev = resource("dev", None, "x");
        let check = |request: Request<'_>, expected: &str| {
            assert_eq!(text_of(&decide(&[&odoo], &[], &request)), expected, "{request:?}");
        };
        let address = |text: &str| Some(text.parse().unwrap());
        let list = ask(Capability::List, &dev);
        check(Request { address: address("10.1.2.3"), ..list }, "allowed by policy:odoo#2");
        check(Request { address: address("::ffff:10.1.2.3"), ..list }, "allowed by policy:odoo#2");
        check(
            Request { address: address("11.1.2.3"), ..list },
            "rule `policy:odoo#2` would allow it under another network",
        );
        check(
            Request { address: address("10.1.2.3"), now: at("2026-12-01T00:00:00Z"), ..list },
            "rule `policy:odoo#2` would allow it under another time",
        );
        let write = Request { address: address("10.1.2.3"), ..ask(Capability::Write, &dev) };
        check(write, "rule `policy:odoo#4` would allow it under another module");
        check(Request { module: Some("payment_stripe"), ..write }, "allowed by policy:odoo#4");
        check(
            Request { module: Some("sale"), ..write },
            "rule `policy:odoo#4` would allow it under another module",
        );
        check(
            Request { module: Some("payment_stripe"), address: address("192.0.2.7"), ..write },
            "rule `policy:odoo#3` denies it",
        );
    }

    #[test]
    fn hours() {
        let check = |hours: &str, now: &str, expected: bool| {
            let hours: Hours = serde_json::from_str(hours).unwrap();
            assert_eq!(hours.matches(at(now)), expected, "{hours:?} {now}");
        };
        // 2026-11-20 is a Friday.
        let office = r#"{"days":["monday","friday"],"from":"09:00","to":"17:30"}"#;
        check(office, "2026-11-20T09:00:00Z", true);
        check(office, "2026-11-20T17:29:59.9Z", true);
        check(office, "2026-11-20T17:30:00Z", false);
        check(office, "2026-11-20T08:59:59Z", false);
        check(office, "2026-11-19T12:00:00Z", false);
        check(office, "2026-11-23T12:00:00Z", true);
        check(office, "1969-12-29T12:00:00Z", true);
        let cairo = r#"{"days":["friday"],"from":"00:00","to":"24:00","zone":"+02:00"}"#;
        check(cairo, "2026-11-19T22:00:00Z", true);
        check(cairo, "2026-11-19T21:59:00Z", false);
        check(cairo, "2026-11-20T21:59:59Z", true);
        check(cairo, "2026-11-20T22:00:00Z", false);
        let night = r#"{"days":["friday"],"from":"22:00","to":"06:00"}"#;
        check(night, "2026-11-20T22:00:00Z", true);
        check(night, "2026-11-21T05:59:00Z", true);
        check(night, "2026-11-21T06:00:00Z", false);
        check(night, "2026-11-20T05:00:00Z", false);
        for text in ["UTC", "+02:00", "-09:30", "+14:00"] {
            assert_eq!(text.parse::<Zone>().unwrap().to_string(), text);
        }
        for bad in ["utc", "", "Z", "+2:00", "+14:01", "+00:00", "-00:00", "Europe/Paris", "+02:60"] {
            assert!(bad.parse::<Zone>().is_err(), "{bad}");
        }
        for bad in ["9:00", "24:01", "12:60", "", "12.00", "+1:00"] {
            assert!(bad.parse::<ClockTime>().is_err(), "{bad}");
        }
    }

    #[test]
    fn refused_documents() {
        let rule = |rest: &str| {
            format!(
                "name=\"p\"\n[[rules]]\ncapabilities=[\"use\"]\nenvironments=[\"*\"]\npaths=[\"**\"]\n{rest}"
            )
        };
        let check = |document: String, expected: &str| {
            let error = match toml::from_str::<Policy>(&document) {
                Err(error) => error.to_string(),
                Ok(policy) => CompiledPolicy::new(policy).expect_err(expected).to_string(),
            };
            assert!(error.contains(expected), "{document}: {error}");
        };
        assert!(toml::from_str::<Policy>(&rule("")).is_ok());
        check(rule("colour=\"red\""), "unknown field `colour`");
        check(rule("effect=\"Allow\""), "allowed: `allow`, `deny`");
        check(rule("companies=[]"), "rule 0 has no companies");
        check(rule("companies=[\"ACME\"]"), "pattern of companies is malformed");
        check(rule("").replace("\"use\"", ""), "rule 0 has no capabilities");
        check(rule("").replace("\"use\"", "\"root\""), "unknown capability");
        check(rule("").replace("[\"**\"]", "[\"a/**/b\"]"), "pattern of paths is malformed");
        check(rule("").replace("[\"**\"]", &format!("[{}]", "\"a\",".repeat(51))), "more than 50 paths");
        check(rule("").replace("\"p\"", "\"Owner \""), "policy name");
        check(rule("conditions={networks=[\"10.0.0.1/8\"]}"), "network is malformed");
        check(rule("effect=\"deny\"\nconditions={modules=[\"sale\"]}"), "deny without `modules`");
        check(
            rule("conditions={not_before=\"2026-01-02T00:00:00Z\",not_after=\"2026-01-01T00:00:00Z\"}"),
            "ends before it starts",
        );
        check(
            rule("conditions={hours={days=[],from=\"09:00\",to=\"10:00\"}}"),
            "rule 0 has hours that never are",
        );
        let many = format!("name=\"p\"\n{}", rule("").split_once('\n').unwrap().1.repeat(201));
        check(many, "more than 200 rules");
    }

    #[test]
    fn documents_round_trip() {
        let read: Policy = toml::from_str(ODOO).unwrap();
        assert_eq!(toml::from_str::<Policy>(&toml::to_string(&read).unwrap()).unwrap(), read);
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), read);
    }

    #[test]
    fn explanations() {
        let odoo = policy(ODOO);
        let secret = resource("prod", Some("other"), "smtp");
        let lines: Vec<_> =
            explain(&[&odoo], &[], &ask(Capability::Use, &secret)).iter().map(|line| line.matched).collect();
        use RuleMatch::{Capability as OtherCapability, Company};
        assert_eq!(lines, [Company, OtherCapability, OtherCapability, OtherCapability, OtherCapability]);
    }

    #[test]
    fn what_ends_or_runs_out_is_not_passed_on_for_longer() {
        let toml = "name=\"p\"\n[[rules]]\ncapabilities=[\"use\"]\nenvironments=[\"prod\"]\npaths=[\"**\"]";
        let rule = policy(toml).rules()[0].clone();
        let check = |uses_left, now: i64, wanted: &CompiledRule, expected: bool| {
            let grant = grant_of(std::slice::from_ref(&rule), 0, 100, uses_left).unwrap();
            assert_eq!(covers(&[], &[&grant], &[wanted], second(now)), expected, "{uses_left:?} {now}");
        };
        check(None, 10, &rule, false);
        check(None, 10, &rule.until(second(101)).unwrap(), false);
        check(None, 10, &rule.until(second(100)).unwrap(), true);
        check(None, -1, &rule.until(second(100)).unwrap(), false);
        check(Some(3), 10, &rule.until(second(100)).unwrap(), false);
    }

    #[test]
    fn dropping_a_denial_brings_rights_back() {
        let rule = |effect: &str, path: &str| {
            format!(
                "[[rules]]\neffect=\"{effect}\"\ncapabilities=[\"reveal\"]\nenvironments=[\"prod\"]\npaths=[\"{path}\"]\n"
            )
        };
        let policy = |rules: &str| policy(&format!("name=\"p\"\n{rules}"));
        let (all, denial) = (policy(&rule("allow", "**")), policy(&rule("deny", "live/**")));
        let (limited, narrower) = ([&all, &denial], policy(&rule("deny", "live/stripe")));
        let now = at("2026-11-20T12:00:00Z");
        let check =
            |actor: &[&CompiledPolicy], before: &[&CompiledPolicy], after: &[&CompiledPolicy], expected| {
                let rights = |policies| Rights { policies, grants: &[] };
                assert_eq!(may_change(rights(actor), rights(before), rights(after), now), expected);
            };
        check(&limited, &limited, &[&all], false);
        check(&limited, &limited, &[&all, &narrower], false);
        check(&limited, &limited, &[&denial], true);
        check(&limited, &limited, &[], true);
        check(&limited, &[], &[&all], false);
        check(&limited, &[], &limited, true);
        check(&limited, &[&denial], &limited, true);
        check(&[&all], &limited, &[&all], true);
        check(&[], &[&all], &limited, true);
        check(&[], &limited, &[&all], false);
    }

    #[test]
    fn built_in_policies() {
        let may = |name: &str, capability, scope: &str, path: &str| {
            let resource = resource(scope, Some("acme"), path);
            decide(&[&built_in(name).unwrap()], &[], &ask(capability, &resource)).is_allowed()
        };
        for capability in Capability::ALL.iter().copied() {
            for (scope, path) in [("prod", "stripe"), ("sys", "accounts/odoo")] {
                assert!(may("owner", capability, scope, path));
                assert_eq!(may("administrator", capability, scope, path), capability != Capability::Reveal);
            }
            let sees = matches!(capability, Capability::List | Capability::Inspect);
            assert_eq!(may("auditor", capability, "prod", "stripe"), sees);
            assert_eq!(may("auditor", capability, "sys", "audit/events"), capability == Capability::Inspect);
            assert!(!may("auditor", capability, "sys", "accounts/odoo"));
        }
        for (name, _) in BUILT_IN {
            assert_eq!(built_in(name).unwrap().name().as_str(), name);
        }
        assert!(built_in("Owner").is_none());
        let (owner, administrator) = (built_in("owner").unwrap(), built_in("administrator").unwrap());
        let now = at("2026-11-20T12:00:00Z");
        let passes = |holder: &CompiledPolicy, wanted: &CompiledPolicy| {
            covers(&[holder], &[], &wanted.rules().iter().collect::<Vec<_>>(), now)
        };
        assert!(passes(&owner, &administrator) && passes(&owner, &owner));
        assert!(!passes(&administrator, &owner));
        assert!(passes(&administrator, &built_in("auditor").unwrap()));
    }

    const SECONDS: [i64; 5] = [0, 100, 200, 300, 400];
    /// A Friday, 12:00 UTC.
    const NOON: i64 = 1_795_176_000;

    fn second(offset: i64) -> Timestamp {
        Timestamp::from_second(NOON + offset).unwrap()
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: Vec<&str>) -> Vec<T> {
        texts.into_iter().map(|text| text.parse().unwrap()).collect()
    }

    fn some_of<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug + Clone + 'static>(
        texts: &'static [&'static str],
        most: usize,
    ) -> impl Strategy<Value = Vec<T>> {
        prop::collection::vec(prop::sample::select(texts), 1..=most).prop_map(parsed)
    }

    fn any_conditions() -> impl Strategy<Value = Conditions> {
        let moment = || prop::option::weighted(0.3, prop::sample::select(SECONDS.to_vec()));
        let hours = (
            prop::collection::vec(prop::sample::select(vec![Day::Friday, Day::Saturday]), 1..3),
            prop::sample::select(vec!["00:00", "12:02", "11:00"]),
            prop::sample::select(vec!["12:04", "24:00", "10:00"]),
            prop::sample::select(vec!["UTC", "+12:00"]),
        )
            .prop_map(|(days, from, to, zone)| Hours {
                days,
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                zone: zone.parse().unwrap(),
            });
        let networks = prop_oneof![
            3 => Just(Vec::new()),
            2 => some_of::<Network>(&["10.0.0.0/8", "10.0.0.0/16", "10.0.0.1", "192.0.2.0/24"], 2),
        ];
        let modules = prop_oneof![
            3 => Just(Vec::new()),
            1 => some_of::<ModulePattern>(&["odoo", "odoo*", "sale"], 2),
        ];
        (networks, moment(), moment(), prop::option::weighted(0.2, hours), modules).prop_map(
            |(networks, start, end, hours, modules)| Conditions {
                networks,
                not_before: start.map(second),
                not_after: end.map(second),
                hours,
                modules,
            },
        )
    }

    fn any_rule() -> impl Strategy<Value = CompiledRule> {
        let conditions = prop_oneof![3 => Just(Conditions::default()), 2 => any_conditions()];
        (
            prop_oneof![4 => Just(Effect::Allow), 1 => Just(Effect::Deny)],
            some_of::<Capability>(&["reveal", "use"], 2),
            some_of::<ScopePattern>(&["prod", "dev", "*", "p*", "sys"], 2),
            some_of::<CompanyPattern>(&["*", "-", "acme", "a*", "beta"], 2),
            some_of::<PathPattern>(&["**", "a", "a/**", "a/b", "*", "*/b", "a*", "ab/*", "a*/**"], 2),
            conditions,
        )
            .prop_map(|(effect, capabilities, environments, companies, paths, mut conditions)| {
                if effect == Effect::Deny {
                    conditions.modules.clear();
                }
                if conditions.not_before >= conditions.not_after {
                    conditions.not_before = None;
                }
                let rule = Rule { effect, capabilities, environments, companies, paths, conditions };
                CompiledRule::new(rule).unwrap()
            })
    }

    fn policy_of(rules: &[CompiledRule]) -> CompiledPolicy {
        CompiledPolicy { name: "made-up".parse().unwrap(), rules: rules.into() }
    }

    fn grant_of(rules: &[CompiledRule], starts: i64, ends: i64, uses_left: Option<u32>) -> Option<Grant> {
        Grant::new(GrantParts {
            id: GrantId::from_parts(1, &[0; 10]),
            principal: PrincipalId::from_parts(1, &[1; 10]),
            rules: rules.iter().filter(|rule| rule.effect() == Effect::Allow).cloned().collect(),
            starts_at: second(starts),
            expires_at: second(ends),
            uses_left,
            state: GrantState::Active,
            granted_by: PrincipalId::from_parts(1, &[2; 10]),
            reason: AuditText::new("a test"),
            break_glass: false,
        })
        .ok()
    }

    fn universe(is_large: bool) -> Vec<(Capability, Resource, Option<IpAddr>, Option<&'static str>)> {
        let scopes: &[&str] = if is_large { &["prod", "dev", "sys"] } else { &["prod", "dev"] };
        let companies: &[Option<&str>] =
            if is_large { &[None, Some("acme"), Some("beta"), Some("abc")] } else { &[None, Some("acme")] };
        let paths: &[&str] =
            if is_large { &["a", "a/b", "ab", "ab/b", "a/b/c"] } else { &["a", "a/b", "ab"] };
        let addresses: &[Option<&str>] = if is_large {
            &[None, Some("10.0.0.1"), Some("10.0.9.1"), Some("10.9.0.1"), Some("192.0.2.1")]
        } else {
            &[None, Some("10.0.0.1")]
        };
        let modules: &[Option<&str>] =
            if is_large { &[None, Some("odoo"), Some("odoo_x")] } else { &[None, Some("odoo")] };
        let mut all = Vec::new();
        for capability in [Capability::Reveal, Capability::Use] {
            for (scope, company) in scopes.iter().flat_map(|s| companies.iter().map(move |c| (s, c))) {
                for (path, address) in paths.iter().flat_map(|p| addresses.iter().map(move |a| (p, a))) {
                    for module in modules {
                        let address = address.map(|address| address.parse().unwrap());
                        all.push((capability, resource(scope, *company, path), address, *module));
                    }
                }
            }
        }
        all
    }

    /// One somebody, with what they hold.
    #[derive(Debug, Clone, Default)]
    struct Holder {
        policies: Vec<CompiledPolicy>,
        grants: Vec<Grant>,
    }

    impl Holder {
        fn may(&self, request: &Request<'_>) -> bool {
            let (policies, grants): (Vec<_>, Vec<_>) =
                (self.policies.iter().collect(), self.grants.iter().collect());
            decide(&policies, &grants, request).is_allowed()
        }

        fn may_pass_on(&self, rules: &[CompiledRule], now: Timestamp) -> bool {
            let (policies, grants): (Vec<_>, Vec<_>) =
                (self.policies.iter().collect(), self.grants.iter().collect());
            covers(&policies, &grants, &rules.iter().collect::<Vec<_>>(), now)
        }
    }

    fn any_holder() -> impl Strategy<Value = Holder> {
        let rules = || prop::collection::vec(any_rule(), 1..4);
        let grant = (rules(), prop::sample::select(vec![-100i64, 100]), prop::option::weighted(0.2, 1u32..3))
            .prop_map(|(rules, starts, uses)| grant_of(&rules, starts, starts + 200, uses));
        (prop::collection::vec(rules(), 0..3), prop::collection::vec(grant, 0..2)).prop_map(
            |(policies, grants)| Holder {
                policies: policies.iter().map(|rules| policy_of(rules)).collect(),
                grants: grants.into_iter().flatten().collect(),
            },
        )
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Gives a policy to somebody, perhaps oneself or somebody new.
        Attach { actor: usize, target: usize, rules: Vec<CompiledRule> },
        /// Replaces a policy of somebody.
        Replace { actor: usize, target: usize, which: usize, rules: Vec<CompiledRule> },
        /// Passes on rules that somebody holds, as they are or ending sooner.
        Copy { actor: usize, target: usize, which: usize, lasts: Option<i64> },
        /// Takes a policy away.
        Remove { actor: usize, target: usize, which: usize },
        /// Lets time pass.
        Wait(i64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let rules = || prop::collection::vec(any_rule(), 1..3);
        prop_oneof![
            3 => (0usize..4, 0usize..4, rules()).prop_map(|(actor, target, rules)| Step::Attach { actor, target, rules }),
            2 => (0usize..4, 0usize..4, 0usize..3, rules())
                .prop_map(|(actor, target, which, rules)| Step::Replace { actor, target, which, rules }),
            4 => (0usize..4, 0usize..4, 0usize..3, prop::option::of(1i64..300))
                .prop_map(|(actor, target, which, lasts)| Step::Copy { actor, target, which, lasts }),
            1 => (0usize..4, 0usize..4, 0usize..3)
                .prop_map(|(actor, target, which)| Step::Remove { actor, target, which }),
            1 => (1i64..150).prop_map(Step::Wait),
        ]
    }

    /// Does a step if [`may_change`] allows it; says whether it was done.
    fn take(family: &mut [Holder; 4], now: &mut i64, step: &Step) -> bool {
        let (actor, target) = match step {
            Step::Wait(seconds) => {
                *now += seconds;
                return false;
            }
            Step::Attach { actor, target, .. }
            | Step::Replace { actor, target, .. }
            | Step::Remove { actor, target, .. }
            | Step::Copy { actor, target, .. } => (*actor, *target),
        };
        let Some(after) = changed(&family[actor], &family[target], *now, step) else { return false };
        let may = with_rights(&family[actor], |holder| {
            with_rights(&family[target], |before| {
                with_rights(&after, |after| may_change(holder, before, after, second(*now)))
            })
        });
        if may {
            family[target] = after;
        }
        may
    }

    /// What the target would hold after a step.
    fn changed(actor: &Holder, target: &Holder, now: i64, step: &Step) -> Option<Holder> {
        let mut after = target.clone();
        match step {
            Step::Wait(_) => return None,
            Step::Attach { rules, .. } => after.policies.push(policy_of(rules)),
            Step::Replace { which, rules, .. } => *after.policies.get_mut(*which)? = policy_of(rules),
            Step::Remove { which, .. } => {
                after.policies.get(*which)?;
                after.policies.remove(*which);
            }
            Step::Copy { which, lasts, .. } => {
                let policies = actor.policies.iter().map(CompiledPolicy::rules);
                let rules = policies.chain(actor.grants.iter().map(Grant::rules)).nth(*which)?;
                match lasts {
                    None => after.policies.push(policy_of(rules)),
                    Some(lasts) => after.grants.push(grant_of(rules, now, now + lasts, None)?),
                }
            }
        }
        Some(after)
    }

    fn with_rights<R>(holder: &Holder, work: impl FnOnce(Rights<'_>) -> R) -> R {
        let (policies, grants): (Vec<_>, Vec<_>) =
            (holder.policies.iter().collect(), holder.grants.iter().collect());
        work(Rights { policies: &policies, grants: &grants })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, max_shrink_iters: 2000, ..ProptestConfig::default() })]
        #[test]
        fn what_covers_says_holds_for_every_request(
            holder in any_holder(),
            mut wanted in prop::collection::vec(any_rule(), 1..3),
            own in prop::option::of((prop::sample::Index::arbitrary(), prop::sample::Index::arbitrary())),
            now in prop::sample::select(vec![0i64, 50, 150, 250]),
        ) {
            if let Some((which, rule)) = own
                && !holder.policies.is_empty()
            {
                let rules = holder.policies[which.index(holder.policies.len())].rules();
                wanted[0] = rules[rule.index(rules.len())].clone();
            }
            if holder.may_pass_on(&wanted, second(now)) {
                let given = Holder { policies: vec![policy_of(&wanted)], grants: vec![] };
                for (capability, resource, address, module) in &universe(true) {
                    for later in [0, 60, 110, 180, 260, 12 * 3600] {
                        let request = Request {
                            capability: *capability,
                            resource,
                            address: *address,
                            module: *module,
                            now: second(now + later),
                        };
                        if given.may(&request) {
                            prop_assert!(holder.may(&request), "{:?}", request);
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 2000, ..ProptestConfig::default() })]
        #[test]
        fn nobody_ends_up_with_more_than_they_began_with(
            first in any_holder(),
            steps in prop::collection::vec(any_step(), 1..12),
        ) {
            let mut family = [first.clone(), Holder::default(), Holder::default(), Holder::default()];
            let mut now = 0;
            let taken = steps.iter().filter(|step| take(&mut family, &mut now, step)).count();
            if taken > 0 {
                for (capability, resource, address, module) in &universe(false) {
                    for later in [0, 70, 190] {
                        let request = Request {
                            capability: *capability,
                            resource,
                            address: *address,
                            module: *module,
                            now: second(now + later),
                        };
                        if family.iter().any(|holder| holder.may(&request)) {
                            prop_assert!(first.may(&request), "{:?}", request);
                        }
                    }
                }
            }
        }

        #[test]
        fn deciding_and_explaining_agree(
            holder in any_holder(),
            which: prop::sample::Index,
            later in 0i64..400,
        ) {
            let universe = universe(false);
            let (capability, resource, address, module) = &universe[which.index(universe.len())];
            let request = Request {
                capability: *capability, resource, address: *address, module: *module, now: second(later),
            };
            let (policies, grants): (Vec<_>, Vec<_>) = (holder.policies.iter().collect(), holder.grants.iter().collect());
            let lines = explain(&policies, &grants, &request);
            let has = |effect| lines.iter().any(|line| line.effect == effect && line.matched == RuleMatch::Matches);
            let expected = has(Effect::Allow) && !has(Effect::Deny);
            prop_assert_eq!(decide(&policies, &grants, &request).is_allowed(), expected);
        }

        #[test]
        fn documents_take_anything(text in ".{0,80}|[a-z\"\\[\\]{}:,*/ ]{0,60}") {
            let _ = serde_json::from_str::<Policy>(&text);
            let _ = toml::from_str::<Policy>(&text);
        }
    }
}
