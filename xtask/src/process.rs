//! Starting other programs: what they inherit, what they say and how long they may take.
//!
//! It decides nothing about what their answers mean.

use std::io::{self, IsTerminal, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// What a finished program left behind.
#[derive(Debug)]
pub struct Finished {
    /// Whether it ended by itself and with exit code 0.
    pub success: bool,
    /// Whether it was killed because it took too long.
    pub timed_out: bool,
    /// Standard output and standard error in the order of writing.
    pub text: String,
}

/// Prepares Cargo in the workspace, the same one that started this program, without this program's own environment.
pub fn cargo(workspace: &Workspace) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&workspace.root).env("CARGO_TERM_COLOR", "never");
    clean(&mut command);
    command
}

/// Takes out of a command's environment what would make a test's result depend on who runs it: the developer's own
/// Keymoat and the variables by which Cargo describes this package.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let own =
            name.to_str().is_some_and(|name| FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        if own {
            command.env_remove(&name);
        }
    }
}

/// Runs a command to its end and keeps all it says.
///
/// # Errors
/// When it cannot be started.
pub fn capture(command: &mut Command, limit: Duration) -> Result<Finished> {
    let (reader, writer) = io::pipe().context("failed to make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("failed to start `{name}`"))?;
    // The command holds the writing ends; while it lives the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    collect(&mut child, reader, limit)
}

/// Runs a command that builds: on a terminal its progress is shown, elsewhere it is kept as by [`capture`].
///
/// # Errors
/// When it cannot be started.
pub fn build(command: &mut Command, limit: Duration) -> Result<Finished> {
    if !io::stderr().is_terminal() {
        return capture(command, limit);
    }
    command.env("CARGO_TERM_COLOR", "auto");
    let status =
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("failed to start Cargo")?;
    Ok(Finished { success: status.success(), timed_out: false, text: String::new() })
}

/// Says whether a program can be run at all, by asking for its version.
pub fn answers(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn collect(child: &mut Child, reader: io::PipeReader, limit: Duration) -> Result<Finished> {
    let chunks = read_in_background(reader);
    let deadline = Instant::now() + limit;
    let mut bytes = Vec::new();
    // A program that leaves a process behind holds the pipe open: that counts as not having ended.
    let timed_out = loop {
        match chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if timed_out {
        // It may have ended by itself in the meantime, which is as good.
        let _ = child.kill();
    }
    let status = child.wait().context("failed to wait for a program")?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Finished { success: status.success() && !timed_out, timed_out, text })
}

fn read_in_background(mut reader: io::PipeReader) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(len) = reader.read(&mut buffer) {
            if len == 0 || sender.send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Longer than any step of a cold build on two cores; a guard against hanging, not a budget.
pub const HARD_LIMIT: Duration = Duration::from_secs(45 * 60);

const FOREIGN_PREFIXES: [&str; 5] =
    ["KEYMOAT_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Finished {
        capture(Command::new("sh").args(["-c", script]), limit).unwrap()
    }

    #[test]
    fn both_streams_are_kept_and_the_code_is_told() {
        for (script, success, text) in [
            ("echo one; echo two >&2", true, "one\ntwo\n"),
            ("echo no; exit 3", false, "no\n"),
            ("", true, ""),
        ] {
            let finished = shell(script, HARD_LIMIT);
            assert_eq!((finished.success, finished.text.as_str()), (success, text), "{script}");
            assert!(!finished.timed_out);
        }
    }

    #[test]
    fn what_hangs_is_killed() {
        let finished = shell("echo began; exec sleep 600", Duration::from_millis(300));
        assert!(finished.timed_out && !finished.success);
        assert_eq!(finished.text, "began\n");
    }
}
