//! The Rust suites: unit, integration and documentation tests, by cargo-nextest where present, else by `cargo test`.
//!
//! Both runners are read for the same things: how many passed, how many failed, and which skips tests announced.

use std::fs;

use anyhow::{Context, Result, bail};

use super::ledger::Ledger;
use crate::process::{self, Finished};
use crate::workspace::Workspace;

/// Builds all tests without running them.
///
/// # Errors
/// When Cargo cannot be started.
pub fn build(workspace: &Workspace) -> Result<Finished> {
    let mut command = process::cargo(workspace);
    command.args(["test", "--no-run", "--workspace"]).args(TARGETS);
    process::build(&mut command, process::HARD_LIMIT)
}

/// Runs all tests but those in documentation.
///
/// # Errors
/// When the runner cannot be started or its report cannot be read.
pub fn tests(workspace: &Workspace, ledger: &mut Ledger) -> Result<()> {
    if process::answers(process::cargo(workspace).args(["nextest", "--version"])) {
        return with_nextest(workspace, ledger);
    }
    let mut command = process::cargo(workspace);
    // With `--show-output` also tests that pass show what they print, and with it their skips.
    command.args(["test", "--workspace", "--no-fail-fast"]).args(TARGETS).args(["--", "--show-output"]);
    with_libtest(command, "tests", ledger)
}

/// Runs the examples in the documentation.
///
/// # Errors
/// When Cargo cannot be started.
pub fn doc_tests(workspace: &Workspace, ledger: &mut Ledger) -> Result<()> {
    let mut command = process::cargo(workspace);
    command.args(["test", "--workspace", "--no-fail-fast", "--doc"]);
    with_libtest(command, "doc tests", ledger)
}

fn with_nextest(workspace: &Workspace, ledger: &mut Ledger) -> Result<()> {
    let target = workspace.target_dir()?;
    let (store, config) = (target.join("nextest"), target.join("xtask-nextest.toml"));
    // By itself nextest reports below the workspace, wherever the target directory is.
    let store_table =
        format!("[store]\ndir = {}\n\n", toml::Value::from(store.to_string_lossy().into_owned()));
    fs::create_dir_all(&target)?;
    fs::write(&config, store_table + NEXTEST_CONFIG)?;
    let report = store.join("xtask/junit.xml");
    // A report of an earlier run must not speak for this one.
    if report.exists() {
        fs::remove_file(&report).with_context(|| format!("failed to remove `{}`", report.display()))?;
    }
    let mut command = process::cargo(workspace);
    command.args(["nextest", "run", "--workspace", "--profile", "xtask", "--config-file"]).arg(&config);
    command.args(["--no-fail-fast", "--no-tests", "pass", "--color", "never"]).args(TARGETS);
    let finished = process::capture(&mut command, process::HARD_LIMIT)?;
    let Ok(report) = fs::read_to_string(&report) else {
        bail!("cargo-nextest left no report\n{}", finished.text)
    };
    let counts = Counts::of_junit(&report).context("the report of cargo-nextest cannot be read")?;
    ledger.announced(&unescape(&report));
    record(ledger, "tests", counts, &finished);
    Ok(())
}

fn with_libtest(mut command: std::process::Command, name: &str, ledger: &mut Ledger) -> Result<()> {
    let finished = process::capture(&mut command, process::HARD_LIMIT)?;
    ledger.announced(&finished.text);
    record(ledger, name, Counts::of_libtest(&finished.text), &finished);
    Ok(())
}

fn record(ledger: &mut Ledger, name: &str, counts: Counts, finished: &Finished) {
    ledger.passed += counts.passed;
    if !finished.success || counts.failed > 0 {
        // A runner may fail without a failing test, as when a test binary is killed.
        ledger.fail_many(name, counts.failed.max(1), &finished.text);
    }
}

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
}

impl Counts {
    /// Adds up the lines `test result: …` of all test binaries.
    pub fn of_libtest(output: &str) -> Self {
        let results = output.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
        let mut sum = Self { passed: 0, failed: 0 };
        for result in results {
            sum.passed += number_before(result, " passed").unwrap_or(0);
            sum.failed += number_before(result, " failed").unwrap_or(0);
        }
        sum
    }

    /// Reads the attributes of the root element `<testsuites tests="…" failures="…" errors="…">`.
    fn of_junit(report: &str) -> Option<Self> {
        let root = report.split_once("<testsuites ")?.1.split_once('>')?.0;
        let number = |name: &str| {
            let value = root.split_once(&format!("{name}=\""))?.1;
            value.split_once('"')?.0.parse::<usize>().ok()
        };
        let failed = number("failures")? + number("errors")?;
        Some(Self { passed: number("tests")?.checked_sub(failed)?, failed })
    }
}

fn number_before(text: &str, word: &str) -> Option<usize> {
    text.split_once(word)?.0.rsplit(' ').next()?.parse().ok()
}

/// Undoes the escapes of XML text and puts the text between elements on lines of its own.
fn unescape(xml: &str) -> String {
    let lines = xml.replace('>', ">\n").replace('<', "\n<");
    lines
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

const NEXTEST_CONFIG: &str = include_str!("../../nextest.toml");
/// Benches and examples are built by clippy, which is enough for what has no tests.
const TARGETS: [&str; 3] = ["--lib", "--bins", "--tests"];

#[cfg(test)]
mod tests {
    use super::super::ledger::Skip;
    use super::*;

    #[test]
    fn libtest_results_are_added_up() {
        let line =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let red = "  test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        for (output, passed, failed) in
            [(line.to_owned(), 12, 0), (format!("a\n{line}\n{red}\nb"), 14, 3), ("error: x".to_owned(), 0, 0)]
        {
            assert_eq!(Counts::of_libtest(&output), Counts { passed, failed }, "{output}");
        }
    }

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="x" tests="5" failures="1" errors="1" uuid="u" time="0.1">
  <testsuite name="a" tests="5" disabled="0" errors="0" failures="1">
    <testcase name="t"><system-out>SKIP pg: wants &quot;a&quot; &amp; b
more</system-out></testcase></testsuite></testsuites>"#;

    #[test]
    fn the_report_of_nextest_is_read() {
        assert_eq!(Counts::of_junit(REPORT), Some(Counts { passed: 3, failed: 2 }));
        let skips = Skip::find_all(&unescape(REPORT));
        assert_eq!(skips, [Skip { name: "pg".to_owned(), reason: "wants \"a\" & b".to_owned() }]);
        for broken in ["", "<testsuites >", "<testsuites tests=\"1\" failures=\"2\" errors=\"0\">"] {
            assert_eq!(Counts::of_junit(broken), None, "{broken}");
        }
    }
}
