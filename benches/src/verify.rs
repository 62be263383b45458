//! Verifying an export of the log: records a second, beside plain SHA-256 of the same bytes in the same run.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use keymoat_core::audit::{
    Action, Actor, AuditText, DecidedBy, DetailValue, Details, Event, Outcome, PrincipalKind, ReasonCode,
    RowChange,
};
use keymoat_core::auditor::ExportCheck;
use keymoat_core::checkpoint::Checkpoint;
use keymoat_core::id::{PrincipalId, RequestId};
use keymoat_core::tree::{leaf_hash, root_of};

/// Verifies so many records in memory, with one thread and with all.
pub(crate) fn run(records: u64) -> Result<()> {
    let lines: Vec<Vec<u8>> = (0..records).map(|seq| event(seq).canonical()).collect();
    let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let root = root_of(lines.iter().map(|line| leaf_hash(line)))?;
    let head = Checkpoint::new("keymoat/made-up", records, root, Vec::new())?;
    println!("{records} records of {} bytes on average", bytes / lines.len());
    let rate = |name: &str, seconds: f64, plain: f64| {
        let rate = records as f64 / seconds;
        println!("{name:<42} {rate:>12.0} a second {:>7.2}", rate / plain);
        rate
    };
    let timed = |work: &mut dyn FnMut() -> Result<()>| {
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            work()?;
            best = best.min(begun.elapsed().as_secs_f64());
        }
        anyhow::Ok(best)
    };
    let hashing = timed(&mut || {
        for line in &lines {
            black_box(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, line));
        }
        Ok(())
    })?;
    let plain = rate("SHA-256 of each record, one thread", hashing, records as f64 / hashing);
    let long = timed(&mut || {
        for line in &lines {
            ensure!(Event::parse(line).is_ok(), "a record is not canonical");
        }
        Ok(())
    })?;
    rate("reading each record whole, one thread", long, plain);
    let all = std::thread::available_parallelism()?.get();
    for threads in [1, all] {
        let took = timed(&mut || {
            let mut check = ExportCheck::new([&head]);
            lines.chunks(BATCH).for_each(|batch| check.lines(batch, threads));
            let found = check.finish();
            ensure!(found.problems.is_empty() && found.checked == records, "{:?}", found.problems);
            Ok(())
        })?;
        rate(&format!("verifying, {threads} threads"), took, plain);
    }
    Ok(())
}

/// Reads of keys mostly, some refusals, a change now and then, as a shop's log has them.
fn event(seq: u64) -> Event {
    let is_change = seq.is_multiple_of(20);
    let is_refused = seq % 10 == 3;
    let mut details = Details::new();
    if is_change {
        let name = "fields".parse().expect("a name");
        details.insert(name, DetailValue::Number(2)).expect("one detail");
    }
    let name = format!("policy-{}", seq % 7);
    Event {
        seq,
        time: Timestamp::from_millisecond(1_800_000_000_000 + seq as i64).expect("a time of this century"),
        request: RequestId::from_parts(1_800_000_000_000 + seq, &[(seq % 251) as u8; 10]),
        actor: Actor::Principal {
            id: PrincipalId::from_parts(seq % 50, &[7; 10]),
            kind: PrincipalKind::ServiceAccount,
        },
        on_behalf_of: None,
        module: Some(AuditText::new("payment_stripe")),
        action: if is_change { Action::Write } else { Action::Reveal },
        scope: Some("prod".parse().expect("a name")),
        company: Some("acme".parse().expect("a name")),
        path: Some(format!("payments/provider-{}", seq % 90).parse().expect("a path")),
        field: Some("secret_key".parse().expect("a name")),
        version: Some((seq % 9) as u32 + 1),
        result: if is_refused { Outcome::Refused } else { Outcome::Allowed },
        reason: is_refused.then(|| ReasonCode::NoRule.into()),
        decided_by: (!is_refused).then(|| DecidedBy::Policy { name: name.parse().expect("a name"), rule: 3 }),
        personal: Some([(seq % 255) as u8; 32]),
        details,
        rows: match is_change {
            true => vec![
                RowChange::written(
                    "secret",
                    &format!("prod/payments/provider-{}", seq % 90),
                    &[seq as u8; 32],
                ),
                RowChange::written("version", &format!("{seq}/1"), &[seq as u8; 32]),
            ],
            false => Vec::new(),
        },
    }
}

/// The best of so many counts: the others were held up by something else.
const ROUNDS: usize = 7;
/// As many as the command hands on together.
const BATCH: usize = 8192;
