//! `keymoat provider` and `keymoat identify`: what the catalogue knows. Without `--server` the catalogue of this
//! program answers, so neither a vault nor a server is needed, and without `--check` no value leaves the process.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use http::Method;
use keymoat_core::names::is_safe_to_show;
use keymoat_crypto::SecretBytes;
use keymoat_detect::{Catalogue, Identification};
use keymoat_scan::report::Liveness;
use keymoat_server::wire::{self, Identified, Provider as WireProvider, ProviderKey, WireSecret};

use super::scan;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, prompt};

/// Say whose key is on stdin.
#[derive(Debug, Clone, Args)]
pub struct Identify {
    /// Ask its provider whether it works: `active` and whose, `dead`, or `unknown` and why. The key is sent to its own
    /// provider, in a call that changes nothing, and nowhere else.
    #[arg(long)]
    check: bool,
}

/// Subcommands of `provider`.
#[derive(Debug, Clone, Subcommand)]
pub enum Provider {
    /// List providers.
    List,
    /// Show what is known of a provider.
    Show {
        /// Its id, such as `stripe`.
        id: String,
    },
}

impl Provider {
    /// Shows what the catalogue knows.
    ///
    /// # Errors
    /// When there is no such provider.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let providers = all(context).await?;
        match self {
            Provider::List => list(context, &providers),
            Provider::Show { id } => show(context, find(&providers, id)?),
        }
    }
}

impl Identify {
    /// Says whose key is on stdin; exit code 1 when the catalogue does not know it.
    ///
    /// # Errors
    /// When stdin cannot be read, or a provider cannot be asked at all.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        if self.check && context.global.server.is_some() {
            return Err(CliError::new("--check asks from this machine, and --server asks another one")
                .hint("leave one of the two out"));
        }
        let value = match crate::output::talks_to_a_person() {
            true => prompt::secret("Value")?,
            false => prompt::secret_from_stdin()?,
        };
        if value.is_empty() {
            return Err(CliError::new("there is nothing on stdin")
                .hint("pipe the value in: `pbpaste | keymoat identify`"));
        }
        let liveness = match self.check {
            true => check(context, &value).await?,
            false => None,
        };
        let identified = match context.global.server {
            Some(_) => ask(context, value).await?,
            None => identified(&*context.catalogue()?, &value),
        };
        let exit = if identified.known { 0 } else { REFUSED };
        if context.global.format == Format::Json {
            match liveness {
                None => output::json(&identified)?,
                Some(liveness) => output::json(&with_check(&identified, &liveness)?)?,
            }
            return Ok(exit);
        }
        output::line(&identified_text(&identified));
        if let Some(liveness) = liveness {
            output::line(&output::printable(&liveness.to_string()));
        }
        Ok(exit)
    }
}

/// What the provider says of a value; nothing where nobody knows whose it is.
async fn check(context: &Context, value: &SecretBytes) -> Result<Option<Liveness>, CliError> {
    let catalogue = context.catalogue()?;
    // EXPOSE: the catalogue looks at the value.
    let Identification::Known(known) = value.expose(|bytes| catalogue.identify(bytes)) else {
        return Ok(None);
    };
    scan::check::ask_about(known.provider, known.key, value, &context.variables).await.map(Some)
}

/// The same with what the provider says, as the reports of `keymoat scan` have it.
fn with_check(identified: &Identified, liveness: &Liveness) -> Result<serde_json::Value, CliError> {
    let mut said = serde_json::to_value(identified)
        .map_err(|error| CliError::new(format!("cannot write JSON: {error}")))?;
    said["check"] = serde_json::json!({ "result": liveness.as_str() });
    for (name, text) in [("account", liveness.account()), ("why", liveness.why())] {
        if let Some(text) = text {
            said["check"][name] = text.into();
        }
    }
    Ok(said)
}

async fn ask(context: &Context, value: SecretBytes) -> Result<Identified, CliError> {
    super::with_client(context, async |client: &Client| {
        let body = wire::Identify { value: WireSecret(value) };
        client.call(Method::POST, "/api/v1/providers/identify", Some(&body)).await
    })
    .await
}

fn identified(catalogue: &Catalogue, value: &SecretBytes) -> Identified {
    // EXPOSE: the catalogue looks at the value; what comes out is a mask and names.
    value.expose(|bytes| {
        let masked = catalogue.mask(bytes);
        match catalogue.identify(bytes) {
            Identification::Known(known) => Identified {
                known: true,
                provider: Some(known.provider.id.clone()),
                name: Some(known.provider.name.clone()),
                kind: Some(known.key.kind.as_str().to_owned()),
                mode: Some(known.key.mode.as_str().to_owned()),
                sensitive: Some(known.key.sensitive),
                certainty: Some(known.certainty.as_str().to_owned()),
                masked,
            },
            Identification::Unknown => Identified {
                known: false,
                provider: None,
                name: None,
                kind: None,
                mode: None,
                sensitive: None,
                certainty: None,
                masked,
            },
        }
    })
}

fn identified_text(identified: &Identified) -> String {
    if !identified.known {
        return format!("unknown  {}", identified.masked);
    }
    let words = [&identified.provider, &identified.kind, &identified.mode];
    let words: Vec<&str> =
        words.into_iter().filter_map(|word| word.as_deref()).filter(|word| *word != "any").collect();
    let public = if identified.sensitive == Some(false) { ", not secret" } else { "" };
    let certainty = identified.certainty.as_deref().unwrap_or("shape");
    output::printable(&format!("{} (by {certainty}{public})  {}", words.join(" "), identified.masked))
}

async fn all(context: &Context) -> Result<Vec<WireProvider>, CliError> {
    if context.global.server.is_none() {
        return Ok(context.catalogue()?.providers().iter().map(to_wire).collect());
    }
    super::with_client(context, async |client: &Client| client.get("/api/v1/providers").await).await
}

fn to_wire(provider: &keymoat_detect::Provider) -> WireProvider {
    let key = |key: &keymoat_detect::Key| ProviderKey {
        kind: key.kind.as_str().to_owned(),
        mode: key.mode.as_str().to_owned(),
        field: key.field.clone(),
        sensitive: key.sensitive,
        prefixes: key.prefixes.clone(),
        variables: key.variables.clone(),
    };
    let mut links = BTreeMap::from([("docs".to_owned(), provider.links.docs.clone())]);
    links.extend(provider.links.keys.clone().map(|address| ("keys".to_owned(), address)));
    WireProvider {
        id: provider.id.clone(),
        name: provider.name.clone(),
        shape_only: provider.shape_only,
        keys: provider.keys.iter().map(key).collect(),
        links,
    }
}

fn find<'p>(providers: &'p [WireProvider], id: &str) -> Result<&'p WireProvider, CliError> {
    providers.iter().find(|provider| provider.id == id).ok_or_else(|| {
        let what = if is_safe_to_show(id) { format!(" `{id}`") } else { String::new() };
        let error = CliError::new(format!("the catalogue has no provider{what}")).exit(REFUSED);
        match keymoat_core::names::nearest(id, providers.iter().map(|provider| provider.id.as_str())) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`keymoat provider list` shows them"),
        }
    })
}

fn list(context: &Context, providers: &[WireProvider]) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(&providers)?;
        return Ok(0);
    }
    let rows = providers.iter().map(|provider| {
        let mut kinds: Vec<&str> = Vec::new();
        for key in &provider.keys {
            if !kinds.contains(&key.kind.as_str()) {
                kinds.push(&key.kind);
            }
        }
        let calls = if provider.shape_only { "shapes only" } else { "shapes and calls" };
        vec![provider.id.clone(), provider.name.clone(), kinds.join(", "), calls.to_owned()]
    });
    output::table(&["id", "name", "keys", "known"], rows);
    Ok(0)
}

fn show(context: &Context, provider: &WireProvider) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(provider)?;
        return Ok(0);
    }
    output::line(&format!("{} ({})", output::printable(&provider.name), output::printable(&provider.id)));
    for (what, address) in &provider.links {
        output::line(&format!("  {what:<9} {}", output::printable(address)));
    }
    if provider.shape_only {
        output::line("  known     shapes only: its calls were not run against its documentation");
    }
    output::line("");
    let rows = provider.keys.iter().map(|key| {
        vec![
            key.kind.clone(),
            if key.mode == "any" { String::new() } else { key.mode.clone() },
            key.field.clone(),
            if key.sensitive { "secret" } else { "public" }.to_owned(),
            key.prefixes.join(" "),
            key.variables.join(" "),
        ]
    });
    output::table(&["kind", "mode", "field", "secret?", "begins with", "variables"], rows);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_what_is_said_of_them() {
        let check = |value: &str, expected: &str| {
            let identified = identified(Catalogue::builtin(), &SecretBytes::from_slice(value.as_bytes()));
            let text = identified_text(&identified);
            assert!(text.starts_with(expected), "{value}: {text}");
            assert!(!text.contains(value), "{value}: {text}");
        };
        check("sk_live_51MadeUpExample0000KeymoatTest", "stripe secret live (by shape)");
        check("pk_live_51MadeUpExample0000KeymoatTest", "stripe publishable live (by shape, not secret)");
        check("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", "shopify token (by shape)");
        check("0000a1b2c3d4e5f60718293a4b5c6d7e", "unknown");
        check("made up words", "unknown");
    }

    #[test]
    fn providers_are_found_by_id() {
        let providers: Vec<_> = Catalogue::builtin().providers().iter().map(to_wire).collect();
        assert_eq!(find(&providers, "stripe").unwrap().name, "Stripe");
        let error = find(&providers, "strype").unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `stripe`?"));
        assert!(
            !find(&providers, "sk_live_51MadeUpExample0000KeymoatTest")
                .unwrap_err()
                .message
                .contains("sk_live")
        );
    }
}
