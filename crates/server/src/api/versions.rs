//! Moving a secret between its versions: roll back, promote, label, undelete, destroy.

use axum::Json;
use axum::extract::State;

use crate::AppState;
use crate::api::Answer;
use crate::api::secrets::name_of;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert;
use crate::params::{Names, Params};
use crate::wire;

type SecretNames = Names<(String, String)>;

/// Makes an older version current.
pub(crate) async fn rollback(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): SecretNames,
    params: Params,
    Sent(sent): Sent<wire::OneVersion>,
) -> Answer<wire::Secret> {
    let secret = app.vault.rollback(&caller, &name_of(names, &params)?, sent.version).await?;
    Ok(Json(convert::secret_for(&app.vault, &caller, &secret)))
}

/// Makes the pending version current.
pub(crate) async fn promote(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): SecretNames,
    params: Params,
) -> Answer<wire::Secret> {
    let secret = app.vault.promote(&caller, &name_of(names, &params)?).await?;
    Ok(Json(convert::secret_for(&app.vault, &caller, &secret)))
}

/// Moves a label, or takes it away.
pub(crate) async fn label(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): SecretNames,
    params: Params,
    Sent(sent): Sent<wire::SetLabel>,
) -> Answer<wire::Secret> {
    let label = sent.label.parse().map_err(convert::as_invalid)?;
    let secret = app.vault.label(&caller, &name_of(names, &params)?, label, sent.version).await?;
    Ok(Json(convert::secret_for(&app.vault, &caller, &secret)))
}

/// Brings deleted versions back.
pub(crate) async fn undelete(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): SecretNames,
    params: Params,
    Sent(sent): Sent<wire::SomeVersions>,
) -> Answer<wire::Secret> {
    let secret = app.vault.undelete(&caller, &name_of(names, &params)?, sent.versions).await?;
    Ok(Json(convert::secret_for(&app.vault, &caller, &secret)))
}

/// Destroys versions for good.
pub(crate) async fn destroy(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): SecretNames,
    params: Params,
    Sent(sent): Sent<wire::SomeVersions>,
) -> Answer<wire::Secret> {
    let secret = app.vault.destroy(&caller, &name_of(names, &params)?, sent.versions).await?;
    Ok(Json(convert::secret_for(&app.vault, &caller, &secret)))
}
