//! Changing the root key while the vault serves.
//!
//! One transaction wraps everything anew that the root key wraps: the instance key, the data keys, the peppers, and the
//! root key itself in the slots that stay. It stands whole or not at all, so a process that dies at any moment leaves a
//! vault that opens. The keys that are wrapped stay what they are: values are not encrypted anew, tokens and signatures
//! stay valid. Slots are added and removed in `rekey`.

use std::collections::BTreeSet;
use std::sync::Arc;

use keymoat_core::audit::{Action, AuditText, MAX_ROWS};
use keymoat_core::policy::Capability;
use keymoat_crypto::{MasterKey, SlotContext};
use keymoat_store::{Kind, Row, Tx};

use crate::desk::{Deed, system_resource};
use crate::entity::{DataKeyEntity, Entity as _, INSTANCE_KEY, PepperEntity, Slot};
use crate::keyring::{Keyring, Root};
use crate::open::master_for;
use crate::rekey::{KEYS, add_count, no_slot, slot_key};
use crate::{Caller, Code, MasterKeyOffer, Vault, VaultError};

/// What the change of the root key did.
#[derive(Debug, Clone)]
pub struct RootRotation {
    /// The slots that open the vault as before.
    pub kept: Vec<Slot>,
    /// The slots that are gone: what opened them opens the vault no more.
    pub dropped: Vec<Slot>,
    /// Data keys wrapped anew.
    pub data_keys: u64,
    /// Peppers wrapped anew.
    pub peppers: u64,
    /// Keys that the new root key does not unwrap, read back before the change was made to stand: always 0.
    pub rows_under_old_root: u64,
    /// Whether the write-ahead log was emptied, so that no key under the old root key stands in a file of the vault.
    pub scrubbed: bool,
}

impl Vault {
    /// Replaces the root key. Every slot is either opened with its master key and kept, or named to be dropped.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::Invalid`] when no slot would be kept, or one is named twice; [`Code::NotFound`] for a
    /// slot that is not there; [`Code::Sealed`] when an offer does not open its slot; [`Code::Conflict`] when there is
    /// a slot that is neither kept nor dropped, or the slots were changed meanwhile.
    pub async fn rotate_root(
        &self,
        caller: &Caller,
        keep: Vec<(u32, MasterKeyOffer)>,
        drop: BTreeSet<u32>,
    ) -> Result<RootRotation, VaultError> {
        check_choice(&keep, &drop)?;
        let _busy = self.rekeying().busy.lock().await;
        let mut rotation = self
            .retry_stale(|| async {
                let resource = system_resource(&format!("{KEYS}/root"))?;
                let permit =
                    self.authorize(caller, Capability::Rotate, Action::Rekey, resource.clone()).await?;
                let rewrapping = self.prepare(&keep, &drop).await?;
                let deed = Deed::done(Action::Rekey, &resource)
                    .detail("kept", AuditText::new(&numbers(rewrapping.kept.iter().map(|kept| &kept.slot))))
                    .detail("dropped", AuditText::new(&numbers(&rewrapping.dropped)))
                    .detail("rows_under_old_keys", AuditText::new("0"));
                let draft = self.draft(caller, deed, Some(permit.decided_by));
                let pass = permit.pass;
                let (rotation, _) = self
                    .store()
                    .run_tx("rotate_root", move |tx| {
                        pass.enter(tx)?;
                        let rotation = rewrapping.run(tx)?;
                        let mut draft = draft.clone();
                        add_count(&mut draft, "data_keys", rotation.data_keys);
                        add_count(&mut draft, "peppers", rotation.peppers);
                        tx.append(draft);
                        Ok::<_, VaultError>(rotation)
                    })
                    .await?;
                Ok(rotation)
            })
            .await?;
        // Whoever has the old root key must find nothing under it in the log either.
        rotation.scrubbed = self.scrub_old().await;
        Ok(rotation)
    }

    /// Opens every slot that stays, and makes the new root key.
    async fn prepare(
        &self,
        keep: &[(u32, MasterKeyOffer)],
        drop: &BTreeSet<u32>,
    ) -> Result<Rewrapping, VaultError> {
        let keyring = self.keyring_arc();
        let present = keyring.root();
        let rows = self.rows(Kind::Slot).await?;
        let find = |id: u32| rows.iter().find(|row| row.key == slot_key(id)).ok_or_else(|| no_slot(id));
        let kept = keep.iter().map(|(id, offer)| KeptSlot::open(&keyring, &present, find(*id)?, offer));
        let kept = kept.collect::<Result<Vec<_>, VaultError>>()?;
        let dropped =
            drop.iter().map(|id| Slot::parse(find(*id)?)).collect::<Result<Vec<_>, VaultError>>()?;
        let next = keyring.next_root();
        Ok(Rewrapping { keyring, present, next, kept, dropped })
    }
}

/// A slot that stays, opened with its master key.
struct KeptSlot {
    slot: Slot,
    row: Row,
    master: MasterKey,
}

impl KeptSlot {
    fn open(
        keyring: &Keyring,
        present: &Root,
        row: &Row,
        offer: &MasterKeyOffer,
    ) -> Result<Self, VaultError> {
        let slot = Slot::parse(row)?;
        let does_not_open = || {
            VaultError::new(
                Code::Sealed,
                format!("the master key that was offered does not open slot {}", slot.id),
            )
            .hint("a slot is kept only when its master key is shown; nothing was changed")
        };
        let master = master_for(offer, &slot.source)?.ok_or_else(does_not_open)?;
        let wrapped = row.blob.as_deref().unwrap_or_default();
        let root = master.unwrap_root(wrapped, slot_context(keyring, &slot)).map_err(|_| does_not_open())?;
        match present.is(&root, keyring.instance()) {
            true => Ok(Self { slot, row: row.clone(), master }),
            false => Err(VaultError::damaged(format!("slot {} holds another root key", slot.id))),
        }
    }
}

/// The change of the root key inside of its transaction.
struct Rewrapping {
    keyring: Arc<Keyring>,
    present: Arc<Root>,
    next: Arc<Root>,
    kept: Vec<KeptSlot>,
    dropped: Vec<Slot>,
}

impl Rewrapping {
    fn run(&self, tx: &mut Tx<'_>) -> Result<RootRotation, VaultError> {
        self.check_still_so(tx)?;
        let (data_keys, peppers) = (rows(tx, Kind::DataKey)?, rows(tx, Kind::Pepper)?);
        if data_keys.len() + peppers.len() > WRAPPED_MAX {
            return Err(VaultError::conflict(format!(
                "the root key wraps {} keys; at most {WRAPPED_MAX} can be wrapped anew at once",
                data_keys.len() + peppers.len()
            ))
            .hint("`keymoat rekey list` shows data keys that are being replaced; wait until they are gone"));
        }
        // INVARIANT: first, so that whoever is told of these changes in their order has the new root key before a row
        // under it.
        self.instance(tx)?;
        self.slots(tx)?;
        data_keys.iter().try_for_each(|row| self.data_key(tx, row))?;
        peppers.iter().try_for_each(|row| self.pepper(tx, row))?;
        let rows_under_old_root = self.count_not_under_next(tx)?;
        if rows_under_old_root > 0 {
            let why = format!("{rows_under_old_root} keys could not be read back under the new root key");
            return Err(VaultError::new(Code::Internal, why).hint("nothing was changed"));
        }
        Ok(RootRotation {
            kept: self.kept.iter().map(|kept| kept.slot.clone()).collect(),
            dropped: self.dropped.clone(),
            data_keys: data_keys.len() as u64,
            peppers: peppers.len() as u64,
            rows_under_old_root,
            scrubbed: false,
        })
    }

    /// Refuses when the root key or a slot is not what it was when the slots were opened.
    fn check_still_so(&self, tx: &Tx<'_>) -> Result<(), VaultError> {
        let changed = || VaultError::conflict("the vault's keys were changed meanwhile; try again");
        if !Arc::ptr_eq(&self.present, &self.keyring.root_in(tx)?) {
            return Err(changed());
        }
        let slots = rows(tx, Kind::Slot)?;
        let chosen: BTreeSet<String> = self
            .kept
            .iter()
            .map(|kept| kept.row.key.clone())
            .chain(self.dropped.iter().map(|slot| slot_key(slot.id)))
            .collect();
        if let Some(left) = slots.iter().find(|row| !chosen.contains(&row.key)) {
            let id = left.key.trim_start_matches('0');
            return Err(VaultError::conflict(format!("slot {id} would be lost unnoticed")).hint(format!(
                "keep it by showing its master key, or name it among those to drop: `keymoat rekey list` shows slot {id}"
            )));
        }
        let stand = self.kept.iter().all(|kept| slots.contains(&kept.row));
        if stand && slots.len() == chosen.len() { Ok(()) } else { Err(changed()) }
    }

    fn instance(&self, tx: &mut Tx<'_>) -> Result<(), VaultError> {
        let row = tx.row(Kind::Instance, INSTANCE_KEY)?;
        let row = row.ok_or_else(|| VaultError::damaged("the vault does not know its own id"))?;
        Ok(tx.put(Kind::Instance, &row.key, &row.body, Some(self.next.wrapped_instance()))?)
    }

    fn slots(&self, tx: &mut Tx<'_>) -> Result<(), VaultError> {
        for kept in &self.kept {
            let context = slot_context(&self.keyring, &kept.slot);
            let wrapped = self.next.wrap_under(&kept.master, context);
            let back = kept.master.unwrap_root(&wrapped, context);
            if !back.is_ok_and(|root| self.next.is(&root, self.keyring.instance())) {
                let why = format!("slot {} could not be read back under the new root key", kept.slot.id);
                return Err(VaultError::new(Code::Internal, why).hint("nothing was changed"));
            }
            tx.put(Kind::Slot, &kept.row.key, &kept.row.body, Some(&wrapped))?;
        }
        for slot in &self.dropped {
            tx.remove(Kind::Slot, &slot.key())?;
        }
        Ok(())
    }

    fn data_key(&self, tx: &mut Tx<'_>, row: &Row) -> Result<(), VaultError> {
        let entity = DataKeyEntity::parse(row)?;
        let key = self.keyring.unwrap_data_key(&self.present, row, &entity)?;
        let wrapped = self.keyring.wrap_data_key(&self.next, &key, &entity);
        Ok(tx.put(Kind::DataKey, &row.key, &row.body, Some(&wrapped))?)
    }

    fn pepper(&self, tx: &mut Tx<'_>, row: &Row) -> Result<(), VaultError> {
        let pepper = self.keyring.unwrap_pepper(&self.present, row, PepperEntity::parse(row)?.id)?;
        let wrapped = self.keyring.wrap_pepper(&self.next, &pepper);
        Ok(tx.put(Kind::Pepper, &row.key, &row.body, Some(&wrapped))?)
    }

    /// Reads back what was wrapped and counts what the new root key does not unwrap.
    fn count_not_under_next(&self, tx: &Tx<'_>) -> Result<u64, VaultError> {
        let mut count = 0;
        for row in rows(tx, Kind::DataKey)? {
            let entity = DataKeyEntity::parse(&row)?;
            count += u64::from(self.keyring.unwrap_data_key(&self.next, &row, &entity).is_err());
        }
        for row in rows(tx, Kind::Pepper)? {
            let id = PepperEntity::parse(&row)?.id;
            count += u64::from(self.keyring.unwrap_pepper(&self.next, &row, id).is_err());
        }
        Ok(count)
    }
}

/// Whether each slot is named once, and one at least stays.
fn check_choice(keep: &[(u32, MasterKeyOffer)], drop: &BTreeSet<u32>) -> Result<(), VaultError> {
    if keep.is_empty() {
        return Err(VaultError::invalid("no slot would be kept: nobody could open the vault again")
            .hint("offer the master key of one slot at least"));
    }
    let mut named = drop.clone();
    match keep.iter().find(|(id, _)| !named.insert(*id)) {
        Some((id, _)) => Err(VaultError::invalid(format!("slot {id} is named twice"))),
        None => Ok(()),
    }
}

fn slot_context<'a>(keyring: &Keyring, slot: &'a Slot) -> SlotContext<'a> {
    SlotContext { instance: keyring.instance(), slot: slot.id, kind: slot.source.name() }
}

fn rows(tx: &Tx<'_>, kind: Kind) -> Result<Vec<Row>, VaultError> {
    Ok(tx.rows_with_prefix(kind, "", usize::MAX)?)
}

fn numbers<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> String {
    slots.into_iter().map(|slot| slot.id.to_string()).collect::<Vec<_>>().join(", ")
}

/// What one transaction may change, less room for the slots and the instance.
const WRAPPED_MAX: usize = MAX_ROWS - 100;
