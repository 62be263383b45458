//! A directory that is gone after the test.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

/// In memory where there is such a place: a simulated disk asks nothing of the real one.
pub fn scratch() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::fs::Permissions::from_mode(0o700));
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

/// On a disk, where a kill can tear files.
pub fn scratch_on_disk() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}
