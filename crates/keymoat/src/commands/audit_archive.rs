//! `keymoat audit archive`: old records go into a file with what proves them, and only when that file was read back and
//! found whole out of the vault. It never writes over a file, and takes nothing away that it has not kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use http::Method;
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use keymoat_server::wire::{ArchiveClaim, Archived};
use keymoat_vault::Clock as _;

use super::audit_export::{copy_lines, not_there, personal_beside, proof_beside, write_proof};
use super::audit_offline::checked_root;
use super::duration;
use super::private_file::PrivateFile;
use crate::Context;
use crate::client::{Client, query};
use crate::clock::SystemClock;
use crate::error::CliError;
use crate::output::{self, Format};

/// Flags of `audit archive`.
#[derive(Debug, Clone, Args)]
pub struct Archive {
    /// Only records from before this time (RFC 3339), or older than this (400d); at least 90 days.
    #[arg(long, value_name = "TIME", value_parser = Before::parse)]
    before: Before,
    /// The file, which must not be there; what proves it is written beside it, as FILE.proof.
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: PathBuf,
    /// Write names and addresses too, as FILE.personal; without it they are gone with the records.
    #[arg(long)]
    personal: bool,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// A time, or how long ago it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Time(Timestamp),
    Ago(Duration),
}

impl Before {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let seconds =
            duration::seconds(text).map_err(|e| format!("{e}; or a time such as 2027-01-31T00:00:00Z"))?;
        Ok(Self::Ago(Duration::from_secs(seconds)))
    }

    fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Ago(ago) => {
                let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
                now.checked_sub(ago).unwrap_or(Timestamp::MIN)
            }
        }
    }
}

/// An archive that is on the disk, whole.
struct Written {
    claim: ArchiveClaim,
    count: u64,
    bytes: u64,
}

impl Archive {
    /// Archives what is old enough.
    ///
    /// # Errors
    /// When a file is there already or cannot be written, or what the vault says.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        for path in [self.output.clone(), proof_beside(&self.output), personal_beside(&self.output)] {
            not_there(&path)?;
        }
        let archived = super::with_client(context, async |client: &Client| {
            let Some(written) = self.write(client).await? else { return Ok(None) };
            let archived: Archived = client
                .call(Method::POST, "/api/v1/audit/archive", Some(&written.claim))
                .await
                .map_err(|error| self.kept_all_the_same(error))?;
            Ok(Some((written, archived)))
        })
        .await?;
        match (archived, context.global.format) {
            (None, Format::Text) => output::say("nothing to archive: no 256 records in a row are that old"),
            (None, Format::Json) => output::line("null"),
            (Some((_, archived)), Format::Json) => output::json(&archived)?,
            (Some((written, archived)), Format::Text) => self.tell(&written, &archived),
        }
        Ok(0)
    }

    fn tell(&self, written: &Written, archived: &Archived) {
        output::line(&format!(
            "archived {} records in `{}` ({} bytes); what proves them is in `{}`",
            written.count,
            self.output.display(),
            written.bytes,
            proof_beside(&self.output).display()
        ));
        output::line(&format!(
            "{} records left the vault; {} archived ones stay, because they answer for something that stands",
            archived.dropped, archived.kept
        ));
        output::say(&format!(
            "check it anywhere: keymoat audit verify --export {} --key KEY",
            self.output.display()
        ));
    }

    /// Writes the files and reads them back; nothing when there is nothing to archive.
    async fn write(&self, client: &Client) -> Result<Option<Written>, CliError> {
        let before = self.before.time(SystemClock.now()).to_string();
        let url = format!("/api/v1/audit/archive{}", query(&[("before", Some(before.as_str()))]));
        let mut file = PrivateFile::create(&self.output)?;
        let mut bytes = 0;
        let (head, count) = copy_lines(client, &url, |piece| {
            bytes += piece.len() as u64;
            file.write(piece)
        })
        .await?;
        let Some(proof) = head.proof.filter(|_| count > 0) else { return Ok(None) };
        let personal = match self.personal {
            true => Some(self.write_personal(client, proof.start, proof.end).await?),
            false => None,
        };
        // The proof comes first: records without it would be of no use.
        write_proof(&self.output, &proof)?;
        if let Some(personal) = personal {
            personal.finish_new()?;
        }
        file.finish_new()?;
        let root = checked_root(&self.output, &proof.key)?;
        let claim = ArchiveClaim { end: proof.end, root: BASE64.encode(root), reason: self.reason.clone() };
        Ok(Some(Written { claim, count, bytes }))
    }

    async fn write_personal(&self, client: &Client, start: u64, end: u64) -> Result<PrivateFile, CliError> {
        let mut file = PrivateFile::create(&personal_beside(&self.output))?;
        let url = format!("/api/v1/audit/archive/personal?start={start}&end={end}");
        let mut body = client.stream(Method::GET, &url, None::<&()>).await?;
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|e| CliError::new(format!("the names and addresses broke off: {e}")))?;
            if let Ok(piece) = frame.into_data() {
                file.write(&piece)?;
            }
        }
        Ok(file)
    }

    fn kept_all_the_same(&self, error: CliError) -> CliError {
        let file: &Path = &self.output;
        let said = error.hint.map(|hint| format!("{hint}; ")).unwrap_or_default();
        let hint = format!(
            "{said}`{}` is whole; the records in it may still be in the vault, and then the next archive has them again",
            file.display()
        );
        CliError { hint: Some(hint), ..error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths_of_time() {
        let now: Timestamp = "2027-06-01T00:00:00Z".parse().unwrap();
        let check = |text: &str, expected: Option<&str>| {
            let time = Before::parse(text).ok().map(|before| before.time(now).to_string());
            assert_eq!(time.as_deref(), expected, "{text}");
        };
        check("2027-01-31T12:00:00Z", Some("2027-01-31T12:00:00Z"));
        check("1d", Some("2027-05-31T00:00:00Z"));
        check("400d", Some("2026-04-27T00:00:00Z"));
        check("2027-01-31", None);
        check("a year", None);
        check("", None);
    }
}
