//! One call to a provider: a connection of its own, through a proxy where one is named, one request, one answer. It
//! follows nothing, keeps no cookie and shows no certificate.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use keymoat_crypto::{AwsCredentials, AwsRequest, SecretBytes, sign_aws};
use keymoat_detect::{Method, Request, Signing};
use keymoat_vault::Clock as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::proxy::Proxy;
use crate::clock::SystemClock;
use crate::error::CliError;
use crate::variables::Variables;

/// An answer.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// How providers are reached.
pub struct Way {
    tls: TlsConnector,
    pub proxy: Option<Proxy>,
}

impl Way {
    /// As this machine and the environment say.
    ///
    /// # Errors
    /// When this machine trusts nobody, TLS cannot be set up, or the proxy's address is wrong.
    pub fn new(variables: &Variables) -> Result<Self, CliError> {
        Ok(Self { tls: crate::tls::public_connector()?, proxy: Proxy::of(variables)? })
    }

    /// A connection to a host, before TLS.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let unreachable = |name: &str, error: std::io::Error| format!("{name} cannot be reached: {error}");
        match self.proxy.as_ref().filter(|proxy| proxy.is_for(host)) {
            None => TcpStream::connect((host, port)).await.map_err(|error| unreachable(host, error)),
            Some(proxy) => {
                let stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await;
                let mut stream = stream.map_err(|error| unreachable("the proxy", error))?;
                proxy.tunnel(&mut stream, host, port).await?;
                Ok(stream)
            }
        }
    }
}

/// Sends a request and gives the answer; else why there is none, in words that hold nothing of the request.
pub async fn send(way: &Way, mut request: Request) -> Result<Reply, String> {
    if let Some(signing) = request.signing.take() {
        sign(&mut request, &signing)?;
    }
    match tokio::time::timeout(WITHIN, exchange(way, &request)).await {
        Ok(reply) => reply,
        Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    }
}

/// Signs a request to AWS with the time of now, which AWS compares with its own.
fn sign(request: &mut Request, signing: &Signing) -> Result<(), String> {
    let credentials = AwsCredentials {
        access_key_id: String::from_utf8(signing.access_key_id.to_vec())
            .map_err(|_| "its id is no text".to_owned())?,
        secret_access_key: SecretBytes::from_slice(&signing.secret_access_key),
        session_token: signing.session_token.as_ref().map(|token| SecretBytes::from_slice(token)),
    };
    let headers = sign_aws(
        &AwsRequest {
            method: name_of(request.method).as_str(),
            host: &request.authority(),
            target: &request.target,
            body: &request.body,
            region: &signing.region,
            service: &signing.service,
            time: &SystemClock.now().strftime("%Y%m%dT%H%M%SZ").to_string(),
        },
        &credentials,
    );
    request.headers.extend(headers.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Ok(())
}

fn name_of(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
    }
}

async fn exchange(way: &Way, asked: &Request) -> Result<Reply, String> {
    let host = asked.host.clone();
    let name = rustls::pki_types::ServerName::try_from(host.clone())
        .map_err(|_| format!("`{host}` is no name of a host"))?;
    let stream = way.connect(&host, asked.port).await?;
    let stream = way.tls.connect(name, stream).await;
    let stream = stream.map_err(|error| format!("{host} cannot be reached: {error}"))?;
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
    let mut written = http::Request::builder()
        .method(name_of(request.method))
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
