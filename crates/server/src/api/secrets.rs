//! Secrets: list, look at, write, describe, delete, reveal.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use keymoat_core::audit::{Action, AuditText};
use keymoat_core::names::{Company, Environment, Label, SecretPath};
use keymoat_vault::entity::SecretName;
use keymoat_vault::{Caller, Code, Put, Wanted};

use crate::AppState;
use crate::api::Answer;
use crate::body::{Sent, SentOrNone};
use crate::context::SignedIn;
use crate::convert;
use crate::params::{Names, Params};
use crate::problem::Problem;
use crate::wire;

/// A page of secrets.
pub(crate) async fn list(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    params: Params,
) -> Answer<wire::SecretPage> {
    let environment: Environment = params.need("environment")?;
    let company: Option<Company> = params.get("company")?;
    let prefix: Option<SecretPath> = params.get("prefix")?;
    let limit = limit_of(&params)?;
    let question = question(&caller, &environment, company.as_ref(), prefix.as_ref());
    let question: Vec<&str> = question.iter().map(String::as_str).collect();
    let after = params.text("cursor").map(|cursor| app.vault.open_cursor(&question, cursor)).transpose();
    let after = after.map_err(|error| Problem { status: StatusCode::BAD_REQUEST, ..error.into() })?;
    let page = app
        .vault
        .list(&caller, &environment, company.as_ref(), prefix.as_ref(), after.as_ref(), limit)
        .await?;
    Ok(Json(wire::SecretPage {
        secrets: convert::secrets_for(&app.vault, &caller, &page.secrets),
        next: page.next.map(|next| app.vault.seal_cursor(&question, &next)),
    }))
}

/// A secret without its values.
pub(crate) async fn show(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): Names<(String, String)>,
    params: Params,
) -> Result<Response, Problem> {
    let secret = app.vault.inspect(&caller, &name_of(names, &params)?).await?;
    Ok(with_tag(secret.versions.head(), Json(convert::secret(&secret))))
}

/// Writes a value.
pub(crate) async fn put(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): Names<(String, String)>,
    params: Params,
    headers: HeaderMap,
    Sent(sent): Sent<wire::PutSecret>,
) -> Result<Response, Problem> {
    let condition = condition_of(&headers)?;
    let put = Put {
        name: name_of(names, &params)?,
        value: convert::new_value(sent.value)?,
        replace: sent.replace,
        expected: expected(sent.cas, condition)?,
        pending: sent.pending,
        duplicate_because: sent.allow_duplicate.as_deref().map(AuditText::new),
        allow_empty: sent.allow_empty,
        annotation: convert::annotation(sent.about)?,
        action: if sent.import { Action::Import } else { Action::Write },
    };
    let written = match app.vault.put(&caller, put).await {
        // The condition stood in a header, so this is how HTTP says that it does not hold (RFC 9110 §13.1.1).
        Err(error) if error.code == Code::Conflict && condition.is_some() => {
            return Err(Problem {
                status: StatusCode::PRECONDITION_FAILED,
                code: "precondition_failed",
                ..error.into()
            });
        }
        outcome => outcome?,
    };
    let status = if written.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let answer = wire::Written {
        secret: convert::secret_for(&app.vault, &caller, &written.secret),
        version: written.version,
        is_new: written.is_new,
        unchanged: written.is_unchanged,
        also_at: convert::names(&written.also_at),
        event: written.event,
    };
    Ok(with_tag(written.secret.versions.head(), (status, Json(answer))))
}

/// Changes what is said about a secret.
pub(crate) async fn annotate(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): Names<(String, String)>,
    params: Params,
    Sent(sent): Sent<wire::Annotate>,
) -> Answer<wire::Secret> {
    let name = name_of(names, &params)?;
    let secret = app.vault.annotate(&caller, &name, convert::annotation(sent)?).await?;
    Ok(Json(convert::secret_for(&app.vault, &caller, &secret)))
}

/// Deletes versions, so that they can come back.
pub(crate) async fn remove(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): Names<(String, String)>,
    params: Params,
) -> Answer<wire::Secret> {
    let versions = params.text("versions").map(numbers).transpose()?.unwrap_or_default();
    let secret = app.vault.delete(&caller, &name_of(names, &params)?, versions).await?;
    Ok(Json(convert::secret_for(&app.vault, &caller, &secret)))
}

/// Gives a value out.
pub(crate) async fn reveal(
    State(app): State<AppState>,
    SignedIn(caller): SignedIn,
    Names(names): Names<(String, String)>,
    params: Params,
    SentOrNone(sent): SentOrNone<wire::Reveal>,
) -> Answer<wire::Revealed> {
    let name = name_of(names, &params)?;
    let field = sent.field.map(|field| field.parse()).transpose().map_err(convert::as_invalid)?;
    let wanted = match (sent.version, sent.label) {
        (Some(_), Some(_)) => return Err(Problem::invalid("`version` and `label` cannot both be said")),
        (Some(number), None) => Wanted::Number(number),
        (None, Some(label)) => Wanted::Label(label.parse::<Label>().map_err(convert::as_invalid)?),
        (None, None) => Wanted::default(),
    };
    let why = sent.why.as_deref().map(AuditText::new);
    let revealed = app.vault.reveal(&caller, &name, field.as_ref(), &wanted, why.as_ref()).await?;
    Ok(Json(convert::revealed(revealed)))
}

/// The secret that a path and its query name.
pub(crate) fn name_of((environment, path): (String, String), params: &Params) -> Result<SecretName, Problem> {
    Ok(SecretName { environment: environment.parse()?, company: params.get("company")?, path: path.parse()? })
}

/// A page's length.
pub(crate) fn limit_of(params: &Params) -> Result<usize, Problem> {
    let limit = params.quiet("limit", "a number")?.unwrap_or(PAGE);
    match limit {
        1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::malformed(format!("`limit` in the query is not between 1 and {PAGE_MAX}"))),
    }
}

/// What a cursor is good for: this caller and this question.
fn question(
    caller: &Caller,
    environment: &Environment,
    company: Option<&Company>,
    prefix: Option<&SecretPath>,
) -> [String; 4] {
    [
        caller.principal.to_string(),
        environment.to_string(),
        company.map(ToString::to_string).unwrap_or_default(),
        prefix.map(ToString::to_string).unwrap_or_default(),
    ]
}

/// The entity tag is the version that a check-and-set names.
fn with_tag(head: u32, answer: impl IntoResponse) -> Response {
    let tag = HeaderValue::try_from(format!("\"v{head}\"")).expect("digits and quotes");
    ([(header::ETAG, tag)], answer).into_response()
}

/// The version that the headers say is current: `If-Match: "v3"`, or `If-None-Match: *` for none.
fn condition_of(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let wrong = || {
        Problem::malformed("the request's condition is not one that can be kept")
            .hint("send `If-Match: \"v3\"` with the `ETag` of the answer before, or `If-None-Match: *` for a new secret")
    };
    let of = |name| -> Result<Option<&str>, Problem> {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| wrong()),
            (Some(_), Some(_)) => Err(wrong()),
        }
    };
    match (of(header::IF_MATCH)?, of(header::IF_NONE_MATCH)?) {
        _ if headers.contains_key(header::IF_UNMODIFIED_SINCE) => Err(wrong()),
        (None, None) => Ok(None),
        (None, Some("*")) => Ok(Some(0)),
        (Some(tag), None) => {
            let number = tag.strip_prefix("\"v").and_then(|rest| rest.strip_suffix('"'));
            let number = number.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            number.and_then(|digits| digits.parse().ok()).map(Some).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn expected(body: Option<u32>, header: Option<u32>) -> Result<Option<u32>, Problem> {
    match (body, header) {
        (Some(body), Some(header)) if body != header => {
            Err(Problem::malformed("`cas` in the body and the condition in the headers differ"))
        }
        (body, header) => Ok(body.or(header)),
    }
}

fn numbers(text: &str) -> Result<Vec<u32>, Problem> {
    let parsed: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    parsed.map_err(|_| Problem::malformed("`versions` in the query is not numbers joined by commas"))
}

const PAGE: usize = 100;
/// Keeps an answer at some hundred kilobytes.
const PAGE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn conditions_and_what_they_say() {
        #[track_caller]
        fn check(lines: &[(HeaderName, &str)], expected: Result<Option<u32>, u16>) {
            let line =
                |(name, value): &(HeaderName, &str)| (name.clone(), HeaderValue::try_from(*value).unwrap());
            let headers: HeaderMap = lines.iter().map(line).collect();
            assert_eq!(condition_of(&headers).map_err(|p| p.status.as_u16()), expected, "{lines:?}");
        }
        check(&[], Ok(None));
        check(&[(header::IF_MATCH, "\"v3\"")], Ok(Some(3)));
        check(&[(header::IF_NONE_MATCH, "*")], Ok(Some(0)));
        check(&[(header::IF_MATCH, "*")], Err(400));
        check(&[(header::IF_MATCH, "\"v+3\"")], Err(400));
        check(&[(header::IF_MATCH, "W/\"v3\"")], Err(400));
        check(&[(header::IF_MATCH, "\"v3\", \"v4\"")], Err(400));
        check(&[(header::IF_NONE_MATCH, "\"v3\"")], Err(400));
        check(&[(header::IF_MATCH, "\"v3\""), (header::IF_NONE_MATCH, "*")], Err(400));
        check(&[(header::IF_UNMODIFIED_SINCE, "yesterday")], Err(400));
    }

    #[test]
    fn two_ways_to_say_it_must_agree() {
        assert_eq!(expected(Some(3), Some(3)).unwrap(), Some(3));
        assert_eq!(expected(None, Some(3)).unwrap(), Some(3));
        assert_eq!(expected(Some(3), None).unwrap(), Some(3));
        assert_eq!(expected(None, None).unwrap(), None);
        assert!(expected(Some(3), Some(4)).is_err());
        assert_eq!(numbers("1,2").unwrap(), [1, 2]);
        assert!(numbers("1,,2").is_err());
    }
}
