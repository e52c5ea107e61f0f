//! Upgrades to a WebSocket: which paths take them, what a handshake must be, and how it is answered.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_codec::Framed;
use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue, HttpDate};
use actix_http::{HttpMessage as _, Method, Request, StatusCode, Uri, Version, h1, ws};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::BytesMut;
use futures::future::LocalBoxFuture;
use sotto_actors::admission::Place;
use sotto_actors::socket::Upgraded;
use sotto_protocol::{ErrorCode, Problem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::line::Line;

/// A refusal of an upgrade must be written within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// After a refusal, what the peer still sends is read for this long at most, so that no reset swallows the answer.
const LINGER: Duration = Duration::from_secs(1);

/// … and up to this many bytes.
const LINGER_BYTES: u64 = 1024 * 1024;

/// Length of the nonce in `Sec-WebSocket-Key`, in bytes.
const KEY_BYTES: usize = 16;

type UpgradeHandler = Arc<dyn Fn(UpgradeRequest) -> LocalBoxFuture<'static, ()> + Send + Sync>;

/// Which paths upgrade to a WebSocket, and who takes their streams. Any other upgrade to a WebSocket is answered with
/// 404; upgrades to other protocols are ignored, and the request is served as if it had not asked (RFC 9110, 7.8).
#[derive(Clone, Default)]
pub struct Upgrades {
    routes: Vec<(&'static str, UpgradeHandler)>,
}

impl fmt::Debug for Upgrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|(path, _)| path)).finish()
    }
}

impl Upgrades {
    /// No path upgrades.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives upgrades of exactly this path to `handler`. It runs on the worker thread that accepted the connection,
    /// and an actor that it starts lives on that thread. It sees only requests whose handshake is in order, and
    /// should end with [`accept`](UpgradeRequest::accept) or [`reject`](UpgradeRequest::reject); a request that it
    /// drops is answered by closing the connection.
    #[must_use]
    pub fn route<H, F>(mut self, path: &'static str, handler: H) -> Self
    where
        H: Fn(UpgradeRequest) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + 'static,
    {
        self.routes.push((path, Arc::new(move |request| Box::pin(handler(request)))));
        self
    }

    pub(super) async fn dispatch(self: Arc<Self>, request: Request, framed: Framed<Line, h1::Codec>) {
        let upgrade = UpgradeRequest::new(request, framed);
        let path = upgrade.uri().path();
        let Some((_, handler)) = self.routes.iter().find(|(route, _)| *route == path) else {
            return upgrade.reject_with(Problem::not_found(), &[]).await;
        };
        if let Err(flaw) = check_handshake(&upgrade.request) {
            return upgrade.reject_with(flaw.problem(), flaw.headers()).await;
        }
        handler(upgrade).await;
    }
}

/// What is wrong with a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Method,
    HttpVersion,
    Connection,
    Upgrade,
    Version,
    Key,
}

impl Flaw {
    fn problem(self) -> Problem {
        let (code, status, detail) = match self {
            Self::Method => (ErrorCode::MethodNotAllowed, 405, "a WebSocket begins with GET"),
            Self::HttpVersion => (ErrorCode::InvalidFrame, 400, "a WebSocket begins with HTTP/1.1"),
            Self::Connection => (ErrorCode::InvalidFrame, 400, "the header Connection must name Upgrade"),
            Self::Upgrade => (ErrorCode::InvalidFrame, 400, "the header Upgrade must name websocket"),
            Self::Version => {
                (ErrorCode::UnsupportedVersion, 426, "version 13 of the WebSocket protocol is spoken here")
            }
            Self::Key => (ErrorCode::InvalidFrame, 400, "Sec-WebSocket-Key must be 16 bytes in base64, once"),
        };
        let mut problem = Problem::new(code, detail);
        problem.status = status;
        problem
    }

    fn headers(self) -> &'static [(HeaderName, HeaderValue)] {
        static ALLOW: [(HeaderName, HeaderValue); 1] = [(header::ALLOW, HeaderValue::from_static("GET"))];
        static VERSION: [(HeaderName, HeaderValue); 2] = [
            (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
        ];
        match self {
            Self::Method => &ALLOW,
            Self::Version => &VERSION,
            Self::HttpVersion | Self::Connection | Self::Upgrade | Self::Key => &[],
        }
    }
}

/// Checks a client's handshake (RFC 6455, 4.2.1). The only place that does.
fn check_handshake(request: &Request) -> Result<(), Flaw> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Flaw::Method);
    }
    if request.head().version < Version::HTTP_11 {
        return Err(Flaw::HttpVersion);
    }
    if !names(headers, &header::CONNECTION, "upgrade") {
        return Err(Flaw::Connection);
    }
    if !names(headers, &header::UPGRADE, "websocket") {
        return Err(Flaw::Upgrade);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Flaw::Version);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY);
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_nonce(key) => Ok(()),
        _ => Err(Flaw::Key),
    }
}

fn is_nonce(key: &HeaderValue) -> bool {
    BASE64_STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == KEY_BYTES)
}

/// Does a header that lists tokens name this one, in whatever case?
fn names(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// A request to upgrade to a WebSocket, and the connection that it came on.
#[derive(Debug)]
pub struct UpgradeRequest {
    request: Request,
    stream: TcpStream,
    /// Bytes that came behind the request's head.
    unread: BytesMut,
    /// Answers to earlier requests of the connection that are not written yet.
    unsent: BytesMut,
    place: Option<Place>,
    request_id: String,
}

impl UpgradeRequest {
    fn new(request: Request, framed: Framed<Line, h1::Codec>) -> Self {
        let parts = framed.into_parts();
        let (stream, held, place) = parts.io.into_parts();
        let mut unread = parts.read_buf;
        unread.extend_from_slice(&held);
        Self { request, stream, unread, unsent: parts.write_buf, place, request_id: Uuid::now_v7().to_string() }
    }

    /// The method; GET in handlers.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// The target.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        self.request.uri()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// A header's first value, if it is readable text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The address at the other end of the connection; a proxy's if there is one.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.request.peer_addr()
    }

    /// The connection's place, which is to be kept for as long as it lives.
    pub fn place(&mut self) -> &mut Option<Place> {
        &mut self.place
    }

    /// The id that the answer carries as `x-request-id`, for logs and problems.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Does the client offer this subprotocol? Names are compared exactly.
    #[must_use]
    pub fn offers(&self, subprotocol: &str) -> bool {
        self.headers()
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|item| item.trim() == subprotocol)
    }

    /// Accepts, and gives away the stream and the answer 101 (RFC 6455, 4.2.2) that is to be written on it.
    /// `subprotocol` must be one that the client [offers](Self::offers).
    ///
    /// # Errors
    /// The request has no key, or the subprotocol is no header value.
    pub fn accept(mut self, subprotocol: Option<&str>, headers: &[(HeaderName, HeaderValue)]) -> io::Result<Upgraded> {
        let key = self.headers().get(header::SEC_WEBSOCKET_KEY).ok_or(io::ErrorKind::InvalidData)?;
        let accept = ws::hash_key(key.as_bytes());
        let mut answer = self.begin_answer(StatusCode::SWITCHING_PROTOCOLS);
        put(&mut answer, "upgrade", b"websocket");
        put(&mut answer, "connection", b"Upgrade");
        put(&mut answer, "sec-websocket-accept", &accept);
        if let Some(subprotocol) = subprotocol {
            let value = HeaderValue::from_str(subprotocol).map_err(io::Error::other)?;
            put(&mut answer, "sec-websocket-protocol", value.as_bytes());
        }
        end_head(&mut answer, headers);
        Ok(Upgraded { stream: self.stream, unread: self.unread, answer: answer.into() })
    }

    /// Answers with a complete response and closes the connection. A peer that is gone already is no error.
    pub async fn reject(
        mut self,
        status: StatusCode,
        content_type: &str,
        body: &[u8],
        headers: &[(HeaderName, HeaderValue)],
    ) {
        let mut answer = self.begin_answer(status);
        put(&mut answer, "connection", b"close");
        put(&mut answer, "date", HttpDate::from(SystemTime::now()).to_string().as_bytes());
        put(&mut answer, "content-length", body.len().to_string().as_bytes());
        if let Ok(value) = HeaderValue::from_str(content_type) {
            put(&mut answer, "content-type", value.as_bytes());
        }
        end_head(&mut answer, headers);
        // A body in answer to HEAD would be taken for the next answer.
        if self.request.method() != Method::HEAD {
            answer.extend_from_slice(body);
        }
        if let Err(err) = self.close_with(&answer).await {
            tracing::debug!(request_id = self.request_id, %status, %err, "upgrade refused, but the peer was gone");
        }
    }

    /// Answers with a problem, which gets this request's id, and closes the connection. A time to wait is also told
    /// as `Retry-After`, in whole seconds.
    pub async fn reject_with(self, mut problem: Problem, headers: &[(HeaderName, HeaderValue)]) {
        problem.request_id.clone_from(&self.request_id);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut headers = headers.to_vec();
        if let Some(milliseconds) = problem.retry_after_ms {
            headers.push((header::RETRY_AFTER, HeaderValue::from(milliseconds.div_ceil(1000))));
        }
        self.reject(status, "application/problem+json", &body, &headers).await;
    }

    fn begin_answer(&mut self, status: StatusCode) -> Vec<u8> {
        // Earlier answers go first: the client may have sent several requests at once.
        let mut answer = std::mem::take(&mut self.unsent).to_vec();
        let reason = status.canonical_reason().unwrap_or_default();
        answer.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
        put(&mut answer, "x-request-id", self.request_id.as_bytes());
        answer
    }

    async fn write(&mut self, answer: &[u8]) -> io::Result<()> {
        timeout(WRITE_TIMEOUT, self.stream.write_all(answer)).await?
    }

    async fn close_with(&mut self, answer: &[u8]) -> io::Result<()> {
        self.write(answer).await?;
        self.stream.shutdown().await?;
        // Closing over unread bytes would reset the connection and might take the answer with it.
        let mut rest = (&mut self.stream).take(LINGER_BYTES);
        let mut sink = tokio::io::sink();
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
        Ok(())
    }
}

fn put(answer: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        answer.extend_from_slice(part);
    }
}

fn end_head(answer: &mut Vec<u8>, headers: &[(HeaderName, HeaderValue)]) {
    for (name, value) in headers {
        put(answer, name.as_str(), value.as_bytes());
    }
    answer.extend_from_slice(b"\r\n");
}
