//! `keymoat serve`.

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use keymoat_core::audit::Action;
use keymoat_vault::{SealedVault, Vault};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

use super::init::{self, How};
use crate::error::CliError;
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
    /// Serve plain HTTP on an address that other machines reach: only behind something that adds TLS.
    #[arg(long)]
    plain_http: bool,
    /// Do not listen on the network at all, only on the socket in the data directory.
    #[arg(long)]
    socket_only: bool,
    /// How the program's own log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    how: How,
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
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        self.check_addresses()?;
        start_log(self.log_format);
        let stop = stop_signal()?;
        // Before the vault is made: a busy address must not leave one behind whose code nobody was shown.
        let tcp = self.listen().await?;
        let (vault, made) = self.open(context).await?;
        let listeners = match socket(&vault) {
            Ok((unix, socket_path)) => Listeners { tcp, unix, socket_path },
            Err(error) => {
                drop(made);
                vault.close().await;
                return Err(error);
            }
        };
        self.greet(context, &vault, made.as_ref(), &listeners);
        drop(made);
        vault.record_system("server", Action::Start).await?;
        let socket_path = listeners.socket_path.clone();
        let tending = tokio::spawn(tend(vault.clone()));
        let router = keymoat_server::router(keymoat_server::AppState::new(vault.clone()));
        let listeners = keymoat_server::Listeners {
            tcp: listeners.tcp,
            unix: Some(listeners.unix),
            user_name: os_user::name_of,
            limits: keymoat_server::Limits::default(),
        };
        keymoat_server::serve(router, listeners, stop).await;
        tending.abort();
        // An aborted task has let go of the vault only when it has ended.
        drop(tending.await);
        // Gone before the lock is, so that nobody finds a socket without a server.
        if let Err(error) = std::fs::remove_file(&socket_path) {
            tracing::debug!(%error, "the socket was already gone");
        }
        vault.record_system("server", Action::Stop).await?;
        vault.close().await;
        output::say("stopped; everything is on the disk");
        Ok(0)
    }

    fn check_addresses(&self) -> Result<(), CliError> {
        let open = self.listen.iter().find(|address| !address.ip().is_loopback());
        match open {
            Some(address) if !self.plain_http && !self.socket_only => Err(CliError::new(format!(
                "`{address}` can be reached from other machines, and keys would cross the network in the clear"
            ))
            .hint("listen on 127.0.0.1 behind a proxy with TLS, or say --plain-http when something in front adds TLS")),
            _ => Ok(()),
        }
    }

    /// Opens the vault, or makes it on the first start.
    async fn open(&self, context: &Context) -> Result<(Vault, Option<init::Made>), CliError> {
        match SealedVault::open(&context.places.data, keymoat_store::Durability::Disk)? {
            Ok(sealed) => {
                let offer = master_key::offer_for(&sealed, &context.places, &context.variables)?;
                Ok((sealed.unseal(&offer, context.surroundings()?)?, None))
            }
            Err(empty) => {
                drop(empty);
                let made = init::make(context, &self.how).await?;
                Ok((made.vault.clone(), Some(made)))
            }
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

    fn greet(&self, context: &Context, vault: &Vault, made: Option<&init::Made>, listeners: &Listeners) {
        let version = env!("CARGO_PKG_VERSION");
        let what = if made.is_some() { "made and serves" } else { "serves" };
        output::say(&format!("keymoat {version} {what} the vault {}", vault.instance()));
        for listener in &listeners.tcp {
            if let Ok(address) = listener.local_addr() {
                output::say(&format!("  listens on   http://{}", shown(address)));
            }
        }
        output::say(&format!("  socket       {}", listeners.socket_path.display()));
        match made {
            Some(made) => init::tell(context, made),
            None => {
                output::say(&format!("  data         {}", context.places.data.display()));
                let counts = vault.counts();
                output::say(&format!(
                    "  holds        {} secrets, {} accounts",
                    counts.secrets, counts.accounts
                ));
            }
        }
        output::say("Ctrl-C stops it.");
    }
}

/// The socket in the data directory. Its lock is held, so one that is there belongs to nobody any more.
fn socket(vault: &Vault) -> Result<(UnixListener, PathBuf), CliError> {
    let path = keymoat_store::socket_in(vault.data_dir());
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

/// Ends when the operator or the system asks the server to stop. It listens from the moment of the call, so that a
/// server that has said how it is stopped is never killed by that.
fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
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
