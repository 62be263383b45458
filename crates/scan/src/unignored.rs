//! Files that hold logins and that git would take with the next `git add .`, because nothing ignores them.

use std::path::Path;

use ignore::WalkBuilder;

/// What should be ignored in a working tree and is not: a sentence each. Directories deep down are not looked into, so
/// that a hook may ask.
pub fn unignored(worktree: &Path) -> Vec<String> {
    let mut walk = WalkBuilder::new(worktree);
    walk.hidden(false).parents(false).ignore(false).git_global(true).max_depth(Some(DEEPEST));
    walk.filter_entry(|entry| entry.file_name() != ".git" && entry.file_name() != "node_modules");
    let mut found: Vec<String> = walk
        .build()
        .flatten()
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .filter(|entry| holds_logins(&entry.file_name().to_string_lossy()))
        .filter_map(|entry| Some(entry.path().strip_prefix(worktree).ok()?.display().to_string()))
        .collect();
    found.sort();
    let said = found.iter().map(|path| {
        let path = crate::report::printable(path);
        format!("`{path}` is not ignored by git; add it to `.gitignore`, and `git rm --cached {path}` if it is tracked")
    });
    said.collect()
}

/// Whether a file of this name is made to hold logins, and is no template of one.
fn holds_logins(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if TEMPLATES.iter().any(|word| name.contains(word)) {
        return false;
    }
    NAMES.contains(&name.as_str()) || name.starts_with(".env.") || ENDS.iter().any(|end| name.ends_with(end))
}

const NAMES: [&str; 9] = [
    ".env",
    ".netrc",
    ".pgpass",
    ".git-credentials",
    ".htpasswd",
    "id_rsa",
    "id_ecdsa",
    "id_ed25519",
    ".dockercfg",
];
const ENDS: [&str; 4] = [".p12", ".pfx", ".jks", ".tfstate"];
/// Such files are meant to be seen.
const TEMPLATES: [&str; 6] = ["example", "sample", "template", "dist", "default", "schema"];
/// `.env` stands at the top, or beside one of several services.
const DEEPEST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            (".env", true),
            (".env.production", true),
            (".env.example", false),
            (".env.sample", false),
            ("ID_RSA", true),
            ("id_rsa.pub", false),
            ("prod.p12", true),
            ("environment.py", false),
        ] {
            assert_eq!(holds_logins(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_ignored_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(".git/HEAD", "ref: refs/heads/main\n");
        write(".gitignore", ".env\n");
        write(".env", "A=1\n");
        write("api/.env.production", "A=1\n");
        write("api/.env.example", "A=\n");
        write("a/b/c/d/.env.deep", "A=1\n");
        let found = unignored(dir.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("`api/.env.production` is not ignored"), "{found:?}");
        write(".gitignore", ".env*\n");
        assert!(unignored(dir.path()).is_empty());
    }
}
