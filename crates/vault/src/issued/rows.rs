//! What stands in the rows of issued keys, spaces, owners, uses and credits.
//!
//! Fields are only ever added, with a default, so that older rows stay readable. A key's own text is in none of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use keymoat_core::id::IssuedKeyId;
use keymoat_core::issued::{
    AddressList, Credits, HeldScope, Limits, OwnerInactive, OwnerKind, OwnerRef, Refill,
};
use keymoat_core::names::{Company, Environment, GroupName, RoleName, SpaceName};
use keymoat_store::Kind;
use serde::{Deserialize, Serialize};

use crate::entity::Entity;

/// A space: whose callers its keys are for, and the rules that all of its keys are under.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeySpace {
    /// Its name.
    pub name: SpaceName,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// The environments that its keys may be of; any when empty.
    #[serde(default)]
    pub environments: Vec<Environment>,
    /// What roles give.
    #[serde(default)]
    pub roles: BTreeMap<RoleName, Vec<HeldScope>>,
    /// What becomes of the keys of an owner who is not active.
    #[serde(default = "deny")]
    pub owner_inactive: OwnerInactive,
    /// The same for the keys of some companies.
    #[serde(default)]
    pub owner_inactive_of: BTreeMap<Company, OwnerInactive>,
    /// How long a key may last at most, in seconds, by what kind of owner it has.
    #[serde(default)]
    pub max_age_secs: BTreeMap<OwnerKind, u64>,
    /// Which uses have a record of their own.
    #[serde(default)]
    pub audit: KeyAudit,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which verifications have a record of their own. Refusals of known keys and changes always have one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAudit {
    /// None: how many there were stands in a record for all of some seconds. Those of the last seconds before a crash
    /// are lost.
    #[default]
    Counted,
    /// Each has one, which is durable before the answer leaves.
    Each,
}

impl KeyAudit {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Each => "each",
        }
    }
}

/// An issued key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssuedKey {
    /// Its id.
    pub id: IssuedKeyId,
    /// The id of the first of the keys that were each rerolled into the next: they share limits and credits.
    pub lineage: IssuedKeyId,
    /// The space.
    pub space: SpaceName,
    /// The environment that it is for.
    pub environment: Environment,
    /// The company that it is for.
    #[serde(default)]
    pub company: Option<Company>,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// HMAC of its text under the pepper, in base64; that of the code while nobody has fetched it.
    pub digest: String,
    /// The pepper's number.
    pub pepper: u32,
    /// Its beginning and last four characters.
    pub masked: String,
    /// Until when it can be fetched with a one-time code, by him for whom it is; it has no text before.
    #[serde(default)]
    pub fetch_until: Option<Timestamp>,
    /// Whose.
    pub owner: OwnerRef,
    /// What kind of owner that is.
    pub owner_kind: OwnerKind,
    /// What it gives.
    #[serde(default)]
    pub scopes: Vec<HeldScope>,
    /// The roles that it has.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// The groups that it is in.
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// How often it may be used.
    #[serde(default)]
    pub limits: Limits,
    /// Addresses that it is good from; any when empty.
    #[serde(default)]
    pub networks: AddressList,
    /// From when.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// Until when.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Whether it may be used; can be switched off and on.
    pub enabled: bool,
    /// When and why it ended for good.
    #[serde(default)]
    pub revoked: Option<Revocation>,
    /// The key that it took the place of.
    #[serde(default)]
    pub replaces: Option<IssuedKeyId>,
    /// The key that takes its place.
    #[serde(default)]
    pub replaced_by: Option<IssuedKeyId>,
    /// Whether its lineage has credits.
    #[serde(default)]
    pub has_credits: bool,
    /// What the host keeps beside it, given back with each verification.
    #[serde(default)]
    pub meta: serde_json::Map<String, serde_json::Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// When and why a key ended for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: RevocationReason,
}

/// Why a key ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// Somebody else has it, or may have.
    Compromised,
    /// Another takes its place.
    Superseded,
    /// Whose it was is gone.
    OwnerLeft,
    /// He may not any more.
    PrivilegeWithdrawn,
    /// Nobody used it.
    Unused,
    /// Nobody said.
    Unspecified,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Compromised,
        Self::Superseded,
        Self::OwnerLeft,
        Self::PrivilegeWithdrawn,
        Self::Unused,
        Self::Unspecified,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compromised => "compromised",
            Self::Superseded => "superseded",
            Self::OwnerLeft => "owner_left",
            Self::PrivilegeWithdrawn => "privilege_withdrawn",
            Self::Unused => "unused",
            Self::Unspecified => "unspecified",
        }
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Whether an owner is active, as a host said. Who was never spoken of is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyOwner {
    /// Who.
    pub owner: OwnerRef,
    /// Whether he is active.
    pub active: bool,
    /// When that was said.
    pub updated_at: Timestamp,
    /// By whom.
    pub updated_by: String,
}

/// How a key was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsage {
    /// Which key.
    pub key: IssuedKeyId,
    /// How often it was good.
    #[serde(default)]
    pub allowed: u64,
    /// How often it was refused, by code.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// When it was last good.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
    /// Where it was last good from, when whoever verified it said so.
    #[serde(default)]
    pub last_from: Option<IpAddr>,
    /// The addresses that it is used most from.
    #[serde(default)]
    pub sources: Vec<KeySource>,
}

/// An address that a key is used from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySource {
    /// The address.
    pub address: IpAddr,
    /// How often, at most: an address that took a forgotten one's place has that one's count too.
    pub count: u64,
    /// When last.
    pub last_at: Timestamp,
}

/// The credits of a lineage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyCredits {
    /// Whose.
    pub lineage: IssuedKeyId,
    /// What is left; refills that are due are not in it yet.
    pub remaining: u64,
    /// What fills them up, if anything.
    #[serde(default)]
    pub refill: Option<Refill>,
    /// When they were last filled up, or given.
    pub refilled_at: Timestamp,
}

impl KeyCredits {
    /// The row of a balance.
    pub(crate) fn of(lineage: IssuedKeyId, credits: Credits) -> Self {
        let Credits { remaining, refill, refilled_at } = credits;
        Self { lineage, remaining, refill, refilled_at }
    }

    /// The balance.
    pub(crate) fn credits(&self) -> Credits {
        Credits { remaining: self.remaining, refill: self.refill, refilled_at: self.refilled_at }
    }
}

fn deny() -> OwnerInactive {
    OwnerInactive::Deny
}

impl Entity for KeySpace {
    const KIND: Kind = Kind::KeySpace;

    fn key(&self) -> String {
        self.name.to_string()
    }
}

impl Entity for IssuedKey {
    const KIND: Kind = Kind::IssuedKey;

    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for KeyOwner {
    const KIND: Kind = Kind::KeyOwner;

    fn key(&self) -> String {
        self.owner.to_string()
    }
}

impl Entity for KeyUsage {
    const KIND: Kind = Kind::KeyUsage;

    fn key(&self) -> String {
        self.key.to_string()
    }
}

impl Entity for KeyCredits {
    const KIND: Kind = Kind::KeyCredits;

    fn key(&self) -> String {
        self.lineage.to_string()
    }
}
