//! Patterns of policy rules: which environments, companies, paths, modules and networks a rule speaks of.
//!
//! Every pattern answers three questions: does it match this, does it contain that other pattern (never yes by
//! mistake), may it match something that the other one matches (never no by mistake). A pattern has one
//! spelling. Whether a rule applies is decided in [`crate::policy`].

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::names::{
    Company, Environment, MAX_PATH_BYTES, MAX_PATH_SEGMENTS, ResourcePath, SYSTEM_SCOPE, Scope, TextVisitor,
};

/// Environments: a name, `prefix*`, `*` for all of them, or `sys` for Keymoat itself, which no star matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopePattern {
    /// Environments whose names match.
    Environments(Glob),
    /// Keymoat itself.
    System,
}

impl ScopePattern {
    /// Whether it matches.
    pub fn matches(&self, scope: &Scope) -> bool {
        match (self, scope) {
            (Self::System, Scope::System) => true,
            (Self::Environments(glob), Scope::Environment(environment)) => glob.matches(environment.as_str()),
            _ => false,
        }
    }

    /// Whether it matches everything that `other` matches.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System, Self::System) => true,
            (Self::Environments(mine), Self::Environments(theirs)) => mine.contains(theirs),
            _ => false,
        }
    }

    /// Whether there may be something that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System, Self::System) => true,
            (Self::Environments(mine), Self::Environments(theirs)) => mine.overlaps(theirs),
            _ => false,
        }
    }
}

impl FromStr for ScopePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == SYSTEM_SCOPE {
            return Ok(Self::System);
        }
        let is_name = |text: &str| text.parse::<Environment>().is_ok();
        let is_prefix =
            |prefix: &str| prefix.parse::<Environment>().is_ok() || is_name(&format!("{prefix}x"));
        let glob = Glob::parse(text, is_name, is_prefix).ok_or(PatternError::Environment)?;
        Ok(Self::Environments(glob))
    }
}

impl fmt::Display for ScopePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environments(glob) => glob.fmt(f),
            Self::System => f.write_str(SYSTEM_SCOPE),
        }
    }
}

/// Companies: a name, `prefix*`, `-` for none, `*` for any or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompanyPattern {
    /// Any company or none.
    AnyOrNone,
    /// Only what belongs to no company.
    NoCompany,
    /// Companies whose names match.
    Companies(Glob),
}

impl CompanyPattern {
    /// Whether it matches.
    pub fn matches(&self, company: Option<&Company>) -> bool {
        match (self, company) {
            (Self::AnyOrNone, _) | (Self::NoCompany, None) => true,
            (Self::Companies(glob), Some(company)) => glob.matches(company.as_str()),
            _ => false,
        }
    }

    /// Whether it matches everything that `other` matches.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AnyOrNone, _) | (Self::NoCompany, Self::NoCompany) => true,
            (Self::Companies(mine), Self::Companies(theirs)) => mine.contains(theirs),
            _ => false,
        }
    }

    /// Whether there may be something that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AnyOrNone, _) | (_, Self::AnyOrNone) | (Self::NoCompany, Self::NoCompany) => true,
            (Self::Companies(mine), Self::Companies(theirs)) => mine.overlaps(theirs),
            _ => false,
        }
    }
}

impl FromStr for CompanyPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text {
            "*" => Ok(Self::AnyOrNone),
            "-" => Ok(Self::NoCompany),
            _ => {
                let is_name = |text: &str| text.parse::<Company>().is_ok();
                let is_prefix = |prefix: &str| is_name(prefix) || is_name(&format!("{prefix}x"));
                Glob::parse(text, is_name, is_prefix).map(Self::Companies).ok_or(PatternError::Company)
            }
        }
    }
}

impl fmt::Display for CompanyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyOrNone => f.write_str("*"),
            Self::NoCompany => f.write_str("-"),
            Self::Companies(glob) => glob.fmt(f),
        }
    }
}

/// Paths by segments: a name, `prefix*`, `*` for exactly one segment; `**` at the end for any further ones or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Glob>,
    any_below: bool,
}

impl PathPattern {
    /// Whether it matches.
    pub fn matches(&self, path: &ResourcePath) -> bool {
        let mut names = path.segments();
        let begins = self.segments.iter().all(|glob| names.next().is_some_and(|name| glob.matches(name)));
        begins && (self.any_below || names.next().is_none())
    }

    /// Whether it matches everything that `other` matches.
    pub fn contains(&self, other: &Self) -> bool {
        let lengths_fit = match (self.any_below, other.any_below) {
            (true, _) => other.segments.len() >= self.segments.len(),
            (false, false) => other.segments.len() == self.segments.len(),
            (false, true) => false,
        };
        lengths_fit && self.segments.iter().zip(&other.segments).all(|(mine, theirs)| mine.contains(theirs))
    }

    /// Whether there may be something that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        let reaches = |longer: &Self, shorter: &Self| {
            longer.segments.len() == shorter.segments.len() || shorter.any_below
        };
        let lengths_fit = if self.segments.len() >= other.segments.len() {
            reaches(self, other)
        } else {
            reaches(other, self)
        };
        lengths_fit && self.segments.iter().zip(&other.segments).all(|(mine, theirs)| mine.overlaps(theirs))
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(PatternError::Path);
        }
        let (fixed, any_below) = match text.strip_suffix("**") {
            Some("") => return Ok(Self { segments: Vec::new(), any_below: true }),
            Some(rest) => (rest.strip_suffix('/').ok_or(PatternError::Path)?, true),
            None => (text, false),
        };
        let is_name = |name: &str| !name.contains('/') && name.parse::<ResourcePath>().is_ok();
        let segments: Option<Vec<Glob>> = fixed
            .split('/')
            .take(MAX_PATH_SEGMENTS + 1)
            .map(|part| Glob::parse(part, is_name, is_name))
            .collect();
        match segments {
            Some(segments) if segments.len() <= MAX_PATH_SEGMENTS => Ok(Self { segments, any_below }),
            _ => Err(PatternError::Path),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, glob) in self.segments.iter().enumerate() {
            let slash = if number == 0 { "" } else { "/" };
            write!(f, "{slash}{glob}")?;
        }
        match (self.any_below, self.segments.is_empty()) {
            (true, true) => f.write_str("**"),
            (true, false) => f.write_str("/**"),
            (false, _) => Ok(()),
        }
    }
}

/// Calling modules, as clients name themselves: a name or `prefix*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePattern(Glob);

impl ModulePattern {
    /// Whether it matches.
    pub fn matches(&self, module: &str) -> bool {
        self.0.matches(module)
    }

    /// Whether it matches everything that `other` matches.
    pub fn contains(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }
}

impl FromStr for ModulePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let is_name = |name: &str| {
            (1..=MAX_MODULE_BYTES).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        match Glob::parse(text, is_name, is_name) {
            Some(Glob::Any) | None => Err(PatternError::Module),
            Some(glob) => Ok(Self(glob)),
        }
    }
}

impl fmt::Display for ModulePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is in it; an IPv4 address inside IPv6 counts as the IPv4 address it is.
    pub fn matches(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it has every address that `other` has.
    pub fn contains(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.0.network()
    }

    /// How many bits of its addresses are fixed.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }
}

impl FromStr for Network {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().map_err(|_| PatternError::Network)?,
        };
        let is_mapped = matches!(network.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if network.trunc() != network || is_mapped {
            return Err(PatternError::Network);
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One name: everything, everything with a prefix, or exactly this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glob {
    /// `*`.
    Any,
    /// `prefix*`; the prefix is not empty.
    Prefix(Arc<str>),
    /// A name.
    Exactly(Arc<str>),
}

impl Glob {
    fn parse(text: &str, is_name: impl Fn(&str) -> bool, is_prefix: impl Fn(&str) -> bool) -> Option<Self> {
        match text.strip_suffix('*') {
            Some("") => Some(Self::Any),
            Some(prefix) => is_prefix(prefix).then(|| Self::Prefix(prefix.into())),
            None => is_name(text).then(|| Self::Exactly(text.into())),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
            Self::Exactly(exactly) => name == &**exactly,
        }
    }

    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (_, Self::Exactly(name)) => self.matches(name),
            (Self::Prefix(mine), Self::Prefix(theirs)) => theirs.starts_with(&**mine),
            (Self::Exactly(_), Self::Prefix(_)) => false,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exactly(name), glob) | (glob, Self::Exactly(name)) => glob.matches(name),
            (Self::Prefix(mine), Self::Prefix(theirs)) => {
                theirs.starts_with(&**mine) || mine.starts_with(&**theirs)
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exactly(name) => f.write_str(name),
        }
    }
}

/// A pattern that was refused. Says what is allowed, never what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a pattern of environments.
    #[error("pattern of environments is malformed; allowed: a name, `prefix*`, `*`, or `sys`")]
    Environment,
    /// Not a pattern of companies.
    #[error(
        "pattern of companies is malformed; allowed: a name, `prefix*`, `*` (any or none), or `-` (none)"
    )]
    Company,
    /// Not a pattern of paths.
    #[error(
        "pattern of paths is malformed; allowed: segments joined by `/`, each a name, `prefix*` or `*`, and `**` as the last"
    )]
    Path,
    /// Not a pattern of modules.
    #[error("pattern of modules is malformed; allowed: a name or `prefix*`")]
    Module,
    /// Not a network.
    #[error("network is malformed; allowed: an address, or `address/bits` with no bits set after the prefix")]
    Network,
}

macro_rules! as_text {
    ($($name:ident, $label:literal;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor::new($label))
            }
        }
    )*};
}

as_text! {
    ScopePattern, "a pattern of environments";
    CompanyPattern, "a pattern of companies";
    PathPattern, "a pattern of paths";
    ModulePattern, "a pattern of modules";
    Network, "a network";
}

/// Longest name of a module in bytes.
pub const MAX_MODULE_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> PathPattern {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn paths() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(path(pattern).matches(&name.parse().unwrap()), expected, "{pattern} on {name}");
            assert_eq!(path(pattern).to_string(), pattern);
        };
        check("stripe", "stripe", true);
        check("stripe", "stripe2", false);
        check("stripe", "stripe/a", false);
        check("*", "stripe", true);
        check("*", "a/b", false);
        check("pay*", "payments", true);
        check("pay*", "pay", true);
        check("pay*", "repay", false);
        check("pay*/*", "payments/stripe", true);
        check("**", "a", true);
        check("**", "a/b/c/d/e/f/g/h", true);
        check("a/**", "a", true);
        check("a/**", "a/b/c", true);
        check("a/**", "ab", false);
        check("a/*/c", "a/b/c", true);
        check("a/*/c", "a/c", false);
        check("accounts/os:*", "accounts/os:ana", true);
        for bad in [
            "", "/", "a/", "/a", "a//b", "**/a", "a**", "*a", "a*b", "a/**/b", "***", "A", "a/../b", "a b",
            "a/*/**x",
        ] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad:?}");
        }
        assert!("a/b/c/d/e/f/g/h/i".parse::<PathPattern>().is_err());
    }

    #[test]
    fn scopes_and_companies() {
        let scope = |pattern: &str, name: &str| {
            pattern.parse::<ScopePattern>().unwrap().matches(&name.parse().unwrap())
        };
        assert!(scope("*", "prod") && !scope("*", "sys") && scope("sys", "sys") && !scope("sys", "prod"));
        assert!(scope("s*", "staging") && !scope("s*", "sys") && !scope("sy*", "sys"));
        let company = |pattern: &str, name: Option<&str>| {
            let name: Option<Company> = name.map(|name| name.parse().unwrap());
            pattern.parse::<CompanyPattern>().unwrap().matches(name.as_ref())
        };
        assert!(company("*", None) && company("*", Some("acme")));
        assert!(company("-", None) && !company("-", Some("acme")));
        assert!(company("acme", Some("acme")) && !company("acme", None) && company("ac*", Some("acme")));
        for bad in ["", "PROD", "p rod", "secret", "**", "*a", "1*", "-"] {
            assert!(bad.parse::<ScopePattern>().is_err(), "{bad:?}");
        }
        for bad in ["", "ACME", "**", "--", "-*", "a-"] {
            assert!(bad.parse::<CompanyPattern>().is_err(), "{bad:?}");
        }
        assert!("acme-*".parse::<CompanyPattern>().is_ok());
    }

    #[test]
    fn networks() {
        let check = |network: &str, address: &str, expected: bool| {
            assert_eq!(network.parse::<Network>().unwrap().matches(address.parse().unwrap()), expected);
        };
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("::1", "::1", true);
        check("0.0.0.0/0", "::1", false);
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "::ffff:10.0.0.0/104", "localhost", "*"] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }

    fn small_path_pattern() -> impl Strategy<Value = PathPattern> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "a*", "ab*", "*"]);
        (prop::collection::vec(segment, 0..3), any::<bool>()).prop_map(|(segments, below)| {
            let text = segments.join("/");
            let text = match (text.is_empty(), below) {
                (true, _) => "**".to_owned(),
                (false, true) => format!("{text}/**"),
                (false, false) => text,
            };
            path(&text)
        })
    }

    fn small_paths() -> Vec<ResourcePath> {
        let names = ["a", "b", "ab", "abc", "c"];
        let mut paths: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for depth in [5usize, 30] {
            let longer: Vec<String> = paths[..depth]
                .iter()
                .flat_map(|front| names.iter().map(move |name| format!("{front}/{name}")))
                .collect();
            paths.extend(longer);
        }
        paths.iter().map(|text| text.parse().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn containment_and_overlap_agree_with_brute_force(mine in small_path_pattern(), theirs in small_path_pattern()) {
            let paths = small_paths();
            let (contains, overlaps) = (mine.contains(&theirs), mine.overlaps(&theirs));
            prop_assert_eq!(overlaps, theirs.overlaps(&mine));
            prop_assert!(mine.contains(&mine) && mine.overlaps(&mine));
            for path in &paths {
                prop_assert!(!contains || !theirs.matches(path) || mine.matches(path), "{} {} {}", mine, theirs, path);
                prop_assert!(overlaps || !(theirs.matches(path) && mine.matches(path)), "{} {} {}", mine, theirs, path);
            }
            if contains {
                prop_assert!(overlaps);
            }
        }

        #[test]
        fn parsers_take_anything(text in ".{0,40}|[a-z*/:.-]{0,30}|[0-9a-f.:/]{0,20}") {
            macro_rules! one { ($($name:ident)*) => { $(
                if let Ok(pattern) = text.parse::<$name>() {
                    prop_assert_eq!(pattern.to_string().parse::<$name>().unwrap(), pattern);
                }
            )* } }
            one!(ScopePattern CompanyPattern PathPattern ModulePattern Network);
        }
    }
}
