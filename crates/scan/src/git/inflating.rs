//! A compressed object as a stream, for those that do not fit into memory.

use std::io::{self, Read};

use gix_zlib::Decompress;

/// Reads what a zlib stream inflates to.
pub(crate) struct Inflating<R> {
    compressed: R,
    state: Decompress,
    /// How many bytes are still to come.
    left: u64,
}

impl<R: io::BufRead> Inflating<R> {
    /// Of a stream that inflates to `len` bytes.
    pub fn new(compressed: R, len: u64) -> Self {
        Self { compressed, state: Decompress::new(), left: len }
    }
}

impl<R: io::BufRead> Read for Inflating<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read =
            gix_zlib::stream::inflate::read(&mut self.compressed, &mut self.state, &mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
