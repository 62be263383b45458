//! A connection to PostgreSQL, used by one thread at a time as if it were a file.
//!
//! One thread for all connections moves the bytes; whoever asks waits on his own. Statements that travel together are
//! sent without waiting for each other's answers. A connection that failed in an unclear way is not used again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::runtime::{Handle, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::{Columns, Command, Db, DbError, DbResult, FaultKind, Insert, Scan, Type, Value};
use crate::address::Address;
use crate::migrations::Migrations;
use crate::{Durability, OpenError, StoreError};

/// A connection.
pub(crate) struct Connection {
    client: Client,
    address: String,
    /// How long an answer may take.
    patience: Cell<Duration>,
    statements: RefCell<HashMap<String, Statement>>,
    in_transaction: Cell<bool>,
    is_usable: Cell<bool>,
}

type Params<'a> = [&'a (dyn ToSql + Sync)];

impl Connection {
    /// Connects and says how work is to be done; no answer may take longer than `patience`.
    pub(crate) fn open(address: &Address, durability: Durability, patience: Duration) -> DbResult<Self> {
        Self::with_client(address, connect(address)?, durability, patience)
    }

    fn with_client(
        address: &Address,
        client: Client,
        durability: Durability,
        patience: Duration,
    ) -> DbResult<Self> {
        let connection = Self {
            client,
            address: address.shown(),
            patience: Cell::new(patience),
            statements: RefCell::default(),
            in_transaction: Cell::new(false),
            is_usable: Cell::new(true),
        };
        connection.execute_batch(&format!("SET search_path TO {}", address.schema()))?;
        connection.be_patient(patience)?;
        match durability {
            Durability::Os => connection.execute_batch("SET synchronous_commit TO off")?,
            Durability::Disk => {
                // Whoever set it to wait for a standby keeps that.
                let set = connection.query("SELECT current_setting('synchronous_commit')", &[])?;
                if set.first().and_then(|row| row.try_get::<_, String>(0).ok()).as_deref() == Some("off") {
                    connection.execute_batch("SET synchronous_commit TO on")?;
                }
            }
        }
        Ok(connection)
    }

    /// From now on no answer may take longer than this; the server gives up a little earlier.
    pub(crate) fn be_patient(&self, patience: Duration) -> DbResult<()> {
        let wait_ms = patience.as_millis() * 9 / 10;
        self.patience.set(patience);
        self.execute_batch(&format!(
            "SET statement_timeout TO {wait_ms}; SET lock_timeout TO {wait_ms};
             SET idle_in_transaction_session_timeout TO {}",
            wait_ms.max(IDLE_MS)
        ))
    }

    /// The address without what is secret in it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn in_transaction(&self) -> bool {
        self.in_transaction.get()
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.is_usable.get() && !self.client.is_closed()
    }

    pub(crate) fn begin(&self, sql: &str) -> DbResult<()> {
        self.execute_batch(sql)?;
        self.in_transaction.set(true);
        Ok(())
    }

    pub(crate) fn end(&self, sql: &str) -> DbResult<()> {
        // Whatever becomes of it, no transaction is open afterwards on a connection that is used again.
        self.in_transaction.set(false);
        self.execute_batch(sql).inspect_err(|_| self.is_usable.set(false))
    }

    pub(crate) fn execute_batch(&self, sql: &str) -> DbResult<()> {
        self.ask(async { Ok(self.client.batch_execute(sql).await?) })
    }

    pub(crate) fn execute(&self, sql: &str, params: &[Value<'_>]) -> DbResult<u64> {
        let sql = placed(sql);
        self.ask(async {
            let statement = self.statement(&sql).await?;
            Ok(self.client.execute(&statement, &borrowed(params)).await?)
        })
    }

    pub(crate) fn query(&self, sql: &str, params: &[Value<'_>]) -> DbResult<Vec<Row>> {
        let sql = placed(sql);
        self.ask(async {
            let statement = self.statement(&sql).await?;
            Ok(self.client.query(&statement, &borrowed(params)).await?)
        })
    }

    /// As [`Connection::query`], for rows that go by two names each.
    pub(crate) fn query_named(&self, sql: &str, first: &[&str], second: &[&str]) -> DbResult<Vec<Row>> {
        self.query_placed(sql, &[&first, &second])
    }

    /// Begins a transaction with a statement that travels with it, and gives its answer.
    pub(crate) fn begin_with(&self, begin: &str, sql: &str) -> DbResult<Vec<Row>> {
        self.in_transaction.set(true);
        self.ask(async {
            let statement = self.statement(sql).await?;
            let (begun, found) =
                futures_util::join!(self.client.batch_execute(begin), self.client.query(&statement, &[]));
            begun?;
            Ok(found?)
        })
    }

    /// Sends statements without waiting between them. The first that fails makes the rest fail.
    pub(crate) fn run(&self, commands: Vec<Command<'_>>) -> DbResult<()> {
        let commits = commands.iter().any(|command| matches!(command, Command::Commit));
        self.ask(async {
            let texts: Vec<Option<String>> = commands.iter().map(text_of).collect();
            // What the server does not know yet it is told first: after that everything travels at once.
            let statements = try_join_all(texts.iter().map(async |text| match text {
                Some(text) => self.statement(text).await.map(Some),
                None => Ok(None),
            }))
            .await?;
            let steps = commands.iter().zip(&statements).map(async |(command, statement)| {
                match (command, statement) {
                    (Command::Execute { params, .. }, Some(statement)) => {
                        self.client.execute(statement, &borrowed(params)).await.map(|_| ())
                    }
                    (Command::Insert { insert, rows }, Some(statement)) => {
                        let arrays = Arrays::of(insert, rows);
                        self.client.execute(statement, &arrays.borrowed()).await.map(|_| ())
                    }
                    _ => self.client.batch_execute("COMMIT").await,
                }
            });
            // Whatever becomes of it, the transaction ends: a commit after a failed statement is a rollback that reports
            // success, so every answer counts.
            if commits {
                self.in_transaction.set(false);
            }
            join_all(steps).await.into_iter().collect::<Result<(), tokio_postgres::Error>>()?;
            Ok(())
        })
    }

    pub(crate) fn scan<E: From<DbError>>(
        &self,
        scan: &Scan<'_>,
        mut each: impl FnMut(&Columns<'_>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let first = placed(&scan.piece(false, PIECE));
        let further = placed(&scan.piece(true, PIECE));
        let mut rows = self.query_placed(&first, &borrowed(&scan.params))?;
        loop {
            for row in &rows {
                if !each(&Columns::Postgres(row))? {
                    return Ok(());
                }
            }
            let Some(last) = rows.last().filter(|_| rows.len() == PIECE && !scan.key.is_empty()) else {
                return Ok(());
            };
            let key = (0..scan.key.len()).map(|n| Key::of(last, n)).collect::<DbResult<Vec<Key>>>()?;
            let mut params = borrowed(&scan.params);
            params.extend(key.iter().map(|key| match key {
                Key::Int(number) => number as &(dyn ToSql + Sync),
                Key::Text(text) => text,
            }));
            let next = self.query_placed(&further, &params)?;
            rows = next;
        }
    }

    fn query_placed(&self, sql: &str, params: &Params<'_>) -> DbResult<Vec<Row>> {
        self.ask(async {
            let statement = self.statement(sql).await?;
            Ok(self.client.query(&statement, params).await?)
        })
    }

    async fn statement(&self, sql: &str) -> DbResult<Statement> {
        if let Some(known) = self.statements.borrow().get(sql) {
            return Ok(known.clone());
        }
        let made = self.client.prepare(sql).await?;
        self.statements.borrow_mut().insert(sql.to_owned(), made.clone());
        Ok(made)
    }

    fn ask<T>(&self, work: impl Future<Output = DbResult<T>>) -> DbResult<T> {
        if !self.is_usable() {
            return Err(DbError::Lost("the connection is closed".to_owned()));
        }
        let answer = wait(self.patience.get(), work);
        // Nobody knows what a server that did not answer has done.
        if matches!(&answer, Err(error) if error.kind() == super::FaultKind::Lost) {
            self.is_usable.set(false);
        }
        answer
    }
}

/// Connects, brings the schema up to date, and refuses what is foreign or newer.
pub(crate) fn open(address: &Address, durability: Durability) -> Result<Db, OpenError> {
    open_with(address, durability, &Migrations::embedded())
}

pub(crate) fn open_with(
    address: &Address,
    durability: Durability,
    migrations: &Migrations,
) -> Result<Db, OpenError> {
    let fault = |error: DbError| OpenError::Store(error.to_store_error(address.shown().as_ref()));
    let mut client = connect(address).map_err(fault)?;
    recognise(&client, address, migrations.newest())?;
    let schema = address.schema();
    migrate(&mut client, schema, migrations).map_err(fault)?;
    let connection = Connection::with_client(address, client, durability, MIGRATE_WITHIN).map_err(fault)?;
    Ok(Db::postgres(connection))
}

/// Connects for reading beside the one that writes.
pub(crate) fn open_reader(address: &Address) -> Result<Db, StoreError> {
    let opened = Connection::open(address, Durability::Disk, READ_WITHIN);
    opened.map(Db::postgres).map_err(|error| error.to_store_error(address.shown().as_ref()))
}

/// Has the server reuse the room of what was destroyed; its own log and its copies keep it for their own time.
pub(crate) fn vacuum(address: &Address) -> Result<(), StoreError> {
    let sweep = || {
        let connection = Connection::open(address, Durability::Disk, MIGRATE_WITHIN)?;
        ["VACUUM state", "VACUUM events"].iter().try_for_each(|sql| connection.execute_batch(sql))
    };
    sweep().map_err(|error: DbError| error.to_store_error(address.shown().as_ref()))
}

/// Looks whether the schema is Keymoat's, or not there yet, before anything is changed.
fn recognise(client: &Client, address: &Address, known: u32) -> Result<(), OpenError> {
    let fault = |error: DbError| OpenError::Store(error.to_store_error(address.shown().as_ref()));
    let tables = wait(READ_WITHIN, async {
        let found = client
            .query(
                "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relkind = 'r'",
                &[&address.schema()],
            )
            .await?;
        Ok(found.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>())
    })
    .map_err(fault)?;
    // The history is made before anything else, so alone it is what a start left that was cut short.
    if tables.iter().all(|table| table == HISTORY) {
        return Ok(());
    }
    let ours = ["state", "events", "tiles", "checkpoint", HISTORY];
    if !ours.iter().all(|name| tables.iter().any(|table| table == name)) {
        return Err(OpenError::Foreign(address.shown().into()));
    }
    let found = wait(READ_WITHIN, async {
        let row = client
            .query_one(&format!("SELECT MAX(version)::int8 FROM {}.{HISTORY}", address.schema()), &[])
            .await?;
        Ok(row.get::<_, Option<i64>>(0))
    })
    .map_err(fault)?;
    let found = found.and_then(|found| u32::try_from(found).ok()).unwrap_or(0);
    match found > known {
        true => Err(OpenError::Newer { path: address.shown().into(), found, known }),
        false => Ok(()),
    }
}

/// Two nodes that start together may both begin; the one that comes second finds everything made and begins again.
fn migrate(client: &mut Client, schema: &str, migrations: &Migrations) -> DbResult<()> {
    let mut tries = 0;
    loop {
        let migrated = wait(MIGRATE_WITHIN, async {
            let there = client.query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&schema]).await?;
            if !there.get::<_, bool>(0) {
                client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
            }
            client.batch_execute(&format!("SET search_path TO {schema}")).await?;
            migrations.run_on_server(client).await.map_err(|error| DbError::Form(error.to_string()))
        });
        match migrated {
            Err(error) if tries < MIGRATE_TRIES && error.kind() != FaultKind::Lost => {
                tries += 1;
                tracing::debug!(%error, "the schema is being made by another node, too");
            }
            other => return other,
        }
    }
}

/// Tries the hosts one after the other, each for as long as a host that is there needs.
fn connect(address: &Address) -> DbResult<Client> {
    let tls = address.tls().map_err(DbError::Lost)?;
    let mut last = DbError::Lost("its address names no host".to_owned());
    for config in address.hosts() {
        let tried = wait(CONNECT_WITHIN, async {
            let (client, link) = config.connect(tls.clone()).await?;
            io().spawn(async move {
                if let Err(error) = link.await {
                    tracing::debug!(%error, "a connection to the database ended");
                }
            });
            Ok(client)
        });
        last = match tried {
            Ok(client) => return Ok(client),
            // A server that is starting, stopping or full is as good as none.
            Err(error) if matches!(error.kind(), FaultKind::Other | FaultKind::Disk) => {
                DbError::Lost(error.to_string())
            }
            Err(error) => error,
        };
    }
    Err(last)
}

/// A key's column, to go on from.
enum Key {
    Int(i64),
    Text(String),
}

impl Key {
    fn of(row: &Row, column: usize) -> DbResult<Self> {
        match *row.columns()[column].type_() {
            tokio_postgres::types::Type::INT8 => Ok(Self::Int(row.try_get(column)?)),
            _ => Ok(Self::Text(row.try_get(column)?)),
        }
    }
}

/// The columns of many rows.
struct Arrays<'a>(Vec<Array<'a>>);

enum Array<'a> {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<&'a str>>),
    Blobs(Vec<Option<&'a [u8]>>),
}

impl<'a> Arrays<'a> {
    fn of(insert: &Insert, rows: &[Vec<Value<'a>>]) -> Self {
        let column = |n: usize| rows.iter().map(move |row| row.get(n).copied().unwrap_or(Value::Null));
        Self(
            insert
                .columns
                .iter()
                .enumerate()
                .map(|(n, (_, kind))| match kind {
                    Type::Int => Array::Ints(
                        column(n)
                            .map(|v| if let Value::Int(number) = v { Some(number) } else { None })
                            .collect(),
                    ),
                    Type::Text => Array::Texts(
                        column(n)
                            .map(|v| if let Value::Text(text) = v { Some(text) } else { None })
                            .collect(),
                    ),
                    Type::Blob => Array::Blobs(
                        column(n)
                            .map(|v| if let Value::Blob(bytes) = v { Some(bytes) } else { None })
                            .collect(),
                    ),
                })
                .collect(),
        )
    }

    fn borrowed(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0
            .iter()
            .map(|array| match array {
                Array::Ints(array) => array as &(dyn ToSql + Sync),
                Array::Texts(array) => array,
                Array::Blobs(array) => array,
            })
            .collect()
    }
}

fn text_of(command: &Command<'_>) -> Option<String> {
    match command {
        Command::Execute { sql, .. } => Some(placed(sql)),
        Command::Insert { insert, .. } => Some(insert.many_rows()),
        Command::Commit => None,
    }
}

/// The text with parameters as PostgreSQL writes them.
fn placed(sql: &str) -> String {
    sql.replace('?', "$")
}

fn borrowed<'a>(params: &'a [Value<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// Waits on the present thread, which may be one that an asynchronous runtime owns.
fn wait<T>(within: Duration, work: impl Future<Output = DbResult<T>>) -> DbResult<T> {
    let _timers = io().enter();
    let work = async {
        match tokio::time::timeout(within, work).await {
            Ok(done) => done,
            Err(_) => Err(DbError::Lost(format!("it did not answer within {} s", within.as_secs()))),
        }
    };
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut work = pin!(work);
    loop {
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The thread that moves the bytes of all connections.
pub(crate) fn io() -> Handle {
    static IO: OnceLock<Runtime> = OnceLock::new();
    let runtime = IO.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-postgres")
            .enable_all()
            .build()
            .expect("a thread can be started")
    });
    runtime.handle().clone()
}

/// A server elsewhere that takes longer to greet is not there.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// What a batch asks takes milliseconds; after this the network or the server is gone.
pub(crate) const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Counting everything in a large log takes its time.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// New columns of large tables take longer still.
const MIGRATE_WITHIN: Duration = Duration::from_secs(600);
const MIGRATE_TRIES: u32 = 3;
/// A backup goes at the pace of whoever takes it.
const IDLE_MS: u128 = 600_000;
/// Where the migrations write down what was done.
const HISTORY: &str = "refinery_schema_history";
/// Rows that a walk takes over at once: about a megabyte.
const PIECE: usize = 1000;
