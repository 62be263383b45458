//! A provider's API that was made up for a test: HTTPS on this machine, answers as it is told to, and remembers what it
//! was asked.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::authority::{Authority, Pair, YEAR};

/// A request as it came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub target: String,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What is answered: a status, headers, a body.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// A running API. Its thread ends with the test's process.
pub struct Stub {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    /// Starts one that answers each request in turn.
    pub fn start(authority: &Authority, answer: impl Fn(&Asked) -> Answer + Send + 'static) -> Self {
        Self::start_as(&authority.issue(YEAR), Way::Direct, answer)
    }

    /// Starts one that is a proxy, and answers itself in place of all these hosts.
    pub fn behind_proxy(
        authority: &Authority,
        hosts: &[String],
        answer: impl Fn(&Asked) -> Answer + Send + 'static,
    ) -> Self {
        Self::start_as(&authority.issue_to(hosts), Way::Tunnel, answer)
    }

    fn start_as(pair: &Pair, way: Way, answer: impl Fn(&Asked) -> Answer + Send + 'static) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection on which nothing can be asked counts as well.
                if serve(&config, way, stream, &answer, &seen).is_none() {
                    seen.lock().unwrap().push(Asked::default());
                }
            }
        });
        Self { port, asked }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// How connections come in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// TLS from the first byte on.
    Direct,
    /// After the client has asked for a tunnel.
    Tunnel,
}

/// Takes the head of a request for a tunnel, and grants it. The client says nothing more before that.
fn grant_tunnel(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        let read = std::io::Read::read(stream, &mut buffer).ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&buffer[..read]);
    }
    head.starts_with(b"CONNECT ").then_some(())?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()
}

fn serve(
    config: &Arc<ServerConfig>,
    way: Way,
    mut stream: TcpStream,
    answer: &impl Fn(&Asked) -> Answer,
    seen: &Mutex<Vec<Asked>>,
) -> Option<()> {
    if way == Way::Tunnel {
        grant_tunnel(&mut stream)?;
    }
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).ok()?, stream);
    let asked = read(&mut stream)?;
    seen.lock().unwrap().push(asked.clone());
    let Answer { status, headers, body } = answer(&asked);
    let mut text = format!("HTTP/1.1 {status} Made Up\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    // Whoever has read enough hangs up.
    let _ = stream.write_all(format!("{text}\r\n{body}").as_bytes());
    stream.conn.send_close_notify();
    let _ = stream.flush();
    Some(())
}

fn read(stream: &mut impl std::io::Read) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return Some(Asked { method, target, headers, body: body.to_owned() });
        }
    }
}
