//! Batches of a few messages, each of which is tried on its own, and messages that do not wait for a transaction.

use super::contention::lock_head;
use super::{answer, assert_gapless, group, insist, log, pipeline, store_of};
use crate::support::database::{Kind, connect};
use crate::support::lock::waiting_for_locks;
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{Device, register, shared};
use crate::support::wire::{PATIENCE, ack, next_message};
use sotto_client::protocol::message::{Kind as MessageKind, Sender};
use sotto_client::protocol::{ConversationId, MessageId, Timestamp};
use sotto_schema::Store;
use sotto_schema::append::{Append, Appended, Batch, Patience};
use std::sync::Arc;

/// A message as a conversation hands it over that knows what the database knows.
async fn append(store: &Store, conversation: ConversationId, from: &Device) -> Append {
    let state = store.conversation_state(conversation).await.unwrap().expect("it is there");
    let present = state.members.iter().filter(|member| member.to_seq.is_none());
    Append {
        conversation_id: conversation,
        message_id: MessageId::ordered(),
        sender: Sender { user_id: from.user_id, device_id: from.device_id },
        kind: MessageKind::Text,
        ciphertext: Some(b"a few".to_vec().into()),
        envelopes: None,
        reply_to: None,
        client_seq: None,
        expires_in: None,
        membership_version: state.conversation.membership_version,
        device_versions: Some(present.map(|member| member.device_version).sum()),
        first_of_sender: false,
    }
}

async fn write(store: &Store, appends: Vec<Append>) -> Vec<Appended> {
    let batch = Batch { appends: appends.into_iter().map(Arc::new).collect(), ..Batch::default() };
    store.journal().write(Arc::new(batch), Patience::Skip, Timestamp::now()).await.unwrap().appended
}

on_both! {
    /// One can be stored at once and the others need a decision: each gets its own, and the members hear of what is new.
    async fn each_of_a_few_gets_its_own_outcome(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let store = store_of(&node).await;
        let mut appends = Vec::new();
        let mut first = Vec::new();
        for _ in 0..4 {
            let conversation = group(&alice, &[&bob]).await;
            bob.rest.send_message(&shared(conversation, "hers"), None).await.unwrap();
            first.push(alice.rest.send_message(&shared(conversation, "first"), None).await.unwrap());
            appends.push(append(&store, conversation, &alice).await);
        }
        appends[1].membership_version -= 1;
        appends[2].message_id = first[2].message_id;
        appends[3].device_versions = appends[3].device_versions.map(|sum| sum - 1);
        let (mut bobs, _) = bob.socket().await;
        let (told, at) = (appends[0].message_id, first[2].server_time);
        let outcome = write(&store, appends.clone()).await;
        assert!(matches!(outcome[0], Appended::Stored { seq: 3, .. }), "{outcome:?}");
        assert_eq!(outcome[1..], [Appended::Stale, Appended::Known { seq: first[2].seq, at }, Appended::Stale]);
        while next_message(&mut bobs).await.1.message_id != told {}
        for (place, append) in appends.iter().enumerate() {
            let log = log(&bob.rest, append.conversation_id).await;
            assert_gapless(&log);
            assert_eq!(log.len(), if place == 0 { 3 } else { 2 });
        }
    }
}

/// What another transaction holds is not waited for, and holds up none of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_few_is_held_by_another() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let (free, held) = (group(&alice, &[&bob]).await, group(&alice, &[&bob]).await);
    let store = store_of(&node).await;
    let own = connect(&node.store_url).await;
    lock_head(&own, held).await;
    let appends = vec![append(&store, held, &alice).await, append(&store, free, &alice).await];
    let outcome = write(&store, appends.clone()).await;
    assert!(matches!(outcome[..], [Appended::Locked, Appended::Stored { seq: 1, .. }]), "{outcome:?}");
    own.batch_execute("COMMIT").await.unwrap();
    let outcome = write(&store, appends).await;
    assert!(matches!(outcome[..], [Appended::Stored { seq: 1, .. }, Appended::Known { seq: 1, .. }]), "{outcome:?}");
}

/// An id that another transaction commits while ours waits for it fails the statement, and all of the transaction with it:
/// what went with it is stored all the same, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_of_one_of_a_few_is_taken_meanwhile() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let (taken, fresh) = (group(&alice, &[&bob]).await, group(&alice, &[&bob]).await);
    let store = store_of(&node).await;
    let (own, look) = (connect(&node.store_url).await, connect(&node.store_url).await);
    let appends = vec![append(&store, taken, &alice).await, append(&store, fresh, &alice).await];
    own.batch_execute("BEGIN").await.unwrap();
    own.batch_execute(&insert(&appends[0])).await.unwrap();
    let (at_work, ours) = (store.clone(), appends.clone());
    let writing = tokio::spawn(async move { write(&at_work, ours).await });
    waiting_for_locks(&look, 1).await;
    own.batch_execute("COMMIT").await.unwrap();
    let outcome = writing.await.unwrap();
    assert!(matches!(outcome[..], [Appended::Known { seq: 50, .. }, Appended::Stored { seq: 1, .. }]), "{outcome:?}");
    assert_eq!(log(&bob.rest, fresh).await, [(1, appends[1].message_id)]);
}

/// A row with the message's id far above the head, which is not touched.
fn insert(append: &Append) -> String {
    let Append { conversation_id, message_id, sender, .. } = append;
    format!(
        "INSERT INTO messages (conversation_id, seq, message_id, sender_user, sender_device, kind, ciphertext, created_at, \
         updated_at) VALUES ('{conversation_id}', 50, '{message_id}', '{}', '{}', 'text', 'by hand', now(), now())",
        sender.user_id, sender.device_id
    )
}

/// While a transaction of the Journal stands still, messages of other conversations are stored, in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_does_not_wait_for_a_transaction_of_others() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let (stuck, quick) = (group(&alice, &[&bob]).await, group(&alice, &[&bob]).await);
    let (mut alices, _) = alice.socket().await;
    for conversation in [stuck, quick] {
        // A sender's first message takes another way.
        insist(&mut alices, &shared(conversation, "warm")).await;
    }
    let store = store_of(&node).await;
    let (own, look) = (connect(&node.store_url).await, connect(&node.store_url).await);
    let waits = shared(stuck, "stands still");
    let by_hand = Append { message_id: waits.message_id, ..append(&store, stuck, &alice).await };
    own.batch_execute("BEGIN").await.unwrap();
    own.batch_execute(&insert(&by_hand)).await.unwrap();
    let standing = alices.request("send_message", &waits).await.unwrap();
    waiting_for_locks(&look, 1).await;
    let mut quick_ones = Vec::new();
    for text in ["one", "two", "three"] {
        quick_ones.push(alices.request("send_message", &shared(quick, text)).await.unwrap());
    }
    // The transaction gives up by itself after half a second: only the order of the answers tells.
    let mut answered = Vec::new();
    while answered.len() < 4 {
        let frame = alices.next_frame_within(PATIENCE).await.expect("an answer");
        answered.extend(frame.re.filter(|id| *id == standing || quick_ones.contains(id)));
        if answered.len() == 3 {
            own.batch_execute("COMMIT").await.unwrap();
        }
    }
    assert_eq!(answered, [quick_ones, vec![standing]].concat());
    let log = log(&bob.rest, quick).await;
    assert_gapless(&log);
    assert_eq!(log.len(), 4);
    let again = alices.request("send_message", &waits).await.unwrap();
    assert_eq!(answer(&mut alices, again).await.unwrap().seq, 50);
}

/// An acknowledgement is confirmed while the side lane waits for one lock after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_do_not_wait_for_what_is_held() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let free = group(&alice, &[&bob]).await;
    let (mut alices, _) = alice.socket().await;
    let (mut bobs, _) = bob.socket().await;
    let own = connect(&node.store_url).await;
    own.batch_execute("BEGIN").await.unwrap();
    let mut held = Vec::new();
    for _ in 0..6 {
        let conversation = group(&alice, &[&bob]).await;
        let text = format!("SELECT 1 FROM heads WHERE conversation_id = '{conversation}' FOR UPDATE");
        own.query_one(&text, &[]).await.unwrap();
        held.push(shared(conversation, "held"));
    }
    let look = connect(&node.store_url).await;
    let sending = tokio::spawn(async move { pipeline(&mut alices, &held).await });
    waiting_for_locks(&look, 1).await;
    alice.rest.send_message(&shared(free, "free"), None).await.unwrap();
    let (n, _) = next_message(&mut bobs).await;
    ack(&mut bobs, n).await;
    assert!(!sending.is_finished(), "the mark came after all that was held");
    own.batch_execute("COMMIT").await.unwrap();
    sending.await.unwrap();
}
