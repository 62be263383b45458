//! Where things are on this machine: data, configuration, keys.

use std::path::{Path, PathBuf};

use crate::error::CliError;
use crate::variables::Variables;

/// The directories of this user's vault.
#[derive(Debug, Clone)]
pub struct Places {
    /// The data directory: database, lock, socket.
    pub data: PathBuf,
    /// The directory of configuration, master key and checkpoint file; never the data directory.
    pub config: PathBuf,
}

impl Places {
    /// From `--data` or `KEYMOAT_DATA_DIR`, else as the XDG base directory specification has it.
    ///
    /// # Errors
    /// When there is no home directory and nothing else says where.
    pub fn find(data: Option<&Path>, variables: &Variables) -> Result<Self, CliError> {
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
        let places = Self { data: absolute(data)?, config: absolute(config)? };
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

    /// The file that holds an instance's master key unless something else does.
    pub fn master_key(&self, instance: uuid::Uuid) -> PathBuf {
        self.config.join(format!("{instance}.key"))
    }
}

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
