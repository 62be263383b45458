//! The signed log: numbers events, grows the RFC 6962 tree, keeps the digest over the live rows, signs checkpoints.
//!
//! It writes nothing itself: records, tiles and the signed head go to the database with the batch. The writer keeps a
//! copy of the [`Head`] from before a batch and puts it back when the batch fails.

use crate::batch::Log;
use crate::db::{Command, Value, int};
use crate::tiles::{TILE_WIDTH, Tiles};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keymoat_core::audit::{Event, Personal, RowChange};
use keymoat_core::checkpoint::{Checkpoint, note_text};
use keymoat_core::tree::{Frontier, Hash, leaf_hash};
use keymoat_crypto::{AuditSigner, StateDigest, StateKey, bytes as random_bytes};

/// The keys that the ledger works with, derived from the instance key.
pub struct LedgerKeys {
    /// The name under which checkpoints are signed: `keymoat/<instance id>`.
    pub origin: String,
    /// Signs checkpoints.
    pub signer: AuditSigner,
    /// Keys the digest over the live rows.
    pub state: StateKey,
}

/// An event on its way into the log: everything but its number, which the ledger gives.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The event; its `seq`, `rows` and `personal` are filled in by the ledger and its `time` never runs backwards.
    pub event: Event,
    /// The erasable part.
    pub personal: Option<Personal>,
}

/// The state of the log after the last committed batch.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) frontier: Frontier,
    pub(crate) tiles: Tiles,
    pub(crate) digest: StateDigest,
    /// The number of the newest change of `state`.
    pub(crate) change: u64,
    /// The number of the newest change that decides who may do what.
    pub(crate) epoch: u64,
    /// Time of the newest event, in milliseconds since 1970: the clock's high-water mark.
    pub(crate) time_ms: i64,
    /// The stored frontier that this head takes the place of, when it was accepted as it was found and nothing has been
    /// signed since.
    pub(crate) in_place_of: Option<Vec<u8>>,
}

impl Head {
    pub(crate) fn empty() -> Self {
        Self {
            frontier: Frontier::new(),
            tiles: Tiles::default(),
            digest: StateDigest::default(),
            change: 0,
            epoch: 0,
            time_ms: 0,
            in_place_of: None,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.frontier.size()
    }
}

/// A record with the columns that it is searched by, as it goes into the database.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) time_ms: i64,
    pub(crate) actor: String,
    pub(crate) environment: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) record: Vec<u8>,
    pub(crate) personal: Option<Vec<u8>>,
}

impl Record {
    /// The columns of an event; `record` is its canonical text.
    pub(crate) fn of(seq: u64, event: &Event, record: Vec<u8>, personal: Option<Vec<u8>>) -> Self {
        Self {
            seq,
            time_ms: event.time.as_millisecond(),
            actor: event.actor.to_string(),
            environment: event.scope.as_ref().map(|scope| scope.as_str().to_owned()),
            path: event.path.as_ref().map(|path| path.as_str().to_owned()),
            record,
            personal,
        }
    }

    pub(crate) fn values(&self) -> Vec<Value<'_>> {
        vec![
            int(self.seq),
            Value::Int(self.time_ms),
            self.actor.as_str().into(),
            self.environment.as_deref().into(),
            self.path.as_deref().into(),
            self.record.as_slice().into(),
            self.personal.as_deref().into(),
        ]
    }
}

/// Appends one event and returns its number.
pub(crate) fn append(log: &mut Log, head: &mut Head, draft: &mut Draft, rows: Vec<RowChange>) -> u64 {
    let seq = head.size();
    let event = &mut draft.event;
    event.seq = seq;
    event.rows = rows;
    // A log whose times run backwards cannot be searched by time and hides what was done meanwhile.
    let time_ms = event.time.as_millisecond().max(head.time_ms);
    event.time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or(event.time);
    let personal = draft.personal.as_ref().map(|personal| {
        let salt: [u8; 32] = random_bytes();
        let stored = personal.salted(&salt);
        event.personal = Some(Personal::commitment_of(&stored));
        stored
    });
    let record = event.canonical();
    let leaf = leaf_hash(&record);
    log.push(Record::of(seq, event, record, personal));
    head.frontier.append(leaf).expect("a log never reaches 2^63 events");
    head.time_ms = time_ms;
    head.in_place_of = None;
    log.tiles.extend(head.tiles.push(leaf));
    seq
}

/// A signed head on its way into the database, with what lets others go on from it.
pub(crate) struct SignedNote {
    pub(crate) note: String,
    frontier: Vec<u8>,
    change: u64,
    /// The hidden sum of the rows' keyed hashes: whoever has not seen the rows as they were cannot work it out. A file
    /// has one writer, who has.
    digest: Option<Vec<u8>>,
}

impl SignedNote {
    /// Signs a head; `for_others` when other nodes write into the same database.
    pub(crate) fn of(keys: &LedgerKeys, head: &Head, for_others: bool) -> Self {
        Self {
            note: sign(keys, head),
            frontier: head.frontier.to_bytes(),
            change: head.change,
            digest: for_others.then(|| keys.state.hide(&head.digest).to_vec()),
        }
    }

    /// A head that was signed before, over rows whose digest is known.
    pub(crate) fn signed(
        keys: &LedgerKeys,
        note: &str,
        frontier: &Frontier,
        change: u64,
        digest: Option<&StateDigest>,
    ) -> Self {
        Self {
            note: note.to_owned(),
            frontier: frontier.to_bytes(),
            change,
            digest: digest.map(|digest| keys.state.hide(digest).to_vec()),
        }
    }

    /// The statement that writes it beside the events that it covers.
    pub(crate) fn command(&self) -> Command<'_> {
        let mut params: Vec<Value<'_>> =
            vec![self.note.as_str().into(), self.frontier.as_slice().into(), int(self.change)];
        let sql = match &self.digest {
            None => {
                "INSERT INTO checkpoint (id, note, frontier, change) VALUES (1, ?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET note = excluded.note, frontier = excluded.frontier, change = excluded.change"
            }
            Some(digest) => {
                params.push(digest.as_slice().into());
                "UPDATE checkpoint SET note = ?1, frontier = ?2, change = ?3, digest = ?4 WHERE id = 1"
            }
        };
        Command::Execute { sql, params }
    }
}

/// The C2SP checkpoint of a head, with the digest over the live rows and the newest event's time as extension lines.
pub(crate) fn sign(keys: &LedgerKeys, head: &Head) -> String {
    let time = jiff::Timestamp::from_millisecond(head.time_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let extensions = vec![
        format!("{STATE_EXTENSION}{}", BASE64.encode(keys.state.commit(&head.digest))),
        format!("{TIME_EXTENSION}{time}"),
    ];
    let checkpoint = Checkpoint::new(&keys.origin, head.size(), head.frontier.root(), extensions)
        .expect("the origin is a short name, the size a tree's and the lines are printable");
    let body = checkpoint.body();
    let signature = keys.signer.sign(body.as_bytes());
    let key_id = keys.signer.verifying_key().key_id(&keys.origin);
    note_text(&body, &keys.origin, key_id, &signature)
        .expect("the origin is a key name and the body a checkpoint")
}

/// A checkpoint whose signature is this vault's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// Events under it.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
    /// Keyed commitment to the live rows.
    pub state: [u8; 32],
    /// Time of the newest event under it, RFC 3339.
    pub time: String,
    /// The signed note itself.
    pub note: String,
}

/// Reads a note and checks that this vault signed it; `None` when it did not or the text is torn.
pub(crate) fn verify_note(keys: &LedgerKeys, note: &str) -> Option<SignedHead> {
    let (checkpoint, signatures) = Checkpoint::parse(note).ok()?;
    if checkpoint.origin() != keys.origin {
        return None;
    }
    let verifier = keys.signer.verifying_key();
    let key_id = verifier.key_id(&keys.origin);
    let body = checkpoint.body();
    let ours = signatures.iter().any(|signature| {
        signature.name == keys.origin
            && signature.key_id == key_id
            && <&[u8; 64]>::try_from(signature.signature.as_slice())
                .is_ok_and(|signature| verifier.verify(body.as_bytes(), signature))
    });
    if !ours {
        return None;
    }
    let extension = |prefix: &str| checkpoint.extensions().iter().find_map(|line| line.strip_prefix(prefix));
    let state = BASE64.decode(extension(STATE_EXTENSION)?).ok()?.try_into().ok()?;
    Some(SignedHead {
        size: checkpoint.size(),
        root: *checkpoint.root(),
        state,
        time: extension(TIME_EXTENSION)?.to_owned(),
        note: note.to_owned(),
    })
}

/// Reads back the erasable part as it is stored beside its event: as [`Personal::salted`] gives it.
pub(crate) fn parse_personal(bytes: &[u8]) -> Option<([u8; 32], Personal)> {
    let (salt, json) = bytes.split_first_chunk::<32>()?;
    Some((*salt, serde_json::from_slice(json).ok()?))
}

const STATE_EXTENSION: &str = "state ";
const TIME_EXTENSION: &str = "time ";

// Tiles are written as they fill, so a tile's width is part of the stored format.
const _: () = assert!(TILE_WIDTH == 256);
