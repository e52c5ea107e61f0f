//! What a user may know of his account's past: its trail, and tries to sign in.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json, ReqData, ThinData};
use sotto_protocol::Timestamp;
use sotto_protocol::conversation::Page;
use sotto_protocol::logins::Login;
use sotto_protocol::problem::{ErrorCode, Problem};
use sotto_protocol::trail::TrailPage;

use super::Services;
use super::auth::Caller;
use super::query::Query;
use crate::error::ApiError;
use crate::identity::Identity;

/// Entries on a page, unless the client wants another number.
const PAGE: usize = 50;
/// The most that it may want.
const MAX_PAGE: usize = 200;

/// The caller's trail, oldest first: what happened to devices and security, each entry chained to the one before.
#[utoipa::path(get, path = "/v1/auth/trail", tag = "auth",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before, or the number of an entry"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 unless given"),
    ),
    responses((status = 200, description = "A page", body = TrailPage)))]
pub async fn trail(
    identity: Data<Identity>,
    caller: ReqData<Caller>,
    request: HttpRequest,
) -> Result<Json<TrailPage>, ApiError> {
    let query = Query::of(&request)?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let unknown = || Problem::new(ErrorCode::CursorUnknown, "`after` is `next` of a page, or the number of an entry");
    let after = query.text("after")?.map(|text| text.parse().ok().filter(|number| *number >= 0).ok_or_else(unknown));
    let (items, head) = identity.trail(&caller, after.transpose()?.unwrap_or(0), limit).await?;
    let next = items.last().filter(|last| last.seq < head.seq).map(|last| last.seq.to_string());
    Ok(Json(TrailPage { items, head, next }))
}

/// Tries to sign in to the caller's account, newest first.
#[utoipa::path(get, path = "/v1/auth/logins", tag = "auth",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 unless given"),
    ),
    responses((status = 200, description = "A page", body = Page<Login>)))]
pub async fn logins(
    identity: Data<Identity>,
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    request: HttpRequest,
) -> Result<Json<Page<Login>>, ApiError> {
    let query = Query::of(&request)?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let after = query.text("after")?.map(|cursor| services.cursors.read_login(caller.user_id, cursor)).transpose()?;
    let mut found = identity.logins(&caller, after, limit + 1, Timestamp::now()).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|(id, login)| services.cursors.login(caller.user_id, login.at, *id));
    Ok(Json(Page { items: found.into_iter().map(|(_, login)| login).collect(), next }))
}
