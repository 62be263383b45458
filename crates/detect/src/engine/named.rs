//! Values that their shape alone does not tell: keys of providers that need a context, and random values that a name
//! calls secret.

use std::ops::Range;

use super::mentions::{Mention, WINDOW};
use super::names::{Before, Operator, Says, what_a_name_says, words_of};
use super::random;
use super::reach;
use super::rule::Generic;
use super::tokens::is_reported;
use super::{Candidate, Engine, Hit, MAX_GENERIC_VALUE, MAX_VALUE, RuleId};
use crate::identify::Certainty;
use crate::provider::{Judgement, Kind};
use crate::shape;
use crate::variable::Strength;

/// What stands at `run`, if a name says so. `run` is a whole run of characters that keys are made of.
pub(super) fn find(engine: &Engine, text: &[u8], run: &Range<usize>) -> Option<Candidate> {
    let at = begin_of_value(text, run);
    let before = Before::read(text, at, 0);
    if before.operator == Operator::Nothing && !before.scheme {
        return None;
    }
    let (says, name) = before.says();
    let variable = if name.is_empty() { before.last_name() } else { &text[name.clone()] };
    if let Some(verdict) = by_variable(engine, text, variable, at) {
        return Some(verdict.candidate());
    }
    let is_secret = matches!(says, Says::Secret(_)) || before.scheme;
    // The path of an address names what it likes.
    if text[run.clone()].starts_with(b"//") && at.checked_sub(1).is_some_and(|at| text[at] == b':') {
        return None;
    }
    let holds_a_word = holds_a_word(&text[run.clone()]);
    if !is_secret && !holds_a_word && is_one_of_many(text, at) {
        return None;
    }
    let value = at..end_of_value(text, at, before.quote);
    let is_value = || {
        value.len() <= MAX_VALUE && random::is_random(&text[value.clone()]) && !is_code(text, &value, &before)
    };
    // What says no most often is asked first: of what a name calls secret most is not random, and what no name calls so
    // is mostly like no key of anybody who is named near it.
    if is_secret && !is_value() {
        return None;
    }
    let near = Near::of(engine, text, at, &before, &name);
    let verdict = by_provider(engine, text, at, &before, says, &near);
    if !is_secret && ((verdict.is_none() && !holds_a_word) || !is_value()) {
        return None;
    }
    if let Some(verdict) = verdict {
        return Some(verdict.candidate());
    }
    by_name(engine, text, value, &before, says, &near)
        .or_else(|| behind_a_word(engine, text, run))
        .map(Candidate::Key)
}

/// Whether a value is a UUID: what has a number of its own is not only keys.
fn is_one_of_many(text: &[u8], at: usize) -> bool {
    text.get(at..at + UUID_LEN).is_some_and(random::is_uuid)
}

/// The key that the name of a value stands for exactly.
pub(super) fn by_variable(engine: &Engine, text: &[u8], name: &[u8], at: usize) -> Option<Verdict> {
    let exact = if name.is_empty() { &[] } else { engine.mentions().by_variable(name) };
    best_of(engine, text, at, exact.iter().map(|(_, rule)| (*rule, 0)))
}

/// The providers that are named before a value.
struct Near {
    window: Range<usize>,
    /// The last one first, each with where in the window its name ends.
    found: Vec<Mention>,
}

impl Near {
    /// `name` is the one that says that the value is secret, if there is one.
    fn of(engine: &Engine, text: &[u8], at: usize, before: &Before<'_>, name: &Range<usize>) -> Self {
        let mut window = at.saturating_sub(WINDOW)..at;
        if name.is_empty() {
            // Without a name that says so, the provider's name stands right before the value.
            window.start = window.start.max(at.saturating_sub(MAX_GAP + MAX_PROVIDER));
            let line = text[window.clone()].iter().rposition(|&byte| byte == b'\n');
            window.start += line.map_or(0, |at| at + 1);
        }
        let mut found = engine.mentions().in_text(&text[window.clone()]);
        // `linear` names a provider in `linear_token`, right before a value, and where a line begins with it; elsewhere it
        // names nobody.
        let last = before.names.iter().rposition(u8::is_ascii_alphanumeric).map(|at| before.names_at + at);
        let begins_line = |mention: &Mention| {
            let line = &text[window.start..window.start + mention.start];
            let line = line.iter().rposition(|&byte| byte == b'\n').map_or(line, |at| &line[at + 1..]);
            line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'#'))
                && name.start == window.start + mention.end + 1
        };
        found.retain(|mention| {
            let end = window.start + mention.end - 1;
            let is_tied = last == Some(end) && before.operator != Operator::Space;
            !mention.is_everyday || name.contains(&end) || is_tied || begins_line(mention)
        });
        Self { window, found }
    }
}

#[derive(Debug)]
pub(super) enum Verdict {
    Is(Hit),
    /// Something of the provider's that anybody may see.
    NoSecret(Hit),
}

impl Verdict {
    fn candidate(self) -> Candidate {
        match self {
            Self::Is(hit) => Candidate::Key(hit),
            Self::NoSecret(hit) => Candidate::Named(hit),
        }
    }
}

/// A key of the provider that the name, the line or the line before speaks of.
fn by_provider(
    engine: &Engine,
    text: &[u8],
    at: usize,
    before: &Before<'_>,
    says: Says,
    near: &Near,
) -> Option<Verdict> {
    if says == Says::NotSecret && before.operator == Operator::Space {
        return None;
    }
    let is_secret = matches!(says, Says::Secret(_)) || before.scheme;
    if !is_secret && is_one_of_many(text, at) {
        return None;
    }
    let rest = reach::readable(text, at);
    for &Mention { owner, end, .. } in &near.found {
        let gap = &text[near.window.start + end..at];
        let is_tied = !gap.contains(&b'\n') && gap.len() <= MAX_GAP;
        if !is_tied && !is_secret {
            continue;
        }
        if gap.iter().filter(|&&byte| byte == b'\n').count() > MAX_LINES {
            continue;
        }
        let fits = |rule| engine.rules.key(rule).is_some_and(|(_, key)| key.judge_beginning(rest).is_some());
        if !engine.mentions().keys_of(owner).iter().any(|key| fits(key.rule)) {
            continue;
        }
        let said = String::from_utf8_lossy(before.names).into_owned();
        let said = words_of(&said);
        let scored = engine.mentions().keys_of(owner).iter().map(|key| {
            let score = key
                .words
                .iter()
                .map(|words| {
                    words.iter().filter(|word| said.contains(word)).count() * 4
                        + usize::from(words.iter().all(|word| said.contains(word)))
                })
                .max();
            (key.rule, score.unwrap_or_default())
        });
        if let Some(verdict) = best_of(engine, text, at, scored) {
            let is_guess = matches!(verdict, Verdict::NoSecret(_)) && is_secret;
            return Some(verdict).filter(|_| !is_guess && !names_a_digest(&text[near.window.clone()]));
        }
    }
    None
}

/// The key that fits the value and whose variables fit the name best; between equals the secret one, then the first.
fn best_of(
    engine: &Engine,
    text: &[u8],
    at: usize,
    rules: impl Iterator<Item = (RuleId, usize)>,
) -> Option<Verdict> {
    let rest = reach::readable(text, at);
    let mut best: Option<(usize, bool, RuleId, usize)> = None;
    for (rule, score) in rules {
        let (_, key) = engine.rules.key(rule)?;
        let better = best.is_none_or(|(known, sensitive, ..)| (score, key.sensitive) > (known, sensitive));
        if !better || is_passwordlike(key.kind) {
            continue;
        }
        match key.judge_beginning(rest) {
            Some((Judgement::Disproved, end)) => {
                return Some(Verdict::NoSecret(Hit::plain(rule, at..at + end, Certainty::Context)));
            }
            Some((Judgement::Key, end)) if !shape::is_placeholder_for_secret(&rest[..end]) => {
                best = Some((score, key.sensitive, rule, end))
            }
            _ => {}
        }
    }
    let (.., rule, end) = best?;
    let (_, key) = engine.rules.key(rule)?;
    let hit = Hit::plain(rule, at..at + end, Certainty::Context);
    Some(if is_reported(key) { Verdict::Is(hit) } else { Verdict::NoSecret(hit) })
}

/// Passwords that people choose have any shape, so a run of letters is not told from them.
fn is_passwordlike(kind: Kind) -> bool {
    kind == Kind::Password
}

/// A random value that a name calls secret.
fn by_name(
    engine: &Engine,
    text: &[u8],
    value: Range<usize>,
    before: &Before<'_>,
    says: Says,
    near: &Near,
) -> Option<Hit> {
    if value.len() > MAX_GENERIC_VALUE {
        return None;
    }
    let generic = match says {
        _ if before.scheme => Generic::Authorization,
        Says::Secret(Strength::Key)
            if before.operator == Operator::Space && value.len() < MIN_BEHIND_WORD =>
        {
            return None;
        }
        Says::Secret(Strength::Password) => Generic::NamedPassword,
        Says::Secret(_) => Generic::NamedSecret,
        _ => return None,
    };
    let is_one = value.len() >= MIN_GENERIC_VALUE
        && !names_a_digest(before.names)
        && text.get(value.end) != Some(&b'(')
        && !before.names.windows(ARN.len()).any(|piece| piece == ARN);
    if !is_one {
        return None;
    }
    let named = own_mention(before, near);
    if named.is_none()
        && let Some(hit) = of_host(engine, text, &value, generic)
    {
        return Some(hit);
    }
    let rule = named.filter(|_| generic == Generic::NamedSecret).map_or_else(
        || engine.rules.generic(generic),
        |mention| engine.rules.of_owner(generic, mention.owner),
    );
    Some(Hit::plain(rule, value, Certainty::Context))
}

/// The provider whose name is part of a value's own name.
fn own_mention(before: &Before<'_>, near: &Near) -> Option<Mention> {
    let names = before.names_at..before.names_at + before.names.len();
    let own = || near.found.iter().filter(|mention| names.contains(&(near.window.start + mention.end - 1)));
    // Of `TWITCH_STREAM_KEY` the provider is the one whose name is nothing else.
    own().find(|mention| !mention.is_everyday).or_else(|| own().next()).copied()
}

/// What stands in a request to a provider's host: `curl -H "Authorization: Bearer …" https://api.…`.
fn of_host(engine: &Engine, text: &[u8], value: &Range<usize>, generic: Generic) -> Option<Hit> {
    let before = &text[value.start.saturating_sub(WINDOW)..value.start];
    let after = &text[value.end..text.len().min(value.end + WINDOW)];
    let places = |part: &[u8]| {
        let is_address = |at: &usize| part[*at..].starts_with(ADDRESS);
        (0..part.len()).filter(is_address).collect::<Vec<_>>()
    };
    // A request goes over several lines; elsewhere another line is about something else.
    let most = if generic == Generic::Authorization { MAX_LINES } else { 0 };
    let is_near = |gap: &[u8]| gap.iter().filter(|&&byte| byte == b'\n').count() <= most;
    let near_before = places(before).last().filter(|&&at| is_near(&before[at..])).map(|&at| &before[at..]);
    let near_after = || places(after).first().filter(|&&at| is_near(&after[..at])).map(|&at| &after[at..]);
    let owner_of = |address: &[u8]| {
        let host = &address[ADDRESS.len()..];
        let len = host.iter().position(|&byte| !is_of_host(byte)).unwrap_or(host.len());
        engine.mentions().in_text(&host[..len]).first().map(|mention| mention.owner)
    };
    let owner = near_before.and_then(owner_of).or_else(|| near_after().and_then(owner_of))?;
    let keys = engine.mentions().keys_of(owner).iter().map(|key| (key.rule, 0));
    match best_of(engine, text, value.start, keys) {
        Some(Verdict::Is(hit)) if hit.span.end == value.end => Some(hit),
        _ if generic == Generic::NamedPassword => None,
        _ => Some(Hit::plain(engine.rules.of_owner(generic, owner), value.clone(), Certainty::Context)),
    }
}

fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')
}

/// The rule for a random value whose name says that it is secret: of the provider that is part of the name, if any.
pub(super) fn secret_named(engine: &Engine, name: &[u8]) -> RuleId {
    let found = engine.mentions().in_text(name);
    let owner = found.iter().find(|mention| !mention.is_everyday).or(found.first());
    owner.map_or(engine.rules.generic(Generic::NamedSecret), |mention| {
        engine.rules.of_owner(Generic::NamedSecret, mention.owner)
    })
}

fn is_word_before_value(piece: &[u8]) -> bool {
    // A path names what it likes.
    if piece.contains(&b'/') {
        return false;
    }
    matches!(what_a_name_says(piece), Says::Secret(Strength::Secret | Strength::Key))
        || [&b"private"[..], b"access"].iter().any(|word| piece.to_ascii_lowercase().ends_with(word))
}

/// Whether a run may be what [`behind_a_word`] looks for.
fn holds_a_word(run: &[u8]) -> bool {
    run.len() > MIN_BEHIND_WORD
        && run.windows(4).any(|piece| {
            let [a, b, c, d] = [piece[0] | 0x20, piece[1] | 0x20, piece[2] | 0x20, piece[3]];
            d == b'-'
                && matches!(
                    [a, b, c],
                    [b'k', b'e', b'y']
                        | [b'k', b'e', b'n']
                        | [b'r', b'e', b't']
                        | [b'a', b't', b'e']
                        | [b'e', b's', b's']
                )
        })
}

/// A random value behind a word of its own run: `acme-secret-9f2c…`.
fn behind_a_word(engine: &Engine, text: &[u8], run: &Range<usize>) -> Option<Hit> {
    let bytes = &text[run.clone()];
    let mut at = 0;
    let mut begin = None;
    for piece in bytes.split(|&byte| byte == b'-') {
        at += piece.len() + 1;
        if is_word_before_value(piece) {
            begin = Some(at);
        }
    }
    let begin = begin.filter(|&begin| begin + MIN_BEHIND_WORD <= bytes.len())?;
    let value = run.start + begin..run.end;
    let is_one = random::is_random(&text[value.clone()])
        && !text[value.clone()].contains(&b'/')
        && !text[value.clone()].contains(&b'.');
    is_one.then(|| Hit::plain(engine.rules.generic(Generic::NamedSecret), value, Certainty::Context))
}

/// Whether a value is something that a program computes: a call, an index, a reference.
fn is_code(text: &[u8], value: &Range<usize>, before: &Before<'_>) -> bool {
    if before.quote.is_some() {
        return false;
    }
    let after = text.get(value.end).copied().unwrap_or(b'\n');
    let bytes = &text[value.clone()];
    matches!(after, b'(' | b'[' | b'{')
        || bytes.contains(&b'(')
        || bytes.starts_with(b"$")
        || bytes.contains(&b'$')
}

/// Where a value begins: at the run, or behind what is tied to it by a joint.
pub(super) fn begin_of_value(text: &[u8], run: &Range<usize>) -> usize {
    let mut at = run.start;
    while at < run.end && matches!(text[at], b'-' | b'.' | b'~') {
        at += 1;
    }
    at
}

/// Where a value ends: at its quote, else at what ends a value in most languages.
fn end_of_value(text: &[u8], at: usize, quote: Option<u8>) -> usize {
    let rest = &text[at..text.len().min(at + MAX_GENERIC_VALUE + 1)];
    let ends = |&byte: &u8| match quote {
        Some(quote) => byte == quote || byte == b'\\' || byte < b' ',
        None => {
            matches!(
                byte,
                b' ' | b'"'
                    | b'\''
                    | b'`'
                    | b','
                    | b';'
                    | b'&'
                    | b'<'
                    | b')'
                    | b']'
                    | b'}'
                    | b'|'
                    | b'\\'
                    | b'#'
            ) || byte < b' '
        }
    };
    at + rest.iter().position(ends).unwrap_or(rest.len())
}

/// Whether a line speaks of a digest, which looks like a key and is none.
pub(super) fn names_a_digest(line: &[u8]) -> bool {
    DIGESTS.iter().any(|word| line.windows(word.len()).any(|piece| piece.eq_ignore_ascii_case(word)))
}

/// Before the host of an address.
const ADDRESS: &[u8] = b"://";

/// The name of a thing at Amazon, which may end in the id of a key.
const ARN: &[u8] = b"arn:aws";

const DIGESTS: &[&[u8]] = &[
    b"sha1",
    b"sha256",
    b"sha512",
    b"sha-",
    b"md5",
    b"integrity",
    b"checksum",
    b"digest",
    b"commit",
    b"revision",
    b".tgz",
    b"fingerprint",
    b"etag",
];

/// `2397f603-c2c4-4897-a8ca-587ace5dc8dd`.
const UUID_LEN: usize = 36;

/// Between a provider's name and a value without a name of its own.
const MAX_GAP: usize = 48;

/// The longest name of a provider that is looked for before a value without a name.
const MAX_PROVIDER: usize = 32;

/// Lines between a provider's name and a value whose name says that it is secret.
const MAX_LINES: usize = 3;

/// Behind a word that is tied to it by nothing but a space or a dash.
const MIN_BEHIND_WORD: usize = 20;

/// Shorter random values are passwords.
const MIN_GENERIC_VALUE: usize = 16;
