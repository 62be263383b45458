//! Who asks, and under what circumstances: a token, else the user that the operating system names.
//!
//! It only gathers; the front desk decides whether a token is good. A token always wins over the peer, and a bad one is
//! never passed over in the peer's favour.

use std::net::SocketAddr;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use keymoat_core::audit::AuditText;
use keymoat_crypto::SecretBytes;
use keymoat_detect::Catalogue;
use keymoat_vault::{Caller, Code, Origin};

use crate::edge::Number;
use crate::problem::Problem;
use crate::{AppState, Doors};

/// Who is at the other end of a connection. [`crate::serve`] and [`crate::in_process`] put it among a request's
/// extensions; nothing that a client sends does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A user of this machine, as the operating system says.
    OsUser {
        /// The user's name.
        name: String,
    },
    /// A process of this machine whose user has no name.
    Local,
    /// Somebody on the network.
    Tcp {
        /// The other end.
        addr: SocketAddr,
    },
}

/// The caller, who is signed in.
pub(crate) struct SignedIn(pub(crate) Caller);

/// The caller, if he is signed in.
pub(crate) struct MaybeSignedIn(pub(crate) Option<Caller>);

/// The circumstances of a request.
pub(crate) struct Circumstances(pub(crate) Origin);

/// The token that is shown, on a route that asks about it and about nobody who is signed in.
pub(crate) struct Presented(pub(crate) SecretBytes);

impl<S: Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The router has signed the caller in, because the route's table entry says so; a handler that is reached
        // without is a fault of the table.
        parts.extensions.remove::<Caller>().map(Self).ok_or_else(Problem::internal)
    }
}

impl FromRequestParts<AppState> for MaybeSignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let origin = origin_of(parts)?;
        if let Some(token) = token_of(&parts.headers)? {
            return Ok(Self(Some(app.vault.sign_in_with_token(&token, origin).await?)));
        }
        let Some(Peer::OsUser { name }) = parts.extensions.get::<Peer>() else { return Ok(Self(None)) };
        match app.vault.sign_in_os_user(name, origin).await {
            Ok(caller) => Ok(Self(Some(caller))),
            Err(error) if matches!(error.code, Code::NotSignedIn | Code::Invalid) => Ok(Self(None)),
            Err(error) => Err(error.into()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Circumstances {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        origin_of(parts).map(Self)
    }
}

impl FromRequestParts<AppState> for Presented {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        match token_of(&parts.headers)? {
            Some(token) => Ok(Self(token)),
            None => Err(app.vault.refuse_nobody(&origin_of(parts)?).await.into()),
        }
    }
}

/// Signs the caller in, or refuses him.
pub(crate) async fn sign_in(app: &AppState, parts: &Parts) -> Result<Caller, Problem> {
    let origin = origin_of(parts)?;
    match (token_of(&parts.headers)?, parts.extensions.get::<Peer>()) {
        (Some(token), _) => Ok(app.vault.sign_in_with_token(&token, origin).await?),
        (None, Some(Peer::OsUser { name })) => {
            app.vault.sign_in_os_user(name, origin).await.map_err(as_refusal)
        }
        (None, _) => Err(app.vault.refuse_nobody(&origin).await.into()),
    }
}

/// Whether a request came through the socket, or is one of this process.
pub(crate) fn came_through_socket(parts: &Parts) -> bool {
    matches!(parts.extensions.get::<Peer>(), Some(Peer::OsUser { .. } | Peer::Local))
}

/// Whether the metrics are for whoever asks, without a token. A loopback address alone says too little: a proxy on this
/// machine has one too.
pub(crate) fn may_see_metrics(parts: &Parts, doors: &Doors) -> bool {
    came_through_socket(parts) || doors.open_metrics
}

/// Whether the request was made on this machine, not passed on by a proxy on it.
fn is_local(parts: &Parts) -> bool {
    match parts.extensions.get::<Peer>() {
        Some(Peer::OsUser { .. } | Peer::Local) => true,
        Some(Peer::Tcp { addr }) => {
            addr.ip().is_loopback() && !FORWARDED.iter().any(|name| parts.headers.contains_key(*name))
        }
        None => false,
    }
}

/// A user whose name no account can have is somebody without an account.
fn as_refusal(error: keymoat_vault::VaultError) -> Problem {
    match error.code {
        Code::Invalid => Problem {
            status: http::StatusCode::UNAUTHORIZED,
            code: Code::NotSignedIn.as_str(),
            ..error.into()
        },
        _ => error.into(),
    }
}

fn origin_of(parts: &Parts) -> Result<Origin, Problem> {
    let Some(Number(request)) = parts.extensions.get().copied() else { return Err(Problem::internal()) };
    let address = match parts.extensions.get::<Peer>() {
        // Behind a proxy on this machine the caller's own address is not known, and the proxy's must not stand in for
        // it: an unknown address allows nothing and stops no denial.
        Some(Peer::Tcp { addr }) if !addr.ip().is_loopback() || is_local(parts) => {
            Some(addr.ip().to_canonical())
        }
        _ => None,
    };
    let agent = parts.headers.get(header::USER_AGENT);
    Ok(Origin {
        request,
        address,
        user_agent: agent.map(|value| written_down(&String::from_utf8_lossy(value.as_bytes()))),
        module: said(&parts.headers, &MODULE)?,
        on_behalf_of: said(&parts.headers, &ON_BEHALF_OF)?,
    })
}

/// What a client says of itself, in a header that stands at most once.
fn said(headers: &HeaderMap, name: &HeaderName) -> Result<Option<AuditText>, Problem> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(name) {
            true => Err(Problem::malformed(format!("the request has more than one `{name}`"))),
            false => Ok(None),
        };
    };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if text.len() <= SAID_BYTES_MAX => {
            Ok(Some(written_down(text)).filter(|text| !text.as_str().is_empty()))
        }
        _ => Err(Problem::malformed(format!("`{name}` is not UTF-8 text of at most {SAID_BYTES_MAX} bytes"))),
    }
}

/// What a client says of itself is written down, a key in it is not.
fn written_down(text: &str) -> AuditText {
    AuditText::new(&Catalogue::builtin().hide_keys(text))
}

/// The token that is shown, if any.
fn token_of(headers: &HeaderMap) -> Result<Option<SecretBytes>, Problem> {
    let bearers = headers.get_all(header::AUTHORIZATION).iter().map(|value| bearer(value.as_bytes()));
    let own = headers.get_all(&TOKEN).iter().map(|value| Ok(value.as_bytes()));
    let mut shown = bearers.chain(own);
    let first = shown.next().transpose()?;
    if shown.next().is_some() {
        return Err(Problem::malformed("the request shows more than one token"));
    }
    Ok(first.map(SecretBytes::from_slice))
}

/// RFC 6750 §2.1; the scheme's name has no case (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Result<&[u8], Problem> {
    let (scheme, token) = value.split_at_checked(BEARER.len()).unwrap_or((value, b""));
    if scheme.eq_ignore_ascii_case(BEARER) {
        return Ok(token.trim_ascii());
    }
    Err(Problem::new(
        http::StatusCode::UNAUTHORIZED,
        Code::NotSignedIn.as_str(),
        "the `Authorization` header is not of the form `Bearer TOKEN`",
    ))
}

const BEARER: &[u8] = b"Bearer ";
const TOKEN: HeaderName = HeaderName::from_static("x-keymoat-token");
const MODULE: HeaderName = HeaderName::from_static("x-keymoat-module");
const ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-keymoat-on-behalf-of");
/// Headers by which a proxy says that it passes a request on.
const FORWARDED: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];
/// As much as a record keeps; cutting what a policy may look at would make it something else.
const SAID_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_proxy_on_this_machine_does_not_lend_its_address() {
        #[track_caller]
        fn check(addr: &str, forwarded: bool, expected: Option<&str>) {
            let mut request = http::Request::builder();
            if forwarded {
                request = request.header("x-forwarded-for", "192.0.2.1");
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let number = keymoat_core::id::RequestId::from_parts(0, &[0; 10]);
            parts.extensions.insert(Number(number));
            parts.extensions.insert(Peer::Tcp { addr: addr.parse().unwrap() });
            let address = origin_of(&parts).unwrap().address;
            assert_eq!(address, expected.map(|text| text.parse().unwrap()), "{addr} {forwarded}");
        }
        check("127.0.0.1:1", false, Some("127.0.0.1"));
        check("127.0.0.1:1", true, None);
        check("[::1]:1", true, None);
        check("198.51.100.7:1", true, Some("198.51.100.7"));
    }

    #[test]
    fn tokens_and_where_they_are_found() {
        #[track_caller]
        fn check(lines: &[(&'static str, &'static str)], expected: Result<Option<&str>, u16>) {
            let found = token_of(&headers(lines)).map_err(|problem| problem.status.as_u16());
            // EXPOSE: a made-up token in a test.
            let text = |token: SecretBytes| token.expose(|bytes| String::from_utf8(bytes.clone()).unwrap());
            assert_eq!(
                found.map(|token| token.map(text)),
                expected.map(|token| token.map(str::to_owned)),
                "{lines:?}"
            );
        }
        check(&[], Ok(None));
        check(&[("authorization", "Bearer kms_MadeUp")], Ok(Some("kms_MadeUp")));
        check(&[("authorization", "bearer  kms_MadeUp ")], Ok(Some("kms_MadeUp")));
        check(&[("x-keymoat-token", "kms_MadeUp")], Ok(Some("kms_MadeUp")));
        check(&[("x-vault-token", "kms_MadeUp")], Ok(None));
        check(&[("authorization", "Bearer")], Err(401));
        check(&[("authorization", "Basic bWFkZTp1cA==")], Err(401));
        check(&[("authorization", "Bearer a"), ("authorization", "Bearer a")], Err(400));
        check(&[("authorization", "Bearer a"), ("x-keymoat-token", "a")], Err(400));
    }

    #[test]
    fn what_clients_say_is_bounded() {
        assert!(said(&headers(&[("x-keymoat-module", "sale")]), &MODULE).unwrap().is_some());
        assert!(said(&headers(&[("x-keymoat-module", "")]), &MODULE).unwrap().is_none());
        assert!(said(&headers(&[("x-keymoat-module", "a"), ("x-keymoat-module", "b")]), &MODULE).is_err());
        let mut long = HeaderMap::new();
        long.insert(MODULE, HeaderValue::try_from("a".repeat(257)).unwrap());
        assert!(said(&long, &MODULE).is_err());
    }
}
