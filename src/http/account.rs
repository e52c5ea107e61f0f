//! An account as a whole: its number, its deletion, and what the server knows of it.

use actix_web::HttpResponse;
use actix_web::http::header::{self, ContentType};
use actix_web::web::{Data, Json};
use sotto_protocol::account::AccountDeletion;
use sotto_protocol::auth::{ChangePhone, MeUser};
use sotto_protocol::export::Export;
use sotto_protocol::reauthentication::Reauthentication;
use sotto_protocol::{Timestamp, limits};

use super::address::ClientAddress;
use super::auth::Caller;
use super::body::Body;
use super::nothing;
use crate::error::ApiError;
use crate::identity::{Identity, export};

/// Gives the caller's account the number that a code was sent to. Needs the second factor where there is one, or else the PIN of
/// the registration lock or a code of the present number.
#[utoipa::path(post, path = "/v1/auth/phone", tag = "auth", request_body = ChangePhone,
    responses((status = 200, description = "The account with its new number", body = MeUser)))]
pub async fn change_phone(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<ChangePhone, { limits::MAX_BODY }>,
) -> Result<Json<MeUser>, ApiError> {
    Ok(Json(identity.change_phone(&caller, body.0, address.0, Timestamp::now()).await?))
}

/// Asks for the deletion of the caller's account, after a fresh code and the second factor if there is one.
#[utoipa::path(post, path = "/v1/auth/deletion", tag = "auth", request_body = Reauthentication,
    responses((status = 202, description = "When it will be deleted", body = AccountDeletion)))]
pub async fn request(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<Reauthentication, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    let deletion = identity.request_deletion(&caller, &body.0, address.0, Timestamp::now()).await?;
    Ok(HttpResponse::Accepted().json(deletion))
}

/// The deletion of the caller's account; empty when none was asked for.
#[utoipa::path(get, path = "/v1/auth/deletion", tag = "auth",
    responses((status = 200, description = "When it will be deleted", body = AccountDeletion)))]
pub async fn show(identity: Data<Identity>, caller: Caller) -> Result<Json<AccountDeletion>, ApiError> {
    Ok(Json(identity.deletion(&caller).await?))
}

/// Cancels the deletion of the caller's account.
#[utoipa::path(delete, path = "/v1/auth/deletion", tag = "auth",
    responses((status = 204, description = "The account stays")))]
pub async fn cancel(identity: Data<Identity>, caller: Caller) -> Result<HttpResponse, ApiError> {
    identity.cancel_deletion(&caller, Timestamp::now()).await?;
    Ok(nothing())
}

/// What the server knows of the caller's account, as a file, after the account has proved itself.
#[utoipa::path(post, path = "/v1/auth/export", tag = "auth", request_body = Reauthentication,
    responses((status = 200, description = "Everything but what `not_included` names", body = Export)))]
pub async fn export(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    body: Body<Reauthentication, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    let document = export::export(identity.into_inner(), caller, &body.0, address.0, Timestamp::now()).await?;
    let mut answer = HttpResponse::Ok();
    answer.content_type(ContentType::json());
    answer.insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"sotto-export.json\""));
    answer.insert_header((header::CACHE_CONTROL, "no-store"));
    Ok(answer.streaming(document))
}
