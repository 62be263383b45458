//! The query string and the variable parts of a path, read strictly: only what the route's table entry names, once
//! each, in one spelling.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use http::request::Parts;
use keymoat_core::names::is_safe_to_show;

use crate::dispatch::PathNames;
use crate::problem::Problem;
use crate::routes::Parameter;

/// The query of a request, checked against the route's table entry, and the variable parts of its path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    query: BTreeMap<&'static str, String>,
    path: PathNames,
}

impl Params {
    /// Reads a query string beside the names of a path.
    pub(crate) fn parse(
        query: Option<&str>,
        allowed: &[Parameter],
        path: PathNames,
    ) -> Result<Self, Problem> {
        let query = query.unwrap_or_default();
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(known) = allowed.iter().find(|known| known.name == name) else {
                return Err(unknown(&name, allowed));
            };
            if params.insert(known.name, value.into_owned()).is_some() {
                return Err(Problem::malformed(format!("the query has `{}` twice", known.name)));
            }
        }
        Ok(Self { query: params, path })
    }

    /// The names of a path alone, where the query is not for Keymoat.
    pub(crate) fn of_path(path: PathNames) -> Self {
        Self { query: BTreeMap::new(), path }
    }

    /// The text of a parameter; an empty one is none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The variable parts of the path.
    pub(crate) fn path(&self) -> &PathNames {
        &self.path
    }

    /// A parameter in its own type.
    pub(crate) fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|error: T::Err| Problem::malformed(format!("`{name}` in the query is wrong: {error}")))
    }

    /// A parameter whose own errors would repeat what was sent; `wanted` says what it should be.
    pub(crate) fn quiet<T: FromStr>(&self, name: &str, wanted: &str) -> Result<Option<T>, Problem> {
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|_| Problem::malformed(format!("`{name}` in the query is not {wanted}")))
    }

    /// A parameter that must be there.
    pub(crate) fn need<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Problem> {
        self.get(name)?.ok_or_else(|| Problem::malformed(format!("the query lacks `{name}`")))
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Params>().cloned().ok_or_else(Problem::internal)
    }
}

/// The variable parts of the path, as texts.
pub(crate) struct Names<T>(pub(crate) T);

impl<S: Sync> FromRequestParts<S> for Names<String> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let [name] = names_of(parts)?;
        Ok(Self(name))
    }
}

impl<S: Sync> FromRequestParts<S> for Names<(String, String)> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let [outer, inner] = names_of(parts)?;
        Ok(Self((outer, inner)))
    }
}

/// As many names as the path of a route has; another number is a fault of the table.
fn names_of<const N: usize>(parts: &Parts) -> Result<[String; N], Problem> {
    let params = parts.extensions.get::<Params>().ok_or_else(Problem::internal)?;
    let names: Vec<String> = params.path().values().map(str::to_owned).collect();
    names.try_into().map_err(|_| Problem::internal())
}

/// Refuses a query with a token in it, whoever asks.
pub(crate) fn refuse_tokens_in(query: Option<&str>) -> Result<(), Problem> {
    let query = query.unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).try_for_each(|(name, value)| refuse_token(&name, &value))
}

/// A token in an address ends up in logs, histories and other people's screens.
fn refuse_token(name: &str, value: &str) -> Result<(), Problem> {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    let is_token = TOKEN_NAMES.contains(&name.as_str())
        || TOKEN_BEGINNINGS.iter().any(|beginning| value.starts_with(beginning));
    if !is_token {
        return Ok(());
    }
    Err(Problem::malformed("a token does not belong into the address: addresses end up in logs")
        .hint("send it in the header `Authorization: Bearer …`, and revoke this one if it is real"))
}

fn unknown(name: &str, allowed: &[Parameter]) -> Problem {
    let what = if is_safe_to_show(name) { format!("`{name}`") } else { "a parameter".to_owned() };
    let known: Vec<String> = allowed.iter().map(|parameter| format!("`{}`", parameter.name)).collect();
    let problem = Problem::malformed(format!("the query has {what}, which this route does not know"));
    if known.is_empty() {
        problem.hint("it takes no query")
    } else {
        problem.hint(format!("it knows {}", known.join(", ")))
    }
}

/// Names under which clients put tokens, without `-` and `_`.
const TOKEN_NAMES: [&str; 8] =
    ["token", "accesstoken", "apikey", "authorization", "auth", "password", "xkeymoattoken", "xvaulttoken"];
/// What Keymoat's own tokens begin with.
const TOKEN_BEGINNINGS: [&str; 3] = ["kms_", "kmr_", "km_"];

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: [Parameter; 2] =
        [Parameter { name: "company", about: "whose" }, Parameter { name: "limit", about: "how many" }];

    #[test]
    fn queries_and_what_is_made_of_them() {
        #[track_caller]
        fn check(query: &str, expected: Result<&[(&str, &str)], &str>) {
            match (
                refuse_tokens_in(Some(query))
                    .and_then(|()| Params::parse(Some(query), &ALLOWED, PathNames::default())),
                expected,
            ) {
                (Ok(params), Ok(pairs)) => {
                    let found: Vec<(&str, &str)> =
                        params.query.iter().map(|(k, v)| (*k, v.as_str())).collect();
                    assert_eq!(found, pairs, "{query}");
                }
                (Err(problem), Err(says)) => {
                    assert!(problem.detail.contains(says), "{query}: {}", problem.detail);
                    assert_eq!(problem.status, 400);
                }
                (outcome, _) => panic!("{query}: {outcome:?}"),
            }
        }
        check("", Ok(&[]));
        check("company=acme&limit=3", Ok(&[("company", "acme"), ("limit", "3")]));
        check("company=a%2Db", Ok(&[("company", "a-b")]));
        check("company=acme&company=acme", Err("twice"));
        check("compnay=acme", Err("`compnay`"));
        check("token=x", Err("does not belong"));
        check("access_token=x", Err("does not belong"));
        check("X-Vault-Token=x", Err("does not belong"));
        check("company=kms_MadeUp", Err("does not belong"));
    }

    #[test]
    fn parameters_in_their_own_type() {
        let params = Params::parse(Some("company=Acme&limit=many"), &ALLOWED, PathNames::default()).unwrap();
        let error = params.get::<keymoat_core::names::Company>("company").unwrap_err();
        assert!(error.detail.contains("upper-case"), "{}", error.detail);
        assert!(params.quiet::<u32>("limit", "a number").unwrap_err().detail.ends_with("not a number"));
        assert!(params.get::<String>("nothing").unwrap().is_none());
        assert!(params.need::<String>("nothing").unwrap_err().detail.contains("lacks"));
    }
}
