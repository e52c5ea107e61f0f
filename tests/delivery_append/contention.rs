//! Locks held by others: transactions that sleep, batches that meet, nodes that come from both ends.

use super::{answer, assert_gapless, code, group, insist, log, pipeline, socket_at};
use crate::support::database::{Kind, connect};
use crate::support::lock::waiting_for_locks;
use crate::support::node::TestNode;
use crate::support::people::{Device, pair, register, shared};
use crate::support::wire::{PATIENCE, next_message};
use sotto_client::Socket;
use sotto_client::protocol::event::Event;
use sotto_client::protocol::message::{OutgoingMessage, Sent};
use sotto_client::protocol::{ConversationId, ErrorCode, MessageId, Seq};
use sotto_schema::append::Wake;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// How long two nodes come from both ends. The statement is 60 s; the suite takes a part of it.
const FROM_BOTH_ENDS: Duration = Duration::from_secs(10);
/// Conversations that they meet in.
const SHARED_CONVERSATIONS: usize = 20;

pub async fn lock_head(own: &Client, conversation: ConversationId) {
    own.batch_execute("BEGIN").await.unwrap();
    let text = format!("SELECT last_seq FROM heads WHERE conversation_id = '{conversation}' FOR UPDATE");
    own.query_one(&text, &[]).await.expect("the head is ours");
}

/// What the Journal does, by hand and slowly: lock, insert, head.
async fn append_by_hand(own: &Client, conversation: ConversationId, from: &Device, id: MessageId) -> Seq {
    let text = format!("SELECT last_seq FROM heads WHERE conversation_id = '{conversation}' FOR NO KEY UPDATE");
    let seq: i64 = own.query_one(&text, &[]).await.unwrap().get::<_, i64>(0) + 1;
    let (user, device) = (from.user_id, from.device_id);
    own.batch_execute(&format!(
        "INSERT INTO messages (conversation_id, seq, message_id, sender_user, sender_device, kind, ciphertext, \
           created_at, updated_at) \
         VALUES ('{conversation}', {seq}, '{id}', '{user}', '{device}', 'text', 'by hand', now(), now()); \
         UPDATE heads SET last_seq = {seq} WHERE conversation_id = '{conversation}'"
    ))
    .await
    .unwrap();
    seq
}

async fn wake_by_hand(own: &Client, conversation: ConversationId, seq: Seq) {
    let wake = Wake { conversations: vec![(conversation, seq, 0)], users: Vec::new() };
    own.execute(
        "INSERT INTO wakes (xid, body, created_at, updated_at) \
         VALUES (pg_current_xact_id()::text::bigint, $1, now(), now())",
        &[&wake.to_bytes()],
    )
    .await
    .unwrap();
}

/// Rule D1, test 13: a transaction that began earlier and commits later than others is swept all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wake_that_commits_late_is_swept() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob, slow) = pair(&node).await;
    let quick = group(&alice, &[&bob]).await;
    let (mut bobs, _) = bob.socket().await;
    let own = connect(&node.store_url).await;

    // T1 has its number, its row of the wakes, and sleeps. T2 and T3 commit, and are swept.
    own.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let first = MessageId::ordered();
    let seq = append_by_hand(&own, slow, &alice, first).await;
    wake_by_hand(&own, slow, seq).await;
    for text in ["while it sleeps", "and again"] {
        let later = alice.rest.send_message(&shared(quick, text), None).await.unwrap();
        assert_eq!(next_message(&mut bobs).await.1.message_id, later.message_id);
        tokio::time::sleep(Duration::from_millis(1600)).await;
    }
    own.batch_execute("COMMIT").await.unwrap();
    let committed = Instant::now();
    let (_, late) = next_message(&mut bobs).await;
    assert_eq!((late.message_id, late.conversation_id, late.seq), (first, slow, 1));
    assert!(committed.elapsed() < Duration::from_secs(5), "{:?}", committed.elapsed());

    // The same with the wake written last, by a transaction that has only its number at first.
    own.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    alice.rest.send_message(&shared(quick, "third"), None).await.unwrap();
    next_message(&mut bobs).await;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let second = MessageId::ordered();
    let seq = append_by_hand(&own, slow, &alice, second).await;
    wake_by_hand(&own, slow, seq).await;
    own.batch_execute("COMMIT").await.unwrap();
    let committed = Instant::now();
    let (_, late) = next_message(&mut bobs).await;
    assert_eq!((late.message_id, late.seq), (second, 2));
    assert!(committed.elapsed() < Duration::from_secs(5), "{:?}", committed.elapsed());
}

/// Test 14: one id at two nodes, both at the lock, each with fresh company. One stores it, the other knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_at_two_nodes_held_at_the_lock() {
    let node = TestNode::start(Kind::Postgres).await;
    let other = node.sibling().await;
    let (alice, bob, conversation) = pair(&node).await;
    let tablet = crate::support::people::second_device(&node, &alice, "tablet").await;
    let (mut here, mut there) = (socket_at(&alice, &node).await, socket_at(&tablet, &other).await);
    // Both nodes know the conversation, so that they meet at the lock and nowhere before.
    insist(&mut here, &shared(conversation, "warm")).await;
    insist(&mut there, &shared(conversation, "warm")).await;
    let (own, look) = (connect(&node.store_url).await, connect(&node.store_url).await);
    let mut expected = 2;
    for round in 0..6 {
        lock_head(&own, conversation).await;
        let contested = shared(conversation, "contested");
        let batches: [Vec<OutgoingMessage>; 2] = [
            vec![shared(conversation, "fresh here"), contested.clone(), shared(conversation, "and after")],
            vec![contested.clone(), shared(conversation, "fresh there")],
        ];
        let (mut ids_here, mut ids_there) = (Vec::new(), Vec::new());
        for message in &batches[0] {
            ids_here.push(here.request("send_message", message).await.unwrap());
        }
        for message in &batches[1] {
            ids_there.push(there.request("send_message", message).await.unwrap());
        }
        waiting_for_locks(&look, 2).await;
        own.batch_execute("COMMIT").await.unwrap();
        let (mut sent_here, mut sent_there) = (Vec::new(), Vec::new());
        for id in ids_here {
            sent_here.push(answer(&mut here, id).await.unwrap());
        }
        for id in ids_there {
            sent_there.push(answer(&mut there, id).await.unwrap());
        }
        let (mine, theirs) = (&sent_here[1], &sent_there[0]);
        assert_eq!((mine.seq, mine.server_time), (theirs.seq, theirs.server_time), "round {round}");
        assert!(mine.duplicate != theirs.duplicate, "round {round}: stored by one, known by the other");
        assert!(!sent_here[0].duplicate && !sent_here[2].duplicate && !sent_there[1].duplicate);
        expected += 4;
        let log = log(&bob.rest, conversation).await;
        assert_gapless(&log);
        assert_eq!(log.len(), expected);
    }
}

/// Test 20: who sleeps on one conversation holds up nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_asleep_on_one_conversation() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob, locked) = pair(&node).await;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(group(&alice, &[&bob]).await);
    }
    let (mut alices, _) = alice.socket().await;
    for conversation in others.iter().chain([&locked]) {
        insist(&mut alices, &shared(*conversation, "warm")).await;
    }
    let (mut senders, _) = bob.socket().await;
    let own = connect(&node.store_url).await;
    lock_head(&own, locked).await;
    let slept = Instant::now();
    let stuck: Vec<_> = (0..5).map(|_| shared(locked, "stuck")).collect();
    let mut unanswered = HashMap::new();
    for message in &stuck {
        unanswered.insert(alices.request("send_message", message).await.unwrap(), message.clone());
    }
    let mut waits = Vec::new();
    while slept.elapsed() < Duration::from_secs(2) {
        for conversation in &others {
            let begun = Instant::now();
            super::try_send(&mut senders, &shared(*conversation, "unmoved")).await.unwrap();
            waits.push(begun.elapsed());
        }
    }
    own.batch_execute("COMMIT").await.unwrap();
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!(waits.len() >= 50, "{} sends in two seconds", waits.len());
    assert!(p99 < Duration::from_millis(250), "p99 {p99:?} of {}", waits.len());
    // The stuck ones were stored, or their senders know that they do not know.
    let mut repeats = Vec::new();
    while !unanswered.is_empty() {
        let frame = alices.next_frame_within(PATIENCE).await.expect("an answer");
        if let Some(message) = frame.re.and_then(|id| unanswered.remove(&id)) {
            match frame.answer::<Sent>() {
                Ok(sent) => assert!(!sent.duplicate),
                Err(error) => {
                    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
                    repeats.push(message);
                }
            }
        }
    }
    assert!(slept.elapsed() < Duration::from_secs(6), "every send is answered in time: {:?}", slept.elapsed());
    for message in &repeats {
        insist(&mut alices, message).await;
    }
    let log = log(&bob.rest, locked).await;
    assert_gapless(&log);
    assert_eq!(log.len(), 1 + stuck.len());
}

/// However many conversations sleep, a send by socket is answered within 5 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_conversations_asleep_and_every_send_is_answered_in_time() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let mut asleep = Vec::new();
    for _ in 0..16 {
        asleep.push(group(&alice, &[&bob]).await);
    }
    let (mut alices, _) = alice.socket().await;
    for conversation in &asleep {
        insist(&mut alices, &shared(*conversation, "warm")).await;
    }
    let own = connect(&node.store_url).await;
    own.batch_execute("BEGIN; SELECT * FROM heads FOR UPDATE").await.unwrap();
    let begun = Instant::now();
    let messages: Vec<_> = asleep.iter().map(|conversation| shared(*conversation, "stuck")).collect();
    let answers = pipeline(&mut alices, &messages).await;
    let took = begun.elapsed();
    own.batch_execute("COMMIT").await.unwrap();
    for answer in answers {
        assert_eq!(code(answer), ErrorCode::Unavailable);
    }
    assert!(took < Duration::from_millis(5600), "{took:?}");
    for message in &messages {
        insist(&mut alices, message).await;
    }
    for conversation in &asleep {
        assert_eq!(log(&bob.rest, *conversation).await.len(), 2);
    }
}

/// What one side of test 15 knows at the end.
#[derive(Default)]
struct Side {
    stored: BTreeMap<(ConversationId, Seq), MessageId>,
    received: BTreeMap<(ConversationId, Seq), MessageId>,
}

impl Side {
    /// Reads on until as many messages have come as the other side has sent.
    async fn hear_the_rest(&mut self, socket: &mut Socket, count: usize) {
        while self.received.len() < count {
            let frame = socket.next_frame_within(PATIENCE).await.expect("the rest of the messages");
            if let Some(event) = frame.event().expect("an event") {
                socket.ack(frame.n.expect("numbered")).await.expect("sent");
                if let Event::NewMessage(message) = event {
                    self.received.insert((message.conversation_id, message.seq), message.message_id);
                }
            }
        }
    }
}

/// Sends to all conversations over and over, acknowledges everything, and marks it read.
async fn swing(mut socket: Socket, conversations: Vec<ConversationId>, until: Instant) -> (Socket, Side) {
    let mut side = Side::default();
    let mut marked: BTreeSet<u64> = BTreeSet::new();
    while Instant::now() < until {
        let mut open: HashMap<u64, OutgoingMessage> = HashMap::new();
        for conversation in &conversations {
            let message = shared(*conversation, "swing");
            open.insert(socket.request("send_message", &message).await.expect("sent"), message);
        }
        while !open.is_empty() {
            let frame = socket.next_frame_within(PATIENCE).await.expect("a frame");
            if let Some(message) = frame.re.and_then(|id| open.remove(&id)) {
                match frame.answer::<Sent>() {
                    Ok(sent) => {
                        side.stored.insert((sent.conversation_id, sent.seq), sent.message_id);
                    }
                    Err(error) => {
                        assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
                        open.insert(socket.request("send_message", &message).await.expect("sent"), message);
                    }
                }
            } else if frame.re.is_some_and(|id| marked.remove(&id)) {
                if let Err(error) = frame.answer::<serde_json::Value>() {
                    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
                }
            } else if let Some(event) = frame.event().expect("an event") {
                socket.ack(frame.n.expect("numbered")).await.expect("sent");
                if let Event::NewMessage(message) = event {
                    let body = serde_json::json!({"conversation_id": message.conversation_id, "up_to": message.seq});
                    marked.insert(socket.request("mark_read", &body).await.expect("sent"));
                    side.received.insert((message.conversation_id, message.seq), message.message_id);
                }
            }
        }
    }
    (socket, side)
}

/// Test 15: marks and appends over the same conversations in opposite order from two nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_and_appends_from_both_ends_do_not_deadlock() {
    let node = TestNode::start(Kind::Postgres).await;
    let other = node.sibling().await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let mut conversations = Vec::new();
    for _ in 0..SHARED_CONVERSATIONS {
        conversations.push(group(&alice, &[&bob]).await);
    }
    let backwards: Vec<_> = conversations.iter().rev().copied().collect();
    let until = Instant::now() + FROM_BOTH_ENDS;
    let here = tokio::spawn(swing(socket_at(&alice, &node).await, conversations.clone(), until));
    let there = tokio::spawn(swing(socket_at(&bob, &other).await, backwards, until));
    let (mut alices, mut hers) = here.await.expect("alice");
    let (mut bobs, mut his) = there.await.expect("bob");
    // What is still on its way arrives, by the sweep alone: each of the two has one sender to hear of.
    hers.hear_the_rest(&mut alices, his.stored.len()).await;
    his.hear_the_rest(&mut bobs, hers.stored.len()).await;
    assert_eq!(hers.received, his.stored);
    assert_eq!(his.received, hers.stored);
    for conversation in &conversations {
        assert_gapless(&log(&alice.rest, *conversation).await);
    }
    assert!(hers.stored.len() > 4 * SHARED_CONVERSATIONS, "only {} sends", hers.stored.len());
    // Statistics reach the view when a backend has been idle for a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let own = connect(&node.store_url).await;
    let text = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(own.query_one(text, &[]).await.unwrap().get::<_, i64>(0), 0, "deadlocks");
}
