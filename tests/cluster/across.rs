//! What is told from node to node: messages, receipts, account events, and what is never stored.

use super::gate::Gate;
use super::{Ear, FAST, SWEPT, becomes, cluster, counter, median, nodes_on};
use crate::delivery_append::{group, post};
use crate::support::people::{Device, enveloped, pair, register, second_device, shared};
use crate::support::redis::RedisServer;
use crate::support::wire::{next_message, next_of, send};
use sotto_client::SocketOptions;
use sotto_client::protocol::event::{Event, KeyKind};
use sotto_client::protocol::message::OutgoingMessage;
use sotto_client::protocol::{Binary, ConversationId};
use std::time::{Duration, Instant};

/// Fifty messages, each alone: by the bus, at any moment between two sweeps. Some are too large for a letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cross_in_milliseconds() {
    let (nodes, _redis) = cluster(2).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let bobs = Ear::ready(&bob, &nodes[1]).await;
    let (mut alices, _) = alice.socket().await;
    let (mut times, mut expected) = (Vec::new(), Vec::new());
    let before = counter(&nodes[1], "sotto_bus_events_total").await;
    for round in 0..50_u64 {
        let message = match round % 10 {
            7 => OutgoingMessage { ciphertext: Some(Binary(vec![7; 90_000])), ..shared(conversation, "") },
            5 => enveloped(conversation, &[&bob], "for you"),
            _ => shared(conversation, "for all"),
        };
        let begun = Instant::now();
        let sent = send(&mut alices, &message).await;
        expected.push((sent.seq, sent.message_id));
        times.push(bobs.came(message.message_id).await.duration_since(begun));
        tokio::time::sleep(Duration::from_millis(round * 13 % 37)).await;
    }
    assert_eq!(bobs.messages(conversation), expected);
    let middle = median(&times);
    assert!(middle < FAST, "from send to arrival: {middle:?} in the middle of {times:?}");
    let told = counter(&nodes[1], "sotto_bus_events_total").await - before;
    assert!(told >= 50, "{told} events came over the bus");
}

/// Bob's mark is news at Alice's node at once, and not with the next sweep. Each round has a conversation of its own,
/// because receipts of one conversation pause for a second after the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_and_account_events_cross_in_milliseconds() {
    let (nodes, _redis) = cluster(3).await;
    let (alice, bob) = (register(&nodes[0], "alice").await, register(&nodes[1], "bob").await);
    let alices = Ear::ready(&alice, &nodes[0]).await;
    let bobs = Ear::ready(&bob, &nodes[1]).await;
    let quiet = SocketOptions::hello(&bob.tokens.access_token);
    let mut times: [Vec<Duration>; 4] = Default::default();
    let [made_in, delivered_in, read_in, added_in] = &mut times;
    for round in 0..7_u64 {
        tokio::time::sleep(Duration::from_millis(round * 71 % 190)).await;
        let begun = Instant::now();
        let id = group(&alice, &[&bob]).await;
        let is_it = |event: &Event| matches!(event, Event::ConversationChanged(change) if change.conversation.conversation_id == id);
        made_in.push(bobs.event("conversation_changed", is_it).await.duration_since(begun));

        // A node that has the conversation in use tells at once whose mark has moved there.
        bob.rest.send_message(&shared(id, "welcome"), None).await.unwrap();
        let sent = alice.rest.send_message(&shared(id, "hello"), None).await.unwrap();
        let begun = bobs.came(sent.message_id).await;
        let is_it = |event: &Event| matches!(event, Event::MessageDelivered(mark) if mark.conversation_id == id && mark.device_id == bob.device_id);
        delivered_in.push(alices.event("message_delivered", is_it).await.duration_since(begun));
    }
    drop(bobs);
    // One who acknowledges nothing: the read mark is the first receipt of its conversation.
    let bobs = Ear::with(&quiet, &nodes[1].url, false).await;
    for round in 0..7_u64 {
        tokio::time::sleep(Duration::from_millis(round * 71 % 190)).await;
        let id = group(&alice, &[&bob]).await;
        let sent = alice.rest.send_message(&shared(id, "hello"), None).await.unwrap();
        bobs.came(sent.message_id).await;
        let begun = Instant::now();
        bob.at(&nodes[2]).mark_read(id, sent.seq).await.unwrap();
        let is_it = |event: &Event| matches!(event, Event::MessageReadUpdate(read) if read.conversation_id == id && read.user_id == bob.user_id);
        read_in.push(alices.event("message_read_update", is_it).await.duration_since(begun));
    }
    for round in 0..5 {
        let begun = Instant::now();
        let added = second_device(&nodes[0], &alice, &format!("device {round}")).await;
        let is_it =
            |event: &Event| matches!(event, Event::DevicesChanged(change) if change.added.contains(&added.device_id));
        // Whoever signs in makes keys and proofs first; that is most of it.
        added_in.push(bobs.event("devices_changed", is_it).await.duration_since(begun));
        drop(added);
    }
    // Marks of acknowledgements alone are written every 200 ms.
    let bounds = [
        ("conversation_changed", 2 * FAST),
        ("message_delivered", 4 * FAST),
        ("message_read_update", 2 * FAST),
        ("devices_changed", 3 * FAST),
    ];
    for ((what, bound), times) in bounds.iter().zip(&times) {
        let middle = median(times);
        assert!(middle < *bound, "{what}: {middle:?} in the middle of {times:?}");
    }
}

/// Nothing of this stands in the database: that it comes at all is the bus.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_presence_and_low_stocks_cross() {
    let (nodes, _redis) = cluster(3).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    alice.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
    bob.rest.send_message(&shared(conversation, "hello"), None).await.unwrap();
    let alices = Ear::ready(&alice, &nodes[0]).await;
    let states = |ear: &Ear, t: &str| {
        ear.look(|heard| {
            let of = heard.frames.iter().filter(|(frame, _)| frame.t == t);
            of.map(|(frame, _)| frame.data::<serde_json::Value>().unwrap()).collect::<Vec<_>>()
        })
    };
    let last_is = |ear: &Ear, t: &str, user: &Device, state: &str| {
        let last = states(ear, t).into_iter().rfind(|data| data["user_id"] == user.user_id.to_string());
        last.is_some_and(|data| data["state"] == state)
    };
    let bobs = Ear::ready(&bob, &nodes[1]).await;
    let soon = Duration::from_secs(3);
    becomes("alice hears that bob came", soon, async || last_is(&alices, "presence", &bob, "online")).await;
    becomes("bob hears that alice was there", soon, async || last_is(&bobs, "presence", &alice, "online")).await;
    bobs.say("presence", serde_json::json!({ "state": "idle" }));
    becomes("bob looks away", soon, async || last_is(&alices, "presence", &bob, "offline")).await;
    bobs.say("presence", serde_json::json!({ "state": "active" }));
    becomes("bob is back", soon, async || last_is(&alices, "presence", &bob, "online")).await;

    for state in ["started", "stopped"] {
        alices.say("typing", serde_json::json!({ "conversation_id": conversation, "state": state }));
        becomes("typing", soon, async || last_is(&bobs, "typing", &alice, state)).await;
    }
    let typing = states(&bobs, "typing").pop().unwrap();
    assert_eq!(
        (&typing["conversation_id"], &typing["device_id"]),
        (&serde_json::json!(conversation), &serde_json::json!(alice.device_id))
    );
    assert!(states(&alices, "typing").is_empty(), "nobody hears himself");

    // Of twenty keys the eleventh claim leaves nine.
    for _ in 0..11 {
        alice.at(&nodes[2]).claim_keys(bob.user_id, &[]).await.unwrap();
    }
    let is_low = |event: &Event| matches!(event, Event::KeysLow(low) if low.kind == KeyKind::OneTimePrekeys && low.remaining == 9);
    bobs.event("keys_low", is_low).await;
    drop(bobs);
    becomes("bob has gone", soon, async || last_is(&alices, "presence", &bob, "offline")).await;
}

/// Messages that nobody sees leave: what the sweep brings, and how late.
async fn comes_by_the_sweep(alice: &Device, conversation: ConversationId, ears: &[Ear]) {
    let (mut last, mut expected) = (Instant::now(), Vec::new());
    for number in 0..30_u64 {
        last = Instant::now();
        let (status, body) = post(&alice.rest, &shared(conversation, &number.to_string())).await;
        assert_eq!(status, 201, "{body}");
        assert!(last.elapsed() < Duration::from_millis(1500), "a send waited {:?}", last.elapsed());
        expected.push(body["seq"].as_i64().unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for ear in ears {
        let left = SWEPT.saturating_sub(last.elapsed());
        let is_there =
            |heard: &super::Heard| heard.messages.last().map(|message| message.seq) == expected.last().copied();
        ear.within(left, "the last message, that nothing follows", is_there).await;
        let came: Vec<_> = ear.messages(conversation).into_iter().map(|(seq, _)| seq).collect();
        assert!(came.ends_with(&expected), "{came:?}");
    }
}

/// Test 1: letters vanish on the way, and nobody is told that they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_letter_is_lost_and_every_message_comes() {
    let redis = RedisServer::start().await;
    let gate = Gate::to(redis.port).await;
    let nodes = nodes_on(&[gate.url.clone(), gate.url.clone(), gate.url.clone()], &[]).await;
    let (alice, bob) = (register(&nodes[0], "alice").await, register(&nodes[0], "bob").await);
    let carol = register(&nodes[0], "carol").await;
    let conversation = group(&alice, &[&bob, &carol]).await;
    let ears = [Ear::ready(&bob, &nodes[1]).await, Ear::ready(&carol, &nodes[2]).await];
    // The wire itself is sound.
    let first = alice.rest.send_message(&shared(conversation, "heard"), None).await.unwrap();
    ears[0].came(first.message_id).await;
    becomes("a letter", SWEPT, async || counter(&nodes[1], "sotto_bus_events_total").await > 0).await;

    gate.swallow(true);
    let before = counter(&nodes[1], "sotto_bus_events_total").await;
    comes_by_the_sweep(&alice, conversation, &ears).await;
    // One letter may tell of several messages.
    assert!(gate.swallowed() >= 15, "{} letters were lost", gate.swallowed());
    assert_eq!(counter(&nodes[1], "sotto_bus_events_total").await, before, "no letter has come");
}

/// Test 1 again: Redis itself refuses the letters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_letter_is_refused_and_every_message_comes() {
    let (nodes, redis) = cluster(2).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let ears = [Ear::ready(&bob, &nodes[1]).await];
    redis.command(&["ACL", "SETUSER", "default", "-publish"]).await.unwrap();
    let before = counter(&nodes[1], "sotto_bus_events_total").await;
    comes_by_the_sweep(&alice, conversation, &ears).await;
    assert_eq!(counter(&nodes[1], "sotto_bus_events_total").await, before, "no letter has come");
    assert!(counter(&nodes[0], "sotto_bus_dropped_total{reason=\"redis\"}").await > 0);

    redis.command(&["ACL", "SETUSER", "default", "+publish"]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    comes_fast(&alice, conversation, &ears[0]).await;
}

/// The bus works again.
pub(super) async fn comes_fast(alice: &Device, conversation: ConversationId, ear: &Ear) {
    let mut times = Vec::new();
    for round in 0..15_u64 {
        let begun = Instant::now();
        let sent = alice.rest.send_message(&shared(conversation, "fast?"), None).await.unwrap();
        times.push(ear.came(sent.message_id).await.saturating_duration_since(begun));
        tokio::time::sleep(Duration::from_millis(round * 29 % 67)).await;
    }
    let middle = median(&times);
    assert!(middle < FAST, "from send to arrival: {middle:?} in the middle of {times:?}");
}

/// Test 12: whoever added a device tells it to nobody; the old list is refused wherever it is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_list_is_refused_though_the_news_was_lost() {
    let redis = RedisServer::start().await;
    let gate = Gate::to(redis.port).await;
    let nodes = nodes_on(&[redis.url(), gate.url.clone()], &[]).await;
    let (alice, bob, conversation) = pair(&nodes[0]).await;
    let (mut alices, _) = alice.socket().await;
    let mut bobs = crate::delivery_append::socket_at(&bob, &nodes[1]).await;
    next_of(&mut bobs, "drained").await;
    gate.swallow(true);
    let mut known = Vec::new();
    for round in 0..4 {
        // The first node knows this list and has just used it.
        let list: Vec<&Device> = std::iter::once(&bob).chain(&known).collect();
        send(&mut alices, &enveloped(conversation, &list, "right")).await;
        next_message(&mut bobs).await;
        let old = enveloped(conversation, &list, "old list");
        let roster = alice.rest.conversation(conversation).await.unwrap().roster;
        let added = second_device(&nodes[1], &bob, &format!("device {round}")).await;
        let (status, body) = post(&alice.rest, &old).await;
        assert_eq!((status, &body["code"]), (409, &"device_list_mismatch".into()), "round {round}: {body}");
        assert_eq!(body["missing"], serde_json::json!([{"user_id": bob.user_id, "device_id": added.device_id}]));
        let by_roster = OutgoingMessage { roster: Some(roster), ..shared(conversation, "old roster") };
        assert_eq!(post(&alice.rest, &by_roster).await.0, 409);
        known.push(added);
    }
    assert!(gate.swallowed() > 0, "there was news to lose");
}
