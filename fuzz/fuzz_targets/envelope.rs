//! Ciphertexts: what was not sealed by us does not open.
#![no_main]

use keymoat_crypto::{DataKey, Place};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = DataKey::generate(1);
    let place = Place {
        instance: Default::default(),
        environment: "prod",
        company: None,
        secret: Default::default(),
        path: "stripe",
        version: 1,
        data_key: 1,
    };
    assert!(keymoat_crypto::open(&key, &place, data).is_err());
});
