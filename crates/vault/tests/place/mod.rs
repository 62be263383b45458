//! A vault in a directory of its own with a clock that a test sets, for the tests of backups and keys.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::Action;
use keymoat_core::id::RequestId;
use keymoat_core::names::{AccountName, Environment};
use keymoat_core::secret::ValueKind;
use keymoat_crypto::{MasterKey, SecretBytes};
use keymoat_detect::Catalogue;
use keymoat_store::Durability;
use keymoat_vault::entity::{AccountKind, SecretName, SlotSource};
use keymoat_vault::{
    Annotation, Caller, Clock, MasterKeyOffer, NewAccount, NewSlot, NewValue, NewVault, Origin, Put,
    SealedVault, Surroundings, Vault, VaultError, VerifyReport, Wanted,
};
use tempfile::TempDir;

pub const OWNER: &str = "tester";

/// A machine: a place for a data directory, and one outside of it.
pub struct Place {
    pub tmp: TempDir,
    pub clock: Arc<TestClock>,
    pub durability: Durability,
}

pub struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

impl TestClock {
    pub fn advance(&self, by: SignedDuration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Place {
    /// In memory where there is such a place: most tests sync a great deal and ask nothing of the disk.
    pub fn new() -> Self {
        let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::create_dir(tmp.path().join("outside")).unwrap();
        let start: Timestamp = "2026-05-04T10:00:00Z".parse().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(start.as_millisecond())));
        Self { tmp, clock, durability: Durability::Disk }
    }

    pub fn data(&self) -> PathBuf {
        self.tmp.path().join("data")
    }

    pub fn outside(&self) -> PathBuf {
        self.tmp.path().join("outside")
    }

    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            catalogue: Arc::new(Catalogue::builtin().clone()),
            outside_dir: self.outside(),
            durability: self.durability,
            database: None,
            key_at_hand: None,
        }
    }

    /// Makes a vault here and gives the offer that opens it.
    pub async fn create(&self) -> (Vault, MasterKeyOffer) {
        let master = MasterKey::generate();
        let offer = MasterKeyOffer::Key(master.to_text());
        let empty = SealedVault::open(&self.data(), self.durability).unwrap().err().unwrap();
        let new = NewVault {
            instance: uuid::Uuid::from_bytes(keymoat_crypto::bytes()),
            slot: NewSlot { source: SlotSource::Key, master },
            os_user: OWNER.to_owned(),
            environments: vec![environment("prod"), environment("dev")],
        };
        let (vault, _) = empty.create(new, self.surroundings()).await.unwrap();
        (vault, offer)
    }

    pub fn sealed(&self) -> SealedVault {
        SealedVault::open(&self.data(), self.durability).unwrap().ok().unwrap()
    }

    pub fn open(&self, offer: &MasterKeyOffer) -> Result<Vault, VaultError> {
        self.sealed().unseal(offer, self.surroundings())
    }

    /// Reads everything again, the vault being closed.
    pub fn verify(&self, offer: &MasterKeyOffer) -> VerifyReport {
        self.sealed().verify(offer, &self.outside(), |_| {}).unwrap()
    }

    /// Every byte of every file of the data directory.
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

    pub fn contains(&self, needle: &[u8]) -> bool {
        contains(&self.bytes(), needle)
    }
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

pub fn environment(name: &str) -> Environment {
    name.parse().unwrap()
}

pub fn origin(vault: &Vault) -> Origin {
    Origin {
        request: vault.new_request_id(),
        address: None,
        user_agent: None,
        module: None,
        on_behalf_of: None,
    }
}

pub async fn owner(vault: &Vault) -> Caller {
    vault.sign_in_os_user(OWNER, origin(vault)).await.unwrap()
}

/// A service account that may do nothing.
pub async fn nobody(vault: &Vault) -> Caller {
    let new = NewAccount {
        name: "nobody".parse().unwrap(),
        kind: AccountKind::ServiceAccount,
        description: String::new(),
        policies: Default::default(),
        groups: Default::default(),
    };
    let account = vault.create_account(&owner(vault).await, new).await.unwrap();
    Caller {
        principal: account.id,
        name: account.name.clone(),
        kind: account.kind.principal_kind().unwrap(),
        token: None,
        origin: Origin { request: RequestId::from_parts(1, &[1; 10]), ..origin(vault) },
    }
}

pub fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

/// `prod/stripe`, or `prod/acme:stripe` for a company's own.
pub fn name(text: &str) -> SecretName {
    let (environment, rest) = text.split_once('/').unwrap();
    let (company, path) = match rest.split_once(':') {
        Some((company, path)) => (Some(company.parse().unwrap()), path),
        None => (None, rest),
    };
    SecretName { environment: environment.parse().unwrap(), company, path: path.parse().unwrap() }
}

pub fn text(value: &str) -> NewValue {
    NewValue::Whole { kind: ValueKind::Text, value: SecretBytes::from_slice(value.as_bytes()) }
}

pub async fn put(vault: &Vault, caller: &Caller, at: &str, value: NewValue) -> u32 {
    let put = Put {
        name: name(at),
        value,
        replace: false,
        expected: None,
        pending: false,
        duplicate_because: None,
        allow_empty: false,
        annotation: Annotation::default(),
        action: Action::Write,
    };
    vault.put(caller, put).await.unwrap().version
}

pub async fn reveal(
    vault: &Vault,
    caller: &Caller,
    at: &str,
    version: Option<u32>,
) -> Result<String, VaultError> {
    let wanted = version.map_or_else(Wanted::default, Wanted::Number);
    let revealed = vault.reveal(caller, &name(at), None, &wanted, None).await?;
    // EXPOSE: a made-up value in a test.
    Ok(revealed.value.expose(|bytes| String::from_utf8(bytes.clone()).unwrap()))
}
