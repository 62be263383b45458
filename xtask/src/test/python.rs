//! The Python suites: unittest files `testkit/*.py` and directories `integrations/*/tests`.
//!
//! A suite is a file or directory that the standard library's unittest can load. A file of `testkit` whose name begins
//! with `_` is imported by others and is no suite. Packages from outside are named in a `requirements.txt` beside the
//! suite and installed into a virtual environment under the target directory, made once per list.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::ledger::{Ledger, Skip};
use crate::process;
use crate::workspace::Workspace;

/// Runs every suite there is.
///
/// # Errors
/// When a suite cannot be started although Python is there.
pub fn run(workspace: &Workspace, ledger: &mut Ledger) -> Result<()> {
    let suites = suites(&workspace.files()?);
    if suites.is_empty() {
        println!("  no suites");
        return Ok(());
    }
    if !process::answers(
        Command::new("python3").args(["-c", "import sys; sys.exit(sys.version_info < (3, 9))"]),
    ) {
        let reason = "Python 3.9 or later is not installed";
        ledger
            .skips
            .extend(suites.iter().map(|suite| Skip { name: name_of(suite), reason: reason.to_owned() }));
        return Ok(());
    }
    let target = workspace.target_dir()?;
    let built = process::capture(
        process::cargo(workspace).args(["build", "--quiet", "--package", "keymoat"]),
        process::HARD_LIMIT,
    )?;
    if !built.success {
        ledger.fail("python", &built.text);
        return Ok(());
    }
    for suite in suites {
        run_suite(&Surroundings { workspace, target: &target }, &suite, ledger)?;
    }
    Ok(())
}

/// What every suite is given.
pub struct Surroundings<'a> {
    /// Where the suites are.
    pub workspace: &'a Workspace,
    /// The target directory with the program that they test, built already.
    pub target: &'a Path,
}

/// What a suite left behind.
pub struct Ran {
    /// What its runner wrote; none when it could not be loaded or did not end.
    pub outcome: Option<Outcome>,
    /// All that it said.
    pub finished: process::Finished,
}

impl Surroundings<'_> {
    /// Runs a suite, or those of its tests that have `part` in their name; the inner error is the reason why it cannot
    /// run here.
    ///
    /// # Errors
    /// When it cannot be started although Python is there.
    pub fn run(&self, suite: &Path, part: Option<&str>, limit: Duration) -> Result<Result<Ran, String>> {
        let python = match interpreter(self, suite)? {
            Ok(python) => python,
            Err(reason) => return Ok(Err(reason)),
        };
        let result_file = self.target.join("xtask-python.json");
        // The result of an earlier suite must not speak for this one.
        let _ = fs::remove_file(&result_file);
        let mut command = Command::new(python);
        process::clean(&mut command);
        command.current_dir(&self.workspace.root);
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("KEYMOAT_BIN", self.target.join("debug/keymoat"));
        command.args(["-c", RUNNER]).arg(suite).arg(&result_file).args(part);
        let finished = process::capture(&mut command, limit)?;
        let outcome = fs::read_to_string(&result_file).ok();
        let outcome = outcome.and_then(|text| serde_json::from_str::<Outcome>(&text).ok());
        Ok(Ok(Ran { outcome, finished }))
    }
}

fn run_suite(around: &Surroundings<'_>, suite: &Path, ledger: &mut Ledger) -> Result<()> {
    let (name, before) = (name_of(suite), Instant::now());
    let Ran { outcome, finished } = match around.run(suite, None, SUITE_LIMIT)? {
        Ok(ran) => ran,
        Err(reason) => {
            ledger.skips.push(Skip { name, reason });
            return Ok(());
        }
    };
    ledger.announced(&finished.text);
    let took = before.elapsed();
    println!("  {name}: {:.1} s", took.as_secs_f64());
    if took > SUITE_BUDGET {
        println!(
            "  warning: `{name}` took {:.0} s; its budget is {} s",
            took.as_secs_f64(),
            SUITE_BUDGET.as_secs()
        );
    }
    record(&name, outcome, &finished, ledger);
    Ok(())
}

/// What the runner writes.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Names and reasons.
    skips: Vec<(String, String)>,
}

fn record(name: &str, outcome: Option<Outcome>, finished: &process::Finished, ledger: &mut Ledger) {
    let Some(outcome) = outcome else {
        let why = if finished.timed_out { "did not end in time" } else { "could not be loaded" };
        ledger.fail(name, &format!("{}\n{name}: {why}", finished.text));
        return;
    };
    ledger.passed += outcome.passed;
    let is_empty = outcome.passed + outcome.failed + outcome.skips.len() == 0;
    ledger.skips.extend(outcome.skips.into_iter().map(|(name, reason)| Skip { name, reason }));
    if is_empty {
        ledger.fail(name, &format!("{name}: holds no test; a file that is only imported begins with `_`"));
    } else if outcome.failed > 0 || !finished.success {
        ledger.fail_many(name, outcome.failed.max(1), &finished.text);
    }
}

/// Finds the interpreter for a suite, or the reason why there is none.
fn interpreter(around: &Surroundings<'_>, suite: &Path) -> Result<Result<PathBuf, String>> {
    let beside = around.workspace.root.join(suite);
    let dir =
        if beside.is_dir() { beside.as_path() } else { beside.parent().unwrap_or(&around.workspace.root) };
    let requirements = dir.join("requirements.txt");
    if !requirements.is_file() {
        return Ok(Ok(PathBuf::from("python3")));
    }
    let text = fs::read_to_string(&requirements).context("failed to read the requirements of a suite")?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let environment = around.target.join(format!("xtask-venv-{:016x}", hasher.finish()));
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    if complete.is_file() {
        return Ok(Ok(python));
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment).output();
    if !made.is_ok_and(|output| output.status.success()) {
        return Ok(Err("a virtual environment cannot be made; install python3-venv".to_owned()));
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
    let installed = process::capture(&mut install, INSTALL_LIMIT)?;
    if !installed.success {
        let last =
            installed.text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("pip failed").to_owned();
        return Ok(Err(format!("its packages cannot be installed: {last}")));
    }
    fs::write(&complete, "")?;
    Ok(Ok(python))
}

fn suites(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut suites: Vec<PathBuf> = files.iter().filter_map(|file| suite_of(file)).collect();
    suites.sort();
    suites.dedup();
    suites
}

fn suite_of(file: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["testkit", name] if name.ends_with(".py") && !name.starts_with('_') => Some(file.to_owned()),
        ["integrations", package, "tests", .., name] if name.ends_with(".py") => {
            Some(["integrations", package, "tests"].iter().collect())
        }
        _ => None,
    }
}

fn name_of(suite: &Path) -> String {
    suite.display().to_string()
}

const RUNNER: &str = include_str!("run_unittest.py");
/// What a suite should take.
const SUITE_BUDGET: Duration = Duration::from_secs(60);
/// After this a suite is taken to hang.
const SUITE_LIMIT: Duration = Duration::from_secs(600);
/// Downloading some packages over a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_found_by_their_place() {
        let files = [
            "testkit/compat.py",
            "testkit/_server.py",
            "testkit/notes.txt",
            "testkit/sub/x.py",
            "integrations/python/tests/test_a.py",
            "integrations/python/tests/test_b.py",
            "integrations/python/src/a.py",
            "crates/a/tests/x.py",
        ];
        let found = suites(&files.map(PathBuf::from));
        assert_eq!(found, ["integrations/python/tests", "testkit/compat.py"].map(PathBuf::from));
    }

    fn recorded(outcome: Option<Outcome>, success: bool) -> (usize, usize, usize) {
        let mut ledger = Ledger::default();
        let finished = process::Finished { success, timed_out: false, text: String::new() };
        record("suite", outcome, &finished, &mut ledger);
        (ledger.passed, ledger.failed, ledger.skips.len())
    }

    #[test]
    fn suites_are_counted() {
        let outcome = |passed, failed, skipped| {
            Some(Outcome { passed, failed, skips: vec![("t".to_owned(), "why".to_owned()); skipped] })
        };
        for (given, success, expected) in [
            (outcome(3, 0, 1), true, (3, 0, 1)),
            (outcome(3, 2, 0), true, (3, 2, 0)),
            (outcome(3, 0, 0), false, (3, 1, 0)),
            (outcome(0, 0, 0), true, (0, 1, 0)),
            (outcome(0, 0, 1), true, (0, 0, 1)),
            (None, false, (0, 1, 0)),
        ] {
            let text = format!("{given:?}");
            assert_eq!(recorded(given, success), expected, "{text}");
        }
    }
}
