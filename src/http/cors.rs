//! Which pages of other origins a browser lets in (`http.allowed_origins`). Unset: no header says anything.

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::config::network::Origin;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, idempotency-key");
const ANSWER_HEADERS: HeaderValue =
    HeaderValue::from_static("x-request-id, retry-after, ratelimit, ratelimit-policy, allow");
/// How long a browser may remember a preflight, in seconds.
const REMEMBER: HeaderValue = HeaderValue::from_static("7200");

/// The origins that may call.
#[derive(Clone, Debug, Default)]
pub struct AllowedOrigins(pub Vec<Origin>);

/// The origin of a request, if it is allowed.
fn allowed(request: &HttpRequest) -> Option<HeaderValue> {
    let origins = request.app_data::<web::Data<AllowedOrigins>>()?;
    let origin = request.headers().get(header::ORIGIN)?;
    let text = origin.to_str().ok()?;
    origins.0.iter().any(|known| known.as_str().eq_ignore_ascii_case(text)).then(|| origin.clone())
}

/// The answer to a preflight of an allowed origin. Others are ordinary requests, and find no method `OPTIONS`.
pub(super) fn preflight(request: &ServiceRequest) -> Option<HttpResponse> {
    let asks =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || allowed(request.request()).is_none() {
        return None;
    }
    let mut answer = HttpResponse::new(StatusCode::NO_CONTENT);
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBER);
    Some(answer)
}

/// What every answer says about origins.
pub(super) fn headers(request: &HttpRequest) -> Vec<(HeaderName, HeaderValue)> {
    let is_set = request.app_data::<web::Data<AllowedOrigins>>().is_some_and(|origins| !origins.0.is_empty());
    if !is_set {
        return Vec::new();
    }
    let mut headers = vec![(header::VARY, HeaderValue::from_static("origin"))];
    if let Some(origin) = allowed(request) {
        headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin));
        headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS));
    }
    headers
}
