//! The server on sockets: who is at the other end, strict framing, draining.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keymoat_server::{Limits, Listeners, serve};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::common::House;

struct Running {
    house: House,
    addr: SocketAddr,
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn running(user_name: fn(u32) -> Option<String>) -> Running {
    let house = House::new().await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let socket = house.tmp.path().join("s");
    let unix = UnixListener::bind(&socket).unwrap();
    let limits = Limits { drain: Duration::from_secs(5), ..Limits::default() };
    let listeners = Listeners { tcp: vec![tcp], tls: None, unix: Some(unix), user_name, limits };
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(serve(house.custody.clone(), listeners, shutdown));
    Running { house, addr, socket, stop, serving }
}

fn ana(_: u32) -> Option<String> {
    Some("ana".to_owned())
}

fn nobody(_: u32) -> Option<String> {
    None
}

/// Sends bytes and reads until the server ends the connection.
async fn raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    // The server may end the connection before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_socket_knows_the_user_and_the_network_does_not() {
    let running = running(ana).await;
    let request = b"GET /api/v1/whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let socket = raw(UnixStream::connect(&running.socket).await.unwrap(), request).await;
    assert!(socket.starts_with("HTTP/1.1 200"), "{socket}");
    assert!(socket.contains("\"account\":\"os:ana\""), "{socket}");
    let network = raw(TcpStream::connect(running.addr).await.unwrap(), request).await;
    assert!(network.starts_with("HTTP/1.1 401"), "{network}");
    assert!(network.to_lowercase().contains("www-authenticate: bearer"), "{network}");
}

#[tokio::test]
async fn a_user_without_a_name_needs_a_token() {
    let running = running(nobody).await;
    let request = b"GET /api/v1/whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let socket = raw(UnixStream::connect(&running.socket).await.unwrap(), request).await;
    assert!(socket.starts_with("HTTP/1.1 401"), "{socket}");
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let running = running(ana).await;
    let hidden = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let long = format!("X-Long: {}\r\n", "y".repeat(15 * 1024));
    let rows: [(String, &str); 18] = [
        (
            // Too long a head, and a body of doubtful length behind it: the connection ends with the answer.
            format!(
                "POST /healthz HTTP/1.1\r\nHost: localhost\r\n{long}{long}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            "4",
        ),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(), "200"),
        ("GET /healthz HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n".to_owned(), "421"),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: 127.0.0.1\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(), "400"),
        (
            "GET http://elsewhere.test/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                .to_owned(),
            "400",
        ),
        ("GET /healthz HTTP/1.1\nHost: localhost\n\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n".to_owned(), "400"),
        (
            format!(
                "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            "400",
        ),
        (
            format!(
                "POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{hidden}"
            ),
            "400",
        ),
        (
            format!(
                "POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            "411",
        ),
        (
            format!(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n{hidden}"
            ),
            "400",
        ),
        (format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: +0\r\n\r\n{hidden}"), "400"),
        ("GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n".to_owned(), "400"),
        (
            "GET /a/..%2f..%2fhealthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
            "400",
        ),
        ("GET //healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400"),
    ];
    for (request, status) in rows {
        let answer = raw(TcpStream::connect(running.addr).await.unwrap(), request.as_bytes()).await;
        let is_right = answer.starts_with(&format!("HTTP/1.1 {status}"))
            || answer.is_empty() && request.starts_with("PRI");
        assert!(is_right, "{request:?}: {answer}");
        let answers = answer.matches("HTTP/1.1 ").count();
        assert!(answers <= 1, "{request:?} was answered {answers} times: {answer}");
    }
}

#[tokio::test]
async fn a_head_has_limits() {
    let running = running(ana).await;
    let many: String = (0..80).map(|number| format!("X-{number}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(20_000));
    let huge = format!("X: {}\r\n", "y".repeat(100_000));
    for lines in [many, long, huge] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
        let answer = raw(TcpStream::connect(running.addr).await.unwrap(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn connections_are_used_again_and_answer_in_order() {
    let running = running(ana).await;
    let one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /api/v1/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer =
        raw(TcpStream::connect(running.addr).await.unwrap(), format!("{one}{one}{last}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 404").count(), 1, "{answer}");
}

#[tokio::test]
async fn who_waits_is_answered_when_the_server_stops() {
    let running = running(ana).await;
    let start = running.house.owner("GET", "/api/v1/changes").send().await.ok();
    let request = format!(
        "GET /api/v1/changes?after={}&wait_secs=60 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        start["next"]
    );
    let mut stream = UnixStream::connect(&running.socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    // An answer on another connection shows that the server has had time to take the first one up.
    let other = raw(
        UnixStream::connect(&running.socket).await.unwrap(),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    running.stop.send(()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with(&json!({ "changes": [], "next": start["next"] }).to_string()), "{answer}");
    tokio::time::timeout(Duration::from_secs(5), running.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.addr).await.is_err());
}

#[tokio::test]
async fn a_backup_travels_in_pieces() {
    let running = running(ana).await;
    let request =
        b"POST /api/v1/backup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = raw(UnixStream::connect(&running.socket).await.unwrap(), request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.80}");
    assert!(
        answer.contains("keymoat-backup-1\n") && answer.ends_with("0\r\n\r\n"),
        "the answer is not whole"
    );
}
