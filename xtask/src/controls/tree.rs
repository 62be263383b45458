//! The copy of the repository that controls are allowed to break, with a target directory of its own.
//!
//! A target directory shared with the checkout would be faster and wrong: Cargo could take a broken build for the
//! real one. Only what was built of foreign crates is copied over, once, which saves most of the first build.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::patch::Control;
use crate::process::{self, Finished};
use crate::test::python::{Ran, Surroundings};
use crate::test::rust_counts;
use crate::workspace::Workspace;

/// The copy.
pub struct Tree {
    workspace: Workspace,
    copy: Workspace,
    target: PathBuf,
}

/// What a run of one test says.
#[derive(Debug)]
pub enum Verdict {
    /// At least one test failed.
    Red,
    /// All tests passed, and there was one.
    Green,
    /// The run says nothing: it did not compile, did not end, or no test has that name.
    Unusable(String),
}

impl Verdict {
    /// One word for a list.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Red => "red, as it should be",
            Self::Green => "NOT NOTICED",
            Self::Unusable(_) => "unusable",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Red => f.write_str("the test fails"),
            Self::Green => f.write_str("the test passes, so nothing would notice"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl Tree {
    /// Makes or renews the copy.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn prepare(workspace: &Workspace) -> Result<Self> {
        let target_dir = workspace.target_dir()?;
        let base = target_dir.join("controls");
        let target = base.join("target");
        if !target.is_dir() {
            seed(&target_dir.join("debug"), &target.join("debug"))?;
        }
        let tree = Self { workspace: workspace.clone(), copy: Workspace { root: base.join("tree") }, target };
        tree.restore()?;
        Ok(tree)
    }

    /// Makes the copy equal to the checkout again. What is equal already keeps its time, so that Cargo builds anew
    /// only what changed.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn restore(&self) -> Result<()> {
        let wanted: BTreeSet<PathBuf> = self.workspace.files()?.into_iter().collect();
        fs::create_dir_all(&self.copy.root)?;
        for file in files_below(&self.copy.root)? {
            if !wanted.contains(&file) {
                fs::remove_file(self.copy.root.join(&file))?;
            }
        }
        for file in &wanted {
            // Somebody may remove a file while it is copied; the next run sees the same state as they do.
            let Ok(content) = fs::read(self.workspace.root.join(file)) else { continue };
            let to = self.copy.root.join(file);
            if fs::read(&to).is_ok_and(|present| present == content) {
                continue;
            }
            if let Some(dir) = to.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&to, content).with_context(|| format!("failed to write `{}`", to.display()))?;
        }
        Ok(())
    }

    /// Applies the patch of a control; the inner error is what git says against it.
    ///
    /// # Errors
    /// When git cannot be started.
    pub fn apply(&mut self, control: &Control) -> Result<Result<(), String>> {
        let file = self.target.join("control.patch");
        fs::write(&file, &control.diff)?;
        let mut command = Command::new("git");
        // The copy lies within a repository; git would leave out what it takes to be outside of its directory.
        command.env("GIT_CEILING_DIRECTORIES", self.copy.root.parent().unwrap_or(&self.copy.root));
        command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").current_dir(&self.copy.root);
        command.args(["apply", "--recount", "--whitespace=nowarn"]).arg(&file);
        let finished = process::capture(&mut command, TEST_LIMIT)?;
        Ok(if finished.success { Ok(()) } else { Err(finished.text) })
    }

    /// Builds and runs the test that a control names.
    ///
    /// # Errors
    /// When Cargo or Python cannot be started.
    pub fn judge(&self, control: &Control) -> Result<Verdict> {
        match control.suite() {
            Some(suite) => self.judge_python(control, suite),
            None => self.judge_rust(control),
        }
    }

    /// A suite in Python tests the built program.
    fn judge_python(&self, control: &Control, suite: &Path) -> Result<Verdict> {
        let mut build = self.cargo();
        build.args(["build", "--quiet", "--package", "keymoat"]);
        let built = process::capture(&mut build, process::HARD_LIMIT)?;
        if !built.success {
            return Ok(Verdict::Unusable(format!("it does not compile:\n{}", built.text)));
        }
        let around = Surroundings { workspace: &self.copy, target: &self.target };
        Ok(match around.run(suite, Some(&control.filter), TEST_LIMIT)? {
            Ok(ran) => verdict_of_python(control, &ran),
            Err(reason) => Verdict::Unusable(format!("`{}` cannot run here: {reason}", control.package)),
        })
    }

    fn judge_rust(&self, control: &Control) -> Result<Verdict> {
        let mut build = self.cargo();
        build.args([
            "test",
            "--no-run",
            "--message-format",
            "json-render-diagnostics",
            "--package",
            &control.package,
        ]);
        build.args(["--tests"]);
        let built = process::capture(&mut build, process::HARD_LIMIT)?;
        if !built.success {
            return Ok(Verdict::Unusable(format!("it does not compile:\n{}", diagnostics(&built.text))));
        }
        let (mut passed, mut failed) = (0, 0);
        for (executable, dir) in executables(&built.text) {
            let mut command = Command::new(&executable);
            process::clean(&mut command);
            // Cargo runs tests in the directory of their package.
            command.current_dir(dir).arg(&control.filter).env("RUST_BACKTRACE", "0");
            let finished = process::capture(&mut command, TEST_LIMIT)?;
            if let Some(why) = unusable(&finished) {
                return Ok(Verdict::Unusable(why));
            }
            let counts = rust_counts(&finished.text);
            passed += counts.passed;
            failed += counts.failed;
        }
        Ok(verdict(control, passed, failed))
    }

    fn cargo(&self) -> Command {
        let mut command = process::cargo(&self.copy);
        command.env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

fn verdict(control: &Control, passed: usize, failed: usize) -> Verdict {
    match (passed, failed) {
        (0, 0) => Verdict::Unusable(format!(
            "no test of {} has `{}` in its name, or it is skipped here",
            control.package, control.filter
        )),
        (_, 0) => Verdict::Green,
        _ => Verdict::Red,
    }
}

fn verdict_of_python(control: &Control, ran: &Ran) -> Verdict {
    match &ran.outcome {
        Some(outcome) => verdict(control, outcome.passed, outcome.failed),
        None if ran.finished.timed_out => {
            Verdict::Unusable(format!("the test does not end within {} s", TEST_LIMIT.as_secs()))
        }
        None => Verdict::Unusable(format!("the test ends without a result:\n{}", ran.finished.text)),
    }
}

/// A run that ended without counting its tests says nothing: killed, or aborted before the end.
fn unusable(finished: &Finished) -> Option<String> {
    if finished.timed_out {
        return Some(format!("the test does not end within {} s", TEST_LIMIT.as_secs()));
    }
    let counted = finished.text.contains("test result: ");
    (!counted).then(|| format!("the test ends without a result:\n{}", finished.text))
}

/// The test programs that Cargo built, with the directories of their packages.
fn executables(messages: &str) -> Vec<(PathBuf, PathBuf)> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            let executable = message["executable"].as_str()?;
            let dir = Path::new(message["manifest_path"].as_str()?).parent()?;
            Some((PathBuf::from(executable), dir.to_owned()))
        })
        .collect()
}

/// What Cargo says to people among what it says to programs.
fn diagnostics(messages: &str) -> String {
    messages.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n")
}

/// Lists the files below a directory, relative to it, but for Cargo's and git's own.
fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut pending) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() { pending.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

/// Copies what was built of foreign crates, with its times, by which Cargo knows that it is fresh.
fn seed(from: &Path, to: &Path) -> Result<()> {
    for part in ["deps", "build", ".fingerprint"] {
        if from.join(part).is_dir() {
            copy_foreign(&from.join(part), &to.join(part))?;
        }
    }
    fs::create_dir_all(to)?;
    Ok(())
}

fn copy_foreign(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_none_or(|name| OURS.iter().any(|ours| name.contains(ours))) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_foreign(&source, &target)?;
        } else if kind.is_file() {
            // Another build may be tidying up; what is missing is built again.
            let Ok(metadata) = entry.metadata() else { continue };
            if fs::copy(&source, &target).is_err() {
                continue;
            }
            let times = FileTimes::new().set_modified(metadata.modified()?);
            File::options().append(true).open(&target)?.set_times(times)?;
        }
    }
    Ok(())
}

/// In the names of everything that Cargo builds of this workspace.
const OURS: [&str; 2] = ["keymoat", "xtask"];
/// One filtered test; after this it is taken to hang.
const TEST_LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_the_messages() {
        let messages = r#"   Compiling a
{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","profile":{"test":true},"executable":"/t/a-1"}
{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","profile":{"test":false},"executable":"/t/a"}
{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executables(messages), [(PathBuf::from("/t/a-1"), PathBuf::from("/p"))]);
        assert_eq!(diagnostics(messages), "   Compiling a");
    }

    #[test]
    fn a_run_without_a_result_says_nothing() {
        for (text, timed_out, says_nothing) in [
            ("test result: FAILED. 0 passed; 1 failed", false, false),
            ("signal 6", false, true),
            ("test result: ok. 1 passed", true, true),
        ] {
            let finished = Finished { success: false, timed_out, text: text.to_owned() };
            assert_eq!(unusable(&finished).is_some(), says_nothing, "{text}");
        }
    }
}
