//! What to do about a finding: two sentences, a command and an address.

use keymoat_detect::{Generic, Kind, Mode, Rule};

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// How to make the value worthless: that comes first.
    pub change: String,
    /// Where the new one goes.
    pub keep: String,
    /// The command that takes the new value in.
    pub command: Option<String>,
    /// The provider's page where the key is changed.
    pub link: Option<String>,
}

impl Fix {
    /// Both sentences.
    pub fn sentences(&self) -> String {
        format!("{} {}", self.change, self.keep)
    }
}

/// What to do about a key of this kind.
pub(super) fn of(rule: &Rule<'_>) -> Fix {
    match (rule.provider, rule.key) {
        (Some(provider), Some(key)) => {
            let path = match rule.mode {
                Mode::Test => format!("{}/test", provider.id),
                _ => provider.id.clone(),
            };
            let environment = if rule.mode == Mode::Test { "dev" } else { "prod" };
            Fix {
                change: change(rule.kind, &provider.name),
                keep: format!(
                    "Keep the new one in the vault and leave `keymoat:{path}#{}` in its place.",
                    key.field
                ),
                command: Some(format!("keymoat put {path} {}=- --env {environment}", key.field)),
                link: provider.links.keys.clone().or_else(|| Some(provider.links.docs.clone())),
            }
        }
        _ => generic(rule.generic),
    }
}

fn change(kind: Kind, provider: &str) -> String {
    match kind {
        Kind::Url | Kind::Password => {
            "Change the password where the address leads, so that this one opens nothing.".to_owned()
        }
        Kind::Webhook => {
            format!(
                "Roll the webhook's secret at {provider}: whoever has this one can send you made-up events."
            )
        }
        Kind::Token => {
            format!(
                "Revoke this token at {provider} and make a new one; taking it out of the file is not enough."
            )
        }
        _ => format!(
            "Make a new key at {provider}, then revoke this one; taking it out of the file is not enough."
        ),
    }
}

fn generic(generic: Option<Generic>) -> Fix {
    let (change, path, field) = match generic {
        Some(Generic::PrivateKey) => (
            "Make a new key pair and take this one's public half out of every server and service that trusts it.",
            "keys",
            "private_key",
        ),
        Some(Generic::EncryptedPrivateKey) => (
            "Make a new key pair unless its passphrase is long and stands nowhere near it.",
            "keys",
            "private_key",
        ),
        Some(Generic::JsonWebToken) => (
            "End the session or revoke the token where it was issued, unless it has run out already.",
            "tokens",
            "token",
        ),
        Some(Generic::MasterSecret) => (
            "Make a new secret and restart the application: whoever has this one can sign sessions or manage databases.",
            "application",
            "secret",
        ),
        Some(
            Generic::UrlPassword | Generic::ConnectionString | Generic::LoginFile | Generic::Authorization,
        ) => ("Change the password where it is used, so that this one opens nothing.", "logins", "password"),
        Some(Generic::PasswordHash) => (
            "Let the account's owner choose a new password: this hash can be guessed at leisure.",
            "logins",
            "password",
        ),
        Some(Generic::NamedPassword | Generic::NamedSecret) | None => {
            ("Look whether it is a real secret; if so, change it where it is used.", "logins", "secret")
        }
    };
    Fix {
        change: change.to_owned(),
        keep: "Keep the new one in the vault and leave a reference in its place; if it is none, write `keymoat:allow` and the reason on its line.".to_owned(),
        command: Some(format!("keymoat put {path} {field}=- --env prod")),
        link: None,
    }
}
