//! Who is refused again and again fills no disk, and learns nothing that is not on record.

use jiff::SignedDuration;
use keymoat_core::audit::{Action, AuditText, DetailValue, Outcome};
use keymoat_core::policy::Policy;
use keymoat_core::secret::ValueKind;
use keymoat_vault::entity::AccountKind;
use keymoat_vault::{
    AccountChange, Annotation, Attempt, AuditRecord, Code, NewAccount, NewGrant, NewToken, NewValue, Put,
    VaultError, Wanted,
};

use crate::common::*;

#[tokio::test]
async fn refusals_of_one_who_is_signed_in_are_bounded_and_what_is_allowed_is_not() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let shop = desk.service("shop", READS_STRIPE).await;
    let other = desk.service("other", READS_STRIPE).await;
    let is_refused =
        |record: &AuditRecord| record.event.actor == shop.actor() && record.event.result == Outcome::Refused;
    let mut codes = Vec::new();
    for _ in 0..200 {
        let error = desk.reveal(&shop, "prod/twilio").await.unwrap_err();
        codes.push(error.code);
        assert_eq!(error.retry_after_secs.is_some(), error.code == Code::RateLimited);
        // What is allowed goes on, however much was refused.
        desk.reveal(&shop, "prod/stripe").await.unwrap();
    }
    assert!(codes[..60].iter().all(|code| *code == Code::Refused));
    assert!(codes[60..].iter().all(|code| *code == Code::RateLimited));
    assert_eq!(desk.records(is_refused).await.len(), 60);
    // Whatever is refused: nobody hears a decision that is not on record.
    let vault = &desk.vault;
    coded(vault.list(&shop, &"prod".parse().unwrap(), None, None, None, 9).await, Code::RateLimited);
    coded(vault.create_token(&shop, new_token("shop")).await, Code::RateLimited);
    coded(desk.put(&shop, "prod/stripe", "new").await, Code::RateLimited);
    assert_eq!(vault.refuse_remote_key(&shop, "slots").await.code, Code::RateLimited);
    refused(desk.reveal(&other, "prod/twilio").await);
    assert_eq!(desk.records(is_refused).await.len(), 60);
    desk.clock.forward(SignedDuration::from_mins(1));
    refused(desk.reveal(&shop, "prod/twilio").await);
    let last = desk.records(is_refused).await.pop().unwrap();
    let counted = last.event.details.get("suppressed_before");
    assert_eq!(counted, Some(&DetailValue::Text(AuditText::new("144"))));
}

#[tokio::test]
async fn what_was_only_counted_is_on_record_in_the_end() {
    let desk = Desk::new().await;
    let shop = desk.service("shop", READS_STRIPE).await;
    for _ in 0..70 {
        drop(desk.reveal(&shop, "prod/twilio").await.unwrap_err());
    }
    desk.clock.forward(SignedDuration::from_mins(1));
    desk.vault.sweep().await.unwrap();
    let counted = desk.records(|record| record.event.action == Action::Refuse).await;
    let [AuditRecord { event, .. }] = counted.as_slice() else { panic!("{counted:?}") };
    assert_eq!(event.details.get("suppressed"), Some(&DetailValue::Text(AuditText::new("10"))));
    let principal = AuditText::new(&shop.principal.to_string());
    assert_eq!(event.details.get("principal"), Some(&DetailValue::Text(principal)));
    // Closing waits for no minute.
    for _ in 0..80 {
        drop(desk.reveal(&shop, "prod/twilio").await.unwrap_err());
    }
    let desk = desk.reopened().await;
    let counted = desk.records(|record| record.event.action == Action::Refuse).await;
    assert_eq!(counted.len(), 2);
}

#[tokio::test]
async fn refused_sign_ins_from_many_addresses_are_bounded_together() {
    let desk = Desk::new().await;
    for number in 0..200 {
        let wrong = bytes("wrong");
        let one_subscriber = desk.origin_at(&format!("2001:db8:0:1::{number}"));
        drop(desk.vault.sign_in_with_token(&wrong, one_subscriber).await.unwrap_err());
    }
    let recorded = async || desk.records(|record| record.event.action == Action::SignIn).await.len();
    assert_eq!(recorded().await, 5, "a /64 counts as one");
    for number in 0..200 {
        let wrong = bytes("wrong");
        let another = desk.origin_at(&format!("2001:db8:{number:x}:1::1"));
        drop(desk.vault.sign_in_with_token(&wrong, another).await.unwrap_err());
    }
    assert_eq!(recorded().await, 60, "so many in a minute, from wherever they come");
}

#[tokio::test]
async fn who_may_not_do_it_claims_no_key_and_is_told_no_answer() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let writes = r#"[{"capabilities":["write"],"environments":["prod"],"paths":["stripe"]}]"#;
    let shop = desk.service("shop", writes).await;
    let claim = async |key: &str, path: &str| {
        desk.vault.claim(&shop, key, &[b"request"], &needs_write(path)).await.unwrap()
    };
    let (attempt, records) = desk.records_of(claim("k1", "prod/twilio")).await;
    assert_eq!((attempt, records.len()), (Attempt::NotAllowed, 0), "no row, no record");
    assert_eq!(claim("k1", "prod/stripe").await, Attempt::First);
    let answer = serde_json::json!({ "made": "up" });
    desk.vault.remember(&shop, "k1", &[b"request"], answer.clone()).await.unwrap();
    let (attempt, records) = desk.records_of(claim("k1", "prod/stripe")).await;
    assert_eq!(attempt, Attempt::Answered(answer));
    let [AuditRecord { event, .. }] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((event.action, &event.actor), (Action::Inspect, &shop.actor()));
    let none = AccountChange { policies: Some([].into()), ..AccountChange::default() };
    desk.vault.update_account(&owner, &name("shop"), none).await.unwrap();
    assert_eq!(claim("k1", "prod/stripe").await, Attempt::NotAllowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_caller_are_bounded_and_forgotten_in_parts() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let shop =
        desk.service("shop", r#"[{"capabilities":["write"],"environments":["prod"],"paths":["**"]}]"#).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..10_000 {
        let (vault, shop) = (desk.vault.clone(), shop.clone());
        let needs = needs_write("prod/stripe");
        tasks.spawn(async move {
            vault.claim(&shop, &format!("k{number}"), &[b"request"], &needs).await.unwrap()
        });
    }
    assert!(tasks.join_all().await.iter().all(|attempt| *attempt == Attempt::First));
    let needs = needs_write("prod/stripe");
    let claim = async |who, key: &str| desk.vault.claim(who, key, &[b"request"], &needs).await;
    let error = coded(claim(&shop, "one more").await, Code::Invalid);
    assert!(error.message.contains("visible"), "{error}");
    let error = coded(claim(&shop, "one-more").await, Code::RateLimited);
    assert!(error.retry_after_secs.is_some(), "{error}");
    coded(claim(&shop, "k1").await, Code::Conflict);
    assert_eq!(claim(&owner, "one-more").await.unwrap(), Attempt::First);
    desk.clock.forward(SignedDuration::from_hours(24));
    let mut sweeps = 0;
    while desk.vault.sweep().await.unwrap().more {
        sweeps += 1;
    }
    assert_eq!(sweeps, 10);
    assert_eq!(claim(&shop, "one-more").await.unwrap(), Attempt::First);
}

#[tokio::test]
async fn text_that_holds_a_key_is_refused_and_named() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", "made up").await.unwrap();
    desk.account(&owner, "bot", AccountKind::ServiceAccount, &[], &[]).await.unwrap();
    let vault = &desk.vault;
    let key = || format!("was {STRIPE}, now another");
    let why = AuditText::new(&key());
    let annotated = |annotation| Put { annotation, ..put("prod/fresh", "made up") };
    let described = || Annotation { description: Some(key()), ..Annotation::default() };
    let tagged = || Annotation { add_tags: [("old".to_owned(), key())].into(), ..Annotation::default() };
    let named =
        || Annotation { tags: Some([(STRIPE.to_owned(), String::new())].into()), ..Annotation::default() };
    let owned = || Annotation { owner: Some(key()), ..Annotation::default() };
    let stripe = secret("prod/stripe");
    let json = format!(r#"{{"{STRIPE}":"made up"}}"#);
    let json = NewValue::Whole { kind: ValueKind::Json, value: bytes(&json) };
    let duplicate = Put { duplicate_because: Some(why.clone()), ..put("prod/fresh", "made up") };
    let account = NewAccount {
        name: name("made"),
        kind: AccountKind::User,
        description: key(),
        policies: [].into(),
        groups: [].into(),
    };
    let change = AccountChange { description: Some(key()), ..AccountChange::default() };
    let policy = Policy { description: key(), ..policy("mine", READS) };
    let token = NewToken { description: key(), ..new_token("bot") };
    let grant = NewGrant { reason: why.clone(), ..new_grant("bot", READS, 1) };
    let wanted = Wanted::default();
    let refused: Vec<(&str, Result<(), VaultError>)> = vec![
        ("description", vault.put(&owner, annotated(described())).await.map(drop)),
        ("owner", vault.put(&owner, annotated(owned())).await.map(drop)),
        ("tag", vault.put(&owner, annotated(tagged())).await.map(drop)),
        ("tag's name", vault.annotate(&owner, &stripe, named()).await.map(drop)),
        ("description", vault.annotate(&owner, &stripe, described()).await.map(drop)),
        ("name of a field", vault.put(&owner, Put { value: json, ..put("prod/fresh", "") }).await.map(drop)),
        ("reason", vault.put(&owner, duplicate).await.map(drop)),
        ("reason", vault.reveal(&owner, &stripe, None, &wanted, Some(&why)).await.map(drop)),
        ("reason", vault.create_grant(&owner, grant).await.map(drop)),
        ("description", vault.create_account(&owner, account).await.map(drop)),
        ("description", vault.update_account(&owner, &name("bot"), change).await.map(drop)),
        ("description", vault.put_policy(&owner, policy).await.map(drop)),
        ("description", vault.create_token(&owner, token).await.map(drop)),
        ("description", vault.put_environment(&owner, "dev".parse().unwrap(), key()).await.map(drop)),
        ("description", vault.put_company(&owner, "acme".parse().unwrap(), key()).await.map(drop)),
    ];
    for (number, (what, result)) in refused.into_iter().enumerate() {
        let error = coded(result, Code::Invalid);
        assert!(error.message.contains(what), "{number} {error}");
        assert!(!format!("{error:?}").contains("51MadeUp"), "{number} {error:?}");
    }
    let bytes = desk.bytes();
    assert!(!bytes.windows(STRIPE.len()).any(|window| window == STRIPE.as_bytes()));
}
