//! Signing in: tokens, their limits, one-time codes.

use jiff::SignedDuration;
use keymoat_core::audit::{Action, Outcome, ReasonCode};
use keymoat_vault::entity::AccountKind;
use keymoat_vault::{AccountChange, AuditRecord, Caller, Code, NewGrant, NewToken};

use crate::common::*;

#[tokio::test]
async fn a_token_is_kept_as_a_digest_only() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.service("shop", READS_STRIPE).await;
    let issued = desk.vault.create_token(&owner, new_token("shop")).await.unwrap();
    let token = text(issued.token.text());
    assert!(token.starts_with("kms_"));
    desk.vault.sign_in_with_token(issued.token.text(), desk.origin()).await.unwrap();
    let code = desk.vault.create_sign_in_code(&owner, &name("shop")).await.unwrap();
    let bytes = desk.bytes();
    for wanted in [token.as_str(), &token[4..], &text(code.text()), &text(&desk.code)] {
        assert!(!bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes()));
    }
    assert!(!format!("{issued:?}").contains(&token[4..]), "{issued:?}");
    assert!(issued.entity.masked.ends_with(&token[token.len() - 4..]));
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_the_same_words() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.service("shop", READS_STRIPE).await;
    let issued = desk.vault.create_token(&owner, new_token("shop")).await.unwrap();
    let revoked = desk.vault.create_token(&owner, new_token("shop")).await.unwrap();
    let expired = NewToken { ttl: SignedDuration::from_secs(1), ..new_token("shop") };
    let expired = desk.vault.create_token(&owner, expired).await.unwrap();
    let bound = NewToken { networks: vec!["192.0.2.0/24".parse().unwrap()], ..new_token("shop") };
    let bound = desk.vault.create_token(&owner, bound).await.unwrap();
    desk.vault.revoke_token(&owner, revoked.entity.id).await.unwrap();
    desk.clock.forward(SignedDuration::from_secs(1));
    let good = text(issued.token.text());
    let mut flipped = good.clone();
    flipped.replace_range(10..11, if &good[10..11] == "a" { "b" } else { "a" });
    let rows = [
        ("", ReasonCode::BadCredentials),
        ("nonsense", ReasonCode::BadCredentials),
        (&flipped, ReasonCode::BadCredentials),
        (&text(revoked.token.text()), ReasonCode::BadCredentials),
        (&text(expired.token.text()), ReasonCode::Expired),
        (&text(bound.token.text()), ReasonCode::ConditionFailed),
    ];
    let mut words = std::collections::BTreeSet::new();
    for (number, (token, reason)) in rows.into_iter().enumerate() {
        let origin = desk.origin_at(&format!("198.51.100.{number}"));
        let (result, records) = desk.records_of(desk.vault.sign_in_with_token(&bytes(token), origin)).await;
        words.insert(format!("{:?}", coded(result, Code::NotSignedIn)));
        assert_eq!(records.len(), 1, "{number}");
        let event = &records[0].event;
        assert_eq!((event.action, event.result), (Action::SignIn, Outcome::Refused));
        assert_eq!(event.reason.as_ref().unwrap().code, reason, "{number}");
    }
    assert_eq!(words.len(), 1, "{words:?}");
    desk.vault.sign_in_with_token(bound.token.text(), desk.origin_at("192.0.2.77")).await.unwrap();
    coded(desk.vault.sign_in_with_token(bound.token.text(), desk.origin()).await, Code::NotSignedIn);
    desk.vault.sign_in_with_token(issued.token.text(), desk.origin()).await.unwrap();
}

#[tokio::test]
async fn a_token_is_renewed_as_far_as_it_may_be() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.service("shop", READS_STRIPE).await;
    let hours = SignedDuration::from_hours;
    let new = NewToken { ttl: hours(1), renewable_for: Some(hours(3)), ..new_token("shop") };
    let issued = desk.vault.create_token(&owner, new).await.unwrap();
    let caller = desk.vault.sign_in_with_token(issued.token.text(), desk.origin()).await.unwrap();
    let start = desk.vault.now();
    let ends =
        async || desk.vault.renew_token(&caller).await.map(|token| token.expires_at.duration_since(start));
    desk.clock.forward(SignedDuration::from_mins(30));
    assert_eq!(ends().await.unwrap(), SignedDuration::from_mins(90));
    desk.clock.forward(hours(1) - SignedDuration::from_mins(1));
    assert_eq!(ends().await.unwrap(), SignedDuration::from_mins(149));
    desk.clock.forward(SignedDuration::from_mins(50));
    assert_eq!(ends().await.unwrap(), hours(3), "the bound");
    assert_eq!(ends().await.unwrap(), hours(3));
    // What is left may be too short for any clock: it ends all the same.
    desk.clock.forward(SignedDuration::from_mins(41) - SignedDuration::from_millis(1));
    assert_eq!(ends().await.unwrap(), hours(3));
    desk.clock.forward(SignedDuration::from_millis(1));
    coded(desk.vault.renew_token(&caller).await, Code::NotSignedIn);
    coded(desk.vault.sign_in_with_token(issued.token.text(), desk.origin()).await, Code::NotSignedIn);
    let fixed = desk.sign_in("shop").await;
    coded(desk.vault.renew_token(&fixed).await, Code::Invalid);
    coded(desk.vault.renew_token(&owner).await, Code::Invalid);
    for wrong in [
        NewToken { ttl: SignedDuration::ZERO, ..new_token("shop") },
        NewToken { ttl: hours(24 * 367), ..new_token("shop") },
        NewToken { renewable_for: Some(hours(24 * 366 * 11)), ..new_token("shop") },
        NewToken { uses: Some(0), ..new_token("shop") },
        NewToken { networks: vec!["192.0.2.0/24".parse().unwrap(); 33], ..new_token("shop") },
        NewToken { description: "x".repeat(2000), ..new_token("shop") },
    ] {
        coded(desk.vault.create_token(&owner, wrong).await, Code::Invalid);
    }
    coded(desk.vault.create_token(&owner, new_token("shob")).await, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_use_has_one_winner() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.service("shop", READS_STRIPE).await;
    for round in 0..20 {
        let once = NewToken { uses: Some(1), ..new_token("shop") };
        let token = desk.vault.create_token(&owner, once).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (vault, text, origin) = (desk.vault.clone(), token.token.text().duplicate(), desk.origin());
            tasks.spawn(async move { vault.sign_in_with_token(&text, origin).await.is_ok() });
        }
        let winners = tasks.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(winners, 1, "round {round}");
    }
    let few = NewToken { uses: Some(3), ..new_token("shop") };
    let few = desk.vault.create_token(&owner, few).await.unwrap();
    for _ in 0..3 {
        desk.vault.sign_in_with_token(few.token.text(), desk.origin()).await.unwrap();
    }
    coded(desk.vault.sign_in_with_token(few.token.text(), desk.origin()).await, Code::NotSignedIn);
    let desk = desk.reopened().await;
    coded(desk.vault.sign_in_with_token(few.token.text(), desk.origin()).await, Code::NotSignedIn);
}

#[tokio::test]
async fn a_token_makes_none_that_is_good_for_more() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let own = r#"[{"capabilities":["grant","list"],"environments":["sys"],"paths":["tokens/**"]}]"#;
    desk.service("shop", own).await;
    let make = async |new: NewToken, at: &str| {
        let token = desk.vault.create_token(&owner, new).await.unwrap();
        desk.vault.sign_in_with_token(token.token.text(), desk.origin_at(at)).await.unwrap()
    };
    let net = |text: &str| vec![text.parse().unwrap()];
    let bound = make(NewToken { networks: net("192.0.2.0/24"), ..new_token("shop") }, "192.0.2.1").await;
    refused(desk.vault.create_token(&bound, new_token("shop")).await);
    refused(
        desk.vault
            .create_token(&bound, NewToken { networks: net("192.0.0.0/16"), ..new_token("shop") })
            .await,
    );
    refused(desk.vault.create_sign_in_code(&bound, &name("shop")).await);
    desk.vault
        .create_token(&bound, NewToken { networks: net("192.0.2.8/32"), ..new_token("shop") })
        .await
        .unwrap();
    let counted = make(NewToken { uses: Some(5), ..new_token("shop") }, "192.0.2.1").await;
    refused(desk.vault.create_token(&counted, new_token("shop")).await);
    refused(desk.vault.create_sign_in_code(&counted, &name("shop")).await);
    let free = make(new_token("shop"), "192.0.2.1").await;
    desk.vault.create_token(&free, new_token("shop")).await.unwrap();
    refused(desk.vault.create_token(&free, new_token("admin")).await);
    assert_eq!(desk.vault.list_tokens(&free, Some(&name("shop"))).await.unwrap().len(), 6);
}

#[tokio::test]
async fn everybody_ends_his_own_tokens_and_at_once() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let shop = desk.service("shop", READS_STRIPE).await;
    let other = desk.sign_in("admin").await;
    refused(desk.vault.revoke_token(&shop, other.token.unwrap()).await);
    desk.reveal(&shop, "prod/stripe").await.unwrap();
    desk.vault.revoke_token(&shop, shop.token.unwrap()).await.unwrap();
    coded(desk.reveal(&shop, "prod/stripe").await, Code::NotSignedIn);
    coded(desk.vault.revoke_token(&owner, shop.token.unwrap()).await, Code::NotFound);
    assert_eq!(desk.vault.changes(&shop, 0, 100).await.unwrap().changes.len(), 0);
}

#[tokio::test]
async fn a_code_signs_in_once_and_not_late() {
    let desk = Desk::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (vault, code, origin) = (desk.vault.clone(), desk.code.duplicate(), desk.origin());
        tasks.spawn(async move { vault.sign_in_with_code(&code, origin).await.is_ok() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|won| *won).count(), 1);
    let owner = desk.owner().await;
    let code = desk.vault.create_sign_in_code(&owner, &name("admin")).await.unwrap();
    desk.clock.forward(SignedDuration::from_mins(30));
    coded(desk.vault.sign_in_with_code(code.text(), desk.origin()).await, Code::NotSignedIn);
    desk.account(&owner, "team", AccountKind::Group, &[], &[]).await.unwrap();
    coded(desk.vault.create_sign_in_code(&owner, &name("team")).await, Code::Invalid);
    let code = desk.vault.create_sign_in_code(&owner, &name("admin")).await.unwrap();
    let issued = desk.vault.sign_in_with_code(code.text(), desk.origin()).await.unwrap();
    assert!(issued.entity.foreign_since.is_some(), "somebody else asked for the code");
    assert!(text(issued.token.text()).starts_with("kmr_"));
}

/// An account of that name with nothing but a right to tokens, signed in with one that ends after so many hours.
async fn token_maker(desk: &Desk, account: &str, hours: i64, renewable: Option<i64>) -> Caller {
    let owner = desk.owner().await;
    let rules = r#"[{"capabilities":["grant","list"],"environments":["sys"],"paths":["tokens/**"]}]"#;
    if desk.vault.show_account(&owner, &name(account)).await.is_err() {
        desk.policy(&owner, account, rules).await.unwrap();
        desk.account(&owner, account, AccountKind::User, &[account], &[]).await.unwrap();
    }
    let renewable_for = renewable.map(SignedDuration::from_hours);
    let new = NewToken { ttl: SignedDuration::from_hours(hours), renewable_for, ..new_token(account) };
    let token = desk.vault.create_token(&owner, new).await.unwrap();
    desk.vault.sign_in_with_token(token.token.text(), desk.origin()).await.unwrap()
}

#[tokio::test]
async fn a_token_ends_no_later_than_the_one_it_was_made_with() {
    let desk = Desk::new().await;
    let fixed = token_maker(&desk, "maker", 10, None).await;
    let renewable = token_maker(&desk, "maker", 10, Some(50)).await;
    let hours = SignedDuration::from_hours;
    let check = async |by: &Caller, ttl: i64, renewable: Option<i64>, allowed: bool| {
        let new = NewToken { ttl: hours(ttl), renewable_for: renewable.map(hours), ..new_token("maker") };
        let made = desk.vault.create_token(by, new).await;
        match allowed {
            true => assert_eq!(made.unwrap().entity.made_with, by.token),
            false => drop(refused(made)),
        }
    };
    check(&fixed, 10, None, true).await;
    check(&fixed, 11, None, false).await;
    check(&fixed, 5, Some(10), true).await;
    check(&fixed, 5, Some(11), false).await;
    check(&renewable, 10, Some(50), true).await;
    check(&renewable, 11, None, false).await;
    check(&renewable, 10, Some(51), false).await;
    // A renewal goes as far as the token before was renewed, and follows it.
    let new = NewToken { ttl: hours(10), renewable_for: Some(hours(50)), ..new_token("maker") };
    let child = desk.vault.create_token(&renewable, new).await.unwrap();
    let child = desk.vault.sign_in_with_token(child.token.text(), desk.origin()).await.unwrap();
    let start = desk.vault.now();
    let ends =
        async |who: &Caller| desk.vault.renew_token(who).await.unwrap().expires_at.duration_since(start);
    desk.clock.forward(hours(5));
    assert_eq!(ends(&child).await, hours(10));
    assert_eq!(ends(&renewable).await, hours(15));
    assert_eq!(ends(&child).await, hours(15));
    // What a sign-in code gives is bound in the same way.
    let code = desk.vault.create_sign_in_code(&fixed, &name("maker")).await.unwrap();
    let signed_in = desk.vault.sign_in_with_code(code.text(), desk.origin()).await.unwrap();
    assert_eq!(signed_in.entity.expires_at.duration_since(start), hours(10));
    assert_eq!(signed_in.entity.made_with, fixed.token);
    // Nobody builds a ladder without end.
    let mut top = renewable.clone();
    for step in 1.. {
        let new = NewToken { ttl: hours(1), ..new_token("maker") };
        match desk.vault.create_token(&top, new).await {
            Ok(token) => {
                top = desk.vault.sign_in_with_token(token.token.text(), desk.origin()).await.unwrap();
            }
            Err(error) => {
                assert_eq!((error.code, step), (Code::Refused, 8));
                break;
            }
        }
    }
}

#[tokio::test]
async fn with_a_token_end_all_that_were_made_with_it() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let sign_in = async |token: &keymoat_vault::IssuedToken| {
        desk.vault.sign_in_with_token(token.token.text(), desk.origin()).await
    };
    // Revoked, or with the account of its holder: by removing it or by switching it off.
    for round in 0..3 {
        let account = format!("maker{round}");
        let first = token_maker(&desk, &account, 10, None).await;
        let beside = token_maker(&desk, "other", 10, None).await;
        let child = desk.token_by(&first, &account).await.unwrap();
        let grandchild = desk.token_by(&sign_in(&child).await.unwrap(), &account).await.unwrap();
        let code = desk.vault.create_sign_in_code(&sign_in(&child).await.unwrap(), &name(&account)).await;
        let code = code.unwrap();
        let (_, records) = desk
            .records_of(async {
                match round {
                    0 => desk.vault.revoke_token(&owner, first.token.unwrap()).await.unwrap(),
                    1 => drop(desk.vault.leave(&owner, &name(&account)).await.unwrap()),
                    _ => desk.vault.delete_account(&owner, &name(&account)).await.unwrap(),
                }
            })
            .await;
        let [AuditRecord { event, .. }] = records.as_slice() else { panic!("{records:?}") };
        let named: Vec<&str> = event.rows.iter().map(|row| row.key.as_str()).collect();
        for token in [first.token.unwrap(), child.entity.id, grandchild.entity.id] {
            assert!(named.contains(&token.to_string().as_str()), "{named:?}");
        }
        for token in [&child, &grandchild] {
            coded(sign_in(token).await, Code::NotSignedIn);
        }
        coded(desk.vault.sign_in_with_code(code.text(), desk.origin()).await, Code::NotSignedIn);
        desk.vault.list_tokens(&beside, Some(&name("other"))).await.unwrap();
    }
    // Also those that somebody made for others, while their maker is only switched off.
    let first = token_maker(&desk, "maker", 10, None).await;
    desk.account(&owner, "bot", AccountKind::ServiceAccount, &[], &[]).await.unwrap();
    let bot = desk.token_by(&first, "bot").await.unwrap();
    for active in [false, true] {
        let change = keymoat_vault::AccountChange { active: Some(active), ..Default::default() };
        desk.vault.update_account(&owner, &name("maker"), change).await.unwrap();
        assert_eq!(sign_in(&bot).await.is_ok(), active);
    }
}

#[tokio::test]
async fn what_somebody_else_made_ends_when_its_holder_gets_more_than_that_one_could_give() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let admin = desk.administrator().await;
    // So that the owner's account is not one that was made just now.
    desk.clock.forward(SignedDuration::from_hours(2));
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    desk.policy(&owner, "reads", READS).await.unwrap();
    desk.policy(&owner, "lists", LISTS).await.unwrap();
    desk.policy(&owner, "team", LISTS).await.unwrap();
    desk.account(&owner, "readers", AccountKind::Group, &["reads"], &[]).await.unwrap();
    desk.account(&owner, "team", AccountKind::Group, &["team"], &[]).await.unwrap();
    let update = async |account: &str, change| {
        desk.vault.update_account(&owner, &name(account), change).await.unwrap();
    };
    let policies = |all: &[&str]| AccountChange {
        policies: Some(all.iter().map(|policy| policy.parse().unwrap()).collect()),
        ..AccountChange::default()
    };
    let groups = |all: &[&str]| AccountChange {
        groups: Some(all.iter().map(|group| name(group)).collect()),
        ..AccountChange::default()
    };
    for (number, ends) in [false, false, true, true, true, true, true, true].into_iter().enumerate() {
        let account = format!("bot{number}");
        desk.account(&owner, &account, AccountKind::ServiceAccount, &[], &["team"]).await.unwrap();
        let by_admin = desk.token_by(&admin, &account).await.unwrap();
        let code = desk.vault.create_sign_in_code(&admin, &name(&account)).await.unwrap();
        let by_owner = desk.token_by(&owner, &account).await.unwrap();
        let (_, records) = desk
            .records_of(async {
                match number {
                    // What the administrator could have given himself.
                    0 => update(&account, policies(&["lists"])).await,
                    1 => update(&account, groups(&[])).await,
                    // What he could not.
                    2 => update(&account, policies(&["reads"])).await,
                    3 => update(&account, groups(&["readers"])).await,
                    4 => {
                        let grant = new_grant(&account, READS_STRIPE, 1);
                        drop(desk.vault.create_grant(&owner, grant).await.unwrap());
                    }
                    5 => {
                        let glass = NewGrant { break_glass: true, ..new_grant(&account, READS_STRIPE, 1) };
                        let grant = desk.vault.create_grant(&admin, glass).await.unwrap();
                        // While it waits it gives nothing, and ends nothing.
                        desk.vault.sign_in_with_token(by_admin.token.text(), desk.origin()).await.unwrap();
                        drop(desk.vault.approve_grant(&owner, grant.id).await.unwrap());
                    }
                    6 => {
                        update("team", policies(&["lists", "reads"])).await;
                        update("team", policies(&["team"])).await;
                    }
                    _ => desk.policy(&owner, "team", READS).await.unwrap(),
                }
            })
            .await;
        let still = desk.vault.sign_in_with_token(by_admin.token.text(), desk.origin()).await;
        assert_eq!(still.is_ok(), !ends, "{number}");
        let still = desk.vault.sign_in_with_code(code.text(), desk.origin()).await;
        assert_eq!(still.is_ok(), !ends, "{number}");
        let told = records.iter().any(|record| record.event.details.get("tokens_ended").is_some());
        assert_eq!(told, ends, "{number}");
        desk.vault.sign_in_with_token(by_owner.token.text(), desk.origin()).await.unwrap();
    }
}

const LISTS: &str = r#"[{"capabilities":["list"],"environments":["prod"],"paths":["**"]}]"#;
