//! Errors as clients see them: RFC 9457 problem details with a stable code.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// The stable code of an error. A client decides by it, never by the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ErrorCode {
    InvalidFrame,
    CursorUnknown,
    UnsupportedVersion,
    Unauthenticated,
    CodeRejected,
    SecondFactorRequired,
    ChallengeRequired,
    Forbidden,
    Blocked,
    NotFound,
    MethodNotAllowed,
    Conflict,
    LimitReached,
    DeviceListMismatch,
    DeviceStale,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
    IdempotencyMismatch,
    RateLimited,
    Internal,
    Unavailable,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidFrame | Self::CursorUnknown | Self::UnsupportedVersion => 400,
            Self::Unauthenticated | Self::CodeRejected | Self::SecondFactorRequired | Self::ChallengeRequired => 401,
            Self::Forbidden | Self::Blocked => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::LimitReached | Self::DeviceListMismatch => 409,
            Self::DeviceStale => 410,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::ValidationFailed | Self::IdempotencyMismatch => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidFrame => "invalid_frame",
            Self::CursorUnknown => "cursor_unknown",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Unauthenticated => "unauthenticated",
            Self::CodeRejected => "code_rejected",
            Self::SecondFactorRequired => "second_factor_required",
            Self::ChallengeRequired => "challenge_required",
            Self::Forbidden => "forbidden",
            Self::Blocked => "blocked",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::LimitReached => "limit_reached",
            Self::DeviceListMismatch => "device_list_mismatch",
            Self::DeviceStale => "device_stale",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::ValidationFailed => "validation_failed",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// A short title for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidFrame => "The request could not be read",
            Self::CursorUnknown => "The cursor is not known",
            Self::UnsupportedVersion => "This version is not spoken here",
            Self::Unauthenticated => "Sign in first",
            Self::CodeRejected => "The code was not accepted",
            Self::SecondFactorRequired => "A second factor is needed",
            Self::ChallengeRequired => "A challenge must be answered first",
            Self::Forbidden => "Not allowed",
            Self::Blocked => "Not accepted by the receiver",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "This method does not exist here",
            Self::Conflict => "In conflict with what is stored",
            Self::LimitReached => "A fixed limit is reached",
            Self::DeviceListMismatch => "The list of devices is not the present one",
            Self::DeviceStale => "A device has registered anew",
            Self::PayloadTooLarge => "Too large",
            Self::UnsupportedMediaType => "This media type is not taken",
            Self::ValidationFailed => "Some values are not valid",
            Self::IdempotencyMismatch => "The key was used with another body",
            Self::RateLimited => "Too many requests",
            Self::Internal => "Something went wrong here",
            Self::Unavailable => "Not available now",
        }
    }

    /// Whether the same request may succeed later without a change.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Internal | Self::Unavailable)
    }
}

/// One value that is not valid: where it stands, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// RFC 6901 pointer into the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of the query parameter or header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Why, as a stable word.
    pub code: String,
}

impl FieldError {
    /// An error at a place in the body.
    #[must_use]
    pub fn at(pointer: impl Into<String>, code: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, code: code.into() }
    }

    /// An error in a query parameter or header.
    #[must_use]
    pub fn parameter(name: impl Into<String>, code: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(name.into()), code: code.into() }
    }
}

/// An error as it is sent: RFC 9457 `application/problem+json`, and the same object in `err` frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text for people.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened here.
    pub detail: String,
    /// The stable code.
    pub code: ErrorCode,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When to try again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The request's id, as it stands in the server's log.
    pub request_id: String,
    /// The values that are not valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Further members such as `missing` or `attempts_left`.
    #[serde(flatten)]
    #[schema(additional_properties, value_type = Object)]
    pub more: Map<String, Value>,
}

impl Problem {
    /// A problem with its code and a sentence for people.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:sotto:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            retryable: code.retryable(),
            retry_after_ms: None,
            request_id: String::new(),
            errors: Vec::new(),
            more: Map::new(),
        }
    }

    /// 422 with the places that are wrong.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .first()
            .map(|error| {
                let place = error.pointer.as_deref().or(error.parameter.as_deref());
                format!("{}: {}", place.unwrap_or("the request"), error.code)
            })
            .unwrap_or_default();
        let mut problem = Self::new(ErrorCode::ValidationFailed, detail);
        problem.errors = errors;
        problem
    }

    /// 422 with one place that is wrong.
    #[must_use]
    pub fn field(pointer: impl Into<String>, code: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::at(pointer, code)])
    }

    /// 404.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "there is nothing here that you may see")
    }

    /// 503 with a time to wait.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, detail).retry_after(500)
    }

    /// 429 with a time to wait.
    #[must_use]
    pub fn rate_limited(retry_after_ms: u64) -> Self {
        Self::new(ErrorCode::RateLimited, "the limit of this kind of request is reached").retry_after(retry_after_ms)
    }

    /// Sets the time to wait, in milliseconds.
    #[must_use]
    pub fn retry_after(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// Marks the problem as worth a repeat although its code usually is not.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds a further member at the top level.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::invalid(vec![error])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Problem {}
