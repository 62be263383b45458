//! Passwords that people choose: told by the name before them, since their shape says nothing.
//!
//! Programs are full of names that say "password", so what stands behind is a password only when it is written out as a
//! value and is no word, reference, call, label or selector.

use std::ops::Range;

use super::names::{Says, what_a_name_says};
use super::rule::Generic;
use super::{Engine, Hit, MAX_GENERIC_VALUE, named, random};
use crate::identify::Certainty;
use crate::provider::Kind;
use crate::shape;
use crate::variable::Strength;

/// The value behind a name that has a literal in it.
pub(super) fn by_name(engine: &Engine, text: &[u8], literal: Range<usize>) -> Option<Hit> {
    let name = name_around(text, &literal)?;
    let Says::Secret(strength) = what_a_name_says(&text[name.clone()]) else { return None };
    let value = Value::behind(text, &name)?;
    let bytes = &text[value.span.clone()];
    if bytes.is_empty()
        || bytes.len() > MAX_VALUE_LEN
        || is_reference(bytes)
        || shape::is_placeholder_for_secret(bytes)
    {
        return None;
    }
    if strength != Strength::Password && !is_master(&text[name.clone()]) {
        match named::by_variable(engine, text, &text[name.clone()], value.span.start) {
            Some(named::Verdict::Is(hit)) => return Some(hit),
            Some(named::Verdict::NoSecret(_)) => return None,
            None => {}
        }
    }
    let rule = rule_of(engine, text, &name, strength, &value)?;
    Some(Hit::plain(rule, value.span, Certainty::Context))
}

/// `$2y$10$…`, as `htpasswd`, `/etc/shadow` and user tables have it.
pub(super) fn hash(engine: &Engine, text: &[u8], literal: Range<usize>) -> Option<Hit> {
    let begins = literal.start.checked_sub(1).is_none_or(|at| !text[at].is_ascii_alphanumeric());
    let rest = &text[literal.start..text.len().min(literal.start + MAX_GENERIC_VALUE)];
    let len = rest
        .iter()
        .position(|&byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'$' | b'.' | b'/' | b'=')))
        .unwrap_or(rest.len());
    let last = rest[..len].rsplit(|&byte| byte == b'$').next()?;
    let is_one = begins
        && last.len() >= MIN_HASH
        && !shape::is_placeholder_for_secret(last)
        && crate::entropy::entropy(last) > 3.5;
    let rule = engine.rules.generic(Generic::PasswordHash);
    is_one.then(|| Hit::plain(rule, literal.start..literal.start + len, Certainty::Shape))
}

/// `curl -u user:password`.
pub(super) fn on_a_command_line(engine: &Engine, text: &[u8], literal: Range<usize>) -> Option<Hit> {
    let command = &text[literal.end..text.len().min(literal.end + MAX_COMMAND)];
    let option = |option: &[u8]| {
        command.windows(option.len()).position(|part| part == option).map(|at| at + option.len())
    };
    let mut at = literal.end + option(b"-u ").or_else(|| option(b"--user "))?;
    at += text[at..].iter().take(MAX_TIE).take_while(|&&byte| byte == b' ').count();
    let quote = text.get(at).copied().filter(|&byte| is_quote(byte));
    at += usize::from(quote.is_some());
    let rest = &text[at..text.len().min(at + MAX_VALUE_LEN)];
    let ends =
        |&byte: &u8| byte < b' ' || quote.map_or(byte == b' ' || is_quote(byte), |quote| byte == quote);
    let login = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
    let colon = login.iter().position(|&byte| byte == b':')?;
    let (user, mut password) = (&login[..colon], &login[colon + 1..]);
    let mut start = at + colon + 1;
    // `-u user:'password'`: quotes around a part.
    if password.is_empty() && quote.is_none() && rest.get(colon + 1).copied().is_some_and(is_quote) {
        let inner = &rest[colon + 2..];
        password = &inner[..inner.iter().position(|&byte| byte == rest[colon + 1] || byte < b' ')?];
        start += 1;
    }
    // A key is also given as the user, with nothing for the password.
    let (secret, start) = if password.is_empty() { (user, at) } else { (password, start) };
    let is_one = secret.len() >= MIN_PASSWORD
        && !is_reference(secret)
        && !is_reference(user)
        && !shape::is_placeholder_for_secret(secret)
        && !shape::is_stock_secret(secret)
        && (password.is_empty() && random::is_random(secret)
            || !password.is_empty() && !is_named_as_one(secret));
    let rule = engine.rules.generic(Generic::Authorization);
    is_one.then(|| Hit::plain(rule, start..start + secret.len(), Certainty::Context))
}

/// `new NetworkCredential("user", "password")`.
pub(super) fn in_a_constructor(engine: &Engine, text: &[u8], literal: Range<usize>) -> Option<Hit> {
    let rest = &text[literal.end..text.len().min(literal.end + MAX_VALUE_LEN)];
    let mut quotes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'"').map(|(at, _)| at);
    let (first, second, third, fourth) = (quotes.next()?, quotes.next()?, quotes.next()?, quotes.next()?);
    let between = rest[second + 1..third].trim_ascii();
    let value = &rest[third + 1..fourth];
    let is_one =
        first == 0 && between == b"," && is_chosen(value, true) && !shape::is_placeholder_for_secret(value);
    let start = literal.end + third + 1;
    let rule = engine.rules.generic(Generic::NamedPassword);
    is_one.then(|| Hit::plain(rule, start..start + value.len(), Certainty::Context))
}

/// What a value behind a name is, if it is anything.
fn rule_of(
    engine: &Engine,
    text: &[u8],
    name: &Range<usize>,
    strength: Strength,
    value: &Value,
) -> Option<super::RuleId> {
    let bytes = &text[value.span.clone()];
    let name_text = &text[name.clone()];
    let is_written = value.quote.is_some() || value.is_of_a_file(text, name);
    if is_master(name_text) {
        let is_one = if strength == Strength::Password {
            is_written && bytes.len() >= MIN_MASTER && !shape::is_stock_secret(bytes)
        } else {
            value.quote.is_some()
                && bytes.len() >= MIN_KEY
                && crate::entropy::entropy(bytes) >= 3.5
                && !bytes.contains(&b' ')
        };
        return is_one.then(|| engine.rules.generic(Generic::MasterSecret));
    }
    if strength != Strength::Password {
        let is_tied = value.operator != Tie::Space || is_option(text, name);
        let is_one = is_tied && random::is_random(bytes) && !is_code(bytes, value);
        return is_one.then(|| named::secret_named(engine, name_text));
    }
    if value.operator == Tie::Assigns && is_in_connection_string(text, name) {
        let is_one = bytes.len() >= MIN_MASTER && !shape::is_stock_secret(bytes) && !is_code(bytes, value);
        return is_one.then(|| engine.rules.generic(Generic::ConnectionString));
    }
    if value.operator == Tie::Space {
        let is_login = is_in_login_file(text, name);
        let is_one = is_chosen(bytes, false) && (is_login || is_option(text, name));
        let generic = if is_login { Generic::LoginFile } else { Generic::NamedPassword };
        return is_one.then(|| engine.rules.generic(generic));
    }
    if is_written && is_django_hash(bytes) {
        return Some(engine.rules.generic(Generic::PasswordHash));
    }
    let is_setting =
        value.quote.is_none() && !value.is_spaced && is_upper(name_text) && is_word_of_its_own(bytes);
    if !is_written || is_code(bytes, value) || !(is_setting || is_chosen(bytes, value.quote.is_some())) {
        return None;
    }
    let own = engine.mentions().by_variable(name_text).iter().map(|(_, rule)| *rule).find(|&rule| {
        engine.rules.key(rule).is_some_and(|(_, key)| key.kind == Kind::Password && key.matches(bytes))
    });
    Some(own.unwrap_or_else(|| engine.rules.generic(Generic::NamedPassword)))
}

/// A value and how it is tied to its name.
struct Value {
    span: Range<usize>,
    quote: Option<u8>,
    operator: Tie,
    /// What follows the value.
    after: u8,
    /// Spaces around the operator.
    is_spaced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tie {
    Assigns,
    Comma,
    Tag,
    Space,
}

impl Value {
    /// Reads what follows a name.
    fn behind(text: &[u8], name: &Range<usize>) -> Option<Self> {
        let limit = text.len().min(name.end + MAX_TIE);
        let byte = |at: usize| if at < limit { text[at] } else { b'\n' };
        let mut at = name.end;
        let mut spaces = 0;
        while matches!(byte(at), b'"' | b'\'' | b'`' | b']' | b')' | b'\\' | b' ' | b'\t') {
            spaces += usize::from(matches!(byte(at), b' ' | b'\t'));
            at += 1;
        }
        // The attribute of a tag: `key="password" value="…"`.
        if text[at..limit].starts_with(b"value") {
            at += 5;
            while byte(at) == b' ' {
                at += 1;
            }
        }
        let sign = at;
        while matches!(byte(at), b'=' | b':' | b'>' | b',' | b'?' | b'.' | b'|') {
            at += 1;
        }
        let sign = &text[sign..at];
        let operator = match sign {
            b"=" | b":" | b"=>" | b":=" | b"::=" | b":::=" | b"?=" | b".=" => Tie::Assigns,
            b"," => Tie::Comma,
            b">" => Tie::Tag,
            b"" if spaces > 0 => Tie::Space,
            _ => return None,
        };
        let mut is_spaced = spaces > 0;
        while matches!(byte(at), b' ' | b'\t') {
            is_spaced = true;
            at += 1;
        }
        // A type between name and value: `password: str = "…"`, `password string = "…"`.
        let word = text[at..limit].iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or_default();
        if TYPES.contains(&&text[at..at + word]) && byte(at + word) == b' ' {
            let mut next = at + word;
            while matches!(byte(next), b' ' | b'=' | b':') {
                next += 1;
            }
            at = next;
        }
        if operator == Tie::Tag {
            while matches!(byte(at), b'\n' | b'\r' | b' ' | b'\t') && at < limit {
                at += 1;
            }
        }
        if matches!(byte(at), b'b' | b'r' | b'u' | b'f' | b'@' | b'N') && is_quote(byte(at + 1)) {
            at += 1;
        }
        at += usize::from(byte(at) == b'\\' && is_quote(byte(at + 1)));
        let quote = Some(byte(at)).filter(|&byte| is_quote(byte));
        at += usize::from(quote.is_some());
        let rest = &text[at..text.len().min(at + MAX_VALUE_LEN + 1)];
        let is_query = name.start.checked_sub(1).is_some_and(|at| matches!(text[at], b'?' | b'&'));
        let ends = |&byte: &u8| match quote {
            Some(quote) => byte == quote || byte == b'\\' || byte < b' ',
            None if is_query && matches!(byte, b'&' | b'#') => true,
            None => matches!(byte, b' ' | b'"' | b'\'' | b'`' | b',' | b';' | b'<' | b'\\') || byte < b' ',
        };
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        let after = rest.get(len).copied().unwrap_or(b'\n');
        // A string that does not end on its line is not a value.
        if quote.is_some() && after != b'\\' && Some(after) != quote {
            return None;
        }
        Some(Self { span: at..at + len, quote, operator, after, is_spaced })
    }

    /// Whether a value without quotes is one, as files of settings have it: `NAME=value` or `name: value`.
    fn is_of_a_file(&self, text: &[u8], name: &Range<usize>) -> bool {
        let line = text[..name.start].iter().rev().take(MAX_INDENT).position(|&byte| byte == b'\n');
        let begin = line.map_or(name.start.saturating_sub(MAX_INDENT), |back| name.start - back);
        let lead = text[begin..name.start].trim_ascii();
        let is_at_begin = lead.is_empty()
            || matches!(lead, b"export" | b"-" | b"#" | b"//" | b"ENV" | b"set" | b"+" | b";");
        let is_at_end = matches!(self.after, b'\n' | b'\r' | b' ' | b'\\' | b'<');
        self.operator == Tie::Tag
            || (is_at_begin && is_at_end)
            || (!self.is_spaced && self.operator == Tie::Assigns)
    }
}

/// Whether a value is what Django keeps of a password: algorithm, salt and hash, as `pbkdf2_sha256$600000$…$…`
/// (<https://docs.djangoproject.com/en/stable/topics/auth/passwords/>).
fn is_django_hash(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b'$');
    parts.next().is_some_and(|algorithm| DJANGO_HASHES.contains(&algorithm))
        && parts.next_back().is_some_and(|hash| hash.len() >= MIN_HASH)
}

/// Whether a value looks chosen as a password and not written as a word, a label or a name.
fn is_chosen(value: &[u8], is_quoted: bool) -> bool {
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = value.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let symbols = value.iter().filter(|byte| b"!@#$%^&*+=~?".contains(byte)).count();
    let first = value.first().copied().unwrap_or_default();
    let is_text = value.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'(' | b'[' | b'{' | b'<' | b'>'));
    let is_place = matches!(first, b'/' | b'.' | b'-' | b':' | b'?' | b'&')
        || value.ends_with(b":")
        || value.contains(&b'/');
    let is_selector = first == b'#' && digits == 0;
    let is_plain = std::str::from_utf8(value).map_or(true, shape::is_plain);
    (MIN_PASSWORD..=MAX_PASSWORD).contains(&value.len())
        && letters > 0
        && (digits > 0 || symbols > usize::from(is_quoted && first == b'@') && value.len() >= MIN_WORD)
        && !is_text
        && !is_place
        && !is_selector
        && !is_plain
        && !is_named_as_one(value)
        && !is_stock_with_number(value)
}

/// Whether a word that stands as a setting, `SMTP_PASSWORD=…`, is not one of those that everybody takes.
fn is_word_of_its_own(value: &[u8]) -> bool {
    value.len() >= MIN_WORD
        && value.iter().all(u8::is_ascii_alphanumeric)
        && !is_named_as_one(value)
        && !is_stock_with_number(value)
}

/// Whether a name is written as those of environment variables.
fn is_upper(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_')
}

/// Whether a value is itself such a name: `old_password1`, `passwordField2`.
fn is_named_as_one(value: &[u8]) -> bool {
    let lower = value.to_ascii_lowercase();
    NAMES_IN_VALUES.iter().any(|word| lower.windows(word.len()).any(|piece| piece == *word))
}

/// `test123`, `admin1`: words that every test has, with a number.
fn is_stock_with_number(value: &[u8]) -> bool {
    let word: Vec<u8> =
        value.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase).collect();
    STOCK.contains(&&*word)
}

/// Whether a value without quotes is something that a program computes.
fn is_code(value: &[u8], parsed: &Value) -> bool {
    if parsed.quote.is_some() {
        return false;
    }
    let is_path = value.split(|&byte| byte == b'.').filter(|piece| !piece.is_empty()).count() > 1
        && value.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
    is_path || value.iter().any(|byte| matches!(byte, b'(' | b'[' | b'{' | b')' | b']' | b'}'))
}

/// Whether a value stands for another one: `${NAME}`, `$NAME`, `{{ name }}`, `%NAME%`, `<name>`, `#{name}`.
pub(super) fn is_reference(value: &[u8]) -> bool {
    let has =
        |pieces: &[&[u8]]| pieces.iter().any(|piece| value.windows(piece.len()).any(|part| part == *piece));
    let first = value.first().copied().unwrap_or_default();
    let last = value.last().copied().unwrap_or_default();
    has(&[
        b"${", b"{{", b"$(", b"<%", b"#{", b"%(", b"&lt;", b"env.", b"ENV[", b"environ", b"getenv", b"%s",
        b"{0}",
    ]) || first == b'$'
        || (first == b'%' && last == b'%')
        || (first == b'<' && last == b'>')
        || (first == b'{' && last == b'}')
        || (first == b'[' && last == b']')
        || (first == b'@' && last == b'@')
}

/// The name that a literal is part of.
fn name_around(text: &[u8], literal: &Range<usize>) -> Option<Range<usize>> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let floor = literal.start.saturating_sub(MAX_NAME);
    let start = (floor..literal.start).rev().find(|&at| !is_name(text[at])).map_or(floor, |at| at + 1);
    let limit = text.len().min(literal.start + MAX_NAME);
    let end = (literal.start..limit).find(|&at| !is_name(text[at]))?;
    // Options begin with dashes, sentences end with dots.
    let start = (start..end).find(|&at| text[at].is_ascii_alphanumeric())?;
    Some(start..end)
}

/// Whether the same line has the other parts of a connection string before the password, or right behind it.
fn is_in_connection_string(text: &[u8], name: &Range<usize>) -> bool {
    let before = &text[name.start.saturating_sub(MAX_CONNECTION)..name.start];
    let before = before.iter().rposition(|&byte| byte == b'\n').map_or(before, |at| &before[at + 1..]);
    if !before.trim_ascii_end().ends_with(b";") {
        return false;
    }
    let lower = before.to_ascii_lowercase();
    let has = |piece: &[u8]| lower.windows(piece.len()).any(|part| part == piece);
    [
        &b"server="[..],
        b"data source=",
        b"host=",
        b"database=",
        b"initial catalog=",
        b"uid=",
        b"user id=",
        b"user=",
        b"username=",
        b"driver=",
    ]
    .iter()
    .any(|part| has(part))
}

/// Whether the words of `.netrc` stand before: `machine`, `login`.
fn is_in_login_file(text: &[u8], name: &Range<usize>) -> bool {
    let before = &text[name.start.saturating_sub(MAX_CONNECTION)..name.start];
    let has = |piece: &[u8]| before.windows(piece.len()).any(|part| part == piece);
    has(b"login ") && has(b"machine ")
}

/// Whether a name is an option of a command: `-Password`, `--password`.
fn is_option(text: &[u8], name: &Range<usize>) -> bool {
    name.start.checked_sub(2).is_some_and(|at| text[at + 1] == b'-' && matches!(text[at], b'-' | b' '))
}

/// Names of secrets on which a whole application hangs: Django's `SECRET_KEY`, Odoo's `admin_passwd`.
fn is_master(name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b'.').next().unwrap_or(name);
    MASTERS.iter().any(|master| master.as_bytes() == last)
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

const MASTERS: &[&str] =
    &["SECRET_KEY", "DJANGO_SECRET_KEY", "admin_passwd", "db_password", "ODOO_ADMIN_PASSWD"];

const TYPES: &[&[u8]] = &[b"str", b"string", b"String", b"text", b"char", b"varchar"];

const NAMES_IN_VALUES: &[&[u8]] =
    &[b"password", b"passwd", b"passphrase", b"pwd", b"secret", b"token", b"login", b"username"];

const DJANGO_HASHES: &[&[u8]] =
    &[b"pbkdf2_sha256", b"pbkdf2_sha1", b"argon2", b"bcrypt_sha256", b"bcrypt", b"scrypt", b"sha1", b"md5"];

/// What tests and tutorials take.
const STOCK: &[&[u8]] = &[
    b"test",
    b"testing",
    b"tester",
    b"admin",
    b"pass",
    b"user",
    b"foo",
    b"bar",
    b"foobar",
    b"baz",
    b"demo",
    b"abc",
    b"abcd",
    b"qwerty",
    b"hello",
    b"root",
    b"guest",
    b"welcome",
    b"letmein",
    b"changeme",
    b"postgres",
    b"mysql",
    b"odoo",
    b"x",
    b"xxx",
    b"a",
    b"pw",
    b"new",
    b"old",
    b"some",
    b"my",
    b"example",
    b"value",
    b"string",
    b"none",
    b"utf",
];

/// Shorter ones are examples more often than passwords.
const MIN_PASSWORD: usize = 6;

/// Longer ones are keys.
const MAX_PASSWORD: usize = 64;

/// A password of letters and symbols alone.
const MIN_WORD: usize = 8;

const MIN_MASTER: usize = 4;

/// Django makes keys of 50 characters.
const MIN_KEY: usize = 24;

/// Salt and hash of the shortest form, `$apr1$`, are 8 and 22 characters.
const MIN_HASH: usize = 22;

const MAX_VALUE_LEN: usize = 256;

/// Between a name and its value: quotes, spaces, an operator, a type.
const MAX_TIE: usize = 96;

const MAX_NAME: usize = 64;

const MAX_INDENT: usize = 64;

const MAX_COMMAND: usize = 256;

const MAX_CONNECTION: usize = 256;
