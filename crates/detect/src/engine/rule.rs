//! What a hit was found as: a key of the catalogue, or one of the rules that belong to no provider.

use sha2::{Digest, Sha256};

use crate::catalogue::{Catalogue, KeyIndex};
use crate::provider::{Key, Kind, Mode, Provider, Severity};

/// Names a rule within one engine; not stable between versions, [`Rule::name`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub(super) u16);

/// What a hit was found as.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'e> {
    /// Its id in this engine.
    pub id: RuleId,
    /// Whose key it is; `None` for rules that belong to nobody. Without a `key` the name before the value says so, and
    /// its shape does not.
    pub provider: Option<&'e Provider>,
    /// Which key of the provider.
    pub key: Option<&'e Key>,
    /// What it is for.
    pub kind: Kind,
    /// Whether it moves real money and data.
    pub mode: Mode,
    /// How bad a leak is.
    pub severity: Severity,
    /// False for the names of keys: no secret, but their secret is often near.
    pub sensitive: bool,
    /// The rule, where it is no key of the catalogue.
    pub generic: Option<Generic>,
}

impl Rule<'_> {
    /// A stable name: `stripe/live_secret`, `private-key`.
    pub fn name(&self) -> String {
        match (self.provider, self.key, self.generic) {
            (Some(provider), Some(key), _) => format!("{}/{}", provider.id, key.id),
            (Some(provider), None, Some(generic)) => format!("{}/{}", provider.id, generic.as_str()),
            (.., Some(generic)) => generic.as_str().to_owned(),
            _ => String::new(),
        }
    }

    /// What it is, for people: `Stripe secret`, `private key`.
    pub fn title(&self) -> String {
        match (self.provider, self.generic) {
            (Some(provider), Some(generic)) => format!("{}: {}", provider.name, generic.title()),
            (Some(provider), None) => format!("{} {}", provider.name, self.kind.as_str().replace('_', " ")),
            (None, Some(generic)) => generic.title().to_owned(),
            (None, None) => String::new(),
        }
    }
}

macro_rules! generic_rules {
    ($($(#[$doc:meta])* $variant:ident: $name:literal, $title:literal, $kind:ident, $severity:ident;)*) => {
        /// A rule that belongs to no provider.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Generic {
            $($(#[$doc])* $variant,)*
        }

        impl Generic {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it is, for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }
        }
    };
}

generic_rules! {
    /// A private key in PEM form that anybody can use.
    PrivateKey: "private-key", "private key", Secret, Critical;
    /// A private key in PEM form under a passphrase.
    EncryptedPrivateKey: "encrypted-private-key", "private key under a passphrase", Secret, Medium;
    /// A JSON Web Token.
    JsonWebToken: "json-web-token", "JSON Web Token", Token, Medium;
    /// An address with a user and a password.
    UrlPassword: "url-password", "address with a password", Url, High;
    /// A password in a connection string (ODBC, JDBC, ADO.NET).
    ConnectionString: "connection-string", "connection string with a password", Password, High;
    /// User and password or a token in a request's `Authorization` header, or on a command line.
    Authorization: "authorization", "credentials in a request", Token, Medium;
    /// A login in a file of logins (`.netrc`, `.pgpass`).
    LoginFile: "login-file", "login in a file of logins", Password, High;
    /// The secret key of a Django project or the master password of an Odoo server.
    MasterSecret: "master-secret", "secret of a whole application", Secret, High;
    /// A password that has a name saying so.
    NamedPassword: "named-password", "value named as a password", Password, Low;
    /// A random value that has a name saying that it is secret.
    NamedSecret: "named-secret", "random value named as a secret", Secret, Low;
    /// The hash of a password, to be guessed at leisure.
    PasswordHash: "password-hash", "hash of a password", Password, Low;
}

/// All rules: first the keys of the catalogue, then those that belong to nobody.
#[derive(Debug)]
pub(super) struct Rules {
    catalogue: Catalogue,
    keys: Vec<KeyIndex>,
    /// Positions in `keys`, the most telling shape first.
    rank: Vec<u16>,
}

impl Rules {
    pub(super) fn new(catalogue: Catalogue) -> Self {
        let keys: Vec<KeyIndex> = catalogue
            .providers()
            .iter()
            .enumerate()
            .flat_map(|(p, provider)| (0..provider.keys.len()).map(move |key| KeyIndex { provider: p, key }))
            .take(MAX_KEYS)
            .collect();
        let mut rank = vec![u16::MAX; keys.len()];
        for (at, index) in catalogue.by_shape().iter().enumerate() {
            if let Ok(rule) = keys.binary_search(index) {
                rank[rule] = u16::try_from(at).unwrap_or(u16::MAX);
            }
        }
        Self { catalogue, keys, rank }
    }

    pub(super) fn providers(&self) -> &[Provider] {
        self.catalogue.providers()
    }

    /// The keys of the catalogue, each with the position of its provider.
    pub(super) fn keys_by_owner(&self) -> impl Iterator<Item = (RuleId, u16, &Key)> {
        self.ids().zip(&self.keys).map(|(id, &index)| (id, index.provider as u16, self.catalogue.at(index).1))
    }

    /// The rule for a random value that has none of the shapes of a provider's keys, but stands where one would.
    pub(super) fn of_owner(&self, generic: Generic, owner: u16) -> RuleId {
        let Some(at) = OWNED.iter().position(|own| *own == generic) else { return self.generic(generic) };
        RuleId((self.keys.len() + Generic::ALL.len() + at * self.providers().len()) as u16 + owner)
    }

    /// Whether a rule says whose key it finds.
    pub(super) fn has_owner(&self, id: RuleId) -> bool {
        !(self.keys.len()..self.keys.len() + Generic::ALL.len()).contains(&usize::from(id.0))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RuleId> + use<> {
        let all = self.keys.len() + Generic::ALL.len() + OWNED.len() * self.providers().len();
        (0..all).map(|at| RuleId(u16::try_from(at).unwrap_or(u16::MAX)))
    }

    /// The keys of the catalogue.
    pub(super) fn keys(&self) -> impl Iterator<Item = (RuleId, &Provider, &Key)> {
        self.ids().zip(&self.keys).map(|(id, &index)| {
            let (provider, key) = self.catalogue.at(index);
            (id, provider, key)
        })
    }

    pub(super) fn key(&self, id: RuleId) -> Option<(&Provider, &Key)> {
        self.keys.get(usize::from(id.0)).map(|&index| self.catalogue.at(index))
    }

    /// The secret keys that are used together with another one and that their shape alone does not tell.
    pub(super) fn partners(&self, id: RuleId) -> impl Iterator<Item = (RuleId, &Key)> {
        let place = self.keys.get(usize::from(id.0)).copied();
        let pair = self.key(id).and_then(|(provider, key)| Some((provider, key.pair.as_ref()?)));
        place.zip(pair).into_iter().flat_map(move |(place, (provider, pair))| {
            let first = usize::from(id.0) - place.key;
            let is_one =
                move |key: &Key| key.needs_context && key.sensitive && key.pair.as_ref() == Some(pair);
            provider
                .keys
                .iter()
                .enumerate()
                .filter(move |(_, key)| is_one(key))
                .map(move |(at, key)| (RuleId((first + at) as u16), key))
        })
    }

    /// Whether a rule is one of the provider at this position in the catalogue.
    pub(super) fn is_of(&self, id: RuleId, owner: u16) -> bool {
        self.keys.get(usize::from(id.0)).is_some_and(|index| index.provider == usize::from(owner))
    }

    /// How telling the shape of a key is: less is more.
    pub(super) fn rank(&self, id: RuleId) -> u16 {
        self.rank.get(usize::from(id.0)).copied().unwrap_or(u16::MAX)
    }

    pub(super) fn generic(&self, generic: Generic) -> RuleId {
        let at = self.keys.len() + Generic::ALL.iter().position(|own| *own == generic).unwrap_or_default();
        RuleId(u16::try_from(at).unwrap_or(u16::MAX))
    }

    pub(super) fn rule(&self, id: RuleId) -> Rule<'_> {
        if let Some((provider, key)) = self.key(id) {
            return Rule {
                id,
                provider: Some(provider),
                key: Some(key),
                kind: key.kind,
                mode: key.mode,
                severity: key.severity,
                sensitive: key.sensitive,
                generic: None,
            };
        }
        let at = usize::from(id.0) - self.keys.len();
        let owned = at.checked_sub(Generic::ALL.len()).map(|at| {
            let (generic, owner) = (at / self.providers().len(), at % self.providers().len());
            (OWNED.get(generic).copied().unwrap_or(Generic::NamedSecret), self.providers().get(owner))
        });
        let (generic, owner) =
            owned.unwrap_or_else(|| (Generic::ALL.get(at).copied().unwrap_or(Generic::NamedSecret), None));
        Rule {
            id,
            provider: owner,
            key: None,
            kind: generic.kind(),
            mode: Mode::Any,
            severity: generic.severity(),
            sensitive: true,
            generic: Some(generic),
        }
    }

    /// Everything of the catalogue that decides whether something is found, and as what.
    pub(super) fn digest(&self, digest: &mut Sha256) {
        for (_, provider, key) in self.keys() {
            let Key {
                prefixes, min_entropy, checksum, sensitive, needs_context, variables, published, ..
            } = key;
            let facts = format!(
                "{}/{} {} {} {prefixes:?} {:?} {min_entropy} {checksum:?} {sensitive} {needs_context} {variables:?} {published:?} {:?}\n",
                provider.id,
                key.id,
                key.kind,
                key.mode,
                key.pattern(),
                provider.aliases,
            );
            digest.update(facts.as_bytes());
        }
    }
}

/// The rules that find what is somebody's without knowing its shape.
const OWNED: &[Generic] = &[Generic::NamedSecret, Generic::Authorization];

/// Ids have 16 bits, and the rules that belong to nobody need some.
const MAX_KEYS: usize = 60_000;
