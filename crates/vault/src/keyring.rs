//! The keys in memory: the root key, the instance key with what is derived from it, and the data keys and peppers.
//!
//! A root key goes by the wrapped instance key that stands beside it in the instance's row. So each transaction wraps
//! under the root key that its own rows are under, also when the root key was changed a moment ago in the same commit,
//! which this memory hears of only afterwards.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use keymoat_core::names::{Company, Environment};
use keymoat_crypto::{
    AssertionSigner, BackupKey, DataKey, Fingerprint, FingerprintKey, InstanceKey, KeyContext, MacKey,
    MasterKey, Pepper, PepperContext, Place, RootKey, SecretBytes, SignInCode, SlotContext, Token,
    TokenDigest,
};
use keymoat_store::{Kind, LedgerKeys, Row, Tx};
use uuid::Uuid;

use crate::VaultError;
use crate::entity::{
    DataKeyEntity, Entity as _, INSTANCE_KEY, Instance, PepperEntity, SecretName, company_text,
};

/// The keys of an unsealed vault.
pub(crate) struct Keyring {
    instance: Uuid,
    audit_generation: u32,
    key: InstanceKey,
    roots: RwLock<Roots>,
    fingerprints: FingerprintKey,
    cursors: MacKey,
    assertions: AssertionSigner,
    unwrapped: RwLock<Unwrapped>,
}

/// A root key, known by the instance key that it wraps.
pub(crate) struct Root {
    key: RootKey,
    wrapped_instance: Vec<u8>,
}

struct Roots {
    present: Arc<Root>,
    /// Those of changes under way; one counts once its rows are on the disk. The change's transaction holds it, so that
    /// one that came to nothing is forgotten with it.
    next: Vec<Weak<Root>>,
}

#[derive(Default)]
struct Unwrapped {
    data_keys: HashMap<u32, Arc<DataKey>>,
    active: HashMap<(Environment, Option<Company>), Arc<DataKey>>,
    peppers: HashMap<u32, Arc<Pepper>>,
    newest_pepper: u32,
}

impl Keyring {
    /// The keys of a new vault.
    pub(crate) fn generate(instance: &Instance) -> Self {
        let (root, key) = (RootKey::generate(), InstanceKey::generate());
        let wrapped_instance = root.wrap_instance_key(&key, instance.id);
        Self::with(instance, key, Root { key: root, wrapped_instance })
    }

    /// The keys of a vault whose root key was unwrapped.
    ///
    /// # Errors
    /// When the root key does not unwrap the instance key.
    pub(crate) fn unwrap(
        instance: &Instance,
        root: RootKey,
        wrapped_instance: &[u8],
    ) -> Result<Self, VaultError> {
        let key = root
            .unwrap_instance_key(wrapped_instance, instance.id)
            .map_err(|error| VaultError::damaged(format!("the instance key cannot be unwrapped: {error}")))?;
        Ok(Self::with(instance, key, Root { key: root, wrapped_instance: wrapped_instance.to_vec() }))
    }

    fn with(instance: &Instance, key: InstanceKey, root: Root) -> Self {
        Self {
            instance: instance.id,
            audit_generation: instance.audit_generation,
            fingerprints: key.fingerprint_key(),
            cursors: key.cursor_key(),
            assertions: key.assertion_signer(),
            key,
            roots: RwLock::new(Roots { present: Arc::new(root), next: Vec::new() }),
            unwrapped: RwLock::default(),
        }
    }

    /// The keys that the store signs and digests with.
    pub(crate) fn ledger(&self) -> LedgerKeys {
        LedgerKeys {
            origin: origin(self.instance),
            signer: self.key.audit_signer(self.audit_generation),
            state: self.key.state_key(),
        }
    }

    pub(crate) fn instance(&self) -> Uuid {
        self.instance
    }

    /// The key of backups.
    pub(crate) fn backup_key(&self) -> BackupKey {
        BackupKey::from_instance(&self.key)
    }

    /// The root key that everything on the disk is under.
    pub(crate) fn root(&self) -> Arc<Root> {
        Arc::clone(&self.roots.read().unwrap_or_else(PoisonError::into_inner).present)
    }

    /// The root key that the rows of a transaction are under.
    pub(crate) fn root_in(&self, tx: &Tx<'_>) -> Result<Arc<Root>, VaultError> {
        let wrapped = tx.row(Kind::Instance, INSTANCE_KEY)?.and_then(|row| row.blob).unwrap_or_default();
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        let next = roots.next.iter().filter_map(Weak::upgrade);
        let mut known = std::iter::once(Arc::clone(&roots.present)).chain(next);
        known.find(|root| root.wrapped_instance == wrapped).ok_or_else(other_instance_key)
    }

    /// Makes the root key that is to take the present one's place.
    pub(crate) fn next_root(&self) -> Arc<Root> {
        let key = RootKey::generate();
        let wrapped_instance = key.wrap_instance_key(&self.key, self.instance);
        let next = Arc::new(Root { key, wrapped_instance });
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        roots.next.retain(|other| other.strong_count() > 0);
        roots.next.push(Arc::downgrade(&next));
        next
    }

    /// Whether the root key of an instance's row is at hand.
    pub(crate) fn has_root_of(&self, row: &Row) -> bool {
        let wrapped = row.blob.as_deref().unwrap_or_default();
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        let next = roots.next.iter().filter_map(Weak::upgrade).any(|next| next.wrapped_instance == wrapped);
        next || roots.present.wrapped_instance == wrapped
    }

    /// Makes a root key that another node has put in place the present one.
    ///
    /// # Errors
    /// When it does not unwrap the instance key of that row.
    pub(crate) fn take_up(&self, key: RootKey, row: &Row) -> Result<(), VaultError> {
        let wrapped_instance = row.blob.clone().unwrap_or_default();
        key.unwrap_instance_key(&wrapped_instance, self.instance).map_err(|_| other_instance_key())?;
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        roots.present = Arc::new(Root { key, wrapped_instance });
        Ok(())
    }

    /// Takes in the instance's row: where it says so, the next root key is the present one from here on.
    pub(crate) fn absorb_instance(&self, row: &Row) -> Result<(), VaultError> {
        let wrapped = row.blob.as_deref().unwrap_or_default();
        let mut roots = self.roots.write().unwrap_or_else(PoisonError::into_inner);
        if roots.present.wrapped_instance == wrapped {
            return Ok(());
        }
        let next = roots.next.iter().filter_map(Weak::upgrade).find(|next| next.wrapped_instance == wrapped);
        roots.present = next.ok_or_else(other_instance_key)?;
        Ok(())
    }

    /// Authenticates page cursors, so that a client can only go on where it was sent.
    pub(crate) fn cursors(&self) -> &MacKey {
        &self.cursors
    }

    /// Signs statements about issued keys.
    pub(crate) fn assertions(&self) -> &AssertionSigner {
        &self.assertions
    }

    /// The fingerprint of a value alone, so that a key is recognised whatever the catalogue says of it.
    pub(crate) fn fingerprint(&self, value: &SecretBytes) -> Fingerprint {
        self.fingerprints.of(FINGERPRINT_DOMAIN, value)
    }

    /// Encrypts a version under the active data key of its place; returns the key's number too.
    pub(crate) fn seal(
        &self,
        key: &DataKey,
        name: &SecretName,
        secret: Uuid,
        version: u32,
        value: &SecretBytes,
    ) -> Vec<u8> {
        keymoat_crypto::seal(key, &self.place(name, secret, version, key.id()), value)
    }

    /// Decrypts a version.
    pub(crate) fn open(
        &self,
        name: &SecretName,
        secret: Uuid,
        version: u32,
        ciphertext: &[u8],
    ) -> Result<SecretBytes, VaultError> {
        let damaged = |why: String| {
            VaultError::damaged(format!("version {version} of `{name}` cannot be decrypted: {why}"))
        };
        let number = keymoat_crypto::data_key_of(ciphertext).map_err(|e| damaged(e.to_string()))?;
        let key = self.data_key(number).ok_or_else(|| damaged(format!("its data key {number} is gone")))?;
        keymoat_crypto::open(&key, &self.place(name, secret, version, number), ciphertext)
            .map_err(|e| damaged(e.to_string()))
    }

    pub(crate) fn data_key(&self, id: u32) -> Option<Arc<DataKey>> {
        self.read(|keys| keys.data_keys.get(&id).cloned())
    }

    pub(crate) fn active_data_key(
        &self,
        environment: &Environment,
        company: Option<&Company>,
    ) -> Option<Arc<DataKey>> {
        self.read(|keys| keys.active.get(&(environment.clone(), company.cloned())).cloned())
    }

    /// The digests under which a presented token may be stored: one a pepper, newest first.
    pub(crate) fn token_digests(&self, token: &Token) -> Vec<TokenDigest> {
        self.read(|keys| {
            let mut peppers: Vec<&Arc<Pepper>> = keys.peppers.values().collect();
            peppers.sort_by_key(|pepper| std::cmp::Reverse(pepper.id()));
            peppers.into_iter().map(|pepper| token.digest(pepper)).collect()
        })
    }

    /// The digests under which a presented sign-in code may be stored: one a pepper.
    pub(crate) fn code_digests(&self, code: &SignInCode) -> Vec<TokenDigest> {
        self.read(|keys| keys.peppers.values().map(|pepper| code.digest(pepper)).collect())
    }

    pub(crate) fn newest_pepper(&self) -> Option<Arc<Pepper>> {
        self.read(|keys| keys.peppers.get(&keys.newest_pepper).cloned())
    }

    pub(crate) fn wrap_data_key(&self, root: &Root, key: &DataKey, entity: &DataKeyEntity) -> Vec<u8> {
        root.key.wrap_data_key(key, self.key_context(entity))
    }

    pub(crate) fn wrap_pepper(&self, root: &Root, pepper: &Pepper) -> Vec<u8> {
        root.key.wrap_pepper(pepper, self.pepper_context(pepper.id()))
    }

    /// Unwraps a data key's row.
    pub(crate) fn unwrap_data_key(
        &self,
        root: &Root,
        row: &Row,
        entity: &DataKeyEntity,
    ) -> Result<DataKey, VaultError> {
        let wrapped = row.blob.as_deref().unwrap_or_default();
        root.key.unwrap_data_key(wrapped, self.key_context(entity)).map_err(|error| {
            let whose = format!("{}/{}", entity.environment, company_text(entity.company.as_ref()));
            VaultError::damaged(format!("data key {} of `{whose}` cannot be unwrapped: {error}", entity.id))
        })
    }

    /// Unwraps a pepper's row.
    pub(crate) fn unwrap_pepper(&self, root: &Root, row: &Row, id: u32) -> Result<Pepper, VaultError> {
        let wrapped = row.blob.as_deref().unwrap_or_default();
        root.key
            .unwrap_pepper(wrapped, self.pepper_context(id))
            .map_err(|e| VaultError::damaged(format!("pepper {id} cannot be unwrapped: {e}")))
    }

    /// Takes in a data key's row.
    pub(crate) fn absorb_data_key(&self, row: &Row) -> Result<(), VaultError> {
        let entity = DataKeyEntity::parse(row)?;
        let key = Arc::new(self.unwrap_data_key(&self.root(), row, &entity)?);
        self.write(|keys| {
            keys.data_keys.insert(entity.id, Arc::clone(&key));
            if entity.active {
                keys.active.insert((entity.environment, entity.company), key);
            } else {
                keys.active.retain(|_, active| active.id() != entity.id);
            }
        });
        Ok(())
    }

    /// Takes in a pepper's row.
    pub(crate) fn absorb_pepper(&self, row: &Row) -> Result<(), VaultError> {
        let entity = PepperEntity::parse(row)?;
        let pepper = self.unwrap_pepper(&self.root(), row, entity.id)?;
        self.write(|keys| {
            keys.newest_pepper = keys.newest_pepper.max(entity.id);
            keys.peppers.insert(entity.id, Arc::new(pepper));
        });
        Ok(())
    }

    /// Forgets a data key or pepper whose row is gone.
    pub(crate) fn forget_data_key(&self, id: u32) {
        self.write(|keys| {
            keys.data_keys.remove(&id);
            keys.active.retain(|_, key| key.id() != id);
        });
    }

    pub(crate) fn forget_pepper(&self, id: u32) {
        self.write(|keys| {
            keys.peppers.remove(&id);
        });
    }

    fn place<'a>(&self, name: &'a SecretName, secret: Uuid, version: u32, data_key: u32) -> Place<'a> {
        Place {
            instance: self.instance,
            environment: name.environment.as_str(),
            company: name.company.as_ref().map(Company::as_str),
            secret,
            path: name.path.as_str(),
            version,
            data_key,
        }
    }

    fn key_context<'a>(&self, entity: &'a DataKeyEntity) -> KeyContext<'a> {
        KeyContext {
            instance: self.instance,
            environment: entity.environment.as_str(),
            company: entity.company.as_ref().map(Company::as_str),
            id: entity.id,
        }
    }

    fn pepper_context(&self, id: u32) -> PepperContext<'static> {
        PepperContext { instance: self.instance, purpose: TOKEN_PURPOSE, id }
    }

    fn read<R>(&self, f: impl FnOnce(&Unwrapped) -> R) -> R {
        f(&self.unwrapped.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, f: impl FnOnce(&mut Unwrapped)) {
        f(&mut self.unwrapped.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Root {
    /// The instance key under it, for the instance's row.
    pub(crate) fn wrapped_instance(&self) -> &[u8] {
        &self.wrapped_instance
    }

    /// Wraps it into a slot.
    pub(crate) fn wrap_under(&self, master: &MasterKey, context: SlotContext<'_>) -> Vec<u8> {
        master.wrap_root(&self.key, context)
    }

    /// Whether another root key is this one, seen from what it unwraps.
    pub(crate) fn is(&self, other: &RootKey, instance: Uuid) -> bool {
        other.unwrap_instance_key(&self.wrapped_instance, instance).is_ok()
    }
}

fn other_instance_key() -> VaultError {
    VaultError::damaged("the instance key is not under the root key that this vault opened with")
}

/// The name under which an instance signs its checkpoints.
pub(crate) fn origin(instance: Uuid) -> String {
    format!("keymoat/{instance}")
}

const FINGERPRINT_DOMAIN: &str = "";
const TOKEN_PURPOSE: &str = "token";
