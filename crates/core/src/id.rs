//! Identifiers: UUID version 7 (RFC 9562 §5.7), one type for each kind of thing.
//!
//! Time and randomness come from the caller. An identifier has one text form (lower case, hyphens); other
//! spellings of the same number are refused.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use uuid::Uuid;

use crate::names::TextVisitor;

/// Makes the identifier types; all of them have the same methods.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $label:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an identifier from a time in milliseconds since 1970 (48 bits are kept) and random bytes.
            pub fn from_parts(timestamp_ms: u64, random: &[u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(timestamp_ms, random).into_uuid())
            }

            /// Takes an identifier from where it was kept.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The number itself.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            /// The sixteen bytes, as they are kept.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self).ok_or(IdError { kind: $label })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.as_hyphenated().encode_lower(&mut [0; TEXT_BYTES]))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor::new($label))
            }
        }
    )*};
}

ids! {
    /// Identifies a secret for its whole life, whatever its path.
    SecretId, "secret id";
    /// Identifies an issued key for its whole life.
    IssuedKeyId, "key id";
    /// Identifies a user or a service account.
    PrincipalId, "principal id";
    /// Identifies a token.
    TokenId, "token id";
    /// Identifies a grant.
    GrantId, "grant id";
    /// Identifies one request, from its arrival to its audit event.
    RequestId, "request id";
}

/// A text that is not an identifier in its one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is not of the form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in lower-case hex digits")]
pub struct IdError {
    kind: &'static str,
}

fn parse(text: &str) -> Option<Uuid> {
    if text.len() != TEXT_BYTES || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok()
}

/// Length of the text form in bytes (RFC 9562 §4).
const TEXT_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_spelling_only() {
        let good = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(good.parse::<SecretId>().unwrap().to_string(), good);
        for bad in [
            "",
            "01890A5D-AC96-774B-BCCE-B302099A8057",
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5d-ac96-774b-bcce-b302099a805",
            "01890a5d-ac96-774b-bcce-b302099a805g",
            " 01890a5d-ac96-774b-bcce-b302099a805",
        ] {
            assert!(bad.parse::<SecretId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn made_as_version_7_ordered_by_time(ms in 0u64..1 << 48, later in 1u64..1 << 20, random: [u8; 10]) {
            let id = RequestId::from_parts(ms, &random);
            prop_assert_eq!(id.as_uuid().get_version_num(), 7);
            prop_assert_eq!(id.to_string().parse::<RequestId>().unwrap(), id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<RequestId>(&json).unwrap(), id);
            if ms + later < 1 << 48 {
                prop_assert!(id < RequestId::from_parts(ms + later, &[0; 10]));
            }
        }

        #[test]
        fn parser_takes_anything(text in ".{0,50}") {
            let _ = text.parse::<GrantId>();
        }
    }
}
