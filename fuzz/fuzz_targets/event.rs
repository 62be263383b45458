//! Audit records: one spelling each.
#![no_main]

use keymoat_core::audit::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(event) = Event::parse(data) {
        assert_eq!(event.canonical(), data);
    }
});
