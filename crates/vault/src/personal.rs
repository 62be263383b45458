//! Erasing personal data: names, addresses and user agents beside the records of the audit log.
//!
//! The records hold a salted commitment only, so nothing signed changes, and the log verifies as before. What a record
//! is about is no personal data in this sense: that an account `ana` was made stays on record under its path.

use jiff::Timestamp;
use keymoat_core::audit::{Action, Actor, AuditText, DetailValue, MAX_DETAILS, MAX_TEXT_CHARS, ReasonCode};
use keymoat_core::names::AccountName;
use keymoat_core::policy::Capability;
use keymoat_store::{Draft, PersonalOf, PersonalRange};

use crate::desk::{Deed, system_resource};
use crate::receipt::{Pass, Permit};
use crate::{Caller, Vault, VaultError};

/// Whose personal data is to be erased; everything given must hold, and something must be.
#[derive(Debug, Clone, Default)]
pub struct PersonalQuery {
    /// That of this account, which may be gone already.
    pub account: Option<AccountName>,
    /// That beside records from before this time.
    pub before: Option<Timestamp>,
}

/// What was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Records beside which there was something.
    pub records: u64,
    /// The number of the last record that says so.
    pub event: u64,
}

impl Vault {
    /// Erases names, addresses and user agents beside the records that there are now, for good. Each part of a long
    /// work is on record in the transaction that erases it.
    ///
    /// The name of an account is not written down anew: the record names its id.
    ///
    /// # Errors
    /// [`Code::Refused`](crate::Code::Refused); [`Code::Invalid`](crate::Code::Invalid) when nothing is asked for;
    /// [`Code::NotFound`](crate::Code::NotFound) when no account has, or in the log had, that name.
    pub async fn erase_personal(&self, caller: &Caller, query: PersonalQuery) -> Result<Erased, VaultError> {
        if query.account.is_none() && query.before.is_none() {
            return Err(VaultError::invalid(
                "say whose personal data is to be erased: an account, a time, or both",
            ));
        }
        let resource = system_resource("audit/personal")?;
        let action = Action::PersonalErase;
        self.retry_stale(|| async {
            let permit = self.authorize(caller, Capability::Delete, action, resource.clone()).await?;
            let mut range = self.personal_range(&query).await?;
            if let Some(name) = query.account.as_ref().filter(|name| self.account_named(name).is_err()) {
                self.check_was_there(name, &range, &permit).await?;
            }
            let deed = self.erasing_deed(&query, &permit)?;
            let mut erased = self.erase_part(&mut range, &permit, &deed, Some(permit.pass)).await?;
            // What was allowed when it began goes on to its end.
            while range.from < range.until {
                let part = self.erase_part(&mut range, &permit, &deed, None).await?;
                erased = Erased { records: erased.records + part.records, ..part };
            }
            // What stood in the pages is overwritten; the write-ahead log still has the old ones.
            self.scrub_soon().await;
            Ok(erased)
        })
        .await
    }

    async fn personal_range(&self, query: &PersonalQuery) -> Result<PersonalRange, VaultError> {
        let actor = |name: &AccountName| {
            let account = self.account_named(name).ok()?;
            Some(Actor::Principal { id: account.id, kind: account.kind.principal_kind()? })
        };
        let of = query.account.as_ref().map(|name| PersonalOf {
            actor: actor(name).map(|actor| actor.to_string()),
            name: name.as_str().to_owned(),
        });
        let until = self.store().read(|reader| reader.events_len()).await?;
        Ok(PersonalRange { of, before: query.before, from: 0, until })
    }

    /// A name that no account has may be that of one that is gone; one that the log does not have either is a mistake.
    async fn check_was_there(
        &self,
        name: &AccountName,
        range: &PersonalRange,
        permit: &Permit,
    ) -> Result<(), VaultError> {
        let range = range.clone();
        if !self.store().read(move |reader| reader.personal_events(&range, 1)).await?.is_empty() {
            return Ok(());
        }
        self.record(permit, Deed::failed(Action::PersonalErase, &permit.resource, ReasonCode::NotFound))
            .await?;
        Err(VaultError::not_found(format!(
            "there is no account `{name}`, and no record with personal data of one"
        )))
    }

    /// What goes on record with each part; never the name that is to go.
    fn erasing_deed(&self, query: &PersonalQuery, permit: &Permit) -> Result<Deed, VaultError> {
        let mut deed = Deed::done(Action::PersonalErase, &permit.resource);
        if let Some(name) = &query.account {
            let id =
                self.account_named(name).map_or_else(|_| "gone".to_owned(), |account| account.id.to_string());
            deed = deed.detail("account", AuditText::new(&id));
        }
        if let Some(before) = query.before {
            deed = deed.detail("before", AuditText::new(&before.to_string()));
        }
        Ok(deed)
    }

    /// Erases the next part of a range and moves its beginning behind it.
    async fn erase_part(
        &self,
        range: &mut PersonalRange,
        permit: &Permit,
        deed: &Deed,
        pass: Option<Pass>,
    ) -> Result<Erased, VaultError> {
        let wanted = range.clone();
        let events = self.store().read(move |reader| reader.personal_events(&wanted, ERASED_AT_ONCE)).await?;
        range.from = match events.last() {
            Some(last) if events.len() == ERASED_AT_ONCE => last + 1,
            _ => range.until,
        };
        let draft = self.draft(&permit.caller, deed.clone(), Some(permit.decided_by.clone()));
        let store = self.store_for(&permit.caller);
        let done = store.run_tx("erase_personal", move |tx| {
            if let Some(pass) = pass {
                pass.enter(tx)?;
            }
            let erased = tx.erase_personal(&events)?;
            for draft in naming(&draft, &erased) {
                tx.append(draft);
            }
            Ok::<_, VaultError>(erased.len() as u64)
        });
        let (records, committed) = done.await?;
        Ok(Erased { records, event: committed.event })
    }
}

/// Records that name every event beside which something was erased, so that a verification tells an erasure from a
/// column that somebody emptied. Mostly it is one; scattered numbers may need more.
fn naming(draft: &Draft, erased: &[u64]) -> Vec<Draft> {
    let mut texts = keymoat_store::number_texts(erased, MAX_TEXT_CHARS).into_iter().peekable();
    let mut drafts = Vec::new();
    while drafts.is_empty() || texts.peek().is_some() {
        let mut draft = draft.clone();
        if drafts.is_empty() {
            add(&mut draft, "records", &erased.len().to_string());
        }
        for (number, text) in (1..=TEXTS_IN_A_RECORD).zip(texts.by_ref()) {
            add(&mut draft, &format!("{}{number}", keymoat_store::ERASED), &text);
        }
        drafts.push(draft);
    }
    drafts
}

fn add(draft: &mut Draft, name: &str, text: &str) {
    if let Ok(name) = name.parse() {
        let added = draft.event.details.insert(name, DetailValue::Text(AuditText::new(text)));
        debug_assert!(added.is_ok(), "a record has room for every fact that the vault adds");
    }
}

/// Keeps each transaction short: others wait for it.
const ERASED_AT_ONCE: usize = 5000;
/// What a record takes besides whose data it was, from before when, and how many there were.
const TEXTS_IN_A_RECORD: usize = MAX_DETAILS - 4;
