//! What travels over the native API, as JSON. Types of the wire, not of the domain: each is converted by hand.
//!
//! The command line reads and writes the same types, so that the two cannot drift apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use keymoat_crypto::SecretBytes;
use serde::de::Deserializer;
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Secret text on its way in or out; everywhere else it stays in the secret type.
#[derive(Debug, ToSchema)]
#[schema(value_type = String)]
pub struct WireSecret(pub SecretBytes);

impl Serialize for WireSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // EXPOSE: this is the answer that the caller was allowed to have, and its record is on the disk.
        self.0.expose(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Err(serde::ser::Error::custom("the value is not text")),
        })
    }
}

impl<'de> Deserialize<'de> for WireSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = WireSecret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<WireSecret, E> {
                Ok(WireSecret(SecretBytes::from_slice(text.as_bytes())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// An error, as RFC 9457 has it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `about:blank`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, for people.
    pub detail: String,
    /// What is wrong, for programs.
    pub code: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The request's number.
    pub request: String,
}

/// Whether the server works.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The vault's id.
    pub instance: String,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Why it answers nothing that has to be written down; none while it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// By how many seconds the system's clock is behind what the vault has seen.
    pub clock_behind_secs: i64,
    /// How much there is; only for callers who are signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<StatusCounts>,
    /// The server that holds the database, where there is one; only for callers who are signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
}

/// How the server that holds the database looks after it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DatabaseStatus {
    /// Its address, without what is secret in it.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Whether it syncs what it has committed.
    pub syncs: bool,
    /// What a commit waits for, in the server's words.
    pub waits_for: String,
    /// Standbys that follow it.
    pub standbys: u64,
    /// Those of them that a commit waits for.
    pub waited_for: u64,
}

/// How much there is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StatusCounts {
    /// Environments.
    pub environments: u64,
    /// Companies.
    pub companies: u64,
    /// Secrets.
    pub secrets: u64,
    /// Accounts.
    pub accounts: u64,
    /// Tokens.
    pub tokens: u64,
    /// Grants.
    pub grants: u64,
    /// Sign-in codes that can still be used.
    #[serde(default)]
    pub sign_in_codes: u64,
    /// Issued keys, ended ones included.
    #[serde(default)]
    pub issued_keys: u64,
}

/// How far unsealing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unsealing {
    /// Whether the server is sealed.
    pub sealed: bool,
    /// What opens the vault; nothing when it is open.
    #[serde(default)]
    pub opens_with: Vec<OpensWith>,
    /// Shares that were given and wait for more, by the split that they are of.
    #[serde(default)]
    pub shares: Vec<SharesGiven>,
}

/// What opens a vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpensWith {
    /// `key`, `passphrase` or `shamir`.
    pub kind: String,
    /// Shares needed, where it is split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<u8>,
}

/// Shares of one split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharesGiven {
    /// Different shares given so far.
    pub given: u8,
    /// Shares needed.
    pub needed: u8,
}

/// Who the caller is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// The account's name.
    pub account: String,
    /// What it is.
    pub kind: String,
    /// The token's id, when one was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A sign-in with a one-time code.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeSignIn {
    /// The code.
    pub code: WireSecret,
}

/// A one-time sign-in code.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewCode {
    /// The code, shown once.
    pub code: WireSecret,
}

/// An environment or a company.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An environment or a company to be made.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPlace {
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// A secret without its values. Who may not `inspect` it gets no more than its id, its name, and the numbers of its
/// versions.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    /// Its id.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// The company whose own it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// The path.
    pub path: String,
    /// Whether everything but the id, the name, `current`, `head` and the labels is left out or empty, because the
    /// caller may not `inspect` the secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_only: bool,
    /// What it is for.
    pub description: String,
    /// Who answers for it.
    pub owner: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// When it stops being valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What an environment variable may do: `allow`, `warn` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_override: Option<String>,
    /// Whether every write must say which version it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cas_required: Option<bool>,
    /// Versions kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_versions: Option<u32>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// The current version, if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u32>,
    /// The version that a check-and-set must name; 0 when there was never any.
    pub head: u32,
    /// Its labels.
    pub labels: BTreeMap<String, u32>,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
}

/// A version without its value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its number.
    pub number: u32,
    /// When it was written.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// When it was destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destroyed_at: Option<Timestamp>,
    /// What the value is: `text`, `json` or `bytes`.
    pub kind: String,
    /// Its fields, masked.
    pub fields: Vec<MaskedField>,
}

/// What may be shown of a field.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MaskedField {
    /// The field; none for the whole value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The value with all but the provider's prefix and the last four characters left out.
    pub masked: String,
    /// Whose key it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What kind of key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_kind: Option<String>,
    /// Live or test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// A page of secrets.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SecretPage {
    /// The secrets.
    pub secrets: Vec<Secret>,
    /// What to pass as `cursor` for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A value.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Value {
    /// Text.
    Text(WireSecret),
    /// Fields, each as text.
    Fields(BTreeMap<String, WireSecret>),
    /// A JSON object, as text.
    Json(WireSecret),
    /// Bytes, in base64.
    Base64(WireSecret),
}

/// A write.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutSecret {
    /// The value.
    pub value: Value,
    /// Whether fields replace the whole stored value instead of going over it.
    #[serde(default)]
    pub replace: bool,
    /// The version that is believed to be current; 0 for none. `If-Match` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas: Option<u32>,
    /// Whether the version is only made `pending`.
    #[serde(default)]
    pub pending: bool,
    /// Why a value that stands in another environment too is taken all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_duplicate: Option<String>,
    /// Whether it is part of an import, for the record. What stands there already makes no new version then.
    #[serde(default)]
    pub import: bool,
    /// Whether an empty value may go over one that is not.
    #[serde(default)]
    pub allow_empty: bool,
    /// What is said about the secret.
    #[serde(default)]
    pub about: Annotate,
}

/// What is said about a secret; what is left out stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Annotate {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// All of its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Tags to add.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add_tags: BTreeMap<String, String>,
    /// When it stops being valid; an empty text takes the date away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// What an environment variable may do: `allow`, `warn` or `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_override: Option<String>,
    /// Whether every write must say which version it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas_required: Option<bool>,
    /// Versions kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_versions: Option<u32>,
}

/// What a write did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The secret as it is now.
    pub secret: Secret,
    /// The version that was made, or that stood there already.
    pub version: u32,
    /// Whether the secret is new.
    pub is_new: bool,
    /// Whether an import found the very value there, so that no version was made.
    #[serde(default)]
    pub unchanged: bool,
    /// Other paths of the same environment where the same value stands.
    #[serde(default)]
    pub also_at: Vec<String>,
    /// The number of the record.
    pub event: u64,
}

/// A wish to see a value.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reveal {
    /// The field; the whole value for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The version's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The version's label; `current` when neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A value that was given out.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Revealed {
    /// The value.
    pub value: Value,
    /// The version.
    pub version: u32,
    /// The number of the record.
    pub event: u64,
}

/// One version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OneVersion {
    /// Its number.
    pub version: u32,
}

/// Several versions; all that it can be done to for none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SomeVersions {
    /// Their numbers.
    #[serde(default)]
    pub versions: Vec<u32>,
}

/// A label and where it goes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLabel {
    /// The label.
    pub label: String,
    /// The version; none takes the label away.
    #[serde(default)]
    pub version: Option<u32>,
}

/// A question of where a value comes from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// A variable's name, or `path#field`, or a reference.
    pub name: String,
    /// The environment.
    pub environment: String,
    /// The company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// The variable that the value is for, when `name` is not one itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// Variables that are set where the program runs; never their values.
    #[serde(default)]
    pub variables_set: Vec<String>,
    /// Whether a variable without the company may answer when one is asked for.
    #[serde(default)]
    pub unqualified_variable: bool,
    /// The order to look in; the usual one when empty.
    #[serde(default)]
    pub order: Vec<String>,
}

/// Where a value comes from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// The path that was looked for.
    pub path: String,
    /// The field that was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Every place that was looked at, in order.
    pub steps: Vec<Step>,
    /// The number of the step that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<usize>,
    /// What ended the search without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether a variable answers although the secret asks for a warning.
    pub warns: bool,
    /// Other accounts of the same provider, side by side.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The value, when it was asked for and a stored one answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revealed: Option<Revealed>,
}

impl Answer {
    /// The step that answers.
    pub fn winning_step(&self) -> Option<&Step> {
        self.steps.iter().find(|step| self.winner == Some(step.number))
    }
}

/// One place.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its number, from 1.
    pub number: usize,
    /// Which kind: `environment`, `stored`, `company`, `upstream:NAME`.
    pub layer: String,
    /// The place, in words.
    pub place: String,
    /// The variable's name, where the place is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// What was found: `answers`, `not_needed`, `passed`, `absent`, `fails`.
    pub outcome: String,
    /// Why it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The version found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What may be shown of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked: Option<String>,
}

/// A page of changes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// What changed, oldest first.
    pub changes: Vec<Change>,
    /// What to pass as `after` next time.
    pub next: u64,
}

/// A secret that changed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The change's number.
    pub seq: u64,
    /// The environment.
    pub environment: String,
    /// The company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// The path.
    pub path: String,
    /// The current version; none when it has none or is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// An account.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// Its id, as audit records name it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `user`, `os_user`, `service_account` or `group`.
    pub kind: String,
    /// What it is for.
    pub description: String,
    /// Its policies.
    pub policies: BTreeSet<String>,
    /// The groups that it is in.
    pub groups: BTreeSet<String>,
    /// Whether it may act.
    pub active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// An account to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// Its name.
    pub name: String,
    /// `user`, `os_user`, `service_account` or `group`.
    pub kind: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Its policies.
    #[serde(default)]
    pub policies: BTreeSet<String>,
    /// The groups that it is in.
    #[serde(default)]
    pub groups: BTreeSet<String>,
}

/// A change of an account; what is left out stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateAccount {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// All of its policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<BTreeSet<String>>,
    /// All groups that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<String>>,
    /// Whether it may act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
}

/// What ended with a leaver.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Left {
    /// Tokens that were revoked.
    pub tokens: u64,
    /// Grants that were revoked.
    pub grants: u64,
    /// Secrets that the account has seen and that are to be rotated.
    pub seen: Vec<String>,
}

/// A token to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// How long it lasts, in seconds.
    pub ttl_secs: u64,
    /// How far it can be renewed, in seconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewable_secs: Option<u64>,
    /// How often it can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Networks that it is good from; any for none.
    #[serde(default)]
    pub networks: Vec<String>,
}

/// What is kept of a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// The account's name.
    pub account: String,
    /// Its beginning and last four characters.
    pub masked: String,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// How far it can be renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewable_until: Option<Timestamp>,
    /// Uses left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// Networks that it is good from.
    pub networks: Vec<String>,
    /// The id of the token that it was made with, and ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<String>,
}

/// A token that was just made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct IssuedToken {
    /// The token, shown once.
    pub token: WireSecret,
    /// What is kept of it.
    pub about: Token,
}

/// A policy: the document, and who wrote it when.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// The document, see `docs/policies.md`.
    #[schema(value_type = Object)]
    pub policy: serde_json::Value,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// By whom.
    pub updated_by: String,
}

/// A question of what would be decided.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// For whom.
    pub account: String,
    /// What: `reveal`, `list`, ….
    pub capability: String,
    /// On what: `prod/stripe`, `sys/audit`.
    pub resource: String,
    /// For which company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
}

/// A decision with every rule that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// For whom.
    pub account: String,
    /// Whether it would be allowed now.
    pub allowed: bool,
    /// Why.
    pub why: String,
    /// Every rule.
    pub rules: Vec<ExplainedRule>,
}

/// A rule that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedRule {
    /// Which: `policy:odoo#3`.
    pub rule: String,
    /// `allow` or `deny`.
    pub effect: String,
    /// Whether it matches, or what of it does not.
    pub matches: String,
}

/// A grant to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGrant {
    /// To whom.
    pub account: String,
    /// What: rules as in a policy; only ones that allow.
    #[schema(value_type = Vec<Object>)]
    pub rules: Vec<serde_json::Value>,
    /// From when; now when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// How long, in seconds.
    pub lasts_secs: u64,
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Why.
    pub reason: String,
    /// Whether it asks for more than the giver may give.
    #[serde(default)]
    pub break_glass: bool,
}

/// A grant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    /// Its id.
    pub id: String,
    /// To whom.
    pub account: String,
    /// What.
    #[schema(value_type = Vec<Object>)]
    pub rules: Vec<serde_json::Value>,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// Uses left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// `active`, `needs_approval`, `delayed`, `revoked` or `ended`.
    pub state: String,
    /// When a delayed one takes effect, or when a revoked one was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_at: Option<Timestamp>,
    /// By whom.
    pub granted_by: String,
    /// Who approved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Why.
    pub reason: String,
    /// Whether it was taken in an emergency.
    pub break_glass: bool,
}

/// A page of audit records.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The records.
    pub events: Vec<AuditEvent>,
    /// What to pass as `before` for the next page; as `from` when the oldest come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// What stands in archives, where the query looked among records that do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<ArchivedRecords>,
}

/// Records that stand in archives.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArchivedRecords {
    /// Those with a lower number.
    pub end: u64,
    /// When they were archived last, RFC 3339.
    pub at: String,
    /// By whom: his name, or his id when he is gone.
    pub by: String,
}

/// What a client says that it keeps.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveClaim {
    /// The number of the first record that is not archived, as the archive's proof says.
    pub end: u64,
    /// The RFC 6962 root over all records before it, computed from the archive, in base64.
    pub root: String,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What archiving came to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Archived {
    /// Records with a lower number are in archives.
    pub end: u64,
    /// Records that were taken out of the database.
    pub dropped: u64,
    /// Archived records that stay, because they answer for something that stands.
    pub kept: u64,
}

/// What proves an archive, or an export of a log whose beginning is archived: with the records it gives the tree of the
/// signed checkpoint, or its beginning.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArchiveProof {
    /// The number of the first record.
    pub start: u64,
    /// The number of the first record after the last.
    pub end: u64,
    /// The roots of the full subtrees over the records in front of the first, largest first, each in base64.
    pub frontier: Vec<String>,
    /// The RFC 6962 proof that the checkpoint's tree begins with that of `end` records, each hash in base64.
    pub consistency: Vec<String>,
    /// The signed checkpoint (C2SP).
    pub checkpoint: String,
    /// The key that signs checkpoints, as a C2SP verifier key.
    pub key: String,
}

/// An audit record.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditEvent {
    /// The record's canonical members, see `docs/audit.md`.
    #[schema(value_type = Object)]
    pub event: serde_json::Value,
    /// The canonical text itself, which the log's tree commits to.
    pub record: String,
    /// The actor's name, unless it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_name: Option<String>,
    /// Where the request came from, unless it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the client calls itself, unless it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// A sensitive action of a host program.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostEvent {
    /// What was done, such as `payment processed`.
    pub action: String,
    /// `allowed`, `refused` or `failed`.
    pub result: String,
    /// Short texts, whole numbers and flags; never keys.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// The number of a record.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Recorded {
    /// The number.
    pub event: u64,
}

/// The proof that a record is in the signed log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// The record.
    pub event: AuditEvent,
    /// Its number, which is its place in the tree.
    pub seq: u64,
    /// The signed checkpoint (C2SP).
    pub checkpoint: String,
    /// The RFC 6962 audit path, each hash in base64.
    pub proof: Vec<String>,
    /// The key that signs checkpoints, as a C2SP verifier key.
    pub key: String,
    /// For a proof that was made from an archive: the path leads to the root of the archived records' tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchivePath>,
}

/// From the tree over archived records to the signed one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ArchivePath {
    /// Records in the tree that the audit path leads to.
    pub end: u64,
    /// The RFC 6962 proof that the checkpoint's tree begins with that one, each hash in base64.
    pub consistency: Vec<String>,
}

/// The newest signed checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// The signed checkpoint (C2SP).
    pub checkpoint: String,
    /// The key that signs it, as a C2SP verifier key.
    pub key: String,
}

/// Whose personal data is to be erased beside the records; everything given must hold, and something must be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasePersonal {
    /// That of this account, which may be gone already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// That beside records from before this time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// What was erased.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PersonalErased {
    /// Records beside which there was something.
    pub records: u64,
    /// The number of the last record that says so.
    pub event: u64,
}

/// What a verification of everything found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// Whether nothing was touched.
    pub intact: bool,
    /// Records of the log.
    pub events: u64,
    /// Those of them that stand in archives only.
    #[serde(default)]
    pub archived: u64,
    /// Rows compared with the records.
    pub rows: u64,
    /// What does not fit, and where.
    pub problems: Vec<String>,
    /// The newest signed checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

/// A provider of the catalogue.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Provider {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether its calls have never been run against a stub of its documentation.
    pub shape_only: bool,
    /// Its keys.
    pub keys: Vec<ProviderKey>,
    /// Addresses of its documentation, by what they are about.
    pub links: BTreeMap<String, String>,
}

/// A kind of key of a provider.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProviderKey {
    /// What kind.
    pub kind: String,
    /// Live or test, where it can be told.
    pub mode: String,
    /// The field under which it is kept.
    pub field: String,
    /// Whether it is secret.
    pub sensitive: bool,
    /// What it begins with.
    pub prefixes: Vec<String>,
    /// Variables that usually hold it.
    pub variables: Vec<String>,
}

/// Texts that may be stored values.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidates {
    /// Only values of this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The texts.
    pub candidates: Vec<WireSecret>,
}

/// Which texts are stored values.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Matches {
    /// Those that are, in the order in which they were sent.
    pub matches: Vec<Match>,
}

/// A text that is a stored value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Match {
    /// Which of the texts, counted from 0.
    pub candidate: usize,
    /// Where it is stored, for who may inspect that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Asks for a sieve.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SieveAsk {
    /// Only for values of this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// `change` of the sieve that the caller has: none is made when there was no other change since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<u64>,
}

/// What tells most texts that they are no stored values. It holds no values.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Sieve {
    /// The number of the newest change: the sieve stands as long as there is none.
    pub change: u64,
    /// How many values are in it; none when there was no change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<usize>,
    /// The sieve, in base64; none when there was no change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sieve: Option<String>,
}

/// A value whose provider is wanted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Identify {
    /// The value.
    pub value: WireSecret,
}

/// Whose key a value is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Identified {
    /// Whether the catalogue knows it.
    pub known: bool,
    /// The provider's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What kind of key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Live or test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether it is secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<bool>,
    /// How sure that is: `shape` or `checksum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certainty: Option<String>,
    /// The value, masked.
    pub masked: String,
}

/// What stands of the vault's own keys; never a key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// The ways to open the vault.
    pub slots: Vec<Slot>,
    /// The data keys.
    pub data_keys: Vec<DataKey>,
    /// The peppers of token digests.
    pub peppers: Vec<Pepper>,
}

/// A way to open the vault.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Slot {
    /// Its number.
    pub id: u32,
    /// What opens it: `key`, `passphrase` or `shamir`.
    pub kind: String,
    /// Shares needed, for `shamir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<u8>,
    /// Shares made, for `shamir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The data key of an environment, or of a company in it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DataKey {
    /// Its number.
    pub id: u32,
    /// The environment.
    pub environment: String,
    /// The company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether new versions are encrypted under it; one that is not active is being replaced.
    pub active: bool,
}

/// A pepper of token digests.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pepper {
    /// Its number.
    pub id: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Tokens and sign-in codes whose digests are under it.
    pub digests: u64,
}

/// A way to open the vault that is to be added. Taken only through the socket or in process.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddSlot {
    /// What opens it: `key`, `passphrase` or `shamir`.
    pub kind: String,
    /// The master key's text; for a passphrase the key that it was stretched to.
    pub master: WireSecret,
    /// What opens the vault now.
    pub proof: KeyOffer,
    /// How a passphrase was stretched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub argon2: Option<serde_json::Value>,
    /// Shares needed, for `shamir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u8>,
    /// Shares made, for `shamir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<u8>,
}

/// What opens a slot. Taken only through the socket or in process.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyOffer {
    /// A key text.
    Key(WireSecret),
    /// A passphrase.
    Passphrase(WireSecret),
    /// Shares.
    Shares(Vec<WireSecret>),
}

/// What is to become of each slot when the root key is changed. Taken only through the socket or in process.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateRoot {
    /// The slots that stay, one at least.
    pub keep: Vec<KeepSlot>,
    /// The numbers of the slots that go. A slot that is named in neither list refuses the change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<u32>,
}

/// A slot that stays.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepSlot {
    /// Its number.
    pub slot: u32,
    /// What opens it.
    pub offer: KeyOffer,
}

/// What the change of the root key did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RootRotated {
    /// The slots that open the vault as before.
    pub kept: Vec<Slot>,
    /// The slots that are gone.
    pub dropped: Vec<Slot>,
    /// Data keys wrapped anew.
    pub data_keys: u64,
    /// Peppers wrapped anew.
    pub peppers: u64,
    /// Keys still under the old root key: 0.
    pub rows_under_old_root: u64,
    /// Whether the write-ahead log was emptied of what was under the old root key.
    pub scrubbed: bool,
}

/// The place whose data key is to be changed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateDataKey {
    /// The environment.
    pub environment: String,
    /// The company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
}

/// What the change of a data key did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DataKeyRotated {
    /// The environment.
    pub environment: String,
    /// The company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// The key that is active now.
    pub active: u32,
    /// Versions encrypted anew.
    pub reencrypted: u64,
    /// Old keys that no row is under any more; they are gone.
    pub ended: Vec<u32>,
    /// Versions still under old keys.
    pub rows_under_old_keys: u64,
    /// Whether the write-ahead log was emptied of the old ciphertexts.
    pub scrubbed: bool,
}

/// What the change of the pepper did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PepperRotated {
    /// The pepper of new digests.
    pub newest: u32,
    /// Tokens and sign-in codes whose digests are still under older ones; they move over when they are used.
    pub digests_under_old_peppers: u64,
}

/// An issued key that is to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueKey {
    /// Whose, as the host knows him: `odoo:res.users:42`; `account:NAME` for an account of this vault.
    pub owner: String,
    /// `user`, `service_account`, `application` or `partner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_kind: Option<String>,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// The space; `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// The environment that it is for.
    pub environment: String,
    /// The company that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// What it gives: `orders.read`, `orders.*`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Roles of the space.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How often it may be used: `100/1s,10000/1d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// Networks that it is good from; any for none.
    #[serde(default)]
    pub networks: Vec<String>,
    /// From when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// How long it lasts, in seconds; as long as the space lets it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_secs: Option<u64>,
    /// Its credits; any number of uses when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<NewCredits>,
    /// Makes a one-time code instead, with which the key is fetched within so many seconds: whoever issues it never sees
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_secs: Option<u64>,
    /// What is given back with each verification, at most 64 KiB.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub meta: serde_json::Map<String, serde_json::Value>,
}

/// Credits that a key begins with.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredits {
    /// How many.
    pub amount: u64,
    /// How they are filled up again: `1000/day`, `1000/month@15`, `+100/day<=500`; never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refill: Option<String>,
}

/// A key that was just made: the only moment at which it can be seen.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewKey {
    /// The key, shown once; none where it is fetched with a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<WireSecret>,
    /// The code with which it is fetched, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<WireSecret>,
    /// What is kept of it.
    pub about: Key,
    /// What should be looked at again, such as a network that is nearly everybody's.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A one-time code with which a key is fetched.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchKey {
    /// The code.
    pub code: WireSecret,
}

/// What is kept of an issued key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// The id of the first of the keys that were each rerolled into the next.
    pub lineage: String,
    /// The space.
    pub space: String,
    /// The environment.
    pub environment: String,
    /// The company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// What people call it.
    pub name: String,
    /// Its beginning and last four characters.
    pub masked: String,
    /// Whose.
    pub owner: String,
    /// What kind of owner.
    pub owner_kind: String,
    /// `active`, `disabled`, `unfetched`, `not_yet_valid`, `expired` or `revoked`.
    pub status: String,
    /// What it gives.
    pub scopes: Vec<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// How often it may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// Networks that it is good from.
    pub networks: Vec<String>,
    /// From when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_because: Option<String>,
    /// The key that it took the place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The key that takes its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
    /// Credits left to its lineage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credits: Option<u64>,
    /// What the host keeps beside it.
    #[schema(value_type = Object)]
    pub meta: serde_json::Map<String, serde_json::Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// How it was used.
    pub usage: KeyUsage,
}

/// How an issued key was used. The last seconds are those of the node that answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct KeyUsage {
    /// How often it was good.
    pub allowed: u64,
    /// How often it was refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// When it was last good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// Where from, when whoever verified it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_from: Option<String>,
    /// The addresses that it is used most from.
    pub sources: Vec<KeySource>,
}

/// An address that an issued key is used from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeySource {
    /// The address.
    pub address: String,
    /// How often, at most.
    pub count: u64,
    /// When last.
    pub last_at: Timestamp,
}

/// A page of issued keys.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyPage {
    /// The keys, oldest first.
    pub keys: Vec<Key>,
    /// Where the next page begins; none on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What is to change of an issued key.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeKey {
    /// Whether it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How often it may be used; an empty text for as often as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// Networks that it is good from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// How long it lasts from now, in seconds: a key that was rerolled has its overlap cut or prolonged by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_secs: Option<u64>,
}

/// An issued key that is to be replaced.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerollKey {
    /// How long the old one goes on working, in seconds; 0 for not at all.
    #[serde(default)]
    pub overlap_secs: u64,
}

/// An issued key that is to end.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// `compromised`, `superseded`, `owner_left`, `privilege_withdrawn` or `unused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A key that somebody presented.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyKey {
    /// The key.
    pub key: WireSecret,
    /// Only if it is of this space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// Only if it is for this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What it must give: `orders.read AND (orders.own OR role:clerk)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<String>,
    /// What a good answer costs, in credits and in uses of its limits; 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
    /// Where whoever presented it came from; for callers who may say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
}

/// What became of a presented key.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyVerdict {
    /// Whether it is good for what was asked.
    pub valid: bool,
    /// Why or why not: `VALID`, `NOT_FOUND`, `EXPIRED`, ….
    pub code: String,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What kind of owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_kind: Option<String>,
    /// The space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// The environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// What it gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Its roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Its groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What the host keeps beside it.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub meta: serde_json::Map<String, serde_json::Value>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Credits left after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credits: Option<u64>,
    /// How much of its limits is left after this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<KeyLimitLeft>,
    /// The key that takes its place: whoever still uses this one should change to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
    /// In how many seconds it is worth trying again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u64>,
}

/// How much is left of a limit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyLimitLeft {
    /// The limit, as it was written: `100/1s`.
    pub limit: String,
    /// Uses left at once.
    pub remaining: u64,
    /// In how many seconds all of it is there again.
    pub reset_secs: u64,
}

/// Keys that somebody presented, at most 100.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyKeys {
    /// The keys, each with what is asked of it.
    pub keys: Vec<VerifyKey>,
}

/// What became of presented keys, in their order.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyVerdicts {
    /// One for each.
    pub results: Vec<KeyVerdict>,
}

/// The state of an owner of issued keys.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyOwner {
    /// Who: `odoo:res.users:42`.
    pub owner: String,
    /// Whether he is active.
    pub active: bool,
}

/// What a space of issued keys is to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutKeySpace {
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// The environments that its keys may be of; any when empty.
    #[serde(default)]
    pub environments: Vec<String>,
    /// What roles give.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<String>>,
    /// What becomes of the keys of an owner who is not active: `deny` or `allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_inactive: Option<String>,
    /// The same for the keys of some companies.
    #[serde(default)]
    pub owner_inactive_of: BTreeMap<String, String>,
    /// How long a key may last at most, in seconds, by kind of owner.
    #[serde(default)]
    pub max_age_secs: BTreeMap<String, u64>,
    /// `counted` or `each`: whether each verification has a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
}

/// A space of issued keys.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeySpace {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub rules: PutKeySpace,
    /// When it was made.
    pub created_at: Timestamp,
}
