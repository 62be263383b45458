//! Provider files of users, without the ones of the program: these take longer to read than an input.
#![no_main]

use keymoat_detect::Catalogue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Catalogue::of(&[("mine.toml".to_owned(), text.to_owned())]);
});
