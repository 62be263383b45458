//! What has ended goes away by itself, and the clock never goes back.

use jiff::SignedDuration;
use keymoat_core::audit::Action;
use keymoat_vault::{NewToken, Swept};

use crate::common::*;

#[tokio::test]
async fn what_has_ended_is_taken_away_and_written_down() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.service("shop", READS_STRIPE).await;
    for hours in [1, 2, 1000] {
        let new = NewToken { ttl: SignedDuration::from_hours(hours), ..new_token("shop") };
        desk.vault.create_token(&owner, new).await.unwrap();
    }
    desk.vault.create_grant(&owner, new_grant("shop", READS, 3)).await.unwrap();
    let revoked = desk.vault.create_grant(&owner, new_grant("shop", READS, 24 * 80)).await.unwrap();
    desk.vault.revoke_grant(&owner, revoked.id).await.unwrap();
    desk.vault.create_grant(&owner, new_grant("shop", READS, 24 * 80)).await.unwrap();
    desk.vault.claim(&owner, "a-key", &[b"request"], &needs_write("prod/a")).await.unwrap();
    let sweep = async || desk.vault.sweep().await.unwrap();
    assert_eq!(sweep().await, Swept::default());
    desk.clock.forward(SignedDuration::from_hours(1));
    let (swept, records) = desk.records_of(sweep()).await;
    // The first administrator's code lasts half an hour.
    assert_eq!(swept, Swept { tokens: 1, codes: 1, ..Swept::default() });
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event.action, Action::Prune);
    assert_eq!(records[0].event.actor.to_string(), "system:sweeper");
    desk.clock.forward(SignedDuration::from_hours(23));
    assert_eq!(sweep().await, Swept { tokens: 1, answers: 1, ..Swept::default() });
    desk.clock.forward(SignedDuration::from_hours(24 * 30));
    assert_eq!(sweep().await, Swept { tokens: 1, grants: 2, ..Swept::default() });
    let (swept, records) = desk.records_of(sweep()).await;
    assert_eq!((swept, records.len()), (Swept::default(), 0));
    let desk = desk.reopened().await;
    assert_eq!(desk.vault.sweep().await.unwrap(), Swept::default());
    assert_eq!(desk.vault.counts().grants, 1);
}

#[tokio::test]
async fn counted_refusals_are_written_down_in_the_end() {
    let desk = Desk::new().await;
    for _ in 0..50 {
        drop(
            desk.vault.sign_in_with_token(&bytes("wrong"), desk.origin_at("198.51.100.1")).await.unwrap_err(),
        );
    }
    desk.vault.sweep().await.unwrap();
    assert_eq!(desk.records(|record| record.event.action == Action::Refuse).await.len(), 0);
    desk.clock.forward(SignedDuration::from_mins(1));
    desk.vault.sweep().await.unwrap();
    desk.vault.sweep().await.unwrap();
    let counted = desk.records(|record| record.event.action == Action::Refuse).await;
    assert_eq!(counted.len(), 1);
    assert!(format!("{:?}", counted[0].event.details).contains("45"));
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_noticed_and_brings_nothing_back() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.service("shop", READS_STRIPE).await;
    let issued = NewToken { ttl: SignedDuration::from_hours(1), ..new_token("shop") };
    let issued = desk.vault.create_token(&owner, issued).await.unwrap();
    desk.clock.forward(SignedDuration::from_hours(2));
    drop(desk.vault.sign_in_with_token(issued.token.text(), desk.origin()).await.unwrap_err());
    assert_eq!(desk.vault.clock_warning(), None);
    desk.clock.forward(SignedDuration::from_hours(-2));
    let desk = desk.reopened().await;
    drop(desk.vault.sign_in_with_token(issued.token.text(), desk.origin()).await.unwrap_err());
    assert_eq!(desk.vault.clock_behind_secs(), 7200);
    assert!(desk.vault.clock_warning().unwrap().contains("2 hours behind"));
    desk.clock.forward(SignedDuration::from_mins(115));
    assert_eq!(desk.vault.clock_warning(), None);
}
