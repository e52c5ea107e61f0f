//! Finding people: which of a list of numbers have an account.

use actix_web::web::{Data, Json};
use sotto_protocol::auth::{LookupAnswer, LookupRequest};
use sotto_protocol::{Timestamp, limits};

use super::auth::Caller;
use super::body::Body;
use crate::error::ApiError;
use crate::identity::Identity;

/// Finds accounts by number; numbers without one, hidden and malformed ones are left out alike.
#[utoipa::path(post, path = "/v1/users/lookup", tag = "users", request_body = LookupRequest,
    responses((status = 200, description = "The numbers that were found", body = LookupAnswer)))]
pub async fn lookup(
    identity: Data<Identity>,
    caller: Caller,
    body: Body<LookupRequest, { limits::MAX_BODY }>,
) -> Result<Json<LookupAnswer>, ApiError> {
    Ok(Json(identity.lookup(&caller, body.0, Timestamp::now()).await?))
}
