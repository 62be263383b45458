//! One packed stream: which kinds there are, and what comes out of them.

use std::error::Error;
use std::io::{self, BufRead, Read};

use ruzstd::decoding::StreamingDecoder;

use super::budget::{Bounded, Counted, Spent};

/// How a stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    /// With the header of zlib, as in PDF and in dumps of PostgreSQL.
    Zlib,
    /// Without any header, as in zip.
    Deflate,
    Bzip2,
    Xz,
    Zstd,
    Lz4,
}

impl Packing {
    /// By the first bytes.
    pub fn of(head: &[u8]) -> Option<Self> {
        let known: &[(&[u8], Self)] = &[
            (b"\x1f\x8b\x08", Self::Gzip),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
            (b"\x04\x22\x4d\x18", Self::Lz4),
        ];
        let is_bzip2 = head.starts_with(b"BZh")
            && matches!(head.get(3), Some(b'1'..=b'9'))
            && head[4..].starts_with(b"1AY&SY");
        let by_magic = known.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, packing)| *packing);
        by_magic.or(is_bzip2.then_some(Self::Bzip2))
    }

    /// What comes out of a stream, within what it may cost.
    pub fn unpack<'s>(self, packed: impl BufRead + 's, spent: &'s Spent) -> impl Read + 's {
        let (packed, taken) = Counted::new(packed);
        Bounded::new(self.decoder(packed), taken, spent)
    }

    /// What comes out of a stream that is known to be no bomb.
    pub fn decoder<'s>(self, packed: impl BufRead + 's) -> Box<dyn Read + 's> {
        match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Zlib => Box::new(flate2::bufread::ZlibDecoder::new(packed)),
            Self::Deflate => Box::new(flate2::bufread::DeflateDecoder::new(packed)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_MEMORY_KIB)),
            Self::Zstd => Box::new(ZstdFrames::Next(Some(packed))),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        }
    }
}

/// One frame after the other: `zstd` and `pzstd` write several.
enum ZstdFrames<R: BufRead> {
    Next(Option<R>),
    Frame(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Next(packed) => {
                    let Some(mut source) = packed.take() else { return Ok(0) };
                    if source.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let frame = StreamingDecoder::new_with_max_window_size(source, ZSTD_WINDOW)
                        .map_err(|error| plain_error(&error))?;
                    *self = Self::Frame(Box::new(frame));
                }
                Self::Frame(frame) => {
                    let read = frame.read(buffer).map_err(|error| plain_error(&error))?;
                    if read > 0 || buffer.is_empty() {
                        return Ok(read);
                    }
                    let Self::Frame(frame) = std::mem::replace(self, Self::Next(None)) else { return Ok(0) };
                    *self = Self::Next(Some(frame.into_inner()));
                }
            }
        }
    }
}

/// What the reader of zstd meets lies deep in its own errors.
fn plain_error(error: &(dyn Error + 'static)) -> io::Error {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<io::Error>() {
            Some(error) if error.get_ref().is_none() => return error.kind().into(),
            // Such an error shows what it wraps as itself.
            Some(wrapped) => next = wrapped.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => next = error.source(),
        }
    }
    io::Error::new(io::ErrorKind::InvalidData, "no zstd that makes sense")
}

/// `xz -9` needs 64 MiB.
const XZ_MEMORY_KIB: u32 = 96 << 10;

/// `zstd -19` needs 8 MiB, `--long` 128.
const ZSTD_WINDOW: u64 = 128 << 20;
