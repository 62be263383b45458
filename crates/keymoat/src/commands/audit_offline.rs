//! `keymoat audit verify --export` and `--proof`: checks what came out of a vault without one, with what an auditor kept:
//! the key and older checkpoints. It asks nobody and trusts nothing else that stands in the files. An archive alone, an
//! export alone, and archives followed by an export are all a series of files, each with what ties it to a signed head.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keymoat_core::audit::{Event, MAX_EVENT_BYTES, Personal};
use keymoat_core::auditor::{
    ExportCheck, ExportFindings, LogSpan, MAX_PROBLEMS, is_included, is_included_up_to,
};
use keymoat_core::checkpoint::{Checkpoint, MAX_NOTE_BYTES};
use keymoat_core::tree::{Frontier, Hash, leaf_hash};
use keymoat_crypto::AuditVerifyingKey;
use keymoat_server::wire::{ArchivePath, ArchiveProof, AuditEvent, Proof};
use serde::Deserialize;
use serde_json::json;

use super::audit_export::{checkpoint_beside, personal_beside, proof_beside};
use crate::Context;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};

/// Flags of `audit verify`; without a file it checks the vault.
#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// Check this machine's data directory without writing anything into it, as when its disk is read-only.
    #[arg(long, conflicts_with = "away")]
    pub read_only: bool,
    /// Check this export or archive instead, without a vault; several, oldest first, are checked as one log.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "key", group = "away", value_hint = clap::ValueHint::FilePath)]
    export: Vec<PathBuf>,
    /// Check this proof of one record instead, without a vault.
    #[arg(long, value_name = "FILE", requires = "key", group = "away", value_hint = clap::ValueHint::FilePath)]
    proof: Option<PathBuf>,
    /// The key that signs the log, as `audit checkpoint` showed it when you trusted the vault.
    #[arg(long, value_name = "KEY", requires = "away")]
    key: Option<String>,
    /// The signed checkpoint over the (last) export; what stands beside it, FILE.proof or FILE.checkpoint, when left out.
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
    /// Exports and archives, oldest first.
    Exports(&'a [PathBuf]),
    /// The proof of one record.
    Proof(&'a Path),
}

impl Verify {
    /// The file that is to be checked instead of the vault.
    pub fn offline(&self) -> Option<Offline<'_>> {
        match self.export.is_empty() {
            true => self.proof.as_deref().map(Offline::Proof),
            false => Some(Offline::Exports(&self.export)),
        }
    }

    /// Checks a file; 1 when something in it does not fit.
    ///
    /// # Errors
    /// When a file cannot be read, or the key or a checkpoint is not one.
    pub fn run(&self, context: &Context, file: &Offline<'_>) -> Result<u8, CliError> {
        let key = Key::parse(self.key.as_deref().unwrap_or_default())?;
        let checked = match file {
            Offline::Exports(logs) => self.check_exports(context, &key, logs),
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

    fn check_exports(&self, context: &Context, key: &Key, logs: &[PathBuf]) -> Result<u8, Failed> {
        let mut files = Vec::new();
        for (n, log) in logs.iter().enumerate() {
            let named = self.checkpoint.as_deref().filter(|_| n + 1 == logs.len());
            files.push(key.log_file(log, named)?);
        }
        let kept = self.since.iter().map(|path| key.head_in(path)).collect::<Result<Vec<_>, _>>()?;
        let newest =
            files.iter().max_by_key(|file| file.head.size()).map(|file| (&file.proof, file.head.size()));
        if let Some((proof, size)) = newest
            && let Some((path, newer)) = self.since.iter().zip(&kept).find(|(_, older)| older.size() > size)
        {
            let why = format!(
                "`{}` covers {} records and `{}` only {size}: the log was cut, or the older checkpoint is the newer one",
                path.display(),
                newer.size(),
                proof.display(),
            );
            return Err(Failed::Untrusted(why));
        }
        let series = Series::check(&files, &kept)?;
        series.report(context, &files, &kept).map_err(Failed::Unreadable)
    }
}

/// A file of records with what ties it to a signed head.
struct LogFile {
    path: PathBuf,
    span: LogSpan,
    head: Checkpoint,
    /// Where the head stands.
    proof: PathBuf,
    /// Whether what follows after the span may be newer records, rather than something that does not belong.
    may_go_on: bool,
}

/// What checking files one after the other found.
#[derive(Default)]
struct Series {
    checked: u64,
    beyond: u64,
    /// Records whose names and addresses were compared.
    named: u64,
    problems: Vec<String>,
}

impl Series {
    fn check(files: &[LogFile], kept: &[Checkpoint]) -> Result<Self, CliError> {
        let mut series = Self::default();
        let mut before: Option<(&LogFile, Frontier)> = None;
        let heads: Vec<&Checkpoint> = kept.iter().chain(files.iter().map(|file| &file.head)).collect();
        for file in files {
            if let Some((earlier, tree)) = &before
                && *tree != file.span.start
            {
                series.problems.push(does_not_continue(earlier, tree, file));
            }
            let (found, tree) = check_file(file, &heads)?;
            let problems = problems_of(file, &found, &tree);
            let name = |problem: String| match files.len() {
                1 => problem,
                _ => format!("{}: {problem}", file.path.display()),
            };
            series.problems.extend(problems.into_iter().map(name));
            series.checked += found.checked;
            series.beyond += found.beyond;
            let personal = check_personal(file)?;
            series.named += personal.checked;
            series.problems.extend(personal.problems);
            before = Some((file, tree));
        }
        Ok(series)
    }

    fn report(&self, context: &Context, files: &[LogFile], kept: &[Checkpoint]) -> Result<u8, CliError> {
        let intact = self.problems.is_empty();
        let compared = kept.iter().filter(|head| is_compared(files, head)).count();
        let first = files.first().map_or(0, |file| file.span.start.size());
        let mut lines: Vec<String> =
            self.problems.iter().map(|problem| format!("TOUCHED  {}", output::printable(problem))).collect();
        if intact {
            let more = match compared {
                0 => String::new(),
                1 => ", and continue the checkpoint that was kept".to_owned(),
                kept => format!(", and continue the {kept} checkpoints that were kept"),
            };
            lines.push(format!("intact: {} records are those that were signed{more}", self.checked));
        }
        let data = json!({
            "intact": intact, "checked": self.checked, "first": first, "beyond": self.beyond,
            "problems": self.problems,
        });
        tell(context, data, &lines)?;
        self.say_what_else(first, kept.len() - compared);
        Ok(if intact { 0 } else { REFUSED })
    }

    /// What was not checked, and what was besides.
    fn say_what_else(&self, first: u64, not_compared: usize) {
        let notes = [
            (first, "records in front of the first line are in older archives"),
            (self.named, "of them have the names and addresses beside them that were recorded"),
            (self.beyond, "newer lines are not under the checkpoint and were not checked"),
            (
                not_compared as u64,
                "of the checkpoints that were kept are of records that are not in these files, and were not compared",
            ),
        ];
        notes
            .iter()
            .filter(|(number, _)| *number > 0)
            .for_each(|(number, what)| output::say(&format!("{number} {what}")));
    }
}

/// What in a file does not fit what stands beside it.
fn problems_of(file: &LogFile, found: &ExportFindings, tree: &Frontier) -> Vec<String> {
    let mut problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    if problems.is_empty() && !file.span.leads_to(tree, &file.head) {
        problems.push(format!(
            "lines 1 to {}: one of them or more is not the record that was signed, or `{}` does not belong to them (checkpoint of {} records)",
            found.checked,
            file.proof.display(),
            file.head.size()
        ));
    }
    if found.beyond > 0 && !file.may_go_on {
        problems.push(format!("line {}: the archive ends in front of it", found.checked + 1));
    }
    problems
}

/// Whether a checkpoint that was kept is one of the files' own, or of records in them.
fn is_compared(files: &[LogFile], kept: &Checkpoint) -> bool {
    let is_within = |file: &LogFile| (file.span.start.size()..=file.span.end).contains(&kept.size());
    let is_same = |file: &LogFile| file.head.size() == kept.size() && file.head.root() == kept.root();
    files.iter().any(|file| is_within(file) || is_same(file))
}

fn does_not_continue(earlier: &LogFile, tree: &Frontier, file: &LogFile) -> String {
    let (earlier, path) = (earlier.path.display(), file.path.display());
    match (tree.size(), file.span.start.size()) {
        (end, start) if end == start => {
            format!(
                "`{path}` does not continue what stands in `{earlier}`: one of the two is of another history"
            )
        }
        (end, start) => {
            format!("`{path}` begins with record {start}, and `{earlier}` ends before record {end}")
        }
    }
}

/// Reads the records of a file, and gives the tree over them and what is in front of them.
fn check_file(file: &LogFile, heads: &[&Checkpoint]) -> Result<(ExportFindings, Frontier), CliError> {
    let mut check = ExportCheck::part(file.span.start.clone(), file.span.end, heads.iter().copied());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut batch = Batch::default();
    each_line(&file.path, file.span.end - file.span.start.size(), |line| {
        batch.bytes.extend_from_slice(line);
        batch.ends.push(batch.bytes.len());
        if batch.is_full() {
            batch.hand_over(&mut check, threads);
        }
    })?;
    batch.hand_over(&mut check, threads);
    let tree = check.tree().clone();
    Ok((check.finish(), tree))
}

/// Lines that are handed on together, so that several threads have enough to do.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.ends.len() >= BATCH_LINES
    }

    fn hand_over(&mut self, check: &mut ExportCheck, threads: usize) {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let lines: Vec<&[u8]> = starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end]).collect();
        check.lines(&lines, threads);
        self.bytes.clear();
        self.ends.clear();
    }
}

/// The root over everything up to the end of an archive that was just written, once it was read back and found to be
/// what was signed.
///
/// # Errors
/// When the file is not what was signed.
pub fn checked_root(log: &Path, key: &str) -> Result<Hash, CliError> {
    let wrong = |why: &str| {
        CliError::new(format!("`{}` is not what the vault has signed: {why}", log.display()))
            .hint("nothing was taken out of the vault; look after the disk, and archive into another file")
    };
    let file = Key::parse(key)?.log_file(log, None).map_err(|failed| match failed {
        Failed::Untrusted(why) => wrong(&why),
        Failed::Unreadable(error) => error,
    })?;
    let (found, tree) = check_file(&file, &[])?;
    // A loss that was accepted once is no reason to keep records for ever; the tree is what counts.
    if found.beyond > 0 || !file.span.leads_to(&tree, &file.head) {
        let first = found.problems.first().map(ToString::to_string);
        return Err(wrong(first.as_deref().unwrap_or("its records are others")));
    }
    if let Some(problem) = check_personal(&file)?.problems.first() {
        return Err(wrong(problem));
    }
    Ok(tree.root())
}

/// Proves one record from an archive.
///
/// # Errors
/// When the archive is not there or not one, or does not have the record.
pub fn prove(number: u64, log: &Path) -> Result<u8, CliError> {
    let wrong = |why: String| CliError::new(format!("`{}` {why}", log.display()));
    let text = read_text(&proof_beside(log), PROOF_BYTES_MAX)?;
    let archive: ArchiveProof = serde_json::from_str(&text)
        .map_err(|_| CliError::new(format!("`{}` is no proof of an archive", proof_beside(log).display())))?;
    let span = span_of(&archive).ok_or_else(|| wrong("has a proof with a hash that is none".to_owned()))?;
    let (mut leaves, mut record) = (Vec::new(), None);
    each_line(log, archive.end - archive.start, |line| {
        if archive.start + leaves.len() as u64 == number {
            record = Some(line.to_vec());
        }
        leaves.push(leaf_hash(line));
    })?;
    let (Some(record), Ok(path)) = (record, span.inclusion(number, &leaves)) else {
        let (start, last) = (archive.start, archive.end.saturating_sub(1));
        return Err(wrong(format!("does not have record {number}: it holds {start} to {last}"))
            .hint("name the archive that holds it"));
    };
    let event = serde_json::from_slice(&record)
        .map_err(|_| wrong(format!("has no record {number} as Keymoat writes them")))?;
    let record = String::from_utf8(record)
        .map_err(|_| wrong(format!("has no record {number} as Keymoat writes them")))?;
    output::json(&Proof {
        event: AuditEvent { event, record, actor_name: None, address: None, user_agent: None },
        seq: number,
        checkpoint: archive.checkpoint,
        proof: path.iter().map(|hash| BASE64.encode(hash)).collect(),
        key: archive.key,
        archive: Some(ArchivePath { end: archive.end, consistency: archive.consistency }),
    })?;
    Ok(0)
}

fn span_of(proof: &ArchiveProof) -> Option<LogSpan> {
    let start = Frontier::from_roots(proof.start, hashes(&proof.frontier)?).ok()?;
    let consistency = hashes(&proof.consistency)?;
    (proof.start <= proof.end).then_some(LogSpan { start, end: proof.end, consistency })
}

fn hashes(texts: &[String]) -> Option<Vec<Hash>> {
    texts.iter().map(|text| BASE64.decode(text).ok()?.try_into().ok()).collect()
}

/// What comparing names and addresses with the records found.
#[derive(Default)]
struct PersonalFindings {
    checked: u64,
    problems: Vec<String>,
}

/// A line of names and addresses.
#[derive(Deserialize)]
struct PersonalLine {
    seq: u64,
    salt: String,
    personal: Personal,
}

/// Compares the names and addresses beside a file, if there are any, with what the records say of them.
fn check_personal(file: &LogFile) -> Result<PersonalFindings, CliError> {
    let path = personal_beside(&file.path);
    let mut found = PersonalFindings::default();
    if !path.exists() {
        return Ok(found);
    }
    let mut commitments = BTreeMap::new();
    let mut line_number = 0u64;
    let mut wrong = Vec::new();
    each_line(&path, 0, |line| {
        line_number += 1;
        let parsed = serde_json::from_slice::<PersonalLine>(line).ok();
        match parsed.and_then(|line| Some((line.seq, line.personal.commit(&salt(&line.salt)?)))) {
            Some((seq, commitment)) => drop(commitments.insert(seq, commitment)),
            None => {
                wrong.push(format!("line {line_number}: it is no name and address as Keymoat writes them"))
            }
        }
    })?;
    each_line(&file.path, 0, |line| {
        let Ok(event) = Event::parse(line) else { return };
        match commitments.remove(&event.seq) {
            Some(commitment) if event.personal == Some(commitment) => found.checked += 1,
            Some(_) => wrong
                .push(format!("record {}: the name or address is not the one that was recorded", event.seq)),
            None => {}
        }
    })?;
    wrong.extend(commitments.keys().map(|seq| format!("record {seq}: there is no such record")));
    wrong.truncate(MAX_PROBLEMS);
    found.problems = wrong.into_iter().map(|why| format!("{}: {why}", path.display())).collect();
    Ok(found)
}

fn salt(hex: &str) -> Option<[u8; 32]> {
    let bytes =
        hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
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

    /// A file of records with what stands beside it: a proof, or, where it begins with the first record, a checkpoint.
    fn log_file(&self, path: &Path, checkpoint: Option<&Path>) -> Result<LogFile, Failed> {
        let proof = proof_beside(path);
        if !proof.exists() {
            let proof = checkpoint.map_or_else(|| checkpoint_beside(path), Path::to_owned);
            let head = self.head_in(&proof)?;
            let span = LogSpan { start: Frontier::new(), end: head.size(), consistency: Vec::new() };
            return Ok(LogFile { path: path.to_owned(), span, head, proof, may_go_on: true });
        }
        if checkpoint.is_some() {
            let why = format!("`{}` says which checkpoint is meant", proof.display());
            return Err(CliError::new(why).hint("name the other one with --since").into());
        }
        let untrusted = |why: &str| Failed::Untrusted(format!("`{}` {why}", proof.display()));
        let text = read_text(&proof, PROOF_BYTES_MAX)?;
        let stated: ArchiveProof =
            serde_json::from_str(&text).map_err(|_| untrusted("is no proof of an archive"))?;
        let head = self.head(&stated.checkpoint, &format!("the checkpoint in `{}`", proof.display()))?;
        let span = span_of(&stated).ok_or_else(|| untrusted("has a hash that is none"))?;
        let may_go_on = span.end == head.size();
        Ok(LogFile { path: path.to_owned(), span, head, proof, may_go_on })
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
    let hashes_in = |texts: &[String]| hashes(texts).ok_or_else(|| unreadable("a hash in it is none"));
    let path = hashes_in(&proof.proof)?;
    let record = proof.event.record.as_bytes();
    let is_in = match &proof.archive {
        None => is_included(record, proof.seq, &head, &path),
        Some(archive) => {
            let consistency = hashes_in(&archive.consistency)?;
            is_included_up_to(record, proof.seq, archive.end, &path, &head, &consistency)
        }
    };
    if !is_in {
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
    for number in 1u64.. {
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
        if number.is_multiple_of(BATCH_LINES as u64) {
            bar.set_position(number);
        }
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
/// What two threads work on for some milliseconds.
const BATCH_LINES: usize = 8192;
/// Where records are long, so many bytes make a batch.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
