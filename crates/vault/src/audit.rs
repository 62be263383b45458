//! Reading the audit log, proving single records, and taking in a host's own sensitive actions.

use std::collections::{BTreeMap, BTreeSet};

use keymoat_core::audit::{
    Action, AuditText, DetailValue, Details, Event, EventFilter, MAX_DETAILS, Outcome, Personal,
};
use keymoat_core::id::PrincipalId;
use keymoat_core::names::{AccountName, Label};
use keymoat_core::policy::Capability;
use keymoat_core::tree::Hash;
use keymoat_store::{Archive, EventRange, StoredEvent};

use crate::desk::{About, Deed, system_resource};
use crate::entity::SecretName;
use crate::following::COVERS_TEXT;
use crate::receipt::Permit;
use crate::{Caller, Code, Vault, VaultError, VerifyReport};

/// Which records are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// What must hold of a record.
    pub filter: EventFilter,
    /// By an account of this name; it is looked up.
    pub account: Option<AccountName>,
    /// Only records with a lower number: where the last page ended.
    pub before: Option<u64>,
    /// Only records with a number of at least this.
    pub from: u64,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// At most so many.
    pub limit: usize,
    /// Whether the caller looks again and again: one record then covers his looks with these filters for a minute.
    pub follow: bool,
}

/// A record as people read it.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// The record.
    pub event: Event,
    /// Its canonical text, which the tree commits to.
    pub record: Vec<u8>,
    /// Name and address, unless they were erased.
    pub personal: Option<Personal>,
}

/// The proof that one record is in the signed log; it can be checked without this vault.
#[derive(Debug, Clone)]
pub struct Inclusion {
    /// The record.
    pub record: AuditRecord,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// Records under the checkpoint.
    pub size: u64,
    /// The RFC 6962 audit path.
    pub proof: Vec<Hash>,
}

/// A sensitive action of the host program, such as a payment.
#[derive(Debug, Clone)]
pub struct HostEvent {
    /// What was done, in the host's words.
    pub action: AuditText,
    /// How it ended.
    pub outcome: Outcome,
    /// Bounded facts; one that looks like a key is refused.
    pub details: Details,
}

impl Vault {
    /// The records that fit, newest first unless asked otherwise. Reading the log is on record too; of a follower's
    /// looks the first, and then one a minute.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`] for an unknown account.
    pub async fn query_audit(
        &self,
        caller: &Caller,
        query: AuditQuery,
    ) -> Result<Vec<AuditRecord>, VaultError> {
        self.retry_stale(|| async {
            let resource = system_resource("audit")?;
            let permit =
                self.authorize(caller, Capability::Inspect, Action::AuditRead, resource.clone()).await?;
            self.record_look(&permit, &query, Deed::done(Action::AuditRead, &resource)).await
        })
        .await?;
        let (filter, range) = self.range_of(query.filter, query.account.as_ref())?;
        let range =
            EventRange { from: query.from, before: query.before, newest_first: !query.oldest_first, ..range };
        let limit = query.limit.min(RECORDS_MAX);
        let records = self
            .store()
            .read(move |reader| {
                let mut records = Vec::new();
                if limit == 0 {
                    return Ok(records);
                }
                reader.events(&range, |stored| {
                    if filter.matches(&stored.event) {
                        records.push(AuditRecord::from(stored));
                    }
                    records.len() < limit
                })?;
                Ok(records)
            })
            .await?;
        Ok(records)
    }

    /// Writes a look at the log down, unless the record of a look before covers it. A grant with a number of uses is
    /// spent each time, so each time is on record.
    async fn record_look(&self, permit: &Permit, query: &AuditQuery, deed: Deed) -> Result<(), VaultError> {
        if !query.follow || permit.pass.spends.is_some() {
            return self.record(permit, deed).await.map(|_| ());
        }
        let (caller, now) = (&permit.caller, self.now());
        let follower =
            format!("{:?} {:?} {:?} {:?}", caller.principal, caller.token, query.account, query.filter);
        if self.following().is_covered(&follower, query.from, now) {
            return Ok(());
        }
        self.record(
            permit,
            deed.detail("follows", AuditText::new(COVERS_TEXT))
                .detail("from", AuditText::new(&query.from.to_string())),
        )
        .await?;
        self.following().cover(follower, query.from, now);
        Ok(())
    }

    /// Proves that a record is in the signed log.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::NotFound`].
    pub async fn prove(&self, caller: &Caller, seq: u64) -> Result<Inclusion, VaultError> {
        self.record_reading(caller).await?;
        let proof = self
            .store()
            .read(move |reader| {
                let Some(stored) = reader.event(seq)? else { return Ok(None) };
                let Some(checkpoint) = reader.checkpoint()? else { return Ok(None) };
                let size = reader.events_len()?;
                let proof = reader.inclusion_proof(seq, size)?;
                Ok(Some(Inclusion { record: stored.into(), checkpoint, size, proof }))
            })
            .await?;
        proof.ok_or_else(|| match self.archive() {
            Some(archive) if seq < archive.end => VaultError::not_found(format!(
                "record {seq} is in an archive: those before {} were archived by {}",
                archive.end, archive.at
            ))
            .hint(format!("`keymoat audit prove {seq} --export ARCHIVE` proves it from there")),
            _ => VaultError::not_found(format!("there is no record {seq}")),
        })
    }

    /// What stands in archives and may be missing among the records that a query found; none when it did not look there.
    pub fn archive_behind(&self, query: &AuditQuery, found: usize) -> Option<Archive> {
        let archive = self.archive()?;
        let was_filled = found >= query.limit && !query.oldest_first;
        let is_newer =
            query.from >= archive.end || query.filter.since.is_some_and(|since| since > archive.until);
        (!was_filled && !is_newer).then_some(archive)
    }

    /// Checks the whole log and every row beside running work, and says what does not fit.
    ///
    /// # Errors
    /// [`Code::Refused`]; those of the store.
    pub async fn verify(&self, caller: &Caller) -> Result<VerifyReport, VaultError> {
        self.record_reading(caller).await?;
        Ok(self.store().verify(|_| {}).await?)
    }

    /// The signed checkpoint and the public key that signs it, for whoever keeps an eye on the log from outside.
    ///
    /// # Errors
    /// [`Code::Refused`].
    pub async fn checkpoint(&self, caller: &Caller) -> Result<(String, String), VaultError> {
        self.record_reading(caller).await?;
        let note = self.store().read(|reader| reader.checkpoint()).await?;
        let note = note.ok_or_else(|| VaultError::damaged("there is no checkpoint"))?;
        Ok((note, self.audit_key()))
    }

    async fn record_reading(&self, caller: &Caller) -> Result<(), VaultError> {
        let resource = system_resource("audit")?;
        self.recorded(caller, Capability::Inspect, Action::AuditRead, &resource).await.map(|_| ())
    }

    /// The public key of the audit log as C2SP signed notes name it.
    pub fn audit_key(&self) -> String {
        let keys = self.keyring().ledger();
        keys.signer.verifying_key().to_verifier(&keys.origin)
    }

    /// Writes down a sensitive action of the host program, and returns its number.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::Invalid`] when a fact looks like a key.
    pub async fn record_host_event(&self, caller: &Caller, host: HostEvent) -> Result<u64, VaultError> {
        self.check_no_keys(&host)?;
        self.retry_stale(|| async {
            let resource = system_resource("audit/events")?;
            let permit = self.authorize(caller, Capability::Write, Action::Host, resource).await?;
            let mut deed = Deed::done(Action::Host, About::default());
            deed.outcome = host.outcome;
            deed.details = host.details.clone();
            let deed = deed.detail(HOST_ACTION, host.action.clone());
            Ok(self.record(&permit, deed).await?.event)
        })
        .await
    }

    /// Writes down that a part of the program itself did something that belongs into the log, such as starting.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn record_system(&self, part: &str, action: Action) -> Result<u64, VaultError> {
        let deed = Deed::done(action, &system_resource("server")?);
        let draft = self.system_draft(&part.parse()?, deed);
        // A server has to start on a full disk too, or nobody could make room.
        Ok(self.store().reserved().append(draft, None).await?.event)
    }

    /// What a filter and an account's name mean to the store: what the store can narrow down itself, and what must hold
    /// of each record all the same.
    pub(crate) fn range_of(
        &self,
        mut filter: EventFilter,
        account: Option<&AccountName>,
    ) -> Result<(EventFilter, EventRange), VaultError> {
        if let Some(name) = account {
            let account = self.account_named(name)?;
            let is_group = || VaultError::invalid(format!("`{name}` is a group, and a group never acts"));
            let kind = account.kind.principal_kind().ok_or_else(is_group)?;
            filter.actor = Some(keymoat_core::audit::Actor::Principal { id: account.id, kind });
        }
        let range = EventRange {
            actor: filter.actor.as_ref().map(ToString::to_string),
            environment: filter.scope.as_ref().map(|scope| scope.as_str().to_owned()),
            path: filter.path_prefix.as_ref().map(|path| path.as_str().to_owned()),
            ..EventRange::default()
        };
        Ok((filter, range))
    }

    fn check_no_keys(&self, host: &HostEvent) -> Result<(), VaultError> {
        if host.details.iter().count() >= MAX_DETAILS || host.details.get(HOST_ACTION).is_some() {
            return Err(VaultError::new(
                Code::Invalid,
                format!(
                    "a host's action has at most {} details, and none is called `{HOST_ACTION}`",
                    MAX_DETAILS - 1
                ),
            ));
        }
        let texts = host.details.iter().filter_map(|(name, value)| match value {
            DetailValue::Text(text) => Some((format!("the detail `{name}`"), text.as_str())),
            DetailValue::Number(_) | DetailValue::Flag(_) => None,
        });
        let texts: Vec<(String, &str)> = texts.collect();
        let action = ("the action's name", host.action.as_str());
        self.check_no_key(texts.iter().map(|(what, text)| (what.as_str(), *text)).chain([action]))?;
        Ok(())
    }
}

impl Vault {
    /// The secrets whose values an account was given since they were last written.
    pub(crate) async fn seen_by(&self, principal: PrincipalId) -> Result<Vec<SecretName>, VaultError> {
        let range = EventRange { actor: Some(principal.to_string()), ..EventRange::default() };
        let seen = self
            .store()
            .read(move |reader| {
                let mut seen = Seen::default();
                reader.events(&range, |stored| {
                    seen.add(&stored.event);
                    true
                })?;
                Ok(seen)
            })
            .await?;
        let is_still_used = |name: &SecretName, versions: &BTreeSet<u32>| {
            let labels = [Label::CURRENT, Label::PENDING];
            self.find(name).is_ok_and(|secret| {
                labels
                    .iter()
                    .filter_map(|label| secret.versions.live(label))
                    .any(|live| versions.contains(&live))
            })
        };
        Ok(seen.where_still(is_still_used))
    }
}

/// Which versions of which secrets were given out.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<SecretName, BTreeSet<u32>>);

impl Seen {
    pub(crate) fn add(&mut self, event: &Event) {
        if let Some((name, version)) = read_of(event) {
            self.0.entry(name).or_default().insert(version);
        }
    }

    /// The secrets of whose versions it holds.
    pub(crate) fn where_still(self, holds: impl Fn(&SecretName, &BTreeSet<u32>) -> bool) -> Vec<SecretName> {
        self.0.into_iter().filter(|(name, versions)| holds(name, versions)).map(|(name, _)| name).collect()
    }
}

/// The secret and version that a record says were given out.
pub(crate) fn read_of(event: &Event) -> Option<(SecretName, u32)> {
    if event.action != Action::Reveal || event.result != Outcome::Allowed {
        return None;
    }
    let name = SecretName {
        environment: event.scope.as_ref()?.environment()?.clone(),
        company: event.company.clone(),
        path: event.path.as_ref()?.as_str().parse().ok()?,
    };
    Some((name, event.version?))
}

impl From<StoredEvent> for AuditRecord {
    fn from(stored: StoredEvent) -> Self {
        Self { event: stored.event, record: stored.record, personal: stored.personal }
    }
}

/// The detail that names what the host did.
const HOST_ACTION: &str = "host_action";
/// Records in one answer.
const RECORDS_MAX: usize = 10_000;
