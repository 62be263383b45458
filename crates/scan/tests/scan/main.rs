//! Scans of repositories that the real git made, of directories and of streams.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a test")]

mod carried;
mod common;
mod damage;
mod history;
mod hostile;
mod known;
mod staged;
mod stream;
mod tree;
