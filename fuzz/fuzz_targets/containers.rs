//! Archives, packed files, dumps and databases, told by their first bytes.
#![no_main]

#[path = "../counted.rs"]
mod counted;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    counted::look("x", data);
});
