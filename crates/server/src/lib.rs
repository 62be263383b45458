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
mod crowd;
mod custody;
mod dispatch;
mod edge;
mod forward_auth;
mod framing;
mod metrics;
mod openapi;
mod params;
mod problem;
mod repeat;
mod routes;
mod serve;
#[doc(hidden)]
pub mod strict;
mod turn;
pub mod wire;

pub use api::audit_export::{ARCHIVE_PROOF_HEADER, CHECKPOINT_HEADER, KEY_HEADER};
pub use context::Peer;
pub use custody::{Custody, Tend, Terms};
pub use openapi::document;
pub use routes::{Api, Needs, Parameter, ROUTES, Repeat, Route, Verb};
pub use serve::{Desk, Limits, Listeners, TlsConfigs, in_process, serve};

use std::sync::Arc;

use jiff::Timestamp;
use keymoat_core::issued::AddressList;
use keymoat_core::names::SpaceName;
use keymoat_vault::Vault;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    vault: Vault,
    front: Arc<Front>,
}

impl AppState {
    /// Serves this vault, as strictly as can be.
    pub fn new(vault: Vault) -> Self {
        Self { vault, front: Arc::new(Front::new(Doors::default(), None)) }
    }
}

/// What the doors let in beyond what is always let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    /// Names under which a server on a loopback address is spoken to beside `localhost`, such as that of a proxy in
    /// front of it. A request for any other name is refused: it may come from a page whose name was pointed here.
    pub host_names: Vec<String>,
    /// Whether whoever reaches a TCP listener may read the metrics without a token.
    pub open_metrics: bool,
    /// Proxies whose word about who asks them is taken, at the door for proxies alone.
    pub trusted_proxies: AddressList,
    /// Spaces whose proxies may let a browser's preflight pass without a key.
    pub preflights: Vec<SpaceName>,
}

/// How the certificate that is served stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its last moment.
    pub ends: Timestamp,
    /// Whether there is a newer one that could not be taken.
    pub is_stale: bool,
}

/// What a server keeps whether its vault is open or sealed.
pub(crate) struct Front {
    metrics: Metrics,
    doors: Doors,
    certificate: Option<watch::Receiver<CertificateStatus>>,
}

impl Front {
    pub(crate) fn new(doors: Doors, certificate: Option<watch::Receiver<CertificateStatus>>) -> Self {
        Self { metrics: Metrics::default(), doors, certificate }
    }

    /// How the certificate stands; none without TLS.
    pub(crate) fn certificate(&self) -> Option<CertificateStatus> {
        self.certificate.as_ref().map(|certificate| *certificate.borrow())
    }
}
