//! Text of two bytes a character, as UTF-8.

use std::io::{self, BufRead, Read};

/// Turns UTF-16 into UTF-8; what is no character becomes `�`.
pub(super) struct Utf8<R> {
    inner: R,
    big_endian: bool,
    half: Option<u8>,
    high: Option<u16>,
    out: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Utf8<R> {
    pub fn new(inner: R, big_endian: bool) -> Self {
        Self { inner, big_endian, half: None, high: None, out: Vec::new(), at: 0 }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.out.clear();
        self.at = 0;
        while self.out.is_empty() {
            let buffer = self.inner.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let read = buffer.len();
            let (mut half, mut high) = (self.half, self.high);
            for byte in buffer {
                let Some(first) = half.take() else {
                    half = Some(*byte);
                    continue;
                };
                let pair = [first, *byte];
                let unit = if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
                if matches!(unit, 0xd800..=0xdbff) {
                    high = Some(unit);
                    continue;
                }
                let units = high.take().into_iter().chain([unit]);
                for symbol in char::decode_utf16(units) {
                    let symbol = symbol.unwrap_or(char::REPLACEMENT_CHARACTER);
                    if symbol != '\u{feff}' {
                        self.out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
            (self.half, self.high) = (half, high);
            self.inner.consume(read);
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.out.len() {
            self.fill()?;
        }
        let read = (&self.out[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}
