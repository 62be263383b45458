//! `keymoat run`: starts a program with its keys in its environment.
//!
//! The program takes this one's place (`execve`), so signals, terminal, standard streams and exit code are its own;
//! only with `--watch` Keymoat stays beside it (`watch`).
//! Only whole values are references: those of the `.env` file and of `--map`; those of the caller's own environment
//! only with `--expand-env`. Nothing is started unless every reference has a value.

pub mod signals;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use http::Method;
use keymoat_core::dotenv::{EnvFile, EnvLimits};
use keymoat_core::names::VariableName;
use keymoat_core::reference::{Reference, looks_like_reference};
use keymoat_crypto::SecretBytes;
use keymoat_server::wire::{Answer, Ask, Value, WireSecret};

use super::PathAndField;
use super::reveal::plain;
use super::which::{SHARED_FIRST, outcome, shared_before_own};
use crate::client::Client;
use crate::error::CliError;
use crate::{Context, output};

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// File with settings and references; `.env` here when there is one.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    env_file: Vec<PathBuf>,
    /// Read no `.env` file.
    #[arg(long, conflicts_with = "env_file")]
    no_env_file: bool,
    /// A variable and the secret that it gets.
    #[arg(long, value_name = "VAR=PATH#FIELD")]
    map: Vec<String>,
    /// Resolve references that stand in the caller's own environment too.
    #[arg(long)]
    expand_env: bool,
    /// Let a variable without the company's name stand in when a company is asked for.
    #[arg(long)]
    unqualified: bool,
    /// Stay beside the program, and start it anew when a secret that it was given has another value.
    #[arg(long)]
    watch: bool,
    /// How long the program has to end before it is killed, when it is started anew.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::duration::seconds, requires = "watch")]
    grace: u64,
    /// What becomes of the program when a value changes: `restart`, or `signal=HUP` and the like, and it keeps what it has.
    #[arg(long, value_name = "WHAT", default_value = "restart", requires = "watch")]
    on_change: watch::OnChange,
    /// The order to look in: environment, stored, company.
    #[arg(long, value_delimiter = ',', value_name = "LAYER,…")]
    order: Vec<String>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

impl Run {
    /// Starts the program; without `--watch` it returns only when that failed.
    ///
    /// # Errors
    /// When a reference has no value (125), or the program cannot be started (126, 127).
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let plan = self.plan()?;
        self.check_program()?;
        check_one_environment(context, &plan)?;
        if self.watch {
            return self.watch(context, &plan).await;
        }
        let resolved =
            if plan.wanted.is_empty() { BTreeMap::new() } else { self.resolve(context, &plan).await? };
        Err(self.exec(&plan.settings, &resolved))
    }

    /// Whether Keymoat stays beside the program.
    pub fn stays(&self) -> bool {
        self.watch
    }

    async fn watch(&self, context: &Context, plan: &Plan) -> Result<u8, CliError> {
        if plan.wanted.is_empty() {
            return Err(CliError::new("there is nothing to watch: no variable gets a value from the vault")
                .hint("name one with --map, or leave --watch out"));
        }
        let asks = self.asks(context, plan)?;
        let client = Client::connect_to_server(context).await.map_err(|error| match error.code {
            None if context.global.server.is_none() => {
                CliError::new(format!("--watch follows a server: {error}"))
                    .hint(error.hint.unwrap_or_default())
            }
            _ => error,
        })?;
        let client = client.module(&self.program_name());
        let grace = Duration::from_secs(self.grace);
        let watch = watch::Watch { run: self, settings: &plan.settings, grace, on_change: self.on_change };
        watch.run(client, asks).await
    }

    /// A program that is not there gets no keys: nothing is given out for it.
    fn check_program(&self) -> Result<(), CliError> {
        let Some(program) = self.command.first().map(Path::new) else { return Ok(()) };
        let is_there = match program.components().count() {
            1 => search_path().iter().any(|dir| dir.join(program).exists()),
            _ => program.exists(),
        };
        if is_there {
            return Ok(());
        }
        let message = format!("cannot start `{}`: there is no such program", program.display());
        Err(CliError::new(message).exit(NOT_FOUND))
    }

    /// What the program's environment is made of, before any value is known.
    fn plan(&self) -> Result<Plan, CliError> {
        let own = own_environment();
        let mut plan = Plan::default();
        for path in self.env_files() {
            plan.read_file(&path, &own)?;
        }
        for text in &self.map {
            let (name, target) = text.split_once('=').ok_or_else(|| {
                CliError::new(format!("`--map {}` is not VAR=PATH#FIELD", output::printable(text)))
                    .hint("such as `--map STRIPE_SECRET_KEY=stripe#secret_key`")
            })?;
            let target: PathAndField = target
                .parse()
                .map_err(|e: String| CliError::new(format!("`--map {}`: {e}", output::printable(name))))?;
            let reference = Reference::relative(target.path, target.field);
            plan.want(name, reference, "--map".to_owned(), &own)?;
        }
        for (name, value) in &own {
            if looks_like_reference(value) {
                let stands = "your environment".to_owned();
                let reference = reference_of(value, name, &stands)?;
                // The same as in the file: some tool has read that too.
                if plan.wanted.get(name).is_some_and(|wanted| wanted.reference == reference) {
                    continue;
                }
                if !self.expand_env {
                    return Err(CliError::new(format!(
                        "`{name}` in your environment holds a keymoat reference that nothing has resolved"
                    ))
                    .hint("some tool read the rewritten `.env` by itself; unset the variable, or resolve it with --expand-env"));
                }
                plan.wanted.insert(name.clone(), Wanted { reference, stands, is_set: false });
            }
        }
        Ok(plan)
    }

    fn env_files(&self) -> Vec<PathBuf> {
        let usual = PathBuf::from(".env");
        match (self.no_env_file, self.env_file.is_empty()) {
            (true, _) => Vec::new(),
            (false, false) => self.env_file.clone(),
            (false, true) => Some(usual).filter(|path| path.is_file()).into_iter().collect(),
        }
    }

    async fn resolve(
        &self,
        context: &Context,
        plan: &Plan,
    ) -> Result<BTreeMap<String, SecretBytes>, CliError> {
        let asks = self.asks(context, plan)?;
        let client = Client::connect(context).await?.module(&self.program_name());
        let resolved = resolve_all(&client, &asks).await;
        client.close().await;
        Ok(resolved.map_err(Failed::not_started)?.values)
    }

    fn asks(&self, context: &Context, plan: &Plan) -> Result<Vec<Asked>, CliError> {
        let asks = plan.wanted.iter().map(|(name, wanted)| {
            let stands = wanted.stands.clone();
            Ok(Asked { name: name.clone(), stands, ask: self.ask(context, name, wanted)? })
        });
        asks.collect()
    }

    /// The program's name without its directory: the module that records name when nothing else does.
    fn program_name(&self) -> String {
        let program = self.command.first().map(Path::new).and_then(Path::file_name);
        program.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn ask(&self, context: &Context, name: &str, wanted: &Wanted) -> Result<Ask, CliError> {
        let reference = &wanted.reference;
        let environment = match (&context.global.env, &reference.scope) {
            (None, Some(own)) => own.to_string(),
            _ => context.environment()?.to_string(),
        };
        // An absolute reference says whose key it is; where another company was asked for, the vault refuses.
        let company = context.company()?.or_else(|| reference.company().cloned());
        let variable = name.parse::<VariableName>().ok();
        let qualified = company
            .as_ref()
            .zip(variable.as_ref())
            .and_then(|(company, name)| name.with_company(company).ok());
        let set = [variable.clone().filter(|_| wanted.is_set), qualified.filter(is_set)];
        Ok(Ask {
            name: reference.to_string(),
            environment,
            company: company.map(|company| company.to_string()),
            variable: variable.map(|name| name.to_string()),
            variables_set: set.into_iter().flatten().map(|name| name.to_string()).collect(),
            unqualified_variable: self.unqualified,
            order: self.order.clone(),
        })
    }

    fn exec(
        &self,
        settings: &BTreeMap<String, String>,
        resolved: &BTreeMap<String, SecretBytes>,
    ) -> CliError {
        match self.command(settings, resolved) {
            Ok(mut command) => self.cannot_start(&command.exec()),
            Err(error) => error,
        }
    }

    /// The program with its environment.
    fn command(
        &self,
        settings: &BTreeMap<String, String>,
        resolved: &BTreeMap<String, SecretBytes>,
    ) -> Result<Command, CliError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(CliError::new("which program?").exit(OWN_FAILURE));
        };
        let mut command = Command::new(program);
        command.args(arguments);
        for name in keymoat_variables() {
            command.env_remove(name);
        }
        command.envs(settings);
        for (name, value) in resolved {
            // EXPOSE: handing the program its keys is what this command is for; it is on record.
            let value = value.expose(|bytes| OsString::from_vec(bytes.clone()));
            if value.as_encoded_bytes().contains(&0) {
                return Err(CliError::new(format!(
                    "the value of `{name}` has a zero byte, which no variable can hold"
                ))
                .hint("hand it over in a file instead")
                .exit(OWN_FAILURE));
            }
            command.env(name, value);
        }
        Ok(command)
    }

    fn cannot_start(&self, error: &std::io::Error) -> CliError {
        let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
        let program = self.command.first().map(|program| Path::new(program).display().to_string());
        CliError::new(format!("cannot start `{}`: {error}", program.unwrap_or_default())).exit(code)
    }
}

/// Values by the variable that each is for, and what was answered, without them.
struct Resolved {
    values: BTreeMap<String, SecretBytes>,
    answers: Vec<Answer>,
}

/// Why not every value is there.
enum Failed {
    /// Some have none, or are refused; a text for each.
    Missing(Vec<String>),
    /// Nothing could be asked.
    Other(CliError),
}

impl Failed {
    fn not_started(self) -> CliError {
        match self {
            Failed::Missing(missing) => not_started(&missing),
            Failed::Other(error) => error,
        }
    }
}

/// Asks for every value at once, and says everything that is missing, not only the first.
async fn resolve_all(client: &Client, asks: &[Asked]) -> Result<Resolved, Failed> {
    let mut resolved = Resolved { values: BTreeMap::new(), answers: Vec::new() };
    let mut missing = Vec::new();
    let mut shared = Vec::new();
    for asked in asks {
        let name = &asked.name;
        let answer = client.call::<_, Answer>(Method::POST, "/api/v1/resolve", Some(&asked.ask)).await;
        match answer {
            Ok(mut answer) => {
                if shared_before_own(&answer) {
                    shared.push(name.as_str());
                }
                match &mut answer.revealed {
                    Some(revealed) => {
                        let value = std::mem::replace(&mut revealed.value, taken());
                        resolved.values.insert(name.clone(), plain(value).map_err(Failed::Other)?);
                    }
                    None if answer.winner.is_some() => warn_of_override(name, &answer),
                    None => missing.push(asked.missing_text(&answer)),
                }
                resolved.answers.push(answer);
            }
            Err(error) if is_about_one(&error) => missing.push(asked.refused_text(&error)),
            Err(error) => return Err(Failed::Other(error)),
        }
    }
    if !missing.is_empty() {
        return Err(Failed::Missing(missing));
    }
    if !shared.is_empty() {
        output::warn(&format!("{}: {SHARED_FIRST}", shared.join(", ")));
    }
    Ok(resolved)
}

/// What stands in an answer when its value was taken out.
fn taken() -> Value {
    Value::Text(WireSecret(SecretBytes::new(Vec::new())))
}

/// One program gets the keys of one environment, so references to another are said at once, with what is most likely
/// meant, before anything is asked.
fn check_one_environment(context: &Context, plan: &Plan) -> Result<(), CliError> {
    let Some(asked) = &context.global.env else { return Ok(()) };
    let elsewhere =
        |wanted: &Wanted| wanted.reference.scope.as_ref().filter(|own| own.as_str() != asked).cloned();
    let wrong: Vec<(&String, &Wanted)> =
        plan.wanted.iter().filter(|(_, wanted)| elsewhere(wanted).is_some()).collect();
    let scopes: BTreeSet<String> =
        wrong.iter().filter_map(|(_, wanted)| elsewhere(wanted)).map(|scope| scope.to_string()).collect();
    let Some(own) = scopes.first() else { return Ok(()) };
    let (asked, all) = (output::printable(asked), wrong.len() == plan.wanted.len());
    let line = |(name, wanted): &(&String, &Wanted)| {
        format!("\n  {name} ({}): `{}`", wanted.stands, wanted.reference)
    };
    let mut list = wrong.iter().take(LISTED).map(line).collect::<String>();
    if wrong.len() > LISTED {
        list.push_str(&format!("\n  and {} more", wrong.len() - LISTED));
    }
    let error = match (scopes.len(), all) {
        (1, true) => CliError::new(format!(
            "not started: the references are all to `{own}`, and you asked for `{asked}`:{list}"
        ))
        .hint(format!(
            "`keymoat run --env {own} -- CMD` starts it with the keys of `{own}`; a reference written `keymoat:PATH#FIELD` is to whatever environment is asked for"
        )),
        _ => CliError::new(format!(
            "not started: one program gets the keys of one environment; you asked for `{asked}`, and these are elsewhere:{list}"
        ))
        .hint("write them `keymoat:PATH#FIELD`, or give each environment a file of its own (--env-file)"),
    };
    Err(error.exit(OWN_FAILURE))
}

/// A value that is asked for.
struct Asked {
    /// The variable that gets it.
    name: String,
    /// Where its reference stands.
    stands: String,
    ask: Ask,
}

impl Asked {
    fn missing_text(&self, answer: &Answer) -> String {
        let Self { name, stands, ask } = self;
        let mut text = format!("{name} ({stands}): no value for `{}` in {}", ask.name, ask.environment);
        if let Some(error) = &answer.error {
            text.push_str(&format!(" ({error})"));
        }
        for step in &answer.steps {
            text.push_str(&format!("\n    looked in {}: {}", step.place, outcome(step)));
        }
        text
    }

    fn refused_text(&self, error: &CliError) -> String {
        let Self { name, stands, ask } = self;
        let hint = error.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{name} ({stands}): `{}` in {}: {error}{hint}", ask.name, ask.environment)
    }
}

/// What a program's environment is made of.
#[derive(Default)]
struct Plan {
    /// Plain settings from the files.
    settings: BTreeMap<String, String>,
    /// Variables that get a value from the vault.
    wanted: BTreeMap<String, Wanted>,
}

struct Wanted {
    reference: Reference,
    /// Where it stands: the file and line, or the flag.
    stands: String,
    /// Whether the caller's own environment has the variable, with something that is no reference.
    is_set: bool,
}

impl Plan {
    fn read_file(&mut self, path: &Path, own: &BTreeMap<String, String>) -> Result<(), CliError> {
        let text = std::fs::read_to_string(path).map_err(|e| CliError::file("read", path, &e))?;
        let file = EnvFile::parse(&text, &EnvLimits::USUAL)
            .map_err(|e| CliError::new(format!("`{}`, {e}", path.display())))?;
        for entry in file.entries() {
            let value = entry.value.as_str();
            if looks_like_reference(value) {
                let stands = format!("{}, line {}", path.display(), entry.line);
                let reference = reference_of(value, &entry.name, &stands)?;
                self.want(&entry.name, reference, stands, own)?;
            } else if !own.contains_key(&entry.name) && !entry.name.starts_with(OWN_PREFIX) {
                // The caller's own environment comes before the file, as every reader of such files has it.
                self.settings.insert(entry.name.clone(), value.to_owned());
            }
        }
        Ok(())
    }

    fn want(
        &mut self,
        name: &str,
        reference: Reference,
        stands: String,
        own: &BTreeMap<String, String>,
    ) -> Result<(), CliError> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(CliError::new(format!(
                "`{}` is not the name of a variable",
                output::printable(name)
            )));
        }
        let is_set = own.get(name).is_some_and(|value| !looks_like_reference(value));
        self.settings.remove(name);
        self.wanted.insert(name.to_owned(), Wanted { reference, stands, is_set });
        Ok(())
    }
}

fn reference_of(value: &str, name: &str, stands: &str) -> Result<Reference, CliError> {
    let wrong = |why: String| {
        CliError::new(format!("{stands}: the reference of `{name}` is not well formed{why}"))
            .hint("write `keymoat:PATH#FIELD`, or `keymoat://ENV/PATH#FIELD` for one environment")
    };
    match Reference::parse(value) {
        Ok(Some(reference)) => Ok(reference),
        Ok(None) => Err(wrong(String::new())),
        Err(error) => Err(wrong(format!(": {error}"))),
    }
}

fn warn_of_override(name: &str, answer: &Answer) {
    if answer.warns {
        output::warn(&format!("`{name}` of your environment stands in for the stored value"));
    }
}

/// Errors that speak of one reference; the others stop everything at once.
fn is_about_one(error: &CliError) -> bool {
    matches!(
        error.code.as_deref(),
        Some("not_found" | "refused" | "invalid" | "source_down" | "damaged" | "conflict")
    )
}

fn not_started(missing: &[String]) -> CliError {
    let what = if missing.len() == 1 { "a key is missing" } else { "keys are missing" };
    CliError::new(format!("not started, {what}:\n  {}", missing.join("\n  ")))
        .hint("`keymoat which NAME` shows every place that is looked at; `keymoat put PATH FIELD` stores a value")
        .exit(OWN_FAILURE)
}

#[expect(clippy::disallowed_methods, reason = "the environment layer is looked at where the program runs")]
fn is_set(name: &VariableName) -> bool {
    std::env::var_os(name.as_str()).is_some()
}

#[expect(clippy::disallowed_methods, reason = "the program is looked for as the operating system will")]
fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "the environment layer is looked at where the program runs")]
fn own_environment() -> BTreeMap<String, String> {
    // What is not text is passed on untouched and cannot be a reference.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Keymoat's own variables, which are not the program's business.
#[expect(
    clippy::disallowed_methods,
    reason = "the child's environment is this one without Keymoat's own variables"
)]
fn keymoat_variables() -> Vec<OsString> {
    let is_own = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with(OWN_PREFIX));
    std::env::vars_os().map(|(name, _)| name).filter(is_own).collect()
}

/// References that one message names; a person looks at the first few.
const LISTED: usize = 5;
/// Keymoat's own variables.
const OWN_PREFIX: &str = "KEYMOAT_";
/// Keymoat itself failed, so that the program was not started (as `env` has it).
pub const OWN_FAILURE: u8 = 125;
/// The program was found and cannot be run.
const CANNOT_RUN: u8 = 126;
/// The program was not found.
const NOT_FOUND: u8 = 127;
