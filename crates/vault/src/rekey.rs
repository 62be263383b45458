//! Changing the vault's own keys while it serves: slots of the root key, data keys, peppers. The root key is `root`'s.
//!
//! What is left to do always stands in the rows: a version that is not under the active data key of its place, a token
//! whose digest is under an older pepper. So a change that was killed goes on where it stopped, and it has ended when
//! no row is left under the old key. Keys at their providers are not changed here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use keymoat_core::audit::{Action, AuditText, DetailValue, ReasonCode};
use keymoat_core::id::{IssuedKeyId, TokenId};
use keymoat_core::names::{Company, Environment, SystemPart};
use keymoat_core::policy::{Capability, Resource};
use keymoat_crypto::{DataKey, Pepper, SecretBytes, SlotContext, Token};
use keymoat_store::{Draft, Kind, Row, StoreError, Tx};

use crate::desk::{Deed, open_with, system_resource};
use crate::entity::{
    DataKeyEntity, Entity as _, PepperEntity, Secret, Slot, TokenEntity, VersionEntity, company_text,
    number_key,
};
use crate::issued::{IssuedKey, KnownKey};
use crate::keyring::Keyring;
use crate::open::unwrap_root;
use crate::receipt::Reader;
use crate::secrets::put_data_key;
use crate::{Caller, Code, MasterKeyOffer, NewSlot, Vault, VaultError};

/// What stands of the vault's own keys; never a key.
#[derive(Debug, Clone)]
pub struct KeyReport {
    /// The ways to unwrap the root key.
    pub slots: Vec<Slot>,
    /// The data keys; those that are not active are being replaced.
    pub data_keys: Vec<DataKeyEntity>,
    /// The peppers of token digests; all but the newest are being replaced.
    pub peppers: Vec<PepperReport>,
}

/// A pepper with what still depends on it.
#[derive(Debug, Clone)]
pub struct PepperReport {
    /// The pepper.
    pub pepper: PepperEntity,
    /// Tokens and sign-in codes whose digests are under it.
    pub digests: usize,
}

/// How far a re-encryption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyProgress {
    /// Versions encrypted anew so far.
    pub done: u64,
    /// Versions that were under old keys when it began or went on.
    pub total: u64,
}

/// What the change of a data key did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeyRotation {
    /// Whose key.
    pub environment: Environment,
    /// Whose key.
    pub company: Option<Company>,
    /// The key that is active now.
    pub active: u32,
    /// Versions encrypted anew by this call.
    pub reencrypted: u64,
    /// The old keys that no row is under any more; they are gone.
    pub ended: Vec<u32>,
    /// Versions still under old keys: 0 unless the call was told to stop.
    pub rows_under_old_keys: u64,
    /// Whether the write-ahead log was emptied, so that the old ciphertexts stand in no file of the vault.
    pub scrubbed: bool,
}

/// What a change of the pepper did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PepperRotation {
    /// The pepper of new digests.
    pub newest: u32,
    /// Tokens and sign-in codes whose digests are still under older ones.
    pub digests_under_old_peppers: usize,
}

/// What [`Vault::tend_keys`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tended {
    /// Tokens whose digests are now under the newest pepper.
    pub redigested: usize,
    /// Peppers that nothing was under any more; they are gone.
    pub peppers_ended: Vec<u32>,
}

/// What changes of keys keep between calls.
#[derive(Default)]
pub(crate) struct Rekeying {
    /// One change at a time: each rests on which keys there are.
    pub(crate) busy: tokio::sync::Mutex<()>,
    /// Digests under the newest pepper of tokens that were presented and stand under an older one.
    redigests: Mutex<BTreeMap<TokenId, Redigest>>,
    /// The same of issued keys.
    key_redigests: Mutex<BTreeMap<IssuedKeyId, KeyRedigest>>,
}

struct Redigest {
    old_digest: String,
    new_digest: String,
    pepper: u32,
}

struct KeyRedigest {
    old_pepper: u32,
    new_digest: String,
    pepper: u32,
}

impl Vault {
    /// What stands of the vault's own keys.
    ///
    /// # Errors
    /// [`Code::Refused`]; those of the store.
    pub async fn list_keys(&self, caller: &Caller) -> Result<KeyReport, VaultError> {
        self.recorded(caller, Capability::Rotate, Action::List, &system_resource(KEYS)?).await?;
        let data_keys = parsed(self.rows(Kind::DataKey).await?)?;
        let peppers = parsed(self.rows(Kind::Pepper).await?)?;
        let peppers = peppers.into_iter().map(|pepper: PepperEntity| {
            let digests = self.digests_under(|id| id == pepper.id);
            PepperReport { pepper, digests }
        });
        let slots = self.state(|state| state.slots.values().cloned().collect());
        Ok(KeyReport { slots, data_keys, peppers: peppers.collect() })
    }

    /// Adds a way to unwrap the root key, having seen that whoever adds it can open the vault already: a right alone,
    /// or a token that somebody took, makes nobody a key of his own.
    ///
    /// # Errors
    /// [`Code::Refused`], also when the offered master key opens none of the slots; [`Code::Conflict`] when there are
    /// as many as there may be, or they were changed meanwhile.
    pub async fn add_slot(
        &self,
        caller: &Caller,
        new: NewSlot,
        proof: &MasterKeyOffer,
    ) -> Result<Slot, VaultError> {
        let _busy = self.rekeying().busy.lock().await;
        let new = Arc::new(new);
        self.retry_stale(|| async {
            let resource = system_resource(&format!("{KEYS}/slots"))?;
            let permit = self.authorize(caller, Capability::Rotate, Action::Rekey, resource.clone()).await?;
            let Some(proven) = self.slot_that_opens(proof).await? else {
                return Err(self.refuse_unproven(caller, &resource).await);
            };
            let deed = Deed::done(Action::Rekey, &resource)
                .detail("added", AuditText::new(new.source.name()))
                .detail("opens_with", AuditText::new(&proven.key));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (keyring, new, now, pass) = (self.keyring_arc(), Arc::clone(&new), self.now(), permit.pass);
            let (slot, _) = self
                .store()
                .run_tx("add_slot", move |tx| {
                    pass.enter(tx)?;
                    let rows = tx.rows_with_prefix(Kind::Slot, "", usize::MAX)?;
                    if !rows.contains(&proven) {
                        return Err(slots_changed());
                    }
                    if rows.len() >= SLOTS_MAX {
                        return Err(VaultError::conflict(format!(
                            "a vault has at most {SLOTS_MAX} key slots"
                        ))
                        .hint("remove one that is no longer used first"));
                    }
                    let id = next_number(&rows);
                    let slot = Slot { id, source: new.source.clone(), created_at: now };
                    let context =
                        SlotContext { instance: keyring.instance(), slot: id, kind: slot.source.name() };
                    let wrapped = keyring.root_in(tx)?.wrap_under(&new.master, context);
                    tx.put(Kind::Slot, &slot.key(), &slot.body(), Some(&wrapped))?;
                    tx.append(draft.clone());
                    Ok(slot)
                })
                .await?;
            Ok(slot)
        })
        .await
    }

    /// Removes a way to unwrap the root key, having seen that another one opens.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Conflict`] for the last slot; [`Code::Sealed`] when the offered
    /// master key opens none of the others.
    pub async fn remove_slot(
        &self,
        caller: &Caller,
        id: u32,
        other: &MasterKeyOffer,
    ) -> Result<(), VaultError> {
        let _busy = self.rekeying().busy.lock().await;
        self.retry_stale(|| async {
            let resource = system_resource(&format!("{KEYS}/slots/{id}"))?;
            let permit = self.authorize(caller, Capability::Rotate, Action::Rekey, resource.clone()).await?;
            let rows = self.rows(Kind::Slot).await?;
            let proven = self.other_slot_that_opens(&rows, id, other)?;
            let deed = Deed::done(Action::Rekey, &resource)
                .detail("removed", AuditText::new(&id.to_string()))
                .detail("opens_with", AuditText::new(&proven.key));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let pass = permit.pass;
            self.store()
                .run_tx("remove_slot", move |tx| {
                    pass.enter(tx)?;
                    let stands = tx.row(Kind::Slot, &proven.key)?.is_some_and(|row| row.blob == proven.blob);
                    if !stands {
                        return Err(slots_changed());
                    }
                    if !tx.remove(Kind::Slot, &slot_key(id))? {
                        return Err(no_slot(id));
                    }
                    tx.append(draft.clone());
                    Ok(())
                })
                .await?;
            Ok(())
        })
        .await?;
        // Whoever has the old master key must not find the wrapped root key in the log either.
        self.scrub_old().await;
        Ok(())
    }

    /// Gives an environment, or a company in it, a new data key and encrypts everything there anew under it.
    ///
    /// New writes use the new key at once, reads go on. `progress` hears of every batch; when it breaks off, what is
    /// left is done by [`Vault::resume_rekeying`] or by the next change of the same key.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`] when nothing was ever stored there; those of the store.
    pub async fn rotate_data_key(
        &self,
        caller: &Caller,
        environment: &Environment,
        company: Option<&Company>,
        progress: impl FnMut(RekeyProgress) -> ControlFlow<()> + Send,
    ) -> Result<DataKeyRotation, VaultError> {
        let _busy = self.rekeying().busy.lock().await;
        let place = Place { environment: environment.clone(), company: company.cloned() };
        self.retry_stale(|| async {
            let resource = system_resource(&format!("{KEYS}/data"))?;
            let permit = self.authorize(caller, Capability::Rotate, Action::Rekey, resource.clone()).await?;
            let known = self.check_environment(caller, environment);
            let known = known.and(company.map_or(Ok(()), |company| self.check_company(caller, company)));
            if let Err(error) = known {
                return Err(self.failed(&permit, Action::Rekey, error).await);
            }
            let deed = place.describe(Deed::done(Action::Rekey, &resource));
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (keyring, now, pass, place) = (self.keyring_arc(), self.now(), permit.pass, place.clone());
            self.store()
                .run_tx("rotate_data_key", move |tx| {
                    pass.enter(tx)?;
                    replace_data_key(tx, &keyring, &place, now)?;
                    tx.append(draft.clone());
                    Ok::<_, VaultError>(())
                })
                .await?;
            Ok(())
        })
        .await?;
        self.finish_data_key(place, progress).await
    }

    /// Goes on with changes of data keys that were stopped or killed.
    ///
    /// # Errors
    /// Those of the store; [`Code::Damaged`] when a value cannot be decrypted.
    pub async fn resume_rekeying(
        &self,
        mut progress: impl FnMut(RekeyProgress) -> ControlFlow<()> + Send,
    ) -> Result<Vec<DataKeyRotation>, VaultError> {
        let _busy = self.rekeying().busy.lock().await;
        let keys: Vec<DataKeyEntity> = parsed(self.rows(Kind::DataKey).await?)?;
        let retired = keys.into_iter().filter(|key| !key.active);
        let places: BTreeSet<Place> = retired.map(Place::of).collect();
        let mut done = Vec::new();
        for place in places {
            let rotation = self.finish_data_key(place, &mut progress).await?;
            let stopped = rotation.rows_under_old_keys > 0;
            done.push(rotation);
            if stopped {
                break;
            }
        }
        Ok(done)
    }

    /// Gives the digests of tokens a new pepper. Tokens stay valid: each moves over when it is presented and
    /// [`Vault::tend_keys`] runs, and the old pepper goes with the last one under it.
    ///
    /// # Errors
    /// [`Code::Refused`]; those of the store.
    pub async fn rotate_pepper(&self, caller: &Caller) -> Result<PepperRotation, VaultError> {
        let _busy = self.rekeying().busy.lock().await;
        let newest = self
            .retry_stale(|| async {
                let resource = system_resource(&format!("{KEYS}/pepper"))?;
                let permit =
                    self.authorize(caller, Capability::Rotate, Action::Rekey, resource.clone()).await?;
                let draft =
                    self.draft(caller, Deed::done(Action::Rekey, &resource), Some(permit.decided_by.clone()));
                let (keyring, now, pass) = (self.keyring_arc(), self.now(), permit.pass);
                let (id, _) = self
                    .store()
                    .run_tx("rotate_pepper", move |tx| {
                        pass.enter(tx)?;
                        let id = next_number(&tx.rows_with_prefix(Kind::Pepper, "", usize::MAX)?);
                        let entity = PepperEntity { id, created_at: now };
                        let wrapped = keyring.wrap_pepper(&*keyring.root_in(tx)?, &Pepper::generate(id));
                        tx.put(Kind::Pepper, &entity.key(), &entity.body(), Some(&wrapped))?;
                        tx.append(draft.clone());
                        Ok::<_, VaultError>(id)
                    })
                    .await?;
                Ok(id)
            })
            .await?;
        Ok(PepperRotation { newest, digests_under_old_peppers: self.digests_under(|id| id < newest) })
    }

    /// Moves tokens that were presented to the newest pepper and removes peppers that nothing is under any more. To be
    /// called every minute; it does nothing when there is nothing to do.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn tend_keys(&self) -> Result<Tended, VaultError> {
        let Ok(_busy) = self.rekeying().busy.try_lock() else { return Ok(Tended::default()) };
        let redigested = self.redigest().await? + self.redigest_keys().await?;
        let mut peppers_ended = Vec::new();
        let Some(newest) = self.keyring().newest_pepper() else {
            return Ok(Tended { redigested, peppers_ended });
        };
        let peppers: Vec<PepperEntity> = parsed(self.rows(Kind::Pepper).await?)?;
        for pepper in peppers.into_iter().filter(|pepper| pepper.id < newest.id()) {
            if self.end_pepper(pepper.id).await? {
                peppers_ended.push(pepper.id);
            }
        }
        if !peppers_ended.is_empty() {
            self.scrub_old().await;
        }
        Ok(Tended { redigested, peppers_ended })
    }

    /// Remembers that a token, which has just been recognised, stands under an older pepper.
    pub(crate) fn note_pepper(&self, entity: &TokenEntity, text: &SecretBytes) {
        let Some(newest) = self.keyring().newest_pepper().filter(|newest| entity.pepper < newest.id()) else {
            return;
        };
        let Ok(token) = Token::parse(text) else { return };
        let redigest = Redigest {
            old_digest: entity.digest.clone(),
            new_digest: BASE64.encode(token.digest(&newest).as_bytes()),
            pepper: newest.id(),
        };
        self.rekeying().lock_redigests().insert(entity.id, redigest);
    }

    /// Remembers that an issued key, which has just been recognised, stands under an older pepper.
    pub(crate) fn note_key_pepper(&self, key: &KnownKey, token: &Token) {
        let Some(newest) = self.keyring().newest_pepper().filter(|newest| key.pepper < newest.id()) else {
            return;
        };
        let mut waiting = self.rekeying().lock_key_redigests();
        if waiting.len() >= KEYS_WAITING_MAX || waiting.contains_key(&key.id) {
            return;
        }
        let new_digest = BASE64.encode(token.digest(&newest).as_bytes());
        waiting.insert(key.id, KeyRedigest { old_pepper: key.pepper, new_digest, pepper: newest.id() });
    }

    pub(crate) async fn rows(&self, kind: Kind) -> Result<Vec<Row>, VaultError> {
        Ok(self.store().read(move |reader| reader.rows_with_prefix(kind, "", usize::MAX)).await?)
    }

    /// The slot, other than `id`, that the offered master key opens.
    fn other_slot_that_opens(
        &self,
        rows: &[Row],
        id: u32,
        offer: &MasterKeyOffer,
    ) -> Result<Row, VaultError> {
        if !rows.iter().any(|row| row.key == slot_key(id)) {
            return Err(no_slot(id));
        }
        let others: Vec<&Row> = rows.iter().filter(|row| row.key != slot_key(id)).collect();
        if others.is_empty() {
            return Err(VaultError::conflict(
                "the last key slot cannot be removed: nobody could open the vault again",
            )
            .hint("add another one first"));
        }
        for row in others {
            let slot = (Slot::parse(row)?, row.blob.clone().unwrap_or_default());
            match unwrap_root(self.instance(), &[slot], offer) {
                Ok(_) => return Ok(row.clone()),
                Err(error) if error.code == Code::Sealed => {}
                Err(error) => return Err(error),
            }
        }
        Err(VaultError::new(Code::Sealed, "the master key that was offered opens none of the other slots")
            .hint("removing a slot takes the proof that the vault can still be opened without it"))
    }

    /// The slot that an offered master key opens.
    async fn slot_that_opens(&self, offer: &MasterKeyOffer) -> Result<Option<Row>, VaultError> {
        let keyring = self.keyring_arc();
        let present = keyring.root();
        for row in self.rows(Kind::Slot).await? {
            let slot = (Slot::parse(&row)?, row.blob.clone().unwrap_or_default());
            match unwrap_root(self.instance(), &[slot], offer) {
                Ok(root) if present.is(&root, keyring.instance()) => return Ok(Some(row)),
                Ok(_) => {
                    return Err(VaultError::damaged(format!("slot `{}` holds another root key", row.key)));
                }
                Err(error) if error.code == Code::Sealed => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn refuse_unproven(&self, caller: &Caller, resource: &Resource) -> VaultError {
        let deed = Deed::refused(Action::Rekey, resource, ReasonCode::BadCredentials);
        if let Err(error) = self.record_refusal(caller, deed, None).await {
            return error;
        }
        VaultError::new(Code::Refused, "the master key that was offered opens none of the slots")
            .hint("adding a way to open the vault takes the proof that one can open it already")
    }

    /// Encrypts what is left under old keys of a place, then removes these keys.
    async fn finish_data_key(
        &self,
        place: Place,
        mut progress: impl FnMut(RekeyProgress) -> ControlFlow<()> + Send,
    ) -> Result<DataKeyRotation, VaultError> {
        let keys: Vec<DataKeyEntity> = parsed(self.rows(Kind::DataKey).await?)?;
        let (active, old): (Vec<_>, Vec<_>) =
            keys.into_iter().filter(|key| place.is_of(key)).partition(|key| key.active);
        let active = active.first().and_then(|key| self.keyring().data_key(key.id));
        let active = active.ok_or_else(|| place.no_key())?;
        let old: Arc<BTreeSet<u32>> = Arc::new(old.into_iter().map(|key| key.id).collect());
        let mut rotation = DataKeyRotation {
            environment: place.environment.clone(),
            company: place.company.clone(),
            active: active.id(),
            reencrypted: 0,
            ended: Vec::new(),
            rows_under_old_keys: 0,
            scrubbed: false,
        };
        let total = self.count_under(&old).await?;
        let mut after = String::new();
        loop {
            let keys = self.versions_under(&old, after.clone()).await?;
            let Some(last) = keys.last() else {
                // INVARIANT: since the new key is active nobody writes under an old one, so a look from the beginning
                // that finds nothing holds for good.
                if after.is_empty() {
                    break;
                }
                after.clear();
                continue;
            };
            after.clone_from(last);
            rotation.reencrypted += self.reencrypt(&place, keys, &old, &active).await?;
            let step = RekeyProgress { done: rotation.reencrypted, total: total.max(rotation.reencrypted) };
            if progress(step).is_break() {
                rotation.rows_under_old_keys = self.count_under(&old).await?;
                if rotation.rows_under_old_keys > 0 {
                    return Ok(rotation);
                }
            }
        }
        rotation.ended = self.end_data_keys(&place, &old, active.id()).await?;
        rotation.scrubbed = self.scrub_old().await;
        Ok(rotation)
    }

    /// The keys of the next versions that are under one of the old data keys, a batch of them.
    async fn versions_under(
        &self,
        old: &Arc<BTreeSet<u32>>,
        after: String,
    ) -> Result<Vec<String>, VaultError> {
        let old = Arc::clone(old);
        let keys = self.store().read(move |reader| {
            let mut keys = Vec::new();
            reader.bodies(Kind::Version, &after, |key, body| {
                if is_under(body, &old) {
                    keys.push(key.to_owned());
                }
                keys.len() < BATCH_ROWS
            })?;
            Ok(keys)
        });
        Ok(keys.await?)
    }

    async fn count_under(&self, old: &Arc<BTreeSet<u32>>) -> Result<u64, VaultError> {
        let old = Arc::clone(old);
        let count = self.store().read(move |reader| {
            let mut count = 0;
            reader.bodies(Kind::Version, "", |_, body| {
                count += u64::from(is_under(body, &old));
                true
            })?;
            Ok(count)
        });
        Ok(count.await?)
    }

    /// Encrypts a batch of versions anew, in one transaction with its record. Those that are gone meanwhile are left
    /// out.
    async fn reencrypt(
        &self,
        place: &Place,
        keys: Vec<String>,
        old: &Arc<BTreeSet<u32>>,
        active: &Arc<DataKey>,
    ) -> Result<u64, VaultError> {
        let secrets: Vec<(String, Option<Arc<Secret>>)> = self.state(|state| {
            let secret_of =
                |key: &str| state.secret_by_id(key.split_once('/')?.0.parse().ok()?).map(Arc::clone);
            keys.into_iter().map(|key| (secret_of(&key), key)).map(|(secret, key)| (key, secret)).collect()
        });
        let part = rekey_part()?;
        let deed = place.describe(Deed::done(Action::Rekey, &system_resource(&format!("{KEYS}/data"))?));
        let deed = deed.detail("data_key", AuditText::new(&active.id().to_string()));
        let draft = self.system_draft(&part, deed);
        let work = Reencryption {
            keyring: self.keyring_arc(),
            old: Arc::clone(old),
            active: Arc::clone(active),
            part,
        };
        let (count, _) = self
            .store()
            .run_tx("reencrypt", move |tx| {
                check_is_active(tx, work.active.id())?;
                let mut count = 0;
                for (key, secret) in &secrets {
                    count += u64::from(work.version(tx, key, secret.as_deref())?);
                }
                if count > 0 {
                    let mut draft = draft.clone();
                    add_count(&mut draft, "reencrypted", count);
                    tx.append(draft);
                }
                Ok::<_, VaultError>(count)
            })
            .await?;
        Ok(count)
    }

    /// Removes data keys that no row is under any more.
    async fn end_data_keys(
        &self,
        place: &Place,
        old: &Arc<BTreeSet<u32>>,
        active: u32,
    ) -> Result<Vec<u32>, VaultError> {
        if old.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<u32> = old.iter().copied().collect();
        let text = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let deed = place.describe(Deed::done(Action::Rekey, &system_resource(&format!("{KEYS}/data"))?));
        let deed =
            deed.detail("ended", AuditText::new(&text)).detail("rows_under_old_keys", AuditText::new("0"));
        let draft = self.system_draft(&rekey_part()?, deed);
        let ended = ids.clone();
        self.store()
            .run_tx("end_data_keys", move |tx| {
                check_is_active(tx, active)?;
                for id in &ended {
                    tx.remove(Kind::DataKey, &number_key(*id))?;
                }
                tx.append(draft.clone());
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(ids)
    }

    /// Tokens and sign-in codes whose digests are under a pepper like that.
    fn digests_under(&self, pepper: impl Fn(u32) -> bool) -> usize {
        self.state(|state| {
            state.tokens.values().filter(|token| pepper(token.pepper)).count()
                + state.sign_in_codes.values().filter(|code| pepper(code.pepper)).count()
                + state.issued.under(&pepper)
        })
    }

    /// Writes the digests that presented tokens have under the newest pepper.
    async fn redigest(&self) -> Result<usize, VaultError> {
        let mut redigested = 0;
        loop {
            let batch: Vec<(TokenId, Redigest)> = {
                let mut waiting = self.rekeying().lock_redigests();
                std::iter::from_fn(|| waiting.pop_first()).take(BATCH_ROWS).collect()
            };
            if batch.is_empty() {
                return Ok(redigested);
            }
            let deed = Deed::done(Action::Rekey, &system_resource(&format!("{KEYS}/pepper"))?);
            let draft = self.system_draft(&rekey_part()?, deed);
            let (count, _) = self
                .store()
                .run_tx("redigest", move |tx| {
                    let mut count = 0u64;
                    for (id, redigest) in &batch {
                        count += u64::from(redigest_token(tx, *id, redigest)?);
                    }
                    if count > 0 {
                        let mut draft = draft.clone();
                        add_count(&mut draft, "redigested", count);
                        tx.append(draft);
                    }
                    Ok::<_, VaultError>(count)
                })
                .await?;
            redigested += usize::try_from(count).unwrap_or(usize::MAX);
        }
    }

    /// Writes the digests that presented issued keys have under the newest pepper.
    async fn redigest_keys(&self) -> Result<usize, VaultError> {
        let mut redigested = 0;
        loop {
            let batch: Vec<(IssuedKeyId, KeyRedigest)> = {
                let mut waiting = self.rekeying().lock_key_redigests();
                std::iter::from_fn(|| waiting.pop_first()).take(BATCH_ROWS).collect()
            };
            if batch.is_empty() {
                return Ok(redigested);
            }
            let deed = Deed::done(Action::Rekey, &system_resource(&format!("{KEYS}/pepper"))?);
            let draft = self.system_draft(&rekey_part()?, deed);
            let (count, _) = self
                .store()
                .run_tx("redigest_keys", move |tx| {
                    let mut count = 0u64;
                    for (id, redigest) in &batch {
                        count += u64::from(redigest_key(tx, *id, redigest)?);
                    }
                    if count > 0 {
                        let mut draft = draft.clone();
                        add_count(&mut draft, "redigested", count);
                        tx.append(draft);
                    }
                    Ok::<_, VaultError>(count)
                })
                .await?;
            redigested += usize::try_from(count).unwrap_or(usize::MAX);
        }
    }

    /// Removes a pepper together with the tokens and codes under it that have ended; says whether it is gone.
    async fn end_pepper(&self, id: u32) -> Result<bool, VaultError> {
        let now = self.now();
        if self.state(|state| state.issued.under(|pepper| pepper == id)) > 0 {
            return Ok(false);
        }
        let (tokens, codes) = self.state(|state| {
            let tokens = state.tokens.values().filter(|token| token.pepper == id);
            let codes = state.sign_in_codes.values().filter(|code| code.pepper == id);
            (tokens.map(Arc::clone).collect::<Vec<_>>(), codes.cloned().collect::<Vec<_>>())
        });
        let lives =
            tokens.iter().any(|token| !token.has_ended(now)) || codes.iter().any(|code| !code.has_ended(now));
        // INVARIANT: a new digest is only written under the newest pepper, so those under this one only become fewer.
        if lives || tokens.len() + codes.len() > ENDED_ROWS_MAX {
            return Ok(false);
        }
        let deed = Deed::done(Action::Rekey, &system_resource(&format!("{KEYS}/pepper"))?)
            .detail("ended", AuditText::new(&id.to_string()))
            .detail("rows_under_old_keys", AuditText::new("0"));
        let draft = self.system_draft(&rekey_part()?, deed);
        self.store()
            .run_tx("end_pepper", move |tx| {
                for token in &tokens {
                    // Another node may just have renewed it.
                    let stands =
                        tx.row(Kind::Token, &token.key())?.map(|row| TokenEntity::parse(&row)).transpose()?;
                    if stands.is_some_and(|token| token.pepper == id && !token.has_ended(now)) {
                        return Err(VaultError::conflict("a token under the pepper was renewed meanwhile"));
                    }
                    tx.remove(Kind::Token, &token.key())?;
                }
                for code in &codes {
                    tx.remove(Kind::SignInCode, &code.key())?;
                }
                tx.remove(Kind::Pepper, &number_key(id))?;
                tx.append(draft.clone());
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(true)
    }

    /// Empties the write-ahead log, now or at the next sweep, so that nothing that was replaced stays in a file; says
    /// whether it is empty.
    pub(crate) async fn scrub_old(&self) -> bool {
        self.scrub_soon().await;
        !self.inner.scrub_due.load(Ordering::Relaxed)
    }
}

impl Rekeying {
    fn lock_redigests(&self) -> std::sync::MutexGuard<'_, BTreeMap<TokenId, Redigest>> {
        self.redigests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_key_redigests(&self) -> std::sync::MutexGuard<'_, BTreeMap<IssuedKeyId, KeyRedigest>> {
        self.key_redigests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a digest under a pepper that was replaced while it was made; the caller decides again.
pub(crate) fn check_pepper(tx: &Tx<'_>, pepper: u32) -> Result<(), StoreError> {
    let peppers = tx.rows_with_prefix(Kind::Pepper, "", usize::MAX)?;
    match peppers.last().is_some_and(|newest| newest.key == number_key(pepper)) {
        true => Ok(()),
        false => Err(StoreError::Stale),
    }
}

/// Whose data key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    environment: Environment,
    company: Option<Company>,
}

impl Place {
    fn of(key: DataKeyEntity) -> Self {
        Self { environment: key.environment, company: key.company }
    }

    fn is_of(&self, key: &DataKeyEntity) -> bool {
        self.environment == key.environment && self.company == key.company
    }

    fn describe(&self, deed: Deed) -> Deed {
        deed.detail("environment", AuditText::new(self.environment.as_str()))
            .detail("company", AuditText::new(company_text(self.company.as_ref())))
    }

    fn no_key(&self) -> VaultError {
        let place = match &self.company {
            Some(company) => format!("`{company}` in `{}`", self.environment),
            None => format!("`{}`", self.environment),
        };
        VaultError::not_found(format!("{place} has no data key yet: nothing was ever stored there"))
    }
}

/// Retires the active data key of a place and makes a new one.
fn replace_data_key(
    tx: &mut Tx<'_>,
    keyring: &Keyring,
    place: &Place,
    now: Timestamp,
) -> Result<(), VaultError> {
    let rows = tx.rows_with_prefix(Kind::DataKey, "", usize::MAX)?;
    let mut found = false;
    for row in &rows {
        let mut key = DataKeyEntity::parse(row)?;
        if key.active && place.is_of(&key) {
            key.active = false;
            tx.put(Kind::DataKey, &row.key, &key.body(), row.blob.as_deref())?;
            found = true;
        }
    }
    if !found {
        return Err(place.no_key());
    }
    let id = next_number(&rows);
    put_data_key(tx, keyring, id, place.environment.clone(), place.company.clone(), now)?;
    Ok(())
}

/// What encrypting a version anew needs inside of its transaction.
struct Reencryption {
    keyring: Arc<Keyring>,
    old: Arc<BTreeSet<u32>>,
    active: Arc<DataKey>,
    part: SystemPart,
}

impl Reencryption {
    /// Encrypts one version anew; says whether it was there and under an old key.
    fn version(&self, tx: &mut Tx<'_>, key: &str, secret: Option<&Secret>) -> Result<bool, VaultError> {
        let Some(row) = tx.row(Kind::Version, key)? else { return Ok(false) };
        let mut version = VersionEntity::parse(&row)?;
        if !self.old.contains(&version.data_key) {
            return Ok(false);
        }
        let secret =
            secret.ok_or_else(|| VaultError::damaged(format!("the version `{key}` belongs to no secret")))?;
        let number = version.version;
        let receipt = Vault::system_receipt(self.part.clone(), secret, number);
        let reader = Reader::System(self.part.clone());
        let ciphertext = row.blob.as_deref().unwrap_or_default();
        let value = open_with(&self.keyring, receipt, &reader, secret, number, ciphertext)?;
        let sealed = self.keyring.seal(&self.active, &secret.name, *secret.id.as_uuid(), number, &value);
        version.data_key = self.active.id();
        tx.put(Kind::Version, key, &version.body(), Some(&sealed))?;
        Ok(true)
    }
}

/// Moves a token to the newest pepper, unless it was changed meanwhile.
fn redigest_token(tx: &mut Tx<'_>, id: TokenId, redigest: &Redigest) -> Result<bool, VaultError> {
    let Some(row) = tx.row(Kind::Token, &id.to_string())? else { return Ok(false) };
    let mut token = TokenEntity::parse(&row)?;
    // A token that was presented before one more change of the pepper waits until it is presented again.
    match check_pepper(tx, redigest.pepper) {
        Ok(()) if token.digest == redigest.old_digest => {}
        Ok(()) | Err(StoreError::Stale) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    token.digest.clone_from(&redigest.new_digest);
    token.pepper = redigest.pepper;
    // Who may do what is the same as before, so nobody has to decide again.
    tx.put_count(Kind::Token, &row.key, &token.body())?;
    Ok(true)
}

fn redigest_key(tx: &mut Tx<'_>, id: IssuedKeyId, redigest: &KeyRedigest) -> Result<bool, VaultError> {
    let Some(row) = tx.row(Kind::IssuedKey, &id.to_string())? else { return Ok(false) };
    let mut key = IssuedKey::parse(&row)?;
    match check_pepper(tx, redigest.pepper) {
        Ok(()) if key.pepper == redigest.old_pepper => {}
        Ok(()) | Err(StoreError::Stale) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    key.digest.clone_from(&redigest.new_digest);
    key.pepper = redigest.pepper;
    tx.put_count(Kind::IssuedKey, &row.key, &key.body())?;
    Ok(true)
}

/// Whether a version's row says that it is under one of these data keys.
fn is_under(body: &str, keys: &BTreeSet<u32>) -> bool {
    // A row that cannot be read is kept in the count, so that no key goes while one might depend on it.
    serde_json::from_str::<VersionEntity>(body).map_or(true, |version| keys.contains(&version.data_key))
}

fn parsed<E: crate::entity::Entity>(rows: Vec<Row>) -> Result<Vec<E>, VaultError> {
    rows.iter().map(E::parse).collect()
}

/// One more than the highest number that a row's key spells.
fn next_number(rows: &[Row]) -> u32 {
    rows.iter().filter_map(|row| row.key.parse::<u32>().ok()).max().unwrap_or(0) + 1
}

/// Adds a number of rows. There are far fewer details than the most allowed, so none is lost.
pub(crate) fn add_count(draft: &mut Draft, name: &'static str, count: u64) {
    if let Ok(name) = name.parse() {
        let number = DetailValue::Number(i64::try_from(count).unwrap_or(i64::MAX));
        let added = draft.event.details.insert(name, number);
        debug_assert!(added.is_ok(), "a record has room for every fact that the vault adds");
    }
}

fn rekey_part() -> Result<SystemPart, VaultError> {
    Ok("rekey".parse()?)
}

pub(crate) fn slot_key(id: u32) -> String {
    format!("{id:04}")
}

fn slots_changed() -> VaultError {
    VaultError::conflict("the key slots were changed meanwhile; try again")
}

pub(crate) fn no_slot(id: u32) -> VaultError {
    VaultError::not_found(format!("there is no key slot {id}")).hint("`keymoat rekey list` shows them")
}

pub(crate) const KEYS: &str = "keys";
/// A batch takes a few milliseconds of the writer's time and at most 16 MiB of ciphertext.
const BATCH_ROWS: usize = 256;
/// More ways to open a vault than anybody keeps track of.
const SLOTS_MAX: usize = 16;
/// Keys that wait to be moved to a new pepper; those beyond are noted when they are presented again.
const KEYS_WAITING_MAX: usize = 100_000;
/// What one transaction removes with a pepper; where more have ended, the sweeper takes them away first.
const ENDED_ROWS_MAX: usize = 10_000;

/// Refuses to go on when another node has given the place yet another key.
fn check_is_active(tx: &Tx<'_>, id: u32) -> Result<(), VaultError> {
    let row = tx.row(Kind::DataKey, &number_key(id))?;
    match row.map(|row| DataKeyEntity::parse(&row)).transpose()? {
        Some(key) if key.active => Ok(()),
        _ => Err(VaultError::conflict("the data key was replaced meanwhile, on another node")
            .hint("`keymoat rekey data-key` again takes up what is left under older keys")),
    }
}
