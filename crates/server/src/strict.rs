//! What the strict checks make of bytes, without a vault, a network or a handler: for the fuzz target `http_head`.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::context::Peer;
use crate::framing::StrictIo;
use crate::{Doors, edge, serve};

/// The requests, as method and target, that would reach a handler when these bytes come over a connection of this
/// machine.
pub async fn taken(bytes: &[u8]) -> Vec<(String, String)> {
    let taken = Mutex::new(Vec::new());
    let (client, server) = tokio::io::duplex(DUPLEX_BYTES);
    let (mut answers, mut requests) = tokio::io::split(client);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer::Tcp { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)) });
        let mut response = Response::new(Body::empty());
        match edge::check(&request, &Doors::default()) {
            Ok(()) => {
                let seen = (request.method().to_string(), request.uri().to_string());
                taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(seen);
            }
            Err(problem) if problem.ends_connection => {
                response
                    .headers_mut()
                    .insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
            }
            Err(_) => {}
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let io = StrictIo::new(server, Duration::from_secs(1));
    let connection = serve::http().serve_connection(TokioIo::new(io), service);
    let write = async {
        // The server may have ended the connection.
        let _ = requests.write_all(bytes).await;
        let _ = requests.shutdown().await;
    };
    let read = async {
        let mut buffer = [0; 1024];
        while answers.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    // How it ended says nothing that `taken` does not.
    let _ = tokio::join!(write, read, connection);
    taken.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Far more than what a fuzzer sends.
const DUPLEX_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_and_what_is_taken() {
        async fn check(bytes: &str, expected: &[(&str, &str)]) {
            let taken = taken(bytes.as_bytes()).await;
            let taken: Vec<(&str, &str)> = taken.iter().map(|(m, t)| (m.as_str(), t.as_str())).collect();
            assert_eq!(taken, expected, "{bytes:?}");
        }
        let good = "GET /healthz?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let bad = "GET //healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let get = ("GET", "/healthz?a=b");
        check("", &[]).await;
        check(good, &[get]).await;
        check(&format!("{good}{bad}{good}"), &[get, get]).await;
        check(&format!("{good}\r\n{good}"), &[get]).await;
        check("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", &[("POST", "/")]).await;
    }
}
