//! How much one may send, to whom before an answer, and what an Idempotency-Key does.

use super::{code, group, pipeline, post, try_send};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{pair, register, shared};
use sotto_client::protocol::ErrorCode;
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::rest::RawAnswer;
use sotto_client::{HeaderMap, Method, Rest};

const LIMITED: [(&str, &str); 2] = [("SOTTO_LIMITS__ENABLED", "true"), ("SOTTO_LIMITS__REQUESTS_PER_MINUTE", "10000")];

async fn with_key(rest: &Rest, key: &str, message: &OutgoingMessage) -> RawAnswer {
    let mut headers = HeaderMap::new();
    headers.insert("idempotency-key", key.parse().unwrap());
    let body = serde_json::to_vec(message).unwrap();
    rest.raw(Method::POST, "/v1/messages", headers, Some(body)).await.unwrap()
}

on_both! {
    async fn a_stranger_may_send_three_messages_until_he_is_answered(database) {
        let node = TestNode::with(database, &LIMITED).await;
        for answered_by in ["a message", "a read mark"] {
            let (alice, bob, conversation) = pair(&node).await;
            let (mut alices, _) = alice.socket().await;
            let first: Vec<_> = (0..5).map(|_| shared(conversation, "hello?")).collect();
            let answers = pipeline(&mut alices, &first).await;
            let stored = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(stored, 3, "in one go as well as one by one");
            for refused in answers.into_iter().skip(3) {
                let error = refused.unwrap_err();
                assert_eq!(error.problem().map(|problem| (problem.code, problem.status)), Some((ErrorCode::Blocked, 403)));
            }
            let fourth = shared(conversation, "fourth");
            let (status, body) = post(&alice.rest, &fourth).await;
            assert_eq!((status, &body["code"]), (403, &"blocked".into()));
            // A repeat is no further message.
            assert!(try_send(&mut alices, &first[0]).await.unwrap().duplicate);
            match answered_by {
                "a message" => drop(bob.rest.send_message(&shared(conversation, "yes"), None).await.unwrap()),
                _ => bob.rest.mark_read(conversation, 1).await.unwrap(),
            }
            assert_eq!(post(&alice.rest, &fourth).await.0, 201, "after {answered_by}");
            for _ in 0..3 {
                try_send(&mut alices, &shared(conversation, "and more")).await.unwrap();
            }
        }
        // Groups have no such rule.
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let conversation = group(&alice, &[&bob]).await;
        for _ in 0..6 {
            alice.rest.send_message(&shared(conversation, "group"), None).await.unwrap();
        }
    }

    async fn twenty_messages_a_minute_and_repeats_are_free(database) {
        let node = TestNode::with(database, &LIMITED).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let conversation = group(&alice, &[&bob]).await;
        let (mut alices, _) = alice.socket().await;
        let first = shared(conversation, "first");
        alice.rest.send_message(&first, None).await.unwrap();
        // Repeats below the limit do not count either.
        for _ in 0..15 {
            assert!(try_send(&mut alices, &first).await.unwrap().duplicate);
            assert!(alice.rest.send_message(&first, None).await.unwrap().duplicate);
        }
        let rest: Vec<_> = (0..21).map(|_| shared(conversation, "more")).collect();
        let answers = pipeline(&mut alices, &rest).await;
        for answer in &answers[..19] {
            assert!(answer.is_ok(), "{answer:?}");
        }
        for answer in &answers[19..] {
            let problem = answer.as_ref().unwrap_err().problem().unwrap();
            assert_eq!((problem.code, problem.status, problem.retryable), (ErrorCode::RateLimited, 429, true));
            let wait = problem.retry_after_ms.unwrap();
            assert!((1..=60_000).contains(&wait), "{wait}");
        }
        let body = serde_json::to_vec(&rest[20]).unwrap();
        let answer = alice.rest.raw(Method::POST, "/v1/messages", HeaderMap::new(), Some(body)).await.unwrap();
        assert_eq!(answer.status, 429);
        let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        assert!(answer.header("ratelimit").is_some() && answer.header("ratelimit-policy").is_some());
        assert!(answer.problem().unwrap().retry_after_ms.is_some());
        // Over the limit a repeat is answered all the same; others have their own.
        for known in [&first, &rest[0], &rest[18]] {
            assert!(try_send(&mut alices, known).await.unwrap().duplicate);
            assert_eq!(post(&alice.rest, known).await.0, 200);
        }
        assert_eq!(code(try_send(&mut alices, &rest[19]).await), ErrorCode::RateLimited);
        bob.rest.send_message(&shared(conversation, "mine"), None).await.unwrap();
    }

    async fn an_idempotency_key_gives_the_first_answer_again(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let message = shared(conversation, "once");
        let first = with_key(&alice.rest, "key", &message).await;
        assert_eq!(first.status, 201);
        let again = with_key(&alice.rest, "key", &message).await;
        assert_eq!((again.status, &again.body), (201, &first.body), "the first answer, not the answer to a repeat");
        let other = with_key(&alice.rest, "key", &shared(conversation, "other")).await;
        assert_eq!((other.status, other.problem().unwrap().code), (422, ErrorCode::IdempotencyMismatch));
        // It is the device's own, and a refusal is not kept.
        let bobs = with_key(&bob.rest, "key", &shared(conversation, "bob's")).await;
        assert_eq!((bobs.status, bobs.json::<Sent>().unwrap().seq), (201, 2));
        let nobody = OutgoingMessage {
            conversation_id: sotto_client::protocol::ConversationId::ordered(),
            ..shared(conversation, "nowhere")
        };
        assert_eq!(with_key(&alice.rest, "second", &nobody).await.status, 404);
        assert_eq!(with_key(&alice.rest, "second", &shared(conversation, "then here")).await.status, 201);
        // Without the key it is a repeat, by the message's own id.
        let (status, body) = post(&alice.rest, &message).await;
        assert_eq!((status, &body["duplicate"]), (200, &true.into()));
        assert_eq!(with_key(&alice.rest, &"k".repeat(256), &message).await.status, 422);
        assert_eq!(with_key(&alice.rest, "two words", &message).await.status, 422);
        // The same key many times at once: one message, and nobody gets another answer than that or "still running".
        let raced = shared(conversation, "raced");
        let mut racers = Vec::new();
        for _ in 0..8 {
            let (rest, raced) = (alice.rest.clone(), raced.clone());
            racers.push(tokio::spawn(async move { with_key(&rest, "race", &raced).await }));
        }
        let mut stored = Vec::new();
        for racer in racers {
            let answer = racer.await.unwrap();
            match answer.status {
                201 => stored.push(answer.body),
                409 => {
                    let problem = answer.problem().unwrap();
                    assert_eq!((problem.code, problem.retryable), (ErrorCode::Conflict, true));
                }
                status => panic!("{status}: {:?}", answer.problem()),
            }
        }
        assert!(!stored.is_empty() && stored.iter().all(|body| *body == stored[0]));
        assert_eq!(with_key(&alice.rest, "race", &raced).await.body, stored[0]);
    }
}
