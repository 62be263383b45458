//! Policies: write, read, remove, explain.

use std::sync::Arc;

use keymoat_core::audit::Action;
use keymoat_core::names::{AccountName, PolicyName};
use keymoat_core::policy::{BUILT_IN, Capability, Decision, Explained, Policy, Resource};
use keymoat_store::Kind;

use crate::desk::{Change, Deed, Rights, resource_text, system_resource};
use crate::entity::{Entity as _, PolicyEntity};
use crate::state::StoredPolicy;
use crate::{Caller, Code, Vault, VaultError};

/// A decision with every rule that was looked at.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Whom it is about.
    pub account: AccountName,
    /// What would be decided now.
    pub decision: Decision,
    /// Every rule.
    pub rules: Vec<Explained>,
}

impl Vault {
    /// Writes a policy. Whoever holds it must not get more than the caller may do himself.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::Invalid`].
    pub async fn put_policy(&self, caller: &Caller, policy: Policy) -> Result<PolicyEntity, VaultError> {
        let name = policy.name.clone();
        check_not_built_in(&name)?;
        self.check_no_key([("the description", policy.description.as_str())])?;
        let entity = PolicyEntity { policy, updated_at: self.now(), updated_by: caller.name.to_string() };
        let stored = Arc::new(StoredPolicy::compile(entity)?);
        self.retry_stale(|| async {
            let resource = system_resource(&format!("policies/{name}"))?;
            let permit =
                self.authorize(caller, Capability::Write, Action::PolicyWrite, resource.clone()).await?;
            let change = Change::Policy { name: name.clone(), after: Some(Arc::clone(&stored)) };
            if !self.may_change(caller, &change) {
                return Err(self.beyond_policy(caller, Action::PolicyWrite, &resource, &name).await);
            }
            let doomed = self.outgrown(&change);
            let deed = doomed.told_in(Deed::done(Action::PolicyWrite, &resource));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, row) = (permit.pass, Arc::clone(&stored));
            self.store()
                .run_tx("put_policy", move |tx| {
                    pass.enter(tx)?;
                    doomed.remove(tx)?;
                    tx.put(Kind::Policy, &row.entity.key(), &row.entity.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(stored.entity.clone())
        })
        .await
    }

    /// Removes a policy that nobody holds.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Conflict`] while somebody holds it.
    pub async fn delete_policy(&self, caller: &Caller, name: &PolicyName) -> Result<(), VaultError> {
        check_not_built_in(name)?;
        self.retry_stale(|| async {
            let resource = system_resource(&format!("policies/{name}"))?;
            let permit =
                self.authorize(caller, Capability::Delete, Action::PolicyDelete, resource.clone()).await?;
            let holders = self.state(|state| {
                state.policy_named(name)?;
                let holders = state.accounts.values().filter(|account| account.policies.contains(name));
                Ok(holders.map(|account| account.name.to_string()).collect::<Vec<_>>())
            });
            let deletable = holders.and_then(|holders| match holders.as_slice() {
                [] => Ok(()),
                some => Err(VaultError::conflict(format!("policy `{name}` is held by {}", some.join(", ")))
                    .hint("take it from them first")),
            });
            if let Err(error) = deletable {
                return Err(self.failed(&permit, Action::PolicyDelete, error).await);
            }
            let draft = self.draft(
                caller,
                Deed::done(Action::PolicyDelete, &resource),
                Some(permit.decided_by.clone()),
            );
            let (pass, key) = (permit.pass, name.to_string());
            self.store()
                .run_tx("delete_policy", move |tx| {
                    pass.enter(tx)?;
                    tx.remove(Kind::Policy, &key)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(())
        })
        .await
    }

    /// The policies, by name, built-in ones included.
    ///
    /// # Errors
    /// [`Code::Refused`].
    pub async fn list_policies(&self, caller: &Caller) -> Result<Vec<PolicyEntity>, VaultError> {
        self.recorded(caller, Capability::List, Action::List, &system_resource("policies")?).await?;
        Ok(self.state(|state| state.policies.values().map(|stored| stored.entity.clone()).collect()))
    }

    /// One policy.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn show_policy(&self, caller: &Caller, name: &PolicyName) -> Result<PolicyEntity, VaultError> {
        let resource = system_resource(&format!("policies/{name}"))?;
        self.recorded(caller, Capability::Inspect, Action::Inspect, &resource).await?;
        self.state(|state| Ok(state.policy_named(name)?.entity.clone()))
    }

    /// What would be decided for an account, and why; everybody may ask about himself.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn explain(
        &self,
        caller: &Caller,
        account: &AccountName,
        capability: Capability,
        wanted: &Resource,
    ) -> Result<Explanation, VaultError> {
        if *account != caller.name {
            let resource = system_resource("policies")?;
            self.recorded(caller, Capability::Inspect, Action::Inspect, &resource).await?;
        }
        let request = self.request(caller, capability, wanted);
        self.state(|state| {
            let account = state.account_named(account)?;
            let rights = Rights::of(state, account.id);
            Ok(Explanation {
                account: account.name.clone(),
                decision: rights.decide(&request),
                rules: rights.explain(&request),
            })
        })
    }

    async fn beyond_policy(
        &self,
        caller: &Caller,
        action: Action,
        resource: &Resource,
        name: &PolicyName,
    ) -> VaultError {
        let reason = keymoat_core::audit::ReasonCode::BeyondOwnRights;
        if let Err(error) = self.record_refusal(caller, Deed::refused(action, resource, reason), None).await {
            return error;
        }
        VaultError::new(
            Code::Refused,
            format!(
                "policy `{name}` would allow more than `{}` may do, and nobody gives what he does not have",
                caller.name
            ),
        )
        .hint(format!("ask an owner; this is about `{}`", resource_text(resource)))
    }
}

fn check_not_built_in(name: &PolicyName) -> Result<(), VaultError> {
    if BUILT_IN.iter().any(|(built_in, _)| name.as_str() == *built_in) {
        return Err(VaultError::conflict(format!("policy `{name}` is built in and cannot be changed"))
            .hint("write one of another name"));
    }
    Ok(())
}
