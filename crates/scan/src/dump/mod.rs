//! Dumps of databases: SQL as `pg_dump`, `mysqldump` and `sqlite3 .dump` write it, and the archives of `pg_dump`.
//!
//! Rows are told by table, column and key; whatever stands between them is searched as text. Nothing is executed.

mod archive;
mod copy;
mod insert;
pub(crate) mod schema;
mod source;

use std::collections::HashMap;
use std::io::{self, Read};
use std::rc::Rc;

pub(crate) use archive::{Contents, TABLE_OF_CONTENTS, read_archive, unknown_version};
pub(crate) use copy::read_table;
use source::Source;

use crate::inside::RowsOut;
use crate::rows::{Rows, Table};
use schema::{Columns, starts_with};

/// Whether these are the first bytes of a dump.
pub(crate) fn looks_like_sql(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let comments = [
        &b"--\n-- PostgreSQL database"[..],
        b"-- PostgreSQL database",
        b"-- MySQL dump",
        b"-- MariaDB dump",
        b"-- phpMyAdmin SQL Dump",
        b"-- Adminer ",
        b"/*!999999\\- enable the sandbox mode",
        b"PRAGMA foreign_keys=OFF;",
    ];
    let begins = comments.iter().any(|comment| head.starts_with(comment));
    begins
        || head.starts_with(b"COPY ") && memchr::memmem::find(head, b" FROM stdin;\n").is_some()
        || starts_with(head, "insert into ") && memchr::memmem::find(head, b"(").is_some()
}

/// Reads SQL.
///
/// # Errors
/// Those of reading; what came before was handed out.
pub(crate) fn read_sql(stream: &mut dyn Read, out: &mut RowsOut<'_>) -> io::Result<()> {
    read_sql_of(Rc::default(), Rows::default(), stream, out)
}

/// Reads SQL on tables that are known.
fn read_sql_of(
    known: Rc<HashMap<String, Columns>>,
    rows: Rows,
    stream: &mut dyn Read,
    out: &mut RowsOut<'_>,
) -> io::Result<()> {
    let (source, tables) = (Source::new(stream), HashMap::new());
    let mut dump =
        Dump { source, rows, known, tables, names: 0, may_look_from: 0, pause: SHORTEST_PAUSE, last: None };
    let done = dump.read(out);
    dump.rows.finish(out);
    done
}

struct Dump<'r> {
    source: Source<'r>,
    rows: Rows,
    /// What is known of tables, for rows that do not name their columns.
    known: Rc<HashMap<String, Columns>>,
    /// The same as `CREATE TABLE` said on the way.
    tables: HashMap<String, Columns>,
    /// How long the names in `tables` are.
    names: usize,
    /// Where in the file the next long look at a statement may begin: one that comes to nothing costs a lot.
    may_look_from: u64,
    /// How far from the next one that comes to nothing that is.
    pause: u64,
    /// Of the statement before: many insert one row each and begin all the same.
    last: Option<Inserts>,
}

struct Inserts {
    head: Vec<u8>,
    table: Rc<Table>,
    escapes: insert::Escapes,
    rows: u64,
}

impl Dump<'_> {
    fn read(&mut self, out: &mut RowsOut<'_>) -> io::Result<()> {
        while !self.source.is_over()? {
            out.check()?;
            match self.source.peek(LONGEST_KEYWORDS)? {
                begin if begin.starts_with(b"COPY ") => self.copy(out)?,
                begin if starts_with(begin, "insert ") || starts_with(begin, "replace ") => {
                    self.insert(out)?
                }
                begin if starts_with(begin, "create ") => self.create(out)?,
                _ => self.line(out)?,
            }
        }
        Ok(())
    }

    /// A line that is none of these, and nothing behind it.
    fn line(&mut self, out: &mut RowsOut<'_>) -> io::Result<()> {
        loop {
            let (line, into_line) = (self.source.line, self.source.into_line);
            let (text, is_whole) = self.source.next_line(PIECE)?;
            self.rows.between(line, into_line, text, out);
            let read = text.len();
            self.source.consume(read);
            if is_whole || read == 0 {
                return Ok(());
            }
        }
    }

    fn copy(&mut self, out: &mut RowsOut<'_>) -> io::Result<()> {
        let (head, _) = self.source.next_line(LONGEST_HEAD)?;
        let statement = copy::statement(head);
        self.line(out)?;
        let Some((name, columns)) = statement else { return Ok(()) };
        let key = self.table(&name).map(|table| table.key.clone()).unwrap_or_default();
        let table = Rc::new(Table::new(&name, &columns, &key));
        copy::read_rows(&table, &mut self.source, &mut self.rows, out)
    }

    fn table(&self, name: &str) -> Option<&Columns> {
        self.tables.get(name).or_else(|| self.known.get(name))
    }

    fn insert(&mut self, out: &mut RowsOut<'_>) -> io::Result<()> {
        let head = self.source.peek(LONGEST_HEAD)?;
        if !self.last.as_ref().is_some_and(|last| head.starts_with(&last.head)) {
            let Some(insert) = self.head()? else { return self.line(out) };
            let head = self.source.ready()[..insert.length].to_vec();
            let known = self.table(&insert.table).cloned().unwrap_or_default();
            let columns = insert.columns.unwrap_or(known.names);
            let table = Rc::new(Table::new(&insert.table, &columns, &known.key));
            self.last = Some(Inserts { head, table, escapes: insert.escapes, rows: 0 });
        }
        let Some(last) = &mut self.last else { return Ok(()) };
        self.source.consume(last.head.len());
        let (source, rows) = (&mut self.source, &mut self.rows);
        insert::read_rows(&last.table, last.escapes, &mut last.rows, source, rows, out)
    }

    /// What stands before the first row of the statement that is next. What is no such statement costs as much as it is
    /// long, and where nobody can tell how long that is, as little as possible.
    fn head(&mut self) -> io::Result<Option<insert::Head>> {
        let text = self.source.peek(LONGEST_HEAD)?;
        let short = &text[..text.len().min(SHORT_HEAD)];
        if let Some(end) = memchr::memchr(b';', short) {
            return Ok(insert::Head::read(&short[..end]));
        }
        if !self.may_look() {
            return Ok(None);
        }
        // A short look is enough, unless many columns are named.
        let text = self.source.ready();
        let short = &text[..text.len().min(SHORT_HEAD)];
        let found = insert::Head::read(short).or_else(|| insert::Head::read(text));
        self.has_looked(found.is_some());
        Ok(found)
    }

    fn may_look(&self) -> bool {
        self.source.taken >= self.may_look_from
    }

    /// Notes what became of a long look. Each that comes to nothing makes the next one wait twice as long.
    fn has_looked(&mut self, has_found: bool) {
        if has_found {
            self.pause = SHORTEST_PAUSE;
        } else {
            self.may_look_from = self.source.taken + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Remembers the columns of a table; the statement itself is text as any other.
    fn create(&mut self, out: &mut RowsOut<'_>) -> io::Result<()> {
        let begin = self.source.peek(LONGEST_KEYWORDS * 4)?;
        let begin = begin[..begin.len().min(LONGEST_KEYWORDS * 4)].to_ascii_lowercase();
        if memchr::memmem::find(&begin, b"table").is_none() {
            return self.line(out);
        }
        let statement = self.source.peek(LONGEST_HEAD)?;
        let is_short = memchr::memchr(b';', &statement[..statement.len().min(SHORT_HEAD)]).is_some();
        if !is_short && !self.may_look() {
            return self.line(out);
        }
        let end = memchr::memchr(b';', self.source.ready());
        let statement = self.source.ready();
        let statement = &statement[..end.unwrap_or(statement.len())];
        let found = schema::create_table(&String::from_utf8_lossy(statement));
        if !is_short {
            self.has_looked(found.is_some() && end.is_some());
        }
        if let Some((name, columns)) = found {
            let names = name.len() + columns.names.iter().map(String::len).sum::<usize>();
            if self.names + names <= LONGEST_NAMES {
                self.names += names;
                self.tables.insert(name, columns);
            }
        }
        self.line(out)
    }
}

/// `insert into` and what may stand between.
const LONGEST_KEYWORDS: usize = 16;
/// The longest statement that is understood up to its first row: 1,600 columns are the most that PostgreSQL has.
const LONGEST_HEAD: usize = 256 << 10;
/// Longer lines are handed on in pieces.
const PIECE: usize = 256 << 10;
/// How much goes by between two long looks that come to nothing: at first a quarter of what one looks at.
const SHORTEST_PAUSE: u64 = LONGEST_HEAD as u64 / 4;
/// Much more than any statement has that names no rows, so that looking costs next to nothing.
const LONGEST_PAUSE: u64 = 16 << 20;
/// Most statements name fewer columns.
const SHORT_HEAD: usize = 4096;
/// Of all tables and columns together: more than any product has.
const LONGEST_NAMES: usize = 16 << 20;
