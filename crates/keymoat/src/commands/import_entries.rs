//! `keymoat import json` and `import fernet`: lists of `PATH` or `PATH#FIELD` with their values.
//!
//! A list is read to its end and checked before the first value is stored. A name that stands twice is refused: nobody
//! can say which of the two was meant.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use keymoat_core::names::{Field, SecretPath};
use keymoat_crypto::{FernetKey, SecretBytes};
use keymoat_server::wire::{Annotate, PutSecret, Value, WireSecret, Written};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::PathAndField;
use super::import::{concerns_one, say_hints};
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, master_key, prompt};

/// Flags of `import json`.
#[derive(Debug, Clone, Args)]
pub struct Json {
    /// The file; `-` for stdin.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    allow: Allow,
}

/// Flags of `import fernet`.
#[derive(Debug, Clone, Args)]
pub struct Fernet {
    /// The file of tokens; `-` for stdin.
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// The file that holds the Fernet key (what was in ENCRYPTION_KEY); asked for when left out.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    allow: Allow,
}

/// What is taken although it is usually a mistake.
#[derive(Debug, Clone, Args)]
struct Allow {
    /// Take keys that another environment has too, and say why.
    #[arg(long, value_name = "REASON")]
    allow_duplicate: Option<String>,
    /// Let an empty value take the place of one that is not.
    #[arg(long)]
    allow_empty: bool,
}

impl Json {
    /// Takes in a JSON object.
    ///
    /// # Errors
    /// When it cannot be read, or what the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let values = values_of(entries(&read(&self.file)?)?)?;
        store(context, values, &self.allow).await
    }
}

impl Fernet {
    /// Takes in a JSON object of Fernet tokens.
    ///
    /// # Errors
    /// When it or the key cannot be read, a token does not open, or what the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let key = match &self.key_file {
            Some(path) => master_key::read_secret_file(path)?,
            None => prompt::secret_or("Fernet key (ENCRYPTION_KEY)", "name its file with --key-file")?,
        };
        let key = FernetKey::parse(&key)
            .map_err(|e| CliError::new(format!("the Fernet key cannot be used: {e}")))?;
        let mut opened = entries(&read(&self.file)?)?;
        for entry in &mut opened {
            entry.value = key.decrypt(&entry.value).map_err(|e| {
                CliError::new(format!("`{}`: {e}", entry.place()))
                    .hint("nothing was stored; is it the key that these were encrypted with?")
            })?;
        }
        store(context, values_of(opened)?, &self.allow).await
    }
}

/// What became of a path.
enum Fate {
    Stored { version: u32 },
    Unchanged { version: u32 },
    Refused { why: String, hint: Option<String> },
}

/// Stores the value of each path; one that is refused does not keep the others out.
async fn store(context: &Context, values: Vec<(SecretPath, Value)>, allow: &Allow) -> Result<u8, CliError> {
    let environment = context.environment()?;
    let company = context.company()?;
    let fates = super::with_client(context, async |client: &Client| {
        let mut fates = Vec::new();
        for (path, value) in values {
            let url = super::secret_url("secrets", &environment, company.as_ref(), &path, &[]);
            let written = client.call::<_, Written>(Method::PUT, &url, Some(&allow.body(value))).await;
            fates.push((path, fate_of(written)?));
        }
        Ok(fates)
    })
    .await?;
    let refused = fates.iter().any(|(_, fate)| matches!(fate, Fate::Refused { .. }));
    tell(context, environment.as_str(), &fates)?;
    Ok(if refused { REFUSED } else { 0 })
}

impl Allow {
    fn body(&self, value: Value) -> PutSecret {
        PutSecret {
            value,
            replace: false,
            cas: None,
            pending: false,
            allow_duplicate: self.allow_duplicate.clone(),
            import: true,
            allow_empty: self.allow_empty,
            about: Annotate::default(),
        }
    }
}

fn fate_of(written: Result<Written, CliError>) -> Result<Fate, CliError> {
    match written {
        Ok(Written { version, unchanged: true, .. }) => Ok(Fate::Unchanged { version }),
        Ok(Written { version, .. }) => Ok(Fate::Stored { version }),
        Err(error) if concerns_one(&error) => Ok(Fate::Refused { why: error.message, hint: error.hint }),
        Err(error) => Err(error),
    }
}

fn tell(context: &Context, environment: &str, fates: &[(SecretPath, Fate)]) -> Result<(), CliError> {
    if context.global.format == Format::Json {
        return output::json(&fates.iter().map(fate_json).collect::<Vec<_>>());
    }
    for (path, fate) in fates {
        output::line(&match fate {
            Fate::Stored { version } => format!("{environment}/{path} version {version}"),
            Fate::Unchanged { version } => format!("{environment}/{path} unchanged (version {version})"),
            Fate::Refused { why, .. } => format!("{environment}/{path} REFUSED: {}", output::printable(why)),
        });
    }
    let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|(_, fate)| wanted(fate)).count();
    let unchanged = match count(|fate| matches!(fate, Fate::Unchanged { .. })) {
        0 => String::new(),
        some => format!(", {some} unchanged"),
    };
    output::say(&format!(
        "{} stored in {environment}{unchanged}, {} refused",
        count(|fate| matches!(fate, Fate::Stored { .. })),
        count(|fate| matches!(fate, Fate::Refused { .. }))
    ));
    let hints = fates.iter().filter_map(|(_, fate)| match fate {
        Fate::Refused { hint, .. } => hint.as_deref(),
        _ => None,
    });
    say_hints(context, hints);
    Ok(())
}

fn fate_json((path, fate): &(SecretPath, Fate)) -> serde_json::Value {
    let (word, version, why) = match fate {
        Fate::Stored { version } => ("stored", Some(version), None),
        Fate::Unchanged { version } => ("unchanged", Some(version), None),
        Fate::Refused { why, .. } => ("refused", None, Some(why)),
    };
    serde_json::json!({ "path": path.to_string(), "fate": word, "version": version, "why": why })
}

/// One value of a list, with where it stands there.
struct Entry {
    path: SecretPath,
    field: Option<Field>,
    stands: String,
    value: SecretBytes,
}

impl Entry {
    fn place(&self) -> String {
        match &self.field {
            Some(field) => format!("{}#{field}", self.path),
            None => self.path.to_string(),
        }
    }
}

/// `{"path": "value", "path#field": "value", "path": {"field": "value"}}` as a flat list in which nothing stands twice.
fn entries(text: &SecretBytes) -> Result<Vec<Entry>, CliError> {
    // EXPOSE: the values are taken apart; each goes back into the secret type.
    let entries = text.expose(|bytes| {
        let object: Pairs = serde_json::from_slice(bytes).map_err(|e| {
            CliError::new(format!(
                "this is not a JSON object of paths (line {}, column {})",
                e.line(),
                e.column()
            ))
            .hint("write `{\"PATH\": \"value\", \"PATH\": {\"FIELD\": \"value\"}}`; nothing was stored")
        })?;
        let mut entries = Vec::new();
        for (number, (name, value)) in (1..).zip(&object.0) {
            add(&mut entries, &format!("entry {number}"), name, value.get())?;
        }
        Ok::<_, CliError>(entries)
    })?;
    check_once(&entries)?;
    Ok(entries)
}

/// Adds what stands under one name: a value, or an object of fields.
fn add(entries: &mut Vec<Entry>, stands: &str, name: &str, value: &str) -> Result<(), CliError> {
    let wrong = |why: String| CliError::new(format!("{stands}: {why}")).hint("nothing was stored");
    let place: PathAndField = name.parse().map_err(wrong)?;
    if let Ok(text) = serde_json::from_str::<String>(value) {
        let (path, field) = (place.path, place.field);
        entries.push(Entry { path, field, stands: stands.to_owned(), value: secret(text) });
        return Ok(());
    }
    let fields: Pairs = serde_json::from_str(value)
        .map_err(|_| wrong(format!("`{name}` is neither text nor an object of fields")))?;
    if place.field.is_some() {
        return Err(wrong(format!("`{name}` names a field already, so it holds a text and no fields")));
    }
    for (number, (field, value)) in (1..).zip(&fields.0) {
        let stands = format!("name {number} in {stands}");
        let wrong = |why: String| CliError::new(format!("{stands}: {why}")).hint("nothing was stored");
        let field: Field = field.parse().map_err(|e: keymoat_core::names::NameError| wrong(e.to_string()))?;
        let text = field_text(value.get())
            .map_err(|why| wrong(format!("`{place_path}#{field}` {why}", place_path = place.path)))?;
        entries.push(Entry { path: place.path.clone(), field: Some(field), stands, value: secret(text) });
    }
    Ok(())
}

/// A field's value as text: a text itself, anything else as JSON.
fn field_text(value: &str) -> Result<String, String> {
    // Reading it as a whole bounds its depth, so that looking into it ends.
    let parsed: serde_json::Value =
        serde_json::from_str(value).map_err(|_| "is nested too deeply".to_owned())?;
    if let Some(name) = name_twice(value) {
        return Err(format!("holds the name `{}` twice", output::printable(&name)));
    }
    Ok(match parsed {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    })
}

/// A name that stands twice in an object somewhere in a JSON text.
fn name_twice(value: &str) -> Option<String> {
    if let Ok(items) = serde_json::from_str::<Vec<Box<RawValue>>>(value) {
        return items.iter().find_map(|item| name_twice(item.get()));
    }
    let object = serde_json::from_str::<Pairs>(value).ok()?;
    let mut seen = std::collections::BTreeSet::new();
    object.0.iter().find_map(|(name, value)| match seen.insert(name) {
        true => name_twice(value.get()),
        false => Some(name.clone()),
    })
}

/// An object as the list that it is, so that a name that stands twice is seen.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(List)
    }
}

/// Refuses a place that stands twice, and a path that stands there whole and with fields.
fn check_once(entries: &[Entry]) -> Result<(), CliError> {
    let mut seen: BTreeMap<(&SecretPath, Option<&Field>), &Entry> = BTreeMap::new();
    for entry in entries {
        if let Some(first) = seen.insert((&entry.path, entry.field.as_ref()), entry) {
            let message =
                format!("`{}` stands there twice: {} and {}", entry.place(), first.stands, entry.stands);
            return Err(CliError::new(message).hint("keep one of them; nothing was stored"));
        }
    }
    for entry in entries.iter().filter(|entry| entry.field.is_some()) {
        if let Some(whole) = seen.get(&(&entry.path, None)) {
            let message = format!(
                "`{}` stands there both whole ({}) and with fields ({})",
                entry.path, whole.stands, entry.stands
            );
            return Err(CliError::new(message).hint("keep one of them; nothing was stored"));
        }
    }
    Ok(())
}

/// The value of each path, its fields together.
fn values_of(entries: Vec<Entry>) -> Result<Vec<(SecretPath, Value)>, CliError> {
    let mut values: BTreeMap<SecretPath, Value> = BTreeMap::new();
    for Entry { path, field, value, .. } in entries {
        let value = WireSecret(crate::prompt::text_only(value, path.as_str())?);
        match field {
            None => drop(values.insert(path, Value::Text(value))),
            Some(field) => match values.entry(path).or_insert_with(|| Value::Fields(BTreeMap::new())) {
                Value::Fields(fields) => drop(fields.insert(field.to_string(), value)),
                Value::Text(_) | Value::Json(_) | Value::Base64(_) => {}
            },
        }
    }
    Ok(values.into_iter().collect())
}

fn read(path: &Path) -> Result<SecretBytes, CliError> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().take(IMPORT_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|e| CliError::new(format!("cannot read stdin: {e}")))?;
        return Ok(SecretBytes::new(bytes));
    }
    let size = std::fs::metadata(path).map_err(|e| CliError::file("read", path, &e))?.len();
    if size > IMPORT_BYTES_MAX {
        return Err(CliError::new(format!("`{}` is too large ({size} bytes)", path.display()))
            .hint("split it into several files"));
    }
    Ok(SecretBytes::new(std::fs::read(path).map_err(|e| CliError::file("read", path, &e))?))
}

fn secret(text: String) -> SecretBytes {
    SecretBytes::new(text.into_bytes())
}

/// A hundred times what a company's keys take.
const IMPORT_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_what_is_wrong_with_them() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, &str>) {
            let read = entries(&SecretBytes::from_slice(text.as_bytes()));
            match (read, expected) {
                (Ok(entries), Ok(places)) => {
                    let found: Vec<String> = entries.iter().map(Entry::place).collect();
                    assert_eq!(found.join(" "), places, "{text}");
                }
                (Err(error), Err(says)) => {
                    assert!(error.message.contains(says), "{text}: {error}");
                    assert!(!error.message.contains("hush"), "{text}: {error}");
                    assert!(error.hint.is_some_and(|hint| hint.contains("nothing was stored")), "{text}");
                }
                (read, _) => panic!("{text}: {:?}", read.map(|entries| entries.len())),
            }
        }
        check("{}", Ok(""));
        check(
            r#"{"a":"hush","b":{"x":"hush","y":1,"z":[true,{"q":null}]},"c#k":"hush"}"#,
            Ok("a b#x b#y b#z c#k"),
        );
        check(r#"{"a":"hush","a":"hush2"}"#, Err("`a` stands there twice: entry 1 and entry 2"));
        check(
            r#"{"a":{"x":"hush","x":"2"}}"#,
            Err("`a#x` stands there twice: name 1 in entry 1 and name 2 in entry 1"),
        );
        check(r#"{"a#x":"hush","b":"2","a":{"x":"1"}}"#, Err("entry 1 and name 1 in entry 3"));
        check(r#"{"a":{"x":"1"},"a":{"y":"hush"}}"#, Ok("a#x a#y"));
        check(r#"{"a":{"x":{"n":"hush","n":2}}}"#, Err("`a#x` holds the name `n` twice"));
        check(r#"{"a":{"x":[[{"n":"hush","n":2}]]}}"#, Err("holds the name `n` twice"));
        check(r#"{"a":"hush","a#x":"2"}"#, Err("both whole (entry 1) and with fields (entry 2)"));
        check(r#"{"a#x":{"y":"hush"}}"#, Err("names a field already"));
        check(r#"{"a":["hush"]}"#, Err("neither text nor an object"));
        check(r#"{"a":12}"#, Err("neither text nor an object"));
        check(r#"{"A":"hush"}"#, Err("entry 1: path `A`"));
        check(r#"["hush"]"#, Err("not a JSON object of paths (line 1"));
        check(r#"{"a":"hush"#, Err("not a JSON object of paths"));
        check("", Err("not a JSON object of paths"));
        let deep = format!(r#"{{"a":{{"x":{}1{}}}}}"#, "[".repeat(5000), "]".repeat(5000));
        check(&deep, Err("nested too deeply"));
    }
}
