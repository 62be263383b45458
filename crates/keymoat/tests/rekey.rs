//! The vault's own keys, changed from the command line.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use common::{Done, Home, done};

const VALUE: &str = "sk_live_51MadeUpExample0000KeymoatShop";
const READ: [&str; 4] = ["reveal", "stripe#secret_key", "--env", "prod"];

fn shop() -> Home {
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", VALUE);
    home
}

fn with(home: &Home, variable: &str, value: &str, arguments: &[&str]) -> Done {
    let mut command = home.command(arguments);
    command.env(variable, value);
    done(command.output().unwrap())
}

fn key_files(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.config()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "key")).collect()
}

#[test]
fn a_new_key_file_takes_the_place_of_the_old_one() {
    let home = shop();
    let old = key_files(&home).remove(0);
    let last = home.run(&["rekey", "remove-slot", "1"]);
    assert!(last.code == 1 && last.stderr.contains("last slot"), "{last:?}");
    home.ok(&["rekey", "add-slot", "--source", "file"]);
    let new = key_files(&home).into_iter().find(|path| *path != old).unwrap();
    let (new, old_text) = (new.to_str().unwrap().to_owned(), std::fs::read_to_string(&old).unwrap());
    assert_eq!(with(&home, "KEYMOAT_MASTER_KEY_FILE", &new, &READ).stdout.trim(), VALUE);

    let unproven = home.run(&["rekey", "remove-slot", "1"]);
    assert_ne!(unproven.code, 0, "the old key proves nothing about the new slot: {unproven:?}");
    home.ok(&["rekey", "remove-slot", "1", "--key-file", &new]);
    let stale = with(&home, "KEYMOAT_MASTER_KEY", old_text.trim(), &READ);
    assert!(stale.code == 2 && stale.stderr.contains("does not fit"), "{stale:?}");
    std::fs::rename(&new, &old).unwrap();
    assert_eq!(home.ok(&READ).stdout.trim(), VALUE);
    let slots: serde_json::Value =
        serde_json::from_str(&home.ok(&["rekey", "list", "--format", "json"]).stdout).unwrap();
    assert_eq!(slots["slots"].as_array().unwrap().len(), 1);
    assert_eq!(slots["slots"][0]["id"], 2);
}

#[test]
fn a_passphrase_opens_the_vault() {
    let home = shop();
    home.file("passphrase", "made up words of a vault\n");
    home.file("short", "too short\n");
    let short = home.run(&["rekey", "add-slot", "--source", "passphrase", "--passphrase-file", "short"]);
    assert!(short.code == 2 && short.stderr.contains("at least 15"), "{short:?}");
    let nobody = home.run(&["rekey", "add-slot", "--source", "passphrase"]);
    assert!(nobody.code == 2 && nobody.stderr.contains("nobody to ask"), "{nobody:?}");
    home.mode("passphrase", 0o640);
    let seen = home.run(&["rekey", "add-slot", "--source", "passphrase", "--passphrase-file", "passphrase"]);
    assert!(seen.code == 2 && seen.stderr.contains("others can read the passphrase file"), "{seen:?}");
    home.mode("passphrase", 0o600);
    home.ok(&["rekey", "add-slot", "--source", "passphrase", "--passphrase-file", "passphrase"]);
    std::fs::remove_file(key_files(&home).remove(0)).unwrap();
    let opened = with(&home, "KEYMOAT_PASSPHRASE", "made up words of a vault", &READ);
    assert_eq!(opened.stdout.trim(), VALUE, "{opened:?}");
    let wrong = with(&home, "KEYMOAT_PASSPHRASE", "other words of a vault", &READ);
    assert!(wrong.code == 2 && wrong.stderr.contains("does not fit"), "{wrong:?}");
    let removed =
        with(&home, "KEYMOAT_PASSPHRASE", "made up words of a vault", &["rekey", "remove-slot", "1"]);
    assert_eq!(removed.code, 0, "{removed:?}");
}

#[test]
fn shares_open_the_vault_when_there_are_enough() {
    let home = shop();
    let added = home.ok(&["rekey", "add-slot", "--source", "shamir", "--needed", "2", "--shares", "3"]);
    let shares: Vec<&str> = added.stdout.lines().collect();
    assert_eq!(shares.len(), 3, "{added:?}");
    assert!(shares.iter().all(|share| !added.stderr.contains(share)), "{added:?}");
    std::fs::remove_file(key_files(&home).remove(0)).unwrap();
    home.file("two", &format!("{}\n{}\n", shares[2], shares[0]));
    home.file("one", &format!("{}\n", shares[1]));
    assert_eq!(with(&home, "KEYMOAT_SHARES_FILE", "two", &READ).stdout.trim(), VALUE);
    assert_eq!(with(&home, "KEYMOAT_SHARES_FILE", "one", &READ).code, 2);
    home.mode("two", 0o644);
    let seen = with(&home, "KEYMOAT_SHARES_FILE", "two", &READ);
    assert!(seen.code == 2 && seen.stderr.contains("others can read the shares file"), "{seen:?}");
    std::fs::set_permissions(home.data(), std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    home.mode("two", 0o600);
    let open = with(&home, "KEYMOAT_SHARES_FILE", "two", &READ);
    assert!(open.code == 2 && open.stderr.contains("chmod 700"), "{open:?}");
    let wrong = home.run(&["rekey", "add-slot", "--source", "shamir", "--needed", "4", "--shares", "3"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[test]
fn data_keys_and_peppers_change_while_everything_goes_on() {
    let home = shop();
    home.ok(&["policy", "put", "odoo", "--allow", "reveal", "--on", "prod/stripe"]);
    home.ok(&["account", "add", "odoo", "--kind", "service-account", "--policy", "odoo"]);
    let token = home.ok(&["token", "create", "odoo"]).stdout;
    let server = home.serve();
    let rotated = home.ok(&["rekey", "data-key", "prod", "--format", "json"]);
    let rotated: serde_json::Value = serde_json::from_str(&rotated.stdout).unwrap();
    assert_eq!(rotated["reencrypted"], 1);
    assert_eq!(rotated["rows_under_old_keys"], 0);
    assert_eq!(rotated["ended"].as_array().unwrap().len(), 1);
    assert!(home.ok(&["rekey", "pepper"]).stdout.contains("pepper 2"));
    assert_eq!(with(&home, "KEYMOAT_TOKEN", token.trim(), &READ).stdout.trim(), VALUE);
    let listed = home.ok(&["rekey", "list"]);
    assert!(listed.stdout.contains("DATA KEY") && listed.stdout.contains("in use"), "{listed:?}");
    assert_eq!(server.interrupt(), 0);
    assert_eq!(home.ok(&READ).stdout.trim(), VALUE);
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    let nowhere = home.run(&["rekey", "data-key", "nowhere"]);
    assert_ne!(nowhere.code, 0, "{nowhere:?}");
}

#[test]
fn the_root_key_changes_while_everything_goes_on() {
    let home = shop();
    home.ok(&["rekey", "add-slot", "--source", "shamir"]);
    let server = home.serve();
    let refused = home.run(&["rekey", "root"]);
    assert!(refused.code == 1 && refused.stderr.contains("2 (any 2 of 3 shares)"), "{refused:?}");
    assert!(refused.stderr.contains("--drop-others"), "{refused:?}");
    home.file("other.key", "keymoat-master-key-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:190a55ad\n");
    std::fs::set_permissions(
        home.path().join("other.key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let wrong = home.run(&["rekey", "root", "--drop-others", "--key-file", "other.key"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("does not open slot 1"), "{wrong:?}");
    let changed = home.ok(&["rekey", "root", "--drop-others"]);
    assert!(changed.stdout.contains("0 rows under the old root key"), "{changed:?}");
    assert!(changed.stderr.contains("gone: slot 2"), "{changed:?}");
    assert_eq!(home.ok(&READ).stdout.trim(), VALUE);
    let again = home.ok(&["rekey", "root", "--format", "json"]);
    let again: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&again["rows_under_old_root"], &again["kept"][0]["id"]), (&0.into(), &1.into()));
    assert_eq!(server.interrupt(), 0);
    assert_eq!(home.ok(&READ).stdout.trim(), VALUE);
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    let remote = home.run(&["rekey", "root", "--server", "http://127.0.0.1:1"]);
    assert!(remote.code == 2 && remote.stderr.contains("does not travel"), "{remote:?}");
}

#[test]
fn what_opens_the_vault_does_not_travel_over_a_network() {
    let home = shop();
    let asked = home.run(&["rekey", "add-slot", "--source", "shamir", "--server", "http://127.0.0.1:1"]);
    assert!(asked.code == 2 && asked.stderr.contains("does not travel"), "{asked:?}");

    home.ok(&["account", "add", "ana", "--kind", "user", "--policy", "owner"]);
    let token = home.ok(&["token", "create", "ana"]).stdout;
    let server = home.serve();
    let address = server.address();
    let address = address.strip_prefix("http://").unwrap();
    let body = "{\"kind\":\"key\",\"master\":\"made up\",\"proof\":{\"key\":\"made up\"}}";
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /api/v1/rekey/slots HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("does not travel"), "{answer}");
}
