//! `keymoat selftest`: kills, power cuts, damage and edits on this machine's own disk, and how often Keymoat failed.
//!
//! It works on vaults of its own in a directory of its own, which is gone afterwards; the vault of this machine is
//! neither opened nor looked at. What is tried stands in `keymoat_testkit`.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use keymoat_testkit::{
    DiskManners, Failure, Kills, Outcome, PowerCuts, Specimen, Tally, Tampering, Told, examine_kept, line_of,
    live,
};
use keymoat_vault::{Clock as _, Durability};
use serde::Serialize;
use tempfile::TempDir;

use crate::Context;
use crate::clock::SystemClock;
use crate::commands::serve::stop_signal;
use crate::error::CliError;
use crate::output::{self, Format};

/// Try Keymoat out on this machine's disk: kills, simulated power cuts, damaged and edited files.
#[derive(Debug, Args)]
pub struct Selftest {
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: u64,
    /// How many times to try each test, instead of for how long.
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..))]
    times: Option<u64>,
    /// One test alone.
    #[arg(long, value_enum, value_name = "TEST")]
    only: Option<Test>,
    /// Directory on the disk to be tried; without it, that of the data directory.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Number that decides what is tried; without it, another one each time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Look again at a state that an earlier run has kept.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with_all = ["minutes", "times", "only", "dir", "seed"])]
    again: Option<PathBuf>,
    /// Be the process that is killed.
    #[arg(long, hide = true, requires = "seed")]
    child: Option<PathBuf>,
}

/// What can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Test {
    /// A process is killed while it writes, changes keys, backs up and restores.
    Kills,
    /// The power goes at any step of a recorded run, on a simulated disk.
    PowerCuts,
    /// One bit of one file is another one.
    BitFlips,
    /// One page of the database is an older one.
    PageRollBacks,
    /// Somebody edits the audit log.
    Tampering,
}

impl Selftest {
    /// Tries everything and prints the counts; exit code 1 when something went wrong that never must.
    ///
    /// # Errors
    /// When there is no room to try anything, or it was stopped.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        if let (Some(dir), Some(seed)) = (&self.child, self.seed) {
            return be_killed(dir, seed).await;
        }
        if let Some(dir) = &self.again {
            return look_again(dir).await;
        }
        let stop = stop_signal()?;
        let scratch = self.scratch(context)?;
        let seed = self.seed.unwrap_or_else(|| u64::from(u32::from_le_bytes(keymoat_crypto::bytes())));
        let begun = SystemClock.now();
        output::say(&format!("selftest with seed {seed} in `{}`", scratch.path().display()));
        let mut trial = Trial::new(scratch.path(), seed);
        let ended = self.try_all(&mut trial, stop).await;
        trial.bar.finish_and_clear();
        let report = Report {
            seed,
            seconds: SystemClock.now().duration_since(begun).as_secs(),
            is_clean: trial.tallies.iter().all(|(_, tally)| tally.is_clean()),
            tests: trial.tallies.iter().map(|(test, tally)| Line::of(*test, tally)).collect(),
            not_tested: NOT_TESTED,
        };
        report.print(context.global.format)?;
        if !report.is_clean {
            let kept = scratch.keep();
            output::say(&format!("what went wrong is kept in `{}`", kept.display()));
        }
        ended?;
        Ok(if report.is_clean { 0 } else { FOUND_BAD })
    }

    /// A private directory that goes with the test.
    fn scratch(&self, context: &Context) -> Result<TempDir, CliError> {
        let data = &context.places.data;
        let found = self.dir.as_deref().or_else(|| data.ancestors().find(|dir| dir.is_dir()));
        let dir = found.unwrap_or(Path::new("/"));
        let mut builder = tempfile::Builder::new();
        builder.prefix("selftest-").permissions(std::fs::Permissions::from_mode(0o700));
        builder
            .tempdir_in(dir)
            .map_err(|e| CliError::file("make a directory in", dir, &e).hint("name another one with --dir"))
    }

    async fn try_all(
        &self,
        trial: &mut Trial,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), CliError> {
        let over = Arc::new(AtomicBool::new(false));
        let interrupted = Arc::new(AtomicBool::new(false));
        let (minutes, by_time) = (Duration::from_secs(60 * self.minutes), self.times.is_none());
        let (ends, stops) = (Arc::clone(&over), Arc::clone(&interrupted));
        let watch = tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(minutes), if by_time => {}
                () = stop => stops.store(true, Ordering::Relaxed),
            }
            ends.store(true, Ordering::Relaxed);
        });
        let tests: Vec<Test> = match self.only {
            Some(test) => vec![test],
            None => Test::value_variants().to_vec(),
        };
        let times = self.times.unwrap_or(u64::MAX);
        let outcome = trial.go_round(&tests, times, &over).await;
        watch.abort();
        outcome.map_err(|error| CliError::new(error.to_string()))?;
        match interrupted.load(Ordering::Relaxed) {
            true => Err(CliError::new("stopped before the time was over; the counts are of what was tried")),
            false => Ok(()),
        }
    }
}

/// What is tried, and what has come of it.
struct Trial {
    scratch: PathBuf,
    seed: u64,
    tallies: Vec<(Test, Tally)>,
    kills: Option<Kills>,
    cuts: Option<PowerCuts>,
    specimen: Option<Specimen>,
    bar: ProgressBar,
}

impl Trial {
    fn new(scratch: &Path, seed: u64) -> Self {
        Self {
            scratch: scratch.to_owned(),
            seed,
            tallies: Vec::new(),
            kills: None,
            cuts: None,
            specimen: None,
            bar: ProgressBar::new_spinner(),
        }
    }

    /// Tries a few of each, again and again, until it is over or each was tried so many times.
    async fn go_round(&mut self, tests: &[Test], times: u64, over: &AtomicBool) -> Result<(), Failure> {
        self.tallies = tests.iter().map(|test| (*test, Tally::default())).collect();
        loop {
            let mut has_more = false;
            for at in 0..tests.len() {
                for _ in 0..tests[at].at_once() {
                    let tried = self.tallies[at].1.tried;
                    if over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if tried < times {
                        self.try_once(at, tried).await?;
                        has_more = true;
                    }
                }
            }
            if !has_more {
                return Ok(());
            }
        }
    }

    async fn try_once(&mut self, at: usize, number: u64) -> Result<(), Failure> {
        let test = self.tallies[at].0;
        match test {
            Test::Kills => {
                let findings = self.kill(number).await?;
                findings.sentences().take(SAID_MAX).for_each(|said| self.complain(test, number, &said));
                self.tallies[at].1.add_findings(&findings);
            }
            Test::PowerCuts => {
                let findings = self.cut_power(number).await?;
                findings.sentences().take(SAID_MAX).for_each(|said| self.complain(test, number, &said));
                self.tallies[at].1.add_findings(&findings);
            }
            Test::BitFlips | Test::PageRollBacks | Test::Tampering => {
                let outcome = self.damage(test, number).await?;
                if let Outcome::Unnoticed(said) | Outcome::Wrong(said) = &outcome {
                    self.complain(test, number, said);
                }
                self.tallies[at].1.add_outcome(&outcome);
            }
        }
        let tried: Vec<String> =
            self.tallies.iter().map(|(test, tally)| format!("{} {}", tally.tried, test.as_str())).collect();
        self.bar.set_message(tried.join(", "));
        self.bar.tick();
        Ok(())
    }

    fn complain(&self, test: Test, number: u64, said: &str) {
        self.bar.suspend(|| output::say(&format!("{} {number}: {said}", test.as_str())));
    }

    async fn kill(&mut self, number: u64) -> Result<keymoat_testkit::Findings, Failure> {
        if number.is_multiple_of(KILLS_OF_A_VAULT) {
            if let Some(old) = self.kills.take() {
                remove(old.place().dir())?;
            }
            let dir = self.scratch.join(format!("killed-{number}"));
            self.kills = Some(Kills::in_dir(&dir, self.seed.wrapping_add(number))?);
        }
        let kills = self.kills.as_mut().ok_or(Failure::Child("has no vault".to_owned()))?;
        let program = this_program()?;
        let mut child = std::process::Command::new(program);
        child.arg("selftest").arg("--child").arg(kills.place().dir());
        // A group of its own: Ctrl-C is for the one who counts.
        child.args(["--seed", &number.to_string()]).stderr(Stdio::null()).process_group(0);
        kills.kill_once(&mut child)?;
        Ok(kills.examine().await)
    }

    async fn cut_power(&mut self, number: u64) -> Result<keymoat_testkit::Findings, Failure> {
        if number.is_multiple_of(STATES_OF_A_RUN) {
            self.cuts = None;
            let dir = self.scratch.join(format!("recorded-{number}"));
            let seed = self.seed.wrapping_add(number);
            self.cuts = Some(PowerCuts::record(&dir, seed, Durability::Disk, DiskManners::Honest).await?);
        }
        let cuts = self.cuts.as_ref().ok_or(Failure::NoRecorder)?;
        cuts.try_state(number).await
    }

    async fn damage(&mut self, test: Test, number: u64) -> Result<Outcome, Failure> {
        if self.specimen.is_none() || number.is_multiple_of(DAMAGES_OF_A_VAULT) {
            let dir = self.scratch.join(format!("damaged-{}-{number}", test.as_str().replace(' ', "-")));
            self.specimen = Some(Specimen::make(&dir, self.seed.wrapping_add(number)).await?);
        }
        let specimen = self.specimen.as_ref().ok_or(Failure::NoRecorder)?;
        match test {
            Test::BitFlips => specimen.flip(number).await,
            Test::PageRollBacks => specimen.roll_back_page(number).await,
            _ => {
                let ways = Tampering::ALL;
                specimen.tamper(ways[(number % ways.len() as u64) as usize], number).await
            }
        }
    }
}

impl Test {
    fn as_str(self) -> &'static str {
        match self {
            Test::Kills => "kills",
            Test::PowerCuts => "power cuts",
            Test::BitFlips => "bit flips",
            Test::PageRollBacks => "page roll-backs",
            Test::Tampering => "edits of the log",
        }
    }

    /// How many are tried before another test has its turn, so that each gets about the same time.
    fn at_once(self) -> u64 {
        match self {
            Test::Kills => 3,
            Test::PowerCuts | Test::BitFlips => 12,
            Test::PageRollBacks | Test::Tampering => 9,
        }
    }
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    seed: u64,
    seconds: i64,
    is_clean: bool,
    tests: Vec<Line>,
    not_tested: [&'static str; 4],
}

/// The counts of one test. All but the first and the last must be 0.
#[derive(Serialize)]
struct Line {
    test: &'static str,
    tried: u64,
    acknowledged_lost: u64,
    without_record: u64,
    wrong_value: u64,
    not_opened: u64,
    not_verified: u64,
    not_working: u64,
    unnoticed: u64,
    /// Damage to nothing that is read.
    harmless: u64,
}

impl Line {
    fn of(test: Test, tally: &Tally) -> Self {
        Self {
            test: test.as_str(),
            tried: tally.tried,
            acknowledged_lost: tally.lost,
            without_record: tally.unrecorded,
            wrong_value: tally.wrong,
            not_opened: tally.refused,
            not_verified: tally.unverified,
            not_working: tally.stuck,
            unnoticed: tally.unnoticed,
            harmless: tally.harmless,
        }
    }

    fn cells(&self) -> Vec<String> {
        let counts = [
            self.tried,
            self.acknowledged_lost,
            self.without_record,
            self.wrong_value,
            self.not_opened,
            self.not_verified,
            self.not_working,
            self.unnoticed,
            self.harmless,
        ];
        std::iter::once(self.test.to_owned()).chain(counts.map(|count| count.to_string())).collect()
    }
}

impl Report {
    fn print(&self, format: Format) -> Result<(), CliError> {
        if format == Format::Json {
            return output::json(self);
        }
        let headings = [
            "test",
            "tried",
            "lost",
            "no record",
            "wrong value",
            "not opened",
            "not verified",
            "not working",
            "unnoticed",
            "(harmless)",
        ];
        output::table(&headings, self.tests.iter().map(Line::cells));
        output::say(&format!("{} in {} s, seed {}", self.verdict(), self.seconds, self.seed));
        output::say(&format!("not tested here: {}", self.not_tested.join("; ")));
        Ok(())
    }

    fn verdict(&self) -> &'static str {
        match self.is_clean {
            true => "everything that must be 0 is 0",
            false => "SOMETHING THAT MUST BE 0 IS NOT",
        }
    }
}

/// Works until it is killed.
async fn be_killed(dir: &Path, seed: u64) -> Result<u8, CliError> {
    let say = Told::new(|deed| output::line(&line_of(&deed)));
    match live(dir, seed, None, &say).await {
        Ok(()) => Ok(0),
        Err(error) => {
            output::line(&error.to_string());
            Ok(FOUND_BAD)
        }
    }
}

async fn look_again(dir: &Path) -> Result<u8, CliError> {
    let findings =
        examine_kept(dir, Durability::Disk).await.map_err(|error| CliError::new(error.to_string()))?;
    findings.sentences().for_each(|said| output::line(&output::printable(&said)));
    Ok(if findings.is_clean() { 0 } else { FOUND_BAD })
}

#[expect(clippy::disallowed_methods, reason = "the child is this very program, wherever it stands")]
fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|e| Failure::Child(format!("cannot be started: {e}")))
}

fn remove(dir: &Path) -> Result<(), Failure> {
    std::fs::remove_dir_all(dir).map_err(|e| Failure::file(dir, &e))
}

/// What no program can try by itself, or this one does not.
const NOT_TESTED: [&str; 4] = [
    "whether this disk keeps what it says is synced (cut its power for that)",
    "system calls that fail (`testkit/test_faults.py` in the sources)",
    "PostgreSQL and several nodes",
    "the memory of the machine",
];
const FOUND_BAD: u8 = 1;
/// A day.
const MINUTES_MAX: u64 = 24 * 60;
/// Sentences of one try that are worth reading.
const SAID_MAX: usize = 5;
/// The log of a vault grows with every kill, and looking at it takes longer.
const KILLS_OF_A_VAULT: u64 = 30;
/// States of one recording that teach more than those of another one.
const STATES_OF_A_RUN: u64 = 500;
/// Pieces of damage to one vault.
const DAMAGES_OF_A_VAULT: u64 = 1000;
