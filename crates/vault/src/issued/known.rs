//! All issued keys in memory, found by their digests: what a verification needs and nothing else.
//!
//! There may be a million, so what many share stands once, and what only people want to see stays in the rows.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use jiff::Timestamp;
use keymoat_core::id::IssuedKeyId;
use keymoat_core::issued::{
    AddressList, Credits, HeldScope, KeyState, Limits, OwnerInactive, OwnerKind, OwnerRef, OwnerState,
};
use keymoat_core::names::{AccountName, Company, Environment, GroupName, RoleName, SpaceName};
use keymoat_crypto::TokenDigest;
use keymoat_store::{Kind, Row};

use super::rows::{IssuedKey, KeyCredits, KeyOwner, KeySpace};
use super::{ACCOUNT_OWNER, DEFAULT_SPACE};
use crate::VaultError;
use crate::entity::{Account, Entity as _};
use crate::tokens::digest_of;

/// What is known in memory of a key.
#[derive(Debug)]
pub struct KnownKey {
    digest: TokenDigest,
    /// Its id.
    pub id: IssuedKeyId,
    /// The id of the first of its lineage.
    pub lineage: IssuedKeyId,
    /// Where it belongs.
    pub place: Arc<KeyPlace>,
    /// What it gives, how often and from where.
    pub terms: Arc<KeyTerms>,
    /// What people call it.
    pub name: Box<str>,
    /// Whose.
    pub owner: OwnerRef,
    /// From when.
    pub not_before: Option<Timestamp>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
    /// The key that takes its place.
    pub replaced_by: Option<IssuedKeyId>,
    /// What the host keeps beside it.
    pub meta: Option<Box<serde_json::Map<String, serde_json::Value>>>,
    pub(crate) pepper: u32,
    pub(crate) state: KeyState,
    pub(crate) fetch_until: Option<Timestamp>,
    pub(crate) has_credits: bool,
}

/// Where a key belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPlace {
    /// The space.
    pub space: SpaceName,
    /// The environment.
    pub environment: Environment,
    /// The company.
    pub company: Option<Company>,
}

/// What a key gives, how often and from where.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyTerms {
    /// What kind of owner it has.
    pub owner_kind: OwnerKind,
    /// Its scopes.
    pub scopes: Vec<HeldScope>,
    /// Its roles.
    pub roles: Vec<RoleName>,
    /// Its groups.
    pub groups: Vec<GroupName>,
    /// How often it may be used.
    pub limits: Limits,
    /// From where.
    pub networks: AddressList,
}

/// The issued keys of a vault.
pub(crate) struct IssuedKeys {
    by_digest: HashSet<ByDigest>,
    by_id: HashSet<ById>,
    /// Keys that nobody has fetched yet, by the digests of their codes.
    unfetched: HashMap<TokenDigest, IssuedKeyId>,
    places: BTreeSet<Arc<KeyPlace>>,
    terms: HashMap<u64, Weak<KeyTerms>>,
    /// Beyond this many, the terms that nobody has any more are forgotten.
    terms_kept: usize,
    spaces: BTreeMap<SpaceName, Arc<KeySpace>>,
    inactive_owners: HashSet<OwnerRef>,
    credits: HashMap<IssuedKeyId, Credits>,
    under_peppers: BTreeMap<u32, usize>,
}

impl Default for IssuedKeys {
    fn default() -> Self {
        let built_in = KeySpace::built_in();
        Self {
            by_digest: HashSet::new(),
            by_id: HashSet::new(),
            unfetched: HashMap::new(),
            places: BTreeSet::new(),
            terms: HashMap::new(),
            terms_kept: TERMS_KEPT,
            spaces: BTreeMap::from([(built_in.name.clone(), Arc::new(built_in))]),
            inactive_owners: HashSet::new(),
            credits: HashMap::new(),
            under_peppers: BTreeMap::new(),
        }
    }
}

impl IssuedKeys {
    pub(crate) fn by_digest(&self, digest: &TokenDigest) -> Option<&Arc<KnownKey>> {
        self.by_digest.get(digest).map(|found| &found.0)
    }

    pub(crate) fn by_id(&self, id: IssuedKeyId) -> Option<&Arc<KnownKey>> {
        self.by_id.get(&id).map(|found| &found.0)
    }

    /// The key that is fetched with a code.
    pub(crate) fn by_code(&self, digest: &TokenDigest) -> Option<&Arc<KnownKey>> {
        self.by_id(*self.unfetched.get(digest)?)
    }

    /// The keys that nobody has fetched, and nobody can fetch any more.
    pub(crate) fn never_fetched(&self, now: Timestamp) -> impl Iterator<Item = IssuedKeyId> {
        let known = self.unfetched.values().filter_map(|id| self.by_id(*id));
        known.filter(move |key| key.fetch_until.is_some_and(|end| now >= end)).map(|key| key.id)
    }

    pub(crate) fn spaces(&self) -> impl Iterator<Item = &Arc<KeySpace>> {
        self.spaces.values()
    }

    pub(crate) fn space(&self, name: &SpaceName) -> Option<&Arc<KeySpace>> {
        self.spaces.get(name)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The credits of a lineage, as of the newest change.
    pub(crate) fn credits(&self, lineage: IssuedKeyId) -> Option<Credits> {
        self.credits.get(&lineage).copied()
    }

    /// How many keys there are whose digests are under a pepper like that.
    pub(crate) fn under(&self, pepper: impl Fn(u32) -> bool) -> usize {
        self.under_peppers.iter().filter(|(id, _)| pepper(**id)).map(|(_, count)| count).sum()
    }

    /// Whether an owner is active. One who is an account of this vault is what the account is; of others, the host says
    /// it.
    pub(crate) fn owner_state(
        &self,
        owner: &OwnerRef,
        accounts: &BTreeMap<AccountName, Arc<Account>>,
    ) -> OwnerState {
        let is_active = match owner.as_str().strip_prefix(ACCOUNT_OWNER) {
            Some(name) => accounts.get(name).is_some_and(|account| account.active),
            None => !self.inactive_owners.contains(owner),
        };
        if is_active { OwnerState::Active } else { OwnerState::Inactive }
    }

    /// Takes in a row of one of the kinds that are about issued keys.
    pub(crate) fn written(&mut self, row: &Row) -> Result<(), VaultError> {
        match row.kind {
            Kind::IssuedKey => self.key_written(IssuedKey::parse(row)?)?,
            Kind::KeySpace => {
                let space = KeySpace::parse(row)?;
                self.spaces.insert(space.name.clone(), Arc::new(space));
            }
            Kind::KeyOwner => {
                let owner = KeyOwner::parse(row)?;
                match owner.active {
                    true => drop(self.inactive_owners.remove(&owner.owner)),
                    false => drop(self.inactive_owners.insert(owner.owner)),
                }
            }
            Kind::KeyCredits => {
                let credits = KeyCredits::parse(row)?;
                self.credits.insert(credits.lineage, credits.credits());
            }
            // What was counted is read when somebody asks.
            _ => {}
        }
        Ok(())
    }

    /// Takes in that a row is gone.
    pub(crate) fn removed(&mut self, kind: Kind, key: &str) {
        match kind {
            Kind::IssuedKey => key.parse().into_iter().for_each(|id| self.forget(id)),
            Kind::KeySpace => {
                self.spaces.retain(|name, _| name.as_str() != key);
                if key == DEFAULT_SPACE {
                    let built_in = KeySpace::built_in();
                    self.spaces.insert(built_in.name.clone(), Arc::new(built_in));
                }
            }
            Kind::KeyOwner => self.inactive_owners.retain(|owner| owner.as_str() != key),
            Kind::KeyCredits => {
                if let Ok(lineage) = key.parse::<IssuedKeyId>() {
                    self.credits.remove(&lineage);
                }
            }
            _ => {}
        }
    }

    /// Lets go of room that is not needed, once everything is loaded.
    pub(crate) fn trim(&mut self) {
        self.by_digest.shrink_to_fit();
        self.by_id.shrink_to_fit();
    }

    fn key_written(&mut self, key: IssuedKey) -> Result<(), VaultError> {
        let digest = digest_of(&key.digest)?;
        let (place, terms) = (self.place_of(&key), self.terms_of(&key));
        let known = Arc::new(KnownKey {
            digest,
            id: key.id,
            lineage: key.lineage,
            place,
            terms,
            name: key.name.into_boxed_str(),
            owner: key.owner,
            not_before: key.not_before,
            expires_at: key.expires_at,
            replaced_by: key.replaced_by,
            meta: (!key.meta.is_empty()).then(|| Box::new(key.meta)),
            pepper: key.pepper,
            fetch_until: key.fetch_until,
            state: match (key.revoked.is_some(), key.enabled) {
                (true, _) => KeyState::Revoked,
                (false, true) => KeyState::Enabled,
                (false, false) => KeyState::Disabled,
            },
            has_credits: key.has_credits,
        });
        self.forget(known.id);
        *self.under_peppers.entry(known.pepper).or_default() += 1;
        match known.fetch_until {
            // The digest is that of a code, and no key.
            Some(_) => {
                self.unfetched.insert(digest, known.id);
            }
            None => {
                self.by_digest.insert(ByDigest(Arc::clone(&known)));
            }
        }
        self.by_id.insert(ById(known));
        Ok(())
    }

    fn forget(&mut self, id: IssuedKeyId) {
        let Some(ById(old)) = self.by_id.take(&id) else { return };
        if old.fetch_until.is_some() {
            self.unfetched.remove(&old.digest);
        }
        // Only its own: a digest may meanwhile be that of another.
        if self.by_digest.get(&old.digest).is_some_and(|found| found.0.id == id) {
            self.by_digest.remove(&old.digest);
        }
        if let Some(count) = self.under_peppers.get_mut(&old.pepper) {
            *count -= 1;
            if *count == 0 {
                self.under_peppers.remove(&old.pepper);
            }
        }
    }

    fn place_of(&mut self, key: &IssuedKey) -> Arc<KeyPlace> {
        let (space, environment) = (key.space.clone(), key.environment.clone());
        let place = KeyPlace { space, environment, company: key.company.clone() };
        if let Some(known) = self.places.get(&place) {
            return Arc::clone(known);
        }
        let place = Arc::new(place);
        self.places.insert(Arc::clone(&place));
        place
    }

    fn terms_of(&mut self, key: &IssuedKey) -> Arc<KeyTerms> {
        let terms = KeyTerms {
            owner_kind: key.owner_kind,
            scopes: key.scopes.clone(),
            roles: key.roles.clone(),
            groups: key.groups.clone(),
            limits: key.limits.clone(),
            networks: key.networks.clone(),
        };
        let hash = terms.hash_of_text();
        match self.terms.get(&hash).and_then(Weak::upgrade) {
            Some(known) if *known == terms => return known,
            // Another of the same hash keeps its place; this one is nobody else's then.
            Some(_) => return Arc::new(terms),
            None => {}
        }
        let terms = Arc::new(terms);
        self.terms.insert(hash, Arc::downgrade(&terms));
        if self.terms.len() > self.terms_kept {
            self.terms.retain(|_, terms| terms.strong_count() > 0);
            self.terms_kept = (self.terms.len() * 2).max(TERMS_KEPT);
        }
        terms
    }
}

impl KeyTerms {
    fn hash_of_text(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.owner_kind.hash(&mut hasher);
        self.scopes.hash(&mut hasher);
        self.roles.hash(&mut hasher);
        self.groups.hash(&mut hasher);
        self.limits.to_string().hash(&mut hasher);
        self.networks.to_string().hash(&mut hasher);
        hasher.finish()
    }
}

impl KeySpace {
    /// The space that every vault has.
    pub(crate) fn built_in() -> Self {
        Self {
            name: DEFAULT_SPACE.parse().expect("the name of the built-in space is one"),
            description: String::new(),
            environments: Vec::new(),
            roles: BTreeMap::new(),
            owner_inactive: OwnerInactive::Deny,
            owner_inactive_of: BTreeMap::new(),
            max_age_secs: BTreeMap::new(),
            audit: Default::default(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// What becomes of keys for this company whose owner is not active.
    pub(crate) fn owner_inactive_for(&self, company: Option<&Company>) -> OwnerInactive {
        let own = company.and_then(|company| self.owner_inactive_of.get(company));
        own.copied().unwrap_or(self.owner_inactive)
    }
}

/// A key where it is found by its digest. The digest is in the key, so that it stands once.
struct ByDigest(Arc<KnownKey>);

/// A key where it is found by its id.
struct ById(Arc<KnownKey>);

impl Borrow<TokenDigest> for ByDigest {
    fn borrow(&self) -> &TokenDigest {
        &self.0.digest
    }
}

impl Borrow<IssuedKeyId> for ById {
    fn borrow(&self) -> &IssuedKeyId {
        &self.0.id
    }
}

impl Hash for ByDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ByDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ByDigest {}

impl Eq for ById {}

/// Distinct terms that are looked through for forgotten ones only when there are more.
const TERMS_KEPT: usize = 1024;
