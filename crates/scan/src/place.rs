//! Where a value stands.

use std::fmt;

use keymoat_detect::Encoding;

use crate::rows::Cell;

/// One place of a value. Lines and columns count from 1, columns in bytes; 0 where there are none, as in a database.
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
    /// A database that was asked, by its address without what is secret in it.
    Database(String),
    /// Something in a file or stream: a member of an archive, a cell of a table, or both.
    Inside(Box<Inside>),
}

impl Source {
    /// The path or name.
    pub fn path(&self) -> &str {
        match self {
            Self::File(path) | Self::Staged(path) | Self::Stream(path) | Self::Database(path) => path,
            Self::Inside(inside) => inside.of.path(),
            Self::History(historic) => &historic.path,
        }
    }
}

/// The whole way: `backup.zip › shop.sql › payment_provider.stripe_secret_key, id 7`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())?;
        let Self::Inside(inside) = self else { return Ok(()) };
        inside.members.iter().try_for_each(|member| write!(f, " › {member}"))?;
        match (&inside.cell, &inside.known_as) {
            (Some(cell), Some(known)) => {
                write!(f, " › {known} [{}.{}, {}]", cell.table, cell.column, cell.row)
            }
            (Some(cell), None) => write!(f, " › {}.{}, {}", cell.table, cell.column, cell.row),
            (None, _) => Ok(()),
        }
    }
}

/// Where in a file or stream something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inside {
    /// The file or stream.
    pub of: Source,
    /// The members of archives, parts of mail and the like that lead there, from the outermost.
    pub members: Vec<String>,
    /// The cell of a table.
    pub cell: Option<Cell>,
    /// What people call that cell: `Odoo › System Parameters › …`.
    pub known_as: Option<String>,
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
