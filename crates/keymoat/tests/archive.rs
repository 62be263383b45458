//! Old records on their way out of the vault, and what they prove in an archive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Done, Home};
use jiff::Timestamp;
use keymoat_core::id::RequestId;
use keymoat_crypto::MasterKey;
use keymoat_detect::Catalogue;
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{Clock, NewSlot, NewVault, Origin, SealedVault, Surroundings};

/// A clock that stands.
struct Standing(Timestamp);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// A home with a vault whose first 600 records are of long ago.
fn aged() -> Home {
    let home = Home::new();
    for dir in [home.data(), home.config()] {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    tokio::runtime::Runtime::new().unwrap().block_on(make(&home));
    home.put("prod", "stripe", "secret_key", "sk_live_51MadeUpExample0000KeymoatShop");
    home
}

async fn make(home: &Home) {
    let instance = uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0007);
    let master = MasterKey::generate();
    let key = home.config().join(format!("{instance}.key"));
    // EXPOSE: a made-up key of a test goes into the file that the program reads it from.
    master.to_text().expose(|text| std::fs::write(&key, text)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
    let surroundings = Surroundings {
        clock: Arc::new(Standing("2024-03-01T00:00:00Z".parse().unwrap())),
        catalogue: Arc::new(Catalogue::builtin().clone()),
        outside_dir: home.config(),
        durability: keymoat_vault::Durability::Os,
        database: None,
        key_at_hand: None,
    };
    let empty = SealedVault::open(&home.data(), keymoat_vault::Durability::Os).unwrap().err().unwrap();
    let new = NewVault {
        instance,
        slot: NewSlot { source: SlotSource::Key, master },
        os_user: user.clone(),
        environments: vec!["prod".parse().unwrap()],
    };
    let (vault, _) = empty.create(new, surroundings).await.unwrap();
    let origin = Origin {
        request: RequestId::from_parts(1, &[1; 10]),
        address: None,
        user_agent: None,
        module: None,
        on_behalf_of: None,
    };
    let owner = vault.sign_in_os_user(&user, origin).await.unwrap();
    for _ in 0..600 {
        vault.list_accounts(&owner).await.unwrap();
    }
    vault.close().await;
}

fn key(home: &Home) -> String {
    let done = home.ok(&["audit", "checkpoint"]);
    done.stderr.lines().find_map(|line| line.strip_prefix("key  ")).unwrap().to_owned()
}

#[track_caller]
fn touched(done: &Done, says: &str) {
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stdout.contains("TOUCHED") && done.stdout.contains(says), "{says}: {done:?}");
}

#[track_caller]
fn says(done: &Done, part: &str) {
    assert!(done.stdout.contains(part) || done.stderr.contains(part), "{part}: {done:?}");
}

#[test]
fn old_records_go_into_an_archive_that_proves_them() {
    let home = aged();
    let key = key(&home);
    home.file("kept", &home.ok(&["audit", "checkpoint"]).stdout);
    let done = home.run(&["audit", "archive", "--before", "10d", "--output", "a.jsonl"]);
    assert_eq!(done.code, 2);
    says(&done, "last 90 days");
    let done = home.ok(&["audit", "archive", "--before", "2020-01-01T00:00:00Z", "--output", "none.jsonl"]);
    says(&done, "nothing to archive");
    assert!(!home.path().join("none.jsonl").exists() && !home.path().join("none.jsonl.proof").exists());

    let done = home.ok(&[
        "audit",
        "archive",
        "--before",
        "400d",
        "--output",
        "a.jsonl",
        "--personal",
        "--reason",
        "made up",
    ]);
    says(&done, "archived 512 records in `a.jsonl`");
    assert_eq!(home.read("a.jsonl").lines().count(), 512);
    for file in ["a.jsonl", "a.jsonl.proof", "a.jsonl.personal"] {
        assert_eq!(std::fs::metadata(home.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = home.run(&["audit", "archive", "--before", "400d", "--output", "a.jsonl"]);
    assert_eq!(again.code, 2);
    says(&again, "there already");
    says(&home.ok(&["audit", "archive", "--before", "400d", "--output", "b.jsonl"]), "nothing to archive");
    says(&home.ok(&["audit", "verify"]), "in archives only");
    says(&home.ok(&["audit", "query", "--action", "sign_in"]), "records before 512 are in archives");
    let newest = home.ok(&["audit", "query", "--limit", "2"]);
    assert!(!newest.stderr.contains("archives"), "{newest:?}");
    says(&home.ok(&["audit", "query", "--action", "audit_archive"]), "audit_archive");
    says(&home.run(&["audit", "prove", "300"]), "in an archive");

    // The rest of the log, and both together as one.
    home.ok(&["audit", "export", "--output", "log.jsonl"]);
    let auditor = Home::new();
    for file in [
        "a.jsonl",
        "a.jsonl.proof",
        "a.jsonl.personal",
        "log.jsonl",
        "log.jsonl.checkpoint",
        "log.jsonl.proof",
        "kept",
    ] {
        auditor.file(file, &home.read(file));
    }
    let verify = |files: &[&str], more: &[&str]| {
        let mut arguments = vec!["audit", "verify"];
        files.iter().for_each(|file| arguments.extend(["--export", file]));
        arguments.extend(["--key", key.as_str()]);
        auditor.run(&[arguments.as_slice(), more].concat())
    };
    let whole = |done: &Done, part: &str| {
        assert_eq!(done.code, 0, "{done:?}");
        says(done, part);
    };
    whole(&verify(&["a.jsonl"], &[]), "intact: 512 records");
    whole(&verify(&["a.jsonl"], &[]), "have the names and addresses beside them");
    whole(&verify(&["log.jsonl"], &[]), "records in front of the first line");
    whole(&verify(&["a.jsonl", "log.jsonl"], &["--since", "kept"]), "continue the checkpoint that was kept");
    let one = auditor.ok(&[
        "audit",
        "verify",
        "--export",
        "a.jsonl",
        "log.jsonl",
        "--key",
        &key,
        "--format",
        "json",
    ]);
    says(&one, "\"intact\": true");
    touched(&verify(&["log.jsonl", "a.jsonl"], &[]), "begins with record 0, and `log.jsonl` ends before");
    let proof = auditor.ok(&["audit", "prove", "300", "--export", "a.jsonl"]).stdout;
    auditor.file("proof.json", &proof);
    whole(
        &auditor.run(&["audit", "verify", "--proof", "proof.json", "--key", &key]),
        "in the log: record 300",
    );
    auditor.file(
        "moved.json",
        &proof.replacen("\"seq\": 300,\n  \"checkpoint\"", "\"seq\": 301,\n  \"checkpoint\"", 1),
    );
    touched(
        &auditor.run(&["audit", "verify", "--proof", "moved.json", "--key", &key]),
        "record 301 is not in the log",
    );
    assert_eq!(auditor.run(&["audit", "prove", "512", "--export", "a.jsonl"]).code, 2);
    check_foreign(&auditor, &key);

    let (records, names) = (home.read("a.jsonl"), home.read("a.jsonl.personal"));
    auditor.file("a.jsonl", &records.replacen("\"allowed\"", "\"refused\"", 1));
    touched(&verify(&["a.jsonl"], &[]), "lines 1 to 512");
    touched(&verify(&["a.jsonl", "log.jsonl"], &[]), "a.jsonl: lines 1 to 512");
    auditor.file("a.jsonl", &records[..records.trim_end().rfind('\n').unwrap() + 1]);
    touched(&verify(&["a.jsonl"], &[]), "line 512: it is missing");
    auditor.file("a.jsonl", &format!("{records}{}\n", records.lines().next().unwrap()));
    touched(&verify(&["a.jsonl"], &[]), "line 513: the archive ends in front of it");
    auditor.file("a.jsonl", &records);
    auditor.file("a.jsonl.personal", &names.replacen("\"actor_name\":\"", "\"actor_name\":\"x", 1));
    touched(&verify(&["a.jsonl"], &[]), "is not the one that was recorded");
    auditor.file("a.jsonl.personal", &names);
    let stated = home.read("a.jsonl.proof");
    auditor.file("a.jsonl.proof", &stated.replace("\"end\": 512", "\"end\": 511"));
    touched(&verify(&["a.jsonl"], &[]), "line");
    auditor.file("a.jsonl.proof", "{}");
    touched(&verify(&["a.jsonl"], &[]), "is no proof of an archive");
}

/// The same as a page of Python.
fn check_foreign(auditor: &Home, key: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/audit/verify.py");
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.arg(script).args(arguments).current_dir(auditor.path()).stdin(Stdio::null());
        common::done(command.output().unwrap())
    };
    let has_library = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !has_library.is_ok_and(|done| done.status.success()) {
        #[allow(clippy::print_stderr, reason = "a test that was left out must be seen")]
        {
            eprintln!("SKIP check_foreign: no python3 with `cryptography`");
        }
        return;
    }
    for (arguments, says) in [
        (&["series", key, "a.jsonl"][..], "ok: 512 records"),
        (&["series", key, "a.jsonl", "log.jsonl"], "ok:"),
        (&["proof", "proof.json", key], "ok: record 300"),
    ] {
        let done = python(arguments);
        assert!(done.code == 0 && done.stdout.starts_with(says), "{arguments:?}: {done:?}");
    }
    for arguments in [&["series", key, "log.jsonl", "a.jsonl"][..], &["proof", "moved.json", key]] {
        assert_eq!(python(arguments).code, 1, "{arguments:?}");
    }
}

#[test]
fn through_a_server_and_into_a_backup() {
    let home = aged();
    let server = home.serve();
    let done = home.ok(&["audit", "archive", "--before", "400d", "--output", "a.jsonl"]);
    says(&done, "archived 512 records");
    home.ok(&["backup", "vault.backup"]);
    assert_eq!(server.interrupt(), 0);
    says(&home.ok(&["audit", "verify"]), "intact");
    home.ok(&["--data", "elsewhere", "restore", "vault.backup", "--accept-older", "a second copy"]);
    let done = home.ok(&["--data", "elsewhere", "audit", "verify"]);
    assert!(done.stdout.starts_with("intact") && done.stdout.contains("in archives only"), "{done:?}");
}
