//! Directories: what is ignored, what is looked at all the same, and what is never followed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use keymoat_scan::{Files, Troubles};

use crate::common::{line, searching, told};

fn scan(dir: &Path) -> (Vec<String>, Files, Troubles) {
    let troubles = Troubles::default();
    let (findings, files) = searching(&troubles).tree(dir);
    let mut places: Vec<String> =
        findings.iter().flat_map(|finding| finding.places.iter().map(told)).collect();
    places.sort();
    (places, files, troubles)
}

fn write(dir: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn ignored_files_are_left_out_but_those_that_hold_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join(".git/info")).unwrap();
    write(root, ".git/HEAD", line('Z'));
    write(root, "sub/nested/.git/HEAD", line('Y'));
    write(root, ".git/info/exclude", "excluded\n");
    write(root, ".gitignore", "*.log\n.env*\n/build/\n*.txt\n!kept.txt\n");
    write(root, "excluded", line('A'));
    write(root, "a.log", line('B'));
    write(root, ".env.local", line('C'));
    write(root, "build/.env", line('D'));
    write(root, "sub/build/file", line('E'));
    write(root, "sub/kept.txt", line('F'));
    write(root, "sub/.gitignore", "own\n");
    write(root, "sub/own", line('G'));
    write(root, "plain", line('H'));
    let (places, files, troubles) = scan(root);
    assert_eq!(places, [".env.local:1", "plain:1", "sub/build/file:1", "sub/kept.txt:1"]);
    assert_eq!(files.ignored_but_searched, [Path::new(".env.local")]);
    assert_eq!((files.ignored, files.texts, files.repositories, troubles.total()), (4, 6, 1, 0));
    // A directory within obeys what stands above it.
    assert_eq!(scan(&root.join("sub")).0, ["build/file:1", "kept.txt:1"]);
    assert_eq!(scan(&root.join("a.log")).0.len(), 1, "what is named is searched");
}

#[test]
fn links_pipes_and_what_may_not_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(outside.path(), "key", line('A'));
    write(root, "inside", line('B'));
    symlink(outside.path(), root.join("out")).unwrap();
    symlink(outside.path().join("key"), root.join("out-file")).unwrap();
    symlink(root, root.join("loop")).unwrap();
    symlink("nowhere", root.join("broken")).unwrap();
    write(root, "secret", line('C'));
    fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let as_root = fs::File::open(root.join("secret")).is_ok();
    let (places, files, troubles) = scan(root);
    assert_eq!(files.special, 4);
    if as_root {
        assert_eq!(places, ["inside:1", "secret:1"]);
    } else {
        assert_eq!(places, ["inside:1"]);
        assert_eq!(troubles.list()[0].what, "secret");
    }
    let gone = scan(&root.join("not-there"));
    assert_eq!((gone.0.len(), gone.2.total()), (0, 1));
}

#[test]
fn long_files_are_searched_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let filler = "x\n".repeat(800_000);
    write(dir.path(), "long", format!("{}{filler}{}", line('A'), line('B')));
    write(dir.path(), "one-line", format!("{} {}", " ".repeat(3 << 20), line('C')));
    write(dir.path(), "binary", [b"\0".as_slice(), line('D').as_bytes()].concat());
    let (places, files, _) = scan(dir.path());
    assert_eq!(places, ["binary:1", "long:1", "long:800002", "one-line:1"]);
    assert_eq!((files.texts, files.binaries), (2, 1));
}
