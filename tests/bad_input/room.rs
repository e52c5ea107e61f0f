//! A node with people on it, what they see, and what every refusal must look like.

use crate::support::database::Kind;
use crate::support::node::{TestNode, text};
use crate::support::people::{Device, enveloped, pair, register, second_device, shared};
use serde_json::{Value, json};
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::{ConversationId, MessageId};
use sotto_client::rest::RawAnswer;
use sotto_client::{HeaderMap, Method, Rest};
use std::collections::BTreeSet;
use std::time::Duration;

/// Longer than the contract lets any answer take.
pub const BOUND: Duration = Duration::from_secs(9);

/// Codes and the statuses that stand with them; 408 and 426 are this server's additions.
const CODES: &[(&str, &[u16])] = &[
    ("invalid_frame", &[400, 408, 426]),
    ("cursor_unknown", &[400]),
    ("unsupported_version", &[400, 426]),
    ("unauthenticated", &[401]),
    ("code_rejected", &[401]),
    ("second_factor_required", &[401]),
    ("challenge_required", &[401]),
    ("forbidden", &[403]),
    ("blocked", &[403]),
    ("not_found", &[404]),
    ("method_not_allowed", &[405]),
    ("conflict", &[409]),
    ("limit_reached", &[409]),
    ("device_list_mismatch", &[409]),
    ("device_stale", &[410]),
    ("payload_too_large", &[413]),
    ("unsupported_media_type", &[415]),
    ("validation_failed", &[422]),
    ("idempotency_mismatch", &[422]),
    ("rate_limited", &[429]),
];

/// Alice has a phone and a tablet, talks to Bob and owns a group with him; Bob also talks to Carol, which is not hers
/// to see.
pub struct Room {
    pub node: TestNode,
    pub alice: Device,
    pub tablet: Device,
    pub bob: Device,
    pub carol: Device,
    /// Alice and Bob.
    pub direct: ConversationId,
    /// Alice, who owns it, and Bob.
    pub group: ConversationId,
    /// Bob and Carol.
    pub theirs: ConversationId,
    /// Alice's, in `direct`.
    pub message: MessageId,
    /// Carol's, in `theirs`.
    pub their_message: MessageId,
    /// What Alice's device might publish next, all of it right.
    pub alice_keys: Value,
}

impl Room {
    pub async fn open(kind: Kind) -> Self {
        Self::with(kind, &[]).await
    }

    pub async fn with(kind: Kind, settings: &[(&str, &str)]) -> Self {
        let all = [&[("SOTTO_LIMITS__ENABLED", "false"), ("SOTTO_LOG__LEVEL", "debug")], settings].concat();
        let node = TestNode::with(kind, &all).await;
        let (mut alice, bob, direct) = pair(&node).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let carol = register(&node, "carol").await;
        let theirs = carol.rest.create_direct(bob.user_id).await.unwrap().conversation_id;
        let group = CreateConversation {
            kind: ConversationType::Group,
            members: vec![bob.user_id],
            name: Some("group".to_owned()),
        };
        let group = alice.rest.create_conversation(&group, None).await.unwrap().0.conversation_id;
        let first = enveloped(direct, &[&bob, &tablet], "secret-of-alice");
        let answer = enveloped(direct, &[&alice, &tablet], "secret-of-bob");
        let their_first = enveloped(theirs, &[&bob], "secret-of-carol");
        alice.rest.send_message(&first, None).await.unwrap();
        bob.rest.send_message(&answer, None).await.unwrap();
        carol.rest.send_message(&their_first, None).await.unwrap();
        bob.rest.send_message(&shared(group, "secret-of-the-group"), None).await.unwrap();
        let (message, their_message) = (first.message_id, their_first.message_id);
        let mut alice_keys = serde_json::to_value(alice.keys.sign_in_keys(3).unwrap()).unwrap();
        alice_keys["registration_id"] = json!(7);
        Self { node, alice, tablet, bob, carol, direct, group, theirs, message, their_message, alice_keys }
    }

    fn people(&self) -> [&Device; 4] {
        [&self.alice, &self.tablet, &self.bob, &self.carol]
    }

    /// Everything that everybody sees, but for clocks and cursors.
    pub async fn view(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for person in self.people() {
            let get = async |path: &str| {
                let answer = person.rest.raw(Method::GET, path, HeaderMap::new(), None).await.unwrap();
                assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
                serde_json::from_slice::<Value>(&answer.body).unwrap()
            };
            let mut me = get("/v1/auth/me").await;
            me["device"]["last_active_at"] = Value::Null;
            let mut sync = get("/v1/sync?limit=500").await;
            sync["cursor"] = Value::Null;
            let conversations = get("/v1/conversations?limit=200").await;
            for conversation in conversations["items"].as_array().unwrap() {
                let id = conversation["conversation_id"].as_str().unwrap();
                all.push(get(&format!("/v1/conversations/{id}/messages?limit=500")).await);
            }
            all.extend([me, sync, conversations, get("/v1/keys/count").await]);
            for other in self.people() {
                all.push(get(&format!("/v1/users/{}/keys?claim=false", text(other.user_id))).await);
            }
        }
        all
    }

    /// A request whose answer must come in time.
    pub async fn ask(
        &self,
        rest: &Rest,
        method: &Method,
        path: &str,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> RawAnswer {
        let asked = tokio::time::timeout(BOUND, rest.raw(method.clone(), path, headers, body)).await;
        let asked = asked.unwrap_or_else(|_| panic!("{method} {path} hangs"));
        asked.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Asks as Alice with a body of text.
    pub async fn alice(&self, method: &Method, path: &str, body: Option<&str>) -> RawAnswer {
        let body = body.map(|text| text.as_bytes().to_vec());
        self.ask(&self.alice.rest, method, path, HeaderMap::new(), body).await
    }

    /// What nobody but its owner may read anywhere, and above all not in the log.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for person in self.people() {
            secrets.extend([
                person.phone.clone(),
                person.tokens.access_token.clone(),
                person.tokens.refresh_token.clone(),
                person.tokens.access_token.rsplit_once('.').unwrap().1.to_owned(),
            ]);
        }
        for written in ["alice", "bob", "carol", "the-group"] {
            let bytes = format!("secret-of-{written}").into_bytes();
            // Without the last characters, which depend on what follows.
            secrets.push(sotto_client::protocol::Binary::encode(&bytes).chars().take(16).collect());
            secrets.push(format!("secret-of-{written}"));
        }
        secrets
    }

    /// The server has not written down what is not its own, and answers as before.
    pub async fn close(self) {
        let health = self.alice.rest.health().await.unwrap();
        assert_eq!(health.status, "ok");
        let log = self.node.log();
        assert!(log.contains("listening") || log.len() > 200, "debug must log something: {log}");
        for secret in self.secrets() {
            assert!(!log.contains(&secret), "the log contains {secret}");
        }
        let outbox = std::fs::read_to_string(self.node.folder.path().join("outbox.jsonl")).unwrap();
        let sent: Vec<Value> = outbox.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut words: BTreeSet<&str> = BTreeSet::new();
        for line in log.lines() {
            // The time of a line has digits of its own.
            let line = line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start());
            words.extend(line.split(|letter: char| !letter.is_ascii_alphanumeric()));
        }
        for message in sent {
            assert!(!words.contains(message["code"].as_str().unwrap()), "a code is in the log");
            assert!(!log.contains(message["to"].as_str().unwrap()), "a number is in the log");
        }
    }
}

/// Checks that an answer is a problem as the contract wants it, and gives its body.
pub fn problem(answer: &RawAnswer, asked: &str) -> Value {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let header = |name: &str| answer.headers.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("content-type"), "application/problem+json", "{asked}: {} {body}", answer.status);
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{asked}: {body}"));
    assert_eq!(problem["status"], json!(answer.status), "{asked}: {body}");
    check(&problem, asked);
    assert_eq!(problem["request_id"].as_str(), Some(header("x-request-id")), "{asked}");
    match answer.status {
        401 => assert_eq!(header("www-authenticate"), "Bearer", "{asked}"),
        405 => assert!(!header("allow").is_empty(), "{asked}"),
        429 => assert!(header("retry-after").parse::<u64>().is_ok(), "{asked}"),
        _ => {}
    }
    problem
}

/// Checks the members of a problem, from an answer or a frame.
pub fn check(problem: &Value, asked: &str) {
    let said = |name: &str| problem[name].as_str().is_some_and(|text| !text.is_empty());
    assert!(["type", "title", "detail", "code", "request_id"].into_iter().all(said), "{asked}: {problem}");
    assert!(problem["retryable"].is_boolean(), "{asked}: {problem}");
    let (code, status) = (problem["code"].as_str().unwrap(), problem["status"].as_u64().unwrap());
    let statuses = CODES.iter().find(|(known, _)| *known == code).map(|(_, statuses)| *statuses);
    let statuses = statuses.unwrap_or_else(|| panic!("{asked}: {problem}"));
    assert!(statuses.iter().any(|known| u64::from(*known) == status), "{asked}: {problem}");
    let errors = problem["errors"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    assert!(code != "validation_failed" || !errors.is_empty(), "{asked}: {problem}");
    for error in errors {
        let places = [&error["pointer"], &error["parameter"]];
        assert_eq!(places.iter().filter(|place| place.is_string()).count(), 1, "{asked}: {problem}");
        assert!(error["code"].as_str().is_some_and(|code| !code.is_empty()), "{asked}: {problem}");
    }
}

/// An answer that is this problem.
pub fn refused(answer: &RawAnswer, status: u16, code: &str, asked: &str) -> Value {
    let problem = problem(answer, asked);
    assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{asked}: {problem}");
    problem
}

/// … and names this place in the body, or one below it.
pub fn points(problem: &Value, pointer: &str, asked: &str) {
    let place = problem["errors"][0]["pointer"].as_str().unwrap_or_else(|| panic!("{asked}: {problem}"));
    let below = place.strip_prefix(pointer).unwrap_or_else(|| panic!("{asked}: {place} is not {pointer}"));
    assert!(below.is_empty() || below.starts_with('/'), "{asked}: {place} is not {pointer}");
}

/// Two snapshots that differ say where.
pub fn unchanged(before: &[Value], after: &[Value]) {
    assert_eq!(before.len(), after.len(), "something was made or removed");
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before, after);
    }
}
