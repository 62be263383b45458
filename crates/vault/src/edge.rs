//! What a door needs besides the use-cases: page cursors, readiness, metrics, names, and refusing those who show
//! nothing. It decides nothing about secrets.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keymoat_core::audit::{Action, ReasonCode};
use keymoat_core::id::PrincipalId;
use keymoat_core::names::AccountName;
use keymoat_core::policy::Capability;
use keymoat_store::ServerHealth;

use crate::desk::{Deed, system_resource};
use crate::entity::SecretName;
use crate::rekey::KEYS;
use crate::{Caller, Code, Origin, Vault, VaultError};

impl Vault {
    /// Writes a place in a list so that only this vault can have written it, and only for the same question.
    pub fn seal_cursor(&self, question: &[&str], at: &SecretName) -> String {
        let place = serde_json::to_vec(at).expect("a name has string keys and no failing serializers");
        let tag = self.keyring().cursors().tag(&cursor_parts(question, &place));
        URL_SAFE_NO_PAD.encode([tag.as_slice(), &place].concat())
    }

    /// Reads a place in a list.
    ///
    /// # Errors
    /// [`Code::Invalid`] when this vault did not write it, or wrote it for another question.
    pub fn open_cursor(&self, question: &[&str], cursor: &str) -> Result<SecretName, VaultError> {
        let wrong = || {
            VaultError::invalid("the cursor is not one that this list gave out").hint(
                "begin again without a cursor, and change nothing else of the question between two pages",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
        let (tag, place) = bytes.split_at_checked(TAG_BYTES).ok_or_else(wrong)?;
        if !self.keyring().cursors().verify(&cursor_parts(question, place), tag) {
            return Err(wrong());
        }
        serde_json::from_slice(place).map_err(|_| wrong())
    }

    /// Signs a statement about an issued key, for applications behind a proxy.
    pub fn sign_assertion(&self, message: &[u8]) -> [u8; 64] {
        self.keyring().assertions().sign(message)
    }

    /// The public key that such statements are checked with.
    pub fn assertion_key(&self) -> [u8; 32] {
        self.keyring().assertions().public_key()
    }

    /// Waits until everything is in memory that any node had committed when this was called, so that a request sees
    /// what was acknowledged before it, on whichever node. At once where there is one node.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the database does not answer.
    pub async fn fresh(&self) -> Result<(), VaultError> {
        Ok(self.store().fresh().await?)
    }

    /// How the server that holds the database looks after it; none when it is a file.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn database_health(&self) -> Result<Option<ServerHealth>, VaultError> {
        if self.store().server().is_none() {
            return Ok(None);
        }
        Ok(self.store().read(|reader| reader.server_health()).await?)
    }

    /// Looks whether the store still answers and takes records.
    ///
    /// # Errors
    /// [`Code::Unavailable`] and why.
    pub async fn ready(&self) -> Result<(), VaultError> {
        if let Some(why) = self.stopped() {
            return Err(VaultError::new(Code::Unavailable, format!("the store has stopped itself: {why}")));
        }
        if self.store().is_full() {
            return Err(VaultError::new(
                Code::Unavailable,
                "the disk is full, so nothing can be written down and nothing is answered",
            ));
        }
        self.fresh().await?;
        self.store().read(|reader| reader.events_len()).await?;
        Ok(())
    }

    /// Lets a caller read the metrics. They hold no names of secrets and change every second, so only a refusal is on
    /// record.
    ///
    /// # Errors
    /// [`Code::Refused`].
    pub async fn permit_metrics(&self, caller: &Caller) -> Result<(), VaultError> {
        let resource = system_resource("metrics")?;
        self.authorize(caller, Capability::Inspect, Action::Inspect, resource).await.map(|_| ())
    }

    /// Refuses somebody who shows nothing at all; it is on record, as far as that does not fill the disk.
    pub async fn refuse_nobody(&self, origin: &Origin) -> VaultError {
        if let Err(error) = self.refuse_sign_in(origin, ReasonCode::NotSignedIn).await {
            return error;
        }
        VaultError::new(Code::NotSignedIn, "nobody is signed in")
            .hint("send a token in the header `Authorization: Bearer …`; `keymoat login` gets one")
    }

    /// Refuses a master key that came over a network for a change of `slots` or `root`; it is on record, and that key is
    /// no secret any more.
    pub async fn refuse_remote_key(&self, caller: &Caller, keys: &str) -> VaultError {
        let recorded = async {
            let resource = system_resource(&format!("{KEYS}/{keys}"))?;
            let deed = Deed::refused(Action::Rekey, &resource, ReasonCode::ConditionFailed);
            self.record_refusal(caller, deed, None).await
        };
        match recorded.await {
            Ok(()) => VaultError::new(Code::Refused, "a master key does not travel over a network")
                .hint("do it on the vault's own machine, and take another key than this one"),
            Err(error) => error,
        }
    }

    /// The name of an account, while there is one.
    pub fn account_name(&self, id: PrincipalId) -> Option<AccountName> {
        self.state(|state| state.account(id).map(|account| account.name.clone()))
    }
}

fn cursor_parts<'a>(question: &[&'a str], place: &'a [u8]) -> Vec<&'a [u8]> {
    let mut parts: Vec<&[u8]> = vec![b"cursor"];
    parts.extend(question.iter().map(|part| part.as_bytes()));
    parts.push(place);
    parts
}

/// HMAC-SHA-256.
const TAG_BYTES: usize = 32;
