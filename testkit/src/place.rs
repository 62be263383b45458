//! A vault of its own in a directory of its own, with a made-up master key beside it.
//!
//! `data` is the data directory, `outside` has the checkpoint file, `master` the key for other processes of the test.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use keymoat_crypto::{MasterKey, SecretBytes};
use keymoat_detect::Catalogue;
use keymoat_vault::entity::SlotSource;
use keymoat_vault::{
    Caller, Clock, Durability, MasterKeyOffer, NewSlot, NewVault, Origin, SealedVault, Surroundings, Vault,
    VaultError,
};

use crate::Failure;

/// Where a vault is that may be harmed, and what opens it.
#[derive(Clone)]
pub struct Place {
    dir: PathBuf,
    master: Arc<SecretBytes>,
    /// How hard an acknowledged write is to lose.
    pub durability: Durability,
    surroundings: Surroundings,
}

impl Place {
    /// A directory, made if need be, with a new master key in it and no vault yet.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn new(dir: &Path, durability: Durability) -> Result<Self, Failure> {
        make_private(dir)?;
        let master = MasterKey::generate().to_text();
        let path = dir.join(MASTER);
        // EXPOSE: the key of a made-up vault, for the test's own children and for looking at what a test has kept.
        master.expose(|text| write_private(&path, text))?;
        Self::in_dir(dir, master, durability)
    }

    /// The place that [`Place::new`] made here.
    ///
    /// # Errors
    /// When its key cannot be read.
    pub fn left_in(dir: &Path, durability: Durability) -> Result<Self, Failure> {
        let path = dir.join(MASTER);
        let master = SecretBytes::new(fs::read(&path).map_err(|e| Failure::file(&path, &e))?);
        Self::in_dir(dir, master, durability)
    }

    fn in_dir(dir: &Path, master: SecretBytes, durability: Durability) -> Result<Self, Failure> {
        let outside_dir = dir.join("outside");
        make_private(&outside_dir)?;
        let clock = Arc::new(CountingClock(AtomicI64::new(START_MS)));
        // Made-up values are no provider's keys, and every child would wait for the whole catalogue.
        let catalogue = Catalogue::of(&[]).expect("no file is wrong where there is none");
        let catalogue = Arc::new(catalogue);
        let surroundings =
            Surroundings { clock, catalogue, outside_dir, durability, database: None, key_at_hand: None };
        Ok(Self { dir: dir.to_owned(), master: Arc::new(master), durability, surroundings })
    }

    /// The same vault's files in another directory, none of them there yet.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn elsewhere(&self, dir: &Path) -> Result<Self, Failure> {
        make_private(dir)?;
        let (outside_dir, data) = (dir.join("outside"), dir.join("data"));
        make_private(&outside_dir)?;
        make_private(&data)?;
        // EXPOSE: the key of a made-up vault, beside the copy that it opens.
        self.master.expose(|text| write_private(&dir.join(MASTER), text))?;
        let surroundings = Surroundings { outside_dir, ..self.surroundings.clone() };
        Ok(Self { dir: dir.to_owned(), surroundings, ..self.clone() })
    }

    /// A copy of all files in another directory.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy(&self, dir: &Path) -> Result<Self, Failure> {
        let copy = self.elsewhere(dir)?;
        for path in self.files()? {
            let to = dir.join(path.strip_prefix(&self.dir).unwrap_or(&path));
            fs::copy(&path, &to).map_err(|e| Failure::file(&to, &e))?;
        }
        Ok(copy)
    }

    /// The directory of it all.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The files that the vault's content is in: the database, its log and the checkpoint file outside.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = Vec::new();
        for dir in [self.data(), self.surroundings.outside_dir.clone()] {
            for entry in fs::read_dir(&dir).map_err(|e| Failure::file(&dir, &e))? {
                let path = entry.map_err(|e| Failure::file(&dir, &e))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_file() && !NO_CONTENT.iter().any(|other| name.ends_with(other)) {
                    files.push(path);
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// What opens the vault.
    pub fn offer(&self) -> MasterKeyOffer {
        MasterKeyOffer::Key(self.master.duplicate())
    }

    /// What the vault takes from here.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings { durability: self.durability, ..self.surroundings.clone() }
    }

    /// The directory of the checkpoint file.
    pub fn outside_dir(&self) -> &Path {
        &self.surroundings.outside_dir
    }

    /// Opens the vault, or makes it where there is none.
    ///
    /// # Errors
    /// Those of the vault.
    pub async fn open_or_make(&self) -> Result<Vault, VaultError> {
        match SealedVault::open(&self.data(), self.durability)? {
            Ok(sealed) => sealed.unseal(&self.offer(), self.surroundings()),
            Err(empty) => {
                // EXPOSE: the master key is read as any other, from the text in its file.
                let text = self.master.duplicate();
                let master = MasterKey::parse(&text)
                    .map_err(|e| VaultError::new(keymoat_vault::Code::Internal, e.to_string()))?;
                let new = NewVault {
                    instance: uuid::Uuid::from_bytes(keymoat_crypto::bytes()),
                    slot: NewSlot { source: SlotSource::Key, master },
                    os_user: OWNER.to_owned(),
                    environments: vec![ENVIRONMENT.parse()?],
                };
                empty.create(new, self.surroundings()).await.map(|(vault, _)| vault)
            }
        }
    }

    /// Its owner, who may do everything, with a request of his own.
    ///
    /// # Errors
    /// Those of the vault.
    pub async fn owner(vault: &Vault) -> Result<Caller, VaultError> {
        vault.sign_in_os_user(OWNER, origin(vault)).await
    }
}

/// A request of a program on this machine.
pub fn origin(vault: &Vault) -> Origin {
    Origin {
        request: vault.new_request_id(),
        address: None,
        user_agent: None,
        module: None,
        on_behalf_of: None,
    }
}

/// Each look is a millisecond later than the one before.
struct CountingClock(AtomicI64);

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        let now_ms = self.0.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::MAX)
    }
}

fn make_private(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| Failure::file(dir, &e))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|e| Failure::file(path, &e))
}

/// The one environment of a vault that is tried out.
pub const ENVIRONMENT: &str = "prod";
const OWNER: &str = "tester";
const MASTER: &str = "master";
/// Files of a data directory that hold nothing of the vault.
const NO_CONTENT: [&str; 4] = ["lock", "reserve", "-shm", ".sock"];
/// 2026-01-05, a Monday, 09:00 UTC.
const START_MS: i64 = 1_767_603_600_000;
