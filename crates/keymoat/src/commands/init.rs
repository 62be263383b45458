//! `keymoat init`, and the making of a vault that `keymoat serve` shares.

use clap::Args;
use keymoat_crypto::{Argon2Params, MasterKey, SecretBytes, SignInCode};
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{NewSlot, NewVault, Vault};

use super::private_file::PrivateFile;
use crate::Context;
use crate::error::{CliError, REFUSED};
use crate::{master_key, os_user, output, prompt};

/// Flags of `init`.
#[derive(Debug, Clone, Args)]
pub struct Init {
    #[command(flatten)]
    how: How,
}

/// How a vault is made.
#[derive(Debug, Clone, Args)]
pub struct How {
    /// Where the master key comes from.
    #[arg(long, value_enum, default_value_t = Source::Key)]
    master_key: Source,
    /// Shares needed to open the vault.
    #[arg(long, default_value_t = 2, requires_if("shamir", "master_key"))]
    needed: u8,
    /// Shares to make.
    #[arg(long, default_value_t = 3)]
    shares: u8,
    /// Make a new vault although one was here and is gone.
    #[arg(long)]
    new_vault: bool,
    /// Environments to make.
    #[arg(long, value_delimiter = ',', default_values_t = ["dev".to_owned(), "staging".to_owned(), "prod".to_owned()])]
    environments: Vec<String>,
}

impl Default for How {
    fn default() -> Self {
        let environments = ["dev", "staging", "prod"].map(str::to_owned).to_vec();
        Self { master_key: Source::Key, needed: 2, shares: 3, new_vault: false, environments }
    }
}

/// Where a master key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// A key: the one that KEYMOAT_MASTER_KEY and the like give, else a new one in a file of its own.
    Key,
    /// A passphrase.
    Passphrase,
    /// A key split in shares, of which some are needed.
    Shamir,
}

/// A vault that was just made.
pub struct Made {
    /// The vault.
    pub vault: Vault,
    /// Signs in the first administrator, once.
    pub code: SignInCode,
    /// What to tell the operator about the master key.
    pub master_key: String,
    /// Shares to hand out, if the key was split.
    pub shares: Vec<SecretBytes>,
}

impl Init {
    /// Makes a vault.
    ///
    /// # Errors
    /// When there is one already, or it cannot be made.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        let made = make(context, &self.how).await?;
        output::say(&format!("made the vault {}", made.vault.instance()));
        tell(context, &made);
        made.vault.close().await;
        Ok(0)
    }
}

/// Makes a vault in the data directory.
///
/// # Errors
/// When there is one already, or it cannot be made.
pub async fn make(context: &Context, how: &How) -> Result<Made, CliError> {
    let environments = how.environments.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
    let empty = match context.places.open_vault()? {
        Err(empty) => empty,
        Ok(sealed) => {
            return Err(CliError::new(format!(
                "there is already a vault in `{}`",
                context.places.data.display()
            ))
            .hint(format!("it is {}; `keymoat serve` opens it", sealed.instance()))
            .exit(REFUSED));
        }
    };
    check_not_gone(context, how.new_vault)?;
    let instance = uuid::Builder::from_random_bytes(keymoat_crypto::bytes()).into_uuid();
    let (slot, master_key, shares) = new_slot(context, how, instance)?;
    let new = NewVault { instance, slot, os_user: os_user::current()?, environments };
    let (vault, code) = empty.create(new, context.surroundings()?).await?;
    let mut place = PrivateFile::create(&place_file(context, instance))?;
    place.write(context.places.data.as_os_str().as_encoded_bytes())?;
    place.finish()?;
    Ok(Made { vault, code, master_key, shares })
}

/// A vault that was in this directory and is gone is not replaced by a new one without a word: that would be a way
/// around its checkpoint, and an unmounted disk would look like a fresh start.
fn check_not_gone(context: &Context, new_vault: bool) -> Result<(), CliError> {
    if new_vault {
        return Ok(());
    }
    // No directory of configuration: nothing was ever made.
    let Ok(entries) = std::fs::read_dir(&context.places.config) else { return Ok(()) };
    let data = context.places.data.as_os_str().as_encoded_bytes();
    let places = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut places =
        places.filter(|path| path.extension().is_some_and(|extension| extension == PLACE_EXTENSION));
    let Some(gone) = places.find(|path| std::fs::read(path).is_ok_and(|place| place == data)) else {
        return Ok(());
    };
    let name = gone.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Err(CliError::new(format!("the vault {name} was in `{}` and is gone", context.places.data.display())).hint(
        "is its disk mounted? `keymoat restore` puts a backup back; --new-vault makes a new one in its place",
    ))
}

/// Remembers, outside of the data directory, where an instance's data is.
fn place_file(context: &Context, instance: uuid::Uuid) -> std::path::PathBuf {
    context.places.config.join(format!("{instance}.{PLACE_EXTENSION}"))
}

/// Says where things are and how to sign in.
pub fn tell(context: &Context, made: &Made) {
    output::say(&format!("  data         {}", context.places.data.display()));
    output::say(&format!("  master key   {}", made.master_key));
    output::say(&format!("  checkpoint   {}", made.vault.outside_file().display()));
    for share in &made.shares {
        // EXPOSE: a share is shown once, to whoever makes the vault, to be handed out.
        share.expose(|text| output::bytes(&[text.as_slice(), b"\n"].concat()));
    }
    output::say("");
    // EXPOSE: the code is shown once, to whoever makes the vault; it is good for one sign-in within half an hour.
    let code = made.code.text().expose(|text| String::from_utf8_lossy(text).into_owned());
    output::say(&format!("You ({}) may do everything here.", os_user::current().unwrap_or_default()));
    output::say(&format!(
        "An administrator elsewhere signs in with `keymoat login`, account `admin`, code {code}"
    ));
    output::say("(once, within 30 minutes).");
}

fn new_slot(
    context: &Context,
    how: &How,
    instance: uuid::Uuid,
) -> Result<(NewSlot, String, Vec<SecretBytes>), CliError> {
    match how.master_key {
        Source::Key => key_slot(context, instance),
        Source::Passphrase => {
            let passphrase = new_passphrase(context)?;
            let argon2 = Argon2Params::generate();
            let master =
                MasterKey::from_passphrase(&passphrase, &argon2).map_err(|e| CliError::new(e.to_string()))?;
            let slot = NewSlot { source: SlotSource::Passphrase { argon2 }, master };
            Ok((slot, "the passphrase; without it nothing can be recovered".to_owned(), Vec::new()))
        }
        Source::Shamir => {
            let master = MasterKey::generate();
            let shares = master.split(how.needed, how.shares).map_err(|e| CliError::new(e.to_string()))?;
            let texts = shares.iter().map(keymoat_crypto::Share::to_text).collect();
            let slot =
                NewSlot { source: SlotSource::Shamir { needed: how.needed, count: how.shares }, master };
            let told = format!("split: any {} of the {} shares below open the vault", how.needed, how.shares);
            Ok((slot, told, texts))
        }
    }
}

/// A key that the surroundings give, or a new one in a file of its own.
fn key_slot(
    context: &Context,
    instance: uuid::Uuid,
) -> Result<(NewSlot, String, Vec<SecretBytes>), CliError> {
    let path = context.places.master_key(instance);
    let (master, told) = match master_key::key_text(&path, &context.variables)? {
        Some(text) => {
            let master = MasterKey::parse(&text)
                .map_err(|e| CliError::new(format!("the master key cannot be used: {e}")))?;
            (master, "from where it came; keep it there".to_owned())
        }
        None => {
            let master = MasterKey::generate();
            master_key::write_key_file(&path, &master)?;
            (
                master,
                format!("{} (keep a copy elsewhere: without it nothing can be recovered)", path.display()),
            )
        }
    };
    Ok((NewSlot { source: SlotSource::Key, master }, told, Vec::new()))
}

fn new_passphrase(context: &Context) -> Result<SecretBytes, CliError> {
    let from_elsewhere =
        context.variables.passphrase.is_some() || context.variables.passphrase_file.is_some();
    let first = master_key::passphrase(&context.variables)?;
    if !from_elsewhere && !first.ct_eq(&prompt::secret("The same passphrase again")?) {
        return Err(CliError::new("the two passphrases differ"));
    }
    check_passphrase(&first)?;
    Ok(first)
}

/// Refuses a passphrase that is too short to be the only thing between a thief and the vault.
///
/// # Errors
/// When it is.
pub fn check_passphrase(passphrase: &SecretBytes) -> Result<(), CliError> {
    if passphrase.len() >= PASSPHRASE_BYTES_MIN {
        return Ok(());
    }
    Err(CliError::new(format!("a passphrase has at least {PASSPHRASE_BYTES_MIN} characters"))
        .hint("a few random words are easy to remember and hard to guess"))
}

/// NIST SP 800-63B for a secret that is the only factor.
const PASSPHRASE_BYTES_MIN: usize = 15;
/// What the files that remember a data directory end in.
const PLACE_EXTENSION: &str = "place";
