//! Text that people write beside things (reasons, descriptions, tags, names of fields), kept and shown in clear: one
//! that holds a key is refused. It knows keys by the catalogue alone; it does not look for passwords.

use crate::{Vault, VaultError};

impl Vault {
    /// Refuses texts of which one holds what looks like a key of a provider, naming which.
    ///
    /// # Errors
    /// [`Code::Invalid`](crate::Code::Invalid).
    pub(crate) fn check_no_key<'w, 't>(
        &self,
        texts: impl IntoIterator<Item = (&'w str, &'t str)>,
    ) -> Result<(), VaultError> {
        let catalogue = self.catalogue();
        match texts.into_iter().find(|(_, text)| catalogue.holds_a_key(text)) {
            Some((what, _)) => Err(holds_key(what)),
            None => Ok(()),
        }
    }
}

/// The error that names what holds a key, and not the key.
pub(crate) fn holds_key(what: &str) -> VaultError {
    VaultError::invalid(format!("{what} holds what looks like a key")).hint(
        "it would stand there in clear; leave keys out, the last four characters are enough to tell which",
    )
}
