//! What the catalogue knows of a provider, as checked types: once loaded, nobody checks again.
//!
//! Holds facts only. It never calls a provider; gateway, rotation and scanner read these types.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::checksum::Checksum;
use crate::entropy::entropy;
use crate::pattern::Pattern;
use crate::shape;

/// Everything Keymoat knows of one provider.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Short name, also the default path in the vault (`stripe`).
    pub id: String,
    /// Name for people (`Stripe`).
    pub name: String,
    /// Other names it is searched by.
    pub aliases: Vec<String>,
    /// True while the calls in the file have not been run against a stub of their documentation.
    pub shape_only: bool,
    /// True for a form that belongs to nobody (a PEM block, a JSON Web Token): what it is for, the name beside it says.
    pub form: bool,
    /// Where a person reads on and makes a key.
    pub links: Links,
    /// Values beside the keys that addresses need (a shop's host name).
    pub settings: Vec<Setting>,
    /// The kinds of key, in the order of the file; the first one that lists a variable answers for it.
    pub keys: Vec<Key>,
    /// How the keys travel in a request.
    pub send: Vec<Injection>,
    /// Calls that tell whether a key is alive without changing anything.
    pub checks: Vec<Check>,
    /// How the provider lets a key be changed.
    pub rotation: Option<Rotation>,
    /// Where Odoo keeps the keys.
    pub odoo: OdooPlaces,
    /// Where Django projects keep the keys.
    pub django: DjangoPlaces,
    pub(crate) file: String,
}

impl Provider {
    /// The key with this id.
    pub fn key(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The injections that carry `field`, in the order of the file.
    pub fn injections_of<'p>(&'p self, field: &'p str) -> impl Iterator<Item = &'p Injection> {
        self.send.iter().filter(move |send| {
            send.how.templates().any(|template| template.names().any(|name| name == field))
        })
    }

    /// The checks that tell whether the value of `field` is alive.
    pub fn checks_of<'p>(&'p self, field: &'p str) -> impl Iterator<Item = &'p Check> {
        self.checks.iter().filter(move |check| check.field == field)
    }
}

/// One kind of key that a provider issues.
#[derive(Debug, Clone)]
pub struct Key {
    /// Name within the provider (`live_secret`).
    pub id: String,
    /// What it is for.
    pub kind: Kind,
    /// Whether it moves real money and data.
    pub mode: Mode,
    /// Field of the secret it is kept in (`secret_key`).
    pub field: String,
    /// Literal beginnings, none of them secret; every value begins with one when there are any.
    pub prefixes: Vec<String>,
    /// Least Shannon entropy of the secret part, in bits per byte.
    pub min_entropy: f64,
    /// The checksum that the value carries.
    pub checksum: Checksum,
    /// False for what may be seen by anybody: publishable keys and identifiers.
    pub sensitive: bool,
    /// How bad a leak is.
    pub severity: Severity,
    /// True when the shape alone says nothing, so that a variable's name must say the rest.
    pub needs_context: bool,
    /// Group of keys that are used together and belong on one path.
    pub pair: Option<String>,
    /// Environment variables it is known to live in, most usual first.
    pub variables: Vec<String>,
    /// Made-up values that match.
    pub examples: Vec<String>,
    /// Values that look alike and must not match.
    pub counter_examples: Vec<String>,
    pub(crate) published: Vec<String>,
    pub(crate) pattern: Pattern,
    /// Where in its file, for files that are checked as they are read.
    pub(crate) line: Option<usize>,
}

impl Key {
    /// The pattern as the file has it, without anchors (`regex` syntax, bytes, no Unicode classes).
    pub fn pattern(&self) -> &str {
        self.pattern.text()
    }

    /// Whether the whole of `value` has this key's shape, entropy and checksum, and is not a value
    /// that the provider prints in its own documentation. A context, when one is needed, is the caller's.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.judge(value) == Judgement::Key
    }

    /// Whether the whole of `value` has this key's shape, but a wrong checksum, or is printed in the provider's
    /// documentation.
    pub fn is_disproved(&self, value: &[u8]) -> bool {
        self.judge(value) == Judgement::Disproved
    }

    /// What the whole of `value` is to this key.
    pub(crate) fn judge(&self, value: &[u8]) -> Judgement {
        let prefix = self.prefix_of(value);
        if !self.prefixes.is_empty() && prefix.is_none() {
            return Judgement::Other;
        }
        let Some(captures) = self.pattern.whole().captures(value) else { return Judgement::Other };
        let prefix = prefix.map_or(0, str::len);
        let named = captures.name(SECRET_GROUP).map(|group| group.as_bytes());
        let secret = named.unwrap_or_else(|| value.get(prefix..).unwrap_or_default());
        if named.is_some_and(shape::is_stock_secret) || entropy(secret) < self.min_entropy {
            return Judgement::Other;
        }
        let is_published = self.published.iter().any(|published| published.as_bytes() == value);
        match self.checksum.holds(value, prefix) {
            true if !is_published => Judgement::Key,
            false if !self.checksum.disproves() => Judgement::Other,
            _ => Judgement::Disproved,
        }
    }

    /// What `text` begins with to this key, and where that ends.
    pub(crate) fn judge_beginning(&self, text: &[u8]) -> Option<(Judgement, usize)> {
        let end = self.pattern.end_of_value(text)?;
        let judgement = self.judge(text.get(..end)?);
        (judgement != Judgement::Other).then_some((judgement, end))
    }

    /// The longest literal prefix that `value` begins with.
    pub fn prefix_of(&self, value: &[u8]) -> Option<&str> {
        self.prefixes
            .iter()
            .filter(|prefix| value.starts_with(prefix.as_bytes()))
            .max_by_key(|prefix| prefix.len())
            .map(String::as_str)
    }

    /// A part of `value` that the pattern names (`data_center` in a Mailchimp key).
    pub fn part<'v>(&self, value: &'v [u8], name: &str) -> Option<&'v [u8]> {
        self.pattern.whole().captures(value)?.name(name).map(|group| group.as_bytes())
    }

    /// The names of the parts that the pattern names, `secret` left out.
    pub fn part_names(&self) -> impl Iterator<Item = &str> {
        self.pattern.whole().capture_names().flatten().filter(|name| *name != SECRET_GROUP)
    }

    /// What a path gets at its end for this key: `test` for keys of the test mode.
    pub fn path_suffix(&self) -> Option<&'static str> {
        (self.mode == Mode::Test).then_some(TEST_PATH)
    }
}

/// What a value is to a key of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Such a key.
    Key,
    /// Of its shape, but with a wrong checksum, or printed in the provider's documentation.
    Disproved,
    /// Something else.
    Other,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// May do everything the account may.
    Secret,
    /// May do what was chosen for it.
    Restricted,
    /// Manages other keys, people or billing.
    Admin,
    /// Meant to be seen in a browser.
    Publishable,
    /// Proves that a webhook comes from the provider.
    Webhook,
    /// Names an account.
    AccountId,
    /// Names a key whose secret is another value.
    KeyId,
    /// Names an application in OAuth.
    ClientId,
    /// Proves an application in OAuth.
    ClientSecret,
    /// Made by signing in or by another key, often short-lived.
    Token,
    /// Chosen or made for a login.
    Password,
    /// An address with a password in it.
    Url,
}

impl Kind {
    /// The word used in files, output and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Restricted => "restricted",
            Self::Admin => "admin",
            Self::Publishable => "publishable",
            Self::Webhook => "webhook",
            Self::AccountId => "account_id",
            Self::KeyId => "key_id",
            Self::ClientId => "client_id",
            Self::ClientSecret => "client_secret",
            Self::Token => "token",
            Self::Password => "password",
            Self::Url => "url",
        }
    }

    /// Whether it names a key, an account or an application, whose secret is another value.
    pub fn is_name(self) -> bool {
        matches!(self, Self::AccountId | Self::KeyId | Self::ClientId)
    }

    /// Whether keys of this kind are secret unless their file says otherwise.
    pub fn is_sensitive(self) -> bool {
        !self.is_name() && self != Self::Publishable
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether a key works on real money and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Real money and data.
    Live,
    /// The provider's test mode or sandbox.
    Test,
    /// The value does not tell.
    #[default]
    Any,
}

impl Mode {
    /// The word used in files, output and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
            Self::Any => "any",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How bad it is when a key leaks, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Not a secret at all.
    Info,
    /// Test data, or of use only together with something else.
    Low,
    /// Limited rights.
    Medium,
    /// Real data or money within limits.
    High,
    /// Everything the account has.
    Critical,
}

impl Severity {
    /// The word used in files, output and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Addresses for people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// The provider's documentation of its keys.
    pub docs: String,
    /// The page where a key is made or changed, when there is one for all accounts.
    pub keys: Option<String>,
}

/// A value beside the keys that addresses and headers need.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Name used in templates (`shop`).
    pub name: String,
    /// What it is, for a person who has to fill it in.
    pub what: String,
    /// Environment variables it is known to live in.
    #[serde(default)]
    pub variables: Vec<String>,
}

/// Text with `{name}` where a field, a named part of a key or a setting goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Template(String);

impl Template {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names between braces, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
    }
}

/// How keys travel in the requests to one base address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// The scheme and what goes where.
    pub how: Scheme,
    /// Address of the live service.
    pub base_url: Template,
    /// Address of the sandbox, where it is another one.
    pub test_base_url: Option<Template>,
    /// The only host names these keys may be sent to; `*.` stands for one or more labels.
    pub hosts: Vec<String>,
    /// The documentation it comes from.
    pub source: String,
}

/// The scheme by which a request is authorised.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    /// `Authorization: Bearer …` (RFC 6750).
    Bearer {
        /// The token.
        token: Template,
    },
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// User name.
        username: Template,
        /// Password, may be empty.
        password: Template,
    },
    /// A header of the provider's own.
    Header {
        /// Name of the header.
        name: String,
        /// Its value.
        value: Template,
    },
    /// A parameter in the address.
    Query {
        /// Name of the parameter.
        parameter: String,
        /// Its value.
        value: Template,
    },
    /// The beginning of every path.
    Path {
        /// What stands before the path, `/bot{bot_token}`.
        prefix: Template,
    },
    /// OAuth 2.0 client credentials (RFC 6749 §4.4): a token is minted, then sent.
    Oauth2Client {
        /// Address that mints live tokens.
        token_url: Template,
        /// Address that mints sandbox tokens, where it is another one.
        test_token_url: Option<Template>,
        /// How the client proves itself there.
        client_auth: ClientAuth,
        /// The client's id.
        client_id: Template,
        /// The client's secret.
        client_secret: Template,
        /// Header that carries the token when it is not `Authorization: Bearer`.
        token_header: Option<String>,
        /// Life of a token in seconds, where documented; the answer's `expires_in` wins.
        token_seconds: Option<u32>,
    },
    /// Members of a body in JSON.
    Json {
        /// Where each stands, as a JSON pointer (RFC 6901) without numbers, and its text.
        members: BTreeMap<String, Template>,
    },
    /// AWS Signature Version 4.
    Sigv4 {
        /// Access key id.
        access_key_id: Template,
        /// Secret access key.
        secret_access_key: Template,
        /// Session token of temporary credentials.
        session_token: Option<Template>,
    },
}

impl Scheme {
    /// All templates in it.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let list: Vec<&Template> = match self {
            Self::Bearer { token } => vec![token],
            Self::Basic { username, password } => vec![username, password],
            Self::Header { value, .. } | Self::Query { value, .. } | Self::Path { prefix: value } => {
                vec![value]
            }
            Self::Oauth2Client { token_url, test_token_url, client_id, client_secret, .. } => {
                let mut list = vec![token_url, client_id, client_secret];
                list.extend(test_token_url);
                list
            }
            Self::Json { members } => members.values().collect(),
            Self::Sigv4 { access_key_id, secret_access_key, session_token } => {
                let mut list = vec![access_key_id, secret_access_key];
                list.extend(session_token);
                list
            }
        };
        list.into_iter()
    }
}

/// How an OAuth client proves itself at the token address (RFC 6749 §2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// HTTP Basic with id and secret.
    Basic,
    /// `client_id` and `client_secret` in the form body.
    Form,
}

/// A call that tells whether a key is alive and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The field whose value it checks; it travels as the first `[[send]]` that names it says.
    pub field: String,
    /// The request.
    pub request: CheckRequest,
    /// Answers that mean the key is alive.
    pub alive: Vec<u16>,
    /// What the body has to say for that, too; of those for a status one is enough.
    #[serde(default)]
    pub alive_if: Vec<Says>,
    /// Answers that mean the key is dead; any other says nothing.
    pub dead: Vec<u16>,
    /// What the body has to say for that, too; of those for a status one is enough.
    #[serde(default)]
    pub dead_if: Vec<Says>,
    /// Where the answer names the account: JSON pointers (RFC 6901) into the body, or names of headers. All that are
    /// there are told.
    #[serde(default)]
    pub account: Vec<String>,
    /// The documentation it comes from.
    pub source: String,
}

/// Something that a body in JSON may say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Says {
    /// The status with which it counts; without it, every one.
    pub status: Option<u16>,
    /// Where in it, as a JSON pointer (RFC 6901).
    pub at: String,
    /// What may stand there, as text: `true`, `invalid_auth`.
    pub is: Vec<String>,
}

impl Says {
    /// Whether it counts with this status.
    pub fn is_about(&self, status: u16) -> bool {
        self.status.is_none_or(|own| own == status)
    }
}

/// The request of a check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CheckRequest {
    /// Asking for an OAuth token is the check.
    TokenRequest {},
    /// An ordinary call.
    Call {
        /// HTTP method.
        method: Method,
        /// Address in live mode.
        url: Template,
        /// Address in test mode, where it is another one.
        test_url: Option<Template>,
        /// Addresses of other regions: a key is dead when none of them knows it.
        #[serde(default)]
        other_urls: Vec<Template>,
        /// The same of the test mode.
        #[serde(default)]
        other_test_urls: Vec<Template>,
        /// Headers that the provider asks for, none of them secret.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// A body in JSON.
        body: Option<String>,
    },
}

/// HTTP methods that checks use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    Get,
    /// POST, only where the documentation says that nothing changes.
    Post,
}

/// How the provider lets a key be changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// How much of it the provider's API can do.
    pub automation: Automation,
    /// What happens to the old key.
    pub overlap: Overlap,
    /// What a person has to know or do, in a sentence or two.
    pub note: String,
    /// The documentation it comes from.
    pub source: String,
}

/// How much of a rotation the provider's API can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Automation {
    /// Making and removing keys.
    Full,
    /// One of the two.
    Half,
    /// None: a person does it, guided and verified.
    Guided,
}

/// What happens to the old key when there is a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Overlap {
    /// Old and new work side by side until the old one is removed; `keys` at most, where limited.
    Parallel {
        /// Most keys at a time.
        keys: Option<u32>,
    },
    /// Two fixed slots, changed in turn.
    Slots {
        /// Number of slots.
        slots: u32,
    },
    /// The old one works for a while by itself.
    Grace {
        /// How long, in seconds.
        seconds: u32,
    },
    /// The old one dies at once.
    DiesAtOnce {},
    /// The documentation does not say, so the old one is taken to die at once.
    Unknown {},
}

/// A place where another system keeps a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// A parameter, a setting, or `table.column`.
    pub name: String,
    /// The field whose value is kept there.
    pub field: String,
    /// Versions of that system, `16-19`, when not all.
    pub versions: Option<String>,
}

/// Where Odoo keeps keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OdooPlaces {
    /// Keys of `ir_config_parameter`.
    #[serde(default)]
    pub parameters: Vec<Place>,
    /// Columns, as `table.column`.
    #[serde(default)]
    pub columns: Vec<Place>,
}

/// Where Django projects keep keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DjangoPlaces {
    /// Names of settings.
    #[serde(default)]
    pub settings: Vec<Place>,
    /// Columns, as `table.column`.
    #[serde(default)]
    pub columns: Vec<Place>,
}

/// Name of the group that marks the secret part of a pattern.
pub(crate) const SECRET_GROUP: &str = "secret";

/// Last segment of the path of a key of the test mode.
pub(crate) const TEST_PATH: &str = "test";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_what_they_need() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(Template(text.into()).names().collect::<Vec<_>>(), expected, "{text}");
        };
        check("https://api.stripe.com", &[]);
        check("https://{shop}/admin", &["shop"]);
        check("{a}:{b}", &["a", "b"]);
        check("{open", &[]);
        check("}{", &[]);
    }

    #[test]
    fn severities_are_ordered() {
        assert!(Severity::Info < Severity::Low && Severity::High < Severity::Critical);
    }
}
