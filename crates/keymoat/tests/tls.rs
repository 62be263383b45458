//! TLS in `serve`: what is refused, who gets in, and a certificate that is exchanged while requests run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/authority.rs"]
mod authority;
mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::{Authority, Pair, YEAR, now};
use common::{Home, Server};
use jiff::SignedDuration;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Puts a pair where the server looks for it, the way a tool does that renews it.
fn put(home: &Home, pair: &Pair) {
    for (name, text) in [("tls.pem", &pair.cert), ("tls.key", &pair.key)] {
        home.file(&format!("{name}.new"), text);
        std::fs::rename(home.path().join(format!("{name}.new")), home.path().join(name)).unwrap();
    }
}

const FLAGS: [&str; 4] = ["--tls-cert", "tls.pem", "--tls-key", "tls.key"];

fn hang_up(server: &Server) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts an authority, and shows a certificate when it has one.
fn client(authority: &Authority, pair: Option<&Pair>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn connect(config: &Arc<ClientConfig>, address: &str) -> Connection {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// Sends a request and reads its whole answer.
fn ask(connection: &mut Connection, path: &str) -> std::io::Result<String> {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = connection.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                return Ok(text);
            }
        }
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What a client of this authority gets on a new connection.
fn get(authority: &Authority, address: &str, path: &str) -> std::io::Result<String> {
    ask(&mut connect(&client(authority, None, &[b"http/1.1"]), address), path)
}

/// Waits until something holds; a server that reads files again tells nobody when it has done so.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn address(server: &Server) -> String {
    let address = server.address();
    address.strip_prefix("https://").unwrap_or_else(|| panic!("{address}")).to_owned()
}

#[test]
fn a_certificate_is_exchanged_and_no_request_fails() {
    let home = Home::new();
    let authority = Arc::new(Authority::new());
    put(&home, &authority.issue(YEAR));
    let server = home.serve_with(&FLAGS);
    let address = address(&server);
    let (answered, answers) = std::sync::mpsc::channel();
    // Two keep their connections, two make a new one for each request.
    let clients: Vec<_> = [(true, 4_800), (true, 4_800), (false, 200), (false, 200)]
        .map(|(keeps, requests)| {
            let (authority, address) = (Arc::clone(&authority), address.clone());
            let answered = answered.clone();
            std::thread::spawn(move || {
                let config = client(&authority, None, &[b"http/1.1"]);
                let mut connection = connect(&config, &address);
                let mut good = 0;
                for _ in 0..requests {
                    if !keeps {
                        connection = connect(&config, &address);
                    }
                    let answer = ask(&mut connection, "/healthz");
                    good += usize::from(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
                    answered.send(()).unwrap();
                }
                good
            })
        })
        .into();
    // Exchanged again and again while they run.
    for _ in 1..20 {
        (0..500).for_each(|_| answers.recv().unwrap());
        put(&home, &authority.issue(YEAR));
        hang_up(&server);
    }
    let good: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(good, 10_000);
    // Without being told, too: what is shown in the end is what lies there.
    let last = authority.issue(YEAR + YEAR);
    put(&home, &last);
    let ends = (now() + YEAR + YEAR).to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    wait_until("the files are not read again by themselves", || {
        get(&authority, &address, "/readyz").unwrap().contains(&ends)
    });
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_is_made() {
    let home = Home::new();
    let authority = Authority::new();
    let (good, other) = (authority.issue(YEAR), authority.issue(YEAR));
    let check = |pair: &Pair, mode: u32, flags: &[&str], says: &str| {
        put(&home, pair);
        home.mode("tls.key", mode);
        let done = home.serve_in_vain(flags);
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.stderr.contains(says), "{says}: {done:?}");
        assert!(!home.database().exists(), "nothing was made");
    };
    let with = |cert: &str, key: &str| Pair { cert: cert.to_owned(), key: key.to_owned() };
    let expired = authority.issue(SignedDuration::from_hours(-48));
    check(&with(&good.cert, &other.key), 0o600, &FLAGS, "of one pair");
    check(&expired, 0o600, &FLAGS, "ended at");
    check(&good, 0o640, &FLAGS, "others can read the private key file");
    check(&with("made up", &good.key), 0o600, &FLAGS, "holds no certificate");
    check(&with(&good.cert, "made up"), 0o600, &FLAGS, "is not a private key");
    check(&good, 0o600, &FLAGS[..2], "--tls-key");
    check(&good, 0o600, &["--tls-cert", "none.pem", "--tls-key", "tls.key"], "none.pem");
    check(
        &good,
        0o600,
        &[&FLAGS[..], &["--tls-client-ca", "tls.key"]].concat(),
        "no certificate of an authority",
    );
    check(&good, 0o600, &[&FLAGS[..], &["--plain-http"]].concat(), "cannot be used with");
}

#[test]
fn a_broken_pair_leaves_the_one_before_in_use_and_says_so() {
    let home = Home::new();
    let authority = Authority::new();
    put(&home, &authority.issue(YEAR));
    let server = home.serve_with(&FLAGS);
    let address = address(&server);
    let doctor = || home.run(&["doctor"]).stdout;
    assert!(doctor().contains("certificate     is good until"), "{}", doctor());
    let ready = || get(&authority, &address, "/readyz").unwrap();

    home.file("tls.pem", &authority.issue(YEAR).cert);
    hang_up(&server);
    wait_until("the broken pair is not noticed", || ready().contains("not taken"));
    assert!(server.log().contains("the one before stays in use"), "{}", server.log());
    assert!(doctor().contains("could not take"), "{}", doctor());
    assert!(home.ok(&["status"]).stdout.contains("state     fine"));

    put(&home, &authority.issue(SignedDuration::from_hours(72)));
    wait_until("the good pair is not taken", || !ready().contains("not taken"));
    wait_until("nothing is said of the near end", || server.log().contains("ends soon"));
    let said = doctor();
    assert!(said.contains("ends at") && said.contains("put a newer one"), "{said}");
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn old_protocols_and_other_ones_are_refused() {
    let home = Home::new();
    let authority = Authority::new();
    put(&home, &authority.issue(YEAR));
    let server = home.serve_with(&[&FLAGS[..], &["--open-metrics"]].concat());
    let address = address(&server);
    let metrics = get(&authority, &address, "/metrics").unwrap();
    assert!(metrics.contains("keymoat_tls_certificate_stale 0"), "{metrics}");
    for (version, name) in [(0, "SSL 3.0"), (1, "TLS 1.0"), (2, "TLS 1.1")] {
        let answer = raw(&address, &hello(version));
        // A fatal alert and nothing else (RFC 8446 §6).
        assert!(answer.len() == 7 && answer[0] == 0x15 && answer[5] == 2, "{name}: {answer:?}");
    }
    let plain = raw(&address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!plain.starts_with(b"HTTP"), "{}", plain.escape_ascii());
    let h2 = ask(&mut connect(&client(&authority, None, &[b"h2"]), &address), "/healthz");
    assert!(h2.is_err(), "{h2:?}");
    let stranger = get(&Authority::new(), &address, "/healthz");
    assert!(stranger.is_err(), "{stranger:?}");
    assert!(get(&authority, &address, "/healthz").unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(server.interrupt(), 0);
}

/// What comes back for some bytes.
fn raw(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // The server may end the connection hard.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A ClientHello of a version before 1.2, with two suites that those had (RFC 4346 §7.4.1.2).
fn hello(minor: u8) -> Vec<u8> {
    let body = [&[3, minor][..], &[7; 32], &[0], &[0, 4, 0xc0, 0x13, 0, 0x2f], &[1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[0x16, 3, minor, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

#[test]
fn only_who_shows_a_certificate_gets_in_and_the_commands_do() {
    let home = Home::new();
    let (authority, stranger) = (Authority::new(), Authority::new());
    put(&home, &authority.issue(YEAR));
    home.file("ca.pem", &authority.pem);
    let server = home.serve_with(&[&FLAGS[..], &["--tls-client-ca", "ca.pem"]].concat());
    let address = address(&server);
    let (own, strange) = (authority.issue(YEAR), stranger.issue(YEAR));
    let check = |pair: Option<&Pair>, gets_in: bool| {
        let answer = ask(&mut connect(&client(&authority, pair, &[b"http/1.1"]), &address), "/healthz");
        assert_eq!(answer.is_ok(), gets_in, "{answer:?}");
    };
    check(None, false);
    check(Some(&strange), false);
    check(Some(&own), true);

    home.file("own.pem", &own.cert);
    home.file("own.key", &own.key);
    let status = |variables: &[(&str, &str)]| {
        let mut command = home.command(&["status", "--server", &format!("https://{address}")]);
        common::done(command.envs(variables.iter().copied()).output().unwrap())
    };
    let ca = ("KEYMOAT_CA", "ca.pem");
    let (cert, key) = (("KEYMOAT_CLIENT_CERT", "own.pem"), ("KEYMOAT_CLIENT_KEY", "own.key"));
    let done = status(&[ca, cert, key]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(status(&[ca]).code, 2);
    assert_eq!(status(&[cert, key]).code, 2);
    let half = status(&[ca, cert]);
    assert!(half.stderr.contains("KEYMOAT_CLIENT_KEY"), "{half:?}");
    assert_eq!(server.interrupt(), 0);
}
