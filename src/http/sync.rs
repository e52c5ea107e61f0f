//! Catching up without a socket: the oldest events above the device's marks, and the word that they are stored.

use actix_web::web::{ReqData, ThinData};
use actix_web::{HttpRequest, HttpResponse, web};
use sotto_protocol::sync::{SyncAck, SyncPage};
use sotto_protocol::{Timestamp, limits};

use super::auth::Caller;
use super::body::Body;
use super::query::Query;
use super::{Services, nothing};
use crate::error::ApiError;

/// Events on a page, unless the client wants another number.
const PAGE: usize = 100;
/// The most that it may want.
const MAX_PAGE: usize = 500;

/// The oldest events above what the device has acknowledged, at most 1 MiB of them. Asking twice without an
/// acknowledgement gives the same again.
#[utoipa::path(get, path = "/v1/sync", tag = "sync",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "100 unless given")),
    responses((status = 200, description = "A page", body = SyncPage)))]
pub async fn read(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    request: HttpRequest,
) -> Result<web::Json<SyncPage>, ApiError> {
    let limit = Query::of(&request)?.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let page = services.node.sync_page(caller.user_id, caller.device_id, limit).await?;
    let epoch = services.node.epoch();
    let cursor = services.cursors.sync(caller.device_id, epoch, &page.covered, Timestamp::now());
    Ok(web::Json(SyncPage { events: page.events, cursor, has_more: page.has_more, epoch }))
}

/// The events of a page are stored on the device and never come again.
#[utoipa::path(post, path = "/v1/sync/ack", tag = "sync", request_body = SyncAck,
    responses((status = 204, description = "Durable; an older cursor than the last changes nothing")))]
pub async fn ack(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    body: Body<SyncAck, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    let covered =
        services.cursors.read_sync(caller.device_id, services.node.epoch(), &body.0.cursor, Timestamp::now())?;
    services.node.sync_ack(caller.user_id, caller.device_id, covered).await?;
    Ok(nothing())
}
