//! The engine as a caller sees it: texts in, hits out, wherever the text is cut. Modules have rows of their own.

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
fn keys_that_need_a_name() {
    let token = "9f2c4b7a1e8d3056c1a9e4f7b2d80635";
    let twilio = &[&*format!("twilio/auth_token {token}")];
    for text in [
        "TWILIO_AUTH_TOKEN=VALUE",
        "twilioAuthToken = 'VALUE'",
        "{\"twilio\": {\"auth_token\": \"VALUE\"}}",
        "<twilioAuthToken>\n  VALUE\n</twilioAuthToken>",
        "twilio.auth_token\tVALUE\t2026-01-01",
    ] {
        check(&text.replace("VALUE", token), twilio);
    }
    check(&format!("commit {token}"), &[]);
    check(&format!("twilio-5.2.tgz sha1 {token}"), &[]);
    check(&format!("https://github.com/twilio/twilio/commit/{token}"), &[]);
    check("FEDEX_API_KEY=l7MadeUp0000a1b2c3d4e5f60718293a4b", &[]); // the name of an application
}

#[test]
fn values_that_a_name_calls_secret() {
    let value = "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU";
    check(&format!("warehouse_secret: {value}"), &[&format!("named-secret {value}")]);
    check(&format!("Authorization: Bearer {value}"), &[&format!("authorization {value}")]);
    check(&format!("?token={value}&a=b"), &[&format!("named-secret {value}")]);
    for text in [
        "release = VALUE",
        "public_key = VALUE",
        "csrf_token = VALUE",
        "secret = os.environ['VALUE']",
        "sha256 = VALUE",
        "VALUE",
    ] {
        check(&text.replace("VALUE", value), &[]);
    }
    for text in [
        "token = get_token_from_session_2()",
        "secret = \"${STRIPE_SECRET_KEY_2}\"",
        "api_key = settings.PAYMENT_KEY_2",
    ] {
        check(text, &[]);
    }
}

#[test]
fn passwords() {
    check("SMTP_PASSWORD=hunter2x", &["named-password hunter2x"]);
    check("password: 'Tr0ub4dor&3'", &["named-password Tr0ub4dor&3"]);
    check("DB_PASSWORD=MadeUp0000Pass", &["database/password MadeUp0000Pass"]);
    check("db_password = MadeUp0000", &["master-secret MadeUp0000"]);
    check("Server=db;User Id=shop;Password=MadeUp0000;Pooling=true", &["connection-string MadeUp0000"]);
    check("machine a.test login b password MadeUp0000", &["login-file MadeUp0000"]);
    check("curl -u shop:MadeUp0000Pass https://a.test", &["authorization MadeUp0000Pass"]);
    check("new NetworkCredential(\"shop\", \"MadeUp0000\")", &["named-password MadeUp0000"]);
    let hash = "$2y$10$MadeUp0000KeymoatTest1a2b3c4d5e6f7g8h9iJkLmNoPqRsTuVwX";
    check(&format!("shop:{hash}:1000"), &[&format!("password-hash {hash}")]);
    for text in [
        "password = request.form['password2']",
        "password = get_password(1)",
        "password = \"$DB_PASSWORD1\"",
        "password = '{{ password1 }}'",
        "PASSWORD=<your password 1>",
        "label = \"Password1:\"",
        "password_field = 'form-control2'",
        "this.password = '#add-password1'",
        "password = 'password1'",
        "password = 'test123'",
        "self.assertTrue(password1 == password2)",
    ] {
        check(text, &[]);
    }
}

#[test]
fn addresses() {
    let url = "postgres://shop:MadeUp0000Pass@db.madeup.test:5432/shop";
    check(&format!("\"{url}\", \"a@b\""), &[&format!("database/url {url}")]);
    check(&format!("https://x:{STRIPE}@a.test"), &[&format!("stripe/live_secret {STRIPE}")]);
    check("https://user:password@a.test", &[]);
    check("https://${USER}:${PASSWORD1}@a.test", &[]);
    check("postgres://postgres:postgres@localhost:5432/shop", &[]);
    check("https://user:1111@a.test", &[]);
    let own = "postgres://shop0:shop0@db.madeup.test/shop";
    check(own, &[&format!("database/url {own}")]);
    let config = "Endpoint=https://madeup.azconfig.io;Id=0000-l0-s0:MadeUp0000;Secret=MadeUp0000KeymoatTest0123456789abcdefghijkl=";
    check(config, &[&format!("azure/app_config_connection_string {config}")]);
    let token = "sha256~MadeUp0000KeymoatTest1a2b3c4d5e6f7g8h9iJkLm";
    check(token, &[&format!("openshift/user_token {token}")]);
    check("https://a.test/path?mail=a@b.test", &[]);
}

#[test]
fn private_keys() {
    let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----");
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCzMadeUp0000KeymoatTest";
    let open = block("PRIVATE KEY", body);
    check(&format!("{open}\n"), &[&format!("private-key {open}")]);
    let written_out = open.replace('\n', "\\n");
    check(&format!("k = \"{written_out}\""), &[&format!("private-key {written_out}")]);
    let encrypted = block("ENCRYPTED PRIVATE KEY", body);
    check(&encrypted, &[&format!("encrypted-private-key {encrypted}")]);
    let old =
        block("RSA PRIVATE KEY", &format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{body}"));
    check(&old, &[&format!("encrypted-private-key {old}")]);
    check(&block("PRIVATE KEY", "..."), &[]);
    check(&block("PRIVATE KEY", &"A".repeat(400)), &[]);
    check(&block("PUBLIC KEY", body), &[]);
    check(&block("CERTIFICATE", body), &[]);
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

thread_local! {
    /// What the searches of this thread have cost.
    pub(super) static WORK: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[test]
fn hostile_texts_cost_no_more_than_their_length() {
    let work = |text: &str| {
        let before = WORK.get();
        find(text.as_bytes(), 0..text.len());
        WORK.get() - before
    };
    for unit in [
        "eyJ-",
        "pwd=",
        "://",
        "https://a:b@",
        "a1B2c3D4e5F6g7H8.",
        "a1B2c3D4e5F6g7H8%41",
        "\"a1B2c3D4e5F6g7H8\" + ",
        "AKIAMADEUPANDOBVIOUS ",
        "AC0000a1b2c3d4e5f60718293a4b5c6d7e 9f2c4b7a1e8d3056c1a9e4f7b2d80635 ",
        "Bearer q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU https://",
        "-----BEGIN PRIVATE KEY-----",
        "Endpoint=https://",
    ] {
        let (once, twice) =
            (work(&unit.repeat(40_000 / unit.len())), work(&unit.repeat(80_000 / unit.len())));
        assert!(twice <= once * 5 / 2 + 100, "{unit}: {once}, then {twice}");
        // A pattern and a value for every few bytes are the most.
        assert!(twice <= 80_000, "{unit}: {twice}");
    }
}

#[test]
fn secrets_beside_the_name_of_their_key() {
    let (id, secret) = ("AKIAMADEUPANDOBVIOUS", "q7Zp2LmX9vTb4KsW8nRc/HyJ6dFg3AeU+Mad0000");
    let found = &[&*format!("aws/access_key_id {id}"), &*format!("aws/secret_access_key {secret}")];
    for text in [
        "ID SECRET",
        "new Client('ID', 'SECRET')",
        "ID\n\n  SECRET\n",
        "- user: ID\n  pass: SECRET\n  region: x\n",
    ] {
        check(&text.replace("ID", id).replace("SECRET", secret), found);
    }
    let sid = "AC0000a1b2c3d4e5f60718293a4b5c6d7e";
    let token = "9f2c4b7a1e8d3056c1a9e4f7b2d80635";
    check(&format!("Client('{sid}', '{token}')"), &[&format!("twilio/auth_token {token}")]);
    let alone = &[&*format!("aws/access_key_id {id}")];
    for text in [
        "ID\n\n\n\n\n\nSECRET",
        "ID commit 0000a1b2c3d4e5f60718293a4b5c6d7e8f901a2b",
        "ID sha1: 0000a1b2c3d4e5f60718293a4b5c6d7e8f901a2b",
        "ID https://a.test/some/path/that/is/not/random/xyzw",
    ] {
        check(&text.replace("ID", id).replace("SECRET", secret), alone);
    }
    check(&format!("{sid} md5 {token}"), &[]);
    check(secret, &[]);
}

#[test]
fn two_values_in_one_run() {
    let address = "postgres://shop:MadeUp0000Pass@db.madeup.test/shop";
    check(
        &format!("{address}?key={STRIPE}"),
        &[&format!("database/url {address}?key={STRIPE}"), &format!("stripe/live_secret {STRIPE}")],
    );
    let token = "9f2c4b7a1e8d3056c1a9e4f7b2d80635";
    check(
        &format!("twilio_auth_token: {token}:{address}"),
        &[&format!("twilio/auth_token {token}"), &format!("database/url {address}")],
    );
    check(
        &format!("some_token: {token}xK9#mP2$vL8@nQ5!{address}"),
        &[&format!("named-secret {token}xK9#mP2$vL8@nQ5!"), &format!("database/url {address}")],
    );
}

#[test]
fn whose_a_value_is() {
    let value = "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU";
    let token = "0000a1b2c3d4e5f60718293a4b5c6d7e8f901a2b";
    for (text, rule) in [
        ("curl -H \"Authorization: Bearer VALUE\" https://api.twilio.com/2010", "twilio/api_key_secret"),
        ("curl https://api.openai.com/x \\\n -H 'Authorization: Bearer VALUE'", "openai/authorization"),
        ("Authorization: token VALUE", "authorization"),
        ("openai_token VALUE", "openai/named-secret"),
        ("TWITCH_STREAM_KEY=VALUE", "twitch/named-secret"),
        ("linear_secret = VALUE", "linear/named-secret"),
        ("the way is linear\nsecret = VALUE", "named-secret"),
        ("--client-secret VALUE", "named-secret"),
        ("curl -u shop:'VALUE' https://a.test", "authorization"),
    ] {
        check(&text.replace("VALUE", value), &[&format!("{rule} {value}")]);
    }
    check(&format!("SONAR_LOGIN={token}"), &[&format!("sonar/legacy_token {token}")]);
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJNYWRlVXAwMDAwS2V5bW9hdFRlc3QwMTIzNDU2Nzg5In0.MadeUpSignature0000KeymoatTest0123456789abc";
    check(&format!("livestorm_key = {jwt}"), &[&format!("livestorm/api_token {jwt}")]);
    check(&format!("some_token = {jwt}"), &[&format!("jwt/token {jwt}")]);
    for text in [
        "keymoat serves the vault 2397f603-c2c4-4897-a8ca-587ace5dc8dd",
        "adobe:docid:2397f603-c2c4-4897-a8ca-587ace5dc8dd",
        "\"KeyId\": \"arn:aws:kms:us-west-2:111122223333:key/2397f603-c2c4-4897-a8ca-587ace5dc8dd\"",
        "csrfmiddlewaretoken = q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU",
        "idempotency_key: 2397f603-c2c4-4897-a8ca-587ace5dc8dd",
        "print-access-token)\" https://a.test/v1/q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU",
    ] {
        check(text, &[]);
    }
    let hash = "pbkdf2_sha256$600000$MadeUp0000$MadeUp0000KeymoatTest1a2b3c4d5e6f7g8h9iJkLmN=";
    check(&format!("\"password\": \"{hash}\""), &[&format!("password-hash {hash}")]);
}

/// Pieces that decisions look at across: keys, names, words, joints, encodings, comments, long runs.
fn text_of_pieces() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        STRIPE,
        "ghp_MadeUp0000KeymoatTest1a2b3c4d5e6f7g8",
        "c2tfbGl2ZV81MU1hZGVVcEV4YW1wbGUwMDAwS2V5bW9hdFRlc3Q=",
        "sk%5Flive%5F51MadeUpExample0000KeymoatTest",
        "\"sk_live_51MadeUp\" + \"Example0000KeymoatTest\"",
        "twilio_auth_token",
        "password",
        "secret_key",
        "SECRET_KEY",
        " = ",
        ": ",
        "=",
        "\"",
        "'",
        "\n",
        " ",
        "9f2c4b7a1e8d3056c1a9e4f7b2d80635",
        "q7Zp2LmX9vTb4KsW8nRc1HyJ6dFg3AeU",
        "hunter2x",
        "postgres://shop:MadeUp0000Pass@db.madeup.test:5432/shop",
        "https://",
        "user:MadeUp0000@host",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCzMadeUp0000KeymoatTest\n-----END PRIVATE KEY-----",
        "# keymoat:allow made up",
        "commit",
        "twilio",
        "a/path/to/some/file_2.py",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJNYWRlVXAwMDAwIn0.MadeUpSignature0000KeymoatTest0123456789abc",
        "AKIAMADEUPANDOBVIOUS",
        "q7Zp2LmX9vTb4KsW8nRc/HyJ6dFg3AeU+Mad0000",
        "AC0000a1b2c3d4e5f60718293a4b5c6d7e",
        "curl https://api.twilio.com/",
        "Authorization: Bearer ",
    ];
    let long = proptest::char::range('a', 'f').prop_map(|letter| format!("{letter}1").repeat(900));
    let piece = prop_oneof![
        30 => proptest::sample::select(PIECES).prop_map(str::to_owned),
        1 => long,
        5 => "[ -~\n]{0,40}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn regions_have_the_hits_of_the_whole(text in text_of_pieces(), cuts in proptest::collection::vec(0usize..5_000, 0..4)) {
        let text = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<Hit> = cuts.windows(2).flat_map(|pair| find(text, pair[0]..pair[1])).collect();
        prop_assert_eq!(&parts, &find(text, 0..text.len()));
        // What is farther away than the margin makes no difference.
        for pair in cuts.windows(2) {
            let from = pair[0].saturating_sub(Engine::MARGIN);
            let to = (pair[1] + Engine::MARGIN).min(text.len());
            let mut near = find(&text[from..to], pair[0] - from..pair[1] - from);
            near.iter_mut().for_each(|hit| hit.span = hit.span.start + from..hit.span.end + from);
            prop_assert_eq!(near, find(text, pair[0]..pair[1]));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_can_be_searched(text in proptest::collection::vec(any::<u8>(), 0..400), from in 0usize..500, len in 0usize..500) {
        for hit in find(&text, from..from + len) {
            prop_assert!(hit.span.start >= from && hit.span.end <= text.len());
        }
    }
}
