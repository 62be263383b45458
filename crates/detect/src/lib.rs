//! Bytes in, findings out: the provider catalogue and what it recognises.
//!
//! One file per provider (`catalogue/*.toml`, described in `docs/catalogue.md`) holds everything
//! Keymoat knows of a key: its shape, the variables it lives in, how it travels, how it is checked
//! and changed. This crate reads those files and answers questions about text with them.
//!
//! It deliberately does no IO (catalogue files of the user are handed in as text), calls nobody,
//! has no clock, stores nothing and never logs. It sees plaintext only as borrowed bytes and gives
//! back classifications, paths and masks, never the value.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod base64;
mod catalogue;
mod checksum;
mod classify;
mod engine;
mod entropy;
mod file;
mod hide;
mod identify;
mod mask;
mod near;
mod pattern;
mod provider;
mod question;
mod redact;
mod shape;
mod variable;

pub use catalogue::{Catalogue, CatalogueError};
pub use checksum::{Checksum, crc32_base62};
pub use classify::{Classification, KeyMatch, SecretGuess, SecretReason};
pub use engine::{Encoding, Engine, Generic, Hit, Rule, RuleId, Scratch, utf16_to_utf8};
pub use entropy::entropy;
pub use identify::{Certainty, Identification, Known};
pub use mask::ELLIPSIS;
pub use near::Near;
pub use provider::{
    Automation, Check, CheckRequest, ClientAuth, DjangoPlaces, Injection, Key, Kind, Links, Method, Mode,
    OdooPlaces, Overlap, Place, Provider, Rotation, Says, Scheme, Setting, Severity, Template,
};
pub use question::{Fill, Question, Request, RequestError, Signing, Unasked, Verdict};
pub use redact::{KnownValues, NoneKnown, Redactor, SIEVE_KEY_LEN, Sieve, SieveError, SieveKey};
pub use variable::VariableMatch;
