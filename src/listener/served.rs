//! The requests of a connection that are not finished, and whether one of them waits for its body.
//!
//! actix-http reads ahead of the requests that it serves: it queues up to 128 KiB of them however many they are, and when
//! its buffer is full it wakes itself until there is room. So the stream below it gives out bytes only while no request is
//! unfinished, or when an unfinished one asks for its body. A request is unfinished until its answer has been handed to
//! the layer that writes.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_http::body::{BodySize, MessageBody};
use actix_http::error::PayloadError;
use actix_http::{BoxedPayloadStream, HttpMessage as _, Payload, Request, header};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};

/// The requests of one connection. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Served(Rc<State>);

#[derive(Debug, Default)]
struct State {
    begun: Cell<u64>,
    ended: Cell<u64>,
    wanted: Cell<Option<Wanted>>,
    /// A valid token came on it, or it is a trusted proxy's.
    is_known: Cell<bool>,
    /// Reads again when something has changed.
    reader: RefCell<Option<Waker>>,
}

/// How much of a body is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// So many bytes, not 0.
    Exactly(u64),
    /// It comes in chunks; only its end tells.
    Chunks,
}

impl Served {
    /// One request more, until what comes back is dropped.
    pub(super) fn begin(&self) -> Unfinished {
        self.0.begun.set(self.0.begun.get() + 1);
        Unfinished(self.clone())
    }

    pub(super) fn begun(&self) -> u64 {
        self.0.begun.get()
    }

    pub(super) fn none(&self) -> bool {
        self.0.begun.get() == self.0.ended.get()
    }

    /// From now on the connection is somebody's whom we know.
    pub(crate) fn vouch(&self) {
        self.0.is_known.set(true);
    }

    pub(super) fn is_known(&self) -> bool {
        self.0.is_known.get()
    }

    /// What an unfinished request waits for.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.0.wanted.get()
    }

    /// Something came: whoever wants more asks again.
    pub(super) fn came(&self) {
        self.0.wanted.set(None);
    }

    /// Wakes this task when a request ends or asks for its body.
    pub(super) fn wait(&self, waker: &Waker) {
        *self.0.reader.borrow_mut() = Some(waker.clone());
    }

    fn want(&self, wanted: Wanted) {
        self.0.wanted.set(Some(wanted));
        self.wake();
    }

    /// Wakes the task that waits, if one does.
    pub(super) fn wake(&self) {
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }

    /// Watches a request's body, so that no more of it is read than is asked for.
    pub(super) fn watch(&self, request: &mut Request) {
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let length =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let missing = if is_chunked { None } else { length };
        match request.take_payload() {
            Payload::None => {}
            payload => {
                let body = WatchedBody { payload, served: self.clone(), missing };
                *request.payload() = Payload::Stream { payload: Box::pin(body) };
            }
        }
    }
}

/// A request that is not finished.
#[derive(Debug)]
pub struct Unfinished(Served);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Self(Served(state)) = self;
        state.ended.set(state.ended.get() + 1);
        state.wanted.set(None);
        self.0.wake();
    }
}

struct WatchedBody {
    payload: Payload<BoxedPayloadStream>,
    served: Served,
    /// Bytes that have not come; none: it comes in chunks.
    missing: Option<u64>,
}

impl Stream for WatchedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.payload.poll_next_unpin(context);
        match &polled {
            Poll::Pending => match self.missing {
                Some(0) => {}
                Some(bytes) => self.served.want(Wanted::Exactly(bytes)),
                None => self.served.want(Wanted::Chunks),
            },
            Poll::Ready(Some(Ok(bytes))) => {
                let came = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.missing = self.missing.map(|missing| missing.saturating_sub(came));
            }
            Poll::Ready(_) => {}
        }
        polled
    }
}

/// The body of an answer, which ends its request.
#[derive(Debug)]
pub struct Answer<B> {
    /// Pinned by being unmovable: boxed where the body is not `Unpin`.
    body: Pin<Box<B>>,
    _request: Option<Unfinished>,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, request: Option<Unfinished>) -> Self {
        Self { body: Box::pin(body), _request: request }
    }
}

impl<B: MessageBody> MessageBody for Answer<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.as_ref().get_ref().size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.body.as_mut().poll_next(context)
    }
}
