//! Remembers the answers to requests that may be sent again, so that a repeated one is not done twice.
//!
//! A key is claimed before the work and answered after it, each durably. A claim without an answer means that nobody
//! knows how the first attempt ended; then the work is not done again. What is remembered never holds a value: the
//! door gives only answers without any, and of the request only a keyed hash is kept.

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText};
use keymoat_store::{Draft, Kind};

use crate::desk::{Deed, system_resource};
use crate::entity::{Entity as _, IdempotencyEntity};
use crate::tokens::later;
use crate::{Caller, Code, Vault, VaultError};

/// Whether a request is the first under its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// It is the first: do the work, then call [`Vault::remember`] or [`Vault::forget`].
    First,
    /// It was answered before, with this.
    Answered(serde_json::Value),
}

impl Vault {
    /// Claims a key of the caller's for a request, or says what the same request was answered before.
    ///
    /// `request` is everything that makes the request what it is, in parts.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the key is malformed or was used for another request; [`Code::Conflict`] when the first
    /// attempt is not finished, or nobody knows how it ended.
    pub async fn claim(&self, caller: &Caller, key: &str, request: &[&[u8]]) -> Result<Attempt, VaultError> {
        check_key(key)?;
        let now = self.now();
        let entity = self.idempotency(caller, key, request, serde_json::Value::Null, now);
        let draft = self.bookkeeping("claimed")?;
        let is_pruning = entity.request.starts_with(PRUNING_DIGIT);
        let (attempt, _) = self
            .store()
            .run_tx("claim_key", move |tx| {
                let known =
                    tx.row(Kind::Idempotency, &entity.key())?.map(|row| IdempotencyEntity::parse(&row));
                if let Some(known) = known.transpose()?.filter(|known| now < known.expires_at) {
                    return answer_of(known, &entity);
                }
                tx.put(Kind::Idempotency, &entity.key(), &entity.body(), None)?;
                tx.append(draft.clone());
                Ok(Attempt::First)
            })
            .await?;
        if is_pruning {
            self.prune_idempotency().await?;
        }
        Ok(attempt)
    }

    /// Remembers the answer to a claimed request for a day. The answer must not hold a value.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn remember(
        &self,
        caller: &Caller,
        key: &str,
        request: &[&[u8]],
        answer: serde_json::Value,
    ) -> Result<(), VaultError> {
        let entity = self.idempotency(caller, key, request, answer, self.now());
        let draft = self.bookkeeping("answered")?;
        self.store()
            .run_tx("remember_answer", move |tx| {
                tx.put(Kind::Idempotency, &entity.key(), &entity.body(), None)?;
                tx.append(draft.clone());
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(())
    }

    /// Lets go of a claimed key, because nothing was done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget(&self, caller: &Caller, key: &str) -> Result<(), VaultError> {
        let key = format!("{}/{key}", caller.principal);
        self.remove_remembered(vec![key]).await
    }

    /// Drops what was remembered longer than it had to be.
    async fn prune_idempotency(&self) -> Result<(), VaultError> {
        let now = self.now();
        let ended = self
            .store()
            .read(move |reader| {
                let rows = reader.rows_with_prefix(Kind::Idempotency, "", usize::MAX)?;
                let has_ended = |row: &keymoat_store::Row| {
                    IdempotencyEntity::parse(row).is_ok_and(|known| known.expires_at <= now)
                };
                Ok(rows
                    .into_iter()
                    .filter(has_ended)
                    .take(PRUNED_AT_ONCE)
                    .map(|row| row.key)
                    .collect::<Vec<_>>())
            })
            .await?;
        if ended.is_empty() { Ok(()) } else { self.remove_remembered(ended).await }
    }

    async fn remove_remembered(&self, keys: Vec<String>) -> Result<(), VaultError> {
        let draft = self.bookkeeping("dropped")?;
        self.store()
            .run_tx("drop_keys", move |tx| {
                let mut is_any = false;
                for key in &keys {
                    is_any |= tx.remove(Kind::Idempotency, key)?;
                }
                if is_any {
                    tx.append(draft.clone());
                }
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(())
    }

    fn idempotency(
        &self,
        caller: &Caller,
        key: &str,
        request: &[&[u8]],
        answer: serde_json::Value,
        now: Timestamp,
    ) -> IdempotencyEntity {
        let parts: Vec<&[u8]> =
            std::iter::once(b"idempotency".as_slice()).chain(request.iter().copied()).collect();
        let digest = self.keyring().cursors().tag(&parts);
        IdempotencyEntity {
            principal: caller.principal,
            key: key.to_owned(),
            request: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            answer,
            expires_at: later(now, REMEMBERED_FOR),
        }
    }

    /// Every change of rows has its record, this one too.
    fn bookkeeping(&self, what: &str) -> Result<Draft, VaultError> {
        let deed = Deed::done(Action::Write, &system_resource("idempotency")?);
        Ok(self.system_draft(&"idempotency".parse()?, deed.detail("key", AuditText::new(what))))
    }
}

fn answer_of(known: IdempotencyEntity, asked: &IdempotencyEntity) -> Result<Attempt, VaultError> {
    if known.request != asked.request {
        return Err(VaultError::invalid("this idempotency key was used for another request")
            .hint("use a new key for every request that differs"));
    }
    match known.answer {
        serde_json::Value::Null => Err(VaultError::new(
            Code::Conflict,
            "the first request under this idempotency key is not finished, or nobody knows how it ended",
        )
        .hint("wait for its answer, or look whether it was done and then use a new key")),
        answer => Ok(Attempt::Answered(answer)),
    }
}

fn check_key(key: &str) -> Result<(), VaultError> {
    let is_fine = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(|b| b.is_ascii_graphic());
    if is_fine {
        return Ok(());
    }
    Err(VaultError::invalid(format!("an idempotency key has 1 to {KEY_BYTES_MAX} visible ASCII characters"))
        .hint("a random UUID is a good one"))
}

/// As long as anybody would go on trying.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// A UUID, or a few of them.
const KEY_BYTES_MAX: usize = 128;
/// One claim in 16, whichever it is, looks for what can be dropped.
const PRUNING_DIGIT: char = '0';
/// Keeps one transaction short; the next time drops more.
const PRUNED_AT_ONCE: usize = 1000;
