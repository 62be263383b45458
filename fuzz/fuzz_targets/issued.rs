//! What is written about issued keys: scopes and questions, limits, refills, networks, and who asks behind proxies.
#![no_main]

use keymoat_core::issued::{
    AddressList, Held, HeldScope, Limits, OwnerRef, Refill, ScopeName, ScopeQuery, client_of,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(query) = text.parse::<ScopeQuery>() {
        let everything: [HeldScope; 1] = ["*".parse().expect("a star is a scope")];
        // Whatever has no role or group in it is answered with yes to who holds everything.
        let met = Held { scopes: &everything, ..Held::default() }.meets(&query);
        assert!(met || text.contains("role:") || text.contains("group:"));
        assert!(!Held::default().meets(&query));
    }
    if let Ok(scope) = text.parse::<ScopeName>() {
        assert!(HeldScope::from(scope.clone()).gives(&scope));
    }
    if let Ok(limits) = text.parse::<Limits>() {
        assert_eq!(limits.to_string().parse::<Limits>(), Ok(limits));
    }
    if let Ok(refill) = text.parse::<Refill>() {
        assert_eq!(refill.to_string().parse::<Refill>(), Ok(refill));
    }
    if let Ok(networks) = text.parse::<AddressList>() {
        assert_eq!(networks.to_string().parse::<AddressList>(), Ok(networks));
    }
    if let Ok(owner) = text.parse::<OwnerRef>() {
        assert_eq!(owner.as_str(), text);
    }
    let trusted: AddressList = "127.0.0.1,10.0.0.0/8".parse().expect("these are networks");
    let peer = "127.0.0.1".parse().expect("this is an address");
    let _ = client_of(peer, text.split('\n'), trusted.as_slice());
});
