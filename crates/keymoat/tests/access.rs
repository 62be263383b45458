//! Accounts, policies, grants and tokens from the command line: who may, who may not, and what is said.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Done, Home, done, feed};

const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatShop";
const TWILIO: &str = "0000b1c2d3e4f5061728394a5b6c7d8e";

fn shop() -> Home {
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", STRIPE);
    home.put("prod", "twilio", "auth_token", TWILIO);
    home
}

/// Runs a command as whoever has the token.
fn with_token(home: &Home, token: &str, arguments: &[&str]) -> Done {
    let mut command = home.command(arguments);
    command.env("KEYMOAT_TOKEN", token);
    done(command.output().unwrap())
}

fn token_of(home: &Home, account: &str, more: &[&str]) -> String {
    let arguments = [&["token", "create", account], more].concat();
    let made = home.ok(&arguments);
    let lines: Vec<&str> = made.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{made:?}");
    // People's tokens begin otherwise than those of programs.
    assert!(lines[0].starts_with("kms_") || lines[0].starts_with("kmr_"), "{made:?}");
    assert!(!made.stderr.contains(lines[0]), "{made:?}");
    lines[0].to_owned()
}

fn json(done: &Done) -> serde_json::Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"))
}

#[track_caller]
fn refused(done: &Done) {
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stdout.is_empty(), "{done:?}");
    assert!(done.stderr.starts_with("error: "), "{done:?}");
}

#[test]
fn a_service_account_reads_its_path_and_nothing_else() {
    let home = shop();
    home.ok(&["policy", "put", "odoo", "--allow", "reveal,list,inspect", "--on", "prod/stripe"]);
    home.ok(&["account", "add", "odoo", "--kind", "service-account", "--policy", "odoo"]);
    let token = token_of(&home, "odoo", &["--ttl", "1h"]);

    let revealed = with_token(&home, &token, &["reveal", "stripe#secret_key", "--env", "prod"]);
    assert_eq!((revealed.code, revealed.stdout.trim()), (0, STRIPE), "{revealed:?}");
    let listed = with_token(&home, &token, &["list", "--env", "prod"]);
    assert!(listed.stdout.contains("stripe") && !listed.stdout.contains("twilio"), "{listed:?}");
    for forbidden in [
        &["reveal", "twilio#auth_token", "--env", "prod"][..],
        &["get", "twilio", "--env", "prod"],
        &["delete", "stripe", "--env", "prod"],
        &["account", "list"],
        &["policy", "put", "more", "--allow", "reveal", "--on", "prod/**"],
        &["token", "create", "odoo"],
        &["grant", "add", "odoo", "--allow", "reveal", "--on", "prod/**", "--for", "1h", "--reason", "more"],
        &["audit", "query"],
        &["rekey", "list"],
        &["backup", "stolen.backup"],
    ] {
        let answer = with_token(&home, &token, forbidden);
        refused(&answer);
        assert!(!answer.stderr.contains(TWILIO), "{answer:?}");
    }
    assert!(!home.path().join("stolen.backup").exists());
    let log = home.ok(&["audit", "query", "--path", "twilio", "--format", "json"]);
    assert!(log.stdout.contains("\"refused\"") && log.stdout.contains("odoo"), "{log:?}");
}

#[test]
fn a_vendor_has_what_a_grant_gives_until_it_ends() {
    let home = shop();
    home.ok(&["account", "add", "vendor", "--kind", "user", "--description", "repairs the shop"]);
    let token = token_of(&home, "vendor", &[]);
    let read = ["reveal", "stripe#secret_key", "--env", "prod"];
    refused(&with_token(&home, &token, &read));

    let add = [
        "grant",
        "add",
        "vendor",
        "--allow",
        "reveal",
        "--on",
        "prod/stripe",
        "--for",
        "8h",
        "--reason",
        "repairs",
    ];
    let grant = json(&home.ok(&[&add[..], &["--format", "json"]].concat()));
    assert_eq!(grant["state"], "active");
    assert_eq!(with_token(&home, &token, &read).stdout.trim(), STRIPE);
    refused(&with_token(&home, &token, &["reveal", "twilio#auth_token", "--env", "prod"]));

    let listed = home.ok(&["grant", "list", "--account", "vendor"]);
    assert!(
        listed.stdout.contains("reveal on prod/stripe") && listed.stdout.contains("repairs"),
        "{listed:?}"
    );
    home.ok(&["grant", "revoke", grant["id"].as_str().unwrap()]);
    refused(&with_token(&home, &token, &read));

    let once = [&add[..], &["--uses", "1"]].concat();
    home.ok(&once);
    assert_eq!(with_token(&home, &token, &read).code, 0);
    refused(&with_token(&home, &token, &read));
}

#[test]
fn wrong_grants_are_refused_with_a_sentence() {
    let home = shop();
    home.ok(&["account", "add", "vendor", "--kind", "user"]);
    let check = |more: &[&str], says: &str| {
        let answer = home.run(&[&["grant", "add", "vendor"], more].concat());
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(says), "{says}: {answer:?}");
    };
    let place = ["--allow", "reveal", "--on", "prod/stripe"];
    check(&[&place[..], &["--for", "400d", "--reason", "x"]].concat(), "90 days");
    check(&[&place[..], &["--for", "8 hours", "--reason", "x"]].concat(), "8h");
    check(&["--for", "8h", "--reason", "x"], "--allow");
    check(&["--allow", "reveal", "--on", "prod", "--for", "8h", "--reason", "x"], "ENV/PATH");
    check(&["--allow", "revael", "--on", "prod/a", "--for", "8h", "--reason", "x"], "`reveal`");
}

#[test]
fn policies_are_written_shown_explained_and_removed() {
    let home = shop();
    let document = "name = 'shop'\ndescription = 'the shop'\n[[rules]]\ncapabilities = ['reveal']\nenvironments = ['prod']\npaths = ['stripe']\n";
    let file = home.file("shop.toml", document);
    home.ok(&["policy", "put", file.to_str().unwrap()]);
    let shown = home.ok(&["policy", "show", "shop"]);
    assert!(shown.stdout.contains("name = \"shop\"") && shown.stdout.contains("stripe"), "{shown:?}");
    let again = feed(home.command(&["policy", "put", "-"]), &shown.stdout);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(home.ok(&["policy", "show", "shop"]).stdout, shown.stdout);
    let as_json = feed(home.command(&["policy", "put", "-"]), "{\"name\":\"other\",\"rules\":[]}");
    assert_eq!(as_json.code, 0, "{as_json:?}");
    assert!(home.ok(&["policy", "list"]).stdout.contains("other"));

    home.ok(&["account", "add", "odoo", "--kind", "service-account", "--policy", "shop"]);
    let yes = home.ok(&["policy", "explain", "odoo", "reveal", "prod/stripe"]);
    assert!(yes.stdout.contains("allowed") && yes.stdout.contains("policy:shop"), "{yes:?}");
    let no = home.run(&["policy", "explain", "odoo", "reveal", "prod/twilio"]);
    assert_eq!(no.code, 1, "{no:?}");
    assert!(no.stdout.contains("refused") && no.stdout.contains("other paths"), "{no:?}");

    refused(&home.run(&["policy", "remove", "shop"]));
    home.ok(&["account", "update", "odoo", "--remove-policy", "shop", "--add-policy", "other"]);
    home.ok(&["policy", "remove", "shop"]);
    let account = json(&home.ok(&["account", "show", "odoo", "--format", "json"]));
    assert_eq!(account["policies"], serde_json::json!(["other"]));
}

#[test]
fn a_mistake_in_a_document_is_said_with_its_line() {
    let home = Home::new();
    let check = |document: &str, says: &str| {
        let answer = feed(home.command(&["policy", "put", "-"]), document);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(says), "{says}: {answer:?}");
    };
    check("name = 'odoo'\nrules = 3\n", "line 2");
    check("{\"name\":", "line 1");
    check("", "name");
    let missing = home.run(&["policy", "put", "nowhere.toml"]);
    assert!(missing.code == 2 && missing.stderr.contains("--allow"), "{missing:?}");
}

#[test]
fn tokens_end_are_counted_and_renewed() {
    let home = shop();
    home.ok(&["policy", "put", "odoo", "--allow", "reveal", "--on", "prod/stripe"]);
    home.ok(&["account", "add", "odoo", "--kind", "service-account", "--policy", "odoo"]);
    let read = ["reveal", "stripe#secret_key", "--env", "prod"];

    let twice = token_of(&home, "odoo", &["--uses", "2"]);
    assert_eq!(with_token(&home, &twice, &read).code, 0);
    assert_eq!(with_token(&home, &twice, &read).code, 0);
    refused(&with_token(&home, &twice, &read));

    let renewable = token_of(&home, "odoo", &["--ttl", "1h", "--renewable", "2d", "--description", "shop"]);
    let renewed = with_token(&home, &renewable, &["token", "renew"]);
    assert!(renewed.code == 0 && renewed.stdout.contains("is good until"), "{renewed:?}");
    let fixed = token_of(&home, "odoo", &["--ttl", "1h"]);
    assert_eq!(with_token(&home, &fixed, &["token", "renew"]).code, 2);
    assert_eq!(home.run(&["token", "renew"]).code, 2);

    let tokens = json(&home.ok(&["token", "list", "--account", "odoo", "--format", "json"]));
    let tokens = tokens.as_array().unwrap();
    assert!(!tokens.iter().any(|token| token.to_string().contains(&renewable)), "{tokens:?}");
    let id = tokens.iter().find(|token| token["description"] == "shop").unwrap()["id"].as_str().unwrap();
    assert_eq!(with_token(&home, &renewable, &read).code, 0);
    home.ok(&["token", "revoke", id]);
    refused(&with_token(&home, &renewable, &read));
    assert!(home.ok(&["token", "list"]).stdout.contains("odoo"));

    let issued =
        json(&home.ok(&["token", "create", "odoo", "--format", "json", "--network", "192.0.2.0/24"]));
    assert!(issued["token"].as_str().unwrap().starts_with("kms_"));
    assert_eq!(issued["about"]["networks"], serde_json::json!(["192.0.2.0/24"]));
    assert_eq!(home.run(&["token", "create", "odoo", "--network", "everywhere"]).code, 2);
    assert_eq!(home.run(&["token", "create", "odoo", "--ttl", "20y"]).code, 2);
    refused(&home.run(&["token", "create", "nobody"]));
}

#[test]
fn accounts_come_change_and_leave() {
    let home = shop();
    home.ok(&["policy", "put", "readers", "--allow", "reveal", "--on", "prod/**"]);
    home.ok(&["account", "add", "team", "--kind", "group", "--policy", "readers"]);
    home.ok(&[
        "account",
        "add",
        "ana",
        "--kind",
        "user",
        "--group",
        "team",
        "--description",
        "pays the bills",
    ]);
    let shown = home.ok(&["account", "show", "ana"]);
    assert!(shown.stdout.contains("pays the bills") && shown.stdout.contains("team"), "{shown:?}");
    refused(&home.run(&["account", "add", "ana", "--kind", "user"]));
    assert_eq!(home.run(&["account", "add", "os:ana", "--kind", "user"]).code, 2);
    assert_eq!(home.run(&["account", "update", "ana"]).code, 2);

    let token = token_of(&home, "ana", &[]);
    let read = ["reveal", "stripe#secret_key", "--env", "prod"];
    assert_eq!(with_token(&home, &token, &read).code, 0);
    home.ok(&["account", "update", "ana", "--deactivate"]);
    refused(&with_token(&home, &token, &read));
    home.ok(&["account", "update", "ana", "--activate", "--description", "paid the bills"]);
    assert_eq!(with_token(&home, &token, &read).code, 0);

    let left = home.ok(&["account", "leave", "ana"]);
    assert!(left.stderr.contains("1 token(s)") && left.stdout.contains("prod/stripe"), "{left:?}");
    assert!(!left.stdout.contains("twilio"), "{left:?}");
    refused(&with_token(&home, &token, &read));
    assert!(home.ok(&["account", "list"]).stdout.contains("inactive"));
    let asked = home.run(&["account", "remove", "ana"]);
    assert!(asked.code == 1 && asked.stderr.contains("--yes"), "{asked:?}");
    home.ok(&["account", "show", "ana"]);
    home.ok(&["account", "remove", "ana", "--yes"]);
    let gone = home.run(&["account", "show", "ana"]);
    refused(&gone);
    assert!(gone.stderr.contains("ana"), "{gone:?}");
}
