//! One planted token in every kind of container, made by the program that usually makes it (`make_containers.py`).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use keymoat_detect::{Catalogue, Engine};
use keymoat_scan::{Finding, FingerprintKey, Scan, Trouble, Troubles};

const TOKEN: &[u8] = b"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";

/// Scans a file or directory; gives the places of the token and what could not be read.
fn look(path: &Path) -> (Vec<String>, Vec<String>) {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Catalogue::builtin()));
    let (catalogue, key, troubles) =
        (Catalogue::builtin(), FingerprintKey::new([7; 32]), Troubles::default());
    let scan = Scan {
        engine: &ENGINE,
        catalogue,
        key: &key,
        threads: NonZeroUsize::MIN,
        progress: &(),
        troubles: &troubles,
        keeper: &(),
    };
    let (findings, _) = scan.tree(path);
    let is_token = |finding: &&Finding| finding.fingerprint == key.of(TOKEN);
    let places = findings.iter().filter(is_token).flat_map(|finding| &finding.places);
    let mut shown: Vec<String> = places
        .map(|place| {
            let source = place.source.to_string();
            let source = source.strip_prefix(&path.display().to_string()).unwrap_or(&source).to_owned();
            if place.line > 0 { format!("{source}:{}", place.line) } else { source }
        })
        .collect();
    shown.sort();
    let troubles = troubles.list().into_iter().map(|Trouble { what, why }| {
        format!("{} {why}", what.strip_prefix(&path.display().to_string()).unwrap_or(&what))
    });
    (shown, troubles.collect())
}

fn container(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers").join(name)
}

#[test]
fn a_token_in_every_container() {
    let long = "a-long-name/".repeat(20) + "c.env";
    let long = format!(" › {long}:2");
    let rows: &[(&str, &[&str])] = &[
        ("log.gz", &[":2"]),
        ("logs.gz", &[":12"]),
        ("log.bz2", &[":2"]),
        ("log.xz", &[":2"]),
        ("log.zst", &[":2"]),
        ("log.lz4", &[":2"]),
        ("a.tar", &[" › b/c.env:2"]),
        ("a.tar.gz", &[" › b/c.env:2"]),
        ("gnu.tar", &[&long]),
        ("pax.tar", &[&long]),
        ("a.zip", &[" › b/c.env:2"]),
        ("streamed.zip", &[" › c.env:2"]),
        ("stored-streamed.zip", &[" › c.env:2"]),
        ("bzip2.zip", &[" › c.env:2"]),
        ("nested.zip", &[" › in/d.zip › b.tar.gz › c.env:2"]),
        ("image.tar", &[" › blobs/sha256/a1 › app/.env:2", " › blobs/sha256/c0:1"]),
        ("letter.docx", &[" › word/document.xml:1"]),
        ("keys.xlsx", &[" › xl/sharedStrings.xml:2"]),
        ("letter.odt", &[" › content.xml:1"]),
        ("letter.pdf", &[" › text:1"]),
        ("shop.ipynb", &[" › cell 2, output:2"]),
        ("settings.pyc", &[":1"]),
        ("utf16.txt", &[":2"]),
        ("utf16-no-mark.txt", &[":2", ":4", ":6"]),
        ("program.bin", &[":1"]),
        ("attachment.eml", &[" › log.gz:2"]),
        ("quoted.eml", &[" › body:1"]),
        ("archive.mbox", &[" › message 1 › body:1", " › message 2 › log.gz:2"]),
        ("chat.zip", &[" › general/2026-01-01.json:1"]),
    ];
    check(rows);
}

#[test]
fn cells_of_dumps_and_databases() {
    const PARAMETER: &str = " › Odoo › System Parameters › `github.token` [ir_config_parameter.value, id 2]";
    const PROVIDER: &str =
        " › payment_provider.stripe_secret_key (company 2) [payment_provider.stripe_secret_key, id 7]";
    const NOTE: &str = " › note.body, code b, day 2";
    const FILE: &str = " › file.data, id 9";
    let mysql = [
        " › wp_options.option_value, option_id 2:13",
        " › wp_options.option_value, option_id 3:13",
        " › wp_options.raw, option_id 4:14",
        ":16",
    ];
    let archive = [" › large object 4711:2", FILE, NOTE, PARAMETER, PROVIDER];
    let rows: &[(&str, &[&str])] = &[
        ("shop.sqlite", &[NOTE, PARAMETER, PROVIDER]),
        ("utf16.db", &[NOTE, PARAMETER, PROVIDER]),
        ("wide.db", &[" › keys.body, name long"]),
        ("mysql.sql", &mysql),
        ("shop.sql.gz", &mysql),
    ];
    check(rows);
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
fn check(rows: &[(&str, &[&str])]) {
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
