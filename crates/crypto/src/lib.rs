//! Keymoat's cryptography: the only place where key bytes exist.
//!
//! Everything that touches a key, derives one, compares secrets or turns plaintext into ciphertext
//! is here. There is no async, no file system, no network and no clock: callers bring bytes and take
//! bytes. Randomness comes from the operating system, and only for key material, salts and tokens.
//!
//! The hierarchy: a [`MasterKey`] wraps the [`RootKey`]; the root key wraps the [`InstanceKey`], a
//! [`DataKey`] per environment and company and the [`Pepper`]s of the token digests. The instance key
//! derives, by labelled HKDF, the [`FingerprintKey`], the [`StateKey`], the [`MacKey`]s, the
//! [`BackupKey`] and the [`AuditSigner`]. [`seal`] derives a key used once for each version of a secret.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says where it failed"))]

#[allow(unsafe_code, reason = "a global allocator is an unsafe trait by definition")]
mod allocator;
mod argon;
mod backup;
mod canonical;
mod envelope;
#[allow(unsafe_code, reason = "overwriting the environment in place has no safe form in std")]
mod environ;
mod fernet;
mod fingerprint;
mod issued;
mod kdf;
mod keys;
#[allow(unsafe_code, reason = "mmap, mlock, madvise and prctl have no safe form in std")]
mod locked;
mod master;
mod password;
mod random;
mod sensitive;
mod shamir;
mod signing;
mod sigv4;
mod text;
mod token;
#[cfg(test)]
mod vectors;
mod wrap;

pub use allocator::ZeroingAllocator;
pub use argon::{Argon2Params, PassphraseError};
pub use backup::{
    BACKUP_HEADER_LEN, BackupError, BackupKey, BackupOpener, BackupSealer, open_backup, seal_backup,
};
pub use envelope::{OpenError, Place, data_key_of, open, seal, seal_with_salt};
pub use environ::take_variable;
pub use fernet::{FernetError, FernetKey};
pub use fingerprint::{
    Fingerprint, FingerprintError, FingerprintKey, STATE_DIGEST_LEN, StateDigest, StateKey,
};
pub use issued::{IssuedForm, IssuedKey, IssuedKeyError, Issuer};
pub use keys::{DataKey, InstanceKey, KEY_LEN, MacKey, MasterKey, Pepper, RootKey};
pub use locked::{MemoryProtection, ProcessProtection, harden_process, memory_protection};
pub use master::MasterKeyError;
pub use password::{PasswordError, hash_password, needs_rehash, verify_absent, verify_password};
pub use random::{bytes, fill};
pub use sensitive::{SecretBytes, Sensitive};
pub use shamir::{Share, ShareError};
pub use signing::{AssertionSigner, AuditSigner, AuditVerifyingKey, SignatureError};
pub use sigv4::{AwsCredentials, AwsRequest, sign_aws};
pub use token::{
    SignInCode, SignInCodeError, Token, TokenDigest, TokenEnvironment, TokenError, TokenKind,
    derive_aws_secret,
};
pub use wrap::{KeyContext, PepperContext, SlotContext, UnwrapError};
