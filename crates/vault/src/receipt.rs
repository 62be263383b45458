//! The order that everything rests on: permit → receipt → plaintext.
//!
//! A [`Permit`] says that the rules allow it. A [`Receipt`] says that this is written down durably. Only a receipt
//! opens a value, only the version that it was made for, and only once. Both are made in the few places that
//! `cargo xtask tidy` lists.

use jiff::Timestamp;
use keymoat_core::audit::DecidedBy;
use keymoat_core::id::{GrantId, PrincipalId, SecretId};
use keymoat_core::names::SystemPart;
use keymoat_core::policy::{Capability, Resource};

use crate::Caller;

/// The rules allowed this caller this capability on this resource.
#[derive(Debug)]
pub struct Permit {
    pub(crate) caller: Caller,
    pub(crate) capability: Capability,
    pub(crate) resource: Resource,
    pub(crate) decided_by: DecidedBy,
    pub(crate) pass: Pass,
}

/// What a permit has to show when its use is written down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    /// The rules were those of this epoch.
    pub(crate) epoch: u64,
    /// A grant that counts its uses decided.
    pub(crate) spends: Option<GrantId>,
    /// When it was decided.
    pub(crate) now: Timestamp,
}

/// The record of a read is on the disk. Neither `Clone` nor `Copy`: it is spent by opening the value.
#[derive(Debug)]
#[must_use = "a receipt that opens nothing is a record of something that did not happen"]
pub struct Receipt {
    secret: SecretId,
    version: u32,
    reader: Reader,
    event: Option<u64>,
}

/// For whom a value is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reader {
    Principal(PrincipalId),
    /// Keymoat itself, for its own work, by the named part.
    System(SystemPart),
}

impl Receipt {
    /// The record of this permit's use is event `event`.
    pub(crate) fn for_permit(permit: &Permit, secret: SecretId, version: u32, event: u64) -> Self {
        Self { secret, version, reader: Reader::Principal(permit.caller.principal), event: Some(event) }
    }

    /// Keymoat's own work opens the value in the transaction that records that work, so that neither stands alone;
    /// the record has its number only afterwards.
    pub(crate) fn for_system(part: SystemPart, secret: SecretId, version: u32) -> Self {
        Self { secret, version, reader: Reader::System(part), event: None }
    }

    /// Spends the receipt; `false` when it was made for something else.
    #[must_use]
    pub(crate) fn spend(self, secret: SecretId, version: u32, reader: &Reader) -> bool {
        let recorded = self.event.is_some() || matches!(self.reader, Reader::System(_));
        recorded && self.secret == secret && self.version == version && self.reader == *reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_opens_what_it_was_made_for_and_nothing_else() {
        let secret = |n: u8| SecretId::from_parts(1, &[n; 10]);
        let principal = |n: u8| Reader::Principal(PrincipalId::from_parts(1, &[n; 10]));
        let system = |part: &str| Reader::System(part.parse().unwrap());
        let receipt = |reader: Reader, event| Receipt { secret: secret(1), version: 3, reader, event };
        let check = |receipt: Receipt, secret, version, reader: &Reader, opens: bool| {
            assert_eq!(receipt.spend(secret, version, reader), opens, "{secret} {version} {reader:?}");
        };
        let mine = || receipt(principal(1), Some(7));
        check(mine(), secret(1), 3, &principal(1), true);
        check(mine(), secret(2), 3, &principal(1), false);
        check(mine(), secret(1), 4, &principal(1), false);
        check(mine(), secret(1), 3, &principal(2), false);
        check(mine(), secret(1), 3, &system("merge"), false);
        check(receipt(principal(1), None), secret(1), 3, &principal(1), false);
        check(receipt(system("merge"), None), secret(1), 3, &system("merge"), true);
        check(receipt(system("merge"), None), secret(1), 3, &system("rekey"), false);
        check(receipt(system("merge"), None), secret(1), 3, &principal(1), false);
    }
}
