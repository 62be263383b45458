//! Reading beside the writer: one consistent view a transaction.

use crate::db::{Columns, Db, DbError, DbResult, Scan, Value, int, limit as at_most};
use crate::ledger::parse_personal;
use crate::row::RawRow;
use crate::tiles::{TILE_WIDTH, is_full, parse_tile, perfect_root};
use crate::tx::{live_row, rows_with_prefix};
use crate::{Kind, Row, StoreError};
use keymoat_core::audit::{Event, Personal};
use keymoat_core::tree::{self, Hash, leaf_hash};

/// One consistent view of the store.
pub struct Reader<'a> {
    db: &'a Db,
}

/// An event as stored.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its place in the log, from 0: the number in its record, but where a loss of events was accepted.
    pub place: u64,
    /// The event.
    pub event: Event,
    /// The canonical text that the tree commits to.
    pub record: Vec<u8>,
    /// The erasable part, unless it was erased or there was none.
    pub personal: Option<Personal>,
}

/// Which events to read; everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct EventRange {
    /// Only events of this actor (its id).
    pub actor: Option<String>,
    /// Only events about this environment.
    pub environment: Option<String>,
    /// Only events about this path or one below it; needs `environment` to be quick.
    pub path: Option<String>,
    /// Only events with a number of at least this.
    pub from: u64,
    /// Only events with a number below this.
    pub before: Option<u64>,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

/// Whose erasable parts to look for; everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct PersonalRange {
    /// Only of whom these say: the events' actor (its id), or the name that was written down beside them.
    pub of: Option<PersonalOf>,
    /// Only of events from before this time.
    pub before: Option<jiff::Timestamp>,
    /// Only of events with a number of at least this.
    pub from: u64,
    /// Only of events with a number below this.
    pub until: u64,
}

/// The erasable part beside one event, with the salt that its commitment was made with.
#[derive(Debug, Clone)]
pub struct PersonalBeside {
    /// The event's number.
    pub place: u64,
    /// The salt.
    pub salt: [u8; 32],
    /// Name, address and user agent.
    pub personal: Personal,
}

/// Somebody, by the id of his account and by his name: an account that is gone, or was made anew, left its name only.
#[derive(Debug, Clone)]
pub struct PersonalOf {
    /// The actor of his events, while the account is known.
    pub actor: Option<String>,
    /// His name.
    pub name: String,
}

/// A change of one state row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub seq: u64,
    /// What kind of row; `None` for a kind that this program does not know.
    pub kind: Option<Kind>,
    /// The row's key.
    pub key: String,
    /// The row as it is now; `None` when it was removed.
    pub body: Option<String>,
}

/// How a server looks after what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHealth {
    /// Its address, without what is secret in it.
    pub address: String,
    /// Its version, in its own words.
    pub version: String,
    /// Whether it syncs its log before it says that a transaction is committed (`fsync`, `full_page_writes`).
    pub syncs: bool,
    /// What a commit waits for (`synchronous_commit`).
    pub waits_for: String,
    /// Standbys that follow it.
    pub standbys: u64,
    /// Those of them that a commit waits for.
    pub waited_for: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn begin(db: &'a Db) -> Result<Self, StoreError> {
        db.begin_read().map_err(|e| db.fault(&e))?;
        Ok(Self { db })
    }

    pub(crate) fn db(&self) -> &Db {
        self.db
    }

    /// How the server looks after what it is given; none when the database is a file.
    ///
    /// # Errors
    /// Those of the database.
    pub fn server_health(&self) -> Result<Option<ServerHealth>, StoreError> {
        if self.db.server().is_none() {
            return Ok(None);
        }
        let settings = self.db.query_one(
            "SELECT current_setting('server_version'), current_setting('synchronous_commit'),
                    current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'",
            &[],
            |row| Ok((row.text(0)?, row.text(1)?, row.flag(2)?)),
        );
        // Whoever may not see how the standbys follow sees that they do.
        let standbys = self.db.query_one(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) FROM pg_stat_replication",
            &[],
            |row| Ok((row.count(0)?, row.count(1)?)),
        );
        let (version, waits_for, syncs) =
            settings.map_err(|e| self.fault(e))?.ok_or_else(|| self.fault(DbError::NoRow))?;
        let (standbys, waited_for) = standbys.map_err(|e| self.fault(e))?.unwrap_or_default();
        let address = self.db.name().display().to_string();
        Ok(Some(ServerHealth { address, version, syncs, waits_for, standbys, waited_for }))
    }

    /// The live row of this name.
    pub fn row(&self, kind: Kind, key: &str) -> Result<Option<Row>, StoreError> {
        live_row(self.db, kind, key).map_err(|e| self.fault(e))
    }

    /// The live rows of a kind whose key begins with `prefix`, at most `limit`, in the order of their keys.
    pub fn rows_with_prefix(&self, kind: Kind, prefix: &str, limit: usize) -> Result<Vec<Row>, StoreError> {
        rows_with_prefix(self.db, kind, prefix, limit).map_err(|e| self.fault(e))
    }

    /// Every live row, in no particular order.
    pub fn live_rows(&self, mut each: impl FnMut(Row)) -> Result<(), StoreError> {
        for_each_raw_row(self.db, |row| {
            if row.body.is_none() {
                return;
            }
            match row.into_live() {
                Ok(row) => each(row),
                Err(row) => tracing::warn!(key = %row.key, "a row that Keymoat did not write is passed over"),
            }
        })
        .map_err(|e| self.fault(e))
    }

    /// Hands key and body of the live rows of a kind to `each`, in the order of their keys from the first one after
    /// `after`, until it says `false`. Blobs are not read.
    pub fn bodies(
        &self,
        kind: Kind,
        after: &str,
        mut each: impl FnMut(&str, &str) -> bool,
    ) -> Result<(), StoreError> {
        let scan = Scan {
            columns: "key, body",
            table: "state",
            filter: "kind = ?1 AND key > ?2 AND body IS NOT NULL",
            params: vec![kind.as_str().into(), after.into()],
            key: &["key"],
            descending: false,
        };
        self.db
            .scan(&scan, |row| Ok::<_, DbError>(each(&row.text(0)?, &row.text(1)?)))
            .map_err(|e| self.fault(e))
    }

    /// The changes after number `after`, oldest first, at most `limit`.
    pub fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        self.db
            .query(
                "SELECT seq, kind, key, body FROM state WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                &[int(after), at_most(limit)],
                |row| {
                    let kind = row.text(1)?;
                    Ok(Change {
                        seq: row.count(0)?,
                        kind: Kind::parse(&kind),
                        key: row.text(2)?,
                        body: row.maybe_text(3)?,
                    })
                },
            )
            .map_err(|e| self.fault(e))
    }

    /// How many events the log has, those that stand in archives included.
    pub fn events_len(&self) -> Result<u64, StoreError> {
        events_len(self.db).map_err(|e| self.fault(e))
    }

    /// One event.
    pub fn event(&self, seq: u64) -> Result<Option<StoredEvent>, StoreError> {
        let mut found = None;
        let range = EventRange { from: seq, before: Some(seq.saturating_add(1)), ..EventRange::default() };
        self.events(&range, |event| {
            found = Some(event);
            false
        })?;
        Ok(found)
    }

    /// Hands the events of a range to `each`, in order, until it says `false`.
    pub fn events(
        &self,
        range: &EventRange,
        mut each: impl FnMut(StoredEvent) -> bool,
    ) -> Result<(), StoreError> {
        let below = range.path.as_ref().map(|path| [format!("{path}/"), format!("{path}0")]);
        let (filter, params) = events_filter(range, below.as_ref());
        let scan = Scan {
            columns: "seq, record, personal",
            table: "events",
            filter: &filter,
            params,
            key: &["seq"],
            descending: range.newest_first,
        };
        self.db
            .scan(&scan, |row| Ok(each(stored_event(row)?)))
            .map_err(|error: ReadError| error.into_store_error(self.db))
    }

    /// The numbers of the events of a range whose erasable part is still there, in order, at most `limit`.
    pub fn personal_events(&self, range: &PersonalRange, limit: usize) -> Result<Vec<u64>, StoreError> {
        let before = range.before.map_or(i64::MAX, jiff::Timestamp::as_millisecond);
        let scan = Scan {
            columns: "seq, actor, personal",
            table: "events",
            filter: "seq >= ?1 AND seq < ?2 AND time < ?3 AND personal IS NOT NULL",
            params: vec![int(range.from), int(range.until), before.into()],
            key: &["seq"],
            descending: false,
        };
        let mut found = Vec::new();
        self.db
            .scan(&scan, |row| {
                if found.len() >= limit {
                    return Ok(false);
                }
                let (actor, personal) = (row.text(1)?, row.blob(2)?);
                if range.of.as_ref().is_none_or(|of| of.is_meant(&actor, &personal)) {
                    found.push(row.count(0)?);
                }
                Ok::<_, DbError>(true)
            })
            .map_err(|e| self.fault(e))?;
        Ok(found)
    }

    /// The erasable parts beside the events `start..end`, in order, at most `limit`; erased ones are left out.
    pub fn personal_beside(
        &self,
        start: u64,
        end: u64,
        limit: usize,
    ) -> Result<Vec<PersonalBeside>, StoreError> {
        let found = self
            .db
            .query(
                "SELECT seq, personal FROM events
                 WHERE seq >= ?1 AND seq < ?2 AND personal IS NOT NULL ORDER BY seq LIMIT ?3",
                &[int(start), int(end), at_most(limit)],
                |row| Ok((row.count(0)?, row.blob(1)?)),
            )
            .map_err(|e| self.fault(e))?;
        let parts = found.into_iter().map(|(place, bytes)| {
            let (salt, personal) = parse_personal(&bytes).ok_or_else(|| StoreError::Corrupt {
                what: format!("event {place}"),
                why: "what stands beside it is no name and address".to_owned(),
            })?;
            Ok(PersonalBeside { place, salt, personal })
        });
        parts.collect()
    }

    /// The signed note of the newest checkpoint.
    pub fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        let note = self.db.query_one("SELECT note FROM checkpoint WHERE id = 1", &[], |row| row.text(0));
        Ok(note.map_err(|e| self.fault(e))?.filter(|note| !note.is_empty()))
    }

    /// The RFC 6962 proof that event `seq` is in the tree of the first `size` events.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when there are fewer events than that.
    pub fn inclusion_proof(&self, seq: u64, size: u64) -> Result<Vec<Hash>, StoreError> {
        if seq >= size {
            return Err(StoreError::Refused("there is no such event in a tree of that size"));
        }
        self.proof(size, |lookup| tree::inclusion_proof(seq, size, lookup))
    }

    /// The RFC 6962 proof that the tree of `size` events begins with that of `old_size`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when there are fewer events than that.
    pub fn consistency_proof(&self, old_size: u64, size: u64) -> Result<Vec<Hash>, StoreError> {
        if old_size > size {
            return Err(StoreError::Refused("a smaller tree cannot continue a larger one"));
        }
        self.proof(size, |lookup| tree::consistency_proof(old_size, size, lookup))
    }

    fn proof(
        &self,
        size: u64,
        build: impl FnOnce(&mut dyn FnMut(u8, u64) -> Option<Hash>) -> Result<Vec<Hash>, tree::TreeError>,
    ) -> Result<Vec<Hash>, StoreError> {
        let log_size = self.events_len()?;
        if size > log_size {
            return Err(StoreError::Refused("the audit log does not have that many events"));
        }
        let corrupt = |why: String| StoreError::Corrupt { what: "audit tree".to_owned(), why };
        build(&mut |level, index| subtree(self.db, log_size, level, index).ok())
            .map_err(|e| corrupt(e.to_string()))
    }

    pub(crate) fn fault(&self, error: DbError) -> StoreError {
        self.db.fault(&error)
    }
}

/// A fault of the database, or an event in it that is torn.
enum ReadError {
    Database(DbError),
    Store(StoreError),
}

impl From<DbError> for ReadError {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl ReadError {
    fn into_store_error(self, db: &Db) -> StoreError {
        match self {
            Self::Database(error) => db.fault(&error),
            Self::Store(error) => error,
        }
    }
}

fn stored_event(row: &Columns<'_>) -> Result<StoredEvent, ReadError> {
    let (seq, record, personal) = (row.count(0)?, row.blob(1)?, row.maybe_blob(2)?);
    let event = Event::parse(&record).map_err(|e| {
        ReadError::Store(StoreError::Corrupt { what: format!("event {seq}"), why: e.to_string() })
    })?;
    let personal = personal.as_deref().and_then(parse_personal).map(|(_, personal)| personal);
    Ok(StoredEvent { place: seq, event, record, personal })
}

impl PersonalOf {
    fn is_meant(&self, actor: &str, personal: &[u8]) -> bool {
        let named = || parse_personal(personal).and_then(|(_, personal)| personal.actor_name);
        self.actor.as_deref() == Some(actor) || named().is_some_and(|name| name.as_str() == self.name)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.db.rollback() {
            tracing::warn!(%error, "a read transaction could not be ended");
        }
    }
}

/// What must hold of the events of a range; `below` are the ends of the paths below its own.
fn events_filter<'a>(range: &'a EventRange, below: Option<&'a [String; 2]>) -> (String, Vec<Value<'a>>) {
    let mut filter = "seq >= ?1".to_owned();
    let mut params = vec![int(range.from)];
    if let Some(before) = range.before {
        params.push(int(before));
        filter.push_str(&format!(" AND seq < ?{}", params.len()));
    }
    for (column, value) in [("actor", &range.actor), ("environment", &range.environment)] {
        if let Some(value) = value {
            params.push(value.as_str().into());
            filter.push_str(&format!(" AND {column} = ?{}", params.len()));
        }
    }
    if let (Some(path), Some([from, to])) = (&range.path, below) {
        // A path's own events, and those of the paths below it: `/` is followed by `0`.
        let first = params.len() + 1;
        filter.push_str(&format!(
            " AND (path = ?{first} OR (path > ?{} AND path < ?{}))",
            first + 1,
            first + 2
        ));
        params.extend([path, from, to].map(|text| Value::Text(text)));
    }
    (filter, params)
}

pub(crate) fn events_len(db: &Db) -> DbResult<u64> {
    let last = db.query_one("SELECT MAX(seq) FROM events", &[], |row| row.maybe_int(0))?;
    Ok(last.flatten().and_then(|last| u64::try_from(last).ok()).map_or(0, |last| last + 1))
}

/// Every row as it stands, the marks of removed ones included.
pub(crate) fn for_each_raw_row(db: &Db, mut each: impl FnMut(RawRow)) -> DbResult<()> {
    let scan = Scan {
        columns: RawRow::COLUMNS,
        table: "state",
        filter: "TRUE",
        params: Vec::new(),
        key: &["kind", "key"],
        descending: false,
    };
    db.scan(&scan, |row| {
        each(RawRow::read(row)?);
        Ok::<_, DbError>(true)
    })
}

/// The root of the full subtree of `2^level` leaves with this number, in a log of `size` events.
pub(crate) fn subtree(db: &Db, size: u64, level: u8, index: u64) -> DbResult<Hash> {
    let (tile_level, below) = (level / 8, level % 8);
    let first = index << below;
    let hashes = (first..first + (1 << below))
        .map(|number| tile_node(db, size, u32::from(tile_level), number))
        .collect::<DbResult<Vec<Hash>>>()?;
    Ok(perfect_root(&hashes))
}

fn tile_node(db: &Db, size: u64, level: u32, number: u64) -> DbResult<Hash> {
    let width = TILE_WIDTH as u64;
    if is_full(level, number / width, size) {
        let hashes = tile(db, level, number / width)?.ok_or(DbError::NoRow)?;
        return Ok(hashes[(number % width) as usize]);
    }
    match level {
        0 => stored_leaf(db, number),
        _ => tile(db, level - 1, number)?.map(|hashes| perfect_root(&hashes)).ok_or(DbError::NoRow),
    }
}

/// A stored tile, if it has the form of one.
pub(crate) fn tile(db: &Db, level: u32, number: u64) -> DbResult<Option<Vec<Hash>>> {
    let bytes = db.query_one(
        "SELECT hashes FROM tiles WHERE level = ?1 AND number = ?2",
        &[Value::Int(level.into()), int(number)],
        |row| row.any_blob(0, &mut false),
    )?;
    Ok(bytes.flatten().as_deref().and_then(parse_tile))
}

/// The leaf hash of an event, from its record.
pub(crate) fn stored_leaf(db: &Db, seq: u64) -> DbResult<Hash> {
    let record = db
        .query_one("SELECT record FROM events WHERE seq = ?1", &[int(seq)], |row| {
            row.any_blob(0, &mut false)
        })?
        .ok_or(DbError::NoRow)?;
    Ok(leaf_hash(&record.unwrap_or_default()))
}
