//! The values that are asked about, kept beside the report until then: only of keys whose provider has a check, and
//! only so many.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use keymoat_crypto::SecretBytes;
use keymoat_detect::{Catalogue, Engine, Key, Provider, Question, RuleId};
use keymoat_scan::report::Reported;
use keymoat_scan::{Fingerprint, Keeper, Seen};

use super::{Ask, Id};

/// What was kept so far.
pub struct Kept<'e> {
    engine: &'e Engine,
    values: Mutex<HashMap<(RuleId, Fingerprint), Value>>,
}

/// A key, and what goes along with it.
pub struct Value {
    key: Key,
    question: Question,
    /// The key first.
    values: Vec<(String, SecretBytes)>,
    /// What has to go along and was not seen near it.
    missing: Vec<String>,
    /// Whether more than one value stands near it that may go along.
    is_unsure: bool,
}

impl<'e> Kept<'e> {
    pub fn new(engine: &'e Engine) -> Self {
        Self { engine, values: Mutex::default() }
    }

    /// The values, by provider.
    pub fn into_values(self) -> HashMap<Id, Value> {
        let values = self.values.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut values: Vec<_> = values.into_iter().collect();
        // Of several kinds of one provider's keys that a value may be, always the same one is asked about.
        values.sort_by_key(|((rule, _), value)| {
            (std::cmp::Reverse(value.needed().len()), std::cmp::Reverse(*rule))
        });
        let owner =
            |rule| self.engine.rule(rule).provider.map(|provider| provider.id.clone()).unwrap_or_default();
        values.into_iter().map(|((rule, fingerprint), value)| ((owner(rule), fingerprint), value)).collect()
    }
}

impl fmt::Debug for Kept<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Keeper for Kept<'_> {
    fn seen(&self, seen: &Seen<'_>) {
        let rule = self.engine.rule(seen.rule);
        let (Some(provider), Some(key)) = (rule.provider, rule.key) else { return };
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = values.len() >= MAX_KEPT;
        let kept = match values.entry((seen.rule, seen.fingerprint)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(_) if is_full => return,
            std::collections::hash_map::Entry::Vacant(entry) => {
                let Ok(question) = Question::about(provider, key) else { return };
                entry.insert(Value::new(question, key, seen.value))
            }
        };
        let mut missing = std::mem::take(&mut kept.missing);
        missing.retain(|name| match provider.near(name, seen.text, &seen.at) {
            Some(near) => {
                kept.values.push((name.clone(), SecretBytes::from_slice(near.value)));
                kept.is_unsure |= !near.is_only;
                false
            }
            None => true,
        });
        kept.missing = missing;
    }
}

impl Value {
    fn new(question: Question, key: &Key, value: &[u8]) -> Self {
        let along = question.needs(key).into_iter().chain(question.goes_along());
        let missing = along.map(str::to_owned).collect();
        let mut values = vec![(key.field.clone(), SecretBytes::from_slice(value))];
        let parts = key
            .part_names()
            .filter_map(|name| Some((name.to_owned(), SecretBytes::from_slice(key.part(value, name)?))));
        values.extend(parts);
        Self { key: key.clone(), question, values, missing, is_unsure: false }
    }

    /// What it cannot be asked about without, and was not seen.
    fn needed(&self) -> Vec<&str> {
        let needs = self.question.needs(&self.key);
        self.missing.iter().map(String::as_str).filter(|name| needs.contains(name)).collect()
    }

    fn into_ask(self, id: &Id) -> Result<Ask, String> {
        let Self { key, question, values, is_unsure, .. } = self;
        let ask = Ask { id: id.clone(), question, mode: key.mode, values, is_unsure };
        match ask.requests() {
            Ok(_) => Ok(ask),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What is asked about a finding; else why nothing is.
pub fn ask(
    id: &Id,
    finding: &Reported,
    catalogue: &Catalogue,
    kept: &mut HashMap<Id, Value>,
) -> Result<Ask, String> {
    let Some(value) = kept.remove(id) else {
        return Err(why_not_kept(finding, catalogue));
    };
    let missing = value.needed();
    if !missing.is_empty() {
        return Err(format!("what goes along with it does not stand near it: {}", missing.join(", ")));
    }
    value.into_ask(id)
}

/// What is asked about a value that stands by itself; else why nothing is.
pub fn ask_alone(id: &Id, provider: &Provider, key: &Key, value: &SecretBytes) -> Result<Ask, String> {
    let question = Question::about(provider, key).map_err(|why| why.to_string())?;
    // EXPOSE: the value and the parts that its pattern names go into the request that asks its provider.
    let value = value.expose(|value| Value::new(question, key, value));
    let missing = value.needed();
    if !missing.is_empty() {
        let what = missing.join(", ");
        return Err(format!(
            "it is asked about together with {what}; `keymoat scan --check` looks for that near it"
        ));
    }
    value.into_ask(id)
}

fn why_not_kept(finding: &Reported, catalogue: &Catalogue) -> String {
    let named = finding.rule.split_once('/');
    let key = named.and_then(|(provider, key)| {
        let provider = catalogue.provider(provider)?;
        Some((provider, provider.key(key)?))
    });
    match key.map(|(provider, key)| Question::about(provider, key)) {
        None => "only its name says whose it is".to_owned(),
        Some(Err(why)) => why.to_string(),
        Some(Ok(_)) => format!("more than {MAX_KEPT} keys were found; this one was not kept"),
    }
}

/// Three minutes of asking one host, and at most a few megabytes; who has more keys to ask about asks for parts.
const MAX_KEPT: usize = 1_000;
