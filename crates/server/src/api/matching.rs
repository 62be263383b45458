//! Which texts are stored values, and a sieve that tells most of them before they are sent.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keymoat_core::names::{Environment, Field};
use keymoat_crypto::SecretBytes;

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert::as_invalid;
use crate::problem::Problem;
use crate::wire;

/// Which of some texts are stored values.
pub(crate) async fn matches(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::Candidates>,
) -> Answer<wire::Matches> {
    let environment = environment(sent.environment.as_deref())?;
    let candidates: Vec<SecretBytes> = sent.candidates.into_iter().map(|candidate| candidate.0).collect();
    let found = app.vault.matching(&caller, environment.as_ref(), &candidates).await?;
    let matches = found.into_iter().map(|found| {
        let (secret, field) = found.at.unzip();
        let field = field.flatten().map(|field: Field| field.to_string());
        wire::Match { candidate: found.candidate, secret: secret.map(|name| name.to_string()), field }
    });
    Ok(Json(wire::Matches { matches: matches.collect() }))
}

/// What tells most texts that they are no stored values.
pub(crate) async fn sieve(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(ask): Sent<wire::SieveAsk>,
) -> Answer<wire::Sieve> {
    let environment = environment(ask.environment.as_deref())?;
    let sifted = app.vault.sieve(&caller, environment.as_ref(), ask.unless).await?;
    let (sieve, values) = sifted.sieve.unzip();
    let sieve = sieve.map(|sieve| BASE64.encode(sieve.to_bytes()));
    Ok(Json(wire::Sieve { change: sifted.change, values, sieve }))
}

fn environment(name: Option<&str>) -> Result<Option<Environment>, Problem> {
    name.map(str::parse).transpose().map_err(as_invalid)
}
