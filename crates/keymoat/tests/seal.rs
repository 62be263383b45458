//! `keymoat seal` and `unseal` with the real program: by file, passphrase and shares, and a server that starts sealed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::PathBuf;

use common::{Done, Home};

fn key_file(home: &Home) -> PathBuf {
    let mut entries = std::fs::read_dir(home.config()).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.extension().is_some_and(|extension| extension == "key")).unwrap()
}

fn reveal(home: &Home) -> Done {
    home.run(&["reveal", "stripe#key", "--env", "prod"])
}

fn audited(home: &Home, action: &str) -> Vec<serde_json::Value> {
    let done = home.ok(&["audit", "query", "--action", action, "--format", "json"]);
    serde_json::from_str(&done.stdout).unwrap()
}

#[track_caller]
fn check_sealed(home: &Home) {
    let refused = reveal(home);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{refused:?}");
    assert!(refused.stderr.contains("sealed") && refused.stderr.contains("keymoat unseal"), "{refused:?}");
    let status = home.run(&["status"]);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.stdout.contains("state     sealed") && !status.stdout.contains("holds"), "{status:?}");
}

/// Whether a text is anywhere in the memory of a program, as root sees it.
fn is_in_memory(pid: u32, text: &[u8]) -> std::io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};

    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split_once(' ').map_or(line, |(range, _)| range);
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // What cannot be read is no memory of its own.
        if memory.seek(SeekFrom::Start(start)).and_then(|_| memory.read_exact(&mut bytes)).is_ok()
            && bytes.windows(text.len()).any(|window| window == text)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_sealed_server_has_no_master_key_left_from_its_environment() {
    let home = Home::with_vault();
    let file = key_file(&home);
    let key = std::fs::read_to_string(&file).unwrap();
    let text = key.trim().as_bytes();
    std::fs::remove_file(&file).unwrap();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("KEYMOAT_MASTER_KEY", key.trim());
    let server = home.start_server(command);
    assert_eq!(home.run(&["status"]).code, 0);
    home.ok(&["seal"]);
    match is_in_memory(server.child.id(), text) {
        Ok(is_there) => assert!(!is_there, "the master key is still in the server's memory"),
        Err(error) => eprintln!("SKIP seal::memory_of_the_server: cannot look into it: {error}"),
    }
    // The search finds what is there.
    assert!(is_in_memory(std::process::id(), text).is_ok_and(|is_there| is_there));
}

#[test]
fn a_sealed_server_serves_again_when_the_key_file_comes() {
    let home = Home::new();
    let server = home.serve();
    home.put("prod", "stripe", "key", "a made-up value");
    let sealed = home.ok(&["seal"]);
    assert!(sealed.stderr.contains("sealed") && sealed.stderr.contains("keymoat unseal"), "{sealed:?}");
    check_sealed(&home);
    assert!(home.ok(&["seal"]).stderr.contains("already"));
    let doctor = home.run(&["doctor"]);
    assert!(doctor.stdout.contains("is sealed"), "{doctor:?}");
    let run = home.run(&["run", "--env", "prod", "--map", "KEY=stripe#key", "--", "touch", "started"]);
    assert_eq!(run.code, 125, "{run:?}");
    assert!(run.stderr.contains("sealed") && run.stderr.contains("keymoat unseal"), "{run:?}");
    assert!(!home.path().join("started").exists());

    // Another vault's key does not fit, and says so.
    let other = Home::with_vault();
    let wrong = home.run(&["unseal", "--key-file", key_file(&other).to_str().unwrap()]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("does not fit"), "{wrong:?}");
    check_sealed(&home);

    // The configured one is found by itself.
    assert!(home.ok(&["unseal"]).stderr.contains("serves again"));
    assert_eq!(reveal(&home).stdout, "a made-up value\n");
    assert!(home.ok(&["unseal"]).stderr.contains("not sealed"));
    assert_eq!(audited(&home, "seal").len(), 1);
    let unsealed = audited(&home, "unseal");
    assert_eq!(unsealed[0]["event"]["details"]["failed_attempts"], "1", "{unsealed:?}");
    assert!(unsealed[0]["actor_name"].as_str().unwrap().starts_with("os:"), "{unsealed:?}");

    // Sealed, it is stopped as always, and the vault is as it was.
    home.ok(&["seal"]);
    assert_eq!(server.interrupt(), 0);
    assert_eq!(reveal(&home).stdout, "a made-up value\n");
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
}

#[test]
fn without_its_passphrase_a_server_starts_sealed() {
    let home = Home::new();
    std::fs::create_dir_all(home.config()).unwrap();
    let passphrase = home.file("passphrase", "a made-up passphrase of a test\n");
    let mut init = home.command(&["init", "--master-key", "passphrase"]);
    let made = common::done(init.env("KEYMOAT_PASSPHRASE_FILE", &passphrase).output().unwrap());
    assert_eq!(made.code, 0, "{made:?}");
    let server = home.serve();
    let log = server.log();
    for part in ["sealed", "opens with   a passphrase", "keymoat unseal", "Ctrl-C stops it."] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let asked = home.run(&["unseal"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    let wrong = home.run_with_stdin(&["unseal", "--passphrase-file", "-"], "another made-up passphrase\n");
    assert!(wrong.code == 2 && wrong.stderr.contains("does not fit"), "{wrong:?}");
    let right =
        home.run_with_stdin(&["unseal", "--passphrase-file", "-"], "a made-up passphrase of a test\n");
    assert_eq!(right.code, 0, "{right:?}");
    home.put("prod", "stripe", "key", "a made-up value");
    assert_eq!(reveal(&home).stdout, "a made-up value\n");
    assert_eq!(audited(&home, "start").len(), 1);
    assert_eq!(audited(&home, "unseal").len(), 1);
    assert_eq!(server.interrupt(), 0);
    let server = home.serve();
    assert_eq!(server.interrupt(), 0, "a server that was never opened stops like any other");
}

#[test]
fn shares_are_given_one_by_one_by_several_people() {
    let home = Home::new();
    std::fs::create_dir_all(home.config()).unwrap();
    let made = home.ok(&["init", "--master-key", "shamir", "--needed", "2", "--shares", "3"]);
    let shares: Vec<&str> = made.stdout.lines().collect();
    assert_eq!(shares.len(), 3, "{made:?}");
    let server = home.serve();
    assert!(server.log().contains("2 of 3 shares"), "{}", server.log());
    let give = |share: &str| home.run_with_stdin(&["unseal", "--shares-file", "-"], share);
    assert!(give(shares[0]).stderr.contains("1 of 2 shares"), "the first waits");
    assert!(home.ok(&["unseal", "--reset"]).stderr.contains("forgotten"));
    let first = give(shares[1]);
    assert!(first.code == 0 && first.stderr.contains("1 of 2 shares"), "{first:?}");
    check_sealed(&home);
    let mistyped = give(&shares[2].replace("share-1:", "share-1:0"));
    assert_eq!(mistyped.code, 2, "{mistyped:?}");
    // The second person comes over the network.
    let far = home.run_with_stdin(
        &["unseal", "--shares-file", "-", "--server", &server.address()],
        &format!("{}\n", shares[2]),
    );
    assert!(far.code == 0 && far.stderr.contains("serves again"), "{far:?}");
    home.put("prod", "stripe", "key", "a made-up value");
    assert_eq!(audited(&home, "unseal")[0]["event"]["details"]["shares"], "2");
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn a_server_that_is_told_to_starts_sealed() {
    let home = Home::new();
    let refused = home.run(&["serve", "--sealed", "--listen", "127.0.0.1:0"]);
    assert!(refused.code == 2 && refused.stderr.contains("no vault"), "{refused:?}");
    home.ok(&["init"]);
    let server = home.serve_with(&["--sealed"]);
    check_sealed(&home);
    home.ok(&["unseal"]);
    assert!(home.ok(&["status"]).stdout.contains("state     fine"));
    assert_eq!(server.interrupt(), 0);
}

#[test]
fn without_a_server_there_is_nothing_to_seal() {
    let home = Home::with_vault();
    for command in ["seal", "unseal"] {
        let done = home.run(&[command]);
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.stderr.contains("no server is running"), "{done:?}");
    }
}
