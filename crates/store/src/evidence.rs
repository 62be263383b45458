//! A data directory as evidence: everything in it can be checked, and not a byte of it is written.
//!
//! A database with a write-ahead log cannot be read in place without writing beside it, so it is copied into a scratch
//! directory together with its log, and the copy is read; one without a log is read where it stands. Nothing is served
//! from here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use crate::db::sqlite::{migrate, recognise};
use crate::db::{Db, DbError};
use crate::ledger::LedgerKeys;
use crate::migrations::Migrations;
use crate::tx::rows_with_prefix;
use crate::{Kind, OpenError, Report, Row, schema, verify};

/// A database that is only read.
pub struct Evidence {
    db: Db,
    /// Held so that nobody writes meanwhile; none where there is no lock file, as in a copy of the database alone.
    _lock: File,
}

impl Evidence {
    /// Opens the database of a data directory. `scratch` is an empty directory that nobody else reads; the caller
    /// removes it when the evidence is dropped.
    ///
    /// # Errors
    /// When there is no database, a process is at work in the directory, or a file cannot be read or copied.
    pub fn open(data_dir: &Path, scratch: &Path) -> Result<Self, OpenError> {
        let path = crate::database_in(data_dir);
        if !path.exists() {
            return Err(OpenError::Missing(data_dir.to_owned()));
        }
        let lock = keep_writers_out(data_dir)?;
        let log = with_suffix(&path, "-wal");
        let has_log = fs::metadata(&log).is_ok_and(|about| about.len() > 0);
        let connection = match has_log {
            true => open_copy(&path, &log, scratch)?,
            false => match open_in_place(&path)? {
                Some(connection) => connection,
                None => open_copy(&path, &log, scratch)?,
            },
        };
        schema::distrust(&connection).map_err(|e| DbError::from(e).to_store_error(&path))?;
        Ok(Self { db: Db::sqlite(connection, &path), _lock: lock })
    }

    /// The rows of a kind that is readable without keys: the instance and its slots.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn rows(&self, kind: Kind) -> Result<Vec<Row>, OpenError> {
        rows_with_prefix(&self.db, kind, "", usize::MAX).map_err(|e| self.db.fault(&e).into())
    }

    /// Checks everything there is and says what does not fit.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub fn verify(
        &self,
        keys: &LedgerKeys,
        outside: &Path,
        progress: impl FnMut(u64),
    ) -> Result<Report, OpenError> {
        let outside = verify::Outside::read(keys, outside).map_err(|e| io(outside, &e))?;
        verify::verify(&self.db, keys, Some(&outside), progress).map_err(|e| self.db.fault(&e).into())
    }
}

/// A shared lock on the directory itself, which every writer holds alone, also when the lock file was removed. It needs
/// no right to write.
fn keep_writers_out(data_dir: &Path) -> Result<File, OpenError> {
    let lock = File::open(data_dir).map_err(|e| io(data_dir, &e))?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(lock),
        Err(_) => Err(OpenError::Locked { path: data_dir.to_owned(), pid: None }),
    }
}

/// Reads the file where it stands; `None` when its schema is older, so that a copy must be brought up to date.
fn open_in_place(path: &Path) -> Result<Option<Connection>, OpenError> {
    let fault = |error: rusqlite::Error| OpenError::Store(DbError::from(error).to_store_error(path));
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // Without a log the file is all there is; `immutable` keeps SQLite from writing a shared-memory file beside it.
    let connection = Connection::open_with_flags(immutable(path), flags).map_err(fault)?;
    let newest = Migrations::embedded().newest();
    recognise(&connection, path, newest)?;
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fault)?;
    Ok((version == newest).then_some(connection))
}

fn open_copy(path: &Path, log: &Path, scratch: &Path) -> Result<Connection, OpenError> {
    let copy = scratch.join("evidence.db");
    fs::copy(path, &copy).map_err(|e| io(path, &e))?;
    if log.exists() {
        fs::copy(log, with_suffix(&copy, "-wal")).map_err(|e| io(log, &e))?;
    }
    // A copy keeps the mode of what it was made of, which may be read-only.
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(|e| io(&copy, &e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(&copy, flags)
        .map_err(|e| OpenError::Store(DbError::from(e).to_store_error(path)))?;
    let migrations = Migrations::embedded();
    recognise(&connection, path, migrations.newest())?;
    migrate(&mut connection, &copy, &migrations)?;
    Ok(connection)
}

/// The file as a URI (RFC 3986): what has a meaning there is escaped.
fn immutable(path: &Path) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut uri = b"file:".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend_from_slice(format!("%{byte:02x}").as_bytes()),
            plain => uri.push(plain),
        }
    }
    uri.extend_from_slice(b"?immutable=1");
    std::ffi::OsString::from_vec(uri).into()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        for (path, expected) in [
            ("/a/keymoat.db", "file:/a/keymoat.db?immutable=1"),
            ("/a b/50%/x?y#z/keymoat.db", "file:/a b/50%25/x%3fy%23z/keymoat.db?immutable=1"),
        ] {
            assert_eq!(immutable(Path::new(path)), Path::new(expected));
        }
    }
}
