//! Signals that cost the sender nothing and others much: read marks, typing, presence.

use crate::delivery_append::{code, group, store_of};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{pair, register, second_device, shared};
use crate::support::wire::{PATIENCE, next_of};
use crate::verify::seeded;
use serde_json::{Value, json};
use sotto_client::Socket;
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::{ErrorCode, UserId};
use sotto_schema::inspect;
use std::time::Instant;

/// Says something of a type and waits for the answer's text.
async fn asks(socket: &mut Socket, t: &str, d: Value) -> (String, Value) {
    let id = socket.request(t, &d).await.unwrap();
    loop {
        let frame = socket.next_frame_within(PATIENCE).await.unwrap();
        if frame.re == Some(id) {
            return (frame.t.clone(), frame.data().unwrap());
        }
    }
}

/// Everything of a type that has come when the answer to a ping comes.
async fn heard(socket: &mut Socket, t: &str) -> Vec<Value> {
    let id = socket.request("ping", &json!({})).await.unwrap();
    let mut all = Vec::new();
    loop {
        let frame = socket.next_frame_within(PATIENCE).await.unwrap();
        if frame.re == Some(id) {
            return all;
        }
        if frame.t == t {
            all.push(frame.data().unwrap());
        }
    }
}

on_both! {
    async fn read_marks_are_counted_over_socket_and_rest(database) {
        let settings = [("SOTTO_LIMITS__READ_MARKS_PER_MINUTE", "5")];
        let node = TestNode::with(database, &settings).await;
        let (alice, bob, conversation) = pair(&node).await;
        alice.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
        let (mut socket, _) = bob.socket().await;
        for turn in 0..5 {
            if turn % 2 == 0 {
                let (t, _) = asks(&mut socket, "mark_read", json!({"conversation_id": conversation, "up_to": 1})).await;
                assert_eq!(t, "ok");
            } else {
                bob.rest.mark_read(conversation, 1).await.unwrap();
            }
        }
        let (t, problem) = asks(&mut socket, "mark_read", json!({"conversation_id": conversation, "up_to": 1})).await;
        assert_eq!((t.as_str(), &problem["code"]), ("err", &json!("rate_limited")));
        assert!(problem["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{problem}");
        assert_eq!(problem["limit"]["name"], "read_marks");
        let refused = bob.rest.mark_read(conversation, 1).await.unwrap_err();
        assert_eq!((refused.code(), refused.problem().unwrap().status), (Some(ErrorCode::RateLimited), 429));
        // Messages and others' marks are counted by themselves.
        bob.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
        alice.rest.mark_read(conversation, 2).await.unwrap();
        let reads = "SELECT CAST(COUNT(*) AS text) AS text FROM reads";
        assert_eq!(inspect::texts(&store_of(&node).await, reads).await.unwrap(), ["2"]);
    }

    async fn typing_of_many_devices_is_told_once(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let conversation = group(&alice, &[&bob]).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        let (mut bobs, _) = bob.socket().await;
        next_of(&mut bobs, "drained").await;
        let mut sockets = Vec::new();
        for device in [&alice, &tablet] {
            let (mut socket, _) = device.socket().await;
            next_of(&mut socket, "drained").await;
            sockets.push(socket);
        }
        // So that the conversation knows its members.
        alice.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
        let begun = Instant::now();
        let typing = |state: &str| json!({"conversation_id": conversation, "state": state});
        for round in 0..8 {
            for socket in &mut sockets {
                let state = if round % 2 == 0 { "started" } else { "stopped" };
                socket.request("typing", &typing(state)).await.unwrap();
            }
        }
        for socket in &mut sockets {
            heard(socket, "typing").await;
        }
        // The last state comes in any case, and what came before it is not one frame per signal.
        let mut states = Vec::new();
        while states.last() != Some(&json!("stopped")) {
            states.push(next_of(&mut bobs, "typing").await.data::<Value>().unwrap()["state"].clone());
        }
        states.extend(heard(&mut bobs, "typing").await.into_iter().map(|typing| typing["state"].clone()));
        assert!(states[0] == "started" && states.windows(2).all(|pair| pair[0] != pair[1]), "{states:?}");
        let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
        assert!(states.len() <= seconds + 2, "more than one a second: {states:?}");
    }

    async fn nobody_types_in_large_groups(database) {
        let node = TestNode::start(database).await;
        let file = seeded(&node, &["--count", "50", "--group", "50"]).await;
        let lines = std::fs::read_to_string(file).unwrap();
        let users = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["user_id"].clone());
        let mut members: Vec<UserId> = users.map(|id| UserId::parse(id.as_str().unwrap()).unwrap()).collect();
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        members.push(bob.user_id);
        let request = CreateConversation { kind: ConversationType::Group, members, name: None };
        let large = alice.rest.create_conversation(&request, None).await.unwrap().0.conversation_id;
        let small = group(&alice, &[&bob]).await;
        let (mut alices, _) = alice.socket().await;
        let (mut bobs, _) = bob.socket().await;
        next_of(&mut bobs, "drained").await;
        for conversation in [large, small] {
            let typing = json!({"conversation_id": conversation, "state": "started"});
            alices.request("typing", &typing).await.unwrap();
            // The first one has reached its conversation when this message has.
            alice.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
        }
        let told = next_of(&mut bobs, "typing").await.data::<Value>().unwrap();
        assert_eq!(told["conversation_id"], json!(small));
        assert_eq!(code(alice.rest.members(large, Some("x"), None).await), ErrorCode::CursorUnknown);
    }

    async fn presence_that_flickers_is_told_once_in_a_while(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        for device in [&alice, &bob] {
            device.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
        }
        let (mut alices, _) = alice.socket().await;
        let (mut bobs, _) = bob.socket().await;
        assert_eq!(next_of(&mut alices, "presence").await.data::<Value>().unwrap()["state"], "online");
        let begun = Instant::now();
        for _ in 0..9 {
            for state in ["active", "idle"] {
                bobs.request("presence", &json!({ "state": state })).await.unwrap();
            }
        }
        heard(&mut bobs, "presence").await;
        // It ends with what is so, and what is between is left out as far as it comes within a second.
        let mut states = Vec::new();
        while states.last() != Some(&json!("offline")) {
            states.push(next_of(&mut alices, "presence").await.data::<Value>().unwrap()["state"].clone());
        }
        let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
        assert!(states.len() <= seconds + 1, "more than one a second: {states:?}");
    }
}
