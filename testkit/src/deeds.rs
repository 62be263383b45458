//! What is done to a vault while somebody pulls the plug: writes, reads, key changes, tokens.
//!
//! What a value must be follows from its secret and version alone, so whoever looks afterwards needs to know only what
//! was acknowledged.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

use jiff::SignedDuration;
use keymoat_core::audit::Action;
use keymoat_core::id::RequestId;
use keymoat_core::secret::ValueKind;
use keymoat_crypto::SecretBytes;
use keymoat_vault::entity::{AccountKind, SecretName};
use keymoat_vault::{
    Annotation, Caller, Code, NewAccount, NewToken, NewValue, Put, Revealed, Vault, VaultError, Wanted,
};
use tokio::task::JoinSet;

use crate::place::{ENVIRONMENT, Place, origin};
use crate::{Dice, Failure};

/// Something that the vault has said is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A version was written, by a request.
    Put(u32, u32, RequestId),
    /// A value was given out, to a request.
    Revealed(RequestId),
    /// A version was destroyed.
    Destroyed(u32, u32),
    /// A token was made.
    Issued(String),
    /// A token was revoked.
    Revoked(String),
    /// A backup was written to a file of this name.
    BackedUp(String),
    /// The backup was restored into a directory of this name.
    Restored(String),
}

/// Who hears of every deed at the moment that it is acknowledged.
pub struct Told(Arc<dyn Fn(Deed) + Send + Sync>);

impl Told {
    /// Has it told to this function.
    pub fn new(hear: impl Fn(Deed) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(crate) fn tell(&self, deed: Deed) {
        (self.0)(deed);
    }
}

impl Clone for Told {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Works on a vault until each writer has done so many deeds.
///
/// # Errors
/// The first of the vault's.
pub async fn work(
    place: &Place,
    vault: &Vault,
    seed: u64,
    deeds_each: u64,
    told: &Told,
) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let worker =
            Worker { vault: vault.clone(), told: told.clone(), dice: Dice::of_case(seed, writer.into()) };
        tasks.spawn(worker.write(writer, deeds_each));
    }
    let worker = Worker { vault: vault.clone(), told: told.clone(), dice: Dice::of_case(seed, 100) };
    let place = place.clone();
    tasks.spawn(async move { worker.change_keys(&place, deeds_each / 8).await });
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

struct Worker {
    vault: Vault,
    told: Told,
    dice: Dice,
}

impl Worker {
    async fn write(mut self, writer: u32, deeds: u64) -> Result<(), Failure> {
        let secrets = [writer * 2, writer * 2 + 1];
        let mut versions = [0; 2];
        for (secret, version) in secrets.iter().zip(&mut versions) {
            *version = self.current(*secret).await?;
        }
        for _ in 0..deeds {
            let which = self.dice.below(2) as usize;
            let (secret, version) = (secrets[which], &mut versions[which]);
            match self.dice.below(10) {
                6..9 if *version > 0 => self.reveal(secret).await?,
                9 if *version > UNTOUCHED => self.destroy(secret, *version - UNTOUCHED).await?,
                _ => {
                    *version += 1;
                    self.put(secret, *version).await?;
                }
            }
        }
        Ok(())
    }

    async fn current(&self, secret: u32) -> Result<u32, Failure> {
        match reveal(&self.vault, secret, None).await {
            Ok((_, revealed)) => Ok(revealed.version),
            Err(error) if error.code == Code::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    async fn put(&self, secret: u32, version: u32) -> Result<(), Failure> {
        let me = Place::owner(&self.vault).await?;
        let written = put(&self.vault, &me, secret, version).await?;
        self.told.tell(Deed::Put(secret, written, me.origin.request));
        Ok(())
    }

    async fn reveal(&self, secret: u32) -> Result<(), Failure> {
        let (request, _) = reveal(&self.vault, secret, None).await?;
        self.told.tell(Deed::Revealed(request));
        Ok(())
    }

    async fn destroy(&self, secret: u32, version: u32) -> Result<(), Failure> {
        let me = Place::owner(&self.vault).await?;
        match self.vault.destroy(&me, &name(secret), vec![version]).await {
            Ok(_) => self.told.tell(Deed::Destroyed(secret, version)),
            // It is gone already, by an earlier run or by age.
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Changes every key of the vault in turn, and makes and revokes tokens.
    async fn change_keys(mut self, place: &Place, deeds: u64) -> Result<(), Failure> {
        let me = Place::owner(&self.vault).await?;
        let environment = ENVIRONMENT.parse().map_err(VaultError::from)?;
        self.vault.resume_rekeying(|_| ControlFlow::Continue(())).await?;
        for _ in 0..deeds {
            match self.dice.below(6) {
                0 => {
                    let on = |_| ControlFlow::Continue(());
                    self.vault.rotate_data_key(&me, &environment, None, on).await?;
                }
                1 => {
                    self.vault.rotate_pepper(&me).await?;
                }
                2 => {
                    let kept = vec![(1, place.offer())];
                    self.vault.rotate_root(&me, kept, BTreeSet::new()).await?;
                }
                3 => {
                    self.vault.tend_keys().await?;
                }
                _ => self.issue(&me).await?,
            }
        }
        Ok(())
    }

    async fn issue(&mut self, me: &Caller) -> Result<(), Failure> {
        let account = NewAccount {
            name: "shop".parse().map_err(VaultError::from)?,
            kind: AccountKind::ServiceAccount,
            description: String::new(),
            policies: Default::default(),
            groups: Default::default(),
        };
        let new = NewToken {
            account: account.name.clone(),
            description: String::new(),
            ttl: SignedDuration::from_hours(24),
            renewable_for: None,
            uses: None,
            networks: Vec::new(),
        };
        match self.vault.create_account(me, account).await {
            Ok(_) => {}
            Err(error) if error.code == Code::Conflict => {}
            Err(error) => return Err(error.into()),
        }
        let issued = self.vault.create_token(me, new).await?;
        // EXPOSE: a token of a made-up vault, to try it after the crash.
        let text = issued.token.text().expose(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let id = issued.entity.id;
        if self.dice.chance(50) {
            self.vault.revoke_token(me, id).await?;
            self.told.tell(Deed::Revoked(text));
        } else {
            self.told.tell(Deed::Issued(text));
        }
        Ok(())
    }
}

/// Writes the value that a version of a secret must have, and gives the version's number.
pub(crate) async fn put(vault: &Vault, me: &Caller, secret: u32, version: u32) -> Result<u32, VaultError> {
    let value = SecretBytes::from_slice(value_of(secret, version).as_bytes());
    let put = Put {
        name: name(secret),
        value: NewValue::Whole { kind: ValueKind::Text, value },
        replace: false,
        expected: Some(version - 1),
        pending: false,
        duplicate_because: None,
        allow_empty: false,
        annotation: Annotation::default(),
        action: Action::Write,
    };
    vault.put(me, put).await.map(|written| written.version)
}

/// A version of a secret, the current one unless said otherwise, and the request that asked for it.
pub(crate) async fn reveal(
    vault: &Vault,
    secret: u32,
    version: Option<u32>,
) -> Result<(RequestId, Revealed), VaultError> {
    let me = Place::owner(vault).await?;
    let wanted = version.map_or_else(Wanted::default, Wanted::Number);
    let revealed = vault.reveal(&me, &name(secret), None, &wanted, None).await?;
    Ok((me.origin.request, revealed))
}

/// Whether a token signs in.
pub(crate) async fn signs_in(vault: &Vault, token: &str) -> bool {
    let token = SecretBytes::from_slice(token.as_bytes());
    vault.sign_in_with_token(&token, origin(vault)).await.is_ok()
}

/// What a version of a secret must be.
pub(crate) fn value_of(secret: u32, version: u32) -> String {
    format!("made-up value {version} of secret {secret}")
}

/// The name of a secret.
pub(crate) fn name(secret: u32) -> SecretName {
    let path = format!("selftest/s{secret}").parse().expect("letters, digits and a slash are a path");
    let environment = ENVIRONMENT.parse().expect("letters are an environment's name");
    SecretName { environment, company: None, path }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Put(secret, version, request) => write!(f, "put {secret} {version} {request}"),
            Deed::Revealed(request) => write!(f, "revealed {request}"),
            Deed::Destroyed(secret, version) => write!(f, "destroyed {secret} {version}"),
            Deed::Issued(token) => write!(f, "issued {token}"),
            Deed::Revoked(token) => write!(f, "revoked {token}"),
            Deed::BackedUp(name) => write!(f, "backed-up {name}"),
            Deed::Restored(name) => write!(f, "restored {name}"),
        }
    }
}

impl FromStr for Deed {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |text: &str| text.parse::<u32>().map_err(|_| ());
        let request = |text: &str| text.parse::<RequestId>().map_err(|_| ());
        match words.as_slice() {
            ["put", secret, version, by] => Ok(Deed::Put(number(secret)?, number(version)?, request(by)?)),
            ["revealed", by] => Ok(Deed::Revealed(request(by)?)),
            ["destroyed", secret, version] => Ok(Deed::Destroyed(number(secret)?, number(version)?)),
            ["issued", token] => Ok(Deed::Issued((*token).to_owned())),
            ["revoked", token] => Ok(Deed::Revoked((*token).to_owned())),
            ["backed-up", name] => Ok(Deed::BackedUp((*name).to_owned())),
            ["restored", name] => Ok(Deed::Restored((*name).to_owned())),
            _ => Err(()),
        }
    }
}

/// Writers at once, each with two secrets of its own.
pub(crate) const WRITERS: u32 = 3;
/// So many of a secret's newest versions are never destroyed, so each of them must be there when it was acknowledged.
pub(crate) const UNTOUCHED: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_is_one_line_and_back() {
        let request = RequestId::from_parts(1, &[2; 10]);
        for deed in [
            Deed::Put(1, 2, request),
            Deed::Revealed(request),
            Deed::Destroyed(3, 4),
            Deed::Issued("t".to_owned()),
            Deed::Revoked("t".to_owned()),
            Deed::BackedUp("b".to_owned()),
            Deed::Restored("r".to_owned()),
        ] {
            assert_eq!(deed.to_string().parse(), Ok(deed));
        }
        for wrong in ["", "put 1", "put 1 2", "put 1 2 x", "sung 1"] {
            assert_eq!(wrong.parse::<Deed>(), Err(()));
        }
    }
}
