//! Making, showing, changing, replacing and ending issued keys.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText, ReasonCode};
use keymoat_core::id::IssuedKeyId;
use keymoat_core::issued::{AddressList, Credits, HeldScope, Limits, OwnerKind, OwnerRef, Refill};
use keymoat_core::names::{Company, Environment, GroupName, RoleName, SpaceName};
use keymoat_core::policy::{Capability, Resource};
use keymoat_core::secret::check_description;
use keymoat_crypto::{SecretBytes, SignInCode, Token, TokenKind};
use keymoat_store::{Kind, Tx};

use super::rows::{IssuedKey, KeyCredits, KeyUsage, Revocation, RevocationReason};
use super::spaces::SCOPES_MAX;
use super::{ACCOUNT_OWNER, KeySpace, SPACES, place_resource};
use crate::desk::{Deed, Rights, system_resource};
use crate::entity::Entity as _;
use crate::receipt::Permit;
use crate::rekey::check_pepper;
use crate::tokens::later;
use crate::{Caller, Code, Origin, Vault, VaultError};

/// A key to be issued.
#[derive(Debug, Clone)]
pub struct NewIssuedKey {
    /// Whose.
    pub owner: OwnerRef,
    /// What kind of owner; a service account, or what the account is, when left out.
    pub owner_kind: Option<OwnerKind>,
    /// What people call it.
    pub name: String,
    /// The space.
    pub space: SpaceName,
    /// The environment that it is for.
    pub environment: Environment,
    /// The company that it is for.
    pub company: Option<Company>,
    /// What it gives.
    pub scopes: Vec<HeldScope>,
    /// Roles of the space.
    pub roles: Vec<RoleName>,
    /// Groups.
    pub groups: Vec<GroupName>,
    /// How often it may be used.
    pub limits: Limits,
    /// From where; anywhere when empty.
    pub networks: AddressList,
    /// From when.
    pub not_before: Option<Timestamp>,
    /// How long it lasts; as long as the space lets it when left out.
    pub lasts: Option<SignedDuration>,
    /// Its credits; any number of uses when left out.
    pub credits: Option<NewCredits>,
    /// What is given back with each verification.
    pub meta: serde_json::Map<String, serde_json::Value>,
    /// For how long it can be fetched with a one-time code, by him for whom it is; at once when left out.
    pub fetch_within: Option<SignedDuration>,
}

/// Credits that a key begins with.
#[derive(Debug, Clone, Copy)]
pub struct NewCredits {
    /// How many.
    pub amount: u64,
    /// How they are filled up again.
    pub refill: Option<Refill>,
}

/// A key that was just made: the only moment at which it can be seen.
#[derive(Debug)]
pub struct FreshKey {
    /// The key itself, or the code with which it is fetched.
    pub text: SecretBytes,
    /// What is kept of it.
    pub about: ShownKey,
    /// What somebody should look at again.
    pub warnings: Vec<String>,
}

/// What may be shown of a key.
#[derive(Debug, Clone)]
pub struct ShownKey {
    /// The key.
    pub key: Arc<IssuedKey>,
    /// What it is good for now.
    pub status: KeyStatus,
    /// How it was used.
    pub usage: KeyUsage,
    /// Credits left to its lineage.
    pub credits: Option<u64>,
}

/// What a key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// It works.
    Active,
    /// It is switched off.
    Disabled,
    /// Nobody has fetched it yet.
    Unfetched,
    /// Its time has not come.
    NotYetValid,
    /// Its time is over.
    Expired,
    /// It has ended for good.
    Revoked,
}

/// Which keys are wanted; everything given must hold.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// Only of this space.
    pub space: Option<SpaceName>,
    /// Only for this environment.
    pub environment: Option<Environment>,
    /// Only of this owner.
    pub owner: Option<OwnerRef>,
    /// Only such.
    pub status: Option<KeyStatus>,
    /// Only those that nobody used for so long.
    pub unused_for: Option<SignedDuration>,
    /// Only those that end within so long.
    pub ends_within: Option<SignedDuration>,
    /// Only those made after this one.
    pub after: Option<IssuedKeyId>,
    /// How many at most.
    pub limit: usize,
}

/// A page of keys.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// The keys, oldest first.
    pub keys: Vec<ShownKey>,
    /// After which the next page begins; none on the last.
    pub next: Option<IssuedKeyId>,
}

/// What is to change of a key.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// Whether it may be used.
    pub enabled: Option<bool>,
    /// What people call it.
    pub name: Option<String>,
    /// How often it may be used.
    pub limits: Option<Limits>,
    /// From where.
    pub networks: Option<AddressList>,
    /// How long it lasts from now.
    pub lasts: Option<SignedDuration>,
}

impl KeyStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Active, Self::Disabled, Self::Unfetched, Self::NotYetValid, Self::Expired, Self::Revoked];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Unfetched => "unfetched",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl IssuedKey {
    /// What it is good for at this time, as far as it alone decides.
    pub fn status(&self, now: Timestamp) -> KeyStatus {
        if self.revoked.is_some() {
            KeyStatus::Revoked
        } else if self.fetch_until.is_some() {
            KeyStatus::Unfetched
        } else if !self.enabled {
            KeyStatus::Disabled
        } else if self.not_before.is_some_and(|from| now < from) {
            KeyStatus::NotYetValid
        } else if self.expires_at.is_some_and(|end| now >= end) {
            KeyStatus::Expired
        } else {
            KeyStatus::Active
        }
    }
}

impl Vault {
    /// Issues a key.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::Invalid`]; [`Code::NotFound`] for a space, an environment or a company that nobody
    /// made.
    pub async fn issue_key(&self, caller: &Caller, new: NewIssuedKey) -> Result<FreshKey, VaultError> {
        self.check_new_key(&new)?;
        self.retry_stale(|| async {
            let resource = place_resource(&new.space, &new.environment)?;
            let permit =
                self.authorize(caller, Capability::Write, Action::KeyIssue, resource.clone()).await?;
            let (text, key) = match self.make_key(caller, &new) {
                Ok(made) => made,
                Err(error) => return Err(self.failed(&permit, Action::KeyIssue, error).await),
            };
            let credits = new.credits.map(|credits| Credits::new(credits.amount, credits.refill, self.now()));
            let stored_credits = credits.map(|credits| KeyCredits::of(key.lineage, credits));
            let draft = self.key_draft(&permit, Action::KeyIssue, &resource, &key);
            let (pass, stored) = (permit.pass, key.clone());
            self.store()
                .run_tx("issue_key", move |tx| {
                    pass.enter(tx)?;
                    check_pepper(tx, stored.pepper)?;
                    tx.put(IssuedKey::KIND, &stored.key(), &stored.body(), None)?;
                    if let Some(credits) = &stored_credits {
                        tx.put(KeyCredits::KIND, &credits.key(), &credits.body(), None)?;
                    }
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(self.fresh_key(text, key))
        })
        .await
    }

    /// Gives a key to whoever has the code with which it is fetched, once: only now is it made, so that nobody who
    /// issued it has seen it.
    ///
    /// # Errors
    /// [`Code::NotSignedIn`] when the code is wrong, used or too old.
    pub async fn fetch_key(&self, code: &SecretBytes, origin: &Origin) -> Result<FreshKey, VaultError> {
        let Some(known) = self.key_of_code(code) else {
            self.refuse_sign_in(origin, ReasonCode::BadCredentials).await?;
            return Err(VaultError::new(Code::NotSignedIn, "the code is wrong, used or too old")
                .hint("ask whoever gave it to you for another one"));
        };
        let (id, now) = (known.id, self.now());
        let (token, digest, pepper) = self.new_key_text(&known.place.environment)?;
        let resource = place_resource(&known.place.space, &known.place.environment)?;
        let deed = Deed::done(Action::KeyIssue, &resource)
            .detail("key", AuditText::new(&id.to_string()))
            .detail("fetched", AuditText::new("yes"));
        let (draft, masked) = (self.anonymous_draft(origin, deed), token.masked());
        let (key, _) = self
            .store()
            .run_tx("fetch_key", move |tx| {
                check_pepper(tx, pepper)?;
                let mut key = stored_key(tx, id)?;
                let is_there = key.revoked.is_none() && key.fetch_until.is_some_and(|end| now < end);
                if !is_there {
                    return Err(VaultError::new(Code::NotSignedIn, "the code is wrong, used or too old"));
                }
                key.fetch_until = None;
                key.digest.clone_from(&digest);
                key.pepper = pepper;
                key.masked.clone_from(&masked);
                tx.put(IssuedKey::KIND, &key.key(), &key.body(), None)?;
                tx.append(draft.clone());
                Ok(key)
            })
            .await?;
        Ok(self.fresh_key(token.text().duplicate(), key))
    }

    fn key_of_code(&self, text: &SecretBytes) -> Option<Arc<super::KnownKey>> {
        let code = SignInCode::parse(text).ok()?;
        let (digests, now) = (self.keyring().code_digests(&code), self.now());
        self.state(|state| {
            let key = digests.iter().find_map(|digest| state.issued.by_code(digest))?;
            key.fetch_until.is_some_and(|end| now < end).then(|| Arc::clone(key))
        })
    }

    /// Keys as far as the caller may list them, oldest first; never the keys themselves.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn issued_keys(&self, caller: &Caller, filter: KeyFilter) -> Result<KeyPage, VaultError> {
        let limit = filter.limit.clamp(1, PAGE_MAX);
        self.retry_stale(|| async {
            let (rights, epoch) = self.state(|state| (Rights::of_caller(state, caller), state.epoch));
            let rights = rights.uncounted();
            let listed: Vec<(SpaceName, Environment)> = self.state(|state| {
                let environments = state.environments.keys();
                let mut listed = Vec::new();
                for (space, environment) in environments
                    .flat_map(|environment| state.issued.spaces().map(move |space| (space, environment)))
                {
                    let Ok(resource) = place_resource(&space.name, environment) else { continue };
                    if rights.decide(&self.request(caller, Capability::List, &resource)).is_allowed() {
                        listed.push((space.name.clone(), environment.clone()));
                    }
                }
                listed
            });
            if listed.is_empty() {
                return Ok(KeyPage { keys: Vec::new(), next: None });
            }
            let deed = Deed::done(Action::List, &system_resource(SPACES)?);
            self.store().append(self.draft(caller, deed, None), Some(epoch)).await?;
            self.page_of_keys(listed, filter.clone(), limit).await
        })
        .await
    }

    /// A key; never the key itself.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn issued_key(&self, caller: &Caller, id: IssuedKeyId) -> Result<ShownKey, VaultError> {
        self.retry_stale(|| async {
            let permit = self.permit_key(caller, Capability::Inspect, Action::Inspect, id).await?;
            let deed =
                Deed::done(Action::Inspect, &permit.resource).detail("key", AuditText::new(&id.to_string()));
            self.record(&permit, deed).await?;
            let row = self.store().read(move |reader| reader.row(Kind::IssuedKey, &id.to_string())).await?;
            let key = row.map(|row| IssuedKey::parse(&row)).transpose()?.ok_or_else(|| no_key(id))?;
            self.shown(key).await
        })
        .await
    }

    /// Changes a key, or switches it off and on; effective at once.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Invalid`]; [`Code::Conflict`] for one that has ended for good.
    pub async fn change_key(
        &self,
        caller: &Caller,
        id: IssuedKeyId,
        change: KeyChange,
    ) -> Result<ShownKey, VaultError> {
        if let Some(name) = &change.name {
            self.check_key_name(name)?;
        }
        let changed = self
            .write_key(caller, (Capability::Write, Action::Configure), id, move |vault, key| {
                if key.revoked.is_some() {
                    return Err(VaultError::conflict("the key has ended for good").hint("issue another one"));
                }
                key.enabled = change.enabled.unwrap_or(key.enabled);
                key.name = change.name.clone().unwrap_or_else(|| key.name.clone());
                key.limits = change.limits.clone().unwrap_or_else(|| key.limits.clone());
                key.networks = change.networks.clone().unwrap_or_else(|| key.networks.clone());
                if let Some(lasts) = change.lasts {
                    let space = vault.key_space(&key.space)?;
                    let end = later(vault.now(), lasts);
                    if max_end(&space, key.owner_kind, key.created_at).is_some_and(|most| end > most) {
                        return Err(too_old(&space, key.owner_kind));
                    }
                    key.expires_at = Some(end);
                }
                Ok(())
            })
            .await?;
        self.shown(changed).await
    }

    /// Ends a key for good; it is refused from this moment on, here and, as soon as they hear of it, on other nodes.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn revoke_key(
        &self,
        caller: &Caller,
        id: IssuedKeyId,
        reason: RevocationReason,
    ) -> Result<ShownKey, VaultError> {
        let by = caller.name.to_string();
        let revoked = self
            .write_key(caller, (Capability::Delete, Action::KeyRevoke), id, move |vault, key| {
                let revocation = Revocation { at: vault.now(), by: by.clone(), reason };
                // It ended when it was first said.
                key.revoked.get_or_insert(revocation);
                Ok(())
            })
            .await?;
        self.shown(revoked).await
    }

    /// Issues the key that takes another's place: the same rights, limits and credits, which both share. The old one
    /// goes on working for `overlap`, never longer than it would have.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Invalid`]; [`Code::Conflict`] for one that does not work any more
    /// or was replaced already.
    pub async fn reroll_key(
        &self,
        caller: &Caller,
        id: IssuedKeyId,
        overlap: SignedDuration,
    ) -> Result<FreshKey, VaultError> {
        if overlap > OVERLAP_MAX {
            return Err(VaultError::invalid(
                "a key goes on beside the one that takes its place for at most 366 days",
            ));
        }
        self.retry_stale(|| async {
            let permit = self.permit_key(caller, Capability::Rotate, Action::KeyReroll, id).await?;
            let environment = self.known_key(id).map(|key| key.place.environment.clone());
            let environment = environment.ok_or_else(|| no_key(id))?;
            let (token, digest, pepper) = self.new_key_text(&environment)?;
            let (new_id, now, masked) = (self.new_issued_key_id(), self.now(), token.masked());
            let deed = Deed::done(Action::KeyReroll, &permit.resource)
                .detail("key", AuditText::new(&id.to_string()))
                .detail("successor", AuditText::new(&new_id.to_string()));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, by) = (permit.pass, caller.name.to_string());
            let (new, _) = self
                .store()
                .run_tx("reroll_key", move |tx| {
                    pass.enter(tx)?;
                    check_pepper(tx, pepper)?;
                    let mut old = stored_key(tx, id)?;
                    check_can_be_replaced(&old, now)?;
                    let lasted = old.expires_at.map(|end| end.duration_since(old.created_at));
                    let new = IssuedKey {
                        id: new_id,
                        digest: digest.clone(),
                        pepper,
                        masked: masked.clone(),
                        expires_at: lasted.map(|lasts| later(now, lasts)),
                        not_before: None,
                        replaces: Some(id),
                        created_at: now,
                        created_by: by.clone(),
                        ..old.clone()
                    };
                    old.replaced_by = Some(new_id);
                    match overlap > SignedDuration::ZERO {
                        true => {
                            let end = later(now, overlap);
                            old.expires_at = Some(old.expires_at.map_or(end, |old| old.min(end)));
                        }
                        false => {
                            let reason = RevocationReason::Superseded;
                            old.revoked = Some(Revocation { at: now, by: by.clone(), reason });
                        }
                    }
                    tx.put(IssuedKey::KIND, &old.key(), &old.body(), None)?;
                    tx.put(IssuedKey::KIND, &new.key(), &new.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(new)
                })
                .await?;
            Ok(self.fresh_key(token.text().duplicate(), new))
        })
        .await
    }

    /// Changes a key's row, in one transaction with its record.
    async fn write_key(
        &self,
        caller: &Caller,
        (capability, action): (Capability, Action),
        id: IssuedKeyId,
        change: impl Fn(&Vault, &mut IssuedKey) -> Result<(), VaultError> + Clone + Send + 'static,
    ) -> Result<IssuedKey, VaultError> {
        self.retry_stale(|| async {
            let permit = self.permit_key(caller, capability, action, id).await?;
            let deed = Deed::done(action, &permit.resource).detail("key", AuditText::new(&id.to_string()));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, vault, change) = (permit.pass, self.clone(), change.clone());
            let written = self
                .store()
                .run_tx("write_key", move |tx| {
                    pass.enter(tx)?;
                    let mut key = stored_key(tx, id)?;
                    change(&vault, &mut key)?;
                    tx.put(IssuedKey::KIND, &key.key(), &key.body(), None)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(key)
                })
                .await;
            match written {
                Ok((key, _)) => Ok(key),
                Err(error) if matches!(error.code, Code::Invalid | Code::NotFound) => {
                    Err(self.failed(&permit, action, error).await)
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The permit for something with one key. One that nobody knows is refused to whoever may not do it everywhere.
    async fn permit_key(
        &self,
        caller: &Caller,
        capability: Capability,
        action: Action,
        id: IssuedKeyId,
    ) -> Result<Permit, VaultError> {
        let known = self.known_key(id);
        let resource = match &known {
            Some(key) => place_resource(&key.place.space, &key.place.environment)?,
            None => system_resource(&format!("{SPACES}/{id}"))?,
        };
        let permit = self.authorize(caller, capability, action, resource).await?;
        match known {
            Some(_) => Ok(permit),
            None => Err(self.failed(&permit, action, no_key(id)).await),
        }
    }

    async fn page_of_keys(
        &self,
        listed: Vec<(SpaceName, Environment)>,
        filter: KeyFilter,
        limit: usize,
    ) -> Result<KeyPage, VaultError> {
        let now = self.now();
        let after = filter.after.map(|id| id.to_string()).unwrap_or_default();
        let wanted = filter.clone();
        let mut keys: Vec<IssuedKey> = self
            .store()
            .read(move |reader| {
                let mut keys: Vec<IssuedKey> = Vec::new();
                reader.bodies(Kind::IssuedKey, &after, |_, body| {
                    // A row that cannot be read has kept the vault from opening.
                    let Ok(key) = serde_json::from_str::<IssuedKey>(body) else { return true };
                    let is_listed =
                        listed.iter().any(|(space, name)| *space == key.space && *name == key.environment);
                    if is_listed && wanted.fits(&key, now) {
                        keys.push(key);
                    }
                    keys.len() <= limit
                })?;
                Ok(keys)
            })
            .await?;
        let is_more = keys.len() > limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| is_more).map(|key| key.id);
        let usages = self.usage_of(keys.iter().map(|key| (key.lineage, key.id)).collect()).await?;
        let shown = keys.into_iter().zip(usages).map(|(key, usage)| self.shown_with(key, usage));
        let shown = shown.filter(|shown| match filter.unused_for {
            None => true,
            Some(span) => {
                let last = shown.usage.last_used_at.unwrap_or(shown.key.created_at);
                now.duration_since(last) >= span
            }
        });
        Ok(KeyPage { keys: shown.collect(), next })
    }

    async fn shown(&self, key: IssuedKey) -> Result<ShownKey, VaultError> {
        let usage = self.usage_of(vec![(key.lineage, key.id)]).await?.pop();
        let usage = usage.ok_or_else(|| VaultError::damaged("a key has no usage"))?;
        Ok(self.shown_with(key, usage))
    }

    fn shown_with(&self, key: IssuedKey, usage: KeyUsage) -> ShownKey {
        let now = self.now();
        let credits = match key.has_credits {
            true => self.state(|state| state.issued.credits(key.lineage)),
            false => None,
        };
        let credits = credits.map(|credits| credits.refilled(now).remaining);
        ShownKey { status: key.status(now), key: Arc::new(key), usage, credits }
    }

    fn fresh_key(&self, text: SecretBytes, key: IssuedKey) -> FreshKey {
        let wide = key
            .networks
            .too_wide()
            .map(|network| format!("`{network}` is so wide that it keeps hardly anybody out"));
        let warnings = wide.collect();
        let usage = KeyUsage::none_of(key.id);
        FreshKey { text, about: self.shown_with(key, usage), warnings }
    }

    /// A key's row, with the key itself or the code with which it will be fetched.
    fn make_key(&self, caller: &Caller, new: &NewIssuedKey) -> Result<(SecretBytes, IssuedKey), VaultError> {
        self.check_environment(caller, &new.environment)?;
        if let Some(company) = &new.company {
            self.check_company(caller, company)?;
        }
        let space = self.key_space(&new.space)?;
        if !space.environments.is_empty() && !space.environments.contains(&new.environment) {
            return Err(VaultError::invalid(format!(
                "the space `{}` has no keys for the environment `{}`",
                new.space, new.environment
            )));
        }
        if let Some(role) = new.roles.iter().find(|role| !space.roles.contains_key(*role)) {
            return Err(VaultError::not_found(format!("the space `{}` has no role `{role}`", new.space)));
        }
        let owner_kind = match new.owner_kind {
            Some(kind) => kind,
            None => self.kind_of_owner(&new.owner)?,
        };
        let now = self.now();
        let end = new.lasts.map(|lasts| later(now, lasts));
        let most = max_end(&space, owner_kind, now);
        if most.is_some_and(|most| end.is_some_and(|end| end > most)) {
            return Err(too_old(&space, owner_kind));
        }
        let (text, digest, pepper, masked) = match new.fetch_within {
            None => {
                let (token, digest, pepper) = self.new_key_text(&new.environment)?;
                (token.text().duplicate(), digest, pepper, token.masked())
            }
            Some(_) => self.new_fetch_code(&new.environment)?,
        };
        let id = self.new_issued_key_id();
        let key = IssuedKey {
            id,
            lineage: id,
            space: new.space.clone(),
            environment: new.environment.clone(),
            company: new.company.clone(),
            name: new.name.clone(),
            digest,
            pepper,
            masked,
            fetch_until: new.fetch_within.map(|within| later(now, within)),
            owner: new.owner.clone(),
            owner_kind,
            scopes: new.scopes.clone(),
            roles: new.roles.clone(),
            groups: new.groups.clone(),
            limits: new.limits.clone(),
            networks: new.networks.clone(),
            not_before: new.not_before,
            expires_at: end.or(most),
            enabled: true,
            revoked: None,
            replaces: None,
            replaced_by: None,
            has_credits: new.credits.is_some(),
            meta: new.meta.clone(),
            created_at: now,
            created_by: caller.name.to_string(),
        };
        Ok((text, key))
    }

    /// A code with which a key is fetched, with its digest, the pepper of this, and what is shown instead of the key.
    fn new_fetch_code(
        &self,
        environment: &Environment,
    ) -> Result<(SecretBytes, String, u32, String), VaultError> {
        let pepper =
            self.keyring().newest_pepper().ok_or_else(|| VaultError::damaged("there is no pepper"))?;
        let kind = TokenKind::issued(environment.as_str()).map_err(|e| VaultError::invalid(e.to_string()))?;
        let code = SignInCode::generate();
        let digest = BASE64.encode(code.digest(&pepper).as_bytes());
        Ok((code.text().duplicate(), digest, pepper.id(), format!("{}…", kind.prefix())))
    }

    /// The text of a new key, with its digest and the pepper that this is under.
    fn new_key_text(&self, environment: &Environment) -> Result<(Token, String, u32), VaultError> {
        let pepper =
            self.keyring().newest_pepper().ok_or_else(|| VaultError::damaged("there is no pepper"))?;
        let kind = TokenKind::issued(environment.as_str()).map_err(|e| VaultError::invalid(e.to_string()))?;
        let token = Token::generate(kind);
        let digest = BASE64.encode(token.digest(&pepper).as_bytes());
        Ok((token, digest, pepper.id()))
    }

    /// What kind of owner somebody is of whom nobody said it.
    fn kind_of_owner(&self, owner: &OwnerRef) -> Result<OwnerKind, VaultError> {
        let Some(name) = owner.as_str().strip_prefix(ACCOUNT_OWNER) else {
            return Ok(OwnerKind::ServiceAccount);
        };
        let name = name.parse::<keymoat_core::names::AccountName>()?;
        let account = self.account_named(&name)?;
        Ok(match account.kind {
            crate::entity::AccountKind::ServiceAccount => OwnerKind::ServiceAccount,
            _ => OwnerKind::User,
        })
    }

    /// The space of that name.
    pub(super) fn key_space(&self, name: &SpaceName) -> Result<Arc<KeySpace>, VaultError> {
        self.state(|state| state.issued.space(name).map(Arc::clone)).ok_or_else(|| {
            VaultError::not_found(format!("no space `{name}`"))
                .hint(format!("`keymoat key space put {name}` makes it"))
        })
    }

    fn key_draft(
        &self,
        permit: &Permit,
        action: Action,
        resource: &Resource,
        key: &IssuedKey,
    ) -> keymoat_store::Draft {
        let deed = Deed::done(action, resource).detail("key", AuditText::new(&key.id.to_string()));
        self.draft(&permit.caller, deed, Some(permit.decided_by.clone()))
    }

    fn check_new_key(&self, new: &NewIssuedKey) -> Result<(), VaultError> {
        self.check_key_name(&new.name)?;
        let owner = new.owner.as_str();
        let meta = serde_json::Value::Object(new.meta.clone()).to_string();
        self.check_no_key([("the owner", owner), ("`meta`", meta.as_str())])?;
        self.check_no_key(new.scopes.iter().map(|scope| ("a scope", scope.as_str())))?;
        self.check_no_key(new.roles.iter().map(|role| ("a role", role.as_str())))?;
        self.check_no_key(new.groups.iter().map(|group| ("a group", group.as_str())))?;
        if meta.len() > META_BYTES_MAX {
            return Err(VaultError::new(Code::TooLarge, "`meta` has at most 64 KiB"));
        }
        let names = [new.scopes.len(), new.roles.len(), new.groups.len()];
        if names.into_iter().any(|count| count > SCOPES_MAX) {
            return Err(VaultError::invalid(format!(
                "a key has at most {SCOPES_MAX} scopes, roles and groups each"
            ))
            .hint("a role stands for many scopes, and `orders.*` for all below `orders`"));
        }
        let within = new.fetch_within.unwrap_or(FETCH_MAX);
        if within <= SignedDuration::ZERO || within > FETCH_MAX {
            return Err(VaultError::invalid("a key can be fetched with a code for at most 7 days"));
        }
        if new.lasts.is_some_and(|lasts| lasts <= SignedDuration::ZERO) {
            return Err(VaultError::invalid("a key lasts longer than nothing"));
        }
        Ok(())
    }

    fn check_key_name(&self, name: &str) -> Result<(), VaultError> {
        check_description(name).map_err(|e| VaultError::invalid(e.to_string()))?;
        self.check_no_key([("the name", name)])
    }

    fn known_key(&self, id: IssuedKeyId) -> Option<Arc<super::KnownKey>> {
        self.state(|state| state.issued.by_id(id).map(Arc::clone))
    }
}

impl KeyFilter {
    /// Whether a key is wanted, as far as its row says it.
    fn fits(&self, key: &IssuedKey, now: Timestamp) -> bool {
        let ends_soon = |span: SignedDuration| key.expires_at.is_some_and(|end| end <= later(now, span));
        self.space.as_ref().is_none_or(|space| *space == key.space)
            && self.environment.as_ref().is_none_or(|name| *name == key.environment)
            && self.owner.as_ref().is_none_or(|owner| *owner == key.owner)
            && self.status.is_none_or(|status| status == key.status(now))
            && self.ends_within.is_none_or(ends_soon)
    }
}

/// The key of that id as it is stored.
pub(super) fn stored_key(tx: &Tx<'_>, id: IssuedKeyId) -> Result<IssuedKey, VaultError> {
    let row = tx.row(Kind::IssuedKey, &id.to_string())?.ok_or_else(|| no_key(id))?;
    IssuedKey::parse(&row)
}

fn check_can_be_replaced(key: &IssuedKey, now: Timestamp) -> Result<(), VaultError> {
    if let Some(successor) = key.replaced_by {
        return Err(VaultError::conflict(format!("the key was replaced already, by {successor}")));
    }
    match key.status(now) {
        KeyStatus::Revoked | KeyStatus::Expired | KeyStatus::Unfetched => {
            Err(VaultError::conflict("the key does not work any more, so nothing takes its place")
                .hint("issue another one"))
        }
        _ => Ok(()),
    }
}

/// When a key of this kind of owner that was made at `from` ends at the latest.
fn max_end(space: &KeySpace, kind: OwnerKind, from: Timestamp) -> Option<Timestamp> {
    let secs = *space.max_age_secs.get(&kind)?;
    Some(later(from, SignedDuration::from_secs(i64::try_from(secs).unwrap_or(i64::MAX))))
}

fn too_old(space: &KeySpace, kind: OwnerKind) -> VaultError {
    let days = space.max_age_secs.get(&kind).copied().unwrap_or_default() / 86_400;
    VaultError::invalid(format!("keys of the space `{}` last at most {days} days for a {kind}", space.name))
}

fn no_key(id: IssuedKeyId) -> VaultError {
    VaultError::not_found(format!("no issued key `{id}`")).hint("`keymoat key list` shows them")
}

/// A code that is found later in a mail opens nothing.
const FETCH_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);
/// As other systems allow.
const META_BYTES_MAX: usize = 64 * 1024;
/// Keys on a page.
const PAGE_MAX: usize = 1000;
/// Two keys that both work for longer are two keys.
const OVERLAP_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);
