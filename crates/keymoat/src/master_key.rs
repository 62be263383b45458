//! Where the master key comes from on this machine, and how a new one is kept.
//!
//! Looked at in this order; the first that is there is used: `KEYMOAT_MASTER_KEY`, `KEYMOAT_MASTER_KEY_FILE`,
//! `KEYMOAT_MASTER_KEY_COMMAND`, a systemd credential called `keymoat.master-key`, the instance's key file, a
//! passphrase, shares. A source that is named but cannot be read is an error, never a step to the next one.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use keymoat_crypto::{MasterKey, SecretBytes, Share};
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{KeyAtHand, MasterKeyOffer, SealedVault};

use crate::error::CliError;
use crate::place::Places;
use crate::prompt;
use crate::variables::Variables;

/// Finds what opens this vault.
///
/// # Errors
/// When a named source cannot be read, or there is none.
pub fn offer_for(
    vault: &SealedVault,
    places: &Places,
    variables: &Variables,
) -> Result<MasterKeyOffer, CliError> {
    let opens: Vec<Opens> = vault.slots().map(|slot| Opens::from(&slot.source)).collect();
    offer(vault.instance(), &opens, places, variables)
}

/// What opens this vault, where it can be had now; none when somebody has to bring it, as a passphrase or shares.
///
/// # Errors
/// When a named source cannot be read, or nobody could bring anything else.
pub fn at_hand(
    vault: &SealedVault,
    places: &Places,
    variables: &Variables,
) -> Result<Option<MasterKeyOffer>, CliError> {
    let opens: Vec<Opens> = vault.slots().map(|slot| Opens::from(&slot.source)).collect();
    found(vault.instance(), opens, places, variables, std::io::stdin().is_terminal())
}

/// Looks for what opens a vault while it is served: in the same places as at the start, but nobody is asked, and what
/// the environment held itself is no longer there.
pub fn again(places: &Places, variables: &Variables) -> KeyAtHand {
    let (places, variables) = (places.clone(), variables.without_secrets());
    Arc::new(move |instance, sources| {
        let opens = sources.iter().map(Opens::from).collect();
        found(instance, opens, &places, &variables, false).map_err(|error| error.to_string())
    })
}

fn found(
    instance: uuid::Uuid,
    opens: Vec<Opens>,
    places: &Places,
    variables: &Variables,
    can_ask: bool,
) -> Result<Option<MasterKeyOffer>, CliError> {
    let has_key = opens.contains(&Opens::Key) && key_text(&places.master_key(instance), variables)?.is_some();
    if has_key || opens.iter().all(|opens| *opens == Opens::Key) {
        return offer(instance, &opens, places, variables).map(Some);
    }
    let is_at_hand = |opens: &Opens| match opens {
        Opens::Key => false,
        Opens::Passphrase => can_ask || variables.passphrase.is_some() || variables.passphrase_file.is_some(),
        Opens::Shares { .. } => can_ask || variables.shares_file.is_some(),
    };
    let at_hand: Vec<Opens> = opens.into_iter().filter(is_at_hand).collect();
    match at_hand.as_slice() {
        [] => Ok(None),
        some => offer(instance, some, places, variables).map(Some),
    }
}

/// What a slot is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// A key text.
    Key,
    /// A passphrase.
    Passphrase,
    /// Shares of a key.
    Shares {
        /// How many.
        needed: u8,
    },
}

impl From<&SlotSource> for Opens {
    fn from(source: &SlotSource) -> Self {
        match source {
            SlotSource::Key => Opens::Key,
            SlotSource::Passphrase { .. } => Opens::Passphrase,
            SlotSource::Shamir { needed, .. } => Opens::Shares { needed: *needed },
        }
    }
}

/// Finds what opens one of these slots of a vault.
///
/// # Errors
/// When a named source cannot be read, or there is none.
pub fn offer(
    instance: uuid::Uuid,
    slots: &[Opens],
    places: &Places,
    variables: &Variables,
) -> Result<MasterKeyOffer, CliError> {
    let path = places.master_key(instance);
    if slots.contains(&Opens::Key)
        && let Some(text) = key_text(&path, variables)?
    {
        return Ok(MasterKeyOffer::Key(text));
    }
    if slots.contains(&Opens::Passphrase) {
        return Ok(MasterKeyOffer::Passphrase(passphrase(variables)?));
    }
    let needed =
        slots.iter().find_map(|slot| if let Opens::Shares { needed } = slot { Some(*needed) } else { None });
    if let Some(needed) = needed {
        return Ok(MasterKeyOffer::Shares(shares(needed, variables)?));
    }
    Err(CliError::new(format!("there is no master key for the vault {instance}")).hint(format!(
        "it was looked for in KEYMOAT_MASTER_KEY, KEYMOAT_MASTER_KEY_FILE, KEYMOAT_MASTER_KEY_COMMAND, a systemd credential `{CREDENTIAL}` and `{}`",
        path.display()
    )))
}

/// The key text for an instance whose key file would be `file`; `None` when no source is there.
pub fn key_text(file: &Path, variables: &Variables) -> Result<Option<SecretBytes>, CliError> {
    if let Some(text) = &variables.master_key {
        return Ok(Some(text.duplicate()));
    }
    if let Some(path) = &variables.master_key_file {
        return read_named_file("master key", path, variables).map(Some);
    }
    if let Some(command) = &variables.master_key_command {
        return run_key_command(command).map(Some);
    }
    if let Some(path) = variables.credentials_directory.as_ref().map(|dir| dir.join(CREDENTIAL))
        && path.exists()
    {
        return read_secret_file(&path).map(Some);
    }
    if file.exists() { read_key_file(file).map(Some) } else { Ok(None) }
}

/// Writes a new master key into a file of its own (mode 0600) and syncs it, before anything depends on it.
///
/// # Errors
/// When there is such a file already or it cannot be written.
pub fn write_key_file(path: &Path, key: &MasterKey) -> Result<(), CliError> {
    let wrong = |e: std::io::Error| CliError::file("write the master key file", path, &e);
    let dir = path.parent().unwrap_or(Path::new("."));
    keymoat_store::make_private_dir(dir).map_err(wrong)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(wrong)?;
    // EXPOSE: this is the file in which the master key is kept.
    key.to_text().expose(|text| file.write_all(text)).map_err(wrong)?;
    file.write_all(b"\n").map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(wrong)
}

/// A passphrase from `KEYMOAT_PASSPHRASE`, `KEYMOAT_PASSPHRASE_FILE` or a prompt.
///
/// # Errors
/// When there is none and nobody to ask.
pub fn passphrase(variables: &Variables) -> Result<SecretBytes, CliError> {
    if let Some(text) = &variables.passphrase {
        return Ok(text.duplicate());
    }
    if let Some(path) = &variables.passphrase_file {
        return read_named_file("passphrase", path, variables);
    }
    prompt::secret_or("Passphrase of the vault", "name its file in KEYMOAT_PASSPHRASE_FILE")
}

/// Reads a file that holds nothing but a secret text; a final line end is not part of it.
///
/// # Errors
/// When it cannot be read or is too large to be one.
pub fn read_secret_file(path: &Path) -> Result<SecretBytes, CliError> {
    Ok(prompt::without_line_end(read_secret_bytes(path)?))
}

/// Reads a file that holds nothing but a secret, as it is.
///
/// # Errors
/// When it cannot be read or is too large to be one.
pub fn read_secret_bytes(path: &Path) -> Result<SecretBytes, CliError> {
    let wrong = |e: std::io::Error| CliError::file("read", path, &e);
    let size = std::fs::metadata(path).map_err(wrong)?.len();
    if size > SECRET_FILE_MAX {
        return Err(CliError::new(format!(
            "`{}` is too large to hold a secret ({size} bytes)",
            path.display()
        )));
    }
    Ok(SecretBytes::new(std::fs::read(path).map_err(wrong)?))
}

/// Reads a master key file. One that others can read is no secret any more.
///
/// # Errors
/// When others can read it, or it cannot be read.
pub fn read_key_file(path: &Path) -> Result<SecretBytes, CliError> {
    read_private_file("master key", path)
}

/// As [`read_private_file`], for a file that the environment names. systemd lets the service read a credential in ways
/// that its mode does not tell apart from letting others, and keeps the directory to the service.
///
/// # Errors
/// When others can read it, or it cannot be read.
pub fn read_named_file(what: &str, path: &Path, variables: &Variables) -> Result<SecretBytes, CliError> {
    match variables.credentials_directory.as_ref().is_some_and(|dir| path.starts_with(dir)) {
        true => read_secret_file(path),
        false => read_private_file(what, path),
    }
}

/// Reads a file with something that opens the vault or signs in, called `what`. One that others can read is no secret
/// any more.
///
/// # Errors
/// When others can read it, or it cannot be read.
pub fn read_private_file(what: &str, path: &Path) -> Result<SecretBytes, CliError> {
    let wrong = |e: std::io::Error| CliError::file(&format!("read the {what} file"), path, &e);
    let about = std::fs::metadata(path).map_err(wrong)?;
    let mode = about.mode() & 0o777;
    // Pipes and the like are as private as who made them.
    if about.is_file() && mode & 0o077 != 0 {
        return Err(CliError::new(format!(
            "others can read the {what} file `{}` (mode {mode:03o})",
            path.display()
        ))
        .hint(format!(
            "`chmod 600 {}`, and change what is in it if anybody may have read it",
            path.display()
        )));
    }
    read_secret_file(path)
}

fn run_key_command(command: &str) -> Result<SecretBytes, CliError> {
    let failed = |why: String| CliError::new(format!("KEYMOAT_MASTER_KEY_COMMAND {why}"));
    let output = Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::inherit())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|e| failed(format!("could not be run: {e}")))?;
    if !output.status.success() {
        return Err(failed(format!("failed: {}", output.status)));
    }
    Ok(SecretBytes::new(output.stdout))
}

fn shares(needed: u8, variables: &Variables) -> Result<Vec<Share>, CliError> {
    let wrong = |e: keymoat_crypto::ShareError| CliError::new(e.to_string());
    if let Some(path) = &variables.shares_file {
        return parse_shares(&read_named_file("shares", path, variables)?);
    }
    (1..=needed)
        .map(|n| {
            Share::parse(&prompt::secret_or(
                &format!("Share {n} of {needed}"),
                "name a file with one share a line in KEYMOAT_SHARES_FILE",
            )?)
            .map_err(wrong)
        })
        .collect()
}

/// Shares, one a line.
///
/// # Errors
/// When a line is not a share.
pub fn parse_shares(text: &SecretBytes) -> Result<Vec<Share>, CliError> {
    let wrong = |e: keymoat_crypto::ShareError| CliError::new(e.to_string());
    // EXPOSE: each line is parsed into a share of its own.
    text.expose(|bytes| {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        lines.map(|line| Share::parse(&SecretBytes::from_slice(line)).map_err(wrong)).collect()
    })
}

/// The name of the systemd credential.
const CREDENTIAL: &str = "keymoat.master-key";
/// A key, a passphrase or a handful of shares is far smaller.
const SECRET_FILE_MAX: u64 = 128 * 1024;
