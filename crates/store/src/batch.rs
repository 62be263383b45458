//! What the members of a batch have written and the database has not heard of yet.
//!
//! Everything goes to the database at the end of the batch, together with the signed head and the commit: over a
//! network that is one journey. Until then whoever reads in the batch looks here first.

use std::collections::{BTreeMap, BTreeSet};

use crate::Kind;
use crate::db::{Command, Insert, Type, Value, int};
use crate::ledger::{Record, SignedNote};
use crate::row::RawRow;
use crate::tiles::FullTile;

/// Rows as they will stand, by kind and key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    rows: BTreeMap<(Kind, String), Pending>,
    /// What was put in, also where something else took its place: an upper bound.
    bytes: usize,
}

/// A row as it will stand; without a body it is the mark of a removed one.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) body: Option<String>,
    pub(crate) blob: Option<Vec<u8>>,
}

/// Everything that a batch writes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) rows: Rows,
    pub(crate) log: Log,
    /// Events whose personal data is erased.
    pub(crate) erased: BTreeSet<u64>,
    /// Archived events that are taken out.
    pub(crate) dropped: BTreeSet<u64>,
    /// Rows that are written over and were not read: the sum over the rows still holds what they were.
    pub(crate) unread: BTreeSet<(Kind, String)>,
}

/// Records and the tiles that they filled.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    pub(crate) tiles: Vec<FullTile>,
    /// What the records take.
    bytes: usize,
}

impl Rows {
    pub(crate) fn get(&self, kind: Kind, key: &str) -> Option<&Pending> {
        self.rows.get(&(kind, key.to_owned()))
    }

    pub(crate) fn put(&mut self, kind: Kind, key: &str, pending: Pending) {
        self.bytes += key.len() + pending.bytes();
        self.rows.insert((kind, key.to_owned()), pending);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn append(&mut self, mut later: Self) {
        self.bytes += later.bytes;
        self.rows.append(&mut later.rows);
    }

    /// The rows of a kind whose key is `from` or after it and before `until`.
    pub(crate) fn between<'a>(
        &'a self,
        kind: Kind,
        from: &'a str,
        until: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a Pending)> {
        self.rows
            .range((kind, from.to_owned())..)
            .take_while(move |((found, key), _)| {
                *found == kind && until.is_none_or(|until| key.as_str() < until)
            })
            .map(|((_, key), pending)| (key.as_str(), pending))
    }
}

impl Log {
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += record.record.len();
        self.records.push(record);
    }
}

impl Pending {
    fn bytes(&self) -> usize {
        self.body.as_ref().map_or(0, String::len) + self.blob.as_ref().map_or(0, Vec::len)
    }

    /// The row in the form that is hashed.
    pub(crate) fn raw(&self, kind: Kind, key: &str) -> RawRow {
        RawRow {
            kind: kind.as_str().to_owned(),
            key: key.to_owned(),
            seq: i64::try_from(self.seq).unwrap_or(i64::MAX),
            body: self.body.clone(),
            blob: self.blob.clone(),
            odd: false,
        }
    }
}

impl Batch {
    /// About how much it takes, in memory and on its way to the database.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes + self.log.bytes
    }

    /// The statements that bring it into the database, in order; the last ends the transaction.
    pub(crate) fn commands<'a>(
        &'a self,
        note: Option<&'a SignedNote>,
        tell: Option<&'static str>,
    ) -> Vec<Command<'a>> {
        let mut commands = Vec::new();
        let erased = self.erased.iter().map(|seq| (ERASE, *seq));
        let dropped = self.dropped.iter().map(|seq| (DROP, *seq));
        commands
            .extend(erased.chain(dropped).map(|(sql, seq)| Command::Execute { sql, params: vec![int(seq)] }));
        push_insert(
            &mut commands,
            &STATE,
            self.rows.rows.iter().map(|((kind, key), row)| {
                vec![
                    kind.as_str().into(),
                    key.as_str().into(),
                    int(row.seq),
                    row.body.as_deref().into(),
                    row.blob.as_deref().into(),
                ]
            }),
        );
        push_insert(&mut commands, &EVENTS, self.log.records.iter().map(Record::values));
        push_insert(&mut commands, &TILES, self.log.tiles.iter().map(FullTile::values));
        commands.extend(note.map(SignedNote::command));
        commands.extend(tell.map(|sql| Command::Execute { sql, params: Vec::new() }));
        commands.push(Command::Commit);
        commands
    }
}

impl FullTile {
    pub(crate) fn values(&self) -> Vec<Value<'_>> {
        vec![Value::Int(self.level.into()), int(self.number), self.hashes.as_slice().into()]
    }
}

/// Adds the rows in pieces that a statement can carry.
pub(crate) fn push_insert<'a>(
    commands: &mut Vec<Command<'a>>,
    insert: &'static Insert,
    rows: impl Iterator<Item = Vec<Value<'a>>>,
) {
    let mut rows: Vec<Vec<Value<'a>>> = rows.collect();
    while !rows.is_empty() {
        let rest = rows.split_off(rows.len().min(ROWS_AT_ONCE));
        commands.push(Command::Insert { insert, rows: std::mem::replace(&mut rows, rest) });
    }
}

/// Rows as they stand now.
pub(crate) static STATE: Insert = Insert {
    table: "state",
    columns: &[
        ("kind", Type::Text),
        ("key", Type::Text),
        ("seq", Type::Int),
        ("body", Type::Text),
        ("blob", Type::Blob),
    ],
    conflict: "ON CONFLICT (kind, key) DO UPDATE SET seq = excluded.seq, body = excluded.body, blob = excluded.blob",
};
/// Records with the columns that they are searched by. One that is there already is a fault.
pub(crate) static EVENTS: Insert = Insert {
    table: "events",
    columns: &[
        ("seq", Type::Int),
        ("time", Type::Int),
        ("actor", Type::Text),
        ("environment", Type::Text),
        ("path", Type::Text),
        ("record", Type::Blob),
        ("personal", Type::Blob),
    ],
    conflict: "",
};
/// Full tiles; one that is there already beyond the end of the tree was not the tree's.
pub(crate) static TILES: Insert = Insert {
    table: "tiles",
    columns: &[("level", Type::Int), ("number", Type::Int), ("hashes", Type::Blob)],
    conflict: "ON CONFLICT (level, number) DO UPDATE SET hashes = excluded.hashes",
};
const ERASE: &str = "UPDATE events SET personal = NULL WHERE seq = ?1";
const DROP: &str = "DELETE FROM events WHERE seq = ?1";
/// Keeps a single statement small enough for every database's limits.
const ROWS_AT_ONCE: usize = 2000;
