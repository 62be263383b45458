//! The feed of what changed, and waiting for it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use keymoat_vault::{Caller, ChangeEvent, ChangePage};

use crate::AppState;
use crate::api::Answer;
use crate::api::secrets::limit_of;
use crate::context::SignedIn;
use crate::custody::Custodian;
use crate::params::Params;
use crate::problem::Problem;
use crate::serve::Stopping;
use crate::turn::Turn;
use crate::wire;

/// The changes after a number; with `wait_secs` the answer comes with the first, or when the time is over.
pub(crate) async fn changes(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    stopping: Option<Extension<Stopping>>,
    custodian: Option<Extension<Custodian>>,
    turn: Option<Extension<Turn>>,
    params: Params,
) -> Answer<wire::Changes> {
    let limit = limit_of(&params)?;
    let wait = params.quiet("wait_secs", "a number of seconds")?.unwrap_or(0);
    if wait > WAIT_SECS_MAX {
        return Err(Problem::malformed(format!("`wait_secs` in the query is more than {WAIT_SECS_MAX}")));
    }
    let newest = app.vault.counts().change;
    let Some(after) = params.quiet("after", "a number")? else {
        return Ok(Json(wire::Changes { changes: Vec::new(), next: newest }));
    };
    if after > newest {
        let ahead = "`after` is higher than the newest change: the vault is another one, or was put back";
        return Err(Problem::new(http::StatusCode::CONFLICT, "conflict", ahead)
            .hint("read everything again, and begin without `after`"));
    }
    let mut page = app.vault.changes(&caller, after, limit).await?;
    // Who waits takes nobody's turn; the little that is left to do afterwards needs none.
    turn.inspect(|turn| turn.give_up());
    let stop = async {
        match stopping {
            Some(Extension(Stopping(token))) => token.cancelled_owned().await,
            None => std::future::pending().await,
        }
    };
    let seal = async {
        match custodian {
            Some(Extension(custodian)) => custodian.closing.cancelled_owned().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = wait_for_one(&app, &caller, &mut page, limit) => outcome?,
        () = tokio::time::sleep(Duration::from_secs(wait)) => {}
        () = stop => {}
        () = seal => {}
    }
    Ok(Json(wire::Changes { changes: page.changes.into_iter().map(change).collect(), next: page.next }))
}

/// Goes on until there is something that the caller may see.
async fn wait_for_one(
    app: &AppState,
    caller: &Caller,
    page: &mut ChangePage,
    limit: usize,
) -> Result<(), Problem> {
    while page.changes.is_empty() {
        app.vault.wait_for_change(page.next).await;
        *page = app.vault.changes(caller, page.next, limit).await?;
    }
    Ok(())
}

fn change(event: ChangeEvent) -> wire::Change {
    wire::Change {
        seq: event.seq,
        environment: event.name.environment.to_string(),
        company: event.name.company.map(|company| company.to_string()),
        path: event.name.path.to_string(),
        version: event.version,
    }
}

/// Proxies give up on an answer after about so long.
const WAIT_SECS_MAX: u64 = 60;
