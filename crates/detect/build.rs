//! Makes the crate compile anew when a catalogue file is added, changed or removed.
//! It generates nothing.
#![allow(clippy::print_stdout, reason = "standard output is how a build script speaks to Cargo")]

fn main() {
    println!("cargo::rerun-if-changed=catalogue");
    println!("cargo::rerun-if-changed=build.rs");
}
