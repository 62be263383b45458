//! The vault's own keys: slots, the root key, data keys, peppers. What opens the vault is taken only from this machine, never from
//! the network.

use std::ops::ControlFlow;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use http::StatusCode;
use http::request::Parts;
use keymoat_crypto::{Argon2Params, MasterKey, Share};
use keymoat_vault::entity::{self, SlotSource};
use keymoat_vault::{Caller, KeyReport, MasterKeyOffer, NewSlot};

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::context::{Peer, SignedIn};
use crate::convert::as_invalid;
use crate::params::Names;
use crate::problem::Problem;
use crate::wire;

/// What stands of the vault's own keys; never a key.
pub(crate) async fn list(State(app): State<AppState>, SignedIn(caller): SignedIn) -> Answer<wire::Keys> {
    Ok(Json(keys(app.vault.list_keys(&caller).await?)))
}

/// Adds a way to open the vault, having seen that the caller has one.
pub(crate) async fn add_slot(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    door: Door,
    Sent(sent): Sent<wire::AddSlot>,
) -> Result<(StatusCode, Json<wire::Slot>), Problem> {
    door.check(&app, &caller, "slots").await?;
    let master = MasterKey::parse(&sent.master.0).map_err(as_invalid)?;
    let new = NewSlot { source: source(&sent)?, master };
    let added = app.vault.add_slot(&caller, new, &offer(sent.proof)?).await?;
    Ok((StatusCode::CREATED, Json(slot(&added))))
}

/// Removes a way to open the vault, having seen that another one opens it.
pub(crate) async fn remove_slot(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    door: Door,
    Names(id): Names<String>,
    Sent(sent): Sent<wire::KeyOffer>,
) -> Result<StatusCode, Problem> {
    door.check(&app, &caller, "slots").await?;
    let id = id.parse().map_err(|_| Problem::malformed("the number of a slot is digits"))?;
    app.vault.remove_slot(&caller, id, &offer(sent)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives the vault a new root key. Goes on when the client goes away.
pub(crate) async fn root(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    door: Door,
    Sent(sent): Sent<wire::RotateRoot>,
) -> Answer<wire::RootRotated> {
    door.check(&app, &caller, "root").await?;
    let keep = sent.keep.into_iter().map(|kept| Ok((kept.slot, offer(kept.offer)?)));
    let keep = keep.collect::<Result<Vec<_>, Problem>>()?;
    let vault = app.vault.clone();
    let job =
        tokio::spawn(async move { vault.rotate_root(&caller, keep, sent.drop.into_iter().collect()).await });
    let rotated = job.await.map_err(|_| Problem::internal())??;
    Ok(Json(wire::RootRotated {
        kept: rotated.kept.iter().map(slot).collect(),
        dropped: rotated.dropped.iter().map(slot).collect(),
        data_keys: rotated.data_keys,
        peppers: rotated.peppers,
        rows_under_old_root: rotated.rows_under_old_root,
        scrubbed: rotated.scrubbed,
    }))
}

/// Gives a place a new data key and encrypts everything there anew. Goes on when the client goes away.
pub(crate) async fn data_key(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::RotateDataKey>,
) -> Answer<wire::DataKeyRotated> {
    let environment = sent.environment.parse().map_err(as_invalid)?;
    let company = sent.company.as_deref().map(str::parse).transpose().map_err(as_invalid)?;
    let vault = app.vault.clone();
    let job = tokio::spawn(async move {
        vault.rotate_data_key(&caller, &environment, company.as_ref(), |_| ControlFlow::Continue(())).await
    });
    let rotated = job.await.map_err(|_| Problem::internal())??;
    Ok(Json(wire::DataKeyRotated {
        environment: rotated.environment.to_string(),
        company: rotated.company.as_ref().map(ToString::to_string),
        active: rotated.active,
        reencrypted: rotated.reencrypted,
        ended: rotated.ended,
        rows_under_old_keys: rotated.rows_under_old_keys,
        scrubbed: rotated.scrubbed,
    }))
}

/// Gives the digests of tokens a new pepper.
pub(crate) async fn pepper(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<wire::PepperRotated> {
    let rotated = app.vault.rotate_pepper(&caller).await?;
    Ok(Json(wire::PepperRotated {
        newest: rotated.newest,
        digests_under_old_peppers: rotated.digests_under_old_peppers as u64,
    }))
}

/// Whether a request came through the socket or in process.
pub(crate) struct Door {
    is_of_this_machine: bool,
}

impl<S: Sync> FromRequestParts<S> for Door {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>();
        Ok(Self { is_of_this_machine: matches!(peer, Some(Peer::OsUser { .. } | Peer::Local)) })
    }
}

impl Door {
    /// Refuses what came over the network; that is on record.
    async fn check(&self, app: &AppState, caller: &Caller, keys: &str) -> Result<(), Problem> {
        match self.is_of_this_machine {
            true => Ok(()),
            false => Err(app.vault.refuse_remote_key(caller, keys).await.into()),
        }
    }
}

fn source(sent: &wire::AddSlot) -> Result<SlotSource, Problem> {
    match (sent.kind.as_str(), &sent.argon2, sent.needed, sent.shares) {
        ("key", None, None, None) => Ok(SlotSource::Key),
        ("passphrase", Some(argon2), None, None) => {
            let argon2: Argon2Params = serde_json::from_value(argon2.clone())
                .map_err(|_| Problem::invalid("`argon2` does not say how a passphrase was stretched"))?;
            Ok(SlotSource::Passphrase { argon2 })
        }
        ("shamir", None, Some(needed), Some(count)) if needed >= 2 && count >= needed => {
            Ok(SlotSource::Shamir { needed, count })
        }
        _ => Err(Problem::invalid(
            "`kind` is `key`, `passphrase` with `argon2`, or `shamir` with `needed` (at least 2) and `shares`",
        )),
    }
}

/// What a client offers, as the front desk takes it.
pub(crate) fn offer(sent: wire::KeyOffer) -> Result<MasterKeyOffer, Problem> {
    Ok(match sent {
        wire::KeyOffer::Key(text) => MasterKeyOffer::Key(text.0),
        wire::KeyOffer::Passphrase(text) => MasterKeyOffer::Passphrase(text.0),
        wire::KeyOffer::Shares(shares) => {
            let shares = shares.iter().map(|share| Share::parse(&share.0)).collect::<Result<_, _>>();
            MasterKeyOffer::Shares(shares.map_err(as_invalid)?)
        }
    })
}

fn keys(report: KeyReport) -> wire::Keys {
    let data_key = |key: &entity::DataKeyEntity| wire::DataKey {
        id: key.id,
        environment: key.environment.to_string(),
        company: key.company.as_ref().map(ToString::to_string),
        created_at: key.created_at,
        active: key.active,
    };
    let pepper = |report: &keymoat_vault::PepperReport| wire::Pepper {
        id: report.pepper.id,
        created_at: report.pepper.created_at,
        digests: report.digests as u64,
    };
    wire::Keys {
        slots: report.slots.iter().map(slot).collect(),
        data_keys: report.data_keys.iter().map(data_key).collect(),
        peppers: report.peppers.iter().map(pepper).collect(),
    }
}

fn slot(slot: &entity::Slot) -> wire::Slot {
    let (needed, shares) = match slot.source {
        SlotSource::Shamir { needed, count } => (Some(needed), Some(count)),
        SlotSource::Key | SlotSource::Passphrase { .. } => (None, None),
    };
    wire::Slot {
        id: slot.id,
        kind: slot.source.name().to_owned(),
        needed,
        shares,
        created_at: slot.created_at,
    }
}
