//! Whose key is this? The answer for one whole value, without a context.
//!
//! Says unknown rather than guess: a shape that several providers share, a wrong checksum or a value
//! that a provider prints in its documentation is not a key.

use crate::catalogue::Catalogue;
use crate::provider::{Key, Provider};

/// The answer to "whose key is this".
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Identification<'c> {
    /// A key of the catalogue.
    Known(Known<'c>),
    /// Nothing the catalogue knows by its shape.
    Unknown,
}

/// A recognised value.
#[derive(Debug, Clone, Copy)]
pub struct Known<'c> {
    /// Who issued it.
    pub provider: &'c Provider,
    /// Which of the provider's keys it is: kind, mode, field, sensitivity, severity.
    pub key: &'c Key,
    /// How sure that is.
    pub certainty: Certainty,
}

impl PartialEq for Known<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.provider.id == other.provider.id
            && self.key.id == other.key.id
            && self.certainty == other.certainty
    }
}

/// How sure a recognition is, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// The variable's name says what it is and the shape fits.
    Context,
    /// The shape belongs to this key alone.
    Shape,
    /// The value's own checksum is right.
    Checksum,
}

impl Certainty {
    /// The word used in output and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Shape => "shape",
            Self::Checksum => "checksum",
        }
    }
}

impl Catalogue {
    /// Identifies a whole value, exactly as it is: the caller trims.
    pub fn identify(&self, text: &[u8]) -> Identification<'_> {
        if text.len() > MAX_VALUE_BYTES {
            return Identification::Unknown;
        }
        let found = self.by_shape().iter().map(|&index| self.at(index)).find(|(_, key)| key.matches(text));
        found.map_or(Identification::Unknown, |(provider, key)| {
            let certainty = if key.checksum.proves() { Certainty::Checksum } else { Certainty::Shape };
            Identification::Known(Known { provider, key, certainty })
        })
    }
}

/// The longest key known is a session token of about 2 KB; longer text is a document, not a value.
pub(crate) const MAX_VALUE_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_and_what_they_are() {
        let check = |value: &str, expected: &str| {
            let found = match Catalogue::builtin().identify(value.as_bytes()) {
                Identification::Unknown => "unknown".to_owned(),
                Identification::Known(Known { provider, key, certainty }) => {
                    let secret = if key.sensitive { "secret" } else { "public" };
                    format!("{} {} {} {secret} {}", provider.id, key.kind, key.mode, certainty.as_str())
                }
            };
            assert_eq!(found, expected, "{value}");
        };
        check("sk_live_51MadeUpExample0000KeymoatTest", "stripe secret live secret shape");
        check("sk_test_51MadeUpExample0000KeymoatTest", "stripe secret test secret shape");
        check("rk_live_51MadeUpExample0000KeymoatTest", "stripe restricted live secret shape");
        check("pk_live_51MadeUpExample0000KeymoatTest", "stripe publishable live public shape");
        check("whsec_MadeUpExample0000KeymoatWebhook1", "stripe webhook any secret shape");
        check("AC0000madeup", "unknown");
        check("AC0000a1b2c3d4e5f60718293a4b5c6d7e", "twilio account_id any public shape");
        check("0000a1b2c3d4e5f60718293a4b5c6d7e-us19", "mailchimp secret any secret shape");
        check("0000a1b2c3d4e5f60718293a4b5c6d7e", "unknown"); // a Twilio token, an MD5 or anything else
        check("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", "shopify token any secret shape");
        check("test_MadeUpExample0000KeymoatTest12", "mollie secret test secret shape");
        check("AKIAMADEUPEXAMPLE234", "aws key_id any public shape");
        check("AKIAIOSFODNN7EXAMPLE", "unknown"); // printed in the AWS documentation
        check("postgres://shop:MadeUp0000Pass@db.madeup.test:5432/shop", "database url any secret shape");
        check("postgres://shop:password@localhost/shop", "unknown");
        check("postgres://db.madeup.test/shop", "unknown");
        check(
            "km_live_MadeUpIssuedKeyOfSomebodysApi0KeymoatExampl0I8fcP",
            "keymoat secret any secret checksum",
        );
        check("km_live_MadeUpIssuedKeyOfSomebodysApi0KeymoatExampl0I8fcQ", "unknown"); // wrong checksum
        check("sk_live_xxxxxxxxxxxxxxxxxxxxxxxx", "unknown");
        check("sk_live_51MadeUpExample0000KeymoatTest\n", "unknown"); // the whole value, exactly
        check(" sk_live_51MadeUpExample0000KeymoatTest", "unknown");
        check("task_test_51MadeUpExample0000KeymoatTest", "unknown");
        check("", "unknown");
    }

    #[test]
    fn overlong_text_is_not_a_value() {
        let long = format!("postgres://shop:{}@db.madeup.test/shop", "MadeUp1".repeat(4_000));
        assert_eq!(Catalogue::builtin().identify(long.as_bytes()), Identification::Unknown);
    }

    proptest! {
        #[test]
        fn identify_is_total(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Catalogue::builtin().identify(&text);
        }

        #[test]
        fn a_key_with_something_beside_it_is_not_the_key(before in "[ \"'=]{0,2}", after in "[ \"'\n]{0,2}") {
            let text = format!("{before}sk_live_51MadeUpExample0000KeymoatTest{after}");
            let known = Catalogue::builtin().identify(text.as_bytes()) != Identification::Unknown;
            prop_assert_eq!(known, before.is_empty() && after.is_empty());
        }
    }
}
