//! How bad a finding is, and which comes first.

use std::cmp::Reverse;
use std::collections::HashMap;

use keymoat_detect::{Mode, Severity};

use super::Reported;

/// How far a value has got, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// In the version that is checked out.
    Head,
    /// At the tip of another branch or a tag.
    Tip,
    /// In older commits only.
    History,
    /// In a database, a dump, a log: something that many may read.
    Data,
    /// In a file on this machine.
    File,
    /// Staged or pushed, and about to be taken in.
    Staged,
    /// In a stash.
    Stash,
    /// In commits that only a reflog names.
    Reflog,
    /// In objects that nothing leads to.
    Unreachable,
}

impl Reach {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Tip => "tip",
            Self::History => "history",
            Self::Data => "data",
            Self::File => "file",
            Self::Staged => "staged",
            Self::Stash => "stash",
            Self::Reflog => "reflog",
            Self::Unreachable => "unreachable",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Head => "still in HEAD",
            Self::Tip => "still at the tip of a branch",
            Self::History => "only in history",
            Self::Data => "in data",
            Self::File => "in a file",
            Self::Staged => "about to be taken in",
            Self::Stash => "only in a stash",
            Self::Reflog => "only in the reflog",
            Self::Unreachable => "only in an object that nothing leads to",
        }
    }

    /// Whether it goes along when the repository is pushed.
    pub fn is_pushed(self) -> bool {
        matches!(self, Self::Head | Self::Tip | Self::History)
    }
}

/// How bad a value is where it stands.
///
/// What anybody may read is one step worse than what colleagues may read; what moves no real money and data is never
/// more than low, and what is low as a kind of key is not certain enough to become more.
pub(super) fn level(severity: Severity, mode: Mode, reach: Reach, looks_public: bool) -> Severity {
    if mode == Mode::Test {
        return severity.min(Severity::Low);
    }
    if !looks_public || !reach.is_pushed() {
        return severity;
    }
    match severity {
        Severity::Medium => Severity::High,
        Severity::High => Severity::Critical,
        same => same,
    }
}

/// Sorts findings: the most urgent first, then test keys, what is dead last, and those of one provider and level together.
pub(super) fn sort(findings: &mut [Reported]) {
    findings.sort_by_cached_key(urgency);
    let mut groups: HashMap<(bool, bool, Severity, Option<String>), usize> = HashMap::new();
    findings.sort_by_cached_key(|finding| {
        let provider = finding.provider.as_ref().map(|(id, _)| id.clone());
        let next = groups.len();
        // A group stands where its most urgent one does.
        let group = (finding.is_dead(), finding.is_test(), finding.level, provider);
        *groups.entry(group).or_insert(next)
    });
}

fn urgency(finding: &Reported) -> impl Ord + use<> {
    (
        (finding.is_dead(), finding.is_test()),
        Reverse(finding.level),
        !finding.is_active(),
        finding.provider.is_none(),
        !finding.looks_public,
        finding.mode != Mode::Live,
        finding.reach,
        Reverse(finding.severity),
        finding.title.clone(),
        finding.since.is_none(),
        finding.since,
        finding.fingerprint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        use Severity::{Critical, High, Low, Medium};
        for (severity, mode, reach, looks_public, expected) in [
            (High, Mode::Live, Reach::Head, true, Critical),
            (High, Mode::Live, Reach::History, true, Critical),
            (High, Mode::Any, Reach::Head, false, High),
            (Medium, Mode::Any, Reach::Tip, true, High),
            (Critical, Mode::Live, Reach::Head, true, Critical),
            // A reflog is not pushed.
            (High, Mode::Live, Reach::Reflog, true, High),
            (High, Mode::Live, Reach::File, true, High),
            (Low, Mode::Any, Reach::Head, true, Low),
            (Critical, Mode::Test, Reach::Head, true, Low),
            (Severity::Info, Mode::Test, Reach::Head, true, Severity::Info),
        ] {
            let found = level(severity, mode, reach, looks_public);
            assert_eq!(found, expected, "{severity} {mode} {reach:?} {looks_public}");
        }
    }
}
