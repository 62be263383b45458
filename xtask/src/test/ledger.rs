//! What a run has found: counts over all suites, skips by name, and what failed.
//!
//! It runs nothing; suites report to it.

use std::collections::BTreeSet;
use std::fmt;

use crate::figures::Measured;

/// The counts and names of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Tests and checks that passed.
    pub passed: usize,
    /// Tests and checks that failed.
    pub failed: usize,
    /// What was left out.
    pub skips: Vec<Skip>,
    /// What tests have measured.
    pub figures: Vec<Measured>,
    failures: Vec<String>,
}

/// Something that could not be tested here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip {
    /// A name without spaces at its ends; the one in the list of allowed skips.
    pub name: String,
    /// What is missing.
    pub reason: String,
}

impl Skip {
    /// Reads the skips that tests announce on lines of their own as `SKIP <name>: <reason>`.
    pub fn find_all(output: &str) -> Vec<Self> {
        output.lines().filter_map(Self::parse_line).collect()
    }

    fn parse_line(line: &str) -> Option<Self> {
        let (name, reason) = line.trim().strip_prefix("SKIP ")?.split_once(": ")?;
        let (name, reason) = (name.trim(), reason.trim());
        let complete = !name.is_empty() && !reason.is_empty();
        complete.then(|| Self { name: name.to_owned(), reason: reason.to_owned() })
    }
}

impl Ledger {
    /// Counts a check that is one by itself; shows what it said when it failed.
    pub fn check(&mut self, name: &str, passed: bool, output: &str) {
        if passed {
            self.passed += 1;
        } else {
            self.fail(name, output);
        }
    }

    /// Counts one failure and shows its output in full.
    pub fn fail(&mut self, name: &str, output: &str) {
        self.fail_many(name, 1, output);
    }

    /// Counts the failures of a suite and shows its output in full.
    pub fn fail_many(&mut self, name: &str, count: usize, output: &str) {
        println!("{}", output.trim_end());
        self.failed += count;
        self.failures.push(name.to_owned());
    }

    /// Takes what tests announce on lines of their own: what they left out, and what they measured.
    pub fn announced(&mut self, output: &str) {
        self.skips.extend(Skip::find_all(output));
        self.figures.extend(Measured::find_all(output));
    }

    /// Makes every skip that is not listed a failure of the run.
    pub fn refuse_unlisted_skips(&mut self, allowed: &AllowedSkips) {
        let unlisted: BTreeSet<&str> = self
            .skips
            .iter()
            .map(|skip| skip.name.as_str())
            .filter(|name| !allowed.0.contains(*name))
            .collect();
        if unlisted.is_empty() {
            return;
        }
        let names = unlisted.into_iter().collect::<Vec<_>>().join("`, `");
        self.fail("skips", &format!("skipped, and not in the list of allowed skips: `{names}`"));
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "FAIL {failure}")?;
        }
        let skips: BTreeSet<&Skip> = self.skips.iter().collect();
        for skip in &skips {
            writeln!(f, "SKIP {}: {}", skip.name, skip.reason)?;
        }
        writeln!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, skips.len())
    }
}

/// The names of the skips that CI accepts: lines `<name>: <reason>`, `#` begins a comment.
#[derive(Debug)]
pub struct AllowedSkips(BTreeSet<String>);

impl AllowedSkips {
    /// Reads the list; a line without a reason allows nothing.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let entries = lines.filter_map(|line| line.split_once(": "));
        let complete = entries.filter(|(_, reason)| !reason.trim().is_empty());
        Self(complete.map(|(name, _)| name.trim().to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(name: &str) -> Skip {
        Skip { name: name.to_owned(), reason: "no database".to_owned() }
    }

    #[test]
    fn announced_skips_are_found() {
        for (output, expected) in [
            ("SKIP postgres: no database\n", &["postgres"][..]),
            ("noise\n    SKIP postgres: no database\nSKIP a b: no database", &["postgres", "a b"]),
            ("SKIP postgres\nSKIP : x\nSKIP x: \nA SKIP b: c\nSKIP [   ] crate test", &[]),
        ] {
            let expected: Vec<Skip> = expected.iter().map(|name| skip(name)).collect();
            assert_eq!(Skip::find_all(output), expected, "{output}");
        }
    }

    #[test]
    fn the_last_line_is_the_summary() {
        let mut ledger = Ledger { passed: 41, ..Ledger::default() };
        ledger.skips = vec![skip("b"), skip("a"), skip("b")];
        ledger.check("tidy", true, "");
        ledger.fail_many("tests", 2, "");
        let expected =
            "FAIL tests\nSKIP a: no database\nSKIP b: no database\n42 passed, 2 failed, 2 skipped\n";
        assert_eq!(ledger.to_string(), expected);
    }

    #[test]
    fn only_listed_skips_are_accepted() {
        let list = "# comment\npostgres: none in CI\nstrace:\n  hvac: no network\n#aws: x\n";
        for (name, failures) in [("postgres", 0), ("hvac", 0), ("strace", 1), ("aws", 1), ("other", 1)] {
            let mut ledger = Ledger { skips: vec![skip(name)], ..Ledger::default() };
            ledger.refuse_unlisted_skips(&AllowedSkips::parse(list));
            assert_eq!(ledger.failed, failures, "{name}");
        }
    }
}
