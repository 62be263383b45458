//! Scopes: what a key may do, as names; and questions about them, with `AND`, `OR` and brackets.
//!
//! A held scope may have stars, a question never has: what is asked for is always one thing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::names::{GroupName, RoleName, TextVisitor};

/// One thing that a key may be asked for, such as `orders.read`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeName(Arc<str>);

/// What a key holds: a scope, or all scopes of a shape. `*` stands for one segment, and as the last for one or more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldScope(Arc<str>);

/// All that a key holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held<'a> {
    /// Its own scopes.
    pub scopes: &'a [HeldScope],
    /// Its roles, each with the scopes that it stands for.
    pub roles: &'a [(RoleName, Arc<[HeldScope]>)],
    /// Its groups.
    pub groups: &'a [GroupName],
}

/// A question such as `orders.read AND (orders.own OR role:clerk)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeQuery(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Scope(ScopeName),
    Role(RoleName),
    Group(GroupName),
    All(Vec<Node>),
    Any(Vec<Node>),
}

impl ScopeName {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HeldScope {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it gives this scope.
    pub fn gives(&self, wanted: &ScopeName) -> bool {
        let mut mine = self.0.split('.').peekable();
        let mut theirs = wanted.0.split('.');
        while let Some(segment) = mine.next() {
            let Some(name) = theirs.next() else { return false };
            if segment != STAR && segment != name {
                return false;
            }
            if segment == STAR && mine.peek().is_none() {
                return true;
            }
        }
        theirs.next().is_none()
    }
}

impl Held<'_> {
    /// Whether a scope is among what is held, directly or by a role.
    pub fn gives(&self, wanted: &ScopeName) -> bool {
        let by_roles = self.roles.iter().flat_map(|(_, scopes)| scopes.iter());
        self.scopes.iter().chain(by_roles).any(|held| held.gives(wanted))
    }

    /// Whether it answers a question with yes.
    pub fn meets(&self, query: &ScopeQuery) -> bool {
        self.meets_node(&query.0)
    }

    fn meets_node(&self, node: &Node) -> bool {
        match node {
            Node::Scope(name) => self.gives(name),
            Node::Role(name) => self.roles.iter().any(|(role, _)| role == name),
            Node::Group(name) => self.groups.contains(name),
            Node::All(nodes) => nodes.iter().all(|node| self.meets_node(node)),
            Node::Any(nodes) => nodes.iter().any(|node| self.meets_node(node)),
        }
    }
}

impl FromStr for ScopeName {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        check(text, is_name)?;
        Ok(Self(text.into()))
    }
}

impl FromStr for HeldScope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        check(text, |segment| segment == STAR || is_name(segment))?;
        Ok(Self(text.into()))
    }
}

impl From<ScopeName> for HeldScope {
    fn from(name: ScopeName) -> Self {
        Self(name.0)
    }
}

impl FromStr for ScopeQuery {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text.len() > MAX_SCOPE_QUERY_BYTES {
            return Err(ScopeError::QueryTooLong);
        }
        let mut words = Words { rest: text, read: 0 };
        let node = any_of(&mut words, 0)?;
        match words.next() {
            None => Ok(Self(node)),
            Some(_) => Err(ScopeError::Query),
        }
    }
}

fn check(text: &str, is_segment: impl Fn(&str) -> bool) -> Result<(), ScopeError> {
    if text.len() > MAX_SCOPE_BYTES || text.split('.').count() > MAX_SCOPE_SEGMENTS {
        return Err(ScopeError::TooLong);
    }
    let is_taken = is_joint(text) || text.starts_with(ROLE) || text.starts_with(GROUP);
    if is_taken || !text.split('.').all(is_segment) {
        return Err(ScopeError::Name);
    }
    Ok(())
}

fn is_name(segment: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':');
    !segment.is_empty() && segment.bytes().all(is_plain)
}

/// Whether a word joins others; in which case it is written does not matter, so none of its spellings is a scope.
fn is_joint(word: &str) -> bool {
    word.eq_ignore_ascii_case(AND) || word.eq_ignore_ascii_case(OR)
}

/// `OR` binds less than `AND`, as everywhere.
fn any_of(words: &mut Words<'_>, depth: usize) -> Result<Node, ScopeError> {
    if depth > MAX_SCOPE_QUERY_DEPTH {
        return Err(ScopeError::QueryTooLong);
    }
    let mut node = all_of(words, depth)?;
    while words.take(OR) {
        node = node.or(all_of(words, depth)?);
    }
    Ok(node)
}

fn all_of(words: &mut Words<'_>, depth: usize) -> Result<Node, ScopeError> {
    let mut node = unit(words, depth)?;
    while words.take(AND) {
        node = node.and(unit(words, depth)?);
    }
    Ok(node)
}

fn unit(words: &mut Words<'_>, depth: usize) -> Result<Node, ScopeError> {
    let word = words.next().ok_or(ScopeError::Query)?;
    if word == "(" {
        let inner = any_of(words, depth + 1)?;
        return match words.take(")") {
            true => Ok(inner),
            false => Err(ScopeError::Query),
        };
    }
    words.read += 1;
    if words.read > MAX_SCOPE_QUERY_NAMES {
        return Err(ScopeError::QueryTooLong);
    }
    if let Some(role) = word.strip_prefix(ROLE) {
        return role.parse().map(Node::Role).map_err(|_| ScopeError::Query);
    }
    if let Some(group) = word.strip_prefix(GROUP) {
        return group.parse().map(Node::Group).map_err(|_| ScopeError::Query);
    }
    word.parse().map(Node::Scope)
}

/// The words and brackets of a question, one after the other.
struct Words<'t> {
    rest: &'t str,
    /// Names read so far.
    read: usize,
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<(&'t str, &'t str)> {
        let rest = self.rest.trim_start_matches(' ');
        let len = match rest.bytes().next()? {
            b'(' | b')' => 1,
            _ => rest.find([' ', '(', ')']).unwrap_or(rest.len()),
        };
        Some(rest.split_at(len))
    }

    fn next(&mut self) -> Option<&'t str> {
        let (word, rest) = self.peek()?;
        self.rest = rest;
        Some(word)
    }

    /// Takes this word if it is the next; its case does not matter.
    fn take(&mut self, wanted: &str) -> bool {
        match self.peek() {
            Some((word, rest)) if word.eq_ignore_ascii_case(wanted) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for HeldScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for ScopeQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Node {
    fn or(self, other: Self) -> Self {
        let nodes = [self, other].into_iter().flat_map(|node| match node {
            Self::Any(nodes) => nodes,
            node => vec![node],
        });
        Self::Any(nodes.collect())
    }

    fn and(self, other: Self) -> Self {
        let nodes = [self, other].into_iter().flat_map(|node| match node {
            Self::All(nodes) => nodes,
            node => vec![node],
        });
        Self::All(nodes.collect())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, joint) = match self {
            Self::Scope(name) => return f.write_str(name.as_str()),
            Self::Role(name) => return write!(f, "{ROLE}{name}"),
            Self::Group(name) => return write!(f, "{GROUP}{name}"),
            Self::All(nodes) => (nodes, AND),
            Self::Any(nodes) => (nodes, OR),
        };
        for (number, node) in nodes.iter().enumerate() {
            if number > 0 {
                write!(f, " {joint} ")?;
            }
            // The one place where brackets change what is meant.
            match (self, node) {
                (Self::All(_), Self::Any(_)) => write!(f, "({node})")?,
                _ => write!(f, "{node}")?,
            }
        }
        Ok(())
    }
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
    ScopeName, "a scope";
    HeldScope, "a scope, with stars";
    ScopeQuery, "a question about scopes";
}

/// A scope or question that was refused. Says what is allowed, never what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Not a scope.
    #[error(
        "scope is malformed; allowed: segments joined by `.`, each of letters, digits, `_`, `-`, `:`, and `*` for a whole segment where a key holds it; `and`, `or`, `role:…` and `group:…` are reserved"
    )]
    Name,
    /// A scope of too many bytes or segments.
    #[error("scope has more than {MAX_SCOPE_BYTES} bytes or {MAX_SCOPE_SEGMENTS} segments")]
    TooLong,
    /// Not a question.
    #[error(
        "question about scopes is malformed; allowed: scopes, `role:NAME` and `group:NAME`, joined by `AND` and `OR`, with brackets"
    )]
    Query,
    /// A question that is too long or too deep.
    #[error(
        "question about scopes has more than {MAX_SCOPE_QUERY_BYTES} bytes, {MAX_SCOPE_QUERY_NAMES} names or {MAX_SCOPE_QUERY_DEPTH} brackets in each other"
    )]
    QueryTooLong,
}

/// Longest scope in bytes: many stand in one header.
pub const MAX_SCOPE_BYTES: usize = 128;
/// Longest question in bytes: bounds the work of reading and of answering it.
pub const MAX_SCOPE_QUERY_BYTES: usize = 1024;
const MAX_SCOPE_SEGMENTS: usize = 8;
/// Most names in a question: each is compared with all that a key holds.
const MAX_SCOPE_QUERY_NAMES: usize = 64;
/// Deepest brackets: bounds the stack.
const MAX_SCOPE_QUERY_DEPTH: usize = 8;
const STAR: &str = "*";
const AND: &str = "AND";
const OR: &str = "OR";
const ROLE: &str = "role:";
const GROUP: &str = "group:";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(text: &str) -> HeldScope {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn name(text: &str) -> ScopeName {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn what_stars_give() {
        let check = |scope: &str, wanted: &str, expected: bool| {
            assert_eq!(held(scope).gives(&name(wanted)), expected, "{scope} {wanted}");
        };
        check("orders.read", "orders.read", true);
        check("orders.read", "orders", false);
        check("orders.read", "orders.read.own", false);
        check("orders.read", "orders.readall", false);
        check("orders.*", "orders.read", true);
        check("orders.*", "orders.read.own", true);
        check("orders.*", "orders", false);
        check("orders.*", "orders2.read", false);
        check("*", "orders", true);
        check("*", "orders.read.own", true);
        check("*.read", "orders.read", true);
        check("*.read", "orders.own.read", false);
        check("*.read", "orders.write", false);
        check("a.*.c", "a.b.c", true);
        check("Orders.read", "orders.read", false);
    }

    #[test]
    fn refused_scopes() {
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a,b",
            "and",
            "OR",
            "Or",
            "role:x",
            "group:x",
            "ordеrs",
            "a.b*",
            "(a)",
            "a\n",
            &"a".repeat(129),
            "a.a.a.a.a.a.a.a.a",
        ] {
            assert!(bad.parse::<ScopeName>().is_err(), "{bad:?}");
            assert!(bad.parse::<HeldScope>().is_err(), "{bad:?}");
        }
        assert!("orders.*".parse::<ScopeName>().is_err());
        assert!("android".parse::<ScopeName>().is_ok());
    }

    #[test]
    fn questions() {
        let check = |query: &str, expected: bool| {
            let roles = [("clerk".parse().unwrap(), Arc::from([held("stock.*")]))];
            let groups = ["shopfloor".parse().unwrap()];
            let scopes = [held("orders.read"), held("users.*")];
            let held = Held { scopes: &scopes, roles: &roles, groups: &groups };
            let parsed: ScopeQuery = query.parse().unwrap_or_else(|error| panic!("{query:?}: {error}"));
            assert_eq!(held.meets(&parsed), expected, "{query}");
            assert_eq!(parsed.to_string().parse::<ScopeQuery>().unwrap(), parsed, "{query}");
        };
        check("orders.read", true);
        check("orders.write", false);
        check("stock.count", true);
        check("role:clerk", true);
        check("role:chief", false);
        check("group:shopfloor AND role:clerk", true);
        check("group:office OR role:chief", false);
        check("orders.read AND users.write", true);
        check("orders.read AND orders.write", false);
        check("orders.write OR orders.read", true);
        check("orders.read or orders.write and orders.write", true);
        check("(orders.read OR orders.write) AND orders.write", false);
        check("orders.read AND (orders.write OR (users.a AND users.b))", true);
        check("  ( (orders.read))", true);
        assert!(!Held::default().meets(&"a".parse().unwrap()));
    }

    #[test]
    fn refused_questions() {
        let check = |query: &str, expected: ScopeError| {
            assert_eq!(query.parse::<ScopeQuery>(), Err(expected), "{query:?}");
        };
        check("", ScopeError::Query);
        check("   ", ScopeError::Query);
        check("()", ScopeError::Name);
        check("a AND", ScopeError::Query);
        check("a b", ScopeError::Query);
        check("(a", ScopeError::Query);
        check("a)", ScopeError::Query);
        check("AND a", ScopeError::Name);
        check("a OR OR b", ScopeError::Name);
        check("a AND b.*", ScopeError::Name);
        check("a && b", ScopeError::Query);
        check("a\tAND\tb", ScopeError::Name);
        check("role:", ScopeError::Query);
        check(&"(".repeat(9), ScopeError::QueryTooLong);
        check(&format!("{}a{}", "(".repeat(9), ")".repeat(9)), ScopeError::QueryTooLong);
        check(&"a".repeat(1025), ScopeError::QueryTooLong);
        check(&["a"; 65].join(" AND "), ScopeError::QueryTooLong);
        assert!(format!("{}a{}", "(".repeat(8), ")".repeat(8)).parse::<ScopeQuery>().is_ok());
        assert!(["a"; 64].join(" OR ").parse::<ScopeQuery>().is_ok());
    }

    fn small_query() -> impl Strategy<Value = Node> {
        let leaf = prop::sample::select(vec!["a", "b", "c"]).prop_map(|text| Node::Scope(name(text)));
        leaf.prop_recursive(3, 12, 3, |inner| {
            let some = prop::collection::vec(inner, 2..4);
            prop_oneof![some.clone().prop_map(Node::All), some.prop_map(Node::Any)]
        })
    }

    /// The meaning, written the long way.
    fn means(node: &Node, has: &[&str]) -> bool {
        match node {
            Node::Scope(name) => has.contains(&name.as_str()),
            Node::Role(_) | Node::Group(_) => false,
            Node::All(nodes) => !nodes.iter().any(|node| !means(node, has)),
            Node::Any(nodes) => nodes.iter().filter(|node| means(node, has)).count() > 0,
        }
    }

    proptest! {
        #[test]
        fn questions_mean_what_they_say(node in small_query(), mask in 0usize..8) {
            let has: Vec<&str> = ["a", "b", "c"].into_iter().enumerate()
                .filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| name).collect();
            let scopes: Vec<HeldScope> = has.iter().map(|name| held(name)).collect();
            let query: ScopeQuery = node.to_string().parse().unwrap();
            prop_assert_eq!(Held { scopes: &scopes, ..Held::default() }.meets(&query), means(&node, &has));
        }

        #[test]
        fn holding_more_never_gives_less(node in small_query(), fewer in 0usize..8, more in 0usize..8) {
            let scopes = |mask: usize| -> Vec<HeldScope> {
                (0..3).filter(|bit| mask >> bit & 1 == 1).map(|bit| held(["a", "b", "c"][bit])).collect()
            };
            let meets = |mask| Held { scopes: &scopes(mask), ..Held::default() }.meets(&ScopeQuery(node.clone()));
            prop_assert!(!meets(fewer) || meets(fewer | more));
        }

        #[test]
        fn parsers_take_anything(text in ".{0,60}|[a-z.*() :ANDOR]{0,60}") {
            if let Ok(query) = text.parse::<ScopeQuery>() {
                prop_assert_eq!(query.to_string().parse::<ScopeQuery>().unwrap(), query);
            }
            if let Ok(scope) = text.parse::<ScopeName>() {
                prop_assert_eq!(scope.as_str(), &text);
                prop_assert!(HeldScope::from(scope.clone()).gives(&scope));
            }
            if let Ok(scope) = text.parse::<HeldScope>() {
                prop_assert_eq!(scope.as_str(), &text);
            }
        }
    }
}
