//! Puts the catalogue's files into one that is read in a few milliseconds, and names the state of the source, so that a
//! change of the engine changes `Engine::rules_id`. A test checks the files and that nothing is lost here.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "standard output and the environment are how a build script and Cargo speak"
)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=catalogue");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    files.sort();
    let digest = files.iter().fold(FNV_OFFSET, |digest, file| {
        let text = fs::read(file).expect("a source file can be read");
        text.iter().fold(digest, |digest, &byte| (digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
    });
    println!("cargo::rustc-env=KEYMOAT_DETECT_SOURCE={digest:016x}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo names the directory"));
    fs::write(out.join("catalogue.json"), catalogue()).expect("Cargo's directory can be written to");
}

/// All files by name, as JSON.
fn catalogue() -> String {
    let mut files = Vec::new();
    collect(Path::new("catalogue"), &mut files);
    let providers: BTreeMap<String, serde_json::Value> = files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a catalogue file is text");
            let value = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            (file.file_name().unwrap_or_default().to_string_lossy().into_owned(), value)
        })
        .collect();
    serde_json::to_string(&providers).expect("TOML without dates is JSON")
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the source is there") {
        let path = entry.expect("the source can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

// FNV-1a: tells states of the source apart, nothing else; a build script has no crates at hand.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
