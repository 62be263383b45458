//! A report for code-scanning viewers: SARIF 2.1.0.
//!
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>. A result is a value in one file; what viewers know
//! it by again is the value's fingerprint and the path, so moved lines make no new alarm.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keymoat_detect::Severity;
use serde_json::{Value, json};

use super::summary::{day, moment};
use super::{Report, Reported, Spot};

impl Report {
    /// For code-scanning viewers.
    pub fn to_sarif(&self) -> String {
        let mut names: BTreeMap<&str, &Reported> = BTreeMap::new();
        for finding in &self.findings {
            names.entry(&finding.rule).or_insert(finding);
        }
        let rules: Vec<Value> = names.values().map(|finding| rule(finding)).collect();
        let index: BTreeMap<&str, usize> = names.keys().enumerate().map(|(at, name)| (*name, at)).collect();
        let results: Vec<Value> = self
            .findings
            .iter()
            .flat_map(|finding| {
                let at = index[finding.rule.as_str()];
                finding.spots.iter().map(move |spot| result(finding, spot, at))
            })
            .collect();
        let troubles: Vec<Value> = self
            .skipped
            .list
            .iter()
            .map(|(what, why)| json!({ "level": "warning", "message": { "text": format!("{what} {why}") } }))
            .collect();
        let document = json!({
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "Keymoat",
                    "version": self.version,
                    "semanticVersion": self.version,
                    "rules": rules,
                }},
                "invocations": [{
                    "executionSuccessful": true,
                    "endTimeUtc": moment(self.made),
                    "toolExecutionNotifications": troubles,
                }],
                "originalUriBaseIds": { ROOT: {
                    "description": { "text": "The directory that was scanned." },
                }},
                "results": results,
                "properties": { "summary": self.summary(), "known": self.known },
            }],
        });
        let mut text =
            serde_json::to_string_pretty(&document).expect("strings and numbers can always be written");
        text.push('\n');
        text
    }
}

fn rule(finding: &Reported) -> Value {
    let mut help = finding.fix.sentences();
    if let Some(link) = &finding.fix.link {
        let _ = write!(help, " {link}");
    }
    let mut rule = json!({
        "id": finding.rule,
        "name": finding.title,
        "shortDescription": { "text": finding.title },
        "fullDescription": { "text": format!("{} stands where others may read it.", finding.title) },
        "help": { "text": help },
        "defaultConfiguration": { "level": level(finding.level) },
        "properties": {
            "tags": ["security", "secret"],
            // What GitHub sorts by: over 9.0 is critical, over 7.0 high, over 4.0 medium.
            "security-severity": match finding.level {
                Severity::Critical => "9.5",
                Severity::High => "8.0",
                Severity::Medium => "5.5",
                Severity::Low => "2.5",
                Severity::Info => "0.5",
            },
            "precision": if finding.provider.is_some() { "high" } else { "medium" },
        },
    });
    if let Some(link) = &finding.fix.link {
        rule["helpUri"] = json!(link);
    }
    rule
}

fn result(finding: &Reported, spot: &Spot, rule: usize) -> Value {
    let mut message = format!("{} {}, {}", finding.title, finding.mask, spot.standing());
    if let Some(first) = &spot.first {
        let _ = write!(message, ", since {} (commit {})", day(first.date), first.id);
    }
    if let Some(liveness) = &finding.liveness {
        let _ = write!(message, ", {liveness}");
    }
    let _ = write!(message, ". {}", finding.fix.change);
    let mut physical = json!({ "artifactLocation": { "uri": uri(&spot.path), "uriBaseId": ROOT } });
    if spot.line > 0 {
        physical["region"] = json!({ "startLine": spot.line });
    }
    let mut properties = json!({
        "level": finding.level.as_str(),
        "mode": finding.mode.as_str(),
        "reach": spot.reach.as_str(),
        "mask": finding.mask,
    });
    if let Some(liveness) = &finding.liveness {
        properties["check"] = json!(liveness.as_str());
        properties["account"] = json!(liveness.account());
        properties["why"] = json!(liveness.why());
    }
    if let Some(first) = &spot.first {
        properties["commit"] = json!(first.id);
        properties["author"] = json!(first.author);
        properties["date"] = json!(moment(first.date));
    }
    let mut location = json!({ "physicalLocation": physical });
    if !spot.members.is_empty() || spot.cell.is_some() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": spot.place_in_file() }]);
    }
    json!({
        "ruleId": finding.rule,
        "ruleIndex": rule,
        "level": if finding.is_dead() { "note" } else { level(finding.level) },
        "message": { "text": message },
        "locations": [location],
        "partialFingerprints": {
            "keymoatValue/v1": format!("{}:{}", finding.fingerprint, uri(&spot.place_in_file())),
        },
        "properties": properties,
    })
}

fn level(level: Severity) -> &'static str {
    match level {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Info => "note",
    }
}

/// A path as a relative reference (RFC 3986): no scheme may be read into it.
fn uri(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let path = path.trim_start_matches("./");
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(byte as char)
            }
            // Writing to a string cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    match text.is_empty() {
        true => ".".to_owned(),
        false => text.trim_start_matches("//").to_owned(),
    }
}

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
const ROOT: &str = "SRCROOT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_references() {
        for (path, expected) in [
            ("shop/settings.py", "shop/settings.py"),
            ("./a b/č.py", "a%20b/%C4%8D.py"),
            ("a:b", "a%3Ab"),
            ("100%.txt", "100%25.txt"),
            ("", "."),
        ] {
            assert_eq!(uri(path), expected);
        }
    }
}
