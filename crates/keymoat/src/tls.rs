//! TLS 1.2 and 1.3 with one provider, towards a server elsewhere and as one.
//!
//! A server elsewhere is trusted when this machine trusts its authority, or when `KEYMOAT_CA` names it.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, ConfigSide, RootCertStore, WantsVerifier, WantsVersions};
use tokio_rustls::TlsConnector;

use crate::certificate;
use crate::error::CliError;
use crate::variables::Variables;

/// A connector that trusts what it should, and shows a certificate where there is one to show.
///
/// # Errors
/// When nobody is trusted, a file cannot be read, or TLS cannot be set up.
pub fn connector(variables: &Variables) -> Result<TlsConnector, CliError> {
    let roots = match &variables.ca {
        Some(path) => roots_of(path)?,
        None => roots_of_the_machine()?,
    };
    let config = versions(ClientConfig::builder_with_provider(provider()))?.with_root_certificates(roots);
    let mut config = match (&variables.client_cert, &variables.client_key) {
        (None, None) => config.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let (chain, key_der) = (certificate::certificates(cert)?, certificate::private_key(key)?);
            config
                .with_client_auth_cert(chain, key_der)
                .map_err(|e| certificate::wrong_pair(cert, key, &e))?
        }
        _ => {
            return Err(CliError::new("a certificate to show needs its key, and a key its certificate")
                .hint("set both KEYMOAT_CLIENT_CERT and KEYMOAT_CLIENT_KEY"));
        }
    };
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connector to anybody whom this machine trusts. It shows no certificate: that is for Keymoat's own servers.
///
/// # Errors
/// When this machine trusts nobody, or TLS cannot be set up.
pub fn public_connector() -> Result<TlsConnector, CliError> {
    let config = versions(ClientConfig::builder_with_provider(provider()))?
        .with_root_certificates(roots_of_the_machine()?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS 1.3 and 1.2, and nothing older, which rustls does not have.
///
/// # Errors
/// When the provider cannot do that.
pub fn versions<S: ConfigSide>(
    builder: ConfigBuilder<S, WantsVersions>,
) -> Result<ConfigBuilder<S, WantsVerifier>, CliError> {
    builder
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| CliError::new(format!("cannot set up TLS: {e}")))
}

/// The authorities of a PEM file.
///
/// # Errors
/// When it cannot be read, or there are none in it.
pub fn roots_of(path: &Path) -> Result<RootCertStore, CliError> {
    let text = std::fs::read(path).map_err(|e| CliError::file("read the authorities in", path, &e))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    match added {
        0 => Err(CliError::new(format!("`{}` holds no certificate of an authority", path.display()))
            .hint("it is PEM text: `-----BEGIN CERTIFICATE-----`")),
        _ => Ok(roots),
    }
}

fn roots_of_the_machine() -> Result<RootCertStore, CliError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    match roots.add_parsable_certificates(found.certs) {
        (0, _) => Err(CliError::new("this machine has no trusted certificates")
            .hint("install the package `ca-certificates`; KEYMOAT_CA names the authority of a Keymoat server, SSL_CERT_FILE all that are trusted")),
        _ => Ok(roots),
    }
}

/// What is spoken inside (RFC 7301).
pub const HTTP: &[u8] = b"http/1.1";
