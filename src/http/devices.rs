//! The devices of one's own account: the list, renaming, verifying, removing.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json, Path};
use sotto_protocol::devices::{OwnDevices, RenameDevice, VerifyDevice};
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::{DeviceId, Timestamp, limits};

use super::address::ClientAddress;
use super::auth::Caller;
use super::body::{Body, OptionalBody};
use super::nothing;
use crate::error::ApiError;
use crate::identity::Identity;

/// All devices of the caller's account.
#[utoipa::path(get, path = "/v1/devices", tag = "devices",
    responses((status = 200, description = "The devices, the oldest first", body = OwnDevices)))]
pub async fn list(identity: Data<Identity>, caller: Caller) -> Result<Json<OwnDevices>, ApiError> {
    Ok(Json(identity.own_devices(&caller).await?))
}

/// Gives a device of the account another name; the others are told by `device_updated`.
#[utoipa::path(patch, path = "/v1/devices/{device_id}", tag = "devices", request_body = RenameDevice,
    params(("device_id" = DeviceId, Path)), responses((status = 204, description = "It has that name")))]
pub async fn rename(
    identity: Data<Identity>,
    caller: Caller,
    id: Path<DeviceId>,
    body: Body<RenameDevice, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.rename_device(&caller, *id, body.0, Timestamp::now()).await?;
    Ok(nothing())
}

/// Remembers that the owner has compared another device's identity key; the others are told by `device_updated`.
#[utoipa::path(post, path = "/v1/devices/{device_id}/verify", tag = "devices", request_body = VerifyDevice,
    params(("device_id" = DeviceId, Path)), responses((status = 204, description = "It is verified")))]
pub async fn verify(
    identity: Data<Identity>,
    caller: Caller,
    id: Path<DeviceId>,
    body: Body<VerifyDevice, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.verify_device(&caller, *id, body.0, Timestamp::now()).await?;
    Ok(nothing())
}

/// Removes a device of the account: keys, marks, place in the device lists. Its socket closes with 4503. The calling device is
/// removed without a body; for another one the account proves itself.
#[utoipa::path(delete, path = "/v1/devices/{device_id}", tag = "devices", request_body = Option<Reauthentication>,
    params(("device_id" = DeviceId, Path)), responses((status = 204, description = "It is gone")))]
pub async fn remove(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    id: Path<DeviceId>,
    body: OptionalBody<Reauthentication, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    if *id == caller.device_id {
        identity.logout(&caller, Timestamp::now()).await?;
    } else {
        identity.remove_devices(&caller, Some(*id), &body.0, address.0, Timestamp::now()).await?;
    }
    Ok(nothing())
}

/// Removes every device of the account but the calling one, after the account has proved itself.
#[utoipa::path(delete, path = "/v1/devices", tag = "devices", request_body = Reauthentication,
    responses((status = 204, description = "The calling device is the only one")))]
pub async fn remove_others(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: OptionalBody<Reauthentication, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.remove_devices(&caller, None, &body.0, address.0, Timestamp::now()).await?;
    Ok(nothing())
}
