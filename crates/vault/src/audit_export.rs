//! Writing the audit log out: the records under one signed checkpoint, oldest first, piece by piece.
//!
//! The records never change and are never taken away, so each piece is read by itself and no reader, however slow, keeps
//! the database's own log from being emptied. Where the pieces go is the caller's.

use keymoat_core::audit::{Action, EventFilter};
use keymoat_core::checkpoint::Checkpoint;
use keymoat_core::names::AccountName;
use keymoat_core::policy::Capability;
use keymoat_store::EventRange;

use crate::desk::{Deed, system_resource};
use crate::{Caller, Vault, VaultError};

/// An export that has been allowed and recorded, and is handed out from here.
pub struct AuditExport {
    vault: Vault,
    checkpoint: String,
    size: u64,
    filter: EventFilter,
    range: EventRange,
}

impl Vault {
    /// Begins an export of the records that fit, all under the newest checkpoint: the record of the export itself is the
    /// last that can be among them. It is on the disk before this returns.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused); [`Code::NotFound`](crate::Code::NotFound) for an unknown account.
    pub async fn export_audit(
        &self,
        caller: &Caller,
        filter: EventFilter,
        account: Option<&AccountName>,
    ) -> Result<AuditExport, VaultError> {
        self.retry_stale(|| async {
            let resource = system_resource("audit")?;
            let permit =
                self.authorize(caller, Capability::Inspect, Action::AuditExport, resource.clone()).await?;
            self.record(&permit, Deed::done(Action::AuditExport, &resource)).await
        })
        .await?;
        let (filter, range) = self.range_of(filter, account)?;
        let checkpoint = self.store().read(|reader| reader.checkpoint()).await?;
        let checkpoint = checkpoint.ok_or_else(|| VaultError::damaged("there is no checkpoint"))?;
        let (head, _) = Checkpoint::parse(&checkpoint)
            .map_err(|e| VaultError::damaged(format!("the checkpoint is damaged: {e}")))?;
        let size = head.size();
        let range = EventRange { before: Some(size), ..range };
        Ok(AuditExport { vault: self.clone(), checkpoint, size, filter, range })
    }
}

impl AuditExport {
    /// The signed checkpoint over the records.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// How many records are under the checkpoint, those that do not fit included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next records, a line each; none when all have been handed out.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        if self.range.from >= self.size {
            return Ok(None);
        }
        let (filter, range, size) = (self.filter.clone(), self.range.clone(), self.size);
        let (lines, from) = self
            .vault
            .store()
            .read(move |reader| {
                let (mut lines, mut from) = (Vec::new(), size);
                let mut number = range.from;
                reader.events(&range, |stored| {
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
                Ok((lines, from))
            })
            .await?;
        self.range.from = from;
        Ok(Some(lines).filter(|lines| !lines.is_empty()))
    }
}

/// Large enough that reading does not begin anew all the time; one record may be longer.
const PIECE_BYTES: usize = 256 * 1024;
