//! Grants: permission that ends by itself, and the glass that can be broken.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText, ReasonCode};
use keymoat_core::grant::{GrantState, break_glass};
use keymoat_core::id::GrantId;
use keymoat_core::names::AccountName;
use keymoat_core::policy::{Capability, CompiledRule, Rule};
use keymoat_store::{Kind, Tx};

use crate::desk::{Deed, Rights, system_resource};
use crate::entity::{Entity as _, GrantEntity};
use crate::tokens::{account_path, later};
use crate::{Caller, Code, Vault, VaultError};

/// A grant to be made.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// To whom.
    pub account: AccountName,
    /// What.
    pub rules: Vec<Rule>,
    /// From when; now when not said.
    pub starts_at: Option<Timestamp>,
    /// How long.
    pub lasts: SignedDuration,
    /// How often; none for any number.
    pub uses: Option<u32>,
    /// Why.
    pub reason: AuditText,
    /// Whether it asks for more than the giver may give: somebody else must approve it, or it takes effect late.
    pub break_glass: bool,
}

impl Vault {
    /// Makes a grant. Nobody grants more than he may do himself; with `break_glass` it waits for somebody else, or,
    /// where there is nobody else, for a while, and everybody is told.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Invalid`].
    pub async fn create_grant(&self, caller: &Caller, new: NewGrant) -> Result<GrantEntity, VaultError> {
        self.retry_stale(async || {
            let resource = system_resource(&format!("grants/{}", account_path(&new.account)))?;
            let permit = self.authorize(caller, Capability::Grant, Action::GrantCreate, resource.clone()).await?;
            let account = self.account_named(&new.account)?;
            let now = self.now();
            let starts_at = new.starts_at.unwrap_or(now);
            let covered = self.covers_rules(caller, &new.rules)?;
            if !covered && !new.break_glass {
                let deed = Deed::refused(Action::GrantCreate, &resource, ReasonCode::BeyondOwnRights);
                self.record(&permit, deed).await?;
                return Err(VaultError::new(
                    Code::Refused,
                    format!("the grant would allow more than `{}` may do, and nobody gives what he does not have", caller.name),
                )
                .hint("ask an owner, or ask for it with --break-glass: somebody else must then approve it"));
            }
            let state = match covered {
                true => GrantState::Active,
                false => break_glass(now, self.other_approvers(caller, account.id), BREAK_GLASS_DELAY),
            };
            let entity = GrantEntity {
                id: self.new_grant_id(),
                principal: account.id,
                rules: new.rules.clone(),
                starts_at,
                expires_at: later(starts_at, new.lasts),
                uses_left: new.uses,
                state: state.into(),
                granted_by: caller.principal,
                approved_by: None,
                reason: new.reason.clone(),
                break_glass: !covered,
                created_at: now,
            };
            entity.to_grant()?;
            let mut deed = Deed::done(Action::GrantCreate, &resource).because(Some(&new.reason));
            if !covered {
                deed = deed.detail("break_glass", AuditText::new("yes"));
                tracing::warn!(by = %caller.name, to = %account.name, grant = %entity.id, "the glass was broken: a grant beyond the giver's own rights was asked for");
            }
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, stored) = (permit.pass, entity.clone());
            self.store()
                .run_tx("create_grant", move |tx| {
                    pass.enter(tx)?;
                    tx.put(Kind::Grant, &stored.key(), &stored.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(entity)
        })
        .await
    }

    /// Approves a grant that waits; whoever asked for it or gets it cannot.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Conflict`].
    pub async fn approve_grant(&self, caller: &Caller, id: GrantId) -> Result<GrantEntity, VaultError> {
        let (by, now) = (caller.principal, self.now());
        self.change_grant(caller, id, Action::GrantApprove, move |entity| {
            let mut grant = entity.to_grant()?;
            grant.approve(by, now).map_err(|e| VaultError::conflict(e.to_string()))?;
            entity.state = grant.state().into();
            entity.approved_by = Some(by);
            Ok(())
        })
        .await
    }

    /// Ends a grant at once.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn revoke_grant(&self, caller: &Caller, id: GrantId) -> Result<GrantEntity, VaultError> {
        let now = self.now();
        self.change_grant(caller, id, Action::GrantRevoke, move |entity| {
            let mut grant = entity.to_grant()?;
            grant.revoke(now);
            entity.state = grant.state().into();
            Ok(())
        })
        .await
    }

    /// The grants of an account, or of all, newest last. Everybody may list his own.
    ///
    /// # Errors
    /// [`Code::Refused`].
    pub async fn list_grants(
        &self,
        caller: &Caller,
        account: Option<&AccountName>,
    ) -> Result<Vec<GrantEntity>, VaultError> {
        let own = account == Some(&caller.name);
        if !own {
            self.retry_stale(async || {
                let resource = system_resource("grants")?;
                let permit = self.authorize(caller, Capability::List, Action::List, resource.clone()).await?;
                self.record(&permit, Deed::done(Action::List, &resource)).await
            })
            .await?;
        }
        let principal = account.map(|name| self.account_named(name).map(|account| account.id)).transpose()?;
        Ok(self.state(|state| {
            let grants = state.grants.values().map(|stored| stored.entity.clone());
            grants.filter(|grant| principal.is_none_or(|id| grant.principal == id)).collect()
        }))
    }

    async fn change_grant(
        &self,
        caller: &Caller,
        id: GrantId,
        action: Action,
        work: impl Fn(&mut GrantEntity) -> Result<(), VaultError> + Send + Sync + 'static,
    ) -> Result<GrantEntity, VaultError> {
        let work = Arc::new(work);
        self.retry_stale(async || {
            let resource = system_resource(&format!("grants/{id}"))?;
            let permit = self.authorize(caller, Capability::Grant, action, resource.clone()).await?;
            let draft = self.draft(caller, Deed::done(action, &resource), Some(permit.decided_by.clone()));
            let (pass, work) = (permit.pass, Arc::clone(&work));
            let (entity, _) = self
                .store()
                .run_tx("change_grant", move |tx| {
                    pass.enter(tx)?;
                    let mut entity = stored_grant(tx, id)?;
                    work(&mut entity)?;
                    tx.put(Kind::Grant, &entity.key(), &entity.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(entity)
                })
                .await?;
            Ok(entity)
        })
        .await
    }

    fn covers_rules(&self, caller: &Caller, rules: &[Rule]) -> Result<bool, VaultError> {
        let compiled: Vec<CompiledRule> = rules
            .iter()
            .cloned()
            .map(CompiledRule::new)
            .collect::<Result<_, _>>()
            .map_err(|e| VaultError::invalid(e.to_string()))?;
        let now = self.now();
        let wanted: Vec<&CompiledRule> = compiled.iter().collect();
        Ok(self.state(|state| Rights::of(state, caller.principal).cover(&wanted, now)))
    }

    /// Accounts other than the two concerned that may grant something and could approve.
    fn other_approvers(&self, caller: &Caller, receiver: keymoat_core::id::PrincipalId) -> usize {
        let now = self.now();
        let Ok(resource) = system_resource("grants/any") else { return 0 };
        self.state(|state| {
            let others = state.accounts.values().filter(|account| {
                account.id != caller.principal && account.id != receiver && account.kind.principal_kind().is_some()
            });
            others
                .filter(|account| {
                    let request = keymoat_core::policy::Request {
                        capability: Capability::Grant,
                        resource: &resource,
                        address: None,
                        module: None,
                        now,
                    };
                    Rights::of(state, account.id).decide(&request).is_allowed()
                })
                .count()
        })
    }
}

fn stored_grant(tx: &Tx<'_>, id: GrantId) -> Result<GrantEntity, VaultError> {
    let row = tx.row(Kind::Grant, &id.to_string())?.ok_or_else(|| {
        VaultError::not_found(format!("no grant `{id}`")).hint("`keymoat grant list` shows them")
    })?;
    GrantEntity::parse(&row)
}

/// Long enough for others to notice and revoke it.
const BREAK_GLASS_DELAY: SignedDuration = SignedDuration::from_hours(1);
