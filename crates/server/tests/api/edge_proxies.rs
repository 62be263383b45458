//! The corpus through proxies: whatever they make of the bytes, they and the server agree on how many requests there
//! were, and what a proxy denies is not reached under another spelling.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::edge_corpus::{Seen, Watched, exchange};
use crate::edge_rows::rows;

/// A running proxy; it is stopped when the test forgets it.
struct Proxy {
    child: Child,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Proxy {
    /// Starts a proxy in front of a server; none where it is not installed.
    async fn start(program: &str, config: &str, server: SocketAddr) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testkit/proxies").join(config);
        let text = std::fs::read_to_string(from).unwrap();
        let text = text.replace("LISTEN", &addr.to_string()).replace("SERVER", &server.to_string());
        let file = dir.path().join(config);
        std::fs::write(&file, text.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let mut command = Command::new(program);
        match program {
            "nginx" => command.arg("-p").arg(dir.path()).arg("-c").arg(&file),
            _ => command.arg("-db").arg("-f").arg(&file),
        };
        // Debian keeps both where only root's path leads.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let mut proxy = Self { child, addr, _dir: dir };
        proxy.wait().await;
        Some(proxy)
    }

    /// Polls: a proxy tells nobody that it listens.
    async fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.addr).await.is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "the proxy ended");
            assert!(Instant::now() < deadline, "the proxy does not listen");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_corpus_behind_nginx() {
    behind("the_corpus_behind_nginx", "nginx", "nginx.conf").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_corpus_behind_haproxy() {
    behind("the_corpus_behind_haproxy", "haproxy", "haproxy.cfg").await;
}

async fn behind(test: &str, program: &str, config: &str) {
    let server = Watched::new().await;
    let Some(proxy) = Proxy::start(program, config, server.addr).await else {
        skip(test, program);
        return;
    };
    let mut wrong = Vec::new();
    for row in rows() {
        let answer = exchange(proxy.addr, &row.bytes).await;
        let seen = server.seen();
        if let Err(what) = agree(row.then.handled, &answer, &seen) {
            wrong.push(format!("{}: {what}: {seen:?}: {answer:.200}", row.name));
        }
    }
    for spelling in DENIED {
        let request = format!("GET {spelling} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        exchange(proxy.addr, request.as_bytes()).await;
        let reached = server.seen().into_iter().find(|seen| seen.status == 200 && seen.mark.is_none());
        wrong.extend(reached.map(|seen| format!("{spelling} led to {seen:?}")));
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[expect(clippy::print_stderr, reason = "a skip is announced where the test runner reads it")]
fn skip(test: &str, program: &str) {
    eprintln!("SKIP {test}: {program} is not installed");
}

/// Every request that the server saw has one answer that came back, so none was hidden in another; and of what the
/// server alone takes once or refuses, at most one reaches a handler.
fn agree(alone: usize, answer: &str, seen: &[Seen]) -> Result<(), String> {
    // An answer in HTTP/0.9, which nginx speaks, is a body without a head.
    let is_bare = answer.starts_with('{');
    let answers = answer.to_ascii_lowercase().matches("\r\nx-request-id: ").count() + usize::from(is_bare);
    if answers != seen.len() {
        return Err(format!("the server saw {} requests, and {answers} answers came back", seen.len()));
    }
    let own = seen.iter().filter(|seen| seen.mark.is_none() && seen.is_handled()).count();
    if own > alone.max(1) {
        return Err(format!("{own} requests were handled"));
    }
    Ok(())
}

/// Spellings of a path that the proxies deny.
const DENIED: [&str; 27] = [
    "/api/v1/status",
    "/api/v1/status?x=y",
    "//api/v1/status",
    "/api//v1/status",
    "/./api/v1/status",
    "/api/./v1/status",
    "/x/../api/v1/status",
    "/%2e/api/v1/status",
    "/x/%2e%2e/api/v1/status",
    "/x/..%2fapi/v1/status",
    "/api%2fv1%2fstatus",
    "/api%2Fv1/status",
    "/api%5cv1%5cstatus",
    "/api\\v1\\status",
    "/%61pi/v1/status",
    "/api/v1/statu%73",
    "/%2561pi/v1/status",
    "/API/v1/status",
    "/api/V1/status",
    "/api/v1/;/status",
    "/api;x/v1/status",
    "/%00/../api/v1/status",
    "/%c0%af/../api/v1/status",
    "/x#/../api/v1/status",
    "http://localhost/api/v1/status",
    "http://localhost//api/v1/status",
    "/%20/../api/v1/status",
];
