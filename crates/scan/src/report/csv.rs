//! A report for a spreadsheet: a row for each place (RFC 4180).

use super::summary::moment;
use super::{Report, Reported, Spot};

impl Report {
    /// Rows of all places. It begins with a byte order mark: without one, spreadsheets take UTF-8 for something else.
    pub fn to_csv(&self) -> String {
        let mut text = String::from('\u{feff}');
        row(&mut text, &COLUMNS.map(str::to_owned));
        for finding in &self.findings {
            for spot in &finding.spots {
                row(&mut text, &cells(finding, spot));
            }
        }
        text
    }
}

fn cells(finding: &Reported, spot: &Spot) -> [String; 22] {
    let commit = spot.first.as_ref();
    let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
    [
        finding.level.as_str().to_owned(),
        finding.provider.as_ref().map(|(_, name)| name.clone()).unwrap_or_default(),
        finding.title.clone(),
        finding.kind.as_str().to_owned(),
        finding.mode.as_str().to_owned(),
        finding.mask.clone(),
        spot.place_in_file(),
        number(spot.line),
        spot.standing(),
        if finding.looks_public && spot.reach.is_pushed() { "yes" } else { "no" }.to_owned(),
        commit.map(|commit| moment(commit.date)).unwrap_or_default(),
        commit.map(|commit| commit.id.clone()).unwrap_or_default(),
        commit.map(|commit| commit.author.clone()).unwrap_or_default(),
        commit.map(|commit| commit.title.clone()).unwrap_or_default(),
        spot.last.as_ref().map(|commit| commit.id.clone()).unwrap_or_default(),
        spot.encoding.as_str().to_owned(),
        finding.fix.sentences(),
        finding.fix.command.clone().unwrap_or_default(),
        finding.fix.link.clone().unwrap_or_default(),
        finding.fingerprint.to_string(),
        finding.liveness.as_ref().map(|liveness| liveness.as_str().to_owned()).unwrap_or_default(),
        finding
            .liveness
            .as_ref()
            .and_then(|liveness| liveness.account().or(liveness.why()))
            .unwrap_or_default()
            .to_owned(),
    ]
}

fn row(text: &mut String, cells: &[String]) {
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&quoted(cell));
    }
    text.push_str("\r\n");
}

/// Quotes a cell where needed. A spreadsheet runs what begins like a formula, and paths and authors come from elsewhere.
fn quoted(cell: &str) -> String {
    let harmless = match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    };
    match harmless.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", harmless.replace('"', "\"\"")),
        false => harmless,
    }
}

const COLUMNS: [&str; 22] = [
    "level",
    "provider",
    "what",
    "kind",
    "mode",
    "masked value",
    "path",
    "line",
    "standing",
    "looks public",
    "since",
    "first commit",
    "author",
    "commit title",
    "last commit",
    "encoding",
    "fix",
    "command",
    "link",
    "fingerprint",
    "check",
    "account or why unknown",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_run_nothing() {
        for (cell, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("@SUM(1,2)", "\"'@SUM(1,2)\""),
            ("-----BEGIN PRIVATE KEY …", "'-----BEGIN PRIVATE KEY …"),
        ] {
            assert_eq!(quoted(cell), expected);
        }
    }
}
