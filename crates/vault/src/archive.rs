//! Archiving old records: what may go is handed out first, and goes only when somebody says that he keeps it.
//!
//! A client asks for the records from before a time, keeps them, and then names the root of the tree over them, so that
//! a copy that is cut or altered is noticed before anything goes. Whether it is kept afterwards nobody here can know: it
//! is on record who said so. From then on the mark says that they are archived, and they are taken out of the
//! database in short steps that survive a kill. Records that still answer for something stay. Where archives are kept,
//! and how they are checked later, is the client's.

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText, DetailValue, Event};
use keymoat_core::auditor::LogSpan;
use keymoat_core::checkpoint::Checkpoint;
use keymoat_core::policy::Capability;
use keymoat_core::tree::Hash;
use keymoat_store::{Archive, Draft, Kept, PersonalBeside, StoreError};

use crate::audit::read_of;
use crate::audit_export::{AuditExport, Part};
use crate::desk::{Deed, system_resource};
use crate::entity::SecretName;
use crate::receipt::Permit;
use crate::{Caller, Vault, VaultError};

/// What a client says that it keeps.
#[derive(Debug, Clone)]
pub struct ArchiveClaim {
    /// The first record that is not archived, as the archive said.
    pub end: u64,
    /// The root of the tree over all records before it, computed from the archive.
    pub root: Hash,
    /// Why.
    pub reason: Option<AuditText>,
}

/// What archiving came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// Records with a lower number are in archives.
    pub end: u64,
    /// Records that were taken out of the database this time.
    pub dropped: u64,
    /// Archived records that stay, because they answer for something that stands.
    pub kept: u64,
}

/// The names and addresses beside the records of an archive, handed out from here.
pub struct PersonalExport {
    vault: Vault,
    next: u64,
    end: u64,
}

impl Vault {
    /// Begins an archive of the records from before a time that are in none yet. That it was asked for is on the disk
    /// before this returns; nothing is taken out of the database.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused); [`Code::Invalid`](crate::Code::Invalid) for a time within the last
    /// 90 days.
    pub async fn begin_archive(&self, caller: &Caller, before: Timestamp) -> Result<AuditExport, VaultError> {
        let part = self
            .retry_stale(|| async {
                let permit = self.archiving_permit(caller).await?;
                if before > self.newest_archivable() {
                    return Err(self.failed(&permit, Action::AuditExport, too_young()).await);
                }
                let part = self.part_before(before).await?;
                let deed = Deed::done(Action::AuditExport, &permit.resource)
                    .detail("archive_from", number_text(part.start))
                    .detail("archive_end", number_text(part.end));
                self.record(&permit, deed).await?;
                Ok(part)
            })
            .await?;
        AuditExport::of_part(self, part).await
    }

    /// Begins to hand out the names and addresses beside the records of an archive, as far as they were not erased.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused).
    pub async fn personal_of_archive(
        &self,
        caller: &Caller,
        start: u64,
        end: u64,
    ) -> Result<PersonalExport, VaultError> {
        self.retry_stale(|| async {
            let permit = self.archiving_permit(caller).await?;
            let deed = Deed::done(Action::AuditExport, &permit.resource)
                .detail("personal_from", number_text(start))
                .detail("personal_end", number_text(end));
            self.record(&permit, deed).await
        })
        .await?;
        Ok(PersonalExport { vault: self.clone(), next: start, end })
    }

    /// Says that an archive is kept, which is on record in the transaction that says it, and takes its records out of
    /// the database. Broken off, the rest is done by [`Vault::tend_archive`], or by the next call.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused); [`Code::Invalid`](crate::Code::Invalid) when records younger than 90
    /// days would go; [`Code::Conflict`](crate::Code::Conflict) when the root is not that of the log, or the records
    /// are archived already.
    pub async fn finish_archive(&self, caller: &Caller, claim: ArchiveClaim) -> Result<Archived, VaultError> {
        self.check_no_key(claim.reason.iter().map(|why| ("the reason", why.as_str())))?;
        self.retry_stale(|| async {
            let resource = system_resource("audit")?;
            let action = Action::AuditArchive;
            let permit = self.authorize(caller, Capability::Delete, action, resource).await?;
            let (old, new) = match self.next_mark(caller, &claim).await {
                Ok(marks) => marks,
                Err(error) => return Err(self.failed(&permit, action, error).await),
            };
            self.move_mark(&permit, &claim, old, new).await
        })
        .await?;
        self.thin().await
    }

    /// Goes on taking archived records out of the database where that was broken off. To be called every minute; it
    /// does nothing when there is nothing to do.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn tend_archive(&self) -> Result<Option<Archived>, VaultError> {
        match self.archive().is_some_and(|archive| archive.is_unfinished()) {
            true => self.thin().await.map(Some),
            false => Ok(None),
        }
    }

    /// What of the log stands in archives; none when nothing does.
    pub fn archive(&self) -> Option<Archive> {
        self.state(|state| state.archive.clone())
    }

    /// Who archives reads the records and takes them away, so he needs to be allowed both.
    async fn archiving_permit(&self, caller: &Caller) -> Result<Permit, VaultError> {
        let (resource, action) = (system_resource("audit")?, Action::AuditExport);
        self.authorize(caller, Capability::Delete, action, resource.clone()).await?;
        self.authorize(caller, Capability::Inspect, action, resource).await
    }

    fn newest_archivable(&self) -> Timestamp {
        self.now().checked_sub(MIN_KEPT).unwrap_or(Timestamp::MIN)
    }

    async fn part_before(&self, before: Timestamp) -> Result<Part, VaultError> {
        let read = self.store().read(move |reader| {
            let start = reader.archive()?.map_or(0, |archive| archive.end);
            Ok(Part { start, end: reader.archivable(start, before)? })
        });
        Ok(read.await?)
    }

    /// The mark as it is and as a claim would make it, having seen that the claim is true.
    async fn next_mark(
        &self,
        caller: &Caller,
        claim: &ArchiveClaim,
    ) -> Result<(Option<Archive>, Archive), VaultError> {
        let (end, newest) = (claim.end, self.newest_archivable());
        let read = self.store().read(move |reader| {
            let old = reader.archive()?;
            let start = old.as_ref().map_or(0, |old| old.end);
            if end == 0 || end > reader.events_len()? {
                return Ok((old, None));
            }
            let oldest_left = reader.archivable(start, newest)?;
            let last = reader.event(end - 1)?;
            Ok((old, Some((reader.frontier(end)?.root(), oldest_left, last))))
        });
        let (old, found) = read.await?;
        let start = old.as_ref().map_or(0, |old| old.end);
        let Some((_, limit, last)) = found.filter(|(root, ..)| *root == claim.root) else {
            return Err(VaultError::conflict("what was archived is not what the log holds")
                .hint("throw the archive away and make it again"));
        };
        // Sent again because the answer was lost: what is left of it is done.
        if let Some(old) = old.as_ref().filter(|old| old.end == end) {
            return Ok((Some(old.clone()), old.clone()));
        }
        if end < start || !end.is_multiple_of(TILE) {
            return Err(VaultError::conflict(format!(
                "the records before {start} are archived already, and an archive ends with a multiple of {TILE}"
            )));
        }
        let until = match last {
            Some(last) if end <= limit => last.event.time,
            _ => return Err(too_young()),
        };
        let (thinned, kept) =
            old.as_ref().map_or((0, Kept::default()), |old| (old.thinned, old.kept.clone()));
        let by = caller.principal.to_string();
        Ok((old, Archive { end, thinned, kept, until, at: self.now(), by }))
    }

    async fn move_mark(
        &self,
        permit: &Permit,
        claim: &ArchiveClaim,
        old: Option<Archive>,
        new: Archive,
    ) -> Result<(), VaultError> {
        let start = old.as_ref().map_or(0, |old| old.end);
        let deed = Deed::done(Action::AuditArchive, &permit.resource)
            .because(claim.reason.as_ref())
            .detail("archive_from", number_text(start))
            .detail("archive_end", number_text(new.end))
            .detail("root", AuditText::new(&hex(&claim.root)));
        let draft = self.draft(&permit.caller, deed, Some(permit.decided_by.clone()));
        let pass = permit.pass;
        self.store_for(&permit.caller)
            .run_tx("archive", move |tx| {
                pass.enter(tx)?;
                if tx.archive()? != old {
                    return Err(VaultError::conflict("somebody else has archived meanwhile")
                        .hint("make the archive again"));
                }
                if old.as_ref() != Some(&new) {
                    tx.put_archive(&new)?;
                }
                tx.append(draft.clone());
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Takes archived records out of the database until nothing is left to take, and writes down what went.
    async fn thin(&self) -> Result<Archived, VaultError> {
        let _one_at_a_time = self.inner.archiving.lock().await;
        loop {
            let mark = self.archive().ok_or_else(|| VaultError::conflict("nothing is archived"))?;
            if !mark.is_unfinished() {
                return Ok(Archived { end: mark.end, dropped: 0, kept: mark.kept.records });
            }
            let vault = self.clone();
            let keepers = self.store().keepers(move |event| vault.reveal_that_counts(event)).await?;
            self.store().reserved().drop_archived(mark.end, keepers.below(mark.end)).await?;
            if let Some(archived) = self.finish_thinning(mark).await? {
                // What stood in the pages is overwritten; the write-ahead log still has the old ones.
                self.scrub_soon().await;
                return Ok(archived);
            }
        }
    }

    /// Writes down what went and what stayed; nothing when more was archived meanwhile.
    async fn finish_thinning(&self, mark: Archive) -> Result<Option<Archived>, VaultError> {
        let deed = Deed::done(Action::AuditArchive, &system_resource("audit")?)
            .detail("archive_end", number_text(mark.end));
        let here_before = mark.kept.records + (mark.end - mark.thinned);
        let draft = self.system_draft(&"archive".parse()?, deed);
        let store = self.store().reserved();
        let finished = store.run_tx("archive_finished", move |tx| {
            if tx.archive()?.as_ref() != Some(&mark) {
                return Ok(None);
            }
            let kept = tx.kept_below(mark.end)?;
            let (records, dropped) = (kept.records, here_before.saturating_sub(kept.records));
            tx.put_archive(&Archive { thinned: mark.end, kept, ..mark.clone() })?;
            tx.append(counted(&draft, dropped, records));
            Ok::<_, StoreError>(Some(Archived { end: mark.end, dropped, kept: records }))
        });
        Ok(finished.await?.0)
    }

    /// By what a record of a value given out is kept, while that version is there and may be read again.
    fn reveal_that_counts(&self, event: &Event) -> Option<String> {
        kept_reveal(event, |name, version| {
            let secret = self.find(name).ok();
            let state = secret.and_then(|secret| secret.versions.versions().get(&version).copied());
            state.is_some_and(|state| state.destroyed_at.is_none())
        })
    }
}

/// The account, secret and version of a value given out, where that version still stands.
fn kept_reveal(event: &Event, stands: impl FnOnce(&SecretName, u32) -> bool) -> Option<String> {
    let (name, version) = read_of(event)?;
    stands(&name, version).then(|| format!("{} {} {version}", event.actor, name.row_key()))
}

impl PersonalExport {
    /// The next names and addresses, as lines of JSON with the number and the salt; none when all were handed out.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, VaultError> {
        let (next, end) = (self.next, self.end);
        let read = self.vault.store().read(move |reader| reader.personal_beside(next, end, PERSONAL_AT_ONCE));
        let found = read.await?;
        let Some(last) = found.last() else { return Ok(None) };
        self.next = last.place + 1;
        Ok(Some(found.iter().flat_map(personal_line).collect()))
    }
}

impl AuditExport {
    /// What ties the part of the log that is handed out to the checkpoint; none when it is not a part of its own.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn span(&self) -> Result<Option<LogSpan>, VaultError> {
        let Some(part) = self.part() else { return Ok(None) };
        let (head, _) = Checkpoint::parse(self.checkpoint())
            .map_err(|e| VaultError::damaged(format!("the checkpoint is damaged: {e}")))?;
        let size = head.size();
        let read = self.vault().store().read(move |reader| {
            let consistency = reader.consistency_proof(part.end, size)?;
            Ok(LogSpan { start: reader.frontier(part.start)?, end: part.end, consistency })
        });
        Ok(Some(read.await?))
    }
}

/// The text that was committed to stands in the line as it is, so that nobody has to spell it anew to check it.
fn personal_line(beside: &PersonalBeside) -> Vec<u8> {
    let mut line =
        format!("{{\"seq\":{},\"salt\":\"{}\",\"personal\":", beside.place, hex(&beside.salt)).into_bytes();
    line.extend(beside.personal.canonical());
    line.extend(b"}\n");
    line
}

fn counted(draft: &Draft, dropped: u64, kept: u64) -> Draft {
    let mut draft = draft.clone();
    for (name, number) in [("dropped", dropped), ("kept", kept)] {
        if let Ok(name) = name.parse() {
            let added = draft.event.details.insert(name, DetailValue::Text(number_text(number)));
            debug_assert!(added.is_ok(), "a record has room for every fact that the vault adds");
        }
    }
    draft
}

fn too_young() -> VaultError {
    let days = MIN_KEPT.as_hours() / 24;
    VaultError::invalid(format!("records of the last {days} days stay in the vault"))
        .hint(format!("archive what is older than {days} days, or more"))
}

fn number_text(number: u64) -> AuditText {
    AuditText::new(&number.to_string())
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// PCI DSS 4.0.1, 10.5.1, wants the records of the last three months at hand, not in an archive.
const MIN_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Archives end with a full tile of the log's tree.
const TILE: u64 = 256;
/// Keeps each read short.
const PERSONAL_AT_ONCE: usize = 2_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use keymoat_core::audit::{Actor, Details, Outcome, PrincipalKind};
    use keymoat_core::id::{PrincipalId, RequestId};
    use keymoat_core::names::{Environment, Scope};
    use keymoat_store::Keepers;
    use proptest::prelude::*;

    use super::*;
    use crate::audit::Seen;

    fn event(actor: u8, action: Action, result: Outcome, path: u8, version: u32) -> Event {
        Event {
            seq: 0,
            time: Timestamp::UNIX_EPOCH,
            request: RequestId::from_parts(1, &[1; 10]),
            actor: Actor::Principal { id: principal(actor), kind: PrincipalKind::User },
            on_behalf_of: None,
            module: None,
            action,
            scope: Some(Scope::from("prod".parse::<Environment>().unwrap())),
            company: None,
            path: Some(format!("key{path}").parse().unwrap()),
            field: None,
            version: Some(version),
            result,
            reason: None,
            decided_by: None,
            personal: None,
            details: Details::new(),
            rows: Vec::new(),
        }
    }

    fn principal(number: u8) -> PrincipalId {
        PrincipalId::from_parts(u64::from(number), &[number; 10])
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let actions = prop_oneof![4 => Just(Action::Reveal), 1 => Just(Action::Inspect)];
        let results = prop_oneof![4 => Just(Outcome::Allowed), 1 => Just(Outcome::Refused)];
        let one = (0u8..3, actions, results, 0u8..4, 1u32..4);
        let one = one
            .prop_map(|(actor, action, result, path, version)| event(actor, action, result, path, version));
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn who_has_seen_what_is_the_same_after_an_archive(
            events in events(), end in 0u64..60,
            standing in proptest::collection::btree_set((0u8..4, 1u32..4), 0..12),
            labelled in proptest::collection::vec(any::<bool>(), 12),
        ) {
            let named = |path: u8| format!("prod/-/key{path}");
            let stands = |name: &SecretName, version: u32| {
                standing.iter().any(|(path, number)| named(*path) == name.row_key() && *number == version)
            };
            // What an account has seen counts for versions in use, which are some of those that stand.
            let used: BTreeSet<(String, u32)> = standing.iter().zip(&labelled)
                .filter(|(_, labelled)| **labelled)
                .map(|((path, version), _)| (named(*path), *version))
                .collect();
            let is_used = |name: &SecretName, versions: &BTreeSet<u32>| {
                versions.iter().any(|version| used.contains(&(name.row_key(), *version)))
            };
            let mut keepers = Keepers::default();
            for (place, event) in (0u64..).zip(&events) {
                keepers.see(place, event, kept_reveal(event, stands));
            }
            let keep = keepers.below(end);
            for number in 0..3 {
                let by = |event: &Event| matches!(&event.actor, Actor::Principal { id, .. } if *id == principal(number));
                let seen = |left: &dyn Fn(u64) -> bool| {
                    let mut seen = Seen::default();
                    let left = (0u64..).zip(&events).filter(|(place, event)| left(*place) && by(event));
                    left.for_each(|(_, event)| seen.add(event));
                    seen.where_still(is_used)
                };
                prop_assert_eq!(seen(&|_| true), seen(&|place| place >= end || keep.contains(&place)));
            }
            prop_assert!(keep.len() <= 3 * standing.len());
        }
    }
}
