//! How a database over a network is spoken to: encrypted, and only to the one whose certificate says that it is it.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// What a client goes by: the certificates in a file, or those that the system trusts.
///
/// # Errors
/// When the file holds none, as a sentence.
pub(crate) fn config(roots: Option<&str>) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut trusted = rustls::RootCertStore::empty();
    match roots {
        Some(path) => {
            let unreadable = |error| format!("`{path}` holds no certificate: {error}");
            for found in CertificateDer::pem_file_iter(Path::new(path)).map_err(unreadable)? {
                trusted.add(found.map_err(unreadable)?).map_err(|error| format!("`{path}`: {error}"))?;
            }
        }
        None => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(trusted).with_no_client_auth()))
}

/// Whether a name is that of this machine, the way to which nobody listens on.
pub(crate) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
