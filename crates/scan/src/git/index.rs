//! The index of a working tree (gitformat-index(5)), versions 2 to 4: which blob stands at which path.
//!
//! It reads bytes that anybody may have written. What is checked out, and whether that changed since, is not looked at.

use super::object::Mode;

/// One file of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The path from the root.
    pub path: Vec<u8>,
    /// What it is.
    pub mode: Mode,
    /// The bytes of the blob's id.
    pub id: Vec<u8>,
}

/// Why an index cannot be read. Each completes "the index …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It is no index, or one that is cut off.
    #[error("is not one that can be read; `git reset` makes it anew")]
    Broken,
    /// Most of it stands in another file.
    #[error("is split in two; `git update-index --no-split-index` joins it")]
    Split,
}

/// Reads all entries, in the order of their paths. Files in conflict come once for each side.
pub fn entries(bytes: &[u8], id_len: usize) -> Result<Vec<IndexEntry>, IndexError> {
    let header = bytes.strip_prefix(b"DIRC").ok_or(IndexError::Broken)?;
    let (version, rest) = number(header)?;
    let (count, rest) = number(rest)?;
    if !(2..=4).contains(&version) {
        return Err(IndexError::Broken);
    }
    let mut input = Input { all: bytes, at: bytes.len() - rest.len(), id_len, version };
    let mut found: Vec<IndexEntry> = Vec::new();
    for _ in 0..count {
        let before = found.last().map(|entry| entry.path.as_slice()).unwrap_or_default();
        found.push(input.entry(before)?);
    }
    if input.is_split() { Err(IndexError::Split) } else { Ok(found) }
}

struct Input<'a> {
    all: &'a [u8],
    at: usize,
    id_len: usize,
    version: u32,
}

impl<'a> Input<'a> {
    fn entry(&mut self, before: &[u8]) -> Result<IndexEntry, IndexError> {
        let start = self.at;
        let stat = self.take(STAT)?;
        let (mode, _) = number(&stat[STAT_MODE..])?;
        let id = self.take(self.id_len)?.to_vec();
        let flags = self.take(2)?;
        if flags[0] & EXTENDED != 0 && self.version >= 3 {
            self.take(2)?;
        }
        let mut path = Vec::new();
        if self.version == 4 {
            let dropped = self.varint()?;
            let kept = before.len().checked_sub(dropped).ok_or(IndexError::Broken)?;
            path.extend_from_slice(&before[..kept]);
        }
        let rest = &self.all[self.at..];
        let end = memchr::memchr(0, rest).ok_or(IndexError::Broken)?;
        path.extend_from_slice(&rest[..end]);
        self.take(end + 1)?;
        if self.version < 4 {
            // Filled up with NUL to a multiple of eight.
            let len = self.at - start;
            self.take(len.next_multiple_of(8) - len)?;
        }
        Ok(IndexEntry { path, mode: Mode::of(mode), id })
    }

    /// Whether an extension says that there is another file.
    fn is_split(&mut self) -> bool {
        while let Ok(head) = self.take(8) {
            if &head[..4] == b"link" {
                return true;
            }
            let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            // The checksum at the end looks like an extension that is too long.
            if self.take(len).is_err() {
                return false;
            }
        }
        false
    }

    /// As offsets in packs: each byte after the first adds one.
    fn varint(&mut self) -> Result<usize, IndexError> {
        let mut byte = self.take(1)?[0];
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.take(1)?[0];
            value =
                value.checked_add(1).and_then(|value| value.checked_mul(128)).ok_or(IndexError::Broken)?;
            value |= usize::from(byte & 0x7f);
        }
        Ok(value)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], IndexError> {
        let end = self.at.checked_add(len).ok_or(IndexError::Broken)?;
        let taken = self.all.get(self.at..end).ok_or(IndexError::Broken)?;
        self.at = end;
        Ok(taken)
    }
}

fn number(bytes: &[u8]) -> Result<(u32, &[u8]), IndexError> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(IndexError::Broken)?;
    Ok((u32::from_be_bytes(*number), rest))
}

/// Times, device, inode, mode, owner and size.
const STAT: usize = 40;
const STAT_MODE: usize = 24;
/// Two more bytes of flags follow.
const EXTENDED: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_index() {
        for (bytes, error) in [
            (&b""[..], IndexError::Broken),
            (b"DIRC", IndexError::Broken),
            (b"DIRC\0\0\0\x01\0\0\0\0", IndexError::Broken),
            (b"DIRC\0\0\0\x02\0\0\0\x01", IndexError::Broken),
            (b"DIRC\0\0\0\x02\xff\xff\xff\xff", IndexError::Broken),
            (b"DIRC\0\0\0\x02\0\0\0\0link\0\0\0\0", IndexError::Split),
        ] {
            assert_eq!(entries(bytes, 20), Err(error), "{bytes:?}");
        }
        assert_eq!(entries(b"DIRC\0\0\0\x02\0\0\0\0", 20), Ok(Vec::new()));
    }
}
