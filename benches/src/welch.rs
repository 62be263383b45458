//! Welch's t-test on the times of two kinds of input, as dudect does it.
//!
//! Both kinds lie in the same place of memory when they are measured and take turns at random, so that caches and
//! clocks treat them alike. It says how sure a difference is, not how large.

use std::hint::black_box;
use std::time::Instant;

/// Beyond this a difference is no accident (one of 100,000 rounds without any difference comes as far).
pub(crate) const LEAKS: f64 = 4.5;

/// Two kinds of inputs of one length, and how often each is worked on for one measurement.
pub(crate) struct Pair {
    inputs: [Vec<Vec<u8>>; 2],
    repeat: usize,
}

impl Pair {
    /// Two inputs, each worked on `repeat` times for one measurement.
    pub(crate) fn of(first: Vec<u8>, second: Vec<u8>, repeat: usize) -> Self {
        Self::of_kinds([vec![first], vec![second]], repeat)
    }

    /// As [`Pair::of`] with several inputs of each kind, where a single one may take its own time by accident: what
    /// one input meets in a hash table says nothing of its kind.
    pub(crate) fn of_kinds(inputs: [Vec<Vec<u8>>; 2], repeat: usize) -> Self {
        let length = inputs[0][0].len();
        assert!(inputs.iter().flatten().all(|input| input.len() == length), "two lengths take two times");
        Self { inputs, repeat }
    }

    /// How far the mean times of both are apart, in standard errors.
    pub(crate) fn measure_with(&self, samples: usize, seed: u64, work: &dyn Fn(&[u8]) -> bool) -> f64 {
        let mut place = self.inputs[0][0].clone();
        let mut times: Vec<(usize, f64)> = Vec::with_capacity(samples);
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..samples {
            // xorshift64: order enough.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let kind = (random >> 33) as usize & 1;
            let of_kind = &self.inputs[kind];
            place.copy_from_slice(&of_kind[(random >> 34) as usize % of_kind.len()]);
            let begun = Instant::now();
            for _ in 0..self.repeat {
                black_box(work(black_box(&place)));
            }
            times.push((kind, begun.elapsed().as_secs_f64() * 1e9));
        }
        t_of(times)
    }
}

/// Welch's t of the times of both kinds, without the slowest tenth: those were interrupted.
fn t_of(mut times: Vec<(usize, f64)>) -> f64 {
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    times.truncate(times.len() * 9 / 10);
    let [first, second] = [0, 1].map(|kind| {
        let of_kind = || times.iter().filter(|(is, _)| *is == kind).map(|(_, time)| time);
        let count = of_kind().count() as f64;
        let mean = of_kind().sum::<f64>() / count;
        let variance = of_kind().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (first.0 - second.0) / (first.1 + second.1).sqrt()
}
