//! One planted token in every kind of container, made by the program that usually makes it (`make_containers.py`): as a
//! file, in a git history, and staged.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[path = "scan/common.rs"]
mod common;

use std::path::{Path, PathBuf};

use common::{KEY, Repo, searching};
use keymoat_scan::git::{History, Repository};
use keymoat_scan::{Finding, Trouble, Troubles};

const TOKEN: &str = "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";

/// Scans a file or directory; gives the places of the token and what could not be read.
fn look(path: &Path) -> (Vec<String>, Vec<String>) {
    let troubles = Troubles::default();
    let (findings, _) = searching(&troubles).tree(path);
    let shown = places(&findings)
        .into_iter()
        .map(|place| place.strip_prefix(&path.display().to_string()).unwrap_or(&place).to_owned())
        .collect();
    let troubles = troubles.list().into_iter().map(|Trouble { what, why }| {
        format!("{} {why}", what.strip_prefix(&path.display().to_string()).unwrap_or(&what))
    });
    (shown, troubles.collect())
}

/// The places of the token, sorted.
fn places(findings: &[Finding]) -> Vec<String> {
    let is_token = |finding: &&Finding| finding.fingerprint == KEY.of(TOKEN.as_bytes());
    let places = findings.iter().filter(is_token).flat_map(|finding| &finding.places);
    let mut shown: Vec<String> = places
        .map(|place| match place.line {
            0 => place.source.to_string(),
            line => format!("{}:{line}", place.source),
        })
        .collect();
    shown.sort();
    shown
}

fn container(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers").join(name)
}

/// Each container, and where the token stands in it. `long` is the long name in two of them.
fn rows(long: &str) -> Vec<(&str, Vec<&str>)> {
    vec![
        ("log.gz", vec![":2"]),
        ("logs.gz", vec![":12"]),
        ("log.bz2", vec![":2"]),
        ("log.xz", vec![":2"]),
        ("log.zst", vec![":2"]),
        ("log.lz4", vec![":2"]),
        ("a.tar", vec![" › b/c.env:2"]),
        ("a.tar.gz", vec![" › b/c.env:2"]),
        ("gnu.tar", vec![long]),
        ("pax.tar", vec![long]),
        ("a.zip", vec![" › b/c.env:2"]),
        ("streamed.zip", vec![" › c.env:2"]),
        ("stored-streamed.zip", vec![" › c.env:2"]),
        ("bzip2.zip", vec![" › c.env:2"]),
        ("nested.zip", vec![" › in/d.zip › b.tar.gz › c.env:2"]),
        ("image.tar", vec![" › blobs/sha256/a1 › app/.env:2", " › blobs/sha256/c0:1"]),
        ("letter.docx", vec![" › word/document.xml:1"]),
        ("keys.xlsx", vec![" › xl/sharedStrings.xml:2"]),
        ("letter.odt", vec![" › content.xml:1"]),
        ("letter.pdf", vec![" › text:1"]),
        ("shop.ipynb", vec![" › cell 2, output:2"]),
        ("settings.pyc", vec![":1"]),
        ("utf16.txt", vec![":2"]),
        ("utf16-no-mark.txt", vec![":2", ":4", ":6"]),
        ("program.bin", vec![":1"]),
        ("attachment.eml", vec![" › log.gz:2"]),
        ("quoted.eml", vec![" › body:1"]),
        ("archive.mbox", vec![" › message 1 › body:1", " › message 2 › log.gz:2"]),
        ("chat.zip", vec![" › general/2026-01-01.json:1"]),
        ("shop.sqlite", vec![NOTE, PARAMETER, PROVIDER]),
        ("utf16.db", vec![NOTE, PARAMETER, PROVIDER]),
        ("wide.db", vec![" › keys.body, name long"]),
        ("shop.sql.gz", MYSQL.to_vec()),
    ]
}

const PARAMETER: &str = " › Odoo › System Parameters › `github.token` [ir_config_parameter.value, id 2]";
const PROVIDER: &str =
    " › payment_provider.stripe_secret_key (company 2) [payment_provider.stripe_secret_key, id 7]";
const NOTE: &str = " › note.body, code b, day 2";
const MYSQL: [&str; 4] = [
    " › wp_options.option_value, option_id 2:13",
    " › wp_options.option_value, option_id 3:13",
    " › wp_options.raw, option_id 4:14",
    ":16",
];

#[test]
fn a_token_in_every_container() {
    let long = format!(" › {}c.env:2", "a-long-name/".repeat(20));
    check(&rows(&long));
}

/// What a container is, a history knows by its bytes alone: a notebook is text there, and a program is left out.
#[test]
fn a_token_in_every_container_of_a_history_and_staged() {
    let Some(repo) = Repo::new("a_token_in_every_container_of_a_history_and_staged", &[]) else { return };
    let long = format!(" › {}c.env:2", "a-long-name/".repeat(20));
    let rows = rows(&long);
    let expected = |in_history: bool| {
        let all = rows.iter().flat_map(|(name, places)| {
            let places = match *name {
                "shop.ipynb" if in_history => vec![":1"],
                "program.bin" if in_history => vec![],
                _ => places.clone(),
            };
            places.into_iter().map(move |place| format!("{name}{place}"))
        });
        let mut all: Vec<String> = all.collect();
        all.sort();
        all
    };
    repo.commit("README", "nothing\n", "begin");
    for (name, _) in &rows {
        repo.write(name, std::fs::read(container(name)).unwrap());
    }
    repo.git(&["add", "-A"]);
    let repository = Repository::open(repo.path()).unwrap();
    let troubles = Troubles::default();
    let (findings, staged) = searching(&troubles).staged(&repository);
    assert_eq!(places(&findings), expected(false), "staged");
    assert_eq!((staged.changed, troubles.total()), (rows.len() as u64, 0));
    repo.git(&["commit", "-q", "-m", "all"]);
    repo.git(&["rm", "-q", "-r", "."]);
    repo.commit("README", "gone\n", "gone");
    for packed in [false, true] {
        let troubles = Troubles::default();
        let (findings, scanned) = searching(&troubles).history(&History::of(&repository));
        assert_eq!(places(&findings), expected(true), "packed: {packed}");
        assert_eq!((scanned.opened, troubles.total()), (rows.len() as u64 - 2, 0));
        repo.pack();
    }
}

/// One container each in what is checked out, a stash, a reflog, another worktree and a submodule.
#[test]
fn a_container_wherever_git_keeps_things() {
    let Some(repo) = Repo::new("a_container_wherever_git_keeps_things", &[]) else { return };
    let put = |name: &str| repo.write(name, std::fs::read(container(name)).unwrap());
    let commit = |name: &str| {
        put(name);
        repo.git(&["add", "-A"]);
        repo.git(&["commit", "-q", "-m", name]);
    };
    commit("a.zip");
    put("letter.docx");
    repo.git(&["add", "-A"]);
    repo.git(&["stash", "-q"]);
    commit("log.gz");
    repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let other = tempfile::tempdir().unwrap();
    let at = |name: &str| other.path().join(name).display().to_string();
    repo.git(&["worktree", "add", "-q", "-b", "side", &at("side")]);
    std::fs::copy(container("chat.zip"), other.path().join("side/chat.zip")).unwrap();
    repo.git_in(&other.path().join("side"), &["add", "-A"]);
    repo.git_in(&other.path().join("side"), &["commit", "-q", "-m", "side"]);
    repo.git(&["init", "-q", "-b", "main", &at("library")]);
    std::fs::copy(container("shop.sqlite"), other.path().join("library/shop.sqlite")).unwrap();
    repo.git_in(&other.path().join("library"), &["add", "-A"]);
    repo.git_in(&other.path().join("library"), &["commit", "-q", "-m", "library"]);
    repo.git(&["submodule", "--quiet", "add", &format!("file://{}", at("library")), "library"]);
    let told = |path: &Path| {
        let outcome = common::scan(path);
        let standing = |place: &keymoat_scan::Place| match &place.source {
            keymoat_scan::Source::Inside(inside) => common::told_standing(&inside.of),
            source => common::told_standing(source),
        };
        let mut told: Vec<String> = outcome
            .findings
            .iter()
            .flat_map(|finding| &finding.places)
            .map(|place| format!("{} {}", place.source.path(), standing(place)))
            .collect();
        told.dedup();
        told.sort();
        (told, outcome.troubles.total())
    };
    let expected = ["a.zip Head", "chat.zip Tip(\"HEAD\")", "letter.docx Stash", "log.gz Reflog"];
    assert_eq!(told(repo.path()), (expected.map(str::to_owned).to_vec(), 0));
    let submodules = Repository::open(repo.path()).unwrap().submodules();
    assert_eq!(submodules[0].0, "library");
    assert_eq!(told(&submodules[0].1), (vec!["shop.sqlite Head".to_owned()], 0));
}

/// The token as plain text in what people keep, and in the forms that programs give it.
#[test]
fn a_token_in_every_form_of_text() {
    use base64::Engine as _;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent = TOKEN.replace('_', "%5F");
    let (begin, end) = TOKEN.split_at(20);
    let rows: &[(&str, String)] = &[
        ("plain.txt", format!("the token {TOKEN}\n")),
        ("odoo.log", format!("2026-01-01 00:00:00,000 12 INFO shop odoo.http: token {TOKEN} refused\n")),
        ("compose.yaml", format!("services: {{ odoo: {{ environment: {{ GITHUB_TOKEN: {TOKEN} }} }} }}\n")),
        ("dump.copy", format!("COPY public.t (id, body) FROM stdin; 7\t{TOKEN}\n")),
        (".env", format!("GITHUB_TOKEN={TOKEN}\n")),
        ("base64.txt", format!("value {}\n", base64(&format!("token={TOKEN}")))),
        ("base64-twice.txt", format!("value {}\n", base64(&base64(&format!("token={TOKEN}"))))),
        ("hex.txt", format!("value {hex}\n")),
        ("percent.txt", format!("https://shop.example/?token={percent}&x=1\n")),
        ("escape.json", format!("{{\"token\": \"{}\"}}\n", TOKEN.replace('_', "\\u005f"))),
        ("split.py", format!("TOKEN = \"{begin}\" \\\n    \"{end}\"\n")),
    ];
    let dir = tempfile::tempdir().unwrap();
    rows.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
    let mut expected: Vec<String> = rows.iter().map(|(name, _)| format!("{name}:1")).collect();
    expected.sort();
    assert_eq!(look(dir.path()), (expected, Vec::new()));
}

/// Secrets that are no tokens, and a token that is none: its checksum is wrong.
#[test]
fn settings_and_a_wrong_checksum() {
    for (name, text, lines) in [
        (
            "odoo.conf",
            "[options]\nadmin_passwd = b7Qx-Madeup-Zr41\ndb_password = r4Kp-Madeup-Wn72\n",
            vec![2, 3],
        ),
        (
            "settings.py",
            "SECRET_KEY = 'django-insecure-m4de_up+k7v9q2x8z1w3r5t6y0p!a$s^d'\nDATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql',\n    'PASSWORD': 'r4Kp-Madeup-Wn72'}}\n",
            vec![1, 3],
        ),
        ("wrong.txt", "ghp_MadeUpForTests0fKeym0atX2b9Qw70ICnN7\n", vec![]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        let troubles = Troubles::default();
        let (findings, _) = searching(&troubles).tree(dir.path());
        let mut found: Vec<u64> =
            findings.iter().flat_map(|finding| &finding.places).map(|place| place.line).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, lines, "{name}");
    }
}

#[test]
fn cells_of_dumps_and_databases() {
    const FILE: &str = " › file.data, id 9";
    let archive = [" › large object 4711:2", FILE, NOTE, PARAMETER, PROVIDER];
    check(&[("mysql.sql", MYSQL.to_vec())]);
    let mut wrong = Vec::new();
    // With lines, which move with the version of the program that wrote them.
    for name in [
        "custom.dump",
        "custom-z0.dump",
        "custom-1.15-zstd.dump",
        "custom-1.16-lz4.dump",
        "custom-1.16-gzip.dump",
    ] {
        let (found, troubles) = look(&container(name));
        if without_lines(&found) != without_lines(&to_strings(&archive)) || !troubles.is_empty() {
            wrong.push(format!("{name}: {found:?} {troubles:?}"));
        }
    }
    for name in
        ["plain-pg.sql", "inserts-pg.sql", "custom-inserts.dump", "sqlite.sql", "pg.tar", "../directory-dump"]
    {
        let (found, troubles) = look(&container(name));
        for cell in [NOTE, PARAMETER, PROVIDER] {
            // The columns of the key are named behind the rows, or in no statement that goes before.
            let row = cell.rsplit_once(", code").map_or(cell, |(cell, _)| cell);
            if !found.iter().any(|found| found.contains(row)) {
                wrong.push(format!("{name}: {cell} in {found:?}"));
            }
        }
        if !troubles.is_empty() {
            wrong.push(format!("{name}: {troubles:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_deleted_damaged_or_cut_off() {
    for (name, expected, trouble) in [
        ("deleted.db", " › deleted rows", None),
        ("damaged.db", "", Some("is a damaged SQLite file; its bytes were searched as they are, too")),
        ("cut.gz", ":2", Some("is cut off; what stands before that was searched")),
    ] {
        let (found, troubles) = look(&container(name));
        assert!(found.iter().any(|found| found.starts_with(expected)), "{name}: {found:?}");
        assert_eq!(troubles.first().map(|trouble| trouble.trim()), trouble, "{name}");
    }
}

/// Compares everything before it complains.
fn check(rows: &[(&str, Vec<&str>)]) {
    let mut wrong = Vec::new();
    for (name, expected) in rows {
        let (found, troubles) = look(&container(name));
        if found != to_strings(expected) || !troubles.is_empty() {
            wrong.push(format!("{name}: {found:?} {troubles:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn to_strings(texts: &[&str]) -> Vec<String> {
    let mut texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

fn without_lines(places: &[String]) -> Vec<String> {
    places
        .iter()
        .map(|place| place.rsplit_once(':').map_or(place.as_str(), |(place, _)| place).to_owned())
        .collect()
}
