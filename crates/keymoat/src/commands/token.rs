//! `keymoat token`: tokens of service accounts and users. A token is shown once, when it is made.

use clap::{Args, Subcommand};
use http::Method;
use keymoat_core::id::TokenId;
use keymoat_core::names::AccountName;
use keymoat_server::wire::{CreateToken, IssuedToken, Token as WireToken};

use super::{duration, time_text};
use crate::Context;
use crate::client::{Client, query};
use crate::error::CliError;
use crate::output::{self, Format};

/// Subcommands of `token`.
#[derive(Debug, Clone, Subcommand)]
pub enum Token {
    /// Make a token and write it to stdout, this once.
    Create(Create),
    /// List tokens, without the tokens themselves.
    List {
        /// Only this account's.
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// End a token at once.
    Revoke {
        /// Its id.
        id: TokenId,
    },
    /// Make the token that you use last longer.
    Renew,
}

/// Flags of `token create`.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Whose.
    account: AccountName,
    /// How long it lasts, such as `30d` or `12h`.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration::seconds)]
    ttl: u64,
    /// How far it can be renewed, from now.
    #[arg(long, value_name = "TIME", value_parser = duration::seconds)]
    renewable: Option<u64>,
    /// How often it can be used.
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// A network that it is good from, such as `10.0.0.0/8`; any when left out.
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
}

impl Token {
    /// Makes, shows, renews or ends tokens.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        super::with_client(context, async |client: &Client| match self {
            Token::Create(create) => create.send(context, client).await,
            Token::List { account } => list(context, client, account.as_ref()).await,
            Token::Revoke { id } => {
                client.bytes(Method::DELETE, &format!("/api/v1/tokens/{id}"), None::<&()>).await?;
                output::say(&format!("token {id} has ended"));
                Ok(0)
            }
            Token::Renew => renew(context, client).await,
        })
        .await
    }
}

impl Create {
    async fn send(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let body = CreateToken {
            description: self.description.clone(),
            ttl_secs: self.ttl,
            renewable_secs: self.renewable,
            uses: self.uses,
            networks: self.networks.clone(),
        };
        let url = format!("/api/v1/accounts/{}/tokens", self.account);
        let issued: IssuedToken = client.call(Method::POST, &url, Some(&body)).await?;
        if context.global.format == Format::Json {
            output::json(&issued)?;
            return Ok(0);
        }
        output::say(&format!(
            "token {} of `{}`, good until {}; it is shown this once:",
            issued.about.id,
            issued.about.account,
            time_text(issued.about.expires_at)
        ));
        // EXPOSE: the token was asked for by somebody who may have it, and its making is on record.
        issued.token.0.expose(|text| output::bytes(&[text.as_slice(), b"\n"].concat()));
        Ok(0)
    }
}

/// The tokens of an account, or of all.
///
/// # Errors
/// What the vault says.
pub async fn all(client: &Client, account: Option<&AccountName>) -> Result<Vec<WireToken>, CliError> {
    client.get(&format!("/api/v1/tokens{}", query(&[("account", account.map(AccountName::as_str))]))).await
}

async fn list(context: &Context, client: &Client, account: Option<&AccountName>) -> Result<u8, CliError> {
    let tokens = all(client, account).await?;
    if context.global.format == Format::Json {
        output::json(&tokens)?;
        return Ok(0);
    }
    let rows = tokens.iter().map(|token| {
        vec![
            token.id.clone(),
            token.account.clone(),
            token.masked.clone(),
            time_text(token.created_at),
            time_text(token.expires_at),
            token.renewable_until.map(time_text).unwrap_or_default(),
            token.uses_left.map(|uses| uses.to_string()).unwrap_or_default(),
            token.networks.join(", "),
            token.description.clone(),
        ]
    });
    output::table(
        &["id", "account", "token", "made", "until", "renewable until", "uses left", "networks", "for"],
        rows,
    );
    Ok(0)
}

async fn renew(context: &Context, client: &Client) -> Result<u8, CliError> {
    let token: WireToken = client.call(Method::POST, "/api/v1/tokens/renew", None::<&()>).await?;
    if context.global.format == Format::Json {
        output::json(&token)?;
        return Ok(0);
    }
    output::line(&format!("{} is good until {}", token.masked, time_text(token.expires_at)));
    Ok(0)
}
