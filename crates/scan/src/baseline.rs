//! Findings that are known: a file of keyed fingerprints, which later scans leave out.
//!
//! A line stands for a value, wherever it is: moved lines and renamed files change nothing. Lines are sorted, so two
//! branches that each add some merge. The key of the fingerprints stands in the file: it keeps fingerprints of one
//! repository from being compared with another's, but who has the file can try out guesses of a weak password.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::finding::{Fingerprint, FingerprintKey};
use crate::report::{Reported, printable};

/// Findings that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    salt: [u8; 32],
    /// What people read behind each fingerprint.
    known: BTreeMap<[u8; 32], String>,
}

/// Why a baseline cannot be read. It never repeats the line, which may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// A merge was left unfinished.
    #[error("line {0} is the mark of a merge conflict; keep the lines of both sides, and one `salt` line")]
    Conflict(usize),
    /// A line is not of this format.
    #[error(
        "line {0} is neither `salt` nor a fingerprint; take it out, or make the file anew with --update-baseline"
    )]
    Line(usize),
    /// There is no salt.
    #[error("it has no `salt` line, so its fingerprints mean nothing; make it anew with --update-baseline")]
    NoSalt,
    /// There are two.
    #[error(
        "line {0} is a second `salt`; keep the one that most lines were made with, and add the others anew"
    )]
    TwoSalts(usize),
}

impl Baseline {
    /// An empty one, with a random salt.
    pub fn new(salt: [u8; 32]) -> Self {
        Self { salt, known: BTreeMap::new() }
    }

    /// Reads one.
    ///
    /// # Errors
    /// With the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, BaselineError> {
        let mut salt = None;
        let mut known = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if ["<<<<<<<", "=======", ">>>>>>>", "|||||||"].iter().any(|mark| line.starts_with(mark)) {
                return Err(BaselineError::Conflict(number));
            }
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            if word == "salt" {
                let word = rest.split_whitespace().next().unwrap_or_default();
                let new = bytes(word).ok_or(BaselineError::Line(number))?;
                if salt.replace(new).is_some_and(|old| old != new) {
                    return Err(BaselineError::TwoSalts(number));
                }
            } else {
                known.insert(bytes(word).ok_or(BaselineError::Line(number))?, rest.trim().to_owned());
            }
        }
        Ok(Self { salt: salt.ok_or(BaselineError::NoSalt)?, known })
    }

    /// What fingerprints have to be made with to be found in it.
    pub fn key(&self) -> FingerprintKey {
        FingerprintKey::new(self.salt)
    }

    /// Whether a value is known.
    pub fn has(&self, fingerprint: &Fingerprint) -> bool {
        self.known.contains_key(fingerprint.as_bytes())
    }

    /// How many values are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Adds a finding; what stands behind a known one stays.
    pub fn add(&mut self, finding: &Reported) {
        let said = || printable(&format!("{} {}", finding.rule, finding.mask));
        self.known.entry(*finding.fingerprint.as_bytes()).or_insert_with(said);
    }

    /// The file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}salt {} {ALLOWED}\n", HEXLOWER_PERMISSIVE.encode(&self.salt));
        for (fingerprint, said) in &self.known {
            let line = format!("{} {said}", HEXLOWER_PERMISSIVE.encode(fingerprint));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

/// A scan of the repository finds the file, too, and a random value behind this word.
const ALLOWED: &str = "keymoat:allow it keeps fingerprints apart and is no secret";

const HEADER: &str = "\
# Keymoat's baseline: findings that are known, a keyed fingerprint a line; what stands behind it is for people.
# `keymoat scan --baseline FILE --update-baseline` adds to it. Take a line out to be told of it again.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn line(digit: &str) -> String {
        digit.repeat(64)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut baseline = Baseline::new([7; 32]);
        let text = format!("{} stripe/live_secret sk_live_…4242  # known to Ann\n", line("b"));
        let read = Baseline::parse(&format!("{}{text}", baseline.to_text())).unwrap();
        assert_eq!(read.to_text(), format!("{}{text}", baseline.to_text()));
        assert!(
            read.has(&Fingerprint::from_bytes([0xbb; 32])) && !read.has(&Fingerprint::from_bytes([0xaa; 32]))
        );
        baseline.known.insert([0xaa; 32], String::new());
        assert_eq!((baseline.len(), baseline.is_empty()), (1, false));
        assert!(baseline.to_text().ends_with(&format!(
            "salt {} {ALLOWED}\n{}\n",
            "07".repeat(32),
            line("a")
        )));
    }

    #[test]
    fn what_is_no_baseline() {
        let salt = format!("salt {}", line("0"));
        for (text, expected) in [
            (String::new(), BaselineError::NoSalt),
            (line("a"), BaselineError::NoSalt),
            ("salt 00".to_owned(), BaselineError::Line(1)),
            (format!("{salt}\n\n# said\nnonsense"), BaselineError::Line(4)),
            (format!("{salt}\n{}0", line("a")), BaselineError::Line(2)),
            (format!("{salt}\nsalt {}", line("1")), BaselineError::TwoSalts(2)),
            (format!("{salt}\n<<<<<<< HEAD\n{}", line("a")), BaselineError::Conflict(2)),
            (format!("{salt}\n{}\n=======", line("a")), BaselineError::Conflict(3)),
        ] {
            assert_eq!(Baseline::parse(&text).unwrap_err(), expected, "{text}");
        }
    }

    /// As `git merge` with `merge=union` or a person would put the lines of two branches together.
    #[test]
    fn two_branches_merge() {
        let salt = format!("salt {}", line("0"));
        let merged = format!("{salt}\n{}\n{}\n{salt}\n{}\n", line("a"), line("b"), line("c"));
        assert_eq!(Baseline::parse(&merged).unwrap().len(), 3);
    }
}
