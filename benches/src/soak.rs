//! A server at half of what it can do, for a long time: whether it stays as quick and as small as it was.
//!
//! Every answer waits for the disk, so each minute ends with what the disk alone takes.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::keymoat::{self, Vault};
use crate::load;
use crate::overload::{at_most_ms, open_loop};

/// Measures the peak, then sends at half of it, and looks at the server after every minute.
pub(crate) async fn run(minutes: u64) -> Result<()> {
    let vault = Vault::new().await?;
    vault.put("shop", "made up value of 32 bytes, yes!!").await?;
    let token = vault.account("bench", "reveal").await?;
    let server = vault.serve().await?;
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
            at_most_ms(&synced, 0.5),
            at_most_ms(&synced, 0.99),
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

/// How long it takes to append a page and to have it on the disk, again and again; the shortest first.
fn syncs(path: &Path, times: usize) -> Result<Vec<Duration>> {
    let mut file = std::fs::File::create(path)?;
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        file.write_all(&[b'x'; 4096])?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

const SYNCS: usize = 1_000;
const PEAK_CONNECTIONS: usize = 16;
const PEAK_FOR: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);
/// Caches and buffers have their size by then.
const SETTLED_AFTER: usize = 4;
