//! A value over HTTP, with its record on the disk before the answer leaves; and a written one.

use std::time::Duration;

use anyhow::Result;

use crate::bao::Bao;
use crate::child::Server;
use crate::keymoat::{self, Vault};
use crate::load::{self, Run, http};
use crate::table::Table;
use crate::{floor, still};

/// Compares the servers at 16 and at 256 connections.
pub(crate) async fn run(time: Duration) -> Result<()> {
    let bao = match Bao::start().await {
        Ok(bao) => Some(bao),
        Err(error) => {
            println!("without OpenBao: {error:#}");
            None
        }
    };
    let still = Server::of_ours(&["serve-still"]).await?;
    let dir = tempfile::tempdir()?;
    let floor = Server::of_ours(&["serve-floor", &dir.path().join("floor.db").to_string_lossy()]).await?;
    let vault = Vault::new().await?;
    vault.put("shop", "made up value of 32 bytes, yes!!").await?;
    let token = vault.account("bench", "reveal,write").await?;
    let keymoat = vault.serve().await?;
    let other = Vault::new().await?;
    other.put("shop", "made up value of 32 bytes, yes!!").await?;
    let other_token = other.account("bench", "reveal").await?;
    let with_os = other.serve_with(keymoat::OS).await?;

    for connections in CONNECTIONS {
        let mut table = Table::default();
        let request = keymoat::reveal(&token, "shop");
        table.add("keymoat, durable", repeat(&keymoat.address, connections, time, request).await?);
        let request = keymoat::reveal(&other_token, "shop");
        table.add(
            "keymoat, records with the system",
            repeat(&with_os.address, connections, time, request).await?,
        );
        let request = http("POST", "/", &[("authorization", &format!("Bearer {}", floor::TOKEN))], "{}");
        table.add(
            "floor: SQLite FULL, HMAC, AES-GCM",
            repeat(&floor.address, connections, time, request).await?,
        );
        let request = http("POST", "/", &[], "{}");
        table.add(still::NAME, repeat(&still.address, connections, time, request).await?);
        if let Some(bao) = &bao {
            let run = repeat(&bao.address, connections, time, bao.read()).await?;
            table.add("OpenBao, raft, file audit (no sync)", run);
        }
        table.print(&format!("reveal, {connections} connections"));
    }
    writes(&vault_writes(&keymoat, &token), bao.as_ref(), time).await?;
    with_os.stop().await?;
    keymoat.stop().await
}

struct Writes {
    address: String,
    token: String,
}

fn vault_writes(server: &Server, token: &str) -> Writes {
    Writes { address: server.address.clone(), token: token.to_owned() }
}

async fn writes(keymoat: &Writes, bao: Option<&Bao>, time: Duration) -> Result<()> {
    let mut table = Table::default();
    let token = keymoat.token.clone();
    let put = move |connection: usize, number: usize| {
        // Nobody stores one key in a thousand places.
        let value = format!("made up, and written by {connection} as its {number}th");
        keymoat::put(&token, &format!("written/c{connection}/n{}", number % KEPT), &value)
    };
    table.add("keymoat, durable", load::for_a_time(&keymoat.address, WRITERS, time, put).await?);
    if let Some(bao) = bao {
        let token = bao.token().to_owned();
        let write = move |connection: usize, number: usize| {
            Bao::write(&token, &format!("written/c{connection}/n{}", number % KEPT))
        };
        table.add("OpenBao, raft, file audit", load::for_a_time(&bao.address, WRITERS, time, write).await?);
    }
    table.print(&format!("audited write, {WRITERS} connections"));
    Ok(())
}

async fn repeat(address: &str, connections: usize, time: Duration, request: Vec<u8>) -> Result<Run> {
    let warm_up = request.clone();
    load::for_a_time(address, connections, WARM_UP, move |_, _| warm_up.clone()).await?;
    load::for_a_time(address, connections, time, move |_, _| request.clone()).await
}

const CONNECTIONS: [usize; 2] = [16, 256];
const WRITERS: usize = 16;
/// Paths that each connection writes to in turn.
const KEPT: usize = 100;
const WARM_UP: Duration = Duration::from_secs(1);
