//! Asking a person. Where there is none, that is an error that says so.

use std::io::{IsTerminal as _, Read as _};

use keymoat_crypto::SecretBytes;

use crate::error::CliError;

/// Asks for a secret without showing it.
///
/// # Errors
/// When there is no terminal to ask at.
pub fn secret(what: &str) -> Result<SecretBytes, CliError> {
    secret_or(what, "pipe it to stdin with `-`, or name a file with `@FILE`")
}

/// Asks for a value to store, which may be empty.
///
/// # Errors
/// When there is no terminal to ask at.
pub fn value(what: &str) -> Result<SecretBytes, CliError> {
    Ok(secret_or_nothing(what)?.unwrap_or_else(|| SecretBytes::new(Vec::new())))
}

/// As [`secret`]; `instead` says how it is given where nobody can be asked.
///
/// # Errors
/// When there is no terminal to ask at.
pub fn secret_or(what: &str, instead: &str) -> Result<SecretBytes, CliError> {
    if !std::io::stdin().is_terminal() {
        let mut what = what.to_owned();
        if let Some(first) = what.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        return Err(CliError::new(format!("{what} is needed, and there is nobody to ask")).hint(instead));
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
    if bytes.len() as u64 == limit {
        return Err(CliError::new(format!(
            "stdin holds more than {} bytes, the most that a value may have",
            keymoat_core::secret::MAX_VALUE_BYTES
        ))
        .hint("nothing was stored; keep the large thing elsewhere, encrypted, and its key here"));
    }
    Ok(SecretBytes::new(bytes))
}

/// Refuses what is no text where only text can be stored.
///
/// # Errors
/// When it is not UTF-8.
pub fn text_only(value: SecretBytes, place: &str) -> Result<SecretBytes, CliError> {
    // EXPOSE: only whether it is UTF-8 leaves.
    match value.expose(|bytes| std::str::from_utf8(bytes).is_ok()) {
        true => Ok(value),
        false => Err(CliError::new(format!("the value of `{place}` is not text, and nothing was stored"))
            .hint("bytes are stored as a whole value: `keymoat put PATH --bytes @FILE`")),
    }
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
