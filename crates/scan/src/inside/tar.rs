//! Tape archives, from their beginning to their end: ustar, GNU's and POSIX's long names.

use std::io::{self, Read};

/// A member: its name and how much of it there is.
pub(super) struct Entry {
    pub name: String,
    pub is_file: bool,
    /// Where a link leads to.
    pub size: u64,
}

/// Reads an archive member by member.
pub(super) struct Tar<'r> {
    stream: &'r mut dyn Read,
    /// Bytes until the next header, padding included.
    to_skip: u64,
    left: u64,
}

impl<'r> Tar<'r> {
    pub fn new(stream: &'r mut dyn Read) -> Self {
        Self { stream, to_skip: 0, left: 0 }
    }

    /// The next member, whether or not the one before was read.
    ///
    /// # Errors
    /// Where the archive is cut off or damaged.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut long_name = None;
        let mut long_size = None;
        loop {
            self.skip_rest()?;
            let mut header = [0; BLOCK];
            if !self.fill(&mut header)? {
                return Ok(None);
            }
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            if !is_checked(&header) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no header of a tar archive"));
            }
            let size = long_size.take().unwrap_or_else(|| number(&header[124..136]));
            self.left = size;
            self.to_skip = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
            match header[156] {
                b'L' => long_name = Some(until_nul(&self.small()?)),
                b'x' => {
                    let record = self.small()?;
                    long_name = pax(&record, "path").or(long_name);
                    long_size = pax(&record, "size").and_then(|size| size.parse().ok());
                }
                b'K' | b'g' => {}
                kind => {
                    let name = long_name.take().unwrap_or_else(|| name_of(&header));
                    let is_file = matches!(kind, 0 | b'0' | b'7' | b'S');
                    return Ok(Some(Entry { name, is_file, size }));
                }
            }
        }
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut *self.stream).take(self.to_skip), &mut io::sink())?;
        if skipped < self.to_skip {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.to_skip, self.left) = (0, 0);
        Ok(())
    }

    /// Fills a header; false at the end of the stream.
    fn fill(&mut self, header: &mut [u8; BLOCK]) -> io::Result<bool> {
        let read = super::read_full(self.stream, header)?;
        match read {
            0 => Ok(false),
            BLOCK => Ok(true),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The content of a member that belongs to the next one.
    fn small(&mut self) -> io::Result<Vec<u8>> {
        if self.left > LONGEST_RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a name of absurd length"));
        }
        let mut bytes = Vec::new();
        let limit = self.left;
        self.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The content of the member that came last.
impl Read for Tar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        self.to_skip -= read as u64;
        Ok(read)
    }
}

/// Whether these are the first bytes of an archive.
pub(super) fn is_header(head: &[u8]) -> bool {
    let is_new = head.get(257..262) == Some(b"ustar");
    head.get(..BLOCK).is_some_and(|block| block[0] != 0 && (is_new || is_old(block)) && is_checked(block))
}

/// Archives from before 1988 have no mark; their numbers have a form.
fn is_old(block: &[u8]) -> bool {
    let octal = |field: &[u8]| field.iter().all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0));
    octal(&block[100..156]) && block[100..108].contains(&b'0')
}

fn is_checked(header: &[u8]) -> bool {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
        .sum();
    number(&header[148..156]) == sum
}

/// Octal digits, or the number itself where the first bit is set.
fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        let low = &field[field.len() - 8..];
        return low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    let digits =
        field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| matches!(byte, b'0'..=b'7'));
    digits.fold(0, |sum, digit| (sum << 3) | u64::from(digit - b'0'))
}

fn name_of(header: &[u8]) -> String {
    let name = until_nul(&header[..100]);
    let prefix = if &header[257..262] == b"ustar" { until_nul(&header[345..500]) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

fn until_nul(bytes: &[u8]) -> String {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A value of a POSIX record: `LENGTH NAME=VALUE\n`, one after the other.
fn pax(mut record: &[u8], wanted: &str) -> Option<String> {
    loop {
        let space = memchr::memchr(b' ', record)?;
        let length: usize = std::str::from_utf8(&record[..space]).ok()?.parse().ok()?;
        let line = record.get(space + 1..length)?;
        let equals = memchr::memchr(b'=', line)?;
        if &line[..equals] == wanted.as_bytes() {
            let value = &line[equals + 1..];
            return Some(String::from_utf8_lossy(value.strip_suffix(b"\n").unwrap_or(value)).into_owned());
        }
        record = &record[length..];
    }
}

const BLOCK: usize = 512;

/// The longest path of any system has 4,096 bytes; with other attributes it is more, with a megabyte it is no record.
const LONGEST_RECORD: u64 = 1 << 20;
