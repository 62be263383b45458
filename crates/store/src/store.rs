//! The open store: transactions in, reads beside them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::contact::Contact;
use crate::data_dir::DataDir;
use crate::db::{Db, postgres, sqlite};
use crate::fold;
use crate::known::Known;
use crate::ledger::{Draft, Head, LedgerKeys};
use crate::listen;
use crate::outside::OutsideFile;
use crate::reader::Reader;
use crate::reserve::Reserve;
use crate::tx::Tx;
use crate::verify::{self, Outside};
use crate::writer::{Committed, Job, Member, Seen, Stopped, Writer, file_identity, run_outside};
use crate::{Durability, Observer, OpenError, Report, StoreError};

/// Keymoat's own tables, open for use. Cheap to clone; the last clone's end folds the log in.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Whether what is written through this handle may use the room that is kept for administrators.
    reserved: bool,
}

struct Inner {
    jobs: mpsc::Sender<Job>,
    keys: Arc<LedgerKeys>,
    /// The checkpoint file outside of the data directory.
    outside: PathBuf,
    readers: Mutex<Vec<Db>>,
    /// A place for each read that may run at once.
    reading: Arc<Semaphore>,
    stopped: Stopped,
    full: Arc<AtomicBool>,
    contact: Arc<Contact>,
    seen: Arc<Seen>,
    durability: Durability,
    /// Held for its lock; the directory is free again when the store is gone.
    dir: DataDir,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Goes last of all, so that whoever waits for its end knows that everything else is gone.
    alive: watch::Sender<()>,
}

impl Store {
    pub(crate) fn start(
        dir: DataDir,
        db: Db,
        keys: LedgerKeys,
        (head, known): (Head, Known),
        observer: Observer,
        outside: OutsideFile,
        durability: Durability,
    ) -> Result<Self, OpenError> {
        let path = dir.database();
        let is_file = db.file().is_some();
        if let Some(server) = db.server() {
            server.be_patient(postgres::WRITE_WITHIN).map_err(|e| db.fault(&e))?;
        }
        let seen = Arc::new(Seen::default());
        seen.raise(&head);
        let keys = Arc::new(keys);
        let outside_path = outside.path().to_owned();
        let stopped: Stopped = Arc::new(OnceLock::new());
        let full = Arc::new(AtomicBool::new(false));
        let contact = Arc::new(Contact::default());
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (to_outside, notes) = std::sync::mpsc::channel();
        let identity =
            || file_identity(&path).map_err(|e| OpenError::Io { path: path.clone(), why: e.to_string() });
        let (nudge, fold) = match is_file {
            true => Some(fold::beside(&path, durability, Arc::clone(&stopped))?),
            false => None,
        }
        .unzip();
        let writer = Writer {
            db,
            fold: nudge,
            keys: Arc::clone(&keys),
            head,
            known,
            observer,
            outside: to_outside,
            stopped: Arc::clone(&stopped),
            full: Arc::clone(&full),
            reserve: is_file.then(|| Reserve::in_dir(dir.path())),
            file: is_file.then(identity).transpose()?,
            contact: Arc::clone(&contact),
            seen: Arc::clone(&seen),
            dir: dir.clone(),
            durability,
        };
        let outside_stopped = Arc::clone(&stopped);
        let unsynced = (is_file && durability == Durability::Os).then(|| wal_of(&path));
        let mut threads = vec![
            spawn("store-writer", &path, move || writer.run(queue))?,
            spawn("store-outside", &path, move || {
                run_outside(outside, notes, unsynced.as_deref(), outside_stopped)
            })?,
        ];
        if let Some(fold) = fold {
            threads.push(spawn("store-log", &path, move || fold.run())?);
        }
        if let Some(address) = dir.address() {
            listen::start(address, &jobs);
        }
        let inner = Inner {
            jobs,
            keys,
            outside: outside_path,
            readers: Mutex::new(Vec::new()),
            reading: Arc::new(Semaphore::new(if is_file { READS_MAX } else { READERS_MAX })),
            stopped,
            full,
            contact,
            seen,
            durability,
            dir,
            threads: Mutex::new(threads),
            alive: watch::Sender::new(()),
        };
        Ok(Self { inner: Arc::new(inner), reserved: false })
    }

    /// A handle whose work may use the room that is kept on the disk for those who make more: for administrators'
    /// looks and removals alone.
    #[must_use]
    pub fn reserved(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), reserved: true }
    }

    /// Appends a record and returns when it is durable.
    ///
    /// With `decided_at`, fails with [`StoreError::Stale`] when the access rules are no longer those of that epoch.
    ///
    /// # Errors
    /// When the record is not on the disk: whoever asked must not get an answer.
    pub async fn append(&self, draft: Draft, decided_at: Option<u64>) -> Result<Committed, StoreError> {
        let (reply, answer) = oneshot::channel();
        let reserved = self.reserved;
        self.enqueue(Job::Append { draft: Box::new(draft), epoch: decided_at, reserved, reply }).await?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Runs `work` in a transaction together with whatever else is queued. `work` may run more than once, so it must
    /// not keep effects of its own.
    ///
    /// # Errors
    /// The closure's own error, with nothing written; or the store's, see [`StoreError`].
    pub async fn run_tx<R, E>(
        &self,
        name: &'static str,
        work: impl FnMut(&mut Tx<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<(R, Committed), E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let member = TxMember { work, result: None, reserved: self.reserved, reply };
        self.enqueue(Job::Tx(Box::new(member))).await?;
        let outcome = answer.await.map_err(|_| E::from(self.gone()))?;
        tracing::trace!(transaction = name, ok = outcome.is_ok(), "transaction");
        outcome
    }

    /// Returns when everything is in memory that any node had committed when this was called; at once when the database
    /// is a file, which has one writer.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when the server does not answer: what is in memory may be out of date.
    pub async fn fresh(&self) -> Result<(), StoreError> {
        if self.inner.dir.address().is_none() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Fresh(reply)).await?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Runs `work` on a connection that only reads and sees one consistent state.
    ///
    /// # Errors
    /// The closure's own error or the store's.
    pub async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.with_inner(move |inner| inner.with_reader(work)).await
    }

    /// Runs what reads beside the runtime, so many at a time as there may be readers.
    async fn with_inner<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let inner = Arc::clone(&self.inner);
        let permit = Arc::clone(&inner.reading).acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&inner)
        })
        .await
        .map_err(|error| StoreError::Database(format!("a read stopped short: {error}")))?
    }

    /// Checks everything there is, beside the work that goes on, and says what does not fit.
    ///
    /// # Errors
    /// When the database or the checkpoint file cannot be read at all.
    pub async fn verify(&self, progress: impl FnMut(u64) + Send + 'static) -> Result<Report, StoreError> {
        self.with_inner(move |inner| {
            // The file outside is read before the reader begins: what that one sees must be at least as new.
            let outside = Outside::read(&inner.keys, &inner.outside).map_err(|error| {
                StoreError::Database(format!("`{}` cannot be read: {error}", inner.outside.display()))
            })?;
            inner.with_reader(|reader| {
                verify::verify(reader.db(), &inner.keys, Some(&outside), progress)
                    .map_err(|e| reader.fault(e))
            })
        })
        .await
    }

    /// Empties the write-ahead log, so that nothing destroyed stays in it.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] while a long read holds the log.
    pub async fn scrub(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Scrub(reply)).await?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Why the store stopped itself; `None` while it works.
    pub fn stopped(&self) -> Option<&str> {
        self.inner.stopped.get().map(String::as_str)
    }

    /// When the newest event happened that this node has seen, its own or another's; 1970 when there is none.
    pub fn newest_event(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.inner.seen.time_ms()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Whether the last thing to be written found the disk full, or there is less room than is kept for administrators.
    pub fn is_full(&self) -> bool {
        self.inner.full.load(Ordering::Relaxed)
    }

    /// Why the server that holds the database does not answer, when it does not.
    pub fn unreachable(&self) -> Option<String> {
        self.inner.contact.problem()
    }

    /// The server that holds the database, without what is secret in its address; none when it is a file.
    pub fn server(&self) -> Option<String> {
        self.inner.dir.address().map(crate::Address::shown)
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.inner.dir.path()
    }

    /// The data directory with its lock, for whoever has to keep it beyond the store.
    pub fn held_dir(&self) -> DataDir {
        self.inner.dir.clone()
    }

    /// How hard an acknowledged write is to lose.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// Ends when the last clone is gone, every thread has ended and every file but the lock is closed.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut alive = self.inner.alive.subscribe();
        async move {
            // Nothing is ever sent, so this waits for the sender's end.
            while alive.changed().await.is_ok() {}
        }
    }

    /// What stops the store without keeping it alive.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.inner.stopped))
    }

    /// Waits until everything queued is on the disk and the files are closed; other clones must be gone.
    pub async fn close(self) {
        let Ok(inner) = Arc::try_unwrap(self.inner).map_err(|_| ()) else {
            tracing::warn!("the store is closed while still in use; it ends with its last user");
            return;
        };
        // Joining blocks, so it has a thread of its own.
        let closed = tokio::task::spawn_blocking(move || drop(inner)).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the store did not end cleanly");
        }
    }

    async fn enqueue(&self, job: Job) -> Result<(), StoreError> {
        if let Some(why) = self.stopped() {
            return Err(StoreError::Stopped(why.to_owned()));
        }
        self.inner.jobs.send(job).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> StoreError {
        StoreError::Stopped(self.stopped().unwrap_or("its writer has ended").to_owned())
    }
}

/// Stops a store that others still use.
pub struct Stopper(Stopped);

impl Stopper {
    /// Lets the store take no more work; whoever uses it is told why. What was acknowledged stands.
    pub fn stop(&self, why: &str) {
        // One that has stopped already keeps its own reason.
        let _ = self.0.set(why.to_owned());
    }
}

impl Inner {
    fn with_reader<R>(
        &self,
        work: impl FnOnce(&Reader<'_>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let db = self.reader()?;
        // What is seen while the reader begins may be newer than what it reads.
        let seen = self.seen.size();
        let result = Reader::begin(&db).and_then(|reader| {
            self.check_has(seen, &reader)?;
            work(&reader)
        });
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose transaction could not be ended would fail its next user.
        if !db.in_transaction() && db.is_usable() && readers.len() < READERS_MAX {
            readers.push(db);
        }
        result
    }

    /// Refuses a server that is behind what this node has seen: one that was the primary, and does not know it.
    fn check_has(&self, seen: u64, reader: &Reader<'_>) -> Result<(), StoreError> {
        if self.dir.address().is_none() || reader.events_len()? >= seen {
            return Ok(());
        }
        Err(StoreError::Unreachable {
            database: reader.db().name().display().to_string(),
            why: "the server that answers is behind what this node has seen".to_owned(),
        })
    }

    fn reader(&self) -> Result<Db, StoreError> {
        loop {
            let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match (idle, self.dir.address()) {
                // A server may have ended a connection that nobody used.
                (Some(db), Some(_)) if db.query("SELECT 1", &[], |_| Ok(())).is_err() => {}
                (Some(db), _) => return Ok(db),
                (None, None) => return sqlite::open_reader(&self.dir.database()),
                (None, Some(address)) => return postgres::open_reader(address),
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing the queue ends the writer, whose end closes the way to the outside file and ends that thread.
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.jobs, closed));
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The last user may be a transaction's closure, on the writer's thread, which cannot wait for itself.
            if thread.thread().id() == std::thread::current().id() {
                continue;
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

struct TxMember<W, R, E> {
    work: W,
    result: Option<Result<R, E>>,
    reserved: bool,
    reply: oneshot::Sender<Result<(R, Committed), E>>,
}

impl<W, R, E> Member for TxMember<W, R, E>
where
    W: FnMut(&mut Tx<'_>) -> Result<R, E> + Send,
    R: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), ()> {
        let result = (self.work)(tx);
        let outcome = if result.is_ok() { Ok(()) } else { Err(()) };
        self.result = Some(result);
        outcome
    }

    fn is_reserved(&self) -> bool {
        self.reserved
    }

    fn finish(self: Box<Self>, outcome: Result<Committed, StoreError>) {
        let answer = match (self.result, outcome) {
            (Some(Err(own)), _) => Err(own),
            (Some(Ok(result)), Ok(committed)) => Ok((result, committed)),
            (_, Err(error)) => Err(E::from(error)),
            (None, Ok(_)) => Err(E::from(StoreError::Refused("the transaction never ran"))),
        };
        // A caller that has gone away needs no answer.
        drop(self.reply.send(answer));
    }
}

fn spawn(name: &str, path: &Path, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| OpenError::Io { path: path.to_owned(), why: e.to_string() })
}

fn wal_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Callers waiting for the disk at once; beyond it they wait for a place in the queue.
const QUEUE_MAX: usize = 4096;
/// Idle read connections kept open.
const READERS_MAX: usize = 8;
/// Reads at once; each has a connection with a cache of about 2 MB, and more than this wait for the processor anyway.
const READS_MAX: usize = 64;
