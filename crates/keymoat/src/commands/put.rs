//! `keymoat put` and `keymoat annotate`.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use http::Method;
use keymoat_core::names::Field;
use keymoat_crypto::SecretBytes;
use keymoat_detect::Catalogue;
use keymoat_server::wire::{self, PutSecret, Value, WireSecret, Written};

use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, master_key, prompt};

/// Flags of `put`.
#[derive(Debug, Clone, Args)]
pub struct Put {
    /// Path of the secret.
    path: keymoat_core::names::SecretPath,
    /// FIELD=- from stdin, FIELD=@FILE from a file, FIELD alone asks; without a field the whole value is asked for or
    /// read from stdin with `-`, from a file with @FILE.
    values: Vec<String>,
    /// The value given whole is a JSON object.
    #[arg(long, conflicts_with = "bytes")]
    json: bool,
    /// The value given whole is bytes.
    #[arg(long)]
    bytes: bool,
    /// Replace the whole stored value instead of setting fields of it.
    #[arg(long)]
    replace: bool,
    /// Write only if this version is current; 0 for a secret that is not there yet.
    #[arg(long, value_name = "VERSION")]
    cas: Option<u32>,
    /// Make the version only `pending`, so that nobody reads it yet.
    #[arg(long)]
    pending: bool,
    /// Store a key that another environment has too, and say why.
    #[arg(long, value_name = "REASON")]
    allow_duplicate: Option<String>,
    /// Store an empty value without asking.
    #[arg(long)]
    allow_empty: bool,
    #[command(flatten)]
    about: About,
}

/// Flags of `annotate`.
#[derive(Debug, Clone, Args)]
pub struct Annotate {
    /// Path of the secret.
    path: keymoat_core::names::SecretPath,
    #[command(flatten)]
    about: About,
}

/// What can be said about a secret.
#[derive(Debug, Clone, Args)]
pub struct About {
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Who answers for it.
    #[arg(long, value_name = "WHO")]
    owner: Option<String>,
    /// A tag to add.
    #[arg(long = "tag", value_name = "NAME=VALUE")]
    tags: Vec<String>,
    /// When it stops being valid (RFC 3339); `never` takes the date away.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// What an environment variable may do: stand in for it, stand in with a warning, or nothing.
    #[arg(long, value_name = "allow|warn|deny")]
    env_override: Option<String>,
    /// Every write must say which version it follows.
    #[arg(long, value_name = "true|false")]
    cas_required: Option<bool>,
    /// Versions kept.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=VERSIONS_MAX))]
    max_versions: Option<u32>,
}

impl Put {
    /// Stores a value.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let environment = context.environment()?;
        let company = context.company()?;
        let value = self.value(context.catalogue()?.as_ref())?;
        let has_empty = has_empty(&value);
        if has_empty && !self.allow_empty && !prompt::confirm("The value is empty. Store it all the same?") {
            return Err(CliError::new(format!(
                "the value for `{}` is empty, and nothing was stored",
                self.path
            ))
            .hint("did the program that was to write it fail? --allow-empty stores an empty value")
            .exit(REFUSED));
        }
        let body = PutSecret {
            value,
            replace: self.replace,
            cas: self.cas,
            pending: self.pending,
            allow_duplicate: self.allow_duplicate.clone(),
            import: false,
            allow_empty: has_empty || self.allow_empty,
            about: self.about.to_wire()?,
        };
        super::with_client(context, async |client: &Client| {
            let url = super::secret_url("secrets", &environment, company.as_ref(), &self.path, &[]);
            let written: Written = client.call(Method::PUT, &url, Some(&body)).await?;
            if context.global.format == Format::Json {
                output::json(&written)?;
            } else {
                let label = if self.pending { "pending" } else { "current" };
                output::line(&format!("{environment}/{} version {} is {label}", self.path, written.version));
            }
            for place in &written.also_at {
                output::warn(&format!("the same value is also stored at {place}"));
            }
            Ok(0)
        })
        .await
    }

    fn value(&self, catalogue: &Catalogue) -> Result<Value, CliError> {
        match self.values.as_slice() {
            [] => self.whole(prompt::value(&format!("Value of {}", self.path))?),
            [one] if one == "-" && self.bytes => self.whole(prompt::bytes_from_stdin()?),
            [one] if one == "-" => self.whole(prompt::secret_from_stdin()?),
            [one] if one.starts_with('@') && self.bytes => {
                self.whole(master_key::read_secret_bytes(Path::new(&one[1..]))?)
            }
            [one] if one.starts_with('@') => self.whole(master_key::read_secret_file(Path::new(&one[1..]))?),
            some => {
                let mut fields = BTreeMap::new();
                for text in some {
                    let (field, value) = field_value(catalogue, text)?;
                    let value = prompt::text_only(value, &format!("{}#{field}", self.path))?;
                    if fields.insert(field.to_string(), WireSecret(value)).is_some() {
                        return Err(CliError::new(format!("the field `{field}` stands there twice")));
                    }
                }
                Ok(Value::Fields(fields))
            }
        }
    }

    fn whole(&self, value: SecretBytes) -> Result<Value, CliError> {
        Ok(match (self.json, self.bytes) {
            (true, _) => Value::Json(WireSecret(value)),
            (_, true) => Value::Base64(WireSecret(base64(&value))),
            _ => Value::Text(WireSecret(prompt::text_only(value, self.path.as_str())?)),
        })
    }
}

impl Annotate {
    /// Changes what is said about a secret.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let environment = context.environment()?;
        let company = context.company()?;
        let body = self.about.to_wire()?;
        super::with_client(context, async |client: &Client| {
            let url = super::secret_url("secrets", &environment, company.as_ref(), &self.path, &[]);
            let secret: wire::Secret = client.call(Method::PATCH, &url, Some(&body)).await?;
            super::get::show(context, &secret)
        })
        .await
    }
}

impl About {
    fn to_wire(&self) -> Result<wire::Annotate, CliError> {
        let mut add_tags = BTreeMap::new();
        for tag in &self.tags {
            let (name, value) =
                tag.split_once('=').ok_or_else(|| CliError::new("a tag is written NAME=VALUE"))?;
            add_tags.insert(name.to_owned(), value.to_owned());
        }
        let expires_at =
            self.expires.as_deref().map(|text| if text == "never" { String::new() } else { text.to_owned() });
        Ok(wire::Annotate {
            description: self.description.clone(),
            owner: self.owner.clone(),
            tags: None,
            add_tags,
            expires_at,
            env_override: self.env_override.clone(),
            cas_required: self.cas_required,
            max_versions: self.max_versions,
        })
    }
}

/// `FIELD`, `FIELD=-`, `FIELD=@FILE` or, with a warning, `FIELD=VALUE`.
fn field_value(catalogue: &Catalogue, text: &str) -> Result<(Field, SecretBytes), CliError> {
    let Some((field, source)) = text.split_once('=') else {
        let field = named_field(catalogue, text)?;
        let value = prompt::value(&format!("Value of {field}"))?;
        return Ok((field, value));
    };
    let field: Field = field.parse()?;
    let value = match source {
        "-" => prompt::secret_from_stdin()?,
        file if file.starts_with('@') => master_key::read_secret_file(Path::new(&file[1..]))?,
        value => {
            output::warn(&format!(
                "the value of `{field}` stood on the command line, where other programs and the shell's history see it; next time write `{field}=-`"
            ));
            SecretBytes::from_slice(value.as_bytes())
        }
    };
    Ok((field, value))
}

/// A field that stands alone. What cannot be a field's name, or is a key, was meant as the value; it is not repeated.
fn named_field(catalogue: &Catalogue, text: &str) -> Result<Field, CliError> {
    if !catalogue.is_fingerprintable(text.as_bytes())
        && let Ok(field) = text.parse::<Field>()
    {
        return Ok(field);
    }
    Err(CliError::new("what stands behind the path looks like a value, and nothing was stored")
        .hint("other programs and the shell's history may have seen it: change it at its provider; then `keymoat put PATH FIELD` asks for it, and `keymoat put PATH FIELD=-` reads it from stdin"))
}

/// Whether a value, or one of its fields, is empty.
fn has_empty(value: &Value) -> bool {
    match value {
        Value::Text(value) | Value::Json(value) | Value::Base64(value) => value.0.is_empty(),
        Value::Fields(fields) => fields.values().any(|value| value.0.is_empty()),
    }
}

fn base64(value: &SecretBytes) -> SecretBytes {
    use base64::Engine as _;
    // EXPOSE: bytes travel as text; the text is a secret again at once.
    value.expose(|bytes| {
        SecretBytes::new(base64::engine::general_purpose::STANDARD.encode(bytes).into_bytes())
    })
}

/// As many as a secret keeps.
const VERSIONS_MAX: i64 = keymoat_core::secret::MAX_VERSIONS_KEPT as i64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_the_place_of_a_field_is_not_repeated() {
        #[track_caller]
        fn check(text: &str, is_field: bool) {
            match (named_field(Catalogue::builtin(), text), is_field) {
                (Ok(field), true) => assert_eq!(field.as_str(), text),
                (Err(error), false) => {
                    let said = format!("{error} {}", error.hint.clone().unwrap_or_default());
                    assert!(!said.contains(text) && said.contains("nothing was stored"), "{said}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        check("secret_key", true);
        check("token", true);
        check("a", true);
        check("sk_live_51MadeUpExample0000KeymoatShop", false);
        check("0000b1c2d3e4f5061728394a5b6c7d8e", false);
        check("made up pass word", false);
        check("p@ssw0rd!", false);
        check("-----BEGIN", false);
    }
}
