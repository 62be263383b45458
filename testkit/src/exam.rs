//! What must be true of a vault after a crash.
//!
//! It opens the vault as a start does, compares what is there with what was acknowledged, and goes on working with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use keymoat_core::id::RequestId;
use keymoat_vault::{AuditQuery, Code, SealedVault, Vault, VaultError};

use crate::deeds::{Deed, UNTOUCHED, WRITERS, put, reveal, signs_in, value_of};
use crate::place::Place;

/// What was found wrong, a sentence each; everything empty means that nothing was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the vault was not opened.
    pub refused: Vec<String>,
    /// Acknowledged writes that are gone.
    pub lost: Vec<String>,
    /// Acknowledged deeds without their record.
    pub unrecorded: Vec<String>,
    /// Values that were given out and are not what was written.
    pub wrong: Vec<String>,
    /// What the verification of everything names.
    pub unverified: Vec<String>,
    /// What could not be done with the vault afterwards.
    pub stuck: Vec<String>,
}

impl Findings {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Every sentence with what it is about.
    pub fn sentences(&self) -> impl Iterator<Item = String> {
        let all = [
            ("not opened", &self.refused),
            ("lost", &self.lost),
            ("without a record", &self.unrecorded),
            ("wrong value", &self.wrong),
            ("does not verify", &self.unverified),
            ("does not work", &self.stuck),
        ];
        all.into_iter().flat_map(|(kind, found)| found.iter().map(move |text| format!("{kind}: {text}")))
    }
}

/// Looks at a vault of which these deeds were acknowledged.
pub async fn examine(place: &Place, acknowledged: &[Deed]) -> Findings {
    let mut findings = Findings::default();
    let sealed = match SealedVault::open(&place.data(), place.durability) {
        Ok(Ok(sealed)) => sealed,
        Ok(Err(empty)) => {
            drop(empty);
            return after_nothing(place, acknowledged, findings).await;
        }
        Err(error) => {
            findings.refused.push(said(&error));
            return findings;
        }
    };
    match sealed.verify(&place.offer(), place.outside_dir(), |_| {}) {
        Ok(report) => findings.unverified.extend(report.problems.iter().map(ToString::to_string)),
        Err(error) => findings.unverified.push(said(&error)),
    }
    let vault = match sealed.unseal(&place.offer(), place.surroundings()) {
        Ok(vault) => vault,
        Err(error) => {
            findings.refused.push(said(&error));
            return findings;
        }
    };
    compare(&vault, acknowledged, &mut findings).await;
    vault.close().await;
    findings
}

/// Looks at a vault whose files may have been edited: whether that is named, and whether any value is another one.
pub(crate) async fn examine_values(place: &Place) -> Findings {
    let mut findings = Findings::default();
    let sealed = match SealedVault::open(&place.data(), place.durability) {
        Ok(Ok(sealed)) => sealed,
        Ok(Err(_)) => {
            findings.refused.push("the vault that was here is gone".to_owned());
            return findings;
        }
        Err(error) => {
            findings.refused.push(said(&error));
            return findings;
        }
    };
    match sealed.verify(&place.offer(), place.outside_dir(), |_| {}) {
        Ok(report) => findings.unverified.extend(report.problems.iter().map(ToString::to_string)),
        Err(error) => findings.unverified.push(said(&error)),
    }
    match sealed.unseal(&place.offer(), place.surroundings()) {
        Ok(vault) => {
            for secret in 0..WRITERS * 2 {
                compare_secret(&vault, secret, 0, &mut findings).await;
            }
            vault.close().await;
        }
        Err(error) => findings.refused.push(said(&error)),
    }
    findings
}

/// Where nothing was acknowledged yet, the next start makes the vault.
async fn after_nothing(place: &Place, acknowledged: &[Deed], mut findings: Findings) -> Findings {
    // A program that makes vaults remembers where it has made one, and makes no other in its place.
    if !acknowledged.is_empty() {
        findings.refused.push("the vault that was here is gone".to_owned());
        return findings;
    }
    match place.open_or_make().await {
        Ok(vault) => vault.close().await,
        Err(error) => findings.stuck.push(format!("a vault cannot be made: {}", said(&error))),
    }
    findings
}

async fn compare(vault: &Vault, acknowledged: &[Deed], findings: &mut Findings) {
    let mut newest = BTreeMap::<u32, u32>::new();
    let mut requests = BTreeSet::new();
    for deed in acknowledged {
        match deed {
            Deed::Put(secret, version, request) => {
                let known = newest.entry(*secret).or_default();
                *known = (*known).max(*version);
                requests.insert(*request);
            }
            Deed::Revealed(request) => drop(requests.insert(*request)),
            Deed::Destroyed(secret, version) => {
                if reveal(vault, *secret, Some(*version)).await.is_ok() {
                    findings.lost.push(format!("the destruction of version {version} of secret {secret}"));
                }
            }
            Deed::Issued(token) => {
                if !signs_in(vault, token).await {
                    findings.lost.push("a token".to_owned());
                }
            }
            Deed::Revoked(token) => {
                if signs_in(vault, token).await {
                    findings.lost.push("the revocation of a token".to_owned());
                }
            }
            // They are beside the vault: `kill` looks at them.
            Deed::BackedUp(_) | Deed::Restored(_) => {}
        }
    }
    for secret in 0..WRITERS * 2 {
        compare_secret(vault, secret, newest.get(&secret).copied().unwrap_or(0), findings).await;
    }
    match recorded(vault).await {
        Ok(recorded) => findings
            .unrecorded
            .extend(requests.difference(&recorded).map(|request| format!("request {request}"))),
        Err(error) => findings.stuck.push(format!("the log cannot be read: {}", said(&error))),
    }
    if let Err(error) = go_on(vault).await {
        findings.stuck.push(said(&error));
    }
}

/// Every version that is there has its own value, and the acknowledged ones are there.
async fn compare_secret(vault: &Vault, secret: u32, acknowledged: u32, findings: &mut Findings) {
    let current = match reveal(vault, secret, None).await {
        Ok((_, revealed)) => revealed.version,
        Err(error) if error.code == Code::NotFound => 0,
        Err(error) => return findings.stuck.push(format!("secret {secret}: {}", said(&error))),
    };
    if current < acknowledged {
        findings
            .lost
            .push(format!("version {acknowledged} of secret {secret}, of which {current} is current"));
    }
    let oldest = (current + 1).saturating_sub(UNTOUCHED).max(1);
    for version in oldest..=current {
        match reveal(vault, secret, Some(version)).await {
            Ok((_, revealed)) => {
                let expected = value_of(secret, version);
                // EXPOSE: a made-up value, compared with what was written.
                if revealed.value.expose(|value| value.as_slice() != expected.as_bytes()) {
                    findings.wrong.push(format!("version {version} of secret {secret}"));
                }
            }
            Err(error) => {
                findings.lost.push(format!("version {version} of secret {secret}: {}", said(&error)));
            }
        }
    }
}

/// The requests that the log knows.
async fn recorded(vault: &Vault) -> Result<BTreeSet<RequestId>, VaultError> {
    let me = Place::owner(vault).await?;
    let (mut found, mut from) = (BTreeSet::new(), 0);
    loop {
        let query = AuditQuery { from, oldest_first: true, limit: PAGE, ..AuditQuery::default() };
        let page = vault.query_audit(&me, query).await?;
        found.extend(page.iter().map(|record| record.event.request));
        match page.last() {
            Some(last) if page.len() == PAGE => from = last.event.seq + 1,
            _ => return Ok(found),
        }
    }
}

/// What was begun is finished, and the vault takes a write.
async fn go_on(vault: &Vault) -> Result<(), VaultError> {
    let rotations = vault.resume_rekeying(|_| ControlFlow::Continue(())).await?;
    if rotations.iter().any(|rotation| rotation.rows_under_old_keys > 0) {
        return Err(VaultError::new(Code::Internal, "a change of keys does not come to its end"));
    }
    vault.tend_keys().await?;
    let me = Place::owner(vault).await?;
    let secret = WRITERS * 2;
    let current = match reveal(vault, secret, None).await {
        Ok((_, revealed)) => revealed.version,
        Err(error) if error.code == Code::NotFound => 0,
        Err(error) => return Err(error),
    };
    put(vault, &me, secret, current + 1).await.map(|_| ())
}

fn said(error: &VaultError) -> String {
    error.to_string()
}

/// Records read at once.
const PAGE: usize = 1000;
