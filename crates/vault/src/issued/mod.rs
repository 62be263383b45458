//! Issued keys: made for callers of somebody's API, shown once, and verified from memory.
//!
//! What a key may do is decided by `keymoat_core::issued::check`, in one order, and nothing is charged before all of it
//! has passed. Here stands what that decision is fed with: all keys by their digests in memory, who may verify what, how
//! far limits are used, and credits, of which each that is spent is on the disk before the answer leaves. Keys that
//! Keymoat's own callers sign in with are tokens, and somewhere else.

mod known;
mod manage;
mod rows;
mod spaces;
mod uses;
mod verify;

pub use keymoat_core::issued::Code as KeyCode;

pub use known::{KeyPlace, KeyTerms, KnownKey};
pub use manage::{FreshKey, KeyChange, KeyFilter, KeyPage, KeyStatus, NewCredits, NewIssuedKey, ShownKey};
pub use rows::{
    IssuedKey, KeyAudit, KeyCredits, KeyOwner, KeySource, KeySpace, KeyUsage, Revocation, RevocationReason,
};
pub use spaces::KeySpaceRules;
pub use verify::{KeyQuestion, KeyVerdict, LimitLeft, Verifier};

pub(crate) use known::IssuedKeys;
pub(crate) use uses::KeyUses;

use keymoat_core::names::{Environment, SpaceName};
use keymoat_core::policy::Resource;

use crate::VaultError;
use crate::desk::system_resource;

/// The keys of a space for an environment, as policies speak of them.
pub(crate) fn place_resource(space: &SpaceName, environment: &Environment) -> Result<Resource, VaultError> {
    system_resource(&format!("{SPACES}/{space}/{environment}"))
}

/// What the paths of spaces begin with.
const SPACES: &str = "spaces";
/// The space that every vault has without anybody having made it.
const DEFAULT_SPACE: &str = "default";
/// What an owner begins with who is an account of this vault.
const ACCOUNT_OWNER: &str = "account:";
