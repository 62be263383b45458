//! A vault in a directory of its own, with a clock that is set by hand.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText};
use keymoat_core::names::{AccountName, Scope};
use keymoat_core::policy::{Capability, Policy, Resource, Rule};
use keymoat_core::secret::ValueKind;
use keymoat_crypto::{MasterKey, SecretBytes};
use keymoat_detect::Catalogue;
use keymoat_store::Durability;
use keymoat_vault::entity::{AccountKind, SecretName, SlotSource};
use keymoat_vault::{
    Annotation, AuditQuery, AuditRecord, Caller, Clock, Code, IssuedToken, MasterKeyOffer, NewAccount,
    NewGrant, NewSlot, NewToken, NewValue, NewVault, Origin, Put, RequestNeeds, Revealed, SealedVault,
    Surroundings, Vault, VaultError, Wanted, Written,
};
use tempfile::TempDir;

/// A clock that stands until it is moved.
pub struct HandClock(AtomicI64);

impl HandClock {
    pub fn forward(&self, by: SignedDuration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

pub struct Desk {
    pub tmp: TempDir,
    pub clock: Arc<HandClock>,
    pub master: SecretBytes,
    pub code: SecretBytes,
    pub vault: Vault,
}

impl Desk {
    pub async fn new() -> Self {
        let tmp = tempdir();
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
        let (vault, code) = empty.create(new, surroundings(tmp.path(), &clock)).await.unwrap();
        let code = code.text().duplicate();
        Self { tmp, clock, master: text, code, vault }
    }

    pub fn data(&self) -> PathBuf {
        self.tmp.path().join("data")
    }

    pub fn surroundings(&self) -> Surroundings {
        surroundings(self.tmp.path(), &self.clock)
    }

    pub fn sealed(&self) -> Result<SealedVault, VaultError> {
        SealedVault::open(&self.data(), Durability::Disk).map(|sealed| sealed.ok().unwrap())
    }

    /// Closes the vault and opens it again.
    pub async fn reopened(self) -> Self {
        self.closed_then(|shut| shut.sealed().unwrap().unseal(&shut.offer(), shut.surroundings()).unwrap())
            .await
    }

    pub async fn closed_then(self, open: impl FnOnce(&Shut) -> Vault) -> Self {
        let Self { tmp, clock, master, code, vault } = self;
        vault.close().await;
        let shut = Shut { tmp, clock, master };
        let vault = open(&shut);
        let Shut { tmp, clock, master } = shut;
        Self { tmp, clock, master, code, vault }
    }

    /// The owner of the data directory, who may do everything.
    pub async fn owner(&self) -> Caller {
        self.vault.sign_in_os_user("ana", self.origin()).await.unwrap()
    }

    /// The first administrator, who may do everything but read values.
    pub async fn administrator(&self) -> Caller {
        let issued = self.vault.sign_in_with_code(&self.code, self.origin()).await.unwrap();
        self.vault.sign_in_with_token(issued.token.text(), self.origin()).await.unwrap()
    }

    pub fn origin(&self) -> Origin {
        Origin {
            request: self.vault.new_request_id(),
            address: None,
            user_agent: None,
            module: None,
            on_behalf_of: None,
        }
    }

    pub fn origin_at(&self, address: &str) -> Origin {
        Origin { address: Some(address.parse::<IpAddr>().unwrap()), ..self.origin() }
    }

    /// Makes an account with one policy of these rules, and signs it in.
    pub async fn service(&self, name: &str, rules: &str) -> Caller {
        let owner = self.owner().await;
        self.policy(&owner, name, rules).await.unwrap();
        self.account(&owner, name, AccountKind::ServiceAccount, &[name], &[]).await.unwrap();
        self.sign_in(name).await
    }

    pub async fn policy(&self, by: &Caller, name: &str, rules: &str) -> Result<(), VaultError> {
        self.vault.put_policy(by, policy(name, rules)).await.map(|_| ())
    }

    pub async fn account(
        &self,
        by: &Caller,
        account: &str,
        kind: AccountKind,
        policies: &[&str],
        groups: &[&str],
    ) -> Result<(), VaultError> {
        let new = NewAccount {
            name: name(account),
            kind,
            description: String::new(),
            policies: policies.iter().map(|policy| policy.parse().unwrap()).collect(),
            groups: groups.iter().map(|group| name(group)).collect::<BTreeSet<_>>(),
        };
        self.vault.create_account(by, new).await.map(|_| ())
    }

    /// A token that the owner makes for an account, in use.
    pub async fn sign_in(&self, account: &str) -> Caller {
        let token = self.vault.create_token(&self.owner().await, new_token(account)).await.unwrap();
        self.vault.sign_in_with_token(token.token.text(), self.origin()).await.unwrap()
    }

    /// A token that lasts as long as that of its maker allows.
    pub async fn token_by(&self, by: &Caller, account: &str) -> Result<IssuedToken, VaultError> {
        let tokens = self.vault.list_tokens(&self.owner().await, None).await.unwrap();
        let own = tokens.iter().find(|token| Some(token.id) == by.token);
        let left = own.map(|own| own.expires_at.duration_since(self.vault.now()));
        let new = new_token(account);
        let ttl = left.map_or(new.ttl, |left| left.min(new.ttl));
        self.vault.create_token(by, NewToken { ttl, ..new }).await
    }

    pub async fn put(&self, by: &Caller, path: &str, value: &str) -> Result<Written, VaultError> {
        self.vault.put(by, put(path, value)).await
    }

    pub async fn reveal(&self, by: &Caller, path: &str) -> Result<Revealed, VaultError> {
        self.vault.reveal(by, &secret(path), None, &Wanted::default(), None).await
    }

    /// The records that fit, oldest first, without those of reading the log.
    pub async fn records(&self, wanted: impl Fn(&AuditRecord) -> bool) -> Vec<AuditRecord> {
        let query = AuditQuery { oldest_first: true, limit: 10_000, ..AuditQuery::default() };
        let records = self.vault.query_audit(&self.owner().await, query).await.unwrap();
        let reads_log = |record: &AuditRecord| record.event.action == Action::AuditRead;
        records.into_iter().filter(|record| !reads_log(record) && wanted(record)).collect()
    }

    /// The records that `work` leaves.
    pub async fn records_of<R>(&self, work: impl Future<Output = R>) -> (R, Vec<AuditRecord>) {
        let before = self.records(|_| true).await.last().map(|record| record.event.seq);
        let result = work.await;
        let records = self.records(|record| before.is_none_or(|before| record.event.seq > before)).await;
        (result, records)
    }

    /// Every byte of the data directory's files.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in std::fs::read_dir(self.data()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                bytes.extend(std::fs::read(path).unwrap());
            }
        }
        bytes
    }
}

/// What is left of a desk when it is closed.
pub struct Shut {
    pub tmp: TempDir,
    pub clock: Arc<HandClock>,
    pub master: SecretBytes,
}

impl Shut {
    pub fn sealed(&self) -> Result<SealedVault, VaultError> {
        SealedVault::open(&self.tmp.path().join("data"), Durability::Disk).map(|sealed| sealed.ok().unwrap())
    }

    pub fn offer(&self) -> MasterKeyOffer {
        MasterKeyOffer::Key(self.master.duplicate())
    }

    pub fn surroundings(&self) -> Surroundings {
        surroundings(self.tmp.path(), &self.clock)
    }
}

pub fn surroundings(dir: &Path, clock: &Arc<HandClock>) -> Surroundings {
    Surroundings {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        catalogue: Arc::new(Catalogue::with_extra(&[]).unwrap()),
        outside_dir: dir.join("outside"),
        durability: Durability::Disk,
        database: None,
        key_at_hand: None,
    }
}

pub fn tempdir() -> TempDir {
    match Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm").unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

pub fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

/// `prod/stripe`, or `prod/acme:stripe` for a company's own.
pub fn secret(text: &str) -> SecretName {
    let (environment, path) = text.split_once('/').unwrap();
    let (company, path) = match path.split_once(':') {
        Some((company, path)) => (Some(company.parse().unwrap()), path),
        None => (None, path),
    };
    SecretName { environment: environment.parse().unwrap(), company, path: path.parse().unwrap() }
}

pub fn bytes(text: &str) -> SecretBytes {
    SecretBytes::from_slice(text.as_bytes())
}

pub fn text(value: &SecretBytes) -> String {
    // EXPOSE: a made-up value in a test.
    value.expose(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

pub fn put(path: &str, value: &str) -> Put {
    Put {
        name: secret(path),
        value: NewValue::Whole { kind: ValueKind::Text, value: bytes(value) },
        replace: false,
        expected: None,
        pending: false,
        duplicate_because: None,
        allow_empty: false,
        annotation: Annotation::default(),
        action: Action::Write,
    }
}

pub fn put_fields(path: &str, fields: &[(&str, &str)]) -> Put {
    let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), bytes(value))).collect();
    Put { value: NewValue::Fields(fields), ..put(path, "") }
}

pub fn policy(name: &str, rules: &str) -> Policy {
    serde_json::from_str(&format!(r#"{{"name":"{name}","rules":{rules}}}"#)).unwrap()
}

/// What writing a secret needs.
pub fn needs_write(path: &str) -> RequestNeeds {
    let name = secret(path);
    let (scope, path) = (Scope::Environment(name.environment), name.path.into());
    let resource = Resource { scope, company: name.company, path, field: None };
    RequestNeeds { capability: Some(Capability::Write), resource }
}

pub fn rules(json: &str) -> Vec<Rule> {
    serde_json::from_str(json).unwrap()
}

pub fn new_token(account: &str) -> NewToken {
    NewToken {
        account: name(account),
        description: String::new(),
        ttl: SignedDuration::from_hours(24 * 30),
        renewable_for: None,
        uses: None,
        networks: Vec::new(),
    }
}

pub fn new_grant(account: &str, json: &str, hours: i64) -> NewGrant {
    NewGrant {
        account: name(account),
        rules: rules(json),
        starts_at: None,
        lasts: SignedDuration::from_hours(hours),
        uses: None,
        reason: AuditText::new("to try it"),
        break_glass: false,
    }
}

#[track_caller]
pub fn refused<T>(result: Result<T, VaultError>) -> VaultError {
    coded(result, Code::Refused)
}

#[track_caller]
pub fn coded<T>(result: Result<T, VaultError>, code: Code) -> VaultError {
    match result {
        Ok(_) => panic!("expected {code:?}"),
        Err(error) => {
            assert_eq!(error.code, code, "{error}");
            error
        }
    }
}

/// 2026-01-05, a Monday, 09:00 UTC.
pub const START_MS: i64 = 1_767_603_600_000;
/// May read everything in production.
pub const READS: &str =
    r#"[{"capabilities":["list","inspect","reveal"],"environments":["prod"],"paths":["**"]}]"#;
/// May read one path and nothing else.
pub const READS_STRIPE: &str = r#"[{"capabilities":["reveal"],"environments":["prod"],"paths":["stripe"]}]"#;
/// A made-up key that the catalogue knows.
pub const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatTest";
