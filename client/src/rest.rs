//! Every REST call of the contract, typed.

mod account;

use crate::error::{Error, Result};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sotto_protocol::auth::{
    FoundUser, LoginRequest, LookupAnswer, LookupRequest, Me, Purpose, RefreshRequest, RegisterRequest, Tokens,
    Verification, VerificationRequest,
};
use sotto_protocol::challenge::{self, Challenge, ChallengeResponse};
use sotto_protocol::conversation::{
    Conversation, ConversationType, CreateConversation, Member, MemberChange, Page, ReadMessage, ReadUpTo,
};
use sotto_protocol::keys::{KeyCount, Keys, UserKeys};
use sotto_protocol::message::{Message, OutgoingMessage, Sent};
use sotto_protocol::sync::{SyncAck, SyncPage};
use sotto_protocol::text::percent_encode;
use sotto_protocol::{ConversationId, DeviceId, ErrorCode, MessageId, Problem, Seq, UserId};
use std::fmt;
use std::sync::Once;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Proofs of work that are computed for one code: budgets may fill while one is under way.
const PROOFS: usize = 2;
const JSON: &str = "application/json";

/// A client of the REST interface. It holds no state but the address and the token: whoever wants
/// retries, refreshing and encryption takes [`crate::Client`].
#[derive(Clone)]
pub struct Rest {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// An answer as it came.
#[derive(Clone)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Vec<u8>,
}

/// The answer of `GET /health`; further members are in `more`.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Health {
    /// `ok`, `degraded` or `down`.
    pub status: String,
    /// Everything else that the server tells.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// Members that are asked for at once.
const MEMBERS_AT_ONCE: u32 = 200;

/// Which part of a conversation's history is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryRange {
    /// The first ones after this number.
    pub after_seq: Option<Seq>,
    /// Those before this number; alone: the last ones before it.
    pub before_seq: Option<Seq>,
    /// 1 … 500.
    pub limit: Option<u32>,
}

/// Rustls needs one process-wide provider; whoever comes first installs it.
pub(crate) fn install_crypto_provider() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // An application that installed its own before is right as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

impl Rest {
    /// A client without a token for the server at `base`, as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the address is none, or no TLS can be set up.
    pub fn new(base: &str) -> Result<Self> {
        install_crypto_provider();
        let base = Url::parse(base).map_err(|error| Error::Usage(format!("{base}: {error}")))?;
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(Error::Usage(format!("{base} is not an http address")));
        }
        let mut builder = reqwest::Client::builder().timeout(TIMEOUT).connect_timeout(TIMEOUT);
        if is_loopback(&base) {
            // A proxy of the environment cannot reach this machine.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Error::Transport(error.to_string()))?;
        Ok(Self { http, base, token: None })
    }

    /// The same client with an access token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// The same client without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The server's address.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// `POST /v1/auth/verifications`: asks for a code. A proof of work that the server demands is computed here, on a thread of its
    /// own, and sent; a captcha is the caller's: see [`Rest::verify_with`].
    ///
    /// # Errors
    /// As every call here: [`Error::Problem`] when the server refuses, [`Error::Transport`] or
    /// [`Error::Timeout`] without an answer, [`Error::Protocol`] for an answer that cannot be read.
    pub async fn verify(&self, phone: &str, purpose: Purpose) -> Result<Verification> {
        let mut request = VerificationRequest::new(phone, purpose);
        for _ in 0..PROOFS {
            let error = match self.verify_with(&request).await {
                Ok(verification) => return Ok(verification),
                Err(error) => error,
            };
            let Some(Challenge::ProofOfWork { challenge, difficulty, .. }) = error.challenge() else {
                return Err(error);
            };
            let text = challenge.clone();
            let solved = tokio::task::spawn_blocking(move || challenge::solve(&text, difficulty)).await;
            let Some(solution) = solved.ok().flatten() else { return Err(error) };
            request.challenge_response = Some(ChallengeResponse { challenge: Some(challenge), solution });
        }
        self.verify_with(&request).await
    }

    /// The same with a request of one's own; a challenge is not answered, [`Error::challenge`] gives it.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn verify_with(&self, request: &VerificationRequest) -> Result<Verification> {
        self.post("/v1/auth/verifications", request).await
    }

    /// `POST /v1/auth/register`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn register(&self, request: &RegisterRequest) -> Result<Tokens> {
        self.post("/v1/auth/register", request).await
    }

    /// `POST /v1/auth/login`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn login(&self, request: &LoginRequest) -> Result<Tokens> {
        self.post("/v1/auth/login", request).await
    }

    /// `POST /v1/auth/refresh`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens> {
        let body = RefreshRequest { refresh_token: refresh_token.to_owned() };
        self.post("/v1/auth/refresh", &body).await
    }

    /// `POST /v1/auth/logout`: removes this device.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn logout(&self) -> Result<()> {
        nothing(self.send(Method::POST, "/v1/auth/logout", None::<&()>, HeaderMap::new()).await?)
    }

    /// `GET /v1/auth/me`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn me(&self) -> Result<Me> {
        self.get("/v1/auth/me").await
    }

    /// `PUT /v1/keys`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn put_keys(&self, keys: &Keys) -> Result<()> {
        nothing(self.send(Method::PUT, "/v1/keys", Some(keys), HeaderMap::new()).await?)
    }

    /// `GET /v1/keys/count`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn key_count(&self) -> Result<KeyCount> {
        self.get("/v1/keys/count").await
    }

    /// `GET /v1/users/{user_id}/keys`: claims a one-time key of each device, or of the named ones.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn claim_keys(&self, user: UserId, devices: &[DeviceId]) -> Result<UserKeys> {
        let filter: Vec<String> = devices.iter().map(|device| format!("device_id={device}")).collect();
        self.get(&path(&format!("/v1/users/{user}/keys"), &filter)).await
    }

    /// `GET /v1/users/{user_id}/keys?claim=false`: devices and identity keys only.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn devices(&self, user: UserId) -> Result<UserKeys> {
        self.get(&format!("/v1/users/{user}/keys?claim=false")).await
    }

    /// `POST /v1/users/lookup`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn lookup(&self, phones: &[String]) -> Result<Vec<FoundUser>> {
        let answer: LookupAnswer = self.post("/v1/users/lookup", &LookupRequest { phones: phones.to_vec() }).await?;
        Ok(answer.users)
    }

    /// `POST /v1/conversations`; whether it is new.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn create_conversation(
        &self,
        request: &CreateConversation,
        idempotency_key: Option<&str>,
    ) -> Result<(Conversation, bool)> {
        let headers = idempotency(idempotency_key)?;
        let answer = self.send(Method::POST, "/v1/conversations", Some(request), headers).await?;
        let created = answer.status == StatusCode::CREATED.as_u16();
        Ok((parse(&answer)?, created))
    }

    /// The direct conversation with a user, made where there is none.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn create_direct(&self, user: UserId) -> Result<Conversation> {
        let request = CreateConversation { kind: ConversationType::Direct, members: vec![user], name: None };
        Ok(self.create_conversation(&request, None).await?.0)
    }

    /// `GET /v1/conversations`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn conversations(&self, after: Option<&str>, limit: Option<u32>) -> Result<Page<Conversation>> {
        let mut query = Vec::new();
        if let Some(after) = after {
            query.push(format!("after={}", percent_encode(after)));
        }
        if let Some(limit) = limit {
            query.push(format!("limit={limit}"));
        }
        self.get(&path("/v1/conversations", &query)).await
    }

    /// `GET /v1/conversations/{id}`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn conversation(&self, conversation: ConversationId) -> Result<Conversation> {
        self.get(&format!("/v1/conversations/{conversation}")).await
    }

    /// `GET /v1/conversations/{id}/members`: a page of them.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn members(
        &self,
        conversation: ConversationId,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Page<Member>> {
        let mut query = Vec::new();
        query.extend(after.map(|after| format!("after={}", percent_encode(after))));
        query.extend(limit.map(|limit| format!("limit={limit}")));
        self.get(&path(&format!("/v1/conversations/{conversation}/members"), &query)).await
    }

    /// A conversation with all of its members, page by page where it does not name them itself.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn whole_conversation(&self, conversation: ConversationId) -> Result<Conversation> {
        // The version of the device list is read before the members: should they change meanwhile, it is the older one,
        // and the server refuses what is sent by it.
        let mut whole = self.conversation(conversation).await?;
        if whole.has_all_members() {
            return Ok(whole);
        }
        whole.members.clear();
        let mut after: Option<String> = None;
        loop {
            let page = self.members(conversation, after.as_deref(), Some(MEMBERS_AT_ONCE)).await?;
            whole.members.extend(page.items);
            after = page.next;
            if after.is_none() {
                whole.member_count = u32::try_from(whole.members.len()).unwrap_or(u32::MAX);
                return Ok(whole);
            }
        }
    }

    /// `POST /v1/conversations/{id}/members`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn add_members(&self, conversation: ConversationId, users: &[UserId]) -> Result<()> {
        self.change_members(Method::POST, conversation, users).await
    }

    /// `DELETE /v1/conversations/{id}/members`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn remove_members(&self, conversation: ConversationId, users: &[UserId]) -> Result<()> {
        self.change_members(Method::DELETE, conversation, users).await
    }

    async fn change_members(&self, method: Method, conversation: ConversationId, users: &[UserId]) -> Result<()> {
        let body = MemberChange { user_ids: users.to_vec() };
        let path = format!("/v1/conversations/{conversation}/members");
        nothing(self.send(method, &path, Some(&body), HeaderMap::new()).await?)
    }

    /// `POST /v1/messages`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn send_message(&self, message: &OutgoingMessage, idempotency_key: Option<&str>) -> Result<Sent> {
        let headers = idempotency(idempotency_key)?;
        parse(&self.send(Method::POST, "/v1/messages", Some(message), headers).await?)
    }

    /// `POST /v1/messages` with a body that is sent byte for byte.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn send_message_text(&self, body: String) -> Result<Sent> {
        let answer = self.raw(Method::POST, "/v1/messages", HeaderMap::new(), Some(body.into_bytes())).await?;
        parse(&checked(answer)?)
    }

    /// `GET /v1/conversations/{id}/messages`, ascending.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn history(&self, conversation: ConversationId, range: HistoryRange) -> Result<Page<Message>> {
        let mut query = Vec::new();
        if let Some(seq) = range.after_seq {
            query.push(format!("after_seq={seq}"));
        }
        if let Some(seq) = range.before_seq {
            query.push(format!("before_seq={seq}"));
        }
        if let Some(limit) = range.limit {
            query.push(format!("limit={limit}"));
        }
        self.get(&path(&format!("/v1/conversations/{conversation}/messages"), &query)).await
    }

    /// `PUT /v1/conversations/{id}/read`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn mark_read(&self, conversation: ConversationId, up_to: Seq) -> Result<()> {
        let path = format!("/v1/conversations/{conversation}/read");
        nothing(self.send(Method::PUT, &path, Some(&ReadUpTo { up_to }), HeaderMap::new()).await?)
    }

    /// `PUT /v1/messages/{message_id}/read`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn mark_message_read(&self, message: MessageId, conversation: Option<ConversationId>) -> Result<()> {
        let body = ReadMessage { conversation_id: conversation };
        let path = format!("/v1/messages/{message}/read");
        nothing(self.send(Method::PUT, &path, Some(&body), HeaderMap::new()).await?)
    }

    /// `GET /v1/sync`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn sync(&self, limit: Option<u32>) -> Result<SyncPage> {
        let query: Vec<String> = limit.iter().map(|limit| format!("limit={limit}")).collect();
        self.get(&path("/v1/sync", &query)).await
    }

    /// `POST /v1/sync/ack`.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn sync_ack(&self, cursor: &str) -> Result<()> {
        let body = SyncAck { cursor: cursor.to_owned() };
        nothing(self.send(Method::POST, "/v1/sync/ack", Some(&body), HeaderMap::new()).await?)
    }

    /// `GET /health`, which answers alike with 200 and 503.
    ///
    /// # Errors
    /// As [`Rest::verify`].
    pub async fn health(&self) -> Result<Health> {
        let answer = self.raw(Method::GET, "/health", HeaderMap::new(), None).await?;
        match parse(&answer) {
            Ok(health) => Ok(health),
            Err(unreadable) => Err(checked(answer).err().unwrap_or(unreadable)),
        }
    }

    /// Any request at all; answers of every status come back as they are. The token and
    /// `Content-Type: application/json` are set unless `headers` has them.
    ///
    /// # Errors
    /// [`Error::Transport`] or [`Error::Timeout`] without an answer.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<RawAnswer> {
        let url = self.base.join(path).map_err(|error| Error::Usage(error.to_string()))?;
        let mut all = HeaderMap::new();
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Error::Usage("the token cannot stand in a header".to_owned()))?;
            value.set_sensitive(true);
            all.insert(AUTHORIZATION, value);
        }
        if body.is_some() {
            all.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        }
        all.extend(headers);
        let mut request = self.http.request(method, url).headers(all);
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = answer.bytes().await.map_err(transport)?.to_vec();
        Ok(RawAnswer { status, headers, body })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(&self.send(Method::GET, path, None::<&()>, HeaderMap::new()).await?)
    }

    pub(crate) async fn post<T: DeserializeOwned, B: Serialize + Sync>(&self, path: &str, body: &B) -> Result<T> {
        parse(&self.send(Method::POST, path, Some(body), HeaderMap::new()).await?)
    }

    pub(crate) async fn send<B: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        headers: HeaderMap,
    ) -> Result<RawAnswer> {
        let body = body.map(serde_json::to_vec).transpose().map_err(Error::protocol)?;
        checked(self.raw(method, path, headers, body).await?)
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed_in = self.token.is_some();
        formatter
            .debug_struct("Rest")
            .field("base", &self.base.as_str())
            .field("signed_in", &signed_in)
            .finish_non_exhaustive()
    }
}

impl RawAnswer {
    /// The body as JSON of a type.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        parse(self)
    }

    /// The problem that the answer is, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        serde_json::from_slice(&self.body).ok()
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl fmt::Debug for RawAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.len();
        formatter.debug_struct("RawAnswer").field("status", &self.status).field("bytes", &bytes).finish_non_exhaustive()
    }
}

fn is_loopback(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn path(path: &str, query: &[String]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn idempotency(key: Option<&str>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let value = HeaderValue::try_from(key)
            .map_err(|_| Error::Usage("an Idempotency-Key has visible ASCII characters".to_owned()))?;
        headers.insert(HeaderName::from_static("idempotency-key"), value);
    }
    Ok(headers)
}

fn transport(error: reqwest::Error) -> Error {
    if error.is_timeout() {
        return Error::Timeout;
    }
    // The innermost cause says what happened; the address may carry nothing secret, but is noise.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Error::Transport(cause.to_string())
}

fn checked(answer: RawAnswer) -> Result<RawAnswer> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    if let Some(mut problem) = answer.problem() {
        if problem.retry_after_ms.is_none()
            && let Some(seconds) = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok())
        {
            problem.retry_after_ms = Some(seconds.saturating_mul(1000));
        }
        return Err(problem.into());
    }
    // A proxy in between answers without a problem: its 5xx, and its 408, are as good as no answer.
    if is_no_answer(answer.status) {
        return Err(Problem::new(ErrorCode::Unavailable, format!("HTTP status {}", answer.status)).into());
    }
    Err(Error::Protocol(format!("HTTP status {} without a problem", answer.status)))
}

/// Whether a status without a problem says only that nobody has answered: the outcome is unknown (RFC 9110, sections
/// 15.5.9 and 15.6).
pub(crate) const fn is_no_answer(status: u16) -> bool {
    status >= 500 || status == 408
}

pub(crate) fn parse<T: DeserializeOwned>(answer: &RawAnswer) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(Error::protocol)
}

pub(crate) fn nothing(_answer: RawAnswer) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> RawAnswer {
        RawAnswer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn problems_keep_their_code_and_their_wait() {
        let body = serde_json::to_string(&Problem::new(ErrorCode::RateLimited, "slow")).unwrap();
        let mut refused = answer(429, &body);
        refused.headers.insert("retry-after", HeaderValue::from_static("3"));
        let error = checked(refused).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::RateLimited));
        assert_eq!(error.problem().unwrap().retry_after_ms, Some(3000));
        assert!(error.is_retryable());
    }

    #[test]
    fn an_answer_of_a_proxy_is_unknown_outcome() {
        for status in [408, 502, 503, 504] {
            assert_eq!(checked(answer(status, "<html>")).unwrap_err().code(), Some(ErrorCode::Unavailable));
        }
        assert!(matches!(checked(answer(404, "<html>")), Err(Error::Protocol(_))));
        assert!(checked(answer(204, "")).is_ok());
    }

    #[test]
    fn cursors_are_escaped_and_tokens_hidden() {
        assert_eq!(percent_encode("a+/=b c"), "a%2B%2F%3Db%20c");
        let rest = Rest::new("http://127.0.0.1:1").unwrap().with_token("secret");
        assert!(!format!("{rest:?}").contains("secret"));
        assert!(Rest::new("ftp://x").is_err());
    }
}
