//! The published advisories on Vault and OpenBao: whether each has an answer that names what exists, and whether the
//! page says what the list says.
//!
//! It makes the page from the list, so nobody keeps them alike by hand. Whether an answer is true is for its readers,
//! for the tests that it names, and for their controls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Violation;
use super::promises::{columns, named, tests};
use super::source::Source;
use crate::workspace::Workspace;

/// Writes the page anew.
///
/// # Errors
/// When the list cannot be read.
pub fn write(workspace: &Workspace) -> Result<bool> {
    let text =
        fs::read_to_string(workspace.root.join(LIST)).with_context(|| format!("failed to read `{LIST}`"))?;
    let list: List = toml::from_str(&text).with_context(|| format!("failed to read `{LIST}`"))?;
    fs::write(workspace.root.join(PAGE), page(&list)).with_context(|| format!("failed to write `{PAGE}`"))?;
    println!("{PAGE}: {} advisories", list.advisory.len());
    Ok(true)
}

/// The texts that the rule reads.
pub struct Texts<'a> {
    /// The list of advisories.
    pub list: &'a str,
    /// The page.
    pub page: &'a str,
    /// The page with the invariants.
    pub architecture: &'a str,
}

/// Checks list, page, and the table of what is not there.
pub fn check(texts: &Texts<'_>, sources: &[Source], files: &BTreeSet<&str>) -> Vec<Violation> {
    let list: List = match toml::from_str(texts.list) {
        Ok(list) => list,
        Err(error) => return vec![Violation::new(LIST, 1, RULE, error.message())],
    };
    let tests = tests(sources);
    let is_test = |name: &str| tests.contains(name) || files.contains(name);
    let (invariants, mut found) = invariants(texts.architecture, sources, &is_test);
    let mut ids = BTreeSet::new();
    for advisory in &list.advisory {
        let line = 1 + texts.list.lines().take_while(|line| !line.contains(&advisory.id)).count();
        for advice in advisory.problems(&list.classes, &is_test, &invariants) {
            found.push(Violation::new(LIST, line, RULE, format!("{}: {advice}", advisory.id)));
        }
        if !ids.insert(&advisory.id) {
            found.push(Violation::new(LIST, line, RULE, format!("{} stands there twice", advisory.id)));
        }
    }
    if ids.len() != list.source.count {
        let advice = format!("there are {} advisories, and the source has {}", ids.len(), list.source.count);
        found.push(Violation::new(LIST, 1, RULE, advice));
    }
    if texts.page != page(&list) {
        found.push(Violation::new(PAGE, 1, RULE, "differs from the list; run `cargo xtask advisories`"));
    }
    found
}

/// The list.
pub const LIST: &str = "docs/security/advisories.toml";
/// The page.
pub const PAGE: &str = "docs/security/advisories.md";
/// Where the table of what is not there stands.
pub const ARCHITECTURE: &str = "ARCHITECTURE.md";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    source: Origin,
    classes: BTreeMap<String, String>,
    advisory: Vec<Advisory>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Origin {
    database: String,
    modules: Vec<String>,
    commit: String,
    date: String,
    /// How many there are in the database.
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisory {
    id: String,
    aliases: Vec<String>,
    product: String,
    class: u32,
    #[serde(default)]
    tests: Vec<String>,
    invariant: Option<String>,
    why: String,
}

impl Advisory {
    fn problems(
        &self,
        classes: &BTreeMap<String, String>,
        is_test: &impl Fn(&str) -> bool,
        invariants: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        if !classes.contains_key(&self.class.to_string()) {
            problems.push(format!("there is no class {}", self.class));
        }
        if self.tests.is_empty() == self.invariant.is_none() {
            problems.push("name either tests or an invariant".to_owned());
        }
        let unknown = self.tests.iter().filter(|name| !is_test(name));
        problems.extend(unknown.map(|name| format!("there is no test `{name}`")));
        let unknown = self.invariant.iter().filter(|name| !invariants.contains(*name));
        problems.extend(unknown.map(|name| format!("`{ARCHITECTURE}` has no invariant `{name}`")));
        problems
    }
}

/// The names in the table of what is not there, and what keeps them that does not exist.
fn invariants(
    text: &str,
    sources: &[Source],
    is_test: &impl Fn(&str) -> bool,
) -> (BTreeSet<String>, Vec<Violation>) {
    let (mut names, mut found, mut in_table) = (BTreeSet::new(), Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        let Some((before, kept_by)) = columns(line) else {
            in_table = false;
            continue;
        };
        if before.starts_with(TABLE) {
            in_table = true;
            continue;
        }
        let name = before.split('`').nth(1);
        let Some(name) = name.filter(|_| in_table) else { continue };
        names.insert(name.to_owned());
        let keepers: Vec<&str> = named(kept_by).collect();
        if keepers.is_empty() {
            found.push(Violation::new(ARCHITECTURE, index + 1, RULE, "name what keeps it"));
        }
        for keeper in keepers {
            let is_there = match keeper.strip_prefix("tidy:") {
                Some(rule) => is_rule(rule, sources),
                None => is_test(keeper),
            };
            if !is_there {
                found.push(Violation::new(ARCHITECTURE, index + 1, RULE, format!("there is no `{keeper}`")));
            }
        }
    }
    (names, found)
}

/// Whether one of the modules of tidy says that name.
fn is_rule(name: &str, sources: &[Source]) -> bool {
    let tidy = sources.iter().filter(|source| source.file.starts_with("xtask/src/tidy/"));
    tidy.flat_map(|source| &source.lines).any(|line| line.strings.contains(name))
}

fn page(list: &List) -> String {
    let mut page = String::from(HEAD);
    let Origin { database, modules, commit, date, count } = &list.source;
    let (by_test, by_invariant): (Vec<_>, Vec<_>) =
        list.advisory.iter().partition(|advisory| advisory.invariant.is_none());
    let modules: Vec<String> = modules.iter().map(|module| format!("`{module}…`")).collect();
    // Writing into a string cannot fail.
    let _ = write!(
        page,
        "The list is that of the public Go vulnerability database <{database}> for the modules {}, at its commit\n\
         `{commit}` of {date}: {count} entries. {} are answered by tests, {} by an invariant.\n",
        modules.join(" and "),
        by_test.len(),
        by_invariant.len()
    );
    for (number, class) in sorted(&list.classes) {
        let of_class: Vec<&Advisory> = list.advisory.iter().filter(|it| it.class == number).collect();
        if of_class.is_empty() {
            continue;
        }
        let _ = write!(
            page,
            "\n## {number}. {}\n\n| advisory | on | answer | because |\n|---|---|---|---|\n",
            capital(class)
        );
        for advisory in of_class {
            let cve: Vec<&str> = advisory
                .aliases
                .iter()
                .map(String::as_str)
                .filter(|alias| alias.starts_with("CVE-"))
                .collect();
            let answer = match &advisory.invariant {
                Some(name) => format!("does not apply: `{name}`"),
                None => {
                    let names: Vec<String> = advisory.tests.iter().map(|name| format!("`{name}`")).collect();
                    format!("tested by {}", names.join(", "))
                }
            };
            let _ = writeln!(
                page,
                "| {} {} | {} | {answer} | {} |",
                advisory.id,
                cve.join(" "),
                advisory.product,
                advisory.why
            );
        }
    }
    page
}

/// The classes by number; as text, 10 would stand before 2.
fn sorted(classes: &BTreeMap<String, String>) -> BTreeMap<u32, &str> {
    classes.iter().filter_map(|(number, class)| Some((number.parse().ok()?, class.as_str()))).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

const HEAD: &str = "# The advisories on Vault and OpenBao, answered\n\n\
    What went wrong in the two servers that are nearest to Keymoat, and what keeps each of it from going wrong here: a\n\
    named test, or a named invariant of the table \"What is not there\" in [ARCHITECTURE.md](../../ARCHITECTURE.md). Made\n\
    from `advisories.toml` by `cargo xtask advisories`; `cargo xtask tidy` resolves every name. \"Does not apply\" holds as\n\
    long as the feature does not exist: whoever adds it breaks what keeps the invariant, and comes by here.\n\n";
const TABLE: &str = "name |";
const RULE: &str = "advisory";

#[cfg(test)]
mod tests {
    use super::*;

    const LIST_OF_TWO: &str = r#"
        source = { database = "https://db.test", modules = ["m"], commit = "c", date = "d", count = 2 }
        classes = { 2 = "paths", 10 = "ends" }
        [[advisory]]
        id = "GO-1"
        aliases = ["CVE-1", "GHSA-1"]
        product = "Vault"
        class = 10
        tests = ["it_holds"]
        why = "it ends"
        [[advisory]]
        id = "GO-2"
        aliases = ["CVE-2"]
        product = "OpenBao"
        class = 2
        invariant = "no-paths"
        why = "there are none"
    "#;
    const TABLE_OF_TWO: &str = "| name | what is not there | kept by |\n|---|---|---|\n| `no-paths` | paths | `it_holds` |\n| `no-calls` | calls | tidy:outbound |\n";

    /// What is said when these words of the list, the table and the page are others.
    #[track_caller]
    fn check(list: (&str, &str), table: (&str, &str), expected: &[&str]) {
        let list = LIST_OF_TWO.replacen(list.0, list.1, 1);
        let architecture = TABLE_OF_TWO.replacen(table.0, table.1, 1);
        let sources = [
            Source::parse("crates/a/tests/t.rs", "//! T.\n#[test]\nfn it_holds() {}\n"),
            Source::parse("xtask/src/tidy/code.rs", "//! C.\nplace.violation(\"outbound\", x)\n"),
        ];
        let made = page(&toml::from_str(LIST_OF_TWO).unwrap());
        let texts = Texts { list: &list, page: &made, architecture: &architecture };
        let found = super::check(&texts, &sources, &BTreeSet::new());
        let advice: Vec<&str> = found.iter().map(|violation| violation.advice.as_str()).collect();
        assert_eq!(advice, expected);
    }

    #[test]
    fn advisories_and_what_is_wrong_with_their_answers() {
        let differs = "differs from the list; run `cargo xtask advisories`";
        check(("", ""), ("", ""), &[]);
        check(("\"it_holds\"", "\"it_held\""), ("", ""), &["GO-1: there is no test `it_held`", differs]);
        check(
            ("no-paths", "no-path"),
            ("", ""),
            &["GO-2: `ARCHITECTURE.md` has no invariant `no-path`", differs],
        );
        check(
            ("tests = [\"it_holds\"]", ""),
            ("", ""),
            &["GO-1: name either tests or an invariant", differs],
        );
        check(("class = 10", "class = 11"), ("", ""), &["GO-1: there is no class 11", differs]);
        check(
            ("count = 2", "count = 3"),
            ("", ""),
            &["there are 2 advisories, and the source has 3", differs],
        );
        check(
            ("\"GO-2\"", "\"GO-1\""),
            ("", ""),
            &["GO-1 stands there twice", "there are 1 advisories, and the source has 2", differs],
        );
        check(("it ends", "it will end"), ("", ""), &[differs]);
        check(("", ""), ("`it_holds`", "`it_held`"), &["there is no `it_held`"]);
        check(("", ""), ("tidy:outbound", "tidy:inbound"), &["there is no `tidy:inbound`"]);
        check(("", ""), ("tidy:outbound", ""), &["name what keeps it"]);
    }

    #[test]
    fn the_page_has_every_id_under_its_class() {
        let page = page(&toml::from_str(LIST_OF_TWO).unwrap());
        let (paths, ends) = (page.find("## 2. Paths").unwrap(), page.find("## 10. Ends").unwrap());
        assert!(paths < page.find("GO-2 CVE-2").unwrap() && page.find("GO-2").unwrap() < ends);
        assert!(page.contains("| GO-1 CVE-1 | Vault | tested by `it_holds` | it ends |"), "{page}");
    }
}
