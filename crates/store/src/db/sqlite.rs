//! A database in a file: opening it, recognising it, bringing it up to date.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::migrations::Migrations;
use crate::{Durability, OpenError, StoreError, schema};

use super::{Db, DbError};

/// Makes or opens the file, refuses what is foreign or newer, and brings its schema up to date.
pub(crate) fn open(path: &Path, durability: Durability) -> Result<Db, OpenError> {
    open_with(path, durability, &Migrations::embedded())
}

pub(crate) fn open_with(
    path: &Path,
    durability: Durability,
    migrations: &Migrations,
) -> Result<Db, OpenError> {
    let mut connection = open_file(path)?;
    recognise(&connection, path, migrations.newest())?;
    prepare(&connection, durability).map_err(|e| fault(e, path))?;
    migrate(&mut connection, path, migrations)?;
    Ok(Db::sqlite(connection, path))
}

/// Opens the file for reading beside the one that writes.
pub(crate) fn open_reader(path: &Path) -> Result<Db, StoreError> {
    let open = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "query_only", true)?;
        schema::distrust(&connection)?;
        keep_statements(&connection)?;
        connection.busy_timeout(READ_BUSY)?;
        Ok(connection)
    };
    open().map(|connection| Db::sqlite(connection, path)).map_err(|e| DbError::from(e).to_store_error(path))
}

/// Opens the file beside the connection that writes, to fold the log in.
pub(crate) fn open_beside(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let connection = open_file(path)?;
    prepare(&connection, durability).map_err(|e| fault(e, path))?;
    Ok(connection)
}

/// Looks whether the file is Keymoat's, or new, before anything in it is changed.
pub(crate) fn recognise(connection: &Connection, path: &Path, known: u32) -> Result<(), OpenError> {
    let look = || -> rusqlite::Result<(i32, u32, u32)> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
        let application = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        Ok((application, number("SELECT COUNT(*) FROM sqlite_schema")?, number("PRAGMA user_version")?))
    };
    let (application, objects, found) = look().map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign(path.to_owned()),
        _ => fault(error, path),
    })?;
    if application != APPLICATION_ID && (application != 0 || objects > 0) {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

pub(crate) fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &Migrations,
) -> Result<(), OpenError> {
    set_pragma(connection, "application_id", APPLICATION_ID, path)?;
    migrations.run(connection).map_err(|e| unusable(path, e.to_string()))?;
    let newest = i32::try_from(migrations.newest()).unwrap_or(i32::MAX);
    set_pragma(connection, "user_version", newest, path)
}

pub(crate) fn open_file(path: &Path) -> Result<Connection, OpenError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Made by ourselves so that it is private from its first byte.
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| OpenError::Io { path: PathBuf::from(path), why: e.to_string() })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|e| fault(e, path))
}

pub(crate) fn prepare(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    let synchronous = match durability {
        Durability::Disk => "FULL",
        Durability::Os => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    schema::distrust(connection)?;
    keep_statements(connection)
}

/// Statements are kept as they were first prepared. Without this SQLite prepares one with a range anew for each value
/// that is bound to it, although its tables have no statistics that the value could be held against.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Why the schema could not be brought up to date: a damaged file is another matter than one that cannot be written.
fn unusable(path: &Path, why: String) -> OpenError {
    match why.contains("malformed") || why.contains("not a database") {
        true => OpenError::Store(StoreError::Corrupt { what: format!("file `{}`", path.display()), why }),
        false => OpenError::Io { path: path.to_owned(), why },
    }
}

/// Writes a number of the file's header unless it stands there: a full disk must not keep a store from being opened.
fn set_pragma(connection: &Connection, name: &str, value: i32, path: &Path) -> Result<(), OpenError> {
    let set = || match connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0))? {
        stands if stands == value => Ok(()),
        _ => connection.pragma_update(None, name, value),
    };
    set().map_err(|e| fault(e, path))
}

fn fault(error: rusqlite::Error, path: &Path) -> OpenError {
    OpenError::Store(DbError::from(error).to_store_error(path))
}

/// How long the write-ahead log may become before the writer folds in what `fold` has left of it: 16 MiB, four times
/// SQLite's own.
pub(crate) const LOG_PAGES: u32 = 4_000;
/// How long a read waits for SQLite's own short locks.
const READ_BUSY: std::time::Duration = std::time::Duration::from_secs(5);
/// `KMoa`: tells a Keymoat database from any other SQLite file.
const APPLICATION_ID: i32 = 0x4b4d_6f61;
