//! References to stored secrets: `keymoat:path#field` and `keymoat://env/path?company=acme#field`.
//!
//! Only a whole value is a reference, never a part of one. A reference has one spelling; nothing is decoded or
//! repaired. Resolving is done elsewhere.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::names::{Company, Environment, Field, NameError, SecretPath, TextVisitor};

/// Which secret, and which of its fields, stands in place of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The environment; none for that of whoever resolves it.
    pub scope: Option<Environment>,
    /// The company; none for that of whoever resolves it, or, with an environment, for no company.
    // INVARIANT: set only together with `scope`.
    company: Option<Company>,
    /// The secret.
    pub path: SecretPath,
    /// The field; none for the whole value.
    pub field: Option<Field>,
}

impl Reference {
    /// A reference in the environment and company of whoever resolves it.
    pub fn relative(path: SecretPath, field: Option<Field>) -> Self {
        Self { scope: None, company: None, path, field }
    }

    /// A reference that means the same to everybody.
    pub fn absolute(
        environment: Environment,
        company: Option<Company>,
        path: SecretPath,
        field: Option<Field>,
    ) -> Self {
        Self { scope: Some(environment), company, path, field }
    }

    /// The company, in an absolute reference.
    pub fn company(&self) -> Option<&Company> {
        self.company.as_ref()
    }

    /// Reads a whole value; `None` when it is not a reference at all.
    ///
    /// # Errors
    /// When it begins like a reference and is not one.
    pub fn parse(value: &str) -> Result<Option<Self>, ReferenceError> {
        match value.strip_prefix(SCHEME) {
            None => Ok(None),
            Some(_) if value.len() > MAX_REFERENCE_BYTES => Err(ReferenceError::TooLong),
            Some(rest) => match rest.strip_prefix("//") {
                Some(rest) => parse_absolute(rest).map(Some),
                None => parse_relative(rest).map(Some),
            },
        }
    }
}

/// Whether a whole value begins like a reference.
pub fn looks_like_reference(value: &str) -> bool {
    value.starts_with(SCHEME)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        if let Some(environment) = &self.scope {
            write!(f, "//{environment}/")?;
        }
        write!(f, "{}", self.path)?;
        if let (Some(_), Some(company)) = (&self.scope, &self.company) {
            write!(f, "{COMPANY_QUERY}{company}")?;
        }
        match &self.field {
            Some(field) => write!(f, "#{field}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)?.ok_or(ReferenceError::NotAReference)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("a reference"))
    }
}

/// What is wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not begin with `keymoat:`.
    #[error("reference does not begin with `keymoat:`")]
    NotAReference,
    /// It is longer than any reference can be.
    #[error("reference is longer than {MAX_REFERENCE_BYTES} bytes")]
    TooLong,
    /// One of its names is refused.
    #[error("reference with a wrong {0}")]
    Name(#[from] NameError),
    /// An absolute reference without a path.
    #[error("reference has no path; write `keymoat://env/path#field`")]
    NoPath,
    /// A query where none may be, or another than `company`.
    #[error(
        "reference has a query that is not `?company=NAME`; only an absolute reference may have that one"
    )]
    Query,
}

fn parse_relative(rest: &str) -> Result<Reference, ReferenceError> {
    let (path, field) = split_field(rest)?;
    if path.contains('?') {
        return Err(ReferenceError::Query);
    }
    Ok(Reference::relative(path.parse()?, field))
}

fn parse_absolute(rest: &str) -> Result<Reference, ReferenceError> {
    let (place, field) = split_field(rest)?;
    let (environment, path) = place.split_once('/').ok_or(ReferenceError::NoPath)?;
    let (path, company) = match path.split_once('?') {
        None => (path, None),
        Some((path, query)) => {
            let company = query.strip_prefix("company=").ok_or(ReferenceError::Query)?;
            (path, Some(company.parse()?))
        }
    };
    Ok(Reference::absolute(environment.parse()?, company, path.parse()?, field))
}

fn split_field(rest: &str) -> Result<(&str, Option<Field>), ReferenceError> {
    match rest.split_once('#') {
        None => Ok((rest, None)),
        Some((place, field)) => Ok((place, Some(field.parse()?))),
    }
}

/// What every reference begins with.
pub const SCHEME: &str = "keymoat:";
/// Longest reference in bytes: the longest names together are shorter.
const MAX_REFERENCE_BYTES: usize = 512;
const COMPANY_QUERY: &str = "?company=";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepted() {
        for text in [
            "keymoat:stripe",
            "keymoat:payments/stripe#secret_key",
            "keymoat://prod/stripe",
            "keymoat://prod/payments/stripe#secret_key",
            "keymoat://prod/stripe?company=acme#secret_key",
            "keymoat://prod/stripe?company=acme",
        ] {
            assert_eq!(Reference::parse(text).unwrap().unwrap().to_string(), text);
        }
        for value in ["", "stripe", "Keymoat:stripe", " keymoat:stripe", "a keymoat:stripe", "keymoat"] {
            assert_eq!(Reference::parse(value), Ok(None), "{value:?}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "keymoat:",
            "keymoat:#field",
            "keymoat:stripe#",
            "keymoat:stripe#a#b",
            "keymoat:stripe secret",
            "keymoat:stripe ",
            "keymoat:stripe\n",
            "keymoat:/stripe",
            "keymoat:stripe?company=acme",
            "keymoat:stripe%23x",
            "keymoat:../x",
            "keymoat://prod",
            "keymoat://prod/",
            "keymoat:///stripe",
            "keymoat://Prod/stripe",
            "keymoat://secret/stripe",
            "keymoat://sys/audit",
            "keymoat://prod/stripe?company=",
            "keymoat://prod/stripe?company=*",
            "keymoat://prod/stripe?version=3",
            "keymoat://prod/stripe?company=a&company=b",
            "keymoat://prod/stripe#f?company=a",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Reference::parse(&format!("keymoat:{}", "a".repeat(600))), Err(ReferenceError::TooLong));
    }

    proptest! {
        #[test]
        fn round_trip(
            scope in prop::option::of(("[b-d][a-z0-9]{1,11}", prop::option::of("[a-z][a-z0-9]{0,30}"))),
            path in "[a-z0-9][a-z0-9_.-]{0,20}(/[a-z0-9][a-z0-9_.-]{0,20}){0,7}",
            field in prop::option::of("[A-Za-z_][A-Za-z0-9_.-]{0,63}"),
        ) {
            let (path, field) = (path.parse().unwrap(), field.map(|field| field.parse().unwrap()));
            let reference = match scope.filter(|(name, _)| name != "cubbyhole") {
                None => Reference::relative(path, field),
                Some((name, company)) => {
                    Reference::absolute(name.parse().unwrap(), company.map(|c| c.parse().unwrap()), path, field)
                }
            };
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(Some(reference.clone())));
            prop_assert!(looks_like_reference(&reference.to_string()));
        }

        #[test]
        fn parser_takes_anything(text in "(keymoat:)?(//)?.{0,60}|keymoat:[a-z/#?=.]{0,40}") {
            if let Ok(Some(reference)) = Reference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
