//! The checkpoint file that lives outside of the data directory.
//!
//! Whoever puts the whole database back to yesterday's copy puts back everything that is in it; only a number kept
//! elsewhere tells. The file has two slots of one block each, written in turn and synced, so that a torn write
//! leaves the other slot whole. Each slot is a signed note (c2sp.org/signed-note) padded with newlines: `cat` shows it.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What is done to a file that SQLite knows nothing of.
#[derive(Debug, Clone, Copy)]
pub enum FileStep<'a> {
    /// It is open, and there if it was not before.
    Opened,
    /// Its directory was synced, so that its name stays.
    Listed,
    /// Bytes were written at an offset.
    Wrote(u64, &'a [u8]),
    /// Its content was synced.
    Synced,
}

/// Has every step told to a simulator of power cuts, once and for the whole process.
pub fn watch_files(watcher: fn(&Path, FileStep<'_>)) {
    // A second simulator is the same one.
    let _ = WATCHER.set(watcher);
}

pub(crate) fn tell(path: &Path, step: FileStep<'_>) {
    if let Some(watcher) = WATCHER.get() {
        watcher(path, step);
    }
}

static WATCHER: OnceLock<fn(&Path, FileStep<'_>)> = OnceLock::new();

/// The open checkpoint file.
#[derive(Debug)]
pub(crate) struct OutsideFile {
    path: PathBuf,
    file: File,
    next_slot: u64,
    /// Whether the next note goes into both slots, because neither of their notes holds any more.
    renew: bool,
}

impl OutsideFile {
    /// Opens the file, making it (mode 0600) and syncing its directory when it is not there.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let made = !path.exists();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        tell(path, FileStep::Opened);
        if made && let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
            tell(path, FileStep::Listed);
        }
        if !file.metadata()?.is_file() {
            return Err(not_a_file());
        }
        Ok(Self { path: path.to_owned(), file, next_slot: 0, renew: false })
    }

    /// Writes a note into the older slot and syncs it. The note must fit a block.
    pub(crate) fn write(&mut self, note: &str) -> std::io::Result<()> {
        let mut block = vec![b'\n'; SLOT_BYTES];
        let Some(room) = block.get_mut(..note.len()) else {
            return Err(std::io::Error::other("the checkpoint note does not fit its block"));
        };
        room.copy_from_slice(note.as_bytes());
        self.write_slot(&block)?;
        if self.renew {
            self.write_slot(&block)?;
            self.renew = false;
        }
        Ok(())
    }

    /// Makes the next write fill both slots: what they hold is of no use or no longer true.
    pub(crate) fn renew(&mut self) {
        self.renew = true;
    }

    fn write_slot(&mut self, block: &[u8]) -> std::io::Result<()> {
        let at = self.next_slot * SLOT_BYTES as u64;
        tell(&self.path, FileStep::Wrote(at, block));
        self.file.write_all_at(block, at)?;
        self.file.sync_data()?;
        tell(&self.path, FileStep::Synced);
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// Makes the next write spare the given slot, the one with the newest valid note.
    pub(crate) fn spare(&mut self, slot: usize) {
        self.next_slot = 1 - (slot as u64 & 1);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The texts of both slots, each possibly torn or empty; `None` when there is no file, or nothing in it yet: whoever made
/// it was stopped before the first note.
pub(crate) fn read_slots(path: &Path) -> std::io::Result<Option<[String; 2]>> {
    // A pipe or a device could be read without end.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(not_a_file()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(2 * SLOT_BYTES as u64).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let slot = |n: usize| {
        let block = bytes.get(n * SLOT_BYTES..).unwrap_or_default();
        let block = &block[..block.len().min(SLOT_BYTES)];
        let text = String::from_utf8_lossy(block);
        let trimmed = text.trim_end_matches('\n');
        if trimmed.is_empty() { String::new() } else { format!("{trimmed}\n") }
    };
    Ok(Some([slot(0), slot(1)]))
}

fn not_a_file() -> std::io::Error {
    std::io::Error::other("it is not a regular file")
}

/// One block: the unit that disks write whole, and ten times a note's size.
const SLOT_BYTES: usize = 4096;

#[cfg(test)]
impl OutsideFile {
    /// A file that cannot be written, for the tests of the writer.
    pub(crate) fn failing() -> Self {
        let file = OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        Self { path: "/dev/full".into(), file, next_slot: 0, renew: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_take_turns_and_survive_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        assert!(read_slots(&path).unwrap().is_none());
        let mut file = OutsideFile::open(&path).unwrap();
        assert!(read_slots(&path).unwrap().is_none(), "nothing is in it yet");
        file.write("one\n").unwrap();
        file.write("two\n").unwrap();
        file.write("three\n").unwrap();
        assert_eq!(read_slots(&path).unwrap().unwrap(), ["three\n".to_owned(), "two\n".to_owned()]);
        file.spare(0);
        file.write("four\n").unwrap();
        assert_eq!(read_slots(&path).unwrap().unwrap(), ["three\n".to_owned(), "four\n".to_owned()]);
        assert!(file.write(&"x".repeat(SLOT_BYTES + 1)).is_err());
        file.renew();
        file.write("five\n").unwrap();
        assert_eq!(read_slots(&path).unwrap().unwrap(), ["five\n".to_owned(), "five\n".to_owned()]);
    }

    #[test]
    fn only_a_regular_file_will_do() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), Path::new("/dev/full"), Path::new("/dev/zero")] {
            assert!(read_slots(path).is_err(), "{}", path.display());
            assert!(OutsideFile::open(path).is_err(), "{}", path.display());
        }
        let long = dir.path().join("long");
        std::fs::write(&long, vec![0xff; 100_000]).unwrap();
        assert!(read_slots(&long).unwrap().unwrap().iter().all(|slot| slot.len() < 4 * SLOT_BYTES));
    }
}
