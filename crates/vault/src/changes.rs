//! The feed of what changed, without values, so that programs follow it instead of asking again and again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use keymoat_core::audit::{Action, AuditText, DecidedBy};
use keymoat_core::id::{PrincipalId, TokenId};
use keymoat_core::policy::{Capability, Decision};
use keymoat_store::Kind;

use crate::desk::{About, Deed, Rights, secret_resource};
use crate::entity::SecretName;
use crate::{Caller, Vault, VaultError};

/// A page of changes.
#[derive(Debug, Clone)]
pub struct ChangePage {
    /// What changed, oldest first, as far as the caller may list it.
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
            let may_list = |event: &&ChangeEvent| {
                let resource = secret_resource(&event.name, None);
                match rights.decide(&self.request(caller, Capability::List, &resource)) {
                    Decision::Allowed { by } => {
                        decided_by.get_or_insert(by);
                        true
                    }
                    Decision::Refused { .. } => false,
                }
            };
            let changes: Vec<ChangeEvent> = events.iter().filter(may_list).cloned().collect();
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
        let follower = (caller.principal, caller.token);
        let minute = self.now().as_second() / 60;
        if self.followers().has(follower, minute) {
            return Ok(());
        }
        let deed = Deed::done(Action::List, About::default())
            .detail("feed_after", AuditText::new(&after.to_string()));
        self.store().append(self.draft(caller, deed, decided_by), Some(epoch)).await?;
        self.followers().add(follower, minute);
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

/// Who has a record of following the feed in this minute.
#[derive(Default)]
pub(crate) struct Followers {
    /// The minute, and who followed in it.
    seen: Mutex<(i64, HashSet<Follower>)>,
}

type Follower = (PrincipalId, Option<TokenId>);

impl Followers {
    fn has(&self, follower: Follower, minute: i64) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0 == minute && seen.1.contains(&follower)
    }

    fn add(&self, follower: Follower, minute: i64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != minute {
            *seen = (minute, HashSet::new());
        }
        seen.1.insert(follower);
    }
}

/// Changes in one page.
const CHANGES_MAX: usize = 1000;
