//! The native API as clients see it: the router on a vault of its own, and the server on sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod access;
mod audit;
mod changes;
mod common;
mod crowded;
mod documented;
mod edge_corpus;
mod edge_proxies;
#[rustfmt::skip]
mod edge_rows;
mod edge_spellings;
mod forward_auth;
mod issued;
mod keys;
mod matching;
mod problems;
mod providers;
mod repeat;
mod resolve;
mod seal;
mod secrets;
mod serving;
mod spellings;
mod status;
mod versions;
mod walk;
