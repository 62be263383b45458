//! `keymoat seal` and `keymoat unseal`: take the keys out of a running server's memory, and bring them back. Without a
//! server there is nothing to seal: a command has the vault open only while it runs.

use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use keymoat_crypto::{SecretBytes, Share};
use keymoat_server::wire::{KeyOffer, SharesGiven, Status, Unsealing, WireSecret};

use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Format};
use crate::{Context, master_key, prompt};

/// Flags of `unseal`. Without any, what the environment and the configuration name is used, else you are asked.
#[derive(Debug, Clone, Args)]
pub struct Unseal {
    /// A file that holds a master key; `-` for stdin.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, group = "offer")]
    key_file: Option<PathBuf>,
    /// A file that holds the passphrase; `-` for stdin.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, group = "offer")]
    passphrase_file: Option<PathBuf>,
    /// A file that holds a share, or several, one a line; `-` for stdin.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, group = "offer")]
    shares_file: Option<PathBuf>,
    /// Forget the shares that were given so far.
    #[arg(long, group = "offer")]
    reset: bool,
}

/// Seals the running server.
///
/// # Errors
/// When none runs, or it refuses.
pub async fn seal(context: &Context) -> Result<u8, CliError> {
    let client = Client::connect_to_server(context).await?;
    match client.bytes(Method::POST, "/api/v1/seal", None::<&()>).await {
        Ok(_) => output::say("sealed: no key is in the server's memory, and it answers nothing"),
        Err(error) if error.code.as_deref() == Some(SEALED) => output::say("it is sealed already"),
        Err(error) => return Err(error),
    }
    output::say("`keymoat unseal` opens it with the master key");
    Ok(0)
}

impl Unseal {
    /// Offers what opens the vault to the sealed server.
    ///
    /// # Errors
    /// When no server runs, nothing is at hand, or it does not fit.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let client = Client::connect_to_server(context).await?;
        let state: Unsealing = client.get(UNSEAL).await?;
        if !state.sealed {
            return told(context, &state, "the server is not sealed");
        }
        if self.reset {
            let state: Unsealing = client.call(Method::POST, "/api/v1/unseal/reset", None::<&()>).await?;
            return told(context, &state, "the shares that were given are forgotten");
        }
        let state = match self.offer(context, &client, &state).await? {
            Some(offer) => client.call(Method::POST, UNSEAL, Some(&offer)).await?,
            None => ask_for_shares(&client, state).await?,
        };
        told(context, &state, &text_of(&state))
    }

    /// What is offered without asking for shares one by one.
    async fn offer(
        &self,
        context: &Context,
        client: &Client,
        state: &Unsealing,
    ) -> Result<Option<KeyOffer>, CliError> {
        if let Some(path) = &self.key_file {
            let text =
                if is_stdin(path) { prompt::secret_from_stdin()? } else { master_key::read_key_file(path)? };
            return Ok(Some(KeyOffer::Key(WireSecret(text))));
        }
        if let Some(path) = &self.passphrase_file {
            return Ok(Some(KeyOffer::Passphrase(WireSecret(secret_of(path)?))));
        }
        if let Some(path) = &self.shares_file {
            return shares_in(&secret_of(path)?).map(Some);
        }
        self.configured(context, client, state).await
    }

    /// What the environment and the configuration name, in the order of a start; else the passphrase is asked for.
    async fn configured(
        &self,
        context: &Context,
        client: &Client,
        state: &Unsealing,
    ) -> Result<Option<KeyOffer>, CliError> {
        let opens_with = |kind: &str| state.opens_with.iter().any(|with| with.kind == kind);
        let variables = &context.variables;
        if opens_with("key") {
            let status: Status = client.get("/api/v1/status").await?;
            let instance =
                status.instance.parse().map_err(|_| CliError::new("the vault's id cannot be understood"))?;
            if let Some(text) = master_key::key_text(&context.places.master_key(instance), variables)? {
                return Ok(Some(KeyOffer::Key(WireSecret(text))));
            }
        }
        if let Some(path) = variables.shares_file.as_ref().filter(|_| opens_with("shamir")) {
            return shares_in(&master_key::read_secret_file(path)?).map(Some);
        }
        if opens_with("passphrase") {
            return Ok(Some(KeyOffer::Passphrase(WireSecret(master_key::passphrase(variables)?))));
        }
        match opens_with("shamir") {
            true => Ok(None),
            false => Err(CliError::new("no master key is at hand")
                .hint("--key-file names its file; `keymoat unseal` looks where `keymoat serve` looks")),
        }
    }
}

/// Asks for one share after another, until the server is open or the rest is left to others.
async fn ask_for_shares(client: &Client, mut state: Unsealing) -> Result<Unsealing, CliError> {
    while state.sealed {
        let (given, needed) = match state.shares.first() {
            Some(SharesGiven { given, needed }) => (*given, Some(*needed)),
            None => (0, state.opens_with.iter().find_map(|with| with.needed)),
        };
        let needed = needed.map_or_else(|| "?".to_owned(), |needed| needed.to_string());
        let question = format!("A share ({given} of {needed} given; empty leaves the rest to others)");
        let Some(text) = prompt::secret_or_nothing(&question)? else { break };
        match client.call(Method::POST, UNSEAL, Some(&KeyOffer::Shares(vec![WireSecret(text)]))).await {
            Ok(next) => state = next,
            Err(error) if matches!(error.code.as_deref(), Some("invalid" | SEALED)) => {
                output::error(&error);
                state = client.get(UNSEAL).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(state)
}

fn told(context: &Context, state: &Unsealing, text: &str) -> Result<u8, CliError> {
    output::say(text);
    if context.global.format == Format::Json {
        output::json(state)?;
    }
    Ok(0)
}

fn text_of(state: &Unsealing) -> String {
    match (state.sealed, state.shares.first()) {
        (false, _) => "unsealed: the server serves again".to_owned(),
        (true, Some(SharesGiven { given, needed })) => format!(
            "{given} of {needed} shares given; the server stays sealed until {} more are given, within 10 minutes",
            needed.saturating_sub(*given)
        ),
        (true, None) => "the server is sealed still".to_owned(),
    }
}

fn shares_in(text: &SecretBytes) -> Result<KeyOffer, CliError> {
    // Looked at here, so that a mistyped one is told before it travels.
    let shares = master_key::parse_shares(text)?;
    Ok(KeyOffer::Shares(shares.iter().map(Share::to_text).map(WireSecret).collect()))
}

fn secret_of(path: &Path) -> Result<SecretBytes, CliError> {
    if is_stdin(path) { prompt::secret_from_stdin() } else { master_key::read_secret_file(path) }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

const UNSEAL: &str = "/api/v1/unseal";
/// The code of what only a sealed server says.
const SEALED: &str = "sealed";
