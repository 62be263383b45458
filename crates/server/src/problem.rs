//! Errors as problem+json (RFC 9457): what is wrong, for people and for programs, with the request's number.
//!
//! A handler answers with a [`Problem`]; the edge, which knows the request's number, writes it out. None ever repeats
//! what was sent.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use keymoat_core::id::RequestId;
use keymoat_core::names::NameError;
use keymoat_vault::{Code, VaultError};

use crate::wire;

/// Why a request was not answered as it wished.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) hint: Option<String>,
    /// When it is worth trying again, in seconds, where that is known.
    pub(crate) retry_after_secs: Option<u64>,
    /// What it really is, for a proxy that cannot pass that on.
    pub(crate) meant: Option<StatusCode>,
    /// Whether what follows on the connection cannot be told from this request, so that it has to end.
    pub(crate) ends_connection: bool,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            hint: None,
            retry_after_secs: None,
            meant: None,
            ends_connection: false,
        }
    }

    /// The request is not well formed.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::Invalid.as_str(), detail)
    }

    /// The request is well formed and means nothing.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid.as_str(), detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound.as_str(), detail)
    }

    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge.as_str(), detail)
    }

    /// Nothing can be answered without the vault's keys.
    pub(crate) fn sealed() -> Self {
        let detail = "the server is sealed and its keys are not in memory";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Sealed.as_str(), detail)
            .hint("`keymoat unseal` on the server's machine opens it with the master key")
    }

    /// More is asked at once than can be answered in time.
    pub(crate) fn overloaded() -> Self {
        let detail = "the server has more requests than it can answer in time";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable.as_str(), detail)
            .hint("nothing was done; send it again after the seconds in `Retry-After`")
    }

    /// Keymoat itself failed; what exactly is for its own log.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal.as_str(), "keymoat itself failed")
            .hint("its log says why, under the number of this request")
    }

    /// What a status alone says.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let detail = status.canonical_reason().unwrap_or("the request failed").to_lowercase();
        let code = match status {
            StatusCode::METHOD_NOT_ALLOWED => METHOD_NOT_ALLOWED,
            status if status.is_server_error() => Code::Internal.as_str(),
            _ => Code::Invalid.as_str(),
        };
        Self::new(status, code, detail)
    }

    /// The same with its cause.
    #[must_use]
    pub(crate) fn because(mut self, why: &str) -> Self {
        self.detail = format!("{}: {why}", self.detail);
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// When it is worth trying again.
    #[must_use]
    pub(crate) fn retry_after(mut self, secs: Option<u64>) -> Self {
        self.retry_after_secs = secs;
        self
    }

    /// Answers with another status, and says in a header which one is meant.
    #[must_use]
    pub(crate) fn disguised_as(mut self, status: StatusCode) -> Self {
        self.meant = Some(self.status);
        self.status = status;
        self
    }

    #[must_use]
    pub(crate) fn ending_connection(mut self) -> Self {
        self.ends_connection = true;
        self
    }

    /// The answer on the wire.
    pub(crate) fn render(&self, request: RequestId, headers: &HeaderMap) -> Response {
        let problem = wire::Problem {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Unknown").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.to_owned(),
            hint: self.hint.clone(),
            request: request.to_string(),
        };
        let text = serde_json::to_vec(&problem).expect("a problem is texts and a number");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let answer = response.headers_mut();
        answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(allow) = headers.get(header::ALLOW) {
            answer.insert(header::ALLOW, allow.clone());
        }
        if let Some(meant) = self.meant {
            answer.insert(X_KEYMOAT_STATUS, meant.as_u16().into());
        }
        match self.meant.unwrap_or(self.status) {
            StatusCode::UNAUTHORIZED => {
                answer.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                answer.insert(header::RETRY_AFTER, self.retry_after_secs.unwrap_or(RETRY_AFTER_SECS).into());
            }
            _ => {}
        }
        if self.ends_connection {
            answer.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// A bare status with the problem beside it, which the edge writes out.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        let status = status_of(error.code);
        if error.code == Code::Internal {
            tracing::error!(%error, "keymoat itself failed");
            return Self::internal();
        }
        if status.is_server_error() {
            tracing::warn!(%error, code = error.code.as_str(), "a request could not be served");
        }
        Self {
            hint: error.hint,
            retry_after_secs: error.retry_after_secs,
            ..Self::new(status, error.code.as_str(), error.message)
        }
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        let hint = error.suggestion().map(|name| format!("did you mean `{name}`?"));
        Self { hint, ..Self::malformed(error.to_string()) }
    }
}

fn status_of(code: Code) -> StatusCode {
    match code {
        Code::NotSignedIn => StatusCode::UNAUTHORIZED,
        Code::Refused => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Conflict | Code::Duplicate => StatusCode::CONFLICT,
        Code::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Sealed | Code::Unavailable | Code::InUse => StatusCode::SERVICE_UNAVAILABLE,
        Code::SourceDown => StatusCode::BAD_GATEWAY,
        Code::Damaged | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// RFC 9457 §3.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// The code of a request with a method that the path does not have.
pub(crate) const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
/// The status that is meant, where the proxy in front can pass on few.
const X_KEYMOAT_STATUS: HeaderName = HeaderName::from_static("x-keymoat-status");
/// RFC 6750 §3.
const CHALLENGE: &str = "Bearer realm=\"keymoat\"";
/// What makes the server refuse for a while is over in about a second, or takes an operator.
pub(crate) const RETRY_AFTER_SECS: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_their_statuses() {
        #[track_caller]
        fn check(code: Code, status: u16) {
            let problem = Problem::from(VaultError::new(code, "made up").hint("try again"));
            assert_eq!(problem.status.as_u16(), status, "{}", code.as_str());
            assert_eq!(problem.code, code.as_str());
        }
        check(Code::NotSignedIn, 401);
        check(Code::Refused, 403);
        check(Code::NotFound, 404);
        check(Code::Conflict, 409);
        check(Code::Duplicate, 409);
        check(Code::Invalid, 422);
        check(Code::TooLarge, 413);
        check(Code::RateLimited, 429);
        check(Code::Sealed, 503);
        check(Code::Unavailable, 503);
        check(Code::InUse, 503);
        check(Code::SourceDown, 502);
        check(Code::Damaged, 500);
        check(Code::Internal, 500);
    }

    #[test]
    fn what_failed_inside_stays_inside() {
        let problem = Problem::from(VaultError::new(Code::Internal, "the pages of the made-up database"));
        assert!(!problem.detail.contains("database"), "{}", problem.detail);
    }
}
