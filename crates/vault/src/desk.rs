//! The front desk's order of work: decide, write down, and only then open the value.
//!
//! Every use-case goes through here. This is the one place that makes permits and receipts.

use std::collections::BTreeSet;
use std::sync::Arc;

use keymoat_core::audit::{
    Action, Actor, AuditText, DecidedBy, DetailValue, Details, Event, Outcome, Personal, Reason, ReasonCode,
};
use keymoat_core::grant::Grant;
use keymoat_core::id::{GrantId, PrincipalId, RequestId};
use keymoat_core::names::{AccountName, Company, Field, PolicyName, ResourcePath, Scope, SystemPart};
use keymoat_core::policy::{
    self, Capability, CompiledPolicy, Decision, Explained, Refusal, Request, Resource,
};
use keymoat_crypto::SecretBytes;
use keymoat_store::{Committed, Draft, Kind, Store, StoreError, Tx};

use crate::entity::{
    Account, AccountKind, Entity as _, GrantEntity, Secret, SecretName, company_text, version_key,
};
use crate::grants::is_administrator;
use crate::keyring::Keyring;
use crate::receipt::{Pass, Permit, Reader, Receipt};
use crate::refusals::{Source, seconds_left};
use crate::state::{State, StoredGrant, StoredPolicy};
use crate::tokens::{Doomed, not_signed_in};
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
        Self {
            action,
            about: about.into(),
            version: None,
            outcome: Outcome::Allowed,
            reason: None,
            details: Details::new(),
        }
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
        let now = self.now();
        let (decision, spends, epoch, signed_in) = self.state(|state| {
            let rights = Rights::of_caller(state, caller);
            let decision = rights.decide(&request_at(caller, capability, &resource, now));
            let spends = rights.counted_grant(&decision);
            (decision, spends, state.epoch, is_signed_in(state, caller))
        });
        match decision {
            Decision::Allowed { by } => {
                let pass = Pass { epoch, spends, now };
                Ok(Permit { caller: caller.clone(), capability, resource, decided_by: by, pass })
            }
            Decision::Refused { .. } if !signed_in => {
                let deed = Deed::refused(action, &resource, ReasonCode::Revoked);
                self.record_refusal(caller, deed, None).await?;
                Err(not_signed_in())
            }
            Decision::Refused { why } => Err(self.refuse(caller, capability, action, &resource, &why).await),
        }
    }

    /// Decides and writes down, where what was asked for opens no value and changes nothing.
    pub(crate) async fn recorded(
        &self,
        caller: &Caller,
        capability: Capability,
        action: Action,
        resource: &Resource,
    ) -> Result<Permit, VaultError> {
        self.retry_stale(|| async {
            let permit = self.authorize(caller, capability, action, resource.clone()).await?;
            self.record(&permit, Deed::done(action, resource)).await?;
            Ok(permit)
        })
        .await
    }

    /// Whether the caller may, without a record: for leaving out of an answer what he may not see.
    pub(crate) fn may(&self, caller: &Caller, capability: Capability, resource: &Resource) -> bool {
        let request = self.request(caller, capability, resource);
        self.state(|state| Rights::of_caller(state, caller).decide(&request).is_allowed())
    }

    /// Whether the caller may, without a record and without a use being taken off a grant that counts them.
    pub(crate) fn may_uncounted(&self, caller: &Caller, capability: Capability, resource: &Resource) -> bool {
        let request = self.request(caller, capability, resource);
        self.state(|state| Rights::of_caller(state, caller).uncounted().decide(&request).is_allowed())
    }

    /// Whether the caller may be shown more of a secret than its name in an answer about something else, without a
    /// record. A grant with a number of uses does not count here: nothing is taken off it.
    pub fn may_inspect(&self, caller: &Caller, name: &SecretName) -> bool {
        self.inspector(caller)(name)
    }

    /// Answers [`Vault::may_inspect`] for many secrets, from the rights that the caller has now.
    pub fn inspector(&self, caller: &Caller) -> impl Fn(&SecretName) -> bool {
        let rights = self.state(|state| Rights::of_caller(state, caller)).uncounted();
        let now = self.now();
        move |name| {
            let resource = secret_resource(name, None);
            rights.decide(&request_at(caller, Capability::Inspect, &resource, now)).is_allowed()
        }
    }

    /// Whether the caller may make a change of who has which rights: nobody it touches may get more than the caller
    /// may do himself.
    pub(crate) fn may_change(&self, caller: &Caller, change: &Change) -> bool {
        let now = self.now();
        self.state(|state| {
            let actor = Rights::of_caller(state, caller);
            change.touched(state).iter().all(|Touched { before, after, .. }| {
                // A new denial takes away, and nobody takes from who may do more than he may himself.
                let covers = || actor.may_change(&Rights::none(), before, now);
                actor.may_change(before, after, now) && (!after.denies_more_than(before, now) || covers())
            })
        })
    }

    /// The tokens and sign-in codes that somebody else made for an account to which a change gives what he could not
    /// have given it himself: with them he would get what was never his to pass on.
    pub(crate) fn outgrown(&self, change: &Change) -> Doomed {
        let now = self.now();
        self.state(|state| {
            let mut doomed = Doomed::as_of(state);
            for Touched { account, before, after } in change.touched(state) {
                let Some(account) = account else { continue };
                let could_give = |hands: &BTreeSet<PrincipalId>| {
                    let mut others = hands.iter().filter(|hand| **hand != account);
                    !hands.is_empty()
                        && others.all(|hand| Rights::of(state, *hand).may_change(&before, &after, now))
                };
                // Nothing is added where even somebody without any rights could make the change.
                if Rights::none().may_change(&before, &after, now) {
                    continue;
                }
                doomed.widened.insert(account);
                let tokens = state.tokens.values().filter(|token| {
                    token.principal == account
                        && token.foreign_since.is_some()
                        && !could_give(&token.created_by_ids)
                });
                doomed.tokens.extend(tokens.map(|token| token.id));
                let codes = state.sign_in_codes.values().filter(|code| {
                    code.principal == account && code.foreign && !could_give(&code.created_by_ids)
                });
                doomed.codes.extend(codes.map(|code| code.digest.clone()));
            }
            doomed.with_descendants(state)
        })
    }

    /// The question that decides, at this moment.
    pub(crate) fn request<'a>(
        &self,
        caller: &'a Caller,
        capability: Capability,
        resource: &'a Resource,
    ) -> Request<'a> {
        request_at(caller, capability, resource, self.now())
    }

    /// Records the use of a permit and returns the receipt that opens this version, once.
    pub(crate) async fn receive(
        &self,
        permit: &Permit,
        deed: Deed,
        secret: &Secret,
        version: u32,
    ) -> Result<(Receipt, u64), VaultError> {
        let asked = secret_resource(&secret.name, permit.resource.field.as_ref());
        if permit.capability != Capability::Reveal || permit.resource != asked {
            return Err(VaultError::new(
                Code::Internal,
                "a permit was presented for a value that it was not made for",
            ));
        }
        let committed = self.record(permit, deed.version(version)).await?;
        Ok((Receipt::for_permit(permit, secret.id, version, committed.event), committed.event))
    }

    /// Records the use of a permit where no value is opened. What could not be done uses up nothing.
    pub(crate) async fn record(&self, permit: &Permit, deed: Deed) -> Result<Committed, VaultError> {
        let (pass, is_use) = (permit.pass, deed.outcome == Outcome::Allowed);
        let draft = self.draft(&permit.caller, deed, Some(permit.decided_by.clone()));
        let store = match permit.capability {
            Capability::List | Capability::Inspect | Capability::Delete => self.store_for(&permit.caller),
            _ => self.store().clone(),
        };
        if pass.spends.is_none() || !is_use {
            return Ok(store.append(draft, Some(pass.epoch)).await?);
        }
        let recorded = store.run_tx("spend_grant", move |tx| {
            pass.enter(tx)?;
            tx.append(draft.clone());
            Ok::<_, VaultError>(())
        });
        Ok(recorded.await?.1)
    }

    /// Opens a version, spending its receipt. The ciphertext is read once more where its data key was replaced and
    /// removed since it was read.
    pub(crate) async fn open_value(
        &self,
        receipt: Receipt,
        caller: &Caller,
        secret: &Secret,
        version: u32,
        ciphertext: &[u8],
    ) -> Result<SecretBytes, VaultError> {
        let mut newer = None;
        let key = keymoat_crypto::data_key_of(ciphertext).ok();
        if key.is_some_and(|number| self.keyring().data_key(number).is_none()) {
            let row = version_key(secret.id, version);
            let row = self.store().read(move |reader| reader.row(Kind::Version, &row)).await?;
            newer = row.and_then(|row| row.blob);
        }
        let ciphertext = newer.as_deref().unwrap_or(ciphertext);
        open_with(self.keyring(), receipt, &Reader::Principal(caller.principal), secret, version, ciphertext)
    }

    /// Keymoat's own receipt for its own named work on a stored value.
    pub(crate) fn system_receipt(part: SystemPart, secret: &Secret, version: u32) -> Receipt {
        Receipt::for_system(part, secret.id, version)
    }

    /// The store as this caller may use it to look or to remove: while the disk is full, an administrator may use the
    /// room that is kept for that.
    pub(crate) fn store_for(&self, caller: &Caller) -> Store {
        if !self.store().is_full() {
            return self.store().clone();
        }
        let now = self.now();
        let is_let_in = self.state(|state| {
            is_signed_in(state, caller)
                && state.account(caller.principal).is_some_and(|own| is_administrator(state, own, now))
        });
        if is_let_in { self.store().reserved() } else { self.store().clone() }
    }

    /// Does it again when the access rules changed meanwhile, a few times.
    pub(crate) async fn retry_stale<R, F: Future<Output = Result<R, VaultError>>>(
        &self,
        mut work: impl FnMut() -> F,
    ) -> Result<R, VaultError> {
        let mut was_full = self.store().is_full();
        for _ in 1..STALE_TRIES {
            match work().await {
                Err(error) if error.is_stale() => {}
                // Now that the disk is known to be full, an administrator's next try may use the reserve.
                Err(error) if error.code == Code::Unavailable && !was_full && self.store().is_full() => {
                    was_full = true;
                }
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
        let personal =
            Personal { actor_name: None, address: origin.address, user_agent: origin.user_agent.clone() };
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

    /// Writes down that somebody who is signed in was refused. Beyond a number a minute it is only counted, and the
    /// error then says nothing but that: nobody is told the decision on what is not on record.
    ///
    /// # Errors
    /// [`Code::RateLimited`]; those of the store.
    pub(crate) async fn record_refusal(
        &self,
        caller: &Caller,
        mut deed: Deed,
        decided_by: Option<DecidedBy>,
    ) -> Result<(), VaultError> {
        let now = self.now();
        let Some(counted) = self.refusals().admit(Source::Principal(caller.principal), now) else {
            return Err(too_many_refusals(now));
        };
        if counted > 0 {
            deed = deed.detail(SUPPRESSED_BEFORE, AuditText::new(&counted.to_string()));
        }
        self.store().append(self.draft(caller, deed, decided_by), None).await?;
        Ok(())
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
        if let Err(error) =
            self.record_refusal(caller, Deed::refused(action, resource, code), decided_by).await
        {
            return error;
        }
        let message = format!("`{}` may not {capability} `{}`: {why}", caller.name, resource_text(resource));
        if let Some(near) = self.place_meant(caller, resource) {
            return VaultError::new(Code::Refused, message).hint(format!("did you mean `{near}`?"));
        }
        VaultError::new(Code::Refused, message).hint(format!(
            "ask an administrator; `keymoat policy explain {} {capability} {}` shows every rule that was looked at",
            caller.name,
            resource_words(resource)
        ))
    }
}

impl Pass {
    /// Enters a transaction: the rules are still those that allowed it, and a grant that counts its uses counts one.
    /// Who finds the last use gone has to be decided again.
    pub(crate) fn enter(self, tx: &mut Tx<'_>) -> Result<(), VaultError> {
        tx.check_epoch(self.epoch)?;
        let Some(id) = self.spends else { return Ok(()) };
        let row = tx.row(Kind::Grant, &id.to_string())?.ok_or(StoreError::Stale)?;
        let mut entity = GrantEntity::parse(&row)?;
        let mut grant = entity.to_grant()?;
        grant.spend(self.now).map_err(|_| StoreError::Stale)?;
        entity.uses_left = grant.uses_left();
        Ok(tx.put_count(Kind::Grant, &entity.key(), &entity.body())?)
    }
}

/// A change of who has which rights that is looked at before it is made.
pub(crate) enum Change {
    /// An account or a group, as it is and as it will be.
    Account { before: Option<Arc<Account>>, after: Option<Arc<Account>> },
    /// A policy as it will be; none when it goes.
    Policy { name: PolicyName, after: Option<Arc<StoredPolicy>> },
    /// A new grant.
    Grant(Arc<StoredGrant>),
}

/// What somebody has before and after a change; no account for a policy by itself.
struct Touched {
    account: Option<PrincipalId>,
    before: Rights,
    after: Rights,
}

impl Change {
    /// What everybody it touches has before and after.
    ///
    /// An account that is switched off counts as if it were on: who is given something now must not have it later
    /// through somebody who did not look.
    fn touched(&self, state: &State) -> Vec<Touched> {
        match self {
            Change::Account { before, after } => self.account_touched(state, before.as_ref(), after.as_ref()),
            Change::Policy { name, after } => {
                let holds = |account: &Account| account.policies.contains(name);
                let mut touched = self.members_touched(state, holds);
                let alone = |policy: Option<&Arc<StoredPolicy>>| Rights {
                    policies: policy.into_iter().map(Arc::clone).collect(),
                    grants: Vec::new(),
                };
                touched.push(Touched {
                    account: None,
                    before: alone(state.policies.get(name)),
                    after: alone(after.as_ref()),
                });
                touched
            }
            Change::Grant(grant) => {
                self.members_touched(state, |account| account.id == grant.entity.principal)
            }
        }
    }

    fn account_touched(
        &self,
        state: &State,
        before: Option<&Arc<Account>>,
        after: Option<&Arc<Account>>,
    ) -> Vec<Touched> {
        let Some(account) = before.or(after) else { return Vec::new() };
        let (id, name) = (account.id, account.name.clone());
        let is_switched_on = after.is_some_and(|account| account.active);
        let rights = |account: Option<&Arc<Account>>, change: Option<&Change>| match account {
            Some(account) => Rights::with(state, account, change),
            None => Rights::none(),
        };
        // What is switched on gets everything; what stays off is compared as if it were on.
        let old = before.filter(|account| account.active || !is_switched_on);
        let mut touched =
            vec![Touched { account: Some(id), before: rights(old, None), after: rights(after, Some(self)) }];
        let members = state.accounts.values().filter(|account| account.groups.contains(&name));
        touched.extend(members.map(|account| self.touch(state, account)));
        touched
    }

    /// Those of whom `is_it` holds, and the members of groups of which it holds.
    fn members_touched(&self, state: &State, is_it: impl Fn(&Account) -> bool) -> Vec<Touched> {
        let in_group = |account: &Account| {
            account.groups.iter().filter_map(|name| state.accounts.get(name)).any(|group| is_it(group))
        };
        let touched = state.accounts.values().filter(|account| is_it(account) || in_group(account));
        touched.map(|account| self.touch(state, account)).collect()
    }

    fn touch(&self, state: &State, account: &Account) -> Touched {
        let (before, after) = (Rights::with(state, account, None), Rights::with(state, account, Some(self)));
        Touched { account: Some(account.id), before, after }
    }

    /// The group of that name as it will be.
    fn group(&self, name: &AccountName) -> Option<Option<&Arc<Account>>> {
        match self {
            Change::Account { before, after } => {
                let is_it = before.as_ref().or(after.as_ref()).is_some_and(|account| account.name == *name);
                is_it.then_some(after.as_ref())
            }
            _ => None,
        }
    }

    /// The policy of that name as it will be.
    fn policy(&self, name: &PolicyName) -> Option<Option<&Arc<StoredPolicy>>> {
        match self {
            Change::Policy { name: changed, after } if changed == name => Some(after.as_ref()),
            _ => None,
        }
    }
}

fn request_at<'a>(
    caller: &'a Caller,
    capability: Capability,
    resource: &'a Resource,
    now: jiff::Timestamp,
) -> Request<'a> {
    let module = caller.origin.module.as_ref().map(AuditText::as_str);
    Request { capability, resource, address: caller.origin.address, module, now }
}

fn too_many_refusals(now: jiff::Timestamp) -> VaultError {
    let secs = seconds_left(now);
    let error =
        VaultError::new(Code::RateLimited, "too many requests of this caller were refused in this minute")
            .hint("stop asking for what is refused; what is allowed goes on being answered meanwhile");
    VaultError { retry_after_secs: Some(secs), ..error }
}

/// Whether what the caller signed in with is still good: his account acts, and his token was not revoked.
fn is_signed_in(state: &State, caller: &Caller) -> bool {
    let has_token = caller.token.is_none_or(|id| state.stands(id));
    has_token && state.account(caller.principal).is_some_and(|account| account.active)
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
        return Err(VaultError::new(
            Code::Internal,
            "a receipt was presented for a value that it was not made for",
        ));
    }
    keyring.open(&secret.name, *secret.id.as_uuid(), version, ciphertext)
}

/// Everything that gives a principal rights, at one moment.
pub(crate) struct Rights {
    policies: Vec<Arc<StoredPolicy>>,
    grants: Vec<Arc<StoredGrant>>,
}

impl Rights {
    /// What a caller may: nothing, once his account is switched off or his token revoked.
    pub(crate) fn of_caller(state: &State, caller: &Caller) -> Self {
        match is_signed_in(state, caller) {
            true => Self::of(state, caller.principal),
            false => Self::none(),
        }
    }

    /// The rights of an account: its own and those of the groups that it is in; none when it may not act.
    pub(crate) fn of(state: &State, principal: PrincipalId) -> Self {
        match state.account(principal).filter(|account| account.active) {
            Some(account) => Self::with(state, account, None),
            None => Self::none(),
        }
    }

    /// Nothing.
    pub(crate) fn none() -> Self {
        Self { policies: Vec::new(), grants: Vec::new() }
    }

    /// What an account has, or would have after a change, were it switched on.
    pub(crate) fn with(state: &State, account: &Account, change: Option<&Change>) -> Self {
        let group = |name: &AccountName| match change.and_then(|change| change.group(name)) {
            Some(changed) => changed,
            None => state.accounts.get(name),
        };
        let policy = |name: &PolicyName| match change.and_then(|change| change.policy(name)) {
            Some(changed) => changed,
            None => state.policies.get(name),
        };
        let groups: Vec<&Arc<Account>> = account
            .groups
            .iter()
            .filter_map(group)
            .filter(|group| group.active && group.kind == AccountKind::Group)
            .collect();
        let names = account.policies.iter().chain(groups.iter().flat_map(|group| group.policies.iter()));
        let policies = names.filter_map(policy).map(Arc::clone).collect();
        let holders = || std::iter::once(account.id).chain(groups.iter().map(|group| group.id));
        let mut grants: Vec<Arc<StoredGrant>> = holders()
            .flat_map(|id| state.grants_of(id))
            .filter(|stored| stored.may_have_effect())
            .map(Arc::clone)
            .collect();
        if let Some(Change::Grant(grant)) = change
            && holders().any(|id| id == grant.entity.principal)
        {
            grants.push(Arc::clone(grant));
        }
        // What counts its uses decides only where nothing else does.
        grants.sort_by_key(|stored| stored.entity.uses_left.is_some());
        Self { policies, grants }
    }

    /// Without the grants that count their uses: for what is not one use of one secret.
    pub(crate) fn uncounted(mut self) -> Self {
        // A grant never denies, so nothing is allowed by leaving one out.
        self.grants.retain(|stored| stored.entity.uses_left.is_none());
        self
    }

    /// The grant that a decision uses up a part of.
    fn counted_grant(&self, decision: &Decision) -> Option<GrantId> {
        let Decision::Allowed { by: DecidedBy::Grant { id, .. } } = decision else { return None };
        self.grants
            .iter()
            .find(|stored| stored.entity.id == *id && stored.entity.uses_left.is_some())
            .map(|_| *id)
    }

    /// Whether who has this may make somebody have `after` instead of `before`.
    pub(crate) fn may_change(&self, before: &Rights, after: &Rights, now: jiff::Timestamp) -> bool {
        let (own_policies, own_grants) = (self.policies(), self.grants());
        let (old_policies, old_grants) = (before.policies(), before.grants());
        let (new_policies, new_grants) = (after.policies(), after.grants());
        policy::may_change(
            policy::Rights { policies: &own_policies, grants: &own_grants },
            policy::Rights { policies: &old_policies, grants: &old_grants },
            policy::Rights { policies: &new_policies, grants: &new_grants },
            now,
        )
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

    /// Whether there is a denial here that is not there.
    fn denies_more_than(&self, other: &Rights, now: jiff::Timestamp) -> bool {
        let denies = |rule: &&policy::CompiledRule| rule.effect() == policy::Effect::Deny;
        self.all_rules(now).filter(denies).any(|rule| !other.all_rules(now).any(|old| old == rule))
    }

    /// The rules that allow, of policies and of grants that have effect.
    pub(crate) fn allowing_rules(&self, now: jiff::Timestamp) -> impl Iterator<Item = &policy::CompiledRule> {
        self.all_rules(now).filter(|rule| rule.effect() == policy::Effect::Allow)
    }

    /// The rules that allow, with how a record names them.
    pub(crate) fn allowing_rules_with_names(
        &self,
        now: jiff::Timestamp,
    ) -> impl Iterator<Item = (DecidedBy, &policy::CompiledRule)> {
        let of_policies = self.policies.iter().flat_map(|stored| {
            let named = (0..).zip(stored.compiled.rules());
            named.map(|(rule, it)| (DecidedBy::Policy { name: stored.entity.policy.name.clone(), rule }, it))
        });
        let granted = self.grants.iter().filter(move |stored| stored.grant.is_active(now));
        let of_grants = granted.flat_map(|stored| {
            let named = (0..).zip(stored.grant.rules());
            named.map(|(rule, it)| (DecidedBy::Grant { id: stored.entity.id, rule }, it))
        });
        of_policies.chain(of_grants).filter(|(_, rule)| rule.effect() == policy::Effect::Allow)
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

/// A resource as it is written on a command line.
fn resource_words(resource: &Resource) -> String {
    let plain = resource_text(&Resource { company: None, ..resource.clone() });
    resource.company.as_ref().map_or(plain.clone(), |company| format!("{plain} --company {company}"))
}

/// The detail of a refusal that says how many before it were only counted.
pub(crate) const SUPPRESSED_BEFORE: &str = "suppressed_before";
/// Rules that change more often than this during one request are a fault. Each try waits for one commit.
const STALE_TRIES: usize = 16;
