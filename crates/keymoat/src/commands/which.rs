//! `keymoat which`.

use clap::Args;
use http::Method;
use keymoat_core::names::VariableName;
use keymoat_detect::Catalogue;
use keymoat_server::wire::{Answer, Ask, Step};

use crate::Context;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};

/// Flags of `which`.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// A variable such as STRIPE_API_KEY, or PATH#FIELD.
    name: String,
    /// Let a variable without the company's name answer for the company.
    #[arg(long)]
    unqualified: bool,
    /// The order to look in: environment, stored, company.
    #[arg(long, value_delimiter = ',', value_name = "LAYER,…")]
    order: Vec<String>,
}

impl Which {
    /// Shows where a value would come from.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        if Catalogue::builtin().holds_a_key(&self.name) {
            return Err(CliError::new("this is a key, and a name was expected")
                .hint("`keymoat identify` says whose key it is, from stdin; a key on a command line is seen by others"));
        }
        let mut ask = Ask {
            name: self.name.clone(),
            environment: context.environment()?.to_string(),
            company: context.company()?.map(|company| company.to_string()),
            variable: None,
            variables_set: set_variables(&self.name, context),
            unqualified_variable: self.unqualified,
            order: self.order.clone(),
        };
        let client = Client::connect(context).await?;
        let answer = look(&client, &mut ask).await;
        client.close().await;
        let answer = answer?;
        if context.global.format == Format::Json {
            output::json(&answer)?;
        } else {
            show(&self.name, &ask.environment, &answer);
        }
        Ok(if answer.winner.is_some() { 0 } else { REFUSED })
    }
}

/// Which variables stand for a path is known only from the answer; where one of them is set, the answer is another.
async fn look(client: &Client, ask: &mut Ask) -> Result<Answer, CliError> {
    let answer: Answer = client.call(Method::POST, "/api/v1/which", Some(&*ask)).await?;
    let set = set_among(&answer);
    if set.iter().all(|name| ask.variables_set.contains(name)) {
        return Ok(answer);
    }
    ask.variables_set = set;
    client.call(Method::POST, "/api/v1/which", Some(&*ask)).await
}

fn show(name: &str, environment: &str, answer: &Answer) {
    let target = match &answer.field {
        Some(field) => format!("{}#{field}", answer.path),
        None => answer.path.clone(),
    };
    output::line(&format!("{} in {environment} is {target}", output::printable(name)));
    for step in &answer.steps {
        let mark = if answer.winner == Some(step.number) { "→" } else { " " };
        let found = outcome(step);
        output::line(&format!("{mark} {}. {:<12} {:<44} {found}", step.number, step.layer, step.place));
    }
    for account in &answer.accounts {
        output::line(&format!("  also stored: {account}"));
    }
    match (&answer.error, answer.winner) {
        (Some(error), _) => output::say(&format!("nothing answers: {error}")),
        (None, None) => output::say("nothing answers: it is in none of these places"),
        (None, Some(_)) if answer.warns => {
            output::warn("a variable of this environment stands in for the stored value");
        }
        (None, Some(_)) if shared_before_own(answer) => output::say(SHARED_FIRST),
        (None, Some(_)) => {}
    }
}

/// Whether the shared value answers although the company that was asked for has one of its own.
pub fn shared_before_own(answer: &Answer) -> bool {
    answer.winning_step().is_some_and(|step| step.layer == "stored")
        && answer.steps.iter().any(|step| step.layer == "company" && step.outcome == "not_needed")
}

/// A step's outcome in words.
pub fn outcome(step: &Step) -> String {
    let version = step.version.map(|number| format!("version {number}"));
    let known: Vec<&str> = version.iter().chain(&step.masked).map(String::as_str).collect();
    let known = known.join("  ");
    match step.outcome.as_str() {
        "answers" => format!("answers  {known}").trim_end().to_owned(),
        "not_needed" => format!("is there, not needed  {known}").trim_end().to_owned(),
        "passed" => "is set, but may not answer".to_owned(),
        "absent" => "nothing there".to_owned(),
        "fails" => format!("fails: {}", step.why.clone().unwrap_or_default()),
        other => other.to_owned(),
    }
}

/// Which of the variables that could answer are set here; their values stay here.
#[expect(clippy::disallowed_methods, reason = "the environment layer is looked at where the program runs")]
fn set_variables(name: &str, context: &Context) -> Vec<String> {
    let Ok(variable) = name.parse::<VariableName>() else { return Vec::new() };
    let company = context.company().ok().flatten();
    let qualified = company.and_then(|company| variable.with_company(&company).ok());
    let candidates = [Some(variable), qualified].into_iter().flatten();
    candidates.map(|name| name.to_string()).filter(|name| std::env::var_os(name).is_some()).collect()
}

/// Which of the variables that an answer looked at are set here.
#[expect(clippy::disallowed_methods, reason = "the environment layer is looked at where the program runs")]
fn set_among(answer: &Answer) -> Vec<String> {
    let names = answer.steps.iter().filter_map(|step| step.variable.clone());
    names.filter(|name| std::env::var_os(name).is_some()).collect()
}

/// Why a company's own value did not answer, and how it does.
pub const SHARED_FIRST: &str = "the company has a value of its own, and the shared one comes before it; `--order environment,company,stored` turns that round";
