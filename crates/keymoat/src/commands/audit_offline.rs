//! `keymoat audit verify --export` and `--proof`: checks what came out of a vault without one, with what an auditor kept:
//! the key and older checkpoints. It asks nobody and trusts nothing else that stands in the files.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keymoat_core::audit::{Event, MAX_EVENT_BYTES};
use keymoat_core::auditor::{ExportCheck, ExportFindings, is_included};
use keymoat_core::checkpoint::{Checkpoint, MAX_NOTE_BYTES};
use keymoat_crypto::AuditVerifyingKey;
use keymoat_server::wire::Proof;
use serde_json::json;

use super::audit_export::checkpoint_beside;
use crate::Context;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};

/// Flags of `audit verify`; without a file it checks the vault.
#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// Check this machine's data directory without writing anything into it, as when its disk is read-only.
    #[arg(long, conflicts_with = "away")]
    pub read_only: bool,
    /// Check this export instead, without a vault.
    #[arg(long, value_name = "FILE", requires = "key", group = "away", value_hint = clap::ValueHint::FilePath)]
    export: Option<PathBuf>,
    /// Check this proof of one record instead, without a vault.
    #[arg(long, value_name = "FILE", requires = "key", group = "away", value_hint = clap::ValueHint::FilePath)]
    proof: Option<PathBuf>,
    /// The key that signs the log, as `audit checkpoint` showed it when you trusted the vault.
    #[arg(long, value_name = "KEY", requires = "away")]
    key: Option<String>,
    /// The signed checkpoint over the export; FILE.checkpoint when left out.
    #[arg(long, value_name = "FILE", requires = "export", value_hint = clap::ValueHint::FilePath)]
    checkpoint: Option<PathBuf>,
    /// An older checkpoint that you kept, which the export must continue; may be given more than once, and the more
    /// there are, the closer what was changed is found.
    #[arg(long, value_name = "FILE", requires = "export", value_hint = clap::ValueHint::FilePath)]
    since: Vec<PathBuf>,
}

/// What is to be checked without a vault.
#[derive(Debug, Clone, Copy)]
pub enum Offline<'a> {
    /// An export.
    Export(&'a Path),
    /// The proof of one record.
    Proof(&'a Path),
}

impl Verify {
    /// The file that is to be checked instead of the vault.
    pub fn offline(&self) -> Option<Offline<'_>> {
        let export = self.export.as_deref().map(Offline::Export);
        export.or_else(|| self.proof.as_deref().map(Offline::Proof))
    }

    /// Checks a file; 1 when something in it does not fit.
    ///
    /// # Errors
    /// When a file cannot be read, or the key or a checkpoint is not one.
    pub fn run(&self, context: &Context, file: Offline<'_>) -> Result<u8, CliError> {
        let key = Key::parse(self.key.as_deref().unwrap_or_default())?;
        let checked = match file {
            Offline::Export(log) => self.check_export(context, &key, log),
            Offline::Proof(proof) => check_proof(context, &key, proof),
        };
        match checked {
            Err(Failed::Untrusted(why)) => {
                tell(context, json!({ "intact": false, "problems": [&why] }), &[format!("TOUCHED  {why}")])?;
                Ok(REFUSED)
            }
            Err(Failed::Unreadable(error)) => Err(error),
            Ok(code) => Ok(code),
        }
    }

    fn check_export(&self, context: &Context, key: &Key, log: &Path) -> Result<u8, Failed> {
        let newest = self.checkpoint.clone().unwrap_or_else(|| checkpoint_beside(log));
        let head = key.head_in(&newest)?;
        let kept = self.since.iter().map(|path| key.head_in(path)).collect::<Result<Vec<_>, _>>()?;
        if let Some((path, newer)) =
            self.since.iter().zip(&kept).find(|(_, older)| older.size() > head.size())
        {
            let why = format!(
                "`{}` covers {} records and `{}` only {}: the log was cut, or the older checkpoint is the newer one",
                path.display(),
                newer.size(),
                newest.display(),
                head.size()
            );
            return Err(Failed::Untrusted(why));
        }
        let mut check = ExportCheck::new(kept.iter().chain([&head]));
        each_line(log, head.size(), |line| check.line(line))?;
        report(context, &check.finish(), kept.len()).map_err(Failed::Unreadable)
    }
}

/// Why a check ended before its end.
enum Failed {
    /// What is checked is not what this key signed.
    Untrusted(String),
    /// It could not be looked at.
    Unreadable(CliError),
}

impl From<CliError> for Failed {
    fn from(error: CliError) -> Self {
        Self::Unreadable(error)
    }
}

/// The key that an auditor kept, with the name of the log that it signs.
struct Key {
    name: String,
    key: AuditVerifyingKey,
}

impl Key {
    fn parse(text: &str) -> Result<Self, CliError> {
        // `audit checkpoint` shows it after the word `key`.
        let text = text.trim().strip_prefix("key ").unwrap_or(text).trim();
        let (name, key) = AuditVerifyingKey::from_verifier(text).map_err(|_| {
            CliError::new("--key is not the key of an audit log")
                .hint("it looks like `keymoat/0192…+1a2b3c4d+AY…`; `keymoat audit checkpoint` shows it")
        })?;
        Ok(Self { name, key })
    }

    fn head_in(&self, path: &Path) -> Result<Checkpoint, Failed> {
        let note = read_text(path, MAX_NOTE_BYTES)?;
        self.head(&note, &format!("`{}`", path.display()))
    }

    /// The head in a note, once its signature was found to be by this key.
    fn head(&self, note: &str, what: &str) -> Result<Checkpoint, Failed> {
        let untrusted = |why: String| Failed::Untrusted(format!("{what} {why}"));
        let (head, signatures) =
            Checkpoint::parse(note).map_err(|e| untrusted(format!("is not a signed checkpoint: {e}")))?;
        if head.origin() != self.name {
            return Err(untrusted(format!("is of another log, `{}`", output::printable(head.origin()))));
        }
        let (id, body) = (self.key.key_id(&self.name), head.body());
        let is_signed = signatures.iter().any(|signature| {
            signature.name == self.name
                && signature.key_id == id
                && <&[u8; 64]>::try_from(signature.signature.as_slice())
                    .is_ok_and(|signature| self.key.verify(body.as_bytes(), signature))
        });
        if is_signed { Ok(head) } else { Err(untrusted("is not signed by this key".to_owned())) }
    }
}

fn check_proof(context: &Context, key: &Key, path: &Path) -> Result<u8, Failed> {
    let unreadable = |why: &str| CliError::new(format!("`{}` is not a proof: {why}", path.display()));
    let text = read_text(path, PROOF_BYTES_MAX)?;
    let proof: Proof = serde_json::from_str(&text).map_err(|e| {
        unreadable(&format!("line {}, column {}", e.line(), e.column()))
            .hint("`keymoat audit prove` writes one")
    })?;
    let head = key.head(&proof.checkpoint, "the checkpoint in it")?;
    let hash = |text: &String| BASE64.decode(text).ok()?.try_into().ok();
    let hashes: Option<Vec<_>> = proof.proof.iter().map(hash).collect();
    let hashes = hashes.ok_or_else(|| unreadable("a hash in it is none"))?;
    let record = proof.event.record.as_bytes();
    if !is_included(record, proof.seq, &head, &hashes) {
        return Err(Failed::Untrusted(format!("record {} is not in the log that was signed", proof.seq)));
    }
    if Event::parse(record).is_err()
        || serde_json::from_slice::<serde_json::Value>(record).ok().as_ref() != Some(&proof.event.event)
    {
        return Err(Failed::Untrusted(
            "what the proof shows beside the record is not what the record says".to_owned(),
        ));
    }
    let said = format!("in the log: record {} of the {} that were signed", proof.seq, head.size());
    let record = output::printable(&proof.event.record);
    tell(
        context,
        json!({ "intact": true, "record": proof.seq, "size": head.size(), "problems": [] }),
        &[said, record],
    )
    .map_err(Failed::Unreadable)?;
    if proof.event.actor_name.is_some() || proof.event.address.is_some() || proof.event.user_agent.is_some() {
        output::say("the name and address beside the record are not part of what was proved");
    }
    Ok(0)
}

fn report(context: &Context, found: &ExportFindings, kept: usize) -> Result<u8, CliError> {
    let intact = found.problems.is_empty();
    let problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    let mut lines: Vec<String> = problems.iter().map(|problem| format!("TOUCHED  {problem}")).collect();
    if intact {
        let more = match kept {
            0 => String::new(),
            1 => ", and continue the checkpoint that was kept".to_owned(),
            kept => format!(", and continue the {kept} checkpoints that were kept"),
        };
        lines.push(format!("intact: {} records are those that were signed{more}", found.checked));
    }
    let data =
        json!({ "intact": intact, "checked": found.checked, "beyond": found.beyond, "problems": problems });
    tell(context, data, &lines)?;
    if found.beyond > 0 {
        output::say(&format!(
            "{} newer lines are not under the checkpoint and were not checked",
            found.beyond
        ));
    }
    Ok(if intact { 0 } else { REFUSED })
}

fn tell(context: &Context, data: serde_json::Value, lines: &[String]) -> Result<(), CliError> {
    match context.global.format {
        Format::Json => output::json(&data)?,
        Format::Text => lines.iter().for_each(|line| output::line(line)),
    }
    Ok(())
}

/// Hands each line to `each`, without its end; one that is longer than a record may be is cut, and no record then.
fn each_line(path: &Path, records: u64, mut each: impl FnMut(&[u8])) -> Result<(), CliError> {
    let wrong = |e: std::io::Error| CliError::file("read", path, &e);
    let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path).map_err(wrong)?);
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} records");
    let bar = ProgressBar::new(records).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_EVENT_BYTES as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(wrong)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 == limit {
            reader.skip_until(b'\n').map_err(wrong)?;
        }
        each(&line);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn read_text(path: &Path, limit: usize) -> Result<String, CliError> {
    let wrong = |e: std::io::Error| CliError::file("read", path, &e);
    let mut text = String::new();
    let file = File::open(path).map_err(wrong)?;
    let length = file.take(limit as u64 + 1).read_to_string(&mut text).map_err(wrong)?;
    if length > limit {
        return Err(CliError::new(format!("`{}` is too large", path.display())));
    }
    Ok(text)
}

/// The longest record twice, once as text in JSON, and the rest of a proof.
const PROOF_BYTES_MAX: usize = 4 * MAX_EVENT_BYTES;
const READ_BYTES: usize = 256 * 1024;
