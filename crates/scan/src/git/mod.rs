//! Git repositories: every blob of the whole history searched once, and where the ones with hits stand.
//!
//! It reads packs, loose objects, refs, reflogs and the index itself. It never runs git, nor anything that a repository
//! names, and writes nothing but the set of clean objects where a caller asks for one.

pub mod delta;
mod history;
pub mod index;
mod inflating;
mod known;
pub mod object;
mod objects;
mod pack;
mod repository;
mod sightings;
mod staged;
mod trace;
mod walk;

pub use history::{History, Scanned};
pub use repository::{OpenError, Repository};
pub use staged::StagedFiles;
pub(crate) use staged::search as search_staged;
