//! Tokens that Keymoat gives out: their text, their checksum and their digests.
//!
//! Text: prefix, 43 base62 digits of 256 random bits, 6 base62 digits of the CRC-32 of everything before
//! them. The prefix is `kms_` (service account), `kmr_` (administrator) or `km_<environment>_` (issued key).
//! The checksum lets a scanner tell a token from noise offline; what a token may do is looked up by its
//! digest, elsewhere.

use std::fmt;
use std::hash::{Hash, Hasher};

use base64ct::{Base64Unpadded, Encoding};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::canonical::Canonical;
use crate::kdf::hkdf_sha256;
use crate::keys::{InstanceKey, Pepper};
use crate::random;
use crate::sensitive::SecretBytes;
use crate::text::checksum_of;

/// Who a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A service account.
    ServiceAccount,
    /// An administrator.
    Administrator,
    /// A caller of somebody's API, in one environment.
    Issued {
        /// The environment that the key is for.
        environment: TokenEnvironment,
    },
}

/// The name of an environment as it stands in a token: `[a-z][a-z0-9]{1,11}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenEnvironment {
    bytes: [u8; MAX_ENVIRONMENT_LEN],
    len: u8,
}

/// A token whose shape and checksum are right; whether it is known is another question.
pub struct Token {
    kind: TokenKind,
    text: SecretBytes,
}

/// What is stored of a token or sign-in code; compared in constant time.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

/// A code to sign in with once: 100 random bits in 20 characters, in groups of five.
pub struct SignInCode(SecretBytes);

/// Why a text is not a token; never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It begins with none of the prefixes.
    #[error("this is not a Keymoat token: it begins with none of `kms_`, `kmr_` and `km_<environment>_`")]
    Foreign,
    /// The environment in it has no valid name.
    #[error("the token names no valid environment; 2 to 12 lower-case letters and digits, a letter first")]
    Environment,
    /// It has too many or too few characters.
    #[error("the token is cut short or too long; copy the whole of it")]
    Length,
    /// It has a character that is neither a letter nor a digit.
    #[error("the token has characters that do not belong in it; copy it again")]
    Malformed,
    /// The checksum does not fit.
    #[error("the token's checksum does not fit; one of its characters was mistyped")]
    Checksum,
}

/// The text is not a sign-in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sign-in code has 20 letters and digits in four groups of five")]
pub struct SignInCodeError;

impl TokenKind {
    /// The kind of keys issued in an environment.
    ///
    /// # Errors
    /// [`TokenError::Environment`].
    pub fn issued(environment: &str) -> Result<Self, TokenError> {
        Ok(Self::Issued { environment: TokenEnvironment::new(environment)? })
    }

    /// What its tokens begin with.
    pub fn prefix(&self) -> String {
        match self {
            Self::ServiceAccount => SERVICE_ACCOUNT.to_owned(),
            Self::Administrator => ADMINISTRATOR.to_owned(),
            Self::Issued { environment } => format!("{ISSUED}{}_", environment.as_str()),
        }
    }
}

impl TokenEnvironment {
    /// Takes a name of 2 to 12 lower-case letters and digits, a letter first.
    ///
    /// # Errors
    /// [`TokenError::Environment`].
    pub fn new(name: &str) -> Result<Self, TokenError> {
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let letter_first = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if !plain || !letter_first || !(MIN_ENVIRONMENT_LEN..=MAX_ENVIRONMENT_LEN).contains(&name.len()) {
            return Err(TokenError::Environment);
        }
        let mut bytes = [0; MAX_ENVIRONMENT_LEN];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self { bytes, len: u8::try_from(name.len()).map_err(|_| TokenError::Environment)? })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)])
            .expect("only ASCII letters and digits get in")
    }
}

impl Token {
    /// Makes a new token.
    pub fn generate(kind: TokenKind) -> Self {
        Self::from_entropy(kind, &Zeroizing::new(random::bytes()))
    }

    /// Reads a token; white space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &SecretBytes) -> Result<Self, TokenError> {
        // EXPOSE: shape and checksum are looked at; the trimmed text is kept.
        text.expose(|text| {
            let text = text.trim_ascii();
            let kind = check(text)?;
            Ok(Self { kind, text: SecretBytes::from_slice(text) })
        })
    }

    /// Who it is for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// What is stored and looked up: HMAC-SHA-256 of the full text under a pepper.
    pub fn digest(&self, pepper: &Pepper) -> TokenDigest {
        // EXPOSE: a keyed digest of it is made.
        self.text.expose(|text| TokenDigest(pepper.mac(text)))
    }

    /// The prefix and the last four characters, which are of the checksum.
    pub fn masked(&self) -> String {
        // EXPOSE: four characters of the checksum identify it to its owner.
        self.text.expose(|text| {
            let end = text.len().saturating_sub(MASK_TAIL);
            format!("{}…{}", self.kind.prefix(), String::from_utf8_lossy(&text[end..]))
        })
    }

    /// The full text, to be shown once.
    pub fn text(&self) -> &SecretBytes {
        &self.text
    }

    /// Makes the token of given random bits; for test vectors only.
    #[doc(hidden)]
    pub fn from_entropy(kind: TokenKind, entropy: &[u8; 32]) -> Self {
        let prefix = kind.prefix();
        let mut text = Vec::with_capacity(prefix.len() + BODY_LEN + CHECKSUM_LEN);
        text.extend_from_slice(prefix.as_bytes());
        text.extend_from_slice(base62_of_256_bits(entropy).as_slice());
        let checksum = base62_of_checksum(checksum_of(&text));
        text.extend_from_slice(&checksum);
        Self { kind, text: SecretBytes::new(text) }
    }
}

impl TokenDigest {
    /// Takes a stored digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for storing.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl SignInCode {
    /// Makes a new code.
    pub fn generate() -> Self {
        let entropy = Zeroizing::new(random::bytes::<CODE_LEN>());
        // Five of each byte's eight bits: 32 divides 256, so every character is as likely as any other.
        let digits = entropy.iter().map(|b| CROCKFORD[usize::from(b & 31)]);
        let mut text = Vec::with_capacity(CODE_LEN + CODE_LEN / CODE_GROUP - 1);
        for (i, digit) in digits.enumerate() {
            if i > 0 && i % CODE_GROUP == 0 {
                text.push(b'-');
            }
            text.push(digit);
        }
        Self(SecretBytes::new(text))
    }

    /// Reads a code as people type it: any case, with or without dashes and spaces, `O` for 0, `I` and `L`
    /// for 1 (Crockford's base32).
    ///
    /// # Errors
    /// [`SignInCodeError`].
    pub fn parse(text: &SecretBytes) -> Result<Self, SignInCodeError> {
        // EXPOSE: the code is brought into its one spelling.
        text.expose(|text| {
            let mut digits = Zeroizing::new(Vec::with_capacity(CODE_LEN));
            for byte in text.iter().filter(|b| !b.is_ascii_whitespace() && **b != b'-') {
                if digits.len() == CODE_LEN {
                    return Err(SignInCodeError);
                }
                digits.push(crockford_digit(*byte).ok_or(SignInCodeError)?);
            }
            if digits.len() != CODE_LEN {
                return Err(SignInCodeError);
            }
            Ok(Self(SecretBytes::new(digits.chunks_exact(CODE_GROUP).collect::<Vec<_>>().join(&b'-'))))
        })
    }

    /// What is stored and looked up: HMAC-SHA-256 of the code in its one spelling under a pepper.
    pub fn digest(&self, pepper: &Pepper) -> TokenDigest {
        // EXPOSE: a keyed digest of it is made.
        self.0.expose(|text| TokenDigest(pepper.mac(text)))
    }

    /// The full text, to be shown once.
    pub fn text(&self) -> &SecretBytes {
        &self.0
    }
}

/// Derives the secret access key of the AWS door from its access key id: 30 bytes of HKDF-SHA-256 as 40
/// base64 characters, the form that AWS gives them. Nothing of it is stored.
pub fn derive_aws_secret(instance: &InstanceKey, access_key_id: &str) -> SecretBytes {
    /// HKDF label.
    const LABEL: &str = "keymoat/v1/aws-secret";
    let context = Canonical::new("keymoat/aws-secret/1").field(access_key_id.as_bytes()).finish();
    let mut bytes = Zeroizing::new([0; AWS_SECRET_BYTES]);
    // EXPOSE: only the derived secret leaves, as a secret.
    instance.expose(|key| hkdf_sha256(key, &[], &[LABEL.as_bytes(), &context], bytes.as_mut_slice()));
    SecretBytes::new(Base64Unpadded::encode_string(bytes.as_slice()).into_bytes())
}

fn check(text: &[u8]) -> Result<TokenKind, TokenError> {
    let (kind, body) = split_prefix(text)?;
    if body.len() != BODY_LEN + CHECKSUM_LEN {
        return Err(TokenError::Length);
    }
    if !body.iter().all(u8::is_ascii_alphanumeric) {
        return Err(TokenError::Malformed);
    }
    let (before, checksum) = text.split_at(text.len() - CHECKSUM_LEN);
    if base62_of_checksum(checksum_of(before)) != checksum {
        return Err(TokenError::Checksum);
    }
    Ok(kind)
}

fn split_prefix(text: &[u8]) -> Result<(TokenKind, &[u8]), TokenError> {
    if let Some(body) = text.strip_prefix(SERVICE_ACCOUNT.as_bytes()) {
        return Ok((TokenKind::ServiceAccount, body));
    }
    if let Some(body) = text.strip_prefix(ADMINISTRATOR.as_bytes()) {
        return Ok((TokenKind::Administrator, body));
    }
    let rest = text.strip_prefix(ISSUED.as_bytes()).ok_or(TokenError::Foreign)?;
    let end =
        rest.iter().take(MAX_ENVIRONMENT_LEN + 1).position(|b| *b == b'_').ok_or(TokenError::Environment)?;
    let name = std::str::from_utf8(&rest[..end]).map_err(|_| TokenError::Environment)?;
    Ok((TokenKind::issued(name)?, &rest[end + 1..]))
}

/// The 256 bits as a big-endian number in 43 base62 digits, zero-padded.
pub(crate) fn base62_of_256_bits(bytes: &[u8; 32]) -> Zeroizing<[u8; BODY_LEN]> {
    let mut number = Zeroizing::new(*bytes);
    let mut digits = Zeroizing::new([0; BODY_LEN]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u16;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u16::from(*byte);
            // `remainder` is below 62, so the quotient is below 256.
            *byte = (value / BASE) as u8;
            remainder = value % BASE;
        }
        *digit = BASE62[usize::from(remainder)];
    }
    digits
}

pub(crate) fn base62_of_checksum(mut checksum: u32) -> [u8; CHECKSUM_LEN] {
    let mut digits = [0; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(checksum % u32::from(BASE)) as usize];
        checksum /= u32::from(BASE);
    }
    digits
}

fn crockford_digit(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    CROCKFORD.contains(&byte).then_some(byte)
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenDigest {}

impl Hash for TokenDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest([redacted])")
    }
}

impl fmt::Debug for TokenEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?}, [redacted])", self.kind)
    }
}

impl fmt::Debug for SignInCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignInCode([redacted])")
    }
}

const SERVICE_ACCOUNT: &str = "kms_";
const ADMINISTRATOR: &str = "kmr_";
const ISSUED: &str = "km_";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE: u16 = 62;
/// The fewest base62 digits that hold 256 bits.
pub(crate) const BODY_LEN: usize = 43;
/// The fewest base62 digits that hold 32 bits.
pub(crate) const CHECKSUM_LEN: usize = 6;
pub(crate) const MASK_TAIL: usize = 4;
const MIN_ENVIRONMENT_LEN: usize = 2;
const MAX_ENVIRONMENT_LEN: usize = 12;
/// Crockford's base32: no I, L, O or U.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 100 bits: out of reach of guessing within a code's short life, and still typed in a breath.
const CODE_LEN: usize = 20;
const CODE_GROUP: usize = 5;
const AWS_SECRET_BYTES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(text: &[u8]) -> SecretBytes {
        SecretBytes::from_slice(text)
    }

    fn string(text: &SecretBytes) -> String {
        text.expose(|text| String::from_utf8(text.clone()).unwrap())
    }

    fn kinds() -> [TokenKind; 3] {
        [TokenKind::ServiceAccount, TokenKind::Administrator, TokenKind::issued("prod").unwrap()]
    }

    #[test]
    fn every_kind_round_trips() {
        let pepper = Pepper::generate(1);
        for (kind, prefix) in kinds().into_iter().zip(["kms_", "kmr_", "km_prod_"]) {
            let token = Token::generate(kind);
            let text = string(token.text());
            assert!(text.starts_with(prefix), "{prefix}");
            assert_eq!(text.len(), prefix.len() + 49);
            let back = Token::parse(&text_of(format!(" {text}\n").as_bytes())).unwrap();
            assert_eq!(back.kind(), kind);
            assert!(back.digest(&pepper) == token.digest(&pepper));
            assert!(back.digest(&pepper) != token.digest(&Pepper::generate(1)));
            assert_eq!(token.masked(), format!("{prefix}…{}", &text[text.len() - 4..]));
            assert!(format!("{token:?}").ends_with("[redacted])"));
        }
    }

    #[test]
    fn entropy_is_written_as_one_number() {
        let zeros = "0".repeat(43);
        for (entropy, digits) in
            [([0; 32], zeros.as_str()), ([0xff; 32], "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1")]
        {
            let text = string(Token::from_entropy(TokenKind::ServiceAccount, &entropy).text());
            assert_eq!(&text[4..47], digits);
        }
        assert_eq!(base62_of_checksum(0), *b"000000");
        assert_eq!(base62_of_checksum(u32::MAX), *b"4gfFC3");
        assert_eq!(base62_of_checksum(61), *b"00000z");
    }

    #[test]
    fn refuses_with_the_reason() {
        let valid = string(Token::from_entropy(kinds()[2], &[7; 32]).text());
        let rows = [
            (String::new(), TokenError::Foreign),
            ("sk_test_made_up".to_owned(), TokenError::Foreign),
            ("ghp_made_up".to_owned(), TokenError::Foreign),
            ("km_".to_owned(), TokenError::Environment),
            ("km_prod".to_owned(), TokenError::Environment),
            ("km_p_x".to_owned(), TokenError::Environment),
            ("km_1prod_x".to_owned(), TokenError::Environment),
            ("km_Prod_x".to_owned(), TokenError::Environment),
            ("km_thirteenchars_x".to_owned(), TokenError::Environment),
            ("km_prod_".to_owned(), TokenError::Length),
            ("kms_x".to_owned(), TokenError::Length),
            (valid[..valid.len() - 1].to_owned(), TokenError::Length),
            (format!("{valid}0"), TokenError::Length),
            (valid.replacen(&valid[10..11], "-", 1), TokenError::Malformed),
            (valid.replace("km_prod_", "km_test_"), TokenError::Checksum),
            (valid.replace("km_prod_", "kms_"), TokenError::Checksum),
        ];
        for (text, expected) in rows {
            assert_eq!(Token::parse(&text_of(text.as_bytes())).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn every_mistyped_character_is_found() {
        for kind in kinds() {
            let valid = string(Token::generate(kind).text()).into_bytes();
            for position in 0..valid.len() {
                for wrong in [b'0', b'a', b'Z', b'_', b' ', 0xff] {
                    let mut altered = valid.clone();
                    if altered[position] == wrong {
                        continue;
                    }
                    altered[position] = wrong;
                    assert!(Token::parse(&text_of(&altered)).is_err(), "{position} {wrong}");
                }
            }
        }
    }

    #[test]
    fn environments_have_a_shape() {
        for good in ["ab", "prod", "a1", "twelvechars1"] {
            assert_eq!(TokenEnvironment::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a", "1a", "Ab", "a_b", "a-b", "thirteenchars", "é", "ab "] {
            assert_eq!(TokenEnvironment::new(bad), Err(TokenError::Environment), "{bad}");
        }
    }

    #[test]
    fn sign_in_codes_are_read_as_people_type_them() {
        let pepper = Pepper::generate(1);
        let digest =
            |text: &str| SignInCode::parse(&text_of(text.as_bytes())).map(|code| code.digest(&pepper));
        let base = digest("01ABC-DEFGH-JKMNP-QRSTV").unwrap();
        for same in ["01abcdefghjkmnpqrstv", "OIABC DEFGH JKMNP QRSTV", " ol-abc-defghjkmnpqrst-v\n"] {
            assert!(digest(same).unwrap() == base, "{same}");
        }
        assert!(digest("01ABC-DEFGH-JKMNP-QRSTW").unwrap() != base);
        for bad in ["", "01ABC-DEFGH-JKMNP-QRST", "01ABC-DEFGH-JKMNP-QRSTVV", "01ABC-DEFGH-JKMNP-QRSTU", "é"]
        {
            assert!(digest(bad).is_err(), "{bad}");
        }
        let code = SignInCode::generate();
        let text = string(code.text());
        assert_eq!((text.len(), text.split('-').count()), (23, 4));
        assert!(digest(&text).unwrap() == code.digest(&pepper));
        assert_ne!(text, string(SignInCode::generate().text()));
    }

    #[test]
    fn aws_secrets_have_the_shape_of_aws() {
        let instance = InstanceKey::generate();
        let secret = derive_aws_secret(&instance, "AKIAMADEUPANDOBVIOUS");
        assert_eq!(secret.len(), 40);
        assert!(secret.ct_eq(&derive_aws_secret(&instance, "AKIAMADEUPANDOBVIOUS")));
        assert!(!secret.ct_eq(&derive_aws_secret(&instance, "AKIAMADEUPANDOBVIOU2")));
        assert!(!secret.ct_eq(&derive_aws_secret(&InstanceKey::generate(), "AKIAMADEUPANDOBVIOUS")));
    }

    proptest! {
        #[test]
        fn any_entropy_round_trips(entropy: [u8; 32]) {
            for kind in kinds() {
                let token = Token::from_entropy(kind, &entropy);
                prop_assert_eq!(Token::parse(token.text()).unwrap().kind(), kind);
            }
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..80),
                              prefix in "k?m?[sr]?_?[a-z]{0,14}_?") {
            prop_assert!(Token::parse(&text_of(&noise)).is_err());
            prop_assert!(Token::parse(&text_of(&[prefix.as_bytes(), &noise].concat())).is_err());
            let _ = SignInCode::parse(&text_of(&noise));
        }
    }
}
