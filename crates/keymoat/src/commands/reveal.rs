//! `keymoat reveal`.

use base64::Engine as _;
use clap::Args;
use http::Method;
use keymoat_crypto::SecretBytes;
use keymoat_server::wire::{Reveal as RevealBody, Revealed, Value};

use super::PathAndField;
use crate::Context;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Format};

/// Flags of `reveal`.
#[derive(Debug, Clone, Args)]
pub struct Reveal {
    /// `PATH` or `PATH#FIELD`.
    path: PathAndField,
    /// The field.
    field: Option<keymoat_core::names::Field>,
    /// The version's number.
    #[arg(long, value_name = "N", conflicts_with = "label")]
    version: Option<u32>,
    /// The version's label.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

impl Reveal {
    /// Writes a value to stdout.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let environment = context.environment()?;
        let company = context.company()?;
        let field = self.field.as_ref().or(self.path.field.as_ref());
        let body = RevealBody {
            field: field.map(ToString::to_string),
            version: self.version,
            label: self.label.clone(),
            why: self.why.clone(),
        };
        super::with_client(context, async |client: &Client| {
            let url = super::secret_url("reveal", &environment, company.as_ref(), &self.path.path, &[]);
            let revealed: Revealed = client.call(Method::POST, &url, Some(&body)).await?;
            if context.global.format == Format::Json {
                output::json(&revealed)?;
                return Ok(0);
            }
            let is_bytes = matches!(revealed.value, Value::Base64(_));
            let value = plain(revealed.value)?;
            // EXPOSE: this is what was asked for, and it is on record.
            value.expose(|bytes| output::bytes(bytes));
            if !is_bytes {
                output::bytes(b"\n");
            }
            Ok(0)
        })
        .await
    }
}

/// The value as bytes, whatever form it travelled in.
///
/// # Errors
/// When bytes did not travel as base64.
pub fn plain(value: Value) -> Result<SecretBytes, CliError> {
    match value {
        Value::Text(text) | Value::Json(text) => Ok(text.0),
        Value::Base64(text) => {
            // EXPOSE: bytes travel as text; what comes out is a secret again at once.
            let bytes = text.0.expose(|text| base64::engine::general_purpose::STANDARD.decode(text));
            bytes.map(SecretBytes::new).map_err(|_| CliError::new("the server's answer is not base64"))
        }
        Value::Fields(fields) => {
            let text = serde_json::to_vec(&fields)
                .map_err(|e| CliError::new(format!("cannot write the fields: {e}")))?;
            Ok(SecretBytes::new(text))
        }
    }
}
