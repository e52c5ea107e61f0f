//! A request's body: JSON of a bounded size, with errors that say where.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use sotto_protocol::json;
use sotto_protocol::problem::{ErrorCode, Problem};

use super::exchange::has_body;
use crate::error::ApiError;

/// A body of at most `LIMIT` bytes (after decompression), read as `T`.
///
/// Refused with 415 when its type is not `application/json`, with 413 when it is larger, with 400 when it is no JSON,
/// with 422 and a pointer when a value does not fit. How long it may take is the outer layer's to say.
#[derive(Clone, Debug)]
pub struct Body<T, const LIMIT: usize>(pub T);

impl<T: DeserializeOwned + 'static, const LIMIT: usize> FromRequest for Body<T, LIMIT> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let checked = check_head(request, LIMIT);
        let payload = payload.take();
        let mut share = request.extensions().get::<OpenBodies>().map(OpenBodies::share);
        Box::pin(async move {
            checked?;
            let text = collect(payload, LIMIT, share.as_mut()).await?;
            Ok(Self(json::read(&text)?))
        })
    }
}

/// The same where a request may come without a body: then it is the type's default.
#[derive(Clone, Debug)]
pub struct OptionalBody<T, const LIMIT: usize>(pub T);

impl<T: DeserializeOwned + Default + 'static, const LIMIT: usize> FromRequest for OptionalBody<T, LIMIT> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if !has_body(request.headers()) {
            return Box::pin(std::future::ready(Ok(Self(T::default()))));
        }
        let body = Body::<T, LIMIT>::from_request(request, payload);
        Box::pin(async move { Ok(Self(body.await?.0)) })
    }
}

fn check_head(request: &HttpRequest, limit: usize) -> Result<(), Problem> {
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(ErrorCode::UnsupportedMediaType, "the body must be application/json"));
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(ErrorCode::UnsupportedMediaType, "the body must not be compressed"));
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) { Err(too_large(limit)) } else { Ok(()) }
}

async fn collect(mut payload: Payload, limit: usize, mut share: Option<&mut Share>) -> Result<web::BytesMut, Problem> {
    let mut text = web::BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::new(ErrorCode::InvalidFrame, "the body broke off"))?;
        if text.len() + chunk.len() > limit {
            return Err(too_large(limit));
        }
        if let Some(share) = &mut share {
            share.grow(chunk.len())?;
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// What the bodies of open requests may have together, in bytes (`http.open_bodies`). Clones are the same.
#[derive(Clone, Debug)]
pub struct OpenBodies(Arc<Room>);

#[derive(Debug)]
struct Room {
    most: usize,
    taken: AtomicUsize,
}

/// What one body takes of it. Dropped, it is free.
#[derive(Debug)]
struct Share {
    of: OpenBodies,
    taken: usize,
}

impl OpenBodies {
    /// So many bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Room { most, taken: AtomicUsize::new(0) }))
    }

    fn share(&self) -> Share {
        Share { of: self.clone(), taken: 0 }
    }
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let room = &self.of.0;
        let before = room.taken.fetch_add(bytes, Ordering::Relaxed);
        self.taken += bytes;
        if before.saturating_add(bytes) > room.most {
            return Err(Problem::unavailable("too many requests are on their way").retry_after(1000));
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.0.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(ErrorCode::PayloadTooLarge, format!("the body may have {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Thing {
        number: u8,
    }

    async fn read(kind: &str, text: &str) -> Result<u8, (u16, Option<String>)> {
        let request = TestRequest::post().insert_header(("content-type", kind.to_owned()));
        let (request, mut payload) = request.set_payload(text.to_owned()).to_http_parts();
        match Body::<Thing, 16>::from_request(&request, &mut payload).await {
            Ok(Body(thing)) => Ok(thing.number),
            Err(ApiError(problem)) => {
                Err((problem.status, problem.errors.first().and_then(|error| error.pointer.clone())))
            }
        }
    }

    #[test]
    fn bodies_of_strangers_share_their_room() {
        let room = OpenBodies::new(100);
        let (mut one, mut other) = (room.share(), room.share());
        one.grow(60).unwrap();
        other.grow(40).unwrap();
        assert_eq!(one.grow(1).unwrap_err().code, ErrorCode::Unavailable);
        drop(one);
        other.grow(60).unwrap();
        drop(other);
        assert_eq!(room.0.taken.load(Ordering::Relaxed), 0);
    }

    #[actix_rt::test]
    async fn type_size_form_and_values() {
        assert_eq!(read("application/json", r#"{"number":7}"#).await, Ok(7));
        assert_eq!(read("Application/JSON; charset=utf-8", r#"{"number":7}"#).await, Ok(7));
        assert_eq!(read("text/plain", r#"{"number":7}"#).await, Err((415, None)));
        assert_eq!(read("application/json", r#"{"number":    7}"#).await, Ok(7));
        assert_eq!(read("application/json", r#"{"number":     7}"#).await, Err((413, None)));
        assert_eq!(read("application/json", "{").await, Err((400, None)));
        assert_eq!(read("application/json", r#"{"number":"x"}"#).await, Err((422, Some("/number".into()))));
    }
}
