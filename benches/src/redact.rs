//! `redact FILE…`: the redactor's speed in processor time, as a ratio to searching the same text with the same engine in
//! one go, without stored values and with ten thousand of them.
//!
//! Input and output of both are in memory. The known values are told as the vault does it, by a keyed fingerprint of each
//! candidate that the sieve lets pass.

use std::collections::HashSet;
use std::convert::Infallible;

use anyhow::{Context as _, Result};
use keymoat_crypto::{Fingerprint, FingerprintKey, InstanceKey};
use keymoat_detect::{Catalogue, Engine, KnownValues, NoneKnown, Redactor, Scratch, Sieve};

pub fn run(files: &[&str]) -> Result<()> {
    let engine = Engine::new(Catalogue::builtin());
    for file in files {
        let text = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
        let megabytes = text.len() as f64 / 1e6;
        println!("{file}: {megabytes:.0} MB, best of {RUNS}, in pieces of {} KB", PIECE / 1024);
        let (mut scratch, mut hits) = (Scratch::default(), Vec::new());
        let search = best(|| {
            // As a scanner does it: a block after the other, so that the text is in the cache.
            let mut found = 0;
            for start in (0..text.len()).step_by(PIECE) {
                engine.find(&text, start..(start + PIECE).min(text.len()), &mut scratch, &mut hits);
                found += hits.len();
            }
            found as u64
        })?;
        println!(
            "  search            {:>6.0} MB per CPU-second              {} hits",
            megabytes / search.0,
            search.1
        );
        let plain = best(|| removed(&engine, NoneKnown, &text))?;
        print("redact", megabytes, plain, search.0);
        for values in [1, KNOWN] {
            let known = best(|| removed(&engine, Known::new(values), &text))?;
            print(&format!("with {values} values"), megabytes, known, search.0);
            let mut asked = Redactor::with_known(&engine, Known::new(values));
            let Ok(()) = asked.push(&text, &mut Vec::new());
            println!("  {} candidates asked for", asked.known().asked);
        }
    }
    Ok(())
}

fn print(what: &str, megabytes: f64, (seconds, removed): (f64, u64), search: f64) {
    println!(
        "  {what:<17} {:>6.0} MB per CPU-second, {:.2} of search, {removed} taken out",
        megabytes / seconds,
        search / seconds
    );
}

fn removed<K: KnownValues<Error = Infallible>>(engine: &Engine, known: K, text: &[u8]) -> u64 {
    let mut redactor = Redactor::with_known(engine, known);
    let mut out = Vec::with_capacity(2 * PIECE);
    for piece in text.chunks(PIECE) {
        let Ok(()) = redactor.push(piece, &mut out);
        out.clear();
    }
    let Ok(()) = redactor.finish(&mut out);
    redactor.removed()
}

fn best(mut work: impl FnMut() -> u64) -> Result<(f64, u64)> {
    let mut best = (f64::MAX, 0);
    for _ in 0..RUNS {
        let before = processor_seconds()?;
        let counted = work();
        best = (best.0.min(processor_seconds()? - before), counted);
    }
    Ok(best)
}

/// Values that depend on their number alone, as a vault tells them.
struct Known {
    key: FingerprintKey,
    fingerprints: HashSet<Fingerprint>,
    sieve: Sieve,
    asked: usize,
}

impl Known {
    fn new(values: usize) -> Self {
        let key = InstanceKey::generate().fingerprint_key();
        let mut sieve = Sieve::new(keymoat_crypto::bytes(), values);
        let value = |number: usize| {
            let digits = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            format!("{digits:032x}")
        };
        let fingerprints = (0..values).map(|number| {
            sieve.add(value(number).as_bytes());
            key.of_candidate("", value(number).as_bytes())
        });
        Self { fingerprints: fingerprints.collect(), key, sieve, asked: 0 }
    }
}

impl KnownValues for Known {
    type Error = Infallible;

    fn sieve(&self) -> Option<&Sieve> {
        Some(&self.sieve)
    }

    fn are_known(&mut self, candidates: &[&[u8]], known: &mut Vec<bool>) -> Result<(), Infallible> {
        self.asked += candidates.len();
        let is_known = |text: &&[u8]| self.fingerprints.contains(&self.key.of_candidate("", text));
        known.extend(candidates.iter().map(is_known));
        Ok(())
    }
}

/// Seconds that this thread has computed: the first field of its scheduler statistics is nanoseconds on a processor.
fn processor_seconds() -> Result<f64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = statistics.split_whitespace().next().context("there are no scheduler statistics")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

const RUNS: usize = 3;
const KNOWN: usize = 10_000;
/// As `keymoat redact` reads.
const PIECE: usize = 256 * 1024;
