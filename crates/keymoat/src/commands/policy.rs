//! `keymoat policy`, and the short way of writing a rule that `grant` shares. Decides nothing: the vault does.

use std::io::Read as _;
use std::path::Path;

use clap::{Args, Subcommand};
use http::Method;
use jiff::Timestamp;
use keymoat_core::names::{AccountName, Company, Environment, PolicyName, nearest};
use keymoat_core::pattern::{CompanyPattern, PathPattern, ScopePattern};
use keymoat_core::policy::{Capability, Conditions, Effect, MAX_DOCUMENT_BYTES, Policy as Document, Rule};
use keymoat_server::wire::{Explain as WireExplain, Explanation, Place as WirePlace, Policy as WirePolicy};

use crate::Context;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};

/// Subcommands of `policy`.
#[derive(Debug, Clone, Subcommand)]
pub enum Policy {
    /// List policies.
    List,
    /// Write a policy's document to stdout, as TOML.
    Show {
        /// Its name.
        name: PolicyName,
    },
    /// Write a policy: from a document, or in short.
    Put(Put),
    /// Remove a policy that nobody holds.
    Remove {
        /// Its name.
        name: PolicyName,
    },
    /// Say what would be decided, and why; exit code 1 when it would be refused.
    Explain(Explain),
}

/// Flags of `policy put`.
#[derive(Debug, Clone, Args)]
pub struct Put {
    /// The document, TOML or JSON (`-` for stdin); with --allow the policy's name.
    #[arg(value_name = "FILE|-|NAME")]
    what: String,
    #[command(flatten)]
    short: Option<Short>,
    /// What it is for; in short only.
    #[arg(long, value_name = "TEXT", default_value = "", requires = "allow")]
    description: String,
}

/// A rule in short.
#[derive(Debug, Clone, Args)]
pub struct Short {
    /// What is allowed: list, inspect, match, reveal, use, write, rotate, delete, grant.
    #[arg(long, value_name = "CAPABILITY,…", value_delimiter = ',', required = false, requires = "on", value_parser = capability)]
    pub allow: Vec<Capability>,
    /// On what: `prod/stripe`, `prod/payments/**`, `*/stripe`, `sys/audit/**`.
    #[arg(long, value_name = "ENV/PATH", required = false, requires = "allow", value_parser = parse_place)]
    pub on: Vec<Place>,
}

/// Where a rule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    scope: ScopePattern,
    path: PathPattern,
}

/// Flags of `policy explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// For whom.
    account: AccountName,
    /// What: `reveal`, `list`, ….
    #[arg(value_parser = capability)]
    capability: Capability,
    /// On what: `prod/stripe`, `sys/audit`.
    resource: String,
}

impl Policy {
    /// Shows, writes or explains policies.
    ///
    /// # Errors
    /// When a document cannot be read; what the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        // The document is read before a vault is opened, so that a mistake in it costs nothing.
        let document = match self {
            Policy::Put(put) => Some(put.document(context.company()?)?),
            _ => None,
        };
        super::with_client(context, async |client: &Client| match self {
            Policy::List => list(context, client).await,
            Policy::Show { name } => show(context, &client.get(&url(name)).await?),
            Policy::Put(_) => match &document {
                Some(document) => {
                    let written = write(context, client, document).await?;
                    warn_of_unknown_places(client, document).await;
                    Ok(written)
                }
                None => Ok(0),
            },
            Policy::Remove { name } => {
                client.bytes(Method::DELETE, &url(name), None::<&()>).await?;
                output::say(&format!("removed the policy `{name}`"));
                Ok(0)
            }
            Policy::Explain(explain) => explain.ask(context, client).await,
        })
        .await
    }
}

impl Put {
    fn document(&self, company: Option<Company>) -> Result<Document, CliError> {
        match &self.short {
            Some(short) if !short.allow.is_empty() => Ok(Document {
                name: self.what.parse()?,
                description: self.description.clone(),
                rules: short.rules(company.as_ref()),
            }),
            _ if self.what == "-" => parse(&read_document(std::io::stdin().lock(), "stdin")?, "stdin"),
            _ => {
                let path = Path::new(&self.what);
                let file = std::fs::File::open(path).map_err(|e| {
                    CliError::file("read", path, &e).hint("to write a policy in short, say --allow and --on")
                })?;
                parse(&read_document(file, &self.what)?, &self.what)
            }
        }
    }
}

impl Short {
    /// One rule for each place; for the company alone, where one was asked for.
    pub fn rules(&self, company: Option<&Company>) -> Vec<Rule> {
        let companies = match company {
            Some(company) => company.as_str().parse::<CompanyPattern>(),
            None => "*".parse::<CompanyPattern>(),
        };
        let companies = vec![companies.expect("a company's name and the star are patterns")];
        let rule = |place: &Place| Rule {
            effect: Effect::Allow,
            capabilities: self.allow.clone(),
            environments: vec![place.scope.clone()],
            companies: companies.clone(),
            paths: vec![place.path.clone()],
            conditions: Conditions::default(),
        };
        self.on.iter().map(rule).collect()
    }
}

impl Explain {
    async fn ask(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        let body = WireExplain {
            account: self.account.to_string(),
            capability: self.capability.to_string(),
            resource: self.resource.clone(),
            company: context.company()?.map(|company| company.to_string()),
        };
        let explanation: Explanation =
            client.call(Method::POST, "/api/v1/policies/explain", Some(&body)).await?;
        let exit = if explanation.allowed { 0 } else { REFUSED };
        if context.global.format == Format::Json {
            output::json(&explanation)?;
            return Ok(exit);
        }
        let verdict = if explanation.allowed { "allowed" } else { "refused" };
        output::line(&format!(
            "{} {} {}: {verdict}: {}",
            explanation.account,
            self.capability,
            output::printable(&self.resource),
            output::printable(&explanation.why)
        ));
        if !explanation.rules.is_empty() {
            let rows = explanation
                .rules
                .iter()
                .map(|rule| vec![rule.rule.clone(), rule.effect.clone(), rule.matches.clone()]);
            output::table(&["rule", "effect", "matches"], rows);
        }
        Ok(exit)
    }
}

/// A policy may come before the places that it speaks of, but a slip of the pen should be seen.
async fn warn_of_unknown_places(client: &Client, document: &Document) {
    for (what, collection, named) in [
        (
            "environment",
            "environments",
            document.rules.iter().flat_map(named_environments).collect::<Vec<_>>(),
        ),
        ("company", "companies", document.rules.iter().flat_map(named_companies).collect()),
    ] {
        // Whoever may write policies may see these; where not, nothing is lost but the warning.
        let Ok(known) = client.get::<Vec<WirePlace>>(&format!("/api/v1/{collection}")).await else { return };
        for name in named.iter().filter(|name| known.iter().all(|place| place.name != **name)) {
            let near = nearest(name, known.iter().map(|place| place.name.as_str()));
            let next = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("`keymoat {what} add {name}` makes it"),
            };
            output::warn(&format!("there is no {what} `{name}` yet; {next}"));
        }
    }
}

/// The environments that a rule names; patterns and `sys` are none.
fn named_environments(rule: &Rule) -> Vec<String> {
    let texts = rule.environments.iter().map(ToString::to_string);
    texts.filter(|text| text.parse::<Environment>().is_ok()).collect()
}

fn named_companies(rule: &Rule) -> Vec<String> {
    let texts = rule.companies.iter().map(ToString::to_string);
    texts.filter(|text| text.parse::<Company>().is_ok()).collect()
}

/// Reads a capability's name.
pub fn capability(text: &str) -> Result<Capability, String> {
    text.parse::<Capability>().map_err(|e| e.to_string())
}

/// Reads `ENV/PATH`, both of them patterns.
fn parse_place(text: &str) -> Result<Place, String> {
    let (scope, path) =
        text.split_once('/').ok_or("write ENV/PATH, such as `prod/stripe`, or `prod/**` for all of it")?;
    Ok(Place {
        scope: scope.parse::<ScopePattern>().map_err(|e| e.to_string())?,
        path: path.parse::<PathPattern>().map_err(|e| e.to_string())?,
    })
}

/// The rules of a grant or a policy, in a line.
pub fn rules_text(rules: &[serde_json::Value]) -> String {
    rules.iter().map(rule_text).collect::<Vec<_>>().join("; ")
}

fn rule_text(rule: &serde_json::Value) -> String {
    let Ok(rule) = serde_json::from_value::<Rule>(rule.clone()) else { return rule.to_string() };
    let joined = |texts: Vec<String>| texts.join(",");
    let text = format!(
        "{} on {}/{}",
        joined(rule.capabilities.iter().map(ToString::to_string).collect()),
        joined(rule.environments.iter().map(ToString::to_string).collect()),
        joined(rule.paths.iter().map(ToString::to_string).collect()),
    );
    let companies: Vec<String> =
        rule.companies.iter().map(ToString::to_string).filter(|name| name != "*").collect();
    let companies = if companies.is_empty() { String::new() } else { format!(" for {}", joined(companies)) };
    let denies = if rule.effect == Effect::Deny { "not " } else { "" };
    let conditions = if rule.conditions.is_empty() { "" } else { " (conditions)" };
    format!("{denies}{text}{companies}{conditions}")
}

async fn list(context: &Context, client: &Client) -> Result<u8, CliError> {
    let policies: Vec<WirePolicy> = client.get("/api/v1/policies").await?;
    if context.global.format == Format::Json {
        output::json(&policies)?;
        return Ok(0);
    }
    let text = |policy: &WirePolicy, member: &str| {
        policy.policy.get(member).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let rows = policies.iter().map(|policy| {
        let rules = policy.policy.get("rules").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
        vec![text(policy, "name"), rules.to_string(), text(policy, "description"), written_text(policy)]
    });
    output::table(&["name", "rules", "for", "written"], rows);
    Ok(0)
}

fn show(context: &Context, policy: &WirePolicy) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(policy)?;
        return Ok(0);
    }
    let unreadable = |why: String| CliError::new(format!("the policy cannot be written as TOML: {why}"));
    let document: Document =
        serde_json::from_value(policy.policy.clone()).map_err(|e| unreadable(e.to_string()))?;
    let text = toml::to_string_pretty(&document).map_err(|e| unreadable(e.to_string()))?;
    output::bytes(text.as_bytes());
    output::say(&output::printable(&written_text(policy)));
    Ok(0)
}

/// When and by whom; the policies that Keymoat brings along were written by nobody.
fn written_text(policy: &WirePolicy) -> String {
    match policy.updated_at == Timestamp::UNIX_EPOCH {
        true => "built in".to_owned(),
        false => format!("{} by {}", super::time_text(policy.updated_at), policy.updated_by),
    }
}

async fn write(context: &Context, client: &Client, document: &Document) -> Result<u8, CliError> {
    let policy: WirePolicy = client.call(Method::PUT, &url(&document.name), Some(document)).await?;
    if context.global.format == Format::Json {
        output::json(&policy)?;
        return Ok(0);
    }
    output::say(&format!("wrote the policy `{}` with {} rule(s)", document.name, document.rules.len()));
    Ok(0)
}

fn read_document(from: impl std::io::Read, name: &str) -> Result<String, CliError> {
    let wrong = |why: String| {
        CliError::new(format!("cannot read the policy from {}: {why}", output::printable(name)))
    };
    let mut text = String::new();
    from.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(wrong(format!("it is longer than {} KiB", MAX_DOCUMENT_BYTES / 1024)));
    }
    Ok(text)
}

/// Reads a document: JSON when it begins with a brace, else TOML.
fn parse(text: &str, name: &str) -> Result<Document, CliError> {
    let wrong = |why: &str, place: String| {
        CliError::new(format!("the policy in {}{place} cannot be used: {why}", output::printable(name)))
            .hint("`keymoat policy show owner` shows how one is written")
    };
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|e| wrong(&e.to_string(), String::new()));
    }
    toml::from_str(text).map_err(|e| {
        let line =
            e.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
        wrong(e.message(), line.map_or_else(String::new, |line| format!(" (line {line})")))
    })
}

fn url(name: &PolicyName) -> String {
    format!("/api/v1/policies/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_as_written() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let place = parse_place(text).ok().map(|place| (place.scope.to_string(), place.path.to_string()));
            let expected = expected.map(|(scope, path)| (scope.to_owned(), path.to_owned()));
            assert_eq!(place, expected, "{text}");
        };
        check("prod/stripe", Some(("prod", "stripe")));
        check("prod/payments/**", Some(("prod", "payments/**")));
        check("*/stripe", Some(("*", "stripe")));
        check("sys/audit/**", Some(("sys", "audit/**")));
        check("prod", None);
        check("prod/", None);
        check("/stripe", None);
        check("Prod/stripe", None);
        check("prod/a/../b", None);
        check("", None);
    }

    #[test]
    fn documents_and_what_is_wrong_with_them() {
        let check = |text: &str, expected: Result<usize, &str>| match (parse(text, "it"), expected) {
            (Ok(document), Ok(rules)) => assert_eq!(document.rules.len(), rules, "{text}"),
            (Err(error), Err(says)) => assert!(error.message.contains(says), "{text}: {}", error.message),
            (outcome, _) => panic!("{text}: {outcome:?}"),
        };
        check("name = 'odoo'", Ok(0));
        check(
            "name='odoo'\n[[rules]]\ncapabilities=['reveal']\nenvironments=['prod']\npaths=['stripe']\n",
            Ok(1),
        );
        check(" \n{\"name\":\"odoo\",\"rules\":[]}", Ok(0));
        check("name='odoo'\n[[rules]]\ncapabilities=['revael']\n", Err("line 3"));
        check("name='odoo'\nrule=[]\n", Err("line 2"));
        check("{\"name\":\"odoo\",}", Err("line 1"));
        check("", Err("name"));
    }

    #[test]
    fn a_document_is_written_as_it_is_read() {
        for (_, text) in keymoat_core::policy::BUILT_IN {
            let document = parse(text, "it").unwrap();
            let written = toml::to_string_pretty(&document).unwrap();
            assert_eq!(parse(&written, "it").unwrap(), document, "{written}");
        }
    }

    #[test]
    fn rules_in_a_line() {
        let short = Short {
            allow: vec![Capability::Reveal, Capability::List],
            on: vec![parse_place("prod/stripe").unwrap(), parse_place("dev/**").unwrap()],
        };
        let rules = short.rules(Some(&"acme".parse().unwrap()));
        let values: Vec<_> = rules.iter().map(|rule| serde_json::to_value(rule).unwrap()).collect();
        assert_eq!(
            rules_text(&values),
            "reveal,list on prod/stripe for acme; reveal,list on dev/** for acme"
        );
    }

    proptest! {
        #[test]
        fn reading_a_document_is_total(text in "\\PC{0,200}") {
            let _ = parse(&text, "it");
            let _ = parse_place(&text);
        }
    }
}
