//! Text of two bytes a character, as UTF-8.

use super::turned::Turn;

/// Turns UTF-16 into UTF-8; what is no character becomes `�`.
pub(super) struct Utf16 {
    big_endian: bool,
    half: Option<u8>,
    high: Option<u16>,
}

impl Utf16 {
    pub fn new(big_endian: bool) -> Self {
        Self { big_endian, half: None, high: None }
    }
}

impl Turn for Utf16 {
    fn turn(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            let Some(first) = self.half.take() else {
                self.half = Some(*byte);
                continue;
            };
            let pair = [first, *byte];
            let unit = if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
            if matches!(unit, 0xd800..=0xdbff) {
                self.high = Some(unit);
                continue;
            }
            let units = self.high.take().into_iter().chain([unit]);
            for symbol in char::decode_utf16(units) {
                let symbol = symbol.unwrap_or(char::REPLACEMENT_CHARACTER);
                if symbol != '\u{feff}' {
                    out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }
}
