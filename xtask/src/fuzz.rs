//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a while, from the examples that the repository has.
//!
//! The compiler's own coverage passes are enough for that, on the stable toolchain and without cargo-fuzz; who wants
//! a sanitizer takes cargo-fuzz (`docs/fuzz.md`). What was found stays below `fuzz/`, where both look for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{self, Finished};
use crate::workspace::Workspace;

/// What is to be fuzzed, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Seconds for each target.
    seconds: u64,
    /// A part of the targets' names.
    name: String,
}

impl Choice {
    /// Reads `[--seconds N] [NAME]`.
    ///
    /// # Errors
    /// When there is something else.
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let (seconds, rest) = match arguments {
            ["--seconds", seconds, rest @ ..] => {
                let parsed = seconds.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds));
                (parsed.with_context(|| format!("`{seconds}` is not a number of seconds"))?, rest)
            }
            rest => (SECONDS, rest),
        };
        match rest {
            [] => Ok(Self { seconds, name: String::new() }),
            [name] if !name.starts_with('-') => Ok(Self { seconds, name: (*name).to_owned() }),
            other => bail!("unknown arguments `{}`", other.join(" ")),
        }
    }
}

/// Builds and runs the chosen targets; `false` when an input was found that breaks one.
///
/// # Errors
/// When they do not build, or none has that name.
pub fn run(workspace: &Workspace, choice: &Choice) -> Result<bool> {
    let names: Vec<String> =
        targets(workspace)?.into_iter().filter(|name| name.contains(&choice.name)).collect();
    if names.is_empty() {
        bail!(
            "no fuzz target has `{}` in its name; there are: {}",
            choice.name,
            targets(workspace)?.join(", ")
        );
    }
    println!("building the fuzz targets …");
    let binaries = build(workspace)?;
    let mut all_held = true;
    for name in &names {
        let finished = fuzz(workspace, &binaries, name, choice.seconds)?;
        println!("{name}: {}", outcome(&finished));
        if !finished.success {
            println!("{}", tail(&finished.text));
            all_held = false;
        }
    }
    Ok(all_held)
}

fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let dir = workspace.root.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("failed to read `{}`", dir.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets and says where they are.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let target_dir = workspace.target_dir()?.join("fuzz");
    let triple = host(workspace)?;
    let mut command = process::cargo(workspace);
    // With a named target the flags are not passed on to build scripts.
    command.current_dir(workspace.root.join("fuzz")).args([
        "build",
        "--release",
        "--locked",
        "--target",
        &triple,
    ]);
    command.arg("--target-dir").arg(&target_dir).env("RUSTFLAGS", COVERAGE);
    let finished = process::build(&mut command, process::HARD_LIMIT)?;
    if !finished.success {
        bail!("the fuzz targets do not build\n{}", tail(&finished.text));
    }
    Ok(target_dir.join(triple).join("release"))
}

/// The platform that the compiler runs on.
fn host(workspace: &Workspace) -> Result<String> {
    let mut command = process::cargo(workspace);
    let version = process::capture(command.args(["--version", "--verbose"]), process::HARD_LIMIT)?;
    let host = version.text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("Cargo does not say which platform it runs on")?.trim().to_owned())
}

fn fuzz(workspace: &Workspace, binaries: &Path, name: &str, seconds: u64) -> Result<Finished> {
    let fuzz = workspace.root.join("fuzz");
    let (corpus, artifacts) = (fuzz.join("corpus").join(name), fuzz.join("artifacts").join(name));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = std::process::Command::new(binaries.join(name));
    command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    command.args(["-rss_limit_mb=2048", SLOWEST]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
    command.args(seeds(workspace, name));
    // One input may take its time; one that hangs is found by the program itself.
    process::capture(&mut command, Duration::from_secs(seconds) + GRACE)
}

/// Directories of the repository that hold good inputs for a target.
fn seeds(workspace: &Workspace, name: &str) -> Option<PathBuf> {
    let dir = match name {
        "catalogue" => workspace.root.join("crates/detect/catalogue"),
        "containers" => workspace.root.join("crates/scan/tests/containers"),
        _ => workspace.root.join("fuzz/seeds").join(name),
    };
    dir.is_dir().then_some(dir)
}

fn outcome(finished: &Finished) -> String {
    let units = finished.text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    match (finished.success, units) {
        (true, Some(units)) => format!("{} inputs, none breaks it", units.trim()),
        (true, None) => "ended without saying how many inputs it tried".to_owned(),
        (false, _) if finished.timed_out => "hangs".to_owned(),
        (false, _) => "BROKEN, by the input named below".to_owned(),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// What libFuzzer needs to see which way an input takes (llvm.org/docs/LibFuzzer.html), and checks that a release
/// leaves out.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";
/// What takes longer counts as broken; libFuzzer measures in whole seconds, and a busy machine is slow.
const SLOWEST: &str = "-timeout=5";
/// Each target, when nothing else is said.
const SECONDS: u64 = 30;
/// A day.
const MAX_SECONDS: u64 = 86_400;
/// For starting, reading the corpus and ending.
const GRACE: Duration = Duration::from_secs(120);
const TAIL_LINES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        fn check(arguments: &[&str], expected: Option<(u64, &str)>) {
            let parsed = Choice::parse(arguments).ok();
            assert_eq!(
                parsed.as_ref().map(|choice| (choice.seconds, choice.name.as_str())),
                expected,
                "{arguments:?}"
            );
        }
        check(&[], Some((SECONDS, "")));
        check(&["dotenv"], Some((SECONDS, "dotenv")));
        check(&["--seconds", "5"], Some((5, "")));
        check(&["--seconds", "5", "dotenv"], Some((5, "dotenv")));
        check(&["--seconds"], None);
        check(&["--seconds", "0"], None);
        check(&["--seconds", "x"], None);
        check(&["--minutes", "5"], None);
        check(&["dotenv", "policy"], None);
    }

    #[test]
    fn what_a_run_amounts_to() {
        fn check(success: bool, timed_out: bool, text: &str, expected: &str) {
            assert_eq!(outcome(&Finished { success, timed_out, text: text.to_owned() }), expected);
        }
        check(true, false, "x\nstat::number_of_executed_units: 12\n", "12 inputs, none breaks it");
        check(true, false, "", "ended without saying how many inputs it tried");
        check(false, false, "panic", "BROKEN, by the input named below");
        check(false, true, "", "hangs");
    }
}
