//! `keymoat run`: a real program gets its keys, and is left alone otherwise.

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use common::{Home, feed};

const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatShop";

fn shop() -> Home {
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", STRIPE);
    home.file(".env", "DEBUG=False\nSTRIPE_SECRET_KEY=keymoat://prod/stripe#secret_key\n");
    home
}

#[test]
fn the_program_sees_its_keys_and_nothing_of_keymoat() {
    let home = shop();
    let mut command = home.command(&["run", "--env", "prod", "--", "env"]);
    command.env("KEYMOAT_MODULE", "shop").env("OWN", "kept").stdin(Stdio::null());
    let done = common::done(command.output().unwrap());
    assert_eq!(done.code, 0, "{done:?}");
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines.contains(&format!("STRIPE_SECRET_KEY={STRIPE}").as_str()), "{lines:?}");
    assert!(lines.contains(&"DEBUG=False") && lines.contains(&"OWN=kept"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("KEYMOAT_")), "{lines:?}");
    assert_eq!(done.stderr, "");
}

#[test]
fn exit_code_stdin_and_signals_are_the_programs_own() {
    let home = shop();
    let exits = home.run(&["run", "--env", "prod", "--", "sh", "-c", "exit 37"]);
    assert_eq!(exits.code, 37);

    let cat = feed(home.command(&["run", "--env", "prod", "--", "cat"]), "through and through");
    assert_eq!(cat.stdout, "through and through");

    let mut command = home.command(&["run", "--env", "prod", "--", "sh", "-c", "kill -TERM $$"]);
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert_eq!(status.signal(), Some(15));
}

#[test]
fn a_terminal_stays_a_terminal() {
    let home = shop();
    let program = env!("CARGO_BIN_EXE_keymoat");
    // `script` gives its child a terminal of its own.
    let inner = format!("{program} run --env prod -- sh -c 'test -t 0 && test -t 1 && echo yes'");
    let mut command = std::process::Command::new("script");
    command
        .args(["-qec", &inner, "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path());
    command.current_dir(home.path()).stdin(Stdio::null());
    match command.output() {
        Err(_) => eprintln!("SKIP a_terminal_stays_a_terminal: `script` is not installed"),
        Ok(output) => assert!(String::from_utf8_lossy(&output.stdout).contains("yes"), "{output:?}"),
    }
}

#[test]
fn nothing_starts_unless_every_key_is_there() {
    let home = shop();
    home.file(
        ".env",
        "STRIPE_SECRET_KEY=keymoat:stripe#secret_key\nA=keymoat:nowhere#x\nB=keymoat:stripe#nothing\n",
    );
    let done = home.run(&["run", "--env", "prod", "--", "touch", "started"]);
    assert_eq!(done.code, 125);
    for part in ["A:", "keymoat:nowhere#x", "B:", "looked in", "prod"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    assert!(!done.stderr.contains("STRIPE_SECRET_KEY:"), "{}", done.stderr);
    assert!(!home.path().join("started").exists());
}

#[test]
fn codes_of_its_own_are_those_of_env() {
    let home = shop();
    home.file("not-a-program", "");
    #[track_caller]
    fn check(home: &Home, arguments: &[&str], code: i32, says: &str) {
        let done = home.run(arguments);
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stderr.contains(says), "{done:?}");
    }
    check(&home, &["run", "--env", "prod", "--", "no-such-program"], 127, "no-such-program");
    check(&home, &["run", "--env", "prod", "--", "./not-a-program"], 126, "not-a-program");
    check(
        &home,
        &["run", "--env", "prdo", "--map", "X=stripe#secret_key", "--no-env-file", "--", "true"],
        125,
        "prod",
    );
    check(&home, &["run", "--no-env-file", "--map", "X=stripe#secret_key", "--", "true"], 125, "--env");
    check(&home, &["run", "--env", "dev", "--", "true"], 125, "prod");
    check(&home, &["run", "--env", "prod", "--env-file", "gone", "--", "true"], 125, "gone");
}

#[test]
fn a_reference_in_the_callers_own_environment_is_resolved_only_when_asked() {
    let home = shop();
    let mut command = home.command(&["run", "--env", "prod", "--no-env-file", "--", "printenv", "KEY"]);
    let refused =
        common::done(command.env("KEY", "keymoat:stripe#secret_key").stdin(Stdio::null()).output().unwrap());
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("--expand-env"), "{refused:?}");

    let mut command =
        home.command(&["run", "--env", "prod", "--no-env-file", "--expand-env", "--", "printenv", "KEY"]);
    let resolved =
        common::done(command.env("KEY", "keymoat:stripe#secret_key").stdin(Stdio::null()).output().unwrap());
    assert_eq!(resolved.stdout, format!("{STRIPE}\n"), "{resolved:?}");
}

#[test]
fn a_variable_of_the_caller_stands_in_as_the_secret_says() {
    #[track_caller]
    fn check(home: &Home, rule: &str, code: i32, stdout: &str, stderr: &str) {
        home.ok(&["annotate", "stripe", "--env", "prod", "--env-override", rule]);
        let mut command = home.command(&["run", "--env", "prod", "--", "printenv", "STRIPE_SECRET_KEY"]);
        let done = common::done(
            command.env("STRIPE_SECRET_KEY", "of my own").stdin(Stdio::null()).output().unwrap(),
        );
        assert_eq!((done.code, done.stdout.as_str()), (code, stdout), "{rule}: {done:?}");
        assert!(done.stderr.contains(stderr), "{rule}: {done:?}");
    }
    let home = shop();
    check(&home, "allow", 0, "of my own\n", "");
    check(&home, "warn", 0, "of my own\n", "stands in");
    check(&home, "deny", 125, "", "unset it");
}

#[test]
fn every_start_is_on_record() {
    let home = shop();
    let mut command = home.command(&["run", "--env", "prod", "--", "true"]);
    assert!(command.env("KEYMOAT_MODULE", "payment").stdin(Stdio::null()).status().unwrap().success());
    let done = home.ok(&["audit", "query", "--path", "stripe", "--action", "reveal", "--format", "json"]);
    let events: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let event = &events[0];
    assert_eq!(event["event"]["module"], "payment");
    assert_eq!(event["event"]["result"], "allowed");
    assert_eq!(event["event"]["field"], "secret_key");
    assert_eq!(event["event"]["version"], 1);
    assert!(event["actor_name"].as_str().unwrap().starts_with("os:"));
}
