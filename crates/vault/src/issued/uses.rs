//! How keys are used: counted in memory, and written down many at a time.
//!
//! A verification costs no write of its own. What was counted since the last flush is lost when the process is killed:
//! that, and nothing older, is the bound. How far limits are used stands in memory alone, a node's own.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use keymoat_core::audit::{Action, AuditText};
use keymoat_core::id::IssuedKeyId;
use keymoat_core::issued::{Code, LimitTimes, Tat};
use keymoat_core::names::SpaceName;
use keymoat_store::{Kind, Tx};

use super::rows::{KeySource, KeyUsage};
use super::{KnownKey, SPACES};
use crate::desk::{Deed, system_resource};
use crate::entity::Entity as _;
use crate::rekey::add_count;
use crate::{Vault, VaultError};

/// Uses of all keys since the last flush, and how far their limits are used.
pub(crate) struct KeyUses {
    parts: [Mutex<Part>; PARTS],
}

#[derive(Default)]
pub(crate) struct Part {
    limits: HashMap<IssuedKeyId, LimitTimes>,
    counted: HashMap<IssuedKeyId, Counted>,
}

/// What was counted of a key since the last flush.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    lineage: IssuedKeyId,
    space: SpaceName,
    allowed: u64,
    refused: BTreeMap<Code, u64>,
    last_used_at: Option<Timestamp>,
    last_from: Option<IpAddr>,
    sources: Vec<KeySource>,
}

impl Default for KeyUses {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl KeyUses {
    /// The part in which a lineage stands: its limits, and the uses of its keys.
    pub(crate) fn of(&self, lineage: IssuedKeyId) -> MutexGuard<'_, Part> {
        // The last byte is random, the first ones are a time.
        let part = usize::from(lineage.as_bytes()[15]) % PARTS;
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted of a key and is not in its row yet.
    fn since_flush(&self, lineage: IssuedKeyId, key: IssuedKeyId) -> Option<Counted> {
        self.of(lineage).counted.get(&key).cloned()
    }

    /// Takes what was counted of some keys, and forgets limits that are as if they had never been used.
    fn take(&self, most: usize, now: Timestamp) -> Vec<(IssuedKeyId, Counted)> {
        let mut taken = Vec::new();
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let now = u64::try_from(now.as_nanosecond()).unwrap_or(0);
            part.limits.retain(|_, times| times.as_slice().iter().any(|Tat(at)| *at > now));
            let room = most - taken.len();
            if part.counted.len() <= room {
                taken.extend(part.counted.drain());
                continue;
            }
            let some: Vec<IssuedKeyId> = part.counted.keys().take(room).copied().collect();
            taken.extend(some.into_iter().filter_map(|key| part.counted.remove_entry(&key)));
        }
        taken
    }

    /// Puts back what could not be written.
    fn put_back(&self, taken: Vec<(IssuedKeyId, Counted)>) {
        for (key, counted) in taken {
            match self.of(counted.lineage).counted.entry(key) {
                Entry::Occupied(mut newer) => newer.get_mut().add(counted),
                Entry::Vacant(free) => drop(free.insert(counted)),
            }
        }
    }
}

impl Part {
    /// How far the limits of a lineage are used.
    pub(crate) fn limit_times(&self, lineage: IssuedKeyId) -> LimitTimes {
        self.limits.get(&lineage).copied().unwrap_or_default()
    }

    /// Says how far they are used now.
    pub(crate) fn set_limit_times(&mut self, lineage: IssuedKeyId, times: LimitTimes) {
        if times.as_slice().is_empty() {
            return;
        }
        self.limits.insert(lineage, times);
    }

    /// Counts a use, or a refusal.
    pub(crate) fn count(&mut self, key: &KnownKey, code: Code, from: Option<IpAddr>, now: Timestamp) {
        let counted = self.counted.entry(key.id).or_insert_with(|| Counted::of(key));
        if code != Code::Valid {
            *counted.refused.entry(code).or_default() += 1;
            return;
        }
        counted.allowed += 1;
        counted.last_used_at = Some(now);
        counted.last_from = from.or(counted.last_from);
        if let Some(address) = from {
            count_source(&mut counted.sources, KeySource { address, count: 1, last_at: now });
        }
    }
}

impl Counted {
    fn of(key: &KnownKey) -> Self {
        Self {
            lineage: key.lineage,
            space: key.place.space.clone(),
            allowed: 0,
            refused: BTreeMap::new(),
            last_used_at: None,
            last_from: None,
            sources: Vec::new(),
        }
    }

    fn add(&mut self, older: Counted) {
        self.allowed += older.allowed;
        for (code, count) in older.refused {
            *self.refused.entry(code).or_default() += count;
        }
        self.last_used_at = self.last_used_at.max(older.last_used_at);
        self.last_from = self.last_from.or(older.last_from);
        older.sources.into_iter().for_each(|source| count_source(&mut self.sources, source));
    }

    /// The row with this added.
    fn added_to(&self, usage: &mut KeyUsage) {
        usage.allowed += self.allowed;
        for (code, count) in &self.refused {
            *usage.refused.entry(code.as_str().to_owned()).or_default() += count;
        }
        if self.last_used_at >= usage.last_used_at {
            usage.last_from = self.last_from.or(usage.last_from);
        }
        usage.last_used_at = usage.last_used_at.max(self.last_used_at);
        self.sources.iter().for_each(|source| count_source(&mut usage.sources, source.clone()));
    }
}

impl KeyUsage {
    /// That of a key that nobody has used.
    pub(super) fn none_of(key: IssuedKeyId) -> Self {
        Self {
            key,
            allowed: 0,
            refused: BTreeMap::new(),
            last_used_at: None,
            last_from: None,
            sources: Vec::new(),
        }
    }
}

/// Counts an address among those that a key is used most from (the space-saving sketch): where there is no room, it
/// takes the place of the one with the fewest uses, and its count, so that a count is never too low.
fn count_source(sources: &mut Vec<KeySource>, new: KeySource) {
    if let Some(known) = sources.iter_mut().find(|known| known.address == new.address) {
        known.count += new.count;
        known.last_at = known.last_at.max(new.last_at);
        return;
    }
    if sources.len() < SOURCES_MAX {
        sources.push(new);
        return;
    }
    if let Some(least) = sources.iter_mut().min_by_key(|source| source.count) {
        *least = KeySource { count: least.count + new.count, ..new };
    }
}

impl Vault {
    /// Writes down how keys were used since the last call, many in one transaction. To be called every few seconds; it
    /// does nothing when there is nothing to do.
    ///
    /// # Errors
    /// Those of the store; what could not be written is written with the next call.
    pub async fn flush_key_uses(&self) -> Result<usize, VaultError> {
        let mut flushed = 0;
        loop {
            let taken = self.key_uses().take(FLUSHED_AT_ONCE, self.now());
            if taken.is_empty() {
                return Ok(flushed);
            }
            flushed += taken.len();
            if let Err(error) = self.flush(&taken).await {
                self.key_uses().put_back(taken);
                return Err(error);
            }
        }
    }

    async fn flush(&self, taken: &[(IssuedKeyId, Counted)]) -> Result<(), VaultError> {
        let mut spaces: BTreeMap<&SpaceName, Sum> = BTreeMap::new();
        for (_, counted) in taken {
            let sum = spaces.entry(&counted.space).or_default();
            sum.keys += 1;
            sum.allowed += counted.allowed;
            sum.refused += counted.refused.values().sum::<u64>();
        }
        let drafts = spaces.into_iter().map(|(space, sum)| {
            let resource = system_resource(&format!("{SPACES}/{space}"))?;
            let deed = Deed::done(Action::KeyVerify, &resource).detail("counted", AuditText::new("yes"));
            let mut draft = self.system_draft(&"keys".parse()?, deed);
            for (name, count) in [("keys", sum.keys), ("allowed", sum.allowed), ("refused", sum.refused)] {
                add_count(&mut draft, name, count);
            }
            Ok::<_, VaultError>(draft)
        });
        let drafts: Vec<_> = drafts.collect::<Result<_, _>>()?;
        let taken = taken.to_vec();
        self.store()
            .run_tx("flush_key_uses", move |tx| {
                for (key, counted) in &taken {
                    add_to_row(tx, *key, counted)?;
                }
                drafts.iter().for_each(|draft| tx.append(draft.clone()));
                Ok::<_, VaultError>(())
            })
            .await?;
        Ok(())
    }

    /// How keys were used: what stands in their rows, and what this node has counted since.
    pub(super) async fn usage_of(
        &self,
        keys: Vec<(IssuedKeyId, IssuedKeyId)>,
    ) -> Result<Vec<KeyUsage>, VaultError> {
        let ids: Vec<IssuedKeyId> = keys.iter().map(|(_, key)| *key).collect();
        let rows = self
            .store()
            .read(move |reader| ids.iter().map(|id| reader.row(Kind::KeyUsage, &id.to_string())).collect())
            .await?;
        let rows: Vec<Option<keymoat_store::Row>> = rows;
        let usages = keys.into_iter().zip(rows).map(|((lineage, key), row)| {
            let mut usage = match row {
                Some(row) => KeyUsage::parse(&row)?,
                None => KeyUsage::none_of(key),
            };
            if let Some(counted) = self.key_uses().since_flush(lineage, key) {
                counted.added_to(&mut usage);
            }
            usage.sources.sort_by_key(|source| std::cmp::Reverse(source.count));
            Ok::<_, VaultError>(usage)
        });
        usages.collect()
    }
}

#[derive(Default)]
struct Sum {
    keys: u64,
    allowed: u64,
    refused: u64,
}

fn add_to_row(tx: &mut Tx<'_>, key: IssuedKeyId, counted: &Counted) -> Result<(), VaultError> {
    let mut usage = match tx.row(Kind::KeyUsage, &key.to_string())? {
        Some(row) => KeyUsage::parse(&row)?,
        None => KeyUsage::none_of(key),
    };
    counted.added_to(&mut usage);
    Ok(tx.put_count(Kind::KeyUsage, &usage.key(), &usage.body())?)
}

/// Enough that two verifications seldom wait for each other.
const PARTS: usize = 16;
/// Keeps a transaction, and its record, which names each row, small.
const FLUSHED_AT_ONCE: usize = 1000;
/// Enough to see who still uses an old key, or whether one is shared.
const SOURCES_MAX: usize = 16;
