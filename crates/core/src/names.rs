//! Names of everything Keymoat keeps: each is parsed once, at the edge, into a type that cannot be wrong.
//!
//! A name has exactly one spelling. Anything else (another case, a space, a percent escape, a dot segment,
//! a look-alike letter) is refused and never repaired, so that what was authorised, what is served and
//! what is recorded are the same bytes. This module knows no store and does not say whether a name exists.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Makes the name types and [`NameKind`], one variant for each type.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $label:literal, $check:ident, $allowed:literal;)*) => {
        /// The kinds of names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is documented on the type of the same name")]
        pub enum NameKind { $($name),* }

        impl NameKind {
            /// What a name of this kind may look like, for people.
            pub fn allowed(self) -> &'static str {
                match self { $(Self::$name => $allowed),* }
            }
        }

        impl fmt::Display for NameKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $label),* })
            }
        }

        $(
            $(#[$doc])*
            #[derive(Clone)]
            pub struct $name(Text);

            impl $name {
                /// The canonical text.
                pub fn as_str(&self) -> &str {
                    self.0.as_str()
                }

                /// Whether a text is such a name.
                #[allow(dead_code, reason = "all names have the same methods")]
                pub(crate) fn accepts(text: &str) -> bool {
                    $check(text).is_ok()
                }
            }

            impl FromStr for $name {
                type Err = NameError;

                fn from_str(text: &str) -> Result<Self, NameError> {
                    $check(text).map_err(|problem| NameError::new(NameKind::$name, text, problem))?;
                    Ok(Self(Text::Shared(text.into())))
                }
            }

            impl TryFrom<&str> for $name {
                type Error = NameError;

                fn try_from(text: &str) -> Result<Self, NameError> {
                    text.parse()
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(self.as_str())
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Debug::fmt(self.as_str(), f)
                }
            }

            impl PartialEq for $name {
                fn eq(&self, other: &Self) -> bool {
                    self.as_str() == other.as_str()
                }
            }

            impl Eq for $name {}

            impl PartialOrd for $name {
                fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                    Some(self.cmp(other))
                }
            }

            impl Ord for $name {
                fn cmp(&self, other: &Self) -> Ordering {
                    self.as_str().cmp(other.as_str())
                }
            }

            impl Hash for $name {
                fn hash<H: Hasher>(&self, state: &mut H) {
                    self.as_str().hash(state);
                }
            }

            impl Borrow<str> for $name {
                fn borrow(&self) -> &str {
                    self.as_str()
                }
            }

            impl AsRef<str> for $name {
                fn as_ref(&self) -> &str {
                    self.as_str()
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(self.as_str())
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_str(TextVisitor::new($label))
                }
            }
        )*
    };
}

names! {
    /// An environment such as `prod`: the outermost scope of a secret.
    Environment, "environment", check_environment,
        "a letter, then 1 to 11 letters or digits, all lower case, such as `prod`";
    /// A company (tenant) such as `acme` inside an environment.
    Company, "company", check_company,
        "a letter, then at most 30 letters, digits or `-`, all lower case, not ending in `-`";
    /// The path of a secret such as `stripe` or `payments/stripe`, without its field.
    SecretPath, "path", check_secret_path,
        "at most 8 segments joined by `/`, each a letter or digit and at most 63 letters, digits, `_`, `.`, `-`, all lower case";
    /// The path of anything a policy speaks of: a secret's path, or a part of Keymoat such as `accounts/os:ana`.
    ResourcePath, "resource path", check_resource_path,
        "at most 8 segments joined by `/`, each a letter or digit and at most 79 letters, digits, `_`, `.`, `-`, `:`, all lower case";
    /// A field of a secret such as `secret_key`.
    Field, "field", check_field,
        "a letter or `_`, then at most 63 letters, digits, `_`, `.`, `-`";
    /// A label that points at one version of a secret, such as `current`.
    Label, "label", check_label,
        "a letter, then at most 31 letters, digits, `_`, `-`, all lower case";
    /// The name of an account; an operating-system user has the prefix `os:`.
    AccountName, "account name", check_account,
        "a letter, then at most 62 letters, digits, `.`, `_`, `-`, all lower case; `os:` in front for an operating-system user";
    /// The name of a policy.
    PolicyName, "policy name", check_policy,
        "a letter, then at most 62 letters, digits, `.`, `_`, `-`, all lower case";
    /// The name of an environment variable.
    VariableName, "variable name", check_variable,
        "a letter or `_`, then at most 127 letters, digits or `_`";
    /// The name of one detail of an audit event.
    DetailName, "detail name", check_detail,
        "a letter, then at most 31 letters, digits or `_`, all lower case";
    /// The part of Keymoat that acts by itself, such as `rotation`.
    SystemPart, "system part", check_detail,
        "a letter, then at most 31 letters, digits or `_`, all lower case";
    /// A space of issued keys such as `shop`: which callers of whose API they are for.
    SpaceName, "space", check_company,
        "a letter, then at most 30 letters, digits or `-`, all lower case, not ending in `-`";
    /// The name of a role that issued keys may have.
    RoleName, "role", check_policy,
        "a letter, then at most 62 letters, digits, `.`, `_`, `-`, all lower case";
    /// The name of a group that issued keys may be in.
    GroupName, "group", check_policy,
        "a letter, then at most 62 letters, digits, `.`, `_`, `-`, all lower case";
    /// The name of one limit of an issued key, such as `search`.
    LimitName, "limit", check_label,
        "a letter, then at most 31 letters, digits, `_`, `-`, all lower case";
    /// The name of an upstream store.
    UpstreamName, "upstream name", check_label,
        "a letter, then at most 31 letters, digits, `_`, `-`, all lower case";
}

impl Label {
    /// The version that readers get.
    pub const CURRENT: Label = Label(Text::Fixed("current"));
    /// The version a rotation has made and not yet promoted.
    pub const PENDING: Label = Label(Text::Fixed("pending"));
    /// The version that was current before the last change.
    pub const PREVIOUS: Label = Label(Text::Fixed("previous"));

    /// Whether Keymoat itself moves this label (`current`, `pending`, `previous`).
    pub fn is_built_in(&self) -> bool {
        [Self::CURRENT, Self::PENDING, Self::PREVIOUS].contains(self)
    }
}

impl SecretPath {
    /// The segments, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/')
    }

    /// Whether this path is `prefix` itself or lies below it, by whole segments.
    pub fn is_within(&self, prefix: &SecretPath) -> bool {
        is_within(self.as_str(), prefix.as_str())
    }
}

impl ResourcePath {
    /// The segments, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/')
    }

    /// Whether this path is `prefix` itself or lies below it, by whole segments.
    pub fn is_within(&self, prefix: &ResourcePath) -> bool {
        is_within(self.as_str(), prefix.as_str())
    }
}

impl From<SecretPath> for ResourcePath {
    /// Every secret path is a resource path.
    fn from(path: SecretPath) -> Self {
        Self(path.0)
    }
}

impl From<&SecretPath> for ResourcePath {
    fn from(path: &SecretPath) -> Self {
        Self(path.0.clone())
    }
}

impl AccountName {
    /// The name of the operating-system user, if this is one (`os:ana` gives `ana`).
    pub fn os_user(&self) -> Option<&str> {
        self.as_str().strip_prefix(OS_PREFIX)
    }

    /// Makes the account name of an operating-system user.
    ///
    /// # Errors
    /// When the user's name is not one an account may have.
    pub fn for_os_user(user: &str) -> Result<Self, NameError> {
        if user.starts_with(OS_PREFIX) {
            return Err(NameError::new(NameKind::AccountName, user, NameProblem::Character { position: 3 }));
        }
        format!("{OS_PREFIX}{user}").parse()
    }
}

impl VariableName {
    /// The variable that answers for one company: `STRIPE_API_KEY` and `acme` give `STRIPE_API_KEY__ACME`.
    ///
    /// # Errors
    /// When the result would be longer than a variable name may be.
    pub fn with_company(&self, company: &Company) -> Result<VariableName, NameError> {
        let suffix = company.as_str().to_ascii_uppercase().replace('-', "_");
        format!("{self}__{suffix}").parse()
    }
}

/// What a resource belongs to: one environment, or Keymoat itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Secrets and what hangs on them, in one environment.
    Environment(Environment),
    /// Keymoat's own parts: accounts, policies, audit log; written `sys`.
    System,
}

impl Scope {
    /// The canonical text: the environment's name, or `sys`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Environment(environment) => environment.as_str(),
            Self::System => SYSTEM_SCOPE,
        }
    }

    /// Whether a text is a scope.
    pub(crate) fn accepts(text: &str) -> bool {
        text == SYSTEM_SCOPE || Environment::accepts(text)
    }

    /// The environment, unless this is Keymoat itself.
    pub fn environment(&self) -> Option<&Environment> {
        match self {
            Self::Environment(environment) => Some(environment),
            Self::System => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == SYSTEM_SCOPE {
            return Ok(Self::System);
        }
        text.parse().map(Self::Environment)
    }
}

impl From<Environment> for Scope {
    fn from(environment: Environment) -> Self {
        Self::Environment(environment)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor::new("a scope"))
    }
}

/// A name that was refused, with what is allowed.
///
/// The offending text is kept only when it is short, printable and does not look like a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    kind: NameKind,
    shown: Option<Box<str>>,
    problem: NameProblem,
}

impl NameError {
    /// Which kind of name was refused.
    pub fn kind(&self) -> NameKind {
        self.kind
    }

    /// What was wrong with it.
    pub fn problem(&self) -> NameProblem {
        self.problem
    }

    /// The spelling that would be accepted, when only the case is wrong.
    pub fn suggestion(&self) -> Option<String> {
        (self.problem == NameProblem::UpperCase)
            .then(|| self.shown.as_deref().map(str::to_ascii_lowercase))
            .flatten()
    }

    fn new(kind: NameKind, input: &str, problem: NameProblem) -> Self {
        let shown = is_safe_to_show(input).then(|| input.into());
        Self { kind, shown, problem }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(shown) = self.shown.as_deref().filter(|shown| !shown.is_empty()) {
            write!(f, " `{shown}`")?;
        }
        write!(f, " {}", self.problem)?;
        if let Some(suggestion) = self.suggestion() {
            write!(f, " (did you mean `{suggestion}`?)")?;
        }
        write!(f, "; allowed: {}", self.kind.allowed())
    }
}

impl std::error::Error for NameError {}

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// Fewer bytes than the least.
    #[error("is shorter than {least} characters")]
    TooShort {
        /// The least number of bytes.
        least: usize,
    },
    /// More bytes than the most.
    #[error("is longer than {most} bytes")]
    TooLong {
        /// The greatest number of bytes.
        most: usize,
    },
    /// Upper case where only lower case is allowed; nothing else is wrong.
    #[error("has upper-case letters")]
    UpperCase,
    /// A character that is not allowed where it stands.
    #[error("has a character that is not allowed at position {position}")]
    Character {
        /// Counted in bytes from 1.
        position: usize,
    },
    /// A last character that is not allowed at the end.
    #[error("ends in a character that is not allowed there")]
    End,
    /// A word that Keymoat keeps for itself.
    #[error("is reserved")]
    Reserved,
    /// A path with more segments than allowed.
    #[error("has more than {most} segments")]
    TooManySegments {
        /// The greatest number of segments.
        most: usize,
    },
    /// Two slashes in a row, or one at either end.
    #[error("has an empty segment")]
    EmptySegment,
}

/// Whether `text` may be repeated in an error or a log: short, printable, and unlike a key.
///
/// This is a guess made on the safe side: it withholds much that is harmless.
pub fn is_safe_to_show(text: &str) -> bool {
    text.len() <= MAX_SHOWN && text.bytes().all(|b| (b' '..=b'~').contains(&b)) && !looks_like_key(text)
}

/// The known word nearest to `wanted`, at most two edits away; the first one when several are as near.
///
/// An edit is an insertion, deletion, substitution or swap of neighbours (optimal string alignment).
pub fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.len() > MAX_NEAREST_BYTES {
        return None;
    }
    let wanted: Vec<char> = wanted.chars().collect();
    let farthest = MAX_NEAREST_EDITS.min(wanted.len().saturating_sub(1));
    let mut best: Option<(usize, &str)> = None;
    for word in known.filter(|word| word.len() <= MAX_NEAREST_BYTES) {
        let letters: Vec<char> = word.chars().collect();
        if wanted.len().abs_diff(letters.len()) > farthest {
            continue;
        }
        let edits = edit_distance(&wanted, &letters);
        if edits <= farthest && best.is_none_or(|(fewest, _)| edits < fewest) {
            best = Some((edits, word));
        }
    }
    best.map(|(_, word)| word)
}

fn edit_distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let substituted = above[j] + usize::from(l != r);
            let mut least = substituted.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

fn looks_like_key(text: &str) -> bool {
    let is_key_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'=');
    let longest = text.as_bytes().split(|b| !is_key_char(*b)).map(<[u8]>::len).max().unwrap_or(0);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let mixed = digits > 0
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && text.bytes().any(|b| b.is_ascii_uppercase());
    longest >= KEY_RUN || digits >= KEY_DIGITS || (mixed && text.len() >= KEY_MIXED)
}

fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_environment(text: &str) -> Result<(), NameProblem> {
    check_shape(text, lower_letter, lower_alphanumeric, 12)?;
    if RESERVED_ENVIRONMENTS.contains(&text) {
        return Err(NameProblem::Reserved);
    }
    if text.len() < 2 {
        return Err(NameProblem::TooShort { least: 2 });
    }
    Ok(())
}

fn check_company(text: &str) -> Result<(), NameProblem> {
    check_shape(text, lower_letter, |b| lower_alphanumeric(b) || b == b'-', 31)?;
    if text.ends_with('-') {
        return Err(NameProblem::End);
    }
    Ok(())
}

fn check_secret_path(text: &str) -> Result<(), NameProblem> {
    check_segments(text, lower_path, 64)
}

fn check_resource_path(text: &str) -> Result<(), NameProblem> {
    check_segments(text, |b| lower_path(b) || b == b':', 80)
}

fn check_field(text: &str) -> Result<(), NameProblem> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    check_shape(text, |b| b.is_ascii_alphabetic() || b == b'_', rest, 64)
}

fn check_label(text: &str) -> Result<(), NameProblem> {
    check_shape(text, lower_letter, |b| lower_alphanumeric(b) || matches!(b, b'_' | b'-'), 32)
}

fn check_account(text: &str) -> Result<(), NameProblem> {
    let name = text.strip_prefix(OS_PREFIX).unwrap_or(text);
    check_policy(name).map_err(|problem| match problem {
        NameProblem::Character { position } => {
            NameProblem::Character { position: position + text.len() - name.len() }
        }
        other => other,
    })
}

fn check_policy(text: &str) -> Result<(), NameProblem> {
    check_shape(text, lower_letter, lower_path, 63)
}

fn check_variable(text: &str) -> Result<(), NameProblem> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    check_shape(text, |b| b.is_ascii_alphabetic() || b == b'_', rest, 128)
}

fn check_detail(text: &str) -> Result<(), NameProblem> {
    check_shape(text, lower_letter, |b| lower_alphanumeric(b) || b == b'_', 32)
}

fn check_segments(text: &str, rest: impl Fn(u8) -> bool + Copy, most: usize) -> Result<(), NameProblem> {
    if text.is_empty() {
        return Err(NameProblem::Empty);
    }
    if text.len() > MAX_PATH_BYTES {
        return Err(NameProblem::TooLong { most: MAX_PATH_BYTES });
    }
    let mut start = 0;
    for (count, segment) in text.split('/').enumerate() {
        if count == MAX_PATH_SEGMENTS {
            return Err(NameProblem::TooManySegments { most: MAX_PATH_SEGMENTS });
        }
        check_shape(segment, lower_alphanumeric, rest, most).map_err(|problem| match problem {
            NameProblem::Empty => NameProblem::EmptySegment,
            NameProblem::Character { position } => NameProblem::Character { position: start + position },
            NameProblem::UpperCase if !is_lowered_path(text, rest, most) => {
                NameProblem::Character { position: start + 1 }
            }
            other => other,
        })?;
        start += segment.len() + 1;
    }
    Ok(())
}

/// Whether the whole path would do in lower case; else "did you mean" would suggest a name that is refused too.
fn is_lowered_path(text: &str, rest: impl Fn(u8) -> bool + Copy, most: usize) -> bool {
    text.split('/')
        .all(|segment| check_shape(&segment.to_ascii_lowercase(), lower_alphanumeric, rest, most).is_ok())
        && text.split('/').count() <= MAX_PATH_SEGMENTS
}

fn check_shape(
    text: &str,
    first: impl Fn(u8) -> bool,
    rest: impl Fn(u8) -> bool,
    most: usize,
) -> Result<(), NameProblem> {
    if text.is_empty() {
        return Err(NameProblem::Empty);
    }
    if text.len() > most {
        return Err(NameProblem::TooLong { most });
    }
    let is_wrong = |(at, b): (usize, u8)| if at == 0 { !first(b) } else { !rest(b) };
    let Some(wrong) = text.bytes().enumerate().position(is_wrong) else {
        return Ok(());
    };
    let lowered = text.to_ascii_lowercase();
    if lowered != text && !lowered.bytes().enumerate().any(is_wrong) {
        return Err(NameProblem::UpperCase);
    }
    Err(NameProblem::Character { position: wrong + 1 })
}

fn lower_letter(b: u8) -> bool {
    b.is_ascii_lowercase()
}

fn lower_alphanumeric(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn lower_path(b: u8) -> bool {
    lower_alphanumeric(b) || matches!(b, b'_' | b'.' | b'-')
}

/// The text of a name: shared, so that a clone costs one counter, or fixed, so that a name can be a constant.
#[derive(Clone)]
enum Text {
    Fixed(&'static str),
    Shared(Arc<str>),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// Reads any type with a text form; the text is checked by the type's own parser.
pub(crate) struct TextVisitor<T> {
    expected: &'static str,
    of: PhantomData<T>,
}

impl<T> TextVisitor<T> {
    pub(crate) fn new(expected: &'static str) -> Self {
        Self { expected, of: PhantomData }
    }
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// How [`Scope::System`] is written.
pub const SYSTEM_SCOPE: &str = "sys";
/// Mounts of the Vault API that an environment must not shadow, and the scope of Keymoat itself.
pub const RESERVED_ENVIRONMENTS: [&str; 5] = [SYSTEM_SCOPE, "auth", "secret", "identity", "cubbyhole"];
/// Longest path in bytes: fits an index key and a log line.
pub const MAX_PATH_BYTES: usize = 256;
/// Deepest path in segments: bounds the work of matching a pattern.
pub const MAX_PATH_SEGMENTS: usize = 8;
/// What stands before the name of an operating-system user.
pub const OS_PREFIX: &str = "os:";
/// Longest refused text that an error repeats.
const MAX_SHOWN: usize = 40;
/// A run of letters and digits this long is taken for a key: the shortest keys of the catalogue have 16.
const KEY_RUN: usize = 16;
/// This many digits are taken for a key, a card or a telephone number.
const KEY_DIGITS: usize = 8;
/// Upper case, lower case and digits together in this many characters are taken for a password.
const KEY_MIXED: usize = 10;
/// Words longer than this are not compared: the work grows with the square.
const MAX_NEAREST_BYTES: usize = 256;
/// Farther words are not what was meant.
const MAX_NEAREST_EDITS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<T: FromStr<Err = NameError> + fmt::Display>(text: &str, expected: Result<(), NameProblem>) {
        let parsed = text.parse::<T>();
        match (&parsed, expected) {
            (Ok(name), Ok(())) => assert_eq!(name.to_string(), text),
            (Err(error), Err(problem)) => assert_eq!(error.problem(), problem, "{text:?}: {error}"),
            (Ok(_), Err(problem)) => panic!("{text:?} was accepted, wanted {problem}"),
            (Err(error), Ok(())) => panic!("{text:?} was refused: {error}"),
        }
    }

    const fn at(position: usize) -> Result<(), NameProblem> {
        Err(NameProblem::Character { position })
    }

    #[test]
    fn environments() {
        for good in ["prod", "dev", "p1", "staging2026", "abcdefghijkl"] {
            check::<Environment>(good, Ok(()));
        }
        for reserved in RESERVED_ENVIRONMENTS {
            check::<Environment>(reserved, Err(NameProblem::Reserved));
        }
        check::<Environment>("", Err(NameProblem::Empty));
        check::<Environment>("p", Err(NameProblem::TooShort { least: 2 }));
        check::<Environment>("abcdefghijklm", Err(NameProblem::TooLong { most: 12 }));
        check::<Environment>("Prod", Err(NameProblem::UpperCase));
        check::<Environment>("1prod", at(1));
        check::<Environment>("prod ", at(5));
        check::<Environment>(" prod", at(1));
        check::<Environment>("pro-d", at(4));
        check::<Environment>("prod\0", at(5));
        check::<Environment>("pr\u{043e}d", at(3));
    }

    #[test]
    fn companies() {
        for good in ["a", "acme", "acme-corp", "a--b", "a2345678901234567890123456789-1"] {
            check::<Company>(good, Ok(()));
        }
        check::<Company>("acme-", Err(NameProblem::End));
        check::<Company>("-acme", at(1));
        check::<Company>("*", at(1));
        check::<Company>("-", at(1));
        check::<Company>("ACME", Err(NameProblem::UpperCase));
        check::<Company>(&"a".repeat(32), Err(NameProblem::TooLong { most: 31 }));
    }

    #[test]
    fn paths() {
        for good in ["stripe", "payments/stripe", "a/b/c/d/e/f/g/h", "0", "a..b", "x-1_2.3"] {
            check::<SecretPath>(good, Ok(()));
            check::<ResourcePath>(good, Ok(()));
        }
        check::<SecretPath>("", Err(NameProblem::Empty));
        for empty in ["/stripe", "stripe/", "a//b", "/"] {
            check::<SecretPath>(empty, Err(NameProblem::EmptySegment));
        }
        check::<SecretPath>("..", at(1));
        check::<SecretPath>("a/../b", at(3));
        check::<SecretPath>("a/./b", at(3));
        check::<SecretPath>("a%2eb", at(2));
        check::<SecretPath>("a\\b", at(2));
        check::<SecretPath>("a;b", at(2));
        check::<SecretPath>("a#b", at(2));
        check::<SecretPath>("a*", at(2));
        check::<SecretPath>("os:ana", at(3));
        check::<ResourcePath>("accounts/os:ana", Ok(()));
        check::<SecretPath>("Stripe", Err(NameProblem::UpperCase));
        check::<SecretPath>("Stripe/a b", at(1));
        check::<SecretPath>("a/b/c/d/e/f/g/h/i", Err(NameProblem::TooManySegments { most: 8 }));
        check::<SecretPath>(&"a".repeat(65), Err(NameProblem::TooLong { most: 64 }));
        check::<SecretPath>(&"a/".repeat(200), Err(NameProblem::TooLong { most: 256 }));
    }

    #[test]
    fn a_name_has_one_spelling() {
        for spelling in SPELLINGS_OF_OWNER.split('|').chain(["owner|admin", ""]) {
            assert!(spelling.parse::<PolicyName>().is_err(), "{spelling:?}");
            assert!(spelling.parse::<AccountName>().is_err(), "{spelling:?}");
            assert!(spelling.parse::<Environment>().is_err(), "{spelling:?}");
            assert!(spelling.parse::<Company>().is_err(), "{spelling:?}");
        }
    }

    #[rustfmt::skip]
    const SPELLINGS_OF_OWNER: &str = "Owner|OWNER|oWner|owner | owner|  owner|owner\t|\towner|owner\n|owner\r\n|owner\0|\0owner|ow ner\
        |owner\u{a0}|\u{a0}owner|owner\u{200b}|\u{200b}owner|ow\u{ad}ner|\u{feff}owner|owner\u{202e}|\u{43e}wner|own\u{435}r|\u{ff4f}wner\
        |o\u{308}wner|\u{f6}wner|owne\u{280}|\u{1d428}wner|%6fwner|owner%20|owner%00|\\owner|owner/|/owner|./owner|owner;|owner,|owner=\
        |\"owner\"|'owner'|owner*|*|owner\u{301}|(owner)";

    #[test]
    fn other_names() {
        check::<Field>("secret_key", Ok(()));
        check::<Field>("_X.y-z", Ok(()));
        check::<Field>("1key", at(1));
        check::<Field>("", Err(NameProblem::Empty));
        check::<Label>("current", Ok(()));
        check::<Label>("CURRENT", Err(NameProblem::UpperCase));
        check::<AccountName>("odoo", Ok(()));
        check::<AccountName>("os:ana", Ok(()));
        check::<AccountName>("os:", Err(NameProblem::Empty));
        check::<AccountName>("os:os:ana", at(6));
        check::<AccountName>("OS:ana", at(1));
        check::<AccountName>("ana ", at(4));
        check::<PolicyName>("billing.read", Ok(()));
        check::<VariableName>("STRIPE_API_KEY", Ok(()));
        check::<VariableName>("A-B", at(2));
        check::<VariableName>("A=B", at(2));
        check::<VariableName>(&"A".repeat(129), Err(NameProblem::TooLong { most: 128 }));
    }

    #[test]
    fn errors_say_what_is_allowed_and_never_a_key() {
        let message = |text: &str| text.parse::<SecretPath>().unwrap_err().to_string();
        assert!(
            message("Stripe")
                .starts_with("path `Stripe` has upper-case letters (did you mean `stripe`?); allowed: "),
            "{}",
            message("Stripe")
        );
        for key in
            ["sk_live_4EXAMPLEexample0000", "AKIAEXAMPLEEXAMPLE00", "Tr0ub4dor&3", "4242 4242 4242 4242"]
        {
            assert!(!message(key).contains(key), "{}", message(key));
        }
        assert!(!message(&"x ".repeat(30)).contains("x x"));
        assert!(!message("a\u{202e}b").contains('\u{202e}'));
    }

    #[test]
    fn variables_carry_their_company() {
        let variable: VariableName = "STRIPE_API_KEY".parse().unwrap();
        let qualified = |company: &str| variable.with_company(&company.parse().unwrap()).unwrap();
        assert_eq!(qualified("acme").as_str(), "STRIPE_API_KEY__ACME");
        assert_eq!(qualified("acme-corp").as_str(), "STRIPE_API_KEY__ACME_CORP");
        let long: VariableName = "A".repeat(120).parse().unwrap();
        assert!(long.with_company(&"acme-corporation".parse().unwrap()).is_err());
    }

    #[test]
    fn nearest_word() {
        let known = ["prod", "staging", "dev", "test"];
        let check = |wanted: &str, expected: Option<&str>| {
            assert_eq!(nearest(wanted, known.into_iter()), expected, "{wanted}");
        };
        check("prd", Some("prod"));
        check("porд", Some("prod"));
        check("stagign", Some("staging"));
        check("prod", Some("prod"));
        check("production", None);
        check("", None);
        check("x", None);
        check("de", Some("dev"));
        check(&"p".repeat(10_000), None);
    }

    #[test]
    fn paths_contain_by_whole_segments() {
        let path = |text: &str| text.parse::<SecretPath>().unwrap();
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert!(!path("a").is_within(&path("a/b")));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept_as_it_is(text in "\\PC*|[a-z0-9/._:A-Z-]{0,40}|.{0,300}") {
            macro_rules! one { ($($name:ident)*) => { $(
                if let Ok(name) = text.parse::<$name>() {
                    prop_assert_eq!(name.as_str(), &text);
                    let json = serde_json::to_string(&name).unwrap();
                    prop_assert_eq!(serde_json::from_str::<$name>(&json).unwrap(), name);
                }
            )* } }
            one!(Environment Company SecretPath ResourcePath Field Label AccountName PolicyName VariableName DetailName);
            if let Err(error) = text.parse::<SecretPath>() {
                if let Some(suggestion) = error.suggestion() {
                    prop_assert!(suggestion.parse::<SecretPath>().is_ok(), "{}", error);
                }
                if text.len() > 40 {
                    prop_assert!(!error.to_string().contains(&text));
                }
            }
        }

        #[test]
        fn accepted_names_match_their_expressions(text in "[a-z0-9/._A-Z-]{0,20}") {
            let is = |first: &str, rest: &str, segment: &str| {
                let mut chars = segment.chars();
                chars.next().is_some_and(|c| first.contains(c)) && chars.all(|c| rest.contains(c))
            };
            let lower = "abcdefghijklmnopqrstuvwxyz";
            let digits = format!("{lower}0123456789");
            let company = text.len() <= 31 && is(lower, &format!("{digits}-"), &text) && !text.ends_with('-');
            prop_assert_eq!(text.parse::<Company>().is_ok(), company);
            let path = text.split('/').all(|s| is(&digits, &format!("{digits}_.-"), s)) && text.split('/').count() <= 8;
            prop_assert_eq!(text.parse::<SecretPath>().is_ok(), path);
        }
    }
}
