//! The certificate that the server shows: read from its files, checked, and read again when they change. What does not
//! fit is never taken into use; what was good stays until something better is there.

mod validity;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keymoat_server::{CertificateStatus, TlsConfigs};
use keymoat_vault::Clock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::CliError;
use crate::{master_key, tls};

/// Where the certificate and what goes with it lie.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate and those that lead to its authority, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Whose certificates clients must show; none when they need none.
    pub client_ca: Option<PathBuf>,
}

/// A certificate in use.
#[derive(Debug)]
struct Certificate {
    config: Arc<ServerConfig>,
    ends: Timestamp,
}

/// A certificate in use that follows its files.
pub struct Served {
    /// What new connections begin with.
    pub configs: TlsConfigs,
    /// How it stands.
    pub status: watch::Receiver<CertificateStatus>,
    /// Follows the files for as long as it is awaited.
    pub follow: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl CertificateFiles {
    /// Reads and checks the files, and makes what keeps up with them.
    ///
    /// # Errors
    /// When they do not fit together, cannot be read, or the certificate has ended.
    pub fn serve(self, clock: Arc<dyn Clock>) -> Result<Served, CliError> {
        let wrong = |e: std::io::Error| CliError::new(format!("cannot listen for signals: {e}"));
        let told = signal(SignalKind::hangup()).map_err(wrong)?;
        let stamp = self.stamp();
        let certificate = self.load(clock.now())?;
        let status = CertificateStatus { ends: certificate.ends, is_stale: false };
        let (config_sender, configs) = watch::channel(certificate.config);
        let (status_sender, status) = watch::channel(status);
        let follower = Follower {
            files: self,
            clock,
            in_use: stamp.clone(),
            seen: stamp,
            configs: config_sender,
            status: status_sender,
            warned: None,
        };
        Ok(Served { configs, status, follow: Box::pin(follower.follow(told)) })
    }

    fn load(&self, now: Timestamp) -> Result<Certificate, CliError> {
        let chain = certificates(&self.cert)?;
        let leaf = chain.first().ok_or_else(|| {
            CliError::new(format!("`{}` holds no certificate", self.cert.display()))
                .hint("it is PEM text: `-----BEGIN CERTIFICATE-----`, the server's own first")
        })?;
        let ends = validity::of(leaf)
            .ok_or_else(|| {
                CliError::new(format!("the certificate in `{}` cannot be read", self.cert.display()))
            })?
            .not_after;
        if ends <= now {
            return Err(CliError::new(format!(
                "the certificate in `{}` ended at {ends}",
                self.cert.display()
            ))
            .hint("put a newer one in its place; a running server takes it by itself"));
        }
        let config = tls::versions(ServerConfig::builder_with_provider(tls::provider()))?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(tls::roots_of(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider()).build();
                config.with_client_cert_verifier(verifier.map_err(|e| wrong_pair(&self.cert, &self.key, &e))?)
            }
        };
        let key = private_key(&self.key)?;
        let mut config =
            config.with_single_cert(chain, key).map_err(|e| wrong_pair(&self.cert, &self.key, &e))?;
        config.alpn_protocols = vec![tls::HTTP.to_vec()];
        Ok(Certificate { config: Arc::new(config), ends })
    }

    /// What changes when a file is written or another one takes its place; also behind links, as certbot and Kubernetes
    /// make them.
    fn stamp(&self) -> Stamp {
        let paths = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        let of = |path: &PathBuf| {
            let about = std::fs::metadata(path).ok()?;
            Some([about.dev(), about.ino(), about.mtime() as u64, about.mtime_nsec() as u64, about.size()])
        };
        Stamp(paths.into_iter().flatten().map(of).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Vec<Option<[u64; 5]>>);

/// Keeps up with the files.
struct Follower {
    files: CertificateFiles,
    clock: Arc<dyn Clock>,
    /// The files as they were when they were last read.
    in_use: Stamp,
    /// As they were when they were last looked at.
    seen: Stamp,
    configs: watch::Sender<Arc<ServerConfig>>,
    status: watch::Sender<CertificateStatus>,
    /// When it was last said that the certificate ends.
    warned: Option<Timestamp>,
}

impl Follower {
    async fn follow(mut self, mut told: tokio::signal::unix::Signal) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look(),
                _ = told.recv() => self.reload(),
            }
            self.warn_of_end();
        }
    }

    /// Reads the files when they have changed and have come to rest: certificate and key are seldom written at once.
    fn look(&mut self) {
        let now = self.files.stamp();
        let has_come_to_rest = now == self.seen;
        self.seen = now;
        if has_come_to_rest && self.seen != self.in_use {
            self.reload();
        }
    }

    fn reload(&mut self) {
        self.in_use = self.files.stamp();
        match self.files.load(self.clock.now()) {
            Ok(certificate) => {
                self.status.send_replace(CertificateStatus { ends: certificate.ends, is_stale: false });
                self.configs.send_replace(certificate.config);
                self.warned = None;
                tracing::warn!(ends = %self.status.borrow().ends, "the certificate was read again and is in use");
            }
            Err(error) => {
                self.status.send_modify(|status| status.is_stale = true);
                let hint = error.hint.unwrap_or_default();
                tracing::error!(error = %error.message, hint, "the new certificate is not taken; the one before stays in use");
            }
        }
    }

    /// Once a day, from two weeks before the end.
    fn warn_of_end(&mut self) {
        let (now, ends) = (self.clock.now(), self.status.borrow().ends);
        let is_said = self.warned.is_some_and(|last| now.duration_since(last) < DAY);
        if is_said || ends.duration_since(now) > END_IS_NEAR {
            return;
        }
        self.warned = Some(now);
        match ends <= now {
            true => tracing::error!(%ends, "the certificate has ended: clients refuse it"),
            false => tracing::warn!(%ends, "the certificate ends soon; put a newer one in its place"),
        }
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// When it cannot be read.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliError> {
    let text = std::fs::read(path).map_err(|e| CliError::file("read the certificate", path, &e))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    read.map_err(|_| CliError::new(format!("`{}` is not a certificate in PEM", path.display())))
}

/// The private key of a PEM file; rustls keeps a copy of its own.
///
/// # Errors
/// When others can read it, or it is none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CliError> {
    let text = master_key::read_private_file("private key", path)?;
    // EXPOSE: the key is read out of its text; what is made of it stays in rustls for as long as it is in use.
    let key = text.expose(|bytes| PrivateKeyDer::from_pem_slice(bytes));
    key.map_err(|_| CliError::new(format!("`{}` is not a private key in PEM", path.display())))
}

/// That a certificate and a key cannot be used together.
pub fn wrong_pair(cert: &Path, key: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::new(format!(
        "the certificate `{}` and the key `{}` cannot be served: {error}",
        cert.display(),
        key.display()
    ))
    .hint("are they of one pair, and the server's own certificate the first in its file?")
}

/// Long before anybody waits for it, and nothing to the disk.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Enough to mend whatever should have renewed it.
pub const END_IS_NEAR: SignedDuration = SignedDuration::from_hours(14 * 24);
const DAY: SignedDuration = SignedDuration::from_hours(24);
