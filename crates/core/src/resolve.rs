//! Where a value comes from: which places are looked at, in which order, and which one answers.
//!
//! [`plan`] lists the places, the caller looks (stopping early or not), [`resolve`] judges what was found. A place
//! that is down or refuses before there is an answer is an error that names it, never a silent step to the next
//! one. Values never pass through here; whether two are equal is for the caller to say.

use std::fmt;

use crate::names::{Company, Field, NameError, SecretPath, UpstreamName, VariableName, nearest};
use crate::words::words;

words! {
    /// What an environment variable may do for a secret.
    EnvOverride, "env_override":
    Allow = "allow" doc "It answers in place of the stored value.",
    Warn = "warn" doc "It answers, and where it differs a warning says so.",
    Deny = "deny" doc "It never answers; where it differs that is an error.",
}

/// A kind of place that may answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Variables of the program's environment, looked at where the program runs.
    Environment,
    /// The stored value that belongs to no company.
    Stored,
    /// The company's own stored value.
    Company,
    /// An upstream store.
    Upstream(UpstreamName),
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::Stored => f.write_str("stored"),
            Self::Company => f.write_str("company"),
            Self::Upstream(name) => write!(f, "upstream:{name}"),
        }
    }
}

/// The layers in the order they are asked; one that is left out is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(Vec<Layer>);

impl Order {
    /// Environment, stored, company, then the upstream stores as named.
    pub fn usual(upstreams: &[UpstreamName]) -> Self {
        let own = [Layer::Environment, Layer::Stored, Layer::Company];
        Self(own.into_iter().chain(upstreams.iter().cloned().map(Layer::Upstream)).collect())
    }

    /// Reads the list of the configuration: `environment`, `stored`, `company`, `upstream:NAME`, and `upstreams`
    /// for those not named by themselves.
    ///
    /// # Errors
    /// When a word is unknown, an upstream store is not configured, a layer stands twice, or there is none.
    pub fn parse<'a>(
        words: impl IntoIterator<Item = &'a str>,
        upstreams: &[UpstreamName],
    ) -> Result<Self, OrderError> {
        let words: Vec<&str> = words.into_iter().take(MAX_LAYERS + 1).collect();
        if words.is_empty() || words.len() > MAX_LAYERS {
            return Err(OrderError::Length);
        }
        let is_named =
            |name: &UpstreamName| words.iter().any(|word| word.strip_prefix(UPSTREAM) == Some(name.as_str()));
        let mut layers = Vec::new();
        for word in &words {
            let before = layers.len();
            if *word == "upstreams" {
                layers.extend(upstreams.iter().filter(|name| !is_named(name)).cloned().map(Layer::Upstream));
            } else {
                layers.push(parse_layer(word, upstreams)?);
            }
            if let Some(twice) = (before..layers.len()).find(|at| layers[..*at].contains(&layers[*at])) {
                return Err(OrderError::Twice { layer: layers[twice].to_string() });
            }
        }
        Ok(Self(layers))
    }

    /// The layers in order.
    pub fn layers(&self) -> &[Layer] {
        &self.0
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The secret.
    pub path: SecretPath,
    /// The field; none for the whole value.
    pub field: Option<Field>,
    /// The variables that may carry it, without a company, in order.
    pub variables: Vec<VariableName>,
    /// For which company.
    pub company: Option<Company>,
    /// What a variable may do.
    pub env_override: EnvOverride,
    /// Whether, with a company asked for, a variable without the company may answer too.
    pub unqualified_variable: bool,
}

impl Question {
    /// The variables that may answer, in order.
    ///
    /// # Errors
    /// When a variable's name with the company would be too long.
    pub fn variables_to_look_at(&self) -> Result<Vec<VariableName>, NameError> {
        let Some(company) = &self.company else {
            return Ok(self.variables.clone());
        };
        let mut names: Vec<VariableName> =
            self.variables.iter().map(|name| name.with_company(company)).collect::<Result<_, _>>()?;
        if self.unqualified_variable {
            names.extend(self.variables.iter().cloned());
        }
        Ok(names)
    }
}

/// One place to look.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A variable of the program's environment.
    Variable(VariableName),
    /// A stored value that belongs to no company.
    Stored {
        /// The secret.
        path: SecretPath,
        /// The field.
        field: Option<Field>,
    },
    /// A company's own stored value.
    Company {
        /// The company.
        company: Company,
        /// The secret.
        path: SecretPath,
        /// The field.
        field: Option<Field>,
    },
    /// A value in an upstream store.
    Upstream {
        /// The store.
        name: UpstreamName,
        /// The company.
        company: Option<Company>,
        /// The secret.
        path: SecretPath,
        /// The field.
        field: Option<Field>,
    },
}

impl Place {
    /// To which layer it belongs.
    pub fn layer(&self) -> Layer {
        match self {
            Self::Variable(_) => Layer::Environment,
            Self::Stored { .. } => Layer::Stored,
            Self::Company { .. } => Layer::Company,
            Self::Upstream { name, .. } => Layer::Upstream(name.clone()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, field) = match self {
            Self::Variable(name) => return write!(f, "variable `{name}`"),
            Self::Stored { path, field } => {
                f.write_str("stored ")?;
                (path, field)
            }
            Self::Company { company, path, field } => {
                write!(f, "company `{company}` ")?;
                (path, field)
            }
            Self::Upstream { name, path, field, .. } => {
                write!(f, "upstream `{name}` ")?;
                (path, field)
            }
        };
        match field {
            Some(field) => write!(f, "`{path}#{field}`"),
            None => write!(f, "`{path}`"),
        }
    }
}

/// The places to look, in order.
///
/// # Errors
/// When a variable's name with the company would be too long.
pub fn plan(order: &Order, question: &Question) -> Result<Vec<Place>, NameError> {
    let (path, field) = (&question.path, &question.field);
    let mut places = Vec::new();
    for layer in order.layers() {
        match (layer, &question.company) {
            (Layer::Environment, _) => {
                places.extend(question.variables_to_look_at()?.into_iter().map(Place::Variable));
            }
            (Layer::Stored, _) => places.push(Place::Stored { path: path.clone(), field: field.clone() }),
            (Layer::Company, None) => {}
            (Layer::Company, Some(company)) => places.push(Place::Company {
                company: company.clone(),
                path: path.clone(),
                field: field.clone(),
            }),
            (Layer::Upstream(name), company) => places.push(Place::Upstream {
                name: name.clone(),
                company: company.clone(),
                path: path.clone(),
                field: field.clone(),
            }),
        }
    }
    Ok(places)
}

/// What was found in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A value.
    Found {
        /// Its version, where there are versions.
        version: Option<u32>,
        /// For a variable: whether it equals what would answer without it; none when that is not known.
        same_as_next: Option<bool>,
    },
    /// Nothing.
    Absent,
    /// No answer.
    Down {
        /// Why; never a value.
        reason: String,
    },
    /// The caller may not look there.
    Refused,
    /// Nobody looked, because there was an answer before.
    NotAsked,
}

/// Judges what was found, place by place in the order of [`plan`].
pub fn resolve(question: &Question, findings: Vec<(Place, Finding)>) -> Resolution {
    let mut resolution = Resolution { steps: Vec::new(), winner: None, error: None };
    for (number, (place, finding)) in findings.into_iter().enumerate() {
        let is_decided = resolution.winner.is_some() || resolution.error.is_some();
        let verdict = if is_decided { Verdict::NotNeeded } else { judge(question, &place, &finding) };
        match &verdict {
            Verdict::Answers | Verdict::AnswersDifferently => resolution.winner = Some(number),
            Verdict::Fails(error) => resolution.error = Some(error.clone()),
            Verdict::Passes | Verdict::NotNeeded => {}
        }
        resolution.steps.push(Step { layer: place.layer(), looked_at: place.to_string(), finding, verdict });
    }
    resolution
}

/// Where a value comes from, with every step on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Every place, in order.
    pub steps: Vec<Step>,
    /// Which step answers; none when nothing was found, or there is an error.
    pub winner: Option<usize>,
    /// What stopped the search.
    pub error: Option<ResolveError>,
}

impl Resolution {
    /// The step that answers.
    ///
    /// # Errors
    /// When something stopped the search before there was an answer.
    pub fn answer(&self) -> Result<Option<&Step>, &ResolveError> {
        match &self.error {
            Some(error) => Err(error),
            None => Ok(self.winner.and_then(|number| self.steps.get(number))),
        }
    }

    /// Whether a variable answers although the stored value differs and the secret asks for a warning.
    pub fn warns(&self) -> bool {
        self.steps.iter().any(|step| step.verdict == Verdict::AnswersDifferently)
    }
}

/// One step on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The kind of place.
    pub layer: Layer,
    /// The place, for people.
    pub looked_at: String,
    /// What was found.
    pub finding: Finding,
    /// What follows from it.
    pub verdict: Verdict,
}

/// What follows from a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Answers,
    /// It answers, and people should know that it differs from what is stored (or may).
    AnswersDifferently,
    /// The search goes on.
    Passes,
    /// The search ends without an answer.
    Fails(ResolveError),
    /// The search had ended before.
    NotNeeded,
}

/// What stopped a search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A place did not answer, and what it holds would come before the rest.
    #[error("{place} is down: {reason}")]
    Down {
        /// Which.
        place: String,
        /// Why.
        reason: String,
    },
    /// A place may not be looked at, and what it holds would come before the rest.
    #[error("{place} may not be read")]
    Refused {
        /// Which.
        place: String,
    },
    /// A variable is set that must not be.
    #[error("{place} is set and differs from the stored value, which it may not replace; unset it")]
    OverrideDenied {
        /// Which.
        place: String,
    },
    /// A place was left out although nothing had answered.
    #[error("{place} was not looked at")]
    NotAsked {
        /// Which.
        place: String,
    },
}

/// What is wrong with a configured order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No layer or too many.
    #[error("resolution order names no layer or more than {MAX_LAYERS}")]
    Length,
    /// A layer that stands twice.
    #[error("resolution order names `{layer}` twice")]
    Twice {
        /// Which.
        layer: String,
    },
    /// A word that is not a layer.
    #[error("resolution order has an unknown word{}; allowed: `environment`, `stored`, `company`, `upstreams`, `upstream:NAME`", hint(.suggestion.as_deref()))]
    UnknownWord {
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// An upstream store that is not configured.
    #[error("resolution order names an upstream store that is not configured{}", hint(.suggestion.as_deref()))]
    UnknownUpstream {
        /// What may have been meant.
        suggestion: Option<String>,
    },
}

fn judge(question: &Question, place: &Place, finding: &Finding) -> Verdict {
    let place_text = || place.to_string();
    match (finding, place) {
        (Finding::Absent, _) => Verdict::Passes,
        (Finding::Down { reason }, _) => {
            Verdict::Fails(ResolveError::Down { place: place_text(), reason: reason.clone() })
        }
        (Finding::Refused, _) => Verdict::Fails(ResolveError::Refused { place: place_text() }),
        (Finding::NotAsked, _) => Verdict::Fails(ResolveError::NotAsked { place: place_text() }),
        (Finding::Found { same_as_next, .. }, Place::Variable(name)) => {
            judge_variable(question, name, *same_as_next)
                .unwrap_or_else(|| Verdict::Fails(ResolveError::OverrideDenied { place: place_text() }))
        }
        (Finding::Found { .. }, _) => Verdict::Answers,
    }
}

/// What a variable that is set leads to; none when it must not be set.
fn judge_variable(question: &Question, name: &VariableName, same: Option<bool>) -> Option<Verdict> {
    let may_answer = question.variables_to_look_at().is_ok_and(|names| names.contains(name));
    if !may_answer {
        return Some(Verdict::Passes);
    }
    match (question.env_override, same) {
        (EnvOverride::Allow, _) | (EnvOverride::Warn, Some(true)) => Some(Verdict::Answers),
        (EnvOverride::Warn, _) => Some(Verdict::AnswersDifferently),
        (EnvOverride::Deny, Some(true)) => Some(Verdict::Passes),
        (EnvOverride::Deny, _) => None,
    }
}

fn parse_layer(word: &str, upstreams: &[UpstreamName]) -> Result<Layer, OrderError> {
    if let Some(name) = word.strip_prefix(UPSTREAM) {
        let known = upstreams.iter().find(|known| known.as_str() == name);
        return known.cloned().map(Layer::Upstream).ok_or_else(|| OrderError::UnknownUpstream {
            suggestion: nearest(name, upstreams.iter().map(UpstreamName::as_str)).map(str::to_owned),
        });
    }
    match word {
        "environment" => Ok(Layer::Environment),
        "stored" => Ok(Layer::Stored),
        "company" => Ok(Layer::Company),
        _ => Err(OrderError::UnknownWord { suggestion: nearest(word, WORDS.into_iter()).map(str::to_owned) }),
    }
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default()
}

/// Most layers in an order: own ones and a handful of upstream stores.
const MAX_LAYERS: usize = 16;
const UPSTREAM: &str = "upstream:";
const WORDS: [&str; 4] = ["environment", "stored", "company", "upstreams"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn upstreams() -> Vec<UpstreamName> {
        ["aws", "vault"].map(|name| name.parse().unwrap()).to_vec()
    }

    fn question(company: Option<&str>, env_override: EnvOverride) -> Question {
        Question {
            path: "stripe".parse().unwrap(),
            field: Some("secret_key".parse().unwrap()),
            variables: vec!["STRIPE_API_KEY".parse().unwrap()],
            company: company.map(|company| company.parse().unwrap()),
            env_override,
            unqualified_variable: false,
        }
    }

    fn places(question: &Question) -> Vec<String> {
        let order = Order::usual(&upstreams());
        plan(&order, question).unwrap().iter().map(Place::to_string).collect()
    }

    #[test]
    fn the_usual_order() {
        assert_eq!(
            places(&question(Some("acme"), EnvOverride::Allow)),
            [
                "variable `STRIPE_API_KEY__ACME`",
                "stored `stripe#secret_key`",
                "company `acme` `stripe#secret_key`",
                "upstream `aws` `stripe#secret_key`",
                "upstream `vault` `stripe#secret_key`",
            ]
        );
        let unqualified =
            Question { unqualified_variable: true, ..question(Some("acme"), EnvOverride::Allow) };
        assert_eq!(
            places(&unqualified)[..2],
            ["variable `STRIPE_API_KEY__ACME`", "variable `STRIPE_API_KEY`"]
        );
        assert_eq!(places(&question(None, EnvOverride::Allow)).len(), 4);
    }

    #[test]
    fn configured_orders() {
        let check = |words: &[&str], expected: &[&str]| {
            let order = Order::parse(words.iter().copied(), &upstreams()).unwrap();
            assert_eq!(order.layers().iter().map(Layer::to_string).collect::<Vec<_>>(), expected);
        };
        check(&["company", "stored"], &["company", "stored"]);
        check(
            &["upstream:vault", "environment", "upstreams"],
            &["upstream:vault", "environment", "upstream:aws"],
        );
        let refuse =
            |words: &[&str]| Order::parse(words.iter().copied(), &upstreams()).unwrap_err().to_string();
        assert!(refuse(&["stroed"]).contains("did you mean `stored`"));
        assert!(refuse(&["upstream:valt"]).contains("did you mean `vault`"));
        assert!(refuse(&["stored", "stored"]).contains("twice"));
        assert!(refuse(&["upstream:aws", "upstream:aws"]).contains("twice"));
        assert!(refuse(&[]).contains("no layer"));
        assert!(refuse(&["stored"; 17]).contains("more than"));
    }

    fn found(same_as_next: Option<bool>) -> Finding {
        Finding::Found { version: Some(1), same_as_next }
    }

    fn run(question: &Question, findings: &[Finding]) -> Resolution {
        let places = plan(&Order::usual(&upstreams()), question).unwrap();
        resolve(question, places.into_iter().zip(findings.iter().cloned()).collect())
    }

    #[test]
    fn judgements() {
        let (absent, down) = (Finding::Absent, Finding::Down { reason: "timed out".into() });
        let check = |env_override, findings: &[Finding], expected: Result<Option<usize>, &str>| {
            let resolution = run(&question(Some("acme"), env_override), findings);
            let got = match &resolution.error {
                Some(error) => Err(error.to_string()),
                None => Ok(resolution.winner),
            };
            assert_eq!(got, expected.map_err(str::to_owned), "{findings:?}");
        };
        use EnvOverride::{Allow, Deny, Warn};
        check(Allow, &[found(Some(false)), found(None)], Ok(Some(0)));
        check(Allow, &[absent.clone(), found(None)], Ok(Some(1)));
        check(
            Allow,
            &[absent.clone(), absent.clone(), absent.clone(), absent.clone(), found(None)],
            Ok(Some(4)),
        );
        check(Allow, &[absent.clone(), absent.clone()], Ok(None));
        check(Allow, &[found(None), Finding::NotAsked, down.clone()], Ok(Some(0)));
        check(
            Allow,
            &[absent.clone(), down.clone(), found(None)],
            Err("stored `stripe#secret_key` is down: timed out"),
        );
        check(
            Allow,
            &[absent.clone(), absent.clone(), Finding::Refused, found(None)],
            Err("company `acme` `stripe#secret_key` may not be read"),
        );
        check(
            Allow,
            &[absent.clone(), Finding::NotAsked, found(None)],
            Err("stored `stripe#secret_key` was not looked at"),
        );
        check(Warn, &[found(Some(false)), found(None)], Ok(Some(0)));
        check(Deny, &[found(Some(true)), found(None)], Ok(Some(1)));
        check(Deny, &[absent, found(None)], Ok(Some(1)));
        for same in [Some(false), None] {
            check(
                Deny,
                &[found(same), found(None)],
                Err(
                    "variable `STRIPE_API_KEY__ACME` is set and differs from the stored value, which it may not replace; unset it",
                ),
            );
        }
    }

    #[test]
    fn warnings() {
        let warns =
            |env_override, same| run(&question(None, env_override), &[found(same), found(None)]).warns();
        assert!(warns(EnvOverride::Warn, Some(false)) && warns(EnvOverride::Warn, None));
        assert!(!warns(EnvOverride::Warn, Some(true)) && !warns(EnvOverride::Allow, Some(false)));
    }

    #[test]
    fn an_unqualified_variable_does_not_answer_for_a_company() {
        let question = question(Some("acme"), EnvOverride::Allow);
        let variable = Place::Variable("STRIPE_API_KEY".parse().unwrap());
        let resolution = resolve(&question, vec![(variable, found(None))]);
        assert_eq!((resolution.winner, &resolution.steps[0].verdict), (None, &Verdict::Passes));
    }

    fn any_finding() -> impl Strategy<Value = Finding> {
        prop_oneof![
            any::<Option<bool>>().prop_map(found),
            Just(Finding::Absent),
            Just(Finding::Down { reason: "x".into() }),
            Just(Finding::Refused),
            Just(Finding::NotAsked),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_is_down_or_refused_is_stepped_over(
            company in prop::option::of(Just("acme")),
            env_override in prop::sample::select(EnvOverride::ALL),
            findings in prop::collection::vec(any_finding(), 0..5),
        ) {
            let resolution = run(&question(company, env_override), &findings);
            prop_assert!(resolution.winner.is_none() || resolution.error.is_none());
            let end = resolution.winner.unwrap_or(resolution.steps.len());
            let is_gap = |step: &Step| !matches!(step.finding, Finding::Absent | Finding::Found { .. });
            let first_gap = resolution.steps[..end].iter().position(is_gap);
            prop_assert!(resolution.winner.is_none() || first_gap.is_none());
            if let Some(winner) = resolution.winner {
                let is_found = matches!(resolution.steps[winner].finding, Finding::Found { .. });
                prop_assert!(is_found);
                let by_variable = resolution.steps[winner].layer == Layer::Environment;
                prop_assert!(!(env_override == EnvOverride::Deny && by_variable));
            }
        }
    }
}
