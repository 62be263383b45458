//! Passwords of people who sign in: Argon2id in PHC string form.
//!
//! Not for keys (`argon` derives those) nor for tokens, which have enough entropy for a plain keyed digest.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::argon::{self, PassphraseError, argon2id};
use crate::random;
use crate::sensitive::SecretBytes;

/// Why a password could not be hashed or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// The password is longer than accepted.
    #[error("the password is longer than {MAX_PASSWORD_LEN} bytes")]
    TooLong,
    /// The stored hash is not an Argon2id PHC string with salt and hash of 32 bytes.
    #[error("the stored password hash is not an Argon2id PHC string; set the password again")]
    Hash,
    /// The parameters are out of bounds, or the password is empty.
    #[error(transparent)]
    Parameters(#[from] PassphraseError),
}

/// Hashes a password at the default cost with a new salt.
///
/// # Errors
/// [`PasswordError`] for an empty or overlong password.
pub fn hash_password(password: &SecretBytes) -> Result<String, PasswordError> {
    let params = Params::new(
        argon::DEFAULT_MEMORY_KIB,
        argon::DEFAULT_ITERATIONS,
        argon::DEFAULT_PARALLELISM,
        Some(HASH_LEN),
    )
    .map_err(|_| PasswordError::Hash)?;
    let salt = random::bytes::<16>();
    let output = compute(password, &salt, &params)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: (&params).try_into().map_err(|_| PasswordError::Hash)?,
        salt: Some(Salt::new(&salt).map_err(|_| PasswordError::Hash)?),
        hash: Some(Output::new(output.as_slice()).map_err(|_| PasswordError::Hash)?),
    };
    Ok(hash.to_string())
}

/// Whether a password fits a stored hash, compared in constant time.
///
/// # Errors
/// [`PasswordError`] when the stored hash is foreign or its cost out of bounds; an empty or overlong
/// password just does not fit.
pub fn verify_password(password: &SecretBytes, stored: &str) -> Result<bool, PasswordError> {
    let stored = Stored::parse(stored)?;
    if password.is_empty() || password.len() > MAX_PASSWORD_LEN {
        return Ok(false);
    }
    let output = compute(password, &stored.salt, &stored.params)?;
    Ok(output.as_slice().ct_eq(&stored.hash).into())
}

/// Spends the time of a verification when there is no such user, so that the answer does not tell.
pub fn verify_absent(password: &SecretBytes) {
    let params = Params::new(
        argon::DEFAULT_MEMORY_KIB,
        argon::DEFAULT_ITERATIONS,
        argon::DEFAULT_PARALLELISM,
        Some(HASH_LEN),
    );
    if let Ok(params) = params {
        // The result is of no interest, only the time.
        drop(compute(password, &[0; 16], &params));
    }
}

/// Whether a stored hash has a cost other than today's and should be renewed at the next sign-in.
pub fn needs_rehash(stored: &str) -> bool {
    let today = (argon::DEFAULT_MEMORY_KIB, argon::DEFAULT_ITERATIONS, argon::DEFAULT_PARALLELISM);
    Stored::parse(stored).map_or(true, |s| (s.params.m_cost(), s.params.t_cost(), s.params.p_cost()) != today)
}

struct Stored {
    params: Params,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Stored {
    fn parse(text: &str) -> Result<Self, PasswordError> {
        let hash = PasswordHash::new(text).map_err(|_| PasswordError::Hash)?;
        let right =
            hash.algorithm == Algorithm::Argon2id.ident() && hash.version == Some(Version::V0x13.into());
        let params = Params::try_from(&hash).map_err(|_| PasswordError::Hash)?;
        match (hash.salt, hash.hash) {
            (Some(salt), Some(output)) if right && output.as_ref().len() == HASH_LEN => {
                Ok(Self { params, salt: salt.as_ref().to_vec(), hash: output.as_ref().to_vec() })
            }
            _ => Err(PasswordError::Hash),
        }
    }
}

fn compute(
    password: &SecretBytes,
    salt: &[u8],
    params: &Params,
) -> Result<Zeroizing<[u8; HASH_LEN]>, PasswordError> {
    if password.is_empty() {
        return Err(PassphraseError::Empty.into());
    }
    if password.len() > MAX_PASSWORD_LEN {
        return Err(PasswordError::TooLong);
    }
    let argon2 = argon2id(params.m_cost(), params.t_cost(), params.p_cost())?;
    let mut output = Zeroizing::new([0; HASH_LEN]);
    // EXPOSE: the password is stretched.
    password
        .expose(|password| argon2.hash_password_into(password, salt, output.as_mut_slice()))
        .map_err(|_| PassphraseError::Memory { memory_kib: params.m_cost() })?;
    Ok(output)
}

/// Longer than anybody types; keeps a caller from sending megabytes to be hashed.
const MAX_PASSWORD_LEN: usize = 1024;
const HASH_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> SecretBytes {
        SecretBytes::from_slice(text.as_bytes())
    }

    /// Cost 8 MiB, one pass; made by this crate and checked by Python in `testkit/vectors/check.py`.
    fn cheap() -> String {
        crate::vectors::field(&crate::vectors::read("master_key")["password"], "phc").to_owned()
    }

    #[test]
    fn a_hash_fits_its_password_only() {
        let stored = hash_password(&password("made up")).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"), "{stored}");
        assert_eq!(verify_password(&password("made up"), &stored), Ok(true));
        assert_eq!(verify_password(&password("made up "), &stored), Ok(false));
        assert!(!needs_rehash(&stored));
        verify_absent(&password("made up"));
    }

    #[test]
    fn odd_passwords_do_not_fit() {
        for odd in ["", &"x".repeat(MAX_PASSWORD_LEN + 1)] {
            assert_eq!(verify_password(&password(odd), &cheap()), Ok(false));
            assert!(hash_password(&password(odd)).is_err());
            verify_absent(&password(odd));
        }
        assert_eq!(verify_password(&password("made up"), &cheap()), Ok(true));
        assert!(needs_rehash(&cheap()));
    }

    #[test]
    fn foreign_or_costly_hashes_are_refused() {
        let bad = [
            String::new(),
            "made up".to_owned(),
            "$2b$12$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            cheap().replace("argon2id", "argon2i"),
            cheap().replace("v=19", "v=16"),
            cheap().replace("m=8192", "m=4194304"),
            cheap().replace("m=8192", "m=16"),
            cheap().replace("t=1", "t=4000000000"),
            cheap().replace("p=1", "p=200"),
            cheap().rsplit_once('$').unwrap().0.to_owned(),
        ];
        for stored in bad {
            assert!(verify_password(&password("made up"), &stored).is_err(), "{stored}");
            assert!(needs_rehash(&stored) || !stored.is_empty());
        }
    }
}
