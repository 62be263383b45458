//! What stands near a key and is used together with it: the other half of a pair, the host name of a shop.
//!
//! Looks at a few kilobytes around a key, and only for values that the provider's own file speaks of. It guesses
//! nothing: a value has its key's shape or its setting's name, or is not taken.

use std::ops::Range;
use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::provider::{Key, Provider, Setting, Template};

/// A value that stands near a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Near<'t> {
    /// The nearest one, in the form that templates want.
    pub value: &'t [u8],
    /// Whether it is the only one there, so that it is sure which one goes along with the key.
    pub is_only: bool,
}

impl Provider {
    /// The value of a field or setting that stands nearest to the key at `at`.
    pub fn near<'t>(&self, name: &str, text: &'t [u8], at: &Range<usize>) -> Option<Near<'t>> {
        let from = at.start.saturating_sub(REACH);
        let around = text.get(from..(at.end.saturating_add(REACH)).min(text.len()))?;
        let key = at.start - from..at.end - from;
        let mut found: Vec<Range<usize>> = Vec::new();
        for own in self.keys.iter().filter(|own| own.field == name) {
            let assigned = assigned(around).filter(|(before, _)| stands_for(before, own));
            let values = assigned.map(|(_, value)| value).chain(prefixed(own, around));
            found.extend(values.filter(|at| around.get(at.clone()).is_some_and(|value| own.matches(value))));
        }
        if let Some(setting) = self.settings.iter().find(|setting| setting.name == name) {
            let assigned = assigned(around).filter(|(before, _)| names_setting(before, setting));
            found.extend(assigned.filter_map(|(_, value)| host_in(around, value)));
            // A host that is only mentioned may be anybody's.
            if found.is_empty() {
                found.extend(
                    self.addresses().flat_map(|(address, hosts)| hosts_like(address, name, hosts, around)),
                );
            }
        }
        let distance =
            |value: &Range<usize>| value.start.saturating_sub(key.end) + key.start.saturating_sub(value.end);
        found.retain(|value| value.end <= key.start || value.start >= key.end);
        found.sort_by_key(|value| (distance(value), value.start));
        let value = around.get(found.first()?.clone())?;
        let is_only = found.iter().all(|other| around.get(other.clone()) == Some(value));
        Some(Near { value, is_only })
    }

    /// The addresses that keys are sent to, with the hosts that are allowed there.
    fn addresses(&self) -> impl Iterator<Item = (&Template, &[String])> {
        self.send.iter().map(|send| (&send.base_url, send.hosts.as_slice()))
    }
}

/// Names and the values that are assigned to them: `NAME=value`, `"name": "value"`, `name => 'value'`.
fn assigned(text: &[u8]) -> impl Iterator<Item = (&[u8], Range<usize>)> {
    static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?-u)([A-Za-z][A-Za-z0-9_.-]{1,80})["'`\]]{0,2}[ \t]{0,8}(?:=>|:=|=|:)[ \t]{0,8}["'`]?([^\s"'`,;&<>(){}\[\]]{1,300})"#)
            .expect("it compiles: a test uses it")
    });
    ASSIGNED.captures_iter(text).filter_map(|found| Some((found.get(1)?.as_bytes(), found.get(2)?.range())))
}

/// Whether a name is one of a key's variables or its field, with or without other words around it.
fn stands_for(name: &[u8], key: &Key) -> bool {
    let words = words(name);
    key.variables.iter().any(|variable| holds(&words, variable)) || holds(&words, &key.field)
}

fn names_setting(name: &[u8], setting: &Setting) -> bool {
    let words = words(name);
    setting.variables.iter().any(|variable| holds(&words, variable)) || holds(&words, &setting.name)
}

/// The words of a name in any style, each between two `_`: `_ACCOUNT_SID_` of `accountSid`.
fn words(name: &[u8]) -> String {
    let mut words = String::from("_");
    let mut was_lower = false;
    for &byte in name {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => {
                if byte.is_ascii_uppercase() && was_lower {
                    words.push('_');
                }
                words.push(char::from(byte.to_ascii_uppercase()));
            }
            _ => words.push('_'),
        }
        was_lower = byte.is_ascii_lowercase() || byte.is_ascii_digit();
    }
    words.push('_');
    words
}

fn holds(words: &str, name: &str) -> bool {
    words.contains(&format!("_{}_", name.to_ascii_uppercase()))
}

/// Values of a key that its prefix alone tells.
fn prefixed(key: &Key, text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if key.needs_context {
        return found;
    }
    for prefix in &key.prefixes {
        for at in memchr_all(text, prefix.as_bytes()) {
            let is_inside = at > 0 && (text[at - 1].is_ascii_alphanumeric() || text[at - 1] == b'_');
            if let Some((_, end)) = (!is_inside).then(|| key.judge_beginning(&text[at..])).flatten() {
                found.push(at..at + end);
            }
        }
    }
    found
}

fn memchr_all<'t>(text: &'t [u8], part: &'t [u8]) -> impl Iterator<Item = usize> + 't {
    let last = text.len().saturating_sub(part.len());
    (0..=last).filter(move |&at| text[at..].starts_with(part))
}

/// The name in a value of a setting: people write `https://made-up.myshopify.com/` where `made-up.myshopify.com` is meant.
fn host_in(text: &[u8], value: Range<usize>) -> Option<Range<usize>> {
    let whole = text.get(value.clone())?;
    let lead = [&b"https://"[..], b"http://"]
        .into_iter()
        .find(|lead| whole.starts_with(lead))
        .map_or(0, <[u8]>::len);
    let rest = &whole[lead..];
    let len = rest.iter().position(|&byte| !is_host(byte)).unwrap_or(rest.len());
    let end = value.start + lead + len;
    (len > 0).then_some(value.start + lead..end)
}

/// Where an address is `https://{name}…`: the names of hosts in the text that fit.
fn hosts_like(address: &Template, name: &str, hosts: &[String], text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let Some(rest) = address.as_str().strip_prefix(&format!("https://{{{name}}}")) else { return found };
    let behind = rest.split('/').next().unwrap_or_default();
    // The whole host is the value where nothing stands behind it.
    let is_whole = behind.is_empty();
    let ends: Vec<&str> = match is_whole {
        true => hosts.iter().map(|host| host.strip_prefix('*').unwrap_or(host)).collect(),
        false => vec![behind],
    };
    for end in ends {
        for at in memchr_all(text, end.as_bytes()) {
            let after = at + end.len();
            if text.get(after).is_some_and(|&byte| is_host(byte) && byte != b'.') {
                continue;
            }
            let is_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let start = text[..at].iter().rposition(|&byte| !is_label(byte)).map_or(0, |before| before + 1);
            let is_name = match end.starts_with('.') {
                true => start < at,
                false => at == 0 || !is_host(text[at - 1]),
            };
            if is_name {
                found.push(start..if is_whole { after } else { at });
            }
        }
    }
    found
}

fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')
}

/// How far from a key its other half may stand: a hundred lines of settings.
const REACH: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::catalogue::Catalogue;

    proptest! {
        #[test]
        fn any_text_has_a_value_from_it_or_none(
            parts in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..9),
                    proptest::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
                ],
                0..40,
            ),
            start in 0..400_usize,
            len in 0..50_usize,
        ) {
            let text = parts.concat();
            for (provider, name) in [
                ("twilio", "account_sid"),
                ("paypal", "client_id"),
                ("shopify", "shop"),
                ("zendesk", "subdomain"),
                ("gitlab", "gitlab_host"),
            ] {
                let provider = Catalogue::builtin().provider(provider).unwrap();
                if let Some(near) = provider.near(name, &text, &(start..start + len)) {
                    let is_in = text.windows(near.value.len()).any(|part| part == near.value);
                    prop_assert!(!near.value.is_empty() && is_in);
                }
            }
        }
    }

    const PARTS: &[&str] = &[
        "AC0000a1b2c3d4e5f60718293a4b5c6d7e",
        "TWILIO_ACCOUNT_SID=",
        "clientId: \"",
        "MadeUp0000KeymoatTestClientIdMadeUp0000KeymoatTestClientId",
        "https://",
        "made-up",
        ".myshopify.com",
        ".zendesk.com",
        "gitlab.com",
        "SHOPIFY_SHOP = '",
        "\n",
    ];

    #[test]
    fn other_halves_and_settings_near_a_key() {
        let sid = "AC0000a1b2c3d4e5f60718293a4b5c6d7e";
        let id = "MadeUp0000KeymoatTestClientIdMadeUp0000KeymoatTestClientId";
        let check = |provider: &str, name: &str, text: &str, expected: Option<&str>| {
            let provider = Catalogue::builtin().provider(provider).unwrap();
            let at = text.find("KEY").unwrap();
            let found = provider.near(name, text.as_bytes(), &(at..at + 3));
            assert_eq!(found.map(|near| near.value), expected.map(str::as_bytes), "{name}: {text}");
            // Only one row has two.
            assert!(found.is_none_or(|near| near.is_only != text.contains("0000\n\n")), "{text}");
        };
        check("twilio", "account_sid", &format!("TWILIO_ACCOUNT_SID={sid}\nx=KEY\n"), Some(sid));
        check("twilio", "account_sid", &format!("Client('{sid}', 'KEY')"), Some(sid));
        check("twilio", "account_sid", &format!("X{sid}, KEY"), None);
        // The nearer one.
        let other = "AC0000a1b2c3d4e5f60718293a4b5c0000";
        check("twilio", "account_sid", &format!("{other}\n\n{sid}\nKEY\n\n\n{other}"), Some(sid));
        check("twilio", "account_sid", &format!("{sid}{}KEY", " ".repeat(5000)), None);
        for text in [
            format!("PAYPAL_CLIENT_ID={id}\nKEY"),
            format!("{{\"paypal\": {{\"clientId\": \"{id}\", \"secret\": \"KEY\"}}}}"),
            format!("paypal.client-id: {id}\nKEY"),
            format!("ACME_PAYPAL_CLIENT_ID => '{id}', KEY"),
        ] {
            check("paypal", "client_id", &text, Some(id));
        }
        check("paypal", "client_id", &format!("whatever={id} KEY"), None);
        for text in [
            "SHOPIFY_SHOP=made-up.myshopify.com\nKEY",
            "https://made-up.myshopify.com/admin KEY",
            "KEY shop: https://made-up.myshopify.com/",
        ] {
            check("shopify", "shop", text, Some("made-up.myshopify.com"));
        }
        check("shopify", "shop", "made-up.myshopify.com.evil.test KEY", Some("made-up.myshopify.com"));
        check("shopify", "shop", "myshopify.community KEY", None);
        check("zendesk", "subdomain", "https://made-up.zendesk.com/api KEY", Some("made-up"));
        check("gitlab", "gitlab_host", "CI_SERVER_HOST=git.acme.test KEY gitlab.com", Some("git.acme.test"));
        check("gitlab", "gitlab_host", "https://oauth2:KEY@gitlab.com/acme/shop.git", Some("gitlab.com"));
        check("woocommerce", "shop", "WC_URL=https://shop.madeup.test/wp\nKEY", Some("shop.madeup.test"));
        check("gitlab", "gitlab_host", "https://oauth2:KEY@my-gitlab.com/acme/shop.git", None);
    }
}
