//! Repositories made by git, made-up keys, and what a scan says in few words.
#![allow(dead_code, clippy::print_stdout, reason = "each test file uses a part of it; a skip is told")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use keymoat_detect::{Catalogue, Engine};
use keymoat_scan::git::{History, Repository, Scanned};
use keymoat_scan::{Finding, FingerprintKey, Place, Scan, Source, Troubles};
use tempfile::TempDir;

pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Catalogue::builtin()));
pub static KEY: LazyLock<FingerprintKey> = LazyLock::new(|| FingerprintKey::new([7; 32]));

/// A made-up Stripe key, another one for each letter.
pub fn key(letter: char) -> String {
    format!("sk_live_51MadeUpExample0000Keymoat{letter}est")
}

/// A line of a configuration file with a made-up key.
pub fn line(letter: char) -> String {
    format!("STRIPE_KEY={}\n", key(letter))
}

/// A repository that is removed at the end.
pub struct Repo {
    pub dir: TempDir,
    time: std::cell::Cell<u32>,
}

impl Repo {
    /// An empty one; nothing where git is missing, which is told.
    pub fn new(test: &str, options: &[&str]) -> Option<Self> {
        let repo = Self { dir: tempfile::tempdir().unwrap(), time: std::cell::Cell::new(1_700_000_000) };
        if Command::new("git").arg("--version").output().is_err() {
            println!("SKIP {test}: git is not installed");
            return None;
        }
        repo.git(&[&["init", "-q", "-b", "main"], options].concat());
        Some(repo)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_in(self.path(), arguments)
    }

    /// Runs git so that nothing of the machine or the clock gets in; each call is a second later than the last.
    pub fn git_in(&self, dir: &Path, arguments: &[&str]) -> String {
        self.time.set(self.time.get() + 1);
        let time = format!("{} +0000", self.time.get());
        let output = Command::new("git")
            .current_dir(dir)
            .args(["-c", "gc.auto=0", "-c", "protocol.file.allow=always"])
            .args(arguments)
            .env_clear()
            .env("PATH", option_env!("PATH").unwrap_or("/usr/bin:/bin"))
            .env("HOME", self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Made Up")
            .env("GIT_AUTHOR_EMAIL", "made@up.test")
            .env("GIT_COMMITTER_NAME", "Made Up")
            .env("GIT_COMMITTER_EMAIL", "made@up.test")
            .env("GIT_AUTHOR_DATE", &time)
            .env("GIT_COMMITTER_DATE", &time)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {told}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a file and commits all there is.
    pub fn commit(&self, path: &str, content: impl AsRef<[u8]>, title: &str) -> String {
        self.write(path, content);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", title]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Removes a file and commits.
    pub fn remove(&self, path: &str) {
        self.git(&["rm", "-q", path]);
        self.git(&["commit", "-q", "-m", "remove"]);
    }

    /// Packs everything, so that most of it are deltas.
    pub fn pack(&self) {
        self.git(&["repack", "-q", "-a", "-d", "-f", "--depth=50", "--window=50"]);
    }

    pub fn scan(&self) -> Outcome {
        scan(self.path())
    }
}

/// What a scan of a history said.
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub scanned: Scanned,
    pub troubles: Troubles,
}

impl Outcome {
    /// `mask path:line standing` of each place, sorted.
    pub fn places(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .findings
            .iter()
            .flat_map(|finding| {
                finding.places.iter().map(|place| format!("{} {}", finding.mask, told(place)))
            })
            .collect();
        found.sort();
        found
    }

    /// The only place of the only finding.
    pub fn only(&self) -> &Place {
        assert_eq!(self.places().len(), 1, "{:?}", self.places());
        &self.findings[0].places[0]
    }

    pub fn told_troubles(&self) -> Vec<String> {
        told_troubles(&self.troubles)
    }
}

/// `what why` of each trouble.
pub fn told_troubles(troubles: &Troubles) -> Vec<String> {
    troubles.list().into_iter().map(|trouble| format!("{} {}", trouble.what, trouble.why)).collect()
}

pub fn told(place: &Place) -> String {
    let standing = match &place.source {
        Source::History(_) => format!(" {}", told_standing(&place.source)),
        _ => String::new(),
    };
    format!("{}:{}{standing}", place.source.path(), place.line)
}

/// Where a file of a history stands today; nothing of another one.
pub fn told_standing(source: &Source) -> String {
    match source {
        Source::History(historic) => format!("{:?}", historic.standing),
        _ => String::new(),
    }
}

pub fn scan(path: &Path) -> Outcome {
    scan_with(&Repository::open(path).unwrap(), |_| {})
}

pub fn scan_with<'r>(repository: &'r Repository, set: impl FnOnce(&mut History<'r>)) -> Outcome {
    let troubles = Troubles::default();
    let mut history = History::of(repository);
    set(&mut history);
    let (findings, scanned) = searching(&troubles).history(&history);
    Outcome { findings, scanned, troubles }
}

pub fn searching(troubles: &Troubles) -> Scan<'_> {
    Scan {
        engine: &ENGINE,
        catalogue: Catalogue::builtin(),
        key: &KEY,
        threads: NonZeroUsize::new(2).unwrap(),
        progress: &(),
        troubles,
        keeper: &(),
    }
}
