//! Archiving old records of the audit log: they are handed out first, and taken away when the client has shown that it
//! has them.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keymoat_core::audit::AuditText;
use keymoat_vault::ArchiveClaim;

use crate::AppState;
use crate::api::Answer;
use crate::api::audit::WANTED_TIME;
use crate::api::audit_export::{lines, streamed};
use crate::body::Sent;
use crate::context::SignedIn;
use crate::params::Params;
use crate::problem::Problem;
use crate::wire;

/// The records that may be archived.
pub(crate) async fn begin(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Result<Response, Problem> {
    let before = params.quiet("before", WANTED_TIME)?;
    let before = before.ok_or_else(|| Problem::malformed("the query lacks `before`"))?;
    let export = app.vault.begin_archive(&caller, before).await?;
    streamed(&app, export).await
}

/// The names and addresses beside records.
pub(crate) async fn personal(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Result<Response, Problem> {
    let number = |name: &str| {
        let number = params.quiet(name, "a number")?;
        number.ok_or_else(|| Problem::malformed(format!("the query lacks `{name}`")))
    };
    Ok(lines(app.vault.personal_of_archive(&caller, number("start")?, number("end")?).await?))
}

/// Takes away what a client keeps.
pub(crate) async fn finish(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::ArchiveClaim>,
) -> Answer<wire::Archived> {
    let root = BASE64.decode(&sent.root).ok().and_then(|bytes| bytes.try_into().ok());
    let root = root.ok_or_else(|| Problem::invalid("`root` is not 32 bytes in base64"))?;
    let reason = sent.reason.as_deref().map(AuditText::new);
    let archived = app.vault.finish_archive(&caller, ArchiveClaim { end: sent.end, root, reason }).await?;
    Ok(Json(wire::Archived { end: archived.end, dropped: archived.dropped, kept: archived.kept }))
}
