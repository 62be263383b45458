//! `keymoat scan --check`: asks providers whether the keys that were found work.
//!
//! Nothing else of a scan asks a provider. A key goes to the hosts that its provider's file lists, over HTTPS, in a call
//! that changes nothing; it says before whom it asks; no redirect is followed; no host is asked about two keys at once, nor
//! more often than a few times a second. What to ask, and what an answer says, is `keymoat_detect::Question`'s to know.

mod call;
mod keep;
mod pace;
mod proxy;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keymoat_crypto::SecretBytes;
use keymoat_detect::{Catalogue, Key, Mode, Provider, Question, Request, RequestError, Verdict};
use keymoat_scan::Fingerprint;
use keymoat_scan::report::{Liveness, Report, Reported};

use crate::error::CliError;
use crate::output;
use crate::variables::Variables;
use call::{Reply, Way};
pub use keep::Kept;
use proxy::Proxy;

/// What a scan asks, and what it knows without asking.
pub struct Plan {
    asks: Vec<Ask>,
    /// Why the others are not asked about.
    known: HashMap<Id, Liveness>,
}

/// A value of a provider.
type Id = (String, Fingerprint);

/// One key to ask about.
struct Ask {
    id: Id,
    question: Question,
    mode: Mode,
    /// The key, the values that go along, and parts of them, by the names that templates have for them.
    values: Vec<(String, SecretBytes)>,
    /// Whether another value may be the one that goes along, so that a refusal proves nothing.
    is_unsure: bool,
}

impl Plan {
    /// What is asked about the findings of a report; what was kept of others is dropped.
    pub fn new(kept: Kept<'_>, catalogue: &Catalogue, report: &Report) -> Self {
        let mut kept = kept.into_values();
        let mut plan = Self { asks: Vec::new(), known: HashMap::new() };
        for finding in &report.findings {
            let Some(id) = id(finding) else { continue };
            if plan.known.contains_key(&id) || plan.asks.iter().any(|ask| ask.id == id) {
                continue;
            }
            match keep::ask(&id, finding, catalogue, &mut kept) {
                Ok(ask) => plan.asks.push(ask),
                Err(why) => drop(plan.known.insert(id, Liveness::Unknown { why })),
            }
        }
        plan
    }

    /// Asks, and tells the report. Before that it says whom.
    ///
    /// # Errors
    /// When TLS cannot be set up, or `HTTPS_PROXY` names no proxy.
    pub async fn carry_out(self, report: &mut Report, variables: &Variables) -> Result<(), CliError> {
        let known = self.answers(variables).await?;
        report.tell(|finding| {
            let nobody = || Liveness::Unknown { why: "its provider is not known".to_owned() };
            Some(id(finding).and_then(|id| known.get(&id).cloned()).unwrap_or_else(nobody))
        });
        Ok(())
    }

    /// Says whom it asks, and asks.
    async fn answers(self, variables: &Variables) -> Result<HashMap<Id, Liveness>, CliError> {
        let mut known = self.known;
        if self.asks.is_empty() {
            output::say("asks nobody: of no key that was found a check is known");
            return Ok(known);
        }
        let way = Arc::new(Way::new(variables)?);
        output::say(&announcement(&self.asks, way.proxy.as_ref()));
        let ask = move |request: Request| {
            let way = Arc::clone(&way);
            async move { call::send(&way, request).await }
        };
        known.extend(pace::ask_all(self.asks, ask, pace::pause).await);
        Ok(known)
    }
}

/// Asks the provider of one value that stands by itself, after saying whom.
///
/// # Errors
/// When TLS cannot be set up, or `HTTPS_PROXY` names no proxy.
pub async fn ask_about(
    provider: &Provider,
    key: &Key,
    value: &SecretBytes,
    variables: &Variables,
) -> Result<Liveness, CliError> {
    let id = (provider.id.clone(), Fingerprint::from_bytes([0; 32]));
    match keep::ask_alone(&id, provider, key, value) {
        Err(why) => Ok(Liveness::Unknown { why }),
        Ok(ask) => {
            let plan = Plan { asks: vec![ask], known: HashMap::new() };
            let mut answers = plan.answers(variables).await?;
            let nothing = || Liveness::Unknown { why: "it was not asked".to_owned() };
            Ok(answers.remove(&id).unwrap_or_else(nothing))
        }
    }
}

/// Who is asked, and about how many keys.
fn announcement(asks: &[Ask], proxy: Option<&Proxy>) -> String {
    let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
    let mut is_through_proxy = false;
    for ask in asks {
        // `keep` has written them before.
        let requests = ask.requests().unwrap_or_default();
        is_through_proxy |=
            proxy.is_some_and(|proxy| requests.iter().any(|request| proxy.is_for(&request.host)));
        let mut authorities: Vec<String> = requests.iter().map(Request::authority).collect();
        authorities.sort();
        authorities.dedup();
        authorities.into_iter().for_each(|authority| *hosts.entry(authority).or_default() += 1);
    }
    let said = hosts.iter().map(|(host, count)| match count {
        1 => format!("{host} (1 key)"),
        count => format!("{host} ({count} keys)"),
    });
    let through = match proxy.filter(|_| is_through_proxy) {
        Some(proxy) => format!(" through the proxy {}:{}", proxy.host, proxy.port),
        None => String::new(),
    };
    format!("asks {}{through}; nothing else is sent", said.collect::<Vec<_>>().join(", "))
}

impl Ask {
    fn requests(&self) -> Result<Vec<Request>, RequestError> {
        self.question.requests(self.mode, &|name, lend| {
            let value = self.values.iter().find(|(own, _)| own == name);
            // EXPOSE: the key is put into the request that asks its provider about it.
            value.into_iter().for_each(|(_, value)| value.expose(|value| lend(value)));
        })
    }

    /// What an answer says; nothing where the next address has to be asked.
    fn read(&self, reply: &Reply) -> Option<Liveness> {
        let header = |name: &str| Some(reply.headers.get(name)?.to_str().ok()?.to_owned());
        match self.question.verdict(reply.status, &header, &reply.body) {
            Verdict::Alive(account) => {
                let account = account.filter(|account| !self.is_in(account));
                Some(Liveness::Active { account: account.map(|text| Catalogue::builtin().hide_keys(&text)) })
            }
            Verdict::Dead => None,
            Verdict::Unclear => Some(Liveness::Unknown { why: said_by(reply.status) }),
        }
    }

    /// Whether a text from elsewhere repeats a secret of this key.
    fn is_in(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.values.first().is_some_and(|(_, value)| {
            // EXPOSE: what a provider calls an account is shown, and must not be the key.
            value.expose(|value| text.windows(value.len().max(1)).any(|part| part == value.as_slice()))
        })
    }
}

fn id(finding: &Reported) -> Option<Id> {
    let (provider, _) = finding.provider.as_ref()?;
    Some((provider.clone(), finding.value))
}

/// Why an answer says nothing of the key.
fn said_by(status: u16) -> String {
    match status {
        300..400 => format!("it answered {status}, which leads elsewhere; that is not followed"),
        TOO_MANY => "it answered 429: asked too often".to_owned(),
        500.. => format!("it answered {status}: it has trouble of its own"),
        _ => format!("it answered {status}, which says nothing of the key"),
    }
}

/// Too many requests (RFC 6585 §4).
const TOO_MANY: u16 = 429;
