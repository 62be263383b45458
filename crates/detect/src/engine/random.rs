//! Whether a value looks made by a machine: neither words, nor a name in a program, nor a path, a number or a date.
//!
//! For values that a name calls secret; by itself a random value says nothing.

use crate::base64;
use crate::entropy::entropy;
use crate::shape;

/// Whether a value is random enough to be what a name says it is.
pub(super) fn is_random(value: &[u8]) -> bool {
    // What costs least and says most comes first: most values are names and paths.
    let counts = Counts::of(value);
    if counts.digits == value.len() {
        return value.len() >= MIN_NUMBER && entropy(value) >= MIN_HEX_ENTROPY;
    }
    if value.len() < MIN_LEN
        || (counts.digits == 0 && !counts.is_mixed_at_random())
        || counts.letters + counts.digits <= 2 * counts.others
        || is_of_words(value, &counts)
        || is_date_or_version(value, &counts)
    {
        return false;
    }
    if is_encoded_prose(value) {
        return false;
    }
    let is_hex = counts.others == 0 && value.iter().all(u8::is_ascii_hexdigit);
    let least = if is_hex { MIN_HEX_ENTROPY } else { MIN_ENTROPY };
    entropy(value) >= least
        && std::str::from_utf8(value)
            .is_ok_and(|text| !shape::is_plain(text) && shape::placeholder_for_secret(text).is_none())
}

/// Kinds of characters in a value.
struct Counts {
    len: usize,
    letters: usize,
    upper: usize,
    lower: usize,
    digits: usize,
    others: usize,
    /// Neighbours of different kinds.
    changes: usize,
    /// Neighbours that are both capitals.
    capital_pairs: usize,
    /// Neighbours that are both letters, and those of them that are usual in words.
    pairs: usize,
    usual_pairs: usize,
}

impl Counts {
    fn of(value: &[u8]) -> Self {
        let mut counts = Self {
            len: value.len(),
            letters: 0,
            upper: 0,
            lower: 0,
            digits: 0,
            others: 0,
            changes: 0,
            capital_pairs: 0,
            pairs: 0,
            usual_pairs: 0,
        };
        let kind = |byte: u8| match byte {
            b'a'..=b'z' => 1,
            b'A'..=b'Z' => 2,
            b'0'..=b'9' => 3,
            _ => 4,
        };
        for &byte in value {
            match kind(byte) {
                1 => counts.lower += 1,
                2 => counts.upper += 1,
                3 => counts.digits += 1,
                _ => counts.others += 1,
            }
        }
        counts.letters = counts.lower + counts.upper;
        for pair in value.windows(2) {
            let (a, b) = (kind(pair[0]), kind(pair[1]));
            counts.changes += usize::from(a != b && a != 4 && b != 4);
            counts.capital_pairs += usize::from(a == 2 && b == 2);
            if a <= 2 && b <= 2 {
                counts.pairs += 1;
                counts.usual_pairs += usize::from(is_usual_pair(pair[0], pair[1]));
            }
        }
        counts
    }

    /// Letters of both cases without the order that camel case has.
    fn is_mixed_at_random(&self) -> bool {
        self.upper >= 3
            && self.lower >= 3
            && self.changes * 3 >= self.len
            && self.usual_pairs * 2 < self.pairs
            && !self.is_camel_case()
    }

    /// `isFixedColumnsLeft`: capitals stand alone, before words.
    fn is_camel_case(&self) -> bool {
        self.capital_pairs == 0 && self.lower * 2 >= self.upper * 5
    }
}

/// Whether a value is made of words: most of its letters stand in pairs that are usual in words.
fn is_of_words(value: &[u8], counts: &Counts) -> bool {
    if is_uuid(value) {
        return false;
    }
    // Pieces of a name are words or numbers; of a key at least one piece mixes both.
    let is_piece = |byte: &u8| !byte.is_ascii_alphanumeric();
    let mixed: usize = value.split(is_piece).filter(|piece| is_mixed(piece)).map(<[u8]>::len).sum();
    if mixed * 5 < value.len() * 2 {
        return true;
    }
    counts.pairs >= 6 && counts.usual_pairs * 20 > counts.pairs * 11 && counts.digits * 4 < counts.len
}

/// Whether a piece of a value is neither a word (with a number behind it) nor a number.
fn is_mixed(piece: &[u8]) -> bool {
    let digits = piece.iter().filter(|byte| byte.is_ascii_digit()).count();
    let changes =
        piece.windows(2).filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count();
    let cases =
        piece.windows(2).filter(|pair| pair[0].is_ascii_uppercase() != pair[1].is_ascii_uppercase()).count();
    let is_hex = piece.len() >= 4 && digits > 0 && changes > 0 && piece.iter().all(u8::is_ascii_hexdigit);
    is_hex
        || changes >= 2
        || (digits > 0 && digits < piece.len() && cases >= 2)
        || (cases * 3 >= piece.len() && piece.len() >= 8)
}

/// Whether a value is base64 of words with spaces between them.
fn is_encoded_prose(value: &[u8]) -> bool {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n');
    let begins_as_text = value
        .first_chunk::<8>()
        .and_then(|head| base64::decode(head))
        .is_some_and(|head| head.iter().all(is_text));
    begins_as_text
        && base64::decode(value).is_some_and(|text| {
            text.iter().all(is_text) && text.split(|&byte| byte == b' ').count() > MIN_SPACES
        })
}

fn is_date_or_version(value: &[u8], counts: &Counts) -> bool {
    counts.letters <= 3 && value.iter().any(|byte| matches!(byte, b'.' | b'-' | b':' | b'/'))
}

/// Eight, four, four, four and twelve hexadecimal digits.
pub(super) fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether two letters often stand side by side in words.
fn is_usual_pair(a: u8, b: u8) -> bool {
    let (a, b) = (a.to_ascii_lowercase().wrapping_sub(b'a'), b.to_ascii_lowercase().wrapping_sub(b'a'));
    a < 26 && b < 26 && USUAL[usize::from(a)] >> b & 1 == 1
}

/// The pairs of letters that make up four fifths of those in English words and in names in programs; of random letters
/// one pair in four is among them.
static USUAL: [u32; 26] = {
    let mut table = [0; 26];
    let mut at = 0;
    while at + 1 < PAIRS.len() {
        table[(PAIRS[at] - b'a') as usize] |= 1 << (PAIRS[at + 1] - b'a');
        at += 3;
    }
    table
};

const PAIRS: &[u8] = b"th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur ca el ta la ns di fo ho pe ec pr no ct us ac ot il tr ly nc et ut ss so rs un lo wa ge ie wh ee wi em ad ol rt po we na ul ni ts mo ow pa im mi ai sh ir su id os iv ia am fi ci vi pl ig tu ev ld ry mp fe bl ab gh ty op wo sa ay ex ke fr oo av ag if ap gr od bo sp rd do uc bu ei ov by rm ep tt oc fa ef cu rn";

/// Spaces that make encoded text prose.
const MIN_SPACES: usize = 2;

/// Shorter values are passwords of people, which have rules of their own.
const MIN_LEN: usize = 10;

/// Shorter numbers are amounts, dates, identifiers.
const MIN_NUMBER: usize = 16;

/// Random letters and digits: 16 of them measure 3.6 bits on average.
const MIN_ENTROPY: f64 = 3.0;

/// Sixteen random hexadecimal digits measure 3.2 bits on average.
const MIN_HEX_ENTROPY: f64 = 2.6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_names() {
        for random in [
            "vohbhkazs00uh0bdo4t81j5u",
            "wb-pwtvp97tf7alq8jh-v_44rp7s2qoh",
            "9f2c4b7a1e8d3056c1a9e4f7b2d80635",
            "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU",
            "2397f603-c2c4-4897-a8ca-587ace5dc8dd",
            "bynlmo7fleK5PuXP5lYC1D.eksRxeJ",
            "hGtKfWqZxPvNjRmBsDyL",
        ] {
            assert!(is_random(random.as_bytes()), "{random}");
        }
        for plain in [
            "get_or_create_instance_2",
            "NEXUS-GPT4-API-KEY",
            "NRG0-Hermes-INTERNAL-API",
            "rc0.13.0_20230412_0712-SNAPSHOT",
            "cmp2-qat-1208358310",
            "APIOrganizationExist",
            "isFixedColumnsLeft",
            "ZHVtbXkgdGV4dCBkYXRhIGRhdGEgZGF0YQ==",
            "wagtailadmin/0002_admin",
            "2020-01-01T10:00:00",
            "application/vnd.ms-excel12",
            "xxxxxxxxxxxxxxxxxxxxxxx1",
            "your_secret_key_1_here",
            "SQLSERVER2019Connection",
            "arn:aws:iam::aws:policy/IAMUserChangePassword",
        ] {
            assert!(!is_random(plain.as_bytes()), "{plain}");
        }
    }
}
