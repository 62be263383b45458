//! Argon2id (RFC 9106): the only way from a passphrase to a key.
//!
//! Parameters may come from a store that somebody else can write, so they are bounded on both sides before
//! any memory is taken. Passwords of people who sign in are hashed in `password`.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::keys::KEY_LEN;
use crate::random;
use crate::sensitive::SecretBytes;

/// The cost and the salt of a passphrase's derivation; not secret, stored beside what it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argon2Params {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
    /// The salt, as hexadecimal text when serialised.
    #[serde(with = "salt_as_hex")]
    pub salt: [u8; 16],
}

/// Why a passphrase gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// There is none.
    #[error("the passphrase is empty")]
    Empty,
    /// A parameter lies outside what this version accepts from a store.
    #[error(
        "the Argon2 {name} of {value} is outside {min} to {max}; the stored parameters may have been altered"
    )]
    Parameter {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: u32,
        /// The least accepted.
        min: u32,
        /// The most accepted.
        max: u32,
    },
    /// The derivation found no memory.
    #[error("Argon2 could not run with {memory_kib} KiB of memory")]
    Memory {
        /// What was asked for.
        memory_kib: u32,
    },
}

impl Argon2Params {
    /// The default cost (64 MiB, 3 passes, 1 lane) with a new salt.
    pub fn generate() -> Self {
        Self {
            memory_kib: DEFAULT_MEMORY_KIB,
            iterations: DEFAULT_ITERATIONS,
            parallelism: DEFAULT_PARALLELISM,
            salt: random::bytes(),
        }
    }

    /// Derives 32 bytes.
    pub(crate) fn derive(
        &self,
        passphrase: &SecretBytes,
    ) -> Result<Zeroizing<[u8; KEY_LEN]>, PassphraseError> {
        if passphrase.is_empty() {
            return Err(PassphraseError::Empty);
        }
        let out_of_memory = PassphraseError::Memory { memory_kib: self.memory_kib };
        let argon2 = argon2id(self.memory_kib, self.iterations, self.parallelism)?;
        let mut out = Zeroizing::new([0; KEY_LEN]);
        // EXPOSE: the passphrase is stretched.
        passphrase
            .expose(|passphrase| argon2.hash_password_into(passphrase, &self.salt, out.as_mut_slice()))
            .map_err(|_| out_of_memory)?;
        Ok(out)
    }
}

/// Argon2id version 1.3 at a cost that lies within the limits.
pub(crate) fn argon2id(
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
) -> Result<Argon2<'static>, PassphraseError> {
    check("memory", memory_kib, MIN_MEMORY_KIB, MAX_MEMORY_KIB)?;
    check("iterations", iterations, MIN_ITERATIONS, MAX_ITERATIONS)?;
    check("parallelism", parallelism, 1, MAX_PARALLELISM)?;
    let params = Params::new(memory_kib, iterations, parallelism, Some(KEY_LEN))
        .map_err(|_| PassphraseError::Memory { memory_kib })?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn check(name: &'static str, value: u32, min: u32, max: u32) -> Result<(), PassphraseError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(PassphraseError::Parameter { name, value, min, max })
    }
}

mod salt_as_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::text::{from_hex, to_hex};

    pub(super) fn serialize<S: Serializer>(salt: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(salt))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = from_hex(&text).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| D::Error::custom("an Argon2 salt is 32 hexadecimal digits"))
    }
}

/// 64 MiB, three passes, one lane: the second recommendation of RFC 9106 §4 with its lanes run as one.
pub(crate) const DEFAULT_MEMORY_KIB: u32 = 64 * 1024;
pub(crate) const DEFAULT_ITERATIONS: u32 = 3;
pub(crate) const DEFAULT_PARALLELISM: u32 = 1;
/// Below 8 MiB a passphrase costs a graphics card next to nothing.
const MIN_MEMORY_KIB: u32 = 8 * 1024;
/// More than 1 GiB would let an altered store take the machine's memory.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
/// With at least 8 MiB, one pass is accepted.
const MIN_ITERATIONS: u32 = 1;
/// More than 20 passes of 1 GiB would hold up an unsealing for a minute.
const MAX_ITERATIONS: u32 = 20;
/// More lanes than this are more than a server's cores.
const MAX_PARALLELISM: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Argon2Params {
        Argon2Params { memory_kib: MIN_MEMORY_KIB, iterations: 1, parallelism: 1, salt: [5; 16] }
    }

    fn phrase(text: &str) -> SecretBytes {
        SecretBytes::from_slice(text.as_bytes())
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_before_memory_is_taken() {
        let rows = [
            ("memory", Argon2Params { memory_kib: 0, ..cheap() }),
            ("memory", Argon2Params { memory_kib: MIN_MEMORY_KIB - 1, ..cheap() }),
            ("memory", Argon2Params { memory_kib: MAX_MEMORY_KIB + 1, ..cheap() }),
            ("memory", Argon2Params { memory_kib: u32::MAX, ..cheap() }),
            ("iterations", Argon2Params { iterations: 0, ..cheap() }),
            ("iterations", Argon2Params { iterations: MAX_ITERATIONS + 1, ..cheap() }),
            ("parallelism", Argon2Params { parallelism: 0, ..cheap() }),
            ("parallelism", Argon2Params { parallelism: MAX_PARALLELISM + 1, ..cheap() }),
        ];
        for (expected, params) in rows {
            let error = params.derive(&phrase("made up")).unwrap_err();
            assert!(matches!(error, PassphraseError::Parameter { name, .. } if name == expected), "{error}");
        }
        assert_eq!(cheap().derive(&phrase("")).unwrap_err(), PassphraseError::Empty);
    }

    #[test]
    fn every_input_matters() {
        let base = cheap().derive(&phrase("made up")).unwrap();
        assert_eq!(*base, *cheap().derive(&phrase("made up")).unwrap());
        assert_ne!(*base, *cheap().derive(&phrase("made up ")).unwrap());
        assert_ne!(*base, *Argon2Params { salt: [6; 16], ..cheap() }.derive(&phrase("made up")).unwrap());
        assert_ne!(*base, *Argon2Params { iterations: 2, ..cheap() }.derive(&phrase("made up")).unwrap());
    }

    #[test]
    fn serialises_with_a_readable_salt() {
        let text = serde_json::to_string(&cheap()).unwrap();
        let expected =
            r#"{"memory_kib":8192,"iterations":1,"parallelism":1,"salt":"05050505050505050505050505050505"}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Argon2Params>(&text).unwrap(), cheap());
        for bad in [expected.replace("0505", "05"), expected.replace("0505", "zz05")] {
            assert!(serde_json::from_str::<Argon2Params>(&bad).is_err());
        }
        let default = Argon2Params::generate();
        assert_eq!((default.memory_kib, default.iterations, default.parallelism), (65536, 3, 1));
        assert_ne!(default.salt, Argon2Params::generate().salt);
    }
}
