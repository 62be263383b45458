//! Policy documents, JSON and TOML.
#![no_main]

use keymoat_core::policy::{CompiledPolicy, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed: [Option<Policy>; 2] = [serde_json::from_str(text).ok(), toml::from_str(text).ok()];
    for policy in parsed.into_iter().flatten() {
        // Whether it compiles is for it to say; it must say so without a panic.
        let _ = CompiledPolicy::new(policy);
    }
});
