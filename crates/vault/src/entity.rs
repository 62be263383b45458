//! What stands in the rows of the store, as JSON: the forms on the disk, and how their keys are spelt.
//!
//! Fields are only ever added, with a default, so that older rows stay readable.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;
use keymoat_core::audit::{AuditText, PrincipalKind};
use keymoat_core::grant::{Grant, GrantParts, GrantState};
use keymoat_core::id::{GrantId, PrincipalId, SecretId, TokenId};
use keymoat_core::names::{AccountName, Company, Environment, Field, Label, PolicyName, SecretPath};
use keymoat_core::policy::{CompiledRule, Policy, Rule};
use keymoat_core::resolve::EnvOverride;
use keymoat_core::secret::ValueKind;
use keymoat_core::versions::{VersionSet, VersionState};
use keymoat_store::{Archive, Kind, Row};
use litemap::LiteMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::VaultError;

/// A form that stands in rows of one kind.
pub trait Entity: Serialize + DeserializeOwned {
    /// The kind of row.
    const KIND: Kind;

    /// The row's key.
    fn key(&self) -> String;

    /// The JSON text.
    fn body(&self) -> String {
        serde_json::to_string(self).expect("the forms have string keys and no failing serializers")
    }

    /// Reads a row.
    ///
    /// # Errors
    /// When the row's JSON is not of this form.
    fn parse(row: &Row) -> Result<Self, VaultError> {
        serde_json::from_str(&row.body).map_err(|error| {
            VaultError::damaged(format!(
                "the {} row `{}` cannot be read: {error}",
                row.kind.as_str(),
                row.key
            ))
        })
    }
}

impl Entity for Archive {
    const KIND: Kind = Kind::Archive;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

/// The vault itself; its instance key, wrapped by the root key, is the row's blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its id; every ciphertext is bound to it.
    pub id: uuid::Uuid,
    /// Its birth.
    pub created_at: Timestamp,
    /// Which of the signing keys derived from the instance key signs checkpoints.
    pub audit_generation: u32,
}

/// A way to unwrap the root key; the wrapped key is the row's blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Slot {
    /// Its number.
    pub id: u32,
    /// Where its master key comes from.
    pub source: SlotSource,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where the master key of a slot comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SlotSource {
    /// A key text in a file, an environment variable, a command's output or a systemd credential. Which of them is
    /// the operator's affair and may change without the slot knowing.
    Key,
    /// A passphrase, stretched with Argon2id.
    Passphrase {
        /// How it is stretched.
        argon2: keymoat_crypto::Argon2Params,
    },
    /// A key split in shares.
    Shamir {
        /// Shares needed.
        needed: u8,
        /// Shares made.
        count: u8,
    },
}

impl SlotSource {
    /// The stable name, part of what the wrapped root key is bound to.
    pub fn name(&self) -> &'static str {
        match self {
            SlotSource::Key => "key",
            SlotSource::Passphrase { .. } => "passphrase",
            SlotSource::Shamir { .. } => "shamir",
        }
    }
}

/// A data key of one environment and company; the wrapped key is the row's blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DataKeyEntity {
    /// Its number, unique in the vault.
    pub id: u32,
    /// Whose.
    pub environment: Environment,
    /// Whose.
    pub company: Option<Company>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether new versions are encrypted under it; a retired one only decrypts.
    pub active: bool,
}

/// A pepper of token digests; the wrapped pepper is the row's blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PepperEntity {
    /// Its number.
    pub id: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvironmentEntity {
    /// Its name.
    pub name: Environment,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A company.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompanyEntity {
    /// Its name.
    pub name: Company,
    /// What it is called in full.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where a secret stands: environment, company, path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretName {
    /// The environment.
    pub environment: Environment,
    /// The company whose own it is; none for one that all share.
    pub company: Option<Company>,
    /// The path.
    pub path: SecretPath,
}

impl SecretName {
    /// The key of the secret's row.
    pub fn row_key(&self) -> String {
        format!("{}/{}/{}", self.environment, company_text(self.company.as_ref()), self.path)
    }

    /// Reads the key of a secret's row.
    pub fn from_row_key(key: &str) -> Option<Self> {
        let (environment, rest) = key.split_once('/')?;
        let (company, path) = rest.split_once('/')?;
        let company = match company {
            "-" => None,
            name => Some(name.parse().ok()?),
        };
        Some(Self { environment: environment.parse().ok()?, company, path: path.parse().ok()? })
    }

    /// A command on this secret, for a hint: it works when it is pasted.
    pub fn command(&self, command: &str) -> String {
        let (path, flags) = (&self.path, self.flags());
        format!("`keymoat {command} {path} {flags}`")
    }

    /// The flags that say in which environment and of which company.
    pub fn flags(&self) -> String {
        match &self.company {
            None => format!("--env {}", self.environment),
            Some(company) => format!("--env {} --company {company}", self.environment),
        }
    }
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.environment, self.path)?;
        match &self.company {
            Some(company) => write!(f, " ({company})"),
            None => Ok(()),
        }
    }
}

/// A secret: everything but its values.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secret {
    /// Its id, which a rename does not change.
    pub id: SecretId,
    /// Where it stands.
    #[serde(flatten)]
    pub name: SecretName,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Who answers for it, in the users' own words.
    #[serde(default)]
    pub owner: String,
    /// Free words for finding it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// When it stops being valid, as far as is known.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// What a variable may do.
    #[serde(default = "warn")]
    pub env_override: EnvOverride,
    /// Whether every write must say which version it follows.
    #[serde(default)]
    pub cas_required: bool,
    /// Versions kept.
    pub max_versions: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// The versions and labels.
    #[serde(with = "stored_versions")]
    pub versions: VersionSet,
    /// What may be shown of each version.
    #[serde(with = "stored_facts")]
    pub facts: LiteMap<u32, VersionFacts>,
}

/// What may be shown of a version: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionFacts {
    /// By whom it was written.
    pub created_by: String,
    /// What the value is.
    pub kind: ValueKind,
    /// Its fields; a single nameless one for a value without fields.
    pub fields: Box<[FieldFacts]>,
}

/// What may be shown of a field, or of a value without fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldFacts {
    /// The field; none for the whole value.
    pub field: Option<Field>,
    /// The value with all but the provider's prefix and the last four characters left out.
    pub masked: String,
    /// Whose key it is, when the catalogue knows.
    #[serde(default)]
    pub provider: Option<String>,
    /// What kind of key.
    #[serde(default)]
    pub key_kind: Option<String>,
    /// Live or test.
    #[serde(default)]
    pub mode: Option<String>,
    /// The keyed fingerprint of the value, in hexadecimal, when it has one.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

/// The ciphertext of a version, the row's blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionEntity {
    /// The secret.
    pub secret: SecretId,
    /// The version.
    pub version: u32,
    /// The data key that it is encrypted under.
    pub data_key: u32,
}

/// Where a value with a certain keyed fingerprint is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FingerprintEntity {
    /// The fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// The secret.
    pub secret: SecretId,
    /// The version.
    pub version: u32,
    /// The field.
    pub field: Option<Field>,
    /// Where the secret stands.
    #[serde(flatten)]
    pub name: SecretName,
}

/// A user, a service account or a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: PrincipalId,
    /// Its name.
    pub name: AccountName,
    /// What it is.
    pub kind: AccountKind,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Policies that it has itself.
    #[serde(default)]
    pub policies: BTreeSet<PolicyName>,
    /// Groups that it is in, by name.
    #[serde(default)]
    pub groups: BTreeSet<AccountName>,
    /// Whether it may act.
    pub active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Whose hands made it: who did it, and who made what he was signed in with.
    #[serde(default)]
    pub created_by_ids: BTreeSet<PrincipalId>,
    /// Who last changed its policies, its groups or whether it acts.
    #[serde(default)]
    pub rights_by: Option<String>,
    /// Whose hands last changed them.
    #[serde(default)]
    pub rights_by_ids: BTreeSet<PrincipalId>,
    /// When they were last changed.
    #[serde(default)]
    pub rights_at: Option<Timestamp>,
}

/// Kinds of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    /// A person.
    User,
    /// A user of the operating system that Keymoat runs on, who is known by the socket.
    OsUser,
    /// A program.
    ServiceAccount,
    /// Nobody itself: its members have its policies.
    Group,
}

impl AccountKind {
    /// The kind as audit records name it; `None` for a group, which never acts.
    pub fn principal_kind(self) -> Option<PrincipalKind> {
        match self {
            AccountKind::User => Some(PrincipalKind::User),
            AccountKind::OsUser => Some(PrincipalKind::OsUser),
            AccountKind::ServiceAccount => Some(PrincipalKind::ServiceAccount),
            AccountKind::Group => None,
        }
    }
}

/// A token: its digest and limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenEntity {
    /// Its id.
    pub id: TokenId,
    /// Whose.
    pub principal: PrincipalId,
    /// HMAC under the pepper, in base64.
    pub digest: String,
    /// The pepper's number.
    pub pepper: u32,
    /// Its beginning and last four characters.
    pub masked: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// Whose hands made it: who did it, and who made what he was signed in with.
    #[serde(default)]
    pub created_by_ids: BTreeSet<PrincipalId>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How far it can be renewed; none when it cannot.
    #[serde(default)]
    pub renewable_until: Option<Timestamp>,
    /// How long a renewal lasts, in seconds.
    pub ttl_secs: u64,
    /// Uses left; none for any number.
    #[serde(default)]
    pub uses_left: Option<u32>,
    /// Addresses that it is good from; empty for any.
    #[serde(default)]
    pub networks: Vec<IpNet>,
    /// When somebody else made it, or the code or token that it comes from; none when it is its holder's own.
    #[serde(default)]
    pub foreign_since: Option<Timestamp>,
    /// The token that its maker was signed in with, without which it is good for nothing.
    #[serde(default)]
    pub made_with: Option<TokenId>,
}

/// A policy as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyEntity {
    /// The document.
    pub policy: Policy,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// By whom.
    pub updated_by: String,
}

/// A grant as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantEntity {
    /// Its id.
    pub id: GrantId,
    /// To whom.
    pub principal: PrincipalId,
    /// What.
    pub rules: Vec<Rule>,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// Uses left; none for any number.
    #[serde(default)]
    pub uses_left: Option<u32>,
    /// Whether it has effect.
    pub state: StoredGrantState,
    /// By whom.
    pub granted_by: PrincipalId,
    /// Whose hands asked for it: who did, and who made what he was signed in with.
    #[serde(default)]
    pub granted_by_ids: BTreeSet<PrincipalId>,
    /// Who approved it.
    #[serde(default)]
    pub approved_by: Option<PrincipalId>,
    /// Why.
    pub reason: AuditText,
    /// Whether it was taken in an emergency.
    #[serde(default)]
    pub break_glass: bool,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// [`GrantState`] as it stands in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum StoredGrantState {
    /// Waits for somebody else to approve it.
    NeedsApproval,
    /// Takes effect by itself at that time.
    Delayed {
        /// When.
        until: Timestamp,
    },
    /// Has effect.
    Active,
    /// Was revoked.
    Revoked {
        /// When.
        at: Timestamp,
    },
}

impl From<StoredGrantState> for GrantState {
    fn from(state: StoredGrantState) -> Self {
        match state {
            StoredGrantState::NeedsApproval => GrantState::NeedsApproval,
            StoredGrantState::Delayed { until } => GrantState::Delayed { until },
            StoredGrantState::Active => GrantState::Active,
            StoredGrantState::Revoked { at } => GrantState::Revoked { at },
        }
    }
}

impl From<GrantState> for StoredGrantState {
    fn from(state: GrantState) -> Self {
        match state {
            GrantState::NeedsApproval => StoredGrantState::NeedsApproval,
            GrantState::Delayed { until } => StoredGrantState::Delayed { until },
            GrantState::Active => StoredGrantState::Active,
            GrantState::Revoked { at } => StoredGrantState::Revoked { at },
        }
    }
}

impl GrantEntity {
    /// The grant as decisions know it.
    ///
    /// # Errors
    /// When the stored parts do not make a grant.
    pub fn to_grant(&self) -> Result<Grant, VaultError> {
        self.checked().map_err(|why| VaultError::invalid(format!("grant {}: {why}", self.id)))
    }

    /// The parts as a grant, or what is wrong with them, for one that is not stored yet and has no name.
    pub(crate) fn checked(&self) -> Result<Grant, String> {
        let rules = self.rules.iter().cloned().map(CompiledRule::new).collect::<Result<_, _>>();
        Grant::new(GrantParts {
            id: self.id,
            principal: self.principal,
            rules: rules.map_err(|e| e.to_string())?,
            starts_at: self.starts_at,
            expires_at: self.expires_at,
            uses_left: self.uses_left,
            state: self.state.into(),
            granted_by: self.granted_by,
            reason: self.reason.clone(),
            break_glass: self.break_glass,
        })
        .map_err(|e| e.to_string())
    }
}

/// A one-time sign-in code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignInCodeEntity {
    /// HMAC under the pepper, in base64.
    pub digest: String,
    /// The pepper's number.
    pub pepper: u32,
    /// Whom it signs in.
    pub principal: PrincipalId,
    /// Whether somebody else asked for it.
    #[serde(default)]
    pub foreign: bool,
    /// Whose hands made it; empty for the one that is made with the vault.
    #[serde(default)]
    pub created_by_ids: BTreeSet<PrincipalId>,
    /// The token that its maker was signed in with, without which it is good for nothing.
    #[serde(default)]
    pub made_with: Option<TokenId>,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// The remembered answer to a request that may be repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdempotencyEntity {
    /// Who asked.
    pub principal: PrincipalId,
    /// SHA-256 of the key that the client chose, in hexadecimal, keyed.
    pub key: String,
    /// SHA-256 of what was asked, in hexadecimal, keyed.
    pub request: String,
    /// What was answered; never a value.
    pub answer: serde_json::Value,
    /// How long it is remembered.
    pub expires_at: Timestamp,
}

fn warn() -> EnvOverride {
    EnvOverride::Warn
}

/// Writes the implementation of [`Entity`] for the plain cases.
macro_rules! entities {
    ($($form:ident = $kind:ident, |$it:ident| $key:expr;)*) => {$(
        impl Entity for $form {
            const KIND: Kind = Kind::$kind;

            fn key(&self) -> String {
                let $it = self;
                $key
            }
        }
    )*};
}

entities! {
    Instance = Instance, |_instance| INSTANCE_KEY.to_owned();
    Slot = Slot, |slot| format!("{:04}", slot.id);
    DataKeyEntity = DataKey, |key| number_key(key.id);
    PepperEntity = Pepper, |pepper| number_key(pepper.id);
    EnvironmentEntity = Environment, |environment| environment.name.to_string();
    CompanyEntity = Company, |company| company.name.to_string();
    Secret = Secret, |secret| secret.name.row_key();
    VersionEntity = Version, |version| version_key(version.secret, version.version);
    FingerprintEntity = Fingerprint, |it| fingerprint_key(&it.fingerprint, &it.name.environment, it.secret, it.version, it.field.as_ref());
    Account = Account, |account| account.name.to_string();
    TokenEntity = Token, |token| token.id.to_string();
    PolicyEntity = Policy, |it| it.policy.name.to_string();
    GrantEntity = Grant, |grant| grant.id.to_string();
    SignInCodeEntity = SignInCode, |code| code.digest.clone();
    IdempotencyEntity = Idempotency, |it| format!("{}/{}", it.principal, it.key);
}

/// The key of the only instance row.
pub const INSTANCE_KEY: &str = "instance";

/// The key of a version's row.
pub fn version_key(secret: SecretId, version: u32) -> String {
    format!("{secret}/{version:010}")
}

/// The key of a fingerprint's row: all places of one value stand together, those of an environment beside each other.
pub fn fingerprint_key(
    fingerprint: &str,
    environment: &Environment,
    secret: SecretId,
    version: u32,
    field: Option<&Field>,
) -> String {
    format!("{fingerprint}/{environment}/{secret}/{version}/{}", field.map_or("", Field::as_str))
}

/// Keys of numbered rows sort like their numbers.
pub fn number_key(id: u32) -> String {
    format!("{id:010}")
}

/// `-` stands for "no company", which no company can be called.
pub fn company_text(company: Option<&Company>) -> &str {
    company.map_or("-", Company::as_str)
}

/// [`VersionSet`] as it stands in a row.
mod stored_versions {
    use super::{BTreeMap, Deserialize, Label, Serialize, VersionSet, VersionState};
    use serde::{Deserializer, Serializer, de::Error as _};

    #[derive(Serialize)]
    struct Out<'a> {
        states: BTreeMap<&'a u32, &'a VersionState>,
        labels: BTreeMap<&'a Label, &'a u32>,
        next: u32,
    }

    #[derive(Deserialize)]
    struct In {
        states: BTreeMap<u32, VersionState>,
        labels: BTreeMap<Label, u32>,
        next: u32,
    }

    pub(super) fn serialize<S: Serializer>(set: &VersionSet, serializer: S) -> Result<S::Ok, S::Error> {
        let (states, labels) = (set.versions().iter().collect(), set.labels().iter().collect());
        Out { states, labels, next: set.next_number() }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VersionSet, D::Error> {
        let stored = In::deserialize(deserializer)?;
        VersionSet::from_parts(stored.states, stored.labels, stored.next).map_err(D::Error::custom)
    }
}

mod stored_facts {
    use super::{BTreeMap, Deserialize, LiteMap, VersionFacts};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        facts: &LiteMap<u32, VersionFacts>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(facts.iter())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<LiteMap<u32, VersionFacts>, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}
