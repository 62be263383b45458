//! Policies: read, write, remove, explain.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use keymoat_core::audit::DecidedBy;
use keymoat_core::names::{PolicyName, ResourcePath, Scope};
use keymoat_core::policy::{Capability, Decision, Policy, Resource, RuleMatch};

use crate::AppState;
use crate::api::Answer;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert::{self, as_invalid};
use crate::params::Names;
use crate::problem::Problem;
use crate::wire;

/// The policies, built-in ones included.
pub(crate) async fn list(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
) -> Answer<Vec<wire::Policy>> {
    let policies = app.vault.list_policies(&caller).await?;
    Ok(Json(policies.iter().map(convert::policy).collect::<Result<_, _>>()?))
}

/// A policy.
pub(crate) async fn show(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
) -> Answer<wire::Policy> {
    let policy = app.vault.show_policy(&caller, &name.parse()?).await?;
    Ok(Json(convert::policy(&policy)?))
}

/// Writes a policy. Its name may be left out of the document.
pub(crate) async fn put(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
    Sent(mut document): Sent<serde_json::Map<String, serde_json::Value>>,
) -> Answer<wire::Policy> {
    let name: PolicyName = name.parse()?;
    let named = document.entry("name").or_insert_with(|| name.as_str().into());
    if named.as_str() != Some(name.as_str()) {
        return Err(Problem::invalid("the name in the document is not the one in the path"));
    }
    let policy: Policy = serde_json::from_value(document.into()).map_err(wrong_document)?;
    let written = app.vault.put_policy(&caller, policy).await?;
    Ok(Json(convert::policy(&written)?))
}

/// Removes a policy that nobody holds.
pub(crate) async fn remove(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(name): Names<String>,
) -> Result<StatusCode, Problem> {
    app.vault.delete_policy(&caller, &name.parse()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What would be decided, and why.
pub(crate) async fn explain(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::Explain>,
) -> Answer<wire::Explanation> {
    let capability: Capability = sent.capability.parse().map_err(as_invalid)?;
    let account = sent.account.parse().map_err(as_invalid)?;
    let explanation = app.vault.explain(&caller, &account, capability, &resource(&sent)?).await?;
    let (allowed, why) = match explanation.decision {
        Decision::Allowed { by } => (true, format!("rule `{by}` allows it")),
        Decision::Refused { why } => (false, why.to_string()),
    };
    let rules =
        explanation.rules.into_iter().map(|rule| explained(&rule.by, rule.effect.as_str(), rule.matched));
    Ok(Json(wire::Explanation {
        account: explanation.account.to_string(),
        allowed,
        why,
        rules: rules.collect(),
    }))
}

fn explained(by: &DecidedBy, effect: &str, matched: RuleMatch) -> wire::ExplainedRule {
    let matches = match matched {
        RuleMatch::Matches => "it matches".to_owned(),
        RuleMatch::Capability => "it speaks of other capabilities".to_owned(),
        RuleMatch::Environment => "it speaks of other environments".to_owned(),
        RuleMatch::Company => "it speaks of other companies".to_owned(),
        RuleMatch::Path => "it speaks of other paths".to_owned(),
        RuleMatch::Condition(which) => format!("its condition on the {which} does not hold"),
    };
    wire::ExplainedRule { rule: by.to_string(), effect: effect.to_owned(), matches }
}

/// Reads `prod/stripe`, `prod/stripe#secret_key`, `sys/audit`.
fn resource(sent: &wire::Explain) -> Result<Resource, Problem> {
    let (text, field) = match sent.resource.split_once('#') {
        Some((text, field)) => (text, Some(field.parse().map_err(as_invalid)?)),
        None => (sent.resource.as_str(), None),
    };
    let Some((scope, path)) = text.split_once('/') else {
        return Err(
            Problem::invalid("`resource` has no path").hint("write it as `prod/stripe` or `sys/audit`")
        );
    };
    Ok(Resource {
        scope: scope.parse::<Scope>().map_err(as_invalid)?,
        company: sent.company.as_deref().map(str::parse).transpose().map_err(as_invalid)?,
        path: path.parse::<ResourcePath>().map_err(as_invalid)?,
        field,
    })
}

/// What is wrong with a policy or a rule, unless it would repeat more than a name.
pub(crate) fn wrong_document(error: serde_json::Error) -> Problem {
    let text = error.to_string();
    let may_repeat = ["invalid type: string", "invalid value: string", "invalid type: map"];
    let is_safe = text
        .split(|c: char| c.is_whitespace() || "`\"'(),".contains(c))
        .all(keymoat_core::names::is_safe_to_show);
    match is_safe && !may_repeat.iter().any(|what| text.starts_with(what)) {
        true => Problem::invalid(format!("the policy cannot be read: {text}")),
        false => Problem::invalid("the policy cannot be read"),
    }
    .hint("docs/access.md describes the form")
}
