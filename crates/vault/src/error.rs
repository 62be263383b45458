//! What a use-case answers when it does not do what was asked: a code for programs, a sentence and a next step for people.

use std::fmt;

use keymoat_core::names::NameError;
use keymoat_store::{OpenError, StoreError};

/// Why a use-case did not do what was asked. Never holds a value.
#[derive(Debug)]
pub struct VaultError {
    /// For programs.
    pub code: Code,
    /// For people: what is wrong, a lower-case fragment that names the thing.
    pub message: String,
    /// For people: what to do next.
    pub hint: Option<String>,
    /// For programs: in how many seconds it is worth trying again, where that is known.
    pub retry_after_secs: Option<u64>,
}

/// The cases that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Nobody is signed in, or what was presented is not valid.
    NotSignedIn,
    /// The rules say no.
    Refused,
    /// There is no such thing.
    NotFound,
    /// It was changed meanwhile, or stands already.
    Conflict,
    /// The same value is stored in another environment.
    Duplicate,
    /// The request is not well formed.
    Invalid,
    /// It is larger than allowed.
    TooLarge,
    /// Too many requests.
    RateLimited,
    /// Keymoat is sealed.
    Sealed,
    /// It cannot be written down, so it is not done.
    Unavailable,
    /// Another process has the data directory.
    InUse,
    /// A source that would have to be asked is down.
    SourceDown,
    /// Stored bytes are not what was written.
    Damaged,
    /// Keymoat itself failed.
    Internal,
}

impl Code {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NotSignedIn => "not_signed_in",
            Code::Refused => "refused",
            Code::NotFound => "not_found",
            Code::Conflict => "conflict",
            Code::Duplicate => "duplicate",
            Code::Invalid => "invalid",
            Code::TooLarge => "too_large",
            Code::RateLimited => "rate_limited",
            Code::Sealed => "sealed",
            Code::Unavailable => "unavailable",
            Code::InUse => "in_use",
            Code::SourceDown => "source_down",
            Code::Damaged => "damaged",
            Code::Internal => "internal",
        }
    }
}

impl VaultError {
    /// An error without a next step.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, retry_after_secs: None }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(Code::Damaged, message).hint(DAMAGED)
    }

    /// Whether the rules changed under the request, so that it has to be decided again.
    pub(crate) fn is_stale(&self) -> bool {
        self.code == Code::Conflict && self.message == STALE
    }
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for VaultError {}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Stale => return Self::new(Code::Conflict, STALE),
            StoreError::Full(_)
            | StoreError::ReadOnly { .. }
            | StoreError::Stopped(_)
            | StoreError::Overloaded
            | StoreError::Unreachable { .. } => Code::Unavailable,
            StoreError::Corrupt { .. } => Code::Damaged,
            StoreError::Refused(_) | StoreError::Database(_) => Code::Internal,
        };
        let failed = Self::new(code, error.to_string());
        match error {
            StoreError::Corrupt { .. } => failed.hint(DAMAGED),
            StoreError::ReadOnly { .. } => failed.hint(READ_ONLY),
            _ => failed,
        }
    }
}

impl From<OpenError> for VaultError {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Untrusted(_) => Code::Damaged,
            OpenError::Missing(_) => Code::NotFound,
            OpenError::Exists(_) => Code::Conflict,
            OpenError::Locked { .. } => Code::InUse,
            _ => Code::Unavailable,
        };
        let failed = Self::new(code, error.to_string());
        match error {
            OpenError::Store(error) => error.into(),
            OpenError::Untrusted(untrusted) => failed.hint(untrusted.next_step()),
            OpenError::Io { .. } => failed.hint(READ_ONLY),
            _ => failed,
        }
    }
}

impl From<NameError> for VaultError {
    fn from(error: NameError) -> Self {
        let hint = error.suggestion().map(|name| format!("did you mean `{name}`?"));
        Self { hint, ..Self::invalid(error.to_string()) }
    }
}

/// Where the damage is so great that the log cannot be read either, a backup is what is left.
const DAMAGED: &str = "keep a copy of the data directory; `keymoat audit verify` names what was touched, and `keymoat restore FILE` makes a vault of a backup in an empty data directory";
const READ_ONLY: &str = "is the disk mounted, writable and yours? What cannot be written can still be checked: `keymoat audit verify --read-only`";
const STALE: &str = "access rules kept changing while the request was on its way";
