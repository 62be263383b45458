//! Signed checkpoints: one spelling each.
#![no_main]

use keymoat_core::checkpoint::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((checkpoint, _)) = Checkpoint::parse(text) {
        assert!(text.starts_with(&checkpoint.body()));
    }
});
