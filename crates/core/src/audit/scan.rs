//! Reads a record in one pass, without making anything on the way: for whoever reads millions of them.
//!
//! It takes a part of what is canonical only: records whose texts need no escapes. What it takes, the long way
//! ([`Event::parse`]) takes too, and gives the same; what it does not take goes the long way. So it decides nothing,
//! and no check is left out.

use jiff::Timestamp;

use super::{
    ANONYMOUS, Action, Actor, AuditText, DetailValue, Details, Event, MAX_DETAILS, MAX_ROWS, MAX_TEXT_CHARS,
    Outcome, PrincipalKind, Reason, ReasonCode, RowChange, SYSTEM, SYSTEM_PREFIX, parse_decided_by, unhex,
};
use crate::names::{Company, DetailName, Field, PolicyName, ResourcePath, Scope, SystemPart};

/// A record whose bytes were found to be canonical, with its members where they stand.
pub(super) struct Parts<'a> {
    pub(super) seq: u64,
    pub(super) time: Timestamp,
    request: &'a str,
    actor: &'a str,
    actor_kind: &'a str,
    on_behalf_of: Option<&'a str>,
    module: Option<&'a str>,
    action: Action,
    scope: Option<&'a str>,
    company: Option<&'a str>,
    path: Option<&'a str>,
    field: Option<&'a str>,
    version: Option<u32>,
    result: Outcome,
    reason: Option<ReasonCode>,
    reason_text: Option<&'a str>,
    decided_by: Option<&'a str>,
    personal: Option<&'a str>,
    /// The facts up to the closing brace; empty when there are none.
    details: &'a str,
    /// The rows up to the closing bracket; empty when there are none.
    rows: &'a str,
}

impl<'a> Parts<'a> {
    /// Reads a record; none when it is not canonical, or needs the long way.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut scan = Scan(str::from_utf8(bytes).ok()?);
        scan.literal("{\"v\":1,\"seq\":")?;
        let seq = scan.number()?;
        scan.literal(",\"time\":\"")?;
        let time = scan.time()?;
        scan.literal("\",\"request\":\"")?;
        let request = scan.fixed(ID_BYTES).filter(|text| is_id(text))?;
        scan.literal(",\"actor\":\"")?;
        let actor = scan.actor()?;
        scan.literal(",\"actor_kind\":\"")?;
        let actor_kind = scan.text().filter(|kind| is_actor(actor, kind))?;
        let on_behalf_of = scan.optional(",\"on_behalf_of\":\"", is_audit_text)?;
        let module = scan.optional(",\"module\":\"", is_audit_text)?;
        scan.literal(",\"action\":\"")?;
        let action = scan.text()?.parse().ok()?;
        let scope = scan.optional(",\"scope\":\"", Scope::accepts)?;
        let company = scan.optional(",\"company\":\"", Company::accepts)?;
        let path = scan.optional(",\"path\":\"", ResourcePath::accepts)?;
        let field = scan.optional(",\"field\":\"", Field::accepts)?;
        let version = match scan.has(",\"version\":") {
            true => Some(u32::try_from(scan.number()?).ok()?),
            false => None,
        };
        scan.literal(",\"result\":\"")?;
        let result = scan.text()?.parse().ok()?;
        let (mut reason, mut reason_text) = (None, None);
        if scan.has(",\"reason\":\"") {
            reason = Some(scan.text()?.parse().ok()?);
            reason_text = scan.optional(",\"reason_text\":\"", is_audit_text)?;
        }
        let decided_by = scan.optional(",\"decided_by\":\"", is_decided_by)?;
        let personal = match scan.has(",\"personal\":\"") {
            true => Some(scan.fixed(64).filter(|text| is_hex(text, 64))?),
            false => None,
        };
        let details = scan.details()?;
        let rows = scan.rows()?;
        scan.literal("}")?;
        scan.0.is_empty().then_some(Self {
            seq,
            time,
            request,
            actor,
            actor_kind,
            on_behalf_of,
            module,
            action,
            scope,
            company,
            path,
            field,
            version,
            result,
            reason,
            reason_text,
            decided_by,
            personal,
            details,
            rows,
        })
    }

    /// The event.
    pub(super) fn event(self) -> Option<Event> {
        let text = |text: Option<&str>| text.map(|text| AuditText(text.into()));
        Some(Event {
            seq: self.seq,
            time: self.time,
            request: self.request.parse().ok()?,
            actor: Actor::from_parts(self.actor, self.actor_kind)?,
            on_behalf_of: text(self.on_behalf_of),
            module: text(self.module),
            action: self.action,
            scope: name(self.scope)?,
            company: name(self.company)?,
            path: name(self.path)?,
            field: name(self.field)?,
            version: self.version,
            result: self.result,
            reason: self.reason.map(|code| Reason { code, text: text(self.reason_text) }),
            decided_by: match self.decided_by {
                Some(text) => Some(parse_decided_by(text)?),
                None => None,
            },
            personal: match self.personal {
                Some(text) => Some(unhex(text)?),
                None => None,
            },
            details: details(self.details)?,
            rows: rows(self.rows)?,
        })
    }
}

/// What is still to be read.
struct Scan<'a>(&'a str);

impl<'a> Scan<'a> {
    fn has(&mut self, literal: &str) -> bool {
        match self.0.strip_prefix(literal) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        self.has(literal).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A text up to its closing quote, which is taken too; none when it has anything but printable ASCII, or an escape.
    fn text(&mut self) -> Option<&'a str> {
        let length = self.0.bytes().position(|b| !IS_PLAIN[usize::from(b)])?;
        let text = self.take(length)?;
        self.literal("\"")?;
        Some(text)
    }

    /// A text of so many bytes with its closing quote; what they are is for the caller to check.
    fn fixed(&mut self, length: usize) -> Option<&'a str> {
        let text = self.take(length)?;
        self.literal("\"")?;
        Some(text)
    }

    /// A member that may be left out, of which `is` must hold.
    fn optional(&mut self, start: &str, is: impl Fn(&str) -> bool) -> Option<Option<&'a str>> {
        if !self.has(start) {
            return Some(None);
        }
        self.text().filter(|text| is(text)).map(Some)
    }

    /// A whole number without needless zeros.
    fn number(&mut self) -> Option<u64> {
        let length = self.0.bytes().position(|b| !b.is_ascii_digit())?;
        let digits = self.take(length)?;
        if digits.starts_with('0') && digits.len() > 1 {
            return None;
        }
        digits.parse().ok()
    }

    /// A time of the years 1 to 9999, as `2026-11-22T07:45:08.120Z`.
    fn time(&mut self) -> Option<Timestamp> {
        let text: &[u8; 24] = self.take(24)?.as_bytes().try_into().ok()?;
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
        if marks.iter().any(|(at, mark)| text[*at] != *mark) {
            return None;
        }
        let number = |from: usize, to: usize| {
            text[from..to]
                .iter()
                .try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second, milli) =
            (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + i64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if year == 0 || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        Timestamp::from_millisecond(seconds * 1000 + milli).ok()
    }

    /// An identifier mostly, which has a length of its own.
    fn actor(&mut self) -> Option<&'a str> {
        match self.0.as_bytes().get(ID_BYTES) {
            Some(b'"') if is_id(self.0.get(..ID_BYTES)?) => self.fixed(ID_BYTES),
            _ => self.text(),
        }
    }

    /// The facts, whose names come in their order, up to the closing brace.
    fn details(&mut self) -> Option<&'a str> {
        if !self.has(",\"details\":{") {
            return Some("");
        }
        let (start, mut before, mut count) = (self.0, "", 0);
        loop {
            let (name, _) = self.detail()?;
            count += 1;
            if !DetailName::accepts(name) || name <= before || count > MAX_DETAILS {
                return None;
            }
            before = name;
            if self.has("}") {
                return start.get(..start.len() - self.0.len());
            }
            self.literal(",")?;
        }
    }

    fn detail(&mut self) -> Option<(&'a str, DetailValue)> {
        self.literal("\"")?;
        let name = self.text()?;
        self.literal(":")?;
        let value = match self.0.as_bytes().first()? {
            b'"' => {
                self.literal("\"")?;
                DetailValue::Text(AuditText(self.text().filter(|text| is_audit_text(text))?.into()))
            }
            b't' => {
                self.literal("true")?;
                DetailValue::Flag(true)
            }
            b'f' => {
                self.literal("false")?;
                DetailValue::Flag(false)
            }
            b'-' => {
                self.literal("-")?;
                let number = self.number().filter(|number| *number > 0)?;
                DetailValue::Number(0i64.checked_sub_unsigned(number)?)
            }
            _ => DetailValue::Number(self.number()?.try_into().ok()?),
        };
        Some((name, value))
    }

    /// The rows, up to the closing bracket.
    fn rows(&mut self) -> Option<&'a str> {
        if !self.has(",\"rows\":[") {
            return Some("");
        }
        let (start, mut count) = (self.0, 0);
        loop {
            self.row()?;
            count += 1;
            if count > MAX_ROWS {
                return None;
            }
            if self.has("]") {
                return start.get(..start.len() - self.0.len());
            }
            self.literal(",")?;
        }
    }

    fn row(&mut self) -> Option<(&'a str, &'a str, Option<&'a str>)> {
        self.literal("[\"")?;
        let kind = self.text()?;
        self.literal(",\"")?;
        let key = self.text()?;
        if self.has(",null]") {
            return Some((kind, key, None));
        }
        self.literal(",\"")?;
        let mac = self.fixed(32).filter(|mac| is_hex(mac, 32))?;
        self.literal("]")?;
        Some((kind, key, Some(mac)))
    }
}

fn name<N: std::str::FromStr>(text: Option<&str>) -> Option<Option<N>> {
    match text {
        Some(text) => text.parse().ok().map(Some),
        None => Some(None),
    }
}

fn details(text: &str) -> Option<Details> {
    let (mut scan, mut details) = (Scan(text), Details::new());
    while !matches!(scan.0, "" | "}") {
        let (name, value) = scan.detail()?;
        details.insert(name.parse().ok()?, value).ok()?;
        scan.has(",");
    }
    Some(details)
}

fn rows(text: &str) -> Option<Vec<RowChange>> {
    let (mut scan, mut rows) = (Scan(text), Vec::new());
    while !matches!(scan.0, "" | "]") {
        let (kind, key, mac) = scan.row()?;
        let mac = match mac {
            Some(mac) => Some(unhex(mac)?),
            None => None,
        };
        rows.push(RowChange { kind: kind.to_owned(), key: key.to_owned(), mac });
        scan.has(",");
    }
    Some(rows)
}

/// Whether a plain text is one that a record may hold as it is.
fn is_audit_text(text: &str) -> bool {
    text.len() <= MAX_TEXT_CHARS
}

fn is_actor(actor: &str, kind: &str) -> bool {
    if actor == ANONYMOUS {
        return kind == ANONYMOUS;
    }
    match actor.strip_prefix(SYSTEM_PREFIX) {
        Some(part) => kind == SYSTEM && SystemPart::accepts(part),
        None => is_id(actor) && kind.parse::<PrincipalKind>().is_ok(),
    }
}

fn is_decided_by(text: &str) -> bool {
    if let Some(part) = text.strip_prefix(SYSTEM_PREFIX) {
        return SystemPart::accepts(part);
    }
    let Some((place, number)) = text.split_once('#') else { return false };
    let is_number = number.bytes().all(|b| b.is_ascii_digit())
        && number.parse::<u32>().is_ok()
        && (number == "0" || !number.starts_with('0'));
    let is_place = match place.split_once(':') {
        Some(("policy", name)) => PolicyName::accepts(name),
        Some(("grant", id)) => is_id(id),
        _ => false,
    };
    is_number && is_place
}

/// Whether a text is an identifier in its one form.
fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |from: usize, to: usize| bytes[from..to].iter().all(|b| IS_HEX[usize::from(*b)]);
    bytes.len() == ID_BYTES
        && [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-')
        && is_hex(0, 8)
        && is_hex(9, 13)
        && is_hex(14, 18)
        && is_hex(19, 23)
        && is_hex(24, 36)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| IS_HEX[usize::from(b)])
}

/// The days from 1970-01-01 to a day of the Gregorian calendar, by the method of H. Hinnant ("days_from_civil").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The length of an identifier.
const ID_BYTES: usize = 36;
/// Printable ASCII without the quote and the backslash.
const IS_PLAIN: [bool; 256] = table(b' ', b'~', "\"\\");
const IS_HEX: [bool; 256] = {
    let (mut hex, letters) = (table(b'0', b'9', ""), table(b'a', b'f', ""));
    let mut at = 0;
    while at < 256 {
        hex[at] |= letters[at];
        at += 1;
    }
    hex
};

const fn table(first: u8, last: u8, but: &str) -> [bool; 256] {
    let mut is = [false; 256];
    let mut at = first as usize;
    while at <= last as usize {
        is[at] = true;
        at += 1;
    }
    let mut at = 0;
    while at < but.len() {
        is[but.as_bytes()[at] as usize] = false;
        at += 1;
    }
    is
}
