//! Speaks the native API through whatever door is there: a running server's socket, a server elsewhere, or, where
//! nothing runs, the same API in this process on the vault it opens itself. Commands cannot tell the difference.

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use keymoat_crypto::SecretBytes;
use keymoat_server::wire::Problem;
use keymoat_server::{Api, Peer};
use keymoat_vault::{Code, SealedVault, Vault};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use crate::Context;
use crate::error::CliError;
use crate::variables::Variables;

/// A connection to a vault.
pub struct Client {
    door: Door,
    token: Option<SecretBytes>,
    module: Option<String>,
}

enum Door {
    InProcess { api: Api, vault: Vault },
    Socket(PathBuf),
    Remote(Remote),
}

/// Whether to speak to a server on the socket: one of this user or of root, who could do everything anyway. Anybody
/// else would be shown tokens and values.
fn check_server(owner: u32, you: u32, path: &std::path::Path) -> Result<(), CliError> {
    if owner == you || owner == ROOT {
        return Ok(());
    }
    let why = format!("the server on `{}` runs as user {owner}, and you are user {you}", path.display());
    Err(CliError::new(why).hint("run this as that user, or speak to the server with --server and a token"))
}

/// The user who may do everything.
const ROOT: u32 = 0;

/// A server elsewhere.
struct Remote {
    host: String,
    port: u16,
    /// None for plain HTTP, to a server on this machine.
    tls: Option<TlsConnector>,
}

impl Client {
    /// Opens a door.
    ///
    /// # Errors
    /// When there is no vault, it cannot be opened, or the address is wrong.
    pub async fn connect(context: &Context) -> Result<Self, CliError> {
        let door = match &context.global.server {
            Some(address) => Door::Remote(Remote::parse(address, &context.variables)?),
            None => local_door(context).await?,
        };
        let saved = match &door {
            Door::Remote(remote) => crate::commands::login::saved_token(context, &remote.name())?,
            _ => None,
        };
        Ok(Self { door, token: context.token()?.or(saved), module: context.variables.module.clone() })
    }

    /// Opens a door to a server, and never the vault itself.
    ///
    /// # Errors
    /// When no server runs, or the address is wrong.
    pub async fn connect_to_server(context: &Context) -> Result<Self, CliError> {
        if context.global.server.is_none() && running_socket(context).await.is_none() {
            return Err(CliError::new(format!("no server is running on `{}`", context.places.data.display()))
                .hint("`keymoat serve` starts one; --server or KEYMOAT_ADDR names one elsewhere, --data another vault"));
        }
        Self::connect(context).await
    }

    /// Opens a door to a server that is named or runs here; none when there is no such.
    ///
    /// # Errors
    /// When the address is wrong.
    pub async fn server_at_hand(context: &Context) -> Result<Option<Self>, CliError> {
        if context.global.server.is_none() && running_socket(context).await.is_none() {
            return Ok(None);
        }
        Self::connect(context).await.map(Some)
    }

    /// Names the calling module, for the record, unless the environment does.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.module.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, CliError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Sends a request with a JSON body and reads a JSON answer.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn call<B: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<R, CliError> {
        let answer = self.bytes(method, path, body).await?;
        let answer = if answer.is_empty() { Bytes::from_static(b"null") } else { answer };
        serde_json::from_slice(&answer).map_err(|e| {
            CliError::new(format!(
                "the server's answer cannot be understood (line {}, column {})",
                e.line(),
                e.column()
            ))
            .hint("are this program and the server of the same version?")
        })
    }

    /// Sends a request and reads the answer as it is.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn bytes<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Bytes, CliError> {
        let (status, body) = self.send(method, path, body).await?;
        let body = collect(body).await?;
        if status.is_success() { Ok(body) } else { Err(failure(status, &body)) }
    }

    /// Sends a request and gives the answer as it comes, for answers that are too large to hold.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn stream<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Body, CliError> {
        let (status, body) = self.send(method, path, body).await?;
        if status.is_success() { Ok(body) } else { Err(failure(status, &collect(body).await?)) }
    }

    /// As [`Client::stream`], for a request without a body whose answer says something in its headers too.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn stream_with_headers(&self, path: &str) -> Result<(HeaderMap, Body), CliError> {
        let (head, body) = self.exchange(Method::GET, path, None::<&()>).await?;
        if head.status.is_success() {
            return Ok((head.headers, body));
        }
        Err(failure(head.status, &collect(body).await?))
    }

    /// Whether what is sent stays on this machine: in this process, or through the socket.
    pub fn is_local(&self) -> bool {
        !matches!(self.door, Door::Remote(_))
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<(StatusCode, Body), CliError> {
        let (head, body) = self.exchange(method, path, body).await?;
        Ok((head.status, body))
    }

    async fn exchange<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<(Parts, Body), CliError> {
        let request = self.request(method, path, body)?;
        match &self.door {
            Door::InProcess { api, .. } => {
                let answer = api.clone().oneshot(request).await;
                let Ok(answer) = answer;
                Ok(answer.into_parts())
            }
            Door::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path)
                    .await
                    .map_err(|e| CliError::file("connect to", path, &e))?;
                let owner = stream.peer_cred().map_err(|e| CliError::file("ask who serves", path, &e))?.uid();
                check_server(owner, rustix::process::geteuid().as_raw(), path)?;
                exchange(stream, request).await
            }
            Door::Remote(remote) => remote.exchange(request).await,
        }
    }

    /// The name under which a token for this server is kept.
    pub fn server_name(&self) -> String {
        match &self.door {
            Door::Remote(remote) => remote.name(),
            Door::InProcess { .. } | Door::Socket(_) => "local".to_owned(),
        }
    }

    /// Whether this process has the vault open itself.
    pub fn is_in_process(&self) -> bool {
        matches!(self.door, Door::InProcess { .. })
    }

    /// Ends the connection; a vault that this process opened is closed.
    pub async fn close(self) {
        if let Door::InProcess { api, vault } = self.door {
            drop(api);
            vault.close().await;
        }
    }

    fn request<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Request<Body>, CliError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "keymoat")
            .header(header::USER_AGENT, concat!("keymoat/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            // EXPOSE: the token is shown to the server that it is for.
            let value = token.expose(|bytes| {
                let mut text = b"Bearer ".to_vec();
                text.extend_from_slice(bytes);
                http::HeaderValue::from_bytes(&text)
            });
            let mut value = value.map_err(|_| CliError::new("the token has characters that no token has"))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(module) = &self.module {
            request = request.header("x-keymoat-module", module);
        }
        let body = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(
                    serde_json::to_vec(body)
                        .map_err(|e| CliError::new(format!("cannot write the request: {e}")))?,
                )
            }
        };
        request.body(body).map_err(|e| CliError::new(format!("cannot make the request: {e}")))
    }
}

/// A running server's socket, else the vault itself. Another command that has it open is waited for.
async fn local_door(context: &Context) -> Result<Door, CliError> {
    let mut tries = 0;
    loop {
        if let Some(socket) = running_socket(context).await {
            return Ok(Door::Socket(socket));
        }
        if !context.places.may_have_vault() {
            return Err(no_vault(context));
        }
        match context.places.open_vault() {
            Ok(sealed) => return in_process(context, sealed.map_err(|_| no_vault(context))?),
            Err(error) if error.code == Code::InUse && tries < LOCKED_TRIES => {
                tries += 1;
                tokio::time::sleep(LOCKED_LOOK_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The socket of this data directory's server, if one runs.
async fn running_socket(context: &Context) -> Option<PathBuf> {
    let socket = keymoat_store::socket_in(&context.places.data);
    let answers = socket.exists() && tokio::net::UnixStream::connect(&socket).await.is_ok();
    answers.then_some(socket)
}

fn in_process(context: &Context, sealed: SealedVault) -> Result<Door, CliError> {
    let offer = crate::master_key::offer_for(&sealed, &context.places, &context.variables)?;
    let vault = sealed.unseal(&offer, context.surroundings()?)?;
    let peer = Peer::OsUser { name: crate::os_user::current()? };
    let api = keymoat_server::in_process(vault.clone(), peer);
    Ok(Door::InProcess { api, vault })
}

fn no_vault(context: &Context) -> CliError {
    CliError::new(format!("there is no vault in `{}`", context.places.data.display()))
        .hint("`keymoat serve` or `keymoat init` makes one; KEYMOAT_DATA_DIR or --data names another place")
}

impl Remote {
    fn parse(address: &str, variables: &Variables) -> Result<Self, CliError> {
        let wrong = || {
            CliError::new(format!("`{}` is not an address of a server", crate::output::printable(address)))
                .hint("write https://HOST[:PORT], or http://127.0.0.1:PORT on this machine")
        };
        let uri: http::Uri = address.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.to_owned();
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
            || !matches!(uri.path(), "" | "/")
        {
            return Err(wrong());
        }
        if !tls && !is_loopback(&host) {
            return Err(CliError::new(format!("`{address}` would send keys over the network in the clear"))
                .hint("use https://, or a tunnel that ends on this machine"));
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 8200 });
        let tls = tls.then(|| crate::tls::connector(variables)).transpose()?;
        Ok(Self { host, port, tls })
    }

    /// The name under which a token for this server is kept.
    fn name(&self) -> String {
        format!("{}-{}", self.host.replace([':', '[', ']'], "_"), self.port)
    }

    async fn exchange(&self, mut request: Request<Body>) -> Result<(Parts, Body), CliError> {
        let unreachable = |why: String| {
            CliError::new(format!("cannot reach the server at {}:{}: {why}", self.host, self.port))
                .hint("is it running? `keymoat serve` starts one")
        };
        let host = format!("{}:{}", self.host, self.port);
        let value =
            http::HeaderValue::from_str(&host).map_err(|_| unreachable("its name is not one".to_owned()))?;
        request.headers_mut().insert(header::HOST, value);
        let plain_host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connecting = tokio::net::TcpStream::connect((plain_host, self.port));
        let stream = tokio::time::timeout(CONNECT_WITHIN, connecting)
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", CONNECT_WITHIN.as_secs())))?
            .map_err(|e| unreachable(e.to_string()))?;
        let Some(tls) = &self.tls else { return exchange(stream, request).await };
        let name = rustls::pki_types::ServerName::try_from(plain_host.to_owned())
            .map_err(|e| unreachable(e.to_string()))?;
        let stream = tls.connect(name, stream).await.map_err(|e| unreachable(e.to_string()))?;
        exchange(stream, request).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Body>,
) -> Result<(Parts, Body), CliError> {
    let broken = |e: hyper::Error| CliError::new(format!("the connection to the server broke: {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends by itself: with the answer, since there is no further request.
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    Ok((parts, Body::new(body)))
}

async fn collect(body: Body) -> Result<Bytes, CliError> {
    let collected = body.collect().await.map_err(|e| CliError::new(format!("the answer broke off: {e}")))?;
    Ok(collected.to_bytes())
}

fn failure(status: StatusCode, body: &[u8]) -> CliError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.into(),
        Err(_) => CliError::new(format!("the server answered {status}")),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Writes a query string from the pairs that have a value.
pub fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut writer = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        if let Some(value) = value {
            writer.append_pair(name, value);
        }
    }
    let text = writer.finish();
    if text.is_empty() { text } else { format!("?{text}") }
}

/// Longer than any healthy network takes.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// About ten seconds: commands are short, and one that takes longer is told of.
const LOCKED_TRIES: u32 = 500;
const LOCKED_LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_socket_and_whether_they_are_spoken_to() {
        let check = |owner: u32, you: u32, spoken_to: bool| {
            let checked = check_server(owner, you, std::path::Path::new("keymoat.sock"));
            assert_eq!(checked.is_ok(), spoken_to, "{owner} {you}");
        };
        check(1000, 1000, true);
        check(0, 1000, true);
        check(0, 0, true);
        check(1001, 1000, false);
        check(1000, 0, false);
    }
}
