//! Two people talk: REST, sockets, catching up. The main road.

use crate::support::node::TestNode;
use crate::support::on_both;
use crate::support::people::{enveloped, pair, second_device, shared};
use crate::support::wire::{ack, messages, next_message, next_of, quiet, send};
use sotto_client::protocol::event::Event;
use std::time::Duration;

on_both! {
    async fn a_message_reaches_a_socket_and_its_mark_comes_back(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let (mut bobs, _) = bob.socket().await;
        let (mut alices, _) = alice.socket().await;
        next_of(&mut bobs, "drained").await;
        next_of(&mut alices, "drained").await;

        let message = enveloped(conversation, &[&bob], "hello");
        let sent = send(&mut alices, &message).await;
        assert_eq!((sent.seq, sent.duplicate), (1, false));
        let (n, received) = next_message(&mut bobs).await;
        assert_eq!((received.message_id, received.seq), (message.message_id, 1));
        assert_eq!(received.ciphertext, Some(message.envelopes.as_ref().unwrap()[0].ciphertext.clone()));
        assert_eq!(received.after_seq, Some(0));

        ack(&mut bobs, n).await;
        let frame = next_of(&mut alices, "message_delivered").await;
        match frame.event().unwrap().unwrap() {
            Event::MessageDelivered(mark) => {
                assert_eq!((mark.user_id, mark.device_id, mark.up_to), (bob.user_id, bob.device_id, 1));
            }
            other => panic!("{other:?}"),
        }
        // The repeat is answered alike and stored once.
        let again = send(&mut alices, &message).await;
        assert_eq!((again.seq, again.server_time, again.duplicate), (1, sent.server_time, true));
        quiet(&mut bobs, Duration::from_millis(300)).await;
    }

    async fn who_was_away_catches_up_by_rest(database) {
        let node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let tablet = second_device(&node, &alice, "tablet").await;
        for text in ["one", "two", "three"] {
            alice.rest.send_message(&enveloped(conversation, &[&bob, &tablet], text), None).await.unwrap();
        }
        let mut seqs = Vec::new();
        loop {
            let page = bob.rest.sync(Some(2)).await.unwrap();
            let same = bob.rest.sync(Some(2)).await.unwrap();
            assert_eq!(page.events, same.events, "asking twice without an ack gives the same");
            seqs.extend(page.events.iter().filter_map(|event| match event {
                Event::NewMessage(message) => Some(message.seq),
                _ => None,
            }));
            bob.rest.sync_ack(&page.cursor).await.unwrap();
            if !page.has_more {
                break;
            }
        }
        assert_eq!(seqs, [1, 2, 3]);
        let (mut socket, welcome) = bob.socket().await;
        assert!(!welcome.pending, "everything was acknowledged");
        next_of(&mut socket, "drained").await;
        quiet(&mut socket, Duration::from_millis(300)).await;
        // The sender's other device got them too.
        let (mut other, welcome) = tablet.socket().await;
        assert!(welcome.pending);
        let got = messages(&mut other, 3).await;
        assert_eq!(got.iter().map(|(_, message)| message.seq).collect::<Vec<_>>(), [1, 2, 3]);
    }

    async fn an_acknowledged_message_outlives_a_kill(database) {
        let mut node = TestNode::start(database).await;
        let (alice, bob, conversation) = pair(&node).await;
        let sent = alice.rest.send_message(&shared(conversation, "kept"), None).await.unwrap();
        node.kill();
        node.restart().await;
        let (mut socket, _) = bob.socket().await;
        let (_, message) = next_message(&mut socket).await;
        assert_eq!((message.message_id, message.seq), (sent.message_id, 1));
    }
}
