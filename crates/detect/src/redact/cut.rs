//! Cuts a text into the pieces that could be stored values: by what stands between values in most languages, and in
//! the forms that values travel in. Only what a [`Sieve`] lets pass is a candidate.
//!
//! A value may hold any delimiter itself, so a candidate may begin behind each and end before each of those that
//! follow. White space and control characters end it: a value of several words is not found.

use std::ops::Range;

use zeroize::Zeroizing;

use super::decode::{self, Decoded};
use super::sieve::{Sieve, first_eight};

/// A piece of a text that may be a stored value.
pub(super) struct Candidate {
    /// Where it stands in the text, in the form it has there.
    pub(super) span: Range<usize>,
    /// What it is, where it stood in another form.
    decoded: Option<Zeroizing<Vec<u8>>>,
}

impl Candidate {
    /// The value that it would be.
    pub(super) fn value<'t>(&'t self, text: &'t [u8]) -> &'t [u8] {
        match &self.decoded {
            Some(value) => value,
            None => &text[self.span.clone()],
        }
    }
}

/// All candidates that begin in `region`, in the order in which they begin.
pub(super) fn candidates(text: &[u8], region: Range<usize>, sieve: &Sieve, found: &mut Vec<Candidate>) {
    found.clear();
    let mut at = region.start + MIN_CANDIDATE - 1;
    // A run of sixteen covers one place in sixteen, so only such places are looked at.
    while at < region.end + MIN_CANDIDATE - 1 {
        let here = at.min(text.len().saturating_sub(1));
        if text.get(here).is_none_or(|&byte| CLASSES[usize::from(byte)] & END != 0) {
            at += MIN_CANDIDATE;
            continue;
        }
        let floor = region.start;
        let start = text[floor..here].iter().rposition(|&byte| CLASSES[usize::from(byte)] & END != 0);
        let start = start.map_or(floor, |at| floor + at + 1);
        let ceiling = text.len().min(region.end + MAX_CANDIDATE);
        let end = text[here..ceiling].iter().position(|&byte| CLASSES[usize::from(byte)] & END != 0);
        let end = end.map_or(ceiling, |at| here + at);
        if end - start >= MIN_CANDIDATE {
            in_run(text, start..end, region.end, sieve, found);
        }
        at = end + MIN_CANDIDATE;
    }
    found.sort_by_key(|candidate| candidate.span.start);
}

/// Looks at every place of a run at which a value may begin.
fn in_run(text: &[u8], run: Range<usize>, until: usize, sieve: &Sieve, found: &mut Vec<Candidate>) {
    if run.start >= until {
        return;
    }
    let last = (run.end - (MIN_CANDIDATE - 1)).min(until);
    // What stands before the run or the region counts: `/` before a value is a delimiter wherever the region begins.
    let mut before = run.start.checked_sub(1).map_or(END, |at| CLASSES[usize::from(text[at])]);
    let (mut classes, mut encoded_until) = (0, 0);
    for (at, &byte) in (run.start..last).zip(&text[run.start..last]) {
        let class = CLASSES[usize::from(byte)];
        if before & (BEGIN | END) != 0 {
            let rest = &text[at..run.end];
            if sieve.may_begin(first_eight(rest)) {
                plain(text, at, run.end, sieve, found);
            }
            if class & TEXT != 0 && rest.len() >= MIN_ENCODED && at >= encoded_until {
                encoded_until = encoded(rest, at, sieve, found);
            }
        }
        classes |= class;
        before = class;
    }
    let is_escape = |byte: &u8| CLASSES[usize::from(*byte)] & ESCAPE != 0;
    if classes & ESCAPE != 0 || text[last..run.end].iter().any(is_escape) {
        in_escapes(text, run, until, sieve, found);
    }
}

/// The values that may begin at a place: up to each delimiter that follows.
fn plain(text: &[u8], start: usize, end: usize, sieve: &Sieve, found: &mut Vec<Candidate>) {
    for stop in ends(&text[start..end]) {
        if sieve.may_be(&text[start..start + stop]) {
            found.push(Candidate { span: start..start + stop, decoded: None });
        }
    }
}

/// Where a value that begins with `rest` may end.
fn ends(rest: &[u8]) -> impl Iterator<Item = usize> {
    let rest = &rest[..rest.len().min(MAX_CANDIDATE)];
    let stops = (MIN_CANDIDATE..rest.len()).filter(|&at| CLASSES[usize::from(rest[at])] & STOP != 0);
    stops.take(MAX_ENDS).chain(Some(rest.len()).filter(|len| *len >= MIN_CANDIDATE))
}

/// What a run in base64 or hexadecimal digits holds, as far as it is text; returns where it was read to, so that nothing
/// is decoded again and again.
fn encoded(rest: &[u8], at: usize, sieve: &Sieve, found: &mut Vec<Candidate>) -> usize {
    let (is_base64, is_hex) = (decode::begins_base64_text(rest), decode::begins_hex_text(rest));
    if !is_base64 && !is_hex {
        return at;
    }
    let rest = &rest[..rest.len().min(MAX_ENCODED)];
    let in_form = |byte: &u8| decode::sextet(*byte).is_some() || *byte == b'=';
    let run = &rest[..rest.iter().position(|byte| !in_form(byte)).unwrap_or(rest.len())];
    let forms = [is_base64.then(|| decode::base64(run, at)), is_hex.then(|| decode::hex(run, at))];
    let mut until = at;
    for decoded in forms.into_iter().flatten().flatten() {
        until = until.max(decoded.places[decoded.bytes.len() - 1]);
        in_decoded(&decoded, sieve, &mut |_, value| {
            // In base64 a neighbour shares a character with the value, so the whole run goes.
            let span = at..at + run.len();
            found.push(Candidate { span, decoded: Some(Zeroizing::new(value.to_vec())) });
        });
    }
    until
}

/// What a run holds in which some characters are written as escapes: each piece between quotes and the like by itself,
/// and cut again as it reads without the escapes.
fn in_escapes(text: &[u8], run: Range<usize>, until: usize, sieve: &Sieve, found: &mut Vec<Candidate>) {
    let mut start = run.start;
    while start < run.end.min(until) {
        let rest = &text[start..run.end];
        let len = rest.iter().position(|&byte| CLASSES[usize::from(byte)] & QUOTE != 0).unwrap_or(rest.len());
        let piece = &rest[..len.min(MAX_ENCODED)];
        if piece.len() > MIN_CANDIDATE
            && decode::has_escape(piece)
            && let Some(decoded) = decode::escaped(piece, start)
        {
            in_decoded(&decoded, sieve, &mut |place, value| {
                let span = decoded.places[place.start]..decoded.places[place.end];
                if span.start < until {
                    found.push(Candidate { span, decoded: Some(Zeroizing::new(value.to_vec())) });
                }
            });
        }
        start += len + 1;
    }
}

/// Cuts what was decoded as a text of its own.
fn in_decoded(decoded: &Decoded, sieve: &Sieve, each: &mut impl FnMut(Range<usize>, &[u8])) {
    let bytes = decoded.bytes.as_slice();
    let mut before = END;
    for at in 0..bytes.len().saturating_sub(MIN_CANDIDATE - 1) {
        let may_begin = before & (BEGIN | END) != 0 && sieve.may_begin(first_eight(&bytes[at..]));
        before = CLASSES[usize::from(bytes[at])];
        if !may_begin {
            continue;
        }
        let rest = &bytes[at..];
        let len = rest.iter().position(|&byte| CLASSES[usize::from(byte)] & END != 0).unwrap_or(rest.len());
        for stop in ends(&rest[..len]) {
            if sieve.may_be(&rest[..stop]) {
                each(at..at + stop, &rest[..stop]);
            }
        }
    }
}

/// Ends every value: white space and control characters.
const END: u8 = 1;
/// A value may begin behind it.
const BEGIN: u8 = 2;
/// A value may end before it.
const STOP: u8 = 4;
/// Begins a character that is written in another way.
const ESCAPE: u8 = 8;
/// Stands between values that may have escapes in them.
const QUOTE: u8 = 16;
/// Text in base64 or hexadecimal digits may begin with it: the first bits of a letter, a digit or a sign.
const TEXT: u8 = 32;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let mut class = match b {
            0..=b' ' | 0x7f => END | STOP | QUOTE,
            // They join names and values alike.
            b'_' | b'-' | b'~' => 0,
            b'.' | b'+' => STOP,
            b'2'..=b'7' | b'I'..=b'Z' | b'a'..=b'f' => TEXT,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => 0,
            0x80.. => 0,
            _ => BEGIN | STOP,
        };
        if matches!(b, b'%' | b'\\' | b'&') {
            class |= ESCAPE;
        }
        if matches!(b, b'"' | b'\'' | b'`' | b'<' | b'>' | b'=' | b'?' | b',') {
            class |= QUOTE;
        }
        classes[byte] = class;
        byte += 1;
    }
    classes
};

/// The shortest value that has a fingerprint: see `Catalogue::is_fingerprintable`.
pub(super) const MIN_CANDIDATE: usize = 16;

/// The longest value that is looked for: a long token has 2,000 characters.
pub(super) const MAX_CANDIDATE: usize = 4096;

/// Delimiters in one value: a password of sixty-four characters has twenty, an address with many parameters more.
const MAX_ENDS: usize = 48;

/// Sixteen bytes in base64.
const MIN_ENCODED: usize = 22;

/// The longest value in base64, hexadecimal digits or escapes.
const MAX_ENCODED: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALUE: &str = "xK9#mP2$vL8@nQ5!Ab";

    fn found(text: &[u8], region: Range<usize>, value: &str) -> Vec<Range<usize>> {
        let mut sieve = Sieve::new([7; 16], 1000);
        sieve.add(value.as_bytes());
        let mut found = Vec::new();
        candidates(text, region, &sieve, &mut found);
        let mut spans: Vec<_> =
            found.iter().filter(|it| it.value(text) == value.as_bytes()).map(|it| it.span.clone()).collect();
        spans.dedup();
        spans
    }

    /// `VALUE` stands for the value; `[` and `]` are put around what is found.
    fn check(text: &str, value: &str, expected: &str) {
        let text = text.replace("VALUE", value);
        let mut marked = text.clone();
        for span in found(text.as_bytes(), 0..text.len(), value).iter().rev() {
            marked.insert(span.end, '⟧');
            marked.insert(span.start, '⟦');
        }
        assert_eq!(marked, expected.replace("VALUE", value), "{text}");
    }

    #[test]
    fn places_of_a_value() {
        let token = "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU";
        for value in [VALUE, token, "postgres://shop:MadeUp0000@db/shop", "žluť-MadeUpExample0000"] {
            for around in [
                "VALUE",
                "a VALUE b",
                "a=VALUE",
                "a: VALUE,",
                "\"VALUE\"",
                "{'a':'VALUE'}",
                "https://u:VALUE@host/a",
                "https://host/a/VALUE/b?c=VALUE&d=1#e",
                "[VALUE]",
                "<k>VALUE</k>",
                "{\\\"k\\\":\\\"VALUE\\\"}",
                "is VALUE.",
                "VALUE\n",
                "a\tVALUE\tb",
                "k=VALUE;VALUE",
            ] {
                check(around, value, &around.replace("VALUE", "⟦VALUE⟧"));
            }
            check("aVALUE", value, "aVALUE");
            check("VALUEz", value, "VALUEz");
        }
    }

    #[test]
    fn other_forms_of_a_value() {
        let value = VALUE;
        check("t eEs5I21QMiR2TDhAblE1IUFi t", value, "t ⟦eEs5I21QMiR2TDhAblE1IUFi⟧ t");
        check(
            "k: 784b39236d502324764c38406e5135214162",
            "xK9#mP#$vL8@nQ5!Ab",
            "k: ⟦784b39236d502324764c38406e5135214162⟧",
        );
        check(
            "https://a.test/?k=xK9%23mP2%24vL8%40nQ5%21Ab&x=1",
            value,
            "https://a.test/?k=⟦xK9%23mP2%24vL8%40nQ5%21Ab⟧&x=1",
        );
        check(
            r#"{"k":"xK9\u0023mP2$vL8@nQ5!Ab","x":1}"#,
            value,
            r#"{"k":"⟦xK9\u0023mP2$vL8@nQ5!Ab⟧","x":1}"#,
        );
        check("a%3DxK9%23mP2%24vL8%40nQ5%21Ab", value, "a%3D⟦xK9%23mP2%24vL8%40nQ5%21Ab⟧");
        check(r"a\nxK9#mP2$vL8@nQ5!Ab\nb", value, r"a\n⟦xK9#mP2$vL8@nQ5!Ab⟧\nb");
    }

    #[test]
    fn what_is_short_is_no_candidate() {
        check("a hunter2hunter2 b", "hunter2hunter2", "a hunter2hunter2 b");
    }

    proptest! {
        #[test]
        fn regions_find_what_the_whole_finds(before in "[ -~\n]{0,60}", after in "[ -~\n]{0,60}", cut in 0usize..200) {
            let text = format!("{before} {VALUE} {after}");
            let whole = found(text.as_bytes(), 0..text.len(), VALUE);
            let cut = cut.min(text.len());
            let mut parts = found(text.as_bytes(), 0..cut, VALUE);
            parts.extend(found(text.as_bytes(), cut..text.len(), VALUE));
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn any_bytes_can_be_cut(text in proptest::collection::vec(any::<u8>(), 0..300), from in 0usize..300, len in 0usize..300) {
            let region = from.min(text.len())..(from + len).min(text.len());
            for span in found(&text, region, VALUE) {
                prop_assert!(span.end <= text.len());
            }
        }
    }
}
