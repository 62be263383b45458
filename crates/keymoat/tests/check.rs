//! `keymoat scan --check` against stubs of the providers' documented APIs: what is sent where, what becomes of the
//! answers, and what is never done. `testkit/stubs/providers.toml` has the APIs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "common/authority.rs"]
mod authority;
mod common;
#[path = "common/stub.rs"]
mod stub;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use authority::Authority;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use common::{Done, Home};
use keymoat_detect::{Catalogue, Key, Provider, Question};
use serde::Deserialize;
use serde_json::Value;
use stub::{Answer, Asked, Stub};

/// The documented API of a provider, as far as a check calls it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    provider: String,
    field: String,
    /// The requests, in the order in which they come when each says that the key is dead.
    ask: Vec<Ask>,
    /// Values of settings that stand beside the key.
    #[serde(default)]
    settings: BTreeMap<String, String>,
    alive: Said,
    /// What the report calls the account.
    account: Option<String>,
    dead: Said,
    /// The documentation of request and answers.
    source: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// `GET https://HOST/PATH`; `{name}` stands for a value.
    url: String,
    /// Headers that must be there; `{basic:USER:PASSWORD}` is what RFC 7617 makes of them, `{sigv4:SERVICE:REGION}` the
    /// signature of AWS at the time that the request names.
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    status: u16,
    #[serde(default)]
    body: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Rows {
    row: Vec<Row>,
}

fn rows() -> Vec<Row> {
    let text = include_str!("../../../testkit/stubs/providers.toml");
    toml::from_str::<Rows>(text).unwrap().row
}

/// A key, and by their names all values that its requests may hold.
fn values(row: &Row, provider: &Provider, key: &Key) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> = row.settings.clone();
    for other in provider.keys.iter().rev() {
        values.insert(other.field.clone(), other.examples[0].clone());
    }
    let value = key.examples[0].clone();
    for part in key.part_names() {
        let text = key.part(value.as_bytes(), part).unwrap();
        values.insert(part.to_owned(), String::from_utf8(text.to_vec()).unwrap());
    }
    values.insert(key.field.clone(), value);
    values
}

/// Settings as a project has them: the key, and what goes along with it, each in its variable.
fn file(provider: &Provider, key: &Key, question: &Question, values: &BTreeMap<String, String>) -> String {
    let mut text = format!("{}={}\n", key.variables[0], values[&key.field]);
    for name in question.needs(key) {
        let keys = provider.keys.iter().filter(|key| key.field == name).map(|key| &key.variables);
        let settings =
            provider.settings.iter().filter(|setting| setting.name == name).map(|setting| &setting.variables);
        let variables = keys.chain(settings).next().unwrap_or_else(|| panic!("{name}"));
        text.push_str(&format!("{}={}\n", variables[0], values[name]));
    }
    text
}

fn filled(template: &str, values: &BTreeMap<String, String>) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    if let Some((before, rest)) = text.split_once("{basic:") {
        let (pair, after) = rest.rsplit_once('}').unwrap();
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        text = format!("{before}Basic {pair}{after}");
    }
    text
}

/// The provider's file with its hosts at the stub; the original host leads the path.
fn pointed_at(id: &str, port: u16) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../detect/catalogue/{id}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    // Where the key stands before the path, the host stands before the key.
    let path = text.split_once("scheme = \"path\"").map(|(_, rest)| {
        let host = rest.split_once("base_url = \"https://").unwrap().1;
        host.split(['/', '"']).next().unwrap().to_owned()
    });
    let lines = text.lines().map(|line| {
        let word = line.split(' ').next().unwrap_or_default();
        match word {
            "hosts" => "hosts = [\"127.0.0.1\"]".to_owned(),
            "how" | "request" | "base_url" | "test_base_url" => match &path {
                Some(host) => line
                    .replace(&format!("https://{host}"), &format!("https://127.0.0.1:{port}"))
                    .replace("prefix = \"", &format!("prefix = \"/{host}")),
                None => line.replace("https://", &format!("https://127.0.0.1:{port}/")),
            },
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is wrong with a request; else what the API answers.
fn answer(
    row: &Row,
    values: &BTreeMap<String, String>,
    asked: &Asked,
    alive: bool,
) -> Result<Answer, String> {
    let url = format!("{} https://{}{}", asked.method, asked.headers["host"], asked.target);
    let ask = row.ask.iter().find(|ask| filled(&ask.url, values) == url);
    let Some(ask) = ask else { return Err(format!("{}: no such request: {url}", row.provider)) };
    for (name, value) in &ask.headers {
        let scope = value.strip_prefix("{sigv4:").and_then(|rest| rest.strip_suffix('}')?.split_once(':'));
        let value = match scope {
            Some((service, region)) => signed(asked, values, service, region),
            None => filled(value, values),
        };
        if asked.headers.get(name) != Some(&value) {
            return Err(format!("{}: `{name}` is not `{value}`: {asked:?}", row.provider));
        }
    }
    if asked.body != filled(&ask.body, values) {
        return Err(format!("{}: another body: {asked:?}", row.provider));
    }
    let said = if alive { &row.alive } else { &row.dead };
    let headers = said.headers.clone().into_iter().collect();
    Ok(Answer { status: said.status, headers, body: said.body.clone() })
}

/// The `Authorization` of a GET request to AWS (Signature Version 4), with the time that it names.
fn signed(asked: &Asked, values: &BTreeMap<String, String>, service: &str, region: &str) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mac = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
    };
    let (time, host) = (&asked.headers["x-amz-date"], &asked.headers["host"]);
    let (path, query) = asked.target.split_once('?').unwrap();
    let empty = hex(digest(&SHA256, b"").as_ref());
    let canonical =
        format!("GET\n{path}\n{query}\nhost:{host}\nx-amz-date:{time}\n\nhost;x-amz-date\n{empty}");
    let scope = format!("{}/{region}/{service}/aws4_request", &time[..8]);
    let text =
        format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let first = format!("AWS4{}", values["secret_access_key"]).into_bytes();
    let key =
        [&time[..8], region, service, "aws4_request"].into_iter().fold(first, |key, part| mac(&key, part));
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=host;x-amz-date, Signature={}",
        values["access_key_id"],
        hex(&mac(&key, &text))
    )
}

fn scan(home: &Home, flags: &[&str]) -> Done {
    let mut command = home.command(&[&["scan", "--catalogue", "catalogue"], flags].concat());
    common::done(command.env("SSL_CERT_FILE", home.path().join("ca.pem")).output().unwrap())
}

fn found(done: &Done) -> Vec<Value> {
    let document: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    document["findings"].as_array().unwrap().clone()
}

/// Every row with its values, and the file with each key in `shop`; whatever has no row is told.
fn served(home: &Home, catalogue: &Catalogue) -> Vec<(Row, BTreeMap<String, String>)> {
    let (rows, mut served, mut without) = (rows(), Vec::new(), BTreeSet::new());
    for provider in catalogue.providers() {
        for (number, check) in provider.checks.iter().enumerate() {
            let key = provider.keys.iter().find(|key| key.field == check.field).unwrap();
            let name = format!("{} {}", provider.id, check.field);
            let question = Question::about(provider, key).unwrap_or_else(|error| panic!("{name}: {error}"));
            let row = rows.iter().find(|row| row.provider == provider.id && row.field == check.field);
            let Some(row) = row.cloned() else {
                without.insert(name);
                continue;
            };
            assert!(row.source.starts_with("https://"), "{name}");
            let values = values(&row, provider, key);
            home.file(&format!("shop/{}{number}.env", provider.id), &file(provider, key, &question, &values));
            served.push((row, values));
        }
    }
    assert!(without.is_empty(), "`testkit/stubs/providers.toml` has no rows for: {without:?}");
    assert_eq!(served.len(), rows.len(), "`testkit/stubs/providers.toml` has rows that no check asks for");
    served
}

/// The hosts that are asked.
fn hosts(served: &[(Row, BTreeMap<String, String>)]) -> Vec<String> {
    let urls = served.iter().flat_map(|(row, values)| row.ask.iter().map(|ask| filled(&ask.url, values)));
    let hosts: BTreeSet<String> = urls
        .map(|url| url.split_once("https://").unwrap().1.split(['/', '?']).next().unwrap().to_owned())
        .collect();
    hosts.into_iter().collect()
}

#[test]
fn each_check_of_the_catalogue_is_run_against_a_stub_of_its_documentation() {
    let (home, authority) = (Home::new(), Authority::new());
    home.file("ca.pem", &authority.pem);
    std::fs::create_dir(home.path().join("shop")).unwrap();
    let catalogue = Catalogue::builtin();
    let served = served(&home, catalogue);
    let alive = Arc::new(AtomicBool::new(true));
    let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
    // The providers that were asked, one for each request.
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (is_alive, said, seen, known) =
        (Arc::clone(&alive), Arc::clone(&wrong), Arc::clone(&asked), served.clone());
    // It answers in place of every host, so what is asked goes where the catalogue says.
    let stub = Stub::behind_proxy(&authority, &hosts(&served), move |asked| {
        let alive = is_alive.load(Ordering::SeqCst);
        let mut errors = Vec::new();
        for (row, values) in &known {
            match answer(row, values, asked, alive) {
                Ok(answer) => {
                    seen.lock().unwrap().push(row.provider.clone());
                    return answer;
                }
                Err(error) => errors.push(error),
            }
        }
        said.lock().unwrap().push(errors.join("; "));
        Answer { status: 418, ..Answer::default() }
    });
    let check = |result: &str| {
        let mut command = home.command(&["scan", "shop", "--check", "--format", "json"]);
        command.env("SSL_CERT_FILE", home.path().join("ca.pem"));
        command.env("HTTPS_PROXY", format!("http://127.0.0.1:{}", stub.port));
        let done = common::done(command.output().unwrap());
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(&format!("through the proxy 127.0.0.1:{}", stub.port)), "{done:?}");
        let findings = found(&done);
        for (row, values) in &served {
            let (id, key) = (&row.provider, &values[&row.field]);
            assert!(!format!("{done:?}").contains(key.as_str()), "{id}: the value is in what it says");
            let mine = findings.iter().find(|finding| {
                let mask = finding["mask"].as_str().unwrap();
                finding["provider"] == id.as_str() && catalogue.mask(key.as_bytes()) == mask
            });
            let mine = mine.unwrap_or_else(|| panic!("{id} {}: not found\n{}", row.field, done.stdout));
            let errors = wrong.lock().unwrap();
            assert_eq!(mine["check"]["result"], result, "{id}: {}\n{errors:#?}", mine["check"]);
            let account = (result == "active").then_some(row.account.as_deref()).flatten();
            assert_eq!(mine["check"]["account"].as_str(), account, "{id}");
        }
    };
    let requests = |of: &str| asked.lock().unwrap().iter().filter(|provider| *provider == of).count();
    let expected = |of: &str, each: fn(&Row) -> usize| -> usize {
        served.iter().filter(|(row, _)| row.provider == of).map(|(row, _)| each(row)).sum()
    };
    check("active");
    for (row, _) in &served {
        // Alive after one request each.
        assert_eq!(requests(&row.provider), expected(&row.provider, |_| 1), "{}", row.provider);
    }
    asked.lock().unwrap().clear();
    alive.store(false, Ordering::SeqCst);
    check("dead");
    assert!(wrong.lock().unwrap().is_empty(), "{:#?}", wrong.lock().unwrap());
    for (row, _) in &served {
        // Dead after all that there are.
        assert_eq!(requests(&row.provider), expected(&row.provider, |row| row.ask.len()), "{}", row.provider);
    }
}

#[test]
fn a_proxy_is_used_but_for_those_that_are_excepted() {
    let (home, stub) = shop(|_| says(200, "{}"));
    let results = |variables: &[(&str, &str)]| {
        let mut command =
            home.command(&["scan", "--catalogue", "catalogue", "shop", "--check", "--format", "json"]);
        command.env("SSL_CERT_FILE", home.path().join("ca.pem")).envs(variables.iter().copied());
        let done = common::done(command.output().unwrap());
        match done.code {
            1 => {
                let said =
                    |finding: &Value| format!("{} {}", finding["check"]["result"], finding["check"]["why"]);
                Ok(found(&done).iter().map(said).collect::<Vec<_>>())
            }
            _ => Err(done),
        }
    };
    // A proxy that hangs up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://ann:made-up@{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let said = results(&[(variable, &proxy)]).unwrap();
        assert!(said.iter().all(|said| said.contains("the connection to the proxy broke")), "{said:?}");
        assert!(!format!("{said:?}").contains("made-up"), "{said:?}");
        assert_eq!(stub.asked().len(), 0);
    }
    for (variable, number) in [("NO_PROXY", 2), ("no_proxy", 4)] {
        let said = results(&[("HTTPS_PROXY", &proxy), (variable, "elsewhere.test,127.0.0.1")]).unwrap();
        assert!(said.iter().all(|said| said.contains("active")), "{said:?}");
        assert_eq!(stub.asked().len(), number);
    }
    let done = results(&[("HTTPS_PROXY", "socks5://ann:made-up@127.0.0.1:1080")]).unwrap_err();
    assert!(done.code == 2 && done.stderr.contains("HTTPS_PROXY"), "{done:?}");
    assert!(!done.stderr.contains("made-up"), "{done:?}");
}

#[test]
fn whose_a_value_is_and_whether_it_works() {
    let (home, authority) = (Home::new(), Authority::new());
    home.file("ca.pem", &authority.pem);
    let stub = Stub::behind_proxy(&authority, &["api.github.com".to_owned()], |asked| {
        assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}"));
        says(200, r#"{"login": "made-up"}"#)
    });
    let identify = |flags: &[&str], value: &str| {
        let mut command = home.command(&[&["identify"], flags].concat());
        command.env("SSL_CERT_FILE", home.path().join("ca.pem"));
        command.env("HTTPS_PROXY", format!("http://127.0.0.1:{}", stub.port));
        common::feed(command, value)
    };
    let done = identify(&[], TOKEN);
    assert!(done.code == 0 && stub.asked().is_empty(), "{done:?}");
    let done = identify(&["--check"], TOKEN);
    assert!(done.code == 0 && done.stdout.ends_with("\nactive (made-up)\n"), "{done:?}");
    assert!(done.stderr.contains("asks api.github.com (1 key) through the proxy"), "{done:?}");
    let done = identify(&["--check", "--format", "json"], TOKEN);
    let said: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(said["check"], serde_json::json!({ "result": "active", "account": "made-up" }));
    assert!(!format!("{done:?}").contains(TOKEN), "{done:?}");
    // What belongs to a host of one's own, what is not secret, and what nobody knows.
    let asked = stub.asked().len();
    for (value, code, part) in [
        ("cs_0000a1b2c3d4e5f60718293a4b5c6d7e8f90a0b1", 0, "unknown: no check is known"),
        ("pk_live_51MadeUpExample0000KeymoatTest", 0, "unknown: no check is known"),
        ("made up words", 1, "unknown"),
    ] {
        let done = identify(&["--check"], value);
        assert!(done.code == code && done.stdout.contains(part), "{value}: {done:?}");
    }
    assert_eq!((asked, stub.asked().len()), (2, 2));
    assert_eq!(identify(&["--check", "--server", "https://127.0.0.1:1"], TOKEN).code, 2);
}

const TOKEN: &str = "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";
const OTHER: &str = "sk_live_51MadeUpExample0000Keymoat4242";

/// A directory with a GitHub token in two files and a Stripe key, both providers at one stub that answers so.
fn shop(answer: impl Fn(&Asked) -> Answer + Send + 'static) -> (Home, Stub) {
    let (home, authority) = (Home::new(), Authority::new());
    home.file("ca.pem", &authority.pem);
    let stub = Stub::start(&authority, answer);
    for dir in ["catalogue", "shop"] {
        std::fs::create_dir(home.path().join(dir)).unwrap();
    }
    for id in ["github", "stripe"] {
        home.file(&format!("catalogue/{id}.toml"), &pointed_at(id, stub.port));
    }
    home.file("shop/a.env", &format!("GITHUB_TOKEN={TOKEN}\n"));
    home.file("shop/b.py", &format!("token = '{TOKEN}'\nSTRIPE_SECRET_KEY = '{OTHER}'\n"));
    (home, stub)
}

fn says(status: u16, body: &str) -> Answer {
    Answer { status, body: body.to_owned(), ..Answer::default() }
}

#[test]
fn without_check_nothing_is_asked() {
    let (home, stub) = shop(|_| says(200, "{}"));
    let done = scan(&home, &["shop"]);
    assert!(done.code == 1 && !done.stdout.contains("Checked with the providers"), "{done:?}");
    assert!(done.stderr.is_empty(), "{done:?}");
    assert_eq!(stub.asked(), []);
    let staged = scan(&home, &["--staged", "--check"]);
    assert!(staged.code == 2 && staged.stderr.contains("--staged"), "{staged:?}");
    assert_eq!(home.run(&["hook", "run", "--check"]).code, 2);
}

#[test]
fn a_value_is_asked_once_and_the_report_tells_the_answer() {
    let (home, stub) = shop(|asked| match asked.target.contains("github") {
        true => says(401, r#"{"message": "Bad credentials"}"#),
        // An account that repeats the key is not shown, nor one that moves the cursor.
        false => says(200, &format!(r#"{{"id": "acct_0000\u001b[2J", "email": "{OTHER}"}}"#)),
    });
    let done = scan(&home, &["shop", "--check"]);
    assert_eq!(stub.asked().len(), 2, "{:?}", stub.asked());
    let host = format!("asks 127.0.0.1:{} (2 keys); nothing else is sent", stub.port);
    assert!(done.stderr.contains(&host), "{done:?}");
    for part in [
        "CRITICAL  Stripe\n",
        "      active",
        "DEAD  GitHub\n",
        "      dead\n",
        "2 exposed keys: 1 critical, 1 dead. Checked with the providers: 1 active, 1 dead, 0 unknown.",
    ] {
        assert!(done.stdout.contains(part), "{part}\n{}", done.stdout);
    }
    assert!(done.stdout.find("Stripe").unwrap() < done.stdout.find("GitHub").unwrap(), "{}", done.stdout);
    for (form, part) in [("json", r#""result": "active""#), ("html", "Its provider says: active")] {
        let done = scan(&home, &["shop", "--check", "--format", form]);
        assert!(done.code == 1 && done.stdout.contains(part), "{form}: {done:?}");
        for secret in [TOKEN, OTHER, "\u{1b}"] {
            assert!(!done.stdout.contains(secret) && !done.stderr.contains(secret), "{form}: {done:?}");
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Authority::new();
    let trap = Stub::start(&elsewhere, |_| says(200, "{}"));
    let port = trap.port;
    let (home, stub) = shop(move |_| Answer {
        status: 302,
        headers: vec![("Location".to_owned(), format!("https://127.0.0.1:{port}/user"))],
        ..Answer::default()
    });
    let done = scan(&home, &["shop", "--check", "--format", "json"]);
    for finding in found(&done) {
        assert_eq!(finding["check"]["result"], "unknown", "{finding}");
        assert!(finding["check"]["why"].as_str().unwrap().contains("302"), "{finding}");
    }
    assert_eq!((stub.asked().len(), trap.asked().len()), (2, 0));
}

#[test]
fn a_key_goes_to_no_host_that_is_not_listed_and_to_nobody_who_is_not_trusted() {
    let (home, stub) = shop(|_| says(200, "{}"));
    let text =
        home.read("catalogue/github.toml").replace("hosts = [\"127.0.0.1\"]", "hosts = [\"api.github.com\"]");
    home.file("catalogue/github.toml", &text);
    let why = |done: &Done, provider: &str| {
        let findings = found(done);
        let mine = findings.iter().find(|finding| finding["provider"] == provider).unwrap();
        mine["check"]["why"].as_str().unwrap_or_default().to_owned()
    };
    let done = scan(&home, &["shop", "--check", "--format", "json"]);
    assert!(why(&done, "github").contains("not one of those"), "{done:?}");
    assert_eq!(stub.asked().len(), 1);
    home.file("ca.pem", &Authority::new().pem);
    let done = scan(&home, &["shop", "--check", "--format", "json"]);
    assert!(why(&done, "stripe").contains("cannot be reached"), "{done:?}");
    assert!(stub.asked()[1..].iter().all(|asked| *asked == Asked::default()), "{:?}", stub.asked());
}

#[test]
fn a_pair_that_may_be_another_one_is_never_called_dead() {
    let (home, stub) = shop(|_| says(401, "{}"));
    home.file("catalogue/twilio.toml", &pointed_at("twilio", stub.port));
    let result = |sids: &[&str]| {
        let sids: String = sids.iter().map(|sid| format!("TWILIO_ACCOUNT_SID={sid}\n")).collect();
        home.file("shop/a.env", &format!("TWILIO_AUTH_TOKEN=0000b1c2d3e4f5061728394a5b6c7d8e\n{sids}"));
        let findings = found(&scan(&home, &["shop/a.env", "--check", "--format", "json"]));
        format!("{} {}", findings[0]["check"]["result"], findings[0]["check"]["why"])
    };
    let (sid, other) = ("AC0000a1b2c3d4e5f60718293a4b5c6d7e", "AC0000a1b2c3d4e5f60718293a4b5c0001");
    assert_eq!(result(&[sid, sid]), "\"dead\" null");
    assert!(
        result(&[sid, other]).contains("does not go with what stands nearest"),
        "{}",
        result(&[sid, other])
    );
}

#[test]
fn what_is_no_answer_leaves_a_key_unknown() {
    let why = |answer: fn() -> Answer| {
        let (home, _) = shop(move |_| answer());
        home.file("shop/a.env", "TWILIO_AUTH_TOKEN=0000b1c2d3e4f5061728394a5b6c7d8e\n");
        home.file("shop/b.py", &format!("STRIPE_SECRET_KEY = '{OTHER}'\n"));
        let findings = found(&scan(&home, &["shop", "--check", "--format", "json"]));
        findings
            .iter()
            .map(|finding| {
                let said = &finding["check"];
                (
                    finding["provider"].as_str().unwrap().to_owned(),
                    format!("{} {}", said["result"], said["why"]),
                )
            })
            .collect::<BTreeMap<_, _>>()
    };
    for (answer, part) in [
        ((|| says(429, "{}")) as fn() -> Answer, "429"),
        (|| says(503, "no"), "503"),
        (|| says(418, ""), "says nothing"),
        // A body without end is not read.
        (|| says(200, &"x".repeat(1 << 20)), "\"active\" null"),
    ] {
        let why = why(answer);
        assert!(why["stripe"].contains(part), "{part}: {why:?}");
        assert!(why["twilio"].contains("account_sid"), "{why:?}");
    }
}
