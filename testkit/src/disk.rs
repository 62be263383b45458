//! What a disk may hold after the power went: everything that was synced, and any part of what was not.
//!
//! A model, without a file: a recording goes in, the content of every file comes out. What was not synced is kept or
//! lost sector by sector, truncations and names are kept or lost each for itself, and a file may have grown without
//! its content having come. A sector that was written twice since the last sync may hold either content.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::dice::Dice;

/// Everything that was done to some files, in order.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// The files, by where they are below the directory that was watched.
    pub files: Vec<PathBuf>,
    /// What was done.
    pub steps: Vec<Step>,
}

/// One step of a recording. Files are numbers in [`Recording::files`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file was opened, and made if it was not there.
    Opened(usize),
    /// The file's directory was synced: its name stays, or stays gone.
    Listed(usize),
    /// Bytes were written.
    Wrote {
        /// Into which file.
        file: usize,
        /// Where.
        at: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut.
    Truncated {
        /// Which.
        file: usize,
        /// To how many bytes.
        to: u64,
    },
    /// A file's content was synced.
    Synced(usize),
    /// A file was removed.
    Removed(usize),
    /// Somebody was told that the deed of this number is done.
    Acknowledged(usize),
}

impl Recording {
    /// Whether a file is a write-ahead log.
    pub(crate) fn is_log(&self, file: usize) -> bool {
        self.files.get(file).is_some_and(|path| path.to_string_lossy().ends_with("-wal"))
    }

    /// The deeds that were acknowledged before a step.
    pub fn acknowledged_before(&self, cut: usize) -> impl Iterator<Item = usize> {
        self.steps.iter().take(cut).filter_map(|step| match step {
            Step::Acknowledged(deed) => Some(*deed),
            _ => None,
        })
    }

    /// What the disk holds when the power goes before step `cut`, by the dice.
    pub fn after_power_cut(&self, cut: usize, dice: &mut Dice) -> BTreeMap<&Path, Vec<u8>> {
        let mut disk: Vec<OnDisk<'_>> = self.files.iter().map(|_| OnDisk::default()).collect();
        for step in self.steps.iter().take(cut) {
            if let Step::Listed(file) = step {
                self.list(&mut disk, *file);
            } else if let Some(file) = step.file().and_then(|file| disk.get_mut(file)) {
                file.take(step);
            }
        }
        let luck = LUCK[dice.below(LUCK.len() as u64) as usize];
        let left = self.files.iter().zip(disk).map(|(path, file)| (path.as_path(), file.left(luck, dice)));
        left.filter_map(|(path, content)| Some((path, content?))).collect()
    }

    /// A directory's sync is for every name in it.
    fn list(&self, disk: &mut [OnDisk<'_>], file: usize) {
        let parent = |file: usize| self.files.get(file).and_then(|path| path.parent());
        let synced = parent(file);
        disk.iter_mut().enumerate().filter(|(n, _)| parent(*n) == synced).for_each(|(_, file)| file.list());
    }
}

impl Step {
    fn file(&self) -> Option<usize> {
        match self {
            Step::Opened(file) | Step::Listed(file) | Step::Synced(file) | Step::Removed(file) => Some(*file),
            Step::Wrote { file, .. } | Step::Truncated { file, .. } => Some(*file),
            Step::Acknowledged(_) => None,
        }
    }
}

/// A file as a disk holds it: what is certain, and what may have come.
#[derive(Default)]
struct OnDisk<'a> {
    /// Whether the program sees it.
    is_there: bool,
    /// What the disk surely holds of the file that the program sees.
    synced: Vec<u8>,
    /// What was done to that file since its last sync.
    pending: Vec<&'a Step>,
    /// What its name may lead to instead, until the directory is synced.
    instead: Vec<Option<Vec<u8>>>,
}

impl<'a> OnDisk<'a> {
    fn take(&mut self, step: &'a Step) {
        match step {
            Step::Opened(_) if !self.is_there => {
                self.is_there = true;
                self.synced = Vec::new();
                self.instead.push(None);
            }
            Step::Wrote { .. } | Step::Truncated { .. } if self.is_there => self.pending.push(step),
            Step::Synced(_) => self.sync(),
            Step::Removed(_) if self.is_there => {
                self.sync();
                self.instead.push(Some(std::mem::take(&mut self.synced)));
                self.is_there = false;
            }
            _ => {}
        }
    }

    fn sync(&mut self) {
        for step in self.pending.drain(..) {
            match step {
                Step::Wrote { at, bytes, .. } => put(&mut self.synced, *at, bytes),
                Step::Truncated { to, .. } => cut(&mut self.synced, *to),
                _ => {}
            }
        }
    }

    /// Its directory was synced: the name leads to what the program sees.
    fn list(&mut self) {
        self.instead.clear();
    }

    /// What is left of it, when each unsynced piece is kept so many times in a hundred.
    fn left(mut self, luck: u64, dice: &mut Dice) -> Option<Vec<u8>> {
        if !self.instead.is_empty() && !dice.chance(luck) {
            let other = dice.below(self.instead.len() as u64) as usize;
            return self.instead.swap_remove(other);
        }
        let mut left = self.is_there.then_some(self.synced)?;
        for step in self.pending {
            match step {
                Step::Truncated { to, .. } if dice.chance(luck) => cut(&mut left, *to),
                Step::Wrote { at, bytes, .. } => write_in_sectors(&mut left, *at, bytes, luck, dice),
                _ => {}
            }
        }
        Some(left)
    }
}

/// Writes those sectors that were lucky; the file may have grown all the same.
fn write_in_sectors(file: &mut Vec<u8>, at: u64, bytes: &[u8], luck: u64, dice: &mut Dice) {
    let mut from = at;
    let end = at + bytes.len() as u64;
    while from < end {
        let to = end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
        if dice.chance(luck) {
            put(file, from, &bytes[(from - at) as usize..(to - at) as usize]);
        }
        from = to;
    }
    if (file.len() as u64) < end && dice.chance(luck / 2) {
        file.resize(end as usize, 0);
    }
}

fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (at as usize, at as usize + bytes.len());
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

fn cut(file: &mut Vec<u8>, to: u64) {
    file.resize(to as usize, 0);
}

/// The unit that disks write whole.
const SECTOR_BYTES: u64 = 512;
/// How many of a hundred unsynced pieces were kept, from a disk that loses all to one that loses next to nothing.
const LUCK: [u64; 6] = [0, 10, 50, 80, 95, 100];

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(at: u64, byte: u8, count: usize) -> Step {
        Step::Wrote { file: 0, at, bytes: vec![byte; count] }
    }

    /// Every content that some crash before the last step's end leaves.
    fn outcomes(steps: &[Step]) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let recording = Recording { files: vec!["a".into()], steps: steps.to_vec() };
        let case = |n| recording.after_power_cut(steps.len(), &mut Dice::of_case(1, n)).into_values().next();
        (0..500).map(case).collect()
    }

    #[test]
    fn what_was_synced_is_certain_and_the_rest_is_not() {
        let made = [Step::Opened(0), Step::Listed(0)];
        let check = |more: &[Step], expected: &[Option<Vec<u8>>]| {
            let steps = [&made[..], more].concat();
            assert_eq!(outcomes(&steps).into_iter().collect::<Vec<_>>(), expected, "{more:?}");
        };
        let some = |bytes: &[u8]| Some(bytes.to_vec());
        check(&[wrote(0, 1, 3), Step::Synced(0)], &[some(&[1, 1, 1])]);
        check(&[wrote(0, 1, 2)], &[some(&[]), some(&[0, 0]), some(&[1, 1])]);
        check(
            &[wrote(0, 1, 2), Step::Synced(0), wrote(0, 2, 1), wrote(0, 3, 1)],
            &[some(&[1, 1]), some(&[2, 1]), some(&[3, 1])],
        );
        check(
            &[wrote(0, 1, 2), Step::Synced(0), Step::Truncated { file: 0, to: 0 }],
            &[some(&[]), some(&[1, 1])],
        );
        check(&[wrote(0, 1, 2), Step::Removed(0)], &[None, some(&[1, 1])]);
        check(&[wrote(0, 1, 2), Step::Removed(0), Step::Listed(0)], &[None]);
    }

    #[test]
    fn a_name_is_certain_when_its_directory_was_synced() {
        let steps = [Step::Opened(0), wrote(0, 1, 1), Step::Synced(0)];
        assert_eq!(outcomes(&steps).into_iter().collect::<Vec<_>>(), [None, Some(vec![1])]);
        // Removed and made anew: the old one, none or the new one.
        let anew = [
            &[Step::Opened(0), Step::Listed(0), wrote(0, 1, 1), Step::Synced(0)][..],
            &[Step::Removed(0), Step::Opened(0), wrote(0, 2, 1), Step::Synced(0)][..],
        ]
        .concat();
        assert_eq!(outcomes(&anew).into_iter().collect::<Vec<_>>(), [None, Some(vec![1]), Some(vec![2])]);
    }

    #[test]
    fn sectors_are_kept_each_for_itself() {
        let steps = [Step::Opened(0), Step::Listed(0), wrote(100, 1, 1000)];
        let kept: std::collections::BTreeSet<Vec<bool>> = outcomes(&steps)
            .into_iter()
            .flatten()
            .map(|content| [100, 600, 1090].map(|at| content.get(at) == Some(&1)).to_vec())
            .collect();
        assert_eq!(kept.len(), 8);
    }

    #[test]
    fn acknowledgements_count_up_to_the_cut() {
        let steps = vec![Step::Acknowledged(4), Step::Opened(0), Step::Acknowledged(9)];
        let recording = Recording { files: vec!["a".into()], steps };
        for (cut, expected) in [(0, &[][..]), (1, &[4]), (2, &[4]), (3, &[4, 9])] {
            assert_eq!(recording.acknowledged_before(cut).collect::<Vec<_>>(), expected);
        }
    }
}
