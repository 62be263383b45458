//! What is asked of a provider to learn whether a key of it is alive, and what its answer says.
//!
//! Writes requests and reads answers; it sends nothing. Every address is `https`, and its host is one of those that the
//! provider's file lists, also after values were put into it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::base64;
use crate::provider::{
    Check, CheckRequest, ClientAuth, Injection, Key, Method, Mode, Provider, Says, Scheme, Template,
};

/// What can be asked of a provider about the values of one field.
#[derive(Debug, Clone)]
pub struct Question {
    check: Check,
    send: Injection,
}

/// Nothing can be asked about a key: the provider's file has no check for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no check is known for this kind of key")]
pub struct Unasked;

/// A request that is ready to be sent, with the key in it.
pub struct Request {
    /// GET or POST.
    pub method: Method,
    /// The host; one of those that the provider's file lists.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub target: Zeroizing<String>,
    /// Names and values.
    pub headers: Vec<(String, Zeroizing<Vec<u8>>)>,
    /// The body, empty where there is none.
    pub body: Zeroizing<Vec<u8>>,
    /// What it has to be signed with right before it is sent: a signature of AWS has the time in it.
    pub signing: Option<Signing>,
}

/// What signs a request to AWS (Signature Version 4).
pub struct Signing {
    /// Access key id.
    pub access_key_id: Zeroizing<Vec<u8>>,
    /// Secret access key.
    pub secret_access_key: Zeroizing<Vec<u8>>,
    /// Session token of temporary credentials.
    pub session_token: Option<Zeroizing<Vec<u8>>>,
    /// Code of the service.
    pub service: String,
    /// Region.
    pub region: String,
}

/// What an answer says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is alive, and belongs to this account where the answer names one.
    Alive(Option<String>),
    /// It is dead.
    Dead,
    /// Neither.
    Unclear,
}

/// Why a request could not be written. It never repeats a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// An address is not `https://HOST…` after values were put into it.
    #[error("the address to ask cannot be made from what was found")]
    Address,
    /// A host is not listed.
    #[error("the host to ask is not one of those that the provider's file lists")]
    Host,
    /// Credentials are temporary, and their token is not known.
    #[error("these are temporary credentials, and their session token does not stand near them")]
    SessionToken,
}

/// Lends the value of a name to the function; nothing where there is none.
pub type Fill<'f> = dyn Fn(&str, &mut dyn FnMut(&[u8])) + 'f;

impl Question {
    /// What can be asked about a key of a provider.
    ///
    /// # Errors
    /// Why nothing can.
    pub fn about(provider: &Provider, key: &Key) -> Result<Self, Unasked> {
        let check = provider.checks_of(&key.field).next().ok_or(Unasked)?;
        let mut sends = provider.injections_of(&key.field);
        let wants_token = matches!(check.request, CheckRequest::TokenRequest {});
        let fits = |send: &&Injection| matches!(send.how, Scheme::Oauth2Client { .. }) == wants_token;
        let send = sends.find(fits).ok_or(Unasked)?;
        Ok(Self { check: check.clone(), send: send.clone() })
    }

    /// The names of the values that are needed beside the key and its named parts: the other half of a pair, the host
    /// name of a shop.
    pub fn needs<'q>(&'q self, key: &'q Key) -> Vec<&'q str> {
        let goes_without = self.goes_along();
        let own = |name: &str| {
            name == key.field || goes_without.contains(&name) || key.part_names().any(|part| part == name)
        };
        let mut names: Vec<&str> = Vec::new();
        let templates = self.addresses(key.mode).into_iter().chain(self.send.how.templates());
        for name in templates.flat_map(Template::names).filter(|name| !own(name)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The names of the values that go along where they are known, and are not needed: the token of temporary credentials.
    pub fn goes_along(&self) -> Vec<&str> {
        match &self.send.how {
            Scheme::Sigv4 { session_token: Some(token), .. } => token.names().collect(),
            _ => Vec::new(),
        }
    }

    /// The requests, to be sent one after the other as long as the answers say that the key is dead: another region, or
    /// the sandbox where the value does not tell its mode, may know it.
    ///
    /// # Errors
    /// When an address cannot be made, or leads where the key must not go.
    pub fn requests(&self, mode: Mode, fill: &Fill<'_>) -> Result<Vec<Request>, RequestError> {
        self.addresses(mode).into_iter().map(|address| self.request(address, fill)).collect()
    }

    /// What an answer says; `header` gives the headers of it.
    pub fn verdict(&self, status: u16, header: &dyn Fn(&str) -> Option<String>, body: &[u8]) -> Verdict {
        // Some put the mark of UTF-8 before their JSON.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let holds = |says: &[Says]| {
            let mut about = says.iter().filter(|says| says.is_about(status)).peekable();
            about.peek().is_none() || json.as_ref().is_some_and(|json| about.any(|says| is_said(says, json)))
        };
        if self.check.alive.contains(&status) && holds(&self.check.alive_if) {
            return Verdict::Alive(self.account(header, json.as_ref()));
        }
        match self.check.dead.contains(&status) && holds(&self.check.dead_if) {
            true => Verdict::Dead,
            false => Verdict::Unclear,
        }
    }

    fn account(
        &self,
        header: &dyn Fn(&str) -> Option<String>,
        json: Option<&serde_json::Value>,
    ) -> Option<String> {
        let named = self.check.account.iter().filter_map(|place| match place.starts_with('/') {
            true => text_of(json?.pointer(place)?),
            false => header(place),
        });
        let account = named.filter(|text| !text.trim().is_empty()).collect::<Vec<_>>().join(", ");
        // It is shown on terminals, which obey control characters.
        let shown: String = account.chars().filter(|c| !c.is_control()).take(MAX_ACCOUNT).collect();
        (!shown.is_empty()).then_some(shown)
    }

    /// The addresses, in the order in which they are asked.
    fn addresses(&self, mode: Mode) -> Vec<&Template> {
        let (live, test): (Vec<&Template>, Vec<&Template>) = match (&self.check.request, &self.send.how) {
            (CheckRequest::Call { url, test_url, other_urls, other_test_urls, .. }, _) => (
                [url].into_iter().chain(other_urls).collect(),
                test_url.iter().chain(other_test_urls).collect(),
            ),
            (CheckRequest::TokenRequest {}, Scheme::Oauth2Client { token_url, test_token_url, .. }) => {
                (vec![token_url], test_token_url.iter().collect())
            }
            // `about` takes token requests with this scheme only.
            (CheckRequest::TokenRequest {}, _) => return Vec::new(),
        };
        match mode {
            Mode::Test if !test.is_empty() => test,
            Mode::Any => live.into_iter().chain(test).collect(),
            _ => live,
        }
    }

    fn request(&self, address: &Template, fill: &Fill<'_>) -> Result<Request, RequestError> {
        let mut url = filled(address, fill, escaped)?;
        let (mut headers, mut body) = (Vec::new(), Zeroizing::new(Vec::new()));
        let mut header = |name: &str, value| headers.push((name.to_owned(), value));
        let mut method = Method::Post;
        let mut signing = None;
        if let CheckRequest::Call { method: asked, headers: asks, body: json, .. } = &self.check.request {
            method = *asked;
            asks.iter().for_each(|(name, value)| header(name, Zeroizing::new(value.clone().into_bytes())));
            if let Some(json) = json {
                header("content-type", Zeroizing::new(b"application/json".to_vec()));
                body.extend_from_slice(json.as_bytes());
            }
        }
        match &self.send.how {
            Scheme::Bearer { token } => {
                let mut value = Zeroizing::new(b"Bearer ".to_vec());
                value.extend_from_slice(&filled(token, fill, as_it_is)?);
                header("authorization", value);
            }
            Scheme::Basic { username, password } => {
                let user = filled(username, fill, as_it_is)?;
                header("authorization", basic(&user, &filled(password, fill, as_it_is)?));
            }
            Scheme::Header { name, value } => header(name, filled(value, fill, as_it_is)?),
            Scheme::Query { parameter, value } => {
                let joint = if url.contains(&b'?') { b'&' } else { b'?' };
                url.push(joint);
                url.extend_from_slice(parameter.as_bytes());
                url.push(b'=');
                url.extend_from_slice(&filled(value, fill, escaped)?);
            }
            Scheme::Path { prefix } => {
                let prefix = filled(prefix, fill, escaped_in_path)?;
                let host = url.strip_prefix(b"https://").ok_or(RequestError::Address)?;
                let path =
                    url.len() - host.len() + host.iter().position(|&byte| byte == b'/').unwrap_or(host.len());
                let rest = Zeroizing::new(url.split_off(path));
                url.extend_from_slice(&prefix);
                url.extend_from_slice(&rest);
            }
            Scheme::Oauth2Client { client_auth, client_id, client_secret, .. } => {
                header("content-type", Zeroizing::new(b"application/x-www-form-urlencoded".to_vec()));
                body.extend_from_slice(b"grant_type=client_credentials");
                match client_auth {
                    ClientAuth::Basic => {
                        let id = filled(client_id, fill, as_it_is)?;
                        header("authorization", basic(&id, &filled(client_secret, fill, as_it_is)?));
                    }
                    ClientAuth::Form => {
                        body.extend_from_slice(b"&client_id=");
                        body.extend_from_slice(&filled(client_id, fill, escaped)?);
                        body.extend_from_slice(b"&client_secret=");
                        body.extend_from_slice(&filled(client_secret, fill, escaped)?);
                    }
                }
            }
            Scheme::Json { members } => {
                header("content-type", Zeroizing::new(b"application/json".to_vec()));
                body.extend_from_slice(&json_of(members, fill)?);
            }
            Scheme::Sigv4 { access_key_id, secret_access_key, session_token } => {
                let access_key_id = filled(access_key_id, fill, as_it_is)?;
                let is_temporary = access_key_id.starts_with(TEMPORARY);
                let token = session_token.as_ref().filter(|_| is_temporary);
                let token = token.map(|token| filled(token, fill, as_it_is)).transpose();
                let session_token = token.map_err(|_| RequestError::SessionToken)?;
                if is_temporary && session_token.is_none() {
                    return Err(RequestError::SessionToken);
                }
                let secret_access_key = filled(secret_access_key, fill, as_it_is)?;
                signing = Some((access_key_id, secret_access_key, session_token));
            }
        }
        let (host, port, target) = parts(&url).ok_or(RequestError::Address)?;
        let signing = signing.map(|(access_key_id, secret_access_key, session_token)| {
            let (service, region) = signed_for(&host);
            Signing { access_key_id, secret_access_key, session_token, service, region }
        });
        // INVARIANT: a key goes to the hosts of its provider and nowhere else, whatever was put into the address.
        if !self.send.hosts.iter().any(|pattern| is_host(pattern, &host)) {
            return Err(RequestError::Host);
        }
        Ok(Request { method, host, port, target, headers, body, signing })
    }
}

impl Request {
    /// Where it goes, as `HOST` or `HOST:PORT`.
    pub fn authority(&self) -> String {
        match self.port {
            HTTPS => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

/// A template with its values, each written by `write`.
fn filled(
    template: &Template,
    fill: &Fill<'_>,
    write: fn(&[u8], &mut Vec<u8>),
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    // Erased as a whole: what it grew out of would not be.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILLED));
    let mut rest = template.as_str();
    while let Some((before, name, after)) = next_name(rest) {
        text.extend_from_slice(before.as_bytes());
        let mut is_there = false;
        fill(name, &mut |value| {
            is_there = true;
            write(value, &mut text);
        });
        if !is_there {
            return Err(RequestError::Address);
        }
        rest = after;
    }
    text.extend_from_slice(rest.as_bytes());
    Ok(text)
}

/// A body in JSON with these members, each filled.
fn json_of(
    members: &BTreeMap<String, Template>,
    fill: &Fill<'_>,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let mut body = serde_json::Value::Object(serde_json::Map::new());
    for (pointer, template) in members {
        let text = filled(template, fill, as_it_is)?;
        let text = std::str::from_utf8(&text).map_err(|_| RequestError::Address)?;
        let mut place = &mut body;
        for name in pointer.split('/').skip(1) {
            let object = place.as_object_mut().ok_or(RequestError::Address)?;
            place = object.entry(name).or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
        }
        *place = text.into();
    }
    serde_json::to_vec(&body).map(Zeroizing::new).map_err(|_| RequestError::Address)
}

fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

fn as_it_is(value: &[u8], text: &mut Vec<u8>) {
    text.extend_from_slice(value);
}

/// Percent-encoded but for unreserved characters (RFC 3986 §2.3).
fn escaped(value: &[u8], text: &mut Vec<u8>) {
    escape(value, text, b"");
}

/// The same, but for the colon, which a path may hold (RFC 3986 §3.3) and which tokens have.
fn escaped_in_path(value: &[u8], text: &mut Vec<u8>) {
    escape(value, text, b":");
}

/// Nothing but dots would lead up a path.
fn escape(value: &[u8], text: &mut Vec<u8>, kept: &[u8]) {
    let only_dots = value.iter().all(|&byte| byte == b'.');
    for &byte in value {
        match byte {
            byte if kept.contains(&byte) => text.push(byte),
            b'.' if only_dots => text.extend_from_slice(b"%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte),
            _ => {
                let mut hex = String::new();
                // Writing to a string cannot fail.
                let _ = write!(hex, "%{byte:02X}");
                text.extend_from_slice(hex.as_bytes());
            }
        }
    }
}

/// The value of an `Authorization` header (RFC 7617).
fn basic(user: &[u8], password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 1));
    pair.extend_from_slice(user);
    pair.push(b':');
    pair.extend_from_slice(password);
    let mut value = Zeroizing::new(Vec::with_capacity(6 + pair.len().div_ceil(3) * 4));
    value.extend_from_slice(b"Basic ");
    base64::encode(&pair, &mut value);
    value
}

/// Host, port, path and query of an address.
fn parts(url: &[u8]) -> Option<(String, u16, Zeroizing<String>)> {
    let url = std::str::from_utf8(url).ok()?;
    let rest = url.strip_prefix("https://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, HTTPS),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(is_name) || target.contains('#') {
        return None;
    }
    let mut whole = Zeroizing::new(String::with_capacity(target.len() + 1));
    if !target.starts_with('/') {
        whole.push('/');
    }
    whole.push_str(target);
    let is_target = |byte: u8| matches!(byte, b'!'..=b'~');
    whole.bytes().all(is_target).then(|| (host.to_ascii_lowercase(), port, whole))
}

/// Service and region that a request to a host of AWS is signed for: `sts.eu-west-1.amazonaws.com`. Hosts without a region
/// are in the oldest one.
fn signed_for(host: &str) -> (String, String) {
    let mut labels = host.split('.');
    let service = labels.next().unwrap_or_default();
    let region = labels.next().filter(|label| *label != "amazonaws").unwrap_or("us-east-1");
    (service.to_owned(), region.to_owned())
}

/// Whether a host is one that a pattern lists; `*.` stands for one or more labels.
fn is_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => host
            .strip_suffix(domain)
            .and_then(|labels| labels.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty() && labels.split('.').all(|label| !label.is_empty())),
        None => pattern == host,
    }
}

fn is_said(says: &Says, json: &serde_json::Value) -> bool {
    json.pointer(&says.at).and_then(text_of).is_some_and(|text| says.is.contains(&text))
}

/// A text, number or truth value as text.
fn text_of(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Characters of an account's name; an address of mail has 254.
const MAX_ACCOUNT: usize = 300;
/// How the ids of temporary credentials of AWS begin, which work with their session token only
/// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html).
const TEMPORARY: &[u8] = b"ASIA";
/// The port of HTTPS.
const HTTPS: u16 = 443;
/// As long as a name in the DNS may be.
const MAX_HOST: usize = 253;
/// More than address and key have together, so that filling a template moves nothing.
const MAX_FILLED: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    fn question(provider: &str, field: &str) -> (Question, Key) {
        let provider = Catalogue::builtin().provider(provider).unwrap();
        let key = provider.keys.iter().find(|key| key.field == field).unwrap();
        (Question::about(provider, key).unwrap(), key.clone())
    }

    /// The requests as `METHOD authority target | name: value | … | body`.
    fn written(
        question: &Question,
        mode: Mode,
        values: &[(&str, &str)],
    ) -> Result<Vec<String>, RequestError> {
        let fill = |name: &str, lend: &mut dyn FnMut(&[u8])| {
            if let Some((_, value)) = values.iter().find(|(own, _)| *own == name) {
                lend(value.as_bytes());
            }
        };
        let write = |request: Request| {
            let mut text = format!("{:?} {} {}", request.method, request.authority(), *request.target);
            for (name, value) in &request.headers {
                let _ = write!(text, " | {name}: {}", String::from_utf8_lossy(value));
            }
            format!("{text} | {}", String::from_utf8_lossy(&request.body))
        };
        Ok(question.requests(mode, &fill)?.into_iter().map(write).collect())
    }

    #[test]
    fn requests_of_every_scheme() {
        let check = |provider: &str, field: &str, mode: Mode, values: &[(&str, &str)], expected: &[&str]| {
            let (question, _) = question(provider, field);
            assert_eq!(written(&question, mode, values).unwrap(), expected, "{provider}");
        };
        check(
            "square",
            "access_token",
            Mode::Test,
            &[("access_token", "made-up")],
            &["Get connect.squareupsandbox.com /v2/locations | authorization: Bearer made-up | "],
        );
        check(
            "paypal",
            "client_secret",
            Mode::Any,
            &[("client_id", "id"), ("client_secret", "made-up")],
            &[
                "Post api-m.paypal.com /v1/oauth2/token | content-type: application/x-www-form-urlencoded | authorization: Basic aWQ6bWFkZS11cA== | grant_type=client_credentials",
                "Post api-m.sandbox.paypal.com /v1/oauth2/token | content-type: application/x-www-form-urlencoded | authorization: Basic aWQ6bWFkZS11cA== | grant_type=client_credentials",
            ],
        );
        check(
            "fedex",
            "secret_key",
            Mode::Live,
            &[("api_key", "i/d"), ("secret_key", "made up")],
            &[
                "Post apis.fedex.com /oauth/token | content-type: application/x-www-form-urlencoded | grant_type=client_credentials&client_id=i%2Fd&client_secret=made%20up",
            ],
        );
        check(
            "authorize-net",
            "transaction_key",
            Mode::Test,
            &[("api_login_id", "i\"d"), ("transaction_key", "made-up")],
            &[
                "Post apitest.authorize.net /xml/v1/request.api | content-type: application/json | {\"authenticateTestRequest\":{\"merchantAuthentication\":{\"name\":\"i\\\"d\",\"transactionKey\":\"made-up\"}}}",
            ],
        );
        check(
            "telegram",
            "bot_token",
            Mode::Any,
            &[("bot_token", "1:A/b")],
            &["Get api.telegram.org /bot1:A%2Fb/getMe | "],
        );
        check(
            "twilio",
            "auth_token",
            Mode::Any,
            &[("account_sid", "AC../1"), ("auth_token", "made-up")],
            &[
                "Get api.twilio.com /2010-04-01/Accounts/AC..%2F1.json | authorization: Basic QUMuLi8xOm1hZGUtdXA= | ",
            ],
        );
    }

    #[test]
    fn a_key_goes_to_the_hosts_of_its_provider_only() {
        let check = |shop: &str, expected: Result<&str, RequestError>| {
            let (question, _) = question("shopify", "client_secret");
            let values = [("shop", shop), ("client_id", "id"), ("client_secret", "made-up")];
            let hosts = written(&question, Mode::Any, &values);
            let host = hosts.map(|requests| requests[0].split(' ').nth(1).unwrap().to_owned());
            assert_eq!(host, expected.map(str::to_owned), "{shop}");
        };
        check("made-up.myshopify.com", Ok("made-up.myshopify.com"));
        check("MADE-UP.myshopify.com", Ok("made-up.myshopify.com"));
        check("evil.test", Err(RequestError::Host));
        check("made-up.myshopify.com.evil.test", Err(RequestError::Host));
        check(".myshopify.com", Err(RequestError::Host));
        check("evilmyshopify.com", Err(RequestError::Host));
        check("evil.test/.myshopify.com", Err(RequestError::Address));
        check("evil.test#.myshopify.com", Err(RequestError::Address));
        check("a@evil.test", Err(RequestError::Address));
        check("evil.test:443", Err(RequestError::Address));
        check("", Err(RequestError::Address));
    }

    #[test]
    fn requests_that_are_signed() {
        let (question, _) = question("aws", "secret_access_key");
        let check = |id: &str, token: Option<&str>, expected: Result<Option<&str>, RequestError>| {
            let mut values = vec![("access_key_id", id), ("secret_access_key", "made-up")];
            values.extend(token.map(|token| ("session_token", token)));
            let fill = |name: &str, lend: &mut dyn FnMut(&[u8])| {
                let value = values.iter().find(|(own, _)| *own == name);
                value.into_iter().for_each(|(_, value)| lend(value.as_bytes()));
            };
            let signing = question.requests(Mode::Any, &fill).map(|requests| {
                let signings: Vec<Signing> =
                    requests.into_iter().map(|request| request.signing.unwrap()).collect();
                let scopes: Vec<_> =
                    signings.iter().map(|own| (own.service.as_str(), own.region.as_str())).collect();
                assert_eq!(scopes, [("sts", "us-east-1"), ("sts", "cn-north-1"), ("sts", "us-gov-west-1")]);
                signings.into_iter().next().unwrap().session_token
            });
            let token = signing.map(|token| token.map(|token| String::from_utf8(token.to_vec()).unwrap()));
            assert_eq!(token, expected.map(|token| token.map(str::to_owned)), "{id}");
        };
        check("AKIAMADEUPEXAMPLE234", None, Ok(None));
        // One that stands near belongs to somebody else.
        check("AKIAMADEUPEXAMPLE234", Some("made-up-token"), Ok(None));
        check("ASIAMADEUPEXAMPLE567", Some("made-up-token"), Ok(Some("made-up-token")));
        check("ASIAMADEUPEXAMPLE567", None, Err(RequestError::SessionToken));
    }

    #[test]
    fn what_is_needed_and_what_cannot_be_asked() {
        let needs = |provider: &str, field: &str| {
            let (question, key) = question(provider, field);
            question.needs(&key).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(needs("stripe", "secret_key"), [""; 0]);
        assert_eq!(needs("mailchimp", "api_key"), [""; 0]);
        assert_eq!(needs("twilio", "auth_token"), ["account_sid"]);
        assert_eq!(needs("shopify", "client_secret"), ["shop", "client_id"]);
        let unasked = |provider: &str, key: &str| {
            let provider = Catalogue::builtin().provider(provider).unwrap();
            Question::about(provider, provider.key(key).unwrap()).err()
        };
        assert_eq!(unasked("stripe", "webhook"), Some(Unasked));
        assert_eq!(unasked("aws", "session_token"), Some(Unasked));
        let (aws, key) = question("aws", "secret_access_key");
        assert_eq!((aws.needs(&key), aws.goes_along()), (vec!["access_key_id"], vec!["session_token"]));
    }

    #[test]
    fn answers_and_what_they_say() {
        let (plain, _) = question("stripe", "secret_key");
        let mut with_body = plain.clone();
        let says = |at: &str, is: &str| vec![Says { status: Some(200), at: at.into(), is: vec![is.into()] }];
        with_body.check = Check {
            alive: vec![200],
            alive_if: says("/ok", "true"),
            dead: vec![200, 401],
            dead_if: says("/error", "invalid_auth"),
            account: vec!["/team".into(), "/nothing".into(), "x-organization".into()],
            ..plain.check.clone()
        };
        let alive = |account: &str| Verdict::Alive(Some(account.into()));
        let header = |name: &str| (name == "x-organization").then(|| "made-up".to_owned());
        for (question, status, body, expected) in [
            (&with_body, 200, r#"{"ok":true,"team":"Acme"}"#, alive("Acme, made-up")),
            (&with_body, 200, r#"{"ok":true,"team":7}"#, alive("7, made-up")),
            (&with_body, 200, r#"{"ok":true,"team":"A\u001b[2Jcme\n"}"#, alive("A[2Jcme, made-up")),
            (&with_body, 200, r#"{"ok":false,"error":"invalid_auth"}"#, Verdict::Dead),
            (&with_body, 200, r#"{"ok":false,"error":"ratelimited"}"#, Verdict::Unclear),
            (&with_body, 200, "no JSON", Verdict::Unclear),
            (&with_body, 401, "no JSON", Verdict::Dead),
            (&with_body, 200, "\u{feff}{\"ok\":true,\"team\":\"Acme\"}", alive("Acme, made-up")),
            (&with_body, 500, r#"{"ok":true}"#, Verdict::Unclear),
            (&plain, 401, "", Verdict::Dead),
            (&plain, 302, "", Verdict::Unclear),
            (&plain, 429, "", Verdict::Unclear),
        ] {
            assert_eq!(question.verdict(status, &header, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
