//! Users, service accounts and groups. Nobody gives anybody more than he may do himself.

use std::collections::BTreeSet;
use std::sync::Arc;

use keymoat_core::audit::{Action, AuditText, ReasonCode};
use keymoat_core::id::PrincipalId;
use keymoat_core::names::{AccountName, PolicyName, nearest};
use keymoat_core::policy::{Capability, MAX_POLICIES_HELD};
use keymoat_core::secret::check_description;
use keymoat_store::{Kind, Tx};

use crate::desk::{Change, Deed, system_resource};
use crate::entity::{Account, AccountKind, Entity as _, SecretName, SignInCodeEntity};
use crate::receipt::Permit;
use crate::state::State;
use crate::tokens::Doomed;
use crate::{Caller, Code, Vault, VaultError};

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Its name.
    pub name: AccountName,
    /// What it is.
    pub kind: AccountKind,
    /// What it is for.
    pub description: String,
    /// Its policies.
    pub policies: BTreeSet<PolicyName>,
    /// The groups that it is in.
    pub groups: BTreeSet<AccountName>,
}

/// A change of an account; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct AccountChange {
    /// What it is for.
    pub description: Option<String>,
    /// All of its policies.
    pub policies: Option<BTreeSet<PolicyName>>,
    /// All groups that it is in.
    pub groups: Option<BTreeSet<AccountName>>,
    /// Whether it may act.
    pub active: Option<bool>,
}

/// What ended with a leaver, and what he has seen.
#[derive(Debug, Clone)]
pub struct LeaverReport {
    /// Tokens that were revoked.
    pub tokens: usize,
    /// Grants that were revoked.
    pub grants: usize,
    /// Secrets whose values he was given since they were last written: to be rotated.
    pub seen: Vec<SecretName>,
}

impl Vault {
    /// Makes an account.
    ///
    /// # Errors
    /// [`Code::Refused`], also when it would have more than the caller; [`Code::Conflict`]; [`Code::Invalid`].
    pub async fn create_account(&self, caller: &Caller, new: NewAccount) -> Result<Arc<Account>, VaultError> {
        check_text(&new.description)?;
        self.check_no_key([("the description", new.description.as_str())])?;
        let os_user = new.name.os_user().is_some();
        if os_user != (new.kind == AccountKind::OsUser) {
            return Err(VaultError::invalid(format!("`{}` does not go with that kind of account", new.name))
                .hint("users of the operating system, and only they, are called `os:NAME`"));
        }
        let (id, now) = (self.new_principal_id(), self.now());
        let hands = self.hands(caller);
        self.write_account(caller, Action::AccountCreate, &new.name, |old| {
            if old.is_some() {
                return Err(VaultError::conflict(format!("there is already an account `{}`", new.name)));
            }
            Ok(Account {
                id,
                name: new.name.clone(),
                kind: new.kind,
                description: new.description.clone(),
                policies: new.policies.clone(),
                groups: new.groups.clone(),
                active: true,
                created_at: now,
                created_by: caller.name.to_string(),
                created_by_ids: hands.clone(),
                rights_by: Some(caller.name.to_string()),
                rights_by_ids: hands.clone(),
                rights_at: Some(now),
            })
        })
        .await
    }

    /// Changes an account.
    ///
    /// # Errors
    /// [`Code::Refused`], also when it has or would have more than the caller; [`Code::Conflict`] for the last owner;
    /// [`Code::NotFound`]; [`Code::Invalid`].
    pub async fn update_account(
        &self,
        caller: &Caller,
        name: &AccountName,
        change: AccountChange,
    ) -> Result<Arc<Account>, VaultError> {
        if let Some(text) = &change.description {
            check_text(text)?;
            self.check_no_key([("the description", text.as_str())])?;
        }
        self.write_account(caller, Action::AccountUpdate, name, |old| {
            let mut account = match old {
                Some(old) => Account::clone(old),
                None => Account::clone(&*self.account_named(name)?),
            };
            account.description = change.description.clone().unwrap_or(account.description);
            account.policies = change.policies.clone().unwrap_or(account.policies);
            account.groups = change.groups.clone().unwrap_or(account.groups);
            account.active = change.active.unwrap_or(account.active);
            if old.is_none_or(|old| !has_rights_of(old, &account)) {
                self.sign_rights(caller, &mut account);
            }
            Ok(account)
        })
        .await
    }

    /// Removes an account with its tokens and grants.
    ///
    /// # Errors
    /// [`Code::Refused`], also when it may do more than the caller; [`Code::Conflict`] for oneself and the last owner;
    /// [`Code::NotFound`].
    pub async fn delete_account(&self, caller: &Caller, name: &AccountName) -> Result<(), VaultError> {
        self.end_access(caller, name, Ending::Removed).await.map(|_| ())
    }

    /// Ends everything that an account may do, in one step, and lists the keys that it has seen.
    ///
    /// # Errors
    /// [`Code::Refused`], also when it may do more than the caller; [`Code::Conflict`] for oneself and the last owner;
    /// [`Code::NotFound`].
    pub async fn leave(&self, caller: &Caller, name: &AccountName) -> Result<LeaverReport, VaultError> {
        let Ended { account, tokens, grants } = self.end_access(caller, name, Ending::SwitchedOff).await?;
        Ok(LeaverReport { tokens, grants, seen: self.seen_by(account).await? })
    }

    /// The accounts, by name.
    ///
    /// # Errors
    /// [`Code::Refused`].
    pub async fn list_accounts(&self, caller: &Caller) -> Result<Vec<Arc<Account>>, VaultError> {
        self.recorded(caller, Capability::List, Action::List, &system_resource("accounts")?).await?;
        Ok(self.state(|state| state.accounts.values().map(Arc::clone).collect()))
    }

    /// One account; everybody may look at his own.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn show_account(
        &self,
        caller: &Caller,
        name: &AccountName,
    ) -> Result<Arc<Account>, VaultError> {
        if *name == caller.name {
            return self.account_named(name);
        }
        self.retry_stale(|| async {
            let permit = self.permit_account(caller, Capability::Inspect, Action::Inspect, name).await?;
            let resource = permit.resource.clone();
            self.record(&permit, Deed::done(Action::Inspect, &resource)).await?;
            self.account_named(name)
        })
        .await
    }

    /// Writes an account as `make` makes it from what it is; both under the rules of one moment.
    async fn write_account(
        &self,
        caller: &Caller,
        action: Action,
        name: &AccountName,
        make: impl Fn(Option<&Arc<Account>>) -> Result<Account, VaultError>,
    ) -> Result<Arc<Account>, VaultError> {
        self.retry_stale(|| async {
            let permit = self.permit_account(caller, Capability::Write, action, name).await?;
            // INVARIANT: read after the permit, so that who reads something older is stale when he writes.
            let old = self.state(|state| state.accounts.get(name).map(Arc::clone));
            let made = make(old.as_ref()).and_then(|account| {
                self.state(|state| check_references(state, &account))?;
                Ok(Arc::new(account))
            });
            let account = match made {
                Ok(account) => account,
                Err(error) => return Err(self.failed(&permit, action, error).await),
            };
            if let Some(old) = &old {
                self.check_taking(&permit, action, old, Some(&account)).await?;
            }
            let change = Change::Account { before: old, after: Some(Arc::clone(&account)) };
            if !self.may_change(caller, &change) {
                return Err(self.beyond(caller, action, &permit.resource, name).await);
            }
            let doomed = self.outgrown(&change);
            let deed = doomed.told_in(Deed::done(action, &permit.resource));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, stored) = (permit.pass, Arc::clone(&account));
            self.store()
                .run_tx("write_account", move |tx| {
                    pass.enter(tx)?;
                    doomed.remove(tx)?;
                    tx.put(Kind::Account, &stored.key(), &stored.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(account)
        })
        .await
    }

    async fn permit_account(
        &self,
        caller: &Caller,
        capability: Capability,
        action: Action,
        name: &AccountName,
    ) -> Result<Permit, VaultError> {
        let resource = system_resource(&format!("accounts/{name}"))?;
        self.authorize(caller, capability, action, resource).await
    }

    /// Writes down that something allowed could not be done, and hands the reason back.
    pub(crate) async fn failed(&self, permit: &Permit, action: Action, error: VaultError) -> VaultError {
        let reason = match error.code {
            Code::NotFound => ReasonCode::NotFound,
            Code::Conflict => ReasonCode::Conflict,
            Code::Invalid => ReasonCode::Invalid,
            _ => ReasonCode::Internal,
        };
        let recorded = match error.code {
            Code::Refused => {
                let deed = Deed::refused(action, &permit.resource, ReasonCode::BeyondOwnRights);
                self.record_refusal(&permit.caller, deed, Some(permit.decided_by.clone())).await
            }
            _ => self.record(permit, Deed::failed(action, &permit.resource, reason)).await.map(|_| ()),
        };
        match recorded {
            Ok(()) => error,
            Err(unrecorded) => unrecorded,
        }
    }

    /// Whether the caller may take from an account what a change takes: only from who may do no more than he may
    /// himself, and never the last owner. Refusals are on record.
    async fn check_taking(
        &self,
        permit: &Permit,
        action: Action,
        before: &Account,
        after: Option<&Arc<Account>>,
    ) -> Result<(), VaultError> {
        if !takes(before, after) {
            return Ok(());
        }
        let caller = &permit.caller;
        if before.id != caller.principal && !self.covers_account(caller, before) {
            return Err(self.beyond(caller, action, &permit.resource, &before.name).await);
        }
        if self.state(|state| leaves_no_owner(state, before, after)) {
            let error = VaultError::conflict(format!(
                "after that nobody would be left who acts and holds the policy `{OWNER}`, because of `{}`",
                before.name
            ))
            .hint("give that policy to somebody else first");
            return Err(self.failed(permit, action, error).await);
        }
        Ok(())
    }

    /// Notes who changed what an account may do.
    fn sign_rights(&self, caller: &Caller, account: &mut Account) {
        account.rights_by = Some(caller.name.to_string());
        account.rights_by_ids = self.hands(caller);
        account.rights_at = Some(self.now());
    }

    /// Ends every token, sign-in code and grant of an account, and switches it off or removes it.
    async fn end_access(
        &self,
        caller: &Caller,
        name: &AccountName,
        ending: Ending,
    ) -> Result<Ended, VaultError> {
        let (capability, action) = match ending {
            Ending::Removed => (Capability::Delete, Action::AccountDelete),
            Ending::SwitchedOff => (Capability::Write, Action::AccountUpdate),
        };
        self.retry_stale(|| async {
            let permit = self.permit_account(caller, capability, action, name).await?;
            let account = match self.account_named(name) {
                Ok(account) if account.id == caller.principal => {
                    let error =
                        VaultError::conflict("nobody ends his own account").hint("ask another administrator");
                    return Err(self.failed(&permit, action, error).await);
                }
                Ok(account) => account,
                Err(error) => return Err(self.failed(&permit, action, error).await),
            };
            let after = match ending {
                Ending::Removed => None,
                Ending::SwitchedOff => {
                    let mut off = Account { active: false, ..Account::clone(&account) };
                    self.sign_rights(caller, &mut off);
                    Some(Arc::new(off))
                }
            };
            self.check_taking(&permit, action, &account, after.as_ref()).await?;
            let change = Change::Account { before: Some(Arc::clone(&account)), after: after.clone() };
            if !self.may_change(caller, &change) {
                return Err(self.beyond(caller, action, &permit.resource, name).await);
            }
            let outgrown = self.outgrown(&change);
            self.end(&permit, &account, action, after, outgrown).await
        })
        .await
    }

    async fn end(
        &self,
        permit: &Permit,
        account: &Arc<Account>,
        action: Action,
        after: Option<Arc<Account>>,
        outgrown: Doomed,
    ) -> Result<Ended, VaultError> {
        let (pass, account) = (permit.pass, Arc::clone(account));
        // All of these decide access, so what is read here is what stands when the pass is still good.
        let (doomed, tokens, grants, members) = self.state(|state| {
            let own = state.tokens.values().filter(|token| token.principal == account.id);
            let own: Vec<_> = own.map(|token| token.id).collect();
            let grants = state.grants_of(account.id).map(|stored| stored.entity.key());
            let members = state.accounts.values().filter(|member| member.groups.contains(&account.name));
            (
                outgrown.and(own.iter().copied(), state),
                own.len(),
                grants.collect::<Vec<_>>(),
                members.map(Arc::clone).collect::<Vec<_>>(),
            )
        });
        let deed = Deed::done(action, &permit.resource).detail("ended", AuditText::new("tokens and grants"));
        let draft = self.draft(&permit.caller, doomed.told_in(deed), Some(permit.decided_by.clone()));
        let ended = Ended { account: account.id, tokens, grants: grants.len() };
        self.store()
            .run_tx("end_access", move |tx| {
                pass.enter(tx)?;
                doomed.remove(tx)?;
                grants.iter().try_for_each(|key| tx.remove(Kind::Grant, key).map(|_| ()))?;
                remove_codes(tx, account.id)?;
                match &after {
                    None => remove_account(tx, &account, &members)?,
                    Some(off) => {
                        tx.put(Kind::Account, &off.key(), &off.body(), None)?;
                    }
                }
                tx.append(draft.clone());
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(ended)
    }
}

/// Whether both act or not, with the same policies and groups.
fn has_rights_of(old: &Account, new: &Account) -> bool {
    old.policies == new.policies && old.groups == new.groups && old.active == new.active
}

/// Whether a change of an account takes something from it.
fn takes(before: &Account, after: Option<&Arc<Account>>) -> bool {
    after.is_none_or(|after| {
        (before.active && !after.active)
            || !after.policies.is_superset(&before.policies)
            || !after.groups.is_superset(&before.groups)
    })
}

/// Whether there is an owner now, and none after the change.
fn leaves_no_owner(state: &State, before: &Account, after: Option<&Arc<Account>>) -> bool {
    let as_it_will_be = |name: &AccountName| match *name == before.name {
        true => after,
        false => state.accounts.get(name),
    };
    let mut names = state.accounts.keys().filter_map(as_it_will_be);
    let had_one = state.accounts.values().any(|account| is_owner(account, |name| state.accounts.get(name)));
    had_one && !names.any(|account| is_owner(account, as_it_will_be))
}

/// Whether an account acts and holds the policy that allows everything, itself or through a group.
pub(crate) fn is_owner<'a>(
    account: &Account,
    group: impl Fn(&AccountName) -> Option<&'a Arc<Account>>,
) -> bool {
    let holds = |account: &Account| account.policies.iter().any(|policy| policy.as_str() == OWNER);
    let acts = account.active && account.kind.principal_kind().is_some();
    let mut groups = account.groups.iter().filter_map(group);
    acts && (holds(account) || groups.any(|group| group.active && holds(group)))
}

/// How an account's access ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    SwitchedOff,
    Removed,
}

/// What ended with it.
struct Ended {
    account: PrincipalId,
    tokens: usize,
    grants: usize,
}

/// Removes the sign-in codes of an account; there are never many in all.
fn remove_codes(tx: &mut Tx<'_>, principal: PrincipalId) -> Result<(), VaultError> {
    for row in tx.rows_with_prefix(Kind::SignInCode, "", usize::MAX)? {
        if SignInCodeEntity::parse(&row)?.principal == principal {
            tx.remove(Kind::SignInCode, &row.key)?;
        }
    }
    Ok(())
}

/// Removes an account; a group's name leaves its members, so that a later group of that name does not find them.
fn remove_account(tx: &mut Tx<'_>, account: &Account, members: &[Arc<Account>]) -> Result<(), VaultError> {
    for member in members {
        let mut member = Account::clone(member);
        member.groups.remove(&account.name);
        tx.put(Kind::Account, &member.key(), &member.body(), None)?;
    }
    tx.remove(Kind::Account, &account.key())?;
    Ok(())
}

fn check_references(state: &State, account: &Account) -> Result<(), VaultError> {
    if account.policies.len() > MAX_POLICIES_HELD {
        return Err(VaultError::invalid(format!("an account has at most {MAX_POLICIES_HELD} policies")));
    }
    for name in &account.policies {
        state.policy_named(name)?;
    }
    for name in &account.groups {
        let group = state.account_named(name)?;
        if group.kind != AccountKind::Group {
            return Err(VaultError::invalid(format!("`{name}` is not a group")));
        }
    }
    if account.kind == AccountKind::Group && !account.groups.is_empty() {
        return Err(VaultError::invalid("a group cannot be in a group").hint("give it the policies instead"));
    }
    Ok(())
}

impl State {
    /// The policy of that name.
    pub(crate) fn policy_named(
        &self,
        name: &PolicyName,
    ) -> Result<Arc<crate::state::StoredPolicy>, VaultError> {
        self.policies.get(name).map(Arc::clone).ok_or_else(|| {
            let error = VaultError::new(Code::NotFound, format!("no policy `{name}`"));
            match nearest(name.as_str(), self.policies.keys().map(PolicyName::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint("`keymoat policy list` shows them"),
            }
        })
    }
}

fn check_text(text: &str) -> Result<(), VaultError> {
    check_description(text).map_err(|e| VaultError::invalid(e.to_string()))
}

/// The built-in policy that allows everything.
const OWNER: &str = "owner";
