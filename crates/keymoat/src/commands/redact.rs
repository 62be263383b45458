//! `keymoat redact`: stdin to stdout without keys, line by line as they come.
//!
//! It never has the vault open itself: a filter runs for weeks, and would keep everybody else out. Where a server is
//! running, or one is named, the values that it stores go too; if it cannot be asked, nothing more passes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use http::Method;
use keymoat_crypto::SecretBytes;
use keymoat_detect::{Engine, KnownValues, Redactor, Sieve};
use keymoat_server::wire::{Candidates, Matches, Sieve as WireSieve, SieveAsk, WireSecret};
use tokio::runtime::Handle;

use crate::Context;
use crate::client::Client;
use crate::error::CliError;
use crate::output;

/// Flags of `redact`.
#[derive(Debug, Clone, Args)]
pub struct Redact {
    /// Look for keys by their looks alone, not for the values that a vault stores.
    #[arg(long)]
    no_vault: bool,
}

impl Redact {
    /// Copies stdin to stdout, with a fixed text in place of every key.
    ///
    /// # Errors
    /// When a vault is named and cannot be asked, or a stream breaks.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let stored = match self.vault(context).await? {
            None => None,
            Some(client) => Some(Stored::fetch(client, context.global.env.clone()).await?),
        };
        let catalogue = context.catalogue()?;
        let filtering = tokio::task::spawn_blocking(move || {
            let engine = Engine::new(&catalogue);
            filter(Redactor::with_known(&engine, MaybeStored(stored)))
        });
        filtering.await.map_err(|e| CliError::new(format!("the filter ended before its input: {e}")))?
    }

    /// The server to ask, if there is one. One that was named must be there.
    async fn vault(&self, context: &Context) -> Result<Option<Client>, CliError> {
        if self.no_vault {
            return Ok(None);
        }
        if let Some(client) = Client::server_at_hand(context).await? {
            return Ok(Some(client.module("redact")));
        }
        if names_a_vault(context) {
            let wrong = format!(
                "no server is running on `{}`, so the values that it stores are not known",
                context.places.data.display()
            );
            return Err(CliError::new(wrong)
                .hint("`keymoat serve` starts one; with --no-vault keys are known by their looks alone"));
        }
        Ok(None)
    }
}

/// Whether somebody relies on the values of a vault to go: one was named, or there is one on this machine.
fn names_a_vault(context: &Context) -> bool {
    let global = &context.global;
    let is_named = global.data.is_some() || global.env.is_some() || context.variables.data_dir.is_some();
    is_named || context.places.may_have_vault()
}

/// Copies what comes until it ends.
fn filter(mut redactor: Redactor<'_, MaybeStored>) -> Result<u8, CliError> {
    let input = read_along();
    let mut out = Vec::new();
    // What is still held back after a flush waits for more input, however long that takes.
    let mut may_flush = false;
    loop {
        match input.recv_timeout(if may_flush { HELD_FOR } else { FOREVER }) {
            Ok(Ok(more)) => {
                redactor.push(&more, &mut out)?;
                may_flush = redactor.is_waiting();
            }
            Ok(Err(error)) => return Err(CliError::new(format!("cannot read stdin: {error}"))),
            Err(RecvTimeoutError::Timeout) => {
                redactor.flush(&mut out)?;
                may_flush = false;
            }
            Err(RecvTimeoutError::Disconnected) => {
                redactor.finish(&mut out)?;
                write_out(&mut out)?;
                return Ok(0);
            }
        }
        write_out(&mut out)?;
    }
}

/// Reads stdin on a thread of its own, so that an unfinished line does not wait for the next one.
fn read_along() -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(PIECES_AHEAD);
    std::thread::spawn(move || {
        if let Err(error) = read_all(&sender) {
            // Nobody listens any more: the filter has ended.
            let _ = sender.send(Err(error));
        }
    });
    receiver
}

fn read_all(sender: &SyncSender<std::io::Result<Vec<u8>>>) -> std::io::Result<()> {
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; PIECE];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) if sender.send(Ok(buffer[..len].to_vec())).is_err() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn write_out(out: &mut Vec<u8>) -> Result<(), CliError> {
    if out.is_empty() {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(out).and_then(|()| stdout.flush()) {
        Ok(()) => out.clear(),
        // Whoever read has seen enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => crate::exit(0),
        Err(error) => return Err(CliError::new(format!("cannot write to stdout: {error}"))),
    }
    Ok(())
}

/// The values of a vault, when there is one.
struct MaybeStored(Option<Stored>);

/// The values that a server stores.
struct Stored {
    client: Client,
    runtime: Handle,
    environment: Option<String>,
    sieve: Sieve,
    change: u64,
    asked_at: Instant,
}

impl Stored {
    async fn fetch(client: Client, environment: Option<String>) -> Result<Self, CliError> {
        let ask = SieveAsk { environment: environment.clone(), unless: None };
        let answer: WireSieve = client.call(Method::POST, SIEVE, Some(&ask)).await?;
        if answer.values == Some(0) {
            output::warn("the vault has no values that you may match; keys are known by their looks alone");
        }
        let sieve = sieve_in(&answer)?.ok_or_else(not_understood)?;
        let runtime = Handle::current();
        Ok(Self { client, runtime, environment, sieve, change: answer.change, asked_at: Instant::now() })
    }

    /// Asks for another sieve, if there was a change since this one.
    fn renew(&mut self) -> Result<(), CliError> {
        let ask = SieveAsk { environment: self.environment.clone(), unless: Some(self.change) };
        let asking = self.client.call(Method::POST, SIEVE, Some(&ask));
        let answer: WireSieve = self.runtime.block_on(asking).map_err(unasked)?;
        if let Some(sieve) = sieve_in(&answer)? {
            self.sieve = sieve;
        }
        self.change = answer.change;
        self.asked_at = Instant::now();
        Ok(())
    }

    /// Asks about those of the candidates that are in the batch.
    fn ask(&self, candidates: &[&[u8]], batch: &[usize], known: &mut [bool]) -> Result<(), CliError> {
        let texts = batch.iter().map(|&at| WireSecret(SecretBytes::from_slice(candidates[at]))).collect();
        let body = Candidates { environment: self.environment.clone(), candidates: texts };
        let asking = self.client.call(Method::POST, MATCH, Some(&body));
        let answer: Matches = self.runtime.block_on(asking).map_err(unasked)?;
        for found in answer.matches {
            known[*batch.get(found.candidate).ok_or_else(not_understood)?] = true;
        }
        Ok(())
    }
}

impl KnownValues for MaybeStored {
    type Error = CliError;

    fn renew(&mut self) -> Result<(), CliError> {
        match &mut self.0 {
            Some(stored) if stored.asked_at.elapsed() >= SIEVE_STANDS => stored.renew(),
            _ => Ok(()),
        }
    }

    fn sieve(&self) -> Option<&Sieve> {
        self.0.as_ref().map(|stored| &stored.sieve)
    }

    fn are_known(&mut self, candidates: &[&[u8]], known: &mut Vec<bool>) -> Result<(), CliError> {
        known.resize(candidates.len(), false);
        let Some(stored) = &self.0 else { return Ok(()) };
        // What is no text was not stored as one, and JSON cannot carry it.
        let texts = (0..candidates.len()).filter(|&at| std::str::from_utf8(candidates[at]).is_ok());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for at in texts {
            if batch.len() == keymoat_vault::CANDIDATES_MAX || bytes + candidates[at].len() > BATCH_BYTES {
                stored.ask(candidates, &std::mem::take(&mut batch), known)?;
                bytes = 0;
            }
            batch.push(at);
            bytes += candidates[at].len();
        }
        if batch.is_empty() { Ok(()) } else { stored.ask(candidates, &batch, known) }
    }
}

fn sieve_in(answer: &WireSieve) -> Result<Option<Sieve>, CliError> {
    let Some(text) = &answer.sieve else { return Ok(None) };
    let bytes = BASE64.decode(text).map_err(|_| not_understood())?;
    Sieve::from_bytes(&bytes).map(Some).map_err(|_| not_understood())
}

fn not_understood() -> CliError {
    CliError::new("the server's answer about stored values cannot be understood")
        .hint("are this program and the server of the same version?")
}

/// What could not be asked about does not pass.
fn unasked(error: CliError) -> CliError {
    let message = format!("stopped, since the vault cannot be asked for stored values: {}", error.message);
    let hint = error.hint.unwrap_or_else(|| "start the filter again when the server answers".to_owned());
    CliError::new(message).hint(hint)
}

const MATCH: &str = "/api/v1/match";
const SIEVE: &str = "/api/v1/match/sieve";

/// So long an unfinished line waits for its rest.
const HELD_FOR: Duration = Duration::from_millis(100);
/// Longer than any stream lasts.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// After so long a value that was stored meanwhile is known here too.
const SIEVE_STANDS: Duration = Duration::from_secs(2);
/// Text in one request: in JSON it is six times as long at most, and a server takes a megabyte.
const BATCH_BYTES: usize = 128 * 1024;
/// What is read at once, at most.
const PIECE: usize = 256 * 1024;
/// Pieces read ahead while another one is looked at.
const PIECES_AHEAD: usize = 2;
