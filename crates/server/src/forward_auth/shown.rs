//! The key that a request shows, wherever it may stand.

use http::{HeaderMap, HeaderName, header};
use keymoat_crypto::SecretBytes;

/// More than one is shown, so the application might take another than the one that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubled;

/// The key in `API-KEY`, `X-API-Key`, or `Authorization: Bearer` or `Api-Key`. What stands in `Authorization` under
/// another scheme is somebody else's: a site may be behind a password as well.
pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<SecretBytes>, Doubled> {
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(Doubled);
    }
    let own = NAMES.iter().flat_map(|name| headers.get_all(name)).map(|value| value.as_bytes());
    let authorized = headers.get(header::AUTHORIZATION).and_then(|value| credentials(value.as_bytes()));
    let mut shown = own.chain(authorized);
    match (shown.next(), shown.next()) {
        (key, None) => Ok(key.map(|key| SecretBytes::from_slice(key.trim_ascii()))),
        (_, Some(_)) => Err(Doubled),
    }
}

/// What follows a scheme that carries keys (RFC 9110 §11.4); its name has no case.
fn credentials(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(rest)
}

static NAMES: [HeaderName; 2] = [HeaderName::from_static("api-key"), HeaderName::from_static("x-api-key")];
const SCHEMES: [&[u8]; 2] = [b"Bearer", b"Api-Key"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_where_they_are_found() {
        #[track_caller]
        fn check(lines: &[(&str, &[u8])], expected: Result<Option<&[u8]>, Doubled>) {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(HeaderName::try_from(*name).unwrap(), (*value).try_into().unwrap());
            }
            // EXPOSE: a made-up key in a test.
            let found = key_of(&headers).map(|key| key.map(|key| key.expose(|key| key.clone())));
            assert_eq!(found, expected.map(|key| key.map(<[u8]>::to_vec)), "{lines:?}");
        }
        let key: Result<Option<&[u8]>, Doubled> = Ok(Some(b"made-up"));
        check(&[], Ok(None));
        check(&[("api-key", b"made-up")], Ok(Some(b"made-up")));
        check(&[("API-KEY", b"made-up")], Ok(Some(b"made-up")));
        check(&[("x-api-key", b"made-up")], Ok(Some(b"made-up")));
        check(&[("authorization", b"Bearer made-up")], Ok(Some(b"made-up")));
        check(&[("authorization", b"bearer   made-up ")], Ok(Some(b"made-up")));
        check(&[("authorization", b"Api-Key made-up")], Ok(Some(b"made-up")));
        check(&[("authorization", b"Basic bWFkZTp1cA==")], Ok(None));
        check(&[("authorization", b"Bearermade-up")], Ok(None));
        check(&[("authorization", b"Bearer")], Ok(Some(b"")));
        check(&[("api-key", b"")], Ok(Some(b"")));
        check(&[("api-key", b"\xff")], Ok(Some(b"\xff")));
        check(&[("authorization", b"Basic bWFkZTp1cA=="), ("api-key", b"made-up")], key);
        check(&[("api-key", b"made-up"), ("api-key", b"made-up")], Err(Doubled));
        check(&[("api-key", b"made-up"), ("api-key", b"")], Err(Doubled));
        check(&[("api-key", b"made-up"), ("x-api-key", b"made-up")], Err(Doubled));
        check(&[("api-key", b"made-up"), ("authorization", b"Bearer made-up")], Err(Doubled));
        check(&[("authorization", b"Basic x"), ("authorization", b"Bearer made-up")], Err(Doubled));
    }
}
