//! The command line as clap reads it. Each command's own flags stand with the command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::error::CliError;
use crate::output::Format;

/// Keeps third-party API keys safe: finds them, stores them encrypted, hands them out only to whoever may have them,
/// and writes down every use.
#[derive(Debug, Parser)]
#[command(name = "keymoat", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Environment, such as `prod`.
    #[arg(long, short = 'e', env = "KEYMOAT_ENV", global = true, value_name = "ENV")]
    pub env: Option<String>,
    /// Company whose keys come into question.
    #[arg(long, env = "KEYMOAT_COMPANY", global = true, value_name = "COMPANY")]
    pub company: Option<String>,
    /// Data directory of the vault on this machine.
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Address of a PostgreSQL database that holds the vault: `postgres://USER@HOST/DATABASE`. KEYMOAT_DATABASE does the
    /// same and may hold a password.
    #[arg(long, global = true, value_name = "URL")]
    pub database: Option<String>,
    /// Address of a server; without it a running server on this machine is found by itself.
    #[arg(long, env = "KEYMOAT_ADDR", global = true, value_name = "URL")]
    pub server: Option<String>,
    /// How data is written.
    #[arg(long = "format", global = true, value_enum, value_name = "FORMAT")]
    pub written: Option<Written>,
    /// The same, for all commands whose data has two forms.
    #[arg(skip)]
    pub format: Format,
    /// Whether to use colours.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Written {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// A line of JSON for each finding (`scan`).
    Jsonl,
    /// For code-scanning viewers (`scan`).
    Sarif,
    /// One page that needs nothing else (`scan`).
    Html,
    /// For a spreadsheet (`scan`).
    Csv,
}

impl Global {
    /// Settles how data is written, which only `scan` does in more than two forms.
    pub fn settle_format(&mut self, command: &Command) -> Result<(), CliError> {
        self.format = match self.written {
            None | Some(Written::Text) => Format::Text,
            Some(Written::Json) => Format::Json,
            Some(_) if matches!(command, Command::Scan(_)) => Format::Text,
            Some(_) => {
                return Err(CliError::new("this form is for the report of a scan")
                    .hint("--format text or --format json; `keymoat scan --format html` writes a page"));
            }
        };
        Ok(())
    }
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server; the first start makes the vault.
    Serve(commands::serve::Serve),
    /// Make a vault without starting a server.
    Init(commands::init::Init),
    /// Take the keys out of the running server's memory; it answers nothing until it is unsealed.
    Seal,
    /// Open a sealed server with the master key, or give a share of it.
    Unseal(commands::seal::Unseal),
    /// Sign in to a server, or make a one-time sign-in code.
    Login(commands::login::Login),
    /// Show whether the vault works, and who you are to it.
    Status,
    /// Store a value.
    Put(commands::put::Put),
    /// Show a secret, masked.
    Get(commands::get::Get),
    /// Give out a value; it is written down who asked.
    Reveal(commands::reveal::Reveal),
    /// List secrets.
    List(commands::list::List),
    /// Show a secret's versions.
    History(commands::get::History),
    /// Make an older version current again.
    Rollback(commands::versions::Rollback),
    /// Make the pending version current.
    Promote(commands::versions::Promote),
    /// Point a label at a version.
    Label(commands::versions::Label),
    /// Change what is said about a secret.
    Annotate(commands::put::Annotate),
    /// Delete versions; they can come back.
    Delete(commands::versions::Delete),
    /// Bring deleted versions back.
    Undelete(commands::versions::Undelete),
    /// Destroy versions for good.
    Destroy(commands::versions::Destroy),
    /// Show where a value would come from, and why.
    Which(commands::which::Which),
    /// Start a program with its keys.
    Run(commands::run::Run),
    /// Take in keys from elsewhere.
    #[command(subcommand)]
    Import(commands::import::Import),
    /// Write secrets out, in the clear.
    #[command(subcommand)]
    Export(commands::export::Export),
    Scan(commands::scan::Scan),
    /// Keep keys out of commits and pushes.
    #[command(subcommand)]
    Hook(commands::hook::Hook),
    Identify(commands::provider::Identify),
    /// Show what is known of providers.
    #[command(subcommand)]
    Provider(commands::provider::Provider),
    /// Copy stdin to stdout without keys, for logs.
    Redact(commands::redact::Redact),
    /// Environments.
    #[command(subcommand)]
    Environment(commands::place::Place),
    /// Companies.
    #[command(subcommand)]
    Company(commands::place::Place),
    /// Users, service accounts, groups.
    #[command(subcommand)]
    Account(commands::account::Account),
    /// Policies.
    #[command(subcommand)]
    Policy(commands::policy::Policy),
    /// Permissions that end by themselves.
    #[command(subcommand)]
    Grant(commands::grant::Grant),
    /// Tokens.
    #[command(subcommand)]
    Token(commands::token::Token),
    /// Keys for callers of your own API.
    #[command(subcommand)]
    Key(commands::key::Key),
    /// The audit log.
    #[command(subcommand)]
    Audit(commands::audit::Audit),
    /// Write a backup.
    Backup(commands::backup::Backup),
    /// Put a backup into an empty data directory.
    Restore(commands::backup::Restore),
    /// Change the vault's own keys.
    #[command(subcommand)]
    Rekey(commands::rekey::Rekey),
    /// Say what is unsafe in this set-up.
    Doctor,
    /// Try kills, power cuts and damaged files on this machine's disk, with vaults of its own.
    Selftest(commands::selftest::Selftest),
    /// Write a completion script for a shell.
    Completions(commands::reference::Completions),
    /// Write the manual page.
    #[command(hide = true)]
    Man,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn every_command_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
