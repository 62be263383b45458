//! `.env` files and kept tokens near the directory where the program was started: plain keys that others can read, or
//! that git would take. The search goes a few levels down and, inside of a work tree, up to its root; it is bounded.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keymoat_core::dotenv::{EnvFile, EnvLimits};
use keymoat_crypto::Token;
use keymoat_detect::{Catalogue, Classification};

use super::Finding;
use crate::error::CliError;
use crate::{Context, hint};

/// Checks the files here.
pub(super) fn check(context: &Context) -> Result<Vec<Finding>, CliError> {
    let catalogue = context.catalogue()?;
    let near = files_near(Path::new("."));
    let files: Vec<&PathBuf> = near.iter().filter(|path| is_env_file(path)).take(FILES_MAX).collect();
    let mut findings: Vec<Finding> = files.iter().filter_map(|path| judge(&catalogue, path)).collect();
    if findings.is_empty() && !files.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{} near here, no plain keys in them", files.len())));
    }
    let tokens = near.iter().filter(|path| may_be_token(path)).chain(&context.variables.token_file);
    findings.extend(tokens.filter_map(|path| judge_token(path)));
    Ok(findings)
}

/// A file that holds one of Keymoat's tokens and that others can read.
fn judge_token(path: &Path) -> Option<Finding> {
    let about = std::fs::metadata(path).ok()?;
    let mode = about.mode() & 0o777;
    if mode & 0o077 == 0 || about.len() > TOKEN_FILE_MAX {
        return None;
    }
    let text = crate::master_key::read_secret_file(path).ok()?;
    Token::parse(&text).ok()?;
    let shown = path.strip_prefix(".").unwrap_or(path).display();
    let word = hint::quoted(&shown.to_string());
    Some(Finding::bad(
        TOKENS,
        format!("`{shown}` holds a token, and others can reach it (mode {mode:03o})"),
        format!(
            "`chmod 600 {word}`, and revoke the token if anybody may have read it: `keymoat token list` shows it"
        ),
    ))
}

/// What is wrong with a file; `None` when it holds no plain keys.
fn judge(catalogue: &Catalogue, path: &Path) -> Option<Finding> {
    let about = std::fs::metadata(path).ok()?;
    if about.len() > EnvLimits::USUAL.bytes as u64 {
        return None;
    }
    let keys = plain_keys(catalogue, &std::fs::read_to_string(path).ok()?)?;
    let shown = path.strip_prefix(".").unwrap_or(path).display();
    let holds = format!("`{shown}` holds {keys} key(s) in the clear");
    let word = hint::quoted(&shown.to_string());
    let import = format!("`keymoat import dotenv {word} --env ENV` takes them in and leaves references");
    if about.mode() & 0o044 != 0 {
        return Some(Finding::bad(CHECK, format!("{holds}, and other users can read it"), import));
    }
    if is_env_file(path) && git_would_take(path) {
        return Some(Finding::bad(CHECK, format!("{holds}, and git does not ignore it"), import));
    }
    Some(Finding::warn(CHECK, holds, import))
}

/// How many keys stand there in the clear; `None` for none.
fn plain_keys(catalogue: &Catalogue, text: &str) -> Option<usize> {
    let file = EnvFile::parse(text, &EnvLimits::USUAL).ok()?;
    let is_key = |name: &str, value: &str| {
        matches!(
            catalogue.identify_named(name, value.as_bytes()),
            Classification::Key(_) | Classification::Secret(_)
        )
    };
    let keys = file.entries().iter().filter(|entry| is_key(&entry.name, entry.value.as_str())).count();
    (keys > 0).then_some(keys)
}

/// Whether the file is in a work tree and not ignored; no when git cannot be asked.
fn git_would_take(path: &Path) -> bool {
    let asked = Command::new("git")
        .args(["check-ignore", "--quiet", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // 0 ignored, 1 not ignored, 128 no work tree (git-check-ignore(1)).
    asked.is_ok_and(|status| status.code() == Some(1))
}

/// The files in and below a directory, and in those above it up to the root of its work tree.
fn files_near(start: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = ENTRIES_MAX;
    let mut dirs = vec![(start.to_owned(), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        for (path, is_dir) in entries(&dir, &mut left) {
            match is_dir {
                false => files.push(path),
                true if depth < DEPTH_MAX && !is_passed_over(&path) => dirs.push((path, depth + 1)),
                true => {}
            }
        }
    }
    for dir in dirs_above(start) {
        files
            .extend(entries(&dir, &mut left).into_iter().filter(|(_, is_dir)| !is_dir).map(|(path, _)| path));
    }
    files.sort();
    files
}

/// What stands in a directory, as far as there is still something left to look at; links are not followed.
fn entries(dir: &Path, left: &mut usize) -> Vec<(PathBuf, bool)> {
    let read = std::fs::read_dir(dir).into_iter().flatten().take(*left);
    let kinds = read.filter_map(|entry| {
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        (kind.is_dir() || kind.is_file()).then(|| (entry.path(), kind.is_dir()))
    });
    let entries: Vec<(PathBuf, bool)> = kinds.collect();
    *left = left.saturating_sub(entries.len());
    entries
}

/// The directories above, up to the root of the work tree; none outside of one.
fn dirs_above(start: &Path) -> Vec<PathBuf> {
    let Ok(start) = std::fs::canonicalize(start) else { return Vec::new() };
    let up = || start.ancestors().take(DEPTH_MAX + 1);
    let Some(root) = up().find(|dir| dir.join(".git").exists()) else { return Vec::new() };
    up().skip(1).take_while(|dir| dir.starts_with(root)).map(Path::to_owned).collect()
}

/// Directories that are made by tools, large, and not somebody's own.
fn is_passed_over(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| PASSED_OVER.iter().any(|passed| name == *passed))
}

/// `.env`, `.env.*` and `*.env`.
fn is_env_file(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with(".env.") || name.ends_with(".env")
}

fn may_be_token(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().contains("token"))
}

const CHECK: &str = ".env files";
const TOKENS: &str = "token files";
/// A project with more has other troubles.
const FILES_MAX: usize = 50;
/// Looked at in all: a moment's work, and more than a project's own files in its upper directories.
const ENTRIES_MAX: usize = 20_000;
/// Levels below, and above.
const DEPTH_MAX: usize = 3;
const PASSED_OVER: [&str; 9] =
    [".git", ".hg", "node_modules", "target", "vendor", "venv", ".venv", "__pycache__", "site-packages"];
/// A token is far shorter.
const TOKEN_FILE_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Level;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_in_the_clear_are_counted() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(plain_keys(Catalogue::builtin(), text), expected, "{text}");
        };
        check("STRIPE_API_KEY=sk_live_51MadeUpExample0000KeymoatTest\nDEBUG=1\n", Some(1));
        check("STRIPE_API_KEY=keymoat://prod/stripe#secret_key\n", None);
        check("DEBUG=1\nPORT=8080\n", None);
        check("", None);
        check("not a file of variables \u{0}", None);
    }

    #[test]
    fn files_and_how_bad_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        let check = |text: &str, mode: u32, expected: Option<Level>| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(judge(Catalogue::builtin(), &path).map(|finding| finding.level), expected, "{mode:o}");
        };
        let plain = "STRIPE_API_KEY=sk_live_51MadeUpExample0000KeymoatTest\n";
        check(plain, 0o644, Some(Level::Bad));
        check(plain, 0o600, Some(Level::Warn));
        check("DEBUG=1\n", 0o644, None);
    }

    #[test]
    fn files_near_are_found_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        for file in [
            ".git/config",
            ".env",
            "docker/prod.env",
            "a/b/c/.env.local",
            "a/b/c/d/.env",
            "node_modules/x/.env",
            "apps/shop/.env",
            "apps/.envrc",
            "apps/shop/readme",
        ] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        let check = |from: &str, expected: &[&str]| {
            let mut found = files_near(&root.join(from));
            found.retain(|path| is_env_file(path));
            let found: Vec<_> =
                found.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap()).collect();
            assert_eq!(found, expected, "{from}");
        };
        check("", &[".env", "a/b/c/.env.local", "apps/shop/.env", "docker/prod.env"]);
        check("apps/shop", &[".env", "apps/shop/.env"]);
        check("docker", &[".env", "docker/prod.env"]);
        let outside = tempfile::tempdir().unwrap();
        assert!(files_near(outside.path()).is_empty());
    }

    #[test]
    fn a_token_that_others_can_read_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.token");
        let token = Token::generate(keymoat_crypto::TokenKind::ServiceAccount);
        let check = |text: &str, mode: u32, expected: Option<Level>| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(judge_token(&path).map(|finding| finding.level), expected, "{mode:o}");
        };
        // EXPOSE: a made-up token in a test.
        let text = token.text().expose(|bytes| String::from_utf8(bytes.clone()).unwrap());
        check(&text, 0o644, Some(Level::Bad));
        check(&format!("{text}\n"), 0o640, Some(Level::Bad));
        check(&text, 0o600, None);
        check("made up", 0o644, None);
    }
}
