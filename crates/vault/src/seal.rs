//! Sealing an open vault and opening it again, in one process that keeps the data directory's lock.
//!
//! Sealed, a process holds no key and nothing that was decrypted. What is offered to unseal it is gathered here: shares
//! of several people, and a count of what did not fit. While sealed nothing can be written down, so that count stands in
//! the record of the unsealing. Nobody is signed in by this: who holds the master key may open the vault.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, Actor, AuditText, DecidedBy, Personal, PrincipalKind};
use keymoat_core::names::AccountName;
use keymoat_core::policy::Capability;
use keymoat_crypto::Share;
use keymoat_store::{DataDir, Draft, Durability};

use crate::desk::{Deed, system_resource};
use crate::entity::{AccountKind, SlotSource};
use crate::open::Unlocked;
use crate::tokens::caller_of;
use crate::{Caller, Code, MasterKeyOffer, Origin, SealedVault, Vault, VaultError};

/// The lock of a data directory, kept while its vault is open, sealed or in between. Cheap to clone.
#[derive(Clone)]
pub struct HeldDir {
    dir: DataDir,
    durability: Durability,
}

impl HeldDir {
    /// Whether other nodes may work with the same vault.
    pub fn is_shared(&self) -> bool {
        self.dir.address().is_some()
    }

    /// Opens the directory's vault, sealed.
    ///
    /// # Errors
    /// When it cannot be used, or there is no vault in it any more.
    pub fn reopen(&self) -> Result<SealedVault, VaultError> {
        let opened = SealedVault::open_held(self.dir.clone(), self.durability)?;
        opened.map_err(|_| VaultError::damaged("there is no vault in the data directory any more"))
    }
}

impl SealedVault {
    /// The directory with its lock, for whoever has to keep it when this is gone.
    pub fn held(&self) -> HeldDir {
        HeldDir { dir: self.store().held_dir(), durability: self.store().durability() }
    }
}

impl Vault {
    /// Writes down that a caller seals the server, who has to do so with [`Vault::let_go`] afterwards.
    ///
    /// # Errors
    /// [`Code::Refused`]; [`Code::Conflict`] where nothing can be sealed; those of the store.
    pub async fn record_seal(&self, caller: &Caller, is_sealable: bool) -> Result<(), VaultError> {
        self.retry_stale(|| async {
            let resource = system_resource(SEAL)?;
            let permit = self.authorize(caller, Capability::Rotate, Action::Seal, resource.clone()).await?;
            if !is_sealable {
                return Err(VaultError::conflict("no server is running, so nothing can be sealed")
                    .hint("without a server the vault is open only as long as a command runs"));
            }
            let deed = Deed::done(Action::Seal, &resource);
            if permit.pass.spends.is_some() {
                return self.record(&permit, deed).await.map(|_| ());
            }
            // On a full disk too: whoever wants the keys gone at once cannot make room first.
            let draft = self.draft(&permit.caller, deed, Some(permit.decided_by.clone()));
            self.store_for(&permit.caller).append(draft, Some(permit.pass.epoch)).await?;
            Ok(())
        })
        .await
    }

    /// Writes down that the vault was unsealed, by whom as far as that is known, and what was tried before.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn record_unseal(
        &self,
        unsealed: &Unsealed,
        os_user: Option<&str>,
        origin: Origin,
    ) -> Result<(), VaultError> {
        let mut deed = Deed::done(Action::Unseal, &system_resource(SEAL)?)
            .detail("slot", AuditText::new(&unsealed.slot.to_string()))
            .detail("kind", AuditText::new(unsealed.kind))
            .detail("failed_attempts", AuditText::new(&unsealed.failed_attempts.to_string()));
        if let Some(shares) = unsealed.shares {
            deed = deed.detail("shares", AuditText::new(&shares.to_string()));
        }
        let by_key = Some(DecidedBy::System(MASTER_KEY.parse()?));
        let draft = match self.os_caller(os_user, &origin)? {
            Some(caller) => self.draft(&caller, deed, by_key),
            None => {
                let actor_name = os_user.map(|name| AuditText::new(&format!("os:{name}")));
                let Draft { mut event, .. } = self.anonymous_draft(&origin, deed);
                event.decided_by = by_key;
                let personal =
                    Personal { actor_name, address: origin.address, user_agent: origin.user_agent.clone() };
                debug_assert_eq!(event.actor, Actor::Anonymous);
                Draft { event, personal: Some(personal) }
            }
        };
        // On a full disk too, or nobody could make room.
        self.store().reserved().append(draft, None).await?;
        Ok(())
    }

    /// The directory with its lock, for whoever has to keep it when the vault is gone.
    pub fn held(&self) -> HeldDir {
        HeldDir { dir: self.store().held_dir(), durability: self.store().durability() }
    }

    /// Lets go of every key and everything that was decrypted, and gives back the directory with its lock. Whoever still
    /// uses the vault after `within` is refused from then on, and waited for.
    pub async fn let_go(self, within: Duration) -> HeldDir {
        let held = self.held();
        let (ended, stopper) = (self.store().ended(), self.store().stopper());
        if self.stopped().is_none()
            && let Err(error) = self.record_all_suppressed().await
        {
            tracing::warn!(%error, "refusals that were only counted could not be written down");
        }
        let keyring = Arc::downgrade(&self.keyring_arc());
        if let Ok(inner) = Arc::try_unwrap(self.inner) {
            inner.store.close().await;
        }
        let mut ended = std::pin::pin!(ended);
        if tokio::time::timeout(within, &mut ended).await.is_err() {
            tracing::warn!("something still uses the vault that is being sealed; it is refused from now on");
            stopper.stop("the vault is being sealed");
            ended.await;
        }
        if keyring.strong_count() > 0 {
            tracing::error!("keys are still in memory although the vault is sealed; restart the server");
        }
        held
    }

    /// The account of an operating-system user, without a record: opening a vault needs none.
    fn os_caller(&self, os_user: Option<&str>, origin: &Origin) -> Result<Option<Caller>, VaultError> {
        let Some(name) = os_user.and_then(|user| AccountName::for_os_user(user).ok()) else {
            return Ok(None);
        };
        let account = self.state(|state| state.accounts.get(&name).map(Arc::clone));
        let account = account.filter(|account| account.active && account.kind == AccountKind::OsUser);
        let caller = account.map(|account| caller_of(&account, None, origin.clone())).transpose()?;
        debug_assert!(caller.as_ref().is_none_or(|caller| caller.kind == PrincipalKind::OsUser));
        Ok(caller)
    }
}

/// What was offered so far to unseal a vault. It decides nothing but whether a key fits; the time is an argument.
#[derive(Default)]
pub struct Unsealing {
    /// Shares by the split that they are of, so that those of another one are in nobody's way.
    sets: BTreeMap<Set, Gathered>,
    near: Allowance,
    far: Allowance,
    failed_attempts: u64,
}

/// A split: its number and how many of its shares are needed.
type Set = (u16, u8);

struct Gathered {
    shares: Vec<Share>,
    expires_at: Timestamp,
}

/// What shares or a whole key come to.
enum Fit {
    Keys { unlocked: Box<Unlocked>, shares: Option<u8> },
    TooFew { given: u8, needed: u8 },
}

/// From where something is offered. Each has its own allowance, so that the network cannot keep the operator out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearness {
    /// Through the socket.
    ThisMachine,
    /// Over the network.
    Network,
}

/// What an offer came to.
pub enum UnsealStep {
    /// More shares are needed.
    More {
        /// Different shares of this split given so far.
        given: u8,
        /// Shares needed.
        needed: u8,
    },
    /// It fits.
    Unlocked(Box<Unlocked>, Unsealed),
}

/// How a vault was unsealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsealed {
    /// The slot that opened.
    pub slot: u32,
    /// Its kind.
    pub kind: &'static str,
    /// The shares that opened it.
    pub shares: Option<u8>,
    /// Offers that did not fit before.
    pub failed_attempts: u64,
}

impl Unsealing {
    /// Takes an offer. Shares wait for one another for ten minutes from the last; a key or a passphrase fits or not.
    ///
    /// # Errors
    /// [`Code::RateLimited`]; [`Code::Sealed`] when it does not fit, and then the shares are forgotten;
    /// [`Code::Invalid`] for shares of which no slot has any.
    pub fn offer(
        &mut self,
        vault: &SealedVault,
        offer: MasterKeyOffer,
        from: Nearness,
        now: Timestamp,
    ) -> Result<UnsealStep, VaultError> {
        self.expire(now);
        let allowance = match from {
            Nearness::ThisMachine => &mut self.near,
            Nearness::Network => &mut self.far,
        };
        allowance.take(now)?;
        let tried = match offer {
            MasterKeyOffer::Shares(shares) => self.gather(vault, shares, from, now),
            whole => {
                vault.unlock(&whole).map(|unlocked| Fit::Keys { unlocked: Box::new(unlocked), shares: None })
            }
        };
        match tried {
            Ok(Fit::Keys { unlocked, shares }) => {
                let (slot, kind) = (unlocked.slot().id, unlocked.slot().source.name());
                let unsealed = Unsealed { slot, kind, shares, failed_attempts: self.failed_attempts };
                Ok(UnsealStep::Unlocked(unlocked, unsealed))
            }
            Ok(Fit::TooFew { given, needed }) => Ok(UnsealStep::More { given, needed }),
            Err(error) => {
                self.failed_attempts = self.failed_attempts.saturating_add(1);
                tracing::warn!(%error, attempts = self.failed_attempts, "what was offered does not unseal the vault");
                Err(error)
            }
        }
    }

    /// Forgets every share.
    pub fn reset(&mut self) {
        self.sets.clear();
    }

    /// Forgets shares that have waited too long; when the next ones end, if there are any.
    pub fn expire(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.sets.retain(|_, gathered| gathered.expires_at > now);
        self.sets.values().map(|gathered| gathered.expires_at).min()
    }

    /// The shares given of each split that some are known of, with those needed.
    pub fn gathered(&self) -> impl Iterator<Item = (u8, u8)> {
        self.sets.iter().map(|((_, needed), gathered)| (count(&gathered.shares), *needed))
    }

    /// The keys when there are enough shares; else how many there are and are needed.
    fn gather(
        &mut self,
        vault: &SealedVault,
        shares: Vec<Share>,
        from: Nearness,
        now: Timestamp,
    ) -> Result<Fit, VaultError> {
        let set = one_set(&shares)?;
        let fits =
            |source: &SlotSource| matches!(source, SlotSource::Shamir { needed, .. } if *needed == set.1);
        if !vault.slots().any(|slot| fits(&slot.source)) {
            return Err(VaultError::invalid("no slot of this vault opens with such shares")
                .hint("are they shares of this vault? `keymoat unseal` says what opens it"));
        }
        if !self.sets.contains_key(&set) && self.sets.len() >= SETS_MAX {
            // Made-up splits from the network must not keep out who stands at the machine.
            let oldest =
                self.sets.iter().min_by_key(|(_, gathered)| gathered.expires_at).map(|(set, _)| *set);
            if let Some(oldest) = oldest.filter(|_| from == Nearness::ThisMachine) {
                self.sets.remove(&oldest);
            }
        }
        if !self.sets.contains_key(&set) && self.sets.len() >= SETS_MAX {
            return Err(VaultError::new(Code::RateLimited, "shares of too many different splits were given")
                .hint("`keymoat unseal --reset` forgets them all"));
        }
        let expires_at = now.saturating_add(FORGOTTEN_AFTER).unwrap_or(Timestamp::MAX);
        let gathered = self.sets.entry(set).or_insert(Gathered { shares: Vec::new(), expires_at });
        gathered.expires_at = expires_at;
        for share in shares {
            // Who gives a share twice is no further than before.
            if gathered.shares.iter().all(|known| known.index() != share.index()) {
                gathered.shares.push(share);
            }
        }
        let given = count(&gathered.shares);
        if given < set.1 {
            return Ok(Fit::TooFew { given, needed: set.1 });
        }
        // Whether they fit or not, they have served.
        let shares = self.sets.remove(&set).map(|gathered| gathered.shares).unwrap_or_default();
        match vault.unlock(&MasterKeyOffer::Shares(shares)) {
            Ok(unlocked) => Ok(Fit::Keys { unlocked: Box::new(unlocked), shares: Some(given) }),
            Err(error) => Err(error.hint(
                "one of the shares is wrong or of another vault; all of them are forgotten, so give them again",
            )),
        }
    }
}

/// How often something may be offered.
#[derive(Default)]
struct Allowance {
    minute: i64,
    used: u32,
}

impl Allowance {
    fn take(&mut self, now: Timestamp) -> Result<(), VaultError> {
        let minute = now.as_second().div_euclid(60);
        if self.minute != minute {
            *self = Self { minute, used: 0 };
        }
        if self.used >= OFFERS_A_MINUTE {
            return Err(VaultError::new(Code::RateLimited, "too much was offered to unseal the vault")
                .hint("wait a minute"));
        }
        self.used += 1;
        Ok(())
    }
}

/// The split that all the shares are of.
fn one_set(shares: &[Share]) -> Result<Set, VaultError> {
    let set = |share: &Share| (share.set(), share.needed());
    let first = shares.first().map(set).ok_or_else(|| VaultError::invalid("no share was given"))?;
    if shares.iter().all(|share| set(share) == first) {
        return Ok(first);
    }
    Err(VaultError::invalid("the shares are of different splits").hint("give shares of one split together"))
}

/// A split has at most 255 shares, and of each only one is kept.
fn count(shares: &[Share]) -> u8 {
    u8::try_from(shares.len()).unwrap_or(u8::MAX)
}

/// The part of Keymoat itself that sealing is about.
const SEAL: &str = "seal";
/// What lets somebody unseal: no rule, but the master key.
const MASTER_KEY: &str = "master_key";
/// Long enough for several people to come to their terminals one after another, too short to be forgotten there.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// Far more than people need, and nothing to somebody who guesses.
const OFFERS_A_MINUTE: u32 = 20;
/// A vault has a slot or two of this kind; more is somebody in the way.
const SETS_MAX: usize = 8;
