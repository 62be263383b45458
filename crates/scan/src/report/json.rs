//! A report for programs: one document, or a line for each finding. `docs/reference/scan.schema.json` describes both.

use std::collections::BTreeMap;

use serde::Serialize;

use super::summary::{Answers, Counts, moment};
use super::{Commit, Liveness, Report, Reported, Spot, Target};
use crate::rows::Cell;

impl Report {
    /// One document with everything.
    pub fn to_json(&self) -> String {
        let document = Document {
            format: FORMAT,
            tool: Tool { name: "keymoat", version: &self.version },
            made: moment(self.made),
            summary: Summary::of(self),
            targets: self.targets.iter().map(WireTarget::of).collect(),
            findings: self.findings.iter().map(WireFinding::of).collect(),
            warnings: &self.warnings,
            skipped: WireSkipped::of(self),
        };
        written(serde_json::to_string_pretty(&document))
    }

    /// A line for each finding, and the summary at the end.
    pub fn to_json_lines(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let line = Line { r#type: "finding", content: WireFinding::of(finding) };
            text.push_str(&written(serde_json::to_string(&line)));
        }
        let summary = Line { r#type: "summary", content: Summary::of(self) };
        text.push_str(&written(serde_json::to_string(&summary)));
        text
    }
}

fn written(json: Result<String, serde_json::Error>) -> String {
    let mut text = json.expect("strings and numbers can always be written as JSON");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Document<'r> {
    format: &'static str,
    tool: Tool<'r>,
    made: String,
    summary: Summary,
    targets: Vec<WireTarget<'r>>,
    findings: Vec<WireFinding<'r>>,
    warnings: &'r [String],
    skipped: WireSkipped<'r>,
}

#[derive(Serialize)]
struct Line<T> {
    r#type: &'static str,
    #[serde(flatten)]
    content: T,
}

#[derive(Serialize)]
struct Tool<'r> {
    name: &'static str,
    version: &'r str,
}

#[derive(Serialize)]
struct Summary {
    text: String,
    findings: usize,
    levels: BTreeMap<&'static str, usize>,
    check: Option<WireAnswers>,
    known: u64,
}

#[derive(Serialize)]
struct WireAnswers {
    active: usize,
    dead: usize,
    unknown: usize,
}

#[derive(Serialize)]
struct WireTarget<'r> {
    name: &'r str,
    remotes: Vec<String>,
    read: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct WireFinding<'r> {
    fingerprint: String,
    rule: &'r str,
    title: &'r str,
    provider: Option<&'r str>,
    provider_name: Option<&'r str>,
    kind: &'static str,
    mode: &'static str,
    level: &'static str,
    severity: &'static str,
    mask: &'r str,
    reach: &'static str,
    looks_public: bool,
    check: Option<WireLiveness<'r>>,
    since: Option<String>,
    places: Vec<WirePlace<'r>>,
    fix: WireFix<'r>,
}

#[derive(Serialize)]
struct WireLiveness<'r> {
    result: &'static str,
    account: Option<&'r str>,
    why: Option<&'r str>,
}

#[derive(Serialize)]
struct WirePlace<'r> {
    path: &'r str,
    line: Option<u64>,
    column: Option<u64>,
    encoding: &'static str,
    reach: &'static str,
    branch: Option<&'r str>,
    versions: u32,
    blob: Option<&'r str>,
    first: Option<WireCommit<'r>>,
    last: Option<WireCommit<'r>>,
    members: &'r [String],
    cell: Option<WireCell<'r>>,
    known_as: Option<&'r str>,
}

#[derive(Serialize)]
struct WireCell<'r> {
    table: &'r str,
    column: &'r str,
    row: &'r str,
    company: Option<&'r str>,
    setting: Option<&'r str>,
}

#[derive(Serialize)]
struct WireCommit<'r> {
    id: &'r str,
    author: &'r str,
    date: String,
    title: &'r str,
}

#[derive(Serialize)]
struct WireFix<'r> {
    change: &'r str,
    keep: &'r str,
    command: Option<&'r str>,
    link: Option<&'r str>,
}

#[derive(Serialize)]
struct WireSkipped<'r> {
    total: u64,
    reasons: &'r BTreeMap<String, u64>,
    list: Vec<WireTrouble<'r>>,
}

#[derive(Serialize)]
struct WireTrouble<'r> {
    what: &'r str,
    why: &'r str,
}

impl Summary {
    fn of(report: &Report) -> Self {
        Self {
            text: report.summary(),
            findings: report.findings.len(),
            levels: Counts::of(&report.findings).named().into_iter().collect(),
            check: Answers::of(&report.findings).map(|Answers { active, dead, unknown }| WireAnswers {
                active,
                dead,
                unknown,
            }),
            known: report.known,
        }
    }
}

impl<'r> WireLiveness<'r> {
    fn of(liveness: &'r Liveness) -> Self {
        Self { result: liveness.as_str(), account: liveness.account(), why: liveness.why() }
    }
}

impl<'r> WireTarget<'r> {
    fn of(target: &'r Target) -> Self {
        Self {
            name: &target.name,
            remotes: target.remotes.iter().map(ToString::to_string).collect(),
            read: target.read.iter().copied().collect(),
        }
    }
}

impl<'r> WireFinding<'r> {
    fn of(finding: &'r Reported) -> Self {
        let provider = finding.provider.as_ref();
        Self {
            fingerprint: finding.fingerprint.to_string(),
            rule: &finding.rule,
            title: &finding.title,
            provider: provider.map(|(id, _)| id.as_str()),
            provider_name: provider.map(|(_, name)| name.as_str()),
            kind: finding.kind.as_str(),
            mode: finding.mode.as_str(),
            level: finding.level.as_str(),
            severity: finding.severity.as_str(),
            mask: &finding.mask,
            reach: finding.reach.as_str(),
            looks_public: finding.looks_public,
            check: finding.liveness.as_ref().map(WireLiveness::of),
            since: finding.since.map(moment),
            places: finding.spots.iter().map(WirePlace::of).collect(),
            fix: WireFix {
                change: &finding.fix.change,
                keep: &finding.fix.keep,
                command: finding.fix.command.as_deref(),
                link: finding.fix.link.as_deref(),
            },
        }
    }
}

impl<'r> WirePlace<'r> {
    fn of(spot: &'r Spot) -> Self {
        Self {
            path: &spot.path,
            line: (spot.line > 0).then_some(spot.line),
            column: (spot.column > 0).then_some(spot.column),
            encoding: spot.encoding.as_str(),
            reach: spot.reach.as_str(),
            branch: spot.branch.as_deref(),
            versions: spot.versions,
            blob: spot.blob.as_deref(),
            first: spot.first.as_ref().map(WireCommit::of),
            last: spot.last.as_ref().map(WireCommit::of),
            members: &spot.members,
            cell: spot.cell.as_ref().map(WireCell::of),
            known_as: spot.known_as.as_deref(),
        }
    }
}

impl<'r> WireCell<'r> {
    fn of(cell: &'r Cell) -> Self {
        Self {
            table: &cell.table,
            column: &cell.column,
            row: &cell.row,
            company: cell.company.as_deref(),
            setting: cell.setting.as_deref(),
        }
    }
}

impl<'r> WireCommit<'r> {
    fn of(commit: &'r Commit) -> Self {
        Self { id: &commit.id, author: &commit.author, date: moment(commit.date), title: &commit.title }
    }
}

impl<'r> WireSkipped<'r> {
    fn of(report: &'r Report) -> Self {
        let skipped = &report.skipped;
        let list = skipped.list.iter().map(|(what, why)| WireTrouble { what, why }).collect();
        Self { total: skipped.total, reasons: &skipped.reasons, list }
    }
}

/// Changes when a program that reads it has to change; new members do not change it.
const FORMAT: &str = "keymoat-scan-1";
