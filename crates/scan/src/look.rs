//! Searches what files, streams and databases hold, and says where in them it was found.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use keymoat_detect::Encoding;

use crate::dump;
use crate::finding::{Listed, Values};
use crate::inside::{self, Limits, RowsOut, Texts};
use crate::known;
use crate::place::{Inside, Place, Source};
use crate::rows::{Cell, Rows};
use crate::scan::Scan;
use crate::text::Searcher;

/// Searches one thing after the other.
pub(crate) struct Looker<'a, 's> {
    scan: &'s Scan<'s>,
    searcher: &'s mut Searcher<'a>,
    source: Source,
    into: Into<'a, 's>,
    listed: Listed,
    bytes: u64,
    is_troubled: bool,
}

/// Where goes what is found.
enum Into<'a, 's> {
    /// To the values, with its place.
    Values(&'s Values<'a>),
    /// To whoever finds out later where the thing stands.
    Kept(Vec<Seen>),
}

/// A value, and where in the thing that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub value: u32,
    pub encoding: Encoding,
    pub line: u64,
    pub column: u64,
    /// The way through archives and tables, where there is one.
    pub within: Option<Box<Within>>,
}

/// A way into a thing: members of archives, the cell of a table, and what people call that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Within {
    members: Vec<String>,
    cell: Option<Cell>,
    known_as: Option<String>,
}

/// What became of a thing.
pub(crate) struct Looked {
    pub seen: Vec<Seen>,
    /// Whether something in it could not be looked into, which is among the troubles.
    pub is_troubled: bool,
}

impl Seen {
    /// The place of the value, now that it is known what holds it.
    pub fn place_in(&self, source: &Source) -> Place {
        let source = match &self.within {
            Some(within) => within.of(source),
            None => source.clone(),
        };
        Place { source, line: self.line, column: self.column, encoding: self.encoding }
    }
}

impl Within {
    fn of(&self, source: &Source) -> Source {
        let Self { members, cell, known_as } = self.clone();
        Source::Inside(Box::new(Inside { of: source.clone(), members, cell, known_as }))
    }
}

impl<'a> Into<'a, '_> {
    fn add(&mut self, seen: Seen, source: &Source) {
        match self {
            Self::Values(values) => values.add_place(seen.value, seen.place_in(source)),
            Self::Kept(kept) => kept.push(seen),
        }
    }
}

impl<'a, 's> Looker<'a, 's> {
    pub fn new(
        scan: &'s Scan<'s>,
        searcher: &'s mut Searcher<'a>,
        values: &'s Values<'a>,
        source: Source,
    ) -> Self {
        Self::into(scan, searcher, source, Into::Values(values))
    }

    fn into(scan: &'s Scan<'s>, searcher: &'s mut Searcher<'a>, source: Source, into: Into<'a, 's>) -> Self {
        Self { scan, searcher, source, into, listed: Listed::default(), bytes: 0, is_troubled: false }
    }

    /// Searches a stream of which nobody knows yet where it stands, with everything that is in it; `name` is what
    /// troubles are told by, and says what the bytes do not.
    pub fn keep(scan: &'s Scan<'s>, searcher: &'s mut Searcher<'a>, name: &str, stream: impl Read) -> Looked {
        let (source, into) = (Source::Stream(name.to_owned()), Into::Kept(Vec::new()));
        let mut looker = Self::into(scan, searcher, source, into);
        inside::look_into(name, stream, Limits::default(), &mut looker);
        let Into::Kept(seen) = looker.into else { unreachable!("it was made to keep") };
        Looked { seen, is_troubled: looker.is_troubled }
    }

    /// Searches a stream, with everything that is in it. What is wrong with it is among the troubles.
    pub fn stream(mut self, stream: impl Read) -> u64 {
        let name = self.source.path().to_owned();
        inside::look_into(&name, stream, Limits::default(), &mut self);
        self.bytes
    }

    /// Searches a file, with everything that is in it.
    pub fn file(mut self, path: &Path, file: &File, dumps: &mut Dumps) -> u64 {
        let name = self.source.path().to_owned();
        match dumps.table_in(path) {
            Some(table) => inside::look_into_table(&table, file, Limits::default(), &mut self),
            None => inside::look_into_file(&name, file, Limits::default(), &mut self),
        }
        self.bytes
    }

    /// Searches a database that runs.
    pub fn database(mut self, read: impl FnOnce(&mut RowsOut<'_>) -> Result<(), String>) {
        let done = read(&mut RowsOut::new(&[], &mut self));
        if let Err(why) = done {
            self.trouble(&[], &why);
        }
    }
}

impl Texts for Looker<'_, '_> {
    fn text(&mut self, inside: &[String], text: &mut dyn Read) -> io::Result<()> {
        let mut text = UpToError { stream: text, error: None };
        let members = || Within { members: inside.to_vec(), ..Within::default() };
        let within = (!inside.is_empty()).then(|| Box::new(members()));
        let (into, source, listed) = (&mut self.into, &self.source, &mut self.listed);
        let values = self.searcher.values;
        let streamed = self.searcher.search_stream(&mut text, |sighting| {
            let (line, column, known) = (sighting.line, sighting.column, sighting.known);
            if !listed.takes(known.value, values) {
                return;
            }
            let within = within.clone();
            into.add(Seen { value: known.value, encoding: known.encoding, line, column, within }, source);
        })?;
        self.bytes += streamed.bytes;
        text.error.map_or(Ok(()), Err)
    }

    fn rows(&mut self, inside: &[String], rows: &Rows, region: Range<usize>) {
        self.bytes += region.len() as u64;
        for known in self.searcher.search_range(rows.text(), region, Vec::new()) {
            if !self.listed.takes(known.value, self.searcher.values) {
                continue;
            }
            let spot = rows.spot(&(known.start..known.start + 1));
            let known_as = spot.cell.as_ref().and_then(|cell| known::name_of(self.scan.catalogue, cell));
            let is_within = !inside.is_empty() || spot.cell.is_some();
            let within = Within { members: inside.to_vec(), cell: spot.cell, known_as };
            let seen = Seen {
                value: known.value,
                encoding: known.encoding,
                line: spot.line.unwrap_or_default(),
                column: spot.column.unwrap_or_default(),
                within: is_within.then(|| Box::new(within)),
            };
            self.into.add(seen, &self.source);
        }
    }

    fn trouble(&mut self, inside: &[String], why: &str) {
        self.is_troubled = true;
        let what = match inside {
            [] => self.source.clone(),
            _ => Within { members: inside.to_vec(), ..Within::default() }.of(&self.source),
        };
        self.scan.troubles.add(what.to_string(), why);
    }

    fn is_cancelled(&self) -> bool {
        self.scan.progress.is_cancelled()
    }
}

/// The dumps in directory format that files were last seen of.
#[derive(Default)]
pub(crate) struct Dumps {
    dir: PathBuf,
    contents: Option<dump::Contents>,
}

impl Dumps {
    /// Whether a file has the rows of a table, which it does not say itself.
    pub fn has(&mut self, path: &Path) -> bool {
        self.table_in(path).is_some()
    }

    /// The table whose rows are in a file, where it belongs to a dump in directory format.
    fn table_in(&mut self, path: &Path) -> Option<Rc<crate::rows::Table>> {
        let name = path.file_name()?.to_str()?;
        if !name.starts_with(|first: char| first.is_ascii_digit()) || !name.contains(".dat") {
            return None;
        }
        let dir = path.parent()?;
        if self.dir != dir {
            dir.clone_into(&mut self.dir);
            let contents = File::open(dir.join(dump::TABLE_OF_CONTENTS));
            self.contents =
                contents.ok().and_then(|file| dump::Contents::read(&mut io::BufReader::new(file)).ok());
        }
        self.contents.as_ref()?.file(name)
    }
}

/// A stream that ends where it fails, so that what came before is searched.
struct UpToError<'r> {
    stream: &'r mut dyn Read,
    error: Option<io::Error>,
}

impl Read for UpToError<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.error.is_some() {
            return Ok(0);
        }
        match self.stream.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.error = Some(error);
                Ok(0)
            }
            read => read,
        }
    }
}
