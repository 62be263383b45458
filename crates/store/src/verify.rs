//! Reads the whole log and every row again and says what does not fit, and where.
//!
//! Four things must agree: each record with its own columns; the records with the tree's tiles; the tree with the
//! signed checkpoints, the one inside and those outside; and the rows with what the records say was written. Nothing
//! that stands in the database is taken to have the form that Keymoat gave it. A record may be missing where the mark
//! among the rows says that it stands in an archive; its tile answers for it then.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use keymoat_core::audit::{Event, RowChange};
use keymoat_core::names::{ResourcePath, Scope};
use keymoat_core::tree::{Frontier, Hash, leaf_hash};
use keymoat_crypto::StateDigest;

use crate::archive::{Archive, KeptCounter, archived_below, stored_archive, tile_leaves};
use crate::db::{Columns, Db, DbError, DbResult, Scan, int};
use crate::erased::Erasures;
use crate::ledger::{LedgerKeys, SignedHead, parse_personal, verify_note};
use crate::outside::read_slots;
use crate::reader::{events_len, for_each_raw_row, tile};
use crate::row::RawRow;
use crate::tiles::{FullTile, TILE_WIDTH, Tiles, full_tiles, is_full, parse_tile};
use crate::{Kind, Untrusted, schema};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Events of the log.
    pub events: u64,
    /// Those of them that stand in archives only.
    pub archived: u64,
    /// Live rows compared with the log.
    pub rows: u64,
    /// Root of the tree over the events as they are.
    pub root: Hash,
    /// The newest signed checkpoint that was found, as a signed note; it fits when there are no problems.
    pub checkpoint: Option<String>,
    /// What does not fit, first event first; empty when nothing was touched.
    pub problems: Vec<Untrusted>,
}

/// The checkpoint file outside of the data directory, as far as a verification needs it.
pub(crate) struct Outside {
    pub(crate) path: PathBuf,
    pub(crate) exists: bool,
    pub(crate) heads: Vec<SignedHead>,
}

/// Checks everything against the checkpoint inside and those outside.
pub(crate) fn verify(
    db: &Db,
    keys: &LedgerKeys,
    outside: Option<&Outside>,
    mut progress: impl FnMut(u64),
) -> DbResult<Report> {
    let inside = Inside::read(db, keys)?;
    let mut problems = Vec::new();
    let mut heads: Vec<&SignedHead> = outside.iter().flat_map(|outside| &outside.heads).collect();
    heads.extend(inside.head.as_ref().ok());
    heads.sort_by_key(|head| head.size);

    let mut walk = Walk::new(db, keys);
    walk.before_the_first(&mut problems)?;
    for head in &heads {
        walk.to(head.size, &mut problems, &mut progress)?;
        walk.compare(head, inside.frontier.as_ref(), &mut problems);
    }
    let signed = heads.last().map(|head| head.size);
    walk.to(u64::MAX, &mut problems, &mut progress)?;
    if let Some(signed) = signed
        && walk.next > signed
    {
        let why = format!("the signed log ends before it ({signed} events are signed)");
        walk.blame(&mut problems, signed, why);
    }
    walk.check_kept(&mut problems);
    walk.check_erasures(&mut problems);
    walk.check_tiles(&mut problems)?;
    let is_new = walk.frontier.size() == 0 && signed.is_none_or(|signed| signed == 0);
    match &inside.head {
        Err(what) if !is_new => problems.push(Untrusted::Checkpoint(what)),
        _ => {}
    }
    problems.extend(outside.filter(|_| !is_new).and_then(Outside::problem));
    let rows = walk.check_rows(inside.head.as_ref().ok(), &mut problems)?;
    problems.extend(schema::problems(db)?.into_iter().map(Untrusted::State));
    problems.extend(damaged_pages(db)?.map(Untrusted::State));
    let checkpoint = heads.last().map(|head| head.note.clone());
    let (events, archived) = (walk.frontier.size(), walk.archived);
    Ok(Report { events, archived, rows, root: walk.frontier.root(), checkpoint, problems })
}

/// The first row that the log does not account for, in words.
pub(crate) fn first_wrong_row(db: &Db, keys: &LedgerKeys) -> DbResult<String> {
    let mut walk = Walk::new(db, keys);
    let mut problems = Vec::new();
    walk.to(u64::MAX, &mut Vec::new(), &mut |_| {})?;
    walk.check_rows(None, &mut problems)?;
    Ok(problems.first().map_or_else(|| DIGEST_DIFFERS.to_owned(), ToString::to_string))
}

/// Compares the newest events, whose records the caller has found to be under the signed root, with their columns.
pub(crate) fn check_tail(db: &Db, size: u64) -> DbResult<Option<Untrusted>> {
    let width = TILE_WIDTH as u64;
    let from = size.saturating_sub(1) / width * width;
    let mut found = None;
    for_each_event(db, from..size, |stored| {
        let Ok(event) = Event::parse(&stored.record) else { return Ok(()) };
        if found.is_none()
            && let Some(why) = stored.column_inconsistency(&event)
        {
            found = Some(Untrusted::Event { seq: stored.seq, why });
        }
        Ok(())
    })?;
    // A full tile answers for these events in the tree, so their records have not been looked at yet.
    if found.is_none() && size > 0 && size.is_multiple_of(width) {
        let leaves = tile(db, 0, from / width)?.unwrap_or_default();
        for_each_event(db, from..size, |stored| {
            if found.is_none()
                && leaves.get((stored.seq % width) as usize) != Some(&leaf_hash(&stored.record))
            {
                found = Some(Untrusted::Event { seq: stored.seq, why: NOT_IN_TREE.to_owned() });
            }
            Ok(())
        })?;
    }
    Ok(found)
}

impl Outside {
    /// Reads the file; what in it is torn or foreign is left out.
    pub(crate) fn read(keys: &LedgerKeys, path: &Path) -> std::io::Result<Self> {
        let slots = read_slots(path)?;
        let exists = slots.is_some();
        let heads = slots.iter().flatten().filter_map(|text| verify_note(keys, text)).collect();
        Ok(Self { path: path.to_owned(), exists, heads })
    }

    fn problem(&self) -> Option<Untrusted> {
        match (self.heads.is_empty(), self.exists) {
            (false, _) => None,
            (true, true) => Some(Untrusted::OutsideForeign(self.path.to_owned())),
            (true, false) => Some(Untrusted::OutsideMissing(self.path.to_owned())),
        }
    }
}

/// The database's own checkpoint.
struct Inside {
    head: Result<SignedHead, &'static str>,
    /// The roots beside it, when they are those that were signed.
    frontier: Option<Frontier>,
}

impl Inside {
    fn read(db: &Db, keys: &LedgerKeys) -> DbResult<Self> {
        let row = db.query_one("SELECT note, frontier FROM checkpoint WHERE id = 1", &[], |row| {
            let note = row.any_text(0, &mut false)?.unwrap_or_default();
            Ok((note, row.any_blob(1, &mut false)?.unwrap_or_default()))
        })?;
        // On a server the place for it is made before there is one.
        let row = row.filter(|(note, _)| !note.is_empty() || db.file().is_some());
        let Some((note, frontier)) = row else {
            return Ok(Self { head: Err("missing"), frontier: None });
        };
        let Some(head) = verify_note(keys, &note) else {
            return Ok(Self { head: Err("not signed by this vault"), frontier: None });
        };
        let frontier = signed_frontier(&frontier, &head);
        let head = if frontier.is_some() { Ok(head) } else { Err("damaged") };
        Ok(Self { head, frontier })
    }
}

/// The stored frontier, if it is that of the signed head.
pub(crate) fn signed_frontier(bytes: &[u8], head: &SignedHead) -> Option<Frontier> {
    Frontier::from_bytes(bytes)
        .ok()
        .filter(|frontier| frontier.size() == head.size && frontier.root() == head.root)
}

/// A walk over the events in order, growing the tree and what the rows should be.
struct Walk<'a> {
    db: &'a Db,
    keys: &'a LedgerKeys,
    /// The number that the next event should have.
    next: u64,
    /// The tree over the events that are there.
    frontier: Frontier,
    tiles: Tiles,
    filled: Vec<FullTile>,
    /// Whether no event was missing so far, so that the tree can be compared with the signed one.
    intact: bool,
    expected: BTreeMap<(String, String), Expected>,
    time_ms: i64,
    /// How far the numbers in the records are ahead of those in the table, after an accepted loss.
    shift: i128,
    size: u64,
    tile: Option<(u64, Vec<Hash>)>,
    /// What the mark among the rows says of archives, and the first event that none holds.
    archive: Option<Archive>,
    archived_below: u64,
    /// Events that stand in archives only.
    archived: u64,
    /// Those below that stand here all the same.
    kept: KeptCounter,
    erasures: Erasures,
    /// Whether a single event was already named for what no longer fits.
    found_a_culprit: bool,
}

/// What the log says of a row.
struct Expected {
    event: u64,
    mac: Option<[u8; 16]>,
}

impl<'a> Walk<'a> {
    fn new(db: &'a Db, keys: &'a LedgerKeys) -> Self {
        let size = events_len(db).unwrap_or_default();
        let archive = stored_archive(db).unwrap_or_default();
        Self {
            db,
            keys,
            next: 0,
            frontier: Frontier::new(),
            tiles: Tiles::default(),
            filled: Vec::new(),
            intact: true,
            expected: BTreeMap::new(),
            time_ms: 0,
            shift: 0,
            size,
            tile: None,
            archived_below: archived_below(archive.as_ref(), size),
            archive,
            archived: 0,
            kept: KeptCounter::default(),
            erasures: Erasures::default(),
            found_a_culprit: false,
        }
    }

    /// Names events with numbers that no event has.
    fn before_the_first(&mut self, problems: &mut Vec<Untrusted>) -> DbResult<()> {
        let count = self.db.number("SELECT COUNT(*) FROM events WHERE seq < 0", &[])?;
        if count > 0 {
            let why = format!("{count} events with negative numbers stand before the first");
            self.blame(problems, 0, why);
        }
        Ok(())
    }

    /// Reads on until event `size - 1` has been read or there are no more.
    fn to(
        &mut self,
        size: u64,
        problems: &mut Vec<Untrusted>,
        progress: &mut impl FnMut(u64),
    ) -> DbResult<()> {
        if size <= self.next {
            return Ok(());
        }
        for_each_event(self.db, self.next..size, |stored| {
            // Only in a damaged file do numbers come out of order.
            if stored.seq < self.next {
                self.blame(problems, stored.seq, "it stands twice or out of order".to_owned());
                self.intact = false;
                return Ok(());
            }
            self.pass_archived(stored.seq, problems)?;
            if stored.seq != self.next {
                let why = match stored.seq - self.next {
                    1 => "it is missing".to_owned(),
                    gone => format!("{gone} events from here on are missing"),
                };
                self.blame(problems, self.next, why);
                self.intact = false;
            }
            self.next = stored.seq.saturating_add(1);
            self.event(&stored, problems)?;
            if self.frontier.size().is_multiple_of(PROGRESS_EVERY) {
                progress(self.frontier.size());
            }
            Ok(())
        })?;
        self.pass_archived(size, problems)?;
        progress(self.frontier.size());
        Ok(())
    }

    /// Goes on to event `to`, or to the first that no archive holds, with the hashes that the tiles keep.
    fn pass_archived(&mut self, to: u64, problems: &mut Vec<Untrusted>) -> DbResult<()> {
        let to = to.min(self.archived_below);
        let mut untold = true;
        tile_leaves(self.db, self.next, to, |seq, leaf| {
            match leaf {
                Some(leaf) => self.grow(leaf),
                None if std::mem::take(&mut untold) => {
                    self.intact = false;
                    self.blame(problems, seq, TILE_MISSING.to_owned());
                }
                None => {}
            }
            self.archived += 1;
            Ok::<_, DbError>(())
        })?;
        self.next = self.next.max(to);
        Ok(())
    }

    fn event(&mut self, stored: &Stored, problems: &mut Vec<Untrusted>) -> DbResult<()> {
        let leaf = leaf_hash(&stored.record);
        let event = Event::parse(&stored.record);
        if let Some(why) = self.inconsistency(stored, event.as_ref().ok()) {
            self.blame(problems, stored.seq, why);
        } else if self.tile_leaf(stored.seq)?.is_some_and(|known| known != leaf) {
            self.blame(problems, stored.seq, NOT_IN_TREE.to_owned());
        }
        if let Ok(event) = &event {
            self.erasures.event(stored.seq, event, stored.has_personal());
        }
        self.time_ms = self.time_ms.max(stored.time_ms);
        for change in event.into_iter().flat_map(|event| event.rows) {
            self.expect(stored.seq, change);
        }
        if stored.seq < self.archived_below {
            self.kept.add(stored.seq);
        }
        self.grow(leaf);
        Ok(())
    }

    fn grow(&mut self, leaf: Hash) {
        if self.frontier.append(leaf).is_err() {
            tracing::error!("the log is longer than a tree may be");
        }
        for full in self.tiles.push(leaf) {
            // The lowest level was compared hash by hash; the levels above are few and wait for the end.
            if full.level > 0 {
                self.filled.push(full);
            }
        }
    }

    /// Names events whose personal data is gone although no record says that it was erased.
    fn check_erasures(&mut self, problems: &mut Vec<Untrusted>) {
        for (first, last) in self.erasures.unrecorded() {
            let why = match last - first {
                0 => "its personal data is gone, and no record says that it was erased".to_owned(),
                more => format!(
                    "its personal data and that of the {more} events after it is gone, and no record says that it was erased"
                ),
            };
            // It is no culprit for a tree that does not fit: the records stand.
            if problems.len() < PROBLEMS_MAX {
                problems.push(Untrusted::Event { seq: first, why });
            }
        }
    }

    fn inconsistency(&mut self, stored: &Stored, event: Option<&Event>) -> Option<String> {
        let Some(event) = event else {
            return Some("its record cannot be read".to_owned());
        };
        let shift = i128::from(event.seq) - i128::from(stored.seq);
        if shift != self.shift {
            self.shift = shift;
            return Some(format!("its record says that it is event {}", event.seq));
        }
        if stored.time_ms < self.time_ms {
            return Some("its time is before that of the event in front of it".to_owned());
        }
        stored.column_inconsistency(event)
    }

    fn expect(&mut self, event: u64, change: RowChange) {
        let key = (change.kind, change.key);
        self.expected.insert(key, Expected { event, mac: change.mac });
    }

    fn blame(&mut self, problems: &mut Vec<Untrusted>, seq: u64, why: String) {
        self.found_a_culprit = true;
        if problems.len() < PROBLEMS_MAX {
            problems.push(Untrusted::Event { seq, why });
        }
    }

    /// Compares the tree with a signed head of the size that was walked to.
    fn compare(&mut self, head: &SignedHead, inside: Option<&Frontier>, problems: &mut Vec<Untrusted>) {
        if self.next < head.size {
            let behind = Untrusted::Behind { found: self.next, signed: head.size, time: head.time.clone() };
            // Of several signed heads that the log does not reach, the newest says it all; they come in order.
            problems.retain(|problem| !matches!(problem, Untrusted::Behind { .. }));
            problems.push(behind);
            return;
        }
        if self.found_a_culprit || (self.intact && self.frontier.root() == head.root) {
            return;
        }
        match inside.and_then(|inside| first_other_subtree(inside, &self.frontier)) {
            Some(events) => self.blame(problems, events.start, changed_among(&events)),
            None => problems.push(Untrusted::Rewritten { signed: head.size, time: head.time.clone() }),
        }
    }

    /// The leaf hash that a full tile keeps for this event.
    fn tile_leaf(&mut self, seq: u64) -> DbResult<Option<Hash>> {
        let width = TILE_WIDTH as u64;
        let number = seq / width;
        if !is_full(0, number, self.size) {
            return Ok(None);
        }
        if self.tile.as_ref().is_none_or(|(held, _)| *held != number) {
            self.tile = tile(self.db, 0, number)?.map(|hashes| (number, hashes));
        }
        Ok(self.tile.as_ref().and_then(|(_, hashes)| hashes.get((seq % width) as usize).copied()))
    }

    /// Whether those archived events stand here that the mark says, once the others were taken out.
    fn check_kept(&self, problems: &mut Vec<Untrusted>) {
        let Some(archive) = self.archive.as_ref().filter(|archive| !archive.is_unfinished()) else { return };
        let found = self.kept.finish();
        if found != archive.kept && problems.len() < PROBLEMS_MAX {
            let (kept, found, end) = (archive.kept.records, found.records, archive.end);
            problems.push(Untrusted::State(format!(
                "of the {end} archived events {kept} were to stay here, and these are others, {found} of them: one was removed, or put back"
            )));
        }
    }

    /// Looks for tiles that differ, are gone, or were never filled.
    fn check_tiles(&mut self, problems: &mut Vec<Untrusted>) -> DbResult<()> {
        if !self.intact || self.found_a_culprit {
            return Ok(());
        }
        for full in std::mem::take(&mut self.filled) {
            let Some(made) = parse_tile(&full.hashes) else { continue };
            let stored = tile(self.db, full.level, full.number)?.unwrap_or_default();
            let Some(place) = (0..TILE_WIDTH).find(|&place| stored.get(place) != made.get(place)) else {
                continue;
            };
            let below = 1u64 << (8 * full.level);
            let first = (full.number * TILE_WIDTH as u64 + place as u64) * below;
            self.blame(problems, first, changed_among(&(first..first + below)));
        }
        for number in 0..self.size >> 8 {
            if tile(self.db, 0, number)?.is_none() {
                self.blame(problems, number * TILE_WIDTH as u64, TILE_MISSING.to_owned());
            }
        }
        let tiles = self.db.number("SELECT COUNT(*) FROM tiles", &[])?;
        if u64::try_from(tiles).is_ok_and(|tiles| tiles > full_tiles(self.size)) {
            self.blame(problems, self.size, "the tree has tiles beyond the end of the log".to_owned());
        }
        Ok(())
    }

    /// Compares every row with what the log says was written, and looks for those that are gone.
    fn check_rows(&mut self, signed: Option<&SignedHead>, problems: &mut Vec<Untrusted>) -> DbResult<u64> {
        let mut live = 0;
        let mut digest = StateDigest::default();
        let before = problems.len();
        let mut say = |text: String| {
            if problems.len() < PROBLEMS_MAX {
                problems.push(Untrusted::State(text));
            }
        };
        let (keys, expected) = (self.keys, &mut self.expected);
        for_each_raw_row(self.db, |row| {
            live += u64::from(row.body.is_some());
            let mac = row.mac(&keys.state);
            digest.add(mac);
            let known = expected.remove(&(row.kind.clone(), row.key.clone()));
            if let Some(why) = row_problem(&row, &mac, known) {
                say(format!("{} {why}", row_name(&row.kind, &row.key)));
            }
        })?;
        for ((kind, key), Expected { event, mac }) in &*expected {
            let name = row_name(kind, key);
            match mac {
                Some(_) => {
                    say(format!("{name} is gone: event {event} wrote it and no later event removed it"))
                }
                None => say(format!("the mark that event {event} removed {name} is gone")),
            }
        }
        if let Some(signed) = signed
            && problems.len() == before
            && self.keys.state.commit(&digest) != signed.state
        {
            problems.push(Untrusted::State(DIGEST_DIFFERS.to_owned()));
        }
        Ok(live)
    }
}

/// What is wrong with a row, given what the log says of it.
fn row_problem(row: &RawRow, mac: &[u8; 32], known: Option<Expected>) -> Option<String> {
    if row.odd {
        return Some("does not have the form that Keymoat gives to rows".to_owned());
    }
    match (known, row.body.is_some()) {
        (None, true) => Some("is there, but no event in the log ever wrote it".to_owned()),
        (None, false) => Some("is marked as removed, but no event in the log says so".to_owned()),
        (Some(Expected { event, mac: None }), true) => {
            Some(format!("is there again, although event {event} removed it"))
        }
        (Some(Expected { event, mac: Some(_) }), false) => {
            Some(format!("is marked as removed, but event {event} wrote it and no later event removed it"))
        }
        (Some(Expected { event, mac: Some(known) }), true) if known[..] != mac[..16] => Some(format!(
            "was changed by other means than Keymoat, or put back to an older state: it is not as event {event} wrote it"
        )),
        _ => None,
    }
}

/// An event as it stands in the table.
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) time_ms: i64,
    actor: Option<String>,
    environment: Option<String>,
    path: Option<String>,
    pub(crate) record: Vec<u8>,
    personal: Option<Vec<u8>>,
    /// Whether a column has a type that Keymoat never writes.
    odd: bool,
}

/// Hands the events of a range to `each`, in order, whatever their columns hold.
pub(crate) fn for_each_event(
    db: &Db,
    range: Range<u64>,
    mut each: impl FnMut(Stored) -> DbResult<()>,
) -> DbResult<()> {
    let scan = Scan {
        columns: "seq, time, actor, environment, path, record, personal",
        table: "events",
        filter: "seq >= ?1 AND seq <= ?2",
        params: vec![int(range.start), int(range.end.saturating_sub(1))],
        key: &["seq"],
        descending: false,
    };
    db.scan(&scan, |row| {
        each(Stored::read(row)?)?;
        Ok::<_, DbError>(true)
    })
}

impl Stored {
    pub(crate) fn has_personal(&self) -> bool {
        self.personal.is_some()
    }

    fn read(row: &Columns<'_>) -> DbResult<Self> {
        let mut odd = false;
        Ok(Self {
            seq: row.count(0)?,
            time_ms: row.any_int(1, &mut odd)?,
            actor: row.any_text(2, &mut odd)?,
            environment: row.any_text(3, &mut odd)?,
            path: row.any_text(4, &mut odd)?,
            record: row.any_blob(5, &mut odd)?.unwrap_or_default(),
            personal: row.any_blob(6, &mut odd)?,
            odd,
        })
    }

    /// What in its columns contradicts its record.
    pub(crate) fn column_inconsistency(&self, event: &Event) -> Option<String> {
        if self.odd {
            return Some("a column of it has another form than Keymoat gives it".to_owned());
        }
        let same = event.time.as_millisecond() == self.time_ms
            && Some(event.actor.to_string()) == self.actor
            && event.scope.as_ref().map(Scope::as_str) == self.environment.as_deref()
            && event.path.as_ref().map(ResourcePath::as_str) == self.path.as_deref();
        if !same {
            return Some("its searchable columns differ from its record".to_owned());
        }
        (!self.personal_fits(event))
            .then(|| "the name or address beside it is not the one that was recorded".to_owned())
    }

    /// Whether the erasable part is the one that was recorded, or was erased.
    pub(crate) fn personal_fits(&self, event: &Event) -> bool {
        self.personal.as_deref().is_none_or(|stored| {
            parse_personal(stored)
                .is_some_and(|(salt, personal)| event.personal == Some(personal.commit(&salt)))
        })
    }
}

/// The events under the first of the two trees' full subtrees that is not the same.
fn first_other_subtree(signed: &Frontier, found: &Frontier) -> Option<Range<u64>> {
    if signed.size() != found.size() {
        return None;
    }
    let (signed_bytes, found_bytes) = (signed.to_bytes(), found.to_bytes());
    let roots = signed_bytes[8..].chunks_exact(32).zip(found_bytes[8..].chunks_exact(32));
    let levels = (0..64u32).rev().filter(|level| signed.size() >> level & 1 == 1);
    let mut start = 0;
    for ((signed, found), level) in roots.zip(levels) {
        let end = start + (1u64 << level);
        if signed != found {
            return Some(start..end);
        }
        start = end;
    }
    None
}

fn changed_among(events: &Range<u64>) -> String {
    match events.end - events.start {
        1 => NOT_IN_TREE.to_owned(),
        _ => {
            format!("it or another one up to event {} was changed, or their part of the tree", events.end - 1)
        }
    }
}

/// What SQLite itself says about the file's inner order; a server looks after its own files.
fn damaged_pages(db: &Db) -> DbResult<Option<String>> {
    if db.file().is_none() {
        return Ok(None);
    }
    let said = db.query_one("PRAGMA integrity_check(1)", &[], |row| row.text(0))?.unwrap_or_default();
    Ok((said != "ok").then(|| format!("the database file is damaged: {said}")))
}

fn row_name(kind: &str, key: &str) -> String {
    match Kind::parse(kind) {
        Some(_) => format!("the {} `{key}`", kind.replace('_', " ")),
        None => format!("the row `{key}` of the unknown kind `{kind}`"),
    }
}

const DIGEST_DIFFERS: &str = "the rows differ from the signed digest, in the number of a change or more";
const TILE_MISSING: &str = "its tile of the tree is missing";
const NOT_IN_TREE: &str = "its record does not have the hash in the tree";
/// More than a person reads; the first ones tell the story.
const PROBLEMS_MAX: usize = 1000;
/// Events between two calls of the progress function.
const PROGRESS_EVERY: u64 = 4096;
