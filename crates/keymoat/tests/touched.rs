//! What was touched by other means than Keymoat is found, and said where.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::Home;

fn vault() -> Home {
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", "sk_live_51MadeUpExample0000KeymoatShop");
    home.put("prod", "twilio", "auth_token", "0000b1c2d3e4f5061728394a5b6c7d8e");
    home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
    home
}

fn change(home: &Home, sql: &str) {
    let database = rusqlite::Connection::open(home.database()).unwrap();
    let changed = database.execute(sql, []).unwrap();
    assert!(changed > 0, "{sql} changed nothing");
}

#[test]
fn an_edited_byte_a_removed_row_and_an_older_copy_are_found() {
    #[track_caller]
    fn check(touch: impl FnOnce(&Home), says: &str) {
        let home = vault();
        assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
        touch(&home);
        let done = home.run(&["audit", "verify"]);
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stdout.contains("TOUCHED") && done.stdout.contains(says), "{says}: {done:?}");
    }
    check(
        |home| {
            change(
                home,
                "UPDATE events SET record = replace(CAST(record AS TEXT), '\"prod\"', '\"pord\"') WHERE seq = 2",
            )
        },
        "event 2",
    );
    check(|home| change(home, "DELETE FROM events WHERE seq = 1"), "event 1");
    check(
        |home| {
            change(
                home,
                "UPDATE state SET body = replace(body, 'prod', 'dev') WHERE kind = 'secret' AND key LIKE '%/stripe'",
            )
        },
        "prod/-/stripe",
    );
    check(|home| change(home, "DELETE FROM state WHERE kind = 'secret' AND key LIKE '%/twilio'"), "twilio");
    check(
        |home| {
            let yesterday = home.path().join("yesterday.db");
            std::fs::copy(home.database(), &yesterday).unwrap();
            home.put("prod", "paypal", "client_secret", "EMadeUp0000Secret_KeymoatShop-0123456789");
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{suffix}", home.database().display()));
            }
            std::fs::copy(&yesterday, home.database()).unwrap();
        },
        "put back to an older copy",
    );
}

#[test]
fn a_vault_that_was_put_back_is_not_served_until_that_is_on_record() {
    let home = vault();
    let yesterday = home.path().join("yesterday.db");
    std::fs::copy(home.database(), &yesterday).unwrap();
    home.put("prod", "paypal", "client_secret", "EMadeUp0000Secret_KeymoatShop-0123456789");
    std::fs::copy(&yesterday, home.database()).unwrap();
    let refused = home.run(&["list", "--env", "prod"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("accept-restore"), "{refused:?}");

    let silent = home.run(&["audit", "accept-restore", "--reason", " "]);
    assert_eq!(silent.code, 2, "{silent:?}");
    home.ok(&["audit", "accept-restore", "--reason", "the disk died, this is last night's copy"]);
    home.ok(&["list", "--env", "prod"]);
    let done = home.ok(&["audit", "query", "--action", "audit_accept_restore", "--format", "json"]);
    assert!(done.stdout.contains("last night's copy"), "{done:?}");
}

#[test]
fn a_roll_back_is_said_once_and_what_to_do_about_it() {
    let home = vault();
    let yesterday = home.path().join("yesterday.db");
    std::fs::copy(home.database(), &yesterday).unwrap();
    for number in 0..3 {
        home.put(
            "prod",
            "paypal",
            "client_secret",
            &format!("EMadeUp0000Secret_KeymoatShop-012345678{number}"),
        );
    }
    std::fs::copy(&yesterday, home.database()).unwrap();
    for more in [&[][..], &["--read-only"]] {
        let done = home.run(&[&["audit", "verify"], more].concat());
        assert_eq!(done.code, 1, "{done:?}");
        assert_eq!(done.stdout.matches("put back to an older copy").count(), 1, "{done:?}");
        for step in ["keymoat restore FILE", "keymoat audit accept-restore --reason REASON"] {
            assert_eq!(done.stderr.matches(step).count(), 1, "{step}: {done:?}");
        }
    }
}

/// Every file of a directory with its bytes and the time of its last change.
fn files(dir: &std::path::Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let entries = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut files: Vec<_> = entries
        .map(|entry| {
            let about = entry.metadata().unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), bytes, about.modified().unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn evidence_is_checked_and_not_a_byte_of_it_changes() {
    let home = vault();
    let log = format!("{}-wal", home.database().display());
    #[track_caller]
    fn check(home: &Home, code: i32, says: &str) {
        let before = files(&home.data());
        let done = home.run(&["audit", "verify", "--read-only"]);
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.stdout.contains(says) && done.stderr.contains("was only read"), "{says}: {done:?}");
        assert_eq!(files(&home.data()), before, "{says}");
    }
    check(&home, 0, "intact");

    // A copy of a running server's directory has a write-ahead log with what is not in the database file yet.
    let server = home.serve();
    home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
    let kept: Vec<_> =
        files(&home.data()).into_iter().filter(|(name, ..)| name.starts_with("keymoat.db")).collect();
    assert_eq!(server.interrupt(), 0);
    let checkpoint = home.ok(&["audit", "checkpoint"]);
    assert!(!checkpoint.stdout.is_empty());
    for (name, bytes, _) in kept.iter().filter(|(name, ..)| !name.ends_with("-shm")) {
        std::fs::write(home.data().join(name), bytes).unwrap();
    }
    assert!(std::fs::metadata(&log).unwrap().len() > 0);
    check(&home, 1, "put back to an older copy");

    change(&home, "DELETE FROM events WHERE seq = 1");
    check(&home, 1, "event 1");
}

#[test]
fn evidence_is_not_read_while_somebody_writes() {
    let home = vault();
    let server = home.serve();
    let done = home.run(&["audit", "verify", "--read-only"]);
    assert!(done.code == 2 && done.stderr.contains("in use"), "{done:?}");
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    // Whoever removes the lock file gets no further.
    std::fs::remove_file(home.data().join("lock")).unwrap();
    let done = home.run(&["audit", "verify", "--read-only"]);
    assert!(done.code == 2 && done.stderr.contains("in use"), "{done:?}");
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn every_start_that_is_refused_says_what_to_do() {
    #[track_caller]
    fn check(touch: impl FnOnce(&Home), says: &[&str]) {
        let home = vault();
        touch(&home);
        let done = home.run(&["list", "--env", "prod"]);
        assert_eq!(done.code, 2, "{done:?}");
        assert_eq!(done.stderr.matches("hint: ").count(), 1, "{done:?}");
        for part in says {
            assert!(done.stderr.contains(part), "{part}: {done:?}");
        }
    }
    let checkpoint = |home: &Home| {
        let files = std::fs::read_dir(home.config()).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|end| end == "checkpoint")).unwrap()
    };
    check(|home| change(home, "DELETE FROM events WHERE seq = 2"), &["audit verify", "restore FILE"]);
    check(
        |home| change(home, "UPDATE state SET body = replace(body, 'prod', 'dev') WHERE kind = 'secret'"),
        &["audit verify", "restore FILE"],
    );
    check(|home| change(home, "DELETE FROM checkpoint"), &["audit verify", "restore FILE"]);
    check(|home| std::fs::remove_file(checkpoint(home)).unwrap(), &["accept-restore --reason REASON"]);
    check(|home| std::fs::write(checkpoint(home), "made up").unwrap(), &["accept-restore --reason REASON"]);
    check(
        |home| {
            let mut bytes = std::fs::read(home.database()).unwrap();
            let (from, to) = (4096 * 2, bytes.len() - 100);
            bytes[from..to].fill(0x5a);
            std::fs::write(home.database(), bytes).unwrap();
        },
        &["restore FILE"],
    );
}
