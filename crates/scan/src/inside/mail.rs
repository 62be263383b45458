//! Mail (RFC 5322, MIME) and mailboxes: headers, text parts decoded, and attachments, which may be anything.

use std::io::{self, BufRead, BufReader, Read};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Begun, Unpack};

impl Unpack<'_> {
    /// A message, or a part of one.
    pub(super) fn mail(&mut self, message: &[u8], nested: usize) -> io::Result<()> {
        let part = Part::read(message);
        let is_multipart = part.boundary.is_some() && nested < self.limits.depth;
        if !is_multipart && !part.is_encoded() {
            return self.plain(&mut &message[..]);
        }
        self.plain(&mut &part.head[..])?;
        let Some(boundary) = part.boundary.as_ref().filter(|_| is_multipart) else {
            let decoded = part.decoded();
            return self.member(part.name.as_deref().unwrap_or("body"), &mut decoded.as_slice());
        };
        for (number, bytes) in parts(part.body, boundary.as_bytes()).into_iter().enumerate() {
            let part = Part::read(bytes);
            let name = part.name.clone().unwrap_or_else(|| format!("part {}", number + 1));
            self.within(&name, |unpack| match part.boundary.is_some() || part.is_message {
                true => unpack.mail(if part.is_message { part.body } else { bytes }, nested + 1),
                false if part.is_encoded() => unpack.any(&name, &mut part.decoded().as_slice()),
                false => unpack.plain(&mut &bytes[..]),
            })?;
        }
        Ok(())
    }

    /// Messages one after the other, each in memory for itself.
    pub(super) fn mailbox(&mut self, stream: &mut Begun<'_>) -> io::Result<()> {
        let mut lines = BufReader::new(stream);
        let mut message = Vec::new();
        let mut number = 0;
        loop {
            let before = message.len();
            let most = (self.limits.memory - before) as u64;
            let read = (&mut lines).take(most).read_until(b'\n', &mut message)?;
            let is_next =
                read == 0 || (message[before..].starts_with(b"From ") && is_blank_before(&message[..before]));
            let is_full = message.len() >= self.limits.memory;
            if is_next && before > 0 {
                number += 1;
                let this = std::mem::take(&mut message);
                self.message(number, &this[..before])?;
                message = this[before..].to_vec();
            } else if is_full {
                self.trouble("has a message that is too large for a message; it was searched in pieces");
                self.plain(&mut message.as_slice())?;
                message.clear();
            }
            if read == 0 && (is_next || !is_full) {
                return Ok(());
            }
        }
    }

    fn message(&mut self, number: usize, message: &[u8]) -> io::Result<()> {
        let start = if message.starts_with(b"From ") {
            memchr::memchr(b'\n', message).map_or(0, |end| end + 1)
        } else {
            0
        };
        self.within(&format!("message {number}"), |unpack| unpack.mail(&message[start..], 0))
    }
}

/// Whether these are the first bytes of a mailbox: `From ADDRESS DATE`, and a header behind it.
pub(super) fn is_mailbox(head: &[u8]) -> bool {
    let Some(rest) = head.strip_prefix(b"From ") else { return false };
    let line = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    is_mail(rest.get(line + 1..).unwrap_or_default())
}

/// Whether these are the first bytes of a message: headers, and some that only mail has.
pub(super) fn is_mail(head: &[u8]) -> bool {
    let first_line = &head[..memchr::memchr(b'\n', head).unwrap_or(0)];
    let Some(colon) = memchr::memchr(b':', first_line) else { return false };
    let is_name = |name: &[u8]| {
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    if !is_name(&first_line[..colon]) {
        return false;
    }
    let lower = head[..head.len().min(4096)].to_ascii_lowercase();
    let has = |name: &str| {
        lower.starts_with(&name.as_bytes()[1..]) || memchr::memmem::find(&lower, name.as_bytes()).is_some()
    };
    let of_mail =
        ["\nreceived:", "\nmessage-id:", "\nmime-version:", "\nreturn-path:"].iter().any(|name| has(name));
    of_mail && has("\nfrom:") && (has("\ndate:") || has("\nsubject:"))
}

fn is_blank_before(message: &[u8]) -> bool {
    message.ends_with(b"\n\n") || message.ends_with(b"\n\r\n")
}

/// A message or one part of it.
struct Part<'m> {
    head: &'m [u8],
    body: &'m [u8],
    boundary: Option<String>,
    encoding: Transfer,
    name: Option<String>,
    is_message: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transfer {
    AsIs,
    Base64,
    Quoted,
}

impl<'m> Part<'m> {
    fn read(message: &'m [u8]) -> Self {
        let (head, body) = split(message);
        let header = |name: &str| value_of(head, name);
        let content = header("content-type").unwrap_or_default();
        let disposition = header("content-disposition").unwrap_or_default();
        let encoding = header("content-transfer-encoding").unwrap_or_default().trim().to_ascii_lowercase();
        let is = |kind: &str| content.trim_start().to_ascii_lowercase().starts_with(kind);
        Self {
            head,
            body,
            boundary: is("multipart/").then(|| parameter(&content, "boundary")).flatten(),
            encoding: match encoding.as_str() {
                "base64" => Transfer::Base64,
                "quoted-printable" => Transfer::Quoted,
                _ => Transfer::AsIs,
            },
            name: parameter(&disposition, "filename").or_else(|| parameter(&content, "name")),
            is_message: is("message/rfc822"),
        }
    }

    fn is_encoded(&self) -> bool {
        self.encoding != Transfer::AsIs
    }

    fn decoded(&self) -> Vec<u8> {
        match self.encoding {
            Transfer::AsIs => self.body.to_vec(),
            Transfer::Base64 => from_base64(self.body),
            Transfer::Quoted => from_quoted(self.body),
        }
    }
}

fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let plain = memchr::memmem::find(message, b"\n\n").map(|at| (at + 1, at + 2));
    let with_returns = memchr::memmem::find(message, b"\r\n\r\n").map(|at| (at + 2, at + 4));
    let first = [plain, with_returns].into_iter().flatten().min();
    first.map_or((message, &[]), |(head, body)| (&message[..head], &message[body..]))
}

/// The value of a header, with its folded lines as one.
fn value_of(head: &[u8], name: &str) -> Option<String> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let is_it = |line: &&[u8]| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
            && line.get(name.len()) == Some(&b':')
    };
    let mut value = String::from_utf8_lossy(&lines.by_ref().find(is_it)?[name.len() + 1..]).into_owned();
    for line in lines.take_while(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
        value.push_str(&String::from_utf8_lossy(line));
    }
    Some(value.replace('\r', " "))
}

/// A parameter of a header: `; name=value` or `; name="value"`.
fn parameter(value: &str, name: &str) -> Option<String> {
    let lower = value.to_ascii_lowercase();
    let start = lower.match_indices(name).find(|(at, _)| {
        let before = lower[..*at].trim_end().ends_with(';');
        before && lower[at + name.len()..].trim_start().starts_with('=')
    })?;
    let value = value.get(start.0 + name.len()..)?.trim_start().strip_prefix('=')?.trim_start();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => value.split([';', ' ', '\t']).next()?,
    };
    (!value.is_empty()).then(|| value.to_owned())
}

/// What stands between the lines with the boundary.
fn parts<'m>(body: &'m [u8], boundary: &[u8]) -> Vec<&'m [u8]> {
    let mark = [b"--", boundary].concat();
    let marks: Vec<usize> = memchr::memmem::find_iter(body, &mark)
        .filter(|at| *at == 0 || body[at - 1] == b'\n')
        .take(MOST_PARTS)
        .collect();
    let ends = marks.iter().skip(1).copied().chain([body.len()]);
    let between = marks.iter().zip(ends).map(|(start, end)| &body[start + mark.len()..end]);
    between
        .filter(|part| !part.starts_with(b"--"))
        .filter_map(|part| memchr::memchr(b'\n', part).map(|line| &part[line + 1..]))
        .collect()
}

fn from_base64(body: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        .collect();
    let whole = if digits.len() % 4 == 1 { &digits[..digits.len() - 1] } else { &digits[..] };
    LENIENT.decode(whole).unwrap_or_default()
}

fn from_quoted(body: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'=', [b'\n', after @ ..] | [b'\r', b'\n', after @ ..]) => after,
            (b'=', [high, low, after @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                decoded.push(digit(*high).unwrap_or_default() << 4 | digit(*low).unwrap_or_default());
                after
            }
            _ => {
                decoded.push(first);
                after
            }
        };
    }
    decoded
}

/// Mail programs differ in padding and in the bits that are left over.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// No mail has more.
const MOST_PARTS: usize = 10_000;
