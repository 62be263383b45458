//! The front desk of Keymoat: every use-case, whatever door it came through.
//!
//! A use-case decides (`Permit`), writes down (`Receipt`) and only then opens a value. Reads are served from memory;
//! only the record waits for the disk. This crate speaks neither HTTP nor a command line, and reads neither files nor
//! environment variables besides the store's own.

mod accounts;
mod archive;
mod audit;
mod audit_export;
mod backup;
mod caller;
mod changes;
mod clock;
mod desk;
mod edge;
pub mod entity;
mod error;
mod evidence;
mod following;
mod free_text;
mod grants;
mod idempotency;
pub mod issued;
mod keyring;
mod lineage;
mod matching;
mod new_root;
mod open;
mod personal;
mod places;
mod policies;
mod receipt;
mod refusals;
mod rekey;
mod resolve;
mod root;
mod seal;
mod secrets;
mod state;
mod sweep;
mod tokens;
mod value;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use keymoat_core::id::{GrantId, IssuedKeyId, PrincipalId, RequestId, SecretId, TokenId};
use keymoat_detect::Catalogue;
use keymoat_store::Store;
use tokio::sync::watch;

use crate::clock::HighWater;
use crate::following::Following;
use crate::issued::KeyUses;
use crate::keyring::Keyring;
use crate::refusals::Refusals;
use crate::rekey::Rekeying;
use crate::state::State;

pub use accounts::{AccountChange, LeaverReport, NewAccount};
pub use archive::{ArchiveClaim, Archived, PersonalExport};
pub use audit::{AuditQuery, AuditRecord, HostEvent, Inclusion};
pub use audit_export::{AuditExport, Part};
pub use backup::{BackupFile, BackupHeader, BackupSummary, RestoreSummary, SlotCopy};
pub use caller::{Caller, Origin};
pub use changes::{ChangeEvent, ChangePage};
pub use clock::Clock;
pub use error::{Code, VaultError};
pub use evidence::Evidence;
pub use grants::NewGrant;
pub use idempotency::{Attempt, RequestNeeds};
pub use matching::{CANDIDATES_MAX, Match, Sifted};
pub use new_root::KeyAtHand;
pub use open::{
    EmptyDir, MasterKeyOffer, NewSlot, NewVault, SealedVault, Surroundings, Unlocked, VerifyReport,
};
pub use personal::{Erased, PersonalQuery};
pub use policies::Explanation;
pub use rekey::{DataKeyRotation, KeyReport, PepperReport, PepperRotation, RekeyProgress, Tended};
pub use resolve::{Answer, Asked, Layer, LookedAt, StepOutcome, Target};
pub use root::RootRotation;
pub use seal::{HeldDir, Nearness, UnsealStep, Unsealed, Unsealing};
pub use secrets::{Annotation, Put, Revealed, SecretPage, Written};
pub use state::Wanted;
pub use sweep::Swept;
pub use tokens::{IssuedToken, NewToken};
pub use value::NewValue;

pub use keymoat_store::{Address, Archive, Durability, ServerHealth};

/// An unsealed vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    state: Arc<RwLock<State>>,
    keyring: Arc<Keyring>,
    catalogue: Arc<Catalogue>,
    clock: HighWater,
    outside: PathBuf,
    refusals: Refusals,
    following: Following,
    key_uses: KeyUses,
    rekeying: Rekeying,
    /// One at a time takes archived records out.
    archiving: tokio::sync::Mutex<()>,
    /// Whether something was destroyed that may still stand in the write-ahead log.
    scrub_due: AtomicBool,
    /// The number of the newest change, for those who wait for the next one.
    changes: watch::Receiver<u64>,
    /// Why the root key that another node has put in place could not be taken up.
    root_lost: watch::Receiver<Option<String>>,
}

impl Vault {
    /// The instance's id.
    pub fn instance(&self) -> uuid::Uuid {
        self.inner.keyring.instance()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.inner.store.data_dir()
    }

    /// The checkpoint file outside of the data directory.
    pub fn outside_file(&self) -> &Path {
        &self.inner.outside
    }

    /// The provider catalogue.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.inner.catalogue)
    }

    /// A number for a request that came without one.
    pub fn new_request_id(&self) -> RequestId {
        RequestId::from_parts(self.now_ms(), &keymoat_crypto::bytes())
    }

    /// Why the store has stopped itself; `None` while it works.
    pub fn stopped(&self) -> Option<&str> {
        self.inner.store.stopped()
    }

    /// Waits until another node has changed the root key and the new one cannot be taken up, and says why; none when the
    /// vault has ended before. It keeps nothing of the vault alive.
    pub fn root_lost(&self) -> impl Future<Output = Option<String>> + Send + use<> {
        let mut lost = self.inner.root_lost.clone();
        async move { lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) }
    }

    /// The time as the vault sees it; it never runs backwards.
    pub fn now(&self) -> Timestamp {
        // Another node's clock may be ahead; what has ended there has ended here.
        self.inner.clock.raise_to(self.inner.store.newest_event());
        self.inner.clock.now()
    }

    /// By how many seconds the system's clock is behind what the vault has already seen; 0 when it is not.
    pub fn clock_behind_secs(&self) -> i64 {
        (self.inner.clock.now().as_second() - self.inner.clock.unchecked_now().as_second()).max(0)
    }

    /// What to tell people when the log holds times that the system's clock has not reached: it was set back, or was
    /// wrong before. `None` while the two agree within five minutes.
    pub fn clock_warning(&self) -> Option<String> {
        let behind = self.clock_behind_secs();
        (behind > CLOCK_TOLERANCE_SECS).then(|| {
            format!(
                "the system's clock is {} behind the newest record of the audit log; it was set back, or was wrong when \
                 that was written. Keymoat goes on from {}, so nothing that has ended comes back. Set the clock",
                duration_text(behind),
                self.now()
            )
        })
    }

    /// How much there is, for health and metrics; no names.
    pub fn counts(&self) -> Counts {
        let now = self.now();
        self.state(|state| Counts {
            environments: state.environments.len(),
            companies: state.companies.len(),
            secrets: state.secrets.len(),
            accounts: state.accounts.len(),
            tokens: state.tokens.len(),
            issued_keys: state.issued.len(),
            grants: state.grants.len(),
            sign_in_codes: state.sign_in_codes.values().filter(|code| code.expires_at > now).count(),
            change: state.change,
        })
    }

    /// Waits until everything is on the disk and lets go of the data directory.
    pub async fn close(self) {
        if self.stopped().is_none()
            && let Err(error) = self.record_all_suppressed().await
        {
            tracing::warn!(%error, "refusals that were only counted could not be written down");
        }
        if self.stopped().is_none()
            && let Err(error) = self.flush_key_uses().await
        {
            tracing::warn!(%error, "the last uses of issued keys could not be written down");
        }
        let ended = self.store().ended();
        if let Ok(inner) = Arc::try_unwrap(self.inner) {
            inner.store.close().await;
        }
        // A read that nobody waits for any more ends by itself, a moment later.
        if tokio::time::timeout(CLOSE_WITHIN, ended).await.is_err() {
            tracing::warn!("the vault is closed while still in use; it ends with its last user");
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.inner.keyring
    }

    pub(crate) fn keyring_arc(&self) -> Arc<Keyring> {
        Arc::clone(&self.inner.keyring)
    }

    pub(crate) fn rekeying(&self) -> &Rekeying {
        &self.inner.rekeying
    }

    pub(crate) fn following(&self) -> &Following {
        &self.inner.following
    }

    pub(crate) fn key_uses(&self) -> &KeyUses {
        &self.inner.key_uses
    }

    pub(crate) fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    pub(crate) fn state<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.inner.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn new_secret_id(&self) -> SecretId {
        SecretId::from_parts(self.now_ms(), &keymoat_crypto::bytes())
    }

    pub(crate) fn new_issued_key_id(&self) -> IssuedKeyId {
        IssuedKeyId::from_parts(self.now_ms(), &keymoat_crypto::bytes())
    }

    pub(crate) fn new_principal_id(&self) -> PrincipalId {
        PrincipalId::from_parts(self.now_ms(), &keymoat_crypto::bytes())
    }

    pub(crate) fn new_token_id(&self) -> TokenId {
        TokenId::from_parts(self.now_ms(), &keymoat_crypto::bytes())
    }

    pub(crate) fn new_grant_id(&self) -> GrantId {
        GrantId::from_parts(self.now_ms(), &keymoat_crypto::bytes())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millisecond()).unwrap_or_default()
    }
}

fn duration_text(secs: i64) -> String {
    match secs {
        ..120 => format!("{secs} seconds"),
        120..7_200 => format!("{} minutes", secs / 60),
        7_200..172_800 => format!("{} hours", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

/// Clocks of machines that keep time at all differ by less.
const CLOCK_TOLERANCE_SECS: i64 = 300;
/// The longest that a read takes which was given up.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// How much there is in a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Environments.
    pub environments: usize,
    /// Companies.
    pub companies: usize,
    /// Secrets.
    pub secrets: usize,
    /// Users, service accounts and groups.
    pub accounts: usize,
    /// Tokens.
    pub tokens: usize,
    /// Issued keys, ended ones included.
    pub issued_keys: usize,
    /// Grants, ended ones included.
    pub grants: usize,
    /// Sign-in codes that can still be used.
    pub sign_in_codes: usize,
    /// Number of the newest change.
    pub change: u64,
}
