//! Checkpoints of the audit tree as text: C2SP `tlog-checkpoint` inside a C2SP `signed-note`.
//!
//! The parser is strict: a text has one reading, and printing what was read gives the same bytes, so the
//! signed bytes are those of [`Checkpoint::body`]. This module neither signs nor verifies signatures.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::tree::{Hash, MAX_SIZE};

/// A tree head: which log, how many leaves, which root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// Makes a checkpoint of the log named `origin`.
    ///
    /// # Errors
    /// When the origin or an extension is empty, too long, or has a control character; when there are too many
    /// extensions or the tree is too large.
    pub fn new(
        origin: &str,
        size: u64,
        root: Hash,
        extensions: Vec<String>,
    ) -> Result<Self, CheckpointError> {
        check_line(origin, MAX_ORIGIN_BYTES).map_err(|_| CheckpointError::Origin)?;
        if size > MAX_SIZE {
            return Err(CheckpointError::Size);
        }
        if extensions.len() > MAX_EXTENSIONS {
            return Err(CheckpointError::Extension);
        }
        for line in &extensions {
            check_line(line, MAX_EXTENSION_BYTES).map_err(|_| CheckpointError::Extension)?;
        }
        Ok(Self { origin: origin.to_owned(), size, root, extensions })
    }

    /// Which log this is.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Lines after the root, whose meaning is the log's own.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// The text that is signed, with its final newline.
    pub fn body(&self) -> String {
        let mut body = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root));
        for line in &self.extensions {
            body.push_str(line);
            body.push('\n');
        }
        body
    }

    /// Reads a signed checkpoint: the tree head, and the signatures under it, none of them verified.
    ///
    /// # Errors
    /// When the text is not exactly a signed note with a checkpoint in it, or exceeds a limit.
    pub fn parse(note: &str) -> Result<(Self, Vec<NoteSignature>), CheckpointError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(CheckpointError::TooLong);
        }
        let (body, signatures) = note.split_once("\n\n").ok_or(CheckpointError::Unsigned)?;
        Ok((Self::parse_lines(body)?, parse_signatures(signatures)?))
    }

    /// Reads the signed text alone, as [`Checkpoint::body`] writes it.
    ///
    /// # Errors
    /// When the text is not exactly a checkpoint, or exceeds a limit.
    pub fn parse_body(body: &str) -> Result<Self, CheckpointError> {
        if body.len() > MAX_NOTE_BYTES {
            return Err(CheckpointError::TooLong);
        }
        Self::parse_lines(body.strip_suffix('\n').ok_or(CheckpointError::Incomplete)?)
    }

    fn parse_lines(body: &str) -> Result<Self, CheckpointError> {
        let mut lines = body.split('\n');
        let mut next = || lines.next().ok_or(CheckpointError::Incomplete);
        let (origin, size, root) = (next()?, next()?, next()?);
        let size = parse_decimal(size).ok_or(CheckpointError::Size)?;
        let root = decode_root(root).ok_or(CheckpointError::Root)?;
        let extensions: Vec<String> = lines.take(MAX_EXTENSIONS + 1).map(str::to_owned).collect();
        Self::new(origin, size, root, extensions)
    }
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The first four bytes of the hash that identifies name, algorithm and key, big-endian.
    pub key_id: u32,
    /// What the algorithm gave.
    pub signature: Vec<u8>,
}

/// The signed note: `body` as [`Checkpoint::body`] gives it, with one signature line under it.
///
/// # Errors
/// When the body does not end its last line or the name may not be that of a key.
pub fn note_text(body: &str, name: &str, key_id: u32, signature: &[u8]) -> Result<String, CheckpointError> {
    if !body.ends_with('\n') {
        return Err(CheckpointError::Incomplete);
    }
    add_signature(&format!("{body}\n"), name, key_id, signature)
}

/// Adds a further signature line, such as a witness's, to a signed note.
///
/// # Errors
/// When the note does not end its last line or the name may not be that of a key.
pub fn add_signature(
    note: &str,
    name: &str,
    key_id: u32,
    signature: &[u8],
) -> Result<String, CheckpointError> {
    if !note.ends_with('\n') || !is_key_name(name) || signature.is_empty() {
        return Err(CheckpointError::Signature);
    }
    let bytes = [&key_id.to_be_bytes()[..], signature].concat();
    Ok(format!("{note}{DASH}{name} {}\n", STANDARD.encode(bytes)))
}

/// What is wrong with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// More bytes than a note may have.
    #[error("checkpoint is longer than {MAX_NOTE_BYTES} bytes")]
    TooLong,
    /// Fewer than three lines, or a last line without its end.
    #[error("checkpoint is incomplete")]
    Incomplete,
    /// No blank line with signatures under it.
    #[error("checkpoint is not signed")]
    Unsigned,
    /// A first line that does not name a log.
    #[error("origin of the checkpoint is malformed")]
    Origin,
    /// A second line that is not a number of leaves.
    #[error("tree size of the checkpoint is malformed")]
    Size,
    /// A third line that is not a hash.
    #[error("root hash of the checkpoint is malformed")]
    Root,
    /// A further line that is empty, too long, one too many, or has control characters.
    #[error("extension line of the checkpoint is malformed")]
    Extension,
    /// A signature line that is malformed, or one too many.
    #[error("signature line of the checkpoint is malformed")]
    Signature,
}

fn parse_signatures(text: &str) -> Result<Vec<NoteSignature>, CheckpointError> {
    let lines = text.strip_suffix('\n').ok_or(CheckpointError::Signature)?;
    let signatures: Vec<_> = lines.split('\n').take(MAX_SIGNATURES + 1).map(parse_signature).collect();
    if signatures.len() > MAX_SIGNATURES {
        return Err(CheckpointError::Signature);
    }
    signatures.into_iter().collect::<Option<_>>().ok_or(CheckpointError::Signature)
}

fn parse_signature(line: &str) -> Option<NoteSignature> {
    let (name, encoded) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (key_id, signature) = bytes.split_first_chunk::<4>()?;
    if !is_key_name(name) || signature.is_empty() {
        return None;
    }
    Some(NoteSignature {
        name: name.to_owned(),
        key_id: u32::from_be_bytes(*key_id),
        signature: signature.to_vec(),
    })
}

fn is_key_name(name: &str) -> bool {
    check_line(name, MAX_ORIGIN_BYTES).is_ok() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

fn parse_decimal(text: &str) -> Option<u64> {
    let is_canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_canonical { text.parse().ok() } else { None }
}

fn decode_root(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn check_line(line: &str, most: usize) -> Result<(), ()> {
    let is_bad = line.is_empty() || line.len() > most || line.chars().any(char::is_control);
    if is_bad { Err(()) } else { Ok(()) }
}

/// Longest note in bytes: 16 post-quantum signatures of 5 kB (signed-note asks for as many) with room to spare.
pub const MAX_NOTE_BYTES: usize = 128 * 1024;
/// Most signatures on a note: twice what signed-note demands of a verifier.
pub const MAX_SIGNATURES: usize = 32;
/// Most extension lines; Keymoat writes a few.
pub const MAX_EXTENSIONS: usize = 16;
/// Longest extension line in bytes.
pub const MAX_EXTENSION_BYTES: usize = 1024;
/// Longest name of a log or key in bytes: that of a host name and a path.
pub const MAX_ORIGIN_BYTES: usize = 512;
/// What a signature line begins with: em dash, space.
const DASH: &str = "\u{2014} ";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the specification.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa \
        Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    #[test]
    fn example_of_the_specification() {
        let (checkpoint, signatures) = Checkpoint::parse(EXAMPLE).unwrap();
        assert_eq!(checkpoint.origin(), "example.com/behind-the-sofa");
        assert_eq!(checkpoint.size(), 20_852_163);
        let [signature] = &signatures[..] else { panic!("{signatures:?}") };
        assert_eq!((signature.key_id, signature.signature.len()), (0x033d_e0ae, 64));
        let text =
            note_text(&checkpoint.body(), &signature.name, signature.key_id, &signature.signature).unwrap();
        assert_eq!(text, EXAMPLE);
    }

    #[test]
    fn refused() {
        let check = |from: &str, to: &str, expected: CheckpointError| {
            let changed = EXAMPLE.replacen(from, to, 1);
            assert_ne!(changed, EXAMPLE, "{from:?}");
            assert_eq!(Checkpoint::parse(&changed).unwrap_err(), expected, "{from:?} to {to:?}");
        };
        check("\n\n\u{2014}", "\n\u{2014}", CheckpointError::Unsigned);
        check("example.com/behind-the-sofa", "", CheckpointError::Origin);
        check("example", "exa\tmple", CheckpointError::Origin);
        check("example", "exa\rmple", CheckpointError::Origin);
        check("20852163", "020852163", CheckpointError::Size);
        check("20852163", "+20852163", CheckpointError::Size);
        check("20852163", "", CheckpointError::Incomplete);
        check("20852163", " ", CheckpointError::Size);
        check("20852163", "99999999999999999999", CheckpointError::Size);
        check("20852163", "9223372036854775807", CheckpointError::Size);
        check("jxq2I=", "jxq2J=", CheckpointError::Root);
        check("jxq2I=", "jxq2I", CheckpointError::Root);
        check("jxq2I=", "jxq2I= ", CheckpointError::Root);
        check("CsUY", "", CheckpointError::Root);
        check("I=\n\n", "I=\n\n\n", CheckpointError::Signature);
        check("YQ8=\n", "YQ8=", CheckpointError::Signature);
        check("YQ8=\n", "YQ8=\nmore\n", CheckpointError::Signature);
        check("\u{2014} example", "- example", CheckpointError::Signature);
        check("\u{2014} example", "\u{2014} exa+mple", CheckpointError::Signature);
        check("sofa Az3", "sofa  Az3", CheckpointError::Signature);
        check("20852163\n", "20852163\r\n", CheckpointError::Size);
        assert_eq!(Checkpoint::parse("a\n1\n\n").unwrap_err(), CheckpointError::Incomplete);
        assert_eq!(Checkpoint::parse(&"a".repeat(200_000)).unwrap_err(), CheckpointError::TooLong);
        let many = EXAMPLE.to_owned() + &EXAMPLE.lines().last().map(|l| format!("{l}\n")).unwrap().repeat(32);
        assert_eq!(Checkpoint::parse(&many).unwrap_err(), CheckpointError::Signature);
        let extended = EXAMPLE.replacen("I=\n", &format!("I=\n{}", "x\n".repeat(17)), 1);
        assert_eq!(Checkpoint::parse(&extended).unwrap_err(), CheckpointError::Extension);
    }

    #[test]
    fn a_writer_refuses_what_a_reader_would() {
        assert!(Checkpoint::new("", 0, [0; 32], vec![]).is_err());
        assert!(Checkpoint::new("a\nb", 0, [0; 32], vec![]).is_err());
        assert!(Checkpoint::new("a", 0, [0; 32], vec![String::new()]).is_err());
        assert!(Checkpoint::new("a", u64::MAX, [0; 32], vec![]).is_err());
        let body = Checkpoint::new("a", 0, [0; 32], vec![]).unwrap().body();
        assert!(note_text(&body, "two words", 1, &[0; 64]).is_err());
        assert!(note_text("a", "name", 1, &[0; 64]).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(
            origin in "[!-~é]{1,40}",
            size in 0..=MAX_SIZE,
            root: Hash,
            extensions in prop::collection::vec("[ -~]{1,40}", 0..=16),
            keys in prop::collection::vec(("[!-*,-~]{1,20}", any::<u32>(), prop::collection::vec(any::<u8>(), 1..80)), 1..5),
        ) {
            let checkpoint = Checkpoint::new(&origin, size, root, extensions).unwrap();
            let mut note = format!("{}\n", checkpoint.body());
            for (name, key_id, signature) in &keys {
                note = add_signature(&note, name, *key_id, signature).unwrap();
            }
            let (read, signatures) = Checkpoint::parse(&note).unwrap();
            prop_assert_eq!(Checkpoint::parse_body(&read.body()).unwrap(), checkpoint.clone());
            prop_assert_eq!(read, checkpoint);
            let read_keys: Vec<_> = signatures.into_iter().map(|s| (s.name, s.key_id, s.signature)).collect();
            prop_assert_eq!(read_keys, keys);
        }

        #[test]
        fn what_is_read_prints_the_same(text in ".{0,80}", at in 0..EXAMPLE.len(), with: char) {
            let _ = Checkpoint::parse(&text);
            if EXAMPLE.is_char_boundary(at) {
                let mut changed = EXAMPLE.to_owned();
                changed.insert(at, with);
                if let Ok((checkpoint, _)) = Checkpoint::parse(&changed) {
                    let signed = format!("{}\n", checkpoint.body());
                    prop_assert!(changed.starts_with(&signed));
                }
            }
        }
    }
}
