//! A report for a terminal: findings by level and provider, then what to do, then the summary.

use std::fmt::Write as _;

use super::summary::{day, thousands};
use super::{Report, Reported, Spot};

/// Whether text has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    /// It has.
    On,
    /// It has not.
    Off,
}

impl Report {
    /// For people at a terminal.
    pub fn to_text(&self, colors: Colors) -> String {
        let mut text = String::new();
        let groups = self.findings.chunk_by(|a, b| heading(a) == heading(b));
        for group in groups {
            write_group(&mut text, group, colors);
        }
        self.write_warnings(&mut text, colors);
        let summary = self.summary();
        line(&mut text, &paint(&summary, if self.is_clean() { GREEN } else { BOLD }, colors));
        let looked_into = self.looked_into();
        if !looked_into.is_empty() {
            line(&mut text, &format!("Looked into: {looked_into}."));
        }
        text
    }

    fn write_warnings(&self, text: &mut String, colors: Colors) {
        for warning in &self.warnings {
            line(text, &format!("{} {warning}", paint("warning:", YELLOW, colors)));
        }
        for (what, why) in self.skipped.list.iter().take(SKIPPED_SHOWN) {
            line(text, &format!("{} {what} {why}", paint("not read:", YELLOW, colors)));
        }
        let more = self.skipped.total.saturating_sub(self.skipped.list.len().min(SKIPPED_SHOWN) as u64);
        if more > 0 {
            let all = format!("and {} more; `--format json` lists them", thousands(more));
            line(text, &format!("{} {all}", paint("not read:", YELLOW, colors)));
        }
        if !self.warnings.is_empty() || self.skipped.total > 0 {
            text.push('\n');
        }
    }
}

fn write_group(text: &mut String, group: &[Reported], colors: Colors) {
    let Some(first) = group.first() else { return };
    let (level, provider) = heading(first);
    let painted = paint(&level.to_uppercase(), color_of(level), colors);
    line(text, &format!("{painted}  {}", paint(provider, BOLD, colors)));
    text.push('\n');
    for (at, finding) in group.iter().enumerate() {
        write_finding(text, finding, colors);
        let next = group.get(at + 1);
        // Five keys of one kind need the same advice once.
        if next.is_none_or(|next| next.fix != finding.fix) {
            write_fix(text, finding, colors);
        } else {
            text.push('\n');
        }
    }
}

fn write_finding(text: &mut String, finding: &Reported, colors: Colors) {
    let public = if finding.looks_public { ", in a repository that anybody may be able to read" } else { "" };
    line(text, &format!("  {}  {}{public}", paint(&finding.title, BOLD, colors), finding.mask));
    if let Some(liveness) = &finding.liveness {
        line(text, &format!("      {}", paint(&liveness.to_string(), color_of(liveness.as_str()), colors)));
    }
    for spot in finding.spots.iter().take(SPOTS_SHOWN) {
        line(text, &format!("      {}  {}", paint(&spot.place(), CYAN, colors), said_of(spot)));
    }
    if finding.spots.len() > SPOTS_SHOWN {
        let more = thousands((finding.spots.len() - SPOTS_SHOWN) as u64);
        line(text, &format!("      and {more} more places; `--format json` lists them"));
    }
}

fn write_fix(text: &mut String, finding: &Reported, colors: Colors) {
    wrapped(text, "      fix   ", &finding.fix.sentences());
    if let Some(link) = &finding.fix.link {
        line(text, &format!("            {link}"));
    }
    if let Some(command) = &finding.fix.command {
        line(text, &format!("            {}", paint(command, CYAN, colors)));
    }
    text.push('\n');
}

/// `still in HEAD, since 2021-03-04 in 3f2c9e1aab by Ann Example <ann@example.com>`.
fn said_of(spot: &Spot) -> String {
    let mut said = spot.standing();
    if spot.encoding != keymoat_detect::Encoding::Plain {
        let _ = write!(said, ", {}", spot.encoding.as_str());
    }
    if let Some(first) = &spot.first {
        let id = first.id.get(..SHORT_ID).unwrap_or(&first.id);
        let _ = write!(said, ", since {} in {id} by {}", day(first.date), first.author);
    }
    said
}

fn heading(finding: &Reported) -> (&'static str, &str) {
    (finding.heading(), finding.provider.as_ref().map_or("No provider", |(_, name)| name))
}

fn line(text: &mut String, content: &str) {
    text.push_str(content);
    text.push('\n');
}

/// Writes sentences in lines that a terminal of usual width shows whole.
fn wrapped(text: &mut String, lead: &str, sentences: &str) {
    let mut current = lead.to_owned();
    let indent = " ".repeat(lead.chars().count());
    for word in sentences.split(' ') {
        if current.chars().count() + word.chars().count() >= WIDTH {
            line(text, current.trim_end());
            current.clone_from(&indent);
        }
        current.push_str(word);
        current.push(' ');
    }
    line(text, current.trim_end());
}

fn color_of(level: &str) -> &'static str {
    match level {
        "critical" => "1;97;41",
        "high" | "active" => "1;31",
        "medium" => YELLOW,
        _ => "2",
    }
}

fn paint(text: &str, code: &str, colors: Colors) -> String {
    match colors {
        Colors::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        Colors::Off => text.to_owned(),
    }
}

const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// More places of one value fill a terminal and tell nothing new.
const SPOTS_SHOWN: usize = 8;
/// The rest is counted.
const SKIPPED_SHOWN: usize = 20;
/// As many as git shows in a large repository.
const SHORT_ID: usize = 10;
const WIDTH: usize = 110;
