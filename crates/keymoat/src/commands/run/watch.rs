//! `keymoat run --watch`: stays beside the program, follows the feed of changes, and starts the program anew, or signals
//! it, when a secret that it was given has another value.
//!
//! On a terminal the program stays in Keymoat's own process group, so that the shell's job control, Ctrl-C and Ctrl-Z
//! reach it as if nothing stood in between. Without one it has a group of its own, and what it has started itself ends
//! with it. There are never two of it. Of what was given out only the numbers of the versions are kept.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::str::FromStr;
use std::time::Duration;

use keymoat_crypto::SecretBytes;
use keymoat_server::wire::{Answer, Change, Changes};
use nix::sys::signal::{Signal, kill, killpg, raise};
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

use super::signals::{self, Heard, Signals};
use super::{Asked, Failed, Resolved, Run, resolve_all};
use crate::client::{Client, query};
use crate::error::CliError;
use crate::output;

/// What becomes of the program when a value changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// It ends and is started anew.
    Restart,
    /// It gets a signal and keeps what it has: for programs that read their keys again themselves.
    Signal(Signal),
}

impl FromStr for OnChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write `restart`, or `signal=` with a name such as HUP or USR1".to_owned();
        if text == "restart" {
            return Ok(OnChange::Restart);
        }
        let name = text.strip_prefix("signal=").ok_or_else(wrong)?;
        let name = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
        name.parse().map(OnChange::Signal).map_err(|_| wrong())
    }
}

/// The settings of the program beside its keys, and how it is looked after.
pub struct Watch<'r> {
    /// The flags.
    pub run: &'r Run,
    /// Plain settings.
    pub settings: &'r BTreeMap<String, String>,
    /// How long it has to end.
    pub grace: Duration,
    /// What becomes of it when a value changes.
    pub on_change: OnChange,
}

impl Watch<'_> {
    /// Starts the program and stays until it ends by itself; gives its exit code.
    ///
    /// # Errors
    /// When it cannot be started, or cannot be started again.
    pub async fn run(&self, client: Client, asks: Vec<Asked>) -> Result<u8, CliError> {
        let mut signals = Signals::listen()?;
        let prepared = async {
            // Before anything is resolved, so that no change falls in between.
            let after = newest(&client).await?;
            let resolved = resolve_all(&client, &asks).await.map_err(Failed::not_started)?;
            Ok::<_, CliError>((after, resolved))
        };
        let (after, resolved) = tokio::select! {
            prepared = prepared => prepared?,
            signal = farewell(&mut signals) => return Ok(code_of_signal(signal as i32)),
        };
        let given = Given::of(&asks, &resolved.answers);
        let mut minder = Minder::begin(self, &resolved.values, signals)?;
        drop(resolved);
        let (news, mut heard) = mpsc::channel(1);
        let name = self.run.program_name();
        let follower = Follower { client, asks, given, after, on_change: self.on_change, name, news };
        let following = tokio::spawn(follower.follow());
        let code = minder.mind(&mut heard).await;
        following.abort();
        code
    }
}

/// Where the feed of changes stands.
async fn newest(client: &Client) -> Result<u64, CliError> {
    Ok(client.get::<Changes>("/api/v1/changes").await?.next)
}

/// What the one who follows has to say to the one who minds the program.
enum News {
    /// There are new values.
    Values(BTreeMap<String, SecretBytes>),
    /// Something has changed.
    Changed,
}

/// Looks after the program.
struct Minder<'w, 'r> {
    watch: &'w Watch<'r>,
    child: Child,
    pid: Pid,
    signals: Signals,
    children: tokio::signal::unix::Signal,
    has_terminal: bool,
}

impl<'w, 'r> Minder<'w, 'r> {
    fn begin(
        watch: &'w Watch<'r>,
        values: &BTreeMap<String, SecretBytes>,
        signals: Signals,
    ) -> Result<Self, CliError> {
        let wrong = |e: std::io::Error| CliError::new(format!("cannot listen for signals: {e}"));
        let children = tokio::signal::unix::signal(SignalKind::child()).map_err(wrong)?;
        let has_terminal = std::fs::File::open("/dev/tty").is_ok();
        let (child, pid) = start(watch, values, has_terminal)?;
        Ok(Self { watch, child, pid, signals, children, has_terminal })
    }

    /// Until the program ends by itself.
    async fn mind(&mut self, news: &mut mpsc::Receiver<News>) -> Result<u8, CliError> {
        loop {
            tokio::select! {
                ended = self.child.wait() => return ended.map(code_of).map_err(lost),
                heard = self.signals.next() => self.pass_on(heard),
                _ = self.children.recv() => self.stop_with_it(),
                Some(news) = news.recv() => {
                    if let Some(code) = self.act(news).await? {
                        return Ok(code);
                    }
                }
            }
        }
    }

    /// Gives the program's exit code when it is not to be started again.
    async fn act(&mut self, news: News) -> Result<Option<u8>, CliError> {
        let values = match (news, self.watch.on_change) {
            (News::Values(values), _) => values,
            (News::Changed, OnChange::Signal(signal)) => {
                self.send(signal);
                return Ok(None);
            }
            (News::Changed, OnChange::Restart) => return Ok(None),
        };
        let (ended, is_wanted) = self.end().await?;
        if !is_wanted {
            return Ok(Some(code_of(ended)));
        }
        (self.child, self.pid) = start(self.watch, &values, self.has_terminal)?;
        Ok(None)
    }

    /// Ends the program, and says whether it is still wanted afterwards: somebody may have ended it meanwhile for good.
    async fn end(&mut self) -> Result<(ExitStatus, bool), CliError> {
        let mut is_wanted = true;
        self.send_all(Signal::SIGTERM);
        // A stopped program ends when it goes on.
        self.send_all(Signal::SIGCONT);
        let mut late = std::pin::pin!(tokio::time::sleep(self.watch.grace));
        let mut is_killed = false;
        let ended = loop {
            tokio::select! {
                ended = self.child.wait() => break ended.map_err(lost)?,
                heard = self.signals.next() => {
                    is_wanted &= !is_farewell(heard.signal);
                    self.pass_on(heard);
                }
                () = &mut late, if !is_killed => {
                    is_killed = true;
                    self.send_all(Signal::SIGKILL);
                }
            }
        };
        if !self.has_terminal {
            // What it has left behind in its group; usually nobody is there any more.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        Ok((ended, is_wanted))
    }

    /// What a terminal sends the program has already, being of the same group.
    fn pass_on(&self, heard: Heard) {
        if !heard.is_from_terminal || !self.has_terminal {
            self.send(heard.signal);
        }
    }

    fn send(&self, signal: Signal) {
        // It may have ended a moment ago; then its end is what counts.
        let _ = kill(self.pid, signal);
    }

    /// To the program, and where it has a group of its own to all of that.
    fn send_all(&self, signal: Signal) {
        match self.has_terminal {
            true => self.send(signal),
            false => drop(killpg(self.pid, signal)),
        }
    }

    /// When the program was stopped on a terminal, Keymoat stops too, so that the shell takes the terminal back. It goes
    /// on with the program.
    fn stop_with_it(&self) {
        if !self.has_terminal {
            return;
        }
        let Some(pid) = rustix::process::Pid::from_raw(self.pid.as_raw()) else { return };
        let stopped = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG);
        if matches!(stopped, Ok(Some(_))) {
            let _ = raise(Signal::SIGSTOP);
        }
    }
}

fn start(
    watch: &Watch<'_>,
    values: &BTreeMap<String, SecretBytes>,
    has_terminal: bool,
) -> Result<(Child, Pid), CliError> {
    use std::os::unix::process::CommandExt as _;
    let mut command = watch.run.command(watch.settings, values)?;
    if !has_terminal {
        command.process_group(0);
    }
    // It would inherit what is held back here, and hear of nothing.
    let started = signals::as_before(|| Command::from(command).spawn())?;
    let child = started.map_err(|error| watch.run.cannot_start(&error))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| lost(std::io::ErrorKind::NotFound.into()))?;
    Ok((child, Pid::from_raw(pid)))
}

/// As shells give it: the code, or 128 and the signal's number.
fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(super::OWN_FAILURE),
        (None, Some(signal)) => code_of_signal(signal),
        (None, None) => super::OWN_FAILURE,
    }
}

fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(BY_SIGNAL + signal).unwrap_or(super::OWN_FAILURE)
}

fn lost(error: std::io::Error) -> CliError {
    CliError::new(format!("the program cannot be waited for: {error}")).exit(super::OWN_FAILURE)
}

/// Waits for somebody who wants the program to end before it has begun.
async fn farewell(signals: &mut Signals) -> Signal {
    loop {
        let Heard { signal, .. } = signals.next().await;
        if is_farewell(signal) {
            return signal;
        }
    }
}

/// Whether whoever sends this wants the program to end.
fn is_farewell(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP)
}

/// Which secrets were given out, in which version.
#[derive(Debug, Default, PartialEq, Eq)]
struct Given(Vec<GivenSecret>);

#[derive(Debug, PartialEq, Eq)]
struct GivenSecret {
    environment: String,
    path: String,
    /// Whose it was asked for.
    asked_for: Option<String>,
    /// Whose it is: the company's own, or what all share.
    company: Option<String>,
    version: u32,
}

impl Given {
    fn of(asks: &[Asked], answers: &[Answer]) -> Self {
        let given = |(Asked { ask, .. }, answer): (&Asked, &Answer)| {
            let version = answer.revealed.as_ref()?.version;
            let layer = answer.winning_step()?.layer.as_str();
            Some(GivenSecret {
                environment: ask.environment.clone(),
                path: answer.path.clone(),
                asked_for: ask.company.clone(),
                company: ask.company.clone().filter(|_| layer == COMPANY_LAYER),
                version,
            })
        };
        Self(asks.iter().zip(answers).filter_map(given).collect())
    }

    /// The path of a secret whose change may mean another value; none where only what is said about it changed.
    fn concerned<'c>(&self, changes: &'c [Change]) -> Option<&'c Change> {
        let concerns = |given: &GivenSecret, change: &Change| {
            let is_it = given.environment == change.environment && given.path == change.path;
            let is_same = given.company == change.company;
            let is_of_asked = change.company.is_none() || change.company == given.asked_for;
            is_it && ((is_same && change.version != Some(given.version)) || (!is_same && is_of_asked))
        };
        changes.iter().rev().find(|change| self.0.iter().any(|given| concerns(given, change)))
    }

    /// Notes the version of a change, for programs that look for the value themselves.
    fn note(&mut self, changes: &[Change]) {
        for change in changes {
            let same = |given: &&mut GivenSecret| {
                given.environment == change.environment
                    && given.path == change.path
                    && given.company == change.company
            };
            if let (Some(given), Some(version)) = (self.0.iter_mut().find(same), change.version) {
                given.version = version;
            }
        }
    }
}

/// Follows the feed of changes, and resolves anew.
struct Follower {
    client: Client,
    asks: Vec<Asked>,
    given: Given,
    after: u64,
    on_change: OnChange,
    name: String,
    news: mpsc::Sender<News>,
}

impl Follower {
    async fn follow(mut self) {
        let mut trouble = Trouble::default();
        let mut is_due = false;
        loop {
            let step = self.step(&mut is_due).await;
            match step {
                Ok(()) => trouble.is_over(),
                Err(error) => trouble.wait(&self.name, &error).await,
            }
            if self.news.is_closed() {
                return;
            }
        }
    }

    /// Waits for changes, and acts on them. An error means that the server cannot be asked now.
    async fn step(&mut self, is_due: &mut bool) -> Result<(), CliError> {
        let wait = if *is_due { "0" } else { WAIT_SECS };
        let after = self.after.to_string();
        let url = format!("/api/v1/changes{}", query(&[("after", Some(&after)), ("wait_secs", Some(wait))]));
        let changes = match self.client.get::<Changes>(&url).await {
            Ok(page) => {
                self.after = page.next;
                page.changes
            }
            // The vault was put back to an older copy: everything may be another.
            Err(error) if error.code.as_deref() == Some("conflict") => {
                self.after = newest(&self.client).await?;
                *is_due = true;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        if let Some(change) = self.given.concerned(&changes) {
            output::say(&format!(
                "`{}` has changed in {}",
                output::printable(&change.path),
                change.environment
            ));
            *is_due = true;
        }
        if *is_due {
            self.act(&changes).await?;
            *is_due = false;
        }
        Ok(())
    }

    async fn act(&mut self, changes: &[Change]) -> Result<(), CliError> {
        if let OnChange::Signal(signal) = self.on_change {
            self.given.note(changes);
            output::say(&format!("`{}` gets {signal}", self.name));
            // When nobody listens any more, the program has ended.
            let _ = self.news.send(News::Changed).await;
            return Ok(());
        }
        match resolve_all(&self.client, &self.asks).await {
            Ok(Resolved { values, answers }) => {
                let given = Given::of(&self.asks, &answers);
                if given != self.given {
                    self.given = given;
                    output::say(&format!("`{}` is started anew with what it has now", self.name));
                    let _ = self.news.send(News::Values(values)).await;
                }
                Ok(())
            }
            Err(Failed::Missing(missing)) => {
                output::warn(&format!(
                    "`{}` goes on with the keys that it has, because there are no new ones:\n  {}",
                    self.name,
                    missing.join("\n  ")
                ));
                Ok(())
            }
            Err(Failed::Other(error)) => Err(error),
        }
    }
}

/// A server that cannot be asked: told once, tried again later and later, and told once when it is over.
#[derive(Default)]
struct Trouble {
    times: u32,
}

impl Trouble {
    async fn wait(&mut self, name: &str, error: &CliError) {
        if self.times == 0 {
            output::warn(&format!(
                "changes cannot be followed: {error}; `{name}` goes on with the keys that it has, and Keymoat tries again"
            ));
        }
        let wait =
            TRY_AGAIN_AFTER.saturating_mul(2u32.saturating_pow(self.times.min(16))).min(TRY_AGAIN_AFTER_MAX);
        self.times = self.times.saturating_add(1);
        tokio::time::sleep(wait).await;
    }

    fn is_over(&mut self) {
        if std::mem::take(&mut self.times) > 0 {
            output::say("changes are followed again");
        }
    }
}

/// What shells add to the number of the signal that ended a program.
const BY_SIGNAL: i32 = 128;
/// The layer whose answer is a company's own.
const COMPANY_LAYER: &str = "company";
/// As long as the server lets a request wait at most, so that a quiet vault is asked rarely.
const WAIT_SECS: &str = "60";
/// A server that restarts is back in less than a second.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// One that is away for long is not asked more often than this.
const TRY_AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_on_a_change() {
        let check =
            |text: &str, expected: Option<OnChange>| assert_eq!(text.parse().ok(), expected, "{text}");
        check("restart", Some(OnChange::Restart));
        check("signal=HUP", Some(OnChange::Signal(Signal::SIGHUP)));
        check("signal=SIGUSR1", Some(OnChange::Signal(Signal::SIGUSR1)));
        check("signal=hup", None);
        check("signal=", None);
        check("HUP", None);
    }

    #[test]
    fn changes_and_whether_they_concern_what_was_given() {
        let given = |asked_for: Option<&str>, company: Option<&str>| {
            Given(vec![GivenSecret {
                environment: "prod".to_owned(),
                path: "stripe".to_owned(),
                asked_for: asked_for.map(str::to_owned),
                company: company.map(str::to_owned),
                version: 3,
            }])
        };
        let check =
            |given: &Given, place: &str, company: Option<&str>, version: Option<u32>, expected: bool| {
                let (environment, path) = place.split_once('/').unwrap();
                let change = Change {
                    seq: 9,
                    environment: environment.to_owned(),
                    company: company.map(str::to_owned),
                    path: path.to_owned(),
                    version,
                };
                let is = given.concerned(std::slice::from_ref(&change)).is_some();
                assert_eq!(is, expected, "{given:?} {change:?}");
            };
        let shared = given(None, None);
        check(&shared, "prod/stripe", None, Some(4), true);
        check(&shared, "prod/stripe", None, Some(2), true);
        check(&shared, "prod/stripe", None, None, true);
        check(&shared, "prod/stripe", None, Some(3), false); // only what is said about it
        check(&shared, "prod/twilio", None, Some(4), false);
        check(&shared, "test/stripe", None, Some(4), false);
        check(&shared, "prod/stripe", Some("acme"), Some(1), false);
        let shared_for_acme = given(Some("acme"), None);
        check(&shared_for_acme, "prod/stripe", Some("acme"), Some(1), true); // its own comes first
        check(&shared_for_acme, "prod/stripe", Some("other"), Some(1), false);
        let acmes_own = given(Some("acme"), Some("acme"));
        check(&acmes_own, "prod/stripe", Some("acme"), Some(3), false);
        check(&acmes_own, "prod/stripe", Some("acme"), None, true);
    }

    #[test]
    fn ends_and_their_codes() {
        use std::os::unix::process::ExitStatusExt as _;
        for (raw, expected) in [(0, 0), (37 << 8, 37), (15, 143), (9, 137)] {
            assert_eq!(code_of(ExitStatus::from_raw(raw)), expected);
        }
    }
}
