//! What stands in objects (gitformat-commit and the like): headers of loose ones, commits, entries of trees.
//!
//! It reads bytes that anybody may have written; what makes no sense is `None`, never a guess.

use gix_hash::ObjectId;

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A state with its parents.
    Commit,
    /// A directory.
    Tree,
    /// A file.
    Blob,
    /// An annotated tag.
    Tag,
}

/// Reads the header of a loose object, `blob 12\0`: its kind, its length and where its content begins.
pub fn loose_header(bytes: &[u8]) -> Option<(Kind, u64, usize)> {
    let end = memchr::memchr(0, bytes.get(..LONGEST_HEADER.min(bytes.len()))?)?;
    let header = std::str::from_utf8(&bytes[..end]).ok()?;
    let (kind, len) = header.split_once(' ')?;
    let kind = match kind {
        "commit" => Kind::Commit,
        "tree" => Kind::Tree,
        "blob" => Kind::Blob,
        "tag" => Kind::Tag,
        _ => return None,
    };
    Some((kind, len.parse().ok()?, end + 1))
}

/// One entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// What the entry is.
    pub mode: Mode,
    /// The name, of any bytes but `/` and NUL.
    pub name: &'a [u8],
    /// The bytes of the object's id.
    pub id: &'a [u8],
}

/// What an entry of a tree or index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A directory.
    Tree,
    /// A file, executable or not.
    File,
    /// A symbolic link; its blob is where it leads.
    Link,
    /// A commit of another repository.
    Submodule,
}

impl Mode {
    /// Of the number in a tree or index.
    pub fn of(number: u32) -> Self {
        match number & 0o170_000 {
            0o040_000 => Self::Tree,
            0o120_000 => Self::Link,
            0o160_000 => Self::Submodule,
            _ => Self::File,
        }
    }
}

/// The entries of a tree, up to the first that makes no sense.
pub fn tree_entries(mut bytes: &[u8], id_len: usize) -> impl Iterator<Item = TreeEntry<'_>> {
    std::iter::from_fn(move || {
        let space = memchr::memchr(b' ', bytes.get(..8.min(bytes.len()))?)?;
        let mut mode = 0u32;
        for digit in &bytes[..space] {
            mode =
                mode.checked_mul(8)?.checked_add(u32::from(digit.checked_sub(b'0').filter(|d| *d < 8)?))?;
        }
        let rest = &bytes[space + 1..];
        let nul = memchr::memchr(0, rest)?;
        let (id, after) = rest[nul + 1..].split_at_checked(id_len)?;
        bytes = after;
        Some(TreeEntry { mode: Mode::of(mode), name: &rest[..nul], id })
    })
}

/// What of a commit matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The state.
    pub tree: ObjectId,
    /// The states before it.
    pub parents: Vec<ObjectId>,
    /// When it was committed, in seconds since 1970.
    pub committed: i64,
}

/// Who wrote something, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name, as it stands there.
    pub name: String,
    /// The address, as it stands there.
    pub email: String,
    /// In seconds since 1970.
    pub seconds: i64,
}

/// Reads a commit.
pub fn commit(bytes: &[u8]) -> Option<Commit> {
    let tree = id(line(bytes, b"tree ")?)?;
    let mut rest = after_line(bytes)?;
    let mut parents = Vec::new();
    while let Some(parent) = line(rest, b"parent ") {
        parents.push(id(parent)?);
        rest = after_line(rest)?;
    }
    let committed = header(rest, b"committer ").and_then(signature).map_or(0, |signature| signature.seconds);
    Some(Commit { tree, parents, committed })
}

/// The author of a commit.
pub fn author(bytes: &[u8]) -> Option<Signature> {
    signature(header(bytes, b"author ")?)
}

/// The first line of a commit's message.
pub fn title(bytes: &[u8]) -> String {
    let message = memchr::memmem::find(bytes, b"\n\n").map_or(&bytes[bytes.len()..], |at| &bytes[at + 2..]);
    let first = message.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    String::from_utf8_lossy(first.unwrap_or_default()).trim().to_owned()
}

/// What an annotated tag points at.
pub fn tag_target(bytes: &[u8]) -> Option<ObjectId> {
    id(line(bytes, b"object ")?)
}

fn signature(line: &[u8]) -> Option<Signature> {
    let close = memchr::memrchr(b'>', line)?;
    let open = memchr::memchr(b'<', &line[..close])?;
    let seconds = line[close + 1..].trim_ascii().split(|byte| *byte == b' ').next()?;
    let seconds = std::str::from_utf8(seconds).ok()?.parse().unwrap_or(0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
    Some(Signature { name: text(&line[..open]), email: text(&line[open + 1..close]), seconds })
}

/// Finds a line of the header, which ends with an empty line.
fn header<'a>(mut bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    loop {
        if let Some(found) = line(bytes, name) {
            return Some(found);
        }
        bytes = after_line(bytes).filter(|rest| !rest.starts_with(b"\n"))?;
    }
}

fn line<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = bytes.strip_prefix(name)?;
    Some(&rest[..memchr::memchr(b'\n', rest)?])
}

fn after_line(bytes: &[u8]) -> Option<&[u8]> {
    Some(&bytes[memchr::memchr(b'\n', bytes)? + 1..])
}

fn id(hex: &[u8]) -> Option<ObjectId> {
    ObjectId::from_hex(hex).ok()
}

/// A kind, a space, a number of twenty digits and a NUL.
const LONGEST_HEADER: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn headers_of_loose_objects() {
        for (bytes, expected) in [
            (&b"blob 12\0abc"[..], Some((Kind::Blob, 12, 8))),
            (b"commit 0\0", Some((Kind::Commit, 0, 9))),
            (b"blob 12", None),
            (b"blob -1\0", None),
            (b"bulb 1\0", None),
            (b"", None),
        ] {
            assert_eq!(loose_header(bytes), expected);
        }
    }

    #[test]
    fn trees_end_where_they_make_no_sense() {
        let mut tree = b"100644 a b\0".to_vec();
        tree.extend([7; 20]);
        tree.extend(b"40000 dir\0");
        tree.extend([8; 20]);
        tree.extend(b"160000 sub\0");
        tree.extend([9; 20]);
        let found: Vec<_> = tree_entries(&tree, 20).map(|entry| (entry.mode, entry.name)).collect();
        let expected = [(Mode::File, &b"a b"[..]), (Mode::Tree, b"dir"), (Mode::Submodule, b"sub")];
        assert_eq!(found, expected);
        assert_eq!(tree_entries(&tree[..tree.len() - 1], 20).count(), 2);
        assert_eq!(tree_entries(b"1x0 a\0", 20).count(), 0);
    }

    #[test]
    fn commits() {
        let text = format!(
            "tree {A}\nparent {B}\nparent {A}\nauthor Made Up <made@up.test> 1700000000 +0100\n\
             committer C <c@up.test> 1700000001 +0000\nencoding x\n\n\n  The title \nmore\n"
        );
        let found = commit(text.as_bytes()).unwrap();
        assert_eq!((found.parents.len(), found.committed), (2, 1_700_000_001));
        assert_eq!(found.tree.to_string(), A);
        let author = author(text.as_bytes()).unwrap();
        assert_eq!((author.name.as_str(), author.email.as_str()), ("Made Up", "made@up.test"));
        assert_eq!(title(text.as_bytes()), "The title");
        for broken in ["", "tree x\n", &format!("tree {A}")] {
            assert_eq!(commit(broken.as_bytes()), None, "{broken}");
        }
        let no_committer = format!("tree {A}\nauthor nobody\n\n");
        assert_eq!(commit(no_committer.as_bytes()).unwrap().committed, 0);
    }
}
