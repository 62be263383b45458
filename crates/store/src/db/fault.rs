//! Faults of a database, in the classes that callers treat differently.

use std::path::Path;

use rusqlite::ErrorCode;
use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::StoreError;

pub(crate) type DbResult<T> = Result<T, DbError>;

/// What a database said.
#[derive(Debug, Error)]
pub(crate) enum DbError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{}", said(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The server did not answer in time, or the connection is gone.
    #[error("{0}")]
    Lost(String),
    /// A row that must be there is not.
    #[error("a row that must be there is missing")]
    NoRow,
    /// A column holds what Keymoat never writes.
    #[error("{0}")]
    Form(String),
    /// A row is not as it was written.
    #[error("{0}")]
    Edited(String),
}

/// What a fault means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// No room on the disk.
    Full,
    /// Nothing can be written.
    ReadOnly,
    /// What is stored is torn.
    Corrupt,
    /// Somebody else holds what is needed, or there is too much work.
    Busy,
    /// Two transactions met; the same again may go through.
    Retry,
    /// The server cannot be reached any more, or has gone away.
    Lost,
    /// The disk failed.
    Disk,
    /// Somebody else has written.
    Edited,
    /// Anything else.
    Other,
}

impl DbError {
    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            Self::Sqlite(error) => of_sqlite(error),
            Self::Postgres(error) => of_postgres(error),
            Self::Lost(_) => FaultKind::Lost,
            Self::NoRow | Self::Form(_) => FaultKind::Other,
            Self::Edited(_) => FaultKind::Edited,
        }
    }

    pub(crate) fn to_store_error(&self, name: &Path) -> StoreError {
        match self.kind() {
            FaultKind::Full => StoreError::Full(name.to_owned()),
            FaultKind::ReadOnly => StoreError::ReadOnly { path: name.to_owned(), why: self.to_string() },
            FaultKind::Corrupt => {
                StoreError::Corrupt { what: format!("file `{}`", name.display()), why: self.to_string() }
            }
            FaultKind::Busy | FaultKind::Retry => StoreError::Overloaded,
            FaultKind::Lost => {
                StoreError::Unreachable { database: name.display().to_string(), why: self.to_string() }
            }
            FaultKind::Edited => StoreError::Stopped(self.to_string()),
            FaultKind::Disk | FaultKind::Other => StoreError::Database(self.to_string()),
        }
    }
}

fn of_sqlite(error: &rusqlite::Error) -> FaultKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => FaultKind::Full,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            FaultKind::ReadOnly
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => FaultKind::Corrupt,
        // Another program holds the database's own lock: nothing was begun.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => FaultKind::Busy,
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => FaultKind::Disk,
        _ => FaultKind::Other,
    }
}

/// By the codes of PostgreSQL, Appendix A.
fn of_postgres(error: &tokio_postgres::Error) -> FaultKind {
    let Some(code) = error.code() else {
        // Without a code it was never a server's answer.
        return match error.is_closed()
            || std::error::Error::source(error).is_some_and(|e| e.is::<std::io::Error>())
        {
            true => FaultKind::Lost,
            false => FaultKind::Other,
        };
    };
    if *code == SqlState::DISK_FULL {
        FaultKind::Full
    } else if [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::INSUFFICIENT_PRIVILEGE].contains(code) {
        FaultKind::ReadOnly
    } else if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) {
        FaultKind::Corrupt
    } else if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) {
        FaultKind::Retry
    } else if [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED, SqlState::TOO_MANY_CONNECTIONS]
        .contains(code)
        || code.code().starts_with("53")
    {
        FaultKind::Busy
    } else if code.code().starts_with("08") || code.code().starts_with("57P") {
        FaultKind::Lost
    } else if code.code().starts_with("58") {
        FaultKind::Disk
    } else {
        FaultKind::Other
    }
}

/// The server's own words; the driver's say only that there was an error.
fn said(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
