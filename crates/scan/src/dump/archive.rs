//! Archives of `pg_dump`: the custom format, and the table of contents that the directory and tar formats have, too.
//!
//! Versions 1.10 (PostgreSQL 8.3) to 1.16 (PostgreSQL 17). The file is read from its beginning to its end, so an archive
//! may come out of a pipe or lie in another one.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use super::schema::{Columns, altered_table, create_table, primary_key};
use super::{copy, read_sql_of};
use crate::inside::{Packing, RowsOut, Spent};
use crate::rows::{Rows, Table};

/// The file of the directory and tar formats that names the others.
pub(crate) const TABLE_OF_CONTENTS: &str = "toc.dat";

/// What an archive holds.
#[derive(Debug)]
pub(crate) struct Contents {
    head: Head,
    entries: Vec<Entry>,
    /// Which entry has this number, and which this file.
    by_id: HashMap<i64, usize>,
    by_file: HashMap<String, usize>,
    keys: HashMap<String, Vec<String>>,
    /// The tables by their definitions, once somebody has asked.
    tables: OnceCell<Rc<HashMap<String, Columns>>>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    version: (u8, u8),
    int_size: usize,
    offset_size: usize,
    is_custom: bool,
    packing: Option<Packing>,
}

#[derive(Debug)]
struct Entry {
    id: i64,
    tag: String,
    kind: String,
    definition: String,
    copy: String,
    /// In which file of a directory its data is.
    file: String,
}

impl Contents {
    /// Reads a table of contents.
    ///
    /// # Errors
    /// Where it is none, or one of a version that nobody here knows.
    pub fn read(stream: &mut dyn Read) -> io::Result<Self> {
        let stream = &mut stream.take(LONGEST_CONTENTS);
        let head = Head::read(stream)?;
        let count = head.int(stream)?;
        if !(0..=MOST_ENTRIES).contains(&count) {
            return Err(wrong("its table of contents has no end"));
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(head.entry(stream)?);
        }
        let constraints = entries.iter().filter(|entry| entry.kind == "CONSTRAINT");
        let key = |entry: &Entry| Some((altered_table(&entry.definition)?, primary_key(&entry.definition)?));
        let keys = constraints.filter_map(key).collect();
        let by_id = entries.iter().enumerate().rev().map(|(index, entry)| (entry.id, index)).collect();
        let files = entries.iter().enumerate().rev().filter(|(_, entry)| !entry.file.is_empty());
        let by_file = files.map(|(index, entry)| (entry.file.clone(), index)).collect();
        Ok(Self { head, entries, by_id, by_file, keys, tables: OnceCell::new() })
    }

    /// The table whose rows are in this file of a directory or tar archive.
    pub fn file(&self, name: &str) -> Option<Rc<Table>> {
        let stem =
            [".gz", ".lz4", ".zst"].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(name);
        self.table(&self.entries[*self.by_file.get(stem)?])
    }

    /// The definitions of everything, as text.
    pub fn definitions(&self) -> String {
        let text = |entry: &Entry| format!("-- {} {}\n{}\n", entry.kind, entry.tag, entry.definition);
        self.entries.iter().filter(|entry| !entry.definition.is_empty()).map(text).collect()
    }

    fn table(&self, entry: &Entry) -> Option<Rc<Table>> {
        let (name, columns) = copy::statement(entry.copy.as_bytes())?;
        let key = self.keys.get(&name).cloned().unwrap_or_default();
        Some(Rc::new(Table::new(&name, &columns, &key)))
    }

    fn tables(&self) -> Rc<HashMap<String, Columns>> {
        Rc::clone(self.tables.get_or_init(|| Rc::new(self.defined_tables())))
    }

    fn defined_tables(&self) -> HashMap<String, Columns> {
        let definitions = self.entries.iter().filter(|entry| entry.kind == "TABLE");
        let mut tables: HashMap<_, _> =
            definitions.filter_map(|entry| create_table(&entry.definition)).collect();
        for (name, key) in &self.keys {
            if let Some(table) = tables.get_mut(name) {
                table.key.clone_from(key);
            }
        }
        tables
    }

    fn entry(&self, id: i64) -> Option<&Entry> {
        self.by_id.get(&id).map(|index| &self.entries[*index])
    }
}

/// The version of an archive with these first bytes, where nobody here knows it.
pub(crate) fn unknown_version(head: &[u8]) -> Option<String> {
    let [major, minor] = *head.strip_prefix(MAGIC)?.first_chunk()?;
    (!is_known(major, minor)).then(|| format!("{major}.{minor}"))
}

/// Reads an archive in custom format.
///
/// # Errors
/// Where it is damaged or cut off; what came before was handed out.
pub(crate) fn read_archive(stream: &mut dyn Read, spent: &Spent, out: &mut RowsOut<'_>) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let contents = Contents::read(&mut stream)?;
    out.text(&mut contents.definitions().as_bytes())?;
    if !contents.head.is_custom {
        return Ok(());
    }
    let mut kind = [0];
    while crate::inside::read_full(&mut stream, &mut kind)? == 1 {
        out.check()?;
        let id = contents.head.int(&mut stream)?;
        match kind[0] {
            DATA => contents.read_data(id, &mut stream, spent, out)?,
            LARGE_OBJECTS => contents.read_objects(&mut stream, spent, out)?,
            _ => return Err(wrong("something in it is neither rows nor large objects")),
        }
    }
    Ok(())
}

impl Contents {
    fn read_data(
        &self,
        id: i64,
        stream: &mut dyn Read,
        spent: &Spent,
        out: &mut RowsOut<'_>,
    ) -> io::Result<()> {
        let entry = self.entry(id);
        let table = entry.and_then(|entry| self.table(entry));
        let name = entry.map_or("rows of nobody", |entry| entry.tag.as_str());
        self.unpacked(name, stream, spent, out, |text, out| match &table {
            Some(table) => copy::read_table(table, text, out),
            // `--inserts`.
            None => read_sql_of(self.tables(), Rows::without_lines(), text, out),
        })
    }

    fn read_objects(&self, stream: &mut dyn Read, spent: &Spent, out: &mut RowsOut<'_>) -> io::Result<()> {
        loop {
            let oid = self.head.int(stream)?;
            if oid == 0 {
                return Ok(());
            }
            let name = format!("large object {oid}");
            self.unpacked(&name, stream, spent, out, |text, out| out.part(&name, text))?;
        }
    }

    /// Hands out the data of an entry, and goes to its end whatever was read of it.
    fn unpacked(
        &self,
        name: &str,
        stream: &mut dyn Read,
        spent: &Spent,
        out: &mut RowsOut<'_>,
        with: impl FnOnce(&mut dyn Read, &mut RowsOut<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut pieces = Pieces { head: self.head, stream, left: 0, is_over: false };
        let done = match self.head.packing {
            None => with(&mut pieces, out),
            Some(packing) => with(&mut packing.unpack(BufReader::new(&mut pieces), spent), out),
        };
        io::copy(&mut pieces, &mut io::sink())?;
        match (done, spent.stopped()) {
            (Err(error), None) => out.trouble_with(name, &error),
            (done, Some(_)) => return done,
            (Ok(()), None) => {}
        }
        Ok(())
    }
}

/// The data of an entry: pieces with their lengths, until one has none.
struct Pieces<'r> {
    head: Head,
    stream: &'r mut dyn Read,
    left: u64,
    is_over: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            let length = self.head.int(self.stream)?;
            self.left = u64::try_from(length).map_err(|_| wrong("a piece of it has no length"))?;
            self.is_over = self.left == 0;
        }
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Head {
    fn read(stream: &mut dyn Read) -> io::Result<Self> {
        let mut fixed = [0; 11];
        stream.read_exact(&mut fixed)?;
        if !fixed.starts_with(MAGIC) {
            return Err(wrong("it is no archive of pg_dump"));
        }
        let [_, _, _, _, _, major, minor, _revision, int_size, offset_size, format] = fixed;
        if !is_known(major, minor) {
            return Err(wrong(&format!("it has format {major}.{minor} of pg_dump; 1.10 to 1.16 are known")));
        }
        if !(1..=8).contains(&int_size) || !(1..=8).contains(&offset_size) {
            return Err(wrong("its numbers have no size that numbers have"));
        }
        let mut head = Self {
            version: (major, minor),
            int_size: int_size.into(),
            offset_size: offset_size.into(),
            is_custom: format == CUSTOM,
            packing: None,
        };
        head.packing = match minor {
            15.. => match byte(stream)? {
                0 => None,
                1 => Some(Packing::Zlib),
                2 => Some(Packing::Lz4),
                3 => Some(Packing::Zstd),
                _ => return Err(wrong("it is packed in a way that nobody here knows")),
            },
            _ => (head.int(stream)? != 0).then_some(Packing::Zlib),
        };
        // When it was made: second to year, and whether it was summer.
        for _ in 0..7 {
            head.int(stream)?;
        }
        // Of which database, by which server and program.
        for _ in 0..3 {
            head.string(stream)?;
        }
        Ok(head)
    }

    fn entry(&self, stream: &mut dyn Read) -> io::Result<Entry> {
        let id = self.int(stream)?;
        let _has_data = self.int(stream)?;
        let _table_oid = self.string(stream)?;
        let _oid = self.string(stream)?;
        let tag = self.string(stream)?;
        let kind = self.string(stream)?;
        if self.version.1 >= 11 {
            let _section = self.int(stream)?;
        }
        let definition = self.string(stream)?;
        let _drop = self.string(stream)?;
        let copy = self.string(stream)?;
        let _schema = self.string(stream)?;
        let _tablespace = self.string(stream)?;
        if self.version.1 >= 14 {
            let _access_method = self.string(stream)?;
        }
        if self.version.1 >= 16 {
            let _relation_kind = self.int(stream)?;
        }
        let _owner = self.string(stream)?;
        let _with_oids = self.string(stream)?;
        while self.maybe_string(stream)?.is_some() {}
        let file = match self.is_custom {
            true => {
                let mut offset = [0; 9];
                stream.read_exact(&mut offset[..=self.offset_size])?;
                String::new()
            }
            false => self.string(stream)?,
        };
        Ok(Entry { id, tag, kind, definition, copy, file })
    }

    /// A number: its sign, then its bytes from the lowest.
    fn int(&self, stream: &mut dyn Read) -> io::Result<i64> {
        let mut bytes = [0; 9];
        stream.read_exact(&mut bytes[..=self.int_size])?;
        let number = bytes[1..].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let number = i64::try_from(number).map_err(|_| wrong("a number in it is too large"))?;
        Ok(if bytes[0] == 0 { number } else { -number })
    }

    fn string(&self, stream: &mut dyn Read) -> io::Result<String> {
        Ok(self.maybe_string(stream)?.unwrap_or_default())
    }

    fn maybe_string(&self, stream: &mut dyn Read) -> io::Result<Option<String>> {
        let length = self.int(stream)?;
        let Ok(length) = u64::try_from(length) else { return Ok(None) };
        if length > LONGEST_STRING {
            return Err(wrong("a text in its table of contents has no end"));
        }
        let mut bytes = Vec::new();
        stream.take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// PostgreSQL 8.3 to 17.
fn is_known(major: u8, minor: u8) -> bool {
    major == 1 && (10..=16).contains(&minor)
}

fn byte(stream: &mut dyn Read) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

const MAGIC: &[u8] = b"PGDMP";
const CUSTOM: u8 = 1;
const DATA: u8 = 1;
const LARGE_OBJECTS: u8 = 3;
/// A database with more objects than a million is nobody's shop.
const MOST_ENTRIES: i64 = 1 << 20;
/// All names and definitions together, which are held in memory.
const LONGEST_CONTENTS: u64 = 64 << 20;
/// Functions are the longest definitions.
const LONGEST_STRING: u64 = 16 << 20;
const BUFFER: usize = 64 << 10;
