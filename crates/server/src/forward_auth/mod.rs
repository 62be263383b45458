//! The door for proxies: nginx, Caddy, Traefik and Envoy ask here, with what their caller sent, whether it may pass.
//!
//! The proxy is nobody: the key that its caller shows is what is asked about, and whoever shows a good one learns only
//! whose it is. A yes says so in a complete and fixed set of headers, because one that is left out is where a proxy may
//! let the caller's own pass. A no says nothing of the key. What the caller asked the application for (path, query,
//! conditions, body) is not for Keymoat, so nothing of it is read.

mod assertion;
mod identity;
mod shown;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use keymoat_core::issued::{Hop, ScopeQuery, client_of};
use keymoat_core::names::SpaceName;
use keymoat_vault::issued::{KeyCode, KeyQuestion, Verifier};
use keymoat_vault::{Code, Origin};

use crate::context::Peer;
use crate::edge::Number;
use crate::params::Params;
use crate::problem::Problem;
use crate::{AppState, Doors};

pub(crate) use assertion::jwks;

/// Whether a caller may pass.
pub(crate) async fn pass(State(app): State<AppState>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let rules = Rules::of(&parts)?;
    let key = match shown::key_of(&parts.headers) {
        Ok(Some(key)) => key,
        Ok(None) if app.front.doors.preflights.contains(&rules.space) && is_preflight(&parts) => {
            return Ok(yes(&identity::Identity::nobody(), identity::NONE.to_owned())?.into_response());
        }
        Ok(None) => return Err(refusal("no key is shown")),
        Err(shown::Doubled) => return Err(refusal("more than one key is shown")),
    };
    app.vault.fresh().await?;
    let origin = origin_of(&parts, &app.front.doors)?;
    let question = KeyQuestion {
        key,
        space: Some(rules.space.clone()),
        environment: None,
        scopes: rules.scopes.clone(),
        cost: 1,
        client: origin.address,
    };
    let verdict = app.vault.verify_key(&Verifier::Holder(&origin), question).await?;
    match answer_of(verdict.code) {
        Pass::Yes => {
            let key = verdict.key.as_deref().ok_or_else(Problem::internal)?;
            let identity = identity::Identity::of(key, verdict.credits);
            let assertion = assertion::sign(&app.vault, &rules.space, &identity);
            Ok(yes(&identity, assertion)?.into_response())
        }
        Pass::Unknown => Err(refusal("the key is not good here")),
        Pass::NotAllowed => Err(forbidden()),
        Pass::TooOften => Err(too_often(&rules, verdict.retry_after_secs)),
    }
}

/// What the proxy's own configuration asks for, in the address that it calls.
struct Rules {
    space: SpaceName,
    /// What the key must give.
    scopes: Option<ScopeQuery>,
    proxy: Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    /// It passes any answer on.
    Any,
    /// It makes a 500 of every answer but 200, 401 and 403.
    Nginx,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Yes,
    Unknown,
    NotAllowed,
    TooOften,
}

impl Rules {
    fn of(parts: &Parts) -> Result<Self, Problem> {
        let params = parts.extensions.get::<Params>().ok_or_else(Problem::internal)?;
        let mut names = params.path().values();
        let space = names.next().ok_or_else(Problem::internal)?.parse()?;
        // Behind a longer path stands the caller's own query, as Envoy puts it there.
        let is_longer = names.next().is_some() || parts.uri.path().ends_with('/');
        let query = if is_longer { None } else { parts.uri.query() };
        Self::read(space, query.unwrap_or_default())
    }

    /// A proxy that keeps its caller's query lets him write here, so everything in it only narrows what passes, and
    /// what is not known is none of ours.
    fn read(space: SpaceName, query: &str) -> Result<Self, Problem> {
        let (mut scopes, mut proxy) = (None, Proxy::Any);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "scopes" if scopes.is_some() => {
                    return Err(Problem::malformed("the query has `scopes` twice"));
                }
                "scopes" => {
                    let asked = value.parse::<ScopeQuery>();
                    scopes = Some(asked.map_err(|error| Problem::malformed(error.to_string()))?);
                }
                "proxy" if value == "nginx" => proxy = Proxy::Nginx,
                _ => {}
            }
        }
        Ok(Self { space, scopes, proxy })
    }
}

/// Who asks: the proxy's caller, as far as the proxy may say so.
fn origin_of(parts: &Parts, doors: &Doors) -> Result<Origin, Problem> {
    let Some(Number(request)) = parts.extensions.get().copied() else { return Err(Problem::internal()) };
    let address = match client(parts, doors) {
        Some(Hop::Known(address)) => Some(address),
        Some(Hop::Unreadable) | None => None,
    };
    Ok(Origin { request, address, user_agent: None, module: None, on_behalf_of: None })
}

fn client(parts: &Parts, doors: &Doors) -> Option<Hop> {
    let peer = match parts.extensions.get::<Peer>()? {
        Peer::Tcp { addr } => addr.ip(),
        // Who comes through the socket is on this machine, and let in by the data directory's permissions.
        Peer::OsUser { .. } | Peer::Local => std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let lines = parts.headers.get_all(&FORWARDED_FOR).iter();
    // A line that is no text is an address of nobody.
    let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap_or("?")).collect();
    Some(client_of(peer, lines.into_iter(), doors.trusted_proxies.as_slice()))
}

fn answer_of(code: KeyCode) -> Pass {
    match code {
        KeyCode::Valid => Pass::Yes,
        KeyCode::IpNotAllowed | KeyCode::InsufficientPermissions => Pass::NotAllowed,
        KeyCode::RateLimited | KeyCode::UsageExceeded => Pass::TooOften,
        KeyCode::Malformed
        | KeyCode::NotFound
        | KeyCode::Revoked
        | KeyCode::Disabled
        | KeyCode::NotYetValid
        | KeyCode::Expired
        | KeyCode::OwnerInactive => Pass::Unknown,
    }
}

/// Whether a browser asks if a page may call the application, which it does without any key (the Fetch standard's
/// CORS-preflight). Whatever is said of the method must be the same: a caller can write one of these himself.
fn is_preflight(parts: &Parts) -> bool {
    let is_asked = PREFLIGHT.iter().all(|name| parts.headers.contains_key(name));
    // Proxies ask by GET whatever they were asked.
    let own = Some(parts.method.as_str().as_bytes()).filter(|method| *method != b"GET");
    let said = METHODS.iter().flat_map(|name| parts.headers.get_all(name)).map(|value| value.as_bytes());
    let mut methods = said.chain(own).peekable();
    is_asked && methods.peek().is_some() && methods.all(|method| method == b"OPTIONS")
}

/// 200 without a body: the one answer that every proxy takes for a yes.
fn yes(identity: &identity::Identity, assertion: String) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::with_capacity(identity::HEADERS.len() + 2);
    identity.write(&mut headers);
    headers.insert(assertion::HEADER, HeaderValue::try_from(assertion).map_err(|_| Problem::internal())?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(headers)
}

fn refusal(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, Code::NotSignedIn.as_str(), detail)
        .hint("send one key in the header `API-KEY`")
}

fn forbidden() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        Code::Refused.as_str(),
        "the key is not good for this, or not from there",
    )
}

fn too_often(rules: &Rules, retry_after_secs: Option<u64>) -> Problem {
    let detail = "the key is used more often than it may be";
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, LIMITED, detail).retry_after(retry_after_secs);
    match rules.proxy {
        Proxy::Any => problem,
        Proxy::Nginx => problem.disguised_as(StatusCode::FORBIDDEN),
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Where proxies say by which method they were asked.
static METHODS: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-method"), HeaderName::from_static("x-original-method")];
static PREFLIGHT: [HeaderName; 2] = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD];
const LIMITED: &str = "rate_limited";

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request as Head;

    #[test]
    fn what_the_proxy_asks_for() {
        let check = |query: &str, expected: Option<(bool, Proxy)>| {
            let rules = Rules::read("shop".parse().unwrap(), query).ok();
            assert!(rules.map(|rules| (rules.scopes.is_some(), rules.proxy)) == expected, "{query}");
        };
        check("", Some((false, Proxy::Any)));
        check("proxy=nginx", Some((false, Proxy::Nginx)));
        check("proxy=other", Some((false, Proxy::Any)));
        check("scopes=orders.read+AND+(a+OR+b)&proxy=nginx", Some((true, Proxy::Nginx)));
        check("page=2&token=made-up", Some((false, Proxy::Any)));
        check("scopes=", None);
        check("scopes=a&scopes=b", None);
        check("scopes=*", None);
    }

    #[test]
    fn whose_address_it_is() {
        let doors = Doors { trusted_proxies: "127.0.0.0/8,10.0.0.0/8".parse().unwrap(), ..Doors::default() };
        let check = |peer: Peer, lines: &[&[u8]], expected: Option<&str>| {
            let mut head = Head::builder();
            for line in lines {
                head = head.header("x-forwarded-for", *line);
            }
            let (mut parts, ()) = head.body(()).unwrap().into_parts();
            parts.extensions.insert(peer);
            let number = keymoat_core::id::RequestId::from_parts(0, &[0; 10]);
            parts.extensions.insert(Number(number));
            let address = origin_of(&parts, &doors).unwrap().address;
            assert_eq!(address, expected.map(|text| text.parse().unwrap()), "{lines:?}");
        };
        let tcp = |addr: &str| Peer::Tcp { addr: addr.parse().unwrap() };
        check(tcp("127.0.0.1:1"), &[b"203.0.113.1, 198.51.100.7"], Some("198.51.100.7"));
        check(tcp("192.0.2.9:1"), &[b"198.51.100.7"], Some("192.0.2.9"));
        check(tcp("10.0.0.3:1"), &[b"203.0.113.1", b"198.51.100.7, 10.0.0.1"], Some("198.51.100.7"));
        check(tcp("127.0.0.1:1"), &[b"198.51.100.7, \xff"], None);
        check(Peer::Local, &[b"198.51.100.7"], Some("198.51.100.7"));
        check(Peer::OsUser { name: "ana".to_owned() }, &[], Some("127.0.0.1"));
    }

    #[test]
    fn what_a_preflight_is() {
        let check = |method: &str, lines: &[(&str, &str)], expected: bool| {
            let mut head = Head::builder().method(method);
            for (name, value) in lines {
                head = head.header(*name, *value);
            }
            assert_eq!(is_preflight(&head.body(()).unwrap().into_parts().0), expected, "{method} {lines:?}");
        };
        let asked = [("origin", "https://shop.test"), ("access-control-request-method", "GET")];
        let with = |more: &[(&'static str, &'static str)]| [&asked[..], more].concat();
        check("OPTIONS", &asked, true);
        check("GET", &with(&[("x-forwarded-method", "OPTIONS")]), true);
        check("GET", &with(&[("x-original-method", "OPTIONS")]), true);
        check("GET", &asked, false);
        check("OPTIONS", &asked[..1], false);
        check("POST", &with(&[("x-original-method", "OPTIONS")]), false);
        check("GET", &with(&[("x-forwarded-method", "GET"), ("x-original-method", "OPTIONS")]), false);
        check("GET", &with(&[("x-forwarded-method", "OPTIONS"), ("x-original-method", "DELETE")]), false);
        check("GET", &with(&[("x-original-method", "OPTIONS"), ("x-original-method", "GET")]), false);
        check("GET", &with(&[("x-original-method", "options")]), false);
    }

    #[test]
    fn codes_and_what_becomes_of_the_request() {
        for code in KeyCode::ALL {
            let expected = match code.as_str() {
                "VALID" => Pass::Yes,
                "IP_NOT_ALLOWED" | "INSUFFICIENT_PERMISSIONS" => Pass::NotAllowed,
                "RATE_LIMITED" | "USAGE_EXCEEDED" => Pass::TooOften,
                _ => Pass::Unknown,
            };
            assert_eq!(answer_of(*code), expected, "{code}");
        }
    }
}
