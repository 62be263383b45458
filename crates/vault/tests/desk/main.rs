//! What the front desk promises, on a real vault in a directory of its own.

#![allow(clippy::unwrap_used, reason = "a test")]

mod access;
mod archive;
mod audit;
mod canary;
mod clocks;
#[path = "../../../../testkit/cluster.rs"]
mod cluster;
mod common;
mod duplicates;
mod keys;
mod limits;
mod lineage;
mod personal;
mod privilege;
mod receipts;
mod reopen;
mod resolution;
mod single_use;
mod sweeping;
mod tokens;
mod writes;
