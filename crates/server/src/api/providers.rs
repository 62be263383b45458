//! The provider catalogue, and whose key a value is.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use keymoat_core::names::nearest;
use keymoat_detect::{Catalogue, Identification, Key, Known, Provider};

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::params::Names;
use crate::problem::Problem;
use crate::wire;

/// The providers, by id.
pub(crate) async fn list(State(app): State<AppState>) -> Answer<Vec<wire::Provider>> {
    Ok(Json(app.vault.catalogue().providers().iter().map(provider).collect()))
}

/// A provider.
pub(crate) async fn show(State(app): State<AppState>, Names(id): Names<String>) -> Answer<wire::Provider> {
    let catalogue = app.vault.catalogue();
    match catalogue.provider(&id) {
        Some(found) => Ok(Json(provider(found))),
        None => Err(unknown(&catalogue, &id)),
    }
}

/// Whose key a value is. The value is looked at and not kept.
pub(crate) async fn identify(
    State(app): State<AppState>,
    Sent(sent): Sent<wire::Identify>,
) -> Answer<wire::Identified> {
    let catalogue = app.vault.catalogue();
    // EXPOSE: what leaves is the mask and the catalogue's names.
    Ok(Json(sent.value.0.expose(|bytes| identified(&catalogue, bytes))))
}

fn identified(catalogue: &Catalogue, bytes: &[u8]) -> wire::Identified {
    let masked = catalogue.mask(bytes);
    match catalogue.identify(bytes) {
        Identification::Unknown => wire::Identified {
            known: false,
            provider: None,
            name: None,
            kind: None,
            mode: None,
            sensitive: None,
            certainty: None,
            masked,
        },
        Identification::Known(Known { provider, key, certainty }) => wire::Identified {
            known: true,
            provider: Some(provider.id.clone()),
            name: Some(provider.name.clone()),
            kind: Some(key.kind.as_str().to_owned()),
            mode: Some(key.mode.as_str().to_owned()),
            sensitive: Some(key.sensitive),
            certainty: Some(certainty.as_str().to_owned()),
            masked,
        },
    }
}

fn provider(provider: &Provider) -> wire::Provider {
    let mut links = BTreeMap::from([("docs".to_owned(), provider.links.docs.clone())]);
    if let Some(keys) = &provider.links.keys {
        links.insert("keys".to_owned(), keys.clone());
    }
    wire::Provider {
        id: provider.id.clone(),
        name: provider.name.clone(),
        shape_only: provider.shape_only,
        keys: provider.keys.iter().map(key).collect(),
        links,
    }
}

fn key(key: &Key) -> wire::ProviderKey {
    wire::ProviderKey {
        kind: key.kind.as_str().to_owned(),
        mode: key.mode.as_str().to_owned(),
        field: key.field.clone(),
        sensitive: key.sensitive,
        prefixes: key.prefixes.clone(),
        variables: key.variables.clone(),
    }
}

fn unknown(catalogue: &Catalogue, id: &str) -> Problem {
    let problem = Problem::not_found("the catalogue has no provider of that id");
    match nearest(id, catalogue.providers().iter().map(|provider| provider.id.as_str())) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("GET /api/v1/providers lists them"),
    }
}
