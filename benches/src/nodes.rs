//! Nodes on one PostgreSQL database: values over HTTP and written ones, against OpenBao on PostgreSQL; and how long a
//! restore takes.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::bao::Bao;
use crate::child::Server;
use crate::cluster::Cluster;
use crate::keymoat::{self, Vault};
use crate::load::{self, Run};
use crate::table::Table;

/// Compares one node, two nodes and OpenBao.
pub(crate) async fn run(time: Duration) -> Result<()> {
    let cluster = Cluster::start_on_disk().map_err(|why| anyhow!(why))?;
    let vault = Vault::on_server(cluster.url()).await?;
    vault.put("shop", "made up value of 32 bytes, yes!!").await?;
    let token = vault.account("bench", "reveal,write").await?;
    let one = vault.serve().await?;
    let two = vault.serve_node("two").await?;
    let for_bao = Cluster::start_on_disk().map_err(|why| anyhow!(why))?;
    let bao = match Bao::start_on_server(&for_bao.url()).await {
        Ok(bao) => Some(bao),
        Err(error) => {
            println!("without OpenBao: {error:#}");
            None
        }
    };
    for connections in CONNECTIONS {
        let mut table = Table::default();
        let read = |token: &str| {
            let request = keymoat::reveal(token, "shop");
            move |_: usize, _: usize| request.clone()
        };
        table
            .add("keymoat, one node", load::for_a_time(&one.address, connections, time, read(&token)).await?);
        let both = on_both(&one, &two, connections, time, || read(&token)).await?;
        table.add("keymoat, two nodes", both);
        if let Some(bao) = &bao {
            let request = bao.read();
            let read = move |_: usize, _: usize| request.clone();
            table
                .add("OpenBao on PostgreSQL", load::for_a_time(&bao.address, connections, time, read).await?);
        }
        table.print(&format!("reveal on PostgreSQL, {connections} connections"));
    }
    let mut table = Table::default();
    let write = || {
        let token = token.clone();
        move |connection: usize, number: usize| {
            let value = format!("made up, and written by {connection} as its {number}th");
            keymoat::put(&token, &format!("written/c{connection}/n{}", number % KEPT), &value)
        }
    };
    table.add("keymoat, one node", load::for_a_time(&one.address, WRITERS, time, write()).await?);
    table.add("keymoat, two nodes", on_both(&one, &two, WRITERS, time, write).await?);
    if let Some(bao) = &bao {
        let token = bao.token().to_owned();
        let write = move |connection: usize, number: usize| {
            Bao::write(&token, &format!("written/c{connection}/n{}", number % KEPT))
        };
        table.add("OpenBao on PostgreSQL", load::for_a_time(&bao.address, WRITERS, time, write).await?);
    }
    table.print(&format!("audited write on PostgreSQL, {WRITERS} connections"));
    one.stop().await?;
    two.stop().await
}

/// Half of the connections on each node; the sum of both.
async fn on_both<R>(
    one: &Server,
    two: &Server,
    connections: usize,
    time: Duration,
    request: impl Fn() -> R,
) -> Result<Run>
where
    R: Fn(usize, usize) -> Vec<u8> + Send + Sync + 'static,
{
    let half = connections / 2;
    let (first, second) = (request(), request());
    // Numbers of connections differ, so that the two nodes do not write to the same places.
    let second = move |connection: usize, number: usize| second(connection + half, number);
    let (first, second) = tokio::try_join!(
        load::for_a_time(&one.address, half, time, first),
        load::for_a_time(&two.address, half, time, second),
    )?;
    Ok(Run { rate: first.rate + second.rate, p50: first.p50.max(second.p50), p99: first.p99.max(second.p99) })
}

/// Fills a vault, backs it up, and restores it into a file and into a server.
pub(crate) async fn restore(secrets: usize) -> Result<()> {
    let vault = Vault::new().await?;
    let token = vault.account("bench", "reveal,write").await?;
    let server = vault.serve().await?;
    let fill = move |connection: usize, number: usize| {
        keymoat::put(
            &token,
            &format!("shop/c{connection}/n{number}"),
            &format!("made up {connection} {number}"),
        )
    };
    let written = load::so_many(&server.address, FILLERS, secrets, fill).await?;
    server.stop().await?;
    let file = vault.home().join("bench.backup").to_string_lossy().into_owned();
    let began = Instant::now();
    vault.run(&["backup", &file], "").await?;
    println!(
        "{secrets} secrets were written at {:.0} a second and backed up in {:.1} s",
        written.rate,
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    let into = vault.home().join("restored").to_string_lossy().into_owned();
    vault.run(&["--data", &into, "restore", &file], "").await?;
    println!("restored into a file in {:.1} s (goal 30 s for 100,000)", began.elapsed().as_secs_f64());
    let cluster = Cluster::start_on_disk().map_err(|why| anyhow!(why))?;
    let began = Instant::now();
    let into = vault.home().join("node").to_string_lossy().into_owned();
    vault.run(&["--data", &into, "--database", &cluster.url(), "restore", &file], "").await?;
    println!("restored into PostgreSQL in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

const CONNECTIONS: [usize; 2] = [16, 256];
const WRITERS: usize = 16;
const FILLERS: usize = 64;
/// Paths that each connection writes to in turn.
const KEPT: usize = 64;
