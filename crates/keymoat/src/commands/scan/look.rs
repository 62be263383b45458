//! What a scan looks into: each target as it was named, and what that is.

use std::path::{Path, PathBuf};

use keymoat_scan::git::{History, OpenError, Repository};
use keymoat_scan::report::{Searched, Target};
use keymoat_scan::{Remote, Scan, shown_address};

use crate::error::CliError;
use crate::output;

/// Something to look into.
pub struct Look {
    name: String,
    what: What,
    is_submodule: bool,
}

enum What {
    /// A directory with a history: its files, unless it is bare, and all that its repository holds.
    Repository(Repository),
    /// A submodule that cannot be opened, and why.
    Broken(OpenError),
    /// Files as they are.
    Files(PathBuf),
    /// What is staged.
    Staged(Repository),
    /// Whatever comes in on stdin.
    Stdin,
    /// A database that runs, by its address.
    Database(String),
}

impl Look {
    /// All targets; without any, the repository or the directory that we are in.
    ///
    /// # Errors
    /// When one is not there, or is of a kind that is not looked into.
    pub fn all(targets: &[String], no_history: bool) -> Result<Vec<Self>, CliError> {
        let looks = match targets {
            [] => vec![here(no_history)?],
            _ => targets.iter().map(|target| named(target, no_history)).collect::<Result<_, _>>()?,
        };
        let many = looks.len() > 1;
        Ok(looks.into_iter().flat_map(|look| look.with_submodules(many)).collect())
    }

    fn new(name: impl Into<String>, what: What) -> Self {
        Self { name: name.into(), what, is_submodule: false }
    }

    /// It, and the histories of its submodules; their files stand among its own.
    fn with_submodules(self, many: bool) -> Vec<Self> {
        let submodules = match &self.what {
            What::Repository(repository) => repository.submodules(),
            _ => Vec::new(),
        };
        let above = if many { format!("{}/", self.name.trim_end_matches('/')) } else { String::new() };
        let submodule = |(name, dir): (String, PathBuf)| {
            let what = Repository::open(&dir).map_or_else(What::Broken, What::Repository);
            Self { name: format!("{above}{name}"), what, is_submodule: true }
        };
        let submodules: Vec<Self> = submodules.into_iter().map(submodule).collect();
        std::iter::once(self).chain(submodules).collect()
    }

    /// What is staged in the repositories of these targets; without any, in the one that we are in, whose index git may
    /// have named.
    ///
    /// # Errors
    /// When one is in no repository.
    pub fn all_staged(targets: &[String], index: Option<&Path>) -> Result<Vec<Self>, CliError> {
        let here = [".".to_owned()];
        let (targets, index) = if targets.is_empty() { (&here[..], index) } else { (targets, None) };
        let staged = |target: &String| {
            let path = absolute(Path::new(target))?;
            let mut repository = Repository::discover(&path).map_err(|error| not_opened(&error))?;
            if let Some(index) = index {
                repository.index = absolute(index)?;
            }
            Ok(Self::new(target, What::Staged(repository)))
        };
        targets.iter().map(staged).collect()
    }

    /// Searches it.
    ///
    /// # Errors
    /// When it is a database and cannot be asked.
    pub fn search(&self, scan: &Scan<'_>) -> Result<Searched, CliError> {
        let mut target =
            Target { name: self.name.clone(), is_submodule: self.is_submodule, ..Target::default() };
        let findings = match &self.what {
            What::Repository(repository) => {
                target.remotes = Remote::all_of(repository);
                // A repository that may only be read is searched all the same, from the beginning each time.
                let may_keep =
                    rustix::fs::access(&repository.common_dir, rustix::fs::Access::WRITE_OK).is_ok();
                let known_file = may_keep.then(|| repository.known_file());
                let history = History { known_file: known_file.as_deref(), ..History::of(repository) };
                let (mut findings, read) = scan.history(&history);
                target.read = vec![
                    ("commits", read.commits),
                    ("blobs", read.blobs),
                    ("objects known from before", read.known),
                    ("binary blobs", read.binaries),
                    ("blobs looked into", read.opened),
                    ("bytes", read.bytes),
                ];
                if let Some(worktree) = &repository.worktree {
                    findings.extend(files(scan, worktree, &mut target));
                }
                findings
            }
            What::Broken(error) => {
                scan.troubles.add(format!("submodule {}", self.name), format!("cannot be opened: {error}"));
                Vec::new()
            }
            What::Files(path) => files(scan, path, &mut target),
            What::Staged(repository) => {
                target.remotes = Remote::all_of(repository);
                let (findings, read) = scan.staged(repository);
                target.read = vec![("staged files", read.changed), ("binary files", read.binaries)];
                findings
            }
            What::Stdin => scan.stream("stdin", std::io::stdin().lock()),
            What::Database(address) => scan.database(address).map_err(|error| wrong_address(&error))?,
        };
        Ok(Searched { target, findings })
    }

    /// What should be changed although it is no finding.
    pub fn warnings(&self) -> Vec<String> {
        match &self.what {
            What::Repository(repository) => {
                let mut warnings = what_is_missing(repository);
                if self.is_submodule {
                    let told = |warning: String| format!("in the submodule `{}`: {warning}", self.name);
                    return warnings.into_iter().map(told).collect();
                }
                warnings.extend(unignored(repository));
                warnings
            }
            What::Staged(repository) => unignored(repository),
            What::Broken(_) | What::Files(_) | What::Stdin | What::Database(_) => Vec::new(),
        }
    }
}

fn unignored(repository: &Repository) -> Vec<String> {
    repository.worktree.as_deref().map(keymoat_scan::unignored).unwrap_or_default()
}

/// What of a history is not on this machine, or cannot be told.
fn what_is_missing(repository: &Repository) -> Vec<String> {
    let mut missing = Vec::new();
    if repository.shallow > 0 {
        missing.push(
            "this clone is shallow: older commits were not looked at; `git fetch --unshallow` brings them",
        );
    }
    if repository.partial {
        missing.push("this clone is partial: objects that were never fetched were not looked at; a full clone has them");
    }
    if repository.unread_refs {
        missing.push("refs are kept in a form that is not read here: what is still in HEAD cannot be told");
    }
    missing.into_iter().map(str::to_owned).collect()
}

fn files(scan: &Scan<'_>, path: &Path, target: &mut Target) -> Vec<keymoat_scan::Finding> {
    let (findings, read) = scan.tree(path);
    target.read.extend([
        ("files", read.texts),
        ("binary files", read.binaries),
        ("ignored", read.ignored),
        ("bytes", read.bytes),
    ]);
    if read.repositories > 0 {
        target.read.push(("repositories without their histories", read.repositories));
    }
    findings
}

/// Whoever stands in a directory of a repository means the repository.
fn here(no_history: bool) -> Result<Look, CliError> {
    let path = absolute(Path::new("."))?;
    let what = match Repository::discover(&path) {
        Ok(repository) if !no_history => What::Repository(repository),
        Ok(repository) => What::Files(repository.worktree.unwrap_or(path)),
        Err(OpenError::NotOne(_)) => What::Files(path),
        Err(error) => return Err(not_opened(&error)),
    };
    let root = match &what {
        What::Repository(Repository { worktree: Some(root), .. }) | What::Files(root) => root.as_path(),
        _ => Path::new("."),
    };
    let name = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
    Ok(Look::new(name, what))
}

fn named(target: &str, no_history: bool) -> Result<Look, CliError> {
    let name = target.to_owned();
    if target == "-" {
        return Ok(Look::new("stdin", What::Stdin));
    }
    if let Some((scheme, _)) = target.split_once("://") {
        return database(scheme, target);
    }
    let path = absolute(Path::new(target))?;
    if let Err(error) = path.symlink_metadata() {
        return Err(CliError::file("look into", Path::new(target), &error));
    }
    if !path.is_dir() {
        // It is told by the name that it was given.
        return Ok(Look::new(name, What::Files(PathBuf::from(target))));
    }
    if no_history {
        return Ok(Look::new(name, What::Files(path)));
    }
    // A directory inside a repository is a directory: its history would be everybody's.
    match Repository::open(&path) {
        Ok(repository) => Ok(Look::new(name, What::Repository(repository))),
        Err(OpenError::NotOne(_)) => Ok(Look::new(name, What::Files(path))),
        Err(error) => Err(not_opened(&error)),
    }
}

/// A database that runs. It is told without the password that its address may have.
fn database(scheme: &str, target: &str) -> Result<Look, CliError> {
    if !DATABASES.contains(&scheme) {
        return Err(CliError::new("a target with `://` is the address of a database").hint(
            "`postgres://USER@HOST/DATABASE` or `mysql://…`; files and directories are named by their paths",
        ));
    }
    let name = shown_address(target).map_err(|error| wrong_address(&error))?;
    let has_password = target.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    if has_password.is_some_and(|(user, _)| user.contains(':')) {
        output::warn("others on this machine can see the password of this address in the list of processes");
    }
    Ok(Look::new(name, What::Database(target.to_owned())))
}

fn wrong_address(error: &str) -> CliError {
    CliError::new(format!("this address of a database cannot be used: {error}"))
}

fn not_opened(error: &OpenError) -> CliError {
    CliError::new(error.to_string()).hint("--no-history looks at the files alone")
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    let absolute = std::path::absolute(path).map_err(|e| CliError::file("find", path, &e))?;
    // `.` at the end would hide the directories above.
    Ok(absolute.components().collect())
}

const DATABASES: [&str; 4] = ["postgres", "postgresql", "mysql", "mariadb"];
