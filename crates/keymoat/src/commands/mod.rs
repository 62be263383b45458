//! The commands, one file each. A command asks the vault through [`Client`] and prints; it decides nothing.

pub mod account;
pub mod audit;
pub mod audit_archive;
pub mod audit_export;
pub mod audit_offline;
pub mod backup;
pub mod doctor;
pub mod duration;
pub mod export;
pub mod get;
pub mod grant;
pub mod hook;
pub mod import;
pub mod import_entries;
pub mod init;
pub mod key;
pub mod list;
pub mod login;
pub mod place;
pub mod policy;
pub mod private_file;
pub mod provider;
pub mod put;
pub mod redact;
pub mod reference;
pub mod rekey;
pub mod reveal;
pub mod run;
pub mod scan;
pub mod seal;
pub mod selftest;
pub mod serve;
pub mod status;
pub mod token;
pub mod versions;
pub mod which;

use keymoat_core::names::{Company, Environment, Field, SecretPath};

use crate::Context;
use crate::cli::Command;
use crate::client::{Client, query};
use crate::error::CliError;

/// Runs a command and gives its exit code.
///
/// # Errors
/// Whatever the command could not do.
pub async fn dispatch(context: Context, command: Command) -> Result<u8, CliError> {
    let owned = context;
    let context = &owned;
    match command {
        // It serves for long, and without what it was opened with.
        Command::Serve(command) => command.run(owned).await,
        Command::Init(command) => command.run(context).await,
        Command::Seal => seal::seal(context).await,
        Command::Unseal(command) => command.run(context).await,
        Command::Login(command) => command.run(context).await,
        Command::Status => status::status(context).await,
        Command::Put(command) => command.run(context).await,
        Command::Get(command) => command.run(context).await,
        Command::Reveal(command) => command.run(context).await,
        Command::List(command) => command.run(context).await,
        Command::History(command) => command.run(context).await,
        Command::Rollback(command) => command.run(context).await,
        Command::Promote(command) => command.run(context).await,
        Command::Label(command) => command.run(context).await,
        Command::Annotate(command) => command.run(context).await,
        Command::Delete(command) => command.run(context).await,
        Command::Undelete(command) => command.run(context).await,
        Command::Destroy(command) => command.run(context).await,
        Command::Which(command) => command.run(context).await,
        Command::Run(command) => command.run(context).await,
        Command::Import(command) => command.run(context).await,
        Command::Export(command) => command.run(context).await,
        Command::Scan(command) => command.run(context).await,
        Command::Hook(command) => command.run(context).await,
        Command::Identify(command) => command.run(context).await,
        Command::Provider(command) => command.run(context).await,
        Command::Redact(command) => command.run(context).await,
        Command::Environment(command) => command.run(context, "environments").await,
        Command::Company(command) => command.run(context, "companies").await,
        Command::Account(command) => command.run(context).await,
        Command::Policy(command) => command.run(context).await,
        Command::Grant(command) => command.run(context).await,
        Command::Token(command) => command.run(context).await,
        Command::Key(command) => command.run(context).await,
        Command::Audit(command) => command.run(context).await,
        Command::Backup(command) => command.run(context).await,
        Command::Restore(command) => command.run(context).await,
        Command::Rekey(command) => command.run(context).await,
        Command::Doctor => doctor::doctor(context).await,
        Command::Selftest(command) => command.run(context).await,
        Command::Completions(command) => reference::completions(&command),
        Command::Man => reference::man(),
    }
}

/// Connects, works, and lets go of the vault whatever happened.
///
/// # Errors
/// Those of connecting and of the work.
pub async fn with_client<R>(
    context: &Context,
    work: impl AsyncFnOnce(&Client) -> Result<R, CliError>,
) -> Result<R, CliError> {
    let client = Client::connect(context).await?;
    let outcome = work(&client).await;
    client.close().await;
    outcome
}

/// `PATH` or `PATH#FIELD` as written on the command line.
#[derive(Debug, Clone)]
pub struct PathAndField {
    /// The path.
    pub path: SecretPath,
    /// The field.
    pub field: Option<Field>,
}

impl std::str::FromStr for PathAndField {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, field) = match text.split_once('#') {
            Some((path, field)) => (path, Some(field)),
            None => (text, None),
        };
        let path = path.parse::<SecretPath>().map_err(|e| e.to_string())?;
        let field = field.map(str::parse::<Field>).transpose().map_err(|e| e.to_string())?;
        Ok(Self { path, field })
    }
}

/// The address of a secret under a collection such as `secrets` or `reveal`.
pub fn secret_url(
    collection: &str,
    environment: &Environment,
    company: Option<&Company>,
    path: &SecretPath,
    more: &[(&str, Option<&str>)],
) -> String {
    let mut pairs = vec![("company", company.map(Company::as_str))];
    pairs.extend_from_slice(more);
    format!("/api/v1/{collection}/{environment}/{path}{}", query(&pairs))
}

/// A time to the second, as every command writes it.
pub fn time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
