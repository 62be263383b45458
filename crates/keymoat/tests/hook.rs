//! `keymoat hook` with real git: commits and pushes with keys are refused, hooks of before go on, and all goes away again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "common/repository.rs"]
mod repository;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::Home;
use repository::Repository;

const TOKEN: &str = "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";

fn executable(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_commit_with_a_key_is_refused() {
    let home = Home::new();
    let shop = Repository::new(&home, "shop");
    let installed = shop.keymoat(&["hook", "install"]);
    assert!(installed.code == 0 && installed.stderr.contains("has no `.env`"), "{installed:?}");
    assert_eq!(shop.keymoat(&["hook", "install"]).code, 0);

    shop.write("a.py", "A = 1\n");
    shop.git(&["add", "a.py"]);
    shop.git(&["commit", "--quiet", "-m", "Without"]);
    shop.write("a.py", &format!("TOKEN = '{TOKEN}'\n"));
    // Git hands the hook another index here than the usual one.
    let refused = shop.try_git(&["commit", "--quiet", "--all", "-m", "With"]);
    assert!(refused.code != 0 && refused.stderr.contains("The commit was refused."), "{refused:?}");
    assert!(refused.stderr.contains("a.py:1") && !refused.stderr.contains(&TOKEN[8..]), "{refused:?}");
    shop.git(&["add", "a.py"]);
    assert_ne!(shop.try_git(&["commit", "--quiet", "-m", "With"]).code, 0);
    // A baseline that the repository keeps is used.
    let known = shop.keymoat(&["scan", "--staged", "--baseline", ".keymoat-baseline", "--update-baseline"]);
    assert_eq!(known.code, 1, "{known:?}");
    shop.git(&["commit", "--quiet", "-m", "Known"]);
}

#[test]
fn hooks_of_before_go_on_and_come_back() {
    let home = Home::new();
    let shop = Repository::new(&home, "shop");
    shop.git(&["config", "core.hooksPath", ".githooks"]);
    let hook = shop.path(".githooks/pre-commit");
    let before = "#!/bin/sh\necho ran >> before.log\n[ ! -e refuse ]\n";
    executable(&hook, before);
    let installed = shop.keymoat(&["hook", "install"]);
    assert!(
        installed.code == 0 && installed.stderr.contains("pre-commit.before-keymoat` first"),
        "{installed:?}"
    );
    // Installing once more must not take our own hook for the one of before.
    assert_eq!(shop.keymoat(&["hook", "install"]).code, 0);

    shop.write("a.py", "A = 1\n");
    shop.git(&["add", "a.py"]);
    shop.write("refuse", "");
    assert_ne!(shop.try_git(&["commit", "--quiet", "-m", "Refused by the other"]).code, 0);
    std::fs::remove_file(shop.path("refuse")).unwrap();
    shop.git(&["commit", "--quiet", "-m", "Allowed by both"]);
    shop.write("a.py", &format!("TOKEN = '{TOKEN}'\n"));
    shop.git(&["add", "a.py"]);
    assert_ne!(shop.try_git(&["commit", "--quiet", "-m", "Refused by ours"]).code, 0);
    assert_eq!(home.read("shop/before.log").lines().count(), 3);

    assert_eq!(shop.keymoat(&["hook", "uninstall"]).code, 0);
    assert_eq!(std::fs::read_to_string(&hook).unwrap(), before);
    assert_eq!(shop.keymoat(&["hook", "uninstall"]).code, 1);
}

#[test]
fn hooks_of_other_repositories_are_left_alone() {
    let home = Home::new();
    let shop = Repository::new(&home, "shop");
    shop.git(&["config", "core.hooksPath", "../shared"]);
    let refused = shop.keymoat(&["hook", "install"]);
    assert!(refused.code == 2 && refused.stderr.contains("--shared"), "{refused:?}");
    assert!(!home.path().join("shared").exists());
    assert_eq!(shop.keymoat(&["hook", "install", "--shared"]).code, 0);
    assert!(home.path().join("shared/pre-commit").exists());
    assert_eq!(home.run(&["hook", "install"]).code, 2);
}

#[test]
fn a_push_with_a_key_is_refused() {
    let home = Home::new();
    let server = Repository::new(&home, "server");
    server.git(&["config", "receive.denyCurrentBranch", "ignore"]);
    executable(&server.path(".git/hooks/pre-receive"), "#!/bin/sh\ncat >> \"$GIT_DIR/pushed.log\"\n");
    assert_eq!(server.keymoat(&["hook", "install", "pre-receive"]).code, 0);
    let shop = Repository::new(&home, "shop");
    shop.git(&["remote", "add", "origin", "../server"]);
    shop.write("a/b.py", "A = 1\n");
    shop.commit("Without");
    shop.git(&["push", "--quiet", "origin", "main"]);
    shop.write("a/b.py", &format!("TOKEN = '{TOKEN}'\n"));
    shop.commit("With");
    shop.write("a/b.py", "TOKEN = 'keymoat:shopify#access_token'\n");
    shop.commit("Taken out again, too late");
    let refused = shop.try_git(&["push", "--quiet", "origin", "main"]);
    assert!(refused.code != 0 && refused.stderr.contains("The push was refused."), "{refused:?}");
    assert!(refused.stderr.contains("a/b.py:1") && !refused.stderr.contains(&TOKEN[8..]), "{refused:?}");
    shop.git(&["reset", "--quiet", "--soft", "HEAD~2"]);
    shop.commit("Without");
    shop.git(&["push", "--quiet", "origin", "main"]);
    shop.git(&["push", "--quiet", "origin", "main:other"]);
    shop.git(&["push", "--quiet", "origin", ":other"]);
    assert_eq!(home.read("server/.git/pushed.log").lines().count(), 5);
}
