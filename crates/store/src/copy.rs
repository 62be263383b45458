//! Everything in a store as a sequence of entries: out of one that is in use, into one that is empty.
//!
//! The entries do not depend on the database under them. Each carries exactly what its keyed hash or its place in the
//! tree is made of, so that a copy is either the same to the bit, down to its signed checkpoint, or not accepted. How
//! entries travel, and how they are encrypted on the way, is the caller's.

use std::path::Path;

use keymoat_core::audit::Event;
use keymoat_core::tree::{Frontier, Hash, leaf_hash};
use keymoat_crypto::StateDigest;

use crate::archive::{archived_below, stored_archive, tile_leaves};
use crate::batch::{EVENTS, STATE, TILES, push_insert};
use crate::db::{Db, DbError, DbResult, Scan, Value, int};
use crate::ledger::{LedgerKeys, Record, SignedHead, SignedNote, verify_note};
use crate::outside::OutsideFile;
use crate::reader::{Reader, events_len};
use crate::row::{RawRow, SEQ_MAX};
use crate::tiles::{FullTile, TILE_WIDTH, Tiles};
use crate::verify::Outside;
use crate::{Archive, Kind, OpenError, Row, SealedStore, StoreError, Untrusted};

/// One row or event on its way from store to store; rows come first, in the order of kind and key, then events in the
/// order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A row, or the mark that a removed one leaves.
    Row(CopiedRow),
    /// An event.
    Event(CopiedEvent),
    /// The leaf hashes of events, one after the other, that stand in an archive only; at most 256.
    Archived(Vec<Hash>),
}

/// A row as it stands; without a body it is the mark of a removed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedRow {
    /// The stored name of its kind.
    pub kind: String,
    /// Its name within the kind.
    pub key: String,
    /// The number of the change that wrote or removed it.
    pub seq: u64,
    /// JSON; none in the mark of a removed row.
    pub body: Option<String>,
    /// Ciphertext or a wrapped key.
    pub blob: Option<Vec<u8>>,
}

/// An event as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedEvent {
    /// The text that the tree commits to.
    pub record: Vec<u8>,
    /// The erasable part with its salt, as stored; none when it was erased.
    pub personal: Option<Vec<u8>>,
}

/// Adds up entries and compares them with what was signed; nothing of them is kept.
pub struct Tally<'a> {
    keys: &'a LedgerKeys,
    frontier: Frontier,
    digest: StateDigest,
    counts: Counts,
    /// Events below this one may stand in an archive only.
    archived_below: u64,
    /// Kind and key of the newest row, to notice one that comes twice.
    newest: Option<(String, String)>,
    outside: Option<Outside>,
    /// What a note outside signs that these events do not contain.
    rewritten: Option<Untrusted>,
}

/// How much was added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Live rows.
    pub rows: u64,
    /// Marks of removed rows.
    pub removed: u64,
    /// Events, those that stand in archives included.
    pub events: u64,
    /// Events that stand in archives only.
    pub archived: u64,
    /// The number of the newest change of a row.
    pub change: u64,
}

/// What entries that fit their checkpoint amount to.
#[derive(Debug, Clone)]
pub struct Tallied {
    /// The checkpoint.
    pub head: SignedHead,
    /// How much there is.
    pub counts: Counts,
    /// How the checkpoint file outside of the data directory stands to it.
    pub outside: OutsideFit,
}

/// How the checkpoint file on this machine stands to a copy that comes from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideFit {
    /// There is none, or nothing in it yet.
    Absent,
    /// What it signs is contained in the copy.
    Contained,
    /// It knows of events that the copy does not have, or was not written by this vault.
    Against(Untrusted),
}

impl CopiedRow {
    /// The live row; `None` for the mark of a removed one, or for a kind that this program does not know.
    pub fn live(&self) -> Option<Row> {
        let kind = Kind::parse(&self.kind)?;
        let body = self.body.clone()?;
        Some(Row { kind, key: self.key.clone(), seq: self.seq, body, blob: self.blob.clone() })
    }
}

impl Reader<'_> {
    /// Hands every entry to `each`, all of one moment.
    ///
    /// # Errors
    /// Those of `each`; [`StoreError::Corrupt`] when something stands there that Keymoat did not write.
    pub fn entries<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let found = self.each_entry(&mut |entry| each(entry).map_err(CopyError::Own));
        found.map_err(|error| match error {
            CopyError::Own(error) => error,
            CopyError::Store(error) => error.into(),
            CopyError::Database(error) => self.fault(error).into(),
        })
    }

    fn each_entry<E>(
        &self,
        each: &mut dyn FnMut(Entry) -> Result<(), CopyError<E>>,
    ) -> Result<(), CopyError<E>> {
        let rows = Scan {
            columns: RawRow::COLUMNS,
            table: "state",
            filter: "TRUE",
            params: Vec::new(),
            key: &["kind", "key"],
            descending: false,
        };
        self.db().scan(&rows, |row| {
            let row = CopiedRow::of(RawRow::read(row)?).map_err(CopyError::Store)?;
            each(Entry::Row(row))?;
            Ok::<_, CopyError<E>>(true)
        })?;
        let size = events_len(self.db())?;
        let archive = stored_archive(self.db())?;
        let archived_below = archived_below(archive.as_ref(), size);
        let events = Scan {
            columns: "seq, record, personal",
            table: "events",
            filter: "TRUE",
            params: Vec::new(),
            key: &["seq"],
            descending: false,
        };
        let mut next = 0;
        self.db().scan(&events, |row| {
            let seq = row.int(0)?;
            let place = u64::try_from(seq).unwrap_or_default();
            self.archived_entries(next, place.min(archived_below), each)?;
            next = place.saturating_add(1);
            let read = || Ok(CopiedEvent { record: row.blob(1)?, personal: row.maybe_blob(2)? });
            let event = read().map_err(|error: DbError| {
                CopyError::Store(corrupt(format!("event {seq}"), &error.to_string()))
            })?;
            each(Entry::Event(event))?;
            Ok::<_, CopyError<E>>(true)
        })?;
        self.archived_entries(next, archived_below, each)
    }

    /// The hashes of the archived events `start..end`, an entry a tile.
    fn archived_entries<E>(
        &self,
        start: u64,
        end: u64,
        each: &mut dyn FnMut(Entry) -> Result<(), CopyError<E>>,
    ) -> Result<(), CopyError<E>> {
        let mut leaves = Vec::new();
        tile_leaves(self.db(), start, end, |place, leaf| {
            leaves.push(leaf.ok_or_else(|| {
                CopyError::Store(corrupt(format!("event {place}"), "its tile of the tree is missing"))
            })?);
            let is_last_of_tile = (place + 1).is_multiple_of(TILE_WIDTH as u64) || place + 1 == end;
            match is_last_of_tile {
                true => each(Entry::Archived(std::mem::take(&mut leaves))),
                false => Ok(()),
            }
        })
    }
}

/// Why entries stopped coming.
enum CopyError<E> {
    Own(E),
    Store(StoreError),
    Database(DbError),
}

impl<E> From<DbError> for CopyError<E> {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl<'a> Tally<'a> {
    /// An empty tally.
    pub fn new(keys: &'a LedgerKeys) -> Self {
        Self {
            keys,
            frontier: Frontier::new(),
            digest: StateDigest::default(),
            counts: Counts::default(),
            archived_below: 0,
            newest: None,
            outside: None,
            rewritten: None,
        }
    }

    /// An empty tally that also compares with the checkpoint file of this machine.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn beside(keys: &'a LedgerKeys, outside: &'a Path) -> Result<Self, OpenError> {
        let read = Outside::read(keys, outside);
        let read = read.map_err(|e| OpenError::Io { path: outside.to_owned(), why: e.to_string() })?;
        Ok(Self { outside: Some(read), ..Self::new(keys) })
    }

    /// How much was added up so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When the entry has a form that Keymoat never writes, or is out of order.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Untrusted> {
        match entry {
            Entry::Row(row) => self.add_row(row),
            Entry::Event(event) => self.add_event(leaf_hash(&event.record)),
            Entry::Archived(leaves) => self.add_archived(leaves),
        }
    }

    /// Compares everything with the signed checkpoint.
    ///
    /// # Errors
    /// When the checkpoint is not this vault's, or not of these entries.
    pub fn finish(mut self, note: &str) -> Result<Tallied, Untrusted> {
        let head = verify_note(self.keys, note).ok_or(Untrusted::Checkpoint("not signed by this vault"))?;
        if self.counts.events != head.size {
            let why =
                format!("the log ends at event {}, its checkpoint covers {}", self.counts.events, head.size);
            return Err(Untrusted::Event { seq: self.counts.events.min(head.size), why });
        }
        if self.frontier.root() != head.root {
            return Err(Untrusted::Rewritten { signed: head.size, time: head.time });
        }
        if self.keys.state.commit(&self.digest) != head.state {
            return Err(Untrusted::State("the rows are not those that the checkpoint signs".to_owned()));
        }
        let outside = self.outside_fit(&head);
        Ok(Tallied { head, counts: self.counts, outside })
    }

    fn add_row(&mut self, row: &CopiedRow) -> Result<(), Untrusted> {
        let wrong = |why: &str| Untrusted::State(format!("the {} `{}` {why}", row.kind, row.key));
        if Kind::parse(&row.kind).is_none() {
            return Err(wrong("is of a kind that this program does not know; update this program"));
        }
        let raw = row.raw().ok_or_else(|| wrong("does not have the form that Keymoat gives to rows"))?;
        let name = (row.kind.clone(), row.key.clone());
        if self.counts.events > 0 || self.newest.as_ref().is_some_and(|newest| *newest >= name) {
            return Err(wrong("comes twice or out of order"));
        }
        self.newest = Some(name);
        if let Some(archive) = row.archive() {
            self.archived_below = archive.end;
        }
        self.digest.add(raw.mac(&self.keys.state));
        match row.body {
            Some(_) => self.counts.rows += 1,
            None => self.counts.removed += 1,
        }
        self.counts.change = self.counts.change.max(row.seq);
        Ok(())
    }

    fn add_archived(&mut self, leaves: &[Hash]) -> Result<(), Untrusted> {
        let end = self.counts.events.saturating_add(leaves.len() as u64);
        if leaves.is_empty() || leaves.len() > TILE_WIDTH || end > self.archived_below {
            let why = "it is missing and stands in no archive".to_owned();
            return Err(Untrusted::Event { seq: self.counts.events, why });
        }
        leaves.iter().try_for_each(|leaf| self.add_event(*leaf))?;
        self.counts.archived += leaves.len() as u64;
        Ok(())
    }

    fn add_event(&mut self, leaf: Hash) -> Result<(), Untrusted> {
        let too_long = |error: keymoat_core::tree::TreeError| Untrusted::Event {
            seq: self.counts.events,
            why: error.to_string(),
        };
        self.frontier.append(leaf).map_err(too_long)?;
        self.counts.events += 1;
        let size = self.counts.events;
        let heads = self.outside.iter().flat_map(|outside| &outside.heads);
        for head in heads.filter(|head| head.size == size && head.root != self.frontier.root()) {
            self.rewritten = Some(Untrusted::Rewritten { signed: head.size, time: head.time.clone() });
        }
        Ok(())
    }

    fn outside_fit(&mut self, head: &SignedHead) -> OutsideFit {
        let Some(outside) = &self.outside else { return OutsideFit::Absent };
        let Some(newest) = outside.heads.iter().max_by_key(|outside| outside.size) else {
            return match outside.exists {
                true => OutsideFit::Against(Untrusted::OutsideForeign(outside.path.to_owned())),
                false => OutsideFit::Absent,
            };
        };
        if newest.size > head.size {
            let (found, signed, time) = (head.size, newest.size, newest.time.clone());
            return OutsideFit::Against(Untrusted::Behind { found, signed, time });
        }
        if let Some(rewritten) = self.rewritten.take() {
            return OutsideFit::Against(rewritten);
        }
        match newest.size == head.size && newest.state != head.state {
            true => {
                OutsideFit::Against(Untrusted::Rewritten { signed: newest.size, time: newest.time.clone() })
            }
            false => OutsideFit::Contained,
        }
    }
}

impl SealedStore {
    /// Fills an empty store with the entries that `feed` hands over, in one transaction: all of them, or nothing.
    ///
    /// With `outside`, the checkpoint file there is made before the rows stand, so that at no moment is there a store
    /// that nothing outside answers for.
    ///
    /// # Errors
    /// Those of `feed`; when the store is not empty, when the entries are not those that `note` signs, and those of the
    /// database.
    pub fn fill<E: From<OpenError>>(
        &self,
        keys: &LedgerKeys,
        note: &str,
        outside: Option<&Path>,
        feed: impl FnOnce(&mut dyn FnMut(Entry) -> Result<(), OpenError>) -> Result<(), E>,
    ) -> Result<Counts, E> {
        self.begin_alone()?;
        let filled = match self.is_empty() {
            Ok(true) => self.fill_open_transaction(keys, note, outside, feed),
            Ok(false) => Err(OpenError::Exists(self.data_dir().to_owned()).into()),
            Err(error) => Err(error.into()),
        };
        if filled.is_err()
            && self.db().in_transaction()
            && let Err(error) = self.db().rollback()
        {
            tracing::warn!(%error, "a failed transaction could not be rolled back; closing the database does");
        }
        filled
    }

    fn fill_open_transaction<E: From<OpenError>>(
        &self,
        keys: &LedgerKeys,
        note: &str,
        outside: Option<&Path>,
        feed: impl FnOnce(&mut dyn FnMut(Entry) -> Result<(), OpenError>) -> Result<(), E>,
    ) -> Result<Counts, E> {
        let mut filler = Filler::new(self.db(), keys);
        feed(&mut |entry| {
            filler.tally.add(&entry)?;
            filler.take(entry).map_err(|e| self.failed(e))
        })?;
        let counts = filler.finish(note).map_err(|error| match error {
            FillError::Untrusted(untrusted) => OpenError::Untrusted(untrusted),
            FillError::Database(error) => self.failed(error),
        })?;
        if let Some(path) = outside {
            make_outside(path, note)
                .map_err(|e| OpenError::Io { path: path.to_owned(), why: e.to_string() })?;
        }
        self.db().commit().map_err(|e| self.failed(e))?;
        Ok(counts)
    }

    fn failed(&self, error: DbError) -> OpenError {
        self.fault(error).into()
    }
}

/// Writes entries as they come, many at once, and grows the tree over the events.
struct Filler<'a> {
    db: &'a Db,
    tally: Tally<'a>,
    tiles: Tiles,
    time_ms: i64,
    rows: Vec<CopiedRow>,
    records: Vec<Record>,
    filled: Vec<FullTile>,
}

enum FillError {
    Untrusted(Untrusted),
    Database(DbError),
}

impl<'a> Filler<'a> {
    fn new(db: &'a Db, keys: &'a LedgerKeys) -> Self {
        Self {
            db,
            tally: Tally::new(keys),
            tiles: Tiles::default(),
            time_ms: 0,
            rows: Vec::new(),
            records: Vec::new(),
            filled: Vec::new(),
        }
    }

    /// Takes an entry that has just been added up.
    fn take(&mut self, entry: Entry) -> DbResult<()> {
        match entry {
            Entry::Row(row) => self.rows.push(row),
            Entry::Event(event) => self.take_event(event),
            Entry::Archived(leaves) => leaves.into_iter().for_each(|leaf| self.grow(leaf)),
        }
        match self.rows.len() + self.records.len() + self.filled.len() < WRITTEN_AT_ONCE {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn take_event(&mut self, event: CopiedEvent) {
        let seq = self.tally.counts.events - 1;
        let leaf = leaf_hash(&event.record);
        // A record that cannot be read is kept where an administrator accepted it as it was; it has no columns.
        let record = match Event::parse(&event.record) {
            Ok(parsed) => Record::of(seq, &parsed, event.record, event.personal),
            Err(_) => Record {
                seq,
                time_ms: self.time_ms,
                actor: String::new(),
                environment: None,
                path: None,
                record: event.record,
                personal: event.personal,
            },
        };
        self.time_ms = self.time_ms.max(record.time_ms);
        self.records.push(record);
        self.grow(leaf);
    }

    fn grow(&mut self, leaf: Hash) {
        self.filled.extend(self.tiles.push(leaf));
    }

    fn write(&mut self) -> DbResult<()> {
        let mut commands = Vec::new();
        push_insert(&mut commands, &STATE, self.rows.iter().map(CopiedRow::values));
        push_insert(&mut commands, &EVENTS, self.records.iter().map(Record::values));
        push_insert(&mut commands, &TILES, self.filled.iter().map(FullTile::values));
        self.db.run(commands)?;
        self.rows.clear();
        self.records.clear();
        self.filled.clear();
        Ok(())
    }

    fn finish(mut self, note: &str) -> Result<Counts, FillError> {
        self.write().map_err(FillError::Database)?;
        let digest = self.db.server().map(|_| self.tally.digest);
        let (counts, frontier, keys) = (self.tally.counts, self.tally.frontier.clone(), self.tally.keys);
        self.tally.finish(note).map_err(FillError::Untrusted)?;
        let signed = SignedNote::signed(keys, note, &frontier, counts.change, digest.as_ref());
        self.db.run(vec![signed.command()]).map_err(FillError::Database)?;
        Ok(counts)
    }
}

impl CopiedRow {
    fn of(row: RawRow) -> Result<Self, StoreError> {
        let seq = u64::try_from(row.seq).ok().filter(|_| !row.odd);
        let Some(seq) = seq else {
            let what = format!("{} `{}`", row.kind, row.key);
            return Err(corrupt(what, "it does not have the form that Keymoat gives to rows"));
        };
        Ok(Self { kind: row.kind, key: row.key, seq, body: row.body, blob: row.blob })
    }

    fn values(&self) -> Vec<Value<'_>> {
        vec![
            self.kind.as_str().into(),
            self.key.as_str().into(),
            int(self.seq),
            self.body.as_deref().into(),
            self.blob.as_deref().into(),
        ]
    }

    /// What it says of archives, if it is the row that does.
    fn archive(&self) -> Option<Archive> {
        if self.kind != Kind::Archive.as_str() || self.key != Archive::KEY {
            return None;
        }
        serde_json::from_str(self.body.as_deref()?).ok()
    }

    /// The row in the form that is hashed; `None` when Keymoat never writes such a one.
    fn raw(&self) -> Option<RawRow> {
        let seq = i64::try_from(self.seq).ok().filter(|seq| (1..=SEQ_MAX).contains(seq))?;
        if self.body.is_none() && self.blob.is_some() {
            return None;
        }
        let (kind, key) = (self.kind.clone(), self.key.clone());
        Some(RawRow { kind, key, seq, body: self.body.clone(), blob: self.blob.clone(), odd: false })
    }
}

fn make_outside(path: &Path, note: &str) -> std::io::Result<()> {
    let mut file = OutsideFile::open(path)?;
    file.renew();
    file.write(note)
}

fn corrupt(what: String, why: &str) -> StoreError {
    StoreError::Corrupt { what, why: why.to_owned() }
}

/// Bounds the memory that a copy takes, and keeps the journeys to a server few.
const WRITTEN_AT_ONCE: usize = 1000;
