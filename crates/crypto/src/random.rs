//! Randomness for key material, salts and tokens, from the kernel's generator (`getrandom(2)`).
//!
//! Not from AWS-LC's: it seeds itself from the jitter of the processor when a process first asks (FIPS 140-3, SP
//! 800-90B), 50 ms in which a short command would do nothing else. The kernel's generator is what stands behind it
//! anyway, blocks until it has been seeded once, and needs no care after a fork.
//!
//! Not for jitter, sampling or test data: those take their generator as an argument.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// Fills `out` from the operating system's generator.
///
/// # Panics
///
/// When the operating system gives none.
pub fn fill(out: &mut [u8]) {
    // Without randomness nothing here may go on; a kernel that has the call does not refuse it.
    getrandom::fill(out).expect("the operating system's generator answers");
}

/// Returns `N` bytes from the operating system's generator.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0u8; N];
    fill(&mut out);
    out
}

/// The same generator in the form that `vsss-rs` asks for.
pub(crate) struct OsGenerator;

impl TryRng for OsGenerator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(bytes()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        fill(out);
        Ok(())
    }
}

impl TryCryptoRng for OsGenerator {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        let draws: std::collections::HashSet<[u8; 16]> = (0..1000).map(|_| bytes()).collect();
        assert_eq!(draws.len(), 1000);
    }
}
