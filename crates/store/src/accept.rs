//! Makes a state that an administrator accepted fit for being signed anew.
//!
//! Records are never touched: what they say of gaps and changes stays visible to a verification. What no record
//! answers for and no program could read is dropped, columns are made anew from the records, and the tree is built
//! from its leaves. Archived records stay what they are, as long as the mark that says so is the one that was recorded.

use keymoat_core::audit::{Event, RowChange};
use keymoat_core::names::{ResourcePath, Scope};
use keymoat_core::tree::{Hash, leaf_hash};
use rusqlite::types::Value;
use rusqlite::{Connection, Statement, params};

use crate::archive::{Archive, archived_below, stored_archive, tile_leaves};
use crate::ledger::{Head, LedgerKeys};
use crate::reader::events_len;
use crate::row::RawRow;
use crate::schema;
use crate::tiles::TILE_WIDTH;
use crate::tx::live_row;
use crate::verify::for_each_event;
use crate::{Kind, Row};

/// Mends the database, inside the caller's transaction, and gives the head over what it holds.
pub(crate) fn rebuild(connection: &Connection, keys: &LedgerKeys) -> rusqlite::Result<Head> {
    schema::mend(connection)?;
    drop_unreadable_rows(connection)?;
    let archived = accepted_archive(connection, keys)?;
    renumber(connection, archived)?;
    mend_columns(connection)?;
    rebuild_tree(connection, archived)
}

/// Builds the tree from the records, and from the tiles where records stand in archives.
fn rebuild_tree(connection: &Connection, archived: u64) -> rusqlite::Result<Head> {
    connection.execute(
        "DELETE FROM tiles WHERE level > 0 OR number < 0 OR number >= ?1",
        [archived / TILE_WIDTH as u64],
    )?;
    let size = events_len(connection)?;
    let insert =
        connection.prepare("INSERT OR REPLACE INTO tiles (level, number, hashes) VALUES (?1, ?2, ?3)")?;
    let mut growing = Growing { head: Head::empty(), insert };
    for_each_event(connection, 0..size, |stored| {
        growing.pass(connection, stored.seq.min(archived))?;
        growing.head.time_ms = growing.head.time_ms.max(stored.time_ms);
        growing.push(leaf_hash(&stored.record))
    })?;
    growing.pass(connection, archived)?;
    Ok(growing.head)
}

/// A tree on its way from the first leaf to the last.
struct Growing<'a> {
    head: Head,
    insert: Statement<'a>,
}

impl Growing<'_> {
    /// Goes on to leaf `to` with the hashes that the tiles keep.
    fn pass(&mut self, connection: &Connection, to: u64) -> rusqlite::Result<()> {
        let from = self.head.size();
        tile_leaves(connection, from, to, |_, leaf| {
            self.push(leaf.ok_or(rusqlite::Error::QueryReturnedNoRows)?)
        })
    }

    fn push(&mut self, leaf: Hash) -> rusqlite::Result<()> {
        self.head.frontier.append(leaf).expect("a log never reaches 2^62 events");
        for tile in self.head.tiles.push(leaf) {
            self.insert.execute(params![tile.level, tile.number, tile.hashes])?;
        }
        Ok(())
    }
}

/// Where the archived records end. When the mark that says so is not the one that the newest record of it wrote, or
/// a hash of theirs is gone, it is dropped: then the log is what stands here.
fn accepted_archive(connection: &Connection, keys: &LedgerKeys) -> rusqlite::Result<u64> {
    let size = events_len(connection)?;
    let Some(archive) = stored_archive(connection)? else { return Ok(0) };
    let end = archived_below(Some(&archive), size);
    let mut is_whole = end == archive.end && archive_is_as_recorded(connection, keys)?;
    tile_leaves(connection, 0, end, |_, leaf| {
        is_whole &= leaf.is_some();
        Ok(())
    })?;
    if is_whole {
        return Ok(end);
    }
    tracing::warn!(
        "what is said of archives is not what was recorded; the log is what stands in the database"
    );
    connection
        .execute("DELETE FROM state WHERE kind = ?1 AND key = ?2", [Kind::Archive.as_str(), Archive::KEY])?;
    Ok(0)
}

fn archive_is_as_recorded(connection: &Connection, keys: &LedgerKeys) -> rusqlite::Result<bool> {
    let row: Option<Row> = live_row(connection, Kind::Archive, Archive::KEY)?;
    let Some(mac) = row.map(|row| row.mac(&keys.state)) else { return Ok(false) };
    let mut statement = connection.prepare("SELECT CAST(record AS BLOB) FROM events ORDER BY seq DESC")?;
    let mut records = statement.query([])?;
    while let Some(record) = records.next()? {
        let record: Vec<u8> = record.get::<_, Option<Vec<u8>>>(0)?.unwrap_or_default();
        let rows = Event::parse(&record).map(|event| event.rows).unwrap_or_default();
        let named = |row: &&RowChange| row.kind == Kind::Archive.as_str() && row.key == Archive::KEY;
        if let Some(change) = rows.iter().find(named) {
            return Ok(change.mac.is_some_and(|known| known[..] == mac[..known.len()]));
        }
    }
    Ok(false)
}

/// Drops rows in a form or of a kind that no Keymoat with this schema writes.
fn drop_unreadable_rows(connection: &Connection) -> rusqlite::Result<()> {
    let mut names = Vec::new();
    let mut statement = connection
        .prepare("SELECT kind, key, seq, body, blob, CAST(kind AS BLOB), CAST(key AS BLOB) FROM state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let raw = RawRow::read(row)?;
        if raw.odd || Kind::parse(&raw.kind).is_none() {
            tracing::warn!(kind = %raw.kind, key = %raw.key, "a row that Keymoat did not write is dropped");
            names.push([row.get::<_, Value>(5)?, row.get::<_, Value>(6)?]);
        }
    }
    let mut delete =
        connection.prepare("DELETE FROM state WHERE CAST(kind AS BLOB) = ?1 AND CAST(key AS BLOB) = ?2")?;
    for name in names {
        delete.execute(name)?;
    }
    Ok(())
}

/// Closes the gaps that removed events left from `archived` on. The records keep the numbers that they were written
/// with.
fn renumber(connection: &Connection, archived: u64) -> rusqlite::Result<()> {
    let first = i64::try_from(archived).unwrap_or(i64::MAX);
    let (count, last): (i64, Option<i64>) =
        connection.query_row("SELECT COUNT(*), MAX(seq) FROM events WHERE seq >= ?1", [first], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let end = first + count;
    let seqs = |range: &str, than: i64| {
        connection
            .prepare(&format!("SELECT seq FROM events WHERE seq {range} ?1 ORDER BY seq"))?
            .query_map([than], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()
    };
    let mut update = connection.prepare("UPDATE events SET seq = ?1 WHERE seq = ?2")?;
    if last.is_some_and(|last| last != end - 1) {
        for (position, seq) in (first..).zip(seqs(">=", first)?) {
            if seq != position {
                update.execute([position, seq])?;
            }
        }
    }
    // Events with numbers that no event has go to the end.
    for (position, seq) in (end..).zip(seqs("<", 0)?) {
        update.execute([position, seq])?;
    }
    Ok(())
}

/// Makes the columns beside each record anew where they differ, and erases personal data that is not the recorded one.
fn mend_columns(connection: &Connection) -> rusqlite::Result<()> {
    let mut wrong = Vec::new();
    for_each_event(connection, 0..u64::MAX, |stored| {
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
    let mut form = connection.prepare(
        "UPDATE events SET record = CAST(record AS BLOB), time = MAX(0, CAST(time AS INTEGER)),
             actor = CAST(actor AS TEXT), personal = NULL WHERE seq = ?1",
    )?;
    let mut columns = connection.prepare(
        "UPDATE events SET time = ?2, actor = ?3, environment = ?4, path = ?5, record = CAST(record AS BLOB),
             personal = CASE WHEN ?6 THEN CAST(personal AS BLOB) END WHERE seq = ?1",
    )?;
    for (seq, event) in wrong {
        let Some((event, keep_personal)) = event else {
            form.execute([seq])?;
            continue;
        };
        columns.execute(params![
            seq,
            event.time.as_millisecond(),
            event.actor.to_string(),
            event.scope.as_ref().map(Scope::as_str),
            event.path.as_ref().map(ResourcePath::as_str),
            keep_personal
        ])?;
    }
    Ok(())
}
