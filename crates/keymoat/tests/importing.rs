//! What an import takes, leaves and refuses, and that nothing is lost by doing it twice or wrongly.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Done, Home};

const STRIPE: &str = "sk_live_51MadeUpExample0000KeymoatShop";
const ENV: &str = "\
STRIPE_API_KEY=sk_live_51MadeUpExample0000KeymoatShop
SENDGRID_API_KEY=${MAIL_KEY}
SMTP_PASSWORD=\"made-up-${PART}-password\"
DEBUG=1
";

fn versions(home: &Home, path: &str) -> usize {
    let done = home.ok(&["history", path, "--env", "prod", "--format", "json"]);
    serde_json::from_str::<Vec<serde_json::Value>>(&done.stdout).unwrap().len()
}

#[track_caller]
fn says(done: &Done, parts: &[&str]) {
    for part in parts {
        assert!(done.stdout.contains(part) || done.stderr.contains(part), "{part}: {done:?}");
    }
}

#[test]
fn what_stands_there_already_makes_no_new_version() {
    let home = Home::with_vault();
    let first = home.run_with_stdin(&["import", "dotenv", "-", "--env", "prod"], ENV);
    says(&first, &["version 1", "1 stored in prod, 1 refused, 2 stay", "takes over the value of `MAIL_KEY`"]);
    says(&first, &["REFUSED: it is put together from other variables", "hint: write the whole value"]);
    let again = home.run_with_stdin(&["import", "dotenv", "-", "--env", "prod"], ENV);
    says(&again, &["unchanged (version 1)", "0 stored in prod, 1 unchanged, 1 refused"]);
    let json = format!("{{\"stripe\":{{\"secret_key\":\"{STRIPE}\"}},\"note\":\"made up\"}}");
    let mixed = home.run_with_stdin(&["import", "json", "-", "--env", "prod"], &json);
    says(
        &mixed,
        &[
            "prod/stripe unchanged (version 1)",
            "prod/note version 1",
            "1 stored in prod, 1 unchanged, 0 refused",
        ],
    );
    assert_eq!((versions(&home, "stripe"), versions(&home, "note")), (1, 1));
    let changed =
        home.run_with_stdin(&["import", "json", "-", "--env", "prod"], "{\"note\":\"made up too\"}");
    says(&changed, &["prod/note version 2"]);
    let log = home.ok(&["audit", "query", "--action", "import", "--format", "json"]);
    assert_eq!(log.stdout.matches("\\\"unchanged\\\":\\\"yes\\\"").count(), 2, "{log:?}");
    assert!(home.ok(&["audit", "verify"]).stdout.starts_with("intact"));
}

#[test]
fn a_wrong_list_stores_nothing() {
    #[track_caller]
    fn check(home: &Home, list: &str, parts: &[&str]) {
        let done = home.run_with_stdin(&["import", "json", "-", "--env", "prod"], list);
        assert_eq!(done.code, 2, "{done:?}");
        says(&done, parts);
        says(&done, &["nothing was stored"]);
        assert_eq!(home.ok(&["list", "--env", "prod", "--format", "json"]).stdout.trim(), "[]", "{list}");
    }
    let home = Home::with_vault();
    check(&home, "{\"a\":\"1\",\"b\":\"x\",\"b\":\"y\"}", &["`b` stands there twice: entry 2 and entry 3"]);
    check(
        &home,
        "{\"a\":\"1\",\"b#x\":\"1\",\"b\":\"2\"}",
        &["both whole (entry 3) and with fields (entry 2)"],
    );
    check(&home, "{\"a\":\"1\",\"b\":", &["not a JSON object of paths (line 1"]);
    check(&home, "{\"a\":\"1\",\"B/b\":\"2\"}", &["entry 2: path `B/b`"]);
}

#[test]
fn what_is_refused_says_which_secret_and_what_to_do() {
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", STRIPE);
    let duplicate = home.run_with_stdin(&["import", "dotenv", "-", "--env", "dev"], ENV);
    assert_eq!(duplicate.code, 1, "{duplicate:?}");
    says(&duplicate, &["dev/stripe#secret_key REFUSED: the same key is already stored as `prod/stripe`"]);
    says(&duplicate, &["--allow-duplicate REASON"]);
    let company = home.run_with_stdin(
        &["import", "dotenv", "-", "--env", "prod"],
        "STRIPE_API_KEY__ACME=sk_live_51MadeUpExample0000KeymoatAcme\nPAYPAL_CLIENT_SECRET=EMadeUp0000Secret_KeymoatShop-0123456789\n",
    );
    assert_eq!(company.code, 1, "{company:?}");
    says(
        &company,
        &["REFUSED: no company `acme`", "`keymoat company add acme`", "prod/paypal#client_secret version 1"],
    );
    let stdin = home.run_with_stdin(&["import", "dotenv", "-", "--env", "prod", "--rewrite"], ENV);
    assert!(stdin.code == 2 && stdin.stderr.contains("cannot be rewritten"), "{stdin:?}");
}

#[test]
fn an_empty_value_takes_no_other_ones_place_unasked() {
    #[track_caller]
    fn check(home: &Home, arguments: &[&str], stdin: &str, code: i32, parts: &[&str], left: &str) {
        let done = home.run_with_stdin(arguments, stdin);
        assert_eq!(done.code, code, "{arguments:?}: {done:?}");
        says(&done, parts);
        let now = home.ok(&["reveal", "stripe#secret_key", "--env", "prod"]);
        assert_eq!(now.stdout.trim_end(), left, "{arguments:?}");
    }
    let home = Home::with_vault();
    home.put("prod", "stripe", "secret_key", STRIPE);
    let put = ["put", "stripe", "secret_key=-", "--env", "prod"];
    let json = ["import", "json", "-", "--env", "prod"];
    let list = "{\"stripe\":{\"secret_key\":\"\"}}";
    check(&home, &put, "", 1, &["is empty, and nothing was stored", "--allow-empty"], STRIPE);
    check(&home, &put, "\n", 1, &["is empty"], STRIPE);
    check(
        &home,
        &json,
        list,
        1,
        &["`prod/stripe#secret_key` has a value, and the new one is empty", "--allow-empty"],
        STRIPE,
    );
    let import = ["import", "dotenv", "-", "--env", "prod"];
    check(&home, &import, "STRIPE_SECRET_KEY=\n", 0, &["0 stored"], STRIPE);
    check(&home, &[&json[..], &["--allow-empty"]].concat(), list, 0, &["version 2"], "");
    check(&home, &json, list, 0, &["unchanged (version 2)"], "");
    home.put("prod", "stripe", "secret_key", STRIPE);
    check(&home, &[&put[..], &["--allow-empty"]].concat(), "", 0, &["version 4 is current"], "");
}

#[test]
fn a_value_that_does_not_fit_is_refused_with_a_next_step() {
    #[track_caller]
    fn check(home: &Home, arguments: &[&str], stdin: &[u8], parts: &[&str], not: &str) {
        let mut command = home.command(&[arguments, &["--env", "prod"]].concat());
        let path = home.path().join("stdin");
        std::fs::write(&path, stdin).unwrap();
        let done = common::done(command.stdin(std::fs::File::open(path).unwrap()).output().unwrap());
        assert_eq!(done.code, 2, "{arguments:?}: {done:?}");
        says(&done, parts);
        says(&done, &["nothing was stored"]);
        assert!(not.is_empty() || !done.stderr.contains(not), "{done:?}");
    }
    let home = Home::with_vault();
    check(&home, &["put", "a", "-"], &[b'x'; 70_000], &["more than 65536 bytes"], "65539");
    check(
        &home,
        &["put", "a", "-"],
        b"\xff\xfe",
        &["not text", "`keymoat put PATH --bytes @FILE --env prod`"],
        "",
    );
    check(&home, &["put", "a", "x=-"], b"\xff\xfe", &["`a#x` is not text"], "");
    check(&home, &["put", "a", STRIPE], b"", &["looks like a value"], STRIPE);
    check(&home, &["put", "a", "made up words"], b"", &["looks like a value"], "made up words");
}
