//! A real git repository in a home directory of its own.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::{Done, Home, done};

/// A repository with a working tree. Its commits are a day apart, the first on 2021-03-04.
pub struct Repository<'h> {
    home: &'h Home,
    dir: PathBuf,
    commits: std::cell::Cell<u32>,
}

impl<'h> Repository<'h> {
    /// An empty one in this directory of the home.
    pub fn new(home: &'h Home, name: &str) -> Self {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let repository = Self { home, dir, commits: std::cell::Cell::new(0) };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Commits everything.
    pub fn commit(&self, title: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--no-verify", "-m", title]);
    }

    /// Runs git, which must succeed.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> Done {
        let done = self.try_git(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done
    }

    /// Runs git.
    pub fn try_git(&self, arguments: &[&str]) -> Done {
        let day = self.commits.get();
        if arguments.contains(&"commit") {
            self.commits.set(day + 1);
        }
        let date = format!("2021-03-{:02}T12:00:00Z", day + 4);
        let program = PathBuf::from(env!("CARGO_BIN_EXE_keymoat"));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", program.parent().unwrap().display());
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "Ann"), ("GIT_AUTHOR_EMAIL", "ann@acme.test")])
            .envs([("GIT_COMMITTER_NAME", "Ann"), ("GIT_COMMITTER_EMAIL", "ann@acme.test")])
            .envs([("GIT_AUTHOR_DATE", &date), ("GIT_COMMITTER_DATE", &date)])
            .stdin(Stdio::null());
        done(command.output().unwrap())
    }

    /// Runs keymoat at the top of it.
    pub fn keymoat(&self, arguments: &[&str]) -> Done {
        self.in_dir("", arguments)
    }

    /// Runs keymoat in a directory of it.
    pub fn in_dir(&self, dir: &str, arguments: &[&str]) -> Done {
        let mut command = self.home.command(arguments);
        done(command.current_dir(self.dir.join(dir)).stdin(Stdio::null()).output().unwrap())
    }

    /// A file of it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }
}
