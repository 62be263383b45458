//! A PostgreSQL database that runs: asked for what its tables hold, in transactions that may only read.
//!
//! Every table is read in a transaction of its own, so that none is kept from being cleaned up for longer than it is read.
//! What this user may not read, and what takes too long, is named.

use std::io::{self, Read};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream as _;
use tokio::runtime::Runtime;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, CopyOutStream, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::dump;
use crate::inside::RowsOut;
use crate::rows::Table;
use crate::tls;

/// Where a database is. It is never printed with its password.
pub(crate) struct Address {
    config: Config,
    roots: Option<String>,
    shown: String,
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…&sslrootcert=…`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and never repeats the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (plain, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut rest, mut mode, mut roots) = (Vec::new(), None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value.to_owned()),
                Some(("sslrootcert", value)) => roots = Some(value.to_owned()),
                _ => rest.push(pair),
            }
        }
        let mut config: Config =
            format!("{plain}?{}", rest.join("&")).parse().map_err(|_| SHAPE.to_owned())?;
        if config.get_hosts().is_empty() {
            return Err(SHAPE.to_owned());
        }
        let is_here = config.get_hosts().iter().all(is_this_machine);
        let is_encrypted = match mode.as_deref() {
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            None => !is_here || roots.is_some(),
            // Whoever encrypts only if he is let speaks to anybody.
            Some(_) => return Err("`sslmode` of a database address is `verify-full` or `disable`".to_owned()),
        };
        config
            .ssl_mode(if is_encrypted { SslMode::Require } else { SslMode::Disable })
            .application_name("keymoat scan")
            .connect_timeout(CONNECT_WITHIN);
        let shown = shown(&config);
        Ok(Self { config, roots, shown })
    }

    /// The address without user and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn tls(&self) -> Result<MakeRustlsConnect, String> {
        Ok(MakeRustlsConnect::new(tls::config(self.roots.as_deref())?.as_ref().clone()))
    }
}

/// Hands out the rows of all tables.
///
/// # Errors
/// When the database cannot be reached, or goes away.
pub(crate) fn read(address: &Address, out: &mut RowsOut<'_>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot be asked: {error}"))?;
    let tls = address.tls()?;
    let client = runtime.block_on(async {
        let (client, link) = address.config.connect(tls).await.map_err(|error| cannot_reach(&error))?;
        // Its end is seen by whoever uses the client.
        tokio::spawn(async move { drop(link.await) });
        client.batch_execute(SESSION).await.map_err(|error| cannot_reach(&error))?;
        Ok::<Client, String>(client)
    })?;
    let database = Database { runtime: &runtime, client: &client };
    for listed in database.tables()? {
        database.table(&listed, out)?;
    }
    for (name, columns, rows) in CATALOGUE {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let table = Table::new(name, &columns, &columns[..1]);
        database.rows(&Rc::new(table), &format!("COPY ({rows}) TO STDOUT"), out)?;
    }
    Ok(())
}

struct Database<'c> {
    runtime: &'c Runtime,
    client: &'c Client,
}

/// A table of the database.
#[derive(Default)]
struct Listed {
    schema: String,
    name: String,
    kind: String,
    hides_rows: bool,
    columns: Vec<ListedColumn>,
}

struct ListedColumn {
    name: String,
    /// Whether a key could stand in it.
    holds_text: bool,
    is_readable: bool,
    is_key: bool,
}

impl Database<'_> {
    fn tables(&self) -> Result<Vec<Listed>, String> {
        let messages =
            self.runtime.block_on(self.client.simple_query(TABLES)).map_err(|error| cannot_reach(&error))?;
        let mut tables: Vec<Listed> = Vec::new();
        for message in messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let text = |column: usize| row.get(column).unwrap_or_default().to_owned();
            let (schema, name) = (text(0), text(1));
            if !tables.last().is_some_and(|table| table.schema == schema && table.name == name) {
                let (kind, hides_rows) = (text(2), text(3) == "t");
                tables.push(Listed { schema, name, kind, hides_rows, columns: Vec::new() });
            }
            if let (Some(table), Some(column)) = (tables.last_mut(), row.get(4)) {
                table.columns.push(ListedColumn {
                    name: column.to_owned(),
                    holds_text: text(5) == "t",
                    is_readable: text(6) == "t",
                    is_key: text(7) == "t",
                });
            }
        }
        Ok(tables)
    }

    fn table(&self, listed: &Listed, out: &mut RowsOut<'_>) -> Result<(), String> {
        let name = match listed.schema.as_str() {
            "public" => listed.name.clone(),
            schema => format!("{schema}.{}", listed.name),
        };
        if !listed.columns.iter().any(|column| column.holds_text) {
            return Ok(());
        }
        if listed.kind == "f" {
            out.trouble_at(&name, "lies in another database and was not read");
            return Ok(());
        }
        let may_not = |column: &&ListedColumn| column.holds_text && !column.is_readable;
        let hidden: Vec<&str> =
            listed.columns.iter().filter(may_not).map(|column| column.name.as_str()).collect();
        let is_wanted = |column: &&ListedColumn| {
            column.is_readable && (column.holds_text || column.is_key || column.name == "company_id")
        };
        let wanted: Vec<&ListedColumn> = listed.columns.iter().filter(is_wanted).collect();
        if !hidden.is_empty() {
            out.trouble_at(&name, &format!("may not be read by this user: {}", hidden.join(", ")));
        }
        if listed.hides_rows {
            out.trouble_at(&name, "shows this user only some of its rows");
        }
        if !wanted.iter().any(|column| column.holds_text) {
            return Ok(());
        }
        let names: Vec<String> = wanted.iter().map(|column| column.name.clone()).collect();
        let key: Vec<String> =
            wanted.iter().filter(|column| column.is_key).map(|column| column.name.clone()).collect();
        let columns: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let only = if listed.kind == "r" { "ONLY " } else { "" };
        let (columns, place) =
            (columns.join(", "), format!("{}.{}", quoted(&listed.schema), quoted(&listed.name)));
        let copy = format!("COPY (SELECT {columns} FROM {only}{place}) TO STDOUT");
        self.rows(&Rc::new(Table::new(&name, &names, &key)), &copy, out)
    }

    /// Hands out what a statement gives; what is wrong with it is noted, unless the server has gone.
    fn rows(&self, table: &Rc<Table>, copy: &str, out: &mut RowsOut<'_>) -> Result<(), String> {
        let asked = self.runtime.block_on(async {
            self.client.batch_execute(BEGIN).await?;
            self.client.copy_out(copy).await
        });
        let done = match asked {
            Ok(stream) => {
                let mut text =
                    CopyText { runtime: self.runtime, stream: Box::pin(stream), rest: Bytes::new() };
                dump::read_table(table, &mut text, out)
            }
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = done {
            out.check().map_err(|stop| stop.to_string())?;
            out.trouble_at(table.name(), &refused(&error));
        }
        // What a transaction that only reads has done is nothing.
        match self.runtime.block_on(self.client.batch_execute("ROLLBACK")) {
            Err(error) if self.client.is_closed() => Err(cannot_reach(&error)),
            _ => Ok(()),
        }
    }
}

/// The rows as they come.
struct CopyText<'r> {
    runtime: &'r Runtime,
    stream: Pin<Box<CopyOutStream>>,
    rest: Bytes,
}

impl Read for CopyText<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let stream = &mut self.stream;
            let next =
                self.runtime.block_on(std::future::poll_fn(|context| stream.as_mut().poll_next(context)));
            match next {
                None => return Ok(0),
                Some(rows) => self.rest = rows.map_err(io::Error::other)?,
            }
        }
        let read = self.rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&self.rest.split_to(read));
        Ok(read)
    }
}

/// Why a table could not be read, in words that complete "`table` …".
fn refused(error: &io::Error) -> String {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<tokio_postgres::Error>());
    let Some(error) = error else { return "could not be read to its end".to_owned() };
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => "may not be read by this user".to_owned(),
        Some(&SqlState::QUERY_CANCELED) => {
            format!("took longer than {} minutes and was read only in part", TABLE_WITHIN.as_secs() / 60)
        }
        Some(&SqlState::LOCK_NOT_AVAILABLE) => "is locked by somebody else and was not read".to_owned(),
        Some(code) => format!("could not be read to its end: the server says {}", code.code()),
        None => "could not be read to its end: the connection is gone".to_owned(),
    }
}

fn cannot_reach(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("refuses: {}", said.message()),
        None => {
            let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("cannot be reached: {why}")
        }
    }
}

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let host = |(number, host): (usize, &Host)| {
        let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("postgres://{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => tls::is_this_machine(name),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const SHAPE: &str = "a database address is `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
/// Servers that are there answer within a second or two.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// As `SESSION` has it.
const TABLE_WITHIN: Duration = Duration::from_secs(600);

/// Nothing is written whatever is asked, and nobody waits for us.
const SESSION: &str = "SET default_transaction_read_only = on; SET statement_timeout = '600s'; \
    SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '600s'; SET search_path = ''";
const BEGIN: &str = "BEGIN TRANSACTION READ ONLY";

/// Tables with their columns: whether a key could stand in them, whether they may be read, and what names a row.
const TABLES: &str = "SELECT n.nspname, c.relname, c.relkind, pg_catalog.row_security_active(c.oid), a.attname, \
    t.typcategory NOT IN ('N', 'B', 'D', 'T', 'G', 'I', 'V', 'E', 'R') AND t.typname <> 'uuid', \
    pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'), a.attnum = ANY (i.indkey) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary \
    WHERE c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't' \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
    ORDER BY n.nspname, c.relname, a.attnum";

/// What stands in the server's own tables: name, columns, statement.
const CATALOGUE: [(&str, &[&str], &str); 4] = [
    (
        "pg_proc",
        &["proname", "prosrc"],
        "SELECT p.proname, p.prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.probin IS NULL",
    ),
    (
        "pg_views",
        &["viewname", "definition"],
        "SELECT viewname, definition FROM pg_catalog.pg_views WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    ),
    (
        "pg_user_mappings",
        &["srvname", "umoptions"],
        "SELECT srvname, umoptions FROM pg_catalog.pg_user_mappings",
    ),
    (
        "pg_db_role_setting",
        &["setrole", "setconfig"],
        "SELECT setrole, setconfig FROM pg_catalog.pg_db_role_setting",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_what_is_shown_of_them() {
        for (text, expected) in [
            ("postgres://odoo:hunter2@127.0.0.1/shop", Ok(("postgres://127.0.0.1:5432/shop", false))),
            ("postgres://odoo:hunter2@db.example:99/shop", Ok(("postgres://db.example:99/shop", true))),
            (
                "postgres://odoo@db.example/shop?sslmode=disable",
                Ok(("postgres://db.example:5432/shop", false)),
            ),
            ("postgres://odoo@[::1]/shop?sslmode=verify-full", Ok(("postgres://[::1]:5432/shop", true))),
            ("postgres://odoo:hunter2@db/shop?sslmode=prefer", Err("`verify-full` or `disable`")),
            ("postgres://odoo:hunter2@db/shop?nonsense=1", Err("a database address is")),
            ("postgres:///shop", Err("a database address is")),
        ] {
            match (Address::parse(text), expected) {
                (Ok(address), Ok((shown, encrypted))) => {
                    assert_eq!(address.shown(), shown, "{text}");
                    assert_eq!(address.config.get_ssl_mode() != SslMode::Disable, encrypted, "{text}");
                }
                (Err(error), Err(part)) => {
                    assert!(error.contains(part) && !error.contains("hunter2"), "{text}: {error}");
                }
                (found, _) => panic!("{text}: {:?}", found.map(|address| address.shown)),
            }
        }
    }
}
