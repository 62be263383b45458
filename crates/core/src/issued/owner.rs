//! Whose key it is, and whether that matters when its owner is no longer active.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::names::TextVisitor;
use crate::words::words;

/// The owner of a key as the host knows him, such as `odoo:res.users:42`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef(Arc<str>);

words! {
    /// What kind of owner a key has; maximum ages are set by it.
    OwnerKind, "kind of owner":
    User = "user" doc "A person, whose keys follow his state.",
    ServiceAccount = "service_account" doc "A program of one's own.",
    Application = "application" doc "A program of somebody else's.",
    Partner = "partner" doc "A company that one works with.",
}

words! {
    /// Whether the owner is active, as the host last said.
    OwnerState, "state of an owner":
    Active = "active" doc "He is, or nobody said otherwise.",
    Inactive = "inactive" doc "He is archived, disabled or gone.",
}

words! {
    /// What becomes of the keys of an owner who is not active.
    OwnerInactive, "rule for owners who are not active":
    Deny = "deny" doc "They are refused.",
    Allow = "allow" doc "They go on working, as technical users that nobody signs in with need it.",
}

impl OwnerState {
    /// Whether a key of an owner in this state works.
    pub fn passes(self, rule: OwnerInactive) -> bool {
        self == Self::Active || rule == OwnerInactive::Allow
    }
}

impl OwnerRef {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OwnerRef {
    type Err = OwnerRefError;

    fn from_str(text: &str) -> Result<Self, OwnerRefError> {
        let is_plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':' | b'@' | b'/' | b'+');
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        match starts_well && text.len() <= MAX_OWNER_BYTES && text.bytes().all(is_plain) {
            true => Ok(Self(text.into())),
            false => Err(OwnerRefError),
        }
    }
}

impl fmt::Display for OwnerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for OwnerRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for OwnerRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("an owner"))
    }
}

/// A text that names no owner. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "owner is malformed; allowed: a letter or digit, then at most {} letters, digits, `_`, `.`, `-`, `:`, `@`, `/`, `+`, such as `odoo:res.users:42`",
    MAX_OWNER_BYTES - 1
)]
pub struct OwnerRefError;

/// Longest owner in bytes: fits a mail address behind the name of a model.
const MAX_OWNER_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        for good in
            ["odoo:res.users:42", "ana@shop.test", "4", "ldap:uid=".trim_end_matches('='), &"a".repeat(128)]
        {
            assert_eq!(good.parse::<OwnerRef>().unwrap().as_str(), good);
        }
        for bad in ["", ":a", "a b", "a\n", "a,b", "é", "a\"", &"a".repeat(129)] {
            assert_eq!(bad.parse::<OwnerRef>(), Err(OwnerRefError), "{bad:?}");
        }
    }

    #[test]
    fn keys_of_owners_who_are_not_active() {
        let check = |state: OwnerState, rule: OwnerInactive, expected: bool| {
            assert_eq!(state.passes(rule), expected, "{state} {rule}");
        };
        check(OwnerState::Active, OwnerInactive::Deny, true);
        check(OwnerState::Active, OwnerInactive::Allow, true);
        check(OwnerState::Inactive, OwnerInactive::Deny, false);
        check(OwnerState::Inactive, OwnerInactive::Allow, true);
    }
}
