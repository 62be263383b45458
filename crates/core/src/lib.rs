//! The decisions of Keymoat: names, policies, grants, versions, resolution, and the audit log's formats.
//!
//! Everything here is a function of its arguments: no input or output, no clock, no randomness, no async, no
//! SQL, no HTTP. Key bytes are never seen here, with one exception that says so on its type: [`dotenv`] reads
//! files that may hold them.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on has failed"))]

pub mod audit;
pub mod auditor;
pub mod checkpoint;
pub mod dotenv;
pub mod grant;
pub mod id;
pub mod issued;
pub mod names;
pub mod pattern;
pub mod policy;
pub mod reference;
pub mod resolve;
pub mod secret;
pub mod tree;
pub mod versions;
pub mod words;
