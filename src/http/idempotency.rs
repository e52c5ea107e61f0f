//! `Idempotency-Key`: a request that comes twice runs once, and is answered twice alike.
//!
//! A key counts for one device and one route, for 24 hours. Only success is kept; a request that failed frees its
//! key. The request itself runs to its end even if its client goes away, so that the next try finds the answer.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload};
use ring::digest;
use serde::Serialize;
use sotto_protocol::{DeviceId, ErrorCode, FieldError, Problem, Timestamp, limits};
use sotto_schema::rows::idempotency::{IdempotencyClaim, IdempotencySlot};
use sotto_schema::{Store, StoreError};
use tracing::Instrument as _;

use crate::error::ApiError;

/// The header.
const NAME: &str = "Idempotency-Key";
/// How long answers are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// A request that is not answered after this time never will be: its server died.
const ABANDONED: Duration = Duration::from_secs(10);
/// When to ask again while the first request runs, in milliseconds.
const ASK_AGAIN: u64 = 500;

/// The key that a request carries, if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// # Errors
    /// `validation_failed` when there are several, or one that is empty, too long or not visible ASCII.
    fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let mut values = request.headers().get_all(NAME);
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let wrong = |code: &str| Err(Problem::from(FieldError::parameter(NAME, code)));
        if values.next().is_some() {
            return wrong("repeated");
        }
        match value.to_str() {
            Ok("") => wrong("empty"),
            Ok(key) if key.len() > limits::MAX_IDEMPOTENCY_KEY => wrong("too_long"),
            Ok(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(Some(key.to_owned()))),
            _ => wrong("invalid"),
        }
    }
}

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request).map_err(ApiError::from))
    }
}

/// Runs a request once per key and gives its answer; without a key it just runs.
///
/// # Errors
/// What `work` says; `idempotency_mismatch` when the key came with another body before; `conflict`, worth a repeat,
/// while the first request runs.
pub async fn once<B, T, W>(
    store: &Store,
    device_id: DeviceId,
    route: &'static str,
    key: IdempotencyKey,
    body: &B,
    work: W,
) -> Result<HttpResponse, ApiError>
where
    B: Serialize,
    T: Serialize + 'static,
    W: Future<Output = Result<(StatusCode, T), Problem>> + 'static,
{
    let Some(key) = key.0 else {
        let (status, answer) = work.await?;
        return Ok(HttpResponse::build(status).json(answer));
    };
    let body = serde_json::to_vec(body).map_err(|_| internal("the body cannot be compared"))?;
    let hash = digest::digest(&digest::SHA256, &body).as_ref().to_vec();
    let slot = IdempotencySlot { device_id, route: route.to_owned(), key };
    let now = Timestamp::now();
    let claim = store.claim_idempotency(slot.clone(), hash, now, now.minus(ABANDONED), now.minus(KEPT)).await?;
    let claimed_at = match claim {
        IdempotencyClaim::Yours(claimed_at) => claimed_at,
        IdempotencyClaim::Answered { status, answer } => return Ok(respond(status, answer)),
        IdempotencyClaim::OtherBody => {
            let text = "this Idempotency-Key came with another body before";
            return Err(Problem::new(ErrorCode::IdempotencyMismatch, text).into());
        }
        IdempotencyClaim::Running => {
            let problem = Problem::new(ErrorCode::Conflict, "the first request with this Idempotency-Key still runs");
            return Err(problem.retryable().retry_after(ASK_AGAIN).into());
        }
    };
    let run = run(store.clone(), slot, claimed_at, work).in_current_span();
    let ended = actix_web::rt::spawn(run).await;
    ended.unwrap_or_else(|_| Err(internal("the request ended without an answer").into()))
}

async fn run<T: Serialize>(
    store: Store,
    slot: IdempotencySlot,
    claimed_at: Timestamp,
    work: impl Future<Output = Result<(StatusCode, T), Problem>>,
) -> Result<HttpResponse, ApiError> {
    let outcome = work.await.and_then(|(status, answer)| {
        let body = serde_json::to_vec(&answer).map_err(|_| internal("the answer cannot be written"))?;
        Ok((i64::from(status.as_u16()), body))
    });
    match outcome {
        Ok((status, body)) => {
            let kept = store.keep_idempotent(slot, claimed_at, status, body.clone(), Timestamp::now()).await;
            if let Err(error) = kept {
                // The work is done and its own ids make a repeat harmless: better this answer than none.
                tracing::warn!(%error, "an answer was not kept for its Idempotency-Key");
            }
            Ok(respond(status, body))
        }
        Err(problem) => {
            if let Err(error) = store.release_idempotency(slot, claimed_at).await {
                tracing::warn!(%error, "an Idempotency-Key stays taken for 10 seconds");
            }
            Err(problem.into())
        }
    }
}

fn respond(status: i64, body: Vec<u8>) -> HttpResponse {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    HttpResponse::build(status.unwrap_or(StatusCode::OK)).content_type("application/json").body(body)
}

fn internal(detail: &str) -> Problem {
    Problem::new(ErrorCode::Internal, detail)
}

/// Removes keys that are no longer kept, and tells how many they were. To be called now and then.
///
/// # Errors
/// The database failed.
pub async fn prune(store: &Store, now: Timestamp) -> Result<usize, StoreError> {
    store.prune_idempotency(now.minus(KEPT)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;
    use std::cell::Cell;
    use std::rc::Rc;

    fn key_of(values: &[&str]) -> Result<IdempotencyKey, String> {
        let request =
            values.iter().fold(TestRequest::default(), |request, value| request.append_header((NAME, *value)));
        IdempotencyKey::of(&request.to_http_request()).map_err(|problem| {
            let error = &problem.errors[0];
            assert_eq!((problem.status, error.parameter.as_deref()), (422, Some(NAME)));
            error.code.clone()
        })
    }

    #[test]
    fn a_key_is_one_short_word_of_visible_ascii() {
        assert_eq!(key_of(&[]), Ok(IdempotencyKey(None)));
        assert_eq!(key_of(&["a!~"]), Ok(IdempotencyKey(Some("a!~".into()))));
        assert!(key_of(&[&"k".repeat(255)]).is_ok());
        assert_eq!(key_of(&[&"k".repeat(256)]), Err("too_long".into()));
        assert_eq!(key_of(&[""]), Err("empty".into()));
        assert_eq!(key_of(&["a b"]), Err("invalid".into()));
        assert_eq!(key_of(&["é"]), Err("invalid".into()));
        assert_eq!(key_of(&["a", "b"]), Err("repeated".into()));
    }

    struct Desk {
        store: Store,
        device: DeviceId,
        runs: Rc<Cell<u32>>,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        async fn open() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}", folder.path().join("test.db").display());
            let store = Store::open(&url, &Default::default()).await.unwrap();
            sotto_schema::migrate(&store).await.unwrap();
            Self { store, device: DeviceId::random(), runs: Rc::default(), _folder: folder }
        }

        async fn ask(&self, route: &'static str, key: &str, body: &str, fail: bool) -> (u16, String) {
            let runs = Rc::clone(&self.runs);
            let work = async move {
                runs.set(runs.get() + 1);
                if fail { Err(Problem::unavailable("no")) } else { Ok((StatusCode::CREATED, runs.get())) }
            };
            let key = IdempotencyKey(Some(key.to_owned()));
            match once(&self.store, self.device, route, key, &body, work).await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let body = to_bytes(answer.into_body()).await.unwrap();
                    (status, String::from_utf8(body.to_vec()).unwrap())
                }
                Err(error) => {
                    let problem = error.0;
                    (problem.status, problem.code.as_str().to_owned())
                }
            }
        }
    }

    fn pair(status: u16, text: &str) -> (u16, String) {
        (status, text.to_owned())
    }

    #[actix_web::test]
    async fn success_is_kept_and_failure_is_not() {
        let desk = Desk::open().await;
        assert_eq!(desk.ask("POST /a", "k", "body", true).await, pair(503, "unavailable"));
        assert_eq!(desk.ask("POST /a", "k", "body", false).await, pair(201, "2"));
        assert_eq!(desk.ask("POST /a", "k", "body", false).await, pair(201, "2"));
        assert_eq!(desk.ask("POST /a", "k", "other", false).await, pair(422, "idempotency_mismatch"));
        assert_eq!(desk.ask("POST /b", "k", "other", false).await, pair(201, "3"));
    }

    #[actix_web::test]
    async fn a_running_key_is_a_conflict_until_its_server_counts_as_dead() {
        let desk = Desk::open().await;
        let slot = IdempotencySlot { device_id: desk.device, route: "POST /a".into(), key: "k".into() };
        let hash = digest::digest(&digest::SHA256, b"\"body\"").as_ref().to_vec();
        let claim = async |started: Timestamp| {
            let (abandoned, expired) = (Timestamp::now().minus(ABANDONED), Timestamp::now().minus(KEPT));
            desk.store.claim_idempotency(slot.clone(), hash.clone(), started, abandoned, expired).await.unwrap()
        };
        let long_ago = Timestamp::now().minus(ABANDONED * 2);
        assert_eq!(claim(long_ago).await, IdempotencyClaim::Yours(long_ago));
        let now = Timestamp::now();
        assert_eq!(claim(now).await, IdempotencyClaim::Yours(now), "the dead one's place is free");
        assert_eq!(desk.ask("POST /a", "k", "body", false).await, pair(409, "conflict"));
        desk.store.keep_idempotent(slot.clone(), long_ago, 201, b"late".to_vec(), now).await.unwrap();
        assert_eq!(desk.ask("POST /a", "k", "body", false).await, pair(409, "conflict"), "the late one keeps nothing");
        desk.store.keep_idempotent(slot.clone(), now, 201, b"7".to_vec(), now).await.unwrap();
        assert_eq!(desk.ask("POST /a", "k", "body", false).await, pair(201, "7"));
        assert_eq!(prune(&desk.store, now.plus(KEPT / 2)).await.unwrap(), 0);
        assert_eq!(prune(&desk.store, now.plus(KEPT * 2)).await.unwrap(), 1);
    }
}
