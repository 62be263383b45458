//! `keymoat backup` and `keymoat restore`. A backup is encrypted and opens with the vault's master key, which is not in
//! it; the vault makes it and checks it. Here it only becomes a file.

use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use keymoat_core::audit::AuditText;
use keymoat_detect::Catalogue;
use keymoat_vault::BackupFile;

use super::private_file::PrivateFile;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, master_key};

/// Flags of `backup`.
#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// The file to write; `-` for stdout.
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: PathBuf,
    /// Put it in the place of a file that is there.
    #[arg(long)]
    replace: bool,
}

/// Flags of `restore`.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// The backup.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Restore although this machine has seen a newer state of this vault, and say why.
    #[arg(long, alias = "accept-restore", value_name = "REASON")]
    accept_older: Option<String>,
}

impl Backup {
    /// Writes a backup.
    ///
    /// # Errors
    /// When the file cannot be written, or what the vault says; no half a backup is left then.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let is_stdout = self.output == Path::new("-");
        if is_stdout && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            return Err(
                CliError::new("a backup is not for reading, and stdout is a terminal").hint("name a file")
            );
        }
        if !is_stdout && !self.replace && self.output.exists() {
            return Err(CliError::new(format!("`{}` is there already", self.output.display()))
                .hint("name another file, or say --replace")
                .exit(REFUSED));
        }
        let size = super::with_client(context, async |client: &Client| match is_stdout {
            true => {
                copy(client, |piece| {
                    output::bytes(piece);
                    Ok(())
                })
                .await
            }
            false => {
                let mut file = PrivateFile::create(&self.output)?;
                let size = copy(client, |piece| file.write(piece)).await?;
                file.finish()?;
                Ok(size)
            }
        })
        .await?;
        let place = if is_stdout { "stdout".to_owned() } else { format!("`{}`", self.output.display()) };
        output::say(&format!("wrote a backup of {size} bytes to {place}"));
        output::say("it opens with the vault's master key, which is not in it: keep both, and not together");
        Ok(0)
    }
}

/// Hands a backup on, piece by piece, and gives its size in bytes.
async fn copy(
    client: &Client,
    mut write: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<u64, CliError> {
    let mut body = client.stream(Method::POST, "/api/v1/backup", None::<&()>).await?;
    let progress = spinner();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            CliError::new(format!("the backup broke off after {size} bytes and was thrown away: {e}"))
                .hint("`keymoat audit verify` says whether the vault is whole")
        })?;
        if let Ok(piece) = frame.into_data() {
            write(&piece)?;
            size += piece.len() as u64;
            progress.set_position(size);
        }
    }
    progress.finish_and_clear();
    Ok(size)
}

impl Restore {
    /// Makes a vault of a backup, in a data directory that has none.
    ///
    /// # Errors
    /// When the backup, the master key or the directory does not fit; nothing is written then.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        check_is_here(context).await?;
        let file = std::fs::File::open(&self.file).map_err(|e| CliError::file("read", &self.file, &e))?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err(CliError::new(format!("`{}` is not a file", self.file.display()))
                .hint("a restore reads the backup twice; save a stream to a file first"));
        }
        let backup = BackupFile::open(std::io::BufReader::new(file))?;
        let header = backup.header();
        let opens =
            header.slots.iter().map(|copy| master_key::Opens::from(&copy.slot.source)).collect::<Vec<_>>();
        let offer = master_key::offer(header.instance.id, &opens, &context.places, &context.variables)?;
        let accept = self.accept_older.as_deref().map(AuditText::new);
        if self.accept_older.as_deref().is_some_and(|why| why.trim().is_empty()) {
            return Err(CliError::new("say why with --accept-older: it is written into the log"));
        }
        if accept.as_ref().is_some_and(|why| Catalogue::builtin().holds_a_key(why.as_str())) {
            return Err(CliError::new("the reason holds what looks like a key")
                .hint("it would stand in the log in clear; leave keys out"));
        }
        let progress = spinner();
        progress.set_message("checking and writing");
        let restored =
            backup.restore(&context.places.data, &offer, context.surroundings()?, accept.as_ref()).await;
        progress.finish_and_clear();
        let (vault, summary) = restored?;
        vault.close().await;
        tell(context, &summary)
    }
}

/// A restore is for this machine, and for a directory that nobody uses.
async fn check_is_here(context: &Context) -> Result<(), CliError> {
    if context.global.server.is_some() {
        return Err(CliError::new("a restore works on this machine's data directory, not through a server")
            .hint("leave --server and KEYMOAT_ADDR out, and run it where the vault is to be"));
    }
    let socket = keymoat_store::socket_in(&context.places.data);
    if socket.exists() && tokio::net::UnixStream::connect(&socket).await.is_ok() {
        return Err(CliError::new(format!("a server is running on `{}`", context.places.data.display()))
            .hint("stop it, or restore into another directory with --data"));
    }
    Ok(())
}

fn tell(context: &Context, summary: &keymoat_vault::RestoreSummary) -> Result<u8, CliError> {
    let backup = &summary.backup;
    if context.global.format == Format::Json {
        output::json(&serde_json::json!({
            "instance": backup.instance,
            "created_at": backup.created_at,
            "rows": backup.rows,
            "events": backup.events,
            "bytes": backup.bytes,
            "accepted": summary.accepted,
            "event": summary.event,
        }))?;
        return Ok(0);
    }
    output::line(&format!("restored the vault {} into {}", backup.instance, context.places.data.display()));
    output::line(&format!(
        "as of {}: {} rows, {} records of the audit log",
        super::time_text(backup.created_at),
        backup.rows,
        backup.events
    ));
    if let Some(accepted) = &summary.accepted {
        output::warn(&format!("accepted, and on record: {accepted}"));
    }
    Ok(0)
}

/// Something moves while it lasts; hidden where nobody watches.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {bytes} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(SPINNER_TICK);
    bar
}

const SPINNER_TICK: std::time::Duration = std::time::Duration::from_millis(100);
