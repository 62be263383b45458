//! The proxy that leads out of a company's network, as `HTTPS_PROXY` and `NO_PROXY` name it. It is asked for a tunnel
//! (RFC 9110 §9.3.6) and sees the name of the host; TLS goes through it to the provider itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keymoat_crypto::SecretBytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::CliError;
use crate::variables::Variables;

/// A proxy, and for whom it is not used.
#[derive(Debug)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// What follows `Basic ` where the proxy wants to know who asks.
    credentials: Option<SecretBytes>,
    /// Hosts, or domains with all below them, that are asked directly; `*` is everybody.
    except: Vec<String>,
}

impl Proxy {
    /// What the environment says; nothing where it names none.
    ///
    /// # Errors
    /// When the address is none of a proxy that speaks HTTP.
    pub fn of(variables: &Variables) -> Result<Option<Self>, CliError> {
        let Some(address) = &variables.https_proxy else { return Ok(None) };
        // EXPOSE: the password in the address goes to the proxy.
        let proxy = address.expose(|address| {
            let address = std::str::from_utf8(address).ok()?;
            Self::parse(address, variables.no_proxy.as_deref().unwrap_or_default())
        });
        proxy.map(Some).ok_or_else(|| {
            CliError::new("HTTPS_PROXY is not the address of a proxy that can be used").hint(
                "write it as `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`; unset it to go without",
            )
        })
    }

    fn parse(address: &str, except: &str) -> Option<Self> {
        let rest = match address.split_once("://") {
            Some((scheme, rest)) => scheme.eq_ignore_ascii_case("http").then_some(rest)?,
            None => address,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, USUAL_PORT),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if host.is_empty() || !host.chars().all(is_name) {
            return None;
        }
        let credentials = match user {
            Some(user) => Some(basic(user)?),
            None => None,
        };
        let except = except.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase());
        let except = except.filter(|entry| !entry.is_empty()).collect();
        Some(Self { host: host.to_ascii_lowercase(), port, credentials, except })
    }

    /// Whether a host is asked through it.
    pub fn is_for(&self, host: &str) -> bool {
        !self.except.iter().any(|entry| {
            let domain = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
            let below = host.strip_suffix(domain).is_some_and(|labels| labels.ends_with('.'));
            entry == "*" || domain == host || below
        })
    }

    /// Asks for a tunnel on a connection to the proxy; else why there is none.
    pub async fn tunnel<S>(&self, stream: &mut S, host: &str, port: u16) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(credentials) = &self.credentials {
            head.extend_from_slice(b"Proxy-Authorization: Basic ");
            // EXPOSE: the proxy wants to know who asks.
            credentials.expose(|credentials| head.extend_from_slice(credentials));
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let broken = |error: std::io::Error| format!("the connection to the proxy broke: {error}");
        stream.write_all(&head).await.map_err(broken)?;
        match status(stream).await.map_err(broken)? {
            Some(200..300) => Ok(()),
            Some(status) => Err(format!("the proxy answered {status}")),
            None => Err("the proxy's answer is no HTTP".to_owned()),
        }
    }
}

/// The status of an answer, whose head is read to its end and not further: what follows is TLS.
async fn status<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<u16>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Ok(None);
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|&byte| byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    Ok(words.next().filter(|_| is_http).and_then(|status| status.parse().ok()))
}

/// `USER:PASSWORD`, percent-encoded in the address, as RFC 7617 writes it.
fn basic(user: &str) -> Option<SecretBytes> {
    let pair = percent_decoded(user)?;
    let pair = if pair.contains(&b':') { pair } else { [pair.as_slice(), b":"].concat() };
    Some(SecretBytes::new(STANDARD.encode(pair).into_bytes()))
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    Some(bytes)
}

/// What other programs take, too, where the address names no port.
const USUAL_PORT: u16 = 1080;
/// A tunnel's head has a few hundred bytes.
const MAX_HEAD: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_proxies() {
        let check = |address: &str, expected: Option<(&str, u16, Option<&str>)>| {
            let proxy = Proxy::parse(address, "");
            let said = proxy.as_ref().map(|proxy| {
                // EXPOSE: it is made up, and compared.
                let credentials = proxy.credentials.as_ref().map(|own| own.expose(|own| own.clone()));
                (proxy.host.as_str(), proxy.port, credentials)
            });
            let expected =
                expected.map(|(host, port, own)| (host, port, own.map(|own| own.as_bytes().to_vec())));
            assert_eq!(said, expected, "{address}");
        };
        check("http://proxy.acme.test:3128", Some(("proxy.acme.test", 3128, None)));
        check("http://Proxy.acme.test:3128/", Some(("proxy.acme.test", 3128, None)));
        check("proxy.acme.test", Some(("proxy.acme.test", 1080, None)));
        // `ann:made up@0000` and `ann:`.
        check(
            "http://ann:made%20up%400000@10.0.0.1:3128",
            Some(("10.0.0.1", 3128, Some("YW5uOm1hZGUgdXBAMDAwMA=="))),
        );
        check("http://ann@10.0.0.1:3128", Some(("10.0.0.1", 3128, Some("YW5uOg=="))));
        for address in [
            "https://proxy:1",
            "socks5://proxy:1",
            "",
            "http://",
            "http://a b:1",
            "http://a:b:c",
            "http://%zz@a:1",
        ] {
            check(address, None);
        }
    }

    #[test]
    fn hosts_that_are_asked_directly() {
        let check = |except: &str, host: &str, expected: bool| {
            let proxy = Proxy::parse("http://proxy:3128", except).unwrap();
            assert_eq!(proxy.is_for(host), expected, "{except}: {host}");
        };
        check("", "api.stripe.com", true);
        check("*", "api.stripe.com", false);
        for except in ["stripe.com", ".stripe.com", "*.stripe.com", "a.test, Stripe.com"] {
            check(except, "api.stripe.com", false);
            check(except, "stripe.com", false);
            check(except, "mystripe.com", true);
            check(except, "stripe.com.evil.test", true);
        }
    }

    #[tokio::test]
    async fn tunnels_and_what_is_none() {
        let check = async |answer: &str, expected: Result<(), &str>| {
            let proxy = Proxy::parse("http://ann:made-up@proxy:3128", "").unwrap();
            let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            let tunnel = proxy.tunnel(&mut ours, "api.stripe.com", 443).await;
            match expected {
                Ok(()) => assert_eq!(tunnel, Ok(()), "{answer}"),
                Err(part) => {
                    assert!(tunnel.as_ref().is_err_and(|why| why.contains(part)), "{answer}: {tunnel:?}")
                }
            }
            drop(ours);
            let mut asked = String::new();
            theirs.read_to_string(&mut asked).await.unwrap();
            assert_eq!(
                asked,
                "CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com:443\r\nProxy-Authorization: Basic YW5uOm1hZGUtdXA=\r\n\r\n"
            );
        };
        check("HTTP/1.1 200 Connection established\r\n\r\n", Ok(())).await;
        check("HTTP/1.0 200 OK\r\nVia: made up\r\n\r\n", Ok(())).await;
        check("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Err("407")).await;
        check("SSH-2.0-made-up\r\n\r\n", Err("no HTTP")).await;
        check("HTTP/1.1 200 OK\r\n", Err("broke")).await;
        check(&"x".repeat(MAX_HEAD + 1), Err("no HTTP")).await;
    }
}
