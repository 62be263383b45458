//! The macro behind enumerations whose variants have stable names on disk, on the wire and in documents.
//!
//! Internal to this crate; the enumerations it makes are public.

/// A word that is none of those an enumeration has. Never repeats the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind}; allowed: {allowed}")]
pub struct UnknownWord {
    pub(crate) kind: &'static str,
    pub(crate) allowed: &'static str,
}

/// Makes an enumeration with `ALL`, `as_str`, `Display`, `FromStr`, and serde as its stable names.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $label:literal:
     $first_variant:tt = $first:literal doc $first_doc:literal $(, $variant:tt = $text:literal doc $variant_doc:literal)* $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            #[doc = $first_doc]
            $first_variant,
            $(#[doc = $variant_doc] $variant),*
        }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[Self::$first_variant $(, Self::$variant)*];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { Self::$first_variant => $first $(, Self::$variant => $text)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $first => Ok(Self::$first_variant),
                    $($text => Ok(Self::$variant),)*
                    _ => Err($crate::words::UnknownWord {
                        kind: $label,
                        allowed: concat!("`", $first, "`" $(, ", `", $text, "`")*),
                    }),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::names::TextVisitor::new($label))
            }
        }
    };
}
pub(crate) use words;
