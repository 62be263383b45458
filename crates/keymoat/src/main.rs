//! The binary: argv, environment, configuration, wiring, terminal output. Decisions are made elsewhere.

mod certificate;
mod cli;
mod client;
mod clock;
mod commands;
mod error;
mod hint;
mod master_key;
mod notify;
mod os_user;
mod output;
mod place;
mod prompt;
mod tls;
mod variables;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use keymoat_core::names::{Company, Environment};
use keymoat_crypto::{SecretBytes, ZeroingAllocator};
use keymoat_detect::Catalogue;
use keymoat_vault::Surroundings;

use crate::cli::{Cli, Color, Command, Global};
use crate::error::CliError;
use crate::place::Places;
use crate::variables::Variables;

/// Memory that is given back is overwritten first: what libraries leave behind of a value does not stay.
#[global_allocator]
static ALLOCATOR: ZeroingAllocator = ZeroingAllocator;

/// What every command works with.
pub struct Context {
    /// Flags that every command takes.
    pub global: Global,
    /// Where things are.
    pub places: Places,
    /// What the environment says.
    pub variables: Variables,
}

fn main() -> ExitCode {
    let variables = Variables::take();
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    set_color(cli.global.color);
    let own_exit =
        if matches!(cli.command, Command::Run(_)) { commands::run::OWN_FAILURE } else { error::FAILURE };
    let settled = cli.global.settle_format(&cli.command);
    let global = cli.global.clone();
    match settled.and_then(|()| run(cli, variables)) {
        Ok(code) => ExitCode::from(code),
        Err(mut error) => {
            error.hint = error.hint.map(|text| hint::complete(&text, &global));
            output::error(&error);
            ExitCode::from(if own_exit == error::FAILURE { error.exit } else { error.exit.max(own_exit) })
        }
    }
}

fn run(cli: Cli, variables: Variables) -> Result<u8, CliError> {
    let places = Places::find(cli.global.data.as_deref(), cli.global.database.as_deref(), &variables)?;
    let context = Context { global: cli.global, places, variables };
    if !matches!(cli.command, Command::Run(_)) {
        // A started program would inherit the limit on core dumps, so `run` leaves it alone.
        keymoat_crypto::harden_process();
    }
    if let Command::Run(run) = &cli.command
        && run.stays()
    {
        // Here, while there is one thread: each later one holds them back, too.
        commands::run::signals::hold_back()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(format!("cannot start: {e}")))?;
    runtime.block_on(commands::dispatch(context, cli.command))
}

/// Wrong usage is 2; help and version are fine.
fn usage(error: &clap::Error) -> ExitCode {
    let said = error.render().to_string();
    match error.use_stderr() && Catalogue::builtin().holds_a_key(&said) {
        true => output::say(said.trim_end()),
        // There is nobody left to tell when the terminal is gone.
        false => drop(error.print()),
    }
    let failure = if is_run() { commands::run::OWN_FAILURE } else { error::FAILURE };
    ExitCode::from(if error.use_stderr() { failure } else { 0 })
}

/// Whether wrong usage is that of `run`, whose own codes must not be taken for the program's.
#[expect(clippy::disallowed_methods, reason = "this is where argv enters the program")]
fn is_run() -> bool {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    command_of(&words) == Some("run")
}

/// The command among the words, which clap has not understood: the first that is neither a flag nor a flag's value.
fn command_of(words: &[String]) -> Option<&str> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            flag if FLAGS_WITH_VALUE.contains(&flag) => drop(words.next()),
            flag if flag.starts_with('-') => {}
            command => return Some(command),
        }
    }
    None
}

/// Flags that every command takes, and that may stand before it.
const FLAGS_WITH_VALUE: [&str; 8] =
    ["--env", "-e", "--company", "--data", "--database", "--server", "--format", "--color"];

fn set_color(color: Color) {
    match color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
}

/// Ends the program at once, for when nobody reads its output any more.
#[expect(clippy::disallowed_methods, reason = "the one place that ends the program early")]
pub fn exit(code: i32) -> ! {
    std::process::exit(code)
}

impl Context {
    /// The environment that was asked for.
    ///
    /// # Errors
    /// When none was, or it is not a name.
    pub fn environment(&self) -> Result<Environment, CliError> {
        match &self.global.env {
            Some(name) => Ok(name.parse::<Environment>()?),
            None => Err(CliError::new("which environment?").hint("say it with --env, or set KEYMOAT_ENV")),
        }
    }

    /// The company that was asked for, if any.
    ///
    /// # Errors
    /// When it is not a name.
    pub fn company(&self) -> Result<Option<Company>, CliError> {
        Ok(self.global.company.as_deref().map(str::parse::<Company>).transpose()?)
    }

    /// The token that the environment gives.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn token(&self) -> Result<Option<SecretBytes>, CliError> {
        match (&self.variables.token, &self.variables.token_file) {
            (Some(token), _) if token.is_empty() => {
                Err(CliError::new("KEYMOAT_TOKEN is set and empty").hint("give it a token, or unset it"))
            }
            (Some(token), _) => Ok(Some(token.duplicate())),
            (None, Some(path)) => master_key::read_named_file("token", path, &self.variables).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// What a vault takes from here. Makes the directory of the checkpoint file when it is not there.
    ///
    /// # Errors
    /// When the catalogue cannot be read or the directory cannot be made.
    pub fn surroundings(&self) -> Result<Surroundings, CliError> {
        let config = &self.places.config;
        keymoat_store::make_private_dir(config)
            .map_err(|e| CliError::file("make the directory", config, &e))?;
        Ok(Surroundings {
            clock: Arc::new(clock::SystemClock),
            catalogue: self.catalogue()?,
            outside_dir: self.places.config.clone(),
            durability: self.places.durability,
            database: self.places.database.clone(),
            key_at_hand: Some(master_key::again(&self.places, &self.variables)),
        })
    }

    /// The catalogue, with the user's own providers in `<config>/catalogue`.
    ///
    /// # Errors
    /// When one of the user's files is wrong.
    pub fn catalogue(&self) -> Result<Arc<keymoat_detect::Catalogue>, CliError> {
        self.catalogue_with(None)
    }

    /// The catalogue, with the user's own providers in `<config>/catalogue` and in another directory.
    ///
    /// # Errors
    /// When one of the user's files is wrong, or the other directory is not there.
    pub fn catalogue_with(&self, other: Option<&Path>) -> Result<Arc<keymoat_detect::Catalogue>, CliError> {
        let dir = self.places.config.join("catalogue");
        let mut extra = Vec::new();
        for dir in dir.is_dir().then_some(dir.as_path()).into_iter().chain(other) {
            let wrong = |e: std::io::Error| CliError::file("read", dir, &e);
            let mut paths: Vec<_> = std::fs::read_dir(dir)
                .map_err(wrong)?
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .collect();
            paths.sort();
            for path in
                paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            {
                let text = std::fs::read_to_string(path).map_err(|e| CliError::file("read", path, &e))?;
                extra.push((path.display().to_string(), text));
            }
        }
        let catalogue = keymoat_detect::Catalogue::with_extra(&extra);
        catalogue.map(Arc::new).map_err(|e| CliError::new(e.to_string()).hint(e.hint.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_among_words_that_are_wrong() {
        let check = |line: &str, expected: Option<&str>| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(command_of(&words), expected, "{line}");
        };
        check("run --nope", Some("run"));
        check("--env prod run", Some("run"));
        check("-e run list --nope", Some("list"));
        check("--env=prod --company acme run", Some("run"));
        check("--help", None);
        check("", None);
    }
}
