//! What the name of a variable says: which key it stands for, which account and company, and whether
//! it names a secret at all.
//!
//! Looks at names only; what the value says is [`crate::classify`]'s business, and wins.

use crate::catalogue::{Catalogue, KeyIndex};
use crate::provider::{Key, Mode, Provider, TEST_PATH};

/// What a variable stands for, by its name alone.
#[derive(Debug, Clone)]
pub struct VariableMatch<'c> {
    /// Whose key it holds.
    pub provider: &'c Provider,
    /// Which key; where several share the name, the first of the file.
    pub key: &'c Key,
    /// One of several accounts, from the rest of the name: `eu` in `STRIPE_EU_SECRET_KEY`.
    pub account: Option<String>,
    /// The company after a double underscore: `acme` in `STRIPE_SECRET_KEY__ACME`.
    pub company: Option<String>,
    /// The mode that name and key say.
    pub mode: Mode,
}

impl VariableMatch<'_> {
    /// The path in the vault: provider, account if any, `test` in test mode.
    pub fn path(&self) -> String {
        path(self.provider, self.account.as_deref(), self.mode)
    }
}

impl Catalogue {
    /// Which key a variable stands for, without looking at a value.
    pub fn for_variable(&self, name: &str) -> Option<VariableMatch<'_>> {
        self.variable_matches(name).into_iter().next()
    }

    /// All keys that a variable may stand for, best first.
    pub(crate) fn variable_matches(&self, name: &str) -> Vec<VariableMatch<'_>> {
        let name = normalise(name);
        if let Some((base, company)) =
            name.rsplit_once("__").filter(|(base, company)| !base.is_empty() && !company.is_empty())
        {
            let matches = self.matches_of(base);
            if !matches.is_empty() {
                let company = Some(segment(&[company]));
                return matches
                    .into_iter()
                    .map(|found| VariableMatch { company: company.clone(), ..found })
                    .collect();
            }
        }
        self.matches_of(&name)
    }

    fn matches_of(&self, name: &str) -> Vec<VariableMatch<'_>> {
        let all = tokens(name);
        if all.is_empty() || all.len() > MAX_TOKENS {
            return vec![];
        }
        let own = without_framework(&all);
        for words in [all.as_slice(), own] {
            if let Some(indexes) = self.by_variable().get(&words.join("_")) {
                return indexes.iter().map(|&index| self.as_match(index, None, Mode::Any)).collect();
            }
        }
        self.matches_with_extra_words(own)
    }

    fn matches_with_extra_words(&self, name: &[&str]) -> Vec<VariableMatch<'_>> {
        let mut found: Vec<(Rank, KeyIndex, Option<String>, Mode)> = Vec::new();
        for extra in extra_words(name) {
            let Some(indexes) = self.by_variable().get(&extra.variable) else { continue };
            let Some((account, mode)) = read_extra(extra.words) else { continue };
            for &index in indexes {
                let key_mode = self.at(index).1.mode;
                if mode != Mode::Any && key_mode != Mode::Any && mode != key_mode {
                    continue;
                }
                found.push((
                    Rank { extra: extra.words.len(), place: extra.place },
                    index,
                    account.clone(),
                    mode,
                ));
            }
        }
        found.sort_by_key(|found| (found.0, found.1));
        found.dedup_by_key(|found| (found.0, found.1));
        let Some(best) = found.first().map(|best| best.0) else { return vec![] };
        found
            .into_iter()
            .take_while(|(rank, ..)| *rank == best)
            .map(|(_, index, account, mode)| self.as_match(index, account, mode))
            .collect()
    }

    fn as_match(&self, index: KeyIndex, account: Option<String>, named: Mode) -> VariableMatch<'_> {
        let (provider, key) = self.at(index);
        let mode = if key.mode == Mode::Any { named } else { key.mode };
        VariableMatch { provider, key, account, company: None, mode }
    }
}

/// The path of a key in the vault.
pub(crate) fn path(provider: &Provider, account: Option<&str>, mode: Mode) -> String {
    let test = (mode == Mode::Test).then_some(TEST_PATH);
    [Some(provider.id.as_str()), account, test].into_iter().flatten().collect::<Vec<_>>().join("/")
}

/// A name that says "secret", and where it suggests to keep the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretName {
    pub(crate) path: String,
    pub(crate) field: String,
    pub(crate) strength: Strength,
}

/// How much a name says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Whatever stands there is the secret, `123456` too.
    Password,
    /// A secret, unless the value is a number or a file name.
    Secret,
    /// `…_KEY` without more: only if the value looks random.
    Key,
}

/// Whether the name of a variable says that its value is secret.
pub(crate) fn secret_name(name: &str) -> Option<SecretName> {
    let name = normalise(name);
    let all = tokens(&name);
    let at = all
        .iter()
        .rposition(|word| PASSWORDS.contains(word) || SECRETS.contains(word) || KEYS.contains(word))?;
    let (before, after) = (&all[..at], &all[at + 1..]);
    if after.iter().any(|word| DESCRIBES.contains(word)) || before.iter().any(|word| PUBLIC.contains(word)) {
        return None;
    }
    let qualified = before.iter().rev().take_while(|word| QUALIFIERS.contains(word)).count();
    let strength = match all[at] {
        word if PASSWORDS.contains(&word) => Strength::Password,
        word if SECRETS.contains(&word) => Strength::Secret,
        _ if qualified > 0 => Strength::Secret,
        _ => Strength::Key,
    };
    let start = at - qualified;
    let owner = if start == 0 { DEFAULT_PATH.to_owned() } else { segment(&all[..start]) };
    let path = if after.is_empty() { owner } else { format!("{owner}/{}", segment(after)) };
    Some(SecretName { path, field: all[start..=at].join("_").to_ascii_lowercase(), strength })
}

/// What the words of a name in any text say: `None` where none is about secrets, `Some(None)` where they speak of a
/// property of a secret or of a key that is none.
pub(crate) fn secret_words(words: &[&str]) -> Option<Option<Strength>> {
    let strength = |word: &str| {
        let ends = |list: &[&str]| {
            list.contains(&word) || list.iter().any(|end| end.len() >= GLUED_MIN && word.ends_with(end))
        };
        if ends(PASSWORDS) || word.ends_with("PWD") {
            Some(Strength::Password)
        } else if ends(SECRETS) || GLUED_KEYS.iter().any(|end| word.ends_with(end)) {
            Some(Strength::Secret)
        } else if KEYS.contains(&word) {
            Some(Strength::Key)
        } else {
            None
        }
    };
    let (at, found) = words.iter().enumerate().rev().find_map(|(at, word)| Some((at, strength(word)?)))?;
    let (before, after) = (&words[..at], &words[at + 1..]);
    if after
        .iter()
        .any(|word| DESCRIBES.contains(word) || (found != Strength::Password && EVENTS.contains(word)))
        || before.iter().any(|word| PUBLIC.contains(word) || OTHER_KEYS.contains(word))
        || ["CSRF", "XSRF"].iter().any(|glued| words[at].starts_with(glued))
    {
        return Some(None);
    }
    let is_qualified = before.last().is_some_and(|word| QUALIFIERS.contains(word));
    Some(Some(if found == Strength::Key && is_qualified { Strength::Secret } else { found }))
}

/// A path for a secret that its value gave away, from a name that says nothing.
pub(crate) fn path_of_name(name: &str) -> String {
    let name = normalise(name);
    let all = tokens(&name);
    let own: Vec<&str> =
        all.into_iter().filter(|word| !["URL", "URI", "DSN", "KEY", "PEM"].contains(word)).collect();
    if own.is_empty() { DEFAULT_PATH.to_owned() } else { segment(&own) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    extra: usize,
    place: ExtraPlace,
}

/// Where the extra words stand, the likeliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ExtraPlace {
    Behind,
    Inside,
    Before,
}

/// A name as a variable and a run of extra words.
struct Extra<'n> {
    variable: String,
    words: &'n [&'n str],
    place: ExtraPlace,
}

/// All ways to read a name as a variable and one run of extra words.
fn extra_words<'n>(name: &'n [&'n str]) -> impl Iterator<Item = Extra<'n>> {
    let runs = 1..=MAX_EXTRA_WORDS.min(name.len().saturating_sub(1));
    runs.flat_map(move |run| {
        (0..=name.len() - run).map(move |at| {
            let (before, after) = (&name[..at], &name[at + run..]);
            let place = match (before.is_empty(), after.is_empty()) {
                (_, true) => ExtraPlace::Behind,
                (true, false) => ExtraPlace::Before,
                (false, false) => ExtraPlace::Inside,
            };
            Extra { variable: [before, after].concat().join("_"), words: &name[at..at + run], place }
        })
    })
}

/// Reads extra words as account and mode; `None` when they make it another variable altogether.
fn read_extra(words: &[&str]) -> Option<(Option<String>, Mode)> {
    let mut account = Vec::new();
    let mut mode = Mode::Any;
    for word in words {
        if TEST_WORDS.contains(word) {
            mode = Mode::Test;
        } else if LIVE_WORDS.contains(word) {
            mode = Mode::Live;
        } else if is_reserved(word) {
            return None;
        } else {
            account.push(*word);
        }
    }
    Some(((!account.is_empty()).then(|| segment(&account)), mode))
}

fn is_reserved(word: &str) -> bool {
    [DESCRIBES, PUBLIC, PASSWORDS, SECRETS, KEYS, KEY_WORDS].iter().any(|list| list.contains(&word))
}

fn normalise(name: &str) -> String {
    name.trim()
        .chars()
        .map(|c| if matches!(c, '-' | '.' | ' ' | '/') { '_' } else { c.to_ascii_uppercase() })
        .collect()
}

fn tokens(name: &str) -> Vec<&str> {
    name.split('_').filter(|word| !word.is_empty()).collect()
}

/// One path segment from words: lower case, `-` between them, nothing but letters, digits and `-`.
fn segment(words: &[&str]) -> String {
    let text = words.join("-").to_ascii_lowercase();
    let kept: String =
        text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(MAX_SEGMENT).collect();
    let kept = kept.trim_matches('-');
    if kept.is_empty() { DEFAULT_PATH.to_owned() } else { kept.to_owned() }
}

fn without_framework<'n>(name: &'n [&'n str]) -> &'n [&'n str] {
    FRAMEWORKS
        .iter()
        .filter(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
        .map(|prefix| &name[prefix.len()..])
        .min_by_key(|rest| rest.len())
        .unwrap_or(name)
}

/// Path of a secret whose variable names no owner (`SECRET_KEY`).
const DEFAULT_PATH: &str = "app";

/// `STRIPE_SHOP_EUROPE_NORTH_SECRET_KEY` is still an account; longer rests are other things.
const MAX_EXTRA_WORDS: usize = 3;

/// No variable has more words; more is not a name, and would cost time.
const MAX_TOKENS: usize = 24;

/// Segments stay readable and far below any store's limit.
const MAX_SEGMENT: usize = 64;

/// What frameworks put before every name, or before those that they hand to the browser.
const FRAMEWORKS: &[&[&str]] = &[
    &["NEXT", "PUBLIC"],
    &["NUXT", "PUBLIC"],
    &["NUXT"],
    &["EXPO", "PUBLIC"],
    &["PUBLIC"],
    &["VITE"],
    &["REACT", "APP"],
    &["VUE", "APP"],
    &["GATSBY"],
    &["MIX"],
    &["DJANGO"],
    &["ODOO"],
    &["APP"],
];

const TEST_WORDS: &[&str] = &["TEST", "TESTING", "SANDBOX"];
const LIVE_WORDS: &[&str] = &["LIVE", "PROD", "PRODUCTION"];

/// Whatever value stands there is the secret.
const PASSWORDS: &[&str] = &["PASSWORD", "PASSWD", "PASSPHRASE", "PASS", "PWD", "PASSWORT", "PASSCODE"];

const SECRETS: &[&str] =
    &["SECRET", "SECRETS", "TOKEN", "APIKEY", "CREDENTIAL", "CREDENTIALS", "SALT", "BEARER"];

const KEYS: &[&str] = &["KEY", "KEYS"];

/// Ends of words that are several words without a joint.
const GLUED_KEYS: &[&str] = &["APIKEY", "AUTHKEY", "ACCESSKEY", "SECRETKEY", "PRIVATEKEY", "LICENSEKEY"];

/// `PASS` ends `COMPASS`.
const GLUED_MIN: usize = 5;

/// After a `KEY`, in programs: a key of the keyboard, or a digest.
const EVENTS: &[&str] = &["DOWN", "UP", "PRESS", "EVENT", "HASH", "DIGEST", "CODE"];

/// Before a `KEY` or `TOKEN`: one of a table or an index, or one that every visitor of a page gets.
const OTHER_KEYS: &[&str] = &[
    "CSRF",
    "XSRF",
    "AUTHENTICITY",
    "NONCE",
    "PRIMARY",
    "FOREIGN",
    "SORT",
    "PARTITION",
    "INDEX",
    "ROW",
    "GROUP",
    "ORDER",
    "CACHE",
    "IDEMPOTENCY",
    "UNIQUE",
];

/// Words that make a `KEY` a secret one, and belong to the field rather than the owner.
const QUALIFIERS: &[&str] = &[
    "ACCESS",
    "ADMIN",
    "API",
    "APP",
    "AUTH",
    "BOT",
    "CIPHER",
    "CLIENT",
    "CRYPT",
    "CRYPTO",
    "DEPLOY",
    "ENCRYPT",
    "ENCRYPTION",
    "FERNET",
    "HASH",
    "HMAC",
    "ID",
    "JWT",
    "LICENCE",
    "LICENSE",
    "MASTER",
    "MERCHANT",
    "OAUTH",
    "PRIVATE",
    "REFRESH",
    "SECRET",
    "SERVICE",
    "SESSION",
    "SHARED",
    "SIGNATURE",
    "SIGNING",
    "TRANSACTION",
    "USER",
    "WEBHOOK",
];

/// Words that name another sort of key, so never an account.
const KEY_WORDS: &[&str] = &[
    "ACCESS",
    "ADMIN",
    "API",
    "APP",
    "APPLICATION",
    "AUTH",
    "CLIENT",
    "ENCRYPTION",
    "HMAC",
    "LICENSE",
    "MASTER",
    "OAUTH",
    "PRIVATE",
    "REFRESH",
    "RESTRICTED",
    "SESSION",
    "SIGNATURE",
    "SIGNING",
    "USER",
    "USERNAME",
    "WEBHOOK",
];

/// Before a `KEY`: meant to be seen.
const PUBLIC: &[&str] = &["PUBLIC", "PUBLISHABLE", "SITE", "SITEKEY"];

/// After a secret word: a property of the secret, not the secret.
const DESCRIBES: &[&str] = &[
    "AGE",
    "ALGO",
    "ALGORITHM",
    "ATTEMPTS",
    "BACKEND",
    "CLASS",
    "COUNT",
    "DAYS",
    "DOMAIN",
    "ENABLED",
    "ENDPOINT",
    "EXPIRATION",
    "EXPIRE",
    "EXPIRES",
    "EXPIRY",
    "FIELD",
    "FILE",
    "FILENAME",
    "FORMAT",
    "HASHER",
    "HASHERS",
    "HEADER",
    "HOST",
    "HOURS",
    "ID",
    "IDS",
    "INTERVAL",
    "ISSUER",
    "LEN",
    "LENGTH",
    "LIFETIME",
    "LIMIT",
    "LOCATION",
    "MAX",
    "MIN",
    "MINUTES",
    "MODE",
    "NAME",
    "PATH",
    "POLICY",
    "PORT",
    "PREFIX",
    "REGION",
    "REQUIRED",
    "RESET",
    "ROTATION",
    "SCOPE",
    "SECONDS",
    "SIZE",
    "SUFFIX",
    "TIMEOUT",
    "TTL",
    "TYPE",
    "URI",
    "URL",
    "USER",
    "VALIDATORS",
    "VERSION",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_what_they_stand_for() {
        let check = |name: &str, expected: &str| {
            let found = Catalogue::builtin().for_variable(name).map_or("-".to_owned(), |found| {
                let company =
                    found.company.as_deref().map(|company| format!(" @{company}")).unwrap_or_default();
                format!("{}#{}{company}", found.path(), found.key.field)
            });
            assert_eq!(found, expected, "{name}");
        };
        check("STRIPE_SECRET_KEY", "stripe#secret_key");
        check("STRIPE_API_KEY", "stripe#secret_key");
        check("stripe.secret-key", "stripe#secret_key");
        check("STRIPE_LIVE_SECRET_KEY", "stripe#secret_key");
        check("STRIPE_TEST_SECRET_KEY", "stripe/test#secret_key");
        check("STRIPE_SECRET_KEY_TEST", "stripe/test#secret_key");
        check("STRIPE_SECRET_KEY_EU", "stripe/eu#secret_key");
        check("STRIPE_EU_SECRET_KEY", "stripe/eu#secret_key");
        check("STRIPE_EU_TEST_SECRET_KEY", "stripe/eu/test#secret_key");
        check("ACME_STRIPE_SECRET_KEY", "stripe/acme#secret_key");
        check("STRIPE_SECRET_KEY_2", "stripe/2#secret_key");
        check("STRIPE_API_KEY__ACME", "stripe#secret_key @acme");
        check("STRIPE_API_KEY_EU__ACME", "stripe/eu#secret_key @acme");
        check("NEXT_PUBLIC_STRIPE_PUBLISHABLE_KEY", "stripe#publishable_key");
        check("STRIPE_EU_PUBLISHABLE_KEY", "stripe/eu#publishable_key");
        check("PAYPAL_CLIENT_SECRET", "paypal#client_secret");
        check("PAYPAL_SANDBOX_CLIENT_SECRET", "paypal/test#client_secret");
        check("PAYPAL_CLIENT_ID", "paypal#client_id");
        check("TWILIO_AUTH_TOKEN", "twilio#auth_token");
        check("FEDEX_SECRET_KEY", "fedex#secret_key");
        check("AWS_SECRET_ACCESS_KEY", "aws#secret_access_key");
        check("DB_PASSWORD", "database#password");
        check("SHOP_DB_PASSWORD", "database/shop#password");
        check("DATABASE_URL", "database#url");
        check("STRIPE_SECRET_KEY_FILE", "-");
        check("STRIPE_API_VERSION", "-");
        check("STRIPE_SIGNING_KEY", "-");
        check("DB_PASSWORD_RESET_URL", "-");
        check("DEBUG", "-");
        check("__", "-");
        check("", "-");
    }

    #[test]
    fn names_that_say_secret() {
        let check = |name: &str, expected: Option<(&str, &str, Strength)>| {
            let found = secret_name(name);
            let found =
                found.as_ref().map(|found| (found.path.as_str(), found.field.as_str(), found.strength));
            assert_eq!(found, expected, "{name}");
        };
        check("SMTP_PASSWORD", Some(("smtp", "password", Strength::Password)));
        check("SECRET_KEY", Some(("app", "secret_key", Strength::Secret)));
        check("DJANGO_SECRET_KEY", Some(("django", "secret_key", Strength::Secret)));
        check("GITHUB_TOKEN", Some(("github", "token", Strength::Secret)));
        check("KLAVIYO_PRIVATE_API_KEY", Some(("klaviyo", "private_api_key", Strength::Secret)));
        check("UPS_CLIENT_SECRET_EU", Some(("ups/eu", "client_secret", Strength::Secret)));
        check("JWT_SECRET_2", Some(("app/2", "jwt_secret", Strength::Secret)));
        check("CACHE_KEY", Some(("cache", "key", Strength::Key)));
        check("RECAPTCHA_PUBLIC_KEY", None);
        check("TURNSTILE_SITE_KEY", None);
        check("TOKEN_TTL", None);
        check("PASSWORD_RESET_TIMEOUT", None);
        check("SMTP_PASSWORD_FILE", None);
        check("OAUTH_TOKEN_URL", None);
        check("MAX_TOKENS", None);
        check("KEYCLOAK_REALM", None);
        check("DEBUG", None);
    }

    proptest! {
        #[test]
        fn lookups_are_total_and_paths_are_clean(name in "\\PC{0,60}") {
            let names = [Catalogue::builtin().for_variable(&name).map(|found| found.path()), secret_name(&name).map(|found| found.path)];
            for path in names.into_iter().flatten().chain([path_of_name(&name)]) {
                prop_assert!(!path.is_empty());
                prop_assert!(path.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '/')), "{path}");
            }
        }

        #[test]
        fn an_account_never_changes_provider_or_field(account in "[B-Z][0-9]{2}[A-Z]{0,5}") {
            for variable in ["STRIPE_SECRET_KEY", "PAYPAL_CLIENT_SECRET", "TWILIO_AUTH_TOKEN"] {
                let plain = Catalogue::builtin().for_variable(variable).unwrap();
                let (head, tail) = variable.split_once('_').unwrap();
                for name in [format!("{variable}_{account}"), format!("{head}_{account}_{tail}"), format!("{account}_{variable}")] {
                    let found = Catalogue::builtin().for_variable(&name).unwrap();
                    prop_assert_eq!(&found.key.field, &plain.key.field);
                    prop_assert_eq!(found.path(), format!("{}/{}", plain.path(), account.to_ascii_lowercase()));
                }
            }
        }
    }
}
