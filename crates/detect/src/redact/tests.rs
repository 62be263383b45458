//! What goes out of the redactor and what does not, whatever pieces come in. What the engine finds is tested there.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::catalogue::Catalogue;

fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Catalogue::builtin()));
    &ENGINE
}

const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatTest";
const STORED_VALUE: &str = "xK9#mP2$vL8@nQ5!Ab";
const STORED_TOKEN: &str = "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU";

/// Two values that are stored.
struct Two(Sieve, usize);

impl Two {
    fn new() -> Self {
        let mut sieve = Sieve::new([7; SIEVE_KEY_LEN], 2);
        [STORED_VALUE, STORED_TOKEN].iter().for_each(|value| sieve.add(value.as_bytes()));
        Self(sieve, 0)
    }
}

impl KnownValues for Two {
    type Error = Infallible;

    fn sieve(&self) -> Option<&Sieve> {
        Some(&self.0)
    }

    fn are_known(&mut self, candidates: &[&[u8]], known: &mut Vec<bool>) -> Result<(), Infallible> {
        self.1 += candidates.len();
        let is_one = |value: &&[u8]| [STORED_VALUE, STORED_TOKEN].iter().any(|own| own.as_bytes() == *value);
        known.extend(candidates.iter().map(is_one));
        Ok(())
    }
}

/// The output for an input that comes in pieces which end at these places.
fn redacted_at(text: &[u8], places: &BTreeSet<usize>, flushes: bool) -> Vec<u8> {
    let mut redactor = Redactor::with_known(engine(), Two::new());
    let mut out = Vec::new();
    let mut from = 0;
    for place in places.iter().copied().filter(|place| *place < text.len()).chain([text.len()]) {
        let Ok(()) = redactor.push(&text[from..place], &mut out);
        if flushes {
            let Ok(()) = redactor.flush(&mut out);
        }
        from = place;
    }
    let Ok(()) = redactor.finish(&mut out);
    assert!(!redactor.is_waiting());
    out
}

fn redacted(text: &str) -> String {
    String::from_utf8(redacted_at(text.as_bytes(), &BTreeSet::new(), false)).unwrap()
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let filled = |text: &str| {
        text.replace("KEY", STRIPE).replace("VALUE", STORED_VALUE).replace("TOKEN", STORED_TOKEN)
    };
    let expected = filled(expected)
        .replace("⟦K⟧", "[redacted:stripe/live_secret]")
        .replace("⟦V⟧", "[redacted:stored-value]")
        .replace("⟦P⟧", "[redacted:private-key]");
    assert_eq!(redacted(&filled(text)), expected);
}

#[test]
fn keys_go_and_the_rest_stays() {
    check("", "");
    check("nothing here\r\n\n\0\x7f", "nothing here\r\n\n\0\x7f");
    check("KEY", "⟦K⟧");
    check("a KEY b KEY c\n", "a ⟦K⟧ b ⟦K⟧ c\n");
    check(
        "Traceback:\n  File \"a.py\", line 1\n    stripe.api_key = 'KEY'\nx: KEY\n",
        "Traceback:\n  File \"a.py\", line 1\n    stripe.api_key = '⟦K⟧'\nx: ⟦K⟧\n",
    );
    check("GET /v1?key=KEY&x=1 HTTP/1.1\n", "GET /v1?key=⟦K⟧&x=1 HTTP/1.1\n");
    check("Authorization: Bearer KEY\r\n", "Authorization: Bearer ⟦K⟧\r\n");
    check("{\"k\":\"KEY\",\"n\":1}\n", "{\"k\":\"⟦K⟧\",\"n\":1}\n");
    check("pk_live_51MadeUpExample0000KeymoatTest\n", "pk_live_51MadeUpExample0000KeymoatTest\n");
    check(
        "KEY # keymoat:allow said whoever wrote into the log\n",
        "⟦K⟧ # keymoat:allow said whoever wrote into the log\n",
    );
    check("sk_live_xxxxxxxxxxxxxxxxxxxxxxxx\n", "sk_live_xxxxxxxxxxxxxxxxxxxxxxxx\n");
}

#[test]
fn of_an_address_only_the_password_goes() {
    check(
        "connect postgres://shop:MadeUp0000Pass@db.madeup.test:5432/shop failed\n",
        "connect postgres://shop:[redacted:database/url]@db.madeup.test:5432/shop failed\n",
    );
}

#[test]
fn stored_values_go_in_whatever_form() {
    check("is VALUE, and TOKEN.\n", "is ⟦V⟧, and ⟦V⟧.\n");
    check("k=eEs5I21QMiR2TDhAblE1IUFi x\n", "k=⟦V⟧ x\n");
    check("?k=xK9%23mP2%24vL8%40nQ5%21Ab&x=1\n", "?k=⟦V⟧&x=1\n");
    check("{\"k\":\"xK9\\u0023mP2$vL8@nQ5!Ab\"}\n", "{\"k\":\"⟦V⟧\"}\n");
    check("aTOKEN\n", "aTOKEN\n");
    check("hunter2\n", "hunter2\n");
}

#[test]
fn private_keys_go_line_by_line() {
    let body = "MadeUpExample0000KeymoatTestqwertzuiopasdfghjklyxcvbnm1234567890";
    let key =
        format!("k\n-----BEGIN PRIVATE KEY-----\n{body}\n{body}\naB3=\n-----END PRIVATE KEY-----\nafter\n");
    let expected = key.replace(body, "[redacted:private-key]").replace("aB3=", "[redacted:private-key]");
    assert_eq!(redacted(&key), expected);
    let cut_short = &key[..key.len() - 40];
    assert!(!redacted(cut_short).contains("aB3="));
}

/// A text that has everything in it that is decided in more than one place.
fn sample() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ -~]{0,40}",
        2 => Just(STRIPE.to_owned()),
        2 => Just(STORED_VALUE.to_owned()),
        2 => Just(STORED_TOKEN.to_owned()),
        1 => Just("eEs5I21QMiR2TDhAblE1IUFi".to_owned()),
        1 => Just("xK9%23mP2%24vL8%40nQ5%21Ab".to_owned()),
        1 => Just("password = \"MadeUp hunter2 0000\"".to_owned()),
        1 => Just("twilio_auth_token: 9f2c4b7a1e8d3056c1a9e4f7b2d80635".to_owned()),
        1 => Just("postgres://shop:MadeUp0000Pass@db.madeup.test/shop".to_owned()),
        1 => Just("-----BEGIN PRIVATE KEY-----".to_owned()),
        1 => Just("-----END PRIVATE KEY-----".to_owned()),
        2 => Just("\nMadeUpExample0000KeymoatTestqwertzuiopasdfghjklyxcvbnm1234567890\n".to_owned()),
        1 => "[A-Za-z0-9+/]{20,90}",
        4 => Just("\n".to_owned()),
        4 => Just(" ".to_owned()),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_output_does_not_depend_on_how_the_input_is_cut(
        text in sample(), places in proptest::collection::btree_set(0usize..1500, 0..40),
    ) {
        let whole = redacted_at(&text, &BTreeSet::new(), false);
        let cut = redacted_at(&text, &places, false);
        let lines = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        let by_line = redacted_at(&text, &lines, false);
        prop_assert_eq!(String::from_utf8_lossy(&cut), String::from_utf8_lossy(&whole));
        prop_assert_eq!(String::from_utf8_lossy(&by_line), String::from_utf8_lossy(&whole));
    }

    #[test]
    fn a_flush_anywhere_lets_no_value_out(
        text in sample(), places in proptest::collection::btree_set(0usize..1500, 0..40),
    ) {
        let spaced = [&text[..], b"\n"].concat();
        let out = redacted_at(&spaced, &places, true);
        let whole = redacted_at(&spaced, &BTreeSet::new(), false);
        for value in [STRIPE, STORED_VALUE, STORED_TOKEN, "hunter2 0000", "MadeUp0000Pass", "KeymoatTestqwertz"] {
            let count = |text: &[u8]| text.windows(value.len()).filter(|piece| *piece == value.as_bytes()).count();
            prop_assert!(count(&out) <= count(&whole), "{value} {}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn what_was_taken_out_stays_out_and_nothing_more_goes(text in sample()) {
        let once = redacted_at(&text, &BTreeSet::new(), false);
        let twice = redacted_at(&once, &BTreeSet::new(), false);
        prop_assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&once));
    }

    #[test]
    fn any_bytes_go_through(text in proptest::collection::vec(any::<u8>(), 0..400), places in proptest::collection::btree_set(0usize..400, 0..9)) {
        prop_assert_eq!(redacted_at(&text, &places, false), redacted_at(&text, &BTreeSet::new(), false));
    }
}

#[test]
fn a_complete_line_goes_out_at_once() {
    let mut redactor = Redactor::new(engine());
    let mut out = Vec::new();
    let Ok(()) = redactor.push(format!("one\nkey {STRIPE}\nthr").as_bytes(), &mut out);
    assert_eq!(out, b"one\nkey [redacted:stripe/live_secret]\n");
    let Ok(()) = redactor.push(b"ee\n", &mut out);
    assert!(out.ends_with(b"\nthree\n") && !redactor.is_waiting());
    assert_eq!(redactor.removed(), 1);
}

#[test]
fn an_unfinished_line_goes_out_up_to_what_may_be_secret() {
    let check = |line: &str, expected: &str| {
        let mut redactor = Redactor::new(engine());
        let mut out = Vec::new();
        let Ok(()) = redactor.push(line.as_bytes(), &mut out);
        let Ok(()) = redactor.flush(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected, "{line}");
        let Ok(()) = redactor.finish(&mut out);
        assert!(out.starts_with(expected.as_bytes()));
    };
    check("working ", "working ");
    check("working on it", "working on ");
    check("Password: ", "Password: ");
    check("Password: hun", "");
    check("is sk_live_51Made", "is ");
    check("the password = \"hun ", "the ");
    check("at postgres://shop:Ma de", "at ");
    check("see -----BEGIN PRIVATE ", "see ");
    check("say \"a b ", "say ");
}

/// One line of a megabyte, with keys where it is cut.
#[test]
fn lines_longer_than_a_block() {
    let mut text = "word,".repeat(BLOCK).into_bytes();
    let cut = BLOCK - Engine::MARGIN;
    for place in [3 * cut + 5, 2 * cut - 1, BLOCK - 10, cut - 20] {
        let place = place / 5 * 5;
        text.splice(place..place, format!("{STRIPE},").bytes());
    }
    let whole = redacted_at(&text, &BTreeSet::new(), false);
    assert!(!whole.windows(20).any(|piece| piece == &STRIPE.as_bytes()[..20]));
    assert_eq!(whole.windows(10).filter(|piece| *piece == &MARKER[..10]).count(), 4);
    let places = (0..text.len()).step_by(7919).collect();
    assert!(redacted_at(&text, &places, false) == whole);
}

/// A private key on one line, cut in its middle.
#[test]
fn a_private_key_where_a_line_is_cut() {
    let body = "MadeUpExample0000KeymoatTestqwertzuiopasdfghjklyxcvbnm1234567890\\n".repeat(120);
    let key = format!("-----BEGIN PRIVATE KEY-----\\n{body}-----END PRIVATE KEY-----");
    for before in [BLOCK - Engine::MARGIN - 4000, BLOCK - Engine::MARGIN - 10, BLOCK - 4000, BLOCK - 10] {
        let text = format!("{}\"{key}\" after {STRIPE}\n", ",".repeat(before));
        let out = redacted(&text);
        assert!(!out.contains("KeymoatTestqwertz"), "{before}");
        assert!(
            out.ends_with("-----END PRIVATE KEY-----\" after [redacted:stripe/live_secret]\n"),
            "{before}: {}",
            &out[out.len() - 200..]
        );
    }
}
