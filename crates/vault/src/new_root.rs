//! Taking up a root key that another node has put in place.
//!
//! The new root key stands in the slots, under master keys that a running node has let go of. So the place where the
//! master key came from is asked again. Who finds nothing there, or what opens no slot, can unwrap no key that is made
//! from now on, and must not go on with those in its memory: the store is stopped, and whoever serves the vault seals it.
//! Whether the change was allowed is not asked here: the store has compared its rows with the records that wrote them.

use std::sync::Arc;

use keymoat_store::{Effect, Kind, Row};
use uuid::Uuid;

use crate::entity::{Entity as _, Slot, SlotSource};
use crate::keyring::Keyring;
use crate::open::unwrap_root;
use crate::{Code, MasterKeyOffer, VaultError};

/// Finds the master key again where it is kept, without asking anybody: for the vault of this id, with slots of these
/// sources. None when somebody has to bring it; an error, in words, when it cannot be had.
pub type KeyAtHand = Arc<dyn Fn(Uuid, &[SlotSource]) -> Result<Option<MasterKeyOffer>, String> + Send + Sync>;

/// Unwraps the root key of the changes of another node if it is not the one in memory.
pub(crate) fn take_up(
    effects: &[Effect],
    keyring: &Keyring,
    key_at_hand: Option<&KeyAtHand>,
) -> Result<(), VaultError> {
    let Some(instance) = rows(effects, Kind::Instance).find(|row| !keyring.has_root_of(row)) else {
        return Ok(());
    };
    // Whoever changes the root key writes every slot anew, after the instance's row: all that there are come with it.
    let slots = rows(effects, Kind::Slot)
        .map(|row| Ok((Slot::parse(row)?, row.blob.clone().unwrap_or_default())))
        .collect::<Result<Vec<_>, VaultError>>()?;
    let sources: Vec<SlotSource> = slots.iter().map(|(slot, _)| slot.source.clone()).collect();
    let found = key_at_hand.map_or(Ok(None), |find| find(keyring.instance(), &sources));
    let offer = found.map_err(|why| lost(&why))?.ok_or_else(|| lost(BROUGHT_BY_HAND))?;
    let root = unwrap_root(keyring.instance(), &slots, &offer).map_err(|error| lost(&error.message))?;
    keyring.take_up(root, instance)?;
    tracing::warn!("the root key was changed on another node, and is taken up");
    Ok(())
}

fn rows(effects: &[Effect], kind: Kind) -> impl Iterator<Item = &Row> {
    effects.iter().filter_map(move |effect| match effect {
        Effect::Written(row) if row.kind == kind => Some(row),
        _ => None,
    })
}

fn lost(why: &str) -> VaultError {
    VaultError::new(Code::Sealed, format!("the root key was changed on another node: {why}"))
}

const BROUGHT_BY_HAND: &str =
    "what opens the vault was brought by hand and is not kept; unseal it with that again";
