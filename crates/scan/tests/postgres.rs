//! A PostgreSQL server that runs, read as a user who may not read everything.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../testkit/cluster.rs"]
mod cluster;
#[path = "scan/common.rs"]
mod common;

use cluster::Cluster;
use common::{KEY, searching, told_troubles};
use keymoat_scan::Troubles;

const TOKEN: &str = "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";

#[test]
fn a_running_database_is_read_and_nothing_else() {
    let cluster = match Cluster::start_with(&["autovacuum = off"]) {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIP a_running_database_is_read_and_nothing_else: {why}"),
    };
    cluster
        .sql(
            "vault",
            &format!(
                "CREATE TABLE ir_config_parameter (id int PRIMARY KEY, key text, value text);
                 INSERT INTO ir_config_parameter VALUES (3, 'github.token', '{TOKEN}');
                 CREATE SCHEMA other;
                 CREATE TABLE other.\"odd \"\"name\" (a int, b int, doc jsonb, PRIMARY KEY (a, b));
                 INSERT INTO other.\"odd \"\"name\" VALUES (1, 2, '{{\"deep\": {{\"token\": \"{TOKEN}\"}}}}');
                 CREATE TABLE payment_provider (id int PRIMARY KEY, company_id int, n numeric, stripe_secret_key text);
                 INSERT INTO payment_provider VALUES (7, 2, 1.5, '{TOKEN}');
                 CREATE TABLE file (id int PRIMARY KEY, data bytea);
                 INSERT INTO file VALUES (9, 'x {TOKEN} y');
                 CREATE TABLE hidden (id int PRIMARY KEY, secret text);
                 INSERT INTO hidden VALUES (1, '{TOKEN}');
                 CREATE FUNCTION call_home() RETURNS text LANGUAGE sql AS 'SELECT ''{TOKEN}''';
                 CREATE ROLE reader LOGIN;
                 GRANT USAGE ON SCHEMA other TO reader;
                 GRANT SELECT ON ALL TABLES IN SCHEMA public, other TO reader;
                 REVOKE ALL ON hidden FROM reader;"
            ),
        )
        .unwrap();
    // Whatever writes takes the next number.
    let number = || cluster.sql("vault", "SELECT txid_current()").unwrap().trim().parse::<u64>().unwrap();
    let before = number();
    let troubles = Troubles::default();
    let scan = searching(&troubles);
    let address = format!("postgres://reader:hunter2@127.0.0.1:{}/vault", cluster.port());
    let findings = scan.database(&address).unwrap();
    let token = findings.iter().find(|finding| finding.fingerprint == KEY.of(TOKEN.as_bytes())).unwrap();
    let shown: Vec<String> = token.places.iter().map(|place| place.source.to_string()).collect();
    let server = format!("postgres://127.0.0.1:{}/vault", cluster.port());
    let mut expected = [
        "file.data, id 9",
        "Odoo › System Parameters › `github.token` [ir_config_parameter.value, id 3]",
        "other.odd \"name.doc, a 1, b 2",
        "payment_provider.stripe_secret_key (company 2) [payment_provider.stripe_secret_key, id 7]",
        "pg_proc.prosrc, proname call_home",
    ]
    .map(|place| format!("{server} › {place}"));
    let mut sorted = shown.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
    assert_eq!(told_troubles(&troubles), [format!("{server} › hidden may not be read by this user: secret")]);
    assert_eq!(number(), before + 1, "nothing was written");
    goes_away(&cluster);
}

/// A database whose server ends the connection while a table is read.
fn goes_away(cluster: &Cluster) {
    cluster.sql("postgres", "CREATE DATABASE shaky").unwrap();
    let script = format!(
        "CREATE TABLE a (id int PRIMARY KEY, body text);
         INSERT INTO a VALUES (1, '{TOKEN}');
         CREATE TABLE b (id int PRIMARY KEY, body text);
         INSERT INTO b VALUES (1, 'x');
         CREATE FUNCTION ends() RETURNS boolean LANGUAGE sql SECURITY DEFINER
             AS 'SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())';
         ALTER TABLE b ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON b USING (public.ends());
         CREATE TABLE c (id int PRIMARY KEY, body text);
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;"
    );
    cluster.sql("shaky", &script).unwrap();
    let troubles = Troubles::default();
    let server = format!("postgres://127.0.0.1:{}/shaky", cluster.port());
    let findings = searching(&troubles).database(&server.replace("://", "://reader@")).unwrap();
    assert_eq!(findings[0].places[0].source.to_string(), format!("{server} › a.body, id 1"));
    let told = told_troubles(&troubles);
    for says in [
        format!("{server} cannot be reached: "),
        format!("{server} › b could not be read to its end: "),
        format!("{server} › b shows this user only some of its rows"),
    ] {
        assert!(told.iter().any(|told| told.starts_with(&says)), "{says} {told:?}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn a_server_that_is_not_there() {
    let troubles = Troubles::default();
    let scan = searching(&troubles);
    assert_eq!(scan.database("postgres://reader:hunter2@127.0.0.1:1/vault").unwrap(), []);
    let trouble = &troubles.list()[0];
    assert_eq!(trouble.what, "postgres://127.0.0.1:1/vault");
    assert!(
        trouble.why.starts_with("cannot be reached: ") && !trouble.why.contains("hunter2"),
        "{trouble:?}"
    );
    assert!(!scan.database("postgres://reader:hunter2@/").unwrap_err().contains("hunter2"));
}

/// Whatever answers in place of a database, or hangs up: a line about it.
#[test]
fn a_server_that_hangs_up_or_is_none() {
    // Of MySQL: a greeting that is cut off, and one that is none.
    let answers: [&[u8]; 5] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x4a\0\0\0\x0a5.5",
        b"\xff\xff\xff\0\x0a",
        b"R\0\0\0\x08",
    ];
    for scheme in ["postgres", "mysql"] {
        for answer in answers {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                std::io::Write::write_all(&mut stream, answer).unwrap();
                // What was asked is read, so that hanging up is no reset.
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                std::io::copy(&mut stream, &mut std::io::sink()).ok();
            });
            let troubles = Troubles::default();
            let scan = searching(&troubles);
            let address = format!("{scheme}://reader:hunter2@127.0.0.1:{port}/vault");
            assert_eq!(scan.database(&address).unwrap(), []);
            let told = troubles.list();
            let is_clear = told.len() == 1 && !told[0].why.is_empty() && !told[0].why.contains("hunter2");
            assert!(is_clear, "{scheme} {answer:?}: {told:?}");
            server.join().unwrap();
        }
    }
}
