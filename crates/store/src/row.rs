//! A row of the `state` table: everything that is "now", in one shape.
//!
//! One shape for all kinds is what lets the signed digest, the feed of changes and the copies of other nodes
//! cover every kind without being told of it.

use keymoat_crypto::StateKey;

use crate::db::{Columns, DbResult};

/// What a state row is about. The text form is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The vault itself: its id, its birth, its wrapped instance key.
    Instance,
    /// A way to unwrap the root key.
    Slot,
    /// A wrapped data key of one environment and company.
    DataKey,
    /// A wrapped pepper of token digests.
    Pepper,
    /// An environment.
    Environment,
    /// A company.
    Company,
    /// A secret: names, versions, labels; never its value.
    Secret,
    /// The ciphertext of one version.
    Version,
    /// Where a value with this keyed fingerprint is stored.
    Fingerprint,
    /// A user, a service account or a group.
    Account,
    /// A token's digest and limits.
    Token,
    /// A policy document.
    Policy,
    /// A grant.
    Grant,
    /// A one-time sign-in code's digest.
    SignInCode,
    /// The answer to a request that may be repeated; never holds a value.
    Idempotency,
    /// A setting of the vault.
    Setting,
    /// How much of the audit log stands in archives.
    Archive,
    /// A space of issued keys and its rules.
    KeySpace,
    /// An issued key: its digest and limits, never the key.
    IssuedKey,
    /// Whether an owner of issued keys is active, as a host said.
    KeyOwner,
    /// How often an issued key was used, when last and where from.
    KeyUsage,
    /// The credits that are left to the keys of one lineage.
    KeyCredits,
}

impl Kind {
    /// Every kind, in the order in which they are loaded.
    pub const ALL: [Kind; 22] = [
        Kind::Instance,
        Kind::Slot,
        Kind::DataKey,
        Kind::Pepper,
        Kind::Environment,
        Kind::Company,
        Kind::Secret,
        Kind::Version,
        Kind::Fingerprint,
        Kind::Account,
        Kind::Token,
        Kind::Policy,
        Kind::Grant,
        Kind::SignInCode,
        Kind::Idempotency,
        Kind::Setting,
        Kind::Archive,
        Kind::KeySpace,
        Kind::IssuedKey,
        Kind::KeyOwner,
        Kind::KeyUsage,
        Kind::KeyCredits,
    ];

    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Instance => "instance",
            Kind::Slot => "slot",
            Kind::DataKey => "data_key",
            Kind::Pepper => "pepper",
            Kind::Environment => "environment",
            Kind::Company => "company",
            Kind::Secret => "secret",
            Kind::Version => "version",
            Kind::Fingerprint => "fingerprint",
            Kind::Account => "account",
            Kind::Token => "token",
            Kind::Policy => "policy",
            Kind::Grant => "grant",
            Kind::SignInCode => "sign_in_code",
            Kind::Idempotency => "idempotency",
            Kind::Setting => "setting",
            Kind::Archive => "archive",
            Kind::KeySpace => "key_space",
            Kind::IssuedKey => "issued_key",
            Kind::KeyOwner => "key_owner",
            Kind::KeyUsage => "key_usage",
            Kind::KeyCredits => "key_credits",
        }
    }

    /// The kind of a stored name; `None` for a name that this program does not know.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether a change of such a row changes who may do what, so that decisions taken before it are void.
    pub fn decides_access(self) -> bool {
        matches!(self, Kind::Account | Kind::Token | Kind::Policy | Kind::Grant)
    }
}

/// A live row of the `state` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub kind: Kind,
    /// Its name within the kind.
    pub key: String,
    /// The number of the change that wrote it.
    pub seq: u64,
    /// JSON.
    pub body: String,
    /// Ciphertext or a wrapped key, where the kind has one.
    pub blob: Option<Vec<u8>>,
}

impl Row {
    /// The keyed hash that stands for this row in the state digest and, shortened, in the audit record.
    pub fn mac(&self, key: &StateKey) -> [u8; 32] {
        live_mac(key, self.kind.as_str(), &self.key, self.seq, &self.body, self.blob.as_deref())
    }
}

/// What a committed transaction did to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It stands like this now.
    Written(Row),
    /// It stands like this now, and decisions that were taken before stay valid all the same.
    Counted(Row),
    /// It is gone.
    Removed {
        /// What kind of row.
        kind: Kind,
        /// Its key.
        key: String,
        /// The number of the change that removed it.
        seq: u64,
    },
}

impl Effect {
    /// The kind of the row.
    pub fn kind(&self) -> Kind {
        match self {
            Effect::Written(row) | Effect::Counted(row) => row.kind,
            Effect::Removed { kind, .. } => *kind,
        }
    }

    /// The number of the change.
    pub fn seq(&self) -> u64 {
        match self {
            Effect::Written(row) | Effect::Counted(row) => row.seq,
            Effect::Removed { seq, .. } => *seq,
        }
    }
}

/// Told of every row when the store is opened, and of every effect as soon as it is durable, on the writer's thread
/// and before whoever asked for it is told. It must be quick and must not wait for the store.
pub type Observer = Box<dyn FnMut(Vec<Effect>) + Send>;

/// A row of the table as it stands, removed ones included, however it was put there.
pub(crate) struct RawRow {
    pub(crate) kind: String,
    pub(crate) key: String,
    pub(crate) seq: i64,
    /// None in the mark that a removed row leaves.
    pub(crate) body: Option<String>,
    pub(crate) blob: Option<Vec<u8>>,
    /// Whether a column has a type or a content that Keymoat never writes.
    pub(crate) odd: bool,
}

impl RawRow {
    /// The columns to select for [`RawRow::read`].
    pub(crate) const COLUMNS: &str = "kind, key, seq, body, blob";

    /// Takes whatever stands in the columns; only the database itself can fail.
    pub(crate) fn read(row: &Columns<'_>) -> DbResult<Self> {
        let mut odd = false;
        let kind = row.any_text(0, &mut odd)?.unwrap_or_default();
        let key = row.any_text(1, &mut odd)?.unwrap_or_default();
        let seq = row.any_int(2, &mut odd)?;
        let body = row.any_text(3, &mut odd)?;
        let blob = row.any_blob(4, &mut odd)?;
        odd |= !(1..=SEQ_MAX).contains(&seq) || (body.is_none() && blob.is_some());
        Ok(Self { kind, key, seq, body, blob, odd })
    }

    /// The keyed hash that stands for this row in the state digest.
    pub(crate) fn mac(&self, state: &StateKey) -> [u8; 32] {
        let mut form = match self.body {
            Some(_) => u8::from(self.blob.is_some()),
            None => FORM_REMOVED,
        };
        if self.odd {
            form |= FORM_ODD;
        }
        let body = self.body.as_deref().unwrap_or_default();
        let blob = self.blob.as_deref().unwrap_or_default();
        mac(state, &self.kind, &self.key, &self.seq.to_be_bytes(), body, form, blob)
    }

    /// As [`RawRow::into_live`], leaving this one.
    pub(crate) fn live(&self) -> Option<Row> {
        let kind = Kind::parse(&self.kind).filter(|_| !self.odd)?;
        let (key, blob) = (self.key.clone(), self.blob.clone());
        Some(Row { kind, key, seq: u64::try_from(self.seq).ok()?, body: self.body.clone()?, blob })
    }

    /// The live row, when it is one of a known kind and as Keymoat writes them; else this one again.
    pub(crate) fn into_live(self) -> Result<Row, Self> {
        let kind = Kind::parse(&self.kind).filter(|_| !self.odd);
        match (kind, u64::try_from(self.seq), self.body) {
            (Some(kind), Ok(seq), Some(body)) => Ok(Row { kind, key: self.key, seq, body, blob: self.blob }),
            (_, _, body) => Err(Self { body, ..self }),
        }
    }
}

/// The keyed hash of the mark that a removed row leaves.
pub(crate) fn removed_mac(state: &StateKey, kind: Kind, key: &str, seq: u64) -> [u8; 32] {
    mac(state, kind.as_str(), key, &seq.to_be_bytes(), "", FORM_REMOVED, &[])
}

fn live_mac(state: &StateKey, kind: &str, key: &str, seq: u64, body: &str, blob: Option<&[u8]>) -> [u8; 32] {
    let form = u8::from(blob.is_some());
    mac(state, kind, key, &seq.to_be_bytes(), body, form, blob.unwrap_or_default())
}

fn mac(
    state: &StateKey,
    kind: &str,
    key: &str,
    seq: &[u8; 8],
    body: &str,
    form: u8,
    blob: &[u8],
) -> [u8; 32] {
    state.row(&[kind.as_bytes(), key.as_bytes(), seq, body.as_bytes(), &[form], blob])
}

/// Changes are counted from 1; nobody reaches this number, so a larger one was not written by Keymoat.
pub(crate) const SEQ_MAX: i64 = 1 << 62;
/// What kind of row a keyed hash is of: 0 and 1 are live rows without and with a blob.
const FORM_REMOVED: u8 = 2;
const FORM_ODD: u8 = 4;
