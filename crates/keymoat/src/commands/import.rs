//! `keymoat import`: takes keys in from elsewhere. Files of variables here, lists of paths in `import_entries`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http::Method;
use keymoat_core::dotenv::{EnvFile, EnvLimits};
use keymoat_core::names::{Company, Environment, Field, SecretPath};
use keymoat_core::reference::Reference;
use keymoat_crypto::SecretBytes;
use keymoat_detect::{Catalogue, Classification};
use keymoat_server::wire::{Annotate, PutSecret, Value, WireSecret, Written};
use similar::{ChangeTag, TextDiff};

use super::import_entries::{Fernet, Json};
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, hint, prompt};

/// Where keys come from.
#[derive(Debug, Clone, Subcommand)]
pub enum Import {
    /// A `.env` file.
    Dotenv(Dotenv),
    /// A JSON object whose names are paths, or paths of objects whose names are fields.
    Json(Json),
    /// Fernet ciphertexts, as Python's `cryptography` makes them: a JSON object of PATH or PATH#FIELD to token.
    Fernet(Fernet),
}

/// Flags of `import dotenv`.
#[derive(Debug, Clone, Args)]
pub struct Dotenv {
    /// The file; `-` for stdin, of which nothing is rewritten.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Only say what would be taken.
    #[arg(long)]
    dry_run: bool,
    /// Put references in place of what was taken, without asking.
    #[arg(long, conflicts_with = "no_rewrite")]
    rewrite: bool,
    /// Leave the file as it is.
    #[arg(long)]
    no_rewrite: bool,
    /// Take keys that another environment has too, and say why.
    #[arg(long, value_name = "REASON")]
    allow_duplicate: Option<String>,
}

impl Import {
    /// Takes keys in.
    ///
    /// # Errors
    /// When the file cannot be read, or what the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        match self {
            Import::Dotenv(command) => command.run(context).await,
            Import::Json(command) => command.run(context).await,
            Import::Fernet(command) => command.run(context).await,
        }
    }
}

impl Dotenv {
    async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let environment = context.environment()?;
        let is_stdin = self.file == Path::new("-");
        if is_stdin && self.rewrite {
            return Err(
                CliError::new("what comes from stdin cannot be rewritten").hint("name the file itself")
            );
        }
        let text = self.read()?;
        let name = if is_stdin { "stdin".to_owned() } else { format!("`{}`", self.file.display()) };
        let file = EnvFile::parse(&text, &EnvLimits::USUAL)
            .map_err(|e| CliError::new(format!("{name}, {e}")).hint("nothing was stored"))?;
        let catalogue = context.catalogue()?;
        let mut lines = classify(&catalogue, &file, context.company()?.as_ref())?;
        if !self.dry_run {
            let asked = Asked {
                environment: environment.clone(),
                company: context.company()?,
                because: self.allow_duplicate.clone(),
            };
            super::with_client(context, async |client: &Client| {
                store(client, &asked, &file, &mut lines).await
            })
            .await?;
        }
        report(context, &environment, &lines, self.dry_run)?;
        if !self.dry_run && !self.no_rewrite && !is_stdin && lines.iter().any(Line::was_taken) {
            self.offer_rewrite(context, &environment, &text, &file, &lines)?;
        }
        Ok(if lines.iter().any(|line| matches!(line.fate, Fate::Refused { .. })) { REFUSED } else { 0 })
    }

    /// The file's text, or that of stdin.
    fn read(&self) -> Result<String, CliError> {
        let text = match self.file == Path::new("-") {
            false => std::fs::read_to_string(&self.file),
            // One byte more than may be read, so that too much is noticed rather than cut off.
            true => std::io::read_to_string(std::io::stdin().lock().take(EnvLimits::USUAL.bytes as u64 + 1)),
        };
        text.map_err(|e| CliError::file("read", &self.file, &e))
    }

    /// Shows the file as it would be, and writes it when that is wanted.
    fn offer_rewrite(
        &self,
        context: &Context,
        environment: &Environment,
        text: &str,
        file: &EnvFile,
        lines: &[Line],
    ) -> Result<(), CliError> {
        let rewritten = rewrite(environment, text, file, lines)?;
        output::say("");
        show_diff(context_free_name(&self.file), file, lines, text, &rewritten);
        if !self.rewrite && !prompt::confirm(&format!("Rewrite {} like this?", self.file.display())) {
            output::say(&format!("{} is left as it is; `--rewrite` rewrites it", self.file.display()));
            return Ok(());
        }
        replace_file(&self.file, &rewritten)?;
        let next = hint::complete(
            &format!("start programs with `keymoat run --env {environment} -- CMD`"),
            &context.global,
        );
        output::say(&format!(
            "rewrote {}; {next}, since a tool that reads the file by itself gets references, not keys",
            self.file.display()
        ));
        Ok(())
    }
}

/// A variable of the file, and what becomes of it.
struct Line {
    /// Which entry of the file.
    number: usize,
    name: String,
    masked: String,
    fate: Fate,
}

enum Fate {
    /// It is to be stored there.
    Take(Target),
    /// It is stored there now.
    Taken { target: Target, version: u32, is_unchanged: bool, note: Option<String> },
    /// It is a secret, and could not be taken.
    Refused { target: Option<Target>, why: String, hint: Option<String> },
    /// It stays where it is.
    Stays(String),
}

/// Where a value goes, and what it is.
#[derive(Clone)]
struct Target {
    path: SecretPath,
    field: Field,
    company: Option<Company>,
    what: String,
}

impl Fate {
    fn refused(why: &str, hint: &str) -> Self {
        Self::Refused { target: None, why: why.to_owned(), hint: Some(hint.to_owned()) }
    }
}

impl Line {
    fn was_taken(&self) -> bool {
        matches!(self.fate, Fate::Taken { .. })
    }
}

fn classify(catalogue: &Catalogue, file: &EnvFile, company: Option<&Company>) -> Result<Vec<Line>, CliError> {
    let duplicates = file.duplicates();
    let mut lines: Vec<Line> = Vec::new();
    for (number, entry) in file.entries().iter().enumerate() {
        let value = entry.value.as_str();
        let is_twice = duplicates.contains_key(entry.name.as_str());
        let fate = if let Some(other) = entry.takes_over() {
            Fate::Stays(format!("takes over the value of `{other}`"))
        } else if is_twice && is_secret(catalogue, &entry.name, value) {
            Fate::refused("it stands more than once in the file", "keep one of the lines")
        } else if entry.interpolates && is_secret(catalogue, &entry.name, value) {
            Fate::refused("it is put together from other variables", "write the whole value")
        } else {
            fate_of(catalogue, &entry.name, value, company)?
        };
        lines.push(Line { number, name: entry.name.clone(), masked: catalogue.mask(value.as_bytes()), fate });
    }
    one_value_each(file, &mut lines);
    Ok(lines)
}

fn fate_of(
    catalogue: &Catalogue,
    name: &str,
    value: &str,
    company: Option<&Company>,
) -> Result<Fate, CliError> {
    let place = |path: &str, field: &str, own: Option<&str>, what: String| -> Result<Fate, CliError> {
        let own = own.map(|name| name.to_ascii_lowercase().parse::<Company>()).transpose()?;
        Ok(Fate::Take(Target {
            path: path.parse()?,
            field: field.parse()?,
            company: own.or_else(|| company.cloned()),
            what,
        }))
    };
    match catalogue.identify_named(name, value.as_bytes()) {
        Classification::Key(key) => {
            let mode = if key.mode.as_str() == "any" { String::new() } else { format!(" {}", key.mode) };
            let what = format!("{} {}{mode}", key.provider.name, key.key.kind);
            place(&key.path, &key.field, key.company.as_deref(), what)
        }
        Classification::Secret(guess) => {
            let provider = guess.provider.map(|provider| format!("{}, ", provider.name)).unwrap_or_default();
            place(
                &guess.path,
                &guess.field,
                guess.company.as_deref(),
                format!("{provider}{}", guess.why.as_str()),
            )
        }
        Classification::NotSensitive(key) => {
            Ok(Fate::Stays(format!("{} {}, not secret", key.provider.name, key.key.kind)))
        }
        Classification::Plain { why } => Ok(Fate::Stays(why.to_owned())),
        Classification::Placeholder { why } => Ok(Fate::Stays(format!("a placeholder: {why}"))),
        Classification::Reference => Ok(Fate::Stays("a reference already".to_owned())),
    }
}

fn is_secret(catalogue: &Catalogue, name: &str, value: &str) -> bool {
    matches!(
        catalogue.identify_named(name, value.as_bytes()),
        Classification::Key(_) | Classification::Secret(_)
    )
}

/// Two variables with different values that would go to one field: the later ones get a path of their own.
fn one_value_each(file: &EnvFile, lines: &mut [Line]) {
    let mut seen: BTreeMap<(Option<Company>, SecretPath, Field), usize> = BTreeMap::new();
    for at in 0..lines.len() {
        let Fate::Take(target) = &lines[at].fate else { continue };
        let place = (target.company.clone(), target.path.clone(), target.field.clone());
        let Some(first) = seen.get(&place) else {
            seen.insert(place, at);
            continue;
        };
        let value = |line: usize| file.entries().get(lines[line].number).map(|entry| entry.value.as_str());
        if value(*first) == value(at) {
            continue;
        }
        let own = format!("{}/{}", target.path, lines[at].name.to_ascii_lowercase());
        let (first, target) = (lines[*first].name.clone(), target.clone());
        lines[at].fate = match own.parse() {
            Ok(path) => Fate::Take(Target { path, ..target }),
            Err(_) => Fate::refused(
                &format!("`{first}` goes to the same place with another value"),
                "store one of them with `keymoat put`",
            ),
        };
    }
}

/// What every write of an import has in common.
struct Asked {
    environment: Environment,
    company: Option<Company>,
    because: Option<String>,
}

/// Stores what is to be taken, the fields of one path together; where that is refused, one by one, so that one key
/// does not keep the others out.
async fn store(client: &Client, asked: &Asked, file: &EnvFile, lines: &mut [Line]) -> Result<(), CliError> {
    let mut groups: BTreeMap<(Option<Company>, SecretPath), Vec<usize>> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        if let Fate::Take(target) = &line.fate {
            groups.entry((target.company.clone(), target.path.clone())).or_default().push(at);
        }
    }
    for group in groups.into_values() {
        match put(client, asked, file, lines, &group).await {
            Ok(written) => taken(lines, &group, &written),
            Err(error) if error.code.as_deref() == Some("duplicate") && group.len() > 1 => {
                for at in group {
                    match put(client, asked, file, lines, &[at]).await {
                        Ok(written) => taken(lines, &[at], &written),
                        Err(error) => refuse(asked, lines, &[at], error)?,
                    }
                }
            }
            Err(error) => refuse(asked, lines, &group, error)?,
        }
    }
    Ok(())
}

async fn put(
    client: &Client,
    asked: &Asked,
    file: &EnvFile,
    lines: &[Line],
    group: &[usize],
) -> Result<Written, CliError> {
    let mut fields = BTreeMap::new();
    let mut tags = BTreeMap::new();
    let mut place = None;
    for at in group {
        let (Fate::Take(target), Some(entry)) = (&lines[*at].fate, file.entries().get(lines[*at].number))
        else {
            continue;
        };
        let value = SecretBytes::from_slice(entry.value.as_str().as_bytes());
        fields.insert(target.field.to_string(), WireSecret(value));
        tags.insert(format!("variable.{}", lines[*at].name), target.field.to_string());
        place = Some((target.company.clone(), target.path.clone()));
    }
    let Some((company, path)) = place else { return Err(CliError::new("there is nothing to store")) };
    let body = PutSecret {
        value: Value::Fields(fields),
        replace: false,
        cas: None,
        pending: false,
        allow_duplicate: asked.because.clone(),
        import: true,
        allow_empty: false,
        about: Annotate { add_tags: tags, ..Annotate::default() },
    };
    let url = super::secret_url("secrets", &asked.environment, company.as_ref(), &path, &[]);
    client.call(Method::PUT, &url, Some(&body)).await
}

fn taken(lines: &mut [Line], group: &[usize], written: &Written) {
    let note = (!written.also_at.is_empty())
        .then(|| format!("the same value is also at {}", written.also_at.join(", ")));
    for at in group {
        if let Fate::Take(target) = &lines[*at].fate {
            lines[*at].fate = Fate::Taken {
                target: target.clone(),
                version: written.version,
                is_unchanged: written.unchanged,
                note: note.clone(),
            };
        }
    }
}

/// What concerns these keys alone is said beside them; anything else ends the import.
fn refuse(asked: &Asked, lines: &mut [Line], group: &[usize], error: CliError) -> Result<(), CliError> {
    for at in group {
        let Fate::Take(target) = &lines[*at].fate else { continue };
        // A company that only this variable names may be unknown; the one that was asked for concerns all.
        let names_company = target.company != asked.company && error.code.as_deref() == Some("not_found");
        if !concerns_one(&error) && !names_company {
            return Err(error);
        }
        lines[*at].fate = Fate::Refused {
            target: Some(target.clone()),
            why: error.message.clone(),
            hint: error.hint.clone(),
        };
    }
    Ok(())
}

/// Whether an error speaks of the value that was to be stored and not of the import as a whole.
pub(super) fn concerns_one(error: &CliError) -> bool {
    matches!(error.code.as_deref(), Some("duplicate" | "refused" | "invalid" | "conflict" | "too_large"))
}

/// Says what to do about what was refused, each thing once.
pub(super) fn say_hints<'a>(context: &Context, hints: impl Iterator<Item = &'a str>) {
    let hints: BTreeSet<&str> = hints.collect();
    for text in hints {
        output::say(&format!("hint: {}", hint::complete(text, &context.global)));
    }
}

fn report(
    context: &Context,
    environment: &Environment,
    lines: &[Line],
    dry_run: bool,
) -> Result<(), CliError> {
    if context.global.format == Format::Json {
        return output::json(&lines.iter().map(line_json).collect::<Vec<_>>());
    }
    output::table(
        &["variable", "value", "what it is", "becomes"],
        lines.iter().map(|line| line_row(environment, line)),
    );
    let count = |wanted: fn(&Fate) -> bool| lines.iter().filter(|line| wanted(&line.fate)).count();
    let stored = count(|fate| matches!(fate, Fate::Take(_) | Fate::Taken { .. }));
    let unchanged = count(|fate| matches!(fate, Fate::Taken { is_unchanged: true, .. }));
    let refused = count(|fate| matches!(fate, Fate::Refused { .. }));
    let stays = count(|fate| matches!(fate, Fate::Stays(_)));
    let verb = if dry_run { "would be stored" } else { "stored" };
    let unchanged_text = if unchanged > 0 { format!(", {unchanged} unchanged") } else { String::new() };
    output::say(&format!(
        "{} {verb} in {environment}{unchanged_text}, {refused} refused, {stays} stay in the file",
        stored - unchanged
    ));
    let hints = lines.iter().filter_map(|line| match &line.fate {
        Fate::Refused { hint, .. } => hint.as_deref(),
        _ => None,
    });
    say_hints(context, hints);
    Ok(())
}

fn line_row(environment: &Environment, line: &Line) -> Vec<String> {
    let place = |target: &Target| {
        let company = target.company.as_ref().map(|company| format!(" ({company})")).unwrap_or_default();
        format!("{environment}/{}#{}{company}", target.path, target.field)
    };
    let (what, becomes) = match &line.fate {
        Fate::Take(target) => (target.what.clone(), place(target)),
        Fate::Taken { target, version, is_unchanged: true, .. } => {
            (target.what.clone(), format!("{} unchanged (version {version})", place(target)))
        }
        Fate::Taken { target, version, note, .. } => {
            let note = note.as_deref().map(|note| format!("; {note}")).unwrap_or_default();
            (target.what.clone(), format!("{} version {version}{note}", place(target)))
        }
        Fate::Refused { target: Some(target), why, .. } => {
            (target.what.clone(), format!("{} REFUSED: {why}", place(target)))
        }
        Fate::Refused { target: None, why, .. } => ("a secret".to_owned(), format!("REFUSED: {why}")),
        Fate::Stays(why) => (why.clone(), "stays".to_owned()),
    };
    let masked = if matches!(line.fate, Fate::Stays(_)) { String::new() } else { line.masked.clone() };
    vec![line.name.clone(), masked, what, becomes]
}

fn line_json(line: &Line) -> serde_json::Value {
    let (fate, target, why) = match &line.fate {
        Fate::Take(target) => ("would_be_stored", Some(target), None),
        Fate::Taken { target, is_unchanged: true, .. } => ("unchanged", Some(target), None),
        Fate::Taken { target, .. } => ("stored", Some(target), None),
        Fate::Refused { target, why, .. } => ("refused", target.as_ref(), Some(why)),
        Fate::Stays(why) => ("stays", None, Some(why)),
    };
    serde_json::json!({
        "variable": line.name,
        "masked": line.masked,
        "fate": fate,
        "what": target.map(|target| target.what.clone()),
        "path": target.map(|target| target.path.to_string()),
        "field": target.map(|target| target.field.to_string()),
        "company": target.and_then(|target| target.company.as_ref().map(ToString::to_string)),
        "why": why,
    })
}

/// The file's text with references in place of what was taken; everything else byte for byte.
fn rewrite(
    environment: &Environment,
    text: &str,
    file: &EnvFile,
    lines: &[Line],
) -> Result<String, CliError> {
    let mut rewritten = text.to_owned();
    let wrong = |e: keymoat_core::dotenv::EnvError| CliError::new(format!("cannot rewrite the file: {e}"));
    for line in lines.iter().rev() {
        let Fate::Taken { target, .. } = &line.fate else { continue };
        let reference = Reference::absolute(
            environment.clone(),
            target.company.clone(),
            target.path.clone(),
            Some(target.field.clone()),
        );
        // Later entries were replaced first, so that the places of earlier ones still hold.
        let current = EnvFile::parse(&rewritten, &EnvLimits::USUAL).map_err(wrong)?;
        if let Some(new) = current.replace_entry(line.number, &reference.to_string()).map_err(wrong)? {
            rewritten = new;
        }
    }
    debug_assert_eq!(
        EnvFile::parse(&rewritten, &EnvLimits::USUAL).map(|new| new.entries().len()).ok(),
        Some(file.entries().len()),
        "a rewrite keeps every variable"
    );
    Ok(rewritten)
}

/// Shows what changes, with the values of the old lines masked.
fn show_diff(name: String, file: &EnvFile, lines: &[Line], old: &str, new: &str) {
    let masked = mask_entries(file, lines, old);
    output::say(&format!("--- {name}\n+++ {name}"));
    let diff = TextDiff::from_lines(masked.as_str(), new);
    for change in diff.iter_all_changes() {
        let (sign, color) = match change.tag() {
            ChangeTag::Delete => ("-", anstyle::AnsiColor::Red),
            ChangeTag::Insert => ("+", anstyle::AnsiColor::Green),
            ChangeTag::Equal => continue,
        };
        let style = anstyle::Style::new().fg_color(Some(color.into()));
        output::say(&format!("{style}{sign}{}{style:#}", change.value().trim_end_matches(['\n', '\r'])));
    }
}

/// The old text with what was taken masked.
fn mask_entries(file: &EnvFile, lines: &[Line], text: &str) -> String {
    let mut masked = text.to_owned();
    for line in lines.iter().rev().filter(|line| line.was_taken()) {
        if let Some(entry) = file.entries().get(line.number) {
            masked.replace_range(entry.span.clone(), &line.masked);
        }
    }
    masked
}

/// Writes a file anew in one step, with its old mode: either the old text stands there or the new one.
fn replace_file(path: &Path, text: &str) -> Result<(), CliError> {
    let wrong = |e: std::io::Error| CliError::file("rewrite", path, &e);
    let real = std::fs::canonicalize(path).map_err(wrong)?;
    let mode = std::fs::metadata(&real).map_err(wrong)?.permissions().mode() & 0o777;
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let new = real.with_file_name(format!(".{name}.keymoat-new"));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &real)?;
        std::fs::File::open(real.parent().unwrap_or(&real))?.sync_all()
    };
    write().map_err(|error| {
        // Best effort: the old file stands in any case.
        let _ = std::fs::remove_file(&new);
        wrong(error)
    })
}

fn context_free_name(path: &Path) -> String {
    output::printable(&path.display().to_string())
}
