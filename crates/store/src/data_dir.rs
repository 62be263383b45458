//! The data directory: who owns it, who holds it, and where its files are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::OpenError;

/// A data directory whose lock this process holds; dropping the last clone lets go.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// Makes the directory if need be (mode 0700), checks its owner, and takes its lock.
    ///
    /// # Errors
    /// When the directory belongs to somebody else, is held by another process, or cannot be used.
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| io(path, &e))?;
        check_owner(path)?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| io(&lock_path, &e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut text = String::new();
            // The holder's pid is a courtesy: without it the message only says less.
            let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Locked { path: path.to_owned(), pid });
        }
        write_pid(&mut lock).map_err(|e| io(&lock_path, &e))?;
        Ok(Self { path: path.to_owned(), _lock: Arc::new(lock) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        database_in(&self.path)
    }
}

/// The database file of a data directory.
pub fn database_in(data_dir: &Path) -> PathBuf {
    data_dir.join("keymoat.db")
}

/// The socket on which a running server of this data directory listens.
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("keymoat.sock")
}

pub(crate) const LOCK_FILE: &str = "lock";

fn check_owner(path: &Path) -> Result<(), OpenError> {
    let owner = fs::metadata(path).map_err(|e| io(path, &e))?.uid();
    let you = rustix::process::geteuid().as_raw();
    if owner == you { Ok(()) } else { Err(OpenError::ForeignOwner { path: path.to_owned(), owner, you }) }
}

fn write_pid(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "{}", std::process::id())
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::lock(dir.path()).unwrap();
        match DataDir::lock(dir.path()) {
            Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected a lock error, got {other:?}"),
        }
        drop(held);
        DataDir::lock(dir.path()).unwrap();
    }

    #[test]
    fn a_new_directory_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er");
        DataDir::lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
