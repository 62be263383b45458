//! Requests that may be sent again: the header `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! The first request under a key is done, and its answer remembered for a day; the same one again gets that answer, as
//! long as the caller is allowed what it needs. Who is not claims nothing: the handler refuses him.
//! Routes whose answers hold a value refuse the header: such an answer is not kept anywhere.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use keymoat_core::names::Scope;
use keymoat_core::policy::Resource;
use keymoat_vault::{Attempt, Caller, Code, RequestNeeds};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

use crate::AppState;
use crate::body;
use crate::dispatch::Handler;
use crate::params::Params;
use crate::problem::Problem;
use crate::routes::{Needs, Repeat, Route};

/// What is remembered of an answer.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    status: u16,
    etag: Option<String>,
    body: serde_json::Value,
}

/// Answers a request, from memory when it was answered before.
pub(crate) async fn answer(
    app: &AppState,
    route: &Route,
    request: Request,
    handler: &Handler<AppState>,
) -> Result<Response, Problem> {
    let key = match key_of(request.headers())? {
        None => return Ok(handler(request, app.clone()).await),
        Some(key) => key,
    };
    match route.repeat {
        Repeat::Harmless => Ok(handler(request, app.clone()).await),
        Repeat::Never => Err(Problem::malformed("this route takes no `Idempotency-Key`")
            .hint("its answer holds a value, and such an answer is not kept")),
        // On the heap, so that who sends no key does not carry it along.
        Repeat::Remembered => Box::pin(remembered(app, route, key, request, handler)).await,
    }
}

async fn remembered(
    app: &AppState,
    route: &Route,
    key: String,
    request: Request,
    handler: &Handler<AppState>,
) -> Result<Response, Problem> {
    let (asked, request) = Asked::of(app, route, key, request).await?;
    let attempt = match &asked.needs {
        Some(needs) => app.vault.claim(&asked.caller, &asked.key, &asked.parts(), needs).await?,
        None => Attempt::NotAllowed,
    };
    let is_claimed = match attempt {
        Attempt::Answered(answer) => return replay(answer),
        Attempt::First => true,
        Attempt::NotAllowed => false,
    };
    // The client may go away meanwhile; its next attempt is to find the answer all the same.
    let answering = handler(request, app.clone());
    let work = async move {
        let response = answering.await;
        // What was not allowed a moment ago and was done all the same is not done a second time either.
        if is_claimed || response.status().is_success() { asked.keep(response).await } else { Ok(response) }
    };
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|_| Err(Problem::internal()))
}

/// A request under a key: everything that makes it what it is.
struct Asked {
    app: AppState,
    caller: Caller,
    key: String,
    parts: [Vec<u8>; 5],
    /// What it needs; none when a name in it cannot be read, which its handler refuses.
    needs: Option<RequestNeeds>,
}

impl Asked {
    async fn of(
        app: &AppState,
        route: &Route,
        key: String,
        request: Request,
    ) -> Result<(Self, Request), Problem> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::internal)?;
        let body = body::read(&parts, body).await?;
        let header = |name| parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default().to_vec();
        let asked = [
            parts.method.as_str().as_bytes().to_vec(),
            parts.uri.to_string().into_bytes(),
            header(header::IF_MATCH),
            header(header::IF_NONE_MATCH),
            body.to_vec(),
        ];
        let needs = needs_of(route, &parts, &body);
        let request = Request::from_parts(parts, Body::from(body));
        Ok((Self { app: app.clone(), caller, key, parts: asked, needs }, request))
    }

    fn parts(&self) -> Vec<&[u8]> {
        self.parts.iter().map(Vec::as_slice).collect()
    }

    /// Remembers what was done; lets go of the key when nothing was. When nobody knows, the key stays claimed, so that
    /// it is not done twice.
    async fn keep(&self, response: Response) -> Result<Response, Problem> {
        let status = response.status();
        let is_unavailable = |problem: &Problem| problem.code == Code::Unavailable.as_str();
        if status.is_client_error() || response.extensions().get().is_some_and(is_unavailable) {
            self.app.vault.forget(&self.caller, &self.key).await?;
            return Ok(response);
        }
        if !status.is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map_err(|_| Problem::internal())?.to_bytes();
        let remembered = Remembered {
            status: status.as_u16(),
            etag: parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned),
            body: match bytes.is_empty() {
                true => serde_json::Value::Null,
                false => serde_json::from_slice(&bytes).map_err(|_| Problem::internal())?,
            },
        };
        let answer = serde_json::to_value(&remembered).map_err(|_| Problem::internal())?;
        self.app.vault.remember(&self.caller, &self.key, &self.parts(), answer).await?;
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }
}

/// What a request needs, as the table says, with the names of its path, query and body put in.
fn needs_of(route: &Route, parts: &Parts, body: &[u8]) -> Option<RequestNeeds> {
    let (capability, template) = match route.needs {
        Needs::Capability { capability, resource } => (Some(capability), resource),
        _ => (None, OWN),
    };
    let params = parts.extensions.get::<Params>()?;
    let in_body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let mut filled = template.to_owned();
    for name in template.split(['{', '}']).skip(1).step_by(2) {
        let value = params.path().get(name).or_else(|| in_body.get(name)?.as_str())?;
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    let (scope, path) = filled.split_once('/')?;
    let scope: Scope = scope.parse().ok()?;
    let company = match scope {
        Scope::System => None,
        Scope::Environment(_) => params.get("company").ok()?,
    };
    let resource = Resource { scope, company, path: path.parse().ok()?, field: None };
    Some(RequestNeeds { capability, resource })
}

fn replay(answer: serde_json::Value) -> Result<Response, Problem> {
    let remembered: Remembered = serde_json::from_value(answer).map_err(|_| Problem::internal())?;
    let mut response = Response::new(match remembered.body {
        serde_json::Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    });
    *response.status_mut() = StatusCode::from_u16(remembered.status).map_err(|_| Problem::internal())?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(tag) = remembered.etag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(&KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(key) => Ok(Some(key.to_owned())),
            Err(_) => Err(Problem::malformed("the `Idempotency-Key` is not ASCII text")),
        },
        (Some(_), Some(_)) => Err(Problem::malformed("the request has more than one `Idempotency-Key`")),
    }
}

/// What a route is about that everybody may use for himself.
const OWN: &str = "sys/own";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
