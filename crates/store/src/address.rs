//! Where a PostgreSQL database is: `postgres://USER@HOST:PORT/DATABASE?sslmode=…`, as libpq writes it
//! (PostgreSQL manual, 34.1.1), with several hosts for a cluster.
//!
//! A connection over a network is encrypted and the server's certificate checked, unless the address says
//! `sslmode=disable`. A password comes from the address or from a file that `passfile` names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The address of a database. Printed, it holds no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    config: Config,
    tls: Tls,
    schema: String,
    notify: bool,
    has_own_password: bool,
}

/// How a connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tls {
    Off,
    Checked { roots: Option<PathBuf>, certificate: Option<(PathBuf, PathBuf)> },
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// A sentence that says what is wrong and never repeats the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (plain, ours) = split(text)?;
        let mut config: Config =
            plain.parse().map_err(|error: tokio_postgres::Error| format!("{SHAPE}: {}", why(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(format!("{SHAPE}: it names no host"));
        }
        if !config.get_hostaddrs().is_empty() {
            return Err("a database address names its host by `host` alone, not by `hostaddr`".to_owned());
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(format!("{SHAPE}: it names no database"));
        }
        let schema = ours.get("schema").unwrap_or("keymoat").to_owned();
        if !is_plain_name(&schema) {
            return Err("the `schema` of a database address is lower-case letters, digits and `_`".to_owned());
        }
        let notify = match ours.get("notify") {
            None | Some("on") => true,
            Some("off") => false,
            Some(_) => return Err("`notify` of a database address is `on` or `off`".to_owned()),
        };
        let tls = tls_of(&config, &ours)?;
        config.ssl_mode(if tls == Tls::Off { SslMode::Disable } else { SslMode::Require });
        let has_own_password = config.get_password().is_some();
        if let Some(path) = ours.get("passfile").filter(|_| !has_own_password) {
            config.password(read_password(path)?);
        }
        Ok(Self { config, tls, schema, notify, has_own_password })
    }

    /// Whether it brings a password with it.
    pub fn holds_password(&self) -> bool {
        self.has_own_password
    }

    /// The address without what is secret in it.
    pub fn shown(&self) -> String {
        let ports = self.config.get_ports();
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(n, host)| {
                let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
                match host {
                    Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                    Host::Tcp(name) => format!("{name}:{port}"),
                    Host::Unix(path) => format!("{}:{port}", path.display()),
                }
            })
            .collect();
        let schema =
            if self.schema == "keymoat" { String::new() } else { format!("?schema={}", self.schema) };
        format!("postgres://{}/{}{schema}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }

    /// The schema that holds the tables: a name that needs no quotes.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Whether the nodes tell each other of changes through the server; where a pool of connections stands between,
    /// that does not work, and looking from time to time has to do.
    pub(crate) fn notifies(&self) -> bool {
        self.notify
    }

    /// How to connect to each of its hosts.
    pub(crate) fn hosts(&self) -> Vec<Config> {
        let whole = &self.config;
        let ports = whole.get_ports();
        let one = |(n, host): (usize, &Host)| {
            let mut config = Config::new();
            match host {
                Host::Tcp(name) => config.host(name),
                Host::Unix(path) => config.host_path(path),
            };
            config.port(ports.get(n).or(ports.first()).copied().unwrap_or(5432));
            if let Some(user) = whole.get_user() {
                config.user(user);
            }
            if let Some(password) = whole.get_password() {
                config.password(password);
            }
            if let Some(name) = whole.get_dbname() {
                config.dbname(name);
            }
            if let Some(options) = whole.get_options() {
                config.options(options);
            }
            config
                .ssl_mode(whole.get_ssl_mode())
                .application_name("keymoat")
                .connect_timeout(Duration::from_secs(2))
                .tcp_user_timeout(Duration::from_secs(5))
                .keepalives_idle(Duration::from_secs(5))
                .keepalives_interval(Duration::from_secs(2))
                .keepalives_retries(2)
                // A standby would take no record; of several hosts the one that writes is looked for.
                .target_session_attrs(TargetSessionAttrs::ReadWrite);
            config
        };
        whole.get_hosts().iter().enumerate().map(one).collect()
    }

    pub(crate) fn tls(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut roots = rustls::RootCertStore::empty();
        let Tls::Checked { roots: file, certificate } = &self.tls else {
            // Never used, since the connection is not encrypted; an empty store trusts nobody.
            return Ok(MakeRustlsConnect::new(builder.with_root_certificates(roots).with_no_client_auth()));
        };
        match file {
            Some(path) => {
                for found in certificates(path)? {
                    roots.add(found).map_err(|error| format!("`{}`: {error}", path.display()))?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        let builder = builder.with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                check_private(key)?;
                let key_der = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("`{}` holds no private key: {error}", key.display()))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, key_der)
                    .map_err(|error| format!("`{}`: {error}", certificate.display()))?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// The parameters that libpq knows and the driver does not, and our own.
#[derive(Default)]
struct Ours(Vec<(String, String)>);

impl Ours {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Takes our parameters out of an address.
fn split(text: &str) -> Result<(String, Ours), String> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(format!("{SHAPE}: it begins with `postgres://`"));
    }
    let Some((plain, query)) = text.split_once('?') else { return Ok((text.to_owned(), Ours::default())) };
    let (mut rest, mut ours) = (Vec::new(), Ours::default());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match OURS.contains(&name) {
            true => ours.0.push((name.to_owned(), percent_decoded(value)?)),
            false => rest.push(pair),
        }
    }
    let plain = if rest.is_empty() { plain.to_owned() } else { format!("{plain}?{}", rest.join("&")) };
    Ok((plain, ours))
}

fn tls_of(config: &Config, ours: &Ours) -> Result<Tls, String> {
    let path = |name: &str| ours.get(name).map(PathBuf::from);
    let certificate = match (path("sslcert"), path("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(
                "a database address with `sslcert` needs `sslkey`, and the other way round".to_owned()
            );
        }
    };
    let checked = Tls::Checked { roots: path("sslrootcert"), certificate };
    match ours.get("sslmode") {
        Some("disable") => Ok(Tls::Off),
        // Whoever encrypts without looking at the certificate speaks to anybody.
        Some("require" | "verify-ca" | "verify-full") => Ok(checked),
        Some("allow" | "prefer") => Err(
            "`sslmode` of a database address is `verify-full` or `disable`: what may fall back to plain text protects nothing"
                .to_owned(),
        ),
        Some(_) => Err("`sslmode` of a database address is `verify-full` or `disable`".to_owned()),
        None if ours.get("sslrootcert").is_some() || !config.get_hosts().iter().all(is_this_machine) => Ok(checked),
        None => Ok(Tls::Off),
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error| format!("`{}` holds no certificate: {error}", path.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    match found.is_empty() {
        true => Err(format!("`{}` holds no certificate", path.display())),
        false => Ok(found),
    }
}

fn read_password(path: &str) -> Result<String, String> {
    check_private(path.as_ref())?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("`{path}` cannot be read: {error}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// What opens a database is for this user's eyes alone.
fn check_private(path: &std::path::Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let about =
        std::fs::metadata(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    match about.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => Err(format!("others can reach `{}`; run `chmod 600 '{}'`", path.display(), path.display())),
    }
}

fn is_plain_name(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.len() <= 63
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let wrong = || "a `%` in a database address begins two hexadecimal digits".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// The driver's reason; its texts name parameters, not their values.
fn why(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

const SHAPE: &str = "a database address is `postgres://USER@HOST:PORT/DATABASE`";
const OURS: [&str; 7] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "schema", "notify"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_what_is_shown_of_them() {
        let check = |text: &str, expected: Result<(&str, bool), &str>| match (Address::parse(text), expected)
        {
            (Ok(address), Ok((shown, encrypted))) => {
                assert_eq!(address.shown(), shown, "{text}");
                assert_eq!(format!("{address:?}"), shown);
                assert_eq!(address.tls != Tls::Off, encrypted, "{text}");
            }
            (Err(error), Err(part)) => {
                assert!(error.contains(part), "{text}: {error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("postgres://keymoat@127.0.0.1/vault", Ok(("postgres://127.0.0.1:5432/vault", false)));
        check("postgres://a:hunter2@[::1]:99/v", Ok(("postgres://[::1]:99/v", false)));
        check("postgresql://a:hunter2@db.example/v", Ok(("postgres://db.example:5432/v", true)));
        check("postgres://a@db.example/v?sslmode=disable", Ok(("postgres://db.example:5432/v", false)));
        check("postgres://a@h1:1,h2:2/v", Ok(("postgres://h1:1,h2:2/v", true)));
        check("postgres://a@localhost/v?sslmode=verify-full", Ok(("postgres://localhost:5432/v", true)));
        check(
            "postgres://a@localhost/v?schema=other",
            Ok(("postgres://localhost:5432/v?schema=other", false)),
        );
        check("postgres://a@%2Frun%2Fpg/v", Ok(("postgres:///run/pg:5432/v", false)));
        check("postgres://a:hunter2@h/v?sslmode=prefer", Err("protects nothing"));
        check("postgres://a:hunter2@h/v?sslmode=hunter2", Err("verify-full"));
        check("postgres://a:hunter2@h/v?schema=a;b", Err("schema"));
        check("postgres://a:hunter2@h/v?sslcert=/c", Err("sslkey"));
        check("postgres://a:hunter2@h/v?sslrootcert=%zz", Err("hexadecimal"));
        check("postgres://a:hunter2@h", Err("names no database"));
        check("postgres://localhost/v?hostaddr=192.0.2.1", Err("hostaddr"));
        check("mysql://a:hunter2@h/v", Err("postgres://"));
        check("postgres://a:hunter2@h:x/v", Err("postgres://USER"));
        check("postgres://a:hunter2@h/v?hunter2", Err("postgres://USER"));
    }
}
