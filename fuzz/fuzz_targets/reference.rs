//! References: whatever parses prints as something that parses to the same.
#![no_main]

use keymoat_core::reference::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(Some(reference)) = Reference::parse(text) {
        let again = Reference::parse(&reference.to_string()).expect("it was printed by us");
        assert_eq!(again, Some(reference));
    }
});
