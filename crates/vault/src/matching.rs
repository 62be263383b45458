//! Which pieces of a text are stored values: asked with the capability `match`, answered by fingerprint, without a value
//! leaving. Most pieces need not be asked for, since a sieve says that they are none.
//!
//! Nothing is told of a secret that the caller may not match, and its name only to who may inspect it.

use std::ops::Bound;
use std::sync::Arc;

use keymoat_core::audit::{Action, AuditText, DecidedBy, ReasonCode};
use keymoat_core::id::SecretId;
use keymoat_core::names::{Environment, Field, SystemPart};
use keymoat_core::policy::Capability;
use keymoat_crypto::SecretBytes;
use keymoat_detect::Sieve;
use keymoat_store::Kind;

use crate::desk::{About, Deed, Rights, open_with, secret_resource};
use crate::entity::{Entity as _, FingerprintEntity, Secret, SecretName, version_key};
use crate::following::COVERS_TEXT;
use crate::receipt::Reader;
use crate::value::WholeValue;
use crate::{Caller, Code, Vault, VaultError};

/// What tells most texts that they are no stored values.
#[derive(Debug, Clone)]
pub struct Sifted {
    /// The number of the newest change; the sieve stands as long as there is none.
    pub change: u64,
    /// The sieve with the number of values in it; none when there was no change since the caller's.
    pub sieve: Option<(Sieve, usize)>,
}

/// A text that is a stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Which of the texts.
    pub candidate: usize,
    /// Where it is stored, for who may inspect that.
    pub at: Option<(SecretName, Option<Field>)>,
}

impl Vault {
    /// Makes a sieve of all values that the caller may match, versions that are not current included. With the number of
    /// a change, only when there was another one since.
    ///
    /// # Errors
    /// [`Code::Refused`] when he may match nothing there, and those of the store.
    pub async fn sieve(
        &self,
        caller: &Caller,
        environment: Option<&Environment>,
        unless: Option<u64>,
    ) -> Result<Sifted, VaultError> {
        let (secrets, change) = self
            .retry_stale(|| async {
                let matcher = self.matcher(caller, environment).await?;
                let change = self.counts().change;
                if unless == Some(change) {
                    self.record_looking(caller, environment, &matcher).await?;
                    return Ok((None, change));
                }
                let secrets = self.secrets_to_match(caller, environment, &matcher.rights);
                let versions: usize = secrets.iter().map(|(_, versions)| versions.len()).sum();
                let deed = Deed::done(Action::Match, about(environment))
                    .detail("versions_in_sieve", AuditText::new(&versions.to_string()));
                let draft = self.draft(caller, deed, Some(matcher.decided_by.clone()));
                self.store().append(draft, Some(matcher.epoch)).await?;
                Ok((Some(secrets), change))
            })
            .await?;
        let sieve = match secrets {
            Some(secrets) => Some(self.sieve_of(secrets).await?),
            None => None,
        };
        Ok(Sifted { change, sieve })
    }

    /// Says which of some texts are stored values. Each secret that one is found of is on record, once a minute.
    ///
    /// # Errors
    /// [`Code::Refused`] when the caller may match nothing there, [`Code::TooLarge`], and those of the store.
    pub async fn matching(
        &self,
        caller: &Caller,
        environment: Option<&Environment>,
        candidates: &[SecretBytes],
    ) -> Result<Vec<Match>, VaultError> {
        if candidates.len() > CANDIDATES_MAX {
            return Err(VaultError::new(Code::TooLarge, format!("more than {CANDIDATES_MAX} texts at once"))
                .hint("ask for them in several requests"));
        }
        let prefixes: Vec<String> = candidates
            .iter()
            .map(|candidate| {
                let fingerprint = self.keyring().fingerprint(candidate);
                environment.map_or(format!("{fingerprint}/"), |name| format!("{fingerprint}/{name}/"))
            })
            .collect();
        self.retry_stale(|| async {
            let matcher = self.matcher(caller, environment).await?;
            let asked = prefixes.clone();
            let places = self.store().read(move |reader| {
                asked
                    .iter()
                    .map(|prefix| reader.rows_with_prefix(Kind::Fingerprint, prefix, PLACES_MAX))
                    .collect::<Result<Vec<_>, _>>()
            });
            let may_show = self.inspector(caller);
            let (mut matches, mut secrets) = (Vec::new(), Vec::new());
            for (candidate, rows) in places.await?.iter().enumerate() {
                let places = rows.iter().map(FingerprintEntity::parse).collect::<Result<Vec<_>, _>>()?;
                let mut own =
                    places.into_iter().filter(|place| self.may_match(caller, &matcher.rights, &place.name));
                let Some(place) = own.next() else { continue };
                secrets.push((place.name.clone(), place.version));
                let at = may_show(&place.name).then_some((place.name, place.field));
                matches.push(Match { candidate, at });
            }
            match secrets.is_empty() {
                true => self.record_looking(caller, environment, &matcher).await?,
                false => self.record_found(caller, &matcher, secrets).await?,
            }
            Ok(matches)
        })
        .await
    }

    /// The caller's rights, when they allow to match anything there.
    async fn matcher(
        &self,
        caller: &Caller,
        environment: Option<&Environment>,
    ) -> Result<Matcher, VaultError> {
        let (rights, epoch) = self.state(|state| (Rights::of_caller(state, caller), state.epoch));
        // What is asked again and again takes no use off a grant, so what counts its uses gives nothing here.
        let rights = rights.uncounted();
        if let Some(decided_by) = rights.matches_in(environment, self.now()) {
            if let Some(environment) = environment {
                self.check_environment(caller, environment)?;
            }
            return Ok(Matcher { rights, epoch, decided_by });
        }
        let deed = Deed::refused(Action::Match, about(environment), ReasonCode::NoRule);
        self.record_refusal(caller, deed, None).await?;
        let place = environment.map_or(String::new(), |environment| format!(" in `{environment}`"));
        Err(VaultError::new(Code::Refused, format!("`{}` may not match anything{place}", caller.name))
            .hint("ask an administrator for a policy that allows `match`"))
    }

    fn may_match(&self, caller: &Caller, rights: &Rights, name: &SecretName) -> bool {
        let resource = secret_resource(name, None);
        rights.decide(&self.request(caller, Capability::Match, &resource)).is_allowed()
    }

    /// The versions with a fingerprint, of secrets that the caller may match. The names are gone through a part at a
    /// time, so that nobody who changes something waits.
    fn secrets_to_match(
        &self,
        caller: &Caller,
        environment: Option<&Environment>,
        rights: &Rights,
    ) -> Vec<(Arc<Secret>, Vec<u32>)> {
        let mut secrets = Vec::new();
        let mut at: Bound<SecretName> = Bound::Unbounded;
        loop {
            let part: Vec<Arc<Secret>> = self.state(|state| {
                let names = state.secrets.range((at.clone(), Bound::Unbounded));
                names.take(SECRETS_AT_ONCE).map(|(_, secret)| Arc::clone(secret)).collect()
            });
            let Some(last) = part.last() else { return secrets };
            at = Bound::Excluded(last.name.clone());
            for secret in part {
                let is_there = environment.is_none_or(|name| *name == secret.name.environment);
                let versions = fingerprinted(&secret);
                if is_there && !versions.is_empty() && self.may_match(caller, rights, &secret.name) {
                    secrets.push((secret, versions));
                }
            }
        }
    }

    /// Opens the versions one after the other and puts their values into a sieve.
    async fn sieve_of(&self, secrets: Vec<(Arc<Secret>, Vec<u32>)>) -> Result<(Sieve, usize), VaultError> {
        let fields = |(secret, versions): &(Arc<Secret>, Vec<u32>)| -> usize {
            versions.iter().map(|version| marked(secret, *version).count()).sum()
        };
        let values = secrets.iter().map(fields).sum();
        let mut sieve = Sieve::new(keymoat_crypto::bytes(), values);
        for (secret, versions) in secrets {
            for version in versions {
                // Destroyed since: then it is no value any more.
                if let Some(value) = self.value_to_sift(&secret, version).await? {
                    for (field, value) in value.fields()? {
                        if marked(&secret, version).any(|known| *known == field) {
                            // EXPOSE: three bits of a keyed hash of it go into the sieve.
                            value.expose(|value| sieve.add(value));
                        }
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        Ok((sieve, values))
    }

    async fn value_to_sift(&self, secret: &Secret, version: u32) -> Result<Option<WholeValue>, VaultError> {
        let kept = self.state(|state| state.ciphertext(secret.id, version));
        // What is kept may be under a data key that was replaced and removed meanwhile.
        let kept = kept.filter(|bytes| {
            keymoat_crypto::data_key_of(bytes).is_ok_and(|key| self.keyring().data_key(key).is_some())
        });
        let ciphertext = match kept {
            Some(ciphertext) => ciphertext,
            None => match self.stored_ciphertext(secret.id, version).await? {
                Some(ciphertext) => ciphertext,
                None => return Ok(None),
            },
        };
        let part: SystemPart = "match".parse()?;
        let receipt = Self::system_receipt(part.clone(), secret, version);
        let value = open_with(self.keyring(), receipt, &Reader::System(part), secret, version, &ciphertext)?;
        let kind =
            secret.facts.get(&version).map_or(keymoat_core::secret::ValueKind::Bytes, |facts| facts.kind);
        Ok(Some(WholeValue { kind, value }))
    }

    async fn stored_ciphertext(
        &self,
        secret: SecretId,
        version: u32,
    ) -> Result<Option<Arc<[u8]>>, VaultError> {
        let row = self.store().read(move |reader| reader.row(Kind::Version, &version_key(secret, version)));
        Ok(row.await?.and_then(|row| row.blob).map(Into::into))
    }

    /// Writes down that somebody asks about texts: once a minute, not with every line of a log.
    async fn record_looking(
        &self,
        caller: &Caller,
        environment: Option<&Environment>,
        matcher: &Matcher,
    ) -> Result<(), VaultError> {
        let (follower, now) =
            (format!("match {:?} {:?} {environment:?}", caller.principal, caller.token), self.now());
        if self.following().is_covered(&follower, 0, now) {
            return Ok(());
        }
        let deed =
            Deed::done(Action::Match, about(environment)).detail("covers", AuditText::new(COVERS_TEXT));
        let draft = self.draft(caller, deed, Some(matcher.decided_by.clone()));
        self.store().append(draft, Some(matcher.epoch)).await?;
        self.following().cover(follower, 0, now);
        Ok(())
    }

    /// Writes down of which secrets values were found: each once a minute.
    async fn record_found(
        &self,
        caller: &Caller,
        matcher: &Matcher,
        mut secrets: Vec<(SecretName, u32)>,
    ) -> Result<(), VaultError> {
        secrets.sort();
        secrets.dedup();
        for (name, version) in secrets {
            let (follower, now) =
                (format!("matched {:?} {:?} {name} {version}", caller.principal, caller.token), self.now());
            if self.following().is_covered(&follower, 0, now) {
                continue;
            }
            let deed = Deed::done(Action::Match, &secret_resource(&name, None))
                .version(version)
                .detail("found", AuditText::new("yes"))
                .detail("covers", AuditText::new(COVERS_TEXT));
            let draft = self.draft(caller, deed, Some(matcher.decided_by.clone()));
            self.store().append(draft, Some(matcher.epoch)).await?;
            self.following().cover(follower, 0, now);
        }
        Ok(())
    }
}

/// Who may match something, and by which rule.
struct Matcher {
    rights: Rights,
    epoch: u64,
    decided_by: DecidedBy,
}

impl Rights {
    /// The first rule that allows to match something in an environment, or in any.
    fn matches_in(&self, environment: Option<&Environment>, now: jiff::Timestamp) -> Option<DecidedBy> {
        let scope = environment.map(|environment| environment.clone().into());
        self.allowing_rules_with_names(now).find_map(|(by, rule)| {
            let rule = rule.as_written();
            let matches = rule.capabilities.contains(&Capability::Match)
                && scope
                    .as_ref()
                    .is_none_or(|scope| rule.environments.iter().any(|pattern| pattern.matches(scope)));
            matches.then_some(by)
        })
    }
}

/// The versions of which a value has a fingerprint.
fn fingerprinted(secret: &Secret) -> Vec<u32> {
    let versions = secret.facts.iter().map(|(version, _)| *version);
    versions.filter(|version| marked(secret, *version).next().is_some()).collect()
}

/// The fields of a version that have a fingerprint.
fn marked(secret: &Secret, version: u32) -> impl Iterator<Item = &Option<Field>> {
    let fields = secret.facts.get(&version).map(|facts| &*facts.fields).unwrap_or_default();
    fields.iter().filter(|field| field.fingerprint.is_some()).map(|field| &field.field)
}

fn about(environment: Option<&Environment>) -> About {
    About { scope: environment.map(|environment| environment.clone().into()), ..About::default() }
}

/// Texts in one request.
pub const CANDIDATES_MAX: usize = 1000;
/// Places of one value that are looked at: more than anybody keeps.
const PLACES_MAX: usize = 1000;
/// Names looked at while others wait.
const SECRETS_AT_ONCE: usize = 500;
