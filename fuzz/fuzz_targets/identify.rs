//! Recognition, masks and classification: total, and a mask shows little.
#![no_main]

use keymoat_detect::Catalogue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let catalogue = Catalogue::builtin();
    let _ = catalogue.identify(data);
    let _ = catalogue.is_fingerprintable(data);
    let mask = catalogue.mask(data);
    assert!(data.len() < 64 || !mask.as_bytes().windows(48).any(|window| data.windows(48).any(|part| part == window)));
    let _ = catalogue.identify_named("STRIPE_SECRET_KEY", data);
});
