//! Why a test of a vault could not be made; what a test found is no failure.

use std::path::{Path, PathBuf};

use keymoat_vault::VaultError;

/// Why a test of a vault could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file could not be used.
    #[error("`{path}`: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The vault did not do what it was asked to, with nothing in its way.
    #[error("the vault that is tried out: {0}")]
    Vault(#[from] VaultError),
    /// SQLite did not.
    #[error("the database that is tried out: {0}")]
    Database(#[from] rusqlite::Error),
    /// SQLite does not take the recorder.
    #[error("SQLite does not let its writes be recorded")]
    NoRecorder,
    /// A task ended without a result.
    #[error("a part of the test ended unexpectedly: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A child process did not do its part.
    #[error("a process that was to be killed {0}")]
    Child(String),
}

impl Failure {
    /// Of a file or directory.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), why: error.to_string() }
    }
}
