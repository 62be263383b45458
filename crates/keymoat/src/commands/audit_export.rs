//! `keymoat audit export`: the records under one signed checkpoint as JSON lines, and the checkpoint beside them, so that
//! the two can be checked without the vault.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use keymoat_core::checkpoint::Checkpoint;
use keymoat_server::wire::ArchiveProof;
use keymoat_server::{ARCHIVE_PROOF_HEADER, CHECKPOINT_HEADER, KEY_HEADER};

use super::audit::Filters;
use super::private_file::PrivateFile;
use crate::Context;
use crate::client::{Client, query};
use crate::error::CliError;
use crate::output;

/// Flags of `audit export`.
#[derive(Debug, Clone, Args)]
pub struct Export {
    /// The file; its checkpoint is written beside it, as FILE.checkpoint. Stdout when left out.
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    #[command(flatten)]
    filters: Filters,
}

/// What the answer says before its first record.
pub struct Head {
    note: String,
    key: String,
    /// Records under the checkpoint.
    size: u64,
    /// What ties the records to the checkpoint, when they are not all that are under it.
    pub proof: Option<ArchiveProof>,
}

impl Export {
    /// Writes the log out.
    ///
    /// # Errors
    /// When a file is there already or cannot be written, or what the vault says; no half an export is left then.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let files = self.output.as_deref().map(|log| (log, checkpoint_beside(log)));
        if let Some((log, note)) = &files {
            not_there(log)?;
            if !self.filters.are_given() {
                not_there(note)?;
                not_there(&proof_beside(log))?;
            }
        }
        let (head, count) = super::with_client(context, async |client: &Client| match &files {
            None => {
                self.copy(context, client, |piece| {
                    output::bytes(piece);
                    Ok(())
                })
                .await
            }
            Some((log, note)) => {
                let mut file = PrivateFile::create(log)?;
                let (head, count) = self.copy(context, client, |piece| file.write(piece)).await?;
                if !self.filters.are_given() {
                    let mut beside = PrivateFile::create(note)?;
                    beside.write(head.note.as_bytes())?;
                    beside.finish()?;
                    if let Some(proof) = &head.proof {
                        write_proof(log, proof)?;
                    }
                }
                file.finish()?;
                Ok((head, count))
            }
        })
        .await?;
        self.tell(&head, count);
        Ok(0)
    }

    fn tell(&self, head: &Head, count: u64) {
        if self.filters.are_given() {
            output::say(&format!("{count} of {} records", head.size));
            output::warn(
                "a part of the log cannot be verified as a whole: export all of it for that, or prove single records with `audit prove`",
            );
            return;
        }
        output::say(&format!("{count} records, all under the signed checkpoint"));
        if let Some(proof) = &head.proof {
            output::say(&format!("the first {} are in archives and were left out", proof.start));
        }
        output::say(&format!("key  {}", head.key));
        if let Some(log) = &self.output {
            let log = log.display();
            output::say(&format!("check it anywhere: keymoat audit verify --export {log} --key KEY"));
        }
    }

    async fn copy(
        &self,
        context: &Context,
        client: &Client,
        mut put: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(Head, u64), CliError> {
        let (head, count) = copy_lines(client, &self.url(context)?, &mut put).await?;
        let (first, last) = head.range();
        if !self.filters.are_given() && count != last - first {
            return Err(CliError::new(format!(
                "the export has {count} records, and the checkpoint covers {} more than those in archives",
                last - first
            ))
            .hint("`keymoat audit verify` says which are missing"));
        }
        Ok((head, count))
    }

    /// An export is of the whole log, whatever environment the shell is set to, unless a filter is given.
    fn url(&self, context: &Context) -> Result<String, CliError> {
        let mut pairs = Vec::new();
        let company = context.company()?;
        if self.filters.are_given() {
            pairs.push(("environment", context.global.env.as_deref()));
            pairs.push(("company", company.as_ref().map(keymoat_core::names::Company::as_str)));
        }
        pairs.extend(self.filters.pairs());
        Ok(format!("/api/v1/audit/export{}", query(&pairs)))
    }
}

/// Hands on the lines of an answer, and gives what stands before the first and how many there were.
pub async fn copy_lines(
    client: &Client,
    url: &str,
    mut put: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<(Head, u64), CliError> {
    let (headers, mut body) = client.stream_with_headers(url).await?;
    let head = Head::read(&headers)?;
    let (first, last) = head.range();
    let progress = progress(last.saturating_sub(first));
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            progress.finish_and_clear();
            CliError::new(format!("the export broke off: {e}"))
        })?;
        let Ok(piece) = frame.into_data() else { continue };
        put(&piece)?;
        count += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        progress.set_position(count);
    }
    progress.finish_and_clear();
    Ok((head, count))
}

impl Head {
    /// The numbers of the first record and of the first after the last.
    fn range(&self) -> (u64, u64) {
        self.proof.as_ref().map_or((0, self.size), |proof| (proof.start, proof.end))
    }

    fn read(headers: &HeaderMap) -> Result<Self, CliError> {
        let read = || {
            let note = BASE64.decode(headers.get(CHECKPOINT_HEADER)?).ok()?;
            let note = String::from_utf8(note).ok()?;
            let (checkpoint, _) = Checkpoint::parse(&note).ok()?;
            let key = headers.get(KEY_HEADER)?.to_str().ok()?.to_owned();
            let proof = match headers.get(ARCHIVE_PROOF_HEADER) {
                Some(proof) => Some(serde_json::from_slice(&BASE64.decode(proof).ok()?).ok()?),
                None => None,
            };
            Some(Self { size: checkpoint.size(), note, key, proof })
        };
        read().ok_or_else(|| {
            CliError::new("the server's answer has no checkpoint")
                .hint("are this program and the server of the same version?")
        })
    }
}

/// Where the checkpoint of an exported log stands.
pub fn checkpoint_beside(log: &Path) -> PathBuf {
    beside(log, ".checkpoint")
}

/// Where the proof of an archive stands.
pub fn proof_beside(log: &Path) -> PathBuf {
    beside(log, ".proof")
}

/// Where the names and addresses of an archive stand.
pub fn personal_beside(log: &Path) -> PathBuf {
    beside(log, ".personal")
}

/// Writes what proves the records of a file.
///
/// # Errors
/// When it cannot be written, or something stands there.
pub fn write_proof(log: &Path, proof: &ArchiveProof) -> Result<(), CliError> {
    let mut text = serde_json::to_vec_pretty(proof)
        .map_err(|e| CliError::new(format!("cannot write the proof: {e}")))?;
    text.push(b'\n');
    let mut file = PrivateFile::create(&proof_beside(log))?;
    file.write(&text)?;
    file.finish_new()
}

fn beside(log: &Path, what: &str) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(what);
    name.into()
}

/// # Errors
/// When something stands at a place.
pub fn not_there(path: &Path) -> Result<(), CliError> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(CliError::new(format!("`{}` is there already", path.display())).hint("name another file"))
}

/// Hidden where nobody watches.
fn progress(records: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} records");
    ProgressBar::new(records).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
