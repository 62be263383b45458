//! The same key in two environments.

use keymoat_core::audit::{Action, AuditText, Outcome, ReasonCode};
use keymoat_vault::{Code, Put};

use crate::common::*;

const WRITES_STAGING: &str = r#"[{"capabilities":["write"],"environments":["staging"],"paths":["**"]}]"#;
const WRITES_AND_INSPECTS: &str = r#"[{"capabilities":["write"],"environments":["staging"],"paths":["**"]},
    {"capabilities":["inspect"],"environments":["prod"],"paths":["**"]}]"#;

#[tokio::test]
async fn the_same_key_elsewhere_is_refused_and_named_to_those_who_may_know() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/payments/stripe", STRIPE).await.unwrap();
    let writer = desk.service("writer", WRITES_STAGING).await;
    let inspector = desk.service("inspector", WRITES_AND_INSPECTS).await;
    let (result, records) = desk.records_of(desk.put(&writer, "staging/stripe", STRIPE)).await;
    let error = coded(result, Code::Duplicate);
    let shown = format!("{error:?}");
    assert!(!shown.contains("payments") && !shown.contains("prod"), "{shown}");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event.result, Outcome::Failed);
    assert_eq!(records[0].event.reason.as_ref().unwrap().code, ReasonCode::Duplicate);
    let error = coded(desk.put(&inspector, "staging/stripe", STRIPE).await, Code::Duplicate);
    assert!(error.message.contains("`prod/payments/stripe`"), "{error}");
    assert!(!error.message.contains('\n'));
    // As a field of an object too.
    coded(desk.vault.put(&writer, put_fields("staging/stripe", &[("key", STRIPE)])).await, Code::Duplicate);
    coded(desk.vault.inspect(&owner, &secret("staging/stripe")).await, Code::NotFound);
}

#[tokio::test]
async fn the_override_is_on_record() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let because = Some(AuditText::new("the provider has no test mode"));
    let allowed = desk.vault.put(&owner, Put { duplicate_because: because, ..put("staging/stripe", STRIPE) });
    let (result, records) = desk.records_of(allowed).await;
    result.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].event.action, records[0].event.result), (Action::Write, Outcome::Allowed));
    let why = format!("{:?}", records[0].event.details.get("why").unwrap());
    assert!(why.contains("no test mode"), "{why}");
}

#[tokio::test]
async fn copies_in_one_environment_are_named_and_fine() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.vault.put_company(&owner, "acme".parse().unwrap(), String::new()).await.unwrap();
    assert_eq!(desk.put(&owner, "prod/stripe", STRIPE).await.unwrap().also_at, []);
    assert_eq!(desk.put(&owner, "prod/acme:stripe", STRIPE).await.unwrap().also_at, [secret("prod/stripe")]);
    assert_eq!(desk.put(&owner, "prod/stripe", STRIPE).await.unwrap().also_at, [secret("prod/acme:stripe")]);
    let writer = r#"[{"capabilities":["write"],"environments":["prod"],"paths":["other"]}]"#;
    let writer = desk.service("writer", writer).await;
    assert_eq!(desk.put(&writer, "prod/other", STRIPE).await.unwrap().also_at, [], "he may not inspect them");
}

#[tokio::test]
async fn values_that_people_choose_are_not_compared() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for value in ["changeit2024", "postgres", "pk_live_51MadeUpExample0000KeymoatTest", "true", ""] {
        for place in ["prod/a", "staging/a"] {
            desk.vault.put(&owner, Put { allow_empty: true, ..put(place, value) }).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_destroyed_key_is_free_again_and_a_deleted_one_is_not() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    desk.vault.delete(&owner, &secret("prod/stripe"), vec![]).await.unwrap();
    coded(desk.put(&owner, "staging/stripe", STRIPE).await, Code::Duplicate);
    desk.vault.destroy(&owner, &secret("prod/stripe"), vec![]).await.unwrap();
    desk.put(&owner, "staging/stripe", STRIPE).await.unwrap();
    coded(desk.put(&owner, "prod/stripe", STRIPE).await, Code::Duplicate);
}

#[tokio::test]
async fn many_copies_hide_none_elsewhere() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for n in 0..100 {
        desk.put(&owner, &format!("prod/copy{n}"), STRIPE).await.unwrap();
    }
    let because = Some(AuditText::new("once"));
    desk.vault.put(&owner, Put { duplicate_because: because, ..put("staging/a", STRIPE) }).await.unwrap();
    coded(desk.put(&owner, "prod/one-more", STRIPE).await, Code::Duplicate);
}
