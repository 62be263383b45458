//! Permit, then a durable record, then the value.

use keymoat_core::audit::{Action, DecidedBy, Outcome, ReasonCode};
use keymoat_vault::entity::AccountKind;
use keymoat_vault::{AccountChange, Asked, AuditRecord, Caller, Code, Target, VaultError, Wanted};

use crate::common::*;

#[tokio::test]
async fn a_read_leaves_who_what_when_where_result_and_why() {
    let desk = Desk::new().await;
    desk.put(&desk.owner().await, "prod/stripe", STRIPE).await.unwrap();
    let shop = desk.service("shop", READS_STRIPE).await;
    let shop = Caller { origin: desk.origin_at("192.0.2.7"), ..shop };
    let why = keymoat_core::audit::AuditText::new("a refund");
    let (stripe, wanted) = (secret("prod/stripe"), Wanted::default());
    let (revealed, records) =
        desk.records_of(desk.vault.reveal(&shop, &stripe, None, &wanted, Some(&why))).await;
    let revealed = revealed.unwrap();
    assert_eq!(text(&revealed.value), STRIPE);
    let [AuditRecord { event, personal, .. }] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(event.seq, revealed.event);
    assert_eq!((event.action, event.result, event.version), (Action::Reveal, Outcome::Allowed, Some(1)));
    assert_eq!(event.actor, shop.actor());
    assert_eq!(event.request, shop.origin.request);
    assert_eq!(event.path.as_ref().unwrap().as_str(), "stripe");
    assert_eq!(event.decided_by, Some(DecidedBy::Policy { name: "shop".parse().unwrap(), rule: 0 }));
    assert!(event.details.get("why").is_some());
    let personal = personal.as_ref().unwrap();
    assert_eq!(personal.address, Some("192.0.2.7".parse().unwrap()));
}

#[tokio::test]
async fn every_read_leaves_exactly_one_record_allowed_refused_or_failed() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let nobody = desk
        .service("nobody", r#"[{"capabilities":["list"],"environments":["staging"],"paths":["none"]}]"#)
        .await;
    let asked = |path: &str| Asked {
        target: Target::Secret { path: path.parse().unwrap(), field: None },
        environment: "prod".parse().unwrap(),
        company: None,
        variable: None,
        variables_set: Vec::new(),
        unqualified_variable: false,
        order: keymoat_core::resolve::Order::usual(&[]),
    };
    let (prod, stripe, absent) = ("prod".parse().unwrap(), secret("prod/stripe"), secret("prod/absent"));
    let (stripe_asked, admin, owner_policy) = (asked("stripe"), name("admin"), "owner".parse().unwrap());
    let vault = &desk.vault;
    let wanted = Wanted::default();
    for (who, expected) in [(&owner, Outcome::Allowed), (&nobody, Outcome::Refused)] {
        let missing = if expected == Outcome::Allowed { Outcome::Failed } else { Outcome::Refused };
        let check = async |what: &str, expected: Outcome, work: Work<'_>| {
            let (result, records) = desk.records_of(work).await;
            assert_eq!(records.len(), 1, "{what}: {records:?}");
            assert_eq!(records[0].event.result, expected, "{what}");
            assert_eq!(records[0].event.actor, who.actor(), "{what}");
            match expected {
                Outcome::Allowed => result.unwrap_or_else(|e| panic!("{what}: {e}")),
                Outcome::Refused => drop(refused(result)),
                Outcome::Failed => drop(coded(result, Code::NotFound)),
            }
        };
        check("reveal", expected, Box::pin(dropped(vault.reveal(who, &stripe, None, &wanted, None)))).await;
        check("reveal absent", missing, Box::pin(dropped(vault.reveal(who, &absent, None, &wanted, None))))
            .await;
        check(
            "reveal version",
            missing,
            Box::pin(dropped(vault.reveal(who, &stripe, None, &Wanted::Number(9), None))),
        )
        .await;
        check("inspect", expected, Box::pin(dropped(vault.inspect(who, &stripe)))).await;
        check("inspect absent", missing, Box::pin(dropped(vault.inspect(who, &absent)))).await;
        check("list", expected, Box::pin(dropped(vault.list(who, &prod, None, None, None, 10)))).await;
        check("which", expected, Box::pin(dropped(vault.which(who, &stripe_asked)))).await;
        check("resolve", expected, Box::pin(dropped(vault.resolve(who, &stripe_asked)))).await;
        check("accounts", expected, Box::pin(dropped(vault.list_accounts(who)))).await;
        check("account", expected, Box::pin(dropped(vault.show_account(who, &admin)))).await;
        check("policies", expected, Box::pin(dropped(vault.list_policies(who)))).await;
        check("policy", expected, Box::pin(dropped(vault.show_policy(who, &owner_policy)))).await;
        check("tokens", expected, Box::pin(dropped(vault.list_tokens(who, None)))).await;
        check("grants", expected, Box::pin(dropped(vault.list_grants(who, None)))).await;
    }
    let (found, records) = desk.records_of(vault.resolve(&owner, &asked("absent"))).await;
    assert!(found.unwrap().1.is_none());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].event.reason.as_ref().unwrap().code, ReasonCode::NotFound);
}

type Work<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), VaultError>> + 'a>>;

async fn dropped<R>(work: impl Future<Output = Result<R, VaultError>>) -> Result<(), VaultError> {
    work.await.map(|_| ())
}

#[tokio::test]
async fn no_record_no_value() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let database = keymoat_store::database_in(&desk.data());
    let other = rusqlite::Connection::open(database).unwrap();
    other.execute_batch("ALTER TABLE events RENAME TO gone").unwrap();
    for _ in 0..3 {
        let error = coded(desk.reveal(&owner, "prod/stripe").await, Code::Unavailable);
        assert!(!format!("{error:?}").contains("51MadeUp"), "{error:?}");
    }
    assert!(desk.vault.stopped().is_some());
    coded(desk.put(&owner, "prod/other", "value").await, Code::Unavailable);
    coded(desk.vault.inspect(&owner, &secret("prod/stripe")).await, Code::Unavailable);
    coded(desk.vault.list(&owner, &"prod".parse().unwrap(), None, None, None, 9).await, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_revocation_has_returned_nothing_is_read() {
    for round in 0..3 {
        let desk = Desk::new().await;
        let owner = desk.owner().await;
        desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
        let shop = desk.service("shop", READS_STRIPE).await;
        let revoked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let (vault, shop, revoked) = (desk.vault.clone(), shop.clone(), std::sync::Arc::clone(&revoked));
            tasks.spawn(async move {
                tokio::task::yield_now().await;
                let began_after = revoked.load(std::sync::atomic::Ordering::SeqCst);
                let result =
                    vault.reveal(&shop, &secret("prod/stripe"), None, &Wanted::default(), None).await;
                (began_after, result.map(|revealed| revealed.event))
            });
        }
        match round {
            0 => {
                let none = AccountChange { policies: Some([].into()), ..AccountChange::default() };
                drop(desk.vault.update_account(&owner, &name("shop"), none).await.unwrap());
            }
            1 => desk.vault.revoke_token(&owner, shop.token.unwrap()).await.unwrap(),
            _ => drop(desk.vault.leave(&owner, &name("shop")).await.unwrap()),
        }
        let revoke_event = desk
            .records(|record| {
                record.event.actor == owner.actor()
                    && matches!(record.event.action, Action::AccountUpdate | Action::TokenRevoke)
            })
            .await;
        let revoke_event = revoke_event.last().unwrap().event.seq;
        revoked.store(true, std::sync::atomic::Ordering::SeqCst);
        let mut refusals = 0;
        for (began_after, result) in tasks.join_all().await {
            match result {
                Ok(event) => assert!(!began_after && event < revoke_event, "{event} after {revoke_event}"),
                Err(error) => {
                    let is_refusal =
                        matches!(error.code, Code::Refused | Code::NotSignedIn | Code::RateLimited);
                    assert!(is_refusal, "{error}");
                    refusals += 1;
                }
            }
        }
        desk.clock.forward(jiff::SignedDuration::from_mins(1));
        let late = desk.reveal(&shop, "prod/stripe").await;
        assert!(matches!(late.unwrap_err().code, Code::Refused | Code::NotSignedIn), "{refusals}");
    }
}

#[tokio::test]
async fn an_account_that_is_switched_off_is_not_signed_in() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let shop = desk.service("shop", READS_STRIPE).await;
    let off = AccountChange { active: Some(false), ..AccountChange::default() };
    desk.vault.update_account(&owner, &name("shop"), off).await.unwrap();
    let (result, records) = desk.records_of(desk.reveal(&shop, "prod/stripe")).await;
    coded(result, Code::NotSignedIn);
    assert_eq!(records[0].event.reason.as_ref().unwrap().code, ReasonCode::Revoked);
    coded(desk.vault.sign_in_os_user("eve", desk.origin()).await, Code::NotSignedIn);
    desk.account(&owner, "os:eve", AccountKind::OsUser, &[], &[]).await.unwrap();
    desk.vault.sign_in_os_user("eve", desk.origin()).await.unwrap();
}
