//! `keymoat login`, and the tokens that it keeps.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use keymoat_crypto::SecretBytes;
use keymoat_server::wire::{CodeSignIn, IssuedToken, NewCode, WireSecret};

use super::private_file::PrivateFile;
use crate::client::Client;
use crate::error::CliError;
use crate::{Context, master_key, output, prompt};

/// Flags of `login`.
#[derive(Debug, Clone, Args)]
pub struct Login {
    /// Make a new one-time sign-in code for an account instead of signing in.
    #[arg(long, value_name = "ACCOUNT", num_args = 0..=1, default_missing_value = "admin")]
    new_code: Option<String>,
}

impl Login {
    /// Signs in with a one-time code and keeps the token, or makes such a code.
    ///
    /// # Errors
    /// When the code is wrong or the server cannot be reached.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        match &self.new_code {
            Some(account) => new_code(context, account).await,
            None => sign_in(context).await,
        }
    }
}

async fn new_code(context: &Context, account: &str) -> Result<u8, CliError> {
    super::with_client(context, async |client: &Client| {
        let url = format!("/api/v1/accounts/{account}/sign-in-code");
        let made: NewCode = client.call(Method::POST, &url, None::<&()>).await?;
        output::say(&format!("signs in `{}` once, within 30 minutes:", output::printable(account)));
        // EXPOSE: the code was asked for by somebody who may have it, and its making is on record.
        made.code.0.expose(|text| output::bytes(&[text.as_slice(), b"\n"].concat()));
        Ok(0)
    })
    .await
}

async fn sign_in(context: &Context) -> Result<u8, CliError> {
    let Some(server) = &context.global.server else {
        return Err(CliError::new(
            "on this machine the operating system says who you are, so there is nothing to sign in to",
        )
        .hint("name a server with --server or KEYMOAT_ADDR"));
    };
    let code = match crate::output::talks_to_a_person() {
        true => prompt::secret("One-time sign-in code")?,
        false => prompt::secret_from_stdin()?,
    };
    if code.is_empty() {
        return Err(CliError::new("there is no sign-in code on stdin")
            .hint("who may run commands on the vault's own machine makes one there with: keymoat login --new-code admin"));
    }
    let client = Client::connect(context).await?;
    let issued: IssuedToken = client
        .call(Method::POST, "/api/v1/sign-in/code", Some(&CodeSignIn { code: WireSecret(code) }))
        .await?;
    let path = token_file(context, &client.server_name());
    write_token(&path, &issued.token.0)?;
    output::say(&format!(
        "signed in to {server} as {} until {}",
        issued.about.account,
        super::time_text(issued.about.expires_at)
    ));
    Ok(0)
}

/// The token that an earlier sign-in to this server left, if any.
///
/// # Errors
/// When its file cannot be read.
pub fn saved_token(context: &Context, server: &str) -> Result<Option<SecretBytes>, CliError> {
    let path = token_file(context, server);
    if path.exists() { master_key::read_private_file("token", &path).map(Some) } else { Ok(None) }
}

fn token_file(context: &Context, server: &str) -> PathBuf {
    context.places.config.join("tokens").join(server)
}

fn write_token(path: &std::path::Path, token: &SecretBytes) -> Result<(), CliError> {
    let wrong = |e: std::io::Error| CliError::file("keep the token in", path, &e);
    let dir = path.parent().unwrap_or(std::path::Path::new("."));
    keymoat_store::make_private_dir(dir).map_err(wrong)?;
    let mut file = PrivateFile::create(path)?;
    // EXPOSE: the token is kept for this user's later commands.
    token.expose(|text| file.write(text))?;
    file.finish()
}
