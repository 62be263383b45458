//! A file for its owner's eyes only, which appears whole or not at all: written beside its place under another name
//! (mode 0600), synced, then put in place in one step.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// A file that is being written. Dropped before [`PrivateFile::finish`], it leaves nothing behind.
pub struct PrivateFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    is_finished: bool,
}

impl PrivateFile {
    /// Begins a file.
    ///
    /// # Errors
    /// When nothing can be written there, or what stands there is not a file.
    pub fn create(path: &Path) -> Result<Self, CliError> {
        let wrong = |e: std::io::Error| CliError::file("write", path, &e);
        let name =
            path.file_name().ok_or_else(|| CliError::new(format!("`{}` names no file", path.display())))?;
        if path.exists() && !path.is_file() {
            return Err(CliError::new(format!("`{}` is there and is not a file", path.display())));
        }
        let random = u64::from_le_bytes(keymoat_crypto::bytes());
        let temporary = path.with_file_name(format!(".{}.{random:016x}", name.to_string_lossy()));
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(wrong)?;
        Ok(Self { path: path.to_owned(), temporary, file, is_finished: false })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|e| CliError::file("write", &self.path, &e))
    }

    /// Syncs the file and puts it in its place.
    ///
    /// # Errors
    /// When that is not possible; nothing is left behind then.
    pub fn finish(self) -> Result<(), CliError> {
        self.put(|temporary, path| std::fs::rename(temporary, path))
    }

    /// Syncs the file and puts it in its place, where nothing may stand.
    ///
    /// # Errors
    /// When that is not possible; nothing is left behind then, and what stood there stands.
    pub fn finish_new(self) -> Result<(), CliError> {
        self.put(|temporary, path| {
            std::fs::hard_link(temporary, path)?;
            std::fs::remove_file(temporary)
        })
    }

    fn put(mut self, place: impl FnOnce(&Path, &Path) -> std::io::Result<()>) -> Result<(), CliError> {
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let put = || -> std::io::Result<()> {
            self.file.sync_all()?;
            place(&self.temporary, &self.path)?;
            File::open(dir)?.sync_all()
        };
        put().map_err(|e| CliError::file("write", &self.path, &e))?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // Best effort: it may never have come to be.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_finished_file_is_private_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "older").unwrap();
        let mut file = PrivateFile::create(&path).unwrap();
        file.write(b"made ").unwrap();
        file.write(b"up").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"older");
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"made up");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_new_file_takes_nobodys_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let made = |text: &[u8]| {
            let mut file = PrivateFile::create(&path).unwrap();
            file.write(text).unwrap();
            file.finish_new()
        };
        made(b"first").unwrap();
        assert!(made(b"second").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PrivateFile::create(&dir.path().join("out")).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(PrivateFile::create(dir.path()).is_err());
        assert!(PrivateFile::create(&dir.path().join("not/there")).is_err());
    }
}
