//! What a provider says of a key.

use std::fmt;

use super::printable;

/// What a provider says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// It works.
    Active {
        /// Whose it is, where the provider's answer names that.
        account: Option<String>,
    },
    /// It works no more.
    Dead,
    /// Nobody knows.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Liveness {
    /// The stable word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active { .. } => "active",
            Self::Dead => "dead",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whose it is.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Active { account } => account.as_deref(),
            _ => None,
        }
    }

    /// Why nobody knows.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Unknown { why } => Some(why),
            _ => None,
        }
    }

    /// The same with nothing in it that moves a cursor, and no account that fills a page: both come from elsewhere.
    pub(super) fn printable(self) -> Self {
        let short = |text: String| printable(&text).chars().take(LONGEST).collect();
        match self {
            Self::Active { account } => Self::Active { account: account.map(short) },
            Self::Unknown { why } => Self::Unknown { why: short(why) },
            Self::Dead => Self::Dead,
        }
    }
}

/// `active (acct_0000, Made Up Ltd)`, `dead`, `unknown: no answer within 10 s`.
impl fmt::Display for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::Active { account: Some(account) } => write!(f, " ({account})"),
            Self::Unknown { why } => write!(f, ": {why}"),
            Self::Active { account: None } | Self::Dead => Ok(()),
        }
    }
}

/// Names of accounts are shorter.
const LONGEST: usize = 200;
