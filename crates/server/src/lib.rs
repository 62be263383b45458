//! HTTP in: the native API, health and metrics.
//!
//! All paths stand in one table ([`ROUTES`]) with the capability each needs; the router, the documentation and the
//! tests are made from it. Every handler asks the front desk (`keymoat-vault`) and turns its answer into the types of
//! [`wire`]. This crate decides nothing about access, opens no files and reads no environment variables.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod api;
mod body;
mod context;
mod convert;
mod edge;
mod framing;
mod metrics;
mod openapi;
mod params;
mod problem;
mod repeat;
mod routes;
mod serve;
pub mod wire;

pub use api::audit_export::{ARCHIVE_PROOF_HEADER, CHECKPOINT_HEADER, KEY_HEADER};
pub use context::Peer;
pub use openapi::document;
pub use routes::{Needs, Parameter, ROUTES, Repeat, Route, Verb};
pub use serve::{Limits, Listeners, in_process, serve};

use std::sync::Arc;

use keymoat_vault::Vault;

use crate::metrics::Metrics;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    vault: Vault,
    metrics: Arc<Metrics>,
}

impl AppState {
    /// Serves this vault.
    pub fn new(vault: Vault) -> Self {
        Self { vault, metrics: Arc::new(Metrics::new()) }
    }
}

/// The whole API: every route of [`ROUTES`] behind the edge's checks.
///
/// A request carries who is at the other end as an extension of type [`Peer`]; [`serve`] and [`in_process`] put it
/// there. Without it a request comes from nowhere and needs a token.
pub fn router(app: AppState) -> axum::Router {
    routes::router(app)
}
