//! Texts of keys, shares, tokens, codes and Fernet keys.
#![no_main]

use keymoat_crypto::{FernetKey, MasterKey, SecretBytes, Share, SignInCode, Token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = SecretBytes::from_slice(data);
    let _ = MasterKey::parse(&text);
    let _ = Share::parse(&text);
    let _ = Token::parse(&text);
    let _ = SignInCode::parse(&text);
    let _ = FernetKey::parse(&text);
});
