//! Makes a state that an administrator accepted fit for being signed anew.
//!
//! Records are never touched: what they say of gaps and changes stays visible to a verification. What no record
//! answers for and no program could read is dropped, columns are made anew from the records, and the tree is built
//! from its leaves. Archived records stay what they are, as long as the mark that says so is the one that was recorded.

use keymoat_core::audit::{Event, RowChange};
use keymoat_core::tree::{Hash, leaf_hash};

use crate::archive::{Archive, archived_below, stored_archive, tile_leaves};
use crate::batch::TILES;
use crate::db::{Command, Db, DbError, DbResult, Scan, Value, int};
use crate::ledger::{Head, LedgerKeys, Record};
use crate::reader::events_len;
use crate::row::RawRow;
use crate::schema;
use crate::tiles::{FullTile, TILE_WIDTH};
use crate::tx::live_row;
use crate::verify::for_each_event;
use crate::{Kind, Row};

/// Mends the database, inside the caller's transaction, and gives the head over what it holds.
pub(crate) fn rebuild(db: &Db, keys: &LedgerKeys) -> DbResult<Head> {
    schema::mend(db)?;
    drop_unreadable_rows(db)?;
    let archived = accepted_archive(db, keys)?;
    renumber(db, archived)?;
    mend_columns(db)?;
    rebuild_tree(db, archived)
}

/// Builds the tree from the records, and from the tiles where records stand in archives.
fn rebuild_tree(db: &Db, archived: u64) -> DbResult<Head> {
    db.execute(
        "DELETE FROM tiles WHERE level > 0 OR number < 0 OR number >= ?1",
        &[int(archived / TILE_WIDTH as u64)],
    )?;
    let size = events_len(db)?;
    let mut growing = Growing { head: Head::empty(), db };
    for_each_event(db, 0..size, |stored| {
        growing.pass(stored.seq.min(archived))?;
        growing.head.time_ms = growing.head.time_ms.max(stored.time_ms);
        growing.push(leaf_hash(&stored.record))
    })?;
    growing.pass(archived)?;
    Ok(growing.head)
}

/// A tree on its way from the first leaf to the last.
struct Growing<'a> {
    head: Head,
    db: &'a Db,
}

impl Growing<'_> {
    /// Goes on to leaf `to` with the hashes that the tiles keep.
    fn pass(&mut self, to: u64) -> DbResult<()> {
        let from = self.head.size();
        let db = self.db;
        tile_leaves(db, from, to, |_, leaf| self.push(leaf.ok_or(DbError::NoRow)?))
    }

    fn push(&mut self, leaf: Hash) -> DbResult<()> {
        self.head.frontier.append(leaf).expect("a log never reaches 2^62 events");
        let filled = self.head.tiles.push(leaf);
        let rows: Vec<_> = filled.iter().map(FullTile::values).collect();
        match rows.is_empty() {
            true => Ok(()),
            false => self.db.run(vec![Command::Insert { insert: &TILES, rows }]),
        }
    }
}

/// Where the archived records end. When the mark that says so is not the one that the newest record of it wrote, or
/// a hash of theirs is gone, it is dropped: then the log is what stands here.
fn accepted_archive(db: &Db, keys: &LedgerKeys) -> DbResult<u64> {
    let size = events_len(db)?;
    let Some(archive) = stored_archive(db)? else { return Ok(0) };
    let end = archived_below(Some(&archive), size);
    let mut is_whole = end == archive.end && archive_is_as_recorded(db, keys)?;
    tile_leaves(db, 0, end, |_, leaf| {
        is_whole &= leaf.is_some();
        Ok::<_, DbError>(())
    })?;
    if is_whole {
        return Ok(end);
    }
    tracing::warn!(
        "what is said of archives is not what was recorded; the log is what stands in the database"
    );
    db.execute(
        "DELETE FROM state WHERE kind = ?1 AND key = ?2",
        &[Kind::Archive.as_str().into(), Archive::KEY.into()],
    )?;
    Ok(0)
}

fn archive_is_as_recorded(db: &Db, keys: &LedgerKeys) -> DbResult<bool> {
    let row: Option<Row> = live_row(db, Kind::Archive, Archive::KEY)?;
    let Some(mac) = row.map(|row| row.mac(&keys.state)) else { return Ok(false) };
    let scan = Scan {
        columns: "seq, record",
        table: "events",
        filter: "TRUE",
        params: Vec::new(),
        key: &["seq"],
        descending: true,
    };
    let mut is_as_recorded = false;
    db.scan(&scan, |row| {
        let record = row.any_blob(1, &mut false)?.unwrap_or_default();
        let rows = Event::parse(&record).map(|event| event.rows).unwrap_or_default();
        let named = |row: &&RowChange| row.kind == Kind::Archive.as_str() && row.key == Archive::KEY;
        let Some(change) = rows.iter().find(named) else { return Ok::<_, DbError>(true) };
        is_as_recorded = change.mac.is_some_and(|known| known[..] == mac[..known.len()]);
        Ok(false)
    })?;
    Ok(is_as_recorded)
}

/// Drops rows in a form or of a kind that no Keymoat with this schema writes.
fn drop_unreadable_rows(db: &Db) -> DbResult<()> {
    let mut names = Vec::new();
    // In a file a name may stand as anything; its bytes find it again.
    let (columns, delete) = match db.file() {
        Some(_) => (
            "kind, key, seq, body, blob, CAST(kind AS BLOB), CAST(key AS BLOB)",
            "DELETE FROM state WHERE CAST(kind AS BLOB) = ?1 AND CAST(key AS BLOB) = ?2",
        ),
        None => (
            "kind, key, seq, body, blob, convert_to(kind, 'UTF8'), convert_to(key, 'UTF8')",
            "DELETE FROM state WHERE kind = convert_from(?1, 'UTF8') AND key = convert_from(?2, 'UTF8')",
        ),
    };
    let scan = Scan {
        columns,
        table: "state",
        filter: "TRUE",
        params: Vec::new(),
        key: &["kind", "key"],
        descending: false,
    };
    db.scan(&scan, |row| {
        let raw = RawRow::read(row)?;
        if raw.odd || Kind::parse(&raw.kind).is_none() {
            tracing::warn!(kind = %raw.kind, key = %raw.key, "a row that Keymoat did not write is dropped");
            names.push((row.maybe_blob(5)?, row.maybe_blob(6)?));
        }
        Ok::<_, DbError>(true)
    })?;
    for (kind, key) in &names {
        db.execute(delete, &[kind.as_deref().into(), key.as_deref().into()])?;
    }
    Ok(())
}

/// Closes the gaps that removed events left from `archived` on. The records keep the numbers that they were written
/// with.
fn renumber(db: &Db, archived: u64) -> DbResult<()> {
    let first = i64::try_from(archived).unwrap_or(i64::MAX);
    let seqs = |filter: &str, than: i64| -> DbResult<Vec<i64>> {
        let scan = Scan {
            columns: "seq",
            table: "events",
            filter,
            params: vec![Value::Int(than)],
            key: &["seq"],
            descending: false,
        };
        let mut found = Vec::new();
        db.scan(&scan, |row| {
            found.push(row.int(0)?);
            Ok::<_, DbError>(true)
        })?;
        Ok(found)
    };
    let count = db.number("SELECT COUNT(*) FROM events WHERE seq >= ?1", &[Value::Int(first)])?;
    let last = db.query_one("SELECT MAX(seq) FROM events WHERE seq >= ?1", &[Value::Int(first)], |row| {
        row.maybe_int(0)
    })?;
    let end = first + count;
    let update = "UPDATE events SET seq = ?1 WHERE seq = ?2";
    if last.flatten().is_some_and(|last| last != end - 1) {
        for (position, seq) in (first..).zip(seqs("seq >= ?1", first)?) {
            if seq != position {
                db.execute(update, &[Value::Int(position), Value::Int(seq)])?;
            }
        }
    }
    // Events with numbers that no event has go to the end.
    for (position, seq) in (end..).zip(seqs("seq < ?1", 0)?) {
        db.execute(update, &[Value::Int(position), Value::Int(seq)])?;
    }
    Ok(())
}

/// Makes the columns beside each record anew where they differ, and erases personal data that is not the recorded one.
fn mend_columns(db: &Db) -> DbResult<()> {
    let mut wrong = Vec::new();
    for_each_event(db, 0..u64::MAX, |stored| {
        match Event::parse(&stored.record) {
            Ok(event) if stored.column_inconsistency(&event).is_some() => {
                let keep_personal = stored.personal_fits(&event);
                wrong.push((stored.seq, Some((event, keep_personal))));
            }
            Ok(_) => {}
            Err(_) => wrong.push((stored.seq, None)),
        }
        Ok(())
    })?;
    for (seq, event) in wrong {
        let Some((event, keep_personal)) = event else {
            mend_form(db, seq)?;
            continue;
        };
        let columns = Record::of(seq, &event, Vec::new(), None);
        db.execute(
            "UPDATE events SET time = ?2, actor = ?3, environment = ?4, path = ?5 WHERE seq = ?1",
            &[
                int(seq),
                Value::Int(columns.time_ms),
                columns.actor.as_str().into(),
                columns.environment.as_deref().into(),
                columns.path.as_deref().into(),
            ],
        )?;
        if !keep_personal {
            db.execute("UPDATE events SET personal = NULL WHERE seq = ?1", &[int(seq)])?;
        }
        if db.file().is_some() {
            db.execute(
                "UPDATE events SET record = CAST(record AS BLOB), personal = CAST(personal AS BLOB) WHERE seq = ?1",
                &[int(seq)],
            )?;
        }
    }
    Ok(())
}

/// Gives the columns of a record that cannot be read the types that columns have.
fn mend_form(db: &Db, seq: u64) -> DbResult<()> {
    if db.file().is_some() {
        db.execute(
            "UPDATE events SET record = CAST(record AS BLOB), time = MAX(0, CAST(time AS INTEGER)),
                 actor = CAST(actor AS TEXT) WHERE seq = ?1",
            &[int(seq)],
        )?;
    }
    db.execute("UPDATE events SET personal = NULL WHERE seq = ?1", &[int(seq)])?;
    Ok(())
}
