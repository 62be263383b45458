//! Searches what files, streams and databases hold, and says where in them it was found.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::dump;
use crate::finding::Values;
use crate::inside::{self, Limits, RowsOut, Texts};
use crate::known;
use crate::place::{Inside, Place, Source};
use crate::rows::Rows;
use crate::scan::Scan;
use crate::text::Searcher;

/// Searches one thing after the other.
pub(crate) struct Looker<'a, 's> {
    scan: &'s Scan<'s>,
    searcher: &'s mut Searcher<'a>,
    values: &'s Values<'a>,
    source: Source,
    bytes: u64,
}

impl<'a, 's> Looker<'a, 's> {
    pub fn new(
        scan: &'s Scan<'s>,
        searcher: &'s mut Searcher<'a>,
        values: &'s Values<'a>,
        source: Source,
    ) -> Self {
        Self { scan, searcher, values, source, bytes: 0 }
    }

    /// Searches a stream, with everything that is in it. What is wrong with it is among the troubles.
    pub fn stream(mut self, stream: impl Read) {
        let name = self.source.path().to_owned();
        inside::look_into(&name, stream, Limits::default(), &mut self);
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

    fn within(&self, members: &[String], rest: (Option<crate::rows::Cell>, Option<String>)) -> Source {
        if members.is_empty() && rest.0.is_none() {
            return self.source.clone();
        }
        let (cell, known_as) = rest;
        Source::Inside(Box::new(Inside {
            of: self.source.clone(),
            members: members.to_vec(),
            cell,
            known_as,
        }))
    }
}

impl Texts for Looker<'_, '_> {
    fn text(&mut self, inside: &[String], text: &mut dyn Read) -> io::Result<()> {
        let mut text = UpToError { stream: text, error: None };
        let source = self.within(inside, (None, None));
        let values = self.values;
        let streamed = self.searcher.search_stream(&mut text, |sighting| {
            let (line, column, encoding) = (sighting.line, sighting.column, sighting.known.encoding);
            values.add_place(sighting.known.value, Place { source: source.clone(), line, column, encoding });
        })?;
        self.bytes += streamed.bytes;
        text.error.map_or(Ok(()), Err)
    }

    fn rows(&mut self, inside: &[String], rows: &Rows, region: Range<usize>) {
        self.bytes += region.len() as u64;
        for known in self.searcher.search_range(rows.text(), region, Vec::new()) {
            let spot = rows.spot(&(known.start..known.start + 1));
            let name = spot.cell.as_ref().and_then(|cell| known::name_of(self.scan.catalogue, cell));
            let source = self.within(inside, (spot.cell, name));
            let (line, column) = (spot.line.unwrap_or_default(), 0);
            self.values.add_place(known.value, Place { source, line, column, encoding: known.encoding });
        }
    }

    fn trouble(&mut self, inside: &[String], why: &str) {
        let what = self.within(inside, (None, None));
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
