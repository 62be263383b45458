//! What of the log stands in archives: the mark that says so, and taking the archived records out of the database.
//!
//! The tree is never touched. Archived records leave their hashes behind, in full tiles, so that every proof and every
//! checkpoint stays what it was. Who may archive, and which records have to stay although they are archived, is the
//! caller's; that those which answer for a row stay is seen to by [`Keepers`]. Nothing here writes an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use keymoat_core::audit::{Action, Event};
use keymoat_core::tree::{Frontier, Hash, leaf_hash};
use serde::{Deserialize, Serialize};

use crate::db::{Db, DbError, DbResult, int, limit as at_most};
use crate::reader::{events_len, subtree};
use crate::tiles::TILE_WIDTH;
use crate::{EventRange, Kind, Reader, Store, StoreError, Tx};

/// How much of the log stands in archives: the body of the one row of [`Kind::Archive`], covered by the signed digest
/// of the rows like any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Records with a lower number are in archives; a multiple of 256, so that their tiles are full.
    pub end: u64,
    /// Records with a lower number were taken out of the database; less than `end` while that goes on.
    pub thinned: u64,
    /// The records below `thinned` that stayed, once `thinned` has come up to `end`.
    pub kept: Kept,
    /// When the newest of the archived records was written.
    pub until: Timestamp,
    /// When it was archived last.
    pub at: Timestamp,
    /// Who archived last, by his id.
    pub by: String,
}

/// Which archived records stand in the database all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// How many.
    pub records: u64,
    /// The root of the RFC 6962 tree over their numbers (eight bytes each, big-endian), in base64.
    pub numbers: String,
}

/// Finds the records that must not go: the last that wrote or removed each row, and the newest of each kind that a
/// caller names. It is shown every record of the log, oldest first.
#[derive(Debug, Default)]
pub struct Keepers {
    rows: BTreeMap<(String, String), u64>,
    others: BTreeMap<String, u64>,
}

impl Archive {
    /// The key of its row.
    pub const KEY: &'static str = "log";

    /// Whether archived records are still to be taken out of the database.
    pub fn is_unfinished(&self) -> bool {
        self.thinned < self.end
    }

    fn parse(body: &str) -> Option<Self> {
        serde_json::from_str(body).ok()
    }

    /// Whether it may take the place of `old` in a log of `size` records.
    pub(crate) fn check(&self, old: Option<&Self>, size: u64) -> Result<(), StoreError> {
        let old_end = old.map_or(0, |old| old.end);
        let old_thinned = old.map_or(0, |old| old.thinned);
        if self.end < old_end || self.thinned < old_thinned {
            return Err(StoreError::Refused("what is archived stays archived"));
        }
        if !self.end.is_multiple_of(TILE_WIDTH as u64) || self.end > size || self.thinned > self.end {
            return Err(StoreError::Refused("an archive ends with a full tile of the log"));
        }
        Ok(())
    }
}

impl Kept {
    /// These numbers, lowest first.
    pub(crate) fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut counter = KeptCounter::default();
        numbers.into_iter().for_each(|number| counter.add(number));
        counter.finish()
    }
}

/// Adds up the numbers of kept records.
#[derive(Debug, Default)]
pub(crate) struct KeptCounter(Frontier);

impl KeptCounter {
    pub(crate) fn add(&mut self, number: u64) {
        if self.0.append(leaf_hash(&number.to_be_bytes())).is_err() {
            tracing::error!("more records are kept than a log may have");
        }
    }

    pub(crate) fn finish(&self) -> Kept {
        Kept { records: self.0.size(), numbers: BASE64.encode(self.0.root()) }
    }
}

impl Keepers {
    /// Looks at a record; of those with the same `name` the newest stays.
    pub fn see(&mut self, place: u64, event: &Event, name: Option<String>) {
        for row in &event.rows {
            self.rows.insert((row.kind.clone(), row.key.clone()), place);
        }
        if let Some(name) = name {
            self.others.insert(name, place);
        }
        // They say why personal data beside records that stay is gone.
        if matches!(event.action, Action::PersonalErase | Action::AuditAcceptRestore) {
            self.others.insert(format!("erased {place}"), place);
        }
    }

    /// The numbers below `end` of the records that stay.
    pub fn below(&self, end: u64) -> BTreeSet<u64> {
        let places = self.rows.values().chain(self.others.values());
        places.copied().filter(|place| *place < end).collect()
    }
}

impl Store {
    /// Shows every record of the log, a piece at a time, to keepers; of the records that `name` gives the same name the
    /// newest stays.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn keepers(
        &self,
        name: impl Fn(&Event) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Keepers, StoreError> {
        let name = Arc::new(name);
        let (mut keepers, mut from) = (Keepers::default(), 0);
        loop {
            let name = Arc::clone(&name);
            let piece = EventRange { from, ..EventRange::default() };
            let (seen, next) = self
                .read(move |reader| {
                    let (mut next, mut seen) = (None, 0);
                    reader.events(&piece, |stored| {
                        keepers.see(stored.place, &stored.event, name(&stored.event));
                        seen += 1;
                        next = Some(stored.place + 1).filter(|_| seen == SEEN_AT_ONCE);
                        seen < SEEN_AT_ONCE
                    })?;
                    Ok((keepers, next))
                })
                .await?;
            keepers = seen;
            match next {
                Some(next) => from = next,
                None => return Ok(keepers),
            }
        }
    }

    /// Takes the records below `end` out of the database, but for those to `keep`, in many short transactions, so that
    /// others go on writing. Killed at any moment, it has taken out a part, and goes on when it is called again.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when `end` is beyond what is archived; those of the database.
    pub async fn drop_archived(&self, end: u64, keep: BTreeSet<u64>) -> Result<(), StoreError> {
        let mut from = 0;
        loop {
            let present = self.read(move |reader| reader.present(from, end, DROPPED_AT_ONCE)).await?;
            let Some(last) = present.last().copied() else { return Ok(()) };
            let places: Vec<u64> = present.into_iter().filter(|place| !keep.contains(place)).collect();
            if !places.is_empty() {
                self.run_tx("drop_archived", move |tx| tx.drop_records(&places)).await?;
            }
            from = last + 1;
        }
    }
}

impl Reader<'_> {
    /// What of the log stands in archives; none when nothing does.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the row that says it was edited.
    pub fn archive(&self) -> Result<Option<Archive>, StoreError> {
        self.row(Kind::Archive, Archive::KEY)?.map(|row| parsed(&row.body)).transpose()
    }

    /// The right edge of the tree over the first `size` records.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when there are fewer records than that.
    pub fn frontier(&self, size: u64) -> Result<Frontier, StoreError> {
        let log_size = self.events_len()?;
        if size > log_size {
            return Err(StoreError::Refused("the audit log does not have that many events"));
        }
        let lookup = |level, index| subtree(self.db(), log_size, level, index).ok();
        Frontier::from_subtrees(size, lookup)
            .map_err(|e| StoreError::Corrupt { what: "audit tree".to_owned(), why: e.to_string() })
    }

    /// Where an archive that begins at `start` ends when it takes only records from before `cutoff`: with a full tile,
    /// and at `start` when there is nothing to take.
    ///
    /// # Errors
    /// Those of the database.
    pub fn archivable(&self, start: u64, cutoff: Timestamp) -> Result<u64, StoreError> {
        let find = || -> DbResult<u64> {
            let younger = self.db().query_one(
                "SELECT seq FROM events WHERE seq >= ?1 AND time >= ?2 ORDER BY seq LIMIT 1",
                &[int(start), cutoff.as_millisecond().into()],
                |row| row.count(0),
            )?;
            let end = younger.map_or_else(|| events_len(self.db()), Ok)?;
            Ok((end - end % TILE_WIDTH as u64).max(start))
        };
        find().map_err(|e| self.fault(e))
    }

    /// The numbers of the records in `start..end` that stand in the database, lowest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub fn present(&self, start: u64, end: u64, limit: usize) -> Result<Vec<u64>, StoreError> {
        self.db()
            .query(
                "SELECT seq FROM events WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
                &[int(start), int(end), at_most(limit)],
                |row| row.count(0),
            )
            .map_err(|e| self.fault(e))
    }
}

impl Tx<'_> {
    /// What of the log stands in archives; none when nothing does.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the row that says it was edited.
    pub fn archive(&self) -> Result<Option<Archive>, StoreError> {
        self.row(Kind::Archive, Archive::KEY)?.map(|row| parsed(&row.body)).transpose()
    }

    /// Writes how much of the log stands in archives. Like any change it needs a record beside it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when it would go back, end within a tile or beyond the log.
    pub fn put_archive(&mut self, archive: &Archive) -> Result<(), StoreError> {
        let body =
            serde_json::to_string(archive).expect("the form has string keys and no failing serializers");
        self.put(Kind::Archive, Archive::KEY, &body, None)
    }

    /// Takes records out of the database that stand in an archive, with the personal data beside them, and says how
    /// many were there. Their hashes stay in the tree. What was taken out stays in the write-ahead log until
    /// [`crate::Store::scrub`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] when one of them is in no archive; nothing was taken out then.
    pub fn drop_records(&mut self, places: &[u64]) -> Result<u64, StoreError> {
        // Another node may have finished meanwhile, and said which ones stay.
        let end = self.archive()?.filter(Archive::is_unfinished).map_or(0, |archive| archive.end);
        if places.iter().any(|place| *place >= end) {
            return Err(StoreError::Refused("a record that is in no archive stays where it is"));
        }
        let mut dropped = 0;
        for piece in places.chunks(LOOKED_UP_AT_ONCE) {
            let (Some(first), Some(last)) = (piece.iter().min(), piece.iter().max()) else { continue };
            let present = self.with_db(|db| {
                db.query(
                    "SELECT seq FROM events WHERE seq >= ?1 AND seq <= ?2",
                    &[int(*first), int(*last)],
                    |row| row.count(0),
                )
            })?;
            let present: BTreeSet<u64> = present.into_iter().collect();
            let there = piece.iter().filter(|place| present.contains(place) && !self.is_dropped(**place));
            let there: Vec<u64> = there.copied().collect();
            dropped += there.len() as u64;
            self.written.dropped.extend(there);
        }
        Ok(dropped)
    }

    /// Which records below `end` stand in the database.
    ///
    /// # Errors
    /// Those of the database.
    pub fn kept_below(&self, end: u64) -> Result<Kept, StoreError> {
        let numbers = self.with_db(|db| {
            db.query("SELECT seq FROM events WHERE seq >= 0 AND seq < ?1 ORDER BY seq", &[int(end)], |row| {
                row.count(0)
            })
        })?;
        Ok(Kept::of(numbers.into_iter().filter(|number| !self.is_dropped(*number))))
    }

    /// Refuses a change of the mark that goes back.
    pub(crate) fn check_archive(&self, kind: Kind, key: &str, body: Option<&str>) -> Result<(), StoreError> {
        if kind != Kind::Archive || key != Archive::KEY {
            return Ok(());
        }
        let Some(body) = body else {
            return Err(StoreError::Refused("what is archived stays archived"));
        };
        parsed(body)?.check(self.archive()?.as_ref(), self.head.size())
    }
}

/// The mark as it stands; none when there is none, or none in a form that Keymoat writes.
pub(crate) fn stored_archive(db: &Db) -> DbResult<Option<Archive>> {
    let body = db.query_one(
        "SELECT body FROM state WHERE kind = ?1 AND key = ?2",
        &[Kind::Archive.as_str().into(), Archive::KEY.into()],
        |row| {
            let mut odd = false;
            let body = row.any_text(0, &mut odd)?;
            Ok(body.filter(|_| !odd))
        },
    )?;
    Ok(body.flatten().as_deref().and_then(Archive::parse))
}

/// Where the archived records of a log of `size` events end, whatever the mark says: never within a tile.
pub(crate) fn archived_below(archive: Option<&Archive>, size: u64) -> u64 {
    let end = archive.map_or(0, |archive| archive.end).min(size);
    end - end % TILE_WIDTH as u64
}

/// Hands the hashes of the leaves `start..end` to `each`, from full tiles; `None` where a tile is missing or torn.
pub(crate) fn tile_leaves<E: From<DbError>>(
    db: &Db,
    start: u64,
    end: u64,
    mut each: impl FnMut(u64, Option<Hash>) -> Result<(), E>,
) -> Result<(), E> {
    let width = TILE_WIDTH as u64;
    let mut place = start;
    while place < end {
        let number = place / width;
        let hashes = crate::reader::tile(db, 0, number)?;
        let last = end.min((number + 1) * width);
        for place in place..last {
            each(place, hashes.as_ref().map(|hashes| hashes[(place % width) as usize]))?;
        }
        place = last;
    }
    Ok(())
}

fn parsed(body: &str) -> Result<Archive, StoreError> {
    Archive::parse(body).ok_or_else(|| StoreError::Corrupt {
        what: format!("archive `{}`", Archive::KEY),
        why: "it does not say what is archived".to_owned(),
    })
}

/// Keeps each read short, so that the write-ahead log can be emptied meanwhile.
const SEEN_AT_ONCE: usize = 20_000;
/// Keeps each transaction short: others wait for it.
const DROPPED_AT_ONCE: usize = 5_000;
/// Keeps an answer short.
const LOOKED_UP_AT_ONCE: usize = 5_000;
