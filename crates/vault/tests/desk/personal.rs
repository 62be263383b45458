//! Personal data beside the records can be erased for good, on record, and the log stays provable; and the log is
//! written out as it was signed.

use keymoat_core::audit::{Action, AuditText, DetailValue, EventFilter};
use keymoat_core::auditor::ExportCheck;
use keymoat_core::checkpoint::Checkpoint;
use keymoat_vault::entity::AccountKind;
use keymoat_vault::{AuditRecord, Caller, Code, PersonalQuery};

use crate::common::*;

const ADDRESS: &str = "203.0.113.45";
const AGENT: &str = "curl-of-florentine";
const NAMED: &str = r#""actor_name":"florentine""#;

/// A user who leaves traces: his name, his address, his program.
async fn florentine(desk: &Desk, reads: usize) -> Caller {
    let owner = desk.owner().await;
    desk.policy(&owner, "reads", READS).await.unwrap();
    desk.account(&owner, "florentine", AccountKind::User, &["reads"], &[]).await.unwrap();
    let mut origin = desk.origin_at(ADDRESS);
    origin.user_agent = Some(AuditText::new(AGENT));
    let token = desk.vault.create_token(&owner, new_token("florentine")).await.unwrap();
    let caller = desk.vault.sign_in_with_token(token.token.text(), origin).await.unwrap();
    for _ in 0..reads {
        desk.reveal(&caller, "prod/none").await.unwrap_err();
    }
    caller
}

fn is_in_the_files(desk: &Desk, part: &str) -> bool {
    desk.bytes().windows(part.len()).any(|window| window == part.as_bytes())
}

fn of(account: &str) -> PersonalQuery {
    PersonalQuery { account: Some(name(account)), before: None }
}

fn detail<'r>(record: &'r AuditRecord, name: &str) -> &'r str {
    match record.event.details.get(name) {
        Some(DetailValue::Text(text)) => text.as_str(),
        _ => "",
    }
}

#[tokio::test]
async fn what_is_erased_is_in_no_file_and_the_log_is_intact() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let caller = florentine(&desk, 40).await;
    for part in [ADDRESS, AGENT, NAMED] {
        assert!(is_in_the_files(&desk, part), "{part}");
    }
    let before = desk.records(|record| record.personal.is_none()).await.len();
    let erased = desk.vault.erase_personal(&owner, of("florentine")).await.unwrap();
    assert!(erased.records >= 40, "{erased:?}");
    for part in [ADDRESS, AGENT, NAMED] {
        assert!(!is_in_the_files(&desk, part), "{part} is in a file");
    }
    let records = desk.records(|record| record.event.actor == caller.actor()).await;
    assert!(
        records.len() >= 40
            && records.iter().all(|record| record.personal.is_none() && record.event.personal.is_some())
    );
    // Others keep theirs.
    let bare = desk.records(|record| record.personal.is_none()).await.len();
    assert_eq!(bare as u64, before as u64 + erased.records);
    let report = desk.vault.verify(&owner).await.unwrap();
    assert_eq!(report.problems, []);
    // It is on record, by id and not by name.
    let [record] = &desk.records(|record| record.event.action == Action::PersonalErase).await[..] else {
        panic!()
    };
    assert_eq!(record.event.seq, erased.event);
    assert_eq!(
        (detail(record, "account"), detail(record, "records")),
        (caller.principal.to_string().as_str(), erased.records.to_string().as_str())
    );
    assert!(!String::from_utf8_lossy(&record.record).contains("florentine"));
    assert_eq!(desk.vault.erase_personal(&owner, of("florentine")).await.unwrap().records, 0);
    let desk = desk.reopened().await;
    assert_eq!(desk.vault.verify(&desk.owner().await).await.unwrap().problems, []);
}

#[tokio::test]
async fn those_of_before_a_time_and_of_accounts_that_are_gone() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    florentine(&desk, 3).await;
    desk.clock.forward(jiff::SignedDuration::from_hours(1));
    let middle = desk.vault.now();
    let caller = desk.sign_in("florentine").await;
    desk.reveal(&caller, "prod/none").await.unwrap_err();
    let older = PersonalQuery { before: Some(middle), ..of("florentine") };
    assert!(desk.vault.erase_personal(&owner, older).await.unwrap().records >= 3);
    let named = |record: &AuditRecord| {
        let name = record.personal.as_ref().and_then(|personal| personal.actor_name.as_ref());
        name.is_some_and(|name| name.as_str() == "florentine")
    };
    let left = desk.records(named).await;
    assert!(!left.is_empty() && left.iter().all(|record| record.event.time >= middle));
    // Gone, and still found by his name.
    desk.vault.delete_account(&owner, &name("florentine")).await.unwrap();
    assert_eq!(desk.vault.erase_personal(&owner, of("florentine")).await.unwrap().records, left.len() as u64);
    assert!(desk.records(named).await.is_empty());
    let everybody = PersonalQuery { before: Some(middle), account: None };
    desk.vault.erase_personal(&owner, everybody).await.unwrap();
    let old = desk.records(|record| record.event.time < middle).await;
    assert!(!old.is_empty() && old.iter().all(|record| record.personal.is_none()));
    assert_eq!(desk.vault.verify(&owner).await.unwrap().problems, []);
}

#[tokio::test]
async fn nobody_erases_without_leave_or_by_mistake() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let shop = desk.service("shop", READS).await;
    let (outcome, records) = desk.records_of(desk.vault.erase_personal(&shop, of("shop"))).await;
    refused(outcome);
    assert_eq!(records[0].event.action, Action::PersonalErase);
    coded(desk.vault.erase_personal(&owner, PersonalQuery::default()).await, Code::Invalid);
    coded(desk.vault.erase_personal(&owner, of("shob")).await, Code::NotFound);
    assert!(
        desk.records(|record| record.event.actor == shop.actor())
            .await
            .iter()
            .all(|record| record.personal.is_some())
    );
}

#[tokio::test]
async fn an_export_is_exactly_what_its_checkpoint_covers() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let (kept, _) = desk.vault.checkpoint(&owner).await.unwrap();
    let (kept, _) = Checkpoint::parse(&kept).unwrap();
    // Enough for several pieces.
    for n in 0..1500 {
        desk.vault.inspect(&owner, &secret(&format!("prod/none{n}"))).await.unwrap_err();
    }
    let mut export = desk.vault.export_audit(&owner, EventFilter::default(), None).await.unwrap();
    let (head, _) = Checkpoint::parse(export.checkpoint()).unwrap();
    assert_eq!(export.part().map(|part| (part.start, part.end)), Some((0, head.size())));
    assert_eq!(export.span().await.unwrap().unwrap().consistency, Vec::<[u8; 32]>::new());
    let mut check = ExportCheck::new([&kept, &head]);
    let (mut pieces, mut last) = (0, Vec::new());
    while let Some(piece) = export.next().await.unwrap() {
        // What comes meanwhile is left for the next export.
        desk.vault.inspect(&owner, &secret("prod/meanwhile")).await.unwrap_err();
        let lines = piece.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
        lines.for_each(|line| {
            check.line(line);
            last = line.to_vec();
        });
        pieces += 1;
    }
    assert!(pieces > 1, "{pieces}");
    let found = check.finish();
    assert_eq!((found.checked, found.beyond, found.problems), (head.size(), 0, vec![]));
    let last = keymoat_core::audit::Event::parse(&last).unwrap();
    assert_eq!(last.action, Action::AuditExport);

    let filter = EventFilter { path_prefix: Some("none7".parse().unwrap()), ..EventFilter::default() };
    let mut part = desk.vault.export_audit(&owner, filter, Some(&name("os:ana"))).await.unwrap();
    let lines = part.next().await.unwrap().unwrap();
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert!(part.next().await.unwrap().is_none());
    let shop = desk.service("shop", READS).await;
    let (outcome, records) =
        desk.records_of(desk.vault.export_audit(&shop, EventFilter::default(), None)).await;
    assert_eq!(outcome.err().unwrap().code, Code::Refused);
    assert_eq!(records[0].event.action, Action::AuditExport);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_transaction_takes_is_erased_in_parts() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let mut reads = tokio::task::JoinSet::new();
    for n in 0..5100 {
        let (vault, owner) = (desk.vault.clone(), owner.clone());
        reads.spawn(async move { vault.inspect(&owner, &secret(&format!("prod/none{n}"))).await.is_err() });
    }
    assert!(reads.join_all().await.into_iter().all(|failed| failed));
    let erased = desk.vault.erase_personal(&owner, of("os:ana")).await.unwrap();
    assert!(erased.records >= 5100, "{erased:?}");
    let parts = desk.records(|record| record.event.action == Action::PersonalErase).await;
    let counts: Vec<u64> = parts.iter().map(|record| detail(record, "records").parse().unwrap()).collect();
    assert_eq!((counts.len(), counts[0], counts.iter().sum()), (2, 5000, erased.records));
    assert_eq!(parts[1].event.seq, erased.event);
    // What was written since is not meant; it can be erased with the next.
    assert!(parts.iter().all(|record| record.personal.is_some()));
    assert_eq!(desk.vault.verify(&owner).await.unwrap().problems, []);
}

#[tokio::test]
async fn what_somebody_emptied_by_hand_is_told_from_what_was_erased() {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    florentine(&desk, 3).await;
    // Scattered numbers, so that they are not one run.
    for _ in 0..200 {
        let caller = desk.sign_in("florentine").await;
        desk.reveal(&caller, "prod/none").await.unwrap_err();
        desk.clock.forward(jiff::SignedDuration::from_mins(1));
    }
    desk.vault.erase_personal(&owner, of("florentine")).await.unwrap();
    assert_eq!(desk.vault.verify(&owner).await.unwrap().problems, []);
    let kept = desk.records(|record| record.personal.is_some()).await;
    let by_hand = kept[kept.len() / 2].event.seq;
    let other = rusqlite::Connection::open(keymoat_store::database_in(&desk.data())).unwrap();
    other.execute("UPDATE events SET personal = NULL WHERE seq = ?1", [by_hand]).unwrap();
    let problems = desk.vault.verify(&owner).await.unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    let told = problems[0].to_string();
    assert!(told.contains(&format!("event {by_hand} ")) && told.contains("no record says"), "{told}");
}
