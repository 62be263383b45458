//! Who stands behind an account: who made it, last changed its rights, or made something that signs it in.
//!
//! It says whose hand was in what, so that nobody approves his own wish through an account that he controls. It does
//! not decide what anybody may do.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use keymoat_core::id::PrincipalId;
use keymoat_core::names::AccountName;

use crate::entity::Account;
use crate::state::State;
use crate::{Caller, Vault};

/// Who stands directly behind each account, at one moment.
pub(crate) struct Lineage {
    makers: HashMap<PrincipalId, BTreeSet<Maker>>,
}

/// One who made or changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Maker {
    Known(PrincipalId),
    /// An account that is no more, so nobody can say who stood behind it.
    Gone,
}

impl Lineage {
    /// Reads who stands behind whom from accounts, and from the tokens and sign-in codes that are still good.
    pub(crate) fn new(state: &State, now: Timestamp) -> Self {
        let mut lineage = Self { makers: HashMap::new() };
        for account in state.accounts.values() {
            lineage.add(account.id, makers(state, &account.created_by_ids, &account.created_by));
            lineage.add(account.id, known(state, &account.rights_by_ids));
        }
        let good = |ended: bool, uses: Option<u32>| !ended && uses != Some(0);
        for token in state.tokens.values().filter(|token| good(token.has_ended(now), token.uses_left)) {
            lineage.add(token.principal, makers(state, &token.created_by_ids, &token.created_by));
        }
        for code in state.sign_in_codes.values().filter(|code| !code.has_ended(now)) {
            lineage.add(code.principal, known(state, &code.created_by_ids));
        }
        lineage
    }

    /// These and everybody who stands behind them, through any number of others; those who are trusted are left out,
    /// with whoever is behind them. `None` when it leads to an account that is no more.
    pub(crate) fn behind(
        &self,
        these: BTreeSet<PrincipalId>,
        is_trusted: impl Fn(PrincipalId) -> bool,
    ) -> Option<BTreeSet<PrincipalId>> {
        let mut found = BTreeSet::new();
        let mut left: Vec<PrincipalId> = these.into_iter().collect();
        while let Some(id) = left.pop() {
            if found.contains(&id) || is_trusted(id) {
                continue;
            }
            found.insert(id);
            for maker in self.makers.get(&id)? {
                match maker {
                    Maker::Known(id) => left.push(*id),
                    Maker::Gone => return None,
                }
            }
        }
        Some(found)
    }

    fn add(&mut self, principal: PrincipalId, makers: BTreeSet<Maker>) {
        self.makers.entry(principal).or_default().extend(makers);
    }
}

impl Vault {
    /// Whose hands are in what a caller does: his own, and theirs who made what he is signed in with.
    pub(crate) fn hands(&self, caller: &Caller) -> BTreeSet<PrincipalId> {
        let mut hands = BTreeSet::from([caller.principal]);
        self.state(|state| {
            if let Some(token) = caller.token.and_then(|id| state.tokens.get(&id)) {
                hands.extend(&token.created_by_ids);
            }
        });
        hands
    }
}

fn known(state: &State, ids: &BTreeSet<PrincipalId>) -> BTreeSet<Maker> {
    ids.iter().map(|id| state.account(*id).map_or(Maker::Gone, |account| Maker::Known(account.id))).collect()
}

/// The makers by their ids; of a row that was written before ids were kept, by the name.
fn makers(state: &State, ids: &BTreeSet<PrincipalId>, name: &str) -> BTreeSet<Maker> {
    if !ids.is_empty() {
        return known(state, ids);
    }
    if name == MADE_WITH_VAULT {
        return BTreeSet::new();
    }
    let account: Option<&Account> =
        name.parse::<AccountName>().ok().and_then(|name| state.accounts.get(&name)).map(AsRef::as_ref);
    [account.map_or(Maker::Gone, |account| Maker::Known(account.id))].into()
}

/// The maker of the accounts that a vault begins with: nobody.
pub(crate) const MADE_WITH_VAULT: &str = "keymoat";
