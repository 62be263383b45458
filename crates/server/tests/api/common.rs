//! A vault in a directory of its own behind the router, with a clock that is set by hand.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use keymoat_crypto::{MasterKey, SecretBytes};
use keymoat_detect::Catalogue;
use keymoat_server::{Custody, Doors, Peer, Terms};
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{Clock, Durability, NewSlot, NewVault, SealedVault, Surroundings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A clock that stands until it is moved.
pub struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

pub struct House {
    pub tmp: TempDir,
    pub clock: Arc<HandClock>,
    pub custody: Custody,
    /// Signs in the first administrator, once.
    pub code: String,
    /// The master key's text.
    pub master: SecretBytes,
    addresses: AtomicU32,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
    pub text: String,
}

/// A request in the making.
pub struct Call<'h> {
    house: &'h House,
    request: http::request::Builder,
    peer: Peer,
    body: Body,
}

impl House {
    /// A vault with the environments `prod` and `staging` and the company `acme`; its owner is the user `ana`.
    pub async fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("outside")).unwrap();
        let clock = Arc::new(HandClock(AtomicI64::new(START_MS)));
        let master = MasterKey::generate();
        let text = master.to_text();
        let empty = SealedVault::open(&tmp.path().join("data"), Durability::Disk).unwrap().err().unwrap();
        let new = NewVault {
            instance: uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
            slot: NewSlot { source: SlotSource::Key, master },
            os_user: "ana".to_owned(),
            environments: vec!["prod".parse().unwrap(), "staging".parse().unwrap()],
        };
        let surroundings = Surroundings {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            catalogue: Arc::new(Catalogue::with_extra(&[]).unwrap()),
            outside_dir: tmp.path().join("outside"),
            durability: Durability::Os,
            database: None,
            key_at_hand: None,
        };
        let (vault, code) = empty.create(new, surroundings.clone()).await.unwrap();
        let doors = Doors { host_names: vec![HOST.to_owned()], open_metrics: false, ..Doors::default() };
        let terms = Terms { surroundings, doors, certificate: None, tend: |_| Box::pin(async {}) };
        let custody = Custody::open(vault, terms);
        let code = text_of(code.text());
        let house = Self { tmp, clock, custody, code, master: text, addresses: AtomicU32::new(1) };
        house.owner("PUT", "/api/v1/companies/acme").json(json!({})).send().await.ok();
        house
    }

    pub fn forward(&self, by: SignedDuration) {
        self.clock.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// A request of the owner, who came through the socket.
    pub fn owner(&self, method: &str, path: &str) -> Call<'_> {
        self.call(method, path, Peer::OsUser { name: "ana".to_owned() })
    }

    /// A request from a network address that nobody had before, with a token or without.
    pub fn client(&self, method: &str, path: &str, token: Option<&str>) -> Call<'_> {
        let number = self.addresses.fetch_add(1, Ordering::SeqCst);
        let addr = SocketAddr::new(IpAddr::from((0x0a00_0000_u32 + number).to_be_bytes()), 40_000);
        let call = self.call(method, path, Peer::Tcp { addr });
        match token {
            Some(token) => call.header("authorization", &format!("Bearer {token}")),
            None => call,
        }
    }

    pub fn call(&self, method: &str, path: &str, peer: Peer) -> Call<'_> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = Request::builder().method(method).uri(path).header("host", HOST);
        Call { house: self, request, peer, body: Body::empty() }
    }

    /// Makes a service account with a policy of these rules, and a token for it that lasts a day.
    pub async fn service(&self, name: &str, rules: Value) -> String {
        let is_any = rules.as_array().is_some_and(|rules| !rules.is_empty());
        if is_any {
            let policy = format!("/api/v1/policies/{name}");
            self.owner("PUT", &policy).json(json!({ "rules": rules })).send().await.ok();
        }
        let policies = if is_any { json!([name]) } else { json!([]) };
        let account = json!({ "name": name, "kind": "service_account", "policies": policies });
        self.owner("POST", "/api/v1/accounts").json(account).send().await.ok();
        self.token(name, 86_400).await.0
    }

    /// A token and its id.
    pub async fn token(&self, account: &str, ttl_secs: u64) -> (String, String) {
        let path = format!("/api/v1/accounts/{account}/tokens");
        let made = self.owner("POST", &path).json(json!({ "ttl_secs": ttl_secs })).send().await.ok();
        (made["token"].as_str().unwrap().to_owned(), made["about"]["id"].as_str().unwrap().to_owned())
    }

    /// Stores a text.
    pub async fn put(&self, path: &str, value: &str) -> Value {
        let path = format!("/api/v1/secrets/{path}");
        self.owner("PUT", &path).json(json!({ "value": { "text": value } })).send().await.ok()
    }

    /// The newest record that fits a query.
    pub async fn newest_record(&self, query: &str) -> Value {
        let page = self.owner("GET", &format!("/api/v1/audit?limit=1&{query}")).send().await.ok();
        page["events"][0]["event"].clone()
    }
}

impl Call<'_> {
    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    pub fn json(self, body: Value) -> Self {
        Self { body: Body::from(body.to_string()), ..self }.header("content-type", "application/json")
    }

    pub fn body(self, body: impl Into<Body>) -> Self {
        Self { body: body.into(), ..self }
    }

    pub async fn send(self) -> Reply {
        let mut request = self.request.body(self.body).unwrap();
        request.extensions_mut().insert(self.peer);
        let (parts, body) = self.house.custody.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status: parts.status, headers: parts.headers, json, text }
    }
}

impl Reply {
    /// The answer, which must be a good one.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.json
    }

    /// Checks a refusal: status, code, and words of the detail.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str, says: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json["code"], code, "{}", self.text);
        assert!(self.json["detail"].as_str().unwrap().contains(says), "{}", self.text);
        self.json
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header {name}: {:?}", self.headers))
            .to_str()
            .unwrap()
    }
}

/// A made-up secret as text.
pub fn text_of(secret: &SecretBytes) -> String {
    // EXPOSE: a made-up secret of a test.
    secret.expose(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

/// The name under which it is spoken to.
pub const HOST: &str = "vault.test";
/// 2026-06-01, when nothing happens.
const START_MS: i64 = 1_780_272_000_000;
