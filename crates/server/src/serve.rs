//! Listening: accept loops over TCP and a Unix socket, with limits, deadlines and a drain at the end.
//!
//! A connection on the socket is the user that the operating system names; one over TCP is an address, with TLS or
//! without. Until its first head is there a connection is only bytes that were read: the HTTP parser comes afterwards.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use keymoat_vault::Vault;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::context::Peer;
use crate::crowd::{Crowd, PerAddress, Place};
use crate::edge::HEADERS_MAX;
use crate::framing::StrictIo;
use crate::problem::RETRY_AFTER_SECS;
use crate::routes::Api;
use crate::turn::{Room, Turn};
use crate::{AppState, edge};

/// Where to listen.
pub struct Listeners {
    /// On the network.
    pub tcp: Vec<TcpListener>,
    /// How TLS is spoken there: each new connection takes what is there when it begins. None for plain HTTP.
    pub tls: Option<TlsConfigs>,
    /// On this machine.
    pub unix: Option<UnixListener>,
    /// The name of the user with a number, as the operating system has it.
    pub user_name: fn(u32) -> Option<String>,
    /// How much at once.
    pub limits: Limits,
}

/// The certificate that is served and what goes with it, exchanged while the server runs.
pub type TlsConfigs = watch::Receiver<Arc<rustls::ServerConfig>>;

/// How much at once, and how long it takes to end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections over TCP, and as many again on the socket, so that the network cannot shut the operator out.
    pub connections: usize,
    /// Connections from one address that is not this machine's.
    pub connections_per_address: usize,
    /// Of these, such as have not sent a whole head yet.
    pub waiting_per_address: usize,
    /// Requests over TCP that are worked on at once; more are told to come back.
    pub requests: usize,
    /// How long running requests have to end when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 256,
            waiting_per_address: 64,
            requests: 256,
            drain: Duration::from_secs(15),
        }
    }
}

/// The server is stopping: whoever waits answers now. Among the extensions of every request.
#[derive(Clone)]
pub(crate) struct Stopping(pub(crate) CancellationToken);

/// The API on a vault in this process, for a caller who is `peer`.
pub fn in_process(vault: Vault, peer: Peer) -> Api {
    Api::new(AppState::new(vault)).for_peer(peer)
}

/// Serves until `shutdown` is ready; then takes no more connections, lets running requests end, and cuts off what has
/// not ended after [`Limits::drain`].
pub async fn serve(desk: impl Desk, listeners: Listeners, shutdown: impl Future<Output = ()>) {
    let server = Arc::new(Server::new(desk, listeners.tls, listeners.user_name, listeners.limits));
    let (network, machine) = (server.crowd(), server.crowd());
    let accepting = TaskTracker::new();
    for listener in listeners.tcp {
        accepting.spawn(Arc::clone(&server).accept_tcp(listener, network.clone()));
    }
    if let Some(listener) = listeners.unix {
        accepting.spawn(Arc::clone(&server).accept_unix(listener, machine));
    }
    accepting.close();
    shutdown.await;
    server.stopping.cancel();
    accepting.wait().await;
    server.connections.close();
    if tokio::time::timeout(server.limits.drain, server.connections.wait()).await.is_err() {
        tracing::warn!(left = server.connections.len(), "connections that did not end in time are cut off");
        server.cut_off.cancel();
        server.connections.wait().await;
    }
}

/// What answers requests: the [`Api`] of an open vault, or the [`crate::Custody`] of one that may be sealed.
pub trait Desk:
    Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Desk for S where
    S: Service<Request<Body>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

struct Server<D> {
    desk: D,
    tls: Option<TlsConfigs>,
    user_name: fn(u32) -> Option<String>,
    limits: Limits,
    room: Room,
    stopping: CancellationToken,
    cut_off: CancellationToken,
    connections: TaskTracker,
}

impl<D: Desk> Server<D> {
    fn new(desk: D, tls: Option<TlsConfigs>, user_name: fn(u32) -> Option<String>, limits: Limits) -> Self {
        Self {
            desk,
            tls,
            user_name,
            limits,
            room: Room::new(limits.requests),
            stopping: CancellationToken::new(),
            cut_off: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    fn crowd(&self) -> Crowd {
        let Limits { connections, connections_per_address, waiting_per_address, .. } = self.limits;
        let per_address = PerAddress { most: connections_per_address, waiting: waiting_per_address };
        Crowd::new(connections, per_address, self.cut_off.clone())
    }

    async fn accept_tcp(self: Arc<Self>, listener: TcpListener, crowd: Crowd) {
        while let Some(accepted) = self.unless_stopping(listener.accept()).await {
            match accepted {
                Ok((stream, addr)) => {
                    let Some(entered) = self.unless_stopping(crowd.enter(Some(addr.ip()))).await else {
                        return;
                    };
                    let Some(place) = entered else {
                        tracing::debug!(%addr, "too many connections from one address");
                        continue;
                    };
                    // Answers are small and written at once; waiting for more would only delay them.
                    let _ = stream.set_nodelay(true);
                    match self.tls.as_ref().map(|configs| Arc::clone(&configs.borrow())) {
                        Some(config) => self.spawn_tls(stream, TlsAcceptor::from(config), addr, place),
                        None => self.spawn(stream, Peer::Tcp { addr }, place),
                    }
                }
                Err(error) => self.accept_failed(&error).await,
            }
        }
    }

    async fn accept_unix(self: Arc<Self>, listener: UnixListener, crowd: Crowd) {
        while let Some(accepted) = self.unless_stopping(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let Some(Some(place)) = self.unless_stopping(crowd.enter(None)).await else { return };
                    let user = stream.peer_cred().ok().and_then(|peer| (self.user_name)(peer.uid()));
                    let peer = user.map_or(Peer::Local, |name| Peer::OsUser { name });
                    self.spawn(stream, peer, place);
                }
                Err(error) => self.accept_failed(&error).await,
            }
        }
    }

    /// What something comes to; none when the server stops.
    async fn unless_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.stopping.cancelled() => None,
        }
    }

    /// Mostly too many open files: whoever is connected must end first.
    async fn accept_failed(&self, error: &io::Error) {
        tracing::warn!(%error, "a connection could not be accepted");
        self.unless_stopping(tokio::time::sleep(ACCEPT_AGAIN_AFTER)).await;
    }

    fn spawn<S>(self: &Arc<Self>, stream: S, peer: Peer, place: Place)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let server = Arc::clone(self);
        let deadline = Instant::now() + HEAD_WITHIN;
        self.connections.spawn(async move { server.connection(stream, peer, place, deadline).await });
    }

    fn spawn_tls(self: &Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor, addr: SocketAddr, place: Place) {
        let server = Arc::clone(self);
        let deadline = Instant::now() + HEAD_WITHIN;
        self.connections.spawn(async move {
            // On the heap, so that who waits for its request does not carry the handshake along.
            let handshake = Box::pin(acceptor.accept(stream));
            match server.in_time(&place, deadline, handshake).await {
                Some(Ok(stream)) => {
                    let stream = Box::new(stream);
                    server.connection(stream, Peer::Tcp { addr }, place, deadline).await;
                }
                Some(Err(error)) => tracing::debug!(%error, %addr, "a TLS handshake failed"),
                None => {}
            }
        });
    }

    /// What something comes to; none when it is too late, when room is short, and when the server stops.
    async fn in_time<T>(&self, place: &Place, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        let has_to_go = place.has_to_go();
        tokio::select! {
            done = tokio::time::timeout_at(deadline, work) => done.ok(),
            () = has_to_go.cancelled() => None,
            () = self.stopping.cancelled() => None,
        }
    }

    async fn connection<S>(&self, stream: S, peer: Peer, place: Place, deadline: Instant)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut io = StrictIo::new(stream, WRITE_WITHIN);
        if let Some(Ok(())) = self.in_time(&place, deadline, io.first_head(BUFFER_BYTES)).await {
            place.is_busy();
            // On the heap, so that who waits does not carry what only a request needs.
            Box::pin(self.requests(io, peer, place)).await;
        }
    }

    /// Answers one request after another.
    async fn requests<S>(&self, io: StrictIo<S>, peer: Peer, place: Place)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let has_to_go = place.has_to_go();
        let line = Arc::new(Line { place, peer, cut: Cut::default(), welcome_at: Mutex::default() });
        let service = hyper::service::service_fn(|request: Request<Incoming>| self.answer(request, &line));
        let connection = http().serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(connection);
        let cut = async {
            tokio::select! {
                () = has_to_go.cancelled() => {}
                () = line.cut.wanted() => {}
            }
        };
        let mut cut = pin!(cut);
        let ended = tokio::select! {
            // The connection first: what cuts it may have changed with an answer.
            biased;
            ended = connection.as_mut() => ended,
            () = cut.as_mut() => return,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => ended,
                    () = cut => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    fn answer(
        &self,
        mut request: Request<Incoming>,
        line: &Arc<Line>,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<D> {
        let line = Arc::clone(line);
        line.place.is_busy();
        // The answer before this one has been taken, or the next request would not have come.
        line.cut.set(None);
        let turn = self.turn(&line.peer, request.uri().path());
        request.extensions_mut().insert(line.peer.clone());
        request.extensions_mut().insert(Stopping(self.stopping.clone()));
        if request.uri().path() == METRICS {
            request.extensions_mut().insert(self.room.refused());
        }
        let (desk, stopping) = (self.desk.clone(), self.stopping.clone());
        async move {
            let mut response = match turn {
                Ok(turn) => {
                    turn.clone().map(|turn| request.extensions_mut().insert(turn));
                    let Ok(response) = desk.oneshot(request.map(Body::new)).await;
                    drop(turn);
                    response
                }
                Err(NoTurn) => {
                    line.hold_back(&stopping).await;
                    edge::overloaded()
                }
            };
            line.cut.set(response.extensions_mut().remove());
            // Who takes an answer that is still being made stays until it has ended.
            Ok(match response.body().size_hint().exact() {
                Some(_) => {
                    line.place.is_idle();
                    response
                }
                None => response.map(|body| Body::new(BusyBody { body, line })),
            })
        }
    }

    /// The turn of a request; none is needed on this machine's socket, nor to see whether the server lives.
    fn turn(&self, peer: &Peer, path: &str) -> Result<Option<Turn>, NoTurn> {
        if !matches!(peer, Peer::Tcp { .. }) || path == ALIVE {
            return Ok(None);
        }
        self.room.turn().map(Some).ok_or(NoTurn)
    }
}

/// How HTTP is spoken.
pub(crate) fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    http.header_read_timeout(HEAD_WITHIN).max_headers(HEADERS_MAX).max_buf_size(BUFFER_BYTES);
    http
}

/// More is asked than can be answered in time.
struct NoTurn;

/// What the requests of a connection share.
struct Line {
    place: Place,
    peer: Peer,
    cut: Cut,
    /// When he who was refused was told to come back.
    welcome_at: Mutex<Option<Instant>>,
}

impl Line {
    /// Ready when a refusal is due: at once, but for who was refused before and did not wait as long as he was told. To
    /// refuse him again and again would take what others could be answered with.
    async fn hold_back(&self, stopping: &CancellationToken) {
        let Some(until) = self.refuse_at(Instant::now()) else { return };
        self.place.is_idle();
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = stopping.cancelled() => {}
        }
    }

    fn refuse_at(&self, now: Instant) -> Option<Instant> {
        let mut welcome_at = self.welcome_at.lock().unwrap_or_else(PoisonError::into_inner);
        let until = welcome_at.filter(|until| *until > now);
        *welcome_at = Some(until.unwrap_or(now) + COME_BACK_AFTER);
        until
    }
}

/// Beside an answer: when this is cancelled, the connection is cut, whatever of the answer it still has to give.
#[derive(Clone)]
pub(crate) struct CutsConnection(pub(crate) CancellationToken);

/// What cuts a connection, as its newest answer says. The task that serves the connection looks at it each time that it
/// has gone on with an answer, so nobody has to be told of a change.
#[derive(Default)]
struct Cut(Mutex<Option<Pin<Box<WaitForCancellationFutureOwned>>>>);

impl Cut {
    fn set(&self, by: Option<CutsConnection>) {
        *self.wait() = by.map(|CutsConnection(token)| Box::pin(token.cancelled_owned()));
    }

    fn wanted(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| self.wait().as_mut().map_or(Poll::Pending, |wait| wait.as_mut().poll(cx)))
    }

    fn wait(&self) -> MutexGuard<'_, Option<Pin<Box<WaitForCancellationFutureOwned>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that is still being made; its connection is idle when it has ended.
struct BusyBody {
    body: Body,
    line: Arc<Line>,
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for BusyBody {
    fn drop(&mut self) {
        self.line.place.is_idle();
    }
}

/// A head is a few hundred bytes; whoever needs longer is holding the connection. It bounds idle connections too.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Whoever watches whether the server lives must not take an overload for its end.
const ALIVE: &str = "/healthz";
/// Tells among other things how many were refused here, of whom nothing behind this knows.
const METRICS: &str = "/metrics";
/// What `Retry-After` says beside a refusal.
const COME_BACK_AFTER: Duration = Duration::from_secs(RETRY_AFTER_SECS);
/// An answer that nobody takes for so long is not wanted.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// Bounds a head, and what a connection that sends one slowly costs.
const BUFFER_BYTES: usize = 32 * 1024;
/// Long enough for connections to end, short enough not to be noticed.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn server(limits: Limits) -> Server<Router> {
        let wait = || async { tokio::time::sleep(Duration::from_secs(3600)).await };
        let desk = Router::new().route("/wait", axum::routing::get(wait));
        Server::new(desk, None, |_| None, limits)
    }

    /// What a client gets that sends `bytes` and nothing more.
    async fn answer_to(server: &Server<Router>, peer: Peer, bytes: &[u8]) -> Vec<u8> {
        let (mut client, stream) = tokio::io::duplex(1024);
        let talk = async {
            client.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let place = server.crowd().enter(None).await.unwrap();
        let deadline = Instant::now() + HEAD_WITHIN;
        tokio::join!(talk, server.connection(stream, peer, place, deadline)).0
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_no_whole_head_is_let_go() {
        let begun = tokio::time::Instant::now();
        let answer =
            answer_to(&server(Limits::default()), Peer::Local, b"GET /wait HTTP/1.1\r\nHost: a\r\nX: ").await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", answer.escape_ascii());
        assert_eq!(begun.elapsed().as_secs(), HEAD_WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_end_is_cut_off() {
        let server = server(Limits::default());
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.stopping.cancel();
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.cut_off.cancel();
        };
        let request = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
        let (answer, ()) = tokio::join!(answer_to(&server, Peer::Local, request), stop);
        assert!(answer.is_empty(), "{}", answer.escape_ascii());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_as_he_was_told_is_refused_late() {
        let server = server(Limits { requests: 0, ..Limits::default() });
        let peer = Peer::Tcp { addr: SocketAddr::from(([127, 0, 0, 1], 1)) };
        let begun = Instant::now();
        let once = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
        let requests = [once, once, &once.replace("Host", "Connection: close\r\nHost")].concat();
        let answer = answer_to(&server, peer, requests.as_bytes()).await;
        assert_eq!(answer.escape_ascii().to_string().matches("HTTP/1.1 503").count(), 3);
        assert_eq!(begun.elapsed(), 2 * COME_BACK_AFTER);
    }
}
