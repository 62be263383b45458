//! Room on the disk that is kept for those who can make more: a file that is given up when the disk is full.
//!
//! It only holds the room and lets go of it; whose work may use it is the writer's to know.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

pub(crate) struct Reserve {
    path: PathBuf,
    is_kept: bool,
}

impl Reserve {
    /// Keeps room in a directory, if there is as much.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        let mut reserve = Self { path: dir.join(FILE), is_kept: false };
        if !reserve.restore() {
            tracing::warn!(path = %reserve.path.display(), bytes = RESERVE_BYTES, "there is no room for the reserve: the disk counts as full");
        }
        reserve
    }

    /// Whether the room is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Lets go of the room; `false` when none was kept.
    pub(crate) fn release(&mut self) -> bool {
        let was_kept = std::mem::replace(&mut self.is_kept, false);
        let is_gone = std::fs::remove_file(&self.path).is_ok();
        if was_kept && is_gone {
            tracing::warn!(path = %self.path.display(), "the disk is full: the reserve is given up for an administrator's work");
        }
        was_kept && is_gone
    }

    /// Keeps the room again, if there is as much; says whether it is kept.
    pub(crate) fn restore(&mut self) -> bool {
        if self.is_kept {
            return true;
        }
        self.is_kept = allocate(&self.path).is_ok();
        if !self.is_kept {
            // Half of it is of no use. It may never have come to be.
            let _ = std::fs::remove_file(&self.path);
        }
        self.is_kept
    }
}

/// Makes the file with all of its room on the disk; nothing changes where it has it already.
fn allocate(path: &Path) -> io::Result<()> {
    let made = !path.exists();
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Ok(()) => {}
        // A file system that cannot set room aside keeps what is written.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&mut file)?,
        Err(error) => return Err(error.into()),
    }
    file.sync_all()?;
    match path.parent() {
        Some(dir) if made => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

fn fill(file: &mut File) -> io::Result<()> {
    let piece = [0; 64 * 1024];
    (0..RESERVE_BYTES / piece.len() as u64).try_for_each(|_| file.write_all(&piece))
}

const FILE: &str = "reserve";
/// Thousands of records and removals; little beside any disk that a vault is on.
pub(crate) const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn room_is_kept_given_up_and_kept_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::in_dir(dir.path());
        let check = |reserve: &Reserve, is_kept: bool| {
            assert_eq!(reserve.is_kept(), is_kept);
            let about = std::fs::metadata(dir.path().join(FILE));
            let room = about.map(|about| (about.blocks() * 512 >= RESERVE_BYTES, about.mode() & 0o777));
            assert_eq!(room.ok(), is_kept.then_some((true, 0o600)));
        };
        check(&reserve, true);
        assert!(reserve.release());
        check(&reserve, false);
        assert!(!reserve.release());
        assert!(reserve.restore() && reserve.restore());
        check(&reserve, true);
        check(&Reserve::in_dir(dir.path()), true);
        let mut nowhere = Reserve::in_dir(&dir.path().join("none"));
        assert!(!nowhere.is_kept() && !nowhere.release() && !nowhere.restore());
    }
}
