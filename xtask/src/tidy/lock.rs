//! What the lock file may hold: no banned crate, and no crate in two versions without a dated reason.
//!
//! `deny.toml` is the one list, read by cargo-deny too where that is installed. This check looks at the whole lock
//! file, also at what no feature in use builds; licences and advisories are left to cargo-deny.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::Violation;

/// Checks the text of `Cargo.lock` against that of `deny.toml`.
pub fn check(lock: Option<&str>, deny: Option<&str>) -> Vec<Violation> {
    let lock = match parse::<Lock>("Cargo.lock", lock) {
        Ok(lock) => lock,
        Err(violation) => return vec![violation],
    };
    let deny = match parse::<Deny>(DENY, deny) {
        Ok(deny) => deny,
        Err(violation) => return vec![violation],
    };
    let mut found = banned(&lock, &deny.bans);
    found.extend(duplicates(&lock, &deny.bans));
    found.extend(undated(&deny.bans));
    found
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// `name` or, when there are several versions of it, `name version`.
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct Deny {
    bans: Bans,
}

#[derive(Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Entry>,
    #[serde(default)]
    skip: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// `name`, or `name@version` where the version may be cut short.
    #[serde(rename = "crate")]
    krate: String,
    #[serde(default)]
    reason: String,
    /// The packages that may ask for it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
}

impl Entry {
    fn name(&self) -> &str {
        self.krate.split_once('@').map_or(self.krate.as_str(), |(name, _)| name)
    }

    fn covers(&self, package: &Package) -> bool {
        let version =
            self.krate.split_once('@').map(|(_, version)| version.trim_start_matches(['=', '^', '~', ' ']));
        let version_fits = version.is_none_or(|wanted| {
            package.version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        self.name() == package.name && version_fits
    }
}

fn parse<T: serde::de::DeserializeOwned>(file: &str, text: Option<&str>) -> Result<T, Violation> {
    let text =
        text.ok_or_else(|| Violation::new(file, 1, RULE, "is missing; it belongs in the repository"))?;
    toml::from_str(text)
        .map_err(|error| Violation::new(file, 1, RULE, format!("cannot be read: {}", error.message())))
}

fn banned(lock: &Lock, bans: &Bans) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in &lock.package {
        let Some(entry) = bans.deny.iter().find(|entry| entry.covers(package)) else { continue };
        let askers =
            lock.package.iter().filter(|other| asks_for(other, package)).map(|other| other.name.as_str());
        let strangers: Vec<&str> =
            askers.filter(|asker| !entry.wrappers.iter().any(|name| name == asker)).collect();
        if strangers.is_empty() && !entry.wrappers.is_empty() {
            continue;
        }
        let (name, version, reason) = (&package.name, &package.version, &entry.reason);
        let advice = format!("{name} {version} is banned ({reason}); asked for by {}", strangers.join(", "));
        found.push(Violation::new("Cargo.lock", 1, "banned", advice));
    }
    found
}

fn asks_for(asker: &Package, package: &Package) -> bool {
    asker.dependencies.iter().any(|dependency| {
        let mut parts = dependency.split(' ');
        parts.next() == Some(&package.name) && parts.next().is_none_or(|version| version == package.version)
    })
}

fn duplicates(lock: &Lock, bans: &Bans) -> Vec<Violation> {
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in &lock.package {
        versions.entry(&package.name).or_default().push(package);
    }
    versions.retain(|_, packages| packages.len() > 1);
    let mut found = Vec::new();
    for (name, packages) in &versions {
        let unexplained =
            packages.iter().filter(|package| !bans.skip.iter().any(|entry| entry.covers(package)));
        // One version is the one that everybody should use; each further one needs its reason.
        let unexplained: Vec<&str> = unexplained.map(|package| package.version.as_str()).collect();
        if unexplained.len() > 1 {
            let advice =
                format!("{name} is there as {}; use one, or add a dated `skip`", unexplained.join(" and "));
            found.push(Violation::new(DENY, 1, "duplicate", advice));
        }
    }
    let duplicated: BTreeSet<&str> = versions.into_keys().collect();
    for entry in bans.skip.iter().filter(|entry| !duplicated.contains(entry.name())) {
        let advice = format!("`{}` is there once only; take its `skip` out", entry.krate);
        found.push(Violation::new(DENY, 1, "duplicate", advice));
    }
    found
}

fn undated(bans: &Bans) -> impl Iterator<Item = Violation> {
    let undated = bans.skip.iter().filter(|entry| !begins_with_date(&entry.reason));
    undated.map(|entry| {
        let advice = format!("the reason of `{}` begins with its date, as in `2026-11-22: …`", entry.krate);
        Violation::new(DENY, 1, "duplicate", advice)
    })
}

fn begins_with_date(reason: &str) -> bool {
    let date = reason.split_once(": ").map_or("", |(date, _)| date);
    let form = date.chars().map(|symbol| if symbol.is_ascii_digit() { '0' } else { symbol });
    form.eq("0000-00-00".chars())
}

const DENY: &str = "deny.toml";
const RULE: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
        [[package]]
        name = "one"
        version = "1.2.3"
        dependencies = ["two 0.14.9", "ring"]
        [[package]]
        name = "two"
        version = "0.14.9"
        [[package]]
        name = "two"
        version = "1.0.0"
        dependencies = ["ring"]
        [[package]]
        name = "ring"
        version = "0.17.0"
    "#;
    const TWO: &str = r#"skip = [{ crate = "two@0.14", reason = "2026-11-22: why" }]"#;

    fn found(bans: &str) -> Vec<&'static str> {
        let deny = format!("[bans]\n{bans}");
        check(Some(LOCK), Some(&deny)).into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn banned_crates_are_found_by_name_and_version() {
        for (entry, expected) in [
            (r#"{ crate = "absent" }"#, &[][..]),
            (r#"{ crate = "one" }"#, &["banned"]),
            (r#"{ crate = "two@0.14" }"#, &["banned"]),
            (r#"{ crate = "two@0.1" }"#, &[]),
            (r#"{ crate = "two@2" }"#, &[]),
            (r#"{ crate = "ring" }"#, &["banned"]),
            (r#"{ crate = "ring", wrappers = ["one"] }"#, &["banned"]),
            (r#"{ crate = "ring", wrappers = ["one", "two"] }"#, &[]),
        ] {
            assert_eq!(found(&format!("deny = [{entry}]\n{TWO}")), expected, "{entry}");
        }
    }

    #[test]
    fn duplicates_are_exactly_those_with_a_dated_reason() {
        for (bans, expected) in [
            (TWO, &[][..]),
            ("", &["duplicate"]),
            (r#"skip = [{ crate = "two@0.14", reason = "some day" }]"#, &["duplicate"]),
            (r#"skip = [{ crate = "one@1", reason = "2026-11-22: why" }]"#, &["duplicate", "duplicate"]),
        ] {
            assert_eq!(found(bans), expected, "{bans}");
        }
    }

    #[test]
    fn missing_or_broken_files_are_told() {
        assert_eq!(check(None, Some("[bans]")).len(), 1);
        assert_eq!(check(Some(LOCK), None).len(), 1);
        assert_eq!(check(Some("="), Some("[bans]")).len(), 1);
    }
}
