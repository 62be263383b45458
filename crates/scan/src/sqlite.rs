//! SQLite files, page by page (<https://www.sqlite.org/fileformat2.html>).
//!
//! The file is only read: nothing is locked, no statement runs, no `-wal` or `-shm` comes into being, and a file made to
//! harm SQLite harms nobody. What was deleted and not overwritten is searched as bytes, and so is a file that is damaged.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use crate::dump::schema::{Columns, create_table};
use crate::inside::RowsOut;
use crate::rows::{Number, Rows, Table};

/// The first bytes of every file.
pub(crate) const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Bytes that can be read at any place.
pub(crate) trait Pages {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
    fn length(&self) -> io::Result<u64>;
}

impl Pages for &[u8] {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl Pages for &File {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Hands out the rows of all tables.
///
/// # Errors
/// Those of reading the file at all.
pub(crate) fn read(pages: &dyn Pages, out: &mut RowsOut<'_>) -> io::Result<()> {
    let Some(mut database) = Database::open(pages)? else {
        out.trouble("is a damaged SQLite file; its bytes were searched as they are");
        return out.text(&mut Everything { pages, at: 0, length: pages.length()? });
    };
    let mut tables = Vec::new();
    database.rows_of(FIRST_PAGE, &mut |database, row, record| {
        if let Some(table) = Listed::read(database, record)? {
            tables.push(table);
        }
        let _ = row;
        Ok(())
    })?;
    database.seen.borrow_mut().clear();
    let mut rows = Rows::default();
    let schema = Rc::new(Table::new("sqlite_schema", &SCHEMA.map(str::to_owned), &["name".to_owned()]));
    database.table(&schema, &Columns::default(), FIRST_PAGE, &mut rows, out)?;
    for listed in &tables {
        out.check()?;
        if !listed.is_table {
            database.walk_over(listed.root)?;
            continue;
        }
        let mut columns = listed.columns.clone();
        if columns.is_without_row_number {
            // The key comes first in what is stored.
            columns
                .names
                .sort_by_key(|name| columns.key.iter().position(|key| key == name).unwrap_or(usize::MAX));
        }
        let table = Rc::new(Table::new(&listed.name, &columns.names, &columns.key));
        database.table(&table, &columns, listed.root, &mut rows, out)?;
    }
    rows.finish(out);
    let is_damaged = database.is_damaged;
    if is_damaged {
        out.trouble("is a damaged SQLite file; its bytes were searched as they are, too");
        return out.text(&mut Everything { pages, at: 0, length: pages.length()? });
    }
    out.part("deleted rows", &mut Unused { database: &database, next: 1, rest: Vec::new(), at: 0 })
}

struct Database<'p> {
    pages: &'p dyn Pages,
    page_size: usize,
    usable: usize,
    count: u32,
    encoding: Encoding,
    /// Each page belongs to one thing, so none is read twice.
    seen: Rc<RefCell<Seen>>,
    is_damaged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16 { big_endian: bool },
}

/// What the schema lists.
struct Listed {
    name: String,
    root: u32,
    is_table: bool,
    columns: Columns,
}

/// A record, of which the values have not been read.
struct Record<'r, 'p> {
    payload: &'r mut Payload<'p>,
    kinds: Vec<u64>,
}

type OnRow<'f, 'p> = &'f mut dyn FnMut(&Database<'p>, i64, &mut Record<'_, 'p>) -> io::Result<()>;

impl<'p> Database<'p> {
    /// Nothing where the header makes no sense.
    fn open(pages: &'p dyn Pages) -> io::Result<Option<Self>> {
        let mut header = [0; 100];
        if pages.read_at(0, &mut header).is_err() {
            return Ok(None);
        }
        let page_size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65536,
            size => usize::from(size),
        };
        let usable = page_size.saturating_sub(header[20].into());
        if !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) || usable < 480 {
            return Ok(None);
        }
        let length = pages.length()?;
        let count = u32::try_from(length / page_size as u64).unwrap_or(u32::MAX);
        let encoding = match u32::from_be_bytes([header[56], header[57], header[58], header[59]]) {
            2 => Encoding::Utf16 { big_endian: false },
            3 => Encoding::Utf16 { big_endian: true },
            _ => Encoding::Utf8,
        };
        let is_damaged = length % page_size as u64 != 0;
        Ok(Some(Self {
            pages,
            page_size,
            usable,
            count,
            encoding,
            seen: Rc::new(RefCell::new(Seen::new(count))),
            is_damaged,
        }))
    }

    /// Hands out the rows of a table.
    fn table(
        &mut self,
        table: &Rc<Table>,
        columns: &Columns,
        root: u32,
        rows: &mut Rows,
        out: &mut RowsOut<'_>,
    ) -> io::Result<()> {
        self.rows_of(root, &mut |database, row, record| {
            out.check()?;
            rows.begin(table, Number { line: 0, row: row.unsigned_abs() });
            for column in 0..record.kinds.len() {
                if columns.row_number == Some(column) {
                    rows.cell_text(column, row.to_string().as_bytes(), out);
                    continue;
                }
                database.value(record, column, rows, out)?;
            }
            rows.end(out);
            Ok(())
        })
    }

    /// A value of a row, which has to be read in order.
    fn value(
        &self,
        record: &mut Record<'_, 'p>,
        column: usize,
        rows: &mut Rows,
        out: &mut RowsOut<'_>,
    ) -> io::Result<()> {
        let kind = record.kinds[column];
        if let 1..=6 | 8 | 9 = kind {
            let number = record.payload.integer(kind)?;
            rows.cell_text(column, number.to_string().as_bytes(), out);
            return Ok(());
        }
        let mut left = size_of(kind);
        if left > record.payload.left {
            return Err(damaged());
        }
        if kind < 12 {
            return record.payload.skip(left);
        }
        let is_text = kind % 2 == 1;
        let mut piece = Vec::new();
        let mut is_begun = false;
        while left > 0 || !is_begun {
            piece.resize(left.min(PIECE), 0);
            record.payload.read_exact(&mut piece)?;
            left -= piece.len();
            let text = match self.encoding {
                Encoding::Utf16 { big_endian } if is_text => from_utf16(&piece, big_endian),
                _ => std::mem::take(&mut piece),
            };
            match is_begun {
                true => rows.more(&text, out),
                false => rows.cell_text(column, &text, out),
            }
            is_begun = true;
        }
        Ok(())
    }

    /// Reads all rows below a page; what is damaged is left out and remembered.
    fn rows_of(&mut self, root: u32, on_row: OnRow<'_, 'p>) -> io::Result<()> {
        let mut pages = vec![root];
        while let Some(number) = pages.pop() {
            let Some(page) = self.page(number)? else { continue };
            match page.kind {
                INTERIOR_TABLE | INTERIOR_INDEX => pages.extend(page.children().rev()),
                _ => {}
            }
            if page.kind == INTERIOR_TABLE {
                continue;
            }
            // Cells do not overlap, so a page has no more than itself to give.
            let mut left = self.usable;
            for at in page.cells() {
                if let Err(error) = self.row_at(&page, at, &mut left, on_row) {
                    match error.kind() {
                        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => self.is_damaged = true,
                        _ => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    fn row_at(
        &mut self,
        page: &Page,
        at: usize,
        left_in_page: &mut usize,
        on_row: OnRow<'_, 'p>,
    ) -> io::Result<()> {
        let mut cell = Bytes { bytes: page.bytes.get(at..self.usable).ok_or_else(damaged)? };
        if page.kind == INTERIOR_INDEX {
            cell.take(4)?;
        }
        let length = usize::try_from(cell.varint()?).map_err(|_| damaged())?;
        let row = if page.kind == LEAF_TABLE { cell.varint()?.cast_signed() } else { 0 };
        let local = self.local(length, page.kind == LEAF_TABLE);
        *left_in_page = left_in_page.checked_sub(local + SHORTEST_CELL).ok_or_else(damaged)?;
        let first = cell.take(local)?.to_vec();
        let next = if local < length { u32_of(cell.take(4)?) } else { 0 };
        let mut payload = Payload {
            pages: self.pages,
            page_size: self.page_size,
            usable: self.usable,
            page: first,
            at: 0,
            next,
            left: length,
            seen: Rc::clone(&self.seen),
            count: self.count,
        };
        let kinds = payload.header()?;
        on_row(self, row, &mut Record { payload: &mut payload, kinds })
    }

    /// How much of a payload stands in the cell itself.
    fn local(&self, length: usize, is_table: bool) -> usize {
        let usable = self.usable;
        let most = if is_table { usable - 35 } else { (usable - 12) * 64 / 255 - 23 };
        if length <= most {
            return length;
        }
        let least = (usable - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (usable - 4);
        if fitting <= most { fitting } else { least }
    }

    /// Marks the pages of an index, which holds what the table holds.
    fn walk_over(&mut self, root: u32) -> io::Result<()> {
        self.rows_of(root, &mut |_, _, record| record.payload.skip(record.payload.left))
    }

    fn page(&mut self, number: u32) -> io::Result<Option<Page>> {
        if number == 0 || number > self.count || !self.seen.borrow_mut().insert(number) {
            self.is_damaged = true;
            return Ok(None);
        }
        let page = Page::read(self, number)?;
        self.is_damaged |= page.is_none();
        Ok(page)
    }
}

impl Listed {
    /// A row of the schema: type, name, table, root, statement.
    fn read<'p>(database: &Database<'p>, record: &mut Record<'_, 'p>) -> io::Result<Option<Self>> {
        let mut values = Vec::new();
        let mut root = 0;
        for (column, kind) in record.kinds.clone().into_iter().enumerate() {
            if column == 3 && matches!(kind, 1..=9) {
                root = record.payload.integer(kind)?;
                values.push(String::new());
                continue;
            }
            let size = size_of(kind);
            if size > LONGEST_STATEMENT.min(record.payload.left) {
                return Err(damaged());
            }
            let mut bytes = vec![0; size];
            record.payload.read_exact(&mut bytes)?;
            let text = match database.encoding {
                Encoding::Utf16 { big_endian } => from_utf16(&bytes, big_endian),
                Encoding::Utf8 => bytes,
            };
            values.push(String::from_utf8_lossy(&text).into_owned());
        }
        let (Ok(root @ 1..), [kind, name, _, _, statement, ..]) = (u32::try_from(root), values.as_slice())
        else {
            return Ok(None);
        };
        let columns = create_table(statement).map(|(_, columns)| columns).unwrap_or_default();
        Ok(Some(Self { name: name.clone(), root, is_table: kind == "table", columns }))
    }
}

/// A page of a tree.
struct Page {
    bytes: Vec<u8>,
    kind: u8,
    header: usize,
    count: usize,
}

impl Page {
    fn read(database: &Database<'_>, number: u32) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; database.page_size];
        database.pages.read_at(u64::from(number - 1) * database.page_size as u64, &mut bytes)?;
        let header = if number == FIRST_PAGE { 100 } else { 0 };
        let kind = bytes[header];
        let count = usize::from(u16::from_be_bytes([bytes[header + 3], bytes[header + 4]]));
        let page = Self { bytes, kind, header, count };
        let is_one = matches!(kind, LEAF_TABLE | LEAF_INDEX | INTERIOR_TABLE | INTERIOR_INDEX);
        Ok((is_one && page.pointers_end() <= database.usable).then_some(page))
    }

    fn is_interior(&self) -> bool {
        matches!(self.kind, INTERIOR_TABLE | INTERIOR_INDEX)
    }

    fn pointers(&self) -> usize {
        self.header + if self.is_interior() { 12 } else { 8 }
    }

    fn pointers_end(&self) -> usize {
        self.pointers() + 2 * self.count
    }

    /// Where the cells begin.
    fn cells(&self) -> Vec<usize> {
        let pointers = &self.bytes[self.pointers()..self.pointers_end()];
        pointers.chunks(2).map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]]))).collect()
    }

    /// The pages below, from the first.
    fn children(&self) -> impl DoubleEndedIterator<Item = u32> {
        let of = |at: usize| self.bytes.get(at..at + 4).map_or(0, u32_of);
        let mut children: Vec<u32> = self.cells().into_iter().map(of).collect();
        children.push(of(self.header + 8));
        children.into_iter()
    }

    /// What lies between the pointers and the cells: the cells that were deleted are there.
    fn gap(&self) -> &[u8] {
        let start =
            usize::from(u16::from_be_bytes([self.bytes[self.header + 5], self.bytes[self.header + 6]]));
        let start = if start == 0 { self.bytes.len() } else { start };
        self.bytes.get(self.pointers_end()..start).unwrap_or_default()
    }
}

/// What a record is made of: some bytes in its page, the rest on a chain of others.
struct Payload<'p> {
    pages: &'p dyn Pages,
    page_size: usize,
    usable: usize,
    count: u32,
    page: Vec<u8>,
    at: usize,
    next: u32,
    left: usize,
    seen: Rc<RefCell<Seen>>,
}

impl Payload<'_> {
    /// The kinds of the values.
    fn header(&mut self) -> io::Result<Vec<u64>> {
        let (length, size) = self.varint()?;
        let mut left =
            usize::try_from(length).ok().and_then(|length| length.checked_sub(size)).ok_or_else(damaged)?;
        if left > LONGEST_HEADER {
            return Err(damaged());
        }
        let mut kinds = Vec::new();
        while left > 0 {
            let (kind, size) = self.varint()?;
            left = left.checked_sub(size).ok_or_else(damaged)?;
            kinds.push(kind);
        }
        Ok(kinds)
    }

    fn varint(&mut self) -> io::Result<(u64, usize)> {
        let mut number = 0_u64;
        for size in 1..=9 {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            if size == 9 {
                return Ok((number << 8 | u64::from(byte[0]), 9));
            }
            number = number << 7 | u64::from(byte[0] & 0x7f);
            if byte[0] & 0x80 == 0 {
                return Ok((number, size));
            }
        }
        Err(damaged())
    }

    fn integer(&mut self, kind: u64) -> io::Result<i64> {
        if kind >= 8 {
            return Ok(i64::from(kind == 9));
        }
        let mut bytes = [0; 8];
        let size = size_of(kind);
        self.read_exact(&mut bytes[8 - size..])?;
        let bits = (8 - size as u32) * 8;
        Ok((i64::from_be_bytes(bytes) << bits) >> bits)
    }

    fn skip(&mut self, bytes: usize) -> io::Result<()> {
        io::copy(&mut self.take(bytes as u64), &mut io::sink()).map(drop)
    }
}

impl Read for Payload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.page.len() && self.left > 0 {
            // A chain of pages that leads back into itself, or into another one, has no end.
            if self.next == 0 || self.next > self.count || !self.seen.borrow_mut().insert(self.next) {
                return Err(damaged());
            }
            self.page.resize(self.usable, 0);
            self.pages.read_at(u64::from(self.next - 1) * self.page_size as u64, &mut self.page)?;
            self.next = u32_of(&self.page[..4]);
            self.at = 4;
        }
        let ready = &self.page[self.at..];
        let read = ready.len().min(buffer.len()).min(self.left);
        buffer[..read].copy_from_slice(&ready[..read]);
        self.at += read;
        self.left -= read;
        Ok(read)
    }
}

struct Bytes<'b> {
    bytes: &'b [u8],
}

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> io::Result<&'b [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut number = 0_u64;
        for size in 1..=9 {
            let byte = self.take(1)?[0];
            if size == 9 {
                return Ok(number << 8 | u64::from(byte));
            }
            number = number << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(number)
    }
}

/// A set of pages.
struct Seen(Vec<u64>);

impl Seen {
    fn new(count: u32) -> Self {
        Self(vec![0; count as usize / 64 + 1])
    }

    /// False where it was there before.
    fn insert(&mut self, page: u32) -> bool {
        let (word, bit) = (page as usize / 64, 1_u64 << (page % 64));
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn contains(&self, page: u32) -> bool {
        self.0[page as usize / 64] & 1 << (page % 64) != 0
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// The whole file.
struct Everything<'p> {
    pages: &'p dyn Pages,
    at: u64,
    length: u64,
}

impl Read for Everything<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.length - self.at).unwrap_or(usize::MAX));
        self.pages.read_at(self.at, &mut buffer[..wanted])?;
        self.at += wanted as u64;
        Ok(wanted)
    }
}

/// The pages that nothing leads to, and the unused parts of the others.
struct Unused<'d, 'p> {
    database: &'d Database<'p>,
    next: u32,
    rest: Vec<u8>,
    at: usize,
}

impl Read for Unused<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() && self.next <= self.database.count {
            let number = self.next;
            self.next += 1;
            self.at = 0;
            let page = Page::read(self.database, number)?;
            self.rest = match page {
                Some(page) if self.database.seen.borrow().contains(number) => page.gap().to_vec(),
                _ if self.database.seen.borrow().contains(number) => Vec::new(),
                _ => {
                    let mut bytes = vec![0; self.database.page_size];
                    self.database
                        .pages
                        .read_at(u64::from(number - 1) * self.database.page_size as u64, &mut bytes)?;
                    bytes
                }
            };
            // Most of what is unused was never used.
            if self.rest.iter().all(|byte| *byte == 0) {
                self.rest.clear();
            }
        }
        let read = (&self.rest[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

fn size_of(kind: u64) -> usize {
    match kind {
        0 | 8..=11 => 0,
        1..=4 => kind as usize,
        5 => 6,
        6 | 7 => 8,
        _ => usize::try_from((kind - 12) / 2).unwrap_or(usize::MAX),
    }
}

fn from_utf16(bytes: &[u8], big_endian: bool) -> Vec<u8> {
    let unit = |pair: &[u8]| match big_endian {
        true => u16::from_be_bytes([pair[0], pair[1]]),
        false => u16::from_le_bytes([pair[0], pair[1]]),
    };
    let text: String = char::decode_utf16(bytes.chunks_exact(2).map(unit))
        .map(|symbol| symbol.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text.into_bytes()
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}

const FIRST_PAGE: u32 = 1;
const SCHEMA: [&str; 5] = ["type", "name", "tbl_name", "rootpage", "sql"];
const INTERIOR_INDEX: u8 = 2;
const INTERIOR_TABLE: u8 = 5;
const LEAF_INDEX: u8 = 10;
const LEAF_TABLE: u8 = 13;
/// What stands before a payload has two bytes at least; deleted and short ones are filled up to four.
const SHORTEST_CELL: usize = 2;
/// 32,767 columns are the most that SQLite can be built with.
const LONGEST_HEADER: usize = 32_767 * 9;
/// SQLite takes statements of up to a megabyte.
const LONGEST_STATEMENT: usize = 1 << 20;
const PIECE: usize = 256 << 10;
