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
