//! Keys encrypted under keys: the root key in its slots; the instance key, data keys and peppers under the root key.
//!
//! The same construction as a value's (`envelope`, suite 1) with a label of its own; the number in front is
//! that of the slot or of the key that is wrapped. The context says what the key is and for whom, so that a
//! wrapped key put in another's row does not open. Nothing here decides which slot to try.

use uuid::Uuid;
use zeroize::Zeroizing;

use crate::canonical::Canonical;
use crate::envelope::{OpenError, Purpose, open_as, seal_as};
use crate::keys::{DataKey, InstanceKey, KEY_LEN, MasterKey, Pepper, RootKey};
use crate::random;

/// The slot that holds the root key under one master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotContext<'a> {
    /// The instance.
    pub instance: Uuid,
    /// The slot's number.
    pub slot: u32,
    /// Where its master key comes from: `file`, `passphrase`, `shamir`, …
    pub kind: &'a str,
}

/// Whose data key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyContext<'a> {
    /// The instance.
    pub instance: Uuid,
    /// The environment.
    pub environment: &'a str,
    /// The company, if the key is one company's.
    pub company: Option<&'a str>,
    /// The key's number.
    pub id: u32,
}

/// What a pepper is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PepperContext<'a> {
    /// The instance.
    pub instance: Uuid,
    /// What its digests are of: `token`, `issued-key`, …
    pub purpose: &'a str,
    /// The pepper's number.
    pub id: u32,
}

/// Why a wrapped key was not unwrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// It is shorter than a wrapped key.
    #[error("the wrapped key is cut short")]
    Truncated,
    /// Its first byte names no suite that this version knows.
    #[error("the wrapped key has suite {0}, which this version does not know; a newer version wrote it")]
    UnknownSuite(u8),
    /// It is another slot's or key's.
    #[error("the wrapped key has number {found}, not {expected}")]
    OtherNumber {
        /// The number found in it.
        found: u32,
        /// The number asked for.
        expected: u32,
    },
    /// The wrapping key or the context is not the right one, or a byte was changed.
    #[error("the wrapped key does not belong to this key and context, or it was altered")]
    Refused,
}

impl MasterKey {
    /// Wraps the root key into a slot.
    pub fn wrap_root(&self, root: &RootKey, context: SlotContext<'_>) -> Vec<u8> {
        self.wrap_root_with_salt(root, context, &random::bytes())
    }

    /// Unwraps the root key of a slot.
    ///
    /// # Errors
    /// [`UnwrapError`]; a wrong master key is [`UnwrapError::Refused`].
    pub fn unwrap_root(&self, wrapped: &[u8], context: SlotContext<'_>) -> Result<RootKey, UnwrapError> {
        let aad = context.canonical();
        // EXPOSE: the unwrapped key is a secret again.
        let key = self.expose(|wrapping| unwrap(wrapping, context.slot, &aad, wrapped))?;
        Ok(RootKey::from_bytes(&key))
    }

    pub(crate) fn wrap_root_with_salt(
        &self,
        root: &RootKey,
        context: SlotContext<'_>,
        salt: &[u8; 32],
    ) -> Vec<u8> {
        let aad = context.canonical();
        // EXPOSE: what leaves is wrapped.
        root.expose(|root| self.expose(|wrapping| wrap(wrapping, context.slot, &aad, salt, root)))
    }
}

impl RootKey {
    /// Wraps the key that this instance derives its own from.
    pub fn wrap_instance_key(&self, key: &InstanceKey, instance: Uuid) -> Vec<u8> {
        self.wrap_instance_key_with_salt(key, instance, &random::bytes())
    }

    /// Unwraps the key that this instance derives its own from.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub fn unwrap_instance_key(&self, wrapped: &[u8], instance: Uuid) -> Result<InstanceKey, UnwrapError> {
        let aad = instance_aad(instance);
        // EXPOSE: the unwrapped key is a secret again.
        let key = self.expose(|wrapping| unwrap(wrapping, INSTANCE_NUMBER, &aad, wrapped))?;
        Ok(InstanceKey::from_bytes(&key))
    }

    /// Wraps a data key.
    ///
    /// # Panics
    /// If `context.id` is not the key's number: the key would come back under another one.
    pub fn wrap_data_key(&self, key: &DataKey, context: KeyContext<'_>) -> Vec<u8> {
        self.wrap_data_key_with_salt(key, context, &random::bytes())
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub fn unwrap_data_key(&self, wrapped: &[u8], context: KeyContext<'_>) -> Result<DataKey, UnwrapError> {
        let aad = context.canonical();
        // EXPOSE: the unwrapped key is a secret again.
        let key = self.expose(|wrapping| unwrap(wrapping, context.id, &aad, wrapped))?;
        Ok(DataKey::from_bytes(context.id, &key))
    }

    /// Wraps a pepper.
    ///
    /// # Panics
    /// If `context.id` is not the pepper's number.
    pub fn wrap_pepper(&self, pepper: &Pepper, context: PepperContext<'_>) -> Vec<u8> {
        self.wrap_pepper_with_salt(pepper, context, &random::bytes())
    }

    /// Unwraps a pepper.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub fn unwrap_pepper(&self, wrapped: &[u8], context: PepperContext<'_>) -> Result<Pepper, UnwrapError> {
        let aad = context.canonical();
        // EXPOSE: the unwrapped pepper is a secret again.
        let key = self.expose(|wrapping| unwrap(wrapping, context.id, &aad, wrapped))?;
        Ok(Pepper::from_bytes(context.id, &key))
    }

    pub(crate) fn wrap_instance_key_with_salt(
        &self,
        key: &InstanceKey,
        instance: Uuid,
        salt: &[u8; 32],
    ) -> Vec<u8> {
        let aad = instance_aad(instance);
        // EXPOSE: what leaves is wrapped.
        key.expose(|key| self.expose(|wrapping| wrap(wrapping, INSTANCE_NUMBER, &aad, salt, key)))
    }

    pub(crate) fn wrap_data_key_with_salt(
        &self,
        key: &DataKey,
        context: KeyContext<'_>,
        salt: &[u8; 32],
    ) -> Vec<u8> {
        assert_eq!(context.id, key.id(), "a data key is wrapped under its own number");
        let aad = context.canonical();
        // EXPOSE: what leaves is wrapped.
        key.expose(|key| self.expose(|wrapping| wrap(wrapping, context.id, &aad, salt, key)))
    }

    pub(crate) fn wrap_pepper_with_salt(
        &self,
        pepper: &Pepper,
        context: PepperContext<'_>,
        salt: &[u8; 32],
    ) -> Vec<u8> {
        assert_eq!(context.id, pepper.id(), "a pepper is wrapped under its own number");
        let aad = context.canonical();
        // EXPOSE: what leaves is wrapped.
        pepper.expose(|key| self.expose(|wrapping| wrap(wrapping, context.id, &aad, salt, key)))
    }
}

impl SlotContext<'_> {
    fn canonical(&self) -> Vec<u8> {
        Canonical::new("keymoat/wrap/root/1")
            .field(self.instance.as_bytes())
            .number(self.slot)
            .field(self.kind.as_bytes())
            .finish()
    }
}

impl KeyContext<'_> {
    fn canonical(&self) -> Vec<u8> {
        Canonical::new("keymoat/wrap/data-key/1")
            .field(self.instance.as_bytes())
            .field(self.environment.as_bytes())
            .option(self.company)
            .number(self.id)
            .finish()
    }
}

impl PepperContext<'_> {
    fn canonical(&self) -> Vec<u8> {
        Canonical::new("keymoat/wrap/pepper/1")
            .field(self.instance.as_bytes())
            .field(self.purpose.as_bytes())
            .number(self.id)
            .finish()
    }
}

fn instance_aad(instance: Uuid) -> Vec<u8> {
    Canonical::new("keymoat/wrap/instance-key/1").field(instance.as_bytes()).finish()
}

fn wrap(wrapping: &[u8; KEY_LEN], number: u32, aad: &[u8], salt: &[u8; 32], key: &[u8; KEY_LEN]) -> Vec<u8> {
    seal_as(wrapping, &Purpose { label: WRAP_LABEL, number, aad }, salt, key)
}

fn unwrap(
    wrapping: &[u8; KEY_LEN],
    number: u32,
    aad: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<[u8; KEY_LEN]>, UnwrapError> {
    let opened = open_as(wrapping, &Purpose { label: WRAP_LABEL, number, aad }, wrapped)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    // EXPOSE: the key moves into the memory of its own type.
    opened.expose(|bytes| {
        if bytes.len() != KEY_LEN {
            return Err(UnwrapError::Refused);
        }
        key.copy_from_slice(bytes);
        Ok(())
    })?;
    Ok(key)
}

impl From<OpenError> for UnwrapError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Truncated => Self::Truncated,
            OpenError::UnknownSuite(suite) => Self::UnknownSuite(suite),
            OpenError::OtherKey { found, expected } => Self::OtherNumber { found, expected },
            OpenError::Refused => Self::Refused,
        }
    }
}

const WRAP_LABEL: &str = "keymoat/v1/wrap";
/// An instance has one key of this role, so it is not numbered.
const INSTANCE_NUMBER: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INSTANCE: Uuid = Uuid::from_bytes([1; 16]);
    const OTHER: Uuid = Uuid::from_bytes([2; 16]);
    const SLOT: SlotContext<'_> = SlotContext { instance: INSTANCE, slot: 1, kind: "file" };
    const KEY: KeyContext<'_> =
        KeyContext { instance: INSTANCE, environment: "prod", company: Some("acme"), id: 7 };
    const PEPPER: PepperContext<'_> = PepperContext { instance: INSTANCE, purpose: "token", id: 7 };

    #[test]
    fn the_root_key_comes_back_from_its_slot_only() {
        let (master, root) = (MasterKey::generate(), RootKey::generate());
        let wrapped = master.wrap_root(&root, SLOT);
        let back = master.unwrap_root(&wrapped, SLOT).unwrap();
        assert!(root.expose(|a| back.expose(|b| a == b)));
        for other in [SlotContext { instance: OTHER, ..SLOT }, SlotContext { kind: "shamir", ..SLOT }] {
            assert_eq!(master.unwrap_root(&wrapped, other).unwrap_err(), UnwrapError::Refused);
        }
        let other_slot = SlotContext { slot: 2, ..SLOT };
        let error = UnwrapError::OtherNumber { found: 1, expected: 2 };
        assert_eq!(master.unwrap_root(&wrapped, other_slot).unwrap_err(), error);
        assert_eq!(MasterKey::generate().unwrap_root(&wrapped, SLOT).unwrap_err(), UnwrapError::Refused);
        for len in 0..wrapped.len() {
            assert!(master.unwrap_root(&wrapped[..len], SLOT).is_err());
        }
    }

    #[test]
    fn a_data_key_comes_back_in_its_context_only() {
        let root = RootKey::generate();
        let key = DataKey::generate(7);
        let wrapped = root.wrap_data_key(&key, KEY);
        let back = root.unwrap_data_key(&wrapped, KEY).unwrap();
        assert_eq!(back.id(), 7);
        assert!(key.expose(|a| back.expose(|b| a == b)));
        let elsewhere = [
            KeyContext { instance: OTHER, ..KEY },
            KeyContext { environment: "test", ..KEY },
            KeyContext { company: None, ..KEY },
            KeyContext { company: Some("acm"), ..KEY },
        ];
        for other in elsewhere {
            assert_eq!(root.unwrap_data_key(&wrapped, other).unwrap_err(), UnwrapError::Refused);
        }
        assert!(root.unwrap_data_key(&wrapped, KeyContext { id: 8, ..KEY }).is_err());
        assert!(RootKey::generate().unwrap_data_key(&wrapped, KEY).is_err());
    }

    #[test]
    fn roles_cannot_be_exchanged() {
        let root = RootKey::generate();
        let pepper = root.wrap_pepper(&Pepper::generate(7), PEPPER);
        let key = root.wrap_data_key(&DataKey::generate(7), KEY);
        assert_eq!(root.unwrap_data_key(&pepper, KEY).unwrap_err(), UnwrapError::Refused);
        assert_eq!(root.unwrap_pepper(&key, PEPPER).unwrap_err(), UnwrapError::Refused);
        let other = PepperContext { purpose: "issued-key", ..PEPPER };
        assert_eq!(root.unwrap_pepper(&pepper, other).unwrap_err(), UnwrapError::Refused);
        let back = root.unwrap_pepper(&pepper, PEPPER).unwrap();
        assert_eq!(back.id(), 7);
        let zero = PepperContext { id: 0, ..PEPPER };
        let instance = root.wrap_instance_key(&InstanceKey::generate(), INSTANCE);
        let pepper = root.wrap_pepper(&Pepper::generate(0), zero);
        assert_eq!(root.unwrap_instance_key(&pepper, INSTANCE).unwrap_err(), UnwrapError::Refused);
        assert_eq!(root.unwrap_pepper(&instance, zero).unwrap_err(), UnwrapError::Refused);
        let none = KeyContext { id: 0, ..KEY };
        assert_eq!(root.unwrap_data_key(&instance, none).unwrap_err(), UnwrapError::Refused);
    }

    #[test]
    fn an_instance_key_comes_back_under_its_root_key_and_instance_only() {
        let (root, key) = (RootKey::generate(), InstanceKey::generate());
        let wrapped = root.wrap_instance_key(&key, INSTANCE);
        let back = root.unwrap_instance_key(&wrapped, INSTANCE).unwrap();
        assert!(key.expose(|a| back.expose(|b| a == b)));
        assert_eq!(root.unwrap_instance_key(&wrapped, OTHER).unwrap_err(), UnwrapError::Refused);
        let other = RootKey::generate();
        assert_eq!(other.unwrap_instance_key(&wrapped, INSTANCE).unwrap_err(), UnwrapError::Refused);
        let rewrapped = other.wrap_instance_key(&back, INSTANCE);
        let again = other.unwrap_instance_key(&rewrapped, INSTANCE).unwrap();
        assert!(key.expose(|a| again.expose(|b| a == b)));
        for bit in 0..wrapped.len() * 8 {
            let mut altered = wrapped.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(root.unwrap_instance_key(&altered, INSTANCE).is_err());
        }
    }

    #[test]
    fn all_wrapped_keys_have_one_length() {
        let root = RootKey::generate();
        assert_eq!(root.wrap_pepper(&Pepper::generate(7), PEPPER).len(), 149);
        assert_eq!(MasterKey::generate().wrap_root(&root, SLOT).len(), 149);
        assert_eq!(root.wrap_instance_key(&InstanceKey::generate(), INSTANCE).len(), 149);
    }

    #[test]
    fn any_flipped_bit_refuses() {
        let root = RootKey::generate();
        let wrapped = root.wrap_data_key(&DataKey::generate(7), KEY);
        for bit in 0..wrapped.len() * 8 {
            let mut altered = wrapped.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(root.unwrap_data_key(&altered, KEY).is_err());
        }
    }

    #[test]
    fn a_sealed_value_is_no_wrapped_key() {
        let root = RootKey::generate();
        let aad = KEY.canonical();
        let wrap_of = |label, body: &[u8]| {
            root.expose(|key| seal_as(key, &Purpose { label, number: 7, aad: &aad }, &[0; 32], body))
        };
        assert!(root.unwrap_data_key(&wrap_of(WRAP_LABEL, &[1; 32]), KEY).is_ok());
        assert_eq!(
            root.unwrap_data_key(&wrap_of(WRAP_LABEL, &[1; 31]), KEY).unwrap_err(),
            UnwrapError::Refused
        );
        let other_label = wrap_of("keymoat/v1/secret", &[1; 32]);
        assert_eq!(root.unwrap_data_key(&other_label, KEY).unwrap_err(), UnwrapError::Refused);
    }

    proptest! {
        #[test]
        fn noise_never_unwraps_or_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(MasterKey::generate().unwrap_root(&noise, SLOT).is_err());
            prop_assert!(RootKey::generate().unwrap_instance_key(&noise, INSTANCE).is_err());
        }
    }
}
