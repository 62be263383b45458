//! Remembers the answers to requests that may be sent again, so that a repeated one is not done twice.
//!
//! A key is claimed before the work and answered after it, each durably. A claim without an answer means that nobody
//! knows how the first attempt ended; then the work is not done again. What is remembered never holds a value: the
//! door gives only answers without any, and of the key and the request only keyed hashes are kept. Who may not do the
//! work claims nothing, and is told nothing of what was answered before. What has ended is dropped by the sweep, in the
//! order of its end.

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText};
use keymoat_core::id::TokenId;
use keymoat_core::names::Scope;
use keymoat_core::policy::{Capability, Resource};
use keymoat_store::{Draft, Kind};

use crate::desk::{Deed, system_resource};
use crate::entity::{Entity as _, IdempotencyEntity};
use crate::tokens::later;
use crate::{Caller, Code, Vault, VaultError};

/// What a request that may be sent again needs.
#[derive(Debug, Clone)]
pub struct RequestNeeds {
    /// The capability; none where being signed in is enough.
    pub capability: Option<Capability>,
    /// On what.
    pub resource: Resource,
}

/// Whether a request is the first under its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// It is the first: do the work, then call [`Vault::remember`] or [`Vault::forget`].
    First,
    /// It was answered before, with this.
    Answered(serde_json::Value),
    /// The caller may not do it, so nothing is claimed: whoever does the work is to refuse it.
    NotAllowed,
}

impl Vault {
    /// Claims a key of the caller's for a request, or says what the same request was answered before. The caller must
    /// be allowed what the request needs; a replayed answer is on record.
    ///
    /// `request` is everything that makes the request what it is, in parts.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the key is malformed or was used for another request; [`Code::Conflict`] when the first
    /// attempt is not finished, or nobody knows how it ended; [`Code::RateLimited`] when too many keys of the caller
    /// are remembered.
    pub async fn claim(
        &self,
        caller: &Caller,
        key: &str,
        request: &[&[u8]],
        needs: &RequestNeeds,
    ) -> Result<Attempt, VaultError> {
        check_key(key)?;
        self.retry_stale(|| async {
            let epoch = self.state(|state| state.epoch);
            if !self.is_allowed(caller, needs) {
                return Ok(Attempt::NotAllowed);
            }
            let now = self.now();
            let entity = self.idempotency(caller, key, request, serde_json::Value::Null, now);
            let is_full = self.state(|state| state.answers_of(caller.principal)) >= KEYS_MAX;
            let claimed = self.bookkeeping("claimed")?;
            let replayed =
                Deed::done(Action::Inspect, &needs.resource).detail("replayed", AuditText::new("yes"));
            let replayed = self.draft(caller, replayed, None);
            let (attempt, _) = self
                .store()
                .run_tx("claim_key", move |tx| {
                    tx.check_epoch(epoch)?;
                    let known = tx.row(Kind::Idempotency, &entity.key())?;
                    let known = known.map(|row| IdempotencyEntity::parse(&row)).transpose()?;
                    if let Some(known) = known.filter(|known| now < known.expires_at) {
                        let answer = answer_of(known, &entity)?;
                        tx.append(replayed.clone());
                        return Ok(answer);
                    }
                    if is_full {
                        return Err(too_many_keys());
                    }
                    tx.put(Kind::Idempotency, &entity.key(), &entity.body(), None)?;
                    tx.append(claimed.clone());
                    Ok(Attempt::First)
                })
                .await?;
            Ok(attempt)
        })
        .await
    }

    /// Whether the caller may do what a request needs. Everybody may end his own tokens.
    fn is_allowed(&self, caller: &Caller, needs: &RequestNeeds) -> bool {
        let Some(capability) = needs.capability else { return true };
        let own = |id: TokenId| {
            self.state(|state| state.tokens.get(&id).is_some_and(|token| token.principal == caller.principal))
        };
        let token = needs.resource.path.as_str().strip_prefix("tokens/").and_then(|id| id.parse().ok());
        let ends_own = needs.resource.scope == Scope::System && token.is_some_and(own);
        ends_own || self.may(caller, capability, &needs.resource)
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
        let key = format!("{}/{}", caller.principal, self.tag_text(&[b"idempotency key", key.as_bytes()]));
        self.remove_remembered(vec![key]).await
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
        IdempotencyEntity {
            principal: caller.principal,
            key: self.tag_text(&[b"idempotency key", key.as_bytes()]),
            request: self.tag_text(&parts),
            answer,
            expires_at: later(now, REMEMBERED_FOR),
        }
    }

    /// A keyed hash as text.
    fn tag_text(&self, parts: &[&[u8]]) -> String {
        self.keyring().cursors().tag(parts).iter().map(|byte| format!("{byte:02x}")).collect()
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

fn too_many_keys() -> VaultError {
    let error = VaultError::new(
        Code::RateLimited,
        format!("{KEYS_MAX} idempotency keys of this caller are remembered"),
    )
    .hint("each is forgotten a day after its request; send requests that need not be repeated without one");
    VaultError { retry_after_secs: Some(RETRY_SECS), ..error }
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
/// A request every nine seconds all day long; bounds what a caller can have kept for him.
const KEYS_MAX: usize = 10_000;
/// Keys end one after the other, so it is not worth asking again at once.
const RETRY_SECS: u64 = 60;
