//! `keymoat export`: the current values of an environment, in the clear, in a form that `keymoat import` reads.
//!
//! Every value is revealed through the API and so on record. What may not be revealed is left out and said. A value
//! that refers to another secret is written as it stands, as a reference.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use keymoat_core::dotenv::{EnvFile, EnvLimits};
use keymoat_core::names::{Company, Environment, SecretPath, VariableName};
use keymoat_crypto::SecretBytes;
use keymoat_server::wire::{Reveal, Revealed, Secret, Value};

use super::private_file::PrivateFile;
use crate::Context;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output;

/// Forms of an export.
#[derive(Debug, Clone, Subcommand)]
pub enum Export {
    /// As variables, one a line.
    Dotenv(What),
    /// As a JSON object of paths.
    Json(What),
}

/// Flags of `export`.
#[derive(Debug, Clone, Args)]
pub struct What {
    /// Only secrets at or below this path.
    #[arg(long, value_name = "PATH")]
    prefix: Option<SecretPath>,
    /// The file to write, readable by you alone; stdout when left out.
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Write over a file that is there.
    #[arg(long, requires = "output")]
    replace: bool,
    /// Write values to the terminal all the same.
    #[arg(long)]
    yes: bool,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

impl Export {
    /// Writes values out.
    ///
    /// # Errors
    /// When they would land on a terminal unasked; what the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let (Export::Dotenv(what) | Export::Json(what)) = self;
        if what.output.is_none() && !what.yes && std::io::stdout().is_terminal() {
            return Err(CliError::new("an export holds keys in the clear, and stdout is a terminal")
                .hint("write it to a file with --output FILE, or say --yes"));
        }
        if let Some(path) = what.output.as_ref().filter(|path| path.exists() && !what.replace) {
            return Err(CliError::new(format!("`{}` is there already", path.display()))
                .hint("name another file, or say --replace to write over it")
                .exit(REFUSED));
        }
        let (environment, company) = (context.environment()?, context.company()?);
        let gathered = super::with_client(context, async |client: &Client| {
            gather(client, what, &environment, company.as_ref()).await
        })
        .await?;
        let text = match self {
            Export::Dotenv(_) => dotenv(&gathered.values)?,
            Export::Json(_) => json(&gathered.values)?,
        };
        what.write(&text)?;
        what.tell(&environment, &gathered);
        Ok(if gathered.refused.is_empty() { 0 } else { REFUSED })
    }
}

impl What {
    fn write(&self, text: &SecretBytes) -> Result<(), CliError> {
        // EXPOSE: the caller asked for the values in the clear, and each of them is on record.
        text.expose(|bytes| match &self.output {
            None => {
                output::bytes(bytes);
                Ok(())
            }
            Some(path) => {
                let mut file = PrivateFile::create(path)?;
                file.write(bytes)?;
                file.finish()
            }
        })
    }

    fn tell(&self, environment: &Environment, gathered: &Gathered) {
        for (path, why) in &gathered.refused {
            output::warn(&format!("{environment}/{path} is left out: {}", output::printable(why)));
        }
        let place = self.output.as_ref().map(|path| format!(" to `{}`", path.display())).unwrap_or_default();
        output::say(&format!("wrote {} secret(s) of {environment}{place}", gathered.values.len()));
        if !gathered.values.is_empty() {
            output::warn("these are keys in the clear; remove the copy as soon as it has served");
        }
    }
}

/// What an export holds, and what it lacks.
struct Gathered {
    values: Vec<Found>,
    refused: Vec<(String, String)>,
}

/// A secret with its current value.
struct Found {
    secret: Secret,
    value: Value,
}

async fn gather(
    client: &Client,
    what: &What,
    environment: &Environment,
    company: Option<&Company>,
) -> Result<Gathered, CliError> {
    let mut gathered = Gathered { values: Vec::new(), refused: Vec::new() };
    let why = what.why.clone().or_else(|| Some("export".to_owned()));
    for secret in super::list::all(client, environment, company, what.prefix.as_ref()).await? {
        // Without a company only what all share is wanted: one file cannot hold several companies' values of a name.
        if secret.current.is_none() || secret.company.as_deref() != company.map(Company::as_str) {
            continue;
        }
        let path: SecretPath = secret.path.parse()?;
        let url = super::secret_url("reveal", environment, company, &path, &[]);
        let body = Reveal { why: why.clone(), ..Reveal::default() };
        match client.call::<_, Revealed>(Method::POST, &url, Some(&body)).await {
            Ok(revealed) => gathered.values.push(Found { secret, value: revealed.value }),
            Err(error) if error.code.as_deref() == Some("refused") => {
                gathered.refused.push((secret.path, error.message));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(gathered)
}

/// `{"path": "text", "path": {"field": "value"}}`. Bytes, which JSON does not have, are refused by name.
fn json(values: &[Found]) -> Result<SecretBytes, CliError> {
    let mut object = BTreeMap::new();
    for Found { secret, value } in values {
        let entry = match value {
            Value::Text(text) => raw(text)?,
            Value::Json(text) => {
                // EXPOSE: the object goes into the export as it is.
                let parsed =
                    text.0.expose(|bytes| serde_json::from_slice::<Box<serde_json::value::RawValue>>(bytes));
                parsed.map_err(|_| CliError::new(format!("the value of `{}` is not JSON", secret.path)))?
            }
            Value::Fields(fields) => raw(fields)?,
            Value::Base64(_) => return Err(holds_bytes(&secret.path)),
        };
        object.insert(&secret.path, entry);
    }
    let mut text =
        serde_json::to_vec_pretty(&object).map_err(|e| CliError::new(format!("cannot write JSON: {e}")))?;
    text.push(b'\n');
    Ok(SecretBytes::new(text))
}

fn raw(value: &impl serde::Serialize) -> Result<Box<serde_json::value::RawValue>, CliError> {
    serde_json::value::to_raw_value(value).map_err(|e| CliError::new(format!("cannot write JSON: {e}")))
}

fn holds_bytes(path: &str) -> CliError {
    CliError::new(format!("`{path}` holds bytes, which this form cannot write"))
        .hint(format!("`keymoat reveal {path}` writes them as they are; --prefix leaves it out"))
}

fn dotenv(values: &[Found]) -> Result<SecretBytes, CliError> {
    let mut names = BTreeSet::new();
    let mut text = Vec::new();
    for Found { secret, value } in values {
        if secret.names_only {
            output::warn(&format!(
                "{}/{}: you may not `inspect` it, so its variables are named after path and field",
                secret.environment, secret.path
            ));
        }
        for (field, value) in fields(secret, value)? {
            for name in variables(secret, field.as_deref(), &mut names)? {
                // EXPOSE: the value is written behind its name.
                let line = value.expose(|bytes| env_line(&name, bytes));
                text.extend_from_slice(line?.as_bytes());
                text.push(b'\n');
            }
        }
    }
    Ok(SecretBytes::new(text))
}

/// The fields of a value; a single nameless one for text.
fn fields(secret: &Secret, value: &Value) -> Result<Vec<(Option<String>, SecretBytes)>, CliError> {
    match value {
        Value::Text(text) => Ok(vec![(None, text.0.duplicate())]),
        Value::Base64(_) => Err(holds_bytes(&secret.path)),
        Value::Fields(fields) => {
            Ok(fields.iter().map(|(name, value)| (Some(name.clone()), value.0.duplicate())).collect())
        }
        Value::Json(text) => {
            // EXPOSE: the object is taken apart; each value goes back into the secret type.
            let parsed =
                text.0.expose(|bytes| serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(bytes));
            let parsed =
                parsed.map_err(|_| CliError::new(format!("the value of `{}` is not JSON", secret.path)))?;
            let secret = |value: serde_json::Value| match value {
                serde_json::Value::String(text) => SecretBytes::new(text.into_bytes()),
                other => SecretBytes::new(other.to_string().into_bytes()),
            };
            Ok(parsed.into_iter().map(|(name, value)| (Some(name), secret(value))).collect())
        }
    }
}

/// The variables that a field came from, as its tags say, else one made of path and field. None is given twice.
fn variables(
    secret: &Secret,
    field: Option<&str>,
    taken: &mut BTreeSet<VariableName>,
) -> Result<Vec<VariableName>, CliError> {
    let tagged = secret.tags.iter().filter(|(_, of)| Some(of.as_str()) == field);
    let tagged = tagged.filter_map(|(tag, _)| tag.strip_prefix(VARIABLE_TAG)?.parse::<VariableName>().ok());
    let tagged: Vec<VariableName> = tagged.filter(|name| taken.insert(name.clone())).collect();
    if !tagged.is_empty() {
        return Ok(tagged);
    }
    let made = [Some(secret.path.as_str()), field].into_iter().flatten().collect::<Vec<_>>().join("_");
    let mut name = made.replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_ascii_uppercase();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    let name: VariableName = name.parse()?;
    let name = match &secret.company {
        Some(company) => name.with_company(&company.parse()?)?,
        None => name,
    };
    match taken.insert(name.clone()) {
        true => Ok(vec![name]),
        false => Err(CliError::new(format!("two secrets would both be written as `{name}`"))
            .hint("export JSON, which keeps paths, or a part at a time with --prefix")),
    }
}

/// A line that every reader of `.env` files reads as this value.
fn env_line(name: &VariableName, value: &[u8]) -> Result<String, CliError> {
    let wrong =
        |why: &str| CliError::new(format!("the value of `{name}` cannot stand in a .env file: {why}"));
    let text = std::str::from_utf8(value).map_err(|_| wrong("it is not text"))?;
    let empty = EnvFile::parse(&format!("{name}="), &EnvLimits::USUAL).map_err(|e| wrong(&e.to_string()))?;
    let line = empty.replace_entry(0, text).map_err(|e| wrong(&e.to_string()))?;
    line.ok_or_else(|| wrong("its name cannot be read back"))
}

/// Where an import keeps the names of the variables that it read.
const VARIABLE_TAG: &str = "variable.";

#[cfg(test)]
mod tests {
    use super::*;
    use keymoat_server::wire::WireSecret;
    use proptest::prelude::*;

    fn secret(path: &str, tags: &[(&str, &str)], company: Option<&str>) -> Secret {
        let tags: BTreeMap<&str, &str> = tags.iter().copied().collect();
        serde_json::from_value(serde_json::json!({
            "id": "0", "environment": "dev", "company": company, "path": path, "description": "", "owner": "",
            "tags": tags, "env_override": "warn", "cas_required": false, "max_versions": 20,
            "created_at": "2026-01-01T00:00:00Z", "current": 1, "head": 1, "labels": {}, "versions": [],
        }))
        .unwrap()
    }

    fn text(value: &str) -> WireSecret {
        WireSecret(SecretBytes::from_slice(value.as_bytes()))
    }

    #[test]
    fn names_of_variables() {
        let check = |secret: &Secret, field: Option<&str>, expected: &str| {
            let names = variables(secret, field, &mut BTreeSet::new()).unwrap();
            assert_eq!(names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "), expected);
        };
        let tags = [
            ("variable.STRIPE_API_KEY", "secret_key"),
            ("variable.STRIPE_SECRET_KEY", "secret_key"),
            ("team", "x"),
        ];
        check(&secret("stripe", &tags, None), Some("secret_key"), "STRIPE_API_KEY STRIPE_SECRET_KEY");
        check(&secret("stripe", &tags, None), Some("webhook"), "STRIPE_WEBHOOK");
        check(&secret("db/main", &[], None), Some("password"), "DB_MAIN_PASSWORD");
        check(&secret("db", &[], Some("acme")), Some("password"), "DB_PASSWORD__ACME");
        check(&secret("note.one", &[], None), None, "NOTE_ONE");
        check(&secret("2fa", &[], None), None, "_2FA");
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut taken = BTreeSet::new();
        variables(&secret("a-b", &[], None), None, &mut taken).unwrap();
        assert!(
            variables(&secret("a", &[], None), Some("b"), &mut taken).unwrap_err().message.contains("`A_B`")
        );
    }

    #[test]
    fn json_holds_text_fields_and_objects() {
        let fields = BTreeMap::from([("k".to_owned(), text("v\"1"))]);
        let values = [
            Found { secret: secret("note", &[], None), value: Value::Text(text("made up")) },
            Found { secret: secret("fields", &[], None), value: Value::Fields(fields) },
            Found { secret: secret("object", &[], None), value: Value::Json(text("{\"a\":{\"b\":[1,2]}}")) },
        ];
        let written: serde_json::Value =
            json(&values).unwrap().expose(|bytes| serde_json::from_slice(bytes)).unwrap();
        let expected =
            serde_json::json!({"note": "made up", "fields": {"k": "v\"1"}, "object": {"a": {"b": [1, 2]}}});
        assert_eq!(written, expected);
        let bytes = [Found { secret: secret("bytes", &[], None), value: Value::Base64(text("AA==")) }];
        assert!(json(&bytes).is_err());
        assert!(dotenv(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_the_value_that_it_was_written_from(value in "[^\0]{0,80}") {
            let name: VariableName = "A_KEY".parse().unwrap();
            let line = env_line(&name, value.as_bytes()).unwrap();
            let file = EnvFile::parse(&line, &EnvLimits::USUAL).unwrap();
            prop_assert_eq!(file.entries().len(), 1);
            prop_assert_eq!(file.entries()[0].value.as_str(), value.as_str());
            prop_assert!(!file.entries()[0].interpolates);
        }
    }
}
