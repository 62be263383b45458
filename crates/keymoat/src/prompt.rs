//! Asking a person. Where there is none, that is an error that says so.

use std::io::{IsTerminal as _, Read as _};

use keymoat_crypto::SecretBytes;

use crate::error::CliError;

/// Asks for a secret without showing it.
///
/// # Errors
/// When there is no terminal to ask at.
pub fn secret(what: &str) -> Result<SecretBytes, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new(format!("{} is needed, and there is nobody to ask", what.to_lowercase()))
            .hint("pipe it to stdin with `-`, or name a file with `@FILE`"));
    }
    let text = dialoguer::Password::new()
        .with_prompt(what)
        .interact()
        .map_err(|e| CliError::new(format!("cannot ask for it: {e}")))?;
    Ok(SecretBytes::new(text.into_bytes()))
}

/// Asks yes or no; no when there is nobody to ask.
pub fn confirm(question: &str) -> bool {
    if !crate::output::talks_to_a_person() {
        return false;
    }
    dialoguer::Confirm::new().with_prompt(question).default(false).interact().unwrap_or(false)
}

/// Reads a secret from stdin to its end; one final line end is not part of it.
///
/// # Errors
/// When stdin cannot be read or holds too much.
pub fn secret_from_stdin() -> Result<SecretBytes, CliError> {
    let mut bytes = Vec::new();
    let limit = keymoat_core::secret::MAX_VALUE_BYTES as u64 + 3;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| CliError::new(format!("cannot read stdin: {e}")))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(SecretBytes::new(bytes))
}
