//! What it costs to say what an issued key is good for, with many keys loaded: against a constant answer.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::child::Server;
use crate::keymoat::Vault;
use crate::load::{self, Run, http};
use crate::still;
use crate::table::Table;

/// Issues so many keys and verifies some of them over HTTP.
pub(crate) async fn run(keys: usize, time: Duration) -> Result<()> {
    let vault = Vault::new().await?;
    let all = ["write,match", "--on", "sys/spaces/**"];
    vault.run(&[&["policy", "put", "keys", "--allow"], &all[..]].concat(), "").await?;
    vault.run(&["account", "add", "api", "--kind", "service-account", "--policy", "keys"], "").await?;
    let token = vault.run(&["token", "create", "api", "--ttl", "1d"], "").await?.trim().to_owned();
    let server = vault.serve().await?;
    let empty_kib = server.usage()?.rss_kib;
    let issuer = token.clone();
    let issued = load::so_many(&server.address, ISSUERS, keys, move |connection, number| {
        issue(&issuer, connection, number)
    })
    .await?;
    println!("issued {keys} keys, {:.0} a second", issued.rate);
    let key = vault
        .run(&["key", "issue", "--owner", "odoo:res.users:42", "--scope", "orders.read", "--env", "prod"], "")
        .await?;
    server.stop().await?;

    let server = vault.serve().await?;
    load::once(&server.address, &http("GET", "/readyz", &[], "")).await?;
    let loaded = server.usage()?;
    let each = loaded.rss_kib.saturating_sub(empty_kib) as f64 * 1024.0 / keys as f64;
    println!("with {keys} keys: {:.1} MiB, {each:.0} bytes a key", loaded.rss_kib as f64 / 1024.0);

    let still = Server::of_ours(&["serve-still"]).await?;
    for connections in CONNECTIONS {
        let mut table = Table::default();
        let verify = repeat(&server, connections, time, verify(&token, key.trim())).await?;
        let constant = repeat(&still, connections, time, http("POST", "/", &[], "{}")).await?;
        println!(
            "processor for a request: verify {:.1} µs, constant {:.1} µs",
            verify.1 * 1e6,
            constant.1 * 1e6
        );
        table.add("keymoat, verify", verify.0);
        table.add(still::NAME, constant.0);
        table.print(&format!("verify with {keys} keys, {connections} connections"));
    }
    server.stop().await
}

/// A run, and the processor seconds of the server for each request.
async fn repeat(server: &Server, connections: usize, time: Duration, request: Vec<u8>) -> Result<(Run, f64)> {
    let warm_up = request.clone();
    load::for_a_time(&server.address, connections, WARM_UP, move |_, _| warm_up.clone()).await?;
    let before = server.usage()?.cpu;
    let run = load::for_a_time(&server.address, connections, time, move |_, _| request.clone()).await?;
    let used = server.usage().context("the server is gone")?.cpu - before;
    let cpu = used / (run.rate * time.as_secs_f64());
    Ok((run, cpu))
}

fn issue(token: &str, connection: usize, number: usize) -> Vec<u8> {
    let body = format!(
        r#"{{"owner":"odoo:res.users:{connection}{number}","environment":"prod","scopes":["orders.read"],"name":"shop {number}"}}"#
    );
    post("/api/v1/keys", token, &body)
}

fn verify(token: &str, key: &str) -> Vec<u8> {
    post("/api/v1/keys/verify", token, &format!(r#"{{"key":"{key}","scopes":"orders.read"}}"#))
}

fn post(path: &str, token: &str, body: &str) -> Vec<u8> {
    let authorization = format!("Bearer {token}");
    http("POST", path, &[("authorization", &authorization), ("content-type", "application/json")], body)
}

const CONNECTIONS: [usize; 2] = [16, 256];
const ISSUERS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
