//! What erasing freed memory costs: the same servers under the system's allocator and under the one that erases.
//!
//! Processor time for a request is what counts; how many there are in a second is a matter of what else the machine does.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::child::Server;
use crate::floor;
use crate::load::{self, http};

/// Compares both allocators below a constant answer and below the least audited read, taking turns.
pub(crate) async fn run(time: Duration) -> Result<()> {
    println!("processor time for a request in µs, median of {ROUNDS} turns, 16 connections\n");
    println!("{:<36} {:>8} {:>8} {:>7}", "", "system", "erasing", "ratio");
    let bearer = format!("Bearer {}", floor::TOKEN);
    for (name, kind, headers) in [
        ("constant JSON, axum", "serve-still", Vec::new()),
        ("floor: SQLite FULL, HMAC, AES-GCM", "serve-floor", vec![("authorization", bearer.as_str())]),
    ] {
        let request = http("POST", "/", &headers, "{}");
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (costs, program) in costs.iter_mut().zip(["keymoat-benches", "keymoat-benches-erasing"]) {
                costs.push(cost(program, kind, &request, time).await?);
            }
        }
        let [system, erasing] = costs.map(median);
        println!("{name:<36} {system:>8.1} {erasing:>8.1} {:>7.3}", erasing / system);
    }
    Ok(())
}

/// The processor time that one request takes, in µs.
async fn cost(program: &str, kind: &str, request: &[u8], time: Duration) -> Result<f64> {
    let own = std::env::current_exe().context("failed to find this program")?;
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(own.with_file_name(program));
    command.arg(kind);
    if kind == "serve-floor" {
        command.arg(dir.path().join("floor.db"));
    }
    let server = Server::start(command, "").await?;
    let send = || {
        let request = request.to_vec();
        move |_: usize, _: usize| request.clone()
    };
    load::for_a_time(&server.address, CONNECTIONS, WARM_UP, send()).await?;
    let before = server.usage()?.cpu;
    let run = load::for_a_time(&server.address, CONNECTIONS, time, send()).await?;
    let spent = server.usage()?.cpu - before;
    server.stop().await?;
    Ok(spent * 1e6 / (run.rate * time.as_secs_f64()))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 16;
const WARM_UP: Duration = Duration::from_millis(500);
