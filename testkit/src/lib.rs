//! What hurts a vault, and what must be true of it afterwards: power cuts, kills, bit flips, edits.
//!
//! It harms only vaults that it has made itself, in directories that it was given, with made-up values. It is for the
//! tests and for `keymoat selftest`; no other command calls it.

mod damage;
mod deeds;
mod dice;
mod disk;
mod exam;
mod failure;
mod kill;
mod place;
mod powercut;
mod tally;
mod vfs;

pub use damage::{Outcome, Specimen, Tampering};
pub use deeds::{Deed, Told, work};
pub use dice::Dice;
pub use disk::{Recording, Step};
pub use exam::{Findings, examine};
pub use failure::Failure;
pub use kill::{Kills, line_of, live};
pub use place::Place;
pub use powercut::{CrashState, PowerCuts, examine_kept};
pub use tally::Tally;
pub use vfs::{DiskManners, Recorder, acknowledged};
