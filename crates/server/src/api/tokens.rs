//! Tokens and one-time sign-in codes.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use jiff::SignedDuration;
use keymoat_core::names::AccountName;
use keymoat_vault::{IssuedToken, NewToken};

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert;
use crate::params::{Names, Params};
use crate::problem::Problem;
use crate::wire::{self, WireSecret};

/// Makes a token.
pub(crate) async fn create(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
    Sent(sent): Sent<wire::CreateToken>,
) -> Result<(StatusCode, Json<wire::IssuedToken>), Problem> {
    let networks = sent.networks.iter().map(|network| network.parse());
    let new = NewToken {
        account: name.parse()?,
        description: sent.description,
        ttl: seconds(sent.ttl_secs),
        renewable_for: sent.renewable_secs.map(seconds),
        uses: sent.uses,
        networks: networks
            .collect::<Result<_, _>>()
            .map_err(|_| Problem::invalid("one of `networks` is not a network such as `192.0.2.0/24`"))?,
    };
    let token = app.vault.create_token(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(issued(&app, token))))
}

/// Makes a one-time sign-in code.
pub(crate) async fn sign_in_code(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
) -> Result<(StatusCode, Json<wire::NewCode>), Problem> {
    let code = app.vault.create_sign_in_code(&caller, &name.parse()?).await?;
    Ok((StatusCode::CREATED, Json(wire::NewCode { code: WireSecret(code.text().duplicate()) })))
}

/// Tokens, never the tokens themselves.
pub(crate) async fn list(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Answer<Vec<wire::Token>> {
    let account: Option<AccountName> = params.get("account")?;
    let tokens = app.vault.list_tokens(&caller, account.as_ref()).await?;
    let name = |token: &keymoat_vault::entity::TokenEntity| app.vault.account_name(token.principal);
    Ok(Json(tokens.iter().map(|token| convert::token(token, name(token))).collect()))
}

/// Ends a token.
pub(crate) async fn revoke(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(id): Names<String>,
) -> Result<StatusCode, Problem> {
    let id = id.parse().map_err(|error| Problem::malformed(format!("{error}")))?;
    app.vault.revoke_token(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Prolongs the caller's own token.
pub(crate) async fn renew(State(app): State<AppState>, SignedIn(caller): SignedIn) -> Answer<wire::Token> {
    let token = app.vault.renew_token(&caller).await?;
    Ok(Json(convert::token(&token, Some(caller.name))))
}

/// A token that was just made.
pub(crate) fn issued(app: &AppState, issued: IssuedToken) -> wire::IssuedToken {
    let name = app.vault.account_name(issued.entity.principal);
    wire::IssuedToken {
        token: WireSecret(issued.token.text().duplicate()),
        about: convert::token(&issued.entity, name),
    }
}

/// So many seconds; more than can be counted is as much as can be.
pub(crate) fn seconds(count: u64) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(count).unwrap_or(i64::MAX))
}
