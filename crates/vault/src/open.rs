//! Making a vault, and opening one that is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use keymoat_core::audit::{Action, AuditText};
use keymoat_core::id::PrincipalId;
use keymoat_core::names::{AccountName, Environment, SystemPart};
use keymoat_crypto::{MasterKey, Pepper, RootKey, SecretBytes, Share, SignInCode, SlotContext};
use keymoat_detect::Catalogue;
use keymoat_store::{
    Address, DataDir, Durability, Effect, Kind, Observer, OpenError, Row, SealedStore, Stopper, Trust, Tx,
};
use tokio::sync::watch;

use crate::clock::{Clock, HighWater};
use crate::desk::{Deed, system_resource};
use crate::entity::{
    Account, AccountKind, Entity as _, EnvironmentEntity, Instance, PepperEntity, SignInCodeEntity, Slot,
    SlotSource,
};
use crate::following::Following;
use crate::free_text::holds_key;
use crate::issued::KeyUses;
use crate::keyring::{Keyring, origin};
use crate::lineage::MADE_WITH_VAULT;
use crate::new_root::{KeyAtHand, take_up};
use crate::refusals::Refusals;
use crate::rekey::Rekeying;
use crate::secrets::put_data_key;
use crate::state::State;
use crate::{Code, Inner, Vault, VaultError};

/// What a vault takes from its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// What is known of providers.
    pub catalogue: Arc<Catalogue>,
    /// The directory of the checkpoint file, beside the master key and never in the data directory.
    pub outside_dir: PathBuf,
    /// How hard an acknowledged write is to lose.
    pub durability: Durability,
    /// The server that holds the database; none when it is a file in the data directory.
    pub database: Option<Address>,
    /// Where the master key is found again when another node has changed the root key.
    pub key_at_hand: Option<KeyAtHand>,
}

/// A vault to be made.
pub struct NewVault {
    /// Its id; the master key's file is named after it.
    pub instance: uuid::Uuid,
    /// How its root key is wrapped.
    pub slot: NewSlot,
    /// The user of the operating system whose data directory it is, its first account.
    pub os_user: String,
    /// Its environments.
    pub environments: Vec<Environment>,
}

/// A way to unwrap the root key, to be made.
pub struct NewSlot {
    /// Where its master key comes from.
    pub source: SlotSource,
    /// The master key.
    pub master: MasterKey,
}

/// What an operator offers to unwrap the root key.
pub enum MasterKeyOffer {
    /// A key text from a file, the environment, a command or a systemd credential.
    Key(SecretBytes),
    /// A passphrase.
    Passphrase(SecretBytes),
    /// Shares of a key.
    Shares(Vec<Share>),
}

/// What a verification of everything found; empty problems mean that nothing was touched.
pub type VerifyReport = keymoat_store::Report;

/// A vault whose root key is not at hand.
pub struct SealedVault {
    store: SealedStore,
    instance: Instance,
    wrapped_instance: Vec<u8>,
    slots: Vec<(Slot, Vec<u8>)>,
}

impl SealedVault {
    /// Opens the data directory; `None` when there is no vault in it yet.
    ///
    /// # Errors
    /// When the directory is in use, somebody else's, or not a vault's.
    pub fn open(data_dir: &Path, durability: Durability) -> Result<Result<Self, EmptyDir>, VaultError> {
        Self::open_at(data_dir, None, durability)
    }

    /// As [`SealedVault::open`], with the database on a server when there is an address.
    ///
    /// # Errors
    /// Also when the server cannot be reached, or holds something else.
    pub fn open_at(
        data_dir: &Path,
        database: Option<Address>,
        durability: Durability,
    ) -> Result<Result<Self, EmptyDir>, VaultError> {
        Self::open_held(DataDir::lock(data_dir)?.with_database(database)?, durability)
    }

    /// As [`SealedVault::open`], in a directory whose lock is held already.
    pub(crate) fn open_held(
        dir: DataDir,
        durability: Durability,
    ) -> Result<Result<Self, EmptyDir>, VaultError> {
        let store = SealedStore::open(dir, durability)?;
        if store.is_empty()? {
            return Ok(Err(EmptyDir { store }));
        }
        let KeyRows { instance, wrapped_instance, slots } = KeyRows::read(|kind| store.rows(kind))?;
        store.check_vault(&origin(instance.id))?;
        Ok(Ok(Self { store, instance, wrapped_instance, slots }))
    }

    /// The vault's id.
    pub fn instance(&self) -> uuid::Uuid {
        self.instance.id
    }

    /// The ways to unwrap the root key.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().map(|(slot, _)| slot)
    }

    /// Unwraps the root key and opens the vault, having checked it against its checkpoints.
    ///
    /// # Errors
    /// [`Code::Sealed`] when the master key does not fit; [`Code::Damaged`] when the vault was put back or edited.
    pub fn unseal(self, offer: &MasterKeyOffer, surroundings: Surroundings) -> Result<Vault, VaultError> {
        let unlocked = self.unlock(offer)?;
        self.enter(unlocked, surroundings)
    }

    /// Unwraps the root key and leaves everything as it is, so that whoever offered a wrong key may offer another.
    ///
    /// # Errors
    /// [`Code::Sealed`] when the master key does not fit; [`Code::Damaged`].
    pub fn unlock(&self, offer: &MasterKeyOffer) -> Result<Unlocked, VaultError> {
        let (root, slot) = unwrap_root_and_slot(self.instance.id, &self.slots, offer)?;
        let keyring = Keyring::unwrap(&self.instance, root, &self.wrapped_instance)?;
        Ok(Unlocked { keyring, slot: slot.clone() })
    }

    /// Opens the vault with its unwrapped key, having checked it against its checkpoints.
    ///
    /// # Errors
    /// [`Code::Damaged`] when the vault was put back or edited.
    pub fn enter(self, unlocked: Unlocked, surroundings: Surroundings) -> Result<Vault, VaultError> {
        start(self.store, unlocked.keyring, surroundings, Trust::Checked)
    }

    /// Opens the vault as it is, and writes down why it was accepted.
    ///
    /// # Errors
    /// As [`SealedVault::unseal`].
    pub async fn accept_restore(
        self,
        offer: &MasterKeyOffer,
        surroundings: Surroundings,
        why: &AuditText,
        found: &str,
    ) -> Result<Vault, VaultError> {
        if Catalogue::builtin().holds_a_key(why.as_str()) {
            return Err(holds_key("the reason"));
        }
        let keyring = self.unwrap(offer)?;
        let vault = start(self.store, keyring, surroundings, Trust::Accept)?;
        let deed = Deed::done(Action::AuditAcceptRestore, &system_resource("audit")?)
            .detail("why", why.clone())
            .detail("found", AuditText::new(found));
        let draft = vault.system_draft(&operator()?, deed);
        vault.store().append(draft, None).await?;
        Ok(vault)
    }

    /// Checks everything there is, without serving.
    ///
    /// # Errors
    /// [`Code::Sealed`] when the master key does not fit; those of the store.
    pub fn verify(
        &self,
        offer: &MasterKeyOffer,
        outside_dir: &Path,
        progress: impl FnMut(u64),
    ) -> Result<VerifyReport, VaultError> {
        let keyring = self.unwrap(offer)?;
        let outside = outside_file(outside_dir, self.instance.id, self.store.node_id());
        Ok(self.store.verify(&keyring.ledger(), &outside, progress)?)
    }

    pub(crate) fn store(&self) -> &SealedStore {
        &self.store
    }

    fn unwrap(&self, offer: &MasterKeyOffer) -> Result<Keyring, VaultError> {
        Ok(self.unlock(offer)?.keyring)
    }
}

/// The keys of a vault that a master key has unwrapped.
pub struct Unlocked {
    keyring: Keyring,
    slot: Slot,
}

impl Unlocked {
    /// The slot that the master key opened.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }
}

/// A locked data directory without a vault in it.
pub struct EmptyDir {
    store: SealedStore,
}

impl EmptyDir {
    /// Makes a vault. The code signs in its first administrator, once.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn create(
        self,
        new: NewVault,
        surroundings: Surroundings,
    ) -> Result<(Vault, SignInCode), VaultError> {
        if self.store.has_worked_here() {
            return Err(VaultError::new(Code::Conflict, "the database is empty, but this node has worked with a vault in it")
                .hint("is it the right database? `keymoat restore` puts a backup back; another data directory begins anew"));
        }
        let now = surroundings.clock.now();
        let instance = Instance { id: new.instance, created_at: now, audit_generation: 0 };
        let keyring = Keyring::generate(&instance);
        let slot = Slot { id: FIRST_SLOT, source: new.slot.source, created_at: now };
        let context = SlotContext { instance: instance.id, slot: slot.id, kind: slot.source.name() };
        let wrapped = keyring.root().wrap_under(&new.slot.master, context);
        let vault = start(self.store, keyring, surroundings, Trust::Checked)?;
        let genesis = Genesis {
            instance,
            slot,
            wrapped,
            os_user: vault.first_account(
                AccountName::for_os_user(&new.os_user)?,
                AccountKind::OsUser,
                "owner",
            )?,
            administrator: vault.first_account(ADMINISTRATOR.parse()?, AccountKind::User, "administrator")?,
            environments: new.environments,
        };
        let code = vault.genesis(genesis).await?;
        Ok((vault, code))
    }
}

impl Vault {
    fn first_account(
        &self,
        name: AccountName,
        kind: AccountKind,
        policy: &str,
    ) -> Result<Account, VaultError> {
        Ok(Account {
            id: PrincipalId::from_parts(0, &keymoat_crypto::bytes()),
            name,
            kind,
            description: match kind {
                AccountKind::OsUser => "the owner of the data directory".to_owned(),
                _ => "made with the vault".to_owned(),
            },
            policies: BTreeSet::from([policy.parse()?]),
            groups: BTreeSet::new(),
            active: true,
            created_at: self.now(),
            created_by: MADE_WITH_VAULT.to_owned(),
            created_by_ids: BTreeSet::new(),
            rights_by: None,
            rights_by_ids: BTreeSet::new(),
            rights_at: None,
        })
    }

    async fn genesis(&self, genesis: Genesis) -> Result<SignInCode, VaultError> {
        let now = self.now();
        let pepper = Pepper::generate(1);
        let code = SignInCode::generate();
        let code_entity = SignInCodeEntity::of(&code, &pepper, genesis.administrator.id, None, now);
        let draft = self.system_draft(&operator()?, Deed::done(Action::Init, &system_resource("vault")?));
        let keyring = self.keyring_arc();
        self.store()
            .run_tx("genesis", move |tx| {
                genesis.write(tx, &keyring, now)?;
                let entity = PepperEntity { id: pepper.id(), created_at: now };
                let wrapped = keyring.wrap_pepper(&*keyring.root_in(tx)?, &pepper);
                tx.put(Kind::Pepper, &entity.key(), &entity.body(), Some(&wrapped))?;
                tx.put(Kind::SignInCode, &code_entity.key(), &code_entity.body(), None)?;
                tx.append(draft.clone());
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(code)
    }
}

/// The rows that a vault begins with.
struct Genesis {
    instance: Instance,
    slot: Slot,
    wrapped: Vec<u8>,
    os_user: Account,
    administrator: Account,
    environments: Vec<Environment>,
}

impl Genesis {
    fn write(&self, tx: &mut Tx<'_>, keyring: &Keyring, now: jiff::Timestamp) -> Result<(), VaultError> {
        let wrapped_instance = keyring.root().wrapped_instance().to_vec();
        tx.put(Kind::Instance, &self.instance.key(), &self.instance.body(), Some(&wrapped_instance))?;
        tx.put(Kind::Slot, &self.slot.key(), &self.slot.body(), Some(&self.wrapped))?;
        for account in [&self.os_user, &self.administrator] {
            tx.put(Kind::Account, &account.key(), &account.body(), None)?;
        }
        for (number, name) in (1u32..).zip(&self.environments) {
            let entity =
                EnvironmentEntity { name: name.clone(), description: String::new(), created_at: now };
            tx.put(Kind::Environment, &entity.key(), &entity.body(), None)?;
            put_data_key(tx, keyring, number, name.clone(), None, now)?;
        }
        Ok(())
    }
}

/// What can be read without a key: who the vault is, and what opens it.
pub(crate) struct KeyRows {
    pub(crate) instance: Instance,
    pub(crate) wrapped_instance: Vec<u8>,
    pub(crate) slots: Vec<(Slot, Vec<u8>)>,
}

impl KeyRows {
    /// Reads them by way of `rows`.
    pub(crate) fn read(rows: impl Fn(Kind) -> Result<Vec<Row>, OpenError>) -> Result<Self, VaultError> {
        let instances = rows(Kind::Instance)?;
        let row =
            instances.first().ok_or_else(|| VaultError::damaged("the vault does not know its own id"))?;
        let (instance, wrapped_instance) = (Instance::parse(row)?, row.blob.clone().unwrap_or_default());
        let slots = rows(Kind::Slot)?
            .into_iter()
            .map(|row| Ok((Slot::parse(&row)?, row.blob.unwrap_or_default())))
            .collect::<Result<_, VaultError>>()?;
        Ok(Self { instance, wrapped_instance, slots })
    }
}

pub(crate) fn start(
    store: SealedStore,
    keyring: Keyring,
    surroundings: Surroundings,
    trust: Trust,
) -> Result<Vault, VaultError> {
    let outside = outside_file(&surroundings.outside_dir, keyring.instance(), store.node_id());
    let keyring = Arc::new(keyring);
    let state = Arc::new(RwLock::new(State::new()));
    let (announce, changes) = watch::channel(0);
    let stopper = Arc::new(OnceLock::new());
    let (tell_lost, root_lost) = watch::channel(None);
    let memory = Memory {
        state: Arc::clone(&state),
        keyring: Arc::clone(&keyring),
        key_at_hand: surroundings.key_at_hand,
        announce,
        stopper: Arc::clone(&stopper),
        root_lost: tell_lost,
    };
    let observer: Observer = Box::new(move |effects| memory.take_in(effects));
    let store = store.unseal(keyring.ledger(), &outside, trust, observer)?;
    {
        let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
        state.trim();
        if let Some(first) = state.damaged.first() {
            return Err(VaultError::damaged(first.clone()));
        }
        // Only once: this is the one store of this state.
        let _ = stopper.set(store.stopper());
    }
    let clock = HighWater::new(surroundings.clock);
    clock.raise_to(store.newest_event());
    let vault = Vault {
        inner: Arc::new(Inner {
            store,
            state,
            keyring,
            catalogue: surroundings.catalogue,
            clock,
            outside,
            refusals: Refusals::default(),
            following: Following::default(),
            key_uses: KeyUses::default(),
            rekeying: Rekeying::default(),
            archiving: tokio::sync::Mutex::default(),
            scrub_due: AtomicBool::new(false),
            changes,
            root_lost,
        }),
    };
    Ok(vault)
}

/// What is fed from the store.
struct Memory {
    state: Arc<RwLock<State>>,
    keyring: Arc<Keyring>,
    key_at_hand: Option<KeyAtHand>,
    announce: watch::Sender<u64>,
    stopper: Arc<OnceLock<Stopper>>,
    root_lost: watch::Sender<Option<String>>,
}

impl Memory {
    fn take_in(&self, effects: Vec<Effect>) {
        // Before the state is held: to find the master key may take a while.
        let taken_up = take_up(&effects, &self.keyring, self.key_at_hand.as_ref());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &taken_up {
            Ok(()) => effects.into_iter().for_each(|effect| state.absorb(effect, &self.keyring)),
            // Without it nothing of what follows can be read.
            Err(error) => state.damaged.push(error.message.clone()),
        }
        let (change, damaged) = (state.change, state.damaged.first().cloned());
        drop(state);
        // Memory that is not what was committed speaks for nobody.
        if let (Some(why), Some(stopper)) = (damaged, self.stopper.get()) {
            stopper.stop(&why);
        }
        if let Err(error) = taken_up {
            self.root_lost.send_replace(Some(error.message));
        }
        // Nobody may be waiting.
        self.announce.send_replace(change);
    }
}

/// The root key out of the first slot that the offer fits.
pub(crate) fn unwrap_root(
    instance: uuid::Uuid,
    slots: &[(Slot, Vec<u8>)],
    offer: &MasterKeyOffer,
) -> Result<RootKey, VaultError> {
    unwrap_root_and_slot(instance, slots, offer).map(|(root, _)| root)
}

/// The root key, and the slot that it was in.
fn unwrap_root_and_slot<'s>(
    instance: uuid::Uuid,
    slots: &'s [(Slot, Vec<u8>)],
    offer: &MasterKeyOffer,
) -> Result<(RootKey, &'s Slot), VaultError> {
    for (slot, wrapped) in slots {
        let Some(master) = master_for(offer, &slot.source)? else { continue };
        let context = SlotContext { instance, slot: slot.id, kind: slot.source.name() };
        if let Ok(root) = master.unwrap_root(wrapped, context) {
            return Ok((root, slot));
        }
    }
    let kinds: BTreeSet<&str> = slots.iter().map(|(slot, _)| slot.source.name()).collect();
    Err(VaultError::new(Code::Sealed, "the master key does not fit this vault").hint(format!(
        "it is the vault {instance}; it opens with: {}",
        kinds.into_iter().collect::<Vec<_>>().join(", ")
    )))
}

/// The master key that an offer gives for a slot; `None` when the offer is of another kind.
pub(crate) fn master_for(
    offer: &MasterKeyOffer,
    source: &SlotSource,
) -> Result<Option<MasterKey>, VaultError> {
    let unusable = |why: String| VaultError::new(Code::Sealed, why).hint(LOOKED_FOR);
    match (offer, source) {
        (MasterKeyOffer::Key(text), SlotSource::Key) => {
            MasterKey::parse(text).map(Some).map_err(|e| unusable(e.to_string()))
        }
        (MasterKeyOffer::Passphrase(passphrase), SlotSource::Passphrase { argon2 }) => {
            MasterKey::from_passphrase(passphrase, argon2).map(Some).map_err(|e| unusable(e.to_string()))
        }
        (MasterKeyOffer::Shares(shares), SlotSource::Shamir { .. }) => {
            MasterKey::combine(shares).map(Some).map_err(|e| unusable(e.to_string()))
        }
        _ => Ok(None),
    }
}

/// The checkpoint file of an instance, or that of one of its nodes.
pub(crate) fn outside_file(dir: &Path, instance: uuid::Uuid, node: Option<&str>) -> PathBuf {
    match node {
        None => dir.join(format!("{instance}.checkpoint")),
        Some(node) => dir.join(format!("{instance}.{node}.checkpoint")),
    }
}

pub(crate) fn operator() -> Result<SystemPart, VaultError> {
    Ok("operator".parse()?)
}

/// The order is that of the binary.
const LOOKED_FOR: &str = "the first that is set is used: KEYMOAT_MASTER_KEY, KEYMOAT_MASTER_KEY_FILE, KEYMOAT_MASTER_KEY_COMMAND, a systemd credential, the key file of the vault, a passphrase, shares";
/// The name of the first administrator.
const ADMINISTRATOR: &str = "admin";
const FIRST_SLOT: u32 = 1;
