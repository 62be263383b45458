//! A server at half of what it can do, for a long time: whether it stays as quick and as small as it was.
//!
//! Every answer waits for the disk, so each minute ends with what the disk alone would let a caller wait: syncs one after
//! the other, and callers who come at any time. Most of them meet a sync that takes long, because it lasts long. Before
//! the first minute the floor and a constant answer as often, on the same processors beside the same generator.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::child::Server;
use crate::floor;
use crate::keymoat::{self, Vault};
use crate::load::{self, http};
use crate::overload::{at_most_ms, open_loop};

/// Measures the peak, then sends at half of it, and looks at the server after every minute.
pub(crate) async fn run(minutes: u64, durability: &str) -> Result<()> {
    let vault = Vault::new().await?;
    vault.put("shop", "made up value of 32 bytes, yes!!").await?;
    let token = vault.account("bench", "reveal").await?;
    let server = vault.serve_with(durability).await?;
    let request = keymoat::reveal(&token, "shop");
    let closed = request.clone();
    let peak =
        load::for_a_time(&server.address, PEAK_CONNECTIONS, PEAK_FOR, move |_, _| closed.clone()).await?;
    let rate = peak.rate / 2.0;
    println!("peak {:.0} a second at {PEAK_CONNECTIONS} connections; sending {rate:.0} a second", peak.rate);
    println!(
        "{:>6} {:>10} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>10} {:>6}",
        "minute",
        "answered",
        "p50 ms",
        "p99 ms",
        "disk p50",
        "disk p99",
        "failed",
        "unsent",
        "RSS kB",
        "files"
    );
    let dir = tempfile::tempdir()?;
    let floor = Server::of_ours(&["serve-floor", &dir.path().join("floor.db").to_string_lossy()]).await?;
    let still = Server::of_ours(&["serve-still"]).await?;
    let authorized = [("authorization", &*format!("Bearer {}", floor::TOKEN))];
    for (name, server, headers) in [("floor", floor, &authorized[..]), ("still", still, &[])] {
        let met =
            open_loop(&server.address, &http("POST", "/", headers, "{}"), CONNECTIONS, rate, MINUTE).await?;
        println!(
            "{name:>6} {:>10} {:>9.2} {:>9.2} {:>9} {:>9} {:>7} {:>7}",
            met.good.len(),
            at_most_ms(&met.good, 0.5),
            at_most_ms(&met.good, 0.99),
            "",
            "",
            met.failed + met.refused.len(),
            met.unsent
        );
        server.stop().await?;
    }
    let mut sizes = Vec::new();
    for minute in 1..=minutes {
        let met = open_loop(&server.address, &request, CONNECTIONS, rate, MINUTE).await?;
        let (rss, files) = (server.usage()?.rss_kib, server.open_files()?);
        let synced = syncs(&vault.home().join("synced"), SYNCS)?;
        println!(
            "{minute:>6} {:>10} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>7} {:>7} {rss:>10} {files:>6}",
            met.good.len(),
            at_most_ms(&met.good, 0.5),
            at_most_ms(&met.good, 0.99),
            of_callers_ms(&synced, 0.5),
            of_callers_ms(&synced, 0.99),
            met.failed + met.refused.len(),
            met.unsent
        );
        sizes.push(rss);
    }
    if let (Some(settled), Some(last)) = (sizes.get(SETTLED_AFTER), sizes.last()) {
        let growth = (*last as f64 / *settled as f64 - 1.0) * 100.0;
        println!("RSS since minute {}: {growth:+.1} % (goal: at most 2 %)", SETTLED_AFTER + 1);
    }
    server.stop().await
}

/// How long it takes to write over some pages of a log and to have them on the disk, again and again; the shortest first.
fn syncs(path: &Path, times: usize) -> Result<Vec<Duration>> {
    let mut log = std::fs::File::create(path)?;
    log.write_all(&vec![b'x'; LOG])?;
    log.sync_all()?;
    let mut took = Vec::with_capacity(times);
    for number in 0..times {
        let began = Instant::now();
        log.write_all_at(&[b'y'; COMMIT], (number * COMMIT % (LOG - COMMIT)) as u64)?;
        log.sync_data()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

/// How long the sync is at most that this part of all callers meets, in milliseconds, when they come at any time; `took` is
/// in order. Waiting for the next one, which has their record, comes on top.
fn of_callers_ms(took: &[Duration], part: f64) -> f64 {
    let all: f64 = took.iter().map(Duration::as_secs_f64).sum();
    let mut met = 0.0;
    let longest = took.iter().find(|sync| {
        met += sync.as_secs_f64();
        met >= all * part
    });
    longest.copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// A commit of half the peak: its pages, and the log that they go round in.
const COMMIT: usize = 8 * 4096;
const LOG: usize = 4_000 * 4096;
const SYNCS: usize = 3_000;
const PEAK_CONNECTIONS: usize = 16;
const PEAK_FOR: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);
/// Caches and buffers have their size by then.
const SETTLED_AFTER: usize = 4;
