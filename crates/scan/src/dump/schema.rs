//! As much of SQL as says which columns a table has, and which of them name a row.

/// The columns of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    pub names: Vec<String>,
    /// Those of the primary key, as far as the statement says so.
    pub key: Vec<String>,
    /// The one that SQLite keeps as the number of the row.
    pub row_number: Option<usize>,
    pub is_without_row_number: bool,
}

/// Reads `CREATE TABLE name (…)`; gives its name and columns.
pub(crate) fn create_table(statement: &str) -> Option<(String, Columns)> {
    let mut words = Words { rest: statement };
    if !words.take("create") {
        return None;
    }
    while ["global", "local", "temporary", "temp", "unlogged", "foreign"].iter().any(|word| words.take(word))
    {
    }
    if !words.take("table") {
        return None;
    }
    if words.take("if") {
        let _ = words.take("not") && words.take("exists");
    }
    let name = words.name()?;
    let body = words.rest.trim_start().strip_prefix('(')?;
    let (body, behind) = within_parentheses(body);
    let mut columns = Columns::default();
    for item in items(body).into_iter().take(MOST_COLUMNS) {
        columns.add(item);
    }
    let behind = behind.to_ascii_lowercase();
    let behind = behind.split(';').next().unwrap_or_default();
    columns.is_without_row_number =
        behind.split_whitespace().collect::<Vec<_>>().join(" ").contains("without rowid");
    Some((name, columns))
}

impl Columns {
    fn add(&mut self, item: &str) {
        let mut words = Words { rest: item };
        let is_quoted = matches!(item.trim_start().as_bytes().first(), Some(b'"' | b'`' | b'['));
        if words.take("constraint") {
            words.identifier();
        }
        if words.take("primary") {
            self.key = key_of(words.rest);
            return;
        }
        if !is_quoted && is_clause(words.clone()) {
            return;
        }
        let Some(name) = words.identifier() else { return };
        let lower = words.rest.to_ascii_lowercase();
        let text: Vec<&str> = lower.split_whitespace().collect();
        if text.windows(2).any(|pair| pair == ["primary", "key"] || pair == ["primary", "key,"]) {
            self.key = vec![name.clone()];
            if text.first() == Some(&"integer") {
                self.row_number = Some(self.names.len());
            }
        }
        self.names.push(name);
    }
}

/// Whether it is something else than a column; some columns are called `key` or `period`.
fn is_clause(mut words: Words<'_>) -> bool {
    if ["unique", "like"].iter().any(|clause| words.take(clause)) {
        return true;
    }
    for (clause, next) in [("foreign", "key"), ("exclude", "using"), ("period", "for")] {
        let mut words = words.clone();
        if words.take(clause) {
            return words.take(next);
        }
    }
    if words.take("check") {
        return words.rest.trim_start().starts_with('(');
    }
    // `KEY name (column)`, and not `key varchar(10)`.
    let is_index = ["key", "index", "fulltext", "spatial"].iter().any(|clause| words.take(clause));
    let inside = words.rest.split_once('(').map(|(_, inside)| inside.trim_start());
    is_index && inside.is_some_and(|inside| !inside.starts_with(|first: char| first.is_ascii_digit()))
}

/// The columns of `PRIMARY KEY (a, b)`, wherever it stands in a statement.
pub(crate) fn primary_key(statement: &str) -> Option<Vec<String>> {
    let at = find(statement, "primary key")?;
    Some(key_of(&statement[at + "primary".len()..])).filter(|key| !key.is_empty())
}

/// The table of `ALTER TABLE [ONLY] name …`.
pub(crate) fn altered_table(statement: &str) -> Option<String> {
    let mut words = Words { rest: &statement[find(statement, "alter table")?..] };
    let _ = words.take("alter") && words.take("table");
    if words.take("if") {
        words.take("exists");
    }
    words.take("only");
    words.name()
}

/// The column names of `(a, "b c")` at the beginning, and what stands behind.
pub(crate) fn column_list(text: &str) -> Option<(Vec<String>, &str)> {
    let body = text.trim_start().strip_prefix('(')?;
    let (body, behind) = within_parentheses(body);
    let names = items(body).into_iter().filter_map(|item| Words { rest: item }.identifier()).collect();
    Some((names, behind))
}

/// Whether a statement begins with words, whatever their case.
pub(crate) fn starts_with(text: &[u8], words: &str) -> bool {
    text.get(..words.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(words.as_bytes()))
}

/// Takes words and names off a statement.
#[derive(Clone)]
pub(crate) struct Words<'s> {
    pub rest: &'s str,
}

impl Words<'_> {
    /// Takes a word, whatever its case.
    pub fn take(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start();
        let Some(begin) = rest.get(..word.len()) else { return false };
        let behind = &rest[word.len()..];
        let ends = !behind.starts_with(|symbol: char| symbol.is_alphanumeric() || symbol == '_');
        let takes = ends && begin.eq_ignore_ascii_case(word);
        if takes {
            self.rest = behind;
        }
        takes
    }

    /// A name with its schema, which is left out where it is the usual one.
    pub fn name(&mut self) -> Option<String> {
        let mut parts = vec![self.identifier()?];
        while let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            parts.push(self.identifier()?);
        }
        if parts.len() > 1 && matches!(parts[0].as_str(), "public" | "main" | "dbo") {
            parts.remove(0);
        }
        Some(parts.join("."))
    }

    /// A name, in whichever quotes.
    pub fn identifier(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next()?;
        let quote = match first {
            '"' | '`' | '\'' => first,
            '[' => ']',
            _ => {
                let is_name = |symbol: char| symbol.is_alphanumeric() || matches!(symbol, '_' | '$');
                let end = self.rest.find(|symbol| !is_name(symbol)).unwrap_or(self.rest.len());
                let name = &self.rest[..end];
                self.rest = &self.rest[end..];
                return (!name.is_empty()).then(|| name.to_owned());
            }
        };
        let mut name = String::new();
        let mut symbols = self.rest.char_indices().skip(1).peekable();
        while let Some((at, symbol)) = symbols.next() {
            if symbol != quote {
                name.push(symbol);
            } else if symbols.peek().is_some_and(|(_, next)| *next == quote) {
                symbols.next();
                name.push(quote);
            } else {
                self.rest = &self.rest[at + quote.len_utf8()..];
                return Some(name);
            }
        }
        None
    }
}

fn key_of(text: &str) -> Vec<String> {
    let start = text.find('(').unwrap_or(text.len());
    let key = column_list(&text[start..]).map(|(names, _)| names).unwrap_or_default();
    if key.len() > MOST_IN_A_KEY { Vec::new() } else { key }
}

fn find(text: &str, words: &str) -> Option<usize> {
    text.to_ascii_lowercase().find(words)
}

/// What stands up to the closing parenthesis, and what behind it.
fn within_parentheses(text: &str) -> (&str, &str) {
    let mut open = 1_usize;
    let mut quote = None;
    for (at, symbol) in text.char_indices() {
        match (quote, symbol) {
            (Some(end), _) if end == symbol => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(symbol),
            (None, '(') => open += 1,
            (None, ')') => {
                open -= 1;
                if open == 0 {
                    return (&text[..at], &text[at + 1..]);
                }
            }
            _ => {}
        }
    }
    (text, "")
}

/// What stands between the commas that are in no parentheses.
fn items(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut open, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, symbol) in text.char_indices() {
        match (quote, symbol) {
            (Some(end), _) if end == symbol => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(symbol),
            (None, '(') => open += 1,
            (None, ')') => open = open.saturating_sub(1),
            (None, ',') if open == 0 => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&text[start..]);
    items
}

/// SQLite can be built for so many; others have fewer.
const MOST_COLUMNS: usize = 32_767;
/// PostgreSQL takes 32, MySQL 16.
const MOST_IN_A_KEY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_as_three_programs_write_them() {
        for (statement, name, names, key) in [
            (
                "CREATE TABLE public.shop (\n    id integer NOT NULL,\n    \"the key\" character varying(10) DEFAULT 'a,b)'::text\n);\n",
                "shop",
                &["id", "the key"][..],
                &[][..],
            ),
            (
                "CREATE TABLE `shop` (\n  `id` int(11) NOT NULL AUTO_INCREMENT,\n  `key` text,\n  PRIMARY KEY (`id`,`key`),\n  KEY `k` (`key`(10))\n) ENGINE=InnoDB;",
                "shop",
                &["id", "key"],
                &["id", "key"],
            ),
            (
                "create table if not exists [a b](\"x\" integer primary key, y, constraint z unique (y))",
                "a b",
                &["x", "y"],
                &["x"],
            ),
            (
                "CREATE TABLE p (id integer PRIMARY KEY, key text, period varchar(10), index int)",
                "p",
                &["id", "key", "period", "index"],
                &["id"],
            ),
            ("CREATE UNLOGGED TABLE other.t (a int)", "other.t", &["a"], &[]),
        ] {
            let (found, columns) = create_table(statement).unwrap();
            assert_eq!(
                (found.as_str(), &columns.names[..], &columns.key[..]),
                (
                    name,
                    &names.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                    &key.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
                )
            );
        }
        for other in
            ["CREATE INDEX a ON b (c)", "CREATE TABLE", "CREATE TABLE a AS SELECT 1", "create table \"a", ""]
        {
            assert_eq!(create_table(other), None, "{other}");
        }
    }

    #[test]
    fn keys_that_are_added_later() {
        let statement =
            "ALTER TABLE ONLY public.shop\n    ADD CONSTRAINT shop_pkey PRIMARY KEY (id, \"b c\");\n";
        assert_eq!(altered_table(statement).unwrap(), "shop");
        assert_eq!(primary_key(statement).unwrap(), ["id", "b c"]);
        assert_eq!(primary_key("ALTER TABLE a ADD UNIQUE (b)"), None);
    }
}
