//! Searching a text for keys: total, in bounds, and the same wherever the text is cut.
#![no_main]

use std::sync::LazyLock;

use keymoat_detect::{Catalogue, Engine, Scratch, utf16_to_utf8};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Catalogue::builtin()));
    let mut scratch = Scratch::default();
    let (mut all, mut part, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    ENGINE.find(data, 0..data.len(), &mut scratch, &mut all);
    // The first byte says where the text is cut.
    let cut = data.first().map_or(0, |&byte| usize::from(byte) * data.len() / 256);
    for region in [0..cut, cut..data.len()] {
        ENGINE.find(data, region, &mut scratch, &mut part);
        parts.append(&mut part);
    }
    assert_eq!(all, parts);
    for hit in &all {
        assert!(hit.span.start < hit.span.end && hit.span.end <= data.len());
        assert!(hit.with_value(data, |value| !value.is_empty()));
        assert!(!ENGINE.rule(hit.rule).name().is_empty());
    }
    let _ = utf16_to_utf8(data);
});
