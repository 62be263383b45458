//! Addresses: keys whose prefix is one (`https://hooks.…`), and addresses with a user and a password.

use std::ops::Range;

use super::rule::Generic;
use super::{Candidate, Engine, Hit, MAX_GENERIC_VALUE, passwords, tokens};
use crate::identify::Certainty;
use crate::shape;

/// What stands around the `://` of an address.
pub(super) fn find(engine: &Engine, text: &[u8], middle: Range<usize>) -> Option<Candidate> {
    let start = start_of_scheme(text, middle.start)?;
    let end = end_of_url(text, middle.end);
    let known = engine
        .prefixes
        .may_be_address(&text[start..end])
        .then(|| tokens::by_prefix(engine, &text[..end], start));
    let known = known.flatten().or_else(|| behind_a_name(engine, &text[..end], start));
    let whole = known.or_else(|| engine.addresses.find(&engine.rules, &text[..end], start));
    let authority = &text[middle.end..end];
    let authority = authority
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .map_or(authority, |at| &authority[..at]);
    let Some(host) = authority.iter().rposition(|&byte| byte == b'@') else { return whole };
    let (login, host) = (&authority[..host], &authority[host + 1..]);
    let Some(colon) = login.iter().position(|&byte| byte == b':') else { return whole };
    let (user, password) = (&login[..colon], &login[colon + 1..]);
    // A key in the place of the password says more than the address does.
    if let Some(found) = tokens::by_prefix(engine, &text[..end], middle.end + colon + 1) {
        return Some(found);
    }
    // A pattern does not know what stands for a password that is not there.
    let is_absent = passwords::is_reference(password)
        || passwords::is_reference(user)
        || shape::is_placeholder_for_secret(password)
        || is_default(user, password, host);
    if is_absent || whole.is_some() {
        return whole.filter(|_| !is_absent);
    }
    let is_one = password.len() >= MIN_PASSWORD
        && host.iter().any(u8::is_ascii_alphanumeric)
        && !passwords::is_reference(host)
        && !shape::is_stock_secret(password)
        && !password.iter().any(|byte| matches!(byte, b'$' | b'{' | b'}' | b'(' | b'|' | b'[' | b','));
    let value = start..middle.end + login.len() + 1 + host.len();
    let hit = Hit::plain(engine.rules.generic(Generic::UrlPassword), value, Certainty::Shape);
    is_one.then_some(Candidate::Key(hit))
}

/// Whether a password is one that nobody chose: a character again and again, or the user's name on the own machine.
fn is_default(user: &[u8], password: &[u8], host: &[u8]) -> bool {
    let name = host.split(|&byte| byte == b':').next().unwrap_or(host);
    let is_local = !name.contains(&b'.') || name == b"127.0.0.1";
    password.windows(2).all(|pair| pair[0] == pair[1]) || (user == password && is_local)
}

/// A key that begins with the name before an address: `Endpoint=https://…;Id=…;Secret=…`.
fn behind_a_name(engine: &Engine, text: &[u8], address: usize) -> Option<Candidate> {
    let name = address.checked_sub(1).filter(|&at| text[at] == b'=')?;
    let floor = name.saturating_sub(MAX_SCHEME);
    let start = (floor..name).rev().find(|&at| !text[at].is_ascii_alphabetic()).map_or(floor, |at| at + 1);
    engine.prefixes.may_begin(&text[start..]).then(|| tokens::by_prefix(engine, text, start)).flatten()
}

fn start_of_scheme(text: &[u8], end: usize) -> Option<usize> {
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let floor = end.saturating_sub(MAX_SCHEME);
    let start = (floor..end).rev().find(|&at| !is_scheme(text[at])).map_or(floor, |at| at + 1);
    // `\nhttps://…` in a string, `jdbc:` and a digit before are no part of it.
    let escaped = start > 0 && text[start - 1] == b'\\' && matches!(text[start], b'n' | b'r' | b't');
    let start = start + usize::from(escaped);
    (start..end).find(|&at| text[at].is_ascii_alphabetic())
}

/// Where an address ends in prose, code and markup.
fn end_of_url(text: &[u8], from: usize) -> usize {
    let limit = text.len().min(from + MAX_GENERIC_VALUE);
    let ends =
        |byte: u8| byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\');
    let mut end = (from..limit).find(|&at| ends(text[at])).unwrap_or(limit);
    while end > from && matches!(text[end - 1], b'.' | b',' | b';' | b':' | b')' | b']' | b'}' | b'!') {
        end -= 1;
    }
    end
}

/// Shorter ones are examples.
const MIN_PASSWORD: usize = 4;

pub(super) const MAX_SCHEME: usize = 24;
