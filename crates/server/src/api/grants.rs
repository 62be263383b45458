//! Grants: permission that ends by itself.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keymoat_core::audit::AuditText;
use keymoat_core::id::GrantId;
use keymoat_core::names::AccountName;
use keymoat_core::policy::{MAX_RULES_IN_GRANT, Rule};
use keymoat_vault::NewGrant;

use crate::AppState;
use crate::api::Answer;
use crate::api::policies::wrong_document;
use crate::api::tokens::seconds;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert::{self, as_invalid};
use crate::params::{Names, Params};
use crate::problem::Problem;
use crate::wire;

/// Grants, newest last.
pub(crate) async fn list(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Answer<Vec<wire::Grant>> {
    let account: Option<AccountName> = params.get("account")?;
    let grants = app.vault.list_grants(&caller, account.as_ref()).await?;
    Ok(Json(grants.iter().map(|grant| convert::grant(&app.vault, grant)).collect::<Result<_, _>>()?))
}

/// Makes a grant.
pub(crate) async fn create(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::CreateGrant>,
) -> Result<(StatusCode, Json<wire::Grant>), Problem> {
    if sent.rules.len() > MAX_RULES_IN_GRANT {
        return Err(Problem::invalid(format!("a grant has at most {MAX_RULES_IN_GRANT} rules")));
    }
    let rules = sent.rules.into_iter().map(serde_json::from_value::<Rule>);
    let new = NewGrant {
        account: sent.account.parse().map_err(as_invalid)?,
        rules: rules.collect::<Result<_, _>>().map_err(wrong_document)?,
        starts_at: sent.starts_at,
        lasts: seconds(sent.lasts_secs),
        uses: sent.uses,
        reason: AuditText::new(&sent.reason),
        break_glass: sent.break_glass,
    };
    let grant = app.vault.create_grant(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(convert::grant(&app.vault, &grant)?)))
}

/// Approves a grant that waits.
pub(crate) async fn approve(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(id): Names<String>,
) -> Answer<wire::Grant> {
    let grant = app.vault.approve_grant(&caller, id_of(&id)?).await?;
    Ok(Json(convert::grant(&app.vault, &grant)?))
}

/// Ends a grant.
pub(crate) async fn revoke(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(id): Names<String>,
) -> Answer<wire::Grant> {
    let grant = app.vault.revoke_grant(&caller, id_of(&id)?).await?;
    Ok(Json(convert::grant(&app.vault, &grant)?))
}

fn id_of(text: &str) -> Result<GrantId, Problem> {
    text.parse().map_err(|error| Problem::malformed(format!("{error}")))
}
