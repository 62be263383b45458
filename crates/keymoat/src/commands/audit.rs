//! `keymoat audit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use keymoat_core::audit::AuditText;
use keymoat_server::wire::{self, AuditEvent, AuditPage, Checkpoint, PersonalErased, Proof, Verification};
use keymoat_vault::{Evidence, SealedVault, VerifyReport};

use super::audit_archive::Archive;
use super::audit_export::Export;
use super::audit_offline::{self, Verify};
use crate::client::{Client, query};
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, master_key};

/// What to do with the audit log.
#[derive(Debug, Clone, Subcommand)]
pub enum Audit {
    /// Show records that fit, newest first.
    Query(Query),
    /// Show the newest records, and go on as they come.
    Tail(Tail),
    /// Check that nothing was touched, and say where if it was; or check an export or a proof without a vault.
    Verify(Verify),
    /// Prove that one record is in the signed log; the proof can be checked without this vault.
    Prove {
        /// The record's number.
        number: u64,
        /// Prove it from this archive instead, without a vault.
        #[arg(long, value_name = "ARCHIVE", value_hint = clap::ValueHint::FilePath)]
        export: Option<PathBuf>,
    },
    /// Write old records into a file with what proves them, and take them out of the vault.
    Archive(Archive),
    /// Write the records under the newest checkpoint out as JSON lines, oldest first.
    Export(Export),
    /// Erase names, addresses and user agents beside the records, for good; the log stays verifiable.
    ErasePersonal(ErasePersonal),
    /// Show the newest signed checkpoint and the key that signs it.
    Checkpoint,
    /// Accept a vault that was put back or changed by other means, and write down why.
    AcceptRestore {
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Flags of `audit query`.
#[derive(Debug, Clone, Default, Args)]
pub struct Query {
    #[command(flatten)]
    filters: Filters,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// What must hold of the records that are wanted.
#[derive(Debug, Clone, Default, Args)]
pub struct Filters {
    /// Only about this path or one below it.
    #[arg(long)]
    path: Option<String>,
    /// Only by this account.
    #[arg(long)]
    account: Option<String>,
    /// Only this action: reveal, write, sign_in, ….
    #[arg(long)]
    action: Option<String>,
    /// Only with this result: allowed, refused, failed.
    #[arg(long)]
    result: Option<String>,
    /// Only by this module.
    #[arg(long)]
    module: Option<String>,
    /// Only from this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Filters {
    /// Whether any is given.
    pub fn are_given(&self) -> bool {
        self.pairs().iter().any(|(_, value)| value.is_some())
    }

    /// As the server takes them.
    pub fn pairs(&self) -> [(&'static str, Option<&str>); 7] {
        [
            ("path", self.path.as_deref()),
            ("account", self.account.as_deref()),
            ("action", self.action.as_deref()),
            ("result", self.result.as_deref()),
            ("module", self.module.as_deref()),
            ("since", self.since.as_deref()),
            ("until", self.until.as_deref()),
        ]
    }
}

/// Flags of `audit tail`.
#[derive(Debug, Clone, Args)]
pub struct Tail {
    /// Records to begin with.
    #[arg(long, default_value_t = 20)]
    last: usize,
    /// Go on as new ones come.
    #[arg(long, short)]
    follow: bool,
}

/// Flags of `audit erase-personal`.
#[derive(Debug, Clone, Args)]
#[group(id = "whose", required = true, multiple = true, args = ["account", "before"])]
pub struct ErasePersonal {
    /// Of this account, which may be gone already.
    #[arg(long)]
    account: Option<String>,
    /// Only beside records from before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Audit {
    /// Works on the audit log.
    ///
    /// # Errors
    /// What the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        match self {
            Audit::Query(command) => command.run(context).await,
            Audit::Tail(command) => command.run(context).await,
            Audit::Verify(command) => match command.offline() {
                Some(file) => command.run(context, &file),
                None => verify(context, command.read_only).await,
            },
            Audit::ErasePersonal(command) => command.run(context).await,
            Audit::Prove { number, export: Some(log) } => audit_offline::prove(*number, log),
            Audit::Prove { number, export: None } => prove(context, *number).await,
            Audit::Archive(command) => command.run(context).await,
            Audit::Export(command) => command.run(context).await,
            Audit::Checkpoint => checkpoint(context).await,
            Audit::AcceptRestore { reason } => accept_restore(context, reason).await,
        }
    }
}

impl Query {
    async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let company = context.company()?;
        let limit = self.limit.to_string();
        let mut pairs = vec![
            ("environment", context.global.env.as_deref()),
            ("company", company.as_ref().map(keymoat_core::names::Company::as_str)),
            ("limit", Some(limit.as_str())),
        ];
        pairs.extend(self.filters.pairs());
        let url = format!("/api/v1/audit{}", query(&pairs));
        let page: AuditPage =
            super::with_client(context, async |client: &Client| client.get(&url).await).await?;
        if let Some(archived) = &page.archived {
            output::say(&format!(
                "records before {} are in archives, the last of {} by {}; few of them stand here",
                archived.end,
                output::printable(&archived.at),
                output::printable(&archived.by)
            ));
        }
        if context.global.format == Format::Json {
            output::json(&page.events)?;
            return Ok(0);
        }
        if page.events.is_empty() {
            output::say("no record fits");
            return Ok(0);
        }
        output::table(&HEADINGS, page.events.iter().map(row));
        Ok(0)
    }
}

impl Tail {
    async fn run(&self, context: &Context) -> Result<u8, CliError> {
        super::with_client(context, async |client: &Client| {
            let url = format!("/api/v1/audit?limit={}&follow={}", self.last, self.follow);
            let page: AuditPage = client.get(&url).await?;
            let mut next = 0;
            for event in page.events.iter().rev() {
                next = number_of(event) + 1;
                self.print(context, event)?;
            }
            if !self.follow {
                return Ok(0);
            }
            loop {
                // One record covers the looks of a minute; they are not repeated faster than a person reads.
                tokio::time::sleep(FOLLOW_EVERY).await;
                let url = format!("/api/v1/audit?oldest_first=true&limit=1000&follow=true&from={next}");
                let page: AuditPage = client.get(&url).await?;
                for event in &page.events {
                    next = number_of(event) + 1;
                    if event.event.get("details").and_then(|details| details.get("follows")).is_none() {
                        self.print(context, event)?;
                    }
                }
            }
        })
        .await
    }

    fn print(&self, context: &Context, event: &AuditEvent) -> Result<(), CliError> {
        match context.global.format {
            Format::Json => output::line(&event.record),
            Format::Text => output::line(&row(event).join("  ")),
        }
        Ok(())
    }
}

impl ErasePersonal {
    async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let whose = match (&self.account, &self.before) {
            (Some(account), Some(before)) => {
                format!("of `{}` from before {}", output::printable(account), output::printable(before))
            }
            (Some(account), None) => format!("of `{}`", output::printable(account)),
            (None, before) => format!(
                "of everybody from before {}",
                output::printable(before.as_deref().unwrap_or_default())
            ),
        };
        let question =
            format!("Erase names, addresses and user agents {whose} from the audit log, for good?");
        if !self.yes && !crate::prompt::confirm(&question) {
            return Err(CliError::new("nothing was erased")
                .hint("say --yes where nobody can be asked")
                .exit(REFUSED));
        }
        let wanted = wire::ErasePersonal { account: self.account.clone(), before: self.before.clone() };
        let erased: PersonalErased = super::with_client(context, async |client: &Client| {
            client.call(Method::POST, "/api/v1/audit/erase-personal", Some(&wanted)).await
        })
        .await?;
        match context.global.format {
            Format::Json => output::json(&erased)?,
            Format::Text => {
                output::line(&format!(
                    "erased beside {} records; record {} says so",
                    erased.records, erased.event
                ));
                output::say("backups made before hold it still");
            }
        }
        Ok(0)
    }
}

async fn verify(context: &Context, read_only: bool) -> Result<u8, CliError> {
    let remote = context.global.server.is_some();
    if read_only && remote {
        return Err(CliError::new(
            "--read-only checks a data directory on this machine, not through a server",
        )
        .hint("leave --server and KEYMOAT_ADDR out"));
    }
    let socket = keymoat_store::socket_in(&context.places.data);
    let running = socket.exists() && tokio::net::UnixStream::connect(&socket).await.is_ok();
    let found = if read_only || (!running && !remote && !is_writable(context)) {
        verify_evidence(context)?
    } else if remote || running {
        super::with_client(context, async |client: &Client| {
            client.call::<(), Verification>(Method::POST, "/api/v1/audit/verify", None).await
        })
        .await?
    } else {
        verify_here(context)?
    };
    if context.global.format == Format::Json {
        output::json(&found)?;
    } else if found.intact {
        let archived = match found.archived {
            0 => String::new(),
            archived => {
                format!("; {archived} of the records are in archives only, and their hashes are here")
            }
        };
        output::line(&format!(
            "intact: {} records and {} rows are as they were written and signed{archived}",
            found.events, found.rows
        ));
    } else {
        for problem in &found.problems {
            output::line(&format!("TOUCHED  {}", output::printable(problem)));
        }
        output::say(&format!("{} records and {} rows were checked", found.events, found.rows));
        output::say(&format!("hint: {}", crate::hint::complete(TOUCHED, &context.global)));
    }
    Ok(if found.intact { 0 } else { REFUSED })
}

/// Checks the vault without opening it for use: one that was touched does not open.
fn verify_here(context: &Context) -> Result<Verification, CliError> {
    let sealed = sealed(context)?;
    let offer = master_key::offer_for(&sealed, &context.places, &context.variables)?;
    let bar = records_checked();
    let report = sealed.verify(&offer, &context.places.config, |events| show_progress(&bar, events))?;
    bar.finish_and_clear();
    Ok(verification(&report))
}

/// Checks a data directory without writing into it; where a copy has to be read, it lies in a directory of its own
/// that is gone afterwards.
fn verify_evidence(context: &Context) -> Result<Verification, CliError> {
    let data = &context.places.data;
    if !keymoat_store::database_in(data).exists() {
        return Err(no_vault(context));
    }
    let scratch = tempfile::Builder::new().prefix("keymoat-verify-").tempdir().map_err(|e| {
        CliError::new(format!("cannot make a directory for a copy: {e}")).hint("TMPDIR says where")
    })?;
    let evidence = Evidence::open(data, scratch.path())?;
    let opens: Vec<_> = evidence.slots().map(|slot| master_key::Opens::from(&slot.source)).collect();
    let offer = master_key::offer(evidence.instance(), &opens, &context.places, &context.variables)?;
    let bar = records_checked();
    let report = evidence.verify(&offer, &context.places.config, |events| show_progress(&bar, events))?;
    bar.finish_and_clear();
    output::say(&format!("`{}` was only read", data.display()));
    Ok(verification(&report))
}

/// Whether a vault could be opened here in the usual way, which writes.
fn is_writable(context: &Context) -> bool {
    let data = &context.places.data;
    let may_write = |path: &std::path::Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    !data.exists() || (may_write(data) && may_write(&keymoat_store::database_in(data)))
}

fn records_checked() -> indicatif::ProgressBar {
    indicatif::ProgressBar::new_spinner().with_message("records checked")
}

fn show_progress(bar: &indicatif::ProgressBar, events: u64) {
    bar.set_position(events);
    bar.tick();
}

fn verification(report: &VerifyReport) -> Verification {
    Verification {
        intact: report.problems.is_empty(),
        events: report.events,
        archived: report.archived,
        rows: report.rows,
        problems: report.problems.iter().map(ToString::to_string).collect(),
        checkpoint: report.checkpoint.clone(),
    }
}

fn no_vault(context: &Context) -> CliError {
    CliError::new(format!("there is no vault in `{}`", context.places.data.display()))
        .hint("--data or KEYMOAT_DATA_DIR names another place")
}

async fn prove(context: &Context, number: u64) -> Result<u8, CliError> {
    let proof: Proof = super::with_client(context, async |client: &Client| {
        client.get(&format!("/api/v1/audit/{number}/proof")).await
    })
    .await?;
    output::json(&proof)?;
    Ok(0)
}

async fn checkpoint(context: &Context) -> Result<u8, CliError> {
    let checkpoint: Checkpoint =
        super::with_client(context, async |client: &Client| client.get("/api/v1/audit/checkpoint").await)
            .await?;
    match context.global.format {
        Format::Json => output::json(&checkpoint)?,
        Format::Text => {
            output::bytes(checkpoint.checkpoint.as_bytes());
            output::say(&format!("key  {}", checkpoint.key));
        }
    }
    Ok(0)
}

async fn accept_restore(context: &Context, reason: &str) -> Result<u8, CliError> {
    if reason.trim().is_empty() {
        return Err(CliError::new("say why with --reason: it is written into the log"));
    }
    let problems = verify_here(context)?.problems;
    let Some(first) = problems.first() else {
        output::say("there is nothing to accept: the vault is as it was written and signed");
        return Ok(0);
    };
    let sealed = sealed(context)?;
    let offer = master_key::offer_for(&sealed, &context.places, &context.variables)?;
    let found = format!("{} problems, first: {first}", problems.len());
    let vault =
        sealed.accept_restore(&offer, context.surroundings()?, &AuditText::new(reason), &found).await?;
    vault.close().await;
    output::say(&format!(
        "accepted as it is; {} problems are on record, the first: {}",
        problems.len(),
        output::printable(first)
    ));
    Ok(0)
}

fn sealed(context: &Context) -> Result<SealedVault, CliError> {
    if !context.places.may_have_vault() {
        return Err(no_vault(context));
    }
    context.places.open_vault()?.map_err(|_| no_vault(context))
}

/// A record as a row: when, who, what, on what, how it ended, from where, why.
fn row(event: &AuditEvent) -> Vec<String> {
    let text =
        |name: &str| event.event.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let who = event.actor_name.clone().unwrap_or_else(|| text("actor"));
    let on = match (text("scope"), text("path"), text("field")) {
        (scope, path, _) if path.is_empty() => scope,
        (scope, path, field) if field.is_empty() => format!("{scope}/{path}"),
        (scope, path, field) => format!("{scope}/{path}#{field}"),
    };
    let version = event
        .event
        .get("version")
        .and_then(serde_json::Value::as_u64)
        .map(|n| format!(" v{n}"))
        .unwrap_or_default();
    let company = Some(text("company"))
        .filter(|name| !name.is_empty())
        .map(|name| format!(" ({name})"))
        .unwrap_or_default();
    let why = [text("reason"), text("decided_by")]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let time = text("time").replace('T', " ");
    let time = time.split('.').next().unwrap_or_default().to_owned();
    vec![
        number_of(event).to_string(),
        time,
        who,
        text("module"),
        text("action"),
        format!("{on}{version}{company}"),
        text("result"),
        event.address.clone().unwrap_or_else(|| "here".to_owned()),
        why,
    ]
}

fn number_of(event: &AuditEvent) -> u64 {
    event.event.get("seq").and_then(serde_json::Value::as_u64).unwrap_or_default()
}

const TOUCHED: &str = "keep a copy of the data directory as evidence; then put the newest good copy back, or a backup into an empty data directory (`keymoat restore FILE`), or take it as it is and say why: `keymoat audit accept-restore --reason REASON`";
const HEADINGS: [&str; 9] = ["#", "time (utc)", "who", "module", "what", "on", "result", "from", "why"];
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
