//! `cargo run --release -p keymoat-benches`: how fast Keymoat is, as a ratio to something in the same run.
//!
//! Every figure stands beside what the same machine did at the same time with less to do: a server that answers with
//! a constant, one that does the bare minimum of what Keymoat must do, and OpenBao where it is installed. Absolute
//! figures say more about the machine. Nothing here decides whether a test passes.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for developers: it reads its arguments and the clock, and prints"
)]

mod allocator;
mod bao;
mod child;
#[path = "../../testkit/cluster.rs"]
mod cluster;
mod floor;
mod growth;
mod history;
mod keymoat;
mod load;
mod nodes;
mod overload;
mod redact;
mod reveal;
mod slow;
mod soak;
mod still;
mod table;
mod timing;
mod verify;
mod welch;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("failed to start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                outcome = dispatch(&arguments) => outcome,
                // The children are killed when what holds them is dropped.
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn dispatch(arguments: &[&str]) -> Result<()> {
    match arguments {
        // The servers to compare with run as programs of their own, like Keymoat.
        ["serve-still"] => still::serve().await,
        ["serve-floor", file] => floor::serve(file).await,
        [] | ["reveal"] => reveal::run(SECONDS).await,
        ["reveal", "--seconds", seconds] => reveal::run(parse_seconds(seconds)?).await,
        ["growth"] => growth::run(&SIZES).await,
        ["growth", sizes @ ..] => {
            let sizes: Result<Vec<usize>, _> = sizes.iter().map(|size| size.parse()).collect();
            growth::run(&sizes.context("a number of secrets was expected")?).await
        }
        ["nodes"] => nodes::run(SECONDS).await,
        ["nodes", "--seconds", seconds] => nodes::run(parse_seconds(seconds)?).await,
        ["restore"] => nodes::restore(RESTORED).await,
        ["restore", secrets] => {
            nodes::restore(secrets.parse().context("a number of secrets was expected")?).await
        }
        ["verify"] => verify::run(RECORDS),
        ["verify", records] => verify::run(records.parse().context("a number of records was expected")?),
        ["redact", files @ ..] if !files.is_empty() => redact::run(files),
        ["timing"] => timing::run(SAMPLES),
        ["timing", samples] => timing::run(samples.parse().context("a number of samples was expected")?),
        ["allocator"] => allocator::run(TURN).await,
        ["soak"] => soak::run(MINUTES, keymoat::DISK).await,
        ["soak", "--minutes", minutes] => soak::run(parse_minutes(minutes)?, keymoat::DISK).await,
        ["soak", "--minutes", minutes, "--os"] => soak::run(parse_minutes(minutes)?, keymoat::OS).await,
        ["slow"] => slow::run(SLOW_HEADS, SLOW_BODIES).await,
        ["overload"] => overload::run(SECONDS).await,
        // Keymoat's part of `history` runs as a program of its own, like the others.
        ["scan-history", repository, options @ ..] => history::scan(repository, options),
        ["history", repository] => history::run(repository, None),
        ["history", repository, "--generate", commits] => {
            history::run(repository, Some(commits.parse().context("a number of commits was expected")?))
        }
        _ => bail!("{USAGE}"),
    }
}

fn parse_seconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_secs(text.parse().with_context(|| format!("`{text}` is not a number of seconds"))?))
}

fn parse_minutes(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("`{text}` is not a number of minutes"))
}

/// Long enough for a few hundred thousand requests.
const SECONDS: Duration = Duration::from_secs(10);
/// A small shop, and one beyond what anybody has.
const SIZES: [usize; 2] = [1, 100_000];
const MINUTES: u64 = 30;
/// Beyond what anybody has.
const RESTORED: usize = 100_000;
/// Half a gigabyte of log.
const RECORDS: u64 = 1_000_000;
/// As many as show a leak of a nanosecond.
const SAMPLES: usize = 1_000_000;
const TURN: Duration = Duration::from_secs(3);

/// More than there is room for.
const SLOW_HEADS: usize = 10_000;
const SLOW_BODIES: usize = 1_000;

const USAGE: &str = "\
usage: cargo run --release -p keymoat-benches -- [BENCH]

  reveal [--seconds N]   values over HTTP at 16 and 256 connections, against a constant, a floor and OpenBao
  growth [SECRETS]…      start-up, memory, writes and reads with so many secrets (1 and 100000)
  nodes [--seconds N]    values over HTTP from one node and two on PostgreSQL, against OpenBao on PostgreSQL
  restore [SECRETS]      backup and restore of so many secrets (100000), into a file and into PostgreSQL
  verify [RECORDS]       verifying an export of the log (1000000 records), against plain SHA-256
  redact FILE…           the redactor's speed on files, as a ratio to searching them, without and with 10000 stored values
  timing [SAMPLES]       whether the time of a check tells what was checked (1000000 samples), with `==` as the control
  allocator              what erasing freed memory costs, in processor time for a request
  soak [--minutes N [--os]]
                         half of the peak for so long (30): latency, memory, open files by the minute, and what the disk
                         alone would make of it; with --os records stay with the operating system
  slow                   10,000 half heads and 1,000 slow bodies beside good clients
  history REPOSITORY [--generate COMMITS]
                         searching a whole history, against git reading it and other scanners; makes one first if told
  overload               three times as many requests as can be answered";
