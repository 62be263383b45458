//! What every request passes first and every answer last: strict checks, numbers, limits, caught panics, headers,
//! logs, metrics.
//!
//! Paths are never normalised: a spelling that could mean another path is refused. Nothing here looks at who asks.
//! Of a request only method, route template, status, duration and number are logged; never a query or a body.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use keymoat_core::id::RequestId;
use keymoat_vault::{Clock, Code, Vault};
use tracing::Instrument as _;

use crate::body::BODY_BYTES_MAX;
use crate::context::Peer;
use crate::metrics::Stopwatch;
use crate::problem::Problem;
use crate::{Doors, Front};

/// The number of a request, put among its extensions for those who act on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(pub(crate) RequestId);

/// What the edge works with, whether the vault behind it is open or sealed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) front: Arc<Front>,
    pub(crate) numbers: Numbers,
}

/// Where the numbers of requests come from.
#[derive(Clone)]
pub(crate) enum Numbers {
    /// The vault, whose time never runs backwards.
    Vault(Vault),
    /// The clock alone, while the vault is sealed.
    Clock(Arc<dyn Clock>),
}

impl Numbers {
    pub(crate) fn next(&self) -> RequestId {
        match self {
            Numbers::Vault(vault) => vault.new_request_id(),
            Numbers::Clock(clock) => {
                let now = u64::try_from(clock.now().as_millisecond()).unwrap_or_default();
                RequestId::from_parts(now, &keymoat_crypto::bytes())
            }
        }
    }
}

/// What is around every answer. `path` is the route's, as the table has it.
pub(crate) async fn edge<F: Future<Output = Response>>(
    edge: &Edge,
    path: &'static str,
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let stopwatch = Stopwatch::start();
    let number = number_of(&edge.numbers, request.headers());
    request.extensions_mut().insert(Number(number));
    let method = request.method().clone();
    let span = tracing::info_span!("request", %method, route = path, request = %number);
    let answered = async {
        let response = match check(&request, &edge.front.doors) {
            Ok(()) => caught(answer(request)).await,
            Err(problem) => problem.into_response(),
        };
        let response = finish(response, number);
        let took = stopwatch.elapsed();
        tracing::info!(status = response.status().as_u16(), micros = took.as_micros() as u64, "answered");
        edge.front.metrics.answered(&method, path, response.status(), took);
        response
    };
    answered.instrument(span).await
}

/// What is there for no route.
pub(crate) fn no_route() -> Problem {
    Problem::not_found("there is no such address here").hint("GET /api/openapi.json lists what there is")
}

/// What is there for a route with another method.
pub(crate) fn no_method() -> Problem {
    Problem::of_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// The client's own number when it is of our form, so that its logs and ours fit together; a new one otherwise.
fn number_of(numbers: &Numbers, headers: &HeaderMap) -> RequestId {
    let own =
        headers.get(&X_REQUEST_ID).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    own.unwrap_or_else(|| numbers.next())
}

/// What somebody gets for whom there is no room, made without looking at what he wants.
pub(crate) fn overloaded() -> Response {
    let number = RequestId::from_parts(0, &keymoat_crypto::bytes());
    finish(Problem::overloaded().into_response(), number)
}

/// A panic becomes an answer; its message goes to the log of the process alone.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(_) => {
            tracing::error!("a request ended in a panic");
            Poll::Ready(Problem::internal().into_response())
        }
    })
    .await
}

/// What every answer has.
pub(crate) fn finish(mut response: Response, number: RequestId) -> Response {
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>();
    let is_bare = problem.is_none() && (status.is_client_error() || status.is_server_error());
    if let Some(problem) = problem.or_else(|| is_bare.then(|| Problem::of_status(status))) {
        response = problem.render(number, response.headers());
    }
    let headers = response.headers_mut();
    for (name, value) in &ALWAYS_SENT {
        headers.insert(name, value.clone());
    }
    let number = HeaderValue::from_str(&number.to_string()).expect("a number is digits and hyphens");
    headers.insert(X_REQUEST_ID, number);
    response
}

/// Everything that is checked before a request is looked at.
pub(crate) fn check(request: &Request, doors: &Doors) -> Result<(), Problem> {
    let peer = request.extensions().get::<Peer>();
    // First: a request of doubtful length must end its connection, whatever else is wrong with it.
    check_framing(request.method(), request.headers())?;
    check_headers(request.headers())?;
    let host = check_host(request.headers(), matches!(peer, Some(Peer::Tcp { .. })))?;
    if let (Some(host), Some(Peer::Tcp { addr })) = (host, peer)
        && addr.ip().to_canonical().is_loopback()
    {
        check_host_name(&host, &doors.host_names)?;
    }
    check_encoding(request.headers())?;
    check_form(request.method(), request.uri())?;
    check_target(request.uri())
}

fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() <= HEADERS_MAX && bytes <= HEADER_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "too_large",
        format!("a request has at most {HEADERS_MAX} headers of {HEADER_BYTES_MAX} bytes together"),
    )
    .ending_connection())
}

/// Exactly one `Host` (RFC 9112 §3.2); on a socket of this machine none is fine too.
fn check_host(headers: &HeaderMap, is_tcp: bool) -> Result<Option<Authority>, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let wrong = |what| Err(Problem::malformed(what).ending_connection());
    match (hosts.next(), hosts.next()) {
        (None, _) if is_tcp => wrong("the request has no `Host` header"),
        (None, _) => Ok(None),
        (Some(_), Some(_)) => wrong("the request has more than one `Host` header"),
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) if is_name_of_host(&authority) => Ok(Some(authority)),
            _ => wrong("the `Host` header is not the name of a host"),
        },
    }
}

/// A name or an address, with a port or without: less than what an address of something may hold (RFC 3986 §3.2).
fn is_name_of_host(authority: &Authority) -> bool {
    let (host, text) = (authority.host(), authority.as_str());
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = in_brackets.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let rest = text.strip_prefix(host).unwrap_or(text);
    (is_name || is_address) && (rest.is_empty() || authority.port_u16().is_some())
}

/// On a loopback address a server is spoken to under a name of this machine. A browser that was led here under another
/// name (DNS rebinding) would hand the answers to the page of that name.
fn check_host_name(host: &Authority, also: &[String]) -> Result<(), Problem> {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_loopback = || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    if name.eq_ignore_ascii_case("localhost")
        || is_loopback()
        || also.iter().any(|known| known.eq_ignore_ascii_case(name))
    {
        return Ok(());
    }
    let detail = "the `Host` header names another server than this one";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail)
        .hint("on a loopback address it is `localhost`; start the server with --host-name for the name of a proxy in front of it"))
}

/// A body in another encoding would be one thing to whoever looks at it on the way and another one here.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.all(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let detail = "the body is encoded in a way that is not taken";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Invalid.as_str(), detail)
        .hint("send it as it is, without `Content-Encoding`"))
}

/// A request says how long it is in exactly one way, so that a proxy in front cannot see another end of it.
fn check_framing(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        if lengths > 0 {
            let twofold = "the request has both `Content-Length` and `Transfer-Encoding`";
            return Err(Problem::malformed(twofold).ending_connection());
        }
        return Err(Problem::new(
            StatusCode::LENGTH_REQUIRED,
            "length_required",
            "the request has a body of unknown length",
        )
        .hint("send it in one piece with a `Content-Length`")
        .ending_connection());
    }
    if lengths > 1 {
        return Err(Problem::malformed("the request has more than one `Content-Length`").ending_connection());
    }
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length.unwrap_or(0) {
        0 => Ok(()),
        // It means nothing (RFC 9110 §9.3.1), and others pass over it without taking it off the connection.
        _ if matches!(*method, Method::GET | Method::HEAD) => {
            Err(Problem::malformed(format!("a {method} has no body")).ending_connection())
        }
        length if length > BODY_BYTES_MAX as u64 => {
            Err(Problem::too_large(format!("a body has at most {BODY_BYTES_MAX} bytes")).ending_connection())
        }
        _ => Ok(()),
    }
}

/// Origin-form (RFC 9112 §3.2.1). Whoever sends another one takes this for a proxy, and what follows on the connection
/// may be for somebody else.
fn check_form(method: &Method, uri: &Uri) -> Result<(), Problem> {
    let is_path = uri.scheme().is_none() && uri.authority().is_none() && uri.path().starts_with('/');
    if is_path && *method != Method::CONNECT {
        return Ok(());
    }
    Err(Problem::malformed("the request's target is not a path")
        .hint("send the path alone: `/api/v1/…`")
        .ending_connection())
}

/// A path in its one spelling: no escapes but that of the colon, no empty and no dot segments.
fn check_target(uri: &Uri) -> Result<(), Problem> {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    if path.len() > PATH_BYTES_MAX || query.len() > QUERY_BYTES_MAX {
        let long = format!("a path has at most {PATH_BYTES_MAX} bytes, a query {QUERY_BYTES_MAX}");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "too_large", long));
    }
    let Some(rest) = own_part(path).strip_prefix('/') else { return Err(wrong_path()) };
    let plain = plain(rest);
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@/".contains(&b);
    let is_fine = |segment: &str| !matches!(segment, "." | "..");
    let has_empty = plain.split('/').rev().skip(1).any(str::is_empty);
    if !plain.bytes().all(is_allowed) || !plain.split('/').all(is_fine) || has_empty {
        return Err(wrong_path());
    }
    Ok(())
}

/// What of a path is Keymoat's to read. Behind the name of a space stands what a proxy was asked, in whatever spelling;
/// the route looks at none of it.
fn own_part(path: &str) -> &str {
    let behind = path.strip_prefix(FORWARD_AUTH).and_then(|rest| rest.split_once('/'));
    behind.map_or(path, |(_, asked)| &path[..path.len() - asked.len() - 1])
}

/// A path without the escape that a path may have.
pub(crate) fn plain(path: &str) -> Cow<'_, str> {
    match path.contains('%') {
        true => path.replace("%3A", ":").replace("%3a", ":").into(),
        false => path.into(),
    }
}

fn wrong_path() -> Problem {
    Problem::malformed("the path has a spelling that is not taken")
        .hint("names have letters, digits and `-._~:@`; no escapes, no empty, `.` or `..` segments")
}

const FORWARD_AUTH: &str = "/forward-auth/";
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Sent with everything: nothing here is a page, and nothing is to be kept.
const ALWAYS_SENT: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];
/// Browsers send about 20, proxies add some.
pub(crate) const HEADERS_MAX: usize = 64;
/// More is somebody else's cookies.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The longest path of a secret is 256 bytes.
const PATH_BYTES_MAX: usize = 1024;
/// Far longer than all parameters of any route.
const QUERY_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_whether_they_pass() {
        #[track_caller]
        fn check(target: &str, passes: bool) {
            let uri: Uri = target.parse().unwrap();
            let checked = check_form(&Method::GET, &uri).and_then(|()| check_target(&uri));
            assert_eq!(checked.is_ok(), passes, "{target}");
        }
        check("/", true);
        check("/api/v1/secrets/prod/payments/stripe?company=acme", true);
        check("/api/v1/accounts/os:ana", true);
        check("/api/v1/accounts/os%3Aana", true);
        check("/forward-auth/shop", true);
        check("/forward-auth/shop/a%20b/../c//d", true);
        check("/forward-auth/sh%20op/a", false);
        check("/forward-auth/../a", false);
        check("/forward-auth//a", false);
        check("/forward-auth/%2e%2e/a", false);
        check("/api/v1/secrets/prod/stripe/", true); // refused later, as the path of a secret
        for path in [
            "a%2fb", "a%2Fb", "%2e%2e/a", "a%00", "a%5cb", "a//b", "//a", "./a", "../a", "a/..", "a/.",
            "a%20", "a;b", "a+b", "a%25", "é",
        ] {
            match format!("/api/v1/secrets/prod/{path}").parse::<Uri>() {
                Ok(uri) => assert!(check_target(&uri).is_err(), "{path}"),
                Err(_) => assert!(!path.is_ascii(), "{path}"),
            }
        }
        check("http://elsewhere.test/api/v1/status", false);
        check("*", false);
        check(&format!("/{}", "a".repeat(2000)), false);
        check(&format!("/a?b={}", "a".repeat(5000)), false);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_that_says_nothing_of_it() {
        let response = caught(async { panic!("made-up words of a panic") }).await;
        assert_eq!(response.status(), 500);
        let problem = response.extensions().get::<Problem>().unwrap();
        assert!(!problem.detail.contains("made-up"), "{}", problem.detail);
    }

    #[test]
    fn names_of_this_machine_and_others() {
        let known = ["Vault.example.test".to_owned()];
        let passes = |host: &str| check_host_name(&host.parse().unwrap(), &known).is_ok();
        for host in [
            "localhost",
            "LocalHost:8200",
            "localhost.",
            "127.0.0.1:8200",
            "127.9.9.9",
            "[::1]:8200",
            "[::ffff:127.0.0.1]",
            "vault.example.test:443",
        ] {
            assert!(passes(host), "{host}");
        }
        for host in [
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.evil.test",
            "10.0.0.1",
            "[::]",
            "0.0.0.0",
            "169.254.169.254",
            "sub.vault.example.test",
        ] {
            assert!(!passes(host), "{host}");
        }
    }

    #[test]
    fn heads_and_what_is_wrong_with_them() {
        #[track_caller]
        fn check(lines: &[(&str, &str)], status: u16) {
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| {
                    (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
                })
                .collect();
            let checked = check_headers(&headers)
                .and_then(|()| check_host(&headers, true))
                .and_then(|_| check_framing(&Method::POST, &headers))
                .and_then(|()| check_encoding(&headers));
            assert_eq!(checked.map_or_else(|problem| problem.status.as_u16(), |()| 200), status, "{lines:?}");
        }
        check(&[("host", "vault.test:8200")], 200);
        check(&[("host", "[::1]:8200"), ("content-length", "3")], 200);
        check(&[], 400);
        check(&[("host", "a@b")], 400);
        check(&[("host", "a/b")], 400);
        check(&[("host", "a"), ("transfer-encoding", "chunked")], 411);
        check(&[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "3")], 400);
        check(&[("host", "a"), ("content-length", "1048577")], 413);
        check(&[("host", "a"), ("content-encoding", "Identity")], 200);
        check(&[("host", "a"), ("content-encoding", "gzip")], 415);
        check(&[("host", "a"), ("content-encoding", "")], 415);
        check(&[("host", "a"), ("content-encoding", "identity"), ("content-encoding", "br")], 415);
        check(&[("host", "a"), ("x-long", &"a".repeat(20_000))], 431);
    }
}
