//! Recognition, masks and classification: total, and a mask shows little.
#![no_main]

use keymoat_detect::Catalogue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let catalogue = Catalogue::builtin();
    let _ = catalogue.identify(data);
    let _ = catalogue.is_fingerprintable(data);
    let mask = catalogue.mask(data);
    // The longest thing that a mask may show in one piece is a part of a host's name.
    let is_shown =
        |part: &[u8]| !part.contains(&b'.') && mask.as_bytes().windows(64).any(|window| part == window);
    assert!(!data.windows(64).any(is_shown));
    let _ = catalogue.identify_named("STRIPE_SECRET_KEY", data);
});
