//! `keymoat serve`.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use keymoat_core::audit::Action;
use keymoat_server::{CertificateStatus, Custody, Doors, Limits, Terms};
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{Durability, SealedVault, Vault};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::init::{self, How};
use crate::certificate::{CertificateFiles, Served};
use crate::clock::SystemClock;
use crate::error::CliError;
use crate::notify::Manager;
use crate::{Context, master_key, os_user, output};

/// Flags of `serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Address to listen on.
    #[arg(
        long,
        env = "KEYMOAT_LISTEN",
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:8200"
    )]
    listen: Vec<SocketAddr>,
    /// Serve TLS with this certificate, in PEM with those that lead to its authority. It is read again when it changes.
    #[arg(long, env = "KEYMOAT_TLS_CERT", value_name = "FILE", requires = "tls_key", value_hint = clap::ValueHint::FilePath)]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, env = "KEYMOAT_TLS_KEY", value_name = "FILE", requires = "tls_cert", value_hint = clap::ValueHint::FilePath)]
    tls_key: Option<PathBuf>,
    /// Let in only who shows a certificate of one of these authorities, in PEM.
    #[arg(long, env = "KEYMOAT_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert", value_hint = clap::ValueHint::FilePath)]
    tls_client_ca: Option<PathBuf>,
    /// Serve plain HTTP on an address that other machines reach: only behind something that adds TLS.
    #[arg(long, conflicts_with = "tls_cert")]
    plain_http: bool,
    /// Do not listen on the network at all, only on the socket in the data directory.
    #[arg(long)]
    socket_only: bool,
    /// Start sealed: answer nothing until `keymoat unseal`.
    #[arg(long)]
    sealed: bool,
    /// A name under which the server is spoken to on a loopback address, such as that of a proxy in front of it.
    #[arg(long, value_name = "NAME", env = "KEYMOAT_HOST_NAME", value_delimiter = ',')]
    host_name: Vec<String>,
    /// When a record is written down: on the disk, or with the operating system, which loses the records of the last
    /// reads in a power cut, never a change.
    #[arg(long, env = "KEYMOAT_DURABILITY", value_enum, default_value_t = WrittenDown::Disk)]
    durability: WrittenDown,
    /// Let whoever reaches a TCP listener read the metrics without a token.
    #[arg(long)]
    open_metrics: bool,
    /// How the program's own log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    how: How,
}

/// Where a record has to be before the answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WrittenDown {
    /// On the disk.
    Disk,
    /// With the operating system.
    Os,
}

impl From<WrittenDown> for Durability {
    fn from(written_down: WrittenDown) -> Self {
        match written_down {
            WrittenDown::Disk => Self::Disk,
            WrittenDown::Os => Self::Os,
        }
    }
}

/// How the program's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Serve {
    /// Serves until it is told to stop, then finishes what it has begun.
    ///
    /// # Errors
    /// When the vault cannot be opened or an address cannot be listened on.
    pub async fn run(&self, mut context: Context) -> Result<u8, CliError> {
        self.check_addresses()?;
        context.places.durability = self.durability.into();
        start_log(self.log_format);
        let stop = stop_signal()?;
        let manager = Manager::new(context.variables.notify_socket.clone());
        // Before the vault is made: what cannot be served must not leave one behind.
        let certificate = self.certificate()?;
        // Before the vault is made: a busy address must not leave one behind whose code nobody was shown.
        let tcp = self.listen().await?;
        let found = self.open(&context).await?;
        context.variables.forget_secrets();
        let context = &context;
        let listeners = match socket(&context.places.data) {
            Ok((unix, socket_path)) => Listeners { tcp, unix, socket_path },
            Err(error) => {
                found.close().await;
                return Err(error);
            }
        };
        self.greet(context, &found, &listeners);
        let (tls, status, following) = match certificate {
            Some(served) => (Some(served.configs), Some(served.status), Some(tokio::spawn(served.follow))),
            None => (None, None, None),
        };
        let custody = self.take_in(context, found, status).await?;
        let telling = tokio::spawn(keep_told(manager.clone(), custody.watch()));
        let socket_path = listeners.socket_path.clone();
        let listeners = keymoat_server::Listeners {
            tcp: listeners.tcp,
            tls,
            unix: Some(listeners.unix),
            user_name: os_user::name_of,
            limits: limits(),
        };
        keymoat_server::serve(custody.clone(), listeners, stop).await;
        telling.abort();
        following.inspect(tokio::task::JoinHandle::abort);
        manager.stopping();
        // Gone before the lock is, so that nobody finds a socket without a server.
        if let Err(error) = std::fs::remove_file(&socket_path) {
            tracing::debug!(%error, "the socket was already gone");
        }
        custody.close().await?;
        output::say("stopped; everything is on the disk");
        Ok(0)
    }

    /// Puts the vault into the server's hands; that it starts is on record before it answers.
    async fn take_in(
        &self,
        context: &Context,
        found: Found,
        certificate: Option<watch::Receiver<CertificateStatus>>,
    ) -> Result<Custody, CliError> {
        let terms = Terms {
            surroundings: context.surroundings()?,
            doors: Doors { host_names: self.host_name.clone(), open_metrics: self.open_metrics },
            certificate,
            tend: |vault| Box::pin(tend(vault)),
        };
        let vault = match found {
            Found::Sealed(sealed) => return Ok(Custody::sealed(*sealed, terms)),
            Found::There(vault) => vault,
            // What is shown once has been shown.
            Found::Made(made) => made.vault,
        };
        vault.record_system("server", Action::Start).await?;
        Ok(Custody::open(vault, terms))
    }

    fn check_addresses(&self) -> Result<(), CliError> {
        let open = self.listen.iter().find(|address| !address.ip().is_loopback());
        match open {
            Some(address) if self.tls_cert.is_none() && !self.plain_http && !self.socket_only => {
                Err(CliError::new(format!(
                    "`{address}` can be reached from other machines, and keys would cross the network in the clear"
                ))
                .hint("give it a certificate with --tls-cert and --tls-key, or listen on 127.0.0.1; --plain-http is for when something in front adds TLS"))
            }
            _ => Ok(()),
        }
    }

    /// The certificate to serve, if TLS is asked for.
    fn certificate(&self) -> Result<Option<Served>, CliError> {
        let (Some(cert), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) else { return Ok(None) };
        let files = CertificateFiles { cert, key, client_ca: self.tls_client_ca.clone() };
        files.serve(Arc::new(SystemClock)).map(Some)
    }

    /// Opens the vault, or makes it on the first start. It stays sealed when that was asked for, or when somebody has to
    /// bring what opens it and nobody is here to ask.
    async fn open(&self, context: &Context) -> Result<Found, CliError> {
        let opened = context.places.open_vault()?;
        let sealed = match opened {
            Ok(sealed) if self.sealed => return Ok(Found::Sealed(Box::new(sealed))),
            Ok(sealed) => sealed,
            Err(_) if self.sealed => {
                return Err(CliError::new(format!(
                    "there is no vault in `{}` to be served sealed",
                    context.places.data.display()
                ))
                .hint("`keymoat init` makes one; `keymoat serve` without --sealed does too"));
            }
            Err(empty) => {
                drop(empty);
                return Ok(Found::Made(Box::new(init::make(context, &self.how).await?)));
            }
        };
        match master_key::at_hand(&sealed, &context.places, &context.variables)? {
            Some(offer) => Ok(Found::There(sealed.unseal(&offer, context.surroundings()?)?)),
            None => Ok(Found::Sealed(Box::new(sealed))),
        }
    }

    async fn listen(&self) -> Result<Vec<TcpListener>, CliError> {
        let mut tcp = Vec::new();
        let addresses = if self.socket_only { &[][..] } else { &self.listen };
        for address in addresses {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                CliError::new(format!("cannot listen on {address}: {error}"))
                    .hint("another program may be there already; --listen names another address")
            })?;
            tcp.push(listener);
        }
        Ok(tcp)
    }

    fn greet(&self, context: &Context, found: &Found, listeners: &Listeners) {
        let version = env!("CARGO_PKG_VERSION");
        let what = match found {
            Found::Made(_) => "made and serves",
            Found::There(_) => "serves",
            Found::Sealed(_) => "serves, sealed,",
        };
        output::say(&format!("keymoat {version} {what} the vault {}", found.instance()));
        for listener in &listeners.tcp {
            if let Ok(address) = listener.local_addr() {
                let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
                output::say(&format!("  listens on   {scheme}://{}", shown(address)));
            }
        }
        output::say(&format!("  socket       {}", listeners.socket_path.display()));
        if self.durability == WrittenDown::Os {
            output::say(
                "  records      with the operating system: a power cut may take those of the last reads",
            );
        }
        match found {
            Found::Made(made) => init::tell(context, made),
            Found::There(vault) => {
                output::say(&format!("  data         {}", context.places.data.display()));
                say_database(context);
                let counts = vault.counts();
                output::say(&format!(
                    "  holds        {} secrets, {} accounts",
                    counts.secrets, counts.accounts
                ));
            }
            Found::Sealed(sealed) => {
                output::say(&format!("  data         {}", context.places.data.display()));
                say_database(context);
                output::say(&format!("  opens with   {}", opens_with(sealed)));
                output::say("It answers nothing until `keymoat unseal` has opened it.");
            }
        }
        output::say("Ctrl-C stops it.");
    }
}

fn say_database(context: &Context) {
    if let Some(address) = &context.places.database {
        output::say(&format!("  database     {}", address.shown()));
    }
}

/// What was in the data directory.
enum Found {
    /// A vault, and what opens it.
    There(Vault),
    /// Nothing; a vault was made.
    Made(Box<init::Made>),
    /// A vault that stays sealed until somebody brings what opens it.
    Sealed(Box<SealedVault>),
}

impl Found {
    fn instance(&self) -> uuid::Uuid {
        match self {
            Found::There(vault) => vault.instance(),
            Found::Made(made) => made.vault.instance(),
            Found::Sealed(sealed) => sealed.instance(),
        }
    }

    async fn close(self) {
        match self {
            Found::There(vault) => vault.close().await,
            Found::Made(made) => made.vault.close().await,
            Found::Sealed(_) => {}
        }
    }
}

/// The ways to open a vault, in words.
fn opens_with(vault: &SealedVault) -> String {
    let way = |source: &SlotSource| match source {
        SlotSource::Key => "a key".to_owned(),
        SlotSource::Passphrase { .. } => "a passphrase".to_owned(),
        SlotSource::Shamir { needed, count } => format!("{needed} of {count} shares"),
    };
    let ways: BTreeSet<String> = vault.slots().map(|slot| way(&slot.source)).collect();
    ways.into_iter().collect::<Vec<_>>().join(", ")
}

/// Tells the service manager that the server answers, and whether it is sealed, now and whenever that changes.
async fn keep_told(manager: Manager, mut is_sealed: watch::Receiver<bool>) {
    loop {
        let status =
            if *is_sealed.borrow_and_update() { "sealed: `keymoat unseal` opens it" } else { "serving" };
        manager.ready(status);
        if is_sealed.changed().await.is_err() {
            return;
        }
    }
}

/// The socket in the data directory. Its lock is held, so one that is there belongs to nobody any more.
fn socket(data_dir: &Path) -> Result<(UnixListener, PathBuf), CliError> {
    let path = keymoat_store::socket_in(data_dir);
    if path.exists() {
        std::fs::remove_file(&path).map_err(|e| CliError::file("replace", &path, &e))?;
    }
    let unix = UnixListener::bind(&path).map_err(|e| CliError::file("listen on", &path, &e))?;
    set_private(&path)?;
    Ok((unix, path))
}

/// Goes on with a change of keys that was interrupted; then removes what has ended, once a minute.
async fn tend(vault: Vault) {
    if let Err(error) = vault.resume_rekeying(|_| ControlFlow::Continue(())).await {
        tracing::warn!(%error, "a change of a data key could not go on; `keymoat rekey data-key` takes it up again");
    }
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    minutes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        minutes.tick().await;
        if let Err(error) = vault.sweep().await {
            tracing::warn!(%error, "what has ended could not be removed; the next minute tries again");
        }
        if let Err(error) = vault.tend_archive().await {
            tracing::warn!(%error, "archived records could not be taken out of the database; the next minute tries again");
        }
        if let Err(error) = vault.tend_keys().await {
            tracing::warn!(%error, "tokens could not be moved to the newest pepper; the next minute tries again");
        }
    }
}

/// How many may be connected: as many as usual, where the system lets this program open so many files.
fn limits() -> Limits {
    let usual = Limits::default();
    let wanted = (2 * usual.connections + FILES_KEPT) as u64;
    let allowed = files_allowed(wanted).unwrap_or(FILES_AT_LEAST);
    let room = usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(FILES_KEPT) / 2;
    Limits { connections: usual.connections.min(room.max(1)), ..usual }
}

/// Raises the number of files that may be open to what is wanted, as far as that goes, and gives it.
fn files_allowed(wanted: u64) -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    // None stands for no limit.
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        // What cannot be raised stays as it is, and is asked for below.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current.or(Some(wanted))
}

/// Files that are open for something else than connections: the database's, twice what was ever seen.
const FILES_KEPT: usize = 128;
/// What every system allows.
const FILES_AT_LEAST: u64 = 256;

struct Listeners {
    tcp: Vec<TcpListener>,
    unix: UnixListener,
    socket_path: PathBuf,
}

/// Only this user may connect; who it is, is asked again for every connection.
fn set_private(path: &std::path::Path) -> Result<(), CliError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| CliError::file("protect", path, &e))
}

/// Ends when the operator or the system asks the program to stop. It listens from the moment of the call, so that a
/// program that has said how it is stopped is never killed by that.
///
/// # Errors
/// When signals cannot be listened for.
pub fn stop_signal() -> Result<impl Future<Output = ()> + Send + use<>, CliError> {
    let wrong = |e: std::io::Error| CliError::new(format!("cannot listen for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Each request is worth a line to a log collector, but not to whoever looks at the terminal.
fn start_log(format: LogFormat) {
    let usual = match format {
        LogFormat::Text => "warn",
        LogFormat::Json => "info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("KEYMOAT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn shown(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V6(ip) => format!("[{ip}]:{}", address.port()),
        IpAddr::V4(ip) => format!("{ip}:{}", address.port()),
    }
}
