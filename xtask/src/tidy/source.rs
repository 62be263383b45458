//! A Rust file taken apart by line: code without strings and comments, the strings, the comments, and what is test.
//!
//! It is a lexer for rules, not a parser: it knows strings, comments, characters, braces and `#[cfg(test)]`, and
//! nothing of names or types.

/// One Rust file.
#[derive(Debug)]
pub struct Source {
    /// The name, relative to the root, with `/`.
    pub file: String,
    /// Whether all of it is compiled for tests only.
    pub is_test: bool,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// One line of a file.
#[derive(Debug, Default, Clone)]
pub struct Line {
    /// The code, with the content of strings and characters left out.
    pub code: String,
    /// The content of string literals, of all on the line together.
    pub strings: String,
    /// The text of comments, their marks included.
    pub comment: String,
    /// Whether it stands in an item under `#[cfg(test)]`.
    pub in_test_item: bool,
}

impl Source {
    /// Takes a file apart.
    pub fn parse(file: &str, text: &str) -> Self {
        let mut lines = Lexer::new(text).lines();
        mark_test_items(&mut lines);
        let is_test = TEST_DIRS.iter().any(|dir| file.contains(dir) || file.starts_with(&dir[1..]));
        Self { file: file.to_owned(), is_test, lines }
    }

    /// Whether a line, counted from 0, is compiled for tests only.
    pub fn is_test_line(&self, index: usize) -> bool {
        self.is_test || self.lines[index].in_test_item
    }

    /// Lists the files that may hold the modules which this one declares for tests only.
    pub fn test_modules(&self) -> Vec<String> {
        let (dir, name) = self.file.rsplit_once('/').unwrap_or(("", &self.file));
        let stem = name.trim_end_matches(".rs");
        let dir =
            if matches!(stem, "lib" | "main" | "mod") { dir.to_owned() } else { format!("{dir}/{stem}") };
        let mut files = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let module = line.code.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let declared = module.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
            if let Some(module) = declared.filter(|_| self.is_test_line(index)) {
                files.extend([format!("{dir}/{module}.rs"), format!("{dir}/{module}/mod.rs")]);
            }
        }
        files
    }
}

/// Marks the lines of every item that `#[cfg(test)]` or `#[cfg(all(test, …))]` stands before.
fn mark_test_items(lines: &mut [Line]) {
    let mut index = 0;
    while index < lines.len() {
        let code = lines[index].code.trim_start();
        if !(code.starts_with("#[cfg(test)]") || code.starts_with("#[cfg(all(test,")) {
            index += 1;
            continue;
        }
        let end = end_of_item(lines, index);
        for line in &mut lines[index..=end] {
            line.in_test_item = true;
        }
        index = end + 1;
    }
}

/// Finds the last line of the item whose attributes begin at `start`: where its braces close, or its semicolon.
fn end_of_item(lines: &[Line], start: usize) -> usize {
    let mut depth = 0usize;
    let mut brackets = 0usize;
    for (index, line) in lines.iter().enumerate().skip(start) {
        for symbol in line.code.chars() {
            match symbol {
                '[' | '(' => brackets += 1,
                ']' | ')' => brackets = brackets.saturating_sub(1),
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return index;
                    }
                }
                ';' if depth == 0 && brackets == 0 => return index,
                _ => {}
            }
        }
    }
    lines.len() - 1
}

/// What the lexer is in the middle of.
#[derive(Clone, Copy)]
enum State {
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment(usize),
    /// A string with escapes.
    Text,
    /// A raw string that ends with this many `#`.
    RawText(usize),
}

struct Lexer<'a> {
    rest: &'a str,
    /// The symbol before `rest`, to tell `r"` from the end of a name.
    before: char,
    line: Line,
    lines: Vec<Line>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, before: ' ', line: Line::default(), lines: Vec::new() }
    }

    fn lines(mut self) -> Vec<Line> {
        let mut state = State::Code;
        while !self.rest.is_empty() {
            state = if self.rest.starts_with('\n') { self.new_line(state) } else { self.step(state) };
        }
        self.lines.push(self.line);
        self.lines
    }

    fn new_line(&mut self, state: State) -> State {
        self.advance(1);
        self.lines.push(std::mem::take(&mut self.line));
        if matches!(state, State::LineComment) { State::Code } else { state }
    }

    fn step(&mut self, state: State) -> State {
        match state {
            State::Code => self.step_code(),
            State::LineComment => {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                let text = self.advance(end);
                self.line.comment.push_str(text);
                state
            }
            State::BlockComment(depth) => self.step_block_comment(depth),
            State::Text => self.step_text(),
            State::RawText(hashes) => self.step_raw_text(hashes),
        }
    }

    fn step_code(&mut self) -> State {
        if self.rest.starts_with("//") {
            return State::LineComment;
        }
        if self.rest.starts_with("/*") {
            return State::BlockComment(0);
        }
        if let Some(hashes) = self.raw_text_start() {
            return State::RawText(hashes);
        }
        if self.rest.starts_with('"') {
            self.push_code(1);
            return State::Text;
        }
        if let Some(len) = character_len(self.rest) {
            self.advance(len);
            self.line.code.push_str("''");
            return State::Code;
        }
        let len = self.rest.chars().next().map_or(0, char::len_utf8);
        self.push_code(len);
        State::Code
    }

    fn step_block_comment(&mut self, depth: usize) -> State {
        if self.rest.starts_with("/*") {
            self.push_comment(2);
            return State::BlockComment(depth + 1);
        }
        if self.rest.starts_with("*/") {
            self.push_comment(2);
            return if depth <= 1 { State::Code } else { State::BlockComment(depth - 1) };
        }
        let len = self.rest.chars().next().map_or(0, char::len_utf8);
        self.push_comment(len);
        State::BlockComment(depth)
    }

    fn step_text(&mut self) -> State {
        if self.rest.starts_with('"') {
            self.push_code(1);
            self.line.strings.push('\n');
            return State::Code;
        }
        // A backslash takes the next symbol with it, but a line break is seen by the caller.
        let escaped = self.rest.starts_with('\\') && !self.rest[1..].starts_with('\n');
        let symbols = if escaped { 2 } else { 1 };
        let len = self.rest.chars().take(symbols).map(char::len_utf8).sum();
        let text = self.advance(len);
        self.line.strings.push_str(text);
        State::Text
    }

    fn step_raw_text(&mut self, hashes: usize) -> State {
        let after =
            self.rest.strip_prefix('"').map(|after| after.bytes().take_while(|byte| *byte == b'#').count());
        if after.is_some_and(|found| found >= hashes) {
            self.push_code(1 + hashes);
            self.line.strings.push('\n');
            return State::Code;
        }
        let len = self.rest.chars().next().map_or(0, char::len_utf8);
        let text = self.advance(len);
        self.line.strings.push_str(text);
        State::RawText(hashes)
    }

    /// At `r"`, `br"`, `cr"` or the same with `#`: consumes the opening and returns the number of `#`.
    fn raw_text_start(&mut self) -> Option<usize> {
        if self.before.is_alphanumeric() || self.before == '_' {
            return None;
        }
        let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
            let rest = self.rest.strip_prefix(prefix).unwrap_or_default();
            rest.trim_start_matches('#').starts_with('"')
        })?;
        let hashes = self.rest[prefix.len()..].bytes().take_while(|byte| *byte == b'#').count();
        self.push_code(prefix.len() + hashes + 1);
        Some(hashes)
    }

    fn push_code(&mut self, len: usize) {
        let text = self.advance(len);
        self.line.code.push_str(text);
    }

    fn push_comment(&mut self, len: usize) {
        let text = self.advance(len);
        self.line.comment.push_str(text);
    }

    fn advance(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.before = taken.chars().next_back().unwrap_or(self.before);
        self.rest = rest;
        taken
    }
}

/// The length of the character literal at the start of `text`; `None` for a lifetime.
fn character_len(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        let end = inner.char_indices().skip(2).find(|(_, symbol)| *symbol == '\'')?.0;
        return Some(1 + end + 1);
    }
    let len = first.len_utf8();
    inner[len..].starts_with('\'').then_some(1 + len + 1)
}

/// Directories whose files are compiled for developers only: they may print, measure and unwrap.
const TEST_DIRS: [&str; 5] = ["/tests/", "/benches/", "/examples/", "/testkit/", "/fuzz/"];

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        Source::parse("crates/a/src/lib.rs", text).lines
    }

    #[test]
    fn code_strings_and_comments_are_told_apart() {
        for (text, code, strings, comment) in [
            ("let a = 1; // why", "let a = 1; ", "", "// why"),
            ("a(\"// no\"); // yes", "a(\"\"); ", "// no\n", "// yes"),
            (r#"a("q\"x\\"); b"#, r#"a(""); b"#, "q\\\"x\\\\\n", ""),
            (r###"a(r#"x"y"#, 2)"###, r###"a(r#""#, 2)"###, "x\"y\n", ""),
            (r#"a(br"\", b"z")"#, r#"a(br"", b"")"#, "\\\nz\n", ""),
            ("for x in '\"'..'\\'' { 'a: loop {} }", "for x in ''..'' { 'a: loop {} }", "", ""),
            ("let c = '\\u{1F}'; fn f<'a>(x: &'a str)", "let c = ''; fn f<'a>(x: &'a str)", "", ""),
            ("a /* b /* c */ d */ e", "a  e", "", "/* b /* c */ d */"),
            ("let car = \"x\";", "let car = \"\";", "x\n", ""),
            ("let é = 'ß'; // Ü", "let é = ''; ", "", "// Ü"),
        ] {
            let line = &lines(text)[0];
            assert_eq!(
                (line.code.as_str(), line.strings.as_str(), line.comment.as_str()),
                (code, strings, comment),
                "{text}"
            );
        }
    }

    #[test]
    fn strings_and_comments_go_on_over_lines() {
        let found = lines("a(\"one\ntwo \\\n three\"); /* four\nfive */ six");
        let parts: Vec<_> =
            found.iter().map(|l| (l.code.as_str(), l.strings.as_str(), l.comment.as_str())).collect();
        let expected = [
            ("a(\"", "one", ""),
            ("", "two \\", ""),
            ("\"); ", " three\n", "/* four"),
            (" six", "", "five */"),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn test_items_are_marked_to_their_end() {
        let text = "fn a() {}\n#[cfg(test)]\nfn b() {\n  \"}\";\n}\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}\n\
                    #[cfg(all(test, unix))]\n#[allow(x)]\nmod f {\n fn g() {}\n}\nfn h() {}";
        let marked: Vec<bool> = lines(text).iter().map(|line| line.in_test_item).collect();
        let expected: Vec<bool> = "011110110111110".chars().map(|mark| mark == '1').collect();
        assert_eq!(marked, expected);
    }

    #[test]
    fn nothing_panics_on_what_is_cut_short() {
        let whole =
            "fn f<'a>() { \"x\\\"\"; r#\"y\"#; '\\''; b'\\\\'; /* z /* */ */ } // ü\n#[cfg(test)]\nmod m {";
        for (end, _) in whole.char_indices() {
            assert!(!lines(&whole[..end]).is_empty());
        }
    }
}
