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
    for part in ["A (.env, line 2):", "keymoat:nowhere#x", "B (.env, line 3):", "looked in", "prod"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    assert!(!done.stderr.contains("STRIPE_SECRET_KEY"), "{}", done.stderr);
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

#[test]
fn what_keeps_a_program_from_its_start_is_said_with_its_place() {
    #[track_caller]
    fn check(file: &str, arguments: &[&str], says: &[&str], not: &[&str]) {
        let home = shop();
        home.file("shop.env", file);
        let arguments = [&["run", "--env-file", "shop.env"], arguments, &["--", "touch", "started"]].concat();
        let done = home.run(&arguments);
        assert_eq!(done.code, 125, "{done:?}");
        for part in says {
            assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        }
        for part in not {
            assert!(!done.stderr.contains(part), "{part}: {}", done.stderr);
        }
        assert!(!home.path().join("started").exists());
    }
    let prod = "A=1\nKEY=keymoat://prod/stripe#secret_key\nHOOK=keymoat://prod/stripe#webhook\n";
    check(
        prod,
        &["--env", "staging"],
        &[
            "the references are all to `prod`, and you asked for `staging`",
            "KEY (shop.env, line 2)",
            "HOOK (shop.env, line 3)",
            "`keymoat run --env prod -- CMD`",
        ],
        &["ask in"],
    );
    check(prod, &["--env", "nope"], &["you asked for `nope`"], &[]);
    let mixed = "KEY=keymoat://prod/stripe#secret_key\nB=keymoat:stripe#secret_key\n";
    check(mixed, &["--env", "staging"], &["these are elsewhere", "KEY (shop.env, line 1)"], &["B ("]);
    check("A=1\nB=keymoat:Bad//x\n", &["--env", "prod"], &["shop.env, line 2: the reference of `B`"], &[]);
    check("A=1\nB='x\n", &["--env", "prod"], &["`shop.env`, line 2"], &[]);
    check("A=keymoat:nope#x\n", &["--env", "prod"], &["`keymoat which NAME --env prod`"], &[]);
    check("A=1\n", &["--env", "prod", "--map", "X"], &["VAR=PATH#FIELD", "such as"], &[]);
    check("A=keymoat:stripe#secret_key\n", &["--env", "prod", "--order", "up"], &["resolution order"], &[]);
}

#[test]
fn the_companys_own_value_answers_where_the_order_says_so() {
    let home = shop();
    home.ok(&["company", "add", "acme"]);
    let put = ["put", "stripe", "secret_key=-", "--env", "prod", "--company", "acme"];
    assert_eq!(home.run_with_stdin(&put, "sk_live_51MadeUpExample0000KeymoatAcme").code, 0);
    #[track_caller]
    fn check(home: &Home, more: &[&str], ends: &str, says: bool) {
        let map = ["--no-env-file", "--map", "KEY=stripe#secret_key", "--env", "prod"];
        let done = home.ok(&[&["run"], &map[..], more, &["--", "printenv", "KEY"]].concat());
        assert!(done.stdout.trim_end().ends_with(ends), "{done:?}");
        assert_eq!(done.stderr.contains("--order environment,company,stored"), says, "{done:?}");
        let which = home.ok(&[&["which", "stripe#secret_key", "--env", "prod"], more].concat());
        assert_eq!(which.stderr.contains("--order environment,company,stored"), says, "{which:?}");
    }
    check(&home, &[], "KeymoatShop", false);
    check(&home, &["--company", "acme"], "KeymoatShop", true);
    check(&home, &["--company", "acme", "--order", "environment,company,stored"], "KeymoatAcme", false);
}

#[test]
fn a_path_is_answered_by_the_variables_that_stand_for_it() {
    let home = shop();
    let which = |set: Option<&str>| {
        let mut command = home.command(&["which", "stripe#secret_key", "--env", "prod", "--format", "json"]);
        if let Some(name) = set {
            command.env(name, "of my own");
        }
        let done = common::done(command.stdin(Stdio::null()).output().unwrap());
        let answer: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        let winner = &answer["steps"][answer["winner"].as_u64().unwrap() as usize - 1];
        assert_eq!(winner["number"], answer["winner"]);
        assert_eq!(winner["outcome"], "answers");
        assert!(!done.stdout.contains("of my own"), "{done:?}");
        (winner["layer"].clone(), winner["variable"].clone())
    };
    assert_eq!(which(None).0, "stored");
    assert_eq!(which(Some("PATH")).0, "stored");
    assert_eq!(which(Some("STRIPE_SECRET_KEY")), ("environment".into(), "STRIPE_SECRET_KEY".into()));
}
