//! The table in `SECURITY.md` of what is promised in figures, and the figures that tests leave behind.
//!
//! A test says what it has measured on a line of its own: `FIGURE <id>: <bad> of <tried> <what>`, as
//! `FIGURE audit-tampering: 0 of 9,000 changes unnoticed`. The table says the same with the most that may be bad and the
//! least that must be tried, so a test that was made smaller falls short of its promise. Whether a test measures what
//! it says is for its readers and for its control.

use std::collections::BTreeSet;
use std::fmt;

/// So many of so many.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    bad: u64,
    tried: u64,
    what: String,
}

impl Figure {
    fn parse(text: &str) -> Option<Self> {
        let (bad, rest) = text.trim().split_once(" of ")?;
        let (tried, what) = rest.split_once(' ')?;
        let number = |text: &str| text.replace(',', "").parse::<u64>().ok();
        Some(Self { bad: number(bad)?, tried: number(tried)?, what: what.trim().to_owned() })
    }

    /// Whether this, measured, keeps what `promised` says.
    fn keeps(&self, promised: &Self) -> bool {
        self.what == promised.what && self.bad <= promised.bad && self.tried >= promised.tried
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", grouped(self.bad), grouped(self.tried), self.what)
    }
}

/// A figure that a test has left behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Measured {
    id: String,
    figure: Figure,
}

impl Measured {
    /// Reads the figures that tests announce on lines of their own.
    pub fn find_all(output: &str) -> Vec<Self> {
        let lines = output.lines().filter_map(|line| line.trim().strip_prefix("FIGURE "));
        let parts = lines.filter_map(|line| line.split_once(": "));
        parts
            .filter_map(|(id, text)| Some(Self { id: id.to_owned(), figure: Figure::parse(text)? }))
            .collect()
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    id: String,
    /// The test that measures it: a function, or a file.
    pub test: String,
    figure: Figure,
}

impl Promise {
    /// Whether a skip of this name is of what measures the promise: its test, or the promise itself.
    pub fn is_called(&self, skip: &str) -> bool {
        self.test == skip || self.id == skip.replace(' ', "-")
    }
}

/// Reads the table; what is wrong with it stands beside its line, counted from 1.
pub fn promises(text: &str) -> (Vec<Promise>, Vec<(usize, String)>) {
    let (mut promises, mut wrong, mut in_table, mut ids) = (Vec::new(), Vec::new(), false, BTreeSet::new());
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells == ["", "id", "promise", "measured by", "figure", "not promised", ""] {
            in_table = true;
            continue;
        }
        in_table &= cells.len() > 1;
        if !in_table || line.starts_with("|---") {
            continue;
        }
        let ["", id, _, test, figure, _, ""] = cells[..] else {
            wrong.push((index + 1, "a line of the figures has five columns".to_owned()));
            continue;
        };
        let Some(figure) = Figure::parse(figure) else {
            wrong.push((index + 1, format!("`{figure}` is no figure like `0 of 1,000 reads lost`")));
            continue;
        };
        let (id, test) = (id.trim_matches('`').to_owned(), test.trim_matches('`').to_owned());
        if !ids.insert(id.clone()) {
            wrong.push((index + 1, format!("`{id}` stands there twice")));
        }
        promises.push(Promise { id, test, figure });
    }
    (promises, wrong)
}

/// What is promised beside what was measured, and what falls short.
#[derive(Debug, Default)]
pub struct Comparison {
    lines: Vec<String>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Compares the promises whose tests ran with what they left behind.
pub fn compare(
    promises: &[Promise],
    measured: &[Measured],
    is_left_out: impl Fn(&Promise) -> bool,
) -> Comparison {
    let mut comparison = Comparison::default();
    for promise in promises {
        let Promise { id, test, figure } = promise;
        let found: BTreeSet<&Figure> =
            measured.iter().filter(|measured| measured.id == *id).map(|measured| &measured.figure).collect();
        for measured in &found {
            comparison.lines.push(format!("{id}: {measured}"));
            if !measured.keeps(figure) {
                comparison
                    .problems
                    .push(format!("`{id}` is promised as `{figure}`, and `{test}` measured `{measured}`"));
            }
        }
        if found.is_empty() && is_left_out(promise) {
            comparison.lines.push(format!("{id}: not measured here"));
        } else if found.is_empty() {
            comparison.problems.push(format!("`{test}` left no line `FIGURE {id}: …` behind"));
        }
    }
    for Measured { id, .. } in measured {
        if !promises.iter().any(|promise| promise.id == *id) {
            comparison.problems.push(format!("`{id}` was measured and stands in no line of the table"));
        }
    }
    comparison
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Promised in SECURITY.md, and measured in this run:")?;
        self.lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// A number as people write it: 39800 is `39,800`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| id | promise | measured by | figure | not promised |\n|---|---|---|---|---|\n\
        | `kills` | nothing is lost | `killed` | 0 of 1,000 kills lost a write | disks that lie |\n\
        | `canaries` | none comes out | `testkit/c.py` | 0 of 20 canaries came out | |\n\n| a | b |\n|---|---|\n| c | d |\n";

    #[test]
    fn figures_and_what_falls_short() {
        #[track_caller]
        fn check(output: &str, expected: &[&str]) {
            let (promises, wrong) = promises(TABLE);
            assert_eq!((promises.len(), wrong), (2, Vec::new()));
            let comparison =
                compare(&promises, &Measured::find_all(output), |promise| promise.test.ends_with(".py"));
            assert_eq!(comparison.problems, expected, "{output}");
        }
        check(
            "x\n FIGURE kills: 0 of 1000 kills lost a write\nFIGURE canaries: 0 of 20 canaries came out",
            &[],
        );
        check("FIGURE kills: 0 of 12,345,678 kills lost a write", &[]);
        check("", &["`killed` left no line `FIGURE kills: …` behind"]);
        check(
            "FIGURE kills: 1 of 1,000 kills lost a write",
            &[
                "`kills` is promised as `0 of 1,000 kills lost a write`, and `killed` measured `1 of 1,000 kills lost a write`",
            ],
        );
        check(
            "FIGURE kills: 0 of 999 kills lost a write",
            &[
                "`kills` is promised as `0 of 1,000 kills lost a write`, and `killed` measured `0 of 999 kills lost a write`",
            ],
        );
        check(
            "FIGURE kills: 0 of 1,000 kills lost a write\nFIGURE other: 0 of 1 x",
            &["`other` was measured and stands in no line of the table"],
        );
    }

    #[test]
    fn skips_and_whose_they_are() {
        let (promises, _) = promises(TABLE);
        let called = |skip: &str| promises.iter().filter(|promise| promise.is_called(skip)).count();
        assert_eq!(
            ["killed", "kills", "testkit/c.py", "canaries", "other", ""].map(called),
            [1, 1, 1, 1, 0, 0]
        );
    }

    #[test]
    fn the_run_prints_what_was_measured() {
        let (promises, _) = promises(TABLE);
        let comparison = compare(&promises, &Measured::find_all("FIGURE kills: 0 of 39800 x"), |_| true);
        let expected = "Promised in SECURITY.md, and measured in this run:\n  kills: 0 of 39,800 x\n  canaries: not measured here\n";
        assert_eq!(comparison.to_string(), expected);
    }

    #[test]
    fn tables_and_what_is_wrong_with_them() {
        let wrong = |from: &str, to: &str| promises(&TABLE.replacen(from, to, 1)).1;
        assert_eq!(
            wrong("0 of 1,000 kills lost a write", "none"),
            [(3, "`none` is no figure like `0 of 1,000 reads lost`".to_owned())]
        );
        assert_eq!(wrong("`canaries`", "`kills`"), [(4, "`kills` stands there twice".to_owned())]);
        assert_eq!(
            wrong("disks that lie", "a | b"),
            [(3, "a line of the figures has five columns".to_owned())]
        );
    }
}
