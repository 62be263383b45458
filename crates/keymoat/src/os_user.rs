//! Names of the operating system's users.

use nix::unistd::{Uid, User};

use crate::error::CliError;

/// The user who runs this program.
///
/// # Errors
/// When the system cannot be asked.
pub fn current() -> Result<String, CliError> {
    let uid = Uid::effective();
    Ok(name_of(uid.as_raw()).unwrap_or_else(|| format!("uid-{uid}")))
}

/// The name of a user; `None` when the system knows none.
pub fn name_of(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}
