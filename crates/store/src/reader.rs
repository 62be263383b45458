//! Reading beside the writer: one consistent view a transaction.

use std::path::Path;

use keymoat_core::audit::{Event, Personal};
use keymoat_core::tree::{self, Hash, leaf_hash};
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter, types::Value};

use crate::ledger::parse_personal;
use crate::row::{RawRow, blob_of};
use crate::tiles::{TILE_WIDTH, is_full, parse_tile, perfect_root};
use crate::tx::{live_row, rows_with_prefix};
use crate::{Kind, Row, StoreError};

/// One consistent view of the store.
pub struct Reader<'a> {
    connection: &'a Connection,
    path: &'a Path,
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

impl<'a> Reader<'a> {
    pub(crate) fn begin(connection: &'a Connection, path: &'a Path) -> Result<Self, StoreError> {
        connection.execute_batch("BEGIN").map_err(|e| StoreError::from_sqlite(e, path))?;
        Ok(Self { connection, path })
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.connection
    }

    /// The live row of this name.
    pub fn row(&self, kind: Kind, key: &str) -> Result<Option<Row>, StoreError> {
        live_row(self.connection, kind, key).map_err(|e| self.fault(e))
    }

    /// The live rows of a kind whose key begins with `prefix`, at most `limit`, in the order of their keys.
    pub fn rows_with_prefix(&self, kind: Kind, prefix: &str, limit: usize) -> Result<Vec<Row>, StoreError> {
        rows_with_prefix(self.connection, kind, prefix, limit).map_err(|e| self.fault(e))
    }

    /// Every live row, in no particular order.
    pub fn live_rows(&self, mut each: impl FnMut(Row)) -> Result<(), StoreError> {
        for_each_raw_row(self.connection, |row| {
            if row.body.is_none() {
                return;
            }
            let name = row.key.clone();
            match row.into_live() {
                Some(row) => each(row),
                None => tracing::warn!(key = %name, "a row that Keymoat did not write is passed over"),
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
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = self.connection.prepare_cached(
                "SELECT key, body FROM state WHERE kind = ?1 AND key > ?2 AND body IS NOT NULL ORDER BY key",
            )?;
            let mut rows = statement.query(params![kind.as_str(), after])?;
            while let Some(row) = rows.next()? {
                if !each(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?) {
                    break;
                }
            }
            Ok(())
        };
        read().map_err(|e| self.fault(e))
    }

    /// The changes after number `after`, oldest first, at most `limit`.
    pub fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        let read = || {
            self.connection
                .prepare_cached(
                    "SELECT seq, kind, key, body FROM state WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                )?
                .query_map(params![integer(after), clamp(limit)], |row| {
                    let kind: String = row.get(1)?;
                    Ok(Change {
                        seq: row.get(0)?,
                        kind: Kind::parse(&kind),
                        key: row.get(2)?,
                        body: row.get(3)?,
                    })
                })?
                .collect::<rusqlite::Result<Vec<Change>>>()
        };
        read().map_err(|e| self.fault(e))
    }

    /// How many events the log has, those that stand in archives included.
    pub fn events_len(&self) -> Result<u64, StoreError> {
        events_len(self.connection).map_err(|e| self.fault(e))
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
        let (sql, values) = events_query(range);
        let mut statement = self.connection.prepare_cached(&sql).map_err(|e| self.fault(e))?;
        let mut rows = statement.query(params_from_iter(values)).map_err(|e| self.fault(e))?;
        while let Some(row) = rows.next().map_err(|e| self.fault(e))? {
            if !each(self.stored_event(row)?) {
                break;
            }
        }
        Ok(())
    }

    /// The numbers of the events of a range whose erasable part is still there, in order, at most `limit`.
    pub fn personal_events(&self, range: &PersonalRange, limit: usize) -> Result<Vec<u64>, StoreError> {
        let read = || -> rusqlite::Result<Vec<u64>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT seq, actor, personal FROM events
                 WHERE seq >= ?1 AND seq < ?2 AND time < ?3 AND personal IS NOT NULL ORDER BY seq",
            )?;
            let before = range.before.map_or(i64::MAX, jiff::Timestamp::as_millisecond);
            let mut rows = statement.query(params![integer(range.from), integer(range.until), before])?;
            let mut found = Vec::new();
            while found.len() < limit
                && let Some(row) = rows.next()?
            {
                let (actor, personal): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
                if range.of.as_ref().is_none_or(|of| of.is_meant(&actor, &personal)) {
                    found.push(row.get(0)?);
                }
            }
            Ok(found)
        };
        read().map_err(|e| self.fault(e))
    }

    /// The erasable parts beside the events `start..end`, in order, at most `limit`; erased ones are left out.
    pub fn personal_beside(
        &self,
        start: u64,
        end: u64,
        limit: usize,
    ) -> Result<Vec<PersonalBeside>, StoreError> {
        let read = || -> rusqlite::Result<Vec<(u64, Vec<u8>)>> {
            self.connection
                .prepare_cached(
                    "SELECT seq, personal FROM events
                     WHERE seq >= ?1 AND seq < ?2 AND personal IS NOT NULL ORDER BY seq LIMIT ?3",
                )?
                .query_map(params![integer(start), integer(end), clamp(limit)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
        };
        let found = read().map_err(|e| self.fault(e))?;
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
        self.connection
            .query_row("SELECT note FROM checkpoint WHERE id = 1", [], |row| row.get(0))
            .optional()
            .map_err(|e| self.fault(e))
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
        build(&mut |level, index| subtree(self.connection, log_size, level, index).ok())
            .map_err(|e| corrupt(e.to_string()))
    }

    fn stored_event(&self, row: &rusqlite::Row<'_>) -> Result<StoredEvent, StoreError> {
        let read = || -> rusqlite::Result<(u64, Vec<u8>, Option<Vec<u8>>)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        };
        let (seq, record, personal) = read().map_err(|e| self.fault(e))?;
        let event = Event::parse(&record)
            .map_err(|e| StoreError::Corrupt { what: format!("event {seq}"), why: e.to_string() })?;
        let personal = personal.as_deref().and_then(parse_personal).map(|(_, personal)| personal);
        Ok(StoredEvent { place: seq, event, record, personal })
    }

    pub(crate) fn fault(&self, error: rusqlite::Error) -> StoreError {
        StoreError::from_sqlite(error, self.path)
    }
}

impl PersonalOf {
    fn is_meant(&self, actor: &str, personal: &[u8]) -> bool {
        let named = || parse_personal(personal).and_then(|(_, personal)| personal.actor_name);
        self.actor.as_deref() == Some(actor) || named().is_some_and(|name| name.as_str() == self.name)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::warn!(%error, "a read transaction could not be ended");
        }
    }
}

fn events_query(range: &EventRange) -> (String, Vec<Value>) {
    let mut sql = "SELECT seq, record, personal FROM events WHERE seq >= ?".to_owned();
    let mut values = vec![integer(range.from)];
    if let Some(before) = range.before {
        sql.push_str(" AND seq < ?");
        values.push(integer(before));
    }
    for (column, value) in [("actor", &range.actor), ("environment", &range.environment)] {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(column);
            sql.push_str(" = ?");
            values.push(Value::Text(value.clone()));
        }
    }
    if let Some(path) = &range.path {
        // A path's own events, and those of the paths below it: `/` is followed by `0`.
        sql.push_str(" AND (path = ? OR (path > ? AND path < ?))");
        values.extend([path.clone(), format!("{path}/"), format!("{path}0")].map(Value::Text));
    }
    sql.push_str(if range.newest_first { " ORDER BY seq DESC" } else { " ORDER BY seq" });
    (sql, values)
}

pub(crate) fn events_len(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<i64> = connection.query_row("SELECT MAX(seq) FROM events", [], |row| row.get(0))?;
    Ok(last.and_then(|last| u64::try_from(last).ok()).map_or(0, |last| last + 1))
}

/// Every row as it stands, the marks of removed ones included.
pub(crate) fn for_each_raw_row(
    connection: &Connection,
    mut each: impl FnMut(RawRow),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!("SELECT {} FROM state", RawRow::COLUMNS))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(RawRow::read(row)?);
    }
    Ok(())
}

/// The root of the full subtree of `2^level` leaves with this number, in a log of `size` events.
pub(crate) fn subtree(connection: &Connection, size: u64, level: u8, index: u64) -> rusqlite::Result<Hash> {
    let (tile_level, below) = (level / 8, level % 8);
    let first = index << below;
    let hashes = (first..first + (1 << below))
        .map(|number| tile_node(connection, size, u32::from(tile_level), number))
        .collect::<rusqlite::Result<Vec<Hash>>>()?;
    Ok(perfect_root(&hashes))
}

fn tile_node(connection: &Connection, size: u64, level: u32, number: u64) -> rusqlite::Result<Hash> {
    let width = TILE_WIDTH as u64;
    if is_full(level, number / width, size) {
        let hashes = tile(connection, level, number / width)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        return Ok(hashes[(number % width) as usize]);
    }
    match level {
        0 => stored_leaf(connection, number),
        _ => tile(connection, level - 1, number)?
            .map(|hashes| perfect_root(&hashes))
            .ok_or(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// A stored tile, if it has the form of one.
pub(crate) fn tile(connection: &Connection, level: u32, number: u64) -> rusqlite::Result<Option<Vec<Hash>>> {
    let bytes: Option<Option<Vec<u8>>> = connection
        .prepare_cached("SELECT hashes FROM tiles WHERE level = ?1 AND number = ?2")?
        .query_row(params![level, number], |row| Ok(blob_of(row.get_ref(0)?, &mut false)))
        .optional()?;
    Ok(bytes.flatten().as_deref().and_then(parse_tile))
}

/// The leaf hash of an event, from its record.
pub(crate) fn stored_leaf(connection: &Connection, seq: u64) -> rusqlite::Result<Hash> {
    let record = connection
        .prepare_cached("SELECT record FROM events WHERE seq = ?1")?
        .query_row([seq], |row| Ok(blob_of(row.get_ref(0)?, &mut false)))?;
    Ok(leaf_hash(&record.unwrap_or_default()))
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn clamp(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
