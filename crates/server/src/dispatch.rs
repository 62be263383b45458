//! From a request to the handler of its route. The path is looked up once, in one table; what comes after is a call.

use std::collections::BTreeMap;
use std::pin::Pin;

use axum::extract::Request;
use axum::handler;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, header};

use crate::edge;
use crate::routes::{Route, Verb};

/// An answer in the making.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What makes the answers of a route.
pub(crate) type Handler<S> = Box<dyn Fn(Request, S) -> Answering + Send + Sync>;

/// A handler out of a function whose arguments say what it takes out of a request.
pub(crate) fn to<T, S, H>(function: H) -> Handler<S>
where
    H: handler::Handler<T, S, Future = Answering>,
{
    Box::new(move |request, state| function.clone().call(request, state))
}

/// Routes with their handlers, by path.
pub(crate) struct Table<S>(matchit::Router<Vec<Entry<S>>>);

/// A route as it is served.
pub(crate) struct Entry<S> {
    pub(crate) route: &'static Route,
    pub(crate) handler: Handler<S>,
}

/// The variable parts of a path, with the names that its route gives them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PathNames(Vec<(&'static str, String)>);

/// What a path and a method lead to.
pub(crate) enum Found<'t, S> {
    Route(&'t Entry<S>, PathNames),
    /// The path is one of these routes', and the method of none.
    OtherMethods(&'t [Entry<S>]),
    Nothing,
}

impl<S> Table<S> {
    /// A table of routes, each with the handler that is made for it.
    pub(crate) fn new(routes: &'static [Route], handler: impl Fn(&'static Route) -> Handler<S>) -> Self {
        let mut paths: BTreeMap<&str, Vec<Entry<S>>> = BTreeMap::new();
        for route in routes {
            paths.entry(route.path).or_default().push(Entry { route, handler: handler(route) });
        }
        let mut router = matchit::Router::new();
        for (path, entries) in paths {
            router.insert(path, entries).expect("no two paths of the table match the same");
        }
        Self(router)
    }

    /// What answers a request. A path has one spelling: nothing of it is normalised.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_, S> {
        let Ok(found) = self.0.at(path) else { return Found::Nothing };
        let entries = found.value;
        match entries.iter().find(|entry| entry.route.method.answers(method)) {
            Some(entry) => {
                let values = found.params.iter().map(|(_, value)| edge::plain(value).into_owned());
                Found::Route(entry, PathNames(entry.route.path_names().zip(values).collect()))
            }
            None => Found::OtherMethods(entries),
        }
    }
}

impl<S> Found<'_, S> {
    /// The path as the table has it, for logs and metrics.
    pub(crate) fn path(&self) -> &'static str {
        match self {
            Found::Route(entry, _) => entry.route.path,
            Found::OtherMethods(entries) => entries.first().map_or(NO_ROUTE, |entry| entry.route.path),
            Found::Nothing => NO_ROUTE,
        }
    }
}

impl PathNames {
    /// The values alone, outermost first.
    pub(crate) fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, value)| value.as_str())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

impl Verb {
    /// Whether a request with this method is for a route of this verb; who asks for a head alone asks a `GET`, and the
    /// body is left out on the way to him.
    fn answers(self, method: &Method) -> bool {
        self == Verb::Any || self.as_str() == method.as_str() || (self == Verb::Get && method == Method::HEAD)
    }
}

/// The answer to a method that the path does not have, with those that it has (RFC 9110 §15.5.6).
pub(crate) fn other_methods<S>(entries: &[Entry<S>]) -> Response {
    let methods = entries.iter().flat_map(|entry| match entry.route.method {
        Verb::Get | Verb::Any => vec!["GET", "HEAD"],
        other => vec![other.as_str()],
    });
    let allowed = methods.collect::<Vec<_>>().join(",");
    let mut response = edge::no_method().into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_str(&allowed).expect("methods are upper-case letters"));
    response
}

/// Stands for all paths that are none of the table's, so that nobody can make up more.
const NO_ROUTE: &str = "none";
