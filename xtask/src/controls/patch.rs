//! The form of a control: `# breaks:` and `# test:` lines, then a diff as `git diff` writes it.
//!
//! It says nothing about whether the patch still applies; that is found out by applying it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// One control.
#[derive(Debug, PartialEq, Eq)]
pub struct Control {
    /// The name of its file without the ending.
    pub name: String,
    /// The promise that the patch breaks.
    pub breaks: String,
    /// The package whose test keeps the promise, or the file of a suite in Python.
    pub package: String,
    /// A part of the name of that test; every test that has it must be green without the patch, and one red with it.
    pub filter: String,
    /// The diff.
    pub diff: String,
}

impl Control {
    /// The suite in Python that keeps the promise; none when it is a test of a package.
    pub fn suite(&self) -> Option<&Path> {
        let path = Path::new(&self.package);
        path.extension().is_some_and(|ending| ending == "py").then_some(path)
    }

    /// Reads a control.
    ///
    /// # Errors
    /// What is wrong with it, for whoever writes one.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let start = text.find("\ndiff --git ").map(|index| index + 1).or_else(|| text.find("--- "));
        let (header, diff) = text.split_at(start.ok_or("has no diff")?);
        let field = |key: &str| {
            let lines = header.lines().filter_map(|line| line.strip_prefix('#'));
            let value = lines.filter_map(|line| line.trim().strip_prefix(key)).map(str::trim).next();
            value.filter(|value| !value.is_empty()).ok_or(format!("has no line `# {key} …`"))
        };
        let breaks = field("breaks:")?;
        let (package, filter) =
            field("test:")?.split_once(' ').ok_or("its `# test:` line names a package and a test")?;
        Ok(Self {
            name: name.to_owned(),
            breaks: breaks.to_owned(),
            package: package.to_owned(),
            filter: filter.trim().to_owned(),
            diff: diff.to_owned(),
        })
    }
}

/// Reads all controls by name; those that cannot be read with the reason.
///
/// # Errors
/// When the directory cannot be read.
pub fn read_all(workspace: &Workspace) -> Result<Vec<(String, Result<Control, String>)>> {
    let mut controls = Vec::new();
    for file in workspace.files()? {
        let is_control = file.starts_with(DIR) && file.extension().is_some_and(|ending| ending == "patch");
        let Some(name) = file.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_control) else {
            continue;
        };
        let path = workspace.root.join(&file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        controls.push((name.to_owned(), Control::parse(name, &text)));
    }
    Ok(controls)
}

/// Where the controls are.
pub const DIR: &str = "testkit/controls";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read() {
        let diff = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n";
        let good = format!("# breaks: a promise\n# test: keymoat-core deny_wins\n# More.\n\n{diff}");
        let control = Control::parse("name", &good).unwrap();
        assert_eq!((control.breaks.as_str(), control.package.as_str()), ("a promise", "keymoat-core"));
        assert_eq!((control.filter.as_str(), control.diff.as_str()), ("deny_wins", diff));
        assert_eq!(control.suite(), None);
        let python = good.replace("keymoat-core", "testkit/test_faults.py");
        let python = Control::parse("name", &python).unwrap();
        assert_eq!(python.suite(), Some(Path::new("testkit/test_faults.py")));
        for (text, why) in [
            ("# breaks: a\n# test: b c\n".to_owned(), "no diff"),
            (format!("# test: b c\n\n{diff}"), "breaks"),
            (format!("# breaks: a\n\n{diff}"), "test"),
            (format!("# breaks:\n# test: b c\n{diff}"), "breaks"),
            (format!("# breaks: a\n# test: b\n{diff}"), "a package and a test"),
        ] {
            let error = Control::parse("name", &text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
