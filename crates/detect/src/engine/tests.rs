use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Catalogue::builtin()));
    &ENGINE
}

fn find(text: &[u8], region: Range<usize>) -> Vec<Hit> {
    let mut hits = Vec::new();
    engine().find(text, region, &mut Scratch::default(), &mut hits);
    hits
}

/// `rule value` of each hit, with the encoding where there is one.
fn described(text: &str) -> Vec<String> {
    find(text.as_bytes(), 0..text.len())
        .iter()
        .map(|hit| {
            let value = hit.with_value(text.as_bytes(), |value| String::from_utf8_lossy(value).into_owned());
            let encoding = match hit.encoding {
                Encoding::Plain => String::new(),
                other => format!(" ({})", other.as_str()),
            };
            format!("{} {value}{encoding}", engine().rule(hit.rule).name())
        })
        .collect()
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(described(text), expected, "{text}");
}

const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatTest";

#[test]
fn keys_by_their_prefix() {
    let found = &[&*format!("stripe/live_secret {STRIPE}")];
    for around in [
        "KEY",
        "a KEY b",
        "\"KEY\"",
        "k=KEY",
        "k=KEY;",
        "k:KEY,",
        "https://a.test/KEY/b",
        "a\\nKEY\\nb",
        "a%3DKEY",
        "<k>KEY</k>",
        "x-KEY",
        "KEY.",
        "(KEY)",
    ] {
        check(&around.replace("KEY", STRIPE), found);
    }
    check(&format!("a{STRIPE}"), &[]);
    check(&format!("{STRIPE}_"), &[]);
    check("pk_live_51MadeUpExample0000KeymoatTest", &[]);
    check("sk_live_xxxxxxxxxxxxxxxxxxxxxxxx", &[]);
    check("km_live_MadeUpIssuedKeyOfSomebodysApi0KeymoatExampl0I8fcQ", &[]);
    check(
        "km_live_MadeUpIssuedKeyOfSomebodysApi0KeymoatExampl0I8fcP",
        &["keymoat/issued_key km_live_MadeUpIssuedKeyOfSomebodysApi0KeymoatExampl0I8fcP"],
    );
}

#[test]
fn keys_in_other_forms() {
    let check_form =
        |text: &str, form: &str| check(text, &[&format!("stripe/live_secret {STRIPE} ({form})")]);
    let base64 = "c2tfbGl2ZV81MU1hZGVVcEV4YW1wbGUwMDAwS2V5bW9hdFRlc3Q=";
    check_form(&format!("data: {base64}\n"), "base64");
    check_form(
        "x: YzJ0ZmJHbDJaVjgxTVUxaFpHVlZjRVY0WVcxd2JHVXdNREF3UzJWNWJXOWhkRlJsYzNRPQ==",
        "base64, twice",
    );
    let hex: String = STRIPE.bytes().map(|byte| format!("{byte:02x}")).collect();
    check_form(&format!("x {hex} y"), "hexadecimal");
    check_form("?k=sk%5Flive%5F51MadeUpExample0000KeymoatTest&l=m", "percent-encoded");
    check_form("\"sk\\u005flive\\u005f51MadeUpExample0000KeymoatTest\"", "escaped");
    check_form("'sk\\x5flive_51MadeUpExample0000KeymoatTest'", "escaped");
    check_form("k = \"sk_live_51MadeUp\" + \"Example0000KeymoatTest\"", "split");
    check_form("k = (\"sk_live_51MadeUpExample\"\n     \"0000KeymoatTest\")", "split");
    check_form("k = 'sk_live_51MadeUpExample' .\n  '0000KeymoatTest'", "split");
    check("k = \"sk_live_51MadeUp\", \"Example0000KeymoatTest\"", &[]);
}

#[test]
fn what_somebody_has_allowed() {
    check(&format!("{STRIPE} # keymoat:allow made up for a test"), &[]);
    check(&format!("{STRIPE} # keymoat:allow"), &[&format!("stripe/live_secret {STRIPE}")]);
}

proptest! {
    #[test]
    fn any_bytes_can_be_searched(text in proptest::collection::vec(any::<u8>(), 0..400), from in 0usize..500, len in 0usize..500) {
        for hit in find(&text, from..from + len) {
            prop_assert!(hit.span.start >= from && hit.span.end <= text.len());
        }
    }
}
