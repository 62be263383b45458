//! From when to when a certificate is good: as much of X.509 as it takes to find that out (RFC 5280 §4.1). Whether
//! it is good otherwise its reader decides.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

/// Reads a certificate in DER; `None` when it is not one.
pub fn of(der: &[u8]) -> Option<Validity> {
    let certificate = Der(der).enter(SEQUENCE)?;
    let mut fields = certificate.enter(SEQUENCE)?;
    fields.skip_if(VERSION)?;
    fields.take(INTEGER)?;
    // The algorithm of the signature, and who signed.
    fields.take(SEQUENCE)?;
    fields.take(SEQUENCE)?;
    let mut times = Der(fields.take(SEQUENCE)?);
    Some(Validity { not_before: times.time()?, not_after: times.time()? })
}

/// What is left of a row of DER elements (X.690 §8.1).
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// The content of the next element, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }

    fn enter(mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Der)
    }

    fn skip_if(&mut self, tag: u8) -> Option<()> {
        match self.0.first()? {
            first if *first == tag => self.next().map(|_| ()),
            _ => Some(()),
        }
    }

    fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match usize::from(*first) {
            length @ 0..0x80 => (length, rest),
            many => {
                let (bytes, rest) =
                    rest.split_at_checked(many - 0x80).filter(|(bytes, _)| bytes.len() <= 4)?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// `YYMMDDHHMMSSZ`, of 1950 to 2049, or with four digits for the year (RFC 5280 §4.1.2.5).
    fn time(&mut self) -> Option<Timestamp> {
        let (tag, text) = self.next()?;
        let digits = text.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let pair =
            |at: usize| i8::try_from((digits.get(at)? - b'0') * 10 + (digits.get(at + 1)? - b'0')).ok();
        let (year, from) = match (tag, digits.len()) {
            (UTC_TIME, 12) => (i16::from(pair(0)?) + if pair(0)? < 50 { 2000 } else { 1900 }, 2),
            (GENERALIZED_TIME, 14) => (i16::from(pair(0)?) * 100 + i16::from(pair(2)?), 4),
            _ => return None,
        };
        let at = |part: usize| pair(from + 2 * part);
        let time = DateTime::new(year, at(0)?, at(1)?, at(2)?, at(3)?, at(4)?, 0).ok()?;
        // The last second of 9999 stands for no end, and is beyond what can be counted here.
        Some(time.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |time| time.timestamp()))
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// `[0] EXPLICIT`.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An element with its length in the short form.
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        [&[tag, length], content].concat()
    }

    fn certificate(version: bool, from: &[u8], to: &[u8]) -> Vec<u8> {
        let version = if version { element(VERSION, &element(INTEGER, &[2])) } else { Vec::new() };
        let (number, name) = (element(INTEGER, &[1]), element(SEQUENCE, b""));
        let validity = element(SEQUENCE, &[from, to].concat());
        let fields = [version, number, name.clone(), name, validity].concat();
        element(SEQUENCE, &element(SEQUENCE, &fields))
    }

    #[test]
    fn certificates_and_when_they_end() {
        let utc = |text: &str| element(UTC_TIME, text.as_bytes());
        let long = |text: &str| element(GENERALIZED_TIME, text.as_bytes());
        let check = |to: &[u8], expected: Option<&str>| {
            for version in [true, false] {
                let found = of(&certificate(version, &utc("260101000000Z"), to));
                assert_eq!(found.map(|found| found.not_after.to_string()).as_deref(), expected);
            }
        };
        check(&utc("270304050607Z"), Some("2027-03-04T05:06:07Z"));
        check(&utc("491231235959Z"), Some("2049-12-31T23:59:59Z"));
        check(&utc("500101000000Z"), Some("1950-01-01T00:00:00Z"));
        check(&long("20500101000000Z"), Some("2050-01-01T00:00:00Z"));
        check(&long("99991231235959Z"), Some(&Timestamp::MAX.to_string()));
        check(&utc("270304050607"), None);
        check(&utc("2703040506Z"), None);
        check(&utc("271304050607Z"), None);
        check(&element(INTEGER, b"270304050607Z"), None);
        assert_eq!(of(b""), None);
        assert_eq!(of(&[0x30, 0x85, 1, 1, 1, 1, 1]), None);
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..60, byte: u8) {
            let _ = of(&bytes);
            let to = element(UTC_TIME, b"270304050607Z");
            let mut good = certificate(true, &to, &to);
            let at = at % good.len();
            good[at] = byte;
            let _ = of(&good);
        }
    }
}
