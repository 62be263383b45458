//! Streams: the same is found however the bytes come, also where windows meet.

use std::io::{self, Read};

use keymoat_scan::Troubles;
use proptest::prelude::*;

use crate::common::{line, searching, told};

/// Gives few bytes at a time, and interrupts now and then.
struct Dripping<'a> {
    rest: &'a [u8],
    step: usize,
    calls: usize,
}

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.step.min(buffer.len()).min(self.rest.len());
        buffer[..len].copy_from_slice(&self.rest[..len]);
        self.rest = &self.rest[len..];
        Ok(len)
    }
}

fn places(stream: impl Read) -> Vec<String> {
    let troubles = Troubles::default();
    let findings = searching(&troubles).stream("log", stream);
    let mut places: Vec<(u64, String)> = findings
        .iter()
        .flat_map(|finding| {
            finding.places.iter().map(|place| (place.line, format!("{}:{}", told(place), place.column)))
        })
        .collect();
    places.sort();
    places.into_iter().map(|(_, place)| place).collect()
}

#[test]
fn keys_around_the_places_where_windows_meet() {
    let window = 1 << 20;
    for at in
        [window - 5200, window - 60, window - 11, window, window + 5100, 2 * window - 3, 2 * window + 10_240]
    {
        let mut text = "0123456 \n".repeat(at / 9);
        text.push_str(&" ".repeat(at - text.len()));
        let lines = at / 9 + 1;
        text.push_str(&line('A'));
        text.push_str(&"x\n".repeat(40_000));
        text.push_str(&line('B'));
        let column = at - (at / 9) * 9 + 12;
        let expected = [format!("log:{lines}:{column}"), format!("log:{}:12", lines + 40_001)];
        assert_eq!(places(text.as_bytes()), expected, "at {at}");
    }
}

#[test]
fn a_stream_that_breaks_off_is_told_of() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let troubles = Troubles::default();
    let findings = searching(&troubles).stream("log", line('A').as_bytes().chain(Broken));
    assert_eq!((findings.len(), troubles.total()), (1, 1));
    let trouble = &troubles.list()[0];
    assert_eq!((trouble.what.as_str(), trouble.why.as_str()), ("log", "cannot be read: connection reset"));
    assert_eq!(places(io::empty()), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn steps_make_no_difference(step in 1usize..100_000, at in 0usize..2_200_000) {
        let mut text = vec![b'.'; 2_200_000];
        text.splice(at..at, format!("\n{}", line('A')).into_bytes());
        let expected = places(text.as_slice());
        prop_assert_eq!(expected.len(), 1);
        prop_assert_eq!(places(Dripping { rest: &text, step, calls: 0 }), expected);
    }
}

#[test]
fn of_a_value_in_every_line_some_places_are_listed_and_all_are_counted() {
    let text = line('A').repeat(60_000);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), &text).unwrap();
    let troubles = Troubles::default();
    let scan = searching(&troubles);
    for findings in [scan.stream("log", text.as_bytes()), scan.tree(dir.path()).0] {
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.places.len(), finding.unlisted), (1000, 59_000));
    }
}
