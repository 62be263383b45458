//! Between the front desk's types and those of the wire, by hand, so that neither can change the other unseen.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keymoat_core::auditor::LogSpan;
use keymoat_core::names::{AccountName, Field};
use keymoat_core::secret::ValueKind;
use keymoat_core::tree::Hash;
use keymoat_crypto::{SecretBytes, Sensitive};
use keymoat_vault::entity::{
    self, AccountKind, FieldFacts, PolicyEntity, SecretName, StoredGrantState, TokenEntity,
};
use keymoat_vault::{Annotation, Archive, AuditRecord, Caller, NewValue, Revealed, Vault};

use crate::problem::Problem;
use crate::wire::{self, WireSecret};

/// A secret without its values, as far as the caller may see it.
pub(crate) fn secret_for(vault: &Vault, caller: &Caller, shown: &entity::Secret) -> wire::Secret {
    secret_if(vault.may_inspect(caller, &shown.name), shown)
}

/// Secrets without their values, each as far as the caller may see it.
pub(crate) fn secrets_for(
    vault: &Vault,
    caller: &Caller,
    shown: &[Arc<entity::Secret>],
) -> Vec<wire::Secret> {
    let may_inspect = vault.inspector(caller);
    shown.iter().map(|secret| secret_if(may_inspect(&secret.name), secret)).collect()
}

fn secret_if(may_inspect: bool, shown: &entity::Secret) -> wire::Secret {
    if may_inspect { secret(shown) } else { name_only(shown) }
}

/// A secret without its values, for a caller who was permitted to inspect it.
pub(crate) fn secret(secret: &entity::Secret) -> wire::Secret {
    wire::Secret {
        names_only: false,
        description: secret.description.clone(),
        owner: secret.owner.clone(),
        tags: secret.tags.clone(),
        expires_at: secret.expires_at,
        env_override: Some(secret.env_override.as_str().to_owned()),
        cas_required: Some(secret.cas_required),
        max_versions: Some(secret.max_versions),
        created_at: Some(secret.created_at),
        versions: versions(secret),
        ..name_only(secret)
    }
}

/// What `list` allows to see of a secret. Everything else stands in [`secret`] alone, so that a new member is not shown
/// here by mistake.
fn name_only(secret: &entity::Secret) -> wire::Secret {
    let labels = secret.versions.labels().iter();
    wire::Secret {
        id: secret.id.to_string(),
        environment: secret.name.environment.to_string(),
        company: secret.name.company.as_ref().map(ToString::to_string),
        path: secret.name.path.to_string(),
        names_only: true,
        description: String::new(),
        owner: String::new(),
        tags: BTreeMap::new(),
        expires_at: None,
        env_override: None,
        cas_required: None,
        max_versions: None,
        created_at: None,
        current: secret.versions.current(),
        head: secret.versions.head(),
        labels: labels.map(|(label, version)| (label.to_string(), *version)).collect(),
        versions: Vec::new(),
    }
}

fn versions(secret: &entity::Secret) -> Vec<wire::Version> {
    let versions = secret.versions.versions().iter().map(|(number, state)| {
        let facts = secret.facts.get(number);
        wire::Version {
            number: *number,
            created_at: state.created_at,
            created_by: facts.map(|facts| facts.created_by.clone()).unwrap_or_default(),
            deleted_at: state.deleted_at,
            destroyed_at: state.destroyed_at,
            kind: facts.map_or(ValueKind::Bytes, |facts| facts.kind).as_str().to_owned(),
            fields: facts.map(|facts| facts.fields.iter().map(field).collect()).unwrap_or_default(),
        }
    });
    versions.collect()
}

fn field(facts: &FieldFacts) -> wire::MaskedField {
    wire::MaskedField {
        field: facts.field.as_ref().map(ToString::to_string),
        masked: facts.masked.clone(),
        provider: facts.provider.clone(),
        key_kind: facts.key_kind.clone(),
        mode: facts.mode.clone(),
    }
}

/// A value that was given out.
pub(crate) fn revealed(revealed: Revealed) -> wire::Revealed {
    let value = match revealed.kind {
        ValueKind::Text => wire::Value::Text(WireSecret(revealed.value)),
        ValueKind::Json => wire::Value::Json(WireSecret(revealed.value)),
        // EXPOSE: the bytes are written in base64 for the same caller.
        ValueKind::Bytes => wire::Value::Base64(WireSecret(
            revealed.value.expose(|bytes| Sensitive::new(BASE64.encode(bytes).into_bytes())),
        )),
    };
    wire::Revealed { value, version: revealed.version, event: revealed.event }
}

/// A value to be written.
pub(crate) fn new_value(value: wire::Value) -> Result<NewValue, Problem> {
    Ok(match value {
        wire::Value::Text(WireSecret(value)) => NewValue::Whole { kind: ValueKind::Text, value },
        wire::Value::Json(WireSecret(value)) => NewValue::Whole { kind: ValueKind::Json, value },
        wire::Value::Base64(WireSecret(text)) => {
            NewValue::Whole { kind: ValueKind::Bytes, value: unbase64(&text)? }
        }
        wire::Value::Fields(fields) => {
            let fields = fields.into_iter().map(|(name, WireSecret(value))| {
                let name: Field = name.parse().map_err(as_invalid)?;
                Ok((name, value))
            });
            NewValue::Fields(fields.collect::<Result<_, Problem>>()?)
        }
    })
}

fn unbase64(text: &SecretBytes) -> Result<SecretBytes, Problem> {
    // EXPOSE: the bytes go into the secret type at once.
    let bytes = text.expose(|text| BASE64.decode(text));
    bytes
        .map(Sensitive::new)
        .map_err(|_| Problem::invalid("the value is not base64 (RFC 4648 §4, with padding)"))
}

/// What is said about a secret.
pub(crate) fn annotation(about: wire::Annotate) -> Result<Annotation, Problem> {
    let env_override = about.env_override.map(|word| word.parse()).transpose();
    Ok(Annotation {
        description: about.description,
        owner: about.owner,
        tags: about.tags,
        add_tags: about.add_tags,
        expires_at: about.expires_at.map(|text| expiry(&text)).transpose()?,
        env_override: env_override.map_err(as_invalid)?,
        cas_required: about.cas_required,
        max_versions: about.max_versions,
    })
}

fn expiry(text: &str) -> Result<Option<jiff::Timestamp>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = "`expires_at` is neither empty nor a time such as `2027-01-31T12:00:00Z`";
    text.parse().map(Some).map_err(|_| Problem::invalid(wrong))
}

/// What is wrong inside of a body that is well formed.
pub(crate) fn as_invalid(error: impl std::fmt::Display) -> Problem {
    Problem::invalid(error.to_string())
}

/// Names in a row, for people.
pub(crate) fn names(names: &[SecretName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// An account.
pub(crate) fn account(account: &entity::Account) -> wire::Account {
    wire::Account {
        id: account.id.to_string(),
        name: account.name.to_string(),
        kind: account_kind(account.kind).to_owned(),
        description: account.description.clone(),
        policies: account.policies.iter().map(ToString::to_string).collect(),
        groups: account.groups.iter().map(ToString::to_string).collect(),
        active: account.active,
        created_at: account.created_at,
        created_by: account.created_by.clone(),
    }
}

/// The word for a kind of account.
pub(crate) fn account_kind(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::User => "user",
        AccountKind::OsUser => "os_user",
        AccountKind::ServiceAccount => "service_account",
        AccountKind::Group => "group",
    }
}

/// The kind of account that a word means.
pub(crate) fn parse_account_kind(word: &str) -> Result<AccountKind, Problem> {
    let kinds = [AccountKind::User, AccountKind::OsUser, AccountKind::ServiceAccount, AccountKind::Group];
    kinds
        .into_iter()
        .find(|kind| account_kind(*kind) == word)
        .ok_or_else(|| Problem::invalid("`kind` is none of `user`, `os_user`, `service_account`, `group`"))
}

/// A token, without the token.
pub(crate) fn token(token: &TokenEntity, account: Option<AccountName>) -> wire::Token {
    wire::Token {
        id: token.id.to_string(),
        account: account.map_or_else(|| token.principal.to_string(), |name| name.to_string()),
        masked: token.masked.clone(),
        description: token.description.clone(),
        created_at: token.created_at,
        created_by: token.created_by.clone(),
        expires_at: token.expires_at,
        renewable_until: token.renewable_until,
        uses_left: token.uses_left,
        networks: token.networks.iter().map(ToString::to_string).collect(),
        made_with: token.made_with.map(|id| id.to_string()),
    }
}

/// A policy.
pub(crate) fn policy(entity: &PolicyEntity) -> Result<wire::Policy, Problem> {
    Ok(wire::Policy {
        policy: serde_json::to_value(&entity.policy).map_err(|_| Problem::internal())?,
        updated_at: entity.updated_at,
        updated_by: entity.updated_by.clone(),
    })
}

/// A grant as it is now.
pub(crate) fn grant(vault: &Vault, grant: &entity::GrantEntity) -> Result<wire::Grant, Problem> {
    let name = |id| vault.account_name(id).map_or_else(|| format!("{id}"), |name| name.to_string());
    let rules = grant.rules.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    let has_ended = vault.now() >= grant.expires_at || grant.uses_left == Some(0);
    let (state, state_at) = match grant.state {
        StoredGrantState::Revoked { at } => ("revoked", Some(at)),
        _ if has_ended => ("ended", None),
        StoredGrantState::NeedsApproval => ("needs_approval", None),
        StoredGrantState::Delayed { until } if vault.now() < until => ("delayed", Some(until)),
        StoredGrantState::Delayed { .. } | StoredGrantState::Active => ("active", None),
    };
    Ok(wire::Grant {
        id: grant.id.to_string(),
        account: name(grant.principal),
        rules: rules.map_err(|_| Problem::internal())?,
        starts_at: grant.starts_at,
        expires_at: grant.expires_at,
        uses_left: grant.uses_left,
        state: state.to_owned(),
        state_at,
        granted_by: name(grant.granted_by),
        approved_by: grant.approved_by.map(name),
        reason: grant.reason.to_string(),
        break_glass: grant.break_glass,
    })
}

/// What ties a part of the audit log to a signed checkpoint.
pub(crate) fn archive_proof(span: &LogSpan, checkpoint: String, key: String) -> wire::ArchiveProof {
    let texts = |hashes: &[Hash]| hashes.iter().map(|hash| BASE64.encode(hash)).collect();
    wire::ArchiveProof {
        start: span.start.size(),
        end: span.end,
        frontier: texts(span.start.roots()),
        consistency: texts(&span.consistency),
        checkpoint,
        key,
    }
}

/// What stands in archives.
pub(crate) fn archived_records(vault: &Vault, archive: &Archive) -> wire::ArchivedRecords {
    let by = archive.by.parse().ok().and_then(|id| vault.account_name(id));
    wire::ArchivedRecords {
        end: archive.end,
        at: archive.at.to_string(),
        by: by.map_or_else(|| archive.by.clone(), |name| name.to_string()),
    }
}

/// An audit record.
pub(crate) fn record(record: AuditRecord) -> Result<wire::AuditEvent, Problem> {
    let damaged = |_| Problem::internal();
    let personal = record.personal.unwrap_or_default();
    Ok(wire::AuditEvent {
        event: serde_json::from_slice(&record.record).map_err(damaged)?,
        record: String::from_utf8(record.record).map_err(|_| Problem::internal())?,
        actor_name: personal.actor_name.map(|name| name.to_string()),
        address: personal.address.map(|address| address.to_string()),
        user_agent: personal.user_agent.map(|agent| agent.to_string()),
    })
}
