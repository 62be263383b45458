//! The one encoding of structured context into bytes, for derivations and authenticated data.
//!
//! Each field is its length (u32, big-endian) and its bytes, so no two different lists of fields share an
//! encoding. It is written, never parsed.

/// A context under construction; the first field names what it is.
pub(crate) struct Canonical(Vec<u8>);

impl Canonical {
    /// Starts a context called `name`, which no other context may be called.
    pub(crate) fn new(name: &str) -> Self {
        Self(Vec::with_capacity(TYPICAL_LEN)).field(name.as_bytes())
    }

    /// Adds a field.
    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&length_prefix(bytes));
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a number as a field of four bytes, big-endian.
    pub(crate) fn number(self, value: u32) -> Self {
        self.field(&value.to_be_bytes())
    }

    /// Adds a byte 0 for nothing, or a byte 1 and the field: an absent company is not a nameless one.
    pub(crate) fn option(mut self, value: Option<&str>) -> Self {
        match value {
            None => {
                self.0.push(0);
                self
            }
            Some(text) => {
                self.0.push(1);
                self.field(text.as_bytes())
            }
        }
    }

    /// Gives the encoding.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The length of a field as it stands in front of it.
pub(crate) fn length_prefix(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len())
        .expect("a field is limited far below 4 GiB by whoever accepts it")
        .to_be_bytes()
}

/// Enough for most places without growing.
const TYPICAL_LEN: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encodes_as_documented() {
        let bytes = Canonical::new("n").field(b"ab").number(7).option(None).option(Some("c")).finish();
        assert_eq!(bytes, b"\0\0\0\x01n\0\0\0\x02ab\0\0\0\x04\0\0\0\x07\0\x01\0\0\0\x01c");
    }

    proptest! {
        #[test]
        fn different_fields_never_collide(a in proptest::collection::vec(".{0,4}", 0..5),
                                          b in proptest::collection::vec(".{0,4}", 0..5)) {
            let encode = |fields: &[String]| {
                fields.iter().fold(Canonical::new("n"), |c, f| c.field(f.as_bytes())).finish()
            };
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }
    }
}
