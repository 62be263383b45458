//! Many clients at once, and slow ones: who sends nothing keeps nobody out, who asks beyond what can be answered is told
//! so at once, and who takes nothing does not hold up the sealing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use keymoat_server::{Desk, Limits, Listeners, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::common::House;

/// Serves over TCP for as long as the test runs.
async fn served(desk: impl Desk, limits: Limits) -> SocketAddr {
    serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), desk, limits)
}

fn serve_on(tcp: TcpListener, desk: impl Desk, limits: Limits) -> SocketAddr {
    let addr = tcp.local_addr().unwrap();
    let listeners = Listeners { tcp: vec![tcp], tls: None, unix: None, user_name: |_| None, limits };
    tokio::spawn(serve(desk, listeners, std::future::pending()));
    addr
}

async fn send(addr: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // The server may end the connection hard. Who has to wait for somebody else's deadline was kept out.
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(8), reading).await.expect("it takes too long");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A good request on a connection of its own.
async fn good(addr: SocketAddr) -> String {
    rest(send(addr, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await).await
}

#[tokio::test]
async fn who_sends_nothing_keeps_nobody_out() {
    let house = House::new().await;
    let addr = served(house.custody.clone(), Limits { connections: 8, ..Limits::default() }).await;
    let mut halves = Vec::new();
    for _ in 0..10 {
        for part in ["", "G", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Never: e"] {
            halves.push(send(addr, part).await);
        }
        let answer = good(addr).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Whoever waited longest had to go; those that room was left for are there still.
    for early in halves.drain(..20) {
        assert_eq!(rest(early).await, "");
    }
    let mut last = halves.pop().unwrap();
    last.write_all(b"nds: now\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(last).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_is_beyond_what_can_be_answered_is_told_so_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let (entered, mut entries) = tokio::sync::mpsc::unbounded_channel();
    let wait = {
        let gate = Arc::clone(&gate);
        move || {
            let (gate, entered) = (Arc::clone(&gate), entered.clone());
            async move {
                entered.send(()).unwrap();
                drop(gate.acquire().await.unwrap());
                "done"
            }
        }
    };
    let desk = Router::new().route("/wait", get(wait)).route("/healthz", get(|| async { "ok" }));
    let addr = served(desk, Limits { requests: 2, ..Limits::default() }).await;
    let request = "GET /wait HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let slow = [send(addr, request).await, send(addr, request).await];
    for _ in &slow {
        entries.recv().await.unwrap();
    }
    for _ in 0..10 {
        let refused = rest(send(addr, request).await).await.to_lowercase();
        assert!(refused.starts_with("http/1.1 503"), "{refused}");
        assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
        assert!(refused.contains("\"code\":\"unavailable\""), "{refused}");
    }
    assert!(good(addr).await.starts_with("HTTP/1.1 200"), "a health check needs no turn");
    gate.add_permits(1);
    for stream in slow {
        assert!(rest(stream).await.ends_with("done"));
    }
    assert!(rest(send(addr, request).await).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_overload_every_value_that_is_given_has_its_record() {
    let house = House::new().await;
    house.put("prod/stripe", "a made-up value").await;
    let rules = json!([
        { "capabilities": ["reveal"], "environments": ["prod"], "paths": ["stripe"] },
        { "capabilities": ["inspect"], "environments": ["sys"], "paths": ["metrics"] },
    ]);
    let token = house.service("shop", rules).await;
    let addr = served(house.custody.clone(), Limits { requests: 2, ..Limits::default() }).await;
    let request = format!(
        "POST /api/v1/reveal/prod/stripe HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let request = request.clone();
        clients.spawn(async move { rest(send(addr, &request).await).await });
    }
    let answers = clients.join_all().await;
    let count = |status: &str| answers.iter().filter(|answer| answer.starts_with(status)).count();
    let (given, refused) = (count("HTTP/1.1 200"), count("HTTP/1.1 503"));
    assert!(given >= 1 && given + refused == answers.len(), "{given} given, {refused} refused");
    assert!(
        answers.iter().all(|answer| answer.contains("made-up value") == answer.starts_with("HTTP/1.1 200"))
    );
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let metrics = rest(send(addr, &request).await).await;
    assert!(metrics.contains(&format!("\nkeymoat_http_overloaded_total {refused}\n")), "{metrics}");
    let page = house.owner("GET", "/api/v1/audit?limit=1000&action=reveal").send().await.ok();
    assert_eq!(page["events"].as_array().unwrap().len(), given);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_does_not_hold_up_the_sealing() {
    let house = House::new().await;
    for number in 0..40 {
        house.put(&format!("prod/large-{number}"), &"made up ".repeat(6_000)).await;
    }
    let socket = house.tmp.path().join("s");
    let unix = UnixListener::bind(&socket).unwrap();
    let user_name = |_| Some("ana".to_owned());
    let listeners =
        Listeners { tcp: Vec::new(), tls: None, unix: Some(unix), user_name, limits: Limits::default() };
    tokio::spawn(serve(house.custody.clone(), listeners, std::future::pending()));
    let mut slow = UnixStream::connect(&socket).await.unwrap();
    let request = b"POST /api/v1/backup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    slow.write_all(request).await.unwrap();
    // It has begun to be answered, and takes no more.
    slow.read_exact(&mut [0; 64]).await.unwrap();
    let sealing = house.owner("POST", "/api/v1/seal").send();
    let sealed = tokio::time::timeout(Duration::from_secs(20), sealing).await.expect("the sealing waits");
    assert_eq!(sealed.status, 204, "{}", sealed.text);
    assert!(!rest(slow).await.ends_with("0\r\n\r\n"), "the answer came to its end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_nobody_takes_goes_with_its_connection_when_the_server_is_sealed() {
    let house = House::new().await;
    house.put("prod/large", &"made up ".repeat(8_000)).await;
    let rules = json!([{ "capabilities": ["reveal"], "environments": ["prod"], "paths": ["large"] }]);
    let token = house.service("shop", rules).await;
    // The operating system keeps so little of the answer that most of it stays with the server.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SMALL_BUFFER_BYTES).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let addr = serve_on(socket.listen(1).unwrap(), house.custody.clone(), Limits::default());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SMALL_BUFFER_BYTES).unwrap();
    let mut slow = socket.connect(addr).await.unwrap();
    let request = format!(
        "POST /api/v1/reveal/prod/large HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut beginning = [0; 15];
    slow.read_exact(&mut beginning).await.unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    assert_eq!(house.owner("POST", "/api/v1/seal").send().await.status, 204);
    // The server reads no more while its answer waits, so this ends with the connection and not before.
    let more = vec![b'x'; 8 * 1024 * 1024];
    let cut = tokio::time::timeout(Duration::from_secs(8), slow.write_all(&more)).await;
    assert!(cut.expect("the connection stays").is_err(), "somebody reads on");
}

const SMALL_BUFFER_BYTES: u32 = 4 * 1024;
