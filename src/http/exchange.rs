//! What surrounds every request: its id, its place in log and metrics, the headers of its answer, its time limit.
//!
//! [`exchange`] is the outermost layer; it sees what every other layer answers and makes it fit the contract.
//! [`in_time`] stands right before each handler: there a late or broken one can still be answered.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::ThinData;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use sotto_actors::rate_limit::Decision;
use sotto_protocol::{ErrorCode, Problem};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{cors, metrics};
use crate::error::{ApiError, PROBLEM_JSON};

/// An answer comes within this time after the request has been read.
const ANSWER_WITHIN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// How long a request's body may take to come (`http.request_timeout`).
#[derive(Clone, Copy, Debug)]
pub struct BodyWithin(pub Duration);

impl Default for BodyWithin {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

/// Answers with fewer bytes are not compressed.
const COMPRESS_FROM: u64 = 1024;
/// Tells the layer that compresses to leave an answer alone; never sent.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Media type of problems.
const PROBLEM: HeaderValue = HeaderValue::from_static(PROBLEM_JSON);
/// Nothing of the API is a page, and nothing may frame it. Pages bring a policy of their own.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The id of a request, always made here: an id from outside would let strangers write into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub Uuid);

/// The outermost layer: gives the request its id, and finishes whatever answer comes back.
///
/// # Errors
/// None of its own.
pub async fn exchange<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let begun = Instant::now();
    let id = RequestId(Uuid::now_v7());
    request.extensions_mut().insert(id);
    // What is logged on the way stands on this span, so that it is found by the id in the answer.
    let span = tracing::info_span!("request", request_id = %id.0);
    let chunks = Chunks::of(&mut request);
    let mut response = match cors::preflight(&request) {
        Some(answer) => request.into_response(answer),
        None => next.call(request).instrument(span.clone()).await?.map_into_boxed_body(),
    };
    let _entered = span.entered();
    let mut code = None;
    if let Some(mut problem) = problem_of(&response) {
        problem.request_id = id.0.to_string();
        code = Some(problem.code);
        tell(&mut response, &problem);
        response = response.map_body(|_, _| BoxBody::new(serde_json::to_vec(&problem).unwrap_or_default()));
    }
    finish(&mut response, id);
    record(&response, code, begun.elapsed());
    Ok(match chunks {
        Some(chunks) => response.map_body(|_, body| BoxBody::new(Held { body, _chunks: chunks })),
        None => response,
    })
}

/// A body in chunks that outlives its handler. Chunks that nobody wants any more actix-http reads to their end, however
/// long that takes, and keeps the connection; while somebody still has them it closes behind the answer.
#[derive(Clone)]
struct Chunks(Rc<RefCell<Payload>>);

impl Chunks {
    fn of(request: &mut ServiceRequest) -> Option<Self> {
        request.headers().contains_key(header::TRANSFER_ENCODING).then(|| {
            let chunks = Self(Rc::new(RefCell::new(request.take_payload())));
            request.set_payload(Payload::Stream { payload: Box::pin(chunks.clone()) });
            chunks
        })
    }
}

impl Stream for Chunks {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_next_unpin(context)
    }
}

/// An answer that holds the request's body until it is written.
struct Held {
    body: BoxBody,
    _chunks: Chunks,
}

impl MessageBody for Held {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// The problem that an answer stands for: the one that a handler gave, or one for what actix-web refused by itself.
fn problem_of(response: &ServiceResponse<BoxBody>) -> Option<Problem> {
    let error = response.response().error()?;
    if let Some(ApiError(problem)) = error.as_error::<ApiError>() {
        return Some(problem.clone());
    }
    let (code, detail) = match response.status() {
        StatusCode::NOT_FOUND => return Some(Problem::not_found()),
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorCode::PayloadTooLarge, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (ErrorCode::UnsupportedMediaType, "this media type is not taken here"),
        status if status.is_client_error() => (ErrorCode::InvalidFrame, "the request could not be read"),
        _ => {
            tracing::error!(%error, "a request failed for a reason that nobody expected");
            (ErrorCode::Internal, "something went wrong here")
        }
    };
    Some(Problem::new(code, detail))
}

/// Puts a problem's status and headers on its answer.
fn tell(response: &mut ServiceResponse<BoxBody>, problem: &Problem) {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.response_mut().status_mut() = status;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, PROBLEM);
    if let Some(milliseconds) = problem.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(milliseconds.div_ceil(1000)));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

fn finish(response: &mut ServiceResponse<BoxBody>, id: RequestId) {
    let limit = response.request().extensions().get::<Decision>().copied();
    let cors = cors::headers(response.request());
    let headers = response.headers_mut();
    if headers.get(header::CONTENT_ENCODING) == Some(&IDENTITY) {
        headers.remove(header::CONTENT_ENCODING);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
    // A 429 names the limit that it is about; every other answer tells of the requests.
    if let Some(limit) = limit.filter(|_| !headers.contains_key(RATE_LIMIT)) {
        for (name, value) in limit_headers(limit) {
            headers.insert(name, value);
        }
    }
    for (name, value) in cors {
        headers.append(name, value);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ] {
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
}

/// `RateLimit` and `RateLimit-Policy` as draft-ietf-httpapi-ratelimit-headers writes them.
pub(super) fn limit_headers(limit: Decision) -> Vec<(HeaderName, HeaderValue)> {
    let policy = format!("\"requests\";q={};w={}", limit.limit, limit.window_secs);
    let left = format!("\"requests\";r={};t={}", limit.remaining, limit.reset_secs);
    [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(&value).ok()?)))
        .collect()
}

/// Tells log and metrics. The route's pattern stands for the path: ids and parameters stay out.
fn record(response: &ServiceResponse<BoxBody>, code: Option<ErrorCode>, took: Duration) {
    let request = response.request();
    let method = known_method(request.method());
    let route = request.match_pattern().unwrap_or_else(|| "none".to_owned());
    let status = response.status();
    let code = code.map(ErrorCode::as_str);
    metrics::request(method, &route, status.as_u16(), code, took);
    let (status, took_us) = (status.as_u16(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    tracing::debug!(target: "sotto::access", method, route, status, code, took_us, "request");
}

/// A method's name, from a short list: a label must not be made by strangers.
fn known_method(method: &Method) -> &'static str {
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS, Method::PATCH]
        .iter()
        .zip(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
        .find_map(|(known, name)| (known == method).then_some(name))
        .unwrap_or("other")
}

/// The layer before a handler: a late answer becomes `unavailable`, a panic `internal`.
///
/// # Errors
/// None of its own.
pub async fn in_time<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let clock = Clock::start(&mut request);
    let kept = request.request().clone();
    let mut handler = Box::pin(AssertUnwindSafe(next.call(request)).catch_unwind());
    let outcome = loop {
        let deadline = clock.deadline();
        match tokio::time::timeout_at(deadline, &mut handler).await {
            Ok(outcome) => break outcome,
            // The body ended in the meantime: the handler has its own time from then on.
            Err(_) if clock.deadline() > deadline => {}
            Err(_) => return Ok(refuse(kept, clock.late())),
        }
    };
    match outcome {
        Ok(Ok(response)) => Ok(spare(response.map_into_boxed_body())),
        Ok(Err(error)) => Ok(ServiceResponse::from_err(error, kept)),
        Err(_) => {
            let route = kept.match_pattern();
            tracing::error!(route, "a handler panicked");
            Ok(refuse(kept, Problem::new(ErrorCode::Internal, "something went wrong here")))
        }
    }
}

/// Keeps a small answer from being compressed: it would cost more than it saves.
fn spare(mut response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let is_small = matches!(response.response().body().size(), BodySize::Sized(bytes) if bytes < COMPRESS_FROM);
    if is_small && !response.headers().contains_key(header::CONTENT_ENCODING) {
        response.headers_mut().insert(header::CONTENT_ENCODING, IDENTITY);
    }
    response
}

fn refuse(request: HttpRequest, problem: Problem) -> ServiceResponse<BoxBody> {
    let must_close = problem.status == StatusCode::REQUEST_TIMEOUT.as_u16();
    let mut response = HttpResponse::from_error(ApiError::from(problem));
    if must_close {
        response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    }
    ServiceResponse::new(request, response)
}

/// Whether a request says that it has a body (RFC 9112, 6.3).
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// When a request must be answered: some time after its body has been read.
#[derive(Clone)]
struct Clock {
    body_until: Instant,
    read: Rc<Cell<Option<Instant>>>,
}

impl Clock {
    fn start(request: &mut ServiceRequest) -> Self {
        let begun = Instant::now();
        let read = Rc::new(Cell::new(None));
        if has_body(request.headers()) {
            let body = Watched { payload: request.take_payload(), read: Rc::clone(&read) };
            request.set_payload(Payload::Stream { payload: Box::pin(body) });
        } else {
            read.set(Some(begun));
        }
        let BodyWithin(patience) = request.app_data::<ThinData<BodyWithin>>().map(|data| data.0).unwrap_or_default();
        Self { body_until: begun + patience, read }
    }

    fn deadline(&self) -> Instant {
        self.read.get().map_or(self.body_until, |read| read + ANSWER_WITHIN)
    }

    fn late(&self) -> Problem {
        if self.read.get().is_some() {
            return Problem::unavailable("the answer took too long; its outcome is unknown");
        }
        let mut problem = Problem::new(ErrorCode::InvalidFrame, "the body took too long to come").retryable();
        problem.status = StatusCode::REQUEST_TIMEOUT.as_u16();
        problem
    }
}

/// A body that tells when its end was read.
struct Watched {
    payload: Payload,
    read: Rc<Cell<Option<Instant>>>,
}

impl Stream for Watched {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.payload.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.read.set(Some(Instant::now()));
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::network::Origin;
    use crate::config::value::Value as _;
    use crate::http::body::Body;
    use actix_web::middleware::{Compress, from_fn};
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use actix_web::{App, web};
    use std::collections::BTreeMap;

    async fn broken() -> HttpResponse {
        panic!("a test's own panic")
    }

    async fn endless() -> HttpResponse {
        std::future::pending().await
    }

    async fn echo(body: Body<BTreeMap<String, u8>, 1000>) -> web::Json<BTreeMap<String, u8>> {
        web::Json(body.0)
    }

    async fn limited(request: HttpRequest) -> HttpResponse {
        let decision =
            Decision { allowed: true, limit: 100, remaining: 99, window_secs: 60, reset_secs: 7, retry_after_ms: 0 };
        request.extensions_mut().insert(decision);
        HttpResponse::Ok().body("x".repeat(2000))
    }

    async fn busy() -> Result<HttpResponse, ApiError> {
        Err(Problem::unavailable("later").retry_after(1200).into())
    }

    struct Answer {
        status: u16,
        headers: HeaderMap,
        problem: Option<Problem>,
    }

    impl Answer {
        fn header(&self, name: &str) -> &str {
            self.headers.get(name).map_or("", |value| value.to_str().unwrap())
        }

        fn code(&self) -> &str {
            self.problem.as_ref().unwrap().code.as_str()
        }
    }

    async fn ask(request: TestRequest) -> Answer {
        let origins = cors::AllowedOrigins(vec![Origin::from_text("https://chat.example").unwrap()]);
        let in_time = || from_fn(in_time);
        let app = App::new()
            .app_data(web::Data::new(origins))
            .route("/broken", web::get().to(broken).wrap(in_time()))
            .route("/endless", web::get().to(endless).wrap(in_time()))
            .route("/echo", web::post().to(echo).wrap(in_time()))
            .route("/limited", web::get().to(limited).wrap(in_time()))
            .route("/busy", web::get().to(busy).wrap(in_time()))
            .route("/number/{n}", web::get().to(async |n: web::Path<u8>| n.to_string()).wrap(in_time()))
            .wrap(Compress::default())
            .wrap(from_fn(exchange));
        let app = init_service(app).await;
        let response = call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let is_problem = headers.get("content-type").is_some_and(|kind| kind == PROBLEM_JSON);
        let problem = if is_problem { Some(read_body_json::<Problem, _>(response).await) } else { None };
        Answer { status, headers, problem }
    }

    fn get(path: &str) -> TestRequest {
        TestRequest::get().uri(path)
    }

    #[actix_web::test]
    async fn every_answer_has_an_id_of_ours_and_the_headers_of_safety() {
        for path in ["/limited", "/busy", "/broken", "/number/x", "/nowhere"] {
            let answer = ask(get(path).insert_header(("x-request-id", "mine"))).await;
            let id = answer.header("x-request-id");
            assert!(Uuid::parse_str(id).is_ok(), "{path}: {id}");
            if let Some(problem) = &answer.problem {
                assert_eq!(problem.request_id, id, "{path}");
                assert_eq!(problem.status, answer.status, "{path}");
            }
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
            assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        }
    }

    #[actix_web::test]
    async fn what_goes_wrong_becomes_a_problem() {
        let broken = ask(get("/broken")).await;
        assert_eq!((broken.status, broken.code()), (500, "internal"));
        let endless = ask(get("/endless")).await;
        assert_eq!((endless.status, endless.code()), (503, "unavailable"));
        let busy = ask(get("/busy")).await;
        assert_eq!((busy.status, busy.code(), busy.header("retry-after")), (503, "unavailable", "2"));
        let malformed = ask(get("/number/x")).await;
        assert_eq!((malformed.status, malformed.code()), (404, "not_found"));
        let echo = |kind: &'static str, text: &'static str| {
            let request = TestRequest::post().uri("/echo").insert_header(("content-type", kind));
            request.insert_header(("content-length", text.len())).set_payload(text)
        };
        assert_eq!(ask(echo("application/json", "{\"a\":1}")).await.status, 200);
        assert_eq!(ask(echo("application/json", "{\"a\":")).await.code(), "invalid_frame");
        assert_eq!(ask(echo("text/plain", "{}")).await.code(), "unsupported_media_type");
    }

    #[actix_web::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let request = TestRequest::post().uri("/").insert_header(("content-length", "1"));
        let mut request = request.app_data(ThinData(BodyWithin(Duration::from_millis(100)))).to_srv_request();
        let payload: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>> = Box::pin(futures::stream::pending());
        request.set_payload(Payload::Stream { payload });
        let clock = Clock::start(&mut request);
        let mut taken = request.take_payload();
        assert!(tokio::time::timeout_at(clock.deadline(), taken.next()).await.is_err());
        assert_eq!(clock.late().status, 408);
        request.set_payload(Payload::from(Bytes::from_static(b"x")));
        let clock = Clock::start(&mut request);
        let before = clock.deadline();
        let mut taken = request.take_payload();
        while taken.next().await.is_some() {}
        assert!(clock.deadline() < before, "from now on the answer's own time counts");
        assert_eq!(clock.late().status, 503);
    }

    #[actix_web::test]
    async fn limits_are_told_and_answers_compressed() {
        let answer = ask(get("/limited").insert_header(("accept-encoding", "gzip"))).await;
        assert_eq!(answer.header("ratelimit-policy"), "\"requests\";q=100;w=60");
        assert_eq!(answer.header("ratelimit"), "\"requests\";r=99;t=7");
        assert_eq!(answer.header("content-encoding"), "gzip");
        let small = ask(get("/number/7").insert_header(("accept-encoding", "gzip"))).await;
        assert_eq!((small.status, small.header("content-encoding")), (200, ""));
        let problem = ask(get("/busy").insert_header(("accept-encoding", "gzip"))).await;
        assert_eq!(problem.header("content-encoding"), "");
    }

    #[actix_web::test]
    async fn only_allowed_origins_are_let_in() {
        let from = |request: TestRequest, origin: &'static str| request.insert_header(("origin", origin));
        let ours = ask(from(get("/busy"), "https://chat.example")).await;
        assert_eq!(ours.header("access-control-allow-origin"), "https://chat.example");
        assert_eq!(ours.header("vary"), "origin");
        let other = ask(from(get("/busy"), "https://evil.example")).await;
        assert_eq!(other.header("access-control-allow-origin"), "");
        let preflight = |origin| {
            let request = TestRequest::default().method(Method::OPTIONS).uri("/echo");
            from(request, origin).insert_header(("access-control-request-method", "POST"))
        };
        let allowed = ask(preflight("https://chat.example")).await;
        assert_eq!(allowed.status, 204);
        assert!(allowed.header("access-control-allow-methods").contains("POST"));
        assert!(allowed.header("access-control-allow-headers").contains("idempotency-key"));
        assert_eq!(ask(preflight("https://evil.example")).await.header("access-control-allow-methods"), "");
    }
}
