//! What the caller may not see is 404 wherever it is named, and values that contradict each other are refused.

use super::cases::keys;
use super::room::{Room, points, refused, unchanged};
use crate::support::on_both;
use serde_json::{Value, json};
use sotto_client::protocol::MessageId;
use sotto_client::rest::RawAnswer;
use sotto_client::{HeaderMap, Method, Rest};
use uuid::Uuid;

impl Room {
    async fn post(&self, rest: &Rest, path: &str, body: &Value) -> RawAnswer {
        self.ask(rest, &Method::POST, path, HeaderMap::new(), Some(body.to_string().into_bytes())).await
    }

    /// A message of Alice's to a conversation, to Bob's phone and her tablet.
    fn letter(&self, conversation: impl Into<Uuid>) -> Value {
        let envelope =
            |user: Uuid, device: Uuid| json!({"user_id": user, "device_id": device, "type": 1, "ciphertext": "AAEC"});
        json!({
            "message_id": MessageId::ordered(), "conversation_id": conversation.into(), "kind": "text",
            "envelopes": [
                envelope(self.bob.user_id.into(), self.bob.device_id.into()),
                envelope(self.tablet.user_id.into(), self.tablet.device_id.into()),
            ],
        })
    }
}

on_both! {
    async fn what_is_not_yours_is_nothing(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let (alice, bob, carol) = (&room.alice.rest, &room.bob.rest, &room.carol.rest);
        let conversation = |id: Uuid, tail: &str| format!("/v1/conversations/{id}{tail}");
        let (group, theirs, nobody) = (Uuid::from(room.group), Uuid::from(room.theirs), Uuid::new_v4());
        let not_found = |answer: RawAnswer, asked: &str| drop(refused(&answer, 404, "not_found", asked));

        not_found(room.post(alice, "/v1/messages", &room.letter(theirs)).await, "a send to others");
        not_found(room.post(carol, "/v1/messages", &room.letter(group)).await, "a send to a group of others");
        for members in [json!([nobody]), json!([room.bob.user_id, nobody]), json!([room.bob.device_id])] {
            let kind = if members.as_array().unwrap().len() == 1 { "direct" } else { "group" };
            let body = json!({"type": kind, "members": members});
            not_found(room.post(alice, "/v1/conversations", &body).await, "a conversation with nobody");
        }
        not_found(
            room.post(alice, &conversation(group, "/members"), &json!({"user_ids": [room.carol.user_id, nobody]})).await,
            "nobody as a member",
        );
        let body = json!({"user_ids": [room.carol.user_id]});
        not_found(room.post(carol, &conversation(group, "/members"), &body).await, "adding oneself");
        refused(&room.post(bob, &conversation(group, "/members"), &body).await, 403, "forbidden", "a mere member adds");
        let direct = conversation(room.direct.into(), "/members");
        refused(&room.post(alice, &direct, &body).await, 403, "forbidden", "a third in a direct conversation");

        let read = |message: Uuid| format!("/v1/messages/{message}/read");
        let put = async |path: String, body: Value| room.alice(&Method::PUT, &path, Some(&body.to_string())).await;
        not_found(put(read(room.their_message.into()), json!({})).await, "a read mark at a message of others");
        not_found(put(read(room.their_message.into()), json!({"conversation_id": theirs})).await, "with its conversation");
        not_found(put(read(room.message.into()), json!({"conversation_id": theirs})).await, "with another conversation");
        not_found(put(read(room.message.into()), json!({"conversation_id": group})).await, "with the wrong conversation");
        let above = put(conversation(room.direct.into(), "/read"), json!({"up_to": 1_000_000})).await;
        points(&refused(&above, 422, "validation_failed", "above the last"), "/up_to", "above the last");

        let path = format!("/v1/users/{}/keys?device_id={}", room.bob.user_id, room.carol.device_id);
        let devices: Value = serde_json::from_slice(&room.alice(&Method::GET, &path, None).await.body).unwrap();
        assert_eq!(devices["devices"], json!([]), "a device of somebody else is not his");
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn cursors_of_others_are_unknown(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let page = |answer: RawAnswer, name: &str| {
            let page: Value = serde_json::from_slice(&answer.body).unwrap();
            page[name].as_str().unwrap().to_owned()
        };
        let get = async |rest: &Rest, path: &str| room.ask(rest, &Method::GET, path, HeaderMap::new(), None).await;
        let sync = page(get(&room.alice.rest, "/v1/sync").await, "cursor");
        let others = [
            page(get(&room.tablet.rest, "/v1/sync").await, "cursor"),
            page(get(&room.bob.rest, "/v1/sync").await, "cursor"),
            page(get(&room.bob.rest, "/v1/conversations?limit=1").await, "next"),
            page(get(&room.alice.rest, "/v1/conversations?limit=1").await, "next"),
        ];
        let flip = |text: &str, at: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        };
        let mut wrong = vec![String::new(), "x".to_owned(), "A".repeat(16 * 1024 + 1), "A".repeat(1000), format!("{sync}{sync}")];
        wrong.extend([flip(&sync, 0), flip(&sync, sync.len() / 2), sync[..sync.len() - 4].to_owned(), format!(" {sync}")]);
        for cursor in others.iter().chain(&wrong) {
            let answer = room.post(&room.alice.rest, "/v1/sync/ack", &json!({"cursor": cursor})).await;
            let problem = refused(&answer, 400, "cursor_unknown", &format!("the cursor {cursor}"));
            assert!(cursor.len() < 8 || !problem.to_string().contains(cursor), "the cursor is echoed");
        }
        // The list's own cursors: Bob's, a sync cursor, and nonsense. Alice's own is the last of `others`.
        for cursor in others[..3].iter().chain([&sync]).chain(wrong.iter().filter(|text| !text.contains(' '))) {
            if cursor.len() < 8000 {
                let answer = get(&room.alice.rest, &format!("/v1/conversations?after={cursor}")).await;
                refused(&answer, 400, "cursor_unknown", &format!("a list after {cursor}"));
            }
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn messages_that_contradict_themselves_are_refused(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let alice = &room.alice.rest;
        let letter = room.letter(room.direct);
        let change = |pointer: &str, value: Value| {
            let mut letter = letter.clone();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            match letter.pointer_mut(parent).unwrap() {
                Value::Array(items) => items.push(value),
                object => object[name] = value,
            }
            letter
        };
        let mut neither = letter.clone();
        neither["envelopes"].take();
        let binary = |bytes: usize| json!(sotto_client::protocol::Binary::encode(&vec![7; bytes]));
        let again = letter["envelopes"][0].clone();
        let mut to_self = again.clone();
        to_self["device_id"] = json!(room.alice.device_id);
        let cases = [
            (neither, "/ciphertext"),
            (change("/ciphertext", json!("AAEC")), "/envelopes"),
            (change("/envelopes/-", again), "/envelopes/2/device_id"),
            (change("/envelopes/-", to_self), "/envelopes/2/device_id"),
            (change("/envelopes/0/ciphertext", json!("")), "/envelopes/0/ciphertext"),
            (change("/roster", json!("x".repeat(201))), "/roster"),
            (change("/expires_in", json!(1_u64 << 53)), "/expires_in"),
        ];
        for (body, pointer) in cases {
            points(&refused(&room.post(alice, "/v1/messages", &body).await, 422, "validation_failed", pointer), pointer, pointer);
        }
        let too_long = room.post(alice, "/v1/messages", &change("/envelopes/0/ciphertext", binary(96 * 1024 + 1))).await;
        refused(&too_long, 413, "payload_too_large", "a long ciphertext");
        let many: Vec<Value> = (0..501).map(|_| json!({"user_id": Uuid::nil(), "device_id": Uuid::new_v4(), "type": 1, "ciphertext": "AA"})).collect();
        refused(&room.post(alice, "/v1/messages", &change("/envelopes", json!(many))).await, 413, "payload_too_large", "501");
        let stranger = json!({"user_id": room.carol.user_id, "device_id": room.carol.device_id, "type": 1, "ciphertext": "AA"});
        for envelopes in [json!([]), json!([stranger])] {
            let answer = room.post(alice, "/v1/messages", &change("/envelopes", envelopes)).await;
            let problem = refused(&answer, 409, "device_list_mismatch", "other devices");
            assert!(["missing", "extra", "stale"].into_iter().all(|name| problem[name].is_array()), "{problem}");
        }
        let mut taken = room.letter(room.direct);
        taken["message_id"] = json!(room.message);
        taken["envelopes"] = json!([]);
        refused(&room.post(&room.bob.rest, "/v1/messages", &taken).await, 409, "conflict", "the id of another's message");
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn keys_that_are_not_sound_are_refused(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let put = async |body: &Value| room.alice(&Method::PUT, "/v1/keys", Some(&body.to_string())).await;
        let change = |pointer: &str, value: Value| {
            let mut body = room.alice_keys.clone();
            *body.pointer_mut(pointer).unwrap() = value;
            body
        };
        let others = keys();
        for name in ["identity_key", "signing_key"] {
            refused(&put(&json!({name: others[name]})).await, 409, "conflict", name);
        }
        refused(&put(&json!({"suite": "signal"})).await, 409, "conflict", "suite");
        let zeros = |length: usize| json!(sotto_client::protocol::Binary::encode(&vec![0; length]));
        let key = room.alice_keys["one_time_prekeys"][0].clone();
        let many: Vec<Value> = (0..101).map(|id| json!({"key_id": 1_000 + id, "public_key": key["public_key"]})).collect();
        let cases = [
            (change("/identity_signature", zeros(64)), "/identity_signature"),
            (change("/identity_signature", zeros(63)), "/identity_signature"),
            (change("/identity_signature", others["identity_signature"].clone()), "/identity_signature"),
            (change("/signed_prekey/signature", zeros(64)), "/signed_prekey/signature"),
            (change("/signed_prekey/signature", zeros(63)), "/signed_prekey/signature"),
            (change("/signed_prekey/public_key", zeros(32)), "/signed_prekey/signature"),
            (change("/signed_prekey/public_key", zeros(33)), "/signed_prekey/public_key"),
            (change("/signed_prekey", others["signed_prekey"].clone()), "/signed_prekey/signature"),
            (change("/one_time_prekeys/0/public_key", zeros(31)), "/one_time_prekeys/0/public_key"),
            (change("/one_time_prekeys/1", key), "/one_time_prekeys/1/key_id"),
            (change("/one_time_prekeys", json!(many)), "/one_time_prekeys"),
            (json!({"registration_id": 8}), "/signed_prekey"),
            (json!({"pq_last_resort_prekey": room.alice_keys["signed_prekey"]}), "/pq_last_resort_prekey"),
        ];
        for (body, pointer) in cases {
            points(&refused(&put(&body).await, 422, "validation_failed", pointer), pointer, pointer);
        }
        unchanged(&before, &room.view().await);
        room.close().await;
    }

    async fn numbers_and_names_that_are_none_are_refused(database) {
        let room = Room::open(database).await;
        let before = room.view().await;
        let alice = &room.alice.rest;
        for phone in ["", "+", "0791234567", "+0791234567", "+1555000", "+1234567890123456", "+1555 0000001", " +15550000001", "+1555000000१", "+15550000001\u{0}", "tel:+15550000001"] {
            let body = json!({"phone": phone, "purpose": "registration"});
            let answer = room.post(&alice.without_token(), "/v1/auth/verifications", &body).await;
            let problem = refused(&answer, 422, "validation_failed", phone);
            points(&problem, "/phone", phone);
            assert!(phone.len() < 5 || !problem.to_string().contains(phone), "the number is echoed");
        }
        for name in ["", " ", "\u{3000}", "a\tb", "\u{9f}", &"n".repeat(101)] {
            let body = json!({"type": "group", "members": [room.bob.user_id], "name": name});
            let answer = room.post(alice, "/v1/conversations", &body).await;
            points(&refused(&answer, 422, "validation_failed", name), "/name", name);
        }
        let all: Vec<Uuid> = (0..1001).map(|_| Uuid::new_v4()).collect();
        for (body, pointer) in [
            (json!({"type": "direct", "members": []}), "/members"),
            (json!({"type": "direct", "members": [room.alice.user_id]}), "/members"),
            (json!({"type": "direct", "members": [room.bob.user_id, room.carol.user_id]}), "/members"),
            (json!({"type": "direct", "members": [room.bob.user_id, room.bob.user_id]}), "/members"),
            (json!({"type": "direct", "members": [room.bob.user_id], "name": "n"}), "/name"),
            (json!({"type": "group", "members": all}), "/members"),
        ] {
            points(&refused(&room.post(alice, "/v1/conversations", &body).await, 422, "validation_failed", pointer), pointer, pointer);
        }
        let path = format!("/v1/conversations/{}/members", room.group);
        for users in [json!([]), json!(all)] {
            points(&refused(&room.post(alice, &path, &json!({"user_ids": users})).await, 422, "validation_failed", "members"), "/user_ids", "members");
        }
        let phones: Vec<String> = (0..101).map(|number| format!("+1555000{number:04}")).collect();
        let answer = room.post(alice, "/v1/users/lookup", &json!({"phones": phones})).await;
        points(&refused(&answer, 422, "validation_failed", "101 numbers"), "/phones", "101 numbers");
        let odd = json!({"phones": ["", "x", "+", "\u{0}", "'; DROP TABLE users; --", room.bob.phone]});
        let found: Value = serde_json::from_slice(&room.post(alice, "/v1/users/lookup", &odd).await.body).unwrap();
        assert_eq!(found["users"].as_array().unwrap().len(), 1, "malformed numbers are left out");
        unchanged(&before, &room.view().await);
        room.close().await;
    }
}
