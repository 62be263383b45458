//! A full disk: nothing is answered that cannot be written down, and an administrator gets in to make room.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "a test")]

mod place;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use keymoat_core::audit::{Action, AuditText};
use keymoat_vault::{AuditQuery, Caller, Code, PersonalQuery, Put, Vault};
use place::{Place, environment, name, nobody, owner, put, reveal, text};

/// What the child does on a disk of its own: the data directory is a small one.
#[tokio::test(flavor = "multi_thread")]
async fn child_on_a_small_disk() {
    if told(CHILD).is_none() {
        return;
    }
    let here = Place::new();
    std::fs::create_dir(here.data()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"])
        .arg(here.data())
        .status()
        .unwrap();
    if !mounted.success() {
        writeln!(std::io::stdout(), "CANNOT").unwrap();
        return;
    }
    let (vault, offer) = here.create().await;
    let (me, stranger) = (owner(&vault).await, nobody(&vault).await);
    put(&vault, &me, "prod/stripe", text("made up")).await;
    let filled = fill(&vault, &me, &here.data()).await;

    // Nobody is answered, and the vault goes on.
    let error = reveal(&vault, &me, "prod/stripe", None).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
    assert_eq!(vault.inspect(&stranger, &name("prod/stripe")).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(vault.stopped(), None);

    // An administrator looks and removes, each on record.
    let prod = environment("prod");
    assert_eq!(vault.list(&me, &prod, None, None, None, 1000).await.unwrap().secrets.len(), filled + 1);
    vault.inspect(&me, &name("prod/stripe")).await.unwrap();
    for number in 0..filled {
        vault.destroy(&me, &name(&format!("prod/k{number}")), vec![]).await.unwrap();
    }
    let all = PersonalQuery { before: Some(vault.now()), account: None };
    vault.erase_personal(&me, all).await.unwrap();
    let query = AuditQuery { limit: 10_000, ..AuditQuery::default() };
    let records = vault.query_audit(&me, query).await.unwrap();
    let count = |action| records.iter().filter(|record| record.event.action == action).count();
    assert!(count(Action::Destroy) == filled && count(Action::Inspect) == 1 && count(Action::List) == 1);

    // With room again everybody is answered, and the room is kept again.
    std::fs::remove_file(here.data().join("ballast")).unwrap();
    assert_eq!(reveal(&vault, &me, "prod/stripe", None).await.unwrap(), "made up");
    assert!(here.data().join("reserve").exists());
    vault.close().await;
    assert_eq!(here.verify(&offer).problems, vec![]);
    // The directory goes before its parent does.
    assert!(Command::new("umount").arg(here.data()).status().unwrap().success());
    writeln!(std::io::stdout(), "DONE {filled}").unwrap();
}

/// Writes until there is no room, and fills what little is left; how many secrets it made.
async fn fill(vault: &Vault, me: &Caller, data: &Path) -> usize {
    std::fs::write(data.join("ballast"), vec![1; 1_500_000]).unwrap();
    let mut written = 0;
    loop {
        let new = Put {
            allow_empty: false,
            name: name(&format!("prod/k{written}")),
            value: text(&"x".repeat(20_000)),
            replace: false,
            expected: None,
            pending: false,
            duplicate_because: Some(AuditText::new("to fill the disk")),
            annotation: Default::default(),
            action: Action::Write,
        };
        if vault.put(me, new).await.is_err() {
            break;
        }
        written += 1;
    }
    while reveal(vault, me, "prod/stripe", None).await.is_ok() {}
    written
}

#[test]
fn a_full_disk_lets_an_administrator_in() {
    let test = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .arg("-m")
        .arg(test)
        .args(["--exact", "child_on_a_small_disk", "--nocapture"])
        .env(CHILD, "yes")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(&format!("no unshare: {error}")),
    };
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("unshare:") || out.contains("CANNOT") {
        return skip(&format!("a small disk needs more rights: {}", said.trim()));
    }
    assert!(output.status.success() && out.contains("DONE"), "{said}{out}");
}

fn skip(why: &str) {
    eprintln!("SKIP a_full_disk_lets_an_administrator_in: {why}");
}

#[allow(
    clippy::disallowed_methods,
    reason = "this binary runs itself, whose arguments are the test runner's"
)]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

const CHILD: &str = "KEYMOAT_TEST_SMALL_DISK";
