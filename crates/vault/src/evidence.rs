//! A vault that is only checked, never opened: a data directory on a read-only disk, or one that is kept as evidence.

use std::path::Path;

use crate::entity::{Instance, Slot};
use crate::keyring::Keyring;
use crate::open::{KeyRows, outside_file, unwrap_root};
use crate::{MasterKeyOffer, VaultError, VerifyReport};

/// A vault of which nothing is written.
pub struct Evidence {
    store: keymoat_store::Evidence,
    instance: Instance,
    wrapped_instance: Vec<u8>,
    slots: Vec<(Slot, Vec<u8>)>,
}

impl Evidence {
    /// Opens a data directory for checking. `scratch` is an empty directory that nobody else reads, for a copy where
    /// one is needed; it holds ciphertext only, and the caller removes it.
    ///
    /// # Errors
    /// When there is no vault, somebody works in it, or it cannot be read.
    pub fn open(data_dir: &Path, scratch: &Path) -> Result<Self, VaultError> {
        let store = keymoat_store::Evidence::open(data_dir, scratch)?;
        let KeyRows { instance, wrapped_instance, slots } = KeyRows::read(|kind| store.rows(kind))?;
        Ok(Self { store, instance, wrapped_instance, slots })
    }

    /// The vault's id.
    pub fn instance(&self) -> uuid::Uuid {
        self.instance.id
    }

    /// The ways to unwrap the root key.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().map(|(slot, _)| slot)
    }

    /// Checks everything there is.
    ///
    /// # Errors
    /// When the master key does not fit; those of the store.
    pub fn verify(
        &self,
        offer: &MasterKeyOffer,
        outside_dir: &Path,
        progress: impl FnMut(u64),
    ) -> Result<VerifyReport, VaultError> {
        let root = unwrap_root(self.instance.id, &self.slots, offer)?;
        let keyring = Keyring::unwrap(&self.instance, root, &self.wrapped_instance)?;
        Ok(self.store.verify(
            &keyring.ledger(),
            &outside_file(outside_dir, self.instance.id, None),
            progress,
        )?)
    }
}
