//! Spaces of issued keys, and the state of owners.

use std::collections::BTreeMap;
use std::sync::Arc;

use keymoat_core::audit::{Action, AuditText};
use keymoat_core::issued::{HeldScope, OwnerInactive, OwnerKind, OwnerRef};
use keymoat_core::names::{Company, Environment, RoleName, SpaceName};
use keymoat_core::policy::Capability;
use keymoat_core::secret::check_description;

use super::rows::{KeyAudit, KeyOwner, KeySpace};
use super::{ACCOUNT_OWNER, SPACES};
use crate::desk::{Deed, system_resource};
use crate::entity::Entity as _;
use crate::{Caller, Vault, VaultError};

/// The rules of a space.
#[derive(Debug, Clone)]
pub struct KeySpaceRules {
    /// What it is for.
    pub description: String,
    /// The environments that its keys may be of; any when empty.
    pub environments: Vec<Environment>,
    /// What roles give.
    pub roles: BTreeMap<RoleName, Vec<HeldScope>>,
    /// What becomes of the keys of an owner who is not active.
    pub owner_inactive: OwnerInactive,
    /// The same for the keys of some companies.
    pub owner_inactive_of: BTreeMap<Company, OwnerInactive>,
    /// How long a key may last at most, in seconds, by what kind of owner it has.
    pub max_age_secs: BTreeMap<OwnerKind, u64>,
    /// Which uses have a record of their own.
    pub audit: KeyAudit,
}

impl Vault {
    /// The spaces, by name.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused).
    pub async fn key_spaces(&self, caller: &Caller) -> Result<Vec<Arc<KeySpace>>, VaultError> {
        self.recorded(caller, Capability::List, Action::List, &system_resource(SPACES)?).await?;
        Ok(self.state(|state| state.issued.spaces().map(Arc::clone).collect()))
    }

    /// Makes a space, or changes its rules: they are those of all its keys from then on.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused); [`Code::Invalid`](crate::Code::Invalid).
    pub async fn put_key_space(
        &self,
        caller: &Caller,
        name: SpaceName,
        rules: KeySpaceRules,
    ) -> Result<KeySpace, VaultError> {
        check_description(&rules.description).map_err(|e| VaultError::invalid(e.to_string()))?;
        self.check_no_key([("the description", rules.description.as_str())])?;
        let scopes = rules.roles.values().flatten().map(|scope| ("a scope", scope.as_str()));
        self.check_no_key(scopes.chain(rules.roles.keys().map(|role| ("a role", role.as_str()))))?;
        if rules.roles.len() > ROLES_MAX || rules.roles.values().any(|scopes| scopes.len() > SCOPES_MAX) {
            return Err(VaultError::invalid(format!(
                "a space has at most {ROLES_MAX} roles of {SCOPES_MAX} scopes each"
            )));
        }
        let created_at = self.state(|state| state.issued.space(&name).map(|old| old.created_at));
        let created_at = created_at.filter(|at| *at != jiff::Timestamp::UNIX_EPOCH);
        let KeySpaceRules { description, environments, roles, .. } = rules;
        let space = KeySpace {
            name: name.clone(),
            description,
            environments,
            roles,
            owner_inactive: rules.owner_inactive,
            owner_inactive_of: rules.owner_inactive_of,
            max_age_secs: rules.max_age_secs,
            audit: rules.audit,
            created_at: created_at.unwrap_or(self.now()),
        };
        self.retry_stale(|| async {
            let resource = system_resource(&format!("{SPACES}/{name}"))?;
            let permit =
                self.authorize(caller, Capability::Write, Action::Configure, resource.clone()).await?;
            let unknown = space.environments.iter().try_for_each(|name| self.check_environment(caller, name));
            if let Err(error) = unknown {
                return Err(self.failed(&permit, Action::Configure, error).await);
            }
            let deed = Deed::done(Action::Configure, &resource);
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, stored) = (permit.pass, space.clone());
            self.store()
                .run_tx("put_key_space", move |tx| {
                    pass.enter(tx)?;
                    tx.put(KeySpace::KIND, &stored.key(), &stored.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(space.clone())
        })
        .await
    }

    /// Takes in whether an owner is active, as his host says. That of an account is the account's own.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused); [`Code::Invalid`](crate::Code::Invalid).
    pub async fn set_key_owner(
        &self,
        caller: &Caller,
        owner: OwnerRef,
        active: bool,
    ) -> Result<KeyOwner, VaultError> {
        self.check_no_key([("the owner", owner.as_str())])?;
        self.retry_stale(|| async {
            let resource = system_resource(OWNERS)?;
            let permit =
                self.authorize(caller, Capability::Write, Action::Configure, resource.clone()).await?;
            if owner.as_str().starts_with(ACCOUNT_OWNER) {
                let error = VaultError::invalid("whether an account is active stands in the account itself")
                    .hint("`keymoat account update NAME --deactivate`");
                return Err(self.failed(&permit, Action::Configure, error).await);
            }
            let said = KeyOwner {
                owner: owner.clone(),
                active,
                updated_at: self.now(),
                updated_by: caller.name.to_string(),
            };
            let is = if active { "active" } else { "inactive" };
            let deed = Deed::done(Action::Configure, &resource)
                .detail("owner", AuditText::new(owner.as_str()))
                .detail("is", AuditText::new(is));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, stored) = (permit.pass, said.clone());
            self.store()
                .run_tx("set_key_owner", move |tx| {
                    pass.enter(tx)?;
                    tx.put(KeyOwner::KIND, &stored.key(), &stored.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(said)
        })
        .await
    }
}

/// Whether owners are active, as policies speak of it.
const OWNERS: &str = "key-owners";
/// More roles are better said as scopes.
const ROLES_MAX: usize = 100;
/// Each is looked at with a verification.
pub(super) const SCOPES_MAX: usize = 100;
