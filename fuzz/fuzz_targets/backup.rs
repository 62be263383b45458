//! Backup streams: what was not sealed by us does not open.
#![no_main]

use keymoat_crypto::{BackupKey, InstanceKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let key = BackupKey::from_instance(&InstanceKey::generate());
    assert!(keymoat_crypto::open_backup(&key, b"", data).is_err());
});
