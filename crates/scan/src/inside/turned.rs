//! A stream out of which other text is made as it goes by.

use std::io::{self, BufRead, Read};

/// Makes text out of bytes, which come in pieces of any size.
pub(super) trait Turn {
    /// Adds to `out` what these bytes become.
    fn turn(&mut self, bytes: &[u8], out: &mut Vec<u8>);
}

/// What a stream becomes.
pub(super) struct Turned<R, T> {
    inner: R,
    turn: T,
    out: Vec<u8>,
    at: usize,
}

impl<R: BufRead, T: Turn> Turned<R, T> {
    pub fn new(inner: R, turn: T) -> Self {
        Self { inner, turn, out: Vec::new(), at: 0 }
    }

    /// Reads on until there is something, or nothing more comes.
    fn fill(&mut self) -> io::Result<()> {
        self.out.clear();
        self.at = 0;
        while self.out.is_empty() {
            let bytes = self.inner.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            let read = bytes.len();
            self.turn.turn(bytes, &mut self.out);
            self.inner.consume(read);
        }
        Ok(())
    }
}

impl<R: BufRead, T: Turn> Read for Turned<R, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.out.len() {
            self.fill()?;
        }
        let read = (&self.out[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}
