//! Sealing, and opening what was sealed. Whoever holds the master key may unseal: nobody can sign in before.

use axum::Json;
use axum::extract::{Extension, FromRequestParts, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::request::Parts;
use keymoat_vault::{Code, Nearness, VaultError};

use crate::AppState;
use crate::api::Answer;
use crate::api::rekey::offer;
use crate::body::Sent;
use crate::context::{Circumstances, Peer, SignedIn};
use crate::custody::{AfterSealing, Custodian, Progress, Unsealer, not_sealed};
use crate::problem::Problem;
use crate::wire;

/// Seals the server. Goes on when the client goes away, since it is on record that it happens.
pub(crate) async fn seal(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    custodian: Option<Extension<Custodian>>,
) -> Result<Response, Problem> {
    let vault = app.vault.clone();
    let job = tokio::spawn(async move {
        vault.record_seal(&caller, custodian.is_some()).await?;
        Ok::<_, Problem>(custodian.map(|Extension(custodian)| custodian.custody.begin_sealing()))
    });
    let sealings = job.await.map_err(|_| Problem::internal())??;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(sealings) = sealings {
        response.extensions_mut().insert(AfterSealing(sealings));
    }
    Ok(response)
}

/// That the server is not sealed.
pub(crate) async fn is_open() -> Json<wire::Unsealing> {
    Json(open())
}

/// What an open server says to whoever wants to unseal it.
pub(crate) async fn not_sealed_here() -> Problem {
    not_sealed()
}

/// How far unsealing is, and what opens the vault.
pub(crate) async fn unsealing(Extension(custodian): Extension<Custodian>) -> Answer<wire::Unsealing> {
    Ok(Json(state(&custodian).await?))
}

/// Takes a master key, or shares of one.
pub(crate) async fn unseal(
    Extension(custodian): Extension<Custodian>,
    Circumstances(origin): Circumstances,
    Door(from, os_user): Door,
    Sent(sent): Sent<wire::KeyOffer>,
) -> Answer<wire::Unsealing> {
    let progress = custodian.custody.unseal(offer(sent)?, Unsealer { from, os_user, origin }).await?;
    match progress {
        Progress::Open => Ok(Json(open())),
        Progress::Waits { given, needed } => {
            let state = state(&custodian).await?;
            Ok(Json(wire::Unsealing { shares: vec![wire::SharesGiven { given, needed }], ..state }))
        }
    }
}

/// Forgets the shares that were given: who stands at the machine may ask for it, or anybody on the network could keep
/// the others from ever having enough.
pub(crate) async fn reset(
    Extension(custodian): Extension<Custodian>,
    Door(from, _): Door,
) -> Answer<wire::Unsealing> {
    if from != Nearness::ThisMachine {
        return Err(VaultError::new(Code::Refused, "shares are forgotten only on the vault's own machine")
            .hint("they are forgotten by themselves ten minutes after the last one")
            .into());
    }
    custodian.custody.reset().await;
    Ok(Json(state(&custodian).await?))
}

fn open() -> wire::Unsealing {
    wire::Unsealing { sealed: false, opens_with: Vec::new(), shares: Vec::new() }
}

async fn state(custodian: &Custodian) -> Result<wire::Unsealing, Problem> {
    let Some((slots, shares)) = custodian.custody.unsealing().await? else { return Ok(open()) };
    let slots =
        slots.into_iter().map(|slot| wire::OpensWith { kind: slot.kind.to_owned(), needed: slot.needed });
    let shares = shares.into_iter().map(|(given, needed)| wire::SharesGiven { given, needed });
    Ok(wire::Unsealing { sealed: true, opens_with: slots.collect(), shares: shares.collect() })
}

/// From where an offer comes, and which user of the operating system makes it.
pub(crate) struct Door(Nearness, Option<String>);

impl<S: Sync> FromRequestParts<S> for Door {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(match parts.extensions.get::<Peer>() {
            Some(Peer::OsUser { name }) => Self(Nearness::ThisMachine, Some(name.clone())),
            Some(Peer::Local) => Self(Nearness::ThisMachine, None),
            Some(Peer::Tcp { .. }) | None => Self(Nearness::Network, None),
        })
    }
}
