//! What a command that fails says, and with which exit code.

use std::fmt;
use std::io::ErrorKind;

use keymoat_server::wire::Problem;
use keymoat_vault::VaultError;

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    /// The exit code: 1 found or refused, 2 wrong usage or failure, 125–127 for `run`.
    pub exit: u8,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The machine-readable code, when the server gave one.
    pub code: Option<String>,
}

impl CliError {
    /// Wrong usage or failure.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: FAILURE, message: message.into(), hint: None, code: None }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another exit code.
    #[must_use]
    pub fn exit(mut self, code: u8) -> Self {
        self.exit = code;
        self
    }

    /// Something could not be done with a file.
    pub fn file(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let failed = Self::new(format!("cannot {what} `{}`: {error}", path.display()));
        match error.kind() {
            ErrorKind::NotFound => {
                failed.hint("is the path right? A relative one begins where the command was started")
            }
            ErrorKind::PermissionDenied => {
                failed.hint("run this as the user whom it belongs to, or let him give you the right")
            }
            ErrorKind::ReadOnlyFilesystem => {
                failed.hint("its disk is mounted read-only; name a place on another one")
            }
            ErrorKind::StorageFull => failed.hint("its disk is full; make room, and try again"),
            ErrorKind::IsADirectory => failed.hint("name a file in it"),
            ErrorKind::InvalidData => failed.hint("it is not text in UTF-8; save it as such"),
            _ => failed,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<VaultError> for CliError {
    fn from(error: VaultError) -> Self {
        Self {
            exit: exit_of(error.code.as_str()),
            message: error.message,
            hint: error.hint,
            code: Some(error.code.as_str().to_owned()),
        }
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        Self {
            exit: exit_of(&problem.code),
            message: problem.detail,
            hint: problem.hint,
            code: Some(problem.code),
        }
    }
}

impl From<keymoat_core::names::NameError> for CliError {
    fn from(error: keymoat_core::names::NameError) -> Self {
        Self::from(VaultError::from(error))
    }
}

fn exit_of(code: &str) -> u8 {
    match code {
        "refused" | "not_signed_in" | "not_found" | "conflict" | "precondition_failed" | "duplicate" => {
            REFUSED
        }
        _ => FAILURE,
    }
}

/// Found or refused.
pub const REFUSED: u8 = 1;
/// Wrong usage or failure.
pub const FAILURE: u8 = 2;
