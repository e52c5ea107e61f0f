//! The second factor: its state, setting it up, backup codes, turning it off.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::second_factor::{BackupCodes, EnableTotp, SecondFactorState, TotpSetUp};
use sotto_protocol::{Timestamp, limits};

use super::address::ClientAddress;
use super::auth::Caller;
use super::body::Body;
use super::nothing;
use crate::error::ApiError;
use crate::identity::Identity;

/// Whether sign-in asks for a second factor, and how many backup codes are left.
#[utoipa::path(get, path = "/v1/auth/totp", tag = "auth",
    responses((status = 200, description = "The state", body = SecondFactorState)))]
pub async fn state(identity: Data<Identity>, caller: Caller) -> Result<Json<SecondFactorState>, ApiError> {
    Ok(Json(identity.second_factor(&caller, Timestamp::now()).await?))
}

/// Begins to set a second factor up; it is asked for only when it was enabled.
#[utoipa::path(post, path = "/v1/auth/totp", tag = "auth",
    responses((status = 201, description = "What an authenticator app needs", body = TotpSetUp)))]
pub async fn set_up(identity: Data<Identity>, caller: Caller) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Created().json(identity.set_up_totp(&caller, Timestamp::now()).await?))
}

/// Enables the second factor that was set up, by a code that the app shows and what guards the account so far.
#[utoipa::path(post, path = "/v1/auth/totp/enable", tag = "auth", request_body = EnableTotp,
    responses((status = 200, description = "Ten backup codes, shown this once", body = BackupCodes)))]
pub async fn enable(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<EnableTotp, { limits::MAX_BODY }>,
) -> Result<Json<BackupCodes>, ApiError> {
    Ok(Json(identity.enable_totp(&caller, body.0, address.0, Timestamp::now()).await?))
}

/// Turns a second factor off that another device has enabled lately, by what guarded the account before.
#[utoipa::path(post, path = "/v1/auth/totp/undo", tag = "auth", request_body = Reauthentication,
    responses((status = 204, description = "Sign-in asks for what it asked for before")))]
pub async fn undo(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<Reauthentication, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.undo_totp(&caller, &body.0, address.0, Timestamp::now()).await?;
    Ok(nothing())
}

/// Turns the second factor off, after a fresh code and the second factor itself.
#[utoipa::path(post, path = "/v1/auth/totp/disable", tag = "auth", request_body = Reauthentication,
    responses((status = 204, description = "Sign-in does not ask for it any more")))]
pub async fn disable(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<Reauthentication, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.disable_totp(&caller, &body.0, address.0, Timestamp::now()).await?;
    Ok(nothing())
}

/// New backup codes in the place of all others, after a fresh code and the second factor.
#[utoipa::path(post, path = "/v1/auth/backup_codes", tag = "auth", request_body = Reauthentication,
    responses((status = 200, description = "Ten backup codes, shown this once", body = BackupCodes)))]
pub async fn renew_backup_codes(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<Reauthentication, { limits::MAX_BODY }>,
) -> Result<Json<BackupCodes>, ApiError> {
    Ok(Json(identity.renew_backup_codes(&caller, &body.0, address.0, Timestamp::now()).await?))
}
