//! Texts of keys, shares, tokens, codes, issued and Fernet keys.
#![no_main]

use keymoat_crypto::{FernetKey, IssuedKey, MasterKey, SecretBytes, Share, SignInCode, Token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = SecretBytes::from_slice(data);
    let _ = MasterKey::parse(&text);
    let _ = Share::parse(&text);
    let _ = Token::parse(&text);
    let _ = SignInCode::parse(&text);
    if let Ok(key) = IssuedKey::read(&text, |issuer| issuer == "km") {
        let _ = key.is_weak();
        assert!(key.masked().len() <= 40);
    }
    let _ = FernetKey::parse(&text);
});
