//! Which crate may know which: the arrows between the rooms, read from the manifests.
//!
//! What a room does with a neighbour that it may know is for reviews and for the compiler.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Violation;

/// Checks the dependencies of one manifest.
pub fn check(file: &str, text: &str) -> Vec<Violation> {
    let manifest = match text.parse::<Table>() {
        Ok(manifest) => manifest,
        Err(error) => {
            return vec![Violation::new(file, 1, RULE, format!("is no manifest: {}", error.message()))];
        }
    };
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str)
    else {
        return Vec::new();
    };
    let Some(allowed) = ARROWS.iter().find(|(room, _)| *room == name).map(|(_, known)| *known) else {
        let advice = format!("`{name}` is a new room: say in `ARROWS` whom it may know");
        return vec![Violation::new(file, 1, RULE, advice)];
    };
    let known = dependencies(&manifest).into_iter().filter(|dependency| is_ours(dependency));
    let refused = known.filter(|dependency| *dependency != name && !allowed.contains(&dependency.as_str()));
    refused
        .map(|dependency| {
            let advice =
                format!("`{name}` may not know `{dependency}`; move the code or turn the arrow around");
            Violation::new(file, line_of(text, &dependency), RULE, advice)
        })
        .collect()
}

/// Checks that every crate has the lints of the workspace, of which two crates may lift one in the modules that they name.
pub fn check_lints(manifests: &[&(String, String)], root: &str) -> Vec<Violation> {
    let root = root.parse::<Table>().unwrap_or_default();
    let shared = root.get("workspace").and_then(|workspace| workspace.get("lints")).and_then(Value::as_table);
    let expected = shared.cloned().unwrap_or_default();
    manifests.iter().filter_map(|(file, text)| check_lints_of(file, text, &expected)).collect()
}

fn check_lints_of(file: &str, text: &str, shared: &Table) -> Option<Violation> {
    let manifest = text.parse::<Table>().ok()?;
    manifest.get("package")?;
    let lints = manifest.get("lints").and_then(Value::as_table).cloned().unwrap_or_default();
    if lints.get("workspace").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    if !MAY_COPY_LINTS.contains(&file) {
        return Some(Violation::new(file, 1, "lints", "inherit them: `[lints] workspace = true`"));
    }
    let mut expected = shared.clone();
    if let Some(rust) = expected.get_mut("rust").and_then(Value::as_table_mut) {
        rust.insert("unsafe_code".into(), "deny".into());
    }
    let advice = "copy the lints of the workspace, with `unsafe_code = \"deny\"`; they differ";
    (lints != expected).then(|| Violation::new(file, line_of(text, "[lints"), "lints", advice))
}

/// The names of all dependencies, of every kind and platform, by their package.
fn dependencies(manifest: &Table) -> Vec<String> {
    let platforms = manifest.get("target").and_then(Value::as_table);
    let tables = platforms.into_iter().flat_map(Table::values).filter_map(Value::as_table).chain([manifest]);
    let mut names = BTreeMap::new();
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
                names.insert(package.to_owned(), ());
            }
        }
    }
    names.into_keys().collect()
}

fn is_ours(name: &str) -> bool {
    name == "xtask" || name == "keymoat" || name.starts_with("keymoat-")
}

fn line_of(text: &str, start: &str) -> usize {
    text.lines().position(|line| line.trim_start().starts_with(start)).map_or(1, |index| index + 1)
}

const RULE: &str = "direction";
/// The one has the modules that lock memory, the other SQLite's view of the disk.
const MAY_COPY_LINTS: [&str; 2] = ["crates/crypto/Cargo.toml", "testkit/Cargo.toml"];

/// Room by room, whom it may know. `core`, `crypto` and `detect` know nobody, so whoever stands above may know them.
const ARROWS: [(&str, &[&str]); 13] = [
    ("keymoat-core", &[]),
    ("keymoat-crypto", &[]),
    ("keymoat-detect", &[]),
    ("keymoat-store", &["keymoat-core", "keymoat-crypto"]),
    ("keymoat-providers", &["keymoat-core", "keymoat-crypto", "keymoat-detect"]),
    ("keymoat-scan", &["keymoat-core", "keymoat-detect"]),
    ("keymoat-gateway", &["keymoat-core", "keymoat-crypto", "keymoat-detect"]),
    (
        "keymoat-vault",
        &[
            "keymoat-core",
            "keymoat-crypto",
            "keymoat-detect",
            "keymoat-store",
            "keymoat-providers",
            "keymoat-gateway",
        ],
    ),
    (
        "keymoat-server",
        &["keymoat-vault", "keymoat-gateway", "keymoat-core", "keymoat-crypto", "keymoat-detect"],
    ),
    (
        "keymoat",
        &[
            "keymoat-core",
            "keymoat-crypto",
            "keymoat-detect",
            "keymoat-store",
            "keymoat-providers",
            "keymoat-scan",
            "keymoat-gateway",
            "keymoat-vault",
            "keymoat-server",
            "keymoat-testkit",
        ],
    ),
    // It harms vaults of its own, as `selftest` and the tests ask.
    (
        "keymoat-testkit",
        &["keymoat-core", "keymoat-crypto", "keymoat-detect", "keymoat-store", "keymoat-vault"],
    ),
    // It measures the built program from outside, and what has no command yet.
    ("keymoat-benches", &["keymoat-core", "keymoat-crypto", "keymoat-detect", "keymoat-scan"]),
    ("xtask", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, tables: &str) -> Vec<(usize, String)> {
        let text = format!("[package]\nname = \"{name}\"\n{tables}");
        check("crates/a/Cargo.toml", &text)
            .into_iter()
            .map(|violation| (violation.line, violation.advice))
            .collect()
    }

    #[test]
    fn arrows_go_one_way() {
        for (name, tables, lines) in [
            ("keymoat-store", "[dependencies]\nkeymoat-core.workspace = true", &[][..]),
            ("keymoat-core", "[dependencies]\nserde = \"1\"", &[]),
            ("keymoat-core", "[dependencies]\nkeymoat-crypto.workspace = true", &[4]),
            ("keymoat-core", "[dev-dependencies]\nkeymoat-store = { path = \"../store\" }", &[4]),
            ("keymoat-core", "[build-dependencies]\nkeymoat-detect = \"0\"", &[4]),
            ("keymoat-core", "[target.'cfg(unix)'.dependencies]\nkeymoat-detect = \"0\"", &[4]),
            ("keymoat-core", "[dependencies]\nmine = { package = \"keymoat-store\" }", &[1]),
            ("keymoat-server", "[dependencies]\nkeymoat-store = \"0\"", &[4]),
            ("keymoat", "[dependencies]\nkeymoat-server = \"0\"\nxtask = \"0\"", &[5]),
            ("keymoat-new", "", &[1]),
        ] {
            let found: Vec<usize> = found(name, tables).into_iter().map(|(line, _)| line).collect();
            assert_eq!(found, lines, "{name}: {tables}");
        }
    }

    #[test]
    fn a_broken_manifest_is_told() {
        assert_eq!(check("crates/a/Cargo.toml", "[package").len(), 1);
    }

    #[test]
    fn lints_are_inherited() {
        let root = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nother = \"deny\"\n";
        let copy = "[package]\nname = \"x\"\n[lints.rust]\nunsafe_code = \"deny\"\n";
        for (file, text, expected) in [
            ("crates/a/Cargo.toml", "[package]\nname = \"x\"\n[lints]\nworkspace = true".to_owned(), 0),
            ("crates/a/Cargo.toml", "[package]\nname = \"x\"\n".to_owned(), 1),
            ("crates/a/Cargo.toml", format!("{copy}other = \"deny\""), 1),
            (MAY_COPY_LINTS[0], format!("{copy}other = \"deny\""), 0),
            (MAY_COPY_LINTS[0], format!("{copy}other = \"warn\""), 1),
            (MAY_COPY_LINTS[1], copy.to_owned(), 1),
        ] {
            let row = (file.to_owned(), text);
            assert_eq!(check_lints(&[&row], root).len(), expected, "{row:?}");
        }
    }
}
