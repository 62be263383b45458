//! The form that a report is written in.

use std::io::IsTerminal as _;
use std::path::Path;

use keymoat_scan::report::{Colors, Report};

use crate::cli::Written;

/// The form that a report is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form(Written);

/// Who gets the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A file.
    File,
    /// Whoever reads stdout.
    Stdout,
}

impl Form {
    /// What was asked for; else what the file's name says; else text.
    pub fn choose(asked: Option<Written>, file: Option<&Path>) -> Self {
        let extension = file.and_then(Path::extension).and_then(|extension| extension.to_str());
        let by_name = match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("html" | "htm") => Written::Html,
            Some("json") => Written::Json,
            Some("jsonl" | "ndjson") => Written::Jsonl,
            Some("sarif") => Written::Sarif,
            Some("csv") => Written::Csv,
            _ => Written::Text,
        };
        Self(asked.unwrap_or(by_name))
    }

    /// The report in this form.
    pub fn write(self, report: &Report, reader: Reader) -> String {
        match self.0 {
            Written::Text => report.to_text(colors(reader)),
            Written::Json => report.to_json(),
            Written::Jsonl => report.to_json_lines(),
            Written::Sarif => report.to_sarif(),
            Written::Html => report.to_html(),
            Written::Csv => report.to_csv(),
        }
    }
}

fn colors(reader: Reader) -> Colors {
    let wanted = match anstream::ColorChoice::global() {
        anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi => true,
        anstream::ColorChoice::Never => false,
        anstream::ColorChoice::Auto => {
            std::io::stdout().is_terminal()
                && anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
        }
    };
    match wanted && reader == Reader::Stdout {
        true => Colors::On,
        false => Colors::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (asked, file, expected) in [
            (None, None, Written::Text),
            (None, Some("report.html"), Written::Html),
            (None, Some("a/b.SARIF"), Written::Sarif),
            (None, Some("report"), Written::Text),
            (Some(Written::Csv), Some("report.html"), Written::Csv),
            (Some(Written::Json), None, Written::Json),
        ] {
            assert_eq!(Form::choose(asked, file.map(Path::new)), Form(expected), "{asked:?} {file:?}");
        }
    }
}
