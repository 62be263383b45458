//! JSON bodies: read within limits and a deadline, and refused without being repeated.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::turn::Turn;

/// A JSON body.
pub(crate) struct Sent<T>(pub(crate) T);

/// A JSON body that may be left out.
pub(crate) struct SentOrNone<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts, body).await?;
        check_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for SentOrNone<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts, body).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_type(&parts.headers)?;
        parse(&bytes).map(Self)
    }
}

/// Reads a whole body. Who is waited for has no turn meanwhile, and only so much is held of all bodies together.
pub(crate) async fn read(parts: &Parts, body: Body) -> Result<Bytes, Problem> {
    let turn = parts.extensions.get::<Turn>();
    let Some(turn) = turn.filter(|_| !body.is_end_stream()) else { return read_now(body).await };
    let length = body.size_hint().exact().unwrap_or(BODY_BYTES_MAX as u64);
    let Some(_space) = turn.space(length) else { return Err(Problem::overloaded().ending_connection()) };
    turn.give_up();
    let bytes = read_now(body).await?;
    if turn.take_again() { Ok(bytes) } else { Err(Problem::overloaded()) }
}

async fn read_now(body: Body) -> Result<Bytes, Problem> {
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(READ_WITHIN, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Problem::too_large(format!("a body has at most {BODY_BYTES_MAX} bytes")).ending_connection())
        }
        Ok(Err(_)) => Err(Problem::malformed("the body broke off").ending_connection()),
        Err(_) => {
            let late = format!("the body was not there within {} seconds", READ_WITHIN.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", late).ending_connection())
        }
    }
}

/// Only JSON: a form that some page sends in a browser's name is not it.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid", "the body is not sent as JSON")
        .hint("send the header `Content-Type: application/json`"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::malformed("the request has no body, and this route needs one"));
    }
    // Serde would take a list for the parts of a type in order; all that routes take are objects.
    let is_list = bytes.trim_ascii_start().first() == Some(&b'[');
    if is_list && depth(bytes) <= DEPTH_MAX {
        return Err(Problem::malformed("the body is a list, and this route takes an object"));
    }
    if depth(bytes) > DEPTH_MAX {
        return Err(Problem::malformed(format!("the body is nested more than {DEPTH_MAX} levels deep")));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader);
    let value = parsed.map_err(|error| wrong_form(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

/// Says where a body is wrong, and in the program's own words what was wanted; never what was there.
fn wrong_form(path: &str, error: &serde_json::Error) -> Problem {
    if !error.is_data() {
        return not_json(error);
    }
    let place = place(path).map(|place| format!(" at `{place}`")).unwrap_or_default();
    let wanted = own_words(&error.to_string()).map(|words| format!(": {words}")).unwrap_or_default();
    Problem::invalid(format!(
        "the body has a wrong form{place} (line {}, column {}){wanted}",
        error.line(),
        error.column()
    ))
}

/// The place as far as its names are those of the program's own types.
fn place(path: &str) -> Option<String> {
    let known = crate::openapi::property_names();
    let is_known = |name: &&str| {
        let name = name.split('[').next().unwrap_or_default();
        name.is_empty() || known.contains(name)
    };
    let place: Vec<&str> = path.split('.').take_while(is_known).filter(|name| !name.is_empty()).collect();
    (!place.is_empty()).then(|| place.join("."))
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::malformed(format!("the body is not JSON: line {}, column {}", error.line(), error.column()))
}

/// The part of serde's message that speaks of the program's types alone. What a client sent stands in front of it, so
/// only what follows the last `expected` is taken, and only where serde itself puts it there.
fn own_words(message: &str) -> Option<String> {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    if message.starts_with("missing field `") {
        return Some(message.to_owned());
    }
    let what = ["unknown field", "unknown variant", "invalid type", "invalid value", "invalid length"]
        .into_iter()
        .find(|what| message.starts_with(what))?;
    let (_, wanted) = message.rsplit_once(", expected ")?;
    Some(format!("{what}, expected {wanted}"))
}

/// How deep arrays and objects are nested, without reading what is in them.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut is_escaped) = (0usize, 0usize, false, false);
    for byte in bytes {
        match (in_text, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Room for the largest value with its JSON escapes, and for the largest policy.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// A megabyte over a slow mobile network; with the time that a head may take, half a minute in all.
const READ_WITHIN: Duration = Duration::from_secs(20);
/// What the routes take is at most six levels deep.
const DEPTH_MAX: usize = 32;
const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CreateToken, PutSecret, Reveal};
    use proptest::prelude::*;

    #[test]
    fn wrong_bodies_are_explained_and_never_repeated() {
        #[track_caller]
        fn check<T: DeserializeOwned>(body: &str, status: u16, says: &str) {
            let Err(problem) = parse::<T>(body.as_bytes()) else { panic!("{body} was taken") };
            assert_eq!(problem.status, status, "{body}");
            assert!(problem.detail.contains(says), "{body}: {}", problem.detail);
            assert!(!problem.detail.contains("hush"), "{body}: {}", problem.detail);
        }
        check::<Reveal>("", 400, "no body");
        check::<Reveal>("{\"field\": hush", 400, "line 1, column 11");
        check::<Reveal>("{} hush", 400, "line 1");
        check::<Reveal>("[]", 400, "a list");
        check::<Reveal>(" \n[\"hush\", 1]", 400, "a list");
        check::<CreateToken>("[1]", 400, "a list");
        check::<Reveal>(
            "{\"field\": 3}",
            422,
            "at `field` (line 1, column 11): invalid type, expected a string",
        );
        check::<Reveal>("{\"version\": \"hush, expected hush\"}", 422, "at `version`");
        check::<CreateToken>("{}", 422, "missing field `ttl_secs`");
        check::<CreateToken>("{\"ttl_secs\":\"hush\"}", 422, "invalid type, expected u64");
        check::<PutSecret>("{\"value\":{\"hush\":\"x\"}}", 422, "expected one of");
        check::<PutSecret>("{\"value\":{\"text\":[\"hush\"]}}", 422, "expected text");
        check::<PutSecret>(&format!("{}{}", "[".repeat(33), "]".repeat(33)), 400, "nested");
        check::<PutSecret>(
            "{\"value\":{\"text\":\"x\"},\"about\":{\"expires_at\":\"hush\"},\"cas\":-1}",
            422,
            "at `cas`",
        );
    }

    /// A body that never comes.
    struct Never;

    impl axum::body::HttpBody for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let begun = tokio::time::Instant::now();
        let problem = read_now(Body::new(Never)).await.unwrap_err();
        assert_eq!((problem.status.as_u16(), begun.elapsed()), (408, READ_WITHIN));
    }

    proptest! {
        #[test]
        fn a_wrong_body_never_comes_back(marker in "hush[a-z0-9]{6}") {
            for body in [
                format!("{{\"value\":\"{marker}\"}}"),
                format!("{{\"value\":{{\"text\":{{\"a\":\"{marker}\"}}}}}}"),
                format!("{{\"value\":{{\"{marker}\":1}}}}"),
                format!("{{\"value\":{{\"text\":\"a\"}},\"cas\":\"{marker}, expected {marker}\"}}"),
                format!("{{\"value\":{{\"text\":\"a\"}},\"pending\":\"{marker}\""),
            ] {
                let problem = parse::<PutSecret>(body.as_bytes()).err().unwrap();
                prop_assert!(!problem.detail.contains(&marker), "{body}: {}", problem.detail);
            }
        }

        #[test]
        fn depth_takes_anything(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = depth(&bytes);
        }
    }
}
