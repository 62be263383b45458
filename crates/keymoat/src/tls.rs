//! TLS towards a server elsewhere, with the certificates that this machine trusts.

use std::sync::Arc;

use tokio_rustls::TlsConnector;

use crate::error::CliError;

/// A connector that trusts what the machine trusts.
///
/// # Errors
/// When the machine trusts nobody, or TLS cannot be set up.
pub fn connector() -> Result<TlsConnector, CliError> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(CliError::new("this machine has no trusted certificates")
            .hint("install the package `ca-certificates`, or set SSL_CERT_FILE"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| CliError::new(format!("cannot set up TLS: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
