//! What the vault says of itself: clock, checkpoint, ways to open it, tokens that last too long, owners.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use keymoat_server::wire::{Account, DatabaseStatus, Keys, Status, StatusCounts, Token};
use keymoat_vault::Clock as _;

use super::Finding;
use crate::Context;
use crate::certificate::END_IS_NEAR;
use crate::client::Client;
use crate::clock::SystemClock;
use crate::commands::{account, rekey, token};
use crate::error::CliError;

/// What findings about the vault as a whole are called.
pub(super) const CHECK: &str = "vault";

/// Checks a vault that could be reached.
pub(super) async fn check(context: &Context, client: &Client) -> Vec<Finding> {
    let status: Status = match client.get("/api/v1/status").await {
        Ok(status) => status,
        Err(error) => return vec![Finding::bad(CHECK, format!("does not answer: {error}"), "see its log")],
    };
    let mut findings = vec![works(&status), clock(&status)];
    findings.extend(status.counts.as_ref().map(sign_in_codes));
    if client.is_local() {
        findings.push(checkpoint(context, &status));
        findings.extend(status.database.as_ref().map(database));
    }
    findings.extend(certificate(client.bytes(Method::GET, "/readyz", None::<&()>).await, SystemClock.now()));
    findings.extend(asked("key slots", rekey::keys(client).await, |keys| slots(&keys)));
    findings.extend(asked("tokens", token::all(client, None).await, |tokens| {
        tokens_that_last(&tokens, SystemClock.now())
    }));
    findings.extend(asked("owners", account::all(client).await, |accounts| owners(&accounts)));
    findings
}

/// What an answer says; that it could not be had, where it could not.
fn asked<T>(
    check: &'static str,
    answer: Result<T, CliError>,
    judge: impl FnOnce(T) -> Finding,
) -> Option<Finding> {
    match answer {
        Ok(answer) => Some(judge(answer)),
        Err(error) => {
            let todo = "let somebody look who may, such as the owner of the data directory";
            Some(Finding::warn(check, format!("could not be looked at: {error}"), todo))
        }
    }
}

fn works(status: &Status) -> Finding {
    match (&status.stopped, status.sealed) {
        (Some(why), _) => {
            Finding::bad(CHECK, format!("has stopped itself: {why}"), "mend that; it goes on by itself")
        }
        (None, true) => Finding::bad(CHECK, "is sealed", "`keymoat unseal` opens it with the master key"),
        (None, false) => Finding::ok(CHECK, format!("{} works", status.instance)),
    }
}

fn clock(status: &Status) -> Finding {
    match status.clock_behind_secs {
        ..=CLOCK_TOLERANCE_SECS => Finding::ok("clock", "is not behind the audit log"),
        behind => Finding::bad(
            "clock",
            format!("is {behind} seconds behind the newest record of the audit log"),
            "set it, and keep it set (NTP); until then nothing that has ended comes back",
        ),
    }
}

/// What the server says of the certificate that it shows; nothing when it shows none.
fn certificate(said: Result<Bytes, CliError>, now: Timestamp) -> Option<Finding> {
    const CHECK: &str = "certificate";
    let said = String::from_utf8_lossy(&said.ok()?).into_owned();
    let ends: Timestamp =
        said.lines().find_map(|line| line.strip_prefix("certificate: ends ")?.parse().ok())?;
    if said.contains("certificate: the new one is not taken") {
        let says = "there is a new one that the server could not take, and the one before is in use";
        return Some(Finding::bad(CHECK, says, "its log says why; it is tried again when the files change"));
    }
    let renew = "put a newer one in its place; the server takes it by itself";
    Some(match ends.duration_since(now) {
        left if left <= SignedDuration::ZERO => {
            Finding::bad(CHECK, format!("ended at {ends}: clients refuse it"), renew)
        }
        left if left <= END_IS_NEAR => Finding::warn(CHECK, format!("ends at {ends}"), renew),
        _ => Finding::ok(CHECK, format!("is good until {ends}")),
    })
}

fn sign_in_codes(counts: &StatusCounts) -> Finding {
    match counts.sign_in_codes {
        0 => Finding::ok("sign-in codes", "none is waiting to be used"),
        waiting => Finding::warn(
            "sign-in codes",
            format!("{waiting} can still be used, by whoever has seen it"),
            "use it with `keymoat login`, or let it end: it lasts 30 minutes",
        ),
    }
}

/// Whether what the server says is committed is there after a cut of the power, and after the server is gone.
fn database(database: &DatabaseStatus) -> Finding {
    const CHECK: &str = "database";
    let DatabaseStatus { address, version, standbys, waited_for, waits_for, .. } = database;
    let what = format!("PostgreSQL {version} at `{address}`");
    let waits = matches!(waits_for.as_str(), "on" | "remote_apply" | "remote_write") && *waited_for > 0;
    if !database.syncs {
        return Finding::bad(
            CHECK,
            format!("{what} does not sync what it has committed: a cut of the power loses it"),
            "set `fsync = on` and `full_page_writes = on` on the server",
        );
    }
    match standbys {
        0 => Finding::ok(CHECK, format!("{what}, alone: its disk and your backups are all there is")),
        _ if waits => Finding::ok(
            CHECK,
            format!("{what}; a commit waits for {waited_for} of {standbys} standbys ({waits_for})"),
        ),
        _ => Finding::warn(
            CHECK,
            format!(
                "{what} has {standbys} standbys and waits for none: when it is gone, what was acknowledged last is gone, and the nodes refuse the standby as older than what they have seen"
            ),
            "set `synchronous_standby_names` and `synchronous_commit = remote_apply` on the server; see docs/postgres.md",
        ),
    }
}

fn checkpoint(context: &Context, status: &Status) -> Finding {
    let path = context.places.checkpoint(&status.instance);
    match path.is_file() {
        true if path.starts_with(&context.places.data) => Finding::bad(
            "checkpoint",
            format!("`{}` lies in the data directory, so both can be put back together", path.display()),
            "keep the configuration elsewhere (KEYMOAT_CONFIG_DIR)",
        ),
        true => Finding::ok("checkpoint", format!("`{}` is there", path.display())),
        false => Finding::bad(
            "checkpoint",
            format!("`{}` is missing: an old copy of the data could be put back unnoticed", path.display()),
            "`keymoat audit verify` says how the log stands; restarting the server makes the file anew",
        ),
    }
}

fn slots(keys: &Keys) -> Finding {
    match keys.slots.as_slice() {
        [] | [_] => Finding::warn(
            "key slots",
            "only one thing opens the vault; lost, all is lost",
            "keep a copy of it elsewhere, or add another: `keymoat rekey add-slot --source shamir`",
        ),
        slots => Finding::ok("key slots", format!("{} ways to open the vault", slots.len())),
    }
}

fn tokens_that_last(tokens: &[Token], now: Timestamp) -> Finding {
    let limit = now.saturating_add(LASTS_LONG).unwrap_or(Timestamp::MAX);
    let long: Vec<&Token> = tokens.iter().filter(|token| token.expires_at > limit).collect();
    let Some(first) = long.first() else {
        return Finding::ok("tokens", format!("{}, none lasts longer than 90 days", tokens.len()));
    };
    let names: BTreeSet<&str> = long.iter().map(|token| token.account.as_str()).collect();
    Finding::warn(
        "tokens",
        format!(
            "{} last longer than 90 days (of {})",
            long.len(),
            names.into_iter().collect::<Vec<_>>().join(", ")
        ),
        format!("make shorter ones that can be renewed, then `keymoat token revoke {}`", first.id),
    )
}

fn owners(accounts: &[Account]) -> Finding {
    let has = |account: &Account| account.policies.contains(OWNER);
    let groups: BTreeSet<&str> = accounts
        .iter()
        .filter(|account| account.kind == GROUP && has(account))
        .map(|group| group.name.as_str())
        .collect();
    let owners: Vec<&str> = accounts
        .iter()
        .filter(|account| account.active && account.kind != GROUP)
        .filter(|account| has(account) || account.groups.iter().any(|group| groups.contains(group.as_str())))
        .map(|account| account.name.as_str())
        .collect();
    match owners.as_slice() {
        [] | [_] => Finding::ok("owners", format!("{} account may do everything", owners.len())),
        many => Finding::warn(
            "owners",
            format!("{} accounts may do everything: {}", many.len(), many.join(", ")),
            "give people `administrator`, which reads no values, and programs a policy for what they need",
        ),
    }
}

/// As the vault itself takes it: clocks that are kept at all differ by less.
const CLOCK_TOLERANCE_SECS: i64 = 300;
/// A quarter: what auditors usually ask for.
const LASTS_LONG: SignedDuration = SignedDuration::from_hours(90 * 24);
const OWNER: &str = "owner";
const GROUP: &str = "group";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Level;

    fn account(name: &str, kind: &str, policies: &[&str], groups: &[&str], active: bool) -> Account {
        Account {
            id: String::new(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            description: String::new(),
            policies: policies.iter().map(ToString::to_string).collect(),
            groups: groups.iter().map(ToString::to_string).collect(),
            active,
            created_at: Timestamp::UNIX_EPOCH,
            created_by: String::new(),
        }
    }

    #[test]
    fn owners_are_counted_through_groups() {
        let check = |accounts: &[Account], expected: Level| assert_eq!(owners(accounts).level, expected);
        let root = account("os:root", "os_user", &["owner"], &[], true);
        check(std::slice::from_ref(&root), Level::Ok);
        check(&[root.clone(), account("ana", "user", &["administrator"], &[], true)], Level::Ok);
        check(&[root.clone(), account("ana", "user", &["owner"], &[], true)], Level::Warn);
        check(&[root.clone(), account("ana", "user", &["owner"], &[], false)], Level::Ok);
        let group = account("team", "group", &["owner"], &[], true);
        check(&[root.clone(), group.clone()], Level::Ok);
        check(&[root, group, account("ana", "user", &[], &["team"], true)], Level::Warn);
    }

    #[test]
    fn tokens_that_last_too_long_are_named() {
        let token = |hours: i64| Token {
            id: "made-up".to_owned(),
            account: "odoo".to_owned(),
            masked: String::new(),
            description: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: String::new(),
            expires_at: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours),
            renewable_until: None,
            uses_left: None,
            networks: Vec::new(),
            made_with: None,
        };
        let check = |tokens: &[Token], expected: Level| {
            assert_eq!(tokens_that_last(tokens, Timestamp::UNIX_EPOCH).level, expected);
        };
        check(&[], Level::Ok);
        check(&[token(90 * 24)], Level::Ok);
        check(&[token(1), token(90 * 24 + 1)], Level::Warn);
    }
}
