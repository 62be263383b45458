//! The handlers, a file per resource. Each takes what the table of routes promises, asks the front desk, and turns the
//! answer into a type of the wire; none decides anything.

pub(crate) mod accounts;
pub(crate) mod archive;
pub(crate) mod audit;
pub(crate) mod audit_export;
pub(crate) mod backup;
pub(crate) mod changes;
pub(crate) mod grants;
pub(crate) mod health;
pub(crate) mod key_spaces;
pub(crate) mod keys;
pub(crate) mod matching;
pub(crate) mod places;
pub(crate) mod policies;
pub(crate) mod providers;
pub(crate) mod rekey;
pub(crate) mod resolve;
pub(crate) mod seal;
pub(crate) mod secrets;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod versions;

use axum::Json;

use crate::problem::Problem;

/// What a handler answers with.
pub(crate) type Answer<T> = Result<Json<T>, Problem>;
