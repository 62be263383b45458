//! What a vault costs as it grows: start-up, memory, writes, reads, and checking its log.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::keymoat::{self, Vault};
use crate::load;

/// Fills a vault with each number of secrets and looks at it.
pub(crate) async fn run(sizes: &[usize]) -> Result<()> {
    println!(
        "{:>9} {:>10} {:>10} {:>11} {:>10} {:>10} {:>10} {:>12} {:>12}",
        "secrets", "write/s", "ready", "RSS", "B/secret", "reveal/s", "p99", "CPU/reveal", "verify ev/s"
    );
    let mut empty_kib = None;
    for &size in sizes {
        let seen = look(size).await?;
        let empty = *empty_kib.get_or_insert(seen.rss_kib);
        let bytes = seen.rss_kib.saturating_sub(empty) as f64 * 1024.0 / size as f64;
        println!(
            "{size:>9} {:>10.0} {:>8.0}ms {:>8.1}MiB {bytes:>10.0} {:>10.0} {:>8.0}µs {:>10.1}µs {:>12.0}",
            seen.writes,
            seen.ready.as_secs_f64() * 1e3,
            seen.rss_kib as f64 / 1024.0,
            seen.reveals.rate,
            seen.reveals.p99.as_secs_f64() * 1e6,
            seen.cpu * 1e6,
            seen.verified,
        );
    }
    Ok(())
}

struct Seen {
    writes: f64,
    ready: Duration,
    rss_kib: u64,
    reveals: load::Run,
    /// Processor seconds of the server for each read.
    cpu: f64,
    /// Events a second.
    verified: f64,
}

async fn look(size: usize) -> Result<Seen> {
    let vault = Vault::new().await?;
    let token = vault.account("bench", "reveal,write").await?;
    let server = vault.serve().await?;
    let (filler, connections) = (token.clone(), size.min(WRITERS));
    let each = size.div_ceil(connections);
    let fill = move |connection: usize, number: usize| {
        let place = connection * each + number;
        keymoat::put(&filler, &format!("shop/n{place}"), &format!("made up value number {place}"))
    };
    let written = load::so_many(&server.address, connections, size, fill).await?;
    server.stop().await?;

    let began = Instant::now();
    let server = vault.serve().await?;
    load::once(&server.address, &load::http("GET", "/readyz", &[], "")).await?;
    let ready = began.elapsed();
    let idle = server.usage()?;

    let filled = each * connections;
    let reader = token.clone();
    let read = move |connection: usize, number: usize| {
        // A step that shares no factor with the number of secrets comes by all of them.
        let place = (connection * 7919 + number * 104_729) % filled;
        keymoat::reveal(&reader, &format!("shop/n{place}"))
    };
    let reveals = load::for_a_time(&server.address, READERS, READ_FOR, read).await?;
    let after = server.usage()?;
    let cpu = (after.cpu - idle.cpu) / (reveals.rate * READ_FOR.as_secs_f64());
    let began = Instant::now();
    let said = vault.run(&["audit", "verify", "--format", "json"], "").await?;
    let took = began.elapsed();
    let report: serde_json::Value = serde_json::from_str(&said)?;
    let events = report["events"].as_f64().unwrap_or_default();
    server.stop().await?;
    Ok(Seen {
        writes: written.rate,
        ready,
        rss_kib: idle.rss_kib,
        reveals,
        cpu,
        verified: events / took.as_secs_f64(),
    })
}

const WRITERS: usize = 64;
const READERS: usize = 16;
const READ_FOR: Duration = Duration::from_secs(5);
