//! The audit log: query, prove, verify, and taking in a host's own sensitive actions.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use keymoat_core::audit::{AuditText, Details, EventFilter};
use keymoat_vault::{AuditQuery, HostEvent, PersonalQuery};

use crate::AppState;
use crate::api::Answer;
use crate::api::secrets::limit_of;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert::{self, as_invalid};
use crate::params::{Names, Params};
use crate::problem::Problem;
use crate::wire;

/// A page of records.
pub(crate) async fn query(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Answer<wire::AuditPage> {
    let limit = limit_of(&params)?;
    let query = query_of(&params, limit)?;
    let oldest_first = query.oldest_first;
    let records = app.vault.query_audit(&caller, query.clone()).await?;
    let archived = app.vault.archive_behind(&query, records.len());
    let last = records.last().filter(|_| records.len() == limit).map(|record| record.event.seq);
    let next = match oldest_first {
        true => last.map(|seq| seq + 1),
        false => last.filter(|seq| *seq > 0),
    };
    Ok(Json(wire::AuditPage {
        events: records.into_iter().map(convert::record).collect::<Result<_, _>>()?,
        next,
        archived: archived.map(|archive| convert::archived_records(&app.vault, &archive)),
    }))
}

/// Writes down a sensitive action of a host program.
pub(crate) async fn record(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::HostEvent>,
) -> Result<(StatusCode, Json<wire::Recorded>), Problem> {
    if sent.action.trim().is_empty() {
        return Err(
            Problem::invalid("`action` is empty").hint("say what was done, such as `payment processed`")
        );
    }
    let details: Details = serde_json::from_value(sent.details.into()).map_err(|_| {
        Problem::invalid(
            "`details` are not short texts, whole numbers and flags under short lower-case names",
        )
    })?;
    let host = HostEvent {
        action: AuditText::new(&sent.action),
        outcome: sent.result.parse().map_err(as_invalid)?,
        details,
    };
    let event = app.vault.record_host_event(&caller, host).await?;
    Ok((StatusCode::CREATED, Json(wire::Recorded { event })))
}

/// Proves that a record is in the signed log.
pub(crate) async fn proof(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(seq): Names<String>,
) -> Answer<wire::Proof> {
    let seq = seq.parse().map_err(|_| Problem::malformed("the number of a record is digits"))?;
    let inclusion = app.vault.prove(&caller, seq).await?;
    Ok(Json(wire::Proof {
        event: convert::record(inclusion.record)?,
        seq,
        checkpoint: inclusion.checkpoint,
        proof: inclusion.proof.iter().map(|hash| BASE64.encode(hash)).collect(),
        key: app.vault.audit_key(),
        archive: None,
    }))
}

/// The newest signed checkpoint.
pub(crate) async fn checkpoint(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<wire::Checkpoint> {
    let (checkpoint, key) = app.vault.checkpoint(&caller).await?;
    Ok(Json(wire::Checkpoint { checkpoint, key }))
}

/// Checks the whole log and every row.
pub(crate) async fn verify(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<wire::Verification> {
    let report = app.vault.verify(&caller).await?;
    Ok(Json(wire::Verification {
        intact: report.problems.is_empty(),
        events: report.events,
        archived: report.archived,
        rows: report.rows,
        problems: report.problems.iter().map(ToString::to_string).collect(),
        checkpoint: report.checkpoint,
    }))
}

/// Erases names, addresses and user agents beside the records.
pub(crate) async fn erase_personal(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::ErasePersonal>,
) -> Answer<wire::PersonalErased> {
    let before = sent.before.map(|text| text.parse()).transpose();
    let query = PersonalQuery {
        account: sent.account.map(|name| name.parse()).transpose().map_err(as_invalid)?,
        before: before.map_err(|_| Problem::invalid(format!("`before` is not {WANTED_TIME}")))?,
    };
    let erased = app.vault.erase_personal(&caller, query).await?;
    Ok(Json(wire::PersonalErased { records: erased.records, event: erased.event }))
}

fn query_of(params: &Params, limit: usize) -> Result<AuditQuery, Problem> {
    Ok(AuditQuery {
        filter: filter_of(params)?,
        account: params.get("account")?,
        before: params.quiet("before", "a number")?,
        from: params.quiet("from", "a number")?.unwrap_or(0),
        oldest_first: params.quiet("oldest_first", "`true` or `false`")?.unwrap_or(false),
        limit,
        follow: params.quiet("follow", "`true` or `false`")?.unwrap_or(false),
    })
}

/// What must hold of the records that are wanted.
pub(crate) fn filter_of(params: &Params) -> Result<EventFilter, Problem> {
    Ok(EventFilter {
        action: params.get("action")?,
        scope: params.get("environment")?,
        company: params.get("company")?,
        path_prefix: params.get("path")?,
        module: params.text("module").map(AuditText::new),
        result: params.get("result")?,
        since: params.quiet("since", WANTED_TIME)?,
        until: params.quiet("until", WANTED_TIME)?,
        ..EventFilter::default()
    })
}

pub(crate) const WANTED_TIME: &str = "a time such as `2027-01-31T12:00:00Z`";
