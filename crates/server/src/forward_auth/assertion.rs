//! The same identity as a signed statement, so that an application can tell that a request came through the proxy: a
//! JSON Web Token (RFC 7519) with an Ed25519 signature (RFC 8037), good for a minute and for one space.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use keymoat_core::names::SpaceName;
use keymoat_vault::Vault;
use serde_json::{Value, json};

use super::identity::Identity;
use crate::AppState;

/// Where it stands.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-keymoat-assertion");

/// The keys that assertions are checked with, as RFC 7517 has them.
pub(crate) async fn jwks(State(app): State<AppState>) -> Json<Value> {
    let key = app.vault.assertion_key();
    Json(json!({ "keys": [{
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
        "kid": key_id(&key), "x": URL_SAFE_NO_PAD.encode(key),
    }] }))
}

/// Signs an identity for a space.
pub(super) fn sign(vault: &Vault, space: &SpaceName, identity: &Identity) -> String {
    let kid = key_id(&vault.assertion_key());
    let issued_at = vault.now().as_second();
    let claims = claims(&vault.instance().to_string(), space, identity, issued_at);
    let head = json!({ "alg": "EdDSA", "typ": "JWT", "kid": kid });
    let mut token = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = vault.sign_assertion(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

fn claims(instance: &str, space: &SpaceName, identity: &Identity, issued_at: i64) -> Value {
    json!({
        "iss": format!("keymoat:{instance}"),
        "aud": space,
        "sub": identity.owner,
        "iat": issued_at,
        "exp": issued_at + LASTS_SECS,
        "key_id": identity.key_id,
        "owner_kind": identity.owner_kind,
        "env": identity.environment,
        "company": identity.company,
        "scopes": within(&identity.scopes),
        "roles": within(&identity.roles),
        "groups": within(&identity.groups),
    })
}

/// As many names as fit into a header that proxies take; fewer give less.
fn within(names: &[String]) -> &[String] {
    let mut bytes = 0;
    let fitting = names.iter().take_while(|name| {
        bytes += name.len() + 3;
        bytes <= LIST_BYTES_MAX
    });
    &names[..fitting.count()]
}

/// Tells keys apart; nobody has to keep it.
fn key_id(key: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(&key[..8])
}

/// Long enough for a slow application, too short to be of use in a log.
const LASTS_SECS: i64 = 60;
/// The header grows by a third in base64 and has to fit beside the others.
const LIST_BYTES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_do_not_fit_give_less() {
        let many: Vec<String> = (0..100).map(|number| format!("orders.read{number}")).collect();
        let fitting = within(&many);
        assert!(!fitting.is_empty() && fitting.len() < 40);
        assert_eq!(fitting, &many[..fitting.len()]);
        assert_eq!(within(&many[..3]), &many[..3]);
        assert!(within(&[]).is_empty());
    }
}
