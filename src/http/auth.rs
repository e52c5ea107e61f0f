//! Signing in and out: codes, registration, login, refresh, logout, me.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::{Data, Json};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, HttpResponse};
use sotto_protocol::auth::{
    LoginRequest, Me, RecoverRequest, RefreshRequest, RegisterRequest, Tokens, Verification, VerificationRequest,
};
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::{Timestamp, limits};
use sotto_schema::rows::logins::LoginOf;

use super::address::ClientAddress;
use super::body::Body;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::identity::history::Tried;
use crate::identity::session::unauthenticated;

pub use crate::identity::session::Caller;

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        if let Some(caller) = request.extensions().get::<Self>().copied() {
            return Box::pin(std::future::ready(Ok(caller)));
        }
        let identity = request.app_data::<Data<Identity>>().cloned();
        let token = bearer(request).map(str::to_owned);
        let address = ClientAddress::of(request);
        Box::pin(async move {
            let identity = identity.ok_or_else(|| Problem::new(ErrorCode::Internal, "identity is not wired"))?;
            let token = token.ok_or_else(unauthenticated)?;
            identity.authenticate_from(&token, Some(address.0), Timestamp::now()).await
        })
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1); the scheme in any case. Two headers are none.
fn bearer(request: &HttpRequest) -> Option<&str> {
    let mut values = request.headers().get_all(header::AUTHORIZATION);
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Sends a code to a number. The answer is the same whether or not the number has an account. No access token is needed; with
/// a valid one, a code for the account's own number counts against the account's budget, which strangers cannot exhaust.
#[utoipa::path(post, path = "/v1/auth/verifications", tag = "auth", request_body = VerificationRequest,
    responses((status = 201, description = "A code is on its way, if one is due", body = Verification)))]
pub async fn start_verification(
    identity: Data<Identity>,
    caller: Option<Caller>,
    address: ClientAddress,
    body: Body<VerificationRequest, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    let verification = identity.start_verification(body.0, caller, address.0, Timestamp::now()).await?;
    Ok(HttpResponse::Created().json(verification))
}

/// Makes an account with its first device. A number in use is told only after the right code.
#[utoipa::path(post, path = "/v1/auth/register", tag = "auth", request_body = RegisterRequest,
    responses((status = 201, description = "The new account's tokens", body = Tokens)))]
pub async fn register(
    identity: Data<Identity>,
    address: ClientAddress,
    request: HttpRequest,
    body: Body<RegisterRequest, { limits::MAX_BODY_SIGN_IN }>,
) -> Result<HttpResponse, ApiError> {
    let (now, of) = (Timestamp::now(), LoginOf::Code(body.0.verification_id));
    let tried = Tried { method: "registration", address: address.0, agent: agent(&request) };
    let answer = identity.register(body.0, tried, now).await;
    note(&identity, of, &tried, &answer, now);
    Ok(HttpResponse::Created().json(answer?))
}

/// Signs a device in: a new one, or a known one that proves its identity.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = LoginRequest,
    responses((status = 200, description = "The device's tokens", body = Tokens)))]
pub async fn login(
    identity: Data<Identity>,
    address: ClientAddress,
    request: HttpRequest,
    body: Body<LoginRequest, { limits::MAX_BODY_SIGN_IN }>,
) -> Result<Json<Tokens>, ApiError> {
    let (now, of) = (Timestamp::now(), LoginOf::Code(body.0.verification_id));
    let LoginRequest { totp, backup_code, pin, .. } = &body.0;
    let method = method(
        ["code", "code_totp", "code_backup_code", "code_pin"],
        totp.as_deref(),
        backup_code.as_deref(),
        pin.as_deref(),
    );
    let tried = Tried { method, address: address.0, agent: agent(&request) };
    let answer = identity.login(body.0, tried, now).await;
    note(&identity, of, &tried, &answer, now);
    Ok(Json(answer?))
}

/// Signs a new device in and removes all others, by a code and what stands behind it.
#[utoipa::path(post, path = "/v1/auth/recover", tag = "auth", request_body = RecoverRequest,
    responses((status = 200, description = "The new device's tokens", body = Tokens)))]
pub async fn recover(
    identity: Data<Identity>,
    address: ClientAddress,
    request: HttpRequest,
    body: Body<RecoverRequest, { limits::MAX_BODY_SIGN_IN }>,
) -> Result<Json<Tokens>, ApiError> {
    let (now, of) = (Timestamp::now(), LoginOf::Code(body.0.verification_id));
    let RecoverRequest { totp, backup_code, pin, .. } = &body.0;
    let methods = ["recovery", "recovery_totp", "recovery_backup_code", "recovery_pin"];
    let method = method(methods, totp.as_deref(), backup_code.as_deref(), pin.as_deref());
    let tried = Tried { method, address: address.0, agent: agent(&request) };
    let answer = identity.recover(body.0, tried, now).await;
    note(&identity, of, &tried, &answer, now);
    Ok(Json(answer?))
}

/// How somebody tries to sign in: by the code alone, or with what stands behind it.
fn method(names: [&'static str; 4], totp: Option<&str>, backup_code: Option<&str>, pin: Option<&str>) -> &'static str {
    let [plain, with_totp, with_backup_code, with_pin] = names;
    match (totp, backup_code, pin) {
        (Some(_), _, _) => with_totp,
        (None, Some(_), _) => with_backup_code,
        (None, None, Some(_)) => with_pin,
        (None, None, None) => plain,
    }
}

/// Notes a refused try in the history of the account that it was for.
fn note(identity: &Identity, of: LoginOf, tried: &Tried<'_>, answer: &Result<Tokens, ApiError>, now: Timestamp) {
    if let Err(error) = answer {
        identity.note_refused(of, tried, &error.0, now);
    }
}

/// What the program says that it is (RFC 9110, section 10.1.5).
pub(super) fn agent(request: &HttpRequest) -> Option<&str> {
    request.headers().get(header::USER_AGENT)?.to_str().ok()
}

/// New tokens for a refresh token, which works once.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", request_body = RefreshRequest,
    responses((status = 200, description = "The next tokens of the family", body = Tokens)))]
pub async fn refresh(
    identity: Data<Identity>,
    address: ClientAddress,
    body: Body<RefreshRequest, { limits::MAX_BODY }>,
) -> Result<Json<Tokens>, ApiError> {
    Ok(Json(identity.refresh_from(&body.0.refresh_token, Some(address.0), Timestamp::now()).await?))
}

/// Removes the calling device; its socket closes with 4503.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", responses((status = 204, description = "Signed out")))]
pub async fn logout(identity: Data<Identity>, caller: Caller) -> Result<HttpResponse, ApiError> {
    identity.logout(&caller, Timestamp::now()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The caller's account and device.
#[utoipa::path(get, path = "/v1/auth/me", tag = "auth",
    responses((status = 200, description = "Account and device", body = Me)))]
pub async fn me(identity: Data<Identity>, caller: Caller) -> Result<Json<Me>, ApiError> {
    Ok(Json(identity.me(&caller).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn one_bearer_token_and_nothing_else() {
        let token = |values: &[&str]| {
            let mut request = TestRequest::default();
            for value in values {
                request = request.append_header(("authorization", *value));
            }
            bearer(&request.to_http_request()).map(str::to_owned)
        };
        assert_eq!(token(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&["bearer  abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&[]), None);
        assert_eq!(token(&["Basic abc"]), None);
        assert_eq!(token(&["Bearerabc"]), None);
        assert_eq!(token(&["Bearer abc", "Bearer def"]), None);
    }
}
