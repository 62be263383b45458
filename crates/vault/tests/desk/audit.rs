//! The log as people use it: queries, proofs, a host's own actions.

use keymoat_core::audit::{Action, AuditText, DetailValue, Details, EventFilter, Outcome};
use keymoat_core::checkpoint::Checkpoint;
use keymoat_core::tree::{leaf_hash, verify_inclusion};
use keymoat_vault::{AuditQuery, AuditRecord, Caller, Code, HostEvent};

use crate::common::*;

#[tokio::test]
async fn queries_filter() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", "a").await.unwrap();
    desk.put(&owner, "prod/stripe/eu", "b").await.unwrap();
    desk.put(&owner, "staging/stripe", "c").await.unwrap();
    let shop = desk.service("shop", READS_STRIPE).await;
    let mut origin = desk.origin();
    origin.module = Some(AuditText::new("payments"));
    let module = Caller { origin, ..shop.clone() };
    desk.reveal(&module, "prod/stripe").await.unwrap();
    desk.clock.forward(jiff::SignedDuration::from_hours(1));
    let middle = desk.vault.now();
    drop(desk.reveal(&shop, "prod/stripe/eu").await.unwrap_err());
    let count = async |filter: EventFilter, account: Option<&str>| {
        let query = AuditQuery { filter, account: account.map(name), limit: 1000, ..AuditQuery::default() };
        desk.vault.query_audit(&owner, query).await.unwrap().len()
    };
    let all = EventFilter::default;
    let prod = || all().in_environment("prod".parse().unwrap());
    assert_eq!(count(all(), Some("shop")).await, 2);
    assert_eq!(count(EventFilter { action: Some(Action::Reveal), ..all() }, None).await, 2);
    assert_eq!(count(EventFilter { result: Some(Outcome::Refused), ..all() }, None).await, 1);
    assert_eq!(count(EventFilter { path_prefix: Some("stripe".parse().unwrap()), ..prod() }, None).await, 4);
    assert_eq!(
        count(EventFilter { path_prefix: Some("stripe/eu".parse().unwrap()), ..all() }, None).await,
        2
    );
    assert_eq!(count(EventFilter { module: Some(AuditText::new("payments")), ..all() }, None).await, 1);
    assert_eq!(
        count(EventFilter { since: Some(middle), action: Some(Action::Reveal), ..all() }, None).await,
        1
    );
    assert_eq!(
        count(EventFilter { until: Some(middle), action: Some(Action::Reveal), ..all() }, None).await,
        1
    );
    coded(
        desk.vault
            .query_audit(&owner, AuditQuery { account: Some(name("shob")), limit: 9, ..Default::default() })
            .await,
        Code::NotFound,
    );
    // Page by page, both ways, everything is seen once.
    let total = desk.records(|_| true).await.len();
    let mut before = None;
    let mut seen = Vec::new();
    loop {
        let query = AuditQuery { before, limit: 3, ..AuditQuery::default() };
        let page = desk.vault.query_audit(&owner, query).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.event.seq);
        seen.extend(
            page.iter()
                .filter(|record| record.event.action != Action::AuditRead)
                .map(|record| record.event.seq),
        );
    }
    assert_eq!(seen.len(), total);
    assert!(seen.is_sorted_by(|a, b| a > b));
    assert_eq!(
        desk.vault.query_audit(&owner, AuditQuery { limit: 0, ..AuditQuery::default() }).await.unwrap().len(),
        0
    );
}

#[tokio::test]
async fn a_record_is_proved_without_the_vault() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for n in 0..300 {
        desk.vault.inspect(&owner, &secret(&format!("prod/none{n}"))).await.unwrap_err();
    }
    for seq in [0, 1, 17, 255, 256, 299] {
        let inclusion = desk.vault.prove(&owner, seq).await.unwrap();
        let (checkpoint, _) = Checkpoint::parse(&inclusion.checkpoint).unwrap();
        assert_eq!(checkpoint.size(), inclusion.size);
        let leaf = leaf_hash(&inclusion.record.record);
        assert!(verify_inclusion(&leaf, seq, inclusion.size, &inclusion.proof, checkpoint.root()), "{seq}");
        let other = leaf_hash(&[inclusion.record.record.as_slice(), b" "].concat());
        assert!(!verify_inclusion(&other, seq, inclusion.size, &inclusion.proof, checkpoint.root()));
    }
    coded(desk.vault.prove(&owner, 1_000_000).await, Code::NotFound);
    let (note, key) = desk.vault.checkpoint(&owner).await.unwrap();
    assert!(note.starts_with("keymoat/") && key.starts_with("keymoat/"), "{key}");
}

#[tokio::test]
async fn a_hosts_own_actions_hold_no_keys() {
    let desk = Desk::new().await;
    let host = desk
        .service("shop", r#"[{"capabilities":["write"],"environments":["sys"],"paths":["audit/events"]}]"#)
        .await;
    let event = |action: &str, facts: &[(&str, &str)]| {
        let mut details = Details::new();
        for (name, text) in facts {
            details.insert(name.parse().unwrap(), DetailValue::Text(AuditText::new(text))).unwrap();
        }
        HostEvent { action: AuditText::new(action), outcome: Outcome::Allowed, details }
    };
    let fine = event("payment.refund", &[("order", "10042"), ("amount", "12.50 EUR")]);
    let (seq, records) = desk.records_of(desk.vault.record_host_event(&host, fine)).await;
    assert_eq!(seq.unwrap(), records[0].event.seq);
    assert_eq!(records[0].event.action, Action::Host);
    for text in [
        STRIPE.to_owned(),
        format!("key={STRIPE}"),
        format!("the key:{STRIPE}."),
        format!("https://api.madeup.test/?key={STRIPE}&x=1"),
        format!("[{STRIPE}]"),
        "dsn postgres://shop:MadeUp0000Pass@db.madeup.test:5432/shop".to_owned(),
    ] {
        let error = coded(
            desk.vault.record_host_event(&host, event("refund", &[("note", &text)])).await,
            Code::Invalid,
        );
        assert!(!format!("{error:?}").contains("MadeUp"), "{error:?}");
        coded(desk.vault.record_host_event(&host, event(&text, &[])).await, Code::Invalid);
    }
    let many: Vec<(String, &str)> = (0..16).map(|n| (format!("fact{n}"), "x")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    coded(desk.vault.record_host_event(&host, event("refund", &many)).await, Code::Invalid);
    desk.vault.record_host_event(&host, event("refund", &many[1..])).await.unwrap();
    coded(desk.vault.record_host_event(&host, event("refund", &[("host_action", "x")])).await, Code::Invalid);
    let nobody = desk.service("nobody", READS_STRIPE).await;
    refused(desk.vault.record_host_event(&nobody, event("refund", &[])).await);
}

#[tokio::test]
async fn personal_data_is_in_the_record_as_a_commitment_only() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.policy(&owner, "reads", READS).await.unwrap();
    desk.account(&owner, "florentine", keymoat_vault::entity::AccountKind::User, &["reads"], &[])
        .await
        .unwrap();
    let mut origin = desk.origin_at("203.0.113.45");
    origin.user_agent = Some(AuditText::new("curl-of-florentine"));
    let token = desk.vault.create_token(&owner, new_token("florentine")).await.unwrap();
    let caller = desk.vault.sign_in_with_token(token.token.text(), origin).await.unwrap();
    drop(desk.reveal(&caller, "prod/none").await.unwrap_err());
    let records = desk.records(|record| record.event.actor == caller.actor()).await;
    let [AuditRecord { event, record, personal }] = records.as_slice() else { panic!("{records:?}") };
    let record = String::from_utf8(record.clone()).unwrap();
    assert!(event.personal.is_some());
    for part in ["203.0.113.45", "florentine"] {
        assert!(!record.contains(part), "{record}");
    }
    let personal = personal.as_ref().unwrap();
    assert_eq!(personal.actor_name.as_ref().unwrap().as_str(), "florentine");
    assert_eq!(personal.user_agent.as_ref().unwrap().as_str(), "curl-of-florentine");
}

#[tokio::test]
async fn a_followers_looks_of_a_minute_share_a_record() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let reads = async || {
        let filter = EventFilter { action: Some(Action::AuditRead), ..EventFilter::default() };
        let query = AuditQuery { filter, limit: 10_000, ..AuditQuery::default() };
        desk.vault.query_audit(&owner, query).await.unwrap()
    };
    let look = async |follow: bool, path: Option<&str>| {
        let path_prefix = path.map(|path| path.parse().unwrap());
        let filter = EventFilter { path_prefix, ..EventFilter::default() };
        let query = AuditQuery { filter, limit: 10, follow, ..AuditQuery::default() };
        let before = reads().await.len();
        desk.vault.query_audit(&owner, query).await.unwrap();
        // Counting is a look of its own.
        reads().await.len() - before - 1
    };
    let forward = |seconds: i64| desk.clock.forward(jiff::SignedDuration::from_secs(seconds));
    // Whether it follows, its filter, the seconds since the look before, and the records that it leaves.
    for (follow, path, seconds, records) in [
        (true, None, 0, 1),
        (true, None, 1, 0),
        (true, None, 58, 0),
        (false, None, 0, 1),
        (true, Some("stripe"), 0, 1),
        (true, Some("stripe"), 0, 0),
        (true, None, 1, 1),
        (true, None, 59, 0),
    ] {
        forward(seconds);
        assert_eq!(look(follow, path).await, records, "{follow} {path:?} after {seconds} s");
    }
    let outsider = desk.service("outsider", READS_STRIPE).await;
    for _ in 0..2 {
        let query = AuditQuery { limit: 10, follow: true, ..AuditQuery::default() };
        coded(desk.vault.query_audit(&outsider, query).await, Code::Refused);
    }
    let refused = reads().await.into_iter().filter(|record| record.event.result == Outcome::Refused);
    assert_eq!(refused.count(), 2, "every refusal is on record");
}
