//! Deltas of packs (gitformat-pack(5)): what is copied from the base, what is inserted, and the bytes that come of it.
//!
//! It reads bytes that anybody may have written, and gives an error for each that is not a delta of this base.

use std::ops::Range;

/// Part of a base that stands unchanged in what the delta makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Where it begins in the base.
    pub base: usize,
    /// Where it begins in the result.
    pub result: usize,
    /// How many bytes it has; never 0.
    pub len: usize,
}

impl Copied {
    /// Where it stands in the result.
    pub fn in_result(self) -> Range<usize> {
        self.result..self.result + self.len
    }
}

/// What is wrong with a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It ends within a number or an instruction.
    #[error("the delta is cut off")]
    Truncated,
    /// It was made for a base of another length.
    #[error("the delta is for another base")]
    OtherBase,
    /// An instruction reaches beyond the base or the result, or is the reserved one.
    #[error("the delta has an instruction that makes no sense")]
    Instruction,
    /// Its instructions make less than it promises.
    #[error("the delta makes less than it says")]
    Short,
    /// The result is longer than what is taken into memory.
    #[error("the delta makes {0} bytes, more than is taken into memory")]
    TooLarge(u64),
}

/// The lengths at the beginning of a delta, and its instructions.
pub fn lengths(delta: &[u8]) -> Result<(u64, u64, &[u8]), DeltaError> {
    let (base, rest) = length(delta)?;
    let (result, rest) = length(rest)?;
    Ok((base, result, rest))
}

/// Applies `delta` to `base`. `result` is emptied first, and `copied` gets what was taken over unchanged: neighbours in
/// both base and result are one entry.
pub fn apply(
    base: &[u8],
    delta: &[u8],
    longest: usize,
    result: &mut Vec<u8>,
    copied: &mut Vec<Copied>,
) -> Result<(), DeltaError> {
    result.clear();
    copied.clear();
    let (base_len, result_len, mut rest) = lengths(delta)?;
    if base_len != base.len() as u64 {
        return Err(DeltaError::OtherBase);
    }
    let result_len = usize::try_from(result_len).unwrap_or(usize::MAX);
    if result_len > longest {
        return Err(DeltaError::TooLarge(result_len as u64));
    }
    // What a liar promises is not believed at once.
    result.reserve(result_len.min(base.len() + delta.len()));
    while let Some((&code, after)) = rest.split_first() {
        rest = after;
        let start = result.len();
        let bytes = if code & COPY != 0 {
            let (offset, len) = copy(code, &mut rest)?;
            let bytes = offset.checked_add(len).and_then(|end| base.get(offset..end));
            let bytes = bytes.ok_or(DeltaError::Instruction)?;
            note(copied, Copied { base: offset, result: start, len });
            bytes
        } else {
            let len = usize::from(code);
            if len == 0 {
                return Err(DeltaError::Instruction);
            }
            let (bytes, after) = rest.split_at_checked(len).ok_or(DeltaError::Truncated)?;
            rest = after;
            bytes
        };
        if bytes.len() > result_len - start {
            return Err(DeltaError::Instruction);
        }
        result.extend_from_slice(bytes);
    }
    if result.len() == result_len { Ok(()) } else { Err(DeltaError::Short) }
}

fn note(copied: &mut Vec<Copied>, new: Copied) {
    if let Some(last) = copied.last_mut()
        && last.base + last.len == new.base
        && last.result + last.len == new.result
    {
        last.len += new.len;
        return;
    }
    copied.push(new);
}

fn length(bytes: &[u8]) -> Result<(u64, &[u8]), DeltaError> {
    let mut length = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        let shift = 7 * index as u32;
        if shift > 56 {
            return Err(DeltaError::Instruction);
        }
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((length, &bytes[index + 1..]));
        }
    }
    Err(DeltaError::Truncated)
}

/// Offset and length of a copy: of each byte, its bit in the code says whether it is there.
fn copy(code: u8, rest: &mut &[u8]) -> Result<(usize, usize), DeltaError> {
    let mut field = |bits: Range<u32>| {
        let mut value = 0usize;
        for (index, bit) in bits.enumerate() {
            if code & (1 << bit) != 0 {
                let (byte, after) = rest.split_first().ok_or(DeltaError::Truncated)?;
                value |= usize::from(*byte) << (8 * index);
                *rest = after;
            }
        }
        Ok(value)
    };
    let offset = field(0..4)?;
    let len = field(4..7)?;
    Ok((offset, if len == 0 { LEN_OF_NONE } else { len }))
}

const COPY: u8 = 0x80;
/// A copy without a length is of 64 KiB.
const LEN_OF_NONE: usize = 0x10000;

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(base: &[u8], delta: &[u8]) -> Result<(Vec<u8>, Vec<Copied>), DeltaError> {
        let (mut result, mut copied) = (Vec::new(), Vec::new());
        apply(base, delta, 1000, &mut result, &mut copied).map(|()| (result, copied))
    }

    #[test]
    fn deltas_and_what_is_none() {
        let base = b"0123456789";
        let good = |delta: &[u8], expected: &[u8], copies: &[(usize, usize, usize)]| {
            let (result, copied) = applied(base, delta).unwrap();
            assert_eq!(result, expected);
            let copied: Vec<_> = copied.iter().map(|part| (part.base, part.result, part.len)).collect();
            assert_eq!(copied, copies);
        };
        good(&[10, 0], b"", &[]);
        good(&[10, 3, 3, b'a', b'b', b'c'], b"abc", &[]);
        good(&[10, 4, 0x91, 2, 4], b"2345", &[(2, 0, 4)]);
        good(&[10, 4, 0x90, 4], b"0123", &[(0, 0, 4)]);
        // Neighbours in both are one; in the base alone they are two.
        good(&[10, 4, 0x91, 2, 2, 0x91, 4, 2], b"2345", &[(2, 0, 4)]);
        good(&[10, 5, 0x91, 2, 2, 1, b'x', 0x91, 4, 2], b"23x45", &[(2, 0, 2), (4, 3, 2)]);

        for (delta, error) in [
            (&[][..], DeltaError::Truncated),
            (&[0x80], DeltaError::Truncated),
            (&[0xff; 12], DeltaError::Instruction),
            (&[9, 0], DeltaError::OtherBase),
            (&[10, 1], DeltaError::Short),
            (&[10, 1, 0], DeltaError::Instruction),
            (&[10, 1, 2, b'a'], DeltaError::Truncated),
            (&[10, 1, 2, b'a', b'b'], DeltaError::Instruction),
            (&[10, 4, 0x91, 8, 4], DeltaError::Instruction),
            (&[10, 4, 0x91, 8], DeltaError::Truncated),
            // 64 KiB of ten bytes.
            (&[10, 4, 0x81, 0], DeltaError::Instruction),
            (&[10, 0xff, 0xff, 0x7f], DeltaError::TooLarge(0x1f_ffff)),
        ] {
            assert_eq!(applied(base, delta).unwrap_err(), error, "{delta:?}");
        }
    }
}
