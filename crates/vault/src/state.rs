//! What is, in memory: everything that a read needs, so that only its record waits for the disk.
//!
//! It is fed by the store alone: every row when the vault opens, every effect as soon as it is durable. Nobody else
//! changes it. It holds ciphertext, never a value.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use keymoat_core::grant::{Grant, GrantState};
use keymoat_core::id::{GrantId, PrincipalId, SecretId, TokenId};
use keymoat_core::names::{AccountName, Company, Environment, Label, PolicyName};
use keymoat_core::policy::{BUILT_IN, CompiledPolicy, Policy};
use keymoat_crypto::TokenDigest;
use keymoat_store::{Archive, Effect, Kind, Row};

use crate::VaultError;
use crate::entity::{
    Account, CompanyEntity, Entity, EnvironmentEntity, GrantEntity, IdempotencyEntity, PolicyEntity, Secret,
    SecretName, SignInCodeEntity, Slot, TokenEntity, VersionEntity,
};
use crate::issued::IssuedKeys;
use crate::keyring::Keyring;
use crate::resolve::VARIABLE_TAG;
use crate::tokens::digest_of;

/// The state as of one change.
pub(crate) struct State {
    /// Number of the newest change.
    pub(crate) change: u64,
    /// Number of the newest change that decides who may do what.
    pub(crate) epoch: u64,
    pub(crate) slots: BTreeMap<u32, Slot>,
    pub(crate) environments: BTreeMap<Environment, EnvironmentEntity>,
    pub(crate) companies: BTreeMap<Company, CompanyEntity>,
    pub(crate) secrets: BTreeMap<SecretName, Arc<Secret>>,
    secrets_by_id: HashMap<SecretId, Arc<Secret>>,
    /// The secrets that say of a variable that they were imported from it.
    by_variable: HashMap<String, BTreeSet<SecretName>>,
    /// Ciphertexts of versions that a label names; older ones are read from the store.
    ciphertexts: HashMap<(SecretId, u32), Arc<[u8]>>,
    pub(crate) accounts: BTreeMap<AccountName, Arc<Account>>,
    account_names: HashMap<PrincipalId, AccountName>,
    pub(crate) tokens: BTreeMap<TokenId, Arc<TokenEntity>>,
    tokens_by_digest: HashMap<TokenDigest, TokenId>,
    pub(crate) policies: BTreeMap<PolicyName, Arc<StoredPolicy>>,
    pub(crate) grants: BTreeMap<GrantId, Arc<StoredGrant>>,
    grants_of: HashMap<PrincipalId, BTreeSet<GrantId>>,
    pub(crate) sign_in_codes: HashMap<TokenDigest, SignInCodeEntity>,
    /// When remembered answers are forgotten, by their row's key.
    answers_end: HashMap<String, Timestamp>,
    /// Remembered answers in the order in which they are forgotten.
    pub(crate) answers_by_end: BTreeSet<(Timestamp, String)>,
    /// How many there are of a principal.
    answers_of: HashMap<PrincipalId, usize>,
    pub(crate) issued: IssuedKeys,
    /// What of the audit log stands in archives.
    pub(crate) archive: Option<Archive>,
    /// Rows that could not be taken in, in words; the vault does not open with any.
    pub(crate) damaged: Vec<String>,
}

/// A grant ready for deciding.
pub(crate) struct StoredGrant {
    pub(crate) entity: GrantEntity,
    pub(crate) grant: Grant,
}

/// A policy ready for deciding.
pub(crate) struct StoredPolicy {
    pub(crate) entity: PolicyEntity,
    pub(crate) compiled: CompiledPolicy,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            change: 0,
            epoch: 0,
            slots: BTreeMap::new(),
            environments: BTreeMap::new(),
            companies: BTreeMap::new(),
            secrets: BTreeMap::new(),
            secrets_by_id: HashMap::new(),
            by_variable: HashMap::new(),
            ciphertexts: HashMap::new(),
            accounts: BTreeMap::new(),
            account_names: HashMap::new(),
            tokens: BTreeMap::new(),
            tokens_by_digest: HashMap::new(),
            policies: built_in_policies(),
            grants: BTreeMap::new(),
            grants_of: HashMap::new(),
            sign_in_codes: HashMap::new(),
            answers_end: HashMap::new(),
            answers_by_end: BTreeSet::new(),
            answers_of: HashMap::new(),
            issued: IssuedKeys::default(),
            archive: None,
            damaged: Vec::new(),
        }
    }

    /// Takes in what a committed transaction did, or a row at the start.
    pub(crate) fn absorb(&mut self, effect: Effect, keyring: &Keyring) {
        self.change = self.change.max(effect.seq());
        if effect.kind().decides_access() && !matches!(effect, Effect::Counted(_)) {
            self.epoch = self.epoch.max(effect.seq());
        }
        let taken = match effect {
            Effect::Written(row) | Effect::Counted(row) => self.written(row, keyring),
            Effect::Removed { kind, key, .. } => {
                self.removed(kind, &key, keyring);
                Ok(())
            }
        };
        if let Err(error) = taken {
            tracing::error!(%error, "a row could not be taken in");
            self.damaged.push(error.message);
        }
    }

    pub(crate) fn secret_by_id(&self, id: SecretId) -> Option<&Arc<Secret>> {
        self.secrets_by_id.get(&id)
    }

    pub(crate) fn ciphertext(&self, secret: SecretId, version: u32) -> Option<Arc<[u8]>> {
        self.ciphertexts.get(&(secret, version)).cloned()
    }

    pub(crate) fn account(&self, id: PrincipalId) -> Option<&Arc<Account>> {
        self.accounts.get(self.account_names.get(&id)?)
    }

    pub(crate) fn token_by_digest(&self, digest: &TokenDigest) -> Option<&Arc<TokenEntity>> {
        self.tokens.get(self.tokens_by_digest.get(digest)?)
    }

    /// Whether a token is there, and every one that it was made with, each of somebody who may act.
    pub(crate) fn stands(&self, token: TokenId) -> bool {
        let mut next = Some(token);
        for _ in 0..=MADE_WITH_MAX {
            let Some(id) = next else { return true };
            let Some(token) = self.tokens.get(&id) else { return false };
            if !self.account(token.principal).is_some_and(|account| account.active) {
                return false;
            }
            next = token.made_with;
        }
        next.is_none()
    }

    /// How many tokens a token was made with, one after the other.
    pub(crate) fn makers_of(&self, token: &TokenEntity) -> usize {
        let parent = |token: &Arc<TokenEntity>| token.made_with.and_then(|id| self.tokens.get(&id));
        let first = token.made_with.and_then(|id| self.tokens.get(&id));
        std::iter::successors(first, |token| parent(token)).take(MADE_WITH_MAX + 1).count()
    }

    /// How many answers are remembered for a principal, claims without one included.
    pub(crate) fn answers_of(&self, principal: PrincipalId) -> usize {
        self.answers_of.get(&principal).copied().unwrap_or_default()
    }

    /// The grants to a principal.
    pub(crate) fn grants_of(&self, principal: PrincipalId) -> impl Iterator<Item = &Arc<StoredGrant>> {
        let ids = self.grants_of.get(&principal).into_iter().flatten();
        ids.filter_map(|id| self.grants.get(id))
    }

    /// The secrets that were imported from a variable, by the tag that says so.
    pub(crate) fn with_variable_tag(&self, tag: &str) -> impl Iterator<Item = &Arc<Secret>> {
        let names = self.by_variable.get(tag).into_iter().flatten();
        names.filter_map(|name| self.secrets.get(name))
    }

    fn written(&mut self, row: Row, keyring: &Keyring) -> Result<(), VaultError> {
        match row.kind {
            Kind::DataKey => keyring.absorb_data_key(&row)?,
            Kind::Pepper => keyring.absorb_pepper(&row)?,
            Kind::Slot => {
                let slot = Slot::parse(&row)?;
                self.slots.insert(slot.id, slot);
            }
            Kind::Environment => {
                let environment = EnvironmentEntity::parse(&row)?;
                self.environments.insert(environment.name.clone(), environment);
            }
            Kind::Company => {
                let company = CompanyEntity::parse(&row)?;
                self.companies.insert(company.name.clone(), company);
            }
            Kind::Secret => self.secret_written(Secret::parse(&row)?),
            Kind::Version => self.version_written(&row)?,
            Kind::Account => {
                let account = Account::parse(&row)?;
                // Whoever follows another node may hear of a removal and of the one who took the name as of one change.
                if let Some(namesake) = self.accounts.get(&account.name).filter(|old| old.id != account.id) {
                    self.account_names.remove(&namesake.id);
                }
                self.account_names.insert(account.id, account.name.clone());
                self.accounts.insert(account.name.clone(), Arc::new(account));
            }
            Kind::Token => {
                let token = TokenEntity::parse(&row)?;
                let digest = digest_of(&token.digest)?;
                if let Some(old) = self.tokens.get(&token.id)
                    && old.digest != token.digest
                {
                    self.tokens_by_digest.remove(&digest_of(&old.digest)?);
                }
                self.tokens_by_digest.insert(digest, token.id);
                self.tokens.insert(token.id, Arc::new(token));
            }
            Kind::Policy => {
                let stored = StoredPolicy::compile(PolicyEntity::parse(&row)?)?;
                self.policies.insert(stored.entity.policy.name.clone(), Arc::new(stored));
            }
            Kind::Grant => {
                let entity = GrantEntity::parse(&row)?;
                self.grants_of.entry(entity.principal).or_default().insert(entity.id);
                self.grants.insert(entity.id, Arc::new(StoredGrant::new(entity)?));
            }
            Kind::SignInCode => {
                let code = SignInCodeEntity::parse(&row)?;
                self.sign_in_codes.insert(digest_of(&code.digest)?, code);
            }
            Kind::Idempotency => {
                let answer = IdempotencyEntity::parse(&row)?;
                self.answer_removed(&row.key);
                *self.answers_of.entry(answer.principal).or_default() += 1;
                self.answers_by_end.insert((answer.expires_at, row.key.clone()));
                self.answers_end.insert(row.key, answer.expires_at);
            }
            Kind::Instance => keyring.absorb_instance(&row)?,
            Kind::Archive => self.archive = Some(Archive::parse(&row)?),
            Kind::KeySpace | Kind::IssuedKey | Kind::KeyOwner | Kind::KeyUsage | Kind::KeyCredits => {
                self.issued.written(&row)?;
            }
            // Looked up in the store when needed.
            Kind::Fingerprint | Kind::Setting => {}
        }
        Ok(())
    }

    fn removed(&mut self, kind: Kind, key: &str, keyring: &Keyring) {
        match kind {
            Kind::DataKey => key.parse().into_iter().for_each(|id| keyring.forget_data_key(id)),
            Kind::Pepper => key.parse().into_iter().for_each(|id| keyring.forget_pepper(id)),
            Kind::Slot => drop(key.parse().ok().and_then(|id: u32| self.slots.remove(&id))),
            Kind::Environment => self.environments.retain(|name, _| name.as_str() != key),
            Kind::Company => self.companies.retain(|name, _| name.as_str() != key),
            Kind::Secret => self.secret_removed(key),
            Kind::Version => self.version_removed(key),
            Kind::Account => {
                if let Some(account) =
                    key.parse().ok().and_then(|name: AccountName| self.accounts.remove(&name))
                {
                    self.account_names.remove(&account.id);
                }
            }
            Kind::Token => {
                if let Some(token) = key.parse().ok().and_then(|id: TokenId| self.tokens.remove(&id))
                    && let Ok(digest) = digest_of(&token.digest)
                {
                    self.tokens_by_digest.remove(&digest);
                }
            }
            Kind::Policy => drop(key.parse().ok().and_then(|name: PolicyName| self.policies.remove(&name))),
            Kind::Grant => {
                if let Some(stored) = key.parse().ok().and_then(|id: GrantId| self.grants.remove(&id))
                    && let Some(ids) = self.grants_of.get_mut(&stored.entity.principal)
                {
                    ids.remove(&stored.entity.id);
                    if ids.is_empty() {
                        self.grants_of.remove(&stored.entity.principal);
                    }
                }
            }
            Kind::SignInCode => {
                if let Ok(digest) = digest_of(key) {
                    self.sign_in_codes.remove(&digest);
                }
            }
            Kind::Idempotency => self.answer_removed(key),
            Kind::KeySpace | Kind::IssuedKey | Kind::KeyOwner | Kind::KeyUsage | Kind::KeyCredits => {
                self.issued.removed(kind, key);
            }
            // The mark of archives is never removed.
            Kind::Instance | Kind::Fingerprint | Kind::Setting | Kind::Archive => {}
        }
    }

    fn answer_removed(&mut self, key: &str) {
        let Some(end) = self.answers_end.remove(key) else { return };
        self.answers_by_end.remove(&(end, key.to_owned()));
        // The key of the row begins with the principal, see `IdempotencyEntity`.
        let principal = key.split_once('/').and_then(|(principal, _)| principal.parse().ok());
        if let Some(Entry::Occupied(mut count)) = principal.map(|id| self.answers_of.entry(id)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn secret_written(&mut self, mut secret: Secret) {
        // Of a name that a hundred thousand share, one copy.
        if let Some((shared, _)) = self.environments.get_key_value(&secret.name.environment) {
            secret.name.environment = shared.clone();
        }
        let (id, secret) = (secret.id, Arc::new(secret));
        if let Some(old) = self.secrets_by_id.insert(id, Arc::clone(&secret))
            && old.name != secret.name
            && let Some(moved) = self.secrets.remove(&old.name)
        {
            self.forget_variables(&moved);
        }
        // Whoever follows another node may hear of a removal and of what took the name as of one change.
        if let Some(namesake) = self.secrets.get(&secret.name).filter(|old| old.id != id) {
            self.secrets_by_id.remove(&namesake.id);
        }
        // Versions that no label names any more are not kept in memory.
        let labelled: Vec<u32> = secret.versions.labels().values().copied().collect();
        if let Some(old) = self.secrets.get(&secret.name) {
            for number in old.versions.versions().keys().filter(|number| !labelled.contains(number)) {
                self.ciphertexts.remove(&(id, *number));
            }
        }
        self.index_variables(&secret);
        self.secrets.insert(secret.name.clone(), secret);
    }

    fn index_variables(&mut self, secret: &Secret) {
        if let Some(old) = self.secrets.get(&secret.name).map(Arc::clone) {
            self.forget_variables(&old);
        }
        for tag in secret.tags.keys().filter(|tag| tag.starts_with(VARIABLE_TAG)) {
            self.by_variable.entry(tag.clone()).or_default().insert(secret.name.clone());
        }
    }

    fn forget_variables(&mut self, secret: &Secret) {
        for tag in secret.tags.keys().filter(|tag| tag.starts_with(VARIABLE_TAG)) {
            if let Some(names) = self.by_variable.get_mut(tag) {
                names.remove(&secret.name);
                if names.is_empty() {
                    self.by_variable.remove(tag);
                }
            }
        }
    }

    fn secret_removed(&mut self, key: &str) {
        let Some(name) = SecretName::from_row_key(key) else { return };
        if let Some(secret) = self.secrets.remove(&name) {
            self.forget_variables(&secret);
            self.secrets_by_id.remove(&secret.id);
            for number in secret.versions.versions().keys() {
                self.ciphertexts.remove(&(secret.id, *number));
            }
        }
    }

    fn version_written(&mut self, row: &Row) -> Result<(), VaultError> {
        let version = VersionEntity::parse(row)?;
        let at = (version.secret, version.version);
        // A version that the secret's row does not know yet is about to be labelled, or its secret is still to be
        // loaded.
        let unlabelled = self.secret_by_id(version.secret).is_some_and(|secret| {
            version.version < secret.versions.next_number()
                && !secret.versions.labels().values().any(|number| *number == version.version)
        });
        match &row.blob {
            Some(ciphertext) if !unlabelled => {
                self.ciphertexts.insert(at, ciphertext.as_slice().into());
            }
            _ => {
                self.ciphertexts.remove(&at);
            }
        }
        Ok(())
    }

    fn version_removed(&mut self, key: &str) {
        let Some((id, version)) = key.split_once('/') else { return };
        if let (Ok(id), Ok(version)) = (id.parse(), version.parse()) {
            self.ciphertexts.remove(&(id, version));
        }
    }

    /// Drops the ciphertexts of versions that no label names, and room that is not needed, once everything is loaded.
    pub(crate) fn trim(&mut self) {
        let labelled = |id: &SecretId, version: &u32| {
            self.secrets_by_id
                .get(id)
                .is_some_and(|secret| secret.versions.labels().values().any(|number| number == version))
        };
        let mut ciphertexts = std::mem::take(&mut self.ciphertexts);
        ciphertexts.retain(|(id, version), _| labelled(id, version));
        ciphertexts.shrink_to_fit();
        self.ciphertexts = ciphertexts;
        self.secrets_by_id.shrink_to_fit();
        self.issued.trim();
    }
}

/// How many tokens may stand behind one another, each made with the one before: each is looked at with every request.
pub(crate) const MADE_WITH_MAX: usize = 8;

/// Which version is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one that a label names.
    Label(Label),
    /// The one of this number.
    Number(u32),
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted::Label(Label::CURRENT)
    }
}

impl StoredGrant {
    /// The stored form with what decides.
    pub(crate) fn new(entity: GrantEntity) -> Result<Self, VaultError> {
        let grant = entity.to_grant()?;
        Ok(Self { entity, grant })
    }

    /// Whether it may have effect now or later: not once it was revoked or used up.
    pub(crate) fn may_have_effect(&self) -> bool {
        !matches!(self.grant.state(), GrantState::Revoked { .. }) && self.grant.uses_left() != Some(0)
    }
}

impl StoredPolicy {
    pub(crate) fn compile(entity: PolicyEntity) -> Result<Self, VaultError> {
        let compiled = CompiledPolicy::new(entity.policy.clone())
            .map_err(|e| VaultError::invalid(format!("policy `{}`: {e}", entity.policy.name)))?;
        Ok(Self { entity, compiled })
    }
}

/// The policies that every vault has and nobody can change.
fn built_in_policies() -> BTreeMap<PolicyName, Arc<StoredPolicy>> {
    BUILT_IN
        .iter()
        .map(|(_, document)| {
            let policy: Policy = serde_json::from_str(document).expect("built-in policies are tested");
            let name = policy.name.clone();
            let entity =
                PolicyEntity { policy, updated_at: Timestamp::UNIX_EPOCH, updated_by: "keymoat".to_owned() };
            (name, Arc::new(StoredPolicy::compile(entity).expect("built-in policies are tested")))
        })
        .collect()
}
