//! Messages: send, read the history, mark as read.

use std::pin::Pin;

use actix_web::http::StatusCode;
use actix_web::web::{Path, ReqData, ThinData};
use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, web};
use sotto_protocol::conversation::{Page, ReadMessage};
use sotto_protocol::message::{Message, OutgoingMessage, Sender, Sent};
use sotto_protocol::{ConversationId, MessageId, limits};

use super::auth::Caller;
use super::body::Body;
use super::exchange::has_body;
use super::idempotency::{IdempotencyKey, once};
use super::query::Query;
use super::{Services, nothing};
use crate::error::ApiError;

/// Messages on a page of history, unless the client wants another number.
const PAGE: usize = 100;
/// The most that it may want.
const MAX_PAGE: usize = 500;

/// Sends a message. The answer comes when it is durable; a repeat of the same id is answered 200 with the first values.
#[utoipa::path(post, path = "/v1/messages", tag = "messages", request_body = OutgoingMessage,
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255,
        description = "Visible ASCII, kept for 24 hours: the same request again gets the first answer again")),
    responses(
        (status = 201, description = "Stored", body = Sent),
        (status = 200, description = "It was stored by an earlier request: `duplicate` is true", body = Sent),
    ))]
pub async fn send(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    key: IdempotencyKey,
    body: Body<OutgoingMessage, { limits::MAX_BODY_LARGE }>,
) -> Result<HttpResponse, ApiError> {
    let sender = Sender { user_id: caller.user_id, device_id: caller.device_id };
    let (node, message) = (services.node.clone(), body.0.clone());
    let work = async move {
        let sent = node.send(sender, message).await?;
        Ok((if sent.duplicate { StatusCode::OK } else { StatusCode::CREATED }, sent))
    };
    once(services.node.store(), caller.device_id, "POST /v1/messages", key, &body.0, work).await
}

/// The part of a conversation's log that the caller may see, in ascending order, at most 1 MiB of it. `next` is what to
/// ask with in the same direction: the next `after_seq`, or `before_seq` where only that was given.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/messages", tag = "messages",
    params(
        ("conversation_id" = ConversationId, Path),
        ("after_seq" = Option<i64>, Query, minimum = 0, description = "The first messages after this number"),
        ("before_seq" = Option<i64>, Query, minimum = 0,
            description = "Only messages before this number; alone: the last ones before it"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "100 unless given"),
    ),
    responses((status = 200, description = "A page", body = Page<Message>)))]
pub async fn history(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    id: Path<ConversationId>,
    request: HttpRequest,
) -> Result<web::Json<Page<Message>>, ApiError> {
    let query = Query::of(&request)?;
    let limit = query.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE);
    let after = query.number("after_seq", 0..=i64::MAX)?;
    let before = query.number("before_seq", 0..=i64::MAX)?;
    let (items, has_more) = services.node.history(caller.user_id, caller.device_id, *id, after, before, limit).await?;
    let is_backward = after.is_none() && before.is_some();
    let end = if is_backward { items.first() } else { items.last() };
    let next = end.filter(|_| has_more).map(|message| message.seq.to_string());
    Ok(web::Json(Page { items, next }))
}

/// The caller has read everything up to a message.
#[utoipa::path(put, path = "/v1/messages/{message_id}/read", tag = "messages",
    params(("message_id" = MessageId, Path)), request_body = Option<ReadMessage>,
    responses((status = 204, description = "Marked")))]
pub async fn mark_read(
    caller: ReqData<Caller>,
    services: ThinData<Services>,
    id: Path<MessageId>,
    body: Perhaps<ReadMessage>,
) -> Result<HttpResponse, ApiError> {
    let conversation = body.0.conversation_id;
    services.node.mark_message_read(caller.user_id, caller.device_id, *id, conversation).await?;
    Ok(nothing())
}

/// A body of which every member is optional, so that none at all says the same as `{}`.
#[derive(Debug)]
pub struct Perhaps<T>(pub T);

impl<T: serde::de::DeserializeOwned + Default + 'static> FromRequest for Perhaps<T> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, actix_web::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if !has_body(request.headers()) {
            return Box::pin(async { Ok(Self(T::default())) });
        }
        let body = Body::<T, { limits::MAX_BODY }>::from_request(request, payload);
        Box::pin(async move { Ok(Self(body.await?.0)) })
    }
}
