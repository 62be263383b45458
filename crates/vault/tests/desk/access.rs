//! Who may do what: policies, conditions, groups, grants, leavers.

use jiff::SignedDuration;
use keymoat_core::audit::{Action, AuditText, DecidedBy, Outcome, ReasonCode};
use keymoat_core::policy::Capability;
use keymoat_vault::entity::{AccountKind, StoredGrantState};
use keymoat_vault::{AccountChange, Asked, Caller, Code, NewGrant, Target, VaultError, Wanted};

use crate::common::*;

#[tokio::test]
async fn a_service_account_reads_its_path_and_nothing_else() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for path in ["prod/stripe", "prod/stripe/live", "prod/twilio", "staging/stripe"] {
        desk.put(&owner, path, &format!("value of {path}")).await.unwrap();
    }
    let shop = desk.service("shop", READS_STRIPE).await;
    assert_eq!(text(&desk.reveal(&shop, "prod/stripe").await.unwrap().value), "value of prod/stripe");
    for path in ["prod/stripe/live", "prod/twilio", "staging/stripe", "prod/none"] {
        let (result, records) = desk.records_of(desk.reveal(&shop, path)).await;
        let error = refused(result);
        assert!(error.message.contains("`shop` may not reveal"), "{error}");
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].event.result, Outcome::Refused);
        assert_eq!(records[0].event.reason.as_ref().unwrap().code, ReasonCode::NoRule);
    }
    let vault = &desk.vault;
    let stripe = secret("prod/stripe");
    refused(desk.put(&shop, "prod/stripe", "new").await);
    refused(vault.inspect(&shop, &stripe).await);
    refused(vault.delete(&shop, &stripe, vec![]).await);
    refused(vault.destroy(&shop, &stripe, vec![]).await);
    refused(vault.rollback(&shop, &stripe, 1).await);
    refused(vault.promote(&shop, &stripe).await);
    refused(vault.list_accounts(&shop).await);
    refused(desk.policy(&shop, "mine", READS).await);
    refused(desk.account(&shop, "mine", AccountKind::User, &[], &[]).await);
    refused(vault.create_token(&shop, new_token("shop")).await);
    refused(vault.create_sign_in_code(&shop, &name("admin")).await);
    refused(vault.create_grant(&shop, new_grant("shop", READS, 1)).await);
    refused(vault.query_audit(&shop, Default::default()).await);
    refused(vault.checkpoint(&shop).await);
    refused(vault.put_environment(&shop, "dev".parse().unwrap(), String::new()).await);
    refused(vault.list(&shop, &"prod".parse().unwrap(), None, None, None, 9).await);
    // That its own key has changed it may know, and of no other.
    let changes = vault.changes(&shop, 0, 100).await.unwrap().changes;
    assert_eq!(changes.iter().map(|change| &change.name).collect::<Vec<_>>(), [&stripe]);
}

#[tokio::test]
async fn an_administrator_cannot_reveal_and_cannot_let_himself() {
    let desk = Desk::new().await;
    desk.put(&desk.owner().await, "prod/stripe", STRIPE).await.unwrap();
    let admin = desk.administrator().await;
    desk.put(&admin, "prod/twilio", "value").await.unwrap();
    refused(desk.reveal(&admin, "prod/stripe").await);
    refused(desk.reveal(&admin, "prod/twilio").await);
    refused(desk.policy(&admin, "reads", READS).await);
    refused(desk.account(&admin, "mate", AccountKind::User, &["owner"], &[]).await);
    refused(desk.vault.create_grant(&admin, new_grant("admin", READS, 1)).await);
    refused(desk.vault.create_token(&admin, new_token("os:ana")).await);
    refused(desk.vault.create_sign_in_code(&admin, &name("os:ana")).await);
    let widen =
        AccountChange { policies: Some(["owner".parse().unwrap()].into()), ..AccountChange::default() };
    refused(desk.vault.update_account(&admin, &name("admin"), widen).await);
    let beyond = desk
        .records(|r| r.event.reason.as_ref().is_some_and(|r| r.code == ReasonCode::BeyondOwnRights))
        .await;
    assert_eq!(beyond.len(), 6);
}

#[tokio::test]
async fn a_vendors_grant_ends_by_itself() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    desk.account(&owner, "vendor", AccountKind::User, &[], &[]).await.unwrap();
    let vendor = desk.sign_in("vendor").await;
    refused(desk.reveal(&vendor, "prod/stripe").await);
    let later = NewGrant {
        starts_at: Some(desk.vault.now().checked_add(SignedDuration::from_hours(1)).unwrap()),
        ..new_grant("vendor", READS_STRIPE, 2)
    };
    let grant = desk.vault.create_grant(&owner, later).await.unwrap();
    refused(desk.reveal(&vendor, "prod/stripe").await);
    desk.clock.forward(SignedDuration::from_hours(1));
    let (result, records) = desk.records_of(desk.reveal(&vendor, "prod/stripe")).await;
    result.unwrap();
    assert_eq!(records[0].event.decided_by, Some(DecidedBy::Grant { id: grant.id, rule: 0 }));
    desk.clock.forward(SignedDuration::from_millis(2 * 3_600_000 - 1));
    desk.reveal(&vendor, "prod/stripe").await.unwrap();
    desk.clock.forward(SignedDuration::from_millis(1));
    refused(desk.reveal(&vendor, "prod/stripe").await);
    // Setting the clock back brings nothing back.
    desk.clock.forward(SignedDuration::from_hours(-2));
    refused(desk.reveal(&vendor, "prod/stripe").await);
    let again = desk.vault.create_grant(&owner, new_grant("vendor", READS_STRIPE, 2)).await.unwrap();
    desk.reveal(&vendor, "prod/stripe").await.unwrap();
    desk.vault.revoke_grant(&owner, again.id).await.unwrap();
    refused(desk.reveal(&vendor, "prod/stripe").await);
    for wrong in [
        NewGrant { lasts: SignedDuration::from_hours(24 * 91), ..new_grant("vendor", READS, 1) },
        NewGrant { lasts: SignedDuration::ZERO, ..new_grant("vendor", READS, 1) },
        NewGrant { uses: Some(0), ..new_grant("vendor", READS, 1) },
        NewGrant { reason: AuditText::new(" "), ..new_grant("vendor", READS, 1) },
        NewGrant { rules: Vec::new(), ..new_grant("vendor", READS, 1) },
    ] {
        coded(desk.vault.create_grant(&owner, wrong).await, Code::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_for_a_number_of_uses_gives_that_many() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    desk.account(&owner, "vendor", AccountKind::User, &[], &[]).await.unwrap();
    let vendor = desk.sign_in("vendor").await;
    for uses in [1, 5, 40] {
        let grant = NewGrant { uses: Some(uses), ..new_grant("vendor", READS_STRIPE, 2) };
        let grant = desk.vault.create_grant(&owner, grant).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        // In a minute of its own, and fewer than are refused in one without being told the reason.
        desk.clock.forward(SignedDuration::from_mins(1));
        for _ in 0..60 {
            let (vault, vendor) = (desk.vault.clone(), vendor.clone());
            tasks.spawn(async move {
                vault
                    .reveal(&vendor, &secret("prod/stripe"), None, &Wanted::default(), None)
                    .await
                    .map(|_| ())
            });
        }
        let results = tasks.join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), uses as usize);
        results.into_iter().filter(Result::is_err).for_each(|result| drop(refused(result)));
        let by_grant =
            desk.records(|r| r.event.decided_by == Some(DecidedBy::Grant { id: grant.id, rule: 0 })).await;
        assert_eq!(by_grant.len(), uses as usize);
        let listed = desk.vault.list_grants(&owner, Some(&name("vendor"))).await.unwrap();
        assert_eq!(listed.iter().find(|it| it.id == grant.id).unwrap().uses_left, Some(0));
    }
    // What cannot be done uses up nothing, and what a policy allows neither.
    let json = r#"[{"capabilities":["reveal","write"],"environments":["prod"],"paths":["none","fresh"]}]"#;
    let grant = NewGrant { uses: Some(1), ..new_grant("vendor", json, 2) };
    desk.vault.create_grant(&owner, grant).await.unwrap();
    coded(desk.reveal(&vendor, "prod/none").await, Code::NotFound);
    coded(
        desk.vault.put(&vendor, keymoat_vault::Put { expected: Some(7), ..put("prod/fresh", "x") }).await,
        Code::Conflict,
    );
    desk.put(&vendor, "prod/fresh", "x").await.unwrap();
    refused(desk.reveal(&vendor, "prod/fresh").await);
    let desk = desk.reopened().await;
    refused(desk.reveal(&vendor, "prod/fresh").await);
}

#[tokio::test]
async fn conditions_and_denials() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let rule = |conditions: &str, effect: &str| {
        format!(
            r#"{{"effect":"{effect}","capabilities":["reveal"],"environments":["prod"],"paths":["**"],"conditions":{conditions}}}"#
        )
    };
    let networks = r#"{"networks":["192.0.2.0/24"]}"#;
    let office = r#"{"hours":{"days":["monday"],"from":"08:00","to":"10:00"}}"#;
    let module = r#"{"modules":["payments"]}"#;
    let always = "{}";
    // Rules, address, module, hours later, whether it is allowed. It is Monday, 9 o'clock.
    let rows: &[(&[String], &str, &str, i64, bool)] = &[
        (&[rule(networks, "allow")], "192.0.2.9", "", 0, true),
        (&[rule(networks, "allow")], "198.51.100.9", "", 0, false),
        (&[rule(networks, "allow")], "", "", 0, false),
        (&[rule(office, "allow")], "", "", 0, true),
        (&[rule(office, "allow")], "", "", 1, false),
        (&[rule(office, "allow")], "", "", 24, false),
        (&[rule(office, "allow")], "", "", 24 * 7, true),
        (&[rule(module, "allow")], "", "payments", 0, true),
        (&[rule(module, "allow")], "", "crm", 0, false),
        (&[rule(module, "allow")], "", "", 0, false),
        (&[rule(always, "allow"), rule(networks, "deny")], "192.0.2.9", "", 0, false),
        (&[rule(always, "allow"), rule(networks, "deny")], "198.51.100.9", "", 0, true),
        (&[rule(always, "allow"), rule(networks, "deny")], "", "", 0, false),
        (&[rule(always, "deny"), rule(always, "allow")], "", "", 0, false),
    ];
    for (number, (rules, address, module, hours, allowed)) in rows.iter().enumerate() {
        let account = format!("row{number}");
        let caller = desk.service(&account, &format!("[{}]", rules.join(","))).await;
        let before = START_MS;
        desk.clock.forward(SignedDuration::from_hours(*hours));
        let mut origin = if address.is_empty() { desk.origin() } else { desk.origin_at(address) };
        origin.module = (!module.is_empty()).then(|| AuditText::new(module));
        let result = desk.reveal(&Caller { origin, ..caller }, "prod/stripe").await;
        assert_eq!(result.is_ok(), *allowed, "row {number}: {:?}", result.err());
        // Time only goes forward, so each later row begins on a Monday at 9 again.
        let passed = (desk.vault.now().as_millisecond() - before).rem_euclid(7 * 24 * 3_600_000);
        let rest = (7 * 24 * 3_600_000 - passed) % (7 * 24 * 3_600_000);
        desk.clock.forward(SignedDuration::from_millis(rest));
    }
}

#[tokio::test]
async fn groups_give_their_members_what_they_have() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    desk.put(&owner, "prod/twilio", "value").await.unwrap();
    desk.policy(&owner, "reads-stripe", READS_STRIPE).await.unwrap();
    desk.account(&owner, "shop-team", AccountKind::Group, &["reads-stripe"], &[]).await.unwrap();
    desk.account(&owner, "bob", AccountKind::User, &[], &["shop-team"]).await.unwrap();
    let bob = desk.sign_in("bob").await;
    desk.reveal(&bob, "prod/stripe").await.unwrap();
    refused(desk.reveal(&bob, "prod/twilio").await);
    let json = r#"[{"capabilities":["reveal"],"environments":["prod"],"paths":["twilio"]}]"#;
    desk.vault.create_grant(&owner, new_grant("shop-team", json, 1)).await.unwrap();
    desk.reveal(&bob, "prod/twilio").await.unwrap();
    let off = AccountChange { active: Some(false), ..AccountChange::default() };
    desk.vault.update_account(&owner, &name("shop-team"), off).await.unwrap();
    refused(desk.reveal(&bob, "prod/stripe").await);
    refused(desk.reveal(&bob, "prod/twilio").await);
    let on = AccountChange { active: Some(true), ..AccountChange::default() };
    desk.vault.update_account(&owner, &name("shop-team"), on).await.unwrap();
    desk.reveal(&bob, "prod/stripe").await.unwrap();
    // Who leaves a group has nothing of it any more, and has it again when he comes back.
    let in_groups = |names: &[&str]| AccountChange {
        groups: Some(names.iter().map(|group| name(group)).collect()),
        ..AccountChange::default()
    };
    desk.vault.update_account(&owner, &name("bob"), in_groups(&[])).await.unwrap();
    refused(desk.reveal(&bob, "prod/stripe").await);
    refused(desk.reveal(&bob, "prod/twilio").await);
    desk.vault.update_account(&owner, &name("bob"), in_groups(&["shop-team"])).await.unwrap();
    desk.reveal(&bob, "prod/stripe").await.unwrap();
    // A group that is removed leaves its members, also for a later one of the same name.
    desk.vault.delete_account(&owner, &name("shop-team")).await.unwrap();
    refused(desk.reveal(&bob, "prod/stripe").await);
    desk.account(&owner, "shop-team", AccountKind::Group, &["reads-stripe"], &[]).await.unwrap();
    refused(desk.reveal(&bob, "prod/stripe").await);
    coded(desk.vault.create_token(&owner, new_token("shop-team")).await, Code::Invalid);
    coded(desk.account(&owner, "nest", AccountKind::Group, &[], &["shop-team"]).await, Code::Invalid);
    coded(desk.account(&owner, "carl", AccountKind::User, &[], &["bob"]).await, Code::Invalid);
    coded(desk.account(&owner, "carl", AccountKind::User, &["reads-strip"], &[]).await, Code::NotFound);
}

#[tokio::test]
async fn who_holds_a_denial_keeps_it() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let helpdesk = r#"[{"capabilities":["write","delete","grant"],"environments":["sys"],"paths":["accounts/**","policies/**","grants/**","tokens/**"]}]"#;
    let help = desk.service("help", helpdesk).await;
    let all = r#"[{"capabilities":["list","inspect","reveal"],"environments":["*"],"paths":["**"]}]"#;
    let no_prod = r#"[{"effect":"deny","capabilities":["reveal"],"environments":["prod"],"paths":["**"]}]"#;
    desk.policy(&owner, "all", all).await.unwrap();
    desk.policy(&owner, "no-prod", no_prod).await.unwrap();
    desk.account(&owner, "not-prod", AccountKind::Group, &["no-prod"], &[]).await.unwrap();
    desk.account(&owner, "tester", AccountKind::User, &["all"], &["not-prod"]).await.unwrap();
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let tester = desk.sign_in("tester").await;
    let denied = async || {
        let error = refused(desk.reveal(&tester, "prod/stripe").await);
        assert!(error.message.contains("denies"), "{error}");
    };
    denied().await;
    let change = |groups: Option<&[&str]>, policies: Option<&[&str]>, active: Option<bool>| AccountChange {
        groups: groups.map(|names| names.iter().map(|it| name(it)).collect()),
        policies: policies.map(|names| names.iter().map(|it| it.parse().unwrap()).collect()),
        active,
        description: None,
    };
    let vault = &desk.vault;
    refused(vault.update_account(&help, &name("tester"), change(Some(&[]), None, None)).await);
    refused(vault.update_account(&help, &name("not-prod"), change(None, Some(&[]), None)).await);
    refused(vault.update_account(&help, &name("not-prod"), change(None, None, Some(false))).await);
    refused(vault.delete_account(&help, &name("not-prod")).await);
    refused(vault.leave(&help, &name("not-prod")).await);
    refused(desk.policy(&help, "no-prod", "[]").await);
    coded(vault.delete_policy(&help, &"no-prod".parse().unwrap()).await, Code::Conflict);
    refused(vault.create_token(&help, new_token("tester")).await);
    refused(vault.create_sign_in_code(&help, &name("tester")).await);
    denied().await;
    // Neither taking away from who may do more nor putting back what he does not have is allowed.
    refused(vault.update_account(&help, &name("tester"), change(None, Some(&[]), None)).await);
    refused(vault.update_account(&help, &name("tester"), change(None, None, Some(false))).await);
    vault.update_account(&owner, &name("tester"), change(None, Some(&[]), None)).await.unwrap();
    refused(vault.update_account(&help, &name("tester"), change(None, Some(&["all"]), None)).await);
    vault.update_account(&owner, &name("tester"), change(None, Some(&["all"]), None)).await.unwrap();
    vault.update_account(&owner, &name("tester"), change(None, None, Some(false))).await.unwrap();
    refused(vault.create_token(&help, new_token("tester")).await);
    refused(vault.update_account(&help, &name("tester"), change(None, None, Some(true))).await);
    vault.update_account(&owner, &name("tester"), change(None, None, Some(true))).await.unwrap();
    denied().await;
}

#[tokio::test]
async fn broken_glass_waits_for_another_administrator() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let admin = desk.administrator().await;
    let glass = || NewGrant { break_glass: true, ..new_grant("admin", READS_STRIPE, 8) };
    let grant = desk.vault.create_grant(&admin, glass()).await.unwrap();
    assert!(grant.break_glass);
    refused(desk.reveal(&admin, "prod/stripe").await);
    coded(desk.vault.approve_grant(&admin, grant.id).await, Code::Conflict);
    desk.clock.forward(SignedDuration::from_hours(7));
    refused(desk.reveal(&admin, "prod/stripe").await);
    // A second administrator whom the first one makes on the spot is none.
    desk.account(&admin, "mate", AccountKind::User, &["administrator"], &[]).await.unwrap();
    let token = desk.token_by(&admin, "mate").await.unwrap();
    let mate = desk.vault.sign_in_with_token(token.token.text(), desk.origin()).await.unwrap();
    refused(desk.vault.approve_grant(&mate, grant.id).await);
    desk.clock.forward(SignedDuration::from_mins(50));
    refused(desk.vault.approve_grant(&mate, grant.id).await);
    desk.vault.approve_grant(&owner, grant.id).await.unwrap();
    desk.reveal(&admin, "prod/stripe").await.unwrap();
}

#[tokio::test]
async fn an_approved_one_takes_effect_and_a_lonely_one_late() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    let admin = desk.administrator().await;
    desk.clock.forward(SignedDuration::from_hours(2));
    let glass = || NewGrant { break_glass: true, ..new_grant("admin", READS_STRIPE, 8) };
    let (grant, records) = desk.records_of(desk.vault.create_grant(&admin, glass())).await;
    let grant = grant.unwrap();
    assert!(records[0].event.details.get("break_glass").is_some());
    desk.vault.approve_grant(&owner, grant.id).await.unwrap();
    desk.reveal(&admin, "prod/stripe").await.unwrap();
    coded(desk.vault.approve_grant(&owner, grant.id).await, Code::Conflict);
    desk.vault.revoke_grant(&owner, grant.id).await.unwrap();
    // With nobody else who could approve, it takes effect after an hour in which it can be revoked.
    let lonely = NewGrant { break_glass: true, ..new_grant("os:ana", READS_STRIPE, 8) };
    let grant = desk.vault.create_grant(&admin, lonely).await.unwrap();
    let until = desk.vault.now() + SignedDuration::from_hours(1);
    assert_eq!(grant.state, StoredGrantState::Delayed { until });
    desk.vault.revoke_grant(&admin, grant.id).await.unwrap();
}

#[tokio::test]
async fn a_member_does_not_approve_for_his_group() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.account(&owner, "admins", AccountKind::Group, &["administrator"], &[]).await.unwrap();
    for member in ["carl", "dora"] {
        desk.account(&owner, member, AccountKind::User, &[], &["admins"]).await.unwrap();
    }
    let (carl, dora) = (desk.sign_in("carl").await, desk.sign_in("dora").await);
    desk.clock.forward(SignedDuration::from_hours(2));
    let glass = NewGrant { break_glass: true, ..new_grant("admins", READS_STRIPE, 8) };
    let grant = desk.vault.create_grant(&carl, glass).await.unwrap();
    coded(desk.vault.approve_grant(&dora, grant.id).await, Code::Conflict);
    // Nobody who is no administrator approves, whatever he may grant.
    let helper = desk
        .service("helper", r#"[{"capabilities":["grant"],"environments":["sys"],"paths":["grants/**"]}]"#)
        .await;
    desk.clock.forward(SignedDuration::from_hours(2));
    refused(desk.vault.approve_grant(&helper, grant.id).await);
    desk.vault.approve_grant(&owner, grant.id).await.unwrap();
}

#[tokio::test]
async fn a_leaver_loses_everything_and_what_he_saw_is_known() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    for path in ["seen", "rewritten", "unseen", "destroyed"] {
        desk.put(&owner, &format!("prod/{path}"), &format!("value of {path}")).await.unwrap();
    }
    let dora = desk.service("dora", READS).await;
    let extra = desk.vault.create_token(&owner, new_token("dora")).await.unwrap();
    desk.vault.create_grant(&owner, new_grant("dora", READS, 5)).await.unwrap();
    let code = desk.vault.create_sign_in_code(&owner, &name("dora")).await.unwrap();
    for path in ["seen", "rewritten", "destroyed"] {
        desk.reveal(&dora, &format!("prod/{path}")).await.unwrap();
    }
    desk.put(&owner, "prod/rewritten", "another").await.unwrap();
    desk.vault.destroy(&owner, &secret("prod/destroyed"), vec![]).await.unwrap();
    coded(desk.vault.leave(&owner, &name("os:ana")).await, Code::Conflict);
    let report = desk.vault.leave(&owner, &name("dora")).await.unwrap();
    assert_eq!((report.tokens, report.grants), (2, 1));
    assert_eq!(report.seen, [secret("prod/seen")]);
    coded(desk.reveal(&dora, "prod/seen").await, Code::NotSignedIn);
    coded(desk.vault.sign_in_with_token(extra.token.text(), desk.origin()).await, Code::NotSignedIn);
    coded(desk.vault.sign_in_with_code(code.text(), desk.origin()).await, Code::NotSignedIn);
    assert!(desk.vault.list_grants(&owner, Some(&name("dora"))).await.unwrap().is_empty());
    let on = AccountChange { active: Some(true), ..AccountChange::default() };
    desk.vault.update_account(&owner, &name("dora"), on).await.unwrap();
    coded(desk.vault.sign_in_with_token(extra.token.text(), desk.origin()).await, Code::NotSignedIn);
    coded(desk.vault.sign_in_with_code(code.text(), desk.origin()).await, Code::NotSignedIn);
    desk.vault.delete_account(&owner, &name("dora")).await.unwrap();
    coded(desk.vault.show_account(&owner, &name("dora")).await, Code::NotFound);
    coded(desk.vault.delete_account(&owner, &name("dora")).await, Code::NotFound);
}

#[tokio::test]
async fn explanations_name_the_rule() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let shop = desk.service("shop", READS_STRIPE).await;
    let resource = |path: &str| keymoat_core::policy::Resource {
        scope: keymoat_core::names::Scope::Environment("prod".parse().unwrap()),
        company: None,
        path: path.parse().unwrap(),
        field: None,
    };
    let explained =
        desk.vault.explain(&shop, &name("shop"), Capability::Reveal, &resource("stripe")).await.unwrap();
    assert!(explained.decision.is_allowed());
    assert_eq!(explained.rules.len(), 1);
    let explained =
        desk.vault.explain(&owner, &name("shop"), Capability::Reveal, &resource("twilio")).await.unwrap();
    assert!(!explained.decision.is_allowed());
    refused(desk.vault.explain(&shop, &name("admin"), Capability::Reveal, &resource("stripe")).await);
    coded(
        desk.vault.explain(&owner, &name("nobody"), Capability::Reveal, &resource("stripe")).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn an_update_never_brings_back_what_somebody_took_away_meanwhile() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let shop = desk.service("shop", READS_STRIPE).await;
    for round in 0..50 {
        let give =
            AccountChange { policies: Some(["shop".parse().unwrap()].into()), ..AccountChange::default() };
        let take = AccountChange { policies: Some([].into()), ..AccountChange::default() };
        let describe =
            AccountChange { description: Some(format!("round {round}")), ..AccountChange::default() };
        desk.vault.update_account(&owner, &name("shop"), give).await.unwrap();
        let shop_name = name("shop");
        let (taken, described) = tokio::join!(
            desk.vault.update_account(&owner, &shop_name, take),
            desk.vault.update_account(&owner, &shop_name, describe)
        );
        taken.unwrap();
        described.unwrap();
        let account = desk.vault.show_account(&owner, &shop_name).await.unwrap();
        assert!(account.policies.is_empty(), "round {round}");
        assert_eq!(account.description, format!("round {round}"));
    }
    drop(shop);
    assert_eq!(desk.records(|r| r.event.action == Action::AccountUpdate).await.len(), 150);
}

#[tokio::test]
async fn every_look_says_by_which_rule_and_takes_a_use_or_gives_nothing() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", STRIPE).await.unwrap();
    desk.put(&owner, "prod/twilio", "made up").await.unwrap();
    let shop = desk.service("shop", READS).await;
    let vault = &desk.vault;
    let (prod, stripe, asked) = ("prod".parse().unwrap(), secret("prod/stripe"), asked("stripe"));
    let rule = DecidedBy::Policy { name: "shop".parse().unwrap(), rule: 0 };
    let (_, listed) = desk.records_of(vault.list(&shop, &prod, None, None, None, 9)).await;
    let (_, inspected) = desk.records_of(vault.inspect(&shop, &stripe)).await;
    let (_, which) = desk.records_of(vault.which(&shop, &asked)).await;
    let (_, resolved) = desk.records_of(vault.resolve(&shop, &asked)).await;
    let (changes, followed) = desk.records_of(vault.changes(&shop, 0, 100)).await;
    assert_eq!(changes.unwrap().changes.len(), 2);
    for records in [listed, inspected, which, resolved, followed] {
        assert_eq!(records.len(), 1, "{records:?}");
        assert_eq!(records[0].event.decided_by, Some(rule.clone()), "{records:?}");
    }
    // The feed is on record once a minute, not with every page; who is shown nothing has none.
    let (_, records) = desk.records_of(vault.changes(&shop, 0, 100)).await;
    assert_eq!(records.len(), 0);
    desk.clock.forward(SignedDuration::from_mins(1));
    let (_, records) = desk.records_of(vault.changes(&shop, 0, 100)).await;
    assert_eq!(records.len(), 1);
    // A grant that counts its uses: a look at a single secret is one, and lists, the feed and `which` give nothing.
    desk.account(&owner, "vendor", AccountKind::User, &[], &[]).await.unwrap();
    let vendor = desk.sign_in("vendor").await;
    let grant = NewGrant { uses: Some(2), ..new_grant("vendor", READS, 1) };
    vault.create_grant(&owner, grant).await.unwrap();
    refused(vault.list(&vendor, &prod, None, None, None, 9).await);
    refused(vault.which(&vendor, &asked).await);
    assert_eq!(vault.changes(&vendor, 0, 100).await.unwrap().changes.len(), 0);
    assert!(!vault.may_inspect(&vendor, &stripe));
    vault.inspect(&vendor, &stripe).await.unwrap();
    vault.resolve(&vendor, &asked).await.unwrap();
    refused(vault.inspect(&vendor, &stripe).await);
}

#[tokio::test]
async fn a_name_that_nobody_made_is_on_record_and_tells_no_others() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let vault = &desk.vault;
    vault.put_company(&owner, "acme".parse().unwrap(), String::new()).await.unwrap();
    desk.put(&owner, "staging/stripe", "made up").await.unwrap();
    let shop = desk.service("shop", READS).await;
    let nobody = desk
        .service("nobody", r#"[{"capabilities":["grant"],"environments":["sys"],"paths":["none"]}]"#)
        .await;
    let everywhere =
        r#"[{"capabilities":["list","inspect","reveal","write"],"environments":["*"],"paths":["**"]}]"#;
    let everywhere = desk.service("everywhere", everywhere).await;
    let wanted = Wanted::default();
    let asked_in = |environment: &str| Asked { environment: environment.parse().unwrap(), ..asked("stripe") };
    for environment in ["prodd", "staging"] {
        let path = secret(&format!("{environment}/stripe"));
        let asked = asked_in(environment);
        for (who, hint) in [(&shop, Some("did you mean `prod`?")), (&nobody, None)] {
            let looks: Vec<Result<(), VaultError>> = vec![
                vault.reveal(who, &path, None, &wanted, None).await.map(drop),
                vault.inspect(who, &path).await.map(drop),
                vault.which(who, &asked).await.map(drop),
                vault.resolve(who, &asked).await.map(drop),
                vault.put(who, put(&format!("{environment}/stripe"), "made up")).await.map(drop),
                vault.delete(who, &path, vec![]).await.map(drop),
                vault.list(who, &path.environment, None, None, None, 9).await.map(drop),
            ];
            for (number, look) in looks.into_iter().enumerate() {
                let error = refused(look);
                if environment == "prodd" && number < 6 {
                    assert_eq!(error.hint.as_deref().filter(|hint| hint.contains("mean")), hint, "{error:?}");
                }
                assert!(!format!("{error:?}").replace(environment, "").contains("staging"), "{error:?}");
            }
        }
    }
    let unknown = secret("prodd/stripe");
    let (result, records) = desk.records_of(vault.reveal(&everywhere, &unknown, None, &wanted, None)).await;
    assert!(coded(result, Code::NotFound).hint.unwrap().contains("`prod`"));
    assert_eq!((records.len(), records[0].event.result), (1, Outcome::Failed));
    for failed in [
        desk.records_of(vault.inspect(&everywhere, &secret("prod/nobody:stripe"))).await.1,
        desk.records_of(vault.put(&everywhere, put("prodd/stripe", "x"))).await.1,
        desk.records_of(vault.which(&everywhere, &asked_in("prodd"))).await.1,
        desk.records_of(vault.list(&everywhere, &unknown.environment, None, None, None, 9)).await.1,
    ] {
        assert_eq!((failed.len(), failed[0].event.result), (1, Outcome::Failed), "{failed:?}");
    }
    // Everybody is shown the names of places where he may do anything.
    let names = async |who: &Caller| {
        let environments = vault.environments(who).await.unwrap();
        let companies = vault.companies(who).await.unwrap();
        let names = environments.iter().map(|it| it.name.to_string());
        names.chain(companies.iter().map(|it| it.name.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(names(&shop).await, ["prod", "acme"]);
    assert_eq!(names(&nobody).await, Vec::<String>::new());
    assert_eq!(names(&desk.administrator().await).await, ["prod", "staging", "acme"]);
}

fn asked(path: &str) -> Asked {
    Asked {
        target: Target::Secret { path: path.parse().unwrap(), field: None },
        environment: "prod".parse().unwrap(),
        company: None,
        variable: None,
        variables_set: Vec::new(),
        unqualified_variable: false,
        order: keymoat_core::resolve::Order::usual(&[]),
    }
}
