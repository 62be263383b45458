//! Where a value comes from, without it (`which`) and with it (`resolve`).

use axum::Json;
use axum::extract::State;
use keymoat_core::names::{Company, Environment, Field, SecretPath};
use keymoat_core::reference::{Reference, looks_like_reference};
use keymoat_core::resolve::Order;
use keymoat_vault::{Answer, Asked, LookedAt, Revealed, StepOutcome, Target};

use crate::AppState;
use crate::api;
use crate::body::Sent;
use crate::context::SignedIn;
use crate::convert::{self, as_invalid};
use crate::problem::Problem;
use crate::wire;

/// Where a value would come from.
pub(crate) async fn which(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(ask): Sent<wire::Ask>,
) -> api::Answer<wire::Answer> {
    let answer = app.vault.which(&caller, &asked(&ask)?).await?;
    Ok(Json(answered(answer, None)))
}

/// Where a value comes from, and the value.
pub(crate) async fn resolve(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Sent(ask): Sent<wire::Ask>,
) -> api::Answer<wire::Answer> {
    let (answer, revealed) = app.vault.resolve(&caller, &asked(&ask)?).await?;
    Ok(Json(answered(answer, revealed)))
}

fn asked(ask: &wire::Ask) -> Result<Asked, Problem> {
    let environment: Environment = ask.environment.parse().map_err(as_invalid)?;
    let company: Option<Company> = ask.company.as_deref().map(str::parse).transpose().map_err(as_invalid)?;
    if ask.variables_set.len() > VARIABLES_MAX {
        return Err(Problem::invalid(format!("`variables_set` has more than {VARIABLES_MAX} names")));
    }
    let variable = ask.variable.as_deref().map(str::parse).transpose().map_err(as_invalid)?;
    // Names that no variable of ours can have stand for none of ours.
    let variables_set = ask.variables_set.iter().filter_map(|name| name.parse().ok()).collect();
    let absolute = absolute(&ask.name);
    let order = match (ask.order.as_slice(), &absolute) {
        ([], None) => Order::usual(&[]),
        // An absolute reference names one place; only a variable may stand in front of it.
        ([], Some(reference)) => {
            let stored = if reference.company().is_some() { "company" } else { "stored" };
            Order::parse(["environment", stored], &[]).map_err(as_invalid)?
        }
        (words, _) => Order::parse(words.iter().map(String::as_str), &[]).map_err(as_invalid)?,
    };
    Ok(Asked {
        target: target(&ask.name, &environment, company.as_ref())?,
        environment,
        company,
        variable,
        variables_set,
        unqualified_variable: ask.unqualified_variable || absolute.is_some(),
        order,
    })
}

/// The reference that a name is, if it is one that says where it points.
fn absolute(name: &str) -> Option<Reference> {
    let reference = Reference::parse(name).ok().flatten()?;
    reference.scope.is_some().then_some(reference)
}

/// What a name stands for: a reference, `path#field`, or a variable.
///
/// A path has no upper-case letters and a variable usually nothing else, so what could be both is a variable only when
/// it has an upper-case letter or an underscore in front, as no path has.
fn target(name: &str, environment: &Environment, company: Option<&Company>) -> Result<Target, Problem> {
    if looks_like_reference(name) {
        let reference: Reference = name.parse().map_err(as_invalid)?;
        check_same_place(&reference, environment, company)?;
        return Ok(Target::Secret { path: reference.path, field: reference.field });
    }
    if let Some((path, field)) = name.split_once('#') {
        let path: SecretPath = path.parse().map_err(as_invalid)?;
        let field: Field = field.parse().map_err(as_invalid)?;
        return Ok(Target::Secret { path, field: Some(field) });
    }
    match name.parse::<SecretPath>() {
        Ok(path) => Ok(Target::Secret { path, field: None }),
        Err(no_path) => match name.parse() {
            Ok(variable) => Ok(Target::Variable(variable)),
            // What has a slash was meant as a path.
            Err(_) if name.contains('/') => Err(as_invalid(no_path)),
            Err(no_variable) => Err(as_invalid(no_variable)),
        },
    }
}

/// An absolute reference says where it points; asked for elsewhere, it would be a way around the place that was named.
fn check_same_place(
    reference: &Reference,
    environment: &Environment,
    company: Option<&Company>,
) -> Result<(), Problem> {
    let Some(scope) = &reference.scope else { return Ok(()) };
    if scope != environment {
        return Err(Problem::invalid(format!(
            "the reference points to `{scope}`, and `{environment}` was asked for"
        ))
        .hint(format!("ask in `{scope}`, or leave the environment out of the reference")));
    }
    if reference.company().is_some() && reference.company() != company {
        return Err(Problem::invalid("the reference points to another company than the one asked for")
            .hint("ask for the company that the reference names"));
    }
    Ok(())
}

fn answered(answer: Answer, revealed: Option<Revealed>) -> wire::Answer {
    wire::Answer {
        path: answer.path.to_string(),
        field: answer.field.map(|field| field.to_string()),
        steps: (1..).zip(answer.steps).map(step).collect(),
        winner: answer.winner.map(|at| at + 1),
        error: answer.error,
        warns: answer.warns,
        accounts: convert::names(&answer.accounts),
        revealed: revealed.map(convert::revealed),
    }
}

fn step((number, looked_at): (usize, LookedAt)) -> wire::Step {
    let (outcome, why, version) = match looked_at.outcome {
        StepOutcome::Answers { version } => ("answers", None, version),
        StepOutcome::NotNeeded => ("not_needed", None, None),
        StepOutcome::Passed => ("passed", None, None),
        StepOutcome::Absent => ("absent", None, None),
        StepOutcome::Fails(why) => ("fails", Some(why), None),
    };
    wire::Step {
        number,
        layer: looked_at.layer.to_string(),
        place: looked_at.place,
        variable: looked_at.variable.map(|name| name.to_string()),
        outcome: outcome.to_owned(),
        why,
        version,
        masked: looked_at.masked,
    }
}

/// More than any process has.
const VARIABLES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_stand_for() {
        #[track_caller]
        fn check(name: &str, expected: Result<&str, &str>) {
            let (prod, acme) = ("prod".parse().unwrap(), "acme".parse().unwrap());
            match (target(name, &prod, Some(&acme)), expected) {
                (Ok(Target::Variable(name)), Ok(text)) => assert_eq!(format!("${name}"), text),
                (Ok(Target::Secret { path, field }), Ok(text)) => {
                    assert_eq!(format!("{path}#{}", field.as_ref().map_or("", Field::as_str)), text);
                }
                (Err(problem), Err(says)) => {
                    assert!(problem.detail.contains(says), "{name}: {}", problem.detail)
                }
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
        }
        check("STRIPE_API_KEY", Ok("$STRIPE_API_KEY"));
        check("_PRIVATE", Ok("$_PRIVATE"));
        check("stripe", Ok("stripe#"));
        check("stripe#secret_key", Ok("stripe#secret_key"));
        check("payments/stripe", Ok("payments/stripe#"));
        check("keymoat:stripe#secret_key", Ok("stripe#secret_key"));
        check("keymoat://prod/stripe#secret_key", Ok("stripe#secret_key"));
        check("keymoat://prod/stripe?company=acme#secret_key", Ok("stripe#secret_key"));
        check("keymoat://prod/stripe?company=other#secret_key", Err("another company"));
        check("keymoat://test/stripe#secret_key", Err("points to `test`"));
        check("Payments/Stripe", Err("upper-case"));
        check("keymoat:", Err(""));
        check("a#", Err("field"));
        check("", Err("empty"));
    }
}
