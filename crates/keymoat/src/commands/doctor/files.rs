//! Who can read and write the files: the data directory, the master key, the checkpoint, kept tokens.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::Context;

/// Checks modes, owners and places.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    let (data, config) = (&context.places.data, &context.places.config);
    let you = rustix::process::geteuid().as_raw();
    let mut keys = files_in(config, "key");
    keys.extend(context.variables.master_key_file.clone());
    let tokens = files_below(&config.join("tokens"));
    let mut findings = Vec::new();
    findings.extend(private("data directory", std::slice::from_ref(data), you));
    findings.extend(private("data files", &files_below(data), you));
    findings.extend(private("master key", &keys, you));
    findings.extend(private("tokens", &tokens, you));
    findings.extend(unwritable("checkpoint", &files_in(config, "checkpoint"), you));
    findings.extend(unwritable("configuration", std::slice::from_ref(config), you));
    findings.extend(keys.iter().filter_map(|key| beside(key, data)));
    findings
}

/// Nobody else may read or write these.
fn private(check: &'static str, paths: &[PathBuf], you: u32) -> Option<Finding> {
    judged(check, paths, you, 0o077, "others can reach", "chmod go=")
}

/// Nobody else may write these.
fn unwritable(check: &'static str, paths: &[PathBuf], you: u32) -> Option<Finding> {
    judged(check, paths, you, 0o022, "others can change", "chmod go-w")
}

/// The first path that somebody else owns or may use too freely; `None` when there is nothing to look at.
fn judged(
    check: &'static str,
    paths: &[PathBuf],
    you: u32,
    forbidden: u32,
    trouble: &str,
    cure: &str,
) -> Option<Finding> {
    let looked_at: Vec<(&PathBuf, std::fs::Metadata)> =
        paths.iter().filter_map(|path| Some((path, std::fs::metadata(path).ok()?))).collect();
    let first = looked_at.first()?;
    for (path, about) in &looked_at {
        let path = path.display();
        if about.uid() != you {
            let says = format!("`{path}` belongs to user {}, not to you ({you})", about.uid());
            return Some(Finding::bad(
                check,
                says,
                format!("chown {you} '{path}', once you know how that came about"),
            ));
        }
        let mode = about.mode() & 0o7777;
        if mode & forbidden != 0 {
            let says = format!("{trouble} `{path}` (mode {mode:03o})");
            return Some(Finding::bad(
                check,
                says,
                format!("{cure} '{path}'; change what others may have seen"),
            ));
        }
    }
    let what = match looked_at.len() {
        1 => format!("`{}`", first.0.display()),
        many => format!("{many} files"),
    };
    Some(Finding::ok(
        check,
        format!("{what}: yours alone to {}", if forbidden == 0o022 { "change" } else { "read" }),
    ))
}

/// Where a key lies, seen from the data that it opens.
fn beside(key: &Path, data: &Path) -> Option<Finding> {
    let (key_at, data_at) = (std::fs::canonicalize(key).ok()?, std::fs::canonicalize(data).ok()?);
    let shown = key.display();
    if key_at.starts_with(&data_at) {
        return Some(Finding::bad(
            "key and data",
            format!("the master key `{shown}` lies in the data directory: whoever copies one has both"),
            "move it out, name its new place in KEYMOAT_MASTER_KEY_FILE, and change it if there are copies",
        ));
    }
    let same_disk = std::fs::metadata(&key_at).ok()?.dev() == std::fs::metadata(&data_at).ok()?.dev();
    Some(match same_disk {
        true => Finding::warn(
            "key and data",
            format!(
                "the master key `{shown}` lies on the same file system as the data: a copy of the disk has both"
            ),
            "keep it elsewhere (KEYMOAT_MASTER_KEY_COMMAND, a systemd credential, another disk), or accept it",
        ),
        false => Finding::ok("key and data", format!("the master key `{shown}` lies on another file system")),
    })
}

fn files_in(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = files_below(dir);
    files.retain(|path| path.extension().is_some_and(|own| own == extension));
    files
}

/// Everything in a directory that is not a directory itself, in order.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| !path.is_dir());
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Level;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn modes_and_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "made up").unwrap();
        let you = std::fs::metadata(&path).unwrap().uid();
        let paths = [path.clone()];
        let check = |mode: u32, private_is: Level, unwritable_is: Level| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(private("x", &paths, you).unwrap().level, private_is, "{mode:o}");
            assert_eq!(unwritable("x", &paths, you).unwrap().level, unwritable_is, "{mode:o}");
        };
        check(0o600, Level::Ok, Level::Ok);
        check(0o400, Level::Ok, Level::Ok);
        check(0o640, Level::Bad, Level::Ok);
        check(0o604, Level::Bad, Level::Ok);
        check(0o620, Level::Bad, Level::Bad);
        check(0o666, Level::Bad, Level::Bad);
        assert_eq!(private("x", &paths, you.wrapping_add(1)).unwrap().level, Level::Bad);
        assert_eq!(private("x", &[dir.path().join("none")], you), None);
    }

    #[test]
    fn keys_and_where_they_lie() {
        let data = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let check = |dir: &Path, expected: Level| {
            let key = dir.join("made-up.key");
            std::fs::write(&key, "made up").unwrap();
            assert_eq!(beside(&key, data.path()).unwrap().level, expected, "{}", dir.display());
        };
        check(data.path(), Level::Bad);
        check(elsewhere.path(), Level::Warn);
        std::os::unix::fs::symlink(data.path(), elsewhere.path().join("link")).unwrap();
        check(&elsewhere.path().join("link"), Level::Bad);
    }
}
