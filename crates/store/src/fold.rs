//! Folds SQLite's write-ahead log into the database beside the writer, so that nobody waits for it.
//!
//! SQLite by itself lets the commit that makes the log long fold it in: ten milliseconds about once a second under load,
//! for which everybody who wants a record written would wait. A "passive" checkpoint on a connection of its own holds
//! up neither who writes nor who reads (<https://www.sqlite.org/wal.html>, §2.3). It cannot begin the log anew while
//! commits go on; the writer does, at [`sqlite::LOG_PAGES`](crate::db::sqlite), when little is left to be folded in.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::db::{DbError, FaultKind, sqlite};
use crate::writer::{StopOnPanic, Stopped};
use crate::{Durability, OpenError};

/// The writer's end: counts commits and asks for the log to be folded in.
pub(crate) struct Nudge {
    commits: u32,
    ask: SyncSender<()>,
    folding: Arc<Mutex<()>>,
}

impl Nudge {
    /// Keeps the other end from folding while this is held. Two checkpoints at once make the second one fail at once,
    /// whatever it was told about waiting (`sqlite3_wal_checkpoint_v2`).
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.folding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more commit stands in the log.
    pub(crate) fn committed(&mut self) {
        self.commits += 1;
        if self.commits < FOLD_EVERY {
            return;
        }
        match self.ask.try_send(()) {
            Ok(()) => self.commits = 0,
            // It is still at the last one: the next commit asks again. Or it has ended, which the store knows.
            Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// The other end: folds when it is asked to, until the writer is gone.
pub(crate) struct Fold {
    connection: Connection,
    asked: Receiver<()>,
    folding: Arc<Mutex<()>>,
    stopped: Stopped,
}

/// Both ends, for the database in this file.
pub(crate) fn beside(
    path: &Path,
    durability: Durability,
    stopped: Stopped,
) -> Result<(Nudge, Fold), OpenError> {
    let connection = sqlite::open_beside(path, durability)?;
    let (ask, asked) = sync_channel(1);
    let folding = Arc::new(Mutex::new(()));
    let nudge = Nudge { commits: 0, ask, folding: Arc::clone(&folding) };
    Ok((nudge, Fold { connection, asked, folding, stopped }))
}

impl Fold {
    pub(crate) fn run(self) {
        let _guard = StopOnPanic { stopped: Arc::clone(&self.stopped), who: "log's thread" };
        while self.asked.recv().is_ok() {
            if self.stopped.get().is_some() {
                return;
            }
            if let Err(error) = self.fold() {
                match error.kind() {
                    // The commits are safe in the log, and the writer meets the same in its own time.
                    FaultKind::Busy | FaultKind::Full | FaultKind::ReadOnly => {
                        tracing::debug!(%error, "the write-ahead log could not be folded in");
                    }
                    // As after a failed commit: a disk that has failed once is not believed when it says "fine".
                    _ => {
                        let why =
                            format!("the write-ahead log could not be folded into the database: {error}");
                        tracing::error!(%why, "the store stops itself");
                        // Only the first reason counts.
                        let _ = self.stopped.set(why);
                    }
                }
            }
        }
    }

    fn fold(&self) -> Result<(), DbError> {
        let _alone = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        // Its row says how far it came; a reader in its way is no fault.
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }
}

/// Some hundreds of pages: so many that most are in the log more than once and are written once, so few that what is
/// left for the writer is written in a moment.
const FOLD_EVERY: u32 = 64;
