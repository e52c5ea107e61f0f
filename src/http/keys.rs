//! The key directory: publishing keys, counting them, and getting those of others.

use actix_web::http::header;
use actix_web::web::{self, Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse};
use sotto_protocol::keys::{KeyCount, Keys, UserKeys};
use sotto_protocol::problem::{ErrorCode, FieldError, Problem};
use sotto_protocol::{DeviceId, Timestamp, UserId, limits};

use super::auth::Caller;
use super::body::Body;
use crate::error::ApiError;
use crate::identity::Identity;

/// Most `device_id` parameters that are looked at; a user has ten devices.
const MOST_DEVICES: usize = 100;

/// Publishes any part of the caller's keys, all or nothing.
#[utoipa::path(put, path = "/v1/keys", tag = "keys", request_body = Keys,
    responses((status = 204, description = "Stored")))]
pub async fn put(
    identity: Data<Identity>,
    caller: Caller,
    body: Body<Keys, { limits::MAX_BODY_LARGE }>,
) -> Result<HttpResponse, ApiError> {
    identity.put_keys(&caller, body.0, Timestamp::now()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// How many one-time keys the caller's device has left.
#[utoipa::path(get, path = "/v1/keys/count", tag = "keys",
    responses((status = 200, description = "The stocks", body = KeyCount)))]
pub async fn count(identity: Data<Identity>, caller: Caller) -> Result<Json<KeyCount>, ApiError> {
    Ok(Json(identity.key_count(&caller).await?))
}

/// The keys of a user's devices but the calling one; each one-time key is handed out once, ever.
#[utoipa::path(get, path = "/v1/users/{user_id}/keys", tag = "keys",
    params(
        ("user_id" = UserId, Path, description = "Whose keys"),
        ("device_id" = Option<Vec<DeviceId>>, Query, description = "Only these devices; repeatable"),
        ("claim" = Option<bool>, Query, description = "`false`: devices and identity keys only, nothing is handed out"),
    ),
    responses((status = 200, description = "A bundle per device", body = UserKeys)))]
pub async fn of_user(
    identity: Data<Identity>,
    caller: Caller,
    user: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let target = UserId::parse(&user).ok_or_else(Problem::not_found)?;
    let (only, take) = parameters(request.query_string())?;
    let keys = identity.user_keys(&caller, target, only, take, Timestamp::now()).await?;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(keys))
}

/// Which devices, and whether keys are handed out.
fn parameters(query: &str) -> Result<(Option<Vec<DeviceId>>, bool), Problem> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|_| Problem::new(ErrorCode::InvalidFrame, "the query cannot be read"))?;
    let mut only: Option<Vec<DeviceId>> = None;
    let mut take = true;
    for (name, value) in pairs.iter() {
        match (name.as_str(), value.as_str()) {
            ("device_id", text) => {
                let id = DeviceId::parse(text).ok_or_else(|| FieldError::parameter(name, "wrong_type"))?;
                let devices = only.get_or_insert_default();
                if devices.len() == MOST_DEVICES {
                    return Err(FieldError::parameter(name, "too_many").into());
                }
                devices.push(id);
            }
            ("claim", "true") => take = true,
            ("claim", "false") => take = false,
            ("claim", _) => return Err(FieldError::parameter(name, "wrong_type").into()),
            _ => {}
        }
    }
    Ok((only, take))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_repeatable() {
        let (a, b) = (DeviceId::random(), DeviceId::random());
        assert_eq!(parameters("").unwrap(), (None, true));
        let query = format!("device_id={a}&claim=false&device_id={b}&other=1");
        assert_eq!(parameters(&query).unwrap(), (Some(vec![a, b]), false));
        assert_eq!(parameters("claim=maybe").unwrap_err().status, 422);
        assert_eq!(parameters("device_id=x").unwrap_err().status, 422);
    }
}
