//! `keymoat run --watch`: a real program is started anew when its key changes, and is left alone otherwise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use common::Home;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Says what happens to it, one datagram each. There must never be two of it.
const PROGRAM: &str = r#"
import fcntl, os, signal, socket, sys

def tell(text):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), "events")

if signal.pthread_sigmask(signal.SIG_BLOCK, []):
    tell("has signals blocked")
# Held back and waited for, so that none comes between looking and waiting.
signals = {signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
lock = open("lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    tell("is there twice")
open("pid", "w").write(str(os.getpid()))
tell("starts with %s of %d" % (os.environ["KEY"][-4:], len(os.environ["KEY"])))
while True:
    heard = signal.sigwait(signals)
    if heard == signal.SIGTERM and "stubborn" not in sys.argv:
        tell("ends")
        sys.exit(0)
    tell("hears " + signal.Signals(heard).name)
"#;

/// A home with a server, and the program under `run --watch`.
struct Watched {
    home: Home,
    events: UnixDatagram,
    run: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Watched {
    fn begin(home: Home, flags: &[&str], arguments: &[&str]) -> Self {
        home.put("prod", "stripe", "key", "made-up-value-0001");
        home.file("program.py", PROGRAM);
        let events = UnixDatagram::bind(home.path().join("events")).unwrap();
        // Far beyond anything a machine needs: a program that says nothing must not hold the tests up for ever.
        events.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let run = ["run", "--watch", "--env", "prod", "--no-env-file", "--map", "KEY=stripe#key"];
        let program = ["--", "python3", "program.py"];
        let mut command = home.command(&[&run[..], flags, &program, arguments].concat());
        let mut run =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(run.stderr.take().unwrap()).lines();
        let mut watched = Self { home, events, run, said };
        watched.expect(&["starts with 0001 of 18"]);
        watched
    }

    /// What happens next, in this order.
    #[track_caller]
    fn expect(&mut self, events: &[&str]) {
        for expected in events {
            let mut buffer = [0; 100];
            let read = self.events.recv(&mut buffer).unwrap_or_else(|e| panic!("{expected}: {e}"));
            assert_eq!(std::str::from_utf8(&buffer[..read]).unwrap(), *expected);
        }
    }

    /// Reads what Keymoat says until it says this.
    #[track_caller]
    fn says(&mut self, part: &str) {
        let mut lines = self.said.by_ref().map(|line| line.unwrap());
        assert!(lines.any(|line| line.contains(part)), "it ended without saying `{part}`");
    }

    fn put(&self, value: &str) {
        self.home.put("prod", "stripe", "key", value);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.run.id()).unwrap()), signal).unwrap();
    }

    fn ends_with(mut self, code: i32) {
        assert_eq!(self.run.wait().unwrap().code(), Some(code));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The program first, which would outlive Keymoat; both may have ended already.
        if let Ok(Ok(pid)) = std::fs::read_to_string(self.home.path().join("pid")).map(|pid| pid.parse()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.run.kill();
        let _ = self.run.wait();
    }
}

#[test]
fn a_new_value_starts_the_program_anew_and_nothing_else_does() {
    let home = Home::new();
    let _server = home.serve();
    let mut watched = Watched::begin(home, &[], &[]);
    watched.put("made-up-value-of-0002");
    watched.expect(&["ends", "starts with 0002 of 21"]);
    // What is said about it, and another secret, change nothing.
    watched.home.ok(&["annotate", "stripe", "--env", "prod", "--description", "made up"]);
    watched.home.put("prod", "twilio", "key", "made-up-value-9999");
    watched.put("made-up-value-0003");
    watched.expect(&["ends", "starts with 0003 of 18"]);
    watched.home.ok(&["rollback", "stripe", "--to", "2", "--env", "prod"]);
    watched.expect(&["ends", "starts with 0002 of 21"]);
    let done = watched.home.ok(&["audit", "query", "--action", "reveal", "--format", "json"]);
    let reveals: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(reveals.as_array().unwrap().len(), 4, "one for each start: {reveals}");
    watched.signal(Signal::SIGTERM);
    watched.expect(&["ends"]);
    watched.ends_with(0);
}

#[test]
fn a_program_that_does_not_end_is_killed_before_the_next_one_starts() {
    let home = Home::new();
    let _server = home.serve();
    let mut watched = Watched::begin(home, &["--grace", "1s"], &["stubborn"]);
    watched.put("made-up-value-0002");
    watched.expect(&["hears SIGTERM", "starts with 0002 of 18"]);
}

#[test]
fn a_program_that_reads_its_keys_itself_only_gets_a_signal() {
    let home = Home::new();
    let _server = home.serve();
    let mut watched = Watched::begin(home, &["--on-change", "signal=HUP"], &[]);
    watched.put("made-up-value-0002");
    watched.expect(&["hears SIGHUP"]);
    watched.put("made-up-value-0003");
    watched.expect(&["hears SIGHUP"]);
    watched.signal(Signal::SIGUSR1);
    watched.expect(&["hears SIGUSR1"]);
}

#[test]
fn a_key_that_is_gone_leaves_the_program_as_it_is() {
    let home = Home::new();
    let _server = home.serve();
    let mut watched = Watched::begin(home, &[], &[]);
    watched.home.ok(&["delete", "stripe", "--env", "prod"]);
    watched.says("goes on with the keys that it has");
    watched.signal(Signal::SIGUSR1);
    watched.expect(&["hears SIGUSR1"]);
    watched.put("made-up-value-0002");
    watched.expect(&["ends", "starts with 0002 of 18"]);
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    let home = Home::new();
    let server = home.serve();
    let mut watched = Watched::begin(home, &[], &[]);
    assert_eq!(server.interrupt(), 0);
    watched.says("changes cannot be followed");
    // Changed while the server was away from the program's point of view.
    watched.put("made-up-value-0002");
    let _server = watched.home.serve();
    watched.says("followed again");
    watched.expect(&["ends", "starts with 0002 of 18"]);
    watched.home.ok(&["seal"]);
    watched.says("sealed");
    watched.home.ok(&["unseal"]);
    watched.put("made-up-value-0003");
    watched.expect(&["ends", "starts with 0003 of 18"]);
}

#[test]
fn ends_are_the_programs_own() {
    let home = Home::new();
    let _server = home.serve();
    home.put("prod", "stripe", "key", "made-up-value-0001");
    #[track_caller]
    fn check(home: &Home, script: &str, code: i32) {
        let run = ["run", "--watch", "--env", "prod", "--no-env-file", "--map", "KEY=stripe#key", "--"];
        let done = home.run_with_stdin(&[&run[..], &["sh", "-c", script]].concat(), "through and through");
        assert_eq!(done.code, code, "{script}: {done:?}");
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("through and through", ""), "{script}");
    }
    check(&home, "cat; exit 37", 37);
    check(&home, "cat; kill -TERM $$", 128 + 15);
    check(&home, "cat; kill -KILL $$", 128 + 9);
    check(&home, "cat; env | grep -q ^KEYMOAT_ && exit 1; exit 0", 0);
}

#[test]
fn there_must_be_something_to_watch() {
    let home = Home::with_vault();
    home.put("prod", "stripe", "key", "made-up-value-0001");
    let done = home.run(&["run", "--watch", "--env", "prod", "--map", "KEY=stripe#key", "--", "true"]);
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.stderr.contains("--watch follows a server"), "{done:?}");
    let done = home.run(&["run", "--watch", "--env", "prod", "--", "true"]);
    assert!(done.code == 125 && done.stderr.contains("nothing to watch"), "{done:?}");
    let done = home.run(&["run", "--grace", "3s", "--", "true"]);
    assert_eq!(done.code, 125, "{done:?}");
}

/// Opens a terminal for `run --watch`, presses Ctrl-C when the program has started, and ends it. The program says how
/// often it heard of it.
const TERMINAL: &str = r#"
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
def until(text):
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 1000)
until(b"ready")
os.write(terminal, b"\x03")
until(b"interrupted")
os.kill(pid, signal.SIGTERM)
until(b"heard 1")
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

#[test]
fn a_terminals_ctrl_c_reaches_the_program_once() {
    let home = Home::new();
    let _server = home.serve();
    home.put("prod", "stripe", "key", "made-up-value-0001");
    home.file("terminal.py", TERMINAL);
    home.file(
        "program.py",
        "import os, signal, sys\n\
         assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\n\
         signals = {signal.SIGINT, signal.SIGTERM}\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, signals)\n\
         assert os.tcgetpgrp(0) == os.getpgrp()\n\
         print('ready', flush=True)\n\
         count = 0\n\
         while signal.sigwait(signals) == signal.SIGINT:\n    count += 1\n    print('interrupted', flush=True)\n\
         print('heard', count, flush=True)\n\
         sys.exit(7)\n",
    );
    let mut command = std::process::Command::new("python3");
    command.args(["terminal.py", env!("CARGO_BIN_EXE_keymoat")]);
    command.args(["run", "--watch", "--env", "prod", "--no-env-file", "--map", "KEY=stripe#key"]);
    command.args(["--", "python3", "program.py"]);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", home.path());
    let done = common::done(command.current_dir(home.path()).stdin(Stdio::null()).output().unwrap());
    assert_eq!(done.code, 7, "{done:?}");
}
