//! Grants: permission that ends by itself, and the glass that can be broken.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText};
use keymoat_core::grant::{GrantState, break_glass};
use keymoat_core::id::{GrantId, PrincipalId};
use keymoat_core::names::AccountName;
use keymoat_core::policy::{Capability, CompiledRule, Rule};
use keymoat_store::{Kind, Tx};

use crate::accounts::is_owner;
use crate::desk::{Change, Deed, Rights, system_resource};
use crate::entity::{Account, Entity as _, GrantEntity, StoredGrantState};
use crate::lineage::Lineage;
use crate::state::{State, StoredGrant};
use crate::tokens::{Doomed, later, not_signed_in};
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
        self.check_no_key([("the reason", new.reason.as_str())])?;
        self.retry_stale(|| async {
            let resource = system_resource(&format!("grants/{}", new.account))?;
            let permit = self.authorize(caller, Capability::Grant, Action::GrantCreate, resource.clone()).await?;
            let (entity, covered) = match self.new_grant(caller, &new) {
                Ok(made) => made,
                Err(error) => return Err(self.failed(&permit, Action::GrantCreate, error).await),
            };
            let mut deed = Deed::done(Action::GrantCreate, &resource).because(Some(&new.reason));
            if !covered {
                deed = deed.detail("break_glass", AuditText::new("yes"));
                tracing::warn!(by = %caller.name, to = %new.account, grant = %entity.id, "the glass was broken: a grant beyond the giver's own rights was asked for");
            }
            let doomed = self.outgrown_by_grant(&entity)?;
            let draft = self.draft(caller, doomed.told_in(deed), Some(permit.decided_by.clone()));
            let (pass, stored) = (permit.pass, entity.clone());
            self.store()
                .run_tx("create_grant", move |tx| {
                    pass.enter(tx)?;
                    doomed.remove(tx)?;
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
            self.recorded(caller, Capability::List, Action::List, &system_resource("grants")?).await?;
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
        self.retry_stale(|| async {
            let resource = system_resource(&format!("grants/{id}"))?;
            let permit = self.authorize(caller, Capability::Grant, action, resource.clone()).await?;
            let stored = self.state(|state| state.grants.get(&id).map(|stored| stored.entity.clone()));
            if let (Action::GrantApprove, Some(entity)) = (action, &stored)
                && let Err(error) = self.check_approver(caller, entity)
            {
                return Err(self.failed(&permit, action, error).await);
            }
            let doomed = match (action, stored) {
                (Action::GrantApprove, Some(mut entity)) => work(&mut entity)
                    .map_or_else(|_| Ok(Doomed::default()), |()| self.outgrown_by_grant(&entity))?,
                _ => Doomed::default(),
            };
            let deed = doomed.told_in(Deed::done(action, &resource));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, work) = (permit.pass, Arc::clone(&work));
            let changed = self
                .store()
                .run_tx("change_grant", move |tx| {
                    pass.enter(tx)?;
                    let mut entity = stored_grant(tx, id)?;
                    work(&mut entity)?;
                    doomed.remove(tx)?;
                    tx.put(Kind::Grant, &entity.key(), &entity.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(entity)
                })
                .await;
            match changed {
                Ok((entity, _)) => Ok(entity),
                Err(error)
                    if error.code == Code::NotFound
                        || (error.code == Code::Conflict && !error.is_stale()) =>
                {
                    Err(self.failed(&permit, action, error).await)
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The tokens that a grant makes good for more than their makers could give; none while it waits for approval.
    fn outgrown_by_grant(&self, entity: &GrantEntity) -> Result<Doomed, VaultError> {
        match entity.state {
            StoredGrantState::NeedsApproval => Ok(Doomed::default()),
            _ => Ok(self.outgrown(&Change::Grant(Arc::new(StoredGrant::new(entity.clone())?)))),
        }
    }

    /// The grant that is asked for, and whether the caller may give it by himself.
    fn new_grant(&self, caller: &Caller, new: &NewGrant) -> Result<(GrantEntity, bool), VaultError> {
        if new.uses == Some(0) {
            return Err(VaultError::invalid("a grant that may be used 0 times is of no use"));
        }
        let account = self.account_named(&new.account)?;
        let now = self.now();
        let starts_at = new.starts_at.unwrap_or(now);
        let mut entity = GrantEntity {
            id: self.new_grant_id(),
            principal: account.id,
            rules: new.rules.clone(),
            starts_at,
            expires_at: later(starts_at, new.lasts),
            uses_left: new.uses,
            state: GrantState::Active.into(),
            granted_by: caller.principal,
            granted_by_ids: self.hands(caller),
            approved_by: None,
            reason: new.reason.clone(),
            break_glass: false,
            created_at: now,
        };
        if entity.expires_at <= now {
            return Err(VaultError::invalid("the grant would have ended before it is made"));
        }
        entity.checked().map_err(VaultError::invalid)?;
        self.check_rules_name_places(caller, &entity.rules)?;
        let change = Change::Grant(Arc::new(StoredGrant::new(entity.clone())?));
        if self.may_change(caller, &change) {
            return Ok((entity, true));
        }
        if !new.break_glass {
            let why = format!(
                "the grant would allow more than `{}` may do, and nobody gives what he does not have",
                caller.name
            );
            return Err(VaultError::new(Code::Refused, why).hint(
                "ask an owner, or ask for it with --break-glass: another administrator must then approve it",
            ));
        }
        entity.break_glass = true;
        entity.state = self.broken_glass(caller, &StoredGrant::new(entity.clone())?, now)?.into();
        Ok((entity, false))
    }

    /// How a grant beyond the giver's rights starts: another administrator approves it; where there is no other, an
    /// administrator's takes effect late.
    fn broken_glass(
        &self,
        caller: &Caller,
        asked: &StoredGrant,
        now: Timestamp,
    ) -> Result<GrantState, VaultError> {
        let receiver = asked.entity.principal;
        let others = self.state(|state| {
            let lineage = Lineage::new(state, now);
            let others = state.accounts.values().filter(|account| account.id != caller.principal);
            others
                .filter(|account| {
                    // An owner counts whatever was done to his account, or an administrator could do something to it
                    // and then have to wait for nobody.
                    let owns = account.id != receiver && is_owner(account, |name| state.accounts.get(name));
                    owns || (!receives(account, receiver, state)
                        && is_administrator(state, account, now)
                        && is_independent(state, &lineage, account, asked, now))
                })
                .count()
        });
        let is_one_himself = self.state(|state| {
            state.account(caller.principal).is_some_and(|own| is_administrator(state, own, now))
        });
        if others == 0 && !is_one_himself {
            return Err(VaultError::new(Code::Refused, "there is no administrator who could approve it")
                .hint("ask an owner"));
        }
        Ok(break_glass(now, others, BREAK_GLASS_DELAY))
    }

    /// Whether the caller may approve a grant: an administrator, not one who gets it, neither his account nor what he
    /// signed in with made by somebody else just now, and nobody behind both him and the grant. Who may give all of
    /// it by himself gains nothing by approving, so he need not be independent.
    fn check_approver(&self, caller: &Caller, entity: &GrantEntity) -> Result<(), VaultError> {
        let now = self.now();
        let is_fresh = |since: Timestamp| later(since, BREAK_GLASS_DELAY) > now;
        self.state(|state| {
            let account = state.account(caller.principal).ok_or_else(not_signed_in)?;
            let asked = StoredGrant::new(entity.clone())?;
            let gives = may_give(state, account.id, &asked, now);
            if !gives && receives(account, entity.principal, state) {
                return Err(VaultError::conflict("grant cannot be approved by who receives it"));
            }
            if !is_administrator(state, account, now) {
                return Err(VaultError::new(Code::Refused, "only an administrator approves a grant")
                    .hint("one who may write and pass on everything in `sys`"));
            }
            let foreign_since = caller.token.and_then(|id| state.tokens.get(&id)?.foreign_since);
            if is_fresh(account.created_at) || foreign_since.is_some_and(is_fresh) {
                return Err(VaultError::new(
                    Code::Refused,
                    "an account that was made within the last hour, or that signed in with what somebody else made within it, approves nothing",
                )
                .hint("so that nobody makes himself a second administrator; wait, or sign in with a token of your own"));
            }
            if !gives && !is_independent(state, &Lineage::new(state, now), account, &asked, now) {
                return Err(VaultError::new(
                    Code::Refused,
                    format!(
                        "`{}` is not independent of this grant: the same person made or changed an account or a token on both sides",
                        caller.name
                    ),
                )
                .hint("ask an administrator whom neither side has set up, or an owner"));
            }
            Ok(())
        })
    }
}

/// Whether an account may give all that a grant allows.
fn may_give(state: &State, principal: PrincipalId, asked: &StoredGrant, now: Timestamp) -> bool {
    let rules: Vec<&CompiledRule> = asked.grant.rules().iter().collect();
    Rights::of(state, principal).cover(&rules, now)
}

/// Whether nobody stands behind both an account and a grant, but such as may give all of it anyway.
fn is_independent(
    state: &State,
    lineage: &Lineage,
    account: &Account,
    asked: &StoredGrant,
    now: Timestamp,
) -> bool {
    let entity = &asked.entity;
    let receivers = state.accounts.values().filter(|account| receives(account, entity.principal, state));
    let asking: BTreeSet<PrincipalId> = receivers
        .map(|account| account.id)
        .chain([entity.principal, entity.granted_by])
        .chain(entity.granted_by_ids.iter().copied())
        .collect();
    let is_trusted = |id: PrincipalId| may_give(state, id, asked, now);
    let (Some(asking), Some(approving)) =
        (lineage.behind(asking, is_trusted), lineage.behind([account.id].into(), is_trusted))
    else {
        return false;
    };
    asking.is_disjoint(&approving)
}

/// Whether a grant to `receiver` is one to this account, itself or as a member of a group.
fn receives(account: &Account, receiver: PrincipalId, state: &State) -> bool {
    account.id == receiver
        || account.groups.iter().filter_map(|name| state.accounts.get(name)).any(|group| group.id == receiver)
}

/// Whether an account has charge of everything in Keymoat itself, and acts.
pub(crate) fn is_administrator(state: &State, account: &Account, now: Timestamp) -> bool {
    let acts = account.active && account.kind.principal_kind().is_some();
    acts && Rights::with(state, account, None).cover(&[&ADMINISTRATION], now)
}

fn stored_grant(tx: &Tx<'_>, id: GrantId) -> Result<GrantEntity, VaultError> {
    let row = tx.row(Kind::Grant, &id.to_string())?.ok_or_else(|| {
        VaultError::not_found(format!("no grant `{id}`")).hint("`keymoat grant list` shows them")
    })?;
    GrantEntity::parse(&row)
}

/// Long enough for others to notice and revoke it.
const BREAK_GLASS_DELAY: SignedDuration = SignedDuration::from_hours(1);
/// What makes an administrator: charge of every part of Keymoat itself.
static ADMINISTRATION: LazyLock<CompiledRule> = LazyLock::new(|| {
    let rule = r#"{"capabilities":["write","delete","grant"],"environments":["sys"],"paths":["**"]}"#;
    let rule: Rule = serde_json::from_str(rule).expect("the rule is read by a test");
    CompiledRule::new(rule).expect("the rule is compiled by a test")
});
