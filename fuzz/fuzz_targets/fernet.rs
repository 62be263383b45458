//! Fernet tokens under a fixed key.
#![no_main]

use keymoat_crypto::{FernetKey, SecretBytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = SecretBytes::from_slice(b"cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=");
    let key = FernetKey::parse(&key).expect("the published example key");
    let _ = key.decrypt(&SecretBytes::from_slice(data));
});
