//! Makes a state that an administrator accepted fit for being signed anew.
//!
//! Records are never touched: what they say of gaps and changes stays visible to a verification. What no record
//! answers for and no program could read is dropped, columns are made anew from the records, and the tree is built
//! from its leaves.

use keymoat_core::audit::Event;
use keymoat_core::names::{ResourcePath, Scope};
use keymoat_core::tree::leaf_hash;
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use crate::Kind;
use crate::ledger::Head;
use crate::reader::events_len;
use crate::row::RawRow;
use crate::schema;
use crate::verify::for_each_event;

/// Mends the database, inside the caller's transaction, and gives the head over what it holds.
pub(crate) fn rebuild(connection: &Connection) -> rusqlite::Result<Head> {
    schema::mend(connection)?;
    drop_unreadable_rows(connection)?;
    renumber(connection)?;
    mend_columns(connection)?;
    let mut head = Head::empty();
    connection.execute_batch("DELETE FROM tiles")?;
    let size = events_len(connection)?;
    let mut insert = connection.prepare("INSERT INTO tiles (level, number, hashes) VALUES (?1, ?2, ?3)")?;
    for_each_event(connection, 0..size, |stored| {
        let leaf = leaf_hash(&stored.record);
        head.frontier.append(leaf).expect("a log never reaches 2^62 events");
        for tile in head.tiles.push(leaf) {
            insert.execute(params![tile.level, tile.number, tile.hashes])?;
        }
        head.time_ms = head.time_ms.max(stored.time_ms);
        Ok(())
    })?;
    Ok(head)
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

/// Closes the gaps that removed events left. The records keep the numbers that they were written with.
fn renumber(connection: &Connection) -> rusqlite::Result<()> {
    let (count, last): (i64, Option<i64>) =
        connection.query_row("SELECT COUNT(*), MAX(seq) FROM events WHERE seq >= 0", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let seqs = |range: &str| {
        connection
            .prepare(&format!("SELECT seq FROM events WHERE seq {range} 0 ORDER BY seq"))?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()
    };
    let mut update = connection.prepare("UPDATE events SET seq = ?1 WHERE seq = ?2")?;
    if last.is_some_and(|last| last != count - 1) {
        for (position, seq) in (0..).zip(seqs(">=")?) {
            if seq != position {
                update.execute([position, seq])?;
            }
        }
    }
    // Events with numbers that no event has go to the end.
    for (position, seq) in (count..).zip(seqs("<")?) {
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
