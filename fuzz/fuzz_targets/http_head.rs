//! Bytes of a connection: what reaches a handler is what a plain reading of RFC 9112 finds there, in this order, with
//! the target as it was sent.
#![no_main]

use keymoat_server::strict;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
    let taken = runtime.block_on(strict::taken(bytes));
    let mut plain = strict::plain_reading(bytes).into_iter();
    for request in taken {
        assert!(plain.any(|found| found == request), "{request:?} is not in what was sent");
    }
});
