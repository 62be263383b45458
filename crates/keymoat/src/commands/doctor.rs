//! `keymoat doctor`: what is unsafe in this set-up, and what to do about it. It looks and says; it changes nothing.
//!
//! Without a vault, or where the vault does not let it look, it checks what it can and says what it could not.

mod env_files;
mod files;
mod machine;
mod vault;

use serde::Serialize;

use crate::Context;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, Format};

/// Checks everything; exit code 1 when something is bad.
///
/// # Errors
/// When the findings cannot be written.
pub async fn doctor(context: &Context) -> Result<u8, CliError> {
    let mut findings = machine::check(context);
    findings.extend(files::check(context));
    findings.extend(env_files::check(context)?);
    findings.extend(check_vault(context).await);
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if context.global.format == Format::Json {
        output::json(&findings)?;
    } else {
        tell(context, &findings);
    }
    Ok(if worst == Level::Bad { FOUND_BAD } else { 0 })
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// How it is.
    level: Level,
    /// What was looked at.
    check: &'static str,
    /// What was found.
    says: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// How something is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warn,
    Bad,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Bad => "bad",
        }
    }
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, says: says.into(), todo: None }
    }

    fn warn(check: &'static str, says: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { level: Level::Warn, check, says: says.into(), todo: Some(todo.into()) }
    }

    fn bad(check: &'static str, says: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { level: Level::Bad, check, says: says.into(), todo: Some(todo.into()) }
    }
}

async fn check_vault(context: &Context) -> Vec<Finding> {
    let is_here = context.places.may_have_vault();
    if context.global.server.is_none() && !is_here {
        let says = format!("there is no vault in `{}`", context.places.data.display());
        return vec![Finding::warn(
            vault::CHECK,
            says,
            "`keymoat serve` makes one; --data names another place",
        )];
    }
    let client = match Client::connect(context).await {
        Ok(client) => client,
        Err(error) => {
            let todo = error.hint.clone().unwrap_or_else(|| "see above".to_owned());
            return vec![Finding::bad(vault::CHECK, format!("cannot be opened: {error}"), todo)];
        }
    };
    let findings = vault::check(context, &client).await;
    client.close().await;
    findings
}

fn tell(context: &Context, findings: &[Finding]) {
    for finding in findings {
        let says = output::printable(&finding.says);
        output::line(&format!("{:<5} {:<15} {says}", finding.level.as_str(), finding.check));
        if let Some(todo) = &finding.todo {
            let todo = crate::hint::complete(&output::printable(todo), &context.global);
            output::line(&format!("{:<21} -> {todo}", ""));
        }
    }
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    output::say(&format!(
        "{} bad, {} to look at, {} fine",
        count(Level::Bad),
        count(Level::Warn),
        count(Level::Ok)
    ));
}

const FOUND_BAD: u8 = 1;
