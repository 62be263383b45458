//! What can go wrong between Keymoat and its database, in the cases that callers treat differently.

use std::path::PathBuf;

use thiserror::Error;

/// A failed store operation.
///
/// Only [`StoreError::Stale`] and [`StoreError::Refused`] promise that nothing happened. Every other error means
/// "unknown": a commit that failed may still be on the disk, so writes carry check-and-set or an idempotency key.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk has no room, so the record of the action cannot be written and the action did not take place.
    #[error("the disk that holds `{}` is full, so nothing can be written down; free some space and try again", .0.display())]
    Full(PathBuf),
    /// The database file or its directory cannot be written.
    #[error("`{}` cannot be written: {why}; Keymoat answers nothing that it cannot write down", path.display())]
    ReadOnly {
        /// The database file.
        path: PathBuf,
        /// What the operating system said.
        why: String,
    },
    /// Who may do what changed between the decision and the record; decide again.
    #[error("access rules changed while the request was on its way")]
    Stale,
    /// The store stopped itself after a fault that leaves the disk's state in doubt.
    #[error("the store has stopped itself: {0}; restart Keymoat after checking the disk")]
    Stopped(String),
    /// More work is queued than the disk keeps up with.
    #[error("the store is overloaded; try again in a moment")]
    Overloaded,
    /// The database server cannot be reached, so nothing can be written down.
    #[error(
        "the database `{database}` cannot be reached: {why}; nothing is answered that cannot be written down, and work goes on when it is back"
    )]
    Unreachable {
        /// Its address, without what is secret in it.
        database: String,
        /// What was said.
        why: String,
    },
    /// A caller broke one of the store's rules, and nothing was written.
    #[error("refused by the store: {0}")]
    Refused(&'static str),
    /// A row that was read does not have the expected form.
    #[error("the {what} in the database is damaged: {why}")]
    Corrupt {
        /// Which row.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Any other fault of the database.
    #[error("the database failed: {0}")]
    Database(String),
}

/// Why a data directory or its database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no store yet.
    #[error("no vault in `{}`; start one with `keymoat serve` or `keymoat init`", .0.display())]
    Missing(PathBuf),
    /// There is a store already.
    #[error("there is already a vault in `{}`", .0.display())]
    Exists(PathBuf),
    /// Another process holds the directory's lock.
    #[error("`{}` is in use by another Keymoat process{}; stop it, or speak to it through its socket", path.display(), .pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The process that holds the lock, when it could be read.
        pid: Option<u32>,
    },
    /// The directory belongs to another operating-system user.
    #[error("`{}` belongs to another user (uid {owner}, you are uid {you}); run Keymoat as its owner, or name another directory with --data", path.display())]
    ForeignOwner {
        /// The data directory.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
        /// This process's user id.
        you: u32,
    },
    /// Others than its owner can look into the directory or change what is in it.
    #[error("others can reach `{}` (mode {mode:03o}); run `chmod 700 '{}'`, and look whether anything in it was changed", path.display(), path.display())]
    Reachable {
        /// The data directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is not a Keymoat database.
    #[error("`{}` is not a Keymoat database; move it away, or name another directory with --data", .0.display())]
    Foreign(PathBuf),
    /// The data directory has worked with a database on a server, and none was named now.
    #[error("the vault of `{}` is in the database `{known}`; name it with --database or KEYMOAT_DATABASE", path.display())]
    Elsewhere {
        /// The data directory.
        path: PathBuf,
        /// The server's address, without what is secret in it.
        known: String,
    },
    /// The data directory has worked with another vault than the one in the database.
    #[error("the node in `{}` has worked with the vault `{known}`, but the database `{database}` holds the vault `{found}`; name the right database, or another directory with --data for a new node", path.display())]
    OtherVault {
        /// The data directory.
        path: PathBuf,
        /// The name under which its vault signs.
        known: String,
        /// The server's address, without what is secret in it.
        database: String,
        /// The name under which the vault in the database signs.
        found: String,
    },
    /// A database on a server was named for a data directory that has a vault in itself.
    #[error("there is a vault in `{}` itself; name another directory with --data for the node, or move the vault with `keymoat backup` and `keymoat restore`", .0.display())]
    HasItsOwn(PathBuf),
    /// The database was written by a newer Keymoat.
    #[error("`{}` was written by a newer Keymoat (schema {found}, this program knows {known}); update this program", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The schema's number in the file.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// The file or directory could not be used.
    #[error("cannot use `{}`: {why}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system or the database said.
        why: String,
    },
    /// The database is there but cannot be trusted.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The database failed while it was opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store is not served although it opens: it may have been put back or edited.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Untrusted {
    /// The checkpoint file that is kept outside of the data directory is gone.
    #[error("the checkpoint file `{}` is missing or empty, so it cannot be told whether the vault was put back to an older copy", .0.display())]
    OutsideMissing(PathBuf),
    /// The checkpoint file is there but not one of its signatures is this vault's.
    #[error("the checkpoint file `{}` was not written by this vault", .0.display())]
    OutsideForeign(PathBuf),
    /// The database ends before the log that was already signed.
    #[error(
        "the vault was put back to an older copy: its audit log ends at event {found}, but event {signed} was signed at {time}"
    )]
    Behind {
        /// Events in the database.
        found: u64,
        /// Events under the newest signed checkpoint.
        signed: u64,
        /// When that checkpoint was signed.
        time: String,
    },
    /// The database's log and the signed one differ.
    #[error("the audit log was rewritten: it no longer contains what was signed at event {signed} ({time})")]
    Rewritten {
        /// Events under the signed checkpoint that does not fit.
        signed: u64,
        /// When that checkpoint was signed.
        time: String,
    },
    /// The database's own checkpoint is missing or its signature is wrong.
    #[error("the vault's own checkpoint is {0}")]
    Checkpoint(&'static str),
    /// A single event does not fit the signed log.
    #[error("event {seq} was changed or removed: {why}")]
    Event {
        /// The event's number.
        seq: u64,
        /// What does not fit.
        why: String,
    },
    /// The rows that are "now" are not those that the log says.
    #[error("{0}")]
    State(String),
}

impl Untrusted {
    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::OutsideMissing(_) | Self::OutsideForeign(_) => {
                "put the right file back, or accept the present state and say why: `keymoat audit accept-restore --reason REASON`"
            }
            Self::Behind { .. } => {
                "put the newer copy back, or accept the loss and say why: `keymoat audit accept-restore --reason REASON`"
            }
            Self::Rewritten { .. } | Self::Checkpoint(_) | Self::Event { .. } | Self::State(_) => {
                "keep a copy as evidence; `keymoat audit verify` names everything that was touched, `keymoat restore FILE` makes a vault of a backup in an empty data directory, and `keymoat audit accept-restore --reason REASON` takes this one as it is"
            }
        }
    }
}
