//! Users, service accounts and groups. Nobody gives anybody more than he may do himself.

use std::collections::BTreeSet;
use std::sync::Arc;

use keymoat_core::audit::{Action, AuditText};
use keymoat_core::names::{AccountName, PolicyName, nearest};
use keymoat_core::policy::{Capability, CompiledRule, MAX_POLICIES_HELD};
use keymoat_core::secret::check_description;
use keymoat_store::Kind;

use crate::desk::{Deed, Rights, system_resource};
use crate::entity::{Account, AccountKind, Entity as _, SecretName};
use crate::receipt::Permit;
use crate::state::State;
use crate::tokens::account_path;
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
        let os_user = new.name.os_user().is_some();
        if os_user != (new.kind == AccountKind::OsUser) {
            return Err(VaultError::invalid(format!("`{}` does not go with that kind of account", new.name))
                .hint("users of the operating system, and only they, are called `os:NAME`"));
        }
        let account = Account {
            id: self.new_principal_id(),
            name: new.name,
            kind: new.kind,
            description: new.description,
            policies: new.policies,
            groups: new.groups,
            active: true,
            created_at: self.now(),
            created_by: caller.name.to_string(),
        };
        self.write_account(caller, Action::AccountCreate, None, account).await
    }

    /// Changes an account.
    ///
    /// # Errors
    /// [`Code::Refused`], also when it would have more than the caller; [`Code::NotFound`]; [`Code::Invalid`].
    pub async fn update_account(
        &self,
        caller: &Caller,
        name: &AccountName,
        change: AccountChange,
    ) -> Result<Arc<Account>, VaultError> {
        if let Some(text) = &change.description {
            check_text(text)?;
        }
        let old = match self.account_named(name) {
            Ok(old) => old,
            Err(error) => return Err(self.not_there(caller, Action::AccountUpdate, name, error).await),
        };
        let mut account = Account::clone(&old);
        account.description = change.description.unwrap_or(account.description);
        account.policies = change.policies.unwrap_or(account.policies);
        account.groups = change.groups.unwrap_or(account.groups);
        account.active = change.active.unwrap_or(account.active);
        self.write_account(caller, Action::AccountUpdate, Some(&old), account).await
    }

    /// Removes an account with its tokens and grants.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn delete_account(&self, caller: &Caller, name: &AccountName) -> Result<(), VaultError> {
        self.retry_stale(async || {
            let permit = self.permit_account(caller, Capability::Delete, Action::AccountDelete, name).await?;
            let account = self.account_named(name)?;
            if account.id == caller.principal {
                return Err(VaultError::conflict("nobody removes his own account").hint("ask another administrator"));
            }
            self.end_access(&permit, &account, Action::AccountDelete, true).await.map(|_| ())
        })
        .await
    }

    /// Ends everything that an account may do, in one step, and lists the keys that it has seen.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn leave(&self, caller: &Caller, name: &AccountName) -> Result<LeaverReport, VaultError> {
        let (tokens, grants, id) = self
            .retry_stale(async || {
                let permit = self.permit_account(caller, Capability::Write, Action::AccountUpdate, name).await?;
                let account = self.account_named(name)?;
                let (tokens, grants) = self.end_access(&permit, &account, Action::AccountUpdate, false).await?;
                Ok((tokens, grants, account.id))
            })
            .await?;
        Ok(LeaverReport { tokens, grants, seen: self.seen_by(id).await? })
    }

    /// The accounts, by name.
    ///
    /// # Errors
    /// [`Code::Refused`].
    pub async fn list_accounts(&self, caller: &Caller) -> Result<Vec<Arc<Account>>, VaultError> {
        self.retry_stale(async || {
            let resource = system_resource("accounts")?;
            let permit = self.authorize(caller, Capability::List, Action::List, resource.clone()).await?;
            self.record(&permit, Deed::done(Action::List, &resource)).await
        })
        .await?;
        Ok(self.state(|state| state.accounts.values().map(Arc::clone).collect()))
    }

    /// One account; everybody may look at his own.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn show_account(&self, caller: &Caller, name: &AccountName) -> Result<Arc<Account>, VaultError> {
        if *name == caller.name {
            return self.account_named(name);
        }
        self.retry_stale(async || {
            let permit = self.permit_account(caller, Capability::Inspect, Action::Inspect, name).await?;
            let resource = permit.resource.clone();
            self.record(&permit, Deed::done(Action::Inspect, &resource)).await?;
            self.account_named(name)
        })
        .await
    }

    async fn write_account(
        &self,
        caller: &Caller,
        action: Action,
        old: Option<&Arc<Account>>,
        account: Account,
    ) -> Result<Arc<Account>, VaultError> {
        let account = Arc::new(account);
        self.retry_stale(async || {
            let permit = self.permit_account(caller, Capability::Write, action, &account.name).await?;
            self.state(|state| check_references(state, &account))?;
            if !self.may_give(caller, old.map(|old| &**old), &account) {
                return Err(self.beyond(caller, action, &permit.resource, &account.name).await);
            }
            let draft = self.draft(caller, Deed::done(action, &permit.resource), Some(permit.decided_by.clone()));
            let (epoch, is_new, stored) = (permit.epoch, old.is_none(), Arc::clone(&account));
            self.store()
                .run_tx("write_account", move |tx| {
                    tx.check_epoch(epoch)?;
                    if is_new && tx.row(Kind::Account, &stored.key())?.is_some() {
                        return Err(VaultError::conflict(format!("there is already an account `{}`", stored.name)));
                    }
                    tx.put(Kind::Account, &stored.key(), &stored.body(), None)?;
                    tx.append(draft.clone());
                    Ok(())
                })
                .await?;
            Ok(Arc::clone(&account))
        })
        .await
    }

    /// Whether the caller may make an account what it will be: either that is no more than it was, or no more than he
    /// may do himself. A group is looked at through what its members would get.
    fn may_give(&self, caller: &Caller, old: Option<&Account>, new: &Account) -> bool {
        let now = self.now();
        self.state(|state| {
            let after = Rights::of_account(state, new);
            let before = old.map(|old| Rights::of_account(state, old));
            let own = Rights::of(state, caller.principal);
            let wanted: Vec<&CompiledRule> = after.all_rules(now).collect();
            before.is_some_and(|before| before.cover(&wanted, now)) || own.cover(&wanted, now)
        })
    }

    async fn permit_account(
        &self,
        caller: &Caller,
        capability: Capability,
        action: Action,
        name: &AccountName,
    ) -> Result<Permit, VaultError> {
        let resource = system_resource(&format!("accounts/{}", account_path(name)))?;
        self.authorize(caller, capability, action, resource).await
    }

    /// Only who may change accounts learns that one is not there.
    async fn not_there(&self, caller: &Caller, action: Action, name: &AccountName, error: VaultError) -> VaultError {
        match self.permit_account(caller, Capability::Write, action, name).await {
            Ok(_) => error,
            Err(refused) => refused,
        }
    }

    /// Revokes every token and grant of an account, and switches it off or removes it.
    async fn end_access(
        &self,
        permit: &Permit,
        account: &Account,
        action: Action,
        remove: bool,
    ) -> Result<(usize, usize), VaultError> {
        let deed = Deed::done(action, &permit.resource).detail("ended", AuditText::new("tokens and grants"));
        let draft = self.draft(&permit.caller, deed, Some(permit.decided_by.clone()));
        let (id, epoch, mut account) = (account.id, permit.epoch, account.clone());
        account.active = false;
        let tokens: Vec<String> = self.state(|state| {
            state.tokens.values().filter(|token| token.principal == id).map(|token| token.key()).collect()
        });
        let grants: Vec<String> = self.state(|state| {
            let grants = state.grants.values().filter(|stored| stored.entity.principal == id);
            grants.map(|stored| stored.entity.key()).collect()
        });
        let counts = (tokens.len(), grants.len());
        self.store()
            .run_tx("end_access", move |tx| {
                tx.check_epoch(epoch)?;
                for key in &tokens {
                    tx.remove(Kind::Token, key)?;
                }
                for key in &grants {
                    tx.remove(Kind::Grant, key)?;
                }
                match remove {
                    true => drop(tx.remove(Kind::Account, &account.key())?),
                    false => tx.put(Kind::Account, &account.key(), &account.body(), None)?,
                }
                tx.append(draft.clone());
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(counts)
    }
}

impl Rights {
    /// What an account would have, whether or not it is stored like this.
    pub(crate) fn of_account(state: &State, account: &Account) -> Self {
        let groups = account.groups.iter().filter_map(|name| state.accounts.get(name)).filter(|group| group.active);
        Self::made_of(state, account, &groups.map(Arc::clone).collect::<Vec<_>>())
    }
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
    pub(crate) fn policy_named(&self, name: &PolicyName) -> Result<Arc<crate::state::StoredPolicy>, VaultError> {
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
