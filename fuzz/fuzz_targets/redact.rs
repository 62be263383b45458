//! The redactor: the same output however the input is cut, and nothing more to take out of what it gave.
#![no_main]

use std::convert::Infallible;
use std::sync::LazyLock;

use keymoat_detect::{Catalogue, Engine, KnownValues, Redactor, Sieve};
use libfuzzer_sys::fuzz_target;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Catalogue::builtin()));

/// One value is stored.
struct One(Sieve);

impl KnownValues for One {
    type Error = Infallible;

    fn sieve(&self) -> Option<&Sieve> {
        Some(&self.0)
    }

    fn are_known(&mut self, candidates: &[&[u8]], known: &mut Vec<bool>) -> Result<(), Infallible> {
        known.extend(candidates.iter().map(|text| *text == VALUE));
        Ok(())
    }
}

const VALUE: &[u8] = b"q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU";

/// In pieces of this many bytes, the first of which is another one.
fn redacted(text: &[u8], first: usize, each: usize) -> Vec<u8> {
    let mut sieve = Sieve::new([7; 16], 1);
    sieve.add(VALUE);
    let mut redactor = Redactor::with_known(&ENGINE, One(sieve));
    let mut out = Vec::new();
    let (head, tail) = text.split_at(first.min(text.len()));
    for piece in [head].into_iter().chain(tail.chunks(each.max(1))) {
        let Ok(()) = redactor.push(piece, &mut out);
    }
    let Ok(()) = redactor.finish(&mut out);
    out
}

fuzz_target!(|data: &[u8]| {
    let (choice, text) = data.split_at(data.len().min(2));
    let [first, each] = [0, 1].map(|at| usize::from(choice.get(at).copied().unwrap_or_default()));
    let whole = redacted(text, 0, text.len());
    assert_eq!(redacted(text, first, each), whole);
    assert_eq!(redacted(&whole, 0, whole.len()), whole);
});
