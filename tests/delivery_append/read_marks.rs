//! Read marks: set by number and by message, told to everybody but the device that set them.

use super::{group, socket_at};
use crate::support::database::{Kind, connect};
use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{pair, register, second_device, shared};
use crate::support::wire::{next_of, quiet};
use serde_json::json;
use sotto_client::protocol::event::{Event, Read};
use sotto_client::protocol::message::OutgoingMessage;
use sotto_client::protocol::{ErrorCode, MessageId};
use sotto_client::{Error, Socket};
use std::time::{Duration, Instant};

async fn read_update(socket: &mut Socket) -> Read {
    match next_of(socket, "message_read_update").await.event().unwrap().unwrap() {
        Event::MessageReadUpdate(read) => read,
        other => panic!("{other:?}"),
    }
}

fn refused(answer: Result<(), Error>) -> (ErrorCode, u16) {
    let error = answer.unwrap_err();
    let problem = error.problem().unwrap();
    (problem.code, problem.status)
}

on_both! {
    async fn a_read_mark_is_told_to_every_other_device(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let tablet = second_device(&node, &bob, "tablet").await;
        for text in ["one", "two", "three"] {
            alice.rest.send_message(&shared(conversation, text), None).await.unwrap();
        }
        let mut alices = socket_at(&alice, &node).await;
        let (mut bobs, mut tablets) = (socket_at(&bob, &node).await, socket_at(&tablet, &node).await);
        for socket in [&mut alices, &mut bobs, &mut tablets] {
            next_of(socket, "drained").await;
        }
        bob.rest.mark_read(conversation, 2).await.unwrap();
        for socket in [&mut alices, &mut tablets] {
            let read = read_update(socket).await;
            assert_eq!((read.conversation_id, read.user_id, read.up_to), (conversation, bob.user_id, 2));
        }
        // A smaller number changes nothing and is no error; the same by socket and by message.
        bob.rest.mark_read(conversation, 1).await.unwrap();
        let id = bobs.request("mark_read", &json!({"conversation_id": conversation, "up_to": 3})).await.unwrap();
        loop {
            let frame = bobs.next_frame_within(Duration::from_secs(5)).await.unwrap();
            if frame.re == Some(id) {
                assert_eq!(frame.t, "ok");
                break;
            }
            assert_ne!(frame.t, "message_read_update", "the device that reads is not told");
        }
        for socket in [&mut alices, &mut tablets] {
            assert_eq!(read_update(socket).await.up_to, 3);
        }
        quiet(&mut bobs, Duration::from_millis(1500)).await;
        let seen = alice.rest.conversation(conversation).await.unwrap();
        let bobs_mark = seen.members.iter().find(|member| member.user_id == bob.user_id).unwrap();
        assert_eq!((bobs_mark.read_up_to, seen.read_up_to), (3, 0));
        assert_eq!(bob.rest.conversation(conversation).await.unwrap().read_up_to, 3);
        // The next mark of the tablet is told to the phone.
        let sent = alice.rest.send_message(&shared(conversation, "four"), None).await.unwrap();
        tablet.rest.mark_read(conversation, sent.seq).await.unwrap();
        assert_eq!(read_update(&mut bobs).await.up_to, 4);
    }

    async fn a_mark_has_bounds(database) {
        let node = TestNode::start(database).await;
        let (alice, bob) = (register(&node, "alice").await, register(&node, "bob").await);
        let stranger = register(&node, "stranger").await;
        let conversation = group(&alice, &[&bob]).await;
        alice.rest.send_message(&shared(conversation, "one"), None).await.unwrap();
        let above = (ErrorCode::ValidationFailed, 422);
        assert_eq!(refused(bob.rest.mark_read(conversation, 2).await), above);
        assert_eq!(refused(bob.rest.mark_read(conversation, -1).await), above);
        let mut bobs = socket_at(&bob, &node).await;
        let id = bobs.request("mark_read", &json!({"conversation_id": conversation, "up_to": 2})).await.unwrap();
        let answer = loop {
            let frame = bobs.next_frame_within(Duration::from_secs(5)).await.unwrap();
            if frame.re == Some(id) {
                break frame;
            }
        };
        assert_eq!(answer.answer::<serde_json::Value>().unwrap_err().code(), Some(ErrorCode::ValidationFailed));
        assert_eq!(refused(stranger.rest.mark_read(conversation, 1).await), (ErrorCode::NotFound, 404));
        bob.rest.mark_read(conversation, 1).await.unwrap();
        // As soon as there is more, more can be read, even where a refusal was just given.
        let sent = alice.rest.send_message(&shared(conversation, "two"), None).await.unwrap();
        bob.rest.mark_read(conversation, sent.seq).await.unwrap();
        alice.rest.remove_members(conversation, &[bob.user_id]).await.unwrap();
        assert_eq!(refused(bob.rest.mark_read(conversation, 1).await), (ErrorCode::Forbidden, 403));
    }

    async fn a_message_is_read_by_its_id(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let stranger = register(&node, "stranger").await;
        let other = group(&alice, &[&bob]).await;
        alice.rest.send_message(&shared(conversation, "one"), None).await.unwrap();
        let message = shared(conversation, "two");
        alice.rest.send_message(&message, None).await.unwrap();
        bob.rest.mark_message_read(message.message_id, None).await.unwrap();
        assert_eq!(bob.rest.conversation(conversation).await.unwrap().read_up_to, 2);
        assert_eq!(refused(stranger.rest.mark_message_read(message.message_id, None).await), (ErrorCode::NotFound, 404));
        assert_eq!(refused(bob.rest.mark_message_read(MessageId::ordered(), None).await), (ErrorCode::NotFound, 404));
        assert_eq!(
            refused(bob.rest.mark_message_read(message.message_id, Some(other)).await),
            (ErrorCode::NotFound, 404)
        );
        // The same id in a second conversation: now it must be named.
        let twin = OutgoingMessage { conversation_id: other, ..message.clone() };
        alice.rest.send_message(&twin, None).await.unwrap();
        assert_eq!(refused(bob.rest.mark_message_read(message.message_id, None).await), (ErrorCode::Conflict, 409));
        bob.rest.mark_message_read(message.message_id, Some(other)).await.unwrap();
        assert_eq!(bob.rest.conversation(other).await.unwrap().read_up_to, 1);
        // For one who sees only one of them it is not ambiguous.
        let third = group(&alice, &[&stranger]).await;
        alice.rest.send_message(&OutgoingMessage { conversation_id: third, ..message.clone() }, None).await.unwrap();
        stranger.rest.mark_message_read(message.message_id, None).await.unwrap();
        assert_eq!(stranger.rest.conversation(third).await.unwrap().read_up_to, 1);
    }
}

/// A refusal is decided by one look at the database, however long that takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_does_not_turn_a_refusal_into_a_circle() {
    let node = TestNode::start(Kind::Postgres).await;
    let (alice, bob, conversation) = pair(&node).await;
    alice.rest.send_message(&shared(conversation, "one"), None).await.unwrap();
    let own = connect(&node.store_url).await;
    // Whoever joins the read marks waits a little.
    own.batch_execute(
        "ALTER TABLE reads RENAME TO quick_reads; CREATE FUNCTION nap() RETURNS boolean VOLATILE LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(0.15); RETURN true; END $$; \
         CREATE VIEW reads AS SELECT quick_reads.* FROM (SELECT nap() AS slept OFFSET 0) AS n \
         LEFT JOIN quick_reads ON n.slept",
    )
    .await
    .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    assert_eq!(refused(bob.rest.mark_read(conversation, 9).await), (ErrorCode::ValidationFailed, 422));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
