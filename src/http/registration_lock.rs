//! The registration lock: its state, its PIN, its removal.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::registration_lock::{RegistrationLockState, SetRegistrationLock};
use sotto_protocol::{Timestamp, limits};

use super::address::ClientAddress;
use super::auth::Caller;
use super::body::Body;
use super::nothing;
use crate::error::ApiError;
use crate::identity::Identity;

/// Whether the caller's number is protected by a PIN.
#[utoipa::path(get, path = "/v1/auth/registration_lock", tag = "auth",
    responses((status = 200, description = "The state", body = RegistrationLockState)))]
pub async fn state(identity: Data<Identity>, caller: Caller) -> Result<Json<RegistrationLockState>, ApiError> {
    Ok(Json(identity.registration_lock(&caller).await?))
}

/// Sets the PIN, in the place of any other, after a fresh code and the second factor if there is one.
#[utoipa::path(put, path = "/v1/auth/registration_lock", tag = "auth", request_body = SetRegistrationLock,
    responses((status = 204, description = "The number is protected")))]
pub async fn set(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<SetRegistrationLock, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.set_registration_lock(&caller, body.0, address.0, Timestamp::now()).await?;
    Ok(nothing())
}

/// Removes the PIN, after a fresh code and the second factor if there is one.
#[utoipa::path(post, path = "/v1/auth/registration_lock/remove", tag = "auth", request_body = Reauthentication,
    responses((status = 204, description = "The number is not protected")))]
pub async fn remove(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<Reauthentication, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.remove_registration_lock(&caller, &body.0, address.0, Timestamp::now()).await?;
    Ok(nothing())
}
