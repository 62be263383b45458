//! The front desk's order of work: decide, write down, and only then open the value.
//!
//! Every use-case goes through here. This is the one place that makes permits and receipts.

use std::sync::Arc;

use keymoat_core::audit::{
    Action, Actor, AuditText, DecidedBy, DetailValue, Details, Event, Outcome, Personal, Reason, ReasonCode,
};
use keymoat_core::id::{PrincipalId, RequestId};
use keymoat_core::names::{Company, Field, ResourcePath, Scope, SystemPart};
use keymoat_core::policy::{self, Capability, CompiledPolicy, Decision, Explained, Refusal, Request, Resource};
use keymoat_core::grant::Grant;
use keymoat_crypto::SecretBytes;
use keymoat_store::{Committed, Draft};

use crate::entity::{Account, Secret, SecretName, company_text};
use crate::keyring::Keyring;
use crate::receipt::{Permit, Reader, Receipt};
use crate::state::{State, StoredGrant, StoredPolicy};
use crate::{Caller, Code, Origin, Vault, VaultError};

/// What a record is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) scope: Option<Scope>,
    pub(crate) company: Option<Company>,
    pub(crate) path: Option<ResourcePath>,
    pub(crate) field: Option<Field>,
}

impl From<&Resource> for About {
    fn from(resource: &Resource) -> Self {
        Self {
            scope: Some(resource.scope.clone()),
            company: resource.company.clone(),
            path: Some(resource.path.clone()),
            field: resource.field.clone(),
        }
    }
}

/// What a record says beyond who, when and from where.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) action: Action,
    pub(crate) about: About,
    pub(crate) version: Option<u32>,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<Reason>,
    pub(crate) details: Details,
}

impl Deed {
    /// Something that was allowed and done.
    pub(crate) fn done(action: Action, about: impl Into<About>) -> Self {
        Self { action, about: about.into(), version: None, outcome: Outcome::Allowed, reason: None, details: Details::new() }
    }

    /// Something that was allowed and could not be done.
    pub(crate) fn failed(action: Action, about: impl Into<About>, reason: impl Into<Reason>) -> Self {
        Self { outcome: Outcome::Failed, reason: Some(reason.into()), ..Self::done(action, about) }
    }

    /// Something that was refused.
    pub(crate) fn refused(action: Action, about: impl Into<About>, reason: impl Into<Reason>) -> Self {
        Self { outcome: Outcome::Refused, reason: Some(reason.into()), ..Self::done(action, about) }
    }

    pub(crate) fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    pub(crate) fn because(mut self, why: Option<&AuditText>) -> Self {
        if let Some(text) = why {
            self = self.detail("why", text.clone());
        }
        self
    }

    /// Adds a fact. There are far fewer than the most allowed, so none is lost.
    pub(crate) fn detail(mut self, name: &'static str, text: AuditText) -> Self {
        if let Ok(name) = name.parse() {
            let added = self.details.insert(name, DetailValue::Text(text));
            debug_assert!(added.is_ok(), "a record has room for every fact that the vault adds");
        }
        self
    }
}

impl Vault {
    /// Decides whether the caller may; a refusal is on the disk before this returns.
    pub(crate) async fn authorize(
        &self,
        caller: &Caller,
        capability: Capability,
        action: Action,
        resource: Resource,
    ) -> Result<Permit, VaultError> {
        let (decision, epoch) = self.decide(caller, capability, &resource);
        match decision {
            Decision::Allowed { by } => {
                Ok(Permit { caller: caller.clone(), capability, resource, decided_by: by, epoch })
            }
            Decision::Refused { why } => Err(self.refuse(caller, capability, action, &resource, &why).await),
        }
    }

    /// The bare decision, without a record: for filtering lists and for explaining.
    pub(crate) fn decide(&self, caller: &Caller, capability: Capability, resource: &Resource) -> (Decision, u64) {
        let request = self.request(caller, capability, resource);
        self.state(|state| (Rights::of(state, caller.principal).decide(&request), state.epoch))
    }

    /// Whether the caller may, without a record: for leaving out of an answer what he may not see.
    pub(crate) fn may(&self, caller: &Caller, capability: Capability, resource: &Resource) -> bool {
        self.decide(caller, capability, resource).0.is_allowed()
    }

    /// The question that decides, at this moment.
    pub(crate) fn request<'a>(
        &self,
        caller: &'a Caller,
        capability: Capability,
        resource: &'a Resource,
    ) -> Request<'a> {
        Request {
            capability,
            resource,
            address: caller.origin.address,
            module: caller.origin.module.as_ref().map(AuditText::as_str),
            now: self.now(),
        }
    }

    /// Records the use of a permit and returns the receipt that opens this version, once.
    pub(crate) async fn receive(
        &self,
        permit: &Permit,
        deed: Deed,
        secret: &Secret,
        version: u32,
    ) -> Result<(Receipt, u64), VaultError> {
        let draft = self.draft(&permit.caller, deed.version(version), Some(permit.decided_by.clone()));
        let committed = self.store().append(draft, Some(permit.epoch)).await?;
        Ok((Receipt::for_permit(permit, secret.id, version, committed.event), committed.event))
    }

    /// Records the use of a permit where no value is opened.
    pub(crate) async fn record(&self, permit: &Permit, deed: Deed) -> Result<Committed, VaultError> {
        let draft = self.draft(&permit.caller, deed, Some(permit.decided_by.clone()));
        Ok(self.store().append(draft, Some(permit.epoch)).await?)
    }

    /// Opens a version, spending its receipt.
    pub(crate) fn open_value(
        &self,
        receipt: Receipt,
        caller: &Caller,
        secret: &Secret,
        version: u32,
        ciphertext: &[u8],
    ) -> Result<SecretBytes, VaultError> {
        open_with(self.keyring(), receipt, &Reader::Principal(caller.principal), secret, version, ciphertext)
    }

    /// Keymoat's own receipt for its own named work on a stored value.
    pub(crate) fn system_receipt(part: SystemPart, secret: &Secret, version: u32) -> Receipt {
        Receipt::for_system(part, secret.id, version)
    }

    /// Does it again when the access rules changed meanwhile, a few times.
    pub(crate) async fn retry_stale<R>(
        &self,
        mut work: impl AsyncFnMut() -> Result<R, VaultError>,
    ) -> Result<R, VaultError> {
        for _ in 1..STALE_TRIES {
            match work().await {
                Err(error) if error.is_stale() => {}
                outcome => return outcome,
            }
        }
        work().await
    }

    /// The record of a deed of this caller.
    pub(crate) fn draft(&self, caller: &Caller, deed: Deed, decided_by: Option<DecidedBy>) -> Draft {
        let event = self.event(caller.actor(), caller, deed, decided_by);
        Draft { event, personal: Some(caller.personal()) }
    }

    /// The record of something that somebody did who is not signed in.
    pub(crate) fn anonymous_draft(&self, origin: &Origin, deed: Deed) -> Draft {
        let personal = Personal {
            actor_name: None,
            address: origin.address,
            user_agent: origin.user_agent.clone(),
        };
        let event = self.base_event(Actor::Anonymous, origin.request, deed, None);
        Draft { event, personal: Some(personal) }
    }

    /// The record of something that Keymoat does of itself.
    pub(crate) fn system_draft(&self, part: &SystemPart, deed: Deed) -> Draft {
        let decided_by = Some(DecidedBy::System(part.clone()));
        let event = self.base_event(Actor::System(part.clone()), self.new_request_id(), deed, decided_by);
        Draft { event, personal: None }
    }

    fn event(&self, actor: Actor, caller: &Caller, deed: Deed, decided_by: Option<DecidedBy>) -> Event {
        Event {
            on_behalf_of: caller.origin.on_behalf_of.clone(),
            module: caller.origin.module.clone(),
            ..self.base_event(actor, caller.origin.request, deed, decided_by)
        }
    }

    fn base_event(
        &self,
        actor: Actor,
        request: RequestId,
        deed: Deed,
        decided_by: Option<DecidedBy>,
    ) -> Event {
        Event {
            seq: 0,
            time: self.now(),
            request,
            actor,
            on_behalf_of: None,
            module: None,
            action: deed.action,
            scope: deed.about.scope,
            company: deed.about.company,
            path: deed.about.path,
            field: deed.about.field,
            version: deed.version,
            result: deed.outcome,
            reason: deed.reason,
            decided_by,
            personal: None,
            details: deed.details,
            rows: Vec::new(),
        }
    }

    /// Writes the refusal down and says it; if it cannot be written down, says that instead.
    async fn refuse(
        &self,
        caller: &Caller,
        capability: Capability,
        action: Action,
        resource: &Resource,
        why: &Refusal,
    ) -> VaultError {
        let (code, decided_by) = match why {
            Refusal::NoRule => (ReasonCode::NoRule, None),
            Refusal::Denied { by } => (ReasonCode::DeniedByRule, Some(by.clone())),
            Refusal::ConditionFailed { by, .. } => (ReasonCode::ConditionFailed, Some(by.clone())),
        };
        let draft = self.draft(caller, Deed::refused(action, resource, code), decided_by);
        if let Err(error) = self.store().append(draft, None).await {
            return error.into();
        }
        let message = format!("`{}` may not {capability} `{}`: {why}", caller.name, resource_text(resource));
        VaultError::new(Code::Refused, message).hint(format!(
            "ask an administrator; `keymoat policy explain {} {capability} {}` shows every rule that was looked at",
            caller.name,
            resource_text(resource)
        ))
    }
}

/// Opens a version, spending the receipt that was made for it.
pub(crate) fn open_with(
    keyring: &Keyring,
    receipt: Receipt,
    reader: &Reader,
    secret: &Secret,
    version: u32,
    ciphertext: &[u8],
) -> Result<SecretBytes, VaultError> {
    if !receipt.spend(secret.id, version, reader) {
        return Err(VaultError::new(Code::Internal, "a receipt was presented for a value that it was not made for"));
    }
    keyring.open(&secret.name, *secret.id.as_uuid(), version, ciphertext)
}

/// Everything that gives a principal rights, at one moment.
pub(crate) struct Rights {
    policies: Vec<Arc<StoredPolicy>>,
    grants: Vec<Arc<StoredGrant>>,
}

impl Rights {
    /// The rights of an account: its own and those of the groups that it is in; none when it may not act.
    pub(crate) fn of(state: &State, principal: PrincipalId) -> Self {
        let Some(account) = state.account(principal).filter(|account| account.active) else {
            return Self { policies: Vec::new(), grants: Vec::new() };
        };
        Self::of_account(state, account)
    }

    /// The rights that an account and its groups make together.
    pub(crate) fn made_of(state: &State, account: &Account, groups: &[Arc<Account>]) -> Self {
        let names = account.policies.iter().chain(groups.iter().flat_map(|group| group.policies.iter()));
        let policies = names.filter_map(|name| state.policies.get(name)).map(Arc::clone).collect();
        let holds = |id: PrincipalId| id == account.id || groups.iter().any(|group| group.id == id);
        let grants =
            state.grants.values().filter(|stored| holds(stored.entity.principal)).map(Arc::clone).collect();
        Self { policies, grants }
    }

    /// The same without one policy.
    pub(crate) fn without_policy(&self, name: &keymoat_core::names::PolicyName) -> Self {
        let others = self.policies.iter().filter(|stored| stored.compiled.name() != name);
        Self { policies: others.map(Arc::clone).collect(), grants: self.grants.iter().map(Arc::clone).collect() }
    }

    pub(crate) fn decide(&self, request: &Request<'_>) -> Decision {
        policy::decide(&self.policies(), &self.grants(), request)
    }

    pub(crate) fn explain(&self, request: &Request<'_>) -> Vec<Explained> {
        policy::explain(&self.policies(), &self.grants(), request)
    }

    /// Whether the holder may do all that these rules would allow.
    pub(crate) fn cover(&self, wanted: &[&policy::CompiledRule], now: jiff::Timestamp) -> bool {
        policy::covers(&self.policies(), &self.grants(), wanted, now)
    }

    /// Every rule, of policies and of grants that have effect.
    pub(crate) fn all_rules(&self, now: jiff::Timestamp) -> impl Iterator<Item = &policy::CompiledRule> {
        let granted = self.grants.iter().filter(move |stored| stored.grant.is_active(now));
        let policies = self.policies.iter().flat_map(|stored| stored.compiled.rules());
        policies.chain(granted.flat_map(|stored| stored.grant.rules()))
    }

    /// The rules that allow, of policies and of grants that have effect.
    pub(crate) fn allowing_rules(&self, now: jiff::Timestamp) -> impl Iterator<Item = &policy::CompiledRule> {
        self.all_rules(now).filter(|rule| rule.effect() == policy::Effect::Allow)
    }

    fn policies(&self) -> Vec<&CompiledPolicy> {
        self.policies.iter().map(|stored| &stored.compiled).collect()
    }

    fn grants(&self) -> Vec<&Grant> {
        self.grants.iter().map(|stored| &stored.grant).collect()
    }
}

/// The resource that a secret, or one of its fields, is.
pub(crate) fn secret_resource(name: &SecretName, field: Option<&Field>) -> Resource {
    Resource {
        scope: Scope::Environment(name.environment.clone()),
        company: name.company.clone(),
        path: ResourcePath::from(name.path.clone()),
        field: field.cloned(),
    }
}

/// A part of Keymoat itself as a resource.
pub(crate) fn system_resource(path: &str) -> Result<Resource, VaultError> {
    Ok(Resource { scope: Scope::System, company: None, path: path.parse()?, field: None })
}

/// A resource as the command line spells it: `prod/stripe`, `sys/audit`.
pub(crate) fn resource_text(resource: &Resource) -> String {
    let mut text = format!("{}/{}", resource.scope, resource.path);
    if let Some(field) = &resource.field {
        text.push('#');
        text.push_str(field.as_str());
    }
    if resource.company.is_some() {
        text.push_str(&format!(" (company {})", company_text(resource.company.as_ref())));
    }
    text
}

/// Rules that change more often than this during one request are a fault.
const STALE_TRIES: usize = 4;
