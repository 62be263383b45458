//! How the server is, who the caller is, and signing in with a one-time code.

use axum::Json;
use axum::extract::{Extension, State};

use crate::AppState;
use crate::api::Answer;
use crate::api::tokens;
use crate::body::Sent;
use crate::context::{Circumstances, MaybeSignedIn, SignedIn};
use crate::custody::Custodian;
use crate::wire;

/// How the server is. Nobody in particular learns only whether it works.
pub(crate) async fn status(
    State(app): State<AppState>,
    MaybeSignedIn(caller): MaybeSignedIn,
) -> Answer<wire::Status> {
    let vault = &app.vault;
    let counts = caller.is_some().then(|| vault.counts()).map(|counts| wire::StatusCounts {
        environments: counts.environments as u64,
        companies: counts.companies as u64,
        secrets: counts.secrets as u64,
        accounts: counts.accounts as u64,
        tokens: counts.tokens as u64,
        grants: counts.grants as u64,
        sign_in_codes: counts.sign_in_codes as u64,
        issued_keys: counts.issued_keys as u64,
    });
    let stopped = match caller {
        Some(_) => vault.stopped().map(str::to_owned),
        None => vault.stopped().map(|_| "the store has stopped itself".to_owned()),
    };
    let database = match caller {
        Some(_) => vault.database_health().await?,
        None => None,
    };
    Ok(Json(wire::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: vault.instance().to_string(),
        sealed: false,
        stopped,
        clock_behind_secs: vault.clock_behind_secs(),
        counts,
        database: database.map(|health| wire::DatabaseStatus {
            address: health.address,
            version: health.version,
            syncs: health.syncs,
            waits_for: health.waits_for,
            standbys: health.standbys,
            waited_for: health.waited_for,
        }),
    }))
}

/// How a sealed server is: sealed, and why when nobody sealed it.
pub(crate) async fn status_while_sealed(Extension(custodian): Extension<Custodian>) -> Json<wire::Status> {
    Json(wire::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: custodian.custody.instance().to_string(),
        sealed: true,
        stopped: custodian.custody.why_sealed().map(str::to_owned),
        clock_behind_secs: 0,
        counts: None,
        database: None,
    })
}

/// Who the caller is.
pub(crate) async fn whoami(SignedIn(caller): SignedIn) -> Answer<wire::WhoAmI> {
    Ok(Json(wire::WhoAmI {
        account: caller.name.to_string(),
        kind: caller.kind.as_str().to_owned(),
        token: caller.token.map(|token| token.to_string()),
    }))
}

/// Exchanges a one-time code for a token.
pub(crate) async fn sign_in_code(
    State(app): State<AppState>,
    Circumstances(origin): Circumstances,
    Sent(sent): Sent<wire::CodeSignIn>,
) -> Answer<wire::IssuedToken> {
    // What another node has just made or taken counts here.
    app.vault.fresh().await?;
    let issued = app.vault.sign_in_with_code(&sent.code.0, origin).await?;
    Ok(Json(tokens::issued(&app, issued)))
}
