//! Where a value stands.

use keymoat_detect::Encoding;

/// One place of a value. Lines and columns count from 1, columns in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The thing that holds it.
    pub source: Source,
    /// The line.
    pub line: u64,
    /// The column at which it begins.
    pub column: u64,
    /// The form that it has there.
    pub encoding: Encoding,
}

/// The thing that a value stands in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file of a directory, by its path from there. What no byte sequence of it is text is shown as `�`.
    File(String),
    /// A file as it is staged.
    Staged(String),
    /// A file of a history.
    History(Box<Historic>),
    /// A stream, by the name that it was given.
    Stream(String),
}

impl Source {
    /// The path or name.
    pub fn path(&self) -> &str {
        match self {
            Self::File(path) | Self::Staged(path) | Self::Stream(path) => path,
            Self::History(historic) => &historic.path,
        }
    }
}

/// A file of a history, with all its versions that hold the value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Historic {
    /// The path from the root; empty where no commit has the blob.
    pub path: String,
    /// The newest version: the id of its blob.
    pub blob: String,
    /// How many versions have the value.
    pub versions: u32,
    /// Where it stands today.
    pub standing: Standing,
    /// The oldest commit that has it; nothing where none has.
    pub first: Option<CommitRef>,
    /// The newest commit that has it.
    pub last: Option<CommitRef>,
}

/// Where something in a history stands today: the first of these that is true.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// In what is checked out.
    Head,
    /// Not there, but at the tip of this branch or tag.
    Tip(String),
    /// Only in older commits.
    History,
    /// Only in a stash.
    Stash,
    /// Only in commits that a reflog still names.
    Reflog,
    /// Only in objects that nothing leads to; `git gc` removes them some day.
    Unreachable,
}

/// A commit, as far as a report needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitRef {
    /// Its id.
    pub id: String,
    /// Who wrote it: name and address.
    pub author: String,
    /// When it was written, in seconds since 1970.
    pub authored: i64,
    /// The first line of its message.
    pub title: String,
}
