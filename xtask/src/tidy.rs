//! The rules of the house that no compiler enforces, checked on manifests, sources and the lock file.
//!
//! It builds nothing and knows no types: a rule that needs them belongs to clippy, one that needs behaviour is a test.

pub mod advisories;
mod code;
mod directions;
mod lock;
mod promises;
mod skips;
mod source;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
pub use promises::PROMISES;
use source::Source;

/// Checks everything and prints what is wrong; `false` when something is.
///
/// # Errors
/// When a file cannot be read.
pub fn run(workspace: &Workspace) -> Result<bool> {
    let report = check(workspace)?;
    print!("{report}");
    println!("{}", report.summary());
    Ok(report.errors.is_empty())
}

/// What [`check`] found.
#[derive(Debug, Default)]
pub struct Report {
    /// Broken rules.
    pub errors: Vec<Violation>,
    /// What deserves a look and breaks no rule.
    pub warnings: Vec<Violation>,
    /// How many files were read.
    pub files: usize,
}

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The file, relative to the root.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The name of the rule.
    pub rule: &'static str,
    /// What to do about it.
    pub advice: String,
}

impl Violation {
    fn new(file: &str, line: usize, rule: &'static str, advice: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, rule, advice: advice.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.advice)
    }
}

impl Report {
    /// One line: how much was read and found.
    pub fn summary(&self) -> String {
        let (errors, warnings) = (self.errors.len(), self.warnings.len());
        format!("tidy: {} files read, {errors} broken rules, {warnings} warnings", self.files)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// Checks everything.
///
/// # Errors
/// When a file cannot be read.
pub fn check(workspace: &Workspace) -> Result<Report> {
    let texts = read_texts(workspace)?;
    let mut report = Report { files: texts.len(), ..Report::default() };
    let sources = sources(&texts);
    for source in &sources {
        report.errors.extend(code::check(source));
        report.warnings.extend(code::too_long(source));
    }
    for (file, text) in &texts {
        report.errors.extend(words::check(file, text));
    }
    // The fuzz targets are a workspace of their own, which nobody depends on.
    let is_ours = |file: &str| is_manifest(file) && !file.starts_with("fuzz/");
    let manifests: Vec<_> = texts.iter().filter(|(file, _)| is_ours(file)).collect();
    for (file, text) in &manifests {
        report.errors.extend(directions::check(file, text));
    }
    let text_of = |name: &str| texts.iter().find(|(file, _)| file == name).map(|(_, text)| text.as_str());
    report.errors.extend(directions::check_lints(&manifests, text_of(ROOT_MANIFEST).unwrap_or_default()));
    report.errors.extend(lock::check(text_of("Cargo.lock"), text_of("deny.toml")));
    let files = texts.iter().map(|(file, _)| file.as_str()).collect();
    report.errors.extend(promises::check(text_of(promises::PROMISES).unwrap_or_default(), &sources, &files));
    let text = |name: &str| text_of(name).unwrap_or_default();
    report.errors.extend(skips::check(text(skips::LIST), &texts));
    let advisories = advisories::Texts {
        list: text(advisories::LIST),
        page: text(advisories::PAGE),
        architecture: text(advisories::ARCHITECTURE),
    };
    report.errors.extend(advisories::check(&advisories, &sources, &files));
    report.errors.sort();
    report.warnings.sort();
    Ok(report)
}

/// Reads every text file of the workspace: its name, with `/` whatever the system, and its content.
fn read_texts(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for file in workspace.files()? {
        let absolute = workspace.root.join(&file);
        let bytes = match fs::read(&absolute) {
            Ok(bytes) => bytes,
            // Somebody removed it since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read `{}`", absolute.display()));
            }
        };
        if let Ok(text) = String::from_utf8(bytes) {
            texts.push((slashed(&file), text));
        }
    }
    Ok(texts)
}

fn sources(texts: &[(String, String)]) -> Vec<Source> {
    let rust = texts.iter().filter(|(file, _)| file.ends_with(".rs"));
    let mut sources: Vec<Source> = rust.map(|(file, text)| Source::parse(file, text)).collect();
    let test_files: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        if test_files.contains(&source.file) {
            source.is_test = true;
        }
    }
    sources
}

fn slashed(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn is_manifest(file: &str) -> bool {
    file.ends_with("/Cargo.toml")
}

const ROOT_MANIFEST: &str = "Cargo.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_reads_as_place_rule_and_advice() {
        let violation = Violation::new("crates/core/src/id.rs", 7, "time", "take it as an argument");
        assert_eq!(violation.to_string(), "crates/core/src/id.rs:7: time: take it as an argument");
    }

    #[test]
    fn modules_of_tests_in_files_of_their_own_are_tests() {
        let texts = [
            ("crates/a/src/lib.rs".to_owned(), "//! A.\n#[cfg(test)]\nmod vectors;\nmod real;\n".to_owned()),
            ("crates/a/src/vectors.rs".to_owned(), "//! V.\n".to_owned()),
            ("crates/a/src/real.rs".to_owned(), "//! R.\n#[cfg(test)]\nmod inner;\n".to_owned()),
            ("crates/a/src/real/inner.rs".to_owned(), "//! I.\n".to_owned()),
            ("crates/a/tests/all.rs".to_owned(), "//! T.\n".to_owned()),
        ];
        let tests: Vec<(String, bool)> = sources(&texts).into_iter().map(|s| (s.file, s.is_test)).collect();
        let expected = [
            ("lib.rs", false),
            ("vectors.rs", true),
            ("real.rs", false),
            ("inner.rs", true),
            ("all.rs", true),
        ];
        for ((file, is_test), (name, expected)) in tests.iter().zip(expected) {
            assert!(file.ends_with(name));
            assert_eq!(*is_test, expected, "{file}");
        }
    }
}
