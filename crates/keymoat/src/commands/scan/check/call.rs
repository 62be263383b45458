//! One call to a provider: a connection of its own, one request, one answer. It follows nothing, keeps no cookie and
//! shows no certificate.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use keymoat_detect::{Method, Request};
use tokio_rustls::TlsConnector;

/// An answer.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// Sends a request and gives the answer; else why there is none, in words that hold nothing of the request.
pub async fn send(tls: &TlsConnector, request: Request) -> Result<Reply, String> {
    match tokio::time::timeout(WITHIN, exchange(tls, &request)).await {
        Ok(reply) => reply,
        Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    }
}

async fn exchange(tls: &TlsConnector, asked: &Request) -> Result<Reply, String> {
    let host = asked.host.clone();
    let name = rustls::pki_types::ServerName::try_from(host.clone())
        .map_err(|_| format!("`{host}` is no name of a host"))?;
    let unreachable = |error: std::io::Error| format!("{host} cannot be reached: {error}");
    let stream = tokio::net::TcpStream::connect((host.as_str(), asked.port)).await.map_err(unreachable)?;
    let stream = tls.connect(name, stream).await.map_err(unreachable)?;
    let broken = |error: hyper::Error| format!("the connection to {host} broke: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends by itself: with the answer, since there is no further request.
    tokio::spawn(connection);
    let request = written(asked).ok_or_else(|| "it has characters that no request may have".to_owned())?;
    let (parts, mut body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let mut beginning = Vec::new();
    while beginning.len() < MAX_BODY
        && let Some(frame) = body.frame().await
    {
        if let Some(data) = frame.map_err(broken)?.data_ref() {
            beginning.extend_from_slice(&data[..data.len().min(MAX_BODY - beginning.len())]);
        }
    }
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body: beginning })
}

fn written(request: &Request) -> Option<http::Request<Full<Bytes>>> {
    let method = match request.method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
    };
    let mut written = http::Request::builder()
        .method(method)
        .uri(request.target.as_str())
        .header(header::HOST, request.authority())
        .header(header::USER_AGENT, concat!("keymoat/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if request.headers.iter().all(|(name, _)| name != header::ACCEPT.as_str()) {
        written = written.header(header::ACCEPT, "application/json");
    }
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_bytes(value).ok()?;
        value.set_sensitive(true);
        written = written.header(name, value);
    }
    written.body(Full::new(Bytes::copy_from_slice(&request.body))).ok()
}

/// From the look-up of the name to the end of the answer.
const WITHIN: Duration = Duration::from_secs(10);
/// What says whose a key is stands at the beginning; lists of models are longer.
const MAX_BODY: usize = 64 << 10;
