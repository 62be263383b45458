//! The keys in memory: the root key, what is derived from it, and the data keys and peppers that it unwraps.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use keymoat_core::names::{Company, Environment};
use keymoat_crypto::{
    DataKey, Fingerprint, FingerprintKey, KeyContext, MacKey, Pepper, PepperContext, Place, RootKey, SecretBytes,
    SignInCode, Token, TokenDigest,
};
use keymoat_store::{LedgerKeys, Row};
use uuid::Uuid;

use crate::VaultError;
use crate::entity::{DataKeyEntity, Entity as _, Instance, PepperEntity, SecretName, company_text};

/// The keys of an unsealed vault.
pub(crate) struct Keyring {
    instance: Uuid,
    audit_generation: u32,
    root: RootKey,
    fingerprints: FingerprintKey,
    cursors: MacKey,
    unwrapped: RwLock<Unwrapped>,
}

#[derive(Default)]
struct Unwrapped {
    data_keys: HashMap<u32, Arc<DataKey>>,
    active: HashMap<(Environment, Option<Company>), Arc<DataKey>>,
    peppers: HashMap<u32, Arc<Pepper>>,
    newest_pepper: u32,
}

impl Keyring {
    pub(crate) fn new(instance: &Instance, root: RootKey) -> Self {
        Self {
            instance: instance.id,
            audit_generation: instance.audit_generation,
            fingerprints: root.fingerprint_key(),
            cursors: root.cursor_key(),
            root,
            unwrapped: RwLock::default(),
        }
    }

    /// The keys that the store signs and digests with.
    pub(crate) fn ledger(&self) -> LedgerKeys {
        LedgerKeys {
            origin: origin(self.instance),
            signer: self.root.audit_signer(self.audit_generation),
            state: self.root.state_key(),
        }
    }

    pub(crate) fn instance(&self) -> Uuid {
        self.instance
    }

    pub(crate) fn root(&self) -> &RootKey {
        &self.root
    }

    /// Authenticates page cursors, so that a client can only go on where it was sent.
    pub(crate) fn cursors(&self) -> &MacKey {
        &self.cursors
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
        let damaged = |why: String| VaultError::damaged(format!("version {version} of `{name}` cannot be decrypted: {why}"));
        let number = keymoat_crypto::data_key_of(ciphertext).map_err(|e| damaged(e.to_string()))?;
        let key = self.data_key(number).ok_or_else(|| damaged(format!("its data key {number} is gone")))?;
        keymoat_crypto::open(&key, &self.place(name, secret, version, number), ciphertext)
            .map_err(|e| damaged(e.to_string()))
    }

    pub(crate) fn data_key(&self, id: u32) -> Option<Arc<DataKey>> {
        self.read(|keys| keys.data_keys.get(&id).cloned())
    }

    pub(crate) fn active_data_key(&self, environment: &Environment, company: Option<&Company>) -> Option<Arc<DataKey>> {
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

    pub(crate) fn wrap_data_key(&self, key: &DataKey, entity: &DataKeyEntity) -> Vec<u8> {
        self.root.wrap_data_key(key, self.key_context(entity))
    }

    pub(crate) fn wrap_pepper(&self, pepper: &Pepper) -> Vec<u8> {
        self.root.wrap_pepper(pepper, self.pepper_context(pepper.id()))
    }

    /// Unwraps a data key's row.
    pub(crate) fn unwrap_data_key(&self, row: &Row, entity: &DataKeyEntity) -> Result<DataKey, VaultError> {
        let wrapped = row.blob.as_deref().unwrap_or_default();
        self.root.unwrap_data_key(wrapped, self.key_context(entity)).map_err(|error| {
            let whose = format!("{}/{}", entity.environment, company_text(entity.company.as_ref()));
            VaultError::damaged(format!("data key {} of `{whose}` cannot be unwrapped: {error}", entity.id))
        })
    }

    /// Takes in a data key's row.
    pub(crate) fn absorb_data_key(&self, row: &Row) -> Result<(), VaultError> {
        let entity = DataKeyEntity::parse(row)?;
        let key = Arc::new(self.unwrap_data_key(row, &entity)?);
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
        let wrapped = row.blob.as_deref().unwrap_or_default();
        let pepper = self
            .root
            .unwrap_pepper(wrapped, self.pepper_context(entity.id))
            .map_err(|e| VaultError::damaged(format!("pepper {} cannot be unwrapped: {e}", entity.id)))?;
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

/// The name under which an instance signs its checkpoints.
pub(crate) fn origin(instance: Uuid) -> String {
    format!("keymoat/{instance}")
}

const FINGERPRINT_DOMAIN: &str = "";
const TOKEN_PURPOSE: &str = "token";
