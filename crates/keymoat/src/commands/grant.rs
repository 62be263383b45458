//! `keymoat grant`: permissions that end by themselves.

use clap::{Args, Subcommand};
use http::Method;
use jiff::Timestamp;
use keymoat_core::id::GrantId;
use keymoat_core::names::AccountName;
use keymoat_server::wire::{CreateGrant, Grant as WireGrant};

use super::policy::{Short, rules_text};
use super::{duration, time_text};
use crate::Context;
use crate::client::{Client, query};
use crate::error::CliError;
use crate::output::{self, Format};

/// Subcommands of `grant`.
#[derive(Debug, Clone, Subcommand)]
pub enum Grant {
    /// Let somebody do something for a while.
    Add(Add),
    /// List grants.
    List {
        /// Only this account's.
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// Approve a grant that somebody else asked for.
    Approve {
        /// Its id.
        id: GrantId,
    },
    /// End a grant at once.
    Revoke {
        /// Its id.
        id: GrantId,
    },
}

/// Flags of `grant add`.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// To whom.
    account: AccountName,
    #[command(flatten)]
    what: Short,
    /// How long, such as `8h` or `30d`.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::seconds)]
    lasts: u64,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How often it can be used.
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// From when (RFC 3339); now when left out.
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Ask for more than you may give: somebody else must approve it, or, where there is nobody, it waits.
    #[arg(long)]
    break_glass: bool,
}

impl Grant {
    /// Makes, shows or ends grants.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        super::with_client(context, async |client: &Client| match self {
            Grant::Add(add) => show(context, &add.send(context, client).await?),
            Grant::List { account } => list(context, client, account.as_ref()).await,
            Grant::Approve { id } => {
                let url = format!("/api/v1/grants/{id}/approve");
                show(context, &client.call(Method::POST, &url, None::<&()>).await?)
            }
            Grant::Revoke { id } => {
                client.bytes(Method::DELETE, &format!("/api/v1/grants/{id}"), None::<&()>).await?;
                output::say(&format!("grant {id} has ended"));
                Ok(0)
            }
        })
        .await
    }
}

impl Add {
    async fn send(&self, context: &Context, client: &Client) -> Result<WireGrant, CliError> {
        if self.what.allow.is_empty() {
            return Err(CliError::new("a grant allows something")
                .hint("say what with --allow, and on what with --on"));
        }
        let rules = self.what.rules(context.company()?.as_ref());
        let rules = rules.iter().map(serde_json::to_value).collect::<Result<_, _>>();
        let body = CreateGrant {
            account: self.account.to_string(),
            rules: rules.map_err(|e| CliError::new(format!("cannot write the rules: {e}")))?,
            starts_at: self.from,
            lasts_secs: self.lasts,
            uses: self.uses,
            reason: self.reason.clone(),
            break_glass: self.break_glass,
        };
        client.call(Method::POST, "/api/v1/grants", Some(&body)).await
    }
}

async fn list(context: &Context, client: &Client, account: Option<&AccountName>) -> Result<u8, CliError> {
    let url = format!("/api/v1/grants{}", query(&[("account", account.map(AccountName::as_str))]));
    let grants: Vec<WireGrant> = client.get(&url).await?;
    if context.global.format == Format::Json {
        output::json(&grants)?;
        return Ok(0);
    }
    let rows = grants.iter().map(|grant| {
        vec![
            grant.id.clone(),
            grant.account.clone(),
            rules_text(&grant.rules),
            time_text(grant.starts_at),
            time_text(grant.expires_at),
            grant.uses_left.map(|uses| uses.to_string()).unwrap_or_default(),
            state_text(grant),
            grant.reason.clone(),
        ]
    });
    output::table(&["id", "account", "allows", "from", "until", "uses left", "state", "why"], rows);
    Ok(0)
}

fn show(context: &Context, grant: &WireGrant) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(grant)?;
        return Ok(0);
    }
    output::line(&grant.id);
    let said = [
        ("account", grant.account.clone()),
        ("allows", rules_text(&grant.rules)),
        ("from", time_text(grant.starts_at)),
        ("until", time_text(grant.expires_at)),
        ("uses left", grant.uses_left.map(|uses| uses.to_string()).unwrap_or_default()),
        ("state", state_text(grant)),
        ("by", grant.granted_by.clone()),
        ("approved", grant.approved_by.clone().unwrap_or_default()),
        ("why", grant.reason.clone()),
    ];
    for (what, text) in said.iter().filter(|(_, text)| !text.is_empty()) {
        output::line(&format!("  {what:<9} {}", output::printable(text)));
    }
    if grant.state == "needs_approval" {
        output::say(&format!("somebody else must approve it: `keymoat grant approve {}`", grant.id));
    }
    Ok(0)
}

fn state_text(grant: &WireGrant) -> String {
    let at = grant.state_at.map(time_text);
    let text = match (grant.state.as_str(), at) {
        ("needs_approval", _) => "needs approval".to_owned(),
        ("delayed", Some(at)) => format!("takes effect {at}"),
        ("revoked", Some(at)) => format!("revoked {at}"),
        (state, _) => state.to_owned(),
    };
    if grant.break_glass { format!("{text}, in an emergency") } else { text }
}
