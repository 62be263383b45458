//! Where a master key comes from: its text form and passphrases. Shares are in `shamir`.
//!
//! Text form: `keymoat-master-key-1:<base64url of 32 bytes, no padding>:<CRC-32 of the bytes, 8 hex
//! digits>`. The checksum tells a copying mistake from a wrong key. Reading it from a file or a variable is
//! the caller's.

use zeroize::Zeroizing;

use crate::argon::{Argon2Params, PassphraseError};
use crate::keys::MasterKey;
use crate::sensitive::SecretBytes;
use crate::text::{checksum_of, from_base64url, to_base64url, trim};

/// Why a text is not a master key; never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// It does not begin like one.
    #[error("this is not a master key: it does not begin with `keymoat-master-key-1:`")]
    Foreign,
    /// It is a share of one.
    #[error("this is one share of a master key; the other shares of its set are needed too")]
    Share,
    /// It ends too early.
    #[error("the master key is cut short; copy the whole line")]
    Truncated,
    /// A part has characters or a length that it cannot have.
    #[error("the master key has characters that do not belong in it; copy the line again")]
    Malformed,
    /// The checksum does not fit.
    #[error("the master key's checksum does not fit; one of its characters was mistyped")]
    Checksum,
}

impl MasterKey {
    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub fn parse(text: &SecretBytes) -> Result<Self, MasterKeyError> {
        // EXPOSE: the key is read out of its text.
        text.expose(|text| parse(trim(text)))
    }

    /// Writes the text form.
    pub fn to_text(&self) -> SecretBytes {
        // EXPOSE: the text form is a secret itself.
        self.expose(|bytes| {
            let checksum = checksum_of(bytes);
            let body = to_base64url(bytes);
            let mut text = Vec::with_capacity(TEXT_LEN);
            text.extend_from_slice(PREFIX);
            text.extend_from_slice(body.as_bytes());
            text.extend_from_slice(format!(":{checksum:08x}").as_bytes());
            SecretBytes::new(text)
        })
    }

    /// Derives a master key from a passphrase by Argon2id; takes as long as the parameters say.
    ///
    /// # Errors
    /// [`PassphraseError`] when there is no passphrase or the parameters are out of bounds.
    pub fn from_passphrase(passphrase: &SecretBytes, params: &Argon2Params) -> Result<Self, PassphraseError> {
        Ok(Self::from_bytes(&*params.derive(passphrase)?))
    }
}

fn parse(text: &[u8]) -> Result<MasterKey, MasterKeyError> {
    let Some(rest) = text.strip_prefix(PREFIX) else {
        return Err(match text {
            _ if text.starts_with(b"keymoat-share-") => MasterKeyError::Share,
            _ if PREFIX.starts_with(text) && !text.is_empty() => MasterKeyError::Truncated,
            _ => MasterKeyError::Foreign,
        });
    };
    if rest.len() < BODY_LEN + 1 + CHECKSUM_LEN {
        return Err(MasterKeyError::Truncated);
    }
    let (body, rest) = rest.split_at(BODY_LEN);
    let checksum = rest.strip_prefix(b":").ok_or(MasterKeyError::Malformed)?;
    let bytes = from_base64url(body).ok_or(MasterKeyError::Malformed)?;
    if checksum.len() != CHECKSUM_LEN {
        return Err(MasterKeyError::Malformed);
    }
    let expected = Zeroizing::new(format!("{:08x}", checksum_of(bytes.as_slice())));
    if !checksum.eq_ignore_ascii_case(expected.as_bytes()) {
        return Err(MasterKeyError::Checksum);
    }
    Ok(MasterKey::from_bytes(&bytes))
}

const PREFIX: &[u8] = b"keymoat-master-key-1:";
/// 32 bytes in base64 without padding.
const BODY_LEN: usize = 43;
const CHECKSUM_LEN: usize = 8;
const TEXT_LEN: usize = PREFIX.len() + BODY_LEN + 1 + CHECKSUM_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(text: &[u8]) -> SecretBytes {
        SecretBytes::from_slice(text)
    }

    fn valid() -> String {
        let text = MasterKey::from_bytes(&[7; 32]).to_text();
        text.expose(|text| String::from_utf8(text.clone()).unwrap())
    }

    #[test]
    fn round_trips_with_white_space_around() {
        let valid = valid();
        assert_eq!(valid.len(), TEXT_LEN);
        let upper_checksum = format!("{}{}", &valid[..TEXT_LEN - 8], valid[TEXT_LEN - 8..].to_uppercase());
        for text in [valid.clone(), format!("{valid}\n"), format!(" \t{valid}\r\n"), upper_checksum] {
            let key = MasterKey::parse(&text_of(text.as_bytes())).unwrap();
            key.expose(|bytes| assert_eq!(*bytes, [7; 32]));
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        let valid = valid();
        let changed = |from: usize, to: &str| format!("{}{to}{}", &valid[..from], &valid[from + to.len()..]);
        let rows = [
            (String::new(), MasterKeyError::Foreign),
            ("sk_test_made_up".to_owned(), MasterKeyError::Foreign),
            (valid.to_uppercase(), MasterKeyError::Foreign),
            (valid.replace("-1:", "-2:"), MasterKeyError::Foreign),
            ("keymoat-share-1:00ff:2:1:x:0".to_owned(), MasterKeyError::Share),
            ("keymoat-master".to_owned(), MasterKeyError::Truncated),
            (valid[..TEXT_LEN - 1].to_owned(), MasterKeyError::Truncated),
            (valid[..40].to_owned(), MasterKeyError::Truncated),
            (format!("{valid}0"), MasterKeyError::Malformed),
            (format!("{valid} {valid}"), MasterKeyError::Malformed),
            (changed(PREFIX.len() + 3, "+"), MasterKeyError::Malformed),
            (changed(PREFIX.len() + BODY_LEN, "-"), MasterKeyError::Malformed),
            (changed(PREFIX.len() + 3, "Q"), MasterKeyError::Checksum),
            (changed(TEXT_LEN - 2, "zz"), MasterKeyError::Checksum),
        ];
        for (text, expected) in rows {
            assert_eq!(MasterKey::parse(&text_of(text.as_bytes())).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn every_cut_refuses() {
        let valid = valid();
        for len in 0..valid.len() {
            assert!(MasterKey::parse(&text_of(&valid.as_bytes()[..len])).is_err());
        }
    }

    #[test]
    fn a_passphrase_gives_the_same_key_again() {
        let params = Argon2Params { memory_kib: 8192, iterations: 1, ..Argon2Params::generate() };
        let phrase = text_of(b"made up and obviously so");
        let [a, b] = [(); 2].map(|()| MasterKey::from_passphrase(&phrase, &params).unwrap());
        assert!(a.expose(|a| b.expose(|b| a == b)));
        assert!(MasterKey::from_passphrase(&text_of(b""), &params).is_err());
    }

    proptest! {
        #[test]
        fn any_key_round_trips(bytes: [u8; 32]) {
            let back = MasterKey::parse(&MasterKey::from_bytes(&bytes).to_text()).unwrap();
            back.expose(|back| assert_eq!(*back, bytes));
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..120), like: bool) {
            let text = if like { [PREFIX, &noise].concat() } else { noise };
            prop_assert!(MasterKey::parse(&text_of(&text)).is_err());
        }
    }
}
