//! What a scan says of where a key stands: refs, stashes, reflogs, what nothing leads to; and the forms of repositories.

use std::fs;

use keymoat_scan::Source;
use keymoat_scan::git::{OpenError, Repository};

use crate::common::{Outcome, Repo, key, line, scan};

fn historic(outcome: &Outcome) -> &keymoat_scan::Historic {
    match &outcome.only().source {
        Source::History(historic) => historic,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_was_removed_is_told_with_its_commits() {
    let Some(repo) = Repo::new("a_key_that_was_removed", &[]) else { return };
    repo.commit("README", "nothing\n", "begin");
    let first = repo.commit("conf/app.env", format!("# comment\n{}", line('A')), "Add the key");
    let last = repo.commit("conf/app.env", format!("# comment\n# more\n\n{}", line('A')), "Say more");
    repo.remove("conf/app.env");
    for packed in [false, true] {
        let outcome = repo.scan();
        assert_eq!(outcome.places(), ["sk_live_…Aest conf/app.env:4 History"], "packed: {packed}");
        let historic = historic(&outcome);
        assert_eq!(historic.versions, 2);
        let (first_told, last_told) = (historic.first.as_ref().unwrap(), historic.last.as_ref().unwrap());
        assert_eq!((&first_told.id, &last_told.id), (&first, &last));
        assert_eq!(first_told.author, "Made Up <made@up.test>");
        assert_eq!(first_told.title, "Add the key");
        assert!(first_told.authored > 1_700_000_000 && first_told.authored < last_told.authored);
        assert_eq!((outcome.scanned.commits, outcome.troubles.total()), (4, 0));
        assert_eq!((outcome.scanned.texts, outcome.scanned.binaries), (3, 0));
        assert!(!format!("{:?}", outcome.findings).contains(&key('A')));
        repo.pack();
    }
}

#[test]
fn where_keys_stand_today() {
    let Some(repo) = Repo::new("where_keys_stand_today", &[]) else { return };
    repo.commit("head", line('A'), "head");
    repo.commit("old", line('B'), "old");
    repo.remove("old");
    repo.git(&["checkout", "-q", "-b", "side"]);
    repo.commit("side", line('C'), "side");
    repo.git(&["checkout", "-q", "main"]);
    repo.write("head", line('D'));
    repo.git(&["stash", "-q"]);
    repo.commit("amended", line('E'), "amended");
    repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
    repo.git(&["checkout", "-q", "--orphan", "gone"]);
    repo.commit("gone", line('F'), "gone");
    repo.git(&["checkout", "-q", "main"]);
    repo.git(&["branch", "-q", "-D", "gone"]);
    // Of the branch only the reflog of HEAD knows, until it forgets.
    let reflog = repo.path().join(".git/logs/HEAD");
    let text = fs::read_to_string(&reflog).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("gone")).collect();
    fs::write(&reflog, kept.join("\n")).unwrap();
    repo.write("never-committed", line('G'));
    repo.git(&["add", "never-committed"]);
    repo.git(&["rm", "-q", "--cached", "never-committed"]);
    let expected = [
        "sk_live_…Aest head:1 Head",
        "sk_live_…Best old:1 History",
        "sk_live_…Cest side:1 Tip(\"side\")",
        "sk_live_…Dest head:1 Stash",
        "sk_live_…Eest amended:1 Reflog",
        "sk_live_…Fest gone:1 Unreachable",
        "sk_live_…Gest :1 Unreachable",
    ];
    assert_eq!(repo.scan().places(), expected);
    repo.git(&["repack", "-q", "-a", "-d", "--keep-unreachable"]);
    repo.git(&["pack-refs", "--all"]);
    assert_eq!(repo.scan().places(), expected, "packed");
}

#[test]
fn one_value_is_one_finding_with_many_places() {
    let Some(repo) = Repo::new("one_value_is_one_finding", &[]) else { return };
    repo.write("b", format!("{}{}", line('A'), line('A')));
    repo.commit("a/deep/down", line('A'), "all");
    let outcome = repo.scan();
    assert_eq!(outcome.findings.len(), 1);
    let expected = ["a/deep/down:1", "b:1", "b:2"].map(|place| format!("sk_live_…Aest {place} Head"));
    assert_eq!(outcome.places(), expected);
}

#[test]
fn a_renamed_file_has_its_key_at_both_paths() {
    let Some(repo) = Repo::new("a_renamed_file", &[]) else { return };
    repo.commit("one/x/key", line('A'), "begin");
    repo.git(&["mv", "one", "two"]);
    repo.git(&["commit", "-q", "-m", "rename"]);
    let expected = ["one/x/key:1 History", "two/x/key:1 Head"].map(|place| format!("sk_live_…Aest {place}"));
    assert_eq!(repo.scan().places(), expected);
}

#[test]
fn every_version_of_a_file_is_read_once_whatever_its_deltas() {
    let Some(repo) = Repo::new("every_version_of_a_file", &[]) else { return };
    let filler =
        |from: usize| (from..from + 900).map(|n| format!("line {n} of a long file\n")).collect::<String>();
    for version in 0..40 {
        let letter = char::from(b'A' + version as u8 % 20);
        let text = format!("{}{}{}", filler(version), line(letter), filler(5000));
        repo.commit("file", text, "version");
    }
    repo.pack();
    let deltas = repo.git(&["verify-pack", "-v", "--stat-only", &index(&repo)]);
    assert!(deltas.contains("chain length = 2"), "{deltas}");
    let outcome = repo.scan();
    assert_eq!((outcome.scanned.blobs, outcome.scanned.texts), (40, 40));
    assert_eq!(outcome.findings.len(), 20);
    assert!(outcome.scanned.searched < outcome.scanned.bytes / 2, "{:?}", outcome.scanned);
    assert_eq!(outcome.troubles.total(), 0);
}

fn index(repo: &Repo) -> String {
    let files = fs::read_dir(repo.path().join(".git/objects/pack")).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let index = files.find(|path| path.extension().is_some_and(|extension| extension == "idx"));
    index.unwrap().display().to_string()
}

#[test]
fn objects_in_several_packs_are_read_once() {
    let Some(repo) = Repo::new("objects_in_several_packs", &[]) else { return };
    repo.commit("a", line('A'), "one");
    repo.git(&["repack", "-q", "-d"]);
    repo.commit("b", line('B'), "two");
    // All of it in a second pack, and the first stays.
    let ids = repo.git(&["rev-list", "--objects", "--all"]);
    let ids: String = ids.lines().map(|line| format!("{}\n", line.split(' ').next().unwrap())).collect();
    let list = repo.write("../ids", ids);
    let command = format!("git pack-objects -q .git/objects/pack/pack < {}", list.display());
    let packed = std::process::Command::new("sh").arg("-c").arg(command).current_dir(repo.path()).status();
    fs::remove_file(list).unwrap();
    assert!(packed.unwrap().success());
    let outcome = repo.scan();
    assert_eq!((outcome.scanned.blobs, outcome.findings.len()), (2, 2));
}

#[test]
fn forms_of_repositories() {
    let Some(repo) = Repo::new("forms_of_repositories", &[]) else { return };
    repo.commit("a", line('A'), "one");
    repo.commit("a", "nothing\n", "two");
    repo.git(&["tag", "-a", "-m", "tagged", "v1", "HEAD~1"]);
    let other = tempfile::tempdir().unwrap();
    let at = |name: &str| other.path().join(name);
    let name = |path: &std::path::Path| path.display().to_string();
    let own = name(repo.path());

    repo.git(&["worktree", "add", "-q", &name(&at("worktree")), "v1"]);
    assert_eq!(scan(&at("worktree")).places(), ["sk_live_…Aest a:1 Head"]);
    assert_eq!(repo.scan().places(), ["sk_live_…Aest a:1 Tip(\"HEAD\")"]);
    repo.git(&["worktree", "remove", &name(&at("worktree"))]);
    assert_eq!(repo.scan().places(), ["sk_live_…Aest a:1 Tip(\"v1\")"]);

    repo.git(&["clone", "-q", "--bare", &own, &name(&at("bare"))]);
    assert_eq!(scan(&at("bare")).places(), ["sk_live_…Aest a:1 Tip(\"v1\")"]);

    repo.git(&["clone", "-q", "--shared", &own, &name(&at("shared"))]);
    assert_eq!(scan(&at("shared")).places(), ["sk_live_…Aest a:1 Tip(\"v1\")"]);

    repo.git(&["clone", "-q", "--depth=1", "--no-tags", &format!("file://{own}"), &name(&at("shallow"))]);
    let shallow = Repository::open(&at("shallow")).unwrap();
    assert_eq!((shallow.shallow, shallow.partial), (1, false));
    assert_eq!(scan(&at("shallow")).places(), [""; 0]);

    repo.git(&["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{own}");
    repo.git(&["clone", "-q", "--filter=blob:none", "--no-checkout", &url, &name(&at("partial"))]);
    let partial = Repository::open(&at("partial")).unwrap();
    assert!(partial.partial);
    assert_eq!(scan(&at("partial")).places(), [""; 0]);

    repo.git(&["submodule", "add", "-q", &url, "sub"]);
    let submodules = Repository::open(repo.path()).unwrap().submodules();
    assert_eq!(submodules, [("sub".to_owned(), repo.path().join(".git/modules/sub"))]);
    assert_eq!(scan(&submodules[0].1).places(), ["sk_live_…Aest a:1 Tip(\"v1\")"]);
    assert_eq!(scan(&repo.path().join("sub")).places(), ["sk_live_…Aest a:1 Tip(\"v1\")"]);

    repo.write("deep/down/file", "x");
    let found = Repository::discover(&repo.path().join("deep/down")).unwrap();
    assert_eq!(found.worktree.as_deref(), Some(repo.path()));
}

#[test]
fn ids_of_sha_256() {
    let Some(repo) = Repo::new("ids_of_sha_256", &["--object-format=sha256"]) else { return };
    repo.commit("a", line('A'), "one");
    repo.commit("a", "nothing\n", "two");
    for _ in 0..2 {
        let outcome = repo.scan();
        assert_eq!(outcome.places(), ["sk_live_…Aest a:1 History"]);
        assert_eq!(historic(&outcome).blob.len(), 64);
        repo.pack();
    }
}

#[test]
fn what_is_no_repository() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Repository::open(dir.path()), Err(OpenError::NotOne(_))));
    fs::write(dir.path().join(".git"), "gitdir: /nowhere/at/all\n").unwrap();
    assert!(matches!(Repository::open(dir.path()), Err(OpenError::Astray(_))));
    let Some(repo) = Repo::new("what_is_no_repository", &[]) else { return };
    repo.git(&["config", "core.repositoryFormatVersion", "1"]);
    repo.git(&["config", "extensions.objectFormat", "sha1"]);
    assert!(Repository::open(repo.path()).is_ok());
    let config = repo.path().join(".git/config");
    let text = fs::read_to_string(&config).unwrap().replace("objectFormat = sha1", "objectFormat = blake3");
    fs::write(config, text).unwrap();
    assert!(matches!(Repository::open(repo.path()), Err(OpenError::UnknownHash(..))));
}

#[test]
fn an_empty_repository_has_nothing() {
    let Some(repo) = Repo::new("an_empty_repository", &[]) else { return };
    let outcome = repo.scan();
    assert_eq!((outcome.findings.len(), outcome.scanned.blobs, outcome.troubles.total()), (0, 0, 0));
}

#[test]
fn what_is_no_text_is_counted() {
    let Some(repo) = Repo::new("what_is_no_text", &[]) else { return };
    repo.write("small", [b"\0".as_slice(), line('A').as_bytes()].concat());
    repo.write("large", [vec![0; 100_000], line('B').into_bytes()].concat());
    repo.commit("text", line('C'), "all");
    for _ in 0..2 {
        let outcome = repo.scan();
        assert_eq!(outcome.places(), ["sk_live_…Cest text:1 Head"]);
        assert_eq!((outcome.scanned.texts, outcome.scanned.binaries), (1, 2));
        repo.pack();
    }
}

#[test]
fn a_blob_longer_than_what_is_taken_into_memory_is_searched_to_its_end() {
    let Some(repo) = Repo::new("a_blob_longer_than_memory", &[]) else { return };
    let mut text = "a line of nothing in particular\n".repeat(270_000);
    text.push_str(&line('A'));
    assert!(text.len() > 8 << 20);
    repo.commit("large", text, "all");
    for _ in 0..2 {
        assert_eq!(repo.scan().places(), ["sk_live_…Aest large:270001 Head"]);
        repo.pack();
    }
}

#[test]
fn refs_in_a_table_are_told() {
    let Some(repo) = Repo::new("refs_in_a_table", &[]) else { return };
    repo.commit("a", line('A'), "one");
    repo.git(&["config", "core.repositoryFormatVersion", "1"]);
    repo.git(&["config", "extensions.refStorage", "files"]);
    assert!(!Repository::open(repo.path()).unwrap().unread_refs);
    let config = repo.path().join(".git/config");
    let text = fs::read_to_string(&config).unwrap().replace("refStorage = files", "refStorage = reftable");
    fs::write(config, text).unwrap();
    assert!(Repository::open(repo.path()).unwrap().unread_refs);
    assert!(matches!(&repo.scan().only().source, Source::History(_)));
}
