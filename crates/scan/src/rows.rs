//! Rows of tables as one text, and where in it each cell stands.
//!
//! The engine looks at what stands before a value, so a cell of a telling column has the column's name before it, and the
//! value of a table of names and values its name. Everything else stands as in a dump: cells separated by tabs.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use keymoat_detect::Engine;

use crate::inside::RowsOut;

/// A table, as far as its rows tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    name: String,
    columns: Vec<Column>,
    /// What names a row; empty where nothing does.
    key: Vec<usize>,
    company: Option<usize>,
    /// The columns of names and of their values, where the table has settings in it.
    setting: Option<(usize, usize)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    name: String,
    is_telling: bool,
}

impl Table {
    /// A table; `key` are the columns of its primary key, as far as they are known.
    pub fn new(name: &str, columns: &[String], key: &[String]) -> Self {
        let place = |wanted: &str| columns.iter().position(|column| column.eq_ignore_ascii_case(wanted));
        let setting = SETTINGS.iter().find_map(|(name, value)| Some((place(name)?, place(value)?)));
        let known: Option<Vec<usize>> = key.iter().map(|column| place(column)).collect();
        let key = match known {
            Some(known) if !known.is_empty() => known,
            _ => place("id").or(setting.map(|(name, _)| name)).into_iter().collect(),
        };
        // A name may stand before each value, and beside each finding.
        let short = |name: &str| name.chars().take(LONGEST_NAME).collect::<String>();
        let column = |name: &String| Column { name: short(name), is_telling: is_telling(name) };
        Self {
            name: short(name),
            columns: columns.iter().map(column).collect(),
            key,
            company: place("company_id"),
            setting,
        }
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether its rows can be searched as they stand in a dump.
    fn is_plain(&self) -> bool {
        self.setting.is_none() && !self.columns.iter().any(|column| column.is_telling)
    }

    fn column(&self, column: usize) -> String {
        self.columns
            .get(column)
            .map_or_else(|| format!("column {}", column + 1), |column| column.name.clone())
    }
}

/// The cell that a value stands in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The table, with its schema where that is not the usual one.
    pub table: String,
    /// The column.
    pub column: String,
    /// The row: `id 7`, or `row 7` counted from 1 where it has no key that may be shown.
    pub row: String,
    /// The company that the row belongs to.
    pub company: Option<String>,
    /// The setting whose value it is.
    pub setting: Option<String>,
}

/// Where in a file or table something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The line in the file, from 1; nothing where there is no file.
    pub line: Option<u64>,
    /// The column in it, from 1; nothing in tables.
    pub column: Option<u64>,
    /// The cell; nothing between tables.
    pub cell: Option<Cell>,
}

/// Rows as one text.
#[derive(Debug, Default)]
pub struct Rows {
    text: Vec<u8>,
    rows: Vec<Row>,
    cells: Vec<CellText>,
    /// What begins before was searched.
    from: usize,
    /// The name of the setting that is next.
    setting: Vec<u8>,
    has_no_lines: bool,
}

#[derive(Debug, Clone)]
struct Row {
    start: usize,
    /// Its line in the file; 0 where there is none.
    line: u64,
    /// Its number in the table.
    number: u64,
    /// How far into its line it begins; only of text between tables.
    into_line: u64,
    table: Option<Rc<Table>>,
    /// Which cells it has; nothing where they have to be counted.
    cells: Option<Range<usize>>,
    /// What was known of it when its beginning was given away.
    known: Option<Box<Cell>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CellText {
    column: usize,
    text: Range<usize>,
}

/// Which row it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Number {
    /// Its line in the file; 0 where there is none.
    pub line: u64,
    /// Its number in the table, from 1.
    pub row: u64,
}

impl Rows {
    /// Rows out of something that has no lines which anybody could look up.
    pub(crate) fn without_lines() -> Self {
        Self { has_no_lines: true, ..Self::default() }
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where a value stands that takes this part of the text.
    pub fn spot(&self, value: &Range<usize>) -> Spot {
        let Some(index) = self.rows.partition_point(|row| row.start <= value.start).checked_sub(1) else {
            return Spot { line: None, column: None, cell: None };
        };
        let row = &self.rows[index];
        let into = &self.text[row.start..value.start.min(self.text.len())];
        let lines = if row.table.is_none() { memchr::memchr_iter(b'\n', into).count() as u64 } else { 0 };
        let line = (row.line > 0 && !self.has_no_lines).then_some(row.line + lines);
        let cell = row.table.as_ref().map(|table| self.cell(index, row, table, value));
        let into_line = match memchr::memrchr(b'\n', into) {
            Some(end) => (into.len() - end - 1) as u64,
            None => row.into_line + into.len() as u64,
        };
        let column = (row.table.is_none() && line.is_some()).then_some(into_line + 1);
        Spot { line, column, cell }
    }

    fn cell(&self, index: usize, row: &Row, table: &Table, value: &Range<usize>) -> Cell {
        let cells = self.cells_of(index);
        let before = cells.partition_point(|cell| cell.text.start <= value.start);
        let column = before.checked_sub(1).map_or(0, |last| cells[last].column);
        let text = |column: usize| {
            let cell = &cells[cells.binary_search_by_key(&column, |cell| cell.column).ok()?];
            let is_other = cell.text.end <= value.start || cell.text.start >= value.end;
            let text = std::str::from_utf8(&self.text[cell.text.clone()]).ok()?;
            (is_other && may_be_shown(text)).then_some(text)
        };
        let key: Option<Vec<String>> = table
            .key
            .iter()
            .map(|column| Some(format!("{} {}", table.column(*column), text(*column)?)))
            .collect();
        let key = key.filter(|key| !key.is_empty()).map(|key| key.join(", "));
        let known = row.known.as_deref();
        let setting = table.setting.filter(|(_, of)| *of == column).and_then(|(name, _)| text(name));
        Cell {
            table: table.name.clone(),
            column: table.column(column),
            row: key
                .or_else(|| known.map(|known| known.row.clone()))
                .unwrap_or_else(|| format!("row {}", row.number)),
            company: table.company.and_then(text).map(str::to_owned).or_else(|| known?.company.clone()),
            setting: setting.map(str::to_owned).or_else(|| known?.setting.clone()),
        }
    }

    /// The cells of a row, in the order of their columns.
    fn cells_of(&self, index: usize) -> Cow<'_, [CellText]> {
        let row = &self.rows[index];
        if let Some(cells) = &row.cells {
            return Cow::Borrowed(&self.cells[cells.clone()]);
        }
        let end = self.rows.get(index + 1).map_or(self.text.len(), |next| next.start);
        let mut start = row.start;
        let line = self.text[start..end].strip_suffix(b"\n").unwrap_or(&self.text[start..end]);
        let cell = |(column, text): (usize, &[u8])| {
            let range = start..start + text.len();
            start = range.end + 1;
            CellText { column, text: range }
        };
        Cow::Owned(line.split(|byte| *byte == b'\t').enumerate().map(cell).collect())
    }

    /// A row as it stands in a dump, where nothing in it needs another form; false where it does.
    pub(crate) fn plain_row(
        &mut self,
        table: &Rc<Table>,
        number: Number,
        line: &[u8],
        out: &mut RowsOut<'_>,
    ) -> bool {
        let fits = line.len() <= LONGEST_PLAIN && table.is_plain() && memchr::memchr(b'\\', line).is_none();
        if fits {
            self.push(Some(table), number, None);
            self.text.extend_from_slice(line);
            self.text.push(b'\n');
            self.give(out);
        }
        fits
    }

    /// Text that stands in no table, and begins in this line so far into it.
    pub(crate) fn between(&mut self, mut line: u64, mut into_line: u64, text: &[u8], out: &mut RowsOut<'_>) {
        for piece in text.chunks(STRETCH) {
            let is_short = |row: &Row| self.text.len() - row.start < STRETCH;
            if !self.rows.last().is_some_and(|row| row.table.is_none() && is_short(row)) {
                self.push(None, Number { line, row: 0 }, None);
                self.rows.last_mut().into_iter().for_each(|row| row.into_line = into_line);
            }
            self.text.extend_from_slice(piece);
            line += memchr::memchr_iter(b'\n', piece).count() as u64;
            into_line = match memchr::memrchr(b'\n', piece) {
                Some(end) => (piece.len() - end - 1) as u64,
                None => into_line + piece.len() as u64,
            };
            self.give(out);
        }
    }

    /// Begins a row.
    pub(crate) fn begin(&mut self, table: &Rc<Table>, number: Number) {
        self.setting.clear();
        let cells = self.cells.len();
        self.push(Some(table), number, Some(cells..cells));
    }

    /// A cell of the row, or the beginning of one.
    pub(crate) fn cell_text(&mut self, column: usize, text: &[u8], out: &mut RowsOut<'_>) {
        let Some(table) = self.rows.last().and_then(|row| row.table.clone()) else { return };
        if self.rows.last().is_some_and(|row| self.text.len() > row.start) {
            self.text.push(b'\t');
        }
        match table.setting {
            Some((name, _)) if name == column => {
                self.setting.clear();
                self.setting.extend_from_slice(&text[..text.len().min(LONGEST_NAME)]);
            }
            Some((_, value)) if value == column && !self.setting.is_empty() && !is_hash(text) => {
                self.text.extend_from_slice(&self.setting);
                self.text.push(b'=');
            }
            _ => {
                let telling = table.columns.get(column).filter(|column| column.is_telling && !is_hash(text));
                if let Some(column) = telling.filter(|_| !text.is_empty()) {
                    self.text.extend_from_slice(column.name.as_bytes());
                    self.text.push(b'=');
                }
            }
        }
        let start = self.text.len();
        self.cells.push(CellText { column, text: start..start });
        let end = self.cells.len();
        self.rows.last_mut().and_then(|row| row.cells.as_mut()).into_iter().for_each(|cells| cells.end = end);
        self.more(text, out);
    }

    /// More of the same cell.
    pub(crate) fn more(&mut self, text: &[u8], out: &mut RowsOut<'_>) {
        for piece in text.chunks(BLOCK) {
            self.text.extend_from_slice(piece);
            let end = self.text.len();
            if let Some(cell) = self.cells.last_mut() {
                cell.text.end = end;
            }
            self.give(out);
        }
    }

    /// Ends the row.
    pub(crate) fn end(&mut self, out: &mut RowsOut<'_>) {
        self.text.push(b'\n');
        self.give(out);
    }

    /// Hands on what is left.
    pub(crate) fn finish(&mut self, out: &mut RowsOut<'_>) {
        if self.from < self.text.len() {
            out.rows(self, self.from..self.text.len());
        }
        *self = Self { has_no_lines: self.has_no_lines, ..Self::default() };
    }

    fn push(&mut self, table: Option<&Rc<Table>>, number: Number, cells: Option<Range<usize>>) {
        let Number { line, row: number } = number;
        self.rows.push(Row {
            start: self.text.len(),
            line,
            number,
            into_line: 0,
            table: table.cloned(),
            cells,
            known: None,
        });
    }

    /// Hands on the text when there is enough of it; as much of it stays as a decision may look at.
    fn give(&mut self, out: &mut RowsOut<'_>) {
        if self.text.len() < BLOCK + 2 * Engine::MARGIN {
            return;
        }
        let to = self.text.len() - Engine::MARGIN;
        out.rows(self, self.from..to);
        let keep = to - Engine::MARGIN;
        let index = self.rows.partition_point(|row| row.start <= keep).saturating_sub(1);
        let row = &self.rows[index];
        let is_long = keep.saturating_sub(row.start) > BLOCK / 4;
        let keep = if is_long { self.cut(index, keep) } else { row.start };
        self.forget(index, keep);
        self.from = to - keep;
    }

    /// Makes a row begin later than it does; gives the place.
    fn cut(&mut self, index: usize, keep: usize) -> usize {
        let row = &self.rows[index];
        // Stretches of text between tables are short.
        let Some(table) = row.table.clone() else { return row.start };
        let known = self.cell(index, row, &table, &(keep..keep));
        let cells = self.cells_of(index);
        let range = row.cells.clone().unwrap_or_default();
        let gone = cells.iter().take_while(|cell| cell.text.end <= keep).count();
        for cell in &mut self.cells[range.clone()] {
            cell.text.start = cell.text.start.max(keep);
            cell.text.end = cell.text.end.max(keep);
        }
        let row = &mut self.rows[index];
        row.known = Some(Box::new(known));
        row.start = keep;
        row.cells = Some(range.start + gone..range.end);
        keep
    }

    fn forget(&mut self, index: usize, keep: usize) {
        self.rows.drain(..index);
        let cells = |row: &Row| row.cells.as_ref().map(|cells| cells.start);
        let first = self.rows.iter().find_map(cells).unwrap_or(self.cells.len());
        self.cells.drain(..first);
        for row in &mut self.rows {
            row.start -= keep;
            row.cells = row.cells.take().map(|cells| cells.start - first..cells.end - first);
        }
        for cell in &mut self.cells {
            cell.text = cell.text.start - keep..cell.text.end - keep;
        }
        self.text.drain(..keep);
    }
}

/// Whether the name of a column says that secrets are in it.
fn is_telling(column: &str) -> bool {
    let lower = column.to_ascii_lowercase();
    TELLING.iter().any(|word| lower.contains(word)) && !HARMLESS.iter().any(|word| lower.ends_with(word))
}

/// Whether it is the hash of a password, which is nobody's key: `$2b$…`, `pbkdf2_sha256$…`, `{SSHA}…`.
fn is_hash(text: &[u8]) -> bool {
    let starts = [
        "$2",
        "$argon2",
        "$pbkdf2",
        "$5$",
        "$6$",
        "$y$",
        "pbkdf2_",
        "bcrypt",
        "argon2",
        "scrypt:",
        "{SSHA",
        "SCRAM-SHA",
        "sha1$",
        "md5$",
    ];
    starts.iter().any(|start| text.starts_with(start.as_bytes()))
}

/// Whether a key of a row is a number or a name, and not something that opens doors itself.
fn may_be_shown(key: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/@ -".contains(&byte);
    let is_uuid = key.len() == 36 && key.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let is_number = key.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        word.len() < SHORTEST_RANDOM || digits == 0 || digits == word.len()
    };
    let words = || key.split(|symbol: char| !symbol.is_ascii_alphanumeric());
    let is_plain = key.bytes().all(is_name) && words().all(is_word);
    !key.is_empty() && key.len() <= LONGEST_KEY && (is_uuid || is_number || is_plain)
}

/// Columns of tables that hold settings: Odoo, Django's and Rails' usual ones, WordPress, Magento, PrestaShop.
const SETTINGS: [(&str, &str); 9] = [
    ("key", "value"),
    ("name", "value"),
    ("option_name", "option_value"),
    ("meta_key", "meta_value"),
    ("setting", "value"),
    ("var", "value"),
    ("path", "value"),
    ("config_key", "config_value"),
    ("setting_name", "setting_value"),
];

const TELLING: [&str; 18] = [
    "secret",
    "token",
    "passw",
    "pwd",
    "passphrase",
    "key",
    "credential",
    "auth",
    "private",
    "api",
    "cert",
    "hmac",
    "salt",
    "signature",
    "webhook",
    "smtp_pass",
    "dsn",
    "connection",
];

/// Keys of rows are no keys.
const HARMLESS: [&str; 6] = ["_id", "_uid", "_count", "_date", "author", "_at"];

/// Enough that the parts which are searched twice cost little, and little enough for the processor's cache.
const BLOCK: usize = 1 << 20;
/// Longer rows are taken apart: cells of others are counted for each value.
const LONGEST_PLAIN: usize = 16 << 10;
/// Of text between tables lines are counted from here on, for each value.
const STRETCH: usize = 4 << 10;
/// Names of settings, tables and columns are shorter.
const LONGEST_NAME: usize = 200;
/// Keys of rows are shorter.
const LONGEST_KEY: usize = 64;
/// A shorter run of letters and digits is no key.
const SHORTEST_RANDOM: usize = 16;
