//! What a secret may be: kinds of values, and the limits on values, fields, tags, descriptions and versions.
//!
//! Limits are checked on lengths and names only; this module never sees a value.

use crate::words::words;

words! {
    /// What a value is.
    ValueKind, "kind of value":
    Text = "text" doc "UTF-8 text.",
    Json = "json" doc "A JSON object; its top-level names are the fields.",
    Bytes = "bytes" doc "Bytes of any kind.",
}

/// Checks the length of a value in bytes.
///
/// # Errors
/// When it is longer than [`MAX_VALUE_BYTES`].
pub fn check_value(length: usize) -> Result<(), LimitError> {
    check("value", length, MAX_VALUE_BYTES, "bytes")
}

/// Checks the number of fields of a value.
///
/// # Errors
/// When there are more than [`MAX_FIELDS`].
pub fn check_fields(count: usize) -> Result<(), LimitError> {
    check("value", count, MAX_FIELDS, "fields")
}

/// Checks tags: names and values.
///
/// # Errors
/// When there are too many, one is too long or empty, or has control characters.
pub fn check_tags<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), LimitError> {
    for (count, (name, value)) in tags.into_iter().enumerate() {
        check("tags", count + 1, MAX_TAGS, "entries")?;
        check("tag name", name.len(), MAX_TAG_NAME_BYTES, "bytes")?;
        check("tag value", value.len(), MAX_TAG_VALUE_BYTES, "bytes")?;
        if name.is_empty() {
            return Err(LimitError::Empty { what: "tag name" });
        }
        check_plain("tag", name)?;
        check_plain("tag", value)?;
    }
    Ok(())
}

/// Checks a description; line ends and tabs are allowed in it.
///
/// # Errors
/// When it is longer than [`MAX_DESCRIPTION_BYTES`] or has control characters.
pub fn check_description(text: &str) -> Result<(), LimitError> {
    check("description", text.len(), MAX_DESCRIPTION_BYTES, "bytes")?;
    if text.contains(|c: char| c.is_control() && c != '\n' && c != '\t') {
        return Err(LimitError::Control { what: "description" });
    }
    Ok(())
}

/// Checks how many versions are to be kept.
///
/// # Errors
/// When it is none, or more than [`MAX_VERSIONS_KEPT`].
pub fn check_versions_kept(count: usize) -> Result<(), LimitError> {
    if count == 0 {
        return Err(LimitError::Empty { what: "number of versions kept" });
    }
    check("number of versions kept", count, MAX_VERSIONS_KEPT, "versions")
}

/// A limit that was exceeded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// More than allowed.
    #[error("{what} has {has} {unit}, at most {most} are allowed")]
    TooMuch {
        /// What was measured.
        what: &'static str,
        /// How much it has.
        has: usize,
        /// How much it may have.
        most: usize,
        /// Of what.
        unit: &'static str,
    },
    /// Nothing where there must be something.
    #[error("{what} is empty")]
    Empty {
        /// What was measured.
        what: &'static str,
    },
    /// Control characters where there must be none.
    #[error("{what} has control characters")]
    Control {
        /// What was looked at.
        what: &'static str,
    },
}

fn check(what: &'static str, has: usize, most: usize, unit: &'static str) -> Result<(), LimitError> {
    if has > most { Err(LimitError::TooMuch { what, has, most, unit }) } else { Ok(()) }
}

fn check_plain(what: &'static str, text: &str) -> Result<(), LimitError> {
    if text.chars().any(char::is_control) { Err(LimitError::Control { what }) } else { Ok(()) }
}

/// Longest value in bytes: what AWS Secrets Manager allows.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Most fields of one value: a person can still read the list.
pub const MAX_FIELDS: usize = 100;
/// Deepest nesting of a JSON value: bounds the stack of every parser that reads it.
pub const MAX_JSON_DEPTH: usize = 32;
/// Most tags on one secret.
pub const MAX_TAGS: usize = 32;
/// Longest name of a tag in bytes, as on AWS.
pub const MAX_TAG_NAME_BYTES: usize = 128;
/// Longest value of a tag in bytes, as on AWS.
pub const MAX_TAG_VALUE_BYTES: usize = 256;
/// Longest description in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 1024;
/// Versions kept when nothing else is said: enough to find when a key broke.
pub const DEFAULT_VERSIONS_KEPT: usize = 20;
/// Most versions that may be kept: bounds the row that lists them.
pub const MAX_VERSIONS_KEPT: usize = 1000;
/// Most labels on one secret, as on AWS.
pub const MAX_LABELS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_exact() {
        let check = |check: fn(usize) -> Result<(), LimitError>, most: usize| {
            assert!(check(most).is_ok() && check(most + 1).is_err());
        };
        check(check_value, MAX_VALUE_BYTES);
        check(check_fields, MAX_FIELDS);
        check(check_versions_kept, MAX_VERSIONS_KEPT);
        assert!(check_versions_kept(0).is_err());
        assert_eq!(
            check_value(65_537).unwrap_err().to_string(),
            "value has 65537 bytes, at most 65536 are allowed"
        );
    }

    #[test]
    fn tags_and_descriptions() {
        assert!(check_tags([("team", "billing"), ("note", "")]).is_ok());
        assert!(check_tags([("", "x")]).is_err());
        assert!(check_tags([("a\n", "x")]).is_err());
        assert!(check_tags([("a", "x\0")]).is_err());
        assert!(check_tags([("a", &*"x".repeat(257))]).is_err());
        assert!(check_tags([("a", "x"); 32]).is_ok());
        assert!(check_tags([("a", "x"); 33]).is_err());
        assert!(check_description("two\nlines\twith tab").is_ok());
        assert!(check_description("\u{1b}[31m").is_err());
        assert!(check_description(&"x".repeat(1025)).is_err());
    }
}
