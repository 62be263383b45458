//! Nine ways to tamper with the log, a thousand times each, against an auditor who has an export, the key, and
//! the checkpoints that he kept. Nothing stays unnoticed, and the first line that is not what was signed is named.
//!
//! The same on databases, with the vault's own verification, is in `crates/store/tests/tamper.rs`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::ops::RangeInclusive;

use jiff::Timestamp;
use keymoat_core::audit::{Action, Actor, AuditText, Details, Event, Outcome};
use keymoat_core::auditor::{ExportCheck, ExportProblem};
use keymoat_core::checkpoint::{Checkpoint, note_text};
use keymoat_core::id::RequestId;
use keymoat_core::tree::{leaf_hash, root_of};
use keymoat_crypto::{AuditSigner, AuditVerifyingKey, InstanceKey};

#[test]
fn nine_ways_to_tamper_are_noticed_and_named() {
    let log = Log::new();
    let auditor = log.auditor();
    assert_eq!(auditor.check(&log.lines, &log.note), Ok(()), "an untouched export");
    let mut dice = Dice(0x6b65_796d_6f61_7401);
    let mut tried = 0;
    for (name, tamper) in WAYS {
        for round in 0..ROUNDS {
            let (lines, note, first) = tamper(&log, &mut dice, round);
            match auditor.check(&lines, &note) {
                Ok(()) => panic!("{name}, round {round}: not noticed"),
                Err(Found::ForeignNote) => assert_eq!(first, None, "{name}, round {round}"),
                Err(Found::Lines(named)) => {
                    let first =
                        first.unwrap_or_else(|| panic!("{name}: the checkpoint is the foreign thing"));
                    let is_named = named.iter().any(|lines| lines.contains(&first));
                    assert!(is_named, "{name}, round {round}: line {first} is not in {named:?}");
                }
            }
            tried += 1;
        }
    }
    println!("FIGURE audit-tampering: 0 of {tried} changes unnoticed");
}

/// What comes out: the lines, the checkpoint beside them, and the first line that is not what was signed; none when
/// the checkpoint itself is foreign.
type Tampered = (Vec<Vec<u8>>, String, Option<u64>);

type Way = fn(&Log, &mut Dice, usize) -> Tampered;

const WAYS: [(&str, Way); 9] = [
    ("edit", |log, dice, _| {
        let (mut lines, at) = (log.lines.clone(), dice.below(SIZE));
        let mut event = Event::parse(&lines[at]).unwrap();
        match dice.below(4) {
            0 => event.action = Action::List,
            1 => event.result = Outcome::Refused,
            2 => event.module = Some(AuditText::new("another")),
            _ => event.path = Some("another".parse().unwrap()),
        }
        lines[at] = event.canonical();
        log.as_it_was(lines, at)
    }),
    ("delete", |log, dice, round| {
        let at = [0, SIZE / 2, SIZE - 1, dice.below(SIZE)][round % 4];
        let mut lines = log.lines.clone();
        lines.remove(at);
        log.as_it_was(lines, at)
    }),
    ("truncate", |log, dice, _| {
        let left = dice.below(SIZE);
        log.as_it_was(log.lines[..left].to_vec(), left)
    }),
    ("reorder", |log, dice, _| {
        let (one, other) = dice.two_below(SIZE);
        let mut lines = log.lines.clone();
        lines.swap(one, other);
        log.as_it_was(lines, one)
    }),
    ("duplicate", |log, dice, _| {
        let (which, at) = dice.two_below(SIZE);
        let mut lines = log.lines.clone();
        lines.insert(at, lines[which].clone());
        log.as_it_was(lines, at)
    }),
    ("insert", |log, dice, _| {
        let at = dice.below(SIZE);
        let mut lines = log.lines.clone();
        lines.insert(at, record(at as u64, "planted"));
        log.as_it_was(lines, at)
    }),
    ("older copy", |log, dice, _| {
        let left = 1 + dice.below(SIZE - 1);
        let lines = log.lines[..left].to_vec();
        let note = log.note(&lines);
        (lines, note, Some(left as u64 + 1))
    }),
    ("fork", |log, dice, _| {
        // Whoever has the vault's own key writes the history from here on anew, and as long as he likes.
        let (at, size) = (dice.below(SIZE), SIZE + dice.below(20));
        let mut lines = log.lines[..at].to_vec();
        lines.extend((at..size).map(|seq| record(seq as u64, "forked")));
        let note = log.note(&lines);
        (lines, note, Some(at as u64 + 1))
    }),
    ("sign with another key", |log, dice, round| {
        let mut lines = log.lines.clone();
        if round % 2 == 0 {
            let at = dice.below(SIZE);
            lines[at] = record(at as u64, "signed by another");
        }
        let other = InstanceKey::generate().audit_signer(0);
        // Under its own id, or under that of the key that it wants to be.
        let id = if round % 4 < 2 { other.verifying_key() } else { log.signer.verifying_key() };
        let note = signed(&lines, &other, id.key_id(ORIGIN));
        (lines, note, None)
    }),
];

struct Log {
    lines: Vec<Vec<u8>>,
    signer: AuditSigner,
    /// The checkpoint over all of them.
    note: String,
}

impl Log {
    fn new() -> Self {
        let lines: Vec<Vec<u8>> = (0..SIZE as u64).map(|seq| record(seq, "payment_stripe")).collect();
        let mut log = Self { lines, signer: InstanceKey::generate().audit_signer(0), note: String::new() };
        log.note = log.note(&log.lines);
        log
    }

    /// The checkpoint over these lines, by the vault.
    fn note(&self, lines: &[Vec<u8>]) -> String {
        signed(lines, &self.signer, self.signer.verifying_key().key_id(ORIGIN))
    }

    /// Other lines beside the checkpoint that was there.
    fn as_it_was(&self, lines: Vec<Vec<u8>>, first: usize) -> Tampered {
        (lines, self.note.clone(), Some(first as u64 + 1))
    }

    fn auditor(&self) -> Auditor {
        let sizes = (KEPT_EACH..=SIZE).step_by(KEPT_EACH);
        let kept = sizes.map(|size| Checkpoint::parse(&self.note(&self.lines[..size])).unwrap().0).collect();
        Auditor { key: self.signer.verifying_key(), kept }
    }
}

struct Auditor {
    key: AuditVerifyingKey,
    /// Checkpoints of other days, which he has verified then.
    kept: Vec<Checkpoint>,
}

/// What an auditor found.
#[derive(Debug, PartialEq)]
enum Found {
    /// The checkpoint beside the export is not by the vault's key.
    ForeignNote,
    /// These lines.
    Lines(Vec<RangeInclusive<u64>>),
}

impl Auditor {
    fn check(&self, lines: &[Vec<u8>], note: &str) -> Result<(), Found> {
        let head = self.head(note).ok_or(Found::ForeignNote)?;
        let mut check = ExportCheck::new(self.kept.iter().chain([&head]));
        lines.iter().for_each(|line| check.line(line));
        match check.finish().problems.as_slice() {
            [] => Ok(()),
            problems => Err(Found::Lines(problems.iter().map(lines_of).collect())),
        }
    }

    fn head(&self, note: &str) -> Option<Checkpoint> {
        let (head, signatures) = Checkpoint::parse(note).ok()?;
        let id = self.key.key_id(ORIGIN);
        let by_key = signatures.iter().any(|by| {
            by.key_id == id
                && by
                    .signature
                    .as_slice()
                    .try_into()
                    .is_ok_and(|it| self.key.verify(head.body().as_bytes(), it))
        });
        (by_key && head.origin() == ORIGIN).then_some(head)
    }
}

fn lines_of(problem: &ExportProblem) -> RangeInclusive<u64> {
    match *problem {
        ExportProblem::Line { line, .. } | ExportProblem::Number { line, .. } => line..=line,
        ExportProblem::Differ { first, last, .. } => first..=last,
        ExportProblem::Contradiction { size } => 1..=size,
        ExportProblem::Short { lines, .. } => lines + 1..=lines + 1,
    }
}

fn signed(lines: &[Vec<u8>], signer: &AuditSigner, key_id: u32) -> String {
    let root = root_of(lines.iter().map(|line| leaf_hash(line))).unwrap();
    let head = Checkpoint::new(ORIGIN, lines.len() as u64, root, Vec::new()).unwrap();
    note_text(&head.body(), ORIGIN, key_id, &signer.sign(head.body().as_bytes())).unwrap()
}

fn record(seq: u64, module: &str) -> Vec<u8> {
    let event = Event {
        seq,
        time: Timestamp::from_second(1_800_000_000 + seq as i64).unwrap(),
        request: RequestId::from_parts(seq, &[7; 10]),
        actor: Actor::Anonymous,
        on_behalf_of: None,
        module: Some(AuditText::new(module)),
        action: Action::Reveal,
        scope: Some("prod".parse().unwrap()),
        company: None,
        path: Some("stripe".parse().unwrap()),
        field: None,
        version: Some(1),
        result: Outcome::Allowed,
        reason: None,
        decided_by: None,
        personal: None,
        details: Details::new(),
        rows: Vec::new(),
    };
    event.canonical()
}

/// xorshift64, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    /// Two different ones, the smaller first.
    fn two_below(&mut self, end: usize) -> (usize, usize) {
        let (one, other) = (self.below(end), self.below(end - 1));
        let other = if other >= one { other + 1 } else { other };
        (one.min(other), one.max(other))
    }
}

const ORIGIN: &str = "keymoat/made-up";
const SIZE: usize = 40;
/// As if he had kept a checkpoint each time that so many records had come.
const KEPT_EACH: usize = 10;
const ROUNDS: usize = 1000;
