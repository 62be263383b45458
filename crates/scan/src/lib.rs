//! Where text comes from that may hold keys, and what was found where: git histories, directories, streams.
//!
//! It finds places and reads them; what is a key in the bytes is `keymoat_detect`'s to say. Findings never hold a value.
//! It deliberately knows no vault, asks no provider, prints nothing, and has no clock and no dice of its own.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod baseline;
mod carry;
mod dump;
mod finding;
pub mod git;
pub mod inside;
mod known;
mod look;
mod mysql;
mod place;
mod postgres;
mod progress;
mod remote;
pub mod report;
mod rows;
mod scan;
mod sqlite;
mod text;
mod tls;
mod tree;
mod trouble;
mod unignored;

pub use baseline::{Baseline, BaselineError};
pub use finding::{Finding, Fingerprint, FingerprintKey, Keeper, Seen};
pub use place::{CommitRef, Historic, Inside, Place, Source, Standing};
pub use progress::{Phase, Progress};
pub use remote::Remote;
pub use rows::{Cell, Rows, Spot, Table};
pub use scan::{Scan, shown_address};
pub use tree::Files;
pub use trouble::{Trouble, Troubles};
pub use unignored::unignored;
