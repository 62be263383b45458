//! Where a value comes from, and the value itself, in the order of `keymoat_core::resolve`.
//!
//! Variables are looked at where the program runs; the caller says which of them are set, never what they hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use keymoat_core::audit::{Action, AuditText, DecidedBy, ReasonCode};
use keymoat_core::names::{Company, Environment, Field, SecretPath, VariableName};
use keymoat_core::policy::{Capability, Decision};
use keymoat_core::resolve::{
    EnvOverride, Finding, Order, Place, Question, Resolution, ResolveError, Step, Verdict, plan, resolve,
};
use keymoat_store::StoreError;

use crate::desk::{Deed, Rights, secret_resource};
use crate::entity::{FieldFacts, Secret, SecretName};
use crate::receipt::Permit;
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
    /// The variable that the value is for, when the target is a secret.
    pub variable: Option<VariableName>,
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
    /// The variable, when the place is one.
    pub variable: Option<VariableName>,
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
        check_asked(asked)?;
        self.retry_stale(|| async {
            self.check_asked_place(caller, asked, Capability::Inspect, Action::Inspect).await?;
            let found = self.look_everywhere(caller, asked, Capability::Inspect)?;
            self.record_search(caller, asked, &found, Action::Inspect).await?;
            Ok(self.answer(caller, asked, found))
        })
        .await
    }

    /// Gives out the value that answers, with the steps that led to it. `None` when a variable of the caller's answers,
    /// or nothing does; the steps say which.
    ///
    /// # Errors
    /// As [`Vault::which`] and [`Vault::reveal`]; [`Code::SourceDown`] when a source that comes first does not answer.
    pub async fn resolve(
        &self,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<(Answer, Option<Revealed>), VaultError> {
        check_asked(asked)?;
        let found = self
            .retry_stale(|| async {
                self.check_asked_place(caller, asked, Capability::Reveal, Action::Reveal).await?;
                let found = self.look_everywhere(caller, asked, Capability::Reveal)?;
                // A stored value that answers is recorded when it is given out.
                if found.winner().is_none() {
                    self.record_search(caller, asked, &found, Action::Reveal).await?;
                }
                Ok(found)
            })
            .await?;
        if let Some(ResolveError::Down { .. }) = &found.resolution.error {
            let message = found.resolution.error.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(VaultError::new(Code::SourceDown, message).hint("`keymoat which` shows every step"));
        }
        let winner = found.winner().cloned();
        let answer = self.answer(caller, asked, found);
        let revealed = match winner {
            Some(name) => {
                Some(self.reveal(caller, &name, answer.field.as_ref(), &Wanted::default(), None).await?)
            }
            None => None,
        };
        Ok((answer, revealed))
    }

    /// Refuses an environment or a company that nobody made, as if a secret there had been asked for.
    async fn check_asked_place(
        &self,
        caller: &Caller,
        asked: &Asked,
        capability: Capability,
        action: Action,
    ) -> Result<(), VaultError> {
        let known = self.check_environment(caller, &asked.environment);
        let known =
            known.and(asked.company.as_ref().map_or(Ok(()), |company| self.check_company(caller, company)));
        let Err(error) = known else { return Ok(()) };
        let question = self.question(asked)?;
        let name = SecretName {
            environment: asked.environment.clone(),
            company: asked.company.clone(),
            path: question.path,
        };
        let permit = self.authorize(caller, capability, action, secret_resource(&name, None)).await?;
        Err(self.failed(&permit, action, error).await)
    }

    /// Looks in every place; what the caller may not look at is said to be refused, and nothing is on record yet.
    fn look_everywhere(
        &self,
        caller: &Caller,
        asked: &Asked,
        capability: Capability,
    ) -> Result<Search, VaultError> {
        let epoch = self.state(|state| state.epoch);
        let question = self.question(asked)?;
        let places = plan(&asked.order, &question)?;
        let mut findings: Vec<(Place, Finding)> = Vec::new();
        let mut decided = Vec::new();
        for place in places {
            let (finding, by) = self.look(caller, asked, &place, capability);
            findings.push((place, finding));
            decided.push(by);
        }
        let names = findings.iter().map(|(place, _)| stored_name(asked, place)).collect();
        let variables = findings.iter().map(|(place, _)| variable_name(place)).collect();
        let found = findings.iter().map(|(place, finding)| self.found(asked, place, finding)).collect();
        let resolution = resolve(&question, findings);
        Ok(Search { resolution, question, names, variables, found, decided, capability, epoch })
    }

    fn answer(&self, caller: &Caller, asked: &Asked, search: Search) -> Answer {
        let accounts = self.other_accounts(caller, asked, &search.question);
        answer_of(search, accounts)
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
        // Where the shared and the company's own say different things, the stricter holds.
        let said = self.stored(asked, &path).into_iter().map(|secret| secret.env_override);
        let env_override = said.max_by_key(|said| *said as u8).unwrap_or(EnvOverride::Warn);
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
        let catalogue = self.catalogue();
        let known = catalogue.for_variable(name.as_str());
        let usual = known
            .as_ref()
            .map(|known| Ok::<_, VaultError>((known.path().parse()?, known.key.field.parse()?)));
        let usual: Option<(SecretPath, Field)> = usual.transpose()?;
        let mut claims: BTreeSet<(SecretPath, String)> = self.state(|state| {
            let is_asked = |secret: &&Arc<Secret>| {
                secret.name.environment == asked.environment
                    && (secret.name.company.is_none() || secret.name.company == asked.company)
            };
            let tagged = state.with_variable_tag(&tag).filter(is_asked);
            tagged
                .map(|secret| (secret.name.path.clone(), secret.tags.get(&tag).cloned().unwrap_or_default()))
                .collect()
        });
        // Where the catalogue knows the variable, a secret of another provider's path does not take it over unseen.
        if let Some((path, field)) = &usual {
            let own = |claimed: &SecretPath| claimed.segments().next() == path.segments().next();
            let foreign = claims.iter().any(|(claimed, _)| !own(claimed));
            if foreign && !self.stored(asked, path).is_empty() {
                claims.insert((path.clone(), field.to_string()));
            }
        }
        if claims.len() > 1 {
            return Err(VaultError::conflict(format!(
                "{} secrets claim the variable `{name}`",
                claims.len()
            ))
            .hint("ask by path, `PATH#FIELD`, or take the tag from all but one"));
        }
        if let Some((path, field)) = claims.pop_first() {
            return Ok((path, if field.is_empty() { None } else { Some(field.parse()?) }));
        }
        if let Some((path, field)) = usual {
            return Ok((path, Some(field)));
        }
        let path = name.as_str().to_ascii_lowercase().parse::<SecretPath>().map_err(|_| {
            VaultError::not_found(format!("no secret is known for the variable `{name}`"))
                .hint("ask for it by path: `keymoat which PATH#FIELD`")
        })?;
        Ok((path, None))
    }

    /// The variables that stand for a secret: the one that asks and those that it was imported from, or, where none
    /// asks, those that the catalogue knows too.
    fn variables_of(&self, asked: &Asked, path: &SecretPath, field: Option<&Field>) -> Vec<VariableName> {
        let wanted = field.map_or("", Field::as_str);
        let stored = self.stored(asked, path);
        let tags =
            stored.iter().flat_map(|secret| &secret.tags).filter(|(_, value)| value.as_str() == wanted);
        let imported = tags.filter_map(|(tag, _)| tag.strip_prefix(VARIABLE_TAG)?.parse().ok());
        let known = match asked.variable {
            Some(_) => Vec::new(),
            None => self.catalogue_variables(path, field),
        };
        let mut variables: Vec<VariableName> = asked.variable.iter().cloned().collect();
        for name in imported.chain(known) {
            if !variables.contains(&name) {
                variables.push(name);
            }
        }
        variables
    }

    /// The variables that the catalogue says hold this field.
    fn catalogue_variables(&self, path: &SecretPath, field: Option<&Field>) -> Vec<VariableName> {
        let catalogue = self.catalogue();
        let owner = path.segments().next().and_then(|id| catalogue.provider(id));
        let keys = owner.into_iter().flat_map(|provider| &provider.keys);
        let names = keys.filter(|key| Some(key.field.as_str()) == field.map(Field::as_str));
        let names = names.flat_map(|key| &key.variables);
        let is_of_path =
            |name: &&String| catalogue.for_variable(name).is_some_and(|known| known.path() == path.as_str());
        names.filter(is_of_path).filter_map(|name| name.parse().ok()).collect()
    }

    /// The shared secret of that path and the company's own, as far as there are any.
    fn stored(&self, asked: &Asked, path: &SecretPath) -> Vec<Arc<Secret>> {
        let name = |company: Option<&Company>| SecretName {
            environment: asked.environment.clone(),
            company: company.cloned(),
            path: path.clone(),
        };
        self.state(|state| {
            let own = asked.company.as_ref().and_then(|company| state.secrets.get(&name(Some(company))));
            state.secrets.get(&name(None)).into_iter().chain(own).map(Arc::clone).collect()
        })
    }

    /// What is in a place, and the rule by which the caller may know.
    fn look(
        &self,
        caller: &Caller,
        asked: &Asked,
        place: &Place,
        capability: Capability,
    ) -> (Finding, Option<DecidedBy>) {
        let field = match place {
            Place::Variable(name) => {
                let finding = match asked.variables_set.contains(name) {
                    true => Finding::Found { version: None, same_as_next: None },
                    false => Finding::Absent,
                };
                return (finding, None);
            }
            Place::Upstream { name, .. } => {
                let reason = format!("no upstream store `{name}` is configured");
                return (Finding::Down { reason }, None);
            }
            Place::Stored { field, .. } | Place::Company { field, .. } => field.as_ref(),
        };
        let Some(name) = stored_name(asked, place) else { return (Finding::Absent, None) };
        let resource = secret_resource(&name, field);
        let rights = self.state(|state| Rights::of_caller(state, caller));
        // Giving out the value that answers is one use; looking at every place is none.
        let rights = if capability == Capability::Reveal { rights } else { rights.uncounted() };
        let Decision::Allowed { by } = rights.decide(&self.request(caller, capability, &resource)) else {
            return (Finding::Refused, None);
        };
        let finding = match self.current(&name, field) {
            Some((version, _)) => Finding::Found { version: Some(version), same_as_next: None },
            None => Finding::Absent,
        };
        (finding, Some(by))
    }

    /// The current version of a secret that has the field, with what may be shown of it.
    fn current(&self, name: &SecretName, field: Option<&Field>) -> Option<(u32, Option<String>)> {
        let secret = self.find(name).ok()?;
        let version = secret.versions.current()?;
        let fields: &[FieldFacts] =
            secret.facts.get(&version).map(|facts| &*facts.fields).unwrap_or_default();
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
        let (Place::Stored { field, .. } | Place::Company { field, .. }) = place else { return None };
        let name = stored_name(asked, place)?;
        let masked = self.current(&name, field.as_ref()).and_then(|(_, masked)| masked);
        Some((name, masked))
    }

    /// One record of the search: what answers, that nothing does, or that the caller may not know.
    async fn record_search(
        &self,
        caller: &Caller,
        asked: &Asked,
        search: &Search,
        action: Action,
    ) -> Result<(), VaultError> {
        let field = search.question.field.as_ref();
        if let Some(name) = search.refused() {
            // Deciding once more writes the refusal down and says it.
            let resource = secret_resource(name, field);
            return match self.authorize(caller, search.capability, action, resource.clone()).await {
                Err(error) => Err(error),
                Ok(permit) if permit.pass.spends.is_some() => Err(self.refuse_counted(&permit, action).await),
                Ok(_) => Err(StoreError::Stale.into()),
            };
        }
        let asked_for = SecretName {
            environment: asked.environment.clone(),
            company: asked.company.clone(),
            path: search.question.path.clone(),
        };
        let name = search.winner().unwrap_or(&asked_for);
        let resource = secret_resource(name, field);
        let deed = match (&search.resolution.error, search.resolution.winner) {
            (None, Some(_)) if search.winner().is_none() => {
                Deed::done(Action::Inspect, &resource).detail("answered_by", AuditText::new("environment"))
            }
            (None, Some(_)) => Deed::done(action, &resource),
            (None, None) => Deed::failed(action, &resource, ReasonCode::NotFound),
            (Some(ResolveError::OverrideDenied { .. }), _) => {
                Deed::failed(action, &resource, ReasonCode::OverrideDenied)
            }
            (Some(_), _) => Deed::failed(action, &resource, ReasonCode::SourceDown),
        };
        self.store().append(self.draft(caller, deed, search.decided_by()), Some(search.epoch)).await?;
        Ok(())
    }

    /// Refuses a question about many places to who has only a grant that counts single uses.
    async fn refuse_counted(&self, permit: &Permit, action: Action) -> VaultError {
        let deed = Deed::refused(action, &permit.resource, ReasonCode::ConditionFailed);
        let decided_by = Some(permit.decided_by.clone());
        if let Err(error) = self.record_refusal(&permit.caller, deed, decided_by).await {
            return error;
        }
        VaultError::new(
            Code::Refused,
            "a grant for a number of uses gives single secrets, not where one would come from",
        )
        .hint("ask for the secret itself: `keymoat get PATH`")
    }

    /// Other stored accounts of the same provider, as far as the caller may know of them.
    fn other_accounts(&self, caller: &Caller, asked: &Asked, question: &Question) -> Vec<SecretName> {
        let Some(provider) = question.path.as_str().split('/').next() else { return Vec::new() };
        let Ok(provider) = provider.parse::<SecretPath>() else { return Vec::new() };
        let names: Vec<SecretName> = self.state(|state| {
            let companies = std::iter::once(None).chain(asked.company.as_ref().map(Some));
            let names = companies.flat_map(|company| {
                let first = SecretName {
                    environment: asked.environment.clone(),
                    company: company.cloned(),
                    path: provider.clone(),
                };
                let beside = first.clone();
                state.secrets.range(first..).map(|(name, _)| name).take_while(move |name| {
                    name.environment == beside.environment
                        && name.company == beside.company
                        && name.path.as_str().starts_with(beside.path.as_str())
                })
            });
            let others = names.filter(|name| name.path.is_within(&provider) && name.path != question.path);
            others.take(ACCOUNTS_MAX).cloned().collect()
        });
        names
            .into_iter()
            .filter(|name| self.may_uncounted(caller, Capability::List, &secret_resource(name, None)))
            .collect()
    }
}

fn check_asked(asked: &Asked) -> Result<(), VaultError> {
    if asked.variables_set.len() > VARIABLES_MAX {
        return Err(VaultError::invalid(format!("at most {VARIABLES_MAX} variables can be named")));
    }
    Ok(())
}

/// What was found where.
struct Search {
    question: Question,
    resolution: Resolution,
    /// The stored secret that each place is about.
    names: Vec<Option<SecretName>>,
    /// The variable that each place is.
    variables: Vec<Option<VariableName>>,
    /// What was found there.
    found: Vec<Option<(SecretName, Option<String>)>>,
    /// The rule by which the caller may know of each place.
    decided: Vec<Option<DecidedBy>>,
    capability: Capability,
    epoch: u64,
}

impl Search {
    /// The stored secret that answers.
    fn winner(&self) -> Option<&SecretName> {
        self.found.get(self.resolution.winner?)?.as_ref().map(|(name, _)| name)
    }

    /// The rule that decided: of the place that answers, else of the last stored one that was looked at.
    fn decided_by(&self) -> Option<DecidedBy> {
        match self.resolution.winner {
            Some(winner) => self.decided.get(winner)?.clone(),
            None => self.decided.iter().flatten().last().cloned(),
        }
    }

    /// The secret that ended the search because the caller may not look at it.
    fn refused(&self) -> Option<&SecretName> {
        let is_refused = |step: &Step| matches!(step.verdict, Verdict::Fails(ResolveError::Refused { .. }));
        self.names.get(self.resolution.steps.iter().position(is_refused)?)?.as_ref()
    }
}

/// The stored secret that a place is about.
fn stored_name(asked: &Asked, place: &Place) -> Option<SecretName> {
    let (company, path) = match place {
        Place::Stored { path, .. } => (None, path),
        Place::Company { company, path, .. } => (Some(company.clone()), path),
        Place::Variable(_) | Place::Upstream { .. } => return None,
    };
    Some(SecretName { environment: asked.environment.clone(), company, path: path.clone() })
}

/// The variable that a place is.
fn variable_name(place: &Place) -> Option<VariableName> {
    match place {
        Place::Variable(name) => Some(name.clone()),
        Place::Stored { .. } | Place::Company { .. } | Place::Upstream { .. } => None,
    }
}

fn answer_of(search: Search, accounts: Vec<SecretName>) -> Answer {
    let Search { question, resolution, found, variables, .. } = search;
    let warns = resolution.warns();
    let error = resolution.error.as_ref().map(ToString::to_string);
    let steps = resolution.steps.into_iter().zip(found).zip(variables).map(|((step, found), variable)| {
        let outcome = outcome_of(&step);
        let (secret, masked) = found.map_or((None, None), |(name, masked)| (Some(name), masked));
        LookedAt { layer: step.layer, place: step.looked_at, outcome, masked, secret, variable }
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

/// Other accounts of a provider that are named beside an answer.
const ACCOUNTS_MAX: usize = 100;
/// Variables that one question can name.
const VARIABLES_MAX: usize = 1000;
pub(crate) const VARIABLE_TAG: &str = "variable.";
