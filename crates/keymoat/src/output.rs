//! What goes to the terminal: data on stdout, talk on stderr.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
use keymoat_detect::Catalogue;
use serde::Serialize;

use crate::error::CliError;

/// How data is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Writes data as JSON.
pub fn json(data: &impl Serialize) -> Result<(), CliError> {
    let text =
        serde_json::to_string_pretty(data).map_err(|e| CliError::new(format!("cannot write JSON: {e}")))?;
    line(&text);
    Ok(())
}

/// Writes a line of data. A reader that has gone away ends the program quietly.
pub fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// Writes bytes of data as they are.
pub fn bytes(data: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(data).and_then(|()| out.flush()).is_err() {
        // As other filters do when `head` has seen enough.
        crate::exit(0);
    }
}

/// Says something that is not data. A key that was given in the wrong place is not repeated: what a program says ends
/// up in logs.
pub fn say(text: &str) {
    // There is nobody left to tell when stderr is gone.
    let _ = writeln!(anstream::stderr().lock(), "{}", Catalogue::builtin().hide_keys(text));
}

/// Says something that should be noticed.
pub fn warn(text: &str) {
    let style = anstyle::Style::new().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
    say(&format!("{style}warning:{style:#} {text}"));
}

/// Says why a command failed.
pub fn error(error: &CliError) {
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    say(&format!("{style}error:{style:#} {}", error.message));
    if let Some(hint) = &error.hint {
        say(&format!("hint: {hint}"));
    }
}

/// Writes rows under headings, in columns.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for text in table.lines() {
        line(text.trim_end());
    }
}

/// Makes text from elsewhere safe to print: no control characters reach the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Whether a person is reading stderr.
pub fn talks_to_a_person() -> bool {
    std::io::stderr().is_terminal() && std::io::stdin().is_terminal()
}
