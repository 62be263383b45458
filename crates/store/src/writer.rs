//! The one thread that writes: group commit without a timer.
//!
//! Whatever queued while the last commit was on its way to the disk goes into the next one. Each member that changes
//! rows has its own savepoint, so that one failing does not take the others with it. A member is told of its success
//! only after the commit, and, when it changed rows, only after the checkpoint outside of the data directory is
//! durable too: no acknowledged change can be put back unnoticed. For bare records (reads) the outside checkpoint
//! follows within [`OUTSIDE_LAG`].
//!
//! On a server the nodes write one after the other: each batch holds the row of the newest head, goes on from what the
//! others have committed meanwhile, and leaves the next head there. So there is one log, and a decision that was taken
//! before another node changed the rules is taken again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::batch::{Batch, Log};
use crate::contact::Contact;
use crate::data_dir::DataDir;
use crate::db::{Db, DbError, FaultKind, postgres};
use crate::fold::Nudge;
use crate::follow::{self, FollowError, catch_up};
use crate::known::Known;
use crate::ledger::{self, Draft, Head, LedgerKeys, SignedNote};
use crate::listen::{Asked, TELL};
use crate::outside::{FileStep, OutsideFile, tell};
use crate::reserve::Reserve;
use crate::tx::{Tx, take_out_unread};
use crate::{Address, Durability, Effect, Kind, Observer, StoreError};

/// What a committed member is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Number of the member's first event; of the next event in the log when it has appended none.
    pub event: u64,
    /// Number of the newest change of rows, the member's own included.
    pub change: u64,
    /// Number of the newest change that decides who may do what.
    pub epoch: u64,
}

/// Work for the writer.
pub(crate) enum Job {
    /// A record alone.
    Append {
        draft: Box<Draft>,
        epoch: Option<u64>,
        /// Whether it may use the room that is kept for administrators.
        reserved: bool,
        reply: oneshot::Sender<Result<Committed, StoreError>>,
    },
    /// Changes with their record.
    Tx(Box<dyn Member>),
    /// Empties the write-ahead log, so that nothing destroyed stays in it.
    Scrub(oneshot::Sender<Result<(), StoreError>>),
    /// As [`Job::Follow`], for somebody who waits for it.
    Fresh(oneshot::Sender<Result<(), StoreError>>),
    /// Goes on from what other nodes have committed.
    Follow(Asked),
}

/// A transaction of unknown result type.
pub(crate) trait Member: Send {
    /// Runs the closure; an error means that the savepoint is rolled back and the caller has been prepared to be told.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), ()>;
    /// Whether it may use the room that is kept for administrators.
    fn is_reserved(&self) -> bool;
    /// Tells the caller.
    fn finish(self: Box<Self>, outcome: Result<Committed, StoreError>);
}

/// How far the log has come, as this node has seen it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    size: AtomicU64,
    time_ms: AtomicI64,
}

impl Seen {
    pub(crate) fn raise(&self, head: &Head) {
        self.size.fetch_max(head.size(), Ordering::Relaxed);
        self.time_ms.fetch_max(head.time_ms, Ordering::Relaxed);
    }

    /// Events that were seen.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Time of the newest of them, in milliseconds since 1970.
    pub(crate) fn time_ms(&self) -> i64 {
        self.time_ms.load(Ordering::Relaxed)
    }
}

/// Why the store stopped itself, once it has.
pub(crate) type Stopped = Arc<OnceLock<String>>;

pub(crate) struct Writer {
    pub(crate) db: Db,
    pub(crate) dir: DataDir,
    pub(crate) durability: Durability,
    pub(crate) keys: Arc<LedgerKeys>,
    pub(crate) head: Head,
    pub(crate) observer: Observer,
    pub(crate) known: Known,
    pub(crate) outside: std_mpsc::Sender<ToOutside>,
    pub(crate) stopped: Stopped,
    /// Whether the last batch found the disk full, or the reserve has been given up and not been made anew.
    pub(crate) full: Arc<AtomicBool>,
    /// None when the database is not on this machine's disk.
    pub(crate) reserve: Option<Reserve>,
    /// Which file the database is: its device and inode. None when it is on a server.
    pub(crate) file: Option<(u64, u64)>,
    /// Has the log of a file folded in beside. None when the database is on a server.
    pub(crate) fold: Option<Nudge>,
    /// Whether the server answers.
    pub(crate) contact: Arc<Contact>,
    /// How far the log has come, for those beside.
    pub(crate) seen: Arc<Seen>,
}

impl Writer {
    /// Works until every sender of jobs is gone.
    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let _guard = StopOnPanic { stopped: Arc::clone(&self.stopped), who: "writer" };
        let mut batch = Vec::new();
        while jobs.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            self.commit_batch(std::mem::take(&mut batch));
        }
        // A clean end leaves one file: the log is folded into the database.
        let _alone = self.fold.as_ref().map(Nudge::alone);
        if self.file.is_some()
            && let Err(error) = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        {
            tracing::debug!(%error, "the write-ahead log could not be folded in at the end");
        }
    }

    fn commit_batch(&mut self, batch: Vec<Job>) {
        if let Some(why) = self.stopped.get() {
            let why = why.clone();
            batch.into_iter().for_each(|job| job.fail(StoreError::Stopped(why.clone())));
            return;
        }
        let (mut scrubs, mut members, mut waiting, mut follows) = (Vec::new(), Vec::new(), Vec::new(), false);
        for job in batch {
            match job {
                Job::Scrub(reply) => scrubs.push(reply),
                Job::Fresh(reply) => waiting.push(reply),
                Job::Follow(asked) => {
                    follows = true;
                    asked.taken();
                }
                member => members.push(member),
            }
        }
        if let Err(why) = self.connect() {
            let lost = |why: &str| StoreError::Unreachable {
                database: self.db.name().display().to_string(),
                why: why.to_owned(),
            };
            members.into_iter().for_each(|job| job.fail(lost(&why)));
            scrubs.into_iter().chain(waiting).for_each(|reply| drop(reply.send(Err(lost(&why)))));
            return;
        }
        // A batch goes on from what others have committed anyway, but whoever waits need not wait for its commit.
        if !waiting.is_empty() || (follows && members.is_empty()) {
            let followed = self.follow();
            waiting.into_iter().for_each(|reply| drop(reply.send(followed())));
        }
        if !members.is_empty() {
            self.commit_members(members);
        }
        for reply in scrubs {
            self.scrub(reply);
        }
    }

    /// Makes sure that there is a connection, or says why there is none.
    fn connect(&mut self) -> Result<(), String> {
        let Some(address) = self.dir.address().filter(|_| !self.db.is_usable()) else { return Ok(()) };
        if let Some(why) = self.contact.is_too_early(Instant::now()) {
            return Err(why);
        }
        match postgres::Connection::open(address, self.durability, postgres::WRITE_WITHIN) {
            Ok(connection) => {
                self.db = Db::postgres(connection);
                Ok(())
            }
            Err(error) => {
                let why = error.to_string();
                self.contact.lost(&why, Instant::now());
                Err(why)
            }
        }
    }

    /// Goes on from what other nodes have committed, and tells anybody who asks how that went.
    fn follow(&mut self) -> Box<dyn Fn() -> Result<(), StoreError>> {
        let mut head = self.head.clone();
        match self.look_ahead(&mut head) {
            Ok(None) => self.contact.heard(),
            Ok(Some((effects, note))) => {
                self.contact.heard();
                self.take_over(head, effects, note);
                if let Some(why) = self.stopped.get().cloned() {
                    return Box::new(move || Err(StoreError::Stopped(why.clone())));
                }
            }
            Err(error) => {
                let fault = self.failed(error);
                return Box::new(move || Err(fault()));
            }
        }
        Box::new(|| Ok(()))
    }

    fn look_ahead(&self, head: &mut Head) -> Result<Option<(Vec<Effect>, String)>, FollowError> {
        if follow::newest(&self.db)?.is_of(head) {
            return Ok(None);
        }
        // Once more, in one moment together with what it covers.
        self.db.begin_read()?;
        let stored = follow::newest(&self.db)?;
        let effects = catch_up(&self.db, &self.keys, head, &stored)?;
        self.db.rollback()?;
        Ok((!stored.note.is_empty()).then_some((effects, stored.note)))
    }

    fn commit_members(&mut self, batch: Vec<Job>) {
        // What is written into a file that has lost its name is gone with this process.
        if self.file.is_some() && file_identity(self.db.name()).ok() != self.file {
            let why = format!("`{}` was removed or replaced while it was in use", self.db.name().display());
            self.stop(why.clone());
            batch.into_iter().for_each(|job| job.fail(StoreError::Stopped(why.clone())));
            return;
        }
        // What is left of the reserve is for those who make room; the others wait until it stands again.
        match self.reserve.as_mut().is_none_or(Reserve::restore) {
            true => self.commit_admitted(batch),
            false => {
                self.full.store(true, Ordering::Relaxed);
                let admitted = self.only_reserved(batch);
                self.commit_admitted(admitted);
            }
        }
    }

    /// Refuses all but what may use the reserve.
    fn only_reserved(&self, batch: Vec<Job>) -> Vec<Job> {
        let (admitted, refused): (Vec<_>, Vec<_>) = batch.into_iter().partition(Job::is_reserved);
        refused.into_iter().for_each(|job| job.fail(StoreError::Full(self.db.name().to_owned())));
        admitted
    }

    fn commit_admitted(&mut self, mut batch: Vec<Job>) {
        while !batch.is_empty() {
            batch = self.commit_first(batch);
        }
    }

    /// Commits as many as one commit holds, from the first on, and gives the others back.
    fn commit_first(&mut self, mut batch: Vec<Job>) -> Vec<Job> {
        let mut tries = 0;
        let (head, written) = loop {
            let begun = self.begin();
            let mut head = self.head.clone();
            match begun.and_then(|()| self.write_batch(&mut batch, &mut head)) {
                // Two transactions met on a server that lets only one of them through.
                Err(FollowError::Database(error))
                    if error.kind() == FaultKind::Retry && tries < TRIES_MAX =>
                {
                    tries += 1;
                    self.roll_back();
                }
                written => break (head, written),
            }
        };
        match written {
            Ok(Written { outcomes, effects, note }) => {
                let others = batch.split_off(outcomes.len());
                self.contact.heard();
                self.remember();
                if let Some(fold) = &mut self.fold {
                    fold.committed();
                }
                self.full.store(self.reserve.as_ref().is_some_and(|kept| !kept.is_kept()), Ordering::Relaxed);
                self.take_head(head);
                if !effects.is_empty() {
                    self.known.take(&effects, &self.keys.state);
                    (self.observer)(effects);
                }
                self.acknowledge(batch, outcomes, note);
                others
            }
            Err(error) => {
                let is_full =
                    matches!(&error, FollowError::Database(error) if error.kind() == FaultKind::Full);
                let fault = self.failed(error);
                if is_full
                    && batch.iter().any(Job::is_reserved)
                    && self.reserve.as_mut().is_some_and(Reserve::release)
                {
                    self.full.store(true, Ordering::Relaxed);
                    let admitted = self.only_reserved(batch);
                    // The reserve is given up once, so this comes here once.
                    return admitted;
                }
                batch.into_iter().for_each(|job| job.fail(fault()));
                Vec::new()
            }
        }
    }

    /// Ends a transaction that failed; some faults have ended it already.
    fn roll_back(&self) {
        if self.db.in_transaction()
            && let Err(error) = self.db.rollback()
        {
            match self.file {
                // A connection that is in doubt is not used again, and the server rolls back what it left.
                None => tracing::debug!(%error, "a failed transaction could not be rolled back"),
                Some(_) => self.stop(format!("a failed transaction could not be rolled back: {error}")),
            }
        }
    }

    /// Runs the members and commits. The outcomes are in the order of the batch; they end where the batch is full.
    fn write_batch(&self, jobs: &mut [Job], head: &mut Head) -> Result<Written, FollowError> {
        let size_before = head.size();
        let mut effects = Vec::new();
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut batch = Batch::default();
        for job in jobs.iter_mut() {
            outcomes.push(match job {
                Job::Append { draft, epoch, .. } => write_record(&mut batch.log, draft, *epoch, head),
                Job::Tx(member) => self.write_member(member.as_mut(), head, &mut batch, &mut effects)?,
                Job::Scrub(_) | Job::Fresh(_) | Job::Follow(_) => Outcome::Failed,
            });
            if batch.bytes() >= BATCH_BYTES {
                break;
            }
        }
        if let Some(server) = self.db.server() {
            take_out_unread(server, &batch.unread, &self.known, &self.keys.state, head)?;
        }
        let note =
            (head.size() != size_before).then(|| SignedNote::of(&self.keys, head, self.file.is_none()));
        let tell = self.dir.address().is_some_and(Address::notifies) && !batch.rows.is_empty();
        self.db.run(batch.commands(note.as_ref(), tell.then_some(TELL)))?;
        Ok(Written { outcomes, effects, note: note.map(|signed| signed.note) })
    }

    /// Begins to write. What other nodes have committed is taken over first, in memory too, so that members work with
    /// the keys and the rules of now.
    fn begin(&mut self) -> Result<(), FollowError> {
        loop {
            let Some(server) = self.db.server() else { return Ok(self.db.begin_write()?) };
            let stored = follow::lock(server)?;
            if stored.is_of(&self.head) {
                return Ok(());
            }
            let mut head = self.head.clone();
            let effects = catch_up(&self.db, &self.keys, &mut head, &stored)?;
            // Whoever takes up another root key may look for the master key; the other nodes are not kept waiting.
            let takes_long = effects.iter().any(|effect| effect.kind() == Kind::Instance);
            if takes_long {
                self.db.rollback()?;
            }
            self.take_over(head, effects, stored.note);
            match self.stopped.get() {
                Some(why) => return Err(DbError::Form(why.clone()).into()),
                None if takes_long => {}
                None => return Ok(()),
            }
        }
    }

    /// Goes on from a head that another node has committed.
    fn take_over(&mut self, head: Head, effects: Vec<Effect>, note: String) {
        self.take_head(head);
        self.known.take(&effects, &self.keys.state);
        (self.observer)(effects);
        if !note.is_empty() {
            self.tell_outside(ToOutside { note, waiting: Vec::new() });
        }
    }

    fn take_head(&mut self, head: Head) {
        self.seen.raise(&head);
        self.head = head;
    }

    /// From the first commit on this is a node that has worked with its database.
    fn remember(&mut self) {
        if self.dir.is_new_node()
            && let Err(error) = self.dir.remember(true, &self.keys.origin)
        {
            tracing::warn!(%error, "it could not be written down that this node works here; the next commit tries again");
        }
    }

    fn write_member(
        &self,
        member: &mut dyn Member,
        head: &mut Head,
        batch: &mut Batch,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, DbError> {
        let mut tx = Tx::new(&self.db, &self.keys.state, batch, &self.known, head.clone());
        let ran = run_guarded(member, &mut tx);
        let Tx { head: mut changed_head, written, mut drafts, rows, effects: member_effects, fault, .. } = tx;
        // A fault may have ended the whole transaction, whatever the closure made of it: then nobody's part stands.
        if let Some(fault) = fault.into_inner()
            && (self.file.is_none() || !self.db.in_transaction() || ends_the_batch(&fault))
        {
            return Err(fault);
        }
        // INVARIANT: no change without a record of it, in the same transaction.
        let unrecorded = ran.is_ok() && !rows.is_empty() && drafts.is_empty();
        if unrecorded {
            return Ok(Outcome::Error(StoreError::Refused("a change of rows needs an audit event")));
        }
        if ran.is_err() {
            return Ok(Outcome::Failed);
        }
        let changed = !rows.is_empty();
        let first = changed_head.size();
        let mut rows = Some(rows);
        for draft in &mut drafts {
            let rows = rows.take().unwrap_or_default();
            ledger::append(&mut batch.log, &mut changed_head, draft, rows);
        }
        batch.rows.append(written.rows);
        batch.erased.extend(written.erased);
        batch.dropped.extend(written.dropped);
        batch.unread.extend(written.unread);
        *head = changed_head;
        effects.extend(member_effects);
        Ok(Outcome::Done { committed: head.committed(first), changed })
    }

    fn acknowledge(&mut self, batch: Vec<Job>, outcomes: Vec<Outcome>, note: Option<String>) {
        let mut after_outside = Vec::new();
        for (job, outcome) in batch.into_iter().zip(outcomes) {
            match (job, outcome) {
                (Job::Append { reply, .. }, Outcome::Done { committed, .. }) => {
                    // A caller that has gone away needs no answer; its record stands.
                    let _ = reply.send(Ok(committed));
                }
                (Job::Tx(member), Outcome::Done { committed, changed: true }) => {
                    after_outside.push((member, committed));
                }
                (Job::Tx(member), Outcome::Done { committed, changed: false }) => {
                    member.finish(Ok(committed));
                }
                (Job::Tx(member), Outcome::Failed) => {
                    member.finish(Err(StoreError::Refused("the transaction's closure failed")));
                }
                (job, Outcome::Error(error)) => job.fail(error),
                (job, Outcome::Failed) => job.fail(StoreError::Refused("not a member of a transaction")),
                (Job::Scrub(_) | Job::Fresh(_) | Job::Follow(_), Outcome::Done { .. }) => {}
            }
        }
        if let Some(note) = note {
            self.tell_outside(ToOutside { note, waiting: after_outside });
        }
    }

    fn tell_outside(&self, note: ToOutside) {
        if let Err(std_mpsc::SendError(unsent)) = self.outside.send(note) {
            self.stop("the checkpoint file can no longer be written".to_owned());
            unsent.fail("the checkpoint file can no longer be written");
        }
    }

    fn scrub(&self, reply: oneshot::Sender<Result<(), StoreError>>) {
        // Each time the caller may have gone; what was destroyed is swept away all the same.
        match (self.db.file(), self.dir.address()) {
            (Some(connection), _) => drop(reply.send(self.scrub_file(connection))),
            (None, Some(address)) => {
                // It may take long, and others write meanwhile.
                let address = address.clone();
                std::thread::spawn(move || reply.send(postgres::vacuum(&address)));
            }
            (None, None) => {}
        }
    }

    fn scrub_file(&self, connection: &rusqlite::Connection) -> Result<(), StoreError> {
        let fault = |e: rusqlite::Error| self.db.fault(&e.into());
        let _alone = self.fold.as_ref().map(Nudge::alone);
        // Nobody can write meanwhile, so a long read is not waited for as long as usual.
        connection.busy_timeout(SCRUB_BUSY).map_err(fault)?;
        let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        connection.busy_timeout(WRITE_BUSY).map_err(fault)?;
        if busy.map_err(fault)? == 0 { Ok(()) } else { Err(StoreError::Overloaded) }
    }

    /// Decides what a failure means, and stops the store when what it stands on is in doubt.
    fn failed(&mut self, error: FollowError) -> impl Fn() -> StoreError + use<> {
        self.roll_back();
        let error = match error {
            FollowError::Database(error) => error,
            FollowError::Untrusted(untrusted) => {
                self.stop(untrusted.to_string());
                let why = untrusted.to_string();
                return Self::telling(Fault::Stopped, why, self.db.name().to_owned());
            }
        };
        let name = self.db.name().to_owned();
        let first = error.to_store_error(&name);
        let text = first.to_string();
        let fault = match &first {
            StoreError::Full(_) => {
                self.full.store(true, Ordering::Relaxed);
                Fault::Full
            }
            StoreError::ReadOnly { why, .. } => Fault::ReadOnly(why.clone()),
            StoreError::Overloaded => Fault::Overloaded,
            StoreError::Unreachable { why, .. } => {
                self.contact.lost(why, Instant::now());
                Fault::Lost(why.clone())
            }
            StoreError::Stopped(why) => {
                self.stop(why.clone());
                return Self::telling(Fault::Stopped, why.clone(), name);
            }
            // The server looks after its own disk, and after a failed sync it starts anew by itself.
            _ if self.file.is_none() => Fault::Database(text.clone()),
            // After a failed write or sync the operating system may have dropped the data and say "fine" next time.
            _ => {
                self.stop(text.clone());
                Fault::Stopped
            }
        };
        Self::telling(fault, text, name)
    }

    fn telling(fault: Fault, text: String, name: PathBuf) -> impl Fn() -> StoreError + use<> {
        move || match &fault {
            Fault::Full => StoreError::Full(name.clone()),
            Fault::ReadOnly(why) => StoreError::ReadOnly { path: name.clone(), why: why.clone() },
            Fault::Overloaded => StoreError::Overloaded,
            Fault::Lost(why) => {
                StoreError::Unreachable { database: name.display().to_string(), why: why.clone() }
            }
            Fault::Database(why) => StoreError::Database(why.clone()),
            Fault::Stopped => StoreError::Stopped(text.clone()),
        }
    }

    fn stop(&self, why: String) {
        tracing::error!(%why, "the store stops itself");
        // Only the first reason counts.
        let _ = self.stopped.set(why);
    }
}

/// Which file a path leads to.
pub(crate) fn file_identity(path: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Head {
    fn committed(&self, event: u64) -> Committed {
        Committed { event, change: self.change, epoch: self.epoch }
    }
}

impl Job {
    fn is_reserved(&self) -> bool {
        match self {
            Job::Append { reserved, .. } => *reserved,
            Job::Tx(member) => member.is_reserved(),
            Job::Scrub(_) | Job::Fresh(_) | Job::Follow(_) => true,
        }
    }

    fn fail(self, error: StoreError) {
        match self {
            // In each arm the caller may have gone away, which changes nothing.
            Job::Append { reply, .. } => drop(reply.send(Err(error))),
            Job::Tx(member) => member.finish(Err(error)),
            Job::Scrub(reply) | Job::Fresh(reply) => drop(reply.send(Err(error))),
            Job::Follow(_) => {}
        }
    }
}

struct Written {
    outcomes: Vec<Outcome>,
    effects: Vec<Effect>,
    note: Option<String>,
}

enum Outcome {
    Done {
        committed: Committed,
        changed: bool,
    },
    /// The member's own closure failed and has kept its error.
    Failed,
    Error(StoreError),
}

enum Fault {
    Full,
    ReadOnly(String),
    Overloaded,
    Lost(String),
    Database(String),
    Stopped,
}

fn write_record(log: &mut Log, draft: &mut Draft, decided_at: Option<u64>, head: &mut Head) -> Outcome {
    if decided_at.is_some_and(|epoch| epoch != head.epoch) {
        return Outcome::Error(StoreError::Stale);
    }
    let event = ledger::append(log, head, draft, Vec::new());
    Outcome::Done { committed: head.committed(event), changed: false }
}

/// Runs a member's closure; a panic in it counts as its failure and leaves the writer alive.
fn run_guarded(member: &mut dyn Member, tx: &mut Tx<'_>) -> Result<(), ()> {
    // The transaction's view is thrown away after a panic, so nothing half-changed is seen again.
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| member.run(tx)));
    ran.unwrap_or_else(|_| {
        tracing::error!("a transaction's closure panicked");
        Err(())
    })
}

/// Whether a fault inside a member is the disk's or the file's and not the member's own.
fn ends_the_batch(fault: &DbError) -> bool {
    matches!(fault.kind(), FaultKind::Full | FaultKind::Disk | FaultKind::ReadOnly | FaultKind::Edited)
}

/// Tells why nothing works any more when a thread of the store dies.
pub(crate) struct StopOnPanic {
    pub(crate) stopped: Stopped,
    pub(crate) who: &'static str,
}

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Only the first reason counts.
            let _ = self.stopped.set(format!("its {} failed unexpectedly", self.who));
        }
    }
}

/// A signed note on its way to the file outside of the data directory, with those who wait for it.
pub(crate) struct ToOutside {
    note: String,
    waiting: Vec<(Box<dyn Member>, Committed)>,
}

impl ToOutside {
    fn fail(self, why: &str) {
        for (member, _) in self.waiting {
            member.finish(Err(StoreError::Stopped(why.to_owned())));
        }
    }
}

/// Keeps the outside checkpoint behind the database, never ahead of it, until the writer is gone.
///
/// `unsynced` is a log that commits do not sync: it is synced first, so that a power cut cannot leave the database
/// behind what was signed.
pub(crate) fn run_outside(
    mut file: OutsideFile,
    notes: std_mpsc::Receiver<ToOutside>,
    unsynced: Option<&Path>,
    stopped: Stopped,
) {
    let _guard = StopOnPanic { stopped: Arc::clone(&stopped), who: "checkpoint file's thread" };
    let mut last_write = Instant::now();
    while let Ok(mut newest) = notes.recv() {
        let due = last_write + OUTSIDE_LAG;
        loop {
            // Gather what is already there; when nobody waits, also what comes until the lag is over.
            let next = match newest.waiting.is_empty() {
                false => notes.try_recv().ok(),
                true => notes.recv_timeout(due.saturating_duration_since(Instant::now())).ok(),
            };
            let Some(mut next) = next else { break };
            next.waiting.splice(0..0, newest.waiting);
            newest = next;
        }
        // After a failed write or sync a later success means nothing.
        if let Some(why) = stopped.get() {
            newest.fail(why);
            continue;
        }
        match unsynced.map_or(Ok(()), sync).and_then(|()| file.write(&newest.note)) {
            Ok(()) => newest.waiting.into_iter().for_each(|(member, committed)| member.finish(Ok(committed))),
            Err(error) => {
                let why =
                    format!("the checkpoint file `{}` cannot be written: {error}", file.path().display());
                tracing::error!(%why, "the store stops itself");
                // Only the first reason counts.
                let _ = stopped.set(why.clone());
                newest.fail(&why);
            }
        }
        last_write = Instant::now();
    }
}

fn sync(path: &Path) -> std::io::Result<()> {
    match std::fs::File::open(path) {
        Ok(file) => file.sync_data().inspect(|()| tell(path, FileStep::Synced)),
        // It was folded into the database, which SQLite syncs by itself.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Bounds the memory and the time of one commit; more than this many callers simply take two.
const BATCH_MAX: usize = 1024;
/// What a batch may hold when it takes in another member: so much is in memory more than once while it is written, and
/// on its way to a server while the other nodes wait.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Two nodes that meet this often in a row are told to come again.
const TRIES_MAX: u32 = 10;
/// How long a bare record may stand before the outside checkpoint covers it.
const OUTSIDE_LAG: Duration = Duration::from_millis(100);
/// How long the writer waits for another program that holds the database's own lock.
const WRITE_BUSY: Duration = Duration::from_secs(5);
/// How long it waits for readers to leave the log.
const SCRUB_BUSY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use keymoat_core::audit::{Action, Actor, Details, Event, Outcome as EventOutcome};
    use keymoat_core::id::RequestId;
    use keymoat_crypto::InstanceKey;

    use rusqlite::Connection;

    use super::*;
    use crate::{DataDir, Durability, SealedStore, Store, Trust};

    fn private_dir() -> tempfile::TempDir {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        tempfile::Builder::new().permissions(mode).tempdir().unwrap()
    }

    /// A store whose database has at most so many pages, or whose file outside cannot be written.
    fn open(dir: &Path, keys: LedgerKeys, pages: Option<u32>, outside_fails: bool) -> Store {
        let sealed = SealedStore::open(DataDir::lock(dir).unwrap(), Durability::Disk).unwrap();
        if let Some(pages) = pages {
            sealed.limit_pages(pages);
        }
        if outside_fails {
            return sealed.start_with(keys, OutsideFile::failing());
        }
        sealed.unseal(keys, &dir.join("outside"), Trust::Checked, Box::new(|_| {})).unwrap()
    }

    fn keys(instance: &InstanceKey) -> LedgerKeys {
        LedgerKeys {
            origin: "keymoat/test".to_owned(),
            signer: instance.audit_signer(1),
            state: instance.state_key(),
        }
    }

    fn draft() -> Draft {
        let event = Event {
            seq: 0,
            time: jiff::Timestamp::UNIX_EPOCH,
            request: RequestId::from_parts(1, &[1; 10]),
            actor: Actor::Anonymous,
            on_behalf_of: None,
            module: None,
            action: Action::Write,
            scope: None,
            company: None,
            path: None,
            field: None,
            version: None,
            result: EventOutcome::Allowed,
            reason: None,
            decided_by: None,
            personal: None,
            details: Details::new(),
            rows: Vec::new(),
        };
        Draft { event, personal: None }
    }

    async fn put(store: &Store, key: String, bytes: usize, swallow: bool) -> Result<(), StoreError> {
        let work = move |tx: &mut Tx<'_>| {
            tx.append(draft());
            match tx.put(Kind::Version, &key, "{}", Some(&vec![7; bytes])) {
                Err(_) if swallow => Ok(()),
                other => other,
            }
        };
        store.run_tx("put", work).await.map(|_| ())
    }

    #[tokio::test]
    async fn a_full_database_refuses_and_recovers() {
        let dir = private_dir();
        let instance = InstanceKey::generate();
        let path = dir.path().join("keymoat.db");
        let store = open(dir.path(), keys(&instance), Some(60), false);
        // Something to make room with, from outside, that no check looks at while the store runs.
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch("CREATE TABLE ballast (x); INSERT INTO ballast VALUES (zeroblob(80000))")
            .unwrap();
        let mut written = 0;
        // A closure that swallows the fault does not make a half-written batch stand either.
        let full = loop {
            match put(&store, format!("k{written}"), 5000, written % 2 == 0).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, StoreError::Full(_)), "{full:?}");
        assert!(written > 3);
        for swallow in [false, true] {
            let again = put(&store, "again".to_owned(), 50_000, swallow).await;
            assert!(matches!(again, Err(StoreError::Full(_))), "{again:?}");
        }
        assert_eq!(store.stopped(), None);
        let count = |store: &Store| {
            let store = store.clone();
            async move { store.read(|r| Ok((r.events_len()?, r.changes(0, 999)?.len() as u64))).await.unwrap() }
        };
        assert_eq!(count(&store).await, (written, written));
        // Room again: it works again, without a restart.
        other.execute_batch("DROP TABLE ballast").unwrap();
        put(&store, "after".to_owned(), 5000, false).await.unwrap();
        assert_eq!(count(&store).await, (written + 1, written + 1));
        drop(other);
        store.close().await;
        let store = open(dir.path(), keys(&instance), None, false);
        assert_eq!(count(&store).await, (written + 1, written + 1));
        store.close().await;
        let sealed = SealedStore::open(DataDir::lock(dir.path()).unwrap(), Durability::Disk).unwrap();
        assert_eq!(
            sealed.verify(&keys(&instance), &dir.path().join("outside"), |_| {}).unwrap().problems,
            vec![]
        );
    }

    #[tokio::test]
    async fn an_administrators_work_gives_up_the_reserve_and_nobody_elses() {
        let dir = private_dir();
        let instance = InstanceKey::generate();
        let store = open(dir.path(), keys(&instance), Some(60), false);
        let reserve = || dir.path().join("reserve").exists();
        let mut written = 0;
        while put(&store, format!("k{written}"), 5000, false).await.is_ok() {
            written += 1;
        }
        assert!(reserve() && store.is_full());
        // The page limit is there whatever room the disk has, so this shows only who gives the reserve up.
        let large = put(&store.reserved(), "large".to_owned(), 50_000, false).await;
        assert!(matches!(large, Err(StoreError::Full(_))), "{large:?}");
        assert!(!reserve() && store.is_full());
        assert_eq!(store.stopped(), None);
        // Making room works, and with the next work the reserve stands again.
        let remove = move |tx: &mut Tx<'_>| {
            tx.append(draft());
            (0..written).try_for_each(|number| tx.remove(Kind::Version, &format!("k{number}")).map(|_| ()))
        };
        store.reserved().run_tx("remove", remove).await.map(|((), _)| ()).unwrap();
        put(&store, "after".to_owned(), 5000, false).await.unwrap();
        assert!(reserve() && !store.is_full());
        store.close().await;
    }

    #[tokio::test]
    async fn the_log_is_folded_in_beside_the_writer() {
        let dir = private_dir();
        let store = open(dir.path(), keys(&InstanceKey::generate()), None, false);
        let bytes = || std::fs::metadata(dir.path().join("keymoat.db")).unwrap().len();
        let before = bytes();
        // Far fewer pages than make the writer fold it in by itself.
        for _ in 0..200 {
            store.append(draft(), None).await.unwrap();
        }
        let patience = Instant::now() + Duration::from_secs(60);
        while bytes() == before {
            assert!(Instant::now() < patience, "nothing was folded in");
            tokio::task::yield_now().await;
        }
        store.close().await;
    }

    #[tokio::test]
    async fn a_failing_file_outside_stops_the_store() {
        let dir = private_dir();
        let instance = InstanceKey::generate();
        let store = open(dir.path(), keys(&instance), None, true);
        let failed = put(&store, "a".to_owned(), 1, false).await.unwrap_err();
        let StoreError::Stopped(why) = &failed else { panic!("{failed:?}") };
        assert!(why.contains("/dev/full") && why.contains("No space left"), "{why}");
        assert_eq!(store.stopped(), Some(why.as_str()));
        assert!(matches!(store.append(draft(), None).await, Err(StoreError::Stopped(_))));
        assert!(matches!(put(&store, "b".to_owned(), 1, false).await, Err(StoreError::Stopped(_))));
        // Reading is still possible; what failed may be there, which is what an error means.
        assert_eq!(store.read(|r| r.events_len()).await.unwrap(), 1);
        store.close().await;
    }

    #[tokio::test]
    async fn a_foreign_lock_is_waited_for_and_stops_nothing() {
        let dir = private_dir();
        let instance = InstanceKey::generate();
        let store = open(dir.path(), keys(&instance), None, false);
        let other = Connection::open(dir.path().join("keymoat.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let locked = store.append(draft(), None).await;
        assert!(matches!(locked, Err(StoreError::Overloaded)), "{locked:?}");
        assert_eq!(store.stopped(), None);
        other.execute_batch("ROLLBACK").unwrap();
        store.append(draft(), None).await.unwrap();
        // A long read keeps the log from being emptied, for a moment and not for long.
        other.execute_batch("BEGIN; SELECT COUNT(*) FROM events").unwrap();
        store.append(draft(), None).await.unwrap();
        assert!(matches!(store.scrub().await, Err(StoreError::Overloaded)));
        other.execute_batch("ROLLBACK").unwrap();
        store.scrub().await.unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("keymoat.db-wal")).unwrap().len(), 0);
        store.close().await;
    }
}
