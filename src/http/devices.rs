//! The devices of one's own account: the list, renaming, verifying, removing.

use actix_web::HttpResponse;
use actix_web::web::{Data, Json, Path};
use sotto_protocol::devices::{OwnDevices, RenameDevice, VerifyDevice};
use sotto_protocol::problem::Problem;
use sotto_protocol::{DeviceId, Timestamp, limits};

use super::auth::Caller;
use super::body::Body;
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

/// Removes a device of the account: keys, marks, place in the device lists. Its socket closes with 4503.
#[utoipa::path(delete, path = "/v1/devices/{device_id}", tag = "devices",
    params(("device_id" = DeviceId, Path)), responses((status = 204, description = "It is gone")))]
pub async fn remove(identity: Data<Identity>, caller: Caller, id: Path<DeviceId>) -> Result<HttpResponse, ApiError> {
    if !identity.remove_device(&caller, *id, Timestamp::now()).await? {
        return Err(Problem::not_found().into());
    }
    Ok(nothing())
}

/// Removes every device of the account but the calling one.
#[utoipa::path(delete, path = "/v1/devices", tag = "devices",
    responses((status = 204, description = "The calling device is the only one")))]
pub async fn remove_others(identity: Data<Identity>, caller: Caller) -> Result<HttpResponse, ApiError> {
    identity.remove_other_devices(&caller, Timestamp::now()).await?;
    Ok(nothing())
}
