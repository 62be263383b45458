//! Environments and companies.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::params::Names;
use crate::wire;

/// The environments that the caller may know.
pub(crate) async fn environments(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<Vec<wire::Place>> {
    let all = app.vault.environments(&caller).await?.into_iter();
    Ok(Json(all.map(|it| place(it.name.to_string(), it.description, it.created_at)).collect()))
}

/// Makes an environment, or describes it.
pub(crate) async fn put_environment(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
    Sent(sent): Sent<wire::PutPlace>,
) -> Answer<wire::Place> {
    let made = app.vault.put_environment(&caller, name.parse()?, sent.description).await?;
    Ok(Json(place(made.name.to_string(), made.description, made.created_at)))
}

/// The companies that the caller may know.
pub(crate) async fn companies(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<Vec<wire::Place>> {
    let all = app.vault.companies(&caller).await?.into_iter();
    Ok(Json(all.map(|it| place(it.name.to_string(), it.description, it.created_at)).collect()))
}

/// Makes a company, or describes it.
pub(crate) async fn put_company(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
    Sent(sent): Sent<wire::PutPlace>,
) -> Answer<wire::Place> {
    let made = app.vault.put_company(&caller, name.parse()?, sent.description).await?;
    Ok(Json(place(made.name.to_string(), made.description, made.created_at)))
}

fn place(name: String, description: String, created_at: Timestamp) -> wire::Place {
    wire::Place { name, description, created_at }
}
