//! `cargo xtask controls`: breaks a promise on purpose and expects the named test to go red.
//!
//! A control is a patch in `testkit/controls` with a header that says which promise it breaks and which test keeps it.
//! The patch is applied to a copy of the repository under the target directory, never to the checkout. A test that
//! stays green, that does not exist, that is red without the patch, or a patch that no longer applies or compiles, is a
//! failure of the control: nothing would have noticed.

mod patch;
mod tree;

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use patch::Control;
use tree::{Tree, Verdict};

/// Which controls to run.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// All.
    All,
    /// As many as fit [`QUICK_BUDGET`], beginning elsewhere with every commit.
    Quick,
    /// Those with this in their name.
    Named(String),
}

impl Choice {
    /// Reads the arguments after `controls`.
    ///
    /// # Errors
    /// When there is more than one, or an unknown option.
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        match arguments {
            [] => Ok(Self::All),
            ["--quick"] => Ok(Self::Quick),
            [name] if !name.starts_with('-') => Ok(Self::Named((*name).to_owned())),
            other => {
                bail!("unknown arguments `{}`; usage: cargo xtask controls [--quick] [NAME]", other.join(" "))
            }
        }
    }
}

/// Runs controls and prints each outcome; `false` when one failed.
///
/// # Errors
/// When there is no control to run or the copy cannot be made.
pub fn run(workspace: &Workspace, choice: Choice) -> Result<bool> {
    let outcomes = outcomes(workspace, &choice)?;
    if outcomes.is_empty() {
        bail!("no control to run in `{}`", patch::DIR);
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_red()).count();
    for outcome in outcomes.iter().filter(|outcome| !outcome.is_red()) {
        println!("{outcome}");
    }
    println!("controls: {} red as they should be, {failed} failed", outcomes.len() - failed);
    Ok(failed == 0)
}

/// Runs controls and returns what became of each.
///
/// # Errors
/// When the patches cannot be read or the copy cannot be made.
pub fn outcomes(workspace: &Workspace, choice: &Choice) -> Result<Vec<Outcome>> {
    let (mut controls, mut outcomes) = (Vec::new(), Vec::new());
    for (name, parsed) in patch::read_all(workspace)? {
        match parsed {
            Ok(control) => controls.push(control),
            Err(why) => {
                outcomes.push(Outcome { name, breaks: String::new(), verdict: Verdict::Unusable(why) })
            }
        }
    }
    let controls = select(controls, choice, workspace.commit_count());
    if controls.is_empty() {
        return Ok(outcomes);
    }
    let started = Instant::now();
    let mut tree = Tree::prepare(workspace)?;
    let mut healthy = BTreeSet::new();
    for control in &controls {
        if *choice == Choice::Quick && started.elapsed() > QUICK_BUDGET {
            break;
        }
        let outcome = one(&mut tree, control, &mut healthy)?;
        println!(
            "  {}: {} ({:.0} s so far)",
            outcome.name,
            outcome.verdict.word(),
            started.elapsed().as_secs_f64()
        );
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// What became of one control.
#[derive(Debug)]
pub struct Outcome {
    /// The name of the patch.
    pub name: String,
    breaks: String,
    verdict: Verdict,
}

impl Outcome {
    /// Whether the broken promise was noticed.
    pub fn is_red(&self) -> bool {
        matches!(self.verdict, Verdict::Red)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "control {} ({}): {}", self.name, self.breaks, self.verdict)
    }
}

/// Runs the test without and with the patch. `healthy` remembers the tests that were green without one.
fn one(tree: &mut Tree, control: &Control, healthy: &mut BTreeSet<String>) -> Result<Outcome> {
    let outcome =
        |verdict| Ok(Outcome { name: control.name.clone(), breaks: control.breaks.clone(), verdict });
    let test = format!("{} {}", control.package, control.filter);
    tree.restore()?;
    if !healthy.contains(&test) {
        let verdict = tree.judge(control)?;
        if !matches!(verdict, Verdict::Green) {
            return outcome(Verdict::Unusable(format!("without the patch: {verdict}")));
        }
        healthy.insert(test);
    }
    if let Err(why) = tree.apply(control)? {
        return outcome(Verdict::Unusable(format!("the patch does not apply any more:\n{why}")));
    }
    let verdict = tree.judge(control)?;
    tree.restore()?;
    outcome(verdict)
}

/// Puts the chosen controls in the order in which they run.
fn select(mut controls: Vec<Control>, choice: &Choice, commits: usize) -> Vec<Control> {
    match choice {
        Choice::All => {}
        Choice::Named(part) => controls.retain(|control| control.name.contains(part.as_str())),
        Choice::Quick if controls.is_empty() => {}
        Choice::Quick => {
            let first = commits.wrapping_mul(QUICK_STRIDE) % controls.len();
            controls.rotate_left(first);
        }
    }
    controls
}

/// After this no further control is begun in a quick run.
const QUICK_BUDGET: Duration = Duration::from_secs(180);
/// About as many controls as fit the budget, so that the next commit begins where this one ended.
const QUICK_STRIDE: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(choice: &Choice, commits: usize) -> String {
        let control = |name: &str| Control {
            name: name.to_owned(),
            breaks: "b".to_owned(),
            package: "p".to_owned(),
            filter: "f".to_owned(),
            diff: String::new(),
        };
        let controls = ["a", "b", "c", "d", "e"].map(control).into();
        select(controls, choice, commits).into_iter().map(|control| control.name).collect()
    }

    #[test]
    fn a_quick_run_begins_elsewhere_with_every_commit() {
        for (choice, commits, expected) in [
            (Choice::All, 3, "abcde"),
            (Choice::Named("c".to_owned()), 3, "c"),
            (Choice::Named("x".to_owned()), 3, ""),
            (Choice::Quick, 0, "abcde"),
            (Choice::Quick, 1, "cdeab"),
            (Choice::Quick, 2, "eabcd"),
        ] {
            assert_eq!(names(&choice, commits), expected, "{choice:?} {commits}");
        }
        let firsts: std::collections::BTreeSet<_> = (0..5).map(|n| names(&Choice::Quick, n)).collect();
        assert_eq!(firsts.len(), 5);
        assert!(select(Vec::new(), &Choice::Quick, 1).is_empty());
    }

    #[test]
    fn arguments_are_read() {
        for (arguments, expected) in [
            (&[][..], Some(Choice::All)),
            (&["--quick"], Some(Choice::Quick)),
            (&["crypto"], Some(Choice::Named("crypto".to_owned()))),
            (&["--slow"], None),
            (&["a", "b"], None),
        ] {
            assert_eq!(Choice::parse(arguments).ok(), expected);
        }
    }
}
