//! One catalogue file: from TOML text to a checked [`Provider`].
//!
//! Checks what can be seen in one file. What needs all files together (unique ids, examples that
//! another provider takes) is the business of [`crate::catalogue`].

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::catalogue::CatalogueError;
use crate::checksum::Checksum;
use crate::pattern::Pattern;
use crate::provider::{
    Check, CheckRequest, DjangoPlaces, Injection, Key, Kind, Links, Mode, OdooPlaces, Place, Provider,
    Rotation, Says, Scheme, Setting, Severity,
};

/// Reads one file and checks it; the error names the file, the line and what to do.
pub(crate) fn parse(file: &str, text: &str) -> Result<Provider, CatalogueError> {
    let source = Source { file, text };
    if text.len() > MAX_FILE_BYTES {
        return Err(source.error(None, format!("the file has more than {MAX_FILE_BYTES} bytes"), "split it"));
    }
    let raw: RawProvider<Spanned<String>> = toml::from_str(text).map_err(|error| {
        let hint = "docs/catalogue.md explains every key";
        source.error(error.span(), error.message().to_owned(), hint)
    })?;
    raw.check(&source, Trust::Check)
}

/// Reads the files of the program in the compact form that the build script makes of them. A test checks them; here no
/// pattern is compiled before it is used, so that a thousand providers are ready in a few milliseconds.
pub(crate) fn parse_own(compact: &str) -> Result<Vec<Provider>, CatalogueError> {
    let files: BTreeMap<String, RawProvider<String>> = serde_json::from_str(compact).map_err(|error| {
        let source = Source { file: "catalogue.json", text: "" };
        source.error(None, error.to_string(), "build the program anew")
    })?;
    files.into_iter().map(|(file, raw)| raw.check(&Source { file: &file, text: "" }, Trust::Own)).collect()
}

/// A text of a file, and where it stands if that is known.
trait Text {
    fn text(&self) -> &String;
    fn span(&self) -> Range<usize>;
    fn into_text(self) -> String;
}

impl Text for Spanned<String> {
    fn text(&self) -> &String {
        self.get_ref()
    }

    fn span(&self) -> Range<usize> {
        Spanned::span(self)
    }

    fn into_text(self) -> String {
        self.into_inner()
    }
}

impl Text for String {
    fn text(&self) -> &String {
        self
    }

    fn span(&self) -> Range<usize> {
        0..0
    }

    fn into_text(self) -> String {
        self
    }
}

/// Whether a file is checked as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Check,
    Own,
}

/// A file and its text, to tell where in it something is.
struct Source<'t> {
    file: &'t str,
    text: &'t str,
}

impl Source<'_> {
    fn error(&self, span: Option<Range<usize>>, what: String, hint: &str) -> CatalogueError {
        let line = span.map(|span| self.line(&span));
        CatalogueError { file: self.file.to_owned(), line, what, hint: hint.to_owned() }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.text.bytes().take(span.start).filter(|&byte| byte == b'\n').count() + 1
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct RawProvider<T> {
    id: T,
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    shape_only: bool,
    #[serde(default)]
    form: bool,
    links: Links,
    #[serde(default)]
    settings: Vec<Setting>,
    key: Vec<RawKey<T>>,
    #[serde(default)]
    send: Vec<Injection>,
    #[serde(default)]
    check: Vec<Check>,
    rotation: Option<Rotation>,
    #[serde(default)]
    odoo: OdooPlaces,
    #[serde(default)]
    django: DjangoPlaces,
}

impl<T: Text> RawProvider<T> {
    fn check(self, source: &Source<'_>, trust: Trust) -> Result<Provider, CatalogueError> {
        let span = self.id.span();
        let here = |what: String, hint: &str| source.error(Some(span.clone()), what, hint);
        let id = self.id.text().clone();
        if !is_id(&id, '-') {
            return Err(here(
                format!("`{id}` is not an id"),
                "use 2 to 32 of a-z, 0-9 and `-`, a letter first",
            ));
        }
        if self.key.is_empty() || self.key.len() > MAX_KEYS {
            return Err(here(format!("a provider has 1 to {MAX_KEYS} keys"), "add a [[key]]"));
        }
        let mut seen = HashSet::new();
        let mut keys = Vec::with_capacity(self.key.len());
        for raw in self.key {
            if !seen.insert(raw.id.text().clone()) {
                let what = format!("the key id `{}` is there twice", raw.id.text());
                return Err(source.error(Some(raw.id.span()), what, "give each [[key]] an id of its own"));
            }
            keys.push(raw.check(source, trust)?);
        }
        let provider = Provider {
            id,
            name: self.name,
            aliases: self.aliases,
            shape_only: self.shape_only,
            form: self.form,
            links: self.links,
            settings: self.settings,
            keys,
            send: self.send,
            checks: self.check,
            rotation: self.rotation,
            odoo: self.odoo,
            django: self.django,
            file: source.file.to_owned(),
        };
        if trust == Trust::Check {
            check_references(&provider).map_err(|(what, hint)| here(what, hint))?;
        }
        Ok(provider)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct RawKey<T> {
    id: T,
    kind: Kind,
    #[serde(default)]
    mode: Mode,
    field: String,
    #[serde(default)]
    prefixes: Vec<String>,
    pattern: T,
    #[serde(default)]
    min_entropy: f64,
    #[serde(default)]
    checksum: Checksum,
    sensitive: Option<bool>,
    severity: Option<Severity>,
    #[serde(default)]
    needs_context: bool,
    pair: Option<String>,
    #[serde(default)]
    variables: Vec<String>,
    #[serde(default)]
    published: Vec<String>,
    examples: Vec<String>,
    counter_examples: Vec<String>,
}

impl<T: Text> RawKey<T> {
    fn check(self, source: &Source<'_>, trust: Trust) -> Result<Key, CatalogueError> {
        let pattern = Pattern::new(self.pattern.text());
        if trust == Trust::Check {
            self.check_words().map_err(|(what, hint)| source.error(Some(self.id.span()), what, hint))?;
            pattern.check().map_err(|(what, hint)| source.error(Some(self.pattern.span()), what, hint))?;
        }
        let line = (trust == Trust::Check).then(|| source.line(&self.id.span()));
        let sensitive = self.sensitive.unwrap_or_else(|| self.kind.is_sensitive());
        let default_severity = if sensitive { Severity::High } else { Severity::Info };
        Ok(Key {
            id: self.id.into_text(),
            kind: self.kind,
            mode: self.mode,
            field: self.field,
            prefixes: self.prefixes,
            min_entropy: self.min_entropy,
            checksum: self.checksum,
            sensitive,
            severity: self.severity.unwrap_or(default_severity),
            needs_context: self.needs_context,
            pair: self.pair,
            variables: self.variables,
            examples: self.examples,
            counter_examples: self.counter_examples,
            published: self.published,
            pattern,
            line,
        })
    }

    fn check_words(&self) -> Result<(), (String, &'static str)> {
        let id = self.id.text();
        if !is_id(id, '_') || !is_id(&self.field, '_') {
            let what = format!("key id `{id}` or its field `{}` is not a name", self.field);
            return Err((what, "use 2 to 32 of a-z, 0-9 and `_`, a letter first"));
        }
        if !(0.0..=8.0).contains(&self.min_entropy) {
            return Err((
                format!("`min_entropy` of `{id}` is not between 0 and 8"),
                "bits per byte; 3.0 is usual",
            ));
        }
        if self.examples.is_empty() || self.counter_examples.is_empty() {
            return Err((
                format!("`{id}` has no examples or no counter_examples"),
                "they are the tests: add one each",
            ));
        }
        if self.needs_context && self.variables.is_empty() {
            let what = format!("`{id}` needs a context and lists no variables");
            return Err((what, "name the variables it lives in, or drop `needs_context`"));
        }
        if let Some(name) = self.variables.iter().find(|name| !is_variable(name)) {
            return Err((
                format!("`{name}` is not the name of a variable"),
                "use A-Z, 0-9 and `_`, a letter first",
            ));
        }
        if self.prefixes.iter().any(String::is_empty) {
            return Err((format!("`{id}` has an empty prefix"), "leave `prefixes` out"));
        }
        let insensitive =
            self.sensitive == Some(false) || (self.sensitive.is_none() && !self.kind.is_sensitive());
        if insensitive && self.severity.is_some_and(|severity| severity != Severity::Info) {
            return Err((
                format!("`{id}` is not secret but has a severity"),
                "drop `severity` or set `sensitive = true`",
            ));
        }
        Ok(())
    }
}

/// Checks names that point elsewhere in the file, and that every call has a source.
fn check_references(provider: &Provider) -> Result<(), (String, &'static str)> {
    let fields: HashSet<&str> = provider.keys.iter().map(|key| key.field.as_str()).collect();
    let mut names = fields.clone();
    names.extend(provider.keys.iter().flat_map(Key::part_names));
    names.extend(provider.settings.iter().map(|setting| setting.name.as_str()));

    let templates = provider
        .send
        .iter()
        .flat_map(|send| send.how.templates().chain([&send.base_url]).chain(send.test_base_url.as_ref()));
    let urls = provider.checks.iter().flat_map(|check| match &check.request {
        CheckRequest::TokenRequest {} => vec![],
        CheckRequest::Call { url, test_url, other_urls, other_test_urls, .. } => {
            [url].into_iter().chain(test_url).chain(other_urls).chain(other_test_urls).collect()
        }
    });
    for name in templates.chain(urls).flat_map(|template| template.names()) {
        if !names.contains(name) {
            return Err((
                format!("`{{{name}}}` is no field, setting or named part"),
                "fields, [[settings]] and (?P<name>…) can be used",
            ));
        }
    }
    let places: [&[Place]; 4] = [
        &provider.odoo.parameters,
        &provider.odoo.columns,
        &provider.django.settings,
        &provider.django.columns,
    ];
    let named = places.into_iter().flatten().map(|place| &place.field);
    if let Some(field) =
        named.chain(provider.checks.iter().map(|check| &check.field)).find(|f| !fields.contains(f.as_str()))
    {
        return Err((format!("no key has the field `{field}`"), "use the `field` of one of the [[key]]s"));
    }
    check_addresses(provider)
}

fn check_addresses(provider: &Provider) -> Result<(), (String, &'static str)> {
    let mut addresses = vec![&provider.links.docs];
    addresses.extend(&provider.links.keys);
    addresses.extend(provider.send.iter().map(|send| &send.source));
    addresses.extend(provider.checks.iter().map(|check| &check.source));
    addresses.extend(provider.rotation.iter().map(|rotation| &rotation.source));
    if let Some(address) = addresses.into_iter().find(|address| !address.starts_with("https://")) {
        return Err((
            format!("`{address}` is not the address of a page"),
            "every call names its documentation, https://…",
        ));
    }
    if provider.send.iter().any(|send| send.hosts.is_empty()) {
        return Err((
            "a [[send]] without hosts could send a key anywhere".into(),
            "list the hosts it may go to",
        ));
    }
    let members = provider.send.iter().filter_map(|send| match &send.how {
        Scheme::Json { members } => Some(members.keys()),
        _ => None,
    });
    if let Some(pointer) = members.flatten().find(|pointer| !pointer.starts_with('/')) {
        return Err((
            format!("`{pointer}` is no JSON pointer"),
            "it says where a member stands, from the top: `/merchant/key`",
        ));
    }
    // Where any host will do, whoever may write into what is scanned names his own.
    let is_open = |host: &&String| host.strip_prefix("*.").unwrap_or(host).contains('*');
    if let Some(host) = provider.send.iter().flat_map(|send| &send.hosts).find(is_open) {
        return Err((
            format!("`{host}` in `hosts` stands for hosts that are not the provider's"),
            "list the provider's hosts; `*.` may stand before a domain of his",
        ));
    }
    provider.checks.iter().try_for_each(check_answers)
}

/// Checks that the answers of a check can be told from each other.
fn check_answers(check: &Check) -> Result<(), (String, &'static str)> {
    let field = &check.field;
    if check.alive.is_empty() || check.dead.is_empty() {
        return Err((
            "a [[check]] needs answers for `alive` and for `dead`".into(),
            "list the HTTP statuses",
        ));
    }
    let is_told = |status: u16, says: &[Says]| says.iter().any(|says| says.is_about(status));
    let mut in_both = check.alive.iter().filter(|status| check.dead.contains(status));
    let untold = |status: &&u16| !is_told(**status, &check.alive_if) || !is_told(**status, &check.dead_if);
    if let Some(status) = in_both.find(untold) {
        return Err((
            format!("the [[check]] of `{field}` takes {status} for alive and for dead"),
            "say in `alive_if` and `dead_if` what the body tells",
        ));
    }
    let is_redirect = |status: &&u16| (300..400).contains(*status);
    if let Some(status) = check.alive.iter().chain(&check.dead).find(is_redirect) {
        return Err((
            format!("{status} in the [[check]] of `{field}` leads elsewhere and says nothing"),
            "no redirect is followed; leave it out",
        ));
    }
    let pointers = check.alive_if.iter().chain(&check.dead_if).map(|says| &says.at);
    if let Some(pointer) = pointers.into_iter().find(|pointer| !pointer.starts_with('/')) {
        return Err((
            format!("`{pointer}` is no JSON pointer"),
            "it begins with `/` (RFC 6901): `/error`, `/data/0/id`",
        ));
    }
    Ok(())
}

fn is_id(text: &str, joint: char) -> bool {
    (2..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == joint)
}

fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        && !text.contains("__")
}

/// The largest file of our own has 8 KB; more is a mistake or an attempt to fill memory.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// The largest provider of our own has 12.
const MAX_KEYS: usize = 64;
