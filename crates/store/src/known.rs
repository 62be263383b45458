//! The rows that decide who may do what, as this store has seen them: a transaction that reads one of them in another
//! form reads what somebody put there by other means, and must not write it back as its own.

use std::collections::HashMap;

use keymoat_crypto::StateKey;

use crate::db::DbError;
use crate::{Effect, Kind, Row};

/// Keyed hashes of rows, shortened as in records.
#[derive(Default)]
pub(crate) struct Known(HashMap<(Kind, String), [u8; 16]>);

impl Known {
    /// Takes in a row as it was read when the store was opened, and checked.
    pub(crate) fn add(&mut self, row: &Row, key: &StateKey) {
        if is_guarded(row.kind) {
            self.0.insert((row.kind, row.key.clone()), short(row, key));
        }
    }

    /// Takes in what was committed.
    pub(crate) fn take(&mut self, effects: &[Effect], key: &StateKey) {
        for effect in effects {
            match effect {
                Effect::Written(row) | Effect::Counted(row) => self.add(row, key),
                Effect::Removed { kind, key, .. } => drop(self.0.remove(&(*kind, key.clone()))),
            }
        }
    }

    /// Whether rows of this kind are compared.
    pub(crate) fn guards(kind: Kind) -> bool {
        is_guarded(kind)
    }

    /// Compares a row that was read; none when there is none.
    pub(crate) fn check(
        &self,
        kind: Kind,
        name: &str,
        row: Option<&Row>,
        key: &StateKey,
    ) -> Result<(), DbError> {
        if !is_guarded(kind) {
            return Ok(());
        }
        let known = self.0.get(&(kind, name.to_owned()));
        match known.copied() == row.map(|row| short(row, key)) {
            true => Ok(()),
            false => Err(DbError::Edited(format!(
                "the {} `{name}` was changed by other means than Keymoat",
                kind.as_str().replace('_', " ")
            ))),
        }
    }
}

fn short(row: &Row, key: &StateKey) -> [u8; 16] {
    let mac = row.mac(key);
    std::array::from_fn(|n| mac[n])
}

/// Who may do what, and the keys that everything hangs on.
fn is_guarded(kind: Kind) -> bool {
    kind.decides_access()
        || matches!(kind, Kind::SignInCode | Kind::Instance | Kind::Slot | Kind::DataKey | Kind::Pepper)
}
