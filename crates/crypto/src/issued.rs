//! The texts of issued keys: those that Keymoat makes, and those that were made elsewhere and taken over.
//!
//! Text of one's own: `<issuer>_<environment>_`, 43 base62 digits of 256 random bits, 6 base62 digits of the CRC-32 of
//! everything before them. The checksum comes first: a mistyped, cut or made-up key is refused without a look-up. It is
//! no proof; that is the digest's. Keys that were taken over have no form, so only their length and their characters
//! are looked at.

use std::fmt;

use crate::keys::Pepper;
use crate::random;
use crate::sensitive::SecretBytes;
use crate::text::checksum_of;
use crate::token::{
    BODY_LEN, CHECKSUM_LEN, MASK_TAIL, TokenDigest, TokenEnvironment, base62_of_256_bits, base62_of_checksum,
};
use zeroize::Zeroizing;

/// What the keys of a space begin with, such as `km` or `acme`: `[a-z][a-z0-9]{1,11}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Issuer(TokenEnvironment);

/// A key of a form that may be one; whether it is known is another question.
pub struct IssuedKey {
    form: IssuedForm,
    text: SecretBytes,
}

/// Where a key comes from, as its text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedForm {
    /// Made here, for an environment; its checksum is right.
    Own {
        /// What it begins with.
        issuer: Issuer,
        /// The environment in it.
        environment: TokenEnvironment,
    },
    /// Made elsewhere.
    Foreign,
}

/// Why a text is no issued key; never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuedKeyError {
    /// Not the name of an issuer.
    #[error(
        "an issuer has 2 to 12 lower-case letters and digits, a letter first, and is not `kms` or `kmr`, which begin other tokens"
    )]
    Issuer,
    /// It has too many or too few characters.
    #[error("the key has fewer than {MIN_LEN} or more than {MAX_LEN} characters; copy the whole of it")]
    Length,
    /// A byte that is no printable ASCII character, or a space at an end.
    #[error("the key has characters that do not belong in it; copy it again")]
    Malformed,
    /// It begins as keys made here do, and the rest does not fit.
    #[error("the key's checksum does not fit; it was cut short or mistyped")]
    Checksum,
}

impl Issuer {
    /// Takes a name.
    ///
    /// # Errors
    /// [`IssuedKeyError::Issuer`].
    pub fn new(name: &str) -> Result<Self, IssuedKeyError> {
        let name_of_form = TokenEnvironment::new(name).map_err(|_| IssuedKeyError::Issuer)?;
        match OTHER_TOKENS.contains(&name) {
            true => Err(IssuedKeyError::Issuer),
            false => Ok(Self(name_of_form)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl IssuedKey {
    /// Makes a new key.
    pub fn generate(issuer: Issuer, environment: TokenEnvironment) -> Self {
        Self::from_entropy(issuer, environment, &Zeroizing::new(random::bytes::<32>()))
    }

    /// Makes the key of given random bits; for [`IssuedKey::generate`] and test vectors only.
    #[doc(hidden)]
    pub fn from_entropy(issuer: Issuer, environment: TokenEnvironment, entropy: &[u8; 32]) -> Self {
        let prefix = format!("{}_{}_", issuer.as_str(), environment.as_str());
        let mut text = Vec::with_capacity(prefix.len() + BODY_LEN + CHECKSUM_LEN);
        text.extend_from_slice(prefix.as_bytes());
        text.extend_from_slice(base62_of_256_bits(entropy).as_slice());
        let checksum = base62_of_checksum(checksum_of(&text));
        text.extend_from_slice(&checksum);
        Self { form: IssuedForm::Own { issuer, environment }, text: SecretBytes::new(text) }
    }

    /// Reads a key as it was presented or taken over. What begins like a key of an issuer that `is_issuer` knows is one
    /// of those or nothing; anything else was made elsewhere.
    ///
    /// # Errors
    /// [`IssuedKeyError`].
    pub fn read(text: &SecretBytes, is_issuer: impl Fn(&str) -> bool) -> Result<Self, IssuedKeyError> {
        // EXPOSE: shape and checksum are looked at; the text is kept.
        text.expose(|text| {
            let form = form_of(text, is_issuer)?;
            Ok(Self { form, text: SecretBytes::from_slice(text) })
        })
    }

    /// Where it comes from.
    pub fn form(&self) -> IssuedForm {
        self.form
    }

    /// What is stored and looked up: HMAC-SHA-256 of the full text under a pepper.
    pub fn digest(&self, pepper: &Pepper) -> TokenDigest {
        // EXPOSE: a keyed digest of it is made.
        self.text.expose(|text| TokenDigest::from_bytes(pepper.mac(text)))
    }

    /// Whether it might be guessed: a key made elsewhere of fewer than 80 bits, as far as its characters tell.
    pub fn is_weak(&self) -> bool {
        // EXPOSE: how often each character occurs says how much there is to guess.
        self.form == IssuedForm::Foreign && self.text.expose(|text| bits_of(text) < LEAST_BITS)
    }

    /// The prefix and the last four characters; of a key made elsewhere that is short, none.
    pub fn masked(&self) -> String {
        let prefix = match self.form {
            IssuedForm::Own { issuer, environment } => {
                format!("{}_{}_", issuer.as_str(), environment.as_str())
            }
            IssuedForm::Foreign => String::new(),
        };
        // EXPOSE: four characters identify it to its owner.
        self.text.expose(|text| {
            let shown = if text.len() < MASKED_WHOLE { 0 } else { MASK_TAIL };
            format!("{prefix}…{}", String::from_utf8_lossy(&text[text.len() - shown..]))
        })
    }

    /// The full text, to be shown once.
    pub fn text(&self) -> &SecretBytes {
        &self.text
    }
}

fn form_of(text: &[u8], is_issuer: impl Fn(&str) -> bool) -> Result<IssuedForm, IssuedKeyError> {
    if !(MIN_LEN..=MAX_LEN).contains(&text.len()) {
        return Err(IssuedKeyError::Length);
    }
    let is_printable = text.iter().all(|b| (b' '..=b'~').contains(b));
    if !is_printable || text.trim_ascii().len() != text.len() {
        return Err(IssuedKeyError::Malformed);
    }
    let Some(issuer) = issuer_of(text).filter(|issuer| is_issuer(issuer.as_str())) else {
        return Ok(IssuedForm::Foreign);
    };
    let environment = checked_environment(text, issuer).ok_or(IssuedKeyError::Checksum)?;
    Ok(IssuedForm::Own { issuer, environment })
}

fn issuer_of(text: &[u8]) -> Option<Issuer> {
    let end = text.iter().position(|b| *b == b'_')?;
    Issuer::new(std::str::from_utf8(&text[..end]).ok()?).ok()
}

/// The environment of a key of this issuer, if all the rest fits too.
fn checked_environment(text: &[u8], issuer: Issuer) -> Option<TokenEnvironment> {
    let rest = text.get(issuer.as_str().len() + 1..)?;
    let end = rest.iter().position(|b| *b == b'_')?;
    let environment = TokenEnvironment::new(std::str::from_utf8(&rest[..end]).ok()?).ok()?;
    let body = &rest[end + 1..];
    if body.len() != BODY_LEN + CHECKSUM_LEN || !body.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let (before, checksum) = text.split_at(text.len() - CHECKSUM_LEN);
    (base62_of_checksum(checksum_of(before)) == checksum).then_some(environment)
}

/// Shannon's entropy of the characters, in bits of the whole text. Low for short texts, which is the safe side.
fn bits_of(text: &[u8]) -> f64 {
    let mut counts = [0u16; 256];
    for byte in text {
        counts[usize::from(*byte)] += 1;
    }
    let len = f64::from(u16::try_from(text.len()).unwrap_or(u16::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) * (len / f64::from(*count)).log2())
        .sum()
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for IssuedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedKey({:?}, [redacted])", self.form)
    }
}

/// Shortest key that may be taken over: below, a list of words finds it.
const MIN_LEN: usize = 8;
/// Longest key: a header's worth.
const MAX_LEN: usize = 512;
/// A key made elsewhere that is shorter shows none of its characters.
const MASKED_WHOLE: usize = 16;
const LEAST_BITS: f64 = 80.0;
/// What the tokens of accounts begin with.
const OTHER_TOKENS: [&str; 2] = ["kms", "kmr"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_issuer(name: &str) -> bool {
        ["km", "acme"].contains(&name)
    }

    fn read(text: &[u8]) -> Result<IssuedKey, IssuedKeyError> {
        IssuedKey::read(&SecretBytes::from_slice(text), is_issuer)
    }

    fn own(issuer: &str, entropy: [u8; 32]) -> IssuedKey {
        IssuedKey::from_entropy(
            Issuer::new(issuer).unwrap(),
            TokenEnvironment::new("live").unwrap(),
            &entropy,
        )
    }

    fn string(key: &IssuedKey) -> String {
        key.text().expose(|text| String::from_utf8(text.clone()).unwrap())
    }

    #[test]
    fn keys_of_ones_own() {
        let pepper = Pepper::generate(1);
        for issuer in ["km", "acme"] {
            let key =
                IssuedKey::generate(Issuer::new(issuer).unwrap(), TokenEnvironment::new("live").unwrap());
            let text = string(&key);
            let prefix = format!("{issuer}_live_");
            assert!(text.starts_with(&prefix) && text.len() == prefix.len() + 49, "{text}");
            let back = read(text.as_bytes()).unwrap();
            assert_eq!(back.form(), key.form());
            assert!(back.digest(&pepper) == key.digest(&pepper));
            assert!(back.digest(&pepper) != key.digest(&Pepper::generate(1)));
            assert_eq!(back.masked(), format!("{prefix}…{}", &text[text.len() - 4..]));
            assert!(!back.is_weak());
            assert_eq!(format!("{back:?}").find(&text[8..]), None);
        }
        assert_eq!(string(&own("km", [0; 32]))[..51], format!("km_live_{}", "0".repeat(43)));
    }

    #[test]
    fn the_checksum_comes_first() {
        let valid = string(&own("km", [7; 32]));
        let check = |text: &str, expected: Result<IssuedForm, IssuedKeyError>| {
            assert_eq!(read(text.as_bytes()).map(|key| key.form()), expected, "{text}");
        };
        check(&valid[..valid.len() - 1], Err(IssuedKeyError::Checksum));
        check(&format!("{valid}0"), Err(IssuedKeyError::Checksum));
        check(&valid.replace("live", "test"), Err(IssuedKeyError::Checksum));
        check(&valid.replace("km_", "acme_"), Err(IssuedKeyError::Checksum));
        check(&valid.replacen("km_live_", "km_Live_", 1), Err(IssuedKeyError::Checksum));
        check("km_live_", Err(IssuedKeyError::Checksum));
        check("km_anything at all", Err(IssuedKeyError::Checksum));
        // Nobody here issues those.
        check(&valid.replace("km_", "other_"), Ok(IssuedForm::Foreign));
        check(&valid.replace("km_", "KM_"), Ok(IssuedForm::Foreign));
        for position in 8..valid.len() {
            let mut altered = valid.clone().into_bytes();
            altered[position] = if altered[position] == b'a' { b'b' } else { b'a' };
            assert_eq!(read(&altered).unwrap_err(), IssuedKeyError::Checksum, "{position}");
        }
    }

    #[test]
    fn keys_made_elsewhere() {
        let check = |text: &[u8], expected: Result<bool, IssuedKeyError>| {
            assert_eq!(read(text).map(|key| key.is_weak()), expected, "{:?}", String::from_utf8_lossy(text));
        };
        check(b"", Err(IssuedKeyError::Length));
        check(b"made-up", Err(IssuedKeyError::Length));
        check(&[b'a'; 513], Err(IssuedKeyError::Length));
        check("mаde-up-look-alike".as_bytes(), Err(IssuedKeyError::Malformed));
        check(b"made-up\0key", Err(IssuedKeyError::Malformed));
        check(b"made-up\nkey", Err(IssuedKeyError::Malformed));
        check(b" made-up-key", Err(IssuedKeyError::Malformed));
        check(b"made-up-key ", Err(IssuedKeyError::Malformed));
        check(&[0xff; 20], Err(IssuedKeyError::Malformed));
        check(b"made up key", Ok(true));
        check(&[b'a'; 512], Ok(true));
        check(b"0123456789abcdef0123", Ok(true));
        check(b"MadeUp_9vQ2xZ7rT4kW1sB8nJ5hL3pD6fG", Ok(false));
    }

    #[test]
    fn masks_show_little() {
        let masked = |text: &str| read(text.as_bytes()).unwrap().masked();
        assert_eq!(masked("made-up-key-of-15").len(), "…".len() + 4);
        assert_eq!(masked("made-up-short"), "…");
    }

    #[test]
    fn issuers() {
        for good in ["km", "acme", "a1", "twelvechars1"] {
            assert_eq!(Issuer::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a", "kms", "kmr", "1a", "Acme", "a_b", "a-b", "thirteenchars"] {
            assert_eq!(Issuer::new(bad), Err(IssuedKeyError::Issuer), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_entropy_round_trips(entropy: [u8; 32]) {
            let key = own("acme", entropy);
            prop_assert_eq!(read(string(&key).as_bytes()).unwrap().form(), key.form());
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..80), prefix in "(km|acme)?_?[a-z]{0,14}_?") {
            for text in [noise.clone(), [prefix.as_bytes(), &noise].concat()] {
                if let Ok(key) = read(&text) {
                    prop_assert_eq!(key.form(), IssuedForm::Foreign);
                    let _ = (key.is_weak(), key.masked());
                }
            }
        }
    }
}
