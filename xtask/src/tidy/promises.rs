//! Whether every promise in `SECURITY.md` names tests and controls that exist.
//!
//! It reads the tables whose second column is `kept by`. Whether a test proves what the promise says is for its
//! readers and for the controls.

use std::collections::BTreeSet;

use super::Violation;
use super::source::Source;
use crate::figures;

/// Checks the promises against the tests in the sources and the names of all files.
pub fn check(text: &str, sources: &[Source], files: &BTreeSet<&str>) -> Vec<Violation> {
    let tests = tests(sources);
    let mut found = Vec::new();
    let mut in_table = false;
    for (index, line) in text.lines().enumerate() {
        let Some((promise, kept_by)) = columns(line) else {
            in_table = false;
            continue;
        };
        if kept_by == HEADING {
            in_table = true;
            continue;
        }
        if !in_table || promise.starts_with("---") {
            continue;
        }
        let wrong = |advice: String| Violation::new(PROMISES, index + 1, RULE, advice);
        let names: Vec<&str> = named(kept_by).collect();
        if names.is_empty() {
            found.push(wrong("name the test that keeps it".to_owned()));
        }
        for name in names {
            let is_there = match name.strip_prefix("control:") {
                Some(control) => files.contains(format!("testkit/controls/{control}.patch").as_str()),
                None => tests.contains(name) || files.contains(name),
            };
            if !is_there {
                found.push(wrong(format!("there is no `{name}`")));
            }
        }
    }
    let (measured, wrong) = figures::promises(text);
    found.extend(wrong.into_iter().map(|(line, advice)| Violation::new(PROMISES, line, RULE, advice)));
    let unknown =
        measured.iter().filter(|it| !tests.contains(it.test.as_str()) && !files.contains(it.test.as_str()));
    found.extend(unknown.map(|it| Violation::new(PROMISES, 1, RULE, format!("there is no `{}`", it.test))));
    found
}

/// The file of the promises.
pub const PROMISES: &str = "SECURITY.md";

/// The two columns of a table's line.
pub(super) fn columns(line: &str) -> Option<(&str, &str)> {
    let (promise, kept_by) = line.strip_prefix('|')?.strip_suffix('|')?.rsplit_once('|')?;
    Some((promise.trim(), kept_by.trim()))
}

/// What stands in `code`, and controls and rules of tidy, which stand without.
pub(super) fn named(kept_by: &str) -> impl Iterator<Item = &str> {
    let code = kept_by.split('`').skip(1).step_by(2);
    let controls = kept_by
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '`'))
        .filter(|word| word.starts_with("control:") || word.starts_with("tidy:"));
    code.filter(|word| !word.starts_with("control:")).chain(controls)
}

/// The names of all functions that are compiled for tests.
pub(super) fn tests(sources: &[Source]) -> BTreeSet<&str> {
    let lines = sources.iter().flat_map(|source| {
        source.lines.iter().enumerate().filter(|(index, _)| source.is_test_line(*index)).map(|(_, line)| line)
    });
    lines.filter_map(|line| function(&line.code)).collect()
}

fn function(code: &str) -> Option<&str> {
    let (before, after) = code.split_once("fn ")?;
    let is_one = before.trim().split(' ').all(|word| matches!(word, "" | "async" | "pub"));
    let end = after.find(['(', '<'])?;
    is_one.then_some(&after[..end])
}

const HEADING: &str = "kept by";
const RULE: &str = "promise";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_and_what_is_wrong_with_them() {
        fn check(row: &str, expected: &[&str]) {
            let text = format!(
                "# S\n\n| promise | kept by |\n|---|---|\n{row}\n\n| other | table |\n|---|---|\n| a | `b` |\n"
            );
            let code = "//! T.\n#[test]\nfn it_holds() {}\nasync fn so_does_this<T>() {}\n";
            let sources = [
                Source::parse("crates/a/tests/t.rs", code),
                Source::parse("crates/a/src/lib.rs", "fn real() {}"),
            ];
            let files = BTreeSet::from(["testkit/controls/a-break.patch", "testkit/check.py"]);
            let found = super::check(&text, &sources, &files);
            let advice: Vec<&str> = found.iter().map(|violation| violation.advice.as_str()).collect();
            assert_eq!(advice, expected, "{row}");
            assert!(found.iter().all(|violation| violation.line == 5));
        }
        check("| a | `it_holds` |", &[]);
        check("| a | `it_holds` (core), `so_does_this`; control:a-break |", &[]);
        check("| a | `testkit/check.py` recomputes it |", &[]);
        check("| a |  |", &["name the test that keeps it"]);
        check("| a | `it_held` |", &["there is no `it_held`"]);
        check("| a | `real` |", &["there is no `real`"]);
        check("| a | `it_holds`; control:other |", &["there is no `control:other`"]);
    }
}
