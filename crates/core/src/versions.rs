//! Versions of a secret and the labels that point at them, as a machine without storage.
//!
//! Numbers count from 1 and are never used twice. `current` is what readers get, `pending` what a rotation has
//! made, `previous` what was current before. A deleted version keeps its labels, so that it can come back;
//! a destroyed one loses them and never comes back. Every operation either does all of its work or none.

use std::collections::BTreeMap;

use jiff::Timestamp;
use litemap::LiteMap;

use crate::names::Label;
use crate::secret::MAX_LABELS;

/// What is known of one version, besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VersionState {
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was deleted; it can come back.
    pub deleted_at: Option<Timestamp>,
    /// When it was destroyed; its value is gone.
    pub destroyed_at: Option<Timestamp>,
}

impl VersionState {
    /// Whether its value can be read.
    pub fn is_live(&self) -> bool {
        self.deleted_at.is_none() && self.destroyed_at.is_none()
    }
}

/// All versions of one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSet {
    // Most secrets have one version: a node of a tree would take room for eleven.
    versions: LiteMap<u32, VersionState>,
    // INVARIANT: points only at versions that exist and are not destroyed.
    labels: LiteMap<Label, u32>,
    // INVARIANT: greater than every number ever given out.
    next: u32,
}

impl Default for VersionSet {
    fn default() -> Self {
        Self { versions: LiteMap::new(), labels: LiteMap::new(), next: 1 }
    }
}

impl VersionSet {
    /// A secret without versions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes versions from where they were kept; `next` is the number the next version gets.
    ///
    /// # Errors
    /// When a number is 0 or not below `next`, a label points at nothing or at a destroyed version, or there are
    /// too many labels.
    pub fn from_parts(
        versions: BTreeMap<u32, VersionState>,
        labels: BTreeMap<Label, u32>,
        next: u32,
    ) -> Result<Self, VersionError> {
        let numbers_fit = versions.keys().all(|number| (1..next).contains(number)) && next > 0;
        let points_well =
            |number: &u32| versions.get(number).is_some_and(|state| state.destroyed_at.is_none());
        if !numbers_fit || labels.len() > MAX_LABELS || !labels.values().all(points_well) {
            return Err(VersionError::Damaged);
        }
        Ok(Self { versions: versions.into_iter().collect(), labels: labels.into_iter().collect(), next })
    }

    /// The version that readers get; none when it was deleted.
    pub fn current(&self) -> Option<u32> {
        self.live(&Label::CURRENT)
    }

    /// The version a label points at, if its value can be read.
    pub fn live(&self, label: &Label) -> Option<u32> {
        let number = self.labels.get(label.as_str())?;
        self.versions.get(number).filter(|state| state.is_live()).map(|_| *number)
    }

    /// The version that a check-and-set names: the one `current` points at, deleted or not, else the last number
    /// given out; 0 when there was never any.
    pub fn head(&self) -> u32 {
        self.labels.get(Label::CURRENT.as_str()).copied().unwrap_or(self.next - 1)
    }

    /// What is known of a version.
    pub fn get(&self, number: u32) -> Option<&VersionState> {
        self.versions.get(&number)
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> &LiteMap<u32, VersionState> {
        &self.versions
    }

    /// All labels.
    pub fn labels(&self) -> &LiteMap<Label, u32> {
        &self.labels
    }

    /// The number that the next version gets.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// Checks that nothing was written since the caller looked: `None` for "there is no version yet".
    ///
    /// # Errors
    /// When [`VersionSet::head`] is another.
    pub fn check_and_set(&self, expected: Option<u32>) -> Result<(), VersionError> {
        let (expected, head) = (expected.unwrap_or(0), self.head());
        if expected == head { Ok(()) } else { Err(VersionError::Conflict { expected, head }) }
    }

    /// Adds a version and makes it current; the old current becomes previous.
    ///
    /// # Errors
    /// When the numbers are used up.
    pub fn put(&mut self, now: Timestamp) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            let number = set.create(now, effect)?;
            set.make_current(number, effect);
            Ok(())
        })
    }

    /// Adds a version and labels it pending; readers do not see it.
    ///
    /// # Errors
    /// When the numbers are used up or the labels are.
    pub fn put_pending(&mut self, now: Timestamp) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            let number = set.create(now, effect)?;
            set.point(Label::PENDING, Some(number), effect);
            Ok(())
        })
    }

    /// Makes the pending version current; the old current becomes previous.
    ///
    /// # Errors
    /// When nothing is pending or it was deleted.
    pub fn promote(&mut self) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            let pending = *set.labels.get(Label::PENDING.as_str()).ok_or(VersionError::NothingPending)?;
            set.check_live(pending)?;
            set.point(Label::PENDING, None, effect);
            if set.labels.get(Label::CURRENT.as_str()) != Some(&pending) {
                set.make_current(pending, effect);
            }
            Ok(())
        })
    }

    /// Makes an earlier version current again; the old current becomes previous.
    ///
    /// # Errors
    /// When there is no such version, it is not live, it is pending, or it is current already.
    pub fn rollback_to(&mut self, number: u32) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            set.check_live(number)?;
            if set.labels.get(Label::PENDING.as_str()) == Some(&number) {
                return Err(VersionError::IsPending { number });
            }
            if set.labels.get(Label::CURRENT.as_str()) == Some(&number) {
                return Err(VersionError::AlreadyCurrent { number });
            }
            set.make_current(number, effect);
            Ok(())
        })
    }

    /// Deletes versions; they can come back. One that is deleted already stays as it is.
    ///
    /// # Errors
    /// When one does not exist or is destroyed.
    pub fn delete(&mut self, numbers: &[u32], now: Timestamp) -> Result<Effect, VersionError> {
        self.change_states(numbers, |state| {
            let changes = state.deleted_at.is_none();
            state.deleted_at = state.deleted_at.or(Some(now));
            changes
        })
    }

    /// Brings deleted versions back. One that is not deleted stays as it is.
    ///
    /// # Errors
    /// When one does not exist or is destroyed.
    pub fn undelete(&mut self, numbers: &[u32]) -> Result<Effect, VersionError> {
        self.change_states(numbers, |state| state.deleted_at.take().is_some())
    }

    /// Destroys versions for good and takes their labels away. One that is destroyed already stays as it is.
    ///
    /// # Errors
    /// When one does not exist.
    pub fn destroy(&mut self, numbers: &[u32], now: Timestamp) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            for number in numbers {
                let state =
                    set.versions.get_mut(number).ok_or(VersionError::NoSuchVersion { number: *number })?;
                if state.destroyed_at.is_none() {
                    state.destroyed_at = Some(now);
                    effect.changed.push(*number);
                }
            }
            let lost: Vec<Label> = set
                .labels
                .iter()
                .filter(|(_, at)| numbers.contains(at))
                .map(|(label, _)| label.clone())
                .collect();
            lost.into_iter().for_each(|label| set.point(label, None, effect));
            Ok(())
        })
    }

    /// Points a label at a version. `current` is moved as by [`VersionSet::rollback_to`], and `pending` is taken
    /// from the version that becomes current.
    ///
    /// # Errors
    /// When there is no such version, it is not live, or there are too many labels.
    pub fn set_label(&mut self, label: Label, number: u32) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            set.check_live(number)?;
            if label != Label::CURRENT {
                set.point(label, Some(number), effect);
                return Ok(());
            }
            if set.labels.get(Label::PENDING.as_str()) == Some(&number) {
                set.point(Label::PENDING, None, effect);
            }
            if set.labels.get(Label::CURRENT.as_str()) != Some(&number) {
                set.make_current(number, effect);
            }
            Ok(())
        })
    }

    /// Takes a label away.
    ///
    /// # Errors
    /// When it is `current`, which can only be moved, or there is no such label.
    pub fn remove_label(&mut self, label: &Label) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            if *label == Label::CURRENT {
                return Err(VersionError::CurrentIsNeeded);
            }
            if !set.labels.contains_key(label) {
                return Err(VersionError::NoSuchLabel { label: label.clone() });
            }
            set.point(label.clone(), None, effect);
            Ok(())
        })
    }

    /// Drops the oldest versions without a label until at most `keep` are left; labelled ones always stay.
    pub fn prune(&mut self, keep: usize) -> Effect {
        let surplus = self.versions.len().saturating_sub(keep);
        let is_labelled = |number: &u32| self.labels.values().any(|at| at == number);
        let removed: Vec<u32> =
            self.versions.keys().filter(|number| !is_labelled(number)).take(surplus).copied().collect();
        removed.iter().for_each(|number| {
            self.versions.remove(number);
        });
        Effect { removed, ..Effect::default() }
    }

    /// Works on a copy, so that an error leaves everything as it was.
    fn change(
        &mut self,
        work: impl FnOnce(&mut Self, &mut Effect) -> Result<(), VersionError>,
    ) -> Result<Effect, VersionError> {
        let (mut changed, mut effect) = (self.clone(), Effect::default());
        work(&mut changed, &mut effect)?;
        if changed.labels.len() > MAX_LABELS {
            return Err(VersionError::TooManyLabels);
        }
        *self = changed;
        Ok(effect)
    }

    fn change_states(
        &mut self,
        numbers: &[u32],
        mut work: impl FnMut(&mut VersionState) -> bool,
    ) -> Result<Effect, VersionError> {
        self.change(|set, effect| {
            for &number in numbers {
                let state = set.versions.get_mut(&number).ok_or(VersionError::NoSuchVersion { number })?;
                if state.destroyed_at.is_some() {
                    return Err(VersionError::Destroyed { number });
                }
                if work(state) {
                    effect.changed.push(number);
                }
            }
            Ok(())
        })
    }

    fn create(&mut self, now: Timestamp, effect: &mut Effect) -> Result<u32, VersionError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(VersionError::NumbersUsedUp)?;
        let state = VersionState { created_at: now, deleted_at: None, destroyed_at: None };
        self.versions.insert(number, state);
        effect.created = Some(number);
        Ok(number)
    }

    fn make_current(&mut self, number: u32, effect: &mut Effect) {
        if let Some(before) = self.labels.get(Label::CURRENT.as_str()).copied() {
            self.point(Label::PREVIOUS, Some(before), effect);
        } else if self.labels.get(Label::PREVIOUS.as_str()) == Some(&number) {
            self.point(Label::PREVIOUS, None, effect);
        }
        self.point(Label::CURRENT, Some(number), effect);
    }

    fn point(&mut self, label: Label, to: Option<u32>, effect: &mut Effect) {
        let from = match to {
            Some(number) => self.labels.insert(label.clone(), number),
            None => self.labels.remove(&label),
        };
        if from != to {
            effect.moved.push(LabelMove { label, from, to });
        }
    }

    fn check_live(&self, number: u32) -> Result<(), VersionError> {
        let state = self.versions.get(&number).ok_or(VersionError::NoSuchVersion { number })?;
        if state.destroyed_at.is_some() {
            return Err(VersionError::Destroyed { number });
        }
        if state.deleted_at.is_some() {
            return Err(VersionError::Deleted { number });
        }
        Ok(())
    }
}

/// What an operation did; the store writes exactly this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effect {
    /// The number of the new version.
    pub created: Option<u32>,
    /// Labels that moved, in order.
    pub moved: Vec<LabelMove>,
    /// Versions whose state changed.
    pub changed: Vec<u32>,
    /// Versions that are gone.
    pub removed: Vec<u32>,
}

/// A label that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMove {
    /// Which.
    pub label: Label,
    /// Where it pointed before.
    pub from: Option<u32>,
    /// Where it points now.
    pub to: Option<u32>,
}

/// Why an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// No version of that number.
    #[error("there is no version {number}")]
    NoSuchVersion {
        /// The number.
        number: u32,
    },
    /// The version is deleted.
    #[error("version {number} is deleted; undelete it first")]
    Deleted {
        /// The number.
        number: u32,
    },
    /// The version is destroyed.
    #[error("version {number} is destroyed")]
    Destroyed {
        /// The number.
        number: u32,
    },
    /// The version is current already.
    #[error("version {number} is current already")]
    AlreadyCurrent {
        /// The number.
        number: u32,
    },
    /// The version waits to be promoted.
    #[error("version {number} is pending; promote it")]
    IsPending {
        /// The number.
        number: u32,
    },
    /// No version is pending.
    #[error("no version is pending")]
    NothingPending,
    /// Somebody else has written meanwhile.
    #[error("expected version {expected}, but the newest is {head}; read again and retry")]
    Conflict {
        /// What the caller expected.
        expected: u32,
        /// What is there.
        head: u32,
    },
    /// No label of that name.
    #[error("there is no label `{label}`")]
    NoSuchLabel {
        /// The label.
        label: Label,
    },
    /// `current` can be moved, not removed.
    #[error("label `current` cannot be removed; point it at another version or delete the version")]
    CurrentIsNeeded,
    /// More labels than allowed.
    #[error("a secret has at most {MAX_LABELS} labels; remove one first")]
    TooManyLabels,
    /// No number is left.
    #[error("version numbers are used up")]
    NumbersUsedUp,
    /// What was kept cannot be.
    #[error("stored versions or labels contradict each other")]
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn with(count: u32) -> VersionSet {
        let mut set = VersionSet::new();
        for second in 0..count {
            set.put(at(second.into())).unwrap();
        }
        set
    }

    fn label(set: &VersionSet, label: &str) -> Option<u32> {
        set.labels().get(label).copied()
    }

    #[test]
    fn put_moves_current_and_previous() {
        let set = with(3);
        assert_eq!((set.current(), label(&set, "previous"), set.head()), (Some(3), Some(2), 3));
    }

    #[test]
    fn rotation_is_put_pending_then_promote() {
        let mut set = with(1);
        let effect = set.put_pending(at(5)).unwrap();
        assert_eq!(effect.created, Some(2));
        assert_eq!((set.current(), label(&set, "pending")), (Some(1), Some(2)));
        set.promote().unwrap();
        assert_eq!(
            (set.current(), label(&set, "previous"), label(&set, "pending")),
            (Some(2), Some(1), None)
        );
        assert_eq!(set.promote(), Err(VersionError::NothingPending));
    }

    #[test]
    fn rollback_points_current_at_an_older_version() {
        let mut set = with(3);
        set.rollback_to(1).unwrap();
        assert_eq!((set.current(), label(&set, "previous")), (Some(1), Some(3)));
        assert_eq!(set.rollback_to(1), Err(VersionError::AlreadyCurrent { number: 1 }));
        assert_eq!(set.rollback_to(9), Err(VersionError::NoSuchVersion { number: 9 }));
        set.delete(&[2], at(9)).unwrap();
        assert_eq!(set.rollback_to(2), Err(VersionError::Deleted { number: 2 }));
        set.destroy(&[2], at(9)).unwrap();
        assert_eq!(set.rollback_to(2), Err(VersionError::Destroyed { number: 2 }));
        set.put_pending(at(9)).unwrap();
        assert_eq!(set.rollback_to(4), Err(VersionError::IsPending { number: 4 }));
    }

    #[test]
    fn deleted_comes_back_destroyed_does_not() {
        let mut set = with(2);
        set.delete(&[2], at(9)).unwrap();
        assert_eq!((set.current(), set.head()), (None, 2));
        set.undelete(&[2]).unwrap();
        assert_eq!(set.current(), Some(2));
        set.destroy(&[2], at(10)).unwrap();
        assert_eq!((set.current(), label(&set, "previous"), set.head()), (None, Some(1), 2));
        assert_eq!(set.undelete(&[2]), Err(VersionError::Destroyed { number: 2 }));
        assert_eq!(set.delete(&[1, 2], at(11)), Err(VersionError::Destroyed { number: 2 }));
        assert!(set.get(1).unwrap().is_live(), "a refused operation changes nothing");
    }

    #[test]
    fn check_and_set_names_the_head() {
        let check =
            |set: &VersionSet, expected, good: bool| assert_eq!(set.check_and_set(expected).is_ok(), good);
        check(&with(0), None, true);
        check(&with(0), Some(0), true);
        check(&with(0), Some(1), false);
        check(&with(2), Some(2), true);
        check(&with(2), Some(1), false);
        check(&with(2), None, false);
    }

    #[test]
    fn labels_are_bounded_and_current_stays() {
        let mut set = with(1);
        assert_eq!(set.remove_label(&Label::CURRENT), Err(VersionError::CurrentIsNeeded));
        assert!(set.remove_label(&Label::PENDING).is_err());
        for i in 1..MAX_LABELS {
            set.set_label(format!("free{i}").parse().unwrap(), 1).unwrap();
        }
        assert_eq!(set.set_label("one-more".parse().unwrap(), 1), Err(VersionError::TooManyLabels));
        set.remove_label(&"free1".parse().unwrap()).unwrap();
        set.set_label("one-more".parse().unwrap(), 1).unwrap();
    }

    #[test]
    fn prune_keeps_what_is_labelled() {
        let mut set = with(6);
        set.set_label("golden".parse().unwrap(), 1).unwrap();
        assert_eq!(set.prune(3).removed, [2, 3, 4]);
        assert_eq!(set.prune(1).removed, [] as [u32; 0]);
        assert_eq!(set.put(at(9)).unwrap().created, Some(7));
    }

    #[test]
    fn stored_contradictions_are_refused() {
        let good = with(2);
        let rebuild = |labels: &[(Label, u32)], next| {
            VersionSet::from_parts(good.versions().clone(), labels.iter().cloned().collect(), next)
        };
        assert!(rebuild(&[(Label::CURRENT, 2)], 3).is_ok());
        assert!(rebuild(&[(Label::CURRENT, 3)], 4).is_err());
        assert!(rebuild(&[], 2).is_err());
        assert!(rebuild(&[], 0).is_err());
        let full = VersionSet::from_parts(BTreeMap::new(), BTreeMap::new(), u32::MAX);
        assert_eq!(full.unwrap().put(at(0)), Err(VersionError::NumbersUsedUp));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put,
        PutPending,
        Promote,
        Rollback(u32),
        Delete(Vec<u32>),
        Undelete(Vec<u32>),
        Destroy(Vec<u32>),
        SetLabel(Label, u32),
        RemoveLabel(Label),
        Prune(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let labels = ["current", "pending", "previous", "gold"].map(|text| text.parse::<Label>().unwrap());
        let label = prop::sample::select(labels.to_vec());
        let numbers = || prop::collection::vec(0u32..12, 0..3);
        prop_oneof![
            3 => Just(Step::Put),
            2 => Just(Step::PutPending),
            2 => Just(Step::Promote),
            2 => (0u32..12).prop_map(Step::Rollback),
            1 => numbers().prop_map(Step::Delete),
            1 => numbers().prop_map(Step::Undelete),
            1 => numbers().prop_map(Step::Destroy),
            1 => (label.clone(), 0u32..12).prop_map(|(label, number)| Step::SetLabel(label, number)),
            1 => label.prop_map(Step::RemoveLabel),
            1 => (0usize..6).prop_map(Step::Prune),
        ]
    }

    fn apply(set: &mut VersionSet, step: &Step, now: Timestamp) -> Result<Effect, VersionError> {
        match step {
            Step::Put => set.put(now),
            Step::PutPending => set.put_pending(now),
            Step::Promote => set.promote(),
            Step::Rollback(number) => set.rollback_to(*number),
            Step::Delete(numbers) => set.delete(numbers, now),
            Step::Undelete(numbers) => set.undelete(numbers),
            Step::Destroy(numbers) => set.destroy(numbers, now),
            Step::SetLabel(label, number) => set.set_label(label.clone(), *number),
            Step::RemoveLabel(label) => set.remove_label(label),
            Step::Prune(keep) => Ok(set.prune(*keep)),
        }
    }

    /// Applies an effect to labels as a store would.
    fn replay(labels: &mut BTreeMap<Label, u32>, effect: &Effect) {
        for moved in &effect.moved {
            let before = match moved.to {
                Some(to) => labels.insert(moved.label.clone(), to),
                None => labels.remove(&moved.label),
            };
            assert_eq!(before, moved.from);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn invariants_hold_after_any_steps(steps in prop::collection::vec(any_step(), 0..30)) {
            let mut set = VersionSet::new();
            let mut given_out = BTreeSet::new();
            let mut destroyed = BTreeSet::new();
            let mut labels = BTreeMap::new();
            for (second, step) in steps.iter().enumerate() {
                let before = set.clone();
                match apply(&mut set, step, at(second as i64)) {
                    Err(_) => prop_assert_eq!(&set, &before),
                    Ok(effect) => {
                        replay(&mut labels, &effect);
                        if let Some(number) = effect.created {
                            prop_assert!(given_out.insert(number), "{} was used twice", number);
                        }
                        for number in &effect.removed {
                            prop_assert!(!before.labels().values().any(|at| at == number));
                        }
                    }
                }
                prop_assert_eq!(&labels, set.labels());
                destroyed.extend(set.versions().iter().filter(|(_, s)| s.destroyed_at.is_some()).map(|(n, _)| *n));
                for number in &destroyed {
                    prop_assert!(set.get(*number).is_none_or(|state| state.destroyed_at.is_some()));
                    prop_assert!(!set.labels().values().any(|at| at == number));
                }
                if let Some(current) = set.current() {
                    prop_assert!(set.get(current).unwrap().is_live());
                }
                let again = VersionSet::from_parts(set.versions().clone(), set.labels().clone(), set.next_number());
                prop_assert_eq!(&again.unwrap(), &set);
            }
        }
    }
}
