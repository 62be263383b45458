//! `keymoat doctor`, on machines that are in order and machines that are not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::Home;

/// The level of a finding, by what was looked at.
#[track_caller]
fn level(home: &Home, check: &str) -> String {
    let done = home.run(&["doctor", "--format", "json"]);
    let findings: Vec<serde_json::Value> = serde_json::from_str(&done.stdout).unwrap();
    let is_bad = findings.iter().any(|finding| finding["level"] == "bad");
    assert_eq!(done.code, i32::from(is_bad), "{done:?}");
    let levels = ["bad", "warn", "ok"].into_iter();
    let has =
        |level: &&str| findings.iter().any(|finding| finding["check"] == check && finding["level"] == *level);
    levels.clone().find(has).unwrap_or_else(|| panic!("nothing on {check}: {findings:#?}")).to_owned()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn key_file(home: &Home) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(home.config()).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.extension().is_some_and(|extension| extension == "key")).unwrap()
}

#[test]
fn without_a_vault_it_checks_what_it_can() {
    let home = Home::new();
    let done = home.ok(&["doctor"]);
    assert!(done.stdout.contains("there is no vault") && done.stdout.contains("core dumps"), "{done:?}");
    assert_eq!(level(&home, "vault"), "warn");
}

#[test]
fn a_new_vault_has_nothing_bad() {
    let home = Home::with_vault();
    let done = home.ok(&["doctor"]);
    assert!(done.stderr.contains("0 bad"), "{done:?}");
    for (check, expected) in [
        ("vault", "ok"),
        ("clock", "ok"),
        ("checkpoint", "ok"),
        ("data directory", "ok"),
        ("master key", "ok"),
        ("key and data", "warn"),
        ("key slots", "warn"),
        ("owners", "ok"),
        ("tokens", "ok"),
        ("sign-in codes", "warn"),
    ] {
        assert_eq!(level(&home, check), expected, "{check}");
    }
    home.ok(&["rekey", "add-slot", "--source", "shamir"]);
    assert_eq!(level(&home, "key slots"), "ok");
    home.ok(&["account", "add", "ana", "--kind", "user", "--policy", "owner"]);
    assert_eq!(level(&home, "owners"), "warn");
    home.ok(&["token", "create", "ana", "--ttl", "180d"]);
    assert_eq!(level(&home, "tokens"), "warn");
}

#[test]
fn a_running_server_is_looked_at_too() {
    let home = Home::with_vault();
    let server = home.serve();
    assert_eq!(level(&home, "network"), "ok");
    assert_eq!(level(&home, "vault"), "ok");
    assert_eq!(level(&home, "metrics"), "ok");
    assert_eq!(server.interrupt(), 0);
    let server = home.serve_with(&["--open-metrics"]);
    assert_eq!(level(&home, "metrics"), "warn");
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn open_files_are_bad() {
    let home = Home::with_vault();
    set_mode(&home.data(), 0o755);
    assert_eq!(level(&home, "data directory"), "bad");
    set_mode(&home.data(), 0o700);
    let checkpoint = key_file(&home).with_extension("checkpoint");
    set_mode(&checkpoint, 0o666);
    assert_eq!(level(&home, "checkpoint"), "bad");
    set_mode(&checkpoint, 0o600);
    let key = key_file(&home);
    set_mode(&key, 0o644);
    assert_eq!(level(&home, "master key"), "bad");
    assert_eq!(level(&home, "vault"), "bad");
    set_mode(&key, 0o600);
    assert_eq!(level(&home, "master key"), "ok");
}

#[test]
fn keys_in_env_files_are_found() {
    let home = Home::new();
    let env = home.file(".env", "STRIPE_API_KEY=sk_live_51MadeUpExample0000KeymoatShop\n");
    set_mode(&env, 0o644);
    assert_eq!(level(&home, ".env files"), "bad");
    let done = home.run(&["doctor"]);
    assert!(!done.stdout.contains("sk_live"), "{done:?}");
    set_mode(&env, 0o600);
    assert_eq!(level(&home, ".env files"), "warn");
    home.file(".env", "STRIPE_API_KEY=keymoat://prod/stripe#secret_key\n");
    assert_eq!(level(&home, ".env files"), "ok");
}
