//! Lengths of time as people write them: `90d`, `8h`, `1h30m`. Knows no calendar: a day has 24 hours, and months and
//! years, which differ, are not units.

/// Reads a length of time and gives it in seconds.
///
/// # Errors
/// When it is none, is no time at all, or is longer than a century.
pub fn seconds(text: &str) -> Result<u64, String> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut larger = usize::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or("a unit is missing: s, m, h, d or w")?;
        let number: u64 = rest[..digits].parse().map_err(|_| MALFORMED)?;
        let unit = rest[digits..].chars().next().ok_or(MALFORMED)?;
        let rank = UNITS.iter().position(|(name, _)| *name == unit).ok_or(MALFORMED)?;
        if rank >= larger {
            return Err(MALFORMED.to_owned());
        }
        larger = rank;
        total = number.checked_mul(UNITS[rank].1).and_then(|part| total.checked_add(part)).ok_or(TOO_LONG)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    match total {
        0 => Err("a length of time is more than nothing".to_owned()),
        1..=LONGEST_SECS => Ok(total),
        _ => Err(TOO_LONG.to_owned()),
    }
}

/// Units and their lengths in seconds, shortest first.
const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)];
/// Nothing that is to end by itself lasts longer.
const LONGEST_SECS: u64 = 100 * 366 * 86_400;
const MALFORMED: &str = "a length of time is written like 90d, 8h, 30m, 45s or 1h30m";
const TOO_LONG: &str = "that is longer than a century";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A length of time in seconds, as people write it.
    fn text(seconds: u64) -> String {
        let mut rest = seconds;
        let mut text = String::new();
        for (unit, length) in UNITS.iter().rev() {
            let number = rest / length;
            if number > 0 {
                text.push_str(&format!("{number}{unit}"));
            }
            rest %= length;
        }
        if text.is_empty() { "0s".to_owned() } else { text }
    }

    #[test]
    fn texts_and_their_lengths() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(seconds(text).ok(), expected, "{text}");
        check("45s", Some(45));
        check("30m", Some(1_800));
        check("8h", Some(28_800));
        check("90d", Some(7_776_000));
        check("2w", Some(1_209_600));
        check("1h30m", Some(5_400));
        check("1d12h5s", Some(129_605));
        check("36525d", Some(36_525 * 86_400));
        check("", None);
        check("0s", None);
        check("0h0m", None);
        check("90", None);
        check("d", None);
        check("-5m", None);
        check("+5m", None);
        check("1.5h", None);
        check("1 h", None);
        check("5M", None);
        check("30m1h", None);
        check("1h1h", None);
        check("5y", None);
        check("5µ", None);
        check("99999999999999999999d", None);
        check("18446744073709551615w", None);
        check("40000d", None);
    }

    proptest! {
        #[test]
        fn reading_is_total(text in "\\PC{0,20}") {
            let _ = seconds(&text);
        }

        #[test]
        fn what_is_written_is_read_again(length in 1..=LONGEST_SECS) {
            prop_assert_eq!(seconds(&text(length)), Ok(length));
        }
    }
}
