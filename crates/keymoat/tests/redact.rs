//! `keymoat redact` as a filter: what passes, when, and what happens when the vault cannot be asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use common::Home;

const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatTest";
const STORED: &str = "xK9#mP2$vL8@nQ5!Ab";

/// The filter with pipes on both ends.
struct Filter(Child);

impl Filter {
    fn begin(home: &Home, arguments: &[&str]) -> Self {
        let mut command = home.command(&[&["redact"], arguments].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn write(&mut self, text: &str) {
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }

    /// Waits for exactly so much.
    #[track_caller]
    fn gives(&mut self, expected: &str) {
        let mut given = vec![0; expected.len()];
        self.0.stdout.as_mut().unwrap().read_exact(&mut given).unwrap();
        assert_eq!(String::from_utf8_lossy(&given), expected);
    }

    /// Its exit code, and what it said, after the end of its input.
    fn ends(mut self) -> (i32, String) {
        drop(self.0.stdin.take());
        let out = self.0.wait_with_output().unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

#[test]
fn keys_go_and_everything_else_passes() {
    let home = Home::new();
    let text = format!("one\r\nkey={STRIPE}&x=1\n\0\u{7f} no newline");
    let done = home.run_with_stdin(&["redact"], &text);
    assert_eq!(done.stdout, text.replace(STRIPE, "[redacted:stripe/live_secret]"), "{done:?}");
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(home.run_with_stdin(&["redact"], "").stdout, "");
}

#[test]
fn a_line_passes_at_once_and_a_prompt_a_moment_later() {
    let mut filter = Filter::begin(&Home::new(), &[]);
    filter.write("first\nsec");
    filter.gives("first\n");
    filter.write(&format!("ond {STRIPE}\nworking "));
    filter.gives("second [redacted:stripe/live_secret]\nworking ");
    filter.write("and done");
    filter.gives("and ");
    assert_eq!(filter.ends().0, 0);
}

#[test]
fn who_reads_no_more_ends_it_quietly() {
    let mut filter = Filter::begin(&Home::new(), &[]);
    drop(filter.0.stdout.take());
    // It may have ended before all of this is written.
    let _ = filter.0.stdin.as_mut().unwrap().write_all(&b"a line\n".repeat(100_000));
    assert_eq!(filter.ends(), (0, String::new()));
}

#[test]
fn stored_values_go_while_the_server_runs_and_nothing_passes_when_it_does_not() {
    let home = Home::with_vault();
    let server = home.serve();
    home.put("prod", "erp", "password", STORED);
    let mut filter = Filter::begin(&home, &["--env", "prod"]);
    let encoded = "eEs5I21QMiR2TDhAblE1IUFi";
    filter.write(&format!("a {STORED} b {encoded} c {STRIPE}\n"));
    filter.gives("a [redacted:stored-value] b [redacted:stored-value] c [redacted:stripe/live_secret]\n");
    let staging = home.run_with_stdin(&["redact", "--no-vault"], STORED);
    assert_eq!((staging.stdout.as_str(), staging.code), (STORED, 0));
    drop(server);
    // Every candidate has to be asked for now.
    filter.write(&format!("a {STORED} b\n"));
    let (code, said) = filter.ends();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("cannot be asked for stored values"), "{said}");
    let named = home.run_with_stdin(&["redact", "--env", "prod"], "a line\n");
    assert_eq!((named.code, named.stdout.as_str()), (2, ""), "{named:?}");
    assert!(named.stderr.contains("--no-vault"), "{named:?}");
}
