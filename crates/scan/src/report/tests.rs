//! Reports of made-up findings: what each form says, and what it must never say.

use keymoat_detect::{Catalogue, Encoding, RuleId};

use super::*;
use crate::FingerprintKey;
use crate::place::{CommitRef, Historic, Inside, Place, Source, Standing};
use crate::rows::Cell;

/// 2021-03-04T12:00:00Z.
const MARCH: i64 = 1_614_859_200;
const YEAR: i64 = 31_536_000;

/// Two providers are enough, and load sooner than all.
fn catalogue() -> Catalogue {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    Catalogue::of(&[
        file("shopify.toml", include_str!("../../../detect/catalogue/shopify.toml")),
        file("stripe.toml", include_str!("../../../detect/catalogue/stripe.toml")),
    ])
    .unwrap()
}

fn rule(engine: &Engine, name: &str) -> RuleId {
    engine.rules().find(|rule| rule.name() == name).unwrap().id
}

fn commit(id: char, authored: i64) -> CommitRef {
    CommitRef {
        id: id.to_string().repeat(40),
        author: "Ann <ann@acme.test>".to_owned(),
        authored,
        title: "=Add payments, \"all\" of them <b>".to_owned(),
    }
}

fn historic(path: &str, line: u64, standing: Standing, first: CommitRef) -> Place {
    let historic = Historic {
        path: path.to_owned(),
        blob: "b".repeat(40),
        versions: 2,
        standing,
        first: Some(first.clone()),
        last: Some(first),
    };
    Place { source: Source::History(Box::new(historic)), line, column: 7, encoding: Encoding::Plain }
}

fn file(path: &str, line: u64) -> Place {
    Place { source: Source::File(path.to_owned()), line, column: 1, encoding: Encoding::Base64 }
}

fn finding(engine: &Engine, name: &str, value: &str, places: Vec<Place>) -> Finding {
    let rule = rule(engine, name);
    let fingerprint = FingerprintKey::new([7; 32]).of(value.as_bytes());
    let mask = catalogue().mask(value.as_bytes());
    let severity = engine.rule(rule).severity;
    Finding { rule, fingerprint, mask, severity, places, unlisted: 0 }
}

const LIVE: &str = "sk_live_51MadeUpExample0000Keymoat4242";
const TEST: &str = "sk_test_51MadeUpExample0000Keymoat4242";
const TOKEN: &str = "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";

/// A repository with a live key in HEAD and its history, a test key, and another one's that is in its history only.
fn searched(engine: &Engine) -> Vec<Searched> {
    let findings = vec![
        finding(
            engine,
            "stripe/test_secret",
            TEST,
            vec![historic("a.py", 1, Standing::Head, commit('a', MARCH))],
        ),
        finding(
            engine,
            "shopify/access_token",
            TOKEN,
            vec![historic("old/shop.py", 3, Standing::History, commit('c', MARCH - YEAR))],
        ),
        finding(
            engine,
            "stripe/live_secret",
            LIVE,
            vec![
                file(".env.production", 4),
                file("shop/settings.py", 12),
                historic("shop/settings.py", 12, Standing::Head, commit('a', MARCH)),
                historic("<b>deploy/staging.env", 3, Standing::History, commit('b', MARCH + YEAR)),
            ],
        ),
    ];
    let remote = Remote { host: "github.com".to_owned(), path: "acme/shop".to_owned() };
    let read = vec![("commits", 53_734), ("bytes", 3_835_000_000)];
    let target = Target { name: ".".to_owned(), is_submodule: false, remotes: vec![remote], read };
    vec![Searched { target, findings }]
}

fn report_of(searched: Vec<Searched>, engine: &Engine, baseline: Option<Baseline>) -> Report {
    let troubles = Troubles::default();
    troubles.add("pack-1.pack", "is cut short");
    let about = About {
        version: "0.1.0".to_owned(),
        made: MARCH + 2 * YEAR,
        warnings: vec!["`.env` is not ignored".to_owned()],
    };
    Report::new(engine, searched, baseline, &troubles, about)
}

fn report() -> Report {
    let engine = Engine::new(&catalogue());
    report_of(searched(&engine), &engine, None)
}

#[test]
fn the_most_urgent_comes_first_and_test_keys_last() {
    let report = report();
    let order: Vec<(&str, &str)> =
        report.findings.iter().map(|finding| (finding.rule.as_str(), finding.level.as_str())).collect();
    assert_eq!(
        order,
        [
            ("stripe/live_secret", "critical"),
            ("shared-between-environments", "critical"),
            ("shopify/access_token", "critical"),
            ("stripe/test_secret", "low"),
        ]
    );
    let live = &report.findings[0];
    let places: Vec<String> = live.spots.iter().map(Spot::place).collect();
    // The file as it is and the same file in HEAD are one place.
    assert_eq!(places, ["shop/settings.py:12", "<b>deploy/staging.env:3", ".env.production:4"]);
    assert_eq!((live.reach, live.looks_public, live.since), (Reach::Head, true, Some(MARCH)));
}

#[test]
fn what_works_comes_first_and_what_is_dead_last() {
    let mut report = report();
    report.tell(|finding| {
        let shared = finding.fingerprint != finding.value;
        Some(match finding.rule.as_str() {
            "shopify/access_token" => Liveness::Active { account: Some("Acme\u{1b}[2J".to_owned()) },
            "stripe/test_secret" => Liveness::Unknown { why: "no answer within 10 s".to_owned() },
            _ => {
                // Two findings about one value have one answer.
                assert!(shared || finding.rule == "stripe/live_secret", "{}", finding.rule);
                Liveness::Dead
            }
        })
    });
    let order: Vec<(&str, &str)> =
        report.findings.iter().map(|finding| (finding.rule.as_str(), finding.heading())).collect();
    assert_eq!(
        order,
        [
            ("shopify/access_token", "critical"),
            ("stripe/test_secret", "test"),
            ("stripe/live_secret", "dead"),
            ("shared-between-environments", "dead"),
        ]
    );
    let summary = report.summary();
    assert!(
        summary.starts_with(
            "4 exposed keys: 1 critical, 1 test, 2 dead. Checked with the providers: 1 active, 2 dead, 1 unknown. "
        ),
        "{summary}"
    );
    for text in [
        report.to_text(Colors::Off),
        report.to_json(),
        report.to_json_lines(),
        report.to_sarif(),
        report.to_html(),
        report.to_csv(),
    ] {
        assert!(text.contains("Acme\u{fffd}[2J") && text.contains("no answer within 10 s"), "{text}");
    }
    let schema = serde_json::from_str(include_str!("../../../../docs/reference/scan.schema.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(schema::check(&schema, &schema, &document, ""), Vec::<String>::new());
}

#[test]
fn the_summary_is_a_few_sentences() {
    let summary = report().summary();
    assert_eq!(
        summary,
        "4 exposed keys: 3 critical, 1 test. In the current version: 2; only in its history: 2. 4 are in a repository that \
         anybody may be able to read. The oldest has been there since 2020-03-04. Begin with the live Stripe secret key in \
         shop/settings.py:12."
    );
    assert_eq!(report().looked_into(), "53,734 commits, 3.8 GB");
}

#[test]
fn a_baseline_leaves_out_what_is_known_wherever_it_stands() {
    let engine = Engine::new(&catalogue());
    let mut baseline = Baseline::new([7; 32]);
    report().findings.iter().filter(|finding| !finding.is_test()).for_each(|finding| baseline.add(finding));
    let mut moved = searched(&engine);
    moved[0].findings[2].places[2].line = 99;
    let report = report_of(moved, &engine, Some(baseline.clone()));
    assert_eq!((report.findings.len(), report.known), (1, 3));
    assert_eq!(report.findings[0].rule, "stripe/test_secret");
    // A known key in a third environment is news.
    let mut spread = searched(&engine);
    spread[0].findings[2].places.push(file("dev.env", 1));
    let report = report_of(spread, &engine, Some(baseline.clone()));
    assert_eq!(report.findings[0].rule, "shared-between-environments");
    assert!(
        report.findings[0].title.ends_with(": the same in dev and prod and staging"),
        "{:?}",
        report.findings[0]
    );
}

#[test]
fn a_key_of_two_companies_is_a_finding_of_its_own() {
    let engine = Engine::new(&catalogue());
    let cell = |row: &str, company: &str| {
        let cell = Cell {
            table: "payment_provider".to_owned(),
            column: "stripe_secret_key".to_owned(),
            row: row.to_owned(),
            company: Some(company.to_owned()),
            setting: None,
        };
        let of = Source::File("shop.dump".to_owned());
        let known_as = Some("Odoo › Payment Providers".to_owned());
        let inside = Inside { of, members: vec!["a.sql".to_owned()], cell: Some(cell), known_as };
        Place { source: Source::Inside(Box::new(inside)), line: 0, column: 0, encoding: Encoding::Plain }
    };
    let findings =
        vec![finding(&engine, "stripe/live_secret", LIVE, vec![cell("id 7", "1"), cell("id 8", "2")])];
    let target = Target { name: "shop.dump".to_owned(), ..Target::default() };
    let report = report_of(vec![Searched { target, findings }], &engine, None);
    let shared = report.findings.iter().find(|finding| finding.rule == "shared-between-companies").unwrap();
    assert!(shared.title.ends_with(": the same in company 1 and company 2"), "{shared:?}");
    let place = shared.spots[0].place();
    assert_eq!(
        place,
        "shop.dump › a.sql › Odoo › Payment Providers [payment_provider.stripe_secret_key, id 7]"
    );
    assert_eq!(shared.reach, Reach::Data);
    let schema = serde_json::from_str(include_str!("../../../../docs/reference/scan.schema.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(schema::check(&schema, &schema, &document, ""), Vec::<String>::new());
    assert!(report.to_sarif().contains("\"fullyQualifiedName\": \"shop.dump › a.sql"));
}

#[test]
fn a_value_in_two_targets_is_one_finding() {
    let engine = Engine::new(&catalogue());
    let target = |name: &str| Target { name: name.to_owned(), ..Target::default() };
    let found = |path: &str| vec![finding(&engine, "stripe/live_secret", LIVE, vec![file(path, 1)])];
    let both = vec![
        Searched { target: target("one"), findings: found("a") },
        Searched { target: target("two/"), findings: found("a") },
    ];
    let report = report_of(both, &engine, None);
    let places: Vec<String> = report.findings[0].spots.iter().map(Spot::place).collect();
    assert_eq!((report.findings.len(), places), (1, vec!["one/a:1".to_owned(), "two/a:1".to_owned()]));
}

#[test]
fn no_form_holds_a_value() {
    let report = report();
    let mut baseline = Baseline::new([7; 32]);
    report.findings.iter().for_each(|finding| baseline.add(finding));
    for form in [
        report.to_text(Colors::Off),
        report.to_text(Colors::On),
        report.to_json(),
        report.to_json_lines(),
        report.to_sarif(),
        report.to_csv(),
        report.to_html(),
        baseline.to_text(),
        format!("{report:?}"),
    ] {
        for value in [LIVE, TEST, TOKEN] {
            assert!(!form.contains(&value[12..value.len() - 4]), "{form}");
        }
        assert!(form.contains("sk_live_…4242"), "{form}");
    }
}

#[test]
fn text_is_grouped_and_tells_what_to_do() {
    let text = report().to_text(Colors::Off);
    for part in [
        "CRITICAL  Stripe\n\n  Stripe secret key, live  sk_live_…4242, in a repository that anybody may be able to read\n      shop/settings.py:12  still in HEAD, since 2021-03-04 in aaaaaaaaaa by Ann <ann@acme.test>\n",
        "\n      .env.production:4  in a file, base64\n      fix   Make a new key at Stripe, then revoke this one;",
        "https://dashboard.stripe.com/apikeys\n            keymoat put stripe secret_key=- --env prod\n",
        "TEST  Stripe\n",
        "\nwarning: `.env` is not ignored\nnot read: pack-1.pack is cut short\n",
        "\nLooked into: 53,734 commits, 3.8 GB.\n",
    ] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
    assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
}

#[test]
fn json_is_as_its_schema_says() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/reference/scan.schema.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
    assert_eq!(schema::check(&schema, &schema, &document, ""), Vec::<String>::new());
    let empty = report_of(Vec::new(), &Engine::new(&catalogue()), None);
    let document: serde_json::Value = serde_json::from_str(&empty.to_json()).unwrap();
    assert_eq!(schema::check(&schema, &schema, &document, ""), Vec::<String>::new());
    for (pointer, wrong) in [("/findings", "x".into()), ("/made", 5.into()), ("/more", true.into())] {
        let mut broken: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        match broken.pointer_mut(pointer) {
            Some(place) => *place = wrong,
            None => broken["findings"][0]["level"] = wrong,
        }
        assert!(!schema::check(&schema, &schema, &broken, "").is_empty(), "{pointer}");
    }
    let lines = report().to_json_lines();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    for (line, of) in lines.iter().zip(["finding", "finding", "finding", "finding", "summary"]) {
        assert_eq!(line["type"], of);
        let mut bare = line.clone();
        bare.as_object_mut().unwrap().remove("type");
        assert_eq!(schema::check(&schema, &schema["$defs"][of], &bare, ""), Vec::<String>::new());
    }
}

/// The parts of SARIF 2.1.0 that viewers read; the whole schema may not be copied here.
#[test]
fn sarif_has_what_viewers_read() {
    let sarif: serde_json::Value = serde_json::from_str(&report().to_sarif()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!((rules.len(), results.len()), (4, 7));
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(["error", "warning", "note"].contains(&result["level"].as_str().unwrap()));
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(!uri.contains([' ', '<', ':']) && !uri.starts_with('/'), "{uri}");
        assert!(place["region"]["startLine"].as_u64().unwrap() > 0);
        assert!(result["message"]["text"].as_str().unwrap().ends_with('.'));
    }
    let marks: std::collections::BTreeSet<&str> = results
        .iter()
        .map(|result| result["partialFingerprints"]["keymoatValue/v1"].as_str().unwrap())
        .collect();
    assert_eq!(marks.len(), results.len());
}

#[test]
fn csv_has_a_row_for_each_place() {
    let csv = report().to_csv();
    let rows: Vec<&str> = csv.trim_end_matches("\r\n").split("\r\n").collect();
    assert_eq!(rows.len(), 8);
    assert!(rows[0].starts_with("\u{feff}level,provider,what"));
    assert!(rows[1].contains("\"'=Add payments, \"\"all\"\" of them <b>\""), "{}", rows[1]);
}

#[test]
fn the_page_stands_alone() {
    let html = report().to_html();
    for absent in ["<script", "<img", "<link", "url(", "@import", "<iframe", "<b>deploy"] {
        assert!(!html.contains(absent), "{absent}");
    }
    // Addresses are for people to click on; nothing is fetched.
    for (at, _) in html.match_indices("https://") {
        let before = &html[..at];
        assert!(before.ends_with("href=\"") || before.ends_with("noreferrer\">"), "{}", &html[at..at + 40]);
    }
    for part in ["&lt;b&gt;deploy/staging.env:3", "id=\"f3\"", "In which order to fix", "Could not be read"] {
        assert!(html.contains(part), "{part}");
    }
    for tag in ["table", "section", "article", "ul", "li", "div", "tr", "td", "main"] {
        let (opened, closed) = (
            html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count(),
            html.matches(&format!("</{tag}>")).count(),
        );
        assert_eq!(opened, closed, "{tag}");
    }
}

/// Just enough of JSON Schema to hold a document against the published one.
mod schema {
    use serde_json::Value;

    /// What is wrong, with the place in the document.
    pub fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return check(root, root.pointer(reference.trim_start_matches('#')).unwrap(), value, at);
        }
        let mut wrong = Vec::new();
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => vec![type_of(value)],
        };
        let is = type_of(value);
        if !types.contains(&is) {
            wrong.push(format!("{at} is {is}"));
        }
        if schema["enum"].as_array().is_some_and(|allowed| !value.is_null() && !allowed.contains(value)) {
            wrong.push(format!("{at} is {value}"));
        }
        if schema.get("const").is_some_and(|only| only != value) {
            wrong.push(format!("{at} is {value}"));
        }
        if let (Some(least), Some(items)) = (schema["minItems"].as_u64(), value.as_array())
            && (items.len() as u64) < least
        {
            wrong.push(format!("{at} is too short"));
        }
        if let Some(object) = value.as_object() {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !object.contains_key(name) {
                    wrong.push(format!("{at}/{name} is missing"));
                }
            }
            for (name, member) in object {
                match (schema["properties"].get(name), &schema["additionalProperties"]) {
                    (Some(known), _) => wrong.extend(check(root, known, member, &format!("{at}/{name}"))),
                    (None, Value::Bool(false)) => wrong.push(format!("{at}/{name} is unknown")),
                    (None, Value::Null) => {}
                    (None, other) => wrong.extend(check(root, other, member, &format!("{at}/{name}"))),
                }
            }
        }
        for (number, item) in value.as_array().into_iter().flatten().enumerate() {
            wrong.extend(check(root, &schema["items"], item, &format!("{at}/{number}")));
        }
        wrong
    }

    fn type_of(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}
