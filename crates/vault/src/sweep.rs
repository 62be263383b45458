//! Takes away what has ended: tokens, sign-in codes, remembered answers, grants; and empties the write-ahead log when
//! something destroyed may still stand in it.
//!
//! Nothing depends on it having run: what has ended has no effect whether or not its row is still there. The server
//! calls it every minute. It never touches secrets or records.

use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText};
use keymoat_store::{Kind, Row, Tx};

use crate::desk::{About, Deed, system_resource};
use crate::entity::{
    Entity as _, GrantEntity, IdempotencyEntity, SignInCodeEntity, StoredGrantState, TokenEntity,
};
use crate::issued::IssuedKey;
use crate::refusals::Source;
use crate::state::State;
use crate::tokens::later;
use crate::{Vault, VaultError};

/// What a sweep took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Tokens.
    pub tokens: usize,
    /// Sign-in codes.
    pub codes: usize,
    /// Remembered answers.
    pub answers: usize,
    /// Grants.
    pub grants: usize,
    /// Issued keys that nobody has fetched in time.
    pub keys: usize,
    /// Whether there is more than one sweep takes, so that the next should not wait.
    pub more: bool,
}

impl Vault {
    /// Takes away what has ended, a bounded part at a time, and writes that down.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sweep(&self) -> Result<Swept, VaultError> {
        self.record_suppressed().await?;
        let now = self.now();
        let ended = self.state(|state| ended_rows(state, now));
        let more = ended.len() >= SWEPT_AT_ONCE;
        let mut swept = Swept::default();
        if !ended.is_empty() {
            swept = self.remove_ended(ended, now).await?;
        }
        self.scrub_if_due().await;
        Ok(Swept { more, ..swept })
    }

    async fn remove_ended(&self, ended: Vec<(Kind, String)>, now: Timestamp) -> Result<Swept, VaultError> {
        let deed = Deed::done(Action::Prune, &system_resource("vault")?);
        let draft = self.system_draft(&"sweeper".parse()?, deed);
        let (swept, _) = self
            .store()
            .run_tx("sweep", move |tx| {
                let mut swept = Swept::default();
                for (kind, key) in &ended {
                    swept.count(*kind, remove_if_ended(tx, *kind, key, now)?);
                }
                if swept != Swept::default() {
                    let mut draft = draft.clone();
                    draft.event.details = swept.details();
                    tx.append(draft);
                }
                Ok::<_, VaultError>(swept)
            })
            .await?;
        Ok(swept)
    }

    /// Writes down how many refusals of a source were only counted, once their minute is over.
    async fn record_suppressed(&self) -> Result<(), VaultError> {
        self.write_suppressed(self.refusals().overdue(self.now())).await
    }

    /// Writes down all that were only counted, because the vault is about to close.
    pub(crate) async fn record_all_suppressed(&self) -> Result<(), VaultError> {
        self.write_suppressed(self.refusals().take_all()).await
    }

    async fn write_suppressed(&self, counted: Vec<(Source, u64)>) -> Result<(), VaultError> {
        for (source, count) in counted {
            let mut deed = Deed::done(Action::Refuse, About::default());
            deed = deed.detail("suppressed", AuditText::new(&count.to_string()));
            deed = match source {
                // The network of one who is not signed in is what the record is about, not personal data of a user.
                Source::Network(Some(net)) => deed.detail("source", AuditText::new(&net.to_string())),
                Source::Network(None) => deed,
                Source::Principal(id) => deed.detail("principal", AuditText::new(&id.to_string())),
                Source::Key(id) => deed.detail("key", AuditText::new(&id.to_string())),
            };
            self.store().append(self.system_draft(&"sweeper".parse()?, deed), None).await?;
        }
        Ok(())
    }

    /// Says that something dropped may still stand in the write-ahead log; the next sweep empties it.
    pub(crate) fn scrub_later(&self) {
        self.inner.scrub_due.store(true, Ordering::Relaxed);
    }

    /// Empties the write-ahead log, now or, when a long read is in the way, with the next sweep.
    pub(crate) async fn scrub_soon(&self) {
        self.scrub_later();
        self.scrub_if_due().await;
    }

    /// A long read may be in the way; then the next sweep tries again.
    async fn scrub_if_due(&self) {
        if !self.inner.scrub_due.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.store().scrub().await {
            self.inner.scrub_due.store(true, Ordering::Relaxed);
            tracing::warn!(%error, "the write-ahead log could not be emptied after a destroy; the next sweep tries again");
        }
    }
}

impl Swept {
    fn count(&mut self, kind: Kind, removed: bool) {
        let count = match kind {
            Kind::Token => &mut self.tokens,
            Kind::SignInCode => &mut self.codes,
            Kind::Grant => &mut self.grants,
            Kind::IssuedKey => &mut self.keys,
            _ => &mut self.answers,
        };
        *count += usize::from(removed);
    }

    fn details(self) -> keymoat_core::audit::Details {
        let counts = [
            ("tokens", self.tokens),
            ("codes", self.codes),
            ("answers", self.answers),
            ("grants", self.grants),
            ("keys", self.keys),
        ];
        let mut deed = Deed::done(Action::Prune, About::default());
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            deed = deed.detail(name, AuditText::new(&count.to_string()));
        }
        deed.details
    }
}

/// The rows that have ended, at most as many as one sweep takes.
fn ended_rows(state: &State, now: Timestamp) -> Vec<(Kind, String)> {
    let tokens = state.tokens.values().filter(|token| token.has_ended(now) || is_orphan(state, token));
    let tokens = tokens.map(|token| (Kind::Token, token.key()));
    let codes = state.sign_in_codes.values().filter(|code| code.has_ended(now));
    let codes = codes.map(|code| (Kind::SignInCode, code.key()));
    let grants = state.grants.values().filter(|stored| stored.entity.is_long_over(now));
    let grants = grants.map(|stored| (Kind::Grant, stored.entity.key()));
    let answers = state.answers_by_end.iter().take_while(|(end, _)| now >= *end);
    let answers = answers.map(|(_, key)| (Kind::Idempotency, key.clone()));
    let keys = state.issued.never_fetched(now).map(|id| (Kind::IssuedKey, id.to_string()));
    tokens.chain(keys).chain(codes).chain(grants).chain(answers).take(SWEPT_AT_ONCE).collect()
}

/// Removes a row unless it was prolonged, or written anew, meanwhile.
fn remove_if_ended(tx: &mut Tx<'_>, kind: Kind, key: &str, now: Timestamp) -> Result<bool, VaultError> {
    let Some(row) = tx.row(kind, key)? else { return Ok(false) };
    if !has_ended(&row, now)? && !has_lost_its_maker(tx, &row)? {
        return Ok(false);
    }
    Ok(tx.remove(kind, key)?)
}

fn has_ended(row: &Row, now: Timestamp) -> Result<bool, VaultError> {
    Ok(match row.kind {
        Kind::Token => TokenEntity::parse(row)?.has_ended(now),
        Kind::SignInCode => SignInCodeEntity::parse(row)?.has_ended(now),
        Kind::Grant => GrantEntity::parse(row)?.is_long_over(now),
        Kind::Idempotency => now >= IdempotencyEntity::parse(row)?.expires_at,
        Kind::IssuedKey => IssuedKey::parse(row)?.fetch_until.is_some_and(|end| now >= end),
        _ => false,
    })
}

/// Whether the token that a token was made with is gone; it is good for nothing then.
fn is_orphan(state: &State, token: &TokenEntity) -> bool {
    token.made_with.is_some_and(|maker| !state.tokens.contains_key(&maker))
}

fn has_lost_its_maker(tx: &Tx<'_>, row: &Row) -> Result<bool, VaultError> {
    if row.kind != Kind::Token {
        return Ok(false);
    }
    let Some(maker) = TokenEntity::parse(row)?.made_with else { return Ok(false) };
    Ok(tx.row(Kind::Token, &maker.to_string())?.is_none())
}

impl TokenEntity {
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

impl SignInCodeEntity {
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

impl GrantEntity {
    /// Whether it ended so long ago that only the audit log needs to know of it.
    fn is_long_over(&self, now: Timestamp) -> bool {
        let ended = match self.state {
            StoredGrantState::Revoked { at } => at.min(self.expires_at),
            _ => self.expires_at,
        };
        now >= later(ended, GRANT_SHOWN_FOR)
    }
}

/// Keeps the sweeper's transaction short.
const SWEPT_AT_ONCE: usize = 1000;
/// How long people still find an ended grant in the list.
const GRANT_SHOWN_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);
