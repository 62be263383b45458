//! Values that go out and come back: exports and imports, backups and restores.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{Done, Home, done};

const ENV: &str = "\
STRIPE_API_KEY=sk_live_51MadeUpExample0000KeymoatShop
STRIPE_WEBHOOK_SECRET=whsec_MadeUpExample0000KeymoatWebhook1
SHOPIFY_ACCESS_TOKEN=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
DATABASE_PASSWORD='made up # pass $word \"1\"'
DEBUG=1
";

fn shop() -> Home {
    let home = Home::with_vault();
    home.file(".env", ENV);
    home.ok(&["import", "dotenv", ".env", "--env", "prod", "--no-rewrite"]);
    home
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The lines of a file of variables, in order, as pairs.
fn variables(text: &str) -> Vec<(String, String)> {
    let file = keymoat_core::dotenv::EnvFile::parse(text, &keymoat_core::dotenv::EnvLimits::USUAL).unwrap();
    let pair = |entry: &keymoat_core::dotenv::EnvEntry| (entry.name.clone(), entry.value.as_str().to_owned());
    let mut pairs: Vec<_> = file.entries().iter().map(pair).collect();
    pairs.sort();
    pairs
}

#[test]
fn what_was_imported_is_exported_again() {
    let home = shop();
    let exported = home.ok(&["export", "dotenv", "--env", "prod", "--output", "out.env"]);
    assert!(exported.stdout.is_empty() && exported.stderr.contains("keys in the clear"), "{exported:?}");
    assert_eq!(mode(&home.path().join("out.env")), 0o600);
    let mut expected = variables(ENV);
    expected.retain(|(name, _)| name != "DEBUG");
    assert_eq!(variables(&home.read("out.env")), expected);
    let log = home.ok(&["audit", "query", "--path", "stripe", "--action", "reveal", "--format", "json"]);
    assert!(log.stdout.contains("export"), "{log:?}");

    let part = home.ok(&["export", "dotenv", "--env", "prod", "--prefix", "shopify"]);
    assert_eq!(variables(&part.stdout).len(), 1, "{part:?}");
    let nothing = home.ok(&["export", "dotenv", "--env", "dev"]);
    assert!(nothing.stdout.is_empty(), "{nothing:?}");
}

#[test]
fn json_goes_to_another_vault_and_back() {
    let home = shop();
    home.run_with_stdin(&["put", "note", "-", "--env", "prod"], "made up text of two\nlines");
    home.run_with_stdin(
        &["put", "object", "-", "--json", "--env", "prod"],
        "{\"a\":\"made-up-value\",\"b\":{\"c\":[1]}}",
    );
    let exported = home.ok(&["export", "json", "--env", "prod"]);
    let other = Home::with_vault();
    let path = other.file("in.json", &exported.stdout);
    other.ok(&["import", "json", path.to_str().unwrap(), "--env", "prod"]);
    let again: serde_json::Value =
        serde_json::from_str(&other.ok(&["export", "json", "--env", "prod"]).stdout).unwrap();
    let first: serde_json::Value = serde_json::from_str(&exported.stdout).unwrap();
    assert_eq!(first["note"], "made up text of two\nlines");
    assert_eq!(first["stripe"], again["stripe"]);
    assert_eq!(first["note"], again["note"]);
    assert_eq!(first.as_object().unwrap().len(), again.as_object().unwrap().len());
}

#[test]
fn a_company_exports_its_own() {
    let home = shop();
    home.ok(&["company", "add", "acme"]);
    let put = ["put", "stripe", "secret_key=-", "--env", "prod", "--company", "acme"];
    assert_eq!(home.run_with_stdin(&put, "sk_live_51MadeUpExample0000KeymoatAcme").code, 0);
    let exported = home.ok(&["export", "dotenv", "--env", "prod", "--company", "acme"]);
    assert_eq!(
        variables(&exported.stdout),
        [("STRIPE_SECRET_KEY__ACME".to_owned(), "sk_live_51MadeUpExample0000KeymoatAcme".to_owned())]
    );
    assert!(!home.ok(&["export", "dotenv", "--env", "prod"]).stdout.contains("KeymoatAcme"));
}

#[test]
fn what_may_not_be_revealed_is_left_out_and_said() {
    let home = shop();
    home.ok(&["policy", "put", "lister", "--allow", "list", "--on", "prod/**"]);
    home.ok(&["policy", "put", "reader", "--allow", "reveal,inspect", "--on", "prod/stripe"]);
    home.ok(&[
        "account",
        "add",
        "odoo",
        "--kind",
        "service-account",
        "--policy",
        "lister",
        "--policy",
        "reader",
    ]);
    let token = home.ok(&["token", "create", "odoo"]).stdout;
    let mut command = home.command(&["export", "dotenv", "--env", "prod"]);
    command.env("KEYMOAT_TOKEN", token.trim());
    let exported = done(command.output().unwrap());
    assert_eq!(exported.code, 1, "{exported:?}");
    assert!(
        exported.stdout.contains("STRIPE_API_KEY") && !exported.stdout.contains("SHOPIFY"),
        "{exported:?}"
    );
    assert!(exported.stderr.contains("prod/shopify is left out"), "{exported:?}");
}

/// A machine that has the master key of another, and no vault.
fn machine_with_key_of(home: &Home) -> Home {
    let other = Home::new();
    std::fs::create_dir_all(other.config()).unwrap();
    let key = key_file(home);
    let to = other.config().join(key.file_name().unwrap());
    std::fs::copy(&key, &to).unwrap();
    std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    other
}

fn key_file(home: &Home) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(home.config()).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.extension().is_some_and(|extension| extension == "key")).unwrap()
}

fn backup_of(home: &Home) -> std::path::PathBuf {
    let path = home.path().join("vault.backup");
    home.ok(&["backup", path.to_str().unwrap()]);
    path
}

#[test]
fn a_backup_carries_everything_to_another_machine() {
    let home = shop();
    home.run_with_stdin(
        &["put", "shopify", "token=-", "--env", "prod"],
        "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",
    );
    let backup = backup_of(&home);
    assert_eq!(mode(&backup), 0o600);
    let bytes = std::fs::read(&backup).unwrap();
    for value in ["sk_live_51MadeUp", "whsec_MadeUp", "made up # pass"] {
        assert!(!bytes.windows(value.len()).any(|window| window == value.as_bytes()), "{value}");
    }

    let other = machine_with_key_of(&home);
    let restored = other.ok(&["restore", backup.to_str().unwrap()]);
    assert!(restored.stdout.contains("restored the vault"), "{restored:?}");
    for command in
        [&["list", "--env", "prod"][..], &["history", "shopify", "--env", "prod"], &["account", "list"]]
    {
        assert_eq!(other.ok(command).stdout, home.ok(command).stdout, "{command:?}");
    }
    let revealed = other.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
    assert_eq!(revealed.stdout.trim(), "sk_live_51MadeUpExample0000KeymoatShop");
    assert!(other.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    let log = other.ok(&["audit", "query", "--action", "restore", "--format", "json"]);
    assert!(log.stdout.contains("restore"), "{log:?}");
}

#[test]
fn a_backup_is_made_beside_a_running_server() {
    let home = shop();
    let server = home.serve();
    let backup = backup_of(&home);
    let stdout = home.command(&["backup", "-"]).output().unwrap();
    assert!(stdout.status.success() && stdout.stdout.starts_with(b"keymoat-backup-1\n"), "{stdout:?}");
    let running = home.run(&["restore", backup.to_str().unwrap()]);
    assert!(running.code == 2 && running.stderr.contains("a server is running"), "{running:?}");
    assert_eq!(server.interrupt(), 0);
    let other = machine_with_key_of(&home);
    other.ok(&["restore", backup.to_str().unwrap()]);
    assert!(other.ok(&["audit", "verify"]).stdout.starts_with("intact"));
}

#[test]
fn what_is_no_whole_backup_is_refused_before_anything_is_written() {
    let home = shop();
    let backup = backup_of(&home);
    let bytes = std::fs::read(&backup).unwrap();
    let other = machine_with_key_of(&home);
    #[track_caller]
    fn check(other: &Home, bytes: &[u8], what: &str) {
        let path = other.path().join("wrong.backup");
        std::fs::write(&path, bytes).unwrap();
        let answer = other.run(&["restore", path.to_str().unwrap()]);
        assert_eq!(answer.code, 2, "{what}: {answer:?}");
        assert!(answer.stderr.starts_with("error: "), "{what}: {answer:?}");
        assert!(!other.database().exists(), "{what}");
    }
    for cut in [0, 1, 16, 17, 40, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        check(&other, &bytes[..cut], &format!("cut at {cut}"));
    }
    for at in [0, 20, 60, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        check(&other, &changed, &format!("changed at {at}"));
    }
    check(&other, b"made up", "foreign");
    check(&other, &[bytes.as_slice(), b"x"].concat(), "longer");

    let keyless = Home::new();
    let answer = keyless.run(&["restore", backup.to_str().unwrap()]);
    assert!(answer.code == 2 && answer.stderr.contains("no master key"), "{answer:?}");
    let foreign = Home::with_vault();
    let mut command = keyless.command(&["restore", backup.to_str().unwrap()]);
    command.env("KEYMOAT_MASTER_KEY_FILE", key_file(&foreign));
    let answer = done(command.output().unwrap());
    assert!(answer.code == 2 && answer.stderr.contains("does not fit"), "{answer:?}");
    assert!(!keyless.database().exists());
}

#[test]
fn a_vault_is_not_overwritten_and_an_older_one_is_asked_about() {
    let home = shop();
    let backup = backup_of(&home);
    let path = backup.to_str().unwrap();
    let refuses = |answer: Done, says: &str| {
        assert!(answer.code != 0 && answer.stderr.contains(says), "{says}: {answer:?}");
    };
    refuses(home.run(&["restore", path]), "already a vault");
    refuses(home.run(&["backup", path]), "is there already");
    home.put("prod", "later", "key", "made-up-later-value");
    std::fs::remove_dir_all(home.data()).unwrap();
    refuses(home.run(&["restore", path]), "--accept-older");
    home.ok(&["restore", path, "--accept-older", "the disk died"]);
    assert!(home.ok(&["list", "--env", "prod"]).stdout.contains("stripe"));
    let log = home.ok(&["audit", "query", "--action", "audit_accept_restore", "--format", "json"]);
    assert!(log.stdout.contains("the disk died"), "{log:?}");
    home.ok(&["backup", path, "--replace"]);
}
