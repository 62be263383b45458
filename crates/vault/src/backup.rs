//! Backup and restore: everything that a vault holds, in one file that does not depend on the database under it.
//!
//! The format is described in `docs/reference/backup-format.md`. Values in it stay encrypted under their data keys, and
//! the whole is encrypted once more under a key derived from the instance key. A restore reads the file twice: first it
//! checks all of it, down to the signed checkpoint of the audit log, then it writes all of it in one transaction. Where
//! a backup is kept, and how it gets there, is the caller's.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use keymoat_core::audit::{Action, AuditText, MAX_EVENT_BYTES, ReasonCode};
use keymoat_core::policy::{Capability, CompiledPolicy};
use keymoat_crypto::{BACKUP_HEADER_LEN, BackupError, BackupOpener, BackupSealer};
use keymoat_store::{
    Archive, CopiedEvent, CopiedRow, Counts, DataDir, Entry, Kind, OpenError, OutsideFit, Reader, Row,
    SealedStore, Tallied, Tally, Trust, database_in,
};
use serde::{Deserialize, Serialize};

use crate::desk::{Deed, system_resource};
use crate::entity::{
    Account, CompanyEntity, Entity, EnvironmentEntity, FingerprintEntity, GrantEntity, INSTANCE_KEY,
    IdempotencyEntity, Instance, PolicyEntity, Secret, SignInCodeEntity, Slot, TokenEntity, VersionEntity,
};
use crate::issued::{IssuedKey, KeyCredits, KeyOwner, KeySpace, KeyUsage};
use crate::keyring::{Keyring, origin};
use crate::open::{operator, outside_file, start, unwrap_root};
use crate::tokens::digest_of;
use crate::{Caller, Code, MasterKeyOffer, Surroundings, Vault, VaultError};

/// What stands readable at the beginning of a backup: which vault it is of, and how its keys are wrapped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupHeader {
    /// The vault.
    pub instance: Instance,
    /// When the backup was made.
    pub created_at: Timestamp,
    /// The number of the meaning of the rows in it.
    pub schema: u32,
    /// The version of the program that made it.
    pub program: String,
    /// The ways to unwrap the root key.
    pub slots: Vec<SlotCopy>,
    /// The instance key, wrapped by the root key, in base64.
    pub instance_key: String,
    /// How many events it holds.
    pub events: u64,
    /// The signed checkpoint over everything in it, a C2SP signed note.
    pub checkpoint: String,
}

/// A slot with the root key wrapped in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SlotCopy {
    /// The slot.
    pub slot: Slot,
    /// The wrapped root key, in base64.
    pub wrapped: String,
}

/// What a backup holds, as far as it may be told.
#[derive(Debug, Clone)]
pub struct BackupSummary {
    /// The vault.
    pub instance: uuid::Uuid,
    /// When the backup was made.
    pub created_at: Timestamp,
    /// Live rows.
    pub rows: u64,
    /// Events of the audit log.
    pub events: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// The signed checkpoint over everything in it.
    pub checkpoint: String,
}

/// What a restore did.
#[derive(Debug, Clone)]
pub struct RestoreSummary {
    /// What was restored.
    pub backup: BackupSummary,
    /// What spoke against it and was accepted, in words.
    pub accepted: Option<String>,
    /// The number of the record of the restore.
    pub event: u64,
}

/// A backup file whose header was read.
pub struct BackupFile<R> {
    source: R,
    header: BackupHeader,
    /// The magic line and the header line as they stand in the file: what the encrypted part is bound to.
    head: Vec<u8>,
    bytes: u64,
}

impl Vault {
    /// Hands a backup of everything, as of one moment, to `sink`, piece by piece; others go on reading and writing.
    ///
    /// The record is on the disk before the first byte leaves. A backup that does not fit its own checkpoint fails, so
    /// that nobody keeps one that could not be restored; what `sink` was given before an error must be thrown away.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::Damaged`] when the vault was edited; [`Code::Unavailable`] when `sink` fails.
    pub async fn backup(
        &self,
        caller: &Caller,
        sink: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<BackupSummary, VaultError> {
        let resource = system_resource("backup")?;
        let permit = self.recorded(caller, Capability::Inspect, Action::Backup, &resource).await?;
        let (keyring, created_at) = (self.keyring_arc(), self.now());
        let outcome = self
            .store()
            .read(move |reader| Ok(write_backup(reader, &keyring, created_at, Output { sink, bytes: 0 })))
            .await?;
        if outcome.is_err() {
            let deed = Deed::failed(Action::Backup, &resource, ReasonCode::Internal);
            self.store().append(self.draft(caller, deed, Some(permit.decided_by)), None).await?;
        }
        outcome
    }
}

impl<R: Read + Seek> BackupFile<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the file is not a backup or a newer program made it; [`Code::Damaged`] when it is cut
    /// short.
    pub fn open(mut source: R) -> Result<Self, VaultError> {
        let bytes = source.seek(SeekFrom::End(0)).map_err(unreadable)?;
        source.rewind().map_err(unreadable)?;
        let magic = read_line(&mut source, MAGIC.len() + 16)?;
        check_magic(&magic)?;
        let line = read_line(&mut source, HEADER_BYTES_MAX)?;
        if line.last() != Some(&b'\n') {
            return Err(cut_short());
        }
        let schema: SchemaOnly = serde_json::from_slice(&line).map_err(|_| altered_header())?;
        if schema.schema > SCHEMA {
            return Err(newer());
        }
        let header: BackupHeader = serde_json::from_slice(&line).map_err(|_| altered_header())?;
        Ok(Self { source, header, head: [magic, line].concat(), bytes })
    }

    /// What stands readable in it; whether it is true is known when it was verified.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// Reads all of it and checks all of it; nothing is written.
    ///
    /// # Errors
    /// [`Code::Sealed`] when the master key does not fit; [`Code::Damaged`] when anything else does not.
    pub fn verify(&mut self, offer: &MasterKeyOffer) -> Result<BackupSummary, VaultError> {
        let keyring = self.unwrap(offer)?;
        let ledger = keyring.ledger();
        let tallied = self.check(&keyring, Tally::new(&ledger))?;
        Ok(self.summary(&tallied))
    }

    /// Checks all of it, then makes the vault of it in a data directory that has none yet.
    ///
    /// Where the checkpoint file of this machine knows of events that the backup does not have, the restore is refused
    /// unless `accept` says why it is right all the same.
    ///
    /// # Errors
    /// As [`BackupFile::verify`]; [`Code::Conflict`] when there is a vault in the directory, or when the backup is
    /// older than what this machine has signed.
    pub async fn restore(
        mut self,
        data_dir: &Path,
        offer: &MasterKeyOffer,
        surroundings: Surroundings,
        accept: Option<&AuditText>,
    ) -> Result<(Vault, RestoreSummary), VaultError> {
        let store = match surroundings.database.is_some() || database_in(data_dir).exists() {
            true => Some(empty_store(data_dir, &surroundings)?),
            false => None,
        };
        let vault = origin(self.header.instance.id);
        store.as_ref().map_or(Ok(()), |store| store.check_vault(&vault))?;
        let node = store.as_ref().and_then(SealedStore::node_id);
        let outside = outside_file(&surroundings.outside_dir, self.header.instance.id, node);
        let keyring = self.unwrap(offer)?;
        let ledger = keyring.ledger();
        let tallied = self.check(&keyring, Tally::beside(&ledger, &outside)?)?;
        let against = match &tallied.outside {
            OutsideFit::Against(untrusted) => Some(untrusted.to_string()),
            OutsideFit::Absent | OutsideFit::Contained => None,
        };
        let accepted = match (against, accept) {
            (Some(found), None) => return Err(against_the_file_outside(&found)),
            (Some(found), Some(why)) => Some((found, why)),
            (None, _) => None,
        };

        // A directory without a vault is not touched before everything fits.
        let store = store.map_or_else(|| empty_store(data_dir, &surroundings), Ok)?;
        let make_outside = (tallied.outside == OutsideFit::Absent).then_some(outside.as_path());
        let note = self.header.checkpoint.clone();
        store.fill(&ledger, &note, make_outside, |write| {
            self.records(&keyring, |record| match record.into_entry()? {
                Some(entry) => Ok(write(entry)?),
                None => Ok(()),
            })
        })?;

        let trust = if accepted.is_some() { Trust::Accept } else { Trust::Checked };
        let vault = start(store, keyring, surroundings, trust)?;
        let event = self.record_restore(&vault, accepted.as_ref()).await?;
        let backup = self.summary(&tallied);
        Ok((vault, RestoreSummary { backup, accepted: accepted.map(|(found, _)| found), event }))
    }

    /// Writes down the restore, and before it what was accepted; both stand or neither.
    async fn record_restore(
        &self,
        vault: &Vault,
        accepted: Option<&(String, &AuditText)>,
    ) -> Result<u64, VaultError> {
        let mut drafts = Vec::new();
        if let Some((found, why)) = accepted {
            let deed = Deed::done(Action::AuditAcceptRestore, &system_resource("audit")?)
                .because(Some(why))
                .detail("found", AuditText::new(found));
            drafts.push(vault.system_draft(&operator()?, deed));
        }
        let deed = Deed::done(Action::Restore, &system_resource("backup")?)
            .detail("backup_created_at", AuditText::new(&self.header.created_at.to_string()))
            .detail("backup_events", AuditText::new(&self.header.events.to_string()));
        drafts.push(vault.system_draft(&operator()?, deed));
        let last = drafts.len() as u64 - 1;
        let (_, committed) = vault
            .store()
            .run_tx("restore", move |tx| {
                drafts.iter().for_each(|draft| tx.append(draft.clone()));
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(committed.event + last)
    }

    fn unwrap(&self, offer: &MasterKeyOffer) -> Result<Keyring, VaultError> {
        let slots = self.header.slots.iter().map(|copy| {
            let wrapped = BASE64.decode(&copy.wrapped).map_err(|_| altered_header())?;
            Ok((copy.slot.clone(), wrapped))
        });
        let wrapped_instance = BASE64.decode(&self.header.instance_key).map_err(|_| altered_header())?;
        let instance = &self.header.instance;
        let root = unwrap_root(instance.id, &slots.collect::<Result<Vec<_>, VaultError>>()?, offer)?;
        Keyring::unwrap(instance, root, &wrapped_instance)
            .map_err(|_| altered("the instance key in its header does not belong to its root key"))
    }

    /// Reads every record, checks each by itself and all together.
    fn check(&mut self, keyring: &Keyring, mut tally: Tally<'_>) -> Result<Tallied, VaultError> {
        let instance = self.header.instance.clone();
        let mut end = None;
        self.records(keyring, |record| {
            if end.is_some() {
                return Err(altered("there are records after its end"));
            }
            if let Record::End { .. } = &record {
                end = Some(record);
                return Ok(());
            }
            let Some(entry) = record.into_entry()? else { return Ok(()) };
            tally.add(&entry).map_err(|untrusted| altered(&untrusted.to_string()))?;
            match entry {
                Entry::Row(row) => row.live().map_or(Ok(()), |row| check_row(&row, keyring, &instance)),
                Entry::Event(_) | Entry::Archived(_) => Ok(()),
            }
        })?;
        let tallied =
            tally.finish(&self.header.checkpoint).map_err(|untrusted| altered(&untrusted.to_string()))?;
        match end {
            Some(end) if end == Record::end(&tallied) => Ok(tallied),
            Some(_) => Err(altered("it does not hold as much as it says at its end")),
            None => Err(cut_short()),
        }
    }

    /// Decrypts the records from the first to the last; the last is followed by nothing.
    fn records(
        &mut self,
        keyring: &Keyring,
        mut each: impl FnMut(Record) -> Result<(), VaultError>,
    ) -> Result<(), VaultError> {
        self.source.seek(SeekFrom::Start(self.head.len() as u64)).map_err(unreadable)?;
        let mut stream_header = [0; BACKUP_HEADER_LEN];
        read_exactly(&mut self.source, &mut stream_header)?;
        let mut opener =
            BackupOpener::new(&keyring.backup_key(), &self.head, &stream_header).map_err(unopened)?;
        let mut frames = Frames::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = self.source.read(&mut piece).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            frames.push(opener.push(&piece[..read]).map_err(unopened)?, &mut each)?;
        }
        frames.push(opener.finish().map_err(unopened)?, &mut each)?;
        if frames.pending.is_empty() { Ok(()) } else { Err(cut_short()) }
    }

    fn summary(&self, tallied: &Tallied) -> BackupSummary {
        BackupSummary {
            instance: self.header.instance.id,
            created_at: self.header.created_at,
            rows: tallied.counts.rows,
            events: tallied.counts.events,
            bytes: self.bytes,
            checkpoint: self.header.checkpoint.clone(),
        }
    }
}

/// One record of a backup: a row, the mark of a removed row, an event, the hashes of archived ones, or the end.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Record {
    Row {
        kind: String,
        key: String,
        seq: u64,
        body: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blob: Option<String>,
    },
    Removed {
        kind: String,
        key: String,
        seq: u64,
    },
    Event {
        /// The canonical text that the tree commits to.
        record: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        personal: Option<String>,
    },
    /// An event whose stored bytes are no text, kept because an administrator accepted them.
    DamagedEvent {
        record: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        personal: Option<String>,
    },
    /// Events that stand in an archive only: their leaf hashes, one after the other, in base64.
    Archived {
        leaves: String,
    },
    End {
        rows: u64,
        removed: u64,
        events: u64,
        change: u64,
        root: String,
    },
}

impl Record {
    fn of(entry: Entry) -> Self {
        let encode = |bytes: Option<Vec<u8>>| bytes.map(|bytes| BASE64.encode(bytes));
        match entry {
            Entry::Row(CopiedRow { kind, key, seq, body: Some(body), blob }) => {
                Self::Row { kind, key, seq, body, blob: encode(blob) }
            }
            Entry::Row(CopiedRow { kind, key, seq, .. }) => Self::Removed { kind, key, seq },
            Entry::Event(CopiedEvent { record, personal }) => match String::from_utf8(record) {
                Ok(record) => Self::Event { record, personal: encode(personal) },
                Err(error) => {
                    Self::DamagedEvent { record: BASE64.encode(error.as_bytes()), personal: encode(personal) }
                }
            },
            Entry::Archived(leaves) => Self::Archived { leaves: BASE64.encode(leaves.concat()) },
        }
    }

    fn end(tallied: &Tallied) -> Self {
        let Counts { rows, removed, events, change, archived: _ } = tallied.counts;
        Self::End { rows, removed, events, change, root: BASE64.encode(tallied.head.root) }
    }

    /// The entry that it carries; none for the end.
    fn into_entry(self) -> Result<Option<Entry>, VaultError> {
        let decode = |text: &str| {
            BASE64.decode(text).map_err(|_| altered("a record is not base64 where it should be"))
        };
        let optional = |text: Option<String>| text.map(|text| decode(&text)).transpose();
        Ok(Some(match self {
            Self::Row { kind, key, seq, body, blob } => {
                Entry::Row(CopiedRow { kind, key, seq, body: Some(body), blob: optional(blob)? })
            }
            Self::Removed { kind, key, seq } => {
                Entry::Row(CopiedRow { kind, key, seq, body: None, blob: None })
            }
            Self::Event { record, personal } => {
                Entry::Event(CopiedEvent { record: record.into_bytes(), personal: optional(personal)? })
            }
            Self::DamagedEvent { record, personal } => {
                Entry::Event(CopiedEvent { record: decode(&record)?, personal: optional(personal)? })
            }
            Self::Archived { leaves } => {
                let bytes = decode(&leaves)?;
                let (leaves, rest) = bytes.as_chunks::<32>();
                match rest.is_empty() {
                    true => Entry::Archived(leaves.to_vec()),
                    false => return Err(altered("the hashes of archived records are cut short")),
                }
            }
            Self::End { .. } => return Ok(None),
        }))
    }

    /// The record with its length in front.
    fn framed(&self) -> Result<Vec<u8>, VaultError> {
        let mut frame = vec![0; LENGTH_BYTES];
        serde_json::to_writer(&mut frame, self).map_err(|e| {
            VaultError::new(Code::Internal, format!("a record of the backup cannot be written: {e}"))
        })?;
        let length = frame.len() - LENGTH_BYTES;
        let Some(length) = u32::try_from(length).ok().filter(|_| length <= RECORD_BYTES_MAX) else {
            return Err(VaultError::damaged("a row or an event is larger than any that Keymoat writes"));
        };
        frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok(frame)
    }
}

/// Cuts the decrypted stream into records.
#[derive(Default)]
struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    fn push(
        &mut self,
        content: Vec<u8>,
        each: &mut impl FnMut(Record) -> Result<(), VaultError>,
    ) -> Result<(), VaultError> {
        self.pending.extend_from_slice(&content);
        let mut rest = self.pending.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > RECORD_BYTES_MAX {
                return Err(altered("a record is longer than any that Keymoat writes"));
            }
            let Some((json, next)) = after.split_at_checked(length) else { break };
            // The text of a parser's error may repeat what it read.
            let record =
                serde_json::from_slice(json).map_err(|_| altered("a record in it cannot be read"))?;
            each(record)?;
            rest = next;
        }
        let used = self.pending.len() - rest.len();
        self.pending.drain(..used);
        Ok(())
    }
}

/// Where the bytes of a backup go.
struct Output<S> {
    sink: S,
    bytes: u64,
}

impl<S: FnMut(&[u8]) -> io::Result<()>> Output<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), VaultError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.bytes += bytes.len() as u64;
        (self.sink)(bytes).map_err(|error| {
            VaultError::new(Code::Unavailable, format!("the backup cannot be written: {error}"))
                .hint("throw away what was written of it, make room, and start it again")
        })
    }
}

fn write_backup(
    reader: &Reader<'_>,
    keyring: &Keyring,
    created_at: Timestamp,
    mut output: Output<impl FnMut(&[u8]) -> io::Result<()>>,
) -> Result<BackupSummary, VaultError> {
    let header = header_of(reader, created_at)?;
    let mut head = MAGIC.to_vec();
    serde_json::to_writer(&mut head, &header).map_err(|e| {
        VaultError::new(Code::Internal, format!("the header of the backup cannot be written: {e}"))
    })?;
    head.push(b'\n');
    output.write(&head)?;
    let (mut sealer, stream_header) = BackupSealer::new(&keyring.backup_key(), &head);
    output.write(&stream_header)?;
    let ledger = keyring.ledger();
    let mut tally = Tally::new(&ledger);
    reader.entries(|entry| {
        tally.add(&entry).map_err(|untrusted| VaultError::damaged(untrusted.to_string()))?;
        output.write(&sealer.push(&Record::of(entry).framed()?))
    })?;
    // What cannot be restored must not look like a backup: without its last chunk it does not open.
    let tallied =
        tally.finish(&header.checkpoint).map_err(|untrusted| VaultError::damaged(untrusted.to_string()))?;
    output.write(&sealer.push(&Record::end(&tallied).framed()?))?;
    output.write(&sealer.finish())?;
    Ok(BackupSummary {
        instance: header.instance.id,
        created_at,
        rows: tallied.counts.rows,
        events: tallied.counts.events,
        bytes: output.bytes,
        checkpoint: header.checkpoint,
    })
}

fn header_of(reader: &Reader<'_>, created_at: Timestamp) -> Result<BackupHeader, VaultError> {
    let instance = reader.row(Kind::Instance, INSTANCE_KEY)?;
    let instance = instance.ok_or_else(|| VaultError::damaged("the vault does not know its own id"))?;
    let slots = reader.rows_with_prefix(Kind::Slot, "", usize::MAX)?.into_iter().map(|row| {
        Ok(SlotCopy { slot: Slot::parse(&row)?, wrapped: BASE64.encode(row.blob.unwrap_or_default()) })
    });
    Ok(BackupHeader {
        instance_key: BASE64.encode(instance.blob.as_deref().unwrap_or_default()),
        instance: Instance::parse(&instance)?,
        created_at,
        schema: if reader.archive()?.is_some() { SCHEMA } else { SCHEMA_WITHOUT_ARCHIVE },
        program: env!("CARGO_PKG_VERSION").to_owned(),
        slots: slots.collect::<Result<_, VaultError>>()?,
        events: reader.events_len()?,
        checkpoint: reader.checkpoint()?.ok_or_else(|| VaultError::damaged("there is no checkpoint"))?,
    })
}

/// Whether a row has the form of its kind and, for keys, unwraps.
fn check_row(row: &Row, keyring: &Keyring, header: &Instance) -> Result<(), VaultError> {
    match row.kind {
        Kind::Instance => {
            let instance = Instance::parse(row)?;
            if instance.id != header.id || instance.audit_generation != header.audit_generation {
                return Err(altered("the vault in it is not the one that it says it is of"));
            }
            keyring.absorb_instance(row)?;
        }
        Kind::Slot => parses::<Slot>(row)?,
        Kind::DataKey => keyring.absorb_data_key(row)?,
        Kind::Pepper => keyring.absorb_pepper(row)?,
        Kind::Environment => parses::<EnvironmentEntity>(row)?,
        Kind::Company => parses::<CompanyEntity>(row)?,
        Kind::Secret => parses::<Secret>(row)?,
        Kind::Version => check_version(row, keyring)?,
        Kind::Fingerprint => parses::<FingerprintEntity>(row)?,
        Kind::Account => parses::<Account>(row)?,
        Kind::Token => digest_of(&TokenEntity::parse(row)?.digest).map(|_| ())?,
        Kind::Policy => {
            let policy = PolicyEntity::parse(row)?.policy;
            let name = policy.name.clone();
            CompiledPolicy::new(policy).map_err(|e| altered(&format!("policy `{name}`: {e}")))?;
        }
        Kind::Grant => GrantEntity::parse(row)?.to_grant().map(|_| ())?,
        Kind::SignInCode => digest_of(&SignInCodeEntity::parse(row)?.digest).map(|_| ())?,
        Kind::Idempotency => parses::<IdempotencyEntity>(row)?,
        Kind::Archive => parses::<Archive>(row)?,
        Kind::KeySpace => parses::<KeySpace>(row)?,
        Kind::IssuedKey => digest_of(&IssuedKey::parse(row)?.digest).map(|_| ())?,
        Kind::KeyOwner => parses::<KeyOwner>(row)?,
        Kind::KeyUsage => parses::<KeyUsage>(row)?,
        Kind::KeyCredits => parses::<KeyCredits>(row)?,
        Kind::Setting => {}
    }
    Ok(())
}

fn parses<E: Entity>(row: &Row) -> Result<(), VaultError> {
    E::parse(row).map(|_| ())
}

/// Whether a version's ciphertext is under the data key that its row names, and that key is there.
fn check_version(row: &Row, keyring: &Keyring) -> Result<(), VaultError> {
    let version = VersionEntity::parse(row)?;
    let Some(ciphertext) = &row.blob else {
        return Err(altered(&format!("version `{}` has no ciphertext", row.key)));
    };
    let number = keymoat_crypto::data_key_of(ciphertext)
        .map_err(|e| altered(&format!("version `{}`: {e}", row.key)))?;
    // INVARIANT: kinds come in the order of their names, so every data key was taken in before the first version.
    match number == version.data_key && keyring.data_key(number).is_some() {
        true => Ok(()),
        false => {
            Err(altered(&format!("version `{}` is under data key {number}, which is not in it", row.key)))
        }
    }
}

/// The store of a data directory that has no vault in it.
fn empty_store(data_dir: &Path, surroundings: &Surroundings) -> Result<SealedStore, VaultError> {
    let dir = DataDir::lock(data_dir)?.with_database(surroundings.database.clone())?;
    let store = SealedStore::open(dir, surroundings.durability)?;
    if store.is_empty()? {
        return Ok(store);
    }
    Err(VaultError::from(OpenError::Exists(data_dir.to_owned()))
        .hint("restore into another directory with --data, or move the old one away first"))
}

/// Reads up to and with the next newline, at most `max` bytes.
fn read_line(source: &mut impl Read, max: usize) -> Result<Vec<u8>, VaultError> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < max && line.last() != Some(&b'\n') {
        match source.read(&mut byte).map_err(unreadable)? {
            0 => break,
            _ => line.push(byte[0]),
        }
    }
    Ok(line)
}

fn read_exactly(source: &mut impl Read, buffer: &mut [u8]) -> Result<(), VaultError> {
    source.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => cut_short(),
        _ => unreadable(error),
    })
}

fn check_magic(line: &[u8]) -> Result<(), VaultError> {
    if line == MAGIC {
        return Ok(());
    }
    if MAGIC.starts_with(line) {
        return Err(cut_short());
    }
    let number = line.strip_prefix(MAGIC_NAME).and_then(|rest| rest.strip_suffix(b"\n"));
    match number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit)) {
        true => Err(newer()),
        false => Err(VaultError::invalid("the file is not a Keymoat backup")
            .hint("`keymoat backup` makes one; other files come in with `keymoat import`")),
    }
}

fn newer() -> VaultError {
    VaultError::invalid("the backup was made by a newer Keymoat, in a form that this one does not know")
        .hint("update this program")
}

fn cut_short() -> VaultError {
    VaultError::new(Code::Damaged, "the backup is cut short").hint(ANOTHER_COPY)
}

fn altered(why: &str) -> VaultError {
    VaultError::new(Code::Damaged, format!("the backup cannot be trusted: {why}")).hint(ANOTHER_COPY)
}

fn altered_header() -> VaultError {
    altered("its header cannot be read")
}

fn unopened(error: BackupError) -> VaultError {
    match error {
        BackupError::Truncated => cut_short(),
        other => VaultError::new(Code::Damaged, other.to_string()).hint(ANOTHER_COPY),
    }
}

fn unreadable(error: io::Error) -> VaultError {
    VaultError::new(Code::Unavailable, format!("the backup cannot be read: {error}"))
}

fn against_the_file_outside(found: &str) -> VaultError {
    // What follows is advice for a vault that is there; here it is not yet.
    let found = found.split_once("; ").map_or(found, |(what, _)| what);
    VaultError::new(Code::Conflict, format!("the checkpoint file on this machine speaks against the backup: {found}"))
        .hint("restore a newer backup, or say why this one is right with --accept-older REASON; the reason is written down")
}

const MAGIC_NAME: &[u8] = b"keymoat-backup-";
/// The first line; another number is another form.
const MAGIC: &[u8] = b"keymoat-backup-1\n";
/// What rows mean. It grows when an older program would misread them.
const SCHEMA: u32 = 2;
/// Nothing in a backup without archived records means anything new, so older programs go on reading it.
const SCHEMA_WITHOUT_ARCHIVE: u32 = 1;
const LENGTH_BYTES: usize = 4;
/// Room for the most slots that a vault may have, many times over.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// An event of the greatest length, every byte of it escaped.
const RECORD_BYTES_MAX: usize = 2 * MAX_EVENT_BYTES + 1024 * 1024;
/// Read from the file at once.
const PIECE_BYTES: usize = 64 * 1024;
const ANOTHER_COPY: &str = "fetch it again from where it is kept, or take another one; nothing was written";

/// The one member of a header that every later form keeps.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(stream: &[u8], cut: usize) -> Result<Vec<Record>, VaultError> {
        let mut frames = Frames::default();
        let mut records = Vec::new();
        for piece in stream.chunks(cut) {
            frames.push(piece.to_vec(), &mut |record| {
                records.push(record);
                Ok(())
            })?;
        }
        if frames.pending.is_empty() { Ok(records) } else { Err(cut_short()) }
    }

    #[test]
    fn first_lines() {
        #[track_caller]
        fn check(line: &[u8], says: &str) {
            let error = check_magic(line).unwrap_err();
            assert!(error.message.contains(says), "{error}");
        }
        check_magic(b"keymoat-backup-1\n").unwrap();
        check(b"", "cut short");
        check(b"keymoat-ba", "cut short");
        check(b"keymoat-backup-1", "cut short");
        check(b"keymoat-backup-2\n", "newer");
        check(b"keymoat-backup-12\n", "newer");
        check(b"keymoat-backup-x\n", "not a Keymoat backup");
        check(b"keymoat-backup-\n", "not a Keymoat backup");
        check(b"SQLite format 3\0", "not a Keymoat backup");
        check(b"{\"secrets\":[]}", "not a Keymoat backup");
    }

    #[test]
    fn too_long_a_record_is_refused_before_it_is_read() {
        let error = frames(&u32::MAX.to_be_bytes(), 64).unwrap_err();
        assert!(error.message.contains("longer than any"), "{error}");
    }

    proptest! {
        #[test]
        fn records_survive_any_cutting(
            rows in proptest::collection::vec(
                (".{0,12}", ".{0,12}", 1..u64::MAX, proptest::option::of(".{0,40}"),
                 proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))),
                0..8,
            ),
            events in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..60),
                 proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60))),
                0..8,
            ),
            leaves in proptest::collection::vec(proptest::collection::vec(any::<[u8; 32]>(), 1..4), 0..3),
            cut in 1usize..200,
        ) {
            let rows = rows.into_iter().map(|(kind, key, seq, body, blob)| {
                let blob = blob.filter(|_| body.is_some());
                Entry::Row(CopiedRow { kind, key, seq, body, blob })
            });
            let events = events.into_iter().map(|(record, personal)| Entry::Event(CopiedEvent { record, personal }));
            let archived = leaves.into_iter().map(Entry::Archived);
            let entries: Vec<Entry> = rows.chain(archived).chain(events).collect();
            let stream: Vec<u8> =
                entries.iter().flat_map(|entry| Record::of(entry.clone()).framed().unwrap()).collect();
            let read = frames(&stream, cut).unwrap();
            let back: Vec<Entry> = read.into_iter().filter_map(|record| record.into_entry().unwrap()).collect();
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            let mut like = vec![0, 0, 0, 9];
            like.extend_from_slice(&noise);
            let _ = (frames(&noise, cut), frames(&like, cut), check_magic(&noise));
        }
    }
}
