//! Nobody approves his own wish through somebody whom he controls, and nobody takes from who may do more.

use jiff::SignedDuration;
use keymoat_core::audit::{Action, Outcome, ReasonCode};
use keymoat_vault::entity::{AccountKind, GrantEntity, StoredGrantState};
use keymoat_vault::{AccountChange, Caller, Code, NewGrant};

use crate::common::*;

/// A vault with a value, an owner's second administrator `peer`, and the first administrator.
async fn furnished() -> (Desk, Caller, Caller, Caller) {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    desk.account(&owner, "peer", AccountKind::User, &["administrator"], &[]).await.unwrap();
    let (admin, peer) = (desk.administrator().await, desk.sign_in("peer").await);
    wait(&desk);
    (desk, owner, admin, peer)
}

/// Long enough that nothing was made just now.
fn wait(desk: &Desk) {
    desk.clock.forward(SignedDuration::from_mins(61));
}

async fn puppet(desk: &Desk, by: &Caller, account: &str) -> Caller {
    desk.account(by, account, AccountKind::User, &["administrator"], &[]).await.unwrap();
    token_of(desk, by, account).await
}

async fn token_of(desk: &Desk, by: &Caller, account: &str) -> Caller {
    let token = desk.token_by(by, account).await.unwrap();
    desk.vault.sign_in_with_token(token.token.text(), desk.origin()).await.unwrap()
}

async fn ask(desk: &Desk, by: &Caller, receiver: &str) -> GrantEntity {
    let glass = NewGrant { break_glass: true, ..new_grant(receiver, READS_STRIPE, 8) };
    let grant = desk.vault.create_grant(by, glass).await.unwrap();
    assert_eq!(grant.state, StoredGrantState::NeedsApproval);
    grant
}

/// Neither may approve what the other asks for, and each refusal is on record.
async fn check_dependent(desk: &Desk, one: &Caller, other: &Caller) {
    wait(desk);
    for (asking, approving) in [(one, other), (other, one)] {
        let grant = ask(desk, asking, asking.name.as_str()).await;
        let (result, records) = desk.records_of(desk.vault.approve_grant(approving, grant.id)).await;
        let error = refused(result);
        assert!(error.message.contains("independent"), "{} for {}: {error}", approving.name, asking.name);
        let event = &records.last().unwrap().event;
        assert_eq!((event.action, event.result), (Action::GrantApprove, Outcome::Refused));
        assert_eq!(event.reason.as_ref().unwrap().code, ReasonCode::BeyondOwnRights);
        refused(desk.reveal(asking, "prod/stripe").await);
        desk.vault.revoke_grant(asking, grant.id).await.unwrap();
    }
}

#[tokio::test]
async fn puppets_of_any_kind_do_not_approve() {
    let (desk, owner, admin, peer) = furnished().await;
    let alt = puppet(&desk, &admin, "alt").await;
    check_dependent(&desk, &admin, &alt).await;
    let sibling = puppet(&desk, &admin, "sibling").await;
    check_dependent(&desk, &alt, &sibling).await;
    let grandchild = puppet(&desk, &alt, "grandchild").await;
    check_dependent(&desk, &admin, &grandchild).await;
    // The one in between is no more.
    desk.vault.delete_account(&admin, &name("alt")).await.unwrap();
    coded(desk.vault.list_accounts(&grandchild).await, Code::NotSignedIn);
    check_dependent(&desk, &admin, &desk.sign_in("grandchild").await).await;
    // An old account that he promotes, or makes a token for.
    desk.account(&owner, "ci", AccountKind::ServiceAccount, &[], &[]).await.unwrap();
    let promote =
        AccountChange { policies: Some(["administrator".parse().unwrap()].into()), ..Default::default() };
    desk.vault.update_account(&admin, &name("ci"), promote).await.unwrap();
    check_dependent(&desk, &admin, &desk.sign_in("ci").await).await;
    desk.account(&owner, "old", AccountKind::User, &["administrator"], &[]).await.unwrap();
    let old = token_of(&desk, &admin, "old").await;
    check_dependent(&desk, &admin, &old).await;
    // A token made with that token is no more his own, and ends with it.
    let second = token_of(&desk, &old, "old").await;
    check_dependent(&desk, &admin, &second).await;
    desk.vault.revoke_token(&old, old.token.unwrap()).await.unwrap();
    coded(desk.vault.list_accounts(&second).await, Code::NotSignedIn);
    // Somebody independent of all of them approves.
    let grant = ask(&desk, &admin, "admin").await;
    desk.vault.approve_grant(&peer, grant.id).await.unwrap();
    desk.reveal(&admin, "prod/stripe").await.unwrap();
}

#[tokio::test]
async fn the_owner_and_his_administrators_approve() {
    let (desk, owner, admin, peer) = furnished().await;
    let other = puppet(&desk, &owner, "other").await;
    wait(&desk);
    for (asking, approving) in
        [(&admin, &peer), (&peer, &admin), (&peer, &other), (&peer, &owner), (&admin, &owner)]
    {
        let grant = ask(&desk, asking, asking.name.as_str()).await;
        desk.vault.approve_grant(approving, grant.id).await.unwrap();
        desk.reveal(asking, "prod/stripe").await.unwrap();
        desk.vault.revoke_grant(&owner, grant.id).await.unwrap();
    }
    // Who has a hand in everybody else's account still has to wait for an owner: it is not the same as being alone.
    for account in ["peer", "other"] {
        token_of(&desk, &admin, account).await;
    }
    ask(&desk, &admin, "admin").await;
}

#[tokio::test]
async fn nobody_takes_from_who_may_do_more() {
    let (desk, owner, admin, _) = furnished().await;
    desk.account(&owner, "boss", AccountKind::User, &["owner"], &[]).await.unwrap();
    let deny =
        r#"[{"effect":"deny","capabilities":["write","grant"],"environments":["sys"],"paths":["**"]}]"#;
    desk.policy(&owner, "muzzle", deny).await.unwrap();
    let off = || AccountChange { active: Some(false), ..Default::default() };
    let bare = || AccountChange { policies: Some([].into()), ..Default::default() };
    let muzzled = AccountChange {
        policies: Some(["owner".parse().unwrap(), "muzzle".parse().unwrap()].into()),
        ..Default::default()
    };
    let boss = name("boss");
    for change in [off(), bare(), muzzled] {
        let (result, records) = desk.records_of(desk.vault.update_account(&admin, &boss, change)).await;
        refused(result);
        let event = &records.last().unwrap().event;
        assert_eq!(event.reason.as_ref().unwrap().code, ReasonCode::BeyondOwnRights);
    }
    refused(desk.vault.delete_account(&admin, &boss).await);
    refused(desk.vault.leave(&admin, &boss).await);
    // An owner takes from everybody, also from himself, while another is left.
    desk.vault.delete_account(&owner, &name("peer")).await.unwrap();
    desk.vault.update_account(&owner, &boss, bare()).await.unwrap();
    for change in [off(), bare()] {
        let error = coded(desk.vault.update_account(&owner, &name("os:ana"), change).await, Code::Conflict);
        assert!(error.message.contains("nobody would be left"), "{error}");
    }
    desk.vault.update_account(&admin, &name("admin"), bare()).await.unwrap();
}
