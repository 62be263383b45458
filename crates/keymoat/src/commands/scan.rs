//! `keymoat scan`: keys in files, git histories, streams and databases, as a report. It needs no vault, no configuration
//! and, without `--check`, no network. What is a key and where it stands the scanner says; here are flags, progress, and where the report
//! goes.

mod bar;
pub mod check;
mod form;
pub mod look;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use keymoat_detect::{Catalogue, Engine};
use keymoat_scan::report::{About, Report};
use keymoat_scan::{Baseline, FingerprintKey, Keeper, Troubles};
use keymoat_vault::Clock as _;

use crate::Context;
use crate::clock::SystemClock;
use crate::commands::private_file::PrivateFile;
use crate::commands::serve::stop_signal;
use crate::error::{CliError, FAILURE, REFUSED};
use crate::output;
use bar::Bar;
use check::{Kept, Plan};
use form::Form;
use look::Look;

/// Find keys that stand where others may read them.
///
/// Looks into the repository or directory that you are in, or into whatever is named: a directory (its files, and its
/// git history where it has one), a bare repository, a file or dump, `-` for stdin, `postgres://…` or `mysql://…`. The exit code is 1 when something was found,
/// 0 when nothing was, and 2 when something went wrong or could not be read.
#[derive(Debug, Clone, Args)]
pub struct Scan {
    /// What to look into; without it, the repository or directory that you are in.
    #[arg(value_name = "TARGET", value_hint = clap::ValueHint::AnyPath)]
    targets: Vec<String>,
    /// Look only into what is staged for the next commit.
    #[arg(long, conflicts_with = "no_history")]
    staged: bool,
    /// Look only at files as they are, not into git histories.
    #[arg(long)]
    no_history: bool,
    /// Write the report into this file. Its name says in which form, unless --format does: `.html`, `.json`, `.jsonl`,
    /// `.sarif`, `.csv`, anything else as text.
    #[arg(long, short = 'o', value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// File of findings that are known; they are left out.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    baseline: Option<PathBuf>,
    /// Take what is found into the baseline; makes the file when it is not there.
    #[arg(long, requires = "baseline")]
    update_baseline: bool,
    /// Directory with provider files of your own; they add to the catalogue, or replace what has the same id.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    catalogue: Option<PathBuf>,
    /// Ask the providers of the keys that were found whether they work: `active` and whose, `dead`, or `unknown` and why.
    /// Each key is sent to its own provider, in a call that changes nothing, and nowhere else.
    #[arg(long, conflicts_with = "staged")]
    check: bool,
    /// How many threads may work; without it, as many as the machine runs at once.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Scan {
    /// What is staged, for a hook.
    pub fn staged(baseline: Option<PathBuf>) -> Self {
        Self {
            targets: Vec::new(),
            staged: true,
            no_history: false,
            output: None,
            baseline,
            update_baseline: false,
            catalogue: None,
            check: false,
            threads: None,
        }
    }

    /// Scans and writes the report; exit code 1 when something was found.
    ///
    /// # Errors
    /// When a target is not there, the baseline is wrong, the report cannot be written, or it was stopped.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let form = Form::choose(context.global.written, self.output.as_deref());
        let report = self.report(context).await?;
        if self.update_baseline {
            self.write_baseline(&report)?;
        }
        match &self.output {
            Some(path) => {
                let mut file = PrivateFile::create(path)?;
                file.write(form.write(&report, form::Reader::File).as_bytes())?;
                file.finish()?;
                output::say(&format!("{}\nthe report is in `{}`", report.summary(), path.display()));
            }
            None => output::bytes(form.write(&report, form::Reader::Stdout).as_bytes()),
        }
        Ok(exit_code(&report))
    }

    /// Scans and gives the report, with a bar on a terminal. Ctrl-C ends it without one.
    ///
    /// # Errors
    /// When a target is not there, the baseline is wrong, or it was stopped.
    pub async fn report(&self, context: &Context) -> Result<Report, CliError> {
        let mut stop = Box::pin(stop_signal()?);
        let catalogue = context.catalogue_with(self.catalogue.as_deref())?;
        let baseline = self.baseline()?;
        let looks = match self.staged {
            true => Look::all_staged(&self.targets, context.variables.git_index_file.as_deref())?,
            false => Look::all(&self.targets, self.no_history)?,
        };
        let threads = match self.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        };
        let bar = Arc::new(Bar::new());
        let work = Work { catalogue, baseline, looks, check: self.check, threads, bar: Arc::clone(&bar) };
        let (done, outcome) = tokio::sync::oneshot::channel();
        // A thread that the runtime does not wait for: it may sit in a read of stdin that never ends.
        std::thread::spawn(move || {
            // Nobody waits any more when it was stopped.
            let _ = done.send(work.run());
        });
        let outcome = tokio::select! {
            outcome = outcome => Some(outcome),
            () = &mut stop => None,
        };
        bar.clear();
        let Some(outcome) = outcome else {
            return Err(CliError::new("stopped before everything was searched; there is no report"));
        };
        let (mut report, plan) =
            outcome.map_err(|_| CliError::new("the scan broke off; this is a bug"))??;
        if let Some(plan) = plan {
            tokio::select! {
                done = plan.carry_out(&mut report, &context.variables) => done?,
                () = &mut stop => {
                    return Err(CliError::new("stopped before all providers had answered; there is no report"));
                }
            }
        }
        Ok(report)
    }

    fn baseline(&self) -> Result<Option<Baseline>, CliError> {
        let Some(path) = &self.baseline else { return Ok(None) };
        match std::fs::read_to_string(path) {
            Ok(text) => Baseline::parse(&text).map(Some).map_err(|error| {
                CliError::new(format!("cannot use the baseline `{}`: {error}", path.display()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.update_baseline => {
                Ok(Some(Baseline::new(keymoat_crypto::bytes())))
            }
            Err(error) => Err(CliError::file("read the baseline", path, &error)
                .hint("--update-baseline makes it when it is not there")),
        }
    }

    fn write_baseline(&self, report: &Report) -> Result<(), CliError> {
        let (Some(path), Some(mut baseline)) = (&self.baseline, report.baseline.clone()) else {
            return Ok(());
        };
        let before = baseline.len();
        report.findings.iter().for_each(|finding| baseline.add(finding));
        let mut file = PrivateFile::create(path)?;
        file.write(baseline.to_text().as_bytes())?;
        file.finish()?;
        let added = baseline.len() - before;
        output::say(&format!("`{}` knows {} findings, {added} of them new", path.display(), baseline.len()));
        Ok(())
    }
}

/// What one scan is made of.
struct Work {
    catalogue: Arc<Catalogue>,
    baseline: Option<Baseline>,
    looks: Vec<Look>,
    check: bool,
    threads: NonZeroUsize,
    bar: Arc<Bar>,
}

impl Work {
    /// The report, and what to ask about it where that is wanted.
    fn run(self) -> Result<(Report, Option<Plan>), CliError> {
        let engine = Engine::new(&self.catalogue);
        let key = match &self.baseline {
            Some(baseline) => baseline.key(),
            None => FingerprintKey::new(keymoat_crypto::bytes()),
        };
        let troubles = Troubles::default();
        let kept = self.check.then(|| Kept::new(&engine));
        let scan = keymoat_scan::Scan {
            engine: &engine,
            catalogue: &self.catalogue,
            key: &key,
            threads: self.threads,
            progress: &*self.bar,
            troubles: &troubles,
            keeper: kept.as_ref().map_or(&() as &dyn Keeper, |kept| kept),
        };
        let mut searched = Vec::new();
        let mut warnings = Vec::new();
        for look in &self.looks {
            searched.push(look.search(&scan)?);
            warnings.extend(look.warnings());
        }
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made: SystemClock.now().as_second(),
            warnings,
        };
        let report = Report::new(&engine, searched, self.baseline, &troubles, about);
        let plan = kept.map(|kept| Plan::new(kept, &self.catalogue, &report));
        Ok((report, plan))
    }
}

/// 1 when something was found; 2 when nothing was and something could not be read, for then nobody knows.
pub fn exit_code(report: &Report) -> u8 {
    match (report.is_clean(), report.skipped.total) {
        (false, _) => REFUSED,
        (true, 0) => 0,
        (true, _) => FAILURE,
    }
}
