//! The one type that holds a secret value.
//!
//! A [`Sensitive`] cannot be printed, cloned, compared with `==` or serialised by accident; its content
//! is reached in a closure, and is overwritten when it is dropped. It does not lock memory: long-lived
//! keys live in the arena of `locked`, plaintext lives here for the shortest scope.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A value that prints as `[redacted]` and is zeroed when dropped.
pub struct Sensitive<T: Zeroize>(T);

/// Secret bytes of any length: a stored value, a passphrase, the text of a token.
pub type SecretBytes = Sensitive<Vec<u8>>;

impl<T: Zeroize> Sensitive<T> {
    /// Takes a value into custody; the caller keeps no copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Lends the value to `f`; every call site says why in an `// EXPOSE:` comment.
    pub fn expose<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.0)
    }
}

impl Sensitive<Vec<u8>> {
    /// Copies a slice into custody; the caller remains responsible for the original.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in time that depends on the lengths only.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Makes a second copy, for the rare caller that must hand the same secret to two owners
    /// (a cache and an answer); a named method instead of `Clone` so that each one can be found.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> Drop for Sensitive<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn debug_is_redacted_everywhere() {
        #[derive(Debug)]
        #[allow(dead_code)]
        struct Holder {
            value: Option<SecretBytes>,
        }
        let holder = Holder { value: Some(SecretBytes::from_slice(b"made-up-value")) };
        assert_eq!(format!("{holder:?}"), "Holder { value: Some([redacted]) }");
        assert_eq!(format!("{:#?}", Sensitive::new([1u8; 4])), "[redacted]");
    }

    #[test]
    fn compares_by_content() {
        for (a, b, equal) in
            [("", "", true), ("a", "a", true), ("a", "b", false), ("a", "ab", false), ("ab", "a", false)]
        {
            let (a, b) = (SecretBytes::from_slice(a.as_bytes()), SecretBytes::from_slice(b.as_bytes()));
            assert_eq!(a.ct_eq(&b), equal);
            assert_eq!(a.duplicate().ct_eq(&b), equal);
        }
    }

    #[test]
    fn zeroes_on_drop() {
        static ZEROED: AtomicBool = AtomicBool::new(false);
        struct Probe;
        impl Zeroize for Probe {
            fn zeroize(&mut self) {
                ZEROED.store(true, Ordering::SeqCst);
            }
        }
        drop(Sensitive::new(Probe));
        assert!(ZEROED.load(Ordering::SeqCst));
    }
}
