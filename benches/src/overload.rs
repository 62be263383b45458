//! Three times as many requests as can be answered, sent whether or not answers come: how much of the peak is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::keymoat::{self, Vault};
use crate::load::{self, Connection};
use crate::slow::allow_files;

/// Measures the peak with a closed loop, then what is left of it at three times that rate; in turns, since the disk of a
/// minute may be twice as quick as that of the next.
pub(crate) async fn run(time: Duration) -> Result<()> {
    allow_files(2 * CONNECTIONS + 1_000)?;
    let vault = Vault::new().await?;
    vault.put("shop", "made up value of 32 bytes, yes!!").await?;
    let token = vault.account("bench", "reveal").await?;
    let server = vault.serve().await?;
    let request = keymoat::reveal(&token, "shop");
    println!("\nreveal at {TIMES} times the peak, {CONNECTIONS} connections; a second");
    println!(
        "{:>10} {:>9} {:>10} {:>10} {:>9} {:>9} {:>10} {:>10} {:>8}",
        "peak", "CPU each", "sent", "answered", "p99", "CPU each", "refused", "p99", "failed"
    );
    let (mut peaks, mut goodputs) = (Part::default(), Part::default());
    for _ in 0..TURNS {
        let closed = request.clone();
        let idle = server.usage()?.cpu;
        let peak = load::for_a_time(&server.address, 256, time / 2, move |_, _| closed.clone()).await?;
        let at_peak =
            Part { answered: peak.rate * (time / 2).as_secs_f64(), cpu: server.usage()?.cpu - idle };
        let idle = server.usage()?.cpu;
        let met = open_loop(&server.address, &request, CONNECTIONS, peak.rate * TIMES, time / 2).await?;
        let a_second = |count: usize| count as f64 / (time / 2).as_secs_f64();
        let overloaded = Part { answered: met.good.len() as f64, cpu: server.usage()?.cpu - idle };
        println!(
            "{:>10.0} {:>7.0}µs {:>10.0} {:>10.0} {:>7.0}ms {:>7.0}µs {:>10.0} {:>8.0}ms {:>8}",
            peak.rate,
            at_peak.each_us(),
            a_second(met.sent),
            a_second(met.good.len()),
            at_most_ms(&met.good, 0.99),
            overloaded.each_us(),
            a_second(met.refused.len()),
            at_most_ms(&met.refused, 0.99),
            met.failed
        );
        peaks.add(&at_peak);
        goodputs.add(&overloaded);
    }
    println!("goodput to peak: {:.2}", goodputs.answered / peaks.answered);
    println!("for a second of the server's processor: {:.2}", peaks.each_us() / goodputs.each_us());
    Ok(())
}

/// What was answered, and the server's processor time for it, refusals included: the generator takes more of the same
/// processor the more it sends.
#[derive(Default)]
struct Part {
    answered: f64,
    /// In seconds.
    cpu: f64,
}

impl Part {
    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.cpu += other.cpu;
    }

    fn each_us(&self) -> f64 {
        self.cpu / self.answered * 1e6
    }
}

/// What a part of all took at most, in milliseconds; `took` is in order.
pub(crate) fn at_most_ms(took: &[Duration], part: f64) -> f64 {
    let place = (took.len().max(1) - 1) as f64 * part;
    took.get(place as usize).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// What became of requests.
#[derive(Default)]
pub(crate) struct Met {
    /// How long the answered ones took, shortest first.
    pub(crate) good: Vec<Duration>,
    /// How long the refused ones took.
    pub(crate) refused: Vec<Duration>,
    /// Those without an answer, or with another one.
    pub(crate) failed: usize,
    /// Those that were sent.
    pub(crate) sent: usize,
    /// Those that found no connection free.
    pub(crate) unsent: usize,
}

/// Sends at a rate for a time. Each of many connections sends one request at a time; who finds none free cannot send.
pub(crate) async fn open_loop(
    address: &str,
    request: &[u8],
    connections: usize,
    rate: f64,
    time: Duration,
) -> Result<Met> {
    let due = Arc::new(Semaphore::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (due, address, request) = (Arc::clone(&due), address.to_owned(), request.to_vec());
        clients.spawn(async move {
            let mut met = Met::default();
            let mut connection = Connection::open(&address).await.ok();
            while let Ok(one) = due.acquire().await {
                one.forget();
                let began = Instant::now();
                let status = match connection.as_mut() {
                    Some(connection) => connection.ask(&request).await.ok(),
                    None => None,
                };
                match status {
                    Some(200) => met.good.push(began.elapsed()),
                    Some(503) => met.refused.push(began.elapsed()),
                    _ => {
                        met.failed += 1;
                        connection = Connection::open(&address).await.ok();
                    }
                }
            }
            met
        });
    }
    let (mut sent, mut unsent) = (0usize, 0usize);
    let began = Instant::now();
    while began.elapsed() < time {
        let until_now = (began.elapsed().as_secs_f64() * rate) as usize - sent - unsent;
        match due.available_permits() {
            0 => {
                due.add_permits(until_now);
                sent += until_now;
            }
            // Those of a moment ago have not been taken: no connection is free.
            _ => unsent += until_now,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    due.close();
    let mut all = Met { sent, unsent, ..Met::default() };
    while let Some(met) = clients.join_next().await {
        let met = met?;
        all.good.extend(met.good);
        all.refused.extend(met.refused);
        all.failed += met.failed;
    }
    all.good.sort_unstable();
    all.refused.sort_unstable();
    Ok(all)
}

/// How often both are measured.
const TURNS: usize = 6;
const TIMES: f64 = 3.0;
const CONNECTIONS: usize = 2_000;
