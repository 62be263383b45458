//! Files that are broken, made to do harm, or of a kind that nobody here knows: a clear line about each, and the rest of
//! the scan goes on. What broken repositories cost is tested in `damage.rs`.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use keymoat_scan::Troubles;
use keymoat_scan::git::Repository;

use crate::common::{Repo, line, searching, told};

/// Something bad below a directory, and what is said of it; nothing where all is well.
struct Bad {
    make: fn(&Path),
    says: &'static [&'static str],
}

const BAD: &[Bad] = &[
    // Cut off in the middle.
    Bad {
        make: |dir| cut(dir, "log.gz"),
        says: &["log.gz is cut off; what stands before that was searched"],
    },
    Bad {
        make: |dir| cut(dir, "log.bz2"),
        says: &["log.bz2 is cut off; what stands before that was searched"],
    },
    Bad {
        make: |dir| cut(dir, "log.xz"),
        says: &["log.xz is cut off; what stands before that was searched"],
    },
    Bad {
        make: |dir| cut(dir, "log.zst"),
        says: &["log.zst is cut off; what stands before that was searched"],
    },
    Bad {
        make: |dir| cut(dir, "log.lz4"),
        says: &["log.lz4 is cut off; what stands before that was searched"],
    },
    Bad {
        make: |dir| cut(dir, "a.zip"),
        says: &[
            "a.zip is cut off; what stands before that was searched",
            "a.zip › b/c.env is cut off; what stands before that was searched",
        ],
    },
    Bad {
        make: |dir| cut(dir, "letter.docx"),
        says: &[
            "letter.docx is cut off; what stands before that was searched",
            "letter.docx › word/document.xml is cut off; what stands before that was searched",
        ],
    },
    Bad {
        make: |dir| cut_to(dir, "a.tar", 1100),
        says: &[
            "a.tar is cut off; what stands before that was searched",
            "a.tar › b/c.env is cut off; what stands before that was searched",
        ],
    },
    Bad {
        make: |dir| cut(dir, "letter.pdf"),
        says: &[
            "letter.pdf has streams that could not be unpacked to their end; what came out was searched",
            "letter.pdf is cut off; what stands before that was searched",
        ],
    },
    Bad {
        make: |dir| cut(dir, "custom.dump"),
        says: &["custom.dump is cut off; what stands before that was searched"],
    },
    Bad {
        make: |dir| cut(dir, "shop.sqlite"),
        says: &["shop.sqlite is a damaged SQLite file; its bytes were searched as they are, too"],
    },
    // Damaged.
    Bad { make: |dir| changed(dir, "log.xz", |bytes| bytes[20] ^= 0xff), says: &["log.xz is damaged"] },
    Bad { make: |dir| changed(dir, "log.zst", |bytes| bytes[9] ^= 0xff), says: &["log.zst is damaged"] },
    // Packed, encrypted or made in a way that nobody here knows.
    Bad {
        make: |dir| changed(dir, "bzip2.zip", |bytes| bytes[6] |= 1),
        says: &["bzip2.zip › c.env is encrypted and was not looked into"],
    },
    Bad {
        make: |dir| changed(dir, "bzip2.zip", |bytes| bytes[8] = 98),
        says: &["bzip2.zip › c.env is packed by method 98 of zip, which nothing here reads"],
    },
    Bad {
        make: |dir| write(dir, "sealed.pdf", b"%PDF-1.7\ntrailer << /Encrypt 5 0 R >>\n%%EOF\n"),
        says: &["sealed.pdf is encrypted; only its bytes were searched"],
    },
    Bad {
        make: |dir| changed(dir, "custom-z0.dump", |bytes| bytes[6] = 30),
        says: &[
            "custom-z0.dump is an archive of pg_dump in format 1.30, and 1.10 to 1.16 are known; it was searched as it is",
        ],
    },
    Bad {
        make: |dir| write(dir, "a.7z", b"7z\xbc\xaf\x27\x1c\0\x04"),
        says: &["a.7z is packed as 7z, which nothing here opens; it was searched as it is"],
    },
    Bad {
        make: |dir| write(dir, "a.rar", b"Rar!\x1a\x07\x01\0"),
        says: &["a.rar is packed as rar, which nothing here opens; it was searched as it is"],
    },
    Bad {
        make: |dir| write(dir, "a.rpm", b"\xed\xab\xee\xdb\x03\0"),
        says: &["a.rpm is packed as rpm, which nothing here opens; it was searched as it is"],
    },
    Bad {
        make: |dir| write(dir, "a.Z", b"\x1f\x9d\x90xx"),
        says: &["a.Z is packed as compress, which nothing here opens; it was searched as it is"],
    },
    Bad {
        make: |dir| write(dir, "a.deb", b"!<arch>\ndebian-binary"),
        says: &["a.deb is packed as ar, which nothing here opens; it was searched as it is"],
    },
    Bad {
        make: |dir| write(dir, "a.cab", b"MSCF\0\0\0\0\x2c"),
        says: &["a.cab is packed as cab, which nothing here opens; it was searched as it is"],
    },
    // Bytes that are no text.
    Bad { make: |dir| write(dir, "odd.txt", b"\xff\xc3\x28\xe2\x82 \xf0\x9f key\n"), says: &[] },
    Bad {
        make: |dir| fs::write(dir.join(std::ffi::OsStr::from_bytes(b"odd\xff\xfename")), "x").unwrap(),
        says: &[],
    },
    Bad { make: |dir| write(dir, "nul.txt", &[0; 4096]), says: &[] },
    Bad {
        make: |dir| write(dir, "shop.ipynb", b"{\"cells\": [{\"source\": "),
        says: &["shop.ipynb is no notebook and was searched as it is"],
    },
    // Ways that have no end.
    Bad {
        make: |dir| {
            symlink("loop", dir.join("loop")).unwrap();
            symlink("..", dir.join("up")).unwrap();
            symlink(".", dir.join("self")).unwrap();
        },
        says: &[],
    },
    Bad {
        make: |dir| fs::create_dir_all(dir.join("d/".repeat(600))).unwrap(),
        says: &["is nested too deeply to be followed"],
    },
];

#[test]
fn whatever_a_file_is_the_rest_of_the_scan_goes_on() {
    let mut wrong = Vec::new();
    for (number, bad) in BAD.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("before.env"), line('A')).unwrap();
        fs::write(dir.path().join("zz-behind.env"), line('B')).unwrap();
        (bad.make)(dir.path());
        let troubles = Troubles::default();
        let (findings, _) = searching(&troubles).tree(dir.path());
        let found: Vec<String> =
            findings.iter().flat_map(|finding| finding.places.iter().map(told)).collect();
        let says: Vec<String> =
            troubles.list().into_iter().map(|trouble| format!("{} {}", trouble.what, trouble.why)).collect();
        let is_said = says.len() == bad.says.len()
            && says.iter().zip(bad.says).all(|(says, expected)| says.contains(expected));
        let goes_on =
            ["before.env:1", "zz-behind.env:1"].iter().all(|place| found.iter().any(|found| found == place));
        if !is_said || !goes_on {
            wrong.push(format!("row {number}: {found:?} {says:?}, expected {:?}", bad.says));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What of a repository cannot be read is told, and is none of what merely is not there. (Permissions would not stop
/// a test that runs as root.)
#[test]
fn parts_of_a_repository_that_cannot_be_read_are_told() {
    /// A part, how it comes to be unreadable, and what is said.
    type Row = (&'static str, fn(&Path), &'static str);
    let rows: &[Row] = &[
        ("packed-refs", |path| fs::create_dir(path).unwrap(), "cannot be read: is a directory"),
        ("objects/zz", |path| symlink("zz", path).unwrap(), "cannot be read: filesystem loop"),
        ("logs/refs/heads/other", |path| symlink("other", path).unwrap(), "cannot be read: filesystem loop"),
        (
            "objects/info/alternates",
            |path| {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "/nowhere/objects\n").unwrap();
            },
            "/nowhere/objects is borrowed from and cannot be read: entity not found",
        ),
    ];
    for (part, make, says) in rows {
        let Some(repo) = Repo::new("parts_of_a_repository_that_cannot_be_read", &[]) else { return };
        repo.commit("a", line('A'), "one");
        make(&repo.path().join(".git").join(part));
        let outcome = repo.scan();
        assert_eq!(outcome.findings.len(), 1, "{part}");
        let told = outcome.told_troubles();
        assert!(told.len() == 1 && told[0].contains(says), "{part}: {told:?}");
    }
    let Some(repo) = Repo::new("parts_of_a_repository_that_cannot_be_read", &[]) else { return };
    let troubles = Troubles::default();
    fs::create_dir(repo.path().join(".git/index")).unwrap();
    searching(&troubles).staged(&Repository::open(repo.path()).unwrap());
    assert_eq!(troubles.list()[0].why, "cannot be read: is a directory");
}

/// A second scan knows that an archive is there and tells again what it cannot do with it.
#[test]
fn what_cannot_be_looked_into_in_a_history_is_told_each_time() {
    let Some(repo) = Repo::new("what_cannot_be_looked_into_in_a_history", &[]) else { return };
    repo.commit("a.rar", b"Rar!\x1a\x07\x01\0", "one");
    repo.remove("a.rar");
    let repository = Repository::open(repo.path()).unwrap();
    let file = repository.known_file();
    let scan = || crate::common::scan_with(&repository, |history| history.known_file = Some(&file));
    let first = scan().told_troubles();
    assert!(first.len() == 1 && first[0].contains("is packed as rar"), "{first:?}");
    let kept = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(scan().told_troubles(), first);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), kept, "nothing new is to be kept");
}

/// A container of `tests/containers`, in `dir`.
fn changed(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers").join(name);
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    write(dir, name, &bytes);
}

fn cut(dir: &Path, name: &str) {
    changed(dir, name, |bytes| bytes.truncate(bytes.len() / 2));
}

fn cut_to(dir: &Path, name: &str, length: usize) {
    changed(dir, name, |bytes| bytes.truncate(length));
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
}
