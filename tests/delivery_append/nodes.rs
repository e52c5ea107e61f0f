//! Two nodes on one database and no bus between them: what one commits reaches the other's sockets by the sweep alone.

use super::{code, group, insist, socket_at, try_send};
use crate::support::database::Kind;
use crate::support::node::TestNode;
use crate::support::people::{enveloped, pair, register, second_device, shared};
use crate::support::wire::{ack, next_message, next_of};
use sotto_client::Socket;
use sotto_client::protocol::ErrorCode;
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_client::protocol::event::Event;
use sotto_client::rest::HistoryRange;
use std::time::{Duration, Instant};

/// A sweep comes each second; more is a failure, whatever the machine is doing.
const SWEPT: Duration = Duration::from_secs(5);

/// The next durable event of a type, within the time of a sweep.
async fn event(socket: &mut Socket, t: &str) -> (u64, Event) {
    let begun = Instant::now();
    let frame = next_of(socket, t).await;
    assert!(begun.elapsed() < SWEPT, "{t} after {:?}", begun.elapsed());
    (frame.n.unwrap(), frame.event().unwrap().unwrap())
}

/// Tests 1 and 12 in small: messages, receipts and account events, from one node to the other and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_alone_carries_everything() {
    let node = TestNode::start(Kind::Postgres).await;
    let other = node.sibling().await;
    let (alice, bob, conversation) = pair(&node).await;
    let (mut alices, mut bobs) = (socket_at(&alice, &node).await, socket_at(&bob, &other).await);
    next_of(&mut bobs, "drained").await;
    next_of(&mut alices, "drained").await;
    // Bob's node has the conversation in memory when Alice's commits.
    insist(&mut bobs, &shared(conversation, "hello")).await;
    let (n, hello) = next_message(&mut alices).await;
    ack(&mut alices, n).await;
    let Event::MessageDelivered(mark) = event(&mut bobs, "message_delivered").await.1 else { panic!() };
    assert_eq!((mark.device_id, mark.up_to), (alice.device_id, hello.seq));

    for round in 0..3 {
        let sent = insist(&mut alices, &shared(conversation, "across")).await;
        let (n, Event::NewMessage(message)) = event(&mut bobs, "new_message").await else { panic!() };
        assert_eq!((message.message_id, message.seq), (sent.message_id, sent.seq), "round {round}");
        ack(&mut bobs, n).await;
        let Event::MessageDelivered(mark) = event(&mut alices, "message_delivered").await.1 else { panic!() };
        assert_eq!((mark.device_id, mark.up_to), (bob.device_id, sent.seq));
        bob.at(&other).mark_read(conversation, sent.seq).await.unwrap();
        let Event::MessageReadUpdate(read) = event(&mut alices, "message_read_update").await.1 else { panic!() };
        assert_eq!((read.user_id, read.up_to), (bob.user_id, sent.seq));
    }
    let tablet = second_device(&node, &alice, "tablet").await;
    let Event::DevicesChanged(change) = event(&mut bobs, "devices_changed").await.1 else { panic!() };
    assert_eq!((change.user_id, change.added), (alice.user_id, vec![tablet.device_id]));
    let made = group(&alice, &[&bob]).await;
    loop {
        let Event::ConversationChanged(change) = event(&mut bobs, "conversation_changed").await.1 else { panic!() };
        if change.conversation.conversation_id == made {
            break;
        }
    }
}

/// Rules D9 and D12: a node that has the old members in memory must tell the new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_added_at_one_node_hears_at_the_other() {
    let node = TestNode::start(Kind::Postgres).await;
    let other = node.sibling().await;
    let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
    let carol = register(&node, "carol").await;
    let conversation = group(&alice, &[&bob]).await;
    let (mut alices, mut bobs) = (socket_at(&alice, &node).await, socket_at(&bob, &other).await);
    let mut carols = socket_at(&carol, &other).await;
    next_of(&mut carols, "drained").await;
    insist(&mut bobs, &shared(conversation, "before")).await;
    alice.rest.add_members(conversation, &[carol.user_id]).await.unwrap();
    let (_, Event::NewMessage(entry)) = event(&mut carols, "new_message").await else { panic!() };
    assert_eq!((entry.seq, entry.after_seq, entry.system.is_some()), (2, Some(1), true));
    let sent = insist(&mut alices, &shared(conversation, "after")).await;
    let (_, Event::NewMessage(message)) = event(&mut carols, "new_message").await else { panic!() };
    assert_eq!((message.message_id, message.seq), (sent.message_id, 3));
    // Her answer is taken where the old members are in memory, too.
    insist(&mut carols, &shared(conversation, "thanks")).await;

    // The last message of an interval, committed just before its end, reaches a member who is none any more.
    let last = insist(&mut alices, &shared(conversation, "goodbye")).await;
    alice.rest.remove_members(conversation, &[carol.user_id]).await.unwrap();
    insist(&mut alices, &shared(conversation, "behind her back")).await;
    let (_, Event::NewMessage(message)) = event(&mut carols, "new_message").await else { panic!() };
    assert_eq!((message.message_id, message.seq), (last.message_id, last.seq));
    let until = Instant::now() + Duration::from_millis(2500);
    while let Ok(frame) = carols.next_frame_within(until.saturating_duration_since(Instant::now())).await {
        assert_ne!(frame.t, "new_message", "{}", frame.d);
    }
    assert_eq!(code(try_send(&mut carols, &shared(conversation, "no")).await), ErrorCode::Forbidden);
}

/// Two receipts meet: one raised here concerns fewer people than the one before it, which was raised elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_of_another_node_is_not_hidden_by_a_later_one_of_this() {
    let node = TestNode::start(Kind::Postgres).await;
    let other = node.sibling().await;
    let (alice, bob, conversation) = pair(&node).await;
    let (mut alices, mut bobs) = (socket_at(&alice, &node).await, socket_at(&bob, &other).await);
    for round in 0..3 {
        insist(&mut bobs, &shared(conversation, "from bob")).await;
        next_message(&mut alices).await;
        let sent = insist(&mut alices, &shared(conversation, "from alice")).await;
        let (n, message) = next_message(&mut bobs).await;
        assert_eq!(message.seq, sent.seq);
        // Alice reads on her node; before any sweep bob's acknowledgement takes the next version on his.
        alice.rest.mark_read(conversation, sent.seq).await.unwrap();
        ack(&mut bobs, n).await;
        let (n, Event::MessageReadUpdate(read)) = event(&mut bobs, "message_read_update").await else { panic!() };
        assert_eq!((read.user_id, read.up_to), (alice.user_id, sent.seq), "round {round}");
        ack(&mut bobs, n).await;
    }
}

/// Test 12: a device was added at one node; the other takes no list without it, whatever it remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_list_is_refused_where_the_news_has_not_come() {
    let node = TestNode::start(Kind::Postgres).await;
    let other = node.sibling().await;
    let (alice, bob, conversation) = pair(&node).await;
    let mut alices = socket_at(&alice, &node).await;
    let mut known = vec![];
    for round in 0..4 {
        let list: Vec<_> = std::iter::once(&bob).chain(&known).collect();
        insist(&mut alices, &enveloped(conversation, &list, "right")).await;
        let old = enveloped(conversation, &list, "old list");
        let roster = alice.rest.conversation(conversation).await.unwrap().roster;
        let added = second_device(&other, &bob, &format!("device {round}")).await;
        // At once: no sweep has told this node.
        let error = try_send(&mut alices, &old).await.unwrap_err();
        let problem = error.problem().unwrap();
        assert_eq!((problem.code, problem.status), (ErrorCode::DeviceListMismatch, 409), "round {round}");
        let missing = serde_json::json!([{"user_id": bob.user_id, "device_id": added.device_id}]);
        assert_eq!(problem.more["missing"], missing);
        let by_roster = sotto_client::protocol::message::OutgoingMessage {
            roster: Some(roster),
            ..shared(conversation, "old roster")
        };
        assert_eq!(code(try_send(&mut alices, &by_roster).await), ErrorCode::DeviceListMismatch);
        known.push(added);
    }
}

/// A node that has not heard of a removal yet must not store what the removed member sends (rule D8): the Journal
/// compares the membership again under the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_binds_where_the_news_has_not_come() {
    let node = TestNode::start(Kind::Postgres).await;
    let other = node.sibling().await;
    for _ in 0..5 {
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let group = CreateConversation { kind: ConversationType::Group, members: vec![bob.user_id], name: None };
        let (group, _) = alice.rest.create_conversation(&group, None).await.unwrap();
        let id = group.conversation_id;
        // The first node knows both as members now.
        bob.rest.send_message(&shared(id, "here"), None).await.unwrap();
        alice.at(&other).remove_members(id, &[bob.user_id]).await.unwrap();
        let refused = bob.rest.send_message(&shared(id, "still here?"), None).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Forbidden));
        let log = alice.rest.history(id, HistoryRange::default()).await.unwrap();
        assert_eq!(log.items.iter().map(|message| message.seq).collect::<Vec<_>>(), [1, 2]);
    }
}
