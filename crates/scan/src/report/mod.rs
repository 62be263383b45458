//! What a scan has found, made ready to be read: each value once, with where it stands, since when, how bad that is, and
//! what to do first; in the order in which it should be dealt with.
//!
//! A [`Report`] is written as text, JSON, JSON lines, SARIF, CSV or a page of HTML. It holds masks and keyed
//! fingerprints, never a value. It reads no clock and writes no file: the caller does.

mod advice;
mod csv;
mod html;
mod json;
mod liveness;
mod order;
mod sarif;
mod sharing;
mod spot;
mod summary;
mod text;

use std::collections::BTreeMap;

use keymoat_detect::{Engine, Kind, Mode, Rule, Severity};

use crate::baseline::Baseline;
use crate::finding::{Finding, Fingerprint};
use crate::remote::Remote;
use crate::trouble::Troubles;
pub use advice::Fix;
pub use liveness::Liveness;
pub use order::Reach;
pub(crate) use spot::printable;
pub use spot::{Commit, Spot};
pub use text::Colors;

/// What a scan has found, ready to be read.
#[derive(Debug, Clone)]
pub struct Report {
    /// The version of the program.
    pub version: String,
    /// When the scan ended, in seconds since 1970.
    pub made: i64,
    /// What was looked into.
    pub targets: Vec<Target>,
    /// What was found, what is most urgent first.
    pub findings: Vec<Reported>,
    /// How many findings are in the baseline and therefore left out.
    pub known: u64,
    /// What is no finding and should be changed all the same.
    pub warnings: Vec<String>,
    /// What could not be looked into.
    pub skipped: Skipped,
    /// What was known.
    pub baseline: Option<Baseline>,
}

/// Something that was looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// As it was named.
    pub name: String,
    /// Whether it is a submodule of the target before, whose places are told by its own path.
    pub is_submodule: bool,
    /// Where a repository is pushed to.
    pub remotes: Vec<Remote>,
    /// What was read of it, in words and numbers: `commits`, `files`.
    pub read: Vec<(&'static str, u64)>,
}

/// A target with what was found in it.
#[derive(Debug)]
pub struct Searched {
    /// The target.
    pub target: Target,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// A finding as a report tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The stable name of what it was found as: `stripe/live_secret`.
    pub rule: String,
    /// What it is, for people.
    pub title: String,
    /// Id and name of the provider.
    pub provider: Option<(String, String)>,
    /// What it is for.
    pub kind: Kind,
    /// Whether it moves real money and data.
    pub mode: Mode,
    /// How bad it is as a kind of key.
    pub severity: Severity,
    /// How bad it is where it stands.
    pub level: Severity,
    /// Names the value without telling it.
    pub fingerprint: Fingerprint,
    /// The same, also where the finding is that a value stands in two environments.
    pub value: Fingerprint,
    /// What the provider says of it, where that was asked.
    pub liveness: Option<Liveness>,
    /// The value as it may be shown.
    pub mask: String,
    /// How far it has got: of all places the worst.
    pub reach: Reach,
    /// Whether one of its places has been pushed to where anybody may read it, as far as names tell.
    pub looks_public: bool,
    /// When it first came into a history, in seconds since 1970.
    pub since: Option<i64>,
    /// Where it stands, the worst first; never empty.
    pub spots: Vec<Spot>,
    /// What to do.
    pub fix: Fix,
}

/// What could not be looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many things.
    pub total: u64,
    /// How many for which reason.
    pub reasons: BTreeMap<String, u64>,
    /// The first of them: what, and why.
    pub list: Vec<(String, String)>,
}

/// What a report says beside the findings.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The version of the program.
    pub version: String,
    /// When the scan ended, in seconds since 1970.
    pub made: i64,
    /// What is no finding and should be changed all the same.
    pub warnings: Vec<String>,
}

impl Report {
    /// Puts together what was found in all targets: the same value is one finding, and what the baseline knows is left
    /// out.
    pub fn new(
        engine: &Engine,
        searched: Vec<Searched>,
        baseline: Option<Baseline>,
        troubles: &Troubles,
        about: About,
    ) -> Self {
        let many = searched.iter().filter(|searched| !searched.target.is_submodule).count() > 1;
        let mut values: BTreeMap<(String, Fingerprint), Reported> = BTreeMap::new();
        let (mut targets, mut warnings) = (Vec::new(), about.warnings);
        for Searched { target, findings } in searched {
            for finding in findings {
                let rule = engine.rule(finding.rule);
                if finding.unlisted > 0 {
                    let (title, mask, more) = (title(&rule), &finding.mask, finding.unlisted);
                    warnings.push(format!("{title} {mask} stands in {more} more places than are listed"));
                }
                let new = reported(&rule, &finding, &target, many);
                match values.entry((new.rule.clone(), new.fingerprint)) {
                    std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().join(new),
                    std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(new)),
                }
            }
            targets.push(target);
        }
        let mut findings: Vec<Reported> = values.into_values().collect();
        let shared: Vec<Reported> = findings.iter().flat_map(sharing::of).collect();
        findings.extend(shared);
        let all = findings.len();
        findings.retain(|finding| baseline.as_ref().is_none_or(|known| !known.has(&finding.fingerprint)));
        let known = (all - findings.len()) as u64;
        order::sort(&mut findings);
        Self {
            version: about.version,
            made: about.made,
            targets,
            findings,
            known,
            warnings,
            skipped: Skipped::of(troubles),
            baseline,
        }
    }

    /// Takes in what providers say of the values, and puts the findings in order anew.
    pub fn tell(&mut self, of: impl Fn(&Reported) -> Option<Liveness>) {
        for finding in &mut self.findings {
            finding.liveness = of(finding).map(Liveness::printable);
        }
        order::sort(&mut self.findings);
    }

    /// Whether anything was found that the baseline does not know.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

fn reported(rule: &Rule<'_>, finding: &Finding, target: &Target, many: bool) -> Reported {
    let within = (many || target.is_submodule).then_some(target.name.as_str());
    let spots = finding.places.iter().map(|place| spot::of(place, within)).collect();
    let mut reported = Reported {
        rule: rule.name(),
        title: title(rule),
        provider: rule.provider.map(|provider| (provider.id.clone(), provider.name.clone())),
        kind: rule.kind,
        mode: rule.mode,
        severity: finding.severity,
        level: finding.severity,
        fingerprint: finding.fingerprint,
        value: finding.fingerprint,
        liveness: None,
        mask: finding.mask.clone(),
        reach: Reach::Unreachable,
        looks_public: false,
        since: None,
        fix: advice::of(rule),
        spots,
    };
    reported.looks_public = target.remotes.iter().any(Remote::looks_public)
        && reported.spots.iter().any(|spot| spot.reach.is_pushed());
    reported.weigh();
    reported
}

impl Reported {
    /// Takes in the places that the same value has elsewhere.
    fn join(&mut self, other: Self) {
        self.looks_public |= other.looks_public;
        self.spots.extend(other.spots);
        self.weigh();
    }

    fn weigh(&mut self) {
        spot::settle(&mut self.spots);
        self.reach = self.spots.iter().map(|spot| spot.reach).min().unwrap_or(Reach::Unreachable);
        self.since = self.spots.iter().filter_map(|spot| spot.first.as_ref()).map(|first| first.date).min();
        self.level = order::level(self.severity, self.mode, self.reach, self.looks_public);
    }

    /// Whether it works on test data only.
    pub fn is_test(&self) -> bool {
        self.mode == Mode::Test
    }

    /// Whether its provider has said that it works.
    pub fn is_active(&self) -> bool {
        matches!(self.liveness, Some(Liveness::Active { .. }))
    }

    /// Whether its provider has said that it works no more.
    pub fn is_dead(&self) -> bool {
        self.liveness == Some(Liveness::Dead)
    }

    /// What it stands under: its level, or what makes that matter less.
    fn heading(&self) -> &'static str {
        match (self.is_dead(), self.is_test()) {
            (true, _) => "dead",
            (_, true) => "test",
            _ => self.level.as_str(),
        }
    }
}

/// `Stripe secret key, live`.
fn title(rule: &Rule<'_>) -> String {
    let Some(provider) = rule.provider else {
        let mut title = rule.title();
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        return title;
    };
    let what = match rule.kind {
        Kind::Secret => "secret key",
        Kind::Restricted => "restricted key",
        Kind::Admin => "administrator's key",
        Kind::Publishable => "publishable key",
        Kind::Webhook => "webhook secret",
        Kind::AccountId => "account id",
        Kind::KeyId => "key id",
        Kind::ClientId => "client id",
        Kind::ClientSecret => "client secret",
        Kind::Token => "token",
        Kind::Password => "password",
        Kind::Url => "address with a password",
    };
    let mode = match rule.mode {
        Mode::Live => ", live",
        Mode::Test => ", test",
        Mode::Any => "",
    };
    match rule.kind {
        Kind::Url => format!("Address with a password ({}){mode}", provider.name),
        _ => format!("{} {what}{mode}", provider.name),
    }
}

impl Skipped {
    fn of(troubles: &Troubles) -> Self {
        let list = troubles.list().into_iter().map(|trouble| (trouble.what, trouble.why)).collect();
        Self { total: troubles.total(), reasons: troubles.counts(), list }
    }
}

#[cfg(test)]
mod tests;
