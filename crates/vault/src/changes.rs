//! The feed of what changed, without values, so that programs follow it instead of asking again and again.

use keymoat_core::audit::{Action, AuditText, DecidedBy};
use keymoat_core::policy::{Capability, Decision, Refusal};
use keymoat_store::Kind;

use crate::desk::{About, Deed, Rights, secret_resource};
use crate::entity::SecretName;
use crate::{Caller, Vault, VaultError};

/// A page of changes.
#[derive(Debug, Clone)]
pub struct ChangePage {
    /// What changed, oldest first, as far as the caller may list it or is given its value.
    pub changes: Vec<ChangeEvent>,
    /// The number to go on after.
    pub next: u64,
}

/// A secret that changed.
#[derive(Debug, Clone)]
pub struct ChangeEvent {
    /// The change's number.
    pub seq: u64,
    /// Which secret.
    pub name: SecretName,
    /// Its current version; none when it has none or is gone.
    pub version: Option<u32>,
}

impl Vault {
    /// The changes after number `after`, at once. Who is shown some has a record of it, one a minute.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn changes(&self, caller: &Caller, after: u64, limit: usize) -> Result<ChangePage, VaultError> {
        let limit = limit.clamp(1, CHANGES_MAX);
        let rows = self.store().read(move |reader| reader.changes(after, limit)).await?;
        let next = rows.last().map_or(after, |row| row.seq);
        let secrets = rows.into_iter().filter(|row| row.kind == Some(Kind::Secret));
        let events = secrets.filter_map(|row| {
            let name = SecretName::from_row_key(&row.key)?;
            let version = self.find(&name).ok().and_then(|secret| secret.versions.current());
            Some(ChangeEvent { seq: row.seq, name, version })
        });
        let events: Vec<ChangeEvent> = events.collect();
        self.retry_stale(|| async {
            let (rights, epoch) = self.state(|state| (Rights::of_caller(state, caller), state.epoch));
            let rights = rights.uncounted();
            let mut decided_by = None;
            // Whoever is given the value learns of each new version anyway, and must know when to ask for it.
            let may_know = |event: &&ChangeEvent| {
                let resource = secret_resource(&event.name, None);
                let decide = |capability| rights.decide(&self.request(caller, capability, &resource));
                let by = match decide(Capability::List) {
                    Decision::Allowed { by } => Some(by),
                    // An explicit denial of the name stands, whatever else he may.
                    Decision::Refused { why: Refusal::Denied { .. } } => None,
                    Decision::Refused { .. } => match decide(Capability::Reveal) {
                        Decision::Allowed { by } => Some(by),
                        Decision::Refused { .. } => None,
                    },
                };
                by.map(|by| decided_by.get_or_insert(by)).is_some()
            };
            let changes: Vec<ChangeEvent> = events.iter().filter(may_know).cloned().collect();
            if !changes.is_empty() {
                self.record_following(caller, after, decided_by, epoch).await?;
            }
            Ok(ChangePage { changes, next })
        })
        .await
    }

    /// Writes down that somebody follows the feed: once a minute, not with every page.
    async fn record_following(
        &self,
        caller: &Caller,
        after: u64,
        decided_by: Option<DecidedBy>,
        epoch: u64,
    ) -> Result<(), VaultError> {
        let (follower, now) = (format!("changes {:?} {:?}", caller.principal, caller.token), self.now());
        if self.following().is_covered(&follower, after, now) {
            return Ok(());
        }
        let deed = Deed::done(Action::List, About::default())
            .detail("feed_after", AuditText::new(&after.to_string()));
        self.store().append(self.draft(caller, deed, decided_by), Some(epoch)).await?;
        self.following().cover(follower, after, now);
        Ok(())
    }

    /// Returns when there is a change after number `after`, or never.
    pub async fn wait_for_change(&self, after: u64) {
        let mut changes = self.inner.changes.clone();
        // The sender lives as long as the store, so an error means that the vault is closing.
        if changes.wait_for(|change| *change > after).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Changes in one page.
const CHANGES_MAX: usize = 1000;
