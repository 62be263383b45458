//! `keymoat scan` on real git repositories: what it finds, the forms of its report, its baseline, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/repository.rs"]
mod repository;

use std::process::Stdio;

use common::{Done, Home};
use repository::Repository;
use serde_json::Value;

const LIVE: &str = "sk_live_51MadeUpExample0000Keymoat4242";
const GONE: &str = "sk_live_51MadeUpExample0000Keymoat7777";
const TEST: &str = "sk_test_51MadeUpExample0000Keymoat4242";
const TOKEN: &str = "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";

/// A shop with a live key in `HEAD`, one that a later commit took out, and a test key; pushed to a public host.
fn shop(home: &Home) -> Repository<'_> {
    let shop = Repository::new(home, "shop");
    shop.write("shop/settings.py", &format!("import os\n\nSTRIPE_SECRET_KEY = '{LIVE}'\n"));
    shop.write("deploy/old.env", &format!("STRIPE_SECRET_KEY={GONE}\n"));
    shop.commit("Add payments");
    shop.write("deploy/old.env", "STRIPE_SECRET_KEY=keymoat:stripe#secret_key\n");
    shop.write("tests/settings.py", &format!("STRIPE_SECRET_KEY = '{TEST}'\n"));
    shop.commit("Take the key out");
    shop.git(&["remote", "add", "origin", "https://github.com/acme/shop.git"]);
    shop
}

#[track_caller]
fn found(done: &Done) -> Value {
    assert_eq!(done.code, 1, "{done:?}");
    serde_json::from_str(&done.stdout).unwrap()
}

#[track_caller]
fn holds_no_value(text: &str) {
    for value in [LIVE, GONE, TEST, TOKEN] {
        assert!(!text.contains(&value[10..value.len() - 4]), "{text}");
    }
}

#[test]
fn a_repository_is_told_with_its_history() {
    let home = Home::new();
    let shop = shop(&home);
    let done = shop.keymoat(&["scan"]);
    assert_eq!(done.code, 1, "{done:?}");
    for part in [
        "CRITICAL  Stripe\n",
        "Stripe secret key, live  sk_live_…4242, in a repository that anybody may be able to read\n      shop/settings.py:3  still in HEAD, since 2021-03-04 in ",
        " by Ann <ann@acme.test>\n",
        "sk_live_…7777",
        "deploy/old.env:1  only in history, since 2021-03-04",
        "TEST  Stripe\n",
        "tests/settings.py:1  still in HEAD, since 2021-03-05",
        "\n3 exposed keys: 2 critical, 1 test. In the current version: 2; only in its history: 1. 3 are in a repository",
        "Begin with the live Stripe secret key in shop/settings.py:3.",
        "keymoat put stripe secret_key=- --env prod",
    ] {
        assert!(done.stdout.contains(part), "{part}\n---\n{}", done.stdout);
    }
    holds_no_value(&format!("{done:?}"));
    let order: Vec<usize> =
        ["…4242, in", "…7777", "TEST"].iter().map(|part| done.stdout.find(part).unwrap()).collect();
    assert!(order.is_sorted(), "{}", done.stdout);

    // A directory within finds the repository; the files alone have no history.
    let within = shop.in_dir("shop", &["scan", "--format", "json"]);
    assert_eq!(found(&within)["summary"]["findings"], 3);
    let files = found(&shop.keymoat(&["scan", "--no-history", "--format", "json"]));
    assert_eq!(files["summary"]["findings"], 2);
    let named = found(&shop.keymoat(&["scan", "deploy", "shop", "--format", "json"]));
    assert_eq!(named["findings"][0]["places"][0]["path"], "shop/settings.py");
}

#[test]
fn every_form_is_written() {
    let home = Home::new();
    let shop = shop(&home);
    for (form, begins) in [
        ("text", "CRITICAL"),
        ("json", "{\n  \"format\": \"keymoat-scan-1\""),
        ("jsonl", "{\"type\":\"finding\""),
        ("sarif", "{\n  \"$schema\""),
        ("html", "<!doctype html>"),
        ("csv", "\u{feff}level,provider"),
    ] {
        let done = shop.keymoat(&["scan", "--format", form]);
        assert!(done.code == 1 && done.stdout.starts_with(begins), "{form}: {done:?}");
        holds_no_value(&done.stdout);
    }
    // The file's name says the form as well; nothing else stays in the directory.
    let out = home.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let done = shop.keymoat(&["scan", "-o", "../out/report.html"]);
    assert!(done.code == 1 && done.stdout.is_empty() && done.stderr.contains("3 exposed keys"), "{done:?}");
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().ends_with("</html>\n"));
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
    // Other commands have two forms.
    assert_eq!(home.run(&["provider", "list", "--format", "html"]).code, 2);
    assert_eq!(home.run(&["provider", "list", "--format", "json"]).code, 0);
}

#[test]
fn files_streams_and_what_is_not_there() {
    let home = Home::new();
    home.file("log.txt", &format!("one\ntwo key={TOKEN}\n"));
    home.file("clean.txt", "nothing here\n");
    let check = |arguments: &[&str], code: i32, says: &str| {
        let done = home.run(&[&["scan"], arguments].concat());
        assert!(done.code == code && format!("{}{}", done.stdout, done.stderr).contains(says), "{done:?}");
        holds_no_value(&format!("{done:?}"));
    };
    check(&["log.txt"], 1, "log.txt:2  in a file");
    check(&["clean.txt"], 0, "No exposed keys were found.");
    check(&["clean.txt", "log.txt"], 1, "1 exposed key: ");
    check(&["nothing.txt"], 2, "cannot look into `nothing.txt`");
    check(&["--staged"], 2, "not a git repository");
    check(&["log.txt", "--baseline", "none"], 2, "--update-baseline makes it");
    check(&["log.txt", "-o", "none/report.html"], 2, "cannot write");
    check(&["log.txt", "--update-baseline"], 2, "--baseline");
    std::fs::write(home.path().join("sealed.7z"), b"7z\xbc\xaf\x27\x1c\0\x04").unwrap();
    check(&["sealed.7z"], 2, "not read: sealed.7z is packed as 7z, which nothing here opens");
    check(&["sealed.7z", "log.txt"], 1, "not read: sealed.7z is packed as 7z");
    let done = home.run_with_stdin(&["scan", "-"], &format!("Authorization: {TOKEN}\n"));
    assert!(done.code == 1 && done.stdout.contains("stdin:1"), "{done:?}");
    let done = home.run_with_stdin(&["scan", "-"], "nothing\n");
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_baseline_leaves_only_what_is_new() {
    let home = Home::new();
    let shop = shop(&home);
    let scan = |more: &[&str]| shop.keymoat(&[&["scan", "--baseline", ".keymoat-baseline"], more].concat());
    let made = scan(&["--update-baseline"]);
    assert!(made.code == 1 && made.stderr.contains("knows 3 findings, 3 of them new"), "{made:?}");
    let first = home.read("shop/.keymoat-baseline");
    holds_no_value(&first);
    let again = scan(&[]);
    assert!(again.code == 0 && again.stdout.contains("3 more are known"), "{again:?}");
    // Another line, another file, another commit: the same values.
    shop.write("shop/settings.py", &format!("import os\n\n\n\n# moved\nSTRIPE_SECRET_KEY = '{LIVE}'\n"));
    shop.write("shop/copy.py", &format!("KEY = '{LIVE}'\n"));
    shop.commit("Move things");
    assert_eq!(scan(&[]).code, 0);
    shop.write("shop/shopify.py", &format!("TOKEN = '{TOKEN}'\n"));
    let new = found(&scan(&["--format", "json"]));
    assert_eq!((&new["summary"]["findings"], &new["summary"]["known"]), (&1.into(), &3.into()));
    assert_eq!(new["findings"][0]["provider"], "shopify");
    // What was written stays, what is new comes in its place in the order: git merges that.
    scan(&["--update-baseline"]);
    let second = home.read("shop/.keymoat-baseline");
    assert!(first.lines().all(|line| second.contains(line)), "{second}");
    let lines: Vec<&str> = second.lines().skip(3).collect();
    assert!(lines.len() == 4 && lines.is_sorted(), "{second}");
    assert_eq!(scan(&[]).code, 0);
    home.file("shop/.keymoat-baseline", "nonsense\n");
    let broken = scan(&[]);
    assert!(broken.code == 2 && broken.stderr.contains("line 1 is neither"), "{broken:?}");
}

#[test]
fn what_is_staged_and_what_is_allowed() {
    let home = Home::new();
    let shop = shop(&home);
    let staged = || shop.keymoat(&["scan", "--staged", "--format", "json"]);
    assert_eq!(staged().code, 0);
    shop.write("new.py", &format!("TOKEN = '{TOKEN}'\n"));
    assert_eq!(staged().code, 0);
    shop.git(&["add", "new.py"]);
    let document = found(&staged());
    assert_eq!(document["findings"][0]["places"][0]["reach"], "staged");
    assert_eq!(document["summary"]["findings"], 1);
    shop.write("new.py", &format!("TOKEN = '{TOKEN}'  # keymoat:allow made up for a test\n"));
    shop.git(&["add", "new.py"]);
    assert_eq!(staged().code, 0);
}

#[test]
fn histories_of_submodules_are_searched() {
    let home = Home::new();
    let library = Repository::new(&home, "library");
    library.write("old.env", &format!("SHOPIFY_TOKEN={TOKEN}\n"));
    library.commit("Begin");
    library.write("old.env", "SHOPIFY_TOKEN=\n");
    library.commit("Take the token out");
    let shop = shop(&home);
    let url = format!("file://{}", library.path("").display());
    shop.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &url, "vendor/library"]);
    let document = found(&shop.keymoat(&["scan", "--format", "json"]));
    let findings = document["findings"].as_array().unwrap();
    let token = findings.iter().find(|finding| finding["provider"] == "shopify").unwrap();
    let place = &token["places"][0];
    assert_eq!((&place["path"], &place["reach"]), (&"vendor/library/old.env".into(), &"history".into()));
    let target = |index: usize| &document["targets"][index]["name"];
    assert_eq!((target(0), target(1)), (&"shop".into(), &"vendor/library".into()));
    // Of several targets each place is told from its target on; the submodule stays where it is.
    let several = found(&home.run(&["scan", "shop", "library", "--format", "json"]));
    let paths: Vec<&str> = several["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["provider"] == "shopify")
        .flat_map(|finding| finding["places"].as_array().unwrap())
        .map(|place| place["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["library/old.env", "shop/vendor/library/old.env"]);
}

#[test]
fn an_own_catalogue_adds_to_what_is_found() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("providers")).unwrap();
    home.file(
        "providers/acme.toml",
        "id = \"acme\"\nname = \"Acme\"\n[links]\ndocs = \"https://acme.test/docs\"\n[[key]]\nid = \"secret\"\nkind = \"secret\"\nfield = \"secret_key\"\n\
         prefixes = [\"acmeshop_\"]\npattern = \"acmeshop_[0-9A-Za-z]{32}\"\nmin_entropy = 3.0\nvariables = [\"ACME_SHOP_KEY\"]\n\
         examples = [\"acmeshop_MadeUpExample0000KeymoatTest1234\"]\ncounter_examples = [\"acmeshop_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"]\n",
    );
    home.file("a.txt", "see acmeshop_MadeUpExample0000KeymoatTest9876 there\n");
    assert_eq!(home.run(&["scan", "a.txt"]).code, 0);
    let done = home.run(&["scan", "a.txt", "--catalogue", "providers"]);
    assert!(done.code == 1 && done.stdout.contains("Acme secret key  acmeshop_…9876"), "{done:?}");
    assert_eq!(home.run(&["scan", "a.txt", "--catalogue", "none"]).code, 2);
    // A pattern that backtracks elsewhere takes linear time here; one that is too large is refused.
    let text = home.read("providers/acme.toml");
    let with = |pattern: &str| text.replace("acmeshop_[0-9A-Za-z]{32}", pattern);
    home.file("long.txt", &format!("acmeshop_{}!", "aB3d".repeat(200_000)));
    home.file("providers/acme.toml", &with("acmeshop_(?:[0-9A-Za-z]+)+(?:[0-9A-Za-z]*)*"));
    let done = home.run(&["scan", "a.txt", "long.txt", "--catalogue", "providers"]);
    assert!(done.code == 1 && done.stdout.contains("acmeshop_…9876"), "{done:?}");
    home.file("providers/acme.toml", &with("acmeshop_(?:(?:[a-z]{1,100}){1,100}){1,100}"));
    let done = home.run(&["scan", "a.txt", "--catalogue", "providers"]);
    assert!(done.code == 2 && done.stderr.contains("the pattern does not compile"), "{done:?}");
}

#[test]
fn files_that_git_would_take_are_told() {
    let home = Home::new();
    let shop = Repository::new(&home, "shop");
    shop.write(".env", "DEBUG=1\n");
    let done = shop.keymoat(&["scan"]);
    assert!(done.code == 0 && done.stdout.contains("warning: `.env` is not ignored by git"), "{done:?}");
    shop.write(".gitignore", ".env\n");
    let done = shop.keymoat(&["scan"]);
    assert!(done.code == 0 && !done.stdout.contains("warning"), "{done:?}");
}

#[test]
fn an_interrupt_leaves_no_report() {
    let home = Home::new();
    let mut command = home.command(&["scan", "-", "-o", "report.html"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It reads stdin, which never ends, once it has taken what the pipe cannot hold.
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &vec![b'\n'; 4 << 20]).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = child.wait_with_output().unwrap();
    drop(stdin);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && said.contains("there is no report"), "{said}");
    let left: Vec<_> =
        std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("report")), "{left:?}");
}
