//! The built program with a vault of its own in a temporary home.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::child::Server;
use crate::load::http;

/// A vault and the program to use it with.
pub(crate) struct Vault {
    home: TempDir,
    program: PathBuf,
    /// Where the database is on a server.
    database: Option<String>,
}

impl Vault {
    /// Makes a vault with the environment `prod`.
    pub(crate) async fn new() -> Result<Self> {
        let vault = Self::without_vault(None)?;
        vault.run(&["init"], "").await?;
        Ok(vault)
    }

    /// Makes one whose database is on a server.
    pub(crate) async fn on_server(url: String) -> Result<Self> {
        let vault = Self::without_vault(Some(url))?;
        vault.run(&["init"], "").await?;
        Ok(vault)
    }

    /// Starts another node of it on a free port.
    pub(crate) async fn serve_node(&self, name: &str) -> Result<Server> {
        let mut command = self.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(self.home.path().join(name));
        Server::start(command, "listens on").await
    }

    fn without_vault(database: Option<String>) -> Result<Self> {
        let own = std::env::current_exe().context("failed to find this program")?;
        let program = own.with_file_name("keymoat");
        if !program.is_file() {
            bail!("there is no `{}`; build it with `cargo build --release`", program.display());
        }
        Ok(Self { home: tempfile::tempdir()?, program, database })
    }

    /// Its home directory.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Starts its server on a free port.
    pub(crate) async fn serve(&self) -> Result<Server> {
        self.serve_with(DISK).await
    }

    /// Starts its server with records where `--durability` names.
    pub(crate) async fn serve_with(&self, durability: &str) -> Result<Server> {
        let mut command = self.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--durability", durability]);
        Server::start(command, "listens on").await
    }

    /// Makes a service account that may do this on everything below `prod`, and returns its token.
    pub(crate) async fn account(&self, name: &str, capabilities: &str) -> Result<String> {
        self.run(&["policy", "put", name, "--allow", capabilities, "--on", "prod/**"], "").await?;
        self.run(&["account", "add", name, "--kind", "service-account", "--policy", name], "").await?;
        let token = self.run(&["token", "create", name, "--ttl", "1d"], "").await?;
        Ok(token.trim().to_owned())
    }

    /// Stores a value.
    pub(crate) async fn put(&self, path: &str, value: &str) -> Result<()> {
        self.run(&["put", path, "-", "--env", "prod"], value).await.map(|_| ())
    }

    /// Runs a command of it and returns what it prints.
    pub(crate) async fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to start keymoat")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`keymoat {}` failed: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.home.path()).kill_on_drop(true);
        if let Some(url) = &self.database {
            command.env("KEYMOAT_DATABASE", url);
        }
        command
    }
}

/// A request for a value.
pub(crate) fn reveal(token: &str, path: &str) -> Vec<u8> {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    http("POST", &format!("/api/v1/reveal/prod/{path}"), &headers, "{}")
}

/// A request that stores a value.
pub(crate) fn put(token: &str, path: &str, value: &str) -> Vec<u8> {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = serde_json::json!({ "value": { "text": value } }).to_string();
    http("PUT", &format!("/api/v1/secrets/prod/{path}"), &headers, &body)
}

/// Each record is on the disk before the answer leaves.
pub(crate) const DISK: &str = "disk";
/// It is with the operating system.
pub(crate) const OS: &str = "os";
