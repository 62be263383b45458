//! What is told by its name: dumps, mail, mailboxes, notebooks, compiled Python, office documents. The first byte says
//! which.
#![no_main]

use std::io::{self, Read};
use std::ops::Range;

use keymoat_scan::Rows;
use keymoat_scan::inside::{Limits, Texts, look_into};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&which, data)) = data.split_first() else { return };
    let name = NAMES[usize::from(which) % NAMES.len()];
    let mut count = Count(0);
    look_into(name, data, LIMITS, &mut count);
    assert!(count.0 <= (8 << 20) + 400 * data.len() as u64, "{} bytes out of {}", count.0, data.len());
});

const NAMES: [&str; 6] = ["x.sql", "x.eml", "x.mbox", "x.ipynb", "x.pyc", "word/document.xml"];

/// Reads everything, and keeps count.
struct Count(u64);

impl Texts for Count {
    fn text(&mut self, _: &[String], text: &mut dyn Read) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match text.read(&mut buffer)? {
                0 => return Ok(()),
                read => self.0 += read as u64,
            }
        }
    }

    fn rows(&mut self, _: &[String], rows: &Rows, region: Range<usize>) {
        assert!(region.end <= rows.text().len());
        for at in region.clone().step_by(97) {
            let _ = rows.spot(&(at..at + 1));
        }
        self.0 += region.len() as u64;
    }

    fn trouble(&mut self, _: &[String], why: &str) {
        assert!(!why.is_empty());
    }
}

/// Small, so that what has no end is noticed.
const LIMITS: Limits = Limits {
    depth: 4,
    members: 200,
    free: 1 << 20,
    ratio: 50,
    free_in_all: 2 << 20,
    ratio_in_all: 100,
    memory: 1 << 20,
};
