//! Errors on their way to a client: RFC 9457 problems.
//!
//! A failure of the store is logged once, where it becomes a problem; the request's id stands on the log's span. The
//! id in the body is put there by the outermost layer of HTTP, or by the socket.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;
use sotto_protocol::problem::{ErrorCode, FieldError, Problem};
use sotto_schema::StoreError;
use sotto_schema::rows::sign_in::Reached;

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Member of a problem that names the limit which is reached: `{name, quota, window}`, the window in seconds.
const LIMIT: &str = "limit";

/// A problem as the answer to a request.
#[derive(Clone, Debug)]
pub struct ApiError(pub Problem);

impl ApiError {
    /// 429 for a limit of the store. It is named in the body and in the headers `RateLimit` and `RateLimit-Policy`.
    #[must_use]
    pub fn limited(reached: &Reached) -> Self {
        let wait = u64::try_from(reached.wait.as_millis()).unwrap_or(u64::MAX);
        let limit = json!({ "name": reached.kind, "quota": reached.most, "window": reached.span.as_secs() });
        Self(Problem::rate_limited(wait).with(LIMIT, limit))
    }

    /// Policy and state of the limit that is reached, as draft-ietf-httpapi-ratelimit-headers writes them.
    fn limit_headers(&self, seconds: u64) -> Option<(String, String)> {
        let limit = self.0.more.get(LIMIT)?;
        let name = limit.get("name")?.as_str()?;
        let (quota, window) = (limit.get("quota")?.as_u64()?, limit.get("window")?.as_u64()?);
        Some((format!("\"{name}\";q={quota};w={window}"), format!("\"{name}\";r=0;t={seconds}")))
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        error.0
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Problem::from(error).into()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            tracing::warn!(%error, "the database is not available");
            return Problem::unavailable("the database is busy or away").into();
        }
        tracing::error!(%error, "the database failed");
        Problem::new(ErrorCode::Internal, "something went wrong here; the server's log knows more").into()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        if self.0.code == ErrorCode::Unauthenticated {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(wait) = self.0.retry_after_ms {
            let seconds = wait.div_ceil(1000);
            response.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
            if let Some((policy, state)) = self.limit_headers(seconds) {
                response.insert_header((RATE_LIMIT_POLICY, policy)).insert_header((RATE_LIMIT, state));
            }
        }
        // A problem is text, numbers and lists of them: it can always be written.
        response.body(serde_json::to_vec(&self.0).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_limit_says_when_in_whole_seconds_rounded_up() {
        let span = Duration::from_secs(3600);
        let reached = Reached { kind: "code_number", most: 3, span, wait: Duration::from_millis(1001) };
        let response = ApiError::limited(&reached).error_response();
        let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(response.status(), 429);
        assert_eq!(header("retry-after"), "2");
        assert_eq!(header("ratelimit"), "\"code_number\";r=0;t=2");
        assert_eq!(header("ratelimit-policy"), "\"code_number\";q=3;w=3600");
        assert_eq!(header("content-type"), PROBLEM_JSON);
    }

    #[test]
    fn the_stores_failures_tell_nothing_of_themselves() {
        let error = ApiError::from(StoreError::Unavailable("password=hunter2".into()));
        assert_eq!(error.status_code(), 503);
        let text = serde_json::to_string(&error.0).unwrap();
        assert!(text.contains("unavailable") && !text.contains("hunter2"), "{text}");
        let error = ApiError::from(StoreError::Schema("x".into()));
        assert_eq!((error.status_code().as_u16(), error.0.code), (500, ErrorCode::Internal));
    }
}
