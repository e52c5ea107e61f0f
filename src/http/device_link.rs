//! Linking a new device: it begins and collects without being signed in; a device of the account scans, confirms, refuses.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse};
use sotto_protocol::auth::Tokens;
use sotto_protocol::device_link::{BeginLink, BegunLink, CollectLink, ConfirmLink, LinkCode, LinkPending, ScannedLink};
use sotto_protocol::{LinkId, Timestamp, limits};

use super::address::ClientAddress;
use super::auth::{Caller, agent};
use super::body::Body;
use super::nothing;
use crate::error::ApiError;
use crate::identity::Identity;
use crate::identity::device_link::Collected;
use crate::identity::history::Tried;

/// A new device asks to be linked, and gets the QR code to show. Valid for five minutes, for one account, once.
#[utoipa::path(post, path = "/v1/auth/links", tag = "auth", request_body = BeginLink,
    responses((status = 201, description = "What to show, and what to keep", body = BegunLink)))]
pub async fn begin(
    identity: Data<Identity>,
    address: ClientAddress,
    body: Body<BeginLink, { limits::MAX_BODY_SIGN_IN }>,
) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Created().json(identity.begin_link(body.0, address.0, Timestamp::now()).await?))
}

/// Shows a QR code that was scanned; tells who wants to join. For any other account the link is gone from then on.
#[utoipa::path(post, path = "/v1/auth/links/{link_id}/scan", tag = "auth", request_body = LinkCode,
    params(("link_id" = LinkId, Path)),
    responses((status = 200, description = "Who wants to join", body = ScannedLink)))]
pub async fn scan(
    identity: Data<Identity>,
    caller: Caller,
    id: Path<LinkId>,
    body: Body<LinkCode, { limits::MAX_BODY }>,
) -> Result<Json<ScannedLink>, ApiError> {
    Ok(Json(identity.scan_link(&caller, *id, &body.0, Timestamp::now()).await?))
}

/// Takes the device into the caller's account, after a fresh code and the second factor. A repeat is answered alike.
#[utoipa::path(post, path = "/v1/auth/links/{link_id}/confirm", tag = "auth", request_body = ConfirmLink,
    params(("link_id" = LinkId, Path)),
    responses((status = 204, description = "The new device may collect its tokens")))]
pub async fn confirm(
    identity: Data<Identity>,
    caller: Caller,
    address: ClientAddress,
    id: Path<LinkId>,
    body: Body<ConfirmLink, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.confirm_link(&caller, *id, body.0, address.0, Timestamp::now()).await?;
    Ok(nothing())
}

/// Refuses a link that the account has scanned, until the device has its tokens.
#[utoipa::path(post, path = "/v1/auth/links/{link_id}/refuse", tag = "auth", request_body = LinkCode,
    params(("link_id" = LinkId, Path)),
    responses((status = 204, description = "Nobody can use the link any more")))]
pub async fn refuse(
    identity: Data<Identity>,
    caller: Caller,
    id: Path<LinkId>,
    body: Body<LinkCode, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    identity.refuse_link(&caller, *id, &body.0, Timestamp::now()).await?;
    Ok(nothing())
}

/// The new device's tokens, once the account has confirmed. Waits up to four seconds for it.
#[utoipa::path(post, path = "/v1/auth/links/{link_id}/tokens", tag = "auth", request_body = CollectLink,
    params(("link_id" = LinkId, Path)),
    responses(
        (status = 200, description = "The device's tokens; the same again for a minute while none was used", body = Tokens),
        (status = 202, description = "Nobody has confirmed yet: ask again", body = LinkPending),
    ))]
pub async fn collect(
    identity: Data<Identity>,
    address: ClientAddress,
    request: HttpRequest,
    id: Path<LinkId>,
    body: Body<CollectLink, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    let tried = Tried { method: "link", address: address.0, agent: agent(&request) };
    Ok(match identity.collect_link(*id, &body.0, tried, Timestamp::now).await? {
        Collected::Tokens(tokens) => HttpResponse::Ok().json(tokens),
        Collected::Pending(pending) => HttpResponse::Accepted().json(pending),
    })
}
