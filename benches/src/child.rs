//! A server as a program of its own: started, waited for, looked at from outside, stopped.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// A running server; it is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// `address:port` without a scheme.
    pub(crate) address: String,
}

/// What the kernel says of a program.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Resident memory in KiB.
    pub(crate) rss_kib: u64,
    /// Processor time in seconds, of all threads.
    pub(crate) cpu: f64,
}

impl Server {
    /// Starts this program as one of the servers to compare with.
    pub(crate) async fn of_ours(arguments: &[&str]) -> Result<Self> {
        let own = std::env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(own);
        command.args(arguments);
        Self::start(command, "").await
    }

    /// Starts a server that prints a line with its address, which follows `http://` and stands behind `before`.
    pub(crate) async fn start(mut command: Command, before: &str) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let address = tokio::time::timeout(START_WITHIN, address(out, err, before)).await;
        let address = address.context("it did not say where it listens")??;
        Ok(Self { child, address })
    }

    /// Looks at its memory and processor time, from `/proc` (proc(5)).
    pub(crate) fn usage(&self) -> Result<Usage> {
        let pid = self.child.id().context("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kib = rss.and_then(|rss| rss.trim().trim_end_matches("kB").trim().parse().ok());
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may hold anything, in parentheses: fields 14 and 15 of all are the times.
        let (_, fields) = stat.rsplit_once(')').context("unknown form of /proc/PID/stat")?;
        let ticks: Vec<u64> =
            fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        let cpu = ticks.iter().sum::<u64>() as f64 / TICKS_A_SECOND;
        Ok(Usage { rss_kib: rss_kib.context("unknown form of /proc/PID/status")?, cpu })
    }

    /// How many files and connections it has open.
    pub(crate) fn open_files(&self) -> Result<usize> {
        let pid = self.child.id().context("the server has ended")?;
        Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    }

    /// Stops it as an operator would, and waits.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().context("the server has ended")?;
        let status = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        if !status.success() {
            bail!("failed to stop the server");
        }
        self.child.wait().await?;
        Ok(())
    }
}

/// Reads both streams until one names an address, and goes on reading so that the server is never held up.
async fn address(out: Option<ChildStdout>, err: Option<ChildStderr>, before: &str) -> Result<String> {
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    if let Some(out) = out {
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                drop(sender.send(line));
            }
        });
    }
    if let Some(err) = err {
        tokio::spawn(async move {
            let mut lines = BufReader::new(err).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                drop(sender.send(line));
            }
        });
    }
    let mut said = Vec::new();
    while let Some(line) = lines.recv().await {
        if let Some((front, address)) = line.split_once("http://")
            && front.contains(before)
        {
            return Ok(address.trim().trim_matches('"').to_owned());
        }
        said.push(line);
    }
    bail!("the server ended: {}", said.join("\n"))
}

const START_WITHIN: Duration = Duration::from_secs(60);
/// `sysconf(_SC_CLK_TCK)`, 100 on every Linux.
const TICKS_A_SECOND: f64 = 100.0;
