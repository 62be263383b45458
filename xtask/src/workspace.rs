//! Where the workspace is and which files belong to it.
//!
//! It reads nothing but names; what a file holds is the caller's business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The root of the checkout.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The directory of the root manifest.
    pub root: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was started for, or else the one around the current directory.
    ///
    /// # Errors
    /// When neither has a workspace manifest.
    pub fn find() -> Result<Self> {
        // Given by `cargo run`; a path from compile time would name the wrong checkout after a move.
        let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => std::env::current_dir().context("failed to read the current directory")?,
        };
        for dir in start.ancestors() {
            let manifest = dir.join("Cargo.toml");
            if fs::read_to_string(&manifest).is_ok_and(|text| text.contains("[workspace]")) {
                return Ok(Self { root: dir.to_owned() });
            }
        }
        bail!("no workspace around `{}`; run it through `cargo xtask`", start.display())
    }

    /// Returns the files that git tracks or would track, relative to the root and sorted; without git or a
    /// repository, all files but those of `target` and of hidden version control directories.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = match self.files_of_git() {
            Some(files) => files,
            None => self.files_by_walking()?,
        };
        // Git lists what was deleted and not yet committed.
        files.retain(|file| self.root.join(file).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Returns how many commits lead to the checked-out one; 0 without git.
    pub fn commit_count(&self) -> usize {
        self.git(&["rev-list", "--count", "HEAD"]).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Asks Cargo where build results go.
    ///
    /// # Errors
    /// When the manifests cannot be read.
    pub fn target_dir(&self) -> Result<PathBuf> {
        let output = process::cargo(self)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("failed to run `cargo metadata`")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let dir =
            metadata["target_directory"].as_str().context("`cargo metadata` names no target directory")?;
        Ok(PathBuf::from(dir))
    }

    fn files_of_git(&self) -> Option<Vec<PathBuf>> {
        let listed = self.git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        Some(listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect())
    }

    fn files_by_walking(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(dir) = pending.pop() {
            let absolute = self.root.join(&dir);
            let entries = fs::read_dir(&absolute)
                .with_context(|| format!("failed to read `{}`", absolute.display()))?;
            for entry in entries {
                let entry = entry?;
                let path = dir.join(entry.file_name());
                match entry.file_type()? {
                    kind if kind.is_dir() && !is_ignored_dir(&path) => pending.push(path),
                    kind if kind.is_file() => files.push(path),
                    _ => {}
                }
            }
        }
        Ok(files)
    }

    fn git(&self, arguments: &[&str]) -> Option<String> {
        // A checkout that belongs to somebody else, as in a container run by root, is still ours to list.
        let output = Command::new("git")
            .args(["-c", "safe.directory=*"])
            .args(arguments)
            .current_dir(&self.root)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    }
}

fn is_ignored_dir(path: &Path) -> bool {
    path.file_name().is_some_and(|name| IGNORED_DIRS.iter().any(|ignored| name == *ignored))
}

/// What no repository tracks, for checkouts that came without git.
const IGNORED_DIRS: [&str; 4] = ["target", ".git", "__pycache__", "node_modules"];
