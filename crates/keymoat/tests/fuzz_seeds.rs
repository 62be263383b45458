//! The fuzz targets as plain tests: each with its seeds, and with what becomes of them when bytes are changed, cut and
//! doubled. Real fuzzing, which learns from what it has tried, is `cargo xtask fuzz`; to build for it takes too long for
//! each run of the tests.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    missing_docs,
    unused_attributes,
    unused_imports,
    reason = "a test; a target here has no `main` of its own"
)]

use std::fs;
use std::path::{Path, PathBuf};

// The targets call `fuzz_target!` of this library; here each becomes a function.
extern crate self as libfuzzer_sys;

#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        pub(crate) fn run($data: &[u8]) $body
    };
}

#[path = "../../../fuzz/fuzz_targets/backup.rs"]
mod backup;
#[path = "../../../fuzz/fuzz_targets/catalogue.rs"]
mod catalogue;
#[path = "../../../fuzz/fuzz_targets/checkpoint.rs"]
mod checkpoint;
#[path = "../../../fuzz/fuzz_targets/containers.rs"]
mod containers;
#[path = "../../../fuzz/fuzz_targets/detect.rs"]
mod detect;
#[path = "../../../fuzz/fuzz_targets/documents.rs"]
mod documents;
#[path = "../../../fuzz/fuzz_targets/dotenv.rs"]
mod dotenv;
#[path = "../../../fuzz/fuzz_targets/envelope.rs"]
mod envelope;
#[path = "../../../fuzz/fuzz_targets/event.rs"]
mod event;
#[path = "../../../fuzz/fuzz_targets/fernet.rs"]
mod fernet;
#[path = "../../../fuzz/fuzz_targets/frontier.rs"]
mod frontier;
#[path = "../../../fuzz/fuzz_targets/git.rs"]
mod git;
#[path = "../../../fuzz/fuzz_targets/git_pack.rs"]
mod git_pack;
#[path = "../../../fuzz/fuzz_targets/http_head.rs"]
mod http_head;
#[path = "../../../fuzz/fuzz_targets/identify.rs"]
mod identify;
#[path = "../../../fuzz/fuzz_targets/issued.rs"]
mod issued;
#[path = "../../../fuzz/fuzz_targets/key_texts.rs"]
mod key_texts;
#[path = "../../../fuzz/fuzz_targets/names.rs"]
mod names;
#[path = "../../../fuzz/fuzz_targets/policy.rs"]
mod policy;
#[path = "../../../fuzz/fuzz_targets/redact.rs"]
mod redact;
#[path = "../../../fuzz/fuzz_targets/reference.rs"]
mod reference;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("backup", backup::run),
    ("catalogue", catalogue::run),
    ("checkpoint", checkpoint::run),
    ("containers", containers::run),
    ("detect", detect::run),
    ("documents", documents::run),
    ("dotenv", dotenv::run),
    ("envelope", envelope::run),
    ("event", event::run),
    ("fernet", fernet::run),
    ("frontier", frontier::run),
    ("git", git::run),
    ("git_pack", git_pack::run),
    ("http_head", http_head::run),
    ("identify", identify::run),
    ("issued", issued::run),
    ("key_texts", key_texts::run),
    ("names", names::run),
    ("policy", policy::run),
    ("redact", redact::run),
    ("reference", reference::run),
];

#[test]
fn seeds_and_what_becomes_of_them_break_no_target() {
    let mut tried = 0;
    for (name, run) in TARGETS {
        let seeds = seeds(name);
        let inputs = if DEAR.contains(name) { INPUTS / 10 } else { INPUTS };
        let each = inputs / seeds.len();
        for (number, seed) in seeds.iter().enumerate() {
            run(seed);
            let mut dice = Dice(0x6b65_796d_6f61_7400 + number as u64);
            for _ in 0..each {
                run(&dice.changed(seed, &seeds));
                tried += 1;
            }
        }
    }
    println!("FIGURE parsers: 0 of {tried} inputs broke a parser");
}

#[test]
fn every_target_is_here() {
    let mut files: Vec<String> = files_in(&root().join("fuzz/fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), files);
}

/// The good inputs of a target; nothing where there are none.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = match name {
        "catalogue" => root().join("crates/detect/catalogue"),
        "containers" => root().join("crates/scan/tests/containers"),
        _ => root().join("fuzz/seeds").join(name),
    };
    let mut files = if dir.is_dir() { files_in(&dir) } else { Vec::new() };
    files.sort();
    // Hundreds of files of the catalogue are alike.
    let files = files.iter().step_by(files.len() / MAX_SEEDS + 1);
    let mut seeds: Vec<Vec<u8>> = files.map(|file| fs::read(file).unwrap()).collect();
    seeds.push(Vec::new());
    seeds
}

/// Seeds of one target; with more there would be too few changed ones of each.
const MAX_SEEDS: usize = 50;

fn files_in(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// xorshift64, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    /// A seed after one to four changes.
    fn changed(&mut self, seed: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let (at, end) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (at.min(end), at.max(end));
            match self.below(6) {
                0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
                1 => bytes.insert(at, ODD[self.below(ODD.len())]),
                2 => drop(bytes.drain(from..to.min(from + 16))),
                3 => bytes.truncate(at),
                4 => {
                    let piece = bytes[from..to.min(from + 64)].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let other = &others[self.below(others.len())];
                    let start = self.below(other.len());
                    let piece: Vec<u8> = other.iter().skip(start).take(64).copied().collect();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }
}

/// Bytes that mean something to one parser or another, and some that mean nothing to any.
const ODD: &[u8] = b"\0\t\n\r \"'\\#$%&()*+,-./:;<=>?@[]^_`{|}~019azAZ\x7f\x80\xbf\xc3\xe2\xf0\xff";
/// For each target.
const INPUTS: usize = 1500;
/// Targets that try a whole scan with each input.
const DEAR: &[&str] = &["git_pack"];
