//! Keymoat's own tables: what is (`state`), what happened (`events`, `tiles`, `checkpoint`).
//!
//! One writer commits groups of transactions; a change and its audit record are one transaction, and the store
//! refuses a change without a record. It knows nothing of policies, and of a secret's value only the ciphertext.

mod accept;
mod address;
mod archive;
mod batch;
#[cfg(test)]
#[path = "../../../testkit/cluster.rs"]
mod cluster;
mod contact;
mod copy;
mod data_dir;
mod db;
mod erased;
mod error;
mod evidence;
mod fold;
mod follow;
mod known;
mod ledger;
mod listen;
mod migrations;
mod outside;
mod private_dir;
mod reader;
mod reserve;
mod row;
mod schema;
mod sealed;
mod store;
mod tiles;
mod tx;
mod verify;
mod writer;

pub use address::Address;
pub use archive::{Archive, Keepers, Kept};
pub use copy::{CopiedEvent, CopiedRow, Counts, Entry, OutsideFit, Tallied, Tally};
pub use data_dir::{DataDir, database_in, node_of, server_of, socket_in};
pub use erased::{ERASED, number_texts};
pub use error::{OpenError, StoreError, Untrusted};
pub use evidence::Evidence;
pub use ledger::{Draft, LedgerKeys, SignedHead};
pub use outside::{FileStep, watch_files};
pub use private_dir::make_private_dir;
pub use reader::{
    Change, EventRange, PersonalBeside, PersonalOf, PersonalRange, Reader, ServerHealth, StoredEvent,
};
pub use row::{Effect, Kind, Observer, Row};
pub use sealed::{Durability, SealedStore, Trust};
pub use store::{Stopper, Store};
pub use tx::Tx;
pub use verify::Report;
pub use writer::Committed;
