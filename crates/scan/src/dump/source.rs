//! A stream of which some bytes can be looked at before they are taken, with the number of the line.

use std::io::{self, Read};

pub(super) struct Source<'r> {
    stream: &'r mut dyn Read,
    buffer: Vec<u8>,
    start: usize,
    is_at_end: bool,
    /// An error that comes after the bytes that came before it.
    error: Option<io::Error>,
    /// The line of the next byte, from 1.
    pub line: u64,
    /// How many bytes of that line were taken.
    pub into_line: u64,
    /// How many bytes were taken in all.
    pub taken: u64,
}

impl<'r> Source<'r> {
    pub fn new(stream: &'r mut dyn Read) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            start: 0,
            is_at_end: false,
            error: None,
            line: 1,
            into_line: 0,
            taken: 0,
        }
    }

    /// What has been read and not taken.
    pub fn ready(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// As much as there is up to `wanted` bytes, and maybe more.
    pub fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.ready().len() < wanted && !self.is_at_end {
            self.fill()?;
        }
        Ok(self.ready())
    }

    /// Whether nothing is left.
    pub fn is_over(&mut self) -> io::Result<bool> {
        let is_over = self.peek(1)?.is_empty();
        match self.error.take() {
            Some(error) if is_over => Err(error),
            error => {
                self.error = error;
                Ok(is_over)
            }
        }
    }

    /// The next line with its end, and whether it is whole; at most about `most` bytes of it.
    pub fn next_line(&mut self, most: usize) -> io::Result<(&[u8], bool)> {
        let mut looked = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.ready()[looked..]) {
                let end = looked + end + 1;
                return Ok((&self.buffer[self.start..self.start + end], true));
            }
            looked = self.ready().len();
            if looked >= most || self.is_at_end {
                let is_at_end = self.is_at_end;
                return Ok((self.ready(), is_at_end));
            }
            self.fill()?;
        }
    }

    /// Takes bytes.
    pub fn consume(&mut self, bytes: usize) {
        let taken = &self.buffer[self.start..self.start + bytes];
        match memchr::memrchr(b'\n', taken) {
            Some(end) => {
                self.line += memchr::memchr_iter(b'\n', taken).count() as u64;
                self.into_line = (bytes - end - 1) as u64;
            }
            None => self.into_line += bytes as u64,
        }
        self.taken += bytes as u64;
        self.start += bytes;
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + STEP, 0);
        let read = loop {
            match self.stream.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => break read,
                Err(error) => {
                    self.error = Some(error);
                    break 0;
                }
            }
        };
        self.buffer.truncate(filled + read);
        self.is_at_end = read == 0;
        Ok(())
    }
}

const STEP: usize = 128 << 10;
