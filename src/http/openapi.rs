//! `GET /openapi.json`: the REST interface as OpenAPI 3.1, made from the types and handlers themselves.
//!
//! Handlers describe their parameters, bodies and answers; what they have in common (signing in, problems) is added
//! here from the route table. A test compares the document with the table.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use actix_web::HttpResponse;
use serde_json::{Map, Value, json};
use sotto_protocol::ErrorCode::{self, *};
use sotto_protocol::problem::{FieldError, Problem};
use utoipa::OpenApi;

use super::{ADMIN_ROUTES, ROUTES, Route, SHARED_ROUTES};

#[derive(OpenApi)]
#[openapi(
    info(title = "Sotto", description = "Realtime server for end-to-end-encrypted messengers: the REST interface.\n\n\
        Every answer carries `x-request-id`. Errors are RFC 9457 problems; decide by `code`, never by the text. \
        `unavailable` and `internal` leave the outcome unknown: repeat with the same ids. Answers to signed-in callers \
        carry `RateLimit` and `RateLimit-Policy`, a 429 `Retry-After`. Unknown members of bodies are ignored."),
    paths(
        super::auth::start_verification, super::auth::register, super::auth::login, super::auth::recover,
        super::auth::refresh, super::auth::logout, super::auth::me,
        super::second_factor::state, super::second_factor::set_up, super::second_factor::enable,
        super::second_factor::undo,
        super::second_factor::disable, super::second_factor::renew_backup_codes,
        super::registration_lock::state, super::registration_lock::set, super::registration_lock::remove,
        super::account::change_phone, super::account::request, super::account::show, super::account::cancel,
        super::account::export,
        super::history::trail, super::history::logins,
        super::device_link::begin, super::device_link::scan, super::device_link::confirm, super::device_link::refuse,
        super::device_link::collect,
        super::devices::list, super::devices::rename, super::devices::verify, super::devices::remove,
        super::devices::remove_others,
        super::keys::put, super::keys::count, super::keys::of_user,
        super::users::lookup,
        super::conversations::create, super::conversations::list, super::conversations::show,
        super::conversations::members, super::conversations::add_members, super::conversations::remove_members, super::conversations::mark_read,
        super::messages::send, super::messages::history, super::messages::mark_read,
        super::sync::read, super::sync::ack, super::upgrade_needed,
        super::health::health, super::health::livez, super::health::readyz, super::metrics::metrics, openapi,
    ),
    components(schemas(Problem, ErrorCode, FieldError)),
    tags(
        (name = "auth", description = "Codes, registration, sign-in, tokens, second factor"),
        (name = "devices", description = "The devices of one's own account"),
        (name = "keys", description = "The key directory: what devices publish, what others get of it"),
        (name = "users", description = "Finding people"),
        (name = "conversations", description = "Direct and group conversations"),
        (name = "messages", description = "Sending and history"),
        (name = "sync", description = "Catching up without a socket"),
        (name = "socket", description = "The WebSocket"),
        (name = "operation", description = "For those who run the server"),
    ),
)]
struct Document;

/// The codes that a route has beside those of its kind.
fn own_codes(method: &str, path: &str) -> &'static [ErrorCode] {
    match (method, path) {
        ("POST", "/v1/auth/verifications") => &[ChallengeRequired, RateLimited],
        ("POST", "/v1/auth/register") => &[CodeRejected, Conflict, RateLimited],
        ("POST", "/v1/auth/recover") => &[CodeRejected, SecondFactorRequired, Conflict, RateLimited],
        ("PUT", "/v1/auth/registration_lock") | ("POST", "/v1/auth/registration_lock/remove") => {
            &[CodeRejected, SecondFactorRequired]
        }
        ("POST", "/v1/auth/phone") => &[CodeRejected, SecondFactorRequired, Conflict],
        ("POST", "/v1/auth/login") => {
            &[CodeRejected, SecondFactorRequired, Forbidden, Conflict, LimitReached, RateLimited]
        }
        ("POST", "/v1/auth/totp") => &[Conflict],
        ("POST", "/v1/auth/totp/enable") => &[CodeRejected, Conflict],
        ("POST", "/v1/auth/totp/disable" | "/v1/auth/backup_codes") => &[CodeRejected, SecondFactorRequired, Conflict],
        ("POST", "/v1/auth/links") => &[RateLimited],
        ("POST", "/v1/auth/links/{link_id}/confirm") => &[CodeRejected, SecondFactorRequired, Conflict, LimitReached],
        ("POST", "/v1/auth/links/{link_id}/tokens") => &[Conflict, LimitReached],
        ("POST", "/v1/auth/refresh") => &[Unauthenticated, RateLimited],
        ("POST", "/v1/auth/deletion") => &[CodeRejected, SecondFactorRequired],
        ("DELETE", "/v1/auth/deletion") => &[NotFound],
        ("GET", "/v1/auth/trail" | "/v1/auth/logins") => &[CursorUnknown, ValidationFailed],
        ("POST", "/v1/devices/{device_id}/verify") => &[Conflict],
        ("PUT", "/v1/keys") => &[Conflict],
        ("GET", "/v1/users/{user_id}/keys") => &[ValidationFailed],
        ("POST", "/v1/conversations") => &[NotFound, Conflict, LimitReached, IdempotencyMismatch],
        ("GET", "/v1/conversations") => &[CursorUnknown, ValidationFailed],
        ("POST" | "DELETE", "/v1/conversations/{conversation_id}/members") => &[Forbidden, LimitReached],
        ("POST", "/v1/messages") => {
            &[NotFound, Forbidden, Blocked, Conflict, DeviceListMismatch, DeviceStale, IdempotencyMismatch]
        }
        ("GET", "/v1/conversations/{conversation_id}/messages") => &[ValidationFailed],
        ("PUT", "/v1/messages/{message_id}/read") => &[Conflict],
        ("GET", "/v1/sync") => &[ValidationFailed],
        ("POST", "/v1/sync/ack") => &[CursorUnknown],
        _ => &[],
    }
}

/// Every code that a route may answer with, by status.
fn codes(route: &Route, method: &str, has_body: bool) -> BTreeMap<u16, Vec<ErrorCode>> {
    let mut codes = vec![Internal, Unavailable, RateLimited];
    if route.open.is_none() {
        codes.push(Unauthenticated);
    }
    if route.path.contains('{') {
        codes.push(NotFound);
    }
    if has_body {
        codes.extend([InvalidFrame, PayloadTooLarge, UnsupportedMediaType, ValidationFailed]);
    }
    codes.extend(own_codes(method, route.path));
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes {
        let list = by_status.entry(code.status()).or_default();
        if !list.contains(&code) {
            list.push(code);
        }
    }
    by_status
}

/// The document as JSON text.
#[must_use]
pub fn document() -> String {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        // The document is text, numbers and maps with text keys: it can always be written.
        let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
        if let Some(schemes) = document.get_mut("components").and_then(Value::as_object_mut) {
            let description = "An access token, from sign-in or refresh";
            schemes.insert(
                "securitySchemes".to_owned(),
                json!({"bearer": {"type": "http", "scheme": "bearer", "description": description}}),
            );
        }
        for route in [ROUTES, SHARED_ROUTES, ADMIN_ROUTES].into_iter().flatten() {
            for method in route.methods {
                let operation = document
                    .get_mut("paths")
                    .and_then(|paths| paths.get_mut(route.path))
                    .and_then(|path| path.get_mut(method.to_lowercase()));
                if let Some(operation) = operation.and_then(Value::as_object_mut) {
                    complete(operation, route, method);
                }
            }
        }
        document.to_string()
    })
    .clone()
}

/// Adds to an operation what it has in common with others.
fn complete(operation: &mut Map<String, Value>, route: &Route, method: &str) {
    let security = if route.open.is_some() { json!([]) } else { json!([{"bearer": []}]) };
    operation.insert("security".to_owned(), security);
    // Handlers of two resources may have the same name.
    let id = format!("{} {}", method.to_lowercase(), route.path);
    let id: Vec<&str> = id.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    operation.insert("operationId".to_owned(), id.join("_").into());
    if !route.path.starts_with("/v1/") || route.path == "/v1/ws" {
        return;
    }
    let has_body = operation.contains_key("requestBody");
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else {
        return;
    };
    for (status, codes) in codes(route, method, has_body) {
        let names: Vec<String> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
        let problem = json!({
            "description": names.join(", "),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        });
        responses.entry(status.to_string()).or_insert(problem);
    }
}

/// `GET /openapi.json`.
#[utoipa::path(get, path = "/openapi.json", tag = "operation", responses(
    (status = 200, description = "This document", body = Object, content_type = "application/json"),
))]
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(document())
}
