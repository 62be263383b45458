//! `keymoat get` and `keymoat history`.

use clap::Args;
use keymoat_core::names::SecretPath;
use keymoat_server::wire::{MaskedField, Secret, Version};

use crate::Context;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Format};

/// Flags of `get`.
#[derive(Debug, Clone, Args)]
pub struct Get {
    /// Path of the secret.
    path: SecretPath,
}

/// Flags of `history`.
#[derive(Debug, Clone, Args)]
pub struct History {
    /// Path of the secret.
    path: SecretPath,
}

impl Get {
    /// Shows a secret, masked.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let secret = fetch(context, &self.path).await?;
        show(context, &secret)
    }
}

impl History {
    /// Shows a secret's versions.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let secret = fetch(context, &self.path).await?;
        if context.global.format == Format::Json {
            output::json(&secret.versions)?;
            return Ok(0);
        }
        let rows = secret.versions.iter().rev().map(|version| {
            let labels: Vec<&str> = secret
                .labels
                .iter()
                .filter(|(_, at)| **at == version.number)
                .map(|(label, _)| label.as_str())
                .collect();
            vec![
                version.number.to_string(),
                labels.join(", "),
                super::time_text(version.created_at),
                version.created_by.clone(),
                state_of(version),
                fields_text(&version.fields),
            ]
        });
        output::table(&["version", "labels", "written", "by", "state", "value"], rows);
        Ok(0)
    }
}

/// Prints a secret.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn show(context: &Context, secret: &Secret) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(secret)?;
        return Ok(0);
    }
    if secret.names_only {
        let version =
            secret.current.map_or_else(|| "no version can be read".to_owned(), |n| format!("version {n}"));
        output::line(&format!("{}/{} {version}; you may not `inspect` it", secret.environment, secret.path));
        return Ok(0);
    }
    let company = secret.company.as_deref().map(|name| format!(" (company {name})")).unwrap_or_default();
    output::line(&format!("{}/{}{company}", secret.environment, secret.path));
    let said = [
        ("for", secret.description.clone()),
        ("owner", secret.owner.clone()),
        ("expires", secret.expires_at.map(super::time_text).unwrap_or_default()),
        (
            "tags",
            secret.tags.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "),
        ),
    ];
    for (what, text) in said.iter().filter(|(_, text)| !text.is_empty()) {
        output::line(&format!("  {what:<9} {}", output::printable(text)));
    }
    let Some(current) = secret.versions.iter().find(|version| Some(version.number) == secret.current) else {
        output::line("  no version can be read");
        return Ok(0);
    };
    output::line(&format!(
        "  version   {}, written {} by {}",
        current.number,
        super::time_text(current.created_at),
        output::printable(&current.created_by)
    ));
    for field in &current.fields {
        output::line(&format!("  {}", field_text(field)));
    }
    Ok(0)
}

async fn fetch(context: &Context, path: &SecretPath) -> Result<Secret, CliError> {
    let environment = context.environment()?;
    let company = context.company()?;
    super::with_client(context, async |client: &Client| {
        client.get(&super::secret_url("secrets", &environment, company.as_ref(), path, &[])).await
    })
    .await
}

fn state_of(version: &Version) -> String {
    match (version.destroyed_at, version.deleted_at) {
        (Some(time), _) => format!("destroyed {}", super::time_text(time)),
        (None, Some(time)) => format!("deleted {}", super::time_text(time)),
        (None, None) => String::new(),
    }
}

fn fields_text(fields: &[MaskedField]) -> String {
    fields
        .iter()
        .map(|field| match &field.field {
            Some(name) => format!("{name}={}", field.masked),
            None => field.masked.clone(),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn field_text(field: &MaskedField) -> String {
    let name = field.field.as_deref().unwrap_or("value");
    let known: Vec<&str> = [&field.provider, &field.key_kind, &field.mode]
        .into_iter()
        .filter_map(|word| word.as_deref())
        .filter(|word| *word != "any")
        .collect();
    format!("{name:<24} {:<24} {}", output::printable(&field.masked), known.join(" "))
}
