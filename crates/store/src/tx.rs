//! A write transaction's view: rows can be read and changed, events appended.
//!
//! What it reads includes what earlier members of the same batch wrote. It keeps its effects on the ledger aside
//! until its closure has succeeded.

use std::cell::RefCell;

use keymoat_core::audit::{MAX_EVENT_BYTES, MAX_ROWS, RowChange};
use keymoat_crypto::StateKey;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::ledger::{Draft, Head};
use crate::row::{RawRow, removed_mac};
use crate::{Effect, Kind, Row, StoreError};

/// The transaction that [`crate::Store::run_tx`] hands to its closure.
pub struct Tx<'a> {
    connection: &'a Connection,
    state_key: &'a StateKey,
    path: &'a std::path::Path,
    /// The head with this member's changes of rows.
    pub(crate) head: Head,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) rows: Vec<RowChange>,
    pub(crate) effects: Vec<Effect>,
    /// The first fault of the database, which the closure may have swallowed.
    pub(crate) fault: RefCell<Option<rusqlite::Error>>,
    /// What the rows take in the record, in bytes.
    row_bytes: usize,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        state_key: &'a StateKey,
        path: &'a std::path::Path,
        head: Head,
    ) -> Self {
        Self {
            connection,
            state_key,
            path,
            head,
            drafts: Vec::new(),
            rows: Vec::new(),
            effects: Vec::new(),
            fault: RefCell::new(None),
            row_bytes: 0,
        }
    }

    /// Fails with [`StoreError::Stale`] when the access rules changed since the decision was taken.
    pub fn check_epoch(&self, decided_at: u64) -> Result<(), StoreError> {
        if self.head.epoch == decided_at { Ok(()) } else { Err(StoreError::Stale) }
    }

    /// The live row of this name.
    pub fn row(&self, kind: Kind, key: &str) -> Result<Option<Row>, StoreError> {
        live_row(self.connection, kind, key).map_err(|e| self.fault(e))
    }

    /// The live rows of a kind whose key begins with `prefix`, at most `limit`, in the order of their keys.
    pub fn rows_with_prefix(&self, kind: Kind, prefix: &str, limit: usize) -> Result<Vec<Row>, StoreError> {
        rows_with_prefix(self.connection, kind, prefix, limit).map_err(|e| self.fault(e))
    }

    /// The live rows of a kind that were written after change number `after`, earlier members of the same batch
    /// included.
    pub fn changed_since(&self, kind: Kind, after: u64) -> Result<Vec<Row>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Row>> {
            // The plus keeps the database from walking through all rows of the kind instead of the few new ones.
            self.connection
                .prepare_cached(
                    "SELECT key, seq, body, blob FROM state WHERE seq > ?1 AND +kind = ?2 AND body IS NOT NULL",
                )?
                .query_map(params![after, kind.as_str()], |row| row_of(kind, row))?
                .collect()
        };
        read().map_err(|e| self.fault(e))
    }

    /// Writes a row, new or over an older one.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the key is longer than 1,024 bytes or the transaction has changed 20,000 rows;
    /// or a fault of the database.
    pub fn put(&mut self, kind: Kind, key: &str, body: &str, blob: Option<&[u8]>) -> Result<(), StoreError> {
        self.check_archive(kind, key, Some(body))?;
        let old = self.raw_row(kind, key)?;
        let seq = self.next_change(kind, key)?;
        let row =
            Row { kind, key: key.to_owned(), seq, body: body.to_owned(), blob: blob.map(<[u8]>::to_vec) };
        self.write(&row.key, kind, seq, Some(body), blob)?;
        let mac = row.mac(self.state_key);
        if let Some(old) = old {
            self.head.digest.remove(old.mac(self.state_key));
        }
        self.head.digest.add(mac);
        self.rows.push(RowChange::written(kind.as_str(), key, &mac));
        self.effects.push(Effect::Written(row));
        Ok(())
    }

    /// Writes a row where only a count of uses went down or an end was put off: decisions that were taken before stay
    /// valid, so nobody has to decide again. Whoever counts down reads the row in the same transaction.
    ///
    /// # Errors
    /// As [`Tx::put`].
    pub fn put_count(&mut self, kind: Kind, key: &str, body: &str) -> Result<(), StoreError> {
        let epoch = self.head.epoch;
        self.put(kind, key, body, None)?;
        self.head.epoch = epoch;
        if let Some(Effect::Written(row)) = self.effects.pop() {
            self.effects.push(Effect::Counted(row));
        }
        Ok(())
    }

    /// Removes a row; says whether there was one.
    pub fn remove(&mut self, kind: Kind, key: &str) -> Result<bool, StoreError> {
        let Some(old) = self.raw_row(kind, key)?.filter(|old| old.body.is_some()) else { return Ok(false) };
        self.check_archive(kind, key, None)?;
        let seq = self.next_change(kind, key)?;
        self.write(key, kind, seq, None, None)?;
        self.head.digest.remove(old.mac(self.state_key));
        self.head.digest.add(removed_mac(self.state_key, kind, key, seq));
        self.rows.push(RowChange::removed(kind.as_str(), key));
        self.effects.push(Effect::Removed { kind, key: key.to_owned(), seq });
        Ok(true)
    }

    /// Appends an event; its number is given when the closure has succeeded.
    pub fn append(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    /// Erases the personal data beside these events and returns those beside which there was any; their record has to
    /// name them, see [`crate::ERASED`]. The records stand as they are: they hold a commitment only. What is erased
    /// stays in the write-ahead log until [`crate::Store::scrub`].
    pub fn erase_personal(&mut self, events: &[u64]) -> Result<Vec<u64>, StoreError> {
        self.with_connection(|connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE events SET personal = NULL WHERE seq = ?1 AND personal IS NOT NULL",
            )?;
            let mut erased = Vec::new();
            for seq in events {
                if statement.execute([seq])? > 0 {
                    erased.push(*seq);
                }
            }
            Ok(erased)
        })
    }

    fn next_change(&mut self, kind: Kind, key: &str) -> Result<u64, StoreError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(StoreError::Refused("the key of a row has at most 1024 bytes"));
        }
        if self.rows.len() >= MAX_ROWS {
            return Err(StoreError::Refused("a single transaction may change at most 20000 rows"));
        }
        self.row_bytes += ROW_BYTES + escaped_len(key);
        if self.row_bytes > ROWS_BYTES_MAX {
            return Err(StoreError::Refused("a single transaction changes rows with too long names"));
        }
        self.head.change += 1;
        if kind.decides_access() {
            self.head.epoch = self.head.change;
        }
        Ok(self.head.change)
    }

    fn write(
        &self,
        key: &str,
        kind: Kind,
        seq: u64,
        body: Option<&str>,
        blob: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO state (kind, key, seq, body, blob) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (kind, key) DO UPDATE SET seq = excluded.seq, body = excluded.body, blob = excluded.blob",
            )
            .and_then(|mut statement| statement.execute(params![kind.as_str(), key, seq, body, blob]))
            .map(|_| ())
            .map_err(|e| self.fault(e))
    }

    /// The row of this name, or the mark that it was removed.
    fn raw_row(&self, kind: Kind, key: &str) -> Result<Option<RawRow>, StoreError> {
        self.connection
            .prepare_cached("SELECT kind, key, seq, body, blob FROM state WHERE kind = ?1 AND key = ?2")
            .and_then(|mut statement| statement.query_row([kind.as_str(), key], RawRow::read).optional())
            .map_err(|e| self.fault(e))
    }

    /// Does something with the database itself; a fault counts as this transaction's.
    pub(crate) fn with_connection<R>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StoreError> {
        work(self.connection).map_err(|e| self.fault(e))
    }

    fn fault(&self, error: rusqlite::Error) -> StoreError {
        let translated = StoreError::of_sqlite(&error, self.path);
        self.fault.borrow_mut().get_or_insert(error);
        translated
    }
}

/// The live row of this name.
pub(crate) fn live_row(connection: &Connection, kind: Kind, key: &str) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached(
            "SELECT key, seq, body, blob FROM state WHERE kind = ?1 AND key = ?2 AND body IS NOT NULL",
        )?
        .query_row(params![kind.as_str(), key], |row| row_of(kind, row))
        .optional()
}

/// The live rows of a kind whose key begins with `prefix`.
pub(crate) fn rows_with_prefix(
    connection: &Connection,
    kind: Kind,
    prefix: &str,
    limit: usize,
) -> rusqlite::Result<Vec<Row>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let Some(end) = prefix_end(prefix) else {
        return connection
            .prepare_cached(
                "SELECT key, seq, body, blob FROM state
                 WHERE kind = ?1 AND key >= ?2 AND body IS NOT NULL ORDER BY key LIMIT ?3",
            )?
            .query_map(params![kind.as_str(), prefix, limit], |row| row_of(kind, row))?
            .collect();
    };
    connection
        .prepare_cached(
            "SELECT key, seq, body, blob FROM state
             WHERE kind = ?1 AND key >= ?2 AND key < ?3 AND body IS NOT NULL ORDER BY key LIMIT ?4",
        )?
        .query_map(params![kind.as_str(), prefix, end, limit], |row| row_of(kind, row))?
        .collect()
}

/// The first text, in the order of bytes, after all those that begin with `prefix`; none when there is none.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut rest = prefix;
    while let Some(last) = rest.chars().next_back() {
        rest = &rest[..rest.len() - last.len_utf8()];
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            return Some(format!("{rest}{next}"));
        }
    }
    None
}

/// The bytes that a text takes at most in the JSON of a record.
fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|b| match b {
            0..0x20 | 0x7f => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        })
        .sum()
}

fn row_of(kind: Kind, row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row { kind, key: row.get(0)?, seq: row.get(1)?, body: row.get(2)?, blob: row.get(3)? })
}

/// The longest name of a row: three times a path with its environment and company.
const KEY_BYTES_MAX: usize = 1024;
/// What a changed row takes in a record besides its name: kind, keyed hash and punctuation.
const ROW_BYTES: usize = 64;
/// What the changed rows may take of a record; the rest is far more than its other parts can.
const ROWS_BYTES_MAX: usize = MAX_EVENT_BYTES - 256 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        let check =
            |prefix: &str, expected: Option<&str>| assert_eq!(prefix_end(prefix).as_deref(), expected);
        check("", None);
        check("a", Some("b"));
        check("a/", Some("a0"));
        check("a\u{d7ff}", Some("a\u{e000}"));
        check("a\u{10ffff}", Some("b"));
        check("\u{10ffff}\u{10ffff}", None);
    }

    proptest! {
        #[test]
        fn a_prefix_ends_after_what_begins_with_it(prefix in any::<String>(), more in any::<String>(), other in any::<String>()) {
            let Some(end) = prefix_end(&prefix) else { return Ok(()) };
            let longer = format!("{prefix}{more}");
            prop_assert!(longer < end);
            prop_assert_eq!(other.starts_with(&prefix), other >= prefix && other < end);
        }
    }
}
