//! `.env` files: reading them, and changing one value without touching another byte.
//!
//! The dialect is what docker compose, python-dotenv and Ruby's dotenv agree on, and where they differ what most
//! of them do. Variables inside values are not replaced; such a value says so ([`EnvEntry::interpolates`]).
//! Values may be secrets: they are ordinary text here, hidden from `Debug`, and the caller moves them into
//! protected memory. Files are read and written elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// A `.env` file that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvFile {
    text: String,
    entries: Vec<EnvEntry>,
    bare_names: Vec<(usize, String)>,
}

impl EnvFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When a line cannot be understood or a limit is exceeded; the error names the line and repeats nothing of it.
    pub fn parse(text: &str, limits: &EnvLimits) -> Result<Self, EnvError> {
        if text.len() > limits.bytes {
            return Err(EnvError::new(1, EnvProblem::FileTooLong, "split the file"));
        }
        let mut reader = Reader { text, at: 0, line: 1 };
        reader.skip(BOM);
        let mut file = Self { text: text.to_owned(), entries: Vec::new(), bare_names: Vec::new() };
        while reader.at < text.len() {
            match reader.statement(limits)? {
                Statement::Nothing => {}
                Statement::Bare(line, name) => file.bare_names.push((line, name)),
                Statement::Entry(entry) => file.entries.push(entry),
            }
            if file.entries.len() + file.bare_names.len() > limits.entries {
                return Err(EnvError::new(reader.line, EnvProblem::TooManyEntries, "split the file"));
            }
        }
        Ok(file)
    }

    /// The entries in order, with those that stand twice.
    pub fn entries(&self) -> &[EnvEntry] {
        &self.entries
    }

    /// Names without `=`, with their lines: such a variable is passed on from outside.
    pub fn bare_names(&self) -> &[(usize, String)] {
        &self.bare_names
    }

    /// Names that stand more than once, with their lines; the last one counts.
    pub fn duplicates(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut lines: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for entry in &self.entries {
            lines.entry(&entry.name).or_default().push(entry.line);
        }
        lines.retain(|_, lines| lines.len() > 1);
        lines
    }

    /// The file with another value for a name; every other byte stays. `None` when there is no such name.
    ///
    /// # Errors
    /// When the name stands more than once (see [`EnvFile::replace_entry`]) or the value cannot be written.
    pub fn replace(&self, name: &str, value: &str) -> Result<Option<String>, EnvError> {
        let mut matching = self.entries.iter().enumerate().filter(|(_, entry)| entry.name == name);
        let Some((number, _)) = matching.next() else {
            return Ok(None);
        };
        if let Some((_, twice)) = matching.next() {
            let hint = "remove one of them, or replace each";
            return Err(EnvError::new(twice.line, EnvProblem::Duplicate, hint));
        }
        self.replace_entry(number, value)
    }

    /// The file with another value for one entry, counted from 0; every other byte stays. `None` when there is no
    /// such entry.
    ///
    /// # Errors
    /// When the value cannot be written.
    pub fn replace_entry(&self, number: usize, value: &str) -> Result<Option<String>, EnvError> {
        let Some(entry) = self.entries.get(number) else {
            return Ok(None);
        };
        if value == entry.value.as_str() {
            return Ok(Some(self.text.clone()));
        }
        if value.contains('\0') {
            return Err(EnvError::new(entry.line, EnvProblem::Nul, "a variable cannot hold it"));
        }
        let (before, after) = (&self.text[..entry.span.start], &self.text[entry.span.end..]);
        Ok(Some(format!("{before}{}{after}", quote(value, entry.quote))))
    }
}

impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvFile").field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// One entry of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvEntry {
    /// The line its name stands on, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Its value, unquoted; possibly a secret.
    pub value: EnvValue,
    /// Where the value stands in the file, with its quotes, in bytes.
    pub span: Range<usize>,
    /// How it is quoted.
    pub quote: Quote,
    /// Whether a reader would replace variables or commands in it, so that the program gets another value.
    pub interpolates: bool,
}

impl EnvEntry {
    /// The variable whose value it takes over: its own is `$NAME` or `${NAME}` and nothing else.
    pub fn takes_over(&self) -> Option<&str> {
        let name = self.value.as_str().strip_prefix('$').filter(|_| self.interpolates)?;
        let name = match name.strip_prefix('{') {
            Some(inner) => inner.strip_suffix('}')?,
            None => name,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_digit_first = name.starts_with(|c: char| c.is_ascii_digit());
        (!name.is_empty() && !is_digit_first && name.chars().all(is_name)).then_some(name)
    }
}

/// A value of a `.env` file; possibly a secret, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvValue(String);

impl EnvValue {
    /// The value itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value itself, given away.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How a value is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// Not at all.
    None,
    /// `'…'`: as it stands, but `\'` is a quote.
    Single,
    /// `"…"`: with escapes and variables.
    Double,
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvLimits {
    /// Longest file in bytes.
    pub bytes: usize,
    /// Most entries.
    pub entries: usize,
    /// Longest value in bytes, as written.
    pub value_bytes: usize,
}

impl EnvLimits {
    /// What is read when nothing else is said: far more than any file in use has.
    pub const USUAL: Self = Self { bytes: 4 * 1024 * 1024, entries: 10_000, value_bytes: 128 * 1024 };
}

/// What is wrong with a file. Never repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}; {hint}")]
pub struct EnvError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: EnvProblem,
    /// What to do.
    pub hint: &'static str,
}

impl EnvError {
    fn new(line: usize, what: EnvProblem, hint: &'static str) -> Self {
        Self { line, what, hint }
    }
}

/// What can be wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvProblem {
    /// More bytes than allowed.
    #[error("file is too long")]
    FileTooLong,
    /// More entries than allowed.
    #[error("file has too many entries")]
    TooManyEntries,
    /// A value longer than allowed.
    #[error("value is too long")]
    ValueTooLong,
    /// Something that is not a name.
    #[error("name of the variable is malformed")]
    Name,
    /// Something other than `=` after a name.
    #[error("name of the variable is not followed by `=`")]
    NoEquals,
    /// A quote that is never closed.
    #[error("quote is not closed")]
    OpenQuote,
    /// Something after a closing quote.
    #[error("text follows the closing quote")]
    AfterQuote,
    /// A carriage return that does not end a line.
    #[error("carriage return does not end the line")]
    CarriageReturn,
    /// A NUL character.
    #[error("value has a NUL character")]
    Nul,
    /// A name that stands twice, where one is to be replaced.
    #[error("name stands more than once")]
    Duplicate,
}

enum Statement {
    Nothing,
    Bare(usize, String),
    Entry(EnvEntry),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

/// What was read of a value.
struct RawValue {
    value: String,
    span: Range<usize>,
    quote: Quote,
    interpolates: bool,
}

impl<'a> Reader<'a> {
    fn statement(&mut self, limits: &EnvLimits) -> Result<Statement, EnvError> {
        self.skip_blanks();
        if self.is_line_end() || self.rest().starts_with('#') {
            self.finish_line()?;
            return Ok(Statement::Nothing);
        }
        self.skip_export();
        let line = self.line;
        let name = self.name()?;
        self.skip_blanks();
        if self.is_line_end() || self.rest().starts_with('#') {
            self.finish_line()?;
            return Ok(Statement::Bare(line, name));
        }
        if !self.skip("=") {
            return Err(self.error(EnvProblem::NoEquals, "write `NAME=value`"));
        }
        let RawValue { value, span, quote, interpolates } = self.value()?;
        if span.len() > limits.value_bytes {
            return Err(EnvError::new(line, EnvProblem::ValueTooLong, "keep it in a file of its own"));
        }
        if value.contains('\0') {
            return Err(EnvError::new(line, EnvProblem::Nul, "a variable cannot hold it"));
        }
        Ok(Statement::Entry(EnvEntry { line, name, value: EnvValue(value), span, quote, interpolates }))
    }

    fn skip_export(&mut self) {
        if let Some(rest) = self.rest().strip_prefix("export")
            && rest.starts_with([' ', '\t'])
        {
            self.at += "export".len();
            self.skip_blanks();
        }
    }

    fn name(&mut self) -> Result<String, EnvError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let rest = self.rest();
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        if name.len() > MAX_NAME_BYTES || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            let hint = "write `NAME=value` with a name of letters, digits and `_`";
            return Err(self.error(EnvProblem::Name, hint));
        }
        self.at += name.len();
        Ok(name.to_owned())
    }

    fn value(&mut self) -> Result<RawValue, EnvError> {
        let after_equals = self.at;
        self.skip_blanks();
        if let Some(mark) = self.rest().chars().next().filter(|c| matches!(c, '\'' | '"')) {
            return self.quoted(mark);
        }
        let line = self.rest().split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains('\r') {
            return Err(self.error(EnvProblem::CarriageReturn, "save the file with one kind of line ends"));
        }
        let begins_comment = line.starts_with('#') && self.at > after_equals;
        let end = if begins_comment { 0 } else { find_comment(line) };
        let value = line[..end].trim_end_matches(BLANKS);
        let start = if value.is_empty() { after_equals } else { self.at };
        let raw = RawValue {
            value: value.to_owned(),
            span: start..start + value.len(),
            quote: Quote::None,
            interpolates: has_variable(value),
        };
        self.finish_line()?;
        Ok(raw)
    }

    fn quoted(&mut self, mark: char) -> Result<RawValue, EnvError> {
        let (start, opened) = (self.at, self.line);
        let inner = &self.rest()[1..];
        let Some(length) = find_closing(inner, mark) else {
            return Err(EnvError::new(opened, EnvProblem::OpenQuote, "close it"));
        };
        let raw = &inner[..length];
        self.at += length + 2;
        self.line += raw.matches('\n').count();
        let span = start..self.at;
        self.skip_blanks();
        if !(self.is_line_end() || self.rest().starts_with('#')) {
            return Err(
                self.error(EnvProblem::AfterQuote, "quote the whole value, and escape quotes inside it")
            );
        }
        self.finish_line()?;
        Ok(match mark {
            '\'' => {
                RawValue { value: raw.replace("\\'", "'"), span, quote: Quote::Single, interpolates: false }
            }
            _ => {
                RawValue { value: unescape(raw), span, quote: Quote::Double, interpolates: has_variable(raw) }
            }
        })
    }

    /// Goes behind the end of the line; what is left of it is blank or a comment.
    fn finish_line(&mut self) -> Result<(), EnvError> {
        let rest = self.rest();
        let line = &rest[..rest.find('\n').map_or(rest.len(), |end| end + 1)];
        let content = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
        if content.contains('\r') && self.at + content.len() < self.text.len() {
            return Err(self.error(EnvProblem::CarriageReturn, "save the file with one kind of line ends"));
        }
        self.at += line.len();
        self.line += usize::from(line.ends_with('\n'));
        Ok(())
    }

    fn is_line_end(&self) -> bool {
        let rest = self.rest();
        rest.is_empty() || rest.starts_with('\n') || rest.starts_with("\r\n") || rest == "\r"
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(BLANKS).len();
    }

    fn skip(&mut self, expected: &str) -> bool {
        let is_there = self.rest().starts_with(expected);
        self.at += if is_there { expected.len() } else { 0 };
        is_there
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, what: EnvProblem, hint: &'static str) -> EnvError {
        EnvError::new(self.line, what, hint)
    }
}

/// Where a comment begins in an unquoted value: at `#` after a blank.
fn find_comment(line: &str) -> usize {
    let mut starts = line.match_indices('#').map(|(at, _)| at);
    starts.find(|at| line[..*at].ends_with(BLANKS)).unwrap_or(line.len())
}

/// The length of what stands before the closing quote; a backslash hides the character after it.
fn find_closing(inner: &str, mark: char) -> Option<usize> {
    let mut is_hidden = false;
    for (at, c) in inner.char_indices() {
        if c == mark && !is_hidden {
            return Some(at);
        }
        is_hidden = c == '\\' && !is_hidden;
    }
    None
}

/// Resolves the escapes of a double-quoted value; an unknown one stays as it is.
fn unescape(raw: &str) -> String {
    let mut value = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some(plain @ ('\\' | '"' | '$')) => value.push(plain),
            Some(other) => value.extend(['\\', other]),
            None => value.push('\\'),
        }
    }
    value
}

/// Whether a reader would replace something: `$NAME`, `${NAME}`, `$(command)`, without a backslash in front.
fn has_variable(raw: &str) -> bool {
    let mut is_hidden = false;
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        let begins = |next: &char| next.is_ascii_alphabetic() || matches!(next, '_' | '{' | '(');
        if c == '$' && !is_hidden && chars.peek().is_some_and(begins) {
            return true;
        }
        is_hidden = c == '\\' && !is_hidden;
    }
    false
}

/// Writes a value so that every reader of the dialect understands it, quoted as before if that will do.
///
/// The one exception: a value with both `$` and `'` needs `\$`, which python-dotenv leaves as it stands.
fn quote(value: &str, before: Quote) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=~".contains(c);
    let plain = value.chars().all(is_plain);
    let single = !value.contains(['\'', '\\', '\n', '\r']);
    let double = !value.contains('$');
    match before {
        Quote::None if plain => value.to_owned(),
        Quote::Double if double => quote_double(value),
        _ if single => format!("'{value}'"),
        _ => quote_double(value),
    }
}

fn quote_double(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' | '"' | '$' => quoted.extend(['\\', c]),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What some editors put in front of a file.
const BOM: &str = "\u{feff}";
const BLANKS: [char; 2] = [' ', '\t'];
/// Longest name in bytes.
const MAX_NAME_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> EnvFile {
        EnvFile::parse(text, &EnvLimits::USUAL).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn values() {
        let check = |text: &str, expected: &str| {
            let file = parse(text);
            assert_eq!(file.entries().len(), 1, "{text:?}");
            assert_eq!(file.entries()[0].value.as_str(), expected, "{text:?}");
        };
        check("A=b", "b");
        check("A=", "");
        check("A = b ", "b");
        check("export A=b", "b");
        check("export\tA=b\n", "b");
        check("  A=b\n", "b");
        check("\u{feff}A=b\r\n", "b");
        check("A=b # note", "b");
        check("A=b#c", "b#c");
        check("A=#c", "#c");
        check("A= # note", "");
        check("A=a b\tc  ", "a b\tc");
        check("A='b # c' # note", "b # c");
        check("A='it\\'s'", "it's");
        check("A='a\\nb'", "a\\nb");
        check("A=\"a\\nb\\t\\\"c\\\" \\\\ \\$X \\q\"", "a\nb\t\"c\" \\ $X \\q");
        check("A=\"two\nlines\"", "two\nlines");
        check("A=\"a\r\nb\"\r\n", "a\r\nb");
        check("A='two\nlines'\n# end", "two\nlines");
        check("A=`b`", "`b`");
        check("A=b=c", "b=c");
        check("A=pass'word", "pass'word");
        check("A.b-c=d", "d");
        check("# comment\n\n\t\nA=b", "b");
    }

    #[test]
    fn lines_spans_and_flags() {
        let text = "# one\nA=\"x\ny\" # note\nexport B=${A}\nC\nB='$x'\nD=\"\\${x}\"\nE=$(id)\nF=a$\n";
        let file = parse(text);
        let seen: Vec<_> = file
            .entries()
            .iter()
            .map(|e| (e.line, e.name.as_str(), &text[e.span.clone()], e.interpolates))
            .collect();
        assert_eq!(
            seen,
            [
                (2, "A", "\"x\ny\"", false),
                (4, "B", "${A}", true),
                (6, "B", "'$x'", false),
                (7, "D", "\"\\${x}\"", false),
                (8, "E", "$(id)", true),
                (9, "F", "a$", false),
            ]
        );
        assert_eq!(file.bare_names(), [(5, "C".to_owned())]);
        assert_eq!(file.duplicates(), BTreeMap::from([("B", vec![4, 6])]));
        assert_eq!(file.replace("B", "x").unwrap_err().what, EnvProblem::Duplicate);
        assert!(!format!("{file:?}").contains("x\ny"));
    }

    #[test]
    fn refused() {
        let check = |text: &str, line: usize, what: EnvProblem| {
            let error = EnvFile::parse(text, &EnvLimits::USUAL).unwrap_err();
            assert_eq!((error.line, error.what), (line, what), "{text:?}");
        };
        check("A=b\n1A=b", 2, EnvProblem::Name);
        check("=b", 1, EnvProblem::Name);
        check("KEY: value", 1, EnvProblem::NoEquals);
        check("some words", 1, EnvProblem::NoEquals);
        check("A='b\nC=d", 1, EnvProblem::OpenQuote);
        check("A=\"b\\\"", 1, EnvProblem::OpenQuote);
        check("A='b'c", 1, EnvProblem::AfterQuote);
        check("A=\"b\nc\" d", 2, EnvProblem::AfterQuote);
        check("A=b\rB=c\n", 1, EnvProblem::CarriageReturn);
        check("A=\0", 1, EnvProblem::Nul);
        let tight = EnvLimits { bytes: 20, entries: 2, value_bytes: 3 };
        let limited = |text: &str| EnvFile::parse(text, &tight).unwrap_err().what;
        assert_eq!(limited(&"#".repeat(21)), EnvProblem::FileTooLong);
        assert_eq!(limited("A=1\nB=2\nC=3"), EnvProblem::TooManyEntries);
        assert_eq!(limited("A=1234"), EnvProblem::ValueTooLong);
        let message = EnvFile::parse("S='sk_live_EXAMPLE", &EnvLimits::USUAL).unwrap_err().to_string();
        assert_eq!(message, "line 1: quote is not closed; close it");
    }

    #[test]
    fn replacements() {
        let check = |text: &str, value: &str, expected: &str| {
            assert_eq!(parse(text).replace("A", value).unwrap().unwrap(), expected, "{text:?} {value:?}");
        };
        check("A=b # note\r\nB=c", "keymoat:stripe", "A=keymoat:stripe # note\r\nB=c");
        check("A=b", "keymoat:stripe#secret_key", "A='keymoat:stripe#secret_key'");
        check("A=\"b\" # n", "keymoat:stripe#k", "A=\"keymoat:stripe#k\" # n");
        check("export A='b'\n", "x", "export A='x'\n");
        check("A=", "x", "A=x");
        check("A= # note", "x", "A=x # note");
        check("A=b\r", "a#b", "A='a#b'\r");
        check("A=b", "", "A=");
        check("A=b", "it's", "A=\"it's\"");
        check("A=b", "a\nb", "A=\"a\\nb\"");
        check("A=\"b\"", "pa$word", "A='pa$word'");
        check("A=b", "'$x'", "A=\"'\\$x'\"");
        check("\u{feff}A=b", "c", "\u{feff}A=c");
        assert_eq!(parse("A=b").replace("B", "c"), Ok(None));
        assert_eq!(parse("A=b").replace("A", "\0").unwrap_err().what, EnvProblem::Nul);
    }

    fn any_file() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "[ \t]{0,2}#[ -~]{0,10}",
            "(export )?[A-C] ?= ?[!-~]{0,8}( #[ -~]{0,5})?",
            "[A-C]='[ -&(-~\n]{0,8}' *(# x)?",
            "[A-C]=\"([ -!#-\\[\\]-~]|\\\\[nrt\\\\\"$q]|\n){0,8}\"",
            "[A-C]",
            "",
        ];
        (
            any::<bool>(),
            prop::collection::vec((line, prop::sample::select(vec!["\n", "\r\n"])), 0..8),
            any::<bool>(),
        )
            .prop_map(|(bom, lines, ends)| {
                let mut text = if bom { BOM.to_owned() } else { String::new() };
                lines.iter().for_each(|(line, end)| text.extend([line.as_str(), *end]));
                if ends { text } else { text.trim_end_matches(['\n', '\r']).to_owned() }
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn rewriting_changes_one_value_only(text in any_file(), value in "[ -~]{0,12}|[a-z$'\"\\\\\n\r\t#é]{0,8}|\\PC{0,8}") {
            let Ok(file) = EnvFile::parse(&text, &EnvLimits::USUAL) else { return Ok(()) };
            for (number, entry) in file.entries().iter().enumerate() {
                let same = file.replace_entry(number, entry.value.as_str()).unwrap().unwrap();
                prop_assert_eq!(&same, &text);
                let rewritten = file.replace_entry(number, &value).unwrap().unwrap();
                prop_assert!(rewritten.starts_with(&text[..entry.span.start]));
                prop_assert!(rewritten.ends_with(&text[entry.span.end..]));
                let again = EnvFile::parse(&rewritten, &EnvLimits::USUAL).unwrap();
                prop_assert_eq!(again.entries().len(), file.entries().len());
                for (other, (old, new)) in file.entries().iter().zip(again.entries()).enumerate() {
                    let expected = if other == number { value.as_str() } else { old.value.as_str() };
                    prop_assert_eq!(new.value.as_str(), expected, "{:?}", rewritten);
                }
            }
        }

        #[test]
        fn parser_takes_anything(text in ".{0,60}|[A-C='\"#\\\\ \n\r\t${}x]{0,40}") {
            if let Ok(file) = EnvFile::parse(&text, &EnvLimits::USUAL) {
                for entry in file.entries() {
                    prop_assert!(text.get(entry.span.clone()).is_some());
                }
            }
        }
    }
}
