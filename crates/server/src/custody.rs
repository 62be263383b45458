//! The vault in a server's hands: open and served, or sealed. It passes each request to the API of an open vault, or
//! to that of a sealed one; it seals, and it opens again what was sealed.
//!
//! Sealing takes the vault away from new requests first, lets those that run end, and then lets go of everything that
//! holds a key. The lock of the data directory stays, so that nobody else opens it meanwhile. Who may seal, and what is
//! written down, the front desk decides.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use keymoat_core::audit::Action;
use keymoat_vault::{
    HeldDir, MasterKeyOffer, Nearness, Origin, SealedVault, Surroundings, UnsealStep, Unsealed, Unsealing,
    Vault, VaultError,
};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::Service;

use crate::edge::{self, Edge, Numbers};
use crate::problem::Problem;
use crate::routes::{Api, SealedApi};
use crate::serve::CutsConnection;
use crate::{AppState, CertificateStatus, Doors, Front};

/// A vault that a server serves, open or sealed. Cheap to clone.
#[derive(Clone)]
pub struct Custody {
    inner: Arc<Inner>,
}

/// On what terms a vault is served.
pub struct Terms {
    /// What it is opened with, again after each sealing.
    pub surroundings: Surroundings,
    /// What the doors let in.
    pub doors: Doors,
    /// How the certificate stands, where TLS is spoken.
    pub certificate: Option<watch::Receiver<CertificateStatus>>,
    /// What goes on beside the requests while the vault is open.
    pub tend: Tend,
}

/// Work beside the requests; it is broken off when the vault is sealed.
pub type Tend = fn(Vault) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who unseals, as far as that is known.
pub(crate) struct Unsealer {
    pub(crate) from: Nearness,
    pub(crate) os_user: Option<String>,
    pub(crate) origin: Origin,
}

/// How far unsealing is.
pub(crate) enum Progress {
    Open,
    Waits { given: u8, needed: u8 },
}

/// The custody that a request came through, and the end of the vault's being open.
#[derive(Clone)]
pub(crate) struct Custodian {
    pub(crate) custody: Custody,
    /// The vault is about to be sealed: whoever waits answers now.
    pub(crate) closing: CancellationToken,
}

/// Beside an answer that is to be sent only when the server is sealed: how often it will have been.
#[derive(Clone, Copy)]
pub(crate) struct AfterSealing(pub(crate) u64);

struct Inner {
    instance: uuid::Uuid,
    terms: Terms,
    front: Arc<Front>,
    sealed_api: SealedApi,
    standing: RwLock<Standing>,
    /// What is at hand while the vault is sealed; whoever opens or seals holds it.
    back_room: Arc<Mutex<BackRoom>>,
    is_sealed: watch::Sender<bool>,
    /// How often it was sealed.
    sealings: watch::Sender<u64>,
    /// Why it was sealed when nobody sealed it.
    why_sealed: RwLock<Option<&'static str>>,
}

enum Standing {
    Open(Box<Opened>),
    Sealed,
}

struct Opened {
    vault: Vault,
    api: Api,
    /// Those under way.
    requests: TaskTracker,
    closing: CancellationToken,
    /// Requests are broken off.
    cut_off: CancellationToken,
    /// Connections are cut that have not been given all of an answer.
    gone: CancellationToken,
    tending: JoinHandle<()>,
}

struct BackRoom {
    held: HeldDir,
    /// None while it is open, and when it could not be read.
    sealed: Option<SealedVault>,
    unsealing: Unsealing,
    /// Whether the start of the server is still to be written down.
    start_is_due: bool,
}

impl Custody {
    /// Serves an open vault. Its start is on record already.
    pub fn open(vault: Vault, terms: Terms) -> Self {
        let back_room = BackRoom {
            held: vault.held(),
            sealed: None,
            unsealing: Unsealing::default(),
            start_is_due: false,
        };
        let custody = Self::new(vault.instance(), back_room, terms);
        custody.serve(vault);
        custody
    }

    /// Serves a vault that is sealed still. Its start is written down when it is opened.
    pub fn sealed(vault: SealedVault, terms: Terms) -> Self {
        let (instance, held) = (vault.instance(), vault.held());
        let unsealing = Unsealing::default();
        Self::new(instance, BackRoom { held, sealed: Some(vault), unsealing, start_is_due: true }, terms)
    }

    /// Whether it is sealed, and when that changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.inner.is_sealed.subscribe()
    }

    /// The vault's id.
    pub fn instance(&self) -> uuid::Uuid {
        self.inner.instance
    }

    /// Writes down that the server stops, and lets go of the vault. Nothing may be served any more.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub async fn close(self) -> Result<(), VaultError> {
        let mut room = self.inner.back_room.lock().await;
        room.sealed = None;
        let Some(opened) = self.take() else { return Ok(()) };
        let vault = opened.end(Duration::ZERO).await;
        let recorded = vault.record_system(SERVER, Action::Stop).await;
        vault.close().await;
        recorded.map(|_| ())
    }

    /// Seals in the background; gives the number of sealings after which it is done.
    pub(crate) fn begin_sealing(&self) -> u64 {
        let after = *self.inner.sealings.borrow() + 1;
        tokio::spawn(self.clone().seal());
        after
    }

    /// Takes an offer to unseal. Goes on when the client goes away.
    pub(crate) async fn unseal(&self, offer: MasterKeyOffer, who: Unsealer) -> Result<Progress, Problem> {
        let job = tokio::spawn(self.clone().unseal_now(offer, who));
        job.await.map_err(|_| Problem::internal())?
    }

    /// What opens the vault, and the shares given so far; none when it is open.
    pub(crate) async fn unsealing(&self) -> Result<Option<(Vec<SlotKind>, Vec<(u8, u8)>)>, Problem> {
        let mut room = self.inner.back_room.lock().await;
        if !*self.inner.is_sealed.borrow() {
            return Ok(None);
        }
        room.unsealing.expire(self.inner.terms.surroundings.clock.now());
        let shares = room.unsealing.gathered().collect();
        let slots = room.at_hand()?.slots().map(SlotKind::of).collect();
        Ok(Some((slots, shares)))
    }

    /// Forgets the shares that were given.
    pub(crate) async fn reset(&self) {
        self.inner.back_room.lock().await.unsealing.reset();
    }

    fn new(instance: uuid::Uuid, back_room: BackRoom, terms: Terms) -> Self {
        let front = Arc::new(Front::new(terms.doors.clone(), terms.certificate.clone()));
        let clock = Arc::clone(&terms.surroundings.clock);
        let edge = Edge { front: Arc::clone(&front), numbers: Numbers::Clock(clock) };
        let inner = Inner {
            instance,
            terms,
            front,
            sealed_api: SealedApi::new(edge),
            standing: RwLock::new(Standing::Sealed),
            back_room: Arc::new(Mutex::new(back_room)),
            is_sealed: watch::Sender::new(true),
            sealings: watch::Sender::new(0),
            why_sealed: RwLock::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Why it is sealed although nobody sealed it.
    pub(crate) fn why_sealed(&self) -> Option<&'static str> {
        *self.inner.why_sealed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_why_sealed(&self, why: Option<&'static str>) {
        *self.inner.why_sealed.write().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Seals when another node has changed the root key and the new one is not at hand here: the keys in memory are no
    /// longer the vault's.
    async fn seal_without_root(inner: Weak<Inner>, lost: impl Future<Output = Option<String>>) {
        let (Some(why), Some(inner)) = (lost.await, inner.upgrade()) else { return };
        let custody = Self { inner };
        let mut room = custody.inner.back_room.lock().await;
        // Somebody may have sealed it meanwhile, and opened it with what fits.
        if custody.is_stopped() {
            tracing::error!(%why, "the server seals itself");
            custody.set_why_sealed(Some(ROOT_CHANGED));
            custody.seal_with(&mut room).await;
        }
    }

    fn is_stopped(&self) -> bool {
        let standing = self.inner.standing.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&*standing, Standing::Open(opened) if opened.vault.stopped().is_some())
    }

    /// Lets requests in to an open vault.
    fn serve(&self, vault: Vault) {
        self.set_why_sealed(None);
        tokio::spawn(Self::seal_without_root(Arc::downgrade(&self.inner), vault.root_lost()));
        let app = AppState { vault: vault.clone(), front: Arc::clone(&self.inner.front) };
        let opened = Opened {
            api: Api::new(app),
            requests: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut_off: CancellationToken::new(),
            gone: CancellationToken::new(),
            tending: tokio::spawn((self.inner.terms.tend)(vault.clone())),
            vault,
        };
        *self.inner.standing.write().unwrap_or_else(PoisonError::into_inner) =
            Standing::Open(Box::new(opened));
        self.inner.is_sealed.send_replace(false);
    }

    /// Takes the vault away from those who come from now on.
    fn take(&self) -> Option<Box<Opened>> {
        let mut standing = self.inner.standing.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *standing, Standing::Sealed) {
            Standing::Open(opened) => Some(opened),
            Standing::Sealed => None,
        }
    }

    async fn seal(self) {
        let mut room = self.inner.back_room.lock().await;
        self.seal_with(&mut room).await;
    }

    async fn seal_with(&self, room: &mut BackRoom) {
        if let Some(opened) = self.take() {
            self.inner.is_sealed.send_replace(true);
            let vault = opened.end(SEAL_WITHIN).await;
            room.held = vault.let_go(DRAIN).await;
            // One that cannot be read now is read when it is to be opened.
            room.sealed =
                room.held.reopen().inspect_err(|error| tracing::error!(%error, "the sealed vault")).ok();
            tracing::warn!("the vault is sealed; `keymoat unseal` opens it");
        }
        self.inner.sealings.send_modify(|times| *times += 1);
    }

    async fn unseal_now(self, offer: MasterKeyOffer, who: Unsealer) -> Result<Progress, Problem> {
        let room = Arc::clone(&self.inner.back_room).lock_owned().await;
        if !*self.inner.is_sealed.borrow() {
            return Err(not_sealed());
        }
        let surroundings = self.inner.terms.surroundings.clone();
        // A passphrase takes its time, and so does looking through the whole state.
        let tried =
            tokio::task::spawn_blocking(move || room.with(|room| room.offer(offer, who.from, surroundings)));
        let (mut room, tried) = tried.await.map_err(|_| Problem::internal())?;
        let (vault, unsealed) = match tried? {
            Tried::Short { given, needed } => {
                self.forget_later();
                return Ok(Progress::Waits { given, needed });
            }
            Tried::Opened(vault, unsealed) => (*vault, unsealed),
        };
        if let Err(error) = room.record(&vault, &unsealed, &who).await {
            // No record, no service: it is as if nobody had come.
            room.held = vault.let_go(DRAIN).await;
            return Err(error.into());
        }
        room.unsealing = Unsealing::default();
        self.serve(vault);
        tracing::warn!(slot = unsealed.slot, kind = unsealed.kind, "the vault is unsealed");
        Ok(Progress::Open)
    }

    /// Forgets shares when their time is over, although nobody may ask for them again.
    fn forget_later(&self) {
        let inner: Weak<Inner> = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(LOOK_FOR_OLD_SHARES_AFTER).await;
            if let Some(inner) = inner.upgrade() {
                let now = inner.terms.surroundings.clock.now();
                inner.back_room.lock().await.unsealing.expire(now);
            }
        });
    }

    async fn answer(self, mut request: Request) -> Response {
        let Some(way) = self.way_in(&mut request) else { return self.answer_sealed(request).await };
        let Way { api, token, cut_off, gone } = way;
        let answered = tokio::select! {
            biased;
            response = api.answer(request) => Some(response),
            () = cut_off.cancelled() => None,
        };
        let Some(mut response) = answered else { return self.cut_off() };
        if let Some(AfterSealing(times)) = response.extensions_mut().remove() {
            drop(token);
            let mut sealings = self.inner.sealings.subscribe();
            // The sender lives as long as this.
            let _ = sealings.wait_for(|done| *done >= times).await;
            return response;
        }
        // What of it is still on its way when the sealing is over goes with its connection.
        response.extensions_mut().insert(CutsConnection(gone));
        // An answer of known length is in memory whole; one that is still being made holds the vault.
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        let cut_off = Box::pin(cut_off.cancelled_owned());
        response.map(|body| Body::new(Watched { body, cut_off, _token: token }))
    }

    /// The way to an open vault; none when it is sealed.
    fn way_in(&self, request: &mut Request) -> Option<Way> {
        let standing = self.inner.standing.read().unwrap_or_else(PoisonError::into_inner);
        let Standing::Open(opened) = &*standing else { return None };
        let custodian = Custodian { custody: self.clone(), closing: opened.closing.clone() };
        request.extensions_mut().insert(custodian);
        Some(Way {
            api: opened.api.clone(),
            token: opened.requests.token(),
            cut_off: opened.cut_off.clone(),
            gone: opened.gone.clone(),
        })
    }

    async fn answer_sealed(self, mut request: Request) -> Response {
        let inner = Arc::clone(&self.inner);
        request.extensions_mut().insert(Custodian { custody: self, closing: CancellationToken::new() });
        inner.sealed_api.answer(request).await
    }

    /// What somebody gets whose request did not end before the vault was sealed.
    fn cut_off(&self) -> Response {
        let number = Numbers::Clock(Arc::clone(&self.inner.terms.surroundings.clock)).next();
        edge::finish(Problem::sealed().into_response(), number)
    }
}

impl Service<Request> for Custody {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let custody = self.clone();
        Box::pin(async move { Ok(custody.answer(request).await) })
    }
}

/// The kind of a slot, with the shares it needs.
pub(crate) struct SlotKind {
    pub(crate) kind: &'static str,
    pub(crate) needed: Option<u8>,
}

impl SlotKind {
    fn of(slot: &keymoat_vault::entity::Slot) -> Self {
        use keymoat_vault::entity::SlotSource;
        let needed = match slot.source {
            SlotSource::Shamir { needed, .. } => Some(needed),
            SlotSource::Key | SlotSource::Passphrase { .. } => None,
        };
        Self { kind: slot.source.name(), needed }
    }
}

/// That there is nothing to unseal.
pub(crate) fn not_sealed() -> Problem {
    VaultError::new(keymoat_vault::Code::Conflict, "the server is not sealed").into()
}

struct Way {
    api: Api,
    token: TaskTrackerToken,
    cut_off: CancellationToken,
    gone: CancellationToken,
}

impl Opened {
    /// Waits for those who are on their way, cuts off whoever does not end, and gives the vault.
    async fn end(self: Box<Self>, within: Duration) -> Vault {
        let Opened { vault, api, requests, closing, cut_off, gone, tending } = *self;
        closing.cancel();
        requests.close();
        tending.abort();
        // An aborted task has let go of the vault only when it has ended.
        drop(tending.await);
        if tokio::time::timeout(within, requests.wait()).await.is_err() {
            tracing::warn!(left = requests.len(), "requests that did not end in time are cut off");
        }
        cut_off.cancel();
        // Also when all have ended: an answer may still be in the buffer of a connection that takes nothing.
        tokio::spawn(async move {
            tokio::time::sleep(TAKEN_WITHIN).await;
            gone.cancel();
        });
        requests.wait().await;
        drop(api);
        vault
    }
}

/// What an offer came to, in the back room.
enum Tried {
    Short { given: u8, needed: u8 },
    Opened(Box<Vault>, Unsealed),
}

impl BackRoom {
    fn at_hand(&mut self) -> Result<&SealedVault, VaultError> {
        let sealed = match self.sealed.take() {
            // Other nodes may have changed what opens the vault.
            Some(sealed) if !self.held.is_shared() => sealed,
            _ => self.held.reopen()?,
        };
        Ok(self.sealed.insert(sealed))
    }

    fn offer(
        &mut self,
        offer: MasterKeyOffer,
        from: Nearness,
        surroundings: Surroundings,
    ) -> Result<Tried, VaultError> {
        self.at_hand()?;
        let Some(sealed) = self.sealed.take() else {
            return Err(VaultError::new(keymoat_vault::Code::Internal, "the sealed vault is not at hand"));
        };
        match self.unsealing.offer(&sealed, offer, from, surroundings.clock.now()) {
            // What fails here leaves nothing at hand, and the next one who comes reads it again.
            Ok(UnsealStep::Unlocked(unlocked, unsealed)) => {
                Ok(Tried::Opened(Box::new(sealed.enter(*unlocked, surroundings)?), unsealed))
            }
            Ok(UnsealStep::More { given, needed }) => {
                self.sealed = Some(sealed);
                Ok(Tried::Short { given, needed })
            }
            Err(error) => {
                self.sealed = Some(sealed);
                Err(error)
            }
        }
    }

    async fn record(&mut self, vault: &Vault, unsealed: &Unsealed, who: &Unsealer) -> Result<(), VaultError> {
        vault.record_unseal(unsealed, who.os_user.as_deref(), who.origin.clone()).await?;
        if self.start_is_due {
            vault.record_system(SERVER, Action::Start).await?;
            self.start_is_due = false;
        }
        Ok(())
    }
}

/// Work on what a guard guards that gives the guard back, so that both can go to another thread.
trait With<T>: Sized {
    fn with<R>(self, work: impl FnOnce(&mut T) -> R) -> (Self, R);
}

impl<T> With<T> for OwnedMutexGuard<T> {
    fn with<R>(mut self, work: impl FnOnce(&mut T) -> R) -> (Self, R) {
        let result = work(&mut self);
        (self, result)
    }
}

/// A body that is still being made: it counts as a request under way, and breaks off when the vault has to go.
struct Watched {
    body: Body,
    cut_off: Pin<Box<WaitForCancellationFutureOwned>>,
    _token: TaskTrackerToken,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.cut_off.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new("the server was sealed"))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The part of the program that starts and stops.
const SERVER: &str = "server";
/// What is said to everybody; what exactly went wrong is for the server's own log.
const ROOT_CHANGED: &str =
    "the root key was changed on another node, and what opens it is not at hand on this one";
/// Longer than any request takes that does not wait for its client.
const SEAL_WITHIN: Duration = Duration::from_secs(5);
/// Then whoever has not taken an answer that was made while the vault was open does not get the rest of it.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);
/// How long the store has to end.
const DRAIN: Duration = Duration::from_secs(15);
/// A little longer than shares wait for one another.
const LOOK_FOR_OLD_SHARES_AFTER: Duration = Duration::from_secs(605);
