//! Names: whatever parses prints as it was written.
#![no_main]

use keymoat_core::names::{AccountName, Environment, SecretPath};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = text.parse::<SecretPath>() {
        assert_eq!(path.as_str(), text);
    }
    if let Ok(name) = text.parse::<Environment>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<AccountName>() {
        assert_eq!(name.as_str(), text);
    }
});
