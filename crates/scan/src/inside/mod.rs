//! What a file holds inside: archives, packed files, documents, mail, dumps and databases, in each other as they come.
//!
//! Everything is read from its beginning to its end and handed out as it goes by, so that memory does not grow with the
//! file; the few formats that need all of themselves have a limit. What cannot be read is named, what stands before it is
//! still searched, and the rest goes on.

mod budget;
mod kind;
mod mail;
mod notebook;
mod office;
mod packed;
mod pdf;
mod python;
mod tar;
mod turned;
mod utf16;
mod zip;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::rc::Rc;

pub use budget::Limits;
pub(crate) use budget::Spent;
use budget::Stop;
use kind::Kind;
pub(crate) use packed::Packing;
use turned::Turned;

use crate::dump;
use crate::rows::{Rows, Table};
use crate::sqlite;

/// Hears the texts of a file. `inside` says where in it: the names of members, from the outermost.
pub trait Texts {
    /// A text, to be read to its end.
    ///
    /// # Errors
    /// Those of reading.
    fn text(&mut self, inside: &[String], text: &mut dyn Read) -> io::Result<()>;

    /// Rows of tables as one text. Values that begin in `region` have not been seen before.
    fn rows(&mut self, inside: &[String], rows: &Rows, region: Range<usize>);

    /// Something that could not be read; `why` completes "`what` …".
    fn trouble(&mut self, inside: &[String], why: &str);

    /// Whether to stop.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Hands out everything that a stream holds. `name` is its file's, and tells what the bytes do not.
pub fn look_into(name: &str, stream: impl Read, limits: Limits, texts: &mut dyn Texts) {
    let spent = Spent::new(limits);
    let mut stream = spent.outermost(stream);
    let mut unpack = Unpack { limits, spent: &spent, texts, inside: Vec::new(), depth: 0 };
    let done = unpack.any(name, &mut stream);
    unpack.ended(done);
}

/// Hands out everything that a file holds. Databases are read where they are.
pub fn look_into_file(name: &str, file: &File, limits: Limits, texts: &mut dyn Texts) {
    let mut head = [0; sqlite::MAGIC.len()];
    let is_database =
        std::os::unix::fs::FileExt::read_exact_at(file, &mut head, 0).is_ok() && head == *sqlite::MAGIC;
    if !is_database {
        return look_into(name, file, limits, texts);
    }
    let spent = Spent::new(limits);
    let mut unpack = Unpack { limits, spent: &spent, texts, inside: Vec::new(), depth: 0 };
    let done = unpack.database(&file);
    unpack.ended(done);
}

/// Hands out the rows of a file of which it is known that it has those of this table, packed or not.
pub(crate) fn look_into_table(table: &Rc<Table>, file: &File, limits: Limits, texts: &mut dyn Texts) {
    let spent = Spent::new(limits);
    let mut stream = spent.outermost(file);
    let mut unpack = Unpack { limits, spent: &spent, texts, inside: Vec::new(), depth: 0 };
    let done = unpack.table(table, &mut stream);
    unpack.ended(done);
}

/// Whether a file is nothing but text, of which `head` are the first bytes.
pub(crate) fn is_plain_text(name: &str, head: &[u8]) -> bool {
    let head = &head[..head.len().min(HEAD)];
    memchr::memchr(0, head).is_none() && Kind::of(name, head) == Kind::Plain
}

/// Whether a file without a name has to be looked into: what is in it is not what its bytes say. SQL is text as well.
pub(crate) fn holds_more(head: &[u8]) -> bool {
    !matches!(Kind::of("", &head[..head.len().min(HEAD)]), Kind::Plain | Kind::SqlDump)
}

/// One file with all that is in it.
struct Unpack<'a> {
    limits: Limits,
    spent: &'a Spent,
    texts: &'a mut dyn Texts,
    inside: Vec<String>,
    depth: usize,
}

impl<'a> Unpack<'a> {
    /// Whatever it is.
    fn any(&mut self, name: &str, stream: &mut dyn Read) -> io::Result<()> {
        let mut stream = Begun::new(stream)?;
        let kind = Kind::of(name, &stream.head);
        let is_archive = matches!(
            kind,
            Kind::Packed(_) | Kind::Zip | Kind::Tar | Kind::Mail | Kind::Mailbox | Kind::Utf16 { .. }
        );
        if is_archive && self.depth >= self.limits.depth {
            self.trouble("lies in too many archives and was searched as it is");
            return self.plain(&mut stream);
        }
        self.depth += 1;
        let done = self.as_kind(kind, name, &mut stream);
        self.depth -= 1;
        done
    }

    fn as_kind(&mut self, kind: Kind, name: &str, stream: &mut Begun<'_>) -> io::Result<()> {
        match kind {
            Kind::Packed(packing) => {
                let spent = self.spent;
                let mut unpacked = packing.unpack(BufReader::new(stream), spent);
                self.any(without_extension(name), &mut unpacked)
            }
            Kind::Zip => self.zip(stream),
            Kind::Tar => self.tar(stream),
            Kind::Pdf => self.whole(stream, Self::pdf),
            Kind::Mail => self.whole(stream, |unpack, bytes| unpack.mail(&bytes, 0)),
            Kind::Mailbox => self.mailbox(stream),
            Kind::Notebook => self.whole(stream, Self::notebook),
            Kind::PythonCode => self.whole(stream, Self::python),
            Kind::Utf16 { big_endian } => {
                let mut text = Turned::new(BufReader::new(stream), utf16::Utf16::new(big_endian));
                // What was UTF-16 may be a dump or mail all the same; it is not UTF-16 again.
                self.any(name, &mut text)
            }
            Kind::Sqlite => self.whole(stream, |unpack, bytes| unpack.database(&bytes.as_slice())),
            Kind::SqlDump => dump::read_sql(stream, &mut RowsOut { inside: &self.inside, texts: self.texts }),
            Kind::PostgresArchive => self.postgres_archive(stream),
            Kind::OfficeXml => self.plain(&mut Turned::new(BufReader::new(stream), office::Xml::new())),
            Kind::Foreign(what) => {
                self.trouble(&format!(
                    "is packed as {what}, which nothing here opens; it was searched as it is"
                ));
                self.plain(stream)
            }
            Kind::Plain => self.plain(stream),
        }
    }

    fn plain(&mut self, stream: &mut dyn Read) -> io::Result<()> {
        self.texts.text(&self.inside, stream)
    }

    fn zip(&mut self, stream: &mut dyn Read) -> io::Result<()> {
        let mut zip = zip::Zip::new(stream);
        let spent = self.spent;
        while let Some(entry) = zip.next()? {
            if !entry.is_file {
                continue;
            }
            zip.read(&entry, spent, |member| match member {
                zip::Member::Text(mut text) => self.member(&entry.name, &mut text),
                zip::Member::Unreadable(why) => self.unreadable(&entry.name, &why),
            })?;
        }
        Ok(())
    }

    fn tar(&mut self, stream: &mut dyn Read) -> io::Result<()> {
        let mut tar = tar::Tar::new(stream);
        let mut dump = None;
        while let Some(entry) = tar.next()? {
            if !entry.is_file || entry.size == 0 {
                continue;
            }
            // `pg_dump -Ft` says in its first member what the others are.
            if entry.name == dump::TABLE_OF_CONTENTS {
                let mut toc = Vec::new();
                (&mut tar).take(self.limits.memory as u64).read_to_end(&mut toc)?;
                dump = dump::Contents::read(&mut toc.as_slice()).ok();
                self.member(&entry.name, &mut toc.as_slice())?;
                continue;
            }
            match dump.as_ref().and_then(|dump| dump.file(&entry.name)) {
                Some(table) => self.within(&entry.name, |unpack| unpack.table(&table, &mut tar))?,
                None => self.member(&entry.name, &mut tar)?,
            }
        }
        Ok(())
    }

    fn postgres_archive(&mut self, stream: &mut Begun<'_>) -> io::Result<()> {
        if let Some(version) = dump::unknown_version(&stream.head) {
            self.trouble(&format!(
                "is an archive of pg_dump in format {version}, and 1.10 to 1.16 are known; it was searched as it is"
            ));
            return self.plain(stream);
        }
        let mut out = RowsOut { inside: &self.inside, texts: self.texts };
        dump::read_archive(stream, self.spent, &mut out)
    }

    fn table(&mut self, table: &Rc<Table>, stream: &mut dyn Read) -> io::Result<()> {
        let mut stream = Begun::new(stream)?;
        let spent = self.spent;
        let mut out = RowsOut { inside: &self.inside, texts: self.texts };
        match Packing::of(&stream.head) {
            Some(packing) => {
                dump::read_table(table, &mut packing.unpack(BufReader::new(stream), spent), &mut out)
            }
            None => dump::read_table(table, &mut stream, &mut out),
        }
    }

    fn database(&mut self, pages: &dyn sqlite::Pages) -> io::Result<()> {
        let mut out = RowsOut { inside: &self.inside, texts: self.texts };
        sqlite::read(pages, &mut out)
    }

    /// A member of whatever is being read. What is wrong with it is noted, and the others go on.
    fn member(&mut self, name: &str, stream: &mut dyn Read) -> io::Result<()> {
        self.within(name, |unpack| unpack.any(name, stream))
    }

    fn within(&mut self, name: &str, read: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.texts.is_cancelled() {
            self.spent.cancel();
        }
        self.spent.member()?;
        self.inside.push(shown(name));
        let done = read(self);
        // What stops everything is told once, by the outermost.
        if let (Err(error), None) = (&done, self.spent.stopped()) {
            self.trouble(&why(error));
        }
        self.inside.pop();
        self.spent.stopped().map_or(Ok(()), |stop| Err(stop.into()))
    }

    fn unreadable(&mut self, name: &str, why: &str) -> io::Result<()> {
        self.inside.push(shown(name));
        self.trouble(why);
        self.inside.pop();
        Ok(())
    }

    /// Reads what a format needs to have in memory; what is too large for that is searched as it is.
    fn whole(
        &mut self,
        stream: &mut Begun<'_>,
        read: impl FnOnce(&mut Self, Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        let cut = stream.take(self.limits.memory as u64).read_to_end(&mut bytes).err();
        let mut more = [0];
        if cut.is_none() && stream.read(&mut more)? > 0 {
            self.trouble(&format!(
                "is larger than {} MiB and was searched as it is",
                self.limits.memory >> 20
            ));
            return self.plain(&mut bytes.as_slice().chain(more.as_slice()).chain(stream));
        }
        read(self, bytes)?;
        cut.map_or(Ok(()), Err)
    }

    fn ended(&mut self, done: io::Result<()>) {
        let stopped = self.spent.stopped();
        if let Some(why) =
            stopped.map(|stop| stop.to_string()).or_else(|| done.err().map(|error| why(&error)))
        {
            self.inside.clear();
            self.trouble(&why);
        }
    }

    fn trouble(&mut self, why: &str) {
        self.texts.trouble(&self.inside, why);
    }
}

/// Hears rows of tables within a file.
pub(crate) struct RowsOut<'a> {
    inside: &'a [String],
    texts: &'a mut dyn Texts,
}

impl<'a> RowsOut<'a> {
    /// For rows that come from somewhere else than a file.
    pub fn new(inside: &'a [String], texts: &'a mut dyn Texts) -> Self {
        Self { inside, texts }
    }

    pub fn rows(&mut self, rows: &Rows, region: Range<usize>) {
        self.texts.rows(self.inside, rows, region);
    }

    pub fn trouble(&mut self, why: &str) {
        self.texts.trouble(self.inside, why);
    }

    /// Notes what was left out of a part.
    pub fn trouble_at(&mut self, part: &str, why: &str) {
        let inside = [self.inside, &[part.to_owned()]].concat();
        self.texts.trouble(&inside, why);
    }

    /// Notes what is wrong with a part.
    pub fn trouble_with(&mut self, part: &str, error: &io::Error) {
        let inside = [self.inside, &[part.to_owned()]].concat();
        self.texts.trouble(&inside, &why(error));
    }

    /// A text that stands in no table.
    pub fn text(&mut self, text: &mut dyn Read) -> io::Result<()> {
        self.texts.text(self.inside, text)
    }

    /// The same with a name of its own.
    pub fn part(&mut self, part: &str, text: &mut dyn Read) -> io::Result<()> {
        let inside = [self.inside, &[part.to_owned()]].concat();
        self.texts.text(&inside, text)
    }

    pub fn check(&self) -> io::Result<()> {
        if self.texts.is_cancelled() { Err(Stop::Cancelled.into()) } else { Ok(()) }
    }
}

/// A stream whose first bytes were looked at.
struct Begun<'r> {
    head: Vec<u8>,
    at: usize,
    rest: &'r mut dyn Read,
}

impl<'r> Begun<'r> {
    fn new(stream: &'r mut dyn Read) -> io::Result<Self> {
        let mut head = vec![0; HEAD];
        let read = read_full(stream, &mut head)?;
        head.truncate(read);
        Ok(Self { head, at: 0, rest: stream })
    }
}

impl Read for Begun<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.head.len() {
            let read = (&self.head[self.at..]).read(buffer)?;
            self.at += read;
            return Ok(read);
        }
        self.rest.read(buffer)
    }
}

/// Fills a buffer as far as the stream goes.
pub(crate) fn read_full(stream: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What was read before goes first; a stream that fails fails again.
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What is wrong, in words that complete "`what` …".
fn why(error: &io::Error) -> String {
    if let Some(stop) = error.get_ref().and_then(|inner| inner.downcast_ref::<Stop>()) {
        return stop.to_string();
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "is cut off; what stands before that was searched".to_owned(),
        io::ErrorKind::OutOfMemory => "needs more memory to unpack than anybody should give it".to_owned(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            format!("is damaged ({error}); what stands before that was searched")
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// A name as places tell it: each place has one, so a long name loses its middle.
fn shown(name: &str) -> String {
    let length = name.chars().count();
    if length <= LONGEST_NAME {
        return name.to_owned();
    }
    let part = |from: usize| name.chars().skip(from).take(LONGEST_NAME / 2).collect::<String>();
    format!("{}…{}", part(0), part(length - LONGEST_NAME / 2))
}

/// `shop.sql.gz` holds `shop.sql`, and `backup.tgz` some tar archive.
fn without_extension(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !extension.contains('/') && !stem.is_empty() => stem,
        _ => name,
    }
}

/// Longer paths cannot be unpacked on most systems: 255 for a name, some for its directories.
const LONGEST_NAME: usize = 512;
/// Enough for every mark, a header of tar and the beginnings of a dump.
const HEAD: usize = 4096;

#[cfg(test)]
mod tests;
