//! Listening: accept loops over TCP and a Unix socket, with limits, deadlines and a drain at the end.
//!
//! A connection on the socket is the user that the operating system names; one over TCP is an address. TLS ends in
//! front of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use axum::{Extension, Router};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use keymoat_vault::Vault;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::AppState;
use crate::context::Peer;
use crate::edge::HEADERS_MAX;
use crate::framing::StrictIo;

/// Where to listen.
pub struct Listeners {
    /// On the network.
    pub tcp: Vec<TcpListener>,
    /// On this machine.
    pub unix: Option<UnixListener>,
    /// The name of the user with a number, as the operating system has it.
    pub user_name: fn(u32) -> Option<String>,
    /// How much at once.
    pub limits: Limits,
}

/// How much at once, and how long it takes to end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections over TCP, and as many again on the socket, so that the network cannot shut the operator out.
    pub connections: usize,
    /// Connections from one address that is not this machine's.
    pub connections_per_address: usize,
    /// How long running requests have to end when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4096, connections_per_address: 256, drain: Duration::from_secs(15) }
    }
}

/// The server is stopping: whoever waits answers now. Among the extensions of every request.
#[derive(Clone)]
pub(crate) struct Stopping(pub(crate) CancellationToken);

/// The API on a vault in this process, for a caller who is `peer`.
pub fn in_process(vault: Vault, peer: Peer) -> Router {
    crate::router(AppState::new(vault)).layer(Extension(peer))
}

/// Serves until `shutdown` is ready; then takes no more connections, lets running requests end, and cuts off what has
/// not ended after [`Limits::drain`].
pub async fn serve(desk: impl Desk, listeners: Listeners, shutdown: impl Future<Output = ()>) {
    let server = Server {
        desk,
        user_name: listeners.user_name,
        limits: listeners.limits,
        addresses: Addresses::default(),
        stopping: CancellationToken::new(),
        cut_off: CancellationToken::new(),
        connections: TaskTracker::new(),
    };
    let server = Arc::new(server);
    let accepting = TaskTracker::new();
    for listener in listeners.tcp {
        accepting.spawn(Arc::clone(&server).accept_tcp(listener));
    }
    if let Some(listener) = listeners.unix {
        accepting.spawn(Arc::clone(&server).accept_unix(listener));
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

/// What answers requests: the router of an open vault, or the [`crate::Custody`] of one that may be sealed.
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
    user_name: fn(u32) -> Option<String>,
    limits: Limits,
    addresses: Addresses,
    stopping: CancellationToken,
    cut_off: CancellationToken,
    connections: TaskTracker,
}

impl<D: Desk> Server<D> {
    async fn accept_tcp(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(self.limits.connections));
        while let Some(permit) = self.room(&room).await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, addr)) => {
                    let Some(place) = self.addresses.enter(addr.ip(), self.limits.connections_per_address)
                    else {
                        tracing::debug!(%addr, "too many connections from one address");
                        continue;
                    };
                    // Answers are small and written at once; waiting for more would only delay them.
                    let _ = stream.set_nodelay(true);
                    self.spawn(stream, Peer::Tcp { addr }, (permit, Some(place)));
                }
                Err(error) => self.accept_failed(&error).await,
            }
        }
    }

    async fn accept_unix(self: Arc<Self>, listener: UnixListener) {
        let room = Arc::new(Semaphore::new(self.limits.connections));
        while let Some(permit) = self.room(&room).await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let user = stream.peer_cred().ok().and_then(|peer| (self.user_name)(peer.uid()));
                    let peer = user.map_or(Peer::Local, |name| Peer::OsUser { name });
                    self.spawn(stream, peer, (permit, None));
                }
                Err(error) => self.accept_failed(&error).await,
            }
        }
    }

    /// Room for one more connection; none when the server stops.
    async fn room(&self, room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            permit = Arc::clone(room).acquire_owned() => permit.ok(),
            () = self.stopping.cancelled() => None,
        }
    }

    /// Mostly too many open files: whoever is connected must end first.
    async fn accept_failed(&self, error: &io::Error) {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::select! {
            () = tokio::time::sleep(ACCEPT_AGAIN_AFTER) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    fn spawn<S>(self: &Arc<Self>, stream: S, peer: Peer, place: (OwnedSemaphorePermit, Option<Place>))
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let server = Arc::clone(self);
        self.connections.spawn(async move {
            server.connection(stream, peer).await;
            drop(place);
        });
    }

    async fn connection<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (desk, stopping) = (self.desk.clone(), Stopping(self.stopping.clone()));
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(stopping.clone());
            desk.clone().oneshot(request.map(Body::new))
        });
        let io = TokioIo::new(StrictIo::new(stream, WRITE_WITHIN));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.cut_off.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of an address's connections; it is over when this is dropped.
struct Place {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// Counts a connection; `None` when there are too many already. A proxy on this machine speaks for many.
    fn enter(&self, address: IpAddr, most: usize) -> Option<Place> {
        let address = address.to_canonical();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if *count >= most && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// A head is a few hundred bytes; whoever needs longer is holding the connection. It bounds idle connections too.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// An answer that nobody takes for so long is not wanted.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// Bounds a head, and what a connection that sends one slowly costs.
const BUFFER_BYTES: usize = 32 * 1024;
/// Long enough for connections to end, short enough not to be noticed.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn server() -> Server<Router> {
        let wait = || async { tokio::time::sleep(Duration::from_secs(3600)).await };
        Server {
            desk: Router::new().route("/wait", axum::routing::get(wait)),
            user_name: |_| None,
            limits: Limits::default(),
            addresses: Addresses::default(),
            stopping: CancellationToken::new(),
            cut_off: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    /// What a client gets that sends `bytes` and nothing more.
    async fn answer_to(server: &Server<Router>, bytes: &[u8]) -> Vec<u8> {
        let (mut client, stream) = tokio::io::duplex(1024);
        let talk = async {
            client.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        tokio::join!(talk, server.connection(stream, Peer::Local)).0
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_no_whole_head_is_let_go() {
        let begun = tokio::time::Instant::now();
        let answer = answer_to(&server(), b"GET /wait HTTP/1.1\r\nHost: a\r\nX: ").await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", answer.escape_ascii());
        assert_eq!(begun.elapsed().as_secs(), HEAD_WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_end_is_cut_off() {
        let server = server();
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.stopping.cancel();
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.cut_off.cancel();
        };
        let request = b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
        let (answer, ()) = tokio::join!(answer_to(&server, request), stop);
        assert!(answer.is_empty(), "{}", answer.escape_ascii());
    }

    #[test]
    fn addresses_have_so_many_connections() {
        let addresses = Addresses::default();
        let far: IpAddr = "192.0.2.1".parse().unwrap();
        let first = addresses.enter(far, 2).unwrap();
        let _second = addresses.enter(far, 2).unwrap();
        assert!(addresses.enter(far, 2).is_none());
        assert!(addresses.enter("::ffff:192.0.2.1".parse().unwrap(), 2).is_none());
        assert!(addresses.enter("192.0.2.2".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(addresses.enter(far, 2).is_some());
        let near: IpAddr = "127.0.0.1".parse().unwrap();
        let places: Vec<_> = (0..5).map(|_| addresses.enter(near, 2)).collect();
        assert!(places.iter().all(Option::is_some));
        drop(places);
        assert_eq!(addresses.0.lock().unwrap().len(), 1);
    }
}
