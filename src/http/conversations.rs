//! Conversations: begin, list, look at, change members, mark as read.

use actix_web::http::StatusCode;
use actix_web::web::{Path, ReqData, ThinData};
use actix_web::{HttpRequest, HttpResponse, web};
use sotto_protocol::conversation::{Conversation, CreateConversation, Member, MemberChange, Page, ReadUpTo};
use sotto_protocol::{ConversationId, FieldError, Problem, limits};

use super::auth::Caller;
use super::body::Body;
use super::idempotency::{IdempotencyKey, once};
use super::query::Query;
use super::{Services, nothing};
use crate::error::ApiError;

/// Conversations on a page, unless the client wants another number.
const PAGE: usize = 50;
/// The most that it may want.
const MAX_PAGE: usize = 200;

/// Begins a conversation. A second direct one for the same pair is the first again, answered 200.
#[utoipa::path(post, path = "/v1/conversations", tag = "conversations", request_body = CreateConversation,
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255,
        description = "Visible ASCII, kept for 24 hours: the same request again gets the first answer again")),
    responses(
        (status = 201, description = "The new conversation", body = Conversation),
        (status = 200, description = "The direct conversation that the pair has already", body = Conversation),
    ))]
pub async fn create(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    key: IdempotencyKey,
    body: Body<CreateConversation, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    let (node, wanted) = (services.node.clone(), body.0.clone());
    let (user, device) = (caller.user_id, caller.device_id);
    let work = async move {
        let (conversation, is_new) = node.create_conversation(user, device, wanted).await?;
        Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, conversation))
    };
    once(services.node.store(), device, "POST /v1/conversations", key, &body.0, work).await
}

/// The caller's conversations, newest first; a page ends at 1 MiB.
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 unless given"),
    ),
    responses((status = 200, description = "A page", body = Page<Conversation>)))]
pub async fn list(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    request: HttpRequest,
) -> Result<web::Json<Page<Conversation>>, ApiError> {
    let query = Query::of(&request)?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let after = query.text("after")?.map(|cursor| services.cursors.read_list(caller.user_id, cursor)).transpose()?;
    let (items, has_more) = services.node.list_conversations(caller.user_id, caller.device_id, after, limit).await?;
    let last = items.last().filter(|_| has_more);
    let next = last.map(|last| services.cursors.list(caller.user_id, last.conversation_id));
    Ok(web::Json(Page { items, next }))
}

/// One conversation.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = ConversationId, Path)),
    responses((status = 200, description = "As the caller sees it", body = Conversation)))]
pub async fn show(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    id: Path<ConversationId>,
) -> Result<web::Json<Conversation>, ApiError> {
    Ok(web::Json(services.node.conversation(caller.user_id, caller.device_id, *id).await?))
}

/// The members of a conversation, in the order of their ids.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/members", tag = "conversations",
    params(
        ("conversation_id" = ConversationId, Path),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "50 unless given"),
    ),
    responses((status = 200, description = "A page", body = Page<Member>)))]
pub async fn members(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    id: Path<ConversationId>,
    request: HttpRequest,
) -> Result<web::Json<Page<Member>>, ApiError> {
    let query = Query::of(&request)?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let (user, cursors) = (caller.user_id, &services.cursors);
    let after = query.text("after")?.map(|cursor| cursors.read_members(user, *id, cursor)).transpose()?;
    let (items, has_more) = services.node.members(user, *id, after, limit).await?;
    let next = items.last().filter(|_| has_more).map(|last| cursors.members(user, *id, last.user_id));
    Ok(web::Json(Page { items, next }))
}

/// Adds members to a group. Owner and admins may.
#[utoipa::path(post, path = "/v1/conversations/{conversation_id}/members", tag = "conversations",
    params(("conversation_id" = ConversationId, Path)), request_body = MemberChange,
    responses((status = 204, description = "They are members")))]
pub async fn add_members(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    id: Path<ConversationId>,
    body: Body<MemberChange, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    services.node.add_members(caller.user_id, *id, body.0.user_ids).await?;
    Ok(nothing())
}

/// Removes members from a group; oneself alone leaves it.
#[utoipa::path(delete, path = "/v1/conversations/{conversation_id}/members", tag = "conversations",
    params(("conversation_id" = ConversationId, Path)), request_body = MemberChange,
    responses((status = 204, description = "They are no members")))]
pub async fn remove_members(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    id: Path<ConversationId>,
    body: Body<MemberChange, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    services.node.remove_members(caller.user_id, *id, body.0.user_ids).await?;
    Ok(nothing())
}

/// The caller has read everything up to a number.
#[utoipa::path(put, path = "/v1/conversations/{conversation_id}/read", tag = "conversations",
    params(("conversation_id" = ConversationId, Path)), request_body = ReadUpTo,
    responses((status = 204, description = "Marked")))]
pub async fn mark_read(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    id: Path<ConversationId>,
    body: Body<ReadUpTo, { limits::MAX_BODY }>,
) -> Result<HttpResponse, ApiError> {
    let up_to = body.0.up_to;
    if up_to < 0 {
        return Err(Problem::from(FieldError::at("/up_to", "out_of_range")).into());
    }
    services.node.mark_read(caller.user_id, caller.device_id, *id, up_to).await?;
    Ok(nothing())
}
