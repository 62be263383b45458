//! Who is refused again and again fills no disk, and learns nothing that is not on record.

use jiff::SignedDuration;
use keymoat_core::audit::{Action, AuditText, DetailValue, Outcome};
use keymoat_vault::{AuditRecord, Code};

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
