//! `.env` files: replacing a value by itself changes nothing.
#![no_main]

use keymoat_core::dotenv::{EnvFile, EnvLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(file) = EnvFile::parse(text, &EnvLimits::USUAL) else { return };
    for (number, entry) in file.entries().iter().enumerate() {
        if let Ok(Some(new)) = file.replace_entry(number, entry.value.as_str()) {
            assert_eq!(new, text);
        }
        if let Ok(Some(new)) = file.replace_entry(number, "keymoat:a#b") {
            let again = EnvFile::parse(&new, &EnvLimits::USUAL).expect("a rewritten file is still one");
            assert_eq!(again.entries()[number].value.as_str(), "keymoat:a#b");
        }
    }
});
