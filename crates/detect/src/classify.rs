//! What a variable of a `.env` file holds, name and value together: the decision behind `import`.
//!
//! Total: every pair gets an answer and a reason. When name and value disagree the value wins, and
//! what might be a secret is called one. Reading the file is the caller's business.

use crate::catalogue::Catalogue;
use crate::entropy;
use crate::identify::{Certainty, Identification, Known, MAX_VALUE_BYTES};
use crate::provider::{Key, Kind, Mode, Provider};
use crate::shape;
use crate::variable::{self, Strength, VariableMatch};

/// What a variable holds.
#[derive(Debug, Clone)]
pub enum Classification<'c> {
    /// A secret key of the catalogue.
    Key(KeyMatch<'c>),
    /// A secret that the catalogue does not know.
    Secret(SecretGuess<'c>),
    /// A publishable key or an identifier: no secret, though it may belong to a pair.
    NotSensitive(KeyMatch<'c>),
    /// An ordinary setting.
    Plain {
        /// Why, in a few words.
        why: &'static str,
    },
    /// Stands for a value that is not there.
    Placeholder {
        /// Why, in a few words.
        why: &'static str,
    },
    /// Already a reference into Keymoat.
    Reference,
}

/// A key of the catalogue and where to keep it.
#[derive(Debug, Clone)]
pub struct KeyMatch<'c> {
    /// Who issued it.
    pub provider: &'c Provider,
    /// Which of the provider's keys it is.
    pub key: &'c Key,
    /// How sure that is.
    pub certainty: Certainty,
    /// The mode of the value or, when it has none, of the name.
    pub mode: Mode,
    /// Suggested path: provider, account if any, `test` in test mode.
    pub path: String,
    /// Suggested field: the variable's, so that the variable finds it again, else the key's.
    pub field: String,
    /// One of several accounts, from the name.
    pub account: Option<String>,
    /// The company, from the name.
    pub company: Option<String>,
}

impl<'c> KeyMatch<'c> {
    /// The fields that are used together with this one and belong on the same path.
    pub fn partners(&self) -> Vec<&'c str> {
        let Some(pair) = &self.key.pair else { return vec![] };
        let mut fields: Vec<&str> = Vec::new();
        for key in self.provider.keys.iter().filter(|key| key.pair.as_ref() == Some(pair)) {
            if key.field != self.field && !fields.contains(&key.field.as_str()) {
                fields.push(&key.field);
            }
        }
        fields
    }
}

/// An unrecognised secret and where to keep it.
#[derive(Debug, Clone)]
pub struct SecretGuess<'c> {
    /// What gave it away.
    pub why: SecretReason,
    /// The provider that the name speaks of, when the value is not of its shape.
    pub provider: Option<&'c Provider>,
    /// Suggested path.
    pub path: String,
    /// Suggested field.
    pub field: String,
    /// The company, from the name.
    pub company: Option<String>,
}

/// What gave a secret away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretReason {
    /// The name belongs to a provider, the value is not of the shape known.
    NotOfItsShape,
    /// The name says so.
    Name,
    /// A private key in PEM form.
    PrivateKey,
    /// An address with a password in it.
    AddressWithPassword,
    /// A JSON Web Token.
    JsonWebToken,
    /// Long and random.
    Random,
}

impl SecretReason {
    /// The reason in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotOfItsShape => "named as a provider's key, but not of its shape",
            Self::Name => "named as a secret",
            Self::PrivateKey => "a private key",
            Self::AddressWithPassword => "an address with a password",
            Self::JsonWebToken => "a JSON Web Token",
            Self::Random => "long and random",
        }
    }
}

impl Catalogue {
    /// Classifies the value of a variable.
    pub fn identify_named(&self, variable: &str, value: &[u8]) -> Classification<'_> {
        if value.starts_with(REFERENCE) && is_reference(value) {
            return Classification::Reference;
        }
        let matches = self.variable_matches(variable);
        if let Identification::Known(known) = self.identify(value)
            && !known.provider.form
        {
            return sorted(as_key(known, &matches));
        }
        let Ok(text) = std::str::from_utf8(value) else {
            return by_name(variable, None, &matches).unwrap_or(Classification::Plain { why: "not text" });
        };
        by_obvious_shape(variable, text)
            .or_else(|| by_context(text, &matches))
            .or_else(|| by_name(variable, Some(text), &matches))
            .or_else(|| by_random_shape(variable, text))
            .unwrap_or_else(|| Classification::Plain { why: shape::plain(text).unwrap_or("a setting") })
    }
}

/// Shapes that say the same under any name.
fn by_obvious_shape<'c>(name: &str, text: &str) -> Option<Classification<'c>> {
    if let Some(why) = shape::placeholder(text) {
        return Some(Classification::Placeholder { why });
    }
    if shape::is_private_pem(text) {
        return Some(guess(SecretReason::PrivateKey, variable::path_of_name(name), "private_key"));
    }
    let url = shape::url_with_user(text)?;
    let password = url.password?;
    if shape::is_stock_secret(password.as_bytes()) {
        return Some(Classification::Placeholder { why: "an address with a placeholder for the password" });
    }
    Some(guess(SecretReason::AddressWithPassword, variable::path_of_name(name), "url"))
}

/// Keys whose shape needs the name beside it.
fn by_context<'c>(text: &str, matches: &[VariableMatch<'c>]) -> Option<Classification<'c>> {
    let first = matches.first()?;
    if first.key.kind == Kind::Url && shape::is_address_without_password(text) {
        return Some(Classification::Plain { why: "an address without a password" });
    }
    if let Some(why) = shape::placeholder_for_secret(text).filter(|_| first.key.sensitive || text.len() > 3) {
        return Some(Classification::Placeholder { why });
    }
    if text.len() > MAX_VALUE_BYTES {
        return None;
    }
    let found = matches.iter().find(|found| found.key.needs_context && found.key.matches(text.as_bytes()))?;
    if found.key.published.iter().any(|published| published == text) {
        return Some(Classification::Placeholder { why: "an example" });
    }
    let known = Known { provider: found.provider, key: found.key, certainty: Certainty::Context };
    Some(sorted(as_key(known, std::slice::from_ref(found))))
}

/// Names that say "secret", a provider's or anybody's. `text` is `None` for bytes that are no text.
fn by_name<'c>(name: &str, text: Option<&str>, matches: &[VariableMatch<'c>]) -> Option<Classification<'c>> {
    if let Some(found) = matches.first() {
        let plain = text.and_then(|text| weak_as_secret(text, Strength::Secret));
        if let Some(why) = plain {
            return Some(Classification::Plain { why });
        }
        return Some(if found.key.sensitive {
            not_of_its_shape(found)
        } else {
            Classification::Plain { why: "an identifier" }
        });
    }
    let named = variable::secret_name(name)?;
    if let Some(text) = text {
        if let Some(why) = weak_as_secret(text, named.strength) {
            return Some(Classification::Plain { why });
        }
        if let Some(why) = shape::placeholder_for_secret(text) {
            return Some(Classification::Placeholder { why });
        }
    }
    Some(guess(SecretReason::Name, named.path, &named.field))
}

/// Random values under names that say nothing.
fn by_random_shape<'c>(name: &str, text: &str) -> Option<Classification<'c>> {
    let why = if shape::is_jwt(text) {
        SecretReason::JsonWebToken
    } else if shape::is_random_token(text) && !shape::is_plain(text) {
        SecretReason::Random
    } else {
        return None;
    };
    Some(guess(why, variable::path_of_name(name), "value"))
}

/// Why `text` is no secret although the name says so, if it is none.
fn weak_as_secret(text: &str, strength: Strength) -> Option<&'static str> {
    if shape::is_switch(text) && !(strength == Strength::Password && matches!(text, "0" | "1")) {
        return Some("a switch");
    }
    match strength {
        Strength::Password => None,
        Strength::Secret if shape::is_number(text) && text.len() <= MAX_PLAIN_NUMBER => Some("a number"),
        Strength::Secret if is_key_file(text) => Some("a path"),
        Strength::Secret => None,
        Strength::Key if entropy::looks_random(text.as_bytes()) && !shape::is_plain(text) => None,
        Strength::Key => Some(shape::plain(text).unwrap_or("a setting")),
    }
}

fn is_key_file(text: &str) -> bool {
    shape::is_path(text) && KEY_FILES.iter().any(|end| text.ends_with(end))
}

fn as_key<'c>(known: Known<'c>, matches: &[VariableMatch<'c>]) -> KeyMatch<'c> {
    let Known { provider, key, certainty } = known;
    let own: Vec<&VariableMatch<'c>> =
        matches.iter().filter(|found| found.provider.id == provider.id).collect();
    let same = own.iter().find(|found| found.key.id == key.id).or(own.first());
    let account = same.and_then(|found| found.account.clone());
    let mode = if key.mode == Mode::Any { same.map_or(Mode::Any, |found| found.mode) } else { key.mode };
    let field = same
        .filter(|found| found.key.sensitive == key.sensitive)
        .map_or(&key.field, |found| &found.key.field);
    KeyMatch {
        provider,
        key,
        certainty,
        mode,
        path: variable::path(provider, account.as_deref(), mode),
        field: field.clone(),
        account,
        company: same.and_then(|found| found.company.clone()),
    }
}

fn sorted(found: KeyMatch<'_>) -> Classification<'_> {
    if found.key.sensitive { Classification::Key(found) } else { Classification::NotSensitive(found) }
}

fn not_of_its_shape<'c>(found: &VariableMatch<'c>) -> Classification<'c> {
    Classification::Secret(SecretGuess {
        why: SecretReason::NotOfItsShape,
        provider: Some(found.provider),
        path: found.path(),
        field: found.key.field.clone(),
        company: found.company.clone(),
    })
}

fn guess<'c>(why: SecretReason, path: String, field: &str) -> Classification<'c> {
    Classification::Secret(SecretGuess { why, provider: None, path, field: field.to_owned(), company: None })
}

/// `keymoat:path#field` or `keymoat://env/path…`, and no other text that begins like one.
fn is_reference(value: &[u8]) -> bool {
    let rest = &value[REFERENCE.len()..];
    !rest.is_empty() && rest.iter().all(|byte| byte.is_ascii_graphic())
}

const REFERENCE: &[u8] = b"keymoat:";

/// `TOKEN_LIMIT=100000` is a number; ten digits and more may be a code.
const MAX_PLAIN_NUMBER: usize = 9;

/// A variable named as a key may hold the name of the file that the key is in.
const KEY_FILES: &[&str] = &[".pem", ".key", ".json", ".crt", ".cert", ".p12", ".pfx", ".txt", ".asc"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn describe(name: &str, value: &[u8]) -> String {
        match Catalogue::builtin().identify_named(name, value) {
            Classification::Key(found) => format!("key {}#{} {}", found.path, found.field, found.key.kind),
            Classification::NotSensitive(found) => {
                format!("public {}#{} +{}", found.path, found.field, found.partners().join("+"))
            }
            Classification::Secret(found) => format!("secret {}#{} {:?}", found.path, found.field, found.why),
            Classification::Plain { .. } => "plain".into(),
            Classification::Placeholder { .. } => "placeholder".into(),
            Classification::Reference => "reference".into(),
        }
    }

    #[test]
    fn the_shop() {
        // One line per variable of testkit/shop.env, in its order.
        let expected = [
            ("APP_ENV", "plain"),
            ("DEBUG", "plain"),
            ("PORT", "plain"),
            ("APP_URL", "plain"),
            ("LOG_DIR", "plain"),
            ("MAIL_FROM", "plain"),
            ("ALLOWED_HOSTS", "plain"),
            ("SESSION_COOKIE_AGE", "plain"),
            ("DJANGO_SECRET_KEY", "key django#secret_key secret"),
            ("DATABASE_URL", "key database#url url"),
            ("DB_PASSWORD", "key database#password password"),
            ("REDIS_URL", "plain"),
            ("STRIPE_PUBLISHABLE_KEY", "public stripe#publishable_key +"),
            ("STRIPE_SECRET_KEY", "key stripe#secret_key secret"),
            ("STRIPE_TEST_SECRET_KEY", "key stripe/test#secret_key secret"),
            ("STRIPE_SECRET_KEY_EU", "key stripe/eu#secret_key secret"),
            ("STRIPE_WEBHOOK_SECRET", "key stripe#webhook_secret webhook"),
            ("STRIPE_API_VERSION", "plain"),
            ("TWILIO_ACCOUNT_SID", "public twilio#account_sid +auth_token"),
            ("TWILIO_AUTH_TOKEN", "key twilio#auth_token secret"),
            ("TWILIO_FROM", "plain"),
            ("MAILCHIMP_API_KEY", "key mailchimp#api_key secret"),
            ("SHOPIFY_SHOP", "plain"),
            ("SHOPIFY_API_KEY", "public shopify#client_id +client_secret"),
            ("SHOPIFY_API_SECRET", "key shopify#client_secret client_secret"),
            ("SHOPIFY_ACCESS_TOKEN", "key shopify#access_token token"),
            ("FEDEX_API_KEY", "public fedex#api_key +secret_key"),
            ("FEDEX_SECRET_KEY", "key fedex#secret_key client_secret"),
            ("FEDEX_ACCOUNT_NUMBER", "plain"),
            ("PAYPAL_MODE", "plain"),
            ("PAYPAL_CLIENT_ID", "public paypal#client_id +client_secret"),
            ("PAYPAL_CLIENT_SECRET", "key paypal#client_secret client_secret"),
            ("SQUARE_APPLICATION_ID", "public square#application_id +application_secret"),
            ("SQUARE_ACCESS_TOKEN", "key square#access_token token"),
            ("OPENAI_API_KEY", "key openai#api_key secret"),
            ("AWS_ACCESS_KEY_ID", "public aws#access_key_id +secret_access_key+session_token"),
            ("AWS_SECRET_ACCESS_KEY", "key aws#secret_access_key secret"),
            ("AWS_DEFAULT_REGION", "plain"),
            ("MOLLIE_API_KEY", "key mollie/test#api_key secret"),
            ("ADYEN_API_KEY", "placeholder"),
            ("SMTP_PASSWORD", "secret smtp#password Name"),
            ("WAREHOUSE_API_KEY", "reference"),
        ];
        let text = include_str!("../../../testkit/shop.env");
        let found: Vec<(String, String)> = text
            .lines()
            .filter_map(assignment)
            .map(|(name, value)| (name.to_owned(), describe(name, value.as_bytes())))
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect();
        assert_eq!(found, expected);
    }

    /// Enough of dotenv for the file above; the real parser is not in this crate.
    fn assignment(line: &str) -> Option<(&str, &str)> {
        let line = line.trim().strip_prefix("export ").unwrap_or(line.trim());
        let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        Some((name, value.trim_matches(['"', '\''])))
    }

    #[test]
    fn names_and_values_together() {
        let check = |name: &str, value: &str, expected: &str| {
            assert_eq!(describe(name, value.as_bytes()), expected, "{name}={value}")
        };
        // The value wins.
        check("PAYMENT_KEY", "sk_live_51MadeUpExample0000KeymoatTest", "key stripe#secret_key secret");
        check(
            "STRIPE_SECRET_KEY",
            "sk_test_51MadeUpExample0000KeymoatTest",
            "key stripe/test#secret_key secret",
        );
        check(
            "STRIPE_SECRET_KEY",
            "rk_live_51MadeUpExample0000KeymoatTest",
            "key stripe#secret_key restricted",
        );
        check(
            "STRIPE_SECRET_KEY",
            "pk_live_51MadeUpExample0000KeymoatTest",
            "public stripe#publishable_key +",
        );
        check(
            "STRIPE_EU_SECRET_KEY",
            "sk_test_51MadeUpExample0000KeymoatTest",
            "key stripe/eu/test#secret_key secret",
        );
        check("OPENAI_API_KEY", "sk_live_51MadeUpExample0000KeymoatTest", "key stripe#secret_key secret");
        check(
            "PAYPAL_SANDBOX_CLIENT_SECRET",
            "EMadeUp0000Sandbox_KeymoatTest-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN",
            "key paypal/test#client_secret client_secret",
        );
        // The name is a provider's, the value is not.
        check("STRIPE_SECRET_KEY", "not-a-stripe-key-at-all", "secret stripe#secret_key NotOfItsShape");
        check("STRIPE_SECRET_KEY", "sk_live_xxxxxxxxxxxxxxxxxxxx", "placeholder");
        check("STRIPE_SECRET_KEY", "your_stripe_key_here", "placeholder");
        check("STRIPE_API_KEY", "true", "plain");
        check("STRIPE_SECRET_KEY_FILE", "/run/secrets/stripe", "plain");
        check("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "placeholder");
        check("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE", "placeholder");
        check("TWILIO_AUTH_TOKEN", "00000000000000000000000000000000", "placeholder");
        check("SHOP_DB_PASSWORD", "hunter2", "key database/shop#password password");
        // Anybody's secrets.
        check("SMTP_PASSWORD", "123456", "secret smtp#password Name");
        check(
            "JWT_PRIVATE_KEY",
            "-----BEGIN PRIVATE KEY-----\\nMadeUp\\n-----END PRIVATE KEY-----",
            "secret jwt-private#private_key PrivateKey",
        );
        check("JWT_PRIVATE_KEY", "/etc/keys/jwt.pem", "plain");
        check(
            "SENTRY_DSN",
            "https://0000a1b2c3d4e5f6:0718293a4b5c6d7e@sentry.madeup.test/1",
            "secret sentry#url AddressWithPassword",
        );
        check("DATABASE_URL", "postgres://user:password@localhost/shop", "placeholder");
        check(
            "SESSION",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJNYWRlVXAifQ.MadeUpSignature0000",
            "secret session#value JsonWebToken",
        );
        check("WAREHOUSE", "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU", "secret warehouse#value Random");
        check("CACHE_KEY", "products", "plain");
        check("CACHE_KEY", "9f2c4b7a1e8d3056c1a9e4f7b2d80635", "secret cache#key Name");
        // Settings.
        check("PASSWORD_RESET_TIMEOUT", "3600", "plain");
        check("REQUIRE_PASSWORD", "true", "plain");
        check("MAX_TOKENS", "4096", "plain");
        check("RELEASE", "9f2c4b7a1e8d3056c1a9e4f7b2d80635", "plain");
        check("DATABASE_URL", "sqlite:///var/lib/shop.db", "plain");
        check("DATABASE_URL", "postgres://shop@db.example.com/shop", "plain");
        check("MAIL_FROM", "shop@example.com", "plain");
        check("RECAPTCHA_PUBLIC_KEY", "6LMadeUp0000", "plain");
        check("ANYTHING", "", "placeholder");
        check("ANYTHING", "changeme", "placeholder");
        check("ANYTHING", "keymoat:stripe#secret_key", "reference");
        check("ANYTHING", "keymoat://prod/stripe?company=acme#secret_key", "reference");
        check("ANYTHING", "keymoat:", "plain");
        assert_eq!(describe("API_SECRET", &[0xff, 0xfe]), "secret app#api_secret Name");
        assert_eq!(describe("BLOB", &[0xff, 0xfe]), "plain");
    }

    #[test]
    fn companies_travel_along() {
        let value = b"sk_live_51MadeUpExample0000KeymoatTest";
        let Classification::Key(found) =
            Catalogue::builtin().identify_named("STRIPE_API_KEY_EU__ACME", value)
        else {
            panic!("a key");
        };
        assert_eq!((found.account.as_deref(), found.company.as_deref()), (Some("eu"), Some("acme")));
        assert_eq!((found.path.as_str(), found.field.as_str()), ("stripe/eu", "secret_key"));
    }

    proptest! {
        #[test]
        fn classification_is_total(name in "\\PC{0,40}", value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = describe(&name, &value);
        }

        #[test]
        fn a_password_is_never_plain(value in "[!-~]{2,40}") {
            let what = describe("SMTP_PASSWORD", value.as_bytes());
            prop_assert!(what != "plain" || shape::is_switch(&value), "{value}: {what}");
        }

        #[test]
        fn what_a_variable_stands_for_is_where_its_key_goes(name in "(STRIPE|ACME_STRIPE|STRIPE_[B-Z]{3})_(SECRET_KEY|API_KEY)(_[B-Z]{3})?") {
            let value = b"sk_live_51MadeUpExample0000KeymoatTest";
            if let (Some(by_name), Classification::Key(by_value)) =
                (Catalogue::builtin().for_variable(&name), Catalogue::builtin().identify_named(&name, value))
            {
                prop_assert_eq!(by_name.path(), by_value.path);
                prop_assert_eq!(&by_name.key.field, &by_value.field);
            }
        }
    }
}
