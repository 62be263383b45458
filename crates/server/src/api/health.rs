//! `/healthz`, `/readyz`, `/metrics` and the OpenAPI document: for machines that watch. No names of secrets.

use axum::extract::{FromRequestParts as _, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, header};

use crate::context::{self, SignedIn};
use crate::edge::Edge;
use crate::problem::Problem;
use crate::{AppState, openapi};

/// The process lives and answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers and takes records.
pub(crate) async fn readyz(State(app): State<AppState>) -> Result<&'static str, Problem> {
    app.vault.ready().await?;
    Ok("ok\n")
}

/// Counters and histograms in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<AppState>, mut parts: Parts) -> Result<Response, Problem> {
    if !context::may_see_metrics(&parts, &app.front.doors) {
        let SignedIn(caller) = SignedIn::from_request_parts(&mut parts, &()).await?;
        app.vault.permit_metrics(&caller).await?;
    }
    Ok(as_metrics(app.front.metrics.render(Some(&app.vault))))
}

/// What is left of them while the server is sealed, when nobody can sign in.
pub(crate) async fn metrics_while_sealed(
    State(edge): State<Edge>,
    parts: Parts,
) -> Result<Response, Problem> {
    match context::may_see_metrics(&parts, &edge.front.doors) {
        true => Ok(as_metrics(edge.front.metrics.render(None))),
        false => Err(Problem::sealed()),
    }
}

fn as_metrics(text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(PROMETHEUS))], text).into_response()
}

/// The OpenAPI document.
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], openapi::text()).into_response()
}

/// Prometheus' exposition format 0.0.4.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
