//! Text that people write beside things (reasons, descriptions, tags, names of fields), kept and shown in clear: one
//! that holds a key is refused. It knows keys by the catalogue alone; it does not look for passwords.

use keymoat_detect::{Catalogue, Identification};

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
        match texts.into_iter().find(|(_, text)| holds_a_key(&catalogue, text)) {
            Some((what, _)) => Err(holds_key(what)),
            None => Ok(()),
        }
    }
}

/// Whether a text holds what looks like a key that must not be known.
pub(crate) fn holds_a_key(catalogue: &Catalogue, text: &str) -> bool {
    let is_key = |word: &str| match catalogue.identify(word.as_bytes()) {
        Identification::Known(known) => known.key.sensitive,
        Identification::Unknown => false,
    };
    // A key may hold `/`, `+` or `=` itself, so it is looked for between wide and between narrow delimiters.
    let wide =
        text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')'));
    let narrow = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-'));
    let middle =
        text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/' | '+'));
    wide.chain(narrow).chain(middle).filter(|word| !word.is_empty()).any(is_key)
}

/// The error that names what holds a key, and not the key.
pub(crate) fn holds_key(what: &str) -> VaultError {
    VaultError::invalid(format!("{what} holds what looks like a key")).hint(
        "it would stand there in clear; leave keys out, the last four characters are enough to tell which",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_whether_they_hold_a_key() {
        let catalogue = Catalogue::with_extra(&[]).unwrap();
        let check = |text: &str, holds: bool| assert_eq!(holds_a_key(&catalogue, text), holds, "{text}");
        check("", false);
        check("ticket 4711, for the refunds", false);
        check("the key that ends in Test", false);
        check("pk_live_51MadeUpExample0000KeymoatTest", false);
        check("sk_live_51MadeUpExample0000KeymoatTest", true);
        check("was (sk_live_51MadeUpExample0000KeymoatTest), now another", true);
        check("key=sk_live_51MadeUpExample0000KeymoatTest;", true);
        check("https://a.test/?k=sk_live_51MadeUpExample0000KeymoatTest", true);
    }
}
