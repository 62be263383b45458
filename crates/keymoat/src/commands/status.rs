//! `keymoat status`.

use keymoat_server::wire::{Status, WhoAmI};

use crate::Context;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};

/// Shows whether the vault works, and who the caller is to it.
///
/// # Errors
/// When the vault cannot be reached.
pub async fn status(context: &Context) -> Result<u8, CliError> {
    super::with_client(context, async |client: &Client| {
        let status: Status = client.get("/api/v1/status").await?;
        let who: Option<WhoAmI> = client.get("/api/v1/whoami").await.ok();
        let works = status.stopped.is_none() && !status.sealed;
        if context.global.format == Format::Json {
            output::json(&serde_json::json!({ "status": status, "you": who }))?;
            return Ok(if works { 0 } else { REFUSED });
        }
        output::line(&format!("vault     {}", status.instance));
        output::line(&format!("version   {}", status.version));
        let state = match (&status.stopped, status.sealed, client.is_in_process()) {
            (Some(why), true, _) => format!("sealed: {why}"),
            (Some(why), ..) => format!("stopped: {why}"),
            (None, true, _) => "sealed".to_owned(),
            (None, false, true) => "fine (no server is running; this command opened it)".to_owned(),
            (None, false, false) => "fine".to_owned(),
        };
        output::line(&format!("state     {state}"));
        if let Some(counts) = &status.counts {
            output::line(&format!(
                "holds     {} secrets in {} environments and {} companies; {} accounts, {} tokens, {} grants",
                counts.secrets, counts.environments, counts.companies, counts.accounts, counts.tokens, counts.grants
            ));
        }
        if let Some(who) = &who {
            output::line(&format!("you are   {} ({})", who.account, who.kind));
        }
        if status.clock_behind_secs > 0 {
            output::warn(&format!(
                "the clock is {} s behind what the vault has already seen; nothing that expired comes back, but set the clock",
                status.clock_behind_secs
            ));
        }
        Ok(if works { 0 } else { REFUSED })
    })
    .await
}
