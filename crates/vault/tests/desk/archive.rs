//! Old records go into an archive, and nothing that the desk answers from them is forgotten.

use jiff::{SignedDuration, Timestamp};
use keymoat_core::audit::{Action, AuditText, DetailValue, EventFilter, Outcome};
use keymoat_core::auditor::{ExportCheck, LogSpan};
use keymoat_core::checkpoint::Checkpoint;
use keymoat_core::tree::{Hash, leaf_hash, verify_inclusion};
use keymoat_vault::{ArchiveClaim, AuditExport, AuditQuery, Caller, Code, VaultError};

use crate::common::*;

/// What a client keeps of an archive.
struct Kept {
    lines: Vec<Vec<u8>>,
    span: LogSpan,
    head: Checkpoint,
    root: Hash,
}

impl Kept {
    fn claim(&self) -> ArchiveClaim {
        let reason = Some(AuditText::new("retention of a year"));
        ArchiveClaim { end: self.span.end, root: self.root, reason }
    }
}

async fn read(mut export: AuditExport) -> Result<Kept, VaultError> {
    let span = export.span().await?.unwrap();
    let (head, _) = Checkpoint::parse(export.checkpoint()).unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = export.next().await? {
        bytes.extend(piece);
    }
    let lines: Vec<Vec<u8>> =
        bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    let mut check = ExportCheck::part(span.start.clone(), span.end, []);
    lines.iter().for_each(|line| check.line(line));
    let tree = check.tree().clone();
    assert!(span.leads_to(&tree, &head));
    assert_eq!(check.finish().problems, vec![]);
    Ok(Kept { lines, span, head, root: tree.root() })
}

fn days(desk: &Desk, ago: i64) -> Timestamp {
    desk.vault.now().checked_sub(SignedDuration::from_hours(24 * ago)).unwrap()
}

async fn archive(desk: &Desk, by: &Caller, ago: i64) -> Kept {
    read(desk.vault.begin_archive(by, days(desk, ago)).await.unwrap()).await.unwrap()
}

/// A desk whose first 600 records and more are 200 days old.
async fn aged() -> Desk {
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    desk.put(&owner, "prod/stripe", "made-up-1").await.unwrap();
    desk.put(&owner, "prod/paypal", "made-up-2").await.unwrap();
    let shop = desk.service("shop", READS).await;
    for _ in 0..300 {
        desk.reveal(&shop, "prod/stripe").await.unwrap();
        desk.reveal(&owner, "prod/paypal").await.unwrap();
    }
    desk.clock.forward(SignedDuration::from_hours(24 * 200));
    desk.put(&owner, "prod/twilio", "made-up-3").await.unwrap();
    desk
}

fn detail(record: &keymoat_vault::AuditRecord, name: &str) -> String {
    match record.event.details.get(name) {
        Some(DetailValue::Text(text)) => text.as_str().to_owned(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn what_is_archived_goes_and_the_vault_goes_on() {
    let desk = aged().await;
    let owner = desk.owner().await;
    let before = desk.vault.verify(&owner).await.unwrap();
    let kept = archive(&desk, &owner, 100).await;
    assert_eq!((kept.span.start.size(), kept.span.end, kept.lines.len()), (0, 512, 512));
    // Nothing has gone yet.
    assert_eq!(desk.vault.verify(&owner).await.unwrap().archived, 0);
    assert!(desk.vault.archive().is_none());
    let done = desk.vault.finish_archive(&owner, kept.claim()).await.unwrap();
    assert_eq!((done.end, done.dropped + done.kept), (512, 512));
    assert!(done.kept > 3 && done.kept < 30, "{done:?}");
    let report = desk.vault.verify(&owner).await.unwrap();
    assert_eq!((report.problems, report.archived), (vec![], done.dropped));
    assert_eq!(report.rows, before.rows + 1);
    let records = desk.records(|record| record.event.action == Action::AuditArchive).await;
    assert_eq!(records.len(), 2);
    assert_eq!(detail(&records[0], "why"), "retention of a year");
    assert_eq!(
        (detail(&records[0], "archive_from"), detail(&records[0], "archive_end")),
        ("0".into(), "512".into())
    );
    assert_eq!(detail(&records[1], "dropped"), done.dropped.to_string());
    // The answer was lost: said again, it is the same.
    let again = desk.vault.finish_archive(&owner, kept.claim()).await.unwrap();
    assert_eq!((again.end, again.kept, again.dropped), (512, done.kept, 0));

    // Opened anew it is as it was; the next archive begins where this one ends.
    let desk = desk.reopened().await;
    let owner = desk.owner().await;
    assert_eq!(desk.vault.archive().unwrap().end, 512);
    assert!(!desk.vault.archive().unwrap().is_unfinished());
    let nothing = archive(&desk, &owner, 300).await;
    assert_eq!((nothing.span.start.size(), nothing.lines.len()), (512, 0));
    for _ in 0..400 {
        desk.reveal(&owner, "prod/paypal").await.unwrap();
    }
    desk.clock.forward(SignedDuration::from_hours(24 * 200));
    let next = archive(&desk, &owner, 100).await;
    assert_eq!((next.span.start.size(), next.span.end), (512, 768));
    let mut whole = ExportCheck::new([&kept.head, &next.head]);
    let log =
        read(desk.vault.export_audit(&owner, EventFilter::default(), None).await.unwrap()).await.unwrap();
    assert_eq!(log.span.start.size(), 512);
    kept.lines.iter().chain(&log.lines).for_each(|line| whole.line(line));
    assert_eq!(whole.finish().problems, vec![]);
    let done = desk.vault.finish_archive(&owner, next.claim()).await.unwrap();
    assert_eq!(done.end, 768);
    // An export begins behind the archives, and is proved like them.
    let log =
        read(desk.vault.export_audit(&owner, EventFilter::default(), None).await.unwrap()).await.unwrap();
    assert_eq!(log.span.start.size(), 768);
    assert_eq!(log.lines.len() as u64, log.head.size() - 768);
    // Old and new records are proved, archived ones from their archive.
    let proof = desk.vault.prove(&owner, 800).await.unwrap();
    let (head, _) = Checkpoint::parse(&proof.checkpoint).unwrap();
    assert!(verify_inclusion(&leaf_hash(&proof.record.record), 800, proof.size, &proof.proof, head.root()));
    let gone = coded(desk.vault.prove(&owner, 300).await, Code::NotFound);
    assert!(
        gone.message.contains("in an archive") && gone.hint.unwrap().contains("--export"),
        "{}",
        gone.message
    );
    assert_eq!(desk.vault.verify(&owner).await.unwrap().problems, vec![]);
}

#[tokio::test]
async fn nobody_silences_the_log_with_it() {
    let desk = aged().await;
    let owner = desk.owner().await;
    let kept = archive(&desk, &owner, 100).await;
    // Who may read it may not take it away, and the other way round; erasing personal data is another right.
    for (name, rules) in [
        ("reads", r#"[{"capabilities":["inspect"],"environments":["sys"],"paths":["**"]}]"#),
        (
            "erases",
            r#"[{"capabilities":["delete","inspect"],"environments":["sys"],"paths":["audit/personal"]}]"#,
        ),
    ] {
        let other = desk.service(name, rules).await;
        coded(desk.vault.begin_archive(&other, days(&desk, 100)).await, Code::Refused);
        coded(desk.vault.finish_archive(&other, kept.claim()).await, Code::Refused);
        coded(desk.vault.personal_of_archive(&other, 0, 512).await, Code::Refused);
    }
    let deletes = r#"[{"capabilities":["delete"],"environments":["sys"],"paths":["audit"]}]"#;
    let deletes = desk.service("deletes", deletes).await;
    coded(desk.vault.begin_archive(&deletes, days(&desk, 100)).await, Code::Refused);
    // The last 90 days stay, whoever asks, and however.
    coded(desk.vault.begin_archive(&owner, days(&desk, 89)).await, Code::Invalid);
    for _ in 0..300 {
        desk.reveal(&owner, "prod/paypal").await.unwrap();
    }
    let log =
        read(desk.vault.export_audit(&owner, EventFilter::default(), None).await.unwrap()).await.unwrap();
    let mut young = ExportCheck::part(log.span.start.clone(), 768, []);
    log.lines[..768].iter().for_each(|line| young.line(line));
    let claim = |end: u64, root: Hash| ArchiveClaim { end, root, reason: None };
    let young = claim(768, young.tree().root());
    coded(desk.vault.finish_archive(&owner, young).await, Code::Invalid);
    // A root that is not that of the log; an end that is none.
    let mut root = kept.root;
    root[7] ^= 1;
    for wrong in [claim(512, root), claim(256, kept.root), claim(0, kept.root), claim(u64::MAX, kept.root)] {
        coded(desk.vault.finish_archive(&owner, wrong).await, Code::Conflict);
    }
    let mut odd = ExportCheck::part(log.span.start.clone(), 300, []);
    log.lines[..300].iter().for_each(|line| odd.line(line));
    let odd = claim(300, odd.tree().root());
    coded(desk.vault.finish_archive(&owner, odd).await, Code::Conflict);
    assert!(desk.vault.archive().is_none());
    let left = desk.records(|record| record.event.action == Action::AuditArchive).await;
    assert_eq!(left.iter().filter(|record| record.event.result == Outcome::Failed).count(), 6);
    assert_eq!(left.iter().filter(|record| record.event.result == Outcome::Refused).count(), 2);
    assert!(left.iter().all(|record| record.event.result != Outcome::Allowed));
    desk.vault.finish_archive(&owner, kept.claim()).await.unwrap();
}

#[tokio::test]
async fn an_export_that_loses_its_records_to_an_archive_breaks_off() {
    let desk = aged().await;
    let owner = desk.owner().await;
    let kept = archive(&desk, &owner, 100).await;
    let export = desk.vault.export_audit(&owner, EventFilter::default(), None).await.unwrap();
    desk.vault.finish_archive(&owner, kept.claim()).await.unwrap();
    assert!(read_lines(export).await.is_err());
}

async fn read_lines(mut export: AuditExport) -> Result<(), VaultError> {
    while export.next().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn what_a_leaver_has_seen_is_known_after_an_archive() {
    for is_archived in [false, true] {
        let desk = aged().await;
        let owner = desk.owner().await;
        if is_archived {
            let kept = archive(&desk, &owner, 100).await;
            desk.vault.finish_archive(&owner, kept.claim()).await.unwrap();
        }
        let left = desk.vault.leave(&owner, &name("shop")).await.unwrap();
        assert_eq!(left.seen, vec![secret("prod/stripe")], "archived: {is_archived}");
    }
}

#[tokio::test]
async fn a_query_that_reaches_the_archive_is_told_so() {
    let desk = aged().await;
    let owner = desk.owner().await;
    let kept = archive(&desk, &owner, 100).await;
    desk.vault.finish_archive(&owner, kept.claim()).await.unwrap();
    let reaches = |query: AuditQuery, found: usize| desk.vault.archive_behind(&query, found).is_some();
    let query = || AuditQuery { limit: 10, ..AuditQuery::default() };
    assert!(!reaches(query(), 10));
    assert!(reaches(query(), 9));
    assert!(reaches(AuditQuery { oldest_first: true, ..query() }, 10));
    assert!(!reaches(AuditQuery { oldest_first: true, from: 512, ..query() }, 10));
    let since = |ago: i64| EventFilter { since: Some(days(&desk, ago)), ..EventFilter::default() };
    assert!(!reaches(AuditQuery { filter: since(100), ..query() }, 3));
    assert!(reaches(AuditQuery { filter: since(300), ..query() }, 3));
}

#[tokio::test]
async fn names_and_addresses_come_along_when_asked_for() {
    let desk = aged().await;
    let owner = desk.owner().await;
    let mut export = desk.vault.personal_of_archive(&owner, 0, 512).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = export.next().await.unwrap() {
        bytes.extend(piece);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.lines().count() > 500);
    for line in text.lines().take(50) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let seq = value["seq"].as_u64().unwrap();
        let personal: keymoat_core::audit::Personal =
            serde_json::from_value(value["personal"].clone()).unwrap();
        let hex = value["salt"].as_str().unwrap();
        let salt: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect();
        let record = desk.vault.prove(&owner, seq).await.unwrap().record;
        assert_eq!(record.event.personal, Some(personal.commit(&salt.try_into().unwrap())));
    }
}

#[tokio::test]
async fn taking_out_goes_on_where_it_was_broken_off() {
    let desk = aged().await;
    let owner = desk.owner().await;
    let kept = archive(&desk, &owner, 100).await;
    // Broken off at the first moment at which it lets go: the mark is set, or not even that.
    let mut finishing = Box::pin(desk.vault.finish_archive(&owner, kept.claim()));
    while desk.vault.archive().is_none() {
        let once = std::future::poll_fn(|cx| std::task::Poll::Ready(finishing.as_mut().poll(cx)));
        assert!(once.await.is_pending());
        tokio::task::yield_now().await;
    }
    drop(finishing);
    assert!(desk.vault.archive().unwrap().is_unfinished());
    let desk = desk.reopened().await;
    let owner = desk.owner().await;
    assert_eq!(desk.vault.verify(&owner).await.unwrap().problems, vec![]);
    let archived = desk.vault.tend_archive().await.unwrap().unwrap();
    assert_eq!((archived.end, archived.dropped + archived.kept), (512, 512));
    assert_eq!(desk.vault.tend_archive().await.unwrap(), None);
    let report = desk.vault.verify(&owner).await.unwrap();
    assert_eq!((report.problems, report.archived), (vec![], archived.dropped));
}

#[tokio::test]
async fn what_was_taken_out_is_in_no_file() {
    const ADDRESS: &str = "203.0.113.77";
    let desk = Desk::new().await;
    let owner = desk.owner().await;
    let elsewhere = Caller { origin: desk.origin_at(ADDRESS), ..owner.clone() };
    for n in 0..300 {
        let caller = if n % 7 == 0 { &elsewhere } else { &owner };
        desk.vault.list_accounts(caller).await.unwrap();
    }
    let is_in_the_files =
        |desk: &Desk| desk.bytes().windows(ADDRESS.len()).any(|window| window == ADDRESS.as_bytes());
    assert!(is_in_the_files(&desk));
    // All of them are in the part that goes.
    desk.clock.forward(SignedDuration::from_hours(24 * 200));
    for _ in 0..300 {
        desk.vault.list_accounts(&owner).await.unwrap();
    }
    desk.clock.forward(SignedDuration::from_hours(24 * 200));
    let kept = archive(&desk, &owner, 100).await;
    assert_eq!(kept.span.end, 512);
    desk.vault.finish_archive(&owner, kept.claim()).await.unwrap();
    assert!(!is_in_the_files(&desk));
}
