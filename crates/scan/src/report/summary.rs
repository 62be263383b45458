//! What a manager reads first: how many, how bad, since when, and with what to begin.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keymoat_detect::{Kind, Severity};

use super::{Liveness, Reach, Report, Reported};

/// How many findings there are of each level, test keys and dead ones apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub critical: usize,
    pub high: usize,
    pub medium: usize,
    pub low: usize,
    pub test: usize,
    pub dead: usize,
}

impl Counts {
    pub fn of(findings: &[Reported]) -> Self {
        let mut counts = Self::default();
        for finding in findings {
            let count = match finding.level {
                _ if finding.is_dead() => &mut counts.dead,
                _ if finding.is_test() => &mut counts.test,
                Severity::Critical => &mut counts.critical,
                Severity::High => &mut counts.high,
                Severity::Medium => &mut counts.medium,
                Severity::Low | Severity::Info => &mut counts.low,
            };
            *count += 1;
        }
        counts
    }

    /// With their names, the worst first.
    pub fn named(&self) -> [(&'static str, usize); 6] {
        [
            ("critical", self.critical),
            ("high", self.high),
            ("medium", self.medium),
            ("low", self.low),
            ("test", self.test),
            ("dead", self.dead),
        ]
    }
}

/// What providers say of the findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub active: usize,
    pub dead: usize,
    pub unknown: usize,
}

impl Answers {
    /// Nothing where nobody was asked.
    pub fn of(findings: &[Reported]) -> Option<Self> {
        let mut answers: Option<Self> = None;
        for liveness in findings.iter().filter_map(|finding| finding.liveness.as_ref()) {
            let answers = answers.get_or_insert_default();
            *match liveness {
                Liveness::Active { .. } => &mut answers.active,
                Liveness::Dead => &mut answers.dead,
                Liveness::Unknown { .. } => &mut answers.unknown,
            } += 1;
        }
        answers
    }
}

impl Report {
    /// All in a few sentences that need no other knowledge.
    pub fn summary(&self) -> String {
        let known = match self.known {
            0 => String::new(),
            1 => " One more is known and in the baseline.".to_owned(),
            known => format!(" {} more are known and in the baseline.", thousands(known)),
        };
        let Some(first) = self.findings.first() else {
            let unread = if self.skipped.total > 0 { UNREAD } else { "" };
            return format!("No exposed keys were found.{known}{unread}");
        };
        let counts = Counts::of(&self.findings);
        let levels: Vec<String> = counts
            .named()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{} {name}", thousands(count as u64)))
            .collect();
        let all = self.findings.len();
        let keys = if all == 1 { "exposed key" } else { "exposed keys" };
        let mut text = format!("{} {keys}: {}.", thousands(all as u64), levels.join(", "));
        text.push_str(&self.what_providers_say());
        text.push_str(&self.where_they_are());
        if let Some(oldest) = self.findings.iter().filter_map(|finding| finding.since).min() {
            text.push_str(&format!(" The oldest has been there since {}.", day(oldest)));
        }
        if let Some(spot) = first.spots.first() {
            let begin = if all == 1 { "It is" } else { "Begin with" };
            text.push_str(&format!(" {begin} the {} in {}.", within_sentence(first), spot.place()));
        }
        text + &known
    }

    /// Nothing where nobody was asked.
    fn what_providers_say(&self) -> String {
        let Some(Answers { active, dead, unknown }) = Answers::of(&self.findings) else {
            return String::new();
        };
        let said = [("active", active), ("dead", dead), ("unknown", unknown)];
        let said: Vec<String> =
            said.iter().map(|(word, count)| format!("{} {word}", thousands(*count as u64))).collect();
        format!(" Checked with the providers: {}.", said.join(", "))
    }

    fn where_they_are(&self) -> String {
        let count = |is: &dyn Fn(&Reported) -> bool| {
            self.findings.iter().filter(|finding| is(finding)).count() as u64
        };
        let in_head = count(&|finding| finding.reach == Reach::Head);
        let in_history = count(&|finding| {
            matches!(
                finding.reach,
                Reach::Tip | Reach::History | Reach::Stash | Reach::Reflog | Reach::Unreachable
            )
        });
        let mut text = String::new();
        if in_head + in_history > 0 {
            let elsewhere = self.findings.len() as u64 - in_head - in_history;
            let parts = [
                ("In the current version", in_head),
                ("only in its history", in_history),
                ("elsewhere", elsewhere),
            ];
            let parts = parts.iter().filter(|(_, count)| *count > 0);
            let parts: Vec<String> =
                parts.map(|(what, count)| format!("{what}: {}", thousands(*count))).collect();
            text = format!(" {}.", capitalized(&parts.join("; ")));
        }
        match count(&|finding| finding.looks_public) {
            0 => text,
            1 => text + " One is in a repository that anybody may be able to read.",
            public => {
                format!("{text} {} are in a repository that anybody may be able to read.", thousands(public))
            }
        }
    }

    /// What was looked into: `53,734 commits, 207,348 blobs`.
    pub fn looked_into(&self) -> String {
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        for (what, number) in self.targets.iter().flat_map(|target| &target.read) {
            match sums.iter_mut().find(|(known, _)| known == what) {
                Some((_, sum)) => *sum += number,
                None => sums.push((what, *number)),
            }
        }
        let say = |(what, number): &(&str, u64)| match *what {
            "bytes" => size(*number),
            what => format!("{} {what}", thousands(*number)),
        };
        sums.iter().filter(|(_, number)| *number > 0).map(say).collect::<Vec<_>>().join(", ")
    }
}

/// The title within a sentence: `live Stripe secret key`, `private key`.
fn within_sentence(finding: &Reported) -> String {
    let title = match finding.title.get(..1) {
        Some(first) if finding.provider.is_none() || finding.kind == Kind::Url => {
            format!("{}{}", first.to_lowercase(), &finding.title[1..])
        }
        _ => finding.title.clone(),
    };
    let mode = format!(", {}", finding.mode);
    match title.split_once(&mode) {
        Some((before, after)) => format!("{} {before}{after}", finding.mode),
        None => title,
    }
}

fn capitalized(text: &str) -> String {
    match text.get(..1) {
        Some(first) => format!("{}{}", first.to_uppercase(), &text[1..]),
        None => String::new(),
    }
}

/// `12,345`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3.8 GB`.
pub(super) fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000 => return format!("{bytes} bytes"),
        1_000..1_000_000 => (1_000.0, "KB"),
        1_000_000..1_000_000_000 => (1e6, "MB"),
        _ => (1e9, "GB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}

/// `2021-03-04`.
pub(super) fn day(seconds: i64) -> String {
    time(seconds, "%Y-%m-%d")
}

/// `2021-03-04T12:00:00Z`.
pub(super) fn moment(seconds: i64) -> String {
    time(seconds, "%Y-%m-%dT%H:%M:%SZ")
}

fn time(seconds: i64, form: &str) -> String {
    // Commits may carry any number as their date.
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(TimeZone::UTC).strftime(form).to_string()
}

const UNREAD: &str = " Not everything could be read.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), expected);
        }
        for (bytes, expected) in [(12, "12 bytes"), (1500, "1.5 KB"), (3_800_000_000, "3.8 GB")] {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(moment(1_614_859_200), "2021-03-04T12:00:00Z");
        assert_eq!(day(i64::MAX), "1970-01-01");
    }
}
