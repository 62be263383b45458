//! `keymoat serve`: the first start, the second, the commands beside it, the end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::Home;

#[test]
fn the_first_start_makes_a_vault_and_the_second_says_nothing_alarming() {
    let home = Home::new();
    let server = home.serve();
    let first = server.log();
    for part in ["made and serves", "listens on", "socket", "data", "master key", "keymoat login", "code"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(first.lines().count() <= 24, "one screen: {first}");
    assert_eq!(server.interrupt(), 0);
    assert!(!home.data().join("keymoat.sock").exists());

    let server = home.serve();
    let second = server.log();
    for part in ["code", "warn", "error", "made"] {
        assert!(!second.contains(part), "{part}: {second}");
    }
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn commands_beside_a_server_speak_to_it() {
    let home = Home::new();
    let server = home.serve();
    home.put("prod", "stripe", "secret_key", "sk_live_51MadeUpExample0000KeymoatShop");
    let status = home.ok(&["status"]);
    assert!(status.stdout.contains("state     fine\n"), "{}", status.stdout);
    let revealed = home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
    assert_eq!(revealed.stdout, "sk_live_51MadeUpExample0000KeymoatShop\n");
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    assert_eq!(server.interrupt(), 0);
    // The vault is as the server left it.
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    assert_eq!(home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]).stdout, revealed.stdout);
}

#[test]
fn records_may_stay_with_the_operating_system_and_it_says_so() {
    let home = Home::new();
    let server = home.serve_with(&["--durability", "os"]);
    assert!(server.log().contains("a power cut may take those of the last reads"), "{}", server.log());
    home.put("prod", "stripe", "secret_key", "sk_live_51MadeUpExample0000KeymoatShop");
    let revealed = home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
    assert_eq!(revealed.stdout, "sk_live_51MadeUpExample0000KeymoatShop\n");
    assert_eq!(server.interrupt(), 0);
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
}

#[test]
fn a_second_server_is_turned_away() {
    let home = Home::new();
    let server = home.serve();
    let second = home.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, 2);
    assert!(second.stderr.contains("in use by another Keymoat process"), "{second:?}");
    assert!(second.stderr.contains(&server.child.id().to_string()), "{second:?}");
}

#[test]
fn plain_http_stays_on_this_machine_unless_told() {
    let home = Home::new();
    let done = home.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("in the clear") && done.stderr.contains("--plain-http"), "{done:?}");
    assert!(!home.database().exists(), "nothing was made");
}

#[test]
fn an_administrator_elsewhere_signs_in_with_the_code_once() {
    let home = Home::new();
    let server = home.serve();
    let log = server.log();
    let code = log.lines().find_map(|line| line.split_once("code ")).unwrap().1.trim().to_owned();
    let address = server.address();
    let elsewhere = Home::new();
    let signed_in = elsewhere.run_with_stdin(&["login", "--server", &address], &code);
    assert_eq!(signed_in.code, 0, "{signed_in:?}");
    let who = elsewhere.ok(&["status", "--server", &address]);
    assert!(who.stdout.contains("you are   admin (user)"), "{who:?}");
    let again = elsewhere.run_with_stdin(&["login", "--server", &address], &code);
    assert_eq!(again.code, 1, "{again:?}");

    // An administrator reads no values by default.
    home.put("prod", "stripe", "secret_key", "sk_live_51MadeUpExample0000KeymoatShop");
    let refused = elsewhere.run(&["reveal", "stripe#secret_key", "--env", "prod", "--server", &address]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("may not reveal"), "{refused:?}");
    assert_eq!(refused.stdout, "");
}

#[test]
fn a_wrong_master_key_opens_nothing_and_says_what_to_do() {
    let home = Home::with_vault();
    let other = Home::with_vault();
    let key = |home: &Home| {
        std::fs::read_dir(home.config())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "key"))
            .unwrap()
    };
    std::fs::copy(key(&other), key(&home)).unwrap();
    let done = home.run(&["list", "--env", "prod"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("does not fit"), "{done:?}");
    std::fs::remove_file(key(&home)).unwrap();
    let done = home.run(&["list", "--env", "prod"]);
    assert!(
        done.stderr.contains("no master key") && done.stderr.contains("KEYMOAT_MASTER_KEY_FILE"),
        "{done:?}"
    );
}

#[test]
fn a_vault_that_is_gone_is_not_replaced_without_a_word() {
    let home = Home::with_vault();
    std::fs::remove_dir_all(home.data()).unwrap();
    let refused = home.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("is gone") && refused.stderr.contains("--new-vault"), "{refused:?}");
    home.ok(&["init", "--new-vault"]);
}

#[test]
fn what_is_written_into_a_removed_file_is_not_acknowledged() {
    let home = Home::new();
    let server = home.serve();
    home.put("prod", "before", "x", "a made-up value");
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", home.database().display())).unwrap();
    }
    let done = home.run_with_stdin(&["put", "after", "x=-", "--env", "prod"], "a made-up value");
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("removed or replaced"), "{done:?}");
    drop(server);
}

#[test]
fn commands_without_a_server_wait_for_one_another() {
    let home = Home::with_vault();
    let children: Vec<_> = (0..6)
        .map(|n| {
            let mut command = home.command(&["put", &format!("at-once-{n}"), "x=-", "--env", "prod"]);
            std::thread::spawn(move || {
                common::feed(
                    {
                        command.env("LC_ALL", "C");
                        command
                    },
                    "a made-up value",
                )
            })
        })
        .collect();
    for child in children {
        let done = child.join().unwrap();
        assert_eq!(done.code, 0, "{done:?}");
    }
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
}

#[test]
fn an_empty_token_is_nobody() {
    let home = Home::with_vault();
    let mut command = home.command(&["list", "--env", "prod"]);
    let done = common::done(command.env("KEYMOAT_TOKEN", "").output().unwrap());
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.stderr.contains("set and empty"), "{done:?}");
}

/// What a plain HTTP request gets: status and all.
fn get(address: &str, path: &str, host: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_on_this_machine_answers_to_its_own_names() {
    let home = Home::new();
    let server = home.serve_with(&["--host-name", "vault.example.test"]);
    let status = |host: &str| get(&server.address(), "/healthz", host)[9..12].to_owned();
    for (host, expected) in
        [("localhost", "200"), ("127.0.0.1:1", "200"), ("vault.example.test", "200"), ("evil.test", "421")]
    {
        assert_eq!(status(host), expected, "{host}");
    }
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn metrics_are_open_only_when_told() {
    for (flags, expected) in [(&[][..], "401"), (&["--open-metrics"], "200")] {
        let home = Home::new();
        let server = home.serve_with(flags);
        let metrics = get(&server.address(), "/metrics", "localhost");
        assert_eq!(&metrics[9..12], expected, "{metrics}");
        assert_eq!(server.interrupt(), 0);
    }
}

#[test]
fn the_service_manager_is_told_that_it_is_ready_and_whether_it_is_sealed() {
    let home = Home::new();
    home.ok(&["init"]);
    let manager = std::os::unix::net::UnixDatagram::bind(home.path().join("notify")).unwrap();
    let heard = || {
        let mut buffer = [0; 200];
        let read = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let mut command = home.command(&["serve", "--sealed", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", home.path().join("notify"));
    let mut server = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    assert!(heard().starts_with("READY=1\nSTATUS=sealed"));
    home.ok(&["unseal"]);
    assert_eq!(heard(), "READY=1\nSTATUS=serving\n");
    home.ok(&["seal"]);
    assert!(heard().starts_with("READY=1\nSTATUS=sealed"));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(heard().starts_with("STOPPING=1"));
    assert_eq!(server.wait().unwrap().code(), Some(0));
}
