//! Suggested commands, made so that they work when they are pasted: what was said for this command holds for the next.
//!
//! A suggestion is `keymoat …` between backticks, in whatever text. What stands outside of backticks stays as it is.

use clap::CommandFactory as _;

use crate::cli::{Cli, Global};

/// The text with its commands completed by the environment, company, data directory and server of this command.
pub fn complete(text: &str, global: &Global) -> String {
    let mut parts = text.split('`');
    let mut completed = parts.next().unwrap_or_default().to_owned();
    // Every second part stands between backticks.
    for (number, part) in parts.enumerate() {
        completed.push('`');
        match number % 2 == 0 && part.starts_with(PROGRAM) {
            true => completed.push_str(&complete_command(part, global)),
            false => completed.push_str(part),
        }
    }
    completed
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn complete_command(command: &str, global: &Global) -> String {
    // What comes after `--` is another program's.
    let (own, rest) = match command.find(" -- ") {
        Some(at) => command.split_at(at),
        None => (command, ""),
    };
    let words: Vec<&str> = own.split_whitespace().skip(1).collect();
    let Some(name) = words.iter().copied().find(|word| is_command(word)) else { return command.to_owned() };
    let says = |flags: &[&str]| words.iter().any(|word| flags.contains(word));
    let mut completed = own.to_owned();
    let mut add = |flag: &str, value: &str| completed.push_str(&format!(" {flag} {}", quoted(value)));
    let is_here = HERE.iter().any(|here| own.starts_with(&format!("{PROGRAM}{here}")));
    if SCOPED.contains(&name) {
        if let Some(environment) = global.env.as_deref().filter(|_| !says(&["--env", "-e"])) {
            add("--env", environment);
        }
        // A command that names its environment names its company too, or means none.
        if let Some(company) = global.company.as_deref().filter(|_| !says(&["--company", "--env", "-e"])) {
            add("--company", company);
        }
    }
    if let Some(data) = global.data.as_deref().filter(|_| !says(&["--data", "--server"])) {
        add("--data", &data.to_string_lossy());
    }
    if let Some(server) = global.server.as_deref().filter(|_| !is_here && !says(&["--server"])) {
        add("--server", server);
    }
    completed + rest
}

fn is_command(word: &str) -> bool {
    Cli::command().get_subcommands().any(|command| command.get_name() == word)
}

const PROGRAM: &str = "keymoat ";
/// Commands whose meaning depends on environment and company.
const SCOPED: [&str; 16] = [
    "put", "get", "reveal", "list", "history", "rollback", "promote", "label", "annotate", "delete",
    "undelete", "destroy", "which", "run", "import", "export",
];
/// Commands that work on this machine alone.
const HERE: [&str; 5] = ["serve", "init", "restore", "rekey", "audit accept-restore"];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::*;

    fn global(flags: &str) -> Global {
        let line = format!("keymoat {flags} status");
        Cli::try_parse_from(line.split_whitespace()).unwrap().global
    }

    #[test]
    fn commands_get_what_the_user_said() {
        #[track_caller]
        fn check(flags: &str, text: &str, expected: &str) {
            assert_eq!(complete(text, &global(flags)), expected, "{flags}");
        }
        check("", "`keymoat undelete a` brings it back", "`keymoat undelete a` brings it back");
        check("--env prod", "`keymoat undelete a` brings", "`keymoat undelete a --env prod` brings");
        check(
            "--env prod --company acme",
            "x `keymoat history a`, y `keymoat list`",
            "x `keymoat history a --env prod --company acme`, y `keymoat list --env prod --company acme`",
        );
        check("--env prod --company acme", "`keymoat list --env dev`", "`keymoat list --env dev`");
        check("--env prod", "`keymoat account list`", "`keymoat account list`");
        check("--env prod", "`keymoat run -- CMD`", "`keymoat run --env prod -- CMD`");
        check("--env prod", "no secret `prod/keymoat list`", "no secret `prod/keymoat list`");
        check("--data /a/b", "`keymoat serve` starts one", "`keymoat serve --data /a/b` starts one");
        check("--server http://127.0.0.1:1", "`keymoat serve`", "`keymoat serve`");
        check(
            "--server http://127.0.0.1:1",
            "`keymoat token list`",
            "`keymoat token list --server http://127.0.0.1:1`",
        );
        check("--env prod", "odd ` backtick", "odd ` backtick");
        check("--env prod", "", "");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them_otherwise() {
        for (word, expected) in
            [("a/b.env", "a/b.env"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("", "''"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }

    /// The commands between backticks in the sources of every crate, as they are written there.
    fn suggested() -> Vec<(String, String)> {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        let mut dirs: Vec<_> =
            std::fs::read_dir(crates).unwrap().map(|entry| entry.unwrap().path().join("src")).collect();
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => files.push(path),
                }
            }
        }
        let mut found = Vec::new();
        for file in files.iter().filter(|file| !file.ends_with("keymoat/src/hint.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for part in line.split('`').skip(1).step_by(2).filter(|part| part.starts_with(PROGRAM)) {
                    found.push((file.display().to_string(), part.to_owned()));
                }
            }
        }
        found
    }

    /// A suggestion with something plausible in its gaps.
    fn filled(command: &str, usual: &str) -> Vec<String> {
        let mut text = command.to_owned();
        while let Some((before, rest)) = text.split_once('{') {
            let (gap, after) = rest.split_once('}').unwrap();
            let fill = match gap {
                gap if gap.contains("flags") => "--env prod",
                "what" => "environment",
                "command" => "history",
                "capability" => "reveal",
                _ => usual,
            };
            text = format!("{before}{fill}{after}");
        }
        let word = |word: &str| match word {
            "OLD" | "N" => "1".to_owned(),
            // `PATH#FIELD`, `REASON`: what the reader puts there.
            gap if !gap.contains(|c: char| c.is_ascii_lowercase()) => gap.to_ascii_lowercase(),
            word => word.to_owned(),
        };
        text.split_whitespace().map(word).collect()
    }

    #[test]
    fn every_suggested_command_is_one() {
        let suggested = suggested();
        assert!(suggested.len() > 40, "{} found", suggested.len());
        for (file, command) in suggested {
            let errors: Vec<clap::Error> = ["filled", "1", "0192f0c1-0000-7000-8000-000000000001"]
                .into_iter()
                .map_while(|usual| Cli::try_parse_from(filled(&command, usual)).err())
                .collect();
            // Some are said as the name of a command, to be read about, not to be pasted.
            let is_named = |error: &clap::Error| {
                matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                )
            };
            let fits = errors.len() < 3 || errors.iter().any(is_named);
            assert!(fits, "{file}: `{command}`: {}", errors[0]);
        }
    }
}
