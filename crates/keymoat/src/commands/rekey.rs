//! `keymoat rekey`: the vault's own keys. A master key, passphrase or share goes to the vault only through a door on
//! this machine, never over a network. The keys at providers are not changed here.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use keymoat_crypto::{Argon2Params, MasterKey, SecretBytes, Share};
use keymoat_server::wire::{
    AddSlot as WireAddSlot, DataKeyRotated, KeepSlot, KeyOffer, Keys, PepperRotated, RootRotated,
    RotateDataKey, RotateRoot, Slot, Status, WireSecret,
};
use keymoat_vault::MasterKeyOffer;

use super::time_text;
use crate::client::Client;
use crate::error::{CliError, REFUSED};
use crate::output::{self, Format};
use crate::{Context, master_key, prompt};

/// Subcommands of `rekey`.
#[derive(Debug, Clone, Subcommand)]
pub enum Rekey {
    /// List the ways to open the vault, its data keys and its peppers.
    List,
    /// Add a way to open the vault, having shown that one opens it.
    AddSlot(AddSlot),
    /// Remove a way to open the vault, having shown that another one opens it.
    RemoveSlot(RemoveSlot),
    /// Give an environment a new data key, or with --company a company in it, and encrypt everything there anew.
    DataKey {
        /// The environment.
        environment: keymoat_core::names::Environment,
    },
    /// Give the digests of tokens a new pepper; tokens stay valid.
    Pepper,
    /// Give the vault a new root key. The slot that the present master key opens is kept.
    Root(Root),
}

/// Flags of `rekey root`.
#[derive(Debug, Clone, Args)]
pub struct Root {
    /// Let go of every slot that the present master key does not open; add them anew afterwards.
    #[arg(long)]
    drop_others: bool,
    /// The file of the master key whose slot is kept; looked for as for every command when left out.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key_file: Option<PathBuf>,
}

/// Flags of `rekey add-slot`.
#[derive(Debug, Clone, Args)]
pub struct AddSlot {
    /// What opens it.
    #[arg(long, value_enum)]
    source: Source,
    /// The new master key's file; one beside the present one when left out.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// A file that holds the new passphrase; asked for twice when left out.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
    /// The file of a master key that opens the vault now; looked for as for every command when left out.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key_file: Option<PathBuf>,
    /// Shares needed.
    #[arg(long, value_name = "K", default_value_t = 2)]
    needed: u8,
    /// Shares to make.
    #[arg(long, value_name = "N", default_value_t = 3)]
    shares: u8,
}

/// Flags of `rekey remove-slot`.
#[derive(Debug, Clone, Args)]
pub struct RemoveSlot {
    /// Its number, as `rekey list` shows it.
    id: u32,
    /// The file of the master key that opens another slot; looked for as for every command when left out.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key_file: Option<PathBuf>,
}

/// What opens a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// A key in a file.
    File,
    /// A passphrase.
    Passphrase,
    /// A key split in shares, of which some are needed.
    Shamir,
}

/// A master key to be added, and what its holder has to be given.
struct NewKey {
    body: WireAddSlot,
    file: Option<PathBuf>,
    shares: Vec<SecretBytes>,
}

impl Rekey {
    /// Shows or changes the vault's own keys.
    ///
    /// # Errors
    /// What the vault says; when a master key would have to leave this machine.
    pub async fn run(&self, context: &Context) -> Result<u8, CliError> {
        super::with_client(context, async |client: &Client| match self {
            Rekey::List => list(context, &keys(client).await?),
            Rekey::AddSlot(add) => add.run(context, client).await,
            Rekey::RemoveSlot(remove) => remove.run(context, client).await,
            Rekey::DataKey { environment } => {
                let company = context.company()?.map(|company| company.to_string());
                let body = RotateDataKey { environment: environment.to_string(), company };
                data_key(context, client, &body).await
            }
            Rekey::Pepper => pepper(context, client).await,
            Rekey::Root(root) => root.run(context, client).await,
        })
        .await
    }
}

impl AddSlot {
    async fn run(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        check_is_local(client)?;
        let slots = keys(client).await?.slots;
        let all: Vec<&Slot> = slots.iter().collect();
        let proof = to_wire(offer_for_one_of(self.key_file.as_deref(), context, client, &all).await?);
        let key = match self.source {
            Source::File => self.new_file(proof, context, client).await?,
            Source::Passphrase => self.passphrase(proof)?,
            Source::Shamir => self.split(proof)?,
        };
        let added = client.call::<_, Slot>(Method::POST, "/api/v1/rekey/slots", Some(&key.body)).await;
        let slot = match added {
            Ok(slot) => slot,
            Err(error) => return Err(key.give_up(error)),
        };
        for share in &key.shares {
            // EXPOSE: a share is shown once, to whoever adds the slot, to be handed out.
            share.expose(|text| output::bytes(&[text.as_slice(), b"\n"].concat()));
        }
        if context.global.format == Format::Json && key.shares.is_empty() {
            output::json(&slot)?;
        }
        key.tell(context, &slot);
        Ok(0)
    }

    async fn new_file(
        &self,
        proof: KeyOffer,
        context: &Context,
        client: &Client,
    ) -> Result<NewKey, CliError> {
        let path = match &self.file {
            Some(path) => path.clone(),
            None => {
                let status: Status = client.get("/api/v1/status").await?;
                let random = u32::from_le_bytes(keymoat_crypto::bytes());
                context.places.config.join(format!("{}-{random:08x}.key", status.instance))
            }
        };
        let master = MasterKey::generate();
        master_key::write_key_file(&path, &master)?;
        let body = body("key", &master, proof);
        Ok(NewKey { body, file: Some(path), shares: Vec::new() })
    }

    fn passphrase(&self, proof: KeyOffer) -> Result<NewKey, CliError> {
        let passphrase = match &self.passphrase_file {
            Some(path) => master_key::read_private_file("passphrase", path)?,
            None => {
                let first =
                    prompt::secret_or("New passphrase of the vault", "name its file with --passphrase-file")?;
                if !first.ct_eq(&prompt::secret("The same passphrase again")?) {
                    return Err(CliError::new("the two passphrases differ"));
                }
                first
            }
        };
        super::init::check_passphrase(&passphrase)?;
        let argon2 = Argon2Params::generate();
        let master =
            MasterKey::from_passphrase(&passphrase, &argon2).map_err(|e| CliError::new(e.to_string()))?;
        let argon2 =
            serde_json::to_value(&argon2).map_err(|e| CliError::new(format!("cannot write JSON: {e}")))?;
        let body = WireAddSlot { argon2: Some(argon2), ..body("passphrase", &master, proof) };
        Ok(NewKey { body, file: None, shares: Vec::new() })
    }

    fn split(&self, proof: KeyOffer) -> Result<NewKey, CliError> {
        let master = MasterKey::generate();
        let shares = master.split(self.needed, self.shares).map_err(|e| CliError::new(e.to_string()))?;
        let body = WireAddSlot {
            needed: Some(self.needed),
            shares: Some(self.shares),
            ..body("shamir", &master, proof)
        };
        Ok(NewKey { body, file: None, shares: shares.iter().map(Share::to_text).collect() })
    }
}

fn body(kind: &str, master: &MasterKey, proof: KeyOffer) -> WireAddSlot {
    WireAddSlot {
        kind: kind.to_owned(),
        master: WireSecret(master.to_text()),
        proof,
        argon2: None,
        needed: None,
        shares: None,
    }
}

impl NewKey {
    /// A key that the vault refused opens nothing, so its file goes again; one whose fate is not known stays.
    fn give_up(&self, error: CliError) -> CliError {
        let Some(path) = &self.file else { return error };
        if error.code.is_none() {
            let hint = format!(
                "`{}` may hold a valid master key: `keymoat rekey list` shows the slots",
                path.display()
            );
            return error.hint(hint);
        }
        match std::fs::remove_file(path) {
            Ok(()) => error,
            Err(_) => error.hint(format!("remove `{}`, which opens nothing", path.display())),
        }
    }

    fn tell(&self, context: &Context, slot: &Slot) {
        let id = slot.id;
        match slot.kind.as_str() {
            "passphrase" => output::say(&format!("slot {id}: the vault opens with the new passphrase too")),
            "shamir" => output::say(&format!(
                "slot {id}: any {} of these {} shares open the vault too; they are shown this once",
                slot.needed.unwrap_or_default(),
                slot.shares.unwrap_or_default()
            )),
            _ => {
                let path = self.file.as_deref().unwrap_or(Path::new("")).display();
                output::say(&format!("slot {id}: the vault opens with the key in `{path}` too"));
                output::say(&format!(
                    "to use it from now on: KEYMOAT_MASTER_KEY_FILE, or move it over the old one in `{}`;",
                    context.places.config.display()
                ));
                output::say(&format!(
                    "then `keymoat rekey remove-slot OLD --key-file {path}` ends the old one"
                ));
            }
        }
    }
}

impl RemoveSlot {
    async fn run(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        check_is_local(client)?;
        let keys = keys(client).await?;
        if !keys.slots.iter().any(|slot| slot.id == self.id) {
            return Err(CliError::new(format!("there is no slot {}", self.id))
                .hint("`keymoat rekey list` shows them")
                .exit(REFUSED));
        }
        let others: Vec<&Slot> = keys.slots.iter().filter(|slot| slot.id != self.id).collect();
        if others.is_empty() {
            return Err(CliError::new("without its last slot nothing could open the vault any more")
                .hint("`keymoat rekey add-slot --source file` adds another first")
                .exit(REFUSED));
        }
        let offer = offer_for_one_of(self.key_file.as_deref(), context, client, &others).await?;
        let url = format!("/api/v1/rekey/slots/{}/remove", self.id);
        client.bytes(Method::POST, &url, Some(&to_wire(offer))).await?;
        output::say(&format!("slot {} is gone; what opened it opens the vault no more", self.id));
        output::say(
            "backups made before still open with it: keep that key as long as you keep them, and no longer",
        );
        Ok(0)
    }
}

impl Root {
    async fn run(&self, context: &Context, client: &Client) -> Result<u8, CliError> {
        check_is_local(client)?;
        let slots = keys(client).await?.slots;
        let all: Vec<&Slot> = slots.iter().collect();
        let offer = offer_for_one_of(self.key_file.as_deref(), context, client, &all).await?;
        let kind = kind_of(&offer);
        // Which slot of its kind the master key opens is known to the vault alone.
        let candidates: Vec<u32> =
            slots.iter().filter(|slot| slot.kind == kind).map(|slot| slot.id).collect();
        let mut body =
            RotateRoot { keep: vec![KeepSlot { slot: 0, offer: to_wire(offer) }], drop: Vec::new() };
        let mut refused = CliError::new("no slot opens with the master key that was found")
            .hint("`keymoat rekey list` shows what opens the vault");
        for id in candidates {
            body.keep[0].slot = id;
            if self.drop_others {
                body.drop = slots.iter().map(|slot| slot.id).filter(|other| *other != id).collect();
            }
            match client.call::<_, RootRotated>(Method::POST, "/api/v1/rekey/root", Some(&body)).await {
                Ok(rotated) => return tell_root(context, &rotated),
                Err(error) if error.code.as_deref() == Some("sealed") => refused = error,
                Err(error) if error.code.as_deref() == Some("conflict") && !self.drop_others => {
                    return Err(would_be_lost(&slots, id).unwrap_or(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }
}

/// Says which slots the change of the root key would take away; none when there is no other one.
fn would_be_lost(slots: &[Slot], kept: u32) -> Option<CliError> {
    let others = slots.iter().filter(|slot| slot.id != kept);
    let others: Vec<String> = others.map(|slot| format!("{} ({})", slot.id, slot_text(slot))).collect();
    if others.is_empty() {
        return None;
    }
    let message = format!(
        "slot {kept} would be kept, and these would be lost, because what opens them was not shown: {}",
        others.join(", ")
    );
    let hint =
        "--drop-others lets them go; `keymoat rekey add-slot` makes new ones afterwards. Nothing was changed";
    Some(CliError::new(message).exit(REFUSED).hint(hint))
}

fn tell_root(context: &Context, rotated: &RootRotated) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(rotated)?;
        return Ok(0);
    }
    let numbers =
        |slots: &[Slot]| slots.iter().map(|slot| slot.id.to_string()).collect::<Vec<_>>().join(", ");
    output::line(&format!(
        "the root key is new: {} data key(s) and {} pepper(s) wrapped anew, {} rows under the old root key",
        rotated.data_keys, rotated.peppers, rotated.rows_under_old_root
    ));
    output::say(&format!("slot {} opens the vault as before", numbers(&rotated.kept)));
    if !rotated.dropped.is_empty() {
        output::say(&format!(
            "gone: slot {}; what opened it opens the vault no more",
            numbers(&rotated.dropped)
        ));
    }
    if !rotated.scrubbed {
        output::warn("the old wrapped keys may stand in the write-ahead log until readers are done with it");
    }
    output::say("backups made before still open with the master keys of their time");
    Ok(0)
}

/// What opens one of these slots.
async fn offer_for_one_of(
    key_file: Option<&Path>,
    context: &Context,
    client: &Client,
    slots: &[&Slot],
) -> Result<MasterKeyOffer, CliError> {
    if let Some(path) = key_file {
        return master_key::read_key_file(path).map(MasterKeyOffer::Key);
    }
    let status: Status = client.get("/api/v1/status").await?;
    let instance =
        status.instance.parse().map_err(|_| CliError::new("the vault's id cannot be understood"))?;
    let opens: Vec<_> = slots.iter().filter_map(|slot| opens(slot)).collect();
    master_key::offer(instance, &opens, &context.places, &context.variables)
}

/// The kind of slot that an offer may open, as the wire names it.
fn kind_of(offer: &MasterKeyOffer) -> &'static str {
    match offer {
        MasterKeyOffer::Key(_) => "key",
        MasterKeyOffer::Passphrase(_) => "passphrase",
        MasterKeyOffer::Shares(_) => "shamir",
    }
}

fn opens(slot: &Slot) -> Option<master_key::Opens> {
    match slot.kind.as_str() {
        "key" => Some(master_key::Opens::Key),
        "passphrase" => Some(master_key::Opens::Passphrase),
        "shamir" => Some(master_key::Opens::Shares { needed: slot.needed? }),
        _ => None,
    }
}

fn to_wire(offer: MasterKeyOffer) -> KeyOffer {
    match offer {
        MasterKeyOffer::Key(text) => KeyOffer::Key(WireSecret(text)),
        MasterKeyOffer::Passphrase(text) => KeyOffer::Passphrase(WireSecret(text)),
        MasterKeyOffer::Shares(shares) => {
            KeyOffer::Shares(shares.iter().map(|share| WireSecret(share.to_text())).collect())
        }
    }
}

/// What stands of the vault's own keys; never a key.
///
/// # Errors
/// What the vault says.
pub async fn keys(client: &Client) -> Result<Keys, CliError> {
    client.get("/api/v1/rekey").await
}

fn check_is_local(client: &Client) -> Result<(), CliError> {
    if client.is_local() {
        return Ok(());
    }
    Err(CliError::new("a master key does not travel over a network")
        .hint("run this on the vault's own machine, without --server and KEYMOAT_ADDR"))
}

fn list(context: &Context, keys: &Keys) -> Result<u8, CliError> {
    if context.global.format == Format::Json {
        output::json(keys)?;
        return Ok(0);
    }
    let slots =
        keys.slots.iter().map(|slot| vec![slot.id.to_string(), slot_text(slot), time_text(slot.created_at)]);
    output::table(&["slot", "opens with", "since"], slots);
    output::line("");
    let data_keys = keys.data_keys.iter().map(|key| {
        let state = if key.active { "in use" } else { "being replaced" };
        let company = key.company.clone().unwrap_or_default();
        vec![
            key.id.to_string(),
            key.environment.clone(),
            company,
            state.to_owned(),
            time_text(key.created_at),
        ]
    });
    output::table(&["data key", "environment", "company", "state", "since"], data_keys);
    output::line("");
    let peppers = keys
        .peppers
        .iter()
        .map(|pepper| vec![pepper.id.to_string(), pepper.digests.to_string(), time_text(pepper.created_at)]);
    output::table(&["pepper", "tokens and codes", "since"], peppers);
    Ok(0)
}

fn slot_text(slot: &Slot) -> String {
    match (slot.kind.as_str(), slot.needed, slot.shares) {
        ("key", ..) => "a key (file, variable, command or credential)".to_owned(),
        ("passphrase", ..) => "a passphrase".to_owned(),
        ("shamir", Some(needed), Some(shares)) => format!("any {needed} of {shares} shares"),
        (kind, ..) => kind.to_owned(),
    }
}

async fn data_key(context: &Context, client: &Client, body: &RotateDataKey) -> Result<u8, CliError> {
    let bar = indicatif::ProgressBar::new_spinner()
        .with_message("encrypting everything there anew; if this is interrupted, run it again");
    bar.enable_steady_tick(TICK);
    let rotated = client.call::<_, DataKeyRotated>(Method::POST, "/api/v1/rekey/data-key", Some(body)).await;
    bar.finish_and_clear();
    let rotated = rotated?;
    if context.global.format == Format::Json {
        output::json(&rotated)?;
        return Ok(0);
    }
    let company =
        rotated.company.as_deref().map(|company| format!(" (company {company})")).unwrap_or_default();
    output::line(&format!(
        "{}{company}: data key {} is in use, {} version(s) encrypted anew, {} rows under the old key",
        rotated.environment, rotated.active, rotated.reencrypted, rotated.rows_under_old_keys
    ));
    if !rotated.scrubbed {
        output::warn("the old ciphertexts may stand in the write-ahead log until readers are done with it");
    }
    Ok(0)
}

async fn pepper(context: &Context, client: &Client) -> Result<u8, CliError> {
    let rotated: PepperRotated = client.call(Method::POST, "/api/v1/rekey/pepper", None::<&()>).await?;
    if context.global.format == Format::Json {
        output::json(&rotated)?;
        return Ok(0);
    }
    output::line(&format!(
        "pepper {} is in use; {} token(s) and code(s) move over when they are next used",
        rotated.newest, rotated.digests_under_old_peppers
    ));
    Ok(0)
}

/// Often enough to see that it goes on.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);
