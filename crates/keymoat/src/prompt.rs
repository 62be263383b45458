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

/// Asks for a secret without showing it; none when the answer is empty.
///
/// # Errors
/// When there is no terminal to ask at.
pub fn secret_or_nothing(what: &str) -> Result<Option<SecretBytes>, CliError> {
    if !std::io::stdin().is_terminal() {
        return secret(what).map(Some);
    }
    let text = dialoguer::Password::new()
        .with_prompt(what)
        .allow_empty_password(true)
        .interact()
        .map_err(|e| CliError::new(format!("cannot ask for it: {e}")))?;
    Ok(Some(SecretBytes::new(text.into_bytes())).filter(|text| !text.is_empty()))
}

/// Asks yes or no; no when there is nobody to ask.
pub fn confirm(question: &str) -> bool {
    if !crate::output::talks_to_a_person() {
        return false;
    }
    dialoguer::Confirm::new().with_prompt(question).default(false).interact().unwrap_or(false)
}

/// Reads a secret text from stdin to its end; one final line end is not part of it.
///
/// # Errors
/// When stdin cannot be read or holds too much.
pub fn secret_from_stdin() -> Result<SecretBytes, CliError> {
    Ok(without_line_end(bytes_from_stdin()?))
}

/// Reads a secret from stdin to its end, as it is.
///
/// # Errors
/// When stdin cannot be read or holds too much.
pub fn bytes_from_stdin() -> Result<SecretBytes, CliError> {
    let mut bytes = Vec::new();
    // One more than may be stored, so that too much is noticed rather than cut off.
    let limit = keymoat_core::secret::MAX_VALUE_BYTES as u64 + 3;
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
    read.map_err(|e| CliError::new(format!("cannot read stdin: {e}")))?;
    Ok(SecretBytes::new(bytes))
}

/// The secret without one final line end, which editors and `echo` add.
pub fn without_line_end(secret: SecretBytes) -> SecretBytes {
    // EXPOSE: what is left of it is a secret again.
    secret.expose(|bytes| {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let text = if text.len() < bytes.len() { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        SecretBytes::from_slice(text)
    })
}
