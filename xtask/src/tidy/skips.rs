//! Whether the skips that CI accepts are still announced by some test: one under an old name would be accepted by nobody.
//!
//! Whether a reason is a good one is for its readers.

use super::Violation;

/// Checks the list of allowed skips against the texts of all files.
pub fn check(list: &str, texts: &[(String, String)]) -> Vec<Violation> {
    let lines = list.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    let entries = lines.filter_map(|(index, line)| Some((index, line.split_once(": ")?.0.trim())));
    let unknown = entries.filter(|(_, name)| !texts.iter().any(|(file, text)| announces(file, text, name)));
    unknown
        .map(|(index, name)| {
            Violation::new(
                LIST,
                index + 1,
                RULE,
                format!("no test announces `{name}`; take it out or name it anew"),
            )
        })
        .collect()
}

/// Whether a file of tests can skip under a name: it prints it, hands it to what prints it, or has the test of that id.
fn announces(file: &str, text: &str, name: &str) -> bool {
    if let Some((module, rest)) = name.split_once('.') {
        let is_it = file.ends_with(&format!("/{module}.py"));
        return is_it && rest.rsplit('.').next().is_some_and(|test| text.contains(&format!("def {test}(")));
    }
    let is_test = (file.ends_with(".rs") || file.ends_with(".py")) && !file.starts_with("xtask/");
    is_test && (text.contains(&format!("SKIP {name}:")) || text.contains(&format!("\"{name}\"")))
}

/// The list.
pub const LIST: &str = "testkit/allowed-skips";
const RULE: &str = "skip";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_and_whether_a_test_announces_them() {
        let texts = [
            ("crates/a/tests/t.rs", "eprintln!(\"SKIP memory: why\"); skip(\"behind_a_proxy\");"),
            ("testkit/test_a.py", "class A:\n    def test_b(self):\n"),
            ("xtask/src/test.rs", "\"of_the_runner\""),
        ]
        .map(|(file, text)| (file.to_owned(), text.to_owned()));
        for (entry, is_known) in [
            ("memory: a reason", true),
            ("memory_of_a_server: a reason", false),
            ("behind_a_proxy: a reason", true),
            ("test_a.A.test_b: a reason", true),
            ("test_a.A.test_c: a reason", false),
            ("test_c.A.test_b: a reason", false),
            ("of_the_runner: a reason", false),
            ("# a comment: of the list", true),
        ] {
            assert_eq!(check(entry, &texts).is_empty(), is_known, "{entry}");
        }
    }
}
