//! Use-cases on secrets: write, look at, reveal, move between versions, remove.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use keymoat_core::audit::{Action, AuditText, DecidedBy, DetailValue, ReasonCode};
use keymoat_core::id::SecretId;
use keymoat_core::names::{Company, Environment, Field, Label, ResourcePath, SecretPath, SystemPart};
use keymoat_core::policy::Capability;
use keymoat_core::resolve::EnvOverride;
use keymoat_core::secret::{ValueKind, check_description, check_tags, check_versions_kept};
use keymoat_core::versions::{Effect, VersionError, VersionSet};
use keymoat_crypto::{DataKey, SecretBytes};
use keymoat_detect::{Catalogue, Identification};
use keymoat_store::{Draft, Kind, Tx};

use crate::desk::{About, Deed, Rights, open_with, secret_resource};
use crate::entity::{
    DataKeyEntity, Entity as _, FieldFacts, FingerprintEntity, Secret, SecretName, VersionEntity,
    VersionFacts, fingerprint_key, version_key,
};
use crate::free_text::holds_key;
use crate::keyring::Keyring;
use crate::receipt::{Permit, Reader};
use crate::state::Wanted;
use crate::value::{NewValue, WholeValue};
use crate::{Caller, Code, Vault, VaultError};

/// A write of a secret's value.
pub struct Put {
    /// Where.
    pub name: SecretName,
    /// What.
    pub value: NewValue,
    /// Whether fields replace the whole stored value instead of going over it.
    pub replace: bool,
    /// The version that the writer believes to be current; 0 for "there is none yet".
    pub expected: Option<u32>,
    /// Whether the version is only made `pending`, so that readers do not see it yet.
    pub pending: bool,
    /// Whether a value that stands in another environment too is taken all the same, and why.
    pub duplicate_because: Option<AuditText>,
    /// Whether an empty value may go over one that is not.
    pub allow_empty: bool,
    /// What is said about the secret.
    pub annotation: Annotation,
    /// The action that the record names: a write, or an import. An import of what stands there makes no new version.
    pub action: Action,
}

/// What is said about a secret; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Annotation {
    /// What it is for.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// All of its tags.
    pub tags: Option<std::collections::BTreeMap<String, String>>,
    /// Tags to add to those that are there, or over them.
    pub add_tags: std::collections::BTreeMap<String, String>,
    /// When it stops being valid; `Some(None)` takes the date away.
    pub expires_at: Option<Option<Timestamp>>,
    /// What a variable may do.
    pub env_override: Option<EnvOverride>,
    /// Whether every write must say which version it follows.
    pub cas_required: Option<bool>,
    /// Versions kept.
    pub max_versions: Option<u32>,
}

/// What a write did.
#[derive(Debug, Clone)]
pub struct Written {
    /// The secret as it is now.
    pub secret: Arc<Secret>,
    /// The version that was made, or that stood there already.
    pub version: u32,
    /// Whether the secret is new.
    pub is_new: bool,
    /// Whether an import found the very value there, so that no version was made.
    pub is_unchanged: bool,
    /// Where else in the same environment the same value stands, as far as the caller may know.
    pub also_at: Vec<SecretName>,
    /// The number of the record.
    pub event: u64,
}

/// A value that was given out.
#[derive(Debug)]
pub struct Revealed {
    /// The value, of the whole or of the field.
    pub value: SecretBytes,
    /// What the value is.
    pub kind: ValueKind,
    /// The version.
    pub version: u32,
    /// The number of the record.
    pub event: u64,
}

/// A page of secrets.
#[derive(Debug, Clone)]
pub struct SecretPage {
    /// The secrets that the caller may list, in the order of their names.
    pub secrets: Vec<Arc<Secret>>,
    /// The name to go on after; none when this is the last page.
    pub next: Option<SecretName>,
}

impl Vault {
    /// Writes a value.
    ///
    /// # Errors
    /// [`Code::Refused`], [`Code::Conflict`] when another version is current or an empty value would go over one that
    /// is not, [`Code::Duplicate`] when the value stands in another environment, and those of the store.
    pub async fn put(&self, caller: &Caller, put: Put) -> Result<Written, VaultError> {
        put.annotation.check()?;
        self.check_no_key(put.annotation.texts())?;
        self.check_no_key(put.duplicate_because.iter().map(|why| ("the reason", why.as_str())))?;
        let put = Arc::new(put);
        self.retry_stale(|| async {
            let resource = secret_resource(&put.name, None);
            let permit = self.authorize(caller, Capability::Write, put.action, resource).await?;
            if let Err(error) = self.check_place(caller, &put.name) {
                return Err(self.failed(&permit, put.action, error).await);
            }
            self.put_permitted(&permit, Arc::clone(&put)).await
        })
        .await
    }

    async fn put_permitted(&self, permit: &Permit, put: Arc<Put>) -> Result<Written, VaultError> {
        let writer = Writer {
            keyring: self.keyring_arc(),
            catalogue: self.catalogue(),
            now: self.now(),
            by: permit.caller.name.to_string(),
            may_compare: self.may_uncounted(&permit.caller, Capability::Inspect, &permit.resource),
        };
        let deed = Deed::done(put.action, &permit.resource);
        let deed = deed.because(put.duplicate_because.as_ref());
        let found_there = deed.clone().detail("unchanged", AuditText::new("yes"));
        let done = self.draft(&permit.caller, deed, Some(permit.decided_by.clone()));
        let found_there = self.draft(&permit.caller, found_there, Some(permit.decided_by.clone()));
        let may_delete = self.may_uncounted(&permit.caller, Capability::Delete, &permit.resource);
        let (pass, shared) = (permit.pass, Arc::clone(&put));
        let new_id = self.new_secret_id();
        let outcome = self
            .store()
            .run_tx("put", move |tx| {
                pass.enter(tx)?;
                let stored = writer.put(tx, &shared, new_id, may_delete)?;
                let mut draft = if stored.is_unchanged { found_there.clone() } else { done.clone() };
                draft.event.version = Some(stored.version);
                note(&mut draft, DESTROYED, &ranges(&stored.pruned));
                if let Some((before, after)) = stored.kept {
                    note(&mut draft, KEPT, &format!("{after}, no longer {before}"));
                }
                tx.append(draft);
                Ok::<_, VaultError>(stored)
            })
            .await;
        match outcome {
            Ok((stored, committed)) => {
                if !stored.pruned.is_empty() {
                    self.scrub_later();
                }
                let also_at = self.visible(&permit.caller, stored.also_at);
                Ok(Written {
                    secret: Arc::new(stored.secret),
                    version: stored.version,
                    is_new: stored.is_new,
                    is_unchanged: stored.is_unchanged,
                    also_at,
                    event: committed.event,
                })
            }
            Err(error) => Err(self.put_failed(permit, &put, error).await),
        }
    }

    /// A write that was allowed and could not be done is on record too.
    async fn put_failed(&self, permit: &Permit, put: &Put, error: VaultError) -> VaultError {
        let reason = match error.code {
            Code::Refused => return self.refused_within(permit, put.action, error).await,
            Code::Duplicate => ReasonCode::Duplicate,
            Code::Conflict if !error.is_stale() => ReasonCode::Conflict,
            Code::Invalid => ReasonCode::Invalid,
            Code::TooLarge => ReasonCode::TooLarge,
            _ => return error,
        };
        let deed = Deed::failed(put.action, &permit.resource, reason);
        match self.record(permit, deed).await {
            Ok(_) if reason == ReasonCode::Duplicate => self.name_duplicates(&permit.caller, error),
            Ok(_) => error,
            Err(error) => error,
        }
    }

    /// Writes down that an allowed change would have done something that the caller may not do.
    async fn refused_within(&self, permit: &Permit, action: Action, error: VaultError) -> VaultError {
        let deed = Deed::refused(action, &permit.resource, ReasonCode::NoRule);
        match self.record_refusal(&permit.caller, deed, None).await {
            Ok(()) => error,
            Err(unrecorded) => unrecorded,
        }
    }

    /// Names the other places of a value only to those who may know of them.
    fn name_duplicates(&self, caller: &Caller, error: VaultError) -> VaultError {
        let places: Vec<SecretName> =
            error.message.split('\n').skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect();
        let visible = self.visible(caller, places);
        let message = match visible.as_slice() {
            [] => "the same key is already stored in another environment".to_owned(),
            some => format!(
                "the same key is already stored as {}",
                some.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
        };
        VaultError::new(Code::Duplicate, message)
            .hint("make a key of its own for each environment, or say why with --allow-duplicate REASON")
    }

    /// Gives a value out. The record is on the disk before the value is decrypted.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`] when there is no such secret, version or field.
    pub async fn reveal(
        &self,
        caller: &Caller,
        name: &SecretName,
        field: Option<&Field>,
        wanted: &Wanted,
        why: Option<&AuditText>,
    ) -> Result<Revealed, VaultError> {
        self.check_no_key(why.iter().map(|why| ("the reason", why.as_str())))?;
        self.check_no_key(field.iter().map(|field| ("the name of a field", field.as_str())))?;
        self.retry_stale(|| async {
            let resource = secret_resource(name, field);
            let permit = self.authorize(caller, Capability::Reveal, Action::Reveal, resource.clone()).await?;
            let place = self.check_place(caller, name);
            let found = match place.and(self.ciphertext(name, field, wanted).await) {
                Ok(found) => found,
                Err(error) => {
                    let reason = if error.code == Code::NotFound {
                        ReasonCode::NotFound
                    } else {
                        ReasonCode::Internal
                    };
                    self.record(&permit, Deed::failed(Action::Reveal, &resource, reason)).await?;
                    return Err(error);
                }
            };
            let deed = Deed::done(Action::Reveal, &resource).because(why);
            let (receipt, event) = self.receive(&permit, deed, &found.secret, found.version).await?;
            let value = self.open_value(receipt, caller, &found.secret, found.version, &found.bytes).await?;
            found.give(value, field, event)
        })
        .await
    }

    /// What may be shown of a secret.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn inspect(&self, caller: &Caller, name: &SecretName) -> Result<Arc<Secret>, VaultError> {
        self.retry_stale(|| async {
            let resource = secret_resource(name, None);
            let permit =
                self.authorize(caller, Capability::Inspect, Action::Inspect, resource.clone()).await?;
            let secret = self.check_place(caller, name).and(self.find(name));
            let deed = match secret.is_ok() {
                true => Deed::done(Action::Inspect, &resource),
                false => Deed::failed(Action::Inspect, &resource, ReasonCode::NotFound),
            };
            self.record(&permit, deed).await?;
            secret
        })
        .await
    }

    /// The secrets of an environment that the caller may list, a page at a time.
    ///
    /// # Errors
    /// [`Code::Refused`] when he may list nothing there at all.
    pub async fn list(
        &self,
        caller: &Caller,
        environment: &Environment,
        company: Option<&Company>,
        prefix: Option<&SecretPath>,
        after: Option<&SecretName>,
        limit: usize,
    ) -> Result<SecretPage, VaultError> {
        let asked = Listed { environment, company, prefix, after, limit };
        self.retry_stale(|| async {
            let (rights, epoch) = self.state(|state| (Rights::of_caller(state, caller), state.epoch));
            // A list is of many secrets and takes no use off a grant, so what counts its uses gives nothing here.
            let rights = rights.uncounted();
            let Some(decided_by) = rights.lists_in(environment, self.now()) else {
                let deed = Deed::refused(Action::List, asked.about(), ReasonCode::NoRule);
                self.record_refusal(caller, deed, None).await?;
                let why = format!("`{}` may not list anything in `{environment}`", caller.name);
                return Err(VaultError::new(Code::Refused, why)
                    .hint("ask an administrator for a policy, or a grant without a number of uses"));
            };
            if let Err(error) = self.check_listed(caller, &asked) {
                let deed = Deed::failed(Action::List, asked.about(), ReasonCode::NotFound);
                self.store().append(self.draft(caller, deed, Some(decided_by)), Some(epoch)).await?;
                return Err(error);
            }
            let page = self.page(caller, &rights, &asked);
            let draft = self.draft(caller, Deed::done(Action::List, asked.about()), Some(decided_by));
            self.store_for(caller).append(draft, Some(epoch)).await?;
            Ok(page)
        })
        .await
    }

    fn check_listed(&self, caller: &Caller, asked: &Listed<'_>) -> Result<(), VaultError> {
        self.check_environment(caller, asked.environment)?;
        asked.company.map_or(Ok(()), |company| self.check_company(caller, company))
    }

    /// Goes through the names a part at a time, so that nobody who changes something waits for a long list.
    fn page(&self, caller: &Caller, rights: &Rights, asked: &Listed<'_>) -> SecretPage {
        let mut secrets: Vec<Arc<Secret>> = Vec::new();
        let mut at = asked.start();
        while secrets.len() <= asked.limit {
            let part = self.state(|state| {
                let names = state.secrets.range((at.clone(), Bound::Unbounded));
                let names = names.take_while(|(name, _)| asked.is_near(name));
                names.take(LISTED_AT_ONCE).map(|(_, secret)| Arc::clone(secret)).collect::<Vec<_>>()
            });
            let Some(last) = part.last() else { break };
            at = Bound::Excluded(last.name.clone());
            let is_over = part.len() < LISTED_AT_ONCE;
            let listed = part.into_iter().filter(|secret| asked.is_about(&secret.name)).filter(|secret| {
                let resource = secret_resource(&secret.name, None);
                rights.decide(&self.request(caller, Capability::List, &resource)).is_allowed()
            });
            secrets.extend(listed);
            if is_over {
                break;
            }
        }
        let more = secrets.len() > asked.limit;
        secrets.truncate(asked.limit);
        let next = if more { secrets.last().map(|secret| secret.name.clone()) } else { None };
        SecretPage { secrets, next }
    }

    /// Changes what is said about a secret.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Invalid`].
    pub async fn annotate(
        &self,
        caller: &Caller,
        name: &SecretName,
        annotation: Annotation,
    ) -> Result<Arc<Secret>, VaultError> {
        annotation.check()?;
        self.check_no_key(annotation.texts())?;
        self.change(caller, name, Capability::Write, Action::Annotate, None, move |change| {
            let before = change.secret.max_versions;
            annotation.check_history(change.secret, change.may_delete)?;
            annotation.apply(change.secret)?;
            if change.secret.max_versions < before {
                let after = change.secret.max_versions;
                change.notes.push((KEPT, format!("{after}, no longer {before}")));
            }
            Ok(())
        })
        .await
    }

    /// Makes an older version current again.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Conflict`] when the version cannot be current.
    pub async fn rollback(
        &self,
        caller: &Caller,
        name: &SecretName,
        version: u32,
    ) -> Result<Arc<Secret>, VaultError> {
        self.change(caller, name, Capability::Write, Action::Rollback, Some(version), move |change| {
            change.versions(|versions| versions.rollback_to(version))
        })
        .await
    }

    /// Makes the pending version current.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Conflict`] when nothing is pending.
    pub async fn promote(&self, caller: &Caller, name: &SecretName) -> Result<Arc<Secret>, VaultError> {
        self.change(caller, name, Capability::Rotate, Action::Promote, None, |change| {
            change.versions(VersionSet::promote)
        })
        .await
    }

    /// Points a label at a version, or takes it away for `None`.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Conflict`] when the label cannot be there.
    pub async fn label(
        &self,
        caller: &Caller,
        name: &SecretName,
        label: Label,
        version: Option<u32>,
    ) -> Result<Arc<Secret>, VaultError> {
        self.check_no_key([("the label", label.as_str())])?;
        self.change(caller, name, Capability::Write, Action::Label, version, move |change| {
            change.versions(|versions| match version {
                Some(number) => versions.set_label(label.clone(), number),
                None => versions.remove_label(&label),
            })
        })
        .await
    }

    /// Deletes versions, so that they can still come back; all live ones for an empty list.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn delete(
        &self,
        caller: &Caller,
        name: &SecretName,
        versions: Vec<u32>,
    ) -> Result<Arc<Secret>, VaultError> {
        let now = self.now();
        self.change(caller, name, Capability::Delete, Action::Delete, only(&versions), move |change| {
            let numbers = change.numbers(&versions);
            change.notes.push((VERSIONS, ranges(&numbers)));
            change.versions(|set| set.delete(&numbers, now))
        })
        .await
    }

    /// Brings deleted versions back; all deleted ones for an empty list.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`]; [`Code::Conflict`] when one is destroyed.
    pub async fn undelete(
        &self,
        caller: &Caller,
        name: &SecretName,
        versions: Vec<u32>,
    ) -> Result<Arc<Secret>, VaultError> {
        self.change(caller, name, Capability::Delete, Action::Undelete, only(&versions), move |change| {
            let numbers = change.numbers(&versions);
            change.notes.push((VERSIONS, ranges(&numbers)));
            change.versions(|set| set.undelete(&numbers))
        })
        .await
    }

    /// Destroys versions for good, all of them for an empty list, and leaves no ciphertext of them in the files.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn destroy(
        &self,
        caller: &Caller,
        name: &SecretName,
        versions: Vec<u32>,
    ) -> Result<Arc<Secret>, VaultError> {
        let now = self.now();
        let secret = self
            .change(caller, name, Capability::Delete, Action::Destroy, only(&versions), move |change| {
                let numbers = match versions.is_empty() {
                    true => change.secret.versions.versions().keys().copied().collect(),
                    false => versions.clone(),
                };
                change.notes.push((DESTROYED, ranges(&numbers)));
                change.versions(|set| set.destroy(&numbers, now))?;
                change.drop_values(&numbers)?;
                change.forget_fingerprints(&numbers);
                Ok(())
            })
            .await?;
        // The write-ahead log still holds the old pages.
        self.scrub_soon().await;
        Ok(secret)
    }

    async fn change(
        &self,
        caller: &Caller,
        name: &SecretName,
        capability: Capability,
        action: Action,
        version: Option<u32>,
        work: impl Fn(&mut Change<'_, '_>) -> Result<(), VaultError> + Send + Sync + 'static,
    ) -> Result<Arc<Secret>, VaultError> {
        let work = Arc::new(work);
        self.retry_stale(|| async {
            let resource = secret_resource(name, None);
            let permit = self.authorize(caller, capability, action, resource.clone()).await?;
            let mut deed = Deed::done(action, &resource);
            deed.version = version;
            if let Err(error) = self.check_place(caller, name) {
                return Err(self.failed(&permit, action, error).await);
            }
            let may_delete = self.may_uncounted(caller, Capability::Delete, &resource);
            let draft = self.draft(caller, deed, Some(permit.decided_by.clone()));
            let (pass, key, work) = (permit.pass, name.clone(), Arc::clone(&work));
            let store = match capability {
                Capability::Delete => self.store_for(caller),
                _ => self.store().clone(),
            };
            let changed = store
                .run_tx("change", move |tx| {
                    pass.enter(tx)?;
                    let mut secret = stored_secret(tx, &key)?.ok_or_else(|| no_secret(&key))?;
                    let mut change = Change { tx, secret: &mut secret, may_delete, notes: Vec::new() };
                    work(&mut change)?;
                    let mut draft = draft.clone();
                    for (name, text) in change.notes {
                        note(&mut draft, name, &text);
                    }
                    tx.put(Kind::Secret, &secret.key(), &secret.body(), None)?;
                    tx.append(draft);
                    Ok::<_, VaultError>(secret)
                })
                .await;
            match changed {
                Ok((secret, _)) => Ok(Arc::new(secret)),
                Err(error) if error.code == Code::Refused => {
                    Err(self.refused_within(&permit, action, error).await)
                }
                Err(error)
                    if matches!(error.code, Code::NotFound)
                        || (error.code == Code::Conflict && !error.is_stale()) =>
                {
                    let reason = if error.code == Code::NotFound {
                        ReasonCode::NotFound
                    } else {
                        ReasonCode::Conflict
                    };
                    self.record(&permit, Deed::failed(action, &resource, reason)).await?;
                    Err(error)
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// A stored secret, by name; nobody is asked whether he may.
    pub(crate) fn find(&self, name: &SecretName) -> Result<Arc<Secret>, VaultError> {
        self.state(|state| state.secrets.get(name).map(Arc::clone)).ok_or_else(|| no_secret(name))
    }

    /// The ciphertext of the wanted version, having checked that the field is there.
    pub(crate) async fn ciphertext(
        &self,
        name: &SecretName,
        field: Option<&Field>,
        wanted: &Wanted,
    ) -> Result<Found, VaultError> {
        let secret = self.find(name)?;
        let version = wanted_version(&secret, wanted)?;
        let facts = secret.facts.get(&version);
        if let (Some(field), Some(facts)) = (field, facts)
            && !facts.fields.iter().any(|known| known.field.as_ref() == Some(field))
        {
            return Err(no_field(name, field, facts));
        }
        let kind = facts.map_or(ValueKind::Bytes, |facts| facts.kind);
        let id = secret.id;
        let bytes = match self.state(|state| state.ciphertext(id, version)) {
            Some(bytes) => bytes,
            None => {
                let row = self
                    .store()
                    .read(move |reader| reader.row(Kind::Version, &version_key(id, version)))
                    .await?;
                let blob = row.and_then(|row| row.blob);
                blob.ok_or_else(|| VaultError::damaged(format!("version {version} of `{name}` is gone")))?
                    .into()
            }
        };
        Ok(Found { secret, version, kind, bytes })
    }

    /// Those of the places that the caller may inspect.
    fn visible(&self, caller: &Caller, places: Vec<SecretName>) -> Vec<SecretName> {
        let may = self.inspector(caller);
        places.into_iter().filter(may).collect()
    }
}

/// Which secrets are to be listed.
struct Listed<'a> {
    environment: &'a Environment,
    company: Option<&'a Company>,
    prefix: Option<&'a SecretPath>,
    after: Option<&'a SecretName>,
    limit: usize,
}

impl Listed<'_> {
    fn about(&self) -> About {
        About {
            scope: Some(self.environment.clone().into()),
            company: self.company.cloned(),
            path: self.prefix.map(|prefix| ResourcePath::from(prefix.clone())),
            field: None,
        }
    }

    /// Where the names begin.
    fn start(&self) -> Bound<SecretName> {
        let first = SecretName {
            environment: self.environment.clone(),
            company: self.company.cloned(),
            path: self.prefix.cloned().unwrap_or_else(|| "0".parse().expect("a path can begin with a digit")),
        };
        match self.after {
            Some(after) if *after >= first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        }
    }

    /// Whether what is asked for can still come: names are in the order of environment, company, path.
    fn is_near(&self, name: &SecretName) -> bool {
        name.environment == *self.environment
            && self.company.is_none_or(|company| name.company.as_ref() == Some(company))
    }

    fn is_about(&self, name: &SecretName) -> bool {
        self.company.is_none_or(|company| name.company.as_ref() == Some(company))
            && self.prefix.is_none_or(|prefix| name.path.is_within(prefix))
    }
}

impl Rights {
    /// The first rule that allows to list something in an environment.
    fn lists_in(&self, environment: &Environment, now: Timestamp) -> Option<DecidedBy> {
        let scope = environment.clone().into();
        self.allowing_rules_with_names(now).find_map(|(by, rule)| {
            let rule = rule.as_written();
            let lists = rule.capabilities.contains(&Capability::List)
                && rule.environments.iter().any(|pattern| pattern.matches(&scope));
            lists.then_some(by)
        })
    }
}

/// A version's ciphertext with what is known of it.
pub(crate) struct Found {
    pub(crate) secret: Arc<Secret>,
    pub(crate) version: u32,
    pub(crate) kind: ValueKind,
    pub(crate) bytes: Arc<[u8]>,
}

impl Found {
    pub(crate) fn give(
        &self,
        value: SecretBytes,
        field: Option<&Field>,
        event: u64,
    ) -> Result<Revealed, VaultError> {
        let whole = WholeValue { kind: self.kind, value };
        let value = whole.field(field)?.ok_or_else(|| {
            VaultError::not_found(format!(
                "`{}` has no field `{}`",
                self.secret.name,
                field.map_or("", Field::as_str)
            ))
        })?;
        let kind = if field.is_some() { ValueKind::Text } else { self.kind };
        Ok(Revealed { value, kind, version: self.version, event })
    }
}

impl Annotation {
    fn check(&self) -> Result<(), VaultError> {
        let too_large = |error: keymoat_core::secret::LimitError| VaultError::invalid(error.to_string());
        for text in [&self.description, &self.owner].into_iter().flatten() {
            check_description(text).map_err(too_large)?;
        }
        if let Some(tags) = &self.tags {
            check_tags(tags.iter().map(|(name, value)| (name.as_str(), value.as_str())))
                .map_err(too_large)?;
        }
        match self.max_versions {
            Some(count) => check_versions_kept(count as usize).map_err(too_large),
            None => Ok(()),
        }
    }

    /// What is kept in clear, with what it is.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let said = [("the description", &self.description), ("the owner", &self.owner)];
        let said = said.into_iter().filter_map(|(what, text)| Some((what, text.as_deref()?)));
        let tags = self.tags.iter().flatten().chain(&self.add_tags);
        said.chain(
            tags.flat_map(|(name, value)| [("a tag's name", name.as_str()), ("a tag", value.as_str())]),
        )
    }

    /// Keeping fewer versions lets the next write destroy some, so it needs what destroying needs.
    fn check_history(&self, secret: &Secret, may_delete: bool) -> Result<(), VaultError> {
        match self.max_versions {
            Some(count) if count < secret.max_versions && !may_delete => {
                let why = format!(
                    "keeping fewer versions of `{}` destroys some, which needs `delete`",
                    secret.name
                );
                Err(VaultError::new(Code::Refused, why)
                    .hint(format!("it keeps {}; ask somebody who may delete there", secret.max_versions)))
            }
            _ => Ok(()),
        }
    }

    /// Changes what is said; fails when the tags have become too many.
    fn apply(&self, secret: &mut Secret) -> Result<(), VaultError> {
        let set = |target: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                target.clone_from(value);
            }
        };
        set(&mut secret.description, &self.description);
        set(&mut secret.owner, &self.owner);
        if let Some(tags) = &self.tags {
            secret.tags.clone_from(tags);
        }
        if !self.add_tags.is_empty() {
            secret.tags.extend(self.add_tags.iter().map(|(name, value)| (name.clone(), value.clone())));
            check_tags(secret.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())))
                .map_err(|error| VaultError::invalid(error.to_string()))?;
        }
        secret.expires_at = self.expires_at.unwrap_or(secret.expires_at);
        secret.env_override = self.env_override.unwrap_or(secret.env_override);
        secret.cas_required = self.cas_required.unwrap_or(secret.cas_required);
        secret.max_versions = self.max_versions.unwrap_or(secret.max_versions);
        Ok(())
    }
}

/// What a write needs inside of its transaction.
struct Writer {
    keyring: Arc<Keyring>,
    catalogue: Arc<Catalogue>,
    now: Timestamp,
    by: String,
    /// Whether the writer may learn that a value is the one that stands there.
    may_compare: bool,
}

struct Stored {
    secret: Secret,
    version: u32,
    is_new: bool,
    /// Whether the value stood there already, so that only what is said about the secret was written.
    is_unchanged: bool,
    also_at: Vec<SecretName>,
    /// The versions that were destroyed because there were too many.
    pruned: Vec<u32>,
    /// How many were kept, and are from now on, where that is fewer.
    kept: Option<(u32, u32)>,
}

impl Writer {
    fn put(
        &self,
        tx: &mut Tx<'_>,
        put: &Put,
        new_id: SecretId,
        may_delete: bool,
    ) -> Result<Stored, VaultError> {
        let existing = stored_secret(tx, &put.name)?;
        let is_new = existing.is_none();
        let mut secret = existing.unwrap_or_else(|| new_secret(put.name.clone(), new_id, self.now));
        check_expected(&secret, put)?;
        let merges = matches!(put.value, NewValue::Fields(_)) && !put.replace;
        let mut old = if merges { self.current_value(tx, &secret)? } else { None };
        let whole = put.value.over(old.as_ref())?;
        let fields = whole.fields()?;
        let empties = !put.allow_empty && fields.iter().any(|(_, value)| value.is_empty());
        // Who may only write must not find out by guessing what stands there.
        let may_stand = self.may_compare && put.action == Action::Import && !put.pending;
        if old.is_none() && (empties || may_stand) {
            old = self.current_value(tx, &secret)?;
        }
        if empties {
            check_nothing_is_emptied(&put.name, old.as_ref(), &fields)?;
        }
        if fields.iter().flat_map(|(field, _)| field).any(|field| self.catalogue.holds_a_key(field.as_str()))
        {
            return Err(holds_key("the name of a field"));
        }
        let said_before = secret.body();
        // A new secret has no history that could be lost.
        put.annotation.check_history(&secret, may_delete || is_new)?;
        let kept_before = secret.max_versions;
        put.annotation.apply(&mut secret)?;
        let kept =
            (!is_new && secret.max_versions < kept_before).then_some((kept_before, secret.max_versions));
        if let Some(version) = secret.versions.current().filter(|_| may_stand)
            && let Some(old) = &old
            && whole.is_same_as(old)?
        {
            // Whoever waits for changes hears of one only where there is one.
            if secret.body() != said_before {
                tx.put(Kind::Secret, &secret.key(), &secret.body(), None)?;
            }
            let also_at = Vec::new();
            return Ok(Stored {
                secret,
                version,
                is_new,
                is_unchanged: true,
                also_at,
                pruned: Vec::new(),
                kept,
            });
        }

        let effect = match put.pending {
            true => secret.versions.put_pending(self.now),
            false => secret.versions.put(self.now),
        };
        let version = effect.map_err(version_error)?.created.expect("a put makes a version");
        let facts = self.all_facts(&fields);
        let also_at = self.fingerprint(tx, put, &secret, version, &facts)?;
        let facts = VersionFacts { created_by: self.by.clone(), kind: whole.kind, fields: facts.into() };
        secret.facts.insert(version, facts);
        let pruned = secret.versions.prune(secret.max_versions as usize).removed;
        let mut change = Change { tx, secret: &mut secret, may_delete, notes: Vec::new() };
        change.drop_values(&pruned)?;
        pruned.iter().for_each(|number| drop(change.secret.facts.remove(number)));

        let key = self.data_key(tx, &put.name)?;
        let ciphertext = self.keyring.seal(&key, &secret.name, *secret.id.as_uuid(), version, &whole.value);
        tx.put(Kind::Secret, &secret.key(), &secret.body(), None)?;
        let entity = VersionEntity { secret: secret.id, version, data_key: key.id() };
        tx.put(Kind::Version, &entity.key(), &entity.body(), Some(&ciphertext))?;
        Ok(Stored { secret, version, is_new, is_unchanged: false, also_at, pruned, kept })
    }

    /// The current value, which fields go over and a new one is compared with; opened for that alone, in the
    /// transaction that records the write.
    fn current_value(&self, tx: &Tx<'_>, secret: &Secret) -> Result<Option<WholeValue>, VaultError> {
        let Some(version) = secret.versions.current() else { return Ok(None) };
        let part: SystemPart = "merge".parse()?;
        let receipt = Vault::system_receipt(part.clone(), secret, version);
        let row = tx.row(Kind::Version, &version_key(secret.id, version))?;
        let ciphertext = row
            .and_then(|row| row.blob)
            .ok_or_else(|| VaultError::damaged(format!("version {version} of `{}` is gone", secret.name)))?;
        let value = open_with(&self.keyring, receipt, &Reader::System(part), secret, version, &ciphertext)?;
        let kind = secret.facts.get(&version).map_or(ValueKind::Bytes, |facts| facts.kind);
        Ok(Some(WholeValue { kind, value }))
    }

    /// What may be shown of each field, with the fingerprint of those that have one.
    fn all_facts(&self, fields: &[(Option<Field>, SecretBytes)]) -> Vec<FieldFacts> {
        fields.iter().map(|(field, value)| self.facts(field.as_ref(), value)).collect()
    }

    /// Looks for the same values elsewhere and writes where these stand now; returns the other places in the same
    /// environment.
    fn fingerprint(
        &self,
        tx: &mut Tx<'_>,
        put: &Put,
        secret: &Secret,
        version: u32,
        facts: &[FieldFacts],
    ) -> Result<Vec<SecretName>, VaultError> {
        let mut also_at = Vec::new();
        let mut elsewhere = Vec::new();
        for FieldFacts { field, fingerprint, .. } in facts {
            let Some(fingerprint) = fingerprint else { continue };
            for other in places_of(tx, fingerprint, &put.name.environment)? {
                if other.name.environment != put.name.environment {
                    elsewhere.push(other.name);
                } else if other.secret != secret.id {
                    also_at.push(other.name);
                }
            }
            let entity = FingerprintEntity {
                fingerprint: fingerprint.clone(),
                secret: secret.id,
                version,
                field: field.clone(),
                name: put.name.clone(),
            };
            tx.put(Kind::Fingerprint, &entity.key(), &entity.body(), None)?;
        }
        also_at.sort();
        also_at.dedup();
        elsewhere.sort();
        elsewhere.dedup();
        if elsewhere.is_empty() || put.duplicate_because.is_some() {
            return Ok(also_at);
        }
        Err(duplicate(elsewhere))
    }

    fn facts(&self, field: Option<&Field>, value: &SecretBytes) -> FieldFacts {
        // EXPOSE: what leaves is the mask and the catalogue's names.
        value.expose(|bytes| {
            let mut facts = FieldFacts {
                field: field.cloned(),
                masked: self.catalogue.mask(bytes),
                provider: None,
                key_kind: None,
                mode: None,
                fingerprint: None,
            };
            if self.catalogue.is_fingerprintable(bytes) {
                facts.fingerprint = Some(self.keyring.fingerprint(value).to_string());
            }
            if let Identification::Known(known) = self.catalogue.identify(bytes) {
                facts.provider = Some(known.provider.id.clone());
                facts.key_kind = Some(known.key.kind.as_str().to_owned());
                facts.mode = Some(known.key.mode.as_str().to_owned());
            }
            facts
        })
    }

    /// The data key of the place, made on its first use.
    fn data_key(&self, tx: &mut Tx<'_>, name: &SecretName) -> Result<Arc<DataKey>, VaultError> {
        if let Some(key) = self.keyring.active_data_key(&name.environment, name.company.as_ref()) {
            return Ok(key);
        }
        let rows = tx.rows_with_prefix(Kind::DataKey, "", usize::MAX)?;
        for row in &rows {
            let entity = DataKeyEntity::parse(row)?;
            if entity.active && entity.environment == name.environment && entity.company == name.company {
                return Ok(Arc::new(self.keyring.unwrap_data_key(
                    &*self.keyring.root_in(tx)?,
                    row,
                    &entity,
                )?));
            }
        }
        let id = rows.iter().filter_map(|row| row.key.parse::<u32>().ok()).max().unwrap_or(0) + 1;
        Ok(Arc::new(put_data_key(
            tx,
            &self.keyring,
            id,
            name.environment.clone(),
            name.company.clone(),
            self.now,
        )?))
    }
}

/// Where a value stands: of the places in this environment, and of those in others, so many as anybody wants to read.
fn places_of(
    tx: &Tx<'_>,
    fingerprint: &str,
    environment: &Environment,
) -> Result<Vec<FingerprintEntity>, VaultError> {
    // `/` is followed by `0`.
    let (first, last) = (format!("{fingerprint}/"), format!("{fingerprint}0"));
    let (here, after) = (format!("{fingerprint}/{environment}/"), format!("{fingerprint}/{environment}0"));
    let mut rows = tx.rows_between(Kind::Fingerprint, &first, &last, ALSO_AT_MAX)?;
    // A value in many places: those of one environment must not hide the others.
    if rows.len() == ALSO_AT_MAX {
        rows.clear();
        for (from, until) in [(&first, &here), (&here, &after), (&after, &last)] {
            rows.extend(tx.rows_between(Kind::Fingerprint, from, until, ALSO_AT_MAX)?);
        }
    }
    rows.iter().map(FingerprintEntity::parse).collect()
}

/// Makes a data key and writes its row.
pub(crate) fn put_data_key(
    tx: &mut Tx<'_>,
    keyring: &Keyring,
    id: u32,
    environment: Environment,
    company: Option<Company>,
    now: Timestamp,
) -> Result<DataKey, VaultError> {
    let key = DataKey::generate(id);
    let entity = DataKeyEntity { id, environment, company, created_at: now, active: true };
    let wrapped = keyring.wrap_data_key(&*keyring.root_in(tx)?, &key, &entity);
    tx.put(Kind::DataKey, &entity.key(), &entity.body(), Some(&wrapped))?;
    Ok(key)
}

/// A secret being changed inside of a transaction.
struct Change<'t, 'c> {
    tx: &'t mut Tx<'c>,
    secret: &'t mut Secret,
    /// Whether who changes it may destroy versions of it.
    may_delete: bool,
    /// Facts for the record.
    notes: Vec<(&'static str, String)>,
}

impl Change<'_, '_> {
    fn versions(
        &mut self,
        work: impl FnOnce(&mut VersionSet) -> Result<Effect, VersionError>,
    ) -> Result<(), VaultError> {
        work(&mut self.secret.versions).map(|_| ()).map_err(version_error)
    }

    /// The numbers asked for; every version that is not destroyed for none.
    fn numbers(&self, asked: &[u32]) -> Vec<u32> {
        if !asked.is_empty() {
            return asked.to_vec();
        }
        let versions = self.secret.versions.versions().iter();
        versions.filter(|(_, state)| state.destroyed_at.is_none()).map(|(number, _)| *number).collect()
    }

    /// Takes the fingerprints out of what is said of versions whose values are gone.
    fn forget_fingerprints(&mut self, versions: &[u32]) {
        for version in versions {
            let facts = self.secret.facts.get_mut(version);
            facts.into_iter().flat_map(|facts| &mut facts.fields).for_each(|field| field.fingerprint = None);
        }
    }

    /// Removes the ciphertexts and fingerprints of versions.
    fn drop_values(&mut self, versions: &[u32]) -> Result<(), VaultError> {
        for version in versions {
            self.tx.remove(Kind::Version, &version_key(self.secret.id, *version))?;
            let fields = self.secret.facts.get(version).map(|facts| &*facts.fields).unwrap_or_default();
            for FieldFacts { field, fingerprint, .. } in fields {
                if let Some(fingerprint) = fingerprint {
                    let key = fingerprint_key(
                        fingerprint,
                        &self.secret.name.environment,
                        self.secret.id,
                        *version,
                        field.as_ref(),
                    );
                    self.tx.remove(Kind::Fingerprint, &key)?;
                }
            }
        }
        Ok(())
    }
}

fn stored_secret(tx: &Tx<'_>, name: &SecretName) -> Result<Option<Secret>, VaultError> {
    tx.row(Kind::Secret, &name.row_key())?.map(|row| Secret::parse(&row)).transpose()
}

fn new_secret(name: SecretName, id: SecretId, now: Timestamp) -> Secret {
    Secret {
        id,
        name,
        description: String::new(),
        owner: String::new(),
        tags: Default::default(),
        expires_at: None,
        env_override: EnvOverride::Warn,
        cas_required: false,
        max_versions: DEFAULT_VERSIONS_KEPT,
        created_at: now,
        versions: VersionSet::new(),
        facts: Default::default(),
    }
}

fn check_expected(secret: &Secret, put: &Put) -> Result<(), VaultError> {
    match put.expected {
        Some(expected) => {
            let expected = (expected > 0).then_some(expected);
            secret.versions.check_and_set(expected).map_err(version_error)
        }
        None if secret.cas_required => Err(VaultError::invalid(format!(
            "`{}` wants every write to say which version it follows",
            secret.name
        ))
        .hint(format!("its newest version is {0}: `--cas {0}` writes after it", secret.versions.head()))),
        None => Ok(()),
    }
}

/// Nobody loses a value because the new one came out empty: a variable that was not set, a pipe that broke.
fn check_nothing_is_emptied(
    name: &SecretName,
    old: Option<&WholeValue>,
    new: &[(Option<Field>, SecretBytes)],
) -> Result<(), VaultError> {
    let Some(old) = old else { return Ok(()) };
    for (field, _) in new.iter().filter(|(_, value)| value.is_empty()) {
        if old.field(field.as_ref())?.is_none_or(|value| value.is_empty()) {
            continue;
        }
        let field = field.as_ref().map(|field| format!("#{field}")).unwrap_or_default();
        return Err(VaultError::conflict(format!(
            "`{name}{field}` has a value, and the new one is empty; nothing was changed"
        ))
        .hint(format!(
            "--allow-empty stores it all the same; {} takes the value away",
            name.command("delete")
        )));
    }
    Ok(())
}

/// The number of the wanted version, if it can be read.
pub(crate) fn wanted_version(secret: &Secret, wanted: &Wanted) -> Result<u32, VaultError> {
    let name = &secret.name;
    let number = match wanted {
        Wanted::Label(label) => match secret.versions.labels().get(label) {
            Some(number) => *number,
            None => {
                return Err(VaultError::not_found(format!("`{name}` has no version labelled `{label}`"))
                    .hint(format!("{} shows its labels", name.command("history"))));
            }
        },
        Wanted::Number(number) => *number,
    };
    let state = secret.versions.get(number).ok_or_else(|| {
        VaultError::not_found(format!("`{name}` has no version {number}"))
            .hint(format!("{} lists them", name.command("history")))
    })?;
    if state.destroyed_at.is_some() {
        return Err(VaultError::not_found(format!("version {number} of `{name}` was destroyed"))
            .hint(format!("nothing brings it back; {} lists the others", name.command("history"))));
    }
    if state.deleted_at.is_some() {
        return Err(VaultError::not_found(format!("version {number} of `{name}` was deleted"))
            .hint(format!("{} brings it back", name.command("undelete"))));
    }
    Ok(number)
}

fn no_secret(name: &SecretName) -> VaultError {
    VaultError::not_found(format!("no secret `{name}`"))
        .hint(format!("`keymoat list {}` shows what is there", name.flags()))
}

fn no_field(name: &SecretName, field: &Field, facts: &VersionFacts) -> VaultError {
    let known: Vec<String> = facts
        .fields
        .iter()
        .filter_map(|known| known.field.as_ref())
        .map(|known| format!("`{known}`"))
        .collect();
    let hint = match known.as_slice() {
        [] => "its value has no fields; leave the field out".to_owned(),
        some => format!("it has {}", some.join(", ")),
    };
    VaultError::not_found(format!("`{name}` has no field `{field}`")).hint(hint)
}

/// The places are in the message, a JSON line each, until it is known who may see them.
fn duplicate(places: Vec<SecretName>) -> VaultError {
    let mut message = "the same key is stored in another environment".to_owned();
    for place in places {
        message.push('\n');
        message.push_str(&serde_json::to_string(&place).unwrap_or_default());
    }
    VaultError::new(Code::Duplicate, message)
}

fn version_error(error: VersionError) -> VaultError {
    let code = match error {
        VersionError::NoSuchVersion { .. } | VersionError::NoSuchLabel { .. } => Code::NotFound,
        VersionError::Damaged => Code::Damaged,
        _ => Code::Conflict,
    };
    VaultError::new(code, error.to_string())
}

/// Adds a fact to a record; nothing for an empty text.
fn note(draft: &mut Draft, name: &str, text: &str) {
    if let (false, Ok(name)) = (text.is_empty(), name.parse()) {
        let added = draft.event.details.insert(name, DetailValue::Text(AuditText::new(text)));
        debug_assert!(added.is_ok(), "a record has room for every fact that the vault adds");
    }
}

/// Numbers as people write them: `1-4, 7`. Those of the most versions that are kept fit into a fact of a record.
fn ranges(numbers: &[u32]) -> String {
    let numbers: BTreeSet<u32> = numbers.iter().copied().collect();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn only(versions: &[u32]) -> Option<u32> {
    match versions {
        [one] => Some(*one),
        _ => None,
    }
}

/// The facts of records that name versions: those that were destroyed, those that a change is about, and how many are
/// kept from now on.
const DESTROYED: &str = "destroyed";
const VERSIONS: &str = "versions";
const KEPT: &str = "versions_kept";
/// Names looked at before the state is let go of for a moment.
const LISTED_AT_ONCE: usize = 512;
/// Versions kept of a secret that says nothing else.
const DEFAULT_VERSIONS_KEPT: u32 = 20;
/// More places of one value than a person reads; that there are others elsewhere is found however many there are.
const ALSO_AT_MAX: usize = 100;
