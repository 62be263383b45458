//! Whose request it is, as the application behind the proxy reads it: always the same headers, none of them empty.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use keymoat_vault::issued::KnownKey;

/// Every header, in the order of [`Identity::values`]. The configurations in `examples/forward-auth` name all of them.
pub(super) static HEADERS: [HeaderName; COUNT] = [
    HeaderName::from_static("x-keymoat-key-id"),
    HeaderName::from_static("x-keymoat-key-name"),
    HeaderName::from_static("x-keymoat-owner"),
    HeaderName::from_static("x-keymoat-owner-kind"),
    HeaderName::from_static("x-keymoat-scopes"),
    HeaderName::from_static("x-keymoat-roles"),
    HeaderName::from_static("x-keymoat-groups"),
    HeaderName::from_static("x-keymoat-company"),
    HeaderName::from_static("x-keymoat-env"),
    HeaderName::from_static("x-keymoat-credits"),
    HeaderName::from_static("x-keymoat-deprecated"),
];

/// What the application learns of a key.
pub(super) struct Identity {
    pub(super) key_id: String,
    pub(super) key_name: String,
    pub(super) owner: String,
    pub(super) owner_kind: &'static str,
    pub(super) scopes: Vec<String>,
    pub(super) roles: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) company: Option<String>,
    pub(super) environment: String,
    pub(super) credits: Option<u64>,
    /// When a key that has a successor ends.
    pub(super) deprecated: Option<String>,
}

impl Identity {
    pub(super) fn of(key: &KnownKey, credits: Option<u64>) -> Self {
        let ends = || key.expires_at.map_or_else(|| "yes".to_owned(), |ends| ends.to_string());
        Self {
            key_id: key.id.to_string(),
            key_name: key.name.to_string(),
            owner: key.owner.to_string(),
            owner_kind: key.terms.owner_kind.as_str(),
            scopes: key.terms.scopes.iter().map(ToString::to_string).collect(),
            roles: key.terms.roles.iter().map(ToString::to_string).collect(),
            groups: key.terms.groups.iter().map(ToString::to_string).collect(),
            company: key.place.company.as_ref().map(ToString::to_string),
            environment: key.place.environment.to_string(),
            credits,
            deprecated: key.replaced_by.map(|_| ends()),
        }
    }

    /// That of a request without a key.
    pub(super) fn nobody() -> Self {
        Self {
            key_id: String::new(),
            key_name: String::new(),
            owner: String::new(),
            owner_kind: "",
            scopes: Vec::new(),
            roles: Vec::new(),
            groups: Vec::new(),
            company: None,
            environment: String::new(),
            credits: None,
            deprecated: None,
        }
    }

    /// Writes all headers.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in HEADERS.iter().zip(self.values()) {
            headers.insert(name, value_of(&value));
        }
    }

    fn values(&self) -> [Cow<'_, str>; COUNT] {
        [
            self.key_id.as_str().into(),
            self.key_name.as_str().into(),
            self.owner.as_str().into(),
            self.owner_kind.into(),
            list(&self.scopes).into(),
            list(&self.roles).into(),
            list(&self.groups).into(),
            self.company.as_deref().unwrap_or_default().into(),
            self.environment.as_str().into(),
            self.credits.map(|credits| credits.to_string()).unwrap_or_default().into(),
            self.deprecated.as_deref().unwrap_or_default().into(),
        ]
    }
}

/// Joined by spaces, which no name has. One that would not fit into a proxy's buffer ends in `+`: it gives less than
/// the key, never more.
fn list(names: &[String]) -> String {
    let mut text = String::new();
    for name in names {
        if text.len() + name.len() > LIST_BYTES_MAX {
            text.push_str(" +");
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(name);
    }
    text
}

/// A value that every proxy passes on as it is: printable ASCII, all else with percent signs; `-` for none.
fn value_of(text: &str) -> HeaderValue {
    if text.is_empty() {
        return HeaderValue::from_static(NONE);
    }
    let mut escaped = String::with_capacity(text.len());
    for (place, byte) in text.trim().bytes().enumerate() {
        // A name that is a hyphen would be none.
        let is_plain = (b' '..=b'~').contains(&byte) && byte != b'%' && !(place == 0 && text == NONE);
        if is_plain {
            escaped.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    match escaped.is_empty() {
        true => HeaderValue::from_static(NONE),
        false => HeaderValue::from_str(&escaped).expect("printable ASCII is the value of a header"),
    }
}

/// Stands for nothing: an empty header is one that proxies leave out.
pub(super) const NONE: &str = "-";
const COUNT: usize = 11;
/// Proxies keep all headers of an answer in one buffer, of 4 KiB with nginx.
const LIST_BYTES_MAX: usize = 700;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_headers_are_there_and_none_is_empty() {
        let mut headers = HeaderMap::new();
        let owner = "odoo:res.users:42".to_owned();
        Identity { owner, ..Identity::nobody() }.write(&mut headers);
        assert_eq!(headers.len(), HEADERS.len());
        for name in &HEADERS {
            assert!(!headers[name].is_empty(), "{name}");
        }
        assert_eq!(headers["x-keymoat-company"], "-");
        assert_eq!(headers["x-keymoat-owner"], "odoo:res.users:42");
    }

    #[test]
    fn values_are_plain() {
        let check = |text: &str, expected: &str| assert_eq!(value_of(text), expected, "{text:?}");
        check("", "-");
        check("  ", "-");
        check("-", "%2D");
        check("--", "--");
        check("shop 1", "shop 1");
        check("Büro", "B%C3%BCro");
        check("50%", "50%25");
        check("a\r\nX-Keymoat-Owner: root", "a%0D%0AX-Keymoat-Owner: root");
        check("\u{7f}\0", "%7F%00");
    }

    #[test]
    fn long_lists_give_less() {
        let many: Vec<String> = (0..200).map(|number| format!("orders.read{number}")).collect();
        let text = list(&many);
        assert!(text.len() <= LIST_BYTES_MAX + 2 && text.ends_with(" +"), "{text}");
        let given: Vec<&str> = text.split(' ').collect();
        assert!(given[..given.len() - 1].iter().all(|name| many.iter().any(|known| known == name)));
        assert_eq!(list(&many[..2]), "orders.read0 orders.read1");
    }
}
