//! The log away from its vault: written out, checked with what an auditor kept, and rid of names.

mod common;

use common::{Done, Home};

fn vault() -> Home {
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", "sk_live_51MadeUpExample0000KeymoatShop");
    home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
    home
}

/// Writes a checkpoint as an auditor keeps it, and gives the key.
fn keep_checkpoint(home: &Home, file: &str) -> String {
    let done = home.ok(&["audit", "checkpoint"]);
    home.file(file, &done.stdout);
    done.stderr.lines().find_map(|line| line.strip_prefix("key  ")).expect("the key is shown").to_owned()
}

fn lines(home: &Home, file: &str) -> Vec<String> {
    home.read(file).lines().map(str::to_owned).collect()
}

#[track_caller]
fn touched(done: &Done, says: &str) {
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stdout.contains("TOUCHED") && done.stdout.contains(says), "{says}: {done:?}");
}

#[test]
fn an_export_is_checked_without_its_vault() {
    let home = vault();
    let key = keep_checkpoint(&home, "kept");
    home.put("prod", "twilio", "auth_token", "0000b1c2d3e4f5061728394a5b6c7d8e");
    let done = home.ok(&["audit", "export", "--output", "log.jsonl"]);
    assert!(done.stderr.contains("all under the signed checkpoint"), "{done:?}");
    let size: usize = home.read("log.jsonl.checkpoint").lines().nth(1).unwrap().parse().unwrap();
    let records = lines(&home, "log.jsonl");
    assert_eq!(records.len(), size);
    assert!(records.last().unwrap().contains(r#""action":"audit_export""#));
    let again = home.run(&["audit", "export", "--output", "log.jsonl"]);
    assert!(again.code == 2 && again.stderr.contains("there already"), "{again:?}");

    // An auditor has the files, the key and what he kept; no vault.
    let auditor = Home::new();
    for file in ["log.jsonl", "log.jsonl.checkpoint", "kept"] {
        auditor.file(file, &home.read(file));
    }
    let verify = |more: &[&str]| {
        let arguments = [&["audit", "verify", "--export", "log.jsonl", "--key", &key], more].concat();
        auditor.run(&arguments)
    };
    let done = verify(&["--since", "kept"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.contains(&format!("intact: {size} records")) && done.stdout.contains("continue"),
        "{done:?}"
    );
    let done = verify(&["--checkpoint", "kept"]);
    assert!(done.code == 0 && done.stderr.contains("newer lines"), "{done:?}");
    let done = verify(&["--format", "json"]);
    assert!(done.stdout.contains("\"intact\": true"), "{done:?}");

    let with = |records: &[String]| auditor.file("log.jsonl", &(records.join("\n") + "\n"));
    let mut edited = records.clone();
    edited[2] = edited[2].replace("\"result\":\"allowed\"", "\"result\":\"refused\"");
    assert_ne!(edited, records);
    with(&edited);
    touched(&verify(&["--since", "kept"]), "lines 1 to ");
    let mut removed = records.clone();
    removed.remove(4);
    with(&removed);
    touched(&verify(&[]), "line 5: record 4 should stand here");
    with(&records[..size - 1]);
    touched(&verify(&[]), &format!("line {size}: it is missing"));
    with(&records);

    // Another vault's key, another vault's checkpoint, an edited one, one that is no longer there.
    let other = vault();
    let others_key = keep_checkpoint(&other, "kept");
    auditor.file("foreign", &other.read("kept"));
    touched(&auditor.run(&["audit", "verify", "--export", "log.jsonl", "--key", &others_key]), "another log");
    touched(&verify(&["--since", "foreign"]), "another log");
    auditor.file("edited", &home.read("log.jsonl.checkpoint").replace(&format!("\n{size}\n"), "\n3\n"));
    touched(&verify(&["--checkpoint", "edited"]), "not signed by this key");
    touched(&verify(&["--checkpoint", "kept", "--since", "log.jsonl.checkpoint"]), "the log was cut");
    for wrong in [&["--since", "nowhere"][..], &["--proof", "kept"]] {
        assert_eq!(verify(wrong).code, 2);
    }
    assert_eq!(auditor.run(&["audit", "verify", "--export", "log.jsonl", "--key", "made-up"]).code, 2);
    assert_eq!(auditor.run(&["audit", "verify", "--export", "log.jsonl"]).code, 2);
    assert_eq!(auditor.run(&["audit", "verify", "--key", &key]).code, 2);
}

#[test]
fn a_history_that_was_put_back_and_written_anew_does_not_continue_the_kept_checkpoint() {
    let home = vault();
    let (older, config) = (home.path().join("older"), home.path().join("config"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(done.success());
    };
    copy(&home.data(), &older);
    copy(&home.config(), &config);
    home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
    let key = keep_checkpoint(&home, "kept");
    // Both directories are put back together: the vault itself cannot notice.
    for (saved, place) in [(&older, home.data()), (&config, home.config())] {
        std::fs::remove_dir_all(&place).unwrap();
        copy(saved, &place);
    }
    for _ in 0..5 {
        home.ok(&["list", "--env", "prod"]);
    }
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    home.ok(&["audit", "export", "--output", "log.jsonl"]);
    home.ok(&["audit", "verify", "--export", "log.jsonl", "--key", &key]);
    let done = home.run(&["audit", "verify", "--export", "log.jsonl", "--key", &key, "--since", "kept"]);
    touched(&done, "not the record that was signed");
}

#[test]
fn a_proof_is_checked_without_its_vault() {
    let home = vault();
    let key = keep_checkpoint(&home, "kept");
    let proof = home.ok(&["audit", "prove", "3"]).stdout;
    let auditor = Home::new();
    auditor.file("proof.json", &proof);
    let verify = |file: &str| auditor.run(&["audit", "verify", "--proof", file, "--key", &key]);
    let done = verify("proof.json");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.starts_with("in the log: record 3") && done.stdout.contains(r#""seq":3"#),
        "{done:?}"
    );
    auditor.file("moved.json", &proof.replacen("\n  \"seq\": 3,", "\n  \"seq\": 4,", 1));
    touched(&verify("moved.json"), "record 4 is not in the log");
    auditor.file("edited.json", &proof.replace("\\\"seq\\\":3", "\\\"seq\\\":5"));
    touched(&verify("edited.json"), "record 3 is not in the log");
    auditor.file("shown.json", &proof.replace("\"result\": \"allowed\"", "\"result\": \"refused\""));
    touched(&verify("shown.json"), "beside the record");
}

#[test]
fn a_part_of_the_log_says_that_it_is_one() {
    let home = vault();
    let done = home.ok(&["audit", "export", "--output", "part.jsonl", "--path", "stripe", "--env", "prod"]);
    assert!(done.stderr.contains("cannot be verified as a whole"), "{done:?}");
    assert!(lines(&home, "part.jsonl").iter().all(|record| record.contains("\"path\":\"stripe\"")));
    assert!(!home.path().join("part.jsonl.checkpoint").exists());
    // The environment that the shell is set to does not make a part of a whole export.
    let whole = home.ok(&["audit", "export", "--env", "prod"]);
    assert!(whole.stdout.contains("\"scope\":\"sys\"") && whole.stderr.contains("all under"), "{whole:?}");
}

#[test]
fn names_are_erased_and_the_log_stays_intact() {
    let home = vault();
    let shown = home.ok(&["audit", "query", "--action", "reveal", "--format", "json"]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let account = shown[0]["actor_name"].as_str().unwrap().to_owned();
    let unasked = home.run(&["audit", "erase-personal", "--account", &account]);
    assert!(unasked.code == 1 && unasked.stderr.contains("--yes"), "{unasked:?}");
    assert_eq!(home.run(&["audit", "erase-personal", "--yes"]).code, 2);
    let key = keep_checkpoint(&home, "kept");
    home.ok(&["audit", "erase-personal", "--account", &account, "--yes"]);
    let shown = home.ok(&["audit", "query", "--action", "reveal", "--format", "json"]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["actor_name"], serde_json::Value::Null);
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
    home.ok(&["audit", "export", "--output", "log.jsonl"]);
    home.ok(&["audit", "verify", "--export", "log.jsonl", "--key", &key, "--since", "kept"]);
}
