//! Going on from what other nodes have committed: their records, their rows, their signed head.
//!
//! Nothing is taken on trust: the records must continue the tree that this node has seen up to the signed root, and the
//! rows must be those that the records say were written. A database that has lost what this node has seen is noticed
//! here, whoever put it back.

use std::collections::BTreeMap;

use keymoat_core::audit::Event;
use keymoat_core::tree::leaf_hash;

use crate::archive::tile_leaves;
use crate::db::postgres::Connection;
use crate::db::{Columns, Db, DbError, DbResult, Scan, int};
use crate::ledger::{Head, LedgerKeys, SignedHead, verify_note};
use crate::row::{RawRow, removed_mac};
use crate::{Effect, Kind, Untrusted};

/// The newest head as it stands in the database.
pub(crate) struct StoredHead {
    pub(crate) note: String,
    frontier: Vec<u8>,
    digest: Vec<u8>,
}

/// Why a node cannot go on.
#[derive(Debug)]
pub(crate) enum FollowError {
    Database(DbError),
    /// What stands in the database is not what went before, or not this vault's.
    Untrusted(Untrusted),
}

impl From<DbError> for FollowError {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl From<Untrusted> for FollowError {
    fn from(untrusted: Untrusted) -> Self {
        Self::Untrusted(untrusted)
    }
}

/// Begins a transaction beside which no other node writes, and gives the newest head.
pub(crate) fn lock(server: &Connection) -> DbResult<StoredHead> {
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    let found = server.begin_with(begin, &format!("{HEAD} FOR UPDATE"))?;
    found.first().map(|row| StoredHead::read(&Columns::Postgres(row))).ok_or(DbError::NoRow)?
}

/// The newest head, without waiting for anybody.
pub(crate) fn newest(db: &Db) -> DbResult<StoredHead> {
    db.query_one(HEAD, &[], StoredHead::read)?.ok_or(DbError::NoRow)
}

/// Brings a node's head up to the stored one and says what became of the rows. It reads one consistent state: the
/// caller has begun a transaction.
pub(crate) fn catch_up(
    db: &Db,
    keys: &LedgerKeys,
    head: &mut Head,
    stored: &StoredHead,
) -> Result<Vec<Effect>, FollowError> {
    if stored.note.is_empty() && head.size() == 0 {
        return Ok(Vec::new());
    }
    let signed = verify_note(keys, &stored.note)
        .ok_or(Untrusted::Checkpoint("missing or not signed by this vault"))?;
    if signed.size < head.size() {
        let time = jiff::Timestamp::from_millisecond(head.time_ms).unwrap_or_default().to_string();
        return Err(Untrusted::Behind { found: signed.size, signed: head.size(), time }.into());
    }
    if signed.size == head.size() {
        let is_same = signed.root == head.frontier.root() && signed.state == keys.state.commit(&head.digest);
        return if is_same { Ok(Vec::new()) } else { Err(rewritten(&signed).into()) };
    }
    let expected = grow(db, head, &signed)?;
    if head.frontier.root() != signed.root {
        return Err(rewritten(&signed).into());
    }
    let effects = changed_rows(db, keys, head, expected)?;
    head.digest = keys
        .state
        .unhide(&stored.digest)
        .filter(|digest| keys.state.commit(digest) == signed.state)
        .ok_or_else(|| Untrusted::State("the sum of the rows is not the one that was signed".to_owned()))?;
    let time: jiff::Timestamp = signed.time.parse().map_err(|_| Untrusted::Checkpoint("damaged"))?;
    head.time_ms = time.as_millisecond();
    Ok(effects)
}

impl StoredHead {
    fn read(row: &Columns<'_>) -> DbResult<Self> {
        Ok(Self { note: row.text(0)?, frontier: row.blob(1)?, digest: row.blob(2)? })
    }

    /// Whether it is the one that this head was signed as, or takes the place of.
    pub(crate) fn is_of(&self, head: &Head) -> bool {
        match &head.in_place_of {
            Some(frontier) => self.frontier == *frontier,
            None => self.frontier == head.frontier.to_bytes() && head.size() > 0,
        }
    }

    /// Makes a head that was accepted as it was found take its place with the next event.
    pub(crate) fn give_way_to(self, head: &mut Head) {
        head.in_place_of = Some(self.frontier);
    }
}

/// What the newest record of a row says of it: its keyed hash, or that it was removed.
type Expected = BTreeMap<(String, String), Option<[u8; 16]>>;

/// Takes in the records up to the signed size, and what they say of rows.
fn grow(db: &Db, head: &mut Head, signed: &SignedHead) -> Result<Expected, FollowError> {
    let mut expected = Expected::new();
    let scan = Scan {
        columns: "seq, record",
        table: "events",
        filter: "seq >= ?1 AND seq < ?2",
        params: vec![int(head.size()), int(signed.size)],
        key: &["seq"],
        descending: false,
    };
    db.scan(&scan, |row| {
        let (seq, record) = (row.count(0)?, row.blob(1)?);
        pass_archived(db, head, seq)?;
        // Most records are of reads and say nothing of rows.
        if record.windows(ROWS.len()).any(|window| window == ROWS) {
            let event = Event::parse(&record)
                .map_err(|_| Untrusted::Event { seq, why: "its record cannot be read".to_owned() })?;
            for change in event.rows {
                expected.insert((change.kind, change.key), change.mac);
            }
        }
        push(head, leaf_hash(&record));
        Ok::<_, FollowError>(true)
    })?;
    pass_archived(db, head, signed.size)?;
    Ok(expected)
}

/// Goes on to event `to` with the hashes that tiles keep of records that were taken out meanwhile.
fn pass_archived(db: &Db, head: &mut Head, to: u64) -> Result<(), FollowError> {
    tile_leaves(db, head.size(), to, |seq, leaf| {
        let why = || Untrusted::Event { seq, why: "it is missing".to_owned() };
        push(head, leaf.ok_or_else(why)?);
        Ok(())
    })
}

fn push(head: &mut Head, leaf: keymoat_core::tree::Hash) {
    head.frontier.append(leaf).expect("a log never reaches 2^63 events");
    // They are in the database already; this keeps the partial ones.
    drop(head.tiles.push(leaf));
}

/// The rows that changed since, each compared with what its newest record says.
fn changed_rows(
    db: &Db,
    keys: &LedgerKeys,
    head: &mut Head,
    mut expected: Expected,
) -> Result<Vec<Effect>, FollowError> {
    let mut effects = Vec::new();
    let scan = Scan {
        columns: "seq, kind, key, body, blob",
        table: "state",
        filter: "seq > ?1",
        params: vec![int(head.change)],
        key: &["seq"],
        descending: false,
    };
    db.scan(&scan, |row| {
        let raw = RawRow {
            seq: row.int(0)?,
            kind: row.text(1)?,
            key: row.text(2)?,
            body: row.maybe_text(3)?,
            blob: row.maybe_blob(4)?,
            odd: false,
        };
        effects.push(effect_of(raw, keys, &mut expected)?);
        Ok::<_, FollowError>(true)
    })?;
    if let Some((kind, key)) = expected.into_keys().next() {
        let why = format!("the {kind} `{key}` is not as its newest record says, or gone");
        return Err(Untrusted::State(why).into());
    }
    for effect in &effects {
        head.change = head.change.max(effect.seq());
        if effect.kind().decides_access() {
            head.epoch = head.epoch.max(effect.seq());
        }
    }
    Ok(effects)
}

fn effect_of(raw: RawRow, keys: &LedgerKeys, expected: &mut Expected) -> Result<Effect, Untrusted> {
    let name = format!("{} `{}`", raw.kind, raw.key);
    let wrong = |what: &str| Untrusted::State(format!("the {name} {what}"));
    let kind = Kind::parse(&raw.kind).ok_or_else(|| wrong("is of a kind that this program does not know"))?;
    let seq = u64::try_from(raw.seq).map_err(|_| wrong("has no number that Keymoat gives"))?;
    let recorded = expected.remove(&(raw.kind.clone(), raw.key.clone()));
    let mac = match raw.body {
        Some(_) => raw.mac(&keys.state),
        None => removed_mac(&keys.state, kind, &raw.key, seq),
    };
    match (recorded, raw.body.is_some()) {
        (Some(Some(known)), true) if known[..] == mac[..known.len()] => {}
        (Some(None), false) => return Ok(Effect::Removed { kind, key: raw.key, seq }),
        _ => return Err(wrong("was changed by other means than Keymoat")),
    }
    raw.into_live()
        .map(Effect::Written)
        .map_err(|_| wrong("does not have the form that Keymoat gives to rows"))
}

fn rewritten(signed: &SignedHead) -> Untrusted {
    Untrusted::Rewritten { signed: signed.size, time: signed.time.clone() }
}

const HEAD: &str = "SELECT note, frontier, digest FROM checkpoint WHERE id = 1";
/// How a record that changed rows says so (the canonical form of `Event`).
const ROWS: &[u8] = b"\"rows\":[";
