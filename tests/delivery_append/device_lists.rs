//! For which devices a message was made, and what is said when those are not the present ones.

use super::{code, group, post, socket_at, try_send};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, enveloped, fresh_phone, pair, register, second_device, shared};
use serde_json::{Value, json};
use sotto::identity::xeddsa::SigningKey;
use sotto_client::protocol::auth::Purpose;
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::message::{DeviceRef, Envelope, OutgoingMessage};
use sotto_client::protocol::{Binary, DeviceId, ErrorCode, Problem, UserId, limits};
use sotto_client::{HeaderMap, Method, Rest};

fn reference(device: &Device) -> DeviceRef {
    DeviceRef { user_id: device.user_id, device_id: device.device_id }
}

/// The three lists of a refusal, in the contract's order.
fn lists(problem: &Problem) -> [Vec<DeviceRef>; 3] {
    ["missing", "extra", "stale"].map(|name| {
        let list = problem.more.get(name).unwrap_or_else(|| panic!("{name} is always there: {problem:?}"));
        serde_json::from_value(list.clone()).expect("devices")
    })
}

/// An account with a Signal device: those have registration ids.
struct SignalDevice {
    rest: Rest,
    user_id: UserId,
    device_id: DeviceId,
    key: SigningKey,
}

impl SignalDevice {
    async fn register(node: &TestNode) -> Self {
        let phone = fresh_phone();
        let rest = Rest::new(&node.url).unwrap();
        let verification = rest.verify(&phone, Purpose::Registration).await.unwrap();
        let key = SigningKey::from_bytes([7; 32]);
        let kyber = [vec![8], vec![1; 1568]].concat();
        let body = json!({
            "verification_id": verification.verification_id,
            "code": node.code_for(&phone),
            "device": {"name": "Phone", "platform": "android"},
            "keys": {
                "suite": "signal", "registration_id": 41, "identity_key": Binary::encode(&key.public()),
                "signed_prekey": signed(&key, 1, &curve(1)), "one_time_prekeys": [],
                "pq_last_resort_prekey": signed(&key, 1, &kyber),
            },
        });
        let answer = raw(&rest, Method::POST, "/v1/auth/register", &body).await;
        assert_eq!(answer.0, 201, "{}", answer.1);
        let id = |name: &str| answer.1[name].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
        let rest = rest.with_token(answer.1["access_token"].as_str().unwrap());
        Self { rest, user_id: id("user_id").into(), device_id: id("device_id").into(), key }
    }

    /// What an app does that was installed anew: another registration id, another signed prekey.
    async fn registers_anew(&self, registration_id: i64) {
        let keys = json!({
            "registration_id": registration_id,
            "signed_prekey": signed(&self.key, registration_id, &curve(2)),
        });
        let answer = raw(&self.rest, Method::PUT, "/v1/keys", &keys).await;
        assert_eq!(answer.0, 204, "{}", answer.1);
    }

    fn envelope(&self, registration_id: Option<i64>) -> Envelope {
        let (user_id, device_id) = (self.user_id, self.device_id);
        Envelope { user_id, device_id, registration_id, kind: 3, ciphertext: Binary(b"sealed".to_vec()) }
    }
}

fn curve(number: u8) -> Vec<u8> {
    [vec![5], vec![number; 32]].concat()
}

fn signed(key: &SigningKey, key_id: i64, public_key: &[u8]) -> Value {
    let signature = key.sign(public_key, &[9; 64]).unwrap();
    json!({"key_id": key_id, "public_key": Binary::encode(public_key), "signature": Binary::encode(&signature)})
}

async fn raw(rest: &Rest, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let answer = rest.raw(method, path, HeaderMap::new(), Some(body.to_string().into_bytes())).await.unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn with(message: &OutgoingMessage, envelopes: Vec<Envelope>) -> OutgoingMessage {
    OutgoingMessage { ciphertext: None, envelopes: Some(envelopes), ..message.clone() }
}

on_both! {
    async fn a_wrong_list_is_told_apart(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let stranger = register(&node, "stranger").await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let phone = second_device(&node, &bob, "phone").await;
        let mut socket = socket_at(&alice, &node).await;
        let [a_bob, a_phone, a_tablet, a_stranger] = [&bob, &phone, &tablet, &stranger].map(reference);

        let cases: [(Vec<&Device>, Vec<DeviceRef>, Vec<DeviceRef>); 4] = [
            (vec![&bob], vec![a_phone, a_tablet], vec![]),
            (vec![&bob, &phone, &tablet, &stranger], vec![], vec![a_stranger]),
            (vec![&stranger, &tablet], vec![a_bob, a_phone], vec![a_stranger]),
            (vec![], vec![a_bob, a_phone, a_tablet], vec![]),
        ];
        for (given, missing, extra) in cases {
            let message = enveloped(conversation, &given, "wrong list");
            for by_socket in [false, true] {
                let error = match by_socket {
                    false => alice.rest.send_message(&message, None).await.unwrap_err(),
                    true => try_send(&mut socket, &message).await.unwrap_err(),
                };
                let problem = error.problem().unwrap();
                assert_eq!((problem.code, problem.status), (ErrorCode::DeviceListMismatch, 409));
                let sorted = |mut list: Vec<DeviceRef>| {
                    list.sort_unstable();
                    list
                };
                let found = lists(problem).map(sorted);
                assert_eq!(found, [sorted(missing.clone()), sorted(extra.clone()), vec![]]);
            }
        }
        // A device of a member under another user's name is no device of the conversation.
        let mut renamed = enveloped(conversation, &[&bob, &phone, &tablet], "renamed");
        renamed.envelopes.as_mut().unwrap()[0].user_id = alice.user_id;
        assert_eq!(code(alice.rest.send_message(&renamed, None).await), ErrorCode::DeviceListMismatch);
        // Nothing of all this was stored, and the right list is right. So is a former device's absence.
        let right = enveloped(conversation, &[&bob, &phone, &tablet], "right");
        assert_eq!(alice.rest.send_message(&right, None).await.unwrap().seq, 1);
        phone.rest.logout().await.unwrap();
        let late = enveloped(conversation, &[&bob, &phone, &tablet], "late");
        let error = alice.rest.send_message(&late, None).await.unwrap_err();
        assert_eq!(lists(error.problem().unwrap()), [vec![], vec![a_phone], vec![]]);
        let now = enveloped(conversation, &[&bob, &tablet], "now");
        assert_eq!(alice.rest.send_message(&now, None).await.unwrap().seq, 2);
    }

    async fn a_device_that_registered_anew_wins_over_a_wrong_list(database) {
        let node = TestNode::start(database).await;
        let (alice, stranger) = (register(&node, "alice").await, register(&node, "stranger").await);
        let signal = SignalDevice::register(&node).await;
        let made = alice.rest.create_direct(signal.user_id).await.unwrap();
        let tablet = second_device(&node, &alice, "tablet").await;
        let base = enveloped(made.conversation_id, &[&tablet], "base");
        let own = base.envelopes.clone().unwrap().remove(0);
        let present = with(&base, vec![signal.envelope(Some(41)), own.clone()]);
        assert_eq!(alice.rest.send_message(&present, None).await.unwrap().seq, 1);
        signal.registers_anew(42).await;

        let device = DeviceRef { user_id: signal.user_id, device_id: signal.device_id };
        let fresh = || shared(made.conversation_id, "fresh id");
        let old = with(&fresh(), vec![signal.envelope(Some(41)), own.clone()]);
        let error = alice.rest.send_message(&old, None).await.unwrap_err();
        let problem = error.problem().unwrap();
        assert_eq!((problem.code, problem.status), (ErrorCode::DeviceStale, 410));
        assert_eq!(lists(problem), [vec![], vec![], vec![device]]);

        let elsewhere = enveloped(made.conversation_id, &[&stranger], "elsewhere").envelopes.unwrap().remove(0);
        let wrong = with(&fresh(), vec![signal.envelope(Some(41)), elsewhere]);
        let mut socket = socket_at(&alice, &node).await;
        let error = try_send(&mut socket, &wrong).await.unwrap_err();
        let problem = error.problem().unwrap();
        assert_eq!((problem.code, problem.status), (ErrorCode::DeviceStale, 410), "it wins");
        assert_eq!(lists(problem), [vec![reference(&tablet)], vec![reference(&stranger)], vec![device]]);

        let now = with(&fresh(), vec![signal.envelope(Some(42)), own.clone()]);
        assert_eq!(alice.rest.send_message(&now, None).await.unwrap().seq, 2);
        // Who names no registration id does not ask.
        let unnamed = with(&fresh(), vec![signal.envelope(None), own]);
        assert_eq!(alice.rest.send_message(&unnamed, None).await.unwrap().seq, 3);
    }

    async fn an_outdated_roster_is_refused(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let carol = register(&node, "carol").await;
        let conversation = group(&alice, &[&bob]).await;
        let listed = |roster: &str| OutgoingMessage { roster: Some(roster.to_owned()), ..shared(conversation, "roster") };
        let mut roster = alice.rest.conversation(conversation).await.unwrap().roster;
        assert_eq!(post(&alice.rest, &listed(&roster)).await.0, 201);
        for change in 0..3 {
            match change {
                0 => drop(second_device(&node, &bob, "phone").await),
                1 => alice.rest.add_members(conversation, &[carol.user_id]).await.unwrap(),
                _ => alice.rest.remove_members(conversation, &[carol.user_id]).await.unwrap(),
            }
            let error = alice.rest.send_message(&listed(&roster), None).await.unwrap_err();
            let problem = error.problem().unwrap();
            assert_eq!((problem.code, problem.status), (ErrorCode::DeviceListMismatch, 409), "change {change}");
            lists(problem);
            let now = alice.rest.conversation(conversation).await.unwrap().roster;
            assert_eq!(problem.more["roster"], now.as_str(), "the refusal tells the present one");
            assert_eq!(post(&alice.rest, &listed(&now)).await.0, 201);
            roster = now;
        }
        // Without a roster nobody asks.
        assert_eq!(post(&alice.rest, &shared(conversation, "any list")).await.0, 201);
    }

    async fn the_shape_is_checked_first(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let mut socket = socket_at(&alice, &node).await;
        let both = OutgoingMessage { envelopes: Some(vec![]), ..shared(conversation, "both") };
        let neither = OutgoingMessage { ciphertext: None, ..shared(conversation, "neither") };
        let sending = enveloped(conversation, &[&bob, &alice], "to the sending device");
        let twice = enveloped(conversation, &[&bob, &bob], "twice");
        let empty = OutgoingMessage { ciphertext: Some(Binary(Vec::new())), ..shared(conversation, "") };
        let cases = [
            (both, "/envelopes", "not_with_ciphertext"),
            (neither, "/ciphertext", "missing"),
            (sending, "/envelopes/1/device_id", "sending_device"),
            (twice, "/envelopes/1/device_id", "repeated"),
            (empty, "/ciphertext", "empty"),
        ];
        for (message, pointer, reason) in &cases {
            let (status, body) = post(&alice.rest, message).await;
            assert_eq!((status, &body["code"]), (422, &json!("validation_failed")), "{body}");
            assert_eq!(body["errors"][0], json!({"pointer": pointer, "code": reason}));
            let error = try_send(&mut socket, message).await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::ValidationFailed));
        }
        // The shape comes before everything: even where the caller is nobody.
        let nowhere = OutgoingMessage { ciphertext: None, ..shared(sotto_client::protocol::ConversationId::ordered(), "") };
        assert_eq!(post(&alice.rest, &nowhere).await.0, 422);
    }

    async fn sizes_have_an_end(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let of_size = |size| OutgoingMessage { ciphertext: Some(Binary(vec![1; size])), ..shared(conversation, "") };
        assert_eq!(post(&alice.rest, &of_size(limits::MAX_CIPHERTEXT)).await.0, 201);
        assert_eq!(post(&alice.rest, &of_size(1)).await.0, 201);
        let (status, body) = post(&alice.rest, &of_size(limits::MAX_CIPHERTEXT + 1)).await;
        assert_eq!((status, &body["code"]), (413, &json!("payload_too_large")));
        let mut large = enveloped(conversation, &[&bob], "large");
        large.envelopes.as_mut().unwrap()[0].ciphertext = Binary(vec![1; limits::MAX_CIPHERTEXT + 1]);
        assert_eq!(post(&alice.rest, &large).await.0, 413);
        let mut socket = socket_at(&alice, &node).await;
        assert_eq!(code(try_send(&mut socket, &of_size(limits::MAX_CIPHERTEXT + 1)).await), ErrorCode::PayloadTooLarge);
        assert_eq!(try_send(&mut socket, &of_size(limits::MAX_CIPHERTEXT)).await.unwrap().seq, 3);

        let envelope = |_| Envelope {
            user_id: bob.user_id, device_id: DeviceId::random(), registration_id: None, kind: 1, ciphertext: Binary(vec![1]),
        };
        let many = |count| with(&shared(conversation, ""), (0..count).map(envelope).collect());
        let (status, body) = post(&alice.rest, &many(limits::MAX_ENVELOPES + 1)).await;
        assert_eq!((status, &body["code"]), (413, &json!("payload_too_large")));
        // As many as may be are looked at: they are the wrong ones.
        let (status, body) = post(&alice.rest, &many(limits::MAX_ENVELOPES)).await;
        assert_eq!(status, 409);
        assert_eq!(body["extra"].as_array().unwrap().len(), limits::MAX_MISMATCHES, "at most a hundred of each");
        assert_eq!(body["missing"].as_array().unwrap().len(), 1);
    }

    async fn no_envelopes_are_right_when_nobody_else_has_a_device(database) {
        let node = TestNode::start(database).await;
        let alice = register(&node, "alice").await;
        let request = CreateConversation { kind: ConversationType::Group, members: vec![], name: None };
        let alone = alice.rest.create_conversation(&request, None).await.unwrap().0.conversation_id;
        assert_eq!(post(&alice.rest, &enveloped(alone, &[], "to nobody")).await.0, 201);
        let tablet = second_device(&node, &alice, "tablet").await;
        assert_eq!(post(&alice.rest, &enveloped(alone, &[], "and now?")).await.0, 409);
        assert_eq!(post(&alice.rest, &enveloped(alone, &[&tablet], "to oneself")).await.0, 201);
    }
}
