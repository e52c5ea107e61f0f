//! What nobody learns by asking: whether a number has an account, and what was in a request that was refused.

use super::cases::{keys, sign_in};
use super::room::{Room, problem, refused};
use crate::support::on_both;
use crate::support::people::fresh_phone;
use serde_json::{Value, json};
use sotto_client::rest::RawAnswer;
use sotto_client::{HeaderMap, Method, Rest};
use std::collections::BTreeSet;

async fn post(room: &Room, path: &str, body: &Value) -> RawAnswer {
    let rest = Rest::new(&room.node.url).unwrap();
    room.ask(&rest, &Method::POST, path, HeaderMap::new(), Some(body.to_string().into_bytes())).await
}

/// What an answer shows, without what differs between any two.
fn shown(answer: &RawAnswer) -> (u16, BTreeSet<String>, Value) {
    let names = answer.headers.keys().map(ToString::to_string).collect();
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
    for name in ["request_id", "verification_id", "expires_at", "resend_at"] {
        if let Some(value) = body.get_mut(name) {
            *value = json!(value.as_str().map(str::len));
        }
    }
    (answer.status, names, body)
}

on_both! {
    async fn nobody_learns_whether_a_number_has_an_account(database) {
        let room = Room::open(database).await;
        let (known, unknown) = (room.carol.phone.clone(), fresh_phone());
        for purpose in ["login", "recovery", "phone_change", "registration"] {
            let mut seen = Vec::new();
            for phone in [&known, &unknown] {
                let started = post(&room, "/v1/auth/verifications", &json!({"phone": phone, "purpose": purpose})).await;
                assert_eq!(started.status, 201);
                let id: Value = serde_json::from_slice(&started.body).unwrap();
                let mut request = sign_in();
                request["verification_id"] = id["verification_id"].clone();
                request["code"] = json!("x00000");
                let mut answers = vec![shown(&started)];
                for path in ["/v1/auth/login", "/v1/auth/register"] {
                    for _ in 0..6 {
                        let answer = post(&room, path, &request).await;
                        refused(&answer, 401, "code_rejected", path);
                        answers.push(shown(&answer));
                    }
                }
                seen.push(answers);
            }
            assert_eq!(seen[0], seen[1], "{purpose}");
        }
        // No message went to the unknown number but those that make it somebody's.
        let outbox = std::fs::read_to_string(room.node.folder.path().join("outbox.jsonl")).unwrap();
        assert_eq!(outbox.lines().filter(|line| line.contains(&unknown)).count(), 2);
        room.close().await;
    }

    async fn a_code_serves_its_purpose_and_its_number_only(database) {
        let room = Room::open(database).await;
        let start = async |phone: &str, purpose: &str| {
            let started = post(&room, "/v1/auth/verifications", &json!({"phone": phone, "purpose": purpose})).await;
            let started: Value = serde_json::from_slice(&started.body).unwrap();
            started["verification_id"].clone()
        };
        let login = start(&room.carol.phone, "login").await;
        let code = room.node.code_for(&room.carol.phone);
        let other = start(&room.bob.phone, "login").await;
        let mut request = sign_in();
        for (id, path) in [(&login, "/v1/auth/register"), (&other, "/v1/auth/login"), (&json!(uuid::Uuid::nil()), "/v1/auth/login")] {
            (request["verification_id"], request["code"]) = (id.clone(), json!(code));
            refused(&post(&room, path, &request).await, 401, "code_rejected", path);
        }
        // Another spelling of the right code is another code; a wrong form costs no try.
        request["verification_id"] = login.clone();
        for wrong in [format!(" {code}"), format!("{code}\n"), format!("0{code}")] {
            request["code"] = json!(wrong);
            let problem = refused(&post(&room, "/v1/auth/login", &request).await, 401, "code_rejected", "a spelling");
            assert!(problem["attempts_left"].is_u64() && !problem.to_string().contains(&code), "{problem}");
        }
        request["code"] = json!(code);
        request["device"]["platform"] = json!("toaster");
        refused(&post(&room, "/v1/auth/login", &request).await, 422, "validation_failed", "a platform");
        request["device"]["platform"] = json!("web");
        assert_eq!(post(&room, "/v1/auth/login", &request).await.status, 200);
        request["keys"] = keys();
        refused(&post(&room, "/v1/auth/login", &request).await, 401, "code_rejected", "a used code");
        room.close().await;
    }

    async fn problems_repeat_nothing_that_was_said(database) {
        let room = Room::open(database).await;
        let said = "sesame-0123456789-sesame";
        let rest = &room.alice.rest;
        let bodies = [
            ("/v1/auth/verifications", json!({"phone": said, "purpose": "login"})),
            ("/v1/auth/verifications", json!({"phone": "+15550000001", "purpose": said})),
            ("/v1/auth/refresh", json!({"refresh_token": said})),
            ("/v1/auth/refresh", json!({"refresh_token": [said]})),
            ("/v1/auth/login", json!({"verification_id": said, "code": said})),
            ("/v1/sync/ack", json!({"cursor": said})),
            ("/v1/messages", json!({"message_id": said})),
            ("/v1/messages", json!({"message_id": uuid::Uuid::nil(), "conversation_id": uuid::Uuid::nil(), "kind": said})),
            ("/v1/messages", json!({"ciphertext": format!("!{said}")})),
            ("/v1/conversations", json!({"type": said})),
            ("/v1/conversations", json!({"type": "group", "members": [], "name": format!("{said}\u{7}")})),
            ("/v1/users/lookup", json!({"phones": said})),
        ];
        for (path, body) in bodies {
            let answer = room.ask(rest, &Method::POST, path, HeaderMap::new(), Some(body.to_string().into_bytes())).await;
            let problem = problem(&answer, path);
            assert!(!problem.to_string().contains(said), "{path} {body}: {problem}");
            assert!(answer.headers.values().all(|value| !String::from_utf8_lossy(value.as_bytes()).contains(said)), "{path}");
        }
        assert!(!room.node.log().contains(said), "what was refused is in the log");
        room.close().await;
    }
}
