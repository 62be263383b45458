//! Users, service accounts and groups.

use std::collections::BTreeSet;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keymoat_vault::{AccountChange, NewAccount};

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert::{self, as_invalid};
use crate::params::Names;
use crate::problem::Problem;
use crate::wire;

/// The accounts.
pub(crate) async fn list(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<Vec<wire::Account>> {
    let accounts = app.vault.list_accounts(&caller).await?;
    Ok(Json(accounts.iter().map(|account| convert::account(account)).collect()))
}

/// Makes an account.
pub(crate) async fn create(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::CreateAccount>,
) -> Result<(StatusCode, Json<wire::Account>), Problem> {
    let new = NewAccount {
        name: sent.name.parse().map_err(as_invalid)?,
        kind: convert::parse_account_kind(&sent.kind)?,
        description: sent.description,
        policies: names(&sent.policies)?,
        groups: names(&sent.groups)?,
    };
    let account = app.vault.create_account(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(convert::account(&account))))
}

/// An account.
pub(crate) async fn show(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
) -> Answer<wire::Account> {
    let account = app.vault.show_account(&caller, &name.parse()?).await?;
    Ok(Json(convert::account(&account)))
}

/// Changes an account.
pub(crate) async fn update(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
    Sent(sent): Sent<wire::UpdateAccount>,
) -> Answer<wire::Account> {
    let change = AccountChange {
        description: sent.description,
        policies: sent.policies.as_ref().map(names).transpose()?,
        groups: sent.groups.as_ref().map(names).transpose()?,
        active: sent.active,
    };
    let account = app.vault.update_account(&caller, &name.parse()?, change).await?;
    Ok(Json(convert::account(&account)))
}

/// Removes an account with its tokens and grants.
pub(crate) async fn remove(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
) -> Result<StatusCode, Problem> {
    app.vault.delete_account(&caller, &name.parse()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends all that an account may do, and lists the keys that it has seen.
pub(crate) async fn leave(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
) -> Answer<wire::Left> {
    let report = app.vault.leave(&caller, &name.parse()?).await?;
    Ok(Json(wire::Left {
        tokens: report.tokens as u64,
        grants: report.grants as u64,
        seen: convert::names(&report.seen),
    }))
}

fn names<T: FromStr<Err: std::fmt::Display> + Ord>(texts: &BTreeSet<String>) -> Result<BTreeSet<T>, Problem> {
    texts.iter().map(|text| text.parse().map_err(as_invalid)).collect()
}
