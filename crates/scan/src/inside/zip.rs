//! Zip archives, from their beginning to their end, so that an archive in an archive needs no memory.
//!
//! Members are found by their own headers, not by the directory at the end: what was taken out of the directory only is
//! still found.

use std::io::{self, BufRead, BufReader, Read};

use super::budget::Spent;
use super::packed::Packing;

/// Reads an archive member by member.
pub(super) struct Zip<'r> {
    stream: BufReader<&'r mut dyn Read>,
}

/// What the header of a member says.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub is_file: bool,
    is_encrypted: bool,
    method: u16,
    /// Bytes as packed; nothing where the header does not say.
    packed: Option<u64>,
}

/// What became of a member.
pub(super) enum Member<'a> {
    Text(Box<dyn Read + 'a>),
    Unreadable(String),
}

impl<'r> Zip<'r> {
    pub fn new(stream: &'r mut dyn Read) -> Self {
        Self { stream: BufReader::with_capacity(BUFFER, stream) }
    }

    /// The next member. The one before has been given to [`Zip::read`].
    ///
    /// # Errors
    /// Where the archive is cut off.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        if !self.find_header()? {
            return Ok(None);
        }
        let mut fixed = [0; 26];
        self.stream.read_exact(&mut fixed)?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let (flags, method) = (u16_at(2), u16_at(4));
        let mut name = vec![0; usize::from(u16_at(22))];
        self.stream.read_exact(&mut name)?;
        let mut extra = vec![0; usize::from(u16_at(24))];
        self.stream.read_exact(&mut extra)?;
        let packed = match u32_at(14) {
            u32::MAX => long_size(&extra),
            0 if flags & HAS_DESCRIPTOR != 0 => None,
            size => Some(u64::from(size)),
        };
        let name = String::from_utf8_lossy(&name).into_owned();
        let is_file = !name.ends_with('/');
        Ok(Some(Entry { name, is_file, is_encrypted: flags & IS_ENCRYPTED != 0, method, packed }))
    }

    /// Hands out the content of a member, and goes to its end whatever was read of it.
    pub fn read(
        &mut self,
        entry: &Entry,
        spent: &Spent,
        with: impl FnOnce(Member<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        match entry.packed {
            Some(size) => {
                let mut packed = (&mut self.stream).take(size);
                let done = with(open(entry, &mut packed, spent));
                io::copy(&mut packed, &mut io::sink())?;
                done
            }
            None if entry.method == STORED => {
                let mut packed = UntilDescriptor { stream: &mut self.stream, is_over: false };
                let done = with(open(entry, BufReader::new(&mut packed), spent));
                io::copy(&mut packed, &mut io::sink())?;
                done
            }
            // The decoder takes what belongs to it and not a byte more; the next header is looked for.
            None => with(open(entry, &mut self.stream, spent)),
        }
    }

    /// Goes to the next header of a member; false where the directory begins, without which an archive is cut off.
    fn find_header(&mut self) -> io::Result<bool> {
        let mut last = [0; 4];
        loop {
            let buffer = self.stream.fill_buf()?;
            if buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if last[3] != b'P' && last[2..] != *b"PK" && !MARKS.iter().any(|mark| last[1..] == mark[..3]) {
                let skip = memchr::memchr(b'P', buffer).unwrap_or(buffer.len());
                if skip > 0 {
                    self.stream.consume(skip);
                    last = [0; 4];
                    continue;
                }
            }
            last = [last[1], last[2], last[3], buffer[0]];
            self.stream.consume(1);
            match &last {
                b"PK\x03\x04" => return Ok(true),
                // The directory, or its end where it names nothing.
                b"PK\x01\x02" | b"PK\x05\x06" => return Ok(false),
                _ => {}
            }
        }
    }
}

fn open<'a>(entry: &Entry, packed: impl BufRead + 'a, spent: &'a Spent) -> Member<'a> {
    if entry.is_encrypted {
        return Member::Unreadable("is encrypted and was not looked into".to_owned());
    }
    let packing = match entry.method {
        STORED => return Member::Text(Box::new(packed)),
        8 => Packing::Deflate,
        12 => Packing::Bzip2,
        93 => Packing::Zstd,
        95 => Packing::Xz,
        other => {
            return Member::Unreadable(format!(
                "is packed by method {other} of zip, which nothing here reads"
            ));
        }
    };
    Member::Text(Box::new(packing.unpack(packed, spent)))
}

/// A member whose length stands behind it.
struct UntilDescriptor<'a, R> {
    stream: &'a mut R,
    is_over: bool,
}

impl<R: BufRead> Read for UntilDescriptor<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.is_over || into.is_empty() {
            return Ok(0);
        }
        let buffer = self.stream.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let plain = memchr::memchr(b'P', buffer).unwrap_or(buffer.len()).min(into.len());
        if plain > 0 {
            into[..plain].copy_from_slice(&buffer[..plain]);
            self.stream.consume(plain);
            return Ok(plain);
        }
        // What begins with a P is either the descriptor or one byte of text.
        let begins = |buffer: &[u8]| DESCRIPTOR.starts_with(&buffer[..buffer.len().min(4)]);
        if begins(buffer) && (buffer.len() >= 4 || self.continues()?) {
            self.is_over = true;
            return Ok(0);
        }
        into[0] = b'P';
        self.stream.consume(1);
        Ok(1)
    }
}

impl<R: BufRead> UntilDescriptor<'_, R> {
    /// A descriptor across two buffers of the stream cannot be told without taking it; the member then has a few bytes
    /// too many, and ends where the next header is found.
    fn continues(&mut self) -> io::Result<bool> {
        Ok(self.stream.fill_buf()?.starts_with(DESCRIPTOR))
    }
}

/// The packed size in the field for large files (APPNOTE 4.5.3).
fn long_size(mut extra: &[u8]) -> Option<u64> {
    while extra.len() >= 4 {
        let size = usize::from(u16::from_le_bytes([extra[2], extra[3]]));
        let field = extra.get(4..4 + size)?;
        if extra[..2] == [1, 0] {
            let packed = field.get(8..16)?;
            let size = u64::from_le_bytes(packed.try_into().ok()?);
            return (size > 0).then_some(size);
        }
        extra = &extra[4 + size..];
    }
    None
}

const STORED: u16 = 0;
const IS_ENCRYPTED: u16 = 1;
const HAS_DESCRIPTOR: u16 = 1 << 3;
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
/// Of a member, of the directory, and of its end.
const MARKS: [&[u8; 4]; 3] = [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"];
const BUFFER: usize = 64 << 10;
