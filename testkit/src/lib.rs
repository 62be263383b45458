//! What hurts a vault, and what must be true of it afterwards: power cuts, kills, bit flips, edits.
//!
//! It harms only vaults that it has made itself, in directories that it was given, with made-up values. It is for the
//! tests and for `keymoat selftest`; no other command calls it.

mod dice;
mod disk;
mod failure;
mod vfs;

pub use dice::Dice;
pub use disk::{Recording, Step};
pub use failure::Failure;
pub use vfs::{DiskManners, Recorder, acknowledged};
