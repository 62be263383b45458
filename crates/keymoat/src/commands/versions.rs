//! `keymoat rollback`, `promote`, `label`, `delete`, `undelete`, `destroy`.

use clap::Args;
use http::Method;
use keymoat_core::names::SecretPath;
use keymoat_server::wire::{OneVersion, Secret, SetLabel, SomeVersions};
use serde::Serialize;

use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, prompt};

/// Flags of `rollback`.
#[derive(Debug, Clone, Args)]
pub struct Rollback {
    /// Path of the secret.
    path: SecretPath,
    /// The version that becomes current again.
    #[arg(long, value_name = "N")]
    to: u32,
}

/// Flags of `promote`.
#[derive(Debug, Clone, Args)]
pub struct Promote {
    /// Path of the secret.
    path: SecretPath,
}

/// Flags of `label`.
#[derive(Debug, Clone, Args)]
pub struct Label {
    /// Path of the secret.
    path: SecretPath,
    /// The label.
    label: String,
    /// The version that it points at; left out, the label is taken away.
    version: Option<u32>,
}

/// Flags of `delete`.
#[derive(Debug, Clone, Args)]
pub struct Delete {
    #[command(flatten)]
    which: Which,
}

/// Flags of `undelete`.
#[derive(Debug, Clone, Args)]
pub struct Undelete {
    #[command(flatten)]
    which: Which,
}

/// Flags of `destroy`.
#[derive(Debug, Clone, Args)]
pub struct Destroy {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Which versions.
#[derive(Debug, Clone, Args)]
struct Which {
    /// Path of the secret.
    path: SecretPath,
    /// The versions, separated by commas; all for none.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    versions: Vec<u32>,
}

impl Rollback {
    /// Makes an older version current again.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let said = format!("version {} is current again", self.to);
        change(context, "rollback", &self.path, &OneVersion { version: self.to }, &said).await
    }
}

impl Promote {
    /// Makes the pending version current.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        change(context, "promote", &self.path, &serde_json::json!({}), "the pending version is current").await
    }
}

impl Label {
    /// Points a label at a version.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let body = SetLabel { label: self.label.clone(), version: self.version };
        let said = match self.version {
            Some(version) => format!("`{}` is version {version}", output::printable(&self.label)),
            None => format!("`{}` is taken away", output::printable(&self.label)),
        };
        change(context, "labels", &self.path, &body, &said).await
    }
}

impl Delete {
    /// Deletes versions.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let environment = context.environment()?;
        let company = context.company()?;
        let numbers: Vec<String> = self.which.versions.iter().map(ToString::to_string).collect();
        let numbers = numbers.join(",");
        let versions = Some(numbers.as_str()).filter(|text| !text.is_empty());
        super::with_client(context, async |client: &Client| {
            let url = super::secret_url(
                "secrets",
                &environment,
                company.as_ref(),
                &self.which.path,
                &[("versions", versions)],
            );
            let secret: Secret = client.call(Method::DELETE, &url, None::<&()>).await?;
            let said = format!("deleted; `keymoat undelete {}` brings it back", self.which.path);
            done(context, &secret, &crate::hint::complete(&said, &context.global))
        })
        .await
    }
}

impl Undelete {
    /// Brings deleted versions back.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        change(context, "undelete", &self.which.path, &self.which.body(), "brought back").await
    }
}

impl Destroy {
    /// Destroys versions for good, having asked.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let what = match self.which.versions.as_slice() {
            [] => "every version".to_owned(),
            some => {
                format!("version {}", some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let question = format!("Destroy {what} of {} for good?", self.which.path);
        if !self.yes && !prompt::confirm(&question) {
            return Err(CliError::new("nothing was destroyed")
                .hint("say --yes where nobody can be asked")
                .exit(REFUSED));
        }
        change(context, "destroy", &self.which.path, &self.which.body(), "destroyed; no ciphertext is left")
            .await
    }
}

impl Which {
    fn body(&self) -> SomeVersions {
        SomeVersions { versions: self.versions.clone() }
    }
}

async fn change(
    context: &Context,
    collection: &str,
    path: &SecretPath,
    body: &impl Serialize,
    said: &str,
) -> Result<u8, CliError> {
    let environment = context.environment()?;
    let company = context.company()?;
    super::with_client(context, async |client: &Client| {
        let url = super::secret_url(collection, &environment, company.as_ref(), path, &[]);
        let secret: Secret = client.call(Method::POST, &url, Some(body)).await?;
        done(context, &secret, said)
    })
    .await
}

fn done(context: &Context, secret: &Secret, said: &str) -> Result<u8, CliError> {
    match context.global.format {
        Format::Json => output::json(secret)?,
        Format::Text => output::line(&format!("{}/{}: {said}", secret.environment, secret.path)),
    }
    Ok(0)
}
