//! Issued keys: making, showing, changing and ending them, and saying what a presented one is good for.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use jiff::SignedDuration;
use keymoat_core::id::IssuedKeyId;
use keymoat_core::issued::{AddressList, HeldScope, Limits, OwnerKind, OwnerRef, Refill, ScopeQuery};
use keymoat_core::names::{Company, GroupName, RoleName, SpaceName};
use keymoat_vault::issued::{
    FreshKey, IssuedKey, KeyChange, KeyFilter, KeyQuestion, KeyStatus, KeyUsage, KeyVerdict, KnownKey,
    LimitLeft, NewCredits, NewIssuedKey, RevocationReason, ShownKey, Verifier,
};

use crate::AppState;
use crate::api::Answer;
use crate::api::tokens::seconds;
use crate::body::{Sent, SentOrNone};
use crate::context::{Circumstances, Presented, SignedIn};
use crate::convert::as_invalid;
use crate::params::{Names, Params};
use crate::problem::Problem;
use crate::wire::{self, WireSecret};

/// Makes a key.
pub(crate) async fn issue(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::IssueKey>,
) -> Result<(StatusCode, Json<wire::NewKey>), Problem> {
    let fresh = app.vault.issue_key(&caller, new_key(sent)?).await?;
    Ok((StatusCode::CREATED, Json(made(&fresh))))
}

/// Keys, a page at a time, never the keys themselves.
pub(crate) async fn list(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Answer<wire::KeyPage> {
    let span = |name| Ok::<_, Problem>(params.quiet::<u64>(name, "a number of days")?.map(days));
    let filter = KeyFilter {
        space: params.get("space")?,
        environment: params.get("environment")?,
        owner: params.quiet::<OwnerRef>("owner", "an owner such as `odoo:res.users:42`")?,
        status: params.text("status").map(status_of).transpose()?,
        unused_for: span("unused_days")?,
        ends_within: span("expires_days")?,
        after: params.quiet::<IssuedKeyId>("after", "`next` of the page before")?,
        limit: params.quiet::<usize>("limit", "a number from 1 to 1000")?.unwrap_or(PAGE),
    };
    let page = app.vault.issued_keys(&caller, filter).await?;
    let keys = page.keys.iter().map(key).collect();
    Ok(Json(wire::KeyPage { keys, next: page.next.map(|id| id.to_string()) }))
}

/// A key, never the key itself.
pub(crate) async fn show(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(id): Names<String>,
) -> Answer<wire::Key> {
    Ok(Json(key(&app.vault.issued_key(&caller, id_of(&id)?).await?)))
}

/// Changes what a key may do, or switches it off and on.
pub(crate) async fn change(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(id): Names<String>,
    Sent(sent): Sent<wire::ChangeKey>,
) -> Answer<wire::Key> {
    let change = KeyChange {
        enabled: sent.enabled,
        name: sent.name,
        limits: sent.limits.map(|limits| limits.parse::<Limits>()).transpose().map_err(as_invalid)?,
        networks: sent.networks.map(|networks| networks_of(&networks)).transpose()?,
        lasts: sent.expires_secs.map(seconds),
    };
    Ok(Json(key(&app.vault.change_key(&caller, id_of(&id)?, change).await?)))
}

/// Replaces a key by another.
pub(crate) async fn reroll(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(id): Names<String>,
    SentOrNone(sent): SentOrNone<wire::RerollKey>,
) -> Result<(StatusCode, Json<wire::NewKey>), Problem> {
    let fresh = app.vault.reroll_key(&caller, id_of(&id)?, seconds(sent.overlap_secs)).await?;
    Ok((StatusCode::CREATED, Json(made(&fresh))))
}

/// Ends a key for good.
pub(crate) async fn revoke(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(id): Names<String>,
    SentOrNone(sent): SentOrNone<wire::RevokeKey>,
) -> Answer<wire::Key> {
    let reason = reason_of(sent.reason.as_deref())?;
    Ok(Json(key(&app.vault.revoke_key(&caller, id_of(&id)?, reason).await?)))
}

/// Says what a presented key is good for.
pub(crate) async fn verify(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::VerifyKey>,
) -> Answer<wire::KeyVerdict> {
    let verdict = app.vault.verify_key(&Verifier::Caller(&caller), question(sent)?).await?;
    Ok(Json(wire_verdict(&verdict)))
}

/// Says it of several keys, each by itself.
pub(crate) async fn verify_all(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::VerifyKeys>,
) -> Answer<wire::KeyVerdicts> {
    if sent.keys.len() > BATCH_MAX {
        return Err(Problem::invalid(format!("at most {BATCH_MAX} keys are verified at once")));
    }
    let questions: Vec<KeyQuestion> = sent.keys.into_iter().map(question).collect::<Result<_, _>>()?;
    let mut results = Vec::with_capacity(questions.len());
    for question in questions {
        let verdict = app.vault.verify_key(&Verifier::Caller(&caller), question).await?;
        results.push(wire_verdict(&verdict));
    }
    Ok(Json(wire::KeyVerdicts { results }))
}

/// Tells the holder of a key what it is; nothing is charged.
pub(crate) async fn whoami(
    State(app): State<AppState>,
    Circumstances(origin): Circumstances,
    Presented(text): Presented,
) -> Answer<wire::KeyVerdict> {
    app.vault.fresh().await?;
    Ok(Json(wire_verdict(&app.vault.key_whoami(&text, &origin).await?)))
}

/// Ends the key that is presented: whoever finds one may do that.
pub(crate) async fn self_revoke(
    State(app): State<AppState>,
    Circumstances(origin): Circumstances,
    Presented(text): Presented,
    SentOrNone(sent): SentOrNone<wire::RevokeKey>,
) -> Result<StatusCode, Problem> {
    let reason = match sent.reason {
        None => RevocationReason::Compromised,
        Some(reason) => reason_of(Some(&reason))?,
    };
    app.vault.fresh().await?;
    app.vault.self_revoke_key(&text, reason, &origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a key to whoever has its one-time code.
pub(crate) async fn fetch(
    State(app): State<AppState>,
    Circumstances(origin): Circumstances,
    Sent(sent): Sent<wire::FetchKey>,
) -> Result<(StatusCode, Json<wire::NewKey>), Problem> {
    app.vault.fresh().await?;
    let fresh = app.vault.fetch_key(&sent.code.0, &origin).await?;
    Ok((StatusCode::CREATED, Json(made(&fresh))))
}

/// Takes in whether an owner is active.
pub(crate) async fn owner(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(sent): Sent<wire::KeyOwner>,
) -> Answer<wire::KeyOwner> {
    let owner =
        app.vault.set_key_owner(&caller, sent.owner.parse().map_err(as_invalid)?, sent.active).await?;
    Ok(Json(wire::KeyOwner { owner: owner.owner.to_string(), active: owner.active }))
}

fn new_key(sent: wire::IssueKey) -> Result<NewIssuedKey, Problem> {
    let space = sent.space.as_deref().unwrap_or(DEFAULT_SPACE);
    Ok(NewIssuedKey {
        owner: sent.owner.parse().map_err(as_invalid)?,
        owner_kind: sent.owner_kind.map(|kind| kind.parse::<OwnerKind>()).transpose().map_err(as_invalid)?,
        name: sent.name,
        space: space.parse::<SpaceName>().map_err(as_invalid)?,
        environment: sent.environment.parse().map_err(as_invalid)?,
        company: sent.company.map(|company| company.parse::<Company>()).transpose().map_err(as_invalid)?,
        scopes: sent
            .scopes
            .iter()
            .map(|scope| scope.parse())
            .collect::<Result<Vec<HeldScope>, _>>()
            .map_err(as_invalid)?,
        roles: sent.roles.iter().map(|role| role.parse()).collect::<Result<_, _>>().map_err(as_invalid)?,
        groups: sent
            .groups
            .iter()
            .map(|group| group.parse())
            .collect::<Result<_, _>>()
            .map_err(as_invalid)?,
        limits: sent.limits.as_deref().unwrap_or_default().parse().map_err(as_invalid)?,
        networks: networks_of(&sent.networks)?,
        not_before: sent.not_before,
        lasts: sent.expires_secs.map(seconds),
        credits: sent.credits.map(credits).transpose()?,
        meta: sent.meta,
        fetch_within: sent.fetch_secs.map(seconds),
    })
}

fn credits(sent: wire::NewCredits) -> Result<NewCredits, Problem> {
    let refill = sent.refill.map(|refill| refill.parse::<Refill>()).transpose().map_err(as_invalid)?;
    Ok(NewCredits { amount: sent.amount, refill })
}

fn question(sent: wire::VerifyKey) -> Result<KeyQuestion, Problem> {
    let client = sent.client_ip.map(|address| address.parse()).transpose();
    Ok(KeyQuestion {
        key: sent.key.0,
        space: sent.space.map(|space| space.parse::<SpaceName>()).transpose().map_err(as_invalid)?,
        environment: sent.environment.map(|name| name.parse()).transpose().map_err(as_invalid)?,
        scopes: sent.scopes.map(|scopes| scopes.parse::<ScopeQuery>()).transpose().map_err(as_invalid)?,
        cost: sent.cost.unwrap_or(1),
        client: client.map_err(|_| Problem::invalid("`client_ip` is no address such as `192.0.2.7`"))?,
    })
}

fn networks_of(texts: &[String]) -> Result<AddressList, Problem> {
    texts.join(",").parse().map_err(as_invalid)
}

fn made(fresh: &FreshKey) -> wire::NewKey {
    let (text, is_unfetched) = (WireSecret(fresh.text.duplicate()), fresh.about.key.fetch_until.is_some());
    let (key_text, code) = if is_unfetched { (None, Some(text)) } else { (Some(text), None) };
    wire::NewKey { key: key_text, code, about: key(&fresh.about), warnings: fresh.warnings.clone() }
}

fn key(shown: &ShownKey) -> wire::Key {
    let IssuedKey { revoked, .. } = &*shown.key;
    let it = &shown.key;
    wire::Key {
        id: it.id.to_string(),
        lineage: it.lineage.to_string(),
        space: it.space.to_string(),
        environment: it.environment.to_string(),
        company: it.company.as_ref().map(ToString::to_string),
        name: it.name.clone(),
        masked: it.masked.clone(),
        owner: it.owner.to_string(),
        owner_kind: it.owner_kind.to_string(),
        status: shown.status.as_str().to_owned(),
        scopes: texts(&it.scopes, HeldScope::as_str),
        roles: texts(&it.roles, RoleName::as_str),
        groups: texts(&it.groups, GroupName::as_str),
        limits: Some(it.limits.to_string()).filter(|limits| !limits.is_empty()),
        networks: networks(&it.networks),
        not_before: it.not_before,
        expires_at: it.expires_at,
        revoked_at: revoked.as_ref().map(|revoked| revoked.at),
        revoked_by: revoked.as_ref().map(|revoked| revoked.by.clone()),
        revoked_because: revoked.as_ref().map(|revoked| revoked.reason.as_str().to_owned()),
        replaces: it.replaces.map(|id| id.to_string()),
        replaced_by: it.replaced_by.map(|id| id.to_string()),
        credits: shown.credits,
        meta: it.meta.clone(),
        created_at: it.created_at,
        created_by: it.created_by.clone(),
        usage: usage(&shown.usage),
    }
}

fn usage(usage: &KeyUsage) -> wire::KeyUsage {
    let sources = usage.sources.iter().map(|source| wire::KeySource {
        address: source.address.to_string(),
        count: source.count,
        last_at: source.last_at,
    });
    wire::KeyUsage {
        allowed: usage.allowed,
        refused: usage.refused.clone(),
        last_used_at: usage.last_used_at,
        last_from: usage.last_from.map(|address| address.to_string()),
        sources: sources.collect(),
    }
}

/// What became of a presented key, on the wire.
pub(crate) fn wire_verdict(verdict: &KeyVerdict) -> wire::KeyVerdict {
    let facts = verdict.key.as_deref();
    let text = |of: fn(&KnownKey) -> String| facts.map(of);
    let terms = facts.map(|key| &*key.terms);
    wire::KeyVerdict {
        valid: verdict.is_valid(),
        code: verdict.code.as_str().to_owned(),
        key_id: text(|key| key.id.to_string()),
        name: text(|key| key.name.to_string()).filter(|name| !name.is_empty()),
        owner: text(|key| key.owner.to_string()),
        owner_kind: terms.map(|terms| terms.owner_kind.to_string()),
        space: text(|key| key.place.space.to_string()),
        environment: text(|key| key.place.environment.to_string()),
        company: facts.and_then(|key| key.place.company.as_ref()).map(ToString::to_string),
        scopes: terms.map(|terms| texts(&terms.scopes, HeldScope::as_str)).unwrap_or_default(),
        roles: terms.map(|terms| texts(&terms.roles, RoleName::as_str)).unwrap_or_default(),
        groups: terms.map(|terms| texts(&terms.groups, GroupName::as_str)).unwrap_or_default(),
        meta: facts.and_then(|key| key.meta.as_deref().cloned()).unwrap_or_default(),
        expires_at: facts.and_then(|key| key.expires_at),
        credits: verdict.credits,
        limits: verdict.limits.iter().map(limit_left).collect(),
        successor: facts.and_then(|key| key.replaced_by).map(|id| id.to_string()),
        retry_after_secs: verdict.retry_after_secs,
    }
}

fn limit_left(left: &LimitLeft) -> wire::KeyLimitLeft {
    wire::KeyLimitLeft { limit: left.limit.clone(), remaining: left.remaining, reset_secs: left.reset_secs }
}

fn networks(list: &AddressList) -> Vec<String> {
    let text = list.to_string();
    text.split(',').filter(|network| !network.is_empty()).map(str::to_owned).collect()
}

fn texts<T>(all: &[T], text: fn(&T) -> &str) -> Vec<String> {
    all.iter().map(|one| text(one).to_owned()).collect()
}

fn status_of(text: &str) -> Result<KeyStatus, Problem> {
    KeyStatus::parse(text).ok_or_else(|| {
        let known: Vec<&str> = KeyStatus::ALL.iter().map(|status| status.as_str()).collect();
        Problem::malformed(format!("`status` in the query is none of {}", known.join(", ")))
    })
}

fn reason_of(text: Option<&str>) -> Result<RevocationReason, Problem> {
    let Some(text) = text else { return Ok(RevocationReason::Unspecified) };
    RevocationReason::parse(text).ok_or_else(|| {
        let known: Vec<&str> = RevocationReason::ALL.iter().map(|reason| reason.as_str()).collect();
        Problem::invalid(format!("`reason` is none of {}", known.join(", ")))
    })
}

fn id_of(text: &str) -> Result<IssuedKeyId, Problem> {
    text.parse().map_err(|error| Problem::malformed(format!("{error}")))
}

fn days(count: u64) -> SignedDuration {
    seconds(count.saturating_mul(86_400))
}

/// The space that every vault has.
const DEFAULT_SPACE: &str = "default";
/// Keys on a page, unless another number is asked for.
const PAGE: usize = 100;
/// As the verifiers of others take.
const BATCH_MAX: usize = 100;
