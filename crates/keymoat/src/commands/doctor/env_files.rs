//! `.env` files in the directory where the program was started: plain keys that others can read, or that git would take.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keymoat_core::dotenv::{EnvFile, EnvLimits};
use keymoat_detect::{Catalogue, Classification};

use super::Finding;
use crate::Context;
use crate::error::CliError;

/// Checks the files here.
pub(super) fn check(context: &Context) -> Result<Vec<Finding>, CliError> {
    let catalogue = context.catalogue()?;
    let files = env_files(Path::new("."));
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let findings: Vec<Finding> = files.iter().filter_map(|path| judge(&catalogue, path)).collect();
    match findings.is_empty() {
        true => Ok(vec![Finding::ok(CHECK, format!("{} here, no plain keys in them", files.len()))]),
        false => Ok(findings),
    }
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
    let import = format!("`keymoat import dotenv {shown}` takes them in and leaves references");
    if about.mode() & 0o044 != 0 {
        return Some(Finding::bad(CHECK, format!("{holds}, and other users can read it"), import));
    }
    if git_would_take(path) {
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

/// `.env` and `.env.*`, in order.
fn env_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let is_one = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        (name == ".env" || name.starts_with(".env.")) && path.is_file()
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_one).collect();
    files.sort();
    files.truncate(FILES_MAX);
    files
}

const CHECK: &str = ".env files";
/// A directory with more is not somebody's project.
const FILES_MAX: usize = 50;

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
        std::fs::write(dir.path().join(".env.local"), "").unwrap();
        std::fs::write(dir.path().join(".envrc"), "").unwrap();
        std::fs::create_dir(dir.path().join(".env.d")).unwrap();
        assert_eq!(env_files(dir.path()), [path, dir.path().join(".env.local")]);
    }
}
