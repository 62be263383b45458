//! A place in a text where a key stands.

use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use super::RuleId;
use crate::identify::Certainty;

/// A key found in a text. It never owns what stands in the text as it is; a value that had to be decoded is erased
/// with the hit.
#[derive(Clone, PartialEq, Eq)]
pub struct Hit {
    /// What it was found as.
    pub rule: RuleId,
    /// Where it stands in the text, in the form it has there.
    pub span: Range<usize>,
    /// The form it has there.
    pub encoding: Encoding,
    /// How sure that is.
    pub certainty: Certainty,
    pub(super) decoded: Option<Zeroizing<Vec<u8>>>,
}

impl Hit {
    pub(super) fn plain(rule: RuleId, span: Range<usize>, certainty: Certainty) -> Self {
        Self { rule, span, encoding: Encoding::Plain, certainty, decoded: None }
    }

    /// Lends the value, decoded where it was encoded. `text` is the one that was searched; of another one the value is
    /// whatever stands at that place there.
    pub fn with_value<T>(&self, text: &[u8], use_value: impl FnOnce(&[u8]) -> T) -> T {
        match &self.decoded {
            Some(value) => use_value(value),
            None => use_value(text.get(self.span.clone()).unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("rule", &self.rule)
            .field("span", &self.span)
            .field("encoding", &self.encoding)
            .field("certainty", &self.certainty)
            .finish_non_exhaustive()
    }
}

/// How a value stood in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// Base64, of either alphabet.
    Base64,
    /// Base64 of base64.
    Base64Twice,
    /// Hexadecimal digits.
    Hex,
    /// With `%5F` in place of some characters.
    Percent,
    /// With `\u005f` or `\x5f` in place of some characters.
    Escaped,
    /// In several string literals that the program puts together.
    Split,
}

impl Encoding {
    /// The word used in output and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Base64 => "base64",
            Self::Base64Twice => "base64, twice",
            Self::Hex => "hexadecimal",
            Self::Percent => "percent-encoded",
            Self::Escaped => "escaped",
            Self::Split => "split",
        }
    }
}
