//! Spaces of issued keys: whose callers the keys of each are for, and the rules that they are under.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use keymoat_core::issued::{HeldScope, OwnerInactive, OwnerKind};
use keymoat_vault::issued::{KeyAudit, KeySpace, KeySpaceRules};

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert::as_invalid;
use crate::params::Names;
use crate::problem::Problem;
use crate::wire;

/// The spaces.
pub(crate) async fn list(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<Vec<wire::KeySpace>> {
    Ok(Json(app.vault.key_spaces(&caller).await?.iter().map(|space| on_wire(space)).collect()))
}

/// Makes a space, or changes its rules.
pub(crate) async fn put(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
    Sent(sent): Sent<wire::PutKeySpace>,
) -> Answer<wire::KeySpace> {
    let space = app.vault.put_key_space(&caller, name.parse()?, rules(sent)?).await?;
    Ok(Json(on_wire(&space)))
}

fn rules(sent: wire::PutKeySpace) -> Result<KeySpaceRules, Problem> {
    let mut roles = BTreeMap::new();
    for (role, scopes) in sent.roles {
        let scopes: Result<Vec<HeldScope>, _> = scopes.iter().map(|scope| scope.parse()).collect();
        roles.insert(role.parse().map_err(as_invalid)?, scopes.map_err(as_invalid)?);
    }
    let mut owner_inactive_of = BTreeMap::new();
    for (company, rule) in sent.owner_inactive_of {
        owner_inactive_of.insert(company.parse().map_err(as_invalid)?, rule.parse().map_err(as_invalid)?);
    }
    let mut max_age_secs = BTreeMap::new();
    for (kind, secs) in sent.max_age_secs {
        max_age_secs.insert(kind.parse::<OwnerKind>().map_err(as_invalid)?, secs);
    }
    let environments = sent.environments.iter().map(|name| name.parse());
    Ok(KeySpaceRules {
        description: sent.description,
        environments: environments.collect::<Result<_, _>>().map_err(as_invalid)?,
        roles,
        owner_inactive: match sent.owner_inactive {
            None => OwnerInactive::Deny,
            Some(rule) => rule.parse().map_err(as_invalid)?,
        },
        owner_inactive_of,
        max_age_secs,
        audit: match sent.audit.as_deref() {
            None | Some("counted") => KeyAudit::Counted,
            Some("each") => KeyAudit::Each,
            Some(_) => return Err(Problem::invalid("`audit` is none of counted, each")),
        },
    })
}

fn on_wire(space: &KeySpace) -> wire::KeySpace {
    let roles = space.roles.iter().map(|(role, scopes)| {
        (role.to_string(), scopes.iter().map(|scope| scope.as_str().to_owned()).collect())
    });
    let of = space.owner_inactive_of.iter();
    wire::KeySpace {
        name: space.name.to_string(),
        rules: wire::PutKeySpace {
            description: space.description.clone(),
            environments: space.environments.iter().map(ToString::to_string).collect(),
            roles: roles.collect(),
            owner_inactive: Some(space.owner_inactive.to_string()),
            owner_inactive_of: of.map(|(company, rule)| (company.to_string(), rule.to_string())).collect(),
            max_age_secs: space.max_age_secs.iter().map(|(kind, secs)| (kind.to_string(), *secs)).collect(),
            audit: Some(space.audit.as_str().to_owned()),
        },
        created_at: space.created_at,
    }
}
