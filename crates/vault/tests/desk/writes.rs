//! Values: writing, moving between versions, removing for good.

use keymoat_core::audit::{Action, AuditText, DetailValue, EventFilter, Outcome};
use keymoat_core::names::Label;
use keymoat_core::secret::ValueKind;
use keymoat_vault::entity::SecretName;
use keymoat_vault::{Annotation, AuditQuery, AuditRecord, Code, NewValue, Origin, Put, VaultError, Wanted};

use crate::common::*;

fn json(path: &str, value: &str) -> Put {
    Put { value: NewValue::Whole { kind: ValueKind::Json, value: bytes(value) }, ..put(path, "") }
}

#[tokio::test]
async fn check_and_set() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let mut head = 0;
    // What is expected, and whether it is right then.
    for (expected, fits) in [
        (Some(1), false),
        (Some(0), true),
        (Some(0), false),
        (Some(1), true),
        (Some(1), false),
        (None, true),
        (Some(3), true),
    ] {
        let (result, records) =
            desk.records_of(desk.vault.put(&owner, Put { expected, ..put("prod/a", "value") })).await;
        match fits {
            true => {
                head += 1;
                assert_eq!(result.unwrap().version, head);
            }
            false => drop(coded(result, Code::Conflict)),
        }
        let outcome = if fits { Outcome::Allowed } else { Outcome::Failed };
        assert_eq!(records.iter().map(|r| r.event.result).collect::<Vec<_>>(), [outcome], "{expected:?}");
    }
    let must = Annotation { cas_required: Some(true), ..Annotation::default() };
    desk.vault.annotate(&owner, &secret("prod/a"), must).await.unwrap();
    let error = coded(desk.put(&owner, "prod/a", "value").await, Code::Invalid);
    assert!(error.hint.unwrap().contains("--cas"));
    desk.vault.put(&owner, Put { expected: Some(head), ..put("prod/a", "value") }).await.unwrap();
}

/// Injection: whatever a text holds, the database keeps it as a text, and nothing beside it changes.
#[tokio::test]
async fn text_with_the_marks_of_sql_is_only_text() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/beside", "made up").await.unwrap();
    for (number, marks) in MARKS_OF_SQL.iter().enumerate() {
        let path = format!("prod/a{number}");
        let about = Annotation { description: Some((*marks).to_owned()), ..Annotation::default() };
        let origin = Origin {
            user_agent: Some(AuditText::new(marks)),
            module: Some(AuditText::new(marks)),
            on_behalf_of: Some(AuditText::new(marks)),
            ..desk.origin()
        };
        let caller = desk.vault.sign_in_os_user("ana", origin).await.unwrap();
        desk.put(&caller, &path, marks).await.unwrap();
        desk.vault.annotate(&caller, &secret(&path), about).await.unwrap();
        desk.vault
            .claim(&caller, &marks.replace([' ', '\u{0}'], "_"), &[b"request"], &needs_write(&path))
            .await
            .unwrap();
        let query = AuditQuery {
            filter: EventFilter { module: Some(AuditText::new(marks)), ..EventFilter::default() },
            limit: 10,
            ..AuditQuery::default()
        };
        let found = desk.vault.query_audit(&owner, query).await.unwrap();
        assert_eq!(found.len(), 2, "{marks:?}: the two changes of this module");
        assert!(found.iter().all(|record| record.event.module == Some(AuditText::new(marks))));
    }
    let desk = desk.reopened().await;
    let owner = desk.owner().await;
    for (number, marks) in MARKS_OF_SQL.iter().enumerate() {
        let path = format!("prod/a{number}");
        let revealed = desk.reveal(&owner, &path).await.unwrap();
        assert_eq!(text(&revealed.value), *marks);
        let seen = desk.vault.inspect(&owner, &secret(&path)).await.unwrap();
        assert_eq!(seen.description, *marks);
    }
    let listed = desk.vault.list(&owner, &"prod".parse().unwrap(), None, None, None, 1000).await.unwrap();
    assert_eq!(listed.secrets.len(), MARKS_OF_SQL.len() + 1);
    assert!(desk.vault.verify(&owner).await.unwrap().problems.is_empty());
}

const MARKS_OF_SQL: [&str; 10] = [
    "'; DROP TABLE events; --",
    "' OR '1'='1",
    "\"; DELETE FROM rows; --",
    "%",
    "_%",
    "x' UNION SELECT body FROM rows --",
    "$1 ?1 :a @b",
    "\\'; --",
    "[a-z]*",
    "1; PRAGMA writable_schema=ON; --",
];

#[tokio::test]
async fn fields_are_merged_or_replaced() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.vault.put(&owner, json("prod/a", r#"{"user":"shop","deep":{"n":[1]}}"#)).await.unwrap();
    desk.vault.put(&owner, put_fields("prod/a", &[("password", "hush")])).await.unwrap();
    let field = |name: &str| -> keymoat_core::names::Field { name.parse().unwrap() };
    let reveal = async |name: &str| {
        let name = field(name);
        desk.vault
            .reveal(&owner, &secret("prod/a"), Some(&name), &Wanted::default(), None)
            .await
            .map(|r| text(&r.value))
    };
    assert_eq!(reveal("user").await.unwrap(), "shop");
    assert_eq!(reveal("password").await.unwrap(), "hush");
    assert_eq!(reveal("deep").await.unwrap(), r#"{"n":[1]}"#);
    let error = coded(reveal("pasword").await, Code::NotFound);
    assert!(error.hint.unwrap().contains("`password`"));
    let replacing = Put { replace: true, ..put_fields("prod/a", &[("password", "hush2")]) };
    desk.vault.put(&owner, replacing).await.unwrap();
    coded(reveal("user").await, Code::NotFound);
    assert_eq!(reveal("password").await.unwrap(), "hush2");
    desk.put(&owner, "prod/b", "plain").await.unwrap();
    coded(desk.vault.put(&owner, put_fields("prod/b", &[("x", "1")])).await, Code::Invalid);
    let replacing = Put { replace: true, ..put_fields("prod/b", &[("x", "1")]) };
    assert_eq!(desk.vault.put(&owner, replacing).await.unwrap().version, 2);
}

#[tokio::test]
async fn values_at_the_limits_and_beyond() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let fields = |count: usize| {
        let fields: Vec<String> = (0..count).map(|n| format!("\"f{n}\":\"{n}\"")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    let whole = |kind, value: &[u8]| Put {
        value: NewValue::Whole { kind, value: keymoat_crypto::SecretBytes::from_slice(value) },
        allow_empty: true,
        ..put("prod/a", "")
    };
    let rows: [(Put, Option<Code>); 14] = [
        (whole(ValueKind::Bytes, &[0xff; 65_536]), None),
        (whole(ValueKind::Bytes, &[0xff; 65_537]), Some(Code::TooLarge)),
        (whole(ValueKind::Text, b""), None),
        (whole(ValueKind::Text, b"\xff"), Some(Code::Invalid)),
        (whole(ValueKind::Text, "ü\u{0}\n".as_bytes()), None),
        (json("prod/a", &fields(100)), None),
        (json("prod/a", &fields(101)), Some(Code::TooLarge)),
        (json("prod/a", &nested(30)), None),
        (json("prod/a", &nested(64)), Some(Code::Invalid)),
        (json("prod/a", &nested(100_000 / 4)), Some(Code::Invalid)),
        (json("prod/a", "{"), Some(Code::Invalid)),
        (json("prod/a", "[1]"), Some(Code::Invalid)),
        (json("prod/a", r#"{"not a field":1}"#), Some(Code::Invalid)),
        (json("prod/a", "{}"), None),
    ];
    for (number, (put, code)) in rows.into_iter().enumerate() {
        let (result, records) = desk.records_of(desk.vault.put(&owner, put)).await;
        match code {
            None => drop(result.unwrap_or_else(|e| panic!("{number}: {e}"))),
            Some(code) => drop(coded(result, code)),
        }
        assert_eq!(records.len(), 1, "{number}");
    }
    for annotation in [
        Annotation { description: Some("x".repeat(1025)), ..Annotation::default() },
        Annotation { owner: Some("a\u{7}".to_owned()), ..Annotation::default() },
        Annotation { max_versions: Some(0), ..Annotation::default() },
        Annotation { max_versions: Some(1001), ..Annotation::default() },
        Annotation { tags: Some([(String::new(), String::new())].into()), ..Annotation::default() },
    ] {
        coded(desk.vault.annotate(&owner, &secret("prod/a"), annotation).await, Code::Invalid);
    }
}

#[tokio::test]
async fn two_writes_in_one_millisecond_are_two_versions() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for version in 1..=5 {
        assert_eq!(desk.put(&owner, "prod/a", &format!("value {version}")).await.unwrap().version, version);
    }
    for version in 1..=5 {
        let wanted = Wanted::Number(version);
        let revealed = desk.vault.reveal(&owner, &secret("prod/a"), None, &wanted, None).await.unwrap();
        assert_eq!((text(&revealed.value), revealed.version), (format!("value {version}"), version));
    }
    assert_eq!(text(&desk.reveal(&owner, "prod/a").await.unwrap().value), "value 5");
}

#[tokio::test]
async fn pending_promoted_rolled_back_deleted_and_brought_back() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let a = secret("prod/a");
    let current = async || desk.reveal(&owner, "prod/a").await.map(|revealed| text(&revealed.value));
    desk.put(&owner, "prod/a", "one").await.unwrap();
    desk.vault.put(&owner, Put { pending: true, ..put("prod/a", "two") }).await.unwrap();
    assert_eq!(current().await.unwrap(), "one");
    let pending = Wanted::Label(Label::PENDING);
    assert_eq!(text(&desk.vault.reveal(&owner, &a, None, &pending, None).await.unwrap().value), "two");
    desk.vault.promote(&owner, &a).await.unwrap();
    assert_eq!(current().await.unwrap(), "two");
    coded(desk.vault.promote(&owner, &a).await, Code::Conflict);
    desk.vault.rollback(&owner, &a, 1).await.unwrap();
    assert_eq!(current().await.unwrap(), "one");
    coded(desk.vault.rollback(&owner, &a, 9).await, Code::NotFound);
    desk.vault.delete(&owner, &a, vec![1]).await.unwrap();
    let error = coded(current().await, Code::NotFound);
    assert!(error.hint.unwrap().contains("undelete"));
    desk.vault.undelete(&owner, &a, vec![]).await.unwrap();
    assert_eq!(current().await.unwrap(), "one");
    let canary: Label = "canary".parse().unwrap();
    desk.vault.label(&owner, &a, canary.clone(), Some(2)).await.unwrap();
    let wanted = Wanted::Label(canary.clone());
    assert_eq!(text(&desk.vault.reveal(&owner, &a, None, &wanted, None).await.unwrap().value), "two");
    desk.vault.label(&owner, &a, canary, None).await.unwrap();
    coded(desk.vault.reveal(&owner, &a, None, &wanted, None).await, Code::NotFound);
    desk.vault.destroy(&owner, &a, vec![1]).await.unwrap();
    coded(current().await, Code::NotFound);
    coded(desk.vault.undelete(&owner, &a, vec![1]).await, Code::Conflict);
    assert_eq!(desk.put(&owner, "prod/a", "three").await.unwrap().version, 3);
    coded(desk.vault.destroy(&owner, &secret("prod/none"), vec![]).await, Code::NotFound);
}

#[tokio::test]
async fn what_is_destroyed_or_pruned_is_in_no_file() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let keep = Annotation { max_versions: Some(2), ..Annotation::default() };
    desk.vault.put(&owner, Put { annotation: keep, ..put("prod/a", STRIPE) }).await.unwrap();
    let ciphertexts = |desk: &Desk| -> Vec<Vec<u8>> {
        let database = rusqlite::Connection::open(keymoat_store::database_in(&desk.data())).unwrap();
        let mut rows =
            database.prepare("SELECT blob FROM state WHERE kind = 'version' AND blob IS NOT NULL").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let fingerprints = |desk: &Desk| -> Vec<String> {
        let database = rusqlite::Connection::open(keymoat_store::database_in(&desk.data())).unwrap();
        let mut rows = database
            .prepare("SELECT key FROM state WHERE kind = 'fingerprint' AND body IS NOT NULL")
            .unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let first = ciphertexts(&desk);
    assert_eq!((first.len(), fingerprints(&desk).len()), (1, 1));
    let is_there = |desk: &Desk, part: &[u8]| desk.bytes().windows(part.len()).any(|window| window == part);
    assert!(is_there(&desk, &first[0]));
    // The third version pushes the first one out.
    desk.put(&owner, "prod/a", "sk_live_51MadeUpExample0002KeymoatTest").await.unwrap();
    desk.put(&owner, "prod/a", "sk_live_51MadeUpExample0003KeymoatTest").await.unwrap();
    desk.vault.sweep().await.unwrap();
    assert!(!is_there(&desk, &first[0]), "a pruned value is in a file");
    assert_eq!((ciphertexts(&desk).len(), fingerprints(&desk).len()), (2, 2));
    let rest = ciphertexts(&desk);
    desk.vault.destroy(&owner, &secret("prod/a"), vec![]).await.unwrap();
    for ciphertext in &rest {
        for part in ciphertext.chunks(16).filter(|part| part.len() == 16) {
            assert!(!is_there(&desk, part), "a part of a destroyed value is in a file");
        }
    }
    assert_eq!((ciphertexts(&desk).len(), fingerprints(&desk).len()), (0, 0));
    let shown = desk.vault.inspect(&owner, &secret("prod/a")).await.unwrap();
    assert!(shown.facts.values().flat_map(|facts| &facts.fields).all(|field| field.fingerprint.is_none()));
    assert_eq!(shown.versions.versions().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_writers_with_one_expectation_one_wins() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for round in 0..20u32 {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..64 {
            let (vault, owner) = (desk.vault.clone(), owner.clone());
            tasks.spawn(async move {
                let put = Put { expected: Some(round), ..put("prod/a", &format!("{round} by {writer}")) };
                (writer, vault.put(&owner, put).await)
            });
        }
        let mut winner = None;
        for (writer, result) in tasks.join_all().await {
            match result {
                Ok(written) => {
                    assert_eq!(written.version, round + 1);
                    assert!(winner.replace(writer).is_none(), "two winners in round {round}");
                }
                Err(error) => assert_eq!(error.code, Code::Conflict, "{error}"),
            }
        }
        let value = text(&desk.reveal(&owner, "prod/a").await.unwrap().value);
        assert_eq!(value, format!("{round} by {}", winner.unwrap()));
    }
    assert_eq!(desk.records(|record| record.event.action == Action::Write).await.len(), 20 * 64);
}

#[tokio::test]
async fn lists_go_page_by_page_through_what_one_may_see() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.vault.put_company(&owner, "acme".parse().unwrap(), String::new()).await.unwrap();
    let mut all = Vec::new();
    for n in 0..30 {
        for path in
            [format!("prod/0/k{n:02}"), format!("prod/shop/k{n:02}"), format!("prod/acme:shop/k{n:02}")]
        {
            desk.put(&owner, &path, "x").await.unwrap();
            all.push(secret(&path));
        }
    }
    desk.put(&owner, "staging/shop/k", "x").await.unwrap();
    all.sort();
    let some = desk
        .service(
            "some",
            r#"[{"capabilities":["list"],"environments":["prod"],"companies":["acme"],"paths":["**"]}]"#,
        )
        .await;
    let pages = async |who: &keymoat_vault::Caller,
                       company: Option<&str>,
                       prefix: Option<&str>,
                       limit: usize| {
        let (company, prefix) = (company.map(|c| c.parse().unwrap()), prefix.map(|p| p.parse().unwrap()));
        let (mut found, mut after) = (Vec::new(), None::<SecretName>);
        loop {
            let prod = "prod".parse().unwrap();
            let page =
                desk.vault.list(who, &prod, company.as_ref(), prefix.as_ref(), after.as_ref(), limit).await?;
            assert!(page.secrets.len() <= limit);
            found.extend(page.secrets.iter().map(|secret| secret.name.clone()));
            after = page.next;
            if after.is_none() {
                return Ok::<_, VaultError>(found);
            }
        }
    };
    let only = |wanted: &dyn Fn(&SecretName) -> bool| {
        all.iter().filter(|name| wanted(name)).cloned().collect::<Vec<_>>()
    };
    for limit in [1, 7, 30, 90, 1000] {
        assert_eq!(pages(&owner, None, None, limit).await.unwrap(), all, "{limit}");
        assert_eq!(
            pages(&owner, Some("acme"), None, limit).await.unwrap(),
            only(&|name| name.company.is_some())
        );
        assert_eq!(
            pages(&owner, None, Some("shop"), limit).await.unwrap(),
            only(&|name| name.path.as_str().starts_with("shop/"))
        );
        assert_eq!(pages(&owner, Some("acme"), Some("0"), limit).await.unwrap(), []);
        assert_eq!(pages(&some, None, None, limit).await.unwrap(), only(&|name| name.company.is_some()));
    }
    refused(desk.vault.list(&some, &"staging".parse().unwrap(), None, None, None, 9).await);
}

#[tokio::test]
async fn wrong_places_say_what_was_meant() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let nobody = desk.service("nobody", READS_STRIPE).await;
    let meant = |error: VaultError, name: &str| error.hint == Some(format!("did you mean `{name}`?"));
    assert!(meant(coded(desk.reveal(&owner, "prd/stripe").await, Code::NotFound), "prod"));
    assert!(meant(coded(desk.put(&owner, "stagin/stripe", "x").await, Code::NotFound), "staging"));
    // Names of places where he may do nothing are not told.
    assert!(meant(refused(desk.reveal(&nobody, "prd/stripe").await), "prod"));
    assert!(!meant(refused(desk.put(&nobody, "stagin/stripe", "x").await), "staging"));
    for who in [&owner, &nobody] {
        let error = coded(desk.reveal(who, "prod/acme:stripe").await, Code::NotFound);
        assert!(error.hint.unwrap().contains("company add acme"));
    }
    // Whether a secret is there is not public.
    desk.put(&owner, "prod/there", "x").await.unwrap();
    let (there, absent) =
        (desk.reveal(&nobody, "prod/there").await, desk.reveal(&nobody, "prod/absent").await);
    let (there, absent) = (refused(there), refused(absent));
    assert_eq!(there.message.replace("there", "absent"), absent.message);
}

#[tokio::test]
async fn a_row_with_an_endless_key_is_refused() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.vault.claim(&owner, &"a".repeat(128), &[b"x"], &needs_write("prod/a")).await.unwrap();
    coded(desk.vault.claim(&owner, &"a".repeat(129), &[b"x"], &needs_write("prod/a")).await, Code::Invalid);
    // The longest names that there are fit.
    let path = format!("prod/{}", vec!["a".repeat(31); 8].join("/"));
    desk.put(&owner, &path, STRIPE).await.unwrap();
    desk.reveal(&owner, &path).await.unwrap();
}

#[tokio::test]
async fn who_may_only_write_finds_nothing_out_by_importing_guesses() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let rules = |capabilities: &str| {
        format!(r#"[{{"capabilities":{capabilities},"environments":["prod"],"paths":["**"]}}]"#)
    };
    let blind = desk.service("blind", &rules(r#"["write"]"#)).await;
    let seeing = desk.service("seeing", &rules(r#"["write","inspect"]"#)).await;
    desk.put(&owner, "prod/stripe", "made up 1").await.unwrap();
    for (who, version) in [(&owner, 1), (&seeing, 1), (&blind, 2), (&blind, 3), (&seeing, 3)] {
        let guess = Put { action: Action::Import, ..put("prod/stripe", "made up 1") };
        assert_eq!(desk.vault.put(who, guess).await.unwrap().version, version, "{}", who.name);
    }
}

#[tokio::test]
async fn history_is_lost_only_with_leave_to_delete_and_on_record() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let writes = r#"[{"capabilities":["write"],"environments":["prod"],"paths":["**"]}]"#;
    let writer = desk.service("writer", writes).await;
    let keep = |count| Annotation { max_versions: Some(count), ..Annotation::default() };
    let keeping = |count, value: &str| Put { annotation: keep(count), ..put("prod/stripe", value) };
    // Who makes a secret says how many are kept; there is nothing yet that could be lost.
    desk.vault.put(&writer, keeping(3, "made up 1")).await.unwrap();
    desk.vault.put(&writer, keeping(4, "made up 2")).await.unwrap();
    let stripe = secret("prod/stripe");
    for refused_change in [true, false] {
        let (error, records) = desk
            .records_of(async {
                match refused_change {
                    true => desk.vault.put(&writer, keeping(1, "made up")).await.map(drop),
                    false => desk.vault.annotate(&writer, &stripe, keep(1)).await.map(drop),
                }
            })
            .await;
        let error = refused(error);
        assert!(error.message.contains("`delete`"), "{error}");
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].event.result, Outcome::Refused);
    }
    let detail = |records: &[AuditRecord], name: &str| match records.last().unwrap().event.details.get(name) {
        Some(DetailValue::Text(text)) => text.as_str().to_owned(),
        other => panic!("{name}: {other:?}"),
    };
    for number in 3..=4 {
        desk.put(&writer, "prod/stripe", &format!("made up {number}")).await.unwrap();
    }
    // Pushing out the oldest is a write like any other, and says what it destroyed.
    let (_, records) = desk.records_of(desk.put(&writer, "prod/stripe", "made up 5")).await;
    assert_eq!(detail(&records, "destroyed"), "1");
    let (_, records) = desk.records_of(desk.vault.annotate(&owner, &stripe, keep(3))).await;
    assert_eq!(detail(&records, "versions_kept"), "3, no longer 4");
    let (_, records) = desk.records_of(desk.vault.put(&owner, keeping(1, "made up 6"))).await;
    assert_eq!(detail(&records, "versions_kept"), "1, no longer 3");
    assert_eq!(detail(&records, "destroyed"), "2-4");
    desk.put(&owner, "prod/other", "made up a").await.unwrap();
    desk.put(&owner, "prod/other", "made up b").await.unwrap();
    let (_, records) = desk.records_of(desk.vault.destroy(&owner, &secret("prod/other"), vec![])).await;
    assert_eq!(detail(&records, "destroyed"), "1-2");
}
