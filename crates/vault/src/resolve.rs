//! Where a value comes from, and the value itself, in the order of `keymoat_core::resolve`.
//!
//! Variables are looked at where the program runs; the caller says which of them are set, never what they hold.

use std::sync::Arc;

use keymoat_core::audit::{Action, ReasonCode};
use keymoat_core::names::{Company, Environment, Field, SecretPath, VariableName};
use keymoat_core::policy::Capability;
use keymoat_core::resolve::{EnvOverride, Finding, Order, Place, Question, Resolution, Step, Verdict, plan, resolve};

use crate::desk::{Deed, secret_resource};
use crate::entity::{FieldFacts, Secret, SecretName};
use crate::state::Wanted;
use crate::{Caller, Code, Revealed, Vault, VaultError};

pub use keymoat_core::resolve::Layer;

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A variable, such as `STRIPE_API_KEY`.
    Variable(VariableName),
    /// A secret, and the field of it.
    Secret {
        /// The path.
        path: SecretPath,
        /// The field; none for the whole value.
        field: Option<Field>,
    },
}

/// A question of where a value comes from.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What is wanted.
    pub target: Target,
    /// In which environment.
    pub environment: Environment,
    /// For which company.
    pub company: Option<Company>,
    /// Variables that are set where the program runs.
    pub variables_set: Vec<VariableName>,
    /// Whether a variable without the company may answer when one is asked for.
    pub unqualified_variable: bool,
    /// The order to look in.
    pub order: Order,
}

/// Where a value comes from, without the value.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The path that was looked for.
    pub path: SecretPath,
    /// The field that was looked for.
    pub field: Option<Field>,
    /// Every place that was looked at.
    pub steps: Vec<LookedAt>,
    /// Which step answers.
    pub winner: Option<usize>,
    /// Why none does although the search did not end.
    pub error: Option<String>,
    /// Whether a variable answers although the secret asks for a warning.
    pub warns: bool,
    /// Other accounts of the same provider that are stored, side by side.
    pub accounts: Vec<SecretName>,
}

/// One place.
#[derive(Debug, Clone)]
pub struct LookedAt {
    /// Which kind.
    pub layer: Layer,
    /// The place, in words.
    pub place: String,
    /// What was found.
    pub outcome: StepOutcome,
    /// What may be shown of the value, when a stored one was found.
    pub masked: Option<String>,
    /// The stored secret, when one was found.
    pub secret: Option<SecretName>,
}

/// What was found in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// It answers.
    Answers {
        /// The version, where there is one.
        version: Option<u32>,
    },
    /// There is a value, but another place answered before.
    NotNeeded,
    /// There is a value, but it may not answer.
    Passed,
    /// There is nothing.
    Absent,
    /// It ends the search without an answer.
    Fails(String),
}

impl Vault {
    /// Says where a value would come from, every step, without showing it.
    ///
    /// # Errors
    /// [`Code::NotFound`] for an unknown environment or company; [`Code::Refused`] when the caller may not inspect what
    /// answers.
    pub async fn which(&self, caller: &Caller, asked: &Asked) -> Result<Answer, VaultError> {
        self.answer(caller, asked, Capability::Inspect, Action::Inspect).await
    }

    /// Gives out the value that answers, with the steps that led to it. `None` when a variable of the caller's answers,
    /// or nothing does; the steps say which.
    ///
    /// # Errors
    /// As [`Vault::which`] and [`Vault::reveal`].
    pub async fn resolve(&self, caller: &Caller, asked: &Asked) -> Result<(Answer, Option<Revealed>), VaultError> {
        let answer = self.answer(caller, asked, Capability::Reveal, Action::Reveal).await?;
        let winner = answer.winner.and_then(|number| answer.steps.get(number)).and_then(|step| step.secret.clone());
        let revealed = match winner {
            Some(name) => {
                Some(self.reveal(caller, &name, answer.field.as_ref(), &Wanted::default(), None).await?)
            }
            None => None,
        };
        Ok((answer, revealed))
    }

    async fn answer(
        &self,
        caller: &Caller,
        asked: &Asked,
        capability: Capability,
        action: Action,
    ) -> Result<Answer, VaultError> {
        self.check_environment(&asked.environment)?;
        asked.company.as_ref().map_or(Ok(()), |company| self.check_company(company))?;
        let question = self.question(asked)?;
        let places = plan(&asked.order, &question)?;
        let mut findings = Vec::new();
        for place in places {
            let finding = self.look(caller, asked, &place, capability, action).await?;
            findings.push((place, finding));
        }
        let found: Vec<Option<(SecretName, Option<String>)>> =
            findings.iter().map(|(place, finding)| self.found(asked, place, finding)).collect();
        let resolution = resolve(&question, findings);
        if capability == Capability::Inspect {
            self.record_which(caller, asked, &question, &resolution).await?;
        }
        let accounts = self.other_accounts(caller, asked, &question);
        Ok(answer_of(question, resolution, found, accounts))
    }

    /// What is looked for: a variable stands for the secret that was imported from it, or for what the catalogue says.
    fn question(&self, asked: &Asked) -> Result<Question, VaultError> {
        let (path, field, variables) = match &asked.target {
            Target::Variable(name) => {
                let (path, field) = self.variable_target(asked, name)?;
                (path, field, vec![name.clone()])
            }
            Target::Secret { path, field } => {
                let variables = self.variables_of(asked, path, field.as_ref());
                (path.clone(), field.clone(), variables)
            }
        };
        let stored = self.stored(asked, &path);
        let env_override = stored.map_or(EnvOverride::Warn, |secret| secret.env_override);
        Ok(Question {
            path,
            field,
            variables,
            company: asked.company.clone(),
            env_override,
            unqualified_variable: asked.unqualified_variable,
        })
    }

    fn variable_target(
        &self,
        asked: &Asked,
        name: &VariableName,
    ) -> Result<(SecretPath, Option<Field>), VaultError> {
        let tag = variable_tag(name);
        let imported = self.state(|state| {
            let secrets = state.secrets.values().filter(|secret| secret.name.environment == asked.environment);
            let mut tagged = secrets.filter(|secret| secret.tags.contains_key(&tag));
            tagged.next().map(|secret| (secret.name.path.clone(), secret.tags.get(&tag).cloned().unwrap_or_default()))
        });
        if let Some((path, field)) = imported {
            return Ok((path, if field.is_empty() { None } else { Some(field.parse()?) }));
        }
        if let Some(known) = self.catalogue().for_variable(name.as_str()) {
            return Ok((known.path().parse()?, Some(known.key.field.parse()?)));
        }
        let path = name.as_str().to_ascii_lowercase().parse::<SecretPath>().map_err(|_| {
            VaultError::not_found(format!("no secret is known for the variable `{name}`"))
                .hint("ask for it by path: `keymoat which PATH#FIELD`")
        })?;
        Ok((path, None))
    }

    /// The variables that stand for a secret: those that it was imported from.
    fn variables_of(&self, asked: &Asked, path: &SecretPath, field: Option<&Field>) -> Vec<VariableName> {
        let Some(secret) = self.stored(asked, path) else { return Vec::new() };
        let wanted = field.map_or("", Field::as_str);
        let tags = secret.tags.iter().filter(|(_, value)| value.as_str() == wanted);
        tags.filter_map(|(tag, _)| tag.strip_prefix(VARIABLE_TAG)?.parse().ok()).collect()
    }

    fn stored(&self, asked: &Asked, path: &SecretPath) -> Option<Arc<Secret>> {
        let name = |company: Option<&Company>| SecretName {
            environment: asked.environment.clone(),
            company: company.cloned(),
            path: path.clone(),
        };
        self.state(|state| {
            let own = asked.company.as_ref().and_then(|company| state.secrets.get(&name(Some(company))));
            state.secrets.get(&name(None)).or(own).map(Arc::clone)
        })
    }

    async fn look(
        &self,
        caller: &Caller,
        asked: &Asked,
        place: &Place,
        capability: Capability,
        action: Action,
    ) -> Result<Finding, VaultError> {
        let (company, path, field) = match place {
            Place::Variable(name) => {
                return Ok(match asked.variables_set.contains(name) {
                    true => Finding::Found { version: None, same_as_next: None },
                    false => Finding::Absent,
                });
            }
            Place::Upstream { name, .. } => {
                return Ok(Finding::Down { reason: format!("no upstream store `{name}` is configured") });
            }
            Place::Stored { path, field } => (None, path, field),
            Place::Company { company, path, field } => (Some(company.clone()), path, field),
        };
        let name = SecretName { environment: asked.environment.clone(), company, path: path.clone() };
        let resource = secret_resource(&name, field.as_ref());
        if !self.may(caller, capability, &resource) {
            // Deciding once more writes the refusal down.
            return match self.authorize(caller, capability, action, resource).await {
                Err(error) if error.code != Code::Refused => Err(error),
                _ => Ok(Finding::Refused),
            };
        }
        Ok(match self.current(&name, field.as_ref()) {
            Some((version, _)) => Finding::Found { version: Some(version), same_as_next: None },
            None => Finding::Absent,
        })
    }

    /// The current version of a secret that has the field, with what may be shown of it.
    fn current(&self, name: &SecretName, field: Option<&Field>) -> Option<(u32, Option<String>)> {
        let secret = self.find(name).ok()?;
        let version = secret.versions.current()?;
        let fields: &[FieldFacts] = secret.facts.get(&version).map(|facts| facts.fields.as_slice()).unwrap_or_default();
        match field {
            None => {
                let whole = fields.iter().find(|facts| facts.field.is_none());
                Some((version, whole.map(|facts| facts.masked.clone())))
            }
            Some(field) => {
                let facts = fields.iter().find(|facts| facts.field.as_ref() == Some(field))?;
                Some((version, Some(facts.masked.clone())))
            }
        }
    }

    fn found(&self, asked: &Asked, place: &Place, finding: &Finding) -> Option<(SecretName, Option<String>)> {
        if !matches!(finding, Finding::Found { .. }) {
            return None;
        }
        let (company, path, field) = match place {
            Place::Stored { path, field } => (None, path, field),
            Place::Company { company, path, field } => (Some(company.clone()), path, field),
            Place::Variable(_) | Place::Upstream { .. } => return None,
        };
        let name = SecretName { environment: asked.environment.clone(), company, path: path.clone() };
        let masked = self.current(&name, field.as_ref()).and_then(|(_, masked)| masked);
        Some((name, masked))
    }

    async fn record_which(
        &self,
        caller: &Caller,
        asked: &Asked,
        question: &Question,
        resolution: &Resolution,
    ) -> Result<(), VaultError> {
        let name = SecretName {
            environment: asked.environment.clone(),
            company: asked.company.clone(),
            path: question.path.clone(),
        };
        let resource = secret_resource(&name, question.field.as_ref());
        let deed = match resolution.winner {
            Some(_) => Deed::done(Action::Inspect, &resource),
            None => Deed::failed(Action::Inspect, &resource, ReasonCode::NotFound),
        };
        self.store().append(self.draft(caller, deed, None), None).await?;
        Ok(())
    }

    /// Other stored accounts of the same provider, as far as the caller may know of them.
    fn other_accounts(&self, caller: &Caller, asked: &Asked, question: &Question) -> Vec<SecretName> {
        let Some(provider) = question.path.as_str().split('/').next() else { return Vec::new() };
        let Ok(provider) = provider.parse::<SecretPath>() else { return Vec::new() };
        let names: Vec<SecretName> = self.state(|state| {
            let secrets = state.secrets.keys().filter(|name| name.environment == asked.environment);
            secrets.filter(|name| name.path.is_within(&provider) && name.path != question.path).cloned().collect()
        });
        names.into_iter().filter(|name| self.may(caller, Capability::List, &secret_resource(name, None))).collect()
    }
}

fn answer_of(
    question: Question,
    resolution: Resolution,
    found: Vec<Option<(SecretName, Option<String>)>>,
    accounts: Vec<SecretName>,
) -> Answer {
    let warns = resolution.warns();
    let error = resolution.error.as_ref().map(ToString::to_string);
    let steps = resolution.steps.into_iter().zip(found).map(|(step, found)| {
        let outcome = outcome_of(&step);
        let (secret, masked) = found.map_or((None, None), |(name, masked)| (Some(name), masked));
        LookedAt { layer: step.layer, place: step.looked_at, outcome, masked, secret }
    });
    Answer {
        path: question.path,
        field: question.field,
        steps: steps.collect(),
        winner: resolution.winner,
        error,
        warns,
        accounts,
    }
}

fn outcome_of(step: &Step) -> StepOutcome {
    match (&step.verdict, &step.finding) {
        (Verdict::Answers | Verdict::AnswersDifferently, Finding::Found { version, .. }) => {
            StepOutcome::Answers { version: *version }
        }
        (Verdict::Fails(error), _) => StepOutcome::Fails(error.to_string()),
        (Verdict::NotNeeded, Finding::Found { .. }) => StepOutcome::NotNeeded,
        (Verdict::Passes, Finding::Found { .. }) => StepOutcome::Passed,
        _ => StepOutcome::Absent,
    }
}

/// The tag that remembers which variable a secret was imported from; its value is the field.
pub fn variable_tag(name: &VariableName) -> String {
    format!("{VARIABLE_TAG}{name}")
}

const VARIABLE_TAG: &str = "variable.";
