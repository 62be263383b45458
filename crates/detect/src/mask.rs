//! How a value is shown to people: enough to tell two keys apart, never enough to use one.
//!
//! A mask never tells the length. It is for display only; comparing masks proves nothing.

use crate::catalogue::Catalogue;
use crate::identify::Identification;
use crate::shape::{self, UrlWithUser};

/// Stands for everything that is left out, whatever its length.
pub const ELLIPSIS: &str = "…";

impl Catalogue {
    /// Masks a value. At most the provider's literal prefix and the last four characters are kept
    /// (`sk_live_…4242`); of an address user and host (`postgres://shop:…@db`); of a PEM block its label;
    /// of anything short, binary or of several lines nothing.
    pub fn mask(&self, text: &[u8]) -> String {
        let Ok(text) = std::str::from_utf8(text) else { return ELLIPSIS.to_owned() };
        if let Some(label) = shape::pem_label(text) {
            return format!("-----BEGIN {label} {ELLIPSIS}");
        }
        if text.len() < MIN_SHOWN || text.contains(char::is_control) {
            return ELLIPSIS.to_owned();
        }
        if let Some(url) = shape::url_with_user(text) {
            return self.mask_url(&url);
        }
        match self.identify(text.as_bytes()) {
            Identification::Known(known) => {
                let prefix = known.key.prefix_of(text.as_bytes()).unwrap_or_default();
                with_tail(prefix, text, MIN_HIDDEN_KNOWN)
            }
            Identification::Unknown => with_tail("", text, MIN_HIDDEN_UNKNOWN),
        }
    }

    fn mask_url(&self, url: &UrlWithUser<'_>) -> String {
        let UrlWithUser { scheme, user, password, host, clear } = *url;
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        let label = |label: &str| label.len() <= MAX_LABEL && !shape::is_random_token(label);
        let host_is_one = clear
            && (1..=MAX_HOST).contains(&host.len())
            && host.chars().all(name)
            && host.split(['.', ':']).all(label)
            && self.identify(host.as_bytes()) == Identification::Unknown;
        let scheme_is_one = scheme.len() <= MAX_SCHEME;
        let user_is_one = user.len() <= MAX_USER
            && user.chars().all(name)
            && self.identify(user.as_bytes()) == Identification::Unknown;
        // A user without a password is a token more often than a name.
        let secret = password.unwrap_or(user);
        let shown = [
            (scheme_is_one && host_is_one && user_is_one && password.is_some())
                .then(|| format!("{scheme}://{user}:{ELLIPSIS}@{host}")),
            (scheme_is_one && host_is_one).then(|| format!("{scheme}://{ELLIPSIS}@{host}")),
            scheme_is_one.then(|| format!("{scheme}://{ELLIPSIS}")),
        ];
        // A password that is also the user's or the host's name must not be shown by way of them.
        let safe = |mask: &String| secret.is_empty() || !mask.contains(secret);
        shown.into_iter().flatten().find(safe).unwrap_or_else(|| ELLIPSIS.to_owned())
    }
}

/// `prefix…tail`, the tail only when enough stays hidden and it is safe to print.
fn with_tail(prefix: &str, text: &str, min_hidden: usize) -> String {
    let body = text.get(prefix.len()..).unwrap_or_default();
    let tail = body
        .len()
        .checked_sub(TAIL)
        .filter(|hidden| *hidden >= min_hidden)
        .and_then(|at| body.get(at..))
        .filter(|tail| tail.chars().all(|c| c.is_ascii_graphic()))
        .unwrap_or_default();
    format!("{prefix}{ELLIPSIS}{tail}")
}

/// Shorter values show nothing at all.
const MIN_SHOWN: usize = 12;

/// Characters shown at the end.
const TAIL: usize = 4;

/// A key that a provider made at random keeps at least 48 bits hidden behind eight characters.
const MIN_HIDDEN_KNOWN: usize = 8;

/// An unknown value may be a password that a person chose: its last four characters are a quarter of it
/// and often its only digits, so they are shown only of values of twenty characters and more.
const MIN_HIDDEN_UNKNOWN: usize = 16;

/// Longer user names are tokens.
const MAX_USER: usize = 32;

/// The longest host name (RFC 1035) and a port.
const MAX_HOST: usize = 259;

/// The longest part of a host name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// `mysql+mysqlconnector` and shorter.
const MAX_SCHEME: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(text: &str) -> String {
        Catalogue::builtin().mask(text.as_bytes())
    }

    #[test]
    fn masks() {
        let check = |text: &str, expected: &str| assert_eq!(mask(text), expected, "{text}");
        check("sk_live_51MadeUpExample0000Keymoat4242", "sk_live_…4242");
        check("pk_test_51MadeUpExample0000Keymoat4242", "pk_test_…4242");
        check("0000a1b2c3d4e5f60718293a4b5c6d7e-us19", "…us19");
        check("km_live_MadeUpIssuedKeyOfSomebodysApi0KeymoatExampl0I8fcP", "km_…8fcP");
        check("9f2c4b7a1e8d3056c1a9e4f7b2d80635", "…0635");
        check("hunter2", "…");
        check("hunter2hunter2", "…");
        check("", "…");
        check("two\nlines of something longer", "…");
        check("escape\u{1b}[31m of something longer", "…");
        check("ends in something odd: žluť", "…");
        check(
            "-----BEGIN PRIVATE KEY-----\nMadeUp0000\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY …",
        );
        check("-----BEGIN MY PASSWORD-----\nMadeUp0000\n-----END", "…");
        check(
            "postgres://shop:MadeUp0000Pass@db.madeup.test:5432/shop?sslmode=require",
            "postgres://shop:…@db.madeup.test:5432",
        );
        check("redis://:MadeUp0000Pass@cache.madeup.test", "redis://:…@cache.madeup.test");
        check("postgres://shop:Made@Up/0000@db.madeup.test/shop", "postgres://…");
        check("postgres://shop:shop@db.madeup.test/x", "postgres://…@db.madeup.test");
        check(&format!("oracle://@{}", "y".repeat(64)), "oracle://…");
        check("oracle://shop:x@sk_live_51MadeUpExample0000Keymoat4242", "oracle://…");
        check(
            "https://sk_live_51MadeUpExample0000Keymoat4242:x@api.madeup.test",
            "https://…@api.madeup.test",
        );
        check("https://MadeUpToken0000@git.madeup.test/a", "https://…@git.madeup.test");
        assert_eq!(Catalogue::builtin().mask(&[0xff; 40]), "…");
    }

    /// The literal prefixes of the catalogue, the only part besides the tail that may be shown.
    fn is_prefix(text: &str) -> bool {
        text.is_empty()
            || Catalogue::builtin()
                .providers()
                .iter()
                .flat_map(|provider| &provider.keys)
                .flat_map(|key| &key.prefixes)
                .any(|prefix| prefix == text)
    }

    fn check_bounds(text: &str) -> Result<(), TestCaseError> {
        let mask = mask(text);
        let (head, tail) = mask.split_once(ELLIPSIS).unwrap();
        prop_assert!(is_prefix(head), "{mask}");
        prop_assert!(tail.len() <= TAIL && (tail.is_empty() || text.ends_with(tail)), "{mask}");
        prop_assert!(text.len() >= head.len() + tail.len() + 8 || tail.is_empty(), "{mask}");
        Ok(())
    }

    proptest! {
        #[test]
        fn never_more_than_prefix_and_four(text in "[^:]{0,80}") {
            check_bounds(&text)?;
        }

        #[test]
        fn of_keys_never_more_than_prefix_and_four(prefix in "(sk|rk|pk)_(live|test)_|shpat_|kms_|AKIA|EAAA", body in "[0-9A-Za-z]{0,90}") {
            check_bounds(&format!("{prefix}{body}"))?;
        }

        #[test]
        fn an_address_never_shows_its_password(
            scheme in "[a-z]{1,8}", user in "[a-zA-Z0-9_@/:]{0,10}", password in "[!-~]{4,20}", host in "[a-z0-9.]{1,12}", path in "[/?#@a-z:]{0,12}",
        ) {
            let text = format!("{scheme}://{user}:{password}@{host}{path}");
            if text.len() >= MIN_SHOWN {
                prop_assert!(!mask(&text).contains(&password), "{text} {}", mask(&text));
            }
        }

        #[test]
        fn the_length_is_never_told(a in 30usize..60, b in 60usize..90) {
            prop_assert_eq!(mask(&format!("{}9f2c", "ab".repeat(a))), mask(&format!("{}9f2c", "ab".repeat(b))));
        }

        #[test]
        fn mask_is_total(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Catalogue::builtin().mask(&text);
        }
    }
}
