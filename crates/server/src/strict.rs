//! What the strict checks make of bytes, without a vault, a network or a handler: for bytes that nobody thought of.

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

/// What a plain reading of RFC 9112 finds in bytes: heads with proper lines and one way to say how long they are, and
/// nothing behind the first that is otherwise. It shares no code with what it is held against.
pub fn plain_reading(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let Some((request, length)) = head(&bytes[..end]) else { break };
        found.push(request);
        let Some(rest) = bytes[end + 4..].get(length..) else { break };
        bytes = rest;
    }
    found
}

fn head(head: &[u8]) -> Option<((String, String), usize)> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))) {
        return None;
    }
    let (first, headers) = lines.split_first()?;
    let words: Vec<&str> = std::str::from_utf8(first).ok()?.split(' ').collect();
    let [method, target, "HTTP/1.0" | "HTTP/1.1"] = words[..] else { return None };
    let (mut hosts, mut lengths) = (0, Vec::new());
    for line in headers {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].trim_ascii();
        match line[..colon].to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => lengths.push(std::str::from_utf8(value).ok()?.parse::<usize>().ok()?),
            b"transfer-encoding" => return None,
            _ => {}
        }
    }
    if hosts != 1 || lengths.len() > 1 {
        return None;
    }
    Some(((method.to_owned(), target.to_owned()), lengths.first().copied().unwrap_or(0)))
}

/// Far more than what is sent to it at once.
const DUPLEX_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A few requests of which some are good, with bytes exchanged for others that mean something.
    fn connections() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(PARTS);
        let edit = (any::<prop::sample::Index>(), prop::sample::select(BYTES));
        (prop::collection::vec(part, 1..12), prop::collection::vec(edit, 0..3)).prop_map(|(parts, edits)| {
            let mut bytes = parts.concat().into_bytes();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
    }

    const PARTS: &[&str] = &[
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /a?b=c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\n",
        "GET /healthz HTTP/1.0\r\n",
        "Host: localhost\r\n",
        "Host: [::1]:1\r\n",
        "Content-Length: 2\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "X-A: b\r\n",
        " folded\r\n",
        "\r\n",
        "\n",
        "ab",
    ];
    const BYTES: &[u8] = b"\0\t\n\r #%/0:A\\\x7f\x80\xff";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn nothing_is_taken_that_a_plain_reading_does_not_find(bytes in connections()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut plain = plain_reading(&bytes).into_iter();
            for request in runtime.block_on(taken(&bytes)) {
                let is_found = plain.any(|found| found == request);
                prop_assert!(is_found, "{:?} in {}", request, bytes.escape_ascii());
            }
        }
    }

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
