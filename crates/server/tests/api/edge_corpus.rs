//! The corpus over real connections: what is refused is never handled, what is taken is taken as often as the bytes
//! say, and behind a refusal of framing nothing is looked at. The same behind proxies, where they are installed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use http::Request;
use keymoat_server::{Custody, Limits, Listeners, serve};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tower::Service;

use crate::common::House;
use crate::edge_rows::{Then, rows};

/// A request that came out of the HTTP parser, and the status of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub mark: Option<String>,
    pub path: String,
    pub status: u16,
}

impl Seen {
    /// Whether a handler was reached, and not only the edge.
    pub fn is_handled(&self) -> bool {
        matches!(self.status, 200 | 404 | 405)
    }
}

/// The server's own desk, which notes what reaches it.
#[derive(Clone)]
pub struct Counting {
    custody: Custody,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Service<Request<Body>> for Counting {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mark = request.headers().get("x-mark").map(|mark| mark.to_str().unwrap().to_owned());
        let path = request.uri().path().to_owned();
        let (seen, answering) = (Arc::clone(&self.seen), self.custody.call(request));
        Box::pin(async move {
            let answer = answering.await?;
            seen.lock().unwrap().push(Seen { mark, path, status: answer.status().as_u16() });
            Ok(answer)
        })
    }
}

/// A server that notes what it sees.
pub struct Watched {
    _house: House,
    pub addr: SocketAddr,
    socket: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Watched {
    pub async fn new() -> Self {
        let house = House::new().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let desk = Counting { custody: house.custody.clone(), seen: Arc::clone(&seen) };
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let socket = house.tmp.path().join("s");
        let listeners = Listeners {
            tcp: vec![tcp],
            tls: None,
            unix: Some(UnixListener::bind(&socket).unwrap()),
            user_name: |_| None,
            limits: Limits::default(),
        };
        tokio::spawn(serve(desk, listeners, std::future::pending()));
        Self { _house: house, addr, socket, seen }
    }

    /// What was seen since this was last asked.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// Sends bytes and then a good request that ends the connection; gives what comes back.
pub async fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    exchange_over(TcpStream::connect(addr).await.unwrap(), bytes).await
}

async fn exchange_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    // The server may end the connection before it has read everything.
    let _ = stream.write_all(&[bytes, PROBE].concat()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the answers, without those that only announce one.
fn statuses(answer: &str) -> Vec<u16> {
    let statuses = answer.split("HTTP/1.").skip(1).map(|answer| answer[2..5].parse().unwrap());
    statuses.filter(|status| *status != 100).collect()
}

#[tokio::test]
async fn every_request_has_one_reading_or_none() {
    let server = Watched::new().await;
    let rows = rows();
    assert!(rows.len() >= 150, "{}", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let answer = exchange(server.addr, &row.bytes).await;
        if let Err(what) = check(row.then, &answer, &server.seen()) {
            wrong.push(format!("{}: {what}: {:.300}", row.name, answer));
        }
        let answer = exchange_over(UnixStream::connect(&server.socket).await.unwrap(), &row.bytes).await;
        if let Err(what) = check(row.then_on_the_socket(), &answer, &server.seen()) {
            wrong.push(format!("{} on the socket: {what}: {:.300}", row.name, answer));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

fn check(then: Then, answer: &str, seen: &[Seen]) -> Result<(), String> {
    let (probes, own): (Vec<&Seen>, Vec<&Seen>) =
        seen.iter().partition(|seen| seen.mark.as_deref() == Some("probe"));
    let handled = own.iter().filter(|seen| seen.is_handled()).count();
    if handled != then.handled {
        return Err(format!("{handled} were handled, not {}: {own:?}", then.handled));
    }
    if probes.is_empty() != then.ends {
        return Err(format!("the connection {}", if then.ends { "goes on" } else { "ended" }));
    }
    if seen.iter().any(|seen| seen.mark.as_deref() == Some("hidden")) {
        return Err("what was hidden came out".to_owned());
    }
    let statuses = statuses(answer);
    let expected = handled + usize::from(then.refused.is_some()) + probes.len();
    if statuses.len() != expected {
        return Err(format!("{} answers, not {expected}", statuses.len()));
    }
    match then.refused {
        Some(status) if statuses[handled] != status => {
            Err(format!("refused with {}, not {status}", statuses[handled]))
        }
        _ => Ok(()),
    }
}

const PROBE: &[u8] =
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Mark: probe\r\nConnection: close\r\n\r\n";
