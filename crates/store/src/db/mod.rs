//! The two databases behind one small interface: SQL with `?1` parameters in, columns out, faults in classes.
//!
//! The text of a statement is the same for both wherever that is possible; `?1` becomes `$1` on the way to PostgreSQL.
//! What differs by nature (opening, schema, savepoints of a file) stands in `sqlite` and `postgres`.

pub(crate) mod fault;
pub(crate) mod postgres;
pub(crate) mod sqlite;
mod value;

use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension as _;

pub(crate) use fault::{DbError, DbResult, FaultKind};
pub(crate) use value::{Columns, Type, Value};

use crate::StoreError;

/// A connection to one of the databases.
pub(crate) struct Db {
    link: Link,
    /// The file, or the address without what is secret in it, for messages.
    name: PathBuf,
}

enum Link {
    Sqlite(rusqlite::Connection),
    Postgres(postgres::Connection),
}

/// A statement on its way to the database.
pub(crate) enum Command<'a> {
    /// One statement.
    Execute { sql: &'static str, params: Vec<Value<'a>> },
    /// Rows of one shape.
    Insert { insert: &'static Insert, rows: Vec<Vec<Value<'a>>> },
    /// The end of the transaction.
    Commit,
}

/// Rows of one shape, written together.
pub(crate) struct Insert {
    pub(crate) table: &'static str,
    pub(crate) columns: &'static [(&'static str, Type)],
    /// What happens to a row that is there already: the end of the statement.
    pub(crate) conflict: &'static str,
}

/// A walk over many rows, in the order of a key, so that it can be made in pieces.
pub(crate) struct Scan<'a> {
    /// What to select; it begins with the columns of the key.
    pub(crate) columns: &'a str,
    pub(crate) table: &'a str,
    /// What must hold, with parameters from `?1`; `TRUE` when nothing must.
    pub(crate) filter: &'a str,
    pub(crate) params: Vec<Value<'a>>,
    /// The columns of a unique key that give the order.
    pub(crate) key: &'a [&'a str],
    pub(crate) descending: bool,
}

impl Db {
    pub(crate) fn sqlite(connection: rusqlite::Connection, path: &Path) -> Self {
        Self { link: Link::Sqlite(connection), name: path.to_owned() }
    }

    pub(crate) fn postgres(connection: postgres::Connection) -> Self {
        let name = PathBuf::from(connection.address());
        Self { link: Link::Postgres(connection), name }
    }

    /// The file, or the address without what is secret in it.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// The file's own connection, for what only a file has.
    pub(crate) fn file(&self) -> Option<&rusqlite::Connection> {
        match &self.link {
            Link::Sqlite(connection) => Some(connection),
            Link::Postgres(_) => None,
        }
    }

    /// The connection to a server, for what only a server has.
    pub(crate) fn server(&self) -> Option<&postgres::Connection> {
        match &self.link {
            Link::Sqlite(_) => None,
            Link::Postgres(connection) => Some(connection),
        }
    }

    /// Begins a transaction that writes; on a server it sees, from statement to statement, what others commit.
    pub(crate) fn begin_write(&self) -> DbResult<()> {
        match &self.link {
            Link::Sqlite(connection) => Ok(connection.execute_batch("BEGIN IMMEDIATE")?),
            Link::Postgres(connection) => connection.begin("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"),
        }
    }

    /// Begins a transaction that reads one consistent state.
    pub(crate) fn begin_read(&self) -> DbResult<()> {
        match &self.link {
            Link::Sqlite(connection) => Ok(connection.execute_batch("BEGIN")?),
            Link::Postgres(connection) => connection.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        }
    }

    pub(crate) fn commit(&self) -> DbResult<()> {
        match &self.link {
            Link::Sqlite(connection) => Ok(connection.execute_batch("COMMIT")?),
            Link::Postgres(connection) => connection.end("COMMIT"),
        }
    }

    pub(crate) fn rollback(&self) -> DbResult<()> {
        match &self.link {
            Link::Sqlite(connection) => Ok(connection.execute_batch("ROLLBACK")?),
            Link::Postgres(connection) => connection.end("ROLLBACK"),
        }
    }

    /// Whether a transaction is open; some faults have already ended it.
    pub(crate) fn in_transaction(&self) -> bool {
        match &self.link {
            Link::Sqlite(connection) => !connection.is_autocommit(),
            Link::Postgres(connection) => connection.in_transaction(),
        }
    }

    /// Whether the connection can go on being used.
    pub(crate) fn is_usable(&self) -> bool {
        match &self.link {
            Link::Sqlite(_) => true,
            Link::Postgres(connection) => connection.is_usable(),
        }
    }

    /// Runs one statement and says how many rows it touched.
    pub(crate) fn execute(&self, sql: &str, params: &[Value<'_>]) -> DbResult<u64> {
        match &self.link {
            Link::Sqlite(connection) => {
                let touched = connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(params))?;
                Ok(touched as u64)
            }
            Link::Postgres(connection) => connection.execute(sql, params),
        }
    }

    /// Runs statements without parameters.
    pub(crate) fn execute_batch(&self, sql: &str) -> DbResult<()> {
        match &self.link {
            Link::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Link::Postgres(connection) => connection.execute_batch(sql),
        }
    }

    /// Runs statements in order; to a server they travel together.
    pub(crate) fn run(&self, commands: Vec<Command<'_>>) -> DbResult<()> {
        match &self.link {
            Link::Sqlite(_) => commands.into_iter().try_for_each(|command| match command {
                Command::Execute { sql, params } => self.execute(sql, &params).map(|_| ()),
                Command::Insert { insert, rows } => {
                    let sql = insert.one_row();
                    rows.iter().try_for_each(|row| self.execute(&sql, row).map(|_| ()))
                }
                Command::Commit => self.commit(),
            }),
            Link::Postgres(connection) => connection.run(commands),
        }
    }

    /// Every row of an answer that is known to be short.
    pub(crate) fn query<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Columns<'_>) -> DbResult<T>,
    ) -> DbResult<Vec<T>> {
        match &self.link {
            Link::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(rusqlite::params_from_iter(params))?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(read(&Columns::Sqlite(row))?);
                }
                Ok(found)
            }
            Link::Postgres(connection) => {
                connection.query(sql, params)?.iter().map(|row| read(&Columns::Postgres(row))).collect()
            }
        }
    }

    /// The first row of an answer, if there is one.
    pub(crate) fn query_one<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut read: impl FnMut(&Columns<'_>) -> DbResult<T>,
    ) -> DbResult<Option<T>> {
        match &self.link {
            Link::Sqlite(connection) => {
                let found = connection
                    .prepare_cached(sql)?
                    .query_row(rusqlite::params_from_iter(params), |row| Ok(read(&Columns::Sqlite(row))))
                    .optional()?;
                found.transpose()
            }
            Link::Postgres(connection) => {
                connection.query(sql, params)?.first().map(|row| read(&Columns::Postgres(row))).transpose()
            }
        }
    }

    /// A number that is always there.
    pub(crate) fn number(&self, sql: &str, params: &[Value<'_>]) -> DbResult<i64> {
        self.query_one(sql, params, |row| row.int(0))?.ok_or(DbError::NoRow)
    }

    /// Walks over many rows until `each` says `false`; a server hands them over in pieces. `each` may use the database.
    pub(crate) fn scan<E: From<DbError>>(
        &self,
        scan: &Scan<'_>,
        mut each: impl FnMut(&Columns<'_>) -> Result<bool, E>,
    ) -> Result<(), E> {
        match &self.link {
            Link::Sqlite(connection) => {
                let fault = |error: rusqlite::Error| E::from(error.into());
                let mut statement = connection.prepare_cached(&scan.whole()).map_err(fault)?;
                let mut rows = statement.query(rusqlite::params_from_iter(&scan.params)).map_err(fault)?;
                while let Some(row) = rows.next().map_err(fault)? {
                    if !each(&Columns::Sqlite(row))? {
                        break;
                    }
                }
                Ok(())
            }
            Link::Postgres(connection) => connection.scan(scan, each),
        }
    }

    /// What a fault means to whoever uses the store.
    pub(crate) fn fault(&self, error: &DbError) -> StoreError {
        error.to_store_error(&self.name)
    }
}

impl Insert {
    /// The statement for a single row.
    fn one_row(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let places: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
        format!(
            "INSERT INTO {} ({}) VALUES ({}) {}",
            self.table,
            names.join(", "),
            places.join(", "),
            self.conflict
        )
    }

    /// The statement for as many rows as its arrays are long.
    fn many_rows(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let arrays: Vec<String> =
            self.columns.iter().zip(1..).map(|((_, kind), n)| format!("${n}::{}[]", kind.name())).collect();
        format!(
            "INSERT INTO {} ({}) SELECT * FROM unnest({}) {}",
            self.table,
            names.join(", "),
            arrays.join(", "),
            self.conflict
        )
    }
}

impl Scan<'_> {
    /// The statement for all rows at once.
    fn whole(&self) -> String {
        format!("SELECT {} FROM {} WHERE {}{}", self.columns, self.table, self.filter, self.order())
    }

    /// The statement for a piece of at most `rows`; with `after`, the key of the last row before it is bound behind the
    /// other parameters.
    fn piece(&self, after: bool, rows: usize) -> String {
        let from = match after {
            false => String::new(),
            true => {
                let sign = if self.descending { "<" } else { ">" };
                let first = self.params.len() + 1;
                let places: Vec<String> = (first..first + self.key.len()).map(|n| format!("?{n}")).collect();
                format!(" AND ({}) {sign} ({})", self.key.join(", "), places.join(", "))
            }
        };
        format!(
            "SELECT {} FROM {} WHERE ({}){from}{} LIMIT {rows}",
            self.columns,
            self.table,
            self.filter,
            self.order()
        )
    }

    fn order(&self) -> String {
        if self.key.is_empty() {
            return String::new();
        }
        let way = if self.descending { " DESC" } else { "" };
        let keys: Vec<String> = self.key.iter().map(|key| format!("{key}{way}")).collect();
        format!(" ORDER BY {}", keys.join(", "))
    }
}

/// A number as the databases store it.
pub(crate) fn int(number: u64) -> Value<'static> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A limit as the databases take it.
pub(crate) fn limit(rows: usize) -> Value<'static> {
    Value::Int(i64::try_from(rows).unwrap_or(i64::MAX))
}
