//! `/healthz`, `/readyz`, `/metrics` and the OpenAPI document: for machines that watch. No names of secrets.

use axum::extract::{Extension, FromRequestParts as _, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, header};

use crate::context::{self, SignedIn};
use crate::custody::Custodian;
use crate::edge::Edge;
use crate::problem::Problem;
use crate::turn::Refused;
use crate::{AppState, CertificateStatus, openapi};

/// The process lives and answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers and takes records. A certificate that does not last, or whose successor could not be taken, makes
/// nobody unready; it stands on a line of its own.
pub(crate) async fn readyz(State(app): State<AppState>) -> Result<String, Problem> {
    app.vault.ready().await?;
    let mut said = "ok\n".to_owned();
    if let Some(CertificateStatus { ends, is_stale }) = app.front.certificate() {
        said.push_str(&format!("certificate: ends {ends}\n"));
        if is_stale {
            said.push_str("certificate: the new one is not taken, the log says why\n");
        }
    }
    Ok(said)
}

/// That nothing is answered, and why when nobody has sealed the server.
pub(crate) async fn readyz_while_sealed(Extension(custodian): Extension<Custodian>) -> Problem {
    let sealed = Problem::sealed();
    match custodian.custody.why_sealed() {
        Some(why) => sealed.because(why),
        None => sealed,
    }
}

/// Counters and histograms in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<AppState>, mut parts: Parts) -> Result<Response, Problem> {
    if !context::may_see_metrics(&parts, &app.front.doors) {
        let SignedIn(caller) = SignedIn::from_request_parts(&mut parts, &()).await?;
        app.vault.permit_metrics(&caller).await?;
    }
    let refused = refused(&parts);
    Ok(as_metrics(app.front.metrics.render(Some(&app.vault), app.front.certificate(), refused)))
}

/// What is left of them while the server is sealed, when nobody can sign in.
pub(crate) async fn metrics_while_sealed(
    State(edge): State<Edge>,
    parts: Parts,
) -> Result<Response, Problem> {
    match context::may_see_metrics(&parts, &edge.front.doors) {
        true => Ok(as_metrics(edge.front.metrics.render(None, edge.front.certificate(), refused(&parts)))),
        false => Err(Problem::sealed()),
    }
}

/// How many had to be refused before anybody looked at what they want; none when nothing listens.
fn refused(parts: &Parts) -> Option<u64> {
    parts.extensions.get::<Refused>().map(Refused::count)
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
