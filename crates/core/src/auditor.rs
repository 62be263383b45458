//! What an auditor checks away from the vault: exported records, and archived parts of the log, against signed heads
//! that he kept, and the proof of one record.
//!
//! Signatures are checked before: a [`Checkpoint`] that comes in here counts as signed. Where records are read from is
//! the caller's.

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;

use crate::audit::Event;
use crate::checkpoint::Checkpoint;
use crate::tree::{
    Frontier, Hash, MAX_SIZE, TreeError, inclusion_proof, leaf_hash, node_hash, root_of, root_of_path,
    verify_consistency, verify_inclusion,
};

/// A part of the log, from one record up to another, and what ties it to a signed head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSpan {
    /// The right edge of the tree over the records in front of it.
    pub start: Frontier,
    /// The first record that is no longer in it.
    pub end: u64,
    /// The RFC 6962 proof that the tree of the signed head begins with that of `end` records.
    pub consistency: Vec<Hash>,
}

impl LogSpan {
    /// Whether the tree over everything up to the end of the span is the beginning of a signed one.
    #[must_use]
    pub fn leads_to(&self, end: &Frontier, head: &Checkpoint) -> bool {
        end.size() == self.end
            && verify_consistency((end.size(), &end.root()), (head.size(), head.root()), &self.consistency)
    }

    /// The audit path of the record at `place` in the tree up to the end of the span, from the hashes of its records.
    ///
    /// # Errors
    /// When the record is not in the span, or there are not as many hashes as it has records.
    pub fn inclusion(&self, place: u64, leaves: &[Hash]) -> Result<Vec<Hash>, TreeError> {
        let size = self.end;
        if place < self.start.size() || self.start.size() + leaves.len() as u64 != size {
            return Err(TreeError::NoSuchLeaf { index: place, size });
        }
        inclusion_proof(place, size, |level, index| self.subtree(leaves, level, index))
    }

    /// The hash of a full subtree: in front of the span one of the frontier's, in it made from its leaves.
    fn subtree(&self, leaves: &[Hash], level: u8, index: u64) -> Option<Hash> {
        let (first, width) = (index << level, 1u64 << level);
        let start = self.start.size();
        if let Some(from) = first.checked_sub(start) {
            let from = usize::try_from(from).ok()?;
            let below = leaves.get(from..from.checked_add(usize::try_from(width).ok()?)?)?;
            return root_of(below.iter().copied()).ok();
        }
        if first + width <= start {
            // Those in front are known where no larger full subtree in front holds them.
            let rank =
                (start >> level).checked_sub(1).filter(|last| *last == index && start >> level & 1 == 1);
            rank?;
            let larger = (start >> level >> 1).count_ones() as usize;
            return self.start.roots().get(larger).copied();
        }
        let (left, right) =
            (self.subtree(leaves, level - 1, index * 2)?, self.subtree(leaves, level - 1, index * 2 + 1)?);
        Some(node_hash(&left, &right))
    }
}

/// Reads an export line by line and compares it with one signed head or more.
#[derive(Debug, Clone)]
pub struct ExportCheck {
    /// Heads that are still to come, smallest first.
    heads: VecDeque<Head>,
    /// Records under the largest head.
    size: u64,
    /// Records under the head that was compared last and fitted.
    fitting: Option<u64>,
    frontier: Frontier,
    /// The number of the record on the first line.
    start: u64,
    lines: u64,
    time: Timestamp,
    /// How far the numbers in the records are ahead of their places, after an accepted loss.
    shift: i128,
    differs: bool,
    problems: Vec<ExportProblem>,
}

#[derive(Debug, Clone)]
struct Head {
    size: u64,
    root: Hash,
}

/// What can be said of a line alone, whatever stands before and after it; so lines can be looked at in any order, and
/// several at a time.
#[derive(Debug, Clone)]
pub struct Look {
    leaf: Hash,
    /// Its number and its time; none when it is not a record.
    said: Option<(u64, Timestamp)>,
}

impl Look {
    /// Looks at a line, without its line end.
    pub fn at(record: &[u8]) -> Self {
        Self { leaf: leaf_hash(record), said: Event::glance(record).ok() }
    }
}

/// What a check of an export found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFindings {
    /// Records that were compared with a signed head.
    pub checked: u64,
    /// Lines after those, which no head here covers.
    pub beyond: u64,
    /// What does not fit, first line first, at most [`MAX_PROBLEMS`].
    pub problems: Vec<ExportProblem>,
}

/// Something that does not fit; lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportProblem {
    /// A line is not the record that it should be.
    Line {
        /// The line.
        line: u64,
        /// In which way.
        why: &'static str,
    },
    /// The number in a record is not that of its place.
    Number {
        /// The line.
        line: u64,
        /// The record that should stand there.
        place: u64,
        /// What its record says.
        says: u64,
    },
    /// These lines are not those that were signed: one was changed, or took the place of another.
    Differ {
        /// The first line that may be meant.
        first: u64,
        /// The last one.
        last: u64,
        /// Records under the head that they were compared with.
        size: u64,
    },
    /// Two signed heads of one size differ: the vault has shown two histories.
    Contradiction {
        /// Records under both.
        size: u64,
    },
    /// There are fewer records than were signed.
    Short {
        /// Lines that are there.
        lines: u64,
        /// Records that were signed.
        size: u64,
    },
}

impl fmt::Display for ExportProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, why } => write!(f, "line {line}: {why}"),
            Self::Number { line, place, says } => {
                write!(
                    f,
                    "line {line}: record {place} should stand here, and this one says that it is {says}"
                )
            }
            Self::Differ { first, last, size } if first == last => {
                write!(f, "line {first}: it is not the record that was signed (checkpoint of {size} records)")
            }
            Self::Differ { first, last, size } => write!(
                f,
                "lines {first} to {last}: one of them or more is not the record that was signed (checkpoint of {size} records)"
            ),
            Self::Contradiction { size } => {
                write!(f, "two signed checkpoints of {size} records differ: they are of two histories")
            }
            Self::Short { lines, size } => {
                write!(
                    f,
                    "line {}: it is missing, and all after it: the checkpoint covers {size} records",
                    lines + 1
                )
            }
        }
    }
}

impl ExportCheck {
    /// Begins; the heads are those of one log, in any order. The more there are, the closer what was changed is found.
    pub fn new<'c>(heads: impl IntoIterator<Item = &'c Checkpoint>) -> Self {
        let heads: Vec<&Checkpoint> = heads.into_iter().collect();
        let size = heads.iter().map(|head| head.size()).max().unwrap_or(0);
        Self::part(Frontier::new(), size, heads)
    }

    /// Begins to check records from behind `start` up to record number `end`. Of the heads those count that are not
    /// smaller than the one and not larger than the other; what is behind the end is compared by [`LogSpan::leads_to`].
    pub fn part<'c>(start: Frontier, end: u64, heads: impl IntoIterator<Item = &'c Checkpoint>) -> Self {
        let head = |head: &Checkpoint| Head { size: head.size(), root: *head.root() };
        let mut heads: Vec<Head> = heads.into_iter().map(head).collect();
        heads.retain(|head| (start.size()..=end).contains(&head.size));
        heads.sort_by_key(|head| head.size);
        let mut check = Self {
            heads: heads.into(),
            size: end,
            fitting: None,
            start: start.size(),
            frontier: start,
            lines: 0,
            time: Timestamp::MIN,
            shift: 0,
            differs: false,
            problems: Vec::new(),
        };
        check.compare();
        check
    }

    /// Takes the next line, without its line end.
    pub fn line(&mut self, record: &[u8]) {
        self.look(&Look::at(record));
    }

    /// Takes the next lines, without their line ends; so many threads look at them at a time.
    pub fn lines(&mut self, records: &[&[u8]], threads: usize) {
        let part = records.len().div_ceil(threads.max(1)).max(LINES_FOR_A_THREAD);
        if records.len() <= part {
            return records.iter().for_each(|record| self.line(record));
        }
        std::thread::scope(|scope| {
            let look = |part| {
                move || -> Vec<Look> { <[&[u8]]>::iter(part).map(|record| Look::at(record)).collect() }
            };
            let (first, rest) = records.split_at(part);
            let others: Vec<_> = rest.chunks(part).map(|part| scope.spawn(look(part))).collect();
            first.iter().for_each(|record| self.line(record));
            for other in others {
                other
                    .join()
                    .expect("looking at a line does not panic")
                    .iter()
                    .for_each(|seen| self.look(seen));
            }
        });
    }

    /// Takes the next line as it was looked at.
    pub fn look(&mut self, look: &Look) {
        self.lines = self.lines.saturating_add(1);
        if self.frontier.size() >= self.size {
            return;
        }
        self.said(look.said);
        // INVARIANT: below the size of a signed head, which a tree may have.
        if self.frontier.append(look.leaf).is_err() {
            debug_assert!(self.frontier.size() >= MAX_SIZE, "a tree takes leaves until it is full");
        }
        self.compare();
    }

    /// The tree over what was checked so far, and what lies in front of it.
    pub fn tree(&self) -> &Frontier {
        &self.frontier
    }

    /// Ends, and says what was found.
    pub fn finish(mut self) -> ExportFindings {
        let checked = self.frontier.size() - self.start;
        if self.frontier.size() < self.size {
            self.say(ExportProblem::Short { lines: self.lines, size: self.size });
        }
        ExportFindings { checked, beyond: self.lines.saturating_sub(checked), problems: self.problems }
    }

    /// What a record says of itself, which names a line where a root alone could not.
    fn said(&mut self, said: Option<(u64, Timestamp)>) {
        let line = self.lines;
        let Some((seq, time)) = said else {
            return self.say(ExportProblem::Line { line, why: "it is not a record as Keymoat writes them" });
        };
        let place = self.frontier.size();
        let shift = i128::from(seq) - i128::from(place);
        if std::mem::replace(&mut self.shift, shift) != shift && shift != 0 {
            self.say(ExportProblem::Number { line, place, says: seq });
        }
        if time < self.time {
            self.say(ExportProblem::Line {
                line,
                why: "its time is before that of the record in front of it",
            });
        }
        self.time = self.time.max(time);
    }

    /// Compares the tree with the heads of its size. Once one differs, all later ones do.
    fn compare(&mut self) {
        let size = self.frontier.size();
        while self.heads.front().is_some_and(|head| head.size == size)
            && let Some(head) = self.heads.pop_front()
        {
            if self.differs {
                continue;
            }
            if head.root == self.frontier.root() {
                self.fitting = Some(size);
                continue;
            }
            self.differs = true;
            self.say(match self.fitting == Some(size) {
                true => ExportProblem::Contradiction { size },
                false => {
                    let line = |place: u64| place.saturating_sub(self.start);
                    let first = line(self.fitting.unwrap_or(0)) + 1;
                    ExportProblem::Differ { first, last: line(size).max(1), size }
                }
            });
        }
    }

    fn say(&mut self, problem: ExportProblem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// Whether a record stands at a place of the log that was signed.
#[must_use]
pub fn is_included(record: &[u8], place: u64, head: &Checkpoint, proof: &[Hash]) -> bool {
    verify_inclusion(&leaf_hash(record), place, head.size(), proof, head.root())
}

/// Whether a record stands at a place of a tree of `end` records that the signed tree begins with.
#[must_use]
pub fn is_included_up_to(
    record: &[u8],
    place: u64,
    end: u64,
    proof: &[Hash],
    head: &Checkpoint,
    consistency: &[Hash],
) -> bool {
    root_of_path(&leaf_hash(record), place, end, proof)
        .is_some_and(|root| verify_consistency((end, &root), (head.size(), head.root()), consistency))
}

/// Fewer are sooner looked at than a thread is started.
const LINES_FOR_A_THREAD: usize = 256;
/// More than anybody reads; the first ones tell the story.
pub const MAX_PROBLEMS: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::{Action, Actor, Details, Outcome};

    fn record(seq: u64) -> Vec<u8> {
        let time = Timestamp::from_second(1_800_000_000 + seq as i64).unwrap();
        event(seq, time).canonical()
    }

    fn event(seq: u64, time: Timestamp) -> Event {
        Event {
            seq,
            time,
            request: crate::id::RequestId::from_uuid(uuid::Uuid::from_u128(u128::from(seq))),
            actor: Actor::Anonymous,
            on_behalf_of: None,
            module: None,
            action: Action::AuditRead,
            scope: None,
            company: None,
            path: None,
            field: None,
            version: None,
            result: Outcome::Allowed,
            reason: None,
            decided_by: None,
            personal: None,
            details: Details::new(),
            rows: Vec::new(),
        }
    }

    fn head(records: &[Vec<u8>]) -> Checkpoint {
        let root = root_of(records.iter().map(|record| leaf_hash(record))).unwrap();
        Checkpoint::new("keymoat/made-up", records.len() as u64, root, Vec::new()).unwrap()
    }

    fn findings(heads: &[Checkpoint], lines: &[Vec<u8>]) -> ExportFindings {
        let mut check = ExportCheck::new(heads);
        lines.iter().for_each(|line| check.line(line));
        check.finish()
    }

    /// What is said of an export of ten records that was touched, with checkpoints over these many.
    #[track_caller]
    fn check(sizes: &[usize], touch: impl FnOnce(&mut Vec<Vec<u8>>), expected: &[&str]) {
        let records: Vec<Vec<u8>> = (0..10).map(record).collect();
        let heads: Vec<Checkpoint> = sizes.iter().map(|size| head(&records[..*size])).collect();
        let mut lines = records;
        touch(&mut lines);
        let said: Vec<String> = findings(&heads, &lines).problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    fn edit(line: &mut Vec<u8>) {
        *line = String::from_utf8(line.clone()).unwrap().replace("audit_read", "reveal").into_bytes();
    }

    #[test]
    fn exports_and_what_is_said_of_them() {
        let differ = |lines: &str, size: u64| {
            format!(
                "{lines}: one of them or more is not the record that was signed (checkpoint of {size} records)"
            )
        };
        check(&[10], |_| {}, &[]);
        check(&[0, 3, 10, 10], |_| {}, &[]);
        check(&[10], |lines| edit(&mut lines[6]), &[&differ("lines 1 to 10", 10)]);
        check(&[4, 8, 10], |lines| edit(&mut lines[6]), &[&differ("lines 5 to 8", 8)]);
        check(
            &[6, 7, 10],
            |lines| edit(&mut lines[6]),
            &["line 7: it is not the record that was signed (checkpoint of 7 records)"],
        );
        check(&[6], |lines| edit(&mut lines[6]), &[]);
        check(
            &[10],
            |lines| lines[6].push(b' '),
            &["line 7: it is not a record as Keymoat writes them", &differ("lines 1 to 10", 10)],
        );
        check(
            &[5, 10],
            |lines| drop(lines.remove(6)),
            &[
                "line 7: record 6 should stand here, and this one says that it is 7",
                "line 10: it is missing, and all after it: the checkpoint covers 10 records",
            ],
        );
        check(
            &[10],
            |lines| lines.truncate(9),
            &["line 10: it is missing, and all after it: the checkpoint covers 10 records"],
        );
        check(
            &[10],
            |lines| lines.swap(2, 3),
            &[
                "line 3: record 2 should stand here, and this one says that it is 3",
                "line 4: record 3 should stand here, and this one says that it is 2",
                "line 4: its time is before that of the record in front of it",
                &differ("lines 1 to 10", 10),
            ],
        );
        check(
            &[10],
            |lines| lines.clear(),
            &["line 1: it is missing, and all after it: the checkpoint covers 10 records"],
        );
    }

    #[test]
    fn several_threads_find_what_one_finds() {
        let records: Vec<Vec<u8>> = (0..2000).map(record).collect();
        let heads = [head(&records[..1500]), head(&records)];
        for touched in [None, Some(0), Some(700), Some(1499), Some(1999)] {
            let mut lines = records.clone();
            touched.into_iter().for_each(|at: usize| edit(&mut lines[at]));
            let expected = findings(&heads, &lines);
            assert_eq!(expected.problems.is_empty(), touched.is_none());
            for threads in [0, 1, 2, 3, 7, 1000] {
                let mut check = ExportCheck::new(&heads);
                let all: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
                check.lines(&all[..1234], threads);
                check.lines(&all[1234..], threads);
                assert_eq!(check.finish(), expected, "{touched:?} with {threads} threads");
            }
        }
    }

    #[test]
    fn an_accepted_loss_is_named_once_and_the_rest_still_checked() {
        let records: Vec<Vec<u8>> = (0..10).filter(|seq| *seq != 4).map(record).collect();
        let found = findings(&[head(&records)], &records);
        assert_eq!(found.problems, [ExportProblem::Number { line: 5, place: 4, says: 5 }]);
        assert_eq!((found.checked, found.beyond), (9, 0));
    }

    #[test]
    fn lines_beyond_the_head_are_counted() {
        let records: Vec<Vec<u8>> = (0..10).map(record).collect();
        let found = findings(&[head(&records[..7])], &records);
        assert_eq!(found, ExportFindings { checked: 7, beyond: 3, problems: Vec::new() });
    }

    #[test]
    fn two_histories_of_one_size_never_both_fit() {
        let records: Vec<Vec<u8>> = (0..10).map(record).collect();
        let mut others = records.clone();
        edit(&mut others[2]);
        let found = findings(&[head(&records), head(&others)], &records);
        assert_eq!(found.problems, [ExportProblem::Contradiction { size: 10 }]);
        let found = findings(&[head(&others[..5]), head(&records)], &records);
        assert_eq!(found.problems, [ExportProblem::Differ { first: 1, last: 5, size: 5 }]);
    }

    proptest! {
        #[test]
        fn a_part_of_the_log_is_the_one_that_was_signed(
            size in 1usize..60, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let records: Vec<Vec<u8>> = (0..size as u64).map(record).collect();
            let hashes: Vec<Hash> = records.iter().map(|record| leaf_hash(record)).collect();
            let (from, to) = (from.index(size + 1), to.index(size + 1));
            let (from, to) = (from.min(to), from.max(to));
            let lookup = |level: u8, index: u64| {
                let width = 1usize << level;
                let first = usize::try_from(index).ok()? * width;
                root_of(hashes.get(first..first + width)?.iter().copied()).ok()
            };
            let span = LogSpan {
                start: Frontier::from_subtrees(from as u64, lookup).unwrap(),
                end: to as u64,
                consistency: crate::tree::consistency_proof(to as u64, size as u64, lookup).unwrap(),
            };
            let (signed, kept) = (head(&records), head(&records[..to]));
            let fits = |lines: &[Vec<u8>]| {
                let mut check = ExportCheck::part(span.start.clone(), span.end, [&kept]);
                lines.iter().for_each(|line| check.line(line));
                let tree = check.tree().clone();
                (span.leads_to(&tree, &signed), check.finish())
            };
            let (leads, found) = fits(&records[from..to]);
            prop_assert!(leads && found.problems.is_empty() && found.checked == (to - from) as u64);
            if from == to {
                return Ok(());
            }
            let mut lines = records[from..to].to_vec();
            let line = at.index(lines.len());
            let byte = at.index(lines[line].len());
            lines[line][byte] ^= 1 << bit;
            let (leads, found) = fits(&lines);
            prop_assert!(!leads && !found.problems.is_empty());
            let (leads, found) = fits(&records[from..to - 1]);
            prop_assert!(!leads && !found.problems.is_empty());
            // One record of it, in the tree up to its end.
            let place = (from + line) as u64;
            let path = span.inclusion(place, &hashes[from..to]).unwrap();
            prop_assert_eq!(&path, &inclusion_proof(place, to as u64, lookup).unwrap());
            prop_assert!(span.inclusion(to as u64, &hashes[from..to]).is_err());
            prop_assert!(span.inclusion(place, &hashes[from..to - 1]).is_err());
            let included = |record: &[u8], place: u64| {
                is_included_up_to(record, place, to as u64, &path, &signed, &span.consistency)
            };
            prop_assert!(included(&records[from + line], place));
            prop_assert!(!included(b"another", place) && !included(&records[from + line], to as u64));
        }

        #[test]
        fn any_changed_byte_is_found(size in 1usize..40, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let records: Vec<Vec<u8>> = (0..size as u64).map(record).collect();
            let heads = [head(&records[..size / 2]), head(&records)];
            prop_assert!(findings(&heads, &records).problems.is_empty());
            let mut lines = records;
            let line = at.index(size);
            let byte = at.index(lines[line].len());
            lines[line][byte] ^= 1 << bit;
            prop_assert!(!findings(&heads, &lines).problems.is_empty());
        }

        #[test]
        fn a_record_is_included_at_its_place_only(size in 1u64..40, at in any::<prop::sample::Index>()) {
            let records: Vec<Vec<u8>> = (0..size).map(record).collect();
            let hashes: Vec<Hash> = records.iter().map(|record| leaf_hash(record)).collect();
            let place = at.index(records.len());
            let lookup = |level: u8, index: u64| {
                let width = 1usize << level;
                let first = usize::try_from(index).ok()? * width;
                root_of(hashes.get(first..first + width)?.iter().copied()).ok()
            };
            let proof = inclusion_proof(place as u64, size, lookup).unwrap();
            let head = head(&records);
            prop_assert!(is_included(&records[place], place as u64, &head, &proof));
            prop_assert!(!is_included(b"another", place as u64, &head, &proof));
            prop_assert!(!is_included(&records[place], size, &head, &proof));
        }
    }
}
