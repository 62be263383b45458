//! `keymoat key`: keys for callers of one's own API. A key is shown once, when it is made.

use clap::{Args, Subcommand};
use http::Method;
use keymoat_core::id::IssuedKeyId;
use keymoat_core::names::SpaceName;
use keymoat_server::wire::{
    ChangeKey, FetchKey, IssueKey, Key as WireKey, KeyOwner, KeyPage, KeySource, KeySpace, KeyVerdict,
    NewCredits, NewKey, PutKeySpace, RerollKey, RevokeKey, VerifyKey, WireSecret,
};

use super::{duration, time_text};
use crate::Context;
use crate::client::{Client, query};
use crate::error::CliError;
use crate::output::{self, Format};
use crate::prompt;

/// Subcommands of `key`.
#[derive(Debug, Clone, Subcommand)]
pub enum Key {
    /// Issue a key and write it to stdout, this once.
    Issue(Box<Issue>),
    /// List keys, without the keys themselves.
    List(List),
    /// Show a key and how it is used, without the key itself.
    Show {
        /// Its id.
        id: IssuedKeyId,
    },
    /// Issue the key that takes another's place; the old one goes on for a while.
    Reroll(Reroll),
    /// End a key for good, at once.
    Revoke(Revoke),
    /// Switch a key off, so that it can be switched on again.
    Disable {
        /// Its id.
        id: IssuedKeyId,
    },
    /// Switch a key on again.
    Enable {
        /// Its id.
        id: IssuedKeyId,
    },
    /// Say what the key on stdin is good for; exit code 1 when it is not.
    Verify(Verify),
    /// Fetch the key that a one-time code on stdin is for, once.
    Fetch,
    /// Say whether an owner of keys is active.
    Owner(Owner),
    /// Spaces of keys.
    #[command(subcommand)]
    Space(Space),
}

/// Flags of `key issue`.
#[derive(Debug, Clone, Args)]
pub struct Issue {
    /// Whose, as your system knows him, such as `odoo:res.users:42`; `account:NAME` for an account of the vault.
    #[arg(long)]
    owner: String,
    /// What kind of owner: `user`, `service_account`, `application`, `partner`.
    #[arg(long, value_name = "KIND")]
    owner_kind: Option<String>,
    /// What people call it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    /// The space.
    #[arg(long, default_value = "default")]
    space: SpaceName,
    /// What it gives, such as `orders.read` or `orders.*`.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<String>,
    /// A role of the space.
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,
    /// A group.
    #[arg(long = "group", value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<String>,
    /// How long it lasts, such as `90d`; as long as the space lets it when left out.
    #[arg(long, value_name = "TIME", value_parser = duration::seconds)]
    expires: Option<u64>,
    /// How often it may be used, such as `100/1s,10000/1d`.
    #[arg(long, value_name = "LIMITS")]
    rate: Option<String>,
    /// A network that it is good from, such as `10.0.0.0/8`; any when left out.
    #[arg(long = "allow", value_name = "CIDR", value_delimiter = ',')]
    networks: Vec<String>,
    /// How many credits it begins with; any number of uses when left out.
    #[arg(long, value_name = "N")]
    credits: Option<u64>,
    /// How they are filled up, such as `1000/day` or `+100/month<=500`.
    #[arg(long, value_name = "REFILL", requires = "credits")]
    refill: Option<String>,
    /// Write a one-time code instead, with which the key is fetched (`keymoat key fetch`), within ten minutes or this time.
    #[arg(long, value_name = "TIME", value_parser = duration::seconds, num_args = 0..=1, default_missing_value = "10m")]
    one_time: Option<u64>,
}

/// Flags of `key list`.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only of this space.
    #[arg(long)]
    space: Option<SpaceName>,
    /// Only of this owner.
    #[arg(long)]
    owner: Option<String>,
    /// Only such: `active`, `disabled`, `not_yet_valid`, `expired`, `revoked`.
    #[arg(long)]
    status: Option<String>,
    /// Only those that nobody used for so many days.
    #[arg(long, value_name = "DAYS")]
    unused: Option<u32>,
    /// Only those that end within so many days.
    #[arg(long, value_name = "DAYS")]
    expires: Option<u32>,
}

/// Flags of `key reroll`.
#[derive(Debug, Clone, Args)]
pub struct Reroll {
    /// The key that is to be replaced.
    id: IssuedKeyId,
    /// How long it goes on working, such as `24h`; not at all when left out.
    #[arg(long, value_name = "TIME", value_parser = duration::seconds)]
    overlap: Option<u64>,
}

/// Flags of `key revoke`.
#[derive(Debug, Clone, Args)]
pub struct Revoke {
    /// The key.
    id: IssuedKeyId,
    /// Why: `compromised`, `superseded`, `owner_left`, `privilege_withdrawn`, `unused`.
    #[arg(long)]
    reason: Option<String>,
}

/// Flags of `key verify`.
#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// What it must give, such as `orders.read AND (orders.own OR role:clerk)`.
    #[arg(long, value_name = "QUERY")]
    scopes: Option<String>,
    /// Only if it is of this space.
    #[arg(long)]
    space: Option<SpaceName>,
    /// What a good answer costs, in credits.
    #[arg(long, value_name = "N")]
    cost: Option<u64>,
    /// Where whoever presented it came from.
    #[arg(long, value_name = "ADDRESS")]
    client_ip: Option<String>,
}

/// Flags of `key owner`.
#[derive(Debug, Clone, Args)]
pub struct Owner {
    /// Who, such as `odoo:res.users:42`.
    owner: String,
    /// He is active.
    #[arg(long, conflicts_with = "inactive", required_unless_present = "inactive")]
    active: bool,
    /// He is not.
    #[arg(long)]
    inactive: bool,
}

/// Subcommands of `key space`.
#[derive(Debug, Clone, Subcommand)]
pub enum Space {
    /// List spaces and their rules.
    List,
    /// Make a space, or give it other rules.
    Put(PutSpace),
}

/// Flags of `key space put`.
#[derive(Debug, Clone, Args)]
pub struct PutSpace {
    /// Its name.
    name: SpaceName,
    /// What it is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// An environment that its keys may be of; any when left out.
    #[arg(long = "only", value_name = "ENV", value_delimiter = ',')]
    environments: Vec<String>,
    /// A role and what it gives, such as `clerk=orders.read,orders.write`.
    #[arg(long = "role", value_name = "ROLE=SCOPES")]
    roles: Vec<String>,
    /// Whether keys go on working whose owner is not active: `deny` or `allow`.
    #[arg(long, value_name = "RULE", default_value = "deny")]
    owner_inactive: String,
    /// How long keys last at most by kind of owner, such as `user=90d`.
    #[arg(long = "max-age", value_name = "KIND=TIME")]
    max_ages: Vec<String>,
    /// Whether each verification has a record (`each`), or only how many there were (`counted`).
    #[arg(long, value_name = "WHICH", default_value = "counted")]
    audit: String,
}

impl Key {
    /// Makes, shows, replaces, ends or verifies keys.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        super::with_client(context, async |client: &Client| match self {
            Key::Issue(issue) => issue.send(context, client).await,
            Key::List(list) => list.print(context, client).await,
            Key::Show { id } => show(context, &client.get(&url(id, "")).await?),
            Key::Reroll(reroll) => reroll.send(context, client).await,
            Key::Revoke(Revoke { id, reason }) => {
                let body = RevokeKey { reason: reason.clone() };
                let key: WireKey = client.call(Method::POST, &url(id, "/revoke"), Some(&body)).await?;
                told(context, &key, "has ended")
            }
            Key::Disable { id } => switch(context, client, id, false).await,
            Key::Enable { id } => switch(context, client, id, true).await,
            Key::Verify(verify) => verify.send(context, client).await,
            Key::Fetch => fetch(context, client).await,
            Key::Owner(owner) => owner.send(context, client).await,
            Key::Space(Space::List) => list_spaces(context, client).await,
            Key::Space(Space::Put(put)) => put.send(context, client).await,
        })
        .await
    }
}

impl Issue {
    async fn send(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let credits = self.credits.map(|amount| NewCredits { amount, refill: self.refill.clone() });
        let body = IssueKey {
            owner: self.owner.clone(),
            owner_kind: self.owner_kind.clone(),
            name: self.name.clone(),
            space: Some(self.space.to_string()),
            environment: context.environment()?.to_string(),
            company: context.global.company.clone(),
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
            groups: self.groups.clone(),
            limits: self.rate.clone(),
            networks: self.networks.clone(),
            not_before: None,
            expires_secs: self.expires,
            credits,
            fetch_secs: self.one_time,
            meta: serde_json::Map::new(),
        };
        let made: NewKey = client.call(Method::POST, "/api/v1/keys", Some(&body)).await?;
        print_new(context, &made)
    }
}

impl List {
    async fn print(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let (unused, expires) = (self.unused.map(|n| n.to_string()), self.expires.map(|n| n.to_string()));
        let mut keys: Vec<WireKey> = Vec::new();
        let mut after = None;
        loop {
            let pairs = [
                ("space", self.space.as_ref().map(SpaceName::as_str)),
                ("environment", context.global.env.as_deref()),
                ("owner", self.owner.as_deref()),
                ("status", self.status.as_deref()),
                ("unused_days", unused.as_deref()),
                ("expires_days", expires.as_deref()),
                ("after", after.as_deref()),
                ("limit", Some("1000")),
            ];
            let page: KeyPage = client.get(&format!("/api/v1/keys{}", query(&pairs))).await?;
            keys.extend(page.keys);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if context.global.format == Format::Json {
            output::json(&keys)?;
            return Ok(0);
        }
        let rows = keys.iter().map(|key| {
            vec![
                key.id.clone(),
                key.masked.clone(),
                key.name.clone(),
                key.owner.clone(),
                key.space.clone(),
                key.status.clone(),
                key.expires_at.map(time_text).unwrap_or_default(),
                key.usage.last_used_at.map(time_text).unwrap_or_default(),
                key.usage.last_from.clone().unwrap_or_default(),
            ]
        });
        output::table(
            &["id", "key", "name", "owner", "space", "status", "until", "last used", "last from"],
            rows,
        );
        Ok(0)
    }
}

impl Reroll {
    async fn send(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let body = RerollKey { overlap_secs: self.overlap.unwrap_or(0) };
        let made: NewKey = client.call(Method::POST, &url(&self.id, "/reroll"), Some(&body)).await?;
        if context.global.format == Format::Text {
            let old: WireKey = client.get(&url(&self.id, "")).await?;
            output::say(&format!("{}: {}", old.masked, still_used(&old)));
        }
        print_new(context, &made)
    }
}

impl Verify {
    async fn send(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let key = match output::talks_to_a_person() {
            true => prompt::secret("Key")?,
            false => prompt::secret_from_stdin()?,
        };
        let body = VerifyKey {
            key: WireSecret(key),
            space: self.space.as_ref().map(ToString::to_string),
            environment: context.global.env.clone(),
            scopes: self.scopes.clone(),
            cost: self.cost,
            client_ip: self.client_ip.clone(),
        };
        let verdict: KeyVerdict = client.call(Method::POST, "/api/v1/keys/verify", Some(&body)).await?;
        if context.global.format == Format::Json {
            output::json(&verdict)?;
        } else {
            let whose = [&verdict.owner, &verdict.key_id].map(|part| part.clone().unwrap_or_default());
            output::line(format!("{} {}", verdict.code, whose.join(" ")).trim_end());
        }
        Ok(u8::from(!verdict.valid))
    }
}

impl Owner {
    async fn send(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let body = KeyOwner { owner: self.owner.clone(), active: self.active };
        let owner: KeyOwner = client.call(Method::POST, "/api/v1/keys/owners", Some(&body)).await?;
        if context.global.format == Format::Json {
            output::json(&owner)?;
            return Ok(0);
        }
        let is = if owner.active { "active" } else { "not active" };
        output::say(&format!("{} is {is}", owner.owner));
        Ok(0)
    }
}

impl PutSpace {
    async fn send(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let mut rules = PutKeySpace {
            description: self.description.clone(),
            environments: self.environments.clone(),
            owner_inactive: Some(self.owner_inactive.clone()),
            audit: Some(self.audit.clone()),
            ..PutKeySpace::default()
        };
        for role in &self.roles {
            let (name, scopes) = pair(role, "--role clerk=orders.read,orders.write")?;
            rules.roles.insert(name, scopes.split(',').map(str::to_owned).collect());
        }
        for age in &self.max_ages {
            let (kind, time) = pair(age, "--max-age user=90d")?;
            rules.max_age_secs.insert(kind, duration::seconds(&time).map_err(CliError::new)?);
        }
        let url = format!("/api/v1/key-spaces/{}", self.name);
        let space: KeySpace = client.call(Method::PUT, &url, Some(&rules)).await?;
        if context.global.format == Format::Json {
            output::json(&space)?;
            return Ok(0);
        }
        output::say(&format!("the space `{}` has these rules from now on", space.name));
        Ok(0)
    }
}

async fn list_spaces(context: &Context, client: &Client) -> Result<u8, CliError> {
    let spaces: Vec<KeySpace> = client.get("/api/v1/key-spaces").await?;
    if context.global.format == Format::Json {
        output::json(&spaces)?;
        return Ok(0);
    }
    let rows = spaces.iter().map(|space| {
        let roles: Vec<&str> = space.rules.roles.keys().map(String::as_str).collect();
        vec![
            space.name.clone(),
            space.rules.environments.join(", "),
            roles.join(", "),
            space.rules.owner_inactive.clone().unwrap_or_default(),
            space.rules.audit.clone().unwrap_or_default(),
            space.rules.description.clone(),
        ]
    });
    output::table(&["space", "only", "roles", "owner inactive", "audit", "for"], rows);
    Ok(0)
}

async fn switch(context: &Context, client: &Client, id: &IssuedKeyId, on: bool) -> Result<u8, CliError> {
    let body = ChangeKey { enabled: Some(on), ..ChangeKey::default() };
    let key: WireKey = client.call(Method::PATCH, &url(id, ""), Some(&body)).await?;
    told(context, &key, if on { "is on" } else { "is off" })
}

async fn fetch(context: &Context, client: &Client) -> Result<u8, CliError> {
    let code = match output::talks_to_a_person() {
        true => prompt::secret("Code")?,
        false => prompt::secret_from_stdin()?,
    };
    let body = FetchKey { code: WireSecret(code) };
    let made: NewKey = client.call(Method::POST, "/api/v1/keys/fetch", Some(&body)).await?;
    print_new(context, &made)
}

fn told(context: &Context, key: &WireKey, what: &str) -> Result<u8, CliError> {
    match context.global.format {
        Format::Json => output::json(key)?,
        Format::Text => output::say(&format!("key {} ({}) {what}", key.id, key.masked)),
    }
    Ok(0)
}

fn print_new(context: &Context, made: &NewKey) -> Result<u8, CliError> {
    made.warnings.iter().for_each(|warning| output::warn(warning));
    if context.global.format == Format::Json {
        output::json(made)?;
        return Ok(0);
    }
    let until =
        made.about.expires_at.map_or("for good".to_owned(), |end| format!("until {}", time_text(end)));
    let about = &made.about;
    let (what, text) = match (&made.key, &made.code) {
        (Some(key), _) => ("it is shown this once:", key),
        (None, Some(code)) => ("its owner fetches it, once, with `keymoat key fetch` and this code:", code),
        (None, None) => return Err(CliError::new("the server gave neither a key nor a code")),
    };
    output::say(&format!("key {} of `{}`, good {until}; {what}", about.id, about.owner));
    // EXPOSE: the key was asked for by somebody who may have it, and its making is on record.
    text.0.expose(|text| output::bytes(&[text.as_slice(), b"\n"].concat()));
    Ok(0)
}

fn show(context: &Context, key: &WireKey) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(key)?;
        return Ok(0);
    }
    let text = |time: Option<jiff::Timestamp>| time.map(time_text).unwrap_or_default();
    let refused = key.usage.refused.iter().map(|(code, count)| format!("{count} {code}"));
    let rows = [
        ("id", key.id.clone()),
        ("key", key.masked.clone()),
        ("name", key.name.clone()),
        ("owner", format!("{} ({})", key.owner, key.owner_kind)),
        ("place", format!("{} in {}", key.space, key.environment)),
        ("status", key.status.clone()),
        ("scopes", key.scopes.join(", ")),
        ("roles", key.roles.join(", ")),
        ("groups", key.groups.join(", ")),
        ("limits", key.limits.clone().unwrap_or_default()),
        ("from", key.networks.join(", ")),
        ("credits", key.credits.map(|left| left.to_string()).unwrap_or_default()),
        ("until", text(key.expires_at)),
        ("made", format!("{} by {}", time_text(key.created_at), key.created_by)),
        ("revoked", text(key.revoked_at)),
        ("replaces", key.replaces.clone().unwrap_or_default()),
        ("replaced by", key.replaced_by.clone().unwrap_or_default()),
        ("used", key.usage.allowed.to_string()),
        ("refused", refused.collect::<Vec<_>>().join(", ")),
        ("last used", still_used(key)),
    ];
    let rows = rows.into_iter().filter(|(_, text)| !text.is_empty());
    output::table(&["", ""], rows.map(|(name, text)| vec![name.to_owned(), text]));
    Ok(0)
}

/// Who still uses a key.
fn still_used(key: &WireKey) -> String {
    let Some(last) = key.usage.last_used_at else { return "never used".to_owned() };
    let source =
        |source: &KeySource| format!("{} ({}, {})", source.address, source.count, time_text(source.last_at));
    let from: Vec<String> = key.usage.sources.iter().map(source).collect();
    let from = if from.is_empty() { String::new() } else { format!(", from {}", from.join(", ")) };
    format!("last used {}{from}", time_text(last))
}

fn url(id: &IssuedKeyId, what: &str) -> String {
    format!("/api/v1/keys/{id}{what}")
}

/// `NAME=REST`, as some flags are written.
fn pair(text: &str, example: &str) -> Result<(String, String), CliError> {
    let (name, rest) =
        text.split_once('=').ok_or_else(|| CliError::new(format!("that is written `{example}`")))?;
    Ok((name.to_owned(), rest.to_owned()))
}
