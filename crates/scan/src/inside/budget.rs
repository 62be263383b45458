//! What unpacking may cost: a few kilobytes can unpack to petabytes, and nobody may be kept busy so.
//!
//! Two measures. One packed stream may give so many times its own size, and what lies under one file altogether so many
//! times the size of that file. Both have an allowance, because small files pack well.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

/// How much is unpacked before it is called a bomb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Archives in archives.
    pub depth: usize,
    /// Members of all archives in one file together.
    pub members: u64,
    /// Bytes that a packed stream may give, however small it is.
    pub free: u64,
    /// Beyond that, how many times its own size.
    pub ratio: u64,
    /// Bytes that a file may give with all that is in it, however small it is.
    pub free_in_all: u64,
    /// Beyond that, how many times its own size.
    pub ratio_in_all: u64,
    /// The largest thing that is held in memory, where a format cannot be read from its beginning to its end.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 8,
            members: 2_000_000,
            // A log of equal lines reaches a hundred; Deflate ends at 1,032.
            free: 256 << 20,
            ratio: 200,
            free_in_all: 4 << 30,
            ratio_in_all: 1000,
            memory: 64 << 20,
        }
    }
}

/// Why unpacking was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A packed stream gives too much for its size.
    Bomb,
    /// All that a file holds is too much for its size.
    TooMuch,
    /// There are too many members.
    TooMany,
    /// Somebody asked for it.
    Cancelled,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bomb => "unpacks to far more than its size and was stopped there",
            Self::TooMuch => "holds far more than its size; the rest of it was not looked at",
            Self::TooMany => "has too many members; the rest of them was not looked at",
            Self::Cancelled => "was not read to its end, as you asked",
        })
    }
}

impl Error for Stop {}

impl From<Stop> for io::Error {
    fn from(stop: Stop) -> Self {
        Self::other(stop)
    }
}

/// What a file has cost so far.
#[derive(Debug)]
pub(crate) struct Spent {
    limits: Limits,
    packed: Rc<Cell<u64>>,
    unpacked: Cell<u64>,
    members: Cell<u64>,
    /// Once it is too much, it is too much for everything else in the file.
    stopped: Cell<Option<Stop>>,
}

impl Spent {
    pub fn new(limits: Limits) -> Self {
        let packed = Rc::new(Cell::new(0));
        Self { limits, packed, unpacked: Cell::new(0), members: Cell::new(0), stopped: Cell::new(None) }
    }

    /// Counts what is read of the file itself.
    pub(super) fn outermost<R>(&self, stream: R) -> Counted<R> {
        Counted { inner: stream, count: Rc::clone(&self.packed) }
    }

    /// Counts a member.
    pub fn member(&self) -> Result<(), Stop> {
        self.members.set(self.members.get() + 1);
        if self.members.get() > self.limits.members {
            self.stopped.set(Some(Stop::TooMany));
        }
        self.check()
    }

    /// Stops everything.
    pub fn cancel(&self) {
        self.stopped.set(Some(Stop::Cancelled));
    }

    /// Whether the file was stopped as a whole.
    pub fn stopped(&self) -> Option<Stop> {
        self.stopped.get()
    }

    fn unpacked(&self, bytes: u64) -> Result<(), Stop> {
        self.unpacked.set(self.unpacked.get() + bytes);
        let most = allowance(self.limits.free_in_all, self.limits.ratio_in_all, self.packed.get());
        if self.unpacked.get() > most {
            self.stopped.set(Some(Stop::TooMuch));
        }
        self.check()
    }

    fn check(&self) -> Result<(), Stop> {
        self.stopped.get().map_or(Ok(()), Err)
    }
}

fn allowance(free: u64, ratio: u64, packed: u64) -> u64 {
    free.saturating_add(ratio.saturating_mul(packed))
}

/// A stream whose bytes are counted.
pub(super) struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R> Counted<R> {
    pub fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let count = Rc::new(Cell::new(0));
        (Self { inner, count: Rc::clone(&count) }, count)
    }

    fn add(&self, bytes: usize) {
        self.count.set(self.count.get() + bytes as u64);
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.add(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.add(bytes);
        self.inner.consume(bytes);
    }
}

/// What comes out of a packed stream, as long as it is in proportion to what went in.
pub(super) struct Bounded<'s, R> {
    inner: R,
    taken: Rc<Cell<u64>>,
    given: u64,
    spent: &'s Spent,
}

impl<'s, R: Read> Bounded<'s, R> {
    pub fn new(inner: R, taken: Rc<Cell<u64>>, spent: &'s Spent) -> Self {
        Self { inner, taken, given: 0, spent }
    }
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.given += read as u64;
        let limits = &self.spent.limits;
        if self.given > allowance(limits.free, limits.ratio, self.taken.get()) {
            return Err(Stop::Bomb.into());
        }
        self.spent.unpacked(read as u64)?;
        Ok(read)
    }
}
