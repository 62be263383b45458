//! Issued keys: what callers of somebody's API may do with the key that they were given.
//!
//! Everything here decides and nothing here knows a key's text: that is `keymoat_crypto`'s. The one entry is
//! [`check`]; it is given what is kept of a key and what is asked of it, and says yes or why not, and what a yes costs.

mod address;
mod check;
mod credits;
mod limit;
mod owner;
mod scope;

pub use address::{AddressError, AddressList, Hop, MAX_NETWORKS, MAX_NETWORKS_BYTES, client_of};
pub use check::{Asked, Charge, Code, KeyFacts, KeyState, Presented, Verdict, check};
pub use credits::{Credits, CreditsError, Refill, RefillEvery, RefillMode};
pub use limit::{
    Left, Limit, LimitError, LimitRefusal, LimitTimes, Limits, MAX_LIMITS, MAX_LIMITS_BYTES, Tat,
};
pub use owner::{OwnerInactive, OwnerKind, OwnerRef, OwnerRefError, OwnerState};
pub use scope::{Held, HeldScope, MAX_SCOPE_BYTES, MAX_SCOPE_QUERY_BYTES, ScopeError, ScopeName, ScopeQuery};
