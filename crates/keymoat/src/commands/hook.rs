//! `keymoat hook`: git hooks that refuse keys, before a commit on a developer's machine and before a push is taken in on a
//! server. Hooks that stand there already go on working: ours runs them first.

mod push;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand, ValueEnum};
use keymoat_scan::report::{Colors, Report};

use crate::Context;
use crate::commands::scan::Scan;
use crate::error::{CliError, REFUSED};
use crate::output;

/// Subcommands of `hook`.
#[derive(Debug, Clone, Subcommand)]
pub enum Hook {
    /// Put a hook into the repository that you are in. A hook that stands there is kept and runs first.
    Install(Place),
    /// Take the hook out again, and put back what stood there.
    Uninstall(Place),
    /// Do what the hook does; for the hook itself, and for hook frameworks.
    Run(Run),
}

/// Flags of `hook install` and `hook uninstall`.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Which hook.
    #[arg(value_enum, default_value_t = Kind::PreCommit)]
    kind: Kind,
    /// Allow a directory of hooks that other repositories use as well (`core.hooksPath`).
    #[arg(long)]
    shared: bool,
}

/// Flags of `hook run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Which hook.
    #[arg(value_enum, default_value_t = Kind::PreCommit)]
    kind: Kind,
    /// File of findings that are known; without it, `.keymoat-baseline` at the top of the working tree, where there is one.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    baseline: Option<PathBuf>,
    /// What a framework passes on; not used.
    #[arg(hide = true, trailing_var_arg = true)]
    rest: Vec<String>,
}

/// A git hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Before a commit, on a developer's machine: looks at what is staged.
    PreCommit,
    /// Before a push is taken in, on a server: looks at what is new in it.
    PreReceive,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::PreCommit => "pre-commit",
            Kind::PreReceive => "pre-receive",
        }
    }
}

impl Hook {
    /// Does it.
    ///
    /// # Errors
    /// When there is no repository here, or its hooks cannot be changed.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        match self {
            Hook::Install(place) => place.install(),
            Hook::Uninstall(place) => place.uninstall(),
            Hook::Run(run) => run.run(context).await,
        }
    }
}

impl Place {
    fn install(&self) -> Result<u8, CliError> {
        let dir = self.dir()?;
        let (path, before) = self.files(&dir);
        let wrong = |e: std::io::Error| CliError::file("write the hook", &path, &e);
        std::fs::create_dir_all(&dir).map_err(wrong)?;
        let is_there = path.symlink_metadata().is_ok();
        if is_there && !is_ours(&path) {
            if before.symlink_metadata().is_ok() {
                return Err(CliError::new(format!(
                    "`{}` and `{}` are both there, so neither can be put aside",
                    path.display(),
                    before.display()
                ))
                .hint("look which one is wanted, and move the other away"));
            }
            std::fs::rename(&path, &before).map_err(wrong)?;
        }
        let temporary = dir.join(format!(".{}.keymoat", self.kind.as_str()));
        let put = || {
            std::fs::write(&temporary, script(self.kind))?;
            std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))?;
            std::fs::rename(&temporary, &path)
        };
        put().map_err(wrong)?;
        let chained =
            if before.exists() { format!("; it runs `{}` first", before.display()) } else { String::new() };
        output::say(&format!("`{}` refuses keys from now on{chained}", path.display()));
        if self.kind == Kind::PreCommit {
            say_what_is_not_ignored();
        }
        Ok(0)
    }

    fn uninstall(&self) -> Result<u8, CliError> {
        let (path, before) = self.files(&self.dir()?);
        if !is_ours(&path) {
            let error = CliError::new(format!("`{}` is not Keymoat's", path.display()));
            return Err(error.hint("`keymoat hook install` puts one there").exit(REFUSED));
        }
        let wrong = |e: std::io::Error| CliError::file("remove the hook", &path, &e);
        match before.symlink_metadata().is_ok() {
            true => std::fs::rename(&before, &path).map_err(wrong)?,
            false => std::fs::remove_file(&path).map_err(wrong)?,
        }
        let back = if path.exists() { "; what stood there before is back" } else { "" };
        output::say(&format!("Keymoat's hook is out of `{}`{back}", path.display()));
        Ok(0)
    }

    /// The directory that git takes hooks from here, which `core.hooksPath` may have moved.
    fn dir(&self) -> Result<PathBuf, CliError> {
        let dir = absolute(&git(&["rev-parse", "--git-path", "hooks"])?)?;
        let common = absolute(&git(&["rev-parse", "--git-common-dir"])?)?;
        // A bare repository has no working tree.
        let top = git(&["rev-parse", "--show-toplevel"])
            .and_then(|top| absolute(&top))
            .unwrap_or_else(|_| common.clone());
        if !self.shared && !dir.starts_with(&common) && !dir.starts_with(&top) {
            let error = format!("git takes hooks from `{}`, which is not in this repository", dir.display());
            return Err(
                CliError::new(error).hint("--shared puts the hook there, for all repositories that use it")
            );
        }
        Ok(dir)
    }

    /// The hook, and where one that stood there before is kept.
    fn files(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let name = self.kind.as_str();
        (dir.join(name), dir.join(format!("{name}.before-keymoat")))
    }
}

impl Run {
    async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let baseline = self.baseline();
        let report = match self.kind {
            Kind::PreCommit => Scan::staged(baseline).report(context).await?,
            Kind::PreReceive => push::report(context, baseline.as_deref())?,
        };
        if report.is_clean() && report.warnings.is_empty() && report.skipped.total == 0 {
            return Ok(0);
        }
        self.tell(&report);
        Ok(if report.is_clean() { 0 } else { REFUSED })
    }

    fn tell(&self, report: &Report) {
        output::say(report.to_text(Colors::Off).trim_end());
        if report.is_clean() {
            return;
        }
        output::say(match self.kind {
            Kind::PreCommit => {
                "\nThe commit was refused. Take the key out and `git add` again; what is no secret gets `keymoat:allow` \
                 and the reason on its line. `git commit --no-verify` commits all the same."
            }
            Kind::PreReceive => {
                "\nThe push was refused. Take the key out of the commits (`git rebase -i`), push again, and change the \
                 key if anybody else may have seen it."
            }
        });
    }

    fn baseline(&self) -> Option<PathBuf> {
        if self.baseline.is_some() {
            return self.baseline.clone();
        }
        // Git starts hooks at the top of the working tree.
        Some(PathBuf::from(BASELINE)).filter(|path| path.is_file())
    }
}

/// What git would take with the next `git add .`, and what it would take once somebody makes it.
fn say_what_is_not_ignored() {
    let Ok(top) = git(&["rev-parse", "--show-toplevel"]) else { return };
    let found = keymoat_scan::unignored(Path::new(&top));
    found.iter().for_each(|warning| output::warn(warning));
    let is_ignored = git_command(&["-C", &top, "check-ignore", "--quiet", ".env"]).status();
    if found.is_empty() && is_ignored.is_ok_and(|status| status.code() == Some(1)) {
        output::warn("`.gitignore` has no `.env`; add it before somebody makes one");
    }
}

/// Whether a hook was made here.
fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(MARK))
}

/// The hook: a hook of before runs first and may refuse, too.
fn script(kind: Kind) -> String {
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let (name, program) = (kind.as_str(), program.replace('\'', "'\\''"));
    let find = format!(
        "keymoat=$(command -v keymoat || echo '{program}')\nbefore=\"$(dirname \"$0\")/{name}.before-keymoat\"\n"
    );
    let run = match kind {
        Kind::PreCommit => {
            "if [ -x \"$before\" ]; then \"$before\" \"$@\" || exit $?; fi\nexec \"$keymoat\" hook run pre-commit\n"
        }
        // Both want what git says on stdin.
        Kind::PreReceive => {
            "pushed=$(cat)\nif [ -x \"$before\" ]; then printf '%s\\n' \"$pushed\" | \"$before\" \"$@\" || exit $?; fi\nprintf '%s\\n' \"$pushed\" | \"$keymoat\" hook run pre-receive\n"
        }
    };
    format!("#!/bin/sh\n{MARK}. To take it out: keymoat hook uninstall {name}\n{find}{run}")
}

/// What git says, without the line's end.
fn git(arguments: &[&str]) -> Result<String, CliError> {
    let failed = |why: String| CliError::new(format!("git cannot say where its hooks are: {why}"));
    let done = git_command(arguments)
        .stdout(Stdio::piped())
        .output()
        .map_err(|e| failed(e.to_string()).hint("is git installed?"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(failed(output::printable(said.trim())).hint("go into a repository first"));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim_end_matches('\n').to_owned())
}

fn git_command(arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).stdin(Stdio::null());
    command
}

fn absolute(path: &str) -> Result<PathBuf, CliError> {
    let path = Path::new(path);
    let absolute = std::path::absolute(path).map_err(|e| CliError::file("find", path, &e))?;
    // A link or `..` may lead out of the repository. What is not there yet stands where its directory does.
    let whole = std::fs::canonicalize(&absolute).ok();
    let by_parent = || {
        let parent = std::fs::canonicalize(absolute.parent()?).ok()?;
        Some(parent.join(absolute.file_name()?))
    };
    Ok(whole.or_else(by_parent).unwrap_or(absolute))
}

const MARK: &str = "# Keymoat refuses keys here";
/// Where a repository keeps its baseline.
const BASELINE: &str = ".keymoat-baseline";
