//! Where things are on this machine: data, configuration, keys.

use std::path::{Path, PathBuf};

use keymoat_vault::{Address, Durability, EmptyDir, SealedVault, VaultError};

use crate::error::CliError;
use crate::variables::Variables;

/// The directories of this user's vault.
#[derive(Debug, Clone)]
pub struct Places {
    /// The data directory: database, lock, socket.
    pub data: PathBuf,
    /// The directory of configuration, master key and checkpoint file; never the data directory.
    pub config: PathBuf,
    /// The server that holds the database; none when it is a file in the data directory.
    pub database: Option<Address>,
    /// What a power cut may take away of the records of a file.
    pub durability: Durability,
}

impl Places {
    /// From `--data` or `KEYMOAT_DATA_DIR`, else as the XDG base directory specification has it.
    ///
    /// # Errors
    /// When there is no home directory and nothing else says where.
    pub fn find(
        data: Option<&Path>,
        database: Option<&str>,
        variables: &Variables,
    ) -> Result<Self, CliError> {
        let data = match data.map(Path::to_owned).or_else(|| variables.data_dir.clone()) {
            Some(path) => path,
            None => {
                base(variables.xdg_data_home.as_deref(), variables.home.as_deref(), ".local/share", "--data")?
            }
        };
        let config = match &variables.config_dir {
            Some(path) => path.clone(),
            None => base(
                variables.xdg_config_home.as_deref(),
                variables.home.as_deref(),
                ".config",
                "KEYMOAT_CONFIG_DIR",
            )?,
        };
        let absolute =
            |path: PathBuf| std::path::absolute(&path).map_err(|e| CliError::file("use", &path, &e));
        let database = find_database(database, variables)?;
        let places =
            Self { data: absolute(data)?, config: absolute(config)?, database, durability: Durability::Disk };
        // Whoever takes the data directory must not get the key with it, nor put the checkpoint back with it.
        if places.config.starts_with(&places.data) {
            return Err(CliError::new(format!(
                "the master key and the checkpoint would lie in the data directory `{}`",
                places.data.display()
            ))
            .hint("name another place for them with KEYMOAT_CONFIG_DIR, or for the data with --data"));
        }
        Ok(places)
    }

    /// Opens the vault of this place, or finds that there is none yet.
    ///
    /// # Errors
    /// When it is in use, somebody else's, or cannot be reached.
    pub fn open_vault(&self) -> Result<Result<SealedVault, EmptyDir>, VaultError> {
        SealedVault::open_at(&self.data, self.database.clone(), self.durability)
    }

    /// Whether it is worth looking for a vault here: there is a database, or one was named, here or by the node that
    /// works in the directory.
    pub fn may_have_vault(&self) -> bool {
        self.database.is_some()
            || keymoat_store::database_in(&self.data).exists()
            || keymoat_store::server_of(&self.data).is_some()
    }

    /// The checkpoint file of an instance: that of this node, where the database is on a server.
    pub fn checkpoint(&self, instance: &str) -> PathBuf {
        let node = keymoat_store::node_of(&self.data).map(|node| format!(".{node}")).unwrap_or_default();
        self.config.join(format!("{instance}{node}.checkpoint"))
    }

    /// The file that holds an instance's master key unless something else does.
    pub fn master_key(&self, instance: uuid::Uuid) -> PathBuf {
        self.config.join(format!("{instance}.key"))
    }
}

/// From `--database` or `KEYMOAT_DATABASE`.
fn find_database(flag: Option<&str>, variables: &Variables) -> Result<Option<Address>, CliError> {
    let parse = |text: &str| Address::parse(text).map_err(|why| CliError::new(why).hint(DATABASE_HINT));
    if let Some(text) = flag {
        let address = parse(text)?;
        if address.holds_password() {
            crate::output::warn(
                "the password in --database can be seen by every user of this machine; give the address in KEYMOAT_DATABASE, or name a file in it with `?passfile=FILE`",
            );
        }
        return Ok(Some(address));
    }
    let Some(text) = &variables.database else { return Ok(None) };
    // EXPOSE: the address of a database may hold its password; what is read of it keeps that to itself.
    text.expose(|bytes| match std::str::from_utf8(bytes) {
        Ok(text) => parse(text.trim()).map(Some),
        Err(_) => Err(CliError::new("KEYMOAT_DATABASE is not text").hint(DATABASE_HINT)),
    })
}

const DATABASE_HINT: &str =
    "for example `postgres://keymoat@db.example/vault?sslmode=verify-full`; see docs/postgres.md";

fn base(
    xdg: Option<&Path>,
    home: Option<&Path>,
    below_home: &str,
    instead: &str,
) -> Result<PathBuf, CliError> {
    let base = match (xdg, home) {
        (Some(xdg), _) if xdg.is_absolute() => xdg.to_owned(),
        (_, Some(home)) => home.join(below_home),
        _ => {
            return Err(CliError::new("there is no home directory to keep a vault in")
                .hint(format!("say where with {instead}")));
        }
    };
    Ok(base.join("keymoat"))
}
