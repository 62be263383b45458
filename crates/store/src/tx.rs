//! A write transaction's view: rows can be read and changed, events appended.
//!
//! What it reads includes what earlier members of the same batch wrote. It keeps its effects on the ledger aside
//! until its closure has succeeded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, Pending, Rows};
use crate::db::postgres::Connection;
use crate::db::{Columns, Db, DbError, DbResult, int, limit as at_most};
use crate::known::Known;
use crate::ledger::{Draft, Head};
use crate::row::{RawRow, removed_mac};
use crate::{Effect, Kind, Row, StoreError};
use keymoat_core::audit::{MAX_EVENT_BYTES, MAX_ROWS, RowChange};
use keymoat_crypto::StateKey;

/// The transaction that [`crate::Store::run_tx`] hands to its closure.
pub struct Tx<'a> {
    db: &'a Db,
    state_key: &'a StateKey,
    /// What earlier members of the batch wrote.
    batch: &'a Batch,
    known: &'a Known,
    /// What this member writes.
    pub(crate) written: Written,
    /// The head with this member's changes of rows.
    pub(crate) head: Head,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) rows: Vec<RowChange>,
    pub(crate) effects: Vec<Effect>,
    /// The first fault of the database, which the closure may have swallowed.
    pub(crate) fault: RefCell<Option<DbError>>,
    /// What the rows take in the record, in bytes.
    row_bytes: usize,
}

/// What one member writes besides its records.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) rows: Rows,
    pub(crate) erased: BTreeSet<u64>,
    pub(crate) dropped: BTreeSet<u64>,
    pub(crate) unread: BTreeSet<(Kind, String)>,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(
        db: &'a Db,
        state_key: &'a StateKey,
        batch: &'a Batch,
        known: &'a Known,
        head: Head,
    ) -> Self {
        Self {
            db,
            state_key,
            batch,
            known,
            written: Written::default(),
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
        match self.pending(kind, key) {
            Some(pending) => Ok(pending.raw(kind, key).into_live().ok()),
            None => {
                let row = live_row(self.db, kind, key).map_err(|e| self.fault(e))?;
                self.known.check(kind, key, row.as_ref(), self.state_key).map_err(|e| self.fault(e))?;
                Ok(row)
            }
        }
    }

    /// Rows that were read, if they are as they were written.
    fn checked(&self, rows: Vec<Row>) -> Result<Vec<Row>, StoreError> {
        for row in &rows {
            self.known.check(row.kind, &row.key, Some(row), self.state_key).map_err(|e| self.fault(e))?;
        }
        Ok(rows)
    }

    /// The live rows of a kind whose key begins with `prefix`, at most `limit`, in the order of their keys.
    pub fn rows_with_prefix(&self, kind: Kind, prefix: &str, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.rows_in(kind, prefix, prefix_end(prefix).as_deref(), limit)
    }

    /// The live rows of a kind whose key is `from` or after it and before `until`, in the order of bytes, at most
    /// `limit`.
    pub fn rows_between(
        &self,
        kind: Kind,
        from: &str,
        until: &str,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.rows_in(kind, from, Some(until), limit)
    }

    fn rows_in(
        &self,
        kind: Kind,
        from: &str,
        until: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let pending: BTreeMap<&str, &Pending> = self.pending_in(kind, from, until).collect();
        // Each pending row may take the place of a stored one.
        let stored = rows_in(self.db, kind, from, until, limit.saturating_add(pending.len()))
            .map_err(|e| self.fault(e))?;
        let stored = self.checked(stored)?;
        if pending.is_empty() {
            return Ok(stored);
        }
        let stored = stored.into_iter().filter(|row| !pending.contains_key(row.key.as_str()));
        let pending = pending.iter().filter_map(|(key, pending)| pending.raw(kind, key).into_live().ok());
        let mut rows: Vec<Row> = stored.chain(pending).collect();
        rows.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        rows.truncate(limit);
        Ok(rows)
    }

    /// The live rows of a kind that were written after change number `after`, earlier members of the same batch
    /// included.
    pub fn changed_since(&self, kind: Kind, after: u64) -> Result<Vec<Row>, StoreError> {
        let stored = self
            .db
            .query(
                // The concatenation keeps the database from walking through all rows of the kind instead of the few
                // new ones.
                "SELECT key, seq, body, blob FROM state WHERE seq > ?1 AND kind || '' = ?2 AND body IS NOT NULL",
                &[int(after), kind.as_str().into()],
                |row| row_of(kind, row),
            )
            .map_err(|e| self.fault(e))?;
        let stored = self.checked(stored)?;
        let pending: BTreeMap<&str, &Pending> = self.pending_in(kind, "", None).collect();
        let stored = stored.into_iter().filter(|row| !pending.contains_key(row.key.as_str()));
        let pending = pending.iter().filter(|(_, pending)| pending.seq > after);
        let pending = pending.filter_map(|(key, pending)| pending.raw(kind, key).into_live().ok());
        Ok(stored.chain(pending).collect())
    }

    fn pending(&self, kind: Kind, key: &str) -> Option<&Pending> {
        self.written.rows.get(kind, key).or_else(|| self.batch.rows.get(kind, key))
    }

    /// The newer of two wins where both are collected.
    fn pending_in<'b>(
        &'b self,
        kind: Kind,
        from: &'b str,
        until: Option<&'b str>,
    ) -> impl Iterator<Item = (&'b str, &'b Pending)> {
        self.batch.rows.between(kind, from, until).chain(self.written.rows.between(kind, from, until))
    }

    /// Writes a row, new or over an older one.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the key is longer than 1,024 bytes or the transaction has changed 20,000 rows;
    /// or a fault of the database.
    pub fn put(&mut self, kind: Kind, key: &str, body: &str, blob: Option<&[u8]>) -> Result<(), StoreError> {
        self.check_archive(kind, key, Some(body))?;
        let reads_later = self.db.server().is_some() && self.pending(kind, key).is_none();
        let old = if reads_later { None } else { self.raw_row(kind, key)? };
        let seq = self.next_change(kind, key)?;
        let row =
            Row { kind, key: key.to_owned(), seq, body: body.to_owned(), blob: blob.map(<[u8]>::to_vec) };
        self.write(&row.key, kind, seq, Some(body), blob);
        if reads_later {
            self.written.unread.insert((kind, key.to_owned()));
        }
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
        self.write(key, kind, seq, None, None);
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
        let mut erased = Vec::new();
        for seq in events.iter().filter(|seq| !self.batch.erased.contains(seq)) {
            let found = self.db.query_one(
                "SELECT seq FROM events WHERE seq = ?1 AND personal IS NOT NULL",
                &[int(*seq)],
                |_| Ok(()),
            );
            if found.map_err(|e| self.fault(e))?.is_some() {
                erased.push(*seq);
            }
        }
        self.written.erased.extend(&erased);
        Ok(erased)
    }

    /// Whether the batch takes out this record.
    pub(crate) fn is_dropped(&self, place: u64) -> bool {
        self.batch.dropped.contains(&place) || self.written.dropped.contains(&place)
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

    fn write(&mut self, key: &str, kind: Kind, seq: u64, body: Option<&str>, blob: Option<&[u8]>) {
        let pending = Pending { seq, body: body.map(str::to_owned), blob: blob.map(<[u8]>::to_vec) };
        self.written.rows.put(kind, key, pending);
    }

    /// The row of this name, or the mark that it was removed.
    fn raw_row(&self, kind: Kind, key: &str) -> Result<Option<RawRow>, StoreError> {
        if let Some(pending) = self.pending(kind, key) {
            return Ok(Some(pending.raw(kind, key)));
        }
        let raw = self
            .db
            .query_one(
                "SELECT kind, key, seq, body, blob FROM state WHERE kind = ?1 AND key = ?2",
                &[kind.as_str().into(), key.into()],
                RawRow::read,
            )
            .map_err(|e| self.fault(e))?;
        let live = raw.as_ref().and_then(RawRow::live);
        self.known.check(kind, key, live.as_ref(), self.state_key).map_err(|e| self.fault(e))?;
        Ok(raw)
    }

    /// Does something with the database itself; a fault counts as this transaction's.
    pub(crate) fn with_db<R>(&self, work: impl FnOnce(&Db) -> DbResult<R>) -> Result<R, StoreError> {
        work(self.db).map_err(|e| self.fault(e))
    }

    fn fault(&self, error: DbError) -> StoreError {
        let translated = self.db.fault(&error);
        self.fault.borrow_mut().get_or_insert(error);
        translated
    }
}

/// Takes out of the sum what stands in the place of rows that were written without being read. Over a network they come
/// many at a time, which for each on its own would take as many journeys.
pub(crate) fn take_out_unread(
    server: &Connection,
    unread: &BTreeSet<(Kind, String)>,
    known: &Known,
    state_key: &StateKey,
    head: &mut Head,
) -> DbResult<()> {
    let names: Vec<(&str, &str)> = unread.iter().map(|(kind, key)| (kind.as_str(), key.as_str())).collect();
    let mut found = BTreeMap::new();
    for piece in names.chunks(READ_AT_ONCE) {
        let (kinds, keys): (Vec<&str>, Vec<&str>) = piece.iter().copied().unzip();
        for row in server.query_named(OLD_ROWS, &kinds, &keys)? {
            let old = RawRow::read(&Columns::Postgres(&row))?;
            head.digest.remove(old.mac(state_key));
            found.insert(
                (old.kind.clone(), old.key.clone()),
                old.live().filter(|row| Known::guards(row.kind)),
            );
        }
    }
    for (kind, key) in unread {
        let live = found.remove(&(kind.as_str().to_owned(), key.clone())).flatten();
        known.check(*kind, key, live.as_ref(), state_key)?;
    }
    Ok(())
}

/// The live row of this name.
pub(crate) fn live_row(db: &Db, kind: Kind, key: &str) -> DbResult<Option<Row>> {
    db.query_one(
        "SELECT key, seq, body, blob FROM state WHERE kind = ?1 AND key = ?2 AND body IS NOT NULL",
        &[kind.as_str().into(), key.into()],
        |row| row_of(kind, row),
    )
}

/// The live rows of a kind whose key begins with `prefix`.
pub(crate) fn rows_with_prefix(db: &Db, kind: Kind, prefix: &str, limit: usize) -> DbResult<Vec<Row>> {
    rows_in(db, kind, prefix, prefix_end(prefix).as_deref(), limit)
}

fn rows_in(db: &Db, kind: Kind, from: &str, until: Option<&str>, limit: usize) -> DbResult<Vec<Row>> {
    let limit = at_most(limit);
    let Some(until) = until else {
        return db.query(
            "SELECT key, seq, body, blob FROM state
             WHERE kind = ?1 AND key >= ?2 AND body IS NOT NULL ORDER BY key LIMIT ?3",
            &[kind.as_str().into(), from.into(), limit],
            |row| row_of(kind, row),
        );
    };
    db.query(
        "SELECT key, seq, body, blob FROM state
         WHERE kind = ?1 AND key >= ?2 AND key < ?3 AND body IS NOT NULL ORDER BY key LIMIT ?4",
        &[kind.as_str().into(), from.into(), until.into(), limit],
        |row| row_of(kind, row),
    )
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

fn row_of(kind: Kind, row: &Columns<'_>) -> DbResult<Row> {
    Ok(Row { kind, key: row.text(0)?, seq: row.count(1)?, body: row.text(2)?, blob: row.maybe_blob(3)? })
}

const OLD_ROWS: &str = "SELECT s.kind, s.key, s.seq, s.body, s.blob FROM state s
     JOIN unnest($1::text[], $2::text[]) AS named (kind, key) ON s.kind = named.kind AND s.key = named.key";
/// Few enough that their ciphertexts, of at most a megabyte, come in time.
const READ_AT_ONCE: usize = 100;
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
