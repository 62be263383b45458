//! Directories for their owner's eyes only, whose names are on the disk before anything is put into them.
//!
//! A file that is synced in a directory that is not listed in its parent is gone after a power cut. What is already
//! there keeps its mode; whether it is private enough, its user checks.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a directory and those above it that are not there (mode 0700), and syncs each one's parent.
///
/// # Errors
/// When one cannot be made or synced, or something else has its name.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    make(path, &mut |dir| File::open(dir)?.sync_all())
}

fn make(path: &Path, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make(parent, sync)?;
    match DirBuilder::new().mode(0o700).create(path) {
        // Another process may have made it, and not synced it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync(parent)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn each_parent_is_synced_before_anything_is_made_below() {
        let root = tempfile::tempdir().unwrap();
        let there = |name: &str| root.path().join(name);
        let synced = RefCell::new(Vec::<(PathBuf, usize)>::new());
        let mut sync = |dir: &Path| {
            // How much is in it when it is synced, and nothing may be in what is new.
            let entries = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
            let below = entries.collect::<io::Result<Vec<_>>>()?;
            synced.borrow_mut().push((dir.to_owned(), below.len()));
            below.iter().try_for_each(|new| {
                assert_eq!(std::fs::read_dir(new)?.count(), 0, "{}", new.display());
                Ok(())
            })
        };
        make(&there("a/b/c"), &mut sync).unwrap();
        let expected = [(root.path().to_owned(), 1), (there("a"), 1), (there("a/b"), 1)];
        assert_eq!(*synced.borrow(), expected);
        for made in ["a", "a/b", "a/b/c"] {
            assert_eq!(std::fs::metadata(there(made)).unwrap().permissions().mode() & 0o777, 0o700, "{made}");
        }
        make(&there("a/b/c"), &mut sync).unwrap();
        assert_eq!(synced.borrow().len(), 3, "what was there is left alone");
    }

    #[test]
    fn what_cannot_be_synced_or_made_is_told() {
        let root = tempfile::tempdir().unwrap();
        let mut fails = |_: &Path| Err(io::Error::other("made-up fault"));
        assert_eq!(make(&root.path().join("a/b"), &mut fails).unwrap_err().to_string(), "made-up fault");
        assert!(!root.path().join("a/b").exists());
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(make_private_dir(&file).is_err());
        assert!(make_private_dir(&file.join("below")).is_err());
    }
}
