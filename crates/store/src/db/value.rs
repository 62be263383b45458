//! Values on their way into a database and out of it.

use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{FromSql, IsNull, ToSql, to_sql_checked};

use super::{DbError, DbResult};

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Int,
    Text,
    Blob,
}

/// One row of an answer.
pub(crate) enum Columns<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Columns<'_> {
    pub(crate) fn int(&self, column: usize) -> DbResult<i64> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn maybe_int(&self, column: usize) -> DbResult<Option<i64>> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn flag(&self, column: usize) -> DbResult<bool> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// A number that Keymoat never writes below 0.
    pub(crate) fn count(&self, column: usize) -> DbResult<u64> {
        let number = self.int(column)?;
        u64::try_from(number).map_err(|_| DbError::Form(format!("{number} is no count")))
    }

    pub(crate) fn text(&self, column: usize) -> DbResult<String> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn maybe_text(&self, column: usize) -> DbResult<Option<String>> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn blob(&self, column: usize) -> DbResult<Vec<u8>> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn maybe_blob(&self, column: usize) -> DbResult<Option<Vec<u8>>> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// The text of a column, made readable when it is none; `odd` says that it was not.
    pub(crate) fn any_text(&self, column: usize, odd: &mut bool) -> DbResult<Option<String>> {
        let Self::Sqlite(row) = self else { return self.maybe_text(column) };
        let value = row.get_ref(column)?;
        if let ValueRef::Text(bytes) = value
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Ok(Some(text.to_owned()));
        }
        *odd |= value != ValueRef::Null;
        Ok(match value {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(number.to_string()),
            ValueRef::Real(number) => Some(number.to_string()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
        })
    }

    /// The bytes of a column; `odd` says that they are not stored as bytes.
    pub(crate) fn any_blob(&self, column: usize, odd: &mut bool) -> DbResult<Option<Vec<u8>>> {
        let Self::Sqlite(row) = self else { return self.maybe_blob(column) };
        Ok(match row.get_ref(column)? {
            ValueRef::Null => None,
            ValueRef::Blob(bytes) => Some(bytes.to_vec()),
            other => {
                *odd = true;
                match other {
                    ValueRef::Text(bytes) => Some(bytes.to_vec()),
                    _ => Some(Vec::new()),
                }
            }
        })
    }

    /// The number in a column, -1 when there is none; `odd` says so.
    pub(crate) fn any_int(&self, column: usize, odd: &mut bool) -> DbResult<i64> {
        let found = match self {
            Self::Sqlite(row) => match row.get_ref(column)? {
                ValueRef::Integer(number) => Some(number),
                _ => None,
            },
            Self::Postgres(_) => self.maybe_int(column)?,
        };
        *odd |= found.is_none();
        Ok(found.unwrap_or(-1))
    }
}

impl Type {
    /// Its name in PostgreSQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Int => "int8",
            Self::Text => "text",
            Self::Blob => "bytea",
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(bytes)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

type PgType = tokio_postgres::types::Type;
type Encoded = Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl ToSql for Value<'_> {
    fn to_sql(&self, ty: &PgType, out: &mut bytes::BytesMut) -> Encoded {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) => number.to_sql_checked(ty, out),
            Self::Text(text) => text.to_sql_checked(ty, out),
            Self::Blob(bytes) => bytes.to_sql_checked(ty, out),
        }
    }

    fn accepts(ty: &PgType) -> bool {
        <i64 as FromSql>::accepts(ty) || <&str as FromSql>::accepts(ty) || <&[u8] as FromSql>::accepts(ty)
    }

    to_sql_checked!();
}
