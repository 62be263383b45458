//! `cargo xtask test`: every check and every test of the repository in one command, with one summary.
//!
//! It needs Rust and nothing else; what more a suite could use (cargo-nextest, Python, git) is used when present, and
//! what is left out for want of it is a skip with a name and a reason. It decides nothing about single tests.

mod ledger;
pub mod python;
mod rust;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::controls;
use crate::figures;
use crate::process;
use crate::tidy;
use crate::workspace::Workspace;
use ledger::{AllowedSkips, Ledger, Skip};
use rust::Counts;

/// Runs all steps, or those with `only` in their name, and prints the summary; `false` when anything failed.
///
/// # Errors
/// When the workspace itself cannot be read.
pub fn run(workspace: &Workspace, only: Option<&str>) -> Result<bool> {
    let mut run = Run { workspace, ledger: Ledger::default(), builds: true };
    let chosen: Vec<&Step> =
        STEPS.iter().filter(|step| only.is_none_or(|part| step.name.contains(part))).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        anyhow::bail!("no step has that in its name; there are: {}", names.join(", "));
    }
    let mut done = Vec::new();
    for step in chosen {
        if step.needs_build && !run.builds {
            println!("{}: not run, the tests do not build", step.name);
            continue;
        }
        let before = Instant::now();
        println!("{} …", step.name);
        if let Err(error) = (step.run)(&mut run) {
            run.ledger.fail(step.name, &format!("{error:#}"));
        }
        report_time(step, before.elapsed());
        done.push(step.name);
    }
    if run.builds && (done.contains(&"tests") || done.contains(&"python")) {
        compare_figures(&mut run, &done)?;
    }
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    if is_ci {
        let listed = fs::read_to_string(workspace.root.join(ALLOWED_SKIPS)).unwrap_or_default();
        run.ledger.refuse_unlisted_skips(&AllowedSkips::parse(&listed));
    }
    print!("\n{}", run.ledger);
    Ok(run.ledger.failed == 0)
}

/// Prints what is promised in figures beside what the tests of this run left behind, and counts it as one check.
fn compare_figures(run: &mut Run<'_>, done: &[&str]) -> Result<()> {
    let text = fs::read_to_string(run.workspace.root.join(tidy::PROMISES))?;
    let (promises, _) = figures::promises(&text);
    let skipped: Vec<String> = run.ledger.skips.iter().map(|skip| skip.name.clone()).collect();
    let comparison = figures::compare(&promises, &run.ledger.figures, |promise| {
        let step = if promise.test.ends_with(".py") { "python" } else { "tests" };
        !done.contains(&step) || skipped.iter().any(|name| promise.is_called(name))
    });
    print!("\n{comparison}");
    run.ledger.check("figures", comparison.problems.is_empty(), &comparison.problems.join("\n"));
    Ok(())
}

/// Reads how many tests passed and failed from what test binaries print.
pub fn rust_counts(output: &str) -> Counts {
    Counts::of_libtest(output)
}

/// The state of one run.
struct Run<'a> {
    workspace: &'a Workspace,
    ledger: Ledger,
    /// Whether the tests could be built, so that trying again is worth the time.
    builds: bool,
}

struct Step {
    name: &'static str,
    /// Seconds on two cores after a build of the dependencies; more is worth a look, and no failure.
    budget_s: u64,
    needs_build: bool,
    run: fn(&mut Run<'_>) -> Result<()>,
}

fn report_time(step: &Step, took: Duration) {
    println!("  {:.1} s", took.as_secs_f64());
    if took > Duration::from_secs(step.budget_s) {
        println!(
            "  warning: `{}` took {:.0} s; its budget is {} s",
            step.name,
            took.as_secs_f64(),
            step.budget_s
        );
    }
}

fn format(run: &mut Run<'_>) -> Result<()> {
    if !has_component(run, "fmt") {
        return Ok(());
    }
    let finished = process::capture(
        process::cargo(run.workspace).args(["fmt", "--all", "--check"]),
        process::HARD_LIMIT,
    )?;
    run.ledger.check("format", finished.success, &finished.text);
    Ok(())
}

fn tidy(run: &mut Run<'_>) -> Result<()> {
    let report = tidy::check(run.workspace)?;
    for warning in &report.warnings {
        println!("  warning: {warning}");
    }
    run.ledger.check("tidy", report.errors.is_empty(), &report.to_string());
    Ok(())
}

fn lints(run: &mut Run<'_>) -> Result<()> {
    if !has_component(run, "clippy") {
        return Ok(());
    }
    let mut command = process::cargo(run.workspace);
    command.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    let finished = process::capture(&mut command, process::HARD_LIMIT)?;
    run.ledger.check("lints", finished.success, &finished.text);
    Ok(())
}

/// A toolchain may come without these two; then the check is skipped, which CI does not allow.
fn has_component(run: &mut Run<'_>, name: &str) -> bool {
    let present = process::answers(process::cargo(run.workspace).args([name, "--version"]));
    if !present {
        let reason =
            format!("not installed; `rustup component add {}`", if name == "fmt" { "rustfmt" } else { name });
        run.ledger.skips.push(Skip { name: format!("cargo-{name}"), reason });
    }
    present
}

fn build(run: &mut Run<'_>) -> Result<()> {
    let finished = rust::build(run.workspace)?;
    run.builds = finished.success;
    run.ledger.check("build", finished.success, &finished.text);
    Ok(())
}

fn tests(run: &mut Run<'_>) -> Result<()> {
    rust::tests(run.workspace, &mut run.ledger)
}

fn doc_tests(run: &mut Run<'_>) -> Result<()> {
    rust::doc_tests(run.workspace, &mut run.ledger)
}

fn python(run: &mut Run<'_>) -> Result<()> {
    python::run(run.workspace, &mut run.ledger)
}

fn quick_controls(run: &mut Run<'_>) -> Result<()> {
    for outcome in controls::outcomes(run.workspace, &controls::Choice::Quick)? {
        run.ledger.check(&format!("control {}", outcome.name), outcome.is_red(), &outcome.to_string());
    }
    Ok(())
}

/// In this order: what is quick and most often wrong comes first.
const STEPS: [Step; 8] = [
    Step { name: "format", budget_s: 10, needs_build: false, run: format },
    Step { name: "tidy", budget_s: 5, needs_build: false, run: tidy },
    Step { name: "lints", budget_s: 240, needs_build: false, run: lints },
    Step { name: "build", budget_s: 300, needs_build: false, run: build },
    Step { name: "tests", budget_s: 240, needs_build: true, run: tests },
    Step { name: "doc tests", budget_s: 60, needs_build: true, run: doc_tests },
    Step { name: "python", budget_s: 180, needs_build: true, run: python },
    Step { name: "controls", budget_s: 240, needs_build: true, run: quick_controls },
];

/// The skips that CI accepts.
const ALLOWED_SKIPS: &str = "testkit/allowed-skips";
