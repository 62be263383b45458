//! The chores of the workspace: `cargo xtask test`, `tidy`, `controls` and `fuzz`.
//!
//! It is never shipped. It holds no test of the product itself; it runs those that the crates have, reads the
//! sources for rules that no compiler enforces, and proves that the tests notice when a promise is broken.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for developers: it reads its arguments and prints"
)]

mod controls;
mod figures;
mod fuzz;
mod process;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one chore; `false` when it found something wrong.
fn dispatch(arguments: &[&str]) -> Result<bool> {
    match arguments {
        ["test"] => test::run(&Workspace::find()?, None),
        ["test", "--only", step] => test::run(&Workspace::find()?, Some(step)),
        ["tidy"] => tidy::run(&Workspace::find()?),
        ["controls", rest @ ..] => controls::run(&Workspace::find()?, controls::Choice::parse(rest)?),
        ["fuzz", rest @ ..] => fuzz::run(&Workspace::find()?, &fuzz::Choice::parse(rest)?),
        ["advisories"] => tidy::advisories::write(&Workspace::find()?),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(true)
        }
        other => bail!("unknown arguments `{}`\n{USAGE}", other.join(" ")),
    }
}

const USAGE: &str = "\
usage: cargo xtask <chore>

  test [--only STEP]         every check and every test, then one summary; STEP is a part of a step's name
  tidy                       the rules that no compiler enforces; reads manifests and sources, builds nothing
  advisories                 makes docs/security/advisories.md from the list beside it
  controls [--quick] [NAME]  breaks promises on purpose and expects the tests to notice; NAME is a part of a name
  fuzz [--seconds N] [NAME]  runs every parser's fuzz target, or those with NAME in their names, N seconds each (30)";
