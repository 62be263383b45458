//! The rules on Rust sources: where the outside world may be touched, and how a file is written.
//!
//! Each exception stands in a list with its reason. To add one is a decision for a review, not a way around a message.

use super::Violation;
use super::source::{Line, Source};

/// Checks one file against every rule.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut found: Vec<Violation> = starts_with_its_purpose(source).into_iter().collect();
    for index in 0..source.lines.len() {
        let place = Place { source, index };
        found.extend(outside_world(place));
        found.extend(time_and_dice(place));
        found.extend(sleeping_tests(place));
        found.extend(unsafe_code(place));
        found.extend(receipts(place));
        found.extend(exposure(place));
        found.extend(unfinished(place));
        found.extend(sql(place));
        found.extend(reaching_out(place));
    }
    found
}

/// Warns of a file that has grown too long to be read in one go.
pub fn too_long(source: &Source) -> Option<Violation> {
    let lines = source.lines.len();
    let advice = format!("{lines} lines; look for the part that is a module of its own");
    (lines > LONGEST_FILE).then(|| Violation::new(&source.file, LONGEST_FILE, "length", advice))
}

/// One line in its file.
#[derive(Clone, Copy)]
struct Place<'a> {
    source: &'a Source,
    index: usize,
}

impl<'a> Place<'a> {
    fn line(self) -> &'a Line {
        &self.source.lines[self.index]
    }

    fn code(self) -> &'a str {
        &self.line().code
    }

    fn is_test(self) -> bool {
        self.source.is_test_line(self.index)
    }

    fn is_in(self, dirs: &[&str]) -> bool {
        dirs.iter().any(|dir| self.source.file.starts_with(dir))
    }

    fn is_listed(self, exceptions: &[Exception]) -> bool {
        exceptions.iter().any(|exception| exception.file == self.source.file)
    }

    fn violation(self, rule: &'static str, advice: impl Into<String>) -> Option<Violation> {
        Some(Violation::new(&self.source.file, self.index + 1, rule, advice))
    }
}

/// A file that may do what the others may not.
struct Exception {
    file: &'static str,
    /// For whoever reads the list; a lint that is not read is not kept.
    #[expect(dead_code, reason = "the reason is there to be read in the source")]
    why: &'static str,
}

fn starts_with_its_purpose(source: &Source) -> Option<Violation> {
    let first = source.lines.iter().find(|line| !(line.code.trim().is_empty() && line.comment.is_empty()))?;
    let described = first.comment.starts_with("//!");
    let advice = "begin with `//!`: what the module is for and what it deliberately does not do";
    (!described).then(|| Violation::new(&source.file, 1, "purpose", advice))
}

fn outside_world(place: Place<'_>) -> Option<Violation> {
    let is_build_script = place.source.file.ends_with("/build.rs");
    if place.is_test() || is_build_script || place.is_in(&SPEAKING) {
        return None;
    }
    if let Some(name) = ENVIRONMENT.iter().find(|name| has_word(place.code(), name)) {
        return place.violation("outside", format!("take it as an argument; only the binary calls `{name}`"));
    }
    if let Some(name) = PRINTING.iter().find(|name| has_word(place.code(), name)) {
        return place
            .violation("outside", format!("return it or use `tracing`; only the binary calls `{name}`"));
    }
    let exits = EXITING.iter().find(|name| has_word(place.code(), name))?;
    place.violation("outside", format!("return an error; only the binary calls `{exits}`"))
}

fn time_and_dice(place: Place<'_>) -> Option<Violation> {
    if place.is_in(&["xtask/"]) {
        return None;
    }
    if let Some(name) = CLOCKS.iter().find(|name| has_word(place.code(), name)) {
        let allowed = place.is_listed(&MAY_READ_THE_CLOCK);
        return (!allowed)
            .then(|| place.violation("time", format!("take the time as an argument; not `{name}`")))?;
    }
    if has_word(place.code(), "Instant::now") && !place.is_test() && !place.is_listed(&MAY_TAKE_DURATIONS) {
        return place
            .violation("time", "take the time as an argument, or list the file in `MAY_TAKE_DURATIONS`");
    }
    let dice = DICE.iter().find(|name| has_word(place.code(), name))?;
    let allowed = place.is_listed(&MAY_THROW_DICE);
    (!allowed).then(|| place.violation("dice", format!("take randomness as an argument; not `{dice}`")))?
}

fn sleeping_tests(place: Place<'_>) -> Option<Violation> {
    let sleeps = has_word(place.code(), "sleep") && place.code().contains("sleep(");
    let may = !place.is_test() || place.is_in(&["xtask/", "benches/"]) || place.is_listed(&MAY_SLEEP);
    if !sleeps || may {
        return None;
    }
    let simulated =
        place.source.lines.iter().any(|line| PAUSED.iter().any(|paused| line.code.contains(paused)));
    (!simulated).then(|| place.violation("sleep", "a test waits for an event or moves a simulated clock"))?
}

fn unsafe_code(place: Place<'_>) -> Option<Violation> {
    if !has_word(place.code(), "unsafe") {
        return None;
    }
    if !place.is_listed(&MAY_BE_UNSAFE) && !place.is_in(&["testkit/"]) {
        return place
            .violation("unsafe", "find the safe way; only the files in `MAY_BE_UNSAFE` may use `unsafe`");
    }
    // A function that is unsafe to call says so in its documentation; each use of `unsafe` argues for itself.
    let declares =
        ["unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|form| place.code().contains(form));
    let argued =
        statement_comments(place).any(|comment| comment.contains("SAFETY:") || comment.contains("# Safety"));
    let needs_argument = !declares || place.code().contains("unsafe impl");
    (needs_argument && !argued).then(|| place.violation("unsafe", "say in `// SAFETY:` why it is sound"))?
}

fn receipts(place: Place<'_>) -> Option<Violation> {
    let makes = RECEIPT_MAKERS.iter().find(|name| has_word(place.code(), name))?;
    if place.is_test() || place.is_listed(&MAY_MAKE_RECEIPTS) {
        return None;
    }
    place.violation(
        "receipt",
        format!("`{makes}` belongs to the files in `MAY_MAKE_RECEIPTS`; ask the front desk"),
    )
}

fn exposure(place: Place<'_>) -> Option<Violation> {
    let exposes = place.code().contains(".expose(");
    if !exposes || place.is_test() {
        return None;
    }
    let argued = statement_comments(place).any(|comment| comment.contains("EXPOSE:"));
    (!argued).then(|| {
        place.violation("expose", "say in `// EXPOSE:` before the statement why the value is read")
    })?
}

fn unfinished(place: Place<'_>) -> Option<Violation> {
    let line = place.line();
    if let Some(mark) = UNFINISHED_MARKS.iter().find(|mark| has_word(&line.comment, mark)) {
        return place
            .violation("unfinished", format!("do it or open an issue; no `{mark}` stays in the sources"));
    }
    if place.code().contains("#[ignore") {
        return place.violation("unfinished", "a test runs or says `SKIP <name>: <reason>`; none is ignored");
    }
    let unwraps = place.code().contains(".unwrap()") && !place.is_test() && !place.is_in(&["xtask/"]);
    unwraps
        .then(|| place.violation("unwrap", "return the error, or `expect` with the invariant it relies on"))?
}

fn sql(place: Place<'_>) -> Option<Violation> {
    if place.is_test() || !place.is_in(&["crates/"]) || place.is_in(&MAY_WRITE_SQL) {
        return None;
    }
    let statement = SQL.iter().find(|statement| place.line().strings.contains(*statement))?;
    place.violation("sql", format!("`{}` belongs to crates/store; add a method there", statement.trim()))
}

/// What a request asks for never leads to another machine or into another program: no server-side request forgery, no
/// plugins, no commands.
fn reaching_out(place: Place<'_>) -> Option<Violation> {
    if place.is_test() || !place.is_in(&["crates/"]) {
        return None;
    }
    let connects = CONNECTING.iter().find(|name| has_word(place.code(), name));
    if let Some(name) = connects.filter(|_| !place.is_listed(&MAY_CONNECT)) {
        return place.violation("outbound", format!("`{name}` is for the files in `MAY_CONNECT`"));
    }
    let runs = RUNNING.iter().find(|name| has_word(place.code(), name))?;
    let may = place.is_listed(&MAY_RUN_PROGRAMS);
    (!may).then(|| place.violation("program", format!("`{runs}` is for the files in `MAY_RUN_PROGRAMS`")))?
}

/// The comments of the statement that a line belongs to: on its lines so far, directly before it, and at its end.
fn statement_comments(place: Place<'_>) -> impl Iterator<Item = &str> {
    let lines = &place.source.lines;
    let mut first = place.index;
    while first > 0 {
        let before = &lines[first - 1];
        let code = before.code.trim_end();
        let is_blank = code.is_empty() && before.comment.is_empty();
        if is_blank || code.ends_with([';', '{', '}']) {
            break;
        }
        first -= 1;
    }
    lines[first..=place.index].iter().map(|line| line.comment.as_str())
}

/// Whether `word` stands in `text` and is not a part of a longer name.
fn has_word(text: &str, word: &str) -> bool {
    let is_name = |symbol: char| symbol.is_alphanumeric() || symbol == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Beyond this nobody reads a file in one go.
const LONGEST_FILE: usize = 900;

/// Who may read the environment, print and exit.
const SPEAKING: [&str; 2] = ["crates/keymoat/", "xtask/"];
const ENVIRONMENT: [&str; 11] = [
    "env::var",
    "env::var_os",
    "env::vars",
    "env::vars_os",
    "env::args",
    "env::args_os",
    "env::set_var",
    "env::remove_var",
    "env::home_dir",
    "env::current_dir",
    "env::temp_dir",
];
const PRINTING: [&str; 6] = ["println!", "eprintln!", "print!", "eprint!", "io::stdout", "io::stderr"];
const EXITING: [&str; 2] = ["process::exit", "process::abort"];

const CLOCKS: [&str; 6] =
    ["Timestamp::now", "Zoned::now", "SystemTime::now", "Utc::now", "Local::now", "OffsetDateTime::now_utc"];
const MAY_READ_THE_CLOCK: [Exception; 2] = [
    Exception { file: "crates/keymoat/src/clock.rs", why: "the one clock; everything else is told the time" },
    Exception {
        file: "crates/keymoat/tests/common/authority.rs",
        why: "the built program goes by the system's clock when it judges a certificate",
    },
];
const MAY_TAKE_DURATIONS: [Exception; 4] = [
    Exception {
        file: "crates/keymoat/src/commands/redact.rs",
        why: "how long ago it asked which values are stored",
    },
    Exception {
        file: "crates/server/src/serve.rs",
        why: "one deadline for a connection's handshake and first head",
    },
    Exception { file: "crates/store/src/writer.rs", why: "how long a commit took, for the metrics only" },
    Exception { file: "crates/server/src/metrics.rs", why: "how long a request took, for the metrics only" },
];
const DICE: [&str; 10] = [
    "OsRng",
    "thread_rng",
    "rand::rng",
    "rand::random",
    "getrandom::fill",
    "SystemRandom",
    "aws_lc_rs::rand",
    "Uuid::new_v4",
    "Uuid::now_v7",
    "fastrand",
];
const MAY_THROW_DICE: [Exception; 1] = [Exception {
    file: "crates/crypto/src/random.rs",
    why: "key material, salts and tokens come from here alone",
}];

const MAY_SLEEP: [Exception; 5] = [
    Exception { file: "crates/scan/tests/mysql.rs", why: "looks again whether a real server is up" },
    Exception {
        file: "crates/store/tests/crash.rs",
        why: "kills another process at moments that must not depend on what that process has done",
    },
    Exception {
        file: "crates/store/tests/common/mod.rs",
        why: "looks again whether a real server has followed",
    },
    Exception { file: "crates/keymoat/tests/common/mod.rs", why: "looks again whether a process is there" },
    Exception { file: "testkit/cluster.rs", why: "looks again whether a real server is up" },
];
/// With these the clock of a test is simulated, and sleeping takes no time.
const PAUSED: [&str; 2] = ["start_paused = true", "time::pause()"];

const MAY_BE_UNSAFE: [Exception; 3] = [
    Exception {
        file: "crates/crypto/src/environ.rs",
        why: "overwriting a variable where it stands has no safe form",
    },
    Exception {
        file: "crates/crypto/src/allocator.rs",
        why: "a global allocator is an unsafe trait by definition",
    },
    Exception {
        file: "crates/crypto/src/locked.rs",
        why: "mmap, mlock, madvise and prctl have no safe form",
    },
];

const RECEIPT_MAKERS: [&str; 2] = ["for_permit", "for_system"];
const MAY_MAKE_RECEIPTS: [Exception; 2] = [
    Exception { file: "crates/vault/src/receipt.rs", why: "where they are defined" },
    Exception { file: "crates/vault/src/desk.rs", why: "has just seen the record become durable" },
];

const CONNECTING: [&str; 6] = [
    "TcpStream::connect",
    "TcpStream::connect_timeout",
    "TcpSocket::new_v4",
    "UnixStream::connect",
    "UdpSocket::bind",
    "lookup_host",
];
const MAY_CONNECT: [Exception; 6] = [
    Exception {
        file: "crates/scan/src/mysql.rs",
        why: "reads the database that the command line was told of",
    },
    Exception {
        file: "crates/keymoat/src/client.rs",
        why: "the command line speaks to the server it was told of",
    },
    Exception {
        file: "crates/keymoat/src/commands/scan/check/call.rs",
        why: "asks the provider of a key, with `--check`; the host is one that the provider's file lists",
    },
    Exception {
        file: "crates/keymoat/src/commands/audit.rs",
        why: "asks whether a server runs on the directory",
    },
    Exception {
        file: "crates/keymoat/src/commands/backup.rs",
        why: "asks whether a server runs on the directory",
    },
    Exception {
        file: "crates/keymoat/src/commands/doctor/machine.rs",
        why: "asks who listens on this machine",
    },
];
const RUNNING: [&str; 3] = ["Command::new", "libloading", "dlopen"];
const MAY_RUN_PROGRAMS: [Exception; 6] = [
    Exception {
        file: "crates/keymoat/src/commands/run.rs",
        why: "what its caller wants to start, as its caller",
    },
    Exception {
        file: "crates/keymoat/src/master_key.rs",
        why: "the operator's own command for the master key",
    },
    Exception {
        file: "crates/keymoat/src/commands/doctor/env_files.rs",
        why: "asks git whether it keeps a file",
    },
    Exception { file: "crates/keymoat/src/commands/selftest.rs", why: "itself, to be killed" },
    Exception { file: "crates/keymoat/src/commands/hook.rs", why: "asks git where its hooks are" },
    Exception { file: "crates/keymoat/src/commands/hook/push.rs", why: "asks git what is pushed" },
];

const UNFINISHED_MARKS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];

const MAY_WRITE_SQL: [&str; 3] = ["crates/store/", "crates/scan/", "crates/providers/"];
const SQL: [&str; 6] = ["SELECT ", "INSERT INTO", "DELETE FROM", "CREATE TABLE", "ALTER TABLE", "DROP TABLE"];

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules that a text breaks, with their lines, when it stands in `file`.
    fn broken(file: &str, text: &str) -> Vec<(&'static str, usize)> {
        let source = Source::parse(file, &format!("//! Why.\n{text}"));
        check(&source).into_iter().map(|violation| (violation.rule, violation.line - 1)).collect()
    }

    #[track_caller]
    fn refused(rule: &'static str, file: &str, text: &str, line: usize) {
        assert_eq!(broken(file, text), [(rule, line)], "{text}");
    }

    #[track_caller]
    fn fine(file: &str, text: &str) {
        assert_eq!(broken(file, text), [], "{text}");
    }

    const CORE: &str = "crates/core/src/a.rs";
    const BINARY: &str = "crates/keymoat/src/a.rs";

    #[test]
    fn only_the_binary_touches_the_outside() {
        for code in [
            "let a = std::env::var(\"A\");",
            "env::args_os();",
            "println!(\"\");",
            "eprint!(\"\")",
            "std::process::exit(1)",
            "write!(io::stdout(), \"\")",
        ] {
            refused("outside", CORE, code, 1);
            fine(BINARY, code);
            fine("crates/core/build.rs", code);
            fine(CORE, &format!("#[cfg(test)]\nmod tests {{ {code} }}"));
            fine("crates/core/tests/a.rs", code);
        }
        for code in ["env!(\"A\")", "// println!", "\"println!\"", "my_println!(1)", "env::consts::OS"] {
            fine(CORE, code);
        }
    }

    #[test]
    fn time_and_randomness_are_arguments() {
        for code in ["let now = Timestamp::now();", "std::time::SystemTime::now()"] {
            refused("time", CORE, code, 1);
            refused("time", CORE, &format!("#[cfg(test)]\nmod t {{\n{code}\n}}"), 3);
            fine("crates/keymoat/src/clock.rs", code);
        }
        refused("time", BINARY, "jiff::Zoned::now()", 1);
        refused("time", CORE, "Instant::now()", 1);
        fine("crates/store/src/writer.rs", "Instant::now()");
        fine(CORE, "#[cfg(test)]\nmod t { fn a() { Instant::now(); } }");
        fine(CORE, "clock.now()");
        refused("dice", CORE, "Uuid::new_v4()", 1);
        refused("dice", "crates/crypto/src/keys.rs", "aws_lc_rs::rand::fill(out)", 1);
        fine("crates/crypto/src/random.rs", "aws_lc_rs::rand::fill(out)");
    }

    #[test]
    fn tests_do_not_sleep_on_a_real_clock() {
        let code = "tokio::time::sleep(SECOND).await;";
        fine(CORE, code);
        refused("sleep", "crates/a/tests/b.rs", code, 1);
        fine("crates/store/tests/crash.rs", code);
        fine("benches/src/load.rs", code);
        fine("crates/a/tests/b.rs", &format!("#[tokio::test(start_paused = true)]\n{code}"));
    }

    #[test]
    fn unsafe_has_two_rooms_and_a_reason() {
        let locked = "crates/crypto/src/locked.rs";
        refused("unsafe", CORE, "// SAFETY: no.\nunsafe { a() }", 2);
        refused("unsafe", locked, "unsafe { a() }", 1);
        refused("unsafe", locked, "// SAFETY: of another statement.\nb();\nunsafe { a() }", 3);
        fine(locked, "// SAFETY: yes.\nlet x =\n  unsafe { a() };");
        fine(locked, "// SAFETY: yes.\nunsafe impl Send for A {}");
        fine(locked, "unsafe fn alloc(&self) {}");
        fine(CORE, "#![forbid(unsafe_code)]");
    }

    #[test]
    fn receipts_are_made_at_the_desk() {
        let code = "Receipt::for_permit(&permit, id, 1, 2)";
        refused("receipt", "crates/vault/src/jobs.rs", code, 1);
        refused("receipt", "crates/server/src/a.rs", "let make = Receipt::for_system;", 1);
        fine("crates/vault/src/desk.rs", code);
        fine("crates/vault/src/receipt.rs", "fn for_permit() {}");
    }

    #[test]
    fn every_exposure_says_why() {
        refused("expose", CORE, "a.expose(|a| b(a));", 1);
        refused("expose", CORE, "// EXPOSE: of the statement before.\na.expose(c);\na.expose(d);", 3);
        refused("expose", CORE, "// EXPOSE: too far.\n\na.expose(d);", 3);
        refused("expose", CORE, "// EXPOSE: of the function.\nfn a() {\n  a.expose(d);", 3);
        fine(CORE, "// EXPOSE: why.\n// More.\nlet x = a\n  .b()\n  .expose(|a| b(a));");
        fine(CORE, "a.expose(c) // EXPOSE: why.");
        fine(CORE, "fn expose(&self) {}");
        fine(CORE, "#[cfg(test)]\nmod t {\n a.expose(c);\n}");
    }

    #[test]
    fn nothing_unfinished_stays() {
        for (code, rule) in [
            (concat!("// TO", "DO: later"), "unfinished"),
            (concat!("/* FIX", "ME */"), "unfinished"),
            ("#[ignore = \"slow\"]", "unfinished"),
            ("a.unwrap();", "unwrap"),
        ] {
            refused(rule, CORE, code, 1);
        }
        for code in [
            "// todo lists are fine",
            "a.unwrap_or(1)",
            "\"x.unwrap()\"",
            "#[cfg(test)]\nmod t { a.unwrap() }",
        ] {
            fine(CORE, code);
        }
    }

    #[test]
    fn sql_stays_in_its_room() {
        for statement in ["SELECT a FROM b", "INSERT INTO a", "DELETE FROM a"] {
            let code = format!("run(\"{statement}\")");
            refused("sql", "crates/vault/src/a.rs", &code, 1);
            fine("crates/store/src/a.rs", &code);
            fine("crates/vault/tests/a.rs", &code);
        }
        fine("crates/vault/src/a.rs", "// SELECT a\nlet a = \"Select a file\";");
    }

    #[test]
    fn only_named_files_connect_or_start_programs() {
        for code in ["tokio::net::TcpStream::connect(a)", "UnixStream::connect(a)", "lookup_host(a)"] {
            refused("outbound", "crates/server/src/a.rs", code, 1);
            fine("crates/keymoat/src/client.rs", code);
            fine("crates/server/tests/a.rs", code);
        }
        refused("program", "crates/vault/src/a.rs", "Command::new(\"sh\")", 1);
        refused("program", BINARY, "libloading::Library::new(path)", 1);
        fine("crates/keymoat/src/commands/run.rs", "Command::new(program)");
        fine("crates/vault/src/a.rs", "a.connect(); MyCommand::new()");
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        for (text, expected) in [
            ("//! Why.\nuse a;", 0),
            ("\n\n//! Why.", 0),
            ("", 0),
            ("use a;", 1),
            ("// Why.", 1),
            ("#![x]\n//! Why.", 1),
        ] {
            let found = check(&Source::parse(CORE, text));
            assert_eq!(
                found.iter().filter(|violation| violation.rule == "purpose").count(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn long_files_are_warned_of() {
        let text = |lines: usize| Source::parse(CORE, &"\n".repeat(lines - 1));
        assert_eq!(too_long(&text(900)), None);
        assert_eq!(too_long(&text(901)).map(|violation| violation.rule), Some("length"));
    }
}
