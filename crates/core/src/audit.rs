//! Audit events: what one record says, its canonical bytes (the leaf of the tree), and filters over records.
//!
//! A record never holds a value. Text that came from outside is bounded and escaped by its type
//! ([`AuditText`]); user name, address and agent appear only as a salted commitment ([`Personal`]). Writing the
//! record, hashing it into the tree and erasing the table of personal data are done elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::id::{GrantId, PrincipalId, RequestId};
use crate::names::{
    Company, DetailName, Environment, Field, NameError, PolicyName, ResourcePath, Scope, SystemPart,
    TextVisitor,
};
use crate::words::words;

mod scan;

/// One record of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log, from 0.
    pub seq: u64,
    /// When it happened, to the millisecond (finer parts are not kept); never before the event in front of it.
    pub time: Timestamp,
    /// The request that caused it.
    pub request: RequestId,
    /// Who acted.
    pub actor: Actor,
    /// For whom, as the actor says.
    pub on_behalf_of: Option<AuditText>,
    /// The calling module, as the client says.
    pub module: Option<AuditText>,
    /// What was done or asked.
    pub action: Action,
    /// The environment, or Keymoat itself.
    pub scope: Option<Scope>,
    /// The company inside the environment.
    pub company: Option<Company>,
    /// The secret or part of Keymoat.
    pub path: Option<ResourcePath>,
    /// The field of the secret.
    pub field: Option<Field>,
    /// The version of the secret.
    pub version: Option<u32>,
    /// How it ended.
    pub result: Outcome,
    /// Why it ended so.
    pub reason: Option<Reason>,
    /// Which rule decided.
    pub decided_by: Option<DecidedBy>,
    /// The commitment to the actor's personal data, see [`Personal::commit`].
    pub personal: Option<[u8; 32]>,
    /// Further bounded facts, such as those of a host's own sensitive action.
    pub details: Details,
    /// The stored rows that changed with it, at most [`MAX_ROWS`].
    pub rows: Vec<RowChange>,
}

impl Event {
    /// The canonical bytes: one line of JSON, fixed order, absent members left out, no floats, no line end.
    ///
    /// These bytes are what the tree hashes; [`Event::parse`] reads no other spelling.
    pub fn canonical(&self) -> Vec<u8> {
        let mut json = Object::new();
        json.number("v", FORMAT_VERSION);
        json.number("seq", self.seq);
        json.text("time", &time_text(self.time));
        json.text("request", &self.request.to_string());
        json.text("actor", &self.actor.to_string());
        json.text("actor_kind", self.actor.kind_name());
        json.optional("on_behalf_of", self.on_behalf_of.as_ref());
        json.optional("module", self.module.as_ref());
        json.text("action", self.action.as_str());
        json.optional("scope", self.scope.as_ref().map(Scope::as_str));
        json.optional("company", self.company.as_ref());
        json.optional("path", self.path.as_ref());
        json.optional("field", self.field.as_ref());
        if let Some(version) = self.version {
            json.number("version", u64::from(version));
        }
        json.text("result", self.result.as_str());
        if let Some(reason) = &self.reason {
            json.text("reason", reason.code.as_str());
            json.optional("reason_text", reason.text.as_ref());
        }
        if let Some(decided_by) = &self.decided_by {
            json.text("decided_by", &decided_by.to_string());
        }
        if let Some(personal) = &self.personal {
            json.text("personal", &hex(personal));
        }
        if !self.details.0.is_empty() {
            json.details("details", &self.details);
        }
        if !self.rows.is_empty() {
            json.rows("rows", &self.rows);
        }
        json.finish()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When the bytes are not the canonical form of an event, or exceed [`MAX_EVENT_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EventError> {
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(EventError::TooLong);
        }
        match scan::Parts::read(bytes).and_then(scan::Parts::event) {
            Some(event) => Ok(event),
            None => Self::parse_any(bytes),
        }
    }

    /// What an auditor needs of a record: that its bytes are canonical, its number and its time.
    ///
    /// # Errors
    /// Those of [`Event::parse`].
    pub fn glance(bytes: &[u8]) -> Result<(u64, Timestamp), EventError> {
        if bytes.len() > MAX_EVENT_BYTES {
            return Err(EventError::TooLong);
        }
        match scan::Parts::read(bytes) {
            Some(parts) => Ok((parts.seq, parts.time)),
            None => Self::parse_any(bytes).map(|event| (event.seq, event.time)),
        }
    }

    /// The long way: reads any JSON of a record, and writes it again to see whether it was canonical.
    fn parse_any(bytes: &[u8]) -> Result<Self, EventError> {
        let wire: WireEvent = serde_json::from_slice(bytes).map_err(|_| EventError::Malformed)?;
        let event = wire.into_event().ok_or(EventError::Malformed)?;
        if event.canonical() != bytes {
            return Err(EventError::NotCanonical);
        }
        Ok(event)
    }
}

/// One stored row as an event left it. All rows together, replayed in order, say what must stand in the store now,
/// so that an edited, removed or put-back row is found and named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// What kind of row.
    pub kind: String,
    /// Its name within the kind.
    pub key: String,
    /// The first 16 bytes of its keyed hash; none when the row was removed.
    pub mac: Option<[u8; 16]>,
}

impl RowChange {
    /// A row that was written; of its keyed hash the first half is kept.
    pub fn written(kind: &str, key: &str, mac: &[u8; 32]) -> Self {
        let [half, _] = mac.as_chunks::<16>().0 else { unreachable!("32 bytes are two halves") };
        Self { kind: kind.to_owned(), key: key.to_owned(), mac: Some(*half) }
    }

    /// A row that was removed.
    pub fn removed(kind: &str, key: &str) -> Self {
        Self { kind: kind.to_owned(), key: key.to_owned(), mac: None }
    }

    fn from_wire((kind, key, mac): (String, String, Option<String>)) -> Option<Self> {
        let mac = match mac {
            Some(text) => Some(unhex(&text)?),
            None => None,
        };
        Some(Self { kind, key, mac })
    }
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// Somebody who is signed in.
    Principal {
        /// Who.
        id: PrincipalId,
        /// What kind of account.
        kind: PrincipalKind,
    },
    /// Somebody who is not signed in.
    Anonymous,
    /// Keymoat itself, by the named part.
    System(SystemPart),
}

impl Actor {
    fn kind_name(&self) -> &'static str {
        match self {
            Self::Principal { kind, .. } => kind.as_str(),
            Self::Anonymous => ANONYMOUS,
            Self::System(_) => SYSTEM,
        }
    }

    fn from_parts(actor: &str, kind: &str) -> Option<Self> {
        if actor == ANONYMOUS {
            return (kind == ANONYMOUS).then_some(Self::Anonymous);
        }
        if let Some(part) = actor.strip_prefix(SYSTEM_PREFIX) {
            return (kind == SYSTEM).then(|| part.parse().ok().map(Self::System)).flatten();
        }
        Some(Self::Principal { id: actor.parse().ok()?, kind: kind.parse().ok()? })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal { id, .. } => id.fmt(f),
            Self::Anonymous => f.write_str(ANONYMOUS),
            Self::System(part) => write!(f, "{SYSTEM_PREFIX}{part}"),
        }
    }
}

/// Why something ended as it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people; never a value.
    pub text: Option<AuditText>,
}

impl From<ReasonCode> for Reason {
    fn from(code: ReasonCode) -> Self {
        Self { code, text: None }
    }
}

/// The permission that decided a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DecidedBy {
    /// A rule of a policy; rules count from 0. Written `policy:odoo#3`.
    Policy {
        /// The policy's name.
        name: PolicyName,
        /// Which of its rules.
        rule: u32,
    },
    /// A rule of a grant; rules count from 0. Written `grant:<id>#0`.
    Grant {
        /// The grant.
        id: GrantId,
        /// Which of its rules.
        rule: u32,
    },
    /// Keymoat's own right to do its work. Written `system:rotation`.
    System(SystemPart),
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy { name, rule } => write!(f, "policy:{name}#{rule}"),
            Self::Grant { id, rule } => write!(f, "grant:{id}#{rule}"),
            Self::System(part) => write!(f, "{SYSTEM_PREFIX}{part}"),
        }
    }
}

impl FromStr for DecidedBy {
    type Err = EventError;

    fn from_str(text: &str) -> Result<Self, EventError> {
        parse_decided_by(text).ok_or(EventError::Malformed)
    }
}

impl Serialize for DecidedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecidedBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("what decided"))
    }
}

/// Text from outside, made harmless: at most 256 characters, control, invisible and direction-changing
/// characters and the backslash written as escapes (`\n` becomes `\u{a}`, `\` becomes `\\`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditText(Box<str>);

impl AuditText {
    /// Takes any text; what does not fit is cut off and marked with `…`.
    pub fn new(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len().min(MAX_TEXT_CHARS));
        let mut length = 0;
        let mut last_cut = 0;
        for c in text.chars() {
            if length < MAX_TEXT_CHARS {
                last_cut = escaped.len();
            }
            length += push_escaped(&mut escaped, c);
            if length > MAX_TEXT_CHARS {
                return Self(cut(&escaped[..last_cut]));
            }
        }
        Self(escaped.into())
    }

    /// The escaped text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes text that is already escaped, as it stands in a record.
    ///
    /// # Errors
    /// When [`AuditText::new`] could not have made it.
    pub fn from_escaped(text: &str) -> Result<Self, EventError> {
        if text.len() > MAX_TEXT_CHARS * 4 {
            return Err(EventError::TooLong);
        }
        let original = unescape(text).ok_or(EventError::NotCanonical)?;
        let again = Self::new(&original);
        if again.as_str() == text { Ok(again) } else { Err(EventError::NotCanonical) }
    }
}

impl fmt::Display for AuditText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for AuditText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuditText {
    type Err = EventError;

    /// Reads the escaped form, see [`AuditText::from_escaped`].
    fn from_str(text: &str) -> Result<Self, EventError> {
        Self::from_escaped(text)
    }
}

impl Serialize for AuditText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AuditText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("escaped text"))
    }
}

/// Bounded facts about an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details(BTreeMap<DetailName, DetailValue>);

impl Details {
    /// No facts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact, in place of one of the same name.
    ///
    /// # Errors
    /// When there are [`MAX_DETAILS`] others already.
    pub fn insert(&mut self, name: DetailName, value: DetailValue) -> Result<(), EventError> {
        if self.0.len() >= MAX_DETAILS && !self.0.contains_key(&name) {
            return Err(EventError::TooManyDetails);
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The fact of that name.
    pub fn get(&self, name: &str) -> Option<&DetailValue> {
        self.0.get(name)
    }

    /// All facts by name.
    pub fn iter(&self) -> impl Iterator<Item = (&DetailName, &DetailValue)> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.0)
    }
}

impl<'de> Deserialize<'de> for Details {
    /// Reads facts from outside: text is escaped and cut, a float or a nested value is refused.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DetailsVisitor { escape: true })
    }
}

/// One fact about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetailValue {
    /// Escaped text.
    Text(AuditText),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl Serialize for DetailValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}

/// Personal data of an actor. It is kept beside the log, where it can be erased; the log has a commitment.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Personal {
    /// The name of the user or account.
    pub actor_name: Option<AuditText>,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<AuditText>,
}

impl Personal {
    /// SHA-256(salt ‖ canonical JSON). With a fresh random salt, erased together with the data, the commitment
    /// tells nothing afterwards.
    pub fn commit(&self, salt: &[u8; 32]) -> [u8; 32] {
        Self::commitment_of(&self.salted(salt))
    }

    /// What is committed to: the salt, then the canonical JSON.
    pub fn salted(&self, salt: &[u8; 32]) -> Vec<u8> {
        [salt.as_slice(), &self.canonical()].concat()
    }

    /// The commitment to what [`Personal::salted`] gave.
    pub fn commitment_of(salted: &[u8]) -> [u8; 32] {
        Sha256::digest(salted).into()
    }

    /// The canonical JSON: fixed order, absent members left out.
    pub fn canonical(&self) -> Vec<u8> {
        let mut json = Object::new();
        json.optional("actor_name", self.actor_name.as_ref());
        json.optional("address", self.address.map(|address| address.to_string()));
        json.optional("user_agent", self.user_agent.as_ref());
        json.finish()
    }
}

/// Which events are wanted; every condition that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// By this actor.
    pub actor: Option<Actor>,
    /// Caused by this request.
    pub request: Option<RequestId>,
    /// With this action.
    pub action: Option<Action>,
    /// In this environment, or about Keymoat itself.
    pub scope: Option<Scope>,
    /// For this company.
    pub company: Option<Company>,
    /// On this path or below it.
    pub path_prefix: Option<ResourcePath>,
    /// On this field.
    pub field: Option<Field>,
    /// By this module.
    pub module: Option<AuditText>,
    /// With this end.
    pub result: Option<Outcome>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl EventFilter {
    /// Whether an event is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        wants(&self.actor, Some(&event.actor))
            && wants(&self.request, Some(&event.request))
            && wants(&self.action, Some(&event.action))
            && wants(&self.scope, event.scope.as_ref())
            && wants(&self.company, event.company.as_ref())
            && wants(&self.field, event.field.as_ref())
            && wants(&self.module, event.module.as_ref())
            && wants(&self.result, Some(&event.result))
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && self
                .path_prefix
                .as_ref()
                .is_none_or(|prefix| event.path.as_ref().is_some_and(|path| path.is_within(prefix)))
    }

    /// Narrows to one environment.
    pub fn in_environment(mut self, environment: Environment) -> Self {
        self.scope = Some(environment.into());
        self
    }
}

/// What is wrong with a record or a part of it. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// More bytes than a record may have.
    #[error("audit event is longer than allowed")]
    TooLong,
    /// Not an event.
    #[error("audit event is malformed")]
    Malformed,
    /// An event, but not in its canonical spelling.
    #[error("audit event is not in its canonical form")]
    NotCanonical,
    /// More facts than allowed.
    #[error("audit event has more than {MAX_DETAILS} details")]
    TooManyDetails,
}

impl From<NameError> for EventError {
    fn from(_: NameError) -> Self {
        Self::Malformed
    }
}

words! {
    /// What was done or asked. Names are stable; new ones may be added.
    Action, "action":
    Reveal = "reveal" doc "Plaintext was given out.",
    Use = "use" doc "A key was used through the gateway.",
    UseLease = "use_lease" doc "The gateway was given leave to use a key for a while.",
    List = "list" doc "Names were listed.",
    Inspect = "inspect" doc "Metadata was read.",
    Match = "match" doc "Text was compared with stored values.",
    Write = "write" doc "A new version was written.",
    Annotate = "annotate" doc "Metadata was changed.",
    Label = "label" doc "A label was moved.",
    Promote = "promote" doc "A pending version became current.",
    Rollback = "rollback" doc "An older version became current again.",
    Delete = "delete" doc "Versions were deleted and can come back.",
    Undelete = "undelete" doc "Deleted versions came back.",
    Destroy = "destroy" doc "Versions were destroyed for good.",
    Prune = "prune" doc "Old versions were dropped because there were too many.",
    Rotate = "rotate" doc "A key was changed at its provider.",
    RotationSet = "rotation_set" doc "A rotation's settings were changed.",
    Import = "import" doc "Secrets were taken in from elsewhere.",
    Export = "export" doc "Secrets were written out.",
    Backup = "backup" doc "A backup was made.",
    Restore = "restore" doc "A backup was put back.",
    SignIn = "sign_in" doc "Somebody signed in.",
    SignOut = "sign_out" doc "Somebody signed out.",
    Refuse = "refuse" doc "Requests that were not signed in were refused, counted per source and minute.",
    AccountCreate = "account_create" doc "An account was made.",
    AccountUpdate = "account_update" doc "An account was changed.",
    AccountDelete = "account_delete" doc "An account was removed.",
    PolicyWrite = "policy_write" doc "A policy was written.",
    PolicyDelete = "policy_delete" doc "A policy was removed.",
    GrantCreate = "grant_create" doc "A grant was made or asked for.",
    GrantApprove = "grant_approve" doc "A grant was approved by somebody else.",
    GrantRevoke = "grant_revoke" doc "A grant was revoked.",
    TokenCreate = "token_create" doc "A token was made.",
    TokenRenew = "token_renew" doc "A token was prolonged.",
    TokenRevoke = "token_revoke" doc "A token was revoked.",
    KeyIssue = "key_issue" doc "A key was issued.",
    KeyReroll = "key_reroll" doc "An issued key was replaced.",
    KeyRevoke = "key_revoke" doc "An issued key was revoked.",
    KeyVerify = "key_verify" doc "An issued key was verified.",
    Rekey = "rekey" doc "A key of Keymoat's own hierarchy was changed.",
    Seal = "seal" doc "Keymoat was sealed.",
    Unseal = "unseal" doc "Keymoat was unsealed.",
    Init = "init" doc "The vault was made.",
    Start = "start" doc "A server started.",
    Stop = "stop" doc "A server stopped.",
    Configure = "configure" doc "The configuration was changed.",
    AuditRead = "audit_read" doc "The audit log was read.",
    AuditExport = "audit_export" doc "The audit log was written out.",
    AuditAcceptRestore = "audit_accept_restore" doc "A store put back from elsewhere was accepted.",
    AuditArchive = "audit_archive" doc "Records were archived, or archived ones taken out of the database.",
    PersonalErase = "personal_erase" doc "Personal data was erased.",
    Scan = "scan" doc "Something was scanned.",
    Fix = "fix" doc "A finding was taken into the vault.",
    IncidentOpen = "incident_open" doc "A leak was reported.",
    IncidentClose = "incident_close" doc "A leak was dealt with.",
    Host = "host" doc "A host's own sensitive action; the details say which.",
}

words! {
    /// How it ended.
    Outcome, "result":
    Allowed = "allowed" doc "It was allowed and, as far as Keymoat can tell, done.",
    Refused = "refused" doc "It was refused.",
    Failed = "failed" doc "It was allowed and could not be done.",
}

words! {
    /// Kinds of accounts.
    PrincipalKind, "kind of account":
    User = "user" doc "A person.",
    ServiceAccount = "service_account" doc "A program.",
    OsUser = "os_user" doc "A user of the operating system Keymoat runs on.",
    IssuedKey = "issued_key" doc "A holder of a key that Keymoat issued.",
}

words! {
    /// Why something ended as it did. Names are stable; new ones may be added.
    ReasonCode, "reason":
    NoRule = "no_rule" doc "No rule allows it.",
    DeniedByRule = "denied_by_rule" doc "A rule denies it.",
    ConditionFailed = "condition_failed" doc "A rule would allow it under other conditions.",
    NotSignedIn = "not_signed_in" doc "Nobody is signed in.",
    BadCredentials = "bad_credentials" doc "What was presented is not valid.",
    SecondFactor = "second_factor" doc "A second factor is needed or was wrong.",
    LockedOut = "locked_out" doc "Too many attempts.",
    Expired = "expired" doc "It ended by itself.",
    Revoked = "revoked" doc "It was revoked.",
    NeedsApproval = "needs_approval" doc "Nobody else has approved it yet.",
    Delayed = "delayed" doc "It takes effect later.",
    BeyondOwnRights = "beyond_own_rights" doc "Nobody may give what he does not have.",
    NotFound = "not_found" doc "There is no such thing.",
    Conflict = "conflict" doc "It was changed by somebody else meanwhile.",
    Invalid = "invalid" doc "It is not well formed.",
    TooLarge = "too_large" doc "It is larger than allowed.",
    RateLimited = "rate_limited" doc "Too many requests.",
    OverBudget = "over_budget" doc "A budget is used up.",
    Duplicate = "duplicate" doc "The same value stands in another environment.",
    OverrideDenied = "override_denied" doc "A variable may not answer for this secret.",
    SourceDown = "source_down" doc "A source is down.",
    ProviderRefused = "provider_refused" doc "The provider refused.",
    Sealed = "sealed" doc "The server is sealed.",
    StorageFull = "storage_full" doc "The disk is full.",
    Damaged = "damaged" doc "Stored bytes are not what was written.",
    Internal = "internal" doc "Keymoat failed.",
}

fn wants<T: PartialEq>(wanted: &Option<T>, has: Option<&T>) -> bool {
    wanted.is_none() || wanted.as_ref() == has
}

/// The JSON of a record as it is read; every member is checked again when the event is built.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEvent {
    v: u64,
    seq: u64,
    time: String,
    request: RequestId,
    actor: String,
    actor_kind: String,
    on_behalf_of: Option<AuditText>,
    module: Option<AuditText>,
    action: Action,
    scope: Option<Scope>,
    company: Option<Company>,
    path: Option<ResourcePath>,
    field: Option<Field>,
    version: Option<u32>,
    result: Outcome,
    reason: Option<ReasonCode>,
    reason_text: Option<AuditText>,
    decided_by: Option<DecidedBy>,
    personal: Option<String>,
    #[serde(default, deserialize_with = "read_escaped_details")]
    details: Details,
    #[serde(default)]
    rows: Vec<(String, String, Option<String>)>,
}

impl WireEvent {
    fn into_event(self) -> Option<Event> {
        if self.rows.len() > MAX_ROWS {
            return None;
        }
        if self.v != FORMAT_VERSION || (self.reason.is_none() && self.reason_text.is_some()) {
            return None;
        }
        let personal = match &self.personal {
            Some(text) => Some(unhex(text)?),
            None => None,
        };
        Some(Event {
            seq: self.seq,
            time: self.time.parse().ok()?,
            request: self.request,
            actor: Actor::from_parts(&self.actor, &self.actor_kind)?,
            on_behalf_of: self.on_behalf_of,
            module: self.module,
            action: self.action,
            scope: self.scope,
            company: self.company,
            path: self.path,
            field: self.field,
            version: self.version,
            result: self.result,
            reason: self.reason.map(|code| Reason { code, text: self.reason_text }),
            decided_by: self.decided_by,
            personal,
            details: self.details,
            rows: self.rows.into_iter().map(RowChange::from_wire).collect::<Option<_>>()?,
        })
    }
}

fn read_escaped_details<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Details, D::Error> {
    deserializer.deserialize_map(DetailsVisitor { escape: false })
}

struct DetailsVisitor {
    escape: bool,
}

impl<'de> Visitor<'de> for DetailsVisitor {
    type Value = Details;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of short texts, whole numbers and flags")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Details, A::Error> {
        let mut details = Details::new();
        while let Some(name) = map.next_key::<DetailName>()? {
            let value = map.next_value_seed(DetailSeed { escape: self.escape })?;
            if details.get(name.as_str()).is_some() {
                return Err(serde::de::Error::custom("a detail stands twice"));
            }
            details.insert(name, value).map_err(serde::de::Error::custom)?;
        }
        Ok(details)
    }
}

struct DetailSeed {
    escape: bool,
}

impl<'de> serde::de::DeserializeSeed<'de> for DetailSeed {
    type Value = DetailValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DetailValue, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for DetailSeed {
    type Value = DetailValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a short text, a whole number or a flag")
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<DetailValue, E> {
        Ok(DetailValue::Flag(flag))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<DetailValue, E> {
        Ok(DetailValue::Number(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<DetailValue, E> {
        i64::try_from(number).map(DetailValue::Number).map_err(|_| E::custom("a number is too large"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DetailValue, E> {
        if self.escape {
            return Ok(DetailValue::Text(AuditText::new(text)));
        }
        AuditText::from_escaped(text).map(DetailValue::Text).map_err(E::custom)
    }
}

/// Writes one JSON object member by member, in the order of the calls.
struct Object {
    json: Vec<u8>,
}

impl Object {
    fn new() -> Self {
        let mut json = Vec::with_capacity(USUAL_EVENT_BYTES);
        json.push(b'{');
        Self { json }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        push_json_text(&mut self.json, value);
    }

    fn optional(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.text(name, value.as_ref());
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.json.extend_from_slice(value.to_string().as_bytes());
    }

    fn details(&mut self, name: &str, details: &Details) {
        let mut object = Self::new();
        for (name, value) in details.iter() {
            match value {
                DetailValue::Text(text) => object.text(name.as_str(), text.as_str()),
                DetailValue::Number(number) => {
                    object.name(name.as_str());
                    object.json.extend_from_slice(number.to_string().as_bytes());
                }
                DetailValue::Flag(flag) => {
                    object.name(name.as_str());
                    object.json.extend_from_slice(flag.to_string().as_bytes());
                }
            }
        }
        self.name(name);
        self.json.extend(object.finish());
    }

    fn rows(&mut self, name: &str, rows: &[RowChange]) {
        self.name(name);
        for (number, row) in rows.iter().enumerate() {
            self.json.push(if number == 0 { b'[' } else { b',' });
            self.json.push(b'[');
            push_json_text(&mut self.json, &row.kind);
            self.json.push(b',');
            push_json_text(&mut self.json, &row.key);
            self.json.push(b',');
            match &row.mac {
                Some(mac) => push_json_text(&mut self.json, &hex(mac)),
                None => self.json.extend_from_slice(b"null"),
            }
            self.json.push(b']');
        }
        self.json.push(b']');
    }

    fn name(&mut self, name: &str) {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
        push_json_text(&mut self.json, name);
        self.json.push(b':');
    }

    fn finish(mut self) -> Vec<u8> {
        self.json.push(b'}');
        self.json
    }
}

/// Writes a JSON string (RFC 8259 §7) with the shortest escapes; controls as `\u00xx`.
fn push_json_text(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20 | 0x7f)) {
        json.extend_from_slice(&rest[..at]);
        match rest[at] {
            b @ (b'"' | b'\\') => json.extend_from_slice(&[b'\\', b]),
            b => json.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    json.extend_from_slice(rest);
    json.push(b'"');
}

/// Writes one character, escaped if need be, and says how many characters that took.
fn push_escaped(escaped: &mut String, c: char) -> usize {
    if c == '\\' {
        escaped.push_str("\\\\");
        return 2;
    }
    if !is_deceptive(c) {
        escaped.push(c);
        return 1;
    }
    let before = escaped.len();
    escaped.extend(c.escape_unicode());
    escaped.len() - before
}

/// Control characters, and those that are invisible or change the direction or the lines of what surrounds them
/// (Unicode `Cf`, `Zl`, `Zp` as far as they occur in attacks on readers of logs; variation selectors, tags).
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Undoes [`push_escaped`]; none when a backslash does not begin an escape.
fn unescape(text: &str) -> Option<String> {
    let mut original = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        original.push_str(plain);
        if let Some(after) = escape.strip_prefix('\\') {
            original.push('\\');
            rest = after;
            continue;
        }
        let (digits, after) = escape.strip_prefix("u{")?.split_once('}')?;
        original.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    original.push_str(rest);
    Some(original)
}

/// Marks text that was cut off; `kept` has at most one character less than the limit.
fn cut(kept: &str) -> Box<str> {
    format!("{kept}…").into()
}

fn parse_decided_by(text: &str) -> Option<DecidedBy> {
    if let Some(part) = text.strip_prefix(SYSTEM_PREFIX) {
        return part.parse().ok().map(DecidedBy::System);
    }
    let (kind, rest) = text.split_once(':')?;
    let (name, number) = rest.split_once('#')?;
    let rule: u32 = number.parse().ok()?;
    if rule.to_string() != number {
        return None;
    }
    match kind {
        "policy" => Some(DecidedBy::Policy { name: name.parse().ok()?, rule }),
        "grant" => Some(DecidedBy::Grant { id: name.parse().ok()?, rule }),
        _ => None,
    }
}

/// RFC 3339 in UTC with three digits after the second.
fn time_text(time: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    PRINTER.timestamp_to_string(&time)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |b: u8| char::from(b).to_digit(16).map(|digit| digit as u8);
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes?.try_into().ok() } else { None }
}

/// Longest record in bytes. The longest that [`Event`] can hold is below it, see the tests.
pub const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;
/// Most rows in one record: one transaction may not change more.
pub const MAX_ROWS: usize = 20_000;
/// Most facts in one record: enough for a host's action, too few to carry data out.
pub const MAX_DETAILS: usize = 16;
/// Longest text in a record, in characters after escaping.
pub const MAX_TEXT_CHARS: usize = 256;
/// The `v` of records written by this program.
const FORMAT_VERSION: u64 = 1;
/// What a record usually needs, to allocate once.
const USUAL_EVENT_BYTES: usize = 512;
const ANONYMOUS: &str = "anonymous";
const SYSTEM: &str = "system";
const SYSTEM_PREFIX: &str = "system:";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Event {
        Event {
            seq: 7,
            time: "2026-11-22T07:45:08.12Z".parse().unwrap(),
            request: RequestId::from_parts(1, &[0; 10]),
            actor: Actor::Principal { id: PrincipalId::from_parts(2, &[1; 10]), kind: PrincipalKind::User },
            on_behalf_of: None,
            module: Some(AuditText::new("payment_stripe")),
            action: Action::Reveal,
            scope: Some("prod".parse().unwrap()),
            company: Some("acme".parse().unwrap()),
            path: Some("stripe".parse().unwrap()),
            field: Some("secret_key".parse().unwrap()),
            version: Some(3),
            result: Outcome::Allowed,
            reason: None,
            decided_by: Some(DecidedBy::Policy { name: "odoo".parse().unwrap(), rule: 3 }),
            personal: Some([0xab; 32]),
            details: Details::new(),
            rows: Vec::new(),
        }
    }

    #[test]
    fn canonical_bytes_are_fixed() {
        let expected = concat!(
            r#"{"v":1,"seq":7,"time":"2026-11-22T07:45:08.120Z","request":"00000000-0001-7000-8000-000000000000","#,
            r#""actor":"00000000-0002-7101-8101-010101010101","actor_kind":"user","module":"payment_stripe","#,
            r#""action":"reveal","scope":"prod","company":"acme","path":"stripe","field":"secret_key","version":3,"#,
            r#""result":"allowed","decided_by":"policy:odoo#3","#,
            r#""personal":"abababababababababababababababababababababababababababababababab"}"#,
        );
        assert_eq!(String::from_utf8(example().canonical()).unwrap(), expected);
        assert_eq!(Event::parse(expected.as_bytes()).unwrap(), example());
    }

    #[test]
    fn other_spellings_are_refused() {
        let canonical = String::from_utf8(example().canonical()).unwrap();
        for (from, to) in [
            (r#""v":1"#, r#""v":2"#),
            (r#""v":1,"seq":7"#, r#""seq":7,"v":1"#),
            (r#""seq":7"#, r#""seq": 7"#),
            (r#""seq":7"#, r#""seq":7.0"#),
            (r#""seq":7"#, r#""seq":7,"seq":7"#),
            ("08.120Z", "08.12Z"),
            ("08.120Z", "08.1201Z"),
            ("08.120Z", "08.120+00:00"),
            ("07:45:08.120Z", "08:45:08.120+01:00"),
            ("reveal", "r\\u0065veal"),
            ("reveal", "Reveal"),
            ("prod", "Prod"),
            (r#""user""#, r#""anonymous""#),
            ("#3", "#03"),
            ("abab", "ABAB"),
            (r#""company":"acme","#, r#""company":null,"#),
            (r#""company":"acme","#, r#""colour":"red","#),
            (r#""version":3"#, r#""version":4294967296"#),
            (r#""result":"allowed","#, r#""result":"allowed","reason_text":"x","#),
            (r#""result":"allowed","#, r#""result":"allowed","details":{},"#),
            ("payment_stripe", "payment\\nstripe"),
            ("payment_stripe", "payment\u{202e}stripe"),
        ] {
            let changed = canonical.replacen(from, to, 1);
            assert_ne!(changed, canonical, "{from}");
            assert!(scan::Parts::read(changed.as_bytes()).is_none(), "{from} to {to}");
            assert!(Event::parse(changed.as_bytes()).is_err(), "{from} to {to}");
        }
        assert_eq!(Event::parse(&vec![b' '; MAX_EVENT_BYTES + 1]), Err(EventError::TooLong));
        assert!(Event::parse(format!("{canonical}\n").as_bytes()).is_err());
    }

    #[test]
    fn usual_records_go_the_short_way() {
        let mut event = example();
        event.details.insert("a".parse().unwrap(), DetailValue::Number(i64::MIN)).unwrap();
        event.details.insert("b".parse().unwrap(), DetailValue::Text(AuditText::new("x y"))).unwrap();
        event.details.insert("c".parse().unwrap(), DetailValue::Flag(false)).unwrap();
        event.rows = vec![RowChange::written("secret", "a/b#1", &[7; 32]), RowChange::removed("token", "t")];
        event.reason = Some(Reason { code: ReasonCode::Expired, text: Some(AuditText::new("over")) });
        let bytes = event.canonical();
        assert_eq!(scan::Parts::read(&bytes).and_then(scan::Parts::event), Some(event.clone()));
        event.module = Some(AuditText::new("sale\n"));
        assert!(scan::Parts::read(&event.canonical()).is_none());
        assert_eq!(Event::parse(&event.canonical()), Ok(event));
    }

    #[test]
    fn days_of_the_calendar_are_those_of_the_library() {
        let row = |time: &str| {
            let canonical = String::from_utf8(example().canonical()).unwrap();
            let other = canonical.replace("2026-11-22T07:45:08.120Z", time);
            let short = scan::Parts::read(other.as_bytes()).map(|parts| parts.time);
            let long = Event::parse_any(other.as_bytes()).ok().map(|event| event.time);
            assert_eq!(short, long, "{time}");
            long.is_some()
        };
        for year in [1, 4, 100, 400, 1600, 1899, 1900, 1970, 2000, 2024, 2038, 2100, 9999] {
            for (day, is) in [
                ("02-28", true),
                ("02-30", false),
                ("02-31", false),
                ("04-31", false),
                ("12-00", false),
                ("13-01", false),
                ("00-01", false),
                ("12-29", true),
            ] {
                assert_eq!(row(&format!("{year:04}-{day}T23:59:59.999Z")), is, "{year} {day}");
            }
            row(&format!("{year:04}-02-29T00:00:00.000Z"));
            row(&format!("{year:04}-12-31T23:59:59.999Z"));
        }
        for wrong in ["24:00:00.000", "23:60:00.000", "23:59:60.000", "23:59:5 .000", "23:59:59,000"] {
            assert!(!row(&format!("2026-11-22T{wrong}Z")), "{wrong}");
        }
    }

    #[test]
    fn text_is_escaped_and_bounded() {
        let check = |text: &str, expected: &str| assert_eq!(AuditText::new(text).as_str(), expected);
        check("plain é 漢", "plain é 漢");
        check("a\nb\tc\0", "a\\u{a}b\\u{9}c\\u{0}");
        check("a\u{202e}b\u{200b}", "a\\u{202e}b\\u{200b}");
        check("\u{1b}[31m\u{7f}\u{85}", "\\u{1b}[31m\\u{7f}\\u{85}");
        check("a\\u{a}", "a\\\\u{a}");
        assert_eq!(AuditText::new(&"x".repeat(256)).as_str().chars().count(), 256);
        let long = AuditText::new(&"x".repeat(257));
        assert!(long.as_str().ends_with("x…") && long.as_str().chars().count() == 256);
        for foreign in ["\\", "\\u{41}", "\\u{0a}", "\\u{A}", "\\u{202E}", "\\u{110000}", "\n", "a\u{feff}"] {
            assert!(AuditText::from_escaped(foreign).is_err(), "{foreign:?}");
        }
    }

    #[test]
    fn details_are_bounded() {
        let mut details = Details::new();
        for i in 0..MAX_DETAILS {
            details.insert(format!("d{i}").parse().unwrap(), DetailValue::Number(i as i64)).unwrap();
        }
        assert_eq!(
            details.insert("one_more".parse().unwrap(), DetailValue::Flag(true)),
            Err(EventError::TooManyDetails)
        );
        details.insert("d0".parse().unwrap(), DetailValue::Flag(true)).unwrap();
        let from_host = serde_json::from_str::<Details>;
        assert_eq!(
            from_host(r#"{"a":"x\ny","b":1}"#).unwrap().get("a"),
            Some(&DetailValue::Text(AuditText::new("x\ny")))
        );
        for bad in
            [r#"{"a":1.5}"#, r#"{"a":{}}"#, r#"{"a":[1]}"#, r#"{"a":null}"#, r#"{"A":1}"#, r#"{"a":1,"a":2}"#]
        {
            assert!(from_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_event_fits() {
        let mut event = example();
        let text = AuditText::new(&"\u{10ffff}".repeat(300));
        event.on_behalf_of = Some(text.clone());
        event.module = Some(text.clone());
        event.reason = Some(Reason { code: ReasonCode::ConditionFailed, text: Some(text.clone()) });
        let backslashes = AuditText::new(&"\\".repeat(300));
        for i in 0..MAX_DETAILS {
            let name = format!("{}{i:02}", "d".repeat(30)).parse().unwrap();
            let value = if i % 2 == 0 { text.clone() } else { backslashes.clone() };
            event.details.insert(name, DetailValue::Text(value)).unwrap();
        }
        let bytes = event.canonical();
        assert!(bytes.len() < MAX_EVENT_BYTES / 2, "{}", bytes.len());
        assert_eq!(Event::parse(&bytes).unwrap(), event);
    }

    #[test]
    fn personal_data_is_committed_to() {
        let ana = Personal {
            actor_name: Some(AuditText::new("ana")),
            address: Some("192.0.2.1".parse().unwrap()),
            user_agent: None,
        };
        assert_eq!(ana.canonical(), br#"{"actor_name":"ana","address":"192.0.2.1"}"#);
        assert_ne!(ana.commit(&[0; 32]), ana.commit(&[1; 32]));
        let moved = Personal { actor_name: None, user_agent: Some(AuditText::new("ana")), ..ana.clone() };
        assert_ne!(ana.commit(&[0; 32]), moved.commit(&[0; 32]));
    }

    #[test]
    fn filters() {
        let event = example();
        let all = EventFilter::default();
        assert!(all.matches(&event));
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let check =
            |filter: EventFilter, expected: bool| assert_eq!(filter.matches(&event), expected, "{filter:?}");
        check(EventFilter { actor: Some(event.actor.clone()), ..all.clone() }, true);
        check(EventFilter { actor: Some(Actor::Anonymous), ..all.clone() }, false);
        check(EventFilter { action: Some(Action::Use), ..all.clone() }, false);
        check(all.clone().in_environment("prod".parse().unwrap()), true);
        check(all.clone().in_environment("dev".parse().unwrap()), false);
        check(EventFilter { scope: Some(Scope::System), ..all.clone() }, false);
        check(EventFilter { path_prefix: Some("stripe".parse().unwrap()), ..all.clone() }, true);
        check(EventFilter { path_prefix: Some("str".parse().unwrap()), ..all.clone() }, false);
        check(EventFilter { result: Some(Outcome::Refused), ..all.clone() }, false);
        check(EventFilter { since: time("2026-11-22T07:45:08.120Z"), ..all.clone() }, true);
        check(EventFilter { until: time("2026-11-22T07:45:08.120Z"), ..all.clone() }, false);
        check(EventFilter { company: Some("other".parse().unwrap()), ..all.clone() }, false);
    }

    #[test]
    fn stable_names_read_back() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse::<Action>().unwrap(), *action);
        }
        for code in ReasonCode::ALL {
            assert_eq!(code.as_str().parse::<ReasonCode>().unwrap(), *code);
        }
        assert_eq!(
            "shredded".parse::<Outcome>().unwrap_err().to_string(),
            "unknown result; allowed: `allowed`, `refused`, `failed`"
        );
    }

    fn any_details() -> impl Strategy<Value = Details> {
        let value = prop_oneof![
            ".{0,300}".prop_map(|text| DetailValue::Text(AuditText::new(&text))),
            any::<i64>().prop_map(DetailValue::Number),
            any::<bool>().prop_map(DetailValue::Flag),
        ];
        prop::collection::btree_map("[a-z][a-z0-9_]{0,31}", value, 0..5).prop_map(|map| {
            let mut details = Details::new();
            for (name, value) in map {
                details.insert(name.parse().unwrap(), value).unwrap();
            }
            details
        })
    }

    fn any_rows() -> impl Strategy<Value = Vec<RowChange>> {
        let row = ("[a-z]{1,8}", "[a-z0-9/#\"]{0,20}", any::<Option<[u8; 32]>>());
        prop::collection::vec(row, 0..4).prop_map(|rows| {
            let change = |(kind, key, mac): (String, String, Option<[u8; 32]>)| match mac {
                Some(mac) => RowChange::written(&kind, &key, &mac),
                None => RowChange::removed(&kind, &key),
            };
            rows.into_iter().map(change).collect()
        })
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let text = || prop::option::of("\\PC{0,300}|.{0,300}".prop_map(|text| AuditText::new(&text)));
        let actor = prop_oneof![
            any::<(u32, [u8; 10])>().prop_map(|(ms, random)| Actor::Principal {
                id: PrincipalId::from_parts(ms.into(), &random),
                kind: PrincipalKind::ServiceAccount,
            }),
            Just(Actor::Anonymous),
            Just(Actor::System("rotation".parse().unwrap())),
        ];
        let reason = prop::option::of((prop::sample::select(ReasonCode::ALL), text()))
            .prop_map(|reason| reason.map(|(code, text)| Reason { code, text }));
        let decided = prop::option::of(prop_oneof![
            any::<u32>().prop_map(|rule| DecidedBy::Policy { name: "a.b".parse().unwrap(), rule }),
            any::<u32>().prop_map(|rule| DecidedBy::Grant { id: GrantId::from_parts(9, &[3; 10]), rule }),
            Just(DecidedBy::System("rotation".parse().unwrap())),
        ]);
        (
            (any::<u64>(), -100_000_000_000_000i64..100_000_000_000_000, actor, text(), text()),
            (
                prop::sample::select(Action::ALL),
                prop::option::of("[a-z]{2}/[a-z]{1,5}"),
                any::<Option<u32>>(),
            ),
            (
                prop::sample::select(Outcome::ALL),
                reason,
                decided,
                any::<Option<[u8; 32]>>(),
                any_details(),
                any_rows(),
            ),
        )
            .prop_map(|(first, second, third)| Event {
                seq: first.0,
                time: Timestamp::from_millisecond(first.1).unwrap(),
                request: RequestId::from_parts(5, &[5; 10]),
                actor: first.2,
                on_behalf_of: first.3,
                module: first.4,
                action: second.0,
                path: second.1.map(|path| path.parse().unwrap()),
                version: second.2,
                result: third.0,
                reason: third.1,
                decided_by: third.2,
                personal: third.3,
                details: third.4,
                rows: third.5,
                ..example()
            })
    }

    proptest! {
        #[test]
        fn events_round_trip(event in any_event()) {
            let bytes = event.canonical();
            let parsed = Event::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.canonical(), bytes.clone());
            prop_assert_eq!(parsed, event);
            prop_assert!(bytes.iter().all(|b| *b >= 0x20));
        }

        #[test]
        fn the_short_way_says_what_the_long_way_says(
            event in any_event(), bytes in prop::collection::vec(any::<u8>(), 1..4), at: prop::sample::Index, cut: bool,
        ) {
            let same = |bytes: &[u8]| {
                let (long, short) = (Event::parse_any(bytes), scan::Parts::read(bytes));
                if let Some(parts) = short {
                    let event = long.clone().map_err(|e| TestCaseError::fail(format!("too much was taken: {e}")))?;
                    prop_assert_eq!((parts.seq, parts.time), (event.seq, event.time));
                    prop_assert_eq!(parts.event(), Some(event));
                }
                prop_assert_eq!(Event::glance(bytes), long.clone().map(|event| (event.seq, event.time)));
                prop_assert_eq!(Event::parse(bytes), long);
                Ok(())
            };
            let mut canonical = event.canonical();
            same(&canonical)?;
            let at = at.index(canonical.len());
            match cut {
                true => drop(canonical.drain(at..(at + bytes.len()).min(canonical.len()))),
                false => canonical[at] = bytes[0],
            }
            same(&canonical)?;
            canonical.splice(at..at, bytes);
            same(&canonical)?;
        }

        #[test]
        fn parser_takes_anything(bytes in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index) {
            let _ = Event::parse(&bytes);
            let mut canonical = example().canonical();
            let at = at.index(canonical.len());
            canonical[at] = bytes.first().copied().unwrap_or(0);
            if let Ok(event) = Event::parse(&canonical) {
                prop_assert_eq!(event.canonical(), canonical);
            }
        }

        #[test]
        fn escaped_text_reads_back(text in ".{0,300}|[\\\\u{}a\u{202e}]{0,300}") {
            let escaped = AuditText::new(&text);
            prop_assert!(escaped.as_str().chars().count() <= MAX_TEXT_CHARS);
            prop_assert!(!escaped.as_str().contains(is_deceptive));
            prop_assert_eq!(&AuditText::from_escaped(escaped.as_str()).unwrap(), &escaped);
            let _ = AuditText::from_escaped(&text);
        }
    }
}
