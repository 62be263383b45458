//! Shapes that belong to no provider: placeholders, plain settings, PEM blocks, addresses with a password.
//!
//! Words here are those of configuration files in general; what a provider's keys look like stands in
//! the catalogue.

/// Why `text` is a placeholder whatever variable it stands in, if it is one.
pub(crate) fn placeholder(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if text.is_empty() {
        return Some("empty");
    }
    if is_slot(text) {
        return Some("to be filled in");
    }
    if is_filler(text) {
        return Some("filler characters");
    }
    if STOCK_WORDS.contains(&lower.as_str()) {
        return Some("a word that stands for a value");
    }
    is_instruction(&lower).then_some("says what belongs here")
}

/// Why `text` is a placeholder when it stands where a secret belongs: examples and fillers inside it.
pub(crate) fn placeholder_for_secret(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    placeholder(text).or_else(|| {
        let has = |word: &str| lower.contains(word);
        if EXAMPLE_WORDS.iter().any(|word| has(word)) {
            return Some("an example");
        }
        (has(&"x".repeat(FILLER_RUN))
            || has(&"*".repeat(FILLER_RUN))
            || text.ends_with("...")
            || text.ends_with('…'))
        .then_some("filler characters")
    })
}

/// Whether `value` is a placeholder where a secret belongs; bytes that are no text are none.
pub(crate) fn is_placeholder_for_secret(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| placeholder_for_secret(text).is_some())
}

/// Whether the secret part of a value is a placeholder or a word from every tutorial (`user:password@`).
pub(crate) fn is_stock_secret(secret: &[u8]) -> bool {
    std::str::from_utf8(secret).is_ok_and(|text| {
        let lower = text.to_ascii_lowercase();
        TUTORIAL_WORDS.contains(&lower.as_str()) || placeholder(text).is_some()
    })
}

/// Why `text` is an ordinary setting, if its shape says so.
pub(crate) fn plain(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if is_switch(text) {
        return Some("a switch");
    }
    if is_number(text) {
        return Some("a number");
    }
    if is_path(text) {
        return Some("a path");
    }
    if is_url_without_userinfo(text) || is_host(text) || is_mail(text) {
        return Some("an address");
    }
    None
}

/// Whether [`plain`] has a reason.
pub(crate) fn is_plain(text: &str) -> bool {
    plain(text).is_some()
}

/// Whether `text` is a yes or no.
pub(crate) fn is_switch(text: &str) -> bool {
    SWITCHES.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether `text` is a number, with sign, decimals or a unit of time or size.
pub(crate) fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    let body = digits.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    !body.is_empty()
        && digits.len() - body.len() <= 3
        && body.starts_with(|c: char| c.is_ascii_digit())
        && body.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '_'))
        && body.matches('.').count() <= 1
}

/// Whether `text` names a file, not merely begins with a slash.
pub(crate) fn is_path(text: &str) -> bool {
    let rooted = ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start));
    let drive = text.len() > 2 && text.as_bytes()[1] == b':' && matches!(text.as_bytes()[2], b'\\' | b'/');
    (rooted || drive)
        && text.len() > 1
        && !text.contains(char::is_whitespace)
        && !text.contains("//")
        && text.split(['/', '\\']).filter(|part| !part.is_empty()).all(|part| part.len() <= 64)
}

/// The label of the PEM block that `text` begins with (RFC 7468), if it is one of the usual ones.
pub(crate) fn pem_label(text: &str) -> Option<&str> {
    let rest = text.trim_start().strip_prefix("-----BEGIN ")?;
    let label = rest.split_once("-----")?.0;
    let known = PEM_LABELS.iter().any(|end| label.ends_with(end));
    (known
        && label.len() <= 48
        && label.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' '))
    .then_some(label)
}

/// Whether `text` holds a private key in PEM form, `\n` written out included.
pub(crate) fn is_private_pem(text: &str) -> bool {
    pem_label(text)
        .is_some_and(|label| label.ends_with("PRIVATE KEY") || label.ends_with("PRIVATE KEY BLOCK"))
}

/// An address that carries a user and a password before the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UrlWithUser<'t> {
    pub(crate) scheme: &'t str,
    pub(crate) user: &'t str,
    pub(crate) password: Option<&'t str>,
    /// What follows the last `@`, up to the path.
    pub(crate) host: &'t str,
    /// False when there is more than one way to read it (an `@` or `/` in the password, or later).
    pub(crate) clear: bool,
}

/// Whether `text` is an address with a scheme and no password in it.
pub(crate) fn is_address_without_password(text: &str) -> bool {
    is_url_without_userinfo(text) || url_with_user(text).is_some_and(|url| url.password.is_none())
}

/// Reads `scheme://user:password@host…`; a password with unescaped characters is taken whole (up to the
/// last `@`), since cutting it would show a part of it.
pub(crate) fn url_with_user(text: &str) -> Option<UrlWithUser<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_'));
    if !named || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let (userinfo, after) = rest.rsplit_once('@')?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let clear = rest.matches('@').count() == 1 && authority.contains('@');
    let (user, password) = match userinfo.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (userinfo, None),
    };
    // `host/path?mail=a@b` has no user at all.
    if !authority.contains('@') && password.is_none() {
        return None;
    }
    let host = after.split(['/', '?', '#']).next().unwrap_or_default();
    Some(UrlWithUser { scheme, user, password: password.filter(|p| !p.is_empty()), host, clear })
}

/// Whether `text` looks made by a random generator although nothing names it: long, of one piece, with
/// letters of both cases and digits evenly spread. Hexadecimal is left out: it may be any digest or id.
pub(crate) fn is_random_token(text: &str) -> bool {
    let of_one_piece =
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-' | '.'));
    let mixed = [char::is_ascii_uppercase, char::is_ascii_lowercase, char::is_ascii_digit]
        .iter()
        .all(|class: &fn(&char) -> bool| text.chars().any(|c| class(&c)));
    let longest = text.split(['/', '_', '-', '.']).map(str::len).max().unwrap_or(0);
    (RANDOM_MIN_LEN..=RANDOM_MAX_LEN).contains(&text.len())
        && of_one_piece
        && mixed
        && longest >= RANDOM_MIN_PIECE
        && crate::entropy::entropy(text) >= RANDOM_MIN_ENTROPY
}

/// Whether `text` is a JSON Web Token (RFC 7519): three base64url parts, the first a JSON object.
pub(crate) fn is_jwt(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let base64url = |part: &&str| {
        part.len() >= 10 && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    parts.len() == 3 && parts.iter().all(base64url) && parts[..2].iter().all(|part| part.starts_with("eyJ"))
}

fn is_slot(text: &str) -> bool {
    let inside = |open: &str, close: &str| {
        text.strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
            .is_some_and(|name| name.contains(char::is_alphanumeric))
    };
    let variable = text.strip_prefix('$').is_some_and(|name| {
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    });
    variable
        || [("<", ">"), ("${", "}"), ("$(", ")"), ("{{", "}}"), ("[", "]"), ("__", "__"), ("%(", ")s")]
            .iter()
            .any(|(open, close)| inside(open, close))
}

fn is_filler(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let same = text.chars().all(|c| c == first);
    same && text.chars().count() >= 3
        && matches!(first, 'x' | 'X' | '*' | '.' | '-' | '#' | '0' | '_' | '?' | '…')
}

fn is_instruction(lower: &str) -> bool {
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    let several = words.len() >= 2;
    let of_a_key = words.iter().any(|word| INSTRUCTION_OBJECTS.contains(word));
    (several && *last == "here")
        || (several && of_a_key && INSTRUCTION_VERBS.contains(first))
        || (several && words.starts_with(&["change", "me"]))
}

fn is_url_without_userinfo(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            && !rest.contains(char::is_whitespace)
            && url_with_user(text).is_none()
    })
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let labels: Vec<&str> = host.split('.').collect();
    let name = labels.iter().all(|label| {
        (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    });
    let numeric = labels.len() == 4 && labels.iter().all(|label| label.parse::<u8>().is_ok());
    let ends_in_letters =
        labels.last().is_some_and(|last| last.len() <= 24 && last.chars().all(|c| c.is_ascii_alphabetic()));
    let lower = !host.contains(|c: char| c.is_ascii_uppercase());
    port.parse::<u16>().is_ok()
        && (numeric || host == "localhost" || (labels.len() >= 2 && name && ends_in_letters && lower))
}

fn is_mail(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+'))
            && is_host(host)
    })
}

const SWITCHES: &[&str] = &["true", "false", "yes", "no", "on", "off", "0", "1", "enabled", "disabled"];

/// Values that nobody means as a value. `password` and `secret` are not here: people do use them.
const STOCK_WORDS: &[&str] = &[
    "changeme",
    "change-me",
    "change_me",
    "changethis",
    "change-this",
    "change_this",
    "dummy",
    "example",
    "fixme",
    "nil",
    "none",
    "null",
    "placeholder",
    "redacted",
    "replace-me",
    "replace_me",
    "replaceme",
    "sample",
    "tbd",
    "todo",
    "undefined",
    "unset",
];

/// Passwords of tutorials, counted as none where only an address with a password is seen.
const TUTORIAL_WORDS: &[&str] =
    &["password", "passwd", "pass", "pwd", "secret", "pw", "user", "username", "mypassword"];

/// Inside a value that should be secret: an example, not a key. A random key of 40 characters has one of
/// them with a probability below one in a billion.
const EXAMPLE_WORDS: &[&str] = &[
    "example",
    "changeme",
    "placeholder",
    "change-me",
    "change_me",
    "dummy-",
    "dummy_",
    "[redacted",
    "<redacted",
];

const INSTRUCTION_VERBS: &[&str] =
    &["your", "my", "insert", "enter", "put", "add", "paste", "replace", "use", "set", "some", "the", "fill"];

const INSTRUCTION_OBJECTS: &[&str] = &[
    "key",
    "keys",
    "token",
    "secret",
    "password",
    "passwd",
    "sid",
    "id",
    "value",
    "apikey",
    "credential",
    "credentials",
    "here",
    "this",
];

/// Ends of PEM labels that may be shown.
const PEM_LABELS: &[&str] = &[
    "PRIVATE KEY",
    "PUBLIC KEY",
    "CERTIFICATE",
    "CERTIFICATE REQUEST",
    "PRIVATE KEY BLOCK",
    "PUBLIC KEY BLOCK",
    "PARAMETERS",
];

/// A random base-62 text of 40 characters has such a run with a probability below one in ten million.
const FILLER_RUN: usize = 6;

/// Below, identifiers and file names look as random as keys.
const RANDOM_MIN_LEN: usize = 32;

/// Above, it is data, not a key.
const RANDOM_MAX_LEN: usize = 512;

/// Words joined by `-`, `_`, `.` or `/` are names; a key has at least one long piece.
const RANDOM_MIN_PIECE: usize = 20;

/// Random base-62 text of 32 characters measures 4.5 bits on average; prose and camel case lie below 4.2.
const RANDOM_MIN_ENTROPY: f64 = 4.25;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn placeholders() {
        let check = |text: &str, anywhere: bool, for_secret: bool| {
            assert_eq!(
                (placeholder(text).is_some(), placeholder_for_secret(text).is_some()),
                (anywhere, for_secret),
                "{text}"
            );
        };
        for text in [
            "",
            "  ",
            "changeme",
            "CHANGE_ME",
            "<your key>",
            "${STRIPE_KEY}",
            "{{ stripe_key }}",
            "$DB_PASSWORD",
            "xxx",
            "********",
            "00000000",
            "...",
            "your_api_key_here",
            "your-secret-key",
            "my_secret_token",
            "insert key here",
            "null",
            "TODO",
            "change me please",
        ] {
            check(text, true, true);
        }
        for text in [
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "sk_live_xxxxxxxxxxxx",
            "example-secret-1",
            "sk_test_...",
        ] {
            check(text, false, true);
        }
        for text in [
            "password",
            "hunter2",
            "s3cr3t",
            "1",
            "true",
            "shop",
            "0000a1b2c3d4",
            "$ecret",
            "here",
            "yourself",
        ] {
            check(text, false, false);
        }
    }

    #[test]
    fn plain_settings() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(plain(text), expected, "{text}");
        check("true", Some("a switch"));
        check("1", Some("a switch"));
        check("8069", Some("a number"));
        check("-1.5", Some("a number"));
        check("30s", Some("a number"));
        check("/var/lib/odoo", Some("a path"));
        check("./config/odoo.conf", Some("a path"));
        check("https://shop.madeup.test/return?x=1", Some("an address"));
        check("postgres://db.madeup.test/shop", Some("an address"));
        check("db.madeup.test:5432", Some("an address"));
        check("localhost", Some("an address"));
        check("10.0.0.7", Some("an address"));
        check("shop@madeup.test", Some("an address"));
        check("production", None);
        check("3fa9c2d4e5", None);
        check("postgres://shop:pw@db.madeup.test/shop", None);
        check("/a//b", None);
    }

    #[test]
    fn urls_with_users() {
        let check = |text: &str, expected: Option<(&str, &str, Option<&str>, &str, bool)>| {
            let found =
                url_with_user(text).map(|url| (url.scheme, url.user, url.password, url.host, url.clear));
            assert_eq!(found, expected, "{text}");
        };
        check("postgres://u:p@h:5432/d?x=1", Some(("postgres", "u", Some("p"), "h:5432", true)));
        check("redis://:p@h", Some(("redis", "", Some("p"), "h", true)));
        check("https://token@github.com/a", Some(("https", "token", None, "github.com", true)));
        check("mysql+pymysql://u:p/a@ss@h/d", Some(("mysql+pymysql", "u", Some("p/a@ss"), "h", false)));
        check("https://h/path?mail=a@b", None);
        check("https://h/path", None);
        check("u:p@h", None);
        check("a b://u:p@h", None);
    }

    #[test]
    fn pem_and_tokens() {
        assert!(is_private_pem("-----BEGIN PRIVATE KEY-----\nMadeUp\n-----END PRIVATE KEY-----"));
        assert!(is_private_pem("-----BEGIN RSA PRIVATE KEY-----\\nMadeUp"));
        assert!(!is_private_pem("-----BEGIN CERTIFICATE-----\nMadeUp"));
        assert_eq!(pem_label("-----BEGIN hunter2 PRIVATE KEY-----"), None);
        assert!(is_jwt("eyJhbGciOiJub25lIn0.eyJzdWIiOiJNYWRlVXAifQ.MadeUpSignature0000"));
        assert!(!is_jwt("www.madeup.test"));
        assert!(is_random_token("q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU"));
        assert!(!is_random_token("9f2c4b7a1e8d3056c1a9e4f7b2d80635"));
        assert!(!is_random_token("odoo-shop-production-eu-west-1-Database2"));
    }

    proptest! {
        #[test]
        fn shapes_are_total(text in "\\PC{0,120}") {
            let _ = (placeholder_for_secret(&text), plain(&text), pem_label(&text), is_random_token(&text), is_jwt(&text), is_stock_secret(text.as_bytes()));
        }

        #[test]
        fn a_password_in_an_address_is_taken_whole(password in "[!-~]{1,30}", user in "[a-z]{0,8}") {
            let text = format!("postgres://{user}:{password}@db.madeup.test/shop");
            prop_assert_eq!(url_with_user(&text).unwrap().password, Some(password.as_str()));
        }
    }
}
