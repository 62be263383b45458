//! Takes a secret out of the process's own environment, so that it is not inherited and not left in memory.
//!
//! `unsetenv` alone only forgets where the text stands: it stays readable in `/proc/self/environ`. The bytes are
//! overwritten first. It does not decide which variables hold secrets.

use std::ffi::{CStr, CString};

use crate::SecretBytes;

/// Takes a variable: returns its value, having overwritten it in place and removed it.
///
/// Must be called before the program has a second thread: the environment is not guarded by a lock.
pub fn take_variable(name: &str) -> Option<SecretBytes> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is a C string that lives through the call; the result is null or points at a C string inside of
    // the environment, which nobody else changes while there is one thread.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: it is not null, so it points at a C string, see above.
    let length = unsafe { CStr::from_ptr(value) }.to_bytes().len();
    // SAFETY: the `length` bytes before the final zero belong to the C string, which is writable memory of this
    // process (environ(7)), and nothing else refers to them while this slice lives.
    let bytes = unsafe { std::slice::from_raw_parts_mut(value.cast::<u8>(), length) };
    let taken = SecretBytes::from_slice(bytes);
    zeroize::Zeroize::zeroize(bytes);
    // SAFETY: `name` is a C string that lives through the call, and there is one thread.
    unsafe { libc::unsetenv(name.as_ptr()) };
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::take_variable;

    #[test]
    fn a_variable_that_is_not_set_is_not_taken() {
        assert!(take_variable("KEYMOAT_NO_SUCH_VARIABLE").is_none());
        assert!(take_variable("NOT\0A NAME").is_none());
    }
}
