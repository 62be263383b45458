//! `keymoat list`.

use clap::Args;
use keymoat_core::names::{Company, Environment, SecretPath};
use keymoat_server::wire::{Secret, SecretPage};

use crate::Context;
use crate::client::{Client, query};
use crate::error::CliError;
use crate::output::{self, Format};

/// Flags of `list`.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only secrets at or below this path.
    prefix: Option<SecretPath>,
}

impl List {
    /// Lists secrets.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let environment = context.environment()?;
        let company = context.company()?;
        let secrets = super::with_client(context, async |client: &Client| {
            all(client, &environment, company.as_ref(), self.prefix.as_ref()).await
        })
        .await?;
        if context.global.format == Format::Json {
            output::json(&secrets)?;
            return Ok(0);
        }
        if secrets.is_empty() {
            output::say(&format!("nothing is stored in `{environment}` that you may see"));
            return Ok(0);
        }
        output::table(
            &["path", "company", "version", "fields", "provider", "expires"],
            secrets.iter().map(row),
        );
        let unseen = secrets.iter().filter(|secret| secret.names_only).count();
        if unseen > 0 {
            output::say(&format!("{unseen} of {} by name only: you may not `inspect` them", secrets.len()));
        }
        Ok(0)
    }
}

/// Every secret of an environment that the caller may see, page by page.
///
/// # Errors
/// What the vault says.
pub async fn all(
    client: &Client,
    environment: &Environment,
    company: Option<&Company>,
    prefix: Option<&SecretPath>,
) -> Result<Vec<Secret>, CliError> {
    let mut secrets: Vec<Secret> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let url = format!(
            "/api/v1/secrets{}",
            query(&[
                ("environment", Some(environment.as_str())),
                ("company", company.map(Company::as_str)),
                ("prefix", prefix.map(SecretPath::as_str)),
                ("limit", Some("1000")),
                ("cursor", cursor.as_deref()),
            ])
        );
        let page: SecretPage = client.get(&url).await?;
        secrets.extend(page.secrets);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(secrets);
        }
    }
}

fn row(secret: &Secret) -> Vec<String> {
    let current = secret.versions.iter().find(|version| Some(version.number) == secret.current);
    let fields = current.map(|version| version.fields.as_slice()).unwrap_or_default();
    let names: Vec<&str> = fields.iter().filter_map(|field| field.field.as_deref()).collect();
    let mut providers: Vec<String> = fields
        .iter()
        .filter_map(|field| {
            let mode = field.mode.as_deref().filter(|mode| *mode != "any");
            let provider = field.provider.as_deref()?;
            Some(mode.map_or_else(|| provider.to_owned(), |mode| format!("{provider} {mode}")))
        })
        .collect();
    providers.dedup();
    vec![
        secret.path.clone(),
        secret.company.clone().unwrap_or_default(),
        secret.current.map(|version| version.to_string()).unwrap_or_else(|| "-".to_owned()),
        names.join(", "),
        providers.join(", "),
        secret.expires_at.map(super::time_text).unwrap_or_default(),
    ]
}
