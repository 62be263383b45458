//! What comes out of files, read to its end and counted.

use std::io::{self, Read};
use std::ops::Range;

use keymoat_scan::Rows;
use keymoat_scan::inside::{Limits, Texts, look_into};

/// Looks into bytes that have this name: that ends, and what comes out stays in proportion to what went in.
pub fn look(name: &str, data: &[u8]) {
    let mut count = Count(0);
    look_into(name, data, LIMITS, &mut count);
    assert!(count.0 <= (8 << 20) + 400 * data.len() as u64, "{} bytes out of {}", count.0, data.len());
}

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
