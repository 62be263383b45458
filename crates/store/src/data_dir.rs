//! The data directory: who owns it, who can reach it, who holds it, and where its files are.
//!
//! Two locks are held: that of the file `lock`, which says who holds it, and that of the directory itself, which stays
//! when somebody removes the file. It looks at modes, not at what else the system may allow.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FlockOperation, flock};

use crate::{Address, OpenError, make_private_dir};

/// A data directory whose lock this process holds; dropping the last clone lets go.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    /// The node that works here with a database on a server; none when the database is a file in the directory.
    node: Option<Arc<Node>>,
    _lock: Arc<File>,
    _itself: Arc<File>,
}

/// One of the nodes that work with a database on a server.
#[derive(Debug)]
struct Node {
    address: Address,
    /// Tells it from the others, some of which may be on the same machine.
    id: String,
    /// Whether it has seen a vault in its database: then there must be one, and a checkpoint file that knows it.
    has_worked: AtomicBool,
    /// The vault that it has worked with, by the name under which that signs; none when it is not known.
    vault: OnceLock<String>,
}

/// What the file of a node says.
struct KnownNode {
    address: String,
    id: String,
    has_worked: bool,
    vault: Option<String>,
}

impl DataDir {
    /// Makes the directory if need be (mode 0700), checks its owner and its mode, and takes its locks.
    ///
    /// # Errors
    /// When the directory belongs to somebody else, others can reach what is in it, it is held by another process, or
    /// cannot be used.
    pub fn lock(path: &Path) -> Result<Self, OpenError> {
        make_private_dir(path).map_err(|e| io(path, &e))?;
        check_reach(path)?;
        let itself = File::open(path).map_err(|e| io(path, &e))?;
        let is_free = take(&itself).map_err(|e| io(path, &e))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| io(&lock_path, &e))?;
        if !is_free || !take(&lock).map_err(|e| io(&lock_path, &e))? {
            let mut text = String::new();
            // The holder's pid is a courtesy: without it the message only says less.
            let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Locked { path: path.to_owned(), pid });
        }
        match write_pid(&mut lock) {
            // On a full disk the holder goes without a name.
            Err(error) if error.kind() != std::io::ErrorKind::StorageFull => {
                return Err(io(&lock_path, &error));
            }
            _ => {}
        }
        Ok(Self { path: path.to_owned(), node: None, _lock: Arc::new(lock), _itself: Arc::new(itself) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a node whose database is on a server.
    ///
    /// # Errors
    /// When there is a vault in the directory itself, or the node has worked with another database.
    pub fn with_database(mut self, address: Option<Address>) -> Result<Self, OpenError> {
        let known = self.known_node()?;
        let Some(address) = address else {
            return match known {
                None => Ok(self),
                // One that never got to work may be used for anything.
                Some(known) if !known.has_worked => Ok(self),
                Some(known) => Err(OpenError::Elsewhere { path: self.path, known: known.address }),
            };
        };
        if self.database().exists() {
            return Err(OpenError::HasItsOwn(self.path));
        }
        // The address may be another one: hosts change. Whether it is the same vault is seen when it is open.
        let known = known.unwrap_or_else(|| KnownNode {
            address: address.shown(),
            id: hex(&keymoat_crypto::bytes::<4>()),
            has_worked: false,
            vault: None,
        });
        let (id, has_worked) = (known.id, AtomicBool::new(known.has_worked));
        let vault = known.vault.map(OnceLock::from).unwrap_or_default();
        self.node = Some(Arc::new(Node { address, id, has_worked, vault }));
        Ok(self)
    }

    /// Refuses a database with another vault in it than the one that this node has worked with.
    ///
    /// # Errors
    /// [`OpenError::OtherVault`].
    pub(crate) fn check_vault(&self, vault: &str) -> Result<(), OpenError> {
        let Some(node) = self.node.as_ref().filter(|_| !self.is_new_node()) else { return Ok(()) };
        match node.vault.get() {
            Some(known) if known != vault => Err(OpenError::OtherVault {
                path: self.path.clone(),
                known: known.clone(),
                database: node.address.shown(),
                found: vault.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The server that holds the database; none when it is a file in the directory.
    pub fn address(&self) -> Option<&Address> {
        self.node.as_ref().map(|node| &node.address)
    }

    /// What tells this node from the others that work with the same database; none when it is a file.
    pub fn node_id(&self) -> Option<&str> {
        self.node.as_ref().map(|node| node.id.as_str())
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        database_in(&self.path)
    }

    /// Whether this is a node that has not worked with its database yet.
    pub fn is_new_node(&self) -> bool {
        self.node.as_ref().is_some_and(|node| !node.has_worked.load(Ordering::Relaxed))
    }

    /// Writes down which node this is, and whether it has worked with its database, in which this vault is.
    pub(crate) fn remember(&self, has_worked: bool, vault: &str) -> std::io::Result<()> {
        let Some(node) = &self.node else { return Ok(()) };
        let path = self.path.join(NODE_FILE);
        let worked = if has_worked { HAS_WORKED } else { "new" };
        let text = format!("{}\n{}\n{worked}\n{vault}\n", node.address.shown(), node.id);
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        // Never half a file, whatever comes between.
        let next = self.path.join("node.next");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(&self.path)?.sync_all()?;
        // It was compared when the vault was opened, so it is the same one.
        let _ = node.vault.set(vault.to_owned());
        node.has_worked.store(has_worked, Ordering::Relaxed);
        Ok(())
    }

    fn known_node(&self) -> Result<Option<KnownNode>, OpenError> {
        let path = self.path.join(NODE_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(&path, &error)),
        };
        match text.lines().collect::<Vec<_>>()[..] {
            [address, id, worked, ref rest @ ..]
                if rest.len() <= 1 && !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()) =>
            {
                Ok(Some(KnownNode {
                    address: address.to_owned(),
                    id: id.to_owned(),
                    has_worked: worked == HAS_WORKED,
                    vault: rest.first().map(|vault| (*vault).to_owned()),
                }))
            }
            _ => Err(OpenError::Io { path, why: "it does not say which node this is".to_owned() }),
        }
    }
}

/// Where the database of a data directory is, as the directory itself says: the address, without what is secret in it,
/// of the server that its node has worked with.
pub fn server_of(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(NODE_FILE)).ok()?;
    text.lines().next().map(str::to_owned)
}

/// What tells the node of a data directory from the others; none when the database is in the directory itself.
pub fn node_of(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(NODE_FILE)).ok()?;
    text.lines().nth(1).map(str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The database file of a data directory.
pub fn database_in(data_dir: &Path) -> PathBuf {
    data_dir.join("keymoat.db")
}

/// The socket on which a running server of this data directory listens.
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("keymoat.sock")
}

const LOCK_FILE: &str = "lock";
/// Says which server holds the database of a node, and which node it is.
const NODE_FILE: &str = "node";
const HAS_WORKED: &str = "has worked";
/// What a mode may not give to the group and to others.
const FOR_OTHERS: u32 = 0o077;

/// Takes a lock; `false` when another process has it.
fn take(file: &File) -> std::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Refuses a directory of somebody else, and one that others can look into or change: whoever can put another database
/// or socket there speaks in the vault's name.
fn check_reach(path: &Path) -> Result<(), OpenError> {
    let about = fs::metadata(path).map_err(|e| io(path, &e))?;
    let (owner, you) = (about.uid(), rustix::process::geteuid().as_raw());
    if owner != you {
        return Err(OpenError::ForeignOwner { path: path.to_owned(), owner, you });
    }
    match about.mode() & 0o7777 {
        mode if mode & FOR_OTHERS != 0 => Err(OpenError::Reachable { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}

fn write_pid(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "{}", std::process::id())
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataDir::lock(&path).unwrap();
        match DataDir::lock(&path) {
            Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("expected a lock error, got {other:?}"),
        }
        drop(held);
        DataDir::lock(&path).unwrap();
    }

    #[test]
    fn a_removed_lock_file_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = DataDir::lock(&path).unwrap();
        fs::remove_file(path.join(LOCK_FILE)).unwrap();
        for _ in 0..2 {
            assert!(matches!(DataDir::lock(&path), Err(OpenError::Locked { .. })));
        }
        drop(held);
        DataDir::lock(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        drop(DataDir::lock(&path).unwrap());
        for (mode, is_fine) in
            [(0o700, true), (0o755, false), (0o710, false), (0o770, false), (0o701, false), (0o702, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match DataDir::lock(&path) {
                Ok(_) => assert!(is_fine, "{mode:o}"),
                Err(error) => {
                    assert!(!is_fine && matches!(error, OpenError::Reachable { .. }), "{mode:o} {error}");
                    assert!(error.to_string().contains("chmod 700"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_new_directory_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er");
        DataDir::lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
