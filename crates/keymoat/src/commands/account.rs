//! `keymoat account`: users, service accounts, groups. What they may do is said by policies and grants, not here.

use std::collections::BTreeSet;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use keymoat_core::names::{AccountName, PolicyName};
use keymoat_server::wire::{Account as WireAccount, CreateAccount, Left, UpdateAccount};

use crate::Context;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};

/// Subcommands of `account`.
#[derive(Debug, Clone, Subcommand)]
pub enum Account {
    /// Make an account.
    Add(Add),
    /// List accounts.
    List,
    /// Show an account.
    Show {
        /// Its name.
        name: AccountName,
    },
    /// Change an account.
    Update(Update),
    /// Remove an account with its tokens and grants, having asked.
    Remove {
        /// Its name.
        name: AccountName,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// End everything that somebody may do, and list the keys that they have seen.
    Leave {
        /// The account's name.
        name: AccountName,
    },
}

/// Flags of `account add`.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// Its name; `os:NAME` for a user of the operating system.
    name: AccountName,
    /// What it is.
    #[arg(long, value_enum)]
    kind: Kind,
    /// A policy that it has.
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<PolicyName>,
    /// A group that it is in.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<AccountName>,
    /// What it is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
}

/// Flags of `account update`.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// Its name.
    name: AccountName,
    #[command(flatten)]
    change: Change,
}

/// What to change; at least one of them.
#[derive(Debug, Clone, Args)]
#[group(id = "change", required = true, multiple = true)]
struct Change {
    /// A policy to give it.
    #[arg(long, value_name = "POLICY")]
    add_policy: Vec<PolicyName>,
    /// A policy to take from it.
    #[arg(long, value_name = "POLICY")]
    remove_policy: Vec<PolicyName>,
    /// A group to put it in.
    #[arg(long, value_name = "GROUP")]
    add_group: Vec<AccountName>,
    /// A group to take it out of.
    #[arg(long, value_name = "GROUP")]
    remove_group: Vec<AccountName>,
    /// Let it act again.
    #[arg(long, conflicts_with = "deactivate")]
    activate: bool,
    /// Let it act no more, until it is activated again.
    #[arg(long)]
    deactivate: bool,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Kinds of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A program.
    ServiceAccount,
    /// A person.
    User,
    /// Whose members have its policies.
    Group,
    /// A user of the operating system on the vault's machine.
    OsUser,
}

impl Kind {
    fn as_wire(self) -> &'static str {
        match self {
            Kind::ServiceAccount => "service_account",
            Kind::User => "user",
            Kind::Group => "group",
            Kind::OsUser => "os_user",
        }
    }
}

impl Account {
    /// Shows or changes accounts.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        super::with_client(context, async |client: &Client| match self {
            Account::Add(add) => show(context, &add.send(client).await?),
            Account::List => list(context, client).await,
            Account::Show { name } => show(context, &client.get(&url(name)).await?),
            Account::Update(update) => show(context, &update.send(client).await?),
            Account::Remove { name, yes } => {
                let question = format!("Remove the account `{name}` with its tokens and grants?");
                if !yes && !crate::prompt::confirm(&question) {
                    return Err(CliError::new(format!("the account `{name}` stays"))
                        .hint("say --yes where nobody can be asked; `keymoat account update NAME --deactivate` only stops it")
                        .exit(REFUSED));
                }
                client.bytes(Method::DELETE, &url(name), None::<&()>).await?;
                output::say(&format!("removed the account `{name}` with its tokens and grants"));
                Ok(0)
            }
            Account::Leave { name } => leave(context, client, name).await,
        })
        .await
    }
}

impl Add {
    async fn send(&self, client: &Client) -> Result<WireAccount, CliError> {
        let body = CreateAccount {
            name: self.name.to_string(),
            kind: self.kind.as_wire().to_owned(),
            description: self.description.clone(),
            policies: texts(&self.policies),
            groups: texts(&self.groups),
        };
        client.call(Method::POST, "/api/v1/accounts", Some(&body)).await
    }
}

impl Update {
    async fn send(&self, client: &Client) -> Result<WireAccount, CliError> {
        let Change { add_policy, remove_policy, add_group, remove_group, .. } = &self.change;
        let mut body =
            UpdateAccount { description: self.change.description.clone(), ..UpdateAccount::default() };
        body.active = match (self.change.activate, self.change.deactivate) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        let lists = [add_policy.len(), remove_policy.len(), add_group.len(), remove_group.len()];
        if lists.iter().any(|length| *length > 0) {
            let now: WireAccount = client.get(&url(&self.name)).await?;
            body.policies = changed(now.policies, &texts(add_policy), &texts(remove_policy));
            body.groups = changed(now.groups, &texts(add_group), &texts(remove_group));
        }
        client.call(Method::PATCH, &url(&self.name), Some(&body)).await
    }
}

/// Every account that there is.
///
/// # Errors
/// What the vault says.
pub async fn all(client: &Client) -> Result<Vec<WireAccount>, CliError> {
    client.get("/api/v1/accounts").await
}

async fn list(context: &Context, client: &Client) -> Result<u8, CliError> {
    let accounts = all(client).await?;
    if context.global.format == Format::Json {
        output::json(&accounts)?;
        return Ok(0);
    }
    let rows = accounts.iter().map(|account| {
        vec![
            account.name.clone(),
            account.kind.replace('_', " "),
            joined(&account.policies),
            joined(&account.groups),
            if account.active { "active" } else { "inactive" }.to_owned(),
            super::time_text(account.created_at),
        ]
    });
    output::table(&["name", "kind", "policies", "groups", "state", "since"], rows);
    Ok(0)
}

async fn leave(context: &Context, client: &Client, name: &AccountName) -> Result<u8, CliError> {
    let url = format!("{}/leave", url(name));
    let left: Left = client.call(Method::POST, &url, None::<&()>).await?;
    if context.global.format == Format::Json {
        output::json(&left)?;
        return Ok(0);
    }
    output::say(&format!(
        "`{name}` may do nothing any more: {} token(s) and {} grant(s) ended",
        left.tokens, left.grants
    ));
    if left.seen.is_empty() {
        output::say("the log shows no value that the account has seen and that was not written since");
        return Ok(0);
    }
    output::say("the account has seen the values of these; rotate them:");
    for secret in &left.seen {
        output::line(&output::printable(secret));
    }
    Ok(0)
}

fn show(context: &Context, account: &WireAccount) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(account)?;
        return Ok(0);
    }
    output::line(&output::printable(&account.name));
    let said = [
        ("kind", account.kind.replace('_', " ")),
        ("for", account.description.clone()),
        ("policies", joined(&account.policies)),
        ("groups", joined(&account.groups)),
        ("state", if account.active { "active" } else { "inactive" }.to_owned()),
        ("made", format!("{} by {}", super::time_text(account.created_at), account.created_by)),
        ("id", account.id.clone()),
    ];
    for (what, text) in said.iter().filter(|(_, text)| !text.is_empty()) {
        output::line(&format!("  {what:<9} {}", output::printable(text)));
    }
    Ok(0)
}

fn url(name: &AccountName) -> String {
    format!("/api/v1/accounts/{name}")
}

/// A list with names added and removed; `None` when nothing of it is asked for.
fn changed(
    mut now: BTreeSet<String>,
    add: &BTreeSet<String>,
    remove: &BTreeSet<String>,
) -> Option<BTreeSet<String>> {
    if add.is_empty() && remove.is_empty() {
        return None;
    }
    now.extend(add.iter().cloned());
    now.retain(|name| !remove.contains(name));
    Some(now)
}

fn texts(names: &[impl ToString]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn joined(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_changed_name_by_name() {
        let set = |names: &str| names.split_whitespace().map(str::to_owned).collect::<BTreeSet<String>>();
        let check = |now: &str, add: &str, remove: &str, expected: Option<&str>| {
            assert_eq!(
                changed(set(now), &set(add), &set(remove)),
                expected.map(set),
                "{now} +{add} -{remove}"
            );
        };
        check("a b", "", "", None);
        check("a b", "c", "", Some("a b c"));
        check("a b", "a", "", Some("a b"));
        check("a b", "", "a", Some("b"));
        check("a", "b", "a", Some("b"));
        check("a", "b", "b", Some("a"));
        check("", "", "a", Some(""));
    }
}
