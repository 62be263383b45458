//! `keymoat environment` and `keymoat company`.

use clap::Subcommand;
use http::Method;
use keymoat_server::wire::{Place as WirePlace, PutPlace};

use crate::Context;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Format};

/// Subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum Place {
    /// List them.
    List,
    /// Make one, or change its description.
    Add {
        /// Its name.
        name: String,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
}

impl Place {
    /// Lists or makes environments or companies.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context, collection: &str) -> Result<u8, CliError> {
        super::with_client(context, async |client: &Client| {
            let places: Vec<WirePlace> = match self {
                Place::List => client.get(&format!("/api/v1/{collection}")).await?,
                Place::Add { name, description } => {
                    let name = self.checked(collection, name)?;
                    let body = PutPlace { description: description.clone() };
                    let url = format!("/api/v1/{collection}/{name}");
                    vec![client.call(Method::PUT, &url, Some(&body)).await?]
                }
            };
            if context.global.format == Format::Json {
                output::json(&places)?;
                return Ok(0);
            }
            let rows = places.iter().map(|place| {
                vec![place.name.clone(), super::time_text(place.created_at), place.description.clone()]
            });
            output::table(&["name", "since", "for"], rows);
            Ok(0)
        })
        .await
    }

    /// A name that cannot be one never becomes part of an address.
    fn checked(&self, collection: &str, name: &str) -> Result<String, CliError> {
        match collection {
            "environments" => Ok(name.parse::<keymoat_core::names::Environment>()?.to_string()),
            _ => Ok(name.parse::<keymoat_core::names::Company>()?.to_string()),
        }
    }
}
