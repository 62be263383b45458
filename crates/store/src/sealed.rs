//! The database while its keys are not at hand: it can be opened and looked at, but not used.

use std::path::Path;
use std::sync::mpsc;

use keymoat_core::tree::{Frontier, Hash};

use crate::data_dir::DataDir;
use crate::db::{Db, DbError, postgres, sqlite};
use crate::follow::{lock, newest};
use crate::known::Known;
use crate::ledger::{Head, LedgerKeys, SignedHead, sign, verify_note};
use crate::outside::{OutsideFile, read_slots};
use crate::reader::{events_len, for_each_raw_row, stored_leaf, subtree, tile};
use crate::row::RawRow;
use crate::tiles::Tiles;
use crate::tx::rows_with_prefix;
use crate::{Effect, Kind, Observer, OpenError, Row, Store, StoreError, Untrusted};
use crate::{accept, schema, verify};

/// A data directory with its lock held and its database open, keys not yet at hand.
pub struct SealedStore {
    dir: DataDir,
    db: Db,
    durability: Durability,
}

/// Whether to trust what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Refuse what does not fit the signed checkpoints.
    Checked,
    /// Take the present state as it is and sign it anew; the caller records why in its first event.
    Accept,
}

/// How hard an acknowledged write is to lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Synced to the disk before the answer.
    #[default]
    Disk,
    /// Handed to the operating system before the answer: survives a kill, not a power cut.
    Os,
}

impl SealedStore {
    /// Makes or opens the database of a locked data directory and brings its schema up to date.
    ///
    /// # Errors
    /// When the file is foreign, newer than this program, or cannot be used.
    pub fn open(dir: DataDir, durability: Durability) -> Result<Self, OpenError> {
        let db = match dir.address() {
            None => sqlite::open(&dir.database(), durability)?,
            Some(address) => postgres::open(address, durability)?,
        };
        Ok(Self { dir, db, durability })
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> Result<bool, OpenError> {
        let found = self.db.query_one(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM state) OR EXISTS (SELECT 1 FROM events)
                 OR EXISTS (SELECT 1 FROM tiles) OR EXISTS (SELECT 1 FROM checkpoint WHERE note <> '')",
            &[],
            |_| Ok(()),
        );
        Ok(found.map_err(|e| self.fault(e))?.is_none())
    }

    /// The rows of a kind that is readable without keys: the instance and its slots.
    pub fn rows(&self, kind: Kind) -> Result<Vec<Row>, OpenError> {
        rows_with_prefix(&self.db, kind, "", usize::MAX).map_err(|e| self.fault(e).into())
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// What tells this node from the others that work with the same database; none when it is a file.
    pub fn node_id(&self) -> Option<&str> {
        self.dir.node_id()
    }

    /// Whether this is a node that has worked with its database before.
    pub fn has_worked_here(&self) -> bool {
        self.dir.address().is_some() && !self.dir.is_new_node()
    }

    /// Refuses a database whose vault, by the name under which it signs, is another than this node has worked with.
    ///
    /// # Errors
    /// [`OpenError::OtherVault`].
    pub fn check_vault(&self, origin: &str) -> Result<(), OpenError> {
        self.dir.check_vault(origin)
    }

    /// The data directory with its lock, for whoever has to keep it beyond the store.
    pub fn held_dir(&self) -> DataDir {
        self.dir.clone()
    }

    /// How hard an acknowledged write is to lose.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Checks the database against its own checkpoint and the one outside, and starts the store.
    ///
    /// Hands every live row to `observer`, and later every change. What the observer was told before an error must be
    /// forgotten. A state that was accepted is signed with the first event; until then it counts as refused.
    ///
    /// # Errors
    /// [`OpenError::Untrusted`] when the database was put back or edited and `trust` does not accept it.
    pub fn unseal(
        self,
        keys: LedgerKeys,
        outside: &Path,
        trust: Trust,
        mut observer: Observer,
    ) -> Result<Store, OpenError> {
        self.check_vault(&keys.origin)?;
        let slots = self.outside_slots(&keys, outside)?;
        self.begin_view(trust)?;
        let found = self.look(&keys, outside, trust, &slots, &mut observer);
        self.end_view(trust, found.is_ok())?;
        let found = found?;
        let file = outside_file(outside, trust, &slots, &found, &keys).map_err(|e| io(outside, &e))?;
        // After the checkpoint file, which is expected from then on.
        let has_worked = found.head.size() > 0 || !self.dir.is_new_node();
        self.dir.remember(has_worked, &keys.origin).map_err(|e| io(self.dir.path(), &e))?;
        Store::start(self.dir, self.db, keys, (found.head, found.known), observer, file, self.durability)
    }

    /// Checks what is there and hands over every live row.
    fn look(
        &self,
        keys: &LedgerKeys,
        outside: &Path,
        trust: Trust,
        slots: &OutsideSlots,
        observer: &mut Observer,
    ) -> Result<Found, OpenError> {
        let empty = self.is_empty()?;
        let mut found = match trust {
            Trust::Accept => self.accepted_head(keys)?,
            Trust::Checked if empty => Found { head: Head::empty(), known: Known::default(), signed: None },
            Trust::Checked => self.signed_head(keys)?,
        };
        if trust == Trust::Checked {
            self.check_outside(&found, outside, slots, empty)?;
        }
        found.known = self.load(keys, &mut found.head, observer)?;
        let state = keys.state.commit(&found.head.digest);
        if found.signed.as_ref().is_some_and(|signed| signed.state != state) {
            let wrong = verify::first_wrong_row(&self.db, keys).map_err(|e| self.fault(e))?;
            return Err(Untrusted::State(wrong).into());
        }
        Ok(found)
    }

    /// On a server others may write meanwhile: what is looked at is one moment, and whoever accepts it writes alone.
    fn begin_view(&self, trust: Trust) -> Result<(), OpenError> {
        match (trust, self.db.server()) {
            (Trust::Accept, _) => self.begin_alone(),
            (Trust::Checked, Some(_)) => self.db.begin_read().map_err(|e| self.fault(e).into()),
            (Trust::Checked, None) => Ok(()),
        }
    }

    fn end_view(&self, trust: Trust, is_fine: bool) -> Result<(), OpenError> {
        if !self.db.in_transaction() {
            return Ok(());
        }
        let ended = match trust == Trust::Accept && is_fine {
            true => self.db.commit(),
            false => self.db.rollback(),
        };
        ended.map_err(|e| self.fault(e).into())
    }

    /// Begins a transaction beside which nobody else writes.
    pub(crate) fn begin_alone(&self) -> Result<(), OpenError> {
        let begin = || match self.db.server() {
            None => self.db.begin_write(),
            Some(server) => lock(server).map(|_| ()),
        };
        begin().map_err(|e| self.fault(e).into())
    }

    /// Checks everything there is and says what does not fit.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub fn verify(
        &self,
        keys: &LedgerKeys,
        outside: &Path,
        progress: impl FnMut(u64),
    ) -> Result<verify::Report, OpenError> {
        let outside = verify::Outside::read(keys, outside).map_err(|e| io(outside, &e))?;
        self.begin_view(Trust::Checked)?;
        let report = verify::verify(&self.db, keys, Some(&outside), progress).map_err(|e| self.fault(e));
        self.end_view(Trust::Checked, true)?;
        Ok(report?)
    }

    /// The head that the database's own checkpoint signs, checked against the newest events.
    fn signed_head(&self, keys: &LedgerKeys) -> Result<Found, OpenError> {
        let fault = |e| OpenError::from(self.fault(e));
        if let Some(problem) = schema::problems(&self.db).map_err(fault)?.into_iter().next() {
            return Err(Untrusted::State(problem).into());
        }
        let stored = self
            .db
            .query_one("SELECT note, frontier FROM checkpoint WHERE id = 1 AND note <> ''", &[], |row| {
                let note = row.any_text(0, &mut false)?.unwrap_or_default();
                Ok((note, row.any_blob(1, &mut false)?.unwrap_or_default()))
            })
            .map_err(fault)?;
        let (note, frontier) = stored.ok_or(Untrusted::Checkpoint("missing"))?;
        let signed = verify_note(keys, &note).ok_or(Untrusted::Checkpoint("not signed by this vault"))?;
        let frontier = verify::signed_frontier(&frontier, &signed).ok_or(Untrusted::Checkpoint("damaged"))?;
        let events = events_len(&self.db).map_err(fault)?;
        if events != signed.size {
            let why = format!("the log ends at event {events}, its checkpoint covers {}", signed.size);
            return Err(Untrusted::Event { seq: events.min(signed.size), why }.into());
        }
        if self.root_at(events, signed.size) != Some(signed.root) {
            return Err(self.first_problem(keys)?.into());
        }
        if let Some(problem) = verify::check_tail(&self.db, signed.size).map_err(fault)? {
            return Err(problem.into());
        }
        let tiles = self.tiles(signed.size)?;
        let time: jiff::Timestamp = signed.time.parse().map_err(|_| Untrusted::Checkpoint("damaged"))?;
        let head = Head { frontier, tiles, time_ms: time.as_millisecond(), ..Head::empty() };
        Ok(Found { head, known: Known::default(), signed: Some(signed) })
    }

    /// What a full verification names first.
    fn first_problem(&self, keys: &LedgerKeys) -> Result<Untrusted, OpenError> {
        let report = verify::verify(&self.db, keys, None, |_| {}).map_err(|e| self.fault(e))?;
        Ok(report.problems.into_iter().next().unwrap_or(Untrusted::Checkpoint("damaged")))
    }

    /// The root that the stored tiles and the newest events give for the first `size` of `events` events.
    fn root_at(&self, events: u64, size: u64) -> Option<Hash> {
        let lookup = |level, index| subtree(&self.db, events, level, index).ok();
        Frontier::from_subtrees(size, lookup).ok().map(|frontier| frontier.root())
    }

    /// The head made anew from every event, whatever the checkpoints say.
    fn accepted_head(&self, keys: &LedgerKeys) -> Result<Found, OpenError> {
        let rebuild = || Ok((accept::rebuild(&self.db, keys)?, schema::problems(&self.db)?));
        let (mut head, problems) = rebuild().map_err(|e: DbError| self.fault(e))?;
        if self.db.server().is_some() {
            newest(&self.db).map_err(|e| self.fault(e))?.give_way_to(&mut head);
        }
        // A table of another shape cannot be served, whoever accepts it.
        match problems.into_iter().next() {
            Some(problem) => Err(Untrusted::State(problem).into()),
            None => Ok(Found { head, known: Known::default(), signed: None }),
        }
    }

    fn tiles(&self, size: u64) -> Result<Tiles, OpenError> {
        Tiles::restore(
            size,
            |seq| stored_leaf(&self.db, seq),
            |level, number| tile(&self.db, level, number)?.ok_or(DbError::NoRow),
        )
        .map_err(|error| match error {
            DbError::NoRow => {
                let why = "events or tiles of the tree are missing".to_owned();
                Untrusted::Event { seq: size.saturating_sub(1), why }.into()
            }
            error => self.fault(error).into(),
        })
    }

    fn check_outside(
        &self,
        found: &Found,
        path: &Path,
        slots: &OutsideSlots,
        empty: bool,
    ) -> Result<(), OpenError> {
        let Some((_, signed)) = slots.newest() else {
            return match (slots.exists, empty) {
                (_, true) => Ok(()),
                // A node that comes to a vault of many has seen nothing of it yet.
                (false, false) if self.dir.is_new_node() => Ok(()),
                (false, false) => Err(Untrusted::OutsideMissing(path.to_owned()).into()),
                (true, false) => Err(Untrusted::OutsideForeign(path.to_owned()).into()),
            };
        };
        let size = found.head.size();
        if signed.size > size {
            let behind = Untrusted::Behind { found: size, signed: signed.size, time: signed.time.clone() };
            return Err(behind.into());
        }
        let root = match signed.size == size {
            true => Some(found.head.frontier.root()),
            false => self.root_at(size, signed.size),
        };
        // Of one size there is one state: the digest over the rows is part of what was signed.
        let other_state = found
            .signed
            .as_ref()
            .is_some_and(|inside| inside.size == signed.size && inside.state != signed.state);
        if root != Some(signed.root) || other_state {
            return Err(Untrusted::Rewritten { signed: signed.size, time: signed.time.clone() }.into());
        }
        Ok(())
    }

    fn outside_slots(&self, keys: &LedgerKeys, path: &Path) -> Result<OutsideSlots, OpenError> {
        let texts = read_slots(path).map_err(|e| io(path, &e))?;
        let exists = texts.is_some();
        let slots = texts.unwrap_or_default().map(|text| verify_note(keys, &text));
        Ok(OutsideSlots { exists, slots })
    }

    /// Reads every row, adding up their digest, and hands over the live ones, which are taken in beside the reading.
    fn load(&self, keys: &LedgerKeys, head: &mut Head, observer: &mut Observer) -> Result<Known, OpenError> {
        let (chunks, taken) = mpsc::sync_channel(CHUNKS_AHEAD);
        std::thread::scope(|scope| {
            let taking = scope.spawn(move || taken.into_iter().for_each(observer));
            let loaded = self.read_rows(keys, head, |chunk| {
                // It takes until this ends, or has panicked, which is passed on below.
                drop(chunks.send(chunk));
            });
            drop(chunks);
            if let Err(panic) = taking.join() {
                std::panic::resume_unwind(panic);
            }
            loaded
        })
    }

    fn read_rows(
        &self,
        keys: &LedgerKeys,
        head: &mut Head,
        hand_over: impl Fn(Vec<Effect>),
    ) -> Result<Known, OpenError> {
        let mut unknown = None;
        let mut known = Known::default();
        let mut chunk = Vec::with_capacity(LOAD_CHUNK);
        for_each_raw_row(&self.db, |row| {
            head.digest.add(row.mac(&keys.state));
            head.change = head.change.max(u64::try_from(row.seq).unwrap_or(0));
            if row.body.is_none() {
                return;
            }
            let row = match row.into_live() {
                Ok(row) => row,
                Err(row) => {
                    unknown.get_or_insert(row);
                    return;
                }
            };
            known.add(&row, &keys.state);
            if row.kind.decides_access() {
                head.epoch = head.epoch.max(row.seq);
            }
            chunk.push(Effect::Written(row));
            if chunk.len() == LOAD_CHUNK {
                hand_over(std::mem::replace(&mut chunk, Vec::with_capacity(LOAD_CHUNK)));
            }
        })
        .map_err(|e| self.fault(e))?;
        hand_over(chunk);
        match unknown {
            None => Ok(known),
            Some(RawRow { kind, key, .. }) => {
                let why = format!("the {kind} `{key}` has a kind or a form that this program does not know");
                Err(Untrusted::State(why).into())
            }
        }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) fn fault(&self, error: DbError) -> StoreError {
        self.db.fault(&error)
    }
}

#[cfg(test)]
impl SealedStore {
    /// Lets the database grow to so many pages and no further.
    pub(crate) fn limit_pages(&self, pages: u32) {
        self.db.query(&format!("PRAGMA max_page_count = {pages}"), &[], |_| Ok(())).expect("it is a number");
    }

    /// Starts a new store with this file outside.
    pub(crate) fn start_with(self, keys: LedgerKeys, outside: OutsideFile) -> Store {
        let observer: Observer = Box::new(|_| {});
        Store::start(
            self.dir,
            self.db,
            keys,
            (Head::empty(), Known::default()),
            observer,
            outside,
            self.durability,
        )
        .expect("threads can be started")
    }
}

struct Found {
    head: Head,
    known: Known,
    /// What was signed of it; nothing when the store is new or its state is accepted as it is.
    signed: Option<SignedHead>,
}

struct OutsideSlots {
    exists: bool,
    slots: [Option<SignedHead>; 2],
}

impl OutsideSlots {
    fn newest(&self) -> Option<(usize, &SignedHead)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(n, slot)| Some((n, slot.as_ref()?)))
            .max_by_key(|(_, signed)| signed.size)
    }
}

/// Opens the file outside and brings it up to the database, so that nothing committed can be put back unnoticed from
/// here on.
fn outside_file(
    path: &Path,
    trust: Trust,
    slots: &OutsideSlots,
    found: &Found,
    keys: &LedgerKeys,
) -> std::io::Result<OutsideFile> {
    let mut file = OutsideFile::open(path)?;
    match (trust, slots.newest()) {
        // What the slots hold may be of a log that is given up; it goes with the first event of the new one.
        (Trust::Accept, _) => file.renew(),
        (Trust::Checked, Some((newest, signed))) => {
            file.spare(newest);
            if let Some(inside) = found.signed.as_ref().filter(|inside| inside.size > signed.size) {
                file.write(&inside.note)?;
            }
        }
        // A new store: its first commit may be the last before a crash, and must not look like a foreign one. A new
        // node begins with what it has found.
        (Trust::Checked, None) => {
            file.renew();
            match &found.signed {
                Some(signed) => file.write(&signed.note)?,
                None => file.write(&sign(keys, &found.head))?,
            }
        }
    }
    Ok(file)
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), why: error.to_string() }
}

/// Rows handed over at once while loading.
const LOAD_CHUNK: usize = 1024;
/// How many of these may wait to be taken in.
const CHUNKS_AHEAD: usize = 4;
