//! Issued keys from the command line, as an administrator uses it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Done, Home};

fn json(done: &Done) -> serde_json::Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"))
}

#[test]
fn a_key_is_issued_shown_rerolled_verified_and_revoked() {
    let home = Home::with_vault();
    let _server = home.serve();
    let made = home.ok(&[
        "key",
        "issue",
        "--owner",
        "odoo:res.users:42",
        "--scope",
        "orders.read",
        "--env",
        "prod",
        "--expires",
        "90d",
        "--rate",
        "100/1s,10000/1d",
        "--allow",
        "127.0.0.0/8",
    ]);
    let key = made.stdout.trim().to_owned();
    assert!(key.starts_with("km_prod_") && !made.stderr.contains(&key), "{made:?}");
    let verify = |key: &str, more: &[&str]| home.run_with_stdin(&[&["key", "verify"], more].concat(), key);

    // A list of addresses lets nobody in of whom it is not known where he is.
    let unknown = verify(&key, &[]);
    assert_eq!((unknown.code, unknown.stdout.split(' ').next()), (1, Some("IP_NOT_ALLOWED")), "{unknown:?}");
    let from = ["--client-ip", "127.0.0.1", "--scopes", "orders.read"];
    let good = verify(&key, &from);
    assert_eq!((good.code, good.stdout.split(' ').next()), (0, Some("VALID")), "{good:?}");
    let other = verify(&key, &["--client-ip", "127.0.0.1", "--scopes", "orders.write"]);
    assert_eq!(other.code, 1, "{other:?}");

    let list = home.ok(&["key", "list"]);
    let id = json(&home.ok(&["key", "list", "--format", "json"]))[0]["id"].as_str().unwrap().to_owned();
    let last_four = &key[key.len() - 4..];
    for wanted in ["km_prod_…", last_four, "odoo:res.users:42", "127.0.0.1", "active", &id] {
        assert!(list.stdout.contains(wanted), "{wanted}: {list:?}");
    }
    assert!(!list.stdout.contains(&key[8..]));

    let rerolled = home.ok(&["key", "reroll", &id, "--overlap", "24h"]);
    assert!(rerolled.stderr.contains("127.0.0.1"), "who still uses the old one is told: {rerolled:?}");
    let new = rerolled.stdout.trim().to_owned();
    assert_eq!((verify(&key, &from).code, verify(&new, &from).code), (0, 0));
    assert_eq!(json(&home.ok(&["key", "show", &id, "--format", "json"]))["usage"]["allowed"], 2);

    let code = home.ok(&["key", "issue", "--owner", "partner", "--env", "prod", "--one-time"]);
    let fetched = home.run_with_stdin(&["key", "fetch"], &code.stdout);
    assert!(fetched.stdout.starts_with("km_prod_"), "{fetched:?}");
    assert_eq!(verify(&fetched.stdout, &[]).code, 0);
    assert_eq!(home.run_with_stdin(&["key", "fetch"], &code.stdout).code, 1);

    home.ok(&["key", "revoke", &id, "--reason", "superseded"]);
    let revoked = verify(&key, &[&from[..], &["--format", "json"]].concat());
    assert_eq!((revoked.code, json(&revoked)["code"].as_str()), (1, Some("REVOKED")), "{revoked:?}");
    assert_eq!(verify(&new, &from).code, 0);
    home.ok(&["key", "owner", "odoo:res.users:42", "--inactive"]);
    assert!(verify(&new, &from).stdout.starts_with("OWNER_INACTIVE"));
    home.ok(&["key", "space", "put", "default", "--owner-inactive", "allow", "--role", "clerk=orders.*"]);
    assert_eq!(verify(&new, &from).code, 0);
    let audit = home.ok(&["audit", "tail"]);
    for done in ["key_issue", "key_reroll", "key_revoke", "key_verify"] {
        assert!(audit.stdout.contains(done), "{done}: {audit:?}");
    }
}
