//! Writing the audit log out: the records under one signed checkpoint, oldest first, piece by piece.
//!
//! The records never change, so each piece is read by itself and no reader, however slow, keeps the database's own log
//! from being emptied. When records are taken away meanwhile, because they were archived, the export breaks off. Where
//! the pieces go is the caller's.

use keymoat_core::audit::{Action, EventFilter};
use keymoat_core::checkpoint::Checkpoint;
use keymoat_core::names::AccountName;
use keymoat_core::policy::Capability;
use keymoat_store::EventRange;

use crate::desk::system_resource;
use crate::{Caller, Vault, VaultError};

/// An export that has been allowed and recorded, and is handed out from here.
pub struct AuditExport {
    vault: Vault,
    checkpoint: String,
    end: u64,
    filter: EventFilter,
    range: EventRange,
    /// The records that are handed out one and all, none of which may be missing; none when only some fit.
    part: Option<Part>,
}

/// A part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its first record.
    pub start: u64,
    /// The first record after it.
    pub end: u64,
}

impl Vault {
    /// Begins an export of the records that fit, all under the newest checkpoint: the record of the export itself is the
    /// last that can be among them. It is on the disk before this returns. When everything fits, archived records are
    /// left out, those too that stayed.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused); [`Code::NotFound`](crate::Code::NotFound) for an unknown account.
    pub async fn export_audit(
        &self,
        caller: &Caller,
        filter: EventFilter,
        account: Option<&AccountName>,
    ) -> Result<AuditExport, VaultError> {
        let resource = system_resource("audit")?;
        self.recorded(caller, Capability::Inspect, Action::AuditExport, &resource).await?;
        let is_whole = filter == EventFilter::default() && account.is_none();
        let (filter, range) = self.range_of(filter, account)?;
        let (checkpoint, size) = newest_checkpoint(self).await?;
        if is_whole {
            let archive = self.store().read(|reader| reader.archive()).await?;
            let start = archive.map_or(0, |archive| archive.end).min(size);
            return Ok(AuditExport::new(self, checkpoint, Part { start, end: size }));
        }
        let range = EventRange { before: Some(size), ..range };
        Ok(AuditExport { vault: self.clone(), checkpoint, end: size, filter, range, part: None })
    }
}

async fn newest_checkpoint(vault: &Vault) -> Result<(String, u64), VaultError> {
    let checkpoint = vault.store().read(|reader| reader.checkpoint()).await?;
    let checkpoint = checkpoint.ok_or_else(|| VaultError::damaged("there is no checkpoint"))?;
    let (head, _) = Checkpoint::parse(&checkpoint)
        .map_err(|e| VaultError::damaged(format!("the checkpoint is damaged: {e}")))?;
    let size = head.size();
    Ok((checkpoint, size))
}

impl AuditExport {
    /// Hands out a part of the log, under the newest checkpoint.
    pub(crate) async fn of_part(vault: &Vault, part: Part) -> Result<Self, VaultError> {
        let (checkpoint, _) = newest_checkpoint(vault).await?;
        Ok(Self::new(vault, checkpoint, part))
    }

    fn new(vault: &Vault, checkpoint: String, part: Part) -> Self {
        let range = EventRange { from: part.start, before: Some(part.end), ..EventRange::default() };
        let filter = EventFilter::default();
        Self { vault: vault.clone(), checkpoint, end: part.end, filter, range, part: Some(part) }
    }

    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The records that are handed out one and all; none when only some fit.
    pub fn part(&self) -> Option<Part> {
        self.part
    }

    /// The signed checkpoint over the records.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// The next records, a line each; none when all have been handed out.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        if self.range.from >= self.end {
            return Ok(None);
        }
        let (filter, range, end) = (self.filter.clone(), self.range.clone(), self.end);
        let is_whole = self.part.is_some();
        let (lines, from, complete) = self
            .vault
            .store()
            .read(move |reader| {
                let (mut lines, mut from) = (Vec::new(), end);
                let (mut number, mut complete) = (range.from, true);
                reader.events(&range, |stored| {
                    complete &= stored.place == number;
                    // The number in a record is not its place any more where a loss was accepted.
                    number = stored.place + 1;
                    if filter.matches(&stored.event) {
                        lines.extend_from_slice(&stored.record);
                        lines.push(b'\n');
                    }
                    let goes_on = lines.len() < PIECE_BYTES;
                    if !goes_on {
                        from = number;
                    }
                    goes_on
                })?;
                complete &= from < end || number == end;
                Ok((lines, from, complete))
            })
            .await?;
        if is_whole && !complete {
            return Err(VaultError::conflict(
                "records were archived, or removed, while they were handed out",
            )
            .hint("throw away what you have of it and start it again"));
        }
        self.range.from = from;
        Ok(Some(lines).filter(|lines| !lines.is_empty()))
    }
}

/// Large enough that reading does not begin anew all the time; one record may be longer.
const PIECE_BYTES: usize = 256 * 1024;
