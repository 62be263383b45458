//! A pack whose bytes were changed, beside the index of a whole one: what cannot be read is told, and the rest is searched.
#![no_main]

use std::cell::RefCell;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::LazyLock;

use keymoat_detect::{Catalogue, Engine};
use keymoat_scan::git::{History, Repository};
use keymoat_scan::{FingerprintKey, Scan, Troubles};
use libfuzzer_sys::fuzz_target;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Catalogue::builtin()));
/// Of the seed `whole`: `git index-pack` made it.
const INDEX: &[u8] = include_bytes!("../seeds/git_pack.idx");

thread_local! {
    /// A repository that has nothing but one pack; each thread has its own.
    static PLACE: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let (pack, root) = PLACE.with_borrow_mut(|place| {
        let root = place.get_or_insert_with(empty_repository).path().to_owned();
        (root.join("objects/pack/pack-1.pack"), root)
    });
    fs::write(&pack, data).expect("a temporary directory can be written to");
    search(root);
});

fn empty_repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room for a temporary directory");
    let packs = dir.path().join("objects/pack");
    fs::create_dir_all(&packs).expect("a new directory can be made");
    fs::write(dir.path().join("HEAD"), "ref: refs/heads/main\n").expect("a new file can be made");
    fs::write(packs.join("pack-1.idx"), INDEX).expect("a new file can be made");
    dir
}

fn search(root: PathBuf) {
    let repository = Repository::open(&root).expect("a repository was made");
    let (key, troubles) = (FingerprintKey::new([7; 32]), Troubles::default());
    let scan = Scan {
        engine: &ENGINE,
        catalogue: Catalogue::builtin(),
        key: &key,
        threads: NonZeroUsize::MIN,
        progress: &(),
        troubles: &troubles,
        keeper: &(),
    };
    let (findings, scanned) = scan.history(&History::of(&repository));
    assert!(scanned.texts + scanned.binaries <= scanned.blobs);
    assert!(findings.iter().all(|finding| !finding.places.is_empty()));
}
